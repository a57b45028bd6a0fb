//! RTP sequence numbers and timestamps, extended beyond their wrap-around (RFC 3550 section A.1).

use super::{RtpTimestamp, SeqNo};

/// Extends sequence numbers beyond 65,535; detects duplicates and restarts.
#[derive(Debug, Clone, Default)]
pub struct ExtendedSequence {
    highest: Option<i64>,
    /// Which of the last 128 numbers have come: bit 0 is the highest.
    seen: u128,
    /// The successor of the last number that was far from all others.
    doubtful: Option<SeqNo>,
}

/// How a sequence number relates to the previous ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequencePlace {
    /// Near the others, and new: the highest so far, or one that was overtaken.
    At(i64),
    /// The number has come before.
    Duplicate,
    /// Far from all others: a stray packet, or the first one after a restart. The next packet
    /// decides.
    Doubtful,
    /// The number follows the last doubtful one, so the sender has restarted its count. The
    /// doubtful packet belongs right before this one. Both extended numbers are higher than all
    /// previous ones.
    Restarted(i64),
}

/// A gap of this length is no longer taken for loss: `MAX_DROPOUT` of section A.1.
const MAX_DROPOUT: i64 = 3_000;
/// How far back an overtaken packet may be: `MAX_MISORDER` of section A.1.
const MAX_MISORDER: i64 = 100;

impl ExtendedSequence {
    /// Extends a number to the value nearest to the highest one. The first number is not changed.
    pub fn place(&mut self, sequence: SeqNo) -> SequencePlace {
        let Some(highest) = self.highest else {
            self.highest = Some(i64::from(sequence.0));
            self.seen = 1;
            return SequencePlace::At(i64::from(sequence.0));
        };
        let step = sequence.since(lower_bits(highest));
        let ahead = step as u16;
        let step = i64::from(step);
        if step > 0 && step < MAX_DROPOUT {
            self.highest = Some(highest + step);
            self.seen = self.seen.checked_shl(u32::from(ahead)).unwrap_or(0) | 1;
            return SequencePlace::At(highest + step);
        }
        if (-MAX_MISORDER..=0).contains(&step) {
            let bit = 1 << step.unsigned_abs();
            let is_new = self.seen & bit == 0;
            self.seen |= bit;
            return if is_new {
                SequencePlace::At(highest + step)
            } else {
                SequencePlace::Duplicate
            };
        }
        if self.doubtful.take() == Some(sequence) {
            let restarted = highest + i64::from(ahead);
            self.highest = Some(restarted);
            self.seen = 0b11;
            return SequencePlace::Restarted(restarted);
        }
        self.doubtful = Some(sequence.next());
        SequencePlace::Doubtful
    }

    /// Whether the number is that of an overtaken packet, or the highest one again.
    pub fn is_past(&self, sequence: SeqNo) -> bool {
        self.highest.is_some_and(|highest| {
            let step = sequence.since(lower_bits(highest));
            (-MAX_MISORDER..=0).contains(&i64::from(step))
        })
    }

    /// How many numbers between `from` and the highest have not come. Those too far back to be
    /// known count as missing.
    pub fn missing_since(&self, from: i64) -> i64 {
        let between = self.highest.map_or(0, |highest| highest - from - 1).max(0);
        let known = between.min(i64::from(u128::BITS) - 1);
        let come = (self.seen >> 1) & !(u128::MAX << known);
        between - i64::from(come.count_ones())
    }

    /// The highest number so far.
    pub fn highest(&self) -> Option<i64> {
        self.highest
    }
}

/// The number itself, of one that was extended.
fn lower_bits(extended: i64) -> SeqNo {
    SeqNo(extended as u16)
}

/// Extends RTP timestamps beyond 2^32: media time in ticks of the clock rate.
#[derive(Debug, Clone, Copy, Default)]
pub struct MediaClock(Option<i64>);

impl MediaClock {
    /// Extends a timestamp to the time nearest to the latest one. The first timestamp is not
    /// changed.
    pub fn extend(&mut self, timestamp: RtpTimestamp) -> i64 {
        let last = self.0.unwrap_or(i64::from(timestamp.0));
        let step = timestamp.since(RtpTimestamp(last as u32));
        let extended = last + i64::from(step);
        self.0 = Some(last.max(extended));
        extended
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_count_on_past_the_wrap_in_either_order() {
        let mut sequence = ExtendedSequence::default();
        assert_eq!(sequence.place(SeqNo(65_534)), SequencePlace::At(65_534));
        assert_eq!(sequence.place(SeqNo(1)), SequencePlace::At(65_537));
        assert_eq!(
            [65_535, 1, 2].map(|number| sequence.is_past(SeqNo(number))),
            [true, true, false]
        );
        assert_eq!(sequence.place(SeqNo(65_535)), SequencePlace::At(65_535));
        assert_eq!(sequence.place(SeqNo(2)), SequencePlace::At(65_538));
        let mut clock = MediaClock::default();
        assert_eq!(clock.extend(RtpTimestamp(u32::MAX)), i64::from(u32::MAX));
        assert_eq!(clock.extend(RtpTimestamp(159)), i64::from(u32::MAX) + 160);
        assert_eq!(clock.extend(RtpTimestamp(u32::MAX)), i64::from(u32::MAX));
    }

    #[test]
    fn what_came_twice_is_a_duplicate_whenever_it_comes() {
        let mut sequence = ExtendedSequence::default();
        for number in [5, 6, 8] {
            assert_eq!(sequence.place(SeqNo(number)), SequencePlace::At(i64::from(number)));
        }
        assert_eq!(sequence.place(SeqNo(6)), SequencePlace::Duplicate);
        assert_eq!(sequence.place(SeqNo(8)), SequencePlace::Duplicate);
        assert_eq!(sequence.place(SeqNo(7)), SequencePlace::At(7));
        assert_eq!(sequence.place(SeqNo(7)), SequencePlace::Duplicate);
    }

    #[test]
    fn what_is_missing_between_two_numbers_is_counted() {
        let mut sequence = ExtendedSequence::default();
        assert_eq!(sequence.missing_since(0), 0);
        for number in [10, 11, 13, 17] {
            sequence.place(SeqNo(number));
        }
        assert_eq!([16, 13, 11, 10, 9].map(|from| sequence.missing_since(from)), [0, 3, 4, 4, 4]);
        sequence.place(SeqNo(12));
        assert_eq!(sequence.missing_since(10), 3);
        sequence.place(SeqNo(1_000));
        assert_eq!(sequence.missing_since(999), 0);
        assert_eq!(sequence.missing_since(17), 982);
    }

    #[test]
    fn two_in_a_row_are_a_restart_and_one_alone_is_not() {
        let mut sequence = ExtendedSequence::default();
        assert_eq!(sequence.place(SeqNo(30_000)), SequencePlace::At(30_000));
        assert_eq!(sequence.place(SeqNo(10)), SequencePlace::Doubtful);
        assert_eq!(sequence.place(SeqNo(30_001)), SequencePlace::At(30_001));
        assert_eq!(sequence.place(SeqNo(20)), SequencePlace::Doubtful);
        assert_eq!(sequence.place(SeqNo(21)), SequencePlace::Restarted(65_536 + 21));
        assert_eq!(sequence.place(SeqNo(20)), SequencePlace::Duplicate);
        assert_eq!(sequence.place(SeqNo(22)), SequencePlace::At(65_536 + 22));
    }

    proptest! {
        #[test]
        fn the_lower_bits_are_the_number_itself(numbers in prop::collection::vec(any::<u16>(), 1..100)) {
            let mut sequence = ExtendedSequence::default();
            for number in numbers {
                let before = sequence.highest();
                match sequence.place(SeqNo(number)) {
                    SequencePlace::At(at) => prop_assert_eq!(at as u16, number),
                    SequencePlace::Restarted(at) => {
                        prop_assert_eq!(at as u16, number);
                        prop_assert!(before.is_some_and(|before| at - 1 > before));
                    }
                    SequencePlace::Duplicate | SequencePlace::Doubtful => prop_assert_eq!(before, sequence.highest()),
                }
            }
        }
    }
}
