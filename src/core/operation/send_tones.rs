//! Sends keys: each is down for 100 ms, and then up for at least 80 ms.
//!
//! Every frame of a key contains the key itself, for peers that support telephone events
//! (RFC 4733), and its sound, for all others. The sender uses one of the two.

use super::{Ended, Said, SaidKey};
use crate::{
    audio::{Rate, dtmf},
    model::{OperationEnd, SendTonesRequest, Tone},
};

/// How long a key is down, in frames of 20 ms.
const DOWN: u32 = 5;
/// Frames in which the end of a key is repeated, because packets get lost (RFC 4733
/// section 2.5.1.4).
const REPEATED: u32 = 2;
/// The shortest pause between two keys that receivers distinguish, with some reserve, in frames of
/// 20 ms.
const MIN_UP: u32 = 4;

/// Sends keys in order.
#[derive(Debug)]
pub struct SendTones {
    tones: Vec<Tone>,
    /// The index of the current key; `frame` counts the frames of the key and of the pause after
    /// it.
    at: usize,
    frame: u32,
    /// How long a key is up, in frames of 20 ms.
    up: u32,
    rate: Rate,
}

impl SendTones {
    /// Sends the requested keys; a pause is rounded up to whole frames.
    pub fn new(request: SendTonesRequest, rate: Rate) -> Self {
        let up = request.delay_ms.div_ceil(20).max(MIN_UP);
        Self { tones: request.tones, at: 0, frame: 0, up, rate }
    }

    pub(super) fn tick(&mut self, said: &mut Said<'_>) -> Option<Ended> {
        let done = || Some(Ended::without_clip(OperationEnd::Done));
        let Some(tone) = self.tones.get(self.at).copied() else { return done() };
        let frame = self.frame;
        if frame < DOWN {
            let before = frame as usize * self.rate.frame_len();
            dtmf::write(tone, before, self.rate, said.frame.samples_mut());
        }
        if frame < DOWN + REPEATED {
            let frames = (frame + 1).min(DOWN);
            said.key = Some(SaidKey { tone, frames, is_up: frames == DOWN });
        }
        self.frame += 1;
        let is_last = self.at + 1 == self.tones.len();
        // The next operation may send a key with its first frame.
        if is_last && self.frame == DOWN + MIN_UP {
            return done();
        }
        if self.frame == DOWN + self.up {
            (self.at, self.frame) = (self.at + 1, 0);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::Frame;

    /// The output of each frame until the end: the key, and whether there is sound.
    fn send(keys: &str, delay_ms: u32) -> Vec<(Option<SaidKey>, bool)> {
        let tones = keys.chars().map(|key| Tone::try_from(key).unwrap()).collect();
        let mut operation = SendTones::new(SendTonesRequest { tones, delay_ms }, Rate::Hz8000);
        let mut all = Vec::new();
        loop {
            let (mut frame, mut kept) = (Frame::silence(Rate::Hz8000), Vec::new());
            let mut said = Said::new(&mut frame, &mut kept);
            let ended = operation.tick(&mut said);
            all.push((said.key, frame.samples().iter().any(|sample| *sample != 0)));
            if let Some(ended) = ended {
                assert_eq!(ended, Ended::without_clip(OperationEnd::Done));
                return all;
            }
        }
    }

    #[test]
    fn a_key_is_down_for_100_ms_and_its_end_is_said_three_times() {
        let frames = send("5", 0);
        let down = |key: &Option<SaidKey>| key.map(|key| (key.frames, key.is_up));
        let keys: Vec<_> = frames.iter().map(|(key, _)| down(key)).collect();
        let expected =
            [(1, false), (2, false), (3, false), (4, false), (5, true), (5, true), (5, true)];
        assert_eq!(keys[..7], expected.map(Some));
        let sounds: Vec<_> = frames.iter().map(|(_, sounds)| *sounds).collect();
        assert_eq!(sounds[..7], [true, true, true, true, true, false, false]);
    }

    #[test]
    fn the_last_key_is_up_as_long_as_any_other_before_the_next_operation_begins() {
        let frames = send("5", 0);
        assert_eq!(frames.len(), 9);
        assert_eq!(frames[7..], [(None, false); 2]);
    }

    #[test]
    fn the_pause_is_what_was_asked_for_but_never_too_short() {
        for (delay_ms, up) in [(0, 4), (80, 4), (81, 5), (500, 25)] {
            let frames = send("12", delay_ms);
            assert_eq!(frames.len(), 5 + up + 9, "{delay_ms} ms");
            let second = frames[5 + up].0.unwrap();
            assert_eq!((second.tone.as_char(), second.frames), ('2', 1));
        }
    }

    #[test]
    fn no_key_at_all_is_done_at_once() {
        assert_eq!(send("", 0), [(None, false)]);
    }
}
