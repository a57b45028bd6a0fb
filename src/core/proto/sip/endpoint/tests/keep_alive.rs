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
    // The operator does not trust the peer while it asks, so only a call makes it known.
    let ask = |line: &mut Line| {
        line.endpoint.set_trusted_peers(Vec::new());
        let answers = stun_answers(line, &STUN);
        line.endpoint.set_trusted_peers(vec!["192.0.2.0/24".parse().unwrap()]);
        answers
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
fn stun_of_a_stranger_is_answered_if_the_answer_is_not_much_longer() {
    let mut line = Line::of_stranger(EndpointConfig::new("test".to_owned()));
    // A SOFTWARE attribute makes the request 28 bytes long; the answer has 32.
    let mut longer = [&STUN[..], b"\x80\x22\0\x04test"].concat();
    longer[3] = 8;
    assert_eq!((stun_answers(&mut line, &STUN), stun_answers(&mut line, &longer)), (0, 1));
    line.endpoint.set_trusted_peers(vec!["192.0.2.0/24".parse().unwrap()]);
    assert_eq!(stun_answers(&mut line, &STUN), 1, "a trusted peer");
}

/// The number of answers to a STUN request.
fn stun_answers(line: &mut Line, request: &[u8]) -> usize {
    line.sent.clear();
    line.endpoint.handle_message(request, path(), line.now);
    line.drain();
    line.sent.len()
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
