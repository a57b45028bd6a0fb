//! Events that the application is notified of. Each is committed together with the change that it
//! reports.

use serde::{Deserialize, Serialize};

use super::{Call, CallId, Operation, Tone, TransferKind};

/// An event in our own terms; `graph` turns it into Microsoft's notification.
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
        /// The kind of the transfer.
        transfer: TransferKind,
    },
    /// A call is over; nothing follows.
    CallEnded {
        /// The call as it is now.
        call: Call,
    },
    /// An operation is over; reported exactly once.
    OperationEnded {
        /// The operation as it is now.
        operation: Operation,
    },
    /// The peer pressed a key, and the application has subscribed.
    ToneHeard {
        /// The call.
        call: CallId,
        /// Number of the tone since the application subscribed, from 1; tones that are not reported
        /// leave gaps.
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
