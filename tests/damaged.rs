//! A damaged SQLite file is found at start or noticed while running, and set aside; then calls are
//! taken again.

mod support;

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use support::{
    Node, eventually,
    raw::{Peer, SDP, status},
};

const SOON: Duration = Duration::from_secs(20);
const PAGE: usize = 4096;

async fn readiness(node: &Node) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(format!("{}/readyz", node.api)).send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    (status, body["reason"].as_str().unwrap_or_default().to_owned())
}

/// Zeroes pages of the database, counted from 0.
fn zero(folder: &Path, pages: std::ops::Range<usize>) {
    let file = fs::File::options().write(true).open(folder.join("aftertone.db")).unwrap();
    file.write_all_at(&vec![0; pages.len() * PAGE], (pages.start * PAGE) as u64).unwrap();
}

fn pages(folder: &Path) -> usize {
    fs::metadata(folder.join("aftertone.db")).unwrap().len() as usize / PAGE
}

fn set_aside(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path());
    let is_aside = |path: &PathBuf| path.to_string_lossy().contains("aftertone.db.damaged-");
    entries.filter(is_aside).collect()
}

/// Calls the echo line; returns the final status.
async fn call(node: &Node, call_id: &str) -> u16 {
    let mut caller = Peer::new(Ipv4Addr::LOCALHOST.into(), node.sip, "echo", call_id).await;
    caller.say("INVITE", 1, "i", SDP).await;
    let answer = caller.wait_for("INVITE", |status| status >= 200).await;
    caller.say("ACK", 1, "a", "").await;
    caller.say("BYE", 2, "b", "").await;
    status(&answer).unwrap()
}

/// The folder of a daemon that was stopped in order.
async fn past() -> tempfile::TempDir {
    let mut node = Node::start("");
    assert_eq!(call(&node, "past").await, 200);
    node.signal("TERM");
    assert!(node.wait(SOON).success());
    node.kill()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_set_aside_at_start_and_calls_are_taken() {
    for first_page in [true, false] {
        let folder = past().await;
        let pages = pages(folder.path());
        // The first page alone, or one in the middle of the file.
        zero(folder.path(), if first_page { 0..1 } else { pages / 2..pages / 2 + 1 });
        let damaged = fs::read(folder.path().join("aftertone.db")).unwrap();

        let node = Node::start_in(folder, "");
        node.logs("is damaged", 1).await;
        let aside = set_aside(node.folder());
        assert!(!aside.is_empty(), "nothing is set aside");
        assert!(aside.iter().any(|path| fs::read(path).unwrap() == damaged), "it is as it was");
        assert_eq!(readiness(&node).await, (200, String::new()));
        assert_eq!(call(&node, "fresh").await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_while_running_is_told_and_mended_by_a_restart() {
    let node = Node::start("[storage]\nretention = \"1s\"\n");
    assert_eq!(call(&node, "purged").await, 200);
    // The purge of the call empties the WAL.
    let all_in_file = async || {
        let wal = fs::metadata(node.folder().join("aftertone.db-wal")).map_or(0, |it| it.len());
        (wal == 0 && pages(node.folder()) > 10).then_some(())
    };
    eventually("the WAL is empty", SOON, all_in_file).await;
    zero(node.folder(), 1..pages(node.folder()));

    let is_told = async || {
        // After a commit the other connections read from the file again.
        call(&node, "damaged").await;
        readiness(&node).await.1.contains("damaged").then_some(())
    };
    eventually("readiness names the damage", SOON, is_told).await;
    assert_eq!(readiness(&node).await.0, 503);
    assert_eq!(call(&node, "refused").await, 503);
    let log = node.log_text();
    assert_eq!(log.matches("The database is damaged").count(), 1, "it is told once");
    assert!(log.contains("Restart aftertone"), "it is told what to do");

    let node = Node::start_in(node.kill(), "");
    node.logs("is damaged", 1).await;
    assert!(!set_aside(node.folder()).is_empty());
    assert_eq!(call(&node, "after").await, 200);
}
