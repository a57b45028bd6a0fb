//! Detects that two presses of a key are one: many phones report each press twice, in RTP and by
//! SIP INFO.
//!
//! Input: presses from either way, with the frame in which they came. Output: whether a press is
//! new.

use std::collections::VecDeque;

use aftertone_core::{audio::frame::FRAMES_PER_SECOND, model::Tone};

/// How much later the other way may report a press: INFO is repeated after 0.5 and 1.5 s when it is
/// lost (RFC 3261 section 17.1.2.1), and some phones send it when the key is released.
const WINDOW: u64 = 2 * FRAMES_PER_SECOND as u64;
/// The largest number of presses that are remembered.
const MAX_PRESSES: usize = 32;

/// The way in which a press was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Telephone events (RFC 4733).
    Rtp,
    /// SIP INFO.
    Sip,
}

/// Presses that were reported in one way, and may still be reported in the other.
#[derive(Debug, Default)]
pub(super) struct KeyPairing {
    /// Oldest first.
    unpaired: VecDeque<PairedPress>,
}

#[derive(Debug, Clone, Copy)]
struct PairedPress {
    tone: Tone,
    told: Told,
    /// The last frame in which its key was known to be down.
    frame: u64,
}

impl KeyPairing {
    /// Notes a press that was reported in `frame`, and returns whether it is new. Each press pairs
    /// with at most one other, so that a key that is pressed twice counts twice.
    pub(super) fn is_new(&mut self, tone: Tone, told: Told, frame: u64) -> bool {
        self.unpaired.retain(|press| frame.saturating_sub(press.frame) <= WINDOW);
        let twin = self.unpaired.iter().position(|press| press.tone == tone && press.told != told);
        if let Some(twin) = twin {
            self.unpaired.remove(twin);
            return false;
        }
        if self.unpaired.len() == MAX_PRESSES {
            self.unpaired.pop_front();
        }
        self.unpaired.push_back(PairedPress { tone, told, frame });
        true
    }

    /// Notes that the newest press by RTP still lasts in `frame`.
    pub(super) fn lasts(&mut self, frame: u64) {
        let newest = self.unpaired.iter_mut().rev().find(|press| press.told == Told::Rtp);
        if let Some(press) = newest {
            press.frame = frame;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether each of these presses is new: key, way, frame.
    fn new(presses: &[(char, Told, u64)]) -> Vec<bool> {
        let mut all = KeyPairing::default();
        let is_new = |(key, told, frame): &(char, Told, u64)| {
            all.is_new(Tone::try_from(*key).unwrap(), *told, *frame)
        };
        presses.iter().map(is_new).collect()
    }

    #[test]
    fn a_press_that_is_told_both_ways_counts_once_whichever_is_first() {
        assert_eq!(new(&[('1', Told::Rtp, 0), ('1', Told::Sip, 30)]), [true, false]);
        assert_eq!(new(&[('1', Told::Sip, 0), ('1', Told::Rtp, 2)]), [true, false]);
        assert_eq!(new(&[('1', Told::Sip, 0), ('1', Told::Rtp, 101)]), [true, true]);
        assert_eq!(new(&[('1', Told::Rtp, 0), ('2', Told::Sip, 1)]), [true, true]);
    }

    #[test]
    fn a_key_that_is_pressed_again_counts_again() {
        let twice =
            [('1', Told::Rtp, 0), ('1', Told::Rtp, 10), ('1', Told::Sip, 11), ('1', Told::Sip, 12)];
        assert_eq!(new(&twice), [true, true, false, false]);
        let in_turn =
            [('1', Told::Rtp, 0), ('1', Told::Sip, 1), ('1', Told::Rtp, 10), ('1', Told::Sip, 11)];
        assert_eq!(new(&in_turn), [true, false, true, false]);
        assert_eq!(new(&[('1', Told::Sip, 0), ('1', Told::Sip, 10)]), [true, true]);
    }

    #[test]
    fn a_long_press_is_not_forgotten_while_it_lasts() {
        let mut presses = KeyPairing::default();
        assert!(presses.is_new(Tone::POUND, Told::Rtp, 0));
        presses.lasts(500);
        assert!(!presses.is_new(Tone::POUND, Told::Sip, 510));
    }
}
