//! Operations as machines that are fed one frame of 20 ms at a time; they know no clock.
//!
//! In: what is heard in this frame. Out: what is said in it, what of it is kept, and, once, how it
//! ended. They do not know RTP, files or the call they run in.

pub mod echo;
pub mod play_prompt;
mod player;
pub mod record;
pub mod send_tones;

pub use echo::Echo;
pub use play_prompt::PlayPrompt;
pub use record::Record;
pub use send_tones::SendTones;

use crate::{
    audio::{Frame, Speech},
    model::{OperationEnd, Tone},
};

/// One running operation of a leg.
#[derive(Debug)]
pub enum Operation {
    /// Prompt, beep, record.
    Record(Record),
    /// Prompts in order.
    PlayPrompt(PlayPrompt),
    /// What is heard comes back.
    Echo(Echo),
    /// Keys in order.
    SendTones(SendTones),
}

impl Operation {
    /// Lives through one frame. What was said and kept counts, also in the frame that ends it; after
    /// that frame the operation does nothing more.
    pub fn tick(&mut self, heard: &Heard<'_>, said: &mut Said<'_>) -> Option<Ended> {
        match self {
            Self::Record(record) => record.tick(heard, said),
            Self::PlayPrompt(play_prompt) => play_prompt.tick(said),
            Self::Echo(echo) => echo.tick(heard, said),
            Self::SendTones(send_tones) => send_tones.tick(said),
        }
    }

    /// Ends it because the application wants so, or another operation barges in.
    pub fn cancel(self) -> Ended {
        self.interrupt(Interruption::Cancel)
    }

    /// Ends it because the caller is gone, after what was still in the jitter buffer has been
    /// ticked through.
    pub fn hang_up(self) -> Ended {
        self.interrupt(Interruption::HangUp)
    }

    /// Ends it because the disk takes no more of its clip.
    pub fn disk_failed(self) -> Ended {
        self.interrupt(Interruption::DiskFailed)
    }

    /// Whether [`Heard::speech`] matters to it; if not, the detector need not run.
    pub fn wants_voice(&self) -> bool {
        matches!(self, Self::Record(_))
    }

    /// Whether all that it does is to say something: while nobody can hear that, it must wait.
    pub fn only_speaks(&self) -> bool {
        match self {
            Self::PlayPrompt(_) | Self::SendTones(_) => true,
            Self::Record(_) | Self::Echo(_) => false,
        }
    }

    /// Whether a clip is being kept at this moment: from the end of prompt and beep on.
    pub fn is_recording(&self) -> bool {
        match self {
            Self::Record(record) => record.is_recording(),
            Self::PlayPrompt(_) | Self::Echo(_) | Self::SendTones(_) => false,
        }
    }

    fn interrupt(self, interruption: Interruption) -> Ended {
        match self {
            Self::Record(record) => record.interrupt(interruption),
            // Contract section 5.2 has no other end for what was not played to its end.
            Self::PlayPrompt(_) | Self::Echo(_) | Self::SendTones(_) => {
                Ended::without_clip(OperationEnd::Canceled)
            }
        }
    }
}

/// What ends an operation from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Interruption {
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
    fn without_clip(end: OperationEnd) -> Self {
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
