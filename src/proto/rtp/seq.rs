//! Numbers that wrap round, made to count on (RFC 3550 section A.1).

/// Sequence numbers, counted on past 65,535.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtendedSequence(Option<i64>);

/// RTP timestamps, counted on past 2^32: media time in ticks of the clock rate.
#[derive(Debug, Clone, Copy, Default)]
pub struct MediaClock(Option<i64>);

impl ExtendedSequence {
    /// The number that is nearest to the last one. The first is itself.
    pub fn extend(&mut self, sequence: u16) -> i64 {
        let last = self.0.unwrap_or(i64::from(sequence));
        let step = sequence.wrapping_sub(last as u16) as i16;
        let extended = last + i64::from(step);
        self.0 = Some(self.0.map_or(extended, |last| last.max(extended)));
        extended
    }
}

impl MediaClock {
    /// The time that is nearest to the latest one. The first is itself.
    pub fn extend(&mut self, timestamp: u32) -> i64 {
        let last = self.0.unwrap_or(i64::from(timestamp));
        let step = timestamp.wrapping_sub(last as u32) as i32;
        let extended = last + i64::from(step);
        self.0 = Some(self.0.map_or(extended, |last| last.max(extended)));
        extended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_on_past_the_wrap_in_either_order() {
        let mut sequence = ExtendedSequence::default();
        assert_eq!(sequence.extend(65_534), 65_534);
        assert_eq!(sequence.extend(1), 65_537);
        assert_eq!(sequence.extend(65_535), 65_535);
        assert_eq!(sequence.extend(2), 65_538);
        let mut clock = MediaClock::default();
        assert_eq!(clock.extend(u32::MAX), i64::from(u32::MAX));
        assert_eq!(clock.extend(159), i64::from(u32::MAX) + 160);
        assert_eq!(clock.extend(u32::MAX), i64::from(u32::MAX));
    }
}
