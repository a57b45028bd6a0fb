//! Whose packets are the call's: symmetric RTP with a locked source (RFC 4961, RFC 7362).
//!
//! In: the address of the SDP, the host that the peer's SIP comes from, and for each packet where it came from and its SSRC and sequence
//! number; time is the number of the leg's frame. Out: whether it counts, and where our own packets
//! go. Pure: the socket is elsewhere.
//!
//! The first packet from the SDP address locks it. A peer behind a NAT comes from another address: it
//! is locked after a few packets in a row, and, unless it is at least on that host or on the one that
//! its SIP comes from, only while the SDP address says nothing. After that nobody else is heard, until a re-INVITE names another
//! address or the peer has been silent for long.

use std::net::{IpAddr, SocketAddr};

/// Packets in a row, with one SSRC, that another address than the SDP's needs (RFC 3550 appendix
/// A.1 asks for two).
const PROBATION: u8 = 3;
/// How long the SDP address must be silent before another host is looked at: 1 s.
const GRACE_FRAMES: u64 = 50;
/// How long the locked source must be silent before others are looked at: 5 s.
const RELOCK_FRAMES: u64 = 250;
/// How many strangers are watched at a time: enough that one cannot push out the true one.
const CANDIDATES: usize = 4;

/// The source of one leg.
#[derive(Debug)]
pub struct Source {
    /// The address of the SDP.
    signalled: SocketAddr,
    /// Where the peer's SIP comes from; of a peer behind a NAT, the NAT.
    host: Option<IpAddr>,
    lock: Lock,
    /// The source before the last re-INVITE: still heard until the new one speaks.
    previous: Option<SocketAddr>,
    candidates: [Option<Candidate>; CANDIDATES],
    /// Which candidate gives way to the next one.
    oldest: usize,
    /// The frame of the last packet that counted, or of the start.
    heard_at: u64,
    /// Whether anything at all has counted since the address was named.
    verified: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// Nobody has been heard yet.
    Open,
    /// Only this source is heard.
    Locked(SocketAddr),
    /// This source has been silent for long: it is still the first choice, and where our packets go.
    Lapsed(SocketAddr),
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    from: SocketAddr,
    ssrc: u32,
    next_sequence: u16,
    seen: u8,
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It counts.
    Accept,
    /// It counts, and from now on only its source does.
    Lock,
    /// It is a stranger's.
    Drop,
}

impl Source {
    /// A source that nothing has been heard of, named at `frame`.
    pub fn new(signalled: SocketAddr, host: Option<IpAddr>, frame: u64) -> Self {
        Self {
            signalled,
            host,
            lock: Lock::Open,
            previous: None,
            candidates: [None; CANDIDATES],
            oldest: 0,
            heard_at: frame,
            verified: false,
        }
    }

    /// A new offer or answer names `signalled`. Returns whether the lock is gone; with the same
    /// address it stays.
    pub fn renew(&mut self, signalled: SocketAddr, host: Option<IpAddr>, frame: u64) -> bool {
        self.host = host;
        if signalled == self.signalled {
            return false;
        }
        let previous = match self.lock {
            Lock::Locked(address) | Lock::Lapsed(address) => Some(address),
            Lock::Open => self.previous,
        };
        let previous = previous.filter(|address| *address != signalled);
        *self = Self { previous, ..Self::new(signalled, host, frame) };
        true
    }

    /// Judges a packet of the negotiated kind.
    pub fn judge(&mut self, from: SocketAddr, ssrc: u32, sequence: u16, frame: u64) -> Verdict {
        let verdict = match self.lock {
            Lock::Locked(locked) if locked == from => Verdict::Accept,
            Lock::Locked(_) => Verdict::Drop,
            Lock::Lapsed(lapsed) if lapsed == from => Verdict::Lock,
            Lock::Open | Lock::Lapsed(_) if from == self.signalled => Verdict::Lock,
            Lock::Open if self.previous == Some(from) => {
                // Late packets from the old address: sound, but no sign of life of the new one.
                return Verdict::Accept;
            }
            Lock::Open | Lock::Lapsed(_) => self.watch(from, ssrc, sequence, frame),
        };
        match verdict {
            Verdict::Accept => self.heard_at = frame,
            Verdict::Lock => {
                self.lock = Lock::Locked(from);
                self.previous = None;
                self.candidates = [None; CANDIDATES];
                self.heard_at = frame;
                self.verified = true;
            }
            Verdict::Drop => {}
        }
        verdict
    }

    /// Gives the lock up if its source has been silent for long. Returns whether it did.
    pub fn give_up_if_silent(&mut self, frame: u64) -> bool {
        match self.lock {
            Lock::Locked(address) if frame.saturating_sub(self.heard_at) >= RELOCK_FRAMES => {
                self.lock = Lock::Lapsed(address);
                true
            }
            _ => false,
        }
    }

    /// The peer may be silent up to here: it was on hold.
    pub fn excuse(&mut self, frame: u64) {
        self.heard_at = frame;
    }

    /// Something else than RTP shows that the media address is the peer's.
    pub fn verify(&mut self) {
        self.verified = true;
    }

    /// Whether the peer has ever been heard from its address, or from the one that was locked.
    pub fn is_verified(&self) -> bool {
        self.verified
    }

    /// Where our RTP goes.
    pub fn destination(&self) -> SocketAddr {
        match self.lock {
            Lock::Locked(address) | Lock::Lapsed(address) => address,
            Lock::Open => self.signalled,
        }
    }

    /// Whether only one source is heard.
    pub fn is_locked(&self) -> bool {
        matches!(self.lock, Lock::Locked(_))
    }

    fn watch(&mut self, from: SocketAddr, ssrc: u32, sequence: u16, frame: u64) -> Verdict {
        let is_near = from.ip() == self.signalled.ip() || Some(from.ip()) == self.host;
        if !is_near && frame.saturating_sub(self.heard_at) < GRACE_FRAMES {
            return Verdict::Drop;
        }
        let next_sequence = sequence.wrapping_add(1);
        let known = self.candidates.iter_mut().flatten().find(|candidate| candidate.from == from);
        let Some(candidate) = known else {
            let newcomer = Candidate { from, ssrc, next_sequence, seen: 1 };
            self.candidates[self.oldest] = Some(newcomer);
            self.oldest = (self.oldest + 1) % CANDIDATES;
            return Verdict::Drop;
        };
        let follows = candidate.ssrc == ssrc && candidate.next_sequence == sequence;
        let seen = if follows { candidate.seen + 1 } else { 1 };
        *candidate = Candidate { from, ssrc, next_sequence, seen };
        if seen >= PROBATION { Verdict::Lock } else { Verdict::Drop }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn peer() -> SocketAddr {
        address("192.0.2.1:4000")
    }

    fn stranger() -> SocketAddr {
        address("198.51.100.7:6000")
    }

    #[test]
    fn the_address_of_the_sdp_is_locked_by_its_first_packet() {
        let mut source = Source::new(peer(), None, 0);
        assert!(!source.is_verified());
        assert_eq!(source.judge(peer(), 1, 10, 1), Verdict::Lock);
        assert_eq!(source.judge(peer(), 1, 11, 2), Verdict::Accept);
        assert!(source.is_locked());
        assert!(source.is_verified());
    }

    #[test]
    fn a_stranger_is_never_heard_after_the_lock() {
        let mut source = Source::new(peer(), None, 0);
        source.judge(peer(), 1, 10, 1);
        for sequence in 0..1_000_u16 {
            assert_eq!(source.judge(stranger(), 1, sequence, 2), Verdict::Drop);
        }
        assert_eq!(source.destination(), peer());
    }

    #[test]
    fn a_stranger_who_sprays_early_does_not_win_over_the_peer() {
        let mut source = Source::new(peer(), None, 0);
        for sequence in 0..900_u16 {
            let frame = u64::from(sequence / 20);
            assert_eq!(source.judge(stranger(), 1, sequence, frame), Verdict::Drop);
        }
        assert_eq!(source.judge(peer(), 1, 0, 46), Verdict::Lock);
    }

    #[test]
    fn a_peer_behind_a_nat_is_locked_after_packets_in_a_row() {
        let mut source = Source::new(peer(), None, 0);
        assert_eq!(source.judge(stranger(), 5, 1, 60), Verdict::Drop);
        assert_eq!(source.judge(stranger(), 5, 2, 61), Verdict::Drop);
        assert_eq!(source.judge(stranger(), 6, 3, 62), Verdict::Drop, "another SSRC");
        assert_eq!(source.judge(stranger(), 6, 4, 63), Verdict::Drop);
        assert_eq!(source.judge(stranger(), 6, 5, 64), Verdict::Lock);
        assert_eq!(source.destination(), stranger());
    }

    #[test]
    fn another_port_of_the_same_host_needs_no_grace() {
        let mut source = Source::new(peer(), None, 0);
        let natted = address("192.0.2.1:61000");
        let verdicts = [1, 2, 3].map(|sequence| source.judge(natted, 5, sequence, 1));
        assert_eq!(verdicts, [Verdict::Drop, Verdict::Drop, Verdict::Lock]);
    }

    #[test]
    fn a_peer_whose_sip_comes_through_the_same_nat_needs_no_grace() {
        let private = address("10.0.0.5:4000");
        let mut source = Source::new(private, Some(peer().ip()), 0);
        let verdicts = [1, 2, 3].map(|sequence| source.judge(peer(), 5, sequence, 1));
        assert_eq!(verdicts, [Verdict::Drop, Verdict::Drop, Verdict::Lock]);
        let mut source = Source::new(private, Some(peer().ip()), 0);
        let verdicts = [1, 2, 3].map(|sequence| source.judge(stranger(), 5, sequence, 1));
        assert_eq!(verdicts, [Verdict::Drop; 3]);
    }

    #[test]
    fn a_re_invite_moves_the_source_without_a_gap() {
        let mut source = Source::new(peer(), None, 0);
        source.judge(peer(), 1, 10, 1);
        assert!(!source.renew(peer(), None, 2), "the same address keeps the lock");
        let moved = address("192.0.2.1:4002");
        assert!(source.renew(moved, None, 2));
        assert_eq!(source.destination(), moved);
        assert_eq!(source.judge(peer(), 1, 11, 3), Verdict::Accept);
        assert!(!source.is_locked(), "late packets lock nothing");
        assert_eq!(source.judge(moved, 1, 12, 4), Verdict::Lock);
        assert_eq!(source.judge(peer(), 1, 13, 5), Verdict::Drop);
    }

    #[test]
    fn only_a_long_silence_opens_the_lock() {
        let mut source = Source::new(peer(), None, 0);
        source.judge(peer(), 1, 10, 100);
        assert!(!source.give_up_if_silent(100 + RELOCK_FRAMES - 1));
        assert!(source.give_up_if_silent(100 + RELOCK_FRAMES));
        assert!(!source.give_up_if_silent(1_000), "once");
        for sequence in 1..3 {
            assert_eq!(source.judge(stranger(), 9, sequence, 1_000), Verdict::Drop);
        }
        assert_eq!(source.destination(), peer(), "until somebody else is locked");
        assert_eq!(source.judge(stranger(), 9, 3, 1_000), Verdict::Lock);
        assert_eq!(source.destination(), stranger());
    }

    #[test]
    fn a_peer_that_speaks_again_is_locked_at_once() {
        let mut source = Source::new(peer(), None, 0);
        let natted = address("192.0.2.1:61000");
        for sequence in 1..4 {
            source.judge(natted, 5, sequence, 1);
        }
        assert!(source.give_up_if_silent(1 + RELOCK_FRAMES));
        assert_eq!(source.judge(natted, 77, 900, 400), Verdict::Lock);
    }
}
