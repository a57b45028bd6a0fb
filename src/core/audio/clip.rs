//! Decoded audio in memory, ready to be played at either rate of a leg.

use std::sync::Arc;

use super::{
    Rate, resample,
    wav::{self, Limits, WavError},
};

/// Audio that can be played: the same sound at 8 and at 16 kHz. Cloning shares the samples.
#[derive(Clone)]
pub struct Clip {
    narrow: Arc<[i16]>,
    wide: Arc<[i16]>,
}

impl Clip {
    /// A clip of the same sound at both rates.
    pub fn new(narrow: Arc<[i16]>, wide: Arc<[i16]>) -> Self {
        Self { narrow, wide }
    }

    /// Decodes a WAV file unchanged: silence at its start and end is part of the sound.
    ///
    /// # Errors
    /// The file cannot be played, or holds more than `limits` allow.
    pub fn from_wav(bytes: &[u8], limits: Limits) -> Result<Self, WavError> {
        let decoded = wav::read(bytes, limits)?;
        let at = |rate: Rate| resample(&decoded.samples, decoded.rate_hz, rate.hz()).into();
        Ok(Self::new(at(Rate::Hz8000), at(Rate::Hz16000)))
    }

    /// The samples at `rate`.
    pub fn samples(&self, rate: Rate) -> &[i16] {
        match rate {
            Rate::Hz8000 => &self.narrow,
            Rate::Hz16000 => &self.wide,
        }
    }

    /// Memory that the samples take, in bytes.
    pub fn bytes(&self) -> usize {
        2 * (self.narrow.len() + self.wide.len())
    }
}

impl std::fmt::Debug for Clip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clip").field("samples_16k", &self.wide.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wav_file_becomes_the_same_sound_at_both_rates() {
        let sound: Vec<i16> = (0..16_000).map(|n| (n % 40) * 100).collect();
        let mut file = wav::header(32_000).to_vec();
        file.extend(sound.iter().flat_map(|sample| sample.to_le_bytes()));
        let clip = Clip::from_wav(&file, Limits { max_seconds: 1 }).unwrap();
        assert_eq!(clip.samples(Rate::Hz16000), sound);
        assert_eq!(clip.samples(Rate::Hz8000).len(), 8_000);
        assert_eq!(clip.bytes(), 48_000);
    }

    #[test]
    fn the_bundled_prompts_are_short_clips() {
        let files: [&[u8]; 3] = [
            include_bytes!("../../drivers/prompts/assets/greeting.wav"),
            include_bytes!("../../drivers/prompts/assets/goodbye.wav"),
            include_bytes!("../../drivers/prompts/assets/spoken.wav"),
        ];
        for file in files {
            let clip = Clip::from_wav(file, Limits { max_seconds: 6 }).unwrap();
            let seconds = clip.samples(Rate::Hz8000).len() / 8_000;
            assert!((1..6).contains(&seconds), "{seconds} s");
        }
    }
}
