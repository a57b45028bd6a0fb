//! Peers that are too slow, too many, too loud, or speak another protocol.

use std::time::Duration;

use tokio::{
    net::UdpSocket,
    time::{Instant, sleep},
};
use tokio_tungstenite::tungstenite::{
    self, Message, http::StatusCode, protocol::frame::coding::CloseCode,
};

use super::peers::{Node, Phone, config, register, upgrade};
use crate::drivers::signalling::{StreamLimits, User};
use aftertone_core::proto::sip::{endpoint::Event, path::Transport, wire::MAX_MESSAGE};

#[tokio::test(start_paused = true)]
async fn who_connects_and_says_nothing_is_closed() {
    let node = Node::start(config(&[Transport::Tcp, Transport::Ws])).await;
    let began = Instant::now();
    let mut phone = Phone::tcp(&node).await;
    phone.send("\r\n\r\n\r\n").await;
    assert_eq!(phone.receive_bytes(2).await, b"\r\n", "a ping is no message");
    assert!(phone.is_closed().await);
    assert!(began.elapsed() >= StreamLimits::default().message);
    assert!(began.elapsed() < 2 * StreamLimits::default().message);
    let mut no_handshake = Phone::tcp_to(node.address(Transport::Ws)).await;
    assert!(no_handshake.is_closed().await);
    let mut no_message = Phone::ws(&node).await;
    no_message.send_frame(Message::Ping("there?".into())).await;
    assert_eq!(no_message.receive_frame().await, Message::Pong("there?".into()));
    assert!(no_message.is_closed().await);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_begun_must_be_ended() {
    let node = Node::start(config(&[Transport::Tcp])).await;
    let mut phone = Phone::tcp(&node).await;
    let request = phone.request("OPTIONS", 1, "whole", "");
    let (half, _) = request.split_at(100);
    phone.send(format!("{request}{half}")).await;
    assert!(phone.receive().await.starts_with("SIP/2.0 200 "));
    let began = Instant::now();
    assert!(phone.is_closed().await);
    assert!(began.elapsed() <= StreamLimits::default().message + Duration::from_secs(1));
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_websocket_message_that_is_begun_must_be_ended() {
    let node = Node::start(config(&[Transport::Ws])).await;
    let mut phone = Phone::ws(&node).await;
    phone.send(phone.request("OPTIONS", 1, "whole", "")).await;
    assert!(phone.receive().await.starts_with("SIP/2.0 200 "));
    let began = Instant::now();
    phone.send_raw(&[0x81, 0xfe]).await;
    let Message::Close(Some(close)) = phone.receive_frame().await else { panic!("no Close") };
    assert_eq!(close.code, CloseCode::Policy);
    assert!(began.elapsed() <= 3 * StreamLimits::default().message);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_is_kept_for_its_call_only() {
    let mut node = Node::start(config(&[Transport::Tcp])).await;
    let began = Instant::now();
    let limits = StreamLimits::default();
    let mut caller = Phone::tcp(&node).await;
    caller.send(caller.request("INVITE", 1, "kept", "")).await;
    assert!(caller.receive().await.starts_with("SIP/2.0 100 "));
    assert!(matches!(node.event().await, Event::Invite { .. }));
    let mut other = Phone::tcp(&node).await;
    other.send(other.request("OPTIONS", 1, "quiet", "")).await;
    assert!(other.receive().await.starts_with("SIP/2.0 200 "));
    assert!(other.is_closed().await);
    assert!((limits.idle_of_strangers..limits.idle).contains(&began.elapsed()));
    caller.send(caller.request("OPTIONS", 1, "there", "")).await;
    assert!(caller.receive().await.starts_with("SIP/2.0 200 "));
    node.stop().await;
}

#[tokio::test]
async fn connections_over_the_cap_are_refused_while_udp_works() {
    let mut config = config(&[Transport::Udp, Transport::Tcp]);
    config.limits.connections_of_a_source = 2;
    let node = Node::start(config).await;
    let mut first = Phone::tcp(&node).await;
    let mut second = Phone::tcp(&node).await;
    let mut third = Phone::tcp(&node).await;
    assert!(third.is_closed().await);
    for phone in [&mut first, &mut second] {
        phone.send(phone.request("OPTIONS", 1, "in", "")).await;
        assert!(phone.receive().await.starts_with("SIP/2.0 200 "));
    }
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let request = first.request("OPTIONS", 2, "udp", "").replace("SIP/2.0/TCP", "SIP/2.0/UDP");
    socket.send_to(request.as_bytes(), node.address(Transport::Udp)).await.unwrap();
    let mut buffer = vec![0; 2_048];
    let length = socket.recv(&mut buffer).await.unwrap();
    assert!(buffer[..length].starts_with(b"SIP/2.0 200 "));
    node.stop().await;
}

/// A node with four places for streams, where a phone has registered from 127.0.0.1.
async fn crowded() -> Node {
    let mut config = config(&[Transport::Udp, Transport::Tcp, Transport::Ws]);
    config.users = vec![User { name: "phone".to_owned(), password: "secret".to_owned() }];
    config.limits.connections = 4;
    let node = Node::start(config).await;
    register(&mut Phone::udp_to(node.address(Transport::Udp)).await, "phone", "secret").await;
    node
}

async fn is_served(phone: &mut Phone, cseq: u32) -> bool {
    phone.send(phone.request("OPTIONS", cseq, "served", "")).await;
    phone.receive().await.starts_with("SIP/2.0 200 ")
}

#[tokio::test(start_paused = true)]
async fn strangers_cannot_take_the_places_of_those_that_are_known() {
    let mut node = crowded().await;
    let tcp = node.address(Transport::Tcp);
    let mut strangers = Vec::new();
    for index in 0..3 {
        let mut stranger = Phone::tcp_between("127.0.0.2", tcp).await;
        stranger.send(stranger.request("INVITE", 1, &format!("ringing-{index}"), "")).await;
        assert!(stranger.receive().await.starts_with("SIP/2.0 100 "));
        assert!(matches!(node.event().await, Event::Invite { .. }));
        strangers.push(stranger);
    }
    // Until the table of streams knows of the calls.
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    assert!(Phone::tcp_between("127.0.0.3", tcp).await.is_closed().await);
    assert!(began.elapsed() < StreamLimits::default().message, "it is refused, not too slow");
    let mut known = Phone::tcp_to(tcp).await;
    assert!(is_served(&mut known, 1).await);
    for stranger in &mut strangers {
        assert!(is_served(stranger, 2).await, "a stream with a call gives way to nobody");
    }
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_has_nothing_to_lose_gives_way_to_the_next() {
    let node = crowded().await;
    let tcp = node.address(Transport::Tcp);
    let mut silent = Phone::tcp_between("127.0.0.2", node.address(Transport::Ws)).await;
    let mut first = Phone::tcp_between("127.0.0.2", tcp).await;
    assert!(is_served(&mut first, 1).await);
    sleep(Duration::from_secs(1)).await;
    let mut second = Phone::tcp_between("127.0.0.3", tcp).await;
    assert!(is_served(&mut second, 1).await);
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    let mut third = Phone::tcp_between("127.0.0.4", tcp).await;
    assert!(is_served(&mut third, 1).await);
    assert!(silent.is_closed().await, "its handshake has taken longest");
    first.send("\r\n\r\n").await;
    assert_eq!(first.receive_bytes(2).await, b"\r\n");
    let mut fourth = Phone::tcp_between("127.0.0.5", tcp).await;
    assert!(is_served(&mut fourth, 1).await);
    assert!(second.is_closed().await, "the others were heard later");
    assert!(began.elapsed() < StreamLimits::default().message, "nobody had to wait");
    assert!(is_served(&mut first, 2).await && is_served(&mut third, 2).await);
    node.stop().await;
}

#[tokio::test]
async fn a_stranger_that_sends_too_much_is_slowed_and_loses_nothing() {
    let node = Node::start(config(&[Transport::Tcp])).await;
    let mut phone = Phone::tcp(&node).await;
    // A bit more than the burst of one source.
    let count = 420;
    for cseq in 1..=count {
        phone.send(phone.request("OPTIONS", cseq, "loud", "")).await;
        let answer = phone.receive().await;
        assert!(answer.contains(&format!("CSeq: {cseq} OPTIONS")), "{answer}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_websocket_without_the_subprotocol_is_refused() {
    let node = Node::start(config(&[Transport::Ws])).await;
    for subprotocol in [None, Some("chat")] {
        let stream = tokio::net::TcpStream::connect(node.address(Transport::Ws)).await.unwrap();
        match upgrade(Box::new(stream), subprotocol).await {
            Err(tungstenite::Error::Http(response)) => {
                assert_eq!(response.status(), StatusCode::BAD_REQUEST);
            }
            other => panic!("{:?}", other.map(|_| ())),
        }
    }
    node.stop().await;
}

#[tokio::test]
async fn a_websocket_is_told_why_it_is_closed() {
    let node = Node::start(config(&[Transport::Ws])).await;
    let mut phone = Phone::ws(&node).await;
    phone.send_frame(Message::Ping("there?".into())).await;
    assert_eq!(phone.receive_frame().await, Message::Pong("there?".into()));
    phone.send("x".repeat(MAX_MESSAGE + 1)).await;
    let Message::Close(Some(close)) = phone.receive_frame().await else { panic!("no Close") };
    assert_eq!(close.code, CloseCode::Size);

    let mut phone = Phone::ws(&node).await;
    // A frame with a reserved opcode.
    phone.send_raw(&[0x83, 0x80, 0, 0, 0, 0]).await;
    let Message::Close(Some(close)) = phone.receive_frame().await else { panic!("no Close") };
    assert_eq!(close.code, CloseCode::Protocol);
    node.stop().await;
}

#[tokio::test]
async fn binary_websocket_messages_are_taken_too() {
    let node = Node::start(config(&[Transport::Ws])).await;
    let mut phone = Phone::ws(&node).await;
    let request = phone.request("OPTIONS", 1, "binary", "").replace("Content-Length: 0\r\n", "");
    phone.send_frame(Message::binary(request)).await;
    assert!(phone.receive().await.starts_with("SIP/2.0 200 "));
    node.stop().await;
}
