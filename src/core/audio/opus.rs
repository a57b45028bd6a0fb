//! Opus (RFC 6716, RTP payload by RFC 7587) with 16,000 Hz mono on our side, whatever the peer
//! sends. libopus resamples and mixes down itself, at a lower cost than we could afterwards.

use opus::{Application, Bitrate, Channels};

use super::{CodecError, Rate};

const RATE: Rate = Rate::Hz16000;
/// The longest packet, RFC 6716 section 2.1.4: 120 ms.
const LONGEST_PACKET: usize = 6 * RATE.frame_len();
/// The largest frame, RFC 6716 section 3.2.1.
const LARGEST_FRAME_BYTES: usize = 1_275;
/// The bit rate for good wide-band speech.
const BITS_PER_SECOND: i32 = 24_000;
/// Half the CPU cost of the best setting, and hard to distinguish from it.
const COMPLEXITY: i32 = 5;

/// Samples at 16,000 Hz in a packet, read from its first bytes (RFC 6716 section 3.1); `None` if it
/// is not Opus.
pub fn samples_in(payload: &[u8]) -> Option<usize> {
    let samples = opus::packet::get_nb_samples(payload, RATE.hz()).ok()?;
    (1..=LONGEST_PACKET).contains(&samples).then_some(samples)
}

/// Decodes Opus packets to PCM at 16,000 Hz.
#[derive(Debug)]
pub struct OpusDecoder(opus::Decoder);

impl OpusDecoder {
    /// A decoder at the start of a stream.
    ///
    /// # Errors
    /// libopus gets no memory.
    pub fn new() -> Result<Self, CodecError> {
        Ok(Self(opus::Decoder::new(RATE.hz(), Channels::Mono)?))
    }

    /// Appends the sound of one packet, 2.5 to 120 ms of it.
    ///
    /// # Errors
    /// The payload is not Opus; `out` is as it was.
    pub fn decode(&mut self, payload: &[u8], out: &mut Vec<i16>) -> Result<(), CodecError> {
        if payload.is_empty() {
            // libopus would treat an empty payload as a lost packet.
            return Err(CodecError::Empty);
        }
        self.append(payload, LONGEST_PACKET, out)
    }

    /// Appends 20 ms in the place of a lost packet.
    ///
    /// # Errors
    /// libopus fails; `out` is as it was.
    pub fn conceal(&mut self, out: &mut Vec<i16>) -> Result<(), CodecError> {
        self.append(&[], RATE.frame_len(), out)
    }

    fn append(
        &mut self,
        payload: &[u8],
        most: usize,
        out: &mut Vec<i16>,
    ) -> Result<(), CodecError> {
        let before = out.len();
        out.resize(before + most, 0);
        let decoded = self.0.decode(payload, &mut out[before..], false);
        out.truncate(before + decoded.as_ref().map_or(0, |samples| *samples));
        decoded?;
        Ok(())
    }
}

/// Encodes PCM at 16,000 Hz to Opus packets of 20 ms.
#[derive(Debug)]
pub struct OpusEncoder(opus::Encoder);

impl OpusEncoder {
    /// An encoder for speech.
    ///
    /// # Errors
    /// libopus gets no memory.
    pub fn new() -> Result<Self, CodecError> {
        let mut encoder = opus::Encoder::new(RATE.hz(), Channels::Mono, Application::Voip)?;
        encoder.set_bitrate(Bitrate::Bits(BITS_PER_SECOND))?;
        encoder.set_complexity(COMPLEXITY)?;
        Ok(Self(encoder))
    }

    /// Appends the packet with 20 ms of sound, 320 samples.
    ///
    /// # Errors
    /// There are not 320 samples, or libopus fails; `out` is as it was.
    pub fn encode(&mut self, samples: &[i16], out: &mut Vec<u8>) -> Result<(), CodecError> {
        let before = out.len();
        out.resize(before + LARGEST_FRAME_BYTES, 0);
        let encoded = self.0.encode(samples, &mut out[before..]);
        out.truncate(before + encoded.as_ref().map_or(0, |bytes| *bytes));
        encoded?;
        Ok(())
    }
}
