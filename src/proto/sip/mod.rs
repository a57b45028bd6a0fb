//! SIP (RFC 3261): the front parser, messages, transactions, dialogs and the endpoint that owns them.

pub mod message;
pub mod uri;
pub mod validate;
pub mod wire;
