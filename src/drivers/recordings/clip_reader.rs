//! Reads a finished clip piece by piece.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use super::Folder;

/// An open clip and the position of the next read. A purge does not close the file.
#[derive(Debug)]
pub struct ClipReader {
    file: Arc<File>,
    folder: Folder,
    at: u64,
}

impl ClipReader {
    /// Reads a clip of the folder from its start.
    pub(super) fn new(file: File, folder: Folder) -> Self {
        Self { file: Arc::new(file), folder, at: 0 }
    }

    /// Continues at the byte `at`, counted from the start of the file.
    pub fn seek(&mut self, at: u64) {
        self.at = at;
    }

    /// Reads the next bytes, `most` of them at most; none at the end.
    ///
    /// # Errors
    /// The disk failed.
    pub async fn read(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let (file, at) = (Arc::clone(&self.file), self.at);
        let read = self.folder.blocking(move || {
            let mut bytes = vec![0; most];
            let length = file.read_at(&mut bytes, at)?;
            bytes.truncate(length);
            Ok(bytes)
        });
        let bytes = read.await.flatten()?;
        self.at += bytes.len() as u64;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clip_is_read_to_its_end_from_wherever_that_is_begun() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::hold(place.path().to_owned()).unwrap();
        let bytes: Vec<u8> = (0..=255).cycle().take(1_000).collect();
        std::fs::write(folder.join("clip"), &bytes).unwrap();
        for from in [0, 1, 640, 1_000, 2_000] {
            let file = File::open(folder.join("clip")).unwrap();
            let mut reader = ClipReader::new(file, folder.clone());
            reader.seek(from as u64);
            let mut read = Vec::new();
            loop {
                let piece = reader.read(300).await.unwrap();
                if piece.is_empty() {
                    break;
                }
                assert!(piece.len() <= 300);
                read.extend(piece);
            }
            assert_eq!(read, bytes[from.min(1_000)..]);
        }
    }
}
