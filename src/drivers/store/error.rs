//! Errors of the database, in sentences that say how to correct them.

use std::{io, path::PathBuf, time::Duration};

use sqlx::migrate::MigrateError;

use aftertone_core::model::CallId;

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The address names neither of the two databases.
    #[error("the database address must begin with sqlite: or postgres://, not with {scheme:?}")]
    UnknownScheme {
        /// The scheme of the address; the rest may hold a password.
        scheme: String,
    },
    /// SQLite without a file: each connection would see its own database.
    #[error("the database address sqlite: must name a file, as in sqlite:aftertone.db")]
    NoFile,
    /// The folder of the SQLite file cannot be used.
    #[error(
        "cannot write {path}: {source}; make sure that its folder exists and that the user of the \
         daemon may write there"
    )]
    NotWritable {
        /// The file that could not be made.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process holds the database.
    #[error("{target} is in use by another aftertone; stop that one or name another database")]
    InUse {
        /// File or host, without credentials.
        target: String,
    },
    /// An SQLite file cannot be opened.
    #[error(
        "cannot open the database {path}: {source}; check that it is an SQLite database, that the user \
         of the daemon may read and write it, and that its disk works and has room"
    )]
    CannotOpen {
        /// The file.
        path: PathBuf,
        /// What the driver says.
        source: sqlx::Error,
    },
    /// An SQLite file is damaged, and cannot be renamed for a fresh one.
    #[error(
        "the database {path} is damaged ({finding}) and cannot be set aside: {source}; move it away by \
         hand, with the files beside it that begin with its name, or restore a backup"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        finding: String,
        /// Why it cannot be renamed.
        source: io::Error,
    },
    /// No connection to the server is possible.
    #[error(
        "cannot connect to the database {target}: {source}; check that it runs and that the \
         address, user and password are right"
    )]
    CannotConnect {
        /// Host and database, without credentials.
        target: String,
        /// What the driver says.
        source: sqlx::Error,
    },
    /// The system has no CLOCK_BOOTTIME.
    #[error("cannot read CLOCK_BOOTTIME: {0}; this needs Linux 2.6.39 or newer")]
    NoClock(#[source] io::Error),
    /// A newer aftertone has migrated this database.
    #[error(
        "the database has migration {version}, which this aftertone does not know; install the \
         newer aftertone again or restore a backup"
    )]
    Newer {
        /// The unknown migration.
        version: i64,
    },
    /// The tables could not be brought up to date.
    #[error("the tables of the database could not be brought up to date: {0}")]
    Migration(#[source] MigrateError),
    /// A query failed.
    #[error("the database failed: {0}")]
    Query(#[from] sqlx::Error),
    /// A stored value cannot be parsed.
    #[error("{table} row {id} cannot be read: {source}")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// The row.
        id: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A value could not be written as JSON.
    #[error("a value cannot be written as JSON: {0}")]
    Unwritable(#[source] serde_json::Error),
    /// A notification for a call that is not in the database.
    #[error("call {0} is not in the database")]
    UnknownCall(CallId),
    /// Other connections do not see the last commit.
    #[error("commit {committed} cannot be seen: other connections see only {seen}")]
    NotVisible {
        /// Number of the last commit.
        committed: i64,
        /// Number that was read.
        seen: i64,
    },
    /// The journal ended before the change was durable.
    #[error("the journal ended before the change was written down")]
    JournalEnded,
    /// The journal did not finish in time.
    #[error("the journal was not done within {within:?}")]
    NotFlushed {
        /// How long it was given.
        within: Duration,
    },
}

impl StoreError {
    /// Whether the fault lies with the database and not with the data: the same query may succeed
    /// later. Every error that does not clearly blame the data counts, because a fact that is given
    /// up is lost, while a waiting journal is noticed and repaired.
    pub fn is_database_away(&self) -> bool {
        match self {
            Self::Query(error) => !blames_the_data(error),
            Self::CannotConnect { .. } | Self::CannotOpen { .. } => true,
            _ => false,
        }
    }

    /// Whether the database itself is damaged: the same query will not succeed later.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Query(source)
            | Self::CannotOpen { source, .. }
            | Self::CannotConnect { source, .. } => is_damage(source),
            Self::Damaged { .. } => true,
            _ => false,
        }
    }

    /// Whether the address itself is wrong: the same address will never work.
    pub fn is_wrong_address(&self) -> bool {
        matches!(
            self,
            Self::UnknownScheme { .. }
                | Self::NoFile
                | Self::CannotConnect { source: sqlx::Error::Configuration(_), .. }
                | Self::CannotOpen { source: sqlx::Error::Configuration(_), .. }
        )
    }
}

/// SQLITE_CORRUPT, SQLITE_NOTADB; PostgreSQL's data_corrupted and index_corrupted.
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else { return false };
    let code = error.code().unwrap_or_default();
    match code.parse::<u32>() {
        // The low byte of SQLite's extended codes is the primary code.
        Ok(number) if code.len() < 5 => matches!(number & 0xff, 11 | 26),
        _ => matches!(&*code, "XX001" | "XX002"),
    }
}

fn blames_the_data(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().unwrap_or_default();
            match code.parse::<u32>() {
                // SQLite's extended codes keep the primary code in the low byte: SQLITE_ERROR,
                // TOOBIG, CONSTRAINT, MISMATCH, RANGE. PostgreSQL's codes have five characters.
                Ok(number) if code.len() < 5 => matches!(number & 0xff, 1 | 18 | 19 | 20 | 25),
                // PostgreSQL's classes: data exception, integrity, syntax or missing table.
                _ => ["22", "23", "42"].iter().any(|class| code.starts_with(class)),
            }
        }
        sqlx::Error::Encode(_)
        | sqlx::Error::Decode(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnIndexOutOfBounds { .. }
        | sqlx::Error::TypeNotFound { .. }
        | sqlx::Error::RowNotFound
        | sqlx::Error::AnyDriverError(_)
        | sqlx::Error::InvalidArgument(_) => true,
        _ => false,
    }
}
