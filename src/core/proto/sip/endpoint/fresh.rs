//! Random identifiers in the messages that we send.

use rand::{Rng, rngs::StdRng};

use crate::proto::sip::transaction::key::MAGIC_COOKIE;

/// A tag that no other dialog has, and that cannot be guessed (RFC 3261 §19.3).
pub(super) fn tag(rng: &mut StdRng) -> String {
    format!("{:016x}", rng.random::<u64>())
}

/// A branch that no other transaction has (RFC 3261 §8.1.1.7).
pub(super) fn branch(rng: &mut StdRng) -> String {
    format!("{MAGIC_COOKIE}{:016x}", rng.random::<u64>())
}
