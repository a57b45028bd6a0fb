//! Desk phones: one that sends from a high port and listens on another one (RFC 3261 §18.2.2), one
//! that knows MD5 only, one that loses its TCP connection during a call.

mod support;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use support::{
    Node,
    bot::Bot,
    raw::{SDP, ask_by_udp, header, status, with_password},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    time::timeout,
};

/// How long an expected message may take.
const PATIENCE: Duration = Duration::from_secs(20);

async fn node_and_bot() -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let node = Node::start(&format!(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\"]\n\
         [[users]]\nname = \"alice\"\npassword = \"secret\"\n{}",
        bot.config()
    ));
    bot.knows(&node.api);
    (node, bot)
}

/// A phone that names its listening port in Via and Contact, without `rport`.
struct DeskPhone {
    sends: UdpSocket,
    listens: UdpSocket,
    node: SocketAddr,
}

impl DeskPhone {
    async fn new(host: [u8; 4], node: SocketAddr) -> Self {
        let host = IpAddr::from(host);
        let sends = UdpSocket::bind((host, 0)).await.unwrap();
        let listens = UdpSocket::bind((host, 0)).await.unwrap();
        Self { sends, listens, node }
    }

    fn local(&self) -> SocketAddr {
        self.listens.local_addr().unwrap()
    }

    /// A request of a call or of the registration; `to` is empty or has our tag.
    fn request(&self, method: &str, user: &str, call: &str, cseq: u32, to: &str) -> String {
        let (local, node) = (self.local(), self.node.ip());
        let branch_of = if method == "ACK" { "ACK" } else { "" };
        let (kind, body) = match method {
            "INVITE" => ("Content-Type: application/sdp\r\n", SDP),
            _ => ("", ""),
        };
        format!(
            "{method} sip:{user}@{node} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {local};branch=z9hG4bK{call}{cseq}{branch_of}\r\nMax-Forwards: 70\r\n\
             From: <sip:alice@{node}>;tag=phone\r\nTo: <sip:{user}@{node}>{to}\r\n\
             Call-ID: {call}\r\nCSeq: {cseq} {method}\r\nContact: <sip:alice@{local}>\r\n\
             User-Agent: A phone that has many buttons and a display of many colours/1.0\r\n\
             {kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    async fn say(&self, message: impl AsRef<[u8]>) {
        self.sends.send_to(message.as_ref(), self.node).await.unwrap();
    }

    /// The next message at the phone's listening port that satisfies `wanted`.
    async fn hear(&self, wanted: impl Fn(&str) -> bool) -> String {
        let mut others = Vec::new();
        let heard = async {
            let mut buffer = vec![0; 65_535];
            loop {
                let length = self.listens.recv(&mut buffer).await.unwrap();
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if wanted(&text) {
                    return text;
                }
                others.push(text);
            }
        };
        match timeout(PATIENCE, heard).await {
            Ok(text) => text,
            Err(_) => panic!("nothing such came; there were {others:#?}"),
        }
    }

    /// The final response to a request of this method.
    async fn answer_to(&self, method: &str) -> String {
        let is_it = |text: &str| {
            status(text).is_some_and(|status| status >= 200)
                && header(text, "CSeq").is_some_and(|cseq| cseq.ends_with(method))
        };
        self.hear(is_it).await
    }

    /// The node's next request of this method.
    async fn asked(&self, method: &str) -> String {
        self.hear(|text| text.split(' ').next() == Some(method)).await
    }

    async fn register(&self) {
        self.say(self.request("REGISTER", "alice", "register", 1, "")).await;
        let refused = self.answer_to("REGISTER").await;
        assert_eq!(status(&refused), Some(401), "{refused}");
        let again = self.request("REGISTER", "alice", "register", 2, "");
        let again = with_password(again.as_bytes(), &refused, "alice", "secret").unwrap();
        self.say(again).await;
        let accepted = self.answer_to("REGISTER").await;
        assert_eq!(status(&accepted), Some(200), "{accepted}");
    }

    /// Calls the bot; returns the call, and the parameters of To in the phone's further requests.
    async fn call(&self, bot: &Bot, call_id: &str) -> (String, String) {
        let known = bot.notifications().len();
        self.say(self.request("INVITE", "bot", call_id, 1, "")).await;
        let is_call = |told: &support::bot::Notified| told.data()["state"] == "incoming";
        let incoming = bot.wait_for_after(known, "the call", is_call).await;
        let id = incoming.data()["id"].as_str().unwrap().to_owned();
        let acknowledged = async {
            let ok = self.answer_to("INVITE").await;
            assert_eq!(status(&ok), Some(200), "{ok}");
            let to = header(&ok, "To").unwrap().split_once('>').unwrap().1.to_owned();
            self.say(self.request("ACK", "bot", call_id, 1, &to)).await;
            to
        };
        let ((), to) = tokio::join!(bot.answer(&id), acknowledged);
        (id, to)
    }

    /// The bot calls the phone, which answers; returns the call and the INVITE.
    async fn is_called(&self, bot: &Bot) -> (String, String) {
        let (code, call) = bot.place("sip:alice@127.0.0.1").await;
        assert_eq!(code, 201, "{call}");
        let id = call["id"].as_str().unwrap().to_owned();
        let invite = self.asked("INVITE").await;
        let contact = format!("Contact: <sip:alice@{}>\r\n", self.local());
        let more = format!("{contact}Content-Type: application/sdp\r\n");
        self.say(answer(&invite, "200 OK", ";tag=called", &more, SDP)).await;
        self.asked("ACK").await;
        bot.wait_for_state(&id, "established").await;
        (id, invite)
    }

    /// Nothing has arrived at the port that the phone sends from.
    fn has_heard_nothing_where_it_sends(&self) {
        let mut buffer = [0; 2_000];
        if let Ok(length) = self.sends.try_recv(&mut buffer) {
            panic!("{}", String::from_utf8_lossy(&buffer[..length]));
        }
    }
}

/// A response to a request of the node.
fn answer(request: &str, status: &str, to_tag: &str, more: &str, body: &str) -> String {
    let copied = ["Via", "From", "Call-ID", "CSeq"].map(|name| {
        let value = header(request, name).unwrap();
        format!("{name}: {value}\r\n")
    });
    let (copied, to) = (copied.concat(), header(request, "To").unwrap());
    format!(
        "SIP/2.0 {status}\r\n{copied}To: {to}{to_tag}\r\n{more}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_sends_from_a_high_port_registers_calls_and_is_called_where_it_listens() {
    for host in [[127, 0, 0, 1], [127, 0, 0, 7]] {
        let (node, bot) = node_and_bot().await;
        let phone = DeskPhone::new(host, node.sip).await;
        phone.register().await;

        let (id, _) = phone.call(&bot, "in").await;
        assert_eq!(bot.hang_up(&id).await, 204);
        let bye = phone.asked("BYE").await;
        phone.say(answer(&bye, "200 OK", "", "", "")).await;
        bot.wait_for_state(&id, "terminated").await;

        let (id, _) = phone.is_called(&bot).await;
        assert_eq!(bot.hang_up(&id).await, 204);
        let bye = phone.asked("BYE").await;
        phone.say(answer(&bye, "200 OK", "", "", "")).await;
        bot.wait_for_state(&id, "terminated").await;

        // The phone hangs up.
        let (id, invite) = phone.is_called(&bot).await;
        let bye = format!(
            "BYE sip:aftertone@{0} SIP/2.0\r\nVia: SIP/2.0/UDP {1};branch=z9hG4bKbye\r\n\
             Max-Forwards: 70\r\nFrom: {2};tag=called\r\nTo: {3}\r\nCall-ID: {4}\r\n\
             CSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n",
            node.sip,
            phone.local(),
            header(&invite, "To").unwrap(),
            header(&invite, "From").unwrap(),
            header(&invite, "Call-ID").unwrap(),
        );
        phone.say(bye).await;
        assert_eq!(status(&phone.answer_to("BYE").await), Some(200));
        bot.wait_for_state(&id, "terminated").await;
        phone.has_heard_nothing_where_it_sends();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn such_a_phone_may_call_without_being_known_and_cancel() {
    let (node, bot) = node_and_bot().await;
    let phone = DeskPhone::new([127, 0, 0, 9], node.sip).await;
    let (id, _) = phone.call(&bot, "stranger").await;
    assert_eq!(bot.hang_up(&id).await, 204);
    let bye = phone.asked("BYE").await;
    phone.say(answer(&bye, "200 OK", "", "", "")).await;
    bot.wait_for_state(&id, "terminated").await;

    let known = bot.notifications().len();
    let invite = phone.request("INVITE", "bot", "canceled", 1, "");
    phone.say(&invite).await;
    let is_call = |told: &support::bot::Notified| told.data()["state"] == "incoming";
    bot.wait_for_after(known, "the second call", is_call).await;
    phone.say(phone.request("CANCEL", "bot", "canceled", 1, "")).await;
    assert_eq!(status(&phone.answer_to("CANCEL").await), Some(200));
    assert_eq!(status(&phone.answer_to("INVITE").await), Some(487));
    phone.has_heard_nothing_where_it_sends();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_phone_on_a_public_route_hands_its_call_over_with_its_password() {
    let (node, bot) = node_and_bot().await;
    let phone = DeskPhone::new([127, 0, 0, 1], node.sip).await;
    phone.register().await;
    let (id, to) = phone.call(&bot, "refers").await;
    let refer = |cseq: u32| {
        let refer = phone.request("REFER", "bot", "refers", cseq, &to);
        refer.replace("User-Agent:", "Refer-To: <sip:nobody@127.0.0.1>\r\nUser-Agent:")
    };
    phone.say(refer(2)).await;
    let refused = phone.answer_to("REFER").await;
    assert_eq!(status(&refused), Some(401), "{refused}");
    let proved = with_password(refer(3).as_bytes(), &refused, "alice", "secret").unwrap();
    phone.say(proved).await;
    let accepted = phone.answer_to("REFER").await;
    assert_eq!(status(&accepted), Some(202), "{accepted}");
    // The NOTIFYs go to the phone's listening port.
    loop {
        let notify = phone.asked("NOTIFY").await;
        phone.say(answer(&notify, "200 OK", "", "", "")).await;
        if notify.ends_with("SIP/2.0 404 Not Found\r\n") {
            break;
        }
    }
    assert_eq!(bot.get(&format!("calls/{id}")).await.1["state"], "established");
    phone.has_heard_nothing_where_it_sends();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_knows_md5_alone_registers_by_a_short_request() {
    let (node, _bot) = node_and_bot().await;
    let host = IpAddr::from([127, 0, 0, 1]);
    let request = |branch: u32| {
        format!(
            "REGISTER sip:127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1;rport;branch=z9hG4bK{branch}\r\n\
             From: <sip:alice@127.0.0.1>;tag=1\r\nTo: <sip:alice@127.0.0.1>\r\nCall-ID: short\r\n\
             CSeq: {branch} REGISTER\r\nContact: <sip:alice@127.0.0.1:5062>\r\nExpires: 600\r\n\
             Max-Forwards: 70\r\nUser-Agent: P\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let refused = ask_by_udp(host, node.sip, request(1).as_bytes(), 401).await.unwrap();
    assert!(refused.len() * 2 <= request(1).len() * 3, "{refused}");
    assert!(header(&refused, "WWW-Authenticate").unwrap().contains("algorithm=MD5"), "{refused}");
    let again = with_password(request(2).as_bytes(), &refused, "alice", "secret").unwrap();
    let accepted = ask_by_udp(host, node.sip, &again, 200).await.unwrap();
    assert_eq!(status(&accepted), Some(200), "{accepted}");
}

/// Reads a stream until the head that begins with `wanted` is complete; returns the text from there
/// on.
async fn read(stream: &mut (impl AsyncRead + Unpin), wanted: &str) -> String {
    let read = async {
        let (mut text, mut buffer) = (String::new(), vec![0; 65_535]);
        loop {
            if let Some(at) = text.find(wanted)
                && text[at..].contains("\r\n\r\n")
            {
                return text[at..].to_owned();
            }
            let length = stream.read(&mut buffer).await.unwrap();
            assert_ne!(length, 0, "it was closed after {text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    };
    timeout(PATIENCE, read).await.expect(wanted)
}

/// Places a call over TCP with this address in Contact; returns the stream and the call.
async fn call_over_tcp(
    node: &Node,
    bot: &Bot,
    host: [u8; 4],
    contact: SocketAddr,
) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((IpAddr::from(host), 0).into()).unwrap();
    let mut stream = socket.connect(node.listener("tcp")).await.unwrap();
    let local = stream.local_addr().unwrap();
    let request = |method: &str, to: &str, body: &str| {
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{method} sip:bot@127.0.0.1 SIP/2.0\r\n\
             Via: SIP/2.0/TCP {local};branch=z9hG4bK{method}{contact}\r\nMax-Forwards: 70\r\n\
             From: <sip:a@127.0.0.1>;tag=phone\r\nTo: <sip:bot@127.0.0.1>{to}\r\n\
             Call-ID: {contact}\r\nCSeq: 1 {method}\r\nContact: <sip:a@{contact};transport=tcp>\r\n\
             {kind}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    stream.write_all(request("INVITE", "", SDP).as_bytes()).await.unwrap();
    let acknowledged = async {
        let ok = read(&mut stream, "SIP/2.0 200 ").await;
        let to = header(&ok, "To").unwrap().split_once('>').unwrap().1.to_owned();
        stream.write_all(request("ACK", &to, "").as_bytes()).await.unwrap();
    };
    let (id, ()) = tokio::join!(bot.take_call(), acknowledged);
    (stream, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_tcp_stream_is_gone_is_hung_up_where_its_contact_listens() {
    let (node, bot) = node_and_bot().await;
    let host = [127, 0, 0, 8];
    let listener = TcpListener::bind((IpAddr::from(host), 0)).await.unwrap();
    let contact = listener.local_addr().unwrap();
    let (stream, id) = call_over_tcp(&node, &bot, host, contact).await;
    drop(stream);
    assert_eq!(bot.hang_up(&id).await, 204);
    let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let bye = read(&mut stream, "BYE ").await;
    stream.write_all(answer(&bye, "200 OK", "", "", "").as_bytes()).await.unwrap();
    bot.wait_for_state(&id, "terminated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_stream_is_opened_to_another_host_that_a_stranger_names() {
    let (node, bot) = node_and_bot().await;
    let victim = TcpListener::bind((IpAddr::from([127, 0, 0, 66]), 0)).await.unwrap();
    let contact = victim.local_addr().unwrap();
    let (stream, id) = call_over_tcp(&node, &bot, [127, 0, 0, 8], contact).await;
    drop(stream);
    assert_eq!(bot.hang_up(&id).await, 204);
    bot.wait_for_state(&id, "terminated").await;
    assert!(timeout(Duration::from_millis(1_500), victim.accept()).await.is_err());
}
