//! Whole calls: a daemon in its own process, a scripted phone, and a bot that uses HTTP.

mod support;

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use aftertone::{drivers::prompts::bundled_wav, service::demo::phone::Phone};
use aftertone_core::{
    audio::{
        Rate,
        beep::{BEEP_FRAMES, BEEP_HZ},
        measure::{best_match, level_dbfs, tone_level_dbfs},
        wav,
    },
    model::Tone,
};
use axum::http::StatusCode;
use serde_json::{Value, json};
use support::{
    Node,
    bot::Bot,
    eventually,
    raw::{Peer, SDP},
    speech,
};
use tokio::{
    net::UdpSocket,
    time::{sleep, timeout},
};

const EDGE_MS: f64 = 40.0;

async fn node_and_bot(extra: &str) -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let node = Node::start(&format!("{extra}{}", bot.config()));
    bot.knows(&node.api);
    (node, bot)
}

/// The position in the received audio where the `n`-th beep (from 0) ends.
async fn beep_end(phone: &Phone, n: usize) -> usize {
    eventually("the beep", Duration::from_secs(20), async || {
        let heard = phone.heard();
        let frame = Rate::Hz8000.frame_len();
        let (mut run, mut beeps) = (0, 0);
        for (index, piece) in heard.chunks_exact(frame).enumerate() {
            if tone_level_dbfs(piece, 8_000, f64::from(BEEP_HZ)) > -30.0 {
                run += 1;
                continue;
            }
            if run + 2 >= BEEP_FRAMES {
                if beeps == n {
                    return Some(index * frame);
                }
                beeps += 1;
            }
            run = 0;
        }
        None
    })
    .await
}

async fn spoken(phone: &Phone) {
    eventually("all is spoken", Duration::from_secs(20), async || phone.is_quiet().then_some(()))
        .await;
}

fn pound() -> Tone {
    Tone::parse("#").unwrap()
}

fn decode(clip: &[u8]) -> Vec<i16> {
    let decoded = wav::read(clip, wav::Limits { max_seconds: 600 }).expect("a WAV file");
    assert_eq!(decoded.rate_hz, 16_000);
    decoded.samples
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_the_record_page_works_as_printed() {
    let (node, bot) = node_and_bot("").await;
    let prompt =
        bot.serve("short.wav", std::fs::read("src/drivers/prompts/assets/goodbye.wav").unwrap());
    let calling = tokio::spawn({
        let sip = node.sip;
        async move { Phone::call(sip, "bot").await.expect("answered") }
    });
    let call = bot.take_call().await;
    let phone = calling.await.unwrap();
    let body = json!({
        "bargeInAllowed": true,
        "clientContext": "d45324c1-fcb5-430a-902c-f20af696537c",
        "prompts": [{
            "@odata.type": "#microsoft.graph.mediaPrompt",
            "mediaInfo": {"uri": prompt, "resourceId": "1D6DE2D4-CD51-4309-8DAA-70768651088E"}
        }],
        "maxRecordDurationInSeconds": 10,
        "initialSilenceTimeoutInSeconds": 5,
        "maxSilenceTimeoutInSeconds": 2,
        "playBeep": true,
        "stopTones": ["#", "1", "*"]
    });
    let url = format!("{}/beta/app/calls/{call}/record", node.api);
    let response = bot
        .client
        .post(url)
        .bearer_auth(support::bot::TOKEN)
        .header("content-type", "application/json")
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let answer: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    let operation = answer["id"].as_str().unwrap();
    assert_eq!(answer["@odata.type"], "#microsoft.graph.recordOperation");
    assert_eq!(answer["status"], "running");
    assert_eq!(answer["clientContext"], "d45324c1-fcb5-430a-902c-f20af696537c");
    assert!(location.ends_with(&format!("/calls/{call}/operations/{operation}")), "{location}");
    assert!(location.starts_with(&format!("{}/beta/", node.api)), "{location}");

    let beep = beep_end(&phone, 0).await;
    phone.speak(speech().samples(Rate::Hz8000));
    phone.press(pound());
    let ended = bot.wait_for_operation(operation).await;
    assert_eq!(ended["status"], "completed");
    assert_eq!(ended["completionReason"], "stopToneDetected");
    assert_eq!(ended["resultInfo"]["code"], 200);
    assert_eq!(ended["resultInfo"]["subcode"], 8514);
    assert_eq!(ended["clientContext"], "d45324c1-fcb5-430a-902c-f20af696537c");

    let clip = decode(&bot.download(&ended).await);
    let speech = speech();
    let reference = speech.samples(Rate::Hz16000);
    let (lag, likeness) = best_match(reference, &clip, 16_000);
    assert!(likeness > 0.95, "likeness {likeness}");
    // The clip begins at the beep's end: its leading silence is as long as the phone waited.
    let waited = phone.first_spoken_at().unwrap() - phone.heard_at(beep).unwrap();
    let start_ms = waited.as_secs_f64() * 1000.0 - lag as f64 / 16.0;
    assert!(start_ms.abs() <= EDGE_MS, "starts {start_ms} ms from the beep's end");
    let after = clip.len() as f64 - lag as f64 - reference.len() as f64;
    assert!((after / 16.0).abs() <= EDGE_MS, "ends {} ms from the tone", after / 16.0);
    let lead = &clip[..usize::try_from(lag).unwrap_or(0).max(320)];
    assert!(tone_level_dbfs(lead, 16_000, f64::from(BEEP_HZ)) < -50.0);

    assert_eq!(bot.hang_up(&call).await, 204);
    bot.wait_for_state(&call, "terminated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_told_in_order_from_incoming_to_terminated() {
    let (node, bot) = node_and_bot("").await;
    let calling = tokio::spawn({
        let sip = node.sip;
        async move { Phone::call(sip, "bot").await.expect("answered") }
    });
    let call = bot.take_call().await;
    let phone = calling.await.unwrap();
    let (_, operation) =
        bot.post(&format!("{call}/subscribeToTone"), &json!({"clientContext": "t"})).await;
    assert_eq!(operation["status"], "completed");
    phone.press(Tone::parse("5").unwrap());
    bot.wait_for("the tone", |n| n.data()["toneInfo"]["tone"] == "tone5").await;
    phone.hang_up().await.unwrap();
    bot.wait_for_state(&call, "terminated").await;
    let states: Vec<String> = bot
        .notifications()
        .iter()
        .map(|n| {
            let tone = n.data()["toneInfo"]["tone"].as_str().unwrap_or_default();
            let state = n.data()["state"].as_str().unwrap_or_default();
            format!("{} {state}{tone}", n.item()["changeType"].as_str().unwrap())
        })
        .collect();
    assert_eq!(
        states,
        [
            "created incoming",
            "updated establishing",
            "updated established",
            "updated establishedtone5",
            "deleted terminated",
        ]
    );
    let last = bot.notifications().last().unwrap().data().clone();
    assert_eq!(last["resultInfo"]["code"], 200);
    assert_eq!(last["resultInfo"]["subcode"], 4521);
    let (status, error) = bot.get(&format!("calls/{call}")).await;
    assert_eq!((status, error["error"]["code"].as_str()), (404, Some("8522")));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_while_recording_leaves_a_clip() {
    let (node, bot) = node_and_bot("[storage]\nretention = \"2s\"\n").await;
    let calling = tokio::spawn({
        let sip = node.sip;
        async move { Phone::call(sip, "bot").await.expect("answered") }
    });
    let call = bot.take_call().await;
    let phone = calling.await.unwrap();
    let body = json!({"maxRecordDurationInSeconds": 60, "playBeep": true});
    let (status, operation) = bot.post(&format!("{call}/recordResponse"), &body).await;
    assert_eq!(status, 200, "{operation}");
    beep_end(&phone, 0).await;
    phone.speak(speech().samples(Rate::Hz8000));
    spoken(&phone).await;
    let begun = Instant::now();
    phone.hang_up().await.unwrap();
    let ended = bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
    assert_eq!(ended["status"], "completed");
    assert_eq!(ended["resultInfo"]["subcode"], 8588);
    let clip = bot.download(&ended).await;
    bot.wait_for_state(&call, "terminated").await;
    // The operation's end is notified before the call's end.
    let last = bot.notifications().last().unwrap().data()["state"].clone();
    assert_eq!(last, "terminated");
    // The call is purged two seconds after that.
    eventually("the purge", Duration::from_secs(10), async || {
        (bot.fetch(&ended).await.status() == 404).then_some(())
    })
    .await;
    assert!(begun.elapsed() > Duration::from_millis(1_990), "purged before its time");
    eventually("the file goes", Duration::from_secs(5), async || {
        node.clips().is_empty().then_some(())
    })
    .await;
    // The echo has the same timing as the speech.
    let (_, likeness) = best_match(speech().samples(Rate::Hz16000), &decode(&clip), 16_000);
    assert!(likeness > 0.95, "likeness {likeness}");
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_queue_are_canceled_and_barged_into() {
    let (node, bot) = node_and_bot("").await;
    let prompt =
        bot.serve("long.wav", std::fs::read("src/drivers/prompts/assets/greeting.wav").unwrap());
    let calling = tokio::spawn({
        let sip = node.sip;
        async move { Phone::call(sip, "bot").await.expect("answered") }
    });
    let call = bot.take_call().await;
    let phone = calling.await.unwrap();
    let prompts = json!([{"@odata.type": "#microsoft.graph.mediaPrompt",
                          "mediaInfo": {"uri": prompt}}]);
    let play = json!({"clientContext": "play", "prompts": prompts});
    let mut ids = Vec::new();
    for expected in ["running", "notStarted"] {
        let (status, operation) = bot.post(&format!("{call}/playPrompt"), &play).await;
        assert_eq!(status, 200, "{operation}");
        assert_eq!(operation["status"], expected);
        ids.push(operation["id"].as_str().unwrap().to_owned());
    }
    let record = json!({"bargeInAllowed": true, "playBeep": false, "maxSilenceTimeoutInSeconds": 1,
                        "initialSilenceTimeoutInSeconds": 1});
    let (_, recording) = bot.post(&format!("{call}/recordResponse"), &record).await;
    assert_eq!(recording["status"], "running");
    for id in &ids {
        let ended = bot.wait_for_operation(id).await;
        assert_eq!(ended["status"], "failed");
        assert_eq!(ended["resultInfo"]["code"], 400);
        assert_eq!(ended["resultInfo"]["subcode"], 8508);
    }
    let ended = bot.wait_for_operation(recording["id"].as_str().unwrap()).await;
    assert_eq!(ended["resultInfo"]["subcode"], 8510, "{ended}");

    let (_, operation) = bot.post(&format!("{call}/playPrompt"), &play).await;
    sleep(Duration::from_millis(500)).await;
    let (status, cancel) =
        bot.post(&format!("{call}/cancelMediaProcessing"), &json!({"clientContext": "c"})).await;
    assert_eq!(status, 200);
    assert_eq!(cancel["status"], "completed");
    let ended = bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
    assert_eq!(ended["resultInfo"]["subcode"], 8508);
    // The prompt stops soon after.
    sleep(Duration::from_millis(200)).await;
    let heard = phone.heard();
    assert!(level_dbfs(&heard[heard.len() - 800..]) < -60.0);
    let (_, all) = bot.get(&format!("calls/{call}/operations")).await;
    assert_eq!(all["value"].as_array().unwrap().len(), 5, "{all}");
    phone.hang_up().await.unwrap();
    bot.wait_for_state(&call, "terminated").await;
    // Each operation's end is notified exactly once.
    for id in &ids {
        let told = bot.notifications().iter().filter(|n| n.data()["id"] == **id).count();
        assert_eq!(told, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_cannot_be_played_fails_and_says_why() {
    let (node, bot) = node_and_bot("").await;
    let page = bot.serve("page", b"<!doctype html><title>login</title>".to_vec());
    let calling = tokio::spawn({
        let sip = node.sip;
        async move { Phone::call(sip, "bot").await.expect("answered") }
    });
    let call = bot.take_call().await;
    let _phone = calling.await.unwrap();
    for (uri, subcode, words) in [
        (page, 8535, "HTML"),
        (format!("http://{}/files/none.wav", bot.address), 8536, "404"),
        ("http://10.1.2.3/a.wav".to_owned(), 8536, "allow_networks"),
        ("file:///etc/passwd".to_owned(), 8536, "prompt_folder"),
    ] {
        let body = json!({"prompts": [{"mediaInfo": {"uri": uri}}]});
        let (status, operation) = bot.post(&format!("{call}/playPrompt"), &body).await;
        assert_eq!(status, 200, "{operation}");
        let ended = bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
        assert_eq!(ended["status"], "failed");
        assert_eq!(ended["resultInfo"]["subcode"], subcode, "{ended}");
        let message = ended["resultInfo"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_prompts_the_one_that_cannot_be_played_is_named() {
    let (node, bot) = node_and_bot("").await;
    let good = bot.serve("good.wav", bundled_wav("goodbye").unwrap().to_vec());
    let page = bot.serve("page", b"<!doctype html><title>login</title>".to_vec());
    let none = format!("http://{}/files/none.wav", bot.address);
    let calling = tokio::spawn({
        let sip = node.sip;
        async move { Phone::call(sip, "bot").await.expect("answered") }
    });
    let call = bot.take_call().await;
    let _phone = calling.await.unwrap();
    for (uris, begin, words) in [
        (vec![&good, &good, &none, &good], "prompts[2]: ", "404"),
        (vec![&page, &good], "prompts[0]: ", "HTML"),
        (vec![&none], "The prompt ", "404"),
    ] {
        let prompts: Vec<Value> =
            uris.iter().map(|uri| json!({"mediaInfo": {"uri": uri}})).collect();
        let body = json!({"prompts": prompts});
        let (status, operation) = bot.post(&format!("{call}/playPrompt"), &body).await;
        assert_eq!(status, 200, "{operation}");
        let ended = bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
        let message = ended["resultInfo"]["message"].as_str().unwrap();
        assert!(message.starts_with(begin) && message.contains(words), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_is_away_is_told_later_and_in_order() {
    let (node, bot) = node_and_bot("").await;
    bot.answer_with(&[StatusCode::INTERNAL_SERVER_ERROR, StatusCode::SERVICE_UNAVAILABLE]);
    let calling = tokio::spawn({
        let sip = node.sip;
        async move { Phone::call(sip, "bot").await.expect("answered") }
    });
    bot.wait_for("the third attempt", |n| {
        n.data()["state"] == "incoming" && n.answer == StatusCode::ACCEPTED
    })
    .await;
    let call = bot.take_call().await;
    let phone = calling.await.unwrap();
    phone.hang_up().await.unwrap();
    bot.wait_for_state(&call, "terminated").await;
    let taken: Vec<_> = bot
        .notifications()
        .iter()
        .filter(|n| n.answer == StatusCode::ACCEPTED)
        .map(|n| n.data()["state"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(taken, ["incoming", "establishing", "established", "terminated"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_bot_and_a_bot_that_says_no_are_told_to_the_caller() {
    let (node, bot) = node_and_bot("[calls]\nanswer_timeout = \"1s\"\n").await;
    let refused = Phone::call(node.sip, "bot").await.err().expect("refused").to_string();
    assert!(refused.contains("480"), "{refused}");
    let calling = tokio::spawn({
        let sip = node.sip;
        async move { Phone::call(sip, "bot").await }
    });
    let second = eventually("the second call", Duration::from_secs(5), async || {
        let incoming: Vec<_> = bot
            .notifications()
            .iter()
            .filter(|n| n.data()["state"] == "incoming")
            .map(|n| n.data()["id"].as_str().unwrap().to_owned())
            .collect();
        incoming.get(1).cloned()
    })
    .await;
    let (status, _) = bot.post(&format!("{second}/reject"), &json!({"reason": "Busy"})).await;
    assert_eq!(status, 202);
    let refused = calling.await.unwrap().err().expect("refused").to_string();
    assert!(refused.contains("486"), "{refused}");
    bot.wait_for_state(&second, "terminated").await;
    let refused = Phone::call(node.sip, "nobody").await.err().expect("refused").to_string();
    assert!(refused.contains("404"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lines_answer_without_a_bot() {
    let node = Node::start("");
    let phone = Phone::call(node.sip, "echo").await.expect("answered");
    phone.speak(speech().samples(Rate::Hz8000));
    spoken(&phone).await;
    sleep(Duration::from_millis(500)).await;
    let speech = speech();
    let (_, likeness) = best_match(speech.samples(Rate::Hz8000), &phone.heard(), 16_000);
    assert!(likeness > 0.95, "echo: {likeness}");
    let mut phone = phone;
    phone.press(pound());
    tokio::time::timeout(Duration::from_secs(5), phone.ended()).await.expect("the line hangs up");

    let mut phone = Phone::call(node.sip, "voicemail").await.expect("answered");
    beep_end(&phone, 0).await;
    phone.speak(speech.samples(Rate::Hz8000));
    phone.press(Tone::parse("1").unwrap());
    spoken(&phone).await;
    // Key 1 plays the message back.
    let said = phone.heard().len();
    sleep(Duration::from_secs(5)).await;
    let (_, likeness) = best_match(speech.samples(Rate::Hz8000), &phone.heard()[said..], 24_000);
    assert!(likeness > 0.9, "played back: {likeness}");
    phone.press(pound());
    tokio::time::timeout(Duration::from_secs(15), phone.ended()).await.expect("goodbye");
    assert_eq!(node.clips().len(), 1);
}

/// A tone as a WAV file.
fn tone(hz: f64, ms: u32) -> Vec<u8> {
    let count = 16 * ms;
    let sample =
        |n| (8_000.0 * (std::f64::consts::TAU * hz * f64::from(n) / 16_000.0).sin()) as i16;
    let samples = (0..count).flat_map(|n| sample(n).to_le_bytes());
    wav::header(2 * count).into_iter().chain(samples).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_of_a_queue_follow_each_other_without_hold_music_between() {
    const MUSIC_HZ: f64 = 400.0;
    const PROMPT_HZ: f64 = 1_500.0;
    const PROMPTS: usize = 4;
    let (node, bot) = node_and_bot("").await;
    let sip = node.sip;
    let calling = tokio::spawn(async move { Phone::call(sip, "bot").await.expect("answered") });
    let call = bot.take_call().await;
    let phone = calling.await.unwrap();
    let prompt =
        |uri| json!({"@odata.type": "#microsoft.graph.mediaPrompt", "mediaInfo": {"uri": uri}});
    let (_, all) = bot.get(&format!("calls/{call}/participants")).await;
    let side = format!("{call}/participants/{}", all["value"][1]["id"].as_str().unwrap());
    let music = json!({"customPrompt": prompt(bot.serve("music.wav", tone(MUSIC_HZ, 1_000)))});
    let (status, hold) = bot.post(&format!("{side}/startHoldMusic"), &music).await;
    assert_eq!(status, 202, "{hold}");
    let mut operations = Vec::new();
    for number in 0..PROMPTS {
        // The other operations are queued before the first one is over.
        let ms = if number == 0 { 3_000 } else { 300 };
        let uri = bot.serve(&format!("{number}.wav"), tone(PROMPT_HZ, ms));
        let body = json!({"prompts": [prompt(uri)]});
        let (status, operation) = bot.post(&format!("{call}/playPrompt"), &body).await;
        assert_eq!(status, 200, "{operation}");
        operations.push(operation["id"].as_str().unwrap().to_owned());
    }
    for operation in &operations {
        assert_eq!(bot.wait_for_operation(operation).await["status"], "completed");
    }
    let is_prompt = |frame: &[i16]| tone_level_dbfs(frame, 8_000, PROMPT_HZ) > -25.0;
    let heard = phone.heard();
    let frames: Vec<bool> = heard.chunks_exact(160).map(is_prompt).collect();
    let said = frames.iter().filter(|is_prompt| **is_prompt).count();
    assert!(said > 160, "{said} frames of prompts");
    let gaps: Vec<usize> = frames
        .split(|is_prompt| *is_prompt)
        .map(<[bool]>::len)
        .filter(|frames| *frames > 0)
        .collect();
    // The gaps between two prompts, without the music before the first and after the last one. On a
    // loaded machine some gaps may be late, so the shortest one counts.
    let between = gaps.get(1..gaps.len().saturating_sub(1)).unwrap_or_default();
    let shortest = if between.len() < PROMPTS - 1 { 0 } else { *between.iter().min().unwrap() };
    assert!(shortest <= 2, "frames without a prompt: {gaps:?}");
    // Each prompt is notified when it has been played, in order.
    let told = bot.notifications().into_iter().filter_map(|told| {
        operations.iter().position(|operation| told.data()["id"] == **operation)
    });
    assert!(told.eq(0..PROMPTS));
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_calls_cleanly_and_keeps_their_clips() {
    let mut bot = Bot::start().await;
    let extra = format!("[calls]\ndrain_timeout = \"1s\"\n{}", bot.config());
    let mut node = Node::start(&extra);
    bot.knows(&node.api);
    let calling = tokio::spawn({
        let sip = node.sip;
        async move { Phone::call(sip, "bot").await.expect("answered") }
    });
    let call = bot.take_call().await;
    let mut phone = calling.await.unwrap();
    let body = json!({"maxRecordDurationInSeconds": 60, "playBeep": false});
    let (_, operation) = bot.post(&format!("{call}/recordResponse"), &body).await;
    phone.speak(speech().samples(Rate::Hz8000));
    sleep(Duration::from_secs(2)).await;
    node.signal("TERM");
    let refused = Phone::call(node.sip, "bot").await.err().expect("refused").to_string();
    assert!(refused.contains("503"), "{refused}");
    tokio::time::timeout(Duration::from_secs(10), phone.ended()).await.expect("a BYE");
    let ended = bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
    assert_eq!(ended["status"], "completed");
    bot.wait_for_state(&call, "terminated").await;
    assert!(node.wait(Duration::from_secs(20)).success());
    assert_eq!(node.clips().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clip_of_a_line_is_open_to_applications_until_it_is_deleted() {
    let (node, bot) = node_and_bot("").await;
    let phone = Phone::call(node.sip, "voicemail").await.expect("answered");
    beep_end(&phone, 0).await;
    phone.speak(&speech().samples(Rate::Hz8000)[..8000]);
    spoken(&phone).await;
    phone.hang_up().await.unwrap();
    let clip = eventually("the clip", Duration::from_secs(10), async || {
        node.clips().into_iter().find(|path| path.extension().is_some_and(|e| e == "wav"))
    })
    .await;
    let id = clip.file_stem().unwrap().to_str().unwrap().to_owned();
    let url = format!("{}/recordings/{id}", node.api);
    // The row says that the clip is ready shortly after the file has been renamed.
    eventually("the download", Duration::from_secs(5), async || {
        let request = bot.client.get(&url).bearer_auth(support::bot::TOKEN);
        let response = request.send().await.unwrap();
        (response.status() == 200).then_some(())
    })
    .await;
    let stranger = bot.client.get(&url).bearer_auth("guess").send().await.unwrap();
    assert_eq!(stranger.status(), 401);
    let deleted = bot.client.delete(&url).bearer_auth(support::bot::TOKEN).send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    eventually("the file goes", Duration::from_secs(5), async || {
        node.clips().is_empty().then_some(())
    })
    .await;
    let gone = bot.client.get(&url).bearer_auth(support::bot::TOKEN).send().await.unwrap();
    assert_eq!(gone.status(), 404);
}

/// Sends a second of audio from `host` to the address in `answer`; returns whether an echo comes
/// back.
async fn is_echoed(host: [u8; 4], answer: &str) -> bool {
    let socket = UdpSocket::bind((IpAddr::from(host), 0)).await.unwrap();
    let (_, rest) = answer.split_once("m=audio ").unwrap();
    let port: u16 = rest.split(' ').next().unwrap().parse().unwrap();
    socket.connect(("127.0.0.1", port)).await.unwrap();
    for number in 0..50_u16 {
        let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host[3]];
        packet[2..4].copy_from_slice(&number.to_be_bytes());
        packet[4..8].copy_from_slice(&(u32::from(number) * 160).to_be_bytes());
        packet.extend([0x55; 160]);
        socket.send(&packet).await.unwrap();
        let mut buffer = [0; 2_048];
        let heard = timeout(Duration::from_millis(20), socket.recv(&mut buffer)).await;
        if matches!(heard, Ok(Ok(_))) && number > 10 {
            return true;
        }
    }
    false
}

/// A phone moves from one NAT to another during its call: the address in each of its session
/// descriptions cannot be reached from here.
#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_moves_to_another_network_is_heard_there() {
    let (node, _bot) = node_and_bot("").await;
    let private = SDP.replace("c=IN IP4 127.0.0.1", "c=IN IP4 10.11.12.13");
    let anew = private.replace("o=- 1 1", "o=- 1 2");
    let mut phone = Peer::new([127, 0, 0, 1].into(), node.sip, "echo", "moves").await;
    phone.say("INVITE", 1, "one", &private).await;
    let answer = phone.wait_for("INVITE", |status| status == 200).await;
    phone.say("ACK", 1, "one-ack", "").await;
    assert!(is_echoed([127, 0, 0, 1], &answer).await);

    phone.moves_to([127, 0, 0, 2].into()).await;
    phone.say("INVITE", 2, "two", &anew).await;
    let answer = phone.wait_for("INVITE", |status| status == 200).await;
    phone.say("ACK", 2, "two-ack", "").await;
    assert!(is_echoed([127, 0, 0, 2], &answer).await);
    phone.say("BYE", 3, "bye", "").await;
    phone.wait_for("BYE", |status| status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_of_each_call_how_it_ended() {
    let extra = "[calls]\nanswer_timeout = \"500ms\"\n\
                 [[users]]\nname = \"alice\"\npassword = \"secret\"\n\
                 [[routes]]\nto = \"inside\"\nline = \"echo\"\n";
    let (node, _bot) = node_and_bot(extra).await;
    let phone = Phone::call(node.sip, "echo").await.unwrap();
    phone.hang_up().await.unwrap();
    node.logs("Call over: The other participant ended the call. duration_ms=", 1).await;

    let localhost = std::net::Ipv4Addr::LOCALHOST.into();
    let mut caller = Peer::new(localhost, node.sip, "bot", "unanswered").await;
    caller.say("INVITE", 1, "unanswered", SDP).await;
    caller.wait_for("INVITE", |status| status == 480).await;
    let end = "Call over: The incoming call was not answered within its time. sip.status=480 \
               duration_ms=";
    node.logs(end, 1).await;

    // A challenge is not a refusal: the log has one line for the 400 and none for the 401.
    let mut caller = Peer::new(localhost, node.sip, "inside", "challenged").await;
    caller.say("INVITE", 1, "challenged", SDP).await;
    caller.wait_for("INVITE", |status| status == 401).await;
    let mut caller = Peer::new(localhost, node.sip, "bot", "unreadable").await;
    caller.send(caller.invite_with("application/sdp", b"nonsense")).await;
    caller.wait_for("INVITE", |status| status == 400).await;
    node.logs("Call refused: ", 1).await;
}
