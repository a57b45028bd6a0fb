//! The declared type of a call's parties: as Graph's documents print it, or as the SDKs model it.

mod support;

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use support::{
    Node,
    bot::Bot,
    peer::{Peer, RINGS},
    raw,
};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const DOCUMENTED: &str = "#microsoft.graph.identitySet";
const DERIVED: &str = "#microsoft.graph.communicationsIdentitySet";

/// The types of all identity sets in an answer.
fn declared(shown: &Value, types: &mut Vec<String>) {
    let children: Vec<&Value> = match shown {
        Value::Array(values) => values.iter().collect(),
        Value::Object(members) => {
            let own = members.get("@odata.type").and_then(Value::as_str).unwrap_or_default();
            if own.to_lowercase().ends_with("identityset") {
                types.push(own.to_owned());
            }
            members.values().collect()
        }
        _ => Vec::new(),
    };
    children.into_iter().for_each(|child| declared(child, types));
}

/// Checks the number of identity sets, that all have this type, and that the answer fits
/// `/openapi.json`.
fn check(description: &Value, schema: &str, shown: &Value, count: usize, wanted: &str) {
    let mut types = Vec::new();
    declared(shown, &mut types);
    assert_eq!(types, vec![wanted; count], "{shown:#}");
    let mut root = json!({"$ref": format!("#/components/schemas/{schema}")});
    root["components"] = description["components"].clone();
    let validator = jsonschema::draft202012::new(&root).expect("the description is one");
    let errors: Vec<String> = validator.iter_errors(shown).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?} in {shown:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_party_declares_the_type_of_the_setting() {
    let derived = "identity_type = \"communicationsIdentitySet\"\n";
    for (setting, wanted) in [("", DOCUMENTED), (derived, DERIVED)] {
        let (mut bot, peer) = (Bot::start().await, Peer::start().await);
        let api = format!("[api]\nlisten = \"127.0.0.1:0\"\n{setting}");
        let node = Node::start(&format!("{api}{}{}", bot.config(), peer.trunk()));
        bot.knows(&node.api);
        let described = reqwest::get(format!("{}/openapi.json", node.api)).await.unwrap();
        let description: Value = serde_json::from_str(&described.text().await.unwrap()).unwrap();

        // A call that was diverted, and referred here by another party.
        let diverted = "Diversion: <tel:+4930100>;reason=busy\r\nReferred-By: <tel:+4930200>\r\n";
        let mut caller = raw::Peer::new(LOCALHOST, node.sip, "bot", "diverted").await;
        let invite = caller.request("INVITE", 1, "i", raw::SDP);
        let invite = invite.replacen("Max-Forwards:", &format!("{diverted}Max-Forwards:"), 1);
        caller.send(invite).await;
        let offered = bot.wait_for("a call", |told| told.data()["state"] == "incoming").await;
        let call = offered.data()["id"].as_str().unwrap().to_owned();
        check(&description, "v1.0.microsoft.graph.call", offered.data(), 6, wanted);
        let route = &offered.data()["callRoutes"][0];
        assert_eq!(route["original"]["phone"]["id"], "+4930100", "{route}");
        let acknowledged = async {
            caller.wait_for("INVITE", |status| status == 200).await;
            caller.say("ACK", 1, "a", "").await;
        };
        tokio::join!(bot.answer(&call), acknowledged);
        for (version, sets) in [("v1.0", 6), ("beta", 7)] {
            let base = format!("{}/{version}/communications/calls/{call}", node.api);
            let (_, shown) = bot.send("GET", &base, "").await;
            check(&description, &format!("{version}.microsoft.graph.call"), &shown, sets, wanted);
        }
        let recording = json!({"clientContext": "c", "status": "recording"});
        let (status, _) = bot.post(&format!("{call}/updateRecordingStatus"), &recording).await;
        assert_eq!(status, 200);
        let (_, both) = bot.get(&format!("calls/{call}/participants")).await;
        let ours = &both["value"][0];
        assert!(ours["recordingInfo"]["initiator"]["application"].is_object(), "{ours}");
        for (participant, sets) in both["value"].as_array().unwrap().iter().zip([2, 1]) {
            check(&description, "v1.0.microsoft.graph.participant", participant, sets, wanted);
        }
        let (_, shown) = bot.get(&format!("calls/{call}?$expand=participants")).await;
        check(&description, "v1.0.microsoft.graph.call", &shown, 9, wanted);

        // Requests may declare either type, with `#` and without.
        for sent in [DOCUMENTED, DERIVED] {
            for sent in [sent, sent.trim_start_matches('#')] {
                let body = json!({
                    "callbackUri": format!("http://{}/api/calls", bot.address),
                    "targets": [{"identity": {"@odata.type": sent, "phone": {"id": RINGS}}}],
                    "requestedModalities": ["audio"],
                    "mediaConfig": {"@odata.type": "#microsoft.graph.serviceHostedMediaConfig"}
                });
                let (status, placed) = bot.post("", &body).await;
                assert_eq!(status, 201, "{sent}: {placed}");
                check(&description, "v1.0.microsoft.graph.call", &placed, 2, wanted);
                assert_eq!(placed["targets"][0]["identity"]["phone"]["id"], RINGS, "{placed}");
                assert_eq!(bot.hang_up(placed["id"].as_str().unwrap()).await, 204);
            }
        }
    }
}

#[test]
fn another_type_is_an_error_that_names_both() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("aftertone.toml");
    std::fs::write(&file, "[api]\nidentity_type = \"phone\"\n").unwrap();
    let error =
        aftertone::service::config::Config::load(Some(&file), std::iter::empty()).unwrap_err();
    let error = error.to_string();
    for part in ["api.identity_type", "\"identitySet\"", "\"communicationsIdentitySet\""] {
        assert!(error.contains(part), "{error}");
    }
}
