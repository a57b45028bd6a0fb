//! The operation that runs on a leg, with its voice detection and its tape.
//!
//! Input: the received sound of one frame, at the stream's rate. Output: the sound to send, and the
//! end. An operation keeps its rate for life; if a re-INVITE brings a codec of the other rate, the
//! sound is converted.

use std::sync::mpsc::SyncSender;

use super::{
    leg_event::LegEvent,
    receiver::PlayedFrame,
    tape::{Spooled, Tape},
};
use aftertone_core::{
    audio::{Clip, Frame, Rate, Speech, Voice, VoiceMode, tape::Chunk},
    model::{OperationEnd, OperationId, RecordRequest, RecordingId, SendTonesRequest},
    operation::{Echo, Ended, Heard, HeardTone, Operation, PlayPrompt, Record, Said, SendTones},
};

/// An operation to be started on a leg.
#[derive(Debug)]
pub struct Start {
    /// Its id; reported again when it ends.
    pub id: OperationId,
    /// The kind of operation, with its audio.
    pub play: Play,
    /// Where the chunks of the clip go, if it records.
    pub tape: Option<(RecordingId, SyncSender<Chunk>)>,
}

/// The kind of an operation on a leg, with the audio that it needs.
#[derive(Debug, Clone)]
pub enum Play {
    /// Plays a prompt and a beep, then records.
    Record {
        /// The parameters of the request.
        request: RecordRequest,
        /// The prompt's audio.
        prompt: Option<Clip>,
    },
    /// Plays prompts in order.
    Prompts {
        /// Each clip and how often it is played.
        prompts: Vec<(Clip, u32)>,
        /// Whether the list begins again for ever.
        repeat: bool,
    },
    /// Sends the peer's audio back until `#`.
    Echo,
    /// Sends keys in order.
    SendTones(SendTonesRequest),
    /// Plays these over and over while nothing else runs; done as soon as it has begun.
    HoldMusic {
        /// Each clip and how often it is played; silence without any.
        prompts: Vec<(Clip, u32)>,
    },
    /// Stops the hold music.
    NoHoldMusic,
}

impl Play {
    /// The operation that runs: hold music is an endless list of prompts, its end is an empty list.
    fn into_operation(self, rate: Rate) -> Operation {
        match self {
            Self::Record { request, prompt } => {
                Operation::Record(Record::new(&request, prompt, rate))
            }
            Self::Prompts { prompts, repeat } => {
                Operation::PlayPrompt(PlayPrompt::new(prompts, repeat, rate))
            }
            Self::Echo => Operation::Echo(Echo::new()),
            Self::SendTones(request) => Operation::SendTones(SendTones::new(request, rate)),
            Self::HoldMusic { prompts } => {
                Operation::PlayPrompt(PlayPrompt::new(prompts, true, rate))
            }
            Self::NoHoldMusic => Operation::PlayPrompt(PlayPrompt::new(Vec::new(), false, rate)),
        }
    }
}

/// The result of an operation that could not begin, or whose clip is lost.
pub(super) const UNFINISHED: Ended = Ended { end: OperationEnd::Unspecified, clip: None };

/// A running operation.
pub(super) struct Running {
    id: OperationId,
    operation: Operation,
    rate: Rate,
    voice: Option<Voice>,
    tape: Option<Tape>,
}

impl Running {
    /// Starts an operation at `rate`.
    pub(super) fn new(start: Start, rate: Rate, mode: VoiceMode) -> Self {
        let Start { id, play, tape } = start;
        let operation = play.into_operation(rate);
        let voice = operation.wants_voice().then(|| Voice::new(rate, mode));
        let tape = tape.map(|(recording, spool)| Tape::new(recording, spool, rate));
        Self { id, operation, rate, voice, tape }
    }

    /// The id of the operation.
    pub(super) fn id(&self) -> OperationId {
        self.id
    }

    /// Whether it must wait while the peer cannot receive its output.
    pub(super) fn only_speaks(&self) -> bool {
        self.operation.only_speaks()
    }

    /// Processes one frame: takes what was `played` to it, and writes to `said`.
    pub(super) fn tick(&mut self, played: PlayedFrame<'_>, said: &mut Said<'_>) -> Option<Ended> {
        let PlayedFrame { samples, tone, advance, behind } = played;
        if said.frame.rate() != self.rate || samples.len() != self.rate.frame_len() {
            return self.tick_converted(played, said);
        }
        let speech = match &mut self.voice {
            Some(voice) => voice.judge(samples),
            None => Speech::None,
        };
        let heard = Heard { samples, speech, tone, advance, behind };
        said.kept.clear();
        let ended = self.operation.tick(&heard, said);
        if let Some(tape) = &mut self.tape {
            tape.keep(said.kept);
            // What does not fit now is offered again later. If the spool is gone, that is noticed
            // at the end.
            tape.spool();
        }
        ended
    }

    /// Ends it: `how` gives the result. The clip ends with it.
    pub(super) fn end(self, how: impl FnOnce(Operation) -> Ended) -> Finishing {
        let Self { id, operation, mut tape, .. } = self;
        let ended = how(operation);
        if let Some(tape) = &mut tape {
            tape.end(ended.end.delivers_recording());
        }
        Finishing { id, ended, tape, due: 0 }
    }

    /// Processes one frame of a stream at the other rate.
    fn tick_converted(&mut self, played: PlayedFrame<'_>, said: &mut Said<'_>) -> Option<Ended> {
        let mut heard = Frame::silence(self.rate);
        convert(played.samples, heard.samples_mut());
        let tone = played.tone.map(|key| HeardTone {
            offset: key.offset * self.rate.frame_len() / played.samples.len().max(1),
            ..key
        });
        let mut own = Frame::silence(self.rate);
        let converted = PlayedFrame { samples: heard.samples(), tone, ..played };
        let mut own_said = Said::new(&mut own, said.kept);
        let ended = self.tick(converted, &mut own_said);
        said.key = own_said.key;
        convert(own.samples(), said.frame.samples_mut());
        ended
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("id", &self.id).finish_non_exhaustive()
    }
}

/// An operation that has ended, and its clip, which the spool has not taken completely yet.
#[derive(Debug)]
pub(super) struct Finishing {
    id: OperationId,
    ended: Ended,
    tape: Option<Tape>,
    /// The first frame in which the end may be reported: before it, the peer has not heard
    /// everything yet.
    pub(super) due: u64,
}

impl Finishing {
    /// The end of an operation that starts or stops hold music, which is done at once.
    pub(super) fn done(id: OperationId) -> Self {
        let ended = Ended { end: OperationEnd::Done, clip: None };
        Self { id, ended, tape: None, due: 0 }
    }

    /// The id of the operation.
    pub(super) fn id(&self) -> OperationId {
        self.id
    }

    /// Whether there is a clip that the spool has to take.
    pub(super) fn has_clip(&self) -> bool {
        self.tape.is_some()
    }

    /// Offers the rest of the clip to the spool. Returns the event once the spool has taken
    /// everything or is gone, and the end may be reported in `frame`.
    pub(super) fn finish(&mut self, frame: u64) -> Option<LegEvent> {
        if frame < self.due {
            return None;
        }
        match self.tape.as_mut().map_or(Spooled::All, Tape::spool) {
            Spooled::Waiting => return None,
            Spooled::All => {}
            // Without the clip, the operation is not complete.
            Spooled::Lost => self.ended = UNFINISHED,
        }
        Some(LegEvent::OperationEnded { id: self.id, ended: self.ended.clone() })
    }

    /// Gives the clip up, if there is one, and returns the event.
    pub(super) fn give_up(self) -> LegEvent {
        let ended = match self.tape {
            Some(_) => UNFINISHED,
            None => self.ended,
        };
        LegEvent::OperationEnded { id: self.id, ended }
    }
}

/// Converts 20 ms to the other rate: linear interpolation between two samples, or the mean of two.
/// Only for calls that change the rate in the middle of an operation.
fn convert(from: &[i16], to: &mut [i16]) {
    if to.len() == 2 * from.len() {
        let following = from.iter().skip(1).chain(from.last());
        for ((pair, sample), next) in to.chunks_exact_mut(2).zip(from).zip(following) {
            pair.copy_from_slice(&[*sample, mean(*sample, *next)]);
        }
    } else if from.len() == 2 * to.len() {
        for (sample, pair) in to.iter_mut().zip(from.chunks_exact(2)) {
            *sample = mean(pair[0], pair[1]);
        }
    } else {
        for (sample, same) in to.iter_mut().zip(from) {
            *sample = *same;
        }
    }
}

fn mean(one: i16, other: i16) -> i16 {
    // Two 16-bit values have a 16-bit mean.
    ((i32::from(one) + i32::from(other)) / 2) as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_keeps_its_rate_when_the_stream_changes_it() {
        let start = Start { id: OperationId::from_random([1; 16]), play: Play::Echo, tape: None };
        let mut running = Running::new(start, Rate::Hz8000, VoiceMode::default());
        let heard: Vec<i16> = (0..320).map(|n| 10 * n as i16).collect();
        let mut said = Frame::silence(Rate::Hz16000);
        let sound = PlayedFrame { samples: &heard, tone: None, advance: 1, behind: 0 };
        let mut kept = Vec::new();
        assert_eq!(running.tick(sound, &mut Said::new(&mut said, &mut kept)), None);
        for (heard, said) in heard.iter().zip(said.samples()) {
            assert!((heard - said).abs() <= 10, "{heard} became {said}");
        }
    }

    #[test]
    fn a_key_keeps_its_place_when_the_rate_changes() {
        let start = Start { id: OperationId::from_random([1; 16]), play: Play::Echo, tape: None };
        let mut running = Running::new(start, Rate::Hz8000, VoiceMode::default());
        let tone = Some(HeardTone { tone: aftertone_core::model::Tone::POUND, offset: 100 });
        let sound = PlayedFrame { samples: &[500; 320], tone, advance: 1, behind: 0 };
        let mut said = Frame::silence(Rate::Hz16000);
        let mut kept = Vec::new();
        let ended = running.tick(sound, &mut Said::new(&mut said, &mut kept));
        assert_eq!(ended.map(|ended| ended.end), Some(OperationEnd::Done));
        assert!(said.samples()[..98].iter().all(|sample| *sample == 500));
        assert!(said.samples()[100..].iter().all(|sample| *sample == 0));
    }
}
