//! The file of one clip: written chunk by chunk, and synced at its end.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use tracing::warn;

use super::SpoolError;
use aftertone_core::audio::wav;

/// File extension of a second copy of a clip, while the copy is written.
pub(super) const COPY: &str = "copy";
/// How often a failed rewrite, cut or rename of a clip is tried.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);

/// One clip on the disk, valid up to its last whole chunk at any moment.
#[derive(Debug)]
pub(super) struct ClipFile {
    file: File,
    pub path: PathBuf,
    /// Bytes of samples on the disk.
    pub data_bytes: u32,
}

impl ClipFile {
    /// Creates the file, with a header and no sample.
    ///
    /// # Errors
    /// It exists already, or the disk is full or fails; then no file is left behind.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        if let Err(error) = file.write_all(&wav::header(0)) {
            // If this fails too, the file is removed at the next start: it holds no sample.
            let _ = fs::remove_file(path);
            return Err(error);
        }
        Ok(Self { file, path: path.to_owned(), data_bytes: 0 })
    }

    /// Appends samples, then corrects the header: between the two, the file is a valid WAV without
    /// its last half second.
    pub(super) fn append(&mut self, samples: &[i16]) -> io::Result<()> {
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let more = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let total = self.data_bytes.checked_add(more).ok_or(io::ErrorKind::FileTooLarge)?;
        self.file.seek(SeekFrom::End(0))?;
        self.file.write_all(&bytes)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&wav::header(total))?;
        self.data_bytes = total;
        Ok(())
    }

    /// Makes the bytes of the clip safe from a power cut.
    ///
    /// After a failed sync, Linux may mark pages as written that are not on the disk, and the next
    /// sync of the same file reports success. So the clip is written again, to a new file.
    pub(super) fn make_safe(&mut self) -> io::Result<()> {
        let Err(error) = self.file.sync_all() else { return Ok(()) };
        warn!(%error, file = ?self.path.file_name(), "A clip cannot be synced; it is written again");
        for _ in 1..ATTEMPTS {
            match self.write_again() {
                Ok(()) => return Ok(()),
                Err(_) => thread::sleep(PAUSE),
            }
        }
        self.write_again()
    }

    /// Writes the clip to a new file, which replaces the old one after it is synced.
    fn write_again(&mut self) -> io::Result<()> {
        let copy = self.path.with_extension(COPY);
        let mut bytes = Vec::with_capacity(wav::HEADER_BYTES + self.data_bytes as usize);
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_end(&mut bytes)?;
        if bytes.len() != wav::HEADER_BYTES + self.data_bytes as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let written = || -> io::Result<File> {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&copy)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&copy, &self.path)?;
            Ok(file)
        };
        match written() {
            Ok(file) => self.file = file,
            Err(error) => {
                // If this fails too, the copy is removed at the next start.
                let _ = fs::remove_file(&copy);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Removes the bytes that a failed write may have left after the last whole chunk.
    pub(super) fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(wav::HEADER_BYTES as u64 + u64::from(self.data_bytes))?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&wav::header(self.data_bytes))
    }

    pub(super) fn failed(&self, source: io::Error) -> SpoolError {
        SpoolError::Io { path: self.path.clone(), source }
    }
}

/// Repeats an action that may fail for a moment only.
pub(super) fn again(mut attempt: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(_) => thread::sleep(PAUSE),
        }
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_clip_that_cannot_be_synced_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut clip = ClipFile::create(&folder.path().join("clip.part")).unwrap();
        clip.append(&[7; 8000]).unwrap();
        let before = clip.file.metadata().unwrap().ino();
        clip.write_again().unwrap();
        assert_ne!(clip.file.metadata().unwrap().ino(), before);
        clip.append(&[8; 100]).unwrap();
        let mut reader = hound::WavReader::open(&clip.path).unwrap();
        let samples: Vec<i16> = reader.samples().map(Result::unwrap).collect();
        assert!(samples == [vec![7; 8000], vec![8; 100]].concat());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
