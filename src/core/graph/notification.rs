//! The body of a notification: the envelope and its one change (contract sections 6.1 and 6.2).
//!
//! Input: an [`Event`], a number that grows with every notification of the call, and the link of a
//! recording. Output: the body. This module knows nothing of delivery, headers and order.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    GraphContext, RecordingLink,
    arrival::{CallRoute, IncomingContext},
    call::{MediaState, ResultInfo},
    identity::ParticipantInfo,
    operation::Operation,
};
use crate::model::{Call, CallState, Event};

/// Graph's `commsNotifications`: the body of one POST, with one notification in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CommsNotifications {
    #[serde(rename = "@odata.type")]
    odata_type: &'static str,
    value: [CommsNotification; 1],
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct CommsNotification {
    #[serde(rename = "@odata.type")]
    odata_type: &'static str,
    change_type: ChangeType,
    resource_url: String,
    /// Very old clients read only this member.
    resource: String,
    resource_data: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum ChangeType {
    Created,
    Updated,
    Deleted,
}

/// Builds the notification of `event`. `sequence` grows with every notification of the call and
/// becomes the etag; `link` opens the recording of an operation that has one.
pub fn notification(
    context: &GraphContext,
    event: &Event,
    sequence: u64,
    link: Option<&RecordingLink>,
) -> CommsNotifications {
    let (change_type, path, facts) = match event {
        Event::CallOffered { call } => {
            (ChangeType::Created, call.id.to_string(), offered(context, call))
        }
        Event::CallChanged { call } => (ChangeType::Updated, call.id.to_string(), changed(call)),
        Event::TransferFailed { call, transfer } => {
            let mut facts = changed(call);
            facts["resultInfo"] = json!(ResultInfo::from(transfer.failure()));
            (ChangeType::Updated, call.id.to_string(), facts)
        }
        Event::CallEnded { call } => (ChangeType::Deleted, call.id.to_string(), ended(call)),
        Event::OperationEnded { operation } => (
            ChangeType::Deleted,
            format!("{}/operations/{}", operation.call, operation.id),
            json!(Operation::complete(operation, link)),
        ),
        Event::ToneHeard { call, sequence, tone } => (
            ChangeType::Updated,
            call.to_string(),
            json!({
                "@odata.type": CALL_TYPE,
                "id": call.to_string(),
                "state": CallState::Established,
                "toneInfo": {
                    "@odata.type": "#microsoft.graph.toneInfo",
                    "sequenceId": sequence,
                    "tone": tone.graph_name(),
                },
            }),
        ),
    };
    let resource_url = format!("/communications/calls/{path}");
    let resource_data = resource_data(&resource_url, sequence, facts);
    CommsNotifications {
        odata_type: "#microsoft.graph.commsNotifications",
        value: [CommsNotification {
            odata_type: "#microsoft.graph.commsNotification",
            change_type,
            resource: format!("/app/calls/{path}"),
            resource_url,
            resource_data,
        }],
    }
}

const CALL_TYPE: &str = "#microsoft.graph.call";

fn offered(context: &GraphContext, call: &Call) -> Value {
    json!({
        "@odata.type": CALL_TYPE,
        "id": call.id.to_string(),
        "state": call.state,
        "direction": call.direction,
        "callChainId": call.chain_id,
        "callRoutes": CallRoute::all(context.identity_type, call),
        "source": ParticipantInfo::source(context.identity_type, &call.source),
        "targets": [ParticipantInfo::target(context.identity_type, call)],
        "requestedModalities": ["audio"],
        "incomingContext": IncomingContext::of(context.identity_type, call),
        "subject": call.subject,
        "tenantId": context.tenant,
        "myParticipantId": call.participant_id,
    })
}

fn changed(call: &Call) -> Value {
    json!({
        "@odata.type": CALL_TYPE,
        "id": call.id.to_string(),
        "state": call.state,
        "mediaState": call.media.map(MediaState::from),
    })
}

fn ended(call: &Call) -> Value {
    json!({
        "@odata.type": CALL_TYPE,
        "id": call.id.to_string(),
        "state": call.state,
        "resultInfo": call.result().map(ResultInfo::from),
    })
}

/// The facts, preceded by their `@odata.id` and `@odata.etag`, without nulls, as in the examples.
fn resource_data(url: &str, sequence: u64, facts: Value) -> Map<String, Value> {
    let Value::Object(mut facts) = facts else { return Map::new() };
    let mut data = Map::new();
    if let Some(odata_type) = facts.shift_remove("@odata.type") {
        data.insert("@odata.type".to_owned(), odata_type);
    }
    data.insert("@odata.id".to_owned(), url.into());
    data.insert("@odata.etag".to_owned(), format!("W/\"{sequence}\"").into());
    data.extend(facts.into_iter().filter(|(_, fact)| !fact.is_null()));
    data
}

#[cfg(test)]
mod tests {
    use super::{super::tests::*, *};
    use crate::model::{self, MediaState, Termination, Tone};

    const CALL: &str = "2e1a0b00-2db4-4022-9570-243709c565ab";

    /// The printed text instead of the value, so that the order of members is tested as well.
    fn printed(event: &Event) -> String {
        let link = link();
        serde_json::to_string_pretty(&notification(&v1(), event, 5445, Some(&link))).unwrap()
    }

    fn envelope(change_type: &str, path: &str, data: &str) -> String {
        let text = format!(
            r##"{{"@odata.type":"#microsoft.graph.commsNotifications","value":[{{
                "@odata.type":"#microsoft.graph.commsNotification",
                "changeType":"{change_type}",
                "resourceUrl":"/communications/calls/{path}",
                "resource":"/app/calls/{path}",
                "resourceData":{data}}}]}}"##
        );
        let value: Value = serde_json::from_str(&text).unwrap();
        serde_json::to_string_pretty(&value).unwrap()
    }

    #[test]
    fn an_offered_call_is_created_with_its_parties() {
        let event =
            Event::CallOffered { call: Call { state: CallState::Incoming, media: None, ..call() } };
        let data = format!(
            r##"{{"@odata.type":"#microsoft.graph.call",
                "@odata.id":"/communications/calls/{CALL}","@odata.etag":"W/\"5445\"",
                "id":"{CALL}","state":"incoming","direction":"incoming",
                "callChainId":"d8217646-3110-40b1-bae6-e9ac6c3a9f74",
                "callRoutes":[],
                "source":{{"@odata.type":"#microsoft.graph.participantInfo","identity":{{
                    "@odata.type":"#microsoft.graph.identitySet","phone":{{
                        "@odata.type":"#microsoft.graph.identity","id":"+15550123",
                        "displayName":"Alice"}}}}}},
                "targets":[{{"@odata.type":"#microsoft.graph.invitationParticipantInfo",
                    "identity":{{"@odata.type":"#microsoft.graph.identitySet",
                        "application":{{"@odata.type":"#microsoft.graph.identity",
                            "id":"7e57e200-0000-4000-8000-000000000001","displayName":"mybot"}},
                        "applicationInstance":{{"@odata.type":"#microsoft.graph.identity",
                            "id":"sip:support@pbx.example"}}}}}}],
                "requestedModalities":["audio"],
                "tenantId":"00000000-0000-0000-0000-000000000001",
                "myParticipantId":"18214a6f-5e2f-4a5c-8a5d-8ff3a5b1d6cc"}}"##
        );
        assert_eq!(printed(&event), envelope("created", CALL, &data));
    }

    #[test]
    fn the_parties_of_an_offered_call_declare_the_type_of_the_setting() {
        let event = Event::CallOffered { call: call() };
        let told = json!(notification(&communications(v1()), &event, 1, None));
        assert_eq!(identity_sets(&told), (0, 2), "{told}");
    }

    #[test]
    fn an_established_call_is_updated_as_in_the_contract() {
        let data = format!(
            r##"{{"@odata.type":"#microsoft.graph.call",
                "@odata.id":"/communications/calls/{CALL}","@odata.etag":"W/\"5445\"",
                "id":"{CALL}","state":"established","mediaState":{{"audio":"active"}}}}"##
        );
        let event = Event::CallChanged { call: call() };
        assert_eq!(printed(&event), envelope("updated", CALL, &data));
    }

    #[test]
    fn a_call_on_the_way_has_no_media_state() {
        let call = Call { state: CallState::Establishing, media: None, ..call() };
        let data = format!(
            r##"{{"@odata.type":"#microsoft.graph.call",
                "@odata.id":"/communications/calls/{CALL}","@odata.etag":"W/\"5445\"",
                "id":"{CALL}","state":"establishing"}}"##
        );
        assert_eq!(printed(&Event::CallChanged { call }), envelope("updated", CALL, &data));
    }

    #[test]
    fn a_transfer_that_failed_is_told_with_its_reason() {
        let data = format!(
            r##"{{"@odata.type":"#microsoft.graph.call",
                "@odata.id":"/communications/calls/{CALL}","@odata.etag":"W/\"5445\"",
                "id":"{CALL}","state":"established","mediaState":{{"audio":"active"}},
                "resultInfo":{{"@odata.type":"#microsoft.graph.resultInfo","code":500,
                    "subcode":7700,"message":"The transfer failed. DiagCode: 500#7700.@"}}}}"##
        );
        let transfer = model::TransferKind::Consultative;
        let event = Event::TransferFailed { call: call(), transfer };
        assert_eq!(printed(&event), envelope("updated", CALL, &data));
    }

    #[test]
    fn a_call_that_is_over_is_deleted_with_its_reason() {
        let call = Call {
            state: CallState::Terminated,
            media: Some(MediaState::Active),
            termination: Some(Termination::PeerHungUp),
            ..call()
        };
        let data = format!(
            r##"{{"@odata.type":"#microsoft.graph.call",
                "@odata.id":"/communications/calls/{CALL}","@odata.etag":"W/\"5445\"",
                "id":"{CALL}","state":"terminated","resultInfo":{{
                    "@odata.type":"#microsoft.graph.resultInfo","code":200,"subcode":4521,
                    "message":"The other participant ended the call. DiagCode: 200#4521.@"}}}}"##
        );
        assert_eq!(printed(&Event::CallEnded { call }), envelope("deleted", CALL, &data));
    }

    #[test]
    fn a_finished_record_is_deleted_with_location_token_and_reason() {
        let path = format!("{CALL}/operations/0fe0623f-d628-42ed-b4bd-8ac290072cc5");
        let data = format!(
            r##"{{"@odata.type":"#microsoft.graph.recordOperation",
                "@odata.id":"/communications/calls/{path}","@odata.etag":"W/\"5445\"",
                "id":"0fe0623f-d628-42ed-b4bd-8ac290072cc5",
                "clientContext":"d45324c1-fcb5-430a-902c-f20af696537c",
                "status":"completed","completionReason":"stopToneDetected",
                "resultInfo":{{"@odata.type":"#microsoft.graph.resultInfo","code":200,
                    "subcode":8514,"message":"Action completed as stop tone was detected."}},
                "recordingLocation":"https://api.example/recordings/17e3b46c-f61d-4f4d-9635-c626ef18e6ad",
                "recordingAccessToken":"opens-one-recording",
                "durationMs":4200,"speechMs":3000,"speechEndedAtMs":4100}}"##
        );
        let event = Event::OperationEnded { operation: finished_record() };
        assert_eq!(printed(&event), envelope("deleted", &path, &data));
    }

    #[test]
    fn a_canceled_record_tells_empty_strings() {
        let operation = model::Operation {
            status: model::OperationStatus::Failed,
            end: Some(model::OperationEnd::Canceled),
            ..record_operation()
        };
        let told = notification(&v1(), &Event::OperationEnded { operation }, 1, None);
        let data = &told.value[0].resource_data;
        assert_eq!(data["recordingLocation"], "");
        assert_eq!(data["recordingAccessToken"], "");
        assert_eq!(data["completionReason"], "operationCanceled");
        assert_eq!(data["resultInfo"]["code"], 400);
    }

    #[test]
    fn a_tone_is_an_update_of_the_call() {
        let event = Event::ToneHeard {
            call: CALL.parse().unwrap(),
            sequence: 1,
            tone: Tone::parse("1").unwrap(),
        };
        let data = format!(
            r##"{{"@odata.type":"#microsoft.graph.call",
                "@odata.id":"/communications/calls/{CALL}","@odata.etag":"W/\"5445\"",
                "id":"{CALL}","state":"established","toneInfo":{{
                    "@odata.type":"#microsoft.graph.toneInfo","sequenceId":1,"tone":"tone1"}}}}"##
        );
        assert_eq!(printed(&event), envelope("updated", CALL, &data));
    }
}
