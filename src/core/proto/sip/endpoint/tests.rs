//! A scripted phone and our endpoint in virtual time: single rules first, then random sequences.

mod bodies;
mod calling;
mod desk_phones;
mod keep_alive;
mod next_hops;
mod random;
mod random_calls;
mod registering;
mod sessions;
mod strangers;
mod streams;
mod unproven;

use std::time::{Duration, Instant};

use rand::{SeedableRng, rngs::StdRng};

use super::*;

pub(super) const T1_MS: u64 = 500;
const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nt=0 0\r\n";

#[test]
fn a_call_is_answered_acknowledged_and_hung_up() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite());
    assert_eq!(line.take(), ["100 Trying"]);

    line.command(Command::Ring { dialog });
    line.answer(dialog);
    assert_eq!(line.take_statuses(), [180, 200]);
    line.receive(&Ask::ack(&line.tag).to_string());
    assert!(matches!(line.event(), Event::Acknowledged { body: None, .. }));
    line.run_for(Duration::from_secs(60));
    assert!(line.take().is_empty());

    line.receive(&Ask::bye(&line.tag).with("Reason: Q.850;cause=16").to_string());
    assert_eq!(line.take(), ["200 OK"]);
    let Event::Bye { reason, .. } = line.event() else { panic!("no Bye") };
    assert_eq!(reason.as_deref(), Some("Q.850;cause=16"));
    line.must_become_idle();
}

#[test]
fn the_offer_tells_who_called_whom() {
    let mut line = Line::new();
    line.receive(&Ask::invite().with("Subject: Hello").to_string());
    let Event::Invite { invite, .. } = line.event() else { panic!("no Invite") };
    assert_eq!(invite.offer.as_deref(), Some(OFFER.as_bytes()));
    assert_eq!(invite.subject.as_deref(), Some("Hello"));
    assert_eq!(invite.call_id, "call@192.0.2.10");
    assert_eq!(invite.request_uri.to_string(), "sip:100@192.0.2.1");
    assert_eq!(invite.from.tag(), Some("phone"));
    assert_eq!(invite.path, path());
}

#[test]
fn the_offer_tells_whom_it_was_meant_for_before() {
    let diverted = |headers: &[&str]| {
        let mut line = Line::new();
        let invite = headers.iter().fold(Ask::invite(), |invite, header| invite.with(header));
        line.receive(&invite.to_string());
        let Event::Invite { invite, .. } = line.event() else { panic!("no Invite") };
        let uris = invite.diverted.iter().map(|party| party.uri().without_parameters());
        (uris.collect::<Vec<_>>(), invite.referred_by)
    };
    let newest_first = "Diversion: <sip:b@x>;reason=no-answer, \"A, B\" <sip:a@x;p>;counter=1";
    assert_eq!(diverted(&[newest_first]).0, ["sip:a@x", "sip:b@x"]);
    let two = ["Diversion: <tel:+2>", "Diversion: <tel:+1>"];
    assert_eq!(diverted(&two).0, ["tel:+1", "tel:+2"]);
    let history = "History-Info: <sip:a@x>;index=1, <sip:b@x?Reason=SIP%3Bcause%3D302>;index=1.1, \
                   <sip:100@192.0.2.1>;index=1.1.1";
    assert_eq!(diverted(&[history]).0, ["sip:a@x", "sip:b@x"]);
    assert_eq!(diverted(&["Diversion: nonsense, <sip:b@x>"]).0, ["sip:b@x"]);
    let (uris, referred_by) = diverted(&["Referred-By: <sip:c@x>"]);
    assert!(uris.is_empty());
    assert_eq!(referred_by.unwrap().uri().to_string(), "sip:c@x");
}

#[test]
fn the_answer_says_how_we_are_reached() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite());
    line.answer(dialog);
    let ok = line.sent.last().unwrap().1.clone();
    assert!(ok.contains("Contact: <sip:aftertone@192.0.2.1:5060>\r\n"), "{ok}");
    assert!(ok.contains("Content-Type: application/sdp\r\n"), "{ok}");
    assert!(ok.ends_with("\r\n\r\nv=0\r\n"), "{ok}");
    assert!(ok.contains(";received=192.0.2.10"), "{ok}");
    assert!(ok.contains(";rport=5062"), "{ok}");
}

#[test]
fn an_answer_without_ack_is_repeated_and_then_the_call_is_hung_up() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite());
    line.answer(dialog);
    line.sent.clear();
    line.run_for(Duration::from_secs(32));
    let times: Vec<u128> =
        line.sent.iter().filter(|(_, text)| text.contains(" 200 ")).map(|(at, _)| *at).collect();
    assert_eq!(times, [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
    assert!(matches!(line.event(), Event::Lost { how: Loss::NotAcknowledged, .. }));
    let bye = line.sent.last().unwrap().clone();
    assert!(bye.1.starts_with("BYE sip:phone@192.0.2.10:5062 SIP/2.0\r\n"), "{}", bye.1);
    assert_eq!(bye.0, 32_000);
    line.receive(&respond(&bye.1, "200 OK"));
    assert!(matches!(line.event(), Event::Ended { how: Ending::Answered, .. }));
    line.must_become_idle();
}

#[test]
fn a_repeated_invite_gets_the_same_response_and_no_second_event() {
    let mut line = Line::new();
    let invite = Ask::invite();
    let dialog = line.receive_invite(&invite);
    line.receive(&invite.to_string());
    line.command(Command::Ring { dialog });
    line.receive(&invite.to_string());
    assert_eq!(line.take_statuses(), [100, 100, 180, 180]);
    line.answer(dialog);
    line.receive(&invite.to_string());
    assert_eq!(line.take_statuses(), [200]);
    assert!(line.events.is_empty());
}

#[test]
fn cancel_before_the_answer_ends_the_call_with_487() {
    let mut line = Line::new();
    let invite = Ask::invite();
    let dialog = line.receive_invite(&invite);
    line.command(Command::Ring { dialog });
    line.sent.clear();
    line.receive(&invite.cancel().to_string());
    assert_eq!(line.take(), ["200 OK", "487 Request Terminated"]);
    assert!(matches!(line.event(), Event::Canceled { .. }));
    line.answer(dialog);
    line.receive(&invite.cancel().to_string());
    assert_eq!(line.take_statuses(), [200]);
    line.receive(&invite.ack_of_refusal(&line.tag).to_string());
    line.run_for(Duration::from_secs(1));
    assert!(line.take().is_empty());
    line.must_become_idle();
}

#[test]
fn cancel_after_the_answer_has_no_effect() {
    let mut line = Line::new();
    let invite = Ask::invite();
    line.confirm(&invite);
    line.receive(&invite.cancel().to_string());
    assert_eq!(line.take_statuses(), [200]);
    assert!(line.events.is_empty());
    assert_eq!(line.endpoint.dialogs(), 1);
}

#[test]
fn cancel_of_nothing_is_answered_481() {
    let mut line = Line::new();
    line.receive(&Ask::invite().cancel().to_string());
    assert_eq!(line.take_statuses(), [481]);
    assert!(line.endpoint.is_idle());
}

#[test]
fn our_bye_ends_the_call_when_it_is_answered() {
    let mut line = Line::new();
    let dialog = line.confirm(&Ask::invite());
    let reason = Some("Q.850;cause=16".to_owned());
    line.command(Command::Bye { dialog, reason });
    let bye = line.sent.last().unwrap().1.clone();
    assert!(bye.starts_with("BYE sip:phone@192.0.2.10:5062 SIP/2.0\r\n"), "{bye}");
    assert!(bye.contains("Reason: Q.850;cause=16\r\n"), "{bye}");
    assert!(bye.contains("Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK"), "{bye}");
    assert!(bye.contains(";tag=phone"), "{bye}");
    line.run_for(Duration::from_secs(1));
    assert_eq!(line.take().len(), 2, "BYE is repeated");
    line.receive(&respond(&bye, "200 OK"));
    assert!(matches!(line.event(), Event::Ended { how: Ending::Answered, .. }));
    line.receive(&respond(&bye, "200 OK"));
    assert!(line.events.is_empty());
    line.must_become_idle();
}

#[test]
fn our_bye_without_answer_times_out() {
    let mut line = Line::new();
    let dialog = line.confirm(&Ask::invite());
    line.command(Command::Bye { dialog, reason: None });
    line.run_for(Duration::from_secs(32));
    assert!(matches!(line.event(), Event::Ended { how: Ending::TimedOut, .. }));
    line.must_become_idle();
}

#[test]
fn our_bye_waits_for_the_ack() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite());
    line.answer(dialog);
    line.sent.clear();
    line.command(Command::Bye { dialog, reason: None });
    assert!(line.take().is_empty());
    line.receive(&Ask::ack(&line.tag).to_string());
    assert!(line.take()[0].starts_with("BYE "));
    assert!(line.events.is_empty());
}

#[test]
fn byes_that_cross_end_the_call_once() {
    let mut line = Line::new();
    let dialog = line.confirm(&Ask::invite());
    line.command(Command::Bye { dialog, reason: None });
    let bye = line.sent.last().unwrap().1.clone();
    line.sent.clear();
    line.receive(&Ask::bye(&line.tag).to_string());
    assert_eq!(line.take_statuses(), [200]);
    line.receive(&respond(&bye, "481 Gone"));
    assert!(matches!(line.event(), Event::Ended { .. }));
    assert!(line.events.is_empty());
}

#[test]
fn a_repeated_bye_gets_the_same_answer() {
    let mut line = Line::new();
    line.confirm(&Ask::invite());
    let bye = Ask::bye(&line.tag).to_string();
    line.receive(&bye);
    line.receive(&bye);
    assert_eq!(line.take_statuses(), [200, 200]);
    assert!(matches!(line.event(), Event::Bye { .. }));
    assert!(line.events.is_empty());
}

#[test]
fn bye_of_a_call_that_still_rings_cancels_it() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite());
    line.command(Command::Ring { dialog });
    line.sent.clear();
    line.receive(&Ask::bye(&line.tag).to_string());
    assert_eq!(line.take_statuses(), [200, 487]);
    assert!(matches!(line.event(), Event::Canceled { .. }));
}

#[test]
fn a_reinvite_is_answered_and_refreshes_the_target() {
    let mut line = Line::new();
    let dialog = line.confirm(&Ask::invite());
    let reinvite = Ask::reinvite(&line.tag, 2).contact("sip:phone@192.0.2.10:7777");
    line.receive(&reinvite.to_string());
    let Event::Reinvite { offer, .. } = line.event() else { panic!("no Reinvite") };
    assert_eq!(offer.as_deref(), Some(OFFER.as_bytes()));
    line.answer(dialog);
    assert_eq!(line.take_statuses(), [100, 200]);
    line.receive(&Ask::ack(&line.tag).cseq(2).branch("ack2").to_string());
    assert!(matches!(line.event(), Event::Acknowledged { .. }));
    line.command(Command::Bye { dialog, reason: None });
    assert!(line.take()[0].starts_with("BYE sip:phone@192.0.2.10:7777 SIP/2.0"));
}

#[test]
fn a_refused_reinvite_leaves_the_call_as_it_was() {
    let mut line = Line::new();
    let dialog = line.confirm(&Ask::invite());
    let reinvite = Ask::reinvite(&line.tag, 2);
    line.receive(&reinvite.to_string());
    line.event();
    line.sent.clear();
    line.command(refusal(dialog, Status::NOT_ACCEPTABLE_HERE));
    assert_eq!(line.take_statuses(), [488]);
    line.receive(&reinvite.ack_of_refusal(&line.tag).to_string());
    line.run_for(Duration::from_secs(60));
    assert!(line.take().is_empty());
    assert_eq!(line.endpoint.dialogs(), 1);
    line.receive(&Ask::reinvite(&line.tag, 3).to_string());
    assert!(matches!(line.event(), Event::Reinvite { .. }));
}

#[test]
fn a_reinvite_before_the_ack_is_glare() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite());
    line.answer(dialog);
    line.sent.clear();
    line.receive(&Ask::reinvite(&line.tag, 2).to_string());
    assert_eq!(line.take_statuses(), [491]);
    assert!(line.events.is_empty());
}

#[test]
fn a_second_invite_before_the_answer_is_told_to_come_later() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite());
    line.command(Command::Ring { dialog });
    line.sent.clear();
    line.receive(&Ask::reinvite(&line.tag, 2).to_string());
    assert!(line.sent[0].1.contains("Retry-After: "), "{}", line.sent[0].1);
    assert_eq!(line.take_statuses(), [500]);
    line.answer(dialog);
    assert_eq!(line.take_statuses(), [200]);
}

#[test]
fn a_request_with_a_lower_cseq_is_out_of_order() {
    let mut line = Line::new();
    line.confirm(&Ask::invite().cseq(10));
    line.receive(&Ask::bye(&line.tag).cseq(9).to_string());
    assert_eq!(line.take_statuses(), [500]);
    assert_eq!(line.endpoint.dialogs(), 1);
}

#[test]
fn a_request_in_an_unknown_dialog_is_answered_481() {
    let mut line = Line::new();
    line.receive(&Ask::bye("nobody").to_string());
    line.receive(&Ask::reinvite("nobody", 2).to_string());
    assert_eq!(line.take_statuses(), [481, 481]);
    line.receive(&Ask::ack("nobody").to_string());
    assert!(line.take().is_empty());
    assert!(line.endpoint.is_idle());
}

#[test]
fn a_refusal_is_repeated_until_its_ack() {
    let mut line = Line::new();
    let invite = Ask::invite();
    let dialog = line.receive_invite(&invite);
    line.sent.clear();
    line.command(refusal(dialog, Status::BUSY_HERE));
    line.run_for(Duration::from_secs(2));
    line.receive(&invite.to_string());
    assert_eq!(line.take_statuses(), [486, 486, 486, 486]);
    line.receive(&invite.ack_of_refusal(&line.tag).to_string());
    line.receive(&invite.ack_of_refusal(&line.tag).to_string());
    line.run_for(Duration::from_secs(5));
    assert!(line.take().is_empty());
    assert!(line.events.is_empty());
    assert!(line.endpoint.is_idle(), "timer I is over");
}

#[test]
fn a_refusal_without_ack_is_given_up() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite());
    line.sent.clear();
    line.command(refusal(dialog, Status::BUSY_HERE));
    line.run_for(Duration::from_secs(32));
    assert_eq!(line.take().len(), 11);
    assert!(line.endpoint.is_idle(), "timer H is over");
}

#[test]
fn only_the_first_final_answer_counts() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite());
    line.sent.clear();
    line.command(refusal(dialog, Status::BUSY_HERE));
    line.answer(dialog);
    line.command(refusal(dialog, Status::DECLINE));
    assert_eq!(line.take_statuses(), [486]);
}

#[test]
fn options_tells_what_we_can() {
    let mut line = Line::new();
    line.receive(&Ask::new("OPTIONS", 1).to_string());
    let ok = line.sent[0].1.clone();
    assert!(
        ok.contains(
            "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK, NOTIFY, REFER\r\n"
        ),
        "{ok}"
    );
    assert!(ok.contains("Accept: application/sdp\r\n"), "{ok}");
    assert_eq!(line.take_statuses(), [200]);
    assert!(line.endpoint.is_idle());

    line.endpoint.set_draining(true);
    line.receive(&Ask::new("OPTIONS", 2).to_string());
    line.receive(&Ask::invite().to_string());
    assert_eq!(line.take_statuses(), [503, 503]);

    let mut line = Line::new();
    line.endpoint.set_users([("phone", "secret")].into_iter(), line.now);
    line.receive(&Ask::new("OPTIONS", 1).to_string());
    let allow = header(&line.sent[0].1, "Allow").unwrap();
    assert!(allow.ends_with(", REFER, REGISTER"), "{allow}");
}

#[test]
fn the_same_stateless_request_gets_the_same_answer() {
    let mut line = Line::new();
    let options = Ask::new("OPTIONS", 1).to_string();
    line.receive(&options);
    line.receive(&options);
    assert_eq!(line.sent[0].1, line.sent[1].1);
}

#[test]
fn methods_that_we_do_not_serve_are_refused_with_those_that_we_do() {
    let mut line = Line::new();
    line.receive(&Ask::new("REGISTER", 1).to_string());
    assert!(line.sent[0].1.contains("\r\nAllow: INVITE, "), "{}", line.sent[0].1);
    line.receive(&Ask::new("SUBSCRIBE", 1).to_string());
    line.receive(&Ask::new("FROBNICATE", 1).to_string());
    assert_eq!(line.take_statuses(), [405, 405, 501]);
}

#[test]
fn a_request_that_came_by_two_ways_is_merged() {
    let mut line = Line::new();
    line.receive_invite(&Ask::invite());
    line.sent.clear();
    let other_way = Ask::invite().branch("other-way");
    line.receive(&other_way.to_string());
    line.receive(&other_way.to_string());
    assert_eq!(line.take_statuses(), [482, 482]);
    assert!(line.events.is_empty());
}

#[test]
fn peers_of_rfc_2543_are_matched_without_a_branch() {
    let mut line = Line::new();
    let invite = Ask::invite().without_cookie();
    let dialog = line.receive_invite(&invite);
    line.receive(&invite.to_string());
    assert_eq!(line.take_statuses(), [100, 100]);
    line.answer(dialog);
    line.receive(&invite.to_string());
    assert_eq!(line.take_statuses(), [200]);
    line.receive(&Ask::ack(&line.tag).without_cookie().to_string());
    assert!(matches!(line.event(), Event::Acknowledged { .. }));
    line.receive(&Ask::bye(&line.tag).without_cookie().to_string());
    assert!(matches!(line.event(), Event::Bye { .. }));
    line.must_become_idle();
}

#[test]
fn the_refusal_of_an_rfc_2543_peer_is_acknowledged() {
    let mut line = Line::new();
    let invite = Ask::invite().without_cookie();
    let dialog = line.receive_invite(&invite);
    line.command(refusal(dialog, Status::BUSY_HERE));
    line.sent.clear();
    line.receive(&invite.ack_of_refusal(&line.tag).without_cookie().to_string());
    line.run_for(Duration::from_secs(5));
    assert!(line.take().is_empty());
    assert!(line.endpoint.is_idle());
}

#[test]
fn an_invite_without_offer_is_answered_in_the_ack() {
    let mut line = Line::new();
    line.receive(&Ask::invite().body("", "").to_string());
    let Event::Invite { dialog, invite } = line.event() else { panic!("no Invite") };
    assert_eq!(invite.offer, None);
    line.answer(dialog);
    line.receive(&Ask::ack(&line.tag).body("application/sdp", OFFER).to_string());
    let Event::Acknowledged { body, .. } = line.event() else { panic!("no ACK") };
    assert_eq!(body.as_deref(), Some(OFFER.as_bytes()));
}

#[test]
fn loose_routes_are_followed() {
    let mut line = Line::new();
    let invite = Ask::invite()
        .with("Record-Route: <sip:192.0.2.20;lr>")
        .with("Record-Route: <sip:192.0.2.30:5080;lr>");
    let dialog = line.confirm(&invite);
    line.command(Command::Bye { dialog, reason: None });
    let bye = line.sent.last().unwrap().1.clone();
    assert!(bye.starts_with("BYE sip:phone@192.0.2.10:5062 SIP/2.0\r\n"), "{bye}");
    let first = bye.find("<sip:192.0.2.20;lr>").unwrap();
    let second = bye.find("<sip:192.0.2.30:5080;lr>").unwrap();
    assert!(bye.contains("\r\nRoute: ") && first < second, "{bye}");
    assert_eq!(line.last_path.peer, "192.0.2.20:5060".parse().unwrap());
}

#[test]
fn strict_routes_are_followed() {
    let mut line = Line::new();
    let invite = Ask::invite()
        .with("Record-Route: <sip:192.0.2.20>")
        .with("Record-Route: <sip:192.0.2.30:5080;lr>");
    let dialog = line.confirm(&invite);
    line.command(Command::Bye { dialog, reason: None });
    let bye = line.sent.last().unwrap().1.clone();
    assert!(bye.starts_with("BYE sip:192.0.2.20 SIP/2.0\r\n"), "{bye}");
    let first = bye.find("<sip:192.0.2.30:5080;lr>").unwrap();
    let target = bye.find("<sip:phone@192.0.2.10:5062>").unwrap();
    assert!(first < target, "{bye}");
}

#[test]
fn a_peer_behind_a_nat_is_reached_the_way_that_it_came() {
    let mut line = Line::new();
    let dialog = line.confirm(&Ask::invite().contact("sip:phone@10.0.0.10:5999"));
    line.command(Command::Bye { dialog, reason: None });
    assert!(line.take()[0].starts_with("BYE sip:phone@10.0.0.10:5999 "));
    assert_eq!(line.last_path, path());
}

#[test]
fn a_peer_behind_a_proxy_that_stepped_out_is_reached_at_its_contact() {
    let mut line = Line::new();
    let invite = Ask::invite()
        .contact("sip:phone@192.0.2.77:5999")
        .with("Via: SIP/2.0/UDP 192.0.2.77:5999;branch=z9hG4bK-behind");
    let dialog = line.confirm(&invite);
    line.command(Command::Bye { dialog, reason: None });
    assert_eq!(line.last_path.peer, "192.0.2.77:5999".parse().unwrap());
    assert_eq!(line.last_path.local, path().local);
}

#[test]
fn an_advertised_address_stands_in_for_ours() {
    let told = |advertised: &str, path: Path| {
        let advertised = Some(advertised.parse().unwrap());
        let mut line =
            Line::with(EndpointConfig { advertised, ..EndpointConfig::new("test".to_owned()) });
        line.endpoint.handle_message(Ask::invite().to_string().as_bytes(), path, line.now);
        line.drain();
        let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
        line.answer(dialog);
        let ok = line.sent.last().unwrap().1.clone();
        ok.lines().find_map(|line| line.strip_prefix("Contact: ")).unwrap().to_owned()
    };
    let [v6, peer] = ["[2001:db8::1]:5060", "[2001:db8::10]:5062"].map(|at| at.parse().unwrap());
    let v6 = Path::udp(v6, peer);
    assert_eq!(told("198.51.100.7", path()), "<sip:aftertone@198.51.100.7:5060>");
    assert_eq!(told("2001:db8::7", v6), "<sip:aftertone@[2001:db8::7]:5060>");
    // A peer that uses one address family may not have the other.
    assert_eq!(told("198.51.100.7", v6), "<sip:aftertone@[2001:db8::1]:5060>");
    assert_eq!(told("2001:db8::7", path()), "<sip:aftertone@192.0.2.1:5060>");
}

#[test]
fn a_response_that_was_meant_for_a_proxy_is_dropped() {
    let mut line = Line::new();
    let dialog = line.confirm(&Ask::invite());
    line.command(Command::Bye { dialog, reason: None });
    let ok = respond(&line.sent.last().unwrap().1, "200 OK");
    let two_vias = ok.replacen("Via: ", "Via: SIP/2.0/UDP 192.0.2.9;branch=z9hG4bK-x\r\nVia: ", 1);
    line.receive(&two_vias);
    assert!(line.events.is_empty());
}

#[test]
fn the_answer_repeats_the_record_routes() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite().with("Record-Route: <sip:192.0.2.20;lr>"));
    line.answer(dialog);
    let ok = &line.sent.last().unwrap().1;
    assert!(ok.contains("Record-Route: <sip:192.0.2.20;lr>\r\n"), "{ok}");
}

#[test]
fn a_full_endpoint_refuses_new_calls_without_remembering_them() {
    let config = EndpointConfig { max_dialogs: 1, ..EndpointConfig::new("test".to_owned()) };
    let mut line = Line::with(config);
    line.confirm(&Ask::invite());
    let tag = line.tag.clone();
    line.receive(&Ask::invite().call("second").branch("second").to_string());
    assert!(line.sent[0].1.contains("Retry-After: 10\r\n"), "{}", line.sent[0].1);
    assert_eq!(line.take_statuses(), [503]);
    line.receive(&Ask::bye(&tag).to_string());
    assert_eq!(line.take_statuses(), [200]);
    line.must_become_idle();
}

#[test]
fn a_dialog_can_always_be_hung_up_though_no_transaction_is_left() {
    let config = EndpointConfig { max_transactions: 1, ..EndpointConfig::new("test".to_owned()) };
    let mut line = Line::with(config);
    line.confirm(&Ask::invite());
    line.receive(&Ask::new("INFO", 2).to(&line.tag).to_string());
    line.receive(&Ask::bye(&line.tag).cseq(3).to_string());
    assert_eq!(line.take_statuses(), [503, 200]);
}

#[test]
fn tones_by_info_are_told_once() {
    let mut line = Line::new();
    line.confirm(&Ask::invite());
    let info = Ask::new("INFO", 2)
        .to(&line.tag)
        .body("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n")
        .to_string();
    line.receive(&info);
    line.receive(&info);
    assert_eq!(line.take_statuses(), [200, 200]);
    let Event::Info { tone, .. } = line.event() else { panic!("no Info") };
    assert_eq!(tone.as_char(), '5');
    assert!(line.events.is_empty());
    let other = Ask::new("INFO", 3).to(&line.tag).body("text/plain", "hello");
    line.receive(&other.to_string());
    let accept = header(&line.sent[0].1, "Accept");
    assert_eq!(accept, Some("application/dtmf-relay, application/dtmf"));
    assert_eq!(line.take_statuses(), [415]);
    let package = Ask::new("INFO", 4).to(&line.tag).with("Info-Package: conference");
    line.receive(&package.to_string());
    assert_eq!(header(&line.sent[0].1, "Recv-Info"), Some(""));
    assert_eq!(line.take_statuses(), [469], "RFC 6086 §4.2.2");
}

#[test]
fn stray_responses_and_noise_are_dropped() {
    let mut line = Line::new();
    let bye = Ask::bye("nobody").to_string();
    line.receive(&respond(&bye, "200 OK"));
    line.receive("\r\n\r\n");
    line.receive("\0\u{1}\u{2}");
    line.receive("");
    assert!(line.take().is_empty());
    assert!(line.endpoint.is_idle());
}

#[test]
fn a_call_that_rings_is_refused_when_we_hang_up() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite());
    line.sent.clear();
    line.command(Command::Bye { dialog, reason: None });
    assert_eq!(line.take_statuses(), [480]);
    assert!(matches!(line.event(), Event::Ended { .. }));
}

#[test]
fn hanging_up_refuses_the_pending_reinvite() {
    let mut line = Line::new();
    let dialog = line.confirm(&Ask::invite());
    line.receive(&Ask::reinvite(&line.tag, 2).to_string());
    line.sent.clear();
    line.command(Command::Bye { dialog, reason: None });
    let sent = line.take();
    assert!(sent[0].starts_with("487"), "{sent:?}");
    assert!(sent[1].starts_with("BYE"), "{sent:?}");
}

/// A scripted phone, our endpoint, and the virtual time.
pub(super) struct Line {
    pub endpoint: Endpoint,
    pub start: Instant,
    pub now: Instant,
    /// Messages that the endpoint has sent: milliseconds since the start, message.
    pub sent: Vec<(u128, String)>,
    pub events: Vec<Event>,
    /// The number of `Heard` events.
    heard: usize,
    /// Paths that were reported as silent.
    pub silent: Vec<Path>,
    /// Our tag, as the phone has learnt it.
    pub tag: String,
    last_path: Path,
    last_next_hop: NextHop,
    /// The paths of the messages sent; cleared when the call is up.
    paths: Vec<Path>,
}

impl Line {
    fn new() -> Self {
        Self::with(EndpointConfig::new("test".to_owned()))
    }

    /// The line of a phone that the operator trusts.
    pub fn with(config: EndpointConfig) -> Self {
        let mut line = Self::of_stranger(config);
        line.endpoint.set_trusted_peers(vec!["192.0.2.0/24".parse().unwrap()]);
        line
    }

    fn of_stranger(config: EndpointConfig) -> Self {
        let start = Instant::now();
        Self {
            endpoint: Endpoint::new(config, StdRng::seed_from_u64(1)),
            start,
            now: start,
            sent: Vec::new(),
            events: Vec::new(),
            heard: 0,
            silent: Vec::new(),
            tag: String::new(),
            last_path: path(),
            last_next_hop: NextHop::Peer,
            paths: Vec::new(),
        }
    }

    pub fn receive(&mut self, message: &str) {
        self.receive_over(path(), message);
    }

    fn receive_over(&mut self, path: Path, message: &str) {
        self.endpoint.handle_message(message.as_bytes(), path, self.now);
        self.drain();
    }

    pub fn command(&mut self, command: Command) {
        self.endpoint.handle_command(command, self.now);
        self.drain();
    }

    /// Runs all timers that are due until `end`.
    pub fn run_until(&mut self, end: Instant) {
        while let Some(due) = self.endpoint.poll_timeout().filter(|due| *due <= end) {
            assert!(due >= self.now || due < end, "a deadline is stuck");
            self.now = self.now.max(due);
            self.endpoint.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    fn must_become_idle(&mut self) {
        self.run_for(Duration::from_secs(32 + 5));
        assert!(self.endpoint.is_idle(), "{:?}", self.endpoint);
    }

    fn drain(&mut self) {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit(transmit) => {
                    if let Some(next_hop) = next_hops::in_text(&transmit) {
                        assert_eq!(transmit.next_hop, next_hop, "{transmit:?}");
                    }
                    let text = String::from_utf8_lossy(&transmit.bytes).into_owned();
                    let tag = header(&text, "To").and_then(|to| Some(to.split_once(";tag=")?.1));
                    if let (Some(tag), true) = (tag, text.starts_with("SIP/2.0 ")) {
                        self.tag = tag.to_owned();
                    }
                    self.sent.push(((self.now - self.start).as_millis(), text));
                    self.last_path = transmit.path;
                    self.last_next_hop = transmit.next_hop;
                    self.paths.push(transmit.path);
                }
                Output::Event(Event::Heard { .. }) => self.heard += 1,
                Output::Event(event) => self.events.push(event),
                Output::Silent(path) => self.silent.push(path),
            }
        }
    }

    fn receive_invite(&mut self, invite: &Ask) -> DialogId {
        self.receive(&invite.to_string());
        match self.event() {
            Event::Invite { dialog, .. } => dialog,
            other => panic!("{other:?}"),
        }
    }

    /// Sets up a call; nothing is left to check.
    fn confirm(&mut self, invite: &Ask) -> DialogId {
        self.confirm_over(path(), invite)
    }

    fn confirm_over(&mut self, path: Path, invite: &Ask) -> DialogId {
        self.receive_over(path, &invite.to_string());
        let Event::Invite { dialog, .. } = self.event() else { panic!("no Invite") };
        self.answer(dialog);
        self.receive_over(path, &Ask::ack(&self.tag).cseq(invite.cseq).to_string());
        assert!(matches!(self.event(), Event::Acknowledged { .. }));
        self.sent.clear();
        self.paths.clear();
        dialog
    }

    fn answer(&mut self, dialog: DialogId) {
        self.command(Command::Answer { dialog, sdp: b"v=0\r\n".to_vec() });
    }

    fn event(&mut self) -> Event {
        assert!(!self.events.is_empty(), "no event");
        self.events.remove(0)
    }

    /// The first lines of the messages sent; for responses without the version.
    fn take(&mut self) -> Vec<String> {
        let first = |text: &str| text.lines().next().unwrap().replace("SIP/2.0 ", "");
        self.sent.drain(..).map(|(_, text)| first(&text)).collect()
    }

    fn take_statuses(&mut self) -> Vec<u16> {
        self.take().iter().map(|line| line[..3].parse().unwrap()).collect()
    }
}

pub(super) fn path() -> Path {
    Path::udp("192.0.2.1:5060".parse().unwrap(), "192.0.2.10:5062".parse().unwrap())
}

pub(super) fn refusal(dialog: DialogId, status: Status) -> Command {
    Command::Refuse { dialog, status, reason: "No".to_owned(), headers: Vec::new() }
}

/// The value of a header field in a message.
pub(super) fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The response of the phone to a request of ours.
pub(super) fn respond(request: &str, status: &str) -> String {
    let copied: String = ["Via", "From", "To", "Call-ID", "CSeq"]
        .iter()
        .map(|name| format!("{name}: {}\r\n", header(request, name).unwrap()))
        .collect();
    format!("SIP/2.0 {status}\r\n{copied}Content-Length: 0\r\n\r\n")
}

/// A request of the phone.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub method: String,
    pub cseq: u32,
    pub branch: String,
    call_id: String,
    to_tag: String,
    contact: String,
    more: String,
    content_type: String,
    body: String,
}

impl Ask {
    pub fn new(method: &str, cseq: u32) -> Self {
        Self {
            method: method.to_owned(),
            cseq,
            branch: format!("z9hG4bK-{method}-{cseq}"),
            call_id: "call@192.0.2.10".to_owned(),
            to_tag: String::new(),
            contact: "sip:phone@192.0.2.10:5062".to_owned(),
            more: String::new(),
            content_type: String::new(),
            body: String::new(),
        }
    }

    pub fn invite() -> Self {
        Self::new("INVITE", 1).body("application/sdp", OFFER)
    }

    pub fn reinvite(tag: &str, cseq: u32) -> Self {
        Self::new("INVITE", cseq).to(tag).body("application/sdp", OFFER)
    }

    /// The ACK of a 2xx: a transaction of its own.
    pub fn ack(tag: &str) -> Self {
        Self::new("ACK", 1).to(tag)
    }

    pub fn bye(tag: &str) -> Self {
        Self::new("BYE", 20).to(tag)
    }

    pub fn cancel(&self) -> Self {
        let method = "CANCEL".to_owned();
        Self { method, ..self.clone() }.body("", "")
    }

    pub fn ack_of_refusal(&self, tag: &str) -> Self {
        let method = "ACK".to_owned();
        Self { method, ..self.clone() }.to(tag).body("", "")
    }

    pub fn to(mut self, tag: &str) -> Self {
        self.to_tag = format!(";tag={tag}");
        self
    }

    pub fn cseq(mut self, cseq: u32) -> Self {
        self.cseq = cseq;
        self
    }

    pub fn branch(mut self, branch: &str) -> Self {
        self.branch = format!("z9hG4bK-{branch}");
        self
    }

    fn without_cookie(mut self) -> Self {
        self.branch = "1".to_owned();
        self
    }

    fn call(mut self, call_id: &str) -> Self {
        self.call_id = call_id.to_owned();
        self
    }

    fn contact(mut self, contact: &str) -> Self {
        self.contact = contact.to_owned();
        self
    }

    fn with(mut self, header: &str) -> Self {
        self.more.push_str(header);
        self.more.push_str("\r\n");
        self
    }

    fn body(mut self, content_type: &str, body: &str) -> Self {
        self.content_type = match content_type {
            "" => String::new(),
            content_type => format!("Content-Type: {content_type}\r\n"),
        };
        self.body = body.to_owned();
        self
    }
}

impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { method, cseq, branch, call_id, to_tag, contact, more, content_type, body } =
            self;
        write!(
            f,
            "{method} sip:100@192.0.2.1 SIP/2.0\r\n\
             Via: SIP/2.0/UDP 10.0.0.10:5062;branch={branch};rport\r\n\
             Max-Forwards: 70\r\n\
             From: \"Phone\" <sip:phone@192.0.2.10>;tag=phone\r\n\
             To: <sip:100@192.0.2.1>{to_tag}\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\n\
             Contact: <{contact}>\r\n\
             {more}{content_type}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}
