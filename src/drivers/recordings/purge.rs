//! Deletes expired data. For a clip, first the mark in the row, then the bytes, then the row;
//! repeated after a crash.
//!
//! The purge sleeps until the next row is due. The store wakes it when a row is committed that is
//! due earlier, or when a row goes that has kept a call.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::Vault;
use crate::drivers::store::{Database, PURGE_LEEWAY, RecordingRow, StoreError};
use aftertone_core::model::SteadyMillis;

/// The task that deletes expired data.
pub struct Purge {
    database: Database,
    vault: Vault,
    retention: Duration,
}

/// Rows that are read at a time.
const BATCH: u32 = 256;
/// The shortest pause between two sweeps.
const SHORTEST: Duration = Duration::from_millis(20);
/// How long after their commit given-up notifications are kept, so that a client can list and
/// resend them.
const GIVEN_UP: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long the first answer to a request is kept, for a repetition with the same Idempotency-Key.
/// It is also the longest sleep: of the rows that are committed without an announcement, none is
/// due earlier.
const KEYS: Duration = Duration::from_secs(24 * 3600);
/// Answers that are kept for each application.
const ANSWERS: u32 = 10_000;
/// Pause after a fault of the database.
const AFTER_FAULT: Duration = Duration::from_secs(5);
/// How long a clip that cannot be deleted is postponed.
const STUCK: Duration = Duration::from_secs(60);

impl Purge {
    /// A purge that deletes the data of a call `retention` after its end.
    pub fn new(database: Database, vault: Vault, retention: Duration) -> Self {
        Self { database, vault, retention }
    }

    /// Runs until `cancel`.
    pub async fn run(self, cancel: CancellationToken) {
        let mut faults = 0u32;
        while !cancel.is_cancelled() {
            let swept = self.sweep().await;
            let pause = async {
                match swept {
                    Ok(next) => {
                        faults = 0;
                        self.database.expiry().until_due(next).await;
                    }
                    Err(error) => {
                        self.database.notice(&error);
                        faults += 1;
                        if faults.is_power_of_two() {
                            error!(%error, faults, "cannot purge; it is tried again");
                        }
                        tokio::time::sleep(AFTER_FAULT).await;
                    }
                }
            };
            cancel.run_until_cancelled(pause).await;
        }
    }

    /// Deletes everything that is due; returns when more is due. A failure of one kind of data does
    /// not stop the others.
    async fn sweep(&self) -> Result<SteadyMillis, StoreError> {
        // What is announced from here on may be committed too late for the queries below.
        self.database.expiry().forget_announced();
        let now = self.database.clock().now();
        let (before, given_up_before) = (now.minus(self.retention), now.minus(GIVEN_UP));
        let clips = self.sweep_clips(now).await;
        let calls = self.database.purge_calls(before, given_up_before).await;
        let requests = self.database.purge_requests(now.minus(KEYS), ANSWERS).await;
        // Until this, deleted rows are still in SQLite's files.
        let copies = self.database.erase_deleted().await;
        clips.and(calls.map(drop)).and(requests.map(drop))?;

        let copies = copies?.map(|pause| now.plus(pause));
        let clip = self.database.next_due().await?;
        let call = self.database.next_call_due(before, given_up_before).await?;
        let call = call.map(|pause| now.plus(pause).plus(PURGE_LEEWAY));
        let request = self.database.oldest_request().await?;
        let request = request.map(|taken| taken.plus(KEYS).plus(PURGE_LEEWAY));
        let next = [copies, clip, call, request].into_iter().flatten().min();
        let next = next.map_or(now.plus(KEYS), |next| next.min(now.plus(KEYS)));
        Ok(next.max(self.database.clock().now().plus(SHORTEST)))
    }

    /// Deletes all clips that are due. A clip that cannot be deleted is postponed, so that it does
    /// not hold up the others.
    async fn sweep_clips(&self, now: SteadyMillis) -> Result<(), StoreError> {
        loop {
            let marked = self.database.mark_due(now, BATCH).await?;
            if marked.is_empty() {
                return Ok(());
            }
            for RecordingRow { id, call, .. } in marked {
                match self.vault.delete(id).await {
                    Ok(()) => {
                        self.database.forget(id).await?;
                        info!(recording.id = %id, call.id = %call, "Recording purged");
                    }
                    Err(error) => {
                        error!(%error, recording.id = %id, "cannot delete a clip; it is tried again");
                        self.database.postpone(id, now.plus(STUCK)).await?;
                    }
                }
            }
        }
    }
}
