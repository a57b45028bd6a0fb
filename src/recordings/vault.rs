//! Where clips are: one folder, files named by their ids, never outside of it.

use std::{
    collections::HashSet,
    fs::{self, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use tracing::{info, warn};

use super::spool::sync_folder;
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
        for extension in [WRITTEN, UNFINISHED] {
            match tokio::fs::remove_file(self.file(id, extension)).await {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Puts the folder in order after a process died: makes valid files of the clips that `rows`
    /// say were being written, and deletes files that no row knows. Blocks for as long as it takes:
    /// it runs before anything else does.
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
            found.push(self.repair(id).map_err(|source| self.failed(id, source))?);
        }
        let known: HashSet<RecordingId> = rows.iter().map(|row| row.id).collect();
        for (path, id) in self.files()? {
            if !known.contains(&id) && database.recording(id).await?.is_none() {
                warn!(file = %path.display(), "a clip without a row is deleted");
                fs::remove_file(&path).map_err(|source| RecoverError::Io { path, source })?;
            }
        }
        Ok(found)
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
            let is_clip = path.extension().is_some_and(|e| e == WRITTEN || e == UNFINISHED);
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

    fn failed(&self, id: RecordingId, source: io::Error) -> RecoverError {
        RecoverError::Io { path: self.path(id), source }
    }
}
