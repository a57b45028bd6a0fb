//! The addresses of known peers. Their STUN requests are answered, also where the answer is much
//! longer than the request.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// The maximum age of the set. A STUN client repeats its request after half a second.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// Addresses of registered phones, trunks and calls. The set is collected on demand, at most once a
/// second, so a flood of requests costs no more than that.
#[derive(Debug, Default)]
pub(super) struct KnownAddresses {
    addresses: BTreeSet<SocketAddr>,
    collected: Option<Instant>,
}

impl KnownAddresses {
    /// The set of these addresses.
    pub(super) fn collect(addresses: impl Iterator<Item = SocketAddr>, now: Instant) -> Self {
        Self { addresses: addresses.collect(), collected: Some(now) }
    }

    /// Whether the set need not be collected again.
    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        self.collected.is_some_and(|at| now.saturating_duration_since(at) < FRESH_FOR)
    }

    /// Whether a known peer sends from this address.
    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address)
    }
}
