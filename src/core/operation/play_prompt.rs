//! Plays prompts in order; nothing that the caller does stops it.

use super::{Ended, Said, player::Player};
use crate::{
    audio::{Clip, Rate},
    model::OperationEnd,
};

/// Plays prompts one after the other, without a gap of even a sample.
#[derive(Debug)]
pub struct PlayPrompt(Player);

impl PlayPrompt {
    /// Plays each clip as often as its count says, at least once, in order; with `repeat` the list
    /// begins again until the operation is canceled. A list without a single sample ends in its
    /// first frame.
    pub fn new(prompts: Vec<(Clip, u32)>, repeat: bool, rate: Rate) -> Self {
        Self(Player::new(prompts, repeat, rate))
    }

    pub(super) fn tick(&mut self, said: &mut Said<'_>) -> Option<Ended> {
        self.0.fill(said.frame.samples_mut());
        self.0.is_at_end().then(|| Ended::without_clip(OperationEnd::Done))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::Frame;

    const RATE: Rate = Rate::Hz8000;

    fn clip(samples: std::ops::Range<i16>) -> Clip {
        Clip::new(samples.clone().collect(), samples.flat_map(|sample| [sample; 2]).collect())
    }

    /// The audio of at most `ticks` frames, and the frame in which the operation ended.
    fn play(mut operation: PlayPrompt, ticks: usize) -> (Vec<i16>, Option<usize>) {
        let mut heard = Vec::new();
        for tick in 0..ticks {
            let mut frame = Frame::silence(RATE);
            let mut kept = Vec::new();
            let ended = operation.tick(&mut Said::new(&mut frame, &mut kept));
            heard.extend(frame.samples());
            assert!(kept.is_empty());
            if let Some(ended) = ended {
                assert_eq!(ended, Ended::without_clip(OperationEnd::Done));
                return (heard, Some(tick));
            }
        }
        (heard, None)
    }

    #[test]
    fn prompts_follow_each_other_without_a_gap() {
        let prompts = vec![(clip(1..101), 2), (clip(0..0), 3), (clip(500..507), 1)];
        let (heard, ended) = play(PlayPrompt::new(prompts, false, RATE), 10);
        let mut expected: Vec<i16> = (1..101).chain(1..101).chain(500..507).collect();
        expected.resize(320, 0);
        assert_eq!((heard, ended), (expected, Some(1)));
    }

    #[test]
    fn it_ends_with_the_frame_of_the_last_sample() {
        let (heard, ended) = play(PlayPrompt::new(vec![(clip(1..321), 1)], false, RATE), 10);
        assert_eq!((heard, ended), ((1..321).collect(), Some(1)));
    }

    #[test]
    fn a_list_that_repeats_never_ends() {
        let prompts = vec![(clip(0..3), 1), (clip(3..7), 1)];
        let (heard, ended) = play(PlayPrompt::new(prompts, true, RATE), 100);
        assert_eq!(ended, None);
        assert!(heard.iter().enumerate().all(|(n, sample)| usize::from(*sample as u16) == n % 7));
    }

    #[test]
    fn a_list_without_sound_ends_at_once() {
        for repeat in [false, true] {
            for prompts in [vec![], vec![(clip(0..0), u32::MAX)]] {
                let (heard, ended) = play(PlayPrompt::new(prompts, repeat, RATE), 3);
                assert_eq!((heard, ended), (vec![0; 160], Some(0)));
            }
        }
    }
}
