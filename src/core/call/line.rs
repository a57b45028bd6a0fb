//! The lines that answer without a bot: what a built-in application would ask for, step by step.

use crate::model::{
    Operation, OperationEnd, OperationKind, PlayPromptRequest, PromptSource, RecordAction,
    RecordRequest, RecordingId, Tone,
};

/// The script of one call to a line. It is told of what ended and of keys, and says what is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineScript {
    /// Greeting, beep, recording; 1 to hear it again, `#` to end.
    Voicemail(Voicemail),
    /// What is said comes back until `#`.
    Echo,
}

/// Where a voicemail call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voicemail {
    /// The greeting, the beep and the recording.
    Recording,
    /// The clip is played to the caller.
    Playing(RecordingId),
    /// The last words.
    Leaving,
}

/// What a line wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing now.
    Wait,
    /// Begin this, ending what runs.
    Begin(OperationKind),
    /// End the call.
    HangUp,
}

impl LineScript {
    /// A voicemail call that begins.
    pub fn voicemail() -> Self {
        Self::Voicemail(Voicemail::Recording)
    }

    /// The call is up.
    pub fn established(&mut self) -> Step {
        match self {
            Self::Voicemail(_) => Step::Begin(OperationKind::Record(RecordRequest {
                action: RecordAction::Record,
                prompt: Some(prompt("aftertone:greeting".to_owned())),
                barge_in_allowed: true,
                initial_silence_seconds: 10,
                max_silence_seconds: 10,
                max_duration_seconds: 300,
                play_beep: true,
                stop_tones: STOP_TONES.iter().filter_map(|key| Tone::try_from(*key).ok()).collect(),
            })),
            Self::Echo => Step::Begin(OperationKind::Echo),
        }
    }

    /// An operation of the line is over; `last_tone` is the key that was pressed last.
    pub fn ended(&mut self, operation: &Operation, last_tone: Option<Tone>) -> Step {
        let Self::Voicemail(at) = self else { return Step::HangUp };
        match (*at, operation.end.as_ref(), &operation.recording) {
            (_, Some(OperationEnd::Canceled), _) => Step::Wait,
            (Voicemail::Recording, Some(OperationEnd::StopToneDetected), Some(clip))
                if last_tone != Some(Tone::POUND) =>
            {
                at.play(clip.id)
            }
            (Voicemail::Recording | Voicemail::Playing(_), _, _) => at.leave(),
            (Voicemail::Leaving, _, _) => Step::HangUp,
        }
    }

    /// A key was pressed.
    pub fn tone(&mut self, tone: Tone) -> Step {
        match self {
            Self::Voicemail(at) => match (*at, tone.as_char()) {
                (Voicemail::Playing(_), '#') => at.leave(),
                (Voicemail::Playing(clip), '1') => at.play(clip),
                _ => Step::Wait,
            },
            Self::Echo => Step::Wait,
        }
    }
}

impl Voicemail {
    fn play(&mut self, clip: RecordingId) -> Step {
        *self = Self::Playing(clip);
        Step::Begin(play(format!("{RECORDING_PREFIX}{clip}")))
    }

    fn leave(&mut self) -> Step {
        *self = Self::Leaving;
        Step::Begin(play("aftertone:goodbye".to_owned()))
    }
}

/// What the URI of a clip begins with when a line plays it; the recording's id follows.
pub const RECORDING_PREFIX: &str = "aftertone:recording/";

const STOP_TONES: [char; 2] = ['#', '1'];

fn play(uri: String) -> OperationKind {
    OperationKind::PlayPrompt(PlayPromptRequest { prompts: vec![prompt(uri)], repeat: false })
}

fn prompt(uri: String) -> PromptSource {
    PromptSource { uri, resource_id: None, times: 1 }
}
