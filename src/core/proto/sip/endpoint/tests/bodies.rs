//! Messages as carriers and phones send them: descriptions beside other parts or in early
//! responses, addresses without brackets, unreadable header fields.

use proptest::prelude::*;

use super::{
    calling::{ANSWER, DIALOG, Reply, call, early, reliably},
    *,
};
use crate::proto::sip::timers::T2;

const MIXED: &str = "multipart/mixed;boundary=unique-boundary-1";
const OPTIONAL: &str = "application/ISUP;version=itu-t92+;base=itu-t92+\r\n\
                        Content-Disposition: signal;handling=optional";
const REQUIRED: &str = "application/ISUP\r\nContent-Disposition: signal;handling=required";

/// A multipart body: a part of another type first, then a description.
fn beside(other: &str, description: &str) -> String {
    format!(
        "--unique-boundary-1\r\nContent-Type: {other}\r\n\r\n\u{1}\u{2}\r\n\
         --unique-boundary-1\r\nContent-Type: application/sdp\r\n\r\n{description}\r\n\
         --unique-boundary-1--\r\n"
    )
}

#[test]
fn a_call_with_isup_beside_its_offer_is_taken_and_changed() {
    let mut line = Line::new();
    line.receive(&Ask::invite().body(MIXED, &beside(OPTIONAL, OFFER)).to_string());
    let Event::Invite { dialog, invite } = line.event() else { panic!("no Invite") };
    assert_eq!(invite.offer.as_deref(), Some(OFFER.as_bytes()));
    line.answer(dialog);
    line.receive(&Ask::ack(&line.tag).body(OPTIONAL, "x").to_string());
    assert!(matches!(line.event(), Event::Acknowledged { body: None, .. }));
    for method in ["INVITE", "UPDATE"] {
        let again = Ask::new(method, line.sent.len() as u32 + 2).to(&line.tag);
        line.receive(&again.clone().body(MIXED, &beside(OPTIONAL, OFFER)).to_string());
        let Event::Reinvite { offer, .. } = line.event() else { panic!("no Reinvite") };
        assert_eq!(offer.as_deref(), Some(OFFER.as_bytes()), "{method}");
        line.answer(dialog);
        if method == "INVITE" {
            line.receive(&Ask::ack(&line.tag).cseq(again.cseq).branch("ack2").to_string());
            assert!(matches!(line.event(), Event::Acknowledged { .. }));
        }
    }
    line.sent.clear();
    line.receive(&Ask::new("UPDATE", 30).to(&line.tag).body(OPTIONAL, "x").to_string());
    assert_eq!(line.take_statuses(), [200], "nothing is offered");
    assert!(line.events.is_empty());
}

#[test]
fn a_required_body_that_is_not_understood_is_refused_by_415() {
    let mut line = Line::new();
    line.receive(&Ask::invite().body(MIXED, &beside(REQUIRED, OFFER)).to_string());
    assert_eq!(header(&line.sent[0].1, "Accept"), Some("application/sdp"));
    assert_eq!(line.take_statuses(), [415]);
    let dialog = line.confirm(&Ask::invite());
    for (method, cseq) in [("INVITE", 2), ("UPDATE", 3)] {
        let again = Ask::new(method, cseq).to(&line.tag);
        line.receive(&again.clone().body(MIXED, &beside(REQUIRED, OFFER)).to_string());
        assert_eq!(header(&line.sent[0].1, "Accept"), Some("application/sdp"));
        assert_eq!(line.take_statuses(), [415], "{method}");
        line.receive(&again.ack_of_refusal(&line.tag).to_string());
    }
    assert!(line.events.is_empty());
    line.command(Command::Bye { dialog, reason: None });
    assert!(line.take()[0].starts_with("BYE "), "the call has stayed as it was");
    line.receive(
        &Ask::invite().call("other").branch("z").with("Content-Encoding: gzip").to_string(),
    );
    assert_eq!(header(&line.sent[0].1, "Accept-Encoding"), Some("identity"));
    assert_eq!(line.take_statuses(), [415]);
}

#[test]
fn a_call_with_nothing_but_an_optional_body_has_no_offer() {
    let mut line = Line::new();
    line.receive(&Ask::invite().body(OPTIONAL, "\u{1}").with("Require: 100rel").to_string());
    let Event::Invite { dialog, invite } = line.event() else { panic!("no Invite") };
    assert_eq!(invite.offer, None);
    line.sent.clear();
    line.command(Command::Ring { dialog });
    assert!(line.take().is_empty(), "a reliable response would have to carry our offer");
    line.answer(dialog);
    line.receive(&Ask::ack(&line.tag).body(MIXED, &beside(REQUIRED, ANSWER)).to_string());
    let Event::Acknowledged { body, .. } = line.event() else { panic!("no ACK") };
    assert_eq!(body.as_deref(), Some(ANSWER.as_bytes()), "an ACK cannot be refused");
}

#[test]
fn a_prack_may_bring_what_is_optional() {
    for (kind, body, status) in [
        (OPTIONAL, "x".to_owned(), 200),
        (REQUIRED, "x".to_owned(), 415),
        (MIXED, beside(OPTIONAL, OFFER), 488),
    ] {
        let mut line = Line::new();
        let dialog = line.receive_invite(&Ask::invite().with("Require: 100rel"));
        line.command(Command::Ring { dialog });
        let ringing = line.sent.last().unwrap().1.clone();
        let rack = format!("RAck: {} 1 INVITE", header(&ringing, "RSeq").unwrap());
        line.sent.clear();
        line.receive(&Ask::new("PRACK", 2).to(&line.tag).with(&rack).body(kind, &body).to_string());
        assert_eq!(line.take_statuses(), [status], "{kind}");
    }
}

#[test]
fn the_answer_to_our_offer_is_found_beside_other_parts() {
    for other in [OPTIONAL, REQUIRED] {
        for is_early in [false, true] {
            let mut line = Line::new();
            let invite = line.call(call());
            let answer = beside(other, ANSWER);
            if is_early {
                let early = reliably(&invite, "183 Session Progress", "a", 1);
                line.receive(&early.body(MIXED, &answer).to_string());
                line.events.clear();
            }
            let ok = Reply::to(&invite, "200 OK").tag("a");
            let ok = if is_early { ok.body(OPTIONAL, "x") } else { ok.body(MIXED, &answer) };
            line.receive(&ok.to_string());
            let Event::Answered { description, .. } = line.event() else { panic!("no answer") };
            assert_eq!(description.as_deref(), Some(ANSWER.as_bytes()), "{other} {is_early}");
        }
    }
}

#[test]
fn an_update_of_a_phone_that_rings_may_bring_what_is_optional() {
    let mut line = Line::new();
    let invite = line.call(call());
    line.receive(&Reply::to(&invite, "180 Ringing").tag("phone").to_string());
    line.sent.clear();
    line.receive(&early(&invite, "UPDATE", 1).body(OPTIONAL, "x").to_string());
    line.receive(&early(&invite, "UPDATE", 2).body(REQUIRED, "x").to_string());
    line.receive(&early(&invite, "UPDATE", 3).body(MIXED, &beside(OPTIONAL, OFFER)).to_string());
    assert_eq!(line.take_statuses(), [200, 415, 491]);
}

#[test]
fn the_answer_in_an_early_response_need_not_be_repeated() {
    let other = ANSWER.replace("192.0.2.10", "192.0.2.66");
    let own = ANSWER.replace("192.0.2.10", "192.0.2.77");
    for (early, in_200, expected) in [
        (vec![ANSWER], None, ANSWER),
        (vec![ANSWER, &other], None, ANSWER),
        (vec![ANSWER], Some(ANSWER), ANSWER),
        // The announcement came from another media address.
        (vec![ANSWER], Some(own.as_str()), own.as_str()),
    ] {
        let mut line = Line::new();
        let invite = line.call(call());
        for early in early {
            let progress = Reply::to(&invite, "183 Session Progress").tag("a").sdp(early);
            line.receive(&progress.to_string());
        }
        line.receive(&Reply::to(&invite, "180 Ringing").tag("a").to_string());
        line.events.clear();
        let ok = Reply::to(&invite, "200 OK").tag("a");
        line.receive(
            &match in_200 {
                Some(own) => ok.sdp(own),
                None => ok,
            }
            .to_string(),
        );
        let Event::Answered { description, .. } = line.event() else { panic!("no answer") };
        assert_eq!(description.as_deref(), Some(expected.as_bytes()));
    }
}

#[test]
fn the_answer_in_an_early_response_may_have_no_tag() {
    for tag in ["", "late"] {
        let mut line = Line::new();
        let invite = line.call(call());
        line.receive(&Reply::to(&invite, "183 Session Progress").sdp(ANSWER).to_string());
        line.events.clear();
        let ok = Reply::to(&invite, "200 OK");
        line.receive(&if tag.is_empty() { ok } else { ok.tag(tag) }.to_string());
        let Event::Answered { description, .. } = line.event() else { panic!("no answer") };
        assert_eq!(description.as_deref(), Some(ANSWER.as_bytes()), "{tag}");
        line.sent.clear();
        line.command(Command::Bye { dialog: DIALOG, reason: None });
        assert!(line.take()[0].starts_with("BYE "));
    }
}

#[test]
fn the_answer_in_a_reliable_response_that_cannot_be_acknowledged_counts() {
    for rseq in ["Server: x", "RSeq: x", "RSeq:", "RSeq: -1"] {
        for tag in ["", "a"] {
            let mut line = Line::new();
            let invite = line.call(call());
            line.sent.clear();
            let early = Reply::to(&invite, "183 Session Progress").with("Require: 100rel");
            let early = if tag.is_empty() { early } else { early.tag(tag) };
            line.receive(&early.with(rseq).sdp(ANSWER).to_string());
            assert!(line.take().is_empty(), "there is nothing that a PRACK could name");
            assert!(
                matches!(line.event(), Event::Progress { status: Status::SESSION_PROGRESS, .. }),
                "{rseq} {tag}"
            );
            line.receive(&Reply::to(&invite, "200 OK").tag("a").to_string());
            let Event::Answered { description, .. } = line.event() else { panic!("no answer") };
            assert_eq!(description.as_deref(), Some(ANSWER.as_bytes()), "{rseq} {tag}");
        }
    }
    // The first response was lost, and the second one comes too early.
    let mut line = Line::new();
    let invite = line.call(call());
    line.receive(&reliably(&invite, "180 Ringing", "a", 1).to_string());
    line.receive(&reliably(&invite, "183 Session Progress", "a", 3).sdp(ANSWER).to_string());
    line.events.clear();
    line.receive(&Reply::to(&invite, "200 OK").tag("a").to_string());
    let Event::Answered { description, .. } = line.event() else { panic!("no answer") };
    assert_eq!(description.as_deref(), Some(ANSWER.as_bytes()));
}

#[test]
fn the_answer_without_a_tag_counts_though_its_fork_gets_a_tag_later() {
    let mut line = Line::new();
    let invite = line.call(call());
    line.receive(&Reply::to(&invite, "183 Session Progress").sdp(ANSWER).to_string());
    line.receive(&Reply::to(&invite, "180 Ringing").tag("t1").to_string());
    line.events.clear();
    line.receive(&Reply::to(&invite, "200 OK").tag("t1").to_string());
    let Event::Answered { description, .. } = line.event() else { panic!("no answer") };
    assert_eq!(description.as_deref(), Some(ANSWER.as_bytes()));
}

#[test]
fn an_early_answer_counts_beside_a_200_of_nothing_but_a_line_end() {
    for blank in ["\r\n", "\r\n\r\n", " \n"] {
        let mut line = Line::new();
        let invite = line.call(call());
        let early = Reply::to(&invite, "183 Session Progress").tag("a");
        line.receive(&early.sdp(ANSWER).to_string());
        line.events.clear();
        line.receive(&Reply::to(&invite, "200 OK").tag("a").sdp(blank).to_string());
        let Event::Answered { description, .. } = line.event() else { panic!("no answer") };
        assert_eq!(description.as_deref(), Some(ANSWER.as_bytes()), "{blank:?}");
    }
}

#[test]
fn no_header_field_of_its_body_costs_an_answer() {
    let kind = "Content-Type: application/sdp";
    for head in [
        format!("{kind}\r\nContent-Encoding: \""),
        format!("{kind}\r\nContent-Encoding: utf-8"),
        format!("Content-Type:\r\n{kind}"),
        "Content-Type: application / sdp".to_owned(),
        "Content-Type: application\\sdp".to_owned(),
        "Content-Type:".to_owned(),
        "Server: x".to_owned(),
    ] {
        let mut line = Line::new();
        let invite = line.call(call());
        let ok = Reply::to(&invite, "200 OK").tag("a").with(&head).to_string();
        let ok = ok.replace("Content-Length: 0", &format!("Content-Length: {}", ANSWER.len()));
        line.receive(&(ok + ANSWER));
        let Event::Answered { description, .. } = line.event() else { panic!("no answer") };
        assert_eq!(description.as_deref(), Some(ANSWER.as_bytes()), "{head}");

        let mut line = Line::new();
        let dialog = line.receive_invite(&Ask::invite().body("", ""));
        line.answer(dialog);
        line.receive(&Ask::ack(&line.tag).with(&head).body("", ANSWER).to_string());
        let Event::Acknowledged { body, .. } = line.event() else { panic!("no ACK") };
        assert_eq!(body.as_deref(), Some(ANSWER.as_bytes()), "{head}");
    }
}

#[test]
fn an_offer_without_a_type_is_taken() {
    let mut line = Line::new();
    line.receive(&Ask::invite().body("", OFFER).to_string());
    let Event::Invite { invite, .. } = line.event() else { panic!("no Invite") };
    assert_eq!(invite.offer.as_deref(), Some(OFFER.as_bytes()));
}

#[test]
fn empty_elements_of_lists_cost_no_call() {
    for (contact, more) in [
        ("Contact: <sip:phone@192.0.2.10:5062>\r\n", "Record-Route:"),
        ("Contact: <sip:phone@192.0.2.10:5062>,\r\n", "Record-Route: <sip:192.0.2.10:5062;lr>,"),
        ("Contact:\r\n", "Server: x"),
        ("Contact:\r\nContact: <sip:phone@192.0.2.10:5062>\r\n", "Record-Route: ,"),
    ] {
        let mut line = Line::new();
        let invite = line.call(call());
        let ok = Reply::to(&invite, "200 OK").tag("a").raw_contact(contact).with(more);
        line.receive(&ok.sdp(ANSWER).to_string());
        assert!(line.take().last().unwrap().starts_with("ACK "), "{contact} {more}");
        assert!(matches!(line.event(), Event::Answered { .. }), "{contact} {more}");
    }
    let mut line = Line::new();
    let invite = Ask::invite().with("Record-Route:\r\nRecord-Route: <sip:p;lr>, ,").to_string();
    line.receive(&invite.replace("phone@192.0.2.10:5062>\r\n", "phone@192.0.2.10:5062>,\r\n"));
    let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
    line.answer(dialog);
    let ok = &line.sent.last().unwrap().1;
    assert_eq!(ok.matches("Record-Route:").count(), 1, "{ok}");
}

#[test]
fn a_bye_is_taken_whatever_its_max_forwards_says() {
    for value in ["x", "", "-1", "300"] {
        let mut line = Line::new();
        line.confirm(&Ask::invite());
        let bye = Ask::bye(&line.tag).to_string();
        line.receive(&bye.replace("Max-Forwards: 70", &format!("Max-Forwards: {value}")));
        assert_eq!(line.take_statuses(), [200], "{value}");
        assert!(matches!(line.event(), Event::Bye { .. }));
    }
}

#[test]
fn two_keys_in_one_info_are_told_in_their_order() {
    let mut line = Line::new();
    line.confirm(&Ask::invite());
    let info = Ask::new("INFO", 2).to(&line.tag);
    line.receive(&info.body("application/dtmf-relay", "Signal=5\r\nSignal=#").to_string());
    assert_eq!(line.take_statuses(), [200]);
    for key in ['5', '#'] {
        let Event::Info { tone, .. } = line.event() else { panic!("no Info") };
        assert_eq!(tone.as_char(), key);
    }
    assert!(line.events.is_empty());
}

#[test]
fn an_ack_is_taken_whatever_else_it_says() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite());
    line.answer(dialog);
    let ack =
        Ask::ack(&line.tag).with("Record-Route: <\r\nno colon\r\nMax-Forwards: x").to_string();
    line.receive(&ack.replace("Contact: <sip:phone@192.0.2.10:5062>", "Contact: <"));
    assert!(matches!(line.event(), Event::Acknowledged { .. }));
}

#[test]
fn a_key_before_the_answer_is_refused() {
    let mut line = Line::new();
    let invite = line.call(call());
    line.receive(&Reply::to(&invite, "180 Ringing").tag("phone").to_string());
    line.sent.clear();
    let key = early(&invite, "INFO", 1).body("application/dtmf", "5");
    line.receive(&key.to_string());
    assert_eq!(line.take_statuses(), [480]);

    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite());
    line.command(Command::Ring { dialog });
    line.sent.clear();
    let key = Ask::new("INFO", 2).to(&line.tag).body("application/dtmf", "5");
    line.receive(&key.to_string());
    line.receive(&Ask::new("INFO", 3).to(&line.tag).to_string());
    assert_eq!(line.take_statuses(), [480, 200]);
    assert!(line.events.is_empty());
}

#[test]
fn an_info_without_a_key_says_why_it_is_refused() {
    let mut line = Line::new();
    line.confirm(&Ask::invite());
    for (cseq, body) in [(2, "Signal=hookflash"), (3, "77"), (4, "Duration=160")] {
        let info = Ask::new("INFO", cseq).to(&line.tag).body("application/dtmf-relay", body);
        line.receive(&info.to_string());
        assert_eq!(line.take(), ["400 No DTMF Key In Body"], "{body}");
    }
    assert!(line.events.is_empty());
}

const INSTANCE: &str = "sip:phone@192.0.2.10:5062;+sip.instance=\"<urn:uuid:00-01>\";reg-id=1";

#[test]
fn a_contact_without_brackets_may_have_an_instance() {
    let mut line = Line::new();
    let invite = Ask::invite().to_string();
    let invite = invite.replace("<sip:phone@192.0.2.10:5062>", INSTANCE);
    line.receive(&invite);
    let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
    line.answer(dialog);
    line.receive(&Ask::ack(&line.tag).to_string());
    line.command(Command::Bye { dialog, reason: None });
    assert_eq!(line.take().last().unwrap(), "BYE sip:phone@192.0.2.10:5062 SIP/2.0");

    let mut line = Line::new();
    let invite = line.call(call());
    for status in ["180 Ringing", "200 OK"] {
        let contact = format!("m: {INSTANCE}\r\n");
        line.receive(
            &Reply::to(&invite, status).tag("a").raw_contact(&contact).sdp(ANSWER).to_string(),
        );
    }
    assert_eq!(line.take().last().unwrap(), "ACK sip:phone@192.0.2.10:5062 SIP/2.0");
    assert!(matches!(line.events.pop(), Some(Event::Answered { .. })));
}

#[test]
fn an_answer_that_makes_no_dialog_is_acknowledged_and_hung_up_where_it_came_from() {
    for (contact, more) in [
        ("Contact: <sip:nowhere\r\n", "Server: x"),
        ("Contact: *\r\n", "Server: x"),
        ("Contact: <sip:b@192.0.2.99>\r\n", "Record-Route: <sip:192.0.2.98;lr"),
        ("Contact: <sip:b@192.0.2.99>\r\n", "Record-Route: sip:192.0.2.98;lr"),
        ("Contact: <sip:b@192.0.2.99>\r\n", "Record-Route: <sip:192.0.2.98;lr>, \""),
    ] {
        let mut line = Line::new();
        let invite = line.call(call());
        line.receive(&Reply::to(&invite, "180 Ringing").tag("a").to_string());
        line.events.clear();
        line.sent.clear();
        line.paths.clear();
        let ok = Reply::to(&invite, "200 OK").tag("a").raw_contact(contact).with(more).sdp(ANSWER);
        let ok = ok.to_string();
        line.receive(&ok);
        let sent: Vec<String> = line.sent.iter().map(|(_, text)| text.clone()).collect();
        assert!(sent[0].starts_with("ACK "), "{more}: {sent:?}");
        assert!(sent[1].starts_with("BYE "), "{more}: {sent:?}");
        assert_eq!(header(&sent[1], "Reason"), Some("SIP;cause=502;text=\"Bad Gateway\""));
        assert_eq!(line.paths, [path(), path()], "{more}");
        line.receive(&ok);
        assert_eq!(line.sent.last().unwrap().1, sent[0], "each 2xx gets the same ACK");
        line.receive(&respond(&sent[1], "200 OK"));
        assert!(line.events.is_empty(), "another fork may answer");
        line.run_for(T2);
        assert!(matches!(line.event(), Event::Lost { how: Loss::Unusable, .. }));
        assert!(matches!(line.event(), Event::Ended { .. }));
        line.must_become_idle();
    }
}

#[test]
fn an_answer_keeps_what_can_be_read_of_its_contacts() {
    let mut line = Line::new();
    let invite = line.call(call());
    let contacts =
        "Contact: \"x, <sip:b@192.0.2.10:7777>\r\nContact: <sip:b@192.0.2.10:8888>;x=\u{fc}\r\n";
    line.receive(
        &Reply::to(&invite, "200 OK").tag("a").raw_contact(contacts).sdp(ANSWER).to_string(),
    );
    assert_eq!(line.take().last().unwrap(), "ACK sip:b@192.0.2.10:8888 SIP/2.0");
    assert!(matches!(line.event(), Event::Answered { .. }));

    let mut line = Line::new();
    let invite = line.call(call());
    let contacts = "Contact: <sip:, <sip:c@d>, <sip:+881@good>\r\n";
    let moved = Reply::to(&invite, "302 Moved").tag("a").raw_contact(contacts);
    line.receive(&moved.to_string());
    let Event::Refused { status: Status::MOVED_TEMPORARILY, contacts, .. } = line.event() else {
        panic!("no event")
    };
    assert_eq!(contacts.len(), 1);
    assert_eq!(contacts[0].uri().to_string(), "sip:+881@good");
}

#[test]
fn a_call_to_nowhere_in_particular_is_refused() {
    for contact in ["*", "<sip:b", ""] {
        let mut line = Line::new();
        let invite = Ask::invite().to_string();
        line.receive(&invite.replace("<sip:phone@192.0.2.10:5062>", contact));
        assert_eq!(line.take_statuses(), [400], "{contact}");
    }
}

#[test]
fn letters_of_any_language_spoil_nothing() {
    for name in [&b"J\xf6rg"[..], "J\u{f6}rg".as_bytes()] {
        let spoilt = |text: String| -> Vec<u8> {
            let pieces: Vec<&[u8]> = text.split('~').map(str::as_bytes).collect();
            pieces.join(name)
        };
        let more = "Server: ~\r\nReason: Q.850;cause=16;text=\"~\"\r\nX: ~";
        let receive = |line: &mut Line, text: String| {
            line.endpoint.handle_message(&spoilt(text), path(), line.now);
            line.drain();
        };
        let mut line = Line::new();
        let ask = Ask::invite()
            .with(more)
            .to_string()
            .replace("\"Phone\"", "~")
            .replace("Contact: <", "Contact: \"~\" <");
        receive(&mut line, ask);
        assert!(matches!(line.event(), Event::Invite { .. }));

        let mut line = Line::new();
        let invite = line.call(call());
        for status in ["180 ~", "183 ~", "200 ~"] {
            let reply = Reply::to(&invite, status).tag("a").with(more).sdp(ANSWER).to_string();
            let reply = reply.replace("To: <", "To: ~ <").replace("Contact: <", "Contact: ~ <");
            receive(&mut line, reply);
        }
        assert!(line.take().last().unwrap().starts_with("ACK "));
        assert!(matches!(line.events.pop(), Some(Event::Answered { .. })));

        let mut line = Line::new();
        let invite = line.call(call());
        let moved = Reply::to(&invite, "302 ~").tag("a").with(more).to_string();
        receive(&mut line, moved.replace("Contact: <", "Contact: \"~\" <"));
        assert!(matches!(line.event(), Event::Refused { status: Status::MOVED_TEMPORARILY, .. }));
    }
}

/// Valid and invalid parts of a header field value.
fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        &b"<"[..],
        b">",
        b"\"",
        b"\\",
        b";",
        b",",
        b":",
        b"=",
        b"*",
        b"sip:a@b",
        b"<sip:a@b;lr>",
        b"\xff",
        b"\xc3\xb6",
        b"\0",
        b" ",
        b"\t",
        b"\r",
        b"\r\n\t",
        b"99999999999",
        b"0",
        b"-1",
        b"%",
        b"@",
        b"[::1]",
        b";lr",
        b"timer",
        b"100rel",
        b"gzip",
        b"multipart/mixed;boundary=b",
        b"application/sdp",
        b"refresher=uas",
        b"session;handling=required",
        b"90",
    ]);
    prop_oneof![
        4 => prop::collection::vec(pieces, 0..8).prop_map(|pieces| pieces.concat()),
        1 => prop::collection::vec(1_u8.., 0..40)
            .prop_map(|bytes| bytes.into_iter().filter(|byte| *byte != b'\n').collect()),
        1 => Just(vec![b'x'; wire::MAX_LINE + 1]),
    ]
}

proptest! {
    /// Each 2xx gets its ACK, whatever its other header fields contain, and the call is either up
    /// or hung up.
    #[test]
    fn no_header_field_of_a_200_costs_its_ack(
        fields in prop::collection::vec(
            (
                prop::sample::select(vec![
                    "Contact", "m", "Record-Route", "Route", "Max-Forwards", "Content-Type",
                    "Content-Length", "Content-Encoding", "Content-Disposition", "Require",
                    "Supported", "Allow", "Session-Expires", "Min-SE", "Server", "Reason", "RSeq",
                    "Warning", "Expires", "X\u{f6}", "no colon",
                ]),
                any_value(),
            ),
            0..8,
        ),
        status in prop::sample::select(vec!["200 OK", "202 Accepted", "299 "]),
        has_end in any::<bool>(),
    ) {
        let mut line = Line::new();
        let invite = line.call(call());
        line.sent.clear();
        let ok = Reply::to(&invite, status).tag("a").to_string();
        let (head, _) = ok.split_once("Contact: ").unwrap();
        let mut bytes = head.as_bytes().to_vec();
        for (name, value) in fields {
            let colon = if name == "no colon" { "" } else { ": " };
            bytes.extend([name.as_bytes(), colon.as_bytes(), &value, b"\r\n"].concat());
        }
        if has_end {
            bytes.extend(b"\r\nv=0\r\n");
        }
        for again in [false, true] {
            line.sent.clear();
            line.endpoint.handle_message(&bytes, path(), line.now);
            line.drain();
            let sent = line.take();
            prop_assert!(sent.first().is_some_and(|first| first.starts_with("ACK ")), "{:?}", sent);
            prop_assert!(sent.len() == 1 || !again);
        }
        match line.events.first() {
            Some(Event::Answered { .. }) => {
                line.command(Command::Bye { dialog: DIALOG, reason: None });
            }
            None => {
                line.run_for(T2);
                let is_lost = matches!(line.event(), Event::Lost { how: Loss::Unusable, .. });
                prop_assert!(is_lost);
            }
            other => panic!("{other:?}"),
        }
        line.run_for(Duration::from_secs(40));
        let is_over = matches!(line.events.pop(), Some(Event::Ended { .. }));
        prop_assert!(is_over);
    }
}
