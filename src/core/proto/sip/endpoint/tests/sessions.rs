//! What happens while a call rings or is up: challenges, PRACK, UPDATE, session timers, glare.

use super::{
    calling::{CHALLENGE, DIALOG, Reply, call, call_with_password},
    *,
};
use crate::proto::sip::{
    Status,
    digest::{Credentials, answer},
    message::Method,
};

#[test]
fn a_caller_is_asked_who_it_is_and_believed_once_it_has_proved_it() {
    let mut line = Line::new();
    line.endpoint.set_users([("phone", "secret")].into_iter(), line.now);
    let dialog = line.receive_invite(&Ask::invite());
    line.sent.clear();
    line.command(Command::Challenge { dialog });
    let refused = line.sent.pop().unwrap().1;
    assert!(refused.starts_with("SIP/2.0 401 "), "{refused}");
    assert_eq!(line.endpoint.dialogs(), 0);
    let challenges: Vec<&str> =
        refused.lines().filter_map(|line| line.strip_prefix("WWW-Authenticate: ")).collect();
    let password = |password: &str| Credentials {
        username: "phone".to_owned(),
        password: password.to_owned(),
        realm: Some("aftertone".to_owned()),
    };
    let authorize = |known: &str, cseq: u32| {
        let (credentials, uri) = (password(known), "sip:100@192.0.2.1");
        let value = answer(&challenges, &Method::Invite, uri, &credentials, 1, "c").unwrap();
        let branch = format!("again-{cseq}");
        Ask::invite().cseq(cseq).branch(&branch).with(&format!("Authorization: {value}"))
    };
    let (wrong, right, other) =
        (authorize("guess", 2), authorize("secret", 3), authorize("secret", 4));
    line.receive(&wrong.to_string());
    assert!(line.events.is_empty());
    assert_eq!(line.take_statuses(), [401]);
    line.receive(&right.to_string());
    let Event::Invite { invite, .. } = line.event() else { panic!("no Invite") };
    assert_eq!(invite.user.as_deref(), Some("phone"));
    line.sent.clear();
    line.receive(&other.call("other").to_string().replace("<sip:phone@", "<sip:boss@"));
    assert_eq!(line.take_statuses(), [401], "the count was used; else 403 for the name");
}

#[test]
fn without_users_nobody_is_asked_who_it_is() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite());
    line.sent.clear();
    line.command(Command::Challenge { dialog });
    assert_eq!(line.take_statuses(), [403]);
}

const RELIABLE: &str = "Require: 100rel";

#[test]
fn a_caller_that_requires_it_hears_the_ringing_reliably() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite().with(RELIABLE));
    line.sent.clear();
    line.command(Command::Ring { dialog });
    line.command(Command::Ring { dialog });
    assert_eq!(line.sent.len(), 1);
    let ringing = line.sent[0].1.clone();
    assert!(ringing.contains("\r\nRequire: 100rel\r\n"), "{ringing}");
    let rseq: u32 = header(&ringing, "RSeq").unwrap().parse().unwrap();
    line.run_for(Duration::from_secs(4));
    assert_eq!(line.take_statuses(), [180, 180, 180, 180], "at 0, 0.5, 1.5 and 3.5 s");

    let prack = |cseq, rack: String| {
        Ask::new("PRACK", cseq).to(&line.tag).with(&format!("RAck: {rack}")).to_string()
    };
    let (wrong, right) =
        (prack(2, format!("{} 1 INVITE", rseq + 1)), prack(3, format!("{rseq} 1 INVITE")));
    line.receive(&wrong);
    line.receive(&right);
    line.receive(&right);
    assert_eq!(line.take_statuses(), [481, 200, 200]);
    line.run_for(Duration::from_secs(40));
    assert!(line.take().is_empty());
    line.answer(dialog);
    assert_eq!(line.take_statuses(), [200]);
}

#[test]
fn a_caller_that_never_acknowledges_the_ringing_is_refused() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite().with(RELIABLE));
    line.command(Command::Ring { dialog });
    line.sent.clear();
    line.run_for(Duration::from_secs(32));
    assert_eq!(line.take_statuses().last(), Some(&504));
    assert!(matches!(line.event(), Event::Canceled { .. }));
}

#[test]
fn an_answer_need_not_wait_for_the_prack() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite().with(RELIABLE));
    line.command(Command::Ring { dialog });
    line.sent.clear();
    line.answer(dialog);
    line.receive(&Ask::ack(&line.tag).to_string());
    line.run_for(Duration::from_secs(40));
    assert_eq!(line.take_statuses(), [200]);
}

#[test]
fn a_prack_that_comes_after_the_answer_is_answered() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite().with(RELIABLE));
    line.command(Command::Ring { dialog });
    let rseq = header(&line.sent.last().unwrap().1, "RSeq").unwrap().to_owned();
    line.answer(dialog);
    line.sent.clear();
    let prack = |cseq, rack: &str| {
        Ask::new("PRACK", cseq).to(&line.tag).with(&format!("RAck: {rack} 1 INVITE")).to_string()
    };
    let (first, second) = (prack(2, &rseq), prack(3, &rseq));
    line.receive(&first);
    line.receive(&Ask::ack(&line.tag).to_string());
    line.receive(&second);
    assert_eq!(line.take_statuses(), [200, 481], "once is enough");
}

#[test]
fn ringing_that_would_have_to_carry_our_offer_is_left_out() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::new("INVITE", 1).with(RELIABLE));
    line.sent.clear();
    line.command(Command::Ring { dialog });
    assert!(line.take().is_empty());
    line.answer(dialog);
    assert_eq!(line.take_statuses(), [200]);
}

#[test]
fn an_update_with_an_offer_is_as_a_reinvite_without_ack() {
    let mut line = Line::new();
    let dialog = line.confirm(&Ask::invite());
    let update = Ask::new("UPDATE", 2).to(&line.tag).body("application/sdp", OFFER);
    line.receive(&update.to_string());
    line.receive(&update.to_string());
    let Event::Reinvite { offer, .. } = line.event() else { panic!("no offer") };
    assert_eq!(offer.as_deref(), Some(OFFER.as_bytes()));
    assert!(line.events.is_empty());
    let reinvite = Ask::reinvite(&line.tag, 3);
    line.receive(&reinvite.to_string());
    let another = Ask::new("UPDATE", 4).to(&line.tag).body("application/sdp", OFFER);
    line.receive(&another.to_string());
    for (_, refusal) in &line.sent {
        assert!(header(refusal, "Retry-After").is_some(), "{refusal}");
    }
    assert_eq!(line.take_statuses(), [500, 500], "one offer at a time");
    line.receive(&reinvite.ack_of_refusal(&line.tag).to_string());
    line.answer(dialog);
    assert_eq!(line.take_statuses(), [200]);
    line.run_for(Duration::from_secs(10));
    assert!(line.take().is_empty(), "nothing is repeated");
    line.receive(&update.to_string());
    assert_eq!(line.take_statuses(), [200]);
}

#[test]
fn an_update_offer_can_be_refused() {
    let mut line = Line::new();
    let dialog = line.confirm(&Ask::invite());
    let update = Ask::new("UPDATE", 2).to(&line.tag).body("application/sdp", OFFER);
    line.receive(&update.to_string());
    line.command(refusal(dialog, Status::NOT_ACCEPTABLE_HERE));
    assert_eq!(line.take_statuses(), [488]);
    assert_eq!(line.endpoint.dialogs(), 1);
}

#[test]
fn an_update_without_an_offer_only_keeps_the_session_alive() {
    let mut line = Line::new();
    line.confirm(&Ask::invite());
    let update = Ask::new("UPDATE", 2).to(&line.tag).with("Supported: timer");
    line.receive(&update.with("Session-Expires: 90;refresher=uac").to_string());
    let ok = line.sent[0].1.clone();
    assert_eq!(header(&ok, "Session-Expires"), Some("90;refresher=uac"));
    assert_eq!(header(&ok, "Require"), Some("timer"));
    assert!(line.events.is_empty());
    line.run_for(Duration::from_secs(61));
    assert!(matches!(line.event(), Event::Lost { how: Loss::NotRefreshed, .. }));
    assert!(line.take().last().unwrap().starts_with("BYE "));
}

#[test]
fn an_offer_that_nobody_answers_is_refused_when_the_session_is_over() {
    for method in ["INVITE", "UPDATE"] {
        let mut line = Line::new();
        let invite = Ask::invite().with("Supported: timer");
        line.confirm(&invite.with("Session-Expires: 90;refresher=uac"));
        let offer = Ask::new(method, 2).to(&line.tag).body("application/sdp", OFFER);
        line.receive(&offer.to_string());
        assert!(matches!(line.event(), Event::Reinvite { .. }));
        line.run_for(Duration::from_secs(60));
        let statuses = line.take();
        assert!(statuses.contains(&"487 Request Terminated".to_owned()), "{statuses:?}");
        assert!(matches!(line.event(), Event::Lost { how: Loss::NotRefreshed, .. }));
        line.must_become_idle();
    }
}

#[test]
fn a_session_interval_that_is_too_small_gets_422() {
    let mut line = Line::new();
    let invite = Ask::invite().with("Supported: timer").with("Session-Expires: 30");
    line.receive(&invite.to_string());
    assert_eq!(header(&line.sent[0].1, "Min-SE"), Some("90"));
    assert_eq!(line.take_statuses(), [422]);
    assert!(line.endpoint.is_idle());
}

#[test]
fn within_a_call_too_the_422_tells_the_least_interval() {
    for method in ["INVITE", "UPDATE"] {
        let mut line = Line::new();
        line.confirm(&Ask::invite());
        let ask = Ask::new(method, 2).to(&line.tag).body("application/sdp", OFFER);
        let ask = ask.with("Supported: timer").with("Session-Expires: 60");
        line.receive(&ask.to_string());
        let refusal = &line.sent.last().unwrap().1;
        assert_eq!(header(refusal, "Min-SE"), Some("90"), "RFC 4028 §6: {refusal}");
        assert_eq!(line.take_statuses(), [422]);
    }
}

#[test]
fn a_session_that_is_ours_to_refresh_is_refreshed_by_update() {
    let mut line = Line::new();
    let invite = Ask::invite().with("Supported: timer").with("Allow: INVITE, UPDATE");
    line.confirm(&invite.with("Session-Expires: 600;refresher=uas"));
    for round in 1..4 {
        line.run_for(Duration::from_secs(300));
        let update = line.sent.pop().unwrap().1;
        assert!(update.starts_with("UPDATE sip:phone@192.0.2.10:5062 "), "{update}");
        assert_eq!(header(&update, "Session-Expires"), Some("600;refresher=uac"));
        assert_eq!(header(&update, "CSeq"), Some(format!("{round} UPDATE").as_str()));
        let ok = Reply::to(&update, "200 OK").with("Session-Expires: 600;refresher=uac");
        line.receive(&ok.to_string());
    }
    assert!(line.events.is_empty());
}

#[test]
fn a_peer_without_update_is_refreshed_by_reinvite() {
    let mut line = Line::new();
    let invite = Ask::invite().with("Supported: timer");
    line.confirm(&invite.with("Session-Expires: 600;refresher=uas"));
    line.run_for(Duration::from_secs(300));
    let reinvite = line.sent.pop().unwrap().1;
    assert!(reinvite.starts_with("INVITE sip:phone@192.0.2.10:5062 "), "{reinvite}");
    assert!(reinvite.ends_with("\r\n\r\nv=0\r\n"), "the description that it has: {reinvite}");
    let ok = Reply::to(&reinvite, "200 OK").sdp(OFFER).with("Session-Expires: 600;refresher=uac");
    line.receive(&ok.to_string());
    line.receive(&ok.to_string());
    let acks: Vec<String> = line.sent.drain(..).map(|(_, text)| text).collect();
    assert!(acks.iter().all(|ack| ack.starts_with("ACK ")), "{acks:?}");
    assert_eq!(acks[0], acks[1]);
    assert!(matches!(line.event(), Event::Refreshed { .. }));
    assert!(line.events.is_empty());
    line.run_for(Duration::from_secs(300));
    assert!(line.take()[0].starts_with("INVITE "));
}

/// Sets up a call with a session of ten minutes that we refresh by re-INVITE. Returns the first
/// re-INVITE, to which the phone has sent 100.
fn heard_refresh(line: &mut Line) -> (DialogId, String) {
    let invite = Ask::invite().with("Supported: timer");
    let dialog = line.confirm(&invite.with("Session-Expires: 600;refresher=uas"));
    line.run_for(Duration::from_secs(300));
    let reinvite = line.sent.pop().unwrap().1;
    line.receive(&respond(&reinvite, "100 Trying"));
    (dialog, reinvite)
}

#[test]
fn a_refresh_that_only_gets_100_is_canceled_and_tried_again() {
    let mut line = Line::new();
    let (_, reinvite) = heard_refresh(&mut line);
    line.run_for(Duration::from_secs(31));
    line.receive(&respond(&reinvite, "180 Ringing"));
    line.run_for(Duration::from_secs(31));
    assert!(line.take().is_empty(), "it is patient while something comes");
    line.run_for(Duration::from_secs(1));
    let cancel = line.sent.pop().unwrap().1;
    assert!(cancel.starts_with("CANCEL sip:phone@192.0.2.10:5062 "), "{cancel}");
    assert_eq!(header(&cancel, "Via"), header(&reinvite, "Via"));
    line.receive(&respond(&cancel, "200 OK"));

    let theirs = Ask::reinvite(&line.tag, 2);
    line.receive(&theirs.to_string());
    assert!(matches!(line.event(), Event::Reinvite { .. }), "no glare any more");
    line.command(refusal(DialogId(1), Status::NOT_ACCEPTABLE_HERE));
    line.receive(&theirs.ack_of_refusal(&line.tag).to_string());
    line.sent.clear();

    line.run_for(Duration::from_secs(10));
    let again = line.sent.pop().unwrap().1;
    assert!(again.starts_with("INVITE "), "{again}");
    line.receive(&respond(&reinvite, "487 Request Terminated"));
    assert!(line.take()[0].starts_with("ACK "));
    line.receive(&Ask::reinvite(&line.tag, 3).to_string());
    assert_eq!(line.take_statuses(), [491], "the end of the first is not that of the second");
    line.receive(&Reply::to(&again, "200 OK").sdp(OFFER).to_string());
    assert!(matches!(line.event(), Event::Refreshed { .. }));
    line.receive(&Ask::bye(&line.tag).to_string());
    line.must_become_idle();
}

#[test]
fn a_refresh_that_only_got_100_ends_with_its_call() {
    for is_refused in [true, false] {
        for is_ours in [true, false] {
            let mut line = Line::new();
            let (dialog, reinvite) = heard_refresh(&mut line);
            if is_ours {
                line.command(Command::Bye { dialog, reason: None });
                let bye = line.sent.pop().unwrap().1;
                line.receive(&respond(&bye, "200 OK"));
            } else {
                line.receive(&Ask::bye(&line.tag).to_string());
            }
            line.sent.clear();
            assert!(line.endpoint.is_quiet(), "nobody waits for it");
            line.run_for(Duration::from_secs(31));
            line.receive(&respond(&reinvite, "180 Ringing"));
            if is_refused {
                line.receive(&respond(&reinvite, "487 Request Terminated"));
                assert!(line.take()[0].starts_with("ACK "));
                line.must_become_idle();
            }
            line.run_for(Duration::from_secs(1));
            assert!(is_refused || line.endpoint.is_idle(), "{:?}", line.endpoint);
        }
    }
}

#[test]
fn a_refresh_that_is_heard_after_the_end_of_its_call_does_not_stay() {
    let mut line = Line::new();
    let invite = Ask::invite().with("Supported: timer");
    line.confirm(&invite.with("Session-Expires: 600;refresher=uas"));
    line.run_for(Duration::from_secs(300));
    let reinvite = line.sent.pop().unwrap().1;
    line.receive(&Ask::bye(&line.tag).to_string());
    line.receive(&respond(&reinvite, "100 Trying"));
    line.must_become_idle();
}

#[test]
fn a_refresh_that_is_challenged_after_we_have_hung_up_is_not_sent_again() {
    let mut line = Line::new();
    let invite = line.call(call_with_password());
    let ok = Reply::to(&invite, "200 OK").tag("a").sdp(OFFER);
    line.receive(&ok.with("Session-Expires: 90;refresher=uac").to_string());
    line.run_for(Duration::from_secs(45));
    let reinvite = line.sent.pop().unwrap().1;
    assert!(reinvite.starts_with("INVITE "), "{reinvite}");
    line.command(Command::Bye { dialog: DIALOG, reason: None });
    line.sent.clear();
    line.receive(&Reply::to(&reinvite, "401 Unauthorized").with(CHALLENGE).to_string());
    let sent = line.take();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert!(sent[0].starts_with("ACK "), "{sent:?}");
}

#[test]
fn two_offers_at_once_are_refused_and_ours_comes_again() {
    let mut line = Line::new();
    let invite = Ask::invite().with("Supported: timer");
    line.confirm(&invite.with("Session-Expires: 600;refresher=uas"));
    line.run_for(Duration::from_secs(300));
    let reinvite = line.sent.pop().unwrap().1;
    let theirs = Ask::reinvite(&line.tag, 2);
    line.receive(&theirs.to_string());
    assert_eq!(line.take_statuses(), [491]);
    line.receive(&theirs.ack_of_refusal(&line.tag).to_string());
    line.receive(&Reply::to(&reinvite, "491 Request Pending").to_string());
    assert!(line.take()[0].starts_with("ACK "));
    line.run_for(Duration::from_secs(2));
    assert!(line.take()[0].starts_with("INVITE "), "within two seconds: it made the Call-ID");
    assert!(line.events.is_empty());
}

#[test]
fn a_peer_that_does_not_know_the_call_any_more_is_hung_up() {
    let mut line = Line::new();
    let invite = Ask::invite().with("Supported: timer").with("Allow: UPDATE");
    line.confirm(&invite.with("Session-Expires: 600;refresher=uas"));
    line.run_for(Duration::from_secs(300));
    let update = line.sent.pop().unwrap().1;
    line.receive(&Reply::to(&update, "481 Call/Transaction Does Not Exist").to_string());
    assert!(matches!(line.event(), Event::Lost { how: Loss::NotKnown, .. }));
    let bye = line.sent.pop().unwrap().1;
    line.receive(&respond(&bye, "481 Call/Transaction Does Not Exist"));
    assert!(matches!(line.event(), Event::Ended { .. }));
    line.must_become_idle();
}

/// Sets up a call with a session of ten minutes that we refresh by UPDATE. Returns the first
/// UPDATE.
fn refreshed(line: &mut Line) -> String {
    let invite = Ask::invite().with("Supported: timer").with("Allow: UPDATE");
    line.confirm(&invite.with("Session-Expires: 600;refresher=uas"));
    line.run_for(Duration::from_secs(300));
    line.sent.pop().unwrap().1
}

#[test]
fn a_refresh_that_is_refused_is_tried_again_ever_more_seldom() {
    let mut line = Line::new();
    let mut update = refreshed(&mut line);
    let begin = line.now;
    let mut times = Vec::new();
    while line.events.is_empty() {
        line.receive(&Reply::to(&update, "488 Not Acceptable Here").to_string());
        line.run_for(Duration::from_secs(1));
        if let Some((_, next)) = line.sent.pop() {
            times.push((line.now - begin).as_secs());
            update = next;
        }
    }
    assert_eq!(times, [10, 30, 70, 150, 268], "then the BYE");
    assert!(matches!(line.event(), Event::Lost { how: Loss::NotRefreshed, .. }));
}

#[test]
fn a_refresh_grants_a_longer_interval_twice() {
    let mut line = Line::new();
    let mut update = refreshed(&mut line);
    for least in ["700", "800"] {
        let small = Reply::to(&update, "422 Session Interval Too Small");
        line.receive(&small.with(&format!("Min-SE: {least}")).to_string());
        update = line.sent.pop().unwrap().1;
        let proposal = format!("{least};refresher=uac");
        assert_eq!(header(&update, "Session-Expires"), Some(proposal.as_str()));
        assert_eq!(header(&update, "Min-SE"), Some(least));
    }
    let small = Reply::to(&update, "422 Session Interval Too Small").with("Min-SE: 900");
    line.receive(&small.to_string());
    assert!(line.take().is_empty(), "later");
}

#[test]
fn a_peer_that_does_not_take_update_after_all_is_refreshed_by_reinvite() {
    for status in ["405 Method Not Allowed", "501 Not Implemented"] {
        let mut line = Line::new();
        let update = refreshed(&mut line);
        line.receive(&Reply::to(&update, status).to_string());
        let reinvite = line.sent.pop().unwrap().1;
        assert!(reinvite.starts_with("INVITE "), "{reinvite}");
        let ok = Reply::to(&reinvite, "200 OK").with("Session-Expires: 600;refresher=uac");
        line.receive(&ok.to_string());
        line.sent.clear();
        line.run_for(Duration::from_secs(300));
        assert!(line.take()[0].starts_with("INVITE "), "for good");
    }
}

#[test]
fn the_answer_to_an_update_says_where_the_peer_is() {
    let mut line = Line::new();
    let update = refreshed(&mut line);
    let dialog = DialogId(1);
    let ok = Reply::to(&update, "200 OK").contact("sip:phone@192.0.2.10:7777");
    line.receive(&ok.to_string());
    line.command(Command::Bye { dialog, reason: None });
    assert!(line.take()[0].starts_with("BYE sip:phone@192.0.2.10:7777 "));
}

#[test]
fn the_session_of_a_call_of_ours_is_refreshed_as_its_answer_says() {
    let mut line = Line::new();
    let invite = line.call(call());
    let ok = Reply::to(&invite, "200 OK")
        .tag("a")
        .sdp(OFFER)
        .with("Allow: UPDATE")
        .with("Session-Expires: 90;refresher=uac");
    line.receive(&ok.to_string());
    line.sent.clear();
    line.run_for(Duration::from_secs(45));
    assert!(line.take()[0].starts_with("UPDATE "));
}

#[test]
fn over_a_stream_nothing_is_repeated_but_the_answer() {
    let mut line = Line::new();
    let tcp = Path { transport: Transport::Tcp, ..path() };
    line.endpoint.handle_message(Ask::invite().to_string().as_bytes(), tcp, line.now);
    line.drain();
    let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
    line.sent.clear();
    line.command(refusal(dialog, Status::BUSY_HERE));
    line.run_for(Duration::from_secs(40));
    assert_eq!(line.take_statuses(), [486]);

    let invite = Ask::invite().branch("two").call("two");
    line.endpoint.handle_message(invite.to_string().as_bytes(), tcp, line.now);
    line.drain();
    let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
    line.sent.clear();
    line.answer(dialog);
    assert!(line.sent[0].1.contains(";transport=tcp>"), "{}", line.sent[0].1);
    line.run_for(Duration::from_secs(1));
    assert_eq!(line.take_statuses(), [200, 200], "it may pass a datagram hop");
}

#[test]
fn a_call_is_handed_over_to_whoever_may_have_it() {
    let mut line = Line::new();
    let first = line.confirm(&Ask::invite());
    let tag = line.tag.clone();
    let replaces =
        |more: &str| format!("Replaces: call@192.0.2.10;to-tag={tag};from-tag=phone{more}");
    let ask = |name: &str, header: &str| Ask::invite().call(name).branch(name).with(header);
    for (header, status) in [
        ("Replaces: other@192.0.2.10;to-tag=x;from-tag=phone".to_owned(), 481),
        ("Replaces: call@192.0.2.10;from-tag=phone".to_owned(), 400),
        (replaces(";early-only"), 486),
    ] {
        line.receive(&ask("no", &header).to_string());
        assert_eq!(line.take_statuses(), [status], "{header}");
    }
    let elsewhere = Path { peer: "198.51.100.9:5060".parse().unwrap(), ..path() };
    let stranger = ask("stranger", &replaces("")).to_string();
    line.endpoint.handle_message(stranger.as_bytes(), elsewhere, line.now);
    line.drain();
    assert_eq!(line.take_statuses(), [403]);
    line.receive(&ask("second", &replaces("")).to_string());
    let Event::Invite { dialog, invite } = line.event() else { panic!("no Invite") };
    assert_eq!(invite.replaces, Some(first));
    assert_ne!(dialog, first);
}

/// The NOTIFY of the phone about the progress of our REFER.
fn notify(line: &Line, cseq: u32, state: &str, fragment: &str) -> String {
    Ask::new("NOTIFY", cseq)
        .to(&line.tag)
        .with("Event: refer")
        .with(&format!("Subscription-State: {state}"))
        .body("message/sipfrag;version=2.0", fragment)
        .to_string()
}

#[test]
fn the_progress_of_a_transfer_is_read_whatever_its_reason_phrase() {
    let mut line = Line::new();
    let dialog = line.confirm(&Ask::invite());
    let target = Box::new("sip:300@pbx.example".parse().unwrap());
    line.command(Command::Refer { dialog, target, replaces: None });
    let refer = line.sent.last().unwrap().1.clone();
    line.receive(&respond(&refer, "202 Accepted"));
    line.events.clear();
    let notify = notify(&line, 2, "terminated;reason=noresource", "SIP/2.0 486 Bes~tzt\r\n");
    let mut bytes = notify.replace("message/sipfrag", "message / sipfrag").into_bytes();
    let at = bytes.iter().rposition(|byte| *byte == b'~').unwrap();
    bytes[at] = 0xe4;
    line.endpoint.handle_message(&bytes, path(), line.now);
    line.drain();
    assert!(matches!(line.event(), Event::Referred { status: Status::BUSY_HERE, .. }));
}

#[test]
fn a_transfer_is_asked_for_and_followed() {
    let mut line = Line::new();
    let dialog = line.confirm(&Ask::invite());
    line.receive(&notify(&line, 2, "active", "SIP/2.0 100 Trying\r\n"));
    assert_eq!(line.take_statuses(), [481], "nobody asked");

    let target = Box::new("sip:300@pbx.example".parse().unwrap());
    line.command(Command::Refer { dialog, target, replaces: None });
    let refer = line.sent.pop().unwrap().1;
    assert!(refer.starts_with("REFER sip:phone@192.0.2.10:5062 "), "{refer}");
    assert_eq!(header(&refer, "Refer-To"), Some("<sip:300@pbx.example>"));
    line.receive(&respond(&refer, "202 Accepted"));
    assert!(matches!(line.event(), Event::Referred { status: Status::TRYING, .. }));
    line.receive(&notify(&line, 3, "active;expires=60", "SIP/2.0 180 Ringing\r\n"));
    line.receive(&notify(&line, 4, "terminated;reason=noresource", "SIP/2.0 200 OK\r\n"));
    assert_eq!(line.take_statuses(), [200, 200]);
    assert!(matches!(line.event(), Event::Referred { status: Status::RINGING, .. }));
    assert!(matches!(line.event(), Event::Referred { status: Status::OK, .. }));
    line.receive(&notify(&line, 5, "terminated", "SIP/2.0 200 OK\r\n"));
    assert_eq!(line.take_statuses(), [481], "it is over");
    let other = Ask::new("NOTIFY", 6).to(&line.tag).with("Event: presence").to_string();
    line.receive(&other);
    assert_eq!(header(&line.sent[0].1, "Allow-Events"), Some("refer"));
    assert_eq!(line.take_statuses(), [489]);
}

#[test]
fn a_transfer_that_is_refused_or_silent_is_told_as_such() {
    for (answer, status) in [(Some("603 Decline"), 603), (None, 408)] {
        let mut line = Line::new();
        let dialog = line.confirm(&Ask::invite());
        let target = Box::new("sip:300@pbx.example".parse().unwrap());
        line.command(Command::Refer { dialog, target, replaces: None });
        match answer {
            Some(answer) => {
                let refer = line.sent.pop().unwrap().1;
                line.receive(&respond(&refer, answer));
            }
            None => line.run_for(Duration::from_secs(33)),
        }
        let Event::Referred { status: told, .. } = line.event() else { panic!("not told") };
        assert_eq!(told, status);
    }
    let mut line = Line::new();
    let dialog = line.confirm(&Ask::invite());
    let target = Box::new("sip:300@pbx.example".parse().unwrap());
    line.command(Command::Refer { dialog, target, replaces: None });
    let refer = line.sent.pop().unwrap().1;
    line.receive(&respond(&refer, "202 Accepted"));
    line.events.clear();
    line.receive(&notify(&line, 2, "terminated;reason=timeout", "SIP/2.0 100 Trying\r\n"));
    assert!(matches!(line.event(), Event::Referred { status: Status::REQUEST_TIMEOUT, .. }));
}

#[test]
fn a_transfer_whose_end_nobody_tells_has_failed() {
    for (expires, seconds) in
        [("active", 180), ("active;expires=20", 20), ("active;expires=x", 180)]
    {
        let mut line = Line::new();
        let dialog = line.confirm(&Ask::invite());
        let target = Box::new("sip:300@pbx.example".parse().unwrap());
        line.command(Command::Refer { dialog, target, replaces: None });
        let refer = line.sent.pop().unwrap().1;
        line.receive(&respond(&refer, "202 Accepted"));
        line.receive(&notify(&line, 2, expires, "SIP/2.0 180 Ringing\r\n"));
        line.events.clear();
        line.run_for(Duration::from_secs(seconds - 1));
        assert!(line.events.is_empty(), "{expires}");
        line.run_for(Duration::from_secs(1));
        assert!(
            matches!(line.event(), Event::Referred { status: Status::REQUEST_TIMEOUT, .. }),
            "{expires}"
        );
        line.sent.clear();
        line.receive(&notify(&line, 3, "terminated", "SIP/2.0 200 OK\r\n"));
        assert_eq!(line.take_statuses(), [481], "too late");
        assert!(line.events.is_empty());
    }
}

#[test]
fn a_consultative_transfer_names_the_call_that_it_replaces() {
    let mut line = Line::new();
    let dialog = line.confirm(&Ask::invite());
    let invite = line.answered(call());
    let local_tag = header(&invite, "From").unwrap().split(";tag=").nth(1).unwrap().to_owned();
    let target = Box::new("sip:200@pbx.example".parse().unwrap());
    line.command(Command::Refer { dialog, target, replaces: Some(DIALOG) });
    let refer = line.sent.pop().unwrap().1;
    let expected = format!(
        "<sip:phone@192.0.2.10:5062?Replaces=our-call%3Bto-tag%3Da%3Bfrom-tag%3D{local_tag}>"
    );
    assert_eq!(header(&refer, "Refer-To"), Some(expected.as_str()));
}

#[test]
fn we_call_nobody_because_a_stranger_says_so() {
    let mut line = Line::of_stranger(EndpointConfig::new("test".to_owned()));
    line.confirm(&Ask::invite());
    let refer = Ask::new("REFER", 2).to(&line.tag).with("Refer-To: <sip:+881@evil.example>");
    line.receive(&refer.to_string());
    assert_eq!(line.take_statuses(), [603]);
    assert!(line.events.is_empty());
    line.receive(&Ask::new("REFER", 3).with("Refer-To: <sip:+881@evil.example>").to_string());
    assert_eq!(line.take_statuses(), [481]);
}

#[test]
fn a_peer_that_the_operator_trusts_may_refer_us() {
    let mut line = Line::new();
    line.confirm(&Ask::invite());
    let refer = Ask::new("REFER", 2).to(&line.tag).with("Refer-To: <sip:200@pbx.example>");
    line.receive(&refer.to_string());
    assert_eq!(line.take()[0], "202 Accepted");
    assert!(matches!(line.event(), Event::ReferAsked { .. }));
}

/// The phone of an outgoing call sends a REFER with this header field.
fn refer(line: &mut Line, cseq: u32, header: &str) {
    let us = line.tag.clone();
    let refer = Ask::new("REFER", cseq).call("our-call").to(&us).with(header);
    line.receive(&refer.to_string().replace(";tag=phone", ";tag=a"));
}

#[test]
fn whom_we_have_called_may_name_somebody_else() {
    let mut line = Line::new();
    let invite = line.answered(call());
    line.tag = header(&invite, "From").unwrap().split(";tag=").nth(1).unwrap().to_owned();
    line.events.clear();
    line.sent.clear();
    for (cseq, (to, status)) in (2..).zip([
        ("Subject: nobody", 400),
        ("Refer-To: <mailto:a@b.example>", 603),
        ("Refer-To: <sip:a@b.example;method=SUBSCRIBE>", 603),
        ("Refer-To: <sip:a@b.example?Replaces=nothing>", 400),
        ("Refer-To: <sip:a@b.example?Replaces=1%3Bto-tag%3D1%3Bfrom-tag%3D2%0D%0AX:y>", 400),
    ]) {
        refer(&mut line, cseq, to);
        assert_eq!(line.take_statuses(), [status], "{to}");
    }
    assert!(line.events.is_empty());

    let replaces = "1%40b%3Bto-tag%3Dx%3Bfrom-tag%3Dy";
    refer(
        &mut line,
        10,
        &format!("Refer-To: \"A\" <sip:a@b.example;user=phone?Replaces={replaces}>"),
    );
    let [(_, accepted), (_, trying)] = line.sent.as_slice() else { panic!("{:?}", line.sent) };
    assert!(accepted.starts_with("SIP/2.0 202 "), "{accepted}");
    assert!(trying.starts_with("NOTIFY "), "{trying}");
    assert_eq!(header(trying, "Event"), Some("refer"));
    assert!(trying.ends_with("SIP/2.0 100 Trying\r\n"), "{trying}");
    let Event::ReferAsked { dialog: DIALOG, referral } = line.event() else { panic!("not asked") };
    assert_eq!(referral.target.to_string(), "sip:a@b.example");
    assert_eq!(referral.replaces.as_deref(), Some("1@b;to-tag=x;from-tag=y"));
    line.sent.clear();
    refer(&mut line, 11, "Refer-To: <sip:c@b.example>");
    assert_eq!(line.take_statuses(), [491], "one at a time");

    line.command(Command::TellReferrer { dialog: DIALOG, status: Status::BUSY_HERE });
    line.command(Command::TellReferrer { dialog: DIALOG, status: Status::OK });
    let [(_, last)] = line.sent.as_slice() else { panic!("{:?}", line.sent) };
    assert_eq!(header(last, "Subscription-State"), Some("terminated;reason=noresource"));
    assert!(last.ends_with("SIP/2.0 486 Busy Here\r\n"), "{last}");
    line.sent.clear();
    refer(&mut line, 12, "Refer-To: <sip:c@b.example>");
    assert_eq!(header(&line.sent[1].1, "Event"), Some("refer;id=12"));
}
