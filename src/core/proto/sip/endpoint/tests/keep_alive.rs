//! Keep-alives, and paths that are dead.

use super::{
    calling::{DIALOG, call},
    *,
};

const STUN: [u8; 20] = *b"\x00\x01\x00\x00\x21\x12\xa4\x42transaction!";

#[test]
fn a_caller_behind_a_nat_is_kept_reachable_while_its_call_lasts() {
    let mut line = Line::new();
    let dialog = line.receive_invite(&Ask::invite().contact("sip:phone@10.0.0.10:5062"));
    line.run_for(Duration::from_secs(100));
    assert!(pings(&line).is_empty(), "while it rings it asks again itself");
    line.answer(dialog);
    line.receive(&Ask::ack(&line.tag).to_string());
    let confirmed = line.now;
    line.run_for(Duration::from_secs(100));
    assert_eq!(pings(&line).len(), 3, "{:?}", line.sent);
    assert_eq!(line.last_path, path(), "back the way that it came");
    assert!(line.now >= confirmed + Duration::from_secs(100));

    line.receive(&Ask::bye(&line.tag).to_string());
    line.sent.clear();
    line.run_for(Duration::from_secs(100));
    assert!(pings(&line).is_empty());
}

#[test]
fn a_caller_that_is_where_it_says_needs_no_pings() {
    let mut line = Line::new();
    line.confirm(&Ask::invite());
    line.run_for(Duration::from_secs(100));
    assert!(pings(&line).is_empty());
}

#[test]
fn stun_is_answered_for_those_who_are_known() {
    let mut line = Line::new();
    let ask = |line: &mut Line| {
        line.sent.clear();
        line.endpoint.handle_message(&STUN, path(), line.now);
        line.drain();
        line.sent.len()
    };
    assert_eq!(ask(&mut line), 0, "a stranger");
    let dialog = line.receive_invite(&Ask::invite());
    line.run_for(Duration::from_secs(2));
    assert_eq!(ask(&mut line), 0, "who calls may be anybody");
    line.answer(dialog);
    line.receive(&Ask::ack(&line.tag).to_string());
    line.run_for(Duration::from_secs(2));
    assert_eq!(ask(&mut line), 1, "who is in a call");
    line.receive(&Ask::bye(&line.tag).to_string());
    line.run_for(Duration::from_secs(2));
    assert_eq!(ask(&mut line), 0);
}

#[test]
fn a_stream_over_which_no_answer_comes_is_said_to_be_silent() {
    let mut line = Line::new();
    let stream = Path { transport: Transport::Tcp, connection: Some(ConnectionId(7)), ..path() };
    line.command(Command::Call {
        dialog: DIALOG,
        call: Box::new(OutgoingCall { targets: vec![stream], ..call() }),
    });
    line.run_for(Duration::from_secs(31));
    assert!(line.silent.is_empty());
    line.run_for(Duration::from_secs(2));
    assert_eq!(line.silent, [stream]);
    assert!(matches!(line.event(), Event::Refused { status: Status::REQUEST_TIMEOUT, .. }));

    let mut line = Line::new();
    line.call(call());
    line.run_for(Duration::from_secs(33));
    assert!(line.silent.is_empty(), "datagrams have no stream");
}

fn pings(line: &Line) -> Vec<u128> {
    let pings = line.sent.iter().filter(|(_, text)| text == "\r\n\r\n");
    pings.map(|(at, _)| *at).collect()
}
