//! Our registrations at trunks (RFC 3261 §10.2).
//!
//! Comes in: the accounts of the configuration, responses to our REGISTER requests, lost
//! connections, time. Goes out: REGISTER requests, ready to be sent; the status of each
//! registration; and the addresses that calls of trunks come from. One [`Registration`] for each
//! account decides when to send a REGISTER, and with which credentials. This module chooses its
//! path and builds it. It opens no transactions; the endpoint does.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};
use tracing::{info, warn};

use super::{config::EndpointConfig, fresh};
use crate::proto::sip::{
    Status, StatusClass,
    digest::Credentials,
    message::{Method, NameAddr, RequestBuilder, Response},
    path::{ConnectionId, Path},
    registration::{
        Output as Wanted, RegisterRequest, RegisterResponse, Registration, RegistrationConfig,
        TrunkState, TrunkStatus,
    },
    transmit::{NextHop, Transmit},
    uri::Uri,
};

/// The registration lifetime that we ask for: the usual hour.
const EXPIRES: Duration = Duration::from_secs(3_600);

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

/// All trunks that we register at.
#[derive(Debug)]
pub(super) struct Trunks {
    config: Arc<EndpointConfig>,
    rng: StdRng,
    /// Configured accounts, by name.
    accounts: BTreeMap<String, Account>,
    /// Accounts that are no longer configured, until our contact is unregistered there. Their
    /// trunks have no rights.
    leaving: Vec<Account>,
    last_register: u64,
}

/// A REGISTER to send.
#[derive(Debug)]
pub(super) struct Register {
    /// Identifies the request in [`Trunks::handle_response`] and [`Trunks::handle_failure`].
    pub number: u64,
    /// The branch in its Via.
    pub branch: String,
    /// The request and its path.
    pub transmit: Transmit,
}

impl Trunks {
    pub(super) fn new(config: Arc<EndpointConfig>, rng: StdRng) -> Self {
        Self { config, rng, accounts: BTreeMap::new(), leaving: Vec::new(), last_register: 0 }
    }

    /// Registers at a trunk as soon as a path to it is known. If the account exists already, only
    /// its paths are replaced.
    pub(super) fn register(&mut self, trunk: TrunkAccount, now: Instant) {
        let rng = &mut self.rng;
        match self.accounts.get_mut(&trunk.name) {
            Some(account) => {
                account.trunk.targets = trunk.targets;
                account.begin(now);
            }
            None => {
                let name = trunk.name.clone();
                let mut account = Account::new(trunk, rng, now);
                account.begin(now);
                self.accounts.insert(name, account);
            }
        }
    }

    /// Removes a trunk, or its old version if its configuration has changed. Our contact there is
    /// unregistered, and callers from there are strangers. Another account of the same name may
    /// follow at once.
    pub(super) fn leave(&mut self, name: &str, now: Instant) {
        let Some(mut account) = self.accounts.remove(name) else { return };
        account.machine.stop(now);
        self.leaving.push(account);
    }

    /// Unregisters at all trunks; a trunk is `Idle` when that is done.
    pub(super) fn unregister(&mut self, now: Instant) {
        for account in self.accounts.values_mut() {
            account.machine.stop(now);
        }
    }

    /// A REGISTER got its final response, over `path`.
    pub(super) fn handle_response(
        &mut self,
        number: u64,
        response: &Response,
        path: Path,
        now: Instant,
    ) {
        let config = Arc::clone(&self.config);
        if let Some(account) = self.end_register(number) {
            account.handle_response(response, path, &config, now);
        }
    }

    /// A REGISTER got no response.
    pub(super) fn handle_failure(&mut self, number: u64, now: Instant) {
        if let Some(account) = self.end_register(number) {
            account.handle_failure(now);
        }
    }

    /// A stream is closed: if a trunk sends its calls over it, we register there again.
    pub(super) fn handle_connection_lost(&mut self, connection: ConnectionId, now: Instant) {
        for account in self.accounts.values_mut().chain(&mut self.leaving) {
            if account.flow.take_if(|flow| flow.connection == Some(connection)).is_some() {
                account.machine.handle_flow_lost(now);
            }
        }
    }

    /// Begins each registration that is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for account in self.accounts.values_mut() {
            account.machine.handle_timeout(now);
        }
    }

    /// When [`Self::handle_timeout`] has to be called. An account that is left has no deadline of
    /// its own: it is removed when its last REGISTER has ended.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.accounts.values().filter_map(|account| account.machine.poll_timeout()).min()
    }

    /// The next REGISTER to send; to be called until `None`.
    pub(super) fn poll_output(&mut self) -> Option<Register> {
        let Self { config, rng, accounts, leaving, last_register } = self;
        for account in accounts.values_mut().chain(leaving.iter_mut()) {
            while let Some(request) = account.poll_request() {
                let branch = fresh::branch(rng);
                let Some(transmit) = account.build(&request, &branch, config) else { continue };
                *last_register += 1;
                account.pending = Some(*last_register);
                return Some(Register { number: *last_register, branch, transmit });
            }
        }
        leaving.retain(|account| account.machine.status().state != TrunkState::Idle);
        None
    }

    /// The registration status of each trunk, by name.
    pub(super) fn statuses(&self) -> impl Iterator<Item = (&str, TrunkStatus)> {
        self.accounts.iter().map(|(name, account)| (name.as_str(), account.machine.status()))
    }

    /// The name of the trunk that sends calls over this path.
    pub(super) fn at(&self, path: Path) -> Option<&str> {
        let source = path.peer.ip();
        let is_from = |account: &&Account| {
            !path.is_foreign
                && account.trunk.targets.iter().any(|target| target.peer.ip() == source)
        };
        self.accounts.values().find(is_from).map(|account| account.trunk.name.as_str())
    }

    /// Addresses that calls of trunks come from.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let targets = self.accounts.values().flat_map(|account| &account.trunk.targets);
        targets.map(|target| target.peer.ip())
    }

    /// Paths over which trunks have registered us.
    pub(super) fn flows(&self) -> impl Iterator<Item = Path> {
        self.accounts.values().chain(&self.leaving).filter_map(|account| account.flow)
    }

    /// The number of accounts at which our contact is still to be unregistered.
    #[cfg(test)]
    pub fn leaving(&self) -> usize {
        self.leaving.len()
    }

    /// The account whose pending REGISTER has this number; the REGISTER has ended.
    fn end_register(&mut self, number: u64) -> Option<&mut Account> {
        self.accounts.values_mut().chain(&mut self.leaving).find_map(|account| {
            account.pending.take_if(|pending| *pending == number)?;
            Some(account)
        })
    }
}

/// Our registration at one trunk.
#[derive(Debug)]
struct Account {
    trunk: TrunkAccount,
    machine: Registration,
    call_id: String,
    local_tag: String,
    /// The number of the REGISTER that has not ended.
    pending: Option<u64>,
    /// The index of the target being tried, modulo the number of targets.
    target: usize,
    /// Whether the pending REGISTER went over a stream because of its length; and whether the next
    /// one has to go in a datagram, because the stream brought no answer (§18.1.1).
    is_streamed: bool,
    wants_datagram: bool,
    /// The path over which the trunk has registered us and may send calls.
    flow: Option<Path>,
}

impl Account {
    fn new(trunk: TrunkAccount, rng: &mut StdRng, now: Instant) -> Self {
        let config = RegistrationConfig {
            registrar: trunk.registrar.clone(),
            credentials: trunk.credentials.clone(),
            expires: EXPIRES,
        };
        Self {
            trunk,
            machine: Registration::new(config, StdRng::from_rng(rng), now),
            call_id: fresh::tag(rng),
            local_tag: fresh::tag(rng),
            pending: None,
            target: 0,
            is_streamed: false,
            wants_datagram: false,
            flow: None,
        }
    }

    /// Starts to register, if there is a path.
    fn begin(&mut self, now: Instant) {
        if !self.trunk.targets.is_empty() {
            self.machine.start(now);
        }
    }

    /// The path being tried.
    fn path(&self) -> Option<Path> {
        let targets = &self.trunk.targets;
        targets.get(self.target % targets.len().max(1)).copied()
    }

    fn handle_response(
        &mut self,
        response: &Response,
        path: Path,
        config: &EndpointConfig,
        now: Instant,
    ) {
        // §10.2.4: one of the Contacts in the response is ours.
        let contact = self.path().map(|path| config.contact_of(&self.trunk.contact_user, path));
        if let Some(Ok(contact)) = contact.map(|contact| contact.parse()) {
            self.machine.handle_response(&RegisterResponse::read(response, &contact), now);
        }
        self.flow = (self.machine.status().state == TrunkState::Registered).then_some(path);
        // RFC 3263 §4.3: after a 5xx the next attempt takes the next target.
        self.target += usize::from(response.status().class() == StatusClass::ServerError);
    }

    /// The next REGISTER takes the next target; after one that went over a stream because of its
    /// length, it goes in a datagram to the same target.
    fn handle_failure(&mut self, now: Instant) {
        if self.is_streamed {
            self.wants_datagram = true
        } else {
            self.target += 1
        }
        self.machine.handle_failure(now);
    }

    /// The next REGISTER that the registration wants to send. Changes of its state are logged.
    fn poll_request(&mut self) -> Option<RegisterRequest> {
        loop {
            match self.machine.poll_output()? {
                Wanted::Send(request) => return Some(request),
                Wanted::Changed(state) => self.log(state),
            }
        }
    }

    fn log(&self, state: TrunkState) {
        let TrunkStatus { last_status, failure, .. } = self.machine.status();
        let (trunk, status) = (&self.trunk.name, last_status.map(Status::code));
        match failure.filter(|_| state == TrunkState::Waiting) {
            Some(why) => warn!(trunk, sip.status = status, "Trunk {state}: {why}"),
            None => info!(trunk, sip.status = status, "Trunk {state}"),
        }
    }

    /// The REGISTER for the path being tried.
    fn build(
        &mut self,
        request: &RegisterRequest,
        branch: &str,
        config: &EndpointConfig,
    ) -> Option<Transmit> {
        let Some(path) = self.path() else {
            debug_assert!(false, "{} leads nowhere", self.trunk.name);
            return None;
        };
        let trunk = &self.trunk;
        let from = trunk.address_of_record.with_tag(&self.local_tag);
        let next_hop = NextHop::uri(&trunk.registrar, &trunk.routes);
        let way = (path, next_hop);
        let (transmit, is_streamed) = config.packed(way, !self.wants_datagram, |path| {
            let builder = RequestBuilder::new(Method::Register, trunk.registrar.clone())
                .via(path.transport.name(), &config.sent_by(path), branch)
                .from(&from)
                .to(&trunk.address_of_record)
                .call_id(&self.call_id)
                .cseq(request.cseq)
                .contact(&config.contact_of(&trunk.contact_user, path))
                .header("Expires", &request.expires.as_secs().to_string())
                .header("User-Agent", &config.server_name);
            let builder = trunk.routes.iter().fold(builder, |builder, route| builder.route(route));
            let fields = request.authorization.iter();
            fields
                .fold(builder, |builder, (name, value)| builder.header(name, value))
                .build()
                .into()
        });
        self.is_streamed = is_streamed;
        Some(transmit)
    }
}
