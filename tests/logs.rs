//! Text from strangers is in the log, but cannot forge a line of it.

mod support;

use std::time::Duration;

use support::{Node, eventually};
use tokio::net::UdpSocket;

const FORGED: &str = "2026-01-01T00:00:00.000000Z  INFO call: aftertone: Call established";

/// Percent-encoded: a line end, the forged line, ESC with a sequence, NUL, and U+202E.
fn hostile_user() -> String {
    let line: String = FORGED.bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!("x%0a{line}%0d%1b%5b31m%00%e2%80%aey%e2%80%a8z")
}

async fn log_after_a_hostile_invite(format: &str) -> String {
    let node = Node::start(&format!(
        "[telemetry]\nlog = \"trace\"\nformat = \"{format}\"\n\
         [[routes]]\nto = \"*\"\nline = \"echo\"\npublic = true\n"
    ));
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (local, user) = (socket.local_addr().unwrap(), hostile_user());
    let invite = format!(
        "INVITE sip:{user}@{} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bKa\r\n\
         From: \"\u{202e}\u{1b}[31m\u{2028}\" <sip:{user}@{local}>;tag=a\r\n\
         To: <sip:{user}@{}>\r\nCall-ID: \u{1b}[2J\u{202e}logs\r\nCSeq: 1 INVITE\r\n\
         Subject: \u{202e}\u{1b}[31m\u{2028}\r\nContact: <sip:{user}@{local}>\r\n\
         Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
        node.sip, node.sip
    );
    for invite in [invite.clone(), invite.replace("\u{1b}[2J\u{202e}logs", "logs")] {
        socket.send_to(invite.as_bytes(), node.sip).await.unwrap();
    }
    eventually("the call is offered", Duration::from_secs(10), async || {
        node.log_text().contains("Call offered").then_some(())
    })
    .await;
    node.log_text()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_uri_with_a_line_end_forges_no_line_of_the_text_log() {
    let log = log_after_a_hostile_invite("text").await;
    assert!(log.contains("Call established"), "the user is logged:\n{log}");
    let forged = log.lines().find(|line| line.contains(FORGED) && line.starts_with(&FORGED[..20]));
    assert_eq!(forged, None, "{log}");
    let harmful = |c: char| c != '\n' && (c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c));
    let line = log.lines().find(|line| line.contains(harmful));
    assert_eq!(line, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_uri_with_a_line_end_forges_no_line_of_the_json_log() {
    let log = log_after_a_hostile_invite("json").await;
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(!line.contains(['\u{2028}', '\u{202e}', '\u{1b}', '\0']), "{line}");
    }
}
