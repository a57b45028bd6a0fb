//! The contents of one commit: facts and the notifications about them.

use std::time::Duration;

use super::{Call, CallId, Event, Operation, OperationId, RecordingId, SteadyMillis, UnixMillis};

/// One commit. It is stored completely or not at all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Change {
    /// The call as it is from now on.
    pub call: Option<Call>,
    /// Operations as they are from now on.
    pub operations: Vec<Operation>,
    /// Changes of recordings.
    pub recordings: Vec<RecordingChange>,
    /// Notifications to send, in this order, after all earlier ones of the call.
    pub notifications: Vec<Notification>,
}

impl Change {
    /// Whether it contains only tone notifications, which change nothing else of the call.
    pub fn is_only_tones(&self) -> bool {
        let Self { call, operations, recordings, notifications } = self;
        let has_facts = call.is_some() || !operations.is_empty() || !recordings.is_empty();
        let is_tone = |told: &Notification| matches!(told.event, Event::ToneHeard { .. });
        !has_facts && !notifications.is_empty() && notifications.iter().all(is_tone)
    }
}

/// An event and where to report it.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// Name of the application that is notified.
    pub application: String,
    /// URI that the notification is sent to.
    pub callback_uri: String,
    /// Correlation id of the call.
    pub chain_id: String,
    /// The event.
    pub event: Event,
}

/// A change of a recording. The row exists before the first byte is written, and is deleted after
/// the last byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordingChange {
    /// A clip is about to be written.
    Begun {
        /// The clip.
        id: RecordingId,
        /// Its call.
        call: CallId,
        /// Its operation.
        operation: OperationId,
        /// Name of the application that owns it; `None` for a built-in line.
        application: Option<String>,
        /// When it began, by the wall clock.
        at: UnixMillis,
    },
    /// The clip is complete and safe on disk.
    Finished {
        /// The clip.
        id: RecordingId,
        /// Size of the file in bytes.
        bytes: u64,
    },
    /// There is no clip to deliver; the row may be deleted.
    Discarded {
        /// The clip.
        id: RecordingId,
    },
    /// The call is over: all its clips are purged `retention` later. This is part of the change
    /// that ends the call, and the call's age is counted from the same time.
    Expire {
        /// The call.
        call: CallId,
        /// When the call ended.
        ended_at: SteadyMillis,
        /// How long its clips are kept from then on.
        retention: Duration,
    },
}
