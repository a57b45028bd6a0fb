//! A node that is told to stop ends its calls with every peer, even with peers that lose messages.

mod support;

use std::{net::SocketAddr, time::Duration};

use support::{Node, bot::Bot};
use tokio::{net::UdpSocket, time::timeout};

const WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_bye_that_is_lost_is_sent_again_before_we_go() {
    let mut node = Node::start("[calls]\ndrain_timeout = \"100ms\"\n");
    let phone = Peer::at(Some(node.sip)).await;
    let (peer, local) = (node.sip, phone.address());
    let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
               m=audio 9 RTP/AVP 0\r\n";
    let request = |method: &str, to: &str, body: &str| {
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{method} sip:echo@{peer} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{method}\r\n\
             From: <sip:a@{local}>;tag=a\r\n{to}\r\nCall-ID: stopping\r\nCSeq: 1 {method}\r\n\
             Contact: <sip:a@{local}>\r\nMax-Forwards: 70\r\n{kind}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    phone.send(&request("INVITE", &format!("To: <sip:echo@{peer}>"), sdp)).await;
    let ok = phone.until("SIP/2.0 200 ").await;
    let to = ok.lines().find(|line| line.starts_with("To:")).unwrap();
    phone.send(&request("ACK", to, "")).await;
    node.logs("Call established", 1).await;
    node.signal("TERM");
    phone.until("BYE ").await;
    phone.until("BYE ").await;
    let third = phone.until("BYE ").await;
    phone.answer(&third, "200 OK").await;
    assert!(node.wait(WITHIN).success());
    assert!(!node.log_text().contains("have not answered"), "it did not wait for the answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_not_heard_of_yet_is_canceled_before_we_go() {
    let called = Peer::at(None).await;
    let mut bot = Bot::start().await;
    let mut node = Node::start(&format!(
        "{}[[trunks]]\nname = \"peer\"\nhost = \"{}\"\nallow = [\"2*\"]\ntransport = \"udp\"\n\
         [calls]\ndrain_timeout = \"100ms\"\n",
        bot.config(),
        called.address()
    ));
    bot.knows(&node.api);
    let (status, call) = bot.place("200").await;
    assert_eq!(status, 201, "{call}");
    let invite = called.until("INVITE ").await;
    node.signal("TERM");
    bot.wait_for_state(call["id"].as_str().unwrap(), "terminated").await;
    // Only now may the call be canceled (RFC 3261 section 9.1).
    called.answer(&invite, "180 Ringing").await;
    let cancel = called.until("CANCEL ").await;
    called.answer(&cancel, "200 OK").await;
    called.answer(&invite, "487 Request Terminated").await;
    assert!(node.wait(WITHIN).success());
}

/// A peer over UDP that the test controls.
struct Peer {
    socket: UdpSocket,
    node: std::sync::Mutex<Option<SocketAddr>>,
}

impl Peer {
    async fn at(node: Option<SocketAddr>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Self { socket, node: std::sync::Mutex::new(node) }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    async fn send(&self, message: &str) {
        let node = self.node.lock().unwrap().expect("it has heard of us, or we know it");
        self.socket.send_to(message.as_bytes(), node).await.unwrap();
    }

    /// The next message that begins with `begin`.
    async fn until(&self, begin: &str) -> String {
        let mut buffer = vec![0; 65_535];
        loop {
            let heard = timeout(WITHIN, self.socket.recv_from(&mut buffer)).await;
            let (length, from) = heard.unwrap_or_else(|_| panic!("no {begin:?}")).unwrap();
            *self.node.lock().unwrap() = Some(from);
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.starts_with(begin) {
                return message;
            }
        }
    }

    async fn answer(&self, request: &str, status: &str) {
        let copied = ["Via:", "From:", "Call-ID:", "CSeq:"];
        let is_copied = |line: &&str| copied.iter().any(|name| line.starts_with(name));
        let lines: Vec<&str> = request.lines().filter(is_copied).collect();
        let to = request.lines().find(|line| line.starts_with("To:")).unwrap();
        let tag = if to.contains(";tag=") { "" } else { ";tag=b" };
        let lines = lines.join("\r\n");
        self.send(&format!(
            "SIP/2.0 {status}\r\n{lines}\r\n{to}{tag}\r\nContent-Length: 0\r\n\r\n"
        ))
        .await;
    }
}
