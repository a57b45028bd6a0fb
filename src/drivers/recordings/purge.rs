//! Deletes expired data. For a clip, first the mark in the row, then the bytes, then the row;
//! repeated after a crash.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::Vault;
use crate::drivers::store::{Database, RecordingRow, StoreError};
use aftertone_core::model::SteadyMillis;

/// The task that deletes expired data.
pub struct Purge {
    database: Database,
    vault: Vault,
    wake: Arc<Notify>,
    retention: Duration,
}

/// Rows that are read at a time.
const BATCH: u32 = 256;
/// The longest sleep: calls end without waking this task, and a sleep does not count the time for
/// which the machine is suspended, while deadlines do.
const LONGEST: Duration = Duration::from_secs(1);
/// How long after their commit given-up notifications are kept, so that a client can list and
/// resend them.
const GIVEN_UP: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long the first answer to a request is kept, for a repetition with the same Idempotency-Key.
const KEYS: Duration = Duration::from_secs(24 * 3600);
/// Answers that are kept for each application.
const ANSWERS: u32 = 10_000;
/// Pause after a fault of the database.
const AFTER_FAULT: Duration = Duration::from_secs(5);
/// How long a clip that cannot be deleted is postponed.
const STUCK: Duration = Duration::from_secs(60);

impl Purge {
    /// A purge that also runs at once when `wake` is notified. The data of a call is deleted
    /// `retention` after its end.
    pub fn new(database: Database, vault: Vault, wake: Arc<Notify>, retention: Duration) -> Self {
        Self { database, vault, wake, retention }
    }

    /// Runs until `cancel`.
    pub async fn run(self, cancel: CancellationToken) {
        let mut faults = 0u32;
        while !cancel.is_cancelled() {
            let pause = match self.sweep(self.database.clock().now()).await {
                Ok(()) => {
                    faults = 0;
                    self.until_next_due().await
                }
                Err(error) => {
                    self.database.notice(&error);
                    faults += 1;
                    if faults.is_power_of_two() {
                        error!(%error, faults, "cannot purge; it is tried again");
                    }
                    AFTER_FAULT
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Deletes everything that is due. A failure of one kind of data does not stop the others.
    async fn sweep(&self, now: SteadyMillis) -> Result<(), StoreError> {
        let clips = self.sweep_clips(now).await;
        let before = now.minus(self.retention);
        let calls = self.database.purge_calls(before, now.minus(GIVEN_UP)).await;
        let requests = self.database.purge_requests(now.minus(KEYS), ANSWERS).await;
        // Until this, deleted rows are still in SQLite's files.
        let rests = self.database.erase_deleted().await;
        clips.and(calls.map(drop)).and(requests.map(drop)).and(rests)
    }

    async fn sweep_clips(&self, now: SteadyMillis) -> Result<(), StoreError> {
        loop {
            let due = self.database.due(now, BATCH).await?;
            if due.is_empty() {
                return Ok(());
            }
            for row in due {
                self.purge(&row, now).await?;
            }
        }
    }

    /// Deletes one clip. A clip that cannot be deleted is postponed, so that it does not hold up
    /// the others.
    async fn purge(&self, row: &RecordingRow, now: SteadyMillis) -> Result<(), StoreError> {
        self.database.mark_deleting(row.id).await?;
        match self.vault.delete(row.id).await {
            Ok(()) => {
                self.database.forget(row.id).await?;
                info!(recording.id = %row.id, call.id = %row.call, "Recording purged");
            }
            Err(error) => {
                error!(%error, recording.id = %row.id, "cannot delete a clip; it is tried again");
                self.database.postpone(row.id, now.plus(STUCK)).await?;
            }
        }
        Ok(())
    }

    async fn until_next_due(&self) -> Duration {
        match self.database.next_due().await {
            Ok(Some(due)) => {
                let now = self.database.clock().now();
                due.since(now).clamp(Duration::from_millis(20), LONGEST)
            }
            Ok(None) | Err(_) => LONGEST,
        }
    }
}
