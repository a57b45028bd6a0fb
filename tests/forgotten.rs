//! Expired data is in no file any more: numbers, names, subjects, contexts, audio.

mod support;

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::json;
use support::{
    Node,
    bot::Bot,
    eventually,
    raw::{Peer, SDP},
};

const MARKS: [&str; 4] = [
    "+4915799887766",
    "Wolfgang Wassermann",
    "subject-of-the-watermark",
    "context-of-the-watermark",
];
const SOON: Duration = Duration::from_secs(20);

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().flatten();
    entries
        .flat_map(|entry| match entry.path() {
            path if path.is_dir() => files(&path),
            path => vec![path],
        })
        .collect()
}

/// The marks that are found in files, with the names of the files.
fn hits(folder: &Path) -> Vec<(&'static str, String)> {
    let mut hits = Vec::new();
    for path in files(folder) {
        // A file that is deleted at this moment counts as empty.
        let bytes = fs::read(&path).unwrap_or_default();
        for mark in MARKS {
            if bytes.windows(mark.len()).any(|found| found == mark.as_bytes()) {
                hits.push((mark, path.display().to_string()));
            }
        }
    }
    hits
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_call_is_in_any_file_after_its_retention() {
    let mut bot = Bot::start().await;
    let mut node = Node::start(&format!("[storage]\nretention = \"1s\"\n{}", bot.config()));
    bot.knows(&node.api);

    let mut caller = Peer::new(Ipv4Addr::LOCALHOST.into(), node.sip, "bot", "marked").await;
    let [number, name, subject, context] = MARKS;
    let from = format!("From: \"{name}\" <sip:{number}@");
    let invite = caller.request("INVITE", 1, "i", SDP).replace("From: <sip:a@", &from);
    let invite = invite.replace("Max-Forwards", &format!("Subject: {subject}\r\nMax-Forwards"));
    caller.send(&invite).await;
    let acknowledged = async {
        caller.wait_for("INVITE", |status| status == 200).await;
        caller.say("ACK", 1, "a", "").await;
    };
    let (call, ()) = tokio::join!(bot.take_call(), acknowledged);
    let body = json!({"playBeep": false, "clientContext": context});
    let (status, operation) = bot.post(&format!("{call}/recordResponse"), &body).await;
    assert_eq!(status, 200, "{operation}");
    let known = hits(node.folder());
    for mark in MARKS {
        assert!(known.iter().any(|(hit, _)| *hit == mark), "{mark} is not there: {known:?}");
    }

    assert_eq!(bot.hang_up(&call).await, 204);
    bot.wait_for_state(&call, "terminated").await;
    eventually("the purge", SOON, async || hits(node.folder()).is_empty().then_some(())).await;

    node.signal("TERM");
    assert!(node.wait(SOON).success());
    assert_eq!(hits(node.folder()), [], "after a clean stop");
}
