//! sipvicious searches for the server, its users and a password while a call is recorded. A leaky
//! server shows that it finds what can be found.

mod support;

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::{Duration, Instant},
};

use support::{
    Node,
    bot::Bot,
    live::LiveCall,
    program,
    raw::{header, status, with_password},
};
use tokio::{net::UdpSocket, process::Command, task::JoinHandle, time::timeout};

/// The address of the recorded call; the scanners come from 127.0.0.1, as a stranger.
const CALLER: [u8; 4] = [127, 0, 0, 9];
const PASSWORD: &str = "rover77";
/// T14: the largest allowed difference between the answers for an existing and a missing user.
const TELLING: Duration = Duration::from_millis(1);

async fn node_and_bot() -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let node = Node::start(&format!(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\ndigest = [\"md5\"]\n\
         [[users]]\nname = \"1001\"\npassword = \"{PASSWORD}\"\n{}",
        bot.config()
    ));
    bot.knows(&node.api);
    (node, bot)
}

/// A server that challenges REGISTERs of its user 1001, a moment later than it refuses those of
/// unknown users.
async fn leaky_server() -> (SocketAddr, JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut buffer = vec![0; 65_535];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let request = String::from_utf8_lossy(&buffer[..length]).into_owned();
            let Some(to) = header(&request, "To") else { continue };
            let mut start = "SIP/2.0 404 Not Found";
            if to.contains("1001") {
                std::thread::sleep(4 * TELLING);
                start = "SIP/2.0 401 Unauthorized\r\n\
                         WWW-Authenticate: Digest realm=\"leaky\", nonce=\"n\"";
            }
            let same: String = ["Via", "From", "Call-ID", "CSeq"]
                .into_iter()
                .filter_map(|name| Some(format!("{name}: {}\r\n", header(&request, name)?)))
                .collect();
            let answer = format!("{start}\r\n{same}To: {to};tag=1\r\nContent-Length: 0\r\n\r\n");
            let _ = socket.send_to(answer.as_bytes(), peer).await;
        }
    });
    (address, task)
}

/// Runs a program of sipvicious, which never ends when it gets no answer; returns its output.
async fn scan(name: &str, folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program(name, "sipvicious"));
    // It keeps its state below the home folder, and gets a free port of its own.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let port = probe.local_addr().unwrap().port().to_string();
    drop(probe);
    command.args(arguments).args(["-P", &port]).env("HOME", folder).current_dir(folder);
    let output = timeout(Duration::from_secs(30), command.kill_on_drop(true).output()).await;
    let output = output.unwrap_or_else(|_| panic!("{name} ends")).unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

async fn look_for_users(target: SocketAddr, folder: &Path, method: &str) -> String {
    let target = format!("udp://{target}");
    let arguments = ["--force", "-m", method, "--maximumtime", "3", "-e", "990-1010", &target];
    scan("svwar", folder, &arguments).await
}

/// Tries words, of which the `place`-th is right.
async fn guess(target: SocketAddr, folder: &Path, place: usize) -> String {
    let mut words: Vec<String> = (1..place).map(|number| format!("password{number}")).collect();
    words.push(PASSWORD.to_owned());
    words.extend((0..50).map(|number| format!("more{number}")));
    std::fs::write(folder.join("words"), words.join("\n")).unwrap();
    let target = format!("udp://{target}");
    let arguments = ["-u", "1001", "-d", "words", "--maximumtime", "5", &target];
    scan("svcrack", folder, &arguments).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scanner_finds_a_server_and_nothing_more() {
    let (node, bot) = node_and_bot().await;
    let call = LiveCall::start(&node, &bot, CALLER.into(), 18).await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let port = node.sip.port().to_string();
    let found = scan("svmap", folder, &["-p", &port, "127.0.0.1"]).await;
    assert!(found.contains("aftertone"), "svmap works: {found}");
    let (leaky, server) = leaky_server().await;
    for method in ["REGISTER", "INVITE"] {
        let found = look_for_users(leaky, folder, method).await;
        assert!(found.contains("1001") && found.contains("reqauth"), "svwar works: {found}");
        let found = look_for_users(node.sip, folder, method).await;
        assert!(found.contains("found nothing"), "{method}: {found}");
    }
    server.abort();
    let found = guess(node.sip, folder, 10).await;
    assert!(!found.contains(PASSWORD), "{found}");
    // The scanner has five tries a minute; the log has one line.
    node.logs("Wrong password", 1).await;
    assert!(!node.log_text().contains("Phone registered"));
    call.finish(&bot).await;

    // svcrack finds a password within its tries.
    let (node, _bot) = node_and_bot().await;
    let found = guess(node.sip, folder, 3).await;
    assert!(found.contains(PASSWORD), "svcrack works: {found}");
}

fn register(user: &str, local: SocketAddr, node: SocketAddr, cseq: u32) -> String {
    format!(
        "REGISTER sip:{node} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{user}{cseq}\r\n\
         From: <sip:{user}@{node}>;tag=1\r\nTo: <sip:{user}@{node}>\r\nCall-ID: {user}{local}\r\n\
         CSeq: {cseq} REGISTER\r\nMax-Forwards: 70\r\nContact: <sip:{user}@{local}>\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// How long a REGISTER with a wrong password waits for its answer, if it was challenged.
async fn refusal_time(socket: &UdpSocket, user: &str, node: SocketAddr) -> Duration {
    let local = socket.local_addr().unwrap();
    let mut buffer = vec![0; 65_535];
    let mut ask = async |request: &[u8]| {
        let begun = Instant::now();
        socket.send_to(request, node).await.unwrap();
        let length = timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await;
        let length = length.expect("an answer").unwrap();
        (begun.elapsed(), String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let (time, refusal) = ask(register(user, local, node, 1).as_bytes()).await;
    let again = register(user, local, node, 2);
    match with_password(again.as_bytes(), &refusal, user, "a guess") {
        Some(request) => {
            let (time, answer) = ask(&request).await;
            assert_eq!(status(&answer), Some(401), "{answer}");
            time
        }
        None => time,
    }
}

/// By how much the answer for an existing user is later than for a missing one: the median of pairs
/// that are sent one right after the other, so that load on the machine affects both.
async fn difference(node: SocketAddr) -> f64 {
    let mut all = Vec::new();
    for number in 0..120_u8 {
        // Each source has its own number of tries.
        let socket = UdpSocket::bind((IpAddr::from([127, 0, 4, number]), 0)).await.unwrap();
        let order = if number % 2 == 0 { ["1001", "1002"] } else { ["1002", "1001"] };
        let mut times = [0.0; 2];
        for user in order {
            let time = refusal_time(&socket, user, node).await.as_secs_f64();
            times[usize::from(user == "1002")] = time;
        }
        all.push(times[0] - times[1]);
    }
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_an_answer_does_not_tell_who_is_a_user() {
    let (node, _bot) = node_and_bot().await;
    let telling = TELLING.as_secs_f64();
    let ours = difference(node.sip).await;
    assert!(ours.abs() < telling, "{} ms", ours * 1_000.0);
    let (leaky, server) = leaky_server().await;
    let theirs = difference(leaky).await;
    assert!(theirs > telling, "it would have been seen: {} ms", theirs * 1_000.0);
    server.abort();
}
