//! Converts packets to frames and keys.
//!
//! Input: packets in the order of arrival, with 10 to 60 ms of sound each. Output: exactly one
//! frame of 20 ms per tick, and the keys at their places in it. Everything is placed by RTP time:
//! reordered packets are put in order, missing sound is concealed, and a pause keeps its length. If
//! the sender's time jumps, later packets are placed right after the earlier ones, so that nothing
//! is lost and playout never goes back. The receiver knows no socket, and no clock except the tick.
//!
//! Three machines share the work: `Timeline` places packets, `Playout` makes frames of their
//! sound, and `Keys` reports presses once.

mod anchors;
mod horizon;
mod keys;
mod pace;
mod playout;
mod pressed;
mod stats;
mod timeline;

use aftertone_core::{
    audio::{Codec, CodecError},
    model::Tone,
    proto::{
        rtp::{
            PayloadType, Ssrc,
            packet::{Header, Packet},
            rtcp::ReportBlock,
            seq::SequencePlace,
            telephone_event::EventPayload,
        },
        sdp::{Payload, StreamPlan},
    },
};

use horizon::Horizon;
use keys::{EventPlace, Keys};
use playout::{Playout, PlayoutStep};
use timeline::Timeline;

pub use playout::PlayedFrame;
pub use stats::ReceiverStats;

/// The payload type of a packet was not agreed, or is that of another codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("payload type {0} is not received")]
pub struct NotReceived(pub PayloadType);

/// The receiving side of one stream. All times are in samples at the stream's rate, on a time line
/// of our own that only goes forward.
#[derive(Debug)]
pub struct Receiver {
    codec: Codec,
    /// The meaning of the payload types.
    numbers: Vec<(PayloadType, Payload)>,
    /// Their meaning by the agreement before: such packets may still be under way, and no number
    /// gets another meaning within a session (RFC 3264 section 8.3.2).
    former: Vec<(PayloadType, Payload)>,
    timeline: Timeline,
    playout: Playout,
    keys: Keys,
    doubtful: DoubtfulPacket,
    /// Figures of the receivers of former codecs.
    before: ReceiverStats,
}

/// A packet that may be the first of a new sequence count.
#[derive(Debug, Default)]
struct DoubtfulPacket {
    /// `None` if there is none.
    header: Option<Header>,
    payload: Vec<u8>,
}

/// The meaning of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PacketKind {
    Sound,
    Event,
    ComfortNoise,
}

impl Receiver {
    /// A receiver for this plan, with the codec that we send ourselves.
    ///
    /// # Errors
    /// The decoder cannot be created.
    pub fn new(plan: &StreamPlan) -> Result<Self, CodecError> {
        Self::of(plan.codec, plan)
    }

    fn of(codec: Codec, plan: &StreamPlan) -> Result<Self, CodecError> {
        let frame_len = codec.rate().frame_len() as i64;
        let ticks = i64::from(codec.clock_rate() / codec.rate().hz()).max(1);
        Ok(Self {
            codec,
            numbers: plan.heard.clone(),
            former: Vec::new(),
            timeline: Timeline::new(ticks, frame_len),
            playout: Playout::new(codec)?,
            keys: Keys::new(codec.clock_rate(), ticks),
            doubtful: DoubtfulPacket::default(),
            before: ReceiverStats::default(),
        })
    }

    /// Goes on with one of the agreed codecs. With a codec other than the present one, the receiver
    /// begins anew and returns the former receiver, which must be played to its end first, with its
    /// keys.
    ///
    /// # Errors
    /// The decoder cannot be created; everything stays as it was.
    pub fn renew(&mut self, codec: Codec, plan: &StreamPlan) -> Result<Option<Self>, CodecError> {
        let former = if self.numbers == plan.heard { &self.former } else { &self.numbers };
        let former = former.clone();
        if codec == self.codec {
            self.numbers.clone_from(&plan.heard);
            self.former = former;
            return Ok(None);
        }
        let figures = ReceiverStats { jitter: 0, ..self.stats() };
        let fresh = Self { former, before: figures, ..Self::of(codec, plan)? };
        let mut before = std::mem::replace(self, fresh);
        // A key that is down stays one press: the new receiver knows of it and takes all its
        // packets.
        for numbers in [&mut before.numbers, &mut before.former] {
            numbers.retain(|(_, payload)| *payload != Payload::Event);
        }
        self.keys.go_on_from(&mut before.keys);
        before.drain();
        Ok(Some(before))
    }

    /// The codec that is received.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Whether a packet was sent before the newest that has come.
    pub fn has_overtaken(&self, header: &Header) -> bool {
        self.timeline.has_overtaken(header)
    }

    /// Takes a packet that came in the tick `frame`.
    ///
    /// # Errors
    /// Its payload type was not agreed, or is that of another codec.
    pub fn push(&mut self, packet: &Packet<'_>, frame: u64) -> Result<(), NotReceived> {
        let header = &packet.header;
        let kind = self.kind_of(header.payload_type)?;
        if kind == PacketKind::Event && self.is_beside(header.ssrc) {
            self.take_event_beside(packet, frame);
            return Ok(());
        }
        let (place, is_new_sender) = self.timeline.order(header);
        if is_new_sender {
            self.keys.pressed_mut().begin_anew();
        }
        match place {
            SequencePlace::At(sequence) => self.take(sequence, kind, packet, frame),
            SequencePlace::Duplicate => {}
            SequencePlace::Doubtful => self.doubtful.keep(packet),
            SequencePlace::Restarted(sequence) => {
                let doubtful = std::mem::take(&mut self.doubtful);
                if let Some(first) = doubtful.packet()
                    && let Ok(kind) = self.kind_of(first.header.payload_type)
                {
                    self.take(sequence - 1, kind, &first, frame);
                }
                self.doubtful = doubtful;
                self.take(sequence, kind, packet, frame);
            }
        }
        Ok(())
    }

    /// Takes a key that came by SIP in the tick `frame`. Its place is after all sound that has
    /// come.
    pub fn press(&mut self, tone: Tone, frame: u64) {
        let edge = self.horizon().edge;
        self.keys.press(tone, edge, frame);
    }

    /// The next frame.
    pub fn pull(&mut self) -> PlayedFrame<'_> {
        let Self { playout, keys, .. } = self;
        let (tone, advance) = match playout.pull(keys.pressed()) {
            // Without sound, a key is played at once; with sound, it waits for its place.
            PlayoutStep::Empty => (keys.pop(), 1),
            PlayoutStep::Filling => (None, 1),
            PlayoutStep::Held => (None, 0),
            PlayoutStep::Played { start, left_out } => {
                let frame = playout.frame_mut();
                keys.pressed_mut().silence(frame, start);
                (keys.pop_before(start, frame.len() as i64), 1 + left_out)
            }
        };
        PlayedFrame { samples: playout.frame(), tone, advance, behind: playout.behind() }
    }

    /// No more packets come: what is there is played without waiting.
    pub fn drain(&mut self) {
        self.playout.drain();
    }

    /// Whether all that came has been played.
    pub fn is_drained(&self) -> bool {
        self.playout.is_drained() && self.keys.is_empty()
    }

    /// Figures so far.
    pub fn stats(&self) -> ReceiverStats {
        let Self { timeline, playout, before, .. } = self;
        let placed = timeline.stats();
        ReceiverStats {
            received: before.received + placed.received,
            lost: before.lost + placed.lost,
            late: before.late + placed.late + playout.late(),
            duplicate: before.duplicate + placed.duplicate + playout.duplicate(),
            jitter: placed.jitter,
        }
    }

    /// The block about the source for a report; `None` before the first packet.
    pub fn report(&mut self) -> Option<ReportBlock> {
        self.timeline.report()
    }

    fn kind_of(&self, payload_type: PayloadType) -> Result<PacketKind, NotReceived> {
        let mut known = self.numbers.iter().chain(&self.former);
        let known = known.find(|(number, _)| *number == payload_type);
        match known.map(|(_, payload)| *payload) {
            Some(Payload::Event) => Ok(PacketKind::Event),
            Some(Payload::Sound(codec)) if codec == self.codec => Ok(PacketKind::Sound),
            // Comfort noise needs no agreement.
            None if PayloadType::COMFORT_NOISE.contains(&payload_type) => {
                Ok(PacketKind::ComfortNoise)
            }
            Some(Payload::Sound(_)) | None => Err(NotReceived(payload_type)),
        }
    }

    /// Whether events of `ssrc` come in addition to the sound of another source, as from some
    /// gateways.
    fn is_beside(&self, ssrc: Ssrc) -> bool {
        self.playout.has_sound() && self.timeline.ssrc().is_some_and(|sound| sound != ssrc)
    }

    fn horizon(&self) -> Horizon {
        self.playout.horizon(self.keys.last())
    }

    /// Takes a packet of the sender, with its extended sequence number.
    fn take(&mut self, sequence: i64, kind: PacketKind, packet: &Packet<'_>, frame: u64) {
        let horizon = self.horizon();
        let timestamp = packet.header.timestamp;
        let Self { timeline, playout, keys, .. } = self;
        match kind {
            PacketKind::Sound => {
                let len = self.codec.samples_in(packet.payload);
                let len = len.and_then(|len| i64::try_from(len).ok());
                // A payload that cannot be decoded is taken to be as long as the last one.
                let len = len.unwrap_or(horizon.packet_len);
                let Some(mut sound) = timeline.place_sound(sequence, packet, len, frame, &horizon)
                else {
                    return;
                };
                let is_newest = timeline.is_newest(sequence);
                let time = playout.insert(&sound, packet.payload, is_newest);
                if time != sound.time {
                    timeline.delay(&mut sound, time);
                }
                keys.pressed_mut().hear(&sound);
            }
            PacketKind::ComfortNoise => {
                let time = timeline.place_noise(sequence, timestamp, frame, &horizon);
                playout.fall_quiet(time.unwrap_or(horizon.edge));
            }
            PacketKind::Event => {
                let event = EventPayload::parse(packet.payload);
                let duration = event.map_or(0, |event| event.duration);
                let time = timeline.place_key(sequence, timestamp, duration, &horizon);
                let place = EventPlace {
                    time,
                    sequence: Some(sequence),
                    newest: timeline.newest(),
                    passed: time.and_then(|time| timeline.passed_since(time, frame, &horizon)),
                    edge: horizon.edge,
                    frame,
                };
                if let Some(began) = keys.take(&packet.header, event, &place) {
                    playout.fall_quiet(began);
                }
            }
        }
    }

    /// Takes an event of a source other than that of the sound.
    fn take_event_beside(&mut self, packet: &Packet<'_>, frame: u64) {
        let place = EventPlace {
            time: None,
            sequence: None,
            newest: self.timeline.newest(),
            passed: None,
            edge: self.horizon().edge,
            frame,
        };
        let event = EventPayload::parse(packet.payload);
        if let Some(began) = self.keys.take(&packet.header, event, &place) {
            self.playout.fall_quiet(began);
        }
    }
}

impl DoubtfulPacket {
    fn keep(&mut self, packet: &Packet<'_>) {
        self.header = Some(packet.header);
        self.payload.clear();
        self.payload.extend_from_slice(packet.payload);
    }

    fn packet(&self) -> Option<Packet<'_>> {
        Some(Packet { header: self.header?, payload: &self.payload })
    }
}

#[cfg(test)]
mod tests;
