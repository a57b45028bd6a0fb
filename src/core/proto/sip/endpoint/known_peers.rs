//! Addresses of the peers that we know.

use std::{collections::BTreeSet, net::SocketAddr, time::Instant};

/// Addresses of registered phones, trunks and calls. The set is made anew when it is asked for, at
/// most once a second: a flood of questions costs no more than that.
#[derive(Debug, Default)]
pub(super) struct KnownPeers {
    pub(super) peers: BTreeSet<SocketAddr>,
    pub(super) made: Option<Instant>,
}
