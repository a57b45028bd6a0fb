//! `recordingLocation`: downloads and deletes one clip for a client that has its token (contract
//! section 4).
//!
//! An application that may access media can also open its own clips, and those of the built-in
//! lines, with its own token. Only the `Authorization` header is read for the token, because URLs
//! end up in logs. The file is streamed for as long as the recording is available
//! ([`super::download`]). A single range is supported (RFC 9110 section 14). `If-Range` is ignored,
//! because the bytes of a recording never change.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
            CONTENT_TYPE, RANGE,
        },
    },
    response::{IntoResponse, Response},
};

use super::{
    ApiState,
    auth::{ACCESS_MEDIA, bearer_token},
    deadline,
    download::Download,
    error::ApiError,
    exchange::Audit,
    now,
    store::{OpenRecording, RecordingKey},
};
use aftertone_core::model::RecordingId;

/// `/recordings/{id}`.
pub(super) async fn recording(
    State(state): State<ApiState>,
    Path(id): Path<String>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let mut application = None;
    let answered = answer(&state, &id, &method, &headers, &mut application).await;
    let mut response = answered.unwrap_or_else(IntoResponse::into_response);
    let audit = Audit { route: "/recordings/{id}".into(), application, probe: false };
    response.extensions_mut().insert(audit);
    response
}

async fn answer(
    state: &ApiState,
    id: &str,
    method: &Method,
    headers: &HeaderMap,
    application: &mut Option<Arc<str>>,
) -> Result<Response, ApiError> {
    if ![Method::GET, Method::HEAD, Method::DELETE].contains(method) {
        return Err(ApiError::Method { allow: "GET, HEAD, DELETE" });
    }
    let token = bearer_token(headers)?;
    let id: RecordingId = id.parse().map_err(|_| ApiError::NoRecording)?;
    let credentials = state.credentials.borrow().clone();
    let caller = credentials.authenticate(headers, now()).await.ok();
    *application = caller.as_ref().map(|caller| Arc::clone(&caller.application));
    let key = match caller.as_ref().filter(|caller| caller.has_role(ACCESS_MEDIA)) {
        Some(caller) => RecordingKey::Application(&caller.application),
        None => RecordingKey::Token(token),
    };
    if *method == Method::DELETE {
        // A DELETE can safely be repeated, so an unknown outcome is no problem.
        deadline::reading(state.store.delete_recording(id, key)).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let open = deadline::reading(state.store.recording(id, key)).await?;
    let range = match *method {
        // RFC 9110 section 14.2: ranges are defined for GET.
        Method::GET => Range::read(headers, open.bytes)?,
        _ => Range::whole(open.bytes),
    };
    let body = match *method {
        Method::GET => streamed(state, id, open, range),
        _ => Body::empty(),
    };
    Ok(range.response(id, body))
}

/// The part of the file to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u64,
    length: u64,
    of: u64,
    partial: bool,
}

impl Range {
    fn whole(bytes: u64) -> Self {
        Self { first: 0, length: bytes, of: bytes, partial: false }
    }

    /// The requested range. An invalid header, or several ranges, are answered with the whole file,
    /// as RFC 9110 section 14.2 allows.
    fn read(headers: &HeaderMap, bytes: u64) -> Result<Self, ApiError> {
        let whole = Ok(Self::whole(bytes));
        let Some(value) = headers.get(RANGE).and_then(|value| value.to_str().ok()) else {
            return whole;
        };
        let Some((unit, range)) = value.split_once('=') else { return whole };
        let Some((first, last)) = range.trim().split_once('-') else { return whole };
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return whole;
        }
        let unsatisfiable = Err(ApiError::Range { bytes });
        // Digits only: `parse` would also accept `+5`.
        let number = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            (digits && !text.is_empty()).then(|| text.parse::<u64>().unwrap_or(u64::MAX))
        };
        let (first, end) = match (number(first), number(last)) {
            (Some(first), Some(last)) if last < first => return whole,
            (Some(first), Some(last)) => (first, last.saturating_add(1).min(bytes)),
            (Some(first), None) if last.is_empty() => (first, bytes),
            (None, Some(0)) if first.is_empty() => return unsatisfiable,
            (None, Some(suffix)) if first.is_empty() => (bytes.saturating_sub(suffix), bytes),
            _ => return whole,
        };
        if first >= bytes {
            return unsatisfiable;
        }
        Ok(Self { first, length: end - first, of: bytes, partial: true })
    }

    fn response(self, id: RecordingId, body: Body) -> Response {
        let status = if self.partial { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(self.length));
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let name = format!("attachment; filename=\"{id}.wav\"");
        if let Ok(name) = HeaderValue::try_from(name) {
            headers.insert(CONTENT_DISPOSITION, name);
        }
        if self.partial {
            let last = self.first + self.length - 1;
            let range = format!("bytes {}-{last}/{}", self.first, self.of);
            if let Ok(range) = HeaderValue::try_from(range) {
                headers.insert(CONTENT_RANGE, range);
            }
        }
        response
    }
}

fn streamed(state: &ApiState, id: RecordingId, mut open: OpenRecording, range: Range) -> Body {
    open.file.seek(range.first);
    Download::new(Arc::clone(&state.store), id, open, range.length).into_body()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::service::api::fake::{
        Fake, RECORDING, RECORDING_BYTES, RECORDING_TOKEN, bytes_of, json_of,
    };

    fn path() -> String {
        format!("/recordings/{RECORDING}")
    }

    fn range(value: &str, bytes: u64) -> Result<Range, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, value.parse().unwrap());
        Range::read(&headers, bytes)
    }

    #[tokio::test]
    async fn the_token_opens_the_whole_clip() {
        let fake = Fake::new();
        let response = fake.ask("GET", &path(), RECORDING_TOKEN, &[]).await;
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        assert_eq!(headers["content-type"], "application/octet-stream");
        assert_eq!(headers["content-length"], "1000");
        assert_eq!(headers["accept-ranges"], "bytes");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(
            headers["content-disposition"],
            format!("attachment; filename=\"{RECORDING}.wav\"")
        );
        assert!(headers.contains_key("request-id"));
        assert_eq!(bytes_of(response).await, *RECORDING_BYTES);
    }

    #[tokio::test]
    async fn head_has_the_headers_and_no_body() {
        let fake = Fake::new();
        let range = [("range", "bytes=0-1")];
        let response = fake.ask("HEAD", &path(), RECORDING_TOKEN, &range).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-length"], "1000");
        assert_eq!(bytes_of(response).await, b"");
    }

    #[tokio::test]
    async fn a_range_is_served_alone() {
        let fake = Fake::new();
        let headers = [("range", "bytes=10-19"), ("if-range", "\"x\"")];
        let response = fake.ask("GET", &path(), RECORDING_TOKEN, &headers).await;
        assert_eq!(response.status(), 206);
        assert_eq!(response.headers()["content-range"], "bytes 10-19/1000");
        assert_eq!(response.headers()["content-length"], "10");
        assert_eq!(bytes_of(response).await, RECORDING_BYTES[10..20]);

        let response = fake.ask("GET", &path(), RECORDING_TOKEN, &[("range", "bytes=1000-")]).await;
        assert_eq!(response.status(), 416);
        assert_eq!(response.headers()["content-range"], "bytes */1000");
    }

    #[tokio::test]
    async fn no_other_token_opens_it() {
        let fake = Fake::new();
        for (token, message) in
            [("", "Access token is empty."), ("wrong", "Access token validation failure.")]
        {
            for method in ["GET", "DELETE"] {
                let response = fake.ask(method, &path(), token, &[]).await;
                assert_eq!(response.status(), 401);
                assert_eq!(response.headers()["www-authenticate"], "Bearer");
                let error = json_of(response).await;
                assert_eq!(error["error"]["code"], "InvalidAuthenticationToken");
                assert_eq!(error["error"]["message"], message);
            }
        }
        let in_url = format!("{}?access_token={RECORDING_TOKEN}", path());
        assert_eq!(fake.ask("GET", &in_url, "", &[]).await.status(), 401);
    }

    #[tokio::test]
    async fn a_deleted_recording_is_gone() {
        let fake = Fake::new();
        assert_eq!(fake.ask("DELETE", &path(), RECORDING_TOKEN, &[]).await.status(), 204);
        let response = fake.ask("GET", &path(), RECORDING_TOKEN, &[]).await;
        assert_eq!(response.status(), 404);
        assert_eq!(json_of(response).await["error"]["message"], "Recording not found.");
        assert_eq!(fake.ask("GET", "/recordings/x", RECORDING_TOKEN, &[]).await.status(), 404);
    }

    #[tokio::test]
    async fn a_store_that_cannot_be_asked_does_not_mean_that_the_recording_is_gone() {
        let fake = Fake::new();
        fake.service.set_away(true);
        for method in ["GET", "HEAD", "DELETE"] {
            let response = fake.ask(method, &path(), RECORDING_TOKEN, &[]).await;
            assert_eq!(response.status(), 503, "{method}");
            assert_eq!(response.headers()["retry-after"], "1");
        }
        fake.service.set_away(false);
        assert_eq!(fake.ask("GET", &path(), RECORDING_TOKEN, &[]).await.status(), 200);
    }

    #[tokio::test]
    async fn other_methods_are_refused() {
        let response = Fake::new().ask("POST", &path(), RECORDING_TOKEN, &[]).await;
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()["allow"], "GET, HEAD, DELETE");
    }

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        let part = |first, length| Ok(Range { first, length, of: 100, partial: true });
        let whole = Ok(Range::whole(100));
        let none = Err(ApiError::Range { bytes: 100 });
        let table = [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-99", part(0, 100)),
            ("bytes=90-", part(90, 10)),
            ("bytes=90-1000", part(90, 10)),
            ("bytes=-10", part(90, 10)),
            ("bytes=-1000", part(0, 100)),
            ("Bytes= 5-6", part(5, 2)),
            ("bytes=0-99999999999999999999999", part(0, 100)),
            ("bytes=100-", none.clone()),
            ("bytes=99999999999999999999999-", none.clone()),
            ("bytes=-0", none.clone()),
            ("bytes=5-4", whole.clone()),
            ("bytes=0-1,5-6", whole.clone()),
            ("bytes=-", whole.clone()),
            ("bytes=a-b", whole.clone()),
            ("bytes=+1-2", whole.clone()),
            ("bytes", whole.clone()),
            ("lines=1-2", whole.clone()),
        ];
        for (value, expected) in table {
            assert_eq!(range(value, 100), expected, "{value}");
        }
        assert_eq!(range("bytes=0-", 0), Err(ApiError::Range { bytes: 0 }));
    }

    proptest! {
        #[test]
        fn a_range_never_leaves_the_file(value in "(bytes=)?[0-9]{0,21}-?[0-9]{0,21}", bytes: u64) {
            if let Ok(range) = range(&value, bytes) {
                prop_assert!(range.first + range.length <= bytes);
                prop_assert!(!range.partial || range.length > 0);
            }
        }
    }
}
