//! The steady clock: the time of deadlines. Setting the wall clock does not change it.
//!
//! In: CLOCK_BOOTTIME of Linux, which counts from the start of the machine, includes the time for
//! which the machine is suspended, and never jumps; the wall clock; and the state that an earlier
//! process has stored ([`ClockState`]). Out: the time ([`SteadyMillis`]), and jumps of the wall
//! clock ([`WallClockJump`]). The clock stores nothing itself; the database does, and its deadlines
//! are in this time. [`Clock::sleep_until`] waits for one of them.
//!
//! A new clock begins with the wall clock's time. After a restart of the process it continues by
//! CLOCK_BOOTTIME; after a restart of the machine by the wall clock, but never backwards.

mod alarm;
mod reckoning;

use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};

use nix::time::{ClockId, clock_gettime};

pub use reckoning::{ClockState, WallClockJump};
use reckoning::{Reading, jump, offset_ms};

use aftertone_core::model::{SteadyMillis, UnixMillis};

/// This file holds an id that the kernel makes at each start of the machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Longest time between two readings that count as simultaneous.
const ONE_MOMENT_MS: i64 = 100;

/// A running steady clock; cheap to clone.
#[derive(Debug, Clone)]
pub struct Clock {
    inner: Arc<ClockParts>,
}

#[derive(Debug)]
struct ClockParts {
    boot_id: Option<String>,
    /// Steady time minus CLOCK_BOOTTIME.
    offset_ms: i64,
    /// Wall time minus steady time, at the last call of [`Clock::look`].
    lag_ms: AtomicI64,
    /// The newest time that was returned.
    newest: AtomicI64,
}

impl Clock {
    /// A clock that continues from the state of an earlier process; without one, it begins with the
    /// wall clock's time.
    ///
    /// # Errors
    /// The system has no CLOCK_BOOTTIME.
    pub fn resume(kept: Option<&ClockState>) -> io::Result<Self> {
        let (uptime_ms, wall) = both()?;
        // Without the id, each start of the process counts as a start of the machine.
        let boot_id = fs::read_to_string(BOOT_ID).ok().map(|id| id.trim().to_owned());
        let reading = Reading { boot_id, uptime_ms, wall };
        let offset_ms = offset_ms(kept, &reading);
        let inner = ClockParts {
            boot_id: reading.boot_id,
            offset_ms,
            lag_ms: AtomicI64::new(kept.map_or(0, |kept| kept.lag_ms)),
            newest: AtomicI64::new(uptime_ms.saturating_add(offset_ms)),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The time; never less than an earlier result.
    pub fn now(&self) -> SteadyMillis {
        // `resume` has read CLOCK_BOOTTIME. If a later reading fails, the time stands still.
        let now = uptime_ms().map_or(i64::MIN, |at| at.saturating_add(self.inner.offset_ms));
        let newest = self.inner.newest.fetch_max(now, Ordering::Relaxed);
        SteadyMillis(newest.max(now))
    }

    /// Returns at `at`, or at once if that has passed. The time for which the machine is suspended
    /// counts.
    pub async fn sleep_until(&self, at: SteadyMillis) {
        loop {
            let pause = at.since(self.now());
            if pause.is_zero() {
                return;
            }
            alarm::sleep(pause).await;
        }
    }

    /// The wall time of a steady time, by the wall clock as it is set now.
    pub fn shown(&self, at: SteadyMillis) -> UnixMillis {
        let lag_ms = self.inner.lag_ms.load(Ordering::Relaxed);
        UnixMillis(at.0.saturating_add(lag_ms).max(0))
    }

    /// Compares the wall clock with the last call, or with the state of the last process: `Some`
    /// when it was set by more than 2 s. Smaller steps are adopted silently. Must be called about
    /// once a second.
    pub fn look(&self) -> Option<WallClockJump> {
        let (uptime_ms, wall) = both().ok()?;
        let steady = uptime_ms.saturating_add(self.inner.offset_ms);
        let lag_ms = wall.0.saturating_sub(steady);
        let before = self.inner.lag_ms.swap(lag_ms, Ordering::Relaxed);
        jump(before, lag_ms)
    }

    /// The state that the next process continues from.
    pub fn state(&self) -> ClockState {
        ClockState {
            boot_id: self.inner.boot_id.clone(),
            offset_ms: self.inner.offset_ms,
            seen: self.now(),
            lag_ms: self.inner.lag_ms.load(Ordering::Relaxed),
        }
    }
}

/// CLOCK_BOOTTIME in milliseconds.
fn uptime_ms() -> io::Result<i64> {
    let time = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME)?);
    i64::try_from(time.as_millis()).map_err(io::Error::other)
}

/// CLOCK_BOOTTIME in milliseconds, and the wall clock, at one moment. When the process had to wait
/// between the readings, or the machine was suspended, both are read again, up to four times.
fn both() -> io::Result<(i64, UnixMillis)> {
    let mut before = uptime_ms()?;
    for _ in 0..4 {
        let wall = UnixMillis::from(SystemTime::now());
        let after = uptime_ms()?;
        if after - before < ONE_MOMENT_MS {
            return Ok((after, wall));
        }
        before = after;
    }
    Ok((before, UnixMillis::from(SystemTime::now())))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_first_start_begins_with_the_wall_clock_and_a_restart_goes_on() {
        let clock = Clock::resume(None).unwrap();
        let wall = UnixMillis::from(SystemTime::now());
        assert!((clock.now().0 - wall.0).abs() < 1000);
        assert_eq!(clock.look(), None);
        // A state as if the clock had begun long ago, by a wall clock that was wrong.
        let state = ClockState { offset_ms: clock.state().offset_ms - 1_000_000, ..clock.state() };
        let seen = SteadyMillis(state.seen.0 - 1_000_000);
        let next = Clock::resume(Some(&ClockState { seen, ..state })).unwrap();
        let later = next.now();
        assert!((0..1000).contains(&(later.0 - seen.0)), "{later:?} after {seen:?}");
        let jump = next.look().unwrap();
        assert!((jump.by_ms - 1_000_000).abs() < 1000, "{jump:?}");
        assert_eq!(next.look(), None);
        assert!((next.shown(later).0 - wall.0).abs() < 1000);
    }

    #[test]
    fn it_counts_what_passes() {
        let clock = Clock::resume(None).unwrap();
        let before = clock.now();
        thread::sleep(Duration::from_millis(50));
        let passed = clock.now().since(before);
        assert!(passed >= Duration::from_millis(49), "{passed:?}");
    }

    #[tokio::test]
    async fn a_sleep_ends_at_its_time() {
        let clock = Clock::resume(None).unwrap();
        let begun = clock.now();
        clock.sleep_until(begun.minus(Duration::from_secs(1))).await;
        let end = begun.plus(Duration::from_millis(50));
        clock.sleep_until(end).await;
        let late = clock.now().since(end);
        assert!(clock.now() >= end && late < Duration::from_secs(5), "{late:?}");
    }
}
