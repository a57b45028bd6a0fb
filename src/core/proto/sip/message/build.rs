//! Messages that we send: responses and requests, built up and printed.
//!
//! Comes in: the request that is answered, and values from any source. Goes out: bytes for the
//! wire. No value can begin a header field of its own, and Content-Length is always the length of
//! the body.

use std::borrow::Cow;

use super::{CSeq, Fields, Method, NameAddr, Request, Stub, Uri, one_line};
use crate::proto::sip::{Status, uri::is_token};

/// RFC 3261 §8.1.1.6.
const DEFAULT_MAX_FORWARDS: u8 = 70;

/// Builds a response (RFC 3261 §8.2.6). The header fields that belong to the request are copied as
/// the peer wrote them, because some peers compare them letter by letter.
#[derive(Debug, Clone)]
#[must_use]
pub struct ResponseBuilder<'a> {
    status: Status,
    reason: Cow<'a, str>,
    copied: Fields,
    /// The To of the request, and whether it has a tag.
    to: Option<(&'a str, bool)>,
    to_tag: Option<String>,
    payload: MessageParts,
}

impl<'a> ResponseBuilder<'a> {
    /// A response to `request`, with the usual reason phrase of `status`.
    pub fn to(request: &'a Request, status: Status) -> Self {
        let mut copied = Fields::default();
        for via in request.vias() {
            copied.push("Via", &via.to_string());
        }
        if request.method.makes_dialogs() && status.can_create_dialog() {
            for route in request.headers("Record-Route").filter(|route| !route.is_empty()) {
                copied.push("Record-Route", route);
            }
        }
        // RFC 3261 §8.2.6.1.
        if let Some(timestamp) = request.header("Timestamp").filter(|_| status == Status::TRYING) {
            copied.push("Timestamp", timestamp);
        }
        for name in ["From", "Call-ID", "CSeq"] {
            if let Some(value) = request.header(name) {
                copied.push(name, value);
            }
        }
        let to = request.header("To").map(|to| (to, request.to().tag().is_some()));
        Self::new(status, copied, to)
    }

    /// A response to a request that could not be read.
    pub fn to_stub(stub: &'a Stub, status: Status) -> Self {
        let mut copied = Fields::default();
        for (name, value) in stub.fields.iter().filter(|(name, _)| *name != "To") {
            copied.push(name, value);
        }
        // A To that cannot be read is copied unchanged: no tag can be appended to it safely.
        let to = stub.header("To").map(|to| {
            let is_complete = to.parse().map_or(true, |to: NameAddr| to.tag().is_some());
            (to, is_complete)
        });
        Self::new(status, copied, to)
    }

    fn new(status: Status, copied: Fields, to: Option<(&'a str, bool)>) -> Self {
        Self {
            status,
            reason: Cow::Borrowed(status.reason()),
            copied,
            to,
            to_tag: None,
            payload: MessageParts::default(),
        }
    }

    /// Another reason phrase.
    pub fn reason(mut self, reason: &'a str) -> Self {
        self.reason = one_line(reason);
        self
    }

    /// Our tag, for a request that has no To tag yet; a text that is no token is ignored.
    pub fn to_tag(mut self, tag: &str) -> Self {
        self.to_tag = is_token(tag).then(|| tag.to_owned());
        self
    }

    /// The URI where we are reached directly.
    pub fn contact(self, uri: &str) -> Self {
        self.header("Contact", &format!("<{uri}>"))
    }

    /// One more header field. A name that is no token is left out, and so is a Content-Length.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.payload.push(name, value);
        self
    }

    /// The body, instead of none.
    pub fn body(mut self, content_type: &str, body: &[u8]) -> Self {
        self.payload.set_body(content_type, body);
        self
    }

    /// The bytes to send.
    pub fn build(self) -> Vec<u8> {
        let mut fields = self.copied;
        if let Some((to, has_tag)) = self.to {
            match self.to_tag.filter(|_| !has_tag) {
                Some(tag) => fields.push("To", &format!("{to};tag={tag}")),
                None => fields.push("To", to),
            }
        }
        let start_line = format!("SIP/2.0 {} {}", self.status, self.reason);
        self.payload.print(&start_line, fields)
    }
}

/// Builds a request (RFC 3261 §8.1.1). Header fields are printed in the order of the calls.
#[derive(Debug, Clone)]
#[must_use]
pub struct RequestBuilder {
    method: Method,
    uri: Uri,
    max_forwards: u8,
    payload: MessageParts,
}

impl RequestBuilder {
    /// A request for `uri`.
    pub fn new(method: Method, uri: Uri) -> Self {
        Self { method, uri, max_forwards: DEFAULT_MAX_FORWARDS, payload: MessageParts::default() }
    }

    /// Our Via. `sent_by` is host and port; IPv6 in brackets. It asks for `rport` (RFC 3581).
    pub fn via(self, transport: &str, sent_by: &str, branch: &str) -> Self {
        self.header("Via", &format!("SIP/2.0/{transport} {sent_by};branch={branch};rport"))
    }

    /// The From header field.
    pub fn from(self, from: &NameAddr) -> Self {
        self.header("From", &from.to_string())
    }

    /// The To header field.
    pub fn to(self, to: &NameAddr) -> Self {
        self.header("To", &to.to_string())
    }

    /// The Call-ID.
    pub fn call_id(self, call_id: &str) -> Self {
        self.header("Call-ID", call_id)
    }

    /// The CSeq number, less than 2^31.
    pub fn cseq(self, number: u32) -> Self {
        let cseq = CSeq { number, method: self.method.clone() };
        self.header("CSeq", &cseq.to_string())
    }

    /// Adds a proxy to visit; called once for each, the next one first.
    pub fn route(self, route: &NameAddr) -> Self {
        self.header("Route", &route.to_string())
    }

    /// How many hops the request may take, instead of 70.
    pub fn max_forwards(mut self, hops: u8) -> Self {
        self.max_forwards = hops;
        self
    }

    /// The URI where we are reached directly.
    pub fn contact(self, uri: &str) -> Self {
        self.header("Contact", &format!("<{uri}>"))
    }

    /// One more header field. A name that is no token is left out, and so is a Content-Length.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.payload.push(name, value);
        self
    }

    /// The body, instead of none.
    pub fn body(mut self, content_type: &str, body: &[u8]) -> Self {
        self.payload.set_body(content_type, body);
        self
    }

    /// The bytes to send.
    pub fn build(mut self) -> Vec<u8> {
        self.payload.push("Max-Forwards", &self.max_forwards.to_string());
        let method: String = self.method.as_str().split_whitespace().collect();
        let start_line = format!("{} {} SIP/2.0", one_line(&method), self.uri);
        self.payload.print(&start_line, Fields::default())
    }
}

/// The parts that both builders collect.
#[derive(Debug, Clone, Default)]
struct MessageParts {
    fields: Fields,
    content_type: Option<String>,
    body: Vec<u8>,
}

impl MessageParts {
    fn push(&mut self, name: &str, value: &str) {
        // A wrong length would let the body pass for another message.
        if !name.eq_ignore_ascii_case("Content-Length") && !name.eq_ignore_ascii_case("l") {
            self.fields.push(name, value);
        }
    }

    fn set_body(&mut self, content_type: &str, body: &[u8]) {
        self.content_type = Some(content_type.to_owned());
        self.body = body.to_vec();
    }

    fn print(self, start_line: &str, mut fields: Fields) -> Vec<u8> {
        for (name, value) in self.fields.iter() {
            fields.push(name, value);
        }
        if let Some(content_type) = &self.content_type {
            fields.push("Content-Type", content_type);
        }
        fields.push("Content-Length", &self.body.len().to_string());
        let mut bytes = format!("{start_line}\r\n{fields}\r\n").into_bytes();
        bytes.extend(self.body);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::sip::{
        message::{CSEQ_END, Message, Response, Rport},
        wire::{WireError, parse_datagram},
    };

    fn read_request(bytes: &[u8]) -> Request {
        match parse_datagram(bytes) {
            Ok(Message::Request(request)) => request,
            other => panic!("{other:?}: {}", String::from_utf8_lossy(bytes)),
        }
    }

    fn read_response(bytes: &[u8]) -> Response {
        match parse_datagram(bytes) {
            Ok(Message::Response(response)) => response,
            other => panic!("{other:?}: {}", String::from_utf8_lossy(bytes)),
        }
    }

    fn name_addr(text: &str) -> NameAddr {
        text.parse().unwrap()
    }

    fn builder(method: Method) -> RequestBuilder {
        RequestBuilder::new(method, "sip:b@[2001:db8::1]".parse().unwrap())
            .via("UDP", "[2001:db8::2]:5062", "z9hG4bK1")
            .from(&name_addr("\"A \\\"B\\\"\" <sip:a@example.com>;tag=1"))
            .to(&name_addr("<tel:+15550123>"))
            .call_id("call")
            .cseq(7)
    }

    fn any_method() -> impl Strategy<Value = Method> {
        prop_oneof![
            prop::sample::select(vec!["INVITE", "ACK", "BYE", "PUBLISH", "PRACK"])
                .prop_map(Method::from),
            "[A-Za-z!%*_+`'~.-]{1,8}".prop_map(|name| Method::from(name.as_str())),
        ]
    }

    proptest! {
        #[test]
        fn what_is_built_is_read_again(
            method in any_method(),
            number in 0..CSEQ_END,
            hops in any::<u8>(),
            value in "[!-~]([ -~]{0,20}[!-~])?",
            body in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let bytes = builder(method.clone())
                .cseq(number)
                .max_forwards(hops)
                .route(&name_addr("<sip:[2001:db8::3];lr>"))
                .contact("sip:a@192.0.2.1:5062")
                .header("Subject", &value)
                .body("application/octet-stream", &body)
                .build();
            let request = read_request(&bytes);
            prop_assert_eq!(request.method(), &method);
            prop_assert_eq!(request.uri().to_string(), "sip:b@[2001:db8::1]");
            prop_assert_eq!(request.max_forwards(), Some(hops));
            prop_assert_eq!(request.routes(), [name_addr("<sip:[2001:db8::3];lr>")]);
            prop_assert_eq!(request.contacts().len(), 1);
            prop_assert_eq!(request.header("subject"), Some(value.as_str()));
            prop_assert_eq!(request.body(), body);
        }

        #[test]
        fn no_value_begins_a_header_field(value in "[\\PC\r\n]{0,30}", name in "[\\PC\r\n]{0,9}") {
            let value = format!("a\r\nInjected: b\r\n\r\n{value}");
            let request = builder(Method::Invite).header("Record-Route", "<sip:p;lr>").build();
            let request = read_request(&request);
            let answer = ResponseBuilder::to(&request, Status::OK)
                .reason(&value)
                .to_tag(&value)
                .contact(&value)
                .header("Subject", &value)
                .header(&name, &value)
                .header("Content-Length", "77")
                .body(&value, b"v=0")
                .build();
            let head = String::from_utf8(answer).unwrap();
            let (head, body) = head.split_once("\r\n\r\n").unwrap();
            prop_assert_eq!(body, "v=0");
            prop_assert!(!head.replace("\r\n", "").contains(['\r', '\n']));
            prop_assert!(!head.lines().any(|line| line.starts_with("Injected")));
            prop_assert!(head.lines().any(|line| line == "Content-Length: 3"));
            prop_assert!(!head.lines().any(|line| line == "Content-Length: 77"));
        }
    }

    #[test]
    fn a_response_copies_what_the_peer_wrote() {
        let request = builder(Method::Invite)
            .header("Record-Route", "<sip:p1;lr>, <sip:p2;lr>")
            .header("Timestamp", "54")
            .build();
        let request = read_request(&request);
        let ok = ResponseBuilder::to(&request, Status::OK).to_tag("t").build();
        assert_eq!(
            String::from_utf8(ok).unwrap(),
            "SIP/2.0 200 OK\r\n\
             Via: SIP/2.0/UDP [2001:db8::2]:5062;branch=z9hG4bK1;rport\r\n\
             Record-Route: <sip:p1;lr>\r\n\
             Record-Route: <sip:p2;lr>\r\n\
             From: \"A \\\"B\\\"\" <sip:a@example.com>;tag=1\r\n\
             Call-ID: call\r\n\
             CSeq: 7 INVITE\r\n\
             To: <tel:+15550123>;tag=t\r\n\
             Content-Length: 0\r\n\r\n"
        );
        let trying = read_response(&ResponseBuilder::to(&request, Status::TRYING).build());
        assert_eq!(trying.header("Timestamp"), Some("54"));
        assert!(trying.record_routes().is_empty());
        assert_eq!(trying.to().tag(), None);
    }

    #[test]
    fn the_tag_of_a_dialog_is_left_as_it_is() {
        let request = builder(Method::Bye).build();
        let text = String::from_utf8(request).unwrap().replace("0123>", "0123>;tag=old");
        let request = read_request(text.as_bytes());
        let ok = ResponseBuilder::to(&request, Status::OK).to_tag("new").build();
        assert_eq!(read_response(&ok).to().tag(), Some("old"));
    }

    #[test]
    fn the_source_is_noted_in_the_topmost_via() {
        let mut request = read_request(&builder(Method::Options).build());
        request.set_received("192.0.2.7".parse().unwrap(), 9);
        let ok = read_response(&ResponseBuilder::to(&request, Status::OK).build());
        assert_eq!(ok.vias()[0].received.as_deref(), Some("192.0.2.7"));
        assert_eq!(ok.vias()[0].rport, Some(Rport::Seen(9)));
    }

    #[test]
    fn a_request_that_cannot_be_read_is_answered_with_what_is_there() {
        let text = "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP c;rport\r\nTo: <sip:a@b>\r\n\
                    From: \"\r\nCSeq: x\r\n\r\n";
        let Err(WireError::Answerable { status, reason, mut request }) =
            parse_datagram(text.as_bytes())
        else {
            panic!()
        };
        request.set_received("192.0.2.7".parse().unwrap(), 9);
        let answer = ResponseBuilder::to_stub(&request, status).reason(reason).to_tag("t").build();
        assert_eq!(
            String::from_utf8(answer).unwrap(),
            "SIP/2.0 400 Malformed From\r\n\
             Via: SIP/2.0/UDP c;received=192.0.2.7;rport=9\r\n\
             From: \"\r\n\
             CSeq: x\r\n\
             To: <sip:a@b>;tag=t\r\n\
             Content-Length: 0\r\n\r\n"
        );
    }

    #[test]
    fn a_body_that_is_no_text_is_sent_as_it_is() {
        let request = read_request(&builder(Method::Info).build());
        let body = [0xff, 0xfe, 0];
        let ok = ResponseBuilder::to(&request, Status::OK).body("x/y", &body).build();
        assert_eq!(read_response(&ok).body(), body);
    }
}
