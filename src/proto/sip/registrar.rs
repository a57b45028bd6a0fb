//! Which phones are where: the registrar (RFC 3261 §10.3) with Path (RFC 3327) and as much of
//! Outbound (RFC 5626) as phones use.
//!
//! Comes in: REGISTER requests of users who have proved who they are, time, streams that have gone.
//! Goes out: what to answer, and where a user can be reached. It holds everything in memory: after a
//! restart a phone is found again when it registers next.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    message::{NameAddr, Request, parse_number},
    path::{ConnectionId, Path, Transport},
    uri::{Uri, split_top_level},
};

/// RFC 3261 §10.2.1.1: when the phone does not say how long.
const DEFAULT_EXPIRES: u32 = 3_600;
/// RFC 3261 §10.3, 7: shorter is refused with 423.
const MIN_EXPIRES: u32 = 60;
/// Longer is shortened, so that what is gone is forgotten.
const MAX_EXPIRES: u32 = 7_200;
/// Phones of one user.
const MAX_BINDINGS: usize = 10;
/// Proxies between a phone and us.
const MAX_PATHS: usize = 8;

/// Where one phone of a user is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Its address, as it gave it.
    pub contact: Uri,
    /// The proxies that lead to it, the next one first (RFC 3327).
    pub routes: Vec<NameAddr>,
    /// Which way its REGISTER came: the way back through any NAT.
    pub path: Path,
    /// From 0 to 1,000; the phone with the highest is called first.
    preference: u16,
    /// The phone and its flow (RFC 5626 §4.1), if it says.
    flow: Option<(String, u32)>,
    call_id: String,
    cseq: u32,
    expires: Instant,
}

/// What a REGISTER is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200, or why not.
    pub status: u16,
    /// Further header fields: name and value.
    pub headers: Vec<(String, String)>,
}

impl Reply {
    fn refusal(status: u16) -> Self {
        Self { status, headers: Vec::new() }
    }
}

/// All phones of all users.
#[derive(Debug, Default)]
pub struct Registrar {
    bindings: BTreeMap<String, Vec<Binding>>,
}

impl Registrar {
    /// Takes a REGISTER of `user` that came over `path`. Either all of it is done or nothing.
    pub fn handle_register(
        &mut self,
        user: &str,
        request: &Request,
        path: Path,
        now: Instant,
    ) -> Reply {
        self.forget_expired(now);
        let mut bindings = self.bindings.get(user).cloned().unwrap_or_default();
        let updated = match request.headers("Contact").any(|value| value == "*") {
            true => remove_all(&mut bindings, request),
            false => update(&mut bindings, request, path, now),
        };
        if let Err(refusal) = updated {
            return refusal;
        }
        let headers = shown(&bindings, request, now);
        match bindings.is_empty() {
            true => self.bindings.remove(user),
            false => self.bindings.insert(user.to_owned(), bindings),
        };
        Reply { status: 200, headers }
    }

    /// Where `user` can be reached, the best place first.
    pub fn find(&self, user: &str, now: Instant) -> Vec<Binding> {
        let mut found: Vec<Binding> = self.bindings.get(user).cloned().unwrap_or_default();
        found.retain(|binding| binding.expires > now);
        // Among equals the newest: the others may be what is left of it.
        found.reverse();
        found.sort_by_key(|binding| std::cmp::Reverse(binding.preference));
        found
    }

    /// A stream has gone: who can be reached by nothing else is not there any more.
    pub fn handle_disconnected(&mut self, connection: ConnectionId) {
        for bindings in self.bindings.values_mut() {
            bindings.retain(|binding| {
                let needs_stream = binding.flow.is_some()
                    || matches!(binding.path.transport, Transport::Ws | Transport::Wss);
                binding.path.connection != Some(connection) || !needs_stream
            });
        }
        self.bindings.retain(|_, bindings| !bindings.is_empty());
    }

    /// A phone is reached by this stream.
    pub fn needs(&self, connection: ConnectionId) -> bool {
        let mut all = self.bindings.values().flatten();
        all.any(|binding| binding.path.connection == Some(connection))
    }

    /// These are all users that there are; the others are not there any more.
    pub fn retain_users(&mut self, is_user: impl Fn(&str) -> bool) {
        self.bindings.retain(|user, _| is_user(user));
    }

    fn forget_expired(&mut self, now: Instant) {
        for bindings in self.bindings.values_mut() {
            bindings.retain(|binding| binding.expires > now);
        }
        self.bindings.retain(|_, bindings| !bindings.is_empty());
    }
}

/// §10.2.2: `Contact: *` stands for all, and is only for removing.
fn remove_all(bindings: &mut Vec<Binding>, request: &Request) -> Result<(), Reply> {
    let is_alone = request.headers("Contact").nth(1).is_none();
    if !is_alone || header_expires(request) != Some(0) {
        return Err(Reply::refusal(400));
    }
    if bindings.iter().any(|binding| is_old(binding, request)) {
        return Err(Reply::refusal(500));
    }
    bindings.clear();
    Ok(())
}

fn update(
    bindings: &mut Vec<Binding>,
    request: &Request,
    path: Path,
    now: Instant,
) -> Result<(), Reply> {
    let routes = paths(request).ok_or_else(|| Reply::refusal(400))?;
    for contact in request.contacts() {
        let expires = contact.param("expires").map_or_else(
            || header_expires(request).unwrap_or(DEFAULT_EXPIRES),
            // §20.10: what cannot be read counts as 3600.
            |value| parse_number(value).unwrap_or(DEFAULT_EXPIRES),
        );
        if (1..MIN_EXPIRES).contains(&expires) {
            let least = ("Min-Expires".to_owned(), MIN_EXPIRES.to_string());
            return Err(Reply { status: 423, headers: vec![least] });
        }
        let flow = flow_of(contact);
        let known = bindings.iter().position(|binding| match (&binding.flow, &flow) {
            (Some(known), Some(flow)) => known == flow,
            _ => binding.contact == *contact.uri(),
        });
        if let Some(known) = known {
            if bindings.get(known).is_some_and(|binding| is_old(binding, request)) {
                return Err(Reply::refusal(500));
            }
            bindings.remove(known);
        }
        if expires == 0 {
            continue;
        }
        if bindings.len() >= MAX_BINDINGS {
            return Err(Reply::refusal(403));
        }
        bindings.push(Binding {
            contact: contact.uri().clone(),
            routes: routes.clone(),
            path,
            preference: preference(contact),
            flow,
            call_id: request.call_id().to_owned(),
            cseq: request.cseq().number,
            expires: now + Duration::from_secs(expires.min(MAX_EXPIRES).into()),
        });
    }
    Ok(())
}

/// §10.3, 7: a request of the same phone that was sent before the one that we know.
fn is_old(binding: &Binding, request: &Request) -> bool {
    binding.call_id == request.call_id() && binding.cseq >= request.cseq().number
}

fn header_expires(request: &Request) -> Option<u32> {
    request.header("Expires").map(|value| parse_number(value).unwrap_or(DEFAULT_EXPIRES))
}

/// RFC 5626 §4.1, §4.2: `+sip.instance` and `reg-id`.
fn flow_of(contact: &NameAddr) -> Option<(String, u32)> {
    let instance = contact.param("+sip.instance")?.trim_matches('"').to_owned();
    let number = contact.param("reg-id").and_then(parse_number)?;
    Some((instance, number))
}

/// `q` in thousandths (§20.10); 1 when there is none.
fn preference(contact: &NameAddr) -> u16 {
    let Some(q) = contact.param("q") else { return 1_000 };
    let (whole, part) = q.split_once('.').unwrap_or((q, ""));
    if whole != "0" {
        return 1_000;
    }
    let digits: String = part.chars().chain("000".chars()).take(3).collect();
    digits.parse().unwrap_or(0)
}

/// The Path header fields, the next hop first.
fn paths(request: &Request) -> Option<Vec<NameAddr>> {
    let values = request.headers("Path").flat_map(|value| split_top_level(value, ','));
    let routes: Vec<NameAddr> =
        values.map(|value| value.trim().parse().ok()).collect::<Option<_>>()?;
    (routes.len() <= MAX_PATHS).then_some(routes)
}

/// The header fields of the 200 (§10.3, 8): all that is known of the user.
fn shown(bindings: &[Binding], request: &Request, now: Instant) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = bindings
        .iter()
        .map(|binding| {
            let left = binding.expires.saturating_duration_since(now).as_secs_f64().ceil();
            let mut value = format!("<{}>;expires={left}", binding.contact);
            if let Some((instance, number)) = &binding.flow {
                value.push_str(&format!(";+sip.instance=\"{instance}\";reg-id={number}"));
            }
            ("Contact".to_owned(), value)
        })
        .collect();
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for path in request.headers("Path") {
        headers.push(header("Path", path));
    }
    let has_flow = request.contacts().iter().any(|contact| flow_of(contact).is_some());
    // RFC 5626 §6: only when we are the phone's first hop, so that its flow ends at us.
    let is_first_hop = request.vias().len() == 1;
    if has_flow && is_first_hop && request.lists("Supported", "outbound") {
        headers.push(header("Require", "outbound"));
    }
    headers.push(header("Supported", "path, outbound"));
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sip::{message::Message, wire::parse_datagram};

    fn register(cseq: u32, more: &str) -> Request {
        let text = format!(
            "REGISTER sip:pbx.example SIP/2.0\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK1\r\n\
             From: <sip:alice@pbx.example>;tag=1\r\nTo: <sip:alice@pbx.example>\r\n\
             Call-ID: x\r\nCSeq: {cseq} REGISTER\r\n{more}\r\n"
        );
        match parse_datagram(text.as_bytes()).unwrap() {
            Message::Request(request) => request,
            Message::Response(_) => unreachable!("it is a request"),
        }
    }

    fn path() -> Path {
        Path::udp("192.0.2.1:5060".parse().unwrap(), "198.51.100.7:40000".parse().unwrap())
    }

    struct Desk {
        registrar: Registrar,
        now: Instant,
        cseq: u32,
    }

    impl Desk {
        fn new() -> Self {
            Self { registrar: Registrar::default(), now: Instant::now(), cseq: 0 }
        }

        fn register(&mut self, more: &str) -> Reply {
            self.cseq += 1;
            let request = register(self.cseq, more);
            self.registrar.handle_register("alice", &request, path(), self.now)
        }

        fn contacts(&self) -> Vec<String> {
            let found = self.registrar.find("alice", self.now);
            found.iter().map(|binding| binding.contact.to_string()).collect()
        }
    }

    fn values<'a>(reply: &'a Reply, name: &str) -> Vec<&'a str> {
        let named = reply.headers.iter().filter(|(known, _)| known == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    #[test]
    fn a_phone_is_found_until_its_time_is_over() {
        let mut desk = Desk::new();
        let reply = desk.register("Contact: <sip:alice@10.0.0.7:5062>\r\nExpires: 90\r\n");
        assert_eq!(reply.status, 200);
        assert_eq!(values(&reply, "Contact"), ["<sip:alice@10.0.0.7:5062>;expires=90"]);
        let binding = desk.registrar.find("alice", desk.now).remove(0);
        assert_eq!(binding.path, path(), "the way back through the NAT");
        desk.now += Duration::from_secs(89);
        assert_eq!(desk.contacts().len(), 1);
        desk.now += Duration::from_secs(1);
        assert!(desk.contacts().is_empty());
        assert!(desk.registrar.find("bob", desk.now).is_empty());
    }

    #[test]
    fn the_time_is_asked_for_three_ways_and_limited() {
        for (contact, expected) in [
            ("Contact: <sip:a@b>;expires=300\r\nExpires: 90\r\n", "300"),
            ("Contact: <sip:a@b>\r\n", "3600"),
            ("Contact: <sip:a@b>;expires=soon\r\n", "3600"),
            ("Contact: <sip:a@b>\r\nExpires: 99999999\r\n", "7200"),
        ] {
            let reply = Desk::new().register(contact);
            assert_eq!(values(&reply, "Contact"), [format!("<sip:a@b>;expires={expected}")]);
        }
        let brief = Desk::new().register("Contact: <sip:a@b>\r\nExpires: 59\r\n");
        assert_eq!((brief.status, values(&brief, "Min-Expires")), (423, vec!["60"]));
    }

    #[test]
    fn phones_are_refreshed_removed_and_asked_for() {
        let mut desk = Desk::new();
        desk.register("Contact: <sip:a@b>\r\n");
        desk.register("Contact: <sip:a@c>;q=0.5\r\n");
        desk.register("Contact: <sip:a@b>\r\n");
        assert_eq!(desk.contacts(), ["sip:a@b", "sip:a@c"], "the preferred one first");
        let asked = desk.register("");
        assert_eq!(values(&asked, "Contact").len(), 2);
        desk.register("Contact: <sip:a@b>\r\nExpires: 0\r\n");
        assert_eq!(desk.contacts(), ["sip:a@c"]);
        assert_eq!(desk.register("Contact: *\r\nExpires: 60\r\n").status, 400);
        assert_eq!(desk.register("Contact: *, <sip:a@b>\r\nExpires: 0\r\n").status, 400);
        assert_eq!(desk.register("Contact: *\r\nExpires: 0\r\n").status, 200);
        assert!(desk.contacts().is_empty());
    }

    #[test]
    fn what_was_overtaken_changes_nothing() {
        let mut desk = Desk::new();
        desk.register("Contact: <sip:a@b>\r\n");
        desk.cseq -= 1;
        let late = desk.register("Contact: <sip:a@b>\r\nExpires: 0\r\n");
        assert_eq!(late.status, 500);
        assert_eq!(desk.contacts().len(), 1);
    }

    #[test]
    fn a_phone_that_comes_by_another_way_replaces_its_old_flow() {
        let mut desk = Desk::new();
        let flow = ";+sip.instance=\"<urn:uuid:1>\";reg-id=1";
        let outbound = "Supported: outbound\r\n";
        let reply = desk.register(&format!("Contact: <sip:a@1.1.1.1>{flow}\r\n{outbound}"));
        assert_eq!(values(&reply, "Require"), ["outbound"]);
        assert!(values(&reply, "Contact")[0].ends_with(flow), "{reply:?}");
        desk.register(&format!("Contact: <sip:a@2.2.2.2>{flow}\r\n{outbound}"));
        assert_eq!(desk.contacts(), ["sip:a@2.2.2.2"]);
    }

    #[test]
    fn the_path_to_a_phone_is_kept_and_told() {
        let mut desk = Desk::new();
        let path = "Path: <sip:p1;lr>, <sip:p2;lr>\r\n";
        let reply = desk.register(&format!("{path}Contact: <sip:a@b>\r\n"));
        assert_eq!(values(&reply, "Path"), ["<sip:p1;lr>, <sip:p2;lr>"]);
        let binding = desk.registrar.find("alice", desk.now).remove(0);
        assert_eq!(binding.routes.len(), 2);
        assert_eq!(desk.register("Path: x y\r\nContact: <sip:a@b>\r\n").status, 400);
    }

    #[test]
    fn a_browser_whose_stream_has_gone_is_not_there() {
        let mut desk = Desk::new();
        let stream = ConnectionId(7);
        for (user, transport) in [("web", Transport::Ws), ("desk", Transport::Tcp)] {
            let path = Path { transport, connection: Some(stream), ..path() };
            let request = register(1, "Contact: <sip:a@b.invalid>\r\n");
            desk.registrar.handle_register(user, &request, path, desk.now);
        }
        desk.registrar.handle_disconnected(stream);
        assert!(desk.registrar.find("web", desk.now).is_empty());
        assert_eq!(desk.registrar.find("desk", desk.now).len(), 1, "it can be connected to");
    }

    #[test]
    fn no_user_has_more_phones_than_places() {
        let mut desk = Desk::new();
        for index in 0..MAX_BINDINGS {
            desk.register(&format!("Contact: <sip:a@10.0.0.{index}>\r\n"));
        }
        assert_eq!(desk.register("Contact: <sip:a@b>\r\n").status, 403);
        assert_eq!(desk.contacts().len(), MAX_BINDINGS);
        desk.registrar.retain_users(|user| user != "alice");
        assert!(desk.contacts().is_empty());
    }
}
