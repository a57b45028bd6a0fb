//! `Idempotency-Key`: a POST that is repeated gets the first answer, for a day and across restarts.
//!
//! Only what was done is kept. A request that was refused has changed nothing, so that its key is free
//! again; one whose outcome nobody knows keeps its key, and is never done a second time.

use aws_lc_rs::digest;
use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
        header::{CONTENT_TYPE, LOCATION},
    },
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tracing::warn;

use super::{
    body,
    calls::Asked,
    deadline,
    error::{ApiError, JSON, ODATA_VERSION},
    house::{KeptAnswer, RequestKey},
};

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Longer keys are refused.
const MAX_KEY: usize = 255;

/// A request that may be a repeated one.
pub(super) struct Keyed<'a> {
    asked: &'a Asked<'a>,
    key: String,
}

/// What to do with a request.
pub(super) enum Turn<'a> {
    /// Do it, with this body.
    Do(Option<Keyed<'a>>, Body),
    /// This was the answer.
    Done(Response),
}

impl<'a> Keyed<'a> {
    /// Looks whether the request was made before.
    pub(super) async fn turn(asked: &'a Asked<'a>, body: Body) -> Result<Turn<'a>, ApiError> {
        let Some(key) = key(&asked.parts.headers)? else { return Ok(Turn::Do(None, body)) };
        let bytes = body::bytes_in_time(body).await?;
        let fingerprint = fingerprint(&asked.parts.method, &asked.parts.uri, &bytes);
        let begun = asked.state.house.begin_request(asked.application(), &key, &fingerprint);
        match deadline::acting(begun).await? {
            RequestKey::New => Ok(Turn::Do(Some(Self { asked, key }), Body::from(bytes))),
            RequestKey::Answered(answer) => Ok(Turn::Done(repeated(answer))),
            RequestKey::Unanswered => Err(ApiError::KeyInUse),
            RequestKey::Taken => Err(ApiError::KeyTaken),
        }
    }

    /// Keeps the answer, if something was done.
    pub(super) async fn keep(
        self,
        answered: Result<Response, ApiError>,
    ) -> Result<Response, ApiError> {
        let (answered, kept) = match answered {
            Ok(response) => {
                let (response, kept) = kept(response).await?;
                (Ok(response), Some(kept))
            }
            // Nobody knows what was done.
            Err(error) if error.status() == StatusCode::INTERNAL_SERVER_ERROR => return Err(error),
            Err(error) => (Err(error), None),
        };
        let house = &self.asked.state.house;
        let ended = house.end_request(self.asked.application(), &self.key, kept);
        // Without it a repeated request is refused, and still not done again.
        if let Err(error) = deadline::acting(ended).await {
            warn!("The answer to a request with a key is not kept: {error}");
        }
        answered
    }
}

fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
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
    // Our own, in memory and short.
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
    use crate::api::{
        CallError,
        fake::{CALL, Fake, TOKEN, bytes_of, json_of},
    };

    async fn post(fake: &Fake, action: &str, key: &str, body: &str) -> Response {
        let path = format!("/v1.0/communications/calls/{CALL}/{action}");
        let headers = [("content-type", "application/json"), ("idempotency-key", key)];
        fake.ask_with_body("POST", &path, TOKEN, &headers, body).await
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
        assert_eq!(fake.house.commands(), 1);
        post(&fake, "recordResponse", "another", "{}").await;
        assert_eq!(fake.house.commands(), 2);
    }

    #[tokio::test]
    async fn an_answer_without_a_body_is_repeated_too() {
        let fake = Fake::new();
        for _ in 0..2 {
            let response = post(&fake, "reject", "k", "{}").await;
            assert_eq!(response.status(), 202);
            assert_eq!(bytes_of(response).await, b"");
        }
        assert_eq!(fake.house.commands(), 1);
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
        assert_eq!(fake.house.commands(), 1);
    }

    #[tokio::test]
    async fn what_was_refused_may_be_tried_again() {
        let fake = Fake::new();
        fake.house.refuse(CallError::Overloaded { retry_after: 1 });
        assert_eq!(post(&fake, "record", "k", "{}").await.status(), 503);
        fake.house.accept();
        assert_eq!(post(&fake, "record", "bad", r#"{"playBeep":1}"#).await.status(), 400);
        assert_eq!(post(&fake, "record", "k", "{}").await.status(), 200);
        assert_eq!(fake.house.commands(), 1);
    }

    #[tokio::test]
    async fn what_nobody_knows_the_outcome_of_is_not_done_again() {
        let fake = Fake::new();
        fake.house.refuse(CallError::Internal);
        assert_eq!(post(&fake, "record", "k", "{}").await.status(), 500);
        fake.house.accept();
        let response = post(&fake, "record", "k", "{}").await;
        assert_eq!(response.status(), 409);
        assert_eq!(json_of(response).await["error"]["code"], "8519");
        assert_eq!(fake.house.commands(), 0);
    }
}
