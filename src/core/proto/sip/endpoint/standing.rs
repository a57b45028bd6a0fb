//! Who is known to us, and how much room strangers have.
//!
//! A source that has not shown that it is where it says gets one refusal of its INVITE, and nothing of
//! it is remembered: otherwise a datagram with a forged source would have us send a dozen to whoever is
//! there (RFC 3261 §26.3.2.4). It can ask again, and gets the same.

use std::net::IpAddr;

use super::{ConnectionId, Dialog, Endpoint, IpNet, Path};

/// The part of all transactions and dialogs that strangers leave to those that we know: one in four.
const RESERVE: usize = 4;
/// The part of all transactions that one stranger may have: one in eight.
const SHARE: usize = 8;

impl Endpoint {
    /// These peers are known to the operator, whatever they say.
    pub fn set_trusted_peers(&mut self, peers: Vec<IpNet>) {
        self.trusted_peers = peers;
    }

    /// Whether the operator knows the peer at the other end.
    pub(super) fn is_trusted(&self, path: Path) -> bool {
        !path.is_foreign && is_within(&self.trusted_peers, path.peer.ip())
    }

    /// Whether somebody whom we know is at the other end: the operator, or a trunk, or a phone that has
    /// registered this way.
    pub(super) fn is_acquainted(&self, path: Path) -> bool {
        // Whatever port it names: behind the address of a phone may be others.
        let is_at_phone = self.registrar.is_at(path.source());
        self.is_trusted(path) || is_at_phone || self.trunk_at(path).is_some()
    }

    /// Where those are who are known, but not by the operator: trunks, phones that have registered, and
    /// peers of calls that are up. A call that nobody has acknowledged proves nothing.
    pub fn acquaintances(&self) -> impl Iterator<Item = IpAddr> {
        let phones = self.registrar.places().map(|place| place.ip());
        let up = self.dialogs.values().filter(|dialog| dialog.is_up() && !dialog.is_limited());
        let up = up.map(Dialog::path);
        let up = up.filter(|path| !path.is_foreign);
        phones.chain(self.trunk_places()).chain(up.map(|path| path.peer.ip()))
    }

    /// The streams that phones have registered over: of scripts of web pages, those are known.
    pub fn phone_streams(&self) -> impl Iterator<Item = ConnectionId> {
        self.registrar.paths().filter_map(|path| path.connection)
    }

    /// The streams that a dialog goes over, or that a phone or a trunk is reached by.
    pub fn streams(&self) -> impl Iterator<Item = ConnectionId> {
        let dialogs = self.dialogs.values().map(Dialog::path);
        let paths = dialogs.chain(self.registrar.paths()).chain(self.trunk_flows());
        paths.filter_map(|path| path.connection)
    }

    /// Whether a stranger may open one more dialog.
    pub(super) fn has_room_for_stranger(&self, path: Path) -> bool {
        let (transactions, dialogs) = (self.config.max_transactions, self.config.max_dialogs);
        self.transactions.len() < transactions - transactions / RESERVE
            && self.dialogs.len() < dialogs - dialogs / RESERVE
            && self.is_within_share(path)
    }

    /// Whether one more request of a dialog can be taken. That a stranger sends many must not keep
    /// others from being heard.
    pub(super) fn has_room_within(&self, path: Path) -> bool {
        self.transactions.len() < self.config.max_transactions
            && (self.is_within_share(path) || self.is_acquainted(path))
    }

    fn is_within_share(&self, path: Path) -> bool {
        let share = (self.config.max_transactions / SHARE).max(1);
        self.transactions.of_source(path.peer.ip()) < share
    }
}

/// Whether one of the networks has this address.
pub(super) fn is_within(networks: &[IpNet], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    networks.iter().any(|network| network.contains(&ip))
}
