//! Types that all layers share: ids, times, tones, calls, operations, changes and events.
//!
//! Plain values without behaviour beyond parsing and printing. Nothing here knows SIP, Microsoft's
//! JSON, a socket, a file or a clock.

// A new state or operation has to be considered in each match.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

pub mod call;
pub mod change;
pub mod event;
pub mod ids;
pub mod operation;
pub mod role;
pub mod time;
pub mod tone;

pub use call::{
    Arrival, Call, CallState, Direction, EncryptionFault, MediaLoss, MediaState, Party,
    RejectReason, Silence, Termination, TransferKind, UnauthenticatedMedia,
};
pub use change::{Change, Notification, RecordingChange};
pub use event::Event;
pub use ids::{CallId, OperationId, ParticipantId, RecordingId};
pub use operation::{
    Operation, OperationEnd, OperationKind, OperationStatus, PlayPromptRequest, PromptFailure,
    PromptFailureKind, PromptSource, RecordAction, RecordRequest, Recorded, RecordingStatus,
    ResultInfo, SendTonesRequest, Side,
};
pub use time::{SteadyMillis, UnixMillis};
pub use tone::Tone;
