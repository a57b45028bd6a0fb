//! What survives `kill -9`: clips, the ends of operations and calls, notifications, purges.

mod support;

use std::{collections::HashMap, time::Duration};

use aftertone::service::demo::phone::Phone;
use aftertone_core::audio::{Rate, measure::best_match};
use axum::http::StatusCode;
use serde_json::json;
use support::{Node, bot::Bot, eventually, speech};

const CALLS: usize = 10;

#[tokio::test(flavor = "multi_thread")]
async fn ten_recordings_survive_a_kill_and_are_told_and_purged() {
    let mut bot = Bot::start().await;
    // The API stays at one address, so that links announced before the kill stay valid.
    let api = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let extra =
        format!("[api]\nlisten = \"{api}\"\n[storage]\nretention = \"4s\"\n{}", bot.config());
    let node = Node::start(&extra);
    bot.knows(&node.api);
    let mut phones = Vec::new();
    let mut operations = HashMap::new();
    for index in 0..CALLS {
        let calling = tokio::spawn({
            let sip = node.sip;
            async move { Phone::call(sip, "bot").await.expect("answered") }
        });
        let call = eventually("the next call", Duration::from_secs(10), async || {
            let incoming: Vec<_> = bot
                .notifications()
                .iter()
                .filter(|n| n.data()["state"] == "incoming")
                .map(|n| n.data()["id"].as_str().unwrap().to_owned())
                .collect();
            incoming.get(index).cloned()
        })
        .await;
        bot.answer(&call).await;
        let phone = calling.await.unwrap();
        let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 60});
        let (status, operation) = bot.post(&format!("{call}/recordResponse"), &body).await;
        assert_eq!(status, 200, "{operation}");
        phone.speak(speech().samples(Rate::Hz8000));
        phones.push(phone);
        operations.insert(operation["id"].as_str().unwrap().to_owned(), call);
    }
    // The last phone has spoken for a little over three seconds now.
    tokio::time::sleep(Duration::from_millis(3200)).await;
    let spoken_for = phones.last().unwrap().first_spoken_at().unwrap().elapsed();
    let folder = node.kill();
    assert_eq!(support::clips_in(&folder.path().join("recordings")).len(), CALLS);

    let node = Node::start_in(folder, &extra);
    for (operation, call) in &operations {
        let ended = bot.wait_for_operation(operation).await;
        assert_eq!(ended["status"], "completed", "{ended}");
        assert_eq!(ended["resultInfo"]["subcode"], 8588);
        let over = bot.wait_for_state(call, "terminated").await;
        assert_eq!(over.data()["resultInfo"]["code"], 500);
        let clip = bot.download(&ended).await;
        let reader = hound::WavReader::new(&clip[..]).expect("a valid WAV file");
        assert_eq!(reader.spec().sample_rate, 16_000);
        let samples: Vec<i16> = reader.into_samples().map(Result::unwrap).collect();
        let missing = spoken_for.as_secs_f64() - samples.len() as f64 / 16_000.0;
        assert!(missing <= 1.0, "{missing:.2} s are missing");
        let speech = speech();
        let (_, likeness) = best_match(&samples, speech.samples(Rate::Hz16000), 16_000);
        assert!(likeness > 0.95, "likeness {likeness}");
    }
    eventually("the purge", Duration::from_secs(15), async || {
        node.clips().is_empty().then_some(())
    })
    .await;
    // Each is notified once, although the process that owed the notification was killed.
    for operation in operations.keys() {
        let told = bot.notifications().iter().filter(|n| n.data()["id"] == **operation).count();
        assert_eq!(told, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_delivered_before_a_kill_is_delivered_after_it_in_order() {
    let mut bot = Bot::start().await;
    let extra = bot.config();
    let node = Node::start(&extra);
    bot.knows(&node.api);
    // The bot accepts no notification until the daemon is killed.
    bot.answer_with(&[StatusCode::SERVICE_UNAVAILABLE; 64]);
    let calling = tokio::spawn({
        let sip = node.sip;
        async move { Phone::call(sip, "bot").await }
    });
    bot.wait_for("a first attempt", |n| n.data()["state"] == "incoming").await;
    let folder = node.kill();
    calling.abort();
    bot.answer_with_default();
    let _node = Node::start_in(folder, &extra);
    bot.wait_for("the end", |n| n.data()["state"] == "terminated").await;
    let taken: Vec<_> = bot
        .notifications()
        .iter()
        .filter(|n| n.answer == StatusCode::ACCEPTED)
        .map(|n| n.data()["state"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(taken, ["incoming", "terminated"]);
}
