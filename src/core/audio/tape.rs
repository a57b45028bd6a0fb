//! What a leg hands to whoever writes recordings: 16 kHz PCM in chunks, then the end.

use crate::model::RecordingId;

/// A piece of a recording, in order.
#[derive(Debug)]
pub struct Chunk {
    /// The recording it belongs to.
    pub recording: RecordingId,
    /// The piece.
    pub body: ChunkBody,
}

/// The piece of a recording.
#[derive(Debug)]
pub enum ChunkBody {
    /// PCM, 16-bit, mono, 16,000 Hz; half a second as a rule.
    Samples(Vec<i16>),
    /// The recording is complete; nothing follows. `keep: false`: it is not wanted.
    End {
        /// Whether the clip is delivered.
        keep: bool,
    },
}
