//! What must hold for any bytes from the network. Used by the fuzz targets, which generate the
//! bytes, and by tests with fixed ones.

#![allow(dead_code)] // Each binary uses its own part of this.

use std::{
    collections::BTreeSet,
    fmt::{Debug, Display},
    net::SocketAddr,
    str::FromStr,
    time::{Duration, Instant},
};

use aftertone_core::proto::{
    rtp::{Ssrc, packet::Packet, rtcp as reports},
    sdp::Description,
    sip::{
        Status,
        digest::fields::{Authorization, Challenge},
        endpoint::{Command, DialogId, Endpoint, EndpointConfig, Event, Output},
        framing::{Frame, FramingError, StreamFramer},
        message::{Message, ResponseBuilder},
        path::{ConnectionId, Path, Transport},
        stun as binding,
        uri::Uri,
        validate::validate,
        wire::{WireError, parse_datagram},
    },
    srtp::{CryptoSuite, MasterKey, Mki, SrtpError, SrtpReceiver, SrtpSender},
};
use rand::{SeedableRng, rngs::StdRng};

/// The answer to a readable message is readable as well, and names its request.
pub fn wire(bytes: &[u8]) {
    let answer = match parse_datagram(bytes) {
        Ok(Message::Request(mut request)) => {
            request.set_received("192.0.2.99".parse().unwrap(), 5099);
            let (status, reason) = match validate(&request) {
                Ok(()) => (Status::OK, "OK"),
                Err(refusal) => (refusal.status, refusal.reason),
            };
            let answer =
                ResponseBuilder::to(&request, status).reason(reason).to_tag("ours").build();
            let Ok(Message::Response(read)) = parse_datagram(&answer) else {
                panic!("not a response: {}", String::from_utf8_lossy(&answer));
            };
            assert_eq!(read.cseq(), request.cseq());
            assert_eq!(read.from(), request.from());
            assert_eq!(read.vias(), request.vias());
            answer
        }
        Err(WireError::Answerable { status, reason, mut request }) => {
            request.set_received("192.0.2.99".parse().unwrap(), 5099);
            ResponseBuilder::to_stub(&request, status).reason(reason).to_tag("ours").build()
        }
        Ok(Message::Response(_)) | Err(WireError::KeepAlive | WireError::Unreadable) => return,
    };
    // Whatever the answer has copied, each line of its head is one header field.
    let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..head]).into_owned();
    assert!(head.split("\r\n").skip(1).all(|line| line.contains(": ")), "{head}");
    assert!(!head.replace("\r\n", "").contains(['\r', '\n']), "{head}");
}

/// A printed URI parses to the same URI.
pub fn uri(bytes: &[u8]) {
    let Some(uri) = reads_as_written::<Uri>(bytes) else { return };
    assert!(uri.is_equivalent(&uri), "{uri}");
}

/// A printed description parses to the same description. An address that cannot be read is known
/// by its line only, and is not printed.
pub fn sdp(bytes: &[u8]) {
    let Ok(description) = Description::parse(bytes) else { return };
    let written = description.to_string();
    let again = Description::parse(written.as_bytes()).unwrap();
    assert_eq!(again.to_string(), written);
    let is_readable = description.unreadable_connection.is_none()
        && description.media.iter().all(|media| media.unreadable_connection.is_none());
    if is_readable {
        assert_eq!(again, description, "{written}");
    }
}

/// The messages of a stream do not depend on how it is cut into pieces.
pub fn framing(bytes: &[u8]) {
    let whole = frames(bytes, bytes.len().max(1));
    assert_eq!(whole, frames(bytes, 1));
    assert_eq!(whole, frames(bytes, 7));
}

/// A printed challenge, and a printed answer to one, parse to the same value.
pub fn digest(bytes: &[u8]) {
    reads_as_written::<Challenge>(bytes);
    reads_as_written::<Authorization>(bytes);
}

/// A request gets an answer, and the answer itself gets none.
pub fn stun(bytes: &[u8]) {
    for peer in ["192.0.2.1:5060", "[2001:db8::1]:5060"] {
        let Some(answer) = binding::answer(bytes, peer.parse().unwrap()) else { continue };
        assert_eq!(binding::answer(&answer, peer.parse().unwrap()), None);
    }
}

/// A packet that is written with the same header and payload parses to the same packet.
pub fn rtp(bytes: &[u8]) {
    let Ok(packet) = Packet::parse(bytes) else { return };
    let mut written = Vec::new();
    packet.header.write(&mut written);
    written.extend(packet.payload);
    assert_eq!(Packet::parse(&written), Ok(packet));
}

/// Parsing does not panic, and a report about us has our SSRC.
pub fn rtcp(bytes: &[u8]) {
    if let Ok(received) = reports::read(bytes, Ssrc(7)) {
        assert!(received.about_us.is_none_or(|block| block.ssrc == Ssrc(7)));
    }
}

/// A datagram is refused and unchanged, or accepted once. A packet that we protect is read as it
/// was. The first byte chooses suite and MKI. Then come datagrams, each with its length in a byte.
pub fn srtp(bytes: &[u8]) {
    let Some((choice, mut rest)) = bytes.split_first() else { return };
    let suite = CryptoSuite::ALL[usize::from(choice & 0x7f) % CryptoSuite::ALL.len()];
    let mki = if choice & 0x80 == 0 { None } else { Mki::new(1, 4) };
    let secret: Vec<u8> = (0..46).collect();
    let secret = &secret[..suite.key_len() + suite.salt_len()];
    let key = || MasterKey::from_bytes(suite, secret).unwrap();
    let mut from_outside = SrtpReceiver::new(key(), mki);
    let (mut sender, mut from_us) = (SrtpSender::new(key(), mki), SrtpReceiver::new(key(), mki));
    let mut count = 0;
    while let Some((len, after)) = rest.split_first() {
        let (datagram, after) = after.split_at(usize::from(*len).min(after.len()));
        rest = after;
        accepted_once(datagram, |packet| from_outside.unprotect(packet).map(|read| read.len()));
        accepted_once(datagram, |packet| {
            from_outside.unprotect_rtcp(packet).map(|read| read.len())
        });
        // A receiver knows 16 SSRCs, and each of these datagrams may have two.
        count += 1;
        if count > 8 {
            continue;
        }
        let mut packet = datagram.to_vec();
        match sender.protect(&mut packet) {
            Ok(()) => assert_eq!(from_us.unprotect(&mut packet).unwrap(), datagram),
            Err(_) => assert_eq!(packet, datagram),
        }
        let mut packet = datagram.to_vec();
        match sender.protect_rtcp(&mut packet) {
            Ok(()) => assert_eq!(from_us.unprotect_rtcp(&mut packet).unwrap(), datagram),
            Err(_) => assert_eq!(packet, datagram),
        }
    }
}

fn accepted_once(
    datagram: &[u8],
    mut unprotect: impl FnMut(&mut [u8]) -> Result<usize, SrtpError>,
) {
    let mut packet = datagram.to_vec();
    match unprotect(&mut packet) {
        Ok(len) => {
            assert!(len < datagram.len());
            assert_eq!(unprotect(&mut datagram.to_vec()), Err(SrtpError::Replayed));
        }
        Err(_) => assert_eq!(packet, datagram),
    }
}

/// Messages one after the other, separated by a byte that none contains: all calls end, and no
/// state is left.
pub fn endpoint(bytes: &[u8]) {
    let mut answerer = Answerer::new();
    for (number, message) in bytes.split(|byte| *byte == 0xff).enumerate() {
        let local: SocketAddr = "192.0.2.1:5060".parse().unwrap();
        let path = Path::udp(local, "192.0.2.99:5062".parse().unwrap());
        let path = match number % 2 {
            0 => path,
            _ => Path { transport: Transport::Tcp, connection: Some(ConnectionId(1)), ..path },
        };
        answerer.take(message, path, Duration::from_millis(200));
    }
    answerer.must_become_idle();
}

/// An endpoint whose owner answers every call.
pub struct Answerer {
    endpoint: Endpoint,
    now: Instant,
    open: BTreeSet<DialogId>,
    /// The number of calls.
    pub calls: usize,
}

impl Answerer {
    pub fn new() -> Self {
        let now = Instant::now();
        let config = EndpointConfig::new("test".to_owned());
        let mut endpoint = Endpoint::new(config, StdRng::seed_from_u64(1));
        endpoint.set_users([("alice", "secret")].into_iter(), now);
        Self { endpoint, now, open: BTreeSet::new(), calls: 0 }
    }

    /// Handles a message; then time passes.
    pub fn take(&mut self, bytes: &[u8], path: Path, pause: Duration) {
        self.endpoint.handle_message(bytes, path, self.now);
        self.obey();
        self.pass(pause);
    }

    /// Hangs up. An INVITE without ACK and a BYE without a response keep the endpoint busy for up
    /// to 64 × T1 each.
    pub fn must_become_idle(&mut self) {
        for dialog in self.open.clone() {
            self.endpoint.handle_command(Command::Bye { dialog, reason: None }, self.now);
        }
        self.pass(Duration::from_secs(2 * 32 + 5));
        assert!(self.endpoint.is_idle(), "{:?}", self.endpoint);
        assert!(self.open.is_empty(), "each call has ended");
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.endpoint.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.endpoint.handle_timeout(self.now);
            self.obey();
        }
        self.now = end;
    }

    fn obey(&mut self) {
        while let Some(output) = self.endpoint.poll_output() {
            let Output::Event(event) = output else { continue };
            let dialog = event.dialog();
            let mut command = |command| self.endpoint.handle_command(command, self.now);
            match event {
                Event::Invite { .. } => {
                    self.calls += 1;
                    assert!(self.open.insert(dialog), "a call begins once");
                    command(Command::Ring { dialog });
                    command(Command::Answer { dialog, sdp: b"v=0\r\n".to_vec() });
                }
                Event::Reinvite { .. } => {
                    let (status, reason) = (Status::NOT_ACCEPTABLE_HERE, "No".to_owned());
                    command(Command::Refuse { dialog, status, reason, headers: Vec::new() });
                }
                Event::Bye { .. } | Event::Canceled { .. } | Event::Ended { .. } => {
                    assert!(self.open.remove(&dialog), "a call ends once");
                }
                _ => {}
            }
        }
    }
}

fn reads_as_written<T>(bytes: &[u8]) -> Option<T>
where
    T: FromStr + Display + Debug + PartialEq,
{
    let read: T = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    let written = read.to_string();
    let again: Option<T> = written.parse().ok();
    assert_eq!(again.as_ref(), Some(&read), "{written}");
    Some(read)
}

fn frames(bytes: &[u8], piece: usize) -> (Vec<Frame>, Option<FramingError>) {
    let mut framer = StreamFramer::new();
    let mut frames = Vec::new();
    for piece in bytes.chunks(piece) {
        framer.push(piece);
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
