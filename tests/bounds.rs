//! Messages that are too long, repeat a header field, or hide one message in another, over UDP and
//! TCP; and session descriptions that no peer should send. Each gets its status, and no state is
//! left of it.

mod support;

use std::{net::IpAddr, time::Duration};

use support::{
    Node,
    bot::Bot,
    eventually,
    mutation::Mutator,
    raw::{Peer, SDP, ask_by_tcp, ask_by_udp, header, status},
};

const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// The name of a test case as a Call-ID.
fn id(name: &str) -> String {
    name.chars().map(|it| if it.is_ascii_alphanumeric() { it } else { '-' }).collect()
}

/// A valid request with the start line `start` and the lines `more`.
fn request(name: &str, start: &str, more: &str) -> Vec<u8> {
    let (name, method) = (id(name), start.split(' ').next().unwrap());
    format!(
        "{start} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK{name}\r\n\
         From: <sip:a@192.0.2.1>;tag=1\r\nTo: <sip:b@192.0.2.2>\r\nCall-ID: {name}\r\n\
         CSeq: 1 {method}\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n{more}\r\n"
    )
    .into_bytes()
}

/// Name, request, and the status over UDP and over TCP; 0 means no response.
fn requests() -> Vec<(&'static str, Vec<u8>, u16, u16)> {
    let options = "OPTIONS sip:b@192.0.2.2";
    let with = |name, more: &str, status: u16| (name, request(name, options, more), status, status);
    let start = |name, line: &str, status| (name, request(name, line, ""), status, status);
    let parameters =
        |count: usize| -> String { (0..count).map(|number| format!(";p{number}")).collect() };
    let mut all = vec![
        with("good", "Subject: x\r\n", 200),
        // Too long, or too much.
        with("line of 60 kB", &format!("Subject: {}\r\n", "x".repeat(60_000)), 400),
        with("folded line of 60 kB", &format!("Subject: x{}\r\n", "\r\n x".repeat(15_000)), 400),
        with("10,000 header fields", &"X: y\r\n".repeat(10_000), 400),
        with("1,000 Via", &"v: SIP/2.0/UDP 192.0.2.9\r\n".repeat(1_000), 400),
        with("1,000 Via in a line", &format!("v: a/1/U c{}\r\n", ",a/1/U c".repeat(999)), 400),
        with("200 Via", &"v: SIP/2.0/UDP 192.0.2.9\r\n".repeat(200), 200),
        start("method of 4 kB", &format!("{} sip:b@192.0.2.2", "M".repeat(4_096)), 501),
        start("5,000 parameters", &format!("{options}{}", parameters(5_000)), 414),
        start("1,000 parameters", &format!("{options}{}", parameters(1_000)), 200),
        // A header field twice that may occur once only (RFC 3261 section 7.3.1).
        with("From", "From: <sip:c@192.0.2.1>;tag=2\r\n", 400),
        with("f", "f: <sip:a@192.0.2.1>;tag=1\r\n", 400),
        with("To", "To: <sip:c@192.0.2.2>\r\n", 400),
        with("t", "t: <sip:b@192.0.2.2>\r\n", 400),
        with("to with a blank", "TO : <sip:b@192.0.2.2>\r\n", 400),
        with("Call-ID", "Call-ID: another\r\n", 400),
        with("i", "i: i\r\n", 400),
        with("CSeq", "CSeq: 2 OPTIONS\r\n", 400),
        with("Max-Forwards", "Max-Forwards: 70\r\n", 400),
        with("Content-Length", "Content-Length: 5\r\n", 400),
        with("l", "l: 0\r\n", 400),
        with("l with a tab", "l\t: 0\r\n", 400),
        // Unusual spellings: each has one reading.
        with("a name with blanks behind it", "Subject \t : x\r\n", 200),
        with("no text", "Subject: \u{fffd}\r\n", 200),
        with("a length behind a lone CR", "Subject: x\rContent-Length: 9\r\n", 200),
        with("a name with a blank in it", "Content Length: 9\r\n", 400),
        with("no name", ": x\r\n", 400),
        with("no colon", "Subject\r\n", 400),
        with("a length that is none", "Subject: x\r\n Content-Length: 9\r\n", 200),
    ];
    // Bytes that are no UTF-8, and lines that end with LF alone.
    let swap = |bytes: Vec<u8>, from: &[u8], to: &[u8]| -> Vec<u8> {
        let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
        [&bytes[..at], to, &bytes[at + from.len()..]].concat()
    };
    let no_text =
        swap(request("no UTF-8", options, "Subject: x\r\n"), b"ject: x", b"ject: \xff\xfe");
    all.push(("no UTF-8", no_text, 200, 200));
    let lines = String::from_utf8(request("LF alone", options, "")).unwrap().replace("\r\n", "\n");
    all.push(("LF alone", lines.into_bytes(), 200, 200));
    // NUL characters: in a value they are refused or kept, in a name they are refused.
    let in_name = swap(request("NUL in a name", options, "Subject: x\r\n"), b"Subj", b"Su\0j");
    all.push(("NUL in a name", in_name, 400, 400));
    let in_value = swap(request("NUL in a value", options, "Subject: x\r\n"), b"t: x", b"t: \0");
    all.push(("NUL in a value", in_value, 200, 200));
    // An ACK is never answered, whatever is wrong with it.
    all.push(("bad ACK", request("bad ACK", "ACK sip:b@192.0.2.2", "i: i\r\n"), 0, 0));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_has_one_reading_or_is_refused() {
    let listen = "[sip]\nlisten = [\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\"]\n";
    let node = Node::start(listen);
    let tcp = node.listener("tcp");
    let mut wrong = Vec::new();
    for (name, bytes, by_udp, by_tcp) in requests() {
        let over_udp = ask_by_udp(HOST, node.sip, &bytes, by_udp).await;
        let over_tcp = ask_by_tcp(tcp, &bytes, by_tcp).await;
        let got = [&over_udp, &over_tcp].map(|it| it.as_deref().and_then(status).unwrap_or(0));
        if got != [by_udp, by_tcp] {
            wrong.push(format!("{name}: wanted {by_udp} and {by_tcp}, got {got:?}"));
        }
        for answer in [over_udp, over_tcp].into_iter().flatten() {
            assert!(answer.len() <= 65_535, "{name}");
            assert_eq!(header(&answer, "Call-ID"), Some(id(name).as_str()), "{answer}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let longest = node.log_text().lines().map(str::len).max().unwrap_or_default();
    assert!(longest <= 2_048, "a line of the log has {longest} bytes");
    assert!(!node.log_text().contains("panicked"));
}

fn files(node: &Node) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count()
}

/// Places a call with this body; returns the final status. An answered call is ended.
async fn call(node: &Node, name: &str, kind: &str, body: &[u8]) -> u16 {
    let mut peer = Peer::new(HOST, node.sip, "echo", &id(name)).await;
    peer.send(peer.invite_with(kind, body)).await;
    let answer = peer.wait_for("INVITE", |status| status >= 200).await;
    let got = status(&answer).unwrap();
    if got == 200 {
        peer.say("ACK", 1, "a", SDP).await;
        peer.say("BYE", 2, "b", "").await;
        peer.wait_for("BYE", |status| status == 200).await;
    } else {
        peer.say("ACK", 1, "i", "").await;
    }
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_offered_is_answered_and_nothing_is_left() {
    let mut bot = Bot::start().await;
    let trusted = "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\ntrusted_peers = [\"127.0.0.1/32\"]\n";
    let node = Node::start(&format!("{trusted}{}", bot.config()));
    bot.knows(&node.api);
    assert_eq!(call(&node, "good", "application/sdp", SDP.as_bytes()).await, 200);
    let none = async || {
        let (_, calls) = bot.get("calls").await;
        calls["value"].as_array().unwrap().is_empty().then_some(())
    };
    eventually("no call is left", Duration::from_secs(10), none).await;
    let open = files(&node);

    let many = |line: &str, count: usize| format!("{SDP}{}", line.repeat(count));
    let nested: String = (0..100)
        .map(|depth| {
            format!("--b{depth}\r\nContent-Type: multipart/mixed;boundary=b{}\r\n\r\n", depth + 1)
        })
        .collect();
    for (name, kind, body, wanted) in [
        ("nothing", "", String::new(), 200),
        ("2,500 media lines", "application/sdp", many("m=audio 1 RTP/AVP 0\r\n", 2_500), 400),
        ("5,000 attributes", "application/sdp", many("a=x\r\n", 5_000), 400),
        ("a port that is none", "application/sdp", SDP.replace(" 9 ", " 65536 "), 400),
        ("port 0", "application/sdp", SDP.replace(" 9 ", " 0 "), 488),
        ("a payload type of 2^32", "application/sdp", SDP.replace("AVP 0", "AVP 4294967296"), 488),
        ("another version", "application/sdp", SDP.replace("v=0", "v=1"), 400),
        ("no audio", "application/sdp", SDP.replace("audio", "video"), 488),
        ("no end", "application/sdp", SDP.repeat(200), 400),
        ("multipart without a boundary", "multipart/mixed", SDP.to_owned(), 415),
        ("multipart, 100 deep", "multipart/mixed;boundary=b0", nested, 415),
    ] {
        assert_eq!(call(&node, name, kind, body.as_bytes()).await, wanted, "{name}");
    }

    let mut mutator = Mutator::new(5);
    let bodies: Vec<Vec<u8>> = (0..1_000).map(|_| mutator.description()).collect();
    let some = async |offset: usize| {
        let mut counts = [0; 3];
        for (number, body) in bodies.iter().enumerate().skip(offset).step_by(4) {
            let got = call(&node, &format!("mutated-{number}"), "application/sdp", body).await;
            let all = [200, 400, 488];
            let at = all.iter().position(|status| *status == got);
            let text = String::from_utf8_lossy(body);
            counts[at.unwrap_or_else(|| panic!("{got} to {text}"))] += 1;
        }
        counts
    };
    let counts = tokio::join!(some(0), some(1), some(2), some(3));
    let counts = [counts.0, counts.1, counts.2, counts.3];
    for (at, status) in [200, 400, 488].iter().enumerate() {
        let sum: usize = counts.iter().map(|counts| counts[at]).sum();
        assert!(sum > 10, "{sum} were answered by {status}");
    }
    eventually("no call is left", Duration::from_secs(10), none).await;
    let back = async || (files(&node) <= open).then_some(());
    eventually("all ports are closed again", Duration::from_secs(40), back).await;
    assert!(!node.log_text().contains("panicked"));
}

/// How many RTP packets of the greeting go to the address in a session description.
async fn greeted(connection: &str) -> u64 {
    let node = Node::start("");
    let mut peer = Peer::new(HOST, node.sip, "voicemail", &id(connection)).await;
    let body = SDP.replace("c=IN IP4 127.0.0.1", connection);
    peer.send(peer.invite_with("application/sdp", body.as_bytes())).await;
    peer.wait_for("INVITE", |status| status == 200).await;
    peer.say("ACK", 1, "a", "").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    peer.say("BYE", 2, "b", "").await;
    peer.wait_for("BYE", |status| status == 200).await;
    eventually("the end of the call", Duration::from_secs(10), async || {
        let log = node.log_text();
        let (_, rest) = log.split_once("rtp.sent=")?;
        rest.split(|it: char| !it.is_ascii_digit()).next()?.parse().ok()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_to_everybody_or_to_nobody() {
    assert!(greeted("c=IN IP4 127.0.0.1").await > 0, "a greeting is sent");
    for connection in [
        "c=IN IP4 224.0.0.1/127",
        "c=IN IP4 255.255.255.255",
        "c=IN IP4 0.0.0.0",
        "c=IN IP6 ff02::1",
    ] {
        assert_eq!(greeted(connection).await, 0, "{connection}");
    }
}
