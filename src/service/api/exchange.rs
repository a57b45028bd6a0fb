//! The parts that every request and response have in common.
//!
//! Generates the request id, echoes the ids of the client, catches panics, has `error` build the
//! body of an error, and writes one line to the access log. No header, path or body of a client
//! reaches the log; the route is our own text.

use std::{borrow::Cow, net::IpAddr, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use tracing::{Instrument, debug, error, info, info_span};

use super::{error::ApiError, now};
use aftertone_core::graph::ErrorIds;

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("client-request-id");
const SCENARIO_ID: HeaderName = HeaderName::from_static("scenario-id");

/// Longer ids of clients are not echoed.
const MAX_ID_BYTES: usize = 128;

/// Address of the client; an extension of the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// What a handler reports to the access log; an extension of the response.
#[derive(Debug, Clone, Default)]
pub(super) struct Audit {
    /// The route with its ids left out.
    pub(super) route: Cow<'static, str>,
    /// The authenticated application, if known.
    pub(super) application: Option<Arc<str>>,
    /// Whether this is a health probe, which comes every few seconds.
    pub(super) probe: bool,
}

/// Processes one request.
pub(super) async fn exchange(request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().map(|Peer(ip)| ip.to_canonical());
    let request_id = new_id();
    let mut line = AccessLine {
        started: Instant::now(),
        method: request.method().clone(),
        request_id: request_id.clone(),
        peer,
        is_written: false,
    };
    let client_request_id = sane_id(request.headers(), &CLIENT_REQUEST_ID);
    let client_request_id = client_request_id.unwrap_or_else(|| request_id.clone());
    let scenario_id = sane_id(request.headers(), &SCENARIO_ID);

    let span = info_span!("http", request.id = request_id);
    let answered = AssertUnwindSafe(next.run(request)).catch_unwind().instrument(span).await;
    let mut response = answered.unwrap_or_else(|_| {
        error!(request.id = request_id, "The handler of a request has panicked");
        ApiError::Internal.into_response()
    });
    let audit = response.extensions_mut().remove::<Audit>().unwrap_or_default();
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let ids = ErrorIds { request_id: &request_id, client_request_id: &client_request_id };
        response = error.response(now(), ids);
    }

    let headers = response.headers_mut();
    let scenario_id = scenario_id.as_deref();
    for (name, id) in [
        (REQUEST_ID, Some(request_id.as_str())),
        (CLIENT_REQUEST_ID, Some(&client_request_id)),
        (SCENARIO_ID, scenario_id),
    ] {
        if let Some(value) = id.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert(name, value);
        }
    }

    line.write(&audit, response.status().as_u16());
    response
}

/// The line of a request in the access log. It is also written when the client disconnects early:
/// the exchange is dropped then, and dropping the line writes it.
struct AccessLine {
    started: Instant,
    method: Method,
    request_id: String,
    peer: Option<IpAddr>,
    is_written: bool,
}

impl AccessLine {
    fn write(&mut self, audit: &Audit, status: u16) {
        self.is_written = true;
        let (method, request_id, ms) = (&self.method, &self.request_id, self.ms());
        let (route, application) = (&*audit.route, audit.application.as_deref());
        let peer = self.peer.map(tracing::field::display);
        if audit.probe {
            debug!(request.id = request_id, peer, status, ms, "{method} {route}");
        } else {
            info!(request.id = request_id, application, peer, status, ms, "{method} {route}");
        }
    }

    fn ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for AccessLine {
    fn drop(&mut self) {
        if !self.is_written {
            let (method, peer) = (&self.method, self.peer.map(tracing::field::display));
            info!(
                request.id = self.request_id,
                peer,
                ms = self.ms(),
                "{method} was broken off by the client"
            );
        }
    }
}

fn new_id() -> String {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string()
}

/// An id of the client that is safe to echo: short, visible ASCII.
fn sane_id(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let id = headers.get(name)?.to_str().ok()?;
    let visible = id.bytes().all(|byte| byte.is_ascii_graphic());
    (!id.is_empty() && id.len() <= MAX_ID_BYTES && visible).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, http::StatusCode, middleware, routing::get};
    use tower::ServiceExt;

    use super::*;
    use crate::service::api::fake::{CALL, Fake, TOKEN, json_of};

    fn router() -> Router {
        Router::new()
            .route("/panic", get(|| async { panic!("secret cause") as () }))
            .route("/fine", get(|| async { "fine" }))
            .layer(middleware::from_fn(exchange))
    }

    async fn ask(path: &str, headers: &[(&str, &str)]) -> Response {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_answered_without_its_cause() {
        let response = ask("/panic", &[("client-request-id", "mine")]).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let request_id = response.headers()["request-id"].to_str().unwrap().to_owned();
        assert_eq!(response.headers()["client-request-id"], "mine");
        let body = json_of(response).await;
        assert_eq!(body["error"]["code"], "UnknownError");
        assert_eq!(body["error"]["innerError"]["request-id"], request_id);
        assert_eq!(body["error"]["innerError"]["client-request-id"], "mine");
        assert!(!body.to_string().contains("secret"));
    }

    #[tokio::test]
    async fn ids_of_the_client_are_echoed_when_they_are_sane() {
        let response = ask("/fine", &[("Client-Request-Id", "c-1"), ("Scenario-Id", "s-1")]).await;
        assert_eq!(response.headers()["client-request-id"], "c-1");
        assert_eq!(response.headers()["scenario-id"], "s-1");

        let long = "x".repeat(MAX_ID_BYTES + 1);
        for id in ["", "two words", &long, "tab\tbed"] {
            let response = ask("/fine", &[("client-request-id", id), ("scenario-id", id)]).await;
            let headers = response.headers();
            assert_eq!(headers["client-request-id"], headers["request-id"], "{id:?}");
            assert_eq!(headers.get("scenario-id"), None);
        }
    }

    #[tokio::test]
    async fn the_access_log_has_one_line_and_no_secret() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let path = format!("/v1.0/communications/calls/{CALL}/record?secret-query=1");
        let headers = [("content-type", "application/json"), ("x-canary", "secret-header")];
        let body = r#"{"clientContext":"secret-body"}"#;
        let fake = Fake::new();
        fake.ask_with_body("POST", &path, TOKEN, &headers, body).await;
        fake.ask("GET", "/secret-path", "secret-token", &[]).await;
        drop(guard);

        let text = log.text();
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("status=")).collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("POST /communications/calls/{id}/record"), "{text}");
        assert!(lines[0].contains("status=200") && lines[0].contains("application=\"mybot\""));
        assert!(lines[1].contains("GET unknown") && lines[1].contains("status=404"), "{text}");
        assert!(!text.contains("secret") && !text.contains(TOKEN), "{text}");
    }

    #[tokio::test]
    async fn a_request_that_is_broken_off_leaves_a_line_with_its_peer() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let never = Router::new()
            .route("/never", get(std::future::pending::<()>))
            .layer(middleware::from_fn(exchange));
        let request = Request::builder()
            .uri("/never")
            .extension(Peer("192.0.2.7".parse().unwrap()))
            .body(Body::empty())
            .unwrap();
        let mut asking = Box::pin(never.oneshot(request));
        assert!(futures_util::poll!(&mut asking).is_pending());
        drop(asking);
        drop(guard);
        let text = log.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("GET was broken off by the client"), "{text}");
        assert!(text.contains("peer=192.0.2.7"), "{text}");
    }

    #[derive(Clone, Default)]
    struct Log(Arc<std::sync::Mutex<Vec<u8>>>);

    impl Log {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn each_request_has_its_own_id() {
        let (one, two) = (ask("/fine", &[]).await, ask("/fine", &[]).await);
        assert_ne!(one.headers()["request-id"], two.headers()["request-id"]);
    }
}
