//! SIP messages: what a peer sent, read once and checked, and what we send, built up and printed.
//!
//! Comes in: header fields from the front parser, values from whoever answers or asks. Goes out:
//! typed requests and responses whose accessors cannot fail, and bytes for the wire.
//!
//! Header fields live in, and are printed by, rsip. Start lines, addresses and bodies do not: rsip
//! knows a closed set of methods, prints reason phrases without blanks, and changes bodies that are
//! no UTF-8. Nothing here judges whether a request can be served; `validate` does.

use std::{borrow::Cow, fmt, net::IpAddr};

use thiserror::Error;

use super::uri::{AddressError, is_token};
pub use super::uri::{NameAddr, Rport, Uri, Via};

/// RFC 3261 §8.1.1.6.
const DEFAULT_MAX_FORWARDS: u8 = 70;
/// RFC 3261 §8.1.1.5: CSeq numbers are less than 2^31.
const CSEQ_END: u32 = 1 << 31;

/// One message of a peer.
#[derive(Debug, Clone)]
pub enum Message {
    /// It wants something.
    Request(Request),
    /// It answers.
    Response(Response),
}

/// What a request wants. Methods are case-sensitive (RFC 3261 §7.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// RFC 3261 §13.
    Invite,
    /// RFC 3261 §13.2.2.4.
    Ack,
    /// RFC 3261 §15.
    Bye,
    /// RFC 3261 §9.
    Cancel,
    /// RFC 3261 §11.
    Options,
    /// RFC 6086.
    Info,
    /// RFC 3311.
    Update,
    /// RFC 3262.
    Prack,
    /// RFC 3261 §10.
    Register,
    /// RFC 3515.
    Refer,
    /// RFC 6665.
    Notify,
    /// RFC 6665.
    Subscribe,
    /// RFC 3428.
    Message,
    /// RFC 3903.
    Publish,
    /// Any other token.
    Other(String),
}

impl Method {
    /// The name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Invite => "INVITE",
            Self::Ack => "ACK",
            Self::Bye => "BYE",
            Self::Cancel => "CANCEL",
            Self::Options => "OPTIONS",
            Self::Info => "INFO",
            Self::Update => "UPDATE",
            Self::Prack => "PRACK",
            Self::Register => "REGISTER",
            Self::Refer => "REFER",
            Self::Notify => "NOTIFY",
            Self::Subscribe => "SUBSCRIBE",
            Self::Message => "MESSAGE",
            Self::Publish => "PUBLISH",
            Self::Other(name) => name,
        }
    }

    /// Whether responses to it make dialogs (RFC 3261 §12.1, RFC 6665, RFC 3515).
    fn makes_dialogs(&self) -> bool {
        matches!(self, Self::Invite | Self::Subscribe | Self::Refer)
    }
}

impl From<&str> for Method {
    fn from(name: &str) -> Self {
        match name {
            "INVITE" => Self::Invite,
            "ACK" => Self::Ack,
            "BYE" => Self::Bye,
            "CANCEL" => Self::Cancel,
            "OPTIONS" => Self::Options,
            "INFO" => Self::Info,
            "UPDATE" => Self::Update,
            "PRACK" => Self::Prack,
            "REGISTER" => Self::Register,
            "REFER" => Self::Refer,
            "NOTIFY" => Self::Notify,
            "SUBSCRIBE" => Self::Subscribe,
            "MESSAGE" => Self::Message,
            "PUBLISH" => Self::Publish,
            name => Self::Other(name.to_owned()),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The place of a request in its dialog (RFC 3261 §20.16).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CSeq {
    /// Less than 2^31.
    pub number: u32,
    /// The method of the request.
    pub method: Method,
}

impl fmt::Display for CSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number, self.method)
    }
}

/// Why header fields make no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// A header field that every message has (RFC 3261 §8.1.1) is not there.
    #[error("there is no {name} header field")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// An address cannot be read.
    #[error("the {name} header field is malformed: {cause}")]
    Address {
        /// The name of the header field.
        name: &'static str,
        /// What is wrong with it.
        cause: AddressError,
    },
    /// The value cannot be read.
    #[error("the {name} header field is malformed")]
    Malformed {
        /// The name of the header field.
        name: &'static str,
    },
}

impl HeaderError {
    /// What the peer is told, next to the 400.
    pub fn reason(self) -> &'static str {
        let (Self::Missing { name } | Self::Address { name, .. } | Self::Malformed { name }) = self;
        match (self, name) {
            (Self::Missing { .. }, "Via") => "Missing Via",
            (Self::Missing { .. }, "From") => "Missing From",
            (Self::Missing { .. }, "To") => "Missing To",
            (Self::Missing { .. }, "Call-ID") => "Missing Call-ID",
            (Self::Missing { .. }, "CSeq") => "Missing CSeq",
            (_, "Via") => "Malformed Via",
            (_, "From") => "Malformed From",
            (_, "To") => "Malformed To",
            (_, "Call-ID") => "Malformed Call-ID",
            (_, "CSeq") => "Malformed CSeq",
            (_, "Contact") => "Malformed Contact",
            (_, "Route") => "Malformed Route",
            (_, "Record-Route") => "Malformed Record-Route",
            (_, "Max-Forwards") => "Malformed Max-Forwards",
            (_, "Content-Length") => "Malformed Content-Length",
            _ => reason_phrase(400),
        }
    }
}

/// Header fields in their order, each value free of line ends.
///
/// All are kept as rsip's `Other`: its typed headers change the spelling of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(rsip::Headers);

impl Fields {
    /// Appends a header field. A name that is no token is left out with its value; line ends in
    /// the value become blanks.
    pub fn push(&mut self, name: &str, value: &str) {
        if is_token(name) {
            self.0.push(rsip::Header::Other(name.to_owned(), one_line(value).into_owned()));
        }
    }

    /// The first value under this name, in any case.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values under this name, in any case.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.iter()
            .filter(move |(candidate, _)| candidate.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|header| match header {
            rsip::Header::Other(name, value) => Some((name.as_str(), value.as_str())),
            _ => None,
        })
    }

    /// Whether there is a header field of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.first(name).is_some()
    }
}

/// What requests and responses have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Head {
    fields: Fields,
    /// Never empty.
    vias: Vec<Via>,
    from: NameAddr,
    to: NameAddr,
    call_id: String,
    cseq: CSeq,
    contacts: Vec<NameAddr>,
    record_routes: Vec<NameAddr>,
    routes: Vec<NameAddr>,
    max_forwards: Option<u8>,
    body: Vec<u8>,
}

impl Head {
    fn read(fields: Fields, body: Vec<u8>) -> Result<Self, HeaderError> {
        let vias = fields
            .all("Via")
            .map(|via| via.parse().map_err(|cause| HeaderError::Address { name: "Via", cause }))
            .collect::<Result<Vec<Via>, _>>()?;
        if vias.is_empty() {
            return Err(HeaderError::Missing { name: "Via" });
        }
        Ok(Self {
            vias,
            from: read_party(&fields, "From")?,
            to: read_party(&fields, "To")?,
            call_id: read_call_id(&fields)?,
            cseq: read_cseq(&fields)?,
            contacts: read_name_addrs(&fields, "Contact")?,
            record_routes: read_name_addrs(&fields, "Record-Route")?,
            routes: read_name_addrs(&fields, "Route")?,
            max_forwards: read_max_forwards(&fields)?,
            fields,
            body,
        })
    }
}

fn read_party(fields: &Fields, name: &'static str) -> Result<NameAddr, HeaderError> {
    let value = fields.first(name).ok_or(HeaderError::Missing { name })?;
    value.parse().map_err(|cause| HeaderError::Address { name, cause })
}

fn read_call_id(fields: &Fields) -> Result<String, HeaderError> {
    let name = "Call-ID";
    let value = fields.first(name).ok_or(HeaderError::Missing { name })?;
    if value.is_empty() || value.contains(char::is_whitespace) {
        return Err(HeaderError::Malformed { name });
    }
    Ok(value.to_owned())
}

fn read_cseq(fields: &Fields) -> Result<CSeq, HeaderError> {
    let name = "CSeq";
    let value = fields.first(name).ok_or(HeaderError::Missing { name })?;
    let malformed = HeaderError::Malformed { name };
    let (number, method) = value.split_once([' ', '\t']).ok_or(malformed)?;
    let number = parse_number(number).filter(|number| *number < CSEQ_END).ok_or(malformed)?;
    let method = method.trim();
    if !is_token(method) {
        return Err(malformed);
    }
    Ok(CSeq { number, method: method.into() })
}

fn read_name_addrs(fields: &Fields, name: &'static str) -> Result<Vec<NameAddr>, HeaderError> {
    fields
        .all(name)
        // The `*` of a REGISTER is no address.
        .filter(|value| *value != "*")
        .map(|value| value.parse().map_err(|cause| HeaderError::Address { name, cause }))
        .collect()
}

fn read_max_forwards(fields: &Fields) -> Result<Option<u8>, HeaderError> {
    let name = "Max-Forwards";
    let Some(value) = fields.first(name) else { return Ok(None) };
    let number = parse_number(value).and_then(|number| u8::try_from(number).ok());
    number.map(Some).ok_or(HeaderError::Malformed { name })
}

/// Digits only: no sign, no blanks.
pub(super) fn parse_number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A request of a peer. What RFC 3261 §8.1.1 makes mandatory is there and readable; only
/// Max-Forwards may be missing, as with peers of RFC 2543.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    method: Method,
    uri: Uri,
    head: Head,
}

impl Request {
    /// Reads the header fields of a request.
    ///
    /// # Errors
    ///
    /// When a mandatory header field is missing, or one that routes messages cannot be read.
    pub fn new(
        method: Method,
        uri: Uri,
        fields: Fields,
        body: Vec<u8>,
    ) -> Result<Self, HeaderError> {
        Ok(Self { method, uri, head: Head::read(fields, body)? })
    }

    /// What is wanted.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The Request-URI.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The topmost Via: where the request came from.
    pub fn top_via(&self) -> &Via {
        self.head.vias.first().expect("a message without Via is not constructed")
    }

    /// Notes the source of the request in its topmost Via (RFC 3261 §18.2.1, RFC 3581 §4).
    pub fn set_received(&mut self, ip: IpAddr, port: u16) {
        if let Some(via) = self.head.vias.first_mut() {
            via.set_received(ip, port);
        }
    }

    /// How many more hops the request may take.
    pub fn max_forwards(&self) -> Option<u8> {
        self.head.max_forwards
    }

    /// The proxies to visit yet, the next one first.
    pub fn routes(&self) -> &[NameAddr] {
        &self.head.routes
    }

    /// The extensions that must be understood (RFC 3261 §20.32).
    pub fn require(&self) -> Vec<&str> {
        self.headers("Require").filter(|tag| !tag.is_empty()).collect()
    }
}

/// A response of a peer, with everything that a response copies from its request (RFC 3261 §8.2.6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    status: u16,
    reason: String,
    head: Head,
}

impl Response {
    /// Reads the header fields of a response. `status` is from 100 to 699.
    ///
    /// # Errors
    ///
    /// When a mandatory header field is missing, or one that routes messages cannot be read.
    pub fn new(
        status: u16,
        reason: &str,
        fields: Fields,
        body: Vec<u8>,
    ) -> Result<Self, HeaderError> {
        Ok(Self { status, reason: reason.to_owned(), head: Head::read(fields, body)? })
    }

    /// From 100 to 699.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase; may be empty.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

macro_rules! head_accessors {
    ($message:ty) => {
        impl $message {
            /// The hops of the request, the last one first; never empty.
            pub fn vias(&self) -> &[Via] {
                &self.head.vias
            }

            /// Who sent the request.
            pub fn from(&self) -> &NameAddr {
                &self.head.from
            }

            /// Whom the request was meant for.
            pub fn to(&self) -> &NameAddr {
                &self.head.to
            }

            /// The Call-ID.
            pub fn call_id(&self) -> &str {
                &self.head.call_id
            }

            /// The place of the request in its dialog.
            pub fn cseq(&self) -> &CSeq {
                &self.head.cseq
            }

            /// Where the sender is reached directly.
            pub fn contacts(&self) -> &[NameAddr] {
                &self.head.contacts
            }

            /// The proxies that want to stay in the dialog, in the order of the message.
            pub fn record_routes(&self) -> &[NameAddr] {
                &self.head.record_routes
            }

            /// The first value of a header field, by its long name in any case.
            pub fn header(&self, name: &str) -> Option<&str> {
                self.head.fields.first(name)
            }

            /// All values of a header field, by its long name in any case. Those of a list come one by
            /// one.
            pub fn headers<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
                self.head.fields.all(name)
            }

            /// The Content-Type, with its parameters.
            pub fn content_type(&self) -> Option<&str> {
                self.header("Content-Type")
            }

            /// The body, cut to its Content-Length.
            pub fn body(&self) -> &[u8] {
                &self.head.body
            }
        }
    };
}

head_accessors!(Request);
head_accessors!(Response);

/// What is left of a request that cannot be read, enough to answer it: the raw values of the header
/// fields that a response copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stub {
    fields: Fields,
}

impl Stub {
    /// Keeps what an answer needs of `fields`; `None` when there is no Via, and so no way back.
    pub fn of(fields: &Fields) -> Option<Self> {
        let mut kept = Fields::default();
        for via in fields.all("Via") {
            kept.push("Via", via);
        }
        for name in ["From", "To", "Call-ID", "CSeq"] {
            if let Some(value) = fields.first(name) {
                kept.push(name, value);
            }
        }
        kept.contains("Via").then_some(Self { fields: kept })
    }

    /// The Via values, the last hop first; never empty. They may be malformed.
    pub fn vias(&self) -> impl Iterator<Item = &str> {
        self.fields.all("Via")
    }

    /// The value of From, To, Call-ID or CSeq, if it was there. It may be malformed.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields.first(name)
    }
}

/// Builds a response (RFC 3261 §8.2.6). The header fields that belong to the request are copied as
/// the peer wrote them, for some peers compare them letter by letter.
#[derive(Debug, Clone)]
#[must_use]
pub struct ResponseBuilder<'a> {
    status: u16,
    reason: Cow<'a, str>,
    copied: Fields,
    /// The To of the request, and whether it has a tag.
    to: Option<(&'a str, bool)>,
    to_tag: Option<String>,
    payload: Payload,
}

impl<'a> ResponseBuilder<'a> {
    /// A response to `request` with a status from 100 to 699.
    pub fn to(request: &'a Request, status: u16, reason: &'a str) -> Self {
        let mut copied = Fields::default();
        for via in request.vias() {
            copied.push("Via", &via.to_string());
        }
        if request.method.makes_dialogs() && (101..300).contains(&status) {
            for route in request.headers("Record-Route") {
                copied.push("Record-Route", route);
            }
        }
        // RFC 3261 §8.2.6.1.
        if let Some(timestamp) = request.header("Timestamp").filter(|_| status == 100) {
            copied.push("Timestamp", timestamp);
        }
        for name in ["From", "Call-ID", "CSeq"] {
            if let Some(value) = request.header(name) {
                copied.push(name, value);
            }
        }
        let to = request.header("To").map(|to| (to, request.to().tag().is_some()));
        Self::new(status, reason, copied, to)
    }

    /// A response to what is left of a request.
    pub fn to_stub(stub: &'a Stub, status: u16, reason: &'a str) -> Self {
        let mut copied = Fields::default();
        for (name, value) in stub.fields.iter().filter(|(name, _)| *name != "To") {
            copied.push(name, value);
        }
        // A To that cannot be read is left alone: nothing can be appended to it safely.
        let to = stub.header("To").map(|to| {
            let is_complete = to.parse().map_or(true, |to: NameAddr| to.tag().is_some());
            (to, is_complete)
        });
        Self::new(status, reason, copied, to)
    }

    fn new(status: u16, reason: &'a str, copied: Fields, to: Option<(&'a str, bool)>) -> Self {
        debug_assert!((100..700).contains(&status), "{status} is no status of SIP");
        Self {
            status,
            reason: one_line(reason),
            copied,
            to,
            to_tag: None,
            payload: Payload::default(),
        }
    }

    /// Our tag, for a request that has none yet; an empty one is none.
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
    payload: Payload,
}

impl RequestBuilder {
    /// A request for `uri`.
    pub fn new(method: Method, uri: Uri) -> Self {
        Self { method, uri, max_forwards: DEFAULT_MAX_FORWARDS, payload: Payload::default() }
    }

    /// Our Via. `sent_by` is host and port; IPv6 in brackets. It asks for `rport` (RFC 3581).
    pub fn via(self, transport: &str, sent_by: &str, branch: &str) -> Self {
        self.header("Via", &format!("SIP/2.0/{transport} {sent_by};branch={branch};rport"))
    }

    /// Who asks.
    pub fn from(self, from: &NameAddr) -> Self {
        self.header("From", &from.to_string())
    }

    /// Who is asked.
    pub fn to(self, to: &NameAddr) -> Self {
        self.header("To", &to.to_string())
    }

    /// The Call-ID.
    pub fn call_id(self, call_id: &str) -> Self {
        self.header("Call-ID", call_id)
    }

    /// The number of the request in its dialog, less than 2^31.
    pub fn cseq(self, number: u32) -> Self {
        let cseq = CSeq { number, method: self.method.clone() };
        self.header("CSeq", &cseq.to_string())
    }

    /// A proxy to visit; call it once for each, the next one first.
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

/// What a builder collects.
#[derive(Debug, Clone, Default)]
struct Payload {
    fields: Fields,
    content_type: Option<String>,
    body: Vec<u8>,
}

impl Payload {
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
        let mut bytes = format!("{start_line}\r\n{}\r\n", fields.0).into_bytes();
        bytes.extend(self.body);
        bytes
    }
}

/// Nothing that we print can begin a line of its own.
fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(['\r', '\n']) {
        Cow::Owned(text.replace(['\r', '\n'], " "))
    } else {
        Cow::Borrowed(text)
    }
}

/// The usual reason phrase of a status (RFC 3261 §21 and the extensions we know).
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        200 => "OK",
        202 => "Accepted",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        // RFC 3261 §8.1.3.2: an unknown status means what the first of its class does.
        101..200 => "Progress",
        201..300 => "OK",
        301..400 => "Redirection",
        401..500 => "Request Failure",
        501..600 => "Server Failure",
        _ => "Global Failure",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::sip::wire::parse_datagram;

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
            let answer = ResponseBuilder::to(&request, 200, &value)
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
            prop_assert!(!head.contains("77"));
        }
    }

    #[test]
    fn a_response_copies_what_the_peer_wrote() {
        let request = builder(Method::Invite)
            .header("Record-Route", "<sip:p1;lr>, <sip:p2;lr>")
            .header("Timestamp", "54")
            .build();
        let request = read_request(&request);
        let ok = ResponseBuilder::to(&request, 200, "OK").to_tag("t").build();
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
        let trying = read_response(&ResponseBuilder::to(&request, 100, "Trying").build());
        assert_eq!(trying.header("Timestamp"), Some("54"));
        assert!(trying.record_routes().is_empty());
        assert_eq!(trying.to().tag(), None);
    }

    #[test]
    fn the_tag_of_a_dialog_is_left_as_it_is() {
        let request = builder(Method::Bye).build();
        let text = String::from_utf8(request).unwrap().replace("0123>", "0123>;tag=old");
        let request = read_request(text.as_bytes());
        let ok = ResponseBuilder::to(&request, 200, "OK").to_tag("new").build();
        assert_eq!(read_response(&ok).to().tag(), Some("old"));
    }

    #[test]
    fn the_source_is_noted_in_the_topmost_via() {
        let mut request = read_request(&builder(Method::Options).build());
        request.set_received("192.0.2.7".parse().unwrap(), 9);
        let ok = read_response(&ResponseBuilder::to(&request, 200, "OK").build());
        assert_eq!(ok.vias()[0].received.as_deref(), Some("192.0.2.7"));
        assert_eq!(ok.vias()[0].rport, Some(Rport::Seen(9)));
    }

    #[test]
    fn a_body_that_is_no_text_is_sent_as_it_is() {
        let request = read_request(&builder(Method::Info).build());
        let body = [0xff, 0xfe, 0];
        let ok = ResponseBuilder::to(&request, 200, "OK").body("x/y", &body).build();
        assert_eq!(read_response(&ok).body(), body);
    }
}
