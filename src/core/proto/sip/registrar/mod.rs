//! The registrar: the contacts of each user's phones (RFC 3261 §10.3, RFC 3327, RFC 5626 §6).
//!
//! Comes in: REGISTER requests of authenticated users, lost connections, time. Goes out: the
//! response to each REGISTER, the contacts of a user, and events for the log. The registrar does no
//! authentication, sends no messages and places no calls.
//!
//! A binding is one contact of one user for a limited time. A REGISTER changes all bindings that it
//! names, or none.

mod binding;
mod request;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

pub use self::binding::{Binding, Outbound, RegistrarConfig};
use self::binding::{BindingId, PhoneSource};
use self::request::{Change, Refusal, Wanted};
use super::{
    Status,
    message::{NameAddr, Request, Uri},
    path::{ConnectionId, Path, Transport},
    timers::Schedule,
};

/// The response to a REGISTER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200, 400, 403, 423 or 439.
    pub status: Status,
    /// The reason phrase.
    pub reason: &'static str,
    /// Header fields to add.
    pub headers: Vec<(&'static str, String)>,
}

/// A change of the bindings, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A user has a new contact. A refresh is no event, unless it comes from another address.
    Bound {
        /// The user.
        user: String,
        /// The contact.
        contact: Uri,
        /// The path to the contact.
        path: Path,
    },
    /// A contact is reached over another path than before, because a NAT or a network has changed.
    Moved {
        /// The user.
        user: String,
        /// The contact.
        contact: Uri,
        /// The new path to the contact.
        path: Path,
    },
    /// A contact was removed.
    Unbound {
        /// The user.
        user: String,
        /// The contact.
        contact: Uri,
        /// The reason.
        cause: Cause,
    },
}

/// Why a contact was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The phone removed it.
    Removed,
    /// The same phone registered another contact, or the user has too many.
    Replaced,
    /// It was not refreshed in time.
    Expired,
    /// Its connection, the only path to it, was lost.
    ConnectionLost,
    /// The user does not exist any more.
    UserRemoved,
}

/// The bindings of all users.
#[derive(Debug)]
pub struct Registrar {
    config: RegistrarConfig,
    /// Bindings by user; a user without bindings has no entry.
    users: BTreeMap<String, Vec<Binding>>,
    owners: BTreeMap<BindingId, String>,
    /// Where phones have registered from, with the number of bindings of each place.
    places: BTreeMap<PhoneSource, usize>,
    schedule: Schedule<BindingId>,
    last_id: u64,
    events: VecDeque<Event>,
}

impl Registrar {
    /// A registrar that knows no contact.
    pub fn new(config: RegistrarConfig) -> Self {
        Self {
            config,
            users: BTreeMap::new(),
            owners: BTreeMap::new(),
            places: BTreeMap::new(),
            schedule: Schedule::new(),
            last_id: 0,
            events: VecDeque::new(),
        }
    }

    /// Serves a REGISTER that `user` sent over `path`. The caller has already authenticated the
    /// user and checked that the request is meant for us.
    pub fn handle_register(
        &mut self,
        user: &str,
        request: &Request,
        path: Path,
        now: Instant,
    ) -> Reply {
        self.handle_timeout(now);
        match self.register(user, request, path, now) {
            Ok(headers) => Reply { status: Status::OK, reason: "OK", headers },
            Err(Refusal { status, reason, header }) => {
                Reply { status, reason, headers: header.into_iter().collect() }
            }
        }
    }

    /// Removes the contacts that have expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(id) = self.schedule.pop_due(now) {
            if let Some(user) = self.owners.get(&id).cloned() {
                self.retain(&user, Cause::Expired, |binding| binding.id != id);
            }
        }
    }

    /// Removes the contacts that were reachable only over this connection: a browser accepts no
    /// connections at its address (RFC 7118 §5), and a flow of RFC 5626 is this one connection.
    /// Other phones are then reached at the address in their Contact.
    pub fn handle_connection_lost(&mut self, connection: ConnectionId) {
        let needs_it = |binding: &Binding| {
            let is_web = matches!(binding.path.transport, Transport::Ws | Transport::Wss);
            binding.path.connection == Some(connection) && (is_web || binding.outbound.is_some())
        };
        let users: Vec<String> = self
            .users
            .iter()
            .filter(|(_, bindings)| bindings.iter().any(needs_it))
            .map(|(user, _)| user.clone())
            .collect();
        for user in users {
            self.retain(&user, Cause::ConnectionLost, |binding| !needs_it(binding));
        }
        let was_reached_by_it = |binding: &Binding| binding.path.connection == Some(connection);
        let moved: Vec<(String, Vec<Binding>)> = self
            .users
            .iter()
            .filter(|(_, bindings)| bindings.iter().any(was_reached_by_it))
            .map(|(user, bindings)| (user.clone(), bindings.clone()))
            .collect();
        for (user, mut bindings) in moved {
            for binding in bindings.iter_mut().filter(|binding| was_reached_by_it(binding)) {
                let mut listeners = binding.listeners().into_iter();
                binding.path = listeners.next().unwrap_or(binding.path);
                binding.other_path = listeners.next();
                // No message has come from where the phone listens.
                binding.place = None;
            }
            self.replace(&user, bindings);
        }
    }

    /// Paths to phones behind a NAT, whose datagrams come from elsewhere than their Contact says.
    /// The NAT needs keep-alives to keep its mapping.
    pub fn behind_nat(&self) -> impl Iterator<Item = Path> {
        let all = self.users.values().flatten();
        all.filter(|binding| binding.is_behind_nat()).map(|binding| binding.path)
    }

    /// Paths to all phones.
    pub fn paths(&self) -> impl Iterator<Item = Path> {
        self.users.values().flatten().map(|binding| binding.path)
    }

    /// Whether a message that came over `path` comes from where a phone has registered.
    pub fn is_at(&self, path: Path) -> bool {
        self.places.contains_key(&PhoneSource::of(path))
    }

    /// Removes all contacts of a user that may not register any more.
    pub fn remove_user(&mut self, user: &str) {
        self.retain(user, Cause::UserRemoved, |_| false);
    }

    /// The next change of the bindings.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When the next contact expires.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    /// The contacts of a user: the most preferred first, among equals the newest first.
    pub fn contacts(&self, user: &str, now: Instant) -> Vec<Binding> {
        let mut bindings: Vec<Binding> = self
            .bindings(user)
            .iter()
            .filter(|binding| binding.expires_at > now)
            .cloned()
            .collect();
        bindings.sort_by_key(|binding| Reverse((binding.q, binding.updated_at, binding.id)));
        bindings
    }

    fn bindings(&self, user: &str) -> &[Binding] {
        self.users.get(user).map(Vec::as_slice).unwrap_or_default()
    }

    fn register(
        &mut self,
        user: &str,
        request: &Request,
        path: Path,
        now: Instant,
    ) -> Result<Vec<(&'static str, String)>, Refusal> {
        // RFC 3261 §10.3, step 4: a user registers contacts only for itself.
        if request.to().uri().user().as_deref() != Some(user) {
            return Err(Refusal::new(Status::FORBIDDEN, "Not Your Address"));
        }
        let routes = request::read_routes(request)?;
        let mut is_outbound = false;
        match request::read(request, &routes, &self.config)? {
            Wanted::Nothing => {}
            Wanted::RemoveAll => {
                for binding in self.bindings(user) {
                    check_order(binding, request)?;
                }
                self.retain(user, Cause::Removed, |_| false);
            }
            Wanted::Changes(changes) => {
                is_outbound = changes.iter().any(|change| change.outbound.is_some());
                self.change(user, request, changes, &routes, path, now)?;
            }
        }
        let mut headers: Vec<(&'static str, String)> = self
            .bindings(user)
            .iter()
            .map(|binding| ("Contact", binding.contact_value(now)))
            .collect();
        headers.extend(routes.iter().map(|route| ("Path", route.to_string())));
        headers.push(("Supported", "path, outbound".to_owned()));
        if is_outbound {
            headers.push(("Require", "outbound".to_owned()));
        }
        Ok(headers)
    }

    /// Carries out all changes, or none (RFC 3261 §10.3, step 7).
    fn change(
        &mut self,
        user: &str,
        request: &Request,
        changes: Vec<Change>,
        routes: &[NameAddr],
        path: Path,
        now: Instant,
    ) -> Result<(), Refusal> {
        for change in &changes {
            let bindings = self.bindings(user);
            if let Some(binding) = change.target(bindings).and_then(|at| bindings.get(at)) {
                check_order(binding, request)?;
            }
        }
        let mut bindings = self.bindings(user).to_vec();
        let mut events = Vec::new();
        let mut last_id = self.last_id;
        for change in changes {
            let before = change.target(&bindings).map(|at| bindings.remove(at));
            let is_removed = change.expires.is_zero();
            let is_same = before.as_ref().is_some_and(|it| it.contact.is_equivalent(&change.uri));
            if let Some(before) = &before
                && (is_removed || !is_same)
            {
                events.push(Event::Unbound {
                    user: user.to_owned(),
                    contact: before.contact.clone(),
                    cause: if is_removed { Cause::Removed } else { Cause::Replaced },
                });
            }
            if is_removed {
                continue;
            }
            let (user_name, contact) = (user.to_owned(), change.uri.clone());
            let place = Some(PhoneSource::of(path));
            let path = change.way(routes, path);
            if !is_same {
                events.push(Event::Bound { user: user_name, contact, path });
            } else if before.is_some_and(|before| before.path.peer != path.peer) {
                events.push(Event::Moved { user: user_name, contact, path });
            }
            last_id += 1;
            bindings.push(Binding {
                id: BindingId(last_id),
                contact: change.uri,
                q: change.q,
                expires_at: now + change.expires,
                updated_at: now,
                routes: routes.to_vec(),
                outbound: change.outbound,
                instance: change.instance,
                path,
                other_path: None,
                place,
                user_agent: request
                    .header("User-Agent")
                    .map(|name| name.chars().take(128).collect()),
                call_id: request.call_id().to_owned(),
                cseq: request.cseq().number,
            });
        }
        while bindings.len() > self.config.max_contacts {
            let Some(at) = self.dispensable(&bindings) else {
                return Err(Refusal::new(Status::FORBIDDEN, "Too Many Contacts"));
            };
            let contact = bindings.remove(at).contact;
            let user = user.to_owned();
            events.push(Event::Unbound { user, contact, cause: Cause::Replaced });
        }
        self.last_id = last_id;
        self.events.extend(events);
        self.replace(user, bindings);
        Ok(())
    }

    /// Index of the binding that has to make room for the new ones: an old binding of the same
    /// phone, else the one that was updated longest ago. A phone may register another contact after
    /// each restart.
    fn dispensable(&self, bindings: &[Binding]) -> Option<usize> {
        let is_old = |it: &Binding| it.id.0 <= self.last_id;
        let has_come = |instance: &Option<String>| {
            instance.is_some() && bindings.iter().any(|it| !is_old(it) && it.instance == *instance)
        };
        let same_phone = bindings.iter().position(|it| is_old(it) && has_come(&it.instance));
        // Updated bindings are moved to the end.
        same_phone.or_else(|| bindings.iter().position(is_old))
    }

    /// Keeps only some bindings of a user.
    fn retain(&mut self, user: &str, cause: Cause, is_kept: impl Fn(&Binding) -> bool) {
        let (kept, gone): (Vec<Binding>, Vec<Binding>) =
            self.bindings(user).iter().cloned().partition(is_kept);
        for binding in gone {
            let contact = binding.contact;
            self.events.push_back(Event::Unbound { user: user.to_owned(), contact, cause });
        }
        self.replace(user, kept);
    }

    fn replace(&mut self, user: &str, bindings: Vec<Binding>) {
        for old in self.users.remove(user).unwrap_or_default() {
            if let Some(place) = old.place
                && let Some(count) = self.places.get_mut(&place)
            {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    self.places.remove(&place);
                }
            }
            self.owners.remove(&old.id);
            self.schedule.set(old.id, None);
        }
        for binding in &bindings {
            if let Some(place) = binding.place {
                *self.places.entry(place).or_default() += 1;
            }
            self.owners.insert(binding.id, user.to_owned());
            self.schedule.set(binding.id, Some(binding.expires_at));
        }
        if !bindings.is_empty() {
            self.users.insert(user.to_owned(), bindings);
        }
    }
}

/// With the same Call-ID, only a higher CSeq may change a binding (RFC 3261 §10.3, step 7).
fn check_order(binding: &Binding, request: &Request) -> Result<(), Refusal> {
    let is_late = binding.call_id == request.call_id() && binding.cseq >= request.cseq().number;
    if is_late { Err(Refusal::new(Status::BAD_REQUEST, "CSeq Is Not Higher")) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
