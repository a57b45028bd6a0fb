//! A PostgreSQL server goes away under a running daemon and comes back.

#[path = "support/postgres.rs"]
mod postgres;
mod support;

use std::{net::Ipv4Addr, time::Duration};

use aftertone::service::demo::phone::Phone;
use postgres::Cluster;
use serde_json::{Value, json};
use support::{
    Node, eventually,
    raw::{Peer, SDP, header, status},
};

const SOON: Duration = Duration::from_secs(30);

async fn readiness(node: &Node) -> Value {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let health = client.get(format!("{}/readyz", node.api)).send().await.unwrap();
    let health: Value = serde_json::from_slice(&health.bytes().await.unwrap()).unwrap();
    json!([health["status"], health["reason"]])
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_database_the_house_takes_no_call_and_says_why() {
    let cluster = Cluster::start();
    let node = Node::start(&format!("[storage]\ndatabase = {:?}\n", cluster.database("away")));
    assert_eq!(readiness(&node).await, json!(["ready", null]));

    cluster.crash();
    let away = json!(["not ready", "the database cannot be reached"]);
    let is = async |wanted: &Value| (readiness(&node).await == *wanted).then_some(());
    eventually("the database is missed", SOON, async || is(&away).await).await;
    let mut caller = Peer::new(Ipv4Addr::LOCALHOST.into(), node.sip, "echo", "away").await;
    caller.say("INVITE", 1, "away", SDP).await;
    let refusal = caller.wait_for("INVITE", |status| status >= 200).await;
    assert_eq!(status(&refusal), Some(503), "{refusal}");
    assert!(header(&refusal, "Retry-After").is_some(), "{refusal}");
    node.logs("Call refused: the database cannot be reached", 1).await;

    cluster.restart();
    let ready = json!(["ready", null]);
    eventually("the database is back", SOON, async || is(&ready).await).await;
    let phone = Phone::call(node.sip, "echo").await.unwrap();
    phone.hang_up().await.unwrap();
}
