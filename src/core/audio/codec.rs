//! The codecs of a leg behind one pair of types: payloads to PCM and PCM to payloads.
//!
//! Input: RTP payloads and frames. Output: PCM at the leg's rate, and payloads. This module knows
//! no RTP header, no payload type and no order of packets; [`Decoder::conceal`] tells it of losses.

use super::{
    CodecError, Frame, Rate,
    conceal::Concealer,
    g711::Law,
    opus::{self, OpusDecoder, OpusEncoder},
};

/// A codec that a leg can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// G.711 µ-law, RFC 3551 section 4.5.14.
    Pcmu,
    /// G.711 A-law, RFC 3551 section 4.5.14.
    Pcma,
    /// Opus, RFC 7587.
    Opus,
}

impl Codec {
    /// Ticks of the RTP timestamp in a second; always 48,000 for Opus (RFC 7587 section 4.1).
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma => 8_000,
            Self::Opus => 48_000,
        }
    }

    /// The rate of the PCM on our side, and so the leg's rate.
    pub const fn rate(self) -> Rate {
        match self {
            Self::Pcmu | Self::Pcma => Rate::Hz8000,
            Self::Opus => Rate::Hz16000,
        }
    }

    /// How much sound is in a payload, in samples at [`rate`](Self::rate); `None` if it is not
    /// Opus.
    pub fn samples_in(self, payload: &[u8]) -> Option<usize> {
        match self {
            Self::Pcmu | Self::Pcma => Some(payload.len()),
            Self::Opus => opus::samples_in(payload),
        }
    }
}

/// Decodes the payloads of one stream to PCM at [`Codec::rate`].
#[derive(Debug)]
pub struct Decoder(DecoderState);

#[derive(Debug)]
enum DecoderState {
    G711(Law, Box<Concealer>),
    Opus(OpusDecoder),
}

impl Decoder {
    /// A decoder at the start of a stream.
    ///
    /// # Errors
    /// libopus gets no memory; never for G.711.
    pub fn new(kind: Codec) -> Result<Self, CodecError> {
        Ok(Self(match kind {
            Codec::Pcmu => DecoderState::G711(Law::Mu, Box::default()),
            Codec::Pcma => DecoderState::G711(Law::A, Box::default()),
            Codec::Opus => DecoderState::Opus(OpusDecoder::new()?),
        }))
    }

    /// Appends the sound of one payload of any length: one sample for each octet of G.711, at most
    /// 120 ms of Opus.
    ///
    /// # Errors
    /// The payload is not Opus; `out` is as it was. Never for G.711.
    pub fn decode(&mut self, payload: &[u8], out: &mut Vec<i16>) -> Result<(), CodecError> {
        match &mut self.0 {
            DecoderState::G711(law, concealer) => {
                let before = out.len();
                let table = law.table();
                out.extend(payload.iter().map(|code| table[usize::from(*code)]));
                concealer.remember(&out[before..]);
                Ok(())
            }
            DecoderState::Opus(decoder) => decoder.decode(payload, out),
        }
    }

    /// Appends 20 ms that replace a lost packet: the last sound, fading to silence.
    pub fn conceal(&mut self, out: &mut Vec<i16>) {
        match &mut self.0 {
            DecoderState::G711(_, concealer) => concealer.conceal(out),
            DecoderState::Opus(decoder) => {
                let before = out.len();
                if decoder.conceal(out).is_err() {
                    // The gap must be filled even so: playout relies on it.
                    out.resize(before + Codec::Opus.rate().frame_len(), 0);
                }
            }
        }
    }
}

/// Encodes the frames of one stream to payloads of 20 ms.
#[derive(Debug)]
pub struct Encoder(EncoderState);

#[derive(Debug)]
enum EncoderState {
    G711(Law),
    Opus(OpusEncoder),
}

impl Encoder {
    /// An encoder at the start of a stream.
    ///
    /// # Errors
    /// libopus gets no memory; never for G.711.
    pub fn new(kind: Codec) -> Result<Self, CodecError> {
        Ok(Self(match kind {
            Codec::Pcmu => EncoderState::G711(Law::Mu),
            Codec::Pcma => EncoderState::G711(Law::A),
            Codec::Opus => EncoderState::Opus(OpusEncoder::new()?),
        }))
    }

    /// Appends the payload of one frame.
    ///
    /// # Errors
    /// The frame has another rate than the codec, or libopus fails; `out` is as it was.
    pub fn encode(&mut self, frame: &Frame, out: &mut Vec<u8>) -> Result<(), CodecError> {
        let codec = match &self.0 {
            EncoderState::G711(_) => Rate::Hz8000,
            EncoderState::Opus(_) => Rate::Hz16000,
        };
        if frame.rate() != codec {
            return Err(CodecError::WrongRate { frame: frame.rate(), codec });
        }
        match &mut self.0 {
            EncoderState::G711(law) => {
                out.extend(frame.samples().iter().map(|sample| law.encode(*sample)));
                Ok(())
            }
            EncoderState::Opus(encoder) => encoder.encode(frame.samples(), out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Codec; 3] = [Codec::Pcmu, Codec::Pcma, Codec::Opus];

    fn tone(rate: Rate, hz: f64, frame: usize) -> Frame {
        let step = std::f64::consts::TAU * hz / f64::from(rate.hz());
        let mut sound = Frame::silence(rate);
        let begin = frame * rate.frame_len();
        for (n, sample) in sound.samples_mut().iter_mut().enumerate() {
            *sample = (8_000.0 * (step * (begin + n) as f64).sin()) as i16;
        }
        sound
    }

    fn rms(samples: &[i16]) -> f64 {
        let energy: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
        (energy / samples.len() as f64).sqrt()
    }

    #[test]
    fn a_tone_keeps_its_level_and_length_through_each_codec() {
        for kind in KINDS {
            let (mut encoder, mut decoder) =
                (Encoder::new(kind).unwrap(), Decoder::new(kind).unwrap());
            let mut heard = Vec::new();
            for n in 0..50 {
                let mut payload = Vec::new();
                encoder.encode(&tone(kind.rate(), 440.0, n), &mut payload).unwrap();
                decoder.decode(&payload, &mut heard).unwrap();
            }
            assert_eq!(heard.len(), 50 * kind.rate().frame_len(), "{kind:?}");
            let level = rms(&heard[heard.len() / 2..]);
            assert!((5_000.0..6_300.0).contains(&level), "{kind:?}: {level}");
        }
    }

    #[test]
    fn what_is_there_is_kept_when_a_payload_is_appended() {
        for kind in KINDS {
            let mut payload = vec![1, 2, 3];
            Encoder::new(kind).unwrap().encode(&Frame::silence(kind.rate()), &mut payload).unwrap();
            assert_eq!(payload[..3], [1, 2, 3]);
            let mut heard = vec![7];
            Decoder::new(kind).unwrap().decode(&payload[3..], &mut heard).unwrap();
            assert_eq!((heard[0], heard.len()), (7, 1 + kind.rate().frame_len()));
        }
    }

    #[test]
    fn concealment_is_one_frame_long_and_fades() {
        for kind in KINDS {
            let (mut encoder, mut decoder) =
                (Encoder::new(kind).unwrap(), Decoder::new(kind).unwrap());
            for n in 0..10 {
                let mut payload = Vec::new();
                encoder.encode(&tone(kind.rate(), 200.0, n), &mut payload).unwrap();
                decoder.decode(&payload, &mut Vec::new()).unwrap();
            }
            let mut made = Vec::new();
            for lost in 1..=50 {
                decoder.conceal(&mut made);
                assert_eq!(made.len(), lost * kind.rate().frame_len());
            }
            let frame = kind.rate().frame_len();
            assert!(rms(&made[..frame]) > 1_000.0, "{kind:?}");
            assert!(rms(&made[made.len() - frame..]) < 100.0, "{kind:?}");
        }
    }

    #[test]
    fn what_is_not_opus_is_refused_and_leaves_nothing_behind() {
        let mut decoder = Decoder::new(Codec::Opus).unwrap();
        let mut heard = vec![5];
        // Code 3 with a frame count of zero: RFC 6716 section 3.2.5, R5.
        for payload in [&[][..], &[0x03], &[0x03, 0x00]] {
            assert!(decoder.decode(payload, &mut heard).is_err(), "{payload:?}");
            assert_eq!(heard, [5]);
        }
    }

    #[test]
    fn a_frame_of_the_wrong_rate_is_refused() {
        for kind in KINDS {
            let other = match kind.rate() {
                Rate::Hz8000 => Rate::Hz16000,
                Rate::Hz16000 => Rate::Hz8000,
            };
            let mut payload = Vec::new();
            let refused = Encoder::new(kind).unwrap().encode(&Frame::silence(other), &mut payload);
            assert!(matches!(refused, Err(CodecError::WrongRate { .. })));
            assert!(payload.is_empty());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_payload_makes_a_decoder_panic_or_speak_too_long(
            payloads in proptest::collection::vec(
                proptest::collection::vec(proptest::num::u8::ANY, 0..300), 1..8)
        ) {
            for kind in KINDS {
                let mut decoder = Decoder::new(kind).unwrap();
                for payload in &payloads {
                    let mut heard = Vec::new();
                    let _ = decoder.decode(payload, &mut heard);
                    proptest::prop_assert!(heard.len() <= payload.len().max(1_920));
                    decoder.conceal(&mut heard);
                }
            }
        }
    }
}
