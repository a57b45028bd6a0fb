//! Our registrations at trunks: one machine each, and the REGISTER requests that they want sent
//! (RFC 3261 §10.2).

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use rand::SeedableRng;
use tracing::info;

use super::{Endpoint, StdRng};
use crate::proto::sip::{
    digest::Credentials,
    message::{Method, NameAddr, RequestBuilder, Response},
    path::{ConnectionId, Path},
    registration::{
        Output as Wanted, RegisterRequest, RegisterResponse, Registration, RegistrationConfig,
        TrunkState, TrunkStatus,
    },
    transaction::Asker,
    uri::Uri,
};

/// How long we ask to be known: the usual hour.
const EXPIRES: Duration = Duration::from_secs(3_600);

/// A trunk that wants to know where we are.
#[derive(Debug, Clone)]
pub struct TrunkAccount {
    /// Its name in the configuration.
    pub name: String,
    /// Which ways lead there, the best first; never empty.
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
    trunk: TrunkAccount,
    machine: Registration,
    call_id: String,
    local_tag: String,
    /// Which of the targets is tried.
    target: usize,
    /// The REGISTER that is out went over a stream because it is long; or none was to be had, and the
    /// next one goes in a datagram (§18.1.1).
    is_streamed: bool,
    wants_datagram: bool,
    /// The way over which we are known there, and the trunk's calls may come.
    flow: Option<Path>,
}

impl Endpoint {
    /// Registers at a trunk from now on; of one that is known, only the ways there are new.
    pub fn register(&mut self, trunk: TrunkAccount, now: Instant) {
        if trunk.targets.is_empty() {
            debug_assert!(false, "{} leads nowhere", trunk.name);
            return;
        }
        if let Some(account) = self.accounts.get_mut(&trunk.name) {
            account.trunk.targets = trunk.targets;
            return;
        }
        let config = RegistrationConfig {
            registrar: trunk.registrar.clone(),
            credentials: trunk.credentials.clone(),
            expires: EXPIRES,
        };
        let rng = StdRng::from_rng(&mut self.rng);
        let mut machine = Registration::new(config, rng, now);
        machine.start(now);
        let (call_id, local_tag) = (self.fresh_tag(), self.fresh_tag());
        let name = trunk.name.clone();
        let account = Account {
            trunk,
            machine,
            call_id,
            local_tag,
            target: 0,
            is_streamed: false,
            wants_datagram: false,
            flow: None,
        };
        self.accounts.insert(name.clone(), account);
        self.carry_out_registration(&name, now);
    }

    /// Takes our contacts back; a trunk is idle when it has let us go.
    pub fn unregister(&mut self, now: Instant) {
        let names: Vec<String> = self.accounts.keys().cloned().collect();
        for name in names {
            if let Some(account) = self.accounts.get_mut(&name) {
                account.machine.stop(now);
            }
            self.carry_out_registration(&name, now);
        }
    }

    /// How it stands with each trunk, by name.
    pub fn trunks(&self) -> impl Iterator<Item = (&str, TrunkStatus)> {
        self.accounts.iter().map(|(name, account)| (name.as_str(), account.machine.status()))
    }

    /// The trunk that calls from this address come from.
    pub(super) fn trunk_at(&self, source: IpAddr) -> Option<String> {
        let is_from = |account: &&Account| {
            account.trunk.targets.iter().any(|target| target.peer.ip() == source)
        };
        self.accounts.values().find(is_from).map(|account| account.trunk.name.clone())
    }

    pub(super) fn registration_timeouts(&mut self, now: Instant) {
        let due = |account: &Account| account.machine.poll_timeout().is_some_and(|due| due <= now);
        let names: Vec<String> = self
            .accounts
            .iter()
            .filter(|(_, account)| due(account))
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            if let Some(account) = self.accounts.get_mut(&name) {
                account.machine.handle_timeout(now);
            }
            self.carry_out_registration(&name, now);
        }
    }

    pub(super) fn next_registration(&self) -> Option<Instant> {
        self.accounts.values().filter_map(|account| account.machine.poll_timeout()).min()
    }

    /// A REGISTER got its final response.
    pub(super) fn register_answered(
        &mut self,
        number: u64,
        response: &Response,
        path: Path,
        now: Instant,
    ) {
        let Some(name) = self.account_of(number) else { return };
        if let Some(account) = self.accounts.get_mut(&name) {
            // §10.2.4: the one of the Contacts that is ours.
            let contact = self.config.contact_of(&account.trunk.contact_user, account.path());
            if let Ok(contact) = contact.parse() {
                account.machine.handle_response(&RegisterResponse::read(response, &contact), now);
            }
            account.flow =
                (account.machine.status().state == TrunkState::Registered).then_some(path);
        }
        self.carry_out_registration(&name, now);
        self.plan_keep_alives(now);
    }

    /// A REGISTER got no answer: the next round tries the next way.
    pub(super) fn register_unanswered(&mut self, number: u64, now: Instant) {
        let Some(name) = self.account_of(number) else { return };
        if let Some(account) = self.accounts.get_mut(&name) {
            match account.is_streamed {
                true => account.wants_datagram = true,
                false => account.target += 1,
            }
            account.machine.handle_failure(now);
        }
        self.carry_out_registration(&name, now);
    }

    /// The ways over which trunks know us.
    pub(super) fn trunk_flows(&self) -> impl Iterator<Item = Path> {
        self.accounts.values().filter_map(|account| account.flow)
    }

    /// A stream has gone: the trunk that called us over it is told where we are.
    pub(super) fn trunk_lost(&mut self, connection: ConnectionId, now: Instant) {
        for account in self.accounts.values_mut() {
            if account.flow.is_some_and(|flow| flow.connection == Some(connection)) {
                account.flow = None;
                account.machine.handle_flow_lost(now);
            }
        }
    }

    fn account_of(&mut self, number: u64) -> Option<String> {
        self.registering.remove(&number)
    }

    fn carry_out_registration(&mut self, name: &str, now: Instant) {
        loop {
            let Some(account) = self.accounts.get_mut(name) else { return };
            match account.machine.poll_output() {
                None => return,
                Some(Wanted::Changed(state)) => {
                    let status = account.machine.status();
                    info!(trunk = name, sip.status = status.last_status, "Trunk {state}");
                }
                Some(Wanted::Send(request)) => self.send_register(name, &request, now),
            }
        }
    }

    fn send_register(&mut self, name: &str, request: &RegisterRequest, now: Instant) {
        let branch = self.fresh_branch();
        let Some(account) = self.accounts.get_mut(name) else { return };
        let trunk = &account.trunk;
        let from = trunk.address_of_record.with_tag(&account.local_tag);
        let config = &self.config;
        let may_stream = !account.wants_datagram;
        let (transmit, is_streamed) = config.packed(account.path(), may_stream, |path| {
            let builder = RequestBuilder::new(Method::Register, trunk.registrar.clone())
                .via(path.transport.name(), &config.sent_by(path), &branch)
                .from(&from)
                .to(&trunk.address_of_record)
                .call_id(&account.call_id)
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
        account.is_streamed = is_streamed;
        self.last_register += 1;
        let number = self.last_register;
        self.registering.insert(number, name.to_owned());
        let key = (branch, Method::Register.as_str());
        let asker = (Asker::Register(number), None);
        let transmit = self.transactions.request(key, asker, transmit, now);
        self.transmit(transmit);
    }
}

impl Account {
    /// The way that is tried now.
    fn path(&self) -> Path {
        let targets = &self.trunk.targets;
        targets[self.target % targets.len()]
    }
}
