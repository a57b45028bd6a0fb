//! The two sides of a call as Graph shows them (contract sections 2 and 3.4).

use serde::Serialize;

use super::{
    GraphContext,
    identity::{IdentitySet, ParticipantInfo},
};
use crate::model::{self, MediaState, ParticipantId, RecordingStatus, Side};

/// Graph's `participant`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Participant {
    #[serde(rename = "@odata.context", skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    #[serde(rename = "@odata.type")]
    odata_type: &'static str,
    id: String,
    info: ParticipantInfo,
    is_in_lobby: bool,
    is_muted: bool,
    media_streams: Vec<MediaStream>,
    metadata: Option<()>,
    recording_info: Option<RecordingInfo>,
    removed_state: Option<()>,
    roster_sequence_number: Option<()>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct MediaStream {
    #[serde(rename = "@odata.type")]
    odata_type: &'static str,
    media_type: &'static str,
    label: &'static str,
    source_id: &'static str,
    direction: &'static str,
    server_muted: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct RecordingInfo {
    #[serde(rename = "@odata.type")]
    odata_type: &'static str,
    recording_status: RecordingStatus,
    initiator: IdentitySet,
}

impl Participant {
    /// The members that may be selected: those of both versions.
    pub const MEMBERS: [&str; 13] = [
        "id",
        "info",
        "isIdentityAnonymized",
        "isInLobby",
        "isMuted",
        "mediaStreams",
        "metadata",
        "preferredDisplayName",
        "recordingInfo",
        "removedState",
        "restrictedExperience",
        "rosterSequenceNumber",
        "syntheticMediaDetection",
    ];

    /// A participant as the only resource of a response; `None` if the call has no such
    /// participant.
    pub fn entity(context: &GraphContext, call: &model::Call, id: ParticipantId) -> Option<Self> {
        let path = format!("communications/calls('{}')/participants/$entity", call.id);
        let shown = Self::element(context, call, call.side(id)?);
        Some(Self { context: Some(context.metadata_url(&path)), ..shown })
    }

    /// Both sides, ours first.
    pub fn all(context: &GraphContext, call: &model::Call) -> Vec<Self> {
        [Side::Ours, Side::Peers].map(|side| Self::element(context, call, side)).into()
    }

    fn element(context: &GraphContext, call: &model::Call, side: Side) -> Self {
        let info = ParticipantInfo::side(context.identity_type, call, side);
        let (id, is_muted) = match side {
            Side::Ours => (call.participant_id, call.is_muted),
            Side::Peers => (call.peer_participant_id, call.peer_is_muted),
        };
        let stream = call.media.map(|media| MediaStream {
            odata_type: "#microsoft.graph.mediaStream",
            media_type: "audio",
            label: "main-audio",
            source_id: "1",
            direction: match media {
                MediaState::Active => "sendReceive",
                MediaState::Inactive => "inactive",
            },
            server_muted: is_muted,
        });
        let recording = call.recording_status.filter(|_| side == Side::Ours);
        Self {
            context: None,
            odata_type: "#microsoft.graph.participant",
            id: id.to_string(),
            is_in_lobby: false,
            is_muted,
            media_streams: stream.into_iter().collect(),
            metadata: None,
            recording_info: recording.map(|recording_status| RecordingInfo {
                odata_type: "#microsoft.graph.recordingInfo",
                recording_status,
                initiator: info.identity.clone(),
            }),
            info,
            removed_state: None,
            roster_sequence_number: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::*, *};

    #[test]
    fn both_sides_are_shown_with_their_parties() {
        let call = model::Call { peer_is_muted: true, ..call() };
        let all = serde_json::to_value(Participant::all(&v1(), &call)).unwrap();
        assert_eq!(all[0]["id"], call.participant_id.to_string());
        let ours = &all[0]["info"]["identity"];
        assert_eq!(ours["application"]["id"], "7e57e200-0000-4000-8000-000000000001");
        assert_eq!(ours["applicationInstance"]["id"], "sip:support@pbx.example");
        assert_eq!(
            all[1],
            json!({
                "@odata.type": "#microsoft.graph.participant",
                "id": call.peer_participant_id.to_string(),
                "info": {
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
                "isInLobby": false,
                "isMuted": true,
                "mediaStreams": [{
                    "@odata.type": "#microsoft.graph.mediaStream",
                    "mediaType": "audio",
                    "label": "main-audio",
                    "sourceId": "1",
                    "direction": "sendReceive",
                    "serverMuted": true
                }],
                "metadata": null,
                "recordingInfo": null,
                "removedState": null,
                "rosterSequenceNumber": null
            })
        );
    }

    #[test]
    fn of_an_outgoing_call_the_source_is_ours() {
        let call = model::Call { direction: model::Direction::Outgoing, media: None, ..call() };
        let all = serde_json::to_value(Participant::all(&v1(), &call)).unwrap();
        assert_eq!(all[0]["info"]["identity"]["phone"]["id"], "+15550123");
        assert_eq!(all[1]["mediaStreams"], json!([]));
    }

    #[test]
    fn a_recording_status_is_ours() {
        let recording_status = Some(RecordingStatus::NotRecording);
        let call = model::Call { recording_status, ..call() };
        let all = serde_json::to_value(Participant::all(&v1(), &call)).unwrap();
        assert_eq!(all[0]["recordingInfo"]["recordingStatus"], "notRecording");
        let initiator = &all[0]["recordingInfo"]["initiator"];
        assert_eq!(initiator["@odata.type"], "#microsoft.graph.identitySet");
        assert_eq!(initiator["application"], all[0]["info"]["identity"]["application"]);
        assert_eq!(all[1]["recordingInfo"], json!(null));
        assert_eq!(identity_sets(&all), (3, 0));
        let all = json!(Participant::all(&communications(v1()), &call));
        assert_eq!(identity_sets(&all), (0, 3), "both sides, and who records");
        let ours = json!(Participant::entity(&communications(v1()), &call, call.participant_id));
        assert_eq!(identity_sets(&ours), (0, 2));
    }

    #[test]
    fn who_is_not_there_is_not_shown() {
        let nobody = ParticipantId::nobody();
        assert_eq!(Participant::entity(&v1(), &call(), nobody), None);
        let id = call().participant_id;
        assert!(Participant::entity(&v1(), &call(), id).unwrap().context.is_some());
    }
}
