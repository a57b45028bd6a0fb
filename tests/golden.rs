//! The contract's own examples, to the letter: what the SDKs send (section 12), and the
//! notifications of a call (sections 6.1 and 6.2). `codes` has the ends of section 5, each by its
//! cause.

mod support;

use aftertone::service::demo::phone::Phone;
use aftertone_core::{
    graph::{
        AnswerBody, CreateCallBody, GraphContext, IdentityType, PlayPromptBody, RecordBody,
        RejectBody, Version, client_context, notification,
    },
    model::{
        Arrival, Call, CallState, Direction, Event, MediaState, Party, PromptSource, RecordAction,
        RejectReason, Tone, UnixMillis,
    },
};
use serde_json::{Value, json};
use support::{
    Node,
    bot::{Bot, TOKEN},
};

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn short_wav(resource_id: &str) -> PromptSource {
    PromptSource {
        uri: "https://bot.example/prompts/short.wav".to_owned(),
        resource_id: Some(resource_id.to_owned()),
        times: 1,
    }
}

const RECORD_PYTHON: &str = r##"{"bargeInAllowed":true,"clientContext":"d45324c1-fcb5-430a-902c-f20af696537c","initialSilenceTimeoutInSeconds":5,"maxRecordDurationInSeconds":10,"maxSilenceTimeoutInSeconds":2,"playBeep":true,"prompts":[{"@odata.type":"#microsoft.graph.mediaPrompt","mediaInfo":{"@odata.type":"#microsoft.graph.mediaInfo","resourceId":"1D6DE2D4-CD51-4309-8DAA-70768651088E","uri":"https://bot.example/prompts/short.wav"}}],"stopTones":["#","1","*"],"streamWhileRecording":false}"##;
const RECORD_JAVASCRIPT: &str = r##"{"bargeInAllowed":true,"clientContext":"d45324c1-fcb5-430a-902c-f20af696537c","prompts":[{"@odata.type":"#microsoft.graph.mediaPrompt","mediaInfo":{"uri":"https://bot.example/prompts/short.wav","resourceId":"1D6DE2D4-CD51-4309-8DAA-70768651088E"}}],"maxRecordDurationInSeconds":10,"initialSilenceTimeoutInSeconds":5,"maxSilenceTimeoutInSeconds":2,"playBeep":true,"stopTones":["#","1","*"]}"##;
const PLAY_PROMPT: &str = r##"{"clientContext":"4c858d2e-0000-0000-0000-000000000000","loop":false,"prompts":[{"@odata.type":"#microsoft.graph.mediaPrompt","mediaInfo":{"@odata.type":"#microsoft.graph.mediaInfo","resourceId":"cd47ce1e-0000-0000-0000-000000000000","uri":"https://bot.example/prompts/short.wav"}}]}"##;
const ANSWER_PYTHON: &str = r##"{"acceptedModalities":["audio"],"callbackUri":"https://bot.example/api/calls","mediaConfig":{"@odata.type":"#microsoft.graph.serviceHostedMediaConfig","preFetchMedia":[{"resourceId":"1D6DE2D4-CD51-4309-8DAA-70768651088E","uri":"https://bot.example/prompts/short.wav"}]}}"##;
const ANSWER_JAVASCRIPT: &str = r##"{"callbackUri":"https://bot.example/api/calls","acceptedModalities":["audio"],"mediaConfig":{"@odata.type":"#microsoft.graph.serviceHostedMediaConfig","preFetchMedia":[{"uri":"https://bot.example/prompts/short.wav","resourceId":"1D6DE2D4-CD51-4309-8DAA-70768651088E"}]}}"##;
const CREATE_PYTHON: &str = r##"{"@odata.type":"#microsoft.graph.call","callbackUri":"https://bot.example/api/calls","direction":"outgoing","mediaConfig":{"@odata.type":"#microsoft.graph.serviceHostedMediaConfig"},"requestedModalities":["audio"],"subject":"acceptance","targets":[{"identity":{"@odata.type":"#microsoft.graph.communicationsIdentitySet","phone":{"id":"+15550123","@odata.type":"#microsoft.graph.identity"}},"@odata.type":"#microsoft.graph.invitationParticipantInfo"}],"tenantId":"99999999-8888-7777-6666-555555555555"}"##;
const CREATE_JAVASCRIPT: &str = r##"{"@odata.type":"#microsoft.graph.call","callbackUri":"https://bot.example/api/calls","direction":"outgoing","requestedModalities":["audio"],"targets":[{"@odata.type":"#microsoft.graph.invitationParticipantInfo","identity":{"@odata.type":"#microsoft.graph.identitySet","phone":{"@odata.type":"#microsoft.graph.identity","id":"+15550123"}}}],"mediaConfig":{"@odata.type":"#microsoft.graph.serviceHostedMediaConfig"}}"##;

#[test]
fn what_the_sdks_send_is_read() {
    for text in [RECORD_PYTHON, RECORD_JAVASCRIPT] {
        let body = RecordBody::read(RecordAction::Record, &parsed(text)).unwrap();
        assert_eq!(body.client_context.as_deref(), Some("d45324c1-fcb5-430a-902c-f20af696537c"));
        let request = body.request;
        assert_eq!(request.prompt, Some(short_wav("1D6DE2D4-CD51-4309-8DAA-70768651088E")));
        let seconds = (
            request.initial_silence_seconds,
            request.max_silence_seconds,
            request.max_duration_seconds,
        );
        assert_eq!(seconds, (5, 2, 10));
        let keys: String = request.stop_tones.iter().map(|tone| tone.as_char()).collect();
        assert_eq!(keys, "#1*");
        assert!(request.barge_in_allowed && request.play_beep);
    }
    for (action, text) in [
        (
            RecordAction::Record,
            r#"{"bargeInAllowed":false,"playBeep":false,"streamWhileRecording":false}"#,
        ),
        (RecordAction::RecordResponse, r#"{"bargeInAllowed":false,"playBeep":false}"#),
    ] {
        let request = RecordBody::read(action, &parsed(text)).unwrap().request;
        assert!(!request.play_beep && !request.barge_in_allowed);
        assert_eq!(request.max_duration_seconds, 5);
    }
    let play = PlayPromptBody::read(&parsed(PLAY_PROMPT)).unwrap();
    assert_eq!(play.request.prompts, [short_wav("cd47ce1e-0000-0000-0000-000000000000")]);
    assert!(!play.request.repeat);
    for text in [ANSWER_PYTHON, ANSWER_JAVASCRIPT] {
        let answer = AnswerBody::read(&parsed(text)).unwrap();
        assert_eq!(answer.callback_uri.as_deref(), Some("https://bot.example/api/calls"));
        assert_eq!(answer.prefetch, [short_wav("1D6DE2D4-CD51-4309-8DAA-70768651088E")]);
    }
    let tenant = "99999999-8888-7777-6666-555555555555";
    for (text, subject, tenant) in
        [(CREATE_PYTHON, Some("acceptance"), Some(tenant)), (CREATE_JAVASCRIPT, None, None)]
    {
        let call = CreateCallBody::read(&parsed(text)).unwrap();
        assert_eq!(call.tenant_id.as_deref(), tenant);
        assert_eq!(call.target.uri, "tel:+15550123");
        assert_eq!(call.callback_uri, "https://bot.example/api/calls");
        assert_eq!(call.subject.as_deref(), subject);
    }
    assert_eq!(client_context(&json!({"clientContext": "c"})), Ok(Some("c".to_owned())));
    let reject = RejectBody::read(&json!({"reason": "busy"})).unwrap();
    assert_eq!(reject.reason, RejectReason::Busy);
}

/// Compares with an example of the contract: the same members with the same values, and no others
/// except those that are listed in `extra`.
fn compare(shown: &Value, example: &Value, extra: &[&str]) {
    let mut shown = shown.clone();
    let members = shown.as_object_mut().unwrap();
    for name in extra {
        assert!(members.remove(*name).is_some(), "{name} is not there");
    }
    assert_eq!(&shown, example);
}

fn call(state: CallState, media: Option<MediaState>) -> Call {
    Call {
        id: "2e1a0b00-0000-0000-0000-243709c565ab".parse().unwrap(),
        application: Some("bot".to_owned()),
        state,
        direction: Direction::Incoming,
        source: Party {
            uri: "sip:+15550123@trunk.example".to_owned(),
            display_name: Some("Alice".to_owned()),
        },
        target: Party::application("7e57e200-0000-4000-8000-000000000001", Some("bot".to_owned())),
        arrival: Arrival {
            called: Some("sip:+15550199@pbx.example".to_owned()),
            ..Arrival::default()
        },
        is_telephone: false,
        ringing_timeout_seconds: None,
        chain_id: "d8217646-3110-40b1-bae6-e9ac6c3a9f74".to_owned(),
        participant_id: "18214a6f-5e2f-4a5c-8a5d-8ff3a5b1d6cc".parse().unwrap(),
        peer_participant_id: "18214a6f-5e2f-4a5c-8a5d-8ff3a5b1d6cd".parse().unwrap(),
        sip_call_id: "x".to_owned(),
        callback_uri: None,
        media,
        tones_subscribed: false,
        is_muted: false,
        peer_is_muted: false,
        recording_status: None,
        media_config: None,
        subject: None,
        created_at: UnixMillis(0),
        ended_at: None,
        termination: None,
    }
}

/// The notification of an event: the envelope without its data, and the data.
fn told(event: &Event) -> (Value, Value) {
    let context = GraphContext {
        tenant: "00000000-0000-0000-0000-000000000001".to_owned(),
        public_url: "https://api.example".to_owned(),
        version: Version::V1,
        identity_type: IdentityType::IdentitySet,
    };
    let mut envelope = json!(notification(&context, event, 5445, None));
    let data = envelope["value"][0]["resourceData"].take();
    (envelope, data)
}

fn envelope(change_type: &str, path: &str) -> Value {
    json!({
        "@odata.type": "#microsoft.graph.commsNotifications",
        "value": [{
            "@odata.type": "#microsoft.graph.commsNotification",
            "changeType": change_type,
            "resourceUrl": format!("/communications/calls/{path}"),
            "resource": format!("/app/calls/{path}"),
            "resourceData": null
        }]
    })
}

const CALL: &str = "2e1a0b00-0000-0000-0000-243709c565ab";

/// Section 6.1, complete.
#[test]
fn a_notification_is_the_example() {
    let call = call(CallState::Established, Some(MediaState::Active));
    let (shown, data) = told(&Event::CallChanged { call });
    assert_eq!(shown, envelope("updated", CALL));
    let example = json!({
        "@odata.type": "#microsoft.graph.call",
        "@odata.id": "/communications/calls/2e1a0b00-0000-0000-0000-243709c565ab",
        "@odata.etag": "W/\"5445\"",
        "id": "2e1a0b00-0000-0000-0000-243709c565ab",
        "state": "established",
        "mediaState": {"audio": "active"}
    });
    compare(&data, &example, &[]);
}

/// Section 6.2: the first notification of an incoming call has the members of its row in the table;
/// their values follow section 3.1.
#[test]
fn an_incoming_call_is_created_with_the_members_of_its_row() {
    let (shown, data) = told(&Event::CallOffered { call: call(CallState::Incoming, None) });
    assert_eq!(shown, envelope("created", CALL));
    let identity = |members: Value| {
        let mut set = members;
        set["@odata.type"] = json!("#microsoft.graph.identitySet");
        for (_, identity) in set.as_object_mut().unwrap() {
            if let Some(identity) = identity.as_object_mut() {
                identity.insert("@odata.type".to_owned(), json!("#microsoft.graph.identity"));
            }
        }
        set
    };
    let row = json!({
        "state": "incoming",
        "direction": "incoming",
        "source": {
            "@odata.type": "#microsoft.graph.participantInfo",
            "identity": identity(json!({"phone": {"id": "+15550123", "displayName": "Alice"}}))
        },
        "targets": [{
            "@odata.type": "#microsoft.graph.invitationParticipantInfo",
            "identity": identity(json!({
                "application": {
                    "id": "7e57e200-0000-4000-8000-000000000001",
                    "displayName": "bot"
                },
                "applicationInstance": {"id": "+15550199"}
            }))
        }],
        "requestedModalities": ["audio"],
        "id": CALL,
        "tenantId": "00000000-0000-0000-0000-000000000001",
        "myParticipantId": "18214a6f-5e2f-4a5c-8a5d-8ff3a5b1d6cc",
        "callChainId": "d8217646-3110-40b1-bae6-e9ac6c3a9f74",
        "callRoutes": []
    });
    compare(&data, &row, &["@odata.type", "@odata.id", "@odata.etag"]);
}

/// Section 6.2: a tone is an update of the call.
#[test]
fn a_tone_is_the_example() {
    let event = Event::ToneHeard {
        call: CALL.parse().unwrap(),
        sequence: 1,
        tone: Tone::parse("tone1").unwrap(),
    };
    let (shown, mut data) = told(&event);
    assert_eq!(shown, envelope("updated", CALL));
    let type_of_tone = data["toneInfo"].as_object_mut().unwrap().remove("@odata.type");
    assert_eq!(type_of_tone, Some(json!("#microsoft.graph.toneInfo")));
    let example = json!({"state": "established", "toneInfo": {"sequenceId": 1, "tone": "tone1"}});
    compare(&data, &example, &["@odata.type", "@odata.id", "@odata.etag", "id"]);
}

/// Section 12: the .NET SDK's qualified names, its type annotations, and its headers, which are
/// returned.
#[tokio::test(flavor = "multi_thread")]
async fn the_calling_sdk_for_net_is_understood() {
    let mut bot = Bot::start().await;
    let node = Node::start(&bot.config());
    bot.knows(&node.api);
    let sip = node.sip;
    let calling = tokio::spawn(async move { Phone::call(sip, "bot").await });
    let offered = bot.wait_for("a call", |told| told.data()["state"] == "incoming").await;
    let call = offered.data()["id"].as_str().unwrap();
    let chain = offered.data()["callChainId"].as_str().unwrap();
    for name in ["x-microsoft-skype-chain-id", "scenario-id"] {
        assert_eq!(offered.headers[name], chain, "{name}");
    }
    let answer = json!({
        "callbackUri": format!("http://{}/api/calls", bot.address),
        "acceptedModalities": ["Audio"],
        "mediaConfig": {
            "@odata.type": "#microsoft.graph.serviceHostedMediaConfig",
            "preFetchMedia": [{
                "@odata.type": "#microsoft.graph.mediaInfo",
                "uri": "https://bot.example/prompts/short.wav",
                "resourceId": "1D6DE2D4-CD51-4309-8DAA-70768651088E"
            }]
        }
    });
    let post = async |path: &str, body: &Value| {
        let url = format!("{}/v1.0/communications/calls{path}", node.api);
        let request = bot.client.post(url).bearer_auth(TOKEN);
        let request = request
            .header("content-type", "application/json")
            .header("scenario-id", chain)
            .header("client-request-id", "5b0e1b4e-8a7e-4cf7-93f4-3d7d7c6c1d11")
            .header("user-agent", "GraphCommunicationsClient-Bot/1.2.0.3742");
        let response = request.body(body.to_string()).send().await.unwrap();
        assert_eq!(response.headers()["scenario-id"], chain, "{path}");
        let echoed = &response.headers()["client-request-id"];
        assert_eq!(echoed, "5b0e1b4e-8a7e-4cf7-93f4-3d7d7c6c1d11", "{path}");
        response.status().as_u16()
    };
    let status = post(&format!("/{call}/microsoft.graph.answer"), &answer).await;
    assert_eq!(status, 202);
    let _phone = calling.await.unwrap().expect("answered");
    bot.wait_for_state(call, "established").await;
    let context = json!({"clientContext": "c"});
    let status = post(&format!("/{call}/Microsoft.Graph.subscribeToTone"), &context).await;
    assert_eq!(status, 200);
    let status = post(&format!("('{call}')/microsoft.graph.mute"), &context).await;
    assert_eq!(status, 200);
    let status = post(&format!("/{call}/microsoft.graph.keepAlive"), &Value::Null).await;
    assert_eq!(status, 200);
}
