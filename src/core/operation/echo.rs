//! Sends the peer's audio back until `#`.

use super::{Ended, Heard, Said};
use crate::model::{OperationEnd, Tone};

/// Sends the audio of each frame back in the same frame.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        audio::{Frame, Rate, Speech},
        operation::HeardTone,
    };

    fn echo(tone: Option<HeardTone>) -> (Vec<i16>, Option<Ended>) {
        let mut frame = Frame::silence(Rate::Hz8000);
        let heard = Heard { samples: &[9; 160], speech: Speech::None, tone, advance: 1, behind: 0 };
        let mut kept = Vec::new();
        let ended = Echo::new().tick(&heard, &mut Said::new(&mut frame, &mut kept));
        (frame.samples().to_vec(), ended)
    }

    #[test]
    fn what_is_heard_is_said() {
        assert_eq!(echo(None), (vec![9; 160], None));
        let five = Tone::parse("5").map(|tone| HeardTone { tone, offset: 3 });
        assert_eq!(echo(five), (vec![9; 160], None));
    }

    #[test]
    fn pound_ends_it_where_the_key_begins() {
        for offset in [0, 60, 160, usize::MAX] {
            let (said, ended) = echo(Some(HeardTone { tone: Tone::POUND, offset }));
            let before = offset.min(160);
            assert_eq!(said, [vec![9; before], vec![0; 160 - before]].concat());
            assert_eq!(ended, Some(Ended::without_clip(OperationEnd::Done)));
        }
    }
}
