//! Conversion between sample rates.
//!
//! [`Upsampler`] doubles 8,000 Hz while a call runs: cheap, frame by frame, one state per call.
//! [`resample`] converts any rate to any other in one step, for prompts.

use std::{f64::consts::PI, ops::RangeInclusive, sync::LazyLock};

/// Converts a stream from 8,000 to 16,000 Hz.
///
/// Output sample `2n` is input sample `n`, bit for bit; those between are interpolated by a
/// half-band filter of 24 taps (-6 dB at 4,000 Hz, images of speech below -50 dB). The filter looks
/// [`DELAY`](Self::DELAY) samples ahead, so each output waits for that many inputs. Nothing else is
/// inserted: after [`flush`](Self::flush) there are exactly twice as many output samples as input
/// samples.
#[derive(Debug, Clone)]
pub struct Upsampler {
    /// The newest samples, oldest first.
    history: [f32; TAPS - 1],
    /// Samples that are still to come before the first output.
    awaited: usize,
}

const TAPS: usize = 24;
/// Samples that are doubled in one step.
const BLOCK: usize = 160;

impl Upsampler {
    /// How many input samples an output waits for: 12 samples of 8,000 Hz are 1.5 ms.
    pub const DELAY: usize = TAPS / 2;

    /// An upsampler before the first sample.
    pub const fn new() -> Self {
        Self { history: [0.0; TAPS - 1], awaited: Self::DELAY }
    }

    /// Takes any number of samples, and appends the output that is complete by now.
    pub fn push(&mut self, samples: &[i16], out: &mut Vec<i16>) {
        let taps: &[f32; TAPS] = &HALF_BAND;
        for block in samples.chunks(BLOCK) {
            let mut window = [0.0; TAPS - 1 + BLOCK];
            window[..TAPS - 1].copy_from_slice(&self.history);
            for (slot, sample) in window[TAPS - 1..].iter_mut().zip(block) {
                *slot = f32::from(*sample);
            }
            out.reserve(2 * block.len());
            for taken in window[..TAPS - 1 + block.len()].windows(TAPS).skip(self.awaited) {
                let between: f32 = taken.iter().zip(taps).map(|(sample, tap)| sample * tap).sum();
                out.push(taken[TAPS / 2 - 1] as i16);
                out.push(between.round() as i16);
            }
            self.awaited = self.awaited.saturating_sub(block.len());
            self.history.copy_from_slice(&window[block.len()..][..TAPS - 1]);
        }
    }

    /// Ends the stream: appends the last 2 x [`DELAY`](Self::DELAY) samples, as if silence
    /// followed. Then the upsampler is as new.
    pub fn flush(&mut self, out: &mut Vec<i16>) {
        self.push(&[0; Self::DELAY], out);
        // The output for the silence itself is not produced, even if the stream was shorter than
        // the delay.
        *self = Self::new();
    }
}

impl Default for Upsampler {
    fn default() -> Self {
        Self::new()
    }
}

/// The odd taps of a half-band filter: they give the value midway between the two middle samples.
static HALF_BAND: LazyLock<[f32; TAPS]> = LazyLock::new(|| {
    let at = |tap: usize| tap as f64 - (TAPS as f64 - 1.0) / 2.0;
    let weight = |tap: usize| sinc(at(tap)) * kaiser(at(tap) / Upsampler::DELAY as f64, 5.5);
    let sum: f64 = (0..TAPS).map(weight).sum();
    std::array::from_fn(|tap| (weight(tap) / sum) as f32)
});

/// The rates that [`resample`] accepts, in Hz.
pub const RATES_HZ: RangeInclusive<u32> = 4_000..=192_000;

/// Zero crossings of the filter's sinc on each side.
const CROSSINGS: f64 = 24.0;
/// The cut-off of the filter, as a fraction of half the lower rate.
const PASSED: f64 = 0.92;
/// The Kaiser window's parameter for a stop band below -80 dB.
const KAISER_BETA: f64 = 8.0;
/// The largest number of filters that are computed; weights between them are interpolated.
const MOST_PHASES: u64 = 256;

/// Converts the sound to another rate; samples that would be too large are clipped.
///
/// The first sample stays in its place, and the duration stays the same within one sample.
///
/// # Panics
/// A rate is not in [`RATES_HZ`].
pub fn resample(samples: &[i16], from_hz: u32, to_hz: u32) -> Vec<i16> {
    assert!(RATES_HZ.contains(&from_hz) && RATES_HZ.contains(&to_hz), "{from_hz} to {to_hz} Hz");
    if from_hz == to_hz {
        return samples.to_vec();
    }
    let divisor = gcd(from_hz, to_hz);
    let (step, steps) = (u64::from(from_hz / divisor), u64::from(to_hz / divisor));
    let bank = FilterBank::new(f64::from(to_hz) / f64::from(from_hz), steps.min(MOST_PHASES));
    // Silence on both sides, so that every output has a complete filter.
    let mut padded = vec![0.0; samples.len() + 2 * bank.half];
    for (slot, sample) in padded[bank.half..].iter_mut().zip(samples) {
        *slot = f32::from(*sample);
    }
    let length = (samples.len() as u64 * steps).div_ceil(step);
    let at = |n: u64| {
        let (whole, part) = (n * step / steps, n * step % steps);
        // The filter's first tap lies half - 1 samples before `whole`.
        let around = &padded[whole as usize + 1..][..2 * bank.half];
        bank.apply(around, part as f64 / steps as f64).round() as i16
    };
    (0..length).map(at).collect()
}

/// One filter for each fraction of a sample that an output may lie after an input.
struct FilterBank {
    /// `phases + 1` filters of `2 * half` taps; the last is the first, one sample later.
    taps: Vec<f32>,
    half: usize,
    phases: u64,
}

impl FilterBank {
    /// Filters that pass the frequencies that both rates can carry; `ratio` is the new rate divided
    /// by the old one.
    fn new(ratio: f64, phases: u64) -> Self {
        let scale = ratio.min(1.0);
        let half = (CROSSINGS / scale).ceil() as usize;
        let mut taps = Vec::with_capacity((phases as usize + 1) * 2 * half);
        for phase in 0..=phases {
            let begin = taps.len();
            let centre = (half - 1) as f64 + phase as f64 / phases as f64;
            taps.extend((0..2 * half).map(|tap| {
                let distance = (tap as f64 - centre) * scale;
                (sinc(distance * PASSED) * kaiser(distance / CROSSINGS, KAISER_BETA)) as f32
            }));
            let sum: f32 = taps[begin..].iter().sum();
            taps[begin..].iter_mut().for_each(|tap| *tap /= sum);
        }
        Self { taps, half, phases }
    }

    fn apply(&self, around: &[f32], fraction: f64) -> f32 {
        let phase = fraction * self.phases as f64;
        let (nearest, beyond) = (phase.floor(), phase.fract() as f32);
        let filter = |index: usize| &self.taps[index * 2 * self.half..][..2 * self.half];
        let here = dot(around, filter(nearest as usize));
        // The fraction may differ from 0 by a rounding error only, which is not worth a second
        // filter.
        if beyond < 1e-6 {
            return here;
        }
        here + (dot(around, filter(nearest as usize + 1)) - here) * beyond
    }
}

/// A sum in eight lanes, so that the compiler can use vector registers.
fn dot(samples: &[f32], taps: &[f32]) -> f32 {
    let (samples, samples_rest) = samples.as_chunks::<8>();
    let (taps, taps_rest) = taps.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for (samples, taps) in samples.iter().zip(taps) {
        for ((lane, sample), tap) in lanes.iter_mut().zip(samples).zip(taps) {
            *lane += sample * tap;
        }
    }
    let rest: f32 = samples_rest.iter().zip(taps_rest).map(|(sample, tap)| sample * tap).sum();
    lanes.iter().sum::<f32>() + rest
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) }
}

/// The Kaiser window over -1..=1; zero outside.
fn kaiser(x: f64, beta: f64) -> f64 {
    if x.abs() >= 1.0 {
        return 0.0;
    }
    bessel_i0(beta * (1.0 - x * x).sqrt()) / bessel_i0(beta)
}

/// The modified Bessel function of order zero, by its series.
fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for k in 1..40 {
        term *= (x / (2.0 * f64::from(k))).powi(2);
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tone(hz: f64, rate: u32, samples: usize) -> Vec<i16> {
        let step = std::f64::consts::TAU * hz / f64::from(rate);
        (0..samples).map(|n| (16_000.0 * (step * n as f64).sin()).round() as i16).collect()
    }

    /// Level of the difference against the level of a full tone, in dB, away from the ends.
    fn error_db(heard: &[i16], wanted: &[i16]) -> f64 {
        let middle = wanted.len() / 8..wanted.len() * 7 / 8;
        let energy = |n: usize| f64::from(i32::from(heard[n]) - i32::from(wanted[n])).powi(2);
        let mean = middle.clone().map(energy).sum::<f64>() / middle.len() as f64;
        10.0 * (mean.max(1e-9) / (16_000f64.powi(2) / 2.0)).log10()
    }

    #[test]
    fn doubling_keeps_every_sample_and_finds_those_between() {
        for hz in [100.0, 1_004.0, 3_000.0, 3_400.0] {
            let mut upsampler = Upsampler::new();
            let mut out = Vec::new();
            let narrow = tone(hz, 8_000, 1_600);
            narrow.chunks(160).for_each(|frame| upsampler.push(frame, &mut out));
            upsampler.flush(&mut out);
            assert_eq!(out.len(), 2 * narrow.len());
            assert!(out.iter().step_by(2).eq(&narrow));
            let error = error_db(&out, &tone(hz, 16_000, 3_200));
            assert!(error < -45.0, "{hz} Hz: {error} dB");
        }
    }

    #[test]
    fn an_output_waits_for_its_delay_and_no_longer() {
        let mut upsampler = Upsampler::new();
        let mut out = Vec::new();
        upsampler.push(&[1_000; 160], &mut out);
        assert_eq!(out.len(), 2 * (160 - Upsampler::DELAY));
        upsampler.push(&[1_000; 160], &mut out);
        assert_eq!(out.len(), 2 * (320 - Upsampler::DELAY));
    }

    #[test]
    fn a_loud_square_wave_is_clipped_and_does_not_wrap() {
        let square: Vec<i16> =
            (0..800).map(|n| if n / 8 % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
        let mut out = Vec::new();
        let mut upsampler = Upsampler::new();
        upsampler.push(&square, &mut out);
        upsampler.flush(&mut out);
        for wide in [out, resample(&square, 8_000, 16_000)] {
            for n in 40..1_560 {
                // In the middle of each half the sign is the input's.
                if (4..12).contains(&(n % 16)) {
                    assert_eq!(wide[n] > 0, square[n / 2] > 0, "sample {n}");
                }
            }
        }
    }

    #[test]
    fn a_tone_is_the_same_tone_at_every_rate() {
        for from in [4_000, 8_000, 11_025, 16_000, 22_050, 44_100, 44_101, 48_000, 192_000] {
            for to in [8_000, 16_000] {
                let length = from as usize;
                let out = resample(&tone(1_004.0, from, length), from, to);
                assert!(out.len().abs_diff(to as usize) <= 1, "{from} to {to}");
                let error = error_db(&out, &tone(1_004.0, to, out.len()));
                assert!(error < -65.0, "{from} to {to}: {error} dB");
            }
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_carry_is_gone() {
        for (from, to, hz) in
            [(48_000, 8_000, 5_000.0), (44_100, 16_000, 9_000.0), (16_000, 8_000, 4_800.0)]
        {
            let out = resample(&tone(hz, from, from as usize), from, to);
            let error = error_db(&out, &vec![0; out.len()]);
            assert!(error < -60.0, "{from} to {to}, {hz} Hz: {error} dB");
        }
    }

    proptest! {
        #[test]
        fn doubling_does_not_depend_on_how_the_sound_is_cut(
            sound in proptest::collection::vec(any::<i16>(), 0..700),
            cuts in proptest::collection::vec(0usize..200, 0..10),
        ) {
            let mut whole = Vec::new();
            let mut upsampler = Upsampler::new();
            upsampler.push(&sound, &mut whole);
            upsampler.flush(&mut whole);
            let (mut parts, mut rest) = (Vec::new(), &sound[..]);
            for cut in cuts {
                let (part, later) = rest.split_at(cut.min(rest.len()));
                upsampler.push(part, &mut parts);
                rest = later;
            }
            upsampler.push(rest, &mut parts);
            upsampler.flush(&mut parts);
            prop_assert_eq!(whole.len(), 2 * sound.len());
            prop_assert_eq!(whole, parts);
        }

        #[test]
        fn any_rate_becomes_any_other(
            sound in proptest::collection::vec(any::<i16>(), 0..300),
            from in RATES_HZ,
            to in RATES_HZ,
        ) {
            let out = resample(&sound, from, to);
            let expected = sound.len() as u64 * u64::from(to) / u64::from(from);
            prop_assert!((out.len() as u64).abs_diff(expected) <= 1);
        }
    }
}
