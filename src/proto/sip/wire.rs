//! Bytes to messages: the fence before everything else.
//!
//! In: one datagram, from anybody. Out: a [`Message`] whose header fields are unfolded and have
//! their full names, or a [`WireError`] that tells apart what is dropped and what can be answered.
//! Unlike rsip it reads compact names, folded lines, blanks before the colon, IPv6, `tel:` URIs and
//! methods that nobody knows. Duplicates of header fields that must stand alone are refused here,
//! so that no two readers can disagree about a message.

use super::{
    message::{Field, Message, Method, Request, Response},
    uri::Uri,
};

/// Most bytes of a message.
pub const MAX_MESSAGE: usize = 65_535;
/// Most header fields of a message.
const MAX_FIELDS: usize = 256;
/// Longest line after unfolding.
const MAX_LINE: usize = 16_384;

/// Why a datagram is not a message.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WireError {
    /// Blank lines that only keep a NAT open.
    #[error("keep-alive")]
    KeepAlive,
    /// Not SIP, a response that makes no sense, or a request that says too little to be answered.
    #[error("unreadable")]
    Unreadable,
    /// A request that is wrong, but says enough to be told so.
    #[error("{status} {reason}")]
    Answerable {
        /// The status that it earns.
        status: u16,
        /// The reason phrase.
        reason: String,
        /// As much of it as an answer repeats.
        request: Box<Request>,
    },
}

/// Reads one datagram (RFC 3261 section 18.3: what follows the body is dropped).
///
/// # Errors
/// See [`WireError`].
pub fn parse_datagram(bytes: &[u8]) -> Result<Message, WireError> {
    // RFC 3261 section 7.5: line ends before the start line are ignored.
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n' | 0));
    let bytes = start.map(|start| &bytes[start..]).ok_or(WireError::KeepAlive)?;
    if bytes.len() > MAX_MESSAGE {
        return Err(WireError::Unreadable);
    }
    let (head, body) = split_head(bytes).ok_or(WireError::Unreadable)?;
    // A byte that is not UTF-8 may stand in a display name; nothing is decided by it.
    let head = String::from_utf8_lossy(head);
    let mut lines = unfold(&head).ok_or(WireError::Unreadable)?.into_iter();
    let start_line = lines.next().ok_or(WireError::Unreadable)?;
    let mut fields = Vec::new();
    let mut bad_line = false;
    for line in lines {
        match field(&line) {
            Some(field) if fields.len() < MAX_FIELDS => fields.push(field),
            Some(_) => return Err(WireError::Unreadable),
            None => bad_line = true,
        }
    }
    if let Some(rest) = start_line.strip_prefix("SIP/2.0 ") {
        return response(rest, fields, body);
    }
    request(&start_line, fields, bad_line, body)
}

/// The head without its blank line, and what follows it.
fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let crlf = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| (at, at + 4));
    // Some peers end their lines with a bare line feed.
    let lf = || bytes.windows(2).position(|window| window == b"\n\n").map(|at| (at, at + 2));
    let (end, body) = crlf.or_else(lf)?;
    Some((&bytes[..end], &bytes[body..]))
}

/// The lines of a head, continuation lines joined by a blank (RFC 3261 section 7.3.1).
fn unfold(head: &str) -> Option<Vec<String>> {
    let mut lines: Vec<String> = Vec::new();
    for line in head.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)) {
        if line.contains(['\r', '\0']) {
            return None;
        }
        let is_continued = line.starts_with([' ', '\t']);
        let fields_have_begun = lines.len() > 1;
        match lines.last_mut() {
            Some(last) if is_continued && fields_have_begun => {
                last.push(' ');
                last.push_str(line.trim());
            }
            _ => lines.push(line.to_owned()),
        }
        if lines.last().is_some_and(|last| last.len() > MAX_LINE) {
            return None;
        }
    }
    Some(lines)
}

/// The full name and the value of a header line.
fn field(line: &str) -> Option<Field> {
    let (name, value) = line.split_once(':')?;
    let name = name.trim_end();
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-.!%*_+`'~".contains(c);
    if name.is_empty() || !name.chars().all(is_token) {
        return None;
    }
    Some((full_name(name).to_owned(), value.trim().to_owned()))
}

/// RFC 3261 section 7.3.3 and the documents that added to it.
fn full_name(name: &str) -> &str {
    match name.to_ascii_lowercase().as_str() {
        "a" => "Accept-Contact",
        "b" => "Referred-By",
        "c" => "Content-Type",
        "e" => "Content-Encoding",
        "f" => "From",
        "i" => "Call-ID",
        "k" => "Supported",
        "l" => "Content-Length",
        "m" => "Contact",
        "o" => "Event",
        "r" => "Refer-To",
        "s" => "Subject",
        "t" => "To",
        "u" => "Allow-Events",
        "v" => "Via",
        "x" => "Session-Expires",
        _ => name,
    }
}

fn response(rest: &str, fields: Vec<Field>, body: &[u8]) -> Result<Message, WireError> {
    let status = rest.get(..3).filter(|code| code.bytes().all(|byte| byte.is_ascii_digit()));
    let status: u16 = status.and_then(|code| code.parse().ok()).ok_or(WireError::Unreadable)?;
    let ends_there = rest[3..].is_empty() || rest[3..].starts_with(' ');
    if !(100..700).contains(&status) || !ends_there {
        return Err(WireError::Unreadable);
    }
    let body = cut_body(&fields, body).map_err(|_| WireError::Unreadable)?;
    Response::new(status, fields, body)
        .map(Message::Response)
        .map_err(|_| WireError::Unreadable)
}

fn request(
    line: &str,
    fields: Vec<Field>,
    bad_line: bool,
    body: &[u8],
) -> Result<Message, WireError> {
    let mut words: Vec<&str> = line.split(' ').collect();
    let method = match words.first() {
        Some(name) if is_method(name) => Method::from(words.remove(0)),
        Some(_) | None => return Err(WireError::Unreadable),
    };
    let Some(version) = words.pop() else { return Err(WireError::Unreadable) };
    let refuse = |status: u16, reason: &str, method: Method, fields: Vec<Field>| {
        match stub(method, fields) {
            Some(request) => {
                WireError::Answerable { status, reason: reason.to_owned(), request }
            }
            None => WireError::Unreadable,
        }
    };
    if !version.to_ascii_uppercase().starts_with("SIP/") {
        // Blanks after the version, or no SIP at all.
        return Err(match line.contains(" SIP/2.0") {
            true => refuse(400, "Malformed Request-Line", method, fields),
            false => WireError::Unreadable,
        });
    }
    if version != "SIP/2.0" {
        return Err(refuse(505, "Version Not Supported", method, fields));
    }
    if bad_line {
        return Err(refuse(400, "Malformed Header Field", method, fields));
    }
    let Ok(uri) = Uri::parse(&words.join(" ")) else {
        return Err(refuse(400, "Malformed Request-URI", method, fields));
    };
    let body = match cut_body(&fields, body) {
        Ok(body) => body,
        Err(reason) => return Err(refuse(400, reason, method, fields)),
    };
    match Request::new(method.clone(), uri, fields.clone(), body) {
        Ok(request) => Ok(Message::Request(request)),
        Err(error) => Err(refuse(400, &error.to_string(), method, fields)),
    }
}

/// As much of a wrong request as an answer repeats, if there is as much: the first of each of the
/// header fields that must be there, and all Vias.
fn stub(method: Method, fields: Vec<Field>) -> Option<Box<Request>> {
    let mut kept: Vec<Field> = Vec::new();
    for (name, value) in fields {
        let is_via = name.eq_ignore_ascii_case("Via");
        let is_needed = ["From", "To", "Call-ID", "CSeq"]
            .iter()
            .any(|needed| name.eq_ignore_ascii_case(needed));
        let is_first = !kept.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name));
        if is_via || (is_needed && is_first) {
            kept.push((name, value));
        }
    }
    // Nobody looks at the Request-URI of a request that is refused.
    let uri = Uri::parse("sip:invalid.invalid").ok()?;
    Request::new(method, uri, kept, Vec::new()).ok().map(Box::new)
}

/// The body, as long as Content-Length says; all that came where it says nothing.
fn cut_body(fields: &[Field], body: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut lengths = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Content-Length"));
    let Some((_, length)) = lengths.next() else { return Ok(body.to_vec()) };
    if lengths.next().is_some() {
        return Err("Duplicate Content-Length");
    }
    let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let length: usize =
        length.parse().ok().filter(|_| is_number).ok_or("Unreadable Content-Length")?;
    body.get(..length).map(<[u8]>::to_vec).ok_or("Content-Length Past The End")
}

fn is_method(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-.!%*_+`'~".contains(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPTIONS: &str = "OPTIONS sip:h SIP/2.0\r\nv: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\
        f : <sip:a@h>;tag=1\r\nTo:\r\n <sip:b@h>\r\ni: c\r\nCSeq: 1 OPTIONS\r\n";

    fn refused(text: &str) -> (u16, String) {
        match parse_datagram(text.as_bytes()) {
            Err(WireError::Answerable { status, reason, request }) => {
                assert_eq!(request.call_id(), "c");
                (status, reason)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn compact_names_folded_lines_and_blanks_are_read() {
        let text = format!("\r\n\r\n{OPTIONS}Subject: a\r\n\tb\r\nl: 2\r\n\r\nhello");
        let Ok(Message::Request(request)) = parse_datagram(text.as_bytes()) else { panic!() };
        assert_eq!(request.from().tag(), Some("1"));
        assert_eq!(request.to().uri.to_string(), "sip:b@h");
        assert_eq!(request.header("Subject"), Some("a b"));
        assert_eq!(request.body(), b"he");
    }

    #[test]
    fn what_is_wrong_is_told_when_it_can_be() {
        assert_eq!(refused(&format!("{OPTIONS}l: 5\r\n\r\nhe")).0, 400);
        assert_eq!(refused(&format!("{OPTIONS}l: -1\r\n\r\n")).1, "Unreadable Content-Length");
        assert_eq!(refused(&format!("{OPTIONS}l: 0\r\nl: 0\r\n\r\n")).0, 400);
        assert_eq!(refused(&format!("{OPTIONS}To: <sip:x@h>\r\n\r\n")).1, "Duplicate To");
        assert_eq!(refused(&format!("{OPTIONS}odd line\r\n\r\n")).0, 400);
        assert_eq!(refused(&format!("{}\r\n", OPTIONS.replacen("SIP/2.0", "SIP/7.0", 1))).0, 505);
        assert_eq!(refused(&format!("{}\r\n", OPTIONS.replacen("sip:h", "<sip:h>", 1))).0, 400);
        assert_eq!(refused(&format!("{}\r\n", OPTIONS.replacen("sip:h", "sip:h ", 1))).0, 400);
    }

    #[test]
    fn what_cannot_be_answered_is_dropped() {
        for text in [
            "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            "OPTIONS sip:h SIP/2.0\r\n\r\n",
            "SIP/2.0 2000 OK\r\n\r\n",
            "SIP/2.0 200 OK\r\n\r\n",
            "OPTIONS sip:h SIP/2.0\r\nVia: x\r\n",
            "x",
        ] {
            assert!(matches!(parse_datagram(text.as_bytes()), Err(WireError::Unreadable)), "{text}");
        }
        assert!(matches!(parse_datagram(b"\r\n\r\n"), Err(WireError::KeepAlive)));
        assert!(matches!(parse_datagram(b""), Err(WireError::KeepAlive)));
        let many = format!("{OPTIONS}{}\r\n", "X: y\r\n".repeat(300));
        assert!(parse_datagram(many.as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            at in 0usize..200,
            cut in 0usize..400,
        ) {
            let _ = parse_datagram(&bytes);
            let mut text = format!("{OPTIONS}l: 2\r\n\r\nhello").into_bytes();
            for (index, byte) in bytes.iter().take(4).enumerate() {
                let place = (at + index * 13) % text.len();
                text[place] = *byte;
            }
            text.truncate(text.len().saturating_sub(cut % 64));
            let _ = parse_datagram(&text);
        }
    }
}
