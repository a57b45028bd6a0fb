//! Is this frame speech? webrtc-vad behind a level gate and a hysteresis.
//!
//! In: frames of one stream in order, at the leg's rate. Out: for each frame whether it lies in a
//! run of speech, how long the run is, and how long ago it was last really voiced. So whoever counts
//! pauses need not know how long the detector hesitates.
//!
//! Built on the thread that uses it: [`webrtc_vad::Vad`] is not `Send`.

use webrtc_vad::{SampleRate, Vad, VadMode};

use super::Rate;

/// A run begins when this many of the last [`ONSET_WINDOW`] frames are voiced. A click is shorter.
pub const ONSET_FRAMES: u32 = 3;
/// See [`ONSET_FRAMES`].
pub const ONSET_WINDOW: u32 = 5;
/// How many frames without voice a run survives: stop consonants and breaths are shorter.
pub const HANGOVER_FRAMES: u32 = 8;

/// What [`Voice`] says of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Speech {
    /// The frame belongs to no run of speech.
    #[default]
    None,
    /// The frame belongs to a run of speech.
    Run {
        /// Frames since the run really began, this one included; at least 1.
        frames: u32,
        /// How many of them, at the end, are not voiced: 0 when this frame is. If the run ends now,
        /// it ended so many frames ago.
        quiet: u32,
    },
}

impl Speech {
    /// Whether the frame belongs to a run of speech.
    pub fn is_speech(self) -> bool {
        matches!(self, Self::Run { .. })
    }
}

/// How readily a frame is taken for voice: the modes of webrtc-vad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VoiceMode {
    /// Mode 0: misses least.
    Quality,
    /// Mode 1.
    LowBitrate,
    /// Mode 2: the balance for telephones.
    #[default]
    Aggressive,
    /// Mode 3: takes least noise for speech.
    VeryAggressive,
}

/// Judges the frames of one stream.
pub struct Voice {
    vad: Vad,
    rate: Rate,
    /// The last frames, newest in bit 0: 1 is voiced. Only the window counts.
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

    /// Judges the next frame, 20 ms at the detector's rate. Anything but 20 ms is no speech.
    pub fn judge(&mut self, samples: &[i16]) -> Speech {
        let voiced = samples.len() == self.rate.frame_len()
            && is_loud_enough(samples)
            && self.vad.is_voice_segment(samples).unwrap_or(false);
        self.hesitate(voiced)
    }

    /// The hysteresis: a run begins late but is dated back, and ends late.
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

/// Frames below this level are no speech, whatever their shape: comfort noise (RFC 3389) and the
/// noise of a quiet line. The square of 10^(-46/20) of full scale.
const GATE_MEAN_SQUARE: i64 = 26_970;

fn is_loud_enough(samples: &[i16]) -> bool {
    let energy: i64 = samples.iter().map(|sample| i64::from(*sample).pow(2)).sum();
    energy >= GATE_MEAN_SQUARE * samples.len() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explore() {
        for rate in [Rate::Hz8000, Rate::Hz16000] {
            for mode in [VoiceMode::Quality, VoiceMode::LowBitrate, VoiceMode::Aggressive, VoiceMode::VeryAggressive] {
                for (name, sound) in [("tone1004", tone(rate, 1004.0, 16000.0, 100)), ("tone440", tone(rate, 440.0, 8000.0, 100)), ("tone200", tone(rate, 200.0, 8000.0, 100)),("noise-30", noise(rate, 1036.0, 100)), ("speech", speech(rate, 100)), ("spoken", spoken(rate))] {
                    let mut voice = Voice::new(rate, mode);
                    let s: String = sound.chunks_exact(rate.frame_len()).map(|f| match voice.judge(f) { Speech::None => '.', Speech::Run{quiet: 0, ..} => 'V', _ => 'q' }).collect();
                    println!("{rate:?} {mode:?} {name:9} {s}");
                }
            }
        }
    }
    fn tone(rate: Rate, hz: f64, peak: f64, frames: usize) -> Vec<i16> {
        let step = std::f64::consts::TAU * hz / f64::from(rate.hz());
        (0..frames * rate.frame_len()).map(|n| (peak * (step * n as f64).sin()) as i16).collect()
    }

    fn noise(rate: Rate, rms: f64, frames: usize) -> Vec<i16> {
        let mut state = 1u64;
        let mut uniform = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / f64::from(1u32 << 31) - 0.5
        };
        (0..frames * rate.frame_len()).map(|_| (uniform() * rms * 12f64.sqrt()) as i16).collect()
    }

    fn speech(rate: Rate, frames: usize) -> Vec<i16> {
        let hz = f64::from(rate.hz());
        let formants = [(700.0, 130.0), (1_220.0, 70.0), (2_600.0, 160.0)];
        let mut memory = [[0.0f64; 2]; 3];
        let (mut out, mut phase) = (Vec::new(), 0.0f64);
        for n in 0..frames * rate.frame_len() {
            let t = n as f64 / hz;
            let pitch = 120.0 + 20.0 * (t * 5.0).sin();
            phase += pitch / hz;
            let pulse = if phase >= 1.0 { phase -= 1.0; 1.0 } else { 0.0 };
            let syllable = (std::f64::consts::PI * (t * 4.0).fract()).sin().powi(2);
            let mut x = pulse * syllable;
            for ((f, b), m) in formants.iter().zip(&mut memory) {
                let r = (-std::f64::consts::PI * b / hz).exp();
                let c = 2.0 * r * (std::f64::consts::TAU * f / hz).cos();
                let y = x * (1.0 - c + r * r) + c * m[0] - r * r * m[1];
                *m = [y, m[0]];
                x = y;
            }
            out.push((x * 60_000.0).clamp(-32e3, 32e3) as i16);
        }
        println!("peak {}", out.iter().map(|s: &i16| s.unsigned_abs()).max().unwrap());
        out
    }
    fn spoken(rate: Rate) -> Vec<i16> {
        crate::audio::Clip::from_wav(include_bytes!("../prompts/assets/spoken.wav"), crate::audio::wav::Limits{max_seconds: 10}).unwrap().samples(rate).to_vec()
    }
}
