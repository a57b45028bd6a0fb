//! `/openapi.json` against the running API: schemathesis sends 20,000 requests, and every route of
//! the description is requested with every kind of token.

mod support;

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use aftertone::service::{config::Config, demo::phone::Phone};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};
use sqlx::{Connection, Row};
use support::{
    Node,
    bot::{Bot, TOKEN},
    python::Environment,
};
use tokio::process::Command;

const OTHER: &str = "another-token-that-is-long-enough";
const ROLELESS: &str = "a-token-without-any-role-at-all";

/// A node with a bot, another application, and an application without roles.
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

/// The routes that require a role (contract section 2.1); all others require none.
const ROLES: [(&str, &str); 6] = [
    ("post /communications/calls", "Calls.Initiate.All"),
    ("post /communications/calls/{id}/transfer", "Calls.Initiate.All"),
    ("post /communications/calls/{id}/redirect", "Calls.Initiate.All"),
    ("post /communications/calls/{id}/record", "Calls.AccessMedia.All"),
    ("post /communications/calls/{id}/recordResponse", "Calls.AccessMedia.All"),
    ("post /communications/calls/{id}/subscribeToTone", "Calls.AccessMedia.All"),
];

/// The role that a route requires, in any version of the API.
fn role(method: &str, path: &str) -> Option<&'static str> {
    let path = path.trim_start_matches("/v1.0").trim_start_matches("/beta");
    let route = format!("{method} {path}");
    ROLES.iter().find(|(known, _)| *known == route).map(|(_, role)| *role)
}

/// Tokens of this service for its application `tester`: a valid one, an expired one, and one that
/// another key has signed.
async fn tokens_of_the_house(node: &Node) -> [String; 3] {
    sqlx::any::install_default_drivers();
    let url = format!("sqlite:{}", node.folder().join("aftertone.db").display());
    let mut database = sqlx::AnyConnection::connect(&url).await.unwrap();
    let row = sqlx::query("SELECT id, pem FROM signing_keys").fetch_one(&mut database).await;
    let row = row.unwrap();
    let (id, pem): (String, String) = (row.get("id"), row.get("pem"));
    let theirs = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let signed = |pem: &str, expires: u64| {
        let claims = json!({
            "aud": "https://graph.microsoft.com",
            "iss": format!("{}/00000000-0000-0000-0000-000000000001/v2.0", node.api),
            "appid": "7e57e200-0000-4000-8000-000000000001",
            "roles": ["Calls.AccessMedia.All", "Calls.Initiate.All"],
            "exp": expires,
        });
        let header = Header { kid: Some(id.clone()), ..Header::new(Algorithm::RS256) };
        encode(&header, &claims, &EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap()).unwrap()
    };
    [signed(&pem, now + 3600), signed(&pem, now - 1), signed(&theirs.serialize_pem(), now + 3600)]
}

/// A phone whose call the bot has answered. The scripted phone stays until it is dropped; baresip
/// would hang up when its sound file ends.
async fn phone(node: &Node, bot: &Bot) -> (Phone, String) {
    let calling = tokio::spawn({
        let sip = node.sip;
        async move { Phone::call(sip, "bot").await }
    });
    let call = bot.take_call().await;
    (calling.await.unwrap().expect("the bot takes the call"), call)
}

async fn description(node: &Node) -> Value {
    let text = reqwest::get(format!("{}/openapi.json", node.api)).await.unwrap();
    serde_json::from_str(&text.text().await.unwrap()).unwrap()
}

/// Directs the requests to the established call, and their callback and prompt URIs to port 9 of
/// loopback.
fn aimed(mut description: Value, call: &str) -> Value {
    let id = json!({"anyOf": [{"const": call}, {"type": "string", "format": "uuid"}]});
    for (path, methods) in description["paths"].as_object_mut().unwrap() {
        if !path.contains("/calls/{id}") {
            continue;
        }
        for (_, operation) in methods.as_object_mut().unwrap() {
            for parameter in operation["parameters"].as_array_mut().unwrap() {
                if parameter["name"] == "id" {
                    parameter["schema"] = id.clone();
                }
            }
        }
    }
    let text = description.to_string();
    let nowhere = r"^http://127\\.0\\.0\\.1:9/[a-z]{0,9}$";
    let text = text.replace("^https?://[a-z0-9]", nowhere);
    serde_json::from_str(&text.replace("https://bot.example/", "http://127.0.0.1:9/")).unwrap()
}

/// Runs schemathesis with the description in this folder, for these methods and paths.
async fn schemathesis(environment: &Environment, folder: &Path, api: &str, which: &[&str]) {
    let output = Command::new(environment.program("st"))
        // One worker: the compiler of Python 3.11 is not thread-safe (python/cpython#106905).
        .args(["run", "openapi.json", "--url", api, "--workers", "1"])
        .args(which)
        .args(["--header", &format!("Authorization:Bearer {TOKEN}")])
        .args(["--checks", "not_a_server_error,status_code_conformance"])
        .args(["--checks", "content_type_conformance,response_schema_conformance"])
        .args(["--checks", "response_headers_conformance"])
        .args(["--phases", "examples,coverage,fuzzing", "--max-examples", "280"])
        .args(["--seed", "1", "--no-shrink", "--generation-database", "none"])
        .args(["--suppress-health-check", "all", "--request-timeout", "20", "--no-color"])
        .current_dir(folder)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing_in_20_000_requests() {
    let environment = Environment::new("tests/description/requirements.txt").await;
    let folder = tempfile::tempdir().unwrap();
    let (node, bot) = node_and_bot().await;
    let (_phone, call) = phone(&node, &bot).await;
    let file = folder.path().join("openapi.json");
    std::fs::write(&file, aimed(description(&node).await, &call).to_string()).unwrap();
    // 501, for what Graph has and this server does not, is no error; the description names it where
    // it may come.
    let not_here = "[checks.not_a_server_error]\nexpected-statuses = [\"2xx\", \"4xx\", \"501\"]\n";
    std::fs::write(folder.path().join("schemathesis.toml"), not_here).unwrap();
    // Two processes, since each has one worker.
    let ask = async |which: &[&str]| {
        schemathesis(&environment, folder.path(), &node.api, which).await;
    };
    tokio::join!(
        ask(&["--exclude-method", "DELETE", "--include-path-regex", "^/beta"]),
        ask(&["--exclude-method", "DELETE", "--exclude-path-regex", "^/beta"]),
    );
    let (status, shown) = bot.get(&format!("calls/{call}")).await;
    assert_eq!((status, &shown["state"]), (200, &json!("established")), "the call is still up");
    // DELETE comes last: schemathesis reuses ids from answers, and would end the call.
    ask(&["--include-method", "DELETE"]).await;
    assert_eq!(bot.get(&format!("calls/{call}")).await.0, 404, "the call is over");

    let log = node.log_text();
    let statuses = log.lines().filter_map(|line| line.split_once("status="));
    let statuses: Vec<&str> = statuses.map(|(_, rest)| rest.get(..3).unwrap_or(rest)).collect();
    assert!(statuses.len() >= 20_000, "{} requests", statuses.len());
    assert!(statuses.iter().all(|status| !status.starts_with('5') || *status == "501"));
    for wanted in ["200", "202", "204", "400", "404", "405"] {
        assert!(statuses.contains(&wanted), "none was answered {wanted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_asks_who_is_there_and_whether_it_may() {
    let (node, bot) = node_and_bot().await;
    let (_phone, call) = phone(&node, &bot).await;
    let (_, participants) = bot.get(&format!("calls/{call}/participants")).await;
    let participant = participants["value"][1]["id"].as_str().unwrap();
    let expired = {
        let config = Config::load(Some(&node.folder().join("aftertone.toml")), std::iter::empty());
        let mut config = config.unwrap();
        config.storage.recordings = node.folder().join("recordings");
        let token = aftertone::service::app::mint_token(&config, "tester", &[], Duration::ZERO);
        token.unwrap()
    };
    let [good, old, forged] = tokens_of_the_house(&node).await;
    let description = description(&node).await;
    let (mut asked, mut with_role) = (0, 0);
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            // OpenAPI 3.1, security requirement object: an empty one makes the token optional.
            let ways = operation["security"].as_array();
            let is_open = ways.is_some_and(|ways| ways.is_empty() || ways.contains(&json!({})));
            if method == "parameters" || is_open {
                continue;
            }
            let role = role(method, path);
            assert_eq!(operation["x-role"].as_str(), role, "{method} {path}");
            let is_of_a_call = path.contains("/calls/{id}");
            let is_a_recording = path.starts_with("/recordings");
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            let example = schema["examples"].get(0);
            let path = path
                .replace("{id}", &call)
                .replace("{participantId}", participant)
                .replace("{operationId}", "0fe0623f-d628-42ed-b4bd-8ac290072cc5")
                .replace("{notificationId}", &format!("{call}-1"));
            let ask = async |token: &str, body: &str| {
                let method = method.to_uppercase().parse().unwrap();
                let mut request = bot.client.request(method, format!("{}{path}", node.api));
                if !token.is_empty() {
                    request = request.bearer_auth(token);
                }
                let request = request.header("content-type", "application/json");
                let response = request.body(body.to_owned()).send().await.unwrap();
                let status = response.status().as_u16();
                let error: Value =
                    serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default();
                (status, error["error"]["code"].as_str().unwrap_or_default().to_owned())
            };
            // This body is valid for no route: a request with a valid token is refused for its body
            // and changes nothing.
            let nothing = "[]";
            for token in ["", "wrong", &expired, &old, &forged] {
                let (status, code) = ask(token, nothing).await;
                assert_eq!(
                    (status, code.as_str()),
                    (401, "InvalidAuthenticationToken"),
                    "{method} {path} {token:?}"
                );
            }
            asked += 1;
            if is_a_recording {
                // The recording does not exist; a token without the role does not open any.
                assert_eq!(ask(ROLELESS, nothing).await.0, 401, "{method} {path}");
                assert_eq!(ask(OTHER, nothing).await.0, 404, "{method} {path}");
                continue;
            }
            let roleless = ask(ROLELESS, nothing).await;
            match role {
                Some(_) => assert_eq!(roleless, (403, "7504".to_owned()), "{method} {path}"),
                None => assert_ne!(roleless.0, 403, "{method} {path}"),
            }
            with_role += usize::from(role.is_some());
            // An application is not told that a call of another application exists.
            if is_of_a_call {
                let body = example.map_or(nothing.to_owned(), Value::to_string);
                let (status, code) = ask(OTHER, &body).await;
                assert_eq!((status, code.as_str()), (404, "8522"), "{method} {path}");
            }
            if example.is_some() {
                for token in [TOKEN, &good] {
                    let (status, code) = ask(token, nothing).await;
                    assert_eq!((status, code.as_str()), (400, "BadRequest"), "{method} {path}");
                }
            }
        }
    }
    assert!(asked > 60, "{asked} routes");
    assert_eq!(with_role, 2 * ROLES.len(), "both versions have them all");
    let (status, shown) = bot.get(&format!("calls/{call}")).await;
    assert_eq!((status, &shown["state"]), (200, &json!("established")), "the call is still up");
}
