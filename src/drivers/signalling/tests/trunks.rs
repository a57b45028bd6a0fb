//! Calls to trunks: the path they take, and how requests of the trunk reach us.

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream, UdpSocket},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use super::peers::{Authority, Node, Phone, SOON, config};
use crate::drivers::signalling::{SipListener, tls::TlsConfigs};
use aftertone_core::proto::sip::{
    Status,
    endpoint::{Command, Event, OutgoingCall},
    path::{Path, Transport},
};

fn call(targets: Vec<Path>) -> OutgoingCall {
    OutgoingCall {
        further: Vec::new(),
        call_id: "out@127.0.0.1".to_owned(),
        targets,
        request_uri: "sip:200@trunk.example".parse().unwrap(),
        from: "<sip:bot@trunk.example>".parse().unwrap(),
        to: "<sip:200@trunk.example>".parse().unwrap(),
        routes: Vec::new(),
        headers: Vec::new(),
        credentials: None,
        offer: b"v=0\r\n".to_vec(),
    }
}

#[tokio::test]
async fn a_tls_trunk_needs_no_listener_and_comes_back_over_our_stream() {
    let authority = Authority::new();
    let mut config = config(&[Transport::Udp]);
    config.listen[0].address = "0.0.0.0:0".parse().unwrap();
    config.tls = authority.client();
    let mut node = Node::start(config).await;
    let server = TlsConfigs::load(&authority.server()).unwrap();
    let acceptor = TlsAcceptor::from(server.server_of(Transport::Tls).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let trunk = listener.local_addr().unwrap();

    let uri = format!("sip:{trunk};transport=tls").parse().unwrap();
    let targets = node.signalling.locate(&uri).await.unwrap();
    assert_eq!((targets[0].peer, targets[0].transport), (trunk, Transport::Tls));
    let dialog = node.signalling.fresh_dialog();
    let call = Box::new(call(targets));
    node.signalling.send(Command::Call { dialog, call }).await;

    let (stream, seen) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    let stream = acceptor.accept(stream).await.unwrap();
    let mut provider = Phone::called(Box::new(stream), trunk, Transport::Tls);
    let invite = provider.receive().await;
    assert!(invite.contains(&format!("Via: SIP/2.0/TLS {seen};")), "{invite}");
    assert!(invite.contains(&format!("Contact: <sip:aftertone@{seen};transport=tls>")), "{invite}");
    let contact = format!("Contact: <sip:200@{trunk};transport=tls>\r\n");
    provider.send(Phone::answer(&invite, "200 OK", ";tag=there", &contact)).await;
    let ack = provider.receive().await;
    assert!(ack.starts_with("ACK "), "{ack}");
    let Event::Answered { path, .. } = node.event().await else { panic!("no answer") };
    assert_eq!((path.peer, path.local), (trunk, seen));

    let from = invite.lines().find_map(|line| line.strip_prefix("From: ")).unwrap();
    provider
        .send(format!(
            "BYE sip:aftertone@{seen};transport=tls SIP/2.0\r\n\
             Via: SIP/2.0/TLS {trunk};branch=z9hG4bK-bye\r\nMax-Forwards: 70\r\n\
             From: <sip:200@trunk.example>;tag=there\r\nTo: {from}\r\n\
             Call-ID: out@127.0.0.1\r\nCSeq: 7 BYE\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    assert!(provider.receive().await.starts_with("SIP/2.0 200 "));
    assert!(matches!(node.event().await, Event::Bye { .. }));
    node.stop().await;
}

#[tokio::test]
async fn of_several_listeners_the_one_is_taken_that_leads_there() {
    let mut config = config(&[Transport::Udp]);
    let listener = |address: &str| SipListener {
        transport: Transport::Udp,
        address: address.parse().unwrap(),
    };
    config.listen = vec![listener("127.0.0.2:0"), listener("127.0.0.1:0")];
    let mut node = Node::start(config).await;
    let trunk = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("sip:{}", trunk.local_addr().unwrap()).parse().unwrap();
    let targets = node.signalling.locate(&uri).await.unwrap();
    assert_eq!(targets[0].local.ip().to_string(), "127.0.0.1", "as the kernel would have it");
    let dialog = node.signalling.fresh_dialog();
    let call = Box::new(call(targets.clone()));
    node.signalling.send(Command::Call { dialog, call }).await;
    let (_, from) = timeout(SOON, trunk.recv_from(&mut [0; 2_048])).await.unwrap().unwrap();
    assert_eq!(from, targets[0].local);

    // The peer's port is closed: the call need not wait for its timers.
    drop(trunk);
    assert!(matches!(
        node.event().await,
        Event::Refused { status: Status::SERVICE_UNAVAILABLE, .. }
    ));
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_request_without_answer_the_next_one_opens_another_stream() {
    let mut node = Node::start(config(&[Transport::Tcp])).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("sip:{};transport=tcp", listener.local_addr().unwrap()).parse().unwrap();
    let targets = node.signalling.locate(&uri).await.unwrap();
    let place = async |node: &Node| {
        let dialog = node.signalling.fresh_dialog();
        let call = Box::new(call(targets.clone()));
        node.signalling.send(Command::Call { dialog, call }).await;
    };
    place(&node).await;
    let mut deaf: TcpStream = timeout(SOON, listener.accept()).await.unwrap().unwrap().0;
    let mut heard = Vec::new();
    deaf.read_buf(&mut heard).await.unwrap();
    assert!(heard.starts_with(b"INVITE "));
    assert!(matches!(node.event().await, Event::Refused { status: Status::REQUEST_TIMEOUT, .. }));

    place(&node).await;
    let (mut other, _) = timeout(SOON, listener.accept()).await.unwrap().unwrap();
    heard.clear();
    other.read_buf(&mut heard).await.unwrap();
    assert!(heard.starts_with(b"INVITE "));
    node.stop().await;
}
