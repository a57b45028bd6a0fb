//! Converts packets to frames and keys.
//!
//! Input: datagrams in the order of arrival, with 10 to 60 ms of sound each. Output: exactly one
//! frame of 20 ms per tick, and the keys at their places in it. Everything is placed by RTP time:
//! reordered packets are put in order, missing sound is concealed, and a pause keeps its length. If
//! the sender's time jumps, later packets are placed right after the earlier ones, so that nothing
//! is lost and playout never goes back. The receiver knows no socket, and no clock except the tick.

mod pace;
mod pressed;

use std::collections::VecDeque;

use super::key_pairing::{KeyPairing, Told};
use aftertone_core::{
    audio::{Codec, CodecError, Decoder, measure::level_dbfs},
    model::Tone,
    operation::HeardTone,
    proto::{
        rtp::{
            jitter_buffer::{Inserted, JitterBuffer},
            packet::{Header, NotRtp, Packet},
            rtcp::{ReportBlock, SourceStatistics},
            seq::{ExtendedSequence, MediaClock, Place},
            telephone_event::TelephoneEvents,
        },
        sdp::{Payload, StreamPlan},
    },
};
use pace::{Pace, Sound};
use pressed::Pressed;

/// Figures about received packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceiverStats {
    /// Packets of every agreed kind, including duplicates.
    pub received: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Packets that were dropped because they came too late or were too far ahead.
    pub late: u64,
    /// Packets that came twice.
    pub duplicate: u64,
    /// Interarrival jitter in ticks of the codec's clock.
    pub jitter: u32,
}

/// Why a datagram is refused.
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
    /// By how many frames playout has advanced: see
    /// [`Heard::advance`](aftertone_core::operation::Heard::advance).
    pub advance: u32,
    /// How many newer frames have already been received.
    pub behind: u32,
}

/// The receiving side of one stream. All times are in samples at the stream's rate, on a time line
/// of our own that only goes forward.
#[derive(Debug)]
pub struct Receiver {
    codec: Codec,
    /// The meaning of the payload types.
    numbers: Vec<(u8, Payload)>,
    /// Their meaning by the agreement before: such packets may still be under way, and no number
    /// gets another meaning within a session (RFC 3264 section 8.3.2).
    former: Vec<(u8, Payload)>,
    decoder: Decoder,
    /// RTP ticks per sample.
    ticks: i64,

    source: Option<Source>,
    waiting: JitterBuffer,
    /// Samples in a packet, as far as is known.
    packet_len: i64,
    /// Decoded sound that is to be played next.
    decoded: Vec<i16>,
    /// Time of the next sample; `None` until the buffer has filled for the first time.
    cursor: Option<i64>,
    /// Number of frames for which the buffer has been filling.
    filling: i64,
    /// Number of consecutive frames for which nothing was there.
    missing: u32,
    /// From this time on the sender sends no sound: what is missing is silence, not loss.
    quiet_from: Option<i64>,
    /// Frames that are still to be inserted because packets came late.
    hold: u32,
    /// Frames of reserve beyond one packet.
    reserve: i64,
    /// Whether no more packets come.
    draining: bool,

    events: TelephoneEvents,
    /// The SSRC of these events.
    events_ssrc: Option<u32>,
    keys: VecDeque<(i64, Tone)>,
    /// Keys that may still be reported in the other way.
    presses: KeyPairing,
    /// When keys were down: that time is silenced.
    pressed: Pressed,
    /// Where the newest sound ends, and the frame in which it came.
    heard_until: Option<(i64, u64)>,

    frame: Vec<i16>,
    late: u64,
    duplicate: u64,
    /// Figures of sources that were replaced.
    received_before: u64,
    lost_before: u64,
}

/// The state of one SSRC.
#[derive(Debug)]
struct Source {
    ssrc: u32,
    sequence: ExtendedSequence,
    clock: MediaClock,
    statistics: SourceStatistics,
    /// A packet that may be the first of a new sequence count; empty if there is none.
    doubtful: Vec<u8>,
    /// The place of its time on ours; `None` until its first packet, and after a restart.
    anchor: Option<Anchor>,
    /// The same for packets before the last jump.
    anchor_before: Option<Anchor>,
    pace: Pace,
    /// The newest packet of sound.
    newest: Newest,
}

/// The newest packet of sound, to recognise a sender that sends each packet twice.
#[derive(Debug, Default)]
struct Newest {
    /// The media time of the packet.
    ticks: Option<i64>,
    payload: Vec<u8>,
    /// Whether media time differs between packets at all.
    advances: bool,
}

/// What is added to a sender's media time, from a sequence number on.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    from: i64,
    offset: i64,
    /// Our time of the packet `from`; no packet before it is placed after this.
    start: i64,
    /// The newest packet that was placed by this anchor, and where it ends.
    newest: i64,
    end: i64,
}

/// Which of the sender's clocks gives the place of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Now,
    Before,
}

impl Anchor {
    /// The packet `sequence` begins at `start` and is `len` samples long.
    fn new(sequence: i64, offset: i64, start: i64, len: i64) -> Self {
        Self { from: sequence, offset, start, newest: sequence, end: start + len }
    }

    fn placed(&mut self, sequence: i64, end: i64) {
        if sequence >= self.newest {
            (self.newest, self.end) = (sequence, end);
        }
    }
}

/// The meaning of a payload type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sound,
    Event,
    Noise,
}

/// The initial and the largest reserve: with one packet of 20 ms, a depth of 60 ms and of 200 ms.
const RESERVE: i64 = 2;
const MAX_RESERVE: i64 = 9;
/// A packet in sequence that is this many frames from its expected place shows a new start of the
/// sender's clock.
const JUMP: i64 = 25;
/// The same after a pause, in frames beyond the reserve: then packets can be early only by their
/// jitter.
const EARLY: i64 = 5;
/// Frames that are concealed before silence is played.
const CONCEALED: u32 = 3;
/// Frames below this level may be left out to catch up with a sender that has a faster clock.
const QUIET_DBFS: f64 = -45.0;
/// Frames of delay from which sound is left out as well to catch up: a second.
const MAX_BEHIND: i64 = 50;
/// The largest number of frames of sound that wait: packets that come faster than their clock says
/// are dropped.
const MAX_AHEAD: i64 = 250;
/// The largest number of keys that wait for their place in playout.
const MAX_KEYS: usize = 32;
/// Static payload types of comfort noise: RFC 3389, and the one that was in use before it.
const COMFORT_NOISE: [u8; 2] = [13, 19];

impl Receiver {
    /// A receiver for this plan, with the codec that we send ourselves.
    ///
    /// # Errors
    /// The decoder cannot be created.
    pub fn new(plan: &StreamPlan) -> Result<Self, CodecError> {
        Self::of(plan.codec, plan)
    }

    fn of(codec: Codec, plan: &StreamPlan) -> Result<Self, CodecError> {
        let frame_len = codec.rate().frame_len();
        Ok(Self {
            codec,
            numbers: plan.heard.clone(),
            former: Vec::new(),
            decoder: Decoder::new(codec)?,
            ticks: i64::from(codec.clock_rate() / codec.rate().hz()).max(1),
            source: None,
            waiting: JitterBuffer::default(),
            packet_len: frame_len as i64,
            decoded: Vec::with_capacity(4 * frame_len),
            cursor: None,
            filling: 0,
            missing: 0,
            quiet_from: None,
            hold: 0,
            reserve: RESERVE,
            draining: false,
            events: TelephoneEvents::default(),
            events_ssrc: None,
            keys: VecDeque::with_capacity(MAX_KEYS),
            presses: KeyPairing::default(),
            pressed: Pressed::default(),
            heard_until: None,
            frame: Vec::with_capacity(frame_len),
            late: 0,
            duplicate: 0,
            received_before: 0,
            lost_before: 0,
        })
    }

    /// Goes on with one of the agreed codecs. With a codec other than the present one, the receiver
    /// begins anew and returns the former receiver, which must be played to its end first, with its
    /// keys.
    ///
    /// # Errors
    /// The decoder cannot be created; everything stays as it was.
    pub fn renew(
        &mut self,
        codec: Codec,
        plan: &StreamPlan,
    ) -> Result<Option<Self>, CodecError> {
        let former = if self.numbers == plan.heard { &self.former } else { &self.numbers };
        let former = former.clone();
        if codec == self.codec {
            self.numbers.clone_from(&plan.heard);
            self.former = former;
            return Ok(None);
        }
        let fresh = Self { former, ..Self::of(codec, plan)? };
        let mut before = std::mem::replace(self, fresh);
        let figures = before.stats();
        self.late = figures.late;
        self.duplicate = figures.duplicate;
        self.received_before = figures.received;
        self.lost_before = figures.lost;
        // A key that is down stays one press: the new receiver knows of it and takes all its
        // packets.
        for numbers in [&mut before.numbers, &mut before.former] {
            numbers.retain(|(_, payload)| *payload != Payload::Event);
        }
        self.events = std::mem::take(&mut before.events);
        self.events_ssrc = before.events_ssrc;
        self.presses = std::mem::take(&mut before.presses);
        before.drain();
        Ok(Some(before))
    }

    /// The codec that is received.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Whether a packet was sent before the newest that has come.
    pub fn has_overtaken(&self, header: &Header) -> bool {
        let source = self.source.as_ref().filter(|source| source.ssrc == header.ssrc);
        source.is_some_and(|source| source.sequence.is_past(header.sequence))
    }

    /// Takes a datagram that came in the tick `frame`.
    ///
    /// # Errors
    /// It is not RTP, or its payload type was not agreed.
    pub fn push(&mut self, datagram: &[u8], frame: u64) -> Result<(), RtpError> {
        let packet = Packet::parse(datagram)?;
        let header = packet.header;
        let kind = self.kind_of(header.payload_type)?;
        if kind == Kind::Event && self.is_beside(header.ssrc) {
            self.take_key(&packet, None, None, frame);
            return Ok(());
        }
        if self.source.as_ref().is_some_and(|source| source.ssrc != header.ssrc) {
            // The sound of the former source is played before that of the new one.
            let figures = self.stats();
            (self.received_before, self.lost_before) = (figures.received, figures.lost);
            self.source = None;
            self.pressed.begin_anew();
        }
        let mut source = self.source.take().unwrap_or_else(|| Source::new(header.ssrc));
        match source.sequence.place(header.sequence) {
            Place::At(sequence) => self.take(&mut source, sequence, kind, &packet, frame),
            Place::Duplicate => {
                source.statistics.count_duplicate();
                self.duplicate += 1;
            }
            Place::Doubtful => {
                source.doubtful.clear();
                source.doubtful.extend_from_slice(datagram);
            }
            Place::Restarted(sequence) => {
                source.statistics.go_on_at(sequence - 1);
                source.anchor = None;
                source.anchor_before = None;
                source.pace.begin_anew();
                let kept = std::mem::take(&mut source.doubtful);
                if let Ok(first) = Packet::parse(&kept)
                    && let Ok(kind) = self.kind_of(first.header.payload_type)
                {
                    self.take(&mut source, sequence - 1, kind, &first, frame);
                }
                source.doubtful = kept;
                self.take(&mut source, sequence, kind, &packet, frame);
            }
        }
        self.source = Some(source);
        Ok(())
    }

    /// Takes a key that came by SIP in the tick `frame`. Its place is after all sound that has
    /// come.
    pub fn press(&mut self, tone: Tone, frame: u64) {
        if self.presses.is_new(tone, Told::Sip, frame) {
            self.put_key(self.live_edge(), tone);
        }
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
            // Without sound, a key is played at once; with sound, it waits for its place.
            let key = if self.waiting.is_empty() { self.keys.pop_front() } else { None };
            let tone = key.map(|(_, tone)| HeardTone { tone, offset: 0 });
            return Playout { samples: &self.frame, tone, advance: 1, behind: 0 };
        };
        if self.hold > 0 && !self.draining {
            // This frame adds delay, so that packets that are as late as the last one are in time.
            self.hold -= 1;
            if !self.is_quiet_at(cursor) {
                self.decoder.conceal(&mut self.frame);
            }
            self.frame.resize(frame_len, 0);
            let behind = self.behind(cursor);
            return Playout { samples: &self.frame, tone: None, advance: 0, behind };
        }
        let left_out = self.catch_up(cursor);
        let cursor = cursor + i64::from(left_out) * frame_len as i64;
        self.fill(cursor, frame_len);
        self.frame.extend(self.decoded.drain(..frame_len));
        let end = cursor + frame_len as i64;
        self.pressed.silence(&mut self.frame, cursor);
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
        Playout { samples: &self.frame, tone, advance: 1 + left_out, behind }
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

    fn kind_of(&self, payload_type: u8) -> Result<Kind, RtpError> {
        let mut known = self.numbers.iter().chain(&self.former);
        let known = known.find(|(number, _)| *number == payload_type);
        match known.map(|(_, payload)| *payload) {
            Some(Payload::Event) => Ok(Kind::Event),
            Some(Payload::Sound(codec)) if codec == self.codec => Ok(Kind::Sound),
            None if is_comfort_noise(payload_type) => Ok(Kind::Noise),
            Some(Payload::Sound(_)) | None => Err(RtpError::PayloadType(payload_type)),
        }
    }

    /// Whether events of `ssrc` come in addition to the sound of another source, as from some
    /// gateways.
    fn is_beside(&self, ssrc: u32) -> bool {
        let has_sound = self.cursor.is_some() || !self.waiting.is_empty();
        has_sound && self.source.as_ref().is_some_and(|source| source.ssrc != ssrc)
    }

    fn take(
        &mut self,
        source: &mut Source,
        sequence: i64,
        kind: Kind,
        packet: &Packet<'_>,
        frame: u64,
    ) {
        let header = packet.header;
        let ticks = source.clock.extend(header.timestamp);
        let at = ticks.div_euclid(self.ticks);
        let frame_len = self.codec.rate().frame_len() as i64;
        if kind == Kind::Event {
            // All packets of a key press have one timestamp, so they say nothing about jitter.
            source.statistics.count_without_time(sequence);
            let time = self.locate_key(source, sequence, at, self.duration_of(packet.payload));
            self.take_key(packet, time, Some(sequence), frame);
            return;
        }
        let arrival = i64::try_from(frame).unwrap_or(i64::MAX / 4096) * frame_len * self.ticks;
        source.statistics.count(sequence, arrival, ticks);
        if kind == Kind::Noise {
            let time = self.locate(source, sequence, at, 0);
            self.fall_quiet(time.unwrap_or_else(|| self.live_edge()));
            return;
        }
        let len = self.len_of(packet.payload);
        let is_newest = source.sequence.highest() == Some(sequence) && len > 0;
        if is_newest && source.is_said_again(ticks, sequence, packet.payload) {
            return;
        }
        let arrival = arrival / self.ticks;
        let paced = self.locate_by_pace(source, sequence, at, len, arrival);
        let Some(time) = paced.or_else(|| self.locate(source, sequence, at, len)) else {
            self.late += 1;
            return;
        };
        let time = self.take_sound(source, sequence, time, len, packet.payload);
        self.pressed.hear(sequence, time, len);
        if source.sequence.highest() == Some(sequence) && len > 0 {
            self.heard_until = Some((time + len, frame));
            source.pace.placed(Sound { sequence, time, len, arrival });
        }
    }

    /// The place of sound whose timestamps are wrong, because they run at another speed than the
    /// sound.
    fn locate_by_pace(
        &self,
        source: &mut Source,
        sequence: i64,
        at: i64,
        len: i64,
        arrival: i64,
    ) -> Option<i64> {
        let (anchor, last) = (source.anchor?, *source.pace.last()?);
        if source.sequence.highest() != Some(sequence) {
            return source.pace.place_overtaken(sequence, len);
        }
        let by_time = at + anchor.offset;
        if len == 0 {
            return None;
        }
        if sequence <= last.sequence || self.is_jump(by_time, len) {
            source.pace.begin_anew();
            return None;
        }
        let missing = source.sequence.missing_since(last.sequence);
        let frame_len = self.codec.rate().frame_len() as i64;
        let sound = Sound { sequence, time: by_time, len, arrival };
        let time = source.pace.place(&sound, missing, frame_len);
        if time == by_time {
            return None;
        }
        // If playout has run dry, the sender has paused.
        let time = if self.is_dry() { time.max(self.place_after_all()) } else { time };
        source.move_to(Anchor::new(sequence, time - at, time, len));
        Some(time)
    }

    /// The place of a key's packet on our time line by its timestamp `at`, if that is plausible.
    /// Only sound shows that the sender's clock has changed: timestamps and durations of keys may
    /// be wrong.
    fn locate_key(&self, source: &mut Source, sequence: i64, at: i64, len: i64) -> Option<i64> {
        if source.anchor.is_none() {
            let time = self.place_after_all();
            source.move_to(Anchor::new(sequence, time - at, time, 0));
            return Some(time);
        }
        let (_, time) = source.place_of(sequence, at, 0)?;
        (!self.is_jump(time, len)).then_some(time)
    }

    /// The place of the sender's time `at` on our time line. If the newest packet is far from its
    /// expected place, the sender's clock has changed. A packet that was overtaken has no place if
    /// it is far from the expected one.
    fn locate(&self, source: &mut Source, sequence: i64, at: i64, len: i64) -> Option<i64> {
        if source.anchor.is_some() {
            let place = source.place_of(sequence, at, len);
            let place = place.filter(|(_, time)| !self.is_jump(*time, len));
            if let Some((by, time)) = place {
                source.placed(sequence, by, time, len);
                return Some(time);
            }
            if source.sequence.highest() != Some(sequence) {
                return None;
            }
        }
        let time = self.place_after_all();
        source.move_to(Anchor::new(sequence, time - at, time, len));
        Some(time)
    }

    fn is_jump(&self, time: i64, len: i64) -> bool {
        let frame_len = self.codec.rate().frame_len() as i64;
        let edge = self.live_edge();
        let (earliest, latest) = match self.next_time() {
            // Neither sound nor a key waits, so there is nothing to compare with.
            None if self.waiting.is_empty() && self.keys.is_empty() => return false,
            None => (edge, edge + JUMP * frame_len),
            Some(next) if self.is_dry() => {
                (next, next + self.packet_len + (self.reserve + EARLY) * frame_len)
            }
            Some(next) => (next, edge + JUMP * frame_len),
        };
        time > latest || time + len < earliest - JUMP * frame_len
    }

    /// The end of everything that has come; after a pause, with the reserve added.
    fn place_after_all(&self) -> i64 {
        let frame_len = self.codec.rate().frame_len() as i64;
        let reserve = if self.is_dry() { self.reserve * frame_len } else { 0 };
        self.live_edge() + reserve
    }

    /// Whether playout has run out of sound.
    fn is_dry(&self) -> bool {
        self.cursor.is_some() && self.waiting.is_empty() && self.missing > 0
    }

    /// Puts sound in its place, and returns the place: a newest packet that is late may be played
    /// now.
    fn take_sound(
        &mut self,
        source: &mut Source,
        sequence: i64,
        mut time: i64,
        len: i64,
        payload: &[u8],
    ) -> i64 {
        if payload.is_empty() {
            return time;
        }
        let frame_len = self.codec.rate().frame_len() as i64;
        if let Some(next) = self.next_time() {
            let delay = next - time;
            let is_newest = source.sequence.highest() == Some(sequence);
            if delay > 0 && self.is_dry() && is_newest && !self.draining {
                // Only silence or concealment was played in its place, so it is played now, and
                // what follows is delayed by as much.
                source.delay(sequence, delay, next, len);
                time = next;
                let frames = (delay + frame_len - 1) / frame_len;
                self.reserve = self.reserve.saturating_add(frames).min(MAX_RESERVE);
            } else if delay >= len {
                self.late += 1;
                if self.reserve < MAX_RESERVE {
                    self.reserve += 1;
                    self.hold += 1;
                }
                return time;
            }
        }
        let begin = self.next_time().or(self.waiting.earliest()).unwrap_or(time);
        if time - begin > MAX_AHEAD * frame_len {
            self.late += 1;
            return time;
        }
        match self.waiting.insert(time, payload) {
            Inserted::Kept => self.packet_len = len,
            Inserted::Duplicate => self.duplicate += 1,
            Inserted::Full => self.late += 1,
        }
        time
    }

    /// Takes a packet of a key, with `time` as the place of its timestamp. A key is reported even
    /// if that is not plausible. A source other than that of the sound has its own clock and
    /// sequence numbers: its keys begin when their first packet comes.
    fn take_key(
        &mut self,
        packet: &Packet<'_>,
        time: Option<i64>,
        sequence: Option<i64>,
        frame: u64,
    ) {
        let Packet { header, payload } = packet;
        if self.events_ssrc.replace(header.ssrc) != Some(header.ssrc) {
            self.events.begin_anew();
        }
        let clock_rate = self.codec.clock_rate();
        let passed = time.and_then(|time| self.passed_since(time, frame));
        let Some(key) = self.events.take(header, payload, clock_rate, passed, frame) else {
            return;
        };
        let later = i64::from(header.timestamp.wrapping_sub(key.timestamp) as i32) / self.ticks;
        let began = time.map_or_else(|| self.live_edge(), |time| time - later);
        let newest = || self.source.as_ref().and_then(|source| source.sequence.highest());
        let place = sequence.or_else(newest).unwrap_or(i64::MIN);
        let is_exact = sequence.is_some() && later == 0;
        let began = self.pressed.note(&key, began, place, self.ticks, is_exact);
        if !key.is_new {
            self.presses.lasts(frame);
        } else if self.presses.is_new(key.tone, Told::Rtp, frame) {
            self.put_key(began, key.tone);
        }
        self.fall_quiet(began);
    }

    /// Ticks from `time` to the sender's present time: the end of its newest sound, plus the time
    /// since that came, plus the reserve for late packets.
    fn passed_since(&self, time: i64, frame: u64) -> Option<u32> {
        let (end, came) = self.heard_until?;
        let frame_len = self.codec.rate().frame_len() as i64;
        let since = i64::try_from(frame.saturating_sub(came)).ok()?.saturating_add(self.reserve);
        let now = end.saturating_add(since.saturating_mul(frame_len)) + self.packet_len;
        u32::try_from((now - time).max(0).saturating_mul(self.ticks)).ok()
    }

    fn put_key(&mut self, at: i64, tone: Tone) {
        if self.keys.len() < MAX_KEYS {
            let place = self.keys.partition_point(|(time, _)| *time <= at);
            self.keys.insert(place, (at, tone));
        }
    }

    fn fall_quiet(&mut self, time: i64) {
        self.quiet_from = Some(self.quiet_from.map_or(time, |from| from.min(time)));
    }

    /// Samples in a payload; for one that cannot be decoded, as many as in the last one.
    fn len_of(&self, payload: &[u8]) -> i64 {
        let samples = self.codec.samples_in(payload);
        samples.and_then(|samples| i64::try_from(samples).ok()).unwrap_or(self.packet_len)
    }

    /// Samples that an event has lasted so far.
    fn duration_of(&self, payload: &[u8]) -> i64 {
        let ticks = payload.get(2..4).map_or(0, |field| u16::from_be_bytes([field[0], field[1]]));
        i64::from(ticks) / self.ticks
    }

    // -- what is played ----------------------------------------------------------------------

    /// Begins playout when there is enough: a packet, and the reserve for late ones.
    fn begin(&mut self) {
        let (Some(earliest), Some(latest)) = (self.waiting.earliest(), self.waiting.latest())
        else {
            return;
        };
        let frame_len = self.codec.rate().frame_len() as i64;
        let depth = latest + self.packet_len - earliest;
        let wanted = self.packet_len + self.reserve * frame_len;
        // After this time, playout begins even if no further packet comes.
        self.filling += 1;
        let is_alone = self.filling * frame_len > wanted;
        if self.draining || is_alone || depth >= wanted {
            self.cursor = Some(earliest);
            self.missing = 0;
        }
    }

    /// Leaves out a quiet frame if a sender's faster clock has made the buffer too deep. Returns
    /// how many frames were left out.
    fn catch_up(&mut self, cursor: i64) -> u32 {
        let frame_len = self.codec.rate().frame_len();
        let wanted = self.packet_len / frame_len as i64 + self.reserve + 3;
        let behind = i64::from(self.behind(cursor));
        if self.draining || behind <= wanted {
            return 0;
        }
        self.fill(cursor, frame_len);
        let is_quiet = level_dbfs(&self.decoded[..frame_len]) < QUIET_DBFS;
        if is_quiet || behind > MAX_BEHIND {
            self.decoded.drain(..frame_len);
            return 1;
        }
        0
    }

    /// Decodes packets and bridges gaps until there is a frame.
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
                            // The part that overlaps with earlier sound is not played twice.
                            let overlap = usize::try_from(next - time).unwrap_or(0);
                            let came = decoded.len() - before;
                            decoded.drain(before..before + overlap.min(came));
                            self.packet_len = (came as i64).max(1);
                            self.missing = 0;
                            self.quiet_from = self.quiet_from.filter(|from| *from > time);
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

    /// Fills in `samples` that are missing: concealed at first, then silence.
    fn bridge(&mut self, samples: usize, at: i64) {
        let before = self.decoded.len();
        self.missing = self.missing.saturating_add(1);
        if !self.is_quiet_at(at) && self.missing <= CONCEALED && !self.draining {
            self.decoder.conceal(&mut self.decoded);
        }
        self.decoded.resize(before + samples, 0);
    }

    /// Whether the sender sends no sound at that time, or a key is down.
    fn is_quiet_at(&self, at: i64) -> bool {
        self.quiet_from.is_some_and(|from| from <= at) || self.pressed.is_down_at(at)
    }

    /// Number of frames that have come and are newer than `end`.
    fn behind(&self, end: i64) -> u32 {
        let frame_len = self.codec.rate().frame_len() as i64;
        let newer = self.live_edge() - end;
        u32::try_from((newer + frame_len - 1).div_euclid(frame_len)).unwrap_or(0)
    }

    /// The end of everything that has come.
    fn live_edge(&self) -> i64 {
        let key = || self.keys.back().map(|(time, _)| *time);
        let played = self.next_time();
        let edge = self.waiting.latest().map(|latest| latest + self.packet_len);
        edge.max(played).or_else(key).unwrap_or(0)
    }

    /// Time of the next sample to be decoded.
    fn next_time(&self) -> Option<i64> {
        self.cursor.map(|cursor| cursor + self.decoded.len() as i64)
    }
}

impl Source {
    fn new(ssrc: u32) -> Self {
        Self {
            ssrc,
            sequence: ExtendedSequence::default(),
            clock: MediaClock::default(),
            statistics: SourceStatistics::default(),
            doubtful: Vec::new(),
            anchor: None,
            anchor_before: None,
            pace: Pace::default(),
            newest: Newest::default(),
        }
    }

    /// Whether the newest packet repeats the one before it under a new sequence number: some
    /// senders repeat each packet in this way, against loss.
    fn is_said_again(&mut self, ticks: i64, sequence: i64, payload: &[u8]) -> bool {
        let follows = self.pace.last().is_some_and(|last| last.sequence + 1 == sequence);
        let newest = &mut self.newest;
        if follows && newest.advances && newest.ticks == Some(ticks) && newest.payload == payload {
            self.pace.passed_over(sequence);
            return true;
        }
        newest.advances |= newest.ticks.is_some_and(|before| before != ticks);
        newest.ticks = Some(ticks);
        newest.payload.clear();
        newest.payload.extend_from_slice(payload);
        false
    }

    fn move_to(&mut self, anchor: Anchor) {
        self.anchor_before = self.anchor.replace(anchor);
    }

    /// Everything from `sequence` on, which is at `start`, is `delay` later.
    fn delay(&mut self, sequence: i64, delay: i64, start: i64, len: i64) {
        if let Some(anchor) = self.anchor {
            self.move_to(Anchor::new(sequence, anchor.offset + delay, start, len));
        }
    }

    /// Our time of `at`, and the clock that gives it. A packet that was overtaken by a jump is
    /// placed before the jump, where it was sent, by the former or the present clock. `None` if
    /// neither fits, or if a packet that was sent earlier lies after it.
    fn place_of(&self, sequence: i64, at: i64, len: i64) -> Option<(By, i64)> {
        let anchor = self.anchor?;
        if sequence >= anchor.from {
            return Some((By::Now, at + anchor.offset));
        }
        let before = self.anchor_before;
        let limit = before.filter(|before| sequence < before.from).unwrap_or(anchor).start;
        let fits = |time: &i64| time + len <= limit;
        if let Some(time) = before.map(|before| at + before.offset).filter(fits) {
            return Some((By::Before, time));
        }
        let is_after = |time: &i64| {
            before.is_none_or(|before| sequence > before.newest && *time >= before.end)
        };
        let time = Some(at + anchor.offset).filter(fits).filter(is_after)?;
        Some((By::Now, time))
    }

    /// Notes the place of a packet.
    fn placed(&mut self, sequence: i64, by: By, time: i64, len: i64) {
        let anchor = match by {
            By::Now => &mut self.anchor,
            By::Before => &mut self.anchor_before,
        };
        let Some(anchor) = anchor else { return };
        anchor.placed(sequence, time + len);
        if by == By::Now && sequence < anchor.from {
            // The new clock began earlier than was assumed.
            (anchor.from, anchor.start) = (sequence, time);
        }
    }
}

/// Whether a payload type is comfort noise, unless the agreement gives it another meaning. Comfort
/// noise needs no agreement.
pub fn is_comfort_noise(payload_type: u8) -> bool {
    COMFORT_NOISE.contains(&payload_type)
}

#[cfg(test)]
mod tests;
