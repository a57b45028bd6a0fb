//! A request to the Graph API, as its handlers get it.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::request::Parts,
};
use serde_json::Value;

use super::{ApiState, auth::Caller, body, error::ApiError, query::QueryOptions};
use aftertone_core::{graph::GraphContext, model::CallId};

/// An admitted request to the Graph API.
#[derive(Clone)]
pub(super) struct GraphRequest {
    pub(super) state: ApiState,
    pub(super) caller: Caller,
    pub(super) graph: GraphContext,
    pub(super) query: Option<Arc<str>>,
    /// Id for the call that this request may place.
    pub(super) next_call: CallId,
}

impl GraphRequest {
    /// Name of the application that has sent the request.
    pub(super) fn application(&self) -> &str {
        &self.caller.application
    }

    pub(super) fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }
}

impl<S: Sync> FromRequestParts<S> for GraphRequest {
    type Rejection = ApiError;

    /// Takes the request from the extensions, where the router has put it.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.remove().ok_or(ApiError::Internal)
    }
}

/// The JSON of an action; null when the body is empty. An action has no query options.
pub(super) struct ActionBody(pub(super) Value);

impl<S: Sync> FromRequest<S> for ActionBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        QueryOptions::for_action(request.uri().query())?;
        let (parts, body) = request.into_parts();
        Ok(Self(body::json(&parts.headers, body).await?))
    }
}
