//! The only place that turns an error into a response (contract section 7).
//!
//! A handler returns an [`ApiError`]. [`crate::service::api::exchange`] knows the ids of the
//! request and builds the response. The client never learns details of an internal error, only the
//! request's id.

use axum::{
    body::Body,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{ALLOW, CONTENT_RANGE, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};

use super::{auth::AuthError, query::InvalidQuery, store::RecordingError};
use crate::{drivers::tokens::TokenError, service::switchboard::CallError};
use aftertone_core::{
    graph::{ErrorBody, ErrorIds, InvalidBody},
    model::UnixMillis,
};

/// Media type of every JSON response of the Graph API.
pub(super) const JSON: HeaderValue =
    HeaderValue::from_static("application/json; odata.metadata=minimal; charset=utf-8");

/// OData version of the responses.
pub(super) const ODATA_VERSION: (HeaderName, HeaderValue) =
    (HeaderName::from_static("odata-version"), HeaderValue::from_static("4.0"));

/// Longer segments of a path are cut in a message.
const MAX_SEGMENT_CHARS: usize = 100;

/// Why a request fails. The display text is the message for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ApiError {
    /// The request is not authenticated.
    #[error("{0}")]
    Unauthenticated(#[from] AuthError),
    /// The caller lacks this role.
    #[error("Insufficient enterprise tenant permissions, cannot access this API. {0} is needed.")]
    MissingRole(&'static str),
    /// The client names another tenant.
    #[error("Request authorization tenant mismatch.")]
    TenantMismatch,
    /// The client places a call with another application as its source.
    #[error("Call source identity mismatch: the source is not the application of the token.")]
    SourceMismatch,
    /// The path does not exist.
    #[error("Resource not found for the segment '{0}'.")]
    UnknownSegment(String),
    /// The operation does not exist.
    #[error("Operation not found.")]
    NoOperation,
    /// The participant does not exist.
    #[error("Participant not found.")]
    NoParticipant,
    /// The notification does not exist, or its delivery was not abandoned.
    #[error("Notification not found.")]
    NoNotification,
    /// The recording does not exist.
    #[error("Recording not found.")]
    NoRecording,
    /// The resource exists, but does not allow the method.
    #[error("The method is not allowed here; allowed: {allow}.")]
    Method {
        /// The methods that it allows.
        allow: &'static str,
    },
    /// Graph has this resource, but this server does not.
    #[error("{0} is not available on this server.")]
    NotImplemented(&'static str),
    /// The call service refused the request.
    #[error("{0}")]
    Call(#[from] CallError),
    /// The JSON does not fit the schema.
    #[error("{0}.")]
    Body(#[from] InvalidBody),
    /// The body is not JSON; with the position of the error.
    #[error("The body is not JSON: {0}.")]
    Json(String),
    /// The body ended before its declared end.
    #[error("The body could not be read to its end.")]
    BodyCut,
    /// The body took too long to arrive.
    #[error("The body did not come within {0} seconds.")]
    BodySlow(u64),
    /// The body is too large.
    #[error("The body may have at most {0} bytes.")]
    TooLarge(usize),
    /// The body has another media type.
    #[error("The body must be application/json.")]
    MediaType,
    /// The content coding of the body is not supported.
    #[error("The body may be packed with gzip, or not at all.")]
    Coding,
    /// The body is declared as gzip, but is not; with the reason.
    #[error("The body is not gzip: {0}.")]
    Gzip(String),
    /// An OData option that is not supported.
    #[error("{0}")]
    Query(#[from] InvalidQuery),
    /// The store of the recordings does not answer now.
    #[error("Recordings cannot be reached at the moment; try again later.")]
    RecordingsAway,
    /// The requested range is outside the recording.
    #[error("The recording has {bytes} bytes; the range is not in it.")]
    Range {
        /// Size of the recording in bytes.
        bytes: u64,
    },
    /// The answer did not come in time; nothing was changed.
    #[error("The server did not answer in time; try again later.")]
    TooSlow,
    /// The answer did not come in time; something may have been changed.
    #[error("The outcome of the action is not known; look at the call before trying again.")]
    OutcomeUnknown,
    /// The application asked to put its own side on hold.
    #[error("The application cannot put itself on hold; name the other participant.")]
    OwnHold,
    /// The `Idempotency-Key` is invalid.
    #[error("Idempotency-Key must be one value of 1 to {0} visible characters.")]
    Key(usize),
    /// The first request with this key has no answer yet, or its answer was lost in a restart.
    #[error(
        "The first request with this Idempotency-Key has no answer yet, or lost it in a restart; \
         look at the call before trying again with another key."
    )]
    KeyInUse,
    /// The key belongs to a different request.
    #[error("This Idempotency-Key belongs to another request.")]
    KeyTaken,
    /// An internal error.
    #[error("An internal error occurred.")]
    Internal,
}

impl ApiError {
    /// The path does not exist, from this segment on.
    pub(super) fn unknown_segment(name: &str) -> Self {
        Self::UnknownSegment(name.chars().take(MAX_SEGMENT_CHARS).collect())
    }

    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Unauthenticated(AuthError::Token(TokenError::Unavailable)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable")
            }
            Self::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "InvalidAuthenticationToken"),
            Self::MissingRole(_) => (StatusCode::FORBIDDEN, "7504"),
            Self::TenantMismatch => (StatusCode::FORBIDDEN, "7505"),
            Self::SourceMismatch => (StatusCode::FORBIDDEN, "7507"),
            Self::UnknownSegment(_) | Self::NoRecording => {
                (StatusCode::NOT_FOUND, "ResourceNotFound")
            }
            Self::NoOperation
            | Self::NoParticipant
            | Self::NoNotification
            | Self::Call(CallError::NotFound) => (StatusCode::NOT_FOUND, "8522"),
            Self::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
            Self::NotImplemented(_) => (StatusCode::NOT_IMPLEMENTED, "8520"),
            Self::Call(CallError::NotEstablished) => (StatusCode::BAD_REQUEST, "8501"),
            Self::Call(CallError::Terminated) => (StatusCode::BAD_REQUEST, "8528"),
            Self::Call(CallError::WrongState) => (StatusCode::BAD_REQUEST, "8585"),
            Self::Call(CallError::NoWay) => (StatusCode::FORBIDDEN, "8543"),
            Self::Call(CallError::TrunkFull) => (StatusCode::TOO_MANY_REQUESTS, "8530"),
            Self::Call(CallError::QueueFull) => (StatusCode::TOO_MANY_REQUESTS, "8516"),
            Self::Call(CallError::Conflict) | Self::KeyInUse => (StatusCode::CONFLICT, "8519"),
            Self::OwnHold | Self::Key(_) | Self::KeyTaken => (StatusCode::BAD_REQUEST, "8523"),
            Self::Call(CallError::Overloaded { .. } | CallError::NoDisk)
            | Self::TooSlow
            | Self::RecordingsAway => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            Self::Body(error) => (StatusCode::BAD_REQUEST, error.code()),
            Self::Json(_) | Self::Gzip(_) | Self::BodyCut | Self::Query(_) => {
                (StatusCode::BAD_REQUEST, "BadRequest")
            }
            Self::BodySlow(_) => (StatusCode::REQUEST_TIMEOUT, "RequestTimeout"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge"),
            Self::MediaType | Self::Coding => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType")
            }
            Self::Range { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange"),
            Self::Call(CallError::Internal | CallError::Unanswered)
            | Self::OutcomeUnknown
            | Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "UnknownError"),
        }
    }

    /// The header field that belongs to the status.
    fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Unauthenticated(AuthError::Token(TokenError::Unavailable)) => {
                Some((RETRY_AFTER, HeaderValue::from(10_u32)))
            }
            Self::Unauthenticated(_) => {
                Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")))
            }
            Self::Method { allow } => Some((ALLOW, HeaderValue::from_static(allow))),
            Self::Call(CallError::Overloaded { retry_after }) => {
                Some((RETRY_AFTER, HeaderValue::from(*retry_after)))
            }
            Self::Call(CallError::TrunkFull) => Some((RETRY_AFTER, HeaderValue::from(5_u32))),
            // Disk space becomes free when clips expire.
            Self::Call(CallError::NoDisk) => Some((RETRY_AFTER, HeaderValue::from(30_u32))),
            Self::TooSlow | Self::RecordingsAway | Self::Call(CallError::QueueFull) => {
                Some((RETRY_AFTER, HeaderValue::from(1_u32)))
            }
            // RFC 9110 section 14.4: the size, so that the client can request a valid range.
            Self::Range { bytes } => HeaderValue::try_from(format!("bytes */{bytes}"))
                .ok()
                .map(|range| (CONTENT_RANGE, range)),
            _ => None,
        }
    }

    /// The complete response to the request with these ids.
    pub(super) fn response(&self, at: UnixMillis, ids: ErrorIds<'_>) -> Response {
        let (status, code) = self.status_and_code();
        let body = ErrorBody::new(code, self.to_string(), at, ids);
        let json = serde_json::to_vec(&body).expect("strings always serialise");
        let mut response = (status, Body::from(json)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(ODATA_VERSION.0, ODATA_VERSION.1);
        if let Some((name, value)) = self.header() {
            headers.insert(name, value);
        }
        response
    }
}

impl From<RecordingError> for ApiError {
    fn from(error: RecordingError) -> Self {
        match error {
            RecordingError::NotFound => Self::NoRecording,
            RecordingError::Unavailable => Self::RecordingsAway,
            RecordingError::Forbidden => Self::Unauthenticated(TokenError::Invalid.into()),
        }
    }
}

impl IntoResponse for ApiError {
    /// Passes the error on to [`crate::service::api::exchange`], which alone knows the ids for the
    /// body.
    fn into_response(self) -> Response {
        let mut response = self.status_and_code().0.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::HeaderMap;

    use super::*;

    fn told(error: ApiError) -> (StatusCode, &'static str, HeaderMap) {
        let (status, code) = error.status_and_code();
        let ids = ErrorIds { request_id: "r", client_request_id: "c" };
        let response = error.response(UnixMillis(0), ids);
        assert_eq!(response.status(), status);
        (status, code, response.headers().clone())
    }

    #[test]
    fn errors_have_the_codes_of_the_contract() {
        let table = [
            (ApiError::Unauthenticated(AuthError::Missing), 401, "InvalidAuthenticationToken"),
            (ApiError::MissingRole("x"), 403, "7504"),
            (ApiError::UnknownSegment("x".to_owned()), 404, "ResourceNotFound"),
            (ApiError::NoOperation, 404, "8522"),
            (ApiError::NotImplemented("mute"), 501, "8520"),
            (CallError::NotFound.into(), 404, "8522"),
            (CallError::NotEstablished.into(), 400, "8501"),
            (CallError::Terminated.into(), 400, "8528"),
            (CallError::WrongState.into(), 400, "8585"),
            (CallError::Conflict.into(), 409, "8519"),
            (CallError::Internal.into(), 500, "UnknownError"),
            (ApiError::TooLarge(1), 413, "RequestEntityTooLarge"),
            (ApiError::MediaType, 415, "UnsupportedMediaType"),
            (ApiError::Coding, 415, "UnsupportedMediaType"),
            (ApiError::Gzip("x".to_owned()), 400, "BadRequest"),
            (ApiError::OutcomeUnknown, 500, "UnknownError"),
        ];
        for (error, status, code) in table {
            let (got_status, got_code, headers) = told(error);
            assert_eq!((got_status.as_u16(), got_code), (status, code));
            assert_eq!(headers[CONTENT_TYPE], JSON);
        }
    }

    #[test]
    fn statuses_come_with_their_headers() {
        let (.., headers) = told(ApiError::Unauthenticated(TokenError::Expired.into()));
        assert_eq!(headers[WWW_AUTHENTICATE], "Bearer");
        let (.., headers) = told(ApiError::Method { allow: "GET, DELETE" });
        assert_eq!(headers[ALLOW], "GET, DELETE");
        let (status, .., headers) = told(CallError::Overloaded { retry_after: 7 }.into());
        assert_eq!((status.as_u16(), headers[RETRY_AFTER].to_str().unwrap()), (503, "7"));
        let (.., headers) = told(ApiError::Range { bytes: 44 });
        assert_eq!(headers[CONTENT_RANGE], "bytes */44");
    }
}
