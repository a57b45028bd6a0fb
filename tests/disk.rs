//! Disks that fail, fill up or are slow under a running daemon: nothing that was accepted is lost.

mod support;

use std::{
    cell::Cell,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use aftertone::service::demo::phone::Phone;
use aftertone_core::audio::{Rate, measure::best_match, wav};
use futures_util::future::join_all;
use serde_json::{Value, json};
use support::{
    Node,
    bot::{Bot, TOKEN},
    eventually,
    failing_disk::{ALL, EIO, ENOSPC, FailingDisk, Fault, LOOKS, SYNCS, WRITES},
    kept::{database, with_a_recording},
    program, speech,
};

/// The callers are trusted: strangers could not use the whole capacity.
const KNOWN: &str = "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\ntrusted_peers = [\"127.0.0.0/8\"]\n";
const SOON: Duration = Duration::from_secs(20);
/// Daemons among which a sweep shares its calls.
const LANES: i32 = 4;
/// How long a sweep may take: more than twice what a full one needs on two idle cores.
const LONGEST_SWEEP: Duration = Duration::from_secs(40 * 60);

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
    readyz(node).await.0
}

/// What `/readyz` answers without a token.
async fn readyz(node: &Node) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.get(format!("{}/readyz", node.api)).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
}

/// Requests a recording; returns the status, the body, and whether the answer has Retry-After.
async fn ask_for_recording(bot: &Bot, node: &Node, call: &str, body: &Value) -> (u16, Value, bool) {
    let url = format!("{}/v1.0/communications/calls/{call}/recordResponse", node.api);
    let request = bot.client.post(url).bearer_auth(TOKEN);
    let request = request.header("content-type", "application/json").body(body.to_string());
    let answer = request.send().await.unwrap();
    let (status, waits) = (answer.status().as_u16(), answer.headers().contains_key("retry-after"));
    (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap(), waits)
}

/// The samples of an ended recording; a download that fails with 503 is retried.
async fn downloaded(bot: &Bot, ended: &Value) -> Vec<i16> {
    let opened = async || Some(bot.fetch(ended).await).filter(|answer| answer.status() != 503);
    let answer = eventually("the clip can be read", SOON, opened).await;
    assert_eq!(answer.status(), 200);
    let clip = answer.bytes().await.unwrap();
    wav::read(&clip, wav::Limits { max_seconds: 60 }).unwrap().samples
}

/// Waits until the database says of all notifications that they were received: a process that is
/// killed before that sends them again.
async fn all_is_delivered(node: &Node) {
    let mut database = database(node).await;
    let is_empty = async || {
        let query = sqlx::query_as("SELECT COUNT(*) FROM outbox");
        let (rows,): (i64,) = query.fetch_one(&mut database).await.unwrap();
        (rows == 0).then_some(())
    };
    eventually("all is delivered", SOON, is_empty).await;
}

fn times_told(bot: &Bot, id: &str, is_final: impl Fn(&Value) -> bool) -> usize {
    bot.notifications().iter().filter(|n| n.data()["id"] == *id && is_final(n.data())).count()
}

async fn is_speech(bot: &Bot, ended: &Value, fault: Fault) {
    let samples = downloaded(bot, ended).await;
    let likeness = likeness_to_speech(&samples).await;
    assert!(likeness > 0.9, "{fault:?}: likeness {likeness} in {} samples", samples.len());
}

/// The likeness of the best quarter of a second of these samples to the bundled speech, which is
/// repeated; 1 means identical. A loaded machine may lose frames between the pieces. The search
/// stops at a piece that is good enough, because each comparison takes a good part of a second.
async fn likeness_to_speech(samples: &[i16]) -> f64 {
    const PIECE: usize = 4_000;
    const ENOUGH: f64 = 0.9;
    let second = samples[..samples.len().min(16_000)].to_vec();
    let compared = tokio::task::spawn_blocking(move || {
        let speech = speech();
        let speech = speech.samples(Rate::Hz16000);
        let said = [speech, &speech[..PIECE]].concat();
        let mut best = 0.0_f64;
        for piece in second.windows(PIECE).step_by(PIECE / 4) {
            best = best.max(best_match(piece, &said, said.len()).1);
            if best > ENOUGH {
                break;
            }
        }
        best
    });
    compared.await.unwrap()
}

/// Repeats the speech for longer than a recording that begins late can last.
fn keep_speaking(phone: &Phone) {
    (0..10).for_each(|_| phone.speak(speech().samples(Rate::Hz8000)));
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

        disk.set(
            "aftertone.db",
            Fault { first: 1, count: i32::MAX, error, delay_ms: 0, kinds: ALL },
        );
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

        all_is_delivered(&node).await;
        let folder = node.kill();
        let node = disk.start(folder, &bot.config());
        assert!(!node.clips().is_empty(), "the clip is there after a restart");
        bot.wait_for_state(&call, "terminated").await;
        assert_eq!(times_told(&bot, id, |_| true), 1);
        assert_eq!(times_told(&bot, &call, |data| data["state"] == "terminated"), 1);
    }
}

/// One call of the sweep: it ends once, with its clip or with a reason. Returns the call and its
/// recording.
async fn recorded_call_under(
    disk: &FailingDisk,
    node: &Node,
    bot: &Bot,
    part: &str,
    fault: Fault,
) -> (String, String) {
    let (phone, call) = call(node, bot).await;
    keep_speaking(&phone);
    disk.set(part, fault);
    let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 1});
    let accepted = async || match ask_for_recording(bot, node, &call, &body).await {
        (200, operation, _) => Some(operation),
        (503, _, true) => None,
        refused => panic!("{fault:?}: {refused:?}"),
    };
    let operation = eventually("the recording is accepted", SOON, accepted).await;
    let id = operation["id"].as_str().unwrap();
    let ended = bot.wait_for_operation(id).await;
    match ended["status"].as_str() {
        Some("completed") => is_speech(bot, &ended, fault).await,
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
    (call, id.to_owned())
}

/// Every open, write, sync and rename of a recorded call fails once, twice in a row, or is slow.
/// With `AFTERTONE_SWEEP=full`, more often and with a restart after each call.
///
/// A recorded call makes some 50 disk calls for the database, and 9 for its clip. Each fault of one
/// of them takes 3 to 9 s, and the lanes share the faults: the full sweep, of seven faults per disk
/// call, takes about a quarter of an hour on two idle cores.
async fn sweep(part: &str) {
    let is_full = std::env::var("AFTERTONE_SWEEP").is_ok_and(|sweep| sweep == "full");
    let faults = if is_full { &FULL_SWEEP[..] } else { &SWEEP[..] };
    let sweep = Sweep { part, is_full, faults, begun: Instant::now(), tried: Cell::new(0) };
    let calls = join_all((0..LANES).map(|lane| sweep_lane(&sweep, lane))).await;
    sweep.tell(&format!("done, with {calls:?} calls on the disk in each lane"));
}

/// The state that the lanes of a sweep share.
struct Sweep<'a> {
    /// Part of the path of the files that fail.
    part: &'a str,
    is_full: bool,
    faults: &'a [(i32, i32, i32)],
    begun: Instant,
    /// How many faults have been tried.
    tried: Cell<usize>,
}

impl Sweep<'_> {
    /// Prints the progress at once, even where the output of a test is kept back until its end.
    fn tell(&self, what: &str) {
        let (part, tried, passed) = (self.part, self.tried.get(), self.begun.elapsed().as_secs());
        let line = format!("{part}: {tried} faults tried in {passed} s; {what}\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }

    fn count(&self, fault: Fault) {
        self.tried.set(self.tried.get() + 1);
        let passed = self.begun.elapsed();
        assert!(passed < LONGEST_SWEEP, "{} faults took {passed:?}: {fault:?}", self.tried.get());
    }
}

/// One of the daemons among which the calls of a sweep are shared. Returns the number of disk calls
/// of a recorded call without a fault.
async fn sweep_lane(sweep: &Sweep<'_>, lane: i32) -> i32 {
    let part = sweep.part;
    let disk = FailingDisk::new();
    let mut bot = Bot::start().await;
    let mut node = disk.start(tempfile::tempdir().unwrap(), &bot.config());
    bot.knows(&node.api);
    let (phone, id) = call(&node, &bot).await;
    disk.set(part, Fault { first: 0, count: 0, error: 0, delay_ms: 0, kinds: ALL });
    phone.speak(speech().samples(Rate::Hz8000));
    bot.record(&id, json!({"playBeep": false, "maxRecordDurationInSeconds": 1})).await;
    let calls = disk.seen();
    assert!(calls > 3, "{calls} calls on the disk were seen: {part}");
    phone.hang_up().await.unwrap();
    bot.wait_for_state(&id, "terminated").await;
    for first in (1..=calls).filter(|first| first % LANES == lane) {
        sweep.tell(&format!("call {first} of {calls}, {} faults", sweep.faults.len()));
        for &(count, error, delay_ms) in sweep.faults {
            let fault = Fault { first, count, error, delay_ms, kinds: ALL };
            let (call, recording) = recorded_call_under(&disk, &node, &bot, part, fault).await;
            if sweep.is_full {
                all_is_delivered(&node).await;
                node = disk.start(node.kill(), &bot.config());
                bot.knows(&node.api);
                assert_eq!(bot.get("calls").await.1["value"], json!([]), "{fault:?}");
                assert_eq!(times_told(&bot, &recording, |_| true), 1, "{fault:?}");
                let ends = times_told(&bot, &call, |data| data["state"] == "terminated");
                assert_eq!(ends, 1, "{fault:?}");
            }
            sweep.count(fault);
        }
    }
    calls
}

/// How many disk calls fail or wait, with which error, and how long each waits (ms).
const SWEEP: [(i32, i32, i32); 3] = [(1, ENOSPC, 0), (2, EIO, 0), (2, 0, 300)];
const FULL_SWEEP: [(i32, i32, i32); 7] = [
    (1, ENOSPC, 0),
    (1, EIO, 0),
    (2, ENOSPC, 0),
    (2, EIO, 0),
    (10, EIO, 0),
    (2, 0, 300),
    (5, 0, 1_000),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_write_of_the_database_may_fail_or_be_slow() {
    sweep("aftertone.db").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_write_of_a_clip_may_fail_or_be_slow() {
    sweep("recordings/").await;
}

/// A daemon with a small disk of its own for the recordings.
fn on_small_disk(bot: &Bot, kib: u32, low_water: &str) -> Node {
    program("unshare", "util-linux");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("recordings")).unwrap();
    let mounted = format!("mount -t tmpfs -o size={kib}k,mode=700 tmpfs recordings && exec \"$@\"");
    let mut daemon = Command::new("unshare");
    daemon.args(["--map-root-user", "--mount", "sh", "-c", &mounted, "sh"]);
    daemon.arg(env!("CARGO_BIN_EXE_aftertone"));
    let storage = format!("[storage]\nlow_water = \"{low_water}\"\n");
    Node::start_by(daemon, folder, &(storage + &bot.config()))
}

/// The folder of recordings as the daemon sees it.
fn small_disk(node: &Node) -> PathBuf {
    let root = format!("/proc/{}/root{}", node.pid(), node.folder().display());
    Path::new(&root).join("recordings")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_on_a_disk_that_is_full_ends_with_what_there_is_and_no_other_begins() {
    let mut bot = Bot::start().await;
    let node = on_small_disk(&bot, 256, "0");
    bot.knows(&node.api);
    let (phone, call) = call(&node, &bot).await;
    keep_speaking(&phone);
    let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 30,
        "maxSilenceTimeoutInSeconds": 30});
    let (status, operation, _) = ask_for_recording(&bot, &node, &call, &body).await;
    assert_eq!(status, 200, "{operation}");
    let asked = Instant::now();
    let ended = bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
    // 256 KiB hold eight seconds.
    assert!(asked.elapsed() < Duration::from_secs(12), "after {:?}", asked.elapsed());
    assert_eq!(ended["status"], "completed", "{ended}");
    let message = ended["resultInfo"]["message"].as_str().unwrap();
    assert!(message.contains("disk"), "{ended}");
    let samples = downloaded(&bot, &ended).await;
    assert!((6 * 16_000..9 * 16_000).contains(&samples.len()), "{}", samples.len());
    let likeness = likeness_to_speech(&samples[16_000..]).await;
    assert!(likeness > 0.9, "likeness {likeness}");

    // The rest of the disk has no room for half a second of audio, but perhaps for a header.
    let rest = small_disk(&node).join("rest");
    let mut filling = std::fs::File::create(&rest).unwrap();
    while filling.write_all(&[1; 512]).is_ok() {}
    let (status, refused, waits) = ask_for_recording(&bot, &node, &call, &body).await;
    assert_eq!((status, waits), (503, true), "{refused}");
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("disk"), "{refused}");
    let prompt = json!({"prompts": [{"mediaInfo": {"uri": "aftertone:greeting"}}]});
    assert_eq!(bot.post(&format!("{call}/playPrompt"), &prompt).await.0, 200, "the rest goes on");

    // Once there is room again, recordings begin again.
    std::fs::remove_file(&rest).unwrap();
    let location = ended["recordingLocation"].as_str().unwrap();
    let token = ended["recordingAccessToken"].as_str().unwrap();
    let deleted = bot.client.delete(location).bearer_auth(token).send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    let accepted =
        async || (ask_for_recording(&bot, &node, &call, &body).await.0 == 200).then_some(());
    eventually("a recording begins", SOON, accepted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_recording_begins_below_the_low_water_mark_and_readyz_says_why() {
    let mut bot = Bot::start().await;
    let node = on_small_disk(&bot, 256, "200KiB");
    bot.knows(&node.api);
    let (_phone, call) = call(&node, &bot).await;
    assert_eq!(readiness(&node).await, 200);
    let other = small_disk(&node).join("other");
    std::fs::write(&other, vec![1; 100 << 10]).unwrap();
    let (status, told) = readyz(&node).await;
    assert_eq!(status, 503);
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.contains("storage.low_water, 200.0 KiB"), "{reason}");
    let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 1});
    let (status, refused, waits) = ask_for_recording(&bot, &node, &call, &body).await;
    assert_eq!((status, waits), (503, true), "{refused}");
    assert_eq!(node.clips(), Vec::<PathBuf>::new());
    std::fs::remove_file(&other).unwrap();
    assert_eq!(readiness(&node).await, 200);
    let (status, operation, _) = ask_for_recording(&bot, &node, &call, &body).await;
    assert_eq!(status, 200, "{operation}");
    bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_ends_its_recording_at_once() {
    let disk = FailingDisk::new();
    let mut bot = Bot::start().await;
    let node = disk.start(tempfile::tempdir().unwrap(), &bot.config());
    bot.knows(&node.api);
    let (phone, call) = call(&node, &bot).await;
    let fault = Fault { first: 1, count: 1, error: EIO, delay_ms: 0, kinds: WRITES };
    for (after, status) in [(Duration::ZERO, "failed"), (Duration::from_secs(2), "completed")] {
        (0..4).for_each(|_| phone.speak(speech().samples(Rate::Hz8000)));
        let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 60,
            "initialSilenceTimeoutInSeconds": 60, "maxSilenceTimeoutInSeconds": 60});
        let (accepted, operation, _) = ask_for_recording(&bot, &node, &call, &body).await;
        assert_eq!(accepted, 200, "{operation}");
        tokio::time::sleep(after).await;
        disk.set("recordings/", fault);
        let ended = bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
        assert_eq!(ended["status"], status, "{ended}");
        assert!(ended["resultInfo"]["message"].as_str().unwrap().contains("disk"), "{ended}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_recordings_that_end_together_on_a_slow_disk_are_all_kept() {
    const CALLS: usize = 30;
    let disk = FailingDisk::new();
    let mut bot = Bot::start().await;
    let node = disk.start(tempfile::tempdir().unwrap(), &format!("{KNOWN}{}", bot.config()));
    bot.knows(&node.api);
    let mut calls = Vec::new();
    for _ in 0..CALLS {
        calls.push(call(&node, &bot).await);
    }
    disk.set(
        "recordings",
        Fault { first: 1, count: i32::MAX, error: 0, delay_ms: 400, kinds: SYNCS },
    );
    let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 2});
    let recorded = calls.iter().map(|(phone, call)| {
        phone.speak(speech().samples(Rate::Hz8000));
        ask_for_recording(&bot, &node, call, &body)
    });
    let accepted = join_all(recorded).await;
    for (status, operation, _) in &accepted {
        assert_eq!(*status, 200, "{operation}");
        let ended = bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
        assert_eq!(ended["status"], "completed", "{ended}");
    }
    assert!(disk.seen() > CALLS as i32, "each clip was synced");
    assert_eq!(node.clips().len(), CALLS);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_calls_are_taken_as_there_are_files_for_and_all_of_them_record() {
    let mut bot = Bot::start().await;
    let node = Node::start_with_files(300, &format!("{KNOWN}{}", bot.config()));
    bot.knows(&node.api);
    let log = node.log_text();
    let said = log.split("Room for ").nth(1).and_then(|rest| rest.split(' ').next());
    let room: usize = said.expect("the log says how many").parse().unwrap();
    assert!((3..20).contains(&room), "{room}");
    let mut calls = Vec::new();
    for _ in 0..room {
        calls.push(call(&node, &bot).await);
    }
    for _ in 0..3 {
        let refused = Phone::call(node.sip, "bot").await.err().expect("there is no room");
        assert!(refused.to_string().contains("503"), "{refused}");
    }
    let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 2});
    let recorded = calls.iter().map(|(phone, call)| {
        phone.speak(speech().samples(Rate::Hz8000));
        ask_for_recording(&bot, &node, call, &body)
    });
    for (status, operation, _) in join_all(recorded).await {
        assert_eq!(status, 200, "{operation}");
        let ended = bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
        assert_eq!(ended["status"], "completed", "{ended}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_that_wait_in_a_queue_leave_files_for_everything_else() {
    const FILES: u32 = 300;
    let mut bot = Bot::start().await;
    let node = Node::start_with_files(FILES, &format!("{KNOWN}{}", bot.config()));
    bot.knows(&node.api);
    let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 60,
        "initialSilenceTimeoutInSeconds": 60, "maxSilenceTimeoutInSeconds": 60});
    let (_phone, greedy) = call(&node, &bot).await;
    let mut accepted = 0;
    let (status, refused, waits) = loop {
        match ask_for_recording(&bot, &node, &greedy, &body).await {
            (200, ..) => accepted += 1,
            refused => break refused,
        }
    };
    // The reason is neither the length of the queue, which would give 429, nor the disk.
    assert_eq!((status, waits), (503, true), "after {accepted}: {refused}");
    assert!(!refused["error"]["message"].as_str().unwrap().contains("disk"), "{refused}");

    // Sockets of new calls, connections and prompts are open files too.
    assert_eq!(readiness(&node).await, 200);
    let mut others = Vec::new();
    for _ in 0..5 {
        others.push(call(&node, &bot).await);
    }
    for (_, other) in &others {
        bot.speak(other).await;
        let (status, operation, _) = ask_for_recording(&bot, &node, other, &body).await;
        assert_eq!(status, 200, "{operation}");
    }
    // An operation that leaves the queue gives its file back.
    let (status, canceled) = bot.post(&format!("{greedy}/cancelMediaProcessing"), &json!({})).await;
    assert_eq!(status, 200, "{canceled}");
    for _ in 0..accepted.min(2) {
        let begins =
            async || (ask_for_recording(&bot, &node, &greedy, &body).await.0 == 200).then_some(());
        eventually("a recording is accepted", SOON, begins).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_from_a_disk_that_does_not_answer_hold_up_nothing_else() {
    // More downloads than there are threads that may wait.
    const DOWNLOADS: usize = 560;
    let (folder, id) = with_a_recording(1_000, None).await;
    let disk = FailingDisk::new();
    let mut bot = Bot::start().await;
    let node = disk.start(folder, &bot.config());
    bot.knows(&node.api);
    let (_phone, call) = call(&node, &bot).await;
    let url = format!("{}/recordings/{id}", node.api);
    let download = || bot.client.get(&url).bearer_auth(TOKEN).send();
    assert_eq!(download().await.unwrap().status(), 200);

    let silent =
        Fault { first: 1, count: i32::MAX, error: 0, delay_ms: i32::MAX, kinds: ALL | LOOKS };
    disk.set("recordings", silent);
    let downloads: Vec<_> = (0..DOWNLOADS).map(|_| tokio::spawn(download())).collect();
    let are_waiting = async || (disk.seen() > 50).then_some(());
    eventually("they wait for the disk", SOON, are_waiting).await;
    for _ in 0..2 {
        bot.speak(&call).await;
        let asked = Instant::now();
        readiness(&node).await;
        assert_eq!(bot.get(&format!("calls/{call}")).await.0, 200);
        assert!(asked.elapsed() < Duration::from_secs(5), "after {:?}", asked.elapsed());
    }
    assert!(disk.seen() < 200, "{} threads wait", disk.seen());

    // Once the fault is known, no further request waits.
    let is_known = async || {
        let (status, told) = readyz(&node).await;
        assert_eq!(status, 503, "{told}");
        node.log_text().contains("does not answer").then_some(())
    };
    eventually("the node knows", SOON, is_known).await;
    let asked = Instant::now();
    let refused = download().await.unwrap();
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(refused.status(), 503);
    assert!(asked.elapsed() < Duration::from_secs(5), "after {:?}", asked.elapsed());
    downloads.iter().for_each(tokio::task::JoinHandle::abort);
}
