//! Disks that fail, fill up or are slow under a running daemon: nothing that was accepted is lost.

mod support;

use std::time::Duration;

use aftertone::{
    audio::{Rate, measure::best_match, wav},
    demo::phone::Phone,
};
use serde_json::{Value, json};
use support::{
    Node,
    bot::Bot,
    eventually,
    failing_disk::{EIO, ENOSPC, FailingDisk, Fault},
    speech,
};

const SOON: Duration = Duration::from_secs(20);
/// Calls of the sweep that are up at a time.
const LANES: i32 = 4;

/// A call that the bot has answered.
async fn call(node: &Node, bot: &Bot) -> (Phone, String) {
    let before = bot.notifications().len();
    let sip = node.sip;
    let calling = tokio::spawn(async move { Phone::call(sip, "bot").await.expect("answered") });
    let incoming =
        bot.wait_for_after(before, "the call", |n| n.data()["state"] == "incoming").await;
    let call = incoming.data()["id"].as_str().unwrap().to_owned();
    bot.answer(&call).await;
    (calling.await.unwrap(), call)
}

async fn readiness(node: &Node) -> u16 {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(format!("{}/readyz", node.api)).send().await.unwrap().status().as_u16()
}

fn times_told(bot: &Bot, id: &str, is_final: impl Fn(&Value) -> bool) -> usize {
    bot.notifications().iter().filter(|n| n.data()["id"] == *id && is_final(n.data())).count()
}

async fn is_speech(bot: &Bot, ended: &Value) {
    let clip = bot.download(ended).await;
    let samples = wav::read(&clip, wav::Limits { max_seconds: 60 }).unwrap().samples;
    let speech = speech();
    let (_, likeness) = best_match(&samples, speech.samples(Rate::Hz16000), 16_000);
    // Low on purpose: whether a loaded machine keeps the time of the media is not judged here.
    assert!(likeness > 0.25, "likeness {likeness} in {} samples", samples.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_whose_disk_is_full_for_a_moment_loses_nothing() {
    for error in [ENOSPC, EIO] {
        let disk = FailingDisk::new();
        let mut bot = Bot::start().await;
        let node = disk.start(tempfile::tempdir().unwrap(), &bot.config());
        bot.knows(&node.api);
        let (phone, call) = call(&node, &bot).await;
        phone.speak(speech().samples(Rate::Hz8000));

        disk.set("aftertone.db", Fault { first: 1, count: i32::MAX, error, delay_ms: 0 });
        let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 1});
        let path = format!("{call}/recordResponse");
        let asked = bot.post(&path, &body);
        let healed = async {
            node.logs("The journal cannot write", 1).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            disk.well();
        };
        let ((status, operation), ()) = tokio::join!(asked, healed);
        assert_eq!(status, 200, "{operation}");
        let id = operation["id"].as_str().unwrap();
        let ended = bot.wait_for_operation(id).await;
        assert_eq!(ended["status"], "completed", "{ended}");
        assert_eq!(readiness(&node).await, 200);

        let folder = node.kill();
        let node = disk.start(folder, &bot.config());
        assert!(!node.clips().is_empty(), "the clip is there after a restart");
        bot.wait_for_state(&call, "terminated").await;
        assert_eq!(times_told(&bot, id, |_| true), 1);
        assert_eq!(times_told(&bot, &call, |data| data["state"] == "terminated"), 1);
    }
}

/// What the sweep makes of one call: it ends, once, with its clip or with a reason.
async fn recorded_call_under(disk: &FailingDisk, node: &Node, bot: &Bot, part: &str, fault: Fault) {
    let (phone, call) = call(node, bot).await;
    phone.speak(speech().samples(Rate::Hz8000));
    disk.set(part, fault);
    let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 1});
    let (status, operation) = bot.post(&format!("{call}/recordResponse"), &body).await;
    assert_eq!(status, 200, "{fault:?}: {operation}");
    let id = operation["id"].as_str().unwrap();
    let ended = bot.wait_for_operation(id).await;
    match ended["status"].as_str() {
        Some("completed") => is_speech(bot, &ended).await,
        _ => assert!(ended["resultInfo"]["code"].is_number(), "{fault:?}: {ended}"),
    }
    phone.hang_up().await.unwrap();
    bot.wait_for_state(&call, "terminated").await;
    disk.well();
    assert_eq!(times_told(bot, id, |_| true), 1, "{fault:?}");
    let ends = times_told(bot, &call, |data| data["state"] == "terminated");
    assert_eq!(ends, 1, "{fault:?}");
    let ready = async || (readiness(node).await == 200).then_some(());
    eventually("the node is ready again", SOON, ready).await;
}

/// Every write, sync and rename of a recorded call fails once, twice in a row, or is slow.
async fn sweep(part: &str) {
    futures_util::future::join_all((0..LANES).map(|lane| sweep_lane(part, lane))).await;
}

/// One of the daemons among which the calls of a sweep are shared.
async fn sweep_lane(part: &str, lane: i32) {
    let disk = FailingDisk::new();
    let mut bot = Bot::start().await;
    let node = disk.start(tempfile::tempdir().unwrap(), &bot.config());
    bot.knows(&node.api);
    // How many calls on the disk there are, when none fails.
    let (phone, id) = call(&node, &bot).await;
    disk.set(part, Fault { first: 0, count: 0, error: 0, delay_ms: 0 });
    phone.speak(speech().samples(Rate::Hz8000));
    bot.record(&id, json!({"playBeep": false, "maxRecordDurationInSeconds": 1})).await;
    let calls = disk.seen();
    assert!(calls > 3, "{calls} calls on the disk were seen: {part}");
    phone.hang_up().await.unwrap();
    bot.wait_for_state(&id, "terminated").await;
    for first in (1..=calls).filter(|first| first % LANES == lane) {
        for (count, error, delay_ms) in [(1, ENOSPC, 0), (2, EIO, 0), (2, 0, 300)] {
            let fault = Fault { first, count, error, delay_ms };
            recorded_call_under(&disk, &node, &bot, part, fault).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_write_of_the_database_may_fail_or_be_slow() {
    sweep("aftertone.db").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_write_of_a_clip_may_fail_or_be_slow() {
    sweep("recordings/").await;
}
