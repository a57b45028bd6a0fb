//! `Idempotency-Key`: a repeated POST gets the first answer, for a day and across restarts.
//!
//! An answer is stored only when something was done. A refused request has changed nothing, so its
//! key becomes free again. A request with an unknown outcome keeps its key and is never executed a
//! second time. A request that has begun runs to its end, even if the client disconnects.
//!
//! A crash between the action and the stored answer does little harm. Calls do not survive the
//! process, so an action on a call has no effect any more. A call that was placed is found by its
//! id, which was stored with the key.

use aws_lc_rs::digest;
use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
        header::{CONTENT_TYPE, LOCATION},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tracing::warn;

use super::{
    body, deadline,
    error::{ApiError, JSON, ODATA_VERSION},
    request::GraphRequest,
};
use crate::drivers::store::{KeptAnswer, RequestKey};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longer keys are refused.
pub(super) const MAX_KEY: usize = 255;

/// Executes a request with a key, unless it was executed before. `uri` is that of the client.
///
/// # Errors
/// The key is in use or belongs to another request, or the body cannot be read.
pub(super) async fn once(
    asked: GraphRequest,
    key: String,
    uri: &Uri,
    places_call: bool,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let body = body::bytes_in_time(body, body::MAX_BYTES).await?;
    let turn = asked.state.under_way.turn(&asked.caller.application, key).await?;
    let fingerprint = fingerprint(&parts.method, uri, &body);
    let tasks = asked.state.clone();
    // This future is dropped when the client disconnects. A request that has begun must still store
    // its answer.
    tasks
        .to_its_end(async move {
            let (store, application) = (&asked.state.store, asked.application());
            let call = places_call.then_some(asked.next_call);
            let begun = store.begin_request(application, &turn.key, &fingerprint, call);
            let response = match deadline::acting(begun).await? {
                RequestKey::New => next.run(Request::from_parts(parts, Body::from(body))).await,
                RequestKey::Placed(call) => asked.placed(&call)?,
                RequestKey::Answered(answer) => return Ok(repeated(answer)),
                RequestKey::Unanswered => return Err(ApiError::KeyInUse),
                RequestKey::Taken => return Err(ApiError::KeyTaken),
            };
            keep(&asked, &turn.key, response).await
        })
        .await
}

/// Stores the answer, if something was done.
async fn keep(asked: &GraphRequest, key: &str, response: Response) -> Result<Response, ApiError> {
    // The outcome is unknown.
    if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
        return Ok(response);
    }
    let (response, kept) = match response.extensions().get::<ApiError>() {
        Some(_) => (response, None),
        None => {
            let (response, kept) = kept(response).await?;
            (response, Some(kept))
        }
    };
    let ended = asked.state.store.end_request(asked.application(), key, kept);
    // Without a stored answer, a repeated request is refused, but it is never executed again.
    if let Err(error) = deadline::acting(ended).await {
        warn!("The answer to a request with a key is not kept: {error}");
    }
    Ok(response)
}

/// The key of a request.
///
/// # Errors
/// The key is invalid, or there are several keys.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=MAX_KEY).contains(&key.len()));
    match (key, values.next()) {
        (Some(key), None) => Ok(Some(key.to_owned())),
        _ => Err(ApiError::Key(MAX_KEY)),
    }
}

fn fingerprint(method: &Method, target: &Uri, body: &[u8]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [method.as_str().as_bytes(), b" ", target.to_string().as_bytes(), b"\n", body] {
        context.update(part);
    }
    URL_SAFE_NO_PAD.encode(context.finish())
}

async fn kept(response: Response) -> Result<(Response, KeptAnswer), ApiError> {
    let (parts, body) = response.into_parts();
    // The body is our own: in memory and short.
    let bytes = axum::body::to_bytes(body, usize::MAX).await.map_err(|_| ApiError::Internal)?;
    let location = parts.headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let kept = KeptAnswer {
        status: parts.status.as_u16(),
        location: location.map(str::to_owned),
        body: String::from_utf8_lossy(&bytes).into_owned(),
    };
    Ok((Response::from_parts(parts, Body::from(bytes)), kept))
}

fn repeated(answer: KeptAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let has_body = !answer.body.is_empty();
    let mut response = (status, Body::from(answer.body)).into_response();
    let headers = response.headers_mut();
    headers.insert(REPLAYED, HeaderValue::from_static("true"));
    if has_body {
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(ODATA_VERSION.0, ODATA_VERSION.1);
    }
    let location = answer.location.and_then(|location| HeaderValue::try_from(location).ok());
    headers.extend(location.map(|location| (LOCATION, location)));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::api::fake::{CALL, Fake, LIMITED_TOKEN, TOKEN, bytes_of, json_of};
    use crate::service::{api::under_way::MAX_RUNNING, switchboard::CallError};

    fn posting(
        fake: &Fake,
        token: &str,
        action: &str,
        key: &str,
        body: &str,
    ) -> impl Future<Output = Response> + Send + use<> {
        let path = format!("/v1.0/communications/calls/{CALL}/{action}");
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        fake.asking("POST", &path, token, &headers, body)
    }

    async fn post(fake: &Fake, action: &str, key: &str, body: &str) -> Response {
        posting(fake, TOKEN, action, key, body).await
    }

    /// Lets the other tasks run until the fake has carried out a command.
    async fn until_a_command(fake: &Fake) {
        while fake.service.commands() == 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_gets_the_first_answer_later() {
        let fake = Fake::new();
        let gate = fake.service.hold();
        let asking = tokio::spawn(posting(&fake, TOKEN, "recordResponse", "k", "{}"));
        until_a_command(&fake).await;
        asking.abort();
        assert!(asking.await.unwrap_err().is_cancelled());
        gate.send_replace(true);
        let again = post(&fake, "recordResponse", "k", "{}").await;
        assert_eq!(again.status(), 200);
        assert_eq!(again.headers()["idempotency-replayed"], "true");
        assert_eq!(fake.service.commands(), 1);
        fake.state.finished().await;
    }

    #[tokio::test]
    async fn a_repetition_in_the_meantime_waits_for_the_first_answer() {
        let fake = Fake::new();
        let gate = fake.service.hold();
        let asking: Vec<_> = (0..10)
            .map(|_| tokio::spawn(posting(&fake, TOKEN, "recordResponse", "k", "{}")))
            .collect();
        until_a_command(&fake).await;
        gate.send_replace(true);
        let mut replayed = 0;
        for asked in asking {
            let response = asked.await.unwrap();
            assert_eq!(response.status(), 200);
            replayed += usize::from(response.headers().contains_key("idempotency-replayed"));
        }
        assert_eq!((replayed, fake.service.commands()), (9, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_repetition_does_not_wait_for_ever_and_not_too_many_are_under_way() {
        let fake = Fake::new();
        let _gate = fake.service.hold();
        let first = tokio::spawn(posting(&fake, TOKEN, "recordResponse", "0", "{}"));
        until_a_command(&fake).await;
        let again = tokio::spawn(posting(&fake, TOKEN, "recordResponse", "0", "{}"));
        let others: Vec<_> = (1..MAX_RUNNING)
            .map(|key| posting(&fake, TOKEN, "recordResponse", &key.to_string(), "{}"))
            .map(tokio::spawn)
            .collect();
        while fake.service.commands() < MAX_RUNNING {
            tokio::task::yield_now().await;
        }
        let refused = post(&fake, "recordResponse", "one more", "{}").await;
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["retry-after"], "1");
        for (asked, status) in [(first, 500), (again, 409)] {
            assert_eq!(asked.await.unwrap().status(), status);
        }
        for other in others {
            assert_eq!(other.await.unwrap().status(), 500);
        }
    }

    #[tokio::test]
    async fn an_answer_is_not_repeated_to_who_may_not_ask() {
        let fake = Fake::new();
        assert_eq!(post(&fake, "record", "k", "{}").await.status(), 200);
        // The fake does not distinguish applications.
        let refused = posting(&fake, LIMITED_TOKEN, "record", "k", "{}").await;
        assert_eq!(refused.status(), 403);
        assert_eq!(json_of(refused).await["error"]["code"], "7504");
    }

    #[tokio::test]
    async fn a_repeated_request_gets_the_first_answer() {
        let fake = Fake::new();
        let first = post(&fake, "recordResponse", "k", "{}").await;
        let location = first.headers()["location"].clone();
        assert!(!first.headers().contains_key("idempotency-replayed"));
        let first = bytes_of(first).await;
        let again = post(&fake, "recordResponse", "k", "{}").await;
        assert_eq!(again.status(), 200);
        assert_eq!(again.headers()["idempotency-replayed"], "true");
        assert_eq!(again.headers()["location"], location);
        assert_eq!(again.headers()["content-type"], JSON);
        assert_eq!(bytes_of(again).await, first);
        assert_eq!(fake.service.commands(), 1);
        post(&fake, "recordResponse", "another", "{}").await;
        assert_eq!(fake.service.commands(), 2);
    }

    #[tokio::test]
    async fn an_answer_without_a_body_is_repeated_too() {
        let fake = Fake::new();
        for _ in 0..2 {
            let response = post(&fake, "reject", "k", "{}").await;
            assert_eq!(response.status(), 202);
            assert_eq!(bytes_of(response).await, b"");
        }
        assert_eq!(fake.service.commands(), 1);
    }

    #[tokio::test]
    async fn the_key_of_another_request_is_refused() {
        let fake = Fake::new();
        post(&fake, "recordResponse", "k", "{}").await;
        for (action, body) in [("record", "{}"), ("recordResponse", r#"{"playBeep":false}"#)] {
            let response = post(&fake, action, "k", body).await;
            assert_eq!(response.status(), 400);
            assert_eq!(json_of(response).await["error"]["code"], "8523");
        }
        let long = "x".repeat(256);
        assert_eq!(post(&fake, "record", &long, "{}").await.status(), 400);
        assert_eq!(fake.service.commands(), 1);
    }

    #[tokio::test]
    async fn what_was_refused_may_be_tried_again() {
        let fake = Fake::new();
        fake.service.refuse(CallError::Overloaded { retry_after: 1 });
        assert_eq!(post(&fake, "record", "k", "{}").await.status(), 503);
        fake.service.accept();
        assert_eq!(post(&fake, "record", "bad", r#"{"playBeep":1}"#).await.status(), 400);
        assert_eq!(post(&fake, "record", "k", "{}").await.status(), 200);
        assert_eq!(fake.service.commands(), 1);
    }

    #[tokio::test]
    async fn what_nobody_knows_the_outcome_of_is_not_done_again() {
        let fake = Fake::new();
        fake.service.refuse(CallError::Internal);
        assert_eq!(post(&fake, "record", "k", "{}").await.status(), 500);
        fake.service.accept();
        let response = post(&fake, "record", "k", "{}").await;
        assert_eq!(response.status(), 409);
        assert_eq!(json_of(response).await["error"]["code"], "8519");
        assert_eq!(fake.service.commands(), 0);
    }
}
