//! Figures of the folder `lost+found`.

use aftertone_core::model::UnixMillis;

/// What is in `lost+found`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LostAndFound {
    /// How many files.
    pub files: u64,
    /// Their size together, in bytes.
    pub bytes: u64,
    /// When the oldest was last changed; it is purged the retention time later. `None` when there
    /// is none.
    pub oldest: Option<UnixMillis>,
}

impl LostAndFound {
    /// Counts a file of so many bytes that was last changed then.
    pub(super) fn count(&mut self, bytes: u64, changed: UnixMillis) {
        self.files += 1;
        self.bytes += bytes;
        self.oldest = Some(self.oldest.map_or(changed, |oldest| oldest.min(changed)));
    }
}
