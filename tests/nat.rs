//! A phone behind a NAT, in network namespaces that each test makes for itself: it is heard and
//! hears, is called back through the NAT, and the NAT mapping stays open.

mod support;

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;
use support::{
    Node,
    baresip::{self, Baresip},
    bot::Bot,
    eventually, program, spoken,
};

/// Set in the process that has namespaces of its own.
const INSIDE: &str = "AFTERTONE_TEST_IN_NAMESPACES";
/// The command that runs another one in the phone's network.
const AT_PHONE: [&str; 4] = ["ip", "netns", "exec", "phone"];

/// The phone is at 10.0.0.5, the daemon at 203.0.113.1 without a route back to 10.0.0.0. The router
/// forwards what comes from the phone, each flow from a port of its own, and nothing else inwards.
const NETWORK: &str = "
    mount -t tmpfs tmpfs /run
    ip link set lo up
    for name in router phone; do
        ip netns add $name
        ip -n $name link set lo up
    done
    ip link add outside type veth peer name wan netns router
    ip -n phone link add inside type veth peer name lan netns router
    ip addr add 203.0.113.1/24 dev outside
    ip -n router addr add 203.0.113.2/24 dev wan
    ip -n router addr add 10.0.0.1/24 dev lan
    ip -n phone addr add 10.0.0.5/24 dev inside
    ip link set outside up
    ip -n router link set wan up
    ip -n router link set lan up
    ip -n phone link set inside up
    ip -n phone route add default via 10.0.0.1
    ip netns exec router sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
    ip netns exec router nft -f - <<END
    table ip nat {
        chain postrouting {
            type nat hook postrouting priority srcnat;
            oifname wan masquerade fully-random
        }
        chain forward {
            type filter hook forward priority filter;
            iifname wan ct state new drop
        }
    }
END
";

/// Runs this test again in namespaces of its own, which end with it; true in that second run.
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        let setup = Command::new("bash").args(["-ec", NETWORK]).output().unwrap();
        assert!(setup.status.success(), "{}", String::from_utf8_lossy(&setup.stderr));
        return true;
    }
    program("ip", "iproute2");
    program("nft", "nftables");
    let unshare = program("unshare", "util-linux");
    // As an ordinary user where the kernel allows it, otherwise as root.
    let common = ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let ways = [&["--user", "--map-root-user"][..], &[]];
    let works = |way: &&&[&str]| {
        let mut trial = Command::new(&unshare);
        trial.args(**way).args(common).arg("true").stderr(Stdio::null());
        trial.status().is_ok_and(|status| status.success())
    };
    let way = ways.iter().find(works).expect(
        "this test needs network namespaces: run it as root, or on a kernel where users may make them",
    );
    let ran = Command::new(unshare)
        .args(*way)
        .args(common)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}\n{err}");
    false
}

async fn node_and_bot() -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let node = Node::start(&format!(
        "[sip]\nlisten = [\"udp:203.0.113.1:0\"]\ndomain = \"pbx.example\"\ndigest = [\"md5\"]\n\
         [[users]]\nname = \"alice\"\npassword = \"secret\"\n{}",
        bot.config()
    ));
    bot.knows(&node.api);
    (node, bot)
}

/// The phone registers, and again after `interval` seconds.
fn phone(node: &Node, folder: &Path, interval: u32, commands: &[&str]) -> Baresip {
    let account = format!(
        "<sip:alice@pbx.example>;outbound=\"sip:{}\";auth_user=alice;auth_pass=secret;\
         regint={interval};answermode=auto;audio_codecs=PCMU",
        node.sip
    );
    Baresip::start_at("10.0.0.5", &AT_PHONE, folder, &account, "PCMU", commands)
}

/// Both sides hear each other; then the call is ended.
async fn talk(bot: &Bot, call: &str, folder: &Path) {
    let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 6,
        "maxSilenceTimeoutInSeconds": 5});
    let clip = bot.record(call, body).await;
    let spoken = spoken::likeness(folder, &clip);
    assert!(spoken >= 0.95, "the clip is like what was said by {spoken}");

    bot.speak(call).await;
    assert_eq!(bot.hang_up(call).await, 204);
    bot.wait_for_state(call, "terminated").await;
    // baresip closes its file when the call is over.
    let close = async || (baresip::heard(folder) >= 0.9).then_some(());
    eventually("the prompt is heard", Duration::from_secs(2), close).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_a_registered_phone_stays_open() {
    if !is_inside("the_way_to_a_registered_phone_stays_open") {
        return;
    }
    let (node, bot) = node_and_bot().await;
    let folder = tempfile::tempdir().unwrap();
    let _phone = phone(&node, folder.path(), 3600, &[]);
    node.logs("Phone registered", 1).await;
    // A NAT forgets a flow after 30 s without a packet (Linux: nf_conntrack_udp_timeout).
    tokio::time::sleep(Duration::from_secs(35)).await;
    let (status, call) = bot.place("sip:alice@pbx.example").await;
    assert_eq!(status, 201, "{call}");
    let call = call["id"].as_str().unwrap();
    bot.wait_for_state(call, "established").await;
    talk(&bot, call, folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_out_of_the_nat_and_one_back_after_the_nat_has_forgotten_all() {
    if !is_inside("a_call_out_of_the_nat_and_one_back_after_the_nat_has_forgotten_all") {
        return;
    }
    let (node, bot) = node_and_bot().await;
    let folder = tempfile::tempdir().unwrap();
    let _phone = phone(&node, folder.path(), 60, &["/dial sip:bot@pbx.example"]);
    let call = bot.take_call().await;
    talk(&bot, &call, folder.path()).await;

    // The router restarts: the next REGISTER comes from another port.
    let before = node.log_text();
    let restart = "ip -n router link set wan down; ip -n router link set wan up";
    assert!(Command::new("bash").args(["-c", restart]).status().unwrap().success());
    let again = async || (node.log_text()[before.len()..].contains("Phone moved")).then_some(());
    eventually("registered again", Duration::from_secs(70), again).await;
    let (status, call) = bot.place("sip:alice@pbx.example").await;
    assert_eq!(status, 201, "{call}");
    let call = call["id"].as_str().unwrap();
    bot.wait_for_state(call, "established").await;
    talk(&bot, call, folder.path()).await;
}
