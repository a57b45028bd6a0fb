//! What a leg passes to the writer of recordings: 16 kHz PCM in chunks, then the end. And what the
//! writer reports then.

use super::Rate;
use crate::model::RecordingId;

/// A piece of a recording. The pieces come in order.
#[derive(Debug)]
pub struct Chunk {
    /// The recording it belongs to.
    pub recording: RecordingId,
    /// The contents of the piece.
    pub body: ChunkBody,
}

/// The contents of a piece of a recording.
#[derive(Debug)]
pub enum ChunkBody {
    /// PCM, 16-bit, mono, 16,000 Hz; usually half a second.
    Samples(Vec<i16>),
    /// The recording is complete; nothing follows. With `keep: false` it is discarded.
    End {
        /// Whether the clip is delivered.
        keep: bool,
    },
}

/// A clip that is safe on disk, or was discarded as requested (then the figures are 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SafeClip {
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Samples at 16,000 Hz.
    pub samples: u64,
    /// Whether the clip ends early, because the disk failed or is full.
    pub is_cut_short: bool,
}

impl SafeClip {
    /// Its length in milliseconds.
    pub fn duration_ms(&self) -> u64 {
        self.samples.saturating_mul(1_000) / u64::from(Rate::Hz16000.hz())
    }
}
