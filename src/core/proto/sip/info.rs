//! DTMF keys in INFO requests, as many phones send them (`application/dtmf-relay`,
//! `application/dtmf`).
//!
//! Neither type is registered, and phones differ. The key may follow `Signal`, or stand alone; it
//! may be quoted, or given by its number. A request is refused when one of its keys cannot be read,
//! so that its sender can use another way; 200 says that all keys were received.

use super::{Status, body::Part, message::Request, validate::Refusal};
use crate::model::Tone;

/// Media types that carry a key (RFC 6086 leaves the types to applications).
const TYPES: [&str; 2] = ["application/dtmf-relay", "application/dtmf"];

/// Most keys of one request.
const MAX_KEYS: usize = 16;

/// The keys of an INFO, in their order; usually one. There is none in a request without a body,
/// which asks whether we are alive, and in one with a body that may be ignored. While the call is
/// not `answered`, no key is accepted.
///
/// # Errors
///
/// The refusal to send.
pub(super) fn read(request: &Request, answered: bool) -> Result<Vec<Tone>, Refusal> {
    if request.header("Info-Package").is_some() {
        // RFC 6086 §4.2.2: we accept no Info Package.
        return Err(Refusal::new(Status::BAD_INFO_PACKAGE).with("Recv-Info", String::new()));
    }
    let content = request.content(&TYPES);
    if let Some(why) = content.refused.or(content.unread) {
        return Err(Refusal::of_content(why, &TYPES.join(", ")));
    }
    let keys: Option<Vec<Vec<Tone>>> = content.parts.iter().map(keys).collect();
    let Some(keys) = keys.map(|keys| keys.concat()) else {
        return Err(Refusal::bad_request("No DTMF Key In Body"));
    };
    if keys.len() > MAX_KEYS {
        return Err(Refusal::bad_request("Too Many DTMF Keys"));
    }
    if !keys.is_empty() && !answered {
        return Err(Refusal {
            reason: "Call Not Answered Yet",
            ..Refusal::new(Status::TEMPORARILY_UNAVAILABLE)
        });
    }
    Ok(keys)
}

/// The keys in a part: after each `Signal`, or one alone. `None` if there is none, or one cannot be
/// read.
fn keys(part: &Part<'_>) -> Option<Vec<Tone>> {
    let text = String::from_utf8_lossy(&part.bytes);
    let lines = || text.split(['\r', '\n', ';']).map(trimmed).filter(|line| !line.is_empty());
    let mut signals = lines().filter_map(signal).peekable();
    if signals.peek().is_some() {
        return signals.map(key_of).collect();
    }
    let mut lines = lines();
    match (lines.next(), lines.next()) {
        (Some(only), None) => Some(vec![key_of(only)?]),
        _ => None,
    }
}

/// The value of `Signal` in a line, up to a `Duration` in the same line.
fn signal(line: &str) -> Option<&str> {
    let (name, value) = line.split_once(['=', ':'])?;
    if !trimmed(name).eq_ignore_ascii_case("signal") {
        return None;
    }
    let value = trimmed(value);
    let is_followed = |(_, rest): &(&str, &str)| {
        let rest = rest.trim_start().get(..DURATION.len());
        rest.is_some_and(|rest| rest.eq_ignore_ascii_case(DURATION))
    };
    let followed = value.split_once([' ', '\t', ',']).filter(is_followed);
    Some(followed.map_or(value, |(key, _)| key))
}

const DURATION: &str = "duration";

/// Parses a key by its sign, its name, or the number of its event (RFC 4733 §3.2), in quotes or
/// not.
fn key_of(text: &str) -> Option<Tone> {
    let text = trimmed(text.trim_matches(['"', '\'']));
    match text {
        "10" | "11" | "12" | "13" | "14" | "15" => {
            text.parse().ok().and_then(Tone::from_event_code)
        }
        text => Tone::parse(text),
    }
}

/// Removes blanks, and the NULs that some phones append.
fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sip::{message::Message, wire::parse_datagram};

    fn told(head: &str, body: &str) -> Result<Option<char>, (u16, &'static str)> {
        all_told(head, body.as_bytes()).map(|keys| {
            assert!(keys.len() < 2, "{body:?}");
            keys.chars().next()
        })
    }

    fn all_told(head: &str, body: &[u8]) -> Result<String, (u16, &'static str)> {
        let text = format!(
            "INFO sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP c\r\nFrom: <sip:c@c>;tag=1\r\n\
             To: <sip:a@b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INFO\r\n{head}\r\n\r\n"
        );
        let bytes = [text.as_bytes(), body].concat();
        let Ok(Message::Request(request)) = parse_datagram(&bytes) else { panic!("{text}") };
        match read(&request, true) {
            Ok(keys) => Ok(keys.into_iter().map(Tone::as_char).collect()),
            Err(refusal) => Err((refusal.status.code(), refusal.reason)),
        }
    }

    #[test]
    fn keys_are_read_in_all_their_spellings() {
        for (body, key) in [
            ("Signal=5\r\nDuration=160\r\n", '5'),
            ("Duration=160\r\nsignal = *\r\n", '*'),
            ("SIGNAL=8", '8'),
            ("Signal=\"9\"\r\n", '9'),
            ("Signal='9'\nDuration='100'\n", '9'),
            ("Signal: 0\r\nDuration: 250\r\n", '0'),
            ("  Signal =\t# \r\n", '#'),
            ("Signal=1\rDuration=160\r", '1'),
            ("\r\n\r\nSignal=2\n\nDuration=160", '2'),
            ("Signal=3 Duration=160", '3'),
            ("Signal=3, duration=160", '3'),
            ("Signal=4;Duration=160", '4'),
            ("Signal=10\r\nDuration=160\r\n", '*'),
            ("Signal=11\r\n", '#'),
            ("Signal=12\r\n", 'A'),
            ("signal=d\r\n", 'D'),
            ("Signal=star", '*'),
            ("Signal=Pound", '#'),
            ("7", '7'),
            (" 7 \r\n", '7'),
            ("\r\n#\r\n", '#'),
            ("\"*\"", '*'),
            ("11", '#'),
            ("a", 'A'),
            ("5\0", '5'),
        ] {
            for kind in TYPES {
                let kind = format!("Content-Type: {}", kind.to_uppercase());
                assert_eq!(told(&kind, body), Ok(Some(key)), "{body:?}");
            }
        }
    }

    #[test]
    fn a_body_without_a_key_is_refused() {
        for body in [
            "Duration=160\r\n",
            "Signal=\r\n",
            "Signal=16\r\n",
            "Signal=55\r\n",
            "Signal=5 6\r\n",
            "Signal",
            "77",
            "7\r\n8",
            "!",
            "x",
            " \r\n",
            "",
            "\u{ff}",
            "Signal=5\r\nSignal=x",
        ] {
            let refused = Err((400, "No DTMF Key In Body"));
            assert_eq!(told("Content-Type: application/dtmf", body), refused, "{body:?}");
        }
    }

    #[test]
    fn other_bodies_are_refused_unless_they_are_optional() {
        assert_eq!(told("Subject: x", ""), Ok(None));
        assert_eq!(told("Content-Type: text/plain", "5").unwrap_err().0, 415);
        assert_eq!(told("Subject: x", "5").unwrap_err().0, 415);
        assert_eq!(told("Info-Package: x", "5").unwrap_err().0, 469);
        let isup =
            "Content-Type: application/isup\r\nContent-Disposition: signal;handling=optional";
        assert_eq!(told(isup, "x"), Ok(None));
        let set = "--b\r\nContent-Type: application/dtmf-relay\r\n\r\nSignal=5\r\n\r\n--b--\r\n";
        assert_eq!(told("c: multipart/mixed; boundary=b", set), Ok(Some('5')));
        let zipped = "c: application/dtmf\r\ne: gzip";
        assert_eq!(told(zipped, "5").unwrap_err().0, 415);
    }

    /// A part of a set, with its header lines.
    fn part(head: &str, body: &str) -> String {
        format!("--b\r\n{head}\r\n\r\n{body}\r\n")
    }

    const MIXED: &str = "c: multipart/mixed;boundary=b";
    const RELAY: &str = "Content-Type: application/dtmf-relay";

    #[test]
    fn an_info_gets_200_only_if_all_its_keys_are_read() {
        let no_key = Err((400, "No DTMF Key In Body"));
        for kind in TYPES {
            let empty = format!("Content-Type: {kind}\r\nContent-Length: 0");
            assert_eq!(told(&empty, ""), no_key, "{kind}");
            let empty = part(&format!("Content-Type: {kind}"), "") + "--b--\r\n";
            assert_eq!(told(MIXED, &empty), no_key, "{kind}");
            let beside = part(RELAY, "Signal=5") + &empty;
            assert_eq!(told(MIXED, &beside), no_key, "{kind}");
        }
        let optional = "Content-Disposition: signal;handling=optional";
        let zipped = format!("{RELAY}\r\n{optional}\r\nContent-Encoding: gzip");
        assert_eq!(told(&zipped, "x").unwrap_err().0, 415);
        let zipped = part(RELAY, "Signal=5") + &part(&zipped, "x") + "--b--\r\n";
        assert_eq!(told(MIXED, &zipped).unwrap_err().0, 415);
        let odd = part(&format!("{RELAY}\r\n{optional}\r\nContent-Transfer-Encoding: x"), "y");
        assert_eq!(told(MIXED, &odd).unwrap_err().0, 415);
        assert_eq!(told(&format!("c: multipart/mixed\r\n{optional}"), &odd).unwrap_err().0, 415);
        let early = format!("{RELAY}\r\nContent-Disposition: early-session");
        assert_eq!(told(&early, "Signal=5"), Ok(Some('5')));
    }

    #[test]
    fn several_keys_are_told_in_their_order() {
        let all = |head, body: &str| all_told(head, body.as_bytes());
        let two = "Signal=5\r\nDuration=100\r\nSignal=6\r\nDuration=100\r\n";
        assert_eq!(all(RELAY, two), Ok("56".to_owned()));
        let set = part(RELAY, "Signal=5") + &part(RELAY, "Signal=*\r\nSignal=9") + "--b--\r\n";
        assert_eq!(all(MIXED, &set), Ok("5*9".to_owned()));
        let same = part(RELAY, "Signal=5") + &part("c: application/dtmf", "5") + "--b--\r\n";
        let alternative = "c: multipart/alternative;boundary=b";
        assert_eq!(all(alternative, &same), Ok("5".to_owned()), "the parts mean the same");
        let most = "Signal=1\r\n".repeat(MAX_KEYS);
        assert_eq!(all(RELAY, &most), Ok("1".repeat(MAX_KEYS)));
        let too_many = Err((400, "Too Many DTMF Keys"));
        assert_eq!(all(RELAY, &(most + "Signal=1")), too_many);
    }

    #[test]
    fn neither_blanks_around_a_slash_nor_other_bytes_cost_a_key() {
        assert_eq!(told("Content-Type: application / dtmf-relay", "Signal=5"), Ok(Some('5')));
        assert_eq!(told("c: application/ dtmf ; x=y", "5"), Ok(Some('5')));
        let latin = b"Name=J\xf6rg\r\nSignal=5\r\n\xff\r\n";
        assert_eq!(all_told(RELAY, latin), Ok("5".to_owned()));
    }
}
