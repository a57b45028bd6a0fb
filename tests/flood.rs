//! 110,000 broken messages: nobody falls over, nothing is left behind, and the call that is recorded
//! meanwhile is none the worse.

#[path = "fuzz/targets.rs"]
mod fuzz;
mod support;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use aftertone::proto::sip::path::{ConnectionId, Path, Transport};
use fuzz::Answerer;
use rand::{Rng, SeedableRng, rngs::StdRng};
use support::{Node, bot::Bot, eventually, live::LiveCall, mutation::Mutator};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream, UdpSocket},
};

const INVITES: usize = 10_000;
const OTHERS: usize = 100_000;

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

/// What the system says of the daemon: resident memory in KiB, and open files.
fn vitals(node: &Node) -> (u64, usize) {
    let process = format!("/proc/{}", node.pid());
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kib = line.trim().trim_end_matches(" kB").parse().unwrap();
    (kib, std::fs::read_dir(format!("{process}/fd")).unwrap().count())
}

/// Sends everything from several addresses, a tenth of it over streams.
async fn flood(node: &Node) {
    let host = |number: usize| IpAddr::from([127, 0, 2, 1 + (number % 8) as u8]);
    let mut datagrams = Vec::new();
    for number in 0..8 {
        datagrams.push(UdpSocket::bind((host(number), 0)).await.unwrap());
    }
    let mut streams: Vec<Option<TcpStream>> = (0..8).map(|_| None).collect();
    let mut mutator = Mutator::new(2);
    for number in 0..INVITES + OTHERS {
        let bytes = match number % 11 {
            // Few of the calls ring at the bot; nobody knows the others.
            0 if number % 10 == 0 => mutator.invite("bot"),
            0 => mutator.invite("nobody"),
            _ => mutator.other(),
        };
        let from = number % 8;
        if number % 10 == 9 {
            // The daemon hangs up where it cannot know what comes next.
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
            datagrams[from].send_to(&bytes, node.sip).await.unwrap();
        }
        if number % 40 == 0 {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_records_on_and_forgets_all_of_them() {
    let mut bot = Bot::start().await;
    // Nobody is limited here: that would spare the machines behind the limits.
    let node = Node::start(&format!(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\"]\n\
         trusted_peers = [\"127.0.0.0/8\"]\n[calls]\nanswer_timeout = \"2s\"\n\
         [[users]]\nname = \"alice\"\npassword = \"secret\"\n{}",
        bot.config()
    ));
    bot.knows(&node.api);
    let call = LiveCall::start(&node, &bot, [127, 0, 0, 9].into(), 14).await;
    let (_, files) = vitals(&node);

    let mut largest = 0;
    let flood = flood(&node);
    tokio::pin!(flood);
    loop {
        tokio::select! {
            () = &mut flood => break,
            () = tokio::time::sleep(Duration::from_millis(100)) => {
                largest = largest.max(vitals(&node).0);
            }
        }
    }
    assert!(largest < 256 * 1024, "{largest} KiB");
    call.finish(&bot).await;
    let offered = node.log_text().matches("Call offered").count();
    assert!(offered > 100, "{offered} were good enough to be calls");

    let back = async || (vitals(&node).1 <= files).then_some(());
    eventually("all files are closed again", Duration::from_secs(75), back).await;
    println!("at most {largest} KiB, then {} KiB, {offered} calls", vitals(&node).0);
    let log = node.log_text();
    let bad = log.lines().find(|line| line.contains("panicked") || line.contains(" ERROR "));
    assert_eq!(bad, None);
    LiveCall::start(&node, &bot, [127, 0, 0, 10].into(), 5).await.finish(&bot).await;
}
