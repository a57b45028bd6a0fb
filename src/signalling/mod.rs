//! Sockets and the clock around the SIP endpoint.
//!
//! Comes in: datagrams from `udp`, [`Command`](crate::proto::sip::endpoint::Command)s from the
//! calls. Goes out: datagrams, and [`Event`](crate::proto::sip::endpoint::Event)s for the calls. One
//! task, in `service`, owns the endpoint; nobody else touches it. Nothing is decided here.

mod service;
mod udp;

pub use service::{Signalling, SignallingConfig, start};
