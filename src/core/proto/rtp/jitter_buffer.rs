//! Packets in the order of their media time, however they came.
//!
//! In: payloads with their time. Out: the earliest one. It is bounded, and once warm it allocates
//! nothing: payload buffers go round. When something is played is decided by who takes it out.

use std::collections::VecDeque;

/// Packets that wait to be played.
#[derive(Debug, Default)]
pub struct JitterBuffer {
    slots: VecDeque<Slot>,
    spare: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Slot {
    time: i64,
    payload: Vec<u8>,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It waits.
    Kept,
    /// There is one of its time already.
    Duplicate,
    /// There is no room: a sender far faster than its clock.
    Full,
}

/// Most packets: more than two seconds at 10 ms each.
const MAX_PACKETS: usize = 256;

impl JitterBuffer {
    /// Puts a packet in its place.
    pub fn insert(&mut self, time: i64, payload: &[u8]) -> Inserted {
        let place = self.slots.partition_point(|slot| slot.time < time);
        if self.slots.get(place).is_some_and(|slot| slot.time == time) {
            return Inserted::Duplicate;
        }
        if self.slots.len() == MAX_PACKETS {
            return Inserted::Full;
        }
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(payload);
        self.slots.insert(place, Slot { time, payload: buffer });
        Inserted::Kept
    }

    /// Time of the earliest packet.
    pub fn earliest(&self) -> Option<i64> {
        self.slots.front().map(|slot| slot.time)
    }

    /// Time of the latest packet.
    pub fn latest(&self) -> Option<i64> {
        self.slots.back().map(|slot| slot.time)
    }

    /// Gives the earliest packet to `play` and takes it out.
    pub fn take<T>(&mut self, play: impl FnOnce(i64, &[u8]) -> T) -> Option<T> {
        let slot = self.slots.pop_front()?;
        let played = play(slot.time, &slot.payload);
        self.spare.push(slot.payload);
        Some(played)
    }

    /// Throws everything away.
    pub fn clear(&mut self) {
        self.spare.extend(self.slots.drain(..).map(|slot| slot.payload));
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_buffer_takes_no_more() {
        let mut buffer = JitterBuffer::default();
        for time in 0..MAX_PACKETS as i64 {
            assert_eq!(buffer.insert(time, &[1]), Inserted::Kept);
        }
        assert_eq!(buffer.insert(1_000, &[1]), Inserted::Full);
        assert_eq!(buffer.insert(5, &[1]), Inserted::Duplicate);
        buffer.clear();
        assert!(buffer.is_empty());
    }

    proptest! {
        #[test]
        fn time_never_goes_back(times in prop::collection::vec(0i64..100, 0..200)) {
            let mut buffer = JitterBuffer::default();
            for time in &times {
                buffer.insert(*time, &time.to_be_bytes());
            }
            let mut distinct = times.clone();
            distinct.sort_unstable();
            distinct.dedup();
            let mut played = Vec::new();
            while let Some(time) = buffer.take(|time, payload| {
                assert_eq!(payload, time.to_be_bytes());
                time
            }) {
                played.push(time);
            }
            prop_assert_eq!(played, distinct);
        }
    }
}
