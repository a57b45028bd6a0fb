//! The part of aftertone that knows no socket, file, thread or clock: values and state machines.
//!
//! Time, frames and random numbers are arguments; effects are values that the caller carries out.
//! The crate depends on no async runtime, and its `clippy.toml` bans the parts of the standard
//! library that do the same.
//!
//! - [`model`]: ids, times, tones, calls, operations, and the changes that are committed together;
//! - [`proto`]: SIP (RFC 3261), SDP (RFC 8866, RFC 3264) and RTP (RFC 3550) as machines and values;
//! - [`audio`]: frames, codecs, resampling, voice detection, WAV;
//! - [`operation`]: record, play prompt, echo, fed one frame of 20 ms at a time;
//! - [`call`]: one call as a machine;
//! - [`graph`]: Microsoft Graph's JSON.

#![cfg_attr(not(test), warn(clippy::match_bool, clippy::unwrap_used, unreachable_pub))]
// Tests may read the clock for a point in time to start from.
#![cfg_attr(test, allow(clippy::disallowed_methods))]

pub mod audio;
pub mod call;
pub mod graph;
pub mod model;
pub mod operation;
pub mod proto;
