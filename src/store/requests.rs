//! Requests that bore an `Idempotency-Key`, and their first answers.

use sqlx::Row;

use crate::model::UnixMillis;

use super::{Database, StoreError};

/// The answer to a request, as far as it is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The `Location`.
    pub location: Option<String>,
    /// The JSON; empty without a body.
    pub body: String,
}

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestKey {
    /// Nothing: from now on it is this request's.
    New,
    /// It was this request's, which was answered so.
    Answered(KeptAnswer),
    /// It is this request's, which has no answer yet, or lost it with the process that had it.
    Unanswered,
    /// It was another request's.
    Taken,
}

impl Database {
    /// Takes a key for a request, unless it was taken before.
    ///
    /// # Errors
    /// The database failed.
    pub async fn begin_request(
        &self,
        application: &str,
        key: &str,
        fingerprint: &str,
        now: UnixMillis,
    ) -> Result<RequestKey, StoreError> {
        let inserted = sqlx::query(
            "INSERT INTO requests (application, key, fingerprint, created_at) \
             VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        )
        .bind(application.to_owned())
        .bind(key.to_owned())
        .bind(fingerprint.to_owned())
        .bind(now.0)
        .execute(self.writer())
        .await?;
        if inserted.rows_affected() == 1 {
            return Ok(RequestKey::New);
        }
        let row = sqlx::query(
            "SELECT fingerprint, status, location, body FROM requests \
             WHERE application = $1 AND key = $2",
        )
        .bind(application.to_owned())
        .bind(key.to_owned())
        .fetch_optional(self.writer())
        .await?;
        // It went in this very moment; whoever asks once more finds it free.
        let Some(row) = row else { return Ok(RequestKey::Unanswered) };
        if row.try_get::<String, _>("fingerprint")? != fingerprint {
            return Ok(RequestKey::Taken);
        }
        let Some(status) = row.try_get::<Option<i64>, _>("status")? else {
            return Ok(RequestKey::Unanswered);
        };
        Ok(RequestKey::Answered(KeptAnswer {
            status: u16::try_from(status).unwrap_or(500),
            location: row.try_get("location")?,
            body: row.try_get::<Option<String>, _>("body")?.unwrap_or_default(),
        }))
    }

    /// Keeps the answer to a request; without one the key is free again, since nothing was done.
    ///
    /// # Errors
    /// The database failed.
    pub async fn end_request(
        &self,
        application: &str,
        key: &str,
        answer: Option<&KeptAnswer>,
    ) -> Result<(), StoreError> {
        let query = match answer {
            None => sqlx::query("DELETE FROM requests WHERE application = $1 AND key = $2")
                .bind(application.to_owned())
                .bind(key.to_owned()),
            Some(answer) => sqlx::query(
                "UPDATE requests SET status = $3, location = $4, body = $5 \
                 WHERE application = $1 AND key = $2",
            )
            .bind(application.to_owned())
            .bind(key.to_owned())
            .bind(i64::from(answer.status))
            .bind(answer.location.clone())
            .bind(answer.body.clone()),
        };
        query.execute(self.writer()).await?;
        Ok(())
    }

    /// Forgets keys that were taken before `before`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn purge_requests(&self, before: UnixMillis) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM requests WHERE created_at < $1")
            .bind(before.0)
            .execute(self.writer())
            .await?;
        Ok(done.rows_affected())
    }
}
