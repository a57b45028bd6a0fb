//! What is known about one call: its state, its parties, and why it ended.

use serde::{Deserialize, Serialize};

use super::{CallId, ResultInfo, UnixMillis};

/// One call as the house knows it: what the store keeps and what the API shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The call's id.
    pub id: CallId,
    /// Name of the application that owns the call; empty for a built-in line.
    pub application: String,
    /// Where the call is in its life.
    pub state: CallState,
    /// Who began it.
    pub direction: Direction,
    /// The calling party.
    pub source: Party,
    /// The called party.
    pub target: Party,
    /// Correlation id of everything that belongs to this call; a GUID.
    pub chain_id: String,
    /// Id of our own side as a participant; a GUID.
    pub participant_id: String,
    /// The Call-ID of the SIP dialog.
    pub sip_call_id: String,
    /// Where notifications of this call go; none for a built-in line.
    pub callback_uri: Option<String>,
    /// Whether audio may flow; `None` until it could.
    pub media: Option<MediaState>,
    /// Whether tones are announced (`subscribeToTone`).
    pub tones_subscribed: bool,
    /// The media configuration as the client gave it, echoed unchanged; JSON text.
    pub media_config: Option<String>,
    /// Subject header of the INVITE.
    pub subject: Option<String>,
    /// When the INVITE came.
    pub created_at: UnixMillis,
    /// When it was over.
    pub ended_at: Option<UnixMillis>,
    /// Why it was over; set exactly when `state` is terminated.
    pub termination: Option<Termination>,
}

/// Where a call is in its life (contract section 3.2; hold is told by [`MediaState`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CallState {
    /// Offered to the application, which has not answered yet.
    Incoming,
    /// Answered or being placed; no ACK or media yet.
    Establishing,
    /// Both sides agree that the call is up.
    Established,
    /// The application asked to end it; it is being taken down.
    Terminating,
    /// Over.
    Terminated,
}

/// Who began the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// The peer called us.
    Incoming,
    /// We called the peer.
    Outgoing,
}

/// Whether audio may flow from the peer to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MediaState {
    /// Audio flows.
    Active,
    /// The peer holds the call.
    Inactive,
}

/// One side of a call.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Party {
    /// SIP, SIPS or tel URI, without parameters.
    pub uri: String,
    /// Name for a person, when one was given.
    pub display_name: Option<String>,
}

/// Why the application does not want an incoming call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RejectReason {
    /// No reason; the caller hears 480.
    None,
    /// The caller hears 486.
    Busy,
    /// The caller hears 403.
    Forbidden,
}

/// Why a call ended (contract section 5.3 has the codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Termination {
    /// The peer sent BYE.
    PeerHungUp,
    /// The peer canceled before we answered.
    PeerCanceled,
    /// The application deleted the call.
    ApplicationHungUp,
    /// The application rejected the call.
    Rejected(RejectReason),
    /// The application did not answer within its time.
    NotAnswered,
    /// Our 200 was never acknowledged.
    NoAck,
    /// The peer's RTP stopped.
    MediaTimeout,
    /// The application sent no keepAlive for too long.
    KeepAliveExpired,
    /// No codec, no port: the call could not be set up.
    MediaRefused,
    /// The built-in line was done.
    LineEnded,
    /// We are shutting down.
    Drained,
    /// The process that held the call died.
    NodeLost,
    /// Our own fault.
    Internal,
}

impl Termination {
    /// The codes and the sentence that the application is told.
    pub fn result(self) -> ResultInfo {
        let (code, subcode, text) = match self {
            Self::PeerHungUp => (200, 4521, "The other participant ended the call."),
            Self::PeerCanceled => (200, 4521, "The caller canceled before the call was answered."),
            Self::ApplicationHungUp => (200, 7000, "The call was ended by the application."),
            Self::Rejected(_) => (200, 7000, "The call was rejected by the application."),
            Self::NotAnswered => (408, 8587, "The incoming call was not answered within its time."),
            Self::NoAck => (408, 1106, "The acceptance of the call was never acknowledged."),
            Self::MediaTimeout => (410, 301_005, "No media came from the other participant."),
            Self::KeepAliveExpired => (408, 8537, "No keepAlive came within its time."),
            Self::MediaRefused => (488, 301_005, "No media session could be agreed."),
            Self::LineEnded => (200, 7000, "The line has ended the call."),
            Self::Drained => (503, 7106, "The server was shut down."),
            Self::NodeLost => (500, 7106, "The server that held the call was lost."),
            Self::Internal => (500, 7106, "Server Internal Error."),
        };
        ResultInfo { code, subcode, message: format!("{text} DiagCode: {code}#{subcode}.@") }
    }
}
