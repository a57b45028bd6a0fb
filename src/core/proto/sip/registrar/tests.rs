use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::proto::sip::{message::Message, wire::parse_datagram};

const UUID: &str = "\"<urn:uuid:00000000-0000-1000-8000-000A95A0E128>\"";

/// A registrar, and the phones of alice.
struct Fixture {
    registrar: Registrar,
    now: Instant,
    path: Path,
    cseq: u32,
}

impl Fixture {
    fn new() -> Self {
        let (local, peer) = ("192.0.2.1:5060".parse().unwrap(), "192.0.2.7:5062".parse().unwrap());
        Self {
            registrar: Registrar::new(RegistrarConfig::default()),
            now: Instant::now(),
            path: Path::udp(local, peer),
            cseq: 0,
        }
    }

    /// A REGISTER of alice with these header lines; each with a higher CSeq.
    fn register(&mut self, lines: &str) -> Reply {
        self.cseq += 1;
        self.register_as("alice", "call", self.cseq, lines)
    }

    fn register_as(&mut self, user: &str, call_id: &str, cseq: u32, lines: &str) -> Reply {
        let text = format!(
            "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.7:5062;branch=z9hG4bK1\r\n\
             From: <sip:{user}@example.com>;tag=1\r\nTo: <sip:alice@example.com>\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} REGISTER\r\n{lines}\r\n",
        );
        let Ok(Message::Request(request)) = parse_datagram(text.as_bytes()) else {
            panic!("{text}")
        };
        self.registrar.handle_register(user, &request, self.path, self.now)
    }

    fn contacts(&self) -> Vec<String> {
        let bindings = self.registrar.contacts("alice", self.now);
        bindings.iter().map(|binding| binding.contact.to_string()).collect()
    }

    fn events(&mut self) -> Vec<(String, Option<Cause>)> {
        std::iter::from_fn(|| self.registrar.poll_event())
            .map(|event| match event {
                Event::Bound { contact, .. } | Event::Moved { contact, .. } => {
                    (contact.to_string(), None)
                }
                Event::Unbound { contact, cause, .. } => (contact.to_string(), Some(cause)),
            })
            .collect()
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

fn headers<'a>(reply: &'a Reply, name: &str) -> Vec<&'a str> {
    reply.headers.iter().filter(|(known, _)| *known == name).map(|(_, it)| it.as_str()).collect()
}

#[test]
fn a_phone_is_bound_for_the_time_that_it_is_told() {
    let mut fixture = Fixture::new();
    let reply = fixture.register("Contact: <sip:alice@192.0.2.7:5062>\r\nUser-Agent: phone/1\r\n");
    assert_eq!(reply.status, 200);
    assert_eq!(headers(&reply, "Contact"), ["<sip:alice@192.0.2.7:5062>;expires=3600"]);
    assert_eq!(headers(&reply, "Require"), [""; 0]);
    let binding = fixture.registrar.contacts("alice", fixture.now).remove(0);
    assert_eq!(binding.path, fixture.path);
    assert_eq!(binding.user_agent.as_deref(), Some("phone/1"));

    assert_eq!(fixture.registrar.poll_timeout(), Some(fixture.now + Duration::from_secs(3_600)));
    fixture.pass(3_600);
    assert!(fixture.contacts().is_empty());
    fixture.registrar.handle_timeout(fixture.now);
    let contact = "sip:alice@192.0.2.7:5062".to_owned();
    assert_eq!(fixture.events(), [(contact.clone(), None), (contact, Some(Cause::Expired))]);
    assert_eq!(fixture.registrar.poll_timeout(), None);
}

#[test]
fn a_phone_whose_nat_has_another_port_now_is_reached_there() {
    let mut fixture = Fixture::new();
    let contact = "Contact: <sip:alice@10.0.0.5:5062>\r\n";
    fixture.register(contact);
    fixture.events();
    fixture.register(contact);
    assert_eq!(fixture.events(), [], "it was refreshed");
    fixture.path.peer.set_port(6_000);
    fixture.register(contact);
    assert_eq!(fixture.events(), [("sip:alice@10.0.0.5:5062".to_owned(), None)]);
    let bindings = fixture.registrar.contacts("alice", fixture.now);
    assert_eq!(bindings.iter().map(|binding| binding.path).collect::<Vec<_>>(), [fixture.path]);
}

#[test]
fn the_time_of_a_contact_goes_before_that_of_the_request() {
    let mut fixture = Fixture::new();
    let reply = fixture.register(
        "Contact: <sip:a@1.1.1.1>;expires=100, <sip:a@2.2.2.2>, <sip:a@3.3.3.3>;expires=x, \
         <sip:a@4.4.4.4>;expires=99999999999\r\nExpires: 200\r\n",
    );
    let expected = [
        "<sip:a@1.1.1.1>;expires=100",
        "<sip:a@2.2.2.2>;expires=200",
        "<sip:a@3.3.3.3>;expires=3600",
        "<sip:a@4.4.4.4>;expires=7200",
    ];
    assert_eq!(headers(&reply, "Contact"), expected);
}

#[test]
fn all_bindings_are_told_with_what_is_left_of_their_time() {
    let mut fixture = Fixture::new();
    fixture.register("Contact: <sip:a@1.1.1.1>;q=0.5\r\nExpires: 100\r\n");
    fixture.pass(30);
    let reply = fixture.register("Contact: <sip:a@2.2.2.2>\r\nExpires: 100\r\n");
    let told = ["<sip:a@1.1.1.1>;expires=70;q=0.500", "<sip:a@2.2.2.2>;expires=100"];
    assert_eq!(headers(&reply, "Contact"), told);
    assert_eq!(headers(&fixture.register(""), "Contact"), told);
}

#[test]
fn refreshing_keeps_the_binding_and_is_no_event() {
    let mut fixture = Fixture::new();
    fixture.register("Contact: <sip:a@1.1.1.1>\r\nExpires: 100\r\n");
    fixture.pass(90);
    fixture.register("Contact: <sip:a@1.1.1.1;newparam=1>\r\nExpires: 100\r\n");
    fixture.pass(90);
    fixture.registrar.handle_timeout(fixture.now);
    let bindings = fixture.registrar.contacts("alice", fixture.now);
    assert_eq!(bindings.len(), 1);
    assert_eq!(fixture.events().len(), 1);
}

#[test]
fn too_short_a_time_is_refused_with_the_shortest() {
    let mut fixture = Fixture::new();
    let reply = fixture.register("Contact: <sip:a@1.1.1.1>, <sip:a@2.2.2.2>;expires=59\r\n");
    assert_eq!(reply.status, 423);
    assert_eq!(reply.headers, [("Min-Expires", "60".to_owned())]);
    assert!(fixture.contacts().is_empty(), "no change at all");
}

#[test]
fn a_phone_takes_its_contact_back() {
    let mut fixture = Fixture::new();
    fixture.register("Contact: <sip:a@1.1.1.1>, <sip:a@2.2.2.2>\r\n");
    let reply = fixture.register("Contact: <sip:a@1.1.1.1>;expires=0\r\n");
    assert_eq!(headers(&reply, "Contact"), ["<sip:a@2.2.2.2>;expires=3600"]);
    assert_eq!(fixture.register("Contact: <sip:a@9.9.9.9>\r\nExpires: 0\r\n").status, 200);
    assert_eq!(fixture.contacts(), ["sip:a@2.2.2.2"]);
}

#[test]
fn a_star_removes_all_and_stands_alone() {
    let mut fixture = Fixture::new();
    fixture.register("Contact: <sip:a@1.1.1.1>, <sip:a@2.2.2.2>\r\n");
    for lines in [
        "Contact: *\r\n",
        "Contact: *\r\nExpires: 10\r\n",
        "Contact: *, <sip:a@1.1.1.1>\r\nExpires: 0\r\n",
    ] {
        assert_eq!(fixture.register(lines).status, 400, "{lines}");
    }
    assert_eq!(fixture.contacts().len(), 2);
    let reply = fixture.register("Contact: *\r\nExpires: 0\r\n");
    assert_eq!((reply.status.code(), headers(&reply, "Contact").len()), (200, 0));
}

#[test]
fn a_request_out_of_order_changes_nothing() {
    let mut fixture = Fixture::new();
    fixture.register_as("alice", "one", 5, "Contact: <sip:a@1.1.1.1>\r\n");
    let late = "Contact: <sip:a@2.2.2.2>, <sip:a@1.1.1.1>;expires=0\r\n";
    assert_eq!(fixture.register_as("alice", "one", 5, late).status, 400);
    assert_eq!(fixture.register_as("alice", "one", 4, "Contact: *\r\nExpires: 0\r\n").status, 400);
    assert_eq!(fixture.contacts(), ["sip:a@1.1.1.1"]);
    // A phone that was restarted has another Call-ID.
    assert_eq!(fixture.register_as("alice", "two", 1, late).status, 200);
    assert_eq!(fixture.contacts(), ["sip:a@2.2.2.2"]);
}

#[test]
fn nobody_registers_for_others() {
    let mut fixture = Fixture::new();
    let reply = fixture.register_as("mallory", "call", 1, "Contact: <sip:m@6.6.6.6>\r\n");
    assert_eq!(reply.status, 403);
    assert!(fixture.contacts().is_empty());
}

#[test]
fn a_user_has_a_limited_number_of_contacts() {
    let mut fixture = Fixture::new();
    fixture.register("Contact: <sip:a@192.0.2.200>\r\n");
    fixture.events();
    let contacts = |count: usize| {
        let contacts: Vec<_> = (0..count).map(|n| format!("<sip:a@192.0.2.{n}>")).collect();
        format!("Contact: {}\r\n", contacts.join(", "))
    };
    assert_eq!(fixture.register(&contacts(11)).status, 403);
    assert_eq!((fixture.contacts().len(), fixture.events().len()), (1, 0), "no change at all");
    assert_eq!(fixture.register(&contacts(10)).status, 200);
    assert_eq!(fixture.contacts().len(), 10);
    let long = format!("Contact: <sip:a@192.0.2.9;x={}>\r\n", "y".repeat(600));
    assert_eq!(fixture.register(&long).status, 400);
    assert_eq!(fixture.register("Contact: <mailto:a@b>\r\n").status, 400);
}

#[test]
fn a_phone_that_is_started_anew_takes_the_place_of_what_was_updated_longest_ago() {
    let mut fixture = Fixture::new();
    for n in 0..10 {
        let instance = if n == 5 { format!(";+sip.instance={UUID}") } else { String::new() };
        fixture.register(&format!("Contact: <sip:a@192.0.2.{n}>{instance}\r\n"));
        fixture.pass(1);
    }
    fixture.register("Contact: <sip:a@192.0.2.0>\r\n");
    fixture.events();
    let mut take_place = |contact: &str| {
        fixture.pass(1);
        assert_eq!(fixture.register(&format!("Contact: {contact}\r\n")).status, 200);
        assert_eq!(fixture.contacts().len(), 10);
        let mut gone = fixture.events();
        gone.retain(|(_, cause)| *cause == Some(Cause::Replaced));
        gone.into_iter().map(|(contact, _)| contact).collect::<Vec<_>>()
    };
    assert_eq!(take_place("<sip:b@192.0.2.7:40001;transport=tcp>"), ["sip:a@192.0.2.1"]);
    let same_phone = format!("<sip:c@192.0.2.7:40002>;+sip.instance={UUID}");
    assert_eq!(take_place(&same_phone), ["sip:a@192.0.2.5"]);
    assert_eq!(
        take_place("<sip:d@192.0.2.7>, <sip:e@192.0.2.7>"),
        ["sip:a@192.0.2.2", "sip:a@192.0.2.3"]
    );
    assert_eq!(take_place("<sip:e@192.0.2.7>"), [""; 0]);
}

#[test]
fn the_best_contact_comes_first_and_of_equals_the_newest() {
    let mut fixture = Fixture::new();
    fixture.register("Contact: <sip:a@1.1.1.1>;q=0.7, <sip:a@2.2.2.2>;q=0.7\r\n");
    fixture.pass(1);
    fixture.register("Contact: <sip:a@3.3.3.3>;q=0.25, <sip:a@4.4.4.4>;q=1.0\r\n");
    fixture.pass(1);
    fixture.register("Contact: <sip:a@1.1.1.1>;q=0.7\r\n");
    assert_eq!(
        fixture.contacts(),
        ["sip:a@4.4.4.4", "sip:a@1.1.1.1", "sip:a@2.2.2.2", "sip:a@3.3.3.3"]
    );
}

#[test]
fn the_same_flow_of_the_same_phone_replaces_its_contact() {
    let mut fixture = Fixture::new();
    let lines = |host: &str, reg_id: u32| {
        format!(
            "Supported: path, outbound\r\n\
             Contact: <sip:a@{host}>;+sip.instance={UUID};reg-id={reg_id}\r\n"
        )
    };
    let reply = fixture.register(&lines("1.1.1.1", 1));
    assert_eq!(headers(&reply, "Require"), ["outbound"]);
    assert_eq!(headers(&reply, "Supported"), ["path, outbound"]);
    fixture.register(&lines("2.2.2.2", 2));
    fixture.pass(1);
    let reply = fixture.register(&lines("3.3.3.3", 1));
    let told = format!("<sip:a@3.3.3.3>;expires=3600;+sip.instance={UUID};reg-id=1");
    assert!(headers(&reply, "Contact").contains(&told.as_str()));
    assert_eq!(fixture.contacts(), ["sip:a@3.3.3.3", "sip:a@2.2.2.2"]);
    assert!(fixture.events().contains(&("sip:a@1.1.1.1".to_owned(), Some(Cause::Replaced))));

    assert_eq!(fixture.register(&lines("1.1.1.1", 0)).status, 400);
    let two = format!("{}{}", lines("1.1.1.1", 3), lines("1.1.1.2", 4));
    assert_eq!(fixture.register(&two).status, 400);
}

#[test]
fn a_flow_needs_a_first_hop_that_keeps_it() {
    let mut fixture = Fixture::new();
    let lines = |first_hop: &str| {
        format!(
            "Via: SIP/2.0/UDP 192.0.2.8;branch=z9hG4bK2\r\nSupported: path, outbound\r\n\
             Path: <sip:core.example;lr>, <{first_hop}>\r\n\
             Contact: <sip:a@1.1.1.1>;+sip.instance={UUID};reg-id=1\r\n"
        )
    };
    assert_eq!(fixture.register(&lines("sip:edge.example;lr")).status, 439);
    let reply = fixture.register(&lines("sip:edge.example;lr;ob"));
    assert_eq!(headers(&reply, "Path"), ["<sip:core.example;lr>", "<sip:edge.example;lr;ob>"]);
    let binding = fixture.registrar.contacts("alice", fixture.now).remove(0);
    let routes: Vec<_> = binding.routes.iter().map(|route| route.uri().host().unwrap()).collect();
    assert_eq!(routes, ["core.example", "edge.example"]);
    assert_eq!(fixture.register("Path: <sip:\r\nContact: <sip:a@1.1.1.1>\r\n").status, 400);
}

#[test]
fn what_needs_a_connection_goes_with_it() {
    let mut fixture = Fixture::new();
    fixture.register("Contact: <sip:a@1.1.1.1>\r\n");
    let connection = ConnectionId(7);
    fixture.path = Path { transport: Transport::Ws, connection: Some(connection), ..fixture.path };
    fixture.register("Contact: <sip:x@abc.invalid;transport=ws>\r\n");
    fixture.path.transport = Transport::Tcp;
    fixture.register("Contact: <sip:a@2.2.2.2;transport=tcp>\r\n");
    fixture.register(&format!(
        "Supported: outbound\r\n\
         Contact: <sip:a@3.3.3.3;transport=tcp>;+sip.instance={UUID};reg-id=1\r\n"
    ));
    fixture.registrar.handle_connection_lost(ConnectionId(8));
    assert_eq!(fixture.contacts().len(), 4);
    fixture.registrar.handle_connection_lost(connection);
    assert_eq!(fixture.contacts(), ["sip:a@2.2.2.2;transport=tcp", "sip:a@1.1.1.1"]);
}

#[test]
fn a_user_who_is_gone_is_called_no_more() {
    let mut fixture = Fixture::new();
    fixture.register("Contact: <sip:a@1.1.1.1>\r\n");
    fixture.registrar.remove_user("alice");
    assert!(fixture.contacts().is_empty());
    assert_eq!(fixture.registrar.poll_timeout(), None);
}

proptest! {
    /// Whatever comes in whatever order: no user has more contacts than the limit, each timer
    /// belongs to a binding, and in the end all bindings expire.
    #[test]
    fn the_books_agree(
        steps in prop::collection::vec((0_u8..14, 0_u32..9_000, 0_u64..4_000, 0_u8..3), 0..60),
    ) {
        let mut fixture = Fixture::new();
        for (host, expires, wait, kind) in steps {
            let id = if kind == 1 { format!(";+sip.instance={UUID};reg-id={}", host % 4 + 1) } else { String::new() };
            fixture.path.connection = (kind == 2).then_some(ConnectionId(host.into()));
            let reply = fixture.register(&format!(
                "Supported: outbound\r\nContact: <sip:a@192.0.2.{host}>;expires={expires}{id}\r\n"
            ));
            prop_assert!([200, 403, 423].contains(&reply.status.code()));
            fixture.pass(wait);
            fixture.registrar.handle_timeout(fixture.now);
            fixture.registrar.handle_connection_lost(ConnectionId(u64::from(host) + 1));
            let count = fixture.contacts().len();
            prop_assert!(count <= 10);
            prop_assert_eq!(fixture.registrar.owners.len(), count);
            prop_assert_eq!(fixture.registrar.poll_timeout().is_some(), count > 0);
        }
        fixture.pass(7_200);
        fixture.registrar.handle_timeout(fixture.now);
        prop_assert!(fixture.registrar.users.is_empty() && fixture.registrar.owners.is_empty());
        let (bound, unbound): (Vec<_>, Vec<_>) =
            fixture.events().into_iter().partition(|(_, cause)| cause.is_none());
        prop_assert_eq!(bound.len(), unbound.len());
    }
}
