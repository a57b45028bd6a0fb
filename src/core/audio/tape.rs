//! What a leg passes to the writer of recordings: 16 kHz PCM in chunks, then the end.

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
