//! Calls that a bot places: real peers answer, refuse, redirect and never stop ringing.

mod support;

use std::{net::SocketAddr, time::Duration};

use aftertone_core::audio::{Rate, measure::best_match};
use serde_json::{Value, json};
use support::{
    Node,
    bot::{Bot, TOKEN},
    eventually,
    peer::{Peer, header},
    sipp::{Called, raw_speech},
    speech,
};

/// A node with a trunk to `peer`, and a bot that may call numbers that begin with 2.
async fn node_and_bot(peer: SocketAddr, more: &str) -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let trunk = format!(
        "{}[[trunks]]\nname = \"peer\"\nhost = \"{peer}\"\nallow = [\"2*\"]\ncaller = \"4711\"\n{more}\n",
        bot.config()
    );
    let node = Node::start(&trunk);
    bot.knows(&node.api);
    (node, bot)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_calls_records_what_is_said_and_hangs_up() {
    let folder = tempfile::tempdir().unwrap();
    let raw = raw_speech(folder.path());
    let called = Called::start("called", "u1", &[("WAIT_MS", "800"), ("SPEECH", &raw)]);
    let (_node, bot) = node_and_bot(called.address, "transport = \"udp\"").await;

    let (status, call) = bot.place("200").await;
    assert_eq!(status, 201, "{call}");
    assert_eq!(call["state"], "establishing");
    assert_eq!(call["direction"], "outgoing");
    let id = call["id"].as_str().unwrap();
    bot.wait_for_state(id, "established").await;

    let body =
        json!({"playBeep": true, "maxRecordDurationInSeconds": 7, "maxSilenceTimeoutInSeconds": 3});
    let clip = bot.record(id, body).await;
    let (_, likeness) = best_match(speech().samples(Rate::Hz16000), &clip, 16_000);
    assert!(likeness >= 0.95, "likeness {likeness}");

    assert_eq!(bot.hang_up(id).await, 204);
    called.finish().await;
    let over = bot.wait_for_state(id, "terminated").await;
    assert_eq!(over.data()["resultInfo"]["subcode"], 7000);
    let states: Vec<String> = bot
        .notifications()
        .iter()
        .filter(|told| told.data()["id"] == id)
        .map(|told| told.data()["state"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(states, ["establishing", "established", "terminating", "terminated"]);

    let (status, trace) = bot.get(&format!("calls/{id}/trace")).await;
    assert_eq!(status, 200, "{trace}");
    let said: Vec<String> = trace["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| {
            let text = message["message"].as_str().unwrap();
            let start = text.split("sip:").next().unwrap().lines().next().unwrap().trim();
            format!("{} {start}", message["direction"].as_str().unwrap())
        })
        .collect();
    let said: Vec<&str> = said.iter().map(String::as_str).collect();
    let told = ["out INVITE", "in SIP/2.0 100 Trying", "in SIP/2.0 180 Ringing"];
    assert_eq!(said[..3], told);
    assert_eq!(said.last(), Some(&"in SIP/2.0 200 OK"), "{said:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_tells_its_code() {
    for (scenario, code, subcode) in [("called_busy", 486, 8539), ("called_redirects", 302, 10_134)]
    {
        let called = Called::start(scenario, "u1", &[]);
        let (_node, bot) = node_and_bot(called.address, "transport = \"udp\"").await;
        let (_, call) = bot.place("200").await;
        let id = call["id"].as_str().unwrap();
        let over = bot.wait_for_state(id, "terminated").await;
        assert_eq!(over.item()["changeType"], "deleted");
        assert_eq!(over.data()["resultInfo"]["code"], code, "{scenario}");
        assert_eq!(over.data()["resultInfo"]["subcode"], subcode, "{scenario}");
        called.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_a_call_that_rings_cancels_it() {
    let called = Called::start("called_canceled", "u1", &[]);
    let (node, bot) = node_and_bot(called.address, "transport = \"udp\"").await;
    let (_, call) = bot.place("200").await;
    let id = call["id"].as_str().unwrap();
    node.logs("sip.status=180", 1).await;
    assert_eq!(bot.hang_up(id).await, 204);
    bot.wait_for_state(id, "terminated").await;
    called.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_may_send_a_call_elsewhere_when_it_is_let() {
    let peer = Peer::start().await;
    let more = "transport = \"udp\"\nfollow_redirects = true\nmax_calls = 1";
    let (_node, bot) = node_and_bot(peer.address, more).await;
    let (_, call) = bot.place("2302200").await;
    let id = call["id"].as_str().unwrap();
    bot.wait_for_state(id, "established").await;
    let asked = peer.heard("INVITE");
    let users: Vec<&str> =
        asked.iter().map(|text| text.split(['@', ':']).nth(1).unwrap()).collect();
    assert_eq!(users, ["2302200", "2200"]);
    // A peer that receives both must not take the second INVITE for a merged request (RFC 3261
    // 8.2.2.2).
    let [first, second] = [0, 1].map(|at| (header(&asked[at], "From"), header(&asked[at], "CSeq")));
    assert_ne!(first, second);

    let (status, error) = bot.place("2200").await;
    assert_eq!((status, &error["error"]["code"]), (429, &json!("8530")), "it is one call: {error}");
    assert_eq!(bot.hang_up(id).await, 204);
    let over = bot.wait_for_state(id, "terminated").await;
    assert_eq!(over.data()["resultInfo"]["subcode"], 7000);
    assert_eq!(peer.heard("BYE").len(), 1);

    // A call that every target refuses is one call as well: it leaves the trunk free for the next
    // one.
    for (number, subcode) in [("2302486", 8539), ("2302302", 10_134), ("2302486", 8539)] {
        let (status, call) = bot.place(number).await;
        assert_eq!(status, 201, "{call}");
        let over = bot.wait_for_state(call["id"].as_str().unwrap(), "terminated").await;
        assert_eq!(over.data()["resultInfo"]["subcode"], subcode, "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_transfers_a_call_and_hears_how_it_goes() {
    let called = Called::start("transferred", "u1", &[]);
    let (_node, bot) = node_and_bot(called.address, "transport = \"udp\"").await;
    let (_, call) = bot.place("200").await;
    let id = call["id"].as_str().unwrap();
    bot.wait_for_state(id, "established").await;
    let transfer = |number: &str| {
        json!({"transferTarget": {
            "@odata.type": "#microsoft.graph.invitationParticipantInfo",
            "identity": {"phone": {"id": number}}
        }})
    };
    let (status, error) = bot.post(&format!("{id}/transfer"), &transfer("+881900")).await;
    assert_eq!(status, 403, "no trunk would call it: {error}");
    let (status, error) = bot.post(&format!("{id}/transfer"), &transfer("201")).await;
    assert_eq!(status, 202, "{error}");
    bot.wait_for_state(id, "transferring").await;
    bot.wait_for_state(id, "transferAccepted").await;
    let over = bot.wait_for_state(id, "terminated").await;
    assert_eq!(over.data()["resultInfo"]["subcode"], 7015);
    called.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_is_sent_what_it_allows_and_nothing_else() {
    let peer = Peer::start().await;
    let mut bot = Bot::start().await;
    let node = Node::start(&format!("{}{}", bot.config(), peer.trunk()));
    bot.knows(&node.api);
    for (index, target) in [
        "tel:2-00;npdi;rn=+19005551234;phone-context=+1900",
        "sip:200;npdi;rn=+19005551234@127.0.0.1",
        "sip:200%3brn=+19005551234:secret@127.0.0.1;maddr=127.0.0.9;method=BYE?Replaces=x",
    ]
    .into_iter()
    .enumerate()
    {
        let (status, call) = bot.place(target).await;
        assert_eq!(status, 201, "{target}: {call}");
        let invites = eventually("the INVITE", Duration::from_secs(10), async || {
            let invites = peer.heard("INVITE");
            (invites.len() > index).then_some(invites)
        })
        .await;
        let invite = &invites[index];
        let wanted = format!("INVITE sip:200@{} SIP/2.0", peer.address);
        assert_eq!(invite.lines().next(), Some(wanted.as_str()), "{target}");
        for hidden in ["npdi", "rn=", "phone-context", "maddr", "method", "Replaces=", "secret"] {
            assert!(!invite.contains(hidden), "{hidden}: {invite}");
        }
        bot.hang_up(call["id"].as_str().unwrap()).await;
        bot.wait_for_state(call["id"].as_str().unwrap(), "terminated").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_that_can_never_be_reached_is_refused() {
    let (_node, bot) = node_and_bot("127.0.0.1:9".parse().unwrap(), "transport = \"udp\"").await;
    for uri in [
        "http://10.1.2.3/api/calls",
        "http://169.254.169.254/",
        "http://[fe80::1]/",
        "http://0xa010203/",
        "https://me:secret@bot.example/",
        "https://bot.example/\0",
    ] {
        let body = json!({
            "callbackUri": uri,
            "targets": [{"identity": {"phone": {"id": "200"}}}],
            "mediaConfig": {"@odata.type": "#microsoft.graph.serviceHostedMediaConfig"}
        });
        let (status, error) = bot.post("", &body).await;
        assert_eq!((status, &error["error"]["code"]), (400, &json!("8523")), "{uri}: {error}");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("fetch.allow_networks") || uri.contains('\0'), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
    assert_eq!(bot.get("calls").await.1["value"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_out_that_no_trunk_allows() {
    let nobody = "127.0.0.1:9".parse().unwrap();
    let (_node, bot) = node_and_bot(nobody, "transport = \"udp\"").await;
    for target in [
        "+881900",
        "300",
        "sip:200@evil.example",
        "tel:+900",
        "sip:200%253brn=+1900@127.0.0.1",
        "sip:200,rn=+1900@127.0.0.1",
    ] {
        let (status, error) = bot.place(target).await;
        assert_eq!(status, 403, "{target}: {error}");
        assert_eq!(error["error"]["code"], "8543", "{target}");
    }
    assert!(bot.notifications().is_empty());
}

/// A node at which another one registers: its route is for that user only.
fn provider() -> Node {
    Node::start(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\"]\n\
         domain = \"provider.test\"\n\
         [[users]]\nname = \"4711\"\npassword = \"secret\"\n\
         [[routes]]\nto = \"200\"\nline = \"voicemail\"\n",
    )
}

/// The trunk's state as an operator sees it.
async fn trunk_state(node: &Node) -> Value {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let health = client.get(format!("{}/readyz", node.api)).bearer_auth(TOKEN);
    let health = health.send().await.unwrap();
    let health: Value = serde_json::from_slice(&health.bytes().await.unwrap()).unwrap();
    let trunk = &health["trunks"][0];
    json!([trunk["state"], trunk["lastStatus"], trunk["failure"]])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trunk_knows_us_and_asks_for_our_password() {
    for transport in ["udp", "tcp"] {
        let mut provider = provider();
        let peer = provider.listener(transport);
        let account = |password: &str| {
            format!(
                "transport = \"{transport}\"\nregister = true\nusername = \"4711\"\n\
                 password = \"{password}\"\nrealm = \"provider.test\"\n\
                 [sip]\nlisten = [\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\"]\n"
            )
        };
        let (mut node, bot) = node_and_bot(peer, &account("secret")).await;
        provider.logs("Phone registered", 1).await;
        assert_eq!(trunk_state(&node).await, json!(["registered", 200, null]));
        let (status, call) = bot.place("200").await;
        assert_eq!(status, 201, "{call}");
        let id = call["id"].as_str().unwrap();
        bot.wait_for_state(id, "established").await;
        assert_eq!(bot.hang_up(id).await, 204);
        bot.wait_for_state(id, "terminated").await;

        node.signal("TERM");
        assert!(node.wait(Duration::from_secs(20)).success());
        provider.logs("not registered any more", 1).await;

        let (stranger, bot) = node_and_bot(peer, &account("guess")).await;
        let told = json!(["waiting", 401, "the password is wrong"]);
        let waits = async || (trunk_state(&stranger).await == told).then_some(());
        support::eventually("the trunk's state", Duration::from_secs(5), waits).await;
        stranger.logs("Trunk waiting: the password is wrong trunk=\"peer\"", 1).await;
        let (_, call) = bot.place("200").await;
        let over = bot.wait_for_state(call["id"].as_str().unwrap(), "terminated").await;
        assert_eq!(over.data()["resultInfo"]["code"], 401);
        provider.signal("TERM");
        assert!(provider.wait(Duration::from_secs(20)).success());
    }
}
