//! Drivers: each module connects to one part of the outside world and decides nothing about calls.

pub mod clock;
pub mod http;
pub mod media;
pub mod notify;
pub mod prompts;
pub mod recordings;
pub mod signalling;
pub mod store;
pub mod tls;
pub mod tokens;
