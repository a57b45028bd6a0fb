//! A call as Graph shows it (contract section 3.1).

use serde::Serialize;
use serde_json::Value;

use super::{GraphContext, identity::ParticipantInfo};
use crate::model;

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
    call_routes: [(); 0],
    source: ParticipantInfo,
    targets: [ParticipantInfo; 1],
    requested_modalities: [&'static str; 1],
    media_config: Option<Value>,
    media_state: Option<MediaState>,
    result_info: Option<ResultInfo>,
    tone_info: Option<()>,
    incoming_context: Option<()>,
    subject: Option<String>,
    tenant_id: String,
    my_participant_id: String,
    chat_info: Option<()>,
    meeting_info: Option<()>,
    transcription: Option<()>,
}

impl Call {
    /// The call as the one thing of a response.
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
            state: call.state,
            direction: call.direction,
            callback_uri: call.callback_uri.clone(),
            call_chain_id: call.chain_id.clone(),
            call_routes: [],
            source: ParticipantInfo::source(&call.source),
            targets: [ParticipantInfo::target(&call.target)],
            requested_modalities: ["audio"],
            media_config: call.media_config.as_deref().and_then(media_config),
            media_state: call.media.map(MediaState::from),
            result_info: call.result().map(ResultInfo::from),
            tone_info: None,
            incoming_context: None,
            subject: call.subject.clone(),
            tenant_id: context.tenant.clone(),
            my_participant_id: call.participant_id.to_string(),
            chat_info: None,
            meeting_info: None,
            transcription: None,
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

/// The client's own configuration; readers need its type even if the client left it out.
fn media_config(text: &str) -> Option<Value> {
    let mut config: Value = serde_json::from_str(text).ok()?;
    config
        .as_object_mut()?
        .entry("@odata.type")
        .or_insert_with(|| "#microsoft.graph.serviceHostedMediaConfig".into());
    Some(config)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::*, *};
    use crate::model::{CallState, Termination};

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
                        "user": {
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
    fn the_type_of_the_media_configuration_is_added_when_it_was_left_out() {
        assert_eq!(
            media_config("{\"preFetchMedia\":[]}"),
            Some(json!({
                "preFetchMedia": [],
                "@odata.type": "#microsoft.graph.serviceHostedMediaConfig"
            }))
        );
        assert_eq!(media_config("not json"), None);
    }
}
