//! Converts frames to RTP packets (RFC 3550 section 5.1, RFC 3551).
//!
//! Input: one frame of 20 ms per tick, or the call that skips this frame. Output: now and then a
//! packet. The timestamp counts frames, whether sent or not, so it never drifts from the sound. The
//! sender knows no socket and no peer.

use rand::Rng;

use aftertone_core::{
    audio::{Codec, CodecError, Encoder, Frame, frame::FRAMES_PER_SECOND},
    operation::SaidKey,
    proto::rtp::{PayloadType, RtpTimestamp, SeqNo, Ssrc, packet::Header, telephone_event},
};

/// The largest number of frames in a packet: 60 ms.
const MAX_FRAMES: u32 = 3;
/// Space for a header and 60 ms of G.711.
const PACKET_CAPACITY: usize = 12 + 3 * 160;

/// The sending side of one stream.
#[derive(Debug)]
pub(super) struct Sender {
    encoder: Encoder,
    format: Format,
    ssrc: Ssrc,
    sequence: SeqNo,
    /// The timestamp of the next frame.
    timestamp: RtpTimestamp,
    /// Whether a talkspurt begins with the next packet.
    marker: bool,
    /// The timestamp at which the key that is being sent went down.
    key_at: Option<RtpTimestamp>,
    /// The packet that is being filled; its header is written when it begins.
    packet: Vec<u8>,
    filled: u32,
    sent: Sent,
}

/// The format of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// The codec.
    pub codec: Codec,
    /// The payload type of the codec.
    pub payload_type: PayloadType,
    /// The duration of a packet in milliseconds: rounded down to a multiple of 20, and limited to
    /// 20 to 60.
    pub ptime_ms: u32,
}

/// What has been sent so far, counted as in sender reports: modulo 2^32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Packets.
    pub packets: u32,
    /// Octets of payload.
    pub octets: u32,
}

impl Format {
    fn frames_per_packet(self) -> u32 {
        match self.codec {
            Codec::Pcmu | Codec::Pcma => (self.ptime_ms / 20).clamp(1, MAX_FRAMES),
            // One Opus packet is one frame; two cannot be put into one RTP packet.
            Codec::Opus => 1,
        }
    }
}

impl Sender {
    /// A stream with random SSRC, sequence number and timestamp (RFC 3550 section 5.1).
    ///
    /// # Errors
    /// The codec's encoder cannot be created.
    pub(super) fn new(format: Format, rng: &mut impl Rng) -> Result<Self, CodecError> {
        Ok(Self {
            encoder: Encoder::new(format.codec)?,
            format,
            ssrc: Ssrc(rng.random()),
            sequence: SeqNo(rng.random()),
            timestamp: RtpTimestamp(rng.random()),
            marker: true,
            key_at: None,
            packet: Vec::with_capacity(PACKET_CAPACITY),
            filled: 0,
            sent: Sent::default(),
        })
    }

    /// Sends in another format from now on. With another clock rate it becomes another stream
    /// (RFC 7160 section 4.1 says how hard it is to keep one over two clock rates).
    ///
    /// # Errors
    /// The codec's encoder cannot be created; then nothing changes.
    pub(super) fn reformat(
        &mut self,
        format: Format,
        rng: &mut impl Rng,
    ) -> Result<(), CodecError> {
        if format == self.format {
            return Ok(());
        }
        if format.codec.clock_rate() != self.format.codec.clock_rate() {
            *self = Self::new(format, rng)?;
            return Ok(());
        }
        if format.codec != self.format.codec {
            self.encoder = Encoder::new(format.codec)?;
        }
        self.drop_unfinished();
        self.format = format;
        Ok(())
    }

    /// Takes the next frame. Returns a packet when one is full.
    ///
    /// # Errors
    /// The encoder refuses the frame; it counts as not sent.
    pub(super) fn push(&mut self, frame: &Frame) -> Result<Option<&[u8]>, CodecError> {
        if self.filled == 0 {
            self.begin_packet();
        }
        if let Err(error) = self.encoder.encode(frame, &mut self.packet) {
            self.skip();
            return Err(error);
        }
        self.filled += 1;
        self.timestamp += self.ticks_per_frame();
        if self.filled < self.format.frames_per_packet() {
            return Ok(None);
        }
        self.filled = 0;
        self.marker = false;
        Ok(Some(self.finished()))
    }

    /// Sends a key instead of the next frame, as a telephone event of this payload type. All
    /// packets of a key have the time at which it went down (RFC 4733 section 2.5.1).
    pub(super) fn push_key(&mut self, key: SaidKey, payload_type: PayloadType) -> &[u8] {
        self.drop_unfinished();
        let is_first = key.frames == 1;
        if is_first {
            self.key_at = None;
        }
        let timestamp = *self.key_at.get_or_insert(self.timestamp);
        self.begin_packet_of(Header {
            marker: is_first,
            payload_type,
            sequence: self.sequence,
            timestamp,
            ssrc: self.ssrc,
        });
        // A key is down for a few frames only, so this does not overflow.
        let duration = u16::try_from(key.frames * self.ticks_per_frame()).unwrap_or(u16::MAX);
        self.packet.extend(telephone_event::payload(key.tone, key.is_up, duration));
        self.timestamp += self.ticks_per_frame();
        self.finished()
    }

    /// Lets the time of one frame pass without sending it, as on hold. The next packet begins a
    /// talkspurt.
    pub(super) fn skip(&mut self) {
        self.drop_unfinished();
        self.timestamp += self.ticks_per_frame();
    }

    /// Our SSRC.
    pub(super) fn ssrc(&self) -> Ssrc {
        self.ssrc
    }

    /// The RTP timestamp of the next frame.
    pub(super) fn timestamp(&self) -> RtpTimestamp {
        self.timestamp
    }

    /// How many frames are in a packet.
    pub(super) fn frames_per_packet(&self) -> u32 {
        self.format.frames_per_packet()
    }

    /// What has been sent so far.
    pub(super) fn sent(&self) -> Sent {
        self.sent
    }

    fn begin_packet(&mut self) {
        self.begin_packet_of(Header {
            marker: self.marker,
            payload_type: self.format.payload_type,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        });
    }

    fn begin_packet_of(&mut self, header: Header) {
        self.packet.clear();
        header.write(&mut self.packet);
    }

    /// Counts the finished packet, and returns it.
    fn finished(&mut self) -> &[u8] {
        self.sequence = self.sequence.next();
        let octets = self.packet.len().saturating_sub(Header::LEN);
        self.sent.packets = self.sent.packets.wrapping_add(1);
        self.sent.octets = self.sent.octets.wrapping_add(octets as u32);
        &self.packet
    }

    fn drop_unfinished(&mut self) {
        self.filled = 0;
        self.marker = true;
    }

    fn ticks_per_frame(&self) -> u32 {
        self.format.codec.clock_rate() / FRAMES_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;
    use aftertone_core::{audio::Rate, proto::rtp::packet::Packet};

    const PCMU: Format =
        Format { codec: Codec::Pcmu, payload_type: PayloadType::PCMU, ptime_ms: 20 };

    fn sender(format: Format) -> Sender {
        Sender::new(format, &mut StdRng::seed_from_u64(1)).unwrap()
    }

    fn frame(format: Format) -> Frame {
        Frame::silence(format.codec.rate())
    }

    #[test]
    fn only_the_first_packet_of_a_talkspurt_is_marked() {
        let mut sender = sender(PCMU);
        let mut marks = Vec::new();
        for tick in 0..6 {
            if tick == 3 {
                sender.skip();
                continue;
            }
            let packet = sender.push(&frame(PCMU)).unwrap().unwrap();
            marks.push(Packet::parse(packet).unwrap().header.marker);
        }
        assert_eq!(marks, [true, false, false, true, false]);
        assert_eq!(sender.sent(), Sent { packets: 5, octets: 800 });
    }

    #[test]
    fn a_key_is_one_press_to_a_receiver_and_the_sound_goes_on_after_it() {
        use aftertone_core::model::Tone;
        use telephone_event::{EventPayload, TelephoneEvents};
        let mut sender = sender(PCMU);
        sender.push(&frame(PCMU)).unwrap().unwrap();
        let (mut events, mut told, began) =
            (TelephoneEvents::default(), Vec::new(), sender.timestamp());
        for frames in [1, 2, 3, 4, 5, 5, 5] {
            let key = SaidKey { tone: Tone::POUND, frames, is_up: frames == 5 };
            let packet = Packet::parse(sender.push_key(key, PayloadType::TELEPHONE_EVENT)).unwrap();
            let Header { payload_type, timestamp, .. } = packet.header;
            assert_eq!((payload_type, timestamp), (PayloadType::TELEPHONE_EVENT, began));
            assert_eq!(packet.header.marker, frames == 1);
            assert_eq!(packet.payload[1] & 0x80 != 0, frames == 5);
            assert_eq!(packet.payload[2..], (160 * frames as u16).to_be_bytes());
            let event = EventPayload::parse(packet.payload).unwrap();
            let key = events.take(&packet.header, &event, 8_000, None, 0);
            told.extend(key.filter(|key| key.is_new));
        }
        assert_eq!(told.len(), 1);
        let packet = Packet::parse(sender.push(&frame(PCMU)).unwrap().unwrap()).unwrap();
        assert!(packet.header.marker);
        assert_eq!(packet.header.timestamp, began + 7 * 160);
    }

    #[test]
    fn packets_are_as_long_as_the_peer_wants() {
        for (ptime_ms, ticks) in [(0, 1), (10, 1), (20, 1), (30, 1), (40, 2), (60, 3), (200, 3)] {
            let format = Format { ptime_ms, ..PCMU };
            let mut sender = sender(format);
            for tick in 1..=6_usize {
                let packet = sender.push(&frame(format)).unwrap();
                assert_eq!(packet.is_some(), tick % ticks == 0, "{ptime_ms} ms, tick {tick}");
                if let Some(packet) = packet {
                    assert_eq!(Packet::parse(packet).unwrap().payload.len(), 160 * ticks);
                }
            }
        }
    }

    #[test]
    fn another_clock_is_another_stream_and_another_codec_is_not() {
        let mut sender = sender(PCMU);
        let mut rng = StdRng::seed_from_u64(2);
        let ssrc = sender.ssrc();
        let pcma = Format { codec: Codec::Pcma, payload_type: PayloadType::PCMA, ..PCMU };
        sender.reformat(pcma, &mut rng).unwrap();
        assert_eq!(sender.ssrc(), ssrc);
        assert_eq!(sender.push(&frame(pcma)).unwrap().unwrap()[1], 0x88, "marked, type 8");
        let number = PayloadType::new(111).unwrap();
        let opus = Format { codec: Codec::Opus, payload_type: number, ..PCMU };
        sender.reformat(opus, &mut rng).unwrap();
        assert_ne!(sender.ssrc(), ssrc);
        assert!(sender.push(&Frame::silence(Rate::Hz16000)).unwrap().is_some());
    }

    proptest! {
        #[test]
        fn sequence_numbers_have_no_gap_and_timestamps_count_every_frame(
            ticks in prop::collection::vec(any::<bool>(), 1..200),
            ptime_ms in 0_u32..100,
            seed in any::<u64>(),
        ) {
            let format = Format { ptime_ms, ..PCMU };
            let mut sender = Sender::new(format, &mut StdRng::seed_from_u64(seed)).unwrap();
            let start = sender.timestamp();
            let mut sequence: Option<SeqNo> = None;
            for (tick, sends) in (0_u32..).zip(ticks) {
                if !sends {
                    sender.skip();
                    continue;
                }
                let Some(packet) = sender.push(&frame(format)).unwrap() else { continue };
                let Packet { header, payload, .. } = Packet::parse(packet).unwrap();
                let frames = (payload.len() / 160) as u32;
                prop_assert_eq!(header.timestamp, start + (tick + 1 - frames) * 160);
                if let Some(sequence) = sequence {
                    prop_assert_eq!(header.sequence, sequence.next());
                }
                sequence = Some(header.sequence);
            }
        }
    }
}
