//! Finds the targets of a request (RFC 3263): from a URI to addresses, in the order in which to try
//! them.
//!
//! Comes in: a URI, the transports that we can send over, and the answers to DNS questions. Goes
//! out: the next question, and in the end the targets. This module sends no DNS queries itself.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
};

use rand::{Rng, rngs::StdRng};

use super::{path::Transport, uri::Uri};

/// Most targets of one request; more would take minutes to try.
const MAX_TARGETS: usize = 8;
/// Most questions for one request: enough for NAPTR, three services and the hosts of each.
const MAX_QUESTIONS: usize = 32;
/// Most records of one answer that are used.
const MAX_RECORDS: usize = 32;

/// One address to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The address.
    pub address: SocketAddr,
    /// The transport.
    pub transport: Transport,
    /// The name that the TLS certificate has to match: the host of the URI (RFC 5922 §4).
    pub host: String,
}

/// A transport that we can send over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Available {
    /// The transport.
    pub transport: Transport,
    /// Whether it can send to IPv4 addresses.
    pub by_ipv4: bool,
    /// Whether it can send to IPv6 addresses.
    pub by_ipv6: bool,
}

/// A question to the DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// The transports of a domain.
    Naptr(String),
    /// The hosts that serve a domain.
    Srv(String),
    /// The addresses of a host, IPv6 and IPv4, in the order that the system prefers.
    Addresses(String),
}

/// The answer of the DNS; empty when there are no records, or no server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// To [`Question::Naptr`].
    Naptr(Vec<Naptr>),
    /// To [`Question::Srv`].
    Srv(Vec<Srv>),
    /// To [`Question::Addresses`].
    Addresses(Vec<IpAddr>),
}

/// One NAPTR record (RFC 3403), as far as SIP uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naptr {
    /// The lowest comes first.
    pub order: u16,
    /// Among equals, the lowest comes first.
    pub preference: u16,
    /// A service such as `SIP+D2U`.
    pub service: String,
    /// The name to ask for SRV records.
    pub replacement: String,
}

/// One SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// The lowest comes first.
    pub priority: u16,
    /// Among equals, a higher weight is chosen more often.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host; `.` means that there is no such service.
    pub target: String,
}

/// Finds the targets of one URI.
#[derive(Debug)]
pub struct Locator {
    host: String,
    port: Option<u16>,
    /// Transports that may be used, the preferred one first.
    transports: Vec<Transport>,
    /// Transports that we have listeners for.
    available: Vec<Available>,
    /// The transport to use when no record names one.
    fallback: Transport,
    steps: VecDeque<LocateStep>,
    asked: usize,
    targets: Vec<Target>,
}

/// The next question to ask.
#[derive(Debug)]
enum LocateStep {
    Naptr,
    Srv {
        name: String,
        transport: Transport,
    },
    /// The addresses of a host. Those of the domain itself are a `last_resort`, for a domain
    /// without services (§4.2).
    Addresses {
        host: String,
        port: u16,
        transport: Transport,
        last_resort: bool,
    },
}

impl Locator {
    /// Begins with a URI; `available` are the transports that we can send over. WS and WSS are
    /// never chosen: a peer that only waits for calls accepts no connections over them.
    pub fn new(uri: &Uri, available: &[Available]) -> Self {
        let is_secure = uri.scheme() == "sips";
        let named = uri.param("transport").and_then(Transport::from_name);
        let host = uri.param("maddr").or(uri.host()).unwrap_or_default();
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let may_use = |transport: &Transport| {
            available.iter().any(|sender| sender.transport == *transport)
                && matches!(transport, Transport::Udp | Transport::Tcp | Transport::Tls)
                && (transport.is_secure() || !is_secure)
        };
        // RFC 3263 §4.1: `sips` with `transport=tcp` means TLS.
        let named = match named {
            Some(Transport::Tcp) if is_secure => Some(Transport::Tls),
            named => named,
        };
        let transports: Vec<Transport> = match named {
            Some(transport) => Some(transport).filter(may_use).into_iter().collect(),
            None => [Transport::Udp, Transport::Tcp, Transport::Tls]
                .into_iter()
                .filter(may_use)
                .collect(),
        };
        let fallback = match (named, transports.first()) {
            (Some(transport), _) | (None, Some(&transport)) => transport,
            (None, None) => Transport::Udp,
        };
        let mut locator = Self {
            host,
            port: uri.port(),
            transports,
            available: available.to_vec(),
            fallback,
            steps: VecDeque::new(),
            asked: 0,
            targets: Vec::new(),
        };
        locator.begin(named);
        locator
    }

    fn begin(&mut self, named: Option<Transport>) {
        if self.transports.is_empty() || self.host.is_empty() {
            return;
        }
        let transport = self.fallback;
        let port = self.port.unwrap_or(transport.default_port());
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse() {
            self.add(ip, port, transport);
        } else if let Some(port) = self.port {
            let host = self.host.clone();
            self.steps.push_back(LocateStep::Addresses {
                host,
                port,
                transport,
                last_resort: false,
            });
        } else if let Some(transport) = named {
            self.look_for_service(transport);
            self.look_for_host();
        } else {
            self.steps.push_back(LocateStep::Naptr);
        }
    }

    /// The next question to ask; `None` when there is none left.
    pub fn question(&self) -> Option<Question> {
        Some(match self.steps.front()? {
            LocateStep::Naptr => Question::Naptr(self.host.clone()),
            LocateStep::Srv { name, .. } => Question::Srv(name.clone()),
            LocateStep::Addresses { host, .. } => Question::Addresses(host.clone()),
        })
    }

    /// Takes the answer to the current question.
    pub fn answer(&mut self, reply: Reply, rng: &mut StdRng) {
        match (self.steps.pop_front(), reply) {
            (Some(LocateStep::Naptr), Reply::Naptr(records)) => self.follow_naptr(records),
            (Some(LocateStep::Srv { transport, .. }), Reply::Srv(records)) => {
                self.follow_srv(records, transport, rng);
            }
            (Some(LocateStep::Addresses { port, transport, .. }), Reply::Addresses(addresses)) => {
                for ip in addresses.into_iter().take(MAX_RECORDS) {
                    self.add(ip, port, transport);
                }
            }
            (step, reply) => debug_assert!(false, "{reply:?} answers {step:?}"),
        }
        // The addresses of a domain itself are only for domains without services (§4.2).
        if !self.targets.is_empty() {
            self.steps
                .retain(|step| !matches!(step, LocateStep::Addresses { last_resort: true, .. }));
        }
        self.asked += 1;
        if self.targets.len() >= MAX_TARGETS || self.asked >= MAX_QUESTIONS {
            self.steps.clear();
        }
    }

    /// The targets, the best one first.
    pub fn finish(self) -> Vec<Target> {
        self.targets
    }

    fn follow_naptr(&mut self, mut records: Vec<Naptr>) {
        records.truncate(MAX_RECORDS);
        records.sort_by_key(|record| (record.order, record.preference));
        let mut found = false;
        for Naptr { service, replacement, .. } in records {
            let Some(transport) = transport_of(&service) else { continue };
            if self.transports.contains(&transport) {
                found = true;
                self.steps.push_back(LocateStep::Srv { name: replacement, transport });
            }
        }
        if !found {
            for transport in self.transports.clone() {
                self.look_for_service(transport);
            }
        }
        self.look_for_host();
    }

    /// Orders the records by priority; among equals at random, a higher weight more often first
    /// (RFC 2782).
    fn follow_srv(&mut self, mut records: Vec<Srv>, transport: Transport, rng: &mut StdRng) {
        records.truncate(MAX_RECORDS);
        // RFC 2782: `.` says that the domain has no such service, so the domain's own address has
        // none either.
        if transport == self.fallback
            && !records.is_empty()
            && records.iter().all(|record| record.target.trim_end_matches('.').is_empty())
        {
            self.steps
                .retain(|step| !matches!(step, LocateStep::Addresses { last_resort: true, .. }));
        }
        records.retain(|record| !record.target.trim_end_matches('.').is_empty());
        let mut ordered = Vec::with_capacity(records.len());
        while let Some(priority) = records.iter().map(|record| record.priority).min() {
            let equals = || records.iter().enumerate().filter(|(_, r)| r.priority == priority);
            let total: u32 = equals().map(|(_, record)| u32::from(record.weight)).sum();
            let mut roll = rng.random_range(0..=total);
            let chosen = equals().find(|(_, record)| {
                let is_it = roll <= u32::from(record.weight);
                roll = roll.saturating_sub(record.weight.into());
                is_it
            });
            let Some((index, _)) = chosen else { break };
            ordered.push(records.remove(index));
        }
        for record in ordered.into_iter().rev() {
            let host = record.target.trim_end_matches('.').to_ascii_lowercase();
            let port = record.port;
            let last_resort = false;
            self.steps.push_front(LocateStep::Addresses { host, port, transport, last_resort });
        }
    }

    fn look_for_service(&mut self, transport: Transport) {
        let name = match transport {
            Transport::Udp => format!("_sip._udp.{}", self.host),
            Transport::Tcp => format!("_sip._tcp.{}", self.host),
            Transport::Tls => format!("_sips._tcp.{}", self.host),
            Transport::Ws | Transport::Wss => return,
        };
        self.steps.push_back(LocateStep::Srv { name, transport });
    }

    fn look_for_host(&mut self) {
        let (host, transport) = (self.host.clone(), self.fallback);
        let port = transport.default_port();
        self.steps.push_back(LocateStep::Addresses { host, port, transport, last_resort: true });
    }

    fn add(&mut self, ip: IpAddr, port: u16, transport: Transport) {
        let address = SocketAddr::new(ip, port);
        let target = Target { address, transport, host: self.host.clone() };
        let can_send = |sender: &Available| {
            sender.transport == transport
                && if ip.is_ipv6() { sender.by_ipv6 } else { sender.by_ipv4 }
        };
        if !self.available.iter().any(can_send) {
            return;
        }
        if self.targets.len() < MAX_TARGETS && !self.targets.contains(&target) {
            self.targets.push(target);
        }
    }
}

/// The transport of a NAPTR service (RFC 3263 §4.1).
fn transport_of(service: &str) -> Option<Transport> {
    [("SIP+D2U", Transport::Udp), ("SIP+D2T", Transport::Tcp), ("SIPS+D2T", Transport::Tls)]
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(service))
        .map(|(_, transport)| transport)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::SeedableRng;

    use super::*;

    const fn by(transport: Transport) -> Available {
        Available { transport, by_ipv4: true, by_ipv6: true }
    }

    const UDP: Available = by(Transport::Udp);
    const TCP: Available = by(Transport::Tcp);
    const ALL: [Available; 3] = [UDP, TCP, by(Transport::Tls)];

    /// A DNS as a table, and the questions that it was asked.
    #[derive(Default)]
    struct Zone {
        naptr: Vec<Naptr>,
        srv: BTreeMap<&'static str, Vec<Srv>>,
        hosts: BTreeMap<&'static str, Vec<IpAddr>>,
        asked: Vec<String>,
    }

    impl Zone {
        fn srv(mut self, name: &'static str, records: &[(u16, u16, u16, &str)]) -> Self {
            let records = records.iter().map(|(priority, weight, port, target)| Srv {
                priority: *priority,
                weight: *weight,
                port: *port,
                target: (*target).to_owned(),
            });
            self.srv.insert(name, records.collect());
            self
        }

        fn host(mut self, name: &'static str, addresses: &[&str]) -> Self {
            self.hosts.insert(name, addresses.iter().map(|ip| ip.parse().unwrap()).collect());
            self
        }

        fn naptr(mut self, order: u16, service: &str, replacement: &str) -> Self {
            self.naptr.push(Naptr {
                order,
                preference: 50,
                service: service.to_owned(),
                replacement: replacement.to_owned(),
            });
            self
        }

        fn locate(&mut self, uri: &str, available: &[Available]) -> Vec<String> {
            let mut rng = StdRng::seed_from_u64(1);
            let mut locator = Locator::new(&uri.parse().unwrap(), available);
            while let Some(question) = locator.question() {
                self.asked.push(format!("{question:?}"));
                assert!(self.asked.len() < 100, "it asks for ever: {:?}", self.asked);
                let reply = match question {
                    Question::Naptr(_) => Reply::Naptr(self.naptr.clone()),
                    Question::Srv(name) => {
                        Reply::Srv(self.srv.get(name.as_str()).cloned().unwrap_or_default())
                    }
                    Question::Addresses(name) => {
                        Reply::Addresses(self.hosts.get(name.as_str()).cloned().unwrap_or_default())
                    }
                };
                locator.answer(reply, &mut rng);
            }
            let targets = locator.finish().into_iter();
            targets
                .map(|target| format!("{} {}", target.transport.name(), target.address))
                .collect()
        }
    }

    #[test]
    fn an_address_is_asked_of_nobody() {
        for (uri, expected) in [
            ("sip:192.0.2.1", "UDP 192.0.2.1:5060"),
            ("sip:a@192.0.2.1:5070;transport=tcp", "TCP 192.0.2.1:5070"),
            ("sips:192.0.2.1", "TLS 192.0.2.1:5061"),
            ("sip:[2001:db8::1]", "UDP [2001:db8::1]:5060"),
            ("sip:a.example;maddr=192.0.2.9", "UDP 192.0.2.9:5060"),
        ] {
            let mut zone = Zone::default();
            assert_eq!(zone.locate(uri, &ALL), [expected], "{uri}");
            assert!(zone.asked.is_empty());
        }
    }

    #[test]
    fn a_port_means_that_only_addresses_are_asked_for() {
        let mut zone = Zone::default().host("pbx.example", &["2001:db8::5", "192.0.2.5"]);
        let targets = zone.locate("sip:pbx.example:5080", &ALL);
        assert_eq!(targets, ["UDP [2001:db8::5]:5080", "UDP 192.0.2.5:5080"]);
        assert_eq!(zone.asked.len(), 1);
    }

    #[test]
    fn the_example_of_section_4_1_prefers_tls() {
        let mut zone = Zone::default()
            .naptr(90, "SIP+D2T", "_sip._tcp.example.com")
            .naptr(50, "SIPS+D2T", "_sips._tcp.example.com")
            .naptr(100, "SIP+D2U", "_sip._udp.example.com")
            .srv("_sips._tcp.example.com", &[(1, 0, 5061, "s1.example.com.")])
            .srv("_sip._tcp.example.com", &[(2, 0, 5060, "S2.example.com")])
            .host("s1.example.com", &["192.0.2.1"])
            .host("s2.example.com", &["192.0.2.2"]);
        let uri = "sip:user@example.com";
        let targets = zone.locate(uri, &ALL);
        assert_eq!(targets, ["TLS 192.0.2.1:5061", "TCP 192.0.2.2:5060"]);
        assert_eq!(zone.locate(uri, &[UDP, TCP]), ["TCP 192.0.2.2:5060"]);
        assert_eq!(zone.locate("sips:example.com", &ALL), ["TLS 192.0.2.1:5061"]);
    }

    #[test]
    fn without_naptr_the_services_of_what_we_speak_are_looked_for() {
        let mut zone = Zone::default()
            .srv("_sip._udp.a.example", &[(20, 0, 5060, "b.example"), (10, 0, 5070, "c.example")])
            .srv("_sip._tcp.a.example", &[(0, 0, 0, ".")])
            .host("b.example", &["192.0.2.2"])
            .host("c.example", &["192.0.2.3"]);
        let targets = zone.locate("sip:a.example", &ALL);
        assert_eq!(targets, ["UDP 192.0.2.3:5070", "UDP 192.0.2.2:5060"]);
        assert!(zone.asked.iter().all(|question| !question.contains("Addresses(\"a.example")));
    }

    #[test]
    fn a_domain_that_says_it_has_no_service_is_no_host() {
        let mut zone = Zone::default()
            .srv("_sip._udp.a.example", &[(0, 0, 0, ".")])
            .host("a.example", &["192.0.2.4"]);
        assert!(zone.locate("sip:a.example;transport=udp", &ALL).is_empty());
        assert!(zone.locate("sip:a.example", &ALL).is_empty());
        assert_eq!(zone.locate("sip:a.example;transport=tcp", &ALL), ["TCP 192.0.2.4:5060"]);
        let mut zone = Zone::default()
            .naptr(10, "SIP+D2U", "_sip._udp.a.example")
            .srv("_sip._udp.a.example", &[(0, 0, 0, ".")])
            .srv("_sip._tcp.a.example", &[(0, 0, 5060, "a.example")])
            .host("a.example", &["192.0.2.4"]);
        assert!(zone.locate("sip:a.example", &ALL).is_empty());
    }

    #[test]
    fn a_domain_without_services_is_a_host() {
        let mut zone = Zone::default().host("a.example", &["192.0.2.4"]);
        assert_eq!(zone.locate("sip:a.example", &ALL), ["UDP 192.0.2.4:5060"]);
        assert_eq!(zone.locate("sip:a.example;transport=tls", &ALL), ["TLS 192.0.2.4:5061"]);
        assert_eq!(zone.locate("sips:a.example;transport=tcp", &ALL), ["TLS 192.0.2.4:5061"]);
    }

    #[test]
    fn what_we_cannot_send_by_leads_nowhere() {
        let mut zone = Zone::default().host("a.example", &["192.0.2.4"]);
        assert!(zone.locate("sips:a.example", &[UDP]).is_empty());
        assert!(zone.locate("sip:a.example;transport=ws", &ALL).is_empty());
        assert!(zone.locate("sip:a.example;transport=sctp", &ALL).len() == 1, "as if not said");
        assert!(zone.locate("tel:+1", &ALL).is_empty());
        assert!(zone.locate("sip:nobody.example", &ALL).is_empty());
    }

    #[test]
    fn the_heavier_of_equals_comes_first_more_often() {
        let mut rng = StdRng::seed_from_u64(1);
        let record = |weight, target: &str| Srv {
            priority: 1,
            weight,
            port: 5060,
            target: target.to_owned(),
        };
        let mut first = 0;
        for _ in 0..1_000 {
            let uri = "sip:a.example;transport=udp".parse().unwrap();
            let mut locator = Locator::new(&uri, &ALL);
            let records = vec![record(10, "light"), record(90, "heavy")];
            locator.answer(Reply::Srv(records), &mut rng);
            first += usize::from(locator.question() == Some(Question::Addresses("heavy".into())));
        }
        assert!((850..950).contains(&first), "{first}");
    }

    #[test]
    fn every_service_is_tried_though_it_is_served_by_the_domain_itself() {
        let mut zone = Zone::default()
            .srv(
                "_sip._udp.a.example",
                &[(10, 0, 5060, "sbc.a.example"), (20, 0, 5062, "a.example")],
            )
            .srv("_sip._tcp.a.example", &[(10, 0, 5064, "a.example")])
            .host("sbc.a.example", &["192.0.2.1"])
            .host("a.example", &["192.0.2.2"]);
        assert_eq!(
            zone.locate("sip:a.example", &[UDP, TCP]),
            ["UDP 192.0.2.1:5060", "UDP 192.0.2.2:5062", "TCP 192.0.2.2:5064"]
        );
    }

    #[test]
    fn addresses_that_we_cannot_send_to_take_no_place() {
        let many: Vec<String> = (1..20).map(|n| format!("2001:db8::{n}")).collect();
        let mut addresses: Vec<&str> = many.iter().map(String::as_str).collect();
        addresses.push("192.0.2.4");
        let mut zone = Zone::default().host("a.example", &addresses);
        let udp4 = Available { by_ipv6: false, ..UDP };
        assert_eq!(zone.locate("sip:a.example", &[udp4]), ["UDP 192.0.2.4:5060"]);
    }

    #[test]
    fn a_flood_of_records_is_cut() {
        let many: Vec<IpAddr> = (0..200).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        let mut zone = Zone::default();
        zone.hosts.insert("a.example", many);
        assert_eq!(zone.locate("sip:a.example", &ALL).len(), MAX_TARGETS);
        let records: Vec<(u16, u16, u16, &str)> = vec![(1, 1, 1, "b.example"); 1_000];
        let mut zone = Zone::default().srv("_sip._udp.a.example", &records);
        assert!(zone.locate("sip:a.example;transport=udp", &ALL).is_empty());
        assert!(zone.asked.len() <= MAX_QUESTIONS);
    }
}
