//! One call as a pure machine: inputs in, actions out; its queue of operations; why we say no.
//!
//! In: what the peer, the application, the media and the store did, each with the time. Out:
//! [`Action`]s for whoever owns the machine to carry out. It knows no socket, file, task or clock.

pub mod line;
pub mod machine;
pub mod queue;
pub mod reason;
pub mod recovery;
pub mod refusal;
pub mod session;
mod tone_limit;

pub use line::LineScript;
pub use machine::{
    Action, Command, Input, Machine, MediaEnd, NewOperation, Now, Offer, Owner, Placement,
    ReferralCall, SafeClip, Settings,
};
pub use refusal::{CallError, Refusal};
pub use session::LocalAudio;

#[cfg(test)]
mod tests;
