//! An operation as Graph shows it (contract section 3.3).

use serde::Serialize;

use super::{GraphContext, RecordingLink, Version, call::ResultInfo};
use crate::model::{self, OperationEnd, OperationKind, OperationStatus};

/// Graph's `commsOperation` and its subclasses, distinguished by `@odata.type`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    #[serde(rename = "@odata.context", skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    #[serde(rename = "@odata.type")]
    odata_type: String,
    id: String,
    client_context: Option<String>,
    status: OperationStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    completion_reason: Option<Option<&'static str>>,
    result_info: Option<ResultInfo>,
    #[serde(flatten)]
    recording: Option<Recording>,
}

/// Members that only a `recordOperation` has. The figures are our own addition; the type is open.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Recording {
    recording_location: Option<String>,
    recording_access_token: Option<String>,
    #[serde(flatten)]
    figures: Option<Figures>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    duration_ms: u64,
    speech_ms: u64,
    speech_ended_at_ms: Option<u64>,
}

impl Operation {
    /// The members that may be selected: those of all kinds in both versions, and our own.
    pub const MEMBERS: [&str; 11] = [
        "clientContext",
        "completionReason",
        "durationMs",
        "id",
        "participants",
        "recordingAccessToken",
        "recordingLocation",
        "resultInfo",
        "speechEndedAtMs",
        "speechMs",
        "status",
    ];

    /// The operation as the only resource of a response; `link` opens its recording, if it has one.
    pub fn entity(
        context: &GraphContext,
        operation: &model::Operation,
        link: Option<&RecordingLink>,
    ) -> Self {
        let metadata = context.metadata_url(type_name(&operation.kind));
        Self { context: Some(metadata), ..Self::element(context, operation, link) }
    }

    /// The operation as one of several.
    pub fn element(
        context: &GraphContext,
        operation: &model::Operation,
        link: Option<&RecordingLink>,
    ) -> Self {
        let shown = Self::complete(operation, link);
        match context.version {
            // In v1.0 only sendDtmfTones has this member.
            Version::V1 if !matches!(operation.kind, OperationKind::SendDtmfTones(_)) => {
                Self { completion_reason: None, ..shown }
            }
            Version::V1 | Version::Beta => shown,
        }
    }

    /// The operation with the members of both versions, for notifications, which belong to no
    /// version.
    pub(super) fn complete(operation: &model::Operation, link: Option<&RecordingLink>) -> Self {
        let kind = &operation.kind;
        let end = operation.end.as_ref();
        let has_reason = matches!(
            kind,
            OperationKind::Record(_)
                | OperationKind::PlayPrompt(_)
                | OperationKind::SendDtmfTones(_)
        );
        Self {
            context: None,
            odata_type: format!("#microsoft.graph.{}", type_name(kind)),
            id: operation.id.to_string(),
            client_context: operation.client_context.clone(),
            status: operation.status,
            completion_reason: has_reason.then(|| end.and_then(|end| end.completion_reason(kind))),
            result_info: end.map(|end| end.result(kind).into()),
            recording: kind.is_record().then(|| Recording::new(operation, link)),
        }
    }
}

impl Recording {
    fn new(operation: &model::Operation, link: Option<&RecordingLink>) -> Self {
        let (location, token) = match (link, &operation.recording, &operation.end) {
            (Some(link), Some(_), _) => (Some(link.location.clone()), Some(link.token.clone())),
            // As in Microsoft's documents (contract section 2.7).
            (_, _, Some(OperationEnd::Canceled)) => (Some(String::new()), Some(String::new())),
            _ => (None, None),
        };
        let figures = operation.recording.as_ref().map(|clip| Figures {
            duration_ms: clip.duration_ms,
            speech_ms: clip.speech_ms,
            speech_ended_at_ms: clip.speech_ended_at_ms,
        });
        Self { recording_location: location, recording_access_token: token, figures }
    }
}

fn type_name(kind: &OperationKind) -> &'static str {
    match kind {
        OperationKind::Record(_) => "recordOperation",
        OperationKind::PlayPrompt(_) => "playPromptOperation",
        OperationKind::SubscribeToTone => "subscribeToToneOperation",
        OperationKind::CancelMediaProcessing => "cancelMediaProcessingOperation",
        OperationKind::SendDtmfTones(_) => "sendDtmfTonesOperation",
        OperationKind::Mute { .. } => "muteParticipantOperation",
        OperationKind::Unmute { .. } => "unmuteParticipantOperation",
        OperationKind::UpdateRecordingStatus { .. } => "updateRecordingStatusOperation",
        OperationKind::StartHoldMusic { .. } => "startHoldMusicOperation",
        OperationKind::StopHoldMusic => "stopHoldMusicOperation",
        // Graph has no echo; only built-in lines use it.
        OperationKind::Echo => "commsOperation",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::tests::*, *};
    use crate::model::Recorded;

    fn shown(context: &GraphContext, operation: &model::Operation) -> Value {
        serde_json::to_value(Operation::entity(context, operation, Some(&link()))).unwrap()
    }

    #[test]
    fn a_running_record_is_shown_as_the_record_page_prints_it() {
        assert_eq!(
            shown(&beta(), &record_operation()),
            json!({
                "@odata.context": "https://api.example/beta/$metadata#recordOperation",
                "@odata.type": "#microsoft.graph.recordOperation",
                "id": "0fe0623f-d628-42ed-b4bd-8ac290072cc5",
                "clientContext": "d45324c1-fcb5-430a-902c-f20af696537c",
                "status": "running",
                "completionReason": null,
                "resultInfo": null,
                "recordingLocation": null,
                "recordingAccessToken": null
            })
        );
    }

    #[test]
    fn a_finished_record_has_its_link_and_figures() {
        let shown = shown(&beta(), &finished_record());
        assert_eq!(shown["status"], "completed");
        assert_eq!(shown["completionReason"], "stopToneDetected");
        assert_eq!(
            shown["resultInfo"],
            json!({
                "@odata.type": "#microsoft.graph.resultInfo",
                "code": 200,
                "subcode": 8514,
                "message": "Action completed as stop tone was detected."
            })
        );
        assert_eq!(shown["recordingLocation"], link().location);
        assert_eq!(shown["recordingAccessToken"], link().token);
        assert_eq!(shown["durationMs"], 4200);
        assert_eq!(shown["speechMs"], 3000);
        assert_eq!(shown["speechEndedAtMs"], 4100);
    }

    #[test]
    fn version_1_has_no_completion_reason() {
        assert_eq!(shown(&v1(), &finished_record()).get("completionReason"), None);
    }

    #[test]
    fn a_canceled_record_has_an_empty_location_and_token() {
        let canceled = model::Operation {
            status: OperationStatus::Failed,
            end: Some(OperationEnd::Canceled),
            ..record_operation()
        };
        let shown = shown(&beta(), &canceled);
        assert_eq!(shown["recordingLocation"], "");
        assert_eq!(shown["recordingAccessToken"], "");
        assert_eq!(shown["resultInfo"]["subcode"], 8508);
        assert_eq!(shown["completionReason"], "operationCanceled");
    }

    #[test]
    fn a_record_without_speech_has_no_location() {
        let silent = model::Operation {
            status: OperationStatus::Failed,
            end: Some(OperationEnd::InitialSilenceTimeout),
            ..record_operation()
        };
        assert_eq!(shown(&beta(), &silent)["recordingLocation"], Value::Null);
    }

    #[test]
    fn a_clip_without_a_link_is_not_promised() {
        let operation = finished_record();
        assert!(matches!(operation.recording, Some(Recorded { .. })));
        let shown = Operation::entity(&beta(), &operation, None);
        assert_eq!(serde_json::to_value(shown).unwrap()["recordingLocation"], Value::Null);
    }

    #[test]
    fn the_small_operations_have_their_own_types_and_no_recording() {
        let table = [
            (OperationKind::SubscribeToTone, "#microsoft.graph.subscribeToToneOperation"),
            (
                OperationKind::CancelMediaProcessing,
                "#microsoft.graph.cancelMediaProcessingOperation",
            ),
        ];
        for (kind, name) in table {
            let done = model::Operation {
                kind,
                status: OperationStatus::Completed,
                end: Some(OperationEnd::Done),
                ..record_operation()
            };
            let shown = shown(&beta(), &done);
            assert_eq!(shown["@odata.type"], name);
            assert_eq!(shown["status"], "completed");
            assert_eq!(shown["resultInfo"]["code"], 200);
            assert_eq!(shown.get("recordingLocation"), None);
            assert_eq!(shown.get("completionReason"), None);
        }
    }
}
