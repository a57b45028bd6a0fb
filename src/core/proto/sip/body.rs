//! Message bodies (RFC 5621): selects the part of a body that its reader uses.
//!
//! Comes in: the header fields and the body of a message, and the media types that the reader
//! understands. Goes out: the parts of such types, and whether the body holds anything that is
//! neither understood nor optional; a request is refused for that (RFC 3261 §8.2.3). Responses and
//! ACKs cannot be refused: their part is used whatever else the body holds, and whatever header
//! fields of the body cannot be read.
//!
//! Multipart sets are cut by RFC 2046 §5.1. Each level is read line by line, once; [`MAX_DEPTH`]
//! and [`MAX_PARTS`] limit the work that a body can cause.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    fields::Fields,
    lines::{Lines, parse_header_line},
    uri::{is_token, parse_quoted, split_top_level},
};

/// The media type of session descriptions.
pub const SDP: &str = "application/sdp";

/// Most parts of a body, counted over all levels.
pub const MAX_PARTS: usize = 64;
/// Most multipart sets nested in each other.
pub const MAX_DEPTH: usize = 4;

/// The content of a body, for its reader.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content<'a> {
    /// The parts of types that the reader understands, in their order.
    pub parts: Vec<Part<'a>>,
    /// Something in the body is neither understood nor optional: a request is refused for it.
    pub refused: Option<Unsupported>,
    /// A part that the reader understands, or a set that may hold one, cannot be read. This is
    /// given even if the part is optional: a reader that reports what it has read has to know.
    pub unread: Option<Unsupported>,
    /// Like `refused`, but only for what says `handling=required` itself.
    insisted: Option<Unsupported>,
}

impl<'a> Content<'a> {
    /// The part for a reader that wants only one: the first one of the usual disposition,
    /// otherwise the first one.
    pub fn into_part(mut self) -> Option<Part<'a>> {
        let usual = self.parts.iter().position(|part| part.has_usual_disposition);
        let best = usual.unwrap_or_default();
        (best < self.parts.len()).then(|| self.parts.swap_remove(best))
    }
}

/// How the header fields of a body are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strictness {
    /// In a request: it is refused, so that its sender can correct it.
    Strict,
    /// In a response or an ACK, which cannot be refused: its sender would go on waiting. What
    /// cannot be read is left out, and the body itself shows whether it is a description.
    Lenient,
}

/// A body, or a part of one, that its reader understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'a> {
    /// In lower case, without parameters.
    pub media_type: String,
    /// Its bytes, without any transfer encoding.
    pub bytes: Cow<'a, [u8]>,
    /// Its disposition is the usual one of its type.
    has_usual_disposition: bool,
}

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsupported {
    /// A media type, or the disposition of a description, is not understood.
    Type,
    /// A part is compressed, or its transfer encoding cannot be undone.
    Encoding,
    /// There are more than [`MAX_PARTS`].
    TooManyParts,
}

/// Reads the body of a message with the header `fields`, for a reader that understands `types`,
/// which are in lower case.
pub(super) fn read<'a>(
    fields: &Fields,
    body: &'a [u8],
    types: &[&str],
    strictness: Strictness,
) -> Content<'a> {
    // SIP has no Content-Transfer-Encoding (RFC 3261 §20): outside of a set, bodies are binary.
    let entity = Entity { transfer: TransferEncoding::Identity, ..Entity::of(fields) };
    Reader { types, strictness, parts_left: MAX_PARTS }.read(&entity, body, 0)
}

/// A media type, or a media range, in lower case and without parameters. Blanks may stand around
/// its slash (RFC 3261 §25.1).
pub(super) fn media_type(value: &str) -> String {
    let whole = before_parameters(value);
    match whole.split_once('/') {
        Some((kind, subtype)) => format!("{}/{}", kind.trim_end(), subtype.trim_start()),
        None => whole,
    }
}

/// Whether a Content-Type names a media type.
fn is_media_type(value: &str) -> bool {
    media_type(value).split_once('/').is_some_and(|(kind, sub)| is_token(kind) && is_token(sub))
}

/// Whether a body is a session description by its first line (RFC 8866 §5.1).
fn begins_as_description(bytes: &[u8]) -> bool {
    bytes.trim_ascii_start().starts_with(b"v=0")
}

/// The header fields of a message, or of a part, that describe its body.
#[derive(Debug)]
struct Entity {
    /// In lower case; empty without Content-Type.
    media_type: String,
    /// `media_type` is one.
    has_media_type: bool,
    /// The boundary of a multipart set.
    boundary: Option<String>,
    /// The Content-ID of the root of a multipart/related.
    start: Option<String>,
    /// In lower case; empty without Content-Disposition.
    disposition: String,
    handling: Handling,
    compression: Compression,
    transfer: TransferEncoding,
    id: Option<String>,
    /// There are no header fields.
    is_bare: bool,
}

/// The `handling` parameter of Content-Disposition (RFC 3204 §6, RFC 3261 §20.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handling {
    Optional,
    Required,
    Unsaid,
}

/// Content-Encoding (RFC 3261 §20.12).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compression {
    /// No encoding, or `identity`.
    None,
    /// One of [`COMPRESSIONS`].
    Known,
    /// Anything else.
    Unknown,
}

/// The compressions of the registry of HTTP content codings.
const COMPRESSIONS: [&str; 7] =
    ["gzip", "x-gzip", "compress", "x-compress", "deflate", "br", "zstd"];

/// Content-Transfer-Encoding (RFC 2045 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TransferEncoding {
    Identity,
    Base64,
    QuotedPrintable,
    Unknown,
}

impl Entity {
    fn of(fields: &Fields) -> Self {
        let types = || fields.all("Content-Type").filter(|value| !value.is_empty());
        let content_type = types().find(|value| is_media_type(value)).or_else(|| types().next());
        let content_type = content_type.unwrap_or_default();
        let disposition = fields.first("Content-Disposition").unwrap_or_default();
        let handling = parameter(disposition, "handling").map(|value| value.to_ascii_lowercase());
        let encodings = fields.all("Content-Encoding").flat_map(|value| value.split(','));
        let compressions = encodings.map(|name| match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Compression::None,
            name if COMPRESSIONS.contains(&name) => Compression::Known,
            _ => Compression::Unknown,
        });
        let transfer = fields.first("Content-Transfer-Encoding").unwrap_or_default();
        Self {
            media_type: media_type(content_type),
            has_media_type: is_media_type(content_type),
            boundary: parameter(content_type, "boundary").filter(|value| !value.is_empty()),
            start: parameter(content_type, "start"),
            disposition: before_parameters(disposition),
            handling: match handling.as_deref() {
                Some("optional") => Handling::Optional,
                Some(_) => Handling::Required,
                None => Handling::Unsaid,
            },
            compression: compressions.fold(Compression::None, |before, next| match before {
                Compression::None => next,
                Compression::Unknown if next == Compression::Known => next,
                Compression::Known | Compression::Unknown => before,
            }),
            transfer: match before_parameters(transfer).as_str() {
                "" | "binary" | "8bit" | "7bit" => TransferEncoding::Identity,
                "base64" => TransferEncoding::Base64,
                "quoted-printable" => TransferEncoding::QuotedPrintable,
                _ => TransferEncoding::Unknown,
            },
            id: fields.first("Content-ID").map(str::to_owned),
            is_bare: fields.iter().next().is_none(),
        }
    }

    /// Whether the body may be ignored. Without a `handling` parameter it may not (RFC 3261
    /// §20.11), except for these:
    /// - a body that header fields or other parts refer to has no effect except through them
    ///   (RFC 5621 §9): one of disposition `by-reference`, or one that has an id and no
    ///   disposition, as gateways send the location of a caller (RFC 6442);
    /// - the description of an early session is for peers that have said that they know such
    ///   sessions (RFC 3959 §5);
    /// - the metadata of a recording session describe another call; a recorder that needs them is
    ///   asked for by the option tag `siprec` (RFC 7866 §6.1.2, §9.1);
    /// - a part without any header field does not ask for anything.
    fn is_optional(&self) -> bool {
        match self.handling {
            Handling::Optional => true,
            Handling::Required => false,
            Handling::Unsaid => match self.disposition.as_str() {
                "by-reference" | "recording-session" | EARLY_SESSION => true,
                "" => self.id.is_some() || self.is_bare,
                _ => false,
            },
        }
    }
}

/// Disposition of a description that is not that of the session (RFC 3959).
const EARLY_SESSION: &str = "early-session";
/// Disposition of a description that names none (RFC 3261 §20.11).
const SESSION: &str = "session";

/// Reads the parts of one body.
struct Reader<'t> {
    types: &'t [&'t str],
    strictness: Strictness,
    /// How many more parts may be read.
    parts_left: usize,
}

impl Reader<'_> {
    fn read<'a>(&mut self, entity: &Entity, bytes: &'a [u8], depth: usize) -> Content<'a> {
        let content = self.read_required(entity, bytes, depth);
        match entity.handling {
            _ if entity.is_optional() => Content { refused: None, insisted: None, ..content },
            Handling::Required => {
                Content { insisted: content.insisted.or(content.refused), ..content }
            }
            Handling::Optional | Handling::Unsaid => content,
        }
    }

    fn read_required<'a>(&mut self, entity: &Entity, bytes: &'a [u8], depth: usize) -> Content<'a> {
        let media_type = if self.is_description_by_its_bytes(entity, bytes, depth) {
            SDP
        } else {
            entity.media_type.as_str()
        };
        let is_description = media_type == SDP && self.types.contains(&SDP);
        let is_early_session = is_description && entity.disposition == EARLY_SESSION;
        let is_known = self.types.contains(&media_type) && !is_early_session;
        let is_blank = if is_description {
            // Some peers send an empty line in place of no description.
            bytes.trim_ascii().is_empty()
        } else {
            // What is empty does not have to be understood; where it is, its reader judges it.
            bytes.is_empty() && !is_known
        };
        if is_blank {
            return Content::default();
        }
        let is_set = media_type.starts_with("multipart/");
        if !is_known && !is_set {
            return refused(Unsupported::Type);
        }
        let is_lenient = self.strictness == Strictness::Lenient;
        let is_plain = is_lenient && is_description && begins_as_description(bytes);
        let is_compressed = match entity.compression {
            Compression::None => false,
            Compression::Known => !is_plain,
            Compression::Unknown => !is_lenient,
        };
        if is_compressed {
            return unread(Unsupported::Encoding);
        }
        if is_set {
            return self.read_set(entity, bytes, depth);
        }
        let decoded = entity.transfer.undo(bytes);
        let Some(bytes) = decoded.or(is_plain.then_some(Cow::Borrowed(bytes))) else {
            return unread(Unsupported::Encoding);
        };
        let has_usual_disposition = matches!(entity.disposition.as_str(), "" | SESSION);
        let media_type = media_type.to_owned();
        let part = Part { media_type, bytes, has_usual_disposition };
        Content { parts: vec![part], ..Content::default() }
    }

    /// Whether the body counts as a description although its type does not say so: it has no type,
    /// or its type cannot be read and the message cannot be refused.
    fn is_description_by_its_bytes(&self, entity: &Entity, bytes: &[u8], depth: usize) -> bool {
        let may_be = match entity.media_type.as_str() {
            "" => depth == 0,
            _ => !entity.has_media_type && self.strictness == Strictness::Lenient,
        };
        may_be && self.types.contains(&SDP) && begins_as_description(bytes)
    }

    fn read_set<'a>(&mut self, set: &Entity, bytes: &'a [u8], depth: usize) -> Content<'a> {
        if bytes.is_empty() {
            return Content::default();
        }
        let Some(boundary) = set.boundary.as_deref().filter(|_| depth < MAX_DEPTH) else {
            return unread(Unsupported::Type);
        };
        let (parts, is_whole) = cut(bytes, boundary, self.parts_left);
        self.parts_left -= parts.len();
        if parts.is_empty() && is_whole {
            return unread(Unsupported::Type);
        }
        let parts: Vec<(Entity, &[u8])> = parts.into_iter().map(read_part).collect();
        let mut content = match set.media_type.as_str() {
            "multipart/alternative" => self.read_alternative(&parts, depth + 1),
            "multipart/related" => self.read_related(set, &parts, depth + 1),
            // RFC 2046 §5.1.3: an unknown subtype is read as `mixed`.
            _ => self.read_mixed(&parts, depth + 1),
        };
        if !is_whole {
            content.refused = Some(Unsupported::TooManyParts);
            content.unread = content.refused;
        }
        content
    }

    /// RFC 5621 §5: each part counts.
    fn read_mixed<'a>(&mut self, parts: &[(Entity, &'a [u8])], depth: usize) -> Content<'a> {
        let mut all = Content::default();
        for (entity, bytes) in parts {
            let Content { parts, refused, unread, insisted } = self.read(entity, bytes, depth);
            all.parts.extend(parts);
            all.refused = all.refused.or(refused);
            all.unread = all.unread.or(unread);
            all.insisted = all.insisted.or(insisted);
        }
        all
    }

    /// RFC 5621 §6, RFC 2046 §5.1.4: all parts mean the same, and the best one is the last. The
    /// last one that is understood is taken, and the others are ignored.
    fn read_alternative<'a>(&mut self, parts: &[(Entity, &'a [u8])], depth: usize) -> Content<'a> {
        let contents = parts.iter().rev().map(|(entity, bytes)| self.read(entity, bytes, depth));
        let mut contents: Vec<Content<'a>> = contents.collect();
        let is_taken =
            |content: &Content<'_>| !content.parts.is_empty() && content.refused.is_none();
        let is_passed_over = |content: &Content<'_>| content.refused.is_none();
        let best = contents
            .iter()
            .position(is_taken)
            .or_else(|| contents.iter().position(|content| !content.parts.is_empty()))
            .or_else(|| contents.iter().position(is_passed_over))
            .unwrap_or_default();
        if contents.is_empty() { Content::default() } else { contents.swap_remove(best) }
    }

    /// RFC 5621 §7, RFC 2387: the root defines the set, and the other parts belong to it. If the
    /// root holds nothing for the reader, the other parts are searched as well. Of them, those that
    /// are not understood are passed over, unless they say that they are required.
    fn read_related<'a>(
        &mut self,
        set: &Entity,
        parts: &[(Entity, &'a [u8])],
        depth: usize,
    ) -> Content<'a> {
        let is_root = |(part, _): &(Entity, &[u8])| set.start.is_some() && part.id == set.start;
        let root = parts.iter().position(is_root).unwrap_or_default();
        let mut content = match parts.get(root) {
            Some((entity, bytes)) => self.read(entity, bytes, depth),
            None => return Content::default(),
        };
        for (_, (entity, bytes)) in parts.iter().enumerate().filter(|(at, _)| *at != root) {
            let Content { parts, insisted, unread, .. } = self.read(entity, bytes, depth);
            if content.parts.is_empty() {
                content.parts = parts;
                content.unread = content.unread.or(unread);
            }
            content.refused = content.refused.or(insisted);
            content.insisted = content.insisted.or(insisted);
        }
        content
    }
}

/// Something that is not understood.
fn refused<'a>(why: Unsupported) -> Content<'a> {
    Content { refused: Some(why), ..Content::default() }
}

/// Something that is understood, but cannot be read.
fn unread<'a>(why: Unsupported) -> Content<'a> {
    Content { unread: Some(why), ..refused(why) }
}

/// The parts between the delimiters of a set, at most `most`, and whether these are all. A set
/// without a last delimiter ends with the body.
fn cut<'a>(bytes: &'a [u8], boundary: &str, most: usize) -> (Vec<&'a [u8]>, bool) {
    let mut parts = Vec::new();
    // Where the current part begins; `None` in the preamble.
    let mut begin = None;
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let next = at + length + 1;
        if let Some(delimiter) = delimiter(rest.get(..length).unwrap_or_default(), boundary) {
            if let Some(begin) = begin.take() {
                parts.push(without_line_end(bytes.get(begin..at).unwrap_or_default()));
            }
            if delimiter == Delimiter::Last {
                return (parts, true);
            }
            if parts.len() == most {
                return (parts, false);
            }
            begin = Some(next);
        }
        at = next;
    }
    parts.extend(begin.map(|begin| bytes.get(begin..).unwrap_or_default()));
    (parts, true)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delimiter {
    /// A part begins.
    Next,
    /// The set ends.
    Last,
}

/// RFC 2046 §5.1.1: two hyphens and the boundary, two more at the end of the set; then blanks.
fn delimiter(line: &[u8], boundary: &str) -> Option<Delimiter> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary.as_bytes())?;
    let (delimiter, blanks) = match rest.strip_prefix(b"--") {
        Some(blanks) => (Delimiter::Last, blanks),
        None => (Delimiter::Next, rest),
    };
    blanks.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r')).then_some(delimiter)
}

/// The line end before a delimiter belongs to the delimiter.
fn without_line_end(part: &[u8]) -> &[u8] {
    let part = part.strip_suffix(b"\n").unwrap_or(part);
    part.strip_suffix(b"\r").unwrap_or(part)
}

fn read_part(part: &[u8]) -> (Entity, &[u8]) {
    let mut lines = Lines { rest: Some(part) };
    let mut fields = Fields::default();
    while let Some(line) = lines.next_unfolded().filter(|line| !line.is_empty()) {
        if let Some((name, value)) = parse_header_line(&line) {
            fields.push(name, value);
        }
    }
    (Entity::of(&fields), lines.rest.unwrap_or_default())
}

impl TransferEncoding {
    /// Decodes the bytes; `None` when they are not in this encoding.
    fn undo(self, bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Identity => Some(Cow::Borrowed(bytes)),
            Self::Base64 => {
                let digits: Vec<u8> =
                    bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
                STANDARD.decode(digits).ok().map(Cow::Owned)
            }
            Self::QuotedPrintable => unquote(bytes).map(Cow::Owned),
            Self::Unknown => None,
        }
    }
}

/// RFC 2045 §6.7: `=` and two digits are a byte, `=` at the end of a line joins it with the next.
fn unquote(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'=', [b'\r', b'\n', after @ ..] | [b'\n', after @ ..]) => after,
            (b'=', [high, low, after @ ..]) => {
                let mut byte = [0];
                hex::decode_to_slice([*high, *low], &mut byte).ok()?;
                plain.extend(byte);
                after
            }
            (b'=', _) => return None,
            (byte, after) => {
                plain.push(*byte);
                after
            }
        };
    }
    Some(plain)
}

/// The value of a header field without its parameters, in lower case.
fn before_parameters(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A parameter of a header field, without its quotes.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    split_top_level(value, ';').into_iter().skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let value = value.trim();
        let unquoted = parse_quoted(value).map(|(content, _)| content);
        name.trim()
            .eq_ignore_ascii_case(wanted)
            .then(|| unquoted.unwrap_or_else(|| value.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n";

    /// A multipart body in its parts: header lines, and what follows the empty line.
    fn set(boundary: &str, parts: &[(&str, &str)]) -> String {
        let parts =
            parts.iter().map(|(head, body)| format!("--{boundary}\r\n{head}\r\n{body}\r\n"));
        format!("{}--{boundary}--\r\n", parts.collect::<String>())
    }

    fn content(head: &str, body: &str) -> (Option<String>, Option<Unsupported>) {
        let mut fields = Fields::default();
        for line in head.lines() {
            let (name, value) = parse_header_line(line).unwrap();
            fields.push(name, value);
        }
        let content = read(&fields, body.as_bytes(), &[SDP], Strictness::Strict);
        let refused = content.refused;
        let part = content.into_part();
        (part.map(|part| String::from_utf8(part.bytes.into_owned()).unwrap()), refused)
    }

    fn mixed(parts: &[(&str, &str)]) -> (Option<String>, Option<Unsupported>) {
        content("Content-Type: multipart/mixed;boundary=b", &set("b", parts))
    }

    fn offer() -> (Option<String>, Option<Unsupported>) {
        (Some(OFFER.to_owned()), None)
    }

    const DESCRIPTION: (&str, &str) = ("Content-Type: application/sdp\r\n", OFFER);

    #[test]
    fn a_description_is_found_beside_parts_that_are_optional() {
        for other in [
            "Content-Type: application/ISUP;version=itu-t92+\r\n\
             Content-Disposition: signal;handling=optional\r\n",
            "content-type: application/pidf+xml\r\n\
             CONTENT-DISPOSITION: render; Handling=\"OPTIONAL\"\r\n",
            "Content-Type: application/pidf+xml\r\nContent-ID: <target@atlanta.example.com>\r\n",
            "Content-Type: application/pidf+xml\r\nContent-Disposition: by-reference\r\n",
            "Content-Type: application/rs-metadata+xml\r\n\
             Content-Disposition: recording-session\r\n",
            "Content-Type: application/x\r\nContent-Encoding: gzip\r\n\
             Content-Disposition: signal;\r\n handling=optional\r\n",
            "",
        ] {
            assert_eq!(mixed(&[DESCRIPTION, (other, "\u{1}\u{2}")]), offer(), "{other}");
            assert_eq!(mixed(&[(other, "x"), DESCRIPTION]), offer(), "{other}");
        }
    }

    #[test]
    fn what_is_required_and_not_understood_is_refused_beside_any_description() {
        for other in [
            "Content-Type: application/isup\r\nContent-Disposition: signal;handling=required\r\n",
            "Content-Type: application/isup\r\nContent-Disposition: signal\r\n",
            "Content-Type: application/isup\r\n",
            "Content-Type: application/x\r\nContent-Disposition: session;handling=required\r\n",
            "Content-Type: application/sdp\r\n\
             Content-Disposition: early-session;handling=required\r\n",
            "Content-Type: application/x\r\n\
             Content-Disposition: by-reference;handling=required\r\n",
        ] {
            let refused = (Some(OFFER.to_owned()), Some(Unsupported::Type));
            assert_eq!(mixed(&[DESCRIPTION, (other, "x")]), refused, "{other}");
            assert_eq!(mixed(&[(other, "x"), DESCRIPTION]), refused, "{other}");
        }
    }

    #[test]
    fn a_body_alone_follows_the_same_rules() {
        assert_eq!(content("Content-Type: Application/SDP;charset=x", OFFER), offer());
        assert_eq!(content("Content-Type: text/plain", "x"), (None, Some(Unsupported::Type)));
        let optional =
            "Content-Type: application/isup\nContent-Disposition: signal;handling=optional";
        assert_eq!(content(optional, "x"), (None, None));
        assert_eq!(content("Content-Type: text/plain", ""), (None, None));
        for (encoding, refused) in
            [("gzip", Some(Unsupported::Encoding)), ("identity", None), ("", None)]
        {
            let head = format!("Content-Type: application/sdp\nContent-Encoding: {encoding}");
            assert_eq!(content(&head, OFFER).1, refused, "{encoding}");
        }
    }

    #[test]
    fn of_two_descriptions_the_first_of_the_session_is_taken() {
        let early = "Content-Type: application/sdp\r\nContent-Disposition: early-session\r\n";
        let session = "Content-Type: application/sdp\r\nContent-Disposition: Session\r\n";
        let odd = "Content-Type: application/sdp\r\nContent-Disposition: preview\r\n";
        assert_eq!(mixed(&[(early, "v=1"), (session, OFFER), (session, "v=2")]), offer());
        assert_eq!(mixed(&[(odd, "v=1"), DESCRIPTION]), offer());
        assert_eq!(mixed(&[(early, "v=1")]), (None, None));
    }

    #[test]
    fn of_alternatives_the_last_that_is_understood_is_taken() {
        let kind = "Content-Type: multipart/alternative;boundary=b";
        let plain = ("Content-Type: text/plain\r\n", "x");
        let first = ("Content-Type: application/sdp\r\n", "v=0\r\n");
        let read = |parts: &[(&str, &str)]| content(kind, &set("b", parts));
        assert_eq!(read(&[plain, DESCRIPTION]), offer());
        assert_eq!(read(&[DESCRIPTION, plain]), offer());
        assert_eq!(read(&[first, DESCRIPTION, plain]), offer());
        assert_eq!(read(&[plain]), (None, Some(Unsupported::Type)));
    }

    #[test]
    fn of_related_parts_the_root_counts() {
        let plain = "Content-Type: multipart/related;boundary=b";
        let kind = format!("{plain};start=\"<root@x>\";type=\"application/sdp\"");
        let root = ("Content-Type: application/sdp\r\nContent-ID: <root@x>\r\n", OFFER);
        let other = ("Content-Type: image/png\r\nContent-Disposition: icon\r\n", "x");
        assert_eq!(content(&kind, &set("b", &[other, root])), offer());
        assert_eq!(content(plain, &set("b", &[DESCRIPTION, other])), offer());
    }

    #[test]
    fn a_related_part_that_says_that_it_is_required_has_to_be_understood() {
        let kind = "Content-Type: multipart/related;boundary=b";
        let refused = (Some(OFFER.to_owned()), Some(Unsupported::Type));
        let required =
            "Content-Type: application/x\r\nContent-Disposition: signal;handling=required\r\n";
        let inner = set("c", &[("Content-Type: image/png\r\n", "x"), (required, "x")]);
        let nested = ("Content-Type: multipart/mixed;boundary=c\r\n", inner.as_str());
        for other in [(required, "x"), nested] {
            assert_eq!(content(kind, &set("b", &[DESCRIPTION, other])), refused);
        }
        let encoded = format!("{}Content-Encoding: gzip\r\n", DESCRIPTION.0)
            + "Content-Disposition: session;handling=required\r\n";
        let zipped = (encoded.as_str(), OFFER);
        assert_eq!(
            content(kind, &set("b", &[DESCRIPTION, zipped])),
            (Some(OFFER.to_owned()), Some(Unsupported::Encoding))
        );
    }

    #[test]
    fn blanks_may_stand_around_the_slash_of_a_type() {
        assert_eq!(content("Content-Type: application / SDP ; charset=x", OFFER), offer());
        let body = set("b", &[("Content-Type: application\t/sdp\r\n", OFFER)]);
        assert_eq!(content("Content-Type: multipart / mixed ; boundary = b", &body), offer());
    }

    #[test]
    fn a_description_of_blanks_is_none() {
        for blank in ["\r\n", " \r\n\r\n", ""] {
            assert_eq!(content("Content-Type: application/sdp", blank), (None, None));
            assert_eq!(
                mixed(&[("Content-Type: application/sdp\r\n", blank), DESCRIPTION]),
                offer()
            );
        }
    }

    #[test]
    fn a_body_without_a_type_is_a_description_if_it_begins_as_one() {
        assert_eq!(content("Subject: x", OFFER), offer());
        assert_eq!(content("Content-Type:", OFFER), offer());
        assert_eq!(content("Content-Type:\nContent-Type: application/sdp", OFFER), offer());
        assert_eq!(content("Subject: x", "hello"), (None, Some(Unsupported::Type)));
        let odd = "Content-Type: application\\sdp";
        assert_eq!(content(odd, OFFER), (None, Some(Unsupported::Type)));
    }

    #[test]
    fn what_cannot_be_refused_is_read_whatever_its_header_fields_say() {
        let lenient = |head: &str, body: &str| {
            let mut fields = Fields::default();
            for line in head.lines() {
                let (name, value) = parse_header_line(line).unwrap();
                fields.push(name, value);
            }
            let content = read(&fields, body.as_bytes(), &[SDP], Strictness::Lenient);
            let part = content.into_part();
            part.map(|part| String::from_utf8(part.bytes.into_owned()).unwrap())
        };
        let kind = "Content-Type: application/sdp";
        let base64 = "Content-Type: application/sdp\r\nContent-Transfer-Encoding: base64\r\n";
        let odd = "Content-Type: application\\sdp\r\nContent-Encoding: \"\r\n";
        for (head, body) in [
            (format!("{kind}\nContent-Encoding: \""), OFFER.to_owned()),
            (format!("{kind}\nContent-Encoding: x, y"), OFFER.to_owned()),
            (format!("{kind}\nContent-Encoding: gzip"), OFFER.to_owned()),
            (format!("Content-Type: ;\n{kind}"), OFFER.to_owned()),
            ("Content-Type: application\\sdp".to_owned(), OFFER.to_owned()),
            ("Content-Type: sdp".to_owned(), OFFER.to_owned()),
            ("Content-Type: application/sdp charset=x".to_owned(), format!("\r\n{OFFER}")),
            ("Subject: x".to_owned(), OFFER.to_owned()),
            (
                "Content-Type: multipart/mixed;boundary=b\nContent-Encoding: x".to_owned(),
                set("b", &[("Content-Type: application/x\r\n", "x"), (odd, OFFER)]),
            ),
            (
                "Content-Type: multipart/mixed;boundary=b".to_owned(),
                set("b", &[("Content-Type: application/x\r\n", "x"), (base64, OFFER)]),
            ),
        ] {
            let found = lenient(&head, &body);
            assert_eq!(found.as_deref().map(str::trim_start), Some(OFFER), "{head}");
        }
        let zipped = "\u{1f}\u{8b}\u{8}";
        assert_eq!(lenient(&format!("{kind}\nContent-Encoding: gzip"), zipped), None);
        assert_eq!(lenient("Content-Type: text/plain", OFFER), None);
        assert_eq!(lenient("Content-Type: x", "hello"), None);
    }

    #[test]
    fn sets_may_be_nested_to_a_limit() {
        let mut body = OFFER.to_owned();
        let mut kind = "application/sdp".to_owned();
        for depth in 0..MAX_DEPTH {
            let boundary = format!("b{depth}");
            body = set(&boundary, &[(&format!("Content-Type: {kind}\r\n"), &body)]);
            kind = format!("multipart/mixed; boundary={boundary}");
        }
        assert_eq!(content(&format!("Content-Type: {kind}"), &body), offer());
        body = set("more", &[(&format!("Content-Type: {kind}\r\n"), &body)]);
        let deep = content("Content-Type: multipart/mixed; boundary=more", &body);
        assert_eq!(deep, (None, Some(Unsupported::Type)));
    }

    #[test]
    fn the_parts_of_all_levels_are_counted() {
        let plain = ("", "x");
        let mut parts = vec![plain; MAX_PARTS - 1];
        parts.push(DESCRIPTION);
        assert_eq!(mixed(&parts), offer());
        parts.push(plain);
        assert_eq!(mixed(&parts).1, Some(Unsupported::TooManyParts));
        let inner = set("c", &vec![plain; MAX_PARTS]);
        let inner = ("Content-Type: multipart/mixed;boundary=c\r\n", inner.as_str());
        assert_eq!(mixed(&[DESCRIPTION, inner]).1, Some(Unsupported::TooManyParts));
    }

    #[test]
    fn a_set_is_cut_whatever_is_around_and_within_its_parts() {
        let kind = "Content-Type: Multipart/Mixed; BOUNDARY=\"=_a b;\\\"c\"";
        let body = format!(
            "This is no part.\r\n--=_a b;\"c \t\r\n\r\nplain\r\n--=_a b;\"c-inner\r\n\
             --=_a b;\"c\r\n\
             Content-Type: application/sdp\r\n\r\n{OFFER}\r\n--=_a b;\"c--\r\nNeither is this.\r\n\
             --=_a b;\"c\r\nContent-Type: application/x\r\n\r\nx\r\n"
        );
        assert_eq!(content(kind, &body), offer());
        // With line feeds only, and without an end.
        let open = body.split("\r\n--=_a b;\"c--").next().unwrap();
        assert_eq!(content(kind, open), offer());
        let (found, refused) = content(kind, &body.replace("\r\n", "\n"));
        assert_eq!((found, refused), (Some(OFFER.replace("\r\n", "\n")), None));
    }

    #[test]
    fn a_set_without_boundary_or_parts_is_refused() {
        for kind in ["multipart/mixed", "multipart/mixed;boundary=", "multipart/mixed;boundary=x"] {
            let head = format!("Content-Type: {kind}");
            assert_eq!(content(&head, OFFER), (None, Some(Unsupported::Type)), "{kind}");
        }
    }

    #[test]
    fn transfer_encodings_are_undone() {
        let part = |encoding: &str, body: &str| {
            let head = format!(
                "Content-Type: application/sdp\r\nContent-Transfer-Encoding: {encoding}\r\n"
            );
            mixed(&[(&head, body)])
        };
        let base64 = STANDARD.encode(OFFER);
        let (first, second) = base64.split_at(20);
        assert_eq!(part("BASE64", &format!("{first}\r\n{second}")), offer());
        let quoted = OFFER.replace('=', "=3D").replace("IN ", "IN=\r\n=20");
        assert_eq!(part("quoted-printable", &quoted), offer());
        assert_eq!(part("binary", OFFER), offer());
        for (encoding, body) in [("base64", "%%"), ("quoted-printable", "v=0"), ("x-zip", OFFER)] {
            assert_eq!(part(encoding, body), (None, Some(Unsupported::Encoding)), "{encoding}");
        }
    }

    /// A part that may be ignored.
    fn any_other() -> impl Strategy<Value = (String, String)> {
        let head = prop::sample::select(vec![
            "",
            "Content-Type: application/ISUP\r\nContent-Disposition: signal; handling=optional\r\n",
            "Content-Disposition: render;handling=\"optional\"\r\nContent-Type: text/html\r\n",
            "Content-Type: application/pidf+xml\r\nContent-ID: <a@b>\r\n",
            "Content-Type: application/sdp\r\nContent-Disposition: early-session\r\n",
            "X: y\r\n\tz\r\nContent-Type: multipart/mixed;boundary=none\r\n\
             Content-Disposition: signal;handling=optional\r\n",
        ]);
        (head.prop_map(str::to_owned), "[ -~\r\n\u{80}-\u{ff}]{0,60}")
    }

    proptest! {
        #[test]
        fn a_description_is_found_in_any_set(
            boundary in "[0-9a-zA-Z'()+_,./:=?]{1,70}",
            subtype in prop::sample::select(vec!["mixed", "MIXED", "alternative", "x-own"]),
            before in prop::collection::vec(any_other(), 0..5),
            after in prop::collection::vec(any_other(), 0..5),
            preamble in "[ -~]{0,20}",
            has_lone_feeds in any::<bool>(),
            is_nested in any::<bool>(),
            is_closed in any::<bool>(),
        ) {
            let own = (DESCRIPTION.0.to_owned(), OFFER.to_owned());
            let parts: Vec<_> = before.into_iter().chain([own]).chain(after).collect();
            let is_clear = |(_, body): &(String, String)| !body.contains("--");
            prop_assume!(parts.iter().all(is_clear) && !preamble.contains("--"));
            let parts: Vec<(&str, &str)> =
                parts.iter().map(|(head, body)| (head.as_str(), body.as_str())).collect();
            let mut body = format!("{preamble}\r\n{}", set(&boundary, &parts));
            if !is_closed {
                let end = body.len() - format!("--{boundary}--\r\n").len();
                body.truncate(end - 2);
            }
            let mut kind = format!("multipart/{subtype};x=\"a;b\" ; boundary=\"{boundary}\"");
            if is_nested {
                body = set("outer", &[(&format!("Content-Type: {kind}\r\n"), &body)]);
                kind = "multipart/mixed;boundary=outer".to_owned();
            }
            let expected = match has_lone_feeds {
                true => OFFER.replace("\r\n", "\n"),
                false => OFFER.to_owned(),
            };
            if has_lone_feeds {
                body = body.replace("\r\n", "\n");
            }
            let found = content(&format!("Content-Type: {kind}"), &body);
            prop_assert_eq!(found, (Some(expected), None), "{}", body);
        }

        #[test]
        fn no_body_is_too_much(
            kind in "multipart/(mixed|related|alternative); ?boundary=(\"\\PC{0,9}\"|[ab-]{0,3})",
            pieces in prop::collection::vec(prop::sample::select(vec![
                "--a", "--b", "--", "\r\n", "\n", "\r", "Content-Type: multipart/mixed;boundary=b",
                "Content-Type: application/sdp", "Content-Transfer-Encoding: base64", " ", "v=0",
                "=",
            ]), 0..200),
        ) {
            let mut fields = Fields::default();
            fields.push("Content-Type", &kind);
            let body = pieces.concat();
            for strictness in [Strictness::Strict, Strictness::Lenient] {
                let content = read(&fields, body.as_bytes(), &[SDP], strictness);
                prop_assert!(content.parts.iter().all(|part| part.bytes.len() <= body.len()));
            }
        }
    }
}
