//! Requests with an `Idempotency-Key`, and their first answers.

use sqlx::Row;

use aftertone_core::model::{Call, CallId, SteadyMillis};

use super::{Database, StoreError};

/// The part of an answer that is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The `Location`.
    pub location: Option<String>,
    /// The JSON body; empty without one.
    pub body: String,
}

/// The state of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum RequestKey {
    /// The key is new, and belongs to this request from now on.
    New,
    /// The key belongs to this request, and this was the answer.
    Answered(KeptAnswer),
    /// The key belongs to this request, which has placed this call; the process died before it
    /// answered.
    Placed(Box<Call>),
    /// The key belongs to this request, which has no answer yet.
    Unanswered,
    /// The key belongs to another request.
    Taken,
}

impl Database {
    /// Takes a key for a request, unless it was taken before. `call` is the id of the call that the
    /// request will place, if it places one.
    ///
    /// # Errors
    /// The database failed.
    pub async fn begin_request(
        &self,
        application: &str,
        key: &str,
        fingerprint: &str,
        call: Option<CallId>,
        now: SteadyMillis,
    ) -> Result<RequestKey, StoreError> {
        let inserted = sqlx::query(
            "INSERT INTO requests (application, key, fingerprint, created_at, call_id) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        )
        .bind(application.to_owned())
        .bind(key.to_owned())
        .bind(fingerprint.to_owned())
        .bind(now.0)
        .bind(call.map(|call| call.to_string()))
        .execute(self.writer())
        .await?;
        if inserted.rows_affected() == 1 {
            // It may be one more than is kept for its application.
            self.expiry().announce_soon();
            return Ok(RequestKey::New);
        }
        let row = sqlx::query(
            "SELECT fingerprint, status, location, body, call_id FROM requests \
             WHERE application = $1 AND key = $2",
        )
        .bind(application.to_owned())
        .bind(key.to_owned())
        .fetch_optional(self.writer())
        .await?;
        // The row was deleted at this moment; a repeated request finds the key free.
        let Some(row) = row else { return Ok(RequestKey::Unanswered) };
        if row.try_get::<String, _>("fingerprint")? != fingerprint {
            return Ok(RequestKey::Taken);
        }
        let Some(status) = row.try_get::<Option<i64>, _>("status")? else {
            let id: Option<String> = row.try_get("call_id")?;
            let call = match id.and_then(|id| id.parse().ok()) {
                Some(id) => self.call(id).await?,
                None => None,
            };
            return Ok(call.map_or(RequestKey::Unanswered, |call| RequestKey::Placed(call.into())));
        };
        Ok(RequestKey::Answered(KeptAnswer {
            status: u16::try_from(status).unwrap_or(500),
            location: row.try_get("location")?,
            body: row.try_get::<Option<String>, _>("body")?.unwrap_or_default(),
        }))
    }

    /// Keeps the answer to a request. Without an answer the key is free again, since nothing was
    /// done.
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

    /// Frees the keys of requests that the last process has not answered. Must be called at the
    /// start, when all calls have ended: requests about those calls are void. A request that has
    /// placed a call keeps its key, so that the call is not placed again.
    ///
    /// # Errors
    /// The database failed.
    pub async fn free_unanswered_requests(&self) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "DELETE FROM requests WHERE status IS NULL AND (call_id IS NULL \
             OR NOT EXISTS (SELECT 1 FROM calls c WHERE c.id = requests.call_id))",
        )
        .execute(self.writer())
        .await?;
        Ok(done.rows_affected())
    }

    /// When the oldest key was taken.
    ///
    /// # Errors
    /// The database failed.
    pub async fn oldest_request(&self) -> Result<Option<SteadyMillis>, StoreError> {
        let (oldest,): (Option<i64>,) =
            sqlx::query_as("SELECT MIN(created_at) FROM requests").fetch_one(self.reader()).await?;
        Ok(oldest.map(SteadyMillis))
    }

    /// Deletes keys that were taken before `before`, and for each application all answers except
    /// the newest `most`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn purge_requests(&self, before: SteadyMillis, most: u32) -> Result<u64, StoreError> {
        let done = sqlx::query("DELETE FROM requests WHERE created_at < $1")
            .bind(before.0)
            .execute(self.writer())
            .await?;
        let mut gone = done.rows_affected();
        let crowded: Vec<(String,)> = sqlx::query_as(
            "SELECT application FROM requests GROUP BY application HAVING COUNT(*) > $1",
        )
        .bind(i64::from(most))
        .fetch_all(self.reader())
        .await?;
        for (application,) in crowded {
            let done = sqlx::query(
                "DELETE FROM requests WHERE application = $1 AND status IS NOT NULL \
                 AND created_at <= (SELECT created_at FROM requests WHERE application = $1 \
                 ORDER BY created_at DESC LIMIT 1 OFFSET $2)",
            )
            .bind(application)
            .bind(i64::from(most))
            .execute(self.writer())
            .await?;
            gone += done.rows_affected();
        }
        self.deleted(gone);
        Ok(gone)
    }
}
