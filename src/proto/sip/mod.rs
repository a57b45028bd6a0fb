//! SIP (RFC 3261): the front parser, messages, transactions, dialogs and the endpoint that owns them.

pub mod dialog;
pub mod digest;
pub mod endpoint;
pub mod info;
pub mod message;
pub mod path;
pub mod registrar;
pub mod registration;
pub mod timers;
pub mod transaction;
pub mod uri;
pub mod validate;
pub mod wire;
