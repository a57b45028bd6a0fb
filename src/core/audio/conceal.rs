//! Conceals lost packets of a codec that has no state: it repeats the last pitch period and fades
//! it out. This is a simplified form of ITU-T G.711 Appendix I, without its added delay.
//!
//! Input: decoded samples. Output: 20 ms at a time for lost packets. 8,000 Hz only.

use super::Rate;

const FRAME: usize = Rate::Hz8000.frame_len();
/// The pitch periods that are searched: 400 down to 50 Hz.
const SHORTEST_PERIOD: usize = 20;
const LONGEST_PERIOD: usize = 160;
/// Samples at the end that are compared with those one period earlier.
const COMPARED: usize = FRAME;
const HISTORY: usize = COMPARED + LONGEST_PERIOD;
/// The first 10 ms keep their level, then the level falls to zero at 60 ms, as in Appendix I.
const FULL_LEVEL: usize = 80;
const SILENT_FROM: usize = 480;

/// Remembers the last sound and continues it over a gap.
#[derive(Debug, Clone)]
pub struct Concealer {
    history: [i16; HISTORY],
    gap: Option<Gap>,
}

#[derive(Debug, Clone, Copy)]
struct Gap {
    period: usize,
    /// Samples that have been generated so far.
    filled: usize,
}

impl Concealer {
    /// A concealer at the start of a stream.
    pub const fn new() -> Self {
        Self { history: [0; HISTORY], gap: None }
    }

    /// Remembers decoded samples, and ends a gap.
    pub fn remember(&mut self, decoded: &[i16]) {
        let newest = &decoded[decoded.len().saturating_sub(HISTORY)..];
        self.history.copy_within(newest.len().., 0);
        self.history[HISTORY - newest.len()..].copy_from_slice(newest);
        self.gap = None;
    }

    /// Appends 20 ms that continue the last sound; silence once the gap is 60 ms long.
    pub fn conceal(&mut self, out: &mut Vec<i16>) {
        let Gap { period, filled } =
            self.gap.unwrap_or_else(|| Gap { period: pitch_period(&self.history), filled: 0 });
        let last_period = &self.history[HISTORY - period..];
        out.extend((filled..filled + FRAME).map(|n| fade(last_period[n % period], n)));
        self.gap = Some(Gap { period, filled: (filled + FRAME).min(SILENT_FROM) });
    }
}

impl Default for Concealer {
    fn default() -> Self {
        Self::new()
    }
}

fn fade(sample: i16, position: usize) -> i16 {
    let left = SILENT_FROM.saturating_sub(position).min(SILENT_FROM - FULL_LEVEL);
    (i32::from(sample) * left as i32 / (SILENT_FROM - FULL_LEVEL) as i32) as i16
}

/// The shift at which the end of `history` resembles itself most.
fn pitch_period(history: &[i16; HISTORY]) -> usize {
    let end = &history[HISTORY - COMPARED..];
    let likeness = |period: usize| {
        let earlier = &history[HISTORY - COMPARED - period..HISTORY - period];
        let (mut product, mut energy) = (0i64, 0i64);
        for (now, then) in end.iter().zip(earlier) {
            product += i64::from(*now) * i64::from(*then);
            energy += i64::from(*then) * i64::from(*then);
        }
        product as f64 / (energy as f64).sqrt().max(1.0)
    };
    let mut alike = [0.0; LONGEST_PERIOD + 1];
    for (period, alike) in alike.iter_mut().enumerate().skip(SHORTEST_PERIOD) {
        *alike = likeness(period);
    }
    // Whole multiples of a period match equally well, so the first of nearly equal peaks is the
    // pitch.
    let best = alike.iter().copied().fold(0.0, f64::max);
    let is_peak = |period: &usize| {
        let here = alike[*period];
        here >= 0.95 * best
            && here > alike[period - 1]
            && alike.get(period + 1).is_none_or(|next| here >= *next)
    };
    (SHORTEST_PERIOD..=LONGEST_PERIOD).find(is_peak).unwrap_or(LONGEST_PERIOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f64, samples: usize) -> Vec<i16> {
        let step = std::f64::consts::TAU * hz / 8_000.0;
        (0..samples).map(|n| (8_000.0 * (step * n as f64).sin()) as i16).collect()
    }

    #[test]
    fn a_periodic_sound_goes_on_without_a_step() {
        let sound = tone(200.0, 800);
        let mut concealer = Concealer::new();
        for frame in sound[..640].chunks(FRAME) {
            concealer.remember(frame);
        }
        let mut made = Vec::new();
        concealer.conceal(&mut made);
        for n in 0..FULL_LEVEL {
            assert!((made[n] - sound[640 + n]).abs() < 400, "sample {n}");
        }
    }

    #[test]
    fn a_long_gap_is_silent_after_60_ms() {
        let mut concealer = Concealer::new();
        concealer.remember(&tone(120.0, 640));
        let mut made = Vec::new();
        for _ in 0..50 {
            concealer.conceal(&mut made);
        }
        assert_eq!(made.len(), 50 * FRAME);
        assert!(made[..FRAME].iter().any(|sample| sample.abs() > 4_000));
        assert!(made[SILENT_FROM..].iter().all(|sample| *sample == 0));
    }

    #[test]
    fn a_gap_before_any_sound_is_silent() {
        let mut made = Vec::new();
        Concealer::new().conceal(&mut made);
        assert_eq!(made, [0; FRAME]);
    }

    #[test]
    fn packets_of_any_length_are_remembered() {
        let mut concealer = Concealer::new();
        for length in [0, 1, 159, 160, 319, 320, 321, 4_000] {
            concealer.remember(&tone(300.0, length));
            concealer.conceal(&mut Vec::new());
        }
        concealer.remember(&[i16::MIN; 640]);
        concealer.conceal(&mut Vec::new());
    }
}
