//! Files in `lost+found`, which belong to no recording, and the time of their last change.

use sqlx::Row;

use aftertone_core::model::{SteadyMillis, UnixMillis};

use super::{Database, StoreError, rows::column_text};

/// A file in `lost+found`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostFileRow {
    /// Its path relative to the folder of the clips.
    pub name: String,
    /// The file's modification time, by the wall clock of that time.
    pub modified: UnixMillis,
    /// The steady time of that change.
    pub since: SteadyMillis,
}

impl Database {
    /// All rows.
    ///
    /// # Errors
    /// The database failed.
    pub async fn lost_files(&self) -> Result<Vec<LostFileRow>, StoreError> {
        let rows = sqlx::query("SELECT name, modified, since FROM lost_files")
            .fetch_all(self.reader())
            .await?;
        let file = |row: &sqlx::any::AnyRow| {
            Ok(LostFileRow {
                name: row.try_get("name")?,
                modified: UnixMillis(row.try_get("modified")?),
                since: SteadyMillis(row.try_get("since")?),
            })
        };
        rows.iter().map(file).collect()
    }

    /// Writes the row of a file; it replaces an earlier one with the same name.
    ///
    /// # Errors
    /// The database failed.
    pub async fn note_lost_file(&self, file: &LostFileRow) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO lost_files (name, modified, since) VALUES ($1, $2, $3) \
             ON CONFLICT (name) DO UPDATE SET modified = excluded.modified, since = excluded.since",
        )
        .bind(column_text(&file.name))
        .bind(file.modified.0)
        .bind(file.since.0)
        .execute(self.writer())
        .await?;
        Ok(())
    }

    /// Deletes the row of a file that does not exist any more.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_lost_file(&self, name: &str) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM lost_files WHERE name = $1")
            .bind(column_text(name))
            .execute(self.writer())
            .await?;
        self.deleted(done.rows_affected());
        Ok(())
    }
}
