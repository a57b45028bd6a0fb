//! SIP (RFC 3261): the front parser, messages, transactions, dialogs and the endpoint that owns
//! them.

pub mod body;
pub mod dialog;
pub mod dialog_id;
pub mod digest;
pub mod endpoint;
pub mod fields;
pub mod framing;
pub(crate) mod in_dialog_request;
pub mod info;
mod lines;
pub mod locate;
pub mod log_limiter;
pub(crate) mod login;
pub mod message;
pub(crate) mod outgoing;
pub mod path;
pub mod registrar;
pub mod registration;
pub mod session_timer;
pub mod standing;
mod status;
pub mod stun;
pub mod timers;
pub mod transaction;
pub mod transmit;
pub mod uri;
pub mod validate;
pub mod wire;

pub use status::{NoStatus, Status, StatusClass};
