//! Keeps a second process out of a PostgreSQL database: an advisory lock, held by a connection that
//! does nothing else. (A pooler that shares connections between transactions cannot hold it.)

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{AnyConnection, Connection};
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, error, info};

use super::{StoreError, connections::probe};

/// The number of our lock; the server has one number space for each database.
const LOCK: i64 = i64::from_be_bytes(*b"aftrtone");
/// How long another process may keep the lock: enough for a restart in which two processes overlap.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(200);
/// How often the connection is checked.
const PULSE: Duration = Duration::from_secs(1);
/// How long the server may take to answer the check.
const ANSWER: Duration = Duration::from_secs(10);

/// Holds the lock; dropping it releases the lock.
#[derive(Debug)]
pub(super) struct Guard {
    task: AbortOnDropHandle<()>,
    is_held: Arc<AtomicBool>,
}

impl Guard {
    /// Whether the connection with the lock was up at the last check.
    pub(super) fn is_held(&self) -> bool {
        self.is_held.load(Ordering::Relaxed)
    }

    /// Releases the lock.
    pub(super) fn release(&self) {
        self.task.abort();
    }
}

/// Takes the lock with `connection` to `url`, and holds it.
///
/// # Errors
/// Another process holds it, or the database failed.
pub(super) async fn hold(
    url: &str,
    target: String,
    mut connection: AnyConnection,
) -> Result<Guard, StoreError> {
    let begun = tokio::time::Instant::now();
    while !take(&mut connection).await? {
        if begun.elapsed() >= PATIENCE {
            return Err(StoreError::InUse { target });
        }
        tokio::time::sleep(RETRY).await;
    }
    let is_held = Arc::new(AtomicBool::new(true));
    let kept = keep(url.to_owned(), target, connection, Arc::clone(&is_held));
    Ok(Guard { task: AbortOnDropHandle::new(tokio::spawn(kept)), is_held })
}

async fn take(connection: &mut AnyConnection) -> Result<bool, StoreError> {
    let (is_ours,) =
        sqlx::query_as("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(connection).await?;
    Ok(is_ours)
}

/// Holds the lock until the task is aborted. A lost connection loses the lock, which is then taken
/// again.
async fn keep(
    url: String,
    target: String,
    mut connection: AnyConnection,
    is_held: Arc<AtomicBool>,
) {
    loop {
        tokio::time::sleep(PULSE).await;
        let pulse = tokio::time::timeout(ANSWER, connection.ping()).await;
        let lost = match pulse {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        is_held.store(false, Ordering::Relaxed);
        error!("Nothing keeps other processes from the database {target} any more: {lost}");
        connection = regain(&url, &target).await;
        is_held.store(true, Ordering::Relaxed);
        info!("Other processes are kept from the database {target} again");
    }
}

async fn regain(url: &str, target: &str) -> AnyConnection {
    let mut refusals = 0_u32;
    loop {
        match probe(url).await {
            Ok(mut connection) => match take(&mut connection).await {
                Ok(true) => return connection,
                Ok(false) => {
                    refusals += 1;
                    if refusals.is_power_of_two() {
                        error!("Another aftertone uses the database {target}; stop one of them");
                    }
                }
                Err(error) => debug!(%error, "the database cannot be locked yet"),
            },
            Err(error) => debug!(%error, "the database cannot be reached yet"),
        }
        tokio::time::sleep(PULSE).await;
    }
}
