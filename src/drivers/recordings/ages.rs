//! Files in `lost+found`: they are purged when they are older than the retention time.
//!
//! When a file is first seen, its age follows from its modification time and the wall clock. From
//! then on the steady clock counts its age, and a row keeps the start, so that setting the wall
//! clock makes no file older or younger, also across a restart.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    time::{Duration, SystemTime},
};

use tracing::{error, info, warn};

use super::{lost::LostFile, lost_and_found::LostAndFound, vault::Vault};
use crate::drivers::store::{Database, LostFileRow, StoreError};
use aftertone_core::model::{SteadyMillis, UnixMillis};

/// The files in `lost+found` and their ages.
pub(super) struct LostFiles {
    database: Database,
    vault: Vault,
    retention: Duration,
    /// The files that were seen before, by name.
    known: BTreeMap<String, KnownLostFile>,
    is_loaded: bool,
    /// The last query of the database failed, and the failure was logged.
    is_away: bool,
}

/// A file that was seen before.
struct KnownLostFile {
    row: LostFileRow,
    /// The database has the row.
    is_kept: bool,
}

impl LostFiles {
    /// Purges files when they are `retention` old.
    pub(super) fn new(database: Database, vault: Vault, retention: Duration) -> Self {
        Self {
            database,
            vault,
            retention,
            known: BTreeMap::new(),
            is_loaded: false,
            is_away: false,
        }
    }

    /// Deletes the files that are too old. A file that cannot be deleted is logged and tried again
    /// at the next call; rows that could not be written are tried again as well.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) async fn sweep(&mut self) -> io::Result<()> {
        let vault = self.vault.clone();
        let files = self.vault.folder.blocking(move || vault.lost_files()).await.flatten()?;
        if !self.is_loaded {
            let loaded = self.database.lost_files().await;
            self.is_loaded = loaded.is_ok();
            for row in self.noticed(loaded).unwrap_or_default() {
                self.known.insert(row.name.clone(), KnownLostFile { row, is_kept: true });
            }
        }
        let now = self.database.clock().now();
        let wall = UnixMillis::from(SystemTime::now());
        let mut left = LostAndFound::default();
        let mut names = HashSet::new();
        for file in files {
            let LostFile { name, changed, .. } = &file;
            let known = self.known.get(name).filter(|known| known.row.modified == *changed);
            let since = known.map_or_else(|| since(*changed, wall, now), |known| known.row.since);
            if now.since(since) >= self.retention && purge(&self.vault, &file).await {
                continue;
            }
            if known.is_none() {
                let row = LostFileRow { name: name.clone(), modified: *changed, since };
                self.known.insert(name.clone(), KnownLostFile { row, is_kept: false });
            }
            left.count(file.bytes, file.changed);
            names.insert(file.name);
        }
        self.vault.seen().lost_and_found = left;
        let kept = self.keep(&names).await;
        self.noticed(kept);
        Ok(())
    }

    /// Writes the rows of new files, and deletes the rows of files that are gone. It ends with the
    /// first failure: each may take seconds.
    async fn keep(&mut self, names: &HashSet<String>) -> Result<(), StoreError> {
        for known in self.known.values_mut().filter(|known| !known.is_kept) {
            self.database.note_lost_file(&known.row).await?;
            known.is_kept = true;
        }
        let gone = self.known.keys().filter(|name| !names.contains(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.database.forget_lost_file(&name).await?;
            self.known.remove(&name);
        }
        Ok(())
    }

    /// Logs a failure of the database; files are purged nevertheless.
    fn noticed<T>(&mut self, result: Result<T, StoreError>) -> Option<T> {
        let was_away = std::mem::replace(&mut self.is_away, result.is_err());
        let result = result.inspect_err(|error| {
            self.database.notice(error);
            if !was_away {
                warn!("The age of files in lost+found cannot be kept: {error}");
            }
        });
        result.ok()
    }
}

/// Deletes a file. Returns whether this succeeded.
async fn purge(vault: &Vault, file: &LostFile) -> bool {
    let path = file.path.clone();
    match vault.folder.blocking(move || LostFile::purge(&path)).await.flatten() {
        Ok(()) => info!("Purged {}, for which there was no row", file.shown.display()),
        Err(cause) => {
            error!(%cause, "Cannot purge {}", file.shown.display());
            return false;
        }
    }
    true
}

/// The steady time at which a file that is seen for the first time was last changed. A file with a
/// modification time in the future counts as new.
fn since(modified: UnixMillis, wall: UnixMillis, now: SteadyMillis) -> SteadyMillis {
    let age_ms = wall.0.saturating_sub(modified.0).max(0);
    SteadyMillis(now.0.saturating_sub(age_ms))
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        time::Instant,
    };

    use sqlx::{Connection, Executor};

    use super::*;
    use crate::drivers::recordings::Folder;

    const OLD: Duration = Duration::from_secs(3600);

    /// A file that was last changed `ago` before now, by the wall clock.
    fn file(folder: &std::path::Path, name: &str, ago: Duration) {
        let lost = folder.join("lost+found");
        fs::create_dir_all(&lost).unwrap();
        fs::write(lost.join(name), b"RIFF").unwrap();
        touch(folder, name, SystemTime::now() - ago);
    }

    fn touch(folder: &std::path::Path, name: &str, at: SystemTime) {
        let file = File::options().write(true).open(folder.join("lost+found").join(name)).unwrap();
        file.set_modified(at).unwrap();
    }

    fn left(folder: &std::path::Path) -> Vec<String> {
        let entries = fs::read_dir(folder.join("lost+found")).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn files_go_by_their_age_and_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("lost.db").display());
        let database = Database::open(&url).await.unwrap();
        let vault = Vault::new(Folder::hold(folder.path().to_owned()).unwrap());
        let mut lost = LostFiles::new(database.clone(), vault, OLD);
        lost.sweep().await.unwrap();
        file(folder.path(), "old", OLD);
        file(folder.path(), "young", OLD / 2);
        touch(folder.path(), "young", SystemTime::now() - OLD / 2);
        file(folder.path(), "of tomorrow", Duration::ZERO);
        touch(folder.path(), "of tomorrow", SystemTime::now() + OLD * 24);
        // A directory in the place of a file.
        fs::create_dir(folder.path().join("lost+found/young folder")).unwrap();
        lost.sweep().await.unwrap();
        assert_eq!(left(folder.path()), ["of tomorrow", "young", "young folder"]);
        let LostAndFound { files, oldest, .. } = lost.vault.lost_and_found();
        assert_eq!(files, 3);
        let age = SystemTime::now().duration_since(oldest.unwrap().into()).unwrap();
        assert!((OLD / 2..OLD).contains(&age), "{age:?}");
        assert_eq!(database.lost_files().await.unwrap().len(), 3);
        fs::remove_file(folder.path().join("lost+found/of tomorrow")).unwrap();
        lost.sweep().await.unwrap();
        assert_eq!(database.lost_files().await.unwrap().len(), 2);
    }

    #[tokio::test]
    async fn files_go_in_their_time_while_the_database_is_locked_and_are_written_down_after_it() {
        const FILES: usize = 40;
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("lost.db").display());
        let database = Database::open(&url).await.unwrap();
        let vault = Vault::new(Folder::hold(folder.path().to_owned()).unwrap());
        for number in 0..FILES {
            file(folder.path(), &format!("old {number}"), OLD);
            file(folder.path(), &format!("young {number}"), Duration::ZERO);
        }
        let mut lost = LostFiles::new(database.clone(), vault, OLD);
        let mut other = sqlx::AnyConnection::connect(&url).await.unwrap();
        other.execute("BEGIN IMMEDIATE").await.unwrap();
        let begun = Instant::now();
        lost.sweep().await.unwrap();
        // Each query waits for a second or more for the locked database.
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(FILES as u64 / 2), "{took:?}");
        let names = left(folder.path());
        assert_eq!(names.len(), FILES);
        assert!(names.iter().all(|name| name.starts_with("young")), "{names:?}");
        assert_eq!(database.lost_files().await.unwrap(), []);
        other.execute("ROLLBACK").await.unwrap();
        lost.sweep().await.unwrap();
        assert_eq!(database.lost_files().await.unwrap().len(), FILES);
    }

    #[tokio::test]
    async fn a_file_that_was_seen_gets_no_older_by_a_clock_that_is_set() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("lost.db").display());
        let database = Database::open(&url).await.unwrap();
        let vault = Vault::new(Folder::hold(folder.path().to_owned()).unwrap());
        file(folder.path(), "young", Duration::ZERO);
        file(folder.path(), "old", Duration::ZERO);
        LostFiles::new(database.clone(), vault.clone(), OLD).sweep().await.unwrap();
        // A row as if one file was first seen long ago. The file's own modification time does not
        // count any more.
        let [mut old] = database
            .lost_files()
            .await
            .unwrap()
            .into_iter()
            .filter(|file| file.name == "lost+found/old")
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        old.since = old.since.minus(OLD);
        database.note_lost_file(&old).await.unwrap();
        LostFiles::new(database.clone(), vault.clone(), OLD).sweep().await.unwrap();
        assert_eq!(left(folder.path()), ["young"]);
        let young = &database.lost_files().await.unwrap()[0];
        assert!(database.clock().now().since(young.since) < OLD / 2);
    }

    #[test]
    fn a_file_is_as_old_as_the_wall_clock_says_when_it_is_first_seen() {
        let now = SteadyMillis(5_000_000);
        let since = |modified| since(UnixMillis(modified), UnixMillis(9_000_000), now);
        assert_eq!(since(8_000_000), SteadyMillis(4_000_000));
        assert_eq!(since(9_000_001), now);
    }
}
