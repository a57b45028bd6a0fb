//! The folder of the recordings: moved away while the daemon runs, missing at the start, used by
//! another database, or with files in it that have no row.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use aftertone::{drivers::prompts::bundled, service::demo::phone::Phone};
use aftertone_core::{
    audio::{
        Rate,
        beep::{BEEP_FRAMES, BEEP_HZ},
        measure::{best_match, tone_level_dbfs},
    },
    model::RecordingId,
};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::AnyConnection;
use support::{
    Node,
    bot::{Bot, TOKEN},
    clips_in, eventually,
    kept::{database, with_a_recording},
    speech,
};

const SOON: Duration = Duration::from_secs(20);
const BYTES: usize = 1000;
/// The user id of an account without rights, as on Debian.
const UNPRIVILEGED: u32 = 65_534;

async fn readiness(node: &Node, token: &str) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let asked = client.get(format!("{}/readyz", node.api)).bearer_auth(token);
    let answer = asked.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap())
}

async fn until_readiness(node: &Node, wanted: u16) -> Value {
    let is_so = async || {
        let (status, body) = readiness(node, "").await;
        (status == wanted).then_some(body)
    };
    eventually("the node is as ready as wanted", SOON, is_so).await
}

async fn ask(bot: &Bot, node: &Node, method: Method, id: RecordingId) -> (u16, usize) {
    let asked = bot.client.request(method, format!("{}/recordings/{id}", node.api));
    let answer = asked.bearer_auth(TOKEN).send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.bytes().await.unwrap().len())
}

async fn has_row(database: &mut AnyConnection) -> bool {
    let query = sqlx::query_as("SELECT COUNT(*) FROM recordings");
    let (rows,): (i64,) = query.fetch_one(database).await.unwrap();
    rows > 0
}

/// Runs a daemon that must not start; returns its exit code and what it has printed.
fn refused(folder: &Path, storage: &str) -> (Option<i32>, String) {
    let config = folder.join("refused.toml");
    let listen = "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\n[api]\nlisten = \"127.0.0.1:0\"\n";
    fs::write(&config, format!("{listen}{storage}")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_aftertone"));
    command.args(["serve", "--config"]).arg(&config).current_dir(folder).stdout(Stdio::null());
    // A daemon that starts all the same is stopped.
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let begun = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > SOON {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_that_expires_while_its_folder_is_moved_away_goes_before_its_row() {
    let bot = Bot::start().await;
    let (folder, id) = with_a_recording(BYTES, Some(Duration::from_secs(4))).await;
    let node = Node::start_in(folder, &bot.config());
    let mut rows = database(&node).await;
    let (recordings, moved) = (node.folder().join("recordings"), node.folder().join("moved"));
    let clip = moved.join(format!("{id}.wav"));
    fs::rename(&recordings, &moved).unwrap();
    assert!(clip.exists(), "the test was too slow");
    let purged = async || {
        let (row, file) = (has_row(&mut rows).await, clip.exists());
        assert!(row || !file, "the row went before the bytes");
        (!row).then_some(())
    };
    eventually("the row is gone", SOON, purged).await;
    fs::rename(&moved, &recordings).unwrap();
    until_readiness(&node, 200).await;
    assert!(node.clips().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_that_was_deleted_while_its_folder_is_away_is_gone() {
    let bot = Bot::start().await;
    let (folder, id) = with_a_recording(BYTES, None).await;
    let node = Node::start_in(folder, &bot.config());
    let (recordings, moved) = (node.folder().join("recordings"), node.folder().join("moved"));
    fs::rename(&recordings, &moved).unwrap();
    // An empty folder at its path does not replace it.
    fs::create_dir(&recordings).unwrap();
    assert_eq!(ask(&bot, &node, Method::GET, id).await.0, 503);
    assert_eq!(ask(&bot, &node, Method::DELETE, id).await.0, 204);
    assert_eq!(ask(&bot, &node, Method::GET, id).await.0, 404);
    let clip = moved.join(format!("{id}.wav"));
    eventually("the bytes are gone", SOON, async || (!clip.exists()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_recording_is_lost_or_begun_while_the_folder_is_away() {
    let mut bot = Bot::start().await;
    let node = Node::start(&bot.config());
    bot.knows(&node.api);
    let sip = node.sip;
    let calling = tokio::spawn(async move { Phone::call(sip, "bot").await.expect("answered") });
    let call = bot.take_call().await;
    let phone = calling.await.unwrap();
    let record = json!({"playBeep": false, "maxRecordDurationInSeconds": 3});
    let (status, running) = bot.post(&format!("{call}/recordResponse"), &record).await;
    assert_eq!(status, 200, "{running}");
    phone.speak(speech().samples(Rate::Hz8000));
    eventually("it is written", SOON, async || (!node.clips().is_empty()).then_some(())).await;

    let (recordings, moved) = (node.folder().join("recordings"), node.folder().join("moved"));
    fs::rename(&recordings, &moved).unwrap();
    let told = until_readiness(&node, 503).await;
    assert_eq!(told["reason"], "the folder of the recordings is not where it was");
    let url = format!("{}/v1.0/communications/calls/{call}/recordResponse", node.api);
    let asked = bot.client.post(url).bearer_auth(TOKEN).header("content-type", "application/json");
    let refused = asked.body(record.to_string()).send().await.unwrap();
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let ended = bot.wait_for_operation(running["id"].as_str().unwrap()).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    assert!(!recordings.exists(), "nothing is made in its place");

    fs::rename(&moved, &recordings).unwrap();
    until_readiness(&node, 200).await;
    assert!(bot.download(&ended).await.len() > 2 * 32_000);
    let (status, again) = bot.post(&format!("{call}/recordResponse"), &record).await;
    assert_eq!(status, 200, "{again}");
    node.logs("is in order again", 1).await;
}

/// Whether the phone has heard a beep.
fn has_heard_a_beep(phone: &Phone) -> bool {
    let heard = phone.heard();
    let frames = heard.chunks_exact(Rate::Hz8000.frame_len());
    let is_beep = |frame: &[i16]| tone_level_dbfs(frame, 8_000, f64::from(BEEP_HZ)) > -30.0;
    // Speech resembles a beep only for a moment.
    let beeps: Vec<bool> = frames.map(is_beep).collect();
    beeps.split(|is_beep| !is_beep).any(|run| run.len() + 2 >= BEEP_FRAMES as usize)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_cannot_record_says_goodbye_and_does_not_beep() {
    let bot = Bot::start().await;
    let node = Node::start(&bot.config());
    let (recordings, moved) = (node.folder().join("recordings"), node.folder().join("moved"));
    fs::rename(&recordings, &moved).unwrap();
    until_readiness(&node, 503).await;

    let mut phone = Phone::call(node.sip, "voicemail").await.expect("answered");
    tokio::time::timeout(SOON, phone.ended()).await.expect("it hangs up");
    assert!(!has_heard_a_beep(&phone), "who hears a beep speaks to nothing");
    let (goodbye, heard) = (bundled("goodbye").unwrap(), phone.heard());
    let (_, likeness) = best_match(goodbye.samples(Rate::Hz8000), &heard, heard.len());
    assert!(likeness > 0.9, "goodbye: {likeness}");
    node.logs("A recording cannot begin", 1).await;
    assert!(clips_in(&moved).is_empty() && !recordings.exists());
    // The row of the refused recording is purged.
    let mut rows = database(&node).await;
    let is_purged = async || (!has_row(&mut rows).await).then_some(());
    eventually("the row is purged", SOON, is_purged).await;

    fs::rename(&moved, &recordings).unwrap();
    until_readiness(&node, 200).await;
    let phone = Phone::call(node.sip, "voicemail").await.expect("answered");
    let beeps = async || has_heard_a_beep(&phone).then_some(());
    eventually("a beep", SOON, beeps).await;
    phone.speak(speech().samples(Rate::Hz8000));
    let is_recorded = async || (!node.clips().is_empty()).then_some(());
    eventually("it is recorded", SOON, is_recorded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_whose_disk_is_not_mounted_makes_no_clip_look_deleted() {
    // The recording has expired: a daemon that started would purge its row at once.
    let (folder, id) = with_a_recording(BYTES, Some(Duration::ZERO)).await;
    let (recordings, moved) = (folder.path().join("recordings"), folder.path().join("moved"));
    fs::rename(&recordings, &moved).unwrap();
    for _ in 0..2 {
        let (code, said) = refused(folder.path(), "");
        assert_eq!(code, Some(1), "systemd tries again: {said}");
        assert!(said.contains("the database knows 1 clips") && said.contains("echo "), "{said}");
    }
    // The disk is mounted.
    fs::remove_dir_all(&recordings).unwrap();
    fs::rename(&moved, &recordings).unwrap();
    let node = Node::start_in(folder, "");
    node.logs("Recording purged", 1).await;
    assert!(!node.folder().join(format!("recordings/{id}.wav")).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_another_database_loses_no_clip() {
    let bot = Bot::start().await;
    let (folder, id) = with_a_recording(BYTES, None).await;
    let file = format!("recordings/{id}.wav");
    let node = Node::start_in(folder, &bot.config());
    let ours = fs::read_to_string(node.folder().join("recordings/.database")).unwrap();

    // Another database, by mistake or because the right one was set aside as damaged.
    let other = format!("[storage]\ndatabase = \"sqlite:other.db\"\n{}", bot.config());
    let node = Node::start_in(node.kill(), &other);
    let theirs = fs::read_to_string(node.folder().join("recordings/.database")).unwrap();
    assert_ne!(theirs, ours);
    let log = node.log_text();
    assert!(log.contains(ours.trim()) && log.contains(theirs.trim()), "both are named");
    let lost = node.folder().join(format!("recordings/lost+found/{id}.wav"));
    assert_eq!(fs::read(&lost).unwrap(), [7; BYTES]);
    assert_eq!(readiness(&node, "").await, (200, json!({"status": "ready"})));
    let shows = async || {
        let lost = readiness(&node, TOKEN).await.1["lostAndFound"].clone();
        (lost["files"] == 1).then_some(lost)
    };
    let shown = eventually("it is counted", SOON, shows).await;
    assert_eq!(shown["bytes"], BYTES);
    assert!(shown["oldest"].as_str().unwrap().ends_with('Z'), "{shown}");

    // With the right database the recording is back in its place.
    let node = Node::start_in(node.kill(), &bot.config());
    assert!(!lost.exists() && node.folder().join(&file).exists());
    assert_eq!(ask(&bot, &node, Method::GET, id).await, (200, BYTES));

    // The other database knows a clip: it does not take over a folder without its clips.
    let folder = node.kill();
    let storage = "[storage]\ndatabase = \"sqlite:other.db\"\nrecordings = \"of-the-other\"\n";
    let node = Node::start_in(folder, storage);
    let folder = node.kill();
    let (code, said) = refused(folder.path(), "[storage]\nrecordings = \"of-the-other\"\n");
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains(ours.trim()) && said.contains(theirs.trim()), "{said}");
    assert!(folder.path().join(&file).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_that_nobody_knows_is_set_aside_while_the_daemon_runs_and_goes_in_its_time() {
    let bot = Bot::start().await;
    let retention = Duration::from_secs(90);
    let config = format!("[storage]\nretention = \"90s\"\n{}", bot.config());
    let node = Node::start(&config);
    let id = RecordingId::from_random([5; 16]);
    let clip = node.folder().join(format!("recordings/{id}.wav"));
    // A file from a backup, with the times of the original.
    fs::write(&clip, [1; 100]).unwrap();
    let made = SystemTime::now() - Duration::from_secs(70);
    fs::File::options().write(true).open(&clip).unwrap().set_modified(made).unwrap();
    let lost = node.folder().join(format!("recordings/lost+found/{id}.wav"));
    eventually("it is set aside", SOON, async || lost.exists().then_some(())).await;
    assert!(!clip.exists());
    let shows =
        async || (readiness(&node, TOKEN).await.1["lostAndFound"]["files"] == 1).then_some(());
    eventually("it is counted", SOON, shows).await;
    let gone = async || (!lost.exists()).then_some(());
    eventually("it is purged", Duration::from_secs(40), gone).await;
    assert!(made.elapsed().unwrap() >= retention);
}

#[test]
fn files_that_nobody_knows_go_beside_a_lost_and_found_that_is_roots() {
    let folder = tempfile::tempdir().unwrap();
    if fs::metadata(folder.path()).unwrap().uid() != 0 {
        println!("nothing is tested: this is not root");
        return;
    }
    let program = folder.path().join("aftertone");
    let config = folder.path().join("aftertone.toml");
    let (recordings, roots) = (folder.path().join("recordings"), "lost+found");
    let name = format!("{}.wav", RecordingId::from_random([6; 16]));
    fs::copy(env!("CARGO_BIN_EXE_aftertone"), &program).unwrap();
    let listen = "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\n[api]\nlisten = \"127.0.0.1:0\"\n";
    fs::write(&config, listen).unwrap();
    // As mke2fs creates it.
    fs::create_dir_all(recordings.join(roots)).unwrap();
    fs::set_permissions(recordings.join(roots), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(recordings.join(&name), [1; 100]).unwrap();
    for path in [folder.path(), &program, &config, &recordings, &recordings.join(&name)] {
        chown(path, Some(UNPRIVILEGED), Some(UNPRIVILEGED)).unwrap();
    }
    let mut command = Command::new(&program);
    command.args(["serve", "--config"]).arg(&config).current_dir(folder.path());
    command.uid(UNPRIVILEGED).gid(UNPRIVILEGED).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let first = BufReader::new(child.stdout.take().unwrap()).lines().next();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(first.unwrap().unwrap().contains("is ready"));
    assert!(recordings.join("lost-clips").join(name).exists());
}

#[test]
fn systemd_mounts_the_folder_before_it_starts_us_and_does_not_give_up() {
    let unit = include_str!("../systemd/aftertone.service");
    let (section, service) = unit.split_once("[Service]").unwrap();
    let has = |line: &str| section.lines().any(|its| its == line);
    assert!(has("RequiresMountsFor=/var/lib/aftertone/recordings"));
    assert!(has("StartLimitIntervalSec=0"));
    // The default of storage.recordings leads there from this folder.
    assert!(service.contains("WorkingDirectory=/var/lib/aftertone\n"));
    assert!(include_str!("../config/default.toml").contains("recordings = \"recordings\"\n"));
}
