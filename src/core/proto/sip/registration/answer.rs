//! The parts of the response to a REGISTER that we use.

use std::time::Duration;

use crate::proto::sip::{
    Status,
    message::{Response, Uri, parse_number},
};

/// The parts of a response that decide the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterResponse {
    /// The status.
    pub status: Status,
    /// The values of WWW-Authenticate with a 401, of Proxy-Authenticate with a 407.
    pub challenges: Vec<String>,
    /// How long our contact is kept; `None` when the response does not say.
    pub expires: Option<Duration>,
    /// Of a 423: the shortest expiry that is accepted.
    pub min_expires: Option<Duration>,
    /// How long to wait before the next try.
    pub retry_after: Option<Duration>,
}

impl RegisterResponse {
    /// Reads the response to a REGISTER for `contact`.
    pub fn read(response: &Response, contact: &Uri) -> Self {
        let name = match response.status() {
            Status::PROXY_AUTHENTICATION_REQUIRED => "Proxy-Authenticate",
            _ => "WWW-Authenticate",
        };
        Self {
            status: response.status(),
            challenges: response.headers(name).map(str::to_owned).collect(),
            expires: granted(response, contact),
            min_expires: response.header("Min-Expires").and_then(seconds),
            retry_after: response.header("Retry-After").and_then(seconds),
        }
    }
}

/// The expiry of our own contact among those of all our devices (RFC 3261 §10.2.4). Some peers
/// rewrite our contact because of a NAT; if there is only one contact, it is taken for ours.
fn granted(response: &Response, contact: &Uri) -> Option<Duration> {
    let contacts = response.contacts();
    let ours = contacts
        .iter()
        .find(|it| it.uri().is_equivalent(contact))
        .or_else(|| contacts.first().filter(|_| contacts.len() == 1));
    ours.and_then(|it| it.param("expires")).or(response.header("Expires")).and_then(seconds)
}

/// Parses the digits at the start of the text. Retry-After may have more after them (RFC 3261
/// §20.33).
fn seconds(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let is_number = !digits.is_empty() && !rest.starts_with(|c: char| c.is_ascii_alphanumeric());
    is_number.then(|| Duration::from_secs(parse_number(digits).unwrap_or(u32::MAX).into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sip::{message::Message, wire::parse_datagram};

    fn read(status: u16, lines: &str) -> RegisterResponse {
        let text = format!(
            "SIP/2.0 {status} x\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:u@p>;tag=1\r\n\
             To: <sip:u@p>;tag=2\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\n{lines}\r\n"
        );
        let Ok(Message::Response(response)) = parse_datagram(text.as_bytes()) else {
            panic!("{text}")
        };
        RegisterResponse::read(&response, &"sip:us@192.0.2.1:5060".parse().unwrap())
    }

    fn granted(lines: &str) -> Option<u64> {
        read(200, lines).expires.map(|expires| expires.as_secs())
    }

    #[test]
    fn our_own_contact_tells_the_time() {
        let others = "Contact: <sip:us@9.9.9.9>;expires=7, <sip:us@192.0.2.1:5060>;expires=100\r\n";
        assert_eq!(granted(others), Some(100));
        assert_eq!(granted("Contact: <sip:us@9.9.9.9:1>;expires=90\r\nExpires: 5\r\n"), Some(90));
        assert_eq!(granted("Contact: <sip:us@192.0.2.1:5060>\r\nExpires: 60\r\n"), Some(60));
        assert_eq!(granted("Contact: <sip:a@1>;expires=1, <sip:a@2>;expires=2\r\n"), None);
        assert_eq!(granted("Expires: x\r\n"), None);
    }

    #[test]
    fn a_challenge_stands_where_its_status_says() {
        let lines = "WWW-Authenticate: Digest a\r\nProxy-Authenticate: Digest b\r\n\
                     WWW-Authenticate: Digest c\r\n";
        assert_eq!(read(401, lines).challenges, ["Digest a", "Digest c"]);
        assert_eq!(read(407, lines).challenges, ["Digest b"]);
    }

    #[test]
    fn the_times_of_a_refusal() {
        let lines = "Min-Expires: 600\r\nRetry-After: 18000;duration=3600 (busy)\r\n";
        let refused = read(423, lines);
        assert_eq!(refused.min_expires, Some(Duration::from_secs(600)));
        assert_eq!(refused.retry_after, Some(Duration::from_secs(18_000)));
        assert_eq!(read(503, "Retry-After: 10x\r\n").retry_after, None);
        let long = read(503, "Retry-After: 99999999999\r\n").retry_after;
        assert_eq!(long, Some(Duration::from_secs(u32::MAX.into())));
    }
}
