//! Our view of a request or response, and the builders that print ours.
//!
//! In: what `wire` has cut out of a datagram. Out: accessors that cannot fail, because everything
//! that a transaction needs is read at construction. What we send is made of rsip's header types
//! and printed by rsip; what rsip cannot hold (an unknown method, a `tel:` or IPv6 request URI) is
//! printed here.

use std::{fmt, net::IpAddr};

use rsip::{
    Header, Headers, StatusCode, Version,
    headers::{self, UntypedHeader},
};

use super::uri::{BadSyntax, Uri, split_list};
pub use super::uri::{NameAddr, Via};

/// A message of either kind.
#[derive(Debug, Clone)]
pub enum Message {
    /// A request.
    Request(Request),
    /// A response.
    Response(Response),
}

/// A method. Names are case-sensitive (RFC 3261 section 7.1).
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // Each is the method of its name.
pub enum Method {
    Invite,
    Ack,
    Bye,
    Cancel,
    Options,
    Info,
    Update,
    Prack,
    Register,
    Refer,
    Notify,
    Subscribe,
    Message,
    Publish,
    Other(String),
}

const METHODS: [(Method, &str); 14] = [
    (Method::Invite, "INVITE"),
    (Method::Ack, "ACK"),
    (Method::Bye, "BYE"),
    (Method::Cancel, "CANCEL"),
    (Method::Options, "OPTIONS"),
    (Method::Info, "INFO"),
    (Method::Update, "UPDATE"),
    (Method::Prack, "PRACK"),
    (Method::Register, "REGISTER"),
    (Method::Refer, "REFER"),
    (Method::Notify, "NOTIFY"),
    (Method::Subscribe, "SUBSCRIBE"),
    (Method::Message, "MESSAGE"),
    (Method::Publish, "PUBLISH"),
];

impl From<&str> for Method {
    fn from(name: &str) -> Self {
        let known = METHODS.iter().find(|(_, known)| *known == name);
        known.map_or_else(|| Self::Other(name.to_owned()), |(method, _)| method.clone())
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Other(name) = self {
            return f.write_str(name);
        }
        let known = METHODS.iter().find(|(method, _)| method == self);
        f.write_str(known.map_or("", |(_, name)| name))
    }
}

/// The CSeq header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CSeq {
    /// Below 2^31 (RFC 3261 section 8.1.1.5).
    pub number: u32,
    /// The method of the request.
    pub method: Method,
}

/// A header field: its full name and its value, unfolded.
pub type Field = (String, String);

/// Why a message cannot be understood. The sentence becomes the reason phrase of the 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// A header field that every message needs is not there.
    #[error("Missing {0}")]
    Missing(&'static str),
    /// A header field that must stand alone is there more than once.
    #[error("Duplicate {0}")]
    Duplicate(&'static str),
    /// A header field cannot be read.
    #[error("Unreadable {0}")]
    Unreadable(&'static str),
}

/// What both kinds of message have.
#[derive(Debug, Clone)]
struct Head {
    fields: Vec<Field>,
    vias: Vec<Via>,
    from: NameAddr,
    to: NameAddr,
    call_id: String,
    cseq: CSeq,
}

/// A request that a transaction can work with.
#[derive(Debug, Clone)]
pub struct Request {
    method: Method,
    uri: Uri,
    head: Head,
    max_forwards: Option<u8>,
    contacts: Vec<NameAddr>,
    record_routes: Vec<NameAddr>,
    routes: Vec<NameAddr>,
    body: Vec<u8>,
}

/// A response that a transaction can work with.
#[derive(Debug, Clone)]
pub struct Response {
    status: u16,
    head: Head,
    body: Vec<u8>,
}

impl Request {
    /// A request of its parts.
    ///
    /// # Errors
    /// What of it cannot be understood.
    pub fn new(
        method: Method,
        uri: Uri,
        fields: Vec<Field>,
        body: Vec<u8>,
    ) -> Result<Self, BadMessage> {
        let head = Head::read(fields)?;
        let max_forwards = match head.single("Max-Forwards")? {
            None => None,
            Some(text) => {
                let number: u32 =
                    text.parse().map_err(|_| BadMessage::Unreadable("Max-Forwards"))?;
                // Only 0 decides anything; more than 255 is no request that loops.
                Some(u8::try_from(number).unwrap_or(u8::MAX))
            }
        };
        Ok(Self {
            contacts: match head.header("Contact") {
                // RFC 3261 section 20.10: only REGISTER may say so.
                Some("*") => Vec::new(),
                _ => head.parties("Contact")?,
            },
            record_routes: head.parties("Record-Route")?,
            routes: head.parties("Route")?,
            max_forwards,
            method,
            uri,
            head,
            body,
        })
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The Request-URI.
    pub fn uri(&self) -> &Uri {
        &self.uri
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

    /// The CSeq.
    pub fn cseq(&self) -> &CSeq {
        &self.head.cseq
    }

    /// All Vias, the topmost first; never empty.
    pub fn vias(&self) -> &[Via] {
        &self.head.vias
    }

    /// The topmost Via: of the one who sent us the request.
    pub fn top_via(&self) -> &Via {
        &self.head.vias[0]
    }

    /// Notes in the topmost Via where the request came from (RFC 3261 section 18.2.1, RFC 3581).
    pub fn set_received(&mut self, ip: IpAddr, port: u16) {
        self.head.vias[0].set_received(ip, port);
    }

    /// Max-Forwards; `None` if it is not there, 255 if it is larger.
    pub fn max_forwards(&self) -> Option<u8> {
        self.max_forwards
    }

    /// The Contacts.
    pub fn contacts(&self) -> &[NameAddr] {
        &self.contacts
    }

    /// The Record-Routes, in order.
    pub fn record_routes(&self) -> &[NameAddr] {
        &self.record_routes
    }

    /// The Routes, in order.
    pub fn routes(&self) -> &[NameAddr] {
        &self.routes
    }

    /// The first header field of this full name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// All header fields of this full name, in any case.
    pub fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.head.headers(name)
    }

    /// The option tags of Require.
    pub fn require(&self) -> Vec<&str> {
        self.head.headers("Require").flat_map(split_list).collect()
    }

    /// The media type of the body, without its parameters.
    pub fn content_type(&self) -> Option<&str> {
        let value = self.header("Content-Type")?;
        Some(value.split(';').next().unwrap_or(value).trim())
    }

    /// The body, as long as Content-Length says.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl Response {
    /// A response of its parts.
    ///
    /// # Errors
    /// What of it cannot be understood.
    pub fn new(status: u16, fields: Vec<Field>, body: Vec<u8>) -> Result<Self, BadMessage> {
        Ok(Self { status, head: Head::read(fields)?, body })
    }

    /// The status code, 100 to 699.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// All Vias, the topmost first; never empty.
    pub fn vias(&self) -> &[Via] {
        &self.head.vias
    }

    /// The CSeq: which request is answered.
    pub fn cseq(&self) -> &CSeq {
        &self.head.cseq
    }

    /// The To header field.
    pub fn to(&self) -> &NameAddr {
        &self.head.to
    }

    /// The first header field of this full name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl Head {
    fn read(fields: Vec<Field>) -> Result<Self, BadMessage> {
        let all = |name| fields_of(&fields, name);
        let vias = all("Via")
            .flat_map(split_list)
            .map(Via::parse)
            .collect::<Result<Vec<_>, BadSyntax>>()
            .map_err(|_| BadMessage::Unreadable("Via"))?;
        if vias.is_empty() {
            return Err(BadMessage::Missing("Via"));
        }
        let party = |name| {
            NameAddr::parse(needed(&fields, name)?).map_err(|_| BadMessage::Unreadable(name))
        };
        let from = party("From")?;
        let to = party("To")?;
        let call_id = needed(&fields, "Call-ID")?.to_owned();
        if call_id.is_empty() || call_id.contains(char::is_whitespace) {
            return Err(BadMessage::Unreadable("Call-ID"));
        }
        let cseq = needed(&fields, "CSeq")?;
        let cseq = read_cseq(cseq).ok_or(BadMessage::Unreadable("CSeq"))?;
        for name in ["Content-Length", "Content-Type"] {
            if all(name).count() > 1 {
                return Err(BadMessage::Duplicate(name));
            }
        }
        Ok(Self { vias, from, to, call_id, cseq, fields })
    }

    fn header(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn headers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        fields_of(&self.fields, name)
    }

    fn single(&self, name: &'static str) -> Result<Option<&str>, BadMessage> {
        single(&self.fields, name)
    }

    fn parties(&self, name: &'static str) -> Result<Vec<NameAddr>, BadMessage> {
        let items = self.headers(name).flat_map(split_list);
        items
            .map(NameAddr::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| BadMessage::Unreadable(name))
    }
}

fn fields_of<'a>(fields: &'a [Field], name: &'a str) -> impl Iterator<Item = &'a str> {
    fields
        .iter()
        .filter(move |(known, _)| known.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// A header field that may be there once.
fn single<'a>(fields: &'a [Field], name: &'static str) -> Result<Option<&'a str>, BadMessage> {
    let mut all = fields_of(fields, name);
    let first = all.next();
    if all.next().is_some() {
        return Err(BadMessage::Duplicate(name));
    }
    Ok(first)
}

fn needed<'a>(fields: &'a [Field], name: &'static str) -> Result<&'a str, BadMessage> {
    single(fields, name)?.ok_or(BadMessage::Missing(name))
}

fn read_cseq(text: &str) -> Option<CSeq> {
    let mut words = text.split_ascii_whitespace();
    let number = words.next().filter(|word| word.bytes().all(|b| b.is_ascii_digit()))?;
    let number: u32 = number.parse().ok().filter(|number| *number < 1 << 31)?;
    let method = Method::from(words.next()?);
    words.next().is_none().then_some(CSeq { number, method })
}

/// Makes a response to a request.
#[derive(Debug)]
pub struct ResponseBuilder {
    status: u16,
    reason: String,
    to: NameAddr,
    headers: Headers,
    body: Vec<u8>,
}

impl ResponseBuilder {
    /// A response with what RFC 3261 section 8.2.6.2 has it repeat: Vias, From, To, Call-ID, CSeq;
    /// and the Record-Routes of a request that makes a dialog (section 12.1.1).
    pub fn to(request: &Request, status: u16, reason: &str) -> Self {
        let mut headers = Headers::default();
        for via in request.vias() {
            headers.push(headers::Via::new(via.to_string()).into());
        }
        headers.push(headers::From::new(request.from().to_string()).into());
        headers.push(headers::CallId::new(request.call_id()).into());
        let cseq = request.cseq();
        headers.push(headers::CSeq::new(format!("{} {}", cseq.number, cseq.method)).into());
        if matches!(request.method(), Method::Invite | Method::Subscribe | Method::Refer)
            && (101..300).contains(&status)
        {
            for route in request.record_routes() {
                headers.push(headers::RecordRoute::new(route.to_string()).into());
            }
        }
        Self {
            status,
            reason: one_line(reason),
            to: request.to().clone(),
            headers,
            body: Vec::new(),
        }
    }

    /// The tag of our side, unless the request has one or this one is empty.
    pub fn to_tag(mut self, tag: &str) -> Self {
        if self.to.tag().is_none() && !tag.is_empty() {
            self.to = self.to.with_tag(&one_line(tag));
        }
        self
    }

    /// Where later requests of the dialog reach us.
    pub fn contact(mut self, uri: &str) -> Self {
        self.headers.push(headers::Contact::new(format!("<{}>", one_line(uri))).into());
        self
    }

    /// One more header field. Line ends in its name or value become blanks.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(Header::Other(one_line(name), one_line(value)));
        self
    }

    /// The body.
    pub fn body(mut self, content_type: &str, body: &[u8]) -> Self {
        self.headers.push(headers::ContentType::new(one_line(content_type)).into());
        self.body = body.to_vec();
        self
    }

    /// The bytes.
    pub fn build(mut self) -> Vec<u8> {
        self.headers.push(headers::To::new(self.to.to_string()).into());
        let length = self.body.len().to_string();
        self.headers.push(headers::ContentLength::new(length).into());
        let head = rsip::Response {
            status_code: StatusCode::Other(self.status, self.reason),
            version: Version::V2,
            headers: self.headers,
            body: Vec::new(),
        };
        with_body(head.to_string(), self.body)
    }
}

/// Makes a request.
#[derive(Debug)]
pub struct RequestBuilder {
    method: Method,
    uri: Uri,
    headers: Headers,
    body: Vec<u8>,
}

impl RequestBuilder {
    /// A request without header fields.
    pub fn new(method: Method, uri: Uri) -> Self {
        Self { method, uri, headers: Headers::default(), body: Vec::new() }
    }

    /// Our Via: transport, sent-by and branch; asks for the port we seem to have (RFC 3581).
    pub fn via(mut self, transport: &str, sent_by: &str, branch: &str) -> Self {
        let via = format!("SIP/2.0/{transport} {sent_by};branch={branch};rport");
        self.headers.push(headers::Via::new(one_line(&via)).into());
        self
    }

    /// Who asks.
    pub fn from(mut self, party: &NameAddr) -> Self {
        self.headers.push(headers::From::new(one_line(&party.to_string())).into());
        self
    }

    /// Who is asked.
    pub fn to(mut self, party: &NameAddr) -> Self {
        self.headers.push(headers::To::new(one_line(&party.to_string())).into());
        self
    }

    /// One more stop on the way.
    pub fn route(mut self, party: &NameAddr) -> Self {
        self.headers.push(headers::Route::new(one_line(&party.to_string())).into());
        self
    }

    /// The Call-ID.
    pub fn call_id(mut self, call_id: &str) -> Self {
        self.headers.push(headers::CallId::new(one_line(call_id)).into());
        self
    }

    /// The number of the request; its method is known.
    pub fn cseq(mut self, number: u32) -> Self {
        self.headers.push(headers::CSeq::new(format!("{number} {}", self.method)).into());
        self
    }

    /// How many proxies may pass it on.
    pub fn max_forwards(mut self, number: u8) -> Self {
        self.headers.push(headers::MaxForwards::new(number.to_string()).into());
        self
    }

    /// One more header field. Line ends in its name or value become blanks.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push(Header::Other(one_line(name), one_line(value)));
        self
    }

    /// The body.
    pub fn body(mut self, content_type: &str, body: &[u8]) -> Self {
        self.headers.push(headers::ContentType::new(one_line(content_type)).into());
        self.body = body.to_vec();
        self
    }

    /// The bytes.
    pub fn build(mut self) -> Vec<u8> {
        let length = self.body.len().to_string();
        self.headers.push(headers::ContentLength::new(length).into());
        let head = format!("{} {} SIP/2.0\r\n{}\r\n", self.method, self.uri, self.headers);
        with_body(head, self.body)
    }
}

/// The usual words for a status (RFC 3261 section 21).
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Request Entity Too Large",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        491 => "Request Pending",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "Version Not Supported",
        _ => match status / 100 {
            1 => "Progress",
            2 => "OK",
            3 => "Redirect",
            4 => "Client Error",
            5 => "Server Error",
            _ => "Global Failure",
        },
    }
}

/// What would begin a new line, or end the text, becomes a blank.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect()
}

fn with_body(head: String, body: Vec<u8>) -> Vec<u8> {
    let mut bytes = head.into_bytes();
    bytes.extend(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sip::wire::parse_datagram;

    const INVITE: &str = "INVITE sip:bob@example.com SIP/2.0\r\n\
        Via: SIP/2.0/UDP a.example;branch=z9hG4bKa, SIP/2.0/UDP b.example:5070;branch=z9hG4bKb\r\n\
        From: A <sip:a@a.example>;tag=1\r\nTo: <sip:bob@example.com>\r\n\
        Call-ID: x@a\r\nCSeq: 7 INVITE\r\nMax-Forwards: 70\r\n\
        Record-Route: <sip:p1;lr>, <sip:p2;lr>\r\nContact: <sip:a@192.0.2.1>\r\n\r\n";

    fn invite() -> Request {
        match parse_datagram(INVITE.as_bytes()).unwrap() {
            Message::Request(request) => request,
            Message::Response(_) => panic!("a request"),
        }
    }

    fn response(bytes: &[u8]) -> Response {
        match parse_datagram(bytes).unwrap() {
            Message::Response(response) => response,
            Message::Request(_) => panic!("a response"),
        }
    }

    #[test]
    fn a_response_repeats_what_it_must() {
        let mut request = invite();
        request.set_received("198.51.100.1".parse().unwrap(), 4000);
        let bytes = ResponseBuilder::to(&request, 200, "OK")
            .to_tag("mine")
            .contact("sip:aftertone@192.0.2.9:5060")
            .body("application/sdp", b"v=0\r\n")
            .build();
        let read = response(&bytes);
        assert_eq!(read.status(), 200);
        assert_eq!(read.vias().len(), 2);
        assert_eq!(read.vias()[0].param("received"), Some("198.51.100.1"));
        assert_eq!(read.to().tag(), Some("mine"));
        assert_eq!(read.cseq().number, 7);
        assert_eq!(read.body(), b"v=0\r\n");
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("SIP/2.0 200 OK\r\n"), "{text}");
        let p1 = text.find("<sip:p1;lr>").unwrap();
        assert!(p1 < text.find("<sip:p2;lr>").unwrap());
        assert!(text.contains("Content-Length: 5\r\n\r\nv=0"), "{text}");
    }

    #[test]
    fn a_refusal_makes_no_dialog_and_no_line_of_its_own() {
        let bytes = ResponseBuilder::to(&invite(), 488, "No\r\nEvil: 1")
            .header("Warning", "305 x \"y\"\r\nEvil: 2")
            .build();
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains("Record-Route"), "{text}");
        assert!(!text.contains("\nEvil"), "{text}");
    }

    #[test]
    fn a_built_request_reads_the_same() {
        let uri = Uri::parse("sip:a@[2001:db8::1]:5070").unwrap();
        let from = NameAddr::parse("<sip:me@h>;tag=f").unwrap();
        let to = NameAddr::parse("\"T\" <sip:you@h>;tag=t").unwrap();
        let bytes = RequestBuilder::new(Method::Bye, uri.clone())
            .via("UDP", "192.0.2.9:5060", "z9hG4bKq")
            .max_forwards(70)
            .from(&from)
            .to(&to)
            .call_id("x@a")
            .cseq(3)
            .header("Reason", "SIP;cause=200")
            .build();
        let Message::Request(read) = parse_datagram(&bytes).unwrap() else { panic!("a request") };
        assert_eq!((read.method(), read.uri()), (&Method::Bye, &uri));
        assert_eq!((read.from(), read.to()), (&from, &to));
        assert_eq!(read.header("reason"), Some("SIP;cause=200"));
        assert_eq!(read.max_forwards(), Some(70));
        assert!(read.top_via().has_rport());
    }

    #[test]
    fn methods_are_case_sensitive() {
        assert_eq!(Method::from("INVITE"), Method::Invite);
        assert_eq!(Method::from("invite"), Method::Other("invite".to_owned()));
        assert_eq!(Method::Other("invite".to_owned()).to_string(), "invite");
        assert_eq!(Method::Publish.to_string(), "PUBLISH");
    }
}
