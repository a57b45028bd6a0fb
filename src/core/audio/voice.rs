//! Detects speech in frames: webrtc-vad behind a level gate and a hysteresis.
//!
//! Input: frames of one stream in order, at the leg's rate. Output: for each frame, whether it
//! belongs to a run of speech, how long the run is, and how long ago its last voiced frame was. So
//! the length of a pause does not depend on the hysteresis.
//!
//! A `Voice` is built on the thread that uses it: [`webrtc_vad::Vad`] is not `Send`.

use webrtc_vad::{SampleRate, Vad, VadMode};

use super::Rate;

/// A run begins when this many of the last [`ONSET_WINDOW`] frames are voiced. A click is shorter.
pub const ONSET_FRAMES: u32 = 3;
/// See [`ONSET_FRAMES`].
pub const ONSET_WINDOW: u32 = 5;
/// Number of unvoiced frames that do not end a run: stop consonants and breaths are shorter.
pub const HANGOVER_FRAMES: u32 = 8;

/// What [`Voice`] finds in one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speech {
    /// The frame belongs to no run of speech.
    #[default]
    None,
    /// The frame belongs to a run of speech.
    Run {
        /// Frames from the first voiced one of the run to this one; at least 1.
        frames: u32,
        /// Number of unvoiced frames at the end of the run: 0 if this frame is voiced. If the run
        /// ends now, the speech ended this many frames ago.
        quiet: u32,
    },
}

impl Speech {
    /// Whether the frame belongs to a run of speech.
    pub fn is_speech(self) -> bool {
        matches!(self, Self::Run { .. })
    }
}

/// Sensitivity of the detector: the modes of webrtc-vad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VoiceMode {
    /// Mode 0: misses the least speech.
    Quality,
    /// Mode 1.
    LowBitrate,
    /// Mode 2: the compromise for telephones.
    #[default]
    Aggressive,
    /// Mode 3: takes the least noise for speech.
    VeryAggressive,
}

/// Detects speech in the frames of one stream.
pub struct Voice {
    vad: Vad,
    rate: Rate,
    /// The last frames, the newest in bit 0: 1 is voiced. Only [`ONSET_WINDOW`] bits are used.
    window: u32,
    speech: Speech,
}

impl Voice {
    /// A detector for frames at `rate`.
    pub fn new(rate: Rate, mode: VoiceMode) -> Self {
        let sample_rate = match rate {
            Rate::Hz8000 => SampleRate::Rate8kHz,
            Rate::Hz16000 => SampleRate::Rate16kHz,
        };
        let mode = match mode {
            VoiceMode::Quality => VadMode::Quality,
            VoiceMode::LowBitrate => VadMode::LowBitrate,
            VoiceMode::Aggressive => VadMode::Aggressive,
            VoiceMode::VeryAggressive => VadMode::VeryAggressive,
        };
        let vad = Vad::new_with_rate_and_mode(sample_rate, mode);
        Self { vad, rate, window: 0, speech: Speech::None }
    }

    /// Classifies the next frame, 20 ms at the detector's rate. Any other length is no speech.
    pub fn judge(&mut self, samples: &[i16]) -> Speech {
        let voiced = samples.len() == self.rate.frame_len() && {
            // The detector gets quiet frames too: it learns the noise of the line from them.
            let is_voice = self.vad.is_voice_segment(samples).unwrap_or(false);
            is_voice && is_loud_enough(samples)
        };
        self.hesitate(voiced)
    }

    /// The hysteresis: a run is found late, but counts from its first voiced frame; and it ends
    /// late.
    fn hesitate(&mut self, voiced: bool) -> Speech {
        self.window = (self.window << 1 | u32::from(voiced)) & ((1 << ONSET_WINDOW) - 1);
        self.speech = match self.speech {
            Speech::None if self.window.count_ones() >= ONSET_FRAMES => {
                Speech::Run { frames: self.window.ilog2() + 1, quiet: 0 }
            }
            Speech::None => Speech::None,
            Speech::Run { frames, .. } if voiced => {
                Speech::Run { frames: frames.saturating_add(1), quiet: 0 }
            }
            Speech::Run { frames, quiet } if quiet < HANGOVER_FRAMES => {
                Speech::Run { frames: frames.saturating_add(1), quiet: quiet + 1 }
            }
            Speech::Run { .. } => Speech::None,
        };
        self.speech
    }
}

impl std::fmt::Debug for Voice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Voice").field("rate", &self.rate).field("speech", &self.speech).finish()
    }
}

/// Frames below this level are never speech: comfort noise (RFC 3389) and the noise of a quiet
/// line. The value is the square of 10^(-46/20) of full scale.
const GATE_MEAN_SQUARE: i64 = 26_970;

fn is_loud_enough(samples: &[i16]) -> bool {
    let energy: i64 = samples.iter().map(|sample| i64::from(*sample).pow(2)).sum();
    energy >= GATE_MEAN_SQUARE * samples.len() as i64
}

#[cfg(test)]
mod tests {
    use std::f64::consts::{PI, TAU};

    use super::*;
    use crate::audio::{Clip, wav::Limits};

    const RATES: [Rate; 2] = [Rate::Hz8000, Rate::Hz16000];

    #[test]
    fn silence_and_comfort_noise_are_no_speech() {
        for rate in RATES {
            let mut voice = Voice::new(rate, VoiceMode::default());
            // -50 dBFS.
            let sound = [vec![0; 100 * rate.frame_len()], noise(rate, 103.6, 500)].concat();
            assert!(judge(&mut voice, &sound).iter().all(|speech| *speech == Speech::None));
        }
    }

    #[test]
    fn a_run_of_speech_begins_and_ends_where_the_sound_does() {
        for rate in RATES {
            let mut voice = Voice::new(rate, VoiceMode::default());
            let hush = noise(rate, 30.0, 50);
            let sound = [hush.clone(), syllables(rate, 100), hush].concat();
            let judged = judge(&mut voice, &sound);
            let begins: Vec<_> = (50..150)
                .filter_map(|n| match judged[n] {
                    Speech::Run { frames, .. } => Some(n + 1 - frames as usize),
                    Speech::None => None,
                })
                .collect();
            assert!(begins.iter().all(|begin| (50..=52).contains(begin)), "{rate:?} {begins:?}");
            assert!(begins.len() >= 95, "{rate:?}: a run without a hole");
            let last = (0..200).rfind(|n| judged[*n].is_speech()).unwrap();
            let Speech::Run { quiet, .. } = judged[last] else { unreachable!("it is speech") };
            assert_eq!(quiet, HANGOVER_FRAMES);
            assert!((148..=150).contains(&(last + 1 - quiet as usize)), "{rate:?} {last}");
        }
    }

    #[test]
    fn most_of_a_spoken_sentence_is_speech_and_its_pauses_are_not() {
        let file = include_bytes!("../../drivers/prompts/assets/spoken.wav");
        let clip = Clip::from_wav(file, Limits { max_seconds: 10 }).unwrap();
        for rate in RATES {
            let mut voice = Voice::new(rate, VoiceMode::default());
            let judged = judge(&mut voice, clip.samples(rate));
            let speech = judged.iter().filter(|speech| speech.is_speech()).count();
            assert!(speech * 10 > judged.len() * 8, "{rate:?} {speech} of {}", judged.len());
            assert!(speech < judged.len() - 5, "{rate:?}: the pause after the first sentence");
        }
    }

    #[test]
    fn a_click_is_no_speech() {
        let mut voice = Voice::new(Rate::Hz8000, VoiceMode::default());
        for n in 0..50 {
            // Two voiced frames now and then.
            assert_eq!(voice.hesitate(n % 7 < 2), Speech::None);
        }
    }

    #[test]
    fn a_run_is_dated_back_and_survives_short_gaps() {
        let mut voice = Voice::new(Rate::Hz8000, VoiceMode::default());
        let mut hear = |frames: &[bool]| frames.iter().map(|v| voice.hesitate(*v)).last().unwrap();
        assert_eq!(hear(&[true, false, true, false]), Speech::None);
        assert_eq!(hear(&[true]), Speech::Run { frames: 5, quiet: 0 });
        assert_eq!(hear(&[false; 8]), Speech::Run { frames: 13, quiet: 8 });
        assert_eq!(hear(&[true]), Speech::Run { frames: 14, quiet: 0 });
        assert_eq!(hear(&[false; 9]), Speech::None);
    }

    /// webrtc-vad finds voice in a loud steady tone. We do not correct this: the peer makes a
    /// sound.
    #[test]
    fn a_loud_tone_counts_as_a_voice() {
        for rate in RATES {
            let mut voice = Voice::new(rate, VoiceMode::default());
            let step = TAU * 1_004.0 / f64::from(rate.hz());
            let samples = (0..50 * rate.frame_len()).map(|n| (step * n as f64).sin());
            let sound: Vec<i16> = samples.map(|sample| (16_000.0 * sample) as i16).collect();
            assert!(judge(&mut voice, &sound)[10..].iter().all(|speech| speech.is_speech()));
        }
    }

    #[test]
    fn what_is_not_a_frame_is_no_speech() {
        let mut voice = Voice::new(Rate::Hz8000, VoiceMode::default());
        for samples in [&[][..], &[9_000; 80], &[9_000; 320]] {
            assert_eq!(voice.judge(samples), Speech::None);
        }
    }

    fn judge(voice: &mut Voice, sound: &[i16]) -> Vec<Speech> {
        sound.chunks_exact(voice.rate.frame_len()).map(|frame| voice.judge(frame)).collect()
    }

    fn noise(rate: Rate, rms: f64, frames: usize) -> Vec<i16> {
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as f64 / f64::from(1u32 << 31) - 0.5
        };
        (0..frames * rate.frame_len()).map(|_| (uniform() * rms * 12f64.sqrt()) as i16).collect()
    }

    /// The vowel of "up", five times a second, on a voice of 120 Hz that is not quite steady.
    fn syllables(rate: Rate, frames: usize) -> Vec<i16> {
        let hz = f64::from(rate.hz());
        let mut formants =
            [(700.0, 130.0), (1_220.0, 70.0), (2_600.0, 160.0)].map(|formant| (formant, [0.0; 2]));
        let mut phase = 0.0;
        let sample = |n: usize| {
            let time = n as f64 / hz;
            phase += (120.0 + 20.0 * (time * 5.0).sin()) / hz;
            let pulse = if phase >= 1.0 { 1.0 } else { 0.0 };
            phase -= pulse;
            let mut sound = pulse * (0.4 + 0.6 * (PI * (time * 5.0).fract()).sin());
            for ((centre, width), [last, before]) in &mut formants {
                let radius = (-PI * *width / hz).exp();
                let turn = 2.0 * radius * (TAU * *centre / hz).cos();
                let next = sound * (1.0 - turn + radius * radius) + turn * *last
                    - radius * radius * *before;
                (*before, *last, sound) = (*last, next, next);
            }
            (20_000.0 * sound).clamp(-32_768.0, 32_767.0) as i16
        };
        (0..frames * rate.frame_len()).map(sample).collect()
    }
}
