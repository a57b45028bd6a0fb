//! Addresses of known peers.

use std::{collections::BTreeSet, net::SocketAddr, time::Instant};

/// Addresses of registered phones, trunks and calls. The set is rebuilt on demand, at most once a
/// second, so a flood of requests costs no more than that.
#[derive(Debug, Default)]
pub(super) struct KnownPeers {
    pub(super) peers: BTreeSet<SocketAddr>,
    pub(super) made: Option<Instant>,
}
