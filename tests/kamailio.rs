//! Kamailio beside the daemon: as a trunk that asks for a password, as a proxy that calls several
//! phones at once, and as the PBX in front.

mod support;

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use aftertone_core::audio::{Rate, measure::best_match};
use serde_json::json;
use support::{
    Node,
    bot::Bot,
    program,
    sipp::{Called, call_over, raw_speech},
    speech,
};

struct Kamailio {
    address: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Kamailio {
    /// Starts a proxy that admits callers with `password` and calls `first` and `second`.
    async fn start(password: &str, first: &str, second: &str) -> Self {
        let kamailio = program("kamailio", "kamailio");
        let folder = tempfile::tempdir().unwrap();
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        let config = std::fs::read_to_string("tests/kamailio/proxy.cfg")
            .unwrap()
            .replace("@PORT@", &address.port().to_string())
            .replace("@PASSWORD@", password)
            .replace("@FIRST@", first)
            .replace("@SECOND@", second);
        let file = folder.path().join("kamailio.cfg");
        std::fs::write(&file, config).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(kamailio);
        for (name, value) in [("WITH_PASSWORD", password), ("WITH_SECOND", second)] {
            if !value.is_empty() {
                command.args(["-A", name]);
            }
        }
        let child = command
            .args(["-DD", "-E", "-m", "32", "-M", "4", "-f", file.to_str().unwrap()])
            .args(["-Y", folder.path().to_str().unwrap()])
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("kamailio runs");
        let running = Self { address, child, _folder: folder };
        support::eventually("kamailio listens", Duration::from_secs(10), async || {
            tokio::net::TcpStream::connect(address).await.ok()
        })
        .await;
        running
    }
}

impl Drop for Kamailio {
    /// A proxy that is killed at once would leave its child processes behind.
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let _ = self.child.wait();
    }
}

async fn node_and_bot(trunk: &str) -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let sip = "[sip]\nlisten = [\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\"]\n";
    let node = Node::start(&format!("{sip}{}{trunk}", bot.config()));
    bot.knows(&node.api);
    (node, bot)
}

/// Records on an established call and checks that it is the bundled speech.
async fn records_speech(bot: &Bot, call: &str) {
    let body = json!({"playBeep": true, "maxRecordDurationInSeconds": 7});
    let clip = bot.record(call, body).await;
    let (_, likeness) = best_match(speech().samples(Rate::Hz16000), &clip, 16_000);
    assert!(likeness >= 0.95, "likeness {likeness}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_asks_for_our_password_and_carries_the_call() {
    for transport in ["udp", "tcp"] {
        let folder = tempfile::tempdir().unwrap();
        let raw = raw_speech(folder.path());
        let called = Called::start("called", "u1", &[("WAIT_MS", "800"), ("SPEECH", &raw)]);
        let trunk = Kamailio::start("secret", &called.address.to_string(), "").await;
        let (_node, bot) = node_and_bot(&format!(
            "[[trunks]]\nname = \"kamailio\"\nhost = \"{}\"\ntransport = \"{transport}\"\n\
             username = \"4711\"\npassword = \"secret\"\nrealm = \"kamailio.test\"\nallow = [\"2*\"]\n",
            trunk.address
        ))
        .await;
        let (_, call) = bot.place("200").await;
        let id = call["id"].as_str().unwrap();
        bot.wait_for_state(id, "established").await;
        records_speech(&bot, id).await;
        assert_eq!(bot.hang_up(id).await, 204);
        called.finish().await;
        bot.wait_for_state(id, "terminated").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_that_hears_the_wrong_password_refuses() {
    let trunk = Kamailio::start("secret", "127.0.0.1:9", "").await;
    let (_node, bot) = node_and_bot(&format!(
        "[[trunks]]\nname = \"kamailio\"\nhost = \"{}\"\ntransport = \"udp\"\nusername = \"4711\"\n\
         password = \"guess\"\nrealm = \"kamailio.test\"\nallow = [\"2*\"]\n",
        trunk.address
    ))
    .await;
    let (_, call) = bot.place("200").await;
    let over = bot.wait_for_state(call["id"].as_str().unwrap(), "terminated").await;
    assert_eq!(over.data()["resultInfo"]["code"], 407);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_phones_that_ring_one_answers_and_the_other_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let raw = raw_speech(folder.path());
    let answers = Called::start("called", "u1", &[("WAIT_MS", "800"), ("SPEECH", &raw)]);
    let rings = Called::start("called_canceled", "u1", &[]);
    let (first, second) = (answers.address.to_string(), rings.address.to_string());
    let proxy = Kamailio::start("", &first, &second).await;
    let (_node, bot) = node_and_bot(&format!(
        "[[trunks]]\nname = \"pbx\"\nhost = \"pbx.test\"\noutbound_proxy = \"{}\"\n\
         transport = \"udp\"\nallow = [\"2*\"]\n",
        proxy.address
    ))
    .await;
    let (_, call) = bot.place("200").await;
    let id = call["id"].as_str().unwrap();
    bot.wait_for_state(id, "established").await;
    rings.finish().await;
    records_speech(&bot, id).await;
    assert_eq!(bot.hang_up(id).await, 204);
    answers.finish().await;
    bot.wait_for_state(id, "terminated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_come_in_through_a_pbx_that_stays_in_the_dialog() {
    for transport in ["udp", "tcp"] {
        let folder = tempfile::tempdir().unwrap();
        let raw = raw_speech(folder.path());
        let (node, bot) = node_and_bot("").await;
        let daemon = format!("{};transport={transport}", node.listener(transport));
        let pbx = Kamailio::start("", &daemon, "").await;
        let fill = [("WAIT_MS", "800"), ("TALK_MS", "8000"), ("SPEECH", raw.as_str())];
        let recording = async {
            let call = bot.take_call().await;
            records_speech(&bot, &call).await;
        };
        tokio::join!(call_over(pbx.address, "record", "bot", &fill), recording);
    }
}
