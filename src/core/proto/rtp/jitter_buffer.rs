//! The jitter buffer: received packets in the order of their media time.
//!
//! In: payloads with their media time. Out: the earliest one. The buffer is bounded, and once warm
//! it allocates nothing, because payload buffers are reused. The caller decides when a packet is
//! played.

use std::collections::VecDeque;

/// Packets that wait for playout.
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

/// The result of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// The packet is in the buffer.
    Kept,
    /// There is a packet with the same media time already.
    Duplicate,
    /// The buffer is full: the sender is far faster than its clock.
    Full,
}

/// The maximum number of packets: more than two seconds at 10 ms each.
const MAX_PACKETS: usize = 256;

impl JitterBuffer {
    /// Inserts a packet in the order of media time.
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

    /// The media time of the earliest packet.
    pub fn earliest(&self) -> Option<i64> {
        self.slots.front().map(|slot| slot.time)
    }

    /// The media time of the latest packet.
    pub fn latest(&self) -> Option<i64> {
        self.slots.back().map(|slot| slot.time)
    }

    /// Removes the earliest packet and passes it to `play`.
    pub fn take<T>(&mut self, play: impl FnOnce(i64, &[u8]) -> T) -> Option<T> {
        let slot = self.slots.pop_front()?;
        let played = play(slot.time, &slot.payload);
        self.spare.push(slot.payload);
        Some(played)
    }

    /// Removes all packets.
    pub fn clear(&mut self) {
        self.spare.extend(self.slots.drain(..).map(|slot| slot.payload));
    }

    /// Whether the buffer is empty.
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
