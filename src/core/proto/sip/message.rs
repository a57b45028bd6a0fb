//! SIP messages: received messages, parsed once and checked, and messages to send, built and
//! printed.
//!
//! Comes in: header fields from the front parser, values from transaction users. Goes out: typed
//! requests and responses with accessors that cannot fail, and bytes for the wire.
//!
//! Header fields are stored and printed by rsip. Start lines, addresses and bodies are not: rsip
//! knows a closed set of methods, prints reason phrases without blanks, and changes bodies that are
//! not UTF-8. Nothing here judges whether a request can be served; `validate` does.

use std::{fmt, net::IpAddr};

use thiserror::Error;

pub use super::fields::Fields;
pub use super::uri::{NameAddr, Rport, Uri, Via};
use super::{
    Status,
    body::{self, Content, SDP, Strictness},
    fields::one_line,
    uri::{AddressError, is_token},
};

mod build;

pub use self::build::{RequestBuilder, ResponseBuilder};

/// RFC 3261 §8.1.1.5: CSeq numbers are less than 2^31.
const CSEQ_END: u32 = 1 << 31;

/// A received message.
#[derive(Debug, Clone)]
pub enum Message {
    /// A request.
    Request(Request),
    /// A response.
    Response(Response),
}

/// The method of a request. Methods are case-sensitive (RFC 3261 §7.1).
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

    /// Whether responses to it create dialogs (RFC 3261 §12.1, RFC 6665, RFC 3515).
    fn makes_dialogs(&self) -> bool {
        matches!(self, Self::Invite | Self::Subscribe | Self::Refer)
    }

    /// Whether its Contact says where the sender is reached from now on (RFC 3261 §10, §12;
    /// RFC 3311).
    fn has_contact(&self) -> bool {
        self.makes_dialogs() || matches!(self, Self::Register | Self::Update)
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

/// The position of a request in its dialog (RFC 3261 §20.16).
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

/// Why header fields do not make a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// A header field that every message has (RFC 3261 §8.1.1) is missing.
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
    /// The reason phrase of the 400 that the peer gets.
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
            (_, "Record-Route") => "Malformed Record-Route",
            (_, "Content-Length") => "Malformed Content-Length",
            _ => Status::BAD_REQUEST.reason(),
        }
    }
}

/// The parts that requests and responses have in common.
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
    /// Reads a request. A header field that cannot be read and is not needed to serve the request
    /// is left out (RFC 3261 §8.2): a BYE ends its dialog whatever its Contact says.
    fn of_request(method: &Method, fields: Fields, body: Vec<u8>) -> Result<Self, HeaderError> {
        let (mut head, _) = Self::of_irrefusable(fields, body)?;
        if method.has_contact() {
            head.contacts = read_contacts(&head.fields).collect::<Result<_, _>>()?;
        }
        if method.makes_dialogs() {
            let routes = read_proxies(&head.fields, "Record-Route");
            head.record_routes = routes.collect::<Result<_, _>>()?;
        }
        Ok(head)
    }

    /// Reads a message that cannot be refused: the header fields that identify the transaction, and
    /// of the others those that can be read. Also returns why the message cannot create a dialog.
    fn of_irrefusable(
        fields: Fields,
        body: Vec<u8>,
    ) -> Result<(Self, Option<HeaderError>), HeaderError> {
        let mut head = Self::of_transaction(fields, body)?;
        head.contacts = read_contacts(&head.fields).filter_map(Result::ok).collect();
        let routes: Result<Vec<_>, _> = read_proxies(&head.fields, "Record-Route").collect();
        let has_no_contact =
            head.contacts.is_empty() && head.fields.all("Contact").any(|value| !value.is_empty());
        let malformed = |name| Some(HeaderError::Malformed { name });
        let dialog_fault = match &routes {
            Err(_) => malformed("Record-Route"),
            Ok(_) if has_no_contact => malformed("Contact"),
            Ok(_) => None,
        };
        // A route set is used whole or not at all.
        head.record_routes = routes.unwrap_or_default();
        head.routes = read_proxies(&head.fields, "Route").filter_map(Result::ok).collect();
        head.max_forwards = read_max_forwards(&head.fields);
        Ok((head, dialog_fault))
    }

    /// Reads the header fields that identify the transaction; without them there is no message.
    fn of_transaction(fields: Fields, body: Vec<u8>) -> Result<Self, HeaderError> {
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
            contacts: Vec::new(),
            record_routes: Vec::new(),
            routes: Vec::new(),
            max_forwards: None,
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

fn read_contacts(fields: &Fields) -> impl Iterator<Item = Result<NameAddr, HeaderError>> {
    let name = "Contact";
    fields
        .all(name)
        // The `*` of a REGISTER is not an address, and an empty element of a list is skipped.
        .filter(|value| !matches!(*value, "*" | ""))
        .map(move |value| value.parse().map_err(|cause| HeaderError::Address { name, cause }))
}

fn read_proxies(
    fields: &Fields,
    name: &'static str,
) -> impl Iterator<Item = Result<NameAddr, HeaderError>> {
    fields.all(name).filter(|value| !value.is_empty()).map(move |value| {
        NameAddr::parse_route(value).map_err(|cause| HeaderError::Address { name, cause })
    })
}

/// Max-Forwards is needed only to forward a request. One that cannot be read counts as missing.
fn read_max_forwards(fields: &Fields) -> Option<u8> {
    parse_number(fields.first("Max-Forwards")?).and_then(|number| u8::try_from(number).ok())
}

/// Parses digits only: no sign, no blanks.
pub(super) fn parse_number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A received request. The header fields that RFC 3261 §8.1.1 makes mandatory are there and
/// readable; only Max-Forwards may be missing, as from peers of RFC 2543, or unreadable.
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
    /// When a mandatory header field is missing, or one that is needed to serve the request cannot
    /// be read. An ACK is never answered, so it needs only those that identify its transaction.
    pub fn new(
        method: Method,
        uri: Uri,
        fields: Fields,
        body: Vec<u8>,
    ) -> Result<Self, HeaderError> {
        let head = Head::of_request(&method, fields, body)?;
        Ok(Self { method, uri, head })
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The Request-URI.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The topmost Via: that of the last hop.
    pub fn top_via(&self) -> &Via {
        self.head.vias.first().expect("a message without Via is not constructed")
    }

    /// The topmost Via, taken out of the request.
    pub fn into_top_via(self) -> Via {
        self.head.vias.into_iter().next().expect("a message without Via is not constructed")
    }

    /// Notes the source of the request in its topmost Via (RFC 3261 §18.2.1, RFC 3581 §4).
    pub fn set_received(&mut self, ip: IpAddr, port: u16) {
        if let Some(via) = self.head.vias.first_mut() {
            via.set_received(ip, port);
        }
    }

    /// How the header fields of the body are read.
    fn strictness(&self) -> Strictness {
        match self.method {
            Method::Ack => Strictness::Lenient,
            _ => Strictness::Strict,
        }
    }

    /// How many more hops the request may take.
    pub fn max_forwards(&self) -> Option<u8> {
        self.head.max_forwards
    }

    /// The proxies that are still to be visited, the next one first.
    pub fn routes(&self) -> &[NameAddr] {
        &self.head.routes
    }

    /// Whether our Contact in the response has to be a SIPS URI (RFC 3261 §12.1.1).
    pub fn wants_sips(&self) -> bool {
        let neighbour = self.head.record_routes.first().or(self.head.contacts.first());
        self.uri.is_sips() || neighbour.is_some_and(|neighbour| neighbour.uri().is_sips())
    }

    /// The extensions that the request requires (RFC 3261 §20.32).
    pub fn require(&self) -> Vec<&str> {
        self.headers("Require").filter(|tag| !tag.is_empty()).collect()
    }
}

/// A received response, with all header fields that a response copies from its request (RFC 3261
/// §8.2.6.2). No other header field has to be readable, because a response cannot be refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    status: Status,
    reason: String,
    head: Head,
    dialog_fault: Option<HeaderError>,
}

impl Response {
    /// Reads the header fields of a response.
    ///
    /// # Errors
    ///
    /// When a header field that identifies the transaction is missing, or cannot be read.
    pub fn new(
        status: Status,
        reason: &str,
        fields: Fields,
        body: Vec<u8>,
    ) -> Result<Self, HeaderError> {
        let (head, dialog_fault) = Head::of_irrefusable(fields, body)?;
        Ok(Self { status, reason: one_line(reason).into_owned(), head, dialog_fault })
    }

    /// Why the response cannot create a dialog (RFC 3261 §12.1.2): it has Contacts and none of them
    /// can be read, or it has a Record-Route that cannot be read. Without any Contact, the
    /// Request-URI stays the target.
    pub fn dialog_fault(&self) -> Option<HeaderError> {
        self.dialog_fault
    }

    /// How the header fields of the body are read.
    fn strictness(&self) -> Strictness {
        Strictness::Lenient
    }

    /// The status.
    pub fn status(&self) -> Status {
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
            /// The Via header fields, that of the last hop first; never empty.
            pub fn vias(&self) -> &[Via] {
                &self.head.vias
            }

            /// The From header field.
            pub fn from(&self) -> &NameAddr {
                &self.head.from
            }

            /// The To header field.
            pub fn to(&self) -> &NameAddr {
                &self.head.to
            }

            /// The Call-ID.
            pub fn call_id(&self) -> &str {
                &self.head.call_id
            }

            /// The CSeq header field.
            pub fn cseq(&self) -> &CSeq {
                &self.head.cseq
            }

            /// The Contacts: where the sender is reached directly.
            pub fn contacts(&self) -> &[NameAddr] {
                &self.head.contacts
            }

            /// The Record-Route header fields: proxies that stay in the dialog, in the order of the
            /// message.
            pub fn record_routes(&self) -> &[NameAddr] {
                &self.head.record_routes
            }

            /// The first value of a header field, by its long name in any case.
            pub fn header(&self, name: &str) -> Option<&str> {
                self.head.fields.first(name)
            }

            /// All values of a header field, by its long name in any case. The elements of a list
            /// are returned one by one.
            pub fn headers<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
                self.head.fields.all(name)
            }

            /// Whether a header field that is a list of tokens contains this one, in any case.
            pub fn lists(&self, name: &str, token: &str) -> bool {
                self.headers(name).any(|value| value.eq_ignore_ascii_case(token))
            }

            /// The Content-Type, with its parameters.
            pub fn content_type(&self) -> Option<&str> {
                self.header("Content-Type")
            }

            /// The body, cut to its Content-Length.
            pub fn body(&self) -> &[u8] {
                &self.head.body
            }

            /// The content of the body for a reader of these media types (RFC 5621). The types are
            /// in lower case.
            pub fn content(&self, types: &[&str]) -> Content<'_> {
                body::read(&self.head.fields, &self.head.body, types, self.strictness())
            }

            /// The session description in the body, alone or beside other parts.
            pub fn description(&self) -> Option<Vec<u8>> {
                self.content(&[SDP]).into_part().map(|part| part.bytes.into_owned())
            }
        }
    };
}

head_accessors!(Request);
head_accessors!(Response);

/// A request that cannot be read, reduced to what a response needs: the raw values of the header
/// fields that a response copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stub {
    fields: Fields,
}

impl Stub {
    /// Keeps the values of `fields` that a response needs; `None` when there is no Via, and so no
    /// path back.
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

    /// The topmost Via, if it can be read.
    pub fn top_via(&self) -> Option<Via> {
        // The topmost Via is kept first.
        self.fields.iter().next().and_then(|(_, value)| value.parse().ok())
    }

    /// Notes the source of the request in its topmost Via, if that can be read (RFC 3261 §18.2.1).
    pub fn set_received(&mut self, ip: IpAddr, port: u16) {
        let mut noted = Fields::default();
        for (at, (name, value)) in self.fields.iter().enumerate() {
            // The topmost Via is kept first.
            match value.parse::<Via>() {
                Ok(mut via) if at == 0 => {
                    via.set_received(ip, port);
                    noted.push(name, &via.to_string());
                }
                _ => noted.push(name, value),
            }
        }
        self.fields = noted;
    }

    /// The value of From, To, Call-ID or CSeq, if the request has it. It may be malformed.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields.first(name)
    }
}
