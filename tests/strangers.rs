//! What callers that the node does not know can have it do to others.

mod support;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use support::{
    Node,
    bot::{Bot, Notified},
    raw::{Peer, SDP, header, status},
};
use tokio::{
    net::{TcpListener, UdpSocket},
    time::timeout,
};

const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// How long nothing must come where nothing must come.
const SILENCE: Duration = Duration::from_millis(1_500);

async fn node_and_bot(extra: &str) -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let node = Node::start(&format!("{extra}{}", bot.config()));
    bot.knows(&node.api);
    (node, bot)
}

/// An INVITE whose second line is as given, and whose Contact is `contact`.
fn invite(peer: &Peer, second: &str, contact: &str) -> String {
    let invite = peer.request("INVITE", 1, "i", SDP);
    let own = format!("Contact: <sip:a@{}>", peer.local());
    assert!(invite.contains(&own), "{invite}");
    let invite = invite.replace(&own, &format!("Contact: <{contact}>"));
    match second {
        "" => invite,
        line => invite.replacen("From: ", &format!("{line}\r\nFrom: "), 1),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_bye_goes_to_no_host_that_a_stranger_only_names() {
    let (node, bot) = node_and_bot("").await;
    let tcp = TcpListener::bind((HOST, 0)).await.unwrap();
    let udp = UdpSocket::bind((HOST, 0)).await.unwrap();
    let (tcp_at, udp_at) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
    for (name, second, contact) in [
        ("route", format!("Record-Route: <sip:{tcp_at};transport=tcp;lr>"), format!("sip:{udp_at}")),
        ("strict", format!("Record-Route: <sip:{udp_at}>"), format!("sip:{tcp_at};transport=tcp")),
        (
            "behind",
            format!("Via: SIP/2.0/UDP {udp_at};branch=z9hG4bK-behind"),
            format!("sip:a@{tcp_at};transport=tcp"),
        ),
        ("contact", String::new(), format!("sip:a@{udp_at}")),
    ] {
        let mut peer = Peer::new(HOST, node.sip, "bot", name).await;
        let invite = invite(&peer, &second, &contact);
        let (id, ()) = tokio::join!(take_call(&bot), begin(&mut peer, &invite));
        assert_eq!(bot.hang_up(&id).await, 204);
        let bye = loop {
            let text = peer.next(Duration::from_secs(5)).await.expect("a BYE");
            if text.starts_with("BYE ") {
                break text;
            }
        };
        let has_routes = second.starts_with("Record-Route");
        assert_eq!(header(&bye, "Route").is_some(), has_routes, "{name}: {bye}");
        peer.send(ok_to(&bye)).await;
        bot.wait_for_state(&id, "terminated").await;
        assert!(timeout(SILENCE, tcp.accept()).await.is_err(), "{name} opens a connection");
        let mut buffer = [0; 2_000];
        assert!(timeout(SILENCE, udp.recv(&mut buffer)).await.is_err(), "{name} is sent on");
    }
}

/// Waits for a call that has not been told yet, and answers it.
async fn take_call(bot: &Bot) -> String {
    let before = bot.notifications().len();
    let is_new = |told: &Notified| told.data()["state"] == "incoming";
    let incoming = bot.wait_for_after(before, "an incoming call", is_new).await;
    let id = incoming.data()["id"].as_str().unwrap().to_owned();
    bot.answer(&id).await;
    id
}

/// Sends the INVITE again until it is answered, as phones do, and acknowledges the answer.
async fn begin(peer: &mut Peer, invite: &str) {
    for wait in [500, 1_000, 2_000, 4_000, 8_000] {
        peer.send(invite).await;
        let until = Instant::now() + Duration::from_millis(wait);
        while let Some(text) = peer.next(until.saturating_duration_since(Instant::now())).await {
            if status(&text) == Some(200) {
                peer.say("ACK", 1, "a", "").await;
                return;
            }
        }
    }
    panic!("no answer");
}

/// The answer to a request of the node.
fn ok_to(request: &str) -> String {
    let lines = request.split("\r\n").filter(|line| {
        ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|name| line.starts_with(name))
    });
    let lines: Vec<&str> = lines.collect();
    format!("SIP/2.0 200 OK\r\n{}\r\nContent-Length: 0\r\n\r\n", lines.join("\r\n"))
}
