//! A clip that is being written.

use std::sync::mpsc::SyncSender;

use crate::drivers::recordings::{ClipWritten, Finished};
use aftertone_core::{
    audio::{Rate, tape},
    call::SafeClip,
    model::RecordingId,
};

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

pub(super) fn safe_clip(Finished { bytes, samples, is_cut_short }: Finished) -> SafeClip {
    let duration_ms = samples * 1_000 / u64::from(Rate::Hz16000.hz());
    SafeClip { bytes, duration_ms, is_cut_short }
}
