//! How far playout has come: what the place of a new packet is compared with.

/// The state of playout when a packet comes. Times are in samples.
#[derive(Debug, Clone, Copy)]
pub(super) struct Horizon {
    /// Time of the next sample to be decoded; `None` before playout has begun.
    pub next: Option<i64>,
    /// The end of everything that has come.
    pub edge: i64,
    /// Whether neither sound nor a key waits.
    pub is_empty: bool,
    /// Whether playout has run out of sound.
    pub is_dry: bool,
    /// Samples in a packet, as far as is known.
    pub packet_len: i64,
    /// Samples of reserve beyond one packet.
    pub reserve: i64,
    /// Samples in a frame.
    pub frame_len: i64,
}

/// A packet in sequence that is this many frames from its expected place shows a new start of the
/// sender's clock.
const JUMP: i64 = 25;
/// The same after a pause, in frames beyond the reserve: then packets can be early only by their
/// jitter.
const EARLY: i64 = 5;

impl Horizon {
    /// Whether a packet of `len` samples at `time` is so far from its expected place that the
    /// sender's clock must have changed.
    pub(super) fn is_jump(&self, time: i64, len: i64) -> bool {
        let jump = JUMP * self.frame_len;
        let (earliest, latest) = match self.next {
            // There is nothing to compare with.
            None if self.is_empty => return false,
            None => (self.edge, self.edge + jump),
            Some(next) if self.is_dry => {
                (next, next + self.packet_len + self.reserve + EARLY * self.frame_len)
            }
            Some(next) => (next, self.edge + jump),
        };
        time > latest || time + len < earliest - jump
    }

    /// The end of everything that has come; after a pause, with the reserve added.
    pub(super) fn after_all(&self) -> i64 {
        if self.is_dry { self.edge + self.reserve } else { self.edge }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAYING: Horizon = Horizon {
        next: Some(1_600),
        edge: 2_400,
        is_empty: false,
        is_dry: false,
        packet_len: 160,
        reserve: 320,
        frame_len: 160,
    };

    #[test]
    fn before_playout_only_what_waits_can_be_jumped_away_from() {
        let empty = Horizon { next: None, edge: 0, is_empty: true, ..PLAYING };
        assert!(!empty.is_jump(1 << 40, 160));
        let filling = Horizon { is_empty: false, ..empty };
        assert!(filling.is_jump(4_001, 160) && !filling.is_jump(4_000, 160));
    }

    #[test]
    fn after_a_pause_packets_are_early_by_their_jitter_alone() {
        assert!(!PLAYING.is_jump(2_400 + 4_000, 160) && PLAYING.is_jump(2_400 + 4_001, 160));
        let dry = Horizon { edge: 1_600, is_dry: true, ..PLAYING };
        assert!(!dry.is_jump(2_880, 160) && dry.is_jump(2_881, 160));
        assert_eq!((PLAYING.after_all(), dry.after_all()), (2_400, 1_920));
    }
}
