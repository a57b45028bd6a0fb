//! Plays prompts in order; nothing that the caller does stops it.

use super::{Ended, Said, player::Player};
use crate::{
    audio::{Clip, Rate},
    model::OperationEnd,
};

/// Prompts, back to back to the sample.
#[derive(Debug)]
pub struct PlayPrompt(Player);

impl PlayPrompt {
    /// Plays each clip so many times, at least once, in order; with `repeat` the list begins again
    /// until the operation is canceled. A list without a single sample ends in its first frame.
    pub fn new(prompts: Vec<(Clip, u32)>, repeat: bool, rate: Rate) -> Self {
        Self(Player::new(prompts, repeat, rate))
    }

    pub(super) fn tick(&mut self, said: &mut Said<'_>) -> Option<Ended> {
        self.0.fill(said.frame.samples_mut());
        self.0.is_at_end().then(|| Ended::without_clip(OperationEnd::Done))
    }
}
