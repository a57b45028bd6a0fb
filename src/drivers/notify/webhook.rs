//! One POST to a receiver: where it may go, how long it may take, what the answer means.
//!
//! In: a URI and a rendered notification. Out: an [`Answer`], as soon as the head of the receiver's
//! answer is there. It knows no outbox and retries nothing but a POST whose connection was lost. A
//! redirect (302, 307, 308) is followed once, for this POST only (contract section 6.3);
//! what shows who we are goes along to the application's own places alone.

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

/// Asked before every POST, for the URI and again for a redirect's target: a client that goes
/// there, on such a connection, and follows no redirects by itself (`Policy::none()`). The sentence
/// says why the daemon may not go.
pub type Gate = Arc<dyn Fn(&Url, Connection) -> Result<Client, String> + Send + Sync>;

/// Most of an answer's body that is read. Nothing in it matters, but after it the connection can be
/// used again.
const BODY_LIMIT_BYTES: usize = 64 * 1024;
/// A body that comes with its head is there after this time, and the next notification finds the
/// connection free.
const BODY_GRACE: Duration = Duration::from_millis(20);
/// A body that takes longer than this is not read to its end.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Most bodies that are read at a time besides the notifications; further connections are closed.
const BODIES: usize = 64;

/// A notification as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rendered {
    /// The body.
    pub body: Vec<u8>,
    /// All headers but Host and Content-Length.
    pub headers: HeaderMap,
    /// The origin of the application's configured callback, in ASCII: it may see the `Authorization`
    /// also when somebody else's redirect leads there.
    pub home: String,
}

/// What became of one POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Any 2xx.
    Received,
    /// 410, or an address that is not one or may not be called: trying again cannot help.
    Hopeless {
        /// Why, in one sentence.
        reason: String,
    },
    /// 401 or 403: the token was not believed. A fresh one may be, and so may the same one later:
    /// the receiver's clock may be behind, or its copy of our keys old.
    Refused {
        /// Why, in one sentence.
        reason: String,
        /// What the receiver asked for.
        retry_after: Option<Duration>,
    },
    /// Anything else: may work later.
    Failed {
        /// Why, in one sentence.
        reason: String,
        /// What the receiver asked for.
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
    /// Takes the gate that every URI has to pass, and the time in which the head of an answer must
    /// be there.
    pub fn new(gate: Gate, timeout: Duration) -> Self {
        Self { gate, timeout, bodies: Arc::new(Semaphore::new(BODIES)) }
    }

    /// POSTs a notification once, as far as the receiver is concerned: a POST whose connection was
    /// lost is repeated.
    pub async fn post(&self, uri: &str, rendered: Rendered) -> Answer {
        let (client, uri) = match Url::parse(uri)
            .map_err(|error| error.to_string())
            .and_then(|uri| Ok(((self.gate)(&uri, Connection::Kept)?, uri)))
        {
            Ok(way) => way,
            Err(reason) => return Answer::Hopeless { reason: format!("not sent: {reason}") },
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

    /// The answer to the POST, at the new place if the first one names another.
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
            // Whoever has the token could tell the bot whatever it likes, for an hour.
            rendered.headers.remove(AUTHORIZATION);
        }
        self.send(&client, &target, &rendered).await
    }

    /// Sends a POST, and once more on a new connection when the receiver has closed the kept one.
    /// Receivers must bear a notification that comes twice anyway (RFC 9110 section 9.2.2).
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

    /// Reads what is left of an answer, so that its connection can be used again. The verdict is in
    /// the head: the next notification does not wait for a slow body.
    async fn read_to_its_end(&self, response: Response) {
        let mut reading = Box::pin(drain(response));
        if timeout(BODY_GRACE, &mut reading).await.is_ok() {
            return;
        }
        // Dropped without a permit, the response takes its connection along.
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

fn judge(response: &Response) -> Answer {
    let status = response.status();
    let reason = format!("answered {status}");
    let retry_after = retry_after(response.headers());
    match status {
        _ if status.is_success() => Answer::Received,
        StatusCode::GONE => Answer::Hopeless { reason },
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Answer::Refused { reason, retry_after },
        _ => Answer::Failed { reason, retry_after },
    }
}

/// Only the form with seconds; a date would need the receiver's clock to be right.
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

fn failed(reason: String) -> Answer {
    Answer::Failed { reason, retry_after: None }
}

/// An error with its causes: the outermost alone says no more than "error sending request".
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
