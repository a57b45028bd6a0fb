//! Limits how many of a peer's tones are reported to the application.
//!
//! No person presses more than ten keys a second, and each notification is a row in the database
//! until it is delivered. A burst passes, because phones send stored digits at once. The limit
//! applies to notifications only: every key can stop a recording or control a built-in line.

use std::time::{Duration, Instant};

/// The sustained rate: ten keys a second.
const INTERVAL: Duration = Duration::from_millis(100);
/// Keys that may come at once after a pause.
const BURST: u32 = 20;

/// The limit of one call.
#[derive(Debug, Default)]
pub(super) struct ToneLimit {
    /// When the whole burst is available again.
    free_at: Option<Instant>,
    passed_over: u64,
}

impl ToneLimit {
    /// Whether a key that is pressed at `now` is reported.
    pub(super) fn admits(&mut self, now: Instant) -> bool {
        let free_at = self.free_at.map_or(now, |at| at.max(now));
        if free_at.duration_since(now) > INTERVAL * (BURST - 1) {
            self.passed_over += 1;
            return false;
        }
        self.free_at = Some(free_at + INTERVAL);
        true
    }

    /// Number of keys that were not reported.
    pub(super) fn passed_over(&self) -> u64 {
        self.passed_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(limit: &mut ToneLimit, begin: Instant, keys: u32, every: Duration) -> u32 {
        (0..keys).map(|key| u32::from(limit.admits(begin + every * key))).sum()
    }

    #[test]
    fn ten_keys_a_second_are_told_for_ever() {
        let mut limit = ToneLimit::default();
        assert_eq!(admitted(&mut limit, Instant::now(), 1_000, INTERVAL), 1_000);
        assert_eq!(limit.passed_over(), 0);
    }

    #[test]
    fn of_fifty_keys_a_second_ten_are_told() {
        let mut limit = ToneLimit::default();
        let told = admitted(&mut limit, Instant::now(), 3_000, Duration::from_millis(20));
        assert_eq!(told, 600 + BURST - 1);
        assert_eq!(limit.passed_over(), u64::from(3_000 - told));
    }

    #[test]
    fn stored_digits_that_are_dialled_at_once_are_told_after_a_pause_again() {
        let (mut limit, begin) = (ToneLimit::default(), Instant::now());
        assert_eq!(admitted(&mut limit, begin, 30, Duration::ZERO), BURST);
        let later = begin + INTERVAL * BURST;
        assert_eq!(admitted(&mut limit, later, 30, Duration::ZERO), BURST);
    }
}
