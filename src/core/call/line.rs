//! The built-in lines, which answer without an application. Each is a script that requests one
//! operation after another.

use crate::model::{
    Operation, OperationEnd, OperationKind, PlayPromptRequest, PromptSource, RecordAction,
    RecordRequest, RecordingId, Tone,
};

/// The script of one call to a line. It is told of tones and of operations that ended, and returns
/// the next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineScript {
    /// Greeting, beep, recording; 1 to hear it again, `#` to end.
    Voicemail(Voicemail),
    /// Sends the caller's audio back until `#`.
    Echo,
}

/// The stage of a voicemail call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voicemail {
    /// The greeting, the beep and the recording.
    Recording,
    /// The clip is played to the caller.
    Playing(RecordingId),
    /// The goodbye prompt is played.
    Leaving,
}

/// The next step of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Do nothing now.
    Wait,
    /// Begin this operation and cancel the running one.
    Begin(OperationKind),
    /// End the call.
    HangUp,
}

impl LineScript {
    /// The script of a new voicemail call.
    pub fn voicemail() -> Self {
        Self::Voicemail(Voicemail::Recording)
    }

    /// Handles the establishment of the call.
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

    /// Handles the end of one of the line's operations; `last_tone` is the key that was pressed
    /// last.
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

    /// Handles a key.
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

/// Prefix of the URI by which a line plays a clip; the recording's id follows.
pub const RECORDING_PREFIX: &str = "aftertone:recording/";

const STOP_TONES: [char; 2] = ['#', '1'];

fn play(uri: String) -> OperationKind {
    OperationKind::PlayPrompt(PlayPromptRequest { prompts: vec![prompt(uri)], repeat: false })
}

fn prompt(uri: String) -> PromptSource {
    PromptSource { uri, resource_id: None, times: 1 }
}
