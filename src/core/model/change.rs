//! What is written down in one commit: facts and the notifications that tell of them.

use std::time::Duration;

use super::{Call, CallId, Event, Operation, OperationId, RecordingId, SteadyMillis, UnixMillis};

/// One commit. All of it becomes true together or not at all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Change {
    /// The call as it is from now on.
    pub call: Option<Call>,
    /// Operations as they are from now on.
    pub operations: Vec<Operation>,
    /// What becomes of recordings.
    pub recordings: Vec<RecordingChange>,
    /// Notifications to send, in this order, after all earlier ones of the call.
    pub notifications: Vec<Notification>,
}

impl Change {
    /// Whether it only tells of keys, which change nothing that is true of the call.
    pub fn is_only_tones(&self) -> bool {
        let Self { call, operations, recordings, notifications } = self;
        let has_facts = call.is_some() || !operations.is_empty() || !recordings.is_empty();
        let is_tone = |told: &Notification| matches!(told.event, Event::ToneHeard { .. });
        !has_facts && !notifications.is_empty() && notifications.iter().all(is_tone)
    }
}

/// A fact and where to tell it.
#[derive(Debug, Clone, PartialEq)]
pub struct Notification {
    /// Name of the application that is told.
    pub application: String,
    /// Where it wants to be told.
    pub callback_uri: String,
    /// Correlation id of the call.
    pub chain_id: String,
    /// The fact.
    pub event: Event,
}

/// What becomes of a recording. The row is there before the first byte, and goes after the last.
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
        /// Name of the application that owns it; empty for a built-in line.
        application: String,
        /// When it began, by the wall clock.
        at: UnixMillis,
    },
    /// The clip is whole and safe.
    Finished {
        /// The clip.
        id: RecordingId,
        /// Size of the file in bytes.
        bytes: u64,
    },
    /// There is no clip to deliver; the row may go.
    Discarded {
        /// The clip.
        id: RecordingId,
    },
    /// The call is over: all its clips are purged `retention` later. It comes in one change with
    /// the end of the call, whose age is counted from the same time.
    Expire {
        /// The call.
        call: CallId,
        /// When it was over.
        ended_at: SteadyMillis,
        /// How long its clips live from then on.
        retention: Duration,
    },
}
