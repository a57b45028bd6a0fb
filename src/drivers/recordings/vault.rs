//! The store of clips: one folder, with files named by their ids.

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs::{self, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing::{error, info, warn};

use super::{
    clip_file::COPY,
    clip_reader::ClipReader,
    folder::{Folder, FolderFault},
    lost_and_found::LostAndFound,
};
use crate::drivers::store::{Database, RecordingRow, RecordingState, StoreError};
use aftertone_core::{audio::wav, model::RecordingId};

/// The clips in their folder; cheap to clone.
#[derive(Debug, Clone)]
pub struct Vault {
    pub(super) folder: Folder,
    pub(super) seen: Arc<Mutex<FolderReport>>,
}

/// Results of the keeper's last check.
#[derive(Debug, Default)]
pub(super) struct FolderReport {
    pub fault: Option<FolderFault>,
    pub lost_and_found: LostAndFound,
}

/// The result of the repair of a clip that was being written when a process died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovered {
    /// The file is valid now.
    Kept {
        /// The clip.
        id: RecordingId,
        /// Size of the file in bytes.
        bytes: u64,
        /// Samples at 16,000 Hz.
        samples: u64,
    },
    /// There was no file, or no sample in it.
    Lost {
        /// The clip.
        id: RecordingId,
    },
}

/// Why the folder cannot be repaired.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A file or the folder failed.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const WRITTEN: &str = "wav";
const UNFINISHED: &str = "part";

impl Vault {
    /// The clips in a folder.
    pub fn new(folder: Folder) -> Self {
        Self { folder, seen: Arc::default() }
    }

    /// Path of a finished clip. It is valid while this or a clone of it lives.
    pub fn path(&self, id: RecordingId) -> PathBuf {
        self.file(id, WRITTEN)
    }

    /// The fault of the folder at the keeper's last check.
    pub fn fault(&self) -> Option<FolderFault> {
        self.seen().fault
    }

    /// Opens a finished clip; also returns its size in bytes.
    ///
    /// # Errors
    /// It does not exist ([`io::ErrorKind::NotFound`]), cannot be read, or the folder is not in its
    /// place.
    pub async fn open(&self, id: RecordingId) -> io::Result<(ClipReader, u64)> {
        self.check_answers()?;
        let vault = self.clone();
        let opened = self.folder.blocking(move || {
            vault.folder.check_place()?;
            let file = fs::File::open(vault.path(id))?;
            let bytes = file.metadata()?.len();
            Ok((file, bytes))
        });
        let (file, bytes) = opened.await.flatten()?;
        Ok((ClipReader::new(file, self.folder.clone()), bytes))
    }

    /// Reads a finished clip.
    ///
    /// # Errors
    /// As for [`Vault::open`].
    pub async fn read(&self, id: RecordingId) -> io::Result<Vec<u8>> {
        self.check_answers()?;
        let vault = self.clone();
        let read = self.folder.blocking(move || {
            vault.folder.check_place()?;
            fs::read(vault.path(id))
        });
        read.await.flatten()
    }

    /// Fails at once when the disk does not answer: a request would only wait for it.
    fn check_answers(&self) -> io::Result<()> {
        match self.fault() {
            Some(fault @ FolderFault::Silent) => Err(io::Error::other(fault)),
            Some(FolderFault::Away | FolderFault::Unwritable) | None => Ok(()),
        }
    }

    /// Deletes a clip, finished or not, wherever the folder is by now. A clip that does not exist
    /// counts as deleted.
    ///
    /// # Errors
    /// It exists and cannot be deleted, or the folder was itself deleted: then the files may have
    /// been moved elsewhere.
    pub async fn delete(&self, id: RecordingId) -> io::Result<()> {
        let vault = self.clone();
        let deleted = self.folder.blocking(move || {
            for extension in [WRITTEN, UNFINISHED, COPY] {
                match fs::remove_file(vault.file(id, extension)) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            vault.folder.check_existence()
        });
        deleted.await.flatten()
    }

    /// Repairs the folder after a process died: makes valid files of the clips that `rows` say were
    /// being written, and moves files that have no row aside. A file that cannot be repaired or
    /// moved is logged, and does not stop the others. Blocks until it is done: it runs before
    /// everything else.
    ///
    /// # Errors
    /// The folder cannot be read or written, or the database failed.
    pub async fn recover(
        &self,
        database: &Database,
        rows: &[RecordingRow],
    ) -> Result<Vec<Recovered>, RecoverError> {
        let known = database.recording_states().await?;
        self.bring_back(&known).map_err(|source| self.failed(source))?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let id = row.id;
            found.push(self.repair(id).unwrap_or_else(|cause| {
                error!(recording.id = %id, %cause, "A clip that was being written cannot be repaired");
                // Its row is deleted. The bytes stay for the retention time, for repair by hand.
                for extension in [UNFINISHED, WRITTEN] {
                    if self.file(id, extension).exists() {
                        self.set_aside_and_log(&[name(id, extension)]);
                    }
                }
                Recovered::Lost { id }
            }));
        }
        let files = self.clips().map_err(|source| self.failed(source))?;
        // The original clip still exists: only a complete copy replaces it.
        for (name, _) in files.iter().filter(|(name, _)| has_extension(name, COPY)) {
            if let Err(cause) = fs::remove_file(self.folder.join(name)) {
                error!(%cause, "Cannot remove {}", self.folder.shown().join(name).display());
            }
        }
        self.warn_of_missing(&known, &files);
        self.set_aside_unknown(database, Duration::ZERO, &mut HashSet::new()).await?;
        Ok(found)
    }

    fn warn_of_missing(
        &self,
        known: &HashMap<RecordingId, RecordingState>,
        files: &[(OsString, RecordingId)],
    ) {
        let there: HashSet<RecordingId> = files.iter().map(|(_, id)| *id).collect();
        let is_missing = |(id, state): &(&RecordingId, &RecordingState)| {
            **state == RecordingState::Ready && !there.contains(id)
        };
        let missing = known.iter().filter(is_missing).count();
        if missing > 0 {
            warn!(
                clips = missing,
                "Clips that the database knows are not in {}: they were removed, or lie in a folder \
                 over which another one was mounted",
                self.folder.shown().display()
            );
        }
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
        self.folder.sync()?;
        info!(recording.id = %id, duration_ms = data / 32, "A clip that was being written is whole");
        Ok(Recovered::Kept { id, bytes: header + data, samples: data / 2 })
    }

    /// The clip files in the folder.
    pub(super) fn clips(&self) -> io::Result<Vec<(OsString, RecordingId)>> {
        clips_in(self.folder.path().to_owned())
    }

    fn file(&self, id: RecordingId, extension: &str) -> PathBuf {
        self.folder.join(name(id, extension))
    }

    pub(super) fn failed(&self, source: io::Error) -> RecoverError {
        RecoverError::Io { path: self.folder.shown().to_owned(), source }
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, FolderReport> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Names and ids of the clip files in a folder.
pub(super) fn clips_in(folder: PathBuf) -> io::Result<Vec<(OsString, RecordingId)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(id) = id_of(&name) {
            files.push((name, id));
        }
    }
    Ok(files)
}

/// The clip that a file belongs to.
fn id_of(name: &OsStr) -> Option<RecordingId> {
    let (id, extension) = name.to_str()?.split_once('.')?;
    [WRITTEN, UNFINISHED, COPY].contains(&extension).then(|| id.parse().ok())?
}

fn name(id: RecordingId, extension: &str) -> OsString {
    format!("{id}.{extension}").into()
}

fn has_extension(name: &OsStr, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|its| its == extension)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aftertone_core::model::{CallId, OperationId, UnixMillis};

    async fn vault_and_database(folder: &Path) -> (Vault, Database) {
        let url = format!("sqlite:{}", folder.join("fresh.db").display());
        let vault = Vault::new(Folder::hold(folder.join("recordings")).unwrap());
        (vault, Database::open(&url).await.unwrap())
    }

    #[tokio::test]
    async fn a_clip_that_cannot_be_repaired_is_set_aside_and_holds_up_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (vault, database) = vault_and_database(folder.path()).await;
        let row = |n| RecordingRow {
            id: id(n),
            call: CallId::from_random([n; 16]),
            operation: OperationId::from_random([n; 16]),
            application: None,
            state: RecordingState::Writing,
            bytes: 0,
            created_at: UnixMillis(0),
            expires_at: None,
        };
        // Opening a directory for writing fails.
        let broken = vault.file(id(1), UNFINISHED);
        fs::create_dir(&broken).unwrap();
        fs::write(vault.file(id(2), UNFINISHED), [0; wav::HEADER_BYTES + 320]).unwrap();
        fs::write(vault.file(id(2), COPY), b"half").unwrap();
        let found = vault.recover(&database, &[row(1), row(2)]).await.unwrap();
        assert_eq!(found[0], Recovered::Lost { id: id(1) });
        assert!(matches!(found[1], Recovered::Kept { samples: 160, .. }), "{found:?}");
        let lost = folder.path().join("recordings").join("lost+found");
        assert!(lost.join(broken.file_name().unwrap()).exists());
        assert!(!vault.file(id(2), COPY).exists());
    }

    fn id(n: u8) -> RecordingId {
        RecordingId::from_random([n; 16])
    }

    #[tokio::test]
    async fn a_clip_is_deleted_wherever_its_folder_was_moved() {
        let outer = tempfile::tempdir().unwrap();
        let (vault, _) = vault_and_database(outer.path()).await;
        let (path, moved) = (outer.path().join("recordings"), outer.path().join("moved"));
        fs::write(vault.path(id(1)), b"clip").unwrap();
        fs::rename(&path, &moved).unwrap();
        let error = vault.open(id(1)).await.unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::NotFound, "nothing is said of the clip");
        // A clip of that name in the folder at the old path is not ours.
        fs::create_dir(&path).unwrap();
        let name = name(id(1), WRITTEN);
        fs::write(path.join(&name), b"another").unwrap();
        vault.delete(id(1)).await.unwrap();
        assert!(!moved.join(&name).exists() && path.join(&name).exists());
    }

    /// A file that blocks its readers, as on a disk that does not answer, until it is opened for
    /// writing.
    fn without_answer(path: PathBuf) -> impl FnOnce() -> fs::File {
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        move || OpenOptions::new().read(true).write(true).open(path).unwrap()
    }

    #[tokio::test]
    async fn who_reads_from_a_disk_that_does_not_answer_does_not_wait_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let (vault, _) = vault_and_database(folder.path()).await;
        let answer = without_answer(vault.path(id(1)));
        vault.seen().fault = Some(FolderFault::Silent);
        let soon = Duration::from_secs(5);
        let opened = tokio::time::timeout(soon, vault.open(id(1))).await;
        let read = tokio::time::timeout(soon, vault.read(id(1))).await;
        drop(answer());
        for refused in [opened.map(|opened| opened.map(drop)), read.map(|read| read.map(drop))] {
            let error = refused.expect("it is refused at once").unwrap_err();
            assert!(error.to_string().contains("does not answer"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_disk_that_does_not_answer_holds_few_of_the_threads_that_all_share() {
        let folder = tempfile::tempdir().unwrap();
        let (vault, _) = vault_and_database(folder.path()).await;
        let answer = without_answer(vault.path(id(1)));
        // More than there are threads.
        let opening: Vec<_> = (0..600)
            .map(|_| {
                let vault = vault.clone();
                tokio::spawn(async move { vault.open(id(1)).await })
            })
            .collect();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let other = tokio::task::spawn_blocking(|| ());
        let other = tokio::time::timeout(Duration::from_secs(10), other).await;
        let _writer = answer();
        for opened in opening {
            opened.await.unwrap().unwrap();
        }
        assert!(other.is_ok(), "no thread was left");
    }

    #[tokio::test]
    async fn that_the_folder_was_deleted_does_not_mean_that_its_clips_were() {
        let outer = tempfile::tempdir().unwrap();
        let (vault, _) = vault_and_database(outer.path()).await;
        let path = outer.path().join("recordings");
        vault.delete(id(1)).await.expect("what is not in the folder is deleted already");
        // An operator copies the folder, deletes it, and gives the copy its name.
        fs::remove_dir_all(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join(name(id(1), WRITTEN)), b"clip").unwrap();
        assert!(vault.delete(id(1)).await.is_err());
    }
}
