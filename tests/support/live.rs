//! A call that is recorded while something else goes on, and must not be heard to have suffered.

use std::net::IpAddr;

use aftertone::audio::wav;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Node,
    baresip::{self, Baresip},
    bot::Bot,
};

/// baresip speaks, and the bot records it.
pub struct LiveCall {
    pub id: String,
    operation: Value,
    seconds: usize,
    folder: TempDir,
    /// Hangs up when it is dropped.
    _phone: Baresip,
}

impl LiveCall {
    /// A call from `host` that is recorded for so many seconds.
    pub async fn start(node: &Node, bot: &Bot, host: IpAddr, seconds: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dial = format!("/dial sip:bot@{}", node.sip);
        let account = format!("<sip:caller@{host}>;regint=0;audio_codecs=PCMU");
        let at = host.to_string();
        let phone = Baresip::start_at(&at, &[], folder.path(), &account, "PCMU", &[&dial]);
        let caller = format!("caller@{host}");
        let incoming = bot
            .wait_for("the call", |n| {
                n.data()["state"] == "incoming" && n.data()["source"].to_string().contains(&caller)
            })
            .await;
        let id = incoming.data()["id"].as_str().unwrap().to_owned();
        bot.answer(&id).await;
        let body = json!({"playBeep": false, "maxRecordDurationInSeconds": seconds,
            "maxSilenceTimeoutInSeconds": 6});
        let (status, operation) = bot.post(&format!("{id}/recordResponse"), &body).await;
        assert_eq!(status, 200, "{operation}");
        Self { id, operation, seconds, folder, _phone: phone }
    }

    /// Waits for the clip: it has its length, and what was said is in it.
    pub async fn finish(self, bot: &Bot) {
        let ended = bot.wait_for_operation(self.operation["id"].as_str().unwrap()).await;
        assert_eq!(ended["completionReason"], "maxRecordDurationReached", "{ended}");
        let clip = bot.download(&ended).await;
        let clip = wav::read(&clip, wav::Limits { max_seconds: 600 }).unwrap().samples;
        assert_eq!(clip.len(), self.seconds * 16_000);
        let likeness = baresip::likeness(self.folder.path(), &clip);
        assert!(likeness >= 0.95, "the clip is like what was said by {likeness}");
    }
}
