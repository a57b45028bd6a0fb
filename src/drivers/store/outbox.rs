//! Notifications that are committed but not yet acknowledged, in order per call.
//!
//! A delivered row is deleted. A given-up row stays until its call is purged or a client has it
//! sent again (old tones are deleted earlier), and no longer holds back the later ones.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use sqlx::{AnyConnection, Row, any::AnyRow};

use aftertone_core::model::{CallId, Event, Notification, SteadyMillis, UnixMillis};

use super::{
    Database, StoreError,
    rows::{column_text, decode, encode, parsed},
};

/// One notification to send.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Its call.
    pub call: CallId,
    /// Number of the notification within its call, from 1; call and number identify it.
    pub sequence: u64,
    /// Name of the application that is notified.
    pub application: String,
    /// The callback address.
    pub callback_uri: String,
    /// Correlation id of the call.
    pub chain_id: String,
    /// Application and origin of `callback_uri`: notifications with the same value are slow or fail
    /// together.
    pub receiver: String,
    /// The fact.
    pub event: Event,
    /// Number of attempts so far.
    pub attempts: u32,
    /// When it was committed.
    pub created_at: SteadyMillis,
}

/// A notification that will not be sent any more, unless a client asks for it.
#[derive(Debug, Clone, PartialEq)]
pub struct GivenUp {
    /// The notification.
    pub delivery: Delivery,
    /// The error of the last attempt.
    pub error: String,
    /// When it was committed, by the wall clock.
    pub created_at: UnixMillis,
}

impl Database {
    /// Receivers that may have a notification due at `now`, in the order of their names.
    ///
    /// # Errors
    /// The database failed.
    pub async fn receivers_due(&self, now: SteadyMillis) -> Result<Vec<String>, StoreError> {
        let rows: Vec<(String,)> = sqlx::query_as(
            "SELECT DISTINCT receiver FROM outbox \
             WHERE state = 'pending' AND next_attempt_at <= $1 ORDER BY receiver",
        )
        .bind(now.0)
        .fetch_all(self.reader())
        .await?;
        Ok(rows.into_iter().map(|(receiver,)| receiver).collect())
    }

    /// Up to `limit` notifications for `receiver` that are due at `now`, only the first unsent one
    /// of each call. A row that cannot be read is given up, because it would block its call for
    /// ever.
    ///
    /// # Errors
    /// The database failed.
    pub async fn heads(
        &self,
        receiver: &str,
        now: SteadyMillis,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM outbox o \
             WHERE state = 'pending' AND receiver = $1 AND next_attempt_at <= $2 \
             AND NOT EXISTS (SELECT 1 FROM outbox e WHERE e.call_id = o.call_id \
             AND e.state = 'pending' AND e.sequence < o.sequence) \
             ORDER BY next_attempt_at, created_at, call_id LIMIT $3",
        )
        .bind(receiver.to_owned())
        .bind(now.0)
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(self.reader())
        .await?;
        self.readable(rows).await
    }

    /// The first unsent notification of `call`, if it is due at `now`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn head_of(
        &self,
        call: CallId,
        now: SteadyMillis,
    ) -> Result<Option<Delivery>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM outbox WHERE call_id = $1 AND state = 'pending' \
             ORDER BY sequence LIMIT 1",
        )
        .bind(call.to_string())
        .fetch_all(self.reader())
        .await?;
        let mut due = Vec::new();
        for row in rows {
            if row.try_get::<i64, _>("next_attempt_at")? <= now.0 {
                due.push(row);
            }
        }
        Ok(self.readable(due).await?.pop())
    }

    /// When the next failed notification will be tried again, after `now`.
    ///
    /// # Errors
    /// The database failed.
    pub async fn next_attempt(
        &self,
        now: SteadyMillis,
    ) -> Result<Option<SteadyMillis>, StoreError> {
        let (next,): (Option<i64>,) = sqlx::query_as(
            "SELECT MIN(next_attempt_at) FROM outbox \
             WHERE state = 'pending' AND next_attempt_at > $1",
        )
        .bind(now.0)
        .fetch_one(self.reader())
        .await?;
        Ok(next.map(SteadyMillis))
    }

    /// Deletes a notification that was received.
    ///
    /// # Errors
    /// The database failed.
    pub async fn delivered(&self, delivery: &Delivery) -> Result<(), StoreError> {
        // The call may have waited for its last notification.
        let _announced = self.expiry().announce_when_dropped();
        sqlx::query("DELETE FROM outbox WHERE call_id = $1 AND sequence = $2")
            .bind(delivery.call.to_string())
            .bind(column(delivery.sequence))
            .execute(self.writer())
            .await?;
        Ok(())
    }

    /// Stores that the attempt numbered `attempts` failed, and when the next one is due.
    ///
    /// # Errors
    /// The database failed.
    pub async fn failed(
        &self,
        delivery: &Delivery,
        attempts: u32,
        next_attempt_at: SteadyMillis,
        error: &str,
    ) -> Result<(), StoreError> {
        sqlx::query(
            "UPDATE outbox SET attempts = $3, next_attempt_at = $4, last_error = $5 \
             WHERE call_id = $1 AND sequence = $2 AND state = 'pending'",
        )
        .bind(delivery.call.to_string())
        .bind(column(delivery.sequence))
        .bind(i64::from(attempts))
        .bind(next_attempt_at.0)
        .bind(column_text(error))
        .execute(self.writer())
        .await?;
        Ok(())
    }

    /// Stores that the attempt numbered `attempts` was the last one.
    ///
    /// # Errors
    /// The database failed.
    pub async fn give_up(
        &self,
        delivery: &Delivery,
        attempts: u32,
        error: &str,
    ) -> Result<(), StoreError> {
        self.give_up_row(delivery.call.to_string(), column(delivery.sequence), attempts, error)
            .await
    }

    /// Notifications of `application` that were given up, oldest first: `limit` of them after the
    /// first `skip`.
    ///
    /// # Errors
    /// The database failed, or a row cannot be read.
    pub async fn given_up(
        &self,
        application: &str,
        skip: u64,
        limit: u32,
    ) -> Result<Vec<GivenUp>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM outbox WHERE application = $1 AND state = 'given_up' \
             ORDER BY created_at, call_id, sequence LIMIT $2 OFFSET $3",
        )
        .bind(application.to_owned())
        .bind(i64::from(limit))
        .bind(i64::try_from(skip).unwrap_or(i64::MAX))
        .fetch_all(self.reader())
        .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            match read(row) {
                Ok(delivery) => {
                    let error: Option<String> = row.try_get("last_error")?;
                    let created_at = self.clock().shown(delivery.created_at);
                    let error = error.unwrap_or_default();
                    found.push(GivenUp { delivery, error, created_at });
                }
                // Given up because it cannot be read; that was logged then.
                Err(StoreError::Unreadable { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// How many notifications of `application` were given up.
    ///
    /// # Errors
    /// The database failed.
    pub async fn given_up_count(&self, application: &str) -> Result<u64, StoreError> {
        let (count,): (i64,) = sqlx::query_as(
            "SELECT COUNT(*) FROM outbox WHERE application = $1 AND state = 'given_up'",
        )
        .bind(application.to_owned())
        .fetch_one(self.reader())
        .await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Sends given-up notifications of `application` again, as if they had just been committed: the
    /// one that `which` names, or all. Returns how many there were.
    ///
    /// # Errors
    /// The database failed.
    pub async fn resend(
        &self,
        application: &str,
        which: Option<(CallId, u64)>,
        now: SteadyMillis,
    ) -> Result<u64, StoreError> {
        let one = match which {
            Some(_) => "AND call_id = $3 AND sequence = $4",
            None => "",
        };
        let text = format!(
            "UPDATE outbox SET state = 'pending', attempts = 0, next_attempt_at = 0, \
             created_at = $2 WHERE application = $1 AND state = 'given_up' {one}"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(text)).bind(application.to_owned()).bind(now.0);
        let query = match which {
            Some((call, sequence)) => query.bind(call.to_string()).bind(column(sequence)),
            None => query,
        };
        let count = query.execute(self.writer()).await?.rows_affected();
        if count > 0 {
            self.outbox_grew().notify_one();
        }
        Ok(count)
    }

    async fn readable(&self, rows: Vec<AnyRow>) -> Result<Vec<Delivery>, StoreError> {
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            match read(row) {
                Ok(delivery) => found.push(delivery),
                Err(error @ StoreError::Unreadable { .. }) => {
                    tracing::error!("Notification given up: {error}");
                    let call = row.try_get("call_id")?;
                    let sequence = row.try_get("sequence")?;
                    self.give_up_row(call, sequence, 0, &error.to_string()).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn give_up_row(
        &self,
        call: String,
        sequence: i64,
        attempts: u32,
        error: &str,
    ) -> Result<(), StoreError> {
        let _announced = self.expiry().announce_when_dropped();
        sqlx::query(
            "UPDATE outbox SET state = 'given_up', attempts = $3, last_error = $4 \
             WHERE call_id = $1 AND sequence = $2",
        )
        .bind(call)
        .bind(sequence)
        .bind(i64::from(attempts))
        .bind(column_text(error))
        .execute(self.writer())
        .await?;
        Ok(())
    }
}

/// Appends `notification` to those of its call.
pub(super) async fn write(
    db: &mut AnyConnection,
    notification: &Notification,
    now: SteadyMillis,
) -> Result<(), StoreError> {
    let call = notification.event.call_id();
    if matches!(notification.event, Event::ToneHeard { .. }) && !make_room(db, call, now).await? {
        return Ok(());
    }
    let sequence: Option<(i64,)> = sqlx::query_as(
        "UPDATE calls SET notifications = notifications + 1 WHERE id = $1 RETURNING notifications",
    )
    .bind(call.to_string())
    .fetch_optional(&mut *db)
    .await?;
    let (sequence,) = sequence.ok_or(StoreError::UnknownCall(call))?;
    sqlx::query(
        "INSERT INTO outbox (call_id, sequence, application, callback_uri, receiver, state, \
         created_at, next_attempt_at, body, chain_id) \
         VALUES ($1, $2, $3, $4, $5, 'pending', $6, 0, $7, $8)",
    )
    .bind(call.to_string())
    .bind(sequence)
    .bind(column_text(&notification.application))
    .bind(column_text(&notification.callback_uri))
    .bind(column_text(&receiver(&notification.application, &notification.callback_uri)))
    .bind(now.0)
    .bind(encode(&notification.event)?)
    .bind(column_text(&notification.chain_id))
    .execute(db)
    .await?;
    Ok(())
}

/// Whether one more tone of a call may be queued. Also deletes all but the newest given-up tones.
async fn make_room(
    db: &mut AnyConnection,
    call: CallId,
    now: SteadyMillis,
) -> Result<bool, StoreError> {
    let (pending, last): (i64, Option<i64>) = sqlx::query_as(
        "SELECT COUNT(CASE state WHEN 'pending' THEN 1 END), MAX(sequence) FROM outbox \
         WHERE call_id = $1",
    )
    .bind(call.to_string())
    .fetch_one(&mut *db)
    .await?;
    if pending >= MOST_WITH_TONES {
        if TONES_DROPPED.may_say(now) {
            tracing::warn!(
                call.id = %call,
                pending,
                "Tones are not told any more to applications that have so much to hear of one call"
            );
        }
        return Ok(false);
    }
    sqlx::query(
        "DELETE FROM outbox WHERE call_id = $1 AND state = 'given_up' AND sequence <= $2 \
         AND body LIKE '{\"kind\":\"toneHeard\"%'",
    )
    .bind(call.to_string())
    .bind(last.unwrap_or(0) - MOST_GIVEN_UP)
    .execute(db)
    .await?;
    Ok(true)
}

/// Tones are queued only while fewer notifications than this of their call are pending.
const MOST_WITH_TONES: i64 = 256;
/// Given-up tones are kept while they are among this many last notifications of their call.
const MOST_GIVEN_UP: i64 = 1024;

static TONES_DROPPED: OncePerMinute = OncePerMinute(AtomicI64::new(i64::MIN));

/// Log limiter: one line a minute.
struct OncePerMinute(AtomicI64);

impl OncePerMinute {
    fn may_say(&self, now: SteadyMillis) -> bool {
        let said = self.0.load(Ordering::Relaxed);
        let is_due = now.since(SteadyMillis(said)) >= Duration::from_secs(60);
        is_due && self.0.compare_exchange(said, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

fn receiver(application: &str, callback_uri: &str) -> String {
    match url::Url::parse(callback_uri) {
        Ok(uri) => format!("{application} {}", uri.origin().ascii_serialization()),
        Err(_) => format!("{application} {callback_uri}"),
    }
}

fn read(row: &AnyRow) -> Result<Delivery, StoreError> {
    let call: CallId = parsed(row, "call_id")?;
    let sequence: i64 = row.try_get("sequence")?;
    let body: String = row.try_get("body")?;
    Ok(Delivery {
        call,
        sequence: u64::try_from(sequence).unwrap_or(0),
        application: row.try_get("application")?,
        callback_uri: row.try_get("callback_uri")?,
        chain_id: row.try_get("chain_id")?,
        receiver: row.try_get("receiver")?,
        event: decode("outbox", format!("{call}/{sequence}"), &body)?,
        attempts: u32::try_from(row.try_get::<i64, _>("attempts")?).unwrap_or(u32::MAX),
        created_at: SteadyMillis(row.try_get("created_at")?),
    })
}

fn column(sequence: u64) -> i64 {
    i64::try_from(sequence).unwrap_or(i64::MAX)
}
