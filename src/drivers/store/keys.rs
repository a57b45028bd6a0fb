//! The keys that sign our tokens.

use sqlx::Row;

use aftertone_core::model::SteadyMillis;

use super::{Database, StoreError};

/// A private key and its id.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKeyRow {
    /// Its id in tokens (`kid`).
    pub id: String,
    /// When it was created.
    pub created_at: SteadyMillis,
    /// The private key.
    pub pem: String,
}

impl std::fmt::Debug for SigningKeyRow {
    /// Leaves out the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKeyRow").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Database {
    /// All keys.
    ///
    /// # Errors
    /// The database failed.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKeyRow>, StoreError> {
        let rows = sqlx::query("SELECT id, created_at, pem FROM signing_keys ORDER BY created_at")
            .fetch_all(self.reader())
            .await?;
        let key = |row: &sqlx::any::AnyRow| {
            Ok(SigningKeyRow {
                id: row.try_get("id")?,
                created_at: SteadyMillis(row.try_get("created_at")?),
                pem: row.try_get("pem")?,
            })
        };
        rows.iter().map(key).collect()
    }

    /// Adds a key.
    ///
    /// # Errors
    /// The database failed.
    pub async fn add_signing_key(&self, key: &SigningKeyRow) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO signing_keys (id, created_at, pem) VALUES ($1, $2, $3)")
            .bind(key.id.clone())
            .bind(key.created_at.0)
            .bind(key.pem.clone())
            .execute(self.writer())
            .await?;
        Ok(())
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// The database failed.
    pub async fn drop_signing_key(&self, id: &str) -> Result<(), StoreError> {
        let done = sqlx::query("DELETE FROM signing_keys WHERE id = $1")
            .bind(id.to_owned())
            .execute(self.writer())
            .await?;
        self.deleted(done.rows_affected());
        Ok(())
    }
}
