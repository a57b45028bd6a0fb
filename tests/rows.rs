//! The rows of contract section 2's table that no other file tests over the wire: with a phone or a
//! peer for what works, and with the error message for what does not.

mod support;

use std::time::Duration;

use aftertone::service::demo::phone::Phone;
use aftertone_core::audio::{
    Rate,
    measure::{best_match, level_dbfs},
};
use serde_json::{Value, json};
use support::{
    Node,
    bot::Bot,
    eventually,
    peer::{Caller, header},
    speech,
};
use tokio::time::sleep;

async fn node_and_bot() -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let node = Node::start(&bot.config());
    bot.knows(&node.api);
    (node, bot)
}

async fn phone_and_call(node: &Node, bot: &Bot) -> (Phone, String) {
    let sip = node.sip;
    let calling = tokio::spawn(async move { Phone::call(sip, "bot").await });
    let call = bot.take_call().await;
    (calling.await.unwrap().expect("answered"), call)
}

const NOT_HERE: [&str; 14] = [
    "{call}/changeScreenSharingRole",
    "{call}/addLargeGalleryView",
    "{call}/startRecording",
    "{call}/stopRecording",
    "{call}/startTranscription",
    "{call}/stopTranscription",
    "{call}/audioRoutingGroups",
    "{call}/contentSharingSessions",
    "{call}/configureMixer",
    "{call}/muteAll",
    "{call}/participants/invite",
    "{call}/participants/muteAll",
    "{call}/participants/configureMixer",
    "logTeleconferenceDeviceQuality",
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_on_this_server_says_so() {
    let (node, bot) = node_and_bot().await;
    for row in NOT_HERE {
        let path = row.replace("{call}", "57dab8b1-894c-409a-b240-bd8beae78896");
        let (start, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let qualified = format!("{start}/microsoft.graph.{name}");
        for path in [path.as_str(), qualified.trim_start_matches('/')] {
            for version in ["v1.0", "beta"] {
                let url = format!("{}/{version}/communications/calls/{path}", node.api);
                let (status, error) = bot.send("POST", &url, "{}").await;
                assert_eq!(status, 501, "{url}: {error}");
                assert_eq!(error["error"]["code"], "8520", "{url}");
                let sentence = format!("{name} is not available on this server.");
                assert_eq!(error["error"]["message"], sentence, "{url}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirected_caller_is_told_where_to_go() {
    let (node, bot) = node_and_bot().await;
    let caller = Caller::invite(node.sip, "").await;
    let offered = bot.wait_for("a call", |told| told.data()["state"] == "incoming").await;
    let call = offered.data()["id"].as_str().unwrap();
    // The number is one at the host that the caller came from.
    let body = json!({"targets": [{"identity": {"phone": {"id": "+4930123"}}}], "timeout": 30});
    let (status, error) = bot.post(&format!("{call}/redirect"), &body).await;
    assert_eq!(status, 202, "{error}");
    let moved = caller.response(302).await;
    assert_eq!(header(&moved, "Contact"), "<sip:+4930123@127.0.0.1>");
    let told = bot.wait_for_state(call, "terminated").await;
    assert_eq!(told.item()["changeType"], "deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_tells_whom_it_was_for_and_who_sent_it() {
    let (node, bot) = node_and_bot().await;
    let diversions = "Diversion: \"Bob\" <sip:bob@pbx.example>;reason=no-answer, <tel:+4930100>;reason=busy\r\n\
                      Referred-By: <sip:carol@pbx.example>\r\n";
    let _caller = Caller::invite(node.sip, diversions).await;
    let offered = bot.wait_for("a call", |told| told.data()["state"] == "incoming").await;
    let told = offered.data();
    let identity = |name: &str, id: &str| {
        json!({"@odata.type": "#microsoft.graph.identitySet",
            name: {"@odata.type": "#microsoft.graph.identity", "id": id}})
    };
    let route = |original: &Value, last: &Value| {
        json!({"@odata.type": "#microsoft.graph.callRoute", "routingType": "forwarded",
            "original": original, "final": last})
    };
    let mut bob = identity("user", "sip:bob@pbx.example");
    bob["user"]["displayName"] = json!("Bob");
    let called = identity("user", &format!("sip:bot@{}", node.sip));
    let routes = json!([route(&identity("phone", "+4930100"), &bob), route(&bob, &called)]);
    assert_eq!(told["callRoutes"], routes);
    assert_eq!(told["incomingContext"]["onBehalfOf"], bob);
    let carol = identity("user", "sip:carol@pbx.example");
    assert_eq!(told["incomingContext"]["transferor"], carol);
    let (_, shown) = bot.get(&format!("calls/{}", told["id"].as_str().unwrap())).await;
    for member in ["callRoutes", "incomingContext", "targets", "source"] {
        assert_eq!(shown[member], told[member], "{member}");
    }
    // The target is the application; the called address is `applicationInstance`.
    let target = &shown["targets"][0]["identity"];
    assert_eq!(target["application"]["id"], "7e57e200-0000-4000-8000-000000000001");
    assert_eq!(target["application"]["displayName"], "tester");
    assert_eq!(target["applicationInstance"]["id"], format!("sip:bot@{}", node.sip));
}

#[tokio::test(flavor = "multi_thread")]
async fn participants_are_listed_muted_held_and_removed() {
    let (node, bot) = node_and_bot().await;
    let (mut phone, call) = phone_and_call(&node, &bot).await;
    let participants = format!("calls/{call}/participants");
    let (status, list) = bot.get(&format!("{participants}?$count=true")).await;
    assert_eq!((status, &list["@odata.count"]), (200, &json!(2)), "{list}");
    let ours = &list["value"][0];
    assert_eq!(ours["info"]["identity"]["application"]["displayName"], "tester");
    let theirs = list["value"][1]["id"].as_str().unwrap();

    let side = format!("{call}/participants/{theirs}");
    let (status, muted) = bot.post(&format!("{side}/mute"), &json!({"clientContext": "m"})).await;
    assert_eq!((status, &muted["status"]), (200, &json!("completed")), "{muted}");
    assert_eq!(muted["@odata.type"], "#microsoft.graph.muteParticipantOperation");
    let (_, shown) = bot.get(&format!("calls/{side}")).await;
    assert_eq!(
        (&shown["isMuted"], &shown["mediaStreams"][0]["serverMuted"]),
        (&json!(true), &json!(true))
    );
    // The muted peer is not heard.
    phone.speak(&speech().samples(Rate::Hz8000)[..16_000]);
    let body = json!({"playBeep": false, "initialSilenceTimeoutInSeconds": 1});
    let (_, record) = bot.post(&format!("{call}/record"), &body).await;
    let ended = bot.wait_for_operation(record["id"].as_str().unwrap()).await;
    assert_eq!(ended["completionReason"], "initialSilenceTimeout");
    let (status, _) = bot.post(&format!("{side}/unmute"), &json!({})).await;
    assert_eq!(status, 200);
    let (_, shown) = bot.get(&format!("calls/{side}")).await;
    assert_eq!(shown["isMuted"], false);

    let music = bot
        .serve("music.wav", aftertone::drivers::prompts::bundled_wav("spoken").unwrap().to_vec());
    let body = json!({"customPrompt": {"@odata.type": "#microsoft.graph.mediaPrompt",
        "mediaInfo": {"uri": music}}, "clientContext": "hold"});
    let begun = phone.heard().len();
    let (status, hold) = bot.post(&format!("{side}/startHoldMusic"), &body).await;
    assert_eq!((status, &hold["clientContext"]), (202, &json!("hold")), "{hold}");
    assert_eq!(hold["@odata.type"], "#microsoft.graph.startHoldMusicOperation");
    let told = bot.wait_for_operation(hold["id"].as_str().unwrap()).await;
    assert_eq!((&told["status"], &told["resultInfo"]["code"]), (&json!("completed"), &json!(200)));
    eventually("the phone hears three seconds", Duration::from_secs(15), async || {
        (phone.heard().len() > begun + 24_000).then_some(())
    })
    .await;
    let music = speech();
    let music = &music.samples(Rate::Hz8000)[..12_000];
    let (_, likeness) = best_match(music, &phone.heard()[begun..], 16_000);
    assert!(likeness > 0.9, "hold music: {likeness}");
    let (status, stop) = bot.post(&format!("{side}/stopHoldMusic"), &json!({})).await;
    assert_eq!(status, 202, "{stop}");
    bot.wait_for_operation(stop["id"].as_str().unwrap()).await;
    sleep(Duration::from_millis(300)).await;
    let before = phone.heard().len();
    sleep(Duration::from_secs(1)).await;
    let level = level_dbfs(&phone.heard()[before..]);
    assert!(level < -60.0, "{level} dBFS after the music has ended");

    let body = json!({"status": "recording", "clientContext": "r"});
    let (status, told) = bot.post(&format!("{call}/updateRecordingStatus"), &body).await;
    assert_eq!((status, &told["status"]), (200, &json!("completed")), "{told}");
    let (_, list) = bot.get(&participants).await;
    assert_eq!(list["value"][0]["recordingInfo"]["recordingStatus"], "recording");
    assert_eq!(list["value"][1]["recordingInfo"], Value::Null);

    let url = format!("{}/v1.0/communications/calls/{side}", node.api);
    let (status, _) = bot.send("DELETE", &url, "").await;
    assert_eq!(status, 204);
    tokio::time::timeout(Duration::from_secs(5), phone.ended()).await.expect("a BYE");
    bot.wait_for_state(&call, "terminated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn query_options_choose_what_is_shown() {
    let (node, bot) = node_and_bot().await;
    let (_phone, call) = phone_and_call(&node, &bot).await;
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for _ in 0..3 {
        let (status, _) = bot.post(&format!("{call}/subscribeToTone"), &json!({})).await;
        assert_eq!(status, 200);
    }
    let (_, shown) = bot.get(&format!("calls/{call}?$select=id,state")).await;
    assert_eq!(keys(&shown), ["@odata.context", "@odata.type", "id", "state"]);
    for wrong in ["?$select=id,sate", "?$filter=state", "?$top=1", "?$expand=source"] {
        let (status, error) = bot.get(&format!("calls/{call}{wrong}")).await;
        assert_eq!((status, &error["error"]["code"]), (400, &json!("BadRequest")), "{wrong}");
    }
    let path = format!("calls/{call}/operations?$top=2&$skip=1&$count=true&$select=id,status");
    let (_, page) = bot.get(&path).await;
    assert_eq!(page["@odata.count"], 3, "{page}");
    assert_eq!(page["value"].as_array().unwrap().len(), 2);
    assert_eq!(keys(&page["value"][0]), ["@odata.type", "id", "status"]);
    assert_eq!(page.get("@odata.nextLink"), None, "it is the last page");
    let (_, first) = bot.get(&format!("calls/{call}/operations?$top=2")).await;
    let next = first["@odata.nextLink"].as_str().unwrap();
    let (_, rest) = bot.send("GET", next, "").await;
    assert_eq!(rest["value"].as_array().unwrap().len(), 1);
    let (_, list) = bot.get("calls?$expand=operations,participants&$select=id").await;
    let shown = &list["value"][0];
    assert_eq!(keys(shown), ["@odata.type", "id", "operations", "participants"]);
    assert_eq!(shown["operations"].as_array().unwrap().len(), 3);
    assert_eq!(shown["participants"].as_array().unwrap().len(), 2);

    // Members of the beta alone are not in v1.0.
    let (_, v1) = bot.get(&format!("calls/{call}")).await;
    assert_eq!(v1.get("activeModalities"), None);
    let (_, beta) =
        bot.send("GET", &format!("{}/beta/communications/calls/{call}", node.api), "").await;
    assert_eq!(beta["activeModalities"], json!(["audio"]));
    assert_eq!(beta["answeredBy"]["identity"]["application"]["displayName"], "tester");
}
