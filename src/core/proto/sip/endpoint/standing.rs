//! Which peers are known, and how much capacity is left to strangers.
//!
//! A source that has not shown that it receives at its address gets one refusal of its INVITE, and
//! no state is kept. Otherwise one datagram with a forged source address would make us send a dozen
//! to that address (RFC 3261 §26.3.2.4). The source may repeat its INVITE, and gets the same
//! refusal.

use std::net::IpAddr;

use super::{ConnectionId, Endpoint, IpNet, Path};
use crate::proto::sip::standing::{
    RESERVED_DIALOGS, RESERVED_TRANSACTIONS, Standing, TRANSACTIONS_OF_A_SOURCE, is_trusted_over,
};

impl Endpoint {
    /// The networks of peers that the operator trusts.
    pub fn set_trusted_peers(&mut self, peers: Vec<IpNet>) {
        self.trusted_peers = peers;
    }

    /// Whether the operator trusts the peer.
    pub(super) fn is_trusted(&self, path: Path) -> bool {
        is_trusted_over(&self.trusted_peers, path)
    }

    /// Whether the peer is known: trusted by the operator, a trunk, or at the address from which a
    /// phone has registered.
    pub(super) fn is_known_peer(&self, path: Path) -> bool {
        self.standing(path) != Standing::Stranger
    }

    /// How well the peer is known by its address alone.
    pub(super) fn standing(&self, path: Path) -> Standing {
        if self.is_trusted(path) {
            Standing::Trusted
        } else if self.trunks.at(path).is_some() {
            Standing::Identified
        } else if self.registrar.is_at(path) {
            Standing::KnownSource
        } else {
            Standing::Stranger
        }
    }

    /// Addresses of known peers that the operator has not listed: trunks, registered phones, and
    /// peers of calls that are up. An answered call without ACK proves nothing.
    pub fn known_peers(&self) -> impl Iterator<Item = IpAddr> {
        let phones = self.registrar.paths().map(|path| path.peer.ip());
        let up =
            self.dialogs.values().filter(|dialog| dialog.is_up() && !dialog.target.is_unproven());
        let up = up.map(|dialog| dialog.target.path());
        let up = up.filter(|path| !path.is_foreign);
        phones.chain(self.trunks.addresses()).chain(up.map(|path| path.peer.ip()))
    }

    /// Streams that phones have registered over. They make known the peers that are scripts of web
    /// pages.
    pub fn phone_streams(&self) -> impl Iterator<Item = ConnectionId> {
        self.registrar.paths().filter_map(|path| path.connection)
    }

    /// Streams that a dialog uses, or over which a phone or a trunk is reached.
    pub fn streams(&self) -> impl Iterator<Item = ConnectionId> {
        let dialogs = self.dialogs.values().map(|dialog| dialog.target.path());
        let paths = dialogs.chain(self.registrar.paths()).chain(self.trunks.flows());
        paths.filter_map(|path| path.connection)
    }

    /// Whether a stranger may open one more dialog.
    pub(super) fn has_room_for_stranger(&self, path: Path) -> bool {
        let (transactions, dialogs) = (self.config.max_transactions, self.config.max_dialogs);
        self.transactions.len() < RESERVED_TRANSACTIONS.rest_of(transactions)
            && self.dialogs.len() < RESERVED_DIALOGS.rest_of(dialogs)
            && self.is_within_share(path)
    }

    /// Whether one more request within a dialog can be handled. A stranger that sends many must not
    /// block other peers.
    pub(super) fn has_room_within(&self, path: Path) -> bool {
        self.transactions.len() < self.config.max_transactions
            && (self.is_within_share(path) || self.is_known_peer(path))
    }

    fn is_within_share(&self, path: Path) -> bool {
        let share = TRANSACTIONS_OF_A_SOURCE.at_least_one_of(self.config.max_transactions);
        self.transactions.of_source(path.peer.ip()) < share
    }
}
