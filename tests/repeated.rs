//! Retransmissions after a response was lost, on either side: each is answered as before, and
//! nothing is done twice.

mod support;

use std::time::Duration;

use support::{
    Node,
    bot::Bot,
    raw::{Peer, SDP, header, status, to_tag},
};
use tokio::{net::UdpSocket, time::timeout};

const HOST: [u8; 4] = [127, 0, 0, 1];
/// Longer than the longest interval between two retransmissions (RFC 3261, T2).
const OVER: Duration = Duration::from_secs(5);

const TRUSTING: &str =
    "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\ntrusted_peers = [\"127.0.0.1/32\"]\n";

async fn node_and_bot(extra: &str) -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let node = Node::start(&format!("{extra}{}", bot.config()));
    bot.knows(&node.api);
    (node, bot)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_and_a_bye_that_come_again_are_answered_again() {
    let (node, _bot) = node_and_bot("").await;
    let mut peer = Peer::new(HOST.into(), node.sip, "echo", "again").await;
    for _ in 0..5 {
        peer.say("INVITE", 1, "i", SDP).await;
    }
    let first = peer.wait_for("INVITE", |status| status == 200).await;
    // The 200 may have been on its way already; it is retransmitted as long as there is no ACK.
    let repeated = peer.wait_for("INVITE", |status| status == 200).await;
    assert_eq!(first, repeated);
    peer.say("ACK", 1, "a", "").await;
    let bye = peer.request("BYE", 2, "b", "");
    peer.send(&bye).await;
    let first = peer.wait_for("BYE", |status| status == 200).await;
    peer.send(&bye).await;
    assert_eq!(first, peer.wait_for("BYE", |status| status == 200).await);
    node.logs("Call offered", 1).await;
    node.logs("Call established", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_200_whose_ack_is_lost_comes_again_until_the_next_one() {
    // A stranger gets retransmissions only within its allowance: see `strangers`.
    let (node, _bot) = node_and_bot(TRUSTING).await;
    let mut peer = Peer::new(HOST.into(), node.sip, "echo", "lost").await;
    peer.say("INVITE", 1, "i", SDP).await;
    let first = peer.wait_for("INVITE", |status| status == 200).await;
    for _ in 0..2 {
        assert_eq!(first, peer.wait_for("INVITE", |status| status == 200).await);
    }
    peer.say("ACK", 1, "a", "").await;
    // One retransmission may have been on its way.
    let mut more = 0;
    while peer.next(OVER).await.is_some() {
        more += 1;
    }
    assert!(more <= 1, "{more} came after the ACK");
    peer.say("BYE", 2, "b", "").await;
    peer.wait_for("BYE", |status| status == 200).await;
    node.logs("Call offered", 1).await;
}

/// T8: a storm of the same INVITE is one call.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_times_the_same_invite_is_one_call() {
    // The limits of a stranger would drop most of them.
    let (node, bot) = node_and_bot(TRUSTING).await;
    let mut peer = Peer::new(HOST.into(), node.sip, "bot", "storm").await;
    let invite = peer.request("INVITE", 1, "i", SDP);
    for _ in 0..1_000 {
        peer.send(&invite).await;
        // One INVITE per answer, so that none is lost in a queue.
        let answer = peer.next(OVER).await.expect("an answer to each");
        assert!(matches!(status(&answer), Some(100 | 180)), "{answer}");
    }
    node.logs("Call offered", 1).await;
    let (_, calls) = bot.get("calls").await;
    assert_eq!(calls["value"].as_array().unwrap().len(), 1, "{calls}");
    peer.say("CANCEL", 1, "i", "").await;
    peer.wait_for("INVITE", |status| status == 487).await;
    peer.say("ACK", 1, "i", "").await;
    let call = calls["value"][0]["id"].as_str().unwrap();
    bot.wait_for_state(call, "terminated").await;
}

/// The party that the node calls; the test answers for it.
struct Called(UdpSocket);

impl Called {
    /// The next request of a method; others get no answer.
    async fn request(&self, method: &str) -> (String, std::net::SocketAddr) {
        let mut buffer = vec![0; 65_535];
        timeout(Duration::from_secs(20), async {
            loop {
                let (length, from) = self.0.recv_from(&mut buffer).await.unwrap();
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                if text.starts_with(&format!("{method} ")) {
                    return (text, from);
                }
            }
        })
        .await
        .unwrap_or_else(|_| panic!("no {method}"))
    }

    async fn answer(&self, request: &(String, std::net::SocketAddr), status: u16, body: &str) {
        let local = self.0.local_addr().unwrap();
        let same: String = ["Via", "From", "Call-ID", "CSeq"]
            .into_iter()
            .map(|name| format!("{name}: {}\r\n", header(&request.0, name).unwrap()))
            .collect();
        let to = header(&request.0, "To").unwrap();
        let tag = if to_tag(&request.0).is_some() { "" } else { ";tag=called" };
        let text = format!(
            "SIP/2.0 {status} Answer\r\n{same}To: {to}{tag}\r\nContact: <sip:called@{local}>\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.0.send_to(text.as_bytes(), request.1).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_200_of_whom_we_call_is_acknowledged_and_our_bye_comes_again() {
    let called = Called(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let trunk = format!(
        "[[trunks]]\nname = \"peer\"\nhost = \"{}\"\ntransport = \"udp\"\nallow = [\"2*\"]\n",
        called.0.local_addr().unwrap()
    );
    let (_node, bot) = node_and_bot(&trunk).await;
    let (status, call) = bot.place("200").await;
    assert_eq!(status, 201, "{call}");
    let id = call["id"].as_str().unwrap();
    // The first INVITE and the first 200 are lost on the way.
    let lost = called.request("INVITE").await;
    let invite = called.request("INVITE").await;
    assert_eq!(lost.0, invite.0);
    called.answer(&invite, 180, "").await;
    for _ in 0..4 {
        // Our ACK is lost, so the 200 is retransmitted (RFC 3261 section 13.2.2.4).
        called.answer(&invite, 200, SDP).await;
        let (ack, _) = called.request("ACK").await;
        let number = header(&invite.0, "CSeq").unwrap().split(' ').next().unwrap();
        assert_eq!(header(&ack, "CSeq"), Some(format!("{number} ACK").as_str()));
        assert_eq!(to_tag(&ack), Some("called"), "{ack}");
    }
    bot.wait_for_state(id, "established").await;
    assert_eq!(bot.hang_up(id).await, 204);
    let lost = called.request("BYE").await;
    let bye = called.request("BYE").await;
    assert_eq!(lost.0, bye.0);
    called.answer(&bye, 200, "").await;
    bot.wait_for_state(id, "terminated").await;
    let established = bot.notifications();
    let established = established.iter().filter(|n| n.data()["state"] == "established").count();
    assert_eq!(established, 1, "however often it was said");
}
