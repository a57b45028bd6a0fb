//! Invalid and unusual messages to a busy daemon: each gets the answer that the RFC asks for, and
//! the call that is recorded meanwhile is not affected.

mod support;

use std::net::IpAddr;

use support::{
    Node,
    bot::Bot,
    live::LiveCall,
    raw::{ask_by_tcp, ask_by_udp, header, status, with_password},
};

/// The address that the messages come from.
const SENDER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
/// The addresses of the callers of the recorded calls.
const CALLERS: [[u8; 4]; 2] = [[127, 0, 0, 9], [127, 0, 0, 10]];
const PASSWORD: &str = "secret";

/// The messages of RFC 4475 and the final status that each gets, over UDP and over TCP; 0 means no
/// response.
///
/// Users are configured, so a stranger's valid INVITE or REGISTER is challenged.
type Answers = [(&'static str, u16, u16); 49];

const TO_STRANGERS: Answers = [
    // 3.1.1, valid messages.
    ("wsinv", 481, 481),
    ("intmeth", 501, 501),
    ("esc01", 401, 401),
    ("escnull", 401, 401),
    ("esc02", 501, 501),
    ("lwsdisp", 200, 200),
    ("longreq", 401, 401),
    ("dblreq", 401, 401),
    ("semiuri", 200, 200),
    ("transports", 200, 200),
    ("mpart01", 405, 405),
    ("unreason", 0, 0),
    ("noreason", 0, 0),
    // 3.1.2, invalid messages.
    ("badinv01", 400, 400),
    // The body is shorter than its Content-Length, so a stream waits for more.
    ("clerr", 400, 0),
    ("ncl", 400, 400),
    ("scalar02", 400, 400),
    ("scalarlg", 0, 0),
    ("quotbal", 400, 400),
    ("ltgtruri", 400, 400),
    ("lwsruri", 400, 400),
    ("lwsstart", 400, 400),
    ("trws", 400, 400),
    ("escruri", 400, 400),
    ("baddate", 401, 401),
    ("regbadct", 400, 400),
    ("badaspec", 400, 400),
    // The header has no end, so a stream waits for more.
    ("baddn", 400, 0),
    ("badvers", 505, 505),
    ("mismatch01", 400, 400),
    ("mismatch02", 501, 501),
    ("bigcode", 0, 0),
    // 3.2, transaction layer: the branch is the magic cookie alone, so the request counts as one of
    // RFC 2543.
    ("badbranch", 200, 200),
    // 3.3, application layer.
    ("insuf", 400, 400),
    ("unkscm", 416, 416),
    ("novelsc", 416, 416),
    ("unksm2", 400, 400),
    ("bext01", 420, 420),
    ("invut", 415, 415),
    ("regaut01", 401, 401),
    ("multi01", 400, 400),
    ("mcl01", 400, 400),
    ("bcast", 0, 0),
    ("zeromf", 200, 200),
    ("cparam01", 401, 401),
    ("cparam02", 401, 401),
    ("regescrt", 401, 401),
    ("sdp01", 406, 406),
    // 3.4, backward compatibility. The sender is a stranger of RFC 2543; on a stream the end of its
    // message is unknown (RFC 3261 section 18.3).
    ("inv2543", 401, 400),
];

/// The same with a trusted sender, when every user can be called, and a registering user has the
/// right password. Where the answer was 401 only because the sender was unknown, it is what the RFC
/// asks for.
fn to_known_ones() -> Answers {
    TO_STRANGERS.map(|answer| match answer {
        // The registrar accepts them: a request behind the body, parameters and a header of the
        // Contact, and credentials of an unknown scheme beside valid ones. No user has a NUL in its
        // name (escnull): credentials could not express it.
        ("dblreq" | "cparam01" | "cparam02" | "regescrt" | "regaut01", ..) => (answer.0, 200, 200),
        // The call is accepted, whatever its date (section 3.1.2.12 leaves that to the server).
        ("esc01" | "longreq" | "baddate", ..) => (answer.0, 200, 200),
        ("inv2543", ..) => (answer.0, 200, 400),
        other => other,
    })
}

/// The users that register in one of the messages.
const USERS: [&str; 3] = ["j.user", "user", "watson"];

async fn node_and_bot(extra: &str, users: &[&str]) -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let users: String = users
        .iter()
        .map(|user| format!("[[users]]\nname = {user:?}\npassword = \"{PASSWORD}\"\n"))
        .collect();
    let node = Node::start(&format!(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\", \"tcp:127.0.0.1:0\"]\ndigest = [\"md5\"]\n\
         {extra}{users}{}[[routes]]\nto = \"*\"\nline = \"echo\"\n",
        bot.config()
    ));
    bot.knows(&node.api);
    (node, bot)
}

/// Many messages use the same branch: each gets one of its own, so that it is not taken for a
/// retransmission of another one.
fn message(name: &str) -> Vec<u8> {
    let bytes = std::fs::read(format!("tests/torture/{name}.dat")).unwrap();
    let shared = b";branch=z9hG4bKkdjuw\r\n";
    match bytes.windows(shared.len()).position(|window| window == shared) {
        Some(at) => {
            let own = format!(";branch=z9hG4bK{name}\r\n");
            [&bytes[..at], own.as_bytes(), &bytes[at + shared.len()..]].concat()
        }
        None => bytes,
    }
}

/// Sends a request, and once more with the password of the user that it is from; returns the last
/// answer.
async fn ask(
    users: &[&str],
    bytes: &[u8],
    send: impl AsyncFn(&[u8]) -> Option<String>,
) -> Option<String> {
    let answer = send(bytes).await?;
    if status(&answer) != Some(401) {
        return Some(answer);
    }
    let from = header(&answer, "From")?.split_once("sip:")?.1.split('@').next()?;
    match users.iter().find(|user| **user == from) {
        Some(user) => send(&with_password(bytes, &answer, user, PASSWORD)?).await,
        None => Some(answer),
    }
}

/// Sends all messages over UDP to one node and over TCP to another one, each during a recorded
/// call. One node would take the same message over a second transport for a repeated one.
async fn each_gets_its_answer(answers: Answers, extra: &str, users: &[&str]) {
    let [(datagrams, d_bot), (streams, s_bot)] =
        [node_and_bot(extra, users).await, node_and_bot(extra, users).await];
    let [d_caller, s_caller] = CALLERS.map(IpAddr::from);
    let (d_call, s_call) = tokio::join!(
        LiveCall::start(&datagrams, &d_bot, d_caller, 12),
        LiveCall::start(&streams, &s_bot, s_caller, 12),
    );
    let tcp = streams.listener("tcp");
    let mut wrong = Vec::new();
    for (name, by_udp, by_tcp) in answers {
        let bytes = message(name);
        let (udp, tcp) = tokio::join!(
            ask(users, &bytes, async |bytes| ask_by_udp(SENDER, datagrams.sip, bytes, by_udp)
                .await),
            ask(users, &bytes, async |bytes| ask_by_tcp(tcp, bytes, by_tcp).await),
        );
        let got = [udp, tcp].map(|answer| answer.as_deref().and_then(status).unwrap_or(0));
        if got != [by_udp, by_tcp] {
            wrong.push(format!("{name}: wanted {by_udp} and {by_tcp}, got {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    tokio::join!(d_call.finish(&d_bot), s_call.finish(&s_bot));
    for node in [datagrams, streams] {
        assert!(!node.log_text().contains("panicked"), "{}", node.log_text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_torture_message_of_a_stranger_gets_its_answer() {
    each_gets_its_answer(TO_STRANGERS, "", &["alice"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_torture_message_of_a_known_sender_gets_its_answer() {
    let trusted = "trusted_peers = [\"127.0.0.1/32\"]\n";
    each_gets_its_answer(to_known_ones(), trusted, &USERS).await;
}

/// Sections 3.3.12 to 3.3.14: parameters of the URI stay in the URI, and those of the header field
/// stay beside it.
#[tokio::test(flavor = "multi_thread")]
async fn a_contact_is_kept_as_it_was_registered() {
    let (node, _bot) = node_and_bot("", &USERS).await;
    for (name, kept) in [
        ("cparam01", "<sip:+19725552222@gw1.example.net>"),
        ("cparam02", "<sip:+19725552222@gw1.example.net;unknownparam>"),
        ("regescrt", "<sip:user@example.com?Route=%3Csip:sip.example.com%3E>"),
    ] {
        let send = async |bytes: &[u8]| ask_by_udp(SENDER, node.sip, bytes, 200).await;
        let answer = ask(&USERS, &message(name), send).await.expect("an answer");
        assert_eq!(status(&answer), Some(200), "{name}: {answer}");
        let contacts =
            answer.lines().filter(|line| line.starts_with("Contact")).collect::<Vec<_>>();
        assert!(contacts.iter().any(|line| line.contains(kept)), "{name}: {contacts:?}");
    }
}
