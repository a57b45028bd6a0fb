//! Outgoing calls, with all that a network and the called phones may do to them.

use std::net::IpAddr;

use super::*;
use crate::proto::sip::{Status, digest::Credentials, path::ConnectionId};

pub(super) const ANSWER: &str = "v=0\r\no=- 2 2 IN IP4 192.0.2.10\r\ns=-\r\nt=0 0\r\n";
pub(super) const DIALOG: DialogId = DialogId(DialogId::FIRST_OUTGOING);

#[test]
fn a_call_rings_is_answered_and_hung_up() {
    let mut line = Line::new();
    let invite = line.call(call());
    assert!(invite.starts_with("INVITE sip:200@pbx.example SIP/2.0\r\n"), "{invite}");
    assert!(invite.contains("\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK"), "{invite}");
    assert!(invite.contains("\r\nFrom: <sip:bot@pbx.example>;tag="), "{invite}");
    assert!(invite.contains("\r\nContact: <sip:aftertone@192.0.2.1:5060>\r\n"), "{invite}");
    assert!(invite.contains("\r\nX-Own: 1\r\n"), "{invite}");
    assert!(invite.contains("\r\nSupported: 100rel, timer, replaces\r\n"), "{invite}");
    assert!(invite.ends_with(OFFER), "{invite}");

    line.receive(&respond(&invite, "100 Trying"));
    line.receive(&Reply::to(&invite, "180 Ringing").tag("a").to_string());
    assert!(matches!(line.event(), Event::Progress { status: Status::RINGING, .. }));
    line.sent.clear();
    line.run_for(Duration::from_secs(60));
    assert!(line.take().is_empty(), "nothing is repeated while it rings");

    let ok = Reply::to(&invite, "200 OK").tag("a").sdp(ANSWER).to_string();
    line.receive(&ok);
    let Event::Answered { description, .. } = line.event() else { panic!("no answer") };
    assert_eq!(description.as_deref(), Some(ANSWER.as_bytes()));
    let ack = line.sent.last().unwrap().1.clone();
    assert!(ack.starts_with("ACK sip:phone@192.0.2.10:5062 SIP/2.0\r\n"), "{ack}");
    assert!(header(&ack, "To").unwrap().ends_with(";tag=a"), "{ack}");
    line.receive(&ok);
    assert_eq!(line.sent.last().unwrap().1, ack, "each 2xx gets the same ACK");

    line.sent.clear();
    line.command(Command::Bye { dialog: DIALOG, reason: None });
    let bye = line.sent.last().unwrap().1.clone();
    assert_eq!(header(&bye, "CSeq"), Some("2 BYE"));
    line.receive(&respond(&bye, "200 OK"));
    assert!(matches!(line.event(), Event::Ended { .. }));
    line.must_become_idle();
}

#[test]
fn the_peer_hangs_up_a_call_of_ours() {
    let mut line = Line::new();
    let invite = line.answered(call());
    let tag = header(&invite, "From").unwrap().split(";tag=").nth(1).unwrap();
    let bye = format!(
        "BYE sip:aftertone@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKb\r\n\
         From: <sip:200@pbx.example>;tag=a\r\nTo: <sip:bot@pbx.example>;tag={tag}\r\n\
         Call-ID: {}\r\nCSeq: 7 BYE\r\nContent-Length: 0\r\n\r\n",
        header(&invite, "Call-ID").unwrap()
    );
    line.receive(&bye);
    assert_eq!(line.take_statuses(), [200]);
    assert!(matches!(line.event(), Event::Bye { .. }));
    line.must_become_idle();
}

#[test]
fn an_invite_without_any_answer_is_repeated_and_given_up() {
    let mut line = Line::new();
    line.call(call());
    line.run_for(Duration::from_secs(40));
    assert_eq!(line.take().len(), 7);
    assert!(matches!(line.event(), Event::Refused { status: Status::REQUEST_TIMEOUT, .. }));
    assert!(line.endpoint.is_idle());
}

#[test]
fn the_next_target_is_tried_when_one_is_silent_full_or_not_there() {
    let second: Path = Path { peer: "192.0.2.20:5060".parse().unwrap(), ..path() };
    let third = Path { peer: "192.0.2.30:5060".parse().unwrap(), ..path() };
    let fourth = Path { peer: "192.0.2.40:5060".parse().unwrap(), ..path() };
    let mut line = Line::new();
    line.call(OutgoingCall { targets: vec![path(), second, third, fourth], ..call() });
    line.run_for(Duration::from_secs(32));
    assert_eq!(line.last_path, second);
    let invite = line.sent.last().unwrap().1.clone();
    assert_eq!(header(&invite, "CSeq"), Some("2 INVITE"));
    line.receive(&Reply::to(&invite, "503 Service Unavailable").tag("x").to_string());
    assert_eq!(line.last_path, third);
    line.endpoint.handle_unreachable(third, line.now);
    line.drain();
    assert_eq!(line.last_path, fourth);
    assert!(line.events.is_empty());
    let invite = line.sent.last().unwrap().1.clone();
    line.receive(&Reply::to(&invite, "404 Not Found").tag("y").to_string());
    assert!(matches!(line.event(), Event::Refused { status: Status::NOT_FOUND, .. }));
    line.must_become_idle();
}

#[test]
fn the_next_phone_is_called_when_one_is_silent_or_not_there_but_not_when_it_is_busy() {
    let phone = |number: u8| Place {
        targets: vec![Path { peer: ([192, 0, 2, number], 5060).into(), ..path() }],
        request_uri: format!("sip:phone-{number}@192.0.2.{number}").parse().unwrap(),
        routes: vec![format!("<sip:proxy-{number}.example;lr>").parse().unwrap()],
    };
    let mut line = Line::new();
    line.call(OutgoingCall { further: (20..24).map(phone).collect(), ..call() });
    line.run_for(Duration::from_secs(32));
    for (number, answer) in [(20, "480 Gone"), (21, "404 Not Found"), (22, "503 Full")] {
        let invite = line.sent.last().unwrap().1.clone();
        assert_eq!(line.last_path.peer.ip(), IpAddr::from([192, 0, 2, number]));
        let first = format!("INVITE sip:phone-{number}@192.0.2.{number} SIP/2.0\r\n");
        assert!(invite.starts_with(&first), "{invite}");
        let route = format!("<sip:proxy-{number}.example;lr>");
        assert_eq!(header(&invite, "Route"), Some(route.as_str()));
        assert!(line.events.is_empty());
        line.receive(&Reply::to(&invite, answer).tag("x").to_string());
    }
    let invite = line.sent.last().unwrap().1.clone();
    line.receive(&Reply::to(&invite, "486 Busy Here").tag("x").to_string());
    assert!(matches!(line.event(), Event::Refused { status: Status::BUSY_HERE, .. }));
    line.must_become_idle();

    let mut line = Line::new();
    let invite = line.call(OutgoingCall { further: vec![phone(20)], ..call() });
    line.receive(&Reply::to(&invite, "486 Busy Here").tag("x").to_string());
    assert!(matches!(line.event(), Event::Refused { status: Status::BUSY_HERE, .. }));
}

#[test]
fn a_refusal_is_acknowledged_each_time_and_told_once() {
    let mut line = Line::new();
    let invite = line.call(call());
    let busy = Reply::to(&invite, "486 Busy Here").tag("a").to_string();
    line.receive(&busy);
    line.receive(&busy);
    let sent: Vec<String> = line.sent.drain(..).map(|(_, text)| text).collect();
    assert_eq!(sent.len(), 3);
    assert_eq!(sent[1], sent[2]);
    assert!(sent[1].starts_with("ACK sip:200@pbx.example SIP/2.0\r\n"), "{}", sent[1]);
    assert_eq!(header(&sent[1], "Via"), header(&invite, "Via"));
    let Event::Refused { status, reason, .. } = line.event() else { panic!("not refused") };
    assert_eq!((status, reason.as_str()), (Status::BUSY_HERE, "Busy Here"));
    assert!(line.events.is_empty());
    line.must_become_idle();
}

#[test]
fn a_redirection_is_not_followed_but_told() {
    let mut line = Line::new();
    let invite = line.call(call());
    let moved = Reply::to(&invite, "302 Moved Temporarily").tag("a").contact("sip:+881@evil");
    line.receive(&moved.to_string());
    let Event::Refused { status: Status::MOVED_TEMPORARILY, contacts, .. } = line.event() else {
        panic!("no event")
    };
    assert_eq!(contacts[0].uri().to_string(), "sip:+881@evil");
    assert_eq!(line.take().len(), 2, "INVITE and ACK");
}

#[test]
fn hanging_up_while_it_rings_cancels() {
    let mut line = Line::new();
    let invite = line.call(call());
    line.receive(&Reply::to(&invite, "180 Ringing").tag("a").to_string());
    line.events.clear();
    let reason = Some("Q.850;cause=19;text=\"No answer from user\"".to_owned());
    line.command(Command::Bye { dialog: DIALOG, reason: reason.clone() });
    let cancel = line.sent.last().unwrap().1.clone();
    assert!(cancel.starts_with("CANCEL sip:200@pbx.example SIP/2.0\r\n"), "{cancel}");
    assert_eq!(header(&cancel, "Reason"), reason.as_deref());
    assert_eq!(header(&cancel, "Via"), header(&invite, "Via"));
    assert_eq!(header(&cancel, "CSeq"), Some("1 CANCEL"));
    line.receive(&respond(&cancel, "200 OK"));
    assert!(line.events.is_empty());
    line.receive(&Reply::to(&invite, "487 Request Terminated").tag("a").to_string());
    assert!(matches!(line.event(), Event::Ended { how: Ending::Answered, .. }));
    line.must_become_idle();
}

#[test]
fn hanging_up_before_any_response_waits_for_the_first() {
    let mut line = Line::new();
    let invite = line.call(call());
    line.command(Command::Bye { dialog: DIALOG, reason: None });
    line.sent.clear();
    line.receive(&respond(&invite, "100 Trying"));
    assert!(line.take()[0].starts_with("CANCEL "));
    line.receive(&Reply::to(&invite, "487 Request Terminated").tag("a").to_string());
    assert!(matches!(line.event(), Event::Ended { .. }));
    line.must_become_idle();
}

#[test]
fn a_canceled_call_that_is_answered_all_the_same_is_hung_up() {
    let mut line = Line::new();
    let invite = line.call(call());
    line.receive(&respond(&invite, "100 Trying"));
    line.command(Command::Bye { dialog: DIALOG, reason: None });
    line.sent.clear();
    line.receive(&Reply::to(&invite, "200 OK").tag("a").sdp(ANSWER).to_string());
    let sent: Vec<String> = line.sent.drain(..).map(|(_, text)| text).collect();
    assert!(sent[0].starts_with("ACK "), "{sent:?}");
    assert!(sent[1].starts_with("BYE "), "{sent:?}");
    line.receive(&respond(&sent[1], "200 OK"));
    assert!(matches!(line.event(), Event::Ended { .. }));
    assert!(line.events.is_empty());
    line.must_become_idle();
}

#[test]
fn a_cancel_that_nobody_answers_ends_after_64_t1() {
    let mut line = Line::new();
    let invite = line.call(call());
    line.receive(&respond(&invite, "100 Trying"));
    line.command(Command::Bye { dialog: DIALOG, reason: None });
    line.run_for(Duration::from_secs(32));
    assert!(matches!(line.event(), Event::Ended { how: Ending::TimedOut, .. }));
    line.must_become_idle();
}

#[test]
fn the_first_fork_that_answers_wins_and_the_others_are_hung_up() {
    let mut line = Line::new();
    let invite = line.call(call());
    for tag in ["a", "b", "c"] {
        line.receive(&Reply::to(&invite, "180 Ringing").tag(tag).to_string());
    }
    line.events.clear();
    line.receive(&Reply::to(&invite, "200 OK").tag("b").sdp(ANSWER).to_string());
    assert!(matches!(line.event(), Event::Answered { .. }));
    line.sent.clear();
    let late = Reply::to(&invite, "200 OK").tag("c").sdp(ANSWER).to_string();
    line.receive(&late);
    let sent: Vec<String> = line.sent.drain(..).map(|(_, text)| text).collect();
    assert!(sent[0].starts_with("ACK "), "{sent:?}");
    assert!(sent[1].starts_with("BYE "), "{sent:?}");
    assert!(sent.iter().all(|text| header(text, "To").unwrap().ends_with(";tag=c")), "{sent:?}");
    line.receive(&late);
    assert_eq!(line.sent[0].1, sent[0]);
    assert_eq!(line.sent.len(), 1, "one BYE is enough");
    line.receive(&respond(&sent[1], "200 OK"));
    assert!(line.events.is_empty(), "no call hears of it");
    assert_eq!(line.endpoint.dialogs(), 1);
}

/// A 2xx of the fork with this tag that makes no dialog.
fn unusable(invite: &str, tag: &str) -> String {
    let ok = Reply::to(invite, "200 OK").tag(tag).raw_contact("Contact: <sip:x\r\n");
    ok.sdp(ANSWER).to_string()
}

#[test]
fn a_fork_with_a_usable_answer_is_the_call_though_another_answered_first() {
    for rings in [true, false] {
        let mut line = Line::new();
        let invite = line.call(call());
        for tag in ["a", "b"].into_iter().filter(|_| rings) {
            line.receive(&Reply::to(&invite, "180 Ringing").tag(tag).to_string());
        }
        line.events.clear();
        line.sent.clear();
        line.receive(&unusable(&invite, "a"));
        let sent: Vec<String> = line.sent.drain(..).map(|(_, text)| text).collect();
        assert!(sent[0].starts_with("ACK "), "{sent:?}");
        assert!(sent[1].starts_with("BYE "), "{sent:?}");
        assert!(sent.iter().all(|text| header(text, "To").unwrap().ends_with(";tag=a")));
        line.receive(&respond(&sent[1], "200 OK"));
        // A fork that rings may take until the end of the transaction.
        line.run_for(if rings { Duration::from_secs(31) } else { Duration::from_secs(3) });
        assert!(line.events.is_empty(), "the call has not failed yet");
        line.receive(&Reply::to(&invite, "200 OK").tag("b").sdp(ANSWER).to_string());
        assert!(matches!(line.event(), Event::Answered { .. }));
        let ack = line.sent.last().unwrap().1.clone();
        assert!(header(&ack, "To").unwrap().ends_with(";tag=b"), "{ack}");
        line.sent.clear();
        line.receive(&unusable(&invite, "a"));
        assert_eq!(line.sent.len(), 1, "the ACK again, no second BYE");
        assert_eq!(line.sent[0].1, sent[0]);
        line.run_for(Duration::from_secs(40));
        assert!(line.events.is_empty(), "the call goes on");
        line.sent.clear();
        line.command(Command::Bye { dialog: DIALOG, reason: None });
        let bye = line.sent.last().unwrap().1.clone();
        assert!(header(&bye, "To").unwrap().ends_with(";tag=b"), "{bye}");
        line.receive(&respond(&bye, "200 OK"));
        assert!(matches!(line.event(), Event::Ended { .. }));
        line.must_become_idle();
    }
}

#[test]
fn a_call_whose_forks_all_give_unusable_answers_fails_once() {
    let mut line = Line::new();
    let invite = line.call(call());
    line.receive(&Reply::to(&invite, "180 Ringing").tag("b").to_string());
    line.events.clear();
    line.receive(&unusable(&invite, "a"));
    line.run_for(Duration::from_secs(10));
    assert!(line.events.is_empty(), "b rings");
    line.receive(&unusable(&invite, "b"));
    line.run_for(Duration::from_secs(4));
    assert!(matches!(line.event(), Event::Lost { how: Loss::Unusable, .. }));
    assert!(matches!(line.event(), Event::Ended { .. }));
    line.sent.clear();
    line.receive(&Reply::to(&invite, "200 OK").tag("c").sdp(ANSWER).to_string());
    let sent = line.take();
    assert!(sent[0].starts_with("ACK ") && sent[1].starts_with("BYE "), "too late: {sent:?}");
    assert!(line.events.is_empty());
    line.must_become_idle();

    let mut line = Line::new();
    let invite = line.call(call());
    line.receive(&Reply::to(&invite, "180 Ringing").tag("b").to_string());
    line.receive(&unusable(&invite, "a"));
    line.events.clear();
    line.run_for(Duration::from_secs(33));
    assert!(matches!(line.event(), Event::Lost { how: Loss::Unusable, .. }));
    assert!(matches!(line.event(), Event::Ended { .. }));
    assert!(line.events.is_empty());
    line.must_become_idle();
}

#[test]
fn hanging_up_after_an_unusable_answer_ends_the_call() {
    let mut line = Line::new();
    let invite = line.call(call());
    line.receive(&unusable(&invite, "a"));
    line.command(Command::Bye { dialog: DIALOG, reason: None });
    assert!(matches!(line.event(), Event::Ended { .. }));
    line.sent.clear();
    line.receive(&Reply::to(&invite, "200 OK").tag("b").sdp(ANSWER).to_string());
    let sent = line.take();
    assert!(sent[0].starts_with("ACK ") && sent[1].starts_with("BYE "), "{sent:?}");
    line.must_become_idle();
    assert!(line.events.is_empty());
}

#[test]
fn reliable_responses_are_acknowledged_in_order_once() {
    let mut line = Line::new();
    let invite = line.call(call());
    line.sent.clear();
    let ringing = |rseq: u32| {
        Reply::to(&invite, "183 Session Progress")
            .tag("a")
            .with("Require: 100rel")
            .with(&format!("RSeq: {rseq}"))
            .sdp(ANSWER)
            .to_string()
    };
    line.receive(&ringing(41));
    let prack = line.sent[0].1.clone();
    assert!(prack.starts_with("PRACK sip:phone@192.0.2.10:5062 SIP/2.0\r\n"), "{prack}");
    assert_eq!(header(&prack, "RAck"), Some("41 1 INVITE"));
    assert_eq!(header(&prack, "CSeq"), Some("2 PRACK"));
    assert!(matches!(line.event(), Event::Progress { status: Status::SESSION_PROGRESS, .. }));
    line.receive(&respond(&prack, "200 OK"));
    line.receive(&ringing(41));
    line.receive(&ringing(43));
    assert_eq!(line.sent.len(), 1, "again, or too early");
    line.receive(&ringing(42));
    assert_eq!(header(&line.sent[1].1, "RAck"), Some("42 1 INVITE"));
    assert_eq!(header(&line.sent[1].1, "CSeq"), Some("3 PRACK"));
}

/// A reliable provisional response of the fork with this tag.
pub(super) fn reliably(invite: &str, status: &str, tag: &str, rseq: u32) -> Reply {
    Reply::to(invite, status).tag(tag).with("Require: 100rel").with(&format!("RSeq: {rseq}"))
}

#[test]
fn our_requests_are_counted_on_when_the_early_dialog_is_one() {
    let mut line = Line::new();
    let invite = line.call(call());
    line.receive(&reliably(&invite, "183 Session Progress", "a", 1).sdp(ANSWER).to_string());
    line.receive(&reliably(&invite, "180 Ringing", "a", 2).to_string());
    line.receive(&Reply::to(&invite, "200 OK").tag("a").to_string());
    line.command(Command::Bye { dialog: DIALOG, reason: None });
    let numbers: Vec<&str> =
        line.sent.iter().filter_map(|(_, request)| header(request, "CSeq")).collect();
    assert_eq!(numbers, ["1 INVITE", "2 PRACK", "3 PRACK", "1 ACK", "4 BYE"]);
}

#[test]
fn the_200_says_where_the_early_dialog_goes_on() {
    let mut line = Line::new();
    let invite = line.call(call());
    line.receive(
        &Reply::to(&invite, "180 Ringing").tag("a").contact("sip:old@192.0.2.77").to_string(),
    );
    let ok = Reply::to(&invite, "200 OK").tag("a").with("Record-Route: <sip:192.0.2.50;lr>");
    line.receive(&ok.sdp(ANSWER).to_string());
    let ack = line.sent.last().unwrap().1.clone();
    assert!(ack.starts_with("ACK sip:phone@192.0.2.10:5062 SIP/2.0\r\n"), "{ack}");
    assert_eq!(header(&ack, "Route"), Some("<sip:192.0.2.50;lr>"));
}

/// A request of the ringing phone within the early dialog.
pub(super) fn early(invite: &str, method: &str, cseq: u32) -> Ask {
    let tag = header(invite, "From").unwrap().split(";tag=").nth(1).unwrap();
    Ask::new(method, cseq).call("our-call").to(tag)
}

#[test]
fn whoever_rings_is_heard_before_it_answers() {
    let mut line = Line::new();
    let invite = line.call(call());
    line.receive(&early(&invite, "INFO", 1).to_string());
    line.receive(&Reply::to(&invite, "183 Session Progress").tag("phone").to_string());
    line.sent.clear();
    line.receive(&early(&invite, "INFO", 2).to_string());
    line.receive(&early(&invite, "UPDATE", 3).to_string());
    let ok = line.sent.last().unwrap().1.clone();
    assert_eq!(header(&ok, "Contact"), Some("<sip:aftertone@192.0.2.1:5060>"));
    line.receive(&early(&invite, "UPDATE", 4).body("application/sdp", OFFER).to_string());
    line.receive(&early(&invite, "INVITE", 5).body("application/sdp", OFFER).to_string());
    line.receive(&early(&invite, "BYE", 6).to_string());
    line.receive(&early(&invite, "INFO", 2).branch("old").to_string());
    assert_eq!(line.take_statuses(), [200, 200, 491, 491, 481, 500]);

    let answer = reliably(&invite, "183 Session Progress", "phone", 7).sdp(ANSWER);
    line.receive(&answer.to_string());
    line.sent.clear();
    line.receive(&early(&invite, "UPDATE", 7).body("application/sdp", OFFER).to_string());
    assert!(header(&line.sent[0].1, "Retry-After").is_some(), "{}", line.sent[0].1);
    assert_eq!(line.take_statuses(), [500]);
    line.receive(&Reply::to(&invite, "200 OK").tag("phone").to_string());
    line.sent.clear();
    line.receive(&early(&invite, "INFO", 6).branch("late").to_string());
    line.receive(&early(&invite, "BYE", 8).to_string());
    assert_eq!(line.take_statuses(), [500, 200], "the numbers of the peer go on as well");
}

#[test]
fn a_request_of_nobody_who_rings_is_answered_481() {
    let mut line = Line::new();
    let invite = line.call(call());
    line.receive(&Reply::to(&invite, "180 Ringing").tag("a").to_string());
    line.sent.clear();
    line.receive(&early(&invite, "UPDATE", 1).to_string());
    line.receive(&Reply::to(&invite, "486 Busy Here").tag("phone").to_string());
    line.receive(&early(&invite, "UPDATE", 2).to_string());
    assert_eq!(line.take().into_iter().filter(|text| text.starts_with("481 ")).count(), 2);
    line.must_become_idle();
}

#[test]
fn only_the_answer_of_who_has_answered_counts() {
    let other = ANSWER.replace("192.0.2.10", "192.0.2.66");
    for (with_own, expected) in [(true, ANSWER), (false, other.as_str())] {
        let mut line = Line::new();
        let invite = line.call(call());
        if with_own {
            let own = reliably(&invite, "183 Session Progress", "a", 1).sdp(ANSWER);
            line.receive(&own.to_string());
        }
        let unreliable = Reply::to(&invite, "183 Session Progress").tag("a").sdp(&other);
        line.receive(&unreliable.to_string());
        let theirs = reliably(&invite, "183 Session Progress", "b", 1).sdp(&other);
        line.receive(&theirs.to_string());
        line.events.clear();
        line.receive(&Reply::to(&invite, "200 OK").tag("a").to_string());
        let Event::Answered { description, .. } = line.event() else { panic!("no answer") };
        assert_eq!(description.as_deref(), Some(expected.as_bytes()));
    }
}

#[test]
fn each_fork_that_answers_too_late_is_hung_up_however_many_there_are() {
    let mut line = Line::new();
    let invite = line.answered(call());
    for fork in 0..40 {
        let tag = format!("late-{fork}");
        let ok = Reply::to(&invite, "200 OK").tag(&tag).sdp(ANSWER).to_string();
        line.receive(&ok);
        let sent: Vec<String> = line.sent.drain(..).map(|(_, text)| text).collect();
        assert!(sent[0].starts_with("ACK "), "{sent:?}");
        assert!(sent[1].starts_with("BYE "), "{sent:?}");
        assert!(sent.iter().all(|text| text.contains(&format!(";tag={tag}\r\n"))), "{sent:?}");
        line.receive(&ok);
        let again: Vec<String> = line.sent.drain(..).map(|(_, text)| text).collect();
        assert_eq!(again, sent[..again.len()], "the same, be it with the BYE or without");
    }
    assert_eq!(line.endpoint.dialogs(), 1);
    assert!(line.events.is_empty(), "no call hears of it");
}

#[test]
fn the_ack_of_a_200_says_nothing_of_the_call() {
    let mut line = Line::new();
    let headers =
        ["Subject", "Replaces", "Referred-By"].map(|name| (name.to_owned(), "x".to_owned()));
    let invite = line.call(OutgoingCall { headers: headers.to_vec(), ..call() });
    line.receive(&Reply::to(&invite, "200 OK").tag("a").sdp(ANSWER).to_string());
    let ack = line.sent.last().unwrap().1.clone();
    for name in ["Subject", "Replaces", "Referred-By"] {
        assert_eq!(header(&invite, name), Some("x"));
        assert_eq!(header(&ack, name), None, "{ack}");
    }
}

#[test]
fn requests_follow_the_record_route_of_the_answer() {
    let mut line = Line::new();
    let invite = line.call(call());
    let ok = Reply::to(&invite, "200 OK")
        .tag("a")
        .with("Record-Route: <sip:192.0.2.51;lr>, <sip:192.0.2.50:5070;lr>")
        .sdp(ANSWER);
    line.receive(&ok.to_string());
    let ack = line.sent.last().unwrap().1.clone();
    assert!(ack.starts_with("ACK sip:phone@192.0.2.10:5062 SIP/2.0\r\n"), "{ack}");
    let routes: Vec<&str> = ack.lines().filter_map(|line| line.strip_prefix("Route: ")).collect();
    assert_eq!(routes, ["<sip:192.0.2.50:5070;lr>", "<sip:192.0.2.51;lr>"]);
    assert_eq!(line.last_path.peer, "192.0.2.50:5070".parse().unwrap());
}

#[test]
fn a_contact_behind_a_nat_is_reached_where_its_answer_came_from() {
    let mut line = Line::new();
    let invite = line.call(call());
    line.receive(&Reply::to(&invite, "200 OK").tag("a").contact("sip:x@10.9.9.9").to_string());
    let ack = line.sent.last().unwrap().1.clone();
    assert!(ack.starts_with("ACK sip:x@10.9.9.9 SIP/2.0\r\n"), "{ack}");
    assert_eq!(line.last_path, path());
}

#[test]
fn a_long_invite_goes_over_tcp_and_back_to_datagrams_if_that_fails() {
    let config = EndpointConfig { tcp_port: Some(5070), ..EndpointConfig::new("test".to_owned()) };
    let mut line = Line::with(config);
    let headers = vec![("X-Long".to_owned(), "x".repeat(1_300))];
    let invite = line.call(OutgoingCall { headers, ..call() });
    assert!(invite.contains("Via: SIP/2.0/TCP 192.0.2.1:5070;"), "{invite}");
    assert_eq!(line.last_path.transport, Transport::Tcp);
    assert_eq!(line.last_path.peer, path().peer);
    line.endpoint.handle_unreachable(line.last_path, line.now);
    line.drain();
    assert_eq!(line.last_path, path());
    let invite = line.sent.last().unwrap().1.clone();
    assert!(invite.contains("Via: SIP/2.0/UDP 192.0.2.1:5060;"), "{invite}");
    line.endpoint.handle_unreachable(path(), line.now);
    line.drain();
    assert!(matches!(line.event(), Event::Refused { status: Status::SERVICE_UNAVAILABLE, .. }));
}

#[test]
fn a_peer_with_a_longer_least_interval_gets_it() {
    let mut line = Line::new();
    let invite = line.call(call());
    assert_eq!(header(&invite, "Session-Expires"), Some("1800"));
    let small = Reply::to(&invite, "422 Session Interval Too Small").tag("a").with("Min-SE: 3600");
    line.receive(&small.to_string());
    let invite = line.sent.last().unwrap().1.clone();
    assert_eq!(header(&invite, "Session-Expires"), Some("3600"));
    assert_eq!(header(&invite, "CSeq"), Some("2 INVITE"));
    let small = Reply::to(&invite, "422 Session Interval Too Small").tag("a").with("Min-SE: 3600");
    line.receive(&small.to_string());
    assert!(matches!(
        line.event(),
        Event::Refused { status: Status::SESSION_INTERVAL_TOO_SMALL, .. }
    ));
}

#[test]
fn a_longer_interval_is_granted_twice_and_the_longest_is_remembered() {
    let mut line = Line::new();
    let mut invite = line.call(call());
    for (least, cseq) in [(3_600, "2 INVITE"), (7_200, "3 INVITE")] {
        let small = Reply::to(&invite, "422 Session Interval Too Small").tag("a");
        line.receive(&small.with(&format!("Min-SE: {least}")).to_string());
        invite = line.sent.last().unwrap().1.clone();
        assert_eq!(header(&invite, "CSeq"), Some(cseq));
        assert_eq!(header(&invite, "Session-Expires"), Some(least.to_string().as_str()));
        assert_eq!(header(&invite, "Min-SE"), Some(least.to_string().as_str()));
    }
    let small = Reply::to(&invite, "422 Session Interval Too Small").tag("a").with("Min-SE: 9000");
    line.receive(&small.to_string());
    assert!(matches!(
        line.event(),
        Event::Refused { status: Status::SESSION_INTERVAL_TOO_SMALL, .. }
    ));
}

pub(super) const CHALLENGE: &str =
    "WWW-Authenticate: Digest realm=\"pbx.example\", nonce=\"n1\", qop=\"auth\"";

pub(super) fn call_with_password() -> OutgoingCall {
    let credentials = Credentials {
        username: "bot".to_owned(),
        password: "secret".to_owned(),
        realm: Some("pbx.example".to_owned()),
    };
    OutgoingCall { credentials: Some(credentials), ..call() }
}

#[test]
fn a_challenge_of_the_trunk_is_answered_and_the_ack_repeats_it() {
    let mut line = Line::new();
    let invite = line.call(call_with_password());
    line.receive(&Reply::to(&invite, "401 Unauthorized").tag("x").with(CHALLENGE).to_string());
    let again = line.sent.last().unwrap().1.clone();
    let authorization = header(&again, "Authorization").unwrap();
    assert!(authorization.contains("username=\"bot\", realm=\"pbx.example\""), "{authorization}");
    assert_eq!(header(&again, "CSeq"), Some("2 INVITE"));
    assert_eq!(header(&again, "Call-ID"), header(&invite, "Call-ID"));
    line.receive(&Reply::to(&again, "200 OK").tag("a").sdp(ANSWER).to_string());
    let ack = line.sent.last().unwrap().1.clone();
    assert_eq!(header(&ack, "Authorization"), Some(authorization));
    assert_eq!(header(&ack, "CSeq"), Some("2 ACK"));
    line.events.clear();

    line.command(Command::Bye { dialog: DIALOG, reason: None });
    let bye = line.sent.last().unwrap().1.clone();
    line.receive(
        &Reply::to(&bye, "407 Proxy Authentication Required")
            .with(&CHALLENGE.replace("WWW", "Proxy"))
            .to_string(),
    );
    let bye = line.sent.last().unwrap().1.clone();
    assert!(header(&bye, "Proxy-Authorization").is_some(), "{bye}");
    assert!(line.events.is_empty());
    line.receive(&respond(&bye, "200 OK"));
    assert!(matches!(line.event(), Event::Ended { .. }));
    line.must_become_idle();
}

/// The challenge of a proxy of the trunk.
fn proxy_challenge(nonce: u32) -> String {
    format!("Proxy-Authenticate: Digest realm=\"pbx.example\", nonce=\"p{nonce}\", qop=\"auth\"")
}

#[test]
fn a_proxy_and_who_is_behind_it_may_both_ask_who_we_are() {
    let mut line = Line::new();
    let invite = line.call(call_with_password());
    let refused = Reply::to(&invite, "407 Proxy Authentication Required").tag("x");
    line.receive(&refused.with(&proxy_challenge(1)).to_string());
    let invite = line.sent.last().unwrap().1.clone();
    assert_eq!(header(&invite, "Authorization"), None);
    line.receive(&Reply::to(&invite, "401 Unauthorized").tag("y").with(CHALLENGE).to_string());
    let invite = line.sent.last().unwrap().1.clone();
    assert_eq!(header(&invite, "CSeq"), Some("3 INVITE"));
    let (proxy, peer) = (header(&invite, "Proxy-Authorization"), header(&invite, "Authorization"));
    assert!(proxy.unwrap().contains("nonce=\"p1\"") && proxy.unwrap().contains("nc=00000002"));
    assert!(peer.unwrap().contains("nonce=\"n1\"") && peer.unwrap().contains("nc=00000001"));
    line.receive(&Reply::to(&invite, "200 OK").tag("a").sdp(ANSWER).to_string());
    let ack = line.sent.last().unwrap().1.clone();
    assert_eq!((header(&ack, "Proxy-Authorization"), header(&ack, "Authorization")), (proxy, peer));

    line.events.clear();
    let reason = Some("Q.850;cause=16".to_owned());
    line.command(Command::Bye { dialog: DIALOG, reason: reason.clone() });
    for nonce in 2..4 {
        let bye = line.sent.last().unwrap().1.clone();
        let refused = Reply::to(&bye, "407 Proxy Authentication Required");
        line.receive(&refused.with(&proxy_challenge(nonce)).to_string());
        let again = line.sent.last().unwrap().1.clone();
        let answer = header(&again, "Proxy-Authorization").unwrap();
        assert!(answer.contains(&format!("nonce=\"p{nonce}\"")), "{answer}");
        assert_eq!(header(&again, "Reason"), reason.as_deref());
    }
    let bye = line.sent.last().unwrap().1.clone();
    let refused = Reply::to(&bye, "407 Proxy Authentication Required");
    line.receive(&refused.with(&proxy_challenge(4)).to_string());
    assert!(matches!(line.event(), Event::Ended { .. }), "twice is enough");
    line.must_become_idle();
}

#[test]
fn whoever_the_callee_sends_us_to_gets_no_password() {
    let mut line = Line::new();
    let invite = line.call(call_with_password());
    let ok = Reply::to(&invite, "200 OK").tag("a").contact("sip:evil@192.0.2.99").sdp(ANSWER);
    line.receive(&ok.to_string());
    line.events.clear();
    line.command(Command::Bye { dialog: DIALOG, reason: None });
    assert_eq!(line.last_path.peer, "192.0.2.99:5060".parse().unwrap());
    let bye = line.sent.last().unwrap().1.clone();
    line.sent.clear();
    line.receive(&Reply::to(&bye, "401 Unauthorized").with(CHALLENGE).to_string());
    assert!(line.take().is_empty());
    assert!(matches!(line.event(), Event::Ended { .. }));
}

#[test]
fn whatever_is_challenged_within_a_call_is_asked_again() {
    let mut line = Line::new();
    let invite = line.call(call_with_password());
    line.receive(&reliably(&invite, "183 Session Progress", "a", 1).sdp(ANSWER).to_string());
    let prack = line.sent.last().unwrap().1.clone();
    let refused = Reply::to(&prack, "407 Proxy Authentication Required");
    line.receive(&refused.with(&proxy_challenge(1)).to_string());
    let again = line.sent.last().unwrap().1.clone();
    assert_eq!(header(&again, "CSeq"), Some("3 PRACK"));
    assert_eq!(header(&again, "RAck"), Some("1 1 INVITE"));
    assert!(header(&again, "Proxy-Authorization").is_some(), "{again}");
    let ok = Reply::to(&invite, "200 OK").tag("a").with("Session-Expires: 90;refresher=uac");
    line.receive(&ok.to_string());
    line.events.clear();

    let target = Box::new("sip:300@pbx.example".parse().unwrap());
    line.command(Command::Refer { dialog: DIALOG, target, replaces: None });
    let refer = line.sent.last().unwrap().1.clone();
    line.receive(&Reply::to(&refer, "401 Unauthorized").with(CHALLENGE).to_string());
    let again = line.sent.last().unwrap().1.clone();
    assert_eq!(header(&again, "Refer-To"), header(&refer, "Refer-To"));
    assert!(header(&again, "Authorization").is_some(), "{again}");
    assert!(line.events.is_empty());
    line.receive(&respond(&again, "202 Accepted"));
    assert!(matches!(line.event(), Event::Referred { status: Status::TRYING, .. }));

    line.run_for(Duration::from_secs(45));
    let refresh = line.sent.last().unwrap().1.clone();
    assert!(refresh.starts_with("INVITE "), "{refresh}");
    line.receive(&Reply::to(&refresh, "401 Unauthorized").with(CHALLENGE).to_string());
    let again = line.sent.last().unwrap().1.clone();
    assert!(again.starts_with("INVITE "), "{again}");
    assert!(header(&again, "Authorization").is_some(), "{again}");
    line.receive(&Reply::to(&again, "200 OK").sdp(ANSWER).to_string());
    assert!(line.sent.last().unwrap().1.starts_with("ACK "));
}

#[test]
fn whatever_is_long_goes_over_tcp_and_back_to_datagrams_if_that_fails() {
    let config = EndpointConfig { tcp_port: Some(5070), ..EndpointConfig::new("test".to_owned()) };
    let mut line = Line::with(config);
    line.answered(call());
    let target = format!("sip:300@pbx.example;x={}", "x".repeat(1_300));
    let target = Box::new(target.parse().unwrap());
    line.command(Command::Refer { dialog: DIALOG, target, replaces: None });
    let refer = line.sent.last().unwrap().1.clone();
    assert!(refer.contains("Via: SIP/2.0/TCP 192.0.2.1:5070;"), "{refer}");
    assert!(refer.contains(";transport=tcp>"), "{refer}");
    assert_eq!(line.last_path.transport, Transport::Tcp);
    line.endpoint.handle_unreachable(line.last_path, line.now);
    line.drain();
    assert_eq!(line.last_path, path());
    let refer = line.sent.last().unwrap().1.clone();
    assert!(refer.contains("Via: SIP/2.0/UDP 192.0.2.1:5060;"), "{refer}");
    assert!(line.events.is_empty());
    line.endpoint.handle_unreachable(path(), line.now);
    line.drain();
    assert!(matches!(line.event(), Event::Referred { status: Status::REQUEST_TIMEOUT, .. }));
}

#[test]
fn what_nobody_has_heard_is_not_waited_for_when_its_stream_has_gone() {
    let peer = path().peer;
    let first = Path { transport: Transport::Tcp, ..path() };
    let second = Path { peer: "192.0.2.20:5060".parse().unwrap(), ..first };
    let targets = vec![first, second];
    let gone = (ConnectionId(7), Some((Transport::Tcp, peer)));
    for (heard, (connection, led_to), is_lost) in
        [(false, gone, true), (true, gone, false), (false, (ConnectionId(7), None), false)]
    {
        let mut line = Line::new();
        let invite = line.call(OutgoingCall { targets: targets.clone(), ..call() });
        if heard {
            line.receive(&respond(&invite, "100 Trying"));
        }
        line.endpoint.handle_disconnected(connection, led_to, line.now);
        line.drain();
        assert_eq!(line.last_path == second, is_lost, "{heard} {led_to:?}");
    }
}

#[test]
fn a_refresh_whose_stream_has_gone_ends_no_call() {
    let mut line = Line::new();
    let stream = Path { transport: Transport::Tcp, connection: Some(ConnectionId(7)), ..path() };
    let invite = line.call(OutgoingCall { targets: vec![stream], ..call() });
    let ok = Reply::to(&invite, "200 OK").tag("a").with("Session-Expires: 90;refresher=uac");
    line.endpoint.handle_message(ok.sdp(ANSWER).to_string().as_bytes(), stream, line.now);
    line.drain();
    line.events.clear();
    line.run_for(Duration::from_secs(45));
    line.sent.clear();
    line.endpoint.handle_disconnected(ConnectionId(7), None, line.now);
    line.run_for(Duration::from_secs(10));
    assert!(line.take()[0].starts_with("INVITE "));
    assert!(line.events.is_empty());
}

#[test]
fn the_end_of_a_refused_invite_is_not_the_end_of_the_call() {
    let mut line = Line::new();
    let invite = line.call(call_with_password());
    line.receive(&Reply::to(&invite, "401 Unauthorized").tag("x").with(CHALLENGE).to_string());
    let again = line.sent.last().unwrap().1.clone();
    line.receive(&Reply::to(&again, "180 Ringing").tag("a").to_string());
    line.run_for(Duration::from_secs(60));
    line.events.clear();
    line.receive(&Reply::to(&again, "200 OK").tag("a").sdp(ANSWER).to_string());
    assert!(matches!(line.event(), Event::Answered { .. }));
}

#[test]
fn a_peer_that_goes_on_challenging_is_given_up_after_two_answers() {
    let mut line = Line::new();
    line.call(call_with_password());
    let mut answers = 0;
    while line.events.is_empty() {
        let invite = line.sent.last().unwrap().1.clone();
        answers += usize::from(header(&invite, "Authorization").is_some());
        let nonce = format!("nonce=\"n{answers}\"");
        let challenge = CHALLENGE.replace("nonce=\"n1\"", &nonce);
        line.receive(&Reply::to(&invite, "401 Unauthorized").tag("x").with(&challenge).to_string());
    }
    assert_eq!(answers, 2);
    assert!(matches!(line.event(), Event::Refused { status: Status::UNAUTHORIZED, .. }));
}

#[test]
fn a_challenge_of_another_realm_gets_nothing() {
    for challenge in [CHALLENGE.replace("pbx", "evil"), CHALLENGE.replace("Digest", "Basic")] {
        let mut line = Line::new();
        let invite = line.call(call_with_password());
        line.receive(&Reply::to(&invite, "401 Unauthorized").tag("x").with(&challenge).to_string());
        assert!(matches!(line.event(), Event::Refused { status: Status::UNAUTHORIZED, .. }));
        assert!(line.sent.iter().all(|(_, text)| !text.contains("Authorization:")));
    }
    let mut line = Line::new();
    let invite = line.call(call());
    line.receive(&Reply::to(&invite, "401 Unauthorized").tag("x").with(CHALLENGE).to_string());
    assert!(matches!(line.event(), Event::Refused { status: Status::UNAUTHORIZED, .. }));
}

#[test]
fn a_call_of_ours_that_comes_back_as_it_went_is_no_call() {
    let back = |invite: &str, uri: &str| {
        let via = header(invite, "Via").unwrap();
        let back = Ask::invite().with(&format!("Via: {via}")).to_string();
        back.replace("INVITE sip:100@192.0.2.1 ", &format!("INVITE {uri} "))
    };
    for uri in ["sip:200@pbx.example", "sip:200@PBX.example;transport=udp"] {
        let mut line = Line::new();
        let invite = line.call(call());
        line.sent.clear();
        line.receive(&back(&invite, uri));
        assert_eq!(line.take_statuses(), [482], "{uri}");
        assert!(line.events.is_empty());
    }
    for uri in ["sip:200@192.0.2.1", "sip:300@pbx.example", "tel:200"] {
        let mut line = Line::new();
        let invite = line.call(call());
        line.receive(&back(&invite, uri));
        assert!(matches!(line.event(), Event::Invite { .. }), "a spiral to {uri}");
    }
}

pub(super) fn call() -> OutgoingCall {
    OutgoingCall {
        call_id: "our-call".to_owned(),
        targets: vec![path()],
        request_uri: "sip:200@pbx.example".parse().unwrap(),
        from: "<sip:bot@pbx.example>".parse().unwrap(),
        to: "<sip:200@pbx.example>".parse().unwrap(),
        routes: Vec::new(),
        further: Vec::new(),
        headers: vec![("X-Own".to_owned(), "1".to_owned())],
        credentials: None,
        offer: OFFER.as_bytes().to_vec(),
    }
}

impl Line {
    /// Places a call; returns the INVITE.
    pub fn call(&mut self, call: OutgoingCall) -> String {
        self.command(Command::Call { dialog: DIALOG, call: Box::new(call) });
        self.sent.last().expect("an INVITE goes out").1.clone()
    }

    /// Places a call that is answered at once by the fork `a`; returns the INVITE.
    pub fn answered(&mut self, call: OutgoingCall) -> String {
        let invite = self.call(call);
        self.receive(&Reply::to(&invite, "200 OK").tag("a").sdp(ANSWER).to_string());
        assert!(matches!(self.event(), Event::Answered { .. }));
        self.sent.clear();
        invite
    }
}

/// A response of the phone, with more content than that of `respond`.
pub(super) struct Reply {
    request: String,
    status: String,
    tag: String,
    contact: String,
    raw_contact: Option<String>,
    more: String,
    body: String,
}

impl Reply {
    pub fn to(request: &str, status: &str) -> Self {
        Self {
            request: request.to_owned(),
            status: status.to_owned(),
            tag: String::new(),
            contact: "sip:phone@192.0.2.10:5062".to_owned(),
            raw_contact: None,
            more: String::new(),
            body: String::new(),
        }
    }

    pub fn tag(mut self, tag: &str) -> Self {
        self.tag = format!(";tag={tag}");
        self
    }

    pub fn contact(mut self, contact: &str) -> Self {
        self.contact = contact.to_owned();
        self
    }

    pub fn with(mut self, header: &str) -> Self {
        self.more.push_str(header);
        self.more.push_str("\r\n");
        self
    }

    pub fn sdp(self, body: &str) -> Self {
        self.body("application/sdp", body)
    }

    pub fn body(mut self, content_type: &str, body: &str) -> Self {
        self.body = body.to_owned();
        self.with(&format!("Content-Type: {content_type}"))
    }

    /// The Contact lines as given, in place of a URI in brackets.
    pub fn raw_contact(mut self, lines: &str) -> Self {
        self.raw_contact = Some(lines.to_owned());
        self
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { request, status, tag, contact, raw_contact, more, body } = self;
        let contact = match raw_contact {
            Some(lines) => lines.clone(),
            None => format!("Contact: <{contact}>\r\n"),
        };
        let copied: String = ["Via", "From", "Call-ID", "CSeq"]
            .iter()
            .map(|name| format!("{name}: {}\r\n", header(request, name).unwrap()))
            .collect();
        let to = header(request, "To").unwrap();
        write!(
            f,
            "SIP/2.0 {status}\r\n{copied}To: {to}{tag}\r\n{contact}{more}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}
