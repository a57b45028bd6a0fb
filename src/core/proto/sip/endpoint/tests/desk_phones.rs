//! Phones that send datagrams from another port than they listen on, and name that port in Via and
//! Contact (RFC 3261 §18.2.2). Responses, requests within calls, and calls to their registration go
//! to the port where they listen. Strangers gain nothing by this.

use super::{
    calling::{DIALOG, Reply, call},
    registering::{authorization, is_at_phone, register},
    strangers::{from, stranger},
    *,
};
use crate::proto::sip::path::Transport;

/// The address where the phone listens, and the address that it sends from.
const LISTENS: &str = "192.0.2.10:5060";
const SENDS: &str = "192.0.2.10:49152";
const CONTACT: &str = "sip:phone@192.0.2.10:5060";

/// A message of the phone: its Via names the port where it listens, and has no `rport`.
fn said(ask: &Ask) -> String {
    with_via(ask, "192.0.2.10:5060")
}

fn with_via(ask: &Ask, via: &str) -> String {
    let text = ask.to_string();
    assert!(text.contains("10.0.0.10:5062;"), "{text}");
    text.replace("10.0.0.10:5062;", &format!("{via};")).replace(";rport", "")
}

fn invite() -> Ask {
    // The allowance of a stranger grows with the length of its messages.
    Ask::invite().contact(CONTACT).with(&format!("X: {}", "x".repeat(400)))
}

impl Line {
    /// The phone sends a message from its high port.
    fn desk_phone_says(&mut self, text: &str) {
        self.receive_over(from(SENDS), text);
    }

    /// Sets up a call of the phone.
    fn desk_phone_calls(&mut self, invite: &Ask) -> DialogId {
        self.desk_phone_says(&said(invite));
        let Event::Invite { dialog, .. } = self.event() else { panic!("no Invite") };
        self.answer(dialog);
        let ack = said(&Ask::ack(&self.tag));
        // Some phones use another port for each message.
        self.receive_over(from("192.0.2.10:49153"), &ack);
        assert!(matches!(self.event(), Event::Acknowledged { .. }));
        dialog
    }

    /// Checks that all messages were sent to `peer`.
    fn all_went_to(&self, peer: &str) {
        let peer = peer.parse().unwrap();
        let all = self.paths.iter().zip(&self.sent);
        for (path, (_, text)) in all {
            assert_eq!(path.peer, peer, "{text}");
        }
        assert!(!self.paths.is_empty());
    }
}

/// A phone that the operator trusts, and a stranger.
fn both() -> [Line; 2] {
    [Line::new(), stranger()]
}

#[test]
fn a_phone_that_sends_from_another_port_is_answered_where_it_listens() {
    for mut line in both() {
        line.desk_phone_says(&said(&Ask::new("OPTIONS", 1).contact(CONTACT)));
        line.desk_phone_says(&said(&Ask::bye("nobody")));
        let broken = said(&Ask::new("OPTIONS", 3)).replace("CSeq: 3", "CSeq: x");
        line.desk_phone_says(&broken);
        line.desk_phone_says(&said(&Ask::new("OPTIONS", 4)).replace("OPTIONS sip", "OPTIONS foo"));
        line.all_went_to(LISTENS);
        assert_eq!(line.sent.len(), 4, "{:?}", line.sent);
    }
}

#[test]
fn its_call_is_rung_answered_and_hung_up_where_it_listens() {
    for mut line in both() {
        line.desk_phone_says(&said(&invite()));
        line.desk_phone_says(&said(&invite()));
        let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
        line.command(Command::Ring { dialog });
        line.answer(dialog);
        line.run_for(Duration::from_secs(2));
        line.desk_phone_says(&said(&invite()));
        line.desk_phone_says(&said(&Ask::ack(&line.tag)));
        assert!(matches!(line.event(), Event::Acknowledged { .. }));
        line.desk_phone_says(&said(&Ask::reinvite(&line.tag, 2).contact(CONTACT)));
        assert!(matches!(line.event(), Event::Reinvite { .. }));
        line.answer(dialog);
        line.desk_phone_says(&said(&Ask::ack(&line.tag).cseq(2).branch("2")));
        line.desk_phone_says(&said(&Ask::new("INFO", 3).to(&line.tag)));
        line.command(Command::Bye { dialog, reason: None });
        line.run_for(Duration::from_secs(2));
        let byes = line.sent.iter().filter(|(_, text)| text.starts_with("BYE ")).count();
        assert!(byes > 1, "{:?}", line.sent);
        line.all_went_to(LISTENS);
        let bye = line.sent.last().unwrap().1.clone();
        line.desk_phone_says(&respond(&bye, "200 OK"));
        line.events.retain(|event| !matches!(event, Event::Acknowledged { .. }));
        assert!(matches!(line.event(), Event::Ended { how: Ending::Answered, .. }));
    }
}

#[test]
fn its_refused_and_its_canceled_call_are_told_where_it_listens() {
    let mut line = Line::new();
    line.desk_phone_says(&said(&invite()));
    let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
    line.command(refusal(dialog, Status::BUSY_HERE));
    line.run_for(Duration::from_secs(2));
    line.receive_over(from("192.0.2.10:49999"), &said(&invite().ack_of_refusal(&line.tag)));
    let count = line.sent.len();
    assert!(count > 2);
    line.run_for(Duration::from_secs(40));
    assert_eq!(line.sent.len(), count, "the ACK has come, from whatever port");
    line.all_went_to(LISTENS);

    for mut line in both() {
        line.desk_phone_says(&said(&invite()));
        line.desk_phone_says(&said(&invite().cancel()));
        line.run_for(Duration::from_secs(1));
        line.all_went_to(LISTENS);
        line.events.remove(0);
        assert!(matches!(line.event(), Event::Canceled { .. }));
    }
}

#[test]
fn requests_within_its_call_go_to_the_port_of_its_contact() {
    for mut line in both() {
        let other_port = invite().contact("sip:phone@192.0.2.10:5070");
        let dialog = line.desk_phone_calls(&other_port);
        line.all_went_to(LISTENS);
        line.paths.clear();
        line.sent.clear();
        line.run_for(Duration::from_secs(100));
        assert!(line.sent.is_empty(), "no NAT is to be kept open: {:?}", line.sent);
        line.command(Command::Bye { dialog, reason: None });
        line.all_went_to("192.0.2.10:5070");

        // A phone that names another host gets responses and requests where it listens.
        for contact in ["sip:phone@198.51.100.7:5070", "sip:phone@phone.example"] {
            let mut line = stranger();
            let dialog = line.desk_phone_calls(&invite().contact(contact));
            line.command(Command::Bye { dialog, reason: None });
            line.all_went_to(LISTENS);
        }
    }
}

#[test]
fn who_sends_from_where_it_listens_is_asked_there_unless_it_is_known() {
    let contact = "sip:phone@192.0.2.10:5070";
    for (mut line, expected) in both().into_iter().zip(["192.0.2.10:5070", LISTENS]) {
        let invite = said(&invite().contact(contact));
        line.receive_over(from(LISTENS), &invite);
        let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
        line.answer(dialog);
        line.receive_over(from(LISTENS), &said(&Ask::ack(&line.tag)));
        line.paths.clear();
        line.sent.clear();
        line.command(Command::Bye { dialog, reason: None });
        line.all_went_to(expected);
    }
}

#[test]
fn behind_a_nat_everything_goes_back_to_the_port_that_it_came_from() {
    for via in ["10.0.0.10:5060", "phone.example:5060", "192.0.2.11", "192.0.2.10:5060;rport"] {
        for mut line in both() {
            let text = match via.strip_suffix(";rport") {
                None => with_via(&invite().contact(CONTACT), via),
                Some(_) => invite().contact(CONTACT).to_string(),
            };
            line.desk_phone_says(&text);
            let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
            line.answer(dialog);
            line.desk_phone_says(&with_via(&Ask::ack(&line.tag), "10.0.0.10:5060"));
            line.command(Command::Bye { dialog, reason: None });
            line.all_went_to(SENDS);
        }
    }
}

/// A node with the user `phone`, registered from the high port.
fn registered() -> Line {
    let mut line = Line::of_stranger(EndpointConfig::new("test".to_owned()));
    line.endpoint.set_users([("phone", "secret")].into_iter(), line.now);
    let say = |line: &mut Line, text: String| {
        let text = text.replace("10.0.0.10:5062;", "192.0.2.10:5060;").replace(";rport", "");
        line.desk_phone_says(&text.replace("10.0.0.10:5062", "192.0.2.10:5060"));
    };
    say(&mut line, register(1, &[]));
    let refused = line.sent.last().unwrap().1.clone();
    say(&mut line, register(2, &[authorization(&refused, "secret"), "Expires: 600".to_owned()]));
    line.all_went_to(LISTENS);
    assert_eq!(line.take_statuses(), [401, 200]);
    line.paths.clear();
    line
}

#[test]
fn it_registers_and_is_called_where_it_listens() {
    let mut line = registered();
    line.run_for(Duration::from_secs(100));
    assert!(line.sent.is_empty(), "no NAT is to be kept open: {:?}", line.sent);
    let phone = line.endpoint.phones("phone", line.now).remove(0);
    assert_eq!(phone.path.peer, LISTENS.parse().unwrap());

    let targets = vec![phone.path];
    let invite = line.call(OutgoingCall { targets, request_uri: phone.contact, ..call() });
    let reply = |status: &str| Reply::to(&invite, status).tag("a").contact(CONTACT);
    line.desk_phone_says(&reply("180 Ringing").to_string());
    line.desk_phone_says(&reply("200 OK").sdp(OFFER).to_string());
    line.events.remove(0);
    assert!(matches!(line.event(), Event::Answered { .. }));
    line.command(Command::Bye { dialog: DIALOG, reason: None });
    let bye = line.sent.last().unwrap().1.clone();
    assert!(bye.starts_with("BYE "), "{bye}");
    line.desk_phone_says(&respond(&bye, "200 OK"));
    assert!(matches!(line.event(), Event::Ended { how: Ending::Answered, .. }));
    line.all_went_to(LISTENS);
}

#[test]
fn it_is_no_stranger_but_somebody_else_at_its_address_is() {
    let mut line = registered();
    // Over UDP no 100 is sent before the phone has shown that the INVITE is its own.
    assert!(is_at_phone(&mut line, from(SENDS), said));
    for other in ["192.0.2.10:5060", "192.0.2.10:49153"] {
        let is_known = is_at_phone(&mut line, from(other), said);
        assert!(!is_known, "{other} names the port of a phone, and is not at it");
    }
    let names_another = |ask: &Ask| with_via(ask, "192.0.2.10:9999");
    assert!(!is_at_phone(&mut line, from(SENDS), names_another), "nothing was heard there");
}

#[test]
fn a_flow_is_the_way_that_its_register_came() {
    let outbound = [
        "Supported: path, outbound".to_owned(),
        "Contact: <sip:phone@192.0.2.10:5060>;reg-id=1;+sip.instance=\"<urn:x>\"".to_owned(),
    ];
    let mut line = Line::of_stranger(EndpointConfig::new("test".to_owned()));
    line.endpoint.set_users([("phone", "secret")].into_iter(), line.now);
    let say = |line: &mut Line, cseq: u32, more: &[String]| {
        let text = register(cseq, &[more, &outbound[..]].concat());
        let text = text.replace("Contact: <sip:phone@10.0.0.10:5062>\r\n", "");
        line.desk_phone_says(
            &text.replace("10.0.0.10:5062;", "192.0.2.10:5060;").replace(";rport", ""),
        );
    };
    say(&mut line, 1, &[]);
    let refused = line.sent.last().unwrap().1.clone();
    say(&mut line, 2, &[authorization(&refused, "secret")]);
    assert_eq!(line.take_statuses(), [401, 200]);
    let phones = line.endpoint.phones("phone", line.now);
    assert_eq!(phones[0].path, from(SENDS));
}

#[test]
fn it_is_reached_over_ipv6_as_well() {
    let local = "[2001:db8::1]:5060".parse().unwrap();
    let high = Path::udp(local, "[2001:db8::10]:49152".parse().unwrap());
    let mut line = stranger();
    let text = with_via(&invite().contact("sip:phone@[2001:db8::10]:5062"), "[2001:DB8::10]");
    line.receive_over(high, &text);
    let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
    line.answer(dialog);
    line.all_went_to("[2001:db8::10]:5060");
    line.receive_over(high, &with_via(&Ask::ack(&line.tag), "[2001:db8::10]"));
    line.paths.clear();
    line.sent.clear();
    line.command(Command::Bye { dialog, reason: None });
    line.all_went_to("[2001:db8::10]:5062");
}

#[test]
fn a_stranger_has_a_port_of_its_host_hear_no_more_than_its_own() {
    for wait in [0, 3_000] {
        let mut line = stranger();
        let text = said(&Ask::invite().contact(CONTACT));
        let mut heard = 0;
        for _ in 0..4 {
            heard += text.len();
            line.desk_phone_says(&text);
            while let Some(event) = line.events.pop() {
                if let Event::Invite { dialog, .. } = event {
                    line.command(Command::Ring { dialog });
                    line.answer(dialog);
                }
            }
            line.run_for(Duration::from_millis(wait));
            let said: usize = line.sent.iter().map(|(_, text)| text.len()).sum();
            assert!(said * 2 <= heard * 3, "{said} bytes for {heard}");
        }
        line.run_for(Duration::from_secs(100));
        let said: usize = line.sent.iter().map(|(_, text)| text.len()).sum();
        assert!(said > 0 && said * 2 <= heard * 3, "{said} bytes for {heard}");
        line.all_went_to(LISTENS);
    }
}

/// How many bytes were sent to this port.
fn bytes_to(line: &Line, peer: &str) -> usize {
    let peer = peer.parse().unwrap();
    let all = line.sent.iter().zip(&line.paths);
    all.filter(|(_, path)| path.peer == peer).map(|((_, text), _)| text.len()).sum()
}

#[test]
fn a_port_that_a_stranger_only_names_is_not_believed_to_hear_us() {
    // The stranger has shown our tag from its own port; there may be other hosts behind the same
    // address.
    let mut line = stranger();
    let own = from("192.0.2.10:5062");
    line.receive_over(own, &Ask::invite().with(&format!("X: {}", "x".repeat(400))).to_string());
    let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
    line.answer(dialog);
    line.receive_over(own, &Ask::ack(&line.tag).to_string());
    line.sent.clear();
    line.paths.clear();
    let mut heard = 0;
    for cseq in 2..12 {
        let reinvite = said(&Ask::reinvite(&line.tag, cseq));
        heard += reinvite.len();
        line.receive_over(own, &reinvite);
        line.events.retain(|event| matches!(event, Event::Reinvite { .. }));
        if line.events.pop().is_some() {
            line.command(Command::Answer { dialog, sdp: b"v=0\r\n".to_vec() });
        }
        line.run_for(Duration::from_secs(4));
        let said = bytes_to(&line, LISTENS);
        assert!(said * 2 <= heard * 3, "{said} bytes for {heard}: {:?}", line.take());
    }
    // From its own port nothing has changed.
    line.receive_over(own, &Ask::new("INFO", 40).to(&line.tag).to_string());
    assert_eq!(line.last_path, own);
}

/// Number of messages to this port.
fn count_to(line: &Line, peer: &str) -> usize {
    let peer = peer.parse().unwrap();
    line.paths.iter().filter(|path| path.peer == peer).count()
}

#[test]
fn a_port_that_a_stranger_names_in_its_contact_hears_each_request_once_until_it_answers() {
    const NAMED: &str = "192.0.2.10:5070";
    let call = |line: &mut Line, more: &[&str]| {
        // `X` is the compact form of Session-Expires.
        let padding = format!("Padding: {}", "x".repeat(400));
        let invite = Ask::invite().contact(&format!("sip:phone@{NAMED}")).with(&padding);
        let invite = more.iter().fold(invite, |invite, header| invite.with(header));
        let dialog = line.desk_phone_calls(&invite);
        line.sent.clear();
        line.paths.clear();
        dialog
    };
    let mut line = stranger();
    let dialog = call(&mut line, &[]);
    line.command(Command::Bye { dialog, reason: None });
    line.run_for(Duration::from_secs(40));
    assert_eq!((count_to(&line, NAMED), line.sent.len()), (1, 1));
    assert!(matches!(line.event(), Event::Ended { how: Ending::TimedOut, .. }));

    for method in ["INVITE", "UPDATE"] {
        let mut line = stranger();
        let allow = format!("Allow: INVITE, ACK, BYE, {method}");
        call(&mut line, &["Supported: timer", "Session-Expires: 90;refresher=uas", &allow]);
        line.run_for(Duration::from_secs(46));
        assert!(line.sent[0].1.starts_with(method), "{}", line.sent[0].1);
        // A minute after it began the session expires, and a BYE follows.
        line.run_for(Duration::from_secs(10));
        assert_eq!(count_to(&line, NAMED), 1, "{:?}", line.take());
    }

    // An answer from another port of that host says nothing about this port.
    for (answers_from, expected) in [(SENDS, 1), (LISTENS, 1), ("192.0.2.10:7", 1), (NAMED, 3)] {
        let mut line = stranger();
        let dialog = call(&mut line, &[]);
        let target = Box::new("sip:b@example.com".parse().unwrap());
        line.command(Command::Refer { dialog, target, replaces: None });
        let refer = line.sent.last().unwrap().1.clone();
        assert!(refer.starts_with("REFER "), "{refer}");
        line.receive_over(from(answers_from), &respond(&refer, "603 Decline"));
        line.paths.clear();
        line.command(Command::Bye { dialog, reason: None });
        line.run_for(Duration::from_secs(3));
        assert_eq!(count_to(&line, NAMED), expected, "{answers_from}");
    }

    // A trusted caller may name any port.
    let mut line = Line::new();
    let dialog = call(&mut line, &[]);
    line.command(Command::Bye { dialog, reason: None });
    line.run_for(Duration::from_secs(3));
    assert_eq!(count_to(&line, NAMED), 3);
}

#[test]
fn an_answer_from_another_port_does_not_prove_where_a_stranger_has_moved() {
    let moved = from("198.51.100.77:5060");
    for (answers_from, expected) in [("198.51.100.77:5061", 1), ("198.51.100.77:5060", 3)] {
        let mut line = stranger();
        let dialog = line.confirm(&invite());
        let info = Ask::new("INFO", 2).to(&line.tag).with(&format!("X: {}", "x".repeat(900)));
        line.receive_over(moved, &info.to_string());
        let target = Box::new("sip:b@example.com".parse().unwrap());
        line.command(Command::Refer { dialog, target, replaces: None });
        let refer = line.sent.last().unwrap().1.clone();
        line.receive_over(from(answers_from), &respond(&refer, "603 Decline"));
        line.paths.clear();
        line.command(Command::Bye { dialog, reason: None });
        line.run_for(Duration::from_secs(3));
        assert_eq!(line.paths, vec![moved; expected], "{answers_from}");
    }
}

#[test]
fn who_repeats_a_request_from_an_address_that_may_be_forged_gets_its_share_alone() {
    let mut line = stranger();
    line.confirm(&Ask::invite());
    line.sent.clear();
    line.paths.clear();
    let victim = "198.51.100.77:5060";
    let vias =
        format!("Via: SIP/2.0/UDP {}.example;branch=z9hG4bKv\r\n", "x".repeat(60)).repeat(200);
    let small = Ask::new("OPTIONS", 2).to(&line.tag);
    let forged = small.clone().with(vias.trim_end()).to_string();
    line.receive_over(from(victim), &forged);
    line.receive(&Ask::ack(&line.tag.clone()).to_string());
    let small = small.to_string();
    (0..20).for_each(|_| line.receive_over(from(victim), &small));
    let (said, heard) = (bytes_to(&line, victim), forged.len() + 20 * small.len());
    assert!(said * 2 <= heard * 3, "{said} bytes for {heard}");
}

#[test]
fn a_stream_is_answered_over_itself_whatever_port_its_via_names() {
    let stream =
        Path { transport: Transport::Tcp, connection: Some(ConnectionId(1)), ..from(SENDS) };
    let mut line = stranger();
    line.receive_over(stream, &said(&Ask::new("OPTIONS", 1)));
    assert_eq!(line.last_path, stream);
}
