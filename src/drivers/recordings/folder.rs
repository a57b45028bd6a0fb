//! The folder of the clips, held open for as long as the daemon runs.
//!
//! All files are accessed in the folder that was opened at the start, wherever it is by then:
//! renamed, unmounted while in use, or hidden by a later mount. Its configured path could lead to
//! another folder or to none, and a clip that is not found there would count as deleted. File paths
//! go by the descriptor (`/proc/self/fd/N/NAME`), which Linux resolves to the folder itself.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::{
        fd::AsRawFd,
        unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::unistd::{AccessFlags, access};
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::drivers::store::lock_for_life;

/// The folder of the clips; cheap to clone. While a clone lives, the folder is locked against other
/// processes.
#[derive(Debug, Clone)]
pub struct Folder {
    inner: Arc<HeldFolder>,
}

#[derive(Debug)]
struct HeldFolder {
    /// The path in the configuration.
    configured: PathBuf,
    /// The path by descriptor; valid for as long as `held` is open.
    path: PathBuf,
    held: File,
    _lock: File,
    /// Permits for threads that may wait for the disk.
    waits: Arc<Semaphore>,
}

/// How many threads may wait for the disk at a time. The process has 512 blocking threads in all,
/// and one that waits for a disk that does not answer waits for ever.
const WAITS: usize = 64;

/// What is wrong with the folder while the daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FolderFault {
    /// The configured path leads elsewhere or nowhere: the folder was moved or unmounted, or
    /// another file system is mounted over it.
    #[error("the folder of the recordings is not where it was")]
    Away,
    /// The folder cannot be written: it is mounted read-only, or belongs to another user.
    #[error("the folder of the recordings cannot be written")]
    Unwritable,
    /// The disk has not answered for seconds.
    #[error("the folder of the recordings does not answer")]
    Silent,
}

impl Folder {
    /// Creates the folder if it does not exist, opens it, and locks it against other processes.
    ///
    /// # Errors
    /// It cannot be created, opened or written, or another process has locked it; or `/proc` is not
    /// mounted.
    pub fn hold(configured: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&configured)?;
        let held = File::open(&configured)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        let is_itself =
            |there: fs::Metadata| io::Result::Ok(identity(&there) == identity(&held.metadata()?));
        if !fs::metadata(&path).and_then(is_itself).unwrap_or(false) {
            return Err(io::Error::other("it can only be used when /proc is mounted"));
        }
        let lock = lock(&path.join(LOCK))?;
        Ok(Self::new(configured, path, held, lock))
    }

    fn new(configured: PathBuf, path: PathBuf, held: File, lock: File) -> Self {
        let waits = Arc::new(Semaphore::new(WAITS));
        Self { inner: Arc::new(HeldFolder { configured, path, held, _lock: lock, waits }) }
    }

    /// Runs blocking disk work on a thread. When [`WAITS`] threads wait for the disk already, the
    /// caller waits until one is free.
    ///
    /// # Errors
    /// The work has panicked.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let permit = Arc::clone(&self.inner.waits).acquire_owned().await;
        let permit = permit.map_err(io::Error::other)?;
        let done = spawn_blocking(move || {
            let done = work();
            drop(permit);
            done
        });
        done.await.map_err(io::Error::other)
    }

    /// Path of a file in the folder, wherever the folder is. It is valid while a clone of this
    /// lives.
    pub(super) fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.inner.path.join(name)
    }

    /// Path of the folder itself, wherever it is. It is valid while a clone of this lives.
    pub(super) fn path(&self) -> &Path {
        &self.inner.path
    }

    /// The path in the configuration: for display only.
    pub(super) fn shown(&self) -> &Path {
        &self.inner.configured
    }

    /// Syncs the folder, so that renames in it survive a power cut.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.inner.held.sync_all()
    }

    /// Checks that the configured path leads to this folder. Blocks as long as the disk does.
    ///
    /// # Errors
    /// It leads elsewhere, or the folder cannot be read.
    pub(super) fn check_place(&self) -> io::Result<()> {
        let there = fs::metadata(&self.inner.configured).map_err(|error| match error.kind() {
            // "Not found" would be taken as an answer about a clip.
            io::ErrorKind::NotFound => io::Error::other(FolderFault::Away),
            _ => error,
        })?;
        if identity(&there) == identity(&self.inner.held.metadata()?) {
            Ok(())
        } else {
            Err(io::Error::other(FolderFault::Away))
        }
    }

    /// Checks that the folder was not deleted itself. In a deleted folder no file is found, and
    /// that says nothing about where the files are.
    ///
    /// # Errors
    /// It was deleted, or cannot be read.
    pub(super) fn check_existence(&self) -> io::Result<()> {
        match self.inner.held.metadata()?.nlink() {
            0 => Err(io::Error::other("the folder of the recordings was itself deleted")),
            _ => Ok(()),
        }
    }

    /// Finds what is wrong with the folder. Blocks as long as the disk does.
    pub(super) fn look(&self) -> Option<FolderFault> {
        if self.check_place().is_err() {
            return Some(FolderFault::Away);
        }
        let all = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
        access(self.path(), all).err().map(|_| FolderFault::Unwritable)
    }
}

/// Processes that use the same folder lock this file.
const LOCK: &str = ".lock";

/// Device and inode number of a file. Both are read anew for each comparison: those of an open
/// folder may change when an overlay file system copies it.
fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn lock(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)?;
    match lock_for_life(&file) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message =
                "another aftertone uses this folder; stop that one or name another folder";
            Err(io::Error::new(io::ErrorKind::ResourceBusy, message))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
impl Folder {
    /// A folder in which every operation fails.
    pub(super) fn broken() -> Self {
        let held = File::open("/dev/null").unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        let lock = held.try_clone().unwrap();
        Self::new(path.clone(), path, held, lock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_belongs_to_one_process() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("recordings");
        let first = Folder::hold(path.clone()).unwrap();
        let refused = Folder::hold(path.clone()).unwrap_err();
        assert!(refused.to_string().contains("another aftertone"), "{refused}");
        // The lock also holds under another name of the folder.
        let moved = outer.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        assert!(Folder::hold(moved.clone()).is_err());
        fs::rename(&moved, &path).unwrap();
        drop(first);
        Folder::hold(path).unwrap();
    }

    #[test]
    fn a_folder_that_was_moved_or_replaced_is_not_in_its_place_and_is_used_all_the_same() {
        let outer = tempfile::tempdir().unwrap();
        let (path, moved) = (outer.path().join("recordings"), outer.path().join("moved"));
        let folder = Folder::hold(path.clone()).unwrap();
        assert_eq!(folder.look(), None);
        fs::rename(&path, &moved).unwrap();
        assert_eq!(folder.look(), Some(FolderFault::Away));
        fs::create_dir(&path).unwrap();
        assert_eq!(folder.look(), Some(FolderFault::Away), "another folder is in its place");
        fs::write(folder.join("file"), b"bytes").unwrap();
        folder.sync().unwrap();
        assert!(moved.join("file").exists() && !path.join("file").exists());
        folder.check_existence().unwrap();
        fs::remove_dir(&path).unwrap();
        fs::rename(&moved, &path).unwrap();
        assert_eq!(folder.look(), None);
        fs::remove_dir_all(&path).unwrap();
        assert!(folder.check_existence().is_err());
        assert_eq!(folder.look(), Some(FolderFault::Away));
    }
}
