//! Valid SIP messages that are damaged at random.

use super::pieces::PIECES;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                   m=audio 9 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n";

const DESCRIPTION: [&str; 10] = [
    "v=0",
    "o=- 1 1 IN IP4 127.0.0.1",
    "s=-",
    "c=IN IP4 127.0.0.1",
    "t=0 0",
    "m=audio 9 RTP/AVP 0 101",
    "a=rtpmap:0 PCMU/8000",
    "a=rtpmap:101 telephone-event/8000",
    "a=fmtp:101 0-15",
    "a=sendrecv",
];

/// Numbers at their limits and beyond, addresses that must not be sent to, and lines that once
/// broke other servers.
const WORSE: [&str; 18] = [
    "c=IN IP4 224.0.0.1/127",
    "c=IN IP4 255.255.255.255",
    "c=IN IP4 0.0.0.0",
    "c=IN IP6 ::",
    "c=IN IP6 ff02::1",
    "c=IN IP4 no.such.host.invalid",
    "m=audio 0 RTP/AVP 0",
    "m=audio 65535 RTP/AVP 0 255 256 4294967296",
    "m=audio 65536 RTP/AVP 0",
    "m=audio 9/4294967295 RTP/AVP 0",
    "m=audio 9 RTP/AVP",
    "m=video 9 RTP/AVP 31",
    "a=rtpmap:4294967296 PCMU/8000",
    "a=rtpmap:0 PCMU/4294967296/65535",
    "a=fmtp:101 0-4294967295,-1",
    "a=ptime:0",
    "a=ptime:4294967296",
    "a=rtcp:65536 IN IP4 224.0.0.1",
];

const PASSWORD: &str = "Authorization: Digest username=\"alice\",realm=\"aftertone\",nonce=\"n\",\
                        uri=\"sip:x\",response=\"0123456789abcdef0123456789abcdef\"\r\n";

const METHODS: [&str; 14] = [
    "OPTIONS",
    "REGISTER",
    "ACK",
    "BYE",
    "CANCEL",
    "PRACK",
    "UPDATE",
    "INFO",
    "REFER",
    "NOTIFY",
    "SUBSCRIBE",
    "MESSAGE",
    "PUBLISH",
    "FOO",
];

/// Makes damaged messages, always the same sequence.
pub struct Mutator {
    rng: StdRng,
    torture: Vec<Vec<u8>>,
    made: u64,
}

impl Mutator {
    pub fn new(seed: u64) -> Self {
        let mut files: Vec<_> = std::fs::read_dir("tests/torture")
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let torture = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
        Self { rng: StdRng::seed_from_u64(seed), torture, made: 0 }
    }

    /// An INVITE to `user`, changed in up to five places.
    pub fn invite(&mut self, user: &str) -> Vec<u8> {
        let mut bytes = self.good("INVITE", user, SDP);
        self.spoil(&mut bytes);
        bytes
    }

    /// Another request, a response, or a torture message, changed as well.
    pub fn other(&mut self) -> Vec<u8> {
        let mut bytes = match self.rng.random_range(0..10) {
            0..3 => self.torture.choose(&mut self.rng).unwrap().clone(),
            3 => self.response(),
            4 => (0..self.rng.random_range(0..300)).map(|_| self.rng.random()).collect(),
            _ => {
                let method = METHODS.choose(&mut self.rng).unwrap();
                self.good(method, "bot", if *method == "UPDATE" { SDP } else { "" })
            }
        };
        self.spoil(&mut bytes);
        bytes
    }

    /// A session description with some lines replaced by worse ones, then changed in up to five
    /// places.
    pub fn description(&mut self) -> Vec<u8> {
        let mut lines: Vec<&str> = DESCRIPTION.to_vec();
        for _ in 0..self.rng.random_range(0..3) {
            let at = self.rng.random_range(0..=lines.len());
            let line = WORSE.choose(&mut self.rng).unwrap();
            if self.rng.random() && at < lines.len() {
                lines[at] = line;
            } else {
                lines.insert(at, line);
            }
        }
        let mut bytes: Vec<u8> =
            lines.iter().flat_map(|line| line.bytes().chain(*b"\r\n")).collect();
        self.spoil(&mut bytes);
        bytes
    }

    fn good(&mut self, method: &str, user: &str, body: &str) -> Vec<u8> {
        self.made += 1;
        let number = self.made;
        // Some messages share a call.
        let call = number / 4;
        let password = if method == "INVITE" { "" } else { PASSWORD };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        format!(
            "{method} sip:{user}@127.0.0.1 SIP/2.0\r\n\
             Via: SIP/2.0/UDP 127.0.0.1:9;branch=z9hG4bK{number};rport\r\nMax-Forwards: 70\r\n\
             From: <sip:alice@127.0.0.1>;tag={call}\r\nTo: <sip:{user}@127.0.0.1>\r\n\
             Call-ID: {call}\r\nCSeq: {number} {method}\r\nContact: <sip:alice@127.0.0.1:9>\r\n\
             Supported: 100rel, timer, replaces\r\nExpires: 60\r\n{kind}{password}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    fn response(&mut self) -> Vec<u8> {
        self.made += 1;
        let (number, status) = (self.made, self.rng.random_range(100..700));
        format!(
            "SIP/2.0 {status} What\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK{number}\r\n\
             From: <sip:a@127.0.0.1>;tag=1\r\nTo: <sip:b@127.0.0.1>;tag=2\r\nCall-ID: {number}\r\n\
             CSeq: 1 INVITE\r\nRSeq: 1\r\nContact: <sip:b@127.0.0.1:9>\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    }

    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.rng.random_range(0..=5) {
            if bytes.is_empty() {
                return;
            }
            let at = self.rng.random_range(0..bytes.len());
            match self.rng.random_range(0..12) {
                0..4 => bytes[at] = self.rng.random(),
                4..8 => {
                    let piece = PIECES.choose(&mut self.rng).unwrap();
                    bytes.splice(at..at, piece.bytes());
                }
                8..10 => {
                    bytes.remove(at);
                }
                10 => self.double_a_line(bytes),
                _ => bytes.truncate(at),
            }
        }
    }

    fn double_a_line(&mut self, bytes: &mut Vec<u8>) {
        let lines: Vec<Vec<u8>> =
            bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let at = self.rng.random_range(0..lines.len());
        let end: usize = lines[..=at].iter().map(Vec::len).sum();
        bytes.splice(end..end, lines[at].iter().copied());
    }
}
