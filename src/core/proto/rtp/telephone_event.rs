//! Telephone events (RFC 4733): packets to keys, each press once.
//!
//! A press is many packets; any of them may be lost, come twice or be overtaken, and the end is
//! told three times. All should bear the timestamp of the beginning and a duration that grows. Some
//! senders give each packet its own timestamp, or two presses the same one, or count durations by
//! another clock. So presses are told apart by what holds of every key: it cannot go down again
//! while it is down, it is not down for longer than the time since it went down, and a packet that
//! follows its end in the sequence is not part of it.
//!
//! What is known of a press is forgotten when nothing of it has come for so long that a sequence
//! number or a timestamp of it may be that of a new one.
//!
//! A press longer than the duration field goes on with a new timestamp where the last one ended,
//! and without a marker.

use std::collections::VecDeque;

use super::packet::Header;
use crate::model::Tone;

/// Remembers the last presses of one source.
#[derive(Debug, Clone, Default)]
pub struct TelephoneEvents {
    /// The newest at the back.
    presses: VecDeque<Press>,
    /// How many presses there have been.
    count: u32,
}

#[derive(Debug, Clone, Copy)]
struct Press {
    id: u32,
    tone: Tone,
    /// Timestamp of its beginning.
    begin: u32,
    /// Ticks since then that the key has been down, as far as that can be true.
    length: u32,
    /// The longest duration that was claimed.
    claimed: u16,
    /// Sequence numbers of its first and of its last packet so far.
    first: u16,
    last: u16,
    /// Sequence number of the first packet that says that the key is up.
    up: Option<u16>,
    /// The frame in which its newest packet came.
    heard_at: u64,
}

/// What a packet says of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyPacket {
    /// The key.
    pub tone: Tone,
    /// The press, counted from the first of the source.
    pub press: u32,
    /// Whether this is the first packet of the press that has come.
    pub is_new: bool,
    /// The RTP timestamp of the press's beginning.
    pub timestamp: u32,
    /// Ticks that the press has lasted, by its packets so far; once the key is up, by the first
    /// packet that says so.
    pub length: u32,
    /// Whether this packet says that the key is up.
    pub is_up: bool,
}

/// Event code, flags and volume, duration.
const PAYLOAD: usize = 4;
/// How loud the keys that we send are, in dB below 0 dBm0.
const VOLUME: u8 = 10;
/// The bit that says that the key is up again.
const END: u8 = 0x80;
/// Presses that are remembered: their packets may still be under way.
const MAX_PRESSES: usize = 16;
/// How long a press is remembered, in frames of 20 ms: a minute. No packet is under way for so
/// long, and sequence numbers do not come round so soon.
const REMEMBERED_FRAMES: u64 = 3_000;
/// A segment lasts as long as the duration field can say, but for so many ticks: senders count in
/// packets, and the last packets of a segment may be lost.
const SLACK: u16 = 4_000;
/// A key is up for longer than this before it goes down again, in ms: the shortest pause that ITU-T
/// Q.24 lets a receiver rely on is 40 ms.
const SHORTEST_PAUSE_MS: u32 = 30;
/// The last end packet is sent so long after the first, in ms, where each has its own timestamp.
const REPEATED_MS: u32 = 40;
/// How far the timestamps of two packets may be apart that follow each other, in ms.
const STEP_MS: u32 = 100;
/// How many numbers apart packets are that follow each other, with some of another kind, lost or
/// late in between: fewer than the three ends of a press and the first packet of the next.
const NEXT: i16 = 4;

impl TelephoneEvents {
    /// Takes a packet; `None` if it is about no key. A press is new when its first packet comes,
    /// whichever that is. `clock_rate`: ticks of the timestamp in a second. `passed`: ticks from
    /// the packet's timestamp to now, where the sender's other packets show how late it is there.
    /// `frame`: the frame of 20 ms in which it came.
    pub fn take(
        &mut self,
        header: &Header,
        payload: &[u8],
        clock_rate: u32,
        passed: Option<u32>,
        frame: u64,
    ) -> Option<KeyPacket> {
        let (fields, _) = payload.split_first_chunk::<PAYLOAD>()?;
        let tone = Tone::from_event_code(fields[0])?;
        let claimed = u16::from_be_bytes([fields[2], fields[3]]);
        let packet = Packet {
            sequence: header.sequence,
            timestamp: header.timestamp,
            marker: header.marker,
            is_up: fields[1] & END != 0,
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
        let is_up = packet.is_up;
        Some(KeyPacket { tone, press: id, is_new, timestamp: begin, length, is_up })
    }

    /// Another source takes the place of this one: its presses are others.
    pub fn begin_anew(&mut self) {
        self.presses.clear();
    }

    /// The press that a packet is part of. Two may have the same timestamp: then it is the newest
    /// that had begun when the packet was sent.
    fn find(&self, tone: Tone, packet: &Packet) -> Option<usize> {
        let fits = |press: &Press| press.tone == tone && press.has(packet);
        let had_begun = |press: &Press| !is_before(packet.sequence, press.first);
        let newest = self.presses.iter().rposition(|press| fits(press) && had_begun(press));
        newest.or_else(|| self.presses.iter().position(fits))
    }

    fn begin(&mut self, tone: Tone, packet: &Packet) -> Press {
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

/// The payload that says that a key has been down for `duration` ticks (RFC 4733 section 2.3).
pub fn payload(tone: Tone, is_up: bool, duration: u16) -> [u8; PAYLOAD] {
    let [high, low] = duration.to_be_bytes();
    [tone.event_code(), if is_up { END | VOLUME } else { VOLUME }, high, low]
}

/// One packet about a key.
struct Packet {
    sequence: u16,
    timestamp: u32,
    marker: bool,
    is_up: bool,
    claimed: u16,
    /// What of the claimed duration can be true.
    length: u32,
    ticks_per_ms: u32,
    /// When it came.
    frame: u64,
}

impl Packet {
    fn ticks(&self, ms: u32) -> i64 {
        i64::from(self.ticks_per_ms) * i64::from(ms)
    }
}

impl Press {
    /// Whether a packet about this key is part of this press.
    fn has(&self, packet: &Packet) -> bool {
        let is_same_timestamp = packet.timestamp == self.begin;
        if !packet.marker {
            return is_same_timestamp || self.touches(packet) || self.goes_on_with(packet);
        }
        // With a marker it begins a press: another one, unless this press has later packets.
        match self.up {
            // Some senders set it in all packets of a press.
            None if is_same_timestamp => true,
            Some(up) if is_same_timestamp => {
                let is_shorter = packet.claimed < self.claimed || !packet.is_up;
                !(is_shorter && is_before(up, packet.sequence))
            }
            _ => is_before(packet.sequence, self.last) && self.touches(packet),
        }
    }

    /// Whether the packet's time lies within that of this press, or so near that the key cannot
    /// have been up in between.
    fn touches(&self, packet: &Packet) -> bool {
        let (offset, lasted) = (self.offset(packet), i64::from(self.length));
        let Some(reach) = self.reach(packet) else { return true };
        let is_near = offset <= lasted + reach && offset + i64::from(packet.length) >= -reach;
        // Or else it has the time at which it is sent, and says when the key went down.
        let down = offset - i64::from(packet.claimed);
        is_near || self.up.is_none() && down.abs() <= packet.ticks(SHORTEST_PAUSE_MS)
    }

    /// How many ticks a packet of this press may be away from what is known of it; `None` if it is
    /// part of it wherever it is.
    fn reach(&self, packet: &Packet) -> Option<i64> {
        let after_last = packet.sequence.wrapping_sub(self.last) as i16;
        let before_first = self.first.wrapping_sub(packet.sequence) as i16;
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

    /// Whether the packet may be of the next segment of this press (section 2.5.1.3).
    fn goes_on_with(&self, packet: &Packet) -> bool {
        let length = i64::from(self.length);
        let is_full = length >= i64::from(u16::MAX - SLACK);
        let next = length..=length + 2 * i64::from(SLACK);
        self.up.is_none() && is_full && next.contains(&self.offset(packet))
    }

    fn add(&mut self, packet: &Packet) {
        let offset = self.offset(packet);
        let is_after_end = self.up.is_some_and(|up| is_before(up, packet.sequence));
        if offset < 0 {
            self.begin = packet.timestamp;
            self.length = self.length.saturating_add(offset.unsigned_abs() as u32);
        }
        let end = u32::try_from(offset).unwrap_or(0).saturating_add(packet.length);
        match (packet.is_up, self.up) {
            // What it says is final.
            (true, _) if !is_after_end => self.length = end,
            (false, None) => self.length = self.length.max(end),
            _ => {}
        }
        self.claimed = self.claimed.max(packet.claimed);
        self.heard_at = self.heard_at.max(packet.frame);
        if is_before(packet.sequence, self.first) {
            self.first = packet.sequence;
        }
        if is_before(self.last, packet.sequence) {
            self.last = packet.sequence;
        }
        if packet.is_up && !is_after_end {
            self.up = Some(packet.sequence);
        }
    }

    /// Ticks from the beginning to the packet's timestamp.
    fn offset(&self, packet: &Packet) -> i64 {
        i64::from(packet.timestamp.wrapping_sub(self.begin) as i32)
    }
}

/// Whether a packet was sent before another one, by their sequence numbers.
fn is_before(one: u16, other: u16) -> bool {
    (one.wrapping_sub(other) as i16) < 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLOCK: u32 = 8_000;

    fn payload(code: u8, end: bool, duration: u16) -> [u8; 4] {
        super::payload(Tone::from_event_code(code).unwrap(), end, duration)
    }

    fn header(sequence: u16, timestamp: u32, marker: bool) -> Header {
        Header { marker, payload_type: 101, sequence, timestamp, ssrc: 7 }
    }

    /// Events whose packets come as they were sent, one after the other.
    #[derive(Default)]
    struct InOrder {
        events: TelephoneEvents,
        sequence: u16,
    }

    impl InOrder {
        /// The press, if the packet is the first of it.
        fn take(&mut self, timestamp: u32, marker: bool, payload: &[u8]) -> Option<KeyPacket> {
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
            assert_eq!((told[0].tone.as_char(), told[0].timestamp), ('5', 1000));
        }
    }

    #[test]
    fn one_key_pressed_twice_is_two() {
        let mut events = InOrder::default();
        assert!(events.take(1000, true, &payload(1, false, 160)).is_some());
        assert!(events.take(1000, false, &payload(1, true, 800)).is_none());
        assert!(events.take(2600, true, &payload(1, false, 160)).is_some());
        // Without any marker the end tells them apart.
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
        // A marker is a new press even there.
        assert!(events.take(7 + 65_535 + 160, true, &payload(9, false, 160)).is_some());
    }

    #[test]
    fn a_key_is_told_when_the_clock_of_the_sender_went_back() {
        let mut events = InOrder::default();
        assert!(events.take(4_000_000, true, &payload(1, true, 160)).is_some());
        assert!(events.take(1_000, true, &payload(1, true, 160)).is_some());
        // Packets of either that were under way are nothing new.
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
        assert_eq!(events.take(0, true, &[16, 10, 0, 160]), None);
        assert_eq!(events.take(0, true, &[1, 2, 3]), None);
    }

    #[test]
    fn a_press_whose_end_packets_have_later_timestamps_is_one() {
        // They have the time of the end, of the last update and of their own sending.
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
        // Some set the marker in every packet.
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
        // So one that follows it is another one, even if its first packet is lost.
        let told =
            events.take(&header(9, 1_600, false), &payload(1, false, 1_920), CLOCK, Some(320), 0);
        assert!(told.is_some_and(|packet| packet.is_new));
    }

    #[test]
    fn a_press_with_the_sequence_numbers_of_an_old_one_is_told_with_its_first_packet() {
        // 65,536 packets are 11 minutes at least. The timestamps go on, or are all the same.
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

    /// What senders make of the timestamps and durations of a press.
    #[derive(Debug, Clone, Copy)]
    enum Stamps {
        /// As they should be.
        Right,
        /// The end packets have the time of the end.
        LateEnd,
        /// Each packet has the time at which it is sent.
        OwnTime,
        /// All presses have the timestamp of the first.
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
            // Five updates and three ends a press, each twice; any of them lost, but not all, and
            // overtaken by packets of the next press.
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
                .map(|press| (press.timestamp.wrapping_sub(start), press.tone.event_code()))
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
            // A packet every 20 ms; each may be late by 60 ms, and come twice. A key is up for 40
            // ms or more, its end packets included.
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
                    // By its own clock the sender cannot be further than here.
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
                let _ = events.take(&header, &payload, CLOCK, passed, 0);
            }
        }
    }
}
