//! SDP (RFC 8866) and offer/answer (RFC 3264), as far as audio needs them.

mod description;
mod negotiation;

pub use crate::audio::Codec;
pub use description::{Attribute, Description, Media, ParseError};
pub use negotiation::{
    Direction, LocalMedia, NegotiationError, Payload, StreamPlan, accept_answer,
    accept_answer_again, make_offer, make_offer_again, negotiate, suspend,
};

#[cfg(test)]
mod tests;
