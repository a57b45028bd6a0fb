//! Sockets and the clock around the SIP endpoint.
//!
//! Comes in: datagrams from `udp`; messages from the connections of `accept` and `connect`, which
//! `stream` and `websocket` frame; [`Command`](aftertone_core::proto::sip::endpoint::Command)s from
//! the calls. Goes out: messages by their [`Path`](aftertone_core::proto::sip::path::Path), and
//! [`Event`](aftertone_core::proto::sip::endpoint::Event)s for the calls. One task, in `service`,
//! owns the endpoint. The only decision made here is which peers may send: `connections` counts the
//! streams, `rates` the messages. `resolver` asks the DNS for the targets of a URI; `trace` keeps
//! the messages of calls; `trunks` keeps this node registered.

mod accept;
mod connect;
mod connections;
mod datagram;
mod departure;
mod network;
mod rates;
mod resolver;
mod service;
mod settings;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod trace;
mod trunk_report;
mod trunks;
mod udp;
mod websocket;

pub use crate::drivers::tls::TlsError;
pub use resolver::LocateError;
pub use service::{Signalling, start};
pub use settings::{SignallingConfig, SipListener, StartError, StreamLimits, TlsFiles, User};
pub use trace::Traced;
pub use trunk_report::TrunkReport;
pub use trunks::Registrant;
