//! Delivery of the outbox: in order per call, at least once.
//!
//! In: committed notifications in the database, and a function that renders them. Out: one POST
//! after the other for each call, until the notification is received or given up. Media never waits
//! for this module, and the calls do not wait for each other.

mod backoff;
mod dispatcher;
mod refusals;
mod webhook;

pub use dispatcher::{Dispatcher, DispatcherConfig, Render};
pub use webhook::{Gate, Rendered, Webhook, WebhookAnswer};
