//! linphone, a widespread softphone: registered, calling and called.

mod support;

use std::time::Duration;

use aftertone_core::audio::wav;
use serde_json::json;
use support::{Node, bot::Bot, linphone::Linphone, spoken};

#[tokio::test(flavor = "multi_thread")]
async fn linphone_registers_calls_and_is_called_back() {
    // Opus is not exact: the sound is compared, not the samples.
    for (transport, codec, least) in [("udp", "pcmu", 0.95), ("tcp", "opus", 0.6)] {
        let mut bot = Bot::start().await;
        let node = Node::start(&format!(
            "[sip]\nlisten = [\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\"]\n\
             [media]\nports = \"0-0\"\ncodecs = [\"{codec}\"]\n\
             [[users]]\nname = \"alice\"\npassword = \"secret\"\n{}",
            bot.config()
        ));
        bot.knows(&node.api);
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let mut phone = Linphone::start(folder, "alice", node.listener(transport), transport).await;
        node.logs("Phone registered", 1).await;

        // The phone calls, speaks, puts the call on hold and resumes it, and ends the recording
        // with a key.
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
        assert!(likeness >= least, "{transport}, {codec}: likeness {likeness}");
        phone.say("terminate").await;
        bot.wait_for_state(&call, "terminated").await;
        node.logs("Call established", 1).await;

        // The phone is called, and hears the prompt.
        let (status, placed) = bot.place("sip:alice@127.0.0.1").await;
        assert_eq!(status, 201, "{placed}");
        let call = placed["id"].as_str().unwrap();
        bot.wait_for_state(call, "established").await;
        bot.speak(call).await;
        assert_eq!(bot.hang_up(call).await, 204);
        bot.wait_for_state(call, "terminated").await;
        phone.say("unregister").await;
        node.logs("Phone not registered any more", 1).await;
        let heard = phone.quit().await;
        assert!(heard >= least, "{transport}, {codec}: heard {heard}");
    }
}
