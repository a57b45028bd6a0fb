//! A sleep that counts the time for which the machine is suspended.
//!
//! Tokio's timers count CLOCK_MONOTONIC, which stands still meanwhile. A timerfd on CLOCK_BOOTTIME
//! wakes the process as soon as the machine runs again.

use std::{io, os::fd::OwnedFd, time::Duration};

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::net::unix::pipe;
use tracing::debug;

/// The sleep when there is no timerfd. It may be too short or too long for the caller, which looks
/// at the clock again.
const WITHOUT_TIMER: Duration = Duration::from_secs(1);

/// Sleeps for about `pause`; the caller checks the time afterwards.
pub(super) async fn sleep(pause: Duration) {
    if let Err(error) = sleep_by_timer(pause).await {
        // For example: the process has no free descriptor.
        debug!("No timer on CLOCK_BOOTTIME: {error}");
        tokio::time::sleep(pause.min(WITHOUT_TIMER)).await;
    }
}

async fn sleep_by_timer(pause: Duration) -> io::Result<()> {
    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?;
    timer.set(Expiration::OneShot(pause.into()), TimerSetTimeFlags::empty())?;
    // Of tokio's types that wait for a descriptor to be readable, this one is safe to make.
    let timer = pipe::Receiver::from_owned_fd_unchecked(OwnedFd::from(timer))?;
    timer.readable().await
}
