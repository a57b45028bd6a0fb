//! Facts worth telling the application. Each is committed together with what it tells of.

use serde::{Deserialize, Serialize};

use super::{Call, CallId, Operation, Tone, TransferKind};

/// One notification to be, in our own words; `graph` turns it into Microsoft's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Event {
    /// A call was offered: the first notification, to the application's global callback.
    CallOffered {
        /// The call as it is now.
        call: Call,
    },
    /// The state or the media state of a call changed.
    CallChanged {
        /// The call as it is now.
        call: Call,
    },
    /// A transfer has failed; the call is as it was before.
    TransferFailed {
        /// The call as it is now.
        call: Call,
        /// What was tried.
        transfer: TransferKind,
    },
    /// A call is over; nothing follows.
    CallEnded {
        /// The call as it is now.
        call: Call,
    },
    /// An operation is over; told exactly once.
    OperationEnded {
        /// The operation as it is now.
        operation: Operation,
    },
    /// The caller pressed a key and the application has subscribed.
    ToneHeard {
        /// The call.
        call: CallId,
        /// Counts the tones of the call from 1; those that are not told leave gaps.
        sequence: u64,
        /// The key.
        tone: Tone,
    },
}

impl Event {
    /// The call that the event belongs to.
    pub fn call_id(&self) -> CallId {
        match self {
            Self::CallOffered { call }
            | Self::CallChanged { call }
            | Self::TransferFailed { call, .. }
            | Self::CallEnded { call } => call.id,
            Self::OperationEnded { operation } => operation.call,
            Self::ToneHeard { call, .. } => *call,
        }
    }
}
