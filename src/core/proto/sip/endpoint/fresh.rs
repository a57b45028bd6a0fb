//! Random identifiers and delays in the messages that we send.

use std::time::Duration;

use rand::{Rng, rngs::StdRng};

use crate::proto::sip::{dialog::DialogId, transaction::key::MAGIC_COOKIE};

/// A tag that no other dialog has, and that cannot be guessed (RFC 3261 §19.3).
pub(super) fn tag(rng: &mut StdRng) -> String {
    format!("{:016x}", rng.random::<u64>())
}

/// A branch that no other transaction has (RFC 3261 §8.1.1.7).
pub(super) fn branch(rng: &mut StdRng) -> String {
    format!("{MAGIC_COOKIE}{:016x}", rng.random::<u64>())
}

/// The RSeq of the first reliable response: from 1 to 2^31-1 (RFC 3262 §3).
pub(super) fn rseq(rng: &mut StdRng) -> u32 {
    rng.random_range(1..1 << 31)
}

/// The Retry-After value of a 500 to an offer: up to ten seconds, so that the requests of both
/// sides do not collide again (RFC 3261 §14.2, RFC 3311 §5.2).
pub(super) fn retry_after_seconds(rng: &mut StdRng) -> u64 {
    rng.random_range(0..=10)
}

/// How long to wait after both sides made an offer at once. The side that created the Call-ID waits
/// longer (RFC 3261 §14.1).
pub(super) fn glare_pause(id: DialogId, rng: &mut StdRng) -> Duration {
    let tens = if id.0 >= DialogId::FIRST_OUTGOING {
        rng.random_range(210..=400)
    } else {
        rng.random_range(0..=200)
    };
    Duration::from_millis(tens * 10)
}
