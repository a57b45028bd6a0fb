//! Operations as machines that are fed one frame of 20 ms at a time; they know no clock.
//!
//! In: what is heard in this frame. Out: what is said in it, what of it is kept, and, once, how it
//! ended. They do not know RTP, files or the call they run in.

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
