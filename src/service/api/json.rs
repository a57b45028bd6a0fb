//! The JSON of answers.

use axum::{
    body::Body,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;

use super::error::{JSON, ODATA_VERSION};

pub(super) fn json(thing: &impl Serialize) -> Value {
    serde_json::to_value(thing).expect("texts, numbers and lists of them always serialise")
}

/// The answer 200 with this body.
pub(super) fn ok(thing: &Value) -> Response {
    let mut response = Body::from(thing.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(ODATA_VERSION.0, ODATA_VERSION.1);
    response
}
