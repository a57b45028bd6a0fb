//! Telephone events (RFC 4733): packets to keys, each press once.
//!
//! A press is many packets with one timestamp; any of them may be lost, come twice or be overtaken,
//! and the end is told three times. So the timestamp tells presses apart. A press longer than the
//! duration field goes on with a new timestamp where the last one ended, and without a marker.

use std::collections::VecDeque;

use crate::model::Tone;

/// Remembers the last presses.
#[derive(Debug, Clone, Default)]
pub struct TelephoneEvents {
    /// The newest at the back.
    presses: VecDeque<Press>,
}

#[derive(Debug, Clone, Copy)]
struct Press {
    tone: Tone,
    timestamp: u32,
    duration: u16,
    ended: bool,
}

/// A new press.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPress {
    /// The key.
    pub tone: Tone,
    /// The RTP timestamp of its beginning.
    pub timestamp: u32,
}

/// Event code, flags and volume, duration.
const PAYLOAD: usize = 4;
/// How loud the keys that we send are, in dB below 0 dBm0.
const VOLUME: u8 = 10;
/// The bit that says that the key is up again.
const END: u8 = 0x80;
/// Presses that are remembered: their packets may still be under way.
const MAX_PRESSES: usize = 16;
/// A segment lasts as long as the duration field can say, but for so many ticks: senders count in
/// packets, and the last packets of a segment may be lost.
const SLACK: u16 = 4_000;

impl TelephoneEvents {
    /// Takes the payload of a packet; tells a press when its first packet comes, whichever that is.
    pub fn take(&mut self, timestamp: u32, marker: bool, payload: &[u8]) -> Option<KeyPress> {
        let (fields, _) = payload.split_first_chunk::<PAYLOAD>()?;
        let tone = Tone::from_event_code(fields[0])?;
        let ended = fields[1] & END != 0;
        let duration = u16::from_be_bytes([fields[2], fields[3]]);
        let known = self
            .presses
            .iter_mut()
            .find(|press| press.timestamp == timestamp && press.tone == tone);
        if let Some(press) = known {
            press.duration = press.duration.max(duration);
            press.ended |= ended;
            return None;
        }
        let goes_on = !marker
            && self.presses.iter().any(|press| press.tone == tone && press.goes_on_at(timestamp));
        if self.presses.len() == MAX_PRESSES {
            self.presses.pop_front();
        }
        self.presses.push_back(Press { tone, timestamp, duration, ended });
        (!goes_on).then_some(KeyPress { tone, timestamp })
    }
}

/// The payload that says that a key has been down for `duration` ticks (RFC 4733 section 2.3).
pub fn payload(tone: Tone, is_up: bool, duration: u16) -> [u8; PAYLOAD] {
    let [high, low] = duration.to_be_bytes();
    [tone.event_code(), if is_up { END | VOLUME } else { VOLUME }, high, low]
}

impl Press {
    /// Whether a segment of this press may begin at `timestamp` (section 2.5.1.3).
    fn goes_on_at(&self, timestamp: u32) -> bool {
        let after = timestamp.wrapping_sub(self.timestamp);
        let is_contiguous = after == u32::from(self.duration);
        let full = u32::from(u16::MAX - SLACK)..=u32::from(u16::MAX) + u32::from(SLACK);
        !self.ended && (is_contiguous || self.duration >= u16::MAX - SLACK && full.contains(&after))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload(code: u8, end: bool, duration: u16) -> [u8; 4] {
        super::payload(Tone::from_event_code(code).unwrap(), end, duration)
    }

    #[test]
    fn a_press_is_told_once_whatever_is_lost_of_it() {
        for lost in 0..7 {
            let mut events = TelephoneEvents::default();
            let told: Vec<_> = (0..7u16)
                .filter(|step| *step != lost)
                .filter_map(|step| {
                    let end = step > 3;
                    events.take(1000, step == 0, &payload(5, end, 160 * (step.min(4) + 1)))
                })
                .collect();
            assert_eq!(told.len(), 1, "lost {lost}");
            assert_eq!((told[0].tone.as_char(), told[0].timestamp), ('5', 1000));
        }
    }

    #[test]
    fn one_key_pressed_twice_is_two() {
        let mut events = TelephoneEvents::default();
        assert!(events.take(1000, true, &payload(1, false, 160)).is_some());
        assert!(events.take(1000, false, &payload(1, true, 800)).is_none());
        assert!(events.take(2600, true, &payload(1, false, 160)).is_some());
        // Without any marker the end tells them apart.
        assert!(events.take(2600, false, &payload(1, true, 800)).is_none());
        assert!(events.take(4200, false, &payload(1, true, 800)).is_some());
    }

    #[test]
    fn a_long_press_is_one() {
        let mut events = TelephoneEvents::default();
        assert!(events.take(0, true, &payload(9, false, 160)).is_some());
        assert!(events.take(0, false, &payload(9, false, 65_535)).is_none());
        assert!(events.take(65_535, false, &payload(9, false, 160)).is_none());
        assert!(events.take(65_535, false, &payload(9, true, 800)).is_none());
    }

    #[test]
    fn a_long_press_is_one_when_the_end_of_a_segment_is_lost() {
        let mut events = TelephoneEvents::default();
        assert!(events.take(7, true, &payload(9, false, 160)).is_some());
        assert!(events.take(7, false, &payload(9, false, 64_000)).is_none());
        assert!(events.take(7 + 65_535, false, &payload(9, false, 160)).is_none());
        // A marker is a new press even there.
        assert!(events.take(7 + 65_535 + 160, true, &payload(9, false, 160)).is_some());
    }

    #[test]
    fn a_key_is_told_when_the_clock_of_the_sender_went_back() {
        let mut events = TelephoneEvents::default();
        assert!(events.take(4_000_000, true, &payload(1, true, 160)).is_some());
        assert!(events.take(1_000, true, &payload(1, true, 160)).is_some());
        // Packets of either that were under way are nothing new.
        assert!(events.take(4_000_000, false, &payload(1, true, 160)).is_none());
        assert!(events.take(1_000, false, &payload(1, true, 160)).is_none());
    }

    #[test]
    fn a_press_that_was_overtaken_is_told_all_the_same() {
        let mut events = TelephoneEvents::default();
        assert!(events.take(3_200, true, &payload(2, false, 160)).is_some());
        assert!(events.take(1_600, false, &payload(1, true, 800)).is_some());
        assert!(events.take(3_200, false, &payload(2, true, 800)).is_none());
    }

    #[test]
    fn what_is_no_key_is_nothing() {
        let mut events = TelephoneEvents::default();
        assert_eq!(events.take(0, true, &[16, 10, 0, 160]), None);
        assert_eq!(events.take(0, true, &[1, 2, 3]), None);
    }

    proptest! {
        #[test]
        fn each_press_is_told_exactly_once_if_one_packet_of_it_comes(
            keys in prop::collection::vec(0u8..16, 1..12),
            start: u32,
            survivors in prop::collection::vec(1u8..=255, 12),
            order in prop::collection::vec(0usize..12, 12 * 16),
        ) {
            // Five updates and three ends a press, each twice; any of them lost, but not all, and
            // overtaken by packets of the next press.
            let mut packets = Vec::new();
            for (index, code) in keys.iter().enumerate() {
                let at = start.wrapping_add(1_600 * index as u32);
                for step in (0..8u16).filter(|step| survivors[index] >> step & 1 == 1) {
                    let packet = (at, step == 0, payload(*code, step > 4, 160 * (step.min(5) + 1)));
                    for twice in 0..2 {
                        let jitter = order[index * 16 + usize::from(step) * 2 + twice];
                        packets.push((index * 8 + usize::from(step) + jitter, packet));
                    }
                }
            }
            packets.sort_by_key(|(at, _)| *at);
            let mut events = TelephoneEvents::default();
            let mut told: Vec<_> = packets
                .iter()
                .filter_map(|(_, (at, marker, payload))| events.take(*at, *marker, payload))
                .map(|press| (press.timestamp.wrapping_sub(start), press.tone.event_code()))
                .collect();
            told.sort_unstable();
            let pressed: Vec<_> =
                keys.iter().enumerate().map(|(index, key)| (1_600 * index as u32, *key)).collect();
            prop_assert_eq!(told, pressed);
        }

        #[test]
        fn no_payload_panics(
            packets in prop::collection::vec(
                (any::<u32>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..6)), 0..100)
        ) {
            let mut events = TelephoneEvents::default();
            for (timestamp, marker, payload) in packets {
                let _ = events.take(timestamp, marker, &payload);
            }
        }
    }
}
