//! SIP, SIPS and tel URIs, name-addrs and Vias, IPv6 included (RFC 3261 sections 19, 20.10, 20.42).
//!
//! rsip cannot read IPv6 hosts, `tel:` URIs or quoted parameters, so these are our own. Reading is
//! tolerant where a URI is only passed on, and strict where something would be decided by it.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// A parameter: its name, and its value if there is one.
pub type Param = (String, Option<String>);

/// A URI of any scheme. What is not `sip:` or `sips:` is kept as text behind its scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    scheme: Scheme,
    /// Of a SIP URI: before the `@`, still escaped, a password included.
    user: Option<String>,
    /// Of a SIP URI: name, IPv4 address, or IPv6 address in brackets. Of others: all of the rest.
    host: String,
    port: Option<u16>,
    params: Vec<Param>,
    /// What follows the `?`.
    headers: Option<String>,
}

/// The scheme of a URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:` (RFC 3966)
    Tel,
    /// Anything else, in lower case.
    Other(String),
}

/// The text is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unreadable {0}")]
pub struct BadSyntax(pub &'static str);

impl Uri {
    /// A `sip:` URI of an address.
    pub fn of_address(user: Option<&str>, ip: IpAddr, port: u16) -> Self {
        Self {
            scheme: Scheme::Sip,
            user: user.map(str::to_owned),
            host: host_of(ip),
            port: Some(port),
            params: Vec::new(),
            headers: None,
        }
    }

    /// Reads a URI without the angle brackets that may stand around it.
    ///
    /// # Errors
    /// No scheme, an empty or broken host, a port that is none, blanks or angle brackets inside.
    pub fn parse(text: &str) -> Result<Self, BadSyntax> {
        let bad = BadSyntax("URI");
        if text.chars().any(|c| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>')) {
            return Err(bad);
        }
        let (scheme, rest) = text.split_once(':').ok_or(bad)?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        if !is_scheme || rest.is_empty() {
            return Err(bad);
        }
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "sip" => Scheme::Sip,
            "sips" => Scheme::Sips,
            "tel" => Scheme::Tel,
            other => Scheme::Other(other.to_owned()),
        };
        if let Scheme::Tel | Scheme::Other(_) = scheme {
            let host = rest.to_owned();
            return Ok(Self { scheme, user: None, host, port: None, params: vec![], headers: None });
        }
        // The user part may hold `;` and `?`, so the `@` is looked for first; a parameter never
        // holds one unescaped.
        let (user, rest) = match rest.rsplit_once('@') {
            Some(("", _)) => return Err(bad),
            Some((user, _)) if user.contains('@') => return Err(bad),
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, rest),
        };
        let (rest, headers) = match rest.split_once('?') {
            Some((rest, headers)) => (rest, Some(headers.to_owned())),
            None => (rest, None),
        };
        let (address, params) = rest.split_once(';').unwrap_or((rest, ""));
        let (host, port) = host_and_port(address).ok_or(bad)?;
        Ok(Self { scheme, user, host, port, params: read_params(params), headers })
    }

    /// The scheme.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The user part with its escapes resolved and without a password; the number of a `tel:` URI.
    pub fn user(&self) -> Option<String> {
        match self.scheme {
            Scheme::Tel => self.host.split(';').next().map(str::to_owned),
            Scheme::Sip | Scheme::Sips => {
                let user = self.user.as_deref()?;
                Some(unescape(user.split(':').next().unwrap_or(user)))
            }
            Scheme::Other(_) => None,
        }
    }

    /// The host: a name, an IPv4 address, or an IPv6 address in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host, if it is an address.
    pub fn ip_addr(&self) -> Option<IpAddr> {
        ip_of(&self.host)
    }

    /// The port, if one is given.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Whether a parameter is there, with or without a value.
    pub fn has_param(&self, name: &str) -> bool {
        self.params.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
    }

    /// The value of a parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        value_of(&self.params, name)
    }

    /// The URI without parameters and headers: who is meant, not how to get there.
    pub fn without_parameters(&self) -> String {
        let bare = Self { params: Vec::new(), headers: None, ..self.clone() };
        let text = bare.to_string();
        match self.scheme {
            Scheme::Tel => text.split(';').next().unwrap_or(&text).to_owned(),
            Scheme::Sip | Scheme::Sips | Scheme::Other(_) => text,
        }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scheme {
            Scheme::Sip => f.write_str("sip:")?,
            Scheme::Sips => f.write_str("sips:")?,
            Scheme::Tel => f.write_str("tel:")?,
            Scheme::Other(scheme) => write!(f, "{scheme}:")?,
        }
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        f.write_str(&self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write_params(f, &self.params)?;
        match &self.headers {
            Some(headers) => write!(f, "?{headers}"),
            None => Ok(()),
        }
    }
}

/// A party of a header field: `"Name" <uri>;param`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameAddr {
    /// The display name, its quoting resolved.
    pub display_name: Option<String>,
    /// The URI.
    pub uri: Uri,
    /// Parameters of the header field, not of the URI.
    pub params: Vec<Param>,
}

impl NameAddr {
    /// Reads `"Name" <uri>;params`, `Name <uri>`, `<uri>` or a bare `uri;params`.
    ///
    /// # Errors
    /// An open quote or bracket, or an unreadable URI.
    pub fn parse(text: &str) -> Result<Self, BadSyntax> {
        let bad = BadSyntax("address");
        let text = text.trim();
        let (display_name, rest) = match text.strip_prefix('"') {
            Some(quoted) => {
                let (name, rest) = unquote(quoted).ok_or(bad)?;
                (Some(name), rest.trim_start())
            }
            None => match text.find('<') {
                Some(at) => {
                    let name = text[..at].trim();
                    ((!name.is_empty()).then(|| name.to_owned()), &text[at..])
                }
                None => (None, text),
            },
        };
        let (uri, params) = match rest.strip_prefix('<') {
            Some(rest) => {
                let (uri, params) = rest.split_once('>').ok_or(bad)?;
                let params = params.trim();
                let params = match params.strip_prefix(';') {
                    Some(params) => params,
                    None if params.is_empty() => "",
                    None => return Err(bad),
                };
                (uri.trim(), params)
            }
            None if display_name.is_some() => return Err(bad),
            // RFC 3261 section 20: without brackets, parameters belong to the header field.
            None => match rest.split_once(';') {
                Some((uri, params)) => (uri.trim(), params),
                None => (rest, ""),
            },
        };
        Ok(Self { display_name, uri: Uri::parse(uri)?, params: read_params(params) })
    }

    /// The tag parameter.
    pub fn tag(&self) -> Option<&str> {
        value_of(&self.params, "tag").filter(|tag| !tag.is_empty())
    }

    /// The URI.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The same party with this tag.
    pub fn with_tag(&self, tag: &str) -> Self {
        let mut tagged = self.clone();
        tagged.params.retain(|(name, _)| !name.eq_ignore_ascii_case("tag"));
        tagged.params.push(("tag".to_owned(), Some(tag.to_owned())));
        tagged
    }
}

impl From<Uri> for NameAddr {
    fn from(uri: Uri) -> Self {
        Self { display_name: None, uri, params: Vec::new() }
    }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.display_name {
            write!(f, "\"{}\" ", name.replace('\\', "\\\\").replace('"', "\\\""))?;
        }
        write!(f, "<{}>", self.uri)?;
        write_params(f, &self.params)
    }
}

/// One Via (RFC 3261 section 20.42).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// `UDP`, `TCP` and so on, in upper case.
    pub transport: String,
    /// Host of sent-by: a name, an IPv4 address, or an IPv6 address in brackets.
    pub host: String,
    /// Port of sent-by.
    pub port: Option<u16>,
    /// The branch, if there is one: RFC 2543 had none.
    pub branch: Option<String>,
    /// All parameters, the branch included, in order.
    pub params: Vec<Param>,
}

impl Via {
    /// Reads `SIP/2.0/UDP host:port;branch=…`, with blanks where the grammar allows them.
    ///
    /// # Errors
    /// Another protocol, or no readable sent-by.
    pub fn parse(text: &str) -> Result<Self, BadSyntax> {
        let bad = BadSyntax("Via");
        let (head, params) = text.split_once(';').unwrap_or((text, ""));
        let mut parts = head.splitn(3, '/');
        let protocol = parts.next().ok_or(bad)?.trim();
        let version = parts.next().ok_or(bad)?.trim();
        let rest = parts.next().ok_or(bad)?.trim();
        if !protocol.eq_ignore_ascii_case("SIP") || version != "2.0" {
            return Err(bad);
        }
        let (transport, sent_by) = rest.split_once(char::is_whitespace).ok_or(bad)?;
        let is_token = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c))
        };
        if !is_token(transport) {
            return Err(bad);
        }
        // `host : port` may hold blanks.
        let sent_by: String = sent_by.split_whitespace().collect();
        let (host, port) = host_and_port(&sent_by).ok_or(bad)?;
        let params = read_params(params);
        let branch = value_of(&params, "branch").map(str::to_owned);
        Ok(Self { transport: transport.to_ascii_uppercase(), host, port, branch, params })
    }

    /// Host of sent-by, if it is an address.
    pub fn ip_addr(&self) -> Option<IpAddr> {
        ip_of(&self.host)
    }

    /// The value of a parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        value_of(&self.params, name)
    }

    /// Whether the client asks for the port by `rport` (RFC 3581).
    pub fn has_rport(&self) -> bool {
        self.params.iter().any(|(name, _)| name.eq_ignore_ascii_case("rport"))
    }

    /// Notes where the request came from (RFC 3261 section 18.2.1, RFC 3581 section 4).
    pub fn set_received(&mut self, ip: IpAddr, port: u16) {
        let asked = self.has_rport();
        if asked || self.ip_addr() != Some(ip) {
            self.set("received", ip.to_string());
        }
        if asked {
            self.set("rport", port.to_string());
        }
    }

    fn set(&mut self, name: &str, value: String) {
        match self.params.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, old)) => *old = Some(value),
            None => self.params.push((name.to_owned(), Some(value))),
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIP/2.0/{} {}", self.transport, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write_params(f, &self.params)
    }
}

/// A host as URIs and Vias write it.
pub fn host_of(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Splits at commas that stand outside quotes and angle brackets.
pub fn split_list(text: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped, mut bracket) = (false, false, false);
    text.split(move |c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => bracket = true,
            '>' if !quoted => bracket = false,
            ',' if !quoted && !bracket => return true,
            _ => {}
        }
        false
    })
    .map(str::trim)
    .filter(|item| !item.is_empty())
}

fn ip_of(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<Ipv6Addr>().ok()?;
            (format!("[{address}]"), port)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            (text[..end].to_owned(), &text[end..])
        }
    };
    let is_name = |host: &str| host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
    if host.is_empty() || !(host.starts_with('[') || is_name(&host)) {
        return None;
    }
    let port = match port.strip_prefix(':') {
        Some(port) => Some(port.parse().ok().filter(|port| *port != 0)?),
        None if port.is_empty() => None,
        None => return None,
    };
    Some((host, port))
}

/// Reads `a;b=c;d="e;f"`; an open quote takes all that is left.
fn read_params(text: &str) -> Vec<Param> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|c: char| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' if !quoted => return true,
            _ => {}
        }
        false
    })
    .map(str::trim)
    .filter(|param| !param.is_empty())
    .map(|param| match param.split_once('=') {
        Some((name, value)) => (name.trim().to_owned(), Some(value.trim().to_owned())),
        None => (param.to_owned(), None),
    })
    .collect()
}

fn write_params(f: &mut fmt::Formatter<'_>, params: &[Param]) -> fmt::Result {
    for (name, value) in params {
        match value {
            Some(value) => write!(f, ";{name}={value}")?,
            None => write!(f, ";{name}")?,
        }
    }
    Ok(())
}

fn value_of<'a>(params: &'a [Param], name: &str) -> Option<&'a str> {
    params
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .and_then(|(_, value)| value.as_deref())
}

/// The text up to the closing quote, its escapes resolved, and what follows.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            '"' => return Some((name, &text[index + 1..])),
            '\\' => name.push(chars.next()?.1),
            _ => name.push(c),
        }
    }
    None
}

/// Resolves `%41`; what is no escape stays, and so does what would not be text.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.filter(|_| *byte == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn uris_of_all_kinds_are_read_and_printed_back() {
        for (text, user, host, port) in [
            ("sip:alice@example.com", Some("alice"), "example.com", None),
            ("sip:alice:pw@192.0.2.1:5070;transport=tcp", Some("alice"), "192.0.2.1", Some(5070)),
            ("sips:[2001:db8::1]:5061", None, "[2001:db8::1]", Some(5061)),
            ("sip:user;par=u%40example.net@example.com", Some("user;par=u@example.net"), "example.com", None),
            ("sip:%6a@h?Subject=x", Some("j"), "h", None),
            ("tel:+15550123;phone-context=x", Some("+15550123"), "+15550123;phone-context=x", None),
        ] {
            let uri = Uri::parse(text).unwrap();
            assert_eq!(uri.user().as_deref(), user, "{text}");
            assert_eq!((uri.host(), uri.port()), (host, port), "{text}");
            assert_eq!(uri.to_string(), text);
        }
        let uri = Uri::parse("sip:a@h:5070;lr;x=1?y=2").unwrap();
        assert!(uri.has_param("LR"));
        assert_eq!(uri.param("x"), Some("1"));
        assert_eq!(uri.without_parameters(), "sip:a@h:5070");
        assert_eq!(Uri::parse("http://x/y").unwrap().scheme(), &Scheme::Other("http".to_owned()));
    }

    #[test]
    fn broken_uris_are_refused() {
        for text in [
            "", "sip:", "alice", "sip:@h", "sip:a@", "sip:a@h:0", "sip:a@h:99999", "sip:a@h:x",
            "sip:a b@h", "sip:[::g]", "sip:[::1", "sip:a@b@c", "<sip:a@h>", "sip:a@h\r\nX: y",
        ] {
            assert!(Uri::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn parties_with_and_without_names_and_brackets() {
        let quoted = NameAddr::parse("\"A \\\"B\\\", <C>\" <sip:a@h;x=1>;tag=t;q=\"a;b\"").unwrap();
        assert_eq!(quoted.display_name.as_deref(), Some("A \"B\", <C>"));
        assert_eq!(quoted.tag(), Some("t"));
        assert_eq!(quoted.uri.param("x"), Some("1"));
        assert_eq!(quoted.params.len(), 2);
        let bare = NameAddr::parse("sip:a@h;tag=t").unwrap();
        assert_eq!((bare.tag(), bare.uri.has_param("tag")), (Some("t"), false));
        assert_eq!(bare.with_tag("u").to_string(), "<sip:a@h>;tag=u");
        for text in ["\"open <sip:a@h>", "<sip:a@h", "\"n\" sip:a@h", "<sip:a@h>x", ""] {
            assert!(NameAddr::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn vias_with_blanks_and_ipv6() {
        let via = Via::parse("SIP / 2.0 / UDP [2001:db8::9:1] : 6050 ; branch=z9hG4bKx;rport").unwrap();
        assert_eq!((via.transport.as_str(), via.port), ("UDP", Some(6050)));
        assert_eq!(via.branch.as_deref(), Some("z9hG4bKx"));
        let mut via = via;
        via.set_received("2001:db8::5".parse().unwrap(), 7000);
        assert_eq!((via.param("received"), via.param("rport")), (Some("2001:db8::5"), Some("7000")));
        let mut plain = Via::parse("SIP/2.0/UDP 192.0.2.1:5060;branch=b").unwrap();
        plain.set_received("192.0.2.1".parse().unwrap(), 5060);
        assert_eq!(plain.to_string(), "SIP/2.0/UDP 192.0.2.1:5060;branch=b");
        for text in ["SIP/2.0/UDP", "SIP/3.0/UDP h", "HTTP/2.0/UDP h", "SIP/2.0/UDP h:x", "x"] {
            assert!(Via::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn lists_are_split_outside_quotes_and_brackets() {
        let items: Vec<_> = split_list("\"a,b\" <sip:c,d@h>, , <sip:e@h>").collect();
        assert_eq!(items, ["\"a,b\" <sip:c,d@h>", "<sip:e@h>"]);
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_the_same(
            user in prop::option::of("[a-z0-9;?&=+$,/_.!~*'()-]{1,12}"),
            host in "([a-z0-9-]{1,10}(\\.[a-z]{1,5})?|\\[2001:db8::[1-9]\\])",
            port in prop::option::of(1u16..),
            params in prop::collection::vec(("[a-z]{1,6}", prop::option::of("[a-z0-9.]{1,6}")), 0..4),
        ) {
            let uri = Uri { scheme: Scheme::Sip, user, host, port, params, headers: None };
            prop_assert_eq!(Uri::parse(&uri.to_string()), Ok(uri.clone()));
            let party = NameAddr::from(uri).with_tag("x");
            prop_assert_eq!(NameAddr::parse(&party.to_string()), Ok(party));
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let _ = Uri::parse(&text);
            let _ = Uri::parse(&format!("sip:{text}"));
            let _ = NameAddr::parse(&text);
            let _ = Via::parse(&format!("SIP/2.0/UDP {text}"));
            let _ = split_list(&text).count();
        }
    }
}
