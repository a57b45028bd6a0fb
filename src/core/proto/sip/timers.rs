//! The timers of RFC 3261 and RFC 6026: their lengths, the doubling of retransmissions, and the
//! schedule that says which machine is due next.
//!
//! Comes in: instants, as arguments. Goes out: instants. Nothing here reads a clock. The lengths
//! are those for unreliable transports (UDP). Over a reliable transport A, E and G never fire, and
//! D, I, J and K are zero, because no message arrives twice.
//!
//! | Timer | Length | Section | Meaning |
//! |---|---|---|---|
//! | A | T1, doubles | 17.1.1.2 | INVITE request is sent again |
//! | B | 64*T1 | 17.1.1.2 | INVITE transaction of the client gives up |
//! | D | 32 s | 17.1.1.2 | repeated refusals of our INVITE are absorbed |
//! | E | T1, doubles to T2 | 17.1.2.2 | non-INVITE request is sent again |
//! | F | 64*T1 | 17.1.2.2 | non-INVITE transaction of the client gives up |
//! | G | T1, doubles to T2 | 17.2.1 | refusal of an INVITE is sent again |
//! | H | 64*T1 | 17.2.1 | the wait for the ACK of a refusal ends |
//! | I | T4 | 17.2.1 | repeated ACKs of a refusal are absorbed |
//! | J | 64*T1 | 17.2.2 | repeated non-INVITE requests are answered |
//! | K | T4 | 17.1.2.2 | repeated responses are absorbed |
//! | L | 64*T1 | RFC 6026, 7.1 | repeated INVITEs are absorbed after a 2xx |
//! | M | 64*T1 | RFC 6026, 7.2 | more 2xx of our INVITE may come, from forks |

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// RFC 3261 §17.1.1.1, T1: estimate of the round-trip time.
pub const T1: Duration = Duration::from_millis(500);
/// RFC 3261 §17.1.2.2, T2: longest pause between two retransmissions.
pub const T2: Duration = Duration::from_secs(4);
/// RFC 3261 §17.1.2.2, T4: longest time that a message stays in the network.
pub const T4: Duration = Duration::from_secs(5);
/// 64*T1: how long a transaction waits before it gives up (RFC 3261 §17.1.1.2, §13.3.1.4).
pub const SIXTY_FOUR_T1: Duration = Duration::from_secs(32);

/// How long the NOTIFY requests about a REFER are awaited (RFC 3515 §2.4.4), unless the peer names
/// a time itself: as long as a proxy lets a call ring (RFC 3261 §16.6).
pub const REFER_EXPIRES: Duration = Duration::from_secs(180);
/// The longest time for which the NOTIFY requests about a REFER are awaited, whatever the peer
/// names.
pub const LONGEST_REFER: Duration = Duration::from_secs(600);

/// A timer by its letter in the RFC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// RFC 3261 §17.1.1.2: INVITE request is sent again; first interval, then doubles.
    A,
    /// RFC 3261 §17.1.1.2: INVITE client transaction gives up.
    B,
    /// RFC 3261 §17.1.1.2: repeated refusals of our INVITE are absorbed.
    D,
    /// RFC 3261 §17.1.2.2: non-INVITE request is sent again; first interval, then doubles to T2.
    E,
    /// RFC 3261 §17.1.2.2: non-INVITE client transaction gives up.
    F,
    /// RFC 3261 §17.2.1: refusal of an INVITE is sent again; first interval, then doubles to T2.
    G,
    /// RFC 3261 §17.2.1: the wait for the ACK of a refusal ends.
    H,
    /// RFC 3261 §17.2.1: repeated ACKs of a refusal are absorbed.
    I,
    /// RFC 3261 §17.2.2: repeated non-INVITE requests are answered.
    J,
    /// RFC 3261 §17.1.2.2: repeated responses are absorbed.
    K,
    /// RFC 6026 §7.1: repeated INVITEs are absorbed after a 2xx.
    L,
    /// RFC 6026 §7.2: more 2xx of our INVITE may come, from forks.
    M,
}

impl Timer {
    /// The length over an unreliable transport; for A, E and G the first interval.
    pub const fn length(self) -> Duration {
        match self {
            Self::A | Self::E | Self::G => T1,
            Self::B | Self::F | Self::H | Self::J | Self::L | Self::M => SIXTY_FOUR_T1,
            Self::D => Duration::from_secs(32),
            Self::I | Self::K => T4,
        }
    }

    /// When the timer fires if it is started at `now`.
    pub fn from(self, now: Instant) -> Instant {
        now + self.length()
    }

    /// When the timer fires if it is started at `now`. Only for D, I, J and K, which wait for
    /// retransmissions: over a reliable transport they fire at once.
    pub fn absorb(self, now: Instant, is_reliable: bool) -> Instant {
        debug_assert!(matches!(self, Self::D | Self::I | Self::J | Self::K), "{self:?}");
        if is_reliable { now } else { self.from(now) }
    }
}

/// When a message is sent again: after T1, then at doubling intervals up to a longest one.
///
/// Timer A (RFC 3261 §17.1.1.2), timers E and G (§17.1.2.2, §17.2.1), the 2xx of a dialog
/// (§13.3.1.4) and reliable provisional responses (RFC 3262 §3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retransmission {
    interval: Duration,
    longest: Duration,
    due: Instant,
}

impl Retransmission {
    /// The message was sent for the first time at `now`; the interval grows up to T2.
    pub fn start(now: Instant) -> Self {
        Self { interval: T1, longest: T2, due: now + T1 }
    }

    /// As `start`; `None` over a reliable transport, which needs no retransmissions.
    pub fn over(now: Instant, is_reliable: bool) -> Option<Self> {
        (!is_reliable).then(|| Self::start(now))
    }

    /// As `start`, but the interval keeps doubling beyond T2 (timer A, RFC 3262 §3).
    pub fn doubling(now: Instant) -> Self {
        Self { longest: SIXTY_FOUR_T1, ..Self::start(now) }
    }

    /// When the message has to be sent again.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// The message was sent again at `now`.
    pub fn sent(&mut self, now: Instant) {
        self.interval = (self.interval * 2).min(self.longest);
        self.due = now + self.interval;
    }

    /// From `now` on, every T2 only (RFC 3261 §17.1.2.2, after a provisional response).
    pub fn slow_down(&mut self) {
        self.interval = T2;
    }
}

/// The next deadlines of many machines, one for each, and the earliest of all.
#[derive(Debug)]
pub(crate) struct Schedule<K> {
    by_owner: BTreeMap<K, Instant>,
    by_time: BTreeSet<(Instant, K)>,
}

impl<K: Ord + Copy> Schedule<K> {
    /// An empty schedule.
    pub(crate) fn new() -> Self {
        Self { by_owner: BTreeMap::new(), by_time: BTreeSet::new() }
    }

    /// Sets the one deadline of `owner`; `None` removes it.
    pub(crate) fn set(&mut self, owner: K, due: Option<Instant>) {
        let before = match due {
            Some(due) => self.by_owner.insert(owner, due),
            None => self.by_owner.remove(&owner),
        };
        if let Some(before) = before {
            self.by_time.remove(&(before, owner));
        }
        if let Some(due) = due {
            self.by_time.insert((due, owner));
        }
    }

    /// Removes and returns the owner with the earliest deadline, unless that is after `now`.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<K> {
        let &(due, owner) = self.by_time.first()?;
        if due > now {
            return None;
        }
        self.set(owner, None);
        Some(owner)
    }

    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_follow_the_table_of_appendix_a() {
        assert_eq!(SIXTY_FOUR_T1, 64 * T1);
        for timer in [Timer::B, Timer::F, Timer::H, Timer::J, Timer::L, Timer::M] {
            assert_eq!(timer.length(), 64 * T1, "{timer:?}");
        }
        for timer in [Timer::A, Timer::E, Timer::G] {
            assert_eq!(timer.length(), T1, "{timer:?}");
        }
        for timer in [Timer::I, Timer::K] {
            assert_eq!(timer.length(), T4, "{timer:?}");
        }
        assert!(Timer::D.length() >= Duration::from_secs(32));
    }

    #[test]
    fn retransmissions_double_up_to_t2() {
        let start = Instant::now();
        let mut resend = Retransmission::start(start);
        let mut seen = Vec::new();
        while resend.due() < start + SIXTY_FOUR_T1 {
            seen.push((resend.due() - start).as_millis());
            resend.sent(resend.due());
        }
        assert_eq!(seen, [500, 1500, 3500, 7500, 11500, 15500, 19500, 23500, 27500, 31500]);
    }

    #[test]
    fn each_owner_stands_on_the_schedule_once() {
        let now = Instant::now();
        let mut schedule = Schedule::new();
        schedule.set(1, Some(now + T2));
        schedule.set(2, Some(now + T4));
        schedule.set(2, Some(now + T1));
        assert_eq!(schedule.next(), Some(now + T1));
        assert_eq!(schedule.pop_due(now), None);
        assert_eq!(schedule.pop_due(now + T4), Some(2));
        assert_eq!(schedule.pop_due(now + T4), Some(1));
        assert_eq!(schedule.pop_due(now + T4), None);
        assert_eq!(schedule.next(), None);
    }
}
