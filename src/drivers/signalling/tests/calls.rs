//! Calls over each transport, and how streams are cut.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::{TcpListener, UdpSocket},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::peers::{Authority, Duplex, Node, Phone, SOON, config};
use crate::drivers::signalling::{TlsFiles, tls::TlsConfigs};
use aftertone_core::proto::sip::{
    endpoint::{Command, Ending, Event},
    path::Transport,
};

/// A call that the node ends: everything goes over the phone's own connection.
async fn call(node: &mut Node, phone: &mut Phone, transport: Transport) {
    phone.send(phone.request("INVITE", 1, "one", "")).await;
    assert!(phone.receive().await.starts_with("SIP/2.0 100 "));
    let Event::Invite { dialog, invite } = node.event().await else { panic!("no Invite") };
    assert_eq!(invite.path.transport, transport);
    assert_eq!(invite.path.peer, phone.local());
    assert_eq!(invite.path.local, node.address(transport));
    assert_eq!(invite.path.connection.is_some(), transport.is_reliable());

    node.signalling.send(Command::Answer { dialog, sdp: b"v=0\r\n".to_vec() }).await;
    let ok = phone.receive().await;
    assert!(ok.starts_with("SIP/2.0 200 "), "{ok}");
    let tag = ok.split("To: <sip:100@127.0.0.1>").nth(1).unwrap().lines().next().unwrap();
    phone.send(phone.request("ACK", 1, "one", tag)).await;
    assert!(matches!(node.event().await, Event::Acknowledged { .. }));

    node.signalling.send(Command::Bye { dialog, reason: None }).await;
    let bye = phone.receive().await;
    assert!(bye.starts_with("BYE "), "{bye}");
    let kept = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
    let kept = bye.lines().filter(|line| kept.iter().any(|name| line.starts_with(name)));
    let kept = kept.collect::<Vec<_>>().join("\r\n");
    phone.send(format!("SIP/2.0 200 OK\r\n{kept}\r\nContent-Length: 0\r\n\r\n")).await;
    assert!(matches!(node.event().await, Event::Ended { .. }));
}

#[tokio::test]
async fn a_call_goes_over_tcp_and_our_bye_takes_its_connection() {
    let mut node = Node::start(config(&[Transport::Udp, Transport::Tcp])).await;
    let mut phone = Phone::tcp(&node).await;
    call(&mut node, &mut phone, Transport::Tcp).await;
    node.stop().await;
}

#[tokio::test]
async fn a_call_goes_over_tls() {
    let authority = Authority::new();
    let mut config = config(&[Transport::Tls]);
    config.tls = authority.server();
    let mut node = Node::start(config).await;
    let mut phone = Phone::tls(&node, &authority.client()).await;
    call(&mut node, &mut phone, Transport::Tls).await;
    node.stop().await;
}

#[tokio::test]
async fn a_call_goes_over_a_websocket() {
    let mut node = Node::start(config(&[Transport::Ws])).await;
    let mut phone = Phone::ws(&node).await;
    call(&mut node, &mut phone, Transport::Ws).await;
    node.stop().await;
}

#[tokio::test]
async fn a_call_goes_over_a_secure_websocket() {
    let authority = Authority::new();
    let mut config = config(&[Transport::Wss]);
    config.tls = authority.server();
    let mut node = Node::start(config).await;
    let mut phone = Phone::wss(&node, &authority.client()).await;
    call(&mut node, &mut phone, Transport::Wss).await;
    node.stop().await;
}

/// The node hangs up a call after its caller has closed the connection. The caller's Contact is at
/// `contact`. Returns how the call ended for the node.
async fn hang_up_without_connection(
    node: &mut Node,
    mut phone: Phone,
    contact: &str,
    answer: impl AsyncFnOnce(),
) -> Ending {
    let ask = |phone: &Phone, method, tag: &str| {
        let request = phone.request(method, 1, "lost", tag);
        let (head, rest) = request.split_once("Contact: <").unwrap();
        let (_, rest) = rest.split_once('>').unwrap();
        format!("{head}Contact: <sip:phone@{contact}>{rest}")
    };
    phone.send(ask(&phone, "INVITE", "")).await;
    assert!(phone.receive().await.starts_with("SIP/2.0 100 "));
    let Event::Invite { dialog, .. } = node.event().await else { panic!("no Invite") };
    node.signalling.send(Command::Answer { dialog, sdp: b"v=0\r\n".to_vec() }).await;
    let ok = phone.receive().await;
    let tag = ok.split("To: <sip:100@127.0.0.1>").nth(1).unwrap().lines().next().unwrap();
    phone.send(ask(&phone, "ACK", tag)).await;
    assert!(matches!(node.event().await, Event::Acknowledged { .. }));
    drop(phone);
    node.signalling.send(Command::Bye { dialog, reason: None }).await;
    answer().await;
    let Event::Ended { how, .. } = node.event().await else { panic!("not ended") };
    how
}

#[tokio::test]
async fn when_the_connection_of_a_call_is_gone_our_bye_goes_to_the_port_of_its_contact() {
    let authority = Authority::new();
    for transport in [Transport::Tcp, Transport::Tls] {
        for trusted in [vec![], vec!["127.0.0.0/8".parse().unwrap()]] {
            let mut config = config(&[transport]);
            config.trusted_peers = trusted;
            config.tls = TlsFiles { server_ca: Some(authority.file()), ..authority.server() };
            let mut node = Node::start(config).await;
            let phone = match transport {
                Transport::Tls => Phone::tls(&node, &authority.client()).await,
                _ => Phone::tcp(&node).await,
            };
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let contact = listener.local_addr().unwrap();
            let acceptor = TlsConfigs::load(&authority.server()).unwrap().server_of(Transport::Tls);
            let answer = async || {
                let (stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
                let stream: Box<dyn Duplex> = match transport {
                    Transport::Tls => {
                        let acceptor = TlsAcceptor::from(acceptor.unwrap());
                        Box::new(acceptor.accept(stream).await.unwrap())
                    }
                    _ => Box::new(stream),
                };
                let mut phone = Phone::called(stream, contact, transport);
                let bye = phone.receive().await;
                assert!(bye.starts_with("BYE "), "{bye}");
                phone.send(Phone::answer(&bye, "200 OK", "", "")).await;
            };
            let name = transport.name();
            let contact = format!("{contact};transport={name}");
            let how = hang_up_without_connection(&mut node, phone, &contact, answer).await;
            assert_eq!(how, Ending::Answered);
            node.stop().await;
        }
    }
}

#[tokio::test]
async fn a_udp_phone_whose_connection_is_gone_gets_our_bye_in_a_datagram() {
    for transport in [";transport=udp", ""] {
        for trusted in [vec![], vec!["127.0.0.0/8".parse().unwrap()]] {
            let mut config = config(&[Transport::Udp, Transport::Tcp]);
            config.trusted_peers = trusted;
            let mut node = Node::start(config).await;
            let phone = Phone::tcp(&node).await;
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let contact = format!("{}{transport}", socket.local_addr().unwrap());
            let listener = node.address(Transport::Udp);
            let answer = async || {
                let mut bytes = [0; 2_000];
                let received = timeout(SOON, socket.recv_from(&mut bytes)).await.unwrap();
                let (length, from) = received.unwrap();
                let bye = std::str::from_utf8(&bytes[..length]).unwrap();
                assert!(bye.starts_with("BYE ") && from == listener, "{from}: {bye}");
                assert!(bye.contains(&format!("Via: SIP/2.0/UDP {listener};")), "{bye}");
                let ok = Phone::answer(bye, "200 OK", "", "");
                socket.send_to(ok.as_bytes(), from).await.unwrap();
            };
            let how = hang_up_without_connection(&mut node, phone, &contact, answer).await;
            assert_eq!(how, Ending::Answered);
            node.stop().await;
        }
    }
}

#[tokio::test]
async fn a_named_peer_whose_connection_is_gone_is_reached_with_a_certificate_for_its_name() {
    let authority = Authority::new();
    for (name, is_trusted) in [("sbc.example", true), ("other.example", false)] {
        let mut config = config(&[Transport::Tls]);
        config.tls = TlsFiles { server_ca: Some(authority.file()), ..authority.server() };
        let mut node = Node::start(config).await;
        let phone = Phone::tls(&node, &authority.client()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = listener.local_addr().unwrap();
        let identity = Some(authority.certificate(name));
        let files = TlsFiles { identity, ..TlsFiles::default() };
        let acceptor = TlsConfigs::load(&files).unwrap().server_of(Transport::Tls);
        let acceptor = TlsAcceptor::from(acceptor.unwrap());
        let answer = async || {
            let (stream, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
            let accepted = acceptor.accept(stream).await;
            if !is_trusted {
                assert!(accepted.is_err(), "the node expects another name");
                return;
            }
            let stream = Box::new(accepted.unwrap());
            let mut phone = Phone::called(stream, local, Transport::Tls);
            let bye = phone.receive().await;
            assert!(bye.starts_with("BYE sip:phone@sbc.example:"), "{bye}");
            phone.send(Phone::answer(&bye, "200 OK", "", "")).await;
        };
        let contact = format!("sbc.example:{};transport=tls", local.port());
        let how = hang_up_without_connection(&mut node, phone, &contact, answer).await;
        assert_eq!(how == Ending::Answered, is_trusted, "{how:?}");
        node.stop().await;
    }
}

#[tokio::test]
async fn no_connection_is_opened_to_the_contact_of_a_browser() {
    let mut config = config(&[Transport::Ws, Transport::Tcp]);
    config.trusted_peers = vec!["127.0.0.0/8".parse().unwrap()];
    let mut node = Node::start(config).await;
    let phone = Phone::ws(&node).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let contact = listener.local_addr().unwrap();
    let contact = format!("{contact};transport=ws");
    let how = hang_up_without_connection(&mut node, phone, &contact, async || {}).await;
    assert_eq!(how, Ending::TimedOut);
    assert!(timeout(Duration::from_millis(300), listener.accept()).await.is_err());
    node.stop().await;
}

#[tokio::test]
async fn a_call_goes_over_ipv6() {
    let authority = Authority::new();
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let mut config = config(&[transport]);
        config.listen[0].address = "[::1]:0".parse().unwrap();
        config.trusted_peers = vec!["::1/128".parse().unwrap()];
        config.tls.identity = Some(authority.certificate("::1"));
        let mut node = Node::start(config).await;
        let mut phone = match transport {
            Transport::Udp => Phone::udp_to(node.address(transport)).await,
            Transport::Tls => Phone::tls(&node, &authority.client()).await,
            _ => Phone::tcp(&node).await,
        };
        call(&mut node, &mut phone, transport).await;
        node.stop().await;
    }
}

#[tokio::test]
async fn a_socket_on_all_addresses_answers_from_the_one_that_was_called() {
    for any in ["0.0.0.0:0", "[::]:0"] {
        let mut config = config(&[Transport::Udp]);
        config.listen[0].address = any.parse().unwrap();
        config.trusted_peers = vec!["127.0.0.0/8".parse().unwrap()];
        let mut node = Node::start(config).await;
        let called: SocketAddr = ([127, 0, 0, 2], node.address(Transport::Udp).port()).into();
        let mut phone = Phone::udp_to(called).await;
        phone.send(phone.request("INVITE", 1, "second", "")).await;
        assert!(phone.receive().await.starts_with("SIP/2.0 100 "));
        let Event::Invite { dialog, invite } = node.event().await else { panic!("no Invite") };
        assert_eq!(invite.path.local, called, "where the sound is bound, too");
        node.signalling.send(Command::Answer { dialog, sdp: b"v=0\r\n".to_vec() }).await;
        let ok = phone.receive().await;
        assert!(ok.contains(&format!("Contact: <sip:aftertone@{called}>")), "{ok}");
        node.stop().await;
    }
}

#[tokio::test]
async fn a_socket_for_both_kinds_of_addresses_tells_ipv4_ones_as_such() {
    let mut config = config(&[Transport::Tcp]);
    config.listen[0].address = "[::]:0".parse().unwrap();
    let mut node = Node::start(config).await;
    let port = node.address(Transport::Tcp).port();
    let mut phone = Phone::tcp_to(([127, 0, 0, 1], port).into()).await;
    phone.send(phone.request("INVITE", 1, "mapped", "")).await;
    let Event::Invite { invite, .. } = node.event().await else { panic!("no Invite") };
    assert_eq!(invite.path.local, ([127, 0, 0, 1], port).into());
    assert_eq!(invite.path.peer, phone.local());
    node.stop().await;
}

#[tokio::test]
async fn a_stream_may_be_cut_at_every_byte() {
    let node = Node::start(config(&[Transport::Tcp])).await;
    let mut phone = Phone::tcp(&node).await;
    for byte in phone.request("OPTIONS", 1, "slow", "").into_bytes() {
        phone.send([byte]).await;
    }
    assert!(phone.receive().await.starts_with("SIP/2.0 200 "));
    node.stop().await;
}

#[tokio::test]
async fn three_requests_in_one_segment_get_three_answers() {
    let node = Node::start(config(&[Transport::Tcp])).await;
    let mut phone = Phone::tcp(&node).await;
    let three: Vec<_> = (1..=3).map(|cseq| phone.request("OPTIONS", cseq, "many", "")).collect();
    phone.send(three.concat()).await;
    for cseq in 1..=3 {
        let answer = phone.receive().await;
        assert!(answer.contains(&format!("CSeq: {cseq} OPTIONS")), "{answer}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_ping_gets_a_pong() {
    let node = Node::start(config(&[Transport::Tcp, Transport::Ws])).await;
    let mut phone = Phone::tcp(&node).await;
    phone.send("\r\n\r\n").await;
    assert_eq!(phone.receive_bytes(2).await, b"\r\n");
    let mut browser = Phone::ws(&node).await;
    browser.send("\r\n\r\n").await;
    assert_eq!(browser.receive().await, "\r\n");
    node.stop().await;
}

#[tokio::test]
async fn a_message_without_length_is_refused_and_the_stream_closed() {
    let node = Node::start(config(&[Transport::Tcp])).await;
    let mut phone = Phone::tcp(&node).await;
    let request = phone.request("OPTIONS", 1, "endless", "");
    phone.send(request.replace("Content-Length: 0\r\n", "")).await;
    assert!(phone.receive().await.starts_with("SIP/2.0 400 "));
    assert!(phone.is_closed().await);
    node.stop().await;
}

#[tokio::test]
async fn who_says_nothing_more_still_hears_the_answer() {
    let node = Node::start(config(&[Transport::Tcp])).await;
    let mut phone = Phone::tcp(&node).await;
    phone.send(phone.request("OPTIONS", 1, "last", "")).await;
    phone.finish().await;
    assert!(phone.receive().await.starts_with("SIP/2.0 200 "));
    assert!(phone.is_closed().await);
    node.stop().await;
}

#[tokio::test]
async fn a_stun_request_on_the_udp_port_is_answered_when_it_is_fair_or_from_a_friend() {
    let bare = [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], b"transaction!"].concat();
    let software = [0x80, 0x22, 0, 4, b't', b'e', b's', b't'];
    let mut longer = [bare.as_slice(), &software].concat();
    longer[3] = 8;
    longer[19] = b'?';
    for is_trusted in [false, true] {
        let mut config = config(&[Transport::Udp]);
        if is_trusted {
            config.trusted_peers = vec!["127.0.0.0/8".parse().unwrap()];
        }
        let node = Node::start(config).await;
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(node.address(Transport::Udp)).await.unwrap();
        socket.send(&bare).await.unwrap();
        socket.send(&longer).await.unwrap();
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).await.unwrap();
        assert_eq!((length, &buffer[..4]), (32, &[1, 1, 0, 12][..]));
        let expected = if is_trusted { b'!' } else { b'?' };
        assert_eq!(buffer[19], expected, "the first that was answered");
        node.stop().await;
    }
}

#[tokio::test]
async fn an_answer_whose_stream_has_gone_goes_to_the_port_in_via() {
    let mut node = Node::start(config(&[Transport::Tcp])).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listens = listener.local_addr().unwrap();
    let mut phone = Phone::tcp(&node).await;
    let via = |address: SocketAddr| format!("SIP/2.0/TCP {address};");
    let invite = phone.request("INVITE", 1, "gone", "");
    phone.send(invite.replace(&via(phone.local()), &via(listens))).await;
    assert!(phone.receive().await.starts_with("SIP/2.0 100 "));
    let Event::Invite { dialog, .. } = node.event().await else { panic!("no Invite") };
    drop(phone);
    // The 200 is repeated until it is acknowledged, whether the node has noticed the end of the
    // stream yet or not.
    node.signalling.send(Command::Answer { dialog, sdp: b"v=0\r\n".to_vec() }).await;
    let (stream, _) = listener.accept().await.unwrap();
    let mut phone = Phone::called(Box::new(stream), listens, Transport::Tcp);
    let ok = phone.receive().await;
    assert!(ok.starts_with("SIP/2.0 200 "), "{ok}");
    node.stop().await;
}
