//! Warns when the wall clock was set, and stores the state of the steady clock for the next
//! process.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::drivers::store::Database;

/// How often the wall clock is checked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the state of the steady clock is stored.
const KEEP_EVERY: Duration = Duration::from_secs(60);
/// How soon storing is tried again after a failure.
const KEEP_AGAIN: Duration = Duration::from_secs(5);

/// Runs until `cancel`.
pub(super) async fn watch(database: Database, cancel: CancellationToken) -> &'static str {
    let mut keep_at = Instant::now() + KEEP_EVERY;
    let mut has_failed = false;
    loop {
        if let Some(jump) = database.clock().look() {
            warn!("The wall clock was {jump}; retention and notifications are not affected");
            keep_at = Instant::now();
        }
        let is_last = cancel.is_cancelled();
        // We do not wait for a database server that is unreachable.
        if (is_last || keep_at <= Instant::now()) && !database.is_away() {
            let kept = database.keep_clock().await;
            let pause = if kept.is_ok() { KEEP_EVERY } else { KEEP_AGAIN };
            keep_at = Instant::now() + pause;
            if let Err(error) = &kept {
                database.notice(error);
                if !has_failed {
                    warn!("The state of the clock cannot be stored: {error}");
                }
            }
            has_failed = kept.is_err();
        }
        if is_last {
            return "clock";
        }
        cancel.run_until_cancelled(sleep(LOOK_EVERY)).await;
    }
}
