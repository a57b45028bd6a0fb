//! A phone registers with its password, over every transport that it knows, and is called back.

mod support;

use std::time::Duration;

use aftertone::audio::wav;
use serde_json::json;
use support::{
    Node,
    baresip::{self, Baresip},
    bot::Bot,
    eventually,
};

/// A node with the user alice, on UDP, TCP and TLS.
async fn node_and_bot() -> (Node, Bot) {
    let folder = tempfile::tempdir().unwrap();
    let names = vec!["127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut bot = Bot::start().await;
    let config = format!(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\", \"tls:127.0.0.1:0\"]\n\
         digest = [\"md5\"]\n\
         tls_certificate = {certificate:?}\ntls_key = {key:?}\n\
         [[users]]\nname = \"alice\"\npassword = \"secret\"\n{}",
        bot.config()
    );
    let node = Node::start_in(folder, &config);
    bot.knows(&node.api);
    (node, bot)
}

fn account(node: &Node, transport: &str, password: &str) -> String {
    let address = node.listener(transport);
    format!(
        "<sip:alice@{address};transport={transport}>;auth_user=alice;auth_pass={password};regint=60;\
         answermode=auto;audio_codecs=PCMU"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_registers_and_is_called_back() {
    for transport in ["udp", "tcp", "tls"] {
        let (node, bot) = node_and_bot().await;
        let folder = tempfile::tempdir().unwrap();
        let account = account(&node, transport, "secret");
        let mut phone = Baresip::start(folder.path(), &account, "PCMU", &[]);
        let registered = async || node.log_text().contains("Phone registered").then_some(());
        eventually(&format!("registered over {transport}"), Duration::from_secs(10), registered)
            .await;

        let (status, call) = bot.place("sip:alice@127.0.0.1").await;
        assert_eq!(status, 201, "{transport}: {call}");
        let id = call["id"].as_str().unwrap();
        bot.wait_for_state(id, "established").await;
        let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 6,
            "maxSilenceTimeoutInSeconds": 5});
        let (status, operation) = bot.post(&format!("{id}/recordResponse"), &body).await;
        assert_eq!(status, 200, "{operation}");
        let ended = bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
        assert_eq!(ended["status"], "completed", "{transport}: {ended}");
        let clip = bot.download(&ended).await;
        let clip = wav::read(&clip, wav::Limits { max_seconds: 60 }).unwrap().samples;
        let likeness = baresip::likeness(folder.path(), &clip);
        assert!(likeness >= 0.95, "{transport}: likeness {likeness}");
        assert_eq!(bot.hang_up(id).await, 204);
        bot.wait_for_state(id, "terminated").await;
        phone.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_with_the_wrong_password_is_nowhere() {
    let (node, bot) = node_and_bot().await;
    let folder = tempfile::tempdir().unwrap();
    let account = account(&node, "udp", "guess");
    let _phone = Baresip::start(folder.path(), &account, "PCMU", &[]);
    let refused = async || node.log_text().contains("Wrong password").then_some(());
    eventually("the refusal", Duration::from_secs(10), refused).await;
    let (status, error) = bot.place("sip:alice@127.0.0.1").await;
    assert_eq!(status, 403, "{error}");
    assert!(!node.log_text().contains("Phone registered"));
}
