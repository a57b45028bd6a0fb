//! The wall clock of a running or stopped daemon is set by an hour or by days: clips are purged on
//! time, and notifications are sent.

mod support;

use std::time::{Duration, Instant};

use aftertone::service::demo::phone::Phone;
use aftertone_core::audio::Rate;
use axum::http::StatusCode;
use serde_json::{Value, json};
use sqlx::{AnyConnection, Connection};
use support::{
    Node,
    bot::{Bot, TOKEN},
    eventually,
    fake_clock::FakeClock,
    speech,
};
use tempfile::TempDir;

const RETENTION: Duration = Duration::from_secs(8);
/// The tolerance for the end of a clip, on a loaded machine.
const LEEWAY: Duration = Duration::from_secs(4);
const HOUR_BACK: &str = "The wall clock was set back by 1h; retention and notifications are not";
const DAY_FORWARD: &str = "The wall clock was set forward by 1day; retention and notifications are";

/// A bot, and the wall clock and configuration of a daemon whose API stays at one address.
struct Fixture {
    clock: FakeClock,
    bot: Bot,
    config: String,
}

impl Fixture {
    async fn new() -> (Self, Node) {
        let mut bot = Bot::start().await;
        let api = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let retention = RETENTION.as_secs();
        let config = format!(
            "[api]\nlisten = \"{api}\"\n[storage]\nretention = \"{retention}s\"\n{}",
            bot.config()
        );
        let clock = FakeClock::new();
        let node = clock.start(tempfile::tempdir().unwrap(), &config);
        bot.knows(&node.api);
        (Self { clock, bot, config }, node)
    }

    fn start(&self, folder: TempDir) -> Node {
        self.clock.start(folder, &self.config)
    }

    /// Makes a call with a clip of one second; returns the call and the operation that recorded it.
    async fn recorded_call(&self, node: &Node) -> (Phone, String, Value) {
        let before = self.bot.notifications().len();
        let sip = node.sip;
        let calling = tokio::spawn(async move { Phone::call(sip, "bot").await.expect("answered") });
        let is_new = |n: &support::bot::Notified| n.data()["state"] == "incoming";
        let incoming = self.bot.wait_for_after(before, "the call", is_new).await;
        let call = incoming.data()["id"].as_str().unwrap().to_owned();
        self.bot.answer(&call).await;
        let phone = calling.await.unwrap();
        phone.speak(speech().samples(Rate::Hz8000));
        let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 1});
        let (status, operation) = self.bot.post(&format!("{call}/recordResponse"), &body).await;
        assert_eq!(status, 200, "{operation}");
        let ended = self.bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
        assert_eq!(ended["status"], "completed", "{ended}");
        (phone, call, ended)
    }

    /// Ends a call; returns when it ended.
    async fn hang_up(&self, phone: Phone, call: &str) -> Instant {
        phone.hang_up().await.unwrap();
        let over = Instant::now();
        self.bot.wait_for_state(call, "terminated").await;
        over
    }

    async fn status(&self, clip: &Value) -> u16 {
        self.bot.fetch(clip).await.status().as_u16()
    }

    /// Waits until a clip is purged, which must not happen before `end` or long after it.
    async fn lives_until(&self, clip: &Value, end: Instant) {
        loop {
            let asked_at = Instant::now();
            match self.status(clip).await {
                200 => assert!(asked_at < end + LEEWAY, "it is there too long"),
                status => {
                    assert_eq!(status, 404);
                    assert!(Instant::now() + LEEWAY / 4 > end, "it has gone too early");
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn no_clips(node: &Node) {
    let gone = async || node.clips().is_empty().then_some(());
    eventually("the files have gone", Duration::from_secs(10), gone).await;
}

/// The clock is set while one clip waits for its purge and another call is up.
async fn clips_live_as_long_as_ever(offset: &str, words: &str) {
    let (fixture, node) = Fixture::new().await;
    let (live_phone, live_call, live_clip) = fixture.recorded_call(&node).await;
    let (phone, call, clip) = fixture.recorded_call(&node).await;
    let over = fixture.hang_up(phone, &call).await;
    fixture.clock.set(offset);
    fixture.lives_until(&clip, over + RETENTION).await;
    assert_eq!(fixture.status(&live_clip).await, 200);
    let over = fixture.hang_up(live_phone, &live_call).await;
    // The clock is set right again, after a call has ended by the wrong time.
    fixture.clock.set("+0");
    fixture.lives_until(&live_clip, over + RETENTION).await;
    no_clips(&node).await;
    node.logs(words, 1).await;
    node.logs("The wall clock was set", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_clip_is_served_after_its_time_when_the_clock_is_set_back() {
    clips_live_as_long_as_ever("-1h", HOUR_BACK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_clip_is_purged_early_when_the_clock_is_set_forward() {
    clips_live_as_long_as_ever("+1d", DAY_FORWARD).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_token_and_the_key_of_a_request_get_no_older_when_the_clock_is_set_forward() {
    let (fixture, node) = Fixture::new().await;
    let (_phone, call, clip) = fixture.recorded_call(&node).await;
    let request = |key: &'static str| {
        let url = format!("{}/v1.0/communications/calls/{call}/playPrompt", node.api);
        let body = r#"{"prompts": [{"mediaInfo": {"uri": "http://127.0.0.1:1/none.wav"}}]}"#;
        let request =
            fixture.bot.client.post(url).bearer_auth(TOKEN).header("Idempotency-Key", key);
        async move {
            let answer = request.header("content-type", "application/json").body(body).send();
            let text = answer.await.unwrap().text().await.unwrap();
            serde_json::from_str::<Value>(&text).unwrap()["id"].clone()
        }
    };
    let first = request("one").await;
    assert!(first.is_string(), "{first}");
    fixture.clock.set("+9d");
    // The purge runs a second after a request with a key.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(request("one").await, first, "it was done again");
    assert_ne!(request("two").await, first);
    assert_eq!(fixture.status(&clip).await, 200);
    node.logs("The wall clock was set forward by 9days", 1).await;
}

/// The clock is set between two processes, while a clip waits for its purge.
async fn clips_live_as_long_as_ever_over_a_restart(offset: &str, words: &str) {
    let (fixture, mut node) = Fixture::new().await;
    let (phone, call, clip) = fixture.recorded_call(&node).await;
    let over = fixture.hang_up(phone, &call).await;
    // In one case the first process stops in order, in the other it is killed.
    if offset.starts_with('+') {
        node.signal("TERM");
        assert!(node.wait(Duration::from_secs(20)).success());
    }
    let folder = node.kill();
    fixture.clock.set(offset);
    let node = fixture.start(folder);
    fixture.lives_until(&clip, over + RETENTION).await;
    no_clips(&node).await;
    node.logs(words, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_clip_is_served_after_its_time_when_the_clock_is_set_back_before_a_restart() {
    clips_live_as_long_as_ever_over_a_restart("-1h", HOUR_BACK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_clip_is_purged_early_when_the_clock_is_set_forward_before_a_restart() {
    clips_live_as_long_as_ever_over_a_restart("+1d", DAY_FORWARD).await;
}

/// Simulates a reboot of the machine between two processes.
async fn started_anew(folder: &TempDir) {
    sqlx::any::install_default_drivers();
    let url = format!("sqlite:{}", folder.path().join("aftertone.db").display());
    let mut database = AnyConnection::connect(&url).await.unwrap();
    let other = "UPDATE clock SET boot_id = 'another', offset_ms = offset_ms + 9999999";
    let done = sqlx::query(other).execute(&mut database).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
    database.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_starts_in_1971_purges_no_clip_early_and_counts_on_when_its_clock_is_set() {
    let (fixture, node) = Fixture::new().await;
    let (phone, call, clip) = fixture.recorded_call(&node).await;
    fixture.hang_up(phone, &call).await;
    let folder = node.kill();
    started_anew(&folder).await;
    fixture.clock.set("-55y");
    let node = fixture.start(folder);
    node.logs("The wall clock was set back by", 1).await;
    assert_eq!(fixture.status(&clip).await, 200);
    fixture.clock.set("+0");
    node.logs("The wall clock was set forward by", 1).await;
    assert_eq!(fixture.status(&clip).await, 200);
    // How long the machine was off is unknown; the time before and after it counts.
    let gone = async || (fixture.status(&clip).await == 404).then_some(());
    eventually("the clip has gone", RETENTION + LEEWAY, gone).await;
    no_clips(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_that_a_machine_is_off_counts_when_its_clock_goes_on() {
    let (fixture, node) = Fixture::new().await;
    let (phone, call, clip) = fixture.recorded_call(&node).await;
    let over = fixture.hang_up(phone, &call).await;
    let folder = node.kill();
    started_anew(&folder).await;
    tokio::time::sleep_until((over + RETENTION).into()).await;
    let node = fixture.start(folder);
    assert_eq!(fixture.status(&clip).await, 404);
    no_clips(&node).await;
    assert!(!node.log_text().contains("The wall clock was set"));
}

/// The bot is away, the clock is set, and the bot comes back.
async fn is_told(offset: &str, with_restart: bool) {
    let (fixture, mut node) = Fixture::new().await;
    fixture.bot.answer_with(&[StatusCode::SERVICE_UNAVAILABLE; 64]);
    let sip = node.sip;
    let calling = tokio::spawn(async move { Phone::call(sip, "bot").await });
    let refused = async |count: usize| {
        let what = format!("{count} attempts");
        let all = async || (fixture.bot.notifications().len() >= count).then_some(());
        eventually(&what, Duration::from_secs(20), all).await;
    };
    refused(2).await;
    if with_restart {
        let folder = node.kill();
        fixture.clock.set(offset);
        node = fixture.start(folder);
    } else {
        fixture.clock.set(offset);
    }
    let before = fixture.bot.notifications().len();
    refused(before + 1).await;
    fixture.bot.answer_with_default();
    let is_taken = |n: &support::bot::Notified| {
        n.answer == StatusCode::ACCEPTED && n.data()["state"] == "incoming"
    };
    fixture.bot.wait_for("the notification", is_taken).await;
    let (_, undelivered) = fixture.bot.get("undeliveredNotifications").await;
    assert_eq!(undelivered["value"], json!([]));
    node.logs("The wall clock was set", 1).await;
    calling.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_comes_back_is_told_when_the_clock_was_set_back() {
    is_told("-1h", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_comes_back_is_told_when_the_clock_was_set_forward() {
    is_told("+2d", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_comes_back_is_told_when_the_clock_was_set_back_before_a_restart() {
    is_told("-1h", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_comes_back_is_told_when_the_clock_was_set_forward_before_a_restart() {
    is_told("+2d", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_no_row_knows_gets_no_day_older_when_the_clock_is_set_forward() {
    let clock = FakeClock::new();
    let folder = tempfile::tempdir().unwrap();
    let name = "11111111-2222-4333-8444-555555555555.wav";
    std::fs::create_dir(folder.path().join("recordings")).unwrap();
    std::fs::write(folder.path().join("recordings").join(name), [1; 100]).unwrap();
    let node = clock.start(folder, "[storage]\nretention = \"1h\"\n");
    let file = node.folder().join("recordings/lost+found").join(name);
    assert!(file.exists());
    // By then the keeper has seen the file.
    tokio::time::sleep(Duration::from_secs(2)).await;
    clock.set("+1d");
    // The keeper checks every ten seconds.
    tokio::time::sleep(Duration::from_secs(12)).await;
    assert!(file.exists(), "it was purged");
    node.logs(DAY_FORWARD, 1).await;
}
