//! Plays clips one after the other without a gap, a frame at a time.

use crate::audio::{Clip, Rate};

/// Plays a list of clips, each as often as its count says.
#[derive(Debug)]
pub(super) struct Player {
    /// Only clips that have samples, so that each step produces audio.
    clips: Vec<(Clip, u32)>,
    rate: Rate,
    repeat: bool,
    next: Position,
}

/// The next sample: which clip, how often it has been played to its end, and where in it.
#[derive(Debug, Default)]
struct Position {
    clip: usize,
    played: u32,
    sample: usize,
}

impl Player {
    /// A player at the start of `clips`; with `repeat` the list begins again for ever. A count of 0
    /// counts as 1.
    pub(super) fn new(mut clips: Vec<(Clip, u32)>, repeat: bool, rate: Rate) -> Self {
        clips.retain(|(clip, _)| !clip.samples(rate).is_empty());
        Self { clips, rate, repeat, next: Position::default() }
    }

    /// Fills `out` from its start. When the last clip ends, the rest of `out` stays as it is.
    pub(super) fn fill(&mut self, out: &mut [i16]) {
        let mut out = out;
        while !out.is_empty() {
            let Some((clip, times)) = self.clips.get(self.next.clip) else { return };
            let rest = &clip.samples(self.rate)[self.next.sample..];
            let taken = rest.len().min(out.len());
            let (now, later) = out.split_at_mut(taken);
            now.copy_from_slice(&rest[..taken]);
            out = later;
            let (ended, times) = (taken == rest.len(), *times);
            self.next.sample += taken;
            if ended {
                self.end_clip(times);
            }
        }
    }

    /// Whether every sample has been played; never with `repeat`, unless there are none.
    pub(super) fn is_at_end(&self) -> bool {
        self.next.clip >= self.clips.len()
    }

    fn end_clip(&mut self, times: u32) {
        self.next.sample = 0;
        self.next.played += 1;
        if self.next.played < times {
            return;
        }
        self.next.played = 0;
        self.next.clip += 1;
        if self.repeat && self.next.clip == self.clips.len() {
            self.next.clip = 0;
        }
    }
}
