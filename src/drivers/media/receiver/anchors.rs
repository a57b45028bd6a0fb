//! Where a sender's media time lies on the receiver's time line, before and after a jump of its
//! clock.
//!
//! Input: packets with their sequence numbers and media times in samples. Output: their places. A
//! packet that was sent before the jump is placed before the jump, even if it comes after it.

use super::horizon::Horizon;

/// The present clock of a sender, and the one before its last jump.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    /// `None` until the first packet, and after a restart.
    now: Option<Anchor>,
    before: Option<Anchor>,
}

/// What is added to a sender's media time, from a sequence number on.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    from: i64,
    offset: i64,
    /// Our time of the packet `from`; no packet before it is placed after this.
    start: i64,
    /// The newest packet that was placed by this anchor, and where it ends.
    newest: i64,
    end: i64,
}

/// Which of the sender's clocks gives the place of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByClock {
    Now,
    Before,
}

impl Anchors {
    /// What is added to the sender's present media time.
    pub(super) fn offset(&self) -> Option<i64> {
        self.now.map(|anchor| anchor.offset)
    }

    /// Places `len` samples at the sender's time `at`. If the newest packet is far from its
    /// expected place, the sender's clock has changed. A packet that was overtaken has no place if
    /// it is far from the expected one.
    pub(super) fn place(
        &mut self,
        sequence: i64,
        at: i64,
        len: i64,
        is_newest: bool,
        horizon: &Horizon,
    ) -> Option<i64> {
        let found = self.find(sequence, at, len).filter(|(_, time)| !horizon.is_jump(*time, len));
        let Some((by, time)) = found else {
            if self.now.is_some() && !is_newest {
                return None;
            }
            let time = horizon.after_all();
            self.move_to(sequence, at, time, len);
            return Some(time);
        };
        let anchor = match by {
            ByClock::Now => &mut self.now,
            ByClock::Before => &mut self.before,
        };
        if let Some(anchor) = anchor {
            if sequence >= anchor.newest {
                (anchor.newest, anchor.end) = (sequence, time + len);
            }
            if by == ByClock::Now && sequence < anchor.from {
                // The new clock began earlier than was assumed.
                (anchor.from, anchor.start) = (sequence, time);
            }
        }
        Some(time)
    }

    /// The place of a key's packet by its timestamp, if that is plausible; `len` is the duration
    /// of the key. Only sound shows that the sender's clock has changed: timestamps and durations
    /// of keys may be wrong.
    pub(super) fn place_key(
        &mut self,
        sequence: i64,
        at: i64,
        len: i64,
        horizon: &Horizon,
    ) -> Option<i64> {
        if self.now.is_none() {
            let time = horizon.after_all();
            self.move_to(sequence, at, time, 0);
            return Some(time);
        }
        let (_, time) = self.find(sequence, at, 0)?;
        (!horizon.is_jump(time, len)).then_some(time)
    }

    /// From the packet `sequence` on, the sender's time `at` lies at `time`.
    pub(super) fn move_to(&mut self, sequence: i64, at: i64, time: i64, len: i64) {
        let anchor = Anchor {
            from: sequence,
            offset: time - at,
            start: time,
            newest: sequence,
            end: time + len,
        };
        self.before = self.now.replace(anchor);
    }

    /// Everything from the packet `sequence` on, which is at `time`, is `delay` later.
    pub(super) fn delay(&mut self, sequence: i64, delay: i64, time: i64, len: i64) {
        if let Some(offset) = self.offset() {
            self.move_to(sequence, time - offset - delay, time, len);
        }
    }

    /// Our time of `at`, and the clock that gives it. A packet that was overtaken by a jump is
    /// placed before the jump, where it was sent, by the former or the present clock. `None` if
    /// neither fits, or if a packet that was sent earlier lies after it.
    fn find(&self, sequence: i64, at: i64, len: i64) -> Option<(ByClock, i64)> {
        let anchor = self.now?;
        if sequence >= anchor.from {
            return Some((ByClock::Now, at + anchor.offset));
        }
        let before = self.before;
        let limit = before.filter(|before| sequence < before.from).unwrap_or(anchor).start;
        let fits = |time: &i64| time + len <= limit;
        if let Some(time) = before.map(|before| at + before.offset).filter(fits) {
            return Some((ByClock::Before, time));
        }
        let is_after = |time: &i64| {
            before.is_none_or(|before| sequence > before.newest && *time >= before.end)
        };
        let time = Some(at + anchor.offset).filter(fits).filter(is_after)?;
        Some((ByClock::Now, time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAYING: Horizon = Horizon {
        next: Some(0),
        edge: 480,
        is_empty: false,
        is_dry: false,
        packet_len: 160,
        reserve: 320,
        frame_len: 160,
    };

    #[test]
    fn a_jump_is_placed_after_all_and_what_it_overtook_before_it() {
        let mut anchors = Anchors::default();
        assert_eq!(anchors.place(10, 7_000, 160, true, &PLAYING), Some(480));
        assert_eq!(anchors.place(11, 7_160, 160, true, &PLAYING), Some(640));
        let later = Horizon { edge: 960, ..PLAYING };
        // The packet 13 has another clock; 12 was sent before it, by the former clock.
        assert_eq!(anchors.place(13, 9_000_000, 160, true, &later), Some(960));
        assert_eq!(anchors.place(12, 7_320, 160, false, &later), Some(800));
        assert_eq!(anchors.place(12, 50_000, 160, false, &later), None);
        assert_eq!(anchors.place(14, 9_000_160, 160, true, &later), Some(1_120));
    }

    #[test]
    fn a_key_does_not_move_the_clock() {
        let mut anchors = Anchors::default();
        assert_eq!(anchors.place_key(1, 100, 160, &PLAYING), Some(480));
        assert_eq!(anchors.place_key(2, 1 << 40, 160, &PLAYING), None);
        assert_eq!(anchors.offset(), Some(380));
    }

    #[test]
    fn a_delay_holds_from_its_packet_on() {
        let mut anchors = Anchors::default();
        anchors.move_to(5, 0, 1_000, 160);
        anchors.delay(6, 40, 1_200, 160);
        assert_eq!(anchors.place(7, 320, 160, true, &PLAYING), Some(1_360));
    }
}
