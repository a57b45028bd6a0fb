//! A clip that is being written.

use std::sync::mpsc::SyncSender;

use crate::drivers::recordings::ClipWritten;
use aftertone_core::{audio::tape, model::RecordingId};

/// The clip of an operation that is recording or will record.
pub(super) struct Tape {
    pub(super) recording: RecordingId,
    pub(super) chunks: SyncSender<tape::Chunk>,
    pub(super) written: ClipWritten,
    /// The leg has the clip and will end it.
    pub(super) has_begun: bool,
}

impl Tape {
    /// The sender of audio chunks, for the leg.
    pub(super) fn begin(&mut self) -> SyncSender<tape::Chunk> {
        self.has_begun = true;
        self.chunks.clone()
    }
}
