//! aftertone: a SIP/RTP media server that answers calls, plays prompts, beeps, records, announces
//! the clip and forgets it a while after hang-up, behind a Microsoft-Graph-shaped REST API.
//!
//! Three kinds of code live here and never mix in one file:
//!
//! - **pure** (`model`, `proto`, `audio`, `operation`, `call`, `graph`): values and machines; time,
//!   frames and randomness are arguments.
//! - **drivers** (`signalling`, `media`, `prompts`, `recordings`, `store`, `clock`, `notify`,
//!   `tokens`, `http`): each speaks to one part of the outside world and decides nothing about
//!   calls.
//! - **composition** (`switchboard`, `api`, `app`): lets the outside reach the pure core, and the
//!   core act on the drivers.
//!
//! `docs/architecture.md` is the map; `tests/architecture.rs` holds its borders.

pub mod api;
pub mod app;
pub mod audio;
pub mod call;
pub mod clock;
pub mod config;
pub mod demo;
pub mod graph;
pub mod http;
pub mod media;
pub mod model;
pub mod notify;
pub mod operation;
pub mod prompts;
pub mod proto;
pub mod recordings;
pub mod signalling;
pub mod store;
pub mod switchboard;
pub mod telemetry;
pub mod tls;
pub mod tokens;
