//! Microsoft Graph's JSON: reads request bodies; writes calls, operations, notifications and
//! errors.
//!
//! Input: a [`serde_json::Value`] that a client sent, or a value of [`crate::model`]. Output: a
//! checked value of `model`, or a type that serialises as Graph prints it. The rules are in the
//! contract, sections 2 to 8. Nothing here knows HTTP, a clock or the database: times, links and
//! numbers that come from them are arguments.

mod arrival;
mod call;
mod context;
mod create_call;
mod error;
mod identity;
pub mod limits;
mod members;
mod notification;
mod operation;
mod participant;
mod request;

pub use call::{Call, ResultInfo};
pub use context::{GraphContext, RecordingLink, Version};
pub use create_call::{CreateCallBody, RedirectBody, TransferBody};
pub use error::{ErrorBody, ErrorIds, date_time};
pub use identity::IdentityType;
pub use members::InvalidBody;
pub use notification::{CommsNotifications, notification};
pub use operation::Operation;
pub use participant::Participant;
pub use request::{
    AnswerBody, HoldMusicBody, PlayPromptBody, RecordBody, RecordingStatusBody, RejectBody,
    SendDtmfTonesBody, client_context,
};

#[cfg(test)]
mod tests {
    //! The call and the operations that the tests of this module use.

    use super::*;
    use crate::model::{
        Arrival, Call, CallState, Direction, MediaState, Operation, OperationEnd, OperationKind,
        OperationStatus, Party, RecordAction, RecordRequest, Recorded, UnixMillis,
    };

    pub(super) fn v1() -> GraphContext {
        GraphContext {
            tenant: "00000000-0000-0000-0000-000000000001".to_owned(),
            public_url: "https://api.example".to_owned(),
            version: Version::V1,
            identity_type: IdentityType::IdentitySet,
        }
    }

    pub(super) fn beta() -> GraphContext {
        GraphContext { version: Version::Beta, ..v1() }
    }

    /// The context with `communicationsIdentitySet` as the type of identity sets.
    pub(super) fn communications(context: GraphContext) -> GraphContext {
        GraphContext { identity_type: IdentityType::CommunicationsIdentitySet, ..context }
    }

    /// The number of identity sets of each type: the documented one, and the derived one.
    pub(super) fn identity_sets(shown: &serde_json::Value) -> (usize, usize) {
        let text = shown.to_string();
        let count = |name: &str| text.matches(&format!("\"#microsoft.graph.{name}\"")).count();
        (count("identitySet"), count("communicationsIdentitySet"))
    }

    pub(super) fn link() -> RecordingLink {
        RecordingLink {
            location: "https://api.example/recordings/17e3b46c-f61d-4f4d-9635-c626ef18e6ad"
                .to_owned(),
            token: "opens-one-recording".to_owned(),
        }
    }

    pub(super) fn call() -> Call {
        Call {
            id: "2e1a0b00-2db4-4022-9570-243709c565ab".parse().unwrap(),
            application: Some("mybot".to_owned()),
            state: CallState::Established,
            direction: Direction::Incoming,
            source: Party {
                uri: "sip:+15550123@trunk.example".to_owned(),
                display_name: Some("Alice".to_owned()),
            },
            target: Party::application(
                "7e57e200-0000-4000-8000-000000000001",
                Some("mybot".to_owned()),
            ),
            chain_id: "d8217646-3110-40b1-bae6-e9ac6c3a9f74".to_owned(),
            participant_id: "18214a6f-5e2f-4a5c-8a5d-8ff3a5b1d6cc".parse().unwrap(),
            arrival: Arrival {
                called: Some("sip:support@pbx.example".to_owned()),
                ..Arrival::default()
            },
            is_telephone: false,
            ringing_timeout_seconds: None,
            peer_participant_id: "18214a6f-5e2f-4a5c-8a5d-8ff3a5b1d6cd".parse().unwrap(),
            is_muted: false,
            peer_is_muted: false,
            recording_status: None,
            sip_call_id: "abc@trunk.example".to_owned(),
            callback_uri: Some("https://bot.example/api/calls".to_owned()),
            media: Some(MediaState::Active),
            tones_subscribed: false,
            media_config: Some(
                r##"{"@odata.type":"#microsoft.graph.serviceHostedMediaConfig"}"##.to_owned(),
            ),
            subject: None,
            created_at: UnixMillis(0),
            ended_at: None,
            termination: None,
        }
    }

    pub(super) fn record_operation() -> Operation {
        Operation {
            id: "0fe0623f-d628-42ed-b4bd-8ac290072cc5".parse().unwrap(),
            call: call().id,
            kind: OperationKind::Record(RecordRequest {
                action: RecordAction::Record,
                prompt: None,
                barge_in_allowed: true,
                initial_silence_seconds: 5,
                max_silence_seconds: 2,
                max_duration_seconds: 10,
                play_beep: true,
                stop_tones: Vec::new(),
            }),
            client_context: Some("d45324c1-fcb5-430a-902c-f20af696537c".to_owned()),
            status: OperationStatus::Running,
            end: None,
            recording: None,
            created_at: UnixMillis(0),
            ended_at: None,
        }
    }

    pub(super) fn finished_record() -> Operation {
        Operation {
            status: OperationStatus::Completed,
            end: Some(OperationEnd::StopToneDetected),
            recording: Some(Recorded {
                id: "17e3b46c-f61d-4f4d-9635-c626ef18e6ad".parse().unwrap(),
                duration_ms: 4200,
                speech_ms: 3000,
                speech_ended_at_ms: Some(4100),
            }),
            ..record_operation()
        }
    }

    #[test]
    fn a_link_does_not_print_its_token() {
        assert!(!format!("{:?}", link()).contains(&link().token));
    }
}
