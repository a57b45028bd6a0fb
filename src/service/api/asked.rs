//! An authenticated request, and the parts that answers have in common.

use axum::{
    body::Body,
    http::{header::CONTENT_TYPE, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;

use super::{
    ApiState,
    auth::Caller,
    error::{JSON, ODATA_VERSION},
};
use aftertone_core::{
    graph::{GraphContext, Version},
    model::CallId,
};

/// An authenticated request.
pub(super) struct Asked<'a> {
    pub(super) state: &'a ApiState,
    pub(super) caller: Caller,
    pub(super) graph: GraphContext,
    pub(super) parts: &'a Parts,
    /// Id for the call that this request may place.
    pub(super) next_call: CallId,
}

impl<'a> Asked<'a> {
    pub(super) fn new(
        state: &'a ApiState,
        caller: Caller,
        version: Version,
        parts: &'a Parts,
    ) -> Self {
        let next_call = CallId::from_random(rand::random());
        Self { state, caller, graph: state.graph_context(version), parts, next_call }
    }
}

pub(super) fn json(thing: &impl Serialize) -> Value {
    serde_json::to_value(thing).expect("texts, numbers and lists of them always serialise")
}

pub(super) fn ok(thing: &Value) -> Response {
    let mut response = Body::from(thing.to_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(ODATA_VERSION.0, ODATA_VERSION.1);
    response
}
