//! Encrypted audio with keys in the session description (SRTP, RFC 4568): baresip and linphone in
//! both directions, and what is refused.

mod support;

use std::{path::Path, time::Duration};

use aftertone_core::audio::wav;
use serde_json::json;
use support::{
    Node,
    baresip::{self, Baresip},
    bot::Bot,
    eventually,
    linphone::Linphone,
    spoken,
};

/// A node with the user alice, on UDP and TLS.
async fn node_and_bot(srtp: &str, codec: &str) -> (Node, Bot) {
    let folder = tempfile::tempdir().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut bot = Bot::start().await;
    let codec = codec.to_lowercase();
    let config = format!(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\", \"tls:127.0.0.1:0\"]\ndigest = [\"md5\"]\n\
         tls_certificate = {certificate:?}\ntls_key = {key:?}\n\
         [media]\nports = \"0-0\"\ncodecs = [\"{codec}\"]\nsrtp = \"{srtp}\"\n\
         [[users]]\nname = \"alice\"\npassword = \"secret\"\n{}",
        bot.config()
    );
    let node = Node::start_in(folder, &config);
    bot.knows(&node.api);
    (node, bot)
}

/// The least likeness of what was heard: Opus is not exact.
fn least(codec: &str) -> f64 {
    if codec == "opus" { 0.6 } else { 0.95 }
}

/// Records five seconds and compares them with the speech of the phone in `folder`. baresip hangs
/// up when it has played all of its 15 seconds.
async fn record(bot: &Bot, call: &str, folder: &Path, least: f64) {
    let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 5,
        "maxSilenceTimeoutInSeconds": 4});
    let likeness = spoken::likeness(folder, &bot.record(call, body).await);
    assert!(likeness >= least, "the clip is like what was said by {likeness}");
}

/// The session descriptions of a call, as the trace shows them.
async fn descriptions(bot: &Bot, call: &str) -> Vec<String> {
    let (status, trace) = bot.get(&format!("calls/{call}/trace")).await;
    assert_eq!(status, 200, "{trace}");
    let messages = trace["value"].as_array().unwrap().iter();
    let texts = messages.map(|message| message["message"].as_str().unwrap().to_owned());
    texts.filter(|text| text.contains("m=audio")).collect()
}

/// Each description of the call has this profile and keys, and the trace does not show the keys.
async fn is_encrypted(bot: &Bot, call: &str, profile: &str) {
    let descriptions = descriptions(bot, call).await;
    assert!(descriptions.len() >= 2, "{descriptions:?}");
    for text in descriptions {
        let (line, rest) = text.split_once("m=audio ").unwrap().1.split_once("\r\n").unwrap();
        assert_eq!(line.split(' ').nth(1), Some(profile), "{text}");
        assert!(rest.contains("a=crypto:"), "{text}");
        for key in rest.split("inline:").skip(1) {
            assert!(key.starts_with("?\r\n"), "{text}");
        }
    }
}

/// Hangs up; what the phone has heard is the prompt.
async fn end(bot: &Bot, call: &str, folder: &Path, least: f64) {
    assert_eq!(bot.hang_up(call).await, 204);
    bot.wait_for_state(call, "terminated").await;
    let heard = async || (baresip::heard(folder) >= least.min(0.9)).then_some(());
    eventually("the prompt is heard", Duration::from_secs(5), heard).await;
}

/// baresip calls, is put on hold and resumed, and is called. It offers and takes `profile`.
async fn baresip_calls_and_is_called(mediaenc: &str, profile: &str, transport: &str, codec: &str) {
    let srtp = if profile == "RTP/AVP" { "optional" } else { "required" };
    let (node, bot) = node_and_bot(srtp, codec).await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let address = node.listener(transport);
    let account = format!(
        "<sip:alice@{address};transport={transport}>;auth_user=alice;auth_pass=secret;regint=60;\
         answermode=auto;audio_codecs={codec};mediaenc={mediaenc}"
    );
    let phone = Baresip::start(folder, &account, codec, &[]);
    node.logs("Phone registered", 1).await;
    let least = least(codec);

    phone.command("dial", &format!("sip:bot@{address};transport={transport}")).await;
    let call = bot.take_call().await;
    bot.speak(&call).await;
    let before = descriptions(&bot, &call).await.len();
    phone.command("hold", "").await;
    phone.command("resume", "").await;
    let resumed = async || (descriptions(&bot, &call).await.len() >= before + 4).then_some(());
    eventually("the call is resumed", Duration::from_secs(5), resumed).await;
    record(&bot, &call, folder, least).await;
    is_encrypted(&bot, &call, profile).await;
    end(&bot, &call, folder, least).await;

    let (status, placed) = bot.place("sip:alice@127.0.0.1").await;
    assert_eq!(status, 201, "{placed}");
    let call = placed["id"].as_str().unwrap();
    if profile == "RTP/SAVPF" {
        // It takes nothing but RTP/SAVPF, and we offer RTP/SAVP.
        let over = bot.wait_for_state(call, "terminated").await;
        assert_eq!(over.data()["resultInfo"]["code"], 488, "{:?}", over.data());
        return;
    }
    bot.wait_for_state(call, "established").await;
    record(&bot, call, folder, least).await;
    bot.speak(call).await;
    is_encrypted(&bot, call, profile).await;
    end(&bot, call, folder, least).await;
    assert!(!node.log_text().contains("fail authentication"), "{}", node.log_text());
}

/// The same with each codec, at the same time.
async fn baresip_with_each_codec(mediaenc: &str, profile: &str, transport: &str) {
    tokio::join!(
        baresip_calls_and_is_called(mediaenc, profile, transport, "PCMU"),
        baresip_calls_and_is_called(mediaenc, profile, transport, "PCMA"),
        baresip_calls_and_is_called(mediaenc, profile, transport, "opus"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn baresip_that_may_encrypt() {
    baresip_with_each_codec("srtp", "RTP/AVP", "tls").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn baresip_that_must_encrypt() {
    baresip_with_each_codec("srtp-mand", "RTP/SAVP", "udp").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn baresip_that_must_encrypt_and_wants_feedback() {
    baresip_with_each_codec("srtp-mandf", "RTP/SAVPF", "udp").await;
}

/// linphone calls, puts the call on hold and resumes it, and is called.
async fn linphone_calls_and_is_called(transport: &str, codec: &str) {
    let (node, bot) = node_and_bot("required", codec).await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let registrar = node.listener(transport);
    let encryption = "media_encryption=srtp\nmedia_encryption_mandatory=1\n";
    let mut phone = Linphone::start_with(folder, "alice", registrar, transport, encryption).await;
    node.logs("Phone registered", 1).await;
    let least = least(codec);

    phone.say("call sip:bot@127.0.0.1").await;
    let call = bot.take_call().await;
    let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 60, "stopTones": ["#"],
        "maxSilenceTimeoutInSeconds": 30});
    let (status, operation) = bot.post(&format!("{call}/recordResponse"), &body).await;
    assert_eq!(status, 200, "{operation}; linphone: {}", phone.log());
    tokio::time::sleep(Duration::from_secs(6)).await;
    phone.say("pause").await;
    phone.says("is now paused", 1).await;
    phone.say("resume").await;
    phone.says("Media streams established", 2).await;
    phone.say("#").await;
    let ended = bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
    assert_eq!(ended["completionReason"], "stopToneDetected", "{ended}");
    let clip = bot.download(&ended).await;
    let clip = wav::read(&clip, wav::Limits { max_seconds: 60 }).unwrap().samples;
    let likeness = spoken::likeness(folder, &clip[..5 * 16_000]);
    assert!(likeness >= least, "{codec}: likeness {likeness}");
    is_encrypted(&bot, &call, "RTP/SAVP").await;
    phone.say("terminate").await;
    bot.wait_for_state(&call, "terminated").await;

    let (status, placed) = bot.place("sip:alice@127.0.0.1").await;
    assert_eq!(status, 201, "{placed}");
    let call = placed["id"].as_str().unwrap();
    bot.wait_for_state(call, "established").await;
    bot.speak(call).await;
    is_encrypted(&bot, call, "RTP/SAVP").await;
    assert_eq!(bot.hang_up(call).await, 204);
    bot.wait_for_state(call, "terminated").await;
    let heard = phone.quit().await;
    assert!(heard >= least, "{codec}: heard {heard}");
    assert!(!node.log_text().contains("fail authentication"), "{}", node.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn linphone_that_must_encrypt() {
    tokio::join!(
        linphone_calls_and_is_called("udp", "pcmu"),
        linphone_calls_and_is_called("tcp", "pcma"),
        linphone_calls_and_is_called("tcp", "opus"),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_encrypt_is_refused_in_words_where_it_is_required() {
    for (srtp, mediaenc, words) in [
        ("required", "", "audio without keys was proposed, and encrypted audio is required here"),
        ("off", "srtp-mand", "encrypted audio was demanded, and media.srtp is \"off\" here"),
    ] {
        let (node, bot) = node_and_bot(srtp, "pcmu").await;
        let folder = tempfile::tempdir().unwrap();
        let mediaenc =
            if mediaenc.is_empty() { String::new() } else { format!(";mediaenc={mediaenc}") };
        let account = format!(
            "<sip:alice@{}>;auth_user=alice;auth_pass=secret;regint=60;answermode=auto;\
             audio_codecs=PCMU{mediaenc}",
            node.sip
        );
        let phone = Baresip::start(folder.path(), &account, "PCMU", &[]);
        node.logs("Phone registered", 1).await;
        phone.command("dial", &format!("sip:bot@{}", node.sip)).await;
        node.logs(&format!("Call refused: {words}"), 1).await;
        let said = async || phone.log().contains("488").then_some(());
        eventually("the phone is told", Duration::from_secs(5), said).await;
        assert!(bot.notifications().is_empty(), "{:?}", bot.summary());
        if srtp == "required" {
            // The phone is called, and answers without keys.
            let (status, placed) = bot.place("sip:alice@127.0.0.1").await;
            assert_eq!(status, 201, "{placed}");
            bot.wait_for_state(placed["id"].as_str().unwrap(), "terminated").await;
        }
    }
}
