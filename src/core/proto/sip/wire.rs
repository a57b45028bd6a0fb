//! The front parser: from the bytes of a datagram to a message, tolerant where that is safe.
//!
//! Comes in: one datagram. Goes out: a message whose mandatory header fields can be read, or why
//! there is none, with what is needed to answer. Lines are unfolded, compact names are made long,
//! lists are split, and the body is cut to its Content-Length (RFC 3261 §18.3). `validate` decides
//! whether the request can be served.
//!
//! A request with an error is refused, so that its sender can correct it. Responses and ACKs cannot
//! be refused, and their sender would go on waiting. So they are accepted as long as the header
//! fields that identify the transaction can be read; others that cannot be read are left out.
//!
//! The parsers of rsip are not used: they accept neither compact names nor folded lines nor IPv6.

use thiserror::Error;

use super::{
    Status,
    lines::{LISTS, Lines, parse_header_line},
    message::{Fields, HeaderError, Message, Method, Request, Response, Stub, parse_number},
    uri::{Uri, is_token, split_top_level},
};

/// Longest message, in bytes: what fits into a datagram.
pub const MAX_MESSAGE: usize = 65_535;
/// Most header fields of a message; each element of a list counts.
pub const MAX_HEADERS: usize = 256;
/// Longest line of a message in bytes, unfolded, without its line end.
pub const MAX_LINE: usize = 8_192;

/// Why a datagram holds no message.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// Only line ends or NULs, sent to keep a NAT binding open (RFC 5626 §3.5.1). Not an error of
    /// the peer.
    #[error("only a keep-alive")]
    KeepAlive,
    /// Nothing that could be answered: not SIP, a response, an ACK, or a request without Via.
    #[error("the datagram cannot be read, and not be answered")]
    Unreadable,
    /// A request with an error that its sender can be told.
    #[error("the request is answered by {status} {reason}")]
    Answerable {
        /// The status of the response.
        status: Status,
        /// Its reason phrase.
        reason: &'static str,
        /// What the response is built from.
        request: Box<Stub>,
    },
}

/// An error in a request, before it is known whether it can be answered.
#[derive(Debug, Clone, Copy)]
struct Fault {
    status: Status,
    reason: &'static str,
}

impl Fault {
    fn bad_request(reason: &'static str) -> Self {
        Self { status: Status::BAD_REQUEST, reason }
    }
}

impl From<HeaderError> for Fault {
    fn from(error: HeaderError) -> Self {
        Self::bad_request(error.reason())
    }
}

/// Reads one datagram.
///
/// # Errors
///
/// When it holds no message that could be served; see [`WireError`].
pub fn parse_datagram(bytes: &[u8]) -> Result<Message, WireError> {
    if bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        return Err(WireError::KeepAlive);
    }
    // RFC 3261 §7.5: line ends before the start line are skipped.
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or_default();
    let bytes = bytes.get(start..).unwrap_or_default();
    let is_too_long = bytes.len() > MAX_MESSAGE;
    let lexed = lex(bytes.get(..MAX_MESSAGE).unwrap_or(bytes));

    if lexed.start_line.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("SIP/")) {
        if is_too_long {
            return Err(WireError::Unreadable);
        }
        return parse_response(lexed).map(Message::Response).ok_or(WireError::Unreadable);
    }
    let start_line = lexed.start_line.trim_end();
    let (method, rest) = start_line.split_once([' ', '\t']).ok_or(WireError::Unreadable)?;
    let version = rest.rsplit([' ', '\t']).next().unwrap_or_default();
    if !version.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("SIP/")) {
        return Err(WireError::Unreadable);
    }
    // An ACK is never answered (§17).
    let stub = if method == Method::Ack.as_str() { None } else { Stub::of(&lexed.fields) };
    let parsed = if is_too_long {
        Err(Fault { status: Status::REQUEST_ENTITY_TOO_LARGE, reason: "Request Entity Too Large" })
    } else if !version.eq_ignore_ascii_case("SIP/2.0") {
        Err(Fault { status: Status::VERSION_NOT_SUPPORTED, reason: "Version Not Supported" })
    } else {
        parse_request(lexed)
    };
    parsed.map(Message::Request).map_err(|Fault { status, reason }| match stub {
        Some(stub) => WireError::Answerable { status, reason, request: Box::new(stub) },
        None => WireError::Unreadable,
    })
}

/// The length in bytes that each Content-Length of a head says; `None` where it cannot be read.
/// Framing needs the length before there is a message.
pub(super) fn content_lengths(head: &[u8]) -> Vec<Option<usize>> {
    let mut lines = Lines { rest: Some(head) };
    lines.next_line();
    let mut lengths = Vec::new();
    while let Some(line) = lines.next_unfolded() {
        if let Some((name, value)) = parse_header_line(&line)
            && name.eq_ignore_ascii_case("Content-Length")
        {
            lengths.push(parse_number(value).and_then(|length| usize::try_from(length).ok()));
        }
    }
    lengths
}

fn parse_request(lexed: Lexed<'_>) -> Result<Request, Fault> {
    let malformed = Fault::bad_request("Malformed Request-Line");
    // Exactly one blank between the parts, and none at the end (§7.1).
    let mut parts = lexed.start_line.split(' ');
    let (Some(method), Some(uri), Some(_version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed);
    };
    if !is_token(method) {
        return Err(malformed);
    }
    let uri: Uri = uri.parse().map_err(|_| Fault::bad_request("Malformed Request-URI"))?;
    // §19.1.1: a Request-URI has no headers.
    if !uri.headers().is_empty() {
        return Err(Fault::bad_request("Headers in Request-URI"));
    }
    let method = Method::from(method);
    if let Some(fault) = lexed.fault.filter(|_| method != Method::Ack) {
        return Err(fault);
    }
    let body = match cut_body(&lexed.fields, lexed.body) {
        Err(_) if method == Method::Ack => lexed.body.to_vec(),
        body => body?,
    };
    Ok(Request::new(method, uri, lexed.fields, body)?)
}

fn parse_response(lexed: Lexed<'_>) -> Option<Response> {
    let (version, rest) = lexed.start_line.split_once(' ')?;
    let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let status = Status::parse(status)?;
    if !version.eq_ignore_ascii_case("SIP/2.0") || lexed.start_line.len() > MAX_LINE {
        return None;
    }
    // RFC 3261 §18.3 discards a response with a body shorter than its Content-Length. The peer
    // would repeat the same response, and a call that it has answered would not be acknowledged.
    let body = cut_body(&lexed.fields, lexed.body).unwrap_or_else(|_| lexed.body.to_vec());
    Response::new(status, reason, lexed.fields, body).ok()
}

/// The body is as long as Content-Length says; without Content-Length it is all there is (§18.3).
fn cut_body(fields: &Fields, body: &[u8]) -> Result<Vec<u8>, Fault> {
    let Some(length) = fields.first("Content-Length") else { return Ok(body.to_vec()) };
    let length = parse_number(length)
        .and_then(|length| usize::try_from(length).ok())
        .ok_or(HeaderError::Malformed { name: "Content-Length" })?;
    let body = body.get(..length).ok_or(Fault::bad_request("Body Shorter Than Content-Length"))?;
    Ok(body.to_vec())
}

/// A message cut into lines, as far as it could be read.
struct Lexed<'a> {
    start_line: String,
    fields: Fields,
    body: &'a [u8],
    /// The first error. Reading went on after it, so that the request can be answered.
    fault: Option<Fault>,
}

fn lex(bytes: &[u8]) -> Lexed<'_> {
    let mut fault = None;
    let mut lines = Lines { rest: Some(bytes) };
    let start_line = lines.next_line().unwrap_or_default();
    if start_line.len() > MAX_LINE {
        fault =
            Some(Fault { status: Status::REQUEST_URI_TOO_LONG, reason: "Request-URI Too Long" });
    }
    let mut fields = Fields::default();
    let mut count = 0_usize;
    let body = loop {
        let Some(line) = lines.next_unfolded() else {
            fault = fault.or(Some(Fault::bad_request("No End Of Header")));
            break &[][..];
        };
        if line.is_empty() {
            break lines.rest.unwrap_or_default();
        }
        if line.len() > MAX_LINE {
            fault = fault.or(Some(Fault::bad_request("Header Line Too Long")));
            continue;
        }
        let Some((name, value)) = parse_header_line(&line) else {
            fault = fault.or(Some(Fault::bad_request("Malformed Header Line")));
            continue;
        };
        let values = if LISTS.contains(&name) { split_top_level(value, ',') } else { vec![value] };
        // The elements of a list that are empty are skipped (RFC 7230 §7), as after a trailing
        // comma. A list without any element stays as one empty value.
        let has_elements = values.iter().any(|value| !value.trim().is_empty());
        for (at, value) in values.into_iter().enumerate() {
            count = count.saturating_add(1);
            if count > MAX_HEADERS {
                fault = fault.or(Some(Fault::bad_request("Too Many Header Fields")));
                break;
            }
            if at == 0 && !has_elements || !value.trim().is_empty() {
                fields.push(name, value.trim());
            }
        }
    };
    Lexed { start_line, fields, body, fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An OPTIONS with more header lines.
    fn options(more: &str) -> String {
        format!(
            "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK1\r\nFrom: <sip:c@c>;tag=1\r\n\
             To: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n{more}\r\n"
        )
    }

    fn read(text: &str) -> Request {
        match parse_datagram(text.as_bytes()) {
            Ok(Message::Request(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    fn answer_to(text: &str) -> (u16, &'static str) {
        match parse_datagram(text.as_bytes()) {
            Err(WireError::Answerable { status, reason, .. }) => (status.code(), reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keep_alives_are_no_error_of_the_peer() {
        for bytes in [&b""[..], b"\r\n\r\n", b"\0", b"\0\0\0\0"] {
            assert_eq!(parse_datagram(bytes).unwrap_err(), WireError::KeepAlive);
        }
    }

    #[test]
    fn what_cannot_be_answered_is_dropped() {
        let ack = options("").replace("OPTIONS", "ACK").replace("Call-ID: x", "Call-ID:");
        let no_via = options("").replace("Via", "Vio");
        for text in [
            "hello",
            "GET / HTTP/1.1\r\n\r\n",
            "SIP/2.0 200 OK\r\n\r\n",
            "SIP/2.0\r\n\r\n",
            ack.as_str(),
            no_via.as_str(),
        ] {
            assert_eq!(
                parse_datagram(text.as_bytes()).unwrap_err(),
                WireError::Unreadable,
                "{text}"
            );
        }
    }

    #[test]
    fn compact_names_folds_and_lists_are_resolved() {
        let request = read(&options(
            "v: SIP/2.0/UDP d , SIP/2.0/TCP [::1]:5\r\nM : <sip:a,b@c>,\r\n \"x, \\\"y\" <sip:d@e>\r\n\
             require: a,b\r\nk:\r\n",
        ));
        assert_eq!(request.vias().len(), 3);
        assert_eq!(request.vias()[2].host, "[::1]");
        assert_eq!(request.contacts()[0].uri().user().as_deref(), Some("a,b"));
        assert_eq!(request.contacts()[1].display_name(), Some("x, \"y"));
        assert_eq!(request.require(), ["a", "b"]);
        assert_eq!(request.header("Supported"), Some(""));
    }

    #[test]
    fn line_ends_before_a_message_and_lone_line_feeds_are_taken() {
        read(&format!("\r\n\r\n{}", options("")));
        read(&options("").replace("\r\n", "\n"));
    }

    #[test]
    fn a_lone_carriage_return_is_a_blank() {
        assert_eq!(read(&options("Subject: a\rX: b\r\n")).header("Subject"), Some("a X: b"));
    }

    #[test]
    fn bytes_that_are_no_utf_8_do_not_spoil_a_message() {
        let mut bytes = options("Subject: J~rg\r\n").into_bytes();
        let at = bytes.iter().position(|byte| *byte == b'~').unwrap();
        bytes[at] = 0xf6;
        let Ok(Message::Request(request)) = parse_datagram(&bytes) else { panic!() };
        assert_eq!(request.header("Subject"), Some("J\u{fffd}rg"));
    }

    #[test]
    fn the_body_is_as_long_as_content_length_says() {
        assert_eq!(read(&(options("l: 2\r\n") + "abcd")).body(), b"ab");
        assert_eq!(read(&(options("") + "abcd")).body(), b"abcd");
        let too_long = options("Content-Length: 5\r\n") + "abcd";
        assert_eq!(answer_to(&too_long), (400, "Body Shorter Than Content-Length"));
        for length in ["-1", "+1", "1 1", "", "99999999999999999999"] {
            let text = options(&format!("Content-Length: {length}\r\n")) + "abcd";
            assert_eq!(answer_to(&text), (400, "Malformed Content-Length"), "{length}");
        }
    }

    #[test]
    fn limits_hold() {
        let long = "a".repeat(MAX_LINE);
        assert_eq!(answer_to(&options(&format!("X: {long}\r\n"))), (400, "Header Line Too Long"));
        let many = "X: y\r\n".repeat(MAX_HEADERS);
        assert_eq!(answer_to(&options(&many)), (400, "Too Many Header Fields"));
        let list = format!("Allow: {}\r\n", ",".repeat(MAX_HEADERS));
        assert_eq!(answer_to(&options(&list)), (400, "Too Many Header Fields"));
        let uri = options("").replace("sip:a@b SIP", &format!("sip:{long}@b SIP"));
        assert_eq!(answer_to(&uri), (414, "Request-URI Too Long"));
        let body = options("") + &"b".repeat(MAX_MESSAGE);
        assert_eq!(answer_to(&body), (413, "Request Entity Too Large"));
    }

    /// A response with more header lines.
    fn response(more: &str) -> Response {
        let text = options(more).replacen("OPTIONS sip:a@b SIP/2.0", "SIP/2.0 200 OK", 1);
        match parse_datagram(text.as_bytes()) {
            Ok(Message::Response(response)) => response,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_response_is_read_whatever_stands_beside_the_fields_of_its_transaction() {
        let long = format!("X: {}\r\n", "a".repeat(MAX_LINE));
        for more in [
            "no header field\r\n",
            "Caf\u{e9}: x\r\n",
            "Max-Forwards: x\r\nRoute: \"\r\n",
            long.as_str(),
            "Content-Length: x\r\n",
            "Content-Length: 77\r\n",
        ] {
            let read = response(&format!("{more}Subject: after\r\n\r\nbody"));
            assert_eq!(read.header("Subject"), Some("after"), "{more}");
            assert_eq!(read.body(), b"body\r\n", "{more}");
            assert_eq!(read.dialog_fault(), None, "{more}");
        }
        let text =
            options("Subject: no end").replacen("OPTIONS sip:a@b SIP/2.0", "SIP/2.0 200 OK", 1);
        assert!(parse_datagram(text.trim_end().as_bytes()).is_ok());
        for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
            let spoilt = text.replacen(&format!("\r\n{name}: "), &format!("\r\n{name}: \""), 1);
            let spoilt = spoilt.replace("Call-ID: \"x", "Call-ID: \" x");
            assert_eq!(
                parse_datagram(spoilt.as_bytes()).unwrap_err(),
                WireError::Unreadable,
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_not_needed_of_a_request_may_be_unreadable() {
        let with = |method: &str, more: &str| options(more).replace("OPTIONS", method);
        for more in ["Contact: <sip:\r\n", "Record-Route: <sip:\r\n", "Route: x\r\n"] {
            for method in ["BYE", "CANCEL", "INFO", "PRACK", "OPTIONS"] {
                read(&with(method, more));
            }
        }
        for (method, more, reason) in [
            ("INVITE", "Contact: <sip:\r\n", "Malformed Contact"),
            ("UPDATE", "Contact: <sip:\r\n", "Malformed Contact"),
            ("REGISTER", "Contact: <sip:\r\n", "Malformed Contact"),
            ("INVITE", "Record-Route: sip:p;lr\r\n", "Malformed Record-Route"),
        ] {
            assert_eq!(answer_to(&with(method, more)), (400, reason), "{method}");
        }
    }

    #[test]
    fn an_ack_is_read_as_a_response_is() {
        let ack = |more: &str| options(more).replace("OPTIONS", "ACK");
        for more in
            ["Contact: <\r\n", "no header field\r\n", "Record-Route: x\r\nMax-Forwards: -\r\n"]
        {
            assert_eq!(read(&ack(more)).method(), &Method::Ack, "{more}");
        }
        assert_eq!(read(&(ack("Content-Length: 9\r\n") + "v=0")).body(), b"v=0");
    }

    #[test]
    fn a_response_keeps_what_can_be_read_of_contacts_and_routes() {
        let unreadable = |name| Some(HeaderError::Malformed { name });
        let read = response("Contact: <sip:a@b, <sip:c@d>, \"\r\nm: sip:e@f;x=\"<y>\"\r\n");
        assert_eq!(read.contacts().len(), 1, "{:?}", read.contacts());
        assert_eq!(read.dialog_fault(), None);
        for more in ["Contact: *\r\n", "m: <sip:\r\nContact: \"\r\n"] {
            assert_eq!(response(more).dialog_fault(), unreadable("Contact"), "{more}");
        }
        assert_eq!(response("").dialog_fault(), None, "there is no Contact");
        for more in ["<sip:p;lr>, <sip:", "sip:p;lr", "<sip:p;lr>\r\nRecord-Route: \""] {
            let read = response(&format!("Record-Route: {more}\r\nContact: <sip:a@b>\r\n"));
            assert_eq!(read.dialog_fault(), unreadable("Record-Route"), "{more}");
            assert!(read.record_routes().is_empty(), "a route set is whole or none");
        }
    }

    #[test]
    fn empty_elements_of_lists_are_skipped() {
        for more in [
            "Contact: <sip:a@b>\r\nRecord-Route:\r\n",
            "Contact: <sip:a@b>,\r\nRecord-Route: ,\r\n",
            "Contact:\r\nm: , <sip:a@b> ,\r\n",
        ] {
            let read = response(more);
            assert_eq!(read.dialog_fault(), None, "{more}");
            assert_eq!(read.contacts().len(), 1, "{more}");
            assert!(read.record_routes().is_empty(), "{more}");
        }
        let read = response("Record-Route: <sip:p;lr>,, <sip:q;lr>,\r\nContact:\r\n");
        assert_eq!(read.dialog_fault(), None);
        assert_eq!(read.record_routes().len(), 2);

        let lists = "Contact: ,<sip:a@b>,\r\nRecord-Route: <sip:p;lr>,\r\nRecord-Route:\r\n\
                     Require: timer,,\r\nRoute:\r\n";
        let request = read_as("INVITE", lists);
        assert_eq!(request.contacts().len(), 1);
        assert_eq!(request.record_routes().len(), 1);
        assert_eq!(request.require(), ["timer"]);
        assert!(request.routes().is_empty());
    }

    #[test]
    fn a_max_forwards_that_cannot_be_read_costs_nothing() {
        for method in ["BYE", "INVITE", "INFO", "OPTIONS"] {
            for value in ["x", "", "-1", "256", "99999999999", "7 0"] {
                let request = read_as(method, &format!("Max-Forwards: {value}\r\n"));
                assert_eq!(request.max_forwards(), None, "{method} {value}");
            }
        }
    }

    fn read_as(method: &str, more: &str) -> Request {
        read(&options(more).replace("OPTIONS", method))
    }

    #[test]
    fn versions_other_than_2_0_get_505() {
        assert_eq!(answer_to(&options("").replace("b SIP/2.0", "b SIP/3.0")).0, 505);
        read(&options("").replace("b SIP/2.0", "b sip/2.0"));
    }

    #[test]
    fn a_stub_keeps_what_an_answer_needs() {
        let text = options("no colon\r\nSubject: s\r\nv: SIP/2.0/UDP d\r\n");
        let Err(WireError::Answerable { request, .. }) = parse_datagram(text.as_bytes()) else {
            panic!()
        };
        assert_eq!(request.vias().count(), 2);
        assert_eq!(request.header("CSeq"), Some("1 OPTIONS"));
        assert_eq!(request.header("Subject"), None);
    }
}
