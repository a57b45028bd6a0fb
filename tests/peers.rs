//! Real peers: sipp and baresip call a daemon in its own process.

mod support;

use std::{path::Path, time::Duration};

use aftertone_core::audio::{
    Rate,
    beep::BEEP_HZ,
    measure::{best_match, tone_level_dbfs},
    wav,
};
use serde_json::json;
use support::{
    Node,
    baresip::Baresip,
    bot::Bot,
    eventually,
    sipp::{call_over, raw_speech},
    speech, spoken,
};

async fn node_and_bot() -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let node = Node::start(&bot.config());
    bot.knows(&node.api);
    (node, bot)
}

fn decode(clip: &[u8]) -> Vec<i16> {
    wav::read(clip, wav::Limits { max_seconds: 600 }).expect("a WAV file").samples
}

#[tokio::test(flavor = "multi_thread")]
async fn sipp_speaks_after_the_beep_and_hangs_up() {
    let (node, bot) = node_and_bot().await;
    let folder = tempfile::tempdir().unwrap();
    let raw = raw_speech(folder.path());
    let fill = [("WAIT_MS", "800"), ("TALK_MS", "5600"), ("SPEECH", raw.as_str())];
    let recording = async {
        let call = bot.take_call().await;
        let body = json!({"playBeep": true, "maxRecordDurationInSeconds": 60});
        let (status, operation) = bot.post(&format!("{call}/recordResponse"), &body).await;
        assert_eq!(status, 200, "{operation}");
        bot.wait_for_operation(operation["id"].as_str().unwrap()).await
    };
    let (_, ended) = tokio::join!(call_over(node.sip, "record", "bot", &fill), recording);
    assert_eq!(ended["status"], "completed");
    assert_eq!(ended["resultInfo"]["subcode"], 8588);
    let clip = decode(&bot.download(&ended).await);
    let speech = speech();
    let (lag, likeness) = best_match(speech.samples(Rate::Hz16000), &clip, 16_000);
    assert!(likeness >= 0.95, "likeness {likeness}");
    let lead = &clip[..usize::try_from(lag).unwrap_or(0).max(1600)];
    assert!(tone_level_dbfs(lead, 16_000, f64::from(BEEP_HZ)) < -50.0, "the beep is in the clip");
}

#[tokio::test(flavor = "multi_thread")]
async fn sipp_leaves_a_message() {
    let node = Node::start("");
    let folder = tempfile::tempdir().unwrap();
    let raw = raw_speech(folder.path());
    let fill = [("WAIT_MS", "4600"), ("TALK_MS", "5600"), ("SPEECH", raw.as_str())];
    call_over(node.sip, "record", "voicemail", &fill).await;
    let clip = eventually("the clip", Duration::from_secs(10), async || {
        node.clips().into_iter().find(|path| path.extension().is_some_and(|e| e == "wav"))
    })
    .await;
    let clip = decode(&std::fs::read(clip).unwrap());
    let speech = speech();
    let (_, likeness) = best_match(speech.samples(Rate::Hz16000), &clip, 16_000);
    assert!(likeness >= 0.95, "likeness {likeness}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sipp_is_told_why_not() {
    let node = Node::start("");
    let probe = node.sip;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let local = socket.local_addr().unwrap();
    let options = format!(
        "OPTIONS sip:{probe} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKo;rport\r\n\
         From: <sip:a@{local}>;tag=1\r\nTo: <sip:{probe}>\r\nCall-ID: o\r\nCSeq: 1 OPTIONS\r\n\
         Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
    socket.send_to(options.as_bytes(), probe).await.unwrap();
    let mut buffer = [0; 4096];
    let length = tokio::time::timeout(Duration::from_secs(2), socket.recv(&mut buffer));
    let length = length.await.expect("an answer").unwrap();
    let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
    assert!(answer.starts_with("SIP/2.0 200"), "{answer}");
    assert!(answer.contains("Allow: "), "{answer}");
    call_over(node.sip, "no_codec", "voicemail", &[]).await;
    // The bot does not answer, so there is time to cancel.
    let (node, _bot) = node_and_bot().await;
    call_over(node.sip, "cancel", "bot", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn baresip_speaks_and_ends_with_a_key() {
    for (codec, least) in [("PCMU", 0.95), ("opus/48000/2", 0.6)] {
        let (node, bot) = node_and_bot().await;
        let folder = tempfile::tempdir().unwrap();
        let clip = baresip_records(&node, &bot, folder.path(), codec).await;
        let likeness = spoken::likeness(folder.path(), &clip);
        assert!(likeness >= least, "{codec}: likeness {likeness}");
    }
}

/// baresip calls the bot, which records with a beep until `#`; returns the clip.
async fn baresip_records(node: &Node, bot: &Bot, folder: &Path, codec: &str) -> Vec<i16> {
    let account = format!("<sip:baresip@127.0.0.1>;regint=0;audio_codecs={codec}");
    let dial = format!("/dial sip:bot@{}", node.sip);
    let mut phone = Baresip::start(folder, &account, codec, &[&dial]);
    let call = bot.take_call().await;
    let body = json!({"playBeep": true, "maxRecordDurationInSeconds": 60, "stopTones": ["#"]});
    let (status, operation) = bot.post(&format!("{call}/recordResponse"), &body).await;
    assert_eq!(status, 200, "{operation}; baresip: {}", phone.log());
    tokio::time::sleep(Duration::from_secs(6)).await;
    phone.press("#").await;
    let ended = bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
    assert_eq!(ended["completionReason"], "stopToneDetected", "{ended}");
    let clip = decode(&bot.download(&ended).await);
    assert_eq!(bot.hang_up(&call).await, 204);
    phone.stop().await;
    clip
}
