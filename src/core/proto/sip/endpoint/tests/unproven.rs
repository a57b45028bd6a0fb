//! How much a stranger is sent over UDP before it has shown that it receives at its address: at
//! most one and a half times what it has sent. Also that this suffices for a phone, even if
//! datagrams are lost.

use rand::seq::IndexedRandom;

use super::{
    strangers::{from, stranger},
    *,
};
use crate::proto::sip::path::Transport;

/// A description as long as our usual one.
const ANSWER: &str = "v=0\r\no=- 3961428531 3961428531 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\n\
    t=0 0\r\nm=audio 20000 RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
    a=fmtp:101 0-16\r\na=ptime:20\r\na=sendrecv\r\n";

/// When a phone repeats an INVITE (RFC 3261 §17.1.1.2, timer A), in milliseconds.
const AGAIN: [u64; 6] = [500, 1_500, 3_500, 7_500, 15_500, 31_500];

/// The smallest INVITE that is accepted as a call.
fn tiny() -> String {
    "INVITE sip:a SIP/2.0\r\nv:SIP/2.0/UDP a;branch=z9hG4bKtiny\r\nf:<sip:a>;tag=1\r\nt:<sip:a>\r\n\
     i:1\r\nm:<sip:a>\r\nMax-Forwards:9\r\nCSeq:1 INVITE\r\n\r\n"
        .to_owned()
}

/// An INVITE as phones send it: eight hundred bytes or more.
fn usual() -> Ask {
    Ask::invite()
        .with(
            "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, UPDATE, PRACK, REFER, NOTIFY, MESSAGE",
        )
        .with("Supported: replaces, timer, outbound, path, gruu, 100rel")
        .with("User-Agent: A Phone With A Name/1.2.3 (of a maker that likes to be known)")
        .body("application/sdp", ANSWER)
}

fn invites() -> Vec<String> {
    let routes: String = (0..120)
        .map(|number| format!("Record-Route: <sip:r{number}.{}.example;lr>\r\n", "x".repeat(30)))
        .collect();
    let routes = routes.trim_end().to_owned();
    vec![
        tiny(),
        Ask::invite().body("", "").to_string(),
        usual().to_string(),
        usual().with("Require: 100rel").to_string(),
        usual().with("Supported: timer").with("Session-Expires: 90;refresher=uas").to_string(),
        usual().with(&routes).to_string(),
        tiny().replace("m:<", &format!("{routes}\r\nm:<")),
    ]
}

/// The number of bytes that one source has sent, and that it was sent.
#[derive(Default)]
struct Ledger {
    heard: usize,
    said: usize,
    looked_at: usize,
}

impl Ledger {
    fn look(&mut self, line: &Line) {
        for ((at, text), path) in line.sent.iter().zip(&line.paths).skip(self.looked_at) {
            self.said += if path.transport == Transport::Udp { text.len() } else { 0 };
            let (said, heard) = (self.said, self.heard);
            assert!(said * 2 <= heard * 3, "{said} bytes for {heard}, at {at} ms:\n{text}");
        }
        self.looked_at = line.sent.len();
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Wish {
    Ring,
    Answer,
    Refuse,
    HangUp,
}

/// Sends `invite`, and repeats it `copies` times; carries out each wish at its time in
/// milliseconds. The source sends nothing else. Returns the number of bytes sent to it.
fn never_acknowledged(invite: &str, copies: usize, wishes: &[(u64, Wish)]) -> usize {
    let mut line = stranger();
    let mut ledger = Ledger { heard: invite.len(), ..Ledger::default() };
    line.receive(invite);
    let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
    let mut steps: Vec<(u64, Option<Wish>)> =
        AGAIN.iter().take(copies).map(|at| (*at, None)).collect();
    steps.extend(wishes.iter().map(|(at, wish)| (*at, Some(*wish))));
    steps.sort_by_key(|(at, _)| *at);
    for (at, wish) in steps {
        line.run_until(line.start + Duration::from_millis(at));
        ledger.look(&line);
        match wish {
            None => {
                ledger.heard += invite.len();
                line.receive(invite);
            }
            Some(Wish::Ring) => line.command(Command::Ring { dialog }),
            Some(Wish::Answer) => {
                line.command(Command::Answer { dialog, sdp: ANSWER.as_bytes().to_vec() });
            }
            Some(Wish::Refuse) => line.command(refusal(dialog, Status::BUSY_HERE)),
            Some(Wish::HangUp) => line.command(Command::Bye { dialog, reason: None }),
        }
        // After a refusal, a repeated INVITE is a new call.
        while let Some(Event::Invite { dialog, .. }) = line.events.pop() {
            line.command(refusal(dialog, Status::BUSY_HERE));
        }
        ledger.look(&line);
    }
    line.run_for(Duration::from_secs(120));
    ledger.look(&line);
    assert_eq!(line.endpoint.dialogs(), 0, "{invite}");
    ledger.said
}

#[test]
fn who_never_acknowledges_hears_no_more_than_one_and_a_half_times_what_it_has_sent() {
    use Wish::{Answer, HangUp, Refuse, Ring};
    for invite in invites() {
        for copies in 0..=AGAIN.len() {
            for wishes in [
                &[(0, Answer)][..],
                &[(10, Ring), (200, Answer)],
                &[(10, Ring), (4_000, Answer)],
                &[(10, Ring), (4_000, Refuse)],
                &[(10, Ring), (20_000, HangUp)],
                &[(0, Answer), (5_000, HangUp)],
            ] {
                never_acknowledged(&invite, copies, wishes);
            }
        }
    }
    // A usual INVITE is answered, and more than once.
    assert!(never_acknowledged(&usual().to_string(), 0, &[(0, Answer)]) > 600);
    assert!(never_acknowledged(&usual().to_string(), 2, &[(0, Answer)]) > 1_800);
}

#[test]
fn an_invite_that_is_too_small_for_its_answer_gets_it_when_it_has_come_often_enough() {
    let invite = tiny();
    assert!(invite.len() < 150, "{}", invite.len());
    let mut line = stranger();
    line.receive(&invite);
    let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
    line.command(Command::Answer { dialog, sdp: ANSWER.as_bytes().to_vec() });
    assert!(line.sent.is_empty());
    for _ in 0..3 {
        line.receive(&invite);
    }
    assert_eq!(line.take_statuses(), [200]);
}

#[test]
fn many_calls_of_one_source_hear_no_more_than_that_together() {
    let mut line = stranger();
    let mut ledger = Ledger::default();
    for number in 0..50 {
        let name = format!("many{number}");
        let invite = usual().call(&name).branch(&name).to_string();
        ledger.heard += invite.len();
        line.receive(&invite);
        let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
        line.command(Command::Answer { dialog, sdp: ANSWER.as_bytes().to_vec() });
        ledger.look(&line);
    }
    line.run_for(Duration::from_secs(80));
    ledger.look(&line);
    assert!(line.endpoint.is_idle());
}

/// A phone repeats its INVITE until it receives a response. The messages to it with the numbers
/// `lost` are lost. Our side rings, and answers after `answers_at` milliseconds. Returns whether
/// the call is established.
fn is_established(invite: &Ask, lost: &[usize], answers_at: u64) -> bool {
    let mut line = stranger();
    let dialog = line.receive_invite(invite);
    line.command(Command::Ring { dialog });
    let (mut heard, mut has_heard, mut answered) = (0, false, false);
    let text = invite.to_string();
    for at in (0..32_000).step_by(100) {
        line.run_until(line.start + Duration::from_millis(at));
        if at >= answers_at && !answered {
            answered = true;
            line.command(Command::Answer { dialog, sdp: ANSWER.as_bytes().to_vec() });
        }
        if !has_heard && AGAIN.contains(&at) {
            line.receive(&text);
        }
        for (_, message) in line.sent.split_off(0) {
            heard += 1;
            if lost.contains(&heard) {
                continue;
            }
            has_heard = true;
            if message.starts_with("SIP/2.0 200 ") {
                let tag = line.tag.clone();
                line.receive(&Ask::ack(&tag).to_string());
                return matches!(line.event(), Event::Acknowledged { .. });
            }
        }
    }
    false
}

#[test]
fn a_call_is_established_though_its_first_answers_are_lost() {
    for invite in [usual(), Ask::invite(), Ask::invite().body("", "")] {
        for answers_at in [0, 300, 3_000, 10_000] {
            for lost in [&[][..], &[1], &[2], &[1, 2], &[2, 3]] {
                // After a 180 the phone is silent: the allowance suffices for two 200 responses.
                let is_too_much = lost == [2, 3] && answers_at >= 3_000;
                assert!(
                    is_established(&invite, lost, answers_at) || is_too_much,
                    "{lost:?} of a call that is answered at {answers_at}:\n{invite}"
                );
            }
        }
    }
}

#[test]
fn a_source_that_shows_a_tag_which_was_told_elsewhere_is_not_believed() {
    let victim = from("198.51.100.77:5060");
    let invite = usual().with("Allow: UPDATE").with("Record-Route: <sip:192.0.2.10;lr>");
    for method in ["ACK", "INFO", "OPTIONS", "INVITE", "UPDATE", "BYE", "REFER", "PRACK"] {
        let mut line = stranger();
        let dialog = line.receive_invite(&invite);
        line.answer(dialog);
        line.receive(&Ask::ack(&line.tag.clone()).to_string());
        line.sent.clear();
        line.paths.clear();
        let mut ledger = Ledger::default();
        let forged = Ask::new(method, 2).to(&line.tag).branch("forged").to_string();
        for _ in 0..3 {
            ledger.heard += forged.len();
            line.receive_over(victim, &forged);
            ledger.look(&line);
        }
        line.command(Command::Answer { dialog, sdp: ANSWER.as_bytes().to_vec() });
        line.command(Command::Bye { dialog, reason: None });
        line.run_for(Duration::from_secs(80));
        ledger.look(&line);
    }
}

#[test]
fn a_peer_that_has_moved_is_asked_and_believed_when_it_answers() {
    let moved = from("198.51.100.77:5060");
    let mut line = stranger();
    let dialog = line.confirm(&usual());
    let info = Ask::new("INFO", 2).to(&line.tag).with(&format!("X: {}", "x".repeat(600)));
    line.receive_over(moved, &info.to_string());
    line.sent.clear();
    let target = Box::new("sip:b@example.com".parse().unwrap());
    line.command(Command::Refer { dialog, target, replaces: None });
    let refer = line.sent.last().unwrap().1.clone();
    assert!(refer.starts_with("REFER ") && line.last_path == moved, "{refer}");
    line.run_for(Duration::from_secs(3));
    assert_eq!(line.take().len(), 1, "once, as long as it is not heard");
    line.receive_over(moved, &respond(&refer, "603 Decline"));
    line.command(Command::Bye { dialog, reason: None });
    line.run_for(Duration::from_secs(3));
    assert_eq!(line.take().len(), 3, "its BYE is repeated");
}

#[test]
fn nothing_that_comes_in_any_order_gets_more_than_its_share() {
    let mut rng = StdRng::seed_from_u64(7);
    for _ in 0..300 {
        let mut line = stranger();
        let mut ledger = Ledger::default();
        let invite = invites().choose(&mut rng).unwrap().clone();
        let cancel =
            invite.replace("INVITE sip", "CANCEL sip").replace(" INVITE\r\n", " CANCEL\r\n");
        let mut dialog = DialogId(1);
        for _ in 0..20 {
            match rng.random_range(0..8) {
                0..3 => {
                    ledger.heard += invite.len();
                    line.receive(&invite);
                }
                3 => {
                    ledger.heard += cancel.len();
                    line.receive(&cancel);
                }
                4 => line.command(Command::Ring { dialog }),
                5 => line.command(Command::Answer { dialog, sdp: ANSWER.as_bytes().to_vec() }),
                6 => {
                    let commands = [
                        refusal(dialog, Status::BUSY_HERE),
                        Command::Bye { dialog, reason: None },
                        Command::MakeRoom { dialog },
                    ];
                    line.command(commands.choose(&mut rng).unwrap().clone());
                }
                _ => line.run_for(Duration::from_millis(rng.random_range(1..20_000))),
            }
            for event in line.events.split_off(0) {
                dialog = event.dialog();
            }
            ledger.look(&line);
        }
        line.run_for(Duration::from_secs(120));
        ledger.look(&line);
    }
}

const VICTIM: &str = "198.51.100.77:5060";

/// How many bytes were sent to the victim.
fn said_to_victim(line: &Line) -> usize {
    let sent = line.sent.iter().zip(&line.paths);
    sent.filter(|(_, path)| **path == from(VICTIM)).map(|((_, text), _)| text.len()).sum()
}

#[test]
fn who_repeats_a_request_has_nobody_else_hear_its_answer() {
    let mut line = stranger();
    line.confirm(&usual());
    let vias =
        format!("Via: SIP/2.0/UDP {}.example;branch=z9hG4bKv\r\n", "x".repeat(60)).repeat(200);
    let small = Ask::new("OPTIONS", 2).to(&line.tag);
    let forged = small.clone().with(vias.trim_end()).to_string();
    line.receive_over(from(VICTIM), &forged);
    line.receive(&Ask::ack(&line.tag.clone()).to_string());
    (0..20).for_each(|_| line.receive(&small.to_string()));
    let said = said_to_victim(&line);
    assert!(said * 2 <= forged.len() * 3, "{said} bytes for {}", forged.len());
}

#[test]
fn refusals_of_forged_offers_are_not_repeated() {
    let mut line = stranger();
    let dialog = line.confirm(&usual());
    let padding = format!("X: {}", "x".repeat(3_000));
    let mut heard = 0;
    for cseq in 2..20 {
        let forged = Ask::reinvite(&line.tag, cseq).with(&padding).to_string();
        heard += forged.len();
        line.receive_over(from(VICTIM), &forged);
        while let Some(event) = line.events.pop() {
            if let Event::Reinvite { is_proved, .. } = event {
                assert!(!is_proved, "sound must not follow it");
                line.command(refusal(dialog, Status::NOT_ACCEPTABLE_HERE));
            }
        }
        line.run_for(Duration::from_secs(4));
    }
    let said = said_to_victim(&line);
    assert!(said * 2 <= heard * 3, "{said} bytes for {heard}");
    line.receive(&Ask::reinvite(&line.tag, 30).to_string());
    let is_proved = |event: &Event| matches!(event, Event::Reinvite { is_proved: true, .. });
    assert!(line.events.iter().any(is_proved));
}

#[test]
fn the_ack_of_our_offer_goes_to_no_address_that_is_forged() {
    let routes = "Record-Route: <sip:192.0.2.10;lr>\r\n".repeat(100);
    let invite = Ask::invite()
        .with("Supported: timer")
        .with("Session-Expires: 90;refresher=uas")
        .with(routes.trim_end());
    let mut line = stranger();
    line.confirm(&invite);
    line.sent.clear();
    line.paths.clear();
    line.run_for(Duration::from_secs(46));
    let offer = line.sent.iter().find(|(_, text)| text.starts_with("INVITE ")).unwrap().1.clone();
    let forged = Ask::ack(&line.tag.clone()).to_string();
    line.receive_over(from(VICTIM), &forged);
    (0..20).for_each(|_| line.receive(&respond(&offer, "200 OK")));
    let said = said_to_victim(&line);
    assert!(said * 2 <= forged.len() * 3, "{said} bytes for {}", forged.len());
}

#[test]
fn a_cancel_from_elsewhere_changes_nothing() {
    let mut line = stranger();
    line.receive_invite(&usual());
    line.receive_over(from(VICTIM), &usual().cancel().to_string());
    assert!(!line.events.iter().any(|event| matches!(event, Event::Canceled { .. })));
}
