//! The one writer of the changes of live calls: many changes, one transaction.
//!
//! In: [`Change`] values from call tasks, which never wait. Out: a [`Commit`] for each, which
//! resolves once the change is durable, in the order of submission. Changes that are queued while
//! one transaction is written go into the next one, so the cost of a commit is shared under load,
//! and without load a change does not wait for others. While the database is away the journal tries
//! again and the queue grows; [`Journal::is_behind`] then tells admission to refuse new calls. A
//! change that the database refuses fails alone.
//!
//! After a failed transaction nothing is assumed about its connection: it is closed, and the next
//! attempt opens a new one. Each transaction has a number, which [`Journal::prove`] reads on
//! another connection.
//!
//! When the connection to PostgreSQL breaks at the moment of a commit, it is unknown whether the
//! commit was done. The transaction is then repeated: facts stay the same, but a notification may
//! be sent twice.

use std::{
    pin::Pin,
    slice,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use sqlx::Connection;
use tokio::{
    sync::{self, mpsc, oneshot},
    task::JoinHandle,
};
use tracing::{debug, error, info, warn};

use aftertone_core::model::{Change, SteadyMillis};

use super::{Database, StoreError, calls, connections::discard, outbox, recordings};

/// A handle on the journal; cheap to clone. The journal ends when the last handle is dropped and
/// all changes are written.
#[derive(Clone, Debug)]
pub struct Journal {
    database: Database,
    queue: mpsc::Sender<PendingChange>,
    backlog: Arc<Backlog>,
    limits: JournalLimits,
    /// When the last commit was last read on another connection.
    proved: Arc<sync::Mutex<Option<Instant>>>,
}

/// Limits of the journal, and when it counts as behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalLimits {
    /// Most changes that may wait; 1 or more.
    pub queue: usize,
    /// Most changes in one transaction; 1 or more.
    pub batch: usize,
    /// Behind when more changes than this are not yet durable.
    pub behind_changes: usize,
    /// Behind when the oldest change has waited longer than this.
    pub behind_age: Duration,
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self { queue: 8192, batch: 256, behind_changes: 2048, behind_age: Duration::from_secs(2) }
    }
}

/// Resolves once a change is durable, or will never be.
#[derive(Debug)]
#[must_use = "an accepted operation is answered after its commit"]
pub struct Commit(oneshot::Receiver<Result<(), StoreError>>);

/// The journal's queue is full, or the journal has ended. Holds the change, to be submitted again.
#[derive(Debug, thiserror::Error)]
#[error("the journal is behind and takes no more changes")]
pub struct JournalBehind(pub Box<Change>);

impl Journal {
    /// Starts the writer. It must not end while the daemon runs; its handle reports a panic.
    pub fn start(database: Database, limits: JournalLimits) -> (Self, JoinHandle<()>) {
        let (queue, pending) = mpsc::channel(limits.queue.max(1));
        let backlog = Arc::new(Backlog::default());
        let writer = JournalWriter {
            database: database.clone(),
            pending,
            backlog: backlog.clone(),
            batch: limits.batch.max(1),
        };
        let proved = Arc::default();
        (Self { database, queue, backlog, limits, proved }, tokio::spawn(writer.run()))
    }

    /// Submits a change without waiting.
    ///
    /// # Errors
    /// Returns the change when the queue is full or the journal has ended.
    pub fn submit(&self, change: Change) -> Result<Commit, JournalBehind> {
        let (pending, commit) = PendingChange::new(change);
        // Counted first: the writer may finish the change before `try_send` returns.
        self.backlog.waiting.fetch_add(1, Ordering::Relaxed);
        match self.queue.try_send(pending) {
            Ok(()) => Ok(commit),
            Err(mpsc::error::TrySendError::Full(pending))
            | Err(mpsc::error::TrySendError::Closed(pending)) => {
                self.backlog.waiting.fetch_sub(1, Ordering::Relaxed);
                Err(JournalBehind(Box::new(pending.change)))
            }
        }
    }

    /// Waits until all changes that were submitted before are durable or refused.
    ///
    /// # Errors
    /// It took longer than `within`, or the journal has ended.
    pub async fn flush(&self, within: Duration) -> Result<(), StoreError> {
        let (pending, commit) = PendingChange::new(Change::default());
        let flushed = async {
            let place = self.queue.reserve().await.map_err(|_| StoreError::JournalEnded)?;
            self.backlog.waiting.fetch_add(1, Ordering::Relaxed);
            place.send(pending);
            commit.await
        };
        match tokio::time::timeout(within, flushed).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::NotFlushed { within }),
        }
    }

    /// Reads the number of the last transaction on a connection that did not write it. A success is
    /// valid for a second, and one caller reads at a time: however many callers there are, they
    /// take one connection.
    ///
    /// # Errors
    /// The database cannot be read, or other connections do not see what was committed.
    pub async fn prove(&self) -> Result<(), StoreError> {
        let mut proved = self.proved.lock().await;
        if proved.is_some_and(|at| at.elapsed() < PROOF_LASTS) {
            return Ok(());
        }
        let committed = self.backlog.last.load(Ordering::Relaxed);
        let seen = self.database.commits_seen().await;
        let seen = seen.inspect_err(|error| self.database.notice(error))?;
        if seen < committed {
            return Err(StoreError::NotVisible { committed, seen });
        }
        *proved = Some(Instant::now());
        Ok(())
    }

    /// Whether so many changes wait, or for so long, that no new call should be accepted.
    pub fn is_behind(&self) -> bool {
        self.backlog.waiting.load(Ordering::Relaxed) > self.limits.behind_changes
            || self.backlog.age() > self.limits.behind_age
    }
}

impl Future for Commit {
    type Output = Result<(), StoreError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(result.unwrap_or(Err(StoreError::JournalEnded)))
    }
}

/// A change that is submitted and not yet durable.
#[derive(Debug)]
struct PendingChange {
    change: Change,
    submitted: Instant,
    done: oneshot::Sender<Result<(), StoreError>>,
}

impl PendingChange {
    fn new(change: Change) -> (Self, Commit) {
        let (done, commit) = oneshot::channel();
        (Self { change, submitted: Instant::now(), done }, Commit(commit))
    }
}

#[derive(Debug, Default)]
struct Backlog {
    /// Changes that are submitted and not yet resolved.
    waiting: AtomicUsize,
    /// When the oldest of them was submitted. The writer always holds the oldest.
    oldest: Mutex<Option<Instant>>,
    /// Number of the last transaction that was committed; 0 without one.
    last: AtomicI64,
}

impl Backlog {
    fn set_oldest(&self, submitted: Option<Instant>) {
        *self.oldest.lock().unwrap_or_else(PoisonError::into_inner) = submitted;
    }

    fn age(&self) -> Duration {
        let oldest = *self.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        oldest.map(|submitted| submitted.elapsed()).unwrap_or_default()
    }
}

struct JournalWriter {
    database: Database,
    pending: mpsc::Receiver<PendingChange>,
    backlog: Arc<Backlog>,
    batch: usize,
}

impl JournalWriter {
    async fn run(mut self) {
        let mut batch = Vec::with_capacity(self.batch);
        while self.pending.recv_many(&mut batch, self.batch).await > 0 {
            self.backlog.set_oldest(batch.first().map(|pending: &PendingChange| pending.submitted));
            match self.commit(&batch).await {
                Ok(()) => batch.drain(..).for_each(|pending| self.resolve(pending, Ok(()))),
                Err(_) if batch.len() > 1 => {
                    debug!(changes = batch.len(), "A change was refused; all are written singly");
                    for pending in batch.drain(..) {
                        let alone = self.commit(slice::from_ref(&pending)).await;
                        self.resolve(pending, alone);
                    }
                }
                Err(error) => {
                    if let Some(pending) = batch.pop() {
                        self.resolve(pending, Err(error));
                    }
                }
            }
            self.backlog.set_oldest(None);
        }
    }

    /// Commits the changes in one transaction, which is tried again and again while the database is
    /// away, and announces what follows from it.
    async fn commit(&self, batch: &[PendingChange]) -> Result<(), StoreError> {
        if batch.iter().all(|pending| pending.change == Change::default()) {
            return Ok(());
        }
        let mut failures = 0_u32;
        let written = loop {
            match write_together(&self.database, batch).await {
                Err(error) if error.is_database_away() => {
                    self.database.notice(&error);
                    if failures == 0 {
                        warn!(changes = batch.len(), "The journal cannot write: {error}");
                    } else {
                        debug!(failures, "The journal still cannot write: {error}");
                    }
                    tokio::time::sleep(pause(failures)).await;
                    failures = failures.saturating_add(1);
                }
                written => break written,
            }
        };
        if failures > 0 {
            info!(failures, "The journal can write again");
        }
        let WrittenBatch { number, due } = written?;
        self.backlog.last.store(number, Ordering::Relaxed);
        if batch.iter().any(|pending| !pending.change.notifications.is_empty()) {
            self.database.outbox_grew().notify_one();
        }
        if let Some(due) = due {
            self.database.expiry().announce(due);
        }
        Ok(())
    }

    fn resolve(&self, pending: PendingChange, result: Result<(), StoreError>) {
        if let Err(error) = &result {
            let call = pending.change.call.as_ref().map(|call| tracing::field::display(call.id));
            error!(call.id = call, "A change was refused: {error}");
        }
        self.backlog.waiting.fetch_sub(1, Ordering::Relaxed);
        // The submitter may have gone; the change is stored nevertheless.
        let _ = pending.done.send(result);
    }
}

/// A transaction that was committed.
struct WrittenBatch {
    number: i64,
    /// When the first row is due for deletion because of it.
    due: Option<SteadyMillis>,
}

/// Writes the changes in one transaction. A connection on which this failed is closed.
async fn write_together(
    database: &Database,
    batch: &[PendingChange],
) -> Result<WrittenBatch, StoreError> {
    let mut connection = database.writer().acquire().await?;
    let now = database.clock().now();
    let written = async {
        let mut transaction = connection.begin().await?;
        let mut due = None;
        for PendingChange { change, .. } in batch {
            if let Some(call) = &change.call {
                calls::write_call(&mut transaction, call).await?;
            }
            for operation in &change.operations {
                calls::write_operation(&mut transaction, operation).await?;
            }
            for recording in &change.recordings {
                let next = recordings::write(&mut transaction, recording, now).await?;
                due = due.into_iter().chain(next).min();
            }
            for notification in &change.notifications {
                outbox::write(&mut transaction, notification, now).await?;
            }
        }
        let (number,) =
            sqlx::query_as("UPDATE journal SET commits = commits + 1 RETURNING commits")
                .fetch_one(&mut *transaction)
                .await?;
        transaction.commit().await?;
        Ok::<_, StoreError>(WrittenBatch { number, due })
    }
    .await;
    if written.is_err() {
        discard(connection).await;
    }
    written
}

/// How long a proof that the last commit is visible is valid.
const PROOF_LASTS: Duration = Duration::from_secs(1);

/// Pause after that many failures: 20 ms, doubled each time, up to 1.28 s.
fn pause(failures: u32) -> Duration {
    Duration::from_millis(20 << failures.min(6))
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Executor};
    use tokio::time::timeout;

    use super::*;
    use aftertone_core::model::{
        CallId, Operation, OperationId, OperationKind, OperationStatus, UnixMillis,
    };

    /// An operation of a call, with a client context of that many bytes.
    fn operation(call: CallId, context_bytes: usize) -> Operation {
        Operation {
            id: OperationId::from_random([7; 16]),
            call,
            kind: OperationKind::Echo,
            client_context: Some("x".repeat(context_bytes)),
            status: OperationStatus::Running,
            end: None,
            recording: None,
            created_at: UnixMillis(1),
            ended_at: None,
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_committed_after_a_full_disk_is_seen_by_other_connections() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("full.db").display());
        let database = Database::open(&url).await.unwrap();
        let call = CallId::from_random([1; 16]);
        sqlx::query(
            "INSERT INTO calls (id, application, state, created_at, body) \
             VALUES ($1, 'bot', 'established', 1, '{}')",
        )
        .bind(call.to_string())
        .execute(database.writer())
        .await
        .unwrap();
        // The file must not grow: SQLite rolls the transaction back by itself, as on a full disk.
        let (pages,): (i64,) =
            sqlx::query_as("PRAGMA page_count").fetch_one(database.writer()).await.unwrap();
        let limit = |pages| AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        database.writer().execute(limit(pages)).await.unwrap();

        let (journal, _writer) = Journal::start(database.clone(), JournalLimits::default());
        let change = Change { operations: vec![operation(call, 1 << 20)], ..Change::default() };
        let commit = journal.submit(change).unwrap();
        // Time for more than two failures on the same connection.
        tokio::time::sleep(Duration::from_millis(200)).await;
        database.writer().execute(limit(i64::from(i32::MAX))).await.unwrap();
        timeout(Duration::from_secs(10), commit).await.expect("in time").unwrap();
        // A change that is refused: where the driver still counts a transaction, only a savepoint
        // is undone.
        let (unknown, id) = (CallId::from_random([2; 16]), OperationId::from_random([9; 16]));
        let stranger = Operation { id, ..operation(unknown, 1) };
        let refused = Change { operations: vec![stranger], ..Change::default() };
        journal.submit(refused).unwrap().await.unwrap_err();
        let second = Operation { id: OperationId::from_random([8; 16]), ..operation(call, 1) };
        let change = Change { operations: vec![second], ..Change::default() };
        journal.submit(change).unwrap().await.unwrap();
        journal.prove().await.unwrap();
        assert_eq!(database.operations(call).await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn a_commit_that_other_connections_do_not_see_is_no_proof() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("proof.db").display());
        let database = Database::open(&url).await.unwrap();
        let (journal, _writer) = Journal::start(database, JournalLimits::default());
        journal.backlog.last.store(1, Ordering::Relaxed);
        let refused = journal.prove().await;
        assert!(
            matches!(refused, Err(StoreError::NotVisible { committed: 1, seen: 0 })),
            "{refused:?}"
        );
    }
}
