//! An idle daemon leaves its database alone.

#[allow(dead_code)] // Other tests take the server away.
#[path = "support/postgres.rs"]
mod postgres;
mod support;

use std::{
    fs::File,
    time::{Duration, Instant, SystemTime},
};

use aftertone::service::demo::phone::Phone;
use aftertone_core::audio::Rate;
use postgres::Cluster;
use serde_json::json;
use support::{Node, bot::Bot, eventually, speech};

/// Longer than the pause between two checks of the folder.
const IDLE: Duration = Duration::from_secs(12);
const SOON: Duration = Duration::from_secs(20);
const LOGGED: &str = "[telemetry]\nlog = \"info,sqlx::query=debug\"\n";

/// The statements in a log.
fn statements(log: &str) -> Vec<String> {
    log.lines().filter(|line| line.contains("sqlx::query")).map(str::to_owned).collect()
}

/// Waits until the daemon has made no statement for two seconds, and returns those of the next
/// [`IDLE`].
async fn statements_while_idle(node: &Node) -> Vec<String> {
    let begun = Instant::now();
    let mut before = node.log_text();
    assert!(!statements(&before).is_empty(), "statements are not logged: {before}");
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let after = node.log_text();
        if statements(&after).len() == statements(&before).len() || begun.elapsed() > SOON {
            before = after;
            break;
        }
        before = after;
    }
    tokio::time::sleep(IDLE).await;
    let after = statements(&node.log_text());
    // Once a minute the state of the steady clock is stored.
    let idle = after[statements(&before).len()..].iter();
    idle.filter(|statement| !statement.contains("INSERT INTO clock")).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_daemon_makes_no_statement() {
    let cluster = Cluster::start();
    let sqlite = Node::start(LOGGED);
    let storage = format!("[storage]\ndatabase = {:?}\n", cluster.database("idle"));
    let postgres = Node::start(&format!("{storage}{LOGGED}"));
    let made = tokio::join!(statements_while_idle(&sqlite), statements_while_idle(&postgres));
    assert_eq!(made, (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_daemon_with_a_recording_makes_no_statement() {
    let mut bot = Bot::start().await;
    let node = Node::start(&format!("{LOGGED}{}", bot.config()));
    bot.knows(&node.api);
    let sip = node.sip;
    let calling = tokio::spawn(async move { Phone::call(sip, "bot").await.expect("answered") });
    let call = bot.take_call().await;
    let phone = calling.await.unwrap();
    phone.speak(speech().samples(Rate::Hz8000));
    let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 1});
    let (status, operation) = bot.post(&format!("{call}/recordResponse"), &body).await;
    assert_eq!(status, 200, "{operation}");
    bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
    phone.hang_up().await.unwrap();
    bot.wait_for_state(&call, "terminated").await;

    let lookups = || {
        let log = statements(&node.log_text());
        log.iter().filter(|one| one.contains("SELECT id, state FROM")).count()
    };
    let before = lookups();
    // A clip of this age could be one without a row.
    let clips = node.clips();
    assert_eq!(clips.len(), 1);
    let clip = File::options().write(true).open(&clips[0]).unwrap();
    clip.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    let is_looked_for = async || (lookups() > before).then_some(());
    eventually("the keeper looks for its row", SOON, is_looked_for).await;
    assert_eq!(statements_while_idle(&node).await, [] as [String; 0]);
}
