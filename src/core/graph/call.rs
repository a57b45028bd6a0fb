//! A call as Graph shows it (contract section 3.1).

use serde::Serialize;
use serde_json::Value;

use super::{
    GraphContext, Version,
    arrival::{CallRoute, IncomingContext},
    identity::ParticipantInfo,
};
use crate::model::{self, CallState};

/// Graph's `call`. Members that have no meaning on a SIP call are null, as in the documents.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    #[serde(rename = "@odata.context", skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    #[serde(rename = "@odata.type")]
    odata_type: &'static str,
    id: String,
    state: model::CallState,
    direction: model::Direction,
    callback_uri: Option<String>,
    call_chain_id: String,
    call_routes: Vec<CallRoute>,
    source: ParticipantInfo,
    targets: [ParticipantInfo; 1],
    requested_modalities: [&'static str; 1],
    media_config: Option<Value>,
    media_state: Option<MediaState>,
    result_info: Option<ResultInfo>,
    tone_info: Option<()>,
    incoming_context: Option<IncomingContext>,
    subject: Option<String>,
    tenant_id: String,
    my_participant_id: String,
    chat_info: Option<()>,
    meeting_info: Option<()>,
    transcription: Option<()>,
    #[serde(flatten)]
    beta: Option<BetaMembers>,
}

/// Members that only the beta has.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct BetaMembers {
    active_modalities: Vec<&'static str>,
    answered_by: Option<ParticipantInfo>,
    meeting_capability: Option<()>,
    ringing_timeout_in_seconds: Option<u32>,
    routing_policies: [(); 0],
    termination_reason: Option<String>,
}

impl BetaMembers {
    fn of(context: &GraphContext, call: &model::Call) -> Self {
        let answering = || ParticipantInfo::answering(context.identity_type, call);
        // A call has media from the answer on.
        let is_answered = call.media.is_some();
        Self {
            active_modalities: is_answered.then_some("audio").into_iter().collect(),
            answered_by: is_answered.then(answering),
            meeting_capability: None,
            ringing_timeout_in_seconds: call.ringing_timeout_seconds,
            routing_policies: [],
            termination_reason: call.result().map(|result| result.message),
        }
    }
}

impl Call {
    /// The members that may be selected: those of both versions.
    pub const MEMBERS: [&str; 31] = [
        "activeModalities",
        "answeredBy",
        "audioRoutingGroups",
        "callChainId",
        "callOptions",
        "callRoutes",
        "callbackUri",
        "chatInfo",
        "contentSharingSessions",
        "direction",
        "id",
        "incomingContext",
        "mediaConfig",
        "mediaState",
        "meetingCapability",
        "meetingInfo",
        "myParticipantId",
        "operations",
        "participants",
        "requestedModalities",
        "resultInfo",
        "ringingTimeoutInSeconds",
        "routingPolicies",
        "source",
        "state",
        "subject",
        "targets",
        "tenantId",
        "terminationReason",
        "toneInfo",
        "transcription",
    ];

    /// The call as the only resource of a response.
    pub fn entity(context: &GraphContext, call: &model::Call) -> Self {
        let metadata = context.metadata_url("communications/calls/$entity");
        Self { context: Some(metadata), ..Self::element(context, call) }
    }

    /// The call as one of several.
    pub fn element(context: &GraphContext, call: &model::Call) -> Self {
        Self {
            context: None,
            odata_type: "#microsoft.graph.call",
            id: call.id.to_string(),
            state: match (context.version, call.state) {
                // Clients of v1.0 do not know this state (contract section 10).
                (Version::V1, CallState::Ringing) => CallState::Establishing,
                (_, state) => state,
            },
            direction: call.direction,
            callback_uri: call.callback_uri.clone(),
            call_chain_id: call.chain_id.clone(),
            call_routes: CallRoute::all(context.identity_type, call),
            source: ParticipantInfo::source(context.identity_type, &call.source),
            targets: [ParticipantInfo::target(context.identity_type, call)],
            requested_modalities: ["audio"],
            media_config: call.media_config.as_deref().and_then(media_config),
            media_state: call.media.map(MediaState::from),
            result_info: call.result().map(ResultInfo::from),
            tone_info: None,
            incoming_context: IncomingContext::of(context.identity_type, call),
            subject: call.subject.clone(),
            tenant_id: context.tenant.clone(),
            my_participant_id: call.participant_id.to_string(),
            chat_info: None,
            meeting_info: None,
            transcription: None,
            beta: (context.version == Version::Beta).then(|| BetaMembers::of(context, call)),
        }
    }
}

/// Graph's `callMediaState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct MediaState {
    audio: model::MediaState,
}

impl From<model::MediaState> for MediaState {
    fn from(audio: model::MediaState) -> Self {
        Self { audio }
    }
}

/// Graph's `resultInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResultInfo {
    #[serde(rename = "@odata.type")]
    odata_type: &'static str,
    code: i32,
    subcode: i32,
    message: String,
}

impl From<model::ResultInfo> for ResultInfo {
    fn from(result: model::ResultInfo) -> Self {
        let model::ResultInfo { code, subcode, message } = result;
        Self { odata_type: "#microsoft.graph.resultInfo", code, subcode, message }
    }
}

/// The client's own media configuration. Its type is printed in the standard spelling, however the
/// client wrote it; no other type is accepted.
fn media_config(text: &str) -> Option<Value> {
    let mut config: Value = serde_json::from_str(text).ok()?;
    let odata_type = "#microsoft.graph.serviceHostedMediaConfig".into();
    config.as_object_mut()?.insert("@odata.type".to_owned(), odata_type);
    Some(config)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::*, *};
    use crate::model::Termination;

    #[test]
    fn a_call_is_shown_with_its_parties_and_explicit_nulls() {
        let shown = serde_json::to_value(Call::entity(&v1(), &call())).unwrap();
        assert_eq!(
            shown,
            json!({
                "@odata.context": "https://api.example/v1.0/$metadata#communications/calls/$entity",
                "@odata.type": "#microsoft.graph.call",
                "id": "2e1a0b00-2db4-4022-9570-243709c565ab",
                "state": "established",
                "direction": "incoming",
                "callbackUri": "https://bot.example/api/calls",
                "callChainId": "d8217646-3110-40b1-bae6-e9ac6c3a9f74",
                "callRoutes": [],
                "source": {
                    "@odata.type": "#microsoft.graph.participantInfo",
                    "identity": {
                        "@odata.type": "#microsoft.graph.identitySet",
                        "phone": {
                            "@odata.type": "#microsoft.graph.identity",
                            "id": "+15550123",
                            "displayName": "Alice"
                        }
                    }
                },
                "targets": [{
                    "@odata.type": "#microsoft.graph.invitationParticipantInfo",
                    "identity": {
                        "@odata.type": "#microsoft.graph.identitySet",
                        "application": {
                            "@odata.type": "#microsoft.graph.identity",
                            "id": "7e57e200-0000-4000-8000-000000000001",
                            "displayName": "mybot"
                        },
                        "applicationInstance": {
                            "@odata.type": "#microsoft.graph.identity",
                            "id": "sip:support@pbx.example"
                        }
                    }
                }],
                "requestedModalities": ["audio"],
                "mediaConfig": {"@odata.type": "#microsoft.graph.serviceHostedMediaConfig"},
                "mediaState": {"audio": "active"},
                "resultInfo": null,
                "toneInfo": null,
                "incomingContext": null,
                "subject": null,
                "tenantId": "00000000-0000-0000-0000-000000000001",
                "myParticipantId": "18214a6f-5e2f-4a5c-8a5d-8ff3a5b1d6cc",
                "chatInfo": null,
                "meetingInfo": null,
                "transcription": null
            })
        );
    }

    #[test]
    fn the_beta_has_more_members_and_a_state_that_v1_does_not_know() {
        let rings = model::Call {
            state: CallState::Ringing,
            direction: model::Direction::Outgoing,
            ringing_timeout_seconds: Some(30),
            media: None,
            ..call()
        };
        let shown = json!(Call::entity(&v1(), &rings));
        assert_eq!(shown["state"], "establishing");
        assert_eq!(shown.get("activeModalities"), None);
        let shown = json!(Call::entity(&beta(), &rings));
        assert_eq!(shown["state"], "ringing");
        assert_eq!(shown["activeModalities"], json!([]));
        assert_eq!(shown["answeredBy"], Value::Null);
        assert_eq!(shown["ringingTimeoutInSeconds"], 30);
        let shown = json!(Call::entity(&beta(), &call()));
        assert_eq!(shown["activeModalities"], json!(["audio"]));
        assert_eq!(shown["answeredBy"]["identity"]["application"]["displayName"], "mybot");
        assert_eq!(shown["terminationReason"], Value::Null);
    }

    #[test]
    fn every_party_of_a_call_declares_the_type_of_the_setting() {
        let party = |uri: &str| model::Party { uri: uri.to_owned(), display_name: None };
        let arrival = model::Arrival {
            diverted: vec![party("tel:+4930100")],
            referred_by: Some(party("tel:+4930200")),
            ..call().arrival
        };
        let call = model::Call { arrival, ..call() };
        // Source, target, two of a route, two of its context; the beta also has the answering
        // party.
        for (context, parties) in [(v1(), 6), (beta(), 7)] {
            let shown = json!(Call::entity(&context, &call));
            assert_eq!(identity_sets(&shown), (parties, 0), "{shown}");
            let shown = json!(Call::entity(&communications(context), &call));
            assert_eq!(identity_sets(&shown), (0, parties), "{shown}");
        }
    }

    #[test]
    fn a_call_that_is_over_says_why() {
        let over = model::Call {
            state: CallState::Terminated,
            termination: Some(Termination::PeerHungUp),
            media: None,
            ..call()
        };
        let shown = serde_json::to_value(Call::element(&v1(), &over)).unwrap();
        assert_eq!(shown["state"], "terminated");
        assert_eq!(shown["resultInfo"]["code"], 200);
        assert_eq!(shown["resultInfo"]["subcode"], 4521);
        assert_eq!(shown["mediaState"], Value::Null);
    }

    #[test]
    fn the_media_configuration_has_its_type_however_it_was_written() {
        assert_eq!(
            media_config("{\"preFetchMedia\":[]}"),
            Some(json!({
                "preFetchMedia": [],
                "@odata.type": "#microsoft.graph.serviceHostedMediaConfig"
            }))
        );
        for odd in ["null", "\"microsoft.graph.serviceHostedMediaConfig\""] {
            let shown = media_config(&format!("{{\"@odata.type\": {odd}}}")).unwrap();
            assert_eq!(shown["@odata.type"], "#microsoft.graph.serviceHostedMediaConfig", "{odd}");
        }
        assert_eq!(media_config("not json"), None);
    }
}
