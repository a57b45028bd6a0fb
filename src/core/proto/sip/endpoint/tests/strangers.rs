//! What a stranger can make us send to a third party (RFC 3261 section 26.1.5).

use super::*;
use crate::proto::sip::{
    digest::Algorithm,
    path::{ConnectionId, Transport},
};

pub(super) fn stranger() -> Line {
    Line::of_stranger(EndpointConfig::new("test".to_owned()))
}

fn over_tcp() -> Path {
    Path { transport: Transport::Tcp, connection: Some(ConnectionId(1)), ..path() }
}

/// The path of a stranger's datagram.
pub(super) fn from(peer: &str) -> Path {
    Path { peer: peer.parse().unwrap(), ..path() }
}

/// A request with `method`: one with the usual header fields, and one as short as possible.
fn requests(method: &str) -> [String; 2] {
    let full = Ask::new(method, 1).with("User-Agent: Phone/1.0").to_string();
    let small = format!(
        "{method} sip:a SIP/2.0\r\nv:SIP/2.0/UDP a;branch=z9hG4bK{method}\r\nf:<sip:a>;tag=1\r\n\
         t:<sip:a>\r\ni:1\r\nCSeq:1 {method}\r\n\r\n"
    );
    [full, small]
}

#[test]
fn no_stateless_answer_is_much_larger_than_its_request() {
    let mut answered = 0;
    for method in ["OPTIONS", "REGISTER", "BYE", "CANCEL", "PUBLISH", "SUBSCRIBE", "MESSAGE"] {
        for has_users in [true, false] {
            for request in requests(method) {
                let broken = request.replace("CSeq: 1", "CSeq: x").replace("CSeq:1", "CSeq:x");
                for request in [request, broken] {
                    let mut line = stranger();
                    if has_users {
                        line.endpoint.set_users([("phone", "secret")].into_iter(), line.now);
                    }
                    line.receive(&request);
                    line.run_for(Duration::from_secs(40));
                    let sent: usize = line.sent.iter().map(|(_, text)| text.len()).sum();
                    assert!(sent * 2 <= request.len() * 3, "{sent} bytes for\n{request}");
                    answered += usize::from(sent > 0);
                }
            }
        }
    }
    assert!(answered >= 28, "all that are in full, but only {answered}");
}

#[test]
fn a_challenge_that_is_too_large_offers_less_and_a_stream_gets_it_all() {
    let ask = |more: usize| {
        let agent = format!("User-Agent: {}", "x".repeat(more));
        Ask::new("REGISTER", 1).with(&agent).to_string().replace("sip:100@", "sip:phone@")
    };
    let challenges = |path: Path, more: usize| {
        let mut line = stranger();
        line.endpoint.set_users([("phone", "secret")].into_iter(), line.now);
        line.endpoint.handle_message(ask(more).as_bytes(), path, line.now);
        line.drain();
        let answer = line.sent.pop().unwrap().1;
        assert!(answer.starts_with("SIP/2.0 401 "), "{answer}");
        (answer.matches("WWW-Authenticate:").count(), answer.contains("Server:"))
    };
    assert_eq!(challenges(path(), 0), (1, false));
    assert_eq!(challenges(path(), 100), (2, true));
    assert_eq!(challenges(over_tcp(), 0), (2, true));
}

#[test]
fn a_short_request_of_a_phone_that_knows_md5_alone_is_challenged_with_md5() {
    let mut line = stranger();
    line.endpoint.set_users([("phone", "secret")].into_iter(), line.now);
    let register = Ask::new("REGISTER", 1).to_string().replace("sip:100@", "sip:phone@");
    // As short as phones send it, and shorter; then longer byte by byte.
    let short = "REGISTER sip:192.0.2.1 SIP/2.0\r\nv:SIP/2.0/UDP 10.0.0.10;branch=z9hG4bK1\r\n\
                 f:<sip:phone@192.0.2.1>;tag=1\r\nt:<sip:phone@192.0.2.1>\r\ni:1\r\n\
                 CSeq:1 REGISTER\r\nm:<sip:phone@10.0.0.10>\r\nX:";
    let (mut md5, mut both, mut none) = (0, 0, 0);
    let padded = (0..300).map(|more| format!("{short}{}\r\n\r\n", "x".repeat(more)));
    for request in padded.chain([register]) {
        line.receive(&request);
        let Some((_, answer)) = line.sent.pop() else {
            none += 1;
            continue;
        };
        assert!(answer.starts_with("SIP/2.0 401 "), "{answer}");
        assert!(answer.len() * 2 <= request.len() * 3, "{answer}");
        assert!(answer.contains("algorithm=MD5"), "{request}{answer}");
        match answer.contains("algorithm=SHA-256") {
            true => both += 1,
            false => md5 += 1,
        }
    }
    assert!(none < 60 && md5 > 60 && both > 60, "{none} {md5} {both}");

    // If the operator does not allow MD5, it is not offered.
    let digest = vec![Algorithm::Sha256];
    let config = EndpointConfig { digest, ..EndpointConfig::new("test".to_owned()) };
    let mut line = Line::of_stranger(config);
    line.endpoint.set_users([("phone", "secret")].into_iter(), line.now);
    line.receive(&Ask::new("REGISTER", 1).to_string().replace("sip:100@", "sip:phone@"));
    let answer = line.sent.pop().unwrap().1;
    assert!(answer.contains("SHA-256") && !answer.contains("MD5"), "{answer}");
}

/// Ways to refuse a call before it rings.
fn refusals(dialog: DialogId) -> [Command; 8] {
    let headers = vec![("Retry-After".to_owned(), "5".to_owned())];
    [
        Command::Challenge { dialog },
        refusal(dialog, Status::FORBIDDEN),
        refusal(dialog, Status::NOT_FOUND),
        refusal(dialog, Status::TEMPORARILY_UNAVAILABLE),
        refusal(dialog, Status::BUSY_HERE),
        refusal(dialog, Status::NOT_ACCEPTABLE_HERE),
        Command::Refuse {
            dialog,
            status: Status::SERVICE_UNAVAILABLE,
            reason: "No".to_owned(),
            headers,
        },
        Command::Bye { dialog, reason: None },
    ]
}

#[test]
fn a_refused_invite_of_a_stranger_gets_one_small_answer_and_is_forgotten() {
    let mut answered = 0;
    for has_users in [true, false] {
        for request in requests("INVITE") {
            for which in 0..8 {
                let mut line = stranger();
                if has_users {
                    line.endpoint.set_users([("phone", "secret")].into_iter(), line.now);
                }
                let request = request.replace("\r\nCSeq:1", "\r\nm:<sip:a>\r\nCSeq:1");
                line.receive(&request);
                assert!(line.sent.is_empty(), "not even 100");
                let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
                // The INVITE comes again before the call is decided.
                line.receive(&request);
                line.command(refusals(dialog)[which].clone());
                line.run_for(Duration::from_secs(40));
                let sent: usize = line.sent.iter().map(|(_, text)| text.len()).sum();
                assert!(line.sent.len() <= 1, "{:?}", line.sent);
                assert!(sent <= request.len() * 3, "{sent} bytes for twice\n{request}");
                assert!(line.endpoint.is_idle());
                answered += line.sent.len();
            }
        }
    }
    assert!(answered >= 16, "all that are in full, but only {answered}");
}

#[test]
fn a_merged_invite_of_a_stranger_gets_one_small_answer() {
    let mut line = stranger();
    line.receive_invite(&Ask::invite());
    let again = Ask::invite().branch("other-way").to_string();
    line.receive(&again);
    line.run_for(Duration::from_secs(40));
    let sent: usize = line.sent.iter().map(|(_, text)| text.len()).sum();
    assert!(sent * 2 <= again.len() * 3, "{sent}");
    assert_eq!(line.take_statuses(), [482]);
}

#[test]
fn a_stranger_that_asks_again_hears_the_same_and_its_ack_is_absorbed() {
    let mut line = stranger();
    let invite = Ask::invite();
    for _ in 0..2 {
        let dialog = line.receive_invite(&invite);
        line.command(refusal(dialog, Status::NOT_FOUND));
    }
    assert_eq!(line.sent[0].1, line.sent[1].1);
    assert_eq!(line.take_statuses(), [404, 404]);
    line.receive(&invite.ack_of_refusal(&line.tag).to_string());
    assert!(line.take().is_empty() && line.events.is_empty());
    assert!(line.endpoint.is_idle());
}

#[test]
fn a_stranger_that_gives_up_before_it_rings_hears_so_once() {
    let mut line = stranger();
    let invite = Ask::invite();
    line.receive_invite(&invite);
    line.receive(&invite.cancel().to_string());
    let tag = |text: &str| header(text, "To").unwrap().to_owned();
    assert_eq!(tag(&line.sent[0].1), tag(&line.sent[1].1));
    line.run_for(Duration::from_secs(40));
    assert_eq!(line.take_statuses(), [200, 487]);
    assert!(matches!(line.event(), Event::Canceled { .. }));
    assert!(line.endpoint.is_idle());
}

#[test]
fn over_a_stream_a_stranger_whose_call_rings_is_answered_as_anybody() {
    let mut line = stranger();
    line.receive_over(over_tcp(), &Ask::invite().to_string());
    let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
    line.command(Command::Ring { dialog });
    assert_eq!(line.take_statuses(), [100, 180]);
    line.answer(dialog);
    line.run_for(Duration::from_secs(33));
    let sent = line.take();
    let answers = sent.iter().filter(|line| line.starts_with("200 ")).count();
    assert_eq!((answers, sent.len()), (11, 12), "the BYE goes over a stream: {sent:?}");
}

#[test]
fn over_a_stream_a_stranger_is_refused_without_memory_too() {
    let mut line = stranger();
    line.receive_over(over_tcp(), &Ask::invite().to_string());
    let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
    line.command(refusal(dialog, Status::NOT_FOUND));
    assert_eq!(line.take_statuses(), [100, 404]);
    assert!(line.endpoint.is_idle());
}

#[test]
fn who_is_known_is_told_until_it_is_heard() {
    let known = |line: &mut Line| {
        line.sent.clear();
        let dialog = line.receive_invite(&Ask::invite().branch("known").call("known"));
        line.command(refusal(dialog, Status::NOT_FOUND));
        line.run_for(Duration::from_secs(33));
        line.take_statuses()
    };
    let mut line = stranger();
    assert_eq!(known(&mut line).len(), 1);

    line.endpoint.set_trusted_peers(vec!["192.0.2.10/32".parse().unwrap()]);
    assert_eq!(known(&mut line).len(), 12);
}

#[test]
fn strangers_leave_room_for_those_that_are_known_and_for_calls_that_are_up() {
    let config = EndpointConfig { max_transactions: 80, ..EndpointConfig::new("test".to_owned()) };
    let mut line = Line::of_stranger(config);
    line.endpoint.set_trusted_peers(vec!["192.0.2.10/32".parse().unwrap()]);
    line.confirm(&Ask::invite());
    let first_tag = line.tag.clone();

    for host in 1..=20 {
        for port in 1..=20 {
            let name = format!("{host}-{port}");
            let invite = Ask::invite().call(&name).branch(&name).to_string();
            line.receive_over(from(&format!("198.51.100.{host}:{port}")), &invite);
            if host == 1 {
                assert!(line.events.len() <= 10, "one of them has its share");
            }
        }
    }
    assert_eq!(line.events.len(), 59, "three quarters, the first call's INVITE included");
    assert!(line.take_statuses().iter().all(|status| *status == 503));
    line.events.clear();

    let info = Ask::new("INFO", 2).to(&first_tag).to_string();
    line.receive(&info);
    line.receive(&Ask::invite().call("known").branch("known").to_string());
    assert_eq!(line.take_statuses(), [200, 100]);
    assert!(matches!(line.event(), Event::Invite { .. }));
}

#[test]
fn a_stranger_in_a_call_cannot_take_the_room_of_all() {
    let config = EndpointConfig { max_transactions: 80, ..EndpointConfig::new("test".to_owned()) };
    let mut line = Line::of_stranger(config);
    line.confirm(&Ask::invite());
    let tag = line.tag.clone();
    for cseq in 2..40 {
        line.receive(&Ask::new("INFO", cseq).to(&tag).to_string());
    }
    let statuses = line.take_statuses();
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 9);
    assert!(statuses.iter().skip(9).all(|status| *status == 503));
    line.receive(&Ask::bye(&tag).cseq(40).to_string());
    assert_eq!(line.take_statuses(), [200], "it can always hang up");
}

#[test]
fn a_peer_that_has_acknowledged_a_call_is_known_until_it_ends() {
    let mut line = stranger();
    let known = |line: &Line| line.endpoint.known_peers().collect::<Vec<_>>();
    let dialog = line.receive_invite(&Ask::invite());
    line.answer(dialog);
    assert!(known(&line).is_empty(), "whoever has forged where it is never hears the answer");
    line.receive(&Ask::ack(&line.tag).to_string());
    assert_eq!(known(&line), [path().peer.ip()]);
    line.receive(&Ask::bye(&line.tag).to_string());
    assert!(known(&line).is_empty());
}

#[test]
fn a_page_of_somebody_is_a_stranger_wherever_it_is() {
    let page = Path { transport: Transport::Ws, is_foreign: true, ..over_tcp() };
    let mut line = stranger();
    line.endpoint.set_trusted_peers(vec!["192.0.2.10/32".parse().unwrap()]);
    assert!(line.endpoint.is_known_peer(over_tcp()));
    assert!(!line.endpoint.is_known_peer(page) && !line.endpoint.is_trusted(page));
    line.confirm(&Ask::invite());
    let replaces = format!("Replaces: call@192.0.2.10;to-tag={};from-tag=phone", line.tag);
    let takes_over = Ask::invite().call("second").branch("second").with(&replaces).to_string();
    for (path, status) in [(page, 403), (over_tcp(), 100)] {
        line.endpoint.handle_message(takes_over.as_bytes(), path, line.now);
        line.drain();
        assert_eq!(line.take_statuses(), [status]);
    }
}

/// Ways in which a caller may name a host from which nothing has come.
const ELSEWHERE: [&str; 6] = [
    "Record-Route: <sip:127.0.0.1:19610;transport=tcp;lr>",
    "Record-Route: <sip:198.51.100.9:5060;lr>",
    "Record-Route: <sip:198.51.100.9>",
    "Record-Route: <sips:198.51.100.9;lr>, <sip:198.51.100.8;lr>",
    "Record-Route: <sip:name.example;maddr=198.51.100.9;lr>",
    "Via: SIP/2.0/UDP 198.51.100.9:5060;branch=z9hG4bK-behind",
];

#[test]
fn a_route_set_or_contact_of_a_stranger_leads_nowhere_but_back() {
    let mut differ = 0;
    for elsewhere in ELSEWHERE {
        for over in [path(), over_tcp()] {
            let invite = Ask::invite().contact("sip:x@198.51.100.7:9").with(elsewhere);
            let mut line = stranger();
            let dialog = line.confirm_over(over, &invite);
            line.command(Command::Bye { dialog, reason: None });
            line.run_for(Duration::from_secs(40));
            assert!(line.paths.iter().all(|path| *path == over), "{elsewhere}: {:?}", line.paths);
            let bye = line.sent[0].1.clone();
            assert!(bye.starts_with("BYE "), "{bye}");
            let names_route =
                bye.contains("\r\nRoute: ") || bye.starts_with("BYE sip:198.51.100.9 ");
            assert_eq!(names_route, elsewhere.starts_with("Record-Route"), "{bye}");

            // A known caller gets requests at the host that it names.
            let mut line = stranger();
            line.endpoint.set_trusted_peers(vec!["192.0.2.10/32".parse().unwrap()]);
            let dialog = line.confirm_over(over, &invite);
            line.command(Command::Bye { dialog, reason: None });
            differ += usize::from(line.paths != [over]);
        }
    }
    assert!(differ >= 9, "{differ}");
}

#[test]
fn all_requests_of_a_strangers_call_go_back_to_it() {
    let elsewhere = "sip:x@198.51.100.7:9;transport=tcp";
    let refreshed = |line: &Line| line.paths.iter().all(|to| *to == path());
    for allow in ["INVITE, ACK, BYE", "INVITE, ACK, BYE, UPDATE"] {
        let invite = Ask::invite()
            .contact(elsewhere)
            .with(ELSEWHERE[0])
            .with("Supported: timer")
            .with("Session-Expires: 90;refresher=uas")
            .with(&format!("Allow: {allow}"));
        let mut line = stranger();
        let dialog = line.confirm_over(path(), &invite);
        // A session change with another Contact.
        let reinvite = Ask::reinvite(&line.tag, 2)
            .contact("sip:x@198.51.100.6:9")
            .with("Supported: timer")
            .with("Session-Expires: 90;refresher=uas");
        line.receive(&reinvite.to_string());
        assert!(matches!(line.event(), Event::Reinvite { .. }));
        line.answer(dialog);
        line.receive(&Ask::ack(&line.tag).cseq(2).to_string());
        line.paths.clear();
        line.run_for(Duration::from_secs(46));
        let refresh = line.sent.last().unwrap().1.clone();
        let (method, _) = refresh.split_once(' ').unwrap();
        assert!(matches!(method, "INVITE" | "UPDATE"), "{refresh}");
        let ok = respond(&refresh, "200 OK")
            .replace("Content-Length", "Contact: <sip:x@198.51.100.5:9>\r\nContent-Length");
        line.receive(&ok);
        assert!(refreshed(&line), "{:?}", line.paths);
        let last = &line.sent.last().unwrap().1;
        assert_eq!(last.starts_with("ACK sip:x@198.51.100.5:9 "), method == "INVITE", "{last}");

        let target = Box::new("sip:b@example.com".parse().unwrap());
        line.command(Command::Refer { dialog, target, replaces: None });
        line.command(Command::Bye { dialog, reason: None });
        let methods: Vec<String> = line.take();
        assert!(methods.iter().any(|line| line.starts_with("REFER sip:x@198.51.100.5:9 ")));
        assert!(methods.iter().any(|line| line.starts_with("BYE sip:x@198.51.100.5:9 ")));
        assert!(refreshed(&line), "{:?}", line.paths);
    }
}

#[test]
fn a_host_that_a_stranger_names_is_asked_once_it_has_been_heard() {
    let contact = from("198.51.100.9:5062");
    let invite = Ask::invite()
        .contact("sip:phone@198.51.100.9:5062")
        .with("Via: SIP/2.0/UDP 198.51.100.9:5062;branch=z9hG4bK-behind");
    let mut line = stranger();
    let dialog = line.receive_invite(&invite);
    line.answer(dialog);
    line.receive_over(from("198.51.100.66:9"), &Ask::ack("guessed").to_string());
    let tag = line.tag.clone();
    line.receive_over(contact, &Ask::ack(&tag).to_string());
    line.command(Command::Bye { dialog, reason: None });
    assert_eq!(line.last_path, contact);
}

#[test]
fn a_long_request_to_a_stranger_opens_no_stream() {
    let config = EndpointConfig { tcp_port: Some(5060), ..EndpointConfig::new("test".to_owned()) };
    let invite =
        Ask::invite().with(&format!("Record-Route: <sip:{}@192.0.2.10;lr>", "x".repeat(2_000)));
    let mut line = Line::of_stranger(config.clone());
    let dialog = line.confirm_over(path(), &invite);
    line.command(Command::Bye { dialog, reason: None });
    assert_eq!(line.last_path, path());

    let mut line = Line::with(config);
    let dialog = line.confirm_over(path(), &invite);
    line.command(Command::Bye { dialog, reason: None });
    assert_eq!(line.last_path.transport, Transport::Tcp);
}

#[test]
fn a_caller_is_heard_once_it_has_sent_our_tag() {
    let shows = |message: &dyn Fn(&str) -> Ask| {
        let mut line = stranger();
        let dialog = line.receive_invite(&Ask::invite());
        line.answer(dialog);
        assert_eq!(line.heard, 0);
        let tag = line.tag.clone();
        line.receive(&message(&tag).to_string());
        let heard = line.heard;
        line.receive(&Ask::bye(&tag).to_string());
        assert!(line.heard == 1, "a BYE shows it, and it is told once");
        heard
    };
    assert_eq!(shows(&|tag| Ask::ack(tag)), 1);
    assert_eq!(shows(&|tag| Ask::new("INFO", 2).to(tag)), 1);
    assert_eq!(shows(&|_| Ask::invite()), 0);
    assert_eq!(shows(&|_| Ask::invite().cancel()), 0);
    assert_eq!(shows(&|_| Ask::ack("guessed")), 0);

    let mut line = stranger();
    let invite = Ask::invite().with("Require: 100rel").with(&format!("X: {}", "x".repeat(500)));
    let dialog = line.receive_invite(&invite);
    line.command(Command::Ring { dialog });
    line.receive(&invite.to_string());
    let rseq = header(&line.sent.last().unwrap().1, "RSeq").unwrap().to_owned();
    let prack = Ask::new("PRACK", 2).to(&line.tag).with(&format!("RAck: {rseq} 1 INVITE"));
    line.receive(&prack.to_string());
    assert_eq!(line.heard, 1);

    let mut line = Line::new();
    line.confirm(&Ask::invite());
    assert_eq!(line.heard, 0, "who is known needs not");
}

#[test]
fn a_half_open_call_makes_room_at_once_and_nothing_of_it_stays() {
    let make_room = |dialog| Command::MakeRoom { dialog };
    let mut line = stranger();
    let dialog = line.receive_invite(&Ask::invite());
    line.command(make_room(dialog));
    assert_eq!(line.take_statuses(), [503]);
    assert!(line.endpoint.is_idle() && line.events.is_empty());

    let long = Ask::invite().with(&format!("X: {}", "x".repeat(600)));
    let dialog = line.receive_invite(&long);
    line.answer(dialog);
    line.sent.clear();
    line.command(make_room(dialog));
    assert!(line.endpoint.is_idle() && line.events.is_empty());
    let sent = line.take();
    assert!(sent.len() == 1 && sent[0].starts_with("BYE "), "{sent:?}");
    line.receive(&Ask::ack(&line.tag.clone()).to_string());
    assert!(line.take().is_empty() && line.events.is_empty());
    // The caller is there after all, and tries again.
    line.confirm(&Ask::invite());

    // A caller that has sent our tag back is hung up like any other.
    let mut line = stranger();
    let dialog = line.confirm(&Ask::invite());
    line.command(make_room(dialog));
    let bye = line.sent.last().unwrap().1.clone();
    line.receive(&respond(&bye, "200 OK"));
    assert!(matches!(line.event(), Event::Ended { how: Ending::Answered, .. }));
}
