//! The steady clock of a database, which counts all its deadlines and ages.

use sqlx::{AnyPool, Row};
use tracing::warn;

use crate::drivers::clock::{Clock, ClockState};
use aftertone_core::model::SteadyMillis;

use super::{Database, StoreError, rows::column_text};

impl Database {
    /// Stores the state of the clock for the next process. Must be called about once a minute, when
    /// the wall clock was set, and at a stop.
    ///
    /// # Errors
    /// The database failed.
    pub async fn keep_clock(&self) -> Result<(), StoreError> {
        keep(self.clock(), self.writer()).await
    }
}

/// The clock of the database, which continues from the state that the last process has stored.
pub(super) async fn resume(writer: &AnyPool) -> Result<Clock, StoreError> {
    let row = sqlx::query("SELECT boot_id, offset_ms, seen, lag_ms FROM clock")
        .fetch_optional(writer)
        .await?;
    let kept = match row {
        None => None,
        Some(row) => Some(ClockState {
            boot_id: row.try_get("boot_id")?,
            offset_ms: row.try_get("offset_ms")?,
            seen: SteadyMillis(row.try_get("seen")?),
            lag_ms: row.try_get("lag_ms")?,
        }),
    };
    let clock = Clock::resume(kept.as_ref()).map_err(StoreError::NoClock)?;
    if let Err(error) = keep(&clock, writer).await {
        // For example on a full disk. The daemon tries it again later.
        warn!("The state of the clock cannot be stored yet: {error}");
    }
    Ok(clock)
}

async fn keep(clock: &Clock, writer: &AnyPool) -> Result<(), StoreError> {
    let state = clock.state();
    sqlx::query(
        "INSERT INTO clock (id, boot_id, offset_ms, seen, lag_ms) VALUES (1, $1, $2, $3, $4) \
         ON CONFLICT (id) DO UPDATE SET boot_id = excluded.boot_id, \
         offset_ms = excluded.offset_ms, seen = excluded.seen, lag_ms = excluded.lag_ms",
    )
    .bind(state.boot_id.as_deref().map(column_text))
    .bind(state.offset_ms)
    .bind(state.seen.0)
    .bind(state.lag_ms)
    .execute(writer)
    .await?;
    Ok(())
}
