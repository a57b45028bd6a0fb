//! Floods of useless connections: well-behaved peers are still served.

use std::{net::SocketAddr, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::peers::{Authority, Duplex, Node, Phone, SOON, config};
use crate::drivers::signalling::{StreamLimits, tls::TlsConfigs};
use aftertone_core::proto::sip::{
    endpoint::{Command, Event},
    path::Transport,
};

/// A connection from this address of the loopback network.
async fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

async fn is_served(phone: &mut Phone, name: &str) -> bool {
    phone.send(phone.request("OPTIONS", 1, name, "")).await;
    phone.receive().await.starts_with("SIP/2.0 200 ")
}

#[tokio::test(start_paused = true)]
async fn calls_over_streams_that_are_reset_leave_nothing_behind() {
    let authority = Authority::new();
    let mut config = config(&[Transport::Tcp, Transport::Tls]);
    config.tls = authority.server();
    // Streams that are left over would take the places of later ones.
    config.limits.connections = 40;
    let mut node = Node::start(config).await;
    let mut rng = StdRng::seed_from_u64(12);
    let (mut begun, mut ended) = (0, 0);
    for round in 0..200_u8 {
        let transport = if round % 4 == 3 { Transport::Tls } else { Transport::Tcp };
        let stream = connect([127, 0, 1, round], node.address(transport)).await;
        // The stream is reset when it is closed.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        let local = stream.local_addr().unwrap();
        let stream: Box<dyn Duplex> = match transport {
            Transport::Tls => {
                let client = TlsConfigs::load(&authority.client()).unwrap().client.unwrap();
                let name = ServerName::from(node.address(transport).ip());
                Box::new(TlsConnector::from(client).connect(name, stream).await.unwrap())
            }
            _ => Box::new(stream),
        };
        let mut phone = Phone::called(stream, local, transport);
        let invite = phone.request("INVITE", 1, &format!("reset-{round}"), "");
        let cut = rng.random_range(0..=2 * invite.len()).min(invite.len());
        phone.send(&invite[..cut]).await;
        if cut == invite.len() {
            let dialog = loop {
                match node.event().await {
                    Event::Invite { dialog, .. } => break dialog,
                    Event::Ended { .. } => ended += 1,
                    Event::Lost { .. } => {}
                    other => panic!("{other:?}"),
                }
            };
            begun += 1;
            if round % 2 == 0 {
                drop(phone);
            }
            let answer = match round % 3 {
                0 => Command::Bye { dialog, reason: None },
                _ => Command::Answer { dialog, sdp: b"v=0\r\n".to_vec() },
            };
            node.signalling.send(answer).await;
        }
    }
    assert!(begun > 50, "{begun}");
    // The callers send no ACK and do not answer the BYE.
    while ended < begun {
        match node.event().await {
            Event::Ended { .. } => ended += 1,
            Event::Lost { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    let mut phone = Phone::tcp(&node).await;
    assert!(is_served(&mut phone, "after").await);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn idle_and_slow_connections_keep_nobody_out() {
    let authority = Authority::new();
    let mut config = config(&[Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws]);
    config.tls = authority.server();
    config.limits.connections_of_a_source = 30;
    config.limits.connections = 100;
    let node = Node::start(config).await;
    let mut idle = Vec::new();
    for _ in 0..30 {
        idle.push(connect([127, 0, 0, 2], node.address(Transport::Tcp)).await);
    }
    // An incomplete TLS record, and half of a WebSocket upgrade.
    for _ in 0..15 {
        let mut half = connect([127, 0, 0, 3], node.address(Transport::Tls)).await;
        half.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).await.unwrap();
        idle.push(half);
        let mut half = connect([127, 0, 0, 3], node.address(Transport::Ws)).await;
        half.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n").await.unwrap();
        idle.push(half);
    }
    let mut one_too_many = connect([127, 0, 0, 2], node.address(Transport::Tcp)).await;
    assert!(matches!(one_too_many.read(&mut [0]).await, Ok(0) | Err(_)));

    let began = Instant::now();
    let limit = StreamLimits::default().message;
    let mut slow = connect([127, 0, 0, 4], node.address(Transport::Tcp)).await;
    let mut datagrams = Phone::udp_to(node.address(Transport::Udp)).await;
    assert!(is_served(&mut datagrams, "udp").await);
    let mut stream = Phone::tcp(&node).await;
    assert!(is_served(&mut stream, "tcp").await);
    let mut secure = Phone::tls(&node, &authority.client()).await;
    assert!(is_served(&mut secure, "tls").await);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());

    // One byte every four seconds.
    let mut sent = 0;
    while slow.write_all(b"O").await.is_ok() && sent < 10 {
        sent += 1;
        let mut byte = [0];
        if timeout(Duration::from_secs(4), slow.read(&mut byte)).await.is_ok() {
            break;
        }
    }
    assert!(sent < 5, "it is closed within {limit:?}");
    for mut stream in idle {
        let closed = timeout(SOON, stream.read(&mut [0])).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)));
    }
    assert!(began.elapsed() < 2 * limit, "{:?}", began.elapsed());
    // The source address that filled the table may connect again.
    let mut again = connect([127, 0, 0, 2], node.address(Transport::Tcp)).await;
    again.write_all(stream.request("OPTIONS", 2, "again", "").as_bytes()).await.unwrap();
    assert!(again.read(&mut [0]).await.unwrap() > 0);
    sleep(Duration::from_secs(1)).await;
    node.stop().await;
}
