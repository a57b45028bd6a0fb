//! A session description: the lines that make up offers and answers (RFC 8866).
//!
//! In: bytes from the network. Out: [`Description`], which can be printed again. The parser is
//! tolerant, because phones and gateways write what the grammar forbids. Lines end with CRLF, LF or
//! CR; their types may be in upper case. Control characters, no-break spaces and byte order marks
//! count as blanks; blanks around a type, a name or a value are ignored. Bytes that are not UTF-8
//! are read as Latin-1. `s=` and `t=` may be missing. Only what every session depends on is
//! checked: `v=0` and each `m=` line. An unreadable `c=` line is noted: it matters only if it would
//! give the chosen audio line its address. Attributes stay text, so that an unreadable one has no
//! effect on the rest.

use std::fmt;

/// The maximum length of a description, in bytes.
const MAX_BYTES: usize = 65_535;
/// The maximum number of media descriptions.
const MAX_MEDIA: usize = 64;
/// The maximum number of attributes in a description.
const MAX_ATTRIBUTES: usize = 2_048;
/// The maximum length of a media type, a transport or a format, in bytes: our answer repeats them.
const MAX_TOKEN: usize = 64;

/// A whole session description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// The `o=` line without its letter: user, session id and version, network, family, address.
    /// The ids are text, because the grammar allows more than 64 bits.
    pub origin: String,
    /// The address of the session's `c=` line, for media without their own.
    pub connection: Option<String>,
    /// The number of the session's `c=` line, if it cannot be read.
    pub unreadable_connection: Option<usize>,
    /// The attributes of the session.
    pub attributes: Vec<Attribute>,
    /// The `m=` lines in order.
    pub media: Vec<Media>,
}

/// One `m=` line and the lines that belong to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// The media type: `audio`, `video`, `image` and so on.
    pub kind: String,
    /// The port; 0 means refused or not used.
    pub port: u16,
    /// The transport, such as `RTP/AVP`.
    pub protocol: String,
    /// The payload types, or what the transport uses in their place.
    pub formats: Vec<String>,
    /// The address of the medium's own `c=` line.
    pub connection: Option<String>,
    /// The number of the medium's own `c=` line, if it cannot be read.
    pub unreadable_connection: Option<usize>,
    /// The attributes of the medium.
    pub attributes: Vec<Attribute>,
}

/// An `a=` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribute {
    /// The part before the colon.
    pub name: String,
    /// The part after the colon, if there is one.
    pub value: Option<String>,
}

/// Why a text is not a session description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Larger than any session needs.
    #[error("larger than {MAX_BYTES} bytes, {MAX_MEDIA} media or {MAX_ATTRIBUTES} attributes")]
    TooLarge,
    /// The first line is not `v=0`.
    #[error("does not begin with v=0")]
    NoVersion,
    /// An unreadable `m=` line.
    #[error("line {number} cannot be read")]
    BadLine {
        /// The line number, from 1.
        number: usize,
    },
}

impl Description {
    /// Parses a description.
    ///
    /// # Errors
    /// The reason why it cannot be read, with the line number.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() > MAX_BYTES {
            return Err(ParseError::TooLarge);
        }
        let mut lines = lines(bytes);
        match lines.next() {
            Some((_, line)) if typed(&line) == Some(('v', "0")) => {}
            _ => return Err(ParseError::NoVersion),
        }
        let mut description = Self {
            origin: String::new(),
            connection: None,
            unreadable_connection: None,
            attributes: Vec::new(),
            media: Vec::new(),
        };
        let mut attributes = 0;
        for (number, line) in lines {
            let bad = ParseError::BadLine { number };
            match typed(&line) {
                Some(('o', value)) => description.origin = value.to_owned(),
                Some(('c', value)) => match (connection(value), description.media.last_mut()) {
                    (Some(address), Some(media)) => media.connection = Some(address),
                    (Some(address), None) => description.connection = Some(address),
                    (None, Some(media)) => media.unreadable_connection = Some(number),
                    (None, None) => description.unreadable_connection = Some(number),
                },
                Some(('m', value)) => {
                    if description.media.len() == MAX_MEDIA {
                        return Err(ParseError::TooLarge);
                    }
                    description.media.push(media(value).ok_or(bad)?);
                }
                Some(('a', value)) => {
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
                Some(_) | None => {}
            }
        }
        Ok(description)
    }

    /// The address of a medium: its own, or that of the session. `None` if there is none.
    ///
    /// # Errors
    /// The `c=` line that gives the address cannot be read.
    pub fn address_of<'a>(&'a self, media: &'a Media) -> Result<Option<&'a str>, ParseError> {
        let own = (media.connection.as_deref(), media.unreadable_connection);
        let of_session = (self.connection.as_deref(), self.unreadable_connection);
        for (address, unreadable) in [own, of_session] {
            match (address, unreadable) {
                (Some(address), _) => return Ok(Some(address)),
                (None, Some(number)) => return Err(ParseError::BadLine { number }),
                (None, None) => {}
            }
        }
        Ok(None)
    }
}

impl Media {
    /// Whether this is an audio line.
    pub fn is_audio(&self) -> bool {
        self.kind.eq_ignore_ascii_case("audio")
    }

    /// Whether there is an attribute with this name.
    pub fn has(&self, name: &str) -> bool {
        self.attributes.iter().any(|attribute| attribute.name.eq_ignore_ascii_case(name))
    }

    /// The values of the attributes with this name, in order.
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

    /// An attribute without a value.
    pub fn flag(name: &str) -> Self {
        Self { name: name.to_owned(), value: None }
    }

    fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some((name, value)) => Self::valued(trim(name), trim(value)),
            None => Self::flag(text),
        }
    }
}

/// The non-empty lines with their numbers, from 1.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, String)> {
    let numbered = bytes.split(|byte| *byte == b'\n').enumerate();
    numbered
        .flat_map(|(index, line)| {
            line.split(|byte| *byte == b'\r').map(move |line| (index + 1, line))
        })
        .map(|(number, line)| (number, decode(line)))
        .filter(|(_, line)| !trim(line).is_empty())
}

/// The text of UTF-8. Other bytes are read as Latin-1, in which old devices write no-break spaces.
fn decode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| char::from(*byte)));
    }
    text
}

/// The type, in lower case, and the value of a line; `None` if it has no type. RFC 8866 defines no
/// type in upper case, so an upper-case letter has no other meaning.
fn typed(line: &str) -> Option<(char, &str)> {
    let (letter, value) = line.split_once('=')?;
    let mut letters = trim(letter).chars();
    let letter = letters.next().filter(|_| letters.next().is_none())?;
    Some((letter.to_ascii_lowercase(), trim(value)))
}

/// The part of a line that tells no secret, if the line holds one: a key (`k=`, `a=crypto`,
/// `a=key-mgmt`) or the password of ICE. It is found in whatever form the parser would read it, and
/// in lines that are cut.
pub fn without_secret(line: &str) -> Option<&str> {
    const INLINE: &str = "inline:";
    if let Some(at) = line.to_ascii_lowercase().find(INLINE) {
        return Some(&line[..at + INLINE.len()]);
    }
    let (letter, value) = typed(line)?;
    let name = value.split_once(':').map_or(value, |(name, _)| trim(name));
    let is_secret = |secret: &&str| name.eq_ignore_ascii_case(secret);
    match letter {
        'k' => line.split_inclusive('=').next(),
        'a' if ["crypto", "key-mgmt", "ice-pwd"].iter().any(is_secret) => {
            line.split_inclusive(':').next()
        }
        _ => None,
    }
}

/// The words of a value.
pub(super) fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(is_blank).filter(|word| !word.is_empty())
}

/// The words of an `m=` line. Commas and semicolons separate words as well, because no part of the
/// line can contain them; blanks around a slash do not.
fn joined(value: &str) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    for word in value.split([',', ';']).flat_map(words) {
        match joined.last_mut() {
            Some(last) if last.ends_with('/') || word.starts_with('/') => last.push_str(word),
            Some(_) | None => joined.push(word.to_owned()),
        }
    }
    joined
}

/// The text without blanks at its ends.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(is_blank)
}

/// The grammar has single spaces only. Phones write tabs, and C strings that end with NUL. Texts
/// from editors and web pages have no-break spaces, zero-width characters and byte order marks.
fn is_blank(c: char) -> bool {
    let is_invisible = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}');
    c.is_control() || c.is_whitespace() || is_invisible
}

/// RFC 8866 section 9: a `token`, short enough for our answer to repeat it.
fn is_token(word: &str) -> bool {
    let is_short = (1..=MAX_TOKEN).contains(&word.len());
    is_short
        && word.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]".contains(&byte))
}

/// The address in the value of a `c=` line, such as `IN IP4 192.0.2.1/127`.
fn connection(value: &str) -> Option<String> {
    let mut words = words(value);
    let (_network, _family, address) = (words.next()?, words.next()?, words.next()?);
    let address = address.split('/').next()?.trim_matches(['[', ']']);
    (!address.is_empty()).then(|| address.to_owned())
}

/// The parts of an `m=` line, such as `audio 49170/2 RTP/AVP 0 8`. Formats that are not tokens are
/// left out.
fn media(value: &str) -> Option<Media> {
    let mut words = joined(value).into_iter();
    let kind = words.next().filter(|kind| is_token(kind))?;
    let port = words.next()?.split('/').next()?.parse().ok()?;
    let is_protocol = |word: &String| word.len() <= MAX_TOKEN && word.split('/').all(is_token);
    let protocol = words.next().filter(is_protocol)?;
    let formats = words.filter(|format| is_token(format)).collect();
    Some(Media {
        kind,
        port,
        protocol,
        formats,
        connection: None,
        unreadable_connection: None,
        attributes: Vec::new(),
    })
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
    fn blanks_and_line_ends_count_for_nothing() {
        let text = PHONE.replace("a=sendonly", " a =\tsendonly \0").replace("m=", "m= ");
        let text = text
            .replace("RTP/AVP ", "RTP / AVP\t ")
            .replace("4000/2", "4000 / 2")
            .replace("rtpmap:101 ", "rtpmap : 101 ");
        for end in ["\n", "\r", "\r\r\n", " \r\n\r\n"] {
            let read = Description::parse(text.replace("\r\n", end).as_bytes());
            assert_eq!(read, Description::parse(PHONE.as_bytes()), "{end:?}");
        }
    }

    #[test]
    fn what_no_session_depends_on_is_not_judged() {
        let read = Description::parse(PHONE.as_bytes()).unwrap();
        for line in [
            &b"s=caf\xe9\r\n"[..],
            b"i=a\0b\xff\r\n",
            b"hello\r\n",
            b"x-long=y\r\n",
            b"\xe9\xe8\r\n",
            b"=\r\n",
            b"k=\r\nz=\r\nr=7d\r\n",
        ] {
            let before = b"m=video".to_vec();
            let text = PHONE.as_bytes();
            let at = text.windows(before.len()).position(|window| window == before).unwrap();
            let changed = [&text[..at], line, &text[at..]].concat();
            assert_eq!(Description::parse(&changed).as_ref(), Ok(&read), "{line:?}");
        }
    }

    #[test]
    fn an_unreadable_address_matters_only_to_the_lines_that_use_it() {
        let bad = |number| Err(ParseError::BadLine { number });
        let good = Ok(Some("192.0.2.1".to_owned()));
        for (text, addresses) in [
            (
                "v=0\nc=IN\nm=audio 1 RTP/AVP 0\nc=IN IP4 192.0.2.1\nm=video 1 RTP/AVP 96\n",
                [good.clone(), bad(2)],
            ),
            (
                "v=0\nc=IN IP4 192.0.2.1\nm=audio 0 RTP/SAVP 0\nc=IN\nm=audio 1 RTP/AVP 0\n",
                [bad(4), good.clone()],
            ),
            (
                "v=0\nc=IN\nc=IN IP4 192.0.2.1\nm=audio 1 RTP/AVP 0\nm=audio 1 RTP/AVP 0\n",
                [good.clone(), good.clone()],
            ),
            (
                "v=0\nm=audio 1 RTP/AVP 0\nc=IN IP4 /3\nc=IN IP4 192.0.2.1\nm=text 1 RTP/AVP 9\n",
                [good, Ok(None)],
            ),
        ] {
            let read = Description::parse(text.as_bytes()).unwrap();
            let address = |at: usize| {
                read.address_of(&read.media[at]).map(|address| address.map(ToOwned::to_owned))
            };
            assert_eq!([address(0), address(1)], addresses, "{text}");
        }
    }

    #[test]
    fn blanks_of_other_alphabets_and_upper_case_types_are_read() {
        let read = Description::parse(PHONE.as_bytes());
        for blank in [
            &b"\xa0"[..],
            b"\xc2\xa0",
            b"\xc2\x85",
            b"\x85",
            b"\xef\xbb\xbf",
            b"\xe2\x80\x8b",
            b"\xe2\x80\x83 ",
            b"\xe3\x80\x80",
        ] {
            let mut text = blank.to_vec();
            for line in PHONE.lines() {
                text.extend([line.as_bytes(), blank, b"\r\n"].concat());
            }
            assert_eq!(Description::parse(&text), read, "{blank:?}");
        }
        let upper: String = PHONE
            .lines()
            .map(|line| format!("{}{}\r\n", line[..1].to_ascii_uppercase(), &line[1..]))
            .collect();
        assert_eq!(Description::parse(upper.as_bytes()), read);
    }

    #[test]
    fn formats_may_be_separated_by_commas() {
        for formats in ["0, 8, 101", "0,8,101", "0 ,8 , 101,", "0; 8; 101;", "0 8 101"] {
            let text = format!("v=0\r\nm=audio 5000 RTP/AVP {formats}\r\n");
            let read = Description::parse(text.as_bytes()).unwrap();
            assert_eq!(read.media[0].formats, ["0", "8", "101"], "{formats}");
        }
    }

    #[test]
    fn what_is_no_description_is_refused_by_line() {
        let long = format!("v=0\r\nm={} 1 RTP/AVP 0\r\n", "x".repeat(MAX_TOKEN + 1));
        for (text, error) in [
            (&b"\xff"[..], ParseError::NoVersion),
            (b"", ParseError::NoVersion),
            (b"v=1\r\n", ParseError::NoVersion),
            (b"hello\r\n", ParseError::NoVersion),
            (b"v=0\r\nm=audio x RTP/AVP 0\r\n", ParseError::BadLine { number: 2 }),
            (b"v=0\r\nm=audio 99999 RTP/AVP 0\r\n", ParseError::BadLine { number: 2 }),
            (b"v=0\r\nm=audio 4000\r\n", ParseError::BadLine { number: 2 }),
            (b"v=0\r\nm=vid\xe9o 4000 RTP/AVP 0\r\n", ParseError::BadLine { number: 2 }),
            (b"v=0\r\nm=video 4000 RTP//AVP 0\r\n", ParseError::BadLine { number: 2 }),
            (long.as_bytes(), ParseError::BadLine { number: 2 }),
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
            names in prop::collection::vec(("[a-z]{1,8}", prop::option::of("[!-~]([ -~]{0,20}[!-~])?")), 0..6),
            address in "[0-9a-f.:]{1,20}",
        ) {
            let attributes: Vec<_> =
                names.into_iter().map(|(name, value)| Attribute { name, value }).collect();
            let description = Description {
                origin: "- 1 1 IN IP4 192.0.2.1".to_owned(),
                connection: Some(address.clone()),
                unreadable_connection: None,
                attributes: attributes.clone(),
                media: vec![Media {
                    kind: "audio".to_owned(),
                    port,
                    protocol: "RTP/AVP".to_owned(),
                    formats,
                    connection: Some(address),
                    unreadable_connection: None,
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
