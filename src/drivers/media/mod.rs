//! RTP legs on shard threads: one tick every 20 ms per leg.
//!
//! Input: what offer and answer have agreed, and operations to run. Output: RTP and RTCP on the
//! network, events to the call, chunks to the spool. A leg lives on one thread from its opening to
//! its end; nothing in this module waits, opens a file or decides anything about a call.
//!
//! ```text
//! engine --open--> shard --every 5 ms--> leg: transport -> source -> receiver -> operation
//!   ^                                          transport <- sender <----------------'
//!   '- ports                                   call <- outbox      spool <- tape <--'
//! ```

pub mod engine;
mod key_pairing;
pub mod leg;
mod leg_event;
mod leg_settings;
mod open_error;
mod outbox;
pub mod ports;
mod protection;
pub mod receiver;
mod reports;
mod running;
mod sender;
mod shard;
mod source;
mod stream;
mod stream_stats;
mod tape;
pub mod targets;
pub mod transport;
pub mod webrtc;

pub use engine::{Engine, EngineConfig, Leg, LegGone, OpenLeg};
pub use leg::{LegCommand, Muted};
pub use leg_event::{LegEvent, Unsent};
pub use leg_settings::Settings;
pub use open_error::OpenError;
pub use ports::{PortError, PortPool, PortRange};
pub use running::{Play, Start};
pub use stream_stats::StreamStats;
pub use targets::Targets;

#[cfg(test)]
mod tests;
