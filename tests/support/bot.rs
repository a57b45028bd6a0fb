//! A bot for tests: keeps every notification in order, serves prompts, calls the API.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use aftertone_core::audio::wav;
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing,
};
use serde_json::{Value, json};
use tokio::sync::watch;

pub const TOKEN: &str = "a-test-token-that-is-long-enough";
/// How long the bot keeps an idle connection. The server closes one after 10 s, and a request that
/// meets the end of its connection fails.
const IDLE: Duration = Duration::from_secs(5);

/// A running bot.
pub struct Bot {
    pub address: SocketAddr,
    pub client: reqwest::Client,
    shared: Arc<Shared>,
    api: String,
    server: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    notifications: watch::Sender<Vec<Notified>>,
    files: Mutex<HashMap<String, Vec<u8>>>,
    /// Statuses for the next notifications, instead of 202; the last one is used first.
    answers: Mutex<Vec<StatusCode>>,
}

/// One notification as it was received.
#[derive(Debug, Clone)]
pub struct Notified {
    pub envelope: Value,
    pub headers: HeaderMap,
    /// The status of the bot's answer.
    pub answer: StatusCode,
}

impl Notified {
    pub fn item(&self) -> &Value {
        &self.envelope["value"][0]
    }

    pub fn data(&self) -> &Value {
        &self.item()["resourceData"]
    }
}

impl Bot {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let router = Router::new()
            .route("/api/calls", routing::post(notified))
            .route("/files/{name}", routing::get(file))
            .with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let client = reqwest::Client::builder().no_proxy().pool_idle_timeout(IDLE).build().unwrap();
        Self { address, client, shared, api: String::new(), server }
    }

    /// The part of the node's configuration that adds this bot, for calls to `bot`.
    pub fn config(&self) -> String {
        format!(
            "[[applications]]\nname = \"tester\"\nid = \"7e57e200-0000-4000-8000-000000000001\"\n\
             tokens = [\"{TOKEN}\"]\nroles = [\"Calls.AccessMedia.All\", \"Calls.Initiate.All\"]\n\
             callback_uri = \"http://{}/api/calls\"\n\
             [[routes]]\nto = \"bot\"\napplication = \"tester\"\npublic = true\n\
             [[routes]]\nto = \"voicemail\"\nline = \"voicemail\"\npublic = true\n\
             [[routes]]\nto = \"echo\"\nline = \"echo\"\npublic = true\n",
            self.address
        )
    }

    /// Sets the address of the node's API.
    pub fn knows(&mut self, api: &str) {
        self.api = api.to_owned();
    }

    /// Serves `bytes` and returns their URL.
    pub fn serve(&self, name: &str, bytes: Vec<u8>) -> String {
        self.shared.files.lock().unwrap().insert(name.to_owned(), bytes);
        format!("http://{}/files/{name}", self.address)
    }

    /// Answers the next notifications with these statuses instead of 202.
    pub fn answer_with(&self, statuses: &[StatusCode]) {
        self.shared.answers.lock().unwrap().extend(statuses.iter().rev());
    }

    /// Answers all further notifications with 202 again.
    pub fn answer_with_default(&self) {
        self.shared.answers.lock().unwrap().clear();
    }

    /// All notifications so far.
    pub fn notifications(&self) -> Vec<Notified> {
        self.shared.notifications.borrow().clone()
    }

    /// Waits for the first notification, from the beginning, that satisfies `wanted`.
    pub async fn wait_for(&self, what: &str, wanted: impl Fn(&Notified) -> bool) -> Notified {
        self.wait_for_after(0, what, wanted).await
    }

    /// The same, without the first `known` ones.
    pub async fn wait_for_after(
        &self,
        known: usize,
        what: &str,
        wanted: impl Fn(&Notified) -> bool,
    ) -> Notified {
        let mut all = self.shared.notifications.subscribe();
        let found = tokio::time::timeout(
            Duration::from_secs(20),
            all.wait_for(|all| all.iter().skip(known).any(&wanted)),
        )
        .await;
        match found {
            Ok(all) => all.unwrap().iter().skip(known).find(|n| wanted(n)).unwrap().clone(),
            Err(_) => panic!("no notification in time: {what}; there were: {:#?}", self.summary()),
        }
    }

    /// Places a call through the API; returns the answer's status and the call.
    pub async fn place(&self, target: &str) -> (u16, Value) {
        let body = json!({
            "@odata.type": "#microsoft.graph.call",
            "callbackUri": format!("http://{}/api/calls", self.address),
            "targets": [{
                "@odata.type": "#microsoft.graph.invitationParticipantInfo",
                "identity": {"@odata.type": "#microsoft.graph.identitySet", "phone": {"id": target}}
            }],
            "requestedModalities": ["audio"],
            "mediaConfig": {"@odata.type": "#microsoft.graph.serviceHostedMediaConfig"}
        });
        self.post("", &body).await
    }

    /// Waits for the first notification that a call is in this state.
    pub async fn wait_for_state(&self, call: &str, state: &str) -> Notified {
        self.wait_for(&format!("{state} of {call}"), |n| {
            n.data()["id"] == call && n.data()["state"] == state
        })
        .await
    }

    /// Waits for the end of an operation.
    pub async fn wait_for_operation(&self, operation: &str) -> Value {
        let told =
            self.wait_for(&format!("end of {operation}"), |n| n.data()["id"] == operation).await;
        assert_eq!(told.item()["changeType"], "deleted");
        told.data().clone()
    }

    /// One line per notification: change, resource, state.
    pub fn summary(&self) -> Vec<String> {
        self.notifications()
            .iter()
            .map(|n| {
                format!(
                    "{} {} {}{}{} ({})",
                    n.item()["changeType"].as_str().unwrap_or_default(),
                    n.item()["resourceUrl"].as_str().unwrap_or_default(),
                    n.data()["state"].as_str().unwrap_or_default(),
                    n.data()["status"].as_str().unwrap_or_default(),
                    n.data()["toneInfo"]["tone"].as_str().unwrap_or_default(),
                    n.answer.as_u16(),
                )
            })
            .collect()
    }

    /// Waits for the first offered call, and answers it.
    pub async fn take_call(&self) -> String {
        let incoming = self.wait_for("an incoming call", |n| n.data()["state"] == "incoming").await;
        let call = incoming.data()["id"].as_str().unwrap().to_owned();
        self.answer(&call).await;
        call
    }

    /// Answers a call and waits until it is established.
    pub async fn answer(&self, call: &str) {
        let body = json!({
            "callbackUri": format!("http://{}/api/calls", self.address),
            "acceptedModalities": ["audio"],
            "mediaConfig": {"@odata.type": "#microsoft.graph.serviceHostedMediaConfig"}
        });
        let (status, answer) = self.post(&format!("{call}/answer"), &body).await;
        assert_eq!(status, 202, "{answer}");
        self.wait_for_state(call, "established").await;
    }

    /// POSTs below `/v1.0/communications/calls/`.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}/v1.0/communications/calls/{path}", self.api);
        let request = self.client.post(url).bearer_auth(TOKEN);
        let request = request.header("content-type", "application/json").body(body.to_string());
        read(request.send().await.unwrap()).await
    }

    /// GETs below `/v1.0/communications/`.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        let url = format!("{}/v1.0/communications/{path}", self.api);
        read(self.client.get(url).bearer_auth(TOKEN).send().await.unwrap()).await
    }

    /// Sends any request to a full URL; with a body, unless it is empty.
    pub async fn send(&self, method: &str, url: &str, body: &str) -> (u16, Value) {
        let request = self.client.request(method.parse().unwrap(), url).bearer_auth(TOKEN);
        let request = match body {
            "" => request,
            body => request.header("content-type", "application/json").body(body.to_owned()),
        };
        read(request.send().await.unwrap()).await
    }

    /// DELETEs a call.
    pub async fn hang_up(&self, call: &str) -> u16 {
        let url = format!("{}/v1.0/communications/calls/{call}", self.api);
        self.client.delete(url).bearer_auth(TOKEN).send().await.unwrap().status().as_u16()
    }

    /// Plays the bundled speech in a call, to its end.
    pub async fn speak(&self, call: &str) {
        let speech = aftertone::drivers::prompts::bundled_wav("spoken").unwrap().to_vec();
        let prompt = json!({"prompts": [{"mediaInfo": {"uri": self.serve("speech.wav", speech)}}]});
        let (status, operation) = self.post(&format!("{call}/playPrompt"), &prompt).await;
        assert_eq!(status, 200, "{operation}");
        let ended = self.wait_for_operation(operation["id"].as_str().unwrap()).await;
        assert_eq!(ended["status"], "completed", "{ended}");
    }

    /// Records a call with the parameters in `body`; returns the samples at 16 kHz.
    pub async fn record(&self, call: &str, body: Value) -> Vec<i16> {
        let (status, operation) = self.post(&format!("{call}/recordResponse"), &body).await;
        assert_eq!(status, 200, "{operation}");
        let ended = self.wait_for_operation(operation["id"].as_str().unwrap()).await;
        assert_eq!(ended["status"], "completed", "{ended}");
        let clip = self.download(&ended).await;
        wav::read(&clip, wav::Limits { max_seconds: 60 }).unwrap().samples
    }

    /// Downloads the clip of an ended operation.
    pub async fn download(&self, operation: &Value) -> Vec<u8> {
        let response = self.fetch(operation).await;
        assert_eq!(response.status(), 200);
        response.bytes().await.unwrap().to_vec()
    }

    /// Requests the clip of an ended operation.
    pub async fn fetch(&self, operation: &Value) -> reqwest::Response {
        let location = operation["recordingLocation"].as_str().expect("a location");
        let token = operation["recordingAccessToken"].as_str().expect("a token");
        self.client.get(location).bearer_auth(token).send().await.unwrap()
    }
}

impl Drop for Bot {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn read(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}

async fn notified(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(envelope): Json<Value>,
) -> StatusCode {
    let answer = shared.answers.lock().unwrap().pop().unwrap_or(StatusCode::ACCEPTED);
    shared.notifications.send_modify(|all| all.push(Notified { envelope, headers, answer }));
    answer
}

async fn file(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
) -> Result<Bytes, StatusCode> {
    let files = shared.files.lock().unwrap();
    files.get(&name).map(|bytes| Bytes::from(bytes.clone())).ok_or(StatusCode::NOT_FOUND)
}
