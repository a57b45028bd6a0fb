//! SDP (RFC 8866) and offer/answer (RFC 3264), as far as audio needs them.

mod crypto;
mod description;
mod media_line;
mod negotiation;
mod plan;

pub use crate::audio::Codec;
pub use crypto::{MediaSecret, SrtpKeys, SrtpPolicy};
pub use description::{Attribute, Description, Media, ParseError, without_secret};
pub use negotiation::{
    LocalMedia, LocalSecurity, NegotiationError, accept_answer, accept_answer_again, make_offer,
    make_offer_again, negotiate, suspend,
};
pub use plan::{Direction, Payload, StreamPlan};

#[cfg(test)]
mod tests;
