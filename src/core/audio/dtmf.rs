//! The sixteen DTMF keys as sound (ITU-T Q.23): two sines each, for peers that do not support
//! telephone events.

use std::f64::consts::TAU;

use super::Rate;
use crate::model::Tone;

/// The frequencies of the low group in Hz, by the keypad's row.
const ROWS: [f64; 4] = [697.0, 770.0, 852.0, 941.0];
/// The frequencies of the high group in Hz, by the keypad's column.
const COLUMNS: [f64; 4] = [1209.0, 1336.0, 1477.0, 1633.0];
/// Row and column of each key, by its event code.
const PLACES: [(usize, usize); 16] = [
    (3, 1),
    (0, 0),
    (0, 1),
    (0, 2),
    (1, 0),
    (1, 1),
    (1, 2),
    (2, 0),
    (2, 1),
    (2, 2),
    (3, 0),
    (3, 2),
    (0, 3),
    (1, 3),
    (2, 3),
    (3, 3),
];
/// -9 and -7 dBm0 (ETSI ES 201 235-2): the high group is louder, because lines attenuate it more.
const LOW_PEAK: f64 = 8_091.0;
const HIGH_PEAK: f64 = 10_186.0;

/// Writes the sound of a key that has been down for `before` samples.
pub fn write(tone: Tone, before: usize, rate: Rate, samples: &mut [i16]) {
    let (row, column) = PLACES[usize::from(tone.event_code())];
    for (n, sample) in (before..).zip(samples) {
        let time = n as f64 / f64::from(rate.hz()) * TAU;
        let sound =
            LOW_PEAK * (time * ROWS[row]).sin() + HIGH_PEAK * (time * COLUMNS[column]).sin();
        *sample = sound.round() as i16;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The level of one frequency in `samples`, as the peak of a sine (Goertzel).
    fn level(samples: &[i16], hz: f64, rate: Rate) -> f64 {
        let step = TAU * hz / f64::from(rate.hz());
        let (mut re, mut im) = (0.0, 0.0);
        for (n, sample) in samples.iter().enumerate() {
            re += f64::from(*sample) * (step * n as f64).cos();
            im += f64::from(*sample) * (step * n as f64).sin();
        }
        2.0 * re.hypot(im) / samples.len() as f64
    }

    #[test]
    fn each_key_has_its_two_frequencies_and_no_other() {
        for rate in [Rate::Hz8000, Rate::Hz16000] {
            for code in 0..16 {
                let tone = Tone::from_event_code(code).unwrap();
                let mut samples = vec![0; 5 * rate.frame_len()];
                for (n, frame) in samples.chunks_mut(rate.frame_len()).enumerate() {
                    write(tone, n * rate.frame_len(), rate, frame);
                }
                let heard: Vec<usize> = ROWS
                    .iter()
                    .chain(&COLUMNS)
                    .enumerate()
                    .filter(|(_, hz)| level(&samples, **hz, rate) > 7_000.0)
                    .map(|(n, _)| n)
                    .collect();
                let keys = ["123A", "456B", "789C", "*0#D"];
                let row = keys.iter().position(|row| row.contains(tone.as_char())).unwrap();
                let column = keys[row].find(tone.as_char()).unwrap();
                assert_eq!(heard, [row, 4 + column], "{}", tone.as_char());
            }
        }
    }
}
