//! Measures sound: level, the level at one frequency, and how alike two recordings are.

/// Root mean square level in dB relative to a full-scale square wave; −120 for silence.
pub fn level_dbfs(samples: &[i16]) -> f64 {
    if samples.is_empty() {
        return FLOOR_DBFS;
    }
    let power = samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len() as f64;
    decibels(power.sqrt())
}

/// Level of the sine at `hz` in samples of `rate_hz`, in dB relative to a full-scale sine
/// (Goertzel). Useful for pieces of at least a few periods.
pub fn tone_level_dbfs(samples: &[i16], rate_hz: u32, hz: f64) -> f64 {
    if samples.is_empty() {
        return FLOOR_DBFS;
    }
    let coefficient = 2.0 * (2.0 * std::f64::consts::PI * hz / f64::from(rate_hz)).cos();
    let (mut last, mut before) = (0.0, 0.0);
    for sample in samples {
        let next = f64::from(*sample) + coefficient * last - before;
        before = last;
        last = next;
    }
    let power = (last * last + before * before - coefficient * last * before).max(0.0);
    decibels(2.0 * power.sqrt() / samples.len() as f64)
}

/// The lag of `clip` behind `reference`, in samples from −`max_lag` to `max_lag`, at which they are
/// most alike, and their correlation there (1 = the same except for the volume). Lags at which they
/// overlap by less than half of the shorter one are left out, because a few samples resemble any
/// others.
pub fn best_match(reference: &[i16], clip: &[i16], max_lag: usize) -> (isize, f64) {
    let max_lag = isize::try_from(max_lag).unwrap_or(isize::MAX);
    // A coarse search with every few samples finds the region in speech; a fine search finds the
    // sample.
    const STRIDE: usize = 4;
    let (length, other) = (reference.len() as isize, clip.len() as isize);
    let shared = |lag: isize| (other - lag).min(length) - (-lag).max(0);
    let enough = length.min(other) / 2;
    let coarse = (-max_lag..=max_lag)
        .step_by(STRIDE)
        .filter(|lag| shared(*lag) >= enough)
        .map(|lag| (lag, correlation(reference, clip, lag, STRIDE)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map_or(0, |(lag, _)| lag);
    let near = STRIDE as isize;
    (coarse - near..=coarse + near)
        .map(|lag| (lag, correlation(reference, clip, lag, 1)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap_or((0, 0.0))
}

/// Correlation of `clip` moved `lag` samples forward against `reference`, over their overlap.
pub fn correlation(reference: &[i16], clip: &[i16], lag: isize, stride: usize) -> f64 {
    let (mut product, mut left, mut right) = (0.0, 0.0, 0.0);
    for index in (0..reference.len()).step_by(stride.max(1)) {
        let Some(other) = index.checked_add_signed(lag).and_then(|at| clip.get(at)) else {
            continue;
        };
        let (a, b) = (f64::from(reference[index]), f64::from(*other));
        product += a * b;
        left += a * a;
        right += b * b;
    }
    if left == 0.0 || right == 0.0 { 0.0 } else { product / (left * right).sqrt() }
}

const FLOOR_DBFS: f64 = -120.0;

fn decibels(amplitude: f64) -> f64 {
    (20.0 * (amplitude / 32_768.0).log10()).max(FLOOR_DBFS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shares_only_a_few_samples_is_no_match() {
        let noise = |mut state: u32| -> Vec<i16> {
            let next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                Some((state >> 16) as i16)
            };
            std::iter::from_fn(next).take(2_000).collect()
        };
        let (one, other) = (noise(1), noise(99));
        assert!(best_match(&one, &other, 4_000).1 < 0.3);
        assert_eq!(best_match(&one[500..1_500], &one, 4_000).0, 500);
    }

    fn sine(hz: f64, rate: u32, amplitude: f64, samples: usize) -> Vec<i16> {
        let step = 2.0 * std::f64::consts::PI * hz / f64::from(rate);
        (0..samples).map(|i| (amplitude * (step * i as f64).sin()) as i16).collect()
    }

    #[test]
    fn a_tone_is_found_at_its_frequency_and_not_beside_it() {
        let tone = sine(1000.0, 8000, 16_384.0, 8000);
        assert!((tone_level_dbfs(&tone, 8000, 1000.0) + 6.02).abs() < 0.1);
        assert!(tone_level_dbfs(&tone, 8000, 1400.0) < -50.0);
        assert!((level_dbfs(&tone) + 9.03).abs() < 0.1);
        assert_eq!(level_dbfs(&[0; 10]), -120.0);
    }

    #[test]
    fn a_moved_copy_is_found_where_it_was_moved_to() {
        let mut state = 1u32;
        let noise: Vec<i16> = (0..8000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                ((state >> 16) as i16) / 4
            })
            .collect();
        let smooth: Vec<i16> = noise.windows(8).map(|w| w.iter().map(|s| s / 8).sum()).collect();
        let mut moved = vec![0; 123];
        moved.extend(smooth.iter().map(|s| s / 2));
        let (lag, likeness) = best_match(&smooth, &moved, 400);
        assert_eq!(lag, 123);
        assert!(likeness > 0.98);
    }
}
