//! Session descriptions as phones and gateways write them, not as the grammar has it: keys and hold
//! work, and unreadable bytes do no harm.

mod support;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use aftertone_core::{
    model::Tone,
    proto::{
        rtp::{PayloadType, RtpTimestamp, SeqNo, Ssrc, packet::Header, telephone_event},
        sdp,
    },
};
use serde_json::json;
use support::{
    Node,
    bot::Bot,
    raw::{Peer, header},
};
use tokio::{net::UdpSocket, time::interval};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const KIND: &str = "application/sdp";

async fn node_and_bot() -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let node = Node::start(&bot.config());
    bot.knows(&node.api);
    (node, bot)
}

async fn peer(node: &Node, user: &str) -> Peer {
    Peer::new(LOCALHOST, node.sip, user, &format!("{:x}", rand::random::<u64>())).await
}

/// An offer of G.711 at `port`; `end` follows its `m=` line.
fn offer(port: u16, end: &str) -> String {
    format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0 101\r\n{end}"
    )
}

/// Offers `body` to the echo line; returns the final answer, after its ACK.
async fn offered(node: &Node, body: &[u8]) -> String {
    let mut peer = peer(node, "echo").await;
    peer.send(peer.invite_with(KIND, body)).await;
    let answer = peer.wait_for("INVITE", |status| status >= 200).await;
    if answer.starts_with("SIP/2.0 200") {
        peer.say("ACK", 1, "a", "").await;
        peer.say("BYE", 2, "b", "").await;
        peer.wait_for("BYE", |status| status == 200).await;
    } else {
        // The ACK of a refusal belongs to the transaction (RFC 3261 section 17.1.1.3).
        peer.say("ACK", 1, "i", "").await;
    }
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_heard_however_telephone_events_are_named() {
    let (node, bot) = node_and_bot().await;
    for lines in [
        "a=rtpmap:101 telephone-event/8000/1\r\na=fmtp:101 0-15\r\n",
        "a=fmtp:101 events=0-15\r\na=rtpmap: 101\tTELEPHONE-EVENT/8000/1 \r\n",
        "a=rtpmap:101 telephone-event/48000\r\n",
    ] {
        let rtp = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
        let mut peer = peer(&node, "bot").await;
        let before = bot.notifications().len();
        peer.say("INVITE", 1, "i", &offer(rtp.local_addr().unwrap().port(), lines)).await;
        let answered = async {
            let answer = peer.wait_for("INVITE", |status| status == 200).await;
            peer.say("ACK", 1, "a", "").await;
            answer
        };
        let taken = async {
            let incoming = |n: &support::bot::Notified| n.data()["state"] == "incoming";
            let told = bot.wait_for_after(before, "an incoming call", incoming).await;
            let call = told.data()["id"].as_str().unwrap().to_owned();
            bot.answer(&call).await;
            call
        };
        let (answer, call) = tokio::join!(answered, taken);
        let (_, line) = answer.split_once("m=audio ").unwrap();
        let mut words = line.split_whitespace();
        let leg = SocketAddr::new(LOCALHOST, words.next().unwrap().parse().unwrap());
        assert_eq!(words.take(3).collect::<Vec<_>>(), ["RTP/AVP", "0", "101"], "{answer}");
        let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 60,
            "initialSilenceTimeoutInSeconds": 60, "stopTones": ["#"]});
        let (status, operation) = bot.post(&format!("{call}/recordResponse"), &body).await;
        assert_eq!(status, 200, "{operation}");
        let mut pace = interval(Duration::from_millis(20));
        for step in 0..40_u16 {
            pace.tick().await;
            let mut packet = Vec::new();
            let timestamp = 160 * u32::from(step.min(20));
            let key = step.checked_sub(20);
            Header {
                marker: key == Some(0),
                payload_type: match key {
                    Some(_) => PayloadType::TELEPHONE_EVENT,
                    None => PayloadType::PCMU,
                },
                sequence: SeqNo(step),
                timestamp: RtpTimestamp(timestamp),
                ssrc: Ssrc(7),
            }
            .write(&mut packet);
            match key {
                None => packet.extend([0xff; 160]),
                Some(key) => {
                    let lasted = 160 * (key + 1).min(10);
                    packet.extend(telephone_event::payload(Tone::POUND, key >= 10, lasted));
                }
            }
            rtp.send_to(&packet, leg).await.unwrap();
            if step == 33 {
                break;
            }
        }
        let ended = bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
        assert_eq!(ended["completionReason"], "stopToneDetected", "{lines}: {ended}");
        peer.say("BYE", 2, "b", "").await;
        bot.wait_for_state(&call, "terminated").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hold_is_seen_in_all_its_forms() {
    let (node, bot) = node_and_bot().await;
    let mut peer = peer(&node, "bot").await;
    peer.say("INVITE", 1, "i", &offer(9, "")).await;
    let answered = async {
        peer.wait_for("INVITE", |status| status == 200).await;
        peer.say("ACK", 1, "a", "").await;
    };
    let (call, ()) = tokio::join!(bot.take_call(), answered);
    let mut cseq = 1;
    let active = "a=sendrecv\t \r\n";
    for (held, said) in [
        (offer(9, "a=sendonly \r\n"), "a=recvonly"),
        (offer(9, "a=sendonly\t\r\n"), "a=recvonly"),
        (offer(9, "a= inactive\t \0\r\n"), "a=inactive"),
        (offer(9, "").replace("t=0 0", "t=0 0\r\na=inactive "), "a=inactive"),
        (offer(9, "").replace("c=IN IP4 127.0.0.1", "c=IN\tIP4 0.0.0.0 "), "a=inactive"),
        (offer(9, "c=IN IP6 ::\t\r\n"), "a=inactive"),
        (offer(9, "A=inactive\u{a0}\r\n"), "a=inactive"),
        (format!("\u{feff}{}", offer(9, "a=sendonly\u{a0}\r\n")), "a=recvonly"),
        (offer(0, "c=IN\r\nm=video 5000 RTP/AVP 96\r\n"), "m=audio 0 "),
        (offer(0, ""), "m=audio 0 "),
    ] {
        for (body, said, state) in
            [(&held, said, "inactive"), (&offer(9, active), "a=sendrecv", "active")]
        {
            cseq += 1;
            let before = bot.notifications().len();
            peer.say("INVITE", cseq, &format!("i{cseq}"), body).await;
            let answer = peer.wait_for(&format!("{cseq} INVITE"), |status| status >= 200).await;
            peer.say("ACK", cseq, &format!("a{cseq}"), "").await;
            assert!(answer.starts_with("SIP/2.0 200"), "{body:?}: {answer}");
            assert!(answer.contains(said), "{body:?}: {answer}");
            let told = bot
                .wait_for_after(before, &format!("{state} after {body:?}"), |n| {
                    n.data()["mediaState"]["audio"] == state
                })
                .await;
            assert_eq!(told.data()["id"], call);
        }
    }
    // A suspended session keeps its `m=` line for a later offer of ours.
    let asked = |cseq| format!("i{cseq}");
    peer.say("INVITE", cseq + 1, &asked(cseq + 1), &offer(0, "")).await;
    peer.wait_for(&format!("{} INVITE", cseq + 1), |status| status == 200).await;
    peer.say("ACK", cseq + 1, "suspended", "").await;
    peer.say("INVITE", cseq + 2, &asked(cseq + 2), "").await;
    let ours = peer.wait_for(&format!("{} INVITE", cseq + 2), |status| status == 200).await;
    assert!(ours.contains("m=audio ") && !ours.contains("m=audio 0 "), "{ours}");
    let before = bot.notifications().len();
    peer.send(peer.request("ACK", cseq + 2, "resumed", &offer(9, active))).await;
    let is = |state: &'static str| {
        move |n: &support::bot::Notified| n.data()["mediaState"]["audio"] == state
    };
    bot.wait_for_after(before, "active after an answer", is("active")).await;
    // An answer that refuses the audio is a hold as well.
    peer.say("INVITE", cseq + 3, &asked(cseq + 3), "").await;
    peer.wait_for(&format!("{} INVITE", cseq + 3), |status| status == 200).await;
    let before = bot.notifications().len();
    let refused = offer(0, "m=video 0 RTP/AVP 96\r\n");
    peer.send(peer.request("ACK", cseq + 3, "refused", &refused)).await;
    bot.wait_for_after(before, "inactive after an answer", is("inactive")).await;
    peer.say("BYE", cseq + 4, "b", "").await;
    bot.wait_for_state(&call, "terminated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_in_lines_that_do_not_matter_are_no_reason_to_refuse() {
    let node = Node::start("[[routes]]\nto = \"echo\"\nline = \"echo\"\npublic = true\n");
    let good = offer(9, "a=rtpmap:101 telephone-event/8000\r\n");
    let put = |from: &str, to: &[u8]| {
        let (before, after) = good.split_once(from).unwrap();
        [before.as_bytes(), to, after.as_bytes()].concat()
    };
    for body in [
        put("s=-", b"s=Gespr\xe4ch"),
        put("s=-", b"s=\0"),
        put("RTP/AVP 0 101", b"RTP/AVP 0, 101\xa0"),
        put("v=0", b"\xef\xbb\xbfV=0\xa0"),
        put("m=audio", b"m=audio 0 RTP/SAVP 0\r\nc=IN\r\nM=audio"),
        put("127.0.0.1\r\nt", b"phone.example\r\nt"),
        put("s=-", b"s=\xff\xfe\0-\r\ni=caf\xe9\0\r\nx-unknown=y\r\nnothing at all"),
        put("o=- 1 1 IN", b"o=John Doe \xe9 1 1 IN"),
        put("a=rtpmap", b"a=x-name:\xe9\0\r\na=rtpmap"),
        put("t=0 0\r\n", b"k=\0\r\nz=\xe9\r\n"),
        good.replace("\r\n", "\n").into_bytes(),
        good.replace("\r\n", "\r").into_bytes(),
        [good.trim_end().as_bytes(), b"\0"].concat(),
        [good.as_bytes(), b"\r\n \r\n\0\0"].concat(),
    ] {
        let answer = offered(&node, &body).await;
        let written = String::from_utf8_lossy(&body);
        assert!(answer.starts_with("SIP/2.0 200"), "{written:?}: {answer}");
        assert!(answer.contains("RTP/AVP 0 101\r\n"), "{written:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_really_is_broken_is_refused_in_words() {
    let node = Node::start("[[routes]]\nto = \"echo\"\nline = \"echo\"\npublic = true\n");
    let long = "x".repeat(40_000);
    for (body, status, why) in [
        ("hello\r\n".to_owned(), 400, "does not begin with v=0"),
        (offer(9, "m=video\r\n"), 400, "line 7 cannot be read"),
        (offer(9, "c=IN IP4\r\n"), 400, "line 7 cannot be read"),
        (offer(9, "").replace("RTP/AVP", "RTP/SAVP"), 488, "without keys"),
        (offer(9, "").replace("RTP/AVP", "UDP/TLS/RTP/SAVPF"), 488, "UDP/TLS/RTP/SAVPF"),
        (offer(9, "").replace("0 101", &format!("96\r\na=rtpmap:96 {long}")), 488, "no codec"),
        (offer(0, ""), 488, "no audio"),
    ] {
        let answer = offered(&node, body.as_bytes()).await;
        assert!(answer.starts_with(&format!("SIP/2.0 {status} ")), "{answer}");
        let warning = header(&answer, "Warning").expect("a Warning");
        assert!(warning.contains(why) && warning.len() < 300, "{warning}");
    }
    // The node still serves calls.
    assert!(offered(&node, offer(9, "").as_bytes()).await.starts_with("SIP/2.0 200"));
    assert!(!node.log_text().contains("panicked"), "{}", node.log_text());
}

/// As many payload types as fit, each searched for in as many attributes as possible: a reader that
/// scans the attributes once for each payload type takes minutes.
#[test]
fn the_longest_description_takes_no_more_than_its_length() {
    let numbers = "5 ".repeat(9_000);
    let maps = "a=rtpmap:6 L/1\n".repeat(2_000);
    let text = format!(
        "v=0\no=- 1 1 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP {numbers}0\n{maps}"
    );
    assert!((47_000..65_535).contains(&text.len()), "{}", text.len());
    let local = sdp::LocalMedia {
        address: LOCALHOST,
        port: 9,
        codecs: vec![sdp::Codec::Pcmu],
        security: sdp::LocalSecurity::new(
            sdp::SrtpPolicy::Off,
            sdp::MediaSecret::new([0; sdp::MediaSecret::LEN]),
        ),
        session_id: 1,
        session_version: 1,
    };
    let begun = Instant::now();
    for _ in 0..20 {
        let offer = sdp::Description::parse(text.as_bytes()).unwrap();
        let (answer, _) = sdp::negotiate(&offer, &local).unwrap();
        assert!(answer.to_string().contains("m=audio 9 RTP/AVP 0\r\n"), "{answer}");
        sdp::accept_answer(&sdp::make_offer(&local), &offer).unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}
