//! The database: calls, operations, recordings and the outbox, in SQLite or PostgreSQL.
//!
//! In: [`Change`](aftertone_core::model::Change) values through the [`Journal`], the one writer of
//! the changes of live calls; queries and the few writes of purge and delivery through
//! [`Database`]. Out: rows as types of `model`. A change is one transaction: a fact and its
//! notification are stored together.
//!
//! One set of queries serves both databases: numbered placeholders, BIGINT milliseconds, TEXT. The
//! store knows neither Graph's JSON nor files, and decides nothing about calls.

mod calls;
mod clock;
mod connections;
mod damage;
mod database;
mod erasure;
mod error;
mod expiry;
mod files;
mod guard;
mod identity;
mod journal;
mod keys;
mod leftovers;
mod lock;
mod lost;
mod opening;
mod outbox;
mod recordings;
mod requests;
mod rows;

pub use calls::UnfinishedCall;
pub use database::Database;
pub use error::StoreError;
pub use expiry::{Expiry, PURGE_LEEWAY};
pub use identity::DatabaseIdentity;
pub use journal::{Commit, Journal, JournalBehind, JournalLimits};
pub use keys::SigningKeyRow;
pub use lock::lock_for_life;
pub use lost::LostFileRow;
pub use outbox::{Delivery, GivenUp};
pub use recordings::{NotAState, RecordingRow, RecordingState};
pub use requests::{KeptAnswer, RequestKey};
