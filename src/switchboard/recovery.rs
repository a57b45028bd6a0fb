//! At start: what a process that died has left is ended, announced and given its time to live.

use std::{collections::HashMap, time::Duration};

use tracing::{info, warn};

use crate::{
    call::recovery::{LeftClip, end_lost_call},
    model::{Change, RecordingChange, UnixMillis},
    recordings::{RecoverError, Recovered, Vault},
    store::{Database, Journal, StoreError},
};

/// Why the past could not be put in order. The daemon does not start on an unknown past.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The database.
    #[error("cannot put the database in order: {0}")]
    Store(#[from] StoreError),
    /// The folder of the clips.
    #[error("cannot put the recordings in order: {0}")]
    Recordings(#[from] RecoverError),
    /// The journal took no more changes, at a time when nobody else writes.
    #[error("the journal does not take changes")]
    Journal,
}

/// Repairs clips that were being written, ends calls that were up, and commits what is told of
/// them. Doing it again after another crash does no harm: each call is one commit.
///
/// # Errors
/// The database or the folder cannot be read or written.
pub async fn recover(
    database: &Database,
    journal: &Journal,
    vault: &Vault,
    retention: Duration,
    now: UnixMillis,
) -> Result<(), RecoveryError> {
    let rows = database.unfinished().await?;
    let found = vault.recover(database, &rows).await?;
    let mut clips: HashMap<_, Vec<LeftClip>> = HashMap::new();
    for row in rows {
        let kept = found.iter().find_map(|recovered| match recovered {
            Recovered::Kept { id, bytes, samples } if *id == row.id && *samples > 0 => {
                Some((*bytes, samples / 16))
            }
            _ => None,
        });
        clips.entry(row.call).or_default().push(LeftClip {
            id: row.id,
            operation: row.operation,
            kept,
        });
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
        changes.push(end_lost_call(unfinished.call, unfinished.operations, &left, now, retention));
    }
    // Clips whose call is over all the same: nobody was or will be told of them.
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
