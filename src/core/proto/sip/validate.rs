//! Checks whether a request that could be read can be served (RFC 3261 §8.2), as far as that needs
//! neither dialogs nor transactions.
//!
//! Comes in: a request. Goes out: nothing, or the refusal to send. The caller makes sure that an
//! ACK is never answered.

use super::{
    Status,
    body::{SDP, Unsupported, media_type},
    message::{Method, Request},
    session_timer::TIMER,
};

/// Methods that are served, in the order that Allow names them.
pub const SERVED: [Method; 11] = [
    Method::Invite,
    Method::Ack,
    Method::Cancel,
    Method::Bye,
    Method::Options,
    Method::Info,
    Method::Update,
    Method::Prack,
    Method::Notify,
    Method::Refer,
    Method::Register,
];

/// Extensions that a request may require (§8.2.2.3).
const SUPPORTED: [&str; 3] = ["100rel", TIMER, "replaces"];

/// `SUPPORTED` as the value of a header field.
pub(super) const SUPPORTED_TAGS: &str = "100rel, timer, replaces";

/// Header fields that may occur only once (§7.3.1); those that identify the transaction come first.
const SINGLE: [&str; 6] = ["From", "To", "Call-ID", "CSeq", "Content-Length", "Max-Forwards"];
/// Those that an ACK may not repeat. An ACK cannot be refused, so its other repetitions are
/// ignored.
const SINGLE_IN_ACK: &[&str] = SINGLE.split_at(4).0;

/// The refusal of a request that cannot be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// From 400 to 699.
    pub status: Status,
    /// The reason phrase.
    pub reason: &'static str,
    /// Header fields that tell the peer what we support.
    pub extra_headers: Vec<(String, String)>,
}

impl Refusal {
    /// A refusal with the usual reason phrase and no further header field.
    pub(super) fn new(status: Status) -> Self {
        Self { status, reason: status.reason(), extra_headers: Vec::new() }
    }

    pub(super) fn bad_request(reason: &'static str) -> Self {
        Self { reason, ..Self::new(Status::BAD_REQUEST) }
    }

    /// The refusal of a body that is not understood and may not be ignored; `accepted` are the
    /// media types that are understood (§8.2.3, RFC 5621 §8.4).
    pub(super) fn of_content(why: Unsupported, accepted: &str) -> Self {
        let refusal = Self::new(Status::UNSUPPORTED_MEDIA_TYPE).with("Accept", accepted.to_owned());
        match why {
            Unsupported::Type => refusal,
            Unsupported::Encoding => refusal.with("Accept-Encoding", "identity".to_owned()),
            Unsupported::TooManyParts => Self::bad_request("Too Many Body Parts"),
        }
    }

    pub(super) fn with(mut self, name: &str, value: String) -> Self {
        self.extra_headers.push((name.to_owned(), value));
        self
    }
}

/// Checks a request, in the order of RFC 3261 §8.2.
///
/// # Errors
///
/// The refusal to send.
pub fn validate(request: &Request) -> Result<(), Refusal> {
    check_method_is_known(request)?;
    check_syntax(request)?;
    check_method_is_served(request)?;
    check_uri(request)?;
    check_extensions(request)?;
    check_content(request)?;
    check_accept(request)
}

/// An unknown method is refused first: such a request may follow rules of its own.
fn check_method_is_known(request: &Request) -> Result<(), Refusal> {
    match request.method() {
        Method::Other(_) => Err(Refusal::new(Status::NOT_IMPLEMENTED).with("Allow", allow())),
        _ => Ok(()),
    }
}

fn check_syntax(request: &Request) -> Result<(), Refusal> {
    let single = match request.method() {
        Method::Ack => SINGLE_IN_ACK,
        _ => &SINGLE,
    };
    for name in single {
        if request.headers(name).nth(1).is_some() {
            return Err(Refusal::bad_request("Repeated Header Field"));
        }
    }
    if request.cseq().method != *request.method() {
        return Err(Refusal::bad_request("CSeq Method Mismatch"));
    }
    Ok(())
}

fn check_method_is_served(request: &Request) -> Result<(), Refusal> {
    if SERVED.contains(request.method()) {
        return Ok(());
    }
    Err(Refusal::new(Status::METHOD_NOT_ALLOWED).with("Allow", allow()))
}

fn check_uri(request: &Request) -> Result<(), Refusal> {
    match request.uri().scheme() {
        "sip" | "sips" | "tel" => Ok(()),
        _ => Err(Refusal::new(Status::UNSUPPORTED_URI_SCHEME)),
    }
}

/// Extensions that only a REGISTER may require (RFC 3327, RFC 5626).
const SUPPORTED_BY_REGISTRAR: [&str; 2] = ["path", "outbound"];

/// In ACK and CANCEL, Require is ignored (§8.2.2.3).
fn check_extensions(request: &Request) -> Result<(), Refusal> {
    if matches!(request.method(), Method::Ack | Method::Cancel) {
        return Ok(());
    }
    let more: &[&str] = match request.method() {
        Method::Register => &SUPPORTED_BY_REGISTRAR,
        _ => &[],
    };
    let unsupported: Vec<&str> = request
        .require()
        .into_iter()
        .filter(|tag| !SUPPORTED.iter().chain(more).any(|known| tag.eq_ignore_ascii_case(known)))
        .collect();
    if unsupported.is_empty() {
        return Ok(());
    }
    Err(Refusal::new(Status::BAD_EXTENSION).with("Unsupported", unsupported.join(", ")))
}

/// The body of an INVITE has to be a session description, empty, or ignorable. Bodies of other
/// requests are checked where they are used.
fn check_content(request: &Request) -> Result<(), Refusal> {
    match request.method() {
        Method::Invite => check_description(request),
        _ => Ok(()),
    }
}

/// Checks that the body of a request requires nothing but a session description.
///
/// # Errors
///
/// The refusal to send.
pub(super) fn check_description(request: &Request) -> Result<(), Refusal> {
    match request.content(&[SDP]).refused {
        None => Ok(()),
        Some(why) => Err(Refusal::of_content(why, SDP)),
    }
}

/// Checks that the sender of an INVITE accepts SDP in the response (§21.4.7); without Accept it
/// does (§20.1).
fn check_accept(request: &Request) -> Result<(), Refusal> {
    let mut accepted = request.headers("Accept").flat_map(|list| list.split(',')).peekable();
    if *request.method() != Method::Invite || accepted.peek().is_none() {
        return Ok(());
    }
    let takes_sdp =
        |range: &str| [SDP, "application/*", "*/*"].contains(&media_type(range).as_str());
    if accepted.any(takes_sdp) { Ok(()) } else { Err(Refusal::new(Status::NOT_ACCEPTABLE)) }
}

/// The methods that are served for all peers, as a list. REGISTER is only for users, if there are
/// any.
pub(super) fn allow() -> String {
    let is_for_all = |method: &&Method| !matches!(method, Method::Register);
    let names: Vec<&str> = SERVED.iter().filter(is_for_all).map(Method::as_str).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sip::{message::Message, wire::parse_datagram};

    fn judge(method: &str, uri: &str, more: &str) -> Result<(), Refusal> {
        let text = format!(
            "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP c\r\nFrom: <sip:c@c>;tag=1\r\n\
             To: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 {method}\r\n{more}"
        );
        match parse_datagram(text.as_bytes()) {
            Ok(Message::Request(request)) => validate(&request),
            other => panic!("{other:?}"),
        }
    }

    fn refusal(method: &str, more: &str) -> (u16, Vec<(String, String)>) {
        let refusal = judge(method, "sip:a@b", more).unwrap_err();
        (refusal.status.code(), refusal.extra_headers)
    }

    fn header(name: &str, value: &str) -> Vec<(String, String)> {
        vec![(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn what_we_serve_passes() {
        for method in SERVED {
            assert_eq!(judge(method.as_str(), "tel:123", "Max-Forwards: 1\r\n\r\n"), Ok(()));
        }
    }

    #[test]
    fn methods_are_case_sensitive() {
        assert_eq!(refusal("invite", "\r\n").0, 501);
    }

    #[test]
    fn a_known_method_that_is_not_served_is_told_what_is() {
        let allow = header(
            "Allow",
            "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK, NOTIFY, REFER",
        );
        assert_eq!(refusal("SUBSCRIBE", "\r\n"), (405, allow));
    }

    #[test]
    fn single_header_fields_may_not_come_twice() {
        for line in ["From: <sip:d@d>", "t: <sip:a@b>", "i: y", "CSeq: 2 BYE"] {
            assert_eq!(refusal("BYE", &format!("{line}\r\n\r\n")).0, 400, "{line}");
        }
        assert_eq!(refusal("BYE", "l: 0\r\nContent-Length: 0\r\n\r\n").0, 400);
    }

    #[test]
    fn required_extensions_are_named_as_unsupported() {
        let unsupported = header("Unsupported", "precondition, x");
        let require = "Require: precondition, 100rel, x, Timer\r\n\r\n";
        assert_eq!(refusal("INVITE", require), (420, unsupported));
        assert_eq!(judge("CANCEL", "sip:a@b", "Require: precondition\r\n\r\n"), Ok(()));
    }

    #[test]
    fn schemes_that_we_do_not_know_get_416() {
        assert_eq!(judge("INVITE", "http://a/b", "\r\n").unwrap_err().status, 416);
    }

    #[test]
    fn a_request_at_the_end_of_its_way_has_come_to_the_right_place() {
        // RFC 4475 §3.3.11: only a proxy, which would forward the request, refuses it.
        assert_eq!(judge("OPTIONS", "sip:a@b", "Max-Forwards: 0\r\n\r\n"), Ok(()));
    }

    #[test]
    fn a_caller_who_takes_no_sdp_is_refused() {
        // RFC 4475 §3.3.15.
        for (accept, is_taken) in [
            ("text/nobodyKnowsThis", false),
            ("", false),
            ("text/plain, Application/SDP;q=0.5", true),
            ("text/plain\r\nAccept: */*", true),
            ("application/*", true),
            ("application / sdp", true),
            ("text/plain, * / *", true),
        ] {
            let judged = judge("INVITE", "sip:a@b", &format!("Accept: {accept}\r\n\r\n"));
            assert_eq!(
                judged.map_err(|refusal| refusal.status.code()).err(),
                (!is_taken).then_some(406)
            );
        }
        assert_eq!(judge("OPTIONS", "sip:a@b", "Accept: text/plain\r\n\r\n"), Ok(()));
    }

    #[test]
    fn an_invite_carries_sdp_or_nothing() {
        let accept = header("Accept", "application/sdp");
        assert_eq!(refusal("INVITE", "c: text/plain\r\n\r\nhello"), (415, accept.clone()));
        assert_eq!(refusal("INVITE", "\r\nhello"), (415, accept.clone()));
        let zipped = "c: application/sdp\r\ne: gzip\r\n\r\nhello";
        let encoding = [accept, header("Accept-Encoding", "identity")].concat();
        assert_eq!(refusal("INVITE", zipped), (415, encoding));
        let optional = "c: text/plain\r\nContent-Disposition: render;handling=optional\r\n\r\nx";
        assert_eq!(judge("INVITE", "sip:a@b", optional), Ok(()));
        assert_eq!(judge("INVITE", "sip:a@b", "c: Application/SDP;x=1\r\n\r\nv=0"), Ok(()));
        assert_eq!(judge("INFO", "sip:a@b", "c: text/plain\r\n\r\nhello"), Ok(()));
    }
}
