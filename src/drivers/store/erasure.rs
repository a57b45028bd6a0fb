//! Removes copies of deleted rows from SQLite's files.
//!
//! `secure_delete` overwrites a row when it is deleted, which is not enough: the WAL holds earlier
//! versions of pages, and a page that SQLite has split or joined keeps copies of rows that moved to
//! another page. After deletions the WAL is emptied, and at most once a minute the file is rebuilt
//! (`VACUUM`). Both also happen at the first sweep after a start, for rows that another process has
//! deleted, and when the database is closed. A file of more than [`REBUILD_BYTES`] is not rebuilt,
//! and may keep copies. PostgreSQL maintains its own files.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use sqlx::{Executor, Row};
use tracing::{debug, warn};

use super::{Database, StoreError, connections::discard, expiry::PURGE_LEEWAY};

/// Shortest time between two rebuilds, and the pause after one as a multiple of its duration:
/// nothing else can be written during a rebuild, so rebuilds take at most a hundredth of the time.
const REBUILD_EVERY: Duration = Duration::from_secs(60);
const REBUILD_SHARE: u32 = 100;
/// A larger file is not rebuilt.
const REBUILD_BYTES: i64 = 64 << 20;

impl Database {
    /// Removes copies of deleted rows, if there may be any; called after each purge. If a reader is
    /// in the way, or the last rebuild is too recent, a later call does it: returns the time until
    /// that call.
    ///
    /// # Errors
    /// The database failed.
    pub async fn erase_deleted(&self) -> Result<Option<Duration>, StoreError> {
        let Some(erasure) = self.erasure() else { return Ok(None) };
        let mut next_rebuild = erasure.next_rebuild.lock().await;
        let begun = Instant::now();
        if begun >= *next_rebuild && erasure.in_pages.swap(false, Ordering::Relaxed) {
            let rebuilt = self.rebuild().await;
            *next_rebuild =
                Instant::now() + REBUILD_EVERY.max(begun.elapsed().saturating_mul(REBUILD_SHARE));
            match rebuilt {
                Ok(()) => erasure.in_wal.store(true, Ordering::Relaxed),
                Err(error) => {
                    erasure.in_pages.store(true, Ordering::Relaxed);
                    self.notice(&error);
                    warn!("The database cannot be written anew, it is tried again: {error}");
                }
            }
        }
        let until_rebuild = next_rebuild.saturating_duration_since(Instant::now());
        drop(next_rebuild);
        if erasure.in_wal.swap(false, Ordering::Relaxed) {
            let is_empty = self.empty_wal().await;
            if !matches!(is_empty, Ok(true)) {
                erasure.in_wal.store(true, Ordering::Relaxed);
            }
            if !is_empty? {
                return Ok(Some(PURGE_LEEWAY));
            }
        }
        Ok(erasure.in_pages.load(Ordering::Relaxed).then_some(until_rebuild))
    }

    /// Notes that a query has deleted `rows` rows.
    pub(super) fn deleted(&self, rows: u64) {
        if let (Some(erasure), true) = (self.erasure(), rows > 0) {
            erasure.in_pages.store(true, Ordering::Relaxed);
            erasure.in_wal.store(true, Ordering::Relaxed);
            self.expiry().announce_soon();
        }
    }

    /// Like [`Self::erase_deleted`], but does not wait for the minute.
    pub(super) async fn erase_before_close(&self) {
        if let Some(erasure) = self.erasure() {
            *erasure.next_rebuild.lock().await = Instant::now();
        }
        if let Err(error) = self.erase_deleted().await {
            debug!("Rests of deleted rows stay until the next start: {error}");
        }
    }

    /// Rebuilds SQLite's file without free space, unless it is large.
    async fn rebuild(&self) -> Result<(), StoreError> {
        let (bytes,): (i64,) = sqlx::query_as(
            "SELECT c.page_count * s.page_size FROM pragma_page_count() c, pragma_page_size() s",
        )
        .fetch_one(self.reader())
        .await?;
        if bytes > REBUILD_BYTES {
            debug!(bytes, "The database is too large to be written anew");
            return Ok(());
        }
        let begun = Instant::now();
        let mut connection = self.writer().acquire().await?;
        if let Err(error) = connection.execute("VACUUM").await {
            discard(connection).await;
            return Err(error.into());
        }
        debug!(bytes, duration = ?begun.elapsed(), "The database was written anew");
        Ok(())
    }

    /// Moves SQLite's WAL into the database and empties it. Returns whether it is empty: a reader
    /// may prevent that.
    async fn empty_wal(&self) -> Result<bool, StoreError> {
        let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(self.writer()).await?;
        Ok(row.try_get::<i64, _>(0)? == 0)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    /// A text that is unique to each row.
    fn mark(number: u32) -> String {
        format!("+49157{number:07}!")
    }

    /// How many of `marks` are in the file.
    fn found(file: &Path, marks: &[u32]) -> usize {
        let bytes = fs::read(file).unwrap();
        let length = mark(0).len();
        let begins = bytes.windows(length).filter(|window| window.starts_with(b"+49157"));
        let found: std::collections::HashSet<&[u8]> = begins.collect();
        marks.iter().filter(|number| found.contains(mark(**number).as_bytes())).count()
    }

    /// Inserts, extends and deletes rows, so that SQLite splits and joins its pages.
    #[tokio::test(flavor = "multi_thread")]
    async fn rows_that_moved_between_pages_leave_no_copy_behind() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("moved.db");
        let database = Database::open(&format!("sqlite:{}", file.display())).await.unwrap();
        let mut rng = StdRng::seed_from_u64(7);
        let (mut live, mut gone) = (Vec::new(), Vec::new());
        let mut transaction = database.writer().begin().await.unwrap();
        for number in 0..12_000_u32 {
            let (draw, length) = (rng.random_range(0..100), rng.random_range(200..1_500));
            let query = if draw < 45 || live.is_empty() {
                live.push(number);
                sqlx::query(
                    "INSERT INTO calls (body, id, application, state, created_at) \
                     VALUES ($1, $2, 'bot', 'terminated', 1)",
                )
                .bind(format!("{}{}", mark(number), "b".repeat(length)))
                .bind(number.to_string())
            } else {
                let place = rng.random_range(0..live.len());
                match draw {
                    45..75 => sqlx::query("UPDATE calls SET body = body || $1 WHERE id = $2")
                        .bind("c".repeat(length / 5))
                        .bind(live[place].to_string()),
                    _ => {
                        gone.push(live.swap_remove(place));
                        sqlx::query("DELETE FROM calls WHERE id = $1")
                            .bind(gone[gone.len() - 1].to_string())
                    }
                }
            };
            query.execute(&mut *transaction).await.unwrap();
        }
        transaction.commit().await.unwrap();
        assert!(database.empty_wal().await.unwrap());
        let copies = found(&file, &gone);
        assert!(copies > 0, "without copies nothing is shown");

        database.deleted(1);
        database.erase_deleted().await.unwrap();
        assert_eq!(found(&file, &gone), 0, "there were {copies}");
        assert_eq!(found(&file, &live), live.len());
        let wal = fs::metadata(folder.path().join("moved.db-wal")).unwrap();
        assert_eq!(wal.len(), 0);
    }
}
