//! Packets to frames and keys.
//!
//! In: datagrams as they come, 10 to 60 ms of sound each. Out: exactly one frame of 20 ms a tick,
//! and the keys at their places in it. Everything is placed by RTP time: what comes in the wrong
//! order is put right, what is missing is concealed, and a pause is as long as it was. It knows no
//! socket and no clock but the tick.

use std::collections::VecDeque;

use crate::{
    audio::{CodecError, CodecKind, Decoder, Rate, measure::level_dbfs},
    model::Tone,
    operation::HeardTone,
    proto::{
        rtp::{
            jitter_buffer::{Inserted, JitterBuffer},
            packet::{NotRtp, Packet},
            rtcp::{ReportBlock, SourceStatistics},
            seq::{ExtendedSequence, MediaClock},
            telephone_event::TelephoneEvents,
        },
        sdp::{Codec, StreamPlan},
    },
};

/// Figures about what came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceiverStats {
    /// Packets of sound.
    pub received: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Packets that came after their turn.
    pub late: u64,
    /// Packets that came twice.
    pub duplicate: u64,
    /// Interarrival jitter in ticks of the codec's clock.
    pub jitter: u32,
}

/// Why a datagram is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RtpError {
    /// It is not RTP.
    #[error(transparent)]
    NotRtp(#[from] NotRtp),
    /// A payload type that was not agreed.
    #[error("payload type {0} was not agreed")]
    PayloadType(u8),
}

/// One frame of playout.
#[derive(Debug)]
pub struct Playout<'a> {
    /// 20 ms at the stream's rate; silence if nothing came.
    pub samples: &'a [i16],
    /// A key that begins in this frame.
    pub tone: Option<HeardTone>,
    /// How many newer frames have been received already.
    pub behind: u32,
}

/// The receiving side of one stream. All times are in samples at the stream's rate.
#[derive(Debug)]
pub struct Receiver {
    codec: CodecKind,
    payload_type: u8,
    telephone_event: Option<u8>,
    decoder: Decoder,
    /// RTP ticks in a sample.
    ticks: i64,

    source: Option<Source>,
    waiting: JitterBuffer,
    /// Samples in a packet, as far as is known.
    packet_len: i64,
    /// Decoded sound that is to be played next.
    decoded: Vec<i16>,
    /// Media time of the next sample; `None` while the buffer fills.
    cursor: Option<i64>,
    /// Frames in a row for which nothing was there.
    missing: u32,
    /// Frames that are still to be inserted, because packets came late.
    hold: u32,
    /// Frames of reserve beyond one packet.
    reserve: i64,
    /// No more packets are coming.
    draining: bool,

    events: TelephoneEvents,
    keys: VecDeque<(i64, Tone)>,
    /// When keys were down: that is silence.
    pressed: VecDeque<(i64, i64)>,

    frame: Vec<i16>,
    late: u64,
    duplicate: u64,
    /// Of sources that were replaced.
    received_before: u64,
    lost_before: u64,
}

/// One SSRC.
#[derive(Debug)]
struct Source {
    ssrc: u32,
    sequence: ExtendedSequence,
    highest: i64,
    clock: MediaClock,
    /// From its own time to ours, which goes on when a source or its clock is replaced.
    offset: i64,
    statistics: SourceStatistics,
}

/// Reserve at first, and at most: with one packet of 20 ms, a depth of 60 ms and of 200 ms.
const RESERVE: i64 = 2;
const MAX_RESERVE: i64 = 9;
/// A packet in sequence that is so far from where it should be is a new start of the sender's
/// clock: in frames.
const JUMP: i64 = 25;
/// Frames that are concealed before it is silence.
const CONCEALED: u32 = 3;
/// What is quieter may be left out to catch up with a sender whose clock is faster.
const QUIET_DBFS: f64 = -45.0;
/// Frames of delay that are caught up by leaving out sound as well: a second.
const MAX_BEHIND: i64 = 50;
/// Keys and presses that are remembered.
const MAX_KEYS: usize = 32;
/// Static payload type of comfort noise (RFC 3389).
const COMFORT_NOISE: u8 = 13;

impl Receiver {
    /// A receiver of what was agreed.
    ///
    /// # Errors
    /// The decoder cannot be made.
    pub fn new(plan: &StreamPlan) -> Result<Self, CodecError> {
        let codec = kind_of(plan.codec);
        let frame_len = codec.rate().frame_len();
        Ok(Self {
            codec,
            payload_type: plan.payload_type,
            telephone_event: plan.telephone_event,
            decoder: Decoder::new(codec)?,
            ticks: i64::from(codec.clock_rate() / codec.rate().hz()).max(1),
            source: None,
            waiting: JitterBuffer::default(),
            packet_len: frame_len as i64,
            decoded: Vec::with_capacity(4 * frame_len),
            cursor: None,
            missing: 0,
            hold: 0,
            reserve: RESERVE,
            draining: false,
            events: TelephoneEvents::default(),
            keys: VecDeque::with_capacity(MAX_KEYS),
            pressed: VecDeque::with_capacity(MAX_KEYS),
            frame: Vec::with_capacity(frame_len),
            late: 0,
            duplicate: 0,
            received_before: 0,
            lost_before: 0,
        })
    }

    /// Goes on with what was agreed anew; what has come so far is played.
    ///
    /// # Errors
    /// The decoder cannot be made; everything stays as it was.
    pub fn renew(&mut self, plan: &StreamPlan) -> Result<(), CodecError> {
        if kind_of(plan.codec) != self.codec {
            let fresh = Self::new(plan)?;
            let before = self.stats();
            *self = Self {
                late: before.late,
                duplicate: before.duplicate,
                received_before: before.received,
                lost_before: before.lost,
                ..fresh
            };
            return Ok(());
        }
        self.payload_type = plan.payload_type;
        self.telephone_event = plan.telephone_event;
        Ok(())
    }

    /// The stream's sample rate.
    pub fn rate(&self) -> Rate {
        self.codec.rate()
    }

    /// Takes a datagram that came in the tick `frame`.
    ///
    /// # Errors
    /// It is not RTP, or nothing that was agreed.
    pub fn push(&mut self, datagram: &[u8], frame: u64) -> Result<(), RtpError> {
        let packet = Packet::parse(datagram)?;
        let pt = packet.header.payload_type;
        if Some(pt) == self.telephone_event {
            self.take_event(&packet);
            return Ok(());
        }
        if pt == self.payload_type {
            self.take_sound(&packet, frame);
            return Ok(());
        }
        // Comfort noise is silence, which is what is played where nothing is.
        if pt == COMFORT_NOISE { Ok(()) } else { Err(RtpError::PayloadType(pt)) }
    }

    /// The next frame.
    pub fn pull(&mut self) -> Playout<'_> {
        let frame_len = self.codec.rate().frame_len();
        self.frame.clear();
        if self.cursor.is_none() {
            self.begin();
        }
        let Some(cursor) = self.cursor else {
            self.frame.resize(frame_len, 0);
            let tone = self.keys.pop_front().map(|(_, tone)| HeardTone { tone, offset: 0 });
            return Playout { samples: &self.frame, tone, behind: 0 };
        };
        if self.hold > 0 {
            // A frame of delay more, so that what is late now would not be next time.
            self.hold -= 1;
            self.decoder.conceal(&mut self.frame);
            self.frame.resize(frame_len, 0);
            let behind = self.behind(cursor);
            return Playout { samples: &self.frame, tone: None, behind };
        }
        let cursor = self.catch_up(cursor);
        self.fill(cursor, frame_len);
        self.frame.extend(self.decoded.drain(..frame_len));
        let end = cursor + frame_len as i64;
        self.silence_keys(cursor, end);
        self.cursor = Some(end);
        let tone = match self.keys.front() {
            Some((time, tone)) if *time < end => {
                let offset = usize::try_from(time - cursor).unwrap_or(0);
                Some(HeardTone { tone: *tone, offset })
            }
            _ => None,
        };
        if tone.is_some() {
            self.keys.pop_front();
        }
        let behind = self.behind(end);
        Playout { samples: &self.frame, tone, behind }
    }

    /// No more packets come: what is there is played without waiting.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether all that came has been played.
    pub fn is_drained(&self) -> bool {
        self.waiting.is_empty() && self.decoded.is_empty() && self.keys.is_empty()
    }

    /// Figures so far.
    pub fn stats(&self) -> ReceiverStats {
        let statistics = self.source.as_ref().map(|source| &source.statistics);
        ReceiverStats {
            received: self.received_before + statistics.map_or(0, SourceStatistics::received),
            lost: self.lost_before + statistics.map_or(0, SourceStatistics::lost),
            late: self.late,
            duplicate: self.duplicate,
            jitter: statistics.map_or(0, SourceStatistics::jitter),
        }
    }

    /// The block about the source for a report; `None` before the first packet.
    pub fn report(&mut self) -> Option<ReportBlock> {
        let source = self.source.as_mut()?;
        source.statistics.report(source.ssrc)
    }

    // -- what comes --------------------------------------------------------------------------

    fn take_sound(&mut self, packet: &Packet<'_>, frame: u64) {
        let header = packet.header;
        if self.source.as_ref().is_none_or(|source| source.ssrc != header.ssrc) {
            self.take_source(header.ssrc, header.timestamp);
        }
        let edge = self.live_edge();
        let next = self.next_time();
        let Some(source) = &mut self.source else { return };
        let sequence = source.sequence.extend(header.sequence);
        let in_sequence = sequence > source.highest;
        source.highest = source.highest.max(sequence);
        let ticks = source.clock.extend(header.timestamp);
        let frame_len = self.codec.rate().frame_len() as i64;
        let arrival = i64::try_from(frame).unwrap_or(i64::MAX / 4096) * frame_len * self.ticks;
        source.statistics.count(sequence, arrival, ticks);
        if packet.payload.is_empty() {
            return;
        }
        let mut time = ticks.div_euclid(self.ticks) + source.offset;
        if let Some(next) = next {
            let jumped = time < next - JUMP * frame_len || time > edge + JUMP * frame_len;
            let stalled = time < next && self.missing > CONCEALED;
            if in_sequence && (jumped || stalled) {
                // The sender's clock began anew, or the network held everything back: what comes
                // now follows what came last. Nothing of it is thrown away.
                source.offset += edge - time;
                time = edge;
                if self.waiting.is_empty() {
                    self.hold = self.reserve as u32;
                }
            } else if time < next {
                self.late += 1;
                if self.reserve < MAX_RESERVE {
                    self.reserve += 1;
                    self.hold += 1;
                }
                return;
            }
        }
        match self.waiting.insert(time, packet.payload) {
            Inserted::Kept => {}
            Inserted::Duplicate => self.duplicate += 1,
            Inserted::Full => self.late += 1,
        }
        if let CodecKind::Pcmu | CodecKind::Pcma = self.codec {
            self.packet_len = packet.payload.len() as i64;
        }
    }

    fn take_event(&mut self, packet: &Packet<'_>) {
        let header = packet.header;
        let press = self.events.take(header.timestamp, header.marker, packet.payload);
        let same_source = self.source.as_mut().filter(|source| source.ssrc == header.ssrc);
        let began = match same_source {
            Some(source) => {
                let sequence = source.sequence.extend(header.sequence);
                source.highest = source.highest.max(sequence);
                // Events are packets of the source too; their arrival says nothing about jitter.
                let ticks = source.clock.extend(header.timestamp);
                source.statistics.count_without_time(sequence);
                ticks.div_euclid(self.ticks) + source.offset
            }
            // Another source has another clock: now is when it came.
            None => self.live_edge(),
        };
        if let (Some(press), true) = (press, self.keys.len() < MAX_KEYS) {
            self.keys.push_back((began, press.tone));
        }
        let duration = packet.payload.get(2..4).map_or(0, |d| u16::from_be_bytes([d[0], d[1]]));
        let until = began + i64::from(duration).div_euclid(self.ticks);
        match self.pressed.iter_mut().find(|(start, _)| *start == began) {
            Some((_, end)) => *end = until.max(*end),
            None => {
                if self.pressed.len() == MAX_KEYS {
                    self.pressed.pop_front();
                }
                self.pressed.push_back((began, until));
            }
        }
    }

    /// A new source goes on where the last one ended.
    fn take_source(&mut self, ssrc: u32, timestamp: u32) {
        let before = self.stats();
        (self.received_before, self.lost_before) = (before.received, before.lost);
        let offset = self.live_edge() - i64::from(timestamp).div_euclid(self.ticks);
        self.source = Some(Source {
            ssrc,
            sequence: ExtendedSequence::default(),
            highest: i64::MIN,
            clock: MediaClock::default(),
            offset,
            statistics: SourceStatistics::default(),
        });
        self.events = TelephoneEvents::default();
    }

    // -- what is played ----------------------------------------------------------------------

    /// Begins to play when there is enough in reserve: a packet, and some more for its lateness.
    fn begin(&mut self) {
        let (Some(earliest), Some(latest)) = (self.waiting.earliest(), self.waiting.latest())
        else {
            return;
        };
        let frame_len = self.codec.rate().frame_len() as i64;
        let depth = latest + self.packet_len - earliest;
        if self.draining || depth >= self.packet_len + self.reserve * frame_len {
            self.cursor = Some(earliest);
            self.missing = 0;
        }
    }

    /// Leaves out a quiet frame where a sender's faster clock has made the buffer too deep.
    fn catch_up(&mut self, cursor: i64) -> i64 {
        let frame_len = self.codec.rate().frame_len();
        let wanted = self.packet_len / frame_len as i64 + self.reserve + 3;
        let behind = i64::from(self.behind(cursor));
        if self.draining || behind <= wanted {
            return cursor;
        }
        self.fill(cursor, frame_len);
        let is_quiet = level_dbfs(&self.decoded[..frame_len]) < QUIET_DBFS;
        if is_quiet || behind > MAX_BEHIND {
            self.decoded.drain(..frame_len);
            return cursor + frame_len as i64;
        }
        cursor
    }

    /// Decodes, conceals or waits until there is a frame.
    fn fill(&mut self, cursor: i64, frame_len: usize) {
        while self.decoded.len() < frame_len {
            let next = cursor + self.decoded.len() as i64;
            match self.waiting.earliest() {
                Some(time) if time <= next => {
                    let decoded = &mut self.decoded;
                    let before = decoded.len();
                    let decoder = &mut self.decoder;
                    let result = self.waiting.take(|_, payload| decoder.decode(payload, decoded));
                    match result {
                        Some(Ok(())) => {
                            // What overlaps with what is there already is not played twice.
                            let overlap = usize::try_from(next - time).unwrap_or(0);
                            let came = decoded.len() - before;
                            decoded.drain(before..before + overlap.min(came));
                            self.packet_len = (came as i64).max(1);
                            self.missing = 0;
                        }
                        Some(Err(_)) | None => self.late += 1,
                    }
                }
                Some(time) => {
                    let gap = usize::try_from(time - next).unwrap_or(usize::MAX);
                    self.bridge(gap.min(frame_len - self.decoded.len()), next);
                }
                None => self.bridge(frame_len - self.decoded.len(), next),
            }
        }
    }

    /// Makes up for `samples` that are not there: concealed at first, then silence.
    fn bridge(&mut self, samples: usize, at: i64) {
        let before = self.decoded.len();
        let in_key = self.pressed.iter().any(|(start, end)| *start <= at && at < *end);
        self.missing = self.missing.saturating_add(1);
        if !in_key && self.missing <= CONCEALED && !self.draining {
            self.decoder.conceal(&mut self.decoded);
        }
        self.decoded.resize(before + samples, 0);
    }

    /// Sound beside a key is the key's sound, which is not part of what is said.
    fn silence_keys(&mut self, start: i64, end: i64) {
        while self.pressed.front().is_some_and(|(_, until)| *until < start - KEEP_PRESSED) {
            self.pressed.pop_front();
        }
        for (from, until) in &self.pressed {
            let from = usize::try_from((*from).max(start) - start).unwrap_or(0);
            let until = usize::try_from((*until).min(end) - start).unwrap_or(0);
            if from < until {
                self.frame[from..until].fill(0);
            }
        }
    }

    /// Frames that have come and are newer than `end`.
    fn behind(&self, end: i64) -> u32 {
        let frame_len = self.codec.rate().frame_len() as i64;
        let newer = self.live_edge() - end;
        u32::try_from((newer + frame_len - 1).div_euclid(frame_len)).unwrap_or(0)
    }

    /// Media time of the end of what has come.
    fn live_edge(&self) -> i64 {
        let played = self.next_time().unwrap_or(0);
        self.waiting.latest().map_or(played, |latest| (latest + self.packet_len).max(played))
    }

    /// Media time of what is to be decoded next.
    fn next_time(&self) -> Option<i64> {
        self.cursor.map(|cursor| cursor + self.decoded.len() as i64)
    }
}

/// Presses are remembered for so many samples after their end: their packets may be late.
const KEEP_PRESSED: i64 = 16_000;

/// The codec of a plan, as the audio room names it.
pub fn kind_of(codec: Codec) -> CodecKind {
    match codec {
        Codec::Opus => CodecKind::Opus,
        Codec::Pcma => CodecKind::Pcma,
        Codec::Pcmu => CodecKind::Pcmu,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        audio::g711::Law,
        proto::{rtp::packet::Header, sdp::Direction},
    };

    const FRAME: usize = 160;

    fn plan() -> StreamPlan {
        StreamPlan {
            codec: Codec::Pcmu,
            payload_type: 0,
            telephone_event: Some(101),
            remote: None,
            remote_rtcp: None,
            direction: Direction::SendRecv,
            ptime_ms: 20,
            rtcp_mux: false,
        }
    }

    /// µ-law codes that decode to samples all different from silence.
    fn codes(count: usize) -> Vec<u8> {
        (0..count).map(|index| (index % 100 + (index / 100) % 7) as u8).collect()
    }

    fn sound(codes: &[u8]) -> Vec<i16> {
        codes.iter().map(|code| Law::Mu.decode(*code)).collect()
    }

    fn packet(sequence: u16, timestamp: u32, marker: bool, pt: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        Header { marker, payload_type: pt, sequence, timestamp, ssrc: 7 }.write(&mut bytes);
        bytes.extend(payload);
        bytes
    }

    /// What is heard after the silence before the first packet, up to `samples`.
    fn heard(played: &[i16], samples: usize) -> &[i16] {
        let start = played.iter().position(|sample| *sample != 0).unwrap_or(played.len());
        &played[start..(start + samples).min(played.len())]
    }

    proptest! {
        #[test]
        fn what_is_sent_is_played_bit_for_bit(
            ptime in prop::sample::select(vec![10usize, 20, 30, 40, 60]),
            start: u32,
            sequence: u16,
            swaps in prop::collection::vec(any::<bool>(), 60),
        ) {
            let size = 8 * ptime;
            let sent = codes(60 * size);
            let mut packets: Vec<_> = sent
                .chunks(size)
                .enumerate()
                .map(|(index, piece)| {
                    let at = start.wrapping_add((index * size) as u32);
                    packet(sequence.wrapping_add(index as u16), at, false, 0, piece)
                })
                .collect();
            // Neighbours change places: less than the reserve.
            let mut index = 1;
            while ptime <= 20 && index + 1 < packets.len() {
                if swaps[index] {
                    packets.swap(index, index + 1);
                    index += 1;
                }
                index += 1;
            }
            let mut receiver = Receiver::new(&plan()).unwrap();
            let mut played = Vec::new();
            let mut packets = packets.into_iter();
            let mut sent_ms = 0;
            for tick in 0..(60 * ptime / 20) {
                while sent_ms <= tick * 20 {
                    if let Some(packet) = packets.next() {
                        receiver.push(&packet, tick as u64).unwrap();
                    }
                    sent_ms += ptime;
                }
                played.extend_from_slice(receiver.pull().samples);
            }
            for packet in packets {
                receiver.push(&packet, 60).unwrap();
            }
            receiver.drain();
            while !receiver.is_drained() {
                played.extend_from_slice(receiver.pull().samples);
            }
            let expected = sound(&sent);
            prop_assert!(heard(&played, expected.len()) == expected, "what is played differs");
            prop_assert_eq!(receiver.stats().late, 0);
            prop_assert_eq!(receiver.stats().lost, 0);
        }

        #[test]
        fn no_datagrams_panic(
            datagrams in prop::collection::vec(
                (any::<u16>(), any::<u32>(), prop::sample::select(vec![0u8, 13, 101, 99]),
                 prop::collection::vec(any::<u8>(), 0..40)), 0..80),
            opus: bool,
        ) {
            let plan = StreamPlan { codec: if opus { Codec::Opus } else { Codec::Pcmu }, ..plan() };
            let mut receiver = Receiver::new(&plan).unwrap();
            for (index, (sequence, timestamp, pt, payload)) in datagrams.iter().enumerate() {
                let _ = receiver.push(&packet(*sequence, *timestamp, false, *pt, payload), index as u64);
                let _ = receiver.push(payload, index as u64);
                let len = receiver.rate().frame_len();
                let playout = receiver.pull();
                prop_assert_eq!(playout.samples.len(), len);
                prop_assert!(playout.tone.is_none_or(|tone| tone.offset < len));
            }
        }
    }

    /// Sends `present` frames of sound, one a tick; `None` is a tick without a packet whose time
    /// passes all the same. Gives what was played.
    fn play(receiver: &mut Receiver, present: &[bool]) -> Vec<i16> {
        let sent = codes(present.len() * FRAME);
        let mut played = Vec::new();
        for (index, (piece, present)) in sent.chunks(FRAME).zip(present).enumerate() {
            if *present {
                let at = (index * FRAME) as u32;
                receiver.push(&packet(index as u16, at, false, 0, piece), index as u64).unwrap();
            }
            played.extend_from_slice(receiver.pull().samples);
        }
        receiver.drain();
        while !receiver.is_drained() {
            played.extend_from_slice(receiver.pull().samples);
        }
        played
    }

    #[test]
    fn a_lost_packet_leaves_everything_else_in_its_place() {
        let mut present = vec![true; 30];
        present[10] = false;
        let mut receiver = Receiver::new(&plan()).unwrap();
        let played = play(&mut receiver, &present);
        let expected = sound(&codes(30 * FRAME));
        let played = heard(&played, expected.len());
        assert_eq!(played[..10 * FRAME], expected[..10 * FRAME]);
        assert_eq!(played[11 * FRAME..], expected[11 * FRAME..]);
        assert_eq!(receiver.stats().lost, 1);
    }

    #[test]
    fn a_pause_is_as_long_as_it_was() {
        // Two seconds without a packet; sequence numbers go on, time has passed.
        let sent = codes(20 * FRAME);
        let mut receiver = Receiver::new(&plan()).unwrap();
        let mut played = Vec::new();
        for tick in 0..130usize {
            let index = match tick {
                0..10 => Some(tick),
                110..120 => Some(tick - 100),
                _ => None,
            };
            if let Some(index) = index {
                let piece = &sent[index * FRAME..(index + 1) * FRAME];
                let at = (tick * FRAME) as u32;
                receiver.push(&packet(index as u16, at, false, 0, piece), tick as u64).unwrap();
            }
            played.extend_from_slice(receiver.pull().samples);
        }
        let expected = sound(&sent);
        let start = played.iter().position(|sample| *sample != 0).unwrap();
        assert_eq!(played[start..start + 10 * FRAME], expected[..10 * FRAME]);
        let again = start + 110 * FRAME;
        assert_eq!(played[again..again + 10 * FRAME], expected[10 * FRAME..]);
        let pause = &played[start + 15 * FRAME..again];
        assert!(pause.iter().all(|sample| *sample == 0));
    }

    #[test]
    fn a_sender_whose_clock_begins_anew_loses_nothing() {
        let sent = codes(20 * FRAME);
        let mut receiver = Receiver::new(&plan()).unwrap();
        let mut played = Vec::new();
        for (index, piece) in sent.chunks(FRAME).enumerate() {
            // From the tenth packet on the clock is another one; the ticks go on.
            let at = (index * FRAME) as u32;
            let at = if index < 10 { at + 5_000_000 } else { at + 100 };
            if index == 10 {
                for _ in 0..10 {
                    played.extend_from_slice(receiver.pull().samples);
                }
            }
            receiver.push(&packet(index as u16, at, false, 0, piece), index as u64).unwrap();
            played.extend_from_slice(receiver.pull().samples);
        }
        receiver.drain();
        while !receiver.is_drained() {
            played.extend_from_slice(receiver.pull().samples);
        }
        let second = &sound(&sent)[10 * FRAME..];
        assert!(played.windows(second.len()).any(|window| window == second));
    }

    #[test]
    fn a_key_is_told_in_the_frame_and_at_the_sample_of_its_time() {
        let sent = codes(20 * FRAME);
        let mut receiver = Receiver::new(&plan()).unwrap();
        let mut told = Vec::new();
        let mut played = Vec::new();
        let key_at = 10 * FRAME as u32 + 40;
        let mut sequence = 0;
        for tick in 0..30usize {
            match tick {
                0..=10 => {
                    let piece = &sent[tick * FRAME..(tick + 1) * FRAME];
                    let at = (tick * FRAME) as u32;
                    receiver.push(&packet(sequence, at, false, 0, piece), tick as u64).unwrap();
                    sequence += 1;
                }
                11..=17 => {
                    let duration = ((tick.min(15) - 10) * FRAME) as u16;
                    let [high, low] = duration.to_be_bytes();
                    let end = if tick >= 15 { 0x80 } else { 0 };
                    let payload = [11, 10 | end, high, low];
                    let event = packet(sequence, key_at, tick == 11, 101, &payload);
                    receiver.push(&event, tick as u64).unwrap();
                    sequence += 1;
                }
                _ => {}
            }
            let playout = receiver.pull();
            if let Some(tone) = playout.tone {
                told.push((played.len() + tone.offset, tone.tone));
            }
            played.extend_from_slice(playout.samples);
        }
        let start = played.iter().position(|sample| *sample != 0).unwrap();
        assert_eq!(told, [(start + key_at as usize, Tone::POUND)]);
        let expected = sound(&sent[..key_at as usize]);
        assert_eq!(played[start..start + key_at as usize], expected[..]);
        // The sound beside the key is not played.
        assert!(played[start + key_at as usize..].iter().all(|sample| *sample == 0));
    }

    #[test]
    fn what_was_not_agreed_is_refused() {
        let mut receiver = Receiver::new(&plan()).unwrap();
        assert_eq!(
            receiver.push(&packet(0, 0, false, 96, &[1]), 0),
            Err(RtpError::PayloadType(96))
        );
        assert!(receiver.push(&packet(0, 0, false, 13, &[1]), 0).is_ok());
        assert!(matches!(receiver.push(&[1, 2], 0), Err(RtpError::NotRtp(_))));
        assert_eq!(receiver.stats(), ReceiverStats::default());
    }
}
