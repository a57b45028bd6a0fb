//! Peers that lose messages, change their mind, or interrupt: sipp plays them, one scenario each.

mod support;

use std::time::Duration;

use serde_json::json;
use support::{
    Node,
    bot::Bot,
    eventually,
    sipp::{run, xml::*},
};
use tokio::{net::UdpSocket, time::timeout};

/// The calls that the node knows.
async fn calls(bot: &Bot) -> usize {
    let (status, calls) = bot.get("calls").await;
    assert_eq!(status, 200, "{calls}");
    calls["value"].as_array().unwrap().len()
}

async fn node_and_bot() -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let node = Node::start(&bot.config());
    bot.knows(&node.api);
    (node, bot)
}

/// A node that does not mind that sipp sends no RTP here.
fn silent_node() -> Node {
    Node::start("[media]\nports = \"0-0\"\nrtp_timeout = \"10m\"\n")
}

/// A call to the line that answers by itself, up to its ACK.
fn established(extra: &str) -> Vec<String> {
    vec![invite(1, extra, SENDRECV), recv_optional(100), recv_optional(180), recv(200), ack(1)]
}

/// sipp sends no RTP: only on hold may that last.
#[tokio::test(flavor = "multi_thread")]
async fn hold_in_three_styles_and_back() {
    let node = Node::start("[media]\nports = \"0-0\"\nrtp_timeout = \"4s\"\n");
    let mut steps = established("");
    for (cseq, (description, answered, lasts)) in [
        (sdp("[media_ip]", "sendonly"), "a=recvonly", 6_000),
        (SENDRECV.to_owned(), "a=sendrecv", 0),
        (sdp("0.0.0.0", "sendrecv"), "a=", 6_000),
        (SENDRECV.to_owned(), "a=sendrecv", 0),
        (sdp("[media_ip]", "inactive"), "a=inactive", 6_000),
        (sdp("[media_ip]", "recvonly"), "a=sendonly", 6_000),
        (SENDRECV.to_owned(), "a=sendrecv", 0),
    ]
    .iter()
    .enumerate()
    {
        let cseq = cseq as u32 + 2;
        steps.extend([
            invite(cseq, "", description),
            recv_optional(100),
            recv_with(200, answered),
            ack(cseq),
            pause(*lasts),
        ]);
    }
    steps.extend([request("BYE", 20, ""), recv(200)]);
    run(node.sip, "echo", &steps).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_rtp_is_ended_and_both_the_log_and_the_bot_are_told_why() {
    let mut bot = Bot::start().await;
    let limits = "[media]\nports = \"0-0\"\nrtp_timeout = \"2s\"\n";
    let node = Node::start(&format!("{limits}{}", bot.config()));
    bot.knows(&node.api);
    let mut steps = established("");
    steps.extend([recv_request("BYE", 20), answer(200, "BYE")]);
    let told = async {
        let call = bot.take_call().await;
        bot.wait_for_state(&call, "terminated").await
    };
    let (_, told) = tokio::join!(run(node.sip, "bot", &steps), told);
    let info = &told.data()["resultInfo"];
    assert_eq!((&info["code"], &info["subcode"]), (&410.into(), &301_005.into()), "{info}");
    let message = info["message"].as_str().unwrap();
    let sentence = "No media came from the other participant: we expected it at 127.0.0.1:";
    assert!(message.starts_with(sentence), "{message}");
    assert!(message.contains(", they said they were at 127.0.0.1:"), "{message}");
    let log = node.log_text();
    let sentence = "No RTP came: our description shows 127.0.0.1, the peer is at 127.0.0.1";
    assert!(log.contains(sentence), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_by_info_ends_a_recording() {
    let (node, bot) = node_and_bot().await;
    let mut steps = established("");
    steps.extend([
        pause(5_000),
        info(2, '5'),
        recv(200),
        info(3, '#'),
        recv(200),
        recv_request("BYE", 20),
        answer(200, "BYE"),
    ]);
    let recording = async {
        let call = bot.take_call().await;
        let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 60,
            "initialSilenceTimeoutInSeconds": 60, "stopTones": ["#"]});
        let (status, operation) = bot.post(&format!("{call}/recordResponse"), &body).await;
        assert_eq!(status, 200, "{operation}");
        let ended = bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
        assert_eq!(bot.hang_up(&call).await, 204);
        ended
    };
    let (_, ended) = tokio::join!(run(node.sip, "bot", &steps), recording);
    assert_eq!(ended["completionReason"], "stopToneDetected", "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_wants_its_ringing_acknowledged_gets_it_reliably() {
    let (node, bot) = node_and_bot().await;
    let steps = [
        invite(1, "Require: 100rel\n", SENDRECV),
        recv_optional(100),
        recv_with(180, "RSeq: "),
        request("PRACK", 2, "RAck: [$rseq] 1 INVITE\n"),
        recv(200),
        recv(200),
        ack(1),
        request("BYE", 3, ""),
        recv(200),
    ];
    let answers = async {
        let incoming = bot.wait_for("a call", |n| n.data()["state"] == "incoming").await;
        // The PRACK may come first.
        tokio::time::sleep(Duration::from_millis(300)).await;
        bot.answer(incoming.data()["id"].as_str().unwrap()).await;
    };
    tokio::join!(run(node.sip, "bot", &steps), answers);
}

/// What takes a minute each, all at once.
#[tokio::test(flavor = "multi_thread")]
async fn peers_who_let_us_wait() {
    tokio::join!(
        a_caller_whose_ack_never_comes_is_hung_up_on(),
        who_promises_to_refresh_and_does_is_kept(),
        who_promises_to_refresh_and_does_not_is_hung_up_on(),
        re_invites_that_cross_are_both_refused_and_ours_comes_again(),
    );
}

async fn a_caller_whose_ack_never_comes_is_hung_up_on() {
    let node = silent_node();
    let steps = [
        invite(1, "", SENDRECV),
        recv_optional(100),
        recv_optional(180),
        recv(200),
        recv_request("BYE", 40),
        answer(200, "BYE"),
    ];
    run(node.sip, "echo", &steps).await;
    let told = async || node.log_text().contains("No ACK came: our Contact shows").then_some(());
    eventually("why it ended is in the log", Duration::from_secs(2), told).await;
    let silent = async || node.log_text().contains("rtp.sent=0").then_some(());
    eventually("nothing was sent before the ACK", Duration::from_secs(2), silent).await;
}

async fn who_promises_to_refresh_and_does_is_kept() {
    let node = silent_node();
    let mut steps = established("Supported: timer\nSession-Expires: 90;refresher=uac\n");
    let timer = "Supported: timer\nSession-Expires: 90;refresher=uac\n";
    steps.extend([
        pause(40_000),
        request("UPDATE", 2, timer),
        recv_with(200, "Session-Expires: 90;refresher=uac"),
        // Without the UPDATE the call would be over by now.
        pause(30_000),
        request("BYE", 3, ""),
        recv(200),
    ]);
    run(node.sip, "echo", &steps).await;
}

async fn who_promises_to_refresh_and_does_not_is_hung_up_on() {
    let node = silent_node();
    let mut steps = established("Supported: timer\nSession-Expires: 90;refresher=uac\n");
    steps.extend([recv_request("BYE", 75), answer(200, "BYE")]);
    run(node.sip, "echo", &steps).await;
}

/// We refresh after 45 s; the peer's re-INVITE crosses ours. Both get 491, and we try again.
async fn re_invites_that_cross_are_both_refused_and_ours_comes_again() {
    let node = silent_node();
    let mut steps = established("Supported: timer\nSession-Expires: 90;refresher=uas\n");
    steps.extend([
        keep(recv_request("INVITE", 60)),
        invite(2, "", SENDRECV),
        recv_optional(100),
        recv(491),
        ack(2),
        answer_kept(491),
        recv_request("ACK", 5),
        recv_request("INVITE", 10),
        answer_with(
            200,
            "INVITE",
            "Supported: timer\nSession-Expires: 90;refresher=uac\n",
            SENDRECV,
        ),
        recv_request("ACK", 5),
        request("BYE", 3, ""),
        recv(200),
    ]);
    run(node.sip, "echo", &steps).await;
}

/// CANCEL races with the answer: whoever wins, each request gets one final answer, and no call stays.
#[tokio::test(flavor = "multi_thread")]
async fn cancel_at_every_moment() {
    let (node, bot) = node_and_bot().await;
    let (mut answered, mut canceled) = (0, 0);
    for number in 0..60_u64 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(node.sip).await.unwrap();
        let (peer, local) = (node.sip, socket.local_addr().unwrap());
        let body = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                    m=audio 9 RTP/AVP 0\r\n";
        let message = |method: &str, cseq: u32, to: &str, branch: &str, body: &str| {
            let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
            format!(
                "{method} sip:echo@{peer} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{branch}\r\n\
                 From: <sip:a@{local}>;tag=a\r\nTo: <sip:echo@{peer}>{to}\r\nCall-ID: {number}\r\n\
                 CSeq: {cseq} {method}\r\nContact: <sip:a@{local}>\r\nMax-Forwards: 70\r\n{kind}\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        socket.send(message("INVITE", 1, "", "i", body).as_bytes()).await.unwrap();
        std::thread::sleep(Duration::from_micros(number * number * 2));
        socket.send(message("CANCEL", 1, "", "i", "").as_bytes()).await.unwrap();
        let mut finals = Vec::new();
        let mut tag = String::new();
        let mut buffer = vec![0; 4096];
        while finals.len() < 2 {
            let length = timeout(Duration::from_secs(5), socket.recv(&mut buffer));
            let length = length.await.expect("two answers").unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let status: u16 = text["SIP/2.0 ".len()..][..3].parse().unwrap();
            let method = if text.contains("CSeq: 1 INVITE") { "INVITE" } else { "CANCEL" };
            let seen = (method, status);
            if status >= 200 && !finals.contains(&seen) {
                if method == "INVITE" {
                    let to = text.lines().find(|line| line.starts_with("To: ")).unwrap();
                    tag = format!(";tag={}", to.split_once(";tag=").unwrap().1);
                }
                finals.push(seen);
            }
        }
        finals.sort_unstable();
        match finals[..] {
            [("CANCEL", 200), ("INVITE", 487)] => {
                socket.send(message("ACK", 1, &tag, "i", "").as_bytes()).await.unwrap();
                canceled += 1;
            }
            [("CANCEL", 200 | 481), ("INVITE", 200)] => {
                socket.send(message("ACK", 1, &tag, "a", "").as_bytes()).await.unwrap();
                socket.send(message("BYE", 2, &tag, "b", "").as_bytes()).await.unwrap();
                answered += 1;
            }
            _ => panic!("{finals:?}"),
        }
    }
    assert_eq!(answered + canceled, 60);
    assert!(answered > 0, "some CANCEL comes too late");
    let none = async || (calls(&bot).await == 0).then_some(());
    eventually("no call is left", Duration::from_secs(5), none).await;
    let log = node.log_text();
    assert_eq!(log.matches("Call established").count(), answered, "canceled calls are none");
}
