//! When to try again after a failed round (RFC 5626 §4.5). Reads no clock.

use std::time::Duration;

/// The upper bound after the first failure. RFC 5626 §4.5 says 30 s, for millions of phones; we are
/// a single client of a trunk.
const BASE: Duration = Duration::from_secs(1);
/// RFC 5626 §4.5 says 30 min. Once a trunk is back, its calls should not have to wait that long.
const MAX: Duration = Duration::from_secs(5 * 60);
/// Longest wait that a peer can ask for by Retry-After: it cannot stop us for the rest of the day.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// How soon another try may succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// The failure may pass: the wait doubles with each failure, up to [`MAX`].
    Quick,
    /// A person has to change something: [`MAX`] at once.
    Slow,
}

/// The wait after `failures` failed rounds in a row, from 1. `jitter` is from 0 to 1.
pub(super) fn wait(
    pace: Pace,
    failures: u32,
    retry_after: Option<Duration>,
    jitter: f64,
) -> Duration {
    let jitter = jitter.clamp(0.0, 1.0);
    let wait = match pace {
        Pace::Quick => {
            let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
            // Between half of the upper bound and all of it, so that clients do not all return at
            // once.
            BASE.saturating_mul(doubled).min(MAX).mul_f64(0.5 + jitter / 2.0)
        }
        Pace::Slow => MAX.mul_f64(1.0 + jitter / 10.0),
    };
    wait.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_double_up_to_five_minutes() {
        let seconds = |jitter| -> Vec<f64> {
            (1..=11).map(|n| wait(Pace::Quick, n, None, jitter).as_secs_f64()).collect()
        };
        let longest = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0];
        assert_eq!(seconds(1.0), longest);
        assert_eq!(seconds(0.0), longest.map(|it| it / 2.0));
        assert_eq!(wait(Pace::Quick, u32::MAX, None, 1.0), MAX);
        assert_eq!(wait(Pace::Slow, 1, None, 0.0), MAX);
    }

    #[test]
    fn a_peer_may_ask_for_patience() {
        let asked = |seconds| wait(Pace::Quick, 1, Some(Duration::from_secs(seconds)), 1.0);
        assert_eq!(asked(0), BASE);
        assert_eq!(asked(120), Duration::from_secs(120));
        assert_eq!(asked(u64::MAX), MAX_RETRY_AFTER);
    }
}
