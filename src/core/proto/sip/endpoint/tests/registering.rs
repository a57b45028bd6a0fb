//! REGISTER on both sides: phones at our registrar, and our registration at a trunk.

use super::{calling::Reply, *};
use crate::proto::sip::{
    Status,
    digest::{Credentials, answer},
    message::Method,
    path::{ConnectionId, Transport},
    registration::TrunkState,
};

const CONTACT: &str = "sip:phone@10.0.0.10:5062";

/// A line whose endpoint has the user `phone`.
fn line() -> Line {
    let mut line = Line::new();
    line.endpoint.set_users([("phone", "secret")].into_iter(), line.now);
    line
}

pub(super) fn register(cseq: u32, more: &[String]) -> String {
    let ask = Ask::new("REGISTER", cseq).contact(CONTACT);
    let ask = more.iter().fold(ask, |ask, header| ask.with(header));
    // The phone registers itself: To names the same user as From.
    ask.to_string().replace("To: <sip:100@", "To: <sip:phone@")
}

/// The header field that answers the challenge in `refused` to a REGISTER.
pub(super) fn authorization(refused: &str, password: &str) -> String {
    authorization_of(&Method::Register, refused, password)
}

fn authorization_of(method: &Method, refused: &str, password: &str) -> String {
    let challenges: Vec<&str> =
        refused.lines().filter_map(|line| line.strip_prefix("WWW-Authenticate: ")).collect();
    let credentials = Credentials {
        username: "phone".to_owned(),
        password: password.to_owned(),
        realm: Some("aftertone".to_owned()),
    };
    let uri = "sip:100@192.0.2.1";
    let value = answer(&challenges, method, uri, &credentials, 1, "c").unwrap();
    format!("Authorization: {value}")
}

#[test]
fn what_is_at_another_domain_is_not_registered_here() {
    let config = |domain: &str| {
        let domain = domain.to_owned();
        EndpointConfig { domain, ..EndpointConfig::new("test".to_owned()) }
    };
    let status = |domain: &str, from: &str, to: &str| {
        let mut line = Line::with(config(domain));
        line.endpoint.set_users([("phone", "secret")].into_iter(), line.now);
        line.receive(&register(1, &[]).replace(from, to));
        line.take_statuses()
    };
    assert_eq!(status("pbx.example", "", ""), [401], "the address that it was sent to");
    for (from, to) in [("sip:phone@192.0.2.1", "sip:phone@"), ("sip:100@192.0.2.1", "sip:")] {
        let at = |host: &str| format!("{to}{host}");
        assert_eq!(status("pbx.example", from, &at("PBX.example.")), [401]);
        assert_eq!(status("pbx.example", from, &at("other.example")), [404]);
        assert_eq!(status("pbx.example", from, &at("198.51.100.1")), [404]);
        assert_eq!(status("", from, &at("198.51.100.1")), [404]);
        assert_eq!(status("", from, &at("pbx.example")), [401], "it was found by that name");
    }
}

#[test]
fn a_phone_that_has_registered_is_no_stranger_there_and_then() {
    let mut line = Line::of_stranger(EndpointConfig::new("test".to_owned()));
    line.endpoint.set_users([("phone", "secret")].into_iter(), line.now);
    let known = |line: &Line| line.endpoint.known_peers().collect::<Vec<_>>();
    assert!(known(&line).is_empty());
    line.receive(&register(1, &[]));
    let refused = line.sent.pop().unwrap().1;
    line.receive(&register(2, &[authorization(&refused, "secret"), "Expires: 90".to_owned()]));
    assert_eq!(line.take_statuses(), [200]);
    assert_eq!(known(&line), [path().peer.ip()]);

    assert!(is_at_phone(&mut line, path(), Ask::to_string));
    let other = Path { peer: "192.0.2.10:1".parse().unwrap(), ..path() };
    assert!(!is_at_phone(&mut line, other, Ask::to_string), "another host behind its NAT");

    line.run_for(Duration::from_secs(91));
    assert!(known(&line).is_empty());
}

/// A proxy beyond the phone, on another host.
const ELSEWHERE: &str = "198.51.100.66:5060";

/// Whether a caller on `path` counts as a phone that has registered there: once its ACK has shown
/// our tag, its Record-Route is followed to another host.
pub(super) fn is_at_phone(line: &mut Line, path: Path, text: impl Fn(&Ask) -> String) -> bool {
    let name = format!("at{}", fresh::tag(&mut line.endpoint.rng));
    let invite = Ask::invite().with(&format!("Record-Route: <sip:{ELSEWHERE};lr>"));
    line.receive_over(path, &text(&invite.call(&name).branch(&name)));
    let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
    line.answer(dialog);
    line.receive_over(path, &text(&Ask::ack(&line.tag).call(&name).branch(&format!("{name}a"))));
    assert!(matches!(line.event(), Event::Acknowledged { .. }));
    line.command(Command::Bye { dialog, reason: None });
    let bye = line.sent.last().unwrap().1.clone();
    assert!(bye.starts_with("BYE "), "{bye}");
    let way = line.last_path;
    line.receive_over(way, &respond(&bye, "200 OK"));
    line.events.clear();
    line.sent.clear();
    line.paths.clear();
    way.peer == ELSEWHERE.parse().unwrap()
}

/// A line at which the phone has registered over `path`.
fn registered_over(path: Path, contact: &str) -> Line {
    let mut line = Line::of_stranger(EndpointConfig::new("test".to_owned()));
    line.endpoint.set_users([("phone", "secret")].into_iter(), line.now);
    let text = |cseq, more: &[String]| register(cseq, more).replace(CONTACT, contact);
    line.receive_over(path, &text(1, &[]));
    let refused = line.sent.pop().unwrap().1;
    line.receive_over(path, &text(2, &[authorization(&refused, "secret")]));
    assert_eq!(line.take_statuses(), [200]);
    line.paths.clear();
    line
}

#[test]
fn a_registered_phone_whose_address_is_forged_hears_its_share_alone() {
    let own_port = |text: String| text;
    let other_port = |text: String| text.replace("10.0.0.10:5062;rport", "192.0.2.10:9999");
    let wishes: [fn(DialogId) -> Command; 4] = [
        |dialog| Command::Answer { dialog, sdp: b"v=0\r\n".to_vec() },
        |dialog| Command::Ring { dialog },
        |dialog| refusal(dialog, Status::BUSY_HERE),
        |dialog| Command::Challenge { dialog },
    ];
    for via in [own_port, other_port] {
        for wish in wishes {
            let mut line = registered_over(path(), CONTACT);
            let route = format!("Record-Route: <sip:{ELSEWHERE};lr>");
            let behind = "Via: SIP/2.0/UDP 198.51.100.66;branch=z9hG4bK-behind";
            let invite = via(Ask::invite().with(&route).with(behind).to_string());
            let merged = via(Ask::invite().branch("merged").with(&route).to_string());
            let cancel = via(Ask::invite().cancel().to_string());
            let mut heard = 0;
            for text in [&invite, &merged, &merged, &invite, &cancel, &cancel] {
                heard += text.len();
                line.receive(text);
                for event in line.events.split_off(0) {
                    if let Event::Invite { dialog, .. } = event {
                        line.command(wish(dialog));
                    }
                }
                line.run_for(Duration::from_secs(1));
                let said: usize = line.sent.iter().map(|(_, text)| text.len()).sum();
                assert!(said * 2 <= heard * 3, "{said} bytes for {heard}: {:?}", line.take());
            }
            line.run_for(Duration::from_secs(100));
            let sent = line.sent.iter().filter(|(_, text)| text != "\r\n\r\n");
            let said: usize = sent.map(|(_, text)| text.len()).sum();
            assert!(said * 2 <= heard * 3, "{said} bytes for {heard}: {:?}", line.take());
            assert!(line.paths.iter().all(|path| path.peer.ip() == super::path().peer.ip()));
        }
    }
}

#[test]
fn a_single_forged_invite_of_a_registered_phone_leads_to_no_third_host() {
    let mut line = registered_over(path(), CONTACT);
    let invite = Ask::invite().with(&format!("Record-Route: <sip:{ELSEWHERE};lr>")).to_string();
    let invite = invite.replace("10.0.0.10:5062;rport", "192.0.2.10:9999");
    line.receive(&invite);
    let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
    line.answer(dialog);
    line.run_for(Duration::from_secs(20));
    line.command(Command::Bye { dialog, reason: None });
    line.run_for(Duration::from_secs(80));
    let sent = line.sent.iter().filter(|(_, text)| text != "\r\n\r\n");
    let said: usize = sent.map(|(_, text)| text.len()).sum();
    assert!(said > 0 && said * 2 <= invite.len() * 3, "{said} bytes for {}", invite.len());
    assert!(line.paths.iter().all(|path| path.peer.ip() == super::path().peer.ip()));
}

#[test]
fn a_registered_phone_that_shows_our_tag_is_asked_as_before() {
    // Behind a NAT: back to the port that it sends from, as often as RFC 3261 says.
    let mut line = registered_over(path(), CONTACT);
    let dialog = line.confirm(&Ask::invite());
    line.command(Command::Bye { dialog, reason: None });
    line.run_for(Duration::from_secs(3));
    assert_eq!(line.paths, [path(); 3]);

    // Through the proxy that it has registered through, whose Record-Route has another address.
    let mut line = registered_over(path(), CONTACT);
    let behind = "Via: SIP/2.0/UDP 192.0.2.77;branch=z9hG4bK-behind";
    let route = "Record-Route: <sip:192.0.2.11;lr>";
    let dialog = line.confirm(&Ask::invite().with(route).with(behind));
    line.command(Command::Bye { dialog, reason: None });
    line.run_for(Duration::from_secs(3));
    let proxy = "192.0.2.11:5060".parse().unwrap();
    assert_eq!(line.paths, [Path { peer: proxy, ..path() }; 3]);

    // A proxy that drops out of the call: the ACK comes from the phone itself.
    let mut line = registered_over(path(), CONTACT);
    let invite = Ask::invite().contact("sip:phone@192.0.2.77:5066").with(behind);
    let dialog = line.receive_invite(&invite);
    line.answer(dialog);
    let phone = Path { peer: "192.0.2.77:5066".parse().unwrap(), ..path() };
    line.receive_over(phone, &Ask::ack(&line.tag).to_string());
    line.paths.clear();
    line.command(Command::Bye { dialog, reason: None });
    line.run_for(Duration::from_secs(3));
    assert_eq!(line.paths, [phone; 3]);
}

#[test]
fn a_registered_phone_whose_first_answers_are_lost_gets_them_when_it_asks_again() {
    let mut line = registered_over(path(), CONTACT);
    let invite = Ask::invite();
    let dialog = line.receive_invite(&invite);
    line.answer(dialog);
    let count = |line: &Line| line.sent.iter().filter(|(_, text)| text.contains(" 200 ")).count();
    let before = count(&line);
    line.receive(&invite.to_string());
    assert!(count(&line) > before, "{:?}", line.take());
}

#[test]
fn the_place_of_a_phone_is_one_of_its_transport_and_goes_with_its_stream() {
    let connection = Some(ConnectionId(7));
    let tcp = Path {
        peer: "192.0.2.10:40000".parse().unwrap(),
        transport: Transport::Tcp,
        connection,
        ..path()
    };
    let mut line = registered_over(tcp, "sip:phone@192.0.2.10:5060");
    assert!(is_at_phone(&mut line, tcp, Ask::to_string));
    let datagram = |peer: &str| Path::udp(path().local, peer.parse().unwrap());
    assert!(!is_at_phone(&mut line, datagram("192.0.2.10:40000"), Ask::to_string));
    line.endpoint.handle_disconnected(ConnectionId(7), None, line.now);
    line.drain();
    assert_eq!(line.endpoint.phones("phone", line.now)[0].path.peer.port(), 5060);
    assert_eq!(line.endpoint.known_peers().collect::<Vec<_>>(), [tcp.peer.ip()]);
    for port in [40_000, 5_060] {
        let peer = format!("192.0.2.10:{port}");
        assert!(!is_at_phone(&mut line, datagram(&peer), Ask::to_string), "{peer}");
    }
}

#[test]
fn a_phone_that_registered_over_tcp_is_called_where_its_contact_says_when_its_stream_is_gone() {
    let tcp = Path {
        peer: "192.0.2.10:40000".parse().unwrap(),
        transport: Transport::Tcp,
        connection: Some(ConnectionId(7)),
        ..path()
    };
    for (contact, expected) in [
        ("sip:phone@192.0.2.10:5066;transport=udp", &["UDP 192.0.2.10:5066"][..]),
        ("sip:phone@192.0.2.10:5066", &["TCP 192.0.2.10:5066", "UDP 192.0.2.10:5066"]),
        ("sip:phone@phone.example:5066;transport=tcp", &["TCP 192.0.2.10:5066"]),
        ("sip:phone@192.0.2.77:5066;transport=udp", &["TCP 192.0.2.10:40000"]),
    ] {
        let mut line = registered_over(tcp, contact);
        line.endpoint.handle_disconnected(ConnectionId(7), None, line.now);
        let phone = line.endpoint.phones("phone", line.now).remove(0);
        let text = |path: &Path| format!("{} {}", path.transport.name(), path.peer);
        let paths: Vec<String> = phone.paths().iter().map(text).collect();
        assert_eq!(paths, expected, "{contact}");
    }
}

#[test]
fn a_phone_registers_with_its_password_and_is_found() {
    let mut line = line();
    line.receive(&register(1, &[]));
    let refused = line.sent.pop().unwrap().1;
    assert!(refused.starts_with("SIP/2.0 401 "), "{refused}");
    let right = register(2, &[authorization(&refused, "secret"), "Expires: 90".to_owned()]);
    line.receive(&right);
    line.receive(&right);
    let ok = line.sent.pop().unwrap().1;
    assert_eq!(line.sent.pop().unwrap().1, ok, "the same request gets the same answer");
    assert_eq!(header(&ok, "Contact"), Some(format!("<{CONTACT}>;expires=90").as_str()));
    let phones = line.endpoint.phones("phone", line.now);
    assert_eq!(phones[0].path, path(), "the way back through its NAT");
    line.run_for(Duration::from_secs(91));
    assert!(line.endpoint.phones("phone", line.now).is_empty());
    assert!(line.endpoint.is_idle());
}

#[test]
fn the_nat_before_a_phone_is_kept_open_as_long_as_it_is_registered() {
    for (contact, wanted) in [(CONTACT, 3..=3), ("sip:phone@192.0.2.10:5062", 0..=0)] {
        let mut line = line();
        line.receive(&register(1, &[]));
        let refused = line.sent.pop().unwrap().1;
        let more = [authorization(&refused, "secret"), "Expires: 90".to_owned()];
        line.receive(&register(2, &more).replace(CONTACT, contact));
        assert_eq!(line.take_statuses(), [200]);
        line.run_for(Duration::from_secs(600));
        let empty = line.sent.iter().filter(|(_, sent)| sent == "\r\n\r\n").count();
        assert!(wanted.contains(&empty), "{contact}: {empty}");
        assert_eq!(line.sent.len(), empty);
        assert!(line.endpoint.poll_timeout().is_none());
    }
}

#[test]
fn guessing_and_registering_for_others_get_nothing() {
    let mut line = line();
    line.receive(&register(1, &[]));
    let refused = line.sent.pop().unwrap().1;
    line.receive(&register(2, &[authorization(&refused, "guess")]));
    assert_eq!(line.take_statuses(), [401]);
    let other = register(3, &[authorization(&refused, "secret")]);
    line.receive(&other.replace("To: <sip:phone@", "To: <sip:boss@"));
    assert_eq!(line.take_statuses(), [403]);
    assert!(line.endpoint.phones("boss", line.now).is_empty());
    assert!(line.endpoint.phones("phone", line.now).is_empty());
}

#[test]
fn a_user_who_is_gone_is_not_there() {
    let mut line = line();
    line.receive(&register(1, &[]));
    let refused = line.sent.pop().unwrap().1;
    line.receive(&register(2, &[authorization(&refused, "secret")]));
    assert_eq!(line.endpoint.phones("phone", line.now).len(), 1);
    line.endpoint.set_users(std::iter::empty(), line.now);
    assert!(line.endpoint.phones("phone", line.now).is_empty());
    line.sent.clear();
    line.receive(&register(3, &[]));
    assert_eq!(line.take_statuses(), [405], "there is nobody to register");
}

#[test]
fn a_phone_that_has_called_without_a_password_proves_who_it_is_to_hand_its_call_over() {
    // A phone that has registered, and one that has not, on a route that is open to all.
    for is_registered in [true, false] {
        let mut line = Line::of_stranger(EndpointConfig::new("test".to_owned()));
        line.endpoint.set_users([("phone", "secret")].into_iter(), line.now);
        if is_registered {
            line.receive(&register(1, &[]));
            let refused = line.sent.pop().unwrap().1;
            line.receive(&register(2, &[authorization(&refused, "secret")]));
        }
        let dialog = line.confirm(&Ask::invite());
        let refer = |line: &Line, cseq: u32| {
            Ask::new("REFER", cseq).to(&line.tag).with("Refer-To: <sip:200@pbx.example>")
        };
        let plain = refer(&line, 2).to_string();
        line.receive(&plain);
        line.receive(&plain);
        let [(_, refused), (_, again)] = line.sent.as_slice() else { panic!("{:?}", line.sent) };
        assert_eq!(refused, again, "the same request gets the same answer");
        let refused = refused.clone();
        assert_eq!(line.take_statuses(), [401, 401]);
        let wrong = authorization_of(&Method::Refer, &refused, "guess");
        line.receive(&refer(&line, 3).with(&wrong).to_string());
        assert_eq!(line.take_statuses(), [401]);
        assert!(line.events.is_empty());
        // The name in From is that of the user.
        let right = authorization_of(&Method::Refer, &refused, "secret");
        line.receive(&refer(&line, 4).with(&right).to_string());
        assert_eq!(line.take()[0], "202 Accepted");
        let Event::ReferAsked { dialog: asked, referral } = line.event() else {
            panic!("no REFER")
        };
        assert_eq!((asked, referral.target.to_string().as_str()), (dialog, "sip:200@pbx.example"));
        line.command(Command::TellReferrer { dialog, status: Status::BUSY_HERE });
        line.sent.clear();
        // The authentication holds for that one request only.
        line.receive(&refer(&line, 5).to_string());
        assert_eq!(line.take_statuses(), [401]);
        line.receive(&refer(&line, 6).with(&right).to_string());
        assert_eq!(line.take_statuses(), [401], "what was said before is no proof");
    }
}

#[test]
fn a_password_in_the_name_of_another_caller_hands_no_call_over() {
    let mut line = Line::of_stranger(EndpointConfig::new("test".to_owned()));
    line.endpoint.set_users([("phone", "secret"), ("boss", "x")].into_iter(), line.now);
    let as_boss = |ask: &Ask| ask.to_string().replace("<sip:phone@192.0.2.10>;", "<sip:boss@a>;");
    line.receive(&as_boss(&Ask::invite()));
    let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
    line.answer(dialog);
    line.receive(&as_boss(&Ask::ack(&line.tag)));
    line.events.clear();
    line.sent.clear();
    let refer = Ask::new("REFER", 2).to(&line.tag).with("Refer-To: <sip:200@pbx.example>");
    line.receive(&as_boss(&refer));
    let refused = line.sent[0].1.clone();
    let right = authorization_of(&Method::Refer, &refused, "secret");
    let refer = Ask::new("REFER", 3).to(&line.tag).with("Refer-To: <sip:200@pbx.example>");
    line.receive(&as_boss(&refer.with(&right)));
    assert_eq!(line.take_statuses(), [401, 403]);
    assert!(line.events.is_empty());
}

#[test]
fn a_phone_whose_stream_is_gone_is_called_where_its_contact_says_that_it_listens() {
    let stream = Path {
        peer: "192.0.2.10:40000".parse().unwrap(),
        transport: Transport::Tcp,
        connection: Some(ConnectionId(7)),
        ..path()
    };
    for (contact, path_header, expected) in [
        ("sip:phone@192.0.2.10:5062;transport=tcp", "", Some("192.0.2.10:5062")),
        ("sip:phone@192.0.2.77:5062;transport=tcp", "", Some("192.0.2.77:5062")),
        (
            "sip:phone@192.0.2.77",
            "Path: <sip:192.0.2.10:5070;transport=tcp;lr>",
            Some("192.0.2.10:5070"),
        ),
        ("sip:phone@10.0.0.10:5062;transport=tcp", "", None),
        ("sip:phone@192.0.2.10:40000;transport=tcp", "", None),
    ] {
        let mut line = line();
        line.receive_over(stream, &register(1, &[]));
        let refused = line.sent.pop().unwrap().1;
        let mut more = vec![authorization(&refused, "secret")];
        more.extend((!path_header.is_empty()).then(|| path_header.to_owned()));
        line.receive_over(stream, &register(2, &more).replace(CONTACT, contact));
        assert_eq!(line.take_statuses(), [200]);
        let way = |line: &Line| line.endpoint.phones("phone", line.now)[0].path;
        assert_eq!(way(&line), stream, "as long as it lives");
        assert!(line.endpoint.is_known_peer(stream));
        line.endpoint.handle_disconnected(ConnectionId(7), None, line.now);
        let named =
            expected.map(|peer| Path { peer: peer.parse().unwrap(), connection: None, ..stream });
        assert_eq!(way(&line), named.unwrap_or(stream), "{contact}");
        line.endpoint.set_users(std::iter::empty(), line.now);
        assert_eq!(line.endpoint.known_peers().count(), 0, "it is forgotten as any other");
    }
}

pub(super) fn account() -> TrunkAccount {
    TrunkAccount {
        name: "provider".to_owned(),
        targets: vec![path(), Path { peer: "192.0.2.20:5060".parse().unwrap(), ..path() }],
        registrar: "sip:provider.example".parse().unwrap(),
        address_of_record: "<sip:4930@provider.example>".parse().unwrap(),
        contact_user: "4930".to_owned(),
        routes: Vec::new(),
        credentials: Credentials {
            username: "4930".to_owned(),
            password: "secret".to_owned(),
            realm: Some("provider.example".to_owned()),
        },
    }
}

impl Line {
    fn register_at_trunk(&mut self) -> String {
        self.endpoint.register(account(), self.now);
        self.drain();
        self.sent.pop().expect("a REGISTER goes out").1
    }

    fn trunk(&self) -> TrunkState {
        self.endpoint.trunks().next().expect("there is one").1.state
    }
}

#[test]
fn a_long_register_goes_over_tcp_and_back_to_datagrams_if_that_fails() {
    let config = EndpointConfig { tcp_port: Some(5070), ..EndpointConfig::new("test".to_owned()) };
    let mut line = Line::with(config);
    let contact_user = "x".repeat(1_300);
    line.endpoint.register(TrunkAccount { contact_user, ..account() }, line.now);
    line.drain();
    let first = line.sent.pop().unwrap().1;
    assert!(first.contains("Via: SIP/2.0/TCP 192.0.2.1:5070;"), "{first}");
    line.endpoint.handle_unreachable(line.last_path, line.now);
    line.run_for(Duration::from_secs(5));
    let second = &line.sent.first().unwrap().1;
    assert!(second.contains("Via: SIP/2.0/UDP 192.0.2.1:5060;"), "{second}");
    assert_eq!(line.last_path, path(), "the same target");
}

#[test]
fn we_register_at_a_trunk_answer_its_challenge_and_refresh() {
    let mut line = Line::new();
    let first = line.register_at_trunk();
    assert!(first.starts_with("REGISTER sip:provider.example SIP/2.0\r\n"), "{first}");
    assert_eq!(header(&first, "Contact"), Some("<sip:4930@192.0.2.1:5060>"));
    let challenge =
        "WWW-Authenticate: Digest realm=\"provider.example\", nonce=\"n\", qop=\"auth\"";
    line.receive(&Reply::to(&first, "401 Unauthorized").tag("t").with(challenge).to_string());
    let second = line.sent.pop().unwrap().1;
    assert!(header(&second, "Authorization").unwrap().contains("username=\"4930\""));
    assert_eq!(header(&second, "CSeq"), Some("2 REGISTER"));
    assert_eq!(header(&second, "Call-ID"), header(&first, "Call-ID"));
    let ok = Reply::to(&second, "200 OK").tag("t");
    line.receive(&ok.contact("sip:4930@192.0.2.1:5060").with("Expires: 600").to_string());
    assert_eq!(line.trunk(), TrunkState::Registered);
    line.sent.clear();
    line.run_for(Duration::from_secs(600));
    let again = line.take().into_iter().find(|sent| !sent.is_empty());
    assert!(again.unwrap().starts_with("REGISTER "), "before its time is over");
}

#[test]
fn a_silent_trunk_is_tried_again_by_another_way() {
    let mut line = Line::new();
    line.register_at_trunk();
    assert_eq!(line.last_path.peer, path().peer);
    line.run_for(Duration::from_secs(40));
    assert_eq!(line.last_path.peer, account().targets[1].peer);
    assert_ne!(line.trunk(), TrunkState::Registered);
}

#[test]
fn a_trunk_that_is_out_of_order_is_tried_again_by_another_way() {
    let mut line = Line::new();
    let first = line.register_at_trunk();
    line.receive(&Reply::to(&first, "503 Service Unavailable").tag("t").to_string());
    line.sent.clear();
    line.run_for(Duration::from_secs(300));
    assert!(line.take()[0].starts_with("REGISTER "));
    assert_eq!(line.last_path.peer, account().targets[1].peer);
}

#[test]
fn a_trunk_without_a_way_is_there_and_registers_once_there_is_one() {
    let mut line = Line::new();
    line.endpoint.register(TrunkAccount { targets: Vec::new(), ..account() }, line.now);
    line.run_for(Duration::from_secs(60));
    assert!(line.take().is_empty());
    assert_eq!(line.trunk(), TrunkState::Idle);
    line.register_at_trunk();
    assert_eq!(line.trunk(), TrunkState::Registering);
}

#[test]
fn a_trunk_that_is_left_loses_its_rights_at_once_and_our_contact_is_taken_back() {
    let mut line = Line::of_stranger(EndpointConfig::new("test".to_owned()));
    let first = line.register_at_trunk();
    line.receive(&Reply::to(&first, "200 OK").tag("t").with("Expires: 600").to_string());
    assert_eq!(line.endpoint.trunks.at(path()), Some("provider"));

    line.endpoint.leave_trunk("provider", line.now);
    line.drain();
    assert_eq!(line.endpoint.trunks.at(path()), None);
    assert_eq!(line.endpoint.trunks().count(), 0);
    let last = line.sent.pop().unwrap().1;
    assert_eq!(header(&last, "Expires"), Some("0"));

    // The same account with another password, before the old one is gone.
    let again = line.register_at_trunk();
    assert_ne!(header(&again, "Call-ID"), header(&last, "Call-ID"));
    line.receive(&Reply::to(&last, "200 OK").tag("t").to_string());
    line.receive(&Reply::to(&again, "200 OK").tag("t").with("Expires: 600").to_string());
    assert_eq!(line.trunk(), TrunkState::Registered);
    assert_eq!(line.endpoint.trunks.leaving(), 0, "the old one is forgotten");
    assert_eq!(line.endpoint.trunks().count(), 1);
}

#[test]
fn a_trunk_that_is_left_in_the_middle_of_a_request_is_forgotten_after_it() {
    let mut line = Line::new();
    let first = line.register_at_trunk();
    line.endpoint.leave_trunk("provider", line.now);
    line.drain();
    assert!(line.take().is_empty(), "one after the other");
    line.receive(&Reply::to(&first, "200 OK").tag("t").with("Expires: 600").to_string());
    let last = line.sent.pop().unwrap().1;
    assert_eq!(header(&last, "Expires"), Some("0"));
    line.run_for(Duration::from_secs(40));
    assert_eq!(line.endpoint.trunks.leaving(), 0);
    assert_eq!(line.endpoint.trunks().count(), 0);
}

#[test]
fn when_we_go_our_contact_is_taken_back() {
    let mut line = Line::new();
    let first = line.register_at_trunk();
    line.receive(&Reply::to(&first, "200 OK").tag("t").with("Expires: 600").to_string());
    assert_eq!(line.trunk(), TrunkState::Registered);
    line.endpoint.unregister(line.now);
    line.drain();
    let last = line.sent.pop().unwrap().1;
    assert_eq!(header(&last, "Expires"), Some("0"));
    line.receive(&Reply::to(&last, "200 OK").tag("t").to_string());
    assert_eq!(line.trunk(), TrunkState::Idle);
}

#[test]
fn a_stream_to_a_trunk_is_kept_and_when_it_breaks_we_register_again() {
    let mut line = Line::new();
    let connection = Some(ConnectionId(7));
    let stream = Path { transport: Transport::Tcp, connection: None, ..path() };
    line.endpoint.register(TrunkAccount { targets: vec![stream], ..account() }, line.now);
    line.drain();
    let first = line.sent.pop().unwrap().1;
    let ok = Reply::to(&first, "200 OK").tag("t").with("Expires: 600").to_string();
    line.endpoint.handle_message(ok.as_bytes(), Path { connection, ..stream }, line.now);
    line.drain();
    assert_eq!(line.trunk(), TrunkState::Registered);
    assert!(line.endpoint.needs(ConnectionId(7)) && !line.endpoint.needs(ConnectionId(8)));
    line.run_for(Duration::from_secs(30));
    assert_eq!(line.sent.pop().unwrap().1, "\r\n\r\n");
    assert_eq!(line.last_path, Path { connection, ..stream });
    line.endpoint.handle_disconnected(ConnectionId(7), None, line.now);
    assert!(!line.endpoint.needs(ConnectionId(7)));
    line.run_for(Duration::from_secs(5));
    assert!(line.take()[0].starts_with("REGISTER "));
}

#[test]
fn the_way_to_a_trunk_that_answers_from_another_port_is_kept_open_where_it_listens() {
    let mut line = Line::new();
    let first = line.register_at_trunk();
    let ok = Reply::to(&first, "200 OK").tag("t").with("Expires: 600").to_string();
    line.receive_over(Path { peer: "192.0.2.10:49152".parse().unwrap(), ..path() }, &ok);
    line.run_for(Duration::from_secs(30));
    assert_eq!((line.sent.pop().unwrap().1.as_str(), line.last_path), ("\r\n\r\n", path()));
}

#[test]
fn calls_from_a_trunk_are_known_as_such() {
    let mut line = Line::new();
    line.register_at_trunk();
    line.receive(&Ask::invite().to_string());
    let Event::Invite { invite, .. } = line.event() else { panic!("no Invite") };
    assert_eq!(invite.trunk.as_deref(), Some("provider"));
}
