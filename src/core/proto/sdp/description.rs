//! A session description: the lines that offer and answer are made of (RFC 8866).
//!
//! In: text, from anybody. Out: [`Description`], which prints itself back. Lines that matter to
//! nobody here are passed over; attributes stay text, so that one that cannot be read spoils
//! nothing else. Missing `s=` and `t=` lines, bare line feeds and host names are tolerated, because
//! old gateways send them.

use std::fmt;

/// Most bytes of a description that are read.
const MAX_BYTES: usize = 65_535;
/// Most media descriptions.
const MAX_MEDIA: usize = 64;
/// Most attributes of one description.
const MAX_ATTRIBUTES: usize = 2_048;

/// A whole description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The `o=` line without its letter: user, session id and version, network, family, address.
    /// Ids are text: the grammar allows more than 64 bits.
    pub origin: String,
    /// Address of the session's `c=` line, for media without one of their own.
    pub connection: Option<String>,
    /// Attributes of the session.
    pub attributes: Vec<Attribute>,
    /// The `m=` lines in order.
    pub media: Vec<Media>,
}

/// One `m=` line and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// `audio`, `video`, `image` and so on.
    pub kind: String,
    /// The port; 0 = not wanted.
    pub port: u16,
    /// The transport, such as `RTP/AVP`.
    pub protocol: String,
    /// Payload types, or what the transport has in their place.
    pub formats: Vec<String>,
    /// Address of the medium's own `c=` line.
    pub connection: Option<String>,
    /// Attributes of the medium.
    pub attributes: Vec<Attribute>,
}

/// An `a=` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// Before the colon.
    pub name: String,
    /// After the colon.
    pub value: Option<String>,
}

/// Why a text is not a session description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Larger than anybody's session.
    #[error("larger than {MAX_BYTES} bytes, {MAX_MEDIA} media or {MAX_ATTRIBUTES} attributes")]
    TooLarge,
    /// Not UTF-8.
    #[error("not UTF-8")]
    NotText,
    /// No `v=0` in the beginning.
    #[error("does not begin with v=0")]
    NoVersion,
    /// A line that is not `LETTER=TEXT`, or whose text is wrong.
    #[error("line {number} cannot be read")]
    BadLine {
        /// Counted from 1.
        number: usize,
    },
}

impl Description {
    /// Reads a description.
    ///
    /// # Errors
    /// What makes it unreadable, with the number of the line.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() > MAX_BYTES {
            return Err(ParseError::TooLarge);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| ParseError::NotText)?;
        let mut lines = text
            .split('\n')
            .map(|line| line.strip_suffix('\r').unwrap_or(line))
            .enumerate()
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.is_empty());
        match lines.next() {
            Some((_, line)) if line.trim_end() == "v=0" => {}
            _ => return Err(ParseError::NoVersion),
        }
        let mut description = Self {
            origin: String::new(),
            connection: None,
            attributes: Vec::new(),
            media: Vec::new(),
        };
        let mut attributes = 0;
        for (number, line) in lines {
            let bad = ParseError::BadLine { number };
            if line.contains(['\0', '\r']) {
                return Err(bad);
            }
            match line.split_once('=').ok_or(bad.clone())? {
                ("o", value) => description.origin = value.to_owned(),
                ("c", value) => {
                    let address = connection(value).ok_or(bad)?;
                    match description.media.last_mut() {
                        Some(media) => media.connection = Some(address),
                        None => description.connection = Some(address),
                    }
                }
                ("m", value) => {
                    if description.media.len() == MAX_MEDIA {
                        return Err(ParseError::TooLarge);
                    }
                    description.media.push(media(value).ok_or(bad)?);
                }
                ("a", value) => {
                    attributes += 1;
                    if attributes > MAX_ATTRIBUTES {
                        return Err(ParseError::TooLarge);
                    }
                    let attribute = Attribute::parse(value);
                    match description.media.last_mut() {
                        Some(media) => media.attributes.push(attribute),
                        None => description.attributes.push(attribute),
                    }
                }
                (letter, _) if letter.len() == 1 => {}
                _ => return Err(bad),
            }
        }
        Ok(description)
    }
}

impl Media {
    /// Values of the attributes of this name, in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.attributes
            .iter()
            .filter(move |attribute| attribute.name.eq_ignore_ascii_case(name))
            .filter_map(|attribute| attribute.value.as_deref())
    }
}

impl Attribute {
    /// An attribute with a value.
    pub fn valued(name: &str, value: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value: Some(value.into()) }
    }

    /// An attribute that is there or not.
    pub fn flag(name: &str) -> Self {
        Self { name: name.to_owned(), value: None }
    }

    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((name, value)) => Self::valued(name, value),
            None => Self::flag(text),
        }
    }
}

/// The address of `IN IP4 192.0.2.1/127`.
fn connection(value: &str) -> Option<String> {
    let mut words = value.split_ascii_whitespace();
    let (_network, _family, address) = (words.next()?, words.next()?, words.next()?);
    let address = address.split('/').next().filter(|address| !address.is_empty())?;
    Some(address.to_owned())
}

/// The parts of `audio 49170/2 RTP/AVP 0 8`.
fn media(value: &str) -> Option<Media> {
    let mut words = value.split_ascii_whitespace();
    let kind = words.next()?.to_owned();
    let port = words.next()?.split('/').next()?.parse().ok()?;
    let protocol = words.next()?.to_owned();
    let formats = words.map(str::to_owned).collect();
    Some(Media { kind, port, protocol, formats, connection: None, attributes: Vec::new() })
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v=0\r\no={}\r\ns=-\r\n", self.origin)?;
        if let Some(address) = &self.connection {
            write_connection(f, address)?;
        }
        f.write_str("t=0 0\r\n")?;
        for attribute in &self.attributes {
            write!(f, "{attribute}")?;
        }
        for media in &self.media {
            write!(f, "m={} {} {}", media.kind, media.port, media.protocol)?;
            for format in &media.formats {
                write!(f, " {format}")?;
            }
            f.write_str("\r\n")?;
            if let Some(address) = &media.connection {
                write_connection(f, address)?;
            }
            for attribute in &media.attributes {
                write!(f, "{attribute}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "a={}:{value}\r\n", self.name),
            None => write!(f, "a={}\r\n", self.name),
        }
    }
}

fn write_connection(f: &mut fmt::Formatter<'_>, address: &str) -> fmt::Result {
    let family = if address.contains(':') { "IP6" } else { "IP4" };
    write!(f, "c=IN {family} {address}\r\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PHONE: &str = "v=0\r\no=- 1 99999999999999999999999 IN IP4 192.0.2.1\r\ns=-\r\n\
        c=IN IP4 192.0.2.1\r\nt=0 0\r\na=sendonly\r\nm=audio 4000/2 RTP/AVP 0 101\r\n\
        b=AS:64\r\na=rtpmap:101 telephone-event/8000\r\nm=video 0 RTP/AVP 96\r\n";

    #[test]
    fn an_offer_of_a_phone_is_read() {
        let read = Description::parse(PHONE.as_bytes()).unwrap();
        assert_eq!(read.connection.as_deref(), Some("192.0.2.1"));
        assert_eq!(read.attributes, [Attribute::flag("sendonly")]);
        assert_eq!(read.media.len(), 2);
        assert_eq!((read.media[0].port, read.media[1].port), (4000, 0));
        assert_eq!(read.media[0].formats, ["0", "101"]);
        let mut maps = read.media[0].values("rtpmap");
        assert_eq!(maps.next(), Some("101 telephone-event/8000"));
        assert!(read.origin.contains("99999999999999999999999"));
    }

    #[test]
    fn what_old_gateways_leave_out_is_not_missed() {
        let text = "v=0\no=- 1 1 IN IP6 ::1\nc=IN IP6 ::1\nm=audio 4000 RTP/AVP 8\nx=odd\n";
        let read = Description::parse(text.as_bytes()).unwrap();
        assert_eq!(read.connection.as_deref(), Some("::1"));
    }

    #[test]
    fn what_is_no_description_is_refused_by_line() {
        for (text, error) in [
            (&b"\xff"[..], ParseError::NotText),
            (b"", ParseError::NoVersion),
            (b"v=1\r\n", ParseError::NoVersion),
            (b"v=0\r\nm=audio x RTP/AVP 0\r\n", ParseError::BadLine { number: 2 }),
            (b"v=0\r\nm=audio 99999 RTP/AVP 0\r\n", ParseError::BadLine { number: 2 }),
            (b"v=0\r\n\r\nc=IN\r\n", ParseError::BadLine { number: 3 }),
            (b"v=0\r\nhello\r\n", ParseError::BadLine { number: 2 }),
        ] {
            assert_eq!(Description::parse(text), Err(error), "{text:?}");
        }
        let many = format!("v=0\r\n{}", "m=audio 1 RTP/AVP 0\r\n".repeat(65));
        assert_eq!(Description::parse(many.as_bytes()), Err(ParseError::TooLarge));
    }

    proptest! {
        #[test]
        fn printing_and_reading_gives_the_same(
            port in any::<u16>(),
            formats in prop::collection::vec("[0-9]{1,3}", 1..6),
            names in prop::collection::vec(("[a-z]{1,8}", prop::option::of("[ -~&&[^:]]{1,20}")), 0..6),
            address in "[0-9a-f.:]{1,20}",
        ) {
            let attributes: Vec<_> =
                names.into_iter().map(|(name, value)| Attribute { name, value }).collect();
            let description = Description {
                origin: "- 1 1 IN IP4 192.0.2.1".to_owned(),
                connection: Some(address.clone()),
                attributes: attributes.clone(),
                media: vec![Media {
                    kind: "audio".to_owned(),
                    port,
                    protocol: "RTP/AVP".to_owned(),
                    formats,
                    connection: Some(address),
                    attributes,
                }],
            };
            let text = description.to_string();
            prop_assert_eq!(Description::parse(text.as_bytes()), Ok(description));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Description::parse(&bytes);
            let mut phone = PHONE.as_bytes().to_vec();
            for (index, byte) in bytes.iter().take(5).enumerate() {
                let at = (usize::from(*byte) * 7 + index * 31) % phone.len();
                phone[at] = *byte;
            }
            let _ = Description::parse(&phone);
        }
    }
}
