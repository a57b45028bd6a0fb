//! Keep-alives. A NAT forgets a mapping that is not used for half a minute. Phones and callers
//! behind a NAT get an empty line over UDP. Each trunk that we are registered at gets one too, over
//! any transport, because there the NAT may be on our side (RFC 5626 §4.4.1, §5.4; the receiver
//! drops an empty line). Peers that use STUN as keep-alive are answered (§4.4.2).

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::Rng;

use super::{Endpoint, known_addresses::KnownAddresses};
use crate::proto::sip::{
    dialog::{Dialog, DialogId},
    path::Path,
    stun,
    transmit::Transmit,
};

/// How long a path may be unused, in milliseconds: less than the 30 s after which NATs forget a
/// mapping (RFC 5626 §4.4.2).
const INTERVAL: std::ops::RangeInclusive<u64> = 24_000..=29_000;
/// The ping of RFC 5626 §4.4.1.
const EMPTY_LINES: &[u8] = b"\r\n\r\n";

impl Endpoint {
    /// Schedules the next keep-alives, if none are scheduled and a peer needs them.
    pub(super) fn plan_keep_alives(&mut self, now: Instant) {
        if self.keep_alive_at.is_none() && !self.kept_alive().is_empty() {
            let interval = Duration::from_millis(self.rng.random_range(INTERVAL));
            self.keep_alive_at = Some(now + interval);
        }
    }

    /// A call is up, perhaps through a NAT.
    pub(super) fn keep_way_open(&mut self, id: DialogId, now: Instant) {
        if self.dialogs.get(id).is_some_and(Dialog::needs_keep_alive) {
            self.plan_keep_alives(now);
        }
    }

    /// Sends keep-alives when they are due. If no peer needs them, no next time is scheduled.
    pub(super) fn keep_alive(&mut self, now: Instant) {
        if self.keep_alive_at.is_none_or(|due| due > now) {
            return;
        }
        for path in self.kept_alive() {
            let path = self.config.leaving_listener(path);
            self.transmit(Transmit::raw(path, Bytes::from_static(EMPTY_LINES)));
        }
        self.keep_alive_at = None;
        self.plan_keep_alives(now);
    }

    /// Answers a STUN request; returns whether it was one. Strangers get an answer that is not much
    /// longer than their request, or none: this is a SIP port.
    pub(super) fn handle_stun(&mut self, bytes: &[u8], path: Path, now: Instant) -> bool {
        let Some(answer) = stun::answer(bytes, path.peer) else { return false };
        let is_fair = stun::is_fair(bytes, &answer);
        if is_fair || self.is_trusted(path) || self.is_known_address(path.peer, now) {
            self.transmit(Transmit::raw(path, answer.into()));
        }
        true
    }

    fn is_known_address(&mut self, peer: SocketAddr, now: Instant) -> bool {
        if !self.known_addresses.is_fresh(now) {
            let dialogs = self.dialogs.values();
            let dialogs =
                dialogs.filter(|dialog| dialog.is_confirmed() && !dialog.target.is_unproven());
            let paths = dialogs
                .map(|dialog| dialog.target.path())
                .chain(self.registrar.paths())
                .chain(self.trunks.flows());
            self.known_addresses = KnownAddresses::collect(paths.map(|path| path.source()), now);
        }
        self.known_addresses.contains(peer)
    }

    /// Each path once, even if it is used by several calls or phones.
    fn kept_alive(&self) -> Vec<Path> {
        let callers = self.dialogs.values().filter(|dialog| dialog.needs_keep_alive());
        let mut seen = BTreeSet::new();
        self.registrar
            .behind_nat()
            .chain(callers.map(|dialog| dialog.target.path()))
            .chain(self.trunks.flows())
            .filter(|path| seen.insert((path.transport, path.peer)))
            .collect()
    }
}
