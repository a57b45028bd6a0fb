//! One call as a pure machine, with its queue of operations and the reasons for refusals.
//!
//! Inputs are what the peer, the application, the media and the store did, each with the time.
//! Outputs are [`Action`]s, which the owner of the machine carries out. The machine uses no socket,
//! file, task or clock.

// A new state or operation has to be considered in each match.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

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
    Action, Command, DialogRole, Input, Machine, MediaEnd, NewOperation, Now, Offer, Owner,
    Placement, ReferralCall, Settings,
};
pub use refusal::{CallError, Refusal};
pub use session::{LocalAudio, MediaTerms};

#[cfg(test)]
mod tests;
