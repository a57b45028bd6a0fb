//! Every code of contract section 5, each reached by its real cause: a phone, a peer or a bot
//! causes it, and the whole notification is compared.
//!
//! Two daemons: one with the default times, one with short ones. All cases of one daemon run at
//! once.

mod support;

use std::{collections::HashSet, time::Duration};

use aftertone::service::demo::phone::Phone;
use aftertone_core::{
    audio::{Rate, wav},
    model::Tone,
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use support::{
    Node,
    bot::{Bot, Notified},
    eventually,
    peer::{self, Caller, Peer},
    speech,
};
use tokio::time::sleep;

/// `resultInfo` of an end: code, subcode and message.
fn result(code: i32, subcode: i32, message: &str) -> Value {
    json!({"@odata.type": "#microsoft.graph.resultInfo", "code": code, "subcode": subcode,
        "message": message})
}

/// `resultInfo` of a call's end: its message ends as the service's messages do.
fn over(code: i32, subcode: i32, text: &str) -> Value {
    result(code, subcode, &format!("{text} DiagCode: {code}#{subcode}.@"))
}

/// A phone and its call, answered by the bot.
struct Line {
    phone: Phone,
    call: String,
}

/// The offered calls that a case has already taken.
#[derive(Default)]
struct Offered(HashSet<String>);

impl Offered {
    /// The next call that was offered.
    async fn next(&mut self, bot: &Bot) -> String {
        let known = &self.0;
        let offered = bot
            .wait_for("another call", |told| {
                told.data()["state"] == "incoming"
                    && !known.contains(told.data()["id"].as_str().unwrap())
            })
            .await;
        let id = offered.data()["id"].as_str().unwrap().to_owned();
        self.0.insert(id.clone());
        id
    }

    /// A phone whose call was answered.
    async fn line(&mut self, node: &Node, bot: &Bot) -> Line {
        let sip = node.sip;
        let calling = tokio::spawn(async move { Phone::call(sip, "bot").await });
        let call = self.next(bot).await;
        bot.answer(&call).await;
        Line { phone: calling.await.unwrap().expect("answered"), call }
    }
}

/// How an operation of a case begins, and what is done to it.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Nothing,
    SpeakAndPress,
    Speak,
    SpeakAndHangUp,
    HangUp,
    Cancel,
    BargeIn,
}

/// One row of section 5.1 or 5.2.
struct Row {
    action: &'static str,
    body: Value,
    deed: Deed,
    status: &'static str,
    reason: &'static str,
    code: i32,
    subcode: i32,
    message: &'static str,
}

fn wav_of(samples: &[i16]) -> Vec<u8> {
    let mut file = wav::header(samples.len() as u32 * 2).to_vec();
    file.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    file
}

fn rows(bot: &Bot) -> Vec<Row> {
    let prompt = |uri: &str| json!([{"@odata.type": "#microsoft.graph.mediaPrompt", "mediaInfo": {"uri": uri}}]);
    let missing = prompt(&format!("http://{}/files/missing.wav", bot.address));
    let garbage = prompt(&bot.serve("garbage.wav", b"this is no audio".to_vec()));
    let said = speech();
    let said = said.samples(Rate::Hz16000);
    let short = prompt(&bot.serve("short.wav", wav_of(&said[..16_000])));
    let long = prompt(&bot.serve("long.wav", wav_of(&said.repeat(3))));
    let record = |more: Value| {
        let mut body = json!({"playBeep": false, "initialSilenceTimeoutInSeconds": 20,
            "maxSilenceTimeoutInSeconds": 20, "maxRecordDurationInSeconds": 20});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let keys = |count: usize| json!({"tones": vec!["tone1"; count], "delayBetweenTonesMs": 200});
    let row = |action, body, deed, (status, reason), (code, subcode), message| Row {
        action,
        body,
        deed,
        status,
        reason,
        code,
        subcode,
        message,
    };
    const CANCELED: &str = "Action failed, the operation was cancelled.";
    const DONE: &str = "Action completed successfully.";
    use Deed::*;
    vec![
        row(
            "record",
            record(json!({"stopTones": ["#"]})),
            SpeakAndPress,
            ("completed", "stopToneDetected"),
            (200, 8514),
            "Action completed as stop tone was detected.",
        ),
        row(
            "recordResponse",
            record(json!({"maxRecordDurationInSeconds": 1})),
            Speak,
            ("completed", "maxRecordDurationReached"),
            (200, 8515),
            "Action completed, max record duration reached.",
        ),
        row(
            "record",
            record(json!({"maxSilenceTimeoutInSeconds": 1})),
            Speak,
            ("completed", "maxSilenceTimeout"),
            (200, 8509),
            "Action completed, max silence reached.",
        ),
        row(
            "record",
            record(json!({"initialSilenceTimeoutInSeconds": 1})),
            Nothing,
            ("failed", "initialSilenceTimeout"),
            (400, 8510),
            "Action failed, initial silence timeout reached.",
        ),
        row(
            "record",
            record(json!({})),
            Cancel,
            ("failed", "operationCanceled"),
            (400, 8508),
            CANCELED,
        ),
        row(
            "recordResponse",
            record(json!({})),
            BargeIn,
            ("failed", "operationCanceled"),
            (400, 8508),
            CANCELED,
        ),
        row(
            "record",
            record(json!({"prompts": missing})),
            Nothing,
            ("failed", "playPromptFailed"),
            (500, 8511),
            "Action failed, encountered failure while trying to play the prompt: ",
        ),
        row(
            "record",
            record(json!({"prompts": long})),
            HangUp,
            ("failed", "mediaReceiveTimeout"),
            (400, 8513),
            "Action failed, the media ended before anything was recorded.",
        ),
        row(
            "record",
            record(json!({})),
            SpeakAndHangUp,
            ("completed", "mediaReceiveTimeout"),
            (200, 8588),
            "Action completed, the media ended while recording.",
        ),
        row(
            "playPrompt",
            json!({"prompts": short}),
            Nothing,
            ("completed", "completedSuccessfully"),
            (200, 0),
            DONE,
        ),
        row(
            "playPrompt",
            json!({"prompts": long}),
            Cancel,
            ("failed", "mediaOperationCanceled"),
            (400, 8508),
            CANCELED,
        ),
        row(
            "playPrompt",
            json!({"prompts": long}),
            BargeIn,
            ("failed", "mediaOperationCanceled"),
            (400, 8508),
            CANCELED,
        ),
        row(
            "playPrompt",
            json!({"prompts": missing}),
            Nothing,
            ("failed", "unknown"),
            (400, 8536),
            "",
        ),
        row(
            "playPrompt",
            json!({"prompts": garbage}),
            Nothing,
            ("failed", "unknown"),
            (400, 8535),
            "",
        ),
        row(
            "sendDtmfTones",
            keys(2),
            Nothing,
            ("completed", "completedSuccessfully"),
            (200, 0),
            DONE,
        ),
        row(
            "sendDtmfTones",
            keys(60),
            Cancel,
            ("failed", "mediaOperationCanceled"),
            (400, 8508),
            CANCELED,
        ),
    ]
}

/// Sections 5.1 and 5.2.
#[tokio::test(flavor = "multi_thread")]
async fn operations_end_with_the_codes_of_the_tables() {
    let mut bot = Bot::start().await;
    let node = Node::start(&bot.config());
    bot.knows(&node.api);
    let rows = rows(&bot);
    let mut offered = Offered::default();
    let mut lines = Vec::new();
    for _ in &rows {
        lines.push(offered.line(&node, &bot).await);
    }
    let bot = &bot;
    join_all(rows.iter().zip(&lines).map(|(row, line)| row.play(bot, line))).await;
}

impl Row {
    async fn play(&self, bot: &Bot, line: &Line) {
        let Self { action, body, deed, .. } = self;
        let mut body = body.clone();
        body["clientContext"] = json!(line.call);
        let call = &line.call;
        let (status, operation) = bot.post(&format!("{call}/{action}"), &body).await;
        assert_eq!(status, 200, "{action} {deed:?}: {operation}");
        let id = operation["id"].as_str().unwrap();
        let speak = || line.phone.speak(&speech().samples(Rate::Hz8000)[..16_000]);
        match deed {
            Deed::Nothing => {}
            Deed::Speak => speak(),
            Deed::SpeakAndPress => {
                speak();
                line.phone.press(Tone::POUND);
            }
            Deed::SpeakAndHangUp => {
                speak();
                sleep(Duration::from_millis(1500)).await;
                line.phone.hang_up().await.unwrap();
            }
            Deed::HangUp => {
                self.begun(bot, call, id).await;
                line.phone.hang_up().await.unwrap();
            }
            Deed::Cancel => {
                self.begun(bot, call, id).await;
                let cancel = format!("{call}/cancelMediaProcessing");
                let (status, canceled) = bot.post(&cancel, &json!({})).await;
                assert_eq!((status, &canceled["status"]), (200, &json!("completed")));
            }
            Deed::BargeIn => {
                self.begun(bot, call, id).await;
                let body = json!({"bargeInAllowed": true, "maxRecordDurationInSeconds": 1});
                let (status, barged) = bot.post(&format!("{call}/record"), &body).await;
                assert_eq!(status, 200, "{barged}");
            }
        }
        let told = bot.wait_for_operation(id).await;
        let message = told["resultInfo"]["message"].as_str().unwrap_or_default().to_owned();
        let has_cause = matches!(self.subcode, 8511 | 8535 | 8536);
        let wanted = if has_cause { &message } else { self.message };
        let wanted =
            json!([call, self.status, self.reason, result(self.code, self.subcode, wanted)]);
        let shown = json!([
            told["clientContext"],
            told["status"],
            told["completionReason"],
            told["resultInfo"]
        ]);
        assert_eq!(shown, wanted, "{action} {deed:?}");
        assert!(message.starts_with(self.message), "{message}");
        assert_eq!(message.len() > self.message.len(), has_cause, "{message}");
        if (*action, self.subcode) == ("sendDtmfTones", 0) {
            let pressed: String = line.phone.keys().iter().map(|key| key.as_char()).collect();
            assert_eq!(pressed, "11", "what the phone heard");
        }
        let location = &told["recordingLocation"];
        match (*action, self.subcode) {
            ("playPrompt" | "sendDtmfTones", _) => assert_eq!(*location, Value::Null),
            (_, 8508) => assert_eq!(*location, json!("")),
            _ if self.status == "completed" => assert!(location.is_string(), "{told}"),
            _ => assert_eq!(*location, Value::Null),
        }
    }

    /// Waits until the operation has begun.
    async fn begun(&self, bot: &Bot, call: &str, id: &str) {
        eventually("the operation runs", Duration::from_secs(10), async || {
            let (_, shown) = bot.get(&format!("calls/{call}/operations/{id}")).await;
            (shown["status"] == "running").then_some(())
        })
        .await;
    }
}

/// How a call ends that the bot places.
enum Placed {
    /// The peer or a timer ends it.
    Itself,
    /// The bot deletes it once it is established.
    Deleted,
    /// A transfer to this number ends it.
    Transferred(&'static str),
}

/// Section 5.3, for calls that the bot places.
#[tokio::test(flavor = "multi_thread")]
async fn placed_calls_end_with_the_codes_of_the_table() {
    let mut bot = Bot::start().await;
    let peer = Peer::start().await;
    let silent = "[media]\nports = \"0-0\"\nrtp_timeout = \"10m\"\n";
    let node = Node::start(&format!("{silent}{}{}", bot.config(), peer.trunk()));
    bot.knows(&node.api);
    use Placed::*;
    let person = format!("sip:{}@{}", peer::PERSON, peer.address);
    let table = [
        (
            "2302",
            Itself,
            over(302, 10_134, "The call was redirected, which the trunk does not allow."),
        ),
        ("2404", Itself, over(404, 8543, "The called participant does not exist.")),
        ("2604", Itself, over(604, 8543, "The called participant does not exist.")),
        ("2480", Itself, over(480, 8541, "The called participant is not available.")),
        ("2486", Itself, over(486, 8539, "The called participant is busy.")),
        ("2487", Itself, over(487, 8542, "The call was canceled.")),
        ("2600", Itself, over(600, 8540, "The called participant is busy everywhere.")),
        ("2603", Itself, over(603, 8538, "The called participant declined.")),
        ("2500", Itself, over(500, 8544, "The called participant could not be reached.")),
        ("2400", Itself, over(400, 8546, "The call was refused.")),
        (peer::RINGS, Itself, over(408, 10_057, "The other participant did not answer.")),
        (peer::SPEECHLESS, Itself, over(488, 301_005, "No media session could be agreed.")),
        (peer::HANGS_UP, Itself, over(200, 540_000, "The telephone participant ended the call.")),
        (&person, Itself, over(200, 4521, "The other participant ended the call.")),
        ("2200", Deleted, over(200, 7000, "The call was ended by the application.")),
        ("2200", Transferred("2200"), over(200, 7015, "The call was transferred.")),
    ];
    let forgotten = placed(&bot, peer::FORGETFUL).await;
    let _caller = Caller::invite(node.sip, "").await;
    let unacknowledged = Offered::default().next(&bot).await;
    let answer = json!({"mediaConfig": {}, "acceptedModalities": ["audio"]});
    let (status, error) = bot.post(&format!("{unacknowledged}/answer"), &answer).await;
    assert_eq!(status, 202, "{error}");

    let bot = &bot;
    let ends = table.iter().map(|(number, end, wanted)| async move {
        let call = placed(bot, number).await;
        match end {
            Itself => {}
            Deleted => {
                bot.wait_for_state(&call, "established").await;
                assert_eq!(bot.hang_up(&call).await, 204);
            }
            Transferred(to) => {
                bot.wait_for_state(&call, "established").await;
                transfer(bot, &call, to).await;
            }
        }
        let told = bot.wait_for_state(&call, "terminated").await;
        assert_eq!(told.item()["changeType"], "deleted");
        assert_eq!(told.data()["resultInfo"], *wanted, "{number}");
    });
    join_all(ends).await;

    // A peer that has forgotten the call is detected by the session refresh, after half of its 90
    // seconds (RFC 4028 section 10); a missing ACK after 64*T1 (RFC 3261 section 13.3.1.4).
    let lost = over(480, 10_076, "The other participant could not be reached any more.");
    let no_ack = over(408, 1106, "The acceptance of the call was never acknowledged.");
    for (call, wanted) in [(unacknowledged, no_ack), (forgotten, lost)] {
        let told = eventually("the end of the call", Duration::from_secs(60), async || {
            let ended =
                |told: &Notified| told.data()["id"] == call && told.data()["state"] == "terminated";
            bot.notifications().into_iter().find(ended)
        })
        .await;
        assert_eq!(told.data()["resultInfo"], wanted);
    }
}

/// Places a call that may ring for two seconds.
async fn placed(bot: &Bot, number: &str) -> String {
    let body = json!({
        "callbackUri": format!("http://{}/api/calls", bot.address),
        "targets": [{"identity": {"phone": {"id": number}}}],
        "mediaConfig": {"@odata.type": "#microsoft.graph.serviceHostedMediaConfig"},
        "ringingTimeoutInSeconds": 2,
    });
    let (status, call) = bot.post("", &body).await;
    assert_eq!((status, &call["state"]), (201, &json!("establishing")), "{number}: {call}");
    call["id"].as_str().unwrap().to_owned()
}

async fn transfer(bot: &Bot, call: &str, to: &str) {
    let body = json!({"transferTarget": {"identity": {"phone": {"id": to}}}});
    let (status, error) = bot.post(&format!("{call}/transfer"), &body).await;
    assert_eq!(status, 202, "{error}");
}

/// Waits for the notification that a transfer of a call has failed, and returns it.
async fn failed_transfer(bot: &Bot, call: &str) -> Value {
    let told = bot
        .wait_for("the transfer's end", |told| {
            told.data()["id"] == call
                && told.data()["state"] == "established"
                && told.data()["resultInfo"].is_object()
        })
        .await;
    assert_eq!(told.item()["changeType"], "updated");
    assert_eq!(told.data()["mediaState"]["audio"], "active");
    told.data()["resultInfo"].clone()
}

/// Section 2.4: the call is as before, and the failure is not notified again.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_fails_is_told_once_and_by_its_kind() {
    let mut bot = Bot::start().await;
    let peer = Peer::start().await;
    let node = Node::start(&format!("{}{}", bot.config(), peer.trunk()));
    bot.knows(&node.api);
    let call = placed(&bot, "2200").await;
    bot.wait_for_state(&call, "established").await;
    transfer(&bot, &call, "2486").await;
    let blind = over(500, 7000, "The transfer failed.");
    assert_eq!(failed_transfer(&bot, &call).await, blind);
    let transferring = bot.wait_for_state(&call, "transferring").await;
    assert_eq!(transferring.data()["mediaState"]["audio"], "inactive");

    // The other call comes first: it can be replaced only when it is established.
    let consultative = |other: &str| json!({"transferTarget": {"replacesCallId": other}});
    let path = format!("{call}/transfer");
    let rings = placed(&bot, peer::RINGS).await;
    let (status, error) = bot.post(&path, &consultative(&rings)).await;
    assert_eq!((status, &error["error"]["code"]), (400, &json!("8501")), "{error}");
    let (status, error) = bot.post(&path, &consultative(&call)).await;
    assert_eq!((status, &error["error"]["code"]), (400, &json!("8523")), "{error}");
    let stranger = "0fe0623f-d628-42ed-b4bd-8ac290072cc5";
    let (status, error) = bot.post(&path, &consultative(stranger)).await;
    assert_eq!((status, &error["error"]["code"]), (404, &json!("8522")), "{error}");
    assert_eq!(peer.heard("REFER").len(), 1, "nobody was referred by these");

    let other = placed(&bot, "2200404").await;
    bot.wait_for_state(&other, "established").await;
    let (status, error) = bot.post(&path, &consultative(&other)).await;
    assert_eq!(status, 202, "{error}");
    let failed = over(500, 7700, "The transfer failed.");
    bot.wait_for("the second failure", |told| {
        told.data()["id"] == call && told.data()["resultInfo"] == failed
    })
    .await;
    let (_, shown) = bot.get(&format!("calls/{call}")).await;
    assert_eq!((&shown["state"], &shown["resultInfo"]), (&json!("established"), &Value::Null));

    // In the REFER: the other call's peer, and the dialog that we have with it (RFC 3891).
    let refer = peer.heard("REFER").pop().unwrap();
    let invite = peer.heard("INVITE").into_iter().find(|text| text.contains("2200404")).unwrap();
    let call_id = invite.lines().find_map(|line| line.strip_prefix("Call-ID: ")).unwrap();
    let refer_to = refer.lines().find(|line| line.starts_with("Refer-To:")).unwrap();
    let wanted = format!("<sip:2200404@{}?Replaces={call_id}%3B", peer.address);
    assert!(refer_to.contains(&wanted), "{refer_to} has not {wanted}");
    assert!(refer_to.contains("to-tag%3Dpeer"), "{refer_to}");

    assert_eq!(bot.hang_up(&call).await, 204);
    let told = bot.wait_for_state(&call, "terminated").await;
    assert_eq!(told.data()["resultInfo"]["subcode"], 7000);
    let failures = bot
        .notifications()
        .iter()
        .filter(|told| told.data()["id"] == call && told.data()["resultInfo"]["code"] == 500)
        .count();
    assert_eq!(failures, 2, "each was told once");
}

/// Section 5.3, for incoming calls, and for calls that reach a timeout of the configuration.
#[tokio::test(flavor = "multi_thread")]
async fn incoming_calls_end_with_the_codes_of_the_table() {
    let mut bot = Bot::start().await;
    let node = Node::start(&format!(
        "[calls]\nanswer_timeout = \"4s\"\nkeep_alive = \"8s\"\n{}",
        bot.config()
    ));
    bot.knows(&node.api);
    let mut offered = Offered::default();

    let hung_up = offered.line(&node, &bot).await;
    hung_up.phone.hang_up().await.unwrap();
    let deleted = offered.line(&node, &bot).await;
    assert_eq!(bot.hang_up(&deleted.call).await, 204);
    let lease = offered.line(&node, &bot).await;
    let renewed = offered.line(&node, &bot).await;
    let canceling = Caller::invite(node.sip, "").await;
    let canceled = offered.next(&bot).await;
    canceling.send("CANCEL", "", "").await;
    let silent = Caller::invite(node.sip, "").await;
    let unanswered = offered.next(&bot).await;
    let refused = Caller::invite(node.sip, "").await;
    let rejected = offered.next(&bot).await;
    let (status, error) = bot.post(&format!("{rejected}/reject"), &json!({})).await;
    assert_eq!(status, 202, "{error}");
    let moved = Caller::invite(node.sip, "").await;
    let redirected = offered.next(&bot).await;
    let elsewhere = json!({"targets": [{"identity": {"user": {"id": "sip:a@b.example"}}}]});
    let (status, error) = bot.post(&format!("{redirected}/redirect"), &elsewhere).await;
    assert_eq!(status, 202, "{error}");

    let table = [
        (&hung_up.call, over(200, 4521, "The other participant ended the call.")),
        (&deleted.call, over(200, 7000, "The call was ended by the application.")),
        (&canceled, over(200, 4521, "The caller canceled before the call was answered.")),
        (&rejected, over(200, 7000, "The call was rejected by the application.")),
        (&redirected, over(200, 7000, "The call was redirected by the application.")),
        (&unanswered, over(408, 8587, "The incoming call was not answered within its time.")),
        (&lease.call, over(408, 8537, "No keepAlive came within its time.")),
    ];
    // Meanwhile one application keeps its call with keepAlive.
    let stays = async {
        for _ in 0..5 {
            let (status, _) = bot.post(&format!("{}/keepAlive", renewed.call), &Value::Null).await;
            assert_eq!(status, 200);
            sleep(Duration::from_secs(2)).await;
        }
        let (status, shown) = bot.get(&format!("calls/{}", renewed.call)).await;
        assert_eq!((status, &shown["state"]), (200, &json!("established")), "{shown}");
        let (status, _) = bot.post(&format!("{}/keepAlive", lease.call), &Value::Null).await;
        assert_eq!(status, 404, "its lease is over");
    };
    let told = join_all(table.iter().map(|(call, _)| bot.wait_for_state(call, "terminated")));
    let (told, ()) = tokio::join!(told, stays);
    for (told, (_, wanted)) in told.iter().zip(&table) {
        assert_eq!(told.data()["resultInfo"], *wanted);
    }
    drop((canceling, silent, refused, moved));
}

/// Section 5.3: a peer without RTP, a server that is shut down. Section 5.1: a clip that cannot be
/// kept.
#[tokio::test(flavor = "multi_thread")]
async fn faults_end_with_the_codes_of_the_tables() {
    let mut bot = Bot::start().await;
    let peer = Peer::start().await;
    let mut node = Node::start(&format!(
        "[media]\nports = \"0-0\"\nrtp_timeout = \"2s\"\n[calls]\ndrain_timeout = \"1s\"\n{}{}",
        bot.config(),
        peer.trunk()
    ));
    bot.knows(&node.api);
    let call = placed(&bot, "2200").await;
    let told = bot.wait_for_state(&call, "terminated").await;
    // The message names both addresses; the port of our own one is not fixed.
    let told = &told.data()["resultInfo"];
    let sentence = told["message"].as_str().unwrap();
    assert!(sentence.starts_with("No media came from the other participant: we expected it at "));
    let sentence = sentence.trim_end_matches(" DiagCode: 410#301005.@");
    assert_eq!(*told, over(410, 301_005, sentence));

    let line = Offered::default().line(&node, &bot).await;
    let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 1});
    let (status, operation) = bot.post(&format!("{}/record", line.call), &body).await;
    assert_eq!(status, 200, "{operation}");
    let recordings = node.folder().join("recordings");
    std::fs::remove_dir_all(&recordings).unwrap();
    std::fs::write(&recordings, "").unwrap();
    let told = bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
    assert_eq!(
        (&told["status"], &told["completionReason"]),
        (&json!("failed"), &json!("unspecifiedError"))
    );
    let sentence = "Action failed, the disk for recordings failed or is full.";
    assert_eq!(told["resultInfo"], result(500, 9999, sentence));
    let (status, refused) = bot.post(&format!("{}/record", line.call), &body).await;
    assert_eq!((status, &refused["error"]["code"]), (503, &json!("ServiceUnavailable")));

    node.signal("TERM");
    let told = bot.wait_for_state(&line.call, "terminated").await;
    assert_eq!(told.data()["resultInfo"], over(503, 7106, "The server was shut down."));
    assert!(node.wait(Duration::from_secs(20)).success());
}
