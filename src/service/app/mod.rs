//! Starts all modules, connects them, and stops them in order. Only this module knows all the
//! others.

mod building;
mod daemon;
mod error_text;
mod reload;
mod rendering;
mod settings;
mod token;
mod wall_clock;

use std::{path::PathBuf, time::Duration};

use anyhow::anyhow;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

pub use self::{
    daemon::Daemon,
    error_text::in_words,
    token::{MintError, mint_token},
};
use crate::service::{config::Config, telemetry::LogLevel};

/// How long the SIP endpoint may take to show that it is alive.
const ALIVE: Duration = Duration::from_secs(5);

/// Runs the daemon until it receives a signal to stop.
///
/// # Errors
/// The daemon cannot start, or a task that must not end has ended.
pub async fn serve(config: Config, file: Option<PathBuf>, log: LogLevel) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut daemon = Daemon::start(config.clone()).await?;
    daemon.announce(&config);
    tell_systemd(&[sd_notify::NotifyState::Ready]);
    let mut watchdog = watchdog_interval();
    let failed = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            _ = hang_up.recv() => {
                reload::reload(&daemon, file.as_deref(), &config, &log).await;
            }
            // The watchdog is notified only while the runtime works and the SIP endpoint answers.
            _ = watchdog.tick() => {
                if daemon.signalling.is_alive(ALIVE).await {
                    tell_systemd(&[sd_notify::NotifyState::Watchdog]);
                }
            }
            Some(ended) = daemon.tasks.join_next() => break Some(ended),
        }
    };
    if let Some(ended) = failed {
        return Err(anyhow!("a part that must not end has ended: {ended:?}"));
    }
    info!("Stopping: no new calls; a second signal stops at once");
    tell_systemd(&[sd_notify::NotifyState::Stopping]);
    tokio::select! {
        () = daemon.stop() => info!("Stopped"),
        _ = terminate.recv() => warn!("Stopped at once by a second signal"),
        _ = interrupt.recv() => warn!("Stopped at once by a second signal"),
    }
    Ok(())
}

fn tell_systemd(states: &[sd_notify::NotifyState<'_>]) {
    // Does nothing when systemd has not started us.
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell systemd");
    }
}

/// Half of the interval that systemd requires; one hour when the watchdog is off.
fn watchdog_interval() -> tokio::time::Interval {
    let period = sd_notify::watchdog_enabled().map_or(Duration::from_secs(3600), |time| time / 2);
    tokio::time::interval(period.max(Duration::from_millis(100)))
}
