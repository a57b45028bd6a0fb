//! Recovery after a crash of the process or of a call's task: ends the calls that were left,
//! announces their ends, and sets the retention of their clips.

use std::{collections::HashMap, time::Duration};

use tracing::{error, info, warn};

use super::drivers::{Drivers, now};
use crate::drivers::{
    recordings::{RecoverError, Recovered, Vault},
    store::{Database, Journal, RecordingRow, StoreError},
};
use aftertone_core::{
    audio::tape::SafeClip,
    call::recovery::{LeftClip, end_lost_call},
    model::{CallId, Change, OperationId, RecordingChange, Termination},
};

/// Why recovery failed. The daemon does not start when the state of earlier calls is unknown.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The database failed.
    #[error("cannot put the database in order: {0}")]
    Store(#[from] StoreError),
    /// The folder of the clips failed.
    #[error("cannot put the recordings in order: {0}")]
    Recordings(#[from] RecoverError),
    /// The journal took no more changes, although nothing else writes at this time.
    #[error("the journal does not take changes")]
    Journal,
}

/// How long the journal may take to flush what a failed task has left in it.
const FLUSH: Duration = Duration::from_secs(10);
/// How often we try to commit the end of a lost call. The pause doubles after each attempt,
/// starting with `FIRST_PAUSE`: half a minute in total.
const ATTEMPTS: u32 = 7;
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// Repairs clips that were being written, ends calls that were in progress, and commits the
/// notifications about both. Each call is one commit, so it is safe to repeat this after another
/// crash.
///
/// # Errors
/// The database or the folder of the clips cannot be read or written.
pub async fn recover(
    database: &Database,
    journal: &Journal,
    vault: &Vault,
    retention: Duration,
) -> Result<(), RecoveryError> {
    let now = now(database.clock());
    let rows = database.unfinished().await?;
    let found = vault.recover(database, &rows).await?;
    let mut clips: HashMap<_, Vec<LeftClip>> = HashMap::new();
    for row in rows {
        let kept = found.iter().find_map(|recovered| match recovered {
            Recovered::Kept { id, bytes, samples } if *id == row.id => {
                Some(SafeClip { bytes: *bytes, samples: *samples, is_cut_short: false })
            }
            _ => None,
        });
        clips.entry(row.call).or_default().push(left_clip(&row, kept));
    }
    let mut changes = Vec::new();
    for unfinished in database.unfinished_calls().await? {
        let left = clips.remove(&unfinished.call.id).unwrap_or_default();
        warn!(
            call.id = %unfinished.call.id,
            operations = unfinished.operations.len(),
            clips = left.iter().filter(|clip| clip.kept.is_some()).count(),
            "A call was up when the server was lost; it is ended now"
        );
        let (call, operations) = (unfinished.call, unfinished.operations);
        changes.push(end_lost_call(call, operations, &left, Termination::NodeLost, now, retention));
    }
    // Clips of calls that have already ended: no notification names them, so they are discarded.
    for clip in clips.into_values().flatten() {
        changes.push(Change {
            recordings: vec![RecordingChange::Discarded { id: clip.id }],
            ..Change::default()
        });
    }
    let count = changes.len();
    for change in changes {
        let commit = journal.submit(change).map_err(|_| RecoveryError::Journal)?;
        commit.await?;
    }
    if count > 0 {
        info!(changes = count, "The past is in order");
    }
    Ok(())
}

/// Ends a call whose task has failed, based only on what the store knows about it. `clips` holds
/// the saved clips of the task by operation.
pub(super) async fn end_lost(
    drivers: &Drivers,
    call: CallId,
    clips: &HashMap<OperationId, SafeClip>,
    retention: Duration,
) {
    let mut pause = FIRST_PAUSE;
    for _ in 0..ATTEMPTS {
        match try_end_lost(drivers, call, clips, retention).await {
            Ok(()) => return,
            Err(error) => warn!(%error, "the end of a lost call cannot be written down yet"),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    error!("The end of a lost call was not written down; it will be at the next start");
}

async fn try_end_lost(
    drivers: &Drivers,
    id: CallId,
    clips: &HashMap<OperationId, SafeClip>,
    retention: Duration,
) -> Result<(), RecoveryError> {
    let Drivers { database, journal, .. } = drivers;
    journal.flush(FLUSH).await?;
    let calls = database.unfinished_calls().await?;
    let Some(lost) = calls.into_iter().find(|unfinished| unfinished.call.id == id) else {
        return Ok(());
    };
    let rows = database.unfinished().await?;
    let own = rows.iter().filter(|row| row.call == id);
    let left: Vec<LeftClip> =
        own.map(|row| left_clip(row, clips.get(&row.operation).copied())).collect();
    let change = end_lost_call(
        lost.call,
        lost.operations,
        &left,
        Termination::Internal,
        drivers.now(),
        retention,
    );
    journal.submit(change).map_err(|_| RecoveryError::Journal)?.await?;
    Ok(())
}

fn left_clip(row: &RecordingRow, kept: Option<SafeClip>) -> LeftClip {
    let kept = kept.filter(|clip| clip.samples > 0);
    LeftClip {
        id: row.id,
        operation: row.operation,
        kept: kept.map(|clip| (clip.bytes, clip.duration_ms())),
    }
}
