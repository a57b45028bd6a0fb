//! A phone registers with its password, over every transport that it supports, and is called back.

mod support;

use std::path::Path;

use serde_json::json;
use support::{Node, baresip::Baresip, bot::Bot, spoken};

/// A node with the users alice and bob, on UDP, TCP and TLS.
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
         [[users]]\nname = \"alice\"\npassword = \"secret\"\n\
         [[users]]\nname = \"bob\"\npassword = \"secret\"\n{}",
        bot.config()
    );
    let node = Node::start_in(folder, &config);
    bot.knows(&node.api);
    (node, bot)
}

fn account(node: &Node, user: &str, transport: &str, password: &str) -> String {
    let address = node.listener(transport);
    format!(
        "<sip:{user}@{address};transport={transport}>;auth_user={user};auth_pass={password};regint=60;\
         answermode=auto;audio_codecs=PCMU"
    )
}

/// Records six seconds of a call and compares them with the speech of the phone in `folder`.
async fn record(bot: &Bot, id: &str, folder: &Path) {
    let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 6, "maxSilenceTimeoutInSeconds": 5});
    let clip = bot.record(id, body).await;
    let likeness = spoken::likeness(folder, &clip);
    assert!(likeness >= 0.95, "likeness {likeness}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_registers_and_is_called_back() {
    for transport in ["udp", "tcp", "tls"] {
        let (node, bot) = node_and_bot().await;
        let folder = tempfile::tempdir().unwrap();
        let account = account(&node, "alice", transport, "secret");
        let mut phone = Baresip::start(folder.path(), &account, "PCMU", &[]);
        node.logs("Phone registered", 1).await;

        let (status, call) = bot.place("sip:alice@127.0.0.1").await;
        assert_eq!(status, 201, "{transport}: {call}");
        let id = call["id"].as_str().unwrap();
        bot.wait_for_state(id, "established").await;
        record(&bot, id, folder.path()).await;
        assert_eq!(bot.hang_up(id).await, 204);
        bot.wait_for_state(id, "terminated").await;
        phone.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_with_the_wrong_password_is_nowhere() {
    let (node, bot) = node_and_bot().await;
    let folder = tempfile::tempdir().unwrap();
    let account = account(&node, "alice", "udp", "guess");
    let _phone = Baresip::start(folder.path(), &account, "PCMU", &[]);
    node.logs("Wrong password", 1).await;
    let (status, call) = bot.place("sip:alice@127.0.0.1").await;
    assert_eq!(status, 201, "{call}");
    let id = call["id"].as_str().unwrap();
    let over = bot.wait_for_state(id, "terminated").await;
    assert_eq!(over.data()["resultInfo"]["code"], 480);
    assert_eq!(over.data()["resultInfo"]["subcode"], 10_037);
    assert!(!node.log_text().contains("Phone registered"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_hands_its_call_over_to_another_one() {
    let (node, bot) = node_and_bot().await;
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [alice, _bob] = [("alice", &folders[0]), ("bob", &folders[1])].map(|(user, folder)| {
        Baresip::start(folder.path(), &account(&node, user, "udp", "secret"), "PCMU", &[])
    });
    node.logs("Phone registered", 2).await;
    let place = async || {
        let (status, call) = bot.place("sip:alice@127.0.0.1").await;
        assert_eq!(status, 201, "{call}");
        let id = call["id"].as_str().unwrap().to_owned();
        bot.wait_for_state(&id, "established").await;
        id
    };
    for nobody in ["sip:carol@127.0.0.1", "sip:+881900@127.0.0.1"] {
        let id = place().await;
        alice.command("transfer", nobody).await;
        let refusal = format!("A REFER of a peer is refused to={nobody} status=404");
        node.logs(&refusal, 1).await;
        // The phone hangs up when it is told of the failure.
        bot.wait_for_state(&id, "terminated").await;
    }

    let id = &place().await;
    alice.command("transfer", "sip:bob@127.0.0.1").await;
    node.logs("The call goes on with the target of the REFER", 1).await;
    record(&bot, id, folders[1].path()).await;

    let (status, trace) = bot.get(&format!("calls/{id}/trace")).await;
    assert_eq!(status, 200, "{trace}");
    let messages = trace["value"].as_array().unwrap().iter();
    let sent: Vec<&str> = messages
        .filter(|message| message["direction"] == "out")
        .map(|message| message["message"].as_str().unwrap())
        .collect();
    let count = |method: &str| sent.iter().filter(|text| text.starts_with(method)).count();
    let told = |text: &&str| text.starts_with("NOTIFY") && text.ends_with("SIP/2.0 200 OK\r\n");
    assert!(sent.iter().any(told), "{trace}");
    assert_eq!((count("INVITE"), count("BYE")), (2, 1), "both dialogs are in the trace: {trace}");
    assert_eq!(bot.hang_up(id).await, 204);
    let over = bot.wait_for_state(id, "terminated").await;
    assert_eq!(over.data()["resultInfo"]["subcode"], 7000, "{:?}", over.data());
}
