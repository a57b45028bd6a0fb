//! 110,000 broken messages without any limit, and 40,000 against the limits: no process fails, no
//! state is left behind, and the call that is recorded meanwhile is complete.

#[path = "fuzz/targets.rs"]
mod fuzz;
mod support;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use aftertone_core::proto::sip::path::{ConnectionId, Path, Transport};
use fuzz::Answerer;
use rand::{Rng, SeedableRng, rngs::StdRng};
use support::{Node, bot::Bot, eventually, live::LiveCall, mutation::Mutator, raw::header};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream, UdpSocket},
    time::{sleep, sleep_until, timeout},
};

const INVITES: usize = 10_000;
const OTHERS: usize = 100_000;
/// The limit for the daemon's resident memory, in KiB.
const MAX_KIB: u64 = 256 * 1024;
/// RFC 3261 section 17.2: a transaction is forgotten after 64 × T1; one more second for the timer.
const FORGET: Duration = Duration::from_secs(33);

#[test]
fn an_endpoint_forgets_all_of_them() {
    let mut rng = StdRng::seed_from_u64(7);
    let mut mutator = Mutator::new(1);
    let mut answerer = Answerer::new();
    for number in 0..INVITES + OTHERS {
        let bytes = if number % 11 == 0 { mutator.invite("bot") } else { mutator.other() };
        let local: SocketAddr = "127.0.0.1:5060".parse().unwrap();
        let peer = SocketAddr::from(([127, 0, 1, rng.random()], 9));
        let path = if number % 3 == 0 {
            let connection = Some(ConnectionId(rng.random_range(0..50)));
            Path { transport: Transport::Tcp, connection, ..Path::udp(local, peer) }
        } else {
            Path::udp(local, peer)
        };
        answerer.take(&bytes, path, Duration::from_millis(1));
    }
    assert!(answerer.calls > INVITES / 10, "{} were good enough to be calls", answerer.calls);
    answerer.must_become_idle();
}

/// Resident memory of the daemon in KiB.
fn memory(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Files that the daemon holds open.
fn files(node: &Node) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count()
}

/// Datagrams that the full receive buffer of the daemon's socket has dropped.
fn dropped(node: &Node) -> u64 {
    let sockets = std::fs::read_to_string(format!("/proc/{}/net/udp", node.pid())).unwrap();
    let port = format!(":{:04X}", node.sip.port());
    let mut lines = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = lines.find(|words| words.get(1).is_some_and(|local| local.ends_with(&port)));
    ours.expect("the daemon's socket").last().unwrap().parse().unwrap()
}

/// Runs `work`; returns its result and the daemon's highest memory meanwhile.
async fn watched<T>(node: &Node, work: impl Future<Output = T>) -> (T, u64) {
    tokio::pin!(work);
    let mut largest = 0;
    loop {
        tokio::select! {
            done = &mut work => return (done, largest),
            () = sleep(Duration::from_millis(100)) => largest = largest.max(memory(node)),
        }
    }
}

/// Sends OPTIONS and waits for the answer: the daemon reads datagrams in order, so it has read all
/// earlier ones then.
async fn keep_pace(socket: &UdpSocket, node: SocketAddr, number: usize) {
    let local = socket.local_addr().unwrap();
    let id = format!("pace-{number}");
    let options = format!(
        "OPTIONS sip:{node} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{id}\r\n\
         From: <sip:a@{local}>;tag=1\r\nTo: <sip:{node}>\r\nCall-ID: {id}\r\nCSeq: 1 OPTIONS\r\n\
         Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
    let mut buffer = vec![0; 65_535];
    socket.send_to(options.as_bytes(), node).await.unwrap();
    timeout(Duration::from_secs(20), async {
        loop {
            let length = socket.recv(&mut buffer).await.unwrap();
            if header(&String::from_utf8_lossy(&buffer[..length]), "Call-ID") == Some(&id) {
                return;
            }
        }
    })
    .await
    .expect("the daemon answers");
}

/// Sends all messages from several addresses, a tenth of them over streams; returns the number of
/// datagrams. Few of the calls are for `called`; the other called names do not exist.
async fn flood(node: &Node, called: &str) -> u64 {
    let host = |number: usize| IpAddr::from([127, 0, 2, 1 + (number % 8) as u8]);
    let mut sockets = Vec::new();
    for number in 0..8 {
        sockets.push(UdpSocket::bind((host(number), 0)).await.unwrap());
    }
    let pace = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut streams: Vec<Option<TcpStream>> = (0..8).map(|_| None).collect();
    let mut mutator = Mutator::new(2);
    let mut datagrams = 0;
    for number in 0..INVITES + OTHERS {
        let bytes = match number % 11 {
            0 if number % 10 == 0 => mutator.invite(called),
            0 => mutator.invite("nobody"),
            _ => mutator.other(),
        };
        let from = number % 8;
        if number % 10 == 9 {
            // The daemon closes a stream when it cannot find the next message in it.
            let is_sent = match &mut streams[from] {
                Some(stream) => stream.write_all(&bytes).await.is_ok(),
                None => false,
            };
            if !is_sent {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind((host(from), 0).into()).unwrap();
                let mut stream = socket.connect(node.listener("tcp")).await.unwrap();
                let _ = stream.write_all(&bytes).await;
                streams[from] = Some(stream);
            }
        } else {
            sockets[from].send_to(&bytes, node.sip).await.unwrap();
            datagrams += 1;
        }
        if number % 50 == 0 {
            keep_pace(&pace, node.sip, number).await;
        }
    }
    datagrams
}

fn must_be_well(node: &Node) {
    let log = node.log_text();
    let bad = log.lines().find(|line| line.contains("panicked") || line.contains(" ERROR "));
    assert_eq!(bad, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_records_on_and_forgets_all_of_them() {
    let mut bot = Bot::start().await;
    // All senders are trusted: limits would keep the messages from the code behind them.
    let node = Node::start(&format!(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\"]\n\
         trusted_peers = [\"127.0.0.0/8\"]\n[calls]\nanswer_timeout = \"2s\"\n\
         [[users]]\nname = \"alice\"\npassword = \"secret\"\n{}",
        bot.config()
    ));
    bot.knows(&node.api);
    // The first call opens what all later ones share; it is over before the count begins.
    LiveCall::start(&node, &bot, [127, 0, 0, 8].into(), 2).await.finish(&bot).await;
    let (open, kib) = (files(&node), memory(&node));

    let mut left = Vec::new();
    // The trace keeps the messages of the last calls. In the second round no broken call reaches
    // the bot, so that nothing is left that could grow.
    for (called, caller) in [("bot", [127, 0, 0, 9]), ("nobody", [127, 0, 0, 10])] {
        let offered = || node.log_text().matches("Call offered").count();
        let before = (offered(), dropped(&node));
        let call = LiveCall::start(&node, &bot, caller.into(), 14).await;
        let (datagrams, largest) = watched(&node, flood(&node, called)).await;
        let forgotten = tokio::time::Instant::now() + FORGET;
        assert!(largest < MAX_KIB, "{largest} KiB");
        call.finish(&bot).await;
        // One of them is the recorded call.
        let calls = offered() - before.0 - 1;
        assert!(called != "bot" || calls > 100, "{calls} were good enough to be calls");
        let lost = dropped(&node) - before.1;
        assert!(lost * 100 <= datagrams, "{lost} of {datagrams} never reached the daemon");

        let back = async || (files(&node) <= open).then_some(());
        eventually("all files are closed again", Duration::from_secs(75), back).await;
        sleep_until(forgotten).await;
        println!(
            "{kib} KiB, at most {largest} KiB, then {} KiB; {calls} calls, {lost} lost",
            memory(&node)
        );
        left.push(memory(&node));
    }
    // The allocator's memory of the first round is used again in the second one.
    assert!(left[1] * 100 <= left[0] * 105, "{kib} KiB, then {left:?}");
    must_be_well(&node);
    LiveCall::start(&node, &bot, [127, 0, 0, 11].into(), 5).await.finish(&bot).await;
}

/// Floods until `stop` is set, but with 20,000 messages at least; each source sends `each` messages
/// in a row.
async fn flood_from(node: &Node, hosts: impl Fn(usize) -> IpAddr, each: usize, stop: &AtomicBool) {
    let mut mutator = Mutator::new(4);
    let mut number = 0;
    while number < 20_000 || !stop.load(Ordering::Relaxed) {
        let socket = UdpSocket::bind((hosts(number / each), 0)).await.unwrap();
        for _ in 0..each {
            let bytes = if number % 4 == 0 { mutator.invite("nobody") } else { mutator.other() };
            // As fast as the system or the daemon takes it: a flooded daemon sets no pace.
            let _ = socket.send_to(&bytes, node.sip).await;
            number += 1;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

/// How often the log says of each source that it is limited.
fn told(node: &Node) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for line in node.log_text().lines().filter(|line| line.contains("SIP source")) {
        let source = line.split_once("source=").unwrap().1.split_whitespace().next().unwrap();
        *told.entry(source.to_owned()).or_insert(0) += 1;
    }
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_keep_a_flood_from_everybody_else() {
    let mut bot = Bot::start().await;
    let node = Node::start(&format!(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\ntrusted_peers = [\"127.0.0.9/32\"]\n\
         [[users]]\nname = \"alice\"\npassword = \"secret\"\n{}",
        bot.config()
    ));
    bot.knows(&node.api);
    let begun = Instant::now();
    // One stranger floods while another stranger calls; then many flood while a trusted peer calls.
    type Hosts = fn(usize) -> IpAddr;
    let one: Hosts = |_| [127, 0, 3, 1].into();
    let many: Hosts = |number| {
        let number = u16::try_from(number % 60_000).unwrap().to_be_bytes();
        [127, 1, number[0], number[1]].into()
    };
    let floods =
        [(one, 100, [127, 0, 0, 10], [127, 0, 0, 11]), (many, 20, [127, 0, 0, 9], [127, 0, 0, 9])];
    for (hosts, each, live, caller) in floods {
        let live = LiveCall::start(&node, &bot, live.into(), 12).await;
        let stop = AtomicBool::new(false);
        let call = async {
            let call = LiveCall::start(&node, &bot, caller.into(), 3).await;
            stop.store(true, Ordering::Relaxed);
            call
        };
        let flood = flood_from(&node, hosts, each, &stop);
        let ((call, ()), largest) = watched(&node, async { tokio::join!(call, flood) }).await;
        assert!(largest < MAX_KIB, "{largest} KiB");
        call.finish(&bot).await;
        live.finish(&bot).await;
    }
    let told = told(&node);
    assert!(told.contains_key("127.0.3.1"), "{told:?}");
    let minutes = usize::try_from(begun.elapsed().as_secs() / 60).unwrap();
    let often = told.iter().find(|(_, lines)| **lines > 1 + minutes);
    assert_eq!(often, None, "a line a minute says that somebody sends too much");
    must_be_well(&node);
}
