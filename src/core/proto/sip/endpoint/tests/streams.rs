//! Which paths our requests take within calls that came or went over a stream.

use super::{
    calling::{CHALLENGE, DIALOG, Reply, call},
    random::branch,
    *,
};
const STREAM: ConnectionId = ConnectionId(7);

/// A stream that a proxy has opened from an arbitrary port.
fn stream() -> Path {
    let connection = Some(STREAM);
    Path { peer: at("192.0.2.10:40000"), transport: Transport::Tls, connection, ..path() }
}

fn at(address: &str) -> std::net::SocketAddr {
    address.parse().unwrap()
}

/// A call over that stream from a phone behind the proxy; `route` is its Record-Route.
fn call_through(line: &mut Line, route: &str) -> DialogId {
    let route = format!("Record-Route: <{route}>");
    let behind = "Via: SIP/2.0/UDP 192.0.2.77:5999;branch=z9hG4bK-behind";
    let invite = Ask::invite().contact("sip:phone@192.0.2.77:5999").with(&route).with(behind);
    line.receive_over(stream(), &invite.to_string());
    let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
    line.answer(dialog);
    line.receive_over(stream(), &Ask::ack(&line.tag).to_string());
    assert!(matches!(line.event(), Event::Acknowledged { .. }));
    line.sent.clear();
    dialog
}

fn hang_up(line: &mut Line, dialog: DialogId) -> String {
    line.command(Command::Bye { dialog, reason: None });
    let bye = line.sent.pop().unwrap().1;
    assert!(bye.starts_with("BYE sip:phone@192.0.2.77:5999 "), "{bye}");
    bye
}

#[test]
fn requests_go_by_the_stream_of_the_proxy_whatever_port_it_listens_on() {
    for route in [
        "sip:192.0.2.10:5061;transport=tls;lr",
        "sip:192.0.2.10:14091;transport=TLS;lr",
        "sips:192.0.2.10;lr",
        "sips:192.0.2.10:5061;transport=tcp;lr",
        "sip:proxy.example:5061;transport=tls;lr",
    ] {
        let mut line = Line::new();
        let dialog = call_through(&mut line, route);
        let bye = hang_up(&mut line, dialog);
        assert_eq!(line.last_path, stream(), "{route}");
        assert!(bye.contains("Via: SIP/2.0/TLS 192.0.2.1:5060;"), "{bye}");
        line.receive_over(stream(), &respond(&bye, "200 OK"));
        assert!(matches!(line.event(), Event::Ended { how: Ending::Answered, .. }));
    }
}

#[test]
fn when_that_stream_has_gone_they_go_where_the_proxy_listens() {
    let mut line = Line::new();
    let dialog = call_through(&mut line, "sip:192.0.2.10:5061;transport=tls;lr");
    let bye = hang_up(&mut line, dialog);
    line.endpoint.handle_disconnected(STREAM, None, line.now);
    line.drain();
    let again = line.sent.pop().unwrap().1;
    assert!(again.starts_with("BYE ") && branch(&again) != branch(&bye), "{again}");
    let listener = Path { peer: at("192.0.2.10:5061"), connection: None, ..stream() };
    assert_eq!(line.last_path, listener);
    assert!(line.events.is_empty());
    line.endpoint.handle_unreachable(listener, line.now);
    line.drain();
    assert!(line.sent.is_empty(), "there is no third way");
    assert!(matches!(line.event(), Event::Ended { how: Ending::TimedOut, .. }));
}

#[test]
fn when_nobody_is_at_the_next_hop_they_go_by_the_stream_of_the_call() {
    for route in ["sip:192.0.2.20:5061;transport=tls;lr", "sip:192.0.2.10;transport=tcp;lr"] {
        let mut line = Line::new();
        let dialog = call_through(&mut line, route);
        hang_up(&mut line, dialog);
        assert_ne!(line.last_path, stream(), "{route}");
        line.endpoint.handle_unreachable(line.last_path, line.now);
        line.drain();
        assert_eq!(line.last_path, stream(), "{route}");
        let bye = line.sent.pop().unwrap().1;
        line.receive_over(stream(), &respond(&bye, "200 OK"));
        assert!(matches!(line.event(), Event::Ended { how: Ending::Answered, .. }));
    }
}

#[test]
fn a_request_that_is_challenged_without_our_knowing_a_password_is_not_repeated() {
    let mut line = Line::new();
    let dialog = call_through(&mut line, "sip:192.0.2.20:5061;transport=tls;lr");
    let bye = hang_up(&mut line, dialog);
    line.receive(&Reply::to(&bye, "401 Unauthorized").with(CHALLENGE).to_string());
    assert!(line.sent.is_empty());
    assert!(matches!(line.event(), Event::Ended { how: Ending::Answered, .. }));
}

/// A call over a stream that the caller has opened from an arbitrary port, with this Contact.
fn call_over(line: &mut Line, stream: Path, contact: &str) -> DialogId {
    line.confirm_over(stream, &Ask::invite().contact(contact))
}

/// The path of our BYE. The stream closes before the BYE, or while the BYE is on its way.
fn way_of_bye(line: &mut Line, dialog: DialogId, is_gone_before: bool) -> Path {
    if is_gone_before {
        line.endpoint.handle_disconnected(STREAM, None, line.now);
        line.drain();
    }
    line.command(Command::Bye { dialog, reason: None });
    if !is_gone_before {
        assert_eq!(line.last_path.connection, Some(STREAM), "as long as it lives");
        line.endpoint.handle_disconnected(STREAM, None, line.now);
        line.drain();
    }
    assert!(line.sent.last().unwrap().1.starts_with("BYE "));
    line.last_path
}

#[test]
fn when_the_stream_of_a_call_is_gone_our_bye_goes_where_the_contact_says_that_it_listens() {
    let [tcp, tls] =
        [Transport::Tcp, Transport::Tls].map(|transport| Path { transport, ..stream() });
    for is_gone_before in [true, false] {
        for is_stranger in [true, false] {
            for (stream, contact, expected) in [
                (tcp, "sip:a@192.0.2.10:5062;transport=tcp", "192.0.2.10:5062"),
                (tcp, "sip:a@192.0.2.10", "192.0.2.10:5060"),
                (tls, "sip:a@192.0.2.10:5062;transport=tls", "192.0.2.10:5062"),
                (tls, "sips:a@192.0.2.10", "192.0.2.10:5061"),
            ] {
                let mut line = if is_stranger { super::strangers::stranger() } else { Line::new() };
                let dialog = call_over(&mut line, stream, contact);
                let way = way_of_bye(&mut line, dialog, is_gone_before);
                assert_eq!(
                    (way.peer, way.transport),
                    (at(expected), stream.transport),
                    "{contact}"
                );
                assert_eq!((way.connection, way.local), (None, stream.local));
                // Streams to a stranger have a limit of their own.
                assert_eq!(way.sender.is_some(), is_stranger);
                assert!(line.events.is_empty());
                let bye = line.sent.last().unwrap().1.clone();
                let new = Path { connection: Some(ConnectionId(8)), sender: None, ..way };
                line.receive_over(new, &respond(&bye, "200 OK"));
                assert!(matches!(line.event(), Event::Ended { how: Ending::Answered, .. }));
            }
        }
    }
}

#[test]
fn nothing_else_is_opened_for_a_stranger_or_a_browser() {
    let [tcp, tls, ws, wss] = [Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss]
        .map(|transport| Path { transport, ..stream() });
    for is_gone_before in [true, false] {
        for (stream, contact, is_known) in [
            (tcp, "sip:a@198.51.100.7:5062;transport=tcp", false),
            (tls, "sips:a@198.51.100.7:5062", false),
            (tls, "sip:a@192.0.2.10:5062;transport=tcp", false),
            (tcp, "sip:a@198.51.100.7:5062;transport=udp", false),
            (tcp, "sip:a@198.51.100.7:5062;transport=udp", true),
            (tls, "sip:a@192.0.2.10:5062;transport=udp", true),
            (ws, "sip:a@phone.example:5062", true),
            (tcp, "sip:a@192.0.2.10;transport=ws", false),
            (ws, "sip:a@192.0.2.10:5062;transport=tcp", false),
            (ws, "sip:a@192.0.2.10:5062;transport=ws", true),
            (wss, "sips:a@192.0.2.10:5062", true),
            (tcp, "sip:a@127.0.0.1:5062;transport=tcp", true),
        ] {
            let mut line = if is_known { Line::new() } else { super::strangers::stranger() };
            let dialog = call_over(&mut line, stream, contact);
            let way = way_of_bye(&mut line, dialog, is_gone_before);
            assert_eq!(way, stream, "{contact}");
        }
    }
    // Record-Route and Via of a stranger lead to no other host either.
    let mut line = super::strangers::stranger();
    let dialog = call_through(&mut line, "sip:198.51.100.7:5061;transport=tls;lr");
    line.endpoint.handle_disconnected(STREAM, None, line.now);
    line.command(Command::Bye { dialog, reason: None });
    assert_eq!(line.last_path, stream());
    let mut line = super::strangers::stranger();
    let dialog = call_through(&mut line, "sip:192.0.2.10:5061;transport=tls;lr");
    line.endpoint.handle_disconnected(STREAM, None, line.now);
    line.command(Command::Bye { dialog, reason: None });
    assert_eq!(line.last_path.peer, at("192.0.2.10:5061"), "its proxy");
}

/// A trusted caller and a stranger.
fn both() -> [Line; 2] {
    [Line::new(), super::strangers::stranger()]
}

#[test]
fn a_udp_phone_that_has_called_over_tcp_is_hung_up_by_a_datagram() {
    let tcp = Path { transport: Transport::Tcp, ..stream() };
    let datagram = (Transport::Udp, at("192.0.2.10:5062"));
    for is_gone_before in [true, false] {
        for mut line in both() {
            let dialog = call_over(&mut line, tcp, "sip:a@192.0.2.10:5062;transport=udp");
            let way = way_of_bye(&mut line, dialog, is_gone_before);
            assert_eq!((way.transport, way.peer), datagram);
            let bye = line.sent.last().unwrap().1.clone();
            assert!(bye.contains("Via: SIP/2.0/UDP 192.0.2.1:5060;"), "{bye}");
            line.receive_over(Path::udp(tcp.local, way.peer), &respond(&bye, "200 OK"));
            assert!(matches!(line.event(), Event::Ended { how: Ending::Answered, .. }));
        }
        // Without `transport` the phone may listen on both: TCP tells when it does not.
        for mut line in both() {
            let dialog = call_over(&mut line, tcp, "sip:a@192.0.2.10:5062");
            let way = way_of_bye(&mut line, dialog, is_gone_before);
            assert_eq!((way.transport, way.peer), (Transport::Tcp, datagram.1));
            line.endpoint.handle_unreachable(way, line.now);
            line.drain();
            assert!(line.sent.last().unwrap().1.starts_with("BYE "));
            assert_eq!((line.last_path.transport, line.last_path.peer), datagram);
            line.endpoint.handle_unreachable(line.last_path, line.now);
            line.drain();
            assert!(matches!(line.event(), Event::Ended { how: Ending::TimedOut, .. }));
        }
    }
}

#[test]
fn such_a_datagram_leaves_from_the_port_of_a_udp_listener() {
    let udp_listeners = vec![at("0.0.0.0:5070"), at("192.0.2.1:5080")];
    let mut line = Line::with(EndpointConfig { udp_listeners, ..EndpointConfig::new("x".into()) });
    let tcp = Path { transport: Transport::Tcp, ..stream() };
    let dialog = call_over(&mut line, tcp, "sip:a@192.0.2.10:5062;transport=udp");
    let way = way_of_bye(&mut line, dialog, true);
    assert_eq!(way.local, at("192.0.2.1:5070"));
    let bye = line.sent.last().unwrap().1.clone();
    assert!(bye.contains("Via: SIP/2.0/UDP 192.0.2.1:5070;"), "{bye}");
}

#[test]
fn a_next_hop_with_a_name_is_taken_for_the_host_of_the_stream_that_is_gone() {
    let [tcp, tls] =
        [Transport::Tcp, Transport::Tls].map(|transport| Path { transport, ..stream() });
    for is_gone_before in [true, false] {
        for (stream, uri, expected) in [
            (tcp, "sip:sbc.example:5062;transport=tcp", "192.0.2.10:5062"),
            (tcp, "sip:sbc.example", "192.0.2.10:5060"),
            (tls, "sip:sbc.example:5071;transport=tls", "192.0.2.10:5071"),
            (tls, "sips:sbc.example", "192.0.2.10:5061"),
        ] {
            let expected = (stream.transport, at(expected), None);
            for mut line in both() {
                let dialog = call_over(&mut line, stream, &uri.replace("sbc", "a@sbc"));
                let way = way_of_bye(&mut line, dialog, is_gone_before);
                assert_eq!((way.transport, way.peer, way.connection), expected, "{uri}");
            }
            // The same name in Record-Route, from a caller behind that proxy.
            for mut line in both() {
                let route = format!("Record-Route: <{uri};lr>");
                let behind = "Via: SIP/2.0/UDP 192.0.2.77:5999;branch=z9hG4bK-behind";
                let invite = Ask::invite().contact("sip:a@192.0.2.77:5999");
                let dialog = line.confirm_over(stream, &invite.with(&route).with(behind));
                let way = way_of_bye(&mut line, dialog, is_gone_before);
                assert_eq!((way.transport, way.peer, way.connection), expected, "{route}");
            }
        }
    }
    // Over UDP a name leads back to where the messages come from.
    for mut line in both() {
        let dialog = line.confirm(&Ask::invite().contact("sip:a@phone.example:5077"));
        line.command(Command::Bye { dialog, reason: None });
        assert_eq!(line.last_path, path());
    }
}

#[test]
fn who_is_known_is_asked_at_its_contact_on_whatever_host() {
    let mut line = Line::new();
    let tcp = Path { transport: Transport::Tcp, ..stream() };
    let dialog = call_over(&mut line, tcp, "sip:a@192.0.2.77:5062;transport=tcp");
    let way = way_of_bye(&mut line, dialog, true);
    assert_eq!((way.peer, way.connection), (at("192.0.2.77:5062"), None));
}

#[test]
fn a_peer_that_has_connected_anew_is_asked_over_its_new_stream() {
    for mut line in [Line::new(), super::strangers::stranger()] {
        let tcp = Path { transport: Transport::Tcp, ..stream() };
        let dialog = call_over(&mut line, tcp, "sip:a@192.0.2.10:5062;transport=tcp");
        line.endpoint.handle_disconnected(STREAM, None, line.now);
        let connection = Some(ConnectionId(8));
        let new = Path { peer: at("192.0.2.10:40001"), connection, ..tcp };
        line.receive_over(new, &Ask::new("INFO", 2).to(&line.tag).to_string());
        line.command(Command::Bye { dialog, reason: None });
        assert_eq!(line.last_path, new);
    }
}

#[test]
fn a_stream_to_a_trunk_that_is_gone_is_opened_again() {
    // The trunk's Contact names another port; it listens on the port that we have called.
    let mut line = Line::new();
    let trunk = Path { peer: at("192.0.2.10:5061"), connection: None, ..stream() };
    let invite = line.call(OutgoingCall { targets: vec![trunk], ..call() });
    let ok = Reply::to(&invite, "200 OK").tag("a").contact("sip:a@192.0.2.10:5071;transport=tls");
    line.receive_over(from_trunk(), &ok.sdp(OFFER).to_string());
    line.endpoint.handle_disconnected(STREAM, None, line.now);
    line.command(Command::Bye { dialog: DIALOG, reason: None });
    assert_eq!(line.last_path, from_trunk());
}

#[test]
fn a_phone_that_was_called_over_its_own_stream_is_hung_up_where_it_listens() {
    let mut line = Line::new();
    let invite = line.call(OutgoingCall { targets: vec![stream()], ..call() });
    let ok = Reply::to(&invite, "200 OK").tag("a").contact("sip:a@192.0.2.10:5062;transport=tls");
    line.receive_over(stream(), &ok.sdp(OFFER).to_string());
    line.endpoint.handle_disconnected(STREAM, None, line.now);
    line.command(Command::Bye { dialog: DIALOG, reason: None });
    assert_eq!((line.last_path.peer, line.last_path.connection), (at("192.0.2.10:5062"), None));
}

#[test]
fn whoever_asks_for_sips_is_told_a_sips_contact() {
    for (uri, more, contact, expected) in [
        ("sip:100@192.0.2.1", "", "sip:a@192.0.2.10", "sip:aftertone@192.0.2.1:5060;transport=tls"),
        ("sips:100@192.0.2.1", "", "sip:a@192.0.2.10", "sips:aftertone@192.0.2.1:5060"),
        ("sip:100@192.0.2.1", "", "sips:a@192.0.2.10", "sips:aftertone@192.0.2.1:5060"),
        (
            "sip:100@192.0.2.1",
            "Record-Route: <sips:192.0.2.10;lr>, <sip:192.0.2.20;lr>",
            "sip:a@192.0.2.10",
            "sips:aftertone@192.0.2.1:5060",
        ),
        (
            "sip:100@192.0.2.1",
            "Record-Route: <sip:192.0.2.10;transport=tls;lr>, <sips:192.0.2.20;lr>",
            "sips:a@192.0.2.10",
            "sip:aftertone@192.0.2.1:5060;transport=tls",
        ),
    ] {
        let mut line = Line::new();
        let invite = Ask::invite().contact(contact);
        let invite = if more.is_empty() { invite } else { invite.with(more) };
        let invite = invite.with("Supported: timer").with("Session-Expires: 90;refresher=uas");
        let first_line = format!("INVITE {uri} ");
        let invite = invite.to_string().replace("INVITE sip:100@192.0.2.1 ", &first_line);
        line.receive_over(stream(), &invite);
        let Event::Invite { dialog, .. } = line.event() else { panic!("no Invite") };
        line.command(Command::Ring { dialog });
        line.answer(dialog);
        line.receive_over(stream(), &Ask::ack(&line.tag).to_string());
        line.run_for(Duration::from_secs(45));
        let told: Vec<&str> =
            line.sent.iter().filter_map(|(_, text)| header(text, "Contact")).collect();
        let expected = format!("<{expected}>");
        assert_eq!(told, [expected.as_str(); 3], "180, 200 and our INVITE: {uri} {more}");
    }
}

#[test]
fn a_call_to_sips_tells_a_sips_contact_where_that_leads_to_us() {
    let to = |uri: &str, route: &str, path: Path| {
        let mut line = Line::new();
        let routes = if route.is_empty() { Vec::new() } else { vec![route.parse().unwrap()] };
        let request_uri = uri.parse().unwrap();
        let invite = line.call(OutgoingCall { targets: vec![path], request_uri, routes, ..call() });
        header(&invite, "Contact").unwrap().to_owned()
    };
    let (tls, wss) = (from_trunk(), Path { transport: Transport::Wss, ..from_trunk() });
    let plain = "<sip:aftertone@192.0.2.1:5060;transport=tls>";
    assert_eq!(to("sip:a@pbx.example", "", tls), plain);
    assert_eq!(to("sips:a@pbx.example", "", tls), "<sips:aftertone@192.0.2.1:5060>");
    let route = "<sips:pbx.example;lr>";
    assert_eq!(to("sip:a@pbx.example", route, tls), "<sips:aftertone@192.0.2.1:5060>");
    let over_wss = "<sips:aftertone@192.0.2.1:5060;transport=ws>";
    assert_eq!(to("sips:a@pbx.example", "", wss), over_wss);
    assert_eq!(to("sips:a@pbx.example", "", path()), "<sip:aftertone@192.0.2.1:5060>");
}

/// An outgoing call to a trunk over TLS, answered with this Record-Route; returns the 200.
fn answer_from(line: &mut Line, route: &str) -> String {
    let trunk = Path { peer: at("192.0.2.10:5061"), connection: None, ..stream() };
    let invite = line.call(OutgoingCall { targets: vec![trunk], ..call() });
    let ok = Reply::to(&invite, "200 OK").tag("a").contact("sip:200@192.0.2.77");
    let ok = ok.with(&format!("Record-Route: <{route}>")).sdp(OFFER).to_string();
    line.sent.clear();
    line.receive_over(from_trunk(), &ok);
    assert!(matches!(line.event(), Event::Answered { .. }));
    ok
}

/// The path of the trunk's messages over the stream that we have opened.
fn from_trunk() -> Path {
    Path { peer: at("192.0.2.10:5061"), ..stream() }
}

#[test]
fn the_ack_goes_by_the_stream_of_the_answer() {
    let mut line = Line::new();
    let ok = answer_from(&mut line, "sip:192.0.2.10:5071;transport=tls;lr");
    assert_eq!(line.last_path, from_trunk());
    line.receive_over(from_trunk(), &ok);
    let acks = line.take();
    assert_eq!(acks.len(), 2, "{acks:?}");
    line.command(Command::Bye { dialog: DIALOG, reason: None });
    assert_eq!(line.last_path, from_trunk());
}

#[test]
fn an_ack_that_may_be_lost_elsewhere_goes_by_the_stream_that_the_answer_comes_by_again() {
    let mut line = Line::new();
    let ok = answer_from(&mut line, "sip:192.0.2.20:5061;transport=tls;lr");
    assert_eq!(line.last_path.peer, at("192.0.2.20:5061"));
    let ack = line.sent.pop().unwrap().1;
    line.receive_over(from_trunk(), &ok);
    assert_eq!(line.last_path, from_trunk());
    let acks: Vec<String> = line.sent.drain(..).map(|(_, text)| text).collect();
    assert_eq!(acks, [ack.clone(), ack]);
}
