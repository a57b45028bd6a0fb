//! One POST to a receiver: where it may go, how long it may take, what the answer means.
//!
//! In: a URI and a rendered notification. Out: an [`Answer`]. It does not retry and knows no
//! outbox. A redirect (302, 307, 308) is followed once, for this POST only (contract section 6.3);
//! what shows who we are goes along to the application's own places alone.

use std::{fmt, sync::Arc, time::Duration};

use reqwest::{
    Client, Response, StatusCode,
    header::{AUTHORIZATION, HeaderMap, LOCATION, RETRY_AFTER},
};
use tokio::time::{Instant, timeout_at};
use url::Url;

/// Asked before every POST, for the URI and again for a redirect's target: a client that goes there and
/// follows no redirects by itself (`Policy::none()`). The sentence says why the daemon may not go.
pub type Gate = Arc<dyn Fn(&Url) -> Result<Client, String> + Send + Sync>;

/// Most of an answer that is read; nothing in it matters, but the connection can be used again.
const ANSWER_LIMIT_BYTES: usize = 64 * 1024;

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
    /// 403, 410, or an address that is not one or may not be called: trying again cannot help.
    Hopeless {
        /// Why, in one sentence.
        reason: String,
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
}

impl Webhook {
    /// Takes the gate that every URI has to pass, and the time in which a POST must be answered.
    pub fn new(gate: Gate, timeout: Duration) -> Self {
        Self { gate, timeout }
    }

    /// POSTs a notification once.
    pub async fn post(&self, uri: &str, rendered: Rendered) -> Answer {
        let (client, uri) = match Url::parse(uri)
            .map_err(|error| error.to_string())
            .and_then(|uri| Ok(((self.gate)(&uri)?, uri)))
        {
            Ok(way) => way,
            Err(reason) => return Answer::Hopeless { reason: format!("not sent: {reason}") },
        };
        let deadline = Instant::now() + self.timeout;
        match timeout_at(deadline, self.answered(&client, uri, rendered)).await {
            Ok(Ok(response)) => {
                let answer = judge(&response);
                // The verdict is in the head; a slow body cannot change it.
                let _ = timeout_at(deadline, drain(response)).await;
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
        let response = send(client, uri.clone(), rendered.clone()).await?;
        let Some(target) = redirect_target(&uri, &response)? else {
            return Ok(response);
        };
        if uri.scheme() == "https" && target.scheme() != "https" {
            return Err("redirected from https to an unprotected address".to_owned());
        }
        let client = (self.gate)(&target).map_err(|reason| format!("redirected, but {reason}"))?;
        let origin = target.origin();
        if origin != uri.origin() && origin.ascii_serialization() != rendered.home {
            // Whoever has the token could tell the bot whatever it likes, for an hour.
            rendered.headers.remove(AUTHORIZATION);
        }
        send(&client, target, rendered).await
    }
}

async fn send(client: &Client, uri: Url, rendered: Rendered) -> Result<Response, String> {
    let request = client.post(uri).headers(rendered.headers).body(rendered.body);
    request.send().await.map_err(|error| causes(&error.without_url()))
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
    let Some(location) = response.headers().get(LOCATION) else {
        return Ok(None);
    };
    let location = location.to_str().map_err(|_| "redirected to an unreadable address")?;
    match uri.join(location) {
        Ok(target) => Ok(Some(target)),
        Err(error) => Err(format!("redirected to an unreadable address: {error}")),
    }
}

fn judge(response: &Response) -> Answer {
    let status = response.status();
    let reason = format!("answered {status}");
    if status.is_success() {
        Answer::Received
    } else if matches!(status, StatusCode::FORBIDDEN | StatusCode::GONE) {
        Answer::Hopeless { reason }
    } else {
        Answer::Failed { reason, retry_after: retry_after(response.headers()) }
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
        if read > ANSWER_LIMIT_BYTES {
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
