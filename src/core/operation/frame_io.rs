//! What an operation gets and gives in one frame, and how it ends.

use crate::{
    audio::{Frame, Speech},
    model::{OperationEnd, Tone},
};

/// What ends an operation from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interruption {
    Cancel,
    HangUp,
    DiskFailed,
}

/// What the peer sent in one frame of playout, as the operation gets it.
#[derive(Debug)]
pub struct Heard<'a> {
    /// The sound; silence when nothing came. 20 ms at the leg's rate.
    pub samples: &'a [i16],
    /// What [`Voice`](crate::audio::Voice) says of it.
    pub speech: Speech,
    /// A key that begins in this frame, at most one; each press is told once.
    pub tone: Option<HeardTone>,
    /// How many frames of what the peer sent playout has gone on with this one: 1 as a rule, none where
    /// one was put in because packets were late, and more where some were left out to catch up.
    pub advance: u32,
    /// How many frames newer than this one have been received already: the depth of playout.
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

/// What an operation does in one frame.
#[derive(Debug)]
pub struct Said<'a> {
    /// What the peer hears; silence unless the operation writes to it.
    pub frame: &'a mut Frame,
    /// Samples to keep, appended at the leg's rate.
    pub kept: &'a mut Vec<i16>,
    /// A key that is down, or whose end is said again. Peers that take telephone events get it
    /// instead of the frame.
    pub key: Option<SaidKey>,
}

impl<'a> Said<'a> {
    /// Nothing yet: `frame` is silence, and `kept` is only room.
    pub fn new(frame: &'a mut Frame, kept: &'a mut Vec<i16>) -> Self {
        Self { frame, kept, key: None }
    }
}

/// A key that we press.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaidKey {
    /// The key.
    pub tone: Tone,
    /// For how many frames it has been down, this one included; at least 1.
    pub frames: u32,
    /// Whether it comes up with this frame, or has come up before.
    pub is_up: bool,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub end: OperationEnd,
    /// Record only: figures of the clip.
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
    /// Length.
    pub duration_ms: u64,
    /// How much of it was speech.
    pub speech_ms: u64,
    /// Where the last speech ended; `None` without speech.
    pub speech_ended_at_ms: Option<u64>,
}
