//! The contract's own examples, to the letter: what the SDKs were seen to send (section 12), the codes
//! of every end (section 5), and the envelope of a notification (section 6.1).

use aftertone::{
    graph::{
        AnswerBody, CreateCallBody, GraphContext, PlayPromptBody, RecordBody, RejectBody, Version,
        client_context, notification,
    },
    model::{
        Call, CallState, Direction, Event, MediaLoss, MediaState, OperationEnd, OperationKind,
        OperationStatus, Party, PlayPromptRequest, PromptFailure, PromptFailureKind, PromptSource,
        RecordAction, RecordRequest, RejectReason, SendTonesRequest, Silence, Termination,
        UnixMillis,
    },
};
use serde_json::{Value, json};

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

fn kinds() -> [OperationKind; 3] {
    let record = RecordRequest {
        action: RecordAction::Record,
        prompt: None,
        barge_in_allowed: false,
        initial_silence_seconds: 5,
        max_silence_seconds: 5,
        max_duration_seconds: 5,
        play_beep: true,
        stop_tones: Vec::new(),
    };
    [
        OperationKind::Record(record),
        OperationKind::PlayPrompt(PlayPromptRequest { prompts: Vec::new(), repeat: false }),
        OperationKind::SendDtmfTones(SendTonesRequest { tones: Vec::new(), delay_ms: 0 }),
    ]
}

/// Sections 5.1 and 5.2. The message of the two rows with a prompt names its cause beside.
#[test]
fn operations_end_with_the_codes_of_the_tables() {
    let [record, play, tones] = kinds();
    let prompt = |kind| {
        OperationEnd::PromptFailed(PromptFailure { kind, message: "it was not there".to_owned() })
    };
    use OperationEnd as End;
    use OperationStatus::{Completed, Failed};
    let table = [
        (&record, End::StopToneDetected, Completed, "stopToneDetected", 200, 8514),
        (&record, End::MaxRecordDurationReached, Completed, "maxRecordDurationReached", 200, 8515),
        (&record, End::MaxSilenceTimeout, Completed, "maxSilenceTimeout", 200, 8509),
        (&record, End::InitialSilenceTimeout, Failed, "initialSilenceTimeout", 400, 8510),
        (&record, End::Canceled, Failed, "operationCanceled", 400, 8508),
        (&record, prompt(PromptFailureKind::NotFetched), Failed, "playPromptFailed", 500, 8511),
        (&record, End::HungUpWithAudio, Completed, "mediaReceiveTimeout", 200, 8588),
        (&record, End::HungUpWithoutAudio, Failed, "mediaReceiveTimeout", 400, 8513),
        (&record, End::Unspecified, Failed, "unspecifiedError", 500, 9999),
        (&play, End::Done, Completed, "completedSuccessfully", 200, 0),
        (&play, End::Canceled, Failed, "mediaOperationCanceled", 400, 8508),
        (&play, prompt(PromptFailureKind::NotFetched), Failed, "unknown", 400, 8536),
        (&play, prompt(PromptFailureKind::BadFormat), Failed, "unknown", 400, 8535),
        (&play, End::Unspecified, Failed, "unknown", 500, 9999),
        (&tones, End::Done, Completed, "completedSuccessfully", 200, 0),
        (&tones, End::Canceled, Failed, "mediaOperationCanceled", 400, 8508),
    ];
    for (kind, end, status, reason, code, subcode) in table {
        let result = end.result(kind);
        let shown = (end.status(), end.completion_reason(kind), result.code, result.subcode);
        assert_eq!(shown, (status, Some(reason), code, subcode), "{end:?}");
        assert!(!result.message.is_empty());
    }
    let messages = [
        (End::MaxRecordDurationReached, "Action completed, max record duration reached."),
        (End::StopToneDetected, "Action completed as stop tone was detected."),
        (End::Canceled, "Action failed, the operation was cancelled."),
        (End::InitialSilenceTimeout, "Action failed, initial silence timeout reached."),
        (End::Done, "Action completed successfully."),
    ];
    for (end, message) in messages {
        assert_eq!(end.result(&record).message, message);
    }
}

/// Section 5.3.
#[test]
fn calls_end_with_the_codes_of_the_table() {
    use Termination as End;
    let loss = MediaLoss { silence: Silence::NeverHeard, ours: None, theirs: None };
    let table = [
        (End::PeerHungUp, 200, 4521),
        (End::ApplicationHungUp, 200, 7000),
        (End::Transferred, 200, 7015),
        (End::KeepAliveExpired, 408, 8537),
        (End::NoAck, 408, 1106),
        (End::NoAnswer, 408, 10_057),
        (End::MediaTimeout(loss), 410, 301_005),
        (End::PeerLost, 480, 10_076),
        (End::NotAnswered, 408, 8587),
        (End::Internal, 500, 7106),
        (End::Refused(603), 603, 8538),
        (End::Refused(486), 486, 8539),
        (End::Refused(600), 600, 8540),
        (End::Refused(480), 480, 8541),
        (End::Refused(487), 487, 8542),
        (End::Refused(404), 404, 8543),
        (End::Refused(604), 604, 8543),
        (End::Refused(503), 503, 8544),
        (End::Refused(400), 400, 8546),
    ];
    for (end, code, subcode) in table {
        let result = end.result();
        assert_eq!((result.code, result.subcode), (code, subcode), "{end:?}");
        assert!(result.message.ends_with(&format!("DiagCode: {code}#{subcode}.@")), "{end:?}");
    }
}

/// Section 6.1, with the members that we add to the example removed.
#[test]
fn a_notification_has_the_envelope_of_the_example() {
    let call = Call {
        id: "2e1a0b00-0000-0000-0000-243709c565ab".parse().unwrap(),
        application: "bot".to_owned(),
        state: CallState::Established,
        direction: Direction::Incoming,
        source: Party::default(),
        target: Party::default(),
        chain_id: "d8217646-3110-40b1-bae6-e9ac6c3a9f74".to_owned(),
        participant_id: "18214a6f-5e2f-4a5c-8a5d-8ff3a5b1d6cc".parse().unwrap(),
        peer_participant_id: "18214a6f-5e2f-4a5c-8a5d-8ff3a5b1d6cd".parse().unwrap(),
        sip_call_id: "x".to_owned(),
        callback_uri: None,
        media: Some(MediaState::Active),
        tones_subscribed: false,
        is_muted: false,
        peer_is_muted: false,
        recording_status: None,
        media_config: None,
        subject: None,
        created_at: UnixMillis(0),
        ended_at: None,
        termination: None,
    };
    let context = GraphContext {
        tenant: "00000000-0000-0000-0000-000000000001".to_owned(),
        public_url: "https://api.example".to_owned(),
        version: Version::V1,
    };
    let told = json!(notification(&context, &Event::CallChanged { call }, 5445, None));
    let example = json!({
        "@odata.type": "#microsoft.graph.commsNotifications",
        "value": [{
            "@odata.type": "#microsoft.graph.commsNotification",
            "changeType": "updated",
            "resourceUrl": "/communications/calls/2e1a0b00-0000-0000-0000-243709c565ab",
            "resource": "/app/calls/2e1a0b00-0000-0000-0000-243709c565ab",
            "resourceData": {
                "@odata.type": "#microsoft.graph.call",
                "@odata.id": "/communications/calls/2e1a0b00-0000-0000-0000-243709c565ab",
                "@odata.etag": "W/\"5445\"",
                "id": "2e1a0b00-0000-0000-0000-243709c565ab",
                "state": "established",
                "mediaState": {"audio": "active"}
            }
        }]
    });
    let mut shown = told.clone();
    let data = shown["value"][0]["resourceData"].as_object_mut().unwrap();
    let wanted = example["value"][0]["resourceData"].as_object().unwrap();
    data.retain(|name, _| wanted.contains_key(name));
    assert_eq!(shown, example, "{told}");
}
