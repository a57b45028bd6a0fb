//! The times at which keys are down: sound at these times belongs to the key, not to the speech.
//!
//! Input: packets of keys, and the places of sound, both with their sequence numbers. Output: which
//! samples must be silent. A key is up again after the duration that its packets claim, and at the
//! latest with the first sound that was sent after them: some senders go on with speech, but count
//! durations by another clock or claim the longest possible one.

use std::collections::VecDeque;

use aftertone_core::proto::rtp::{RtpTimestamp, telephone_event::KeyPacket};

use super::pace::SoundPacket;

/// The keys of the last seconds, and the newest sound.
#[derive(Debug)]
pub(super) struct Pressed {
    /// Oldest first.
    keys: VecDeque<PressedKey>,
    /// In the order of arrival.
    sounds: VecDeque<SoundPacket>,
}

/// One press, in samples on the receiver's time line.
#[derive(Debug)]
struct PressedKey {
    press: u32,
    /// The RTP timestamp of its beginning, and the place of that.
    timestamp: RtpTimestamp,
    start: i64,
    /// Where it ends by the duration that its packets claim.
    claimed: i64,
    /// Where the first sound begins that was sent after the key.
    cut: Option<i64>,
    /// The sequence number of its first packet.
    first: i64,
    /// The sequence number of its newest packet, or of the first one that says that the key is up.
    last: i64,
    is_up: bool,
    /// Whether the sender sends sound in addition to the key.
    is_beside: bool,
    /// Whether all its packets have the timestamp of its beginning, on the clock of the sound.
    is_exact: bool,
}

/// The largest number of presses that are remembered.
const MAX_KEYS: usize = 32;
/// Presses are remembered for so many samples after their end, because their packets may be late.
const KEEP: i64 = 16_000;
/// Packets of sound that are remembered, because they may overtake a packet of a key.
const MAX_SOUNDS: usize = 16;

impl Default for Pressed {
    fn default() -> Self {
        Self {
            keys: VecDeque::with_capacity(MAX_KEYS),
            sounds: VecDeque::with_capacity(MAX_SOUNDS),
        }
    }
}

impl Pressed {
    /// Notes a packet of a key that begins at `start`, unless the beginning is known already.
    /// `sequence`: for a source other than that of the sound, which has its own sequence numbers,
    /// the number of the newest sound. `ticks`: RTP ticks per sample. `is_exact`: whether the
    /// packet has the timestamp of the beginning. Returns where the key begins.
    pub(super) fn note(
        &mut self,
        packet: &KeyPacket,
        start: i64,
        sequence: i64,
        ticks: i64,
        is_exact: bool,
    ) -> i64 {
        let Self { keys, sounds } = self;
        let known = keys.iter().rposition(|key| key.press == packet.press);
        let index = known.unwrap_or_else(|| {
            if keys.len() == MAX_KEYS {
                keys.pop_front();
            }
            keys.push_back(PressedKey::new(packet, start, sequence));
            keys.len() - 1
        });
        let key = &mut keys[index];
        let earlier = i64::from(key.timestamp.since(packet.timestamp));
        key.start -= earlier / ticks;
        key.timestamp = packet.timestamp;
        key.claimed = key.start + i64::from(packet.length) / ticks;
        key.first = key.first.min(sequence);
        let last = key.last;
        key.last = match (key.is_up, packet.is_up) {
            (false, true) => sequence,
            (false, false) => key.last.max(sequence),
            (true, true) => key.last.min(sequence),
            (true, false) => key.last,
        };
        key.is_up |= packet.is_up;
        let between = key.first + 1..key.last;
        key.is_beside |= sounds.iter().any(|sound| between.contains(&sound.sequence));
        key.is_exact &= is_exact;
        key.cut = key.cut.filter(|_| key.last <= last);
        sounds.iter().for_each(|sound| key.hear(sound));
        key.start
    }

    /// Notes the place of a packet of sound.
    pub(super) fn hear(&mut self, sound: &SoundPacket) {
        if self.sounds.len() == MAX_SOUNDS {
            self.sounds.pop_front();
        }
        self.sounds.push_back(*sound);
        self.keys.iter_mut().for_each(|key| key.hear(sound));
    }

    /// Sound that comes from now on was sent after all keys so far, whatever its sequence numbers
    /// are.
    pub(super) fn begin_anew(&mut self) {
        self.sounds.clear();
        for key in &mut self.keys {
            (key.last, key.is_up, key.is_exact) = (i64::MIN, true, false);
        }
    }

    /// Whether a key is down at `time`.
    pub(super) fn is_down_at(&self, time: i64) -> bool {
        self.keys.iter().any(|key| key.start <= time && time < key.end())
    }

    /// Silences the part of `frame`, which begins at `start`, that is the sound of keys. Later
    /// calls never have an earlier `start`.
    pub(super) fn silence(&mut self, frame: &mut [i16], start: i64) {
        while self.keys.front().is_some_and(|key| key.end() < start - KEEP) {
            self.keys.pop_front();
        }
        let end = start + i64::try_from(frame.len()).unwrap_or(0);
        for key in &self.keys {
            let from = usize::try_from(key.start.max(start) - start).unwrap_or(0);
            let until = usize::try_from(key.end().min(end) - start).unwrap_or(0);
            if from < until {
                frame[from..until].fill(0);
            }
        }
    }
}

impl PressedKey {
    fn new(packet: &KeyPacket, start: i64, sequence: i64) -> Self {
        Self {
            press: packet.press,
            timestamp: packet.timestamp,
            start,
            claimed: start,
            cut: None,
            first: sequence,
            last: sequence,
            is_up: packet.is_up,
            is_beside: false,
            is_exact: true,
        }
    }

    fn hear(&mut self, sound: &SoundPacket) {
        let SoundPacket { sequence, time, len, .. } = *sound;
        // The last sound beside a key may be sent right after the packet with the key's duration.
        let is_its_own = self.is_beside && self.is_exact && time + len >= self.claimed;
        if sequence > self.last && !is_its_own {
            self.cut = Some(self.cut.map_or(time, |cut| cut.min(time)));
        }
    }

    fn end(&self) -> i64 {
        self.cut.map_or(self.claimed, |cut| cut.min(self.claimed))
    }
}
