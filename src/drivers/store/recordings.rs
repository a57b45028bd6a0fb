//! One row for each clip, written before its first byte and deleted after its last one.
//!
//! ```text
//! writing --> ready ----> deleting --> (no row)
//!    \                      ^  ^
//!     `----> discarded -----'  |  a person or the retention time
//! ```

use std::collections::HashMap;

use sqlx::{AnyConnection, Row, any::AnyRow};

use aftertone_core::model::{
    CallId, OperationId, RecordingChange, RecordingId, SteadyMillis, UnixMillis,
};

use super::{
    Database, StoreError, calls,
    expiry::PURGE_LEEWAY,
    rows::{column_text, parsed},
};

/// The row of a clip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingRow {
    /// The clip.
    pub id: RecordingId,
    /// Its call.
    pub call: CallId,
    /// Its operation.
    pub operation: OperationId,
    /// Name of the application that owns it; `None` for a built-in line.
    pub application: Option<String>,
    /// The state of the clip.
    pub state: RecordingState,
    /// Size of the file in bytes; 0 until it is ready.
    pub bytes: u64,
    /// When it began, by the wall clock.
    pub created_at: UnixMillis,
    /// When it will be purged; `None` while its call lives, zero for a clip that must be deleted at
    /// once.
    pub expires_at: Option<SteadyMillis>,
}

/// The state of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordingState {
    /// The clip is being written.
    Writing,
    /// The clip is complete and safe.
    Ready,
    /// The clip is not wanted; its bytes, if any, may be deleted.
    Discarded,
    /// Its bytes are being deleted, or were when the process died.
    Deleting,
}

impl Database {
    /// Finds the row of a clip.
    ///
    /// # Errors
    /// The database failed, or the row cannot be read.
    pub async fn recording(&self, id: RecordingId) -> Result<Option<RecordingRow>, StoreError> {
        let row = sqlx::query("SELECT * FROM recordings WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(self.reader())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Marks up to `limit` clips that have expired at `now` as being deleted, before their first
    /// bytes are deleted: those that are the longest overdue. Returns them as they are now. From
    /// now on they are due. A clip that is still being written becomes due when that ends.
    ///
    /// # Errors
    /// The database failed, or a row cannot be read.
    pub async fn mark_due(
        &self,
        now: SteadyMillis,
        limit: u32,
    ) -> Result<Vec<RecordingRow>, StoreError> {
        let rows = sqlx::query(
            "UPDATE recordings SET state = 'deleting', expires_at = 0 WHERE id IN \
             (SELECT id FROM recordings WHERE expires_at <= $1 AND state <> 'writing' \
             ORDER BY expires_at, id LIMIT $2) RETURNING *",
        )
        .bind(now.0)
        .bind(i64::from(limit))
        .fetch_all(self.writer())
        .await?;
        rows.iter().map(read).collect()
    }

    /// When the next clip is due; in the past when one is due already.
    ///
    /// # Errors
    /// The database failed.
    pub async fn next_due(&self) -> Result<Option<SteadyMillis>, StoreError> {
        let (next,): (Option<i64>,) =
            sqlx::query_as("SELECT MIN(expires_at) FROM recordings WHERE state <> 'writing'")
                .fetch_one(self.reader())
                .await?;
        Ok(next.map(SteadyMillis))
    }

    /// All clips that were never finished, oldest first: they must be repaired at the start.
    ///
    /// # Errors
    /// The database failed, or a row cannot be read.
    pub async fn unfinished(&self) -> Result<Vec<RecordingRow>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM recordings WHERE state = 'writing' ORDER BY created_at, id")
                .fetch_all(self.reader())
                .await?;
        rows.iter().map(read).collect()
    }

    /// The states of all clips that have rows.
    ///
    /// # Errors
    /// The database failed, or a row cannot be read.
    pub async fn recording_states(
        &self,
    ) -> Result<HashMap<RecordingId, RecordingState>, StoreError> {
        let rows = sqlx::query("SELECT id, state FROM recordings").fetch_all(self.reader()).await?;
        rows.iter().map(|row| Ok((parsed(row, "id")?, parsed(row, "state")?))).collect()
    }

    /// Lets the purge delete a clip now. Returns whether there is such a clip.
    ///
    /// # Errors
    /// The database failed. The clip may be marked nevertheless, and is deleted then.
    pub async fn delete_now(&self, id: RecordingId) -> Result<bool, StoreError> {
        let _announced = self.expiry().announce_when_dropped();
        let done =
            sqlx::query("UPDATE recordings SET state = 'deleting', expires_at = 0 WHERE id = $1")
                .bind(id.to_string())
                .execute(self.writer())
                .await?;
        self.expiry().announce(SteadyMillis(0));
        Ok(done.rows_affected() > 0)
    }

    /// Postpones a clip with bytes that could not be deleted: it is due again at `at`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn postpone(&self, id: RecordingId, at: SteadyMillis) -> Result<(), StoreError> {
        sqlx::query("UPDATE recordings SET expires_at = $2 WHERE id = $1 AND state = 'deleting'")
            .bind(id.to_string())
            .bind(at.0)
            .execute(self.writer())
            .await?;
        Ok(())
    }

    /// Deletes the row of a clip after its bytes are gone; does nothing when there is none.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget(&self, id: RecordingId) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM recordings WHERE id = $1")
            .bind(id.to_string())
            .execute(self.writer())
            .await?;
        self.deleted(done.rows_affected());
        Ok(())
    }
}

/// Writes a change; returns when rows are due because of it.
pub(super) async fn write(
    db: &mut AnyConnection,
    change: &RecordingChange,
    now: SteadyMillis,
) -> Result<Option<SteadyMillis>, StoreError> {
    match change {
        RecordingChange::Begun { id, call, operation, application, at } => {
            sqlx::query(
                "INSERT INTO recordings \
                 (id, call_id, operation_id, application, state, created_at) \
                 VALUES ($1, $2, $3, $4, 'writing', $5) ON CONFLICT (id) DO NOTHING",
            )
            .bind(id.to_string())
            .bind(call.to_string())
            .bind(operation.to_string())
            .bind(column_text(application.as_deref().unwrap_or_default()))
            .bind(at.0)
            .execute(db)
            .await?;
            Ok(None)
        }
        // A clip that is already being deleted stays so.
        RecordingChange::Finished { id, bytes } => {
            let finished: Option<(Option<i64>,)> = sqlx::query_as(
                "UPDATE recordings SET state = 'ready', bytes = $2 \
                 WHERE id = $1 AND state = 'writing' RETURNING expires_at",
            )
            .bind(id.to_string())
            .bind(i64::try_from(*bytes).unwrap_or(i64::MAX))
            .fetch_optional(db)
            .await?;
            Ok(finished.and_then(|(expires_at,)| expires_at).map(SteadyMillis))
        }
        RecordingChange::Discarded { id } => {
            sqlx::query(
                "UPDATE recordings SET state = 'discarded', expires_at = 0 \
                 WHERE id = $1 AND state <> 'deleting'",
            )
            .bind(id.to_string())
            .execute(db)
            .await?;
            Ok(Some(now.plus(PURGE_LEEWAY)))
        }
        // A clip that must be deleted at once keeps its time.
        RecordingChange::Expire { call, ended_at, retention } => {
            calls::write_end(db, *call, *ended_at).await?;
            let expires_at = ended_at.plus(*retention);
            sqlx::query(
                "UPDATE recordings SET expires_at = $2 \
                 WHERE call_id = $1 AND state IN ('writing', 'ready')",
            )
            .bind(call.to_string())
            .bind(expires_at.0)
            .execute(db)
            .await?;
            Ok(Some(expires_at))
        }
    }
}

fn read(row: &AnyRow) -> Result<RecordingRow, StoreError> {
    let application: String = row.try_get("application")?;
    Ok(RecordingRow {
        id: parsed(row, "id")?,
        call: parsed(row, "call_id")?,
        operation: parsed(row, "operation_id")?,
        // A built-in line has an empty name.
        application: Some(application).filter(|name| !name.is_empty()),
        state: parsed(row, "state")?,
        bytes: u64::try_from(row.try_get::<i64, _>("bytes")?).unwrap_or(0),
        created_at: UnixMillis(row.try_get("created_at")?),
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(SteadyMillis),
    })
}

/// The word in the column is not a state of a recording.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a state of a recording")]
pub struct NotAState(pub String);

impl std::str::FromStr for RecordingState {
    type Err = NotAState;

    fn from_str(text: &str) -> Result<Self, NotAState> {
        match text {
            "writing" => Ok(Self::Writing),
            "ready" => Ok(Self::Ready),
            "discarded" => Ok(Self::Discarded),
            "deleting" => Ok(Self::Deleting),
            other => Err(NotAState(other.to_owned())),
        }
    }
}
