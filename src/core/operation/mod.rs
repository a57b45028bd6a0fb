//! Operations as machines that are fed one frame of 20 ms at a time; they know no clock.
//!
//! Input: the peer's audio and key in this frame. Output: the audio to send, the samples to keep,
//! and, once, how the operation ended. Operations do not know RTP, files or the call that they
//! belong to.

// A new state or operation has to be considered in each match.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

pub mod echo;
mod frame_io;
pub mod play_prompt;
mod player;
pub mod record;
pub mod send_tones;

pub use echo::Echo;
pub use frame_io::{ClipFigures, Ended, Heard, HeardTone, Said, SaidKey};
pub use play_prompt::PlayPrompt;
pub use record::Record;
pub use send_tones::SendTones;

use self::frame_io::Interruption;
use crate::model::OperationEnd;

/// One running operation of a leg.
#[derive(Debug)]
pub enum Operation {
    /// Plays a prompt and a beep, then records.
    Record(Record),
    /// Plays prompts in order.
    PlayPrompt(PlayPrompt),
    /// Sends the peer's audio back.
    Echo(Echo),
    /// Sends keys in order.
    SendTones(SendTones),
}

impl Operation {
    /// Processes one frame. The output also counts in the frame that ends the operation; after that
    /// frame the operation does nothing more.
    pub fn tick(&mut self, heard: &Heard<'_>, said: &mut Said<'_>) -> Option<Ended> {
        match self {
            Self::Record(record) => record.tick(heard, said),
            Self::PlayPrompt(play_prompt) => play_prompt.tick(said),
            Self::Echo(echo) => echo.tick(heard, said),
            Self::SendTones(send_tones) => send_tones.tick(said),
        }
    }

    /// Ends it because the application cancels it, or another operation barges in.
    pub fn cancel(self) -> Ended {
        self.interrupt(Interruption::Cancel)
    }

    /// Ends it because the caller is gone. The rest of the jitter buffer has been processed before.
    pub fn hang_up(self) -> Ended {
        self.interrupt(Interruption::HangUp)
    }

    /// Ends it because the disk failed or is full.
    pub fn disk_failed(self) -> Ended {
        self.interrupt(Interruption::DiskFailed)
    }

    /// Whether it uses [`Heard::speech`]; if not, the detector need not run.
    pub fn wants_voice(&self) -> bool {
        matches!(self, Self::Record(_))
    }

    /// Whether it only sends audio or keys: while the peer cannot receive them, it must wait.
    pub fn only_speaks(&self) -> bool {
        match self {
            Self::PlayPrompt(_) | Self::SendTones(_) => true,
            Self::Record(_) | Self::Echo(_) => false,
        }
    }

    /// Whether it records now: after the end of prompt and beep.
    pub fn is_recording(&self) -> bool {
        match self {
            Self::Record(record) => record.is_recording(),
            Self::PlayPrompt(_) | Self::Echo(_) | Self::SendTones(_) => false,
        }
    }

    fn interrupt(self, interruption: Interruption) -> Ended {
        match self {
            Self::Record(record) => record.interrupt(interruption),
            // Contract section 5.2 has no other end for an operation that was cut short.
            Self::PlayPrompt(_) | Self::Echo(_) | Self::SendTones(_) => {
                Ended::without_clip(OperationEnd::Canceled)
            }
        }
    }
}
