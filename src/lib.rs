//! aftertone: a SIP/RTP media server that answers calls, plays prompts and beeps, records, notifies
//! the application of the clip, and deletes it some time after hang-up. The API is REST in the
//! style of Microsoft Graph.
//!
//! There are three layers. Each may use only the ones above it in this list:
//!
//! - **core**, the crate `aftertone_core`: values and state machines; time, frames and random
//!   numbers are arguments.
//! - [`drivers`]: each speaks to one external system and makes no decision about calls.
//! - [`service`]: connects clients and peers to the core, and carries out its actions with the
//!   drivers.
//!
//! `docs/architecture.md` describes the structure; `tests/architecture.rs` checks the rules that
//! the compiler does not.

#![cfg_attr(not(test), warn(clippy::match_bool, clippy::unwrap_used, unreachable_pub))]

pub mod drivers;
pub mod service;
