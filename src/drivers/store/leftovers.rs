//! In which files of SQLite copies of deleted rows may be.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use tokio::sync::Mutex;

/// Where rests of deleted rows may be.
#[derive(Debug)]
pub(super) struct Erasure {
    pub in_wal: AtomicBool,
    pub in_pages: AtomicBool,
    /// When the file may be written anew.
    pub next_rebuild: Mutex<Instant>,
}

impl Erasure {
    /// Nothing is known of a file: there may be rests in it.
    pub fn new() -> Self {
        Self {
            in_wal: AtomicBool::new(true),
            in_pages: AtomicBool::new(true),
            next_rebuild: Mutex::new(Instant::now()),
        }
    }

    /// Rows were deleted.
    pub fn is_due(&self) {
        self.in_pages.store(true, Ordering::Relaxed);
        self.in_wal.store(true, Ordering::Relaxed);
    }
}
