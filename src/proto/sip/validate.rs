//! Which status a readable but wrong request earns (RFC 3261 section 8.2, RFC 4475 section 3).

use super::{
    message::{Method, Request},
    uri::Scheme,
};

/// Why a request is refused before anybody looks what it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// The reason phrase.
    pub reason: &'static str,
    /// Header fields that go with the status.
    pub extra_headers: Vec<(String, String)>,
}

/// Judges a request by itself.
///
/// # Errors
/// The status that it earns.
pub fn validate(request: &Request) -> Result<(), Refusal> {
    if let Method::Other(_) = request.method() {
        return refuse(501, "Not Implemented");
    }
    if request.cseq().method != *request.method() {
        return refuse(400, "CSeq Method Does Not Match");
    }
    if request.from().tag().is_none() && !is_rfc2543(request) {
        return refuse(400, "Missing From Tag");
    }
    match request.uri().scheme() {
        Scheme::Sip | Scheme::Sips | Scheme::Tel => {}
        Scheme::Other(_) => return refuse(416, "Unsupported URI Scheme"),
    }
    match request.to().uri.scheme() {
        Scheme::Sip | Scheme::Sips | Scheme::Tel => {}
        Scheme::Other(_) => return refuse(416, "Unsupported URI Scheme"),
    }
    if request.max_forwards() == Some(0) && *request.method() != Method::Options {
        return refuse(483, "Too Many Hops");
    }
    // RFC 3261 section 8.2.2.3: Require does not hold for ACK and CANCEL.
    let required = request.require();
    if !required.is_empty() && !matches!(request.method(), Method::Ack | Method::Cancel) {
        return Err(Refusal {
            status: 420,
            reason: "Bad Extension",
            extra_headers: vec![("Unsupported".to_owned(), required.join(", "))],
        });
    }
    let is_invite = *request.method() == Method::Invite;
    if is_invite && request.contacts().len() != 1 {
        return refuse(400, "Exactly One Contact Is Needed");
    }
    let has_body = !request.body().is_empty();
    let is_sdp =
        request.content_type().is_some_and(|kind| kind.eq_ignore_ascii_case("application/sdp"));
    if is_invite && has_body && !is_sdp {
        return Err(Refusal {
            status: 415,
            reason: "Unsupported Media Type",
            extra_headers: vec![("Accept".to_owned(), "application/sdp".to_owned())],
        });
    }
    Ok(())
}

/// RFC 2543 knew no tags in requests, and no branches that begin with the cookie.
fn is_rfc2543(request: &Request) -> bool {
    !request.top_via().branch.as_deref().is_some_and(|branch| branch.starts_with("z9hG4bK"))
}

fn refuse(status: u16, reason: &'static str) -> Result<(), Refusal> {
    Err(Refusal { status, reason, extra_headers: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sip::{message::Message, wire::parse_datagram};

    fn judged(change: impl Fn(&str) -> String) -> u16 {
        let invite = "INVITE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\
            From: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\
            Max-Forwards: 70\r\nContact: <sip:a@h>\r\n\r\n";
        match parse_datagram(change(invite).as_bytes()).unwrap() {
            Message::Request(request) => validate(&request).map_or_else(|r| r.status, |()| 0),
            Message::Response(_) => panic!("a request"),
        }
    }

    #[test]
    fn each_fault_earns_its_status() {
        assert_eq!(judged(str::to_owned), 0);
        assert_eq!(judged(|m| m.replace("1 INVITE", "1 OPTIONS")), 400);
        assert_eq!(judged(|m| m.replace("INVITE", "NEWMETHOD")), 501);
        assert_eq!(judged(|m| m.replacen("sip:b@h", "http://h", 1)), 416);
        assert_eq!(judged(|m| m.replace("Max-Forwards: 70", "Max-Forwards: 0")), 483);
        assert_eq!(judged(|m| m.replace("Max-Forwards: 70", "Require: x, y")), 420);
        assert_eq!(judged(|m| m.replace("Contact: <sip:a@h>\r\n", "")), 400);
        assert_eq!(judged(|m| m.replace(";tag=1", "")), 400);
        assert_eq!(judged(|m| m.replace("\r\n\r\n", "\r\nContent-Type: text/plain\r\n\r\nx")), 415);
    }
}
