//! The messages of RFC 5118 over UDP and TCP on ::1: each gets the status that the RFC asks for.

mod support;

use std::{
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use aftertone::service::demo::phone::Phone;
use support::{
    Node, eventually,
    raw::{ask_by_tcp, ask_by_udp, header, status, with_password},
};

const HOST: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const PASSWORD: &str = "secret";

/// The messages of section 4, in its order, and their statuses.
const ANSWERS: [(&str, u16); 12] = [
    ("ipv6-good", 200),
    // 4.2: an address without brackets is invalid.
    ("ipv6-bad", 400),
    // 4.3: the digits that look like a port belong to the address, which is not ours.
    ("port-ambiguous", 404),
    ("port-unambiguous", 200),
    // 4.5: both are read; the first one names a dialog that does not exist.
    ("via-received-param-with-delim", 481),
    ("via-received-param-no-delim", 200),
    // 4.6 and 4.9: the only codec on offer is G.726.
    ("ipv6-in-sdp", 488),
    ("mult-ip-in-header", 481),
    ("mult-ip-in-sdp", 200),
    ("ipv4-mapped-ipv6", 488),
    // 4.10: an address with one colon too many is invalid.
    ("ipv6-bug-abnf-3-colons", 400),
    ("ipv6-correct-abnf-2-colons", 200),
];

/// The address that the messages of sections 4.1 and 4.4 register at.
const REGISTRAR: &str = "advertised_address = \"2001:db8::10\"\n";

fn node(extra: &str) -> Node {
    Node::start(&format!(
        "[sip]\n{extra}listen = [\"udp:[::1]:0\", \"tcp:[::1]:0\"]\ndigest = [\"md5\"]\n\
         [[users]]\nname = \"user\"\npassword = \"{PASSWORD}\"\n\
         [[routes]]\nto = \"*\"\nline = \"echo\"\npublic = true\n"
    ))
}

/// Sends a request, and once more with the password when it is challenged.
async fn ask(bytes: &[u8], send: impl AsyncFn(&[u8]) -> Option<String>) -> String {
    let answer = send(bytes).await.expect("an answer");
    match with_password(bytes, &answer, "user", PASSWORD) {
        Some(bytes) => send(&bytes).await.expect("an answer"),
        None => answer,
    }
}

/// The answers over UDP and over TCP.
async fn answers(bytes: &[u8]) -> [String; 2] {
    let extra = if bytes.starts_with(b"REGISTER") { REGISTRAR } else { "" };
    // One node for each transport: many of the messages share a Call-ID and a branch.
    let (datagrams, streams) = (node(extra), node(extra));
    let tcp = streams.listener("tcp");
    [
        ask(bytes, async |bytes| ask_by_udp(HOST, datagrams.sip, bytes, 200).await).await,
        ask(bytes, async |bytes| ask_by_tcp(tcp, bytes, 200).await).await,
    ]
}

fn message(name: &str) -> Vec<u8> {
    std::fs::read(format!("tests/torture_ipv6/{name}.dat")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_of_rfc_5118_gets_its_answer() {
    let mut wrong = Vec::new();
    for (name, wanted) in ANSWERS {
        let answers = answers(&message(name)).await;
        let got = answers.each_ref().map(|answer| status(answer).unwrap());
        if got != [wanted; 2] {
            wrong.push(format!("{name}: wanted {wanted}, got {got:?}"));
        }
        let asked = String::from_utf8(message(name)).unwrap();
        for answer in answers {
            assert_eq!(header(&answer, "Call-ID"), header(&asked, "Call-ID"), "{name}");
            // The peer is at ::1, whatever its Via says (RFC 3261 section 18.2.1, RFC 3581).
            let received = header(&answer, "Via").unwrap().replace(['[', ']'], "");
            assert!(received.contains("received=::1"), "{name}: {received}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_registered_keeps_its_brackets() {
    for answer in answers(&message("ipv6-good")).await {
        let contact = answer.lines().find(|line| line.starts_with("Contact: ")).unwrap();
        assert!(contact.contains("<sip:caller@[2001:db8::1]>"), "{contact}");
    }
}

/// Sections 4.6 and 4.9 with a supported codec: the answer uses the family of our own address.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_described_in_ipv6() {
    for name in ["ipv6-in-sdp", "ipv4-mapped-ipv6"] {
        let text = String::from_utf8(message(name)).unwrap();
        let text = text.replace("RTP/AVP 2\r\na=rtpmap:2 G726-32/8000", "RTP/AVP 0");
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let length = header(&text, "Content-Length").unwrap();
        let head = head.replace(&format!("Length: {length}"), &format!("Length: {}", body.len()));
        for answer in answers(format!("{head}\r\n\r\n{body}").as_bytes()).await {
            assert_eq!(status(&answer), Some(200), "{name}: {answer}");
            assert!(header(&answer, "Contact").unwrap().contains("@[::1]:"), "{answer}");
            let (_, description) = answer.split_once("\r\n\r\n").unwrap();
            assert!(description.contains("\r\nc=IN IP6 ::1\r\n"), "{description}");
            let origin = description.lines().find(|line| line.starts_with("o=")).unwrap();
            assert!(origin.ends_with("IN IP6 ::1"), "{origin}");
            let media: Vec<&str> =
                description.lines().filter(|line| line.starts_with("m=")).collect();
            assert!(media[0].starts_with("m=audio ") && media[0].ends_with(" RTP/AVP 0"));
            assert!(media[1].starts_with("m=video 0 "), "{media:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_ipv6_is_heard() {
    let node = node("");
    let phone = Phone::call(node.sip, "echo").await.unwrap();
    let speech: Vec<i16> = (0..8_000).map(|at: i16| (at % 80) * 200 - 8_000).collect();
    phone.speak(&speech);
    // The echo is what was spoken, after G.711 both ways.
    let heard = async || phone.heard().iter().any(|sample| *sample > 6_000).then_some(());
    eventually("the echo", Duration::from_secs(10), heard).await;
    phone.hang_up().await.unwrap();
}
