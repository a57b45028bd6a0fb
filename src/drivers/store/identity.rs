//! The id that distinguishes this database from every other one.

use super::{Database, StoreError};

/// The id of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseIdentity {
    /// A UUID.
    pub id: String,
    /// Whether it was created just now.
    pub is_new: bool,
}

impl Database {
    /// The id of this database; created if there is none.
    ///
    /// # Errors
    /// The database failed.
    pub async fn identity(&self) -> Result<DatabaseIdentity, StoreError> {
        let row: Option<(String,)> =
            sqlx::query_as("SELECT id FROM identity").fetch_optional(self.reader()).await?;
        if let Some((id,)) = row {
            return Ok(DatabaseIdentity { id, is_new: false });
        }
        let id = uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string();
        sqlx::query("INSERT INTO identity (id) VALUES ($1)")
            .bind(id.clone())
            .execute(self.writer())
            .await?;
        Ok(DatabaseIdentity { id, is_new: true })
    }
}
