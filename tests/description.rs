//! `/openapi.json` against what is served: schemathesis asks 20,000 times, and every route that the
//! description has is asked with every kind of token.

mod support;

use std::{path::Path, time::Duration};

use aftertone::{api::INITIATE, config::Config};
use serde_json::{Value, json};
use support::{
    Node,
    baresip::Baresip,
    bot::{Bot, TOKEN},
    python::Environment,
};
use tokio::process::Command;

const OTHER: &str = "another-token-that-is-long-enough";
const ROLELESS: &str = "a-token-without-any-role-at-all";

/// A node with a bot, another application, and one of the bot's without roles.
async fn node_and_bot() -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let application = |name: &str, token: &str, roles: &str| {
        format!(
            "[[applications]]\nname = \"{name}\"\nid = \"{name}\"\ntokens = [\"{token}\"]\n\
             roles = [{roles}]\ncallback_uri = \"http://{}/api/calls\"\n",
            bot.address
        )
    };
    let node = Node::start(&format!(
        "[media]\nports = \"0-0\"\nrtp_timeout = \"1h\"\n{}{}{}",
        bot.config(),
        application("other", OTHER, "\"Calls.AccessMedia.All\", \"Calls.Initiate.All\""),
        application("roleless", ROLELESS, ""),
    ));
    bot.knows(&node.api);
    (node, bot)
}

/// A phone that has called the bot, which has taken the call.
async fn phone(node: &Node, bot: &Bot, folder: &Path) -> (Baresip, String) {
    let account = "<sip:phone@127.0.0.1>;regint=0;audio_codecs=PCMU/8000/1";
    let dial = format!("/dial sip:bot@{}", node.sip);
    let phone = Baresip::start(folder, account, "PCMU", &[&dial]);
    let call = bot.take_call().await;
    (phone, call)
}

async fn description(node: &Node) -> Value {
    let text = reqwest::get(format!("{}/openapi.json", node.api)).await.unwrap();
    serde_json::from_str(&text.text().await.unwrap()).unwrap()
}

/// Sends the requests to the call that is up, keeps it up, and nothing to the rest of the world.
fn aimed(mut description: Value, call: &str) -> Value {
    let id = json!({"anyOf": [{"const": call}, {"type": "string", "format": "uuid"}]});
    for (path, methods) in description["paths"].as_object_mut().unwrap() {
        let methods = methods.as_object_mut().unwrap();
        methods.remove("delete");
        if !path.contains("/calls/{id}") {
            continue;
        }
        for (_, operation) in methods {
            for parameter in operation["parameters"].as_array_mut().unwrap() {
                if parameter["name"] == "id" {
                    parameter["schema"] = id.clone();
                }
            }
        }
    }
    let text = description.to_string();
    let nowhere = r"^http://127\\.0\\.0\\.1:9/[a-z]{0,9}$";
    serde_json::from_str(&text.replace("^https?://[a-z0-9]", nowhere)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing_in_20_000_requests() {
    let environment = Environment::new("tests/description/requirements.txt").await;
    let folder = tempfile::tempdir().unwrap();
    let (node, bot) = node_and_bot().await;
    let (_phone, call) = phone(&node, &bot, folder.path()).await;
    let file = folder.path().join("openapi.json");
    std::fs::write(&file, aimed(description(&node).await, &call).to_string()).unwrap();
    let output = Command::new(environment.program("st"))
        .args(["run", file.to_str().unwrap(), "--url", &node.api, "--workers", "2"])
        .args(["--header", &format!("Authorization:Bearer {TOKEN}")])
        .args(["--checks", "not_a_server_error,status_code_conformance"])
        .args(["--checks", "content_type_conformance,response_schema_conformance"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "280"])
        .args(["--seed", "1", "--no-shrink", "--generation-database", "none"])
        .args(["--suppress-health-check", "all", "--request-timeout", "20", "--no-color"])
        .current_dir(folder.path())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");

    let log = node.log_text();
    let statuses = log.lines().filter_map(|line| line.split_once("status="));
    let statuses: Vec<&str> = statuses.map(|(_, rest)| rest.get(..3).unwrap_or(rest)).collect();
    assert!(statuses.len() >= 20_000, "{} requests", statuses.len());
    assert!(statuses.iter().all(|status| !status.starts_with('5')));
    for wanted in ["200", "202", "400", "404", "405"] {
        assert!(statuses.contains(&wanted), "none was answered {wanted}");
    }
    let (status, shown) = bot.get(&format!("calls/{call}")).await;
    assert_eq!((status, &shown["state"]), (200, &json!("established")), "the call is still up");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_asks_who_is_there_and_whether_it_may() {
    let (node, bot) = node_and_bot().await;
    let folder = tempfile::tempdir().unwrap();
    let (_phone, call) = phone(&node, &bot, folder.path()).await;
    let (_, participants) = bot.get(&format!("calls/{call}/participants")).await;
    let participant = participants["value"][1]["id"].as_str().unwrap();
    let expired = {
        let config = Config::load(Some(&node.folder().join("aftertone.toml")), std::iter::empty());
        let mut config = config.unwrap();
        config.storage.recordings = node.folder().join("recordings");
        let token = aftertone::app::mint_token(&config, "tester", &[], Duration::ZERO);
        token.unwrap()
    };
    let description = description(&node).await;
    let mut asked = 0;
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let is_open = operation["security"] == json!([]);
            if method == "parameters" || is_open || path.starts_with("/recordings") {
                continue;
            }
            let role = operation["x-role"].as_str();
            let path = path
                .replace("{id}", &call)
                .replace("{participantId}", participant)
                .replace("{operationId}", "0fe0623f-d628-42ed-b4bd-8ac290072cc5")
                .replace("{notificationId}", &format!("{call}-1"));
            let ask = async |token: &str, method: &str| {
                let method = method.to_uppercase().parse().unwrap();
                let mut request = bot.client.request(method, format!("{}{path}", node.api));
                if !token.is_empty() {
                    request = request.bearer_auth(token);
                }
                // No body fits: whoever gets through is told so, and nothing is done.
                let request = request.header("content-type", "application/json").body("[]");
                let response = request.send().await.unwrap();
                let status = response.status().as_u16();
                let error: Value =
                    serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default();
                (status, error["error"]["code"].as_str().unwrap_or_default().to_owned())
            };
            let unauthenticated = (401, "InvalidAuthenticationToken".to_owned());
            for token in ["", "wrong", &expired] {
                assert_eq!(ask(token, method).await, unauthenticated, "{method} {path} {token:?}");
            }
            if role.is_some() {
                assert_eq!(
                    ask(ROLELESS, method).await,
                    (403, "7504".to_owned()),
                    "{method} {path}"
                );
            }
            // Of a call of somebody else nobody hears that it is there.
            let is_of_a_call = path.contains(&call) && path.contains("/calls/");
            let has_body = !operation["requestBody"].is_null();
            if is_of_a_call && !has_body {
                let (status, code) = ask(OTHER, method).await;
                assert_eq!((status, code.as_str()), (404, "8522"), "{method} {path}");
            }
            if has_body {
                let (status, code) = ask(TOKEN, method).await;
                assert_eq!((status, code.as_str()), (400, "BadRequest"), "{method} {path}");
            }
            asked += 1;
        }
    }
    assert!(asked > 60, "{asked} routes");
    assert!(description.to_string().contains(INITIATE));
}
