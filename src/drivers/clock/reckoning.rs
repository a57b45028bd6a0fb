//! The arithmetic of the steady clock: the time after a restart, and what counts as a jump. Pure.

use std::{fmt, time::Duration};

use aftertone_core::model::{SteadyMillis, UnixMillis};

/// The state of the steady clock that the next process continues from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockState {
    /// The kernel's id of this start of the machine; `None` when it cannot be read.
    pub boot_id: Option<String>,
    /// Steady time minus CLOCK_BOOTTIME, in milliseconds; valid until the machine is restarted.
    pub offset_ms: i64,
    /// The newest time that the clock has returned.
    pub seen: SteadyMillis,
    /// Wall time minus steady time, in milliseconds.
    pub lag_ms: i64,
}

/// A reading of the machine's clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reading {
    pub boot_id: Option<String>,
    /// CLOCK_BOOTTIME.
    pub uptime_ms: i64,
    pub wall: UnixMillis,
}

/// A jump: the wall clock was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallClockJump {
    /// The size in milliseconds; negative when the clock was set back.
    pub by_ms: i64,
}

/// A smaller step of the wall clock is a correction, such as one by NTP, and no jump.
const JUMP_MS: i64 = 2000;

/// Steady time minus CLOCK_BOOTTIME, in milliseconds, for a process that starts at `now`.
pub(super) fn offset_ms(kept: Option<&ClockState>, now: &Reading) -> i64 {
    let Some(kept) = kept else {
        return now.wall.0.saturating_sub(now.uptime_ms);
    };
    let is_same_boot = kept.boot_id.is_some() && kept.boot_id == now.boot_id;
    // A virtual machine that was restored from a snapshot has the same id at an earlier time.
    if is_same_boot && now.uptime_ms.saturating_add(kept.offset_ms) >= kept.seen.0 {
        return kept.offset_ms;
    }
    // Only the wall clock tells how long the machine was off. A machine without a real-time clock
    // starts in the past: then steady time continues from the newest stored time.
    let by_wall = now.wall.0.saturating_sub(kept.lag_ms);
    by_wall.max(kept.seen.0).saturating_sub(now.uptime_ms)
}

/// The jump of a wall clock that was `before` ms ahead of steady time, and is `after` ms ahead now.
pub(super) fn jump(before: i64, after: i64) -> Option<WallClockJump> {
    let by_ms = after.saturating_sub(before);
    (by_ms.saturating_abs() > JUMP_MS).then_some(WallClockJump { by_ms })
}

impl fmt::Display for WallClockJump {
    /// For example "set back by 1h".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = if self.by_ms < 0 { "back" } else { "forward" };
        // Rounded: the two readings of the clock are not exact to the millisecond.
        let seconds = self.by_ms.unsigned_abs().saturating_add(500) / 1000;
        let size = humantime::format_duration(Duration::from_secs(seconds));
        write!(f, "set {direction} by {size}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;
    /// In 2026.
    const NOW: i64 = 1_767_225_600_000;

    fn kept(boot_id: &str) -> ClockState {
        ClockState {
            boot_id: Some(boot_id.to_owned()),
            offset_ms: NOW - HOUR,
            seen: SteadyMillis(NOW),
            lag_ms: 0,
        }
    }

    /// The steady time of the first moment of a process.
    fn begins(kept: Option<&ClockState>, boot_id: Option<&str>, uptime_ms: i64, wall: i64) -> i64 {
        let boot_id = boot_id.map(str::to_owned);
        let now = Reading { boot_id, uptime_ms, wall: UnixMillis(wall) };
        offset_ms(kept, &now) + uptime_ms
    }

    #[test]
    fn the_first_start_begins_with_the_wall_clock() {
        assert_eq!(begins(None, Some("one"), HOUR, NOW), NOW);
    }

    #[test]
    fn a_clock_that_is_set_while_the_daemon_is_stopped_does_no_harm() {
        for wall in [NOW - HOUR, NOW, NOW + DAY] {
            assert_eq!(begins(Some(&kept("one")), Some("one"), HOUR + 5, wall), NOW + 5);
        }
    }

    #[test]
    fn the_wall_clock_tells_how_long_the_machine_was_off() {
        let before = ClockState { lag_ms: DAY, ..kept("one") };
        assert_eq!(begins(Some(&before), Some("two"), 7, NOW + DAY + HOUR), NOW + HOUR);
        // Without the id, the machine may have been restarted.
        let unnamed = ClockState { boot_id: None, ..before };
        assert_eq!(begins(Some(&unnamed), None, HOUR + 5, NOW + DAY + HOUR), NOW + HOUR);
    }

    #[test]
    fn a_machine_that_always_starts_in_1970_goes_on_where_it_was() {
        let mut before = kept("zero");
        for start in 1..=3_i64 {
            let boot_id = format!("boot {start}");
            let time = begins(Some(&before), Some(&boot_id), 20_000, 0);
            assert_eq!(time, before.seen.0, "start {start}");
            // The state is kept a minute later, before the wall clock is set.
            before = ClockState {
                boot_id: Some(boot_id),
                offset_ms: time - 20_000,
                seen: SteadyMillis(time + 60_000),
                lag_ms: -time,
            };
            assert_eq!(begins(Some(&before), Some("next"), 20_000, 0), time + 60_000);
        }
    }

    #[test]
    fn a_machine_that_is_put_back_to_an_earlier_state_goes_on_where_it_was() {
        let time = begins(Some(&kept("one")), Some("one"), HOUR - 5000, NOW - 5000);
        assert_eq!(time, NOW);
        assert_eq!(begins(Some(&kept("one")), Some("one"), HOUR - 5000, NOW + DAY), NOW + DAY);
    }

    #[test]
    fn jumps_are_told_in_words_and_small_steps_are_not() {
        let told = |before, after| jump(before, after).map(|jump| jump.to_string());
        assert_eq!(told(5, 5 - HOUR).unwrap(), "set back by 1h");
        assert_eq!(told(0, DAY + 3).unwrap(), "set forward by 1day");
        assert_eq!(told(0, -90_400).unwrap(), "set back by 1m 30s");
        assert_eq!(told(0, 1999), None);
        assert_eq!(told(0, -2000), None);
    }

    proptest! {
        #[test]
        fn a_start_never_goes_back(
            kept in (any::<bool>(), any::<i64>(), any::<i64>(), any::<i64>()),
            uptime_ms in 0..i64::MAX / 4,
            wall in 0..i64::MAX / 4,
        ) {
            let (is_same, offset_ms, seen, lag_ms) = kept;
            let boot_id = Some(if is_same { "one" } else { "two" }.to_owned());
            // Sums of these do not overflow.
            let seen = SteadyMillis(seen / 4);
            let kept = ClockState { boot_id, offset_ms: offset_ms / 4, seen, lag_ms: lag_ms / 4 };
            prop_assert!(begins(Some(&kept), Some("one"), uptime_ms, wall) >= seen.0);
        }
    }
}
