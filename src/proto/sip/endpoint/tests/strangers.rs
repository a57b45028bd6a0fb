//! What a stranger can have us send to somebody else (RFC 3261 section 26.1.5).

use super::*;
use crate::proto::sip::path::{ConnectionId, Transport};

/// What is said in `method`, in full and in as few bytes as it can be.
fn requests(method: &str) -> [String; 2] {
    let full = Ask::new(method, 1).with("User-Agent: Phone/1.0").to_string();
    let small = format!(
        "{method} sip:a SIP/2.0\r\nv:SIP/2.0/UDP a;branch=z9hG4bK{method}\r\nf:<sip:a>;tag=1\r\n\
         t:<sip:a>\r\ni:1\r\nCSeq:1 {method}\r\n\r\n"
    );
    [full, small]
}

#[test]
fn no_stateless_answer_is_much_larger_than_its_request() {
    let mut answered = 0;
    for method in ["OPTIONS", "REGISTER", "BYE", "CANCEL", "PUBLISH", "SUBSCRIBE", "MESSAGE"] {
        for has_users in [true, false] {
            for request in requests(method) {
                let broken = request.replace("CSeq: 1", "CSeq: x").replace("CSeq:1", "CSeq:x");
                for request in [request, broken] {
                    let mut line = Line::new();
                    if has_users {
                        line.endpoint.set_users([("phone", "secret")].into_iter(), line.now);
                    }
                    line.receive(&request);
                    line.run_for(Duration::from_secs(40));
                    let sent: usize = line.sent.iter().map(|(_, text)| text.len()).sum();
                    assert!(sent * 2 <= request.len() * 3, "{sent} bytes for\n{request}");
                    answered += usize::from(sent > 0);
                }
            }
        }
    }
    assert!(answered >= 28, "all that are in full, but only {answered}");
}

#[test]
fn a_challenge_that_is_too_large_offers_less_and_a_stream_gets_it_all() {
    let ask = |more: usize| {
        let agent = format!("User-Agent: {}", "x".repeat(more));
        Ask::new("REGISTER", 1).with(&agent).to_string().replace("sip:100@", "sip:phone@")
    };
    let challenges = |path: Path, more: usize| {
        let mut line = Line::new();
        line.endpoint.set_users([("phone", "secret")].into_iter(), line.now);
        line.endpoint.handle_message(ask(more).as_bytes(), path, line.now);
        line.drain();
        let answer = line.sent.pop().unwrap().1;
        assert!(answer.starts_with("SIP/2.0 401 "), "{answer}");
        (answer.matches("WWW-Authenticate:").count(), answer.contains("Server:"))
    };
    assert_eq!(challenges(path(), 0), (1, false));
    assert_eq!(challenges(path(), 100), (2, true));
    let stream = Path { transport: Transport::Tcp, connection: Some(ConnectionId(1)), ..path() };
    assert_eq!(challenges(stream, 0), (2, true));
}
