//! Where clips are: one folder, files named by their ids, never outside of it.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tracing::{error, info, warn};

use super::{clip_file::COPY, spool::sync_folder};
use crate::{
    audio::wav,
    model::RecordingId,
    store::{Database, RecordingRow, StoreError},
};

/// The folder of the clips; cheap to clone.
#[derive(Debug, Clone)]
pub struct Vault {
    folder: Arc<Path>,
}

/// What was found of a clip that was being written when a process died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// A valid file now.
    Kept {
        /// The clip.
        id: RecordingId,
        /// Size of the file in bytes.
        bytes: u64,
        /// Samples at 16,000 Hz.
        samples: u64,
    },
    /// Nothing, or no sample.
    Lost {
        /// The clip.
        id: RecordingId,
    },
}

/// Why the folder cannot be put in order.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A file or the folder.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Keeps other processes out of a folder of clips.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// Where clips are moved that no row knows.
const LOST_AND_FOUND: &str = "lost+found";
const WRITTEN: &str = "wav";
const UNFINISHED: &str = "part";

impl Vault {
    /// The vault in a folder.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder: folder.into() }
    }

    /// Where a finished clip is.
    pub fn path(&self, id: RecordingId) -> PathBuf {
        self.file(id, WRITTEN)
    }

    /// Opens a finished clip; gives its size in bytes.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub async fn open(&self, id: RecordingId) -> io::Result<(tokio::fs::File, u64)> {
        let file = tokio::fs::File::open(self.path(id)).await?;
        let bytes = file.metadata().await?.len();
        Ok((file, bytes))
    }

    /// Reads a finished clip.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub async fn read(&self, id: RecordingId) -> io::Result<Vec<u8>> {
        tokio::fs::read(self.path(id)).await
    }

    /// Deletes a clip, finished or not. One that is not there is deleted already.
    ///
    /// # Errors
    /// It is there and cannot be deleted.
    pub async fn delete(&self, id: RecordingId) -> io::Result<()> {
        for extension in [WRITTEN, UNFINISHED, COPY] {
            match tokio::fs::remove_file(self.file(id, extension)).await {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Keeps other processes out of the folder for as long as what is returned lives.
    ///
    /// # Errors
    /// Another process has it, or the folder cannot be written.
    pub fn lock(&self) -> io::Result<FolderLock> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let path = self.folder.join(".lock");
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(FolderLock { _file: file }),
            Err(TryLockError::WouldBlock) => {
                let message =
                    "another aftertone uses this folder; stop that one or name another folder";
                Err(io::Error::new(io::ErrorKind::ResourceBusy, message))
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Puts the folder in order after a process died: makes valid files of the clips that `rows`
    /// say were being written, and sets aside files that no row knows. A file that cannot be mended
    /// or moved is logged, and holds up nothing else. Blocks for as long as it takes: it runs
    /// before anything else does.
    ///
    /// # Errors
    /// The folder cannot be read or written, or the database not be asked.
    pub async fn recover(
        &self,
        database: &Database,
        rows: &[RecordingRow],
    ) -> Result<Vec<Recovered>, RecoverError> {
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let id = row.id;
            found.push(self.repair(id).unwrap_or_else(|cause| {
                error!(recording.id = %id, %cause, "A clip that was being written cannot be repaired");
                // Its row goes. The bytes stay for the retention time, for repair by hand.
                for path in [self.file(id, UNFINISHED), self.path(id)] {
                    if path.exists() {
                        self.set_aside_and_log(&path);
                    }
                }
                Recovered::Lost { id }
            }));
        }
        let known: HashSet<RecordingId> = rows.iter().map(|row| row.id).collect();
        for (path, id) in self.files()? {
            // The clip that a copy was made of is there: only a whole one takes its place.
            let is_copy = path.extension().is_some_and(|extension| extension == COPY);
            let is_known = known.contains(&id) || database.recording(id).await?.is_some();
            // One without a row was opened for a recording that was never accepted.
            let is_empty = !is_known && has_no_sample(&path);
            if is_copy || is_empty {
                if let Err(cause) = fs::remove_file(&path) {
                    error!(%cause, "Cannot remove {}", path.display());
                }
                continue;
            }
            if !is_known {
                self.set_aside_and_log(&path);
            }
        }
        Ok(found)
    }

    fn set_aside_and_log(&self, path: &Path) {
        match self.set_aside(path) {
            Ok(to) => warn!(
                "No row of the database stands for the clip {}: it is now {}, and is purged when it is \
                 older than the retention time",
                path.display(),
                to.display()
            ),
            Err(cause) => error!(%cause, "Cannot move the clip {} aside", path.display()),
        }
    }

    /// Moves a file that no row knows to `lost+found`. Its time of change stays, and with it its
    /// age.
    fn set_aside(&self, path: &Path) -> io::Result<PathBuf> {
        let folder = self.folder.join(LOST_AND_FOUND);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let to = folder.join(path.file_name().unwrap_or_default());
        fs::rename(path, &to)?;
        Ok(to)
    }

    /// Deletes files of `lost+found` that were last changed more than `retention` before `now`.
    ///
    /// # Errors
    /// The folder cannot be read. A file that cannot be deleted is logged and tried again next
    /// time.
    pub fn purge_lost_and_found(&self, now: SystemTime, retention: Duration) -> io::Result<()> {
        let entries = match fs::read_dir(self.folder.join(LOST_AND_FOUND)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let path = entry?.path();
            match purge_old(&path, now, retention) {
                Ok(false) => {}
                Ok(true) => info!("Purged {}, for which there was no row", path.display()),
                Err(cause) => error!(%cause, "Cannot purge {}", path.display()),
            }
        }
        Ok(())
    }

    fn repair(&self, id: RecordingId) -> io::Result<Recovered> {
        let (part, whole) = (self.file(id, UNFINISHED), self.path(id));
        let path = if part.exists() { &part } else { &whole };
        if !path.exists() {
            return Ok(Recovered::Lost { id });
        }
        let header = wav::HEADER_BYTES as u64;
        let length = fs::metadata(path)?.len();
        let data = length.saturating_sub(header) & !1;
        if data == 0 {
            fs::remove_file(path)?;
            return Ok(Recovered::Lost { id });
        }
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.set_len(header + data)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&wav::header(u32::try_from(data).map_err(io::Error::other)?))?;
        file.sync_all()?;
        if path == &part {
            fs::rename(&part, &whole)?;
        }
        sync_folder(&self.folder)?;
        info!(recording.id = %id, duration_ms = data / 32, "A clip that was being written is whole");
        Ok(Recovered::Kept { id, bytes: header + data, samples: data / 2 })
    }

    /// The clip files in the folder.
    fn files(&self) -> Result<Vec<(PathBuf, RecordingId)>, RecoverError> {
        let failed = |source| RecoverError::Io { path: self.folder.to_path_buf(), source };
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let is_clip = path.extension().is_some_and(|extension| {
                [WRITTEN, UNFINISHED, COPY].iter().any(|known| extension == *known)
            });
            let id = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            if let (true, Some(id)) = (is_clip, id) {
                files.push((path, id));
            }
        }
        Ok(files)
    }

    fn file(&self, id: RecordingId, extension: &str) -> PathBuf {
        self.folder.join(format!("{id}.{extension}"))
    }
}

fn has_no_sample(path: &Path) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|file| file.is_file() && file.len() <= wav::HEADER_BYTES as u64)
}

/// Deletes a file, or a folder in the place of one, that was last changed more than `retention`
/// before `now`. Returns whether it did.
fn purge_old(path: &Path, now: SystemTime, retention: Duration) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(path)?;
    // A file whose time is in the future counts as new.
    if now.duration_since(metadata.modified()?).unwrap_or_default() < retention {
        return Ok(false);
    }
    match metadata.is_dir() {
        true => fs::remove_dir_all(path)?,
        false => fs::remove_file(path)?,
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{CallId, OperationId, UnixMillis},
        store::RecordingState,
    };

    const OLD: Duration = Duration::from_secs(3600);

    async fn vault_and_database(folder: &Path) -> (Vault, Database) {
        let url = format!("sqlite:{}", folder.join("fresh.db").display());
        let vault = Vault::new(folder.join("recordings"));
        fs::create_dir(folder.join("recordings")).unwrap();
        (vault, Database::open(&url).await.unwrap())
    }

    #[tokio::test]
    async fn a_clip_does_not_disappear_because_its_row_does() {
        let folder = tempfile::tempdir().unwrap();
        let (vault, database) = vault_and_database(folder.path()).await;
        let id = |n| RecordingId::from_random([n; 16]);
        let (whole, part) = ([1; 100], [2; 100]);
        fs::write(vault.path(id(1)), whole).unwrap();
        fs::write(vault.file(id(2), UNFINISHED), part).unwrap();
        // Opened for a recording that was refused: there is nothing in it to be lost.
        fs::write(vault.file(id(4), UNFINISHED), wav::header(0)).unwrap();
        // What should be a file is a folder: it is moved like the others.
        fs::create_dir(vault.file(id(3), UNFINISHED)).unwrap();
        vault.recover(&database, &[]).await.unwrap();
        let lost = folder.path().join("recordings").join(LOST_AND_FOUND);
        assert_eq!(fs::read(lost.join(format!("{}.wav", id(1)))).unwrap(), whole);
        assert_eq!(fs::read(lost.join(format!("{}.part", id(2)))).unwrap(), part);
        assert_eq!(fs::read_dir(&lost).unwrap().count(), 3);

        let now = SystemTime::now();
        vault.purge_lost_and_found(now + OLD / 2, OLD).unwrap();
        assert_eq!(fs::read_dir(&lost).unwrap().count(), 3);
        vault.purge_lost_and_found(now - OLD, OLD).unwrap();
        assert_eq!(fs::read_dir(&lost).unwrap().count(), 3, "the clock was set back");
        vault.purge_lost_and_found(now + OLD * 2, OLD).unwrap();
        assert_eq!(fs::read_dir(&lost).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_clip_that_cannot_be_repaired_is_set_aside_and_holds_up_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (vault, database) = vault_and_database(folder.path()).await;
        let id = |n| RecordingId::from_random([n; 16]);
        let row = |n| RecordingRow {
            id: id(n),
            call: CallId::from_random([n; 16]),
            operation: OperationId::from_random([n; 16]),
            application: String::new(),
            state: RecordingState::Writing,
            bytes: 0,
            created_at: UnixMillis(0),
            expires_at: None,
        };
        // A folder cannot be written as a file.
        let broken = vault.file(id(1), UNFINISHED);
        fs::create_dir(&broken).unwrap();
        fs::write(vault.file(id(2), UNFINISHED), [0; wav::HEADER_BYTES + 320]).unwrap();
        fs::write(vault.file(id(2), COPY), b"half").unwrap();
        let found = vault.recover(&database, &[row(1), row(2)]).await.unwrap();
        assert_eq!(found[0], Recovered::Lost { id: id(1) });
        assert!(matches!(found[1], Recovered::Kept { samples: 160, .. }), "{found:?}");
        let lost = folder.path().join("recordings").join(LOST_AND_FOUND);
        assert!(lost.join(broken.file_name().unwrap()).exists());
        assert!(!vault.file(id(2), COPY).exists());
    }

    #[test]
    fn a_folder_belongs_to_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let vault = Vault::new(folder.path().join("recordings"));
        let first = vault.lock().unwrap();
        let refused = Vault::new(folder.path().join("recordings")).lock().unwrap_err();
        assert!(refused.to_string().contains("another aftertone"), "{refused}");
        drop(first);
        vault.lock().unwrap();
    }
}
