//! sipvicious looks for us, for our users and for a password, while a call is recorded.

mod support;

use std::{path::Path, time::Duration};

use support::{Node, bot::Bot, live::LiveCall, program};
use tokio::{process::Command, time::timeout};

/// Where the call comes from; the scanners come from 127.0.0.1, as a stranger.
const CALLER: &str = "127.0.0.9";

async fn node_and_bot() -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let node = Node::start(&format!(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\ntrusted_peers = [\"{CALLER}/32\"]\n\
         digest = [\"md5\"]\n[[users]]\nname = \"1001\"\npassword = \"rover77\"\n{}",
        bot.config()
    ));
    bot.knows(&node.api);
    (node, bot)
}

/// Runs a program of sipvicious, which never ends where nobody answers; gives what it has said.
async fn scan(name: &str, folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program(name, "sipvicious"));
    // It saves what it does below the home folder, and is told a free port of its own.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = probe.local_addr().unwrap().port().to_string();
    drop(probe);
    command.args(arguments).args(["-P", &port]).env("HOME", folder).current_dir(folder);
    let output = timeout(Duration::from_secs(30), command.kill_on_drop(true).output()).await;
    let output = output.unwrap_or_else(|_| panic!("{name} ends")).unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scanner_finds_a_server_and_nothing_more() {
    let (node, bot) = node_and_bot().await;
    let call = LiveCall::start(&node, &bot, CALLER.parse().unwrap(), 12).await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (target, port) = (format!("udp://{}", node.sip), node.sip.port().to_string());
    let found = scan("svmap", folder, &["-p", &port, "127.0.0.1"]).await;
    assert!(found.contains("aftertone"), "svmap works: {found}");
    for method in ["REGISTER", "INVITE"] {
        let arguments = ["--force", "-m", method, "--maximumtime", "3", "-e", "990-1010", &target];
        let found = scan("svwar", folder, &arguments).await;
        assert!(found.contains("found nothing"), "{method}: {found}");
    }
    let mut words: Vec<String> = (0..300).map(|number| format!("password{number}")).collect();
    words.push("rover77".to_owned());
    std::fs::write(folder.join("words"), words.join("\n")).unwrap();
    let arguments = ["-u", "1001", "-d", "words", "--maximumtime", "3", &target];
    let found = scan("svcrack", folder, &arguments).await;
    assert!(!found.contains("rover77"), "{found}");
    assert!(node.log_text().contains("Wrong password"), "svcrack tries");
    assert!(!node.log_text().contains("Phone registered"));

    call.finish(&bot).await;
}
