//! The JSON of answers.

use axum::{
    body::Body,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;

use super::error::{JSON, ODATA_VERSION};

/// Why our answers can be written as JSON.
const SERIALISES: &str = "texts, numbers and lists of them always serialise";

/// A part of an answer.
pub(super) fn json(thing: &impl Serialize) -> Value {
    serde_json::to_value(thing).expect(SERIALISES)
}

/// The answer 200 with this body.
pub(super) fn ok(thing: &impl Serialize) -> Response {
    let text = serde_json::to_string(thing).expect(SERIALISES);
    let mut response = Body::from(text).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(ODATA_VERSION.0, ODATA_VERSION.1);
    response
}
