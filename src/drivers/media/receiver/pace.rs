//! Detects whether a sender's timestamps run at the speed of its sound.
//!
//! Input: a packet of sound, its place by its timestamp, and when it came. Output: its place, if
//! that is another one. Some senders count Opus at 24,000 Hz, or give all packets one timestamp; by
//! such timestamps, sound would overlap or have gaps. So packets with consecutive sequence numbers
//! are placed by their own length, as long as the time between their arrivals agrees with it. If it
//! does not, the sender makes pauses, and its timestamps are right.

use aftertone_core::proto::rtp::seq::ExtendedSequence;

use super::horizon::Horizon;

/// The pace of one source, in samples on the receiver's time line.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<SoundPacket>,
    /// Whether packets are placed by their length.
    by_length: bool,
    run: PaceRun,
    /// How much later than by their timestamps packets have been placed since the last decision.
    debt: i64,
}

/// A packet of sound.
#[derive(Debug, Clone, Copy)]
pub(super) struct SoundPacket {
    /// The sequence number.
    pub sequence: i64,
    /// The place of the sound.
    pub time: i64,
    /// The number of samples.
    pub len: i64,
    /// The time of arrival: the number of the tick, in samples.
    pub arrival: i64,
}

/// Consecutive packets whose timestamps differ from their lengths in the same direction.
#[derive(Debug, Clone, Copy, Default)]
struct PaceRun {
    /// Negative if timestamps are too slow.
    sign: i64,
    by_time: i64,
    by_length: i64,
    since: i64,
}

/// The decision is made again whenever the two differ by this many frames.
const DECIDED: i64 = 4;
/// In frames: packets that come earlier than both times say were delayed somewhere, and show
/// nothing.
const EARLY: i64 = 2;

impl Pace {
    /// The place of a packet whose timestamp is wrong; `None` if it is not, or if nothing shows it.
    /// `sound.time` is the place by the timestamp, and `order` has the packet's sequence number
    /// already.
    pub(super) fn place(
        &mut self,
        sound: &SoundPacket,
        order: &ExtendedSequence,
        horizon: &Horizon,
    ) -> Option<i64> {
        let last = self.last?;
        if order.highest() != Some(sound.sequence) {
            let behind = last.sequence - sound.sequence;
            return self.by_length.then(|| last.time - behind * sound.len);
        }
        if sound.len == 0 {
            return None;
        }
        if sound.sequence <= last.sequence || horizon.is_jump(sound.time, sound.len) {
            *self = Self::default();
            return None;
        }
        let missing = order.missing_since(last.sequence);
        let length = last.len * (1 + missing);
        let (by_length, by_time) = (last.time + length, sound.time);
        let differs = by_time - by_length;
        if differs == 0 {
            (self.by_length, self.run) = (false, PaceRun::default());
            return None;
        }
        let goes_on = differs.signum() == self.run.sign;
        if missing > 0 && !goes_on && !self.by_length {
            // The missing packets may have been no sound, but packets of a key beside it.
            return None;
        }
        if !goes_on {
            self.run =
                PaceRun { sign: differs.signum(), since: last.arrival, ..PaceRun::default() };
            // Sound does not overlap, except for a little if something was appended to the
            // payloads.
            self.by_length = differs < 0 && -differs * 4 >= length;
        }
        self.run.by_time += by_time - last.time;
        self.run.by_length += length;
        self.decide(sound.arrival, horizon.frame_len);
        if self.by_length {
            self.debt -= differs.min(0);
            return Some(by_length);
        }
        let paid = self.debt.min(differs.max(0));
        self.debt -= paid;
        (paid != 0).then_some(by_time - paid)
    }

    /// Notes the place of the newest packet.
    pub(super) fn placed(&mut self, sound: SoundPacket) {
        self.last = Some(sound);
    }

    /// Notes that the packet with this sequence number contains no new sound.
    pub(super) fn passed_over(&mut self, sequence: i64) {
        if let Some(last) = &mut self.last {
            last.sequence = sequence;
        }
    }

    /// The sequence number of the newest packet.
    pub(super) fn last(&self) -> Option<i64> {
        self.last.map(|last| last.sequence)
    }

    fn decide(&mut self, arrival: i64, frame: i64) {
        let PaceRun { sign, by_time, by_length, since } = self.run;
        if (by_time - by_length).abs() < DECIDED * frame {
            return;
        }
        let passed = arrival - since;
        if passed >= by_time.min(by_length) - EARLY * frame {
            self.by_length = (passed - by_length).abs() < (passed - by_time).abs();
            if self.by_length {
                self.debt = 0;
            }
        }
        self.run = PaceRun { sign, since: arrival, ..PaceRun::default() };
    }
}

#[cfg(test)]
mod tests {
    use aftertone_core::proto::rtp::SeqNo;

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

    /// Places packets that come every 20 ms, whose timestamps differ by `step` samples.
    fn places(step: i64, numbers: &[u16]) -> Vec<Option<i64>> {
        let (mut pace, mut order) = (Pace::default(), ExtendedSequence::default());
        let place = |number: &u16| {
            order.place(SeqNo(*number));
            let (sequence, arrival) = (i64::from(*number), 160 * i64::from(*number));
            let sound = SoundPacket { sequence, time: step * sequence, len: 160, arrival };
            let place = pace.place(&sound, &order, &PLAYING);
            if order.highest() == Some(sequence) {
                pace.placed(SoundPacket { time: place.unwrap_or(sound.time), ..sound });
            }
            place
        };
        numbers.iter().map(place).collect()
    }

    #[test]
    fn right_timestamps_are_left_alone() {
        assert_eq!(places(160, &[0, 1, 2, 4, 3, 5]), [None; 6]);
    }

    #[test]
    fn packets_with_slow_timestamps_are_placed_by_their_length_even_if_overtaken() {
        let placed = [None, Some(160), Some(320), Some(640), Some(480)];
        assert_eq!(places(80, &[0, 1, 2, 4, 3]), placed);
    }

    #[test]
    fn a_packet_whose_clock_jumps_begins_a_new_pace() {
        let mut pace = Pace::default();
        let mut order = ExtendedSequence::default();
        order.place(SeqNo(1));
        pace.placed(SoundPacket { sequence: 1, time: 0, len: 160, arrival: 0 });
        order.place(SeqNo(2));
        let far = SoundPacket { sequence: 2, time: 1 << 30, len: 160, arrival: 160 };
        assert_eq!(pace.place(&far, &order, &PLAYING), None);
        assert_eq!(pace.last(), None);
    }
}
