//! Cuts messages out of a stream (RFC 3261 §18.3), and separates keep-alives from them (RFC 5626
//! §3.5.1).
//!
//! Comes in: bytes, cut anywhere. Goes out: one message at a time, as long as its Content-Length
//! says, for [`wire::parse_datagram`]; and pings. The end of the header and the length are found by
//! the rules of `wire`, so that framing and parsing never disagree. The owner of the stream decides
//! how long a peer may take for a message.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

use super::wire::{self, MAX_MESSAGE};

/// The ping of a client: it keeps the stream open, and checks that it is (RFC 5626 §3.5.1).
pub const PING: &[u8] = b"\r\n\r\n";
/// The answer to a ping (RFC 5626 §3.5.1).
pub const PONG: &[u8] = b"\r\n";

/// A part that was cut out of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// One message, head and body.
    Message(Bytes),
    /// A double CRLF between messages; it is answered by [`PONG`].
    Ping,
}

/// Why nothing more can be cut out of a stream: the start of the next message is not known. The
/// connection has to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FramingError {
    /// Head and body together are longer than [`MAX_MESSAGE`].
    #[error("the message is too long")]
    TooLong,
    /// RFC 3261 §20.14: over streams Content-Length is mandatory.
    #[error("the message has no Content-Length")]
    NoLength,
    /// The Content-Length is not a number, or there is more than one.
    #[error("the Content-Length cannot be read")]
    BadLength,
}

/// Cuts one stream into frames.
///
/// ```text
///              byte of a start line          empty line
///   Between ─────────────────────────► Head ────────────► Body
///   │  ▲ ▲                              │                  │ │
///   │  │ └──────── message ─────────────┼──────────────────┘ │
///   └──┘ line ends, ping                └──► Broken ◄────────┘
/// ```
#[derive(Debug, Default)]
pub struct StreamFramer {
    /// Bytes that were pushed and are not returned yet.
    buffer: BytesMut,
    state: FramingState,
    has_pong: bool,
}

#[derive(Debug, Clone, Copy)]
enum FramingState {
    /// Before a start line. RFC 3261 §7.5: line ends are skipped.
    Between {
        /// How many bytes of a ping have come.
        ping: usize,
    },
    /// Within the head.
    Head {
        /// Where the incomplete line begins.
        line: usize,
        /// How far line ends have been searched; not before `line`.
        searched: usize,
    },
    /// The head is complete.
    Body {
        /// Length of head and body, in bytes; at most [`MAX_MESSAGE`].
        length: usize,
    },
    /// Nothing more can be read.
    Broken(FramingError),
}

impl Default for FramingState {
    fn default() -> Self {
        Self::Between { ping: 0 }
    }
}

impl StreamFramer {
    /// A framer at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes received bytes. If [`next_frame`](Self::next_frame) is called until `None` after each
    /// push, at most one message and the bytes of one push are held.
    pub fn push(&mut self, bytes: &[u8]) {
        if !matches!(self.state, FramingState::Broken(_)) {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next frame; `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the end of a message cannot be found. If the message has a head, it was returned before
    /// as a message that `wire` answers by 400 or 413, drops, or reads without a body.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FramingError> {
        loop {
            match self.state {
                FramingState::Between { ping } => match self.skip_line_ends(ping) {
                    Some(frame) => return Ok(Some(frame)),
                    None if self.buffer.is_empty() => return Ok(None),
                    None => self.state = FramingState::Head { line: 0, searched: 0 },
                },
                FramingState::Head { line, searched } => match self.find_head_end(line, searched) {
                    Some(end) if end <= MAX_MESSAGE => {
                        if let Err((error, head)) = self.measure(end) {
                            self.state = FramingState::Broken(error);
                            return Ok(Some(Frame::Message(head)));
                        }
                    }
                    _ if self.buffer.len() > MAX_MESSAGE => {
                        self.state = FramingState::Broken(FramingError::TooLong);
                        let head = self.buffer.split_to(MAX_MESSAGE + 1).freeze();
                        return Ok(Some(Frame::Message(head)));
                    }
                    _ => return Ok(None),
                },
                FramingState::Body { length } if self.buffer.len() < length => return Ok(None),
                FramingState::Body { length } => {
                    self.state = FramingState::default();
                    return Ok(Some(Frame::Message(self.buffer.split_to(length).freeze())));
                }
                FramingState::Broken(error) => return Err(error),
            }
        }
    }

    /// Whether a message has begun and is not complete.
    pub fn is_within_message(&self) -> bool {
        matches!(self.state, FramingState::Head { .. } | FramingState::Body { .. })
    }

    /// Whether a single CRLF has come between messages since the last call. It is taken for the
    /// answer to our ping (RFC 5626 §3.5.1), although a peer may send one for another reason.
    pub fn take_pong(&mut self) -> bool {
        std::mem::take(&mut self.has_pong)
    }

    /// Skips to the next start line, or to the end of a ping.
    fn skip_line_ends(&mut self, mut ping: usize) -> Option<Frame> {
        let mut skipped = 0;
        for byte in &self.buffer {
            ping = match byte {
                byte if PING.get(ping) == Some(byte) => ping + 1,
                b'\r' => 1,
                b'\n' => 0,
                _ => break,
            };
            skipped += 1;
            if ping == PING.len() {
                break;
            }
        }
        self.buffer.advance(skipped);
        self.has_pong |= ping == PONG.len() || ping == PONG.len() + 1;
        let is_ping = ping == PING.len();
        self.state = FramingState::Between { ping: if is_ping { 0 } else { ping } };
        is_ping.then_some(Frame::Ping)
    }

    /// Where the body begins. Each byte is examined once, however the stream is cut.
    fn find_head_end(&mut self, mut line: usize, mut searched: usize) -> Option<usize> {
        loop {
            let rest = self.buffer.get(searched..).unwrap_or_default();
            let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
                self.state = FramingState::Head { line, searched: self.buffer.len() };
                return None;
            };
            let end = searched + length;
            if matches!(self.buffer.get(line..end), Some(b"" | b"\r")) {
                return Some(end + 1);
            }
            line = end + 1;
            searched = line;
        }
    }

    /// Finds the length of the message with a head of `head` bytes. An error comes with bytes that
    /// `wire` refuses, so that the peer gets a response that names the error.
    fn measure(&mut self, head: usize) -> Result<(), (FramingError, Bytes)> {
        let lengths = wire::content_lengths(self.buffer.get(..head).unwrap_or_default());
        let length = match lengths.as_slice() {
            [] => Err(FramingError::NoLength),
            [length] => length.ok_or(FramingError::BadLength),
            _ => Err(FramingError::BadLength),
        };
        match length.map(|body| head.saturating_add(body)) {
            Ok(length) if length <= MAX_MESSAGE => {
                self.state = FramingState::Body { length };
                Ok(())
            }
            Ok(_) => {
                let mut refused = self.buffer.split_to(head);
                refused.resize(MAX_MESSAGE + 1, 0);
                Err((FramingError::TooLong, refused.freeze()))
            }
            Err(error) => {
                let head = self.buffer.split_to(head);
                Err((error, with_unreadable_length(&head)))
            }
        }
    }
}

/// The head with a malformed Content-Length added, so that `wire` reports this error and no other.
fn with_unreadable_length(head: &[u8]) -> Bytes {
    let start_line = head.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let (start_line, fields) = head.split_at(start_line);
    [start_line, b"Content-Length: -\r\n", fields].concat().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::sip::wire::{WireError, parse_datagram};

    /// An OPTIONS with more header lines and a body.
    fn options(more: &str, body: &str) -> String {
        format!(
            "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP c;branch=z9hG4bK1\r\nFrom: <sip:c@c>;tag=1\r\n\
             To: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n{more}\r\n{body}"
        )
    }

    /// All frames of the stream when it is pushed in these parts.
    fn frames<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<FramingError>) {
        let mut framer = StreamFramer::new();
        let mut frames = Vec::new();
        for part in parts {
            framer.push(part);
            loop {
                match framer.next_frame() {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(error) => return (frames, Some(error)),
                }
            }
        }
        (frames, None)
    }

    fn message(text: &str) -> Frame {
        Frame::Message(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// The status that the peer gets before the connection is closed.
    fn refusal_of(text: &str) -> (FramingError, Option<u16>) {
        let (frames, error) = frames([text.as_bytes()]);
        let [Frame::Message(head)] = frames.as_slice() else { panic!("{frames:?}") };
        let status = match parse_datagram(head) {
            Err(WireError::Answerable { status, .. }) => Some(status.code()),
            Err(_) => None,
            Ok(message) => panic!("{message:?}"),
        };
        (error.unwrap(), status)
    }

    #[test]
    fn messages_are_as_long_as_they_say() {
        let one = options("Content-Length: 4\r\n", "abcd");
        let two = options("l:\r\n 0\r\n", "");
        let three = options("content-length : 2\r\n", "\r\n").replace("\r\n", "\n");
        let three = three.replace(": 2", ": 1");
        let stream = format!("{one}{two}{three}");
        let expected = vec![message(&one), message(&two), message(&three)];
        assert_eq!(frames([stream.as_bytes()]), (expected, None));
    }

    #[test]
    fn a_double_line_end_is_a_ping_and_a_single_one_is_skipped() {
        let one = options("l: 0\r\n", "");
        let stream = format!("\r\n\r\n\r\n{one}\r\n{one}\r\n\r\n\r\n\r\n\n\r\r\n\r\n\n");
        let (one, ping) = (message(&one), Frame::Ping);
        let expected = vec![ping.clone(), one.clone(), one, ping.clone(), ping.clone(), ping];
        assert_eq!(frames([stream.as_bytes()]), (expected, None));
    }

    #[test]
    fn a_length_that_is_none_is_refused_and_ends_the_stream() {
        for (more, error) in [
            ("", FramingError::NoLength),
            ("l: -1\r\n", FramingError::BadLength),
            ("l: 0x10\r\n", FramingError::BadLength),
            ("l: +1\r\n", FramingError::BadLength),
            ("l:\r\n", FramingError::BadLength),
            ("l: 4, 4\r\n", FramingError::BadLength),
            ("l: 4\r\nContent-Length: 4\r\n", FramingError::BadLength),
            ("l: 99999999999999999999\r\n", FramingError::BadLength),
        ] {
            assert_eq!(refusal_of(&options(more, "abcd")), (error, Some(400)), "{more}");
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_has_come() {
        let body = options("l: 65535\r\n", "");
        assert_eq!(refusal_of(&body), (FramingError::TooLong, Some(413)));
        let huge = options("l: 4294967295\r\n", "");
        assert_eq!(refusal_of(&huge), (FramingError::TooLong, Some(413)));
        let head = options(&"X: y\r\n".repeat(MAX_MESSAGE / 5), "");
        assert_eq!(refusal_of(&head), (FramingError::TooLong, Some(413)));
    }

    #[test]
    fn what_cannot_be_answered_ends_the_stream_in_silence() {
        assert_eq!(refusal_of("GET / HTTP/1.1\r\n\r\n"), (FramingError::NoLength, None));
        assert_eq!(refusal_of("SIP/2.0 200 OK\r\n\r\n"), (FramingError::NoLength, None));
    }

    #[test]
    fn after_an_error_nothing_is_kept() {
        let mut framer = StreamFramer::new();
        framer.push(b"GET / HTTP/1.1\r\n\r\n");
        assert!(matches!(framer.next_frame(), Ok(Some(Frame::Message(_)))));
        assert_eq!(framer.next_frame(), Err(FramingError::NoLength));
        framer.push(options("l: 0\r\n", "").as_bytes());
        assert_eq!(framer.next_frame(), Err(FramingError::NoLength));
        assert!(framer.buffer.is_empty());
    }

    #[test]
    fn a_message_is_under_way_from_its_first_byte_to_its_last() {
        let mut framer = StreamFramer::new();
        framer.push(b"\r\n\r");
        assert_eq!(framer.next_frame(), Ok(None));
        assert!(!framer.is_within_message());
        let text = options("l: 1\r\n", "a");
        framer.push(&text.as_bytes()[..1]);
        assert_eq!(framer.next_frame(), Ok(None));
        assert!(framer.is_within_message());
        framer.push(&text.as_bytes()[1..]);
        assert!(matches!(framer.next_frame(), Ok(Some(_))));
        assert!(!framer.is_within_message());
    }

    #[test]
    fn a_single_line_end_is_a_pong() {
        let one = options("l: 0\r\n", "");
        for (text, has_pong) in [
            ("\r\n".to_owned(), true),
            (format!("\r\n{one}"), true),
            (one.clone(), false),
            ("\r\n\r\n".to_owned(), false),
            (format!("\r\n\r\n{one}"), false),
            (format!("{one}\r\n"), true),
            ("\r\n\r\n\r\n".to_owned(), true),
        ] {
            let mut framer = StreamFramer::new();
            framer.push(text.as_bytes());
            while framer.next_frame().unwrap().is_some() {}
            assert_eq!((framer.take_pong(), framer.take_pong()), (has_pong, false), "{text:?}");
        }
    }

    /// One part of a stream: a message, line ends, or bytes that break it.
    fn part() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            6 => ("[\\r\\na-z:]{0,40}", any::<bool>()).prop_map(|(body, compact)| {
                let name = if compact { "l" } else { "Content-Length" };
                options(&format!("{name}: {}\r\n", body.len()), &body).into_bytes()
            }),
            3 => "[\\r\\n]{1,6}".prop_map(String::into_bytes),
            1 => proptest::collection::vec(any::<u8>(), 0..60),
        ]
    }

    proptest! {
        #[test]
        fn any_cut_of_a_stream_gives_the_same_frames(
            parts in proptest::collection::vec(part(), 0..8),
            cuts in proptest::collection::vec(1_usize..50, 1..40),
        ) {
            let stream = parts.concat();
            let mut pieces = Vec::new();
            let mut rest = stream.as_slice();
            for length in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, more) = rest.split_at((*length).min(rest.len()));
                pieces.push(piece);
                rest = more;
            }
            let expected = frames([stream.as_slice()]);
            prop_assert_eq!(frames(pieces), expected.clone());
            prop_assert_eq!(frames(stream.chunks(1)), expected);
        }
    }
}
