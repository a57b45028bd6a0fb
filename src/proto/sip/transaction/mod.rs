//! Transactions (RFC 3261 §17): one request and what answers it, kept apart from all others.
//!
//! Four machines there are in the RFC; `invite_server`, `server` and `client` are here. Each is a
//! value that takes messages and instants and gives bytes and deadlines. [`key`] says which message
//! belongs to which; `table` holds all of one endpoint.

pub mod client;
pub mod invite_server;
pub mod key;
pub mod server;
pub(crate) mod table;

pub use client::Client;
pub use invite_server::{AckFor, InviteServer};
pub use key::{MergeKey, TransactionKey};
pub use server::Server;
pub(crate) use table::{Due, Invite, TransactionId, TransactionTable};
