//! aftertone: a SIP/RTP media server that answers calls, plays prompts, beeps, records, announces
//! the clip and forgets it a while after hang-up, behind a Microsoft-Graph-shaped REST API.
//!
//! Three layers, each of which may use the ones above it in this list only:
//!
//! - **core**, the crate `aftertone_core`: values and state machines; time, frames and random
//!   numbers are arguments.
//! - [`drivers`]: each speaks to one part of the outside world and decides nothing about calls.
//! - [`service`]: lets the outside reach the core, and the core act on the drivers.
//!
//! `docs/architecture.md` is the map; `tests/architecture.rs` checks what the compiler does not.

pub mod drivers;
pub mod service;
