//! Operations as machines that are fed one frame of 20 ms at a time; they know no clock.
//!
//! In: what is heard in this frame. Out: what is said in it, what of it is kept, and, once, how it
//! ended. They do not know RTP, files or the call they run in.

use crate::{
    audio::Frame,
    model::{OperationEnd, Tone},
};

/// What the peer sent in one frame of playout, as the operation gets it.
#[derive(Debug)]
pub struct Heard<'a> {
    /// The sound; silence when nothing came. 20 ms at the leg's rate.
    pub samples: &'a [i16],
    /// Whether it is speech.
    pub speech: bool,
    /// A key that begins in this frame, at most one; each press is told once.
    pub tone: Option<HeardTone>,
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
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub end: OperationEnd,
    /// Record only: figures of the clip.
    pub clip: Option<ClipFigures>,
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
