//! Opens the database and migrates its tables; the differences between SQLite and PostgreSQL are
//! here.
//!
//! SQLite runs in WAL mode with one writing connection and a few that only read; a lock file keeps
//! a second process out, as an advisory lock does for PostgreSQL. A commit survives a power cut:
//! SQLite syncs its WAL (`synchronous=FULL`), and for PostgreSQL our sessions switch
//! `synchronous_commit` on. `erasure` removes deleted data from SQLite's files, `damage` checks
//! their integrity.

use std::{
    fs::{File, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use sqlx::{
    AnyConnection, AnyPool, Connection, Executor,
    any::AnyPoolOptions,
    migrate::{MigrateError, Migration, Migrator},
};
use tracing::warn;

use super::{
    StoreError, clock,
    connections::{ACQUIRE_TIMEOUT, probe},
    damage,
    database::{Database, ProcessLock},
    files::{PRIVATE, keep_private},
    guard, lock_for_life,
};

impl Database {
    /// Opens `sqlite:PATH` (created if it does not exist) or `postgres://…`, and migrates the
    /// tables.
    ///
    /// # Errors
    /// Every error is a sentence for the person who starts the daemon.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        match scheme {
            "sqlite" => open_sqlite(Path::new(rest.strip_prefix("//").unwrap_or(rest))).await,
            "postgres" | "postgresql" => open_postgres(url).await,
            _ => Err(StoreError::UnknownScheme { scheme: scheme.to_owned() }),
        }
    }
}

/// The migrations of both databases, as PostgreSQL takes them.
static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// Migrations with another text for SQLite. They must stay as they are, since a database keeps the
/// checksums of the migrations that were applied to it.
static ONLY_SQLITE: Migrator = sqlx::migrate!("migrations/sqlite");

const SQLITE_READERS: u32 = 4;

const POSTGRES_CONNECTIONS: u32 = 8;

async fn open_sqlite(path: &Path) -> Result<Database, StoreError> {
    if path.as_os_str().is_empty() || path == Path::new(":memory:") {
        return Err(StoreError::NoFile);
    }
    let lock = lock_sqlite(path)?;
    // Only after the lock: a process without the lock must not touch a file that SQLite has open.
    keep_private(path)
        .map_err(|source| StoreError::NotWritable { path: path.to_owned(), source })?;
    let url = sqlite_url(path);
    let checking = damage::look(path, &url).await?;
    let cannot_open = |source| StoreError::CannotOpen { path: path.to_owned(), source };
    let mut first = probe(&url).await.map_err(cannot_open)?;
    prepare_sqlite_writer(&mut first).await.map_err(cannot_open)?;
    first.close().await.map_err(cannot_open)?;
    let writer = AnyPoolOptions::new()
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|connection, _| Box::pin(prepare_sqlite_writer(connection)))
        .connect(&url)
        .await
        .map_err(cannot_open)?;
    migrate(&migrator_of_sqlite(), &writer).await?;
    let reader = AnyPoolOptions::new()
        .max_connections(SQLITE_READERS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|connection, _| {
            Box::pin(async { connection.execute("PRAGMA query_only = ON").await.map(drop) })
        })
        .connect(&url)
        .await
        .map_err(cannot_open)?;
    let clock = clock::resume(&writer).await?;
    let database = Database::joined(writer, reader, clock, ProcessLock::File { _file: lock });
    if let Some(checking) = checking {
        checking.watch(database.downgraded());
    }
    Ok(database)
}

fn migrator_of_sqlite() -> Migrator {
    let is_replaced = |one: &&Migration| ONLY_SQLITE.version_exists(one.version);
    let shared = MIGRATOR.iter().filter(|one| !is_replaced(one));
    Migrator::with_migrations(shared.chain(ONLY_SQLITE.iter()).cloned().collect())
}

async fn prepare_sqlite_writer(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    // By default the driver waits 5 s for a lock; the journal should report sooner that it is
    // behind.
    connection.execute("PRAGMA busy_timeout = 1000").await?;
    connection.execute("PRAGMA journal_mode = WAL").await?;
    connection.execute("PRAGMA synchronous = FULL").await?;
    connection.execute("PRAGMA secure_delete = ON").await?;
    // VACUUM copies all data; the copy must not go to a file elsewhere.
    connection.execute("PRAGMA temp_store = MEMORY").await?;
    connection.execute("PRAGMA foreign_keys = ON").await?;
    Ok(())
}

/// A role or a server may have `synchronous_commit = off`: then a commit is answered before it is
/// durable. Stronger settings are kept.
async fn prepare_postgres(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    connection
        .execute(
            "SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') = 'off'",
        )
        .await
        .map(drop)
}

/// Locks a file beside the database, not the database itself: closing any descriptor of the
/// database file would release SQLite's own POSIX locks.
fn lock_sqlite(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let not_writable = |source| StoreError::NotWritable { path: lock_path.clone(), source };
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(PRIVATE)
        .open(&lock_path)
        .map_err(not_writable)?;
    match lock_for_life(&lock) {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            Err(StoreError::InUse { target: path.display().to_string() })
        }
        Err(TryLockError::Error(source)) => Err(not_writable(source)),
    }
}

/// The driver parses a URL, so characters with a meaning in URLs are escaped.
fn sqlite_url(path: &Path) -> String {
    let mut url = String::from("sqlite:");
    for character in path.to_string_lossy().chars() {
        match character {
            '%' => url.push_str("%25"),
            '?' => url.push_str("%3F"),
            '#' => url.push_str("%23"),
            ' ' => url.push_str("%20"),
            other => url.push(other),
        }
    }
    url.push_str("?mode=rwc");
    url
}

async fn open_postgres(url: &str) -> Result<Database, StoreError> {
    let cannot_connect =
        |source| StoreError::CannotConnect { target: without_credentials(url), source };
    let connection = probe(url).await.map_err(cannot_connect)?;
    let guard = guard::hold(url, without_credentials(url), connection).await?;
    let pool = AnyPoolOptions::new()
        .max_connections(POSTGRES_CONNECTIONS)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|connection, _| Box::pin(prepare_postgres(connection)))
        .connect(url)
        .await
        .map_err(cannot_connect)?;
    migrate(&MIGRATOR, &pool).await?;
    let (fsync,): (String,) =
        sqlx::query_as("SELECT current_setting('fsync')").fetch_one(&pool).await?;
    if fsync == "off" {
        warn!("PostgreSQL runs with fsync = off: a power cut may lose what was accepted");
    }
    let clock = clock::resume(&pool).await?;
    Ok(Database::joined(pool.clone(), pool, clock, ProcessLock::Connection(guard)))
}

/// Host and database name of a URL.
fn without_credentials(url: &str) -> String {
    match url::Url::parse(url) {
        Ok(url) => format!("{}{}", url.host_str().unwrap_or("localhost"), url.path()),
        Err(_) => "postgres://…".to_owned(),
    }
}

async fn migrate(migrator: &Migrator, pool: &AnyPool) -> Result<(), StoreError> {
    migrator.run(pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) | MigrateError::VersionTooNew(version, _) => {
            StoreError::Newer { version }
        }
        error => StoreError::Migration(error),
    })
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn a_path_is_escaped_for_the_driver() {
        assert_eq!(sqlite_url(Path::new("/a b/50%?#.db")), "sqlite:/a%20b/50%25%3F%23.db?mode=rwc");
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(
            without_credentials("postgres://me:secret@db.example/calls"),
            "db.example/calls"
        );
    }

    /// The first bytes of the checksum of each migration, as databases in use have them.
    #[test]
    fn a_migration_that_was_released_keeps_its_checksum() {
        let begins = |migrator: &Migrator| -> Vec<(i64, String)> {
            let begin = |sum: &[u8]| sum[..8].iter().map(|byte| format!("{byte:02x}")).collect();
            migrator.iter().map(|one| (one.version, begin(&one.checksum))).collect()
        };
        let released = |journal| {
            let sums = [
                "786866213b316c4c",
                "54ef1126fb5ebd00",
                "a76fa5265549355e",
                "0532e1da6cf1e2da",
                journal,
                "7062c9707dff67ee",
                "e4c1515c741a2b60",
            ];
            sums.into_iter().zip(1..).map(|(sum, version)| (version, String::from(sum))).collect()
        };
        let (sqlite, postgres): (Vec<_>, Vec<_>) =
            (released("21199430b2260cfd"), released("8e30ad67f56f2ff9"));
        assert_eq!(begins(&migrator_of_sqlite()), sqlite);
        assert_eq!(begins(&MIGRATOR), postgres);
    }

    #[tokio::test]
    async fn an_unknown_database_is_refused_without_showing_the_address() {
        let error = Database::open("mysql://me:secret@host/calls").await.unwrap_err().to_string();
        assert!(error.contains("mysql") && !error.contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn sqlite_without_a_file_is_refused() {
        for url in ["sqlite:", "sqlite://", "sqlite::memory:", "sqlite://:memory:"] {
            assert!(matches!(Database::open(url).await, Err(StoreError::NoFile)), "{url}");
        }
    }

    #[tokio::test]
    async fn a_missing_folder_is_named() {
        let error = Database::open("sqlite:/nowhere/at/all.db").await.unwrap_err().to_string();
        assert!(error.contains("/nowhere/at/all.db") && error.contains("folder"), "{error}");
    }

    #[tokio::test]
    async fn what_is_not_a_database_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letter.txt");
        std::fs::write(&path, "Dear reader, this is no database. ".repeat(100)).unwrap();
        let url = format!("sqlite:{}", path.display());
        let error = Database::open(&url).await.unwrap_err().to_string();
        assert!(error.contains("letter.txt") && error.contains("not a database"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named_at_once() {
        // Port 1 of the loopback address has no listener.
        let url = "postgres://me:secret@127.0.0.1:1/calls";
        let error = Database::open(url).await.unwrap_err().to_string();
        assert!(error.contains("127.0.0.1/calls") && error.contains("refused"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn nobody_else_can_read_the_keys() {
        let folder = tempfile::tempdir().unwrap();
        let url = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
        let mode = |name: &str| {
            let metadata = std::fs::metadata(folder.path().join(name)).unwrap();
            metadata.permissions().mode() & 0o777
        };
        let _open = Database::open(&url("new.db")).await.unwrap();
        assert_eq!((mode("new.db"), mode("new.db-wal")), (0o600, 0o600));
        std::fs::write(folder.path().join("old.db"), "").unwrap();
        let old = Permissions::from_mode(0o644);
        std::fs::set_permissions(folder.path().join("old.db"), old).unwrap();
        let _open = Database::open(&url("old.db")).await.unwrap();
        assert_eq!((mode("old.db"), mode("old.db-wal")), (0o640, 0o640));
    }

    #[tokio::test]
    async fn a_second_opening_of_the_same_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("odd name%.db").display());
        let first = Database::open(&url).await.unwrap();
        assert!(matches!(Database::open(&url).await, Err(StoreError::InUse { .. })));
        drop(first);
        Database::open(&url).await.unwrap();
    }
}
