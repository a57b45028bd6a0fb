//! Binds the folder of the clips to one database: both hold the same id.
//!
//! With an unmounted disk, or with the folder of another database, every clip would look deleted:
//! the rows would go while the bytes stay. So the start fails when nothing proves that the folder
//! belongs to the database. If one known clip is there, or no clip is at stake, the folder is bound
//! to the database, with a warning where that is unusual.

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{PathBuf, absolute},
};

use tracing::{info, warn};

use super::vault::Vault;
use crate::drivers::store::{Database, DatabaseIdentity, RecordingState, StoreError};
use aftertone_core::model::RecordingId;

/// Why the folder is not accepted as that of the database.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The folder is bound to no database, and looks like the mount point of an unmounted disk.
    #[error(
        "the database knows {clips} clips, and none of them is in {}: its disk may not be mounted; \
         mount it, or name the folder of the clips. If they are gone for good: {cure}",
        folder.display()
    )]
    NothingThere {
        /// The folder.
        folder: PathBuf,
        /// How many clips the database knows.
        clips: usize,
        /// The command that binds the folder nevertheless.
        cure: String,
    },
    /// The folder is bound to another database, and holds no clip of ours.
    #[error(
        "{} belongs to the database {theirs}, and none of the {clips} clips that ours ({ours}) knows is \
         there; name a folder and a database that belong together. To use this folder all the same: \
         {cure}",
        folder.display()
    )]
    Foreign {
        /// The folder.
        folder: PathBuf,
        /// Id of the database that the folder is bound to.
        theirs: String,
        /// Id of our database.
        ours: String,
        /// How many clips the database knows.
        clips: usize,
        /// The command that binds the folder nevertheless.
        cure: String,
    },
    /// The folder cannot be read or written.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file with the id, or the folder.
        file: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The file with the id of the database.
const FILE: &str = ".database";
/// Longer than any id.
const LONGEST: u64 = 64;

impl Vault {
    /// Binds the folder to a database, unless it is bound to it already. Must run before the folder
    /// is repaired.
    ///
    /// # Errors
    /// The folder is bound to another database or to none, the database knows clips, and not one of
    /// them is there.
    pub async fn bind(&self, database: &Database) -> Result<(), BindError> {
        let DatabaseIdentity { id: ours, is_new } = database.identity().await?;
        let failed = |source| BindError::Io { file: self.folder.shown().join(FILE), source };
        let theirs = self.bound_to().map_err(failed)?;
        if theirs.as_ref() == Some(&ours) {
            return Ok(());
        }
        let known = database.recording_states().await?;
        let folder = absolute(self.folder.shown()).map_err(failed)?;
        let has_one = self.has_one_of(&known).map_err(failed)?;
        // A clip that is being written or deleted may have no file. But a database that already has
        // an id was bound to a folder before, and this is another one.
        let is_missed = |state: &&RecordingState| match state {
            RecordingState::Ready => true,
            RecordingState::Writing => !is_new,
            RecordingState::Discarded | RecordingState::Deleting => false,
        };
        let clips = known.values().filter(is_missed).count();
        if clips > 0 && !has_one {
            let cure = format!("echo {ours} > '{}'", folder.join(FILE).display());
            return Err(match theirs {
                None => BindError::NothingThere { folder, clips, cure },
                Some(theirs) => BindError::Foreign { folder, theirs, ours, clips, cure },
            });
        }
        self.write_id(&ours).map_err(failed)?;
        let folder = folder.display();
        match theirs {
            Some(theirs) => warn!(
                "{folder} belonged to the database {theirs} and belongs to ours ({ours}) from now on. \
                 Clips that ours does not know are moved to lost+found there, and brought back at a \
                 start with the database that does, as long as they are kept"
            ),
            None if is_new || has_one => info!("{folder} belongs to the database {ours}"),
            None => warn!(
                "{folder} belonged to no database, while ours ({ours}) has had another folder before. \
                 If its disk is not mounted, stop aftertone and mount it: what is recorded now would be \
                 hidden below the mount"
            ),
        }
        Ok(())
    }

    /// Id of the database that the folder belongs to.
    fn bound_to(&self) -> io::Result<Option<String>> {
        let file = match OpenOptions::new().read(true).open(self.folder.join(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(LONGEST).read_to_end(&mut bytes)?;
        let id = String::from_utf8_lossy(&bytes).trim().to_owned();
        Ok((!id.is_empty()).then_some(id))
    }

    fn write_id(&self, id: &str) -> io::Result<()> {
        let fresh = self.folder.join(format!("{FILE}.new"));
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        writeln!(file, "{id}")?;
        file.sync_all()?;
        fs::rename(&fresh, self.folder.join(FILE))?;
        self.folder.sync()
    }

    /// Whether one of these clips is in the folder, or in its `lost+found`.
    fn has_one_of(&self, known: &HashMap<RecordingId, RecordingState>) -> io::Result<bool> {
        let is_known = |id: &RecordingId| known.contains_key(id);
        Ok(self.clips()?.iter().any(|(_, id)| is_known(id))
            || self.lost_clips()?.iter().any(|(_, id)| is_known(id)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sqlx::{AnyConnection, Connection, Executor};

    use super::*;
    use crate::drivers::recordings::folder::Folder;

    fn id(n: u8) -> RecordingId {
        RecordingId::from_random([n; 16])
    }

    fn vault(path: &Path) -> Vault {
        Vault::new(Folder::hold(path.to_owned()).unwrap())
    }

    async fn database(path: &Path) -> Database {
        Database::open(&format!("sqlite:{}", path.display())).await.unwrap()
    }

    /// A database that knows the clip 1.
    async fn database_with_a_clip(path: &Path) -> Database {
        database_with_a_clip_that_is(path, "ready").await
    }

    async fn database_with_a_clip_that_is(path: &Path, state: &str) -> Database {
        let database = database(path).await;
        let url = format!("sqlite:{}", path.display());
        let mut other = AnyConnection::connect(&url).await.unwrap();
        let rows = format!(
            "INSERT INTO calls (id, application, state, created_at, body) \
             VALUES ('c', '', 'terminated', 0, ''); \
             INSERT INTO recordings (id, call_id, operation_id, application, state, created_at) \
             VALUES ('{}', 'c', 'o', '', '{state}', 0)",
            id(1)
        );
        other.execute(sqlx::AssertSqlSafe(rows)).await.unwrap();
        database
    }

    fn bound_to(path: &Path) -> String {
        fs::read_to_string(path.join(FILE)).unwrap().trim().to_owned()
    }

    #[tokio::test]
    async fn a_folder_and_its_database_find_each_other_again() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("recordings");
        for _ in 0..2 {
            let database = database(&outer.path().join("a.db")).await;
            vault(&folder).bind(&database).await.unwrap();
            assert_eq!(bound_to(&folder), database.identity().await.unwrap().id);
        }
        // After a database was set aside as damaged.
        let fresh = database(&outer.path().join("b.db")).await;
        vault(&folder).bind(&fresh).await.unwrap();
        assert_eq!(bound_to(&folder), fresh.identity().await.unwrap().id);
    }

    #[tokio::test]
    async fn an_empty_folder_is_not_that_of_a_database_with_clips() {
        let outer = tempfile::tempdir().unwrap();
        let database = database_with_a_clip(&outer.path().join("a.db")).await;
        let folder = outer.path().join("not mounted");
        let refused = vault(&folder).bind(&database).await.unwrap_err();
        let BindError::NothingThere { clips: 1, cure, .. } = refused else { panic!("{refused}") };
        assert!(!folder.join(FILE).exists());
        // The command in the message works.
        assert!(std::process::Command::new("sh").args(["-c", &cure]).status().unwrap().success());
        vault(&folder).bind(&database).await.unwrap();
    }

    #[tokio::test]
    async fn a_clip_that_may_have_no_file_is_not_missed() {
        for (state, is_missed) in [("writing", true), ("discarded", false), ("deleting", false)] {
            let outer = tempfile::tempdir().unwrap();
            let (folder, other) = (outer.path().join("recordings"), outer.path().join("other"));
            let database = database_with_a_clip_that_is(&outer.path().join("a.db"), state).await;
            // The database has no id yet.
            vault(&folder).bind(&database).await.unwrap();
            vault(&folder).bind(&database).await.unwrap();
            assert_eq!(vault(&other).bind(&database).await.is_err(), is_missed, "{state}");
        }
    }

    #[tokio::test]
    async fn the_folder_of_another_database_is_refused_by_one_with_clips() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("recordings");
        let other = database(&outer.path().join("b.db")).await;
        vault(&folder).bind(&other).await.unwrap();
        let ours = database_with_a_clip(&outer.path().join("a.db")).await;
        let refused = vault(&folder).bind(&ours).await.unwrap_err().to_string();
        for id in [other.identity().await.unwrap().id, ours.identity().await.unwrap().id] {
            assert!(refused.contains(&id), "{refused}");
        }
        assert_eq!(bound_to(&folder), other.identity().await.unwrap().id);
    }

    #[tokio::test]
    async fn a_folder_with_a_clip_of_the_database_is_its_own_whatever_the_id() {
        for place in ["", "lost+found"] {
            for theirs in [None, Some("another")] {
                let outer = tempfile::tempdir().unwrap();
                let database = database_with_a_clip(&outer.path().join("a.db")).await;
                let folder = outer.path().join("recordings");
                fs::create_dir_all(folder.join(place)).unwrap();
                fs::write(folder.join(place).join(format!("{}.wav", id(1))), b"clip").unwrap();
                if let Some(theirs) = theirs {
                    fs::write(folder.join(FILE), theirs).unwrap();
                }
                vault(&folder).bind(&database).await.unwrap();
                assert_eq!(bound_to(&folder), database.identity().await.unwrap().id);
            }
        }
    }
}
