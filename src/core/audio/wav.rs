//! RIFF/WAVE: the header of our recordings, and a defensive reader for prompts.
//!
//! Input: the bytes of a file from outside, completely in memory. Output: mono 16-bit samples at
//! the file's own rate, or one sentence for the author of the application that sent it. The memory
//! in use is bounded by the number of bytes. The reader does not resample, and knows no other
//! container.

use std::ops::Range;

use super::{g711::Law, resample::RATES_HZ};

/// The length of [`header`].
pub const HEADER_BYTES: usize = 44;

const OUR_RATE_HZ: u32 = 16_000;
const OUR_BYTES_PER_SECOND: u32 = 2 * OUR_RATE_HZ;

/// The header of a recording: PCM, 16-bit, mono, 16,000 Hz, `data_bytes` of samples.
pub fn header(data_bytes: u32) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    let after_riff = data_bytes.saturating_add(HEADER_BYTES as u32 - 8);
    let fields: [&[u8]; 13] = [
        b"RIFF",
        &after_riff.to_le_bytes(),
        b"WAVE",
        b"fmt ",
        &16u32.to_le_bytes(),
        &FORMAT_PCM.to_le_bytes(),
        &1u16.to_le_bytes(),
        &OUR_RATE_HZ.to_le_bytes(),
        &OUR_BYTES_PER_SECOND.to_le_bytes(),
        &2u16.to_le_bytes(),
        &16u16.to_le_bytes(),
        b"data",
        &data_bytes.to_le_bytes(),
    ];
    for (slot, byte) in header.iter_mut().zip(fields.iter().copied().flatten()) {
        *slot = *byte;
    }
    header
}

/// How much sound a file may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest sound in seconds.
    pub max_seconds: u32,
}

/// The sound of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded {
    /// Samples per second, within [`RATES_HZ`].
    pub rate_hz: u32,
    /// The channels mixed into one; at least one sample.
    pub samples: Vec<i16>,
}

/// Why a file cannot be played, in words for the author of the application that sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WavError {
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// An HTML page instead of the file: usually an error page or a log-in page.
    #[error("this is an HTML page, not audio: does the address need a log-in?")]
    Html,
    /// Audio, but in a container or coding that we do not read.
    #[error("{0} is not supported yet, send WAV")]
    OtherFormat(&'static str),
    /// Neither WAV nor anything else that we know by its first bytes.
    #[error("this is not a WAV file: it does not begin with RIFF and WAVE")]
    NotWav,
    /// There is no complete fmt chunk.
    #[error("the WAV file has no whole fmt chunk")]
    NoFormat,
    /// There is no data chunk.
    #[error("the WAV file has no data chunk")]
    NoData,
    /// The data chunk does not hold a single sample.
    #[error("the WAV file has no sound in it")]
    NoSound,
    /// A coding within WAV that we do not read.
    #[error(
        "WAV with format tag {tag:#06x} at {bits} bits is not supported, send PCM of 8 to 32 bits, \
         32-bit float, A-law or mu-law"
    )]
    UnsupportedCoding {
        /// `wFormatTag`, or the sub-format of WAVE_FORMAT_EXTENSIBLE.
        tag: u16,
        /// Bits per sample.
        bits: u16,
    },
    /// Too many channels, or none.
    #[error("the WAV file has {0} channels, 1 to 8 are supported")]
    Channels(u16),
    /// The rate is out of range.
    #[error(
        "the WAV file has {0} samples a second, {min} to {max} are supported",
        min = RATES_HZ.start(), max = RATES_HZ.end()
    )]
    Rate(u32),
    /// There is more sound than a prompt may have.
    #[error("the WAV file is {seconds} s long, at most {max_seconds} s are allowed")]
    TooLong {
        /// Seconds of sound in the file, rounded up.
        seconds: u64,
        /// See [`Limits`].
        max_seconds: u32,
    },
}

/// Reads a WAV file: PCM of 8 to 32 bits, 32-bit and 64-bit float, A-law and µ-law, also with
/// WAVE_FORMAT_EXTENSIBLE; 1 to 8 channels, 4,000 to 192,000 Hz, chunks in any order. Samples may
/// be in containers that are wider than they are. A length that was never filled in, or that is
/// larger than the file, means the rest of the file.
///
/// # Errors
/// The file cannot be played, or holds more than `limits` allow.
pub fn read(bytes: &[u8], limits: Limits) -> Result<Decoded, WavError> {
    let chunks = Chunks::of(bytes)?;
    let format = WavFormat::read(chunks.format.ok_or(WavError::NoFormat)?)?;
    let data = chunks.data.ok_or(WavError::NoData)?;
    let sample_bytes = format.coding.bytes();
    let frames = data.chunks_exact(sample_bytes * usize::from(format.channels));
    if frames.len() == 0 {
        return Err(WavError::NoSound);
    }
    let seconds = (frames.len() as u64).div_ceil(u64::from(format.rate_hz));
    if seconds > u64::from(limits.max_seconds) {
        return Err(WavError::TooLong { seconds, max_seconds: limits.max_seconds });
    }
    let coding = match format.coding {
        Coding::Signed(container) => Coding::Signed(container.aligned(data)),
        other => other,
    };
    let mix = |frame: &[u8]| {
        let channels = frame.chunks_exact(sample_bytes);
        let sum: i32 = channels.map(|sample| i32::from(coding.decode(sample))).sum();
        (sum / i32::from(format.channels)) as i16
    };
    Ok(Decoded { rate_hz: format.rate_hz, samples: frames.map(mix).collect() })
}

/// The two chunks that the reader uses.
struct Chunks<'a> {
    format: Option<&'a [u8]>,
    data: Option<&'a [u8]>,
}

impl<'a> Chunks<'a> {
    fn of(bytes: &'a [u8]) -> Result<Self, WavError> {
        if bytes.len() < RIFF_BYTES || &bytes[..4] != b"RIFF" || &bytes[8..12] != b"WAVE" {
            return Err(name_what_it_is(bytes));
        }
        let riff_length = u32_at(bytes, 4).unwrap_or(0);
        // The file was written as a stream, without filling in the lengths afterwards.
        let is_stream = riff_length as usize != bytes.len() - 8;
        let mut found = Self { format: None, data: None };
        let mut rest = RIFF_BYTES..bytes.len();
        while let Some((id, length)) = chunk_header(bytes, &rest) {
            let begin = rest.start + CHUNK_HEADER_BYTES;
            let there = bytes.len() - begin;
            let is_data = id == b"data";
            let length = match length as usize {
                0 if is_data && is_stream => there,
                length => length.min(there),
            };
            let body = &bytes[begin..begin + length];
            match id {
                b"fmt " if found.format.is_none() => found.format = Some(body),
                b"data" if found.data.is_none() => found.data = Some(body),
                _ => {}
            }
            if found.format.is_some() && found.data.is_some() {
                break;
            }
            // A chunk of odd length is followed by a padding byte.
            rest.start = begin + length + length % 2;
        }
        Ok(found)
    }
}

fn chunk_header<'a>(bytes: &'a [u8], rest: &Range<usize>) -> Option<(&'a [u8; 4], u32)> {
    let header = bytes.get(rest.clone())?;
    Some((header.first_chunk()?, u32_at(header, 4)?))
}

/// The contents of the fmt chunk.
struct WavFormat {
    coding: Coding,
    channels: u16,
    rate_hz: u32,
}

impl WavFormat {
    fn read(chunk: &[u8]) -> Result<Self, WavError> {
        let field = |at| u16_at(chunk, at).ok_or(WavError::NoFormat);
        let (mut tag, channels, bits) = (field(0)?, field(2)?, field(14)?);
        let rate_hz = u32_at(chunk, 4).ok_or(WavError::NoFormat)?;
        if tag == FORMAT_EXTENSIBLE {
            // The first two octets of the sub-format's GUID are the old format tag.
            tag = field(24)?;
        }
        let coding = match (tag, bits) {
            (FORMAT_PCM, 1..=8) => Coding::Unsigned8,
            (FORMAT_PCM, 9..=32) => {
                Coding::Signed(Container::new(bits, field(12)?.checked_div(channels)))
            }
            (FORMAT_FLOAT, 32) => Coding::Float32,
            (FORMAT_FLOAT, 64) => Coding::Float64,
            (FORMAT_A_LAW, 8) => Coding::G711(Law::A),
            (FORMAT_MU_LAW, 8) => Coding::G711(Law::Mu),
            _ => return Err(WavError::UnsupportedCoding { tag, bits }),
        };
        if !(1..=8).contains(&channels) {
            return Err(WavError::Channels(channels));
        }
        if !RATES_HZ.contains(&rate_hz) {
            return Err(WavError::Rate(rate_hz));
        }
        Ok(Self { coding, channels, rate_hz })
    }
}

/// The encoding of one sample.
#[derive(Debug, Clone, Copy)]
enum Coding {
    Unsigned8,
    Signed(Container),
    Float32,
    Float64,
    G711(Law),
}

impl Coding {
    fn bytes(self) -> usize {
        match self {
            Self::Unsigned8 | Self::G711(_) => 1,
            Self::Signed(container) => container.bytes,
            Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }

    /// Decodes one sample; the length of `bytes` is [`Self::bytes`].
    fn decode(self, bytes: &[u8]) -> i16 {
        match (self, bytes) {
            (Self::Unsigned8, [byte]) => (i16::from(*byte) - 0x80) << 8,
            (Self::G711(law), [code]) => law.decode(*code),
            (Self::Signed(container), bytes) => container.decode(bytes),
            // `as` clips values that are too large, and makes 0 of what is not a number.
            (Self::Float32, [a, b, c, d]) => {
                (f32::from_le_bytes([*a, *b, *c, *d]) * 32_768.0).round() as i16
            }
            (Self::Float64, bytes) => bytes
                .first_chunk()
                .map_or(0, |sample| (f64::from_le_bytes(*sample) * 32_768.0).round() as i16),
            _ => 0,
        }
    }
}

/// The bytes that contain a signed PCM sample, little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Container {
    /// Size in bytes, 2 to 4.
    bytes: usize,
    /// Bits of the sample; no more than fit into the container.
    bits: u32,
    /// Whether the sample is at the low end of the container rather than at its high end.
    is_low: bool,
}

impl Container {
    /// The container of samples of `bits`, 9 to 32. `bytes` is its size by the block alignment. If
    /// that size is not possible, the samples are packed without spare bytes.
    fn new(bits: u16, bytes: Option<u16>) -> Self {
        let packed = bits.div_ceil(8);
        let bytes = bytes.filter(|bytes| (packed..=4).contains(bytes)).unwrap_or(packed);
        Self { bytes: usize::from(bytes), bits: u32::from(bits), is_low: false }
    }

    /// The same container, with the position of the samples found from `data`.
    ///
    /// By Microsoft's rule the sample is at the high end, with zeros below. If a whole byte is
    /// spare, writers differ: ALSA's S24_LE, as `arecord` writes it, has the sample in the low
    /// three of four bytes. The header is the same; only the samples show the difference.
    fn aligned(self, data: &[u8]) -> Self {
        let spare = 8 * self.bytes as u32 - self.bits;
        if spare < 8 {
            return self;
        }
        let low_bits = (1_i64 << spare) - 1;
        // The bits above a sample at the low end are its sign, or zeros.
        let low_values = -(1_i64 << (self.bits - 1))..1_i64 << self.bits;
        let (mut may_be_high, mut may_be_low) = (true, true);
        for sample in data.chunks_exact(self.bytes) {
            let value = i64::from(self.value(sample));
            may_be_high &= value & low_bits == 0;
            may_be_low &= low_values.contains(&value);
        }
        Self { is_low: may_be_low || !may_be_high, ..self }
    }

    /// The whole container as a number.
    fn value(self, bytes: &[u8]) -> i32 {
        let mut wide = [0; 4];
        for (slot, byte) in wide.iter_mut().skip(4 - self.bytes).zip(bytes) {
            *slot = *byte;
        }
        i32::from_le_bytes(wide) >> (32 - 8 * self.bytes as u32)
    }

    fn decode(self, bytes: &[u8]) -> i16 {
        let bits = if self.is_low { self.bits } else { 8 * self.bytes as u32 };
        ((self.value(bytes) << (32 - bits)) >> 16) as i16
    }
}

/// Names the format of a file that is not WAV.
fn name_what_it_is(bytes: &[u8]) -> WavError {
    let text = bytes.trim_ascii_start();
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text).trim_ascii_start();
    let begins_with =
        |word: &[u8]| text.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word));
    if bytes.is_empty() {
        return WavError::Empty;
    }
    if [&b"<!doctype html"[..], b"<html", b"<head", b"<body"].into_iter().any(begins_with) {
        return WavError::Html;
    }
    let form = bytes.get(8..12).unwrap_or_default();
    let name = match bytes {
        [b'I', b'D', b'3', ..] => "MP3",
        // MPEG frame sync, then the layer: 0 is AAC in ADTS, 1 is layer III. The other layers are
        // not tested, because 0xFF 0xFE also begins a text in UTF-16.
        [0xFF, second, ..] if second & 0xF6 == 0xF0 => "AAC",
        [0xFF, second, ..] if second & 0xE6 == 0xE2 => "MP3",
        [b'f', b'L', b'a', b'C', ..] => "FLAC",
        [b'O', b'g', b'g', b'S', ..] => "Ogg",
        [b'F', b'O', b'R', b'M', ..] => "AIFF",
        [b'R', b'F', b'6', b'4', ..] | [b'B', b'W', b'6', b'4', ..] => "64-bit WAV (RF64)",
        [b'R', b'I', b'F', b'X', ..] => "big-endian WAV (RIFX)",
        [b'.', b's', b'n', b'd', ..] => "AU",
        [b'#', b'!', b'A', b'M', b'R', ..] => "AMR",
        [0x1A, 0x45, 0xDF, 0xA3, ..] => "WebM",
        [b'P', b'K', 3, 4, ..] => "ZIP",
        [b'B', b'Z', b'h', ..] => "bzip2",
        [0xFD, b'7', b'z', b'X', b'Z', ..] => "xz",
        [0x28, 0xB5, 0x2F, 0xFD, ..] => "Zstandard",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "MP4",
        [b'R', b'I', b'F', b'F', ..] if form == b"AVI " => "AVI",
        _ => return WavError::NotWav,
    };
    WavError::OtherFormat(name)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

/// "RIFF", a length, "WAVE".
const RIFF_BYTES: usize = 12;
/// A name of four letters, and a length.
const CHUNK_HEADER_BYTES: usize = 8;
// Format tags of Microsoft's mmreg.h; A-law and µ-law also in RFC 2361.
const FORMAT_PCM: u16 = 0x0001;
const FORMAT_FLOAT: u16 = 0x0003;
const FORMAT_A_LAW: u16 = 0x0006;
const FORMAT_MU_LAW: u16 = 0x0007;
const FORMAT_EXTENSIBLE: u16 = 0xFFFE;

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { max_seconds: 60 };

    fn chunk(id: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let mut chunk = id.to_vec();
        chunk.extend((body.len() as u32).to_le_bytes());
        chunk.extend(body);
        chunk.extend(vec![0; body.len() % 2]);
        chunk
    }

    fn format(tag: u16, channels: u16, rate: u32, bits: u16) -> Vec<u8> {
        let align = channels.wrapping_mul(bits / 8);
        let mut body = [tag.to_le_bytes(), channels.to_le_bytes()].concat();
        body.extend(rate.to_le_bytes());
        body.extend(rate.wrapping_mul(u32::from(align)).to_le_bytes());
        body.extend([align.to_le_bytes(), bits.to_le_bytes()].concat());
        chunk(b"fmt ", &body)
    }

    fn wav(chunks: &[Vec<u8>]) -> Vec<u8> {
        let body = [b"WAVE".to_vec(), chunks.concat()].concat();
        [b"RIFF".to_vec(), (body.len() as u32).to_le_bytes().to_vec(), body].concat()
    }

    fn samples(bytes: &[u8]) -> Vec<i16> {
        read(bytes, LIMITS).unwrap().samples
    }

    #[test]
    fn our_header_is_read_by_others_and_by_us() {
        let mut file = header(6).to_vec();
        file.extend([1i16, -2, 300].map(i16::to_le_bytes).concat());
        let mut reader = hound::WavReader::new(Cursor::new(&file)).unwrap();
        let spec = reader.spec();
        assert_eq!((spec.channels, spec.sample_rate, spec.bits_per_sample), (1, 16_000, 16));
        assert_eq!(reader.samples::<i16>().map(Result::unwrap).collect::<Vec<_>>(), [1, -2, 300]);
        assert_eq!(read(&file, LIMITS), Ok(Decoded { rate_hz: 16_000, samples: vec![1, -2, 300] }));
        assert_eq!(header(u32::MAX)[4..8], [0xFF; 4]);
    }

    #[test]
    fn what_others_write_is_read() {
        for bits in [8, 16, 24, 32] {
            for channels in [1, 2] {
                let spec = hound::WavSpec {
                    channels,
                    sample_rate: 44_100,
                    bits_per_sample: bits,
                    sample_format: hound::SampleFormat::Int,
                };
                let mut file = Cursor::new(Vec::new());
                let mut writer = hound::WavWriter::new(&mut file, spec).unwrap();
                for value in [0i32, 64, -64] {
                    for _ in 0..channels {
                        writer.write_sample(value << (bits - 8)).unwrap();
                    }
                }
                writer.finalize().unwrap();
                let decoded = read(file.get_ref(), LIMITS).unwrap();
                assert_eq!(decoded.rate_hz, 44_100);
                assert_eq!(decoded.samples, [0, 0x4000, -0x4000], "{bits} bits, {channels}");
            }
        }
    }

    /// Writes a sample into a container of up to four bytes.
    type Writer = fn(i32) -> [u8; 4];

    /// A file of `bits` in containers of `bytes`.
    fn in_containers(bits: u16, bytes: u16, samples: &[i32], write: Writer) -> Vec<u8> {
        let mut body = format(1, 1, 16_000, bits)[8..].to_vec();
        body[8..12].copy_from_slice(&(16_000 * u32::from(bytes)).to_le_bytes());
        body[12..14].copy_from_slice(&bytes.to_le_bytes());
        let data = samples.iter().flat_map(|sample| {
            let written = write(*sample);
            written[..usize::from(bytes)].to_vec()
        });
        wav(&[chunk(b"fmt ", &body), chunk(b"data", &data.collect::<Vec<_>>())])
    }

    #[test]
    fn twenty_four_bits_in_four_bytes_are_as_loud_as_they_were() {
        let sound = [0, 0x12_3456, -0x12_3456, 0x7F_FFFF, -0x80_0000, 1, -1];
        let heard: Vec<i16> = sound.iter().map(|sample| (sample >> 8) as i16).collect();
        let writers: [(&str, Writer); 4] = [
            ("ALSA: the sign is carried on", i32::to_le_bytes),
            ("ALSA: zeros above", |sample| (sample & 0xFF_FFFF).to_le_bytes()),
            ("what a driver leaves above", |sample| {
                (sample & 0xFF_FFFF | 0x5A00_0000).to_le_bytes()
            }),
            ("Microsoft: zeros below", |sample| (sample << 8).to_le_bytes()),
        ];
        for (writer, write) in writers {
            assert_eq!(samples(&in_containers(24, 4, &sound, write)), heard, "{writer}");
        }
        // 16-bit samples that were stored in 24 bits have zeros at the low end, but are not at the
        // high end of the container.
        let whole = [0x12_3400, -0x12_3400, 0x7F_FF00];
        let heard = [0x1234, -0x1234, 0x7FFF];
        assert_eq!(samples(&in_containers(24, 4, &whole, i32::to_le_bytes)), heard);
        assert_eq!(samples(&in_containers(24, 3, &whole, i32::to_le_bytes)), heard);
    }

    #[test]
    fn samples_of_any_width_are_read_out_of_their_containers() {
        // The samples are at the high end, where some bits are spare.
        for (bits, bytes) in [(12, 2), (20, 3), (9, 2), (16, 2), (18, 3), (24, 3), (30, 4), (32, 4)]
        {
            let shift = 8 * u32::from(bytes) - 16;
            let write: Writer = match shift {
                0 => |sample| sample.to_le_bytes(),
                8 => |sample| (sample << 8).to_le_bytes(),
                _ => |sample| (sample << 16).to_le_bytes(),
            };
            let sound = [0, 0x1200, -0x1200, 0x7F00, -0x8000];
            let heard: [i16; 5] = sound.map(|sample| sample as i16);
            assert_eq!(
                samples(&in_containers(bits, bytes, &sound, write)),
                heard,
                "{bits}/{bytes}"
            );
        }
        // The samples are at the low end, where a byte is spare.
        for (bits, bytes) in [(20, 4), (16, 4), (16, 3), (12, 3), (12, 4)] {
            let sound = [0, 0x123, -0x123, 0x7FF, -0x800];
            let heard: Vec<i16> =
                sound.iter().map(|sample| ((sample << (32 - bits)) >> 16) as i16).collect();
            let file = in_containers(bits, bytes, &sound, i32::to_le_bytes);
            assert_eq!(samples(&file), heard, "{bits}/{bytes}");
        }
        // A block alignment that is not possible is ignored.
        for bytes in [0, 1, 5, 100] {
            let mut file = in_containers(16, 2, &[5, -6], i32::to_le_bytes);
            file[32..34].copy_from_slice(&u16::to_le_bytes(bytes));
            assert_eq!(samples(&file), [5, -6], "{bytes}");
        }
        let file = wav(&[format(1, 1, 16_000, 8), chunk(b"data", &[0x80, 0xFF, 0])]);
        assert_eq!(samples(&file), [0, 0x7F00, -0x8000]);
    }

    #[test]
    fn each_channel_has_its_container() {
        let mut file = in_containers(24, 4, &[0x10_0000, 0x30_0000, -1, -1], i32::to_le_bytes);
        file[22..24].copy_from_slice(&2_u16.to_le_bytes());
        file[32..34].copy_from_slice(&8_u16.to_le_bytes());
        assert_eq!(samples(&file), [0x2000, -1]);
    }

    #[test]
    fn floats_of_64_bits_are_read() {
        let floats = [0.5, -1.0, 7.0, f64::NAN, f64::NEG_INFINITY].map(f64::to_le_bytes).concat();
        let file = wav(&[format(3, 1, 48_000, 64), chunk(b"data", &floats)]);
        assert_eq!(samples(&file), [16_384, -32_768, 32_767, 0, -32_768]);
    }

    #[test]
    fn floats_are_clipped_and_what_is_no_number_is_silent() {
        let floats = [0.5, -1.0, 7.0, f32::NAN, f32::NEG_INFINITY].map(f32::to_le_bytes).concat();
        let file = wav(&[format(3, 1, 48_000, 32), chunk(b"data", &floats)]);
        assert_eq!(samples(&file), [16_384, -32_768, 32_767, 0, -32_768]);
    }

    #[test]
    fn both_laws_are_read() {
        for (tag, law) in [(6, Law::A), (7, Law::Mu)] {
            let file = wav(&[format(tag, 1, 8_000, 8), chunk(b"data", &[0x00, 0x80, 0xD5])]);
            assert_eq!(samples(&file), [0x00, 0x80, 0xD5].map(|code| law.decode(code)));
        }
    }

    #[test]
    fn the_channels_are_mixed() {
        let loud = [i16::MAX, i16::MAX, -100, 300].map(i16::to_le_bytes).concat();
        let file = wav(&[format(1, 2, 8_000, 16), chunk(b"data", &loud)]);
        assert_eq!(samples(&file), [i16::MAX, 100]);
    }

    #[test]
    fn the_extensible_format_is_what_its_sub_format_says() {
        let mut body = format(0xFFFE, 1, 16_000, 16)[8..].to_vec();
        body.extend([22, 0, 16, 0, 4, 0, 0, 0]);
        body.extend([1, 0, 0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71]);
        let file = wav(&[chunk(b"fmt ", &body), chunk(b"data", &[5, 0, 6, 0])]);
        assert_eq!(samples(&file), [5, 6]);
        // 24 valid bits of 32 are the upper ones.
        for (at, value) in [(8, 64_000_u32), (12, 0x0020_0004)] {
            body[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        body[18] = 24;
        let quiet = chunk(b"data", &[0, 1, 5, 0, 0, 1, 6, 0]);
        assert_eq!(samples(&wav(&[chunk(b"fmt ", &body), quiet])), [5, 6]);
    }

    #[test]
    fn chunks_come_in_any_order_and_odd_ones_are_padded() {
        let file = wav(&[
            chunk(b"LIST", b"odd"),
            chunk(b"data", &[5, 0, 6, 0, 7]),
            chunk(b"junk", &[]),
            format(1, 1, 16_000, 16),
        ]);
        assert_eq!(samples(&file), [5, 6]);
    }

    #[test]
    fn a_length_that_was_never_filled_in_means_all_that_is_there() {
        for length in [0u32, 1_000, u32::MAX] {
            let mut file = wav(&[format(1, 1, 16_000, 16), chunk(b"data", &[5, 0, 6, 0])]);
            file[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
            let at = file.len() - 8;
            file[at..at + 4].copy_from_slice(&length.to_le_bytes());
            assert_eq!(samples(&file), [5, 6], "{length}");
        }
    }

    #[test]
    fn what_cannot_be_played_says_why() {
        let data = || chunk(b"data", &[0; 64]);
        let fmt = || format(1, 1, 16_000, 16);
        let cases: [(Vec<u8>, &str); 15] = [
            (vec![], "the file is empty"),
            (b" \n<!DOCTYPE HTML><title>Log in".to_vec(), "this is an HTML page, not audio"),
            (b"\xEF\xBB\xBF<html>".to_vec(), "this is an HTML page, not audio"),
            (b"ID3\x04".to_vec(), "MP3 is not supported yet, send WAV"),
            (vec![0xFF, 0xFB, 0x90], "MP3 is not supported yet"),
            (b"fLaC".to_vec(), "FLAC is not supported yet"),
            (b"OggS".to_vec(), "Ogg is not supported yet"),
            (b"hello, world".to_vec(), "this is not a WAV file"),
            (wav(&[data()]), "no whole fmt chunk"),
            (wav(&[fmt()]), "no data chunk"),
            (wav(&[fmt(), chunk(b"data", &[1])]), "no sound in it"),
            (wav(&[format(0x11, 1, 8_000, 4), data()]), "format tag 0x0011"),
            (wav(&[format(1, 9, 8_000, 16), data()]), "9 channels"),
            (wav(&[format(1, 1, 3_999, 16), data()]), "3999 samples a second, 4000 to 192000"),
            (wav(&[format(1, 1, 4_000, 8), chunk(b"data", &vec![0; 240_001])]), "61 s long"),
        ];
        for (file, sentence) in cases {
            let error = read(&file, LIMITS).unwrap_err().to_string();
            assert!(error.contains(sentence), "{error:?} should say {sentence:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(
            start in proptest::collection::vec(any::<u8>(), 0..80),
            cut in 0usize..200,
            flips in proptest::collection::vec((0usize..56, any::<u8>()), 0..6),
        ) {
            let _ = read(&start, LIMITS);
            let mut file =
                wav(&[format(1, 2, 16_000, 20), chunk(b"LIST", b"abc"), chunk(b"data", &start)]);
            for (at, byte) in flips {
                file[at] = byte;
            }
            file.truncate(cut);
            if let Ok(decoded) = read(&file, LIMITS) {
                prop_assert!(decoded.samples.len() <= file.len());
            }
        }
    }
}
