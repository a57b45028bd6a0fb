//! Telephone events (RFC 4733): turns packets into key presses, each reported once.
//!
//! A press consists of many packets. Any of them may be lost, duplicated or overtaken, and the end
//! is sent three times. All packets of a press should carry the timestamp of its beginning and a
//! growing duration. Some senders give each packet its own timestamp, or two presses the same one,
//! or count durations with another clock. So presses are told apart by what holds for every key: it
//! cannot go down again while it is down, it is not down for longer than the time since it went
//! down, and a packet that follows its end in sequence is not part of the press.
//!
//! A press is forgotten when none of its packets has come for so long that its sequence numbers and
//! timestamps may recur in a new press.
//!
//! A press longer than the duration field continues with a new timestamp where the last segment
//! ended, and without a marker.

use std::collections::VecDeque;

use super::{RtpTimestamp, SeqNo, packet::Header};
use crate::model::Tone;

/// The payload of an event packet (section 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventPayload {
    /// The event code; 0 to 15 are keys.
    pub code: u8,
    /// The end bit: the key is up again.
    pub is_up: bool,
    /// How long the event has lasted so far, in ticks.
    pub duration: u16,
}

/// The recent presses of one source.
#[derive(Debug, Clone, Default)]
pub struct TelephoneEvents {
    /// The newest press is at the back.
    presses: VecDeque<Press>,
    /// The number of presses so far.
    count: u32,
}

#[derive(Debug, Clone, Copy)]
struct Press {
    id: u32,
    tone: Tone,
    /// The timestamp of the beginning.
    begin: RtpTimestamp,
    /// How long the key has been down, in ticks, as far as the claimed duration is plausible.
    length: u32,
    /// The longest duration that a packet claimed.
    claimed: u16,
    /// The sequence numbers of the first and the last packet so far.
    first: SeqNo,
    last: SeqNo,
    /// The sequence number of the first packet with the end bit.
    up: Option<SeqNo>,
    /// The frame in which the newest packet came.
    heard_at: u64,
}

/// The meaning of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPacket {
    /// The key.
    pub tone: Tone,
    /// The number of the press, counted from the first one of the source.
    pub press: u32,
    /// Whether this is the first received packet of the press.
    pub is_new: bool,
    /// The RTP timestamp of the beginning of the press.
    pub timestamp: RtpTimestamp,
    /// The length of the press in ticks, by its packets so far; once the key is up, by the first
    /// packet that says so.
    pub length: u32,
    /// Whether this packet says that the key is up.
    pub is_up: bool,
}

/// The payload length in bytes: event code, flags and volume, duration.
const PAYLOAD: usize = 4;
/// The volume of the keys that we send, in dB below 0 dBm0.
const VOLUME: u8 = 10;
/// The end bit: the key is up again.
const END: u8 = 0x80;
/// How many presses are remembered, because their packets may still arrive.
const MAX_PRESSES: usize = 16;
/// How long a press is remembered, in frames of 20 ms: one minute. No packet is delayed for so
/// long, and sequence numbers do not recur so soon.
const REMEMBERED_FRAMES: u64 = 3_000;
/// A segment counts as full if its duration is at most this many ticks below the maximum of the
/// field: senders count in packets, and the last packets of a segment may be lost.
const SLACK: u16 = 4_000;
/// A key is up for longer than this before it goes down again, in ms. The shortest pause that ITU-T
/// Q.24 lets a receiver rely on is 40 ms.
const SHORTEST_PAUSE_MS: u32 = 30;
/// The time from the first end packet to the last, in ms, if each has its own timestamp.
const REPEATED_MS: u32 = 40;
/// The maximum distance of the timestamps of two successive packets, in ms.
const STEP_MS: u32 = 100;
/// The maximum distance of the sequence numbers of two successive event packets; in between may be
/// other, lost or late packets. It is less than the three end packets of a press and the first
/// packet of the next.
const NEXT: i16 = 4;

impl TelephoneEvents {
    /// Handles a packet; `None` if it is not about a key. A press is new when its first packet
    /// comes, whichever that is. `clock_rate` is in ticks per second. `passed` is the time from the
    /// packet's timestamp to now, in ticks, if the sender's other packets give its current
    /// timestamp. `frame` is the frame of 20 ms in which the packet came.
    pub fn take(
        &mut self,
        header: &Header,
        payload: &EventPayload,
        clock_rate: u32,
        passed: Option<u32>,
        frame: u64,
    ) -> Option<KeyPacket> {
        let EventPayload { code, is_up, duration: claimed } = *payload;
        let tone = Tone::from_event_code(code)?;
        let packet = EventPacket {
            sequence: header.sequence,
            timestamp: header.timestamp,
            marker: header.marker,
            is_up,
            claimed,
            length: passed.map_or(u32::from(claimed), |passed| passed.min(u32::from(claimed))),
            ticks_per_ms: clock_rate / 1_000,
            frame,
        };
        self.presses.retain(|press| frame.saturating_sub(press.heard_at) < REMEMBERED_FRAMES);
        let known = self.find(tone, &packet);
        let is_new = known.is_none();
        let press = match known {
            Some(index) => {
                let press = &mut self.presses[index];
                press.add(&packet);
                *press
            }
            None => self.begin(tone, &packet),
        };
        let Press { id, begin, length, .. } = press;
        Some(KeyPacket { tone, press: id, is_new, timestamp: begin, length, is_up })
    }

    /// Another source replaces this one: its presses are new ones.
    pub fn begin_anew(&mut self) {
        self.presses.clear();
    }

    /// The press that a packet belongs to. If two have the same timestamp, it is the newest one
    /// that had begun when the packet was sent.
    fn find(&self, tone: Tone, packet: &EventPacket) -> Option<usize> {
        let fits = |press: &Press| press.tone == tone && press.has(packet);
        let had_begun = |press: &Press| !packet.sequence.is_before(press.first);
        let newest = self.presses.iter().rposition(|press| fits(press) && had_begun(press));
        newest.or_else(|| self.presses.iter().position(fits))
    }

    fn begin(&mut self, tone: Tone, packet: &EventPacket) -> Press {
        if self.presses.len() == MAX_PRESSES {
            self.presses.pop_front();
        }
        let press = Press {
            id: self.count,
            tone,
            begin: packet.timestamp,
            length: packet.length,
            claimed: packet.claimed,
            first: packet.sequence,
            last: packet.sequence,
            up: packet.is_up.then_some(packet.sequence),
            heard_at: packet.frame,
        };
        self.count = self.count.wrapping_add(1);
        self.presses.push_back(press);
        press
    }
}

impl EventPayload {
    /// The fields of a payload; `None` if it is too short to have them.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (&[code, flags, high, low], _) = payload.split_first_chunk::<PAYLOAD>()?;
        let duration = u16::from_be_bytes([high, low]);
        Some(Self { code, is_up: flags & END != 0, duration })
    }
}

/// The payload for a key that has been down for `duration` ticks (RFC 4733 section 2.3).
pub fn payload(tone: Tone, is_up: bool, duration: u16) -> [u8; PAYLOAD] {
    let [high, low] = duration.to_be_bytes();
    [tone.event_code(), if is_up { END | VOLUME } else { VOLUME }, high, low]
}

/// One event packet.
struct EventPacket {
    sequence: SeqNo,
    timestamp: RtpTimestamp,
    marker: bool,
    is_up: bool,
    claimed: u16,
    /// The plausible part of the claimed duration.
    length: u32,
    ticks_per_ms: u32,
    /// The frame in which the packet came.
    frame: u64,
}

impl EventPacket {
    fn ticks(&self, ms: u32) -> i64 {
        i64::from(self.ticks_per_ms) * i64::from(ms)
    }
}

impl Press {
    /// Whether a packet about the same key belongs to this press.
    fn has(&self, packet: &EventPacket) -> bool {
        let is_same_timestamp = packet.timestamp == self.begin;
        if !packet.marker {
            return is_same_timestamp || self.touches(packet) || self.goes_on_with(packet);
        }
        // A packet with a marker begins another press, unless this press has later packets.
        match self.up {
            // Some senders set the marker in all packets of a press.
            None if is_same_timestamp => true,
            Some(up) if is_same_timestamp => {
                let is_shorter = packet.claimed < self.claimed || !packet.is_up;
                !(is_shorter && up.is_before(packet.sequence))
            }
            _ => packet.sequence.is_before(self.last) && self.touches(packet),
        }
    }

    /// Whether the packet's time lies within the press, or so near that the key cannot have been up
    /// in between.
    fn touches(&self, packet: &EventPacket) -> bool {
        let (offset, lasted) = (self.offset(packet), i64::from(self.length));
        let Some(reach) = self.reach(packet) else { return true };
        let is_near = offset <= lasted + reach && offset + i64::from(packet.length) >= -reach;
        // Or the packet carries the time at which it was sent, and its duration leads back to the
        // beginning.
        let down = offset - i64::from(packet.claimed);
        is_near || self.up.is_none() && down.abs() <= packet.ticks(SHORTEST_PAUSE_MS)
    }

    /// How many ticks a packet may be away from the known part of the press and still belong to it.
    /// `None` if it belongs to the press at any distance.
    fn reach(&self, packet: &EventPacket) -> Option<i64> {
        let after_last = packet.sequence.since(self.last);
        let before_first = self.first.since(packet.sequence);
        let follows = (1..=NEXT).contains(&after_last);
        let precedes = (1..=NEXT).contains(&before_first);
        match self.up {
            _ if before_first <= 0 && after_last <= 0 => None,
            None if follows && packet.is_up => None,
            None if follows => Some(packet.ticks(STEP_MS)),
            _ if precedes && !packet.is_up => Some(packet.ticks(STEP_MS)),
            Some(_) if follows && packet.is_up && packet.claimed == self.claimed => {
                Some(packet.ticks(REPEATED_MS))
            }
            _ => Some(packet.ticks(SHORTEST_PAUSE_MS)),
        }
    }

    /// Whether the packet may belong to the next segment of this press (section 2.5.1.3).
    fn goes_on_with(&self, packet: &EventPacket) -> bool {
        let length = i64::from(self.length);
        let is_full = length >= i64::from(u16::MAX - SLACK);
        let next = length..=length + 2 * i64::from(SLACK);
        self.up.is_none() && is_full && next.contains(&self.offset(packet))
    }

    fn add(&mut self, packet: &EventPacket) {
        let offset = self.offset(packet);
        let is_after_end = self.up.is_some_and(|up| up.is_before(packet.sequence));
        if offset < 0 {
            self.begin = packet.timestamp;
            self.length = self.length.saturating_add(offset.unsigned_abs() as u32);
        }
        let end = u32::try_from(offset).unwrap_or(0).saturating_add(packet.length);
        match (packet.is_up, self.up) {
            // The first end packet gives the final length.
            (true, _) if !is_after_end => self.length = end,
            (false, None) => self.length = self.length.max(end),
            _ => {}
        }
        self.claimed = self.claimed.max(packet.claimed);
        self.heard_at = self.heard_at.max(packet.frame);
        if packet.sequence.is_before(self.first) {
            self.first = packet.sequence;
        }
        if self.last.is_before(packet.sequence) {
            self.last = packet.sequence;
        }
        if packet.is_up && !is_after_end {
            self.up = Some(packet.sequence);
        }
    }

    /// The distance from the beginning to the packet's timestamp, in ticks.
    fn offset(&self, packet: &EventPacket) -> i64 {
        i64::from(packet.timestamp.since(self.begin))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::rtp::{PayloadType, Ssrc};

    const CLOCK: u32 = 8_000;

    fn payload(code: u8, end: bool, duration: u16) -> EventPayload {
        let written = super::payload(Tone::from_event_code(code).unwrap(), end, duration);
        EventPayload::parse(&written).unwrap()
    }

    fn header(sequence: u16, timestamp: u32, marker: bool) -> Header {
        Header {
            marker,
            payload_type: PayloadType::TELEPHONE_EVENT,
            sequence: SeqNo(sequence),
            timestamp: RtpTimestamp(timestamp),
            ssrc: Ssrc(7),
        }
    }

    /// Receives packets in the order in which they were sent.
    #[derive(Default)]
    struct InOrder {
        events: TelephoneEvents,
        sequence: u16,
    }

    impl InOrder {
        /// The press, if the packet is its first one.
        fn take(
            &mut self,
            timestamp: u32,
            marker: bool,
            payload: &EventPayload,
        ) -> Option<KeyPacket> {
            self.sequence = self.sequence.wrapping_add(1);
            let header = header(self.sequence, timestamp, marker);
            let told = self.events.take(&header, payload, CLOCK, None, 0);
            told.filter(|packet| packet.is_new)
        }
    }

    #[test]
    fn a_press_is_told_once_whatever_is_lost_of_it() {
        for lost in 0..7 {
            let mut events = InOrder::default();
            let told: Vec<_> = (0..7u16)
                .filter(|step| *step != lost)
                .filter_map(|step| {
                    let end = step > 3;
                    events.take(1000, step == 0, &payload(5, end, 160 * (step.min(4) + 1)))
                })
                .collect();
            assert_eq!(told.len(), 1, "lost {lost}");
            assert_eq!((told[0].tone.as_char(), told[0].timestamp), ('5', RtpTimestamp(1000)));
        }
    }

    #[test]
    fn one_key_pressed_twice_is_two() {
        let mut events = InOrder::default();
        assert!(events.take(1000, true, &payload(1, false, 160)).is_some());
        assert!(events.take(1000, false, &payload(1, true, 800)).is_none());
        assert!(events.take(2600, true, &payload(1, false, 160)).is_some());
        // Without markers, the end packet separates the presses.
        assert!(events.take(2600, false, &payload(1, true, 800)).is_none());
        assert!(events.take(4200, false, &payload(1, true, 800)).is_some());
    }

    #[test]
    fn a_long_press_is_one() {
        let mut events = InOrder::default();
        assert!(events.take(0, true, &payload(9, false, 160)).is_some());
        assert!(events.take(0, false, &payload(9, false, 65_535)).is_none());
        assert!(events.take(65_535, false, &payload(9, false, 160)).is_none());
        assert!(events.take(65_535, false, &payload(9, true, 800)).is_none());
    }

    #[test]
    fn a_long_press_is_one_when_the_end_of_a_segment_is_lost() {
        let mut events = InOrder::default();
        assert!(events.take(7, true, &payload(9, false, 160)).is_some());
        assert!(events.take(7, false, &payload(9, false, 64_000)).is_none());
        assert!(events.take(7 + 65_535, false, &payload(9, false, 160)).is_none());
        // A marker begins a new press even there.
        assert!(events.take(7 + 65_535 + 160, true, &payload(9, false, 160)).is_some());
    }

    #[test]
    fn a_key_is_told_when_the_clock_of_the_sender_went_back() {
        let mut events = InOrder::default();
        assert!(events.take(4_000_000, true, &payload(1, true, 160)).is_some());
        assert!(events.take(1_000, true, &payload(1, true, 160)).is_some());
        // Late packets of either press are not new ones.
        assert!(events.take(4_000_000, false, &payload(1, true, 160)).is_none());
        assert!(events.take(1_000, false, &payload(1, true, 160)).is_none());
    }

    #[test]
    fn a_press_that_was_overtaken_is_told_all_the_same() {
        let mut events = InOrder::default();
        assert!(events.take(3_200, true, &payload(2, false, 160)).is_some());
        assert!(events.take(1_600, false, &payload(1, true, 800)).is_some());
        assert!(events.take(3_200, false, &payload(2, true, 800)).is_none());
    }

    #[test]
    fn what_is_no_key_is_nothing() {
        let mut events = InOrder::default();
        let flash = EventPayload::parse(&[16, 10, 0, 160]).unwrap();
        assert_eq!(events.take(0, true, &flash), None);
        assert_eq!(EventPayload::parse(&[1, 2, 3]), None);
    }

    #[test]
    fn a_press_whose_end_packets_have_later_timestamps_is_one() {
        // Their timestamp is that of the end, of the last update, or of their own sending.
        for later in [800, 640, 960, 1_120] {
            for claimed in [800, 960] {
                let mut events = InOrder::default();
                let mut told = 0;
                for step in 0..5u16 {
                    let update = payload(11, false, 160 * (step + 1));
                    told += usize::from(events.take(1_000, step == 0, &update).is_some());
                }
                for repeated in 0..3 {
                    let at = 1_000 + later + if later > 800 { 160 * repeated } else { 0 };
                    let end = payload(11, true, claimed);
                    told += usize::from(events.take(at, false, &end).is_some());
                }
                assert_eq!(told, 1, "{later} {claimed}");
                assert!(events.take(4_000, true, &payload(11, false, 160)).is_some());
            }
        }
    }

    #[test]
    fn two_presses_with_one_timestamp_are_two_when_each_has_a_marker() {
        let mut events = InOrder::default();
        for press in 0..3 {
            assert!(events.take(1_000, true, &payload(1, false, 160)).is_some(), "{press}");
            assert!(events.take(1_000, false, &payload(1, false, 320)).is_none());
            for _ in 0..3 {
                assert!(events.take(1_000, false, &payload(1, true, 480)).is_none());
            }
        }
        // Some senders set the marker in every packet.
        assert!(events.take(9_000, true, &payload(2, false, 160)).is_some());
        for _ in 0..3 {
            assert!(events.take(9_000, true, &payload(2, true, 320)).is_none());
        }
    }

    #[test]
    fn the_first_packet_of_a_press_is_no_second_one_when_its_end_has_overtaken_it() {
        let mut events = TelephoneEvents::default();
        let mut is_new = |sequence, marker, end, duration| {
            let header = header(sequence, 1_000, marker);
            let told = events.take(&header, &payload(1, end, duration), CLOCK, None, 0);
            told.is_some_and(|packet| packet.is_new)
        };
        assert!(is_new(65_535, false, true, 480));
        assert!(!is_new(65_534, true, false, 160));
        assert!(is_new(0, true, false, 160));
        assert!(!is_new(65_535, false, true, 480));
    }

    #[test]
    fn a_press_has_not_lasted_for_longer_than_what_has_passed() {
        let mut events = TelephoneEvents::default();
        for claimed in [960, 49_155, 65_535] {
            let told =
                events.take(&header(1, 0, true), &payload(1, true, claimed), CLOCK, Some(200), 0);
            assert_eq!(told.map(|packet| packet.length), Some(200), "{claimed}");
        }
        // So a packet that follows the end is another press, even if its own first packet is lost.
        let told =
            events.take(&header(9, 1_600, false), &payload(1, false, 1_920), CLOCK, Some(320), 0);
        assert!(told.is_some_and(|packet| packet.is_new));
    }

    #[test]
    fn a_press_with_the_sequence_numbers_of_an_old_one_is_told_with_its_first_packet() {
        // 65,536 packets take 11 minutes at least. The timestamps grow, or are all the same.
        let frames = 65_536 / 2;
        for (later, marker) in [(10_485_760, true), (10_485_760, false), (0, true), (0, false)] {
            for sequence in 998..1_006 {
                let mut events = TelephoneEvents::default();
                let mut is_new = |sequence, timestamp, marker, up, frame| {
                    let header = header(sequence, timestamp, marker);
                    let payload = payload(5, up, 160);
                    let told = events.take(&header, &payload, CLOCK, None, frame);
                    told.is_some_and(|packet| packet.is_new)
                };
                assert!(is_new(1_000, 0, true, false, 1));
                for step in 1..6 {
                    assert!(!is_new(1_000 + step, 0, false, step > 3, 1));
                }
                assert!(is_new(sequence, later, marker, false, frames), "{sequence} {later}");
                assert!(!is_new(sequence + 1, later, false, true, frames));
            }
        }
    }

    #[test]
    fn a_key_that_is_down_for_minutes_is_one_press() {
        let mut events = TelephoneEvents::default();
        let mut told = 0;
        for frame in 0..20_000_u32 {
            let segment = frame * 160 / 65_535;
            let (begin, duration) = (segment * 65_535, frame * 160 - segment * 65_535 + 160);
            let header = header(frame as u16, begin, frame == 0);
            let payload = payload(9, false, duration.min(65_535) as u16);
            let packet = events.take(&header, &payload, CLOCK, None, frame.into());
            told += u32::from(packet.is_some_and(|packet| packet.is_new));
        }
        assert_eq!(told, 1);
    }

    /// How senders set the timestamps and durations of a press.
    #[derive(Debug, Clone, Copy)]
    enum Stamps {
        /// As RFC 4733 requires.
        Right,
        /// The end packets have the timestamp of the end.
        LateEnd,
        /// Each packet has the timestamp of its sending.
        OwnTime,
        /// All presses have the timestamp of the first one.
        Stuck,
    }

    proptest! {
        #[test]
        fn each_press_is_told_exactly_once_if_one_packet_of_it_comes(
            keys in prop::collection::vec(0u8..16, 1..12),
            start: u32,
            survivors in prop::collection::vec(1u8..=255, 12),
            order in prop::collection::vec(0usize..12, 12 * 16),
        ) {
            // Each press has five updates and three end packets, each sent twice. Any may be lost,
            // but not all, and packets of the next press may overtake them.
            let mut packets = Vec::new();
            for (index, code) in keys.iter().enumerate() {
                let at = start.wrapping_add(1_600 * index as u32);
                for step in (0..8u16).filter(|step| survivors[index] >> step & 1 == 1) {
                    let sequence = (start as u16).wrapping_add(index as u16 * 10 + step);
                    let header = header(sequence, at, step == 0);
                    let packet = (header, payload(*code, step > 4, 160 * (step.min(5) + 1)));
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
                .filter_map(|(_, (header, payload))| events.take(header, payload, CLOCK, None, 0))
                .filter(|press| press.is_new)
                .map(|press| (press.timestamp.0.wrapping_sub(start), press.tone.event_code()))
                .collect();
            told.sort_unstable();
            let pressed: Vec<_> =
                keys.iter().enumerate().map(|(index, key)| (1_600 * index as u32, *key)).collect();
            prop_assert_eq!(told, pressed);
        }

        #[test]
        fn a_press_is_told_once_whatever_its_order_duplicates_timestamps_and_durations(
            keys in prop::collection::vec((0u8..3, 1u16..8, 2u32..12), 1..10),
            stamps in prop::sample::select(
                vec![Stamps::Right, Stamps::LateEnd, Stamps::OwnTime, Stamps::Stuck]),
            claim in prop::sample::select(
                vec![|lasted| lasted, |lasted| 6 * lasted, |lasted| lasted / 6, |_| 160, |_| 49_155,
                     |_| u16::MAX] as Vec<fn(u16) -> u16>),
            order in prop::collection::vec((0u32..4, any::<bool>()), 10 * 12),
            start: u32,
        ) {
            // One packet every 20 ms; each may be late by up to 60 ms, and come twice. A key is up
            // for 40 ms or more, including its end packets.
            let (mut packets, mut now, mut sequence) = (Vec::new(), 0u32, start as u16);
            for (index, (key, updates, pause)) in keys.iter().enumerate() {
                let began = now;
                for step in 0..updates + 3 {
                    let (is_up, lasted) = (step >= *updates, 160 * (step.min(*updates) + 1));
                    let at = match stamps {
                        Stamps::LateEnd if is_up => began + u32::from(lasted),
                        Stamps::OwnTime => now,
                        Stamps::Stuck => 0,
                        _ => began,
                    };
                    let header = header(sequence, start.wrapping_add(at), step == 0);
                    let payload = payload(*key, is_up, claim(lasted));
                    // By its own clock the sender cannot be further than this.
                    let passed = now + 160 - at;
                    let (late, twice) = order[index * 12 + usize::from(step)];
                    packets.push((now / 160 + late, header, payload, passed));
                    if twice {
                        packets.push((now / 160, header, payload, passed));
                    }
                    (now, sequence) = (now + 160, sequence.wrapping_add(1));
                }
                now += 160 * pause;
            }
            packets.sort_by_key(|(at, ..)| *at);
            let mut events = TelephoneEvents::default();
            let mut told: Vec<u8> = packets
                .iter()
                .filter_map(|(_, header, payload, passed)| {
                    events.take(header, payload, CLOCK, Some(*passed), 0)
                })
                .filter(|press| press.is_new)
                .map(|press| press.tone.event_code())
                .collect();
            let mut pressed: Vec<u8> = keys.iter().map(|(key, ..)| *key).collect();
            told.sort_unstable();
            pressed.sort_unstable();
            prop_assert_eq!(told, pressed);
        }

        #[test]
        fn no_payload_panics(
            packets in prop::collection::vec(
                (any::<u16>(), any::<u32>(), any::<bool>(), any::<Option<u32>>(),
                 prop::collection::vec(any::<u8>(), 0..6)), 0..100)
        ) {
            let mut events = TelephoneEvents::default();
            for (sequence, timestamp, marker, passed, payload) in packets {
                let header = header(sequence, timestamp, marker);
                if let Some(payload) = EventPayload::parse(&payload) {
                    let _ = events.take(&header, &payload, CLOCK, passed, 0);
                }
            }
        }
    }
}
