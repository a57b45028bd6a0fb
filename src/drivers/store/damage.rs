//! Damage to an SQLite file: checked at the start, noticed while running.
//!
//! `PRAGMA quick_check` reads the whole file before any other query. A damaged file is renamed,
//! with its WAL, and a fresh one replaces it: calls can be accepted again, and the old file is kept
//! for rescue. The check of a large file continues while the daemon runs. Damage that the check or
//! a query finds later is logged once; no new calls are accepted until a restart.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Weak,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::{AnyConnection, Connection};
use tokio::task::JoinHandle;
use tracing::{debug, error, info};

use super::{
    Database, StoreError,
    database::OpenDatabase,
    error::is_damage,
    files::{keep_private, sync_folder_of},
};

/// A check that is still running.
pub(super) struct Checking(JoinHandle<Result<Checked, sqlx::Error>>);

/// The result of a check, and the connection that it used.
struct Checked {
    finding: Option<String>,
    connection: Option<AnyConnection>,
}

/// How long a start waits for the check; systemd allows 90 s for a start.
const CHECK_TIME: Duration = Duration::from_secs(10);
/// The first bytes of an SQLite file.
const MAGIC: [u8; 16] = *b"SQLite format 3\0";

/// Checks the file, and sets it aside if it is damaged. Returns the check if it takes longer than
/// [`CHECK_TIME`].
///
/// # Errors
/// The file cannot be opened, is no SQLite database, or is damaged and cannot be set aside.
pub(super) async fn look(path: &Path, url: &str) -> Result<Option<Checking>, StoreError> {
    let cannot_open = |source| StoreError::CannotOpen { path: path.to_owned(), source };
    if is_foreign(path).map_err(|error| cannot_open(error.into()))? {
        // The file belongs to another program, so it is not moved.
        let error = io::Error::new(io::ErrorKind::InvalidData, "file is not a database");
        return Err(cannot_open(error.into()));
    }
    let mut checking = tokio::spawn(quick_check(url.to_owned()));
    let checked = match tokio::time::timeout(CHECK_TIME, &mut checking).await {
        Ok(Ok(checked)) => checked,
        Ok(Err(panic)) => Err(sqlx::Error::Io(io::Error::other(panic))),
        Err(_) => {
            info!("The database is large; its check goes on while calls are taken");
            return Ok(Some(Checking(checking)));
        }
    };
    let (finding, connection) = match checked {
        Ok(Checked { finding: None, connection }) => {
            close(connection).await;
            return Ok(None);
        }
        Ok(Checked { finding: Some(finding), connection }) => (finding, connection),
        Err(error) if is_damage(&error) => (error.to_string(), None),
        Err(error) => return Err(cannot_open(error)),
    };
    // The connection is closed only after the rename: earlier, it would write its WAL into the
    // damaged file.
    let aside = set_aside(path).map_err(|source| StoreError::Damaged {
        path: path.to_owned(),
        finding: finding.clone(),
        source,
    })?;
    drop(connection);
    keep_private(path)
        .map_err(|source| StoreError::NotWritable { path: path.to_owned(), source })?;
    error!(
        "The database {} is damaged: {finding}. It is now {}, and a fresh one takes its place. Calls, \
         notifications that were not delivered and keys of requests are only in the old one: look at \
         it with `sqlite3 {} .recover`, then delete it, for it names callers. Clips that the fresh \
         one does not know are in lost+found, in the folder of the recordings",
        path.display(),
        aside.display(),
        aside.display(),
    );
    Ok(None)
}

impl Checking {
    /// Waits for the check in the background, and notices the damage that it finds, if the database
    /// is still open then.
    pub(super) fn watch(self, database: Weak<OpenDatabase>) {
        tokio::spawn(async move {
            let finding = match self.0.await {
                Ok(Ok(Checked { finding, connection })) => {
                    close(connection).await;
                    finding
                }
                Ok(Err(error)) if is_damage(&error) => Some(error.to_string()),
                Ok(Err(error)) => {
                    debug!("The check of the database failed: {error}");
                    return;
                }
                Err(_) => return,
            };
            match (finding, Database::upgraded(&database)) {
                (Some(finding), Some(database)) => database.notice_damage(finding),
                (None, Some(_)) => info!("The check of the database has found no damage"),
                (_, None) => {}
            }
        });
    }
}

impl Database {
    /// Whether the database is known to be damaged.
    pub fn is_damaged(&self) -> bool {
        self.damage().get().is_some()
    }

    /// Remembers an error that means damage, and logs it once, with instructions.
    pub fn notice(&self, error: &StoreError) {
        if error.is_damage() {
            self.notice_damage(error.to_string());
        }
    }

    fn notice_damage(&self, finding: String) {
        if self.damage().set(finding).is_ok() {
            let finding = self.damage().get().map_or("", String::as_str);
            error!(
                "The database is damaged: {finding}. No new calls are taken. Restart aftertone, which \
                 sets a damaged SQLite file aside and begins with a fresh one; restore PostgreSQL from \
                 a backup"
            );
        }
    }
}

/// Checks the file on its own connection. Reports the first finding only.
async fn quick_check(url: String) -> Result<Checked, sqlx::Error> {
    let mut connection = AnyConnection::connect(&url).await?;
    let result: Result<(String,), _> =
        sqlx::query_as("PRAGMA quick_check(1)").fetch_one(&mut connection).await;
    let finding = match result {
        Ok((word,)) if word == "ok" => None,
        Ok((finding,)) => Some(finding.replace('\n', " ")),
        Err(error) if is_damage(&error) => Some(error.to_string()),
        Err(error) => return Err(error),
    };
    Ok(Checked { finding, connection: Some(connection) })
}

async fn close(connection: Option<AnyConnection>) {
    if let Some(connection) = connection
        && let Err(error) = connection.close().await
    {
        debug!("The connection of the check was not closed cleanly: {error}");
    }
}

/// Whether the file cannot be an SQLite file, not even an empty one, or one with a first page that
/// was zeroed or cut.
fn is_foreign(path: &Path) -> io::Result<bool> {
    let mut begin = Vec::new();
    File::open(path)?.take(MAGIC.len() as u64).read_to_end(&mut begin)?;
    Ok(!MAGIC.starts_with(&begin) && begin.iter().any(|byte| *byte != 0))
}

/// Renames the file and those beside it, so that the new names still belong together.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let aside = beside(path, &format!(".damaged-{}", since.as_secs()));
    for suffix in ["-wal", "-shm", ""] {
        match fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && !suffix.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    sync_folder_of(path)?;
    Ok(aside)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
