//! One POST to a receiver: which addresses are allowed, how long it may take, what the answer
//! means.
//!
//! In: a URI and a rendered notification. Out: a [`WebhookAnswer`], as soon as the head of the
//! receiver's answer has come. This module knows no outbox and repeats a POST only when its
//! connection was lost. A redirect (302, 307, 308) is followed once, for this POST only (contract
//! section 6.3); the `Authorization` header is sent along only to the same origin or to the
//! application's own.

use std::{fmt, sync::Arc, time::Duration};

use reqwest::{
    Client, Response, StatusCode,
    header::{AUTHORIZATION, HeaderMap, RETRY_AFTER},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout, timeout_at},
};
use tracing::debug;
use url::Url;

use crate::drivers::http::{self, Connection};

/// Called before every POST, for the URI and again for a redirect's target. Returns a client that
/// connects only to allowed addresses, with this kind of connection, and follows no redirects by
/// itself (`Policy::none()`). The error is a sentence that says why the URI is not allowed.
pub type Gate = Arc<dyn Fn(&Url, Connection) -> Result<Client, String> + Send + Sync>;

/// Bytes of an answer's body that are read at most. The body is ignored, but the connection can be
/// used again only after it was read.
const BODY_LIMIT_BYTES: usize = 64 * 1024;
/// A body that comes together with its head is read within this time, so that the next notification
/// finds the connection free.
const BODY_GRACE: Duration = Duration::from_millis(20);
/// A body that takes longer than this is not read to its end.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Bodies that are read in the background at a time; further connections are closed.
const BODIES: usize = 64;

/// A notification as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rendered {
    /// The body.
    pub body: Vec<u8>,
    /// All headers but Host and Content-Length.
    pub headers: HeaderMap,
    /// The origin of the application's configured callback, in ASCII: a redirect to it keeps the
    /// `Authorization` header, whatever origin redirects.
    pub home: String,
}

/// The result of one POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookAnswer {
    /// Any 2xx.
    Received,
    /// 410, or a URI that is invalid or not allowed: another attempt cannot help.
    Hopeless {
        /// Why, in one sentence.
        reason: String,
    },
    /// 401 or 403: the receiver did not accept the token. It may accept a fresh one, or the same
    /// one later: its clock may be behind, or its copy of our keys old.
    Refused {
        /// Why, in one sentence.
        reason: String,
        /// Retry-After of the answer.
        retry_after: Option<Duration>,
    },
    /// Any other result: a later attempt may succeed.
    Failed {
        /// Why, in one sentence.
        reason: String,
        /// Retry-After of the answer.
        retry_after: Option<Duration>,
    },
}

/// Sends notifications; cheap to clone.
#[derive(Clone)]
pub struct Webhook {
    gate: Gate,
    timeout: Duration,
    bodies: Arc<Semaphore>,
}

impl Webhook {
    /// Takes the gate that checks every URI, and the time within which the head of an answer must
    /// come.
    pub fn new(gate: Gate, timeout: Duration) -> Self {
        Self { gate, timeout, bodies: Arc::new(Semaphore::new(BODIES)) }
    }

    /// POSTs a notification once. A POST is repeated only when its connection was lost.
    pub async fn post(&self, uri: &str, rendered: Rendered) -> WebhookAnswer {
        let (client, uri) = match Url::parse(uri)
            .map_err(|error| error.to_string())
            .and_then(|uri| Ok(((self.gate)(&uri, Connection::Kept)?, uri)))
        {
            Ok(way) => way,
            Err(reason) => {
                return WebhookAnswer::Hopeless { reason: format!("not sent: {reason}") };
            }
        };
        let deadline = Instant::now() + self.timeout;
        match timeout_at(deadline, self.answered(&client, uri, rendered)).await {
            Ok(Ok(response)) => {
                let answer = judge(&response);
                self.read_to_its_end(response).await;
                answer
            }
            Ok(Err(reason)) => failed(reason),
            Err(_) => failed(format!("no answer within {:?}", self.timeout)),
        }
    }

    /// The answer to the POST, after one redirect if the first answer is one.
    async fn answered(
        &self,
        client: &Client,
        uri: Url,
        mut rendered: Rendered,
    ) -> Result<Response, String> {
        let response = self.send(client, &uri, &rendered).await?;
        let Some(target) = redirect_target(&uri, &response)? else {
            return Ok(response);
        };
        if uri.scheme() == "https" && target.scheme() != "https" {
            return Err("redirected from https to an unprotected address".to_owned());
        }
        let client = (self.gate)(&target, Connection::Kept)
            .map_err(|reason| format!("redirected, but {reason}"))?;
        let origin = target.origin();
        if origin != uri.origin() && origin.ascii_serialization() != rendered.home {
            // With the token, any server could send the bot forged notifications for an hour.
            rendered.headers.remove(AUTHORIZATION);
        }
        self.send(&client, &target, &rendered).await
    }

    /// Sends a POST, and once more on a new connection when the receiver has closed the kept one.
    /// Receivers must accept that a notification comes twice anyway (RFC 9110 section 9.2.2).
    async fn send(
        &self,
        client: &Client,
        uri: &Url,
        rendered: &Rendered,
    ) -> Result<Response, String> {
        let post = async |client: &Client| {
            let request = client.post(uri.clone()).headers(rendered.headers.clone());
            request.body(rendered.body.clone()).send().await
        };
        let answer = match post(client).await {
            Err(error) if http::is_lost_connection(&error) => {
                debug!("Connection lost, the notification is sent again");
                post(&(self.gate)(uri, Connection::New)?).await
            }
            answer => answer,
        };
        answer.map_err(|error| causes(&error.without_url()))
    }

    /// Reads the rest of an answer, so that its connection can be used again. The status is in the
    /// head: the next notification does not wait for a slow body.
    async fn read_to_its_end(&self, response: Response) {
        let mut reading = Box::pin(drain(response));
        if timeout(BODY_GRACE, &mut reading).await.is_ok() {
            return;
        }
        // Without a permit the response is dropped, and its connection is closed.
        let Ok(permit) = Arc::clone(&self.bodies).try_acquire_owned() else { return };
        tokio::spawn(async move {
            let _ = timeout(BODY_TIMEOUT, reading).await;
            drop(permit);
        });
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

fn redirect_target(uri: &Url, response: &Response) -> Result<Option<Url>, String> {
    if !matches!(response.status().as_u16(), 302 | 307 | 308) {
        return Ok(None);
    }
    let target = http::redirect_target(uri, response).transpose();
    target.map_err(|error| format!("redirected to an unreadable address: {error}"))
}

fn judge(response: &Response) -> WebhookAnswer {
    let status = response.status();
    let reason = format!("answered {status}");
    let retry_after = retry_after(response.headers());
    match status {
        _ if status.is_success() => WebhookAnswer::Received,
        StatusCode::GONE => WebhookAnswer::Hopeless { reason },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            WebhookAnswer::Refused { reason, retry_after }
        }
        _ => WebhookAnswer::Failed { reason, retry_after },
    }
}

/// Only the form with seconds is read; a date would need the receiver's clock to be right.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

async fn drain(mut response: Response) {
    let mut read = 0_usize;
    while let Ok(Some(chunk)) = response.chunk().await {
        read = read.saturating_add(chunk.len());
        if read > BODY_LIMIT_BYTES {
            return;
        }
    }
}

fn failed(reason: String) -> WebhookAnswer {
    WebhookAnswer::Failed { reason, retry_after: None }
}

/// An error with its causes: the outermost alone says only "error sending request".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
