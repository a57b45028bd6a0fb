//! Our registrations at trunks: one state machine for each, and the REGISTER requests that they
//! send (RFC 3261 §10.2).

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use rand::SeedableRng;
use tracing::{info, warn};

use super::{
    Endpoint, StdRng,
    account::{Account, TrunkAccount},
};
use crate::proto::sip::{
    Status, StatusClass,
    message::{Method, RequestBuilder, Response},
    path::{ConnectionId, Path},
    registration::{
        Output as Wanted, RegisterRequest, RegisterResponse, Registration, RegistrationConfig,
        TrunkState, TrunkStatus,
    },
    transaction::{Sends, TransactionUser},
};

/// The registration lifetime that we ask for: the usual hour.
const EXPIRES: Duration = Duration::from_secs(3_600);

impl Endpoint {
    /// Registers at a trunk as soon as a path to it is known. If the account exists already, only
    /// its paths are replaced.
    pub fn register(&mut self, trunk: TrunkAccount, now: Instant) {
        let name = trunk.name.clone();
        if let Some(account) = self.accounts.get_mut(&name) {
            account.trunk.targets = trunk.targets;
            account.begin(now);
            self.carry_out_registration(&name, now);
            return;
        }
        let config = RegistrationConfig {
            registrar: trunk.registrar.clone(),
            credentials: trunk.credentials.clone(),
            expires: EXPIRES,
        };
        let rng = StdRng::from_rng(&mut self.rng);
        let mut account = Account {
            trunk,
            machine: Registration::new(config, rng, now),
            call_id: self.fresh_tag(),
            local_tag: self.fresh_tag(),
            target: 0,
            is_streamed: false,
            wants_datagram: false,
            flow: None,
            is_leaving: false,
        };
        account.begin(now);
        self.accounts.insert(name.clone(), account);
        self.carry_out_registration(&name, now);
    }

    /// Removes a trunk, or its old version if its configuration has changed. Our contact there is
    /// unregistered, and callers from there are strangers. Another account of the same name may
    /// follow at once.
    pub fn leave_trunk(&mut self, name: &str, now: Instant) {
        let Some(mut account) = self.accounts.remove(name) else { return };
        account.is_leaving = true;
        account.machine.stop(now);
        let left = format!("{name} as it was until {}", self.last_register);
        for of in self.registering.values_mut().filter(|of| *of == name) {
            of.clone_from(&left);
        }
        self.accounts.insert(left.clone(), account);
        self.carry_out_registration(&left, now);
    }

    /// Unregisters at all trunks; a trunk is `Idle` when that is done.
    pub fn unregister(&mut self, now: Instant) {
        let names: Vec<String> = self.accounts.keys().cloned().collect();
        for name in names {
            if let Some(account) = self.accounts.get_mut(&name) {
                account.machine.stop(now);
            }
            self.carry_out_registration(&name, now);
        }
    }

    /// The registration status of each trunk, by name.
    pub fn trunks(&self) -> impl Iterator<Item = (&str, TrunkStatus)> {
        let ours = self.accounts.iter().filter(|(_, account)| !account.is_leaving);
        ours.map(|(name, account)| (name.as_str(), account.machine.status()))
    }

    /// The trunk that sends calls over this path.
    pub(super) fn trunk_at(&self, path: Path) -> Option<String> {
        let source = path.peer.ip();
        let is_from = |account: &&Account| {
            !path.is_foreign
                && !account.is_leaving
                && account.trunk.targets.iter().any(|target| target.peer.ip() == source)
        };
        self.accounts.values().find(is_from).map(|account| account.trunk.name.clone())
    }

    /// Addresses that calls of trunks come from.
    pub(super) fn trunk_places(&self) -> impl Iterator<Item = IpAddr> {
        let ours = self.accounts.values().filter(|account| !account.is_leaving);
        let targets = ours.flat_map(|account| &account.trunk.targets);
        targets.map(|target| target.peer.ip())
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
        let status = response.status();
        if let Some(account) = self.accounts.get_mut(&name) {
            // §10.2.4: one of the Contacts in the response is ours.
            let contact = account
                .path()
                .map(|path| self.config.contact_of(&account.trunk.contact_user, path));
            if let Some(Ok(contact)) = contact.map(|contact| contact.parse()) {
                account.machine.handle_response(&RegisterResponse::read(response, &contact), now);
            }
            account.flow =
                (account.machine.status().state == TrunkState::Registered).then_some(path);
            // RFC 3263 §4.3: after a 5xx the next attempt takes the next target.
            account.target += usize::from(status.class() == StatusClass::ServerError);
        }
        self.carry_out_registration(&name, now);
        self.plan_keep_alives(now);
    }

    /// A REGISTER got no answer. The next one takes the next target; after one that went over a
    /// stream because of its length, it goes in a datagram to the same target.
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

    /// Paths over which trunks have registered us.
    pub(super) fn trunk_flows(&self) -> impl Iterator<Item = Path> {
        self.accounts.values().filter_map(|account| account.flow)
    }

    /// A stream is closed: if a trunk sends its calls over it, we register there again.
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
                None if account.is_leaving
                    && account.machine.status().state == TrunkState::Idle =>
                {
                    self.accounts.remove(name);
                    return;
                }
                None => return,
                Some(Wanted::Changed(state)) => {
                    let TrunkStatus { last_status, failure, .. } = account.machine.status();
                    let trunk = &account.trunk.name;
                    match failure.filter(|_| state == TrunkState::Waiting) {
                        Some(why) => warn!(
                            trunk,
                            sip.status = last_status.map(Status::code),
                            "Trunk {state}: {why}"
                        ),
                        None => info!(
                            trunk,
                            sip.status = last_status.map(Status::code),
                            "Trunk {state}"
                        ),
                    }
                }
                Some(Wanted::Send(request)) => self.send_register(name, &request, now),
            }
        }
    }

    fn send_register(&mut self, name: &str, request: &RegisterRequest, now: Instant) {
        let branch = self.fresh_branch();
        let Some(account) = self.accounts.get_mut(name) else { return };
        let trunk = &account.trunk;
        let Some(path) = account.path() else {
            debug_assert!(false, "{name} leads nowhere");
            return;
        };
        let from = trunk.address_of_record.with_tag(&account.local_tag);
        let config = &self.config;
        let may_stream = !account.wants_datagram;
        let (transmit, is_streamed) = config.packed(path, may_stream, |path| {
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
        let user = (TransactionUser::Register(number), None);
        let transmit = self.transactions.request(key, user, transmit, Sends::Repeatedly, now);
        self.transmit(transmit);
    }
}
