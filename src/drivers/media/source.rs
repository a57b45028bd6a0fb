//! Decides which packets belong to the call: symmetric RTP with a locked source (RFC 4961,
//! RFC 7362).
//!
//! Input: the address of the SDP, the host that the peer's SIP comes from, and for each packet its
//! source address, SSRC and sequence number; time is the number of the leg's frame. Output: whether
//! the packet counts, and where our own packets go. Pure: the socket is elsewhere.
//!
//! The first packet from the SDP address locks it. A peer behind a NAT sends from another port, and
//! from the host that its SIP comes from: it is locked after a few packets. After that no other
//! source counts, until a re-INVITE names another address or the peer has been silent for long. A
//! peer that changes its port without signalling is followed after a short silence, if its host and
//! SSRC are the same and its sequence numbers go on. Other hosts never count, unless the
//! configuration allows it: then they are considered while the SDP address sends nothing, and after
//! a silence only with the former SSRC.

use std::net::{IpAddr, SocketAddr};

use aftertone_core::proto::rtp::{SeqNo, Ssrc};

/// Packets that a source other than the SDP address needs, with one SSRC and neighbouring sequence
/// numbers (RFC 3550 appendix A.1 asks for two). They may be duplicated, reordered and have gaps.
const PROBATION: u32 = 3;
/// How long the locked source must be silent before a packet of another port of its host continues
/// it: 200 ms.
const MOVE_FRAMES: u64 = 10;
/// How long it must be silent before packets of other ports are considered: 100 ms.
const PAUSE_FRAMES: u64 = 5;
/// Sequence numbers that a source may have skipped when it moved: at 10 ms each, 5 s.
const MAX_SKIPPED: i16 = 500;
/// How long the SDP address must be silent before a stranger is considered, if at all: 1 s.
const GRACE_FRAMES: u64 = 50;
/// How long the locked source must be silent before others are considered: 5 s.
const RELOCK_FRAMES: u64 = 250;
/// How many candidates are watched at a time: enough that one stranger cannot displace the real
/// peer.
const CANDIDATES: usize = 4;
/// SSRCs that are remembered: those of the sound and of separate telephone events, and former ones.
const SSRCS: usize = 4;

/// The source of one leg.
#[derive(Debug)]
pub(super) struct Source {
    /// The address in the SDP.
    signalled: SocketAddr,
    /// The host that the peer's SIP comes from; for a peer behind a NAT, the NAT.
    host: Option<IpAddr>,
    /// Whether that host has shown that it receives our SIP. If not, it may be the victim of forged
    /// SIP.
    is_host_proved: bool,
    /// Whether the peer may turn out to be on any other host.
    any_host: bool,
    lock: Lock,
    /// The frame in which it was locked last.
    locked_at: u64,
    /// The SSRC of the last packet that counted.
    ssrc: Option<Ssrc>,
    /// The highest sequence number of that SSRC.
    sequence: SeqNo,
    /// The SSRCs of the last packets that counted, the newest first.
    ssrcs: [Option<Ssrc>; SSRCS],
    /// The source before the last re-INVITE: its packets count until the new source sends.
    previous: Option<SocketAddr>,
    candidates: [Option<Candidate>; CANDIDATES],
    /// The index of the candidate that the next one replaces.
    oldest: usize,
    /// The frame of the last packet that counted, or of the start.
    heard_at: u64,
    /// The last frame in which the locked source was found pausing.
    paused_at: Option<u64>,
    /// Whether RTP or RTCP has shown, since the address was named, that it is the peer's.
    verified: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lock {
    /// No source has been locked yet.
    Open,
    /// Only this source counts.
    Locked(SocketAddr),
    /// This source has been silent for long. It is still preferred, and our packets go there.
    Lapsed(SocketAddr),
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    from: SocketAddr,
    ssrc: Ssrc,
    /// The highest sequence number.
    highest: SeqNo,
    /// Which of the last sequence numbers have come: bit 0 is the highest.
    seen: u16,
}

/// The verdict on a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The packet counts.
    Accept,
    /// The packet counts, and from now on only its source does.
    Lock,
    /// The packet is a stranger's.
    Drop,
}

impl Source {
    /// A source without packets, with an address that was named at `frame`. `any_host`: whether the
    /// peer may be on a host other than the two that are known.
    pub(super) fn new(
        signalled: SocketAddr,
        host: Option<IpAddr>,
        any_host: bool,
        frame: u64,
    ) -> Self {
        Self {
            signalled,
            host,
            is_host_proved: true,
            any_host,
            lock: Lock::Open,
            locked_at: frame,
            ssrc: None,
            sequence: SeqNo(0),
            ssrcs: [None; SSRCS],
            previous: None,
            candidates: [None; CANDIDATES],
            oldest: 0,
            heard_at: frame,
            paused_at: None,
            verified: false,
        }
    }

    /// Takes the address of a new offer or answer. Returns whether other sources may count now:
    /// with the same address, only if the peer's SIP comes from another host, because its sound may
    /// do so as well.
    pub(super) fn renew(
        &mut self,
        signalled: SocketAddr,
        host: Option<IpAddr>,
        frame: u64,
    ) -> bool {
        let has_moved = host.is_some_and(|host| !self.is_signalling(host));
        (self.host, self.is_host_proved) = (host, true);
        if signalled == self.signalled {
            return match self.lock {
                Lock::Locked(address) if has_moved && !self.is_near(address.ip()) => {
                    self.lock = Lock::Lapsed(address);
                    true
                }
                Lock::Locked(_) | Lock::Lapsed(_) | Lock::Open => false,
            };
        }
        let previous = match self.lock {
            Lock::Locked(address) | Lock::Lapsed(address) => Some(address),
            Lock::Open => self.previous,
        };
        let previous = previous.filter(|address| *address != signalled);
        *self = Self { previous, ..Self::new(signalled, host, self.any_host, frame) };
        true
    }

    /// Judges a packet. While no source is locked, the caller passes only expected payload types.
    pub(super) fn judge(
        &mut self,
        from: SocketAddr,
        ssrc: Ssrc,
        sequence: SeqNo,
        frame: u64,
    ) -> Verdict {
        let verdict = match self.lock {
            Lock::Locked(locked) if locked == from => Verdict::Accept,
            // Another sender on the peer's host was locked first: the peer of an earlier call,
            // which still sends to a port that is used again.
            Lock::Locked(_) if from == self.signalled => Verdict::Lock,
            Lock::Locked(locked) => self.watch_move(locked, from, ssrc, sequence, frame),
            Lock::Lapsed(lapsed) if lapsed == from => Verdict::Lock,
            Lock::Open | Lock::Lapsed(_) if from == self.signalled => Verdict::Lock,
            Lock::Open if self.previous == Some(from) => {
                // Late packets from the old address: their sound counts, but they are no sign of
                // life of the new source.
                return Verdict::Accept;
            }
            Lock::Open | Lock::Lapsed(_) => self.watch(from, ssrc, sequence, frame),
        };
        match verdict {
            Verdict::Drop => return verdict,
            Verdict::Accept => {}
            Verdict::Lock => {
                self.lock = Lock::Locked(from);
                self.locked_at = frame;
                self.previous = None;
                self.candidates = [None; CANDIDATES];
                self.verified = true;
            }
        }
        self.heard_at = frame;
        let is_new = self.ssrc.replace(ssrc) != Some(ssrc);
        if is_new || sequence.since(self.sequence) > 0 {
            self.sequence = sequence;
        }
        if !self.ssrcs.contains(&Some(ssrc)) {
            self.ssrcs.rotate_right(1);
            self.ssrcs[0] = Some(ssrc);
        }
        verdict
    }

    /// Releases the lock if its source has been silent for long. Returns whether it did.
    pub(super) fn give_up_if_silent(&mut self, frame: u64) -> bool {
        match self.lock {
            Lock::Locked(address) if frame.saturating_sub(self.heard_at) >= RELOCK_FRAMES => {
                self.lock = Lock::Lapsed(address);
                true
            }
            _ => false,
        }
    }

    /// Whether the locked source pauses: it may have moved to another port.
    pub(super) fn is_pausing(&mut self, frame: u64) -> bool {
        let is_pausing = self.is_locked() && frame.saturating_sub(self.heard_at) >= PAUSE_FRAMES;
        if is_pausing {
            self.paused_at = Some(frame);
        }
        is_pausing
    }

    /// Excuses the peer's silence up to this frame: it was on hold.
    pub(super) fn excuse(&mut self, frame: u64) {
        self.heard_at = frame;
    }

    /// Notes that something other than RTP has shown that the media address is the peer's.
    pub(super) fn verify(&mut self) {
        self.verified = true;
    }

    /// Whether RTP or RTCP has shown that the media address is the peer's.
    pub(super) fn is_verified(&self) -> bool {
        self.verified
    }

    /// Where our RTP goes.
    pub(super) fn destination(&self) -> SocketAddr {
        match self.lock {
            Lock::Locked(address) | Lock::Lapsed(address) => address,
            Lock::Open => self.signalled,
        }
    }

    /// Whether a source is locked.
    pub(super) fn is_locked(&self) -> bool {
        matches!(self.lock, Lock::Locked(_))
    }

    /// The locked source, if no other can replace it unless it falls silent. That is so if it is
    /// the SDP address, or if the lock is old and no packet has come from the SDP address since. It
    /// also must not have paused for some time, so that the caller does not search for it elsewhere
    /// in each pause.
    pub(super) fn settled(&self, frame: u64) -> Option<SocketAddr> {
        let Lock::Locked(locked) = self.lock else { return None };
        let is_long_ago = |at: u64| frame.saturating_sub(at) >= RELOCK_FRAMES;
        let is_certain = locked == self.signalled || is_long_ago(self.locked_at);
        (is_certain && self.paused_at.is_none_or(is_long_ago)).then_some(locked)
    }

    /// Whether `host` is the host of the SDP, or the one that the peer's SIP comes from.
    pub(super) fn is_near(&self, host: IpAddr) -> bool {
        is_same(host, self.signalled.ip()) || self.is_signalling(host)
    }

    /// Whether reports of this SSRC are the peer's. While none of the peer's packets has counted,
    /// any report may be: the peer sends nothing, or its packets do not arrive.
    pub(super) fn may_report_as(&self, ssrc: Ssrc) -> bool {
        self.ssrc.is_none() || self.ssrcs.contains(&Some(ssrc))
    }

    /// Whether the peer's SIP comes from `host`, and the peer has acknowledged our 200 or answered
    /// our INVITE, so that the host is not the victim of forged SIP.
    pub(super) fn is_proved(&self, host: IpAddr) -> bool {
        self.is_host_proved && self.is_signalling(host)
    }

    /// Notes that the source address of the peer's newest SIP may be forged.
    pub(super) fn doubt_host(&mut self) {
        self.is_host_proved = false;
    }

    /// Whether the peer's SIP comes from `host`.
    fn is_signalling(&self, host: IpAddr) -> bool {
        self.host.is_some_and(|signalling| is_same(host, signalling))
    }

    fn may_be_stranger(&self, ssrc: Ssrc, frame: u64) -> bool {
        let is_gone = frame.saturating_sub(self.heard_at) >= GRACE_FRAMES;
        let is_known = self.ssrc.is_none_or(|known| known == ssrc);
        self.any_host && is_gone && is_known
    }

    fn watch(&mut self, from: SocketAddr, ssrc: Ssrc, sequence: SeqNo, frame: u64) -> Verdict {
        if !self.is_near(from.ip()) && !self.may_be_stranger(ssrc, frame) {
            return Verdict::Drop;
        }
        if self.passes_probation(from, ssrc, sequence) { Verdict::Lock } else { Verdict::Drop }
    }

    /// Judges a packet that does not come from the locked source, but may be its next one from a
    /// new port.
    fn watch_move(
        &mut self,
        locked: SocketAddr,
        from: SocketAddr,
        ssrc: Ssrc,
        sequence: SeqNo,
        frame: u64,
    ) -> Verdict {
        let goes_on = (1..=MAX_SKIPPED).contains(&sequence.since(self.sequence));
        if !is_same(from.ip(), locked.ip()) || self.ssrc != Some(ssrc) || !goes_on {
            return Verdict::Drop;
        }
        let passes = self.passes_probation(from, ssrc, sequence);
        let is_silent = frame.saturating_sub(self.heard_at) >= MOVE_FRAMES;
        if passes && is_silent { Verdict::Lock } else { Verdict::Drop }
    }

    fn passes_probation(&mut self, from: SocketAddr, ssrc: Ssrc, sequence: SeqNo) -> bool {
        let known = self.candidates.iter_mut().flatten().find(|candidate| candidate.from == from);
        let Some(candidate) = known else {
            let newcomer = Candidate { from, ssrc, highest: sequence, seen: 1 };
            self.candidates[self.oldest] = Some(newcomer);
            self.oldest = (self.oldest + 1) % CANDIDATES;
            return false;
        };
        candidate.add(ssrc, sequence);
        candidate.seen.count_ones() >= PROBATION
    }
}

impl Candidate {
    fn add(&mut self, ssrc: Ssrc, sequence: SeqNo) {
        let step = sequence.since(self.highest);
        let shift = u32::from(step.unsigned_abs());
        match (ssrc == self.ssrc, step > 0) {
            (true, true) if shift < u16::BITS => {
                (self.highest, self.seen) = (sequence, self.seen << shift | 1);
            }
            (true, false) if shift < u16::BITS => self.seen |= 1 << shift,
            _ => *self = Self { ssrc, highest: sequence, seen: 1, ..*self },
        }
    }
}

/// Whether two addresses are the same host's, with IPv4 written as it is or inside IPv6.
fn is_same(one: IpAddr, other: IpAddr) -> bool {
    one.to_canonical() == other.to_canonical()
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
        let mut source = Source::new(peer(), None, false, 0);
        assert!(!source.is_verified());
        assert_eq!(source.judge(peer(), Ssrc(1), SeqNo(10), 1), Verdict::Lock);
        assert_eq!(source.judge(peer(), Ssrc(1), SeqNo(11), 2), Verdict::Accept);
        assert!(source.is_locked());
        assert!(source.is_verified());
    }

    #[test]
    fn a_host_whose_sip_may_be_forged_is_heard_and_proves_nothing() {
        let host: IpAddr = [192, 0, 2, 7].into();
        let signalled = "198.51.100.1:4000".parse().unwrap();
        let mut source = Source::new(signalled, Some(host), false, 0);
        assert!(source.is_proved(host) && !source.is_proved(signalled.ip()));
        source.doubt_host();
        assert!(!source.is_proved(host) && source.is_near(host));
        source.renew(signalled, Some(host), 10);
        assert!(source.is_proved(host));
    }

    /// RTP bleed and injection: packets that are right in everything except the host, at a thousand
    /// a second, before the peer sends, while it sends, and for any time after it has gone.
    #[test]
    fn a_stranger_who_sprays_is_never_the_peer() {
        for any_host in [false, true] {
            let mut source = Source::new(peer(), Some(peer().ip()), any_host, 0);
            let (mut frame, mut sequence) = (0, 0_u16);
            let mut spray = |source: &mut Source, ticks: u64| {
                for _ in 0..ticks {
                    frame += 1;
                    for _ in 0..20 {
                        sequence = sequence.wrapping_add(1);
                        let ssrc = if any_host { 2 } else { 1 };
                        let verdict = source.judge(stranger(), Ssrc(ssrc), SeqNo(sequence), frame);
                        assert_eq!(verdict, Verdict::Drop, "{any_host} {frame}");
                    }
                    source.give_up_if_silent(frame);
                    assert_eq!(source.destination(), peer());
                }
                frame
            };
            // If any host is allowed, the peer must send within a second to be locked before the
            // stranger.
            let frame = spray(&mut source, if any_host { GRACE_FRAMES - 1 } else { 3_000 });
            assert_eq!(source.judge(peer(), Ssrc(1), SeqNo(1), frame), Verdict::Lock);
            let frame = spray(&mut source, 100);
            assert_eq!(source.judge(peer(), Ssrc(1), SeqNo(2), frame), Verdict::Accept);
            spray(&mut source, 3_000);
        }
    }

    #[test]
    fn a_peer_on_a_host_that_nobody_has_named_is_locked_where_that_may_be() {
        let mut source = Source::new(peer(), None, true, 0);
        assert_eq!(source.judge(stranger(), Ssrc(5), SeqNo(1), 60), Verdict::Drop);
        assert_eq!(source.judge(stranger(), Ssrc(5), SeqNo(2), 61), Verdict::Drop);
        assert_eq!(source.judge(stranger(), Ssrc(6), SeqNo(3), 62), Verdict::Drop, "another SSRC");
        assert_eq!(source.judge(stranger(), Ssrc(6), SeqNo(4), 63), Verdict::Drop);
        assert_eq!(source.judge(stranger(), Ssrc(6), SeqNo(5), 64), Verdict::Lock);
        assert_eq!(source.destination(), stranger());
    }

    #[test]
    fn a_peer_whose_port_changes_is_followed_after_200_ms_and_no_sooner() {
        for skipped in [0, 1, 300] {
            let mut source = Source::new(peer(), None, false, 0);
            for frame in 0..100 {
                source.judge(peer(), Ssrc(1), SeqNo(65_480_u16.wrapping_add(frame as u16)), frame);
            }
            assert_eq!(source.settled(99), Some(peer()));
            let moved = address("192.0.2.1:4002");
            let at = 65_480_u16.wrapping_add(100 + skipped);
            for frame in 100..109 {
                let sequence = at.wrapping_add(frame as u16 - 100);
                assert_eq!(
                    source.judge(moved, Ssrc(1), SeqNo(sequence), frame),
                    Verdict::Drop,
                    "{frame}"
                );
                assert_eq!(source.is_pausing(frame), frame >= 104);
            }
            assert_eq!(source.settled(109), None, "the kernel must let others through");
            assert_eq!(source.judge(moved, Ssrc(1), SeqNo(at.wrapping_add(9)), 109), Verdict::Lock);
            assert_eq!(
                source.judge(moved, Ssrc(1), SeqNo(at.wrapping_add(10)), 110),
                Verdict::Accept
            );
            assert_eq!(source.destination(), moved);
        }
    }

    #[test]
    fn who_is_not_the_peer_does_not_take_its_place_when_it_pauses() {
        let moved = address("192.0.2.1:4002");
        // Another host, another SSRC, old or distant sequence numbers; none of them is locked for
        // 5 s.
        for (from, ssrc, first) in
            [(stranger(), 1, 101), (moved, 2, 101), (moved, 1, 1), (moved, 1, 30_000)]
        {
            let mut source = Source::new(peer(), Some(peer().ip()), false, 0);
            source.judge(peer(), Ssrc(1), SeqNo(100), 0);
            for frame in 1..RELOCK_FRAMES {
                let sequence = first + frame as u16 % 100;
                let verdict =
                    source.judge(from, Ssrc(ssrc), SeqNo(sequence.min(first + 99)), frame);
                assert_eq!(verdict, Verdict::Drop, "{from} {ssrc} {first} {frame}");
            }
            assert_eq!(source.judge(peer(), Ssrc(1), SeqNo(101), RELOCK_FRAMES), Verdict::Accept);
        }
        // A moved port is not locked while the peer sends, even if everything else is right.
        let mut source = Source::new(peer(), Some(peer().ip()), false, 0);
        for frame in 0..500 {
            source.judge(peer(), Ssrc(1), SeqNo(frame as u16), frame);
            assert_eq!(source.judge(moved, Ssrc(1), SeqNo(frame as u16 + 1), frame), Verdict::Drop);
        }
    }

    #[test]
    fn a_pause_is_looked_into_once_in_five_seconds() {
        let mut source = Source::new(peer(), None, false, 0);
        source.judge(peer(), Ssrc(1), SeqNo(1), 0);
        assert!(source.is_pausing(PAUSE_FRAMES));
        source.judge(peer(), Ssrc(1), SeqNo(2), 6);
        assert!(!source.is_pausing(7));
        assert_eq!(source.settled(7), None);
        assert_eq!(source.settled(PAUSE_FRAMES + RELOCK_FRAMES), Some(peer()));
    }

    #[test]
    fn probation_bears_duplicates_small_steps_and_loss() {
        let natted = address("192.0.2.1:61000");
        let ways: [&[u16]; 6] = [
            &[1, 1, 2, 2, 3],
            &[2, 1, 4],
            &[1, 2, 4],
            &[1, 3, 6],
            &[65_535, 65_534, 1],
            &[10, 10, 9, 9, 10, 2],
        ];
        for way in ways {
            let mut source = Source::new(peer(), None, false, 0);
            let (last, before) = way.split_last().unwrap();
            for sequence in before {
                assert_eq!(
                    source.judge(natted, Ssrc(5), SeqNo(*sequence), 1),
                    Verdict::Drop,
                    "{way:?}"
                );
            }
            assert_eq!(source.judge(natted, Ssrc(5), SeqNo(*last), 1), Verdict::Lock, "{way:?}");
        }
        // One repeated packet is no stream, nor are packets with arbitrary sequence numbers.
        let mut source = Source::new(peer(), None, false, 0);
        for sequence in [7, 7, 7, 7, 107, 207, 307, 7, 60_000] {
            assert_eq!(source.judge(natted, Ssrc(5), SeqNo(sequence), 1), Verdict::Drop);
        }
    }

    #[test]
    fn another_port_of_the_same_host_needs_no_grace() {
        let mut source = Source::new(peer(), None, false, 0);
        let natted = address("192.0.2.1:61000");
        let verdicts = [1, 2, 3].map(|sequence| source.judge(natted, Ssrc(5), SeqNo(sequence), 1));
        assert_eq!(verdicts, [Verdict::Drop, Verdict::Drop, Verdict::Lock]);
    }

    #[test]
    fn a_peer_whose_sip_comes_through_the_same_nat_is_known_by_it() {
        let private = address("10.0.0.5:4000");
        for host in ["192.0.2.1", "::ffff:192.0.2.1"] {
            let host = Some(host.parse().unwrap());
            let mut source = Source::new(private, host, false, 0);
            let verdicts =
                [1, 2, 3].map(|sequence| source.judge(peer(), Ssrc(5), SeqNo(sequence), 1));
            assert_eq!(verdicts, [Verdict::Drop, Verdict::Drop, Verdict::Lock]);
            let mut source = Source::new(private, host, false, 0);
            let verdicts =
                [1, 2, 3].map(|sequence| source.judge(stranger(), Ssrc(5), SeqNo(sequence), 1));
            assert_eq!(verdicts, [Verdict::Drop; 3]);
        }
    }

    #[test]
    fn a_peer_that_moves_from_one_nat_behind_another_is_locked_there() {
        let private = address("10.0.0.5:4000");
        let mut source = Source::new(private, Some(peer().ip()), false, 0);
        let judged = [1, 2, 3].map(|sequence| source.judge(peer(), Ssrc(5), SeqNo(sequence), 1));
        assert_eq!(judged[2], Verdict::Lock);
        assert!(!source.renew(private, Some(peer().ip()), 2));
        assert_eq!(source.judge(stranger(), Ssrc(6), SeqNo(1), 2), Verdict::Drop);
        assert!(source.renew(private, Some(stranger().ip()), 3));
        assert_eq!(source.destination(), peer(), "until it is heard elsewhere");
        let judged =
            [1, 2, 3].map(|sequence| source.judge(stranger(), Ssrc(6), SeqNo(sequence), 4));
        assert_eq!(judged, [Verdict::Drop, Verdict::Drop, Verdict::Lock]);
        assert_eq!(source.destination(), stranger());
        // Another proxy takes over the signalling, but the sound comes from the same address as
        // before.
        let mut source = Source::new(peer(), Some(address("192.0.2.9:5060").ip()), false, 0);
        assert_eq!(source.judge(peer(), Ssrc(5), SeqNo(1), 1), Verdict::Lock);
        assert!(!source.renew(peer(), Some(address("192.0.2.10:5060").ip()), 2));
        assert_eq!(source.judge(peer(), Ssrc(5), SeqNo(2), 3), Verdict::Accept);
    }

    #[test]
    fn old_media_from_the_same_host_gives_way_to_the_peer() {
        let mut source = Source::new(peer(), Some(peer().ip()), false, 0);
        let old = address("192.0.2.1:39000");
        let verdicts = [1, 2, 3].map(|sequence| source.judge(old, Ssrc(5), SeqNo(sequence), 1));
        assert_eq!(verdicts, [Verdict::Drop, Verdict::Drop, Verdict::Lock]);
        assert_eq!(source.settled(1 + RELOCK_FRAMES - 1), None);
        assert_eq!(source.settled(1 + RELOCK_FRAMES), Some(old), "a NAT, then");
        assert_eq!(source.judge(peer(), Ssrc(1), SeqNo(10), 2), Verdict::Lock);
        assert_eq!(source.settled(2), Some(peer()));
        assert_eq!(source.judge(old, Ssrc(5), SeqNo(4), 3), Verdict::Drop);
        assert_eq!(source.destination(), peer());
    }

    #[test]
    fn a_re_invite_moves_the_source_without_a_gap() {
        let mut source = Source::new(peer(), None, false, 0);
        source.judge(peer(), Ssrc(1), SeqNo(10), 1);
        assert!(!source.renew(peer(), None, 2), "the same address keeps the lock");
        let moved = address("192.0.2.1:4002");
        assert!(source.renew(moved, None, 2));
        assert_eq!(source.destination(), moved);
        assert_eq!(source.judge(peer(), Ssrc(1), SeqNo(11), 3), Verdict::Accept);
        assert!(!source.is_locked(), "late packets lock nothing");
        assert_eq!(source.judge(moved, Ssrc(1), SeqNo(12), 4), Verdict::Lock);
        assert_eq!(source.judge(peer(), Ssrc(1), SeqNo(13), 5), Verdict::Drop);
    }

    #[test]
    fn only_a_long_silence_opens_the_lock_for_who_goes_on_elsewhere() {
        let mut source = Source::new(peer(), None, true, 0);
        source.judge(peer(), Ssrc(1), SeqNo(10), 100);
        assert!(!source.give_up_if_silent(100 + RELOCK_FRAMES - 1));
        assert!(source.give_up_if_silent(100 + RELOCK_FRAMES));
        assert!(!source.give_up_if_silent(1_000), "once");
        for sequence in 1..3 {
            assert_eq!(source.judge(stranger(), Ssrc(1), SeqNo(sequence), 1_000), Verdict::Drop);
        }
        assert_eq!(source.destination(), peer(), "until somebody else is locked");
        assert_eq!(source.judge(stranger(), Ssrc(1), SeqNo(3), 1_000), Verdict::Lock);
        assert_eq!(source.destination(), stranger());
    }

    #[test]
    fn a_peer_that_speaks_again_is_locked_at_once() {
        let mut source = Source::new(peer(), None, false, 0);
        let natted = address("192.0.2.1:61000");
        for sequence in 1..4 {
            source.judge(natted, Ssrc(5), SeqNo(sequence), 1);
        }
        assert!(source.give_up_if_silent(1 + RELOCK_FRAMES));
        assert_eq!(source.judge(natted, Ssrc(77), SeqNo(900), 400), Verdict::Lock);
    }
}
