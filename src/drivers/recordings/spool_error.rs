//! Why a clip cannot be written.

use std::{io, path::PathBuf};

use bytesize::ByteSize;

use super::FolderFault;

/// Why a clip cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk failed.
    #[error("cannot write {}: {source}", path.file_name().unwrap_or_default().display())]
    Io {
        /// The file or the folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Less is free than `storage.low_water`.
    #[error("{} are free for recordings, less than storage.low_water, {}", ByteSize(*free), ByteSize(*low_water))]
    LowWater {
        /// Bytes that are free.
        free: u64,
        /// Bytes that must be free.
        low_water: u64,
    },
    /// The folder is not usable.
    #[error(transparent)]
    Folder(FolderFault),
    /// Too many clips are open, or too many of one call.
    #[error("{0} recordings are open already, and the rest is kept for other calls")]
    TooMany(usize),
    /// The clip is open already.
    #[error("the recording is being written already")]
    InUse,
    /// The writer has stopped.
    #[error("the writer of recordings has stopped")]
    Stopped,
}
