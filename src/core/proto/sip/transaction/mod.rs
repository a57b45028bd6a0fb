//! Transactions (RFC 3261 §17): one request and its responses, kept apart from all others.
//!
//! The four machines of the RFC are `invite_client`, `client`, `invite_server` and `server`. Each
//! is a value that takes messages and instants and returns bytes and deadlines. [`key`] decides
//! which message belongs to which transaction; `table` holds all transactions of one endpoint.

pub mod client;
pub mod invite_client;
pub mod invite_server;
pub mod key;
pub(crate) mod origin;
pub mod server;
pub(crate) mod table;

pub use client::Client;
pub use invite_client::{InviteAnswer, InviteClient};
pub use invite_server::{AckFor, InviteServer};
pub use key::{MergeKey, TransactionKey};
pub(crate) use origin::Origin;
pub use server::Server;
pub(crate) use table::{
    Due, Invite, Sends, TransactionId, TransactionTable, TransactionUser, Undelivered,
};
