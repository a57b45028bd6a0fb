//! Telephone events (RFC 4733): packets to keys, each press once.
//!
//! A press is many packets with one timestamp; any of them may be lost, the end is told three
//! times. A press longer than the duration field goes on with a new timestamp where the last one
//! ended and without a marker. So the timestamp tells presses apart, and nothing else has to.

use super::seq::MediaClock;
use crate::model::Tone;

/// Remembers the press that is going on.
#[derive(Debug, Clone, Default)]
pub struct TelephoneEvents {
    clock: MediaClock,
    last: Option<Press>,
}

#[derive(Debug, Clone, Copy)]
struct Press {
    tone: Tone,
    began: i64,
    duration: i64,
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

impl TelephoneEvents {
    /// Takes the payload of a packet; tells a press when its first packet comes, whichever that is.
    pub fn take(&mut self, timestamp: u32, marker: bool, payload: &[u8]) -> Option<KeyPress> {
        let (fields, _) = payload.split_first_chunk::<PAYLOAD>()?;
        let tone = Tone::from_event_code(fields[0])?;
        let ended = fields[1] & 0x80 != 0;
        let duration = i64::from(u16::from_be_bytes([fields[2], fields[3]]));
        let began = self.clock.extend(timestamp);
        if let Some(last) = &mut self.last {
            if began == last.began {
                last.duration = last.duration.max(duration);
                last.ended |= ended;
                return None;
            }
            // An earlier press that was overtaken by a later one: it has been told.
            if began < last.began {
                return None;
            }
            // A segment of a long press (section 2.5.1.3).
            let goes_on = !last.ended && !marker && tone == last.tone;
            if goes_on && began <= last.began + last.duration + SLACK {
                *last = Press { tone, began, duration, ended };
                return None;
            }
        }
        self.last = Some(Press { tone, began, duration, ended });
        Some(KeyPress { tone, timestamp })
    }
}

/// A segment may begin this much later than the last one was known to last: its last packets may
/// be lost. Half a second at 8,000 Hz.
const SLACK: i64 = 4_000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload(code: u8, end: bool, duration: u16) -> [u8; 4] {
        let [high, low] = duration.to_be_bytes();
        [code, 10 | (u8::from(end) << 7), high, low]
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
    fn what_is_no_key_is_nothing() {
        let mut events = TelephoneEvents::default();
        assert_eq!(events.take(0, true, &payload(16, false, 160)), None);
        assert_eq!(events.take(0, true, &[1, 2, 3]), None);
    }

    proptest! {
        #[test]
        fn each_press_is_told_exactly_once_in_order(
            keys in prop::collection::vec(0u8..16, 1..12),
            start: u32,
            lost in prop::collection::vec(any::<bool>(), 12 * 8),
            swap in prop::collection::vec(any::<bool>(), 12 * 8),
        ) {
            let mut packets = Vec::new();
            for (index, code) in keys.iter().enumerate() {
                let at = start.wrapping_add(1600 * index as u32);
                let mut press: Vec<_> = (0..8u16)
                    .map(|step| (at, step == 0, payload(*code, step > 4, 160 * (step.min(5) + 1))))
                    .collect();
                // Neighbours change places, within a press.
                for step in 0..7 {
                    if swap[index * 8 + step] {
                        press.swap(step, step + 1);
                    }
                }
                let kept: Vec<_> = press
                    .iter()
                    .enumerate()
                    .filter(|(step, _)| !lost[index * 8 + step])
                    .map(|(_, packet)| *packet)
                    .collect();
                // At least an end arrives: three are sent.
                if kept.iter().any(|(.., p)| p[1] & 0x80 != 0) {
                    packets.extend(kept);
                } else {
                    packets.extend(press);
                }
            }
            let mut events = TelephoneEvents::default();
            let told: Vec<u8> = packets
                .iter()
                .filter_map(|(at, marker, payload)| events.take(*at, *marker, payload))
                .map(|press| press.tone.event_code())
                .collect();
            prop_assert_eq!(told, keys);
        }
    }
}
