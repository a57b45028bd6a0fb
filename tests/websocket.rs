//! JsSIP, from npm, as a phone over WebSocket (RFC 7118): it registers, calls, and is called back
//! over its open connection. Its media are plain RTP; the media of browsers (SRTP) are not
//! supported.

mod support;

use std::{path::Path, process::Stdio, time::Duration};

use aftertone_core::audio::{Rate, measure::best_match};
use serde_json::json;
use support::{Node, bot::Bot, eventually, npm, program, sipp::raw_speech, speech};
use tokio::process::Command;

/// Records five seconds of the phone's speech, then hangs up.
async fn record(bot: &Bot, call: &str) {
    let body = json!({"playBeep": true, "maxRecordDurationInSeconds": 5,
        "maxSilenceTimeoutInSeconds": 4});
    let clip = bot.record(call, body).await;
    let spoken = speech();
    let spoken = [spoken.samples(Rate::Hz16000); 3].concat();
    let (_, likeness) = best_match(&clip[..4 * 16_000], &spoken, 6 * 16_000);
    assert!(likeness >= 0.95, "likeness {likeness}");
    assert_eq!(bot.hang_up(call).await, 204);
    bot.wait_for_state(call, "terminated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jssip_registers_calls_and_is_called_back() {
    let folder = tempfile::tempdir().unwrap();
    npm::install(Path::new("tests/websocket"), folder.path()).await;
    let speech = raw_speech(folder.path());
    let mut bot = Bot::start().await;
    let node = Node::start(&format!(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\", \"ws:127.0.0.1:0\"]\ndomain = \"pbx.example\"\n\
         digest = [\"md5\"]\n[[users]]\nname = \"alice\"\npassword = \"secret\"\n{}",
        bot.config()
    ));
    bot.knows(&node.api);
    let said = folder.path().join("said");
    let url = format!("ws://{}", node.listener("ws"));
    let mut phone = Command::new(program("node", "nodejs"))
        .args(["phone.js", &url, "sip:alice@pbx.example", "secret", "sip:bot@pbx.example", &speech])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&said).unwrap())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let words = || std::fs::read_to_string(&said).unwrap();

    let call = bot.take_call().await;
    record(&bot, &call).await;

    let over = async || words().contains("local-ended").then_some(());
    eventually("the phone knows it", Duration::from_secs(5), over).await;
    let (status, call) = bot.place("sip:alice@pbx.example").await;
    assert_eq!(status, 201, "{call}");
    let call = call["id"].as_str().unwrap();
    bot.wait_for_state(call, "established").await;
    record(&bot, call).await;

    let status = tokio::time::timeout(Duration::from_secs(10), phone.wait()).await;
    let words = words();
    assert!(status.expect(&words).unwrap().success(), "{words}");
    let words: Vec<&str> = words.lines().filter(|word| *word != "heard").collect();
    let told = [
        "registered",
        "options",
        "local-confirmed",
        "local-ended",
        "remote-confirmed",
        "remote-ended",
        "unregistered",
    ];
    assert_eq!(words, told);
    node.logs("Phone not registered any more", 1).await;
}
