//! Calls and their operations.

use std::{collections::BTreeMap, time::Duration};

use sqlx::AnyConnection;

use aftertone_core::model::{Call, CallId, CallState, Operation, OperationStatus, SteadyMillis};

use super::{
    Database, StoreError,
    rows::{column_text, decode, encode},
};

/// A call that the last process left unfinished, with those of its operations that never ended.
#[derive(Debug, Clone, PartialEq)]
pub struct UnfinishedCall {
    /// The call as last stored.
    pub call: Call,
    /// Its operations without an end, in the order in which they were accepted.
    pub operations: Vec<Operation>,
}

impl Database {
    /// Finds a call.
    ///
    /// # Errors
    /// The database failed, or the row cannot be read.
    pub async fn call(&self, id: CallId) -> Result<Option<Call>, StoreError> {
        let row: Option<(String,)> = sqlx::query_as("SELECT body FROM calls WHERE id = $1")
            .bind(id.to_string())
            .fetch_optional(self.reader())
            .await?;
        row.map(|(body,)| decode("calls", id.to_string(), &body)).transpose()
    }

    /// All operations of a call, in the order in which they were accepted.
    ///
    /// # Errors
    /// The database failed, or a row cannot be read.
    pub async fn operations(&self, call: CallId) -> Result<Vec<Operation>, StoreError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("SELECT id, body FROM operations WHERE call_id = $1 ORDER BY place")
                .bind(call.to_string())
                .fetch_all(self.reader())
                .await?;
        rows.into_iter().map(|(id, body)| decode("operations", id, &body)).collect()
    }

    /// All calls that are not terminated, oldest first: they must be ended at the start.
    ///
    /// # Errors
    /// The database failed, or a row cannot be read.
    pub async fn unfinished_calls(&self) -> Result<Vec<UnfinishedCall>, StoreError> {
        let calls: Vec<(String, String)> =
            sqlx::query_as("SELECT id, body FROM calls WHERE state <> $1 ORDER BY created_at, id")
                .bind(state_name(CallState::Terminated))
                .fetch_all(self.reader())
                .await?;
        let operations: Vec<(String, String)> = sqlx::query_as(
            "SELECT o.id, o.body FROM operations o JOIN calls c ON c.id = o.call_id \
             WHERE c.state <> $1 AND o.status IN ($2, $3) ORDER BY o.call_id, o.place",
        )
        .bind(state_name(CallState::Terminated))
        .bind(status_name(OperationStatus::NotStarted))
        .bind(status_name(OperationStatus::Running))
        .fetch_all(self.reader())
        .await?;

        let mut by_call: BTreeMap<CallId, Vec<Operation>> = BTreeMap::new();
        for (id, body) in operations {
            let operation: Operation = decode("operations", id, &body)?;
            by_call.entry(operation.call).or_default().push(operation);
        }
        calls
            .into_iter()
            .map(|(id, body)| {
                let call: Call = decode("calls", id, &body)?;
                let operations = by_call.remove(&call.id).unwrap_or_default();
                Ok(UnfinishedCall { call, operations })
            })
            .collect()
    }

    /// Deletes all calls that ended before `before`, with their operations and their given-up
    /// notifications. A call that still has a recording or a notification to send stays. A call
    /// with given-up notifications stays until these are older than `given_up_before`. Returns how
    /// many calls were deleted.
    ///
    /// # Errors
    /// The database failed.
    pub async fn purge_calls(
        &self,
        before: SteadyMillis,
        given_up_before: SteadyMillis,
    ) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM calls WHERE state = $1 AND ended_at < $2 \
             AND NOT EXISTS (SELECT 1 FROM recordings r WHERE r.call_id = calls.id) \
             AND NOT EXISTS \
             (SELECT 1 FROM outbox o WHERE o.call_id = calls.id \
             AND (o.state = 'pending' OR o.created_at >= $3))",
        )
        .bind(state_name(CallState::Terminated))
        .bind(before.0)
        .bind(given_up_before.0)
        .execute(self.writer())
        .await?;
        self.deleted(done.rows_affected());
        Ok(done.rows_affected())
    }

    /// After how long [`Self::purge_calls`], with times that have advanced as far, may find more.
    /// Not counted are calls that wait for a recording, which is due before, or for a pending
    /// notification, whose end is announced ([`super::Expiry`]).
    ///
    /// # Errors
    /// The database failed.
    pub async fn next_call_due(
        &self,
        before: SteadyMillis,
        given_up_before: SteadyMillis,
    ) -> Result<Option<Duration>, StoreError> {
        let (ended, given_up): (Option<i64>, Option<i64>) = sqlx::query_as(
            "SELECT (SELECT MIN(ended_at) FROM calls WHERE state = $1 AND ended_at >= $2), \
             (SELECT MIN(o.created_at) FROM calls c JOIN outbox o ON o.call_id = c.id \
             WHERE c.state = $1 AND c.ended_at < $2 \
             AND o.state = 'given_up' AND o.created_at >= $3)",
        )
        .bind(state_name(CallState::Terminated))
        .bind(before.0)
        .bind(given_up_before.0)
        .fetch_one(self.reader())
        .await?;
        let until = |at: Option<i64>, from| at.map(|at| SteadyMillis(at).since(from));
        let all = [until(ended, before), until(given_up, given_up_before)];
        Ok(all.into_iter().flatten().min())
    }
}

pub(super) async fn write_call(db: &mut AnyConnection, call: &Call) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO calls (id, application, state, created_at, body) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO UPDATE SET \
         application = excluded.application, state = excluded.state, body = excluded.body",
    )
    .bind(call.id.to_string())
    .bind(column_text(call.application.as_deref().unwrap_or_default()))
    .bind(state_name(call.state))
    .bind(call.created_at.0)
    .bind(encode(call)?)
    .execute(db)
    .await?;
    Ok(())
}

/// Stores when a call ended: its age is counted from then.
pub(super) async fn write_end(
    db: &mut AnyConnection,
    call: CallId,
    at: SteadyMillis,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE calls SET ended_at = $2 WHERE id = $1")
        .bind(call.to_string())
        .bind(at.0)
        .execute(db)
        .await?;
    Ok(())
}

pub(super) async fn write_operation(
    db: &mut AnyConnection,
    operation: &Operation,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO operations (id, call_id, status, created_at, ended_at, place, body) \
         VALUES ($1, $2, $3, $4, $5, \
         (SELECT COALESCE(MAX(place), 0) + 1 FROM operations WHERE call_id = $2), $6) \
         ON CONFLICT (id) DO UPDATE SET \
         status = excluded.status, ended_at = excluded.ended_at, body = excluded.body",
    )
    .bind(operation.id.to_string())
    .bind(operation.call.to_string())
    .bind(status_name(operation.status))
    .bind(operation.created_at.0)
    .bind(operation.ended_at.map(|at| at.0))
    .bind(encode(operation)?)
    .execute(db)
    .await?;
    Ok(())
}

fn state_name(state: CallState) -> &'static str {
    match state {
        CallState::Incoming => "incoming",
        CallState::Establishing => "establishing",
        CallState::Ringing => "ringing",
        CallState::Established => "established",
        CallState::Transferring => "transferring",
        CallState::TransferAccepted => "transferAccepted",
        CallState::Terminating => "terminating",
        CallState::Terminated => "terminated",
    }
}

fn status_name(status: OperationStatus) -> &'static str {
    match status {
        OperationStatus::NotStarted => "notStarted",
        OperationStatus::Running => "running",
        OperationStatus::Completed => "completed",
        OperationStatus::Failed => "failed",
    }
}
