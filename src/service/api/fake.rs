//! In-memory [`CallControl`] and [`ApiStore`], and an HTTP client for the API on top of them.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use axum::{
    Router,
    body::Body,
    http::{Request, Response},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;

use super::*;
use crate::{
    drivers::{
        prompts::Fence,
        recordings::{Folder, LostAndFound, Vault},
        signalling::{Traced, TrunkReport},
        store::{Delivery, GivenUp, KeptAnswer, RequestKey},
        tokens::Verifier,
    },
    service::switchboard::{CallControl, CallError, NewCall, NewOperation, TransferTarget},
};
use aftertone_core::{
    graph::{GraphContext, RecordingLink, Version},
    model::{
        Arrival, Call, CallId, CallState, Direction, Event, MediaState, Operation, OperationEnd,
        OperationKind, OperationStatus, Party, PromptSource, RecordAction, RecordRequest, Recorded,
        RecordingId, RejectReason, SteadyMillis, Termination, UnixMillis,
    },
    proto::sip::{
        Status,
        path::{Path, Transport},
        registration::{Failure, TrunkState, TrunkStatus},
    },
};

pub(super) const CALL: &str = "57dab8b1-894c-409a-b240-bd8beae78896";
pub(super) const ENDED_CALL: &str = "57dab8b1-894c-409a-b240-bd8beae78897";
pub(super) const OPERATION: &str = "0fe0623f-d628-42ed-b4bd-8ac290072cc5";
pub(super) const PARTICIPANT: &str = "18214a6f-5e2f-4a5c-8a5d-8ff3a5b1d6cc";
pub(super) const PEER: &str = "18214a6f-5e2f-4a5c-8a5d-8ff3a5b1d6cd";
pub(super) const RECORDING: &str = "17e3b46c-f61d-4f4d-9635-c626ef18e6ad";
pub(super) const RECORDING_TOKEN: &str = "opens-one-recording";
pub(super) static RECORDING_BYTES: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..1000_u32).map(|n| (n % 251) as u8).collect());
/// Token with all roles.
pub(super) const TOKEN: &str = "all-roles";
/// Token of another application, which has no roles.
pub(super) const LIMITED_TOKEN: &str = "no-roles";

/// A command that the fake has received.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Command {
    Place(NewCall),
    Answer {
        callback_uri: Option<String>,
        media_config: Option<String>,
        prefetch: Vec<PromptSource>,
    },
    Reject(RejectReason),
    HangUp,
    Redirect(Party),
    Transfer(TransferTarget),
    KeepAlive,
    Resend(Option<(CallId, u64)>),
    Submit(NewOperation),
}

pub(super) struct Fake {
    pub(super) service: Arc<FakeService>,
    pub(super) state: ApiState,
}

impl Fake {
    pub(super) fn new() -> Self {
        let application = |name: &str, token: &str, roles: &[&str]| ApplicationCredential {
            name: name.to_owned(),
            id: name.to_owned(),
            tokens: vec![token.to_owned()],
            secrets: Vec::new(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            issuer: None,
        };
        let credentials = Credentials::new(
            vec![
                application("mybot", TOKEN, &[ACCESS_MEDIA, INITIATE]),
                application("limited", LIMITED_TOKEN, &[]),
            ],
            Verifier::default(),
        );
        let service = Arc::new(FakeService::new());
        let tenant = "00000000-0000-0000-0000-000000000001";
        let (_, credentials) = watch::channel(Arc::new(credentials));
        let modules = ApiModules {
            calls: service.clone(),
            store: service.clone(),
            fence: Fence::new(std::iter::empty()),
        };
        let state = ApiState::new(modules, credentials, tenant, "https://api.example/");
        Self { service, state }
    }

    pub(super) fn router(&self) -> Router {
        super::router(self.state.clone(), None)
    }

    pub(super) async fn get(&self, path: &str) -> Response<Body> {
        self.ask("GET", path, TOKEN, &[]).await
    }

    /// Sends a request with the token that has all roles.
    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> Response<Body> {
        let json_type = [("content-type", "application/json")];
        let headers = if body.is_some() { &json_type[..] } else { &[] };
        self.ask_with_body(method, path, TOKEN, headers, body.unwrap_or_default()).await
    }

    pub(super) async fn ask(
        &self,
        method: &str,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
    ) -> Response<Body> {
        self.ask_with_body(method, path, token, headers, "").await
    }

    pub(super) async fn ask_with_body(
        &self,
        method: &str,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response<Body> {
        self.asking(method, path, token, headers, body).await
    }

    /// A request that is sent when the future is awaited, and aborted when it is dropped.
    pub(super) fn asking(
        &self,
        method: &str,
        path: &str,
        token: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> impl Future<Output = Response<Body>> + Send + use<> {
        let mut request = Request::builder().method(method).uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let answered = self.router().oneshot(request);
        async move { answered.await.unwrap() }
    }
}

pub(super) async fn bytes_of(response: Response<Body>) -> Vec<u8> {
    axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()
}

pub(super) async fn json_of(response: Response<Body>) -> Value {
    serde_json::from_slice(&bytes_of(response).await).unwrap()
}

/// The errors of `value` against a schema of the contract's API description; empty when it fits.
///
/// The description is stricter than Graph in two points, which are corrected here. Its enum of
/// operation states uses the capitals of the metadata, while all documents use lower case. And it
/// does not say that every member may be null, which is how the documents print an unset member.
pub(super) fn schema_errors(name: &str, value: &Value) -> String {
    let mut root = json!({"$ref": format!("#/components/schemas/{name}")});
    root["components"] = CONTRACT["components"].clone();
    assert!(!contract_schema(name).is_null(), "no schema {name}");
    let validator = jsonschema::draft202012::new(&root).unwrap();
    let errors: Vec<String> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    errors.join("; ")
}

/// A schema of the contract, corrected as [`schema_errors`] says.
pub(super) fn contract_schema(name: &str) -> &'static Value {
    &CONTRACT["components"]["schemas"][name]
}

static CONTRACT: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../tests/contract/communications.openapi.json");
    let mut description: Value = serde_json::from_str(text).unwrap();
    for (name, schema) in description["components"]["schemas"].as_object_mut().unwrap() {
        if name.ends_with(".operationStatus") {
            schema["enum"] = json!(["notStarted", "running", "completed", "failed"]);
        }
        allow_null(schema);
    }
    description
});

fn allow_null(schema: &mut Value) {
    let parts = schema.get_mut("allOf").and_then(Value::as_array_mut);
    parts.into_iter().flatten().for_each(allow_null);
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (_, property) in properties.into_iter().flatten() {
        *property = json!({"anyOf": [property.clone(), {"type": "null"}]});
    }
}

/// Knows one established call with one record operation, and one ended call.
pub(super) struct FakeService {
    state: Mutex<FakeState>,
}

struct FakeState {
    operation: Operation,
    recording: bool,
    commands: Vec<Command>,
    requests: HashMap<String, (String, Option<KeptAnswer>)>,
    refusal: Option<CallError>,
    /// Commands get no answer until the gate opens.
    gate: Option<watch::Receiver<bool>>,
    not_ready: Option<String>,
    /// Whether the store of the recordings does not answer.
    is_away: bool,
    left: Option<Duration>,
    /// Number of notifications whose delivery was abandoned.
    given_up: usize,
}

impl FakeService {
    fn new() -> Self {
        let request = RecordRequest {
            action: RecordAction::Record,
            prompt: None,
            barge_in_allowed: false,
            initial_silence_seconds: 5,
            max_silence_seconds: 5,
            max_duration_seconds: 5,
            play_beep: true,
            stop_tones: Vec::new(),
        };
        let state = FakeState {
            operation: operation(OperationKind::Record(request), None),
            recording: true,
            commands: Vec::new(),
            requests: HashMap::new(),
            refusal: None,
            gate: None,
            not_ready: None,
            is_away: false,
            left: None,
            given_up: 1,
        };
        Self { state: Mutex::new(state) }
    }

    pub(super) fn last_command(&self) -> Option<Command> {
        self.state.lock().unwrap().commands.last().cloned()
    }

    pub(super) fn refuse(&self, error: CallError) {
        self.state.lock().unwrap().refusal = Some(error);
    }

    pub(super) fn accept(&self) {
        self.state.lock().unwrap().refusal = None;
    }

    /// Number of commands that it has carried out.
    pub(super) fn commands(&self) -> usize {
        self.state.lock().unwrap().commands.len()
    }

    /// Holds back the answers to commands until the returned sender opens the gate.
    pub(super) fn hold(&self) -> watch::Sender<bool> {
        let (opens, gate) = watch::channel(false);
        self.state.lock().unwrap().gate = Some(gate);
        opens
    }

    pub(super) fn give_up(&self, count: usize) {
        self.state.lock().unwrap().given_up = count;
    }

    /// Sets whether the store of the recordings does not answer.
    pub(super) fn set_away(&self, is_away: bool) {
        self.state.lock().unwrap().is_away = is_away;
    }

    pub(super) fn set_left(&self, left: Duration) {
        self.state.lock().unwrap().left = Some(left);
    }

    pub(super) fn set_not_ready(&self, reason: &str) {
        self.state.lock().unwrap().not_ready = Some(reason.to_owned());
    }

    pub(super) fn end_operation(&self, end: OperationEnd) {
        let mut state = self.state.lock().unwrap();
        state.operation.status = end.status();
        state.operation.recording = end.delivers_recording().then(|| Recorded {
            id: RECORDING.parse().unwrap(),
            duration_ms: 4200,
            speech_ms: 3000,
            speech_ended_at_ms: Some(4100),
        });
        state.operation.end = Some(end);
    }

    async fn answered<T>(
        &self,
        call: CallId,
        answer: impl FnOnce(&mut FakeState) -> T,
    ) -> Result<T, CallError> {
        let (result, gate) = {
            let mut state = self.state.lock().unwrap();
            let result = match (&state.refusal, call.to_string().as_str()) {
                (Some(error), _) => Err(*error),
                (None, CALL) => Ok(answer(&mut state)),
                (None, _) => Err(CallError::NotFound),
            };
            (result, state.gate.clone())
        };
        if let Some(mut gate) = gate {
            gate.wait_for(|is_open| *is_open).await.expect("the gate opens");
        }
        result
    }

    fn known(&self, id: RecordingId) -> Result<bool, RecordingError> {
        let state = self.state.lock().unwrap();
        match state.is_away {
            true => Err(RecordingError::Unavailable),
            false => Ok(state.recording && id.to_string() == RECORDING),
        }
    }

    async fn told(&self, call: CallId, command: Command) -> Result<(), CallError> {
        self.answered(call, |state| state.commands.push(command)).await
    }
}

#[async_trait]
impl CallControl for FakeService {
    async fn calls(&self, _: &str) -> Result<Vec<Call>, CallError> {
        self.answered(CALL.parse().unwrap(), |_| {
            [ENDED_CALL, CALL].iter().map(|id| call(id.parse().unwrap())).collect()
        })
        .await
    }

    async fn call(&self, _: &str, id: CallId) -> Result<Call, CallError> {
        if id.to_string() == ENDED_CALL {
            return Ok(call(id));
        }
        self.answered(id, |_| call(id)).await
    }

    async fn place(&self, _: &str, new: NewCall) -> Result<Call, CallError> {
        let id = CALL.parse().unwrap();
        self.answered(id, |state| {
            state.commands.push(Command::Place(new.clone()));
            let (state, direction) = (CallState::Establishing, Direction::Outgoing);
            let source = Party::application("mybot", new.source_name);
            let callback_uri = new.callback_uri;
            Call { state, direction, source, target: new.target, callback_uri, ..call(id) }
        })
        .await
    }

    async fn answer(
        &self,
        _: &str,
        call: CallId,
        callback_uri: Option<String>,
        media_config: Option<String>,
        prefetch: Vec<PromptSource>,
    ) -> Result<(), CallError> {
        self.told(call, Command::Answer { callback_uri, media_config, prefetch }).await
    }

    async fn reject(
        &self,
        _: &str,
        call: CallId,
        reason: RejectReason,
        _: Option<String>,
    ) -> Result<(), CallError> {
        self.told(call, Command::Reject(reason)).await
    }

    async fn redirect(
        &self,
        _: &str,
        call: CallId,
        target: Party,
        _: Option<String>,
    ) -> Result<(), CallError> {
        self.told(call, Command::Redirect(target)).await
    }

    async fn transfer(&self, _: &str, call: CallId, to: TransferTarget) -> Result<(), CallError> {
        self.told(call, Command::Transfer(to)).await
    }

    async fn hang_up(&self, _: &str, call: CallId) -> Result<(), CallError> {
        self.told(call, Command::HangUp).await
    }

    async fn keep_alive(&self, _: &str, call: CallId) -> Result<(), CallError> {
        self.told(call, Command::KeepAlive).await
    }

    async fn submit(
        &self,
        _: &str,
        call: CallId,
        new: NewOperation,
    ) -> Result<Operation, CallError> {
        self.answered(call, |state| {
            state.commands.push(Command::Submit(new.clone()));
            operation(new.kind, new.client_context)
        })
        .await
    }

    async fn trace(&self, _: &str, call: CallId) -> Result<Vec<Traced>, CallError> {
        let local = "192.0.2.1:5060".parse().unwrap();
        let peer = "192.0.2.10:40000".parse().unwrap();
        let message = Traced {
            at: UnixMillis(1_700_000_000_123),
            is_sent: false,
            path: Path { transport: Transport::Tcp, ..Path::udp(local, peer) },
            message: "OPTIONS sip:a@b SIP/2.0\r\n\r\n".into(),
        };
        self.answered(call, |_| vec![message]).await
    }

    async fn operations(&self, _: &str, call: CallId) -> Result<Vec<Operation>, CallError> {
        self.answered(call, |state| vec![state.operation.clone()]).await
    }

    async fn ready(&self) -> Result<(), String> {
        let not_ready = self.state.lock().unwrap().not_ready.clone();
        not_ready.map_or(Ok(()), Err)
    }

    async fn trunks(&self) -> Vec<TrunkReport> {
        let status = TrunkStatus {
            state: TrunkState::Waiting,
            since: Instant::now(),
            last_status: Some(Status::FORBIDDEN),
            failure: Some(Failure::Refused(Status::FORBIDDEN)),
            expires_at: None,
        };
        vec![TrunkReport { name: "provider".to_owned(), status, no_way: None }]
    }
}

#[async_trait]
impl ApiStore for FakeService {
    async fn begin_request(
        &self,
        _: &str,
        key: &str,
        fingerprint: &str,
        _: Option<CallId>,
    ) -> Result<RequestKey, CallError> {
        let mut state = self.state.lock().unwrap();
        Ok(match state.requests.get(key) {
            None => {
                state.requests.insert(key.to_owned(), (fingerprint.to_owned(), None));
                RequestKey::New
            }
            Some((known, _)) if known != fingerprint => RequestKey::Taken,
            Some((_, None)) => RequestKey::Unanswered,
            Some((_, Some(answer))) => RequestKey::Answered(answer.clone()),
        })
    }

    async fn end_request(
        &self,
        _: &str,
        key: &str,
        answer: Option<KeptAnswer>,
    ) -> Result<(), CallError> {
        let requests = &mut self.state.lock().unwrap().requests;
        match answer {
            None => drop(requests.remove(key)),
            Some(_) => requests.get_mut(key).unwrap().1 = answer,
        }
        Ok(())
    }

    async fn undelivered(
        &self,
        _: &str,
        skip: usize,
        size: usize,
    ) -> Result<(usize, Vec<GivenUp>), CallError> {
        let id: CallId = CALL.parse().unwrap();
        let given_up = move |sequence: u64| {
            let delivery = Delivery {
                call: id,
                sequence,
                application: "mybot".to_owned(),
                callback_uri: "https://bot.example/api/calls".to_owned(),
                chain_id: String::new(),
                receiver: String::new(),
                event: Event::CallChanged { call: call(id) },
                attempts: 1,
                created_at: SteadyMillis(0),
            };
            let error = "answered 403 Forbidden".to_owned();
            GivenUp { delivery, error, created_at: UnixMillis(0) }
        };
        self.answered(id, |state| {
            let listed = (3..).take(state.given_up).skip(skip).take(size).map(given_up);
            (state.given_up, listed.collect())
        })
        .await
    }

    async fn resend(&self, _: &str, which: Option<(CallId, u64)>) -> Result<u64, CallError> {
        self.answered(CALL.parse().unwrap(), |state| {
            state.commands.push(Command::Resend(which));
            u64::from(which.is_none_or(|(_, sequence)| sequence == 3))
        })
        .await
    }

    async fn recording(
        &self,
        id: RecordingId,
        key: RecordingKey<'_>,
    ) -> Result<OpenRecording, RecordingError> {
        let left = self.state.lock().unwrap().left;
        match (self.known(id)?, opens(key)) {
            (false, _) => Err(RecordingError::NotFound),
            (true, false) => Err(RecordingError::Forbidden),
            (true, true) => {
                let place = tempfile::tempdir().unwrap();
                let folder = Folder::hold(place.path().to_owned()).unwrap();
                let vault = Vault::new(folder);
                std::fs::write(vault.path(id), &*RECORDING_BYTES).unwrap();
                let (file, bytes) = vault.open(id).await.unwrap();
                Ok(OpenRecording { bytes, left, file })
            }
        }
    }

    async fn recording_left(&self, id: RecordingId) -> Result<Option<Duration>, RecordingError> {
        let left = self.state.lock().unwrap().left;
        match self.known(id)? {
            true => Ok(left),
            false => Err(RecordingError::NotFound),
        }
    }

    async fn delete_recording(
        &self,
        id: RecordingId,
        key: RecordingKey<'_>,
    ) -> Result<(), RecordingError> {
        match (self.known(id)?, opens(key)) {
            (false, _) => Err(RecordingError::NotFound),
            (true, false) => Err(RecordingError::Forbidden),
            (true, true) => {
                self.state.lock().unwrap().recording = false;
                Ok(())
            }
        }
    }

    fn recording_link(&self, id: RecordingId) -> RecordingLink {
        RecordingLink {
            location: format!("https://api.example/recordings/{id}"),
            token: RECORDING_TOKEN.to_owned(),
        }
    }

    fn lost_and_found(&self) -> LostAndFound {
        LostAndFound { files: 2, bytes: 32_044, oldest: Some(UnixMillis(1_700_000_000_000)) }
    }
}

fn call(id: CallId) -> Call {
    let over = id.to_string() == ENDED_CALL;
    Call {
        id,
        application: Some("mybot".to_owned()),
        state: if over { CallState::Terminated } else { CallState::Established },
        direction: Direction::Incoming,
        source: Party { uri: "sip:+15550123@trunk.example".to_owned(), display_name: None },
        target: Party { uri: "sip:support@pbx.example".to_owned(), display_name: None },
        chain_id: "d8217646-3110-40b1-bae6-e9ac6c3a9f74".to_owned(),
        participant_id: PARTICIPANT.parse().unwrap(),
        arrival: Arrival::default(),
        is_telephone: false,
        ringing_timeout_seconds: None,
        peer_participant_id: PEER.parse().unwrap(),
        is_muted: false,
        peer_is_muted: false,
        recording_status: None,
        sip_call_id: "abc@trunk.example".to_owned(),
        callback_uri: Some("https://bot.example/api/calls".to_owned()),
        media: Some(MediaState::Active),
        tones_subscribed: false,
        media_config: Some("{}".to_owned()),
        subject: None,
        created_at: UnixMillis(0),
        ended_at: over.then_some(UnixMillis(1)),
        termination: over.then_some(Termination::PeerHungUp),
    }
}

fn operation(kind: OperationKind, client_context: Option<String>) -> Operation {
    let end = (!kind.is_queued()).then_some(OperationEnd::Done);
    Operation {
        id: OPERATION.parse().unwrap(),
        call: CALL.parse().unwrap(),
        kind,
        client_context,
        status: end.as_ref().map_or(OperationStatus::Running, OperationEnd::status),
        end,
        recording: None,
        created_at: UnixMillis(0),
        ended_at: None,
    }
}

/// The recording belongs to `mybot`.
fn opens(key: RecordingKey<'_>) -> bool {
    key == RecordingKey::Token(RECORDING_TOKEN) || key == RecordingKey::Application("mybot")
}

mod tests {
    use super::*;
    use aftertone_core::{
        graph::{IdentityType, notification},
        model::Tone,
    };

    #[test]
    fn the_schemas_find_what_is_wrong() {
        let name = "v1.0.microsoft.graph.recordOperation";
        assert_eq!(schema_errors(name, &json!({"status": "running", "resultInfo": null})), "");
        for wrong in [
            json!({"status": "sleeping"}),
            json!({"recordingLocation": 5}),
            json!({"resultInfo": {"code": "200"}}),
            json!([]),
        ] {
            assert_ne!(schema_errors(name, &wrong), "", "{wrong}");
        }
    }

    #[test]
    fn notifications_are_what_the_description_says() {
        let id = CALL.parse().unwrap();
        let service = FakeService::new();
        service.end_operation(OperationEnd::MaxSilenceTimeout);
        let operation = service.state.lock().unwrap().operation.clone();
        let events = [
            (Event::CallOffered { call: call(id) }, "call"),
            (Event::CallChanged { call: call(id) }, "call"),
            (Event::CallEnded { call: call(ENDED_CALL.parse().unwrap()) }, "call"),
            (Event::OperationEnded { operation }, "recordOperation"),
            (Event::ToneHeard { call: id, sequence: 3, tone: Tone::POUND }, "call"),
        ];
        let link = service.recording_link(RECORDING.parse().unwrap());
        let types = [IdentityType::IdentitySet, IdentityType::CommunicationsIdentitySet];
        let versions = [(Version::V1, "v1.0"), (Version::Beta, "beta")];
        for ((version, prefix), identity_type) in
            versions.into_iter().flat_map(|version| types.map(|declared| (version, declared)))
        {
            let context = GraphContext {
                tenant: "00000000-0000-0000-0000-000000000001".to_owned(),
                public_url: "https://api.example".to_owned(),
                version,
                identity_type,
            };
            for (event, name) in &events {
                let told = json!(notification(&context, event, 7, Some(&link)));
                let envelope = format!("{prefix}.microsoft.graph.commsNotifications");
                assert_eq!(schema_errors(&envelope, &told), "", "{told}");
                let data = &told["value"][0]["resourceData"];
                let schema = format!("{prefix}.microsoft.graph.{name}");
                assert_eq!(schema_errors(&schema, data), "", "{data}");
            }
        }
    }
}
