//! The keys of one stream: each press is reported once, at its place in the sound.
//!
//! Input: telephone events (RFC 4733) with their places, and keys that come by SIP. Output: the key
//! that begins in a frame, and the parts of a frame that are the sound of keys. A key that is told
//! both ways counts once.

use std::collections::VecDeque;

use aftertone_core::{
    model::Tone,
    operation::HeardTone,
    proto::rtp::{
        Ssrc,
        packet::Header,
        telephone_event::{EventPayload, TelephoneEvents},
    },
};

use super::pressed::Pressed;
use crate::drivers::media::key_pairing::{KeyPairing, Told};

/// The keys of one stream. Times are in samples on the receiver's time line.
#[derive(Debug)]
pub(super) struct Keys {
    /// Ticks of the RTP timestamp in a second, and in a sample.
    clock_rate: u32,
    ticks: i64,
    events: TelephoneEvents,
    /// The SSRC of these events.
    ssrc: Option<Ssrc>,
    /// Keys that wait for their place, in order.
    waiting: VecDeque<(i64, Tone)>,
    /// Keys that may still be reported in the other way.
    pairing: KeyPairing,
    /// When keys were down: that time is silenced.
    pressed: Pressed,
}

/// What the time line knows of an event packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct EventPlace {
    /// The place of the packet's timestamp, if that is plausible.
    pub time: Option<i64>,
    /// The extended sequence number; `None` if the source is not that of the sound, and so has its
    /// own clock and sequence numbers.
    pub sequence: Option<i64>,
    /// The number of the newest sound.
    pub newest: Option<i64>,
    /// Ticks from the timestamp to the sender's present time.
    pub passed: Option<u32>,
    /// The end of everything that has come.
    pub edge: i64,
    /// The tick in which the packet came.
    pub frame: u64,
}

/// The largest number of keys that wait for their place in playout.
const MAX_KEYS: usize = 32;

impl Keys {
    /// No keys yet, for RTP with `clock_rate` ticks in a second and `ticks` in a sample.
    pub(super) fn new(clock_rate: u32, ticks: i64) -> Self {
        Self {
            clock_rate,
            ticks,
            events: TelephoneEvents::default(),
            ssrc: None,
            waiting: VecDeque::with_capacity(MAX_KEYS),
            pairing: KeyPairing::default(),
            pressed: Pressed::default(),
        }
    }

    /// Goes on with the presses of the keys before: a key that is down stays one press. The keys
    /// that wait stay with `before`.
    pub(super) fn go_on_from(&mut self, before: &mut Self) {
        self.events = std::mem::take(&mut before.events);
        self.ssrc = before.ssrc;
        self.pairing = std::mem::take(&mut before.pairing);
    }

    /// Takes an event packet; `event` is `None` if its payload cannot be read. A key is reported
    /// even if its timestamp is not plausible: then it begins when its first packet comes. Returns
    /// where the key begins.
    pub(super) fn take(
        &mut self,
        header: &Header,
        event: Option<EventPayload>,
        place: &EventPlace,
    ) -> Option<i64> {
        if self.ssrc.replace(header.ssrc) != Some(header.ssrc) {
            self.events.begin_anew();
        }
        let EventPlace { time, sequence, newest, passed, edge, frame } = *place;
        let key = self.events.take(header, &event?, self.clock_rate, passed, frame)?;
        let later = i64::from(header.timestamp.since(key.timestamp)) / self.ticks;
        let began = time.map_or(edge, |time| time - later);
        let is_exact = sequence.is_some() && later == 0;
        let sequence = sequence.or(newest).unwrap_or(i64::MIN);
        let began = self.pressed.note(&key, began, sequence, self.ticks, is_exact);
        if !key.is_new {
            self.pairing.lasts(frame);
        } else if self.pairing.is_new(key.tone, Told::Rtp, frame) {
            self.put(began, key.tone);
        }
        Some(began)
    }

    /// Takes a key that came by SIP in the tick `frame`, with its place.
    pub(super) fn press(&mut self, tone: Tone, at: i64, frame: u64) {
        if self.pairing.is_new(tone, Told::Sip, frame) {
            self.put(at, tone);
        }
    }

    /// When keys were down.
    pub(super) fn pressed(&self) -> &Pressed {
        &self.pressed
    }

    /// When keys were down, to note the sound beside them and to silence it.
    pub(super) fn pressed_mut(&mut self) -> &mut Pressed {
        &mut self.pressed
    }

    /// The next key, if it begins before `start + len`, with its place after `start`.
    pub(super) fn pop_before(&mut self, start: i64, len: i64) -> Option<HeardTone> {
        let (time, tone) = self.waiting.pop_front_if(|(time, _)| *time < start + len)?;
        let offset = usize::try_from(time - start).unwrap_or(0);
        Some(HeardTone { tone, offset })
    }

    /// The next key, whatever its place is.
    pub(super) fn pop(&mut self) -> Option<HeardTone> {
        let (_, tone) = self.waiting.pop_front()?;
        Some(HeardTone { tone, offset: 0 })
    }

    /// The place of the last key that waits.
    pub(super) fn last(&self) -> Option<i64> {
        self.waiting.back().map(|(time, _)| *time)
    }

    /// Whether no key waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn put(&mut self, at: i64, tone: Tone) {
        if self.waiting.len() < MAX_KEYS {
            let place = self.waiting.partition_point(|(time, _)| *time <= at);
            self.waiting.insert(place, (at, tone));
        }
    }
}

#[cfg(test)]
mod tests {
    use aftertone_core::proto::rtp::{PayloadType, RtpTimestamp, SeqNo};

    use super::*;

    fn header(ssrc: u32, sequence: u16, timestamp: u32) -> Header {
        Header {
            marker: false,
            payload_type: PayloadType::TELEPHONE_EVENT,
            sequence: SeqNo(sequence),
            timestamp: RtpTimestamp(timestamp),
            ssrc: Ssrc(ssrc),
        }
    }

    fn event(code: u8, duration: u16) -> Option<EventPayload> {
        Some(EventPayload { code, is_up: false, duration })
    }

    fn place(time: Option<i64>) -> EventPlace {
        EventPlace { time, sequence: None, newest: None, passed: None, edge: 900, frame: 0 }
    }

    #[test]
    fn a_key_waits_for_its_place_and_one_without_a_place_comes_after_all() {
        let mut keys = Keys::new(8_000, 1);
        assert_eq!(keys.take(&header(7, 1, 5_000), event(2, 160), &place(None)), Some(900));
        assert_eq!(keys.take(&header(7, 9, 500), event(1, 160), &place(Some(400))), Some(400));
        assert_eq!(keys.last(), Some(900));
        assert_eq!(keys.pop_before(160, 160), None);
        let first = keys.pop_before(320, 160).map(|key| (key.tone.as_char(), key.offset));
        assert_eq!(first, Some(('1', 80)));
        assert_eq!(keys.pop().map(|key| key.tone.as_char()), Some('2'));
        assert!(keys.is_empty());
    }

    #[test]
    fn a_key_that_is_told_both_ways_counts_once() {
        let mut keys = Keys::new(8_000, 1);
        keys.take(&header(7, 1, 5_000), event(11, 160), &place(None));
        keys.press(Tone::POUND, 900, 20);
        assert!(keys.pop().is_some() && keys.pop().is_none());
    }

    #[test]
    fn a_key_of_another_source_is_another_press_and_what_is_no_key_is_none() {
        let mut keys = Keys::new(8_000, 1);
        for ssrc in [7, 8] {
            keys.take(&header(ssrc, 1, 5_000), event(3, 160), &place(None));
        }
        assert_eq!(keys.take(&header(8, 2, 5_000), event(16, 160), &place(None)), None);
        assert_eq!(keys.take(&header(8, 3, 5_000), None, &place(None)), None);
        assert!(keys.pop().is_some() && keys.pop().is_some() && keys.is_empty());
    }

    #[test]
    fn a_key_that_is_down_when_the_codec_changes_is_one_press() {
        let mut before = Keys::new(8_000, 1);
        before.take(&header(7, 1, 5_000), event(3, 160), &place(None));
        let mut keys = Keys::new(48_000, 3);
        keys.go_on_from(&mut before);
        keys.take(&header(7, 2, 5_000), event(3, 320), &place(None));
        assert!(before.pop().is_some() && keys.is_empty());
    }
}
