//! An account at a trunk and the state of our registration there.

use std::time::Instant;

use crate::proto::sip::{
    digest::Credentials, message::NameAddr, path::Path, registration::Registration, uri::Uri,
};

/// The account of a trunk that we register at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkAccount {
    /// The name in the configuration.
    pub name: String,
    /// Paths to the trunk, the best one first; empty until they are known.
    pub targets: Vec<Path>,
    /// The Request-URI: the trunk's domain.
    pub registrar: Uri,
    /// Our address of record at the trunk.
    pub address_of_record: NameAddr,
    /// The user part of our Contact, which the trunk's calls are addressed to.
    pub contact_user: String,
    /// The proxies to traverse, as Route header fields.
    pub routes: Vec<NameAddr>,
    /// User name and password.
    pub credentials: Credentials,
}

/// Our registration at one trunk.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) trunk: TrunkAccount,
    pub(super) machine: Registration,
    pub(super) call_id: String,
    pub(super) local_tag: String,
    /// The index of the target being tried, modulo the number of targets.
    pub(super) target: usize,
    /// Whether the pending REGISTER went over a stream because of its length; and whether the next
    /// one has to go in a datagram, because the stream brought no answer (§18.1.1).
    pub(super) is_streamed: bool,
    pub(super) wants_datagram: bool,
    /// The path over which the trunk has registered us and may send calls.
    pub(super) flow: Option<Path>,
    /// The account is no longer configured: our contact is being unregistered, and the trunk has no
    /// rights.
    pub(super) is_leaving: bool,
}

impl Account {
    /// Starts to register, if there is a path.
    pub(super) fn begin(&mut self, now: Instant) {
        if !self.trunk.targets.is_empty() {
            self.machine.start(now);
        }
    }

    /// The path being tried.
    pub(super) fn path(&self) -> Option<Path> {
        let targets = &self.trunk.targets;
        targets.get(self.target % targets.len().max(1)).copied()
    }
}
