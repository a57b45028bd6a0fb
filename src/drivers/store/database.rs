//! A handle on the open database.

use std::{
    fs::File,
    sync::{Arc, OnceLock, Weak},
};

use sqlx::AnyPool;
use tokio::sync::Notify;

use super::{StoreError, expiry::Expiry, guard::Guard, leftovers::Erasure};
use crate::drivers::clock::Clock;

/// A handle on the open database; cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    inner: Arc<OpenDatabase>,
}

#[derive(Debug)]
pub(super) struct OpenDatabase {
    writer: AnyPool,
    reader: AnyPool,
    /// Wakes the dispatcher when the outbox has new rows.
    outbox_grew: Notify,
    /// The first damage that was found.
    damage: OnceLock<String>,
    erasure: Erasure,
    expiry: Expiry,
    clock: Clock,
    lock: ProcessLock,
}

/// Held until the database is closed, so that no second process opens it.
#[derive(Debug)]
pub(super) enum ProcessLock {
    File { _file: File },
    Connection(Guard),
}

impl Database {
    /// Closes all connections once they are idle; later queries fail.
    pub async fn close(&self) {
        self.erase_before_close().await;
        self.inner.reader.close().await;
        self.inner.writer.close().await;
        match &self.inner.lock {
            ProcessLock::Connection(guard) => guard.release(),
            // The lock ends with the last handle.
            ProcessLock::File { .. } => {}
        }
    }

    /// Whether the database is known to be away without a query. This is possible only for a
    /// server.
    pub fn is_away(&self) -> bool {
        match &self.inner.lock {
            ProcessLock::Connection(guard) => !guard.is_held(),
            ProcessLock::File { .. } => false,
        }
    }

    /// Notified when the outbox may have new rows. Rows that were added while no task waited are
    /// not missed.
    pub fn outbox_grew(&self) -> &Notify {
        &self.inner.outbox_grew
    }

    /// Number of the last transaction of the journal that a reading connection sees.
    pub(super) async fn commits_seen(&self) -> Result<i64, StoreError> {
        let (commits,) =
            sqlx::query_as("SELECT commits FROM journal").fetch_one(self.reader()).await?;
        Ok(commits)
    }

    /// The clock by which all deadlines and ages of this database are counted.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// The state of the erasure of deleted rows; `None` for PostgreSQL.
    pub(super) fn erasure(&self) -> Option<&Erasure> {
        match &self.inner.lock {
            ProcessLock::Connection(_) => None,
            ProcessLock::File { .. } => Some(&self.inner.erasure),
        }
    }

    /// When the next row may be due for deletion, as far as it was announced.
    pub fn expiry(&self) -> &Expiry {
        &self.inner.expiry
    }

    pub(super) fn damage(&self) -> &OnceLock<String> {
        &self.inner.damage
    }

    /// A weak reference, for tasks that must not keep the database open.
    pub(super) fn downgraded(&self) -> Weak<OpenDatabase> {
        Arc::downgrade(&self.inner)
    }

    /// The database, if it is still open.
    pub(super) fn upgraded(inner: &Weak<OpenDatabase>) -> Option<Self> {
        inner.upgrade().map(|inner| Self { inner })
    }

    pub(super) fn writer(&self) -> &AnyPool {
        &self.inner.writer
    }

    pub(super) fn reader(&self) -> &AnyPool {
        &self.inner.reader
    }
}

impl Database {
    pub(super) fn joined(
        writer: AnyPool,
        reader: AnyPool,
        clock: Clock,
        lock: ProcessLock,
    ) -> Self {
        let inner = OpenDatabase {
            writer,
            reader,
            outbox_grew: Notify::new(),
            damage: OnceLock::new(),
            erasure: Erasure::new(),
            expiry: Expiry::new(clock.clone()),
            clock,
            lock,
        };
        Self { inner: Arc::new(inner) }
    }
}
