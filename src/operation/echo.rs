//! Says what it hears, until `#`.

use super::{Ended, Heard, Said};
use crate::model::{OperationEnd, Tone};

/// What is heard comes back in the same frame.
#[derive(Debug, Default)]
pub struct Echo;

impl Echo {
    /// An echo.
    pub fn new() -> Self {
        Self
    }

    pub(super) fn tick(&mut self, heard: &Heard<'_>, said: &mut Said<'_>) -> Option<Ended> {
        let end = heard.tone.filter(|key| key.tone == Tone::POUND);
        let until = end.map_or(usize::MAX, |key| key.offset);
        let echoed = heard.samples.iter().take(until);
        for (said, heard) in said.frame.samples_mut().iter_mut().zip(echoed) {
            *said = *heard;
        }
        end.map(|_| Ended::without_clip(OperationEnd::Done))
    }
}
