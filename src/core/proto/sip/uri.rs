//! Addresses on the wire: URIs (RFC 3261 §19.1, RFC 3966), name-addr (§20.10) and Via (§20.42).
//!
//! Comes in: text of one header field value, unfolded. Goes out: values, and the same text again by
//! `Display`. A parsed value holds no control character in its URI, host or parameter names, so
//! that it can be printed anywhere. Nothing is resolved, and the parts of a URI keep their escapes
//! until they are read.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use percent_encoding::percent_decode_str;
use thiserror::Error;

mod equivalence;

/// Parameters in their order on the wire; values keep their quotes and escapes.
pub type Params = Vec<(String, Option<String>)>;

/// Why a text is no address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AddressError {
    /// There is no scheme before a colon.
    #[error("the URI has no scheme")]
    Scheme,
    /// A space, a control character or a delimiter is where it is not allowed.
    #[error("the URI holds a character that must be escaped")]
    Character,
    /// The part before `@` is empty or holds a second `@`.
    #[error("the user part is malformed")]
    User,
    /// Neither a name, nor an IPv4 address, nor an IPv6 address in brackets.
    #[error("the host is malformed")]
    Host,
    /// Not a number from 0 to 65535.
    #[error("the port is malformed")]
    Port,
    /// A parameter is empty, or its name or value is malformed.
    #[error("a parameter is malformed")]
    Parameter,
    /// A header of a URI is not `name=value`.
    #[error("the headers of the URI are malformed")]
    Headers,
    /// The display name or the angle brackets do not fit together.
    #[error("the display name is malformed")]
    DisplayName,
    /// A proxy is not in angle brackets.
    #[error("there are no angle brackets")]
    Brackets,
    /// The Via does not begin with `SIP/2.0/` and a transport.
    #[error("the sent-protocol is malformed")]
    Protocol,
}

/// A URI: `sip`, `sips` and `tel` in parts, any other as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    /// In lower case.
    scheme: String,
    rest: Rest,
}

/// The part after the scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rest {
    Sip {
        /// User and password as they were written, with escapes.
        userinfo: Option<(String, Option<String>)>,
        /// IPv6 in brackets.
        host: String,
        port: Option<u16>,
        params: Params,
        headers: Vec<(String, String)>,
    },
    Tel {
        number: String,
        params: Params,
    },
    Opaque(String),
}

impl Uri {
    /// The SIP URI of a user at a host, which may include a port. Characters that a user part may
    /// not hold are escaped.
    ///
    /// # Errors
    ///
    /// When the host is malformed.
    pub fn sip_user(user: &str, host: &str) -> Result<Self, AddressError> {
        format!("sip:{}@{host}", escape_user(user)).parse()
    }

    /// The scheme in lower case.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Whether the target may be reached over TLS only (§26.2.2).
    pub fn is_sips(&self) -> bool {
        self.scheme == "sips"
    }

    /// The user part without escapes; of a `tel` URI the number. Invalid UTF-8 is replaced.
    pub fn user(&self) -> Option<String> {
        match &self.rest {
            Rest::Sip { userinfo: Some((user, _)), .. } => Some(unescape(user)),
            Rest::Tel { number, .. } => Some(unescape(number)),
            Rest::Sip { userinfo: None, .. } | Rest::Opaque(_) => None,
        }
    }

    /// The host: a name, an IPv4 address, or an IPv6 address in brackets. Only SIP URIs have one.
    pub fn host(&self) -> Option<&str> {
        match &self.rest {
            Rest::Sip { host, .. } => Some(host),
            Rest::Tel { .. } | Rest::Opaque(_) => None,
        }
    }

    /// The host, if it is an IP address.
    pub fn ip_addr(&self) -> Option<IpAddr> {
        host_ip(self.host()?)
    }

    /// The port, if one is named.
    pub fn port(&self) -> Option<u16> {
        match &self.rest {
            Rest::Sip { port, .. } => *port,
            Rest::Tel { .. } | Rest::Opaque(_) => None,
        }
    }

    /// The parameters, as they were written.
    pub fn params(&self) -> &[(String, Option<String>)] {
        match &self.rest {
            Rest::Sip { params, .. } | Rest::Tel { params, .. } => params,
            Rest::Opaque(_) => &[],
        }
    }

    /// The value of a parameter, as it was written; empty when it has none.
    pub fn param(&self, name: &str) -> Option<&str> {
        find(self.params(), name)
    }

    /// Whether there is a parameter of this name.
    pub fn has_param(&self, name: &str) -> bool {
        self.param(name).is_some()
    }

    /// The header fields that a request to this URI should have (§19.1.1), with their escapes.
    pub fn headers(&self) -> &[(String, String)] {
        match &self.rest {
            Rest::Sip { headers, .. } => headers,
            Rest::Tel { .. } | Rest::Opaque(_) => &[],
        }
    }

    /// The URI without password, parameters and headers: it identifies the party, but not the path
    /// to it.
    pub fn without_parameters(&self) -> String {
        let scheme = &self.scheme;
        match &self.rest {
            Rest::Sip { userinfo, host, port, .. } => {
                let user = userinfo.as_ref().map(|(user, _)| format!("{user}@"));
                let port = port.map(|port| format!(":{port}"));
                format!("{scheme}:{}{host}{}", user.unwrap_or_default(), port.unwrap_or_default())
            }
            Rest::Tel { number, .. } => format!("{scheme}:{number}"),
            Rest::Opaque(text) => format!("{scheme}:{text}"),
        }
    }

    /// The URI without password, headers and `method` parameter: the address of a peer, without
    /// instructions for the requests that are sent there.
    pub fn without_orders(mut self) -> Self {
        if let Rest::Sip { userinfo, params, headers, .. } = &mut self.rest {
            if let Some((_, password)) = userinfo {
                *password = None;
            }
            params.retain(|(name, _)| !unescape(name).eq_ignore_ascii_case("method"));
            headers.clear();
        }
        self
    }
}

impl FromStr for Uri {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once(':').ok_or(AddressError::Scheme)?;
        if !is_scheme(scheme) || rest.is_empty() {
            return Err(AddressError::Scheme);
        }
        if rest.contains(must_be_escaped) {
            return Err(AddressError::Character);
        }
        let scheme = scheme.to_ascii_lowercase();
        let rest = match scheme.as_str() {
            "sip" | "sips" => parse_sip(rest)?,
            "tel" => parse_tel(rest)?,
            _ => Rest::Opaque(rest.to_owned()),
        };
        Ok(Self { scheme, rest })
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.scheme)?;
        match &self.rest {
            Rest::Sip { userinfo, host, port, params, headers } => {
                match userinfo {
                    Some((user, Some(password))) => write!(f, "{user}:{password}@")?,
                    Some((user, None)) => write!(f, "{user}@")?,
                    None => {}
                }
                f.write_str(host)?;
                if let Some(port) = port {
                    write!(f, ":{port}")?;
                }
                write_params(f, params)?;
                for (index, (name, value)) in headers.iter().enumerate() {
                    write!(f, "{}{name}={value}", if index == 0 { '?' } else { '&' })?;
                }
                Ok(())
            }
            Rest::Tel { number, params } => {
                f.write_str(number)?;
                write_params(f, params)
            }
            Rest::Opaque(text) => f.write_str(text),
        }
    }
}

fn parse_sip(text: &str) -> Result<Rest, AddressError> {
    // The user part may hold `;` and `?`, so `@` is searched first.
    let (userinfo, text) = match text.split_once('@') {
        None => (None, text),
        Some((_, after)) if after.contains('@') => return Err(AddressError::User),
        Some(("", _)) => return Err(AddressError::User),
        Some((userinfo, after)) => (Some(parse_userinfo(userinfo)?), after),
    };
    let (text, headers) = match text.split_once('?') {
        Some((text, headers)) => (text, parse_uri_headers(headers)?),
        None => (text, Vec::new()),
    };
    let (host_port, params) = match text.split_once(';') {
        Some((host_port, params)) => (host_port, parse_uri_params(params)?),
        None => (text, Vec::new()),
    };
    let (host, port) = parse_host_port(host_port)?;
    Ok(Rest::Sip { userinfo, host, port, params, headers })
}

fn parse_userinfo(text: &str) -> Result<(String, Option<String>), AddressError> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(password.to_owned())),
        None => (text, None),
    };
    if user.is_empty() {
        return Err(AddressError::User);
    }
    Ok((user.to_owned(), password))
}

fn parse_tel(text: &str) -> Result<Rest, AddressError> {
    let (number, params) = match text.split_once(';') {
        Some((number, params)) => (number, parse_uri_params(params)?),
        None => (text, Vec::new()),
    };
    let is_number = number.chars().any(|c| c.is_ascii_hexdigit() || c == '*' || c == '#')
        && !number.contains(['@', '?', ',']);
    if !is_number {
        return Err(AddressError::User);
    }
    Ok(Rest::Tel { number: number.to_owned(), params })
}

fn parse_uri_params(text: &str) -> Result<Params, AddressError> {
    text.split(';')
        .map(|param| {
            let (name, value) = match param.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (param, None),
            };
            // A comma would end the value of a list header field.
            if name.is_empty() || param.contains([',', '?']) {
                return Err(AddressError::Parameter);
            }
            Ok((name.to_owned(), value))
        })
        .collect()
}

fn parse_uri_headers(text: &str) -> Result<Vec<(String, String)>, AddressError> {
    text.split('&')
        .map(|header| match header.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(AddressError::Headers),
        })
        .collect()
}

/// The address of a party with its display name and the parameters of the header field: From, To,
/// Contact, Route and Record-Route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameAddr {
    display_name: Option<String>,
    uri: Uri,
    params: Params,
}

impl NameAddr {
    /// The display name, without quotes and escapes.
    pub fn display_name(&self) -> Option<&str> {
        self.display_name.as_deref()
    }

    /// The URI.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The parameters of the header field, not those of the URI.
    pub fn params(&self) -> &[(String, Option<String>)] {
        &self.params
    }

    /// The value of a parameter of the header field, as it was written; empty when it has none.
    pub fn param(&self, name: &str) -> Option<&str> {
        find(&self.params, name)
    }

    /// The tag (§19.3); an empty tag counts as none.
    pub fn tag(&self) -> Option<&str> {
        self.param("tag").filter(|tag| !tag.is_empty())
    }

    /// Parses a proxy of Route or Record-Route (§20.30, §20.34). Here the angle brackets are
    /// required: without them `lr` would not be a parameter of the URI, and the proxy would count
    /// as a strict router.
    pub(super) fn parse_route(text: &str) -> Result<Self, AddressError> {
        match find_unquoted(text, '<') {
            Some(_) => text.parse(),
            None => Err(AddressError::Brackets),
        }
    }

    /// The same party with this display name.
    pub fn named(self, display_name: Option<&str>) -> Self {
        let display_name = display_name.filter(|name| !name.is_empty()).map(str::to_owned);
        Self { display_name, ..self }
    }

    /// The same party with another tag. Characters that a tag may not hold are left out.
    pub fn with_tag(&self, tag: &str) -> Self {
        let mut params = self.params.clone();
        params.retain(|(name, _)| !name.eq_ignore_ascii_case("tag"));
        let tag = tag.chars().filter(|c| is_token_char(*c)).collect();
        params.push(("tag".to_owned(), Some(tag)));
        Self { params, ..self.clone() }
    }
}

impl From<Uri> for NameAddr {
    fn from(uri: Uri) -> Self {
        Self { display_name: None, uri, params: Vec::new() }
    }
}

impl FromStr for NameAddr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let text = text.trim();
        let (display_name, rest) = if text.starts_with('"') {
            let (name, rest) = parse_quoted(text).ok_or(AddressError::DisplayName)?;
            (Some(name), rest.trim_start())
        } else if let Some(at) = find_unquoted(text, '<') {
            let (name, rest) = text.split_at(at);
            let name = name.trim();
            // Not only tokens are accepted, because many peers do not quote; but no character that
            // could be taken for another part.
            if name.contains(['"', ',', ';', '>']) {
                return Err(AddressError::DisplayName);
            }
            (Some(name.to_owned()).filter(|name| !name.is_empty()), rest)
        } else {
            return parse_addr_spec(text);
        };
        let (uri, params) = rest
            .strip_prefix('<')
            .and_then(|rest| rest.split_once('>'))
            .ok_or(AddressError::DisplayName)?;
        Ok(Self { display_name, uri: uri.parse()?, params: parse_params(params)? })
    }
}

/// Without angle brackets, parameters belong to the header field (§20.10).
fn parse_addr_spec(text: &str) -> Result<NameAddr, AddressError> {
    let (uri, params) = text.split_at(text.find(';').unwrap_or(text.len()));
    let uri = uri.trim_end();
    // These characters need the brackets.
    if uri.contains(['?', ',']) {
        return Err(AddressError::Character);
    }
    Ok(NameAddr { display_name: None, uri: uri.parse()?, params: parse_params(params)? })
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.display_name {
            f.write_str("\"")?;
            for c in name.chars() {
                match c {
                    '"' | '\\' => write!(f, "\\{c}")?,
                    _ => write!(f, "{c}")?,
                }
            }
            f.write_str("\" ")?;
        }
        write!(f, "<{}>", self.uri)?;
        write_params(f, &self.params)
    }
}

/// One hop of a request (§20.42).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// The transport, spelled as it was written.
    pub transport: String,
    /// The host of sent-by; IPv6 in brackets.
    pub host: String,
    /// The port of sent-by, if one is named.
    pub port: Option<u16>,
    /// Identifies the transaction; missing from peers of RFC 2543.
    pub branch: Option<String>,
    /// The source address of the message, if that is not sent-by.
    pub received: Option<String>,
    /// The `rport` parameter (RFC 3581).
    pub rport: Option<Rport>,
    /// All other parameters.
    pub params: Params,
}

/// The `rport` parameter of a Via (RFC 3581 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rport {
    /// The client asks for the response at its source port.
    Asked,
    /// The source port of the client, as the server has seen it.
    Seen(u16),
}

impl Via {
    /// The host of sent-by, if it is an IP address.
    pub fn ip_addr(&self) -> Option<IpAddr> {
        host_ip(&self.host)
    }

    /// Notes the source of the message (§18.2.1, RFC 3581 §4). Values that the peer itself wrote
    /// there are overwritten.
    pub fn set_received(&mut self, ip: IpAddr, port: u16) {
        if self.rport.is_some() {
            self.rport = Some(Rport::Seen(port));
        }
        let is_told = host_ip(&self.host) == Some(ip) && self.rport.is_none();
        self.received = (!is_told).then(|| ip.to_string());
    }
}

impl FromStr for Via {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let mut parts = text.splitn(3, '/').map(str::trim);
        let is_sip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("SIP"));
        let is_two = parts.next() == Some("2.0");
        let rest = parts.next().filter(|_| is_sip && is_two).ok_or(AddressError::Protocol)?;
        let (transport, rest) = rest.split_once([' ', '\t']).ok_or(AddressError::Protocol)?;
        if !is_token(transport) {
            return Err(AddressError::Protocol);
        }
        let (sent_by, params) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
        let (host, port) = parse_host_port(sent_by)?;
        let mut via = Self {
            transport: transport.to_owned(),
            host,
            port,
            branch: None,
            received: None,
            rport: None,
            params: Vec::new(),
        };
        for (name, value) in parse_params(params)? {
            match (name.to_ascii_lowercase().as_str(), value) {
                ("branch", Some(value)) if via.branch.is_none() => via.branch = Some(value),
                ("received", Some(value)) if via.received.is_none() => via.received = Some(value),
                ("rport", value) if via.rport.is_none() => {
                    // Some peers ask for it by `rport=`.
                    via.rport = Some(match value.as_deref() {
                        Some("") | None => Rport::Asked,
                        Some(port) => Rport::Seen(parse_port(port)?),
                    });
                }
                (_, value) => via.params.push((name, value)),
            }
        }
        Ok(via)
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIP/2.0/{} {}", self.transport, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if let Some(branch) = &self.branch {
            write!(f, ";branch={branch}")?;
        }
        if let Some(received) = &self.received {
            write!(f, ";received={received}")?;
        }
        match self.rport {
            Some(Rport::Asked) => f.write_str(";rport")?,
            Some(Rport::Seen(port)) => write!(f, ";rport={port}")?,
            None => {}
        }
        write_params(f, &self.params)
    }
}

/// A token of RFC 3261 §25.1.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_token_char)
}

fn is_token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-.!%*_+`'~".contains(c)
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

fn must_be_escaped(c: char) -> bool {
    c.is_control() || c.is_whitespace() || "<>\"".contains(c)
}

fn parse_host_port(text: &str) -> Result<(String, Option<u16>), AddressError> {
    let text = text.trim();
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']').ok_or(AddressError::Host)?;
        let (host, rest) = text.split_at(end + 1);
        match rest.trim_start() {
            "" => (host, None),
            rest => (host, Some(rest.strip_prefix(':').ok_or(AddressError::Port)?)),
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host.trim_end(), Some(port)),
            None => (text, None),
        }
    };
    if !is_host(host) {
        return Err(AddressError::Host);
    }
    let port = port.map(|port| parse_port(port.trim_start())).transpose()?;
    Ok((host.to_owned(), port))
}

fn is_host(text: &str) -> bool {
    if text.starts_with('[') {
        return host_ip(text).is_some();
    }
    // An underscore is not allowed in host names, but occurs in those of many container networks.
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
}

fn host_ip(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn parse_port(text: &str) -> Result<u16, AddressError> {
    // `u16::from_str` accepts a sign.
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AddressError::Port);
    }
    text.parse().map_err(|_| AddressError::Port)
}

/// Parses `;name=value;name` of a header field, with blanks around the delimiters and quoted
/// values. Empty parameters, which some peers write, are skipped.
fn parse_params(text: &str) -> Result<Params, AddressError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let text = text.strip_prefix(';').ok_or(AddressError::Parameter)?;
    let params = split_top_level(text, ';').into_iter();
    params.filter(|param| !param.trim().is_empty()).map(parse_param).collect()
}

fn parse_param(text: &str) -> Result<(String, Option<String>), AddressError> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name.trim(), Some(value.trim())),
        None => (text.trim(), None),
    };
    let is_value = |value: &str| match parse_quoted(value) {
        Some((_, rest)) => rest.is_empty(),
        None => !value.contains(|c| must_be_escaped(c) || c == ','),
    };
    if !is_token(name) || !value.is_none_or(is_value) {
        return Err(AddressError::Parameter);
    }
    Ok((name.to_owned(), value.map(str::to_owned)))
}

/// RFC 3261 §25.1: everything but `unreserved` and `user-unreserved` is escaped.
pub fn escape_user(user: &str) -> String {
    escape(user, b"-_.!~*'()&=+$,;?/")
}

/// RFC 3261 §25.1: everything but `unreserved` and `hnv-unreserved` is escaped.
pub fn escape_header(value: &str) -> String {
    escape(value, b"-_.!~*'()[]/?:+$")
}

/// Keeps letters, digits and the `allowed` bytes; escapes all others.
fn escape(text: &str, allowed: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || allowed.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// The content of the quoted string at the start of `text`, and the text after it.
pub(super) fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut content = String::new();
    let text = text.strip_prefix('"')?;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((content, text.get(at + 1..)?)),
            '\\' => content.push(chars.next()?.1),
            _ => content.push(c),
        }
    }
    None
}

/// Position of the first `wanted` outside of quoted strings: in `sip:a@b;x="<c>"` there is no
/// bracket.
fn find_unquoted(text: &str, wanted: char) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if c == wanted && !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// Splits at a delimiter that is neither in quotes nor in angle brackets.
pub(super) fn split_top_level(text: &str, delimiter: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut quoted, mut escaped, mut bracketed) = (false, false, false);
    let mut start = 0;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' if !bracketed => quoted = !quoted,
            _ if quoted => {}
            '<' => bracketed = true,
            '>' => bracketed = false,
            _ if c == delimiter && !bracketed => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn find<'a>(params: &'a [(String, Option<String>)], name: &str) -> Option<&'a str> {
    params
        .iter()
        .find(|(candidate, _)| candidate.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_deref().unwrap_or_default())
}

fn write_params(f: &mut fmt::Formatter<'_>, params: &Params) -> fmt::Result {
    params.iter().try_for_each(|(name, value)| match value {
        Some(value) => write!(f, ";{name}={value}"),
        None => write!(f, ";{name}"),
    })
}

pub(super) fn unescape(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    fn user() -> impl Strategy<Value = String> {
        "([a-z0-9;?&=+$,/!~*'()_.-]|%[0-9A-F]{2}){1,12}"
    }

    fn host() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9]{1,8}(\\.[a-z0-9-]{1,8}){0,3}",
            any::<Ipv4Addr>().prop_map(|ip| ip.to_string()),
            any::<Ipv6Addr>().prop_map(|ip| format!("[{ip}]")),
        ]
    }

    fn any_uri() -> impl Strategy<Value = String> {
        let tail = "(;[a-z]{1,5}(=[a-z0-9%:/+-]{0,6})?){0,3}";
        let port = prop::option::of(any::<u16>());
        let sip = (
            "sips?",
            prop::option::of(user()),
            host(),
            port,
            tail,
            "(\\?[a-z]{1,4}=[a-z0-9%]{0,4})?",
        )
            .prop_map(|(scheme, user, host, port, params, headers)| {
                let user = user.map(|user| format!("{user}@")).unwrap_or_default();
                let port = port.map(|port| format!(":{port}")).unwrap_or_default();
                format!("{scheme}:{user}{host}{port}{params}{headers}")
            });
        let tel = ("\\+?[0-9][0-9().-]{0,12}", tail)
            .prop_map(|(number, params)| format!("tel:{number}{params}"));
        prop_oneof![4 => sip, 1 => tel, 1 => "[a-z]{4,6}:[a-z0-9/@:]{1,9}"]
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again_as_the_same_uri(text in any_uri()) {
            let read: Uri = text.parse().unwrap();
            prop_assert_eq!(read.to_string(), text);
            prop_assert_eq!(&read.to_string().parse::<Uri>().unwrap(), &read);
        }

        #[test]
        fn what_is_printed_is_read_again_as_the_same_party(
            text in any_uri(),
            name in prop::option::of("\\PC{1,12}"),
            tag in "[a-z0-9]{1,8}",
        ) {
            let name_addr = NameAddr { display_name: name, ..NameAddr::from(uri(&text)) };
            let name_addr = name_addr.with_tag(&tag);
            prop_assert_eq!(&name_addr.to_string().parse::<NameAddr>().unwrap(), &name_addr);
        }

        #[test]
        fn any_text_that_is_read_can_be_printed_and_read_again(text in "(sip:)?[\\PC\r\n]{0,24}") {
            if let Ok(uri) = text.parse::<Uri>() {
                prop_assert!(!uri.to_string().contains(['\r', '\n']));
                prop_assert_eq!(&uri.to_string().parse::<Uri>().unwrap(), &uri);
            }
            if let Ok(name_addr) = text.parse::<NameAddr>() {
                prop_assert_eq!(&name_addr.to_string().parse::<NameAddr>().unwrap(), &name_addr);
            }
            if let Ok(via) = format!("SIP/2.0/UDP {text}").parse::<Via>() {
                prop_assert_eq!(&via.to_string().parse::<Via>().unwrap(), &via);
            }
        }
    }

    #[test]
    fn a_sip_uri_comes_in_parts() {
        let uri = uri("SIP:j%40doe;x=1:secret@[2001:db8::1]:5070;transport=tcp;LR?subject=hi");
        assert_eq!(uri.scheme(), "sip");
        assert_eq!(uri.user().as_deref(), Some("j@doe;x=1"));
        assert_eq!(uri.host(), Some("[2001:db8::1]"));
        assert_eq!(uri.ip_addr(), Some("2001:db8::1".parse().unwrap()));
        assert_eq!(uri.port(), Some(5070));
        assert_eq!(uri.param("Transport"), Some("tcp"));
        assert!(uri.has_param("lr"));
        assert_eq!(uri.headers(), [("subject".to_owned(), "hi".to_owned())]);
        assert_eq!(uri.without_parameters(), "sip:j%40doe;x=1@[2001:db8::1]:5070");
    }

    #[test]
    fn a_way_to_a_peer_orders_nothing() {
        let uri = uri("sip:a:pw@b:5070;Method=BYE;%6dethod=BYE;transport=tcp?Replaces=x");
        assert_eq!(uri.without_orders().to_string(), "sip:a@b:5070;transport=tcp");
    }

    #[test]
    fn the_user_of_a_tel_uri_is_its_number() {
        let uri = uri("tel:+1-201-555-0123;phone-context=example.com");
        assert_eq!(uri.user().as_deref(), Some("+1-201-555-0123"));
        assert_eq!(uri.host(), None);
        assert_eq!(uri.without_parameters(), "tel:+1-201-555-0123");
    }

    #[test]
    fn malformed_uris_are_refused() {
        for text in [
            "",
            "sip:",
            ":x",
            "sip:a b@c",
            "sip:@c",
            "sip:a@b@c",
            "sip:a@",
            "sip:a@b:70000",
            "sip:a@b:+1",
            "sip:a@[::1",
            "sip:a@[zz]",
            "sip:a@b;;x",
            "sip:a@b?x",
            "<sip:a@b>",
            "tel:",
            "tel:;x",
            "sip:a@b\r\nX: y",
            "sip:2001:db8::1",
        ] {
            assert!(text.parse::<Uri>().is_err(), "{text}");
        }
    }

    #[test]
    fn parameters_without_brackets_belong_to_the_header_field() {
        let name_addr: NameAddr = "sip:a@b ; tag = 1;x=\"q;\\\"\"".parse().unwrap();
        assert_eq!(name_addr.tag(), Some("1"));
        assert_eq!(name_addr.param("x"), Some("\"q;\\\"\""));
        assert!(name_addr.uri().params().is_empty());
    }

    #[test]
    fn brackets_in_quotes_are_part_of_a_parameter() {
        for (text, instance) in [
            (
                "sip:a@192.0.2.1:5060;+sip.instance=\"<urn:uuid:0-1>\";reg-id=1",
                "\"<urn:uuid:0-1>\"",
            ),
            ("sip:a@b ; +sip.instance = \"<urn:\\\"x>\"", "\"<urn:\\\"x>\""),
            ("<sip:a@b>;+sip.instance=\"<urn:x>\"", "\"<urn:x>\""),
            ("A B <sip:a@b>;+sip.instance=\"<urn:x>\"", "\"<urn:x>\""),
            ("\"<A>\" <sip:a@b>;+sip.instance=\"<urn:x>\"", "\"<urn:x>\""),
        ] {
            let name_addr: NameAddr = text.parse().unwrap_or_else(|_| panic!("{text}"));
            assert_eq!(name_addr.param("+sip.instance"), Some(instance), "{text}");
            assert!(name_addr.uri().params().is_empty(), "{text}");
        }
        for text in
            ["5\" disk <sip:a@b>", "A \"B\" <sip:a@b>", "sip:a@b;x=<y>", "sip:a@b?x=\"<y>\""]
        {
            assert!(text.parse::<NameAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_proxy_stands_in_brackets() {
        let route = NameAddr::parse_route("\"P\" <sip:p;lr>;x=\"<y>\"").unwrap();
        assert!(route.uri().has_param("lr"));
        for text in ["sip:p;lr", "sip:p;x=\"<sip:p;lr>\"", ""] {
            assert!(NameAddr::parse_route(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_tag_cannot_carry_another_header_field() {
        let name_addr: NameAddr = "<sip:a@b>;tag=old".parse().unwrap();
        assert_eq!(name_addr.with_tag("1\r\nX: y").to_string(), "<sip:a@b>;tag=1Xy");
    }

    #[test]
    fn an_rport_without_value_asks_for_it_and_empty_parameters_are_skipped() {
        for params in [";rport=", ";rport", ";rport=;", "; ;rport", ";;rport;;", ";rport = ; "] {
            let text = format!("SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1{params}");
            let via: Via = text.parse().unwrap();
            assert_eq!(via.rport, Some(Rport::Asked), "{params}");
            assert_eq!(via.to_string(), "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bK1;rport");
        }
        for params in [";", ";;", " ; "] {
            let via: Via = format!("SIP/2.0/UDP a{params}").parse().unwrap();
            assert_eq!(via.to_string(), "SIP/2.0/UDP a");
            let party: NameAddr = format!("<sip:a@b>{params};tag=1;").parse().unwrap();
            assert_eq!((party.tag(), party.params().len()), (Some("1"), 1));
        }
        for params in [";rport=x", ";rport=70000", ";=x", ";a b"] {
            assert!(format!("SIP/2.0/UDP a{params}").parse::<Via>().is_err(), "{params}");
        }
    }

    #[test]
    fn received_and_rport_are_what_we_saw() {
        let seen = |text: &str| {
            let mut via: Via = text.parse().unwrap();
            via.set_received("192.0.2.1".parse().unwrap(), 7);
            via.to_string()
        };
        assert_eq!(
            seen("SIP/2.0/UDP 192.0.2.1;received=6.6.6.6;branch=1"),
            "SIP/2.0/UDP 192.0.2.1;branch=1"
        );
        assert_eq!(seen("SIP/2.0/UDP a"), "SIP/2.0/UDP a;received=192.0.2.1");
        assert_eq!(
            seen("SIP / 2.0/UDP 192.0.2.1 : 5060 ; rport;ttl=1"),
            "SIP/2.0/UDP 192.0.2.1:5060;received=192.0.2.1;rport=7;ttl=1"
        );
    }
}
