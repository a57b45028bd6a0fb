//! Peers that lose messages, cancel, or interrupt: sipp plays them, one scenario each.

mod support;

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use support::{
    Node,
    bot::{Bot, Notified},
    eventually,
    raw::{Peer, SDP, header, status},
    sipp::{run, xml::*},
};

/// The number of calls that the node knows.
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

/// A trusted peer gets all retransmissions of RFC 3261.
const TRUSTING: &str =
    "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\ntrusted_peers = [\"127.0.0.1/32\"]\n";

/// A node that accepts that sipp sends no RTP.
fn silent_node() -> Node {
    Node::start("[media]\nports = \"0-0\"\nrtp_timeout = \"10m\"\n")
}

/// A call to a line, which answers by itself, up to its ACK.
fn established(extra: &str) -> Vec<String> {
    vec![invite(1, extra, SENDRECV), recv_optional(100), recv_optional(180), recv(200), ack(1)]
}

/// sipp sends no RTP; that may last for long only while the call is on hold.
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
    let sentence = "No RTP came: our description shows 127.0.0.1, the peer is at 127.0.0.1";
    node.logs(sentence, 1).await;
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
        // A stranger's first INVITE has an allowance for the final response only: the 180 is sent
        // after the repeated INVITE, and its PRACK may come first.
        tokio::time::sleep(Duration::from_secs(3)).await;
        bot.answer(incoming.data()["id"].as_str().unwrap()).await;
    };
    tokio::join!(run(node.sip, "bot", &steps), answers);
}

/// Cases that take a minute each, all at once.
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
    let node = Node::start(TRUSTING);
    let steps = [
        invite(1, "", SENDRECV),
        recv_optional(100),
        recv_optional(180),
        recv(200),
        recv_request("BYE", 40),
        answer(200, "BYE"),
    ];
    run(node.sip, "echo", &steps).await;
    node.logs("No ACK came: our Contact shows", 1).await;
    // No RTP was sent before the ACK.
    node.logs("rtp.sent=0", 1).await;
}

async fn who_promises_to_refresh_and_does_is_kept() {
    let node = silent_node();
    let mut steps = established("Supported: timer\nSession-Expires: 90;refresher=uac\n");
    let timer = "Supported: timer\nSession-Expires: 90;refresher=uac\n";
    steps.extend([
        pause(40_000),
        request("UPDATE", 2, timer),
        recv_with(200, "Session-Expires: 90;refresher=uac"),
        // Without the UPDATE the call would have ended by now.
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

/// The node refreshes the session after 45 s; the peer's re-INVITE crosses it. Both get 491, and
/// the node tries again.
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

/// When a caller cancels.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// This long after the INVITE.
    Asked(Duration),
    /// When the call rings.
    Rings,
    /// This long after the application's answer.
    IsAnswered(Duration),
    /// When the 200 has arrived.
    Answered,
    /// After the ACK.
    Acknowledged,
}

impl Moment {
    /// Whether CANCEL ends the call at that moment; `None` where CANCEL and the answer race.
    fn is_in_time(self) -> Option<bool> {
        match self {
            Self::Asked(_) | Self::IsAnswered(_) => None,
            Self::Rings => Some(true),
            Self::Answered | Self::Acknowledged => Some(false),
        }
    }
}

/// Calls `user` and cancels at a moment; returns whether the call was canceled. In any case each
/// request gets one final answer.
async fn call_and_cancel(node: &Node, bot: &Bot, user: &str, name: &str, moment: Moment) -> bool {
    let mut peer = Peer::new([127, 0, 0, 1].into(), node.sip, user, name).await;
    peer.say("INVITE", 1, "i", SDP).await;
    let mut finals = BTreeSet::new();
    if let Moment::Asked(time) = moment {
        // A timer of the runtime is not precise enough.
        std::thread::sleep(time);
    } else {
        peer.wait_for("INVITE", |status| status == 180).await;
    }
    if matches!(moment, Moment::IsAnswered(_) | Moment::Answered | Moment::Acknowledged) {
        let caller = format!("a@{}", peer.local());
        let is_ours = |n: &Notified| {
            n.data()["state"] == "incoming" && n.data()["source"].to_string().contains(&caller)
        };
        let incoming = bot.wait_for("the call", is_ours).await;
        let answer = format!("{}/answer", incoming.data()["id"].as_str().unwrap());
        let body = json!({
            "callbackUri": format!("http://{}/api/calls", bot.address),
            "acceptedModalities": ["audio"],
            "mediaConfig": {"@odata.type": "#microsoft.graph.serviceHostedMediaConfig"}
        });
        let answered = bot.post(&answer, &body);
        match moment {
            // The application's answer may come too late.
            Moment::IsAnswered(time) => {
                let cancel = async {
                    tokio::time::sleep(time).await;
                    peer.say("CANCEL", 1, "i", "").await;
                };
                let ((status, error), ()) = tokio::join!(answered, cancel);
                assert!(matches!(status, 202 | 400 | 404), "{status}: {error}");
            }
            _ => {
                assert_eq!(answered.await.0, 202);
                peer.wait_for("INVITE", |status| status == 200).await;
                finals.insert(("INVITE", 200));
            }
        }
    }
    if matches!(moment, Moment::Acknowledged) {
        peer.say("ACK", 1, "a", "").await;
    }
    if !matches!(moment, Moment::IsAnswered(_)) {
        peer.say("CANCEL", 1, "i", "").await;
    }
    while finals.len() < 2 {
        let text = peer.next(Duration::from_secs(10)).await.expect("two answers");
        let is_to_invite = header(&text, "CSeq") == Some("1 INVITE");
        match status(&text).expect("a response") {
            ..200 => {}
            status => {
                finals.insert((if is_to_invite { "INVITE" } else { "CANCEL" }, status));
            }
        }
    }
    let finals: Vec<_> = finals.into_iter().collect();
    match finals[..] {
        [("CANCEL", 200), ("INVITE", 487)] => {
            peer.say("ACK", 1, "i", "").await;
            true
        }
        [("CANCEL", 200 | 481), ("INVITE", 200)] => {
            peer.say("ACK", 1, "a", "").await;
            peer.say("BYE", 2, "b", "").await;
            peer.wait_for("BYE", |status| status == 200).await;
            false
        }
        _ => panic!("{moment:?}: {finals:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_at_every_moment() {
    let mut bot = Bot::start().await;
    let node = Node::start(&format!("{TRUSTING}{}", bot.config()));
    bot.knows(&node.api);
    // A line answers at once, a bot when it decides to.
    let mut moments: Vec<(&str, Moment)> = (0..50_u64)
        .map(|number| ("echo", Moment::Asked(Duration::from_micros(number * number * 3))))
        .collect();
    moments.extend((0..8).map(|ms| ("bot", Moment::Asked(Duration::from_millis(ms)))));
    moments.extend((0..8).map(|ms| ("bot", Moment::IsAnswered(Duration::from_millis(ms)))));
    for moment in [Moment::Rings, Moment::Answered, Moment::Acknowledged] {
        moments.extend([("bot", moment); 3]);
    }
    let (mut answered, mut canceled) = (0, 0);
    for (number, (user, moment)) in moments.into_iter().enumerate() {
        let is_canceled = call_and_cancel(&node, &bot, user, &number.to_string(), moment).await;
        if let Some(is_in_time) = moment.is_in_time() {
            assert_eq!(is_canceled, is_in_time, "{moment:?}");
        }
        if is_canceled {
            canceled += 1;
        } else {
            answered += 1;
        }
    }
    println!("{canceled} calls were canceled, {answered} answered");
    assert!(canceled > 0 && answered > 0);
    let none = async || (calls(&bot).await == 0).then_some(());
    eventually("no call is left", Duration::from_secs(5), none).await;
    node.logs("Call established", answered).await;
}
