//! Where a stream leads that is opened for a message of ours.

use super::{
    calling::{DIALOG, Reply, call},
    registering::account,
    *,
};
use crate::proto::sip::message::NameAddr;

/// The next hop that a printed message names, for comparison with the one that is told; `None` if
/// it cannot be read, as the refusal of a request without a legible From.
pub(super) fn in_text(transmit: &Transmit) -> Option<NextHop> {
    match wire::parse_datagram(&transmit.bytes) {
        Ok(Message::Response(response)) => {
            Some(NextHop::of_response(transmit.path, response.vias().first().unwrap()))
        }
        Ok(Message::Request(request)) => {
            let uri = NextHop::uri(request.uri(), request.routes());
            Some(NextHop::of_request(transmit.path, uri))
        }
        Err(WireError::KeepAlive) => Some(NextHop::Peer),
        Err(_) => None,
    }
}

/// The path of a stream that the phone has opened from an arbitrary port.
fn stream(transport: Transport) -> Path {
    let (peer, connection) = ("192.0.2.10:40000".parse().unwrap(), Some(ConnectionId(7)));
    Path { peer, transport, connection, ..path() }
}

/// A request of the phone with this sent-by.
fn by(sent_by: &str, request: &Ask) -> String {
    request.to_string().replace("10.0.0.10:5062;", &format!("{sent_by};"))
}

fn sent_by(port: u16, host: Option<&str>) -> NextHop {
    NextHop::SentBy { port, host: host.map(Into::into) }
}

/// The status and the next hop of the newest message, which is a response.
fn newest(line: &mut Line) -> (u16, NextHop) {
    (line.take_statuses().pop().unwrap(), line.last_next_hop.clone())
}

/// The responses to requests with this sent-by over `path`.
fn responses(path: Path, name: &str) -> Vec<(u16, NextHop)> {
    let mut line = Line::new();
    let mut heard = Vec::new();
    let invite = by(name, &Ask::invite().with("Require: 100rel"));
    line.receive_over(path, &invite);
    let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
    heard.push(newest(&mut line));
    // The dialog repeats the reliable 180, and the transaction answers the repeated INVITE.
    line.command(Command::Ring { dialog });
    heard.push(newest(&mut line));
    line.run_for(Duration::from_millis(T1_MS));
    heard.push(newest(&mut line));
    line.receive_over(path, &invite);
    heard.push(newest(&mut line));
    // The dialog repeats the 200.
    line.answer(dialog);
    heard.push(newest(&mut line));
    line.run_for(Duration::from_millis(T1_MS));
    heard.push(newest(&mut line));
    line.receive_over(path, &by(name, &Ask::ack(&line.tag)));
    line.event();
    // A transaction answers a re-INVITE and a BYE.
    let reinvite = Ask::reinvite(&line.tag, 2);
    line.receive_over(path, &by(name, &reinvite));
    heard.push(newest(&mut line));
    line.command(refusal(dialog, Status::NOT_ACCEPTABLE_HERE));
    heard.push(newest(&mut line));
    let bye = by(name, &Ask::bye(&line.tag));
    line.receive_over(path, &bye);
    heard.push(newest(&mut line));
    line.receive_over(path, &bye);
    heard.push(newest(&mut line));
    // No transaction answers a request for a call that is over, and one that cannot be read.
    let info = by(name, &Ask::new("INFO", 21).to(&line.tag));
    line.receive_over(path, &info);
    heard.push(newest(&mut line));
    line.receive_over(path, &info.replace("CSeq: 21", "CSeq: x"));
    heard.push(newest(&mut line));
    heard
}

const STATUSES: [u16; 12] = [100, 180, 180, 180, 200, 200, 100, 488, 200, 200, 481, 400];

#[test]
fn every_response_of_a_stream_request_carries_the_port_and_the_name_in_its_via() {
    let [tcp, tls] = [Transport::Tcp, Transport::Tls].map(stream);
    for (path, name, expected) in [
        (tcp, "phone.example:5077", sent_by(5077, None)),
        (tcp, "192.0.2.10", sent_by(5060, None)),
        (tls, "phone.example:5077", sent_by(5077, Some("phone.example"))),
        (tls, "phone.example", sent_by(5061, Some("phone.example"))),
        (tls, "192.0.2.10:5077", sent_by(5077, None)),
    ] {
        let expected: Vec<_> = STATUSES.map(|status| (status, expected.clone())).into();
        assert_eq!(responses(path, name), expected, "{name}");
    }
}

#[test]
fn responses_to_datagrams_and_to_browsers_carry_nothing() {
    let browsers = [Transport::Ws, Transport::Wss].map(stream);
    for path in browsers.into_iter().chain([path()]) {
        let expected: Vec<_> = STATUSES.map(|status| (status, NextHop::Peer)).into();
        assert_eq!(responses(path, "phone.example:5077"), expected, "{path:?}");
    }
}

/// The method and the next hop of each request in a call of ours over `transport`, to a phone that
/// names itself in Contact, and of a REGISTER. The `route` is that of the INVITE and of the
/// REGISTER; the call is answered with `record_route`.
fn requests(transport: Transport, route: &str, record_route: &str) -> Vec<(String, NextHop)> {
    let target = Path { transport, peer: "192.0.2.10:5061".parse().unwrap(), ..path() };
    let over = |id: u64| {
        let connection = transport.is_reliable().then_some(ConnectionId(id));
        Path { connection, ..target }
    };
    let mut line = Line::new();
    let mut sent = Vec::new();
    let mut note = |line: &mut Line| {
        let text = std::mem::take(&mut line.sent).pop().unwrap().1;
        sent.push((text.split(' ').next().unwrap().to_owned(), line.last_next_hop.clone()));
        text
    };
    let routes: Vec<NameAddr> = route.split_terminator(',').map(|it| it.parse().unwrap()).collect();
    let calls = OutgoingCall { targets: vec![target], routes: routes.clone(), ..call() };
    line.command(Command::Call { dialog: DialogId(DIALOG.0 + 1), call: Box::new(calls.clone()) });
    let invite = note(&mut line);
    line.receive_over(over(7), &Reply::to(&invite, "180 Ringing").tag("a").to_string());
    line.command(Command::Bye { dialog: DialogId(DIALOG.0 + 1), reason: None });
    note(&mut line);
    line.receive_over(over(7), &Reply::to(&invite, "487 Gone").tag("a").to_string());
    note(&mut line);

    line.command(Command::Call { dialog: DIALOG, call: Box::new(calls) });
    let invite = line.sent.pop().unwrap().1;
    let ok = Reply::to(&invite, "200 OK").tag("a").contact("sip:200@phone.example").sdp(OFFER);
    let ok = match record_route {
        "" => ok.to_string(),
        route => ok.with(&format!("Record-Route: {route}")).to_string(),
    };
    line.receive_over(over(7), &ok);
    note(&mut line);
    // The 200 again, over another stream.
    line.receive_over(over(8), &ok);
    note(&mut line);
    line.command(Command::Bye { dialog: DIALOG, reason: None });
    note(&mut line);

    line.endpoint.register(TrunkAccount { targets: vec![target], routes, ..account() }, line.now);
    line.drain();
    note(&mut line);
    sent
}

#[test]
fn every_request_over_tls_carries_the_name_of_its_next_hop() {
    let methods = ["INVITE", "CANCEL", "ACK", "ACK", "ACK", "BYE", "REGISTER"];
    let (out, loose) = ("<sip:out.example;lr>", "<sip:in.example;lr>");
    for (route, record_route, [outside, within, register]) in [
        ("", "", ["pbx.example", "phone.example", "provider.example"]),
        (out, loose, ["out.example", "in.example", "out.example"]),
        (out, "<sip:strict.example>", ["out.example", "strict.example", "out.example"]),
        ("<sip:192.0.2.10;lr>", "<sip:192.0.2.10:5061;lr>", ["", "", ""]),
    ] {
        let names = [outside, outside, outside, within, within, within, register];
        let expected = methods.iter().zip(names).map(|(method, name)| {
            let hop = if name.is_empty() { NextHop::Peer } else { NextHop::Host(name.into()) };
            ((*method).to_owned(), hop)
        });
        let sent = requests(Transport::Tls, route, record_route);
        assert_eq!(sent, expected.collect::<Vec<_>>(), "{route} {record_route}");
    }
    for transport in [Transport::Udp, Transport::Tcp, Transport::Ws] {
        for (_, next_hop) in requests(transport, out, loose) {
            assert_eq!(next_hop, NextHop::Peer, "{transport:?}");
        }
    }
}
