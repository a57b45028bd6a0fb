//! WebSockets that end, and those of peers that violate the protocol (RFC 6455).

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::{
    self, Message, http::StatusCode, protocol::frame::coding::CloseCode,
};

use super::peers::{Node, Phone, config, register};
use crate::drivers::signalling::{StreamLimits, User};
use aftertone_core::proto::sip::{endpoint::Event, path::Transport};

/// A masked frame; its mask of zeros changes nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

const TEXT: u8 = 0x01;
const LAST: u8 = 0x80;
const CONTINUED: u8 = 0x00;
const PING: u8 = 0x09;

async fn close_code(phone: &mut Phone) -> CloseCode {
    loop {
        match phone.receive_frame().await {
            Message::Close(Some(close)) => return close.code,
            Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_browser_that_has_gone_is_not_registered_any_more() {
    let mut config = config(&[Transport::Ws]);
    config.users = vec![User { name: "web".to_owned(), password: "secret".to_owned() }];
    let node = Node::start(config).await;
    let mut leaving = Phone::ws(&node).await;
    register(&mut leaving, "web", "secret").await;
    assert_eq!(node.signalling.phones("web").await.len(), 1);
    leaving.send_frame(Message::Close(None)).await;
    gone(&node).await;

    let mut broken = Phone::ws(&node).await;
    register(&mut broken, "web", "secret").await;
    assert_eq!(node.signalling.phones("web").await.len(), 1);
    drop(broken);
    gone(&node).await;

    let mut wrong = Phone::ws(&node).await;
    register(&mut wrong, "web", "secret").await;
    wrong.send_raw(&[0x83, 0x80, 0, 0, 0, 0]).await;
    assert_eq!(close_code(&mut wrong).await, CloseCode::Protocol);
    gone(&node).await;
    node.stop().await;
}

async fn gone(node: &Node) {
    let all_gone = async {
        while !node.signalling.phones("web").await.is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(20), all_gone).await.expect("it is still registered");
}

#[tokio::test]
async fn what_is_no_frame_of_a_client_is_refused_with_its_code() {
    let node = Node::start(config(&[Transport::Ws])).await;
    let unmasked = [LAST | TEXT, 2, b'h', b'i'].to_vec();
    let huge = [&[LAST | TEXT, 0xff][..], &100_000_000_u64.to_be_bytes(), &[0; 4]].concat();
    let begun = frame(TEXT, b"OPTIONS");
    let unexpected = [begun, frame(LAST | TEXT, b"x")].concat();
    let no_text = frame(LAST | TEXT, &[0xff, 0xfe]);
    for (bytes, expected) in [
        (unmasked, CloseCode::Protocol),
        (huge, CloseCode::Size),
        (unexpected, CloseCode::Protocol),
        (no_text, CloseCode::Invalid),
    ] {
        let mut phone = Phone::ws(&node).await;
        phone.send_raw(&bytes).await;
        assert_eq!(close_code(&mut phone).await, expected, "{bytes:02x?}");
    }
    node.stop().await;
}

#[tokio::test]
async fn a_close_within_a_message_is_answered() {
    let node = Node::start(config(&[Transport::Ws])).await;
    let mut phone = Phone::ws(&node).await;
    phone.send_raw(&frame(TEXT, b"OPTIONS sip:100")).await;
    phone.send_raw(&frame(LAST | 0x08, &1_000_u16.to_be_bytes())).await;
    assert_eq!(close_code(&mut phone).await, CloseCode::Normal);
    node.stop().await;
}

#[tokio::test]
async fn endless_fragments_end_the_connection() {
    let node = Node::start(config(&[Transport::Ws])).await;
    let mut phone = Phone::ws(&node).await;
    let empty = frame(CONTINUED, b"").repeat(300);
    phone.send_raw(&[frame(TEXT, b"OPTIONS"), empty].concat()).await;
    assert_eq!(close_code(&mut phone).await, CloseCode::Policy);
    node.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pings_give_a_message_no_more_time() {
    let node = Node::start(config(&[Transport::Ws])).await;
    let mut phone = Phone::ws(&node).await;
    // The first fragment comes with the end of the message before it.
    let request = phone.request("OPTIONS", 1, "whole", "");
    let (first, last) = request.split_at(100);
    let whole = [frame(TEXT, first.as_bytes()), long(LAST, last), frame(TEXT, b"OPTIONS")];
    phone.send_raw(&whole.concat()).await;
    assert!(phone.receive().await.starts_with("SIP/2.0 200 "));
    let began = Instant::now();
    let limit = StreamLimits::default().message;
    for _ in 0..4 {
        sleep(limit / 5).await;
        phone.send_raw(&frame(LAST | PING, b"")).await;
        phone.send_raw(&frame(CONTINUED, b" ")).await;
    }
    assert_eq!(close_code(&mut phone).await, CloseCode::Policy);
    assert!(began.elapsed() <= limit + Duration::from_secs(1), "{:?}", began.elapsed());
    node.stop().await;
}

/// A frame of more than 125 bytes.
fn long(first: u8, payload: &str) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[first, 0xfe], &length[..], &[0; 4], payload.as_bytes()].concat()
}

#[tokio::test]
async fn a_flood_of_pings_keeps_nobody_from_being_served() {
    let node = Node::start(config(&[Transport::Ws])).await;
    let mut loud = Phone::ws(&node).await;
    loud.send(loud.request("OPTIONS", 1, "loud", "")).await;
    assert!(loud.receive().await.starts_with("SIP/2.0 200 "));
    // More than the burst of one source.
    loud.send_raw(&frame(LAST | PING, b"?").repeat(500)).await;
    loud.send(loud.request("OPTIONS", 2, "loud", "")).await;
    let answer = loop {
        match loud.receive_frame().await {
            Message::Text(text) => break text.to_string(),
            Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(answer.contains("CSeq: 2 OPTIONS"), "{answer}");
    node.stop().await;
}

const ELSEWHERE: Option<&str> = Some("https://evil.example");

/// Whether a call of this phone counts as one of a foreign page.
async fn is_foreign(node: &mut Node, phone: &mut Phone) -> bool {
    let name = phone.local().port().to_string();
    phone.send(phone.request("INVITE", 1, &name, "")).await;
    assert!(phone.receive().await.starts_with("SIP/2.0 100 "));
    match node.event().await {
        Event::Invite { invite, .. } => invite.path.is_foreign,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_page_has_nothing_of_the_trust_in_its_address() {
    let mut config = config(&[Transport::Ws]);
    config.trusted_peers = vec!["127.0.0.0/8".parse().unwrap()];
    config.users = vec![User { name: "web".to_owned(), password: "secret".to_owned() }];
    config.limits.connections_of_a_source = 1;
    let mut node = Node::start(config).await;
    let mut page = Phone::of_page(&node, ELSEWHERE).await.unwrap();
    assert!(is_foreign(&mut node, &mut page).await);
    register(&mut page, "web", "secret").await;
    assert_eq!(node.signalling.phones("web").await.len(), 1, "its user may prove itself");
    let mut second = Phone::of_page(&node, ELSEWHERE).await.unwrap();
    assert!(second.is_closed().await, "it is counted as a stranger's");
    let mut no_page = Phone::ws(&node).await;
    assert!(!is_foreign(&mut node, &mut no_page).await);
    node.stop().await;
}

#[tokio::test]
async fn where_pages_are_listed_no_others_come_in() {
    let mut config = config(&[Transport::Ws]);
    config.web_origins = vec!["https://phone.example".to_owned()];
    let mut node = Node::start(config).await;
    for origin in [ELSEWHERE, Some("null"), Some("https://phone.example:8443")] {
        match Phone::of_page(&node, origin).await {
            Err(tungstenite::Error::Http(response)) => {
                assert_eq!(response.status(), StatusCode::FORBIDDEN);
            }
            other => panic!("{:?}", other.map(|_| ())),
        }
    }
    for origin in [Some("https://phone.example"), None] {
        let mut phone = Phone::of_page(&node, origin).await.unwrap();
        assert!(!is_foreign(&mut node, &mut phone).await);
    }
    node.stop().await;
}
