//! What unauthenticated callers can make the node do to others.

mod support;

use std::{
    net::{IpAddr, SocketAddr},
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
/// How long a test listens where nothing must arrive.
const SILENCE: Duration = Duration::from_millis(1_500);

async fn node_and_bot(extra: &str) -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let node = Node::start(&format!("{extra}{}", bot.config()));
    bot.knows(&node.api);
    (node, bot)
}

/// An INVITE with the given second line and Contact.
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
        (
            "route",
            format!("Record-Route: <sip:{tcp_at};transport=tcp;lr>"),
            format!("sip:{udp_at}"),
        ),
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
        let id = call(&bot, &mut peer, &invite).await;
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

/// A small node: strangers have room for eight half-open calls.
const SMALL: &str = "[media]\nports = \"0-0\"\nmax_calls = 16\n";

/// Sends INVITEs from these sources, which send nothing else.
async fn forged_invites(node: &Node, sources: std::ops::Range<u8>) {
    for source in sources {
        let socket = UdpSocket::bind((IpAddr::from([127, 0, 1, source]), 0)).await.unwrap();
        let local = socket.local_addr().unwrap();
        let invite = format!(
            "INVITE sip:bot@{0} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{source}\r\n\
             From: <sip:a@{local}>;tag=a\r\nTo: <sip:bot@{0}>\r\nCall-ID: forged{source}\r\n\
             CSeq: 1 INVITE\r\nContact: <sip:a@{local}>\r\nMax-Forwards: 70\r\n\
             Content-Type: application/sdp\r\nContent-Length: {1}\r\n\r\n{SDP}",
            node.sip,
            SDP.len()
        );
        socket.send_to(invite.as_bytes(), node.sip).await.unwrap();
        // Slower than calls end; they keep their places until then.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

fn calls_told(bot: &Bot, state: &str) -> Vec<String> {
    let told = bot.notifications().into_iter().filter(|told| told.data()["state"] == state);
    told.map(|told| told.data()["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_invites_keep_no_caller_out_and_end_no_call_that_was_acknowledged() {
    let (node, bot) = node_and_bot(SMALL).await;
    let mut first = Peer::new(HOST, node.sip, "bot", "first").await;
    let invite_of_first = invite(&first, "", &format!("sip:a@{}", first.local()));
    let kept = call(&bot, &mut first, &invite_of_first).await;

    forged_invites(&node, 1..13).await;
    // A genuine call is accepted, answered and acknowledged.
    let host = [127, 0, 0, 2].into();
    let mut second = Peer::new(host, node.sip, "bot", "second").await;
    let invite_of_second = invite(&second, "", &format!("sip:a@{}", second.local()));
    let id = call(&bot, &mut second, &invite_of_second).await;
    forged_invites(&node, 13..17).await;

    // Each call that had to make room is notified once; acknowledged calls are not affected.
    let is_ended = async || (calls_told(&bot, "terminated").len() >= 5).then_some(());
    support::eventually("forged calls end", Duration::from_secs(5), is_ended).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut ended = calls_told(&bot, "terminated");
    assert!(!ended.contains(&kept) && !ended.contains(&id));
    let ends = ended.len();
    ended.sort();
    ended.dedup();
    assert_eq!(ended.len(), ends, "each is told once");
    for (id, peer) in [(kept, first), (id, second)] {
        assert_eq!(bot.get(&format!("calls/{id}")).await.1["state"], "established");
        let mut peer = peer;
        peer.say("BYE", 2, "b", "").await;
        peer.wait_for("BYE", |status| status == 200).await;
        bot.wait_for_state(&id, "terminated").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn under_pressure_a_half_open_call_ends_long_before_its_time() {
    let (node, bot) = node_and_bot(SMALL).await;
    forged_invites(&node, 1..6).await;
    let are_offered = async || (calls_told(&bot, "incoming").len() == 5).then_some(());
    support::eventually("five calls", Duration::from_secs(5), are_offered).await;
    let are_ended = async || (calls_told(&bot, "terminated").len() == 5).then_some(());
    support::eventually("five ends", Duration::from_secs(12), are_ended).await;
}

/// The number of bytes that arrive within `time`, and the messages.
async fn heard_within(socket: &UdpSocket, time: Duration) -> (usize, Vec<String>) {
    let until = Instant::now() + time;
    let (mut bytes, mut messages, mut buffer) = (0, Vec::new(), vec![0; 65_535]);
    while let Ok(received) =
        timeout(until.saturating_duration_since(Instant::now()), socket.recv(&mut buffer)).await
    {
        let length = received.unwrap();
        bytes += length;
        messages.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    (bytes, messages)
}

/// INVITEs that are never acknowledged, three of them to the line that answers at once.
fn unacknowledged_invites(node: &Node, local: SocketAddr) -> [(&'static str, String); 4] {
    let head = |name: &str, more: &str| {
        format!(
            "INVITE sip:echo@{0} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{name}\r\n\
             From: <sip:a@{local}>;tag=a\r\nTo: <sip:echo@{0}>\r\nCall-ID: {name}\r\n\
             CSeq: 1 INVITE\r\nContact: <sip:a@{local}>\r\nMax-Forwards: 70\r\n{more}\
             Content-Type: application/sdp\r\nContent-Length: {1}\r\n\r\n{SDP}",
            node.sip,
            SDP.len()
        )
    };
    let small = "INVITE sip:echo SIP/2.0\r\nv:SIP/2.0/UDP a;branch=z9hG4bKs\r\nf:<sip:a>;tag=1\r\nt:<sip:a>\r\n\
         i:1\r\nm:<sip:a>\r\nMax-Forwards:9\r\nCSeq:1 INVITE\r\n\r\n"
        .to_owned();
    let routes: String = (0..120)
        .map(|number| format!("Record-Route: <sip:{number}.{};lr>\r\n", "x".repeat(40)))
        .collect();
    let usual = "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, UPDATE, PRACK, REFER, NOTIFY\r\n\
                 Supported: replaces, timer, outbound, path\r\nUser-Agent: A phone/1.0\r\n";
    [
        ("144 bytes", small),
        ("7.6 KB of Record-Route", head("routes", &routes)),
        ("usual", head("usual", usual)),
        ("usual, and rings", head("rings", usual).replace("sip:echo@", "sip:bot@")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_without_ack_gets_no_more_than_one_and_a_half_times_its_bytes() {
    let (node, _bot) = node_and_bot("").await;
    let mut all = tokio::task::JoinSet::new();
    for which in 0..4 {
        let socket = UdpSocket::bind((HOST, 0)).await.unwrap();
        let local = socket.local_addr().unwrap();
        socket.connect(node.sip).await.unwrap();
        let (name, invite) = unacknowledged_invites(&node, local)[which].clone();
        all.spawn(async move {
            let (mut sent, mut heard, mut messages) = (0, 0, Vec::new());
            for wait in [500, 1_000, 4_500] {
                socket.send(invite.as_bytes()).await.unwrap();
                sent += invite.len();
                let (bytes, more) = heard_within(&socket, Duration::from_millis(wait)).await;
                heard += bytes;
                messages.extend(more);
                assert!(heard * 2 <= sent * 3, "{name}: {heard} bytes for {sent}: {messages:#?}");
            }
            if name.starts_with("usual") {
                let wanted = if name == "usual" { 200 } else { 180 };
                let is_wanted = |text: &String| status(text) == Some(wanted);
                assert!(messages.iter().any(is_wanted), "{name}: {messages:#?}");
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_invites_of_one_source_get_no_more_than_that_together() {
    let (node, _bot) = node_and_bot("").await;
    let socket = UdpSocket::bind((HOST, 0)).await.unwrap();
    let local = socket.local_addr().unwrap();
    socket.connect(node.sip).await.unwrap();
    let [_, _, (_, usual), _] = unacknowledged_invites(&node, local);
    let mut sent = 0;
    for number in 0..30 {
        let invite = usual.replace("z9hG4bKusual", &format!("z9hG4bK{number}"));
        let invite = invite.replace("Call-ID: usual", &format!("Call-ID: {number}"));
        socket.send(invite.as_bytes()).await.unwrap();
        sent += invite.len();
    }
    let (heard, messages) = heard_within(&socket, Duration::from_secs(5)).await;
    assert!(heard * 2 <= sent * 3, "{heard} bytes for {sent}");
    assert!(messages.iter().filter(|text| status(text) == Some(200)).count() >= 10, "{messages:?}");
}

/// Calls the bot, which answers; the call is established.
async fn call(bot: &Bot, peer: &mut Peer, invite: &str) -> String {
    let caller = format!("a@{}", peer.local());
    let answered = async {
        let is_it = |told: &Notified| {
            told.data()["state"] == "incoming"
                && told.data()["source"].to_string().contains(&caller)
        };
        let incoming = bot.wait_for("the call", is_it).await;
        let id = incoming.data()["id"].as_str().unwrap().to_owned();
        bot.answer(&id).await;
        id
    };
    tokio::join!(answered, begin(peer, invite)).0
}

/// Repeats the INVITE until it is answered, as phones do, and acknowledges the answer.
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

/// A 200 for a request of the node.
fn ok_to(request: &str) -> String {
    let lines = request.split("\r\n").filter(|line| {
        ["Via:", "From:", "To:", "Call-ID:", "CSeq:"].iter().any(|name| line.starts_with(name))
    });
    let lines: Vec<&str> = lines.collect();
    format!("SIP/2.0 200 OK\r\n{}\r\nContent-Length: 0\r\n\r\n", lines.join("\r\n"))
}
