//! The called address in parts: what a trunk's `allow` is matched against, and what is sent.
//!
//! Input: a target URI from the API, a Refer-To, or the Contact of a 3xx. Output: user, host and
//! port only. A telephone number can carry parameters that route the call to another number (RFC
//! 4694 `rn` and `npdi`, RFC 3966 `phone-context`), also within the user part of a SIP URI (RFC
//! 3261 section 19.1.6). A SIP URI can carry another host to send to (`maddr`), another method,
//! header fields and a password. `allow` matches none of these, so none of these is sent.

use aftertone_core::proto::sip::uri::{Uri, escape_user};

use super::pattern::matches;

/// Separators that RFC 3966 section 5.1.1 allows between digits.
const VISUAL_SEPARATORS: [char; 4] = ['-', '.', '(', ')'];

/// A called address in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dialled {
    /// The user part without escapes and parameters; for a telephone number, its digits.
    pub user: String,
    /// Host and port of a SIP URI as written; `None` for a `tel` URI.
    authority: Option<(String, Option<u16>)>,
    /// Must be reached over TLS.
    pub is_secure: bool,
}

impl Dialled {
    /// Parses a target. `None` when it names no user, or a user that another parser could split
    /// differently because it contains an escaped `%`, `?`, space or control character.
    pub(super) fn read(target: &Uri) -> Option<Self> {
        let decoded = target.user()?;
        let user = decoded.split(';').next().unwrap_or_default();
        let is_ambiguous = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '%' | '?');
        if user.is_empty() || user.contains(is_ambiguous) {
            return None;
        }
        let is_telephone = target.scheme() == "tel"
            || user.starts_with('+')
            || target.param("user").is_some_and(|kind| kind.eq_ignore_ascii_case("phone"));
        let user = if is_telephone { user.replace(VISUAL_SEPARATORS, "") } else { user.to_owned() };
        let authority = target.host().map(|host| (host.to_owned(), target.port()));
        (!user.is_empty()).then_some(Self { user, authority, is_secure: target.is_sips() })
    }

    /// The host as written.
    pub(super) fn host(&self) -> Option<&str> {
        self.authority.as_ref().map(|(host, _)| host.as_str())
    }

    /// The SIP URI of the user at the named host and port; `None` for a number without a host.
    pub(super) fn uri(&self) -> Option<Uri> {
        self.at(&self.location()?)
    }

    /// The SIP URI of the user at another host, which may include a port.
    pub(super) fn at(&self, host: &str) -> Option<Uri> {
        let scheme = if self.is_secure { "sips" } else { "sip" };
        format!("{scheme}:{}@{host}", escape_user(&self.user)).parse().ok()
    }

    /// Whether a pattern of `allow` matches the user alone, at the trunk's own host.
    pub(super) fn is_matched_by(&self, pattern: &str) -> bool {
        !pattern.contains('@') && is_fit(pattern, &self.user) && matches(pattern, &self.user)
    }

    /// Whether a pattern of `allow` matches the user at the host, and at the port if one is named.
    pub(super) fn is_matched_elsewhere_by(&self, pattern: &str) -> bool {
        let Some((user_pattern, _)) = pattern.rsplit_once('@') else { return false };
        let Some(location) = self.location() else { return false };
        is_fit(user_pattern, &self.user) && matches(pattern, &format!("{}@{location}", self.user))
    }

    fn location(&self) -> Option<String> {
        self.authority.as_ref().map(|(host, port)| match port {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        })
    }
}

/// The form of a target that may be shown to a peer: user, host and port, and for a SIP URI the
/// transport, since the peer calls there itself.
pub(super) fn named_to_peers(target: &Uri) -> Option<Uri> {
    if target.user().is_none() {
        return target.without_parameters().parse().ok();
    }
    let dialled = Dialled::read(target)?;
    let uri = match target.scheme() {
        "tel" => return format!("tel:{}", escape_user(&dialled.user)).parse().ok(),
        _ => dialled.uri()?,
    };
    let transport = ["udp", "tcp", "tls", "ws", "wss"].into_iter().find(|known| {
        target.param("transport").is_some_and(|named| named.eq_ignore_ascii_case(known))
    });
    match transport {
        Some(transport) => format!("{uri};transport={transport}").parse().ok(),
        None => Some(uri),
    }
}

/// Whether the kind of pattern fits the user. A pattern of digits and wildcards addresses telephone
/// numbers: only digits may match behind `+49*`. Without a `+` it may also match a plain name, but
/// nothing with further parts.
fn is_fit(pattern: &str, user: &str) -> bool {
    let is_name = |user: &str| {
        user.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '~'))
    };
    !is_number_pattern(pattern) || is_number(user) || (!pattern.starts_with('+') && is_name(user))
}

fn is_number_pattern(pattern: &str) -> bool {
    pattern.contains(|c: char| c.is_ascii_digit() || c == '+')
        && pattern.chars().all(|c| c.is_ascii_digit() || "+*?#".contains(c) || is_separator(c))
}

/// A global number, or a local one, which may contain the keys `*` and `#`.
fn is_number(user: &str) -> bool {
    let is_digit = |c: char| c.is_ascii_digit() || is_separator(c);
    match user.strip_prefix('+') {
        Some(digits) => !digits.is_empty() && digits.chars().all(is_digit),
        None => user.chars().all(|c| is_digit(c) || matches!(c, '*' | '#')),
    }
}

fn is_separator(c: char) -> bool {
    VISUAL_SEPARATORS.contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Dialled> {
        Dialled::read(&text.parse().unwrap())
    }

    #[test]
    fn a_telephone_number_is_read_without_what_routes_it_elsewhere() {
        for target in [
            "tel:+4930",
            "tel:+49-3(0)",
            "tel:+4930;npdi;rn=+19005551234",
            "tel:+4930;phone-context=+1900",
            "sip:+4930;npdi;rn=+19005551234@h.example",
            "sip:+4930;phone-context=%2B1900@h.example",
            "sip:+4930%3brn=+1900@h.example",
            "sip:+4930%3Brn=+1900:secret@h.example;maddr=192.0.2.1;method=BYE?Replaces=x",
            "sip:+49.30@h.example",
            "sip:%2B4930@h.example;user=phone",
        ] {
            assert_eq!(read(target).map(|dialled| dialled.user), Some("+4930".into()), "{target}");
        }
    }

    #[test]
    fn a_user_that_could_be_read_twice_is_none() {
        for target in [
            "sip:+4930%253brn=+1900@h.example",
            "sip:+4930%00@h.example",
            "sip:+4930%0d%0aX:y@h.example",
            "sip:bob%3fReplaces=x@h.example",
            "sip:bob?x=y@h.example",
            "sip:;rn=1@h.example",
            "sip:%3brn=1@h.example",
            "sip:h.example",
            "tel:+;rn=1",
        ] {
            let Ok(target) = target.parse::<Uri>() else { continue };
            let read = Dialled::read(&target);
            assert!(read.is_none_or(|dialled| !is_number(&dialled.user)), "{target}");
        }
        assert_eq!(read("sip:+4930%253brn=+1900@h.example"), None);
        assert_eq!(read("sip:bob%3fReplaces=x@h.example"), None);
    }

    #[test]
    fn a_pattern_of_digits_means_numbers_and_plain_names() {
        let is_matched = |target: &str, pattern| read(target).unwrap().is_matched_by(pattern);
        assert!(is_matched("sip:+4930@h.example", "+49*"));
        assert!(is_matched("sip:200@h.example", "2*"));
        assert!(is_matched("tel:*21%23", "*2?#"));
        assert!(is_matched("sip:2alice@h.example", "2*"));
        for parts in ["sip:200,rn=+1900@h.example", "sip:200&rn=1900@h.example"] {
            assert!(!is_matched(parts, "2*"), "{parts}");
        }
        for target in [
            "sip:+4930,rn=+1900@h.example",
            "sip:+4930&rn=+1900@h.example",
            "sip:+4930p+1900@h.example",
            "sip:+4930%40evil.example@h.example",
            "sip:+4930%3arn@h.example",
        ] {
            assert!(!is_matched(target, "+49*"), "{target}");
            assert!(is_matched(target, "*"), "{target}");
        }
        let is_elsewhere =
            |target: &str, pattern| read(target).unwrap().is_matched_elsewhere_by(pattern);
        assert!(is_elsewhere("sip:+4930@h.example", "+49*@h.example"));
        assert!(!is_elsewhere("sip:+4930,rn=1@h.example", "+49*@h.example"));
        assert!(!is_elsewhere("sip:bob@h.example:25", "*@h.example"));
        assert!(is_elsewhere("sip:bob@h.example:5070", "*@h.example:5070"));
    }

    #[test]
    fn what_is_named_to_peers_has_no_secrets_and_no_orders() {
        for (target, named) in [
            (
                "sip:bob:pw@h.example:5070;maddr=x;transport=TCP;method=BYE?Replaces=x",
                "sip:bob@h.example:5070;transport=tcp",
            ),
            ("sips:h.example;maddr=x?a=b", "sips:h.example"),
            ("tel:+49-30;npdi;rn=+1900", "tel:+4930"),
            ("sip:+4930;rn=+1900@h.example", "sip:+4930@h.example"),
            ("sip:bob@h.example;transport=x%0d%0a", "sip:bob@h.example"),
        ] {
            let shown = named_to_peers(&target.parse().unwrap()).map(|uri| uri.to_string());
            assert_eq!(shown.as_deref(), Some(named), "{target}");
        }
    }
}
