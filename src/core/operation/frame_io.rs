//! Input and output of an operation in one frame, and how it ends.

use crate::{
    audio::{Frame, Speech},
    model::{OperationEnd, Tone},
};

/// An event that ends an operation from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interruption {
    Cancel,
    HangUp,
    DiskFailed,
}

/// The audio and the key that the peer sent, in one frame of playout.
#[derive(Debug)]
pub struct Heard<'a> {
    /// The audio, 20 ms at the leg's rate; silence when nothing came.
    pub samples: &'a [i16],
    /// What [`Voice`](crate::audio::Voice) finds in the audio.
    pub speech: Speech,
    /// A key that begins in this frame, at most one; each press is reported once.
    pub tone: Option<HeardTone>,
    /// By how many of the peer's frames playout advances with this one. Usually 1; 0 if this frame
    /// was inserted because packets were late; more if frames were left out to catch up.
    pub advance: u32,
    /// How many frames newer than this one have already been received: the depth of playout.
    pub behind: u32,
}

/// A key and where in the frame it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeardTone {
    /// The key.
    pub tone: Tone,
    /// Samples of this frame before the key, at the leg's rate; may be 0.
    pub offset: usize,
}

/// The output of an operation in one frame.
#[derive(Debug)]
pub struct Said<'a> {
    /// Audio for the peer; silence unless the operation writes to it.
    pub frame: &'a mut Frame,
    /// Samples to keep, appended at the leg's rate.
    pub kept: &'a mut Vec<i16>,
    /// A key that is down, or the repeated end of a key. Peers that support telephone events get it
    /// instead of the audio.
    pub key: Option<SaidKey>,
}

impl<'a> Said<'a> {
    /// An empty output: `frame` is silence, and `kept` is the buffer for samples to keep.
    pub fn new(frame: &'a mut Frame, kept: &'a mut Vec<i16>) -> Self {
        Self { frame, kept, key: None }
    }
}

/// A key that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaidKey {
    /// The key.
    pub tone: Tone,
    /// Number of frames that it has been down, this one included; at least 1.
    pub frames: u32,
    /// Whether it is released in this frame, or was released before.
    pub is_up: bool,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Why it ended.
    pub end: OperationEnd,
    /// Figures of the clip, for record only.
    pub clip: Option<ClipFigures>,
}

impl Ended {
    pub(super) fn without_clip(end: OperationEnd) -> Self {
        Self { end, clip: None }
    }
}

/// Figures of a recorded clip, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClipFigures {
    /// Length of the clip.
    pub duration_ms: u64,
    /// How much of it was speech.
    pub speech_ms: u64,
    /// Where the last speech ended; `None` without speech.
    pub speech_ended_at_ms: Option<u64>,
}
