//! What an operation was asked to do, how it ended, and the one table of result codes.

use serde::{Deserialize, Serialize};

use super::{CallId, OperationId, RecordingId, Tone, UnixMillis};

/// One operation of a call: what the store keeps and what the API shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// The operation's id.
    pub id: OperationId,
    /// The call that it belongs to.
    pub call: CallId,
    /// What it was asked to do.
    pub kind: OperationKind,
    /// The client's own words, echoed unchanged; at most 256 characters.
    pub client_context: Option<String>,
    /// The state of the operation.
    pub status: OperationStatus,
    /// Why it ended; set exactly when `status` is completed or failed.
    pub end: Option<OperationEnd>,
    /// The clip, once it can be downloaded.
    pub recording: Option<Recorded>,
    /// When it was accepted.
    pub created_at: UnixMillis,
    /// When it ended.
    pub ended_at: Option<UnixMillis>,
}

/// What an operation was asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum OperationKind {
    /// Play prompts, record what the caller says.
    Record(RecordRequest),
    /// Play prompts.
    PlayPrompt(PlayPromptRequest),
    /// Report tones from now on; complete at once.
    SubscribeToTone,
    /// End the running operation and empty the queue; complete at once.
    CancelMediaProcessing,
    /// Send keys to the peer.
    SendDtmfTones(SendTonesRequest),
    /// Drop the sound of one side; complete at once.
    Mute {
        /// The side to mute.
        side: Side,
    },
    /// Let the sound of one side through again; complete at once.
    Unmute {
        /// The side to unmute.
        side: Side,
    },
    /// Store the status that the application reports of its own recording; complete at once.
    UpdateRecordingStatus {
        /// The reported status.
        status: RecordingStatus,
    },
    /// Play this to the peer, over and over, whenever nothing else is played; without a prompt,
    /// silence. Complete when it has begun.
    StartHoldMusic {
        /// What to play.
        prompt: Option<PromptSource>,
    },
    /// Stop the hold music.
    StopHoldMusic,
    /// Send the peer's audio back until `#`; only built-in lines use it.
    Echo,
}

/// Parameters of `record` and `recordResponse`, checked (contract section 2.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordRequest {
    /// The action's name in the request; the limits differ.
    pub action: RecordAction,
    /// What to play first.
    pub prompt: Option<PromptSource>,
    /// Whether it ends the running operation, drops the waiting ones, and starts at once.
    pub barge_in_allowed: bool,
    /// How long the caller may be silent before the first word.
    pub initial_silence_seconds: u32,
    /// How long a pause may be after the caller has begun to speak.
    pub max_silence_seconds: u32,
    /// How long the clip may be, counted from the beep's end.
    pub max_duration_seconds: u32,
    /// Whether the caller hears a beep before recording.
    pub play_beep: bool,
    /// Keys that end the recording.
    pub stop_tones: Vec<Tone>,
}

/// The two names of the record action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RecordAction {
    /// `record`: times of 1 to 300 seconds.
    Record,
    /// `recordResponse`: times of 1 to 120 seconds.
    RecordResponse,
}

impl RecordAction {
    /// Upper limit of each of the three times, in seconds.
    pub fn max_seconds(self) -> u32 {
        match self {
            Self::Record => 300,
            Self::RecordResponse => 120,
        }
    }
}

/// Parameters of `playPrompt`, checked (contract section 2.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlayPromptRequest {
    /// 1 to 20 prompts, played in order.
    pub prompts: Vec<PromptSource>,
    /// Whether the list repeats for ever.
    pub repeat: bool,
}

/// Parameters of `sendDtmfTones`, checked (contract section 2.8).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendTonesRequest {
    /// The keys in order, at least one.
    pub tones: Vec<Tone>,
    /// The pause between two keys in milliseconds.
    pub delay_ms: u32,
}

/// One of the two sides of a call, as the application sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// The application.
    Ours,
    /// The party that the application talks to.
    Peers,
}

/// The status that the application reports of its own recording of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RecordingStatus {
    /// The application does not say.
    Unknown,
    /// The application does not record.
    NotRecording,
    /// The application records.
    Recording,
    /// The application wanted to record and cannot.
    Failed,
}

/// One prompt and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PromptSource {
    /// `http:`, `https:` or `file:` URI, or `aftertone:NAME` for a bundled one.
    pub uri: String,
    /// The client's key for our cache.
    pub resource_id: Option<String>,
    /// How often the prompt is played; at least 1.
    pub times: u32,
}

/// The state of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OperationStatus {
    /// Waits in the queue.
    NotStarted,
    /// Has begun.
    Running,
    /// Ended successfully.
    Completed,
    /// Ended without success.
    Failed,
}

/// A clip that can be downloaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// The clip.
    pub id: RecordingId,
    /// Length of the clip in milliseconds.
    pub duration_ms: u64,
    /// How much of it was speech, in milliseconds.
    pub speech_ms: u64,
    /// Where the last speech ended, in milliseconds from the clip's start; `None` without speech.
    pub speech_ended_at_ms: Option<u64>,
}

/// Why an operation ended. Every operation ends with exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "reason", content = "detail", rename_all = "camelCase")]
pub enum OperationEnd {
    /// Record: a stop tone was pressed.
    StopToneDetected,
    /// Record: the clip has reached its longest duration.
    MaxRecordDurationReached,
    /// Record: the pause after speech has reached its longest duration.
    MaxSilenceTimeout,
    /// Record: the caller did not begin to speak.
    InitialSilenceTimeout,
    /// Record: the caller hung up, or RTP ended, after some audio was kept.
    HungUpWithAudio,
    /// Record: the caller hung up, or RTP ended, before any audio was kept.
    HungUpWithoutAudio,
    /// Record: the disk failed or is full, after some audio was kept.
    DiskFailedWithAudio,
    /// Record: the disk failed or is full, before any audio was kept.
    DiskFailedWithoutAudio,
    /// Any: canceled or ended by a barge-in. For an operation that does not record, also: the call
    /// ended.
    Canceled,
    /// Any with prompts: a prompt could not be played; the sentence names the cause.
    PromptFailed(PromptFailure),
    /// Another fault of our own.
    Unspecified,
    /// Any that does not record: done.
    Done,
}

/// Why a prompt could not be played.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PromptFailure {
    /// What kind of failure it was.
    pub kind: PromptFailureKind,
    /// One sentence for the application, with the cause in words.
    pub message: String,
}

/// Whether a prompt could not be fetched or could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PromptFailureKind {
    /// 8536: not fetched.
    NotFetched,
    /// 8535: not audio that we can play.
    BadFormat,
}

/// Codes and sentence of an outcome (`resultInfo`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultInfo {
    /// 2xx success, 4xx a fault on the client's side, 5xx a fault of ours.
    pub code: i32,
    /// Microsoft's subcode.
    pub subcode: i32,
    /// One sentence for the application.
    pub message: String,
}

impl OperationKind {
    /// Whether the operation records.
    pub fn is_record(&self) -> bool {
        matches!(self, Self::Record(_))
    }

    /// Whether the operation takes its turn in the queue of its call.
    pub fn is_queued(&self) -> bool {
        matches!(
            self,
            Self::Record(_)
                | Self::PlayPrompt(_)
                | Self::SendDtmfTones(_)
                | Self::StartHoldMusic { .. }
                | Self::StopHoldMusic
                | Self::Echo
        )
    }

    /// Whether it ends the running operation and drops the waiting ones (contract section 2.7).
    pub fn barges_in(&self) -> bool {
        matches!(self, Self::Record(request) if request.barge_in_allowed)
    }

    /// The prompts that must be loaded before the operation can begin.
    pub fn prompts(&self) -> &[PromptSource] {
        match self {
            Self::Record(request) => request.prompt.as_slice(),
            Self::PlayPrompt(request) => &request.prompts,
            Self::StartHoldMusic { prompt } => prompt.as_slice(),
            Self::SubscribeToTone
            | Self::CancelMediaProcessing
            | Self::SendDtmfTones(_)
            | Self::Mute { .. }
            | Self::Unmute { .. }
            | Self::UpdateRecordingStatus { .. }
            | Self::StopHoldMusic
            | Self::Echo => &[],
        }
    }

    /// The operation's name, as Graph's actions are named.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Record(_) => "record",
            Self::PlayPrompt(_) => "playPrompt",
            Self::SubscribeToTone => "subscribeToTone",
            Self::CancelMediaProcessing => "cancelMediaProcessing",
            Self::SendDtmfTones(_) => "sendDtmfTones",
            Self::Mute { .. } => "mute",
            Self::Unmute { .. } => "unmute",
            Self::UpdateRecordingStatus { .. } => "updateRecordingStatus",
            Self::StartHoldMusic { .. } => "startHoldMusic",
            Self::StopHoldMusic => "stopHoldMusic",
            Self::Echo => "echo",
        }
    }
}

impl OperationEnd {
    /// Whether the operation is `completed` or `failed`.
    pub fn status(&self) -> OperationStatus {
        match self {
            Self::StopToneDetected
            | Self::MaxRecordDurationReached
            | Self::MaxSilenceTimeout
            | Self::HungUpWithAudio
            | Self::DiskFailedWithAudio
            | Self::Done => OperationStatus::Completed,
            Self::InitialSilenceTimeout
            | Self::HungUpWithoutAudio
            | Self::DiskFailedWithoutAudio
            | Self::Canceled
            | Self::PromptFailed(_)
            | Self::Unspecified => OperationStatus::Failed,
        }
    }

    /// Whether a recording with this end is delivered.
    pub fn delivers_recording(&self) -> bool {
        self.status() == OperationStatus::Completed
    }

    /// Codes and sentence for an operation of `kind` with this end (contract section 5).
    pub fn result(&self, kind: &OperationKind) -> ResultInfo {
        let (code, subcode, message) = match self {
            Self::StopToneDetected => (200, 8514, "Action completed as stop tone was detected."),
            Self::MaxRecordDurationReached => {
                (200, 8515, "Action completed, max record duration reached.")
            }
            Self::MaxSilenceTimeout => (200, 8509, "Action completed, max silence reached."),
            Self::InitialSilenceTimeout => {
                (400, 8510, "Action failed, initial silence timeout reached.")
            }
            Self::HungUpWithAudio => {
                (200, 8588, "Action completed, the media ended while recording.")
            }
            Self::HungUpWithoutAudio => {
                (400, 8513, "Action failed, the media ended before anything was recorded.")
            }
            Self::DiskFailedWithAudio => (
                200,
                9999,
                "Action completed, the recording ended early because the disk failed or is full.",
            ),
            Self::DiskFailedWithoutAudio => {
                (500, 9999, "Action failed, the disk for recordings failed or is full.")
            }
            Self::Canceled => (400, 8508, "Action failed, the operation was cancelled."),
            Self::PromptFailed(failure) => return failure.result(kind),
            Self::Unspecified => (500, 9999, "Unspecified error."),
            Self::Done => (200, 0, "Action completed successfully."),
        };
        ResultInfo { code, subcode, message: message.to_owned() }
    }

    /// Graph's `completionReason` for an operation of `kind` with this end; `None` where the kind
    /// has no such member.
    pub fn completion_reason(&self, kind: &OperationKind) -> Option<&'static str> {
        match kind {
            OperationKind::Record(_) => Some(match self {
                Self::StopToneDetected => "stopToneDetected",
                Self::MaxRecordDurationReached => "maxRecordDurationReached",
                Self::MaxSilenceTimeout => "maxSilenceTimeout",
                Self::InitialSilenceTimeout => "initialSilenceTimeout",
                Self::HungUpWithAudio | Self::HungUpWithoutAudio => "mediaReceiveTimeout",
                Self::Canceled => "operationCanceled",
                Self::PromptFailed(_) => "playPromptFailed",
                Self::DiskFailedWithAudio
                | Self::DiskFailedWithoutAudio
                | Self::Unspecified
                | Self::Done => "unspecifiedError",
            }),
            OperationKind::PlayPrompt(_) | OperationKind::SendDtmfTones(_) => Some(match self {
                Self::Done => "completedSuccessfully",
                Self::Canceled => "mediaOperationCanceled",
                Self::StopToneDetected
                | Self::MaxRecordDurationReached
                | Self::MaxSilenceTimeout
                | Self::InitialSilenceTimeout
                | Self::HungUpWithAudio
                | Self::HungUpWithoutAudio
                | Self::DiskFailedWithAudio
                | Self::DiskFailedWithoutAudio
                | Self::PromptFailed(_)
                | Self::Unspecified => "unknown",
            }),
            OperationKind::SubscribeToTone
            | OperationKind::CancelMediaProcessing
            | OperationKind::Mute { .. }
            | OperationKind::Unmute { .. }
            | OperationKind::UpdateRecordingStatus { .. }
            | OperationKind::StartHoldMusic { .. }
            | OperationKind::StopHoldMusic
            | OperationKind::Echo => None,
        }
    }
}

impl PromptFailure {
    fn result(&self, kind: &OperationKind) -> ResultInfo {
        if kind.is_record() {
            let message = format!(
                "Action failed, encountered failure while trying to play the prompt: {}",
                self.message
            );
            return ResultInfo { code: 500, subcode: 8511, message };
        }
        let (code, subcode) = match self.kind {
            PromptFailureKind::NotFetched => (400, 8536),
            PromptFailureKind::BadFormat => (400, 8535),
        };
        ResultInfo { code, subcode, message: self.message.clone() }
    }
}
