//! The beep that asks the caller to speak.
//!
//! 1,400 Hz for 200 ms at -12 dBFS, with soft edges so that it does not click. 1,400 Hz is the tone
//! that traditionally announces recorders on telephone lines; it is no DTMF frequency, no call
//! progress tone, neither of the fax tones (1,100 and 2,100 Hz), and not the milliwatt test tone.

use std::{f64::consts::TAU, sync::LazyLock};

use super::{Rate, frame::FRAMES_PER_SECOND};

/// The beep's frequency.
pub const BEEP_HZ: u32 = 1_400;
/// The beep's length in frames of 20 ms.
pub const BEEP_FRAMES: u32 = 10;
/// The peak: -12 dBFS.
const PEAK: f64 = 8_231.0;
/// Duration of the rise at the start, and of the fall at the end.
const EDGE_SECONDS: f64 = 0.010;

/// The beep's samples at `rate`: [`BEEP_FRAMES`] whole frames.
pub fn beep(rate: Rate) -> &'static [i16] {
    static NARROW: LazyLock<Vec<i16>> = LazyLock::new(|| synthesise(Rate::Hz8000));
    static WIDE: LazyLock<Vec<i16>> = LazyLock::new(|| synthesise(Rate::Hz16000));
    match rate {
        Rate::Hz8000 => &NARROW,
        Rate::Hz16000 => &WIDE,
    }
}

fn synthesise(rate: Rate) -> Vec<i16> {
    let hz = f64::from(rate.hz());
    let length = BEEP_FRAMES as usize * rate.frame_len();
    let seconds = f64::from(BEEP_FRAMES) / f64::from(FRAMES_PER_SECOND);
    let sample = |n: usize| {
        let time = n as f64 / hz;
        let from_edge = time.min(seconds - time).min(EDGE_SECONDS) / EDGE_SECONDS;
        let level = 0.5 - 0.5 * (from_edge * TAU / 2.0).cos();
        (PEAK * level * (time * f64::from(BEEP_HZ) * TAU).sin()).round() as i16
    };
    (0..length).map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beep_is_whole_frames_of_its_level_with_silent_ends() {
        for rate in [Rate::Hz8000, Rate::Hz16000] {
            let sound = beep(rate);
            assert_eq!(sound.len(), 10 * rate.frame_len());
            let peak = sound.iter().map(|sample| sample.unsigned_abs()).max().unwrap();
            assert!((8_000..=8_231).contains(&peak), "{peak}");
            for edge in [&sound[..4], &sound[sound.len() - 4..]] {
                assert!(edge.iter().all(|sample| sample.abs() < 150), "{edge:?}");
            }
        }
    }

    #[test]
    fn both_rates_sound_the_same() {
        let every_second = beep(Rate::Hz16000).iter().step_by(2);
        assert!(every_second.eq(beep(Rate::Hz8000)));
    }
}
