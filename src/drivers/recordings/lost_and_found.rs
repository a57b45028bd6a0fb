//! Figures of the folder `lost+found`.

use aftertone_core::model::UnixMillis;

/// What is in `lost+found`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LostAndFound {
    /// Number of files.
    pub files: u64,
    /// Their total size in bytes.
    pub bytes: u64,
    /// When the oldest file was last changed; it is purged one retention time later. `None` without
    /// files.
    pub oldest: Option<UnixMillis>,
}

impl LostAndFound {
    /// Counts a file of `bytes` bytes that was last changed at `changed`.
    pub(super) fn count(&mut self, bytes: u64, changed: UnixMillis) {
        self.files += 1;
        self.bytes += bytes;
        self.oldest = Some(self.oldest.map_or(changed, |oldest| oldest.min(changed)));
    }
}
