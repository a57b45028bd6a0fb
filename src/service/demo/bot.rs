//! The demo's application: it uses only the public API and the notifications that it receives.

use std::{
    collections::HashSet,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use axum::{Json, Router, extract::State, http::StatusCode, routing};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};

use super::Story;
use crate::drivers::prompts::bundled_wav;

/// A running bot.
pub(super) struct Bot {
    shared: Arc<BotState>,
    address: SocketAddr,
    _tasks: JoinSet<()>,
}

struct BotState {
    story: Story,
    address: SocketAddr,
    token: String,
    /// Set once the daemon runs.
    api: OnceLock<Api>,
    seen: Mutex<HashSet<String>>,
    call: watch::Sender<Option<String>>,
    recorded: watch::Sender<Option<RecordedClip>>,
    ended: watch::Sender<Option<Instant>>,
}

#[derive(Debug, Clone)]
struct RecordedClip {
    location: String,
    token: String,
}

/// URL of the daemon's API and the HTTP client for it.
struct Api {
    calls: String,
    client: reqwest::Client,
}

/// The downloaded clip and its source.
pub(super) struct ClipFetched {
    pub bytes: Vec<u8>,
    recorded: RecordedClip,
}

impl Bot {
    pub(super) async fn start(listen: SocketAddr, story: Story) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(BotState {
            story,
            address,
            token: format!("{:032x}", rand::random::<u128>()),
            api: OnceLock::new(),
            seen: Mutex::default(),
            call: watch::Sender::default(),
            recorded: watch::Sender::default(),
            ended: watch::Sender::default(),
        });
        let router = Router::new()
            .route("/api/calls", routing::post(notified))
            .route(
                "/prompts/greeting.wav",
                routing::get(|| async { bundled_wav("greeting").unwrap_or_default() }),
            )
            .with_state(Arc::clone(&shared));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the bot's listener failed: {error}");
            }
        });
        Ok(Self { shared, address, _tasks: tasks })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn token(&self) -> &str {
        &self.shared.token
    }

    /// Sets the URL of the API. With HTTPS, the file contains the CA of its certificate.
    pub(super) fn knows_api(&self, url: &str, authority: Option<&Path>) -> anyhow::Result<()> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10));
        let client = match authority {
            None => client,
            Some(file) => {
                let authority = reqwest::Certificate::from_pem(&std::fs::read(file)?)?;
                client.tls_certs_only([authority])
            }
        };
        let api =
            Api { calls: format!("{url}/v1.0/communications/calls"), client: client.build()? };
        // This is called only once.
        let _ = self.shared.api.set(api);
        Ok(())
    }

    /// Waits for the recording and downloads it.
    pub(super) async fn clip(&self) -> anyhow::Result<ClipFetched> {
        let mut recorded = self.shared.recorded.subscribe();
        let recorded = recorded.wait_for(Option::is_some).await?.clone().context("no clip")?;
        let request = self.shared.api()?.client.get(&recorded.location);
        let request = request.bearer_auth(&recorded.token);
        let response = request.send().await?.error_for_status()?;
        Ok(ClipFetched { bytes: response.bytes().await?.to_vec(), recorded })
    }

    pub(super) async fn hang_up(&self) -> anyhow::Result<()> {
        let call = self.shared.call.borrow().clone().context("no call")?;
        self.shared.story.tell("bot", "DELETE …/calls/{id}");
        let api = self.shared.api()?;
        let request =
            api.client.delete(format!("{}/{call}", api.calls)).bearer_auth(&self.shared.token);
        let status = request.send().await?.status();
        ensure!(status == StatusCode::NO_CONTENT, "DELETE was answered {status}");
        Ok(())
    }

    pub(super) async fn call_ended(&self) {
        // An error means that the bot has ended, and so has its call.
        let _ = self.shared.ended.subscribe().wait_for(Option::is_some).await;
    }

    /// Polls until the recording is gone; returns the time since the call's end.
    pub(super) async fn recording_gone(&self, clip: &ClipFetched) -> anyhow::Result<Duration> {
        loop {
            let RecordedClip { location, token } = &clip.recorded;
            let request = self.shared.api()?.client.get(location).bearer_auth(token);
            let response = request.send().await?;
            if response.status() == StatusCode::NOT_FOUND {
                let ended = *self.shared.ended.borrow();
                return Ok(ended.map(|at| at.elapsed()).unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

async fn notified(State(shared): State<Arc<BotState>>, Json(body): Json<Value>) -> StatusCode {
    let Some(notification) = body["value"].get(0).cloned() else { return StatusCode::BAD_REQUEST };
    let data = &notification["resourceData"];
    let what = match data["toneInfo"]["tone"].as_str() {
        Some(tone) => format!("tone {tone}"),
        None => {
            let state = data["state"].as_str().or(data["status"].as_str()).unwrap_or_default();
            let reason = data["completionReason"].as_str().unwrap_or_default();
            format!("{state} {reason}").trim().to_owned()
        }
    };
    let kind = data["@odata.type"].as_str().unwrap_or_default().trim_start_matches("#microsoft.");
    let change = notification["changeType"].as_str().unwrap_or_default();
    shared.story.tell("webhook", &format!("{change} {kind}: {what}"));
    // Notifications are delivered at least once, so a repeated one is ignored.
    let key = format!("{}{}", notification["resourceUrl"], data["@odata.etag"]);
    if !shared.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(key) {
        return StatusCode::ACCEPTED;
    }
    tokio::spawn(async move {
        if let Err(error) = react(&shared, &notification["resourceData"]).await {
            shared.story.tell("bot", &format!("failed: {error:#}"));
        }
    });
    StatusCode::ACCEPTED
}

async fn react(shared: &BotState, data: &Value) -> anyhow::Result<()> {
    let id = data["id"].as_str().context("a notification without id")?.to_owned();
    match (data["state"].as_str(), data["recordingLocation"].as_str()) {
        (Some("incoming"), _) => {
            shared.call.send_replace(Some(id.clone()));
            let body = json!({
                "callbackUri": format!("http://{}/api/calls", shared.address),
                "acceptedModalities": ["audio"],
                "mediaConfig": {
                    "@odata.type": "#microsoft.graph.serviceHostedMediaConfig",
                    "preFetchMedia": [prompt(shared)]
                }
            });
            shared.post(&format!("{id}/answer"), &body).await
        }
        (Some("established"), _) => {
            let body = json!({
                "bargeInAllowed": true,
                "clientContext": id,
                "prompts": [{
                    "@odata.type": "#microsoft.graph.mediaPrompt",
                    "mediaInfo": prompt(shared)
                }],
                "maxRecordDurationInSeconds": 30,
                "initialSilenceTimeoutInSeconds": 5,
                "maxSilenceTimeoutInSeconds": 3,
                "playBeep": true,
                "stopTones": ["#"]
            });
            shared.post(&format!("{id}/recordResponse"), &body).await
        }
        (Some("terminated"), _) => {
            shared.ended.send_replace(Some(Instant::now()));
            Ok(())
        }
        (_, Some(location)) if !location.is_empty() => {
            let token = data["recordingAccessToken"].as_str().context("no access token")?;
            let recorded = RecordedClip { location: location.to_owned(), token: token.to_owned() };
            shared.recorded.send_replace(Some(recorded));
            Ok(())
        }
        _ => Ok(()),
    }
}

impl BotState {
    fn api(&self) -> anyhow::Result<&Api> {
        self.api.get().context("the daemon is not there yet")
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<()> {
        let action = path.rsplit('/').next().unwrap_or(path);
        let api = self.api()?;
        let request = api.client.post(format!("{}/{path}", api.calls)).bearer_auth(&self.token);
        let request = request.header("content-type", "application/json").body(body.to_string());
        let response = request.send().await?;
        let status = response.status();
        let text = response.text().await?;
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        let state = answer["status"].as_str().unwrap_or_default();
        self.story.tell("bot", &format!("POST …/{action} → {status} {state}"));
        ensure!(status.is_success(), "{action} was answered {status}: {text}");
        Ok(())
    }
}

fn prompt(shared: &BotState) -> Value {
    json!({
        "uri": format!("http://{}/prompts/greeting.wav", shared.address),
        "resourceId": "1D6DE2D4-CD51-4309-8DAA-70768651088E"
    })
}
