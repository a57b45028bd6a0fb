//! An account at a trunk and the state of our registration there.

use std::time::Instant;

use crate::proto::sip::{
    digest::Credentials, message::NameAddr, path::Path, registration::Registration, uri::Uri,
};

/// A trunk that wants to know where we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkAccount {
    /// Its name in the configuration.
    pub name: String,
    /// Which ways lead there, the best first; none as long as nobody knows.
    pub targets: Vec<Path>,
    /// The Request-URI: the trunk's domain.
    pub registrar: Uri,
    /// Who we are there.
    pub address_of_record: NameAddr,
    /// The user part of our Contact: whom the trunk's calls are for.
    pub contact_user: String,
    /// The proxies to visit.
    pub routes: Vec<NameAddr>,
    /// Name and password.
    pub credentials: Credentials,
}

/// Our registration at one trunk.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) trunk: TrunkAccount,
    pub(super) machine: Registration,
    pub(super) call_id: String,
    pub(super) local_tag: String,
    /// Which of the targets is tried.
    pub(super) target: usize,
    /// The REGISTER that is out went over a stream because it is long; or none was to be had, and the
    /// next one goes in a datagram (§18.1.1).
    pub(super) is_streamed: bool,
    pub(super) wants_datagram: bool,
    /// The way over which we are known there, and the trunk's calls may come.
    pub(super) flow: Option<Path>,
    /// It is not configured any more: our contact is taken back, and it has no rights.
    pub(super) is_leaving: bool,
}

impl Account {
    /// Registers, if there is a way.
    pub(super) fn begin(&mut self, now: Instant) {
        if !self.trunk.targets.is_empty() {
            self.machine.start(now);
        }
    }

    /// The way that is tried now.
    pub(super) fn path(&self) -> Option<Path> {
        let targets = &self.trunk.targets;
        targets.get(self.target % targets.len().max(1)).copied()
    }
}
