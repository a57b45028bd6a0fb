//! Which files of SQLite may hold copies of deleted rows.

use std::{sync::atomic::AtomicBool, time::Instant};

use tokio::sync::Mutex;

/// Where copies of deleted rows may be.
#[derive(Debug)]
pub(super) struct Erasure {
    pub in_wal: AtomicBool,
    pub in_pages: AtomicBool,
    /// The earliest time of the next rebuild of the file.
    pub next_rebuild: Mutex<Instant>,
}

impl Erasure {
    /// At the start nothing is known about the files, so both may hold copies.
    pub(super) fn new() -> Self {
        Self {
            in_wal: AtomicBool::new(true),
            in_pages: AtomicBool::new(true),
            next_rebuild: Mutex::new(Instant::now()),
        }
    }
}
