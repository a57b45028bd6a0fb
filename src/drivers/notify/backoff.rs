//! When a failed notification is tried again, and when it is given up. Pure.

use std::time::Duration;

/// Pauses after the first attempts; later ones are [`LONGEST_STEP`].
const STEPS: [Duration; 6] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];
const LONGEST_STEP: Duration = Duration::from_secs(60);

/// Upper limit of Retry-After: the receiver may recover sooner than it announced.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// What is known about the attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct FailedAttempt {
    /// Number of failures that count for the back-off, this one included.
    pub(super) step: u32,
    /// How old the notification is.
    pub(super) age: Duration,
    /// Retry-After of the answer (RFC 9110 section 10.2.3).
    pub(super) retry_after: Option<Duration>,
    /// A random number from 0 to 1, so that many lanes do not retry at the same moment.
    pub(super) jitter: f64,
}

/// The pause before the next attempt; `None` when the notification is `retry_for` old. The last
/// attempt comes at that age and not before.
pub(super) fn pause(failure: FailedAttempt, retry_for: Duration) -> Option<Duration> {
    let left = retry_for.checked_sub(failure.age).filter(|left| !left.is_zero())?;
    let index = usize::try_from(failure.step.saturating_sub(1)).unwrap_or(usize::MAX);
    let step = STEPS.get(index).copied().unwrap_or(LONGEST_STEP);
    let asked = failure.retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
    let jitter = if failure.jitter.is_finite() { failure.jitter.clamp(0.0, 1.0) } else { 0.0 };
    // Up to a tenth longer, never shorter: Retry-After must be respected.
    let wait = step.max(asked).mul_f64(1.0 + jitter / 10.0);
    Some(wait.min(left))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn after(step: u32) -> FailedAttempt {
        FailedAttempt { step, age: Duration::ZERO, retry_after: None, jitter: 0.0 }
    }

    #[test]
    fn the_waits_grow_to_a_minute() {
        let waits: Vec<u128> =
            (1..=8).map(|step| pause(after(step), DAY).unwrap().as_millis()).collect();
        assert_eq!(waits, [500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 60_000]);
    }

    #[test]
    fn the_receiver_may_ask_for_more_but_not_for_less_or_for_ever() {
        let asked =
            |seconds| FailedAttempt { retry_after: Some(Duration::from_secs(seconds)), ..after(4) };
        assert_eq!(pause(asked(120), DAY), Some(Duration::from_secs(120)));
        assert_eq!(pause(asked(1), DAY), Some(Duration::from_secs(5)));
        assert_eq!(pause(asked(u64::MAX), DAY), Some(LONGEST_RETRY_AFTER));
    }

    #[test]
    fn the_last_attempt_comes_at_the_full_age_and_nothing_after_it() {
        let old = FailedAttempt { age: DAY - Duration::from_secs(7), ..after(100) };
        assert_eq!(pause(old, DAY), Some(Duration::from_secs(7)));
        assert_eq!(pause(FailedAttempt { age: DAY, ..old }, DAY), None);
        assert_eq!(pause(after(1), Duration::ZERO), None);
    }

    proptest! {
        #[test]
        fn no_wait_is_shorter_than_its_step_or_longer_than_what_is_left(
            step in any::<u32>(),
            age in 0_u64..200_000,
            asked in proptest::option::of(any::<u64>()),
            jitter in any::<f64>(),
        ) {
            let age = Duration::from_secs(age);
            let retry_after = asked.map(Duration::from_secs);
            match pause(FailedAttempt { step, age, retry_after, jitter }, DAY) {
                Some(wait) => {
                    prop_assert!(wait <= DAY - age);
                    prop_assert!(wait >= STEPS[0].min(DAY - age));
                }
                None => prop_assert!(age >= DAY),
            }
        }
    }
}
