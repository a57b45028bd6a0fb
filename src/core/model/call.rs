//! One call: its state, its parties, and why it ended.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::{CallId, ParticipantId, RecordingStatus, ResultInfo, Side, UnixMillis};
use crate::proto::{
    sip::{Status, StatusClass},
    srtp::CryptoSuite,
};

/// One call: what the store keeps and what the API shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The call's id.
    pub id: CallId,
    /// Name of the application that owns the call; `None` for a built-in line.
    #[serde(with = "stored_application")]
    pub application: Option<String>,
    /// The state of the call.
    pub state: CallState,
    /// Which side began the call.
    pub direction: Direction,
    /// The calling party.
    pub source: Party,
    /// The called party.
    pub target: Party,
    /// For an incoming call: called URI, diversions and referrer.
    #[serde(default)]
    pub arrival: Arrival,
    /// Whether the other side is a telephone behind a trunk.
    #[serde(default)]
    pub is_telephone: bool,
    /// Correlation id of everything that belongs to this call; a GUID.
    pub chain_id: String,
    /// Our own side as a participant.
    pub participant_id: ParticipantId,
    /// The other side as a participant.
    #[serde(default = "ParticipantId::nobody")]
    pub peer_participant_id: ParticipantId,
    /// The Call-ID of the SIP dialog.
    pub sip_call_id: String,
    /// Where notifications of this call go; none for a built-in line.
    pub callback_uri: Option<String>,
    /// Whether audio flows; `None` before the call is established and after it has ended.
    pub media: Option<MediaState>,
    /// Whether tones are reported (`subscribeToTone`).
    pub tones_subscribed: bool,
    /// Whether our sound is dropped.
    #[serde(default)]
    pub is_muted: bool,
    /// Whether the other side's sound is dropped.
    #[serde(default)]
    pub peer_is_muted: bool,
    /// The status that the application reports of its own recording, once it has reported one.
    #[serde(default)]
    pub recording_status: Option<RecordingStatus>,
    /// The media configuration as the client gave it, echoed unchanged; JSON text.
    pub media_config: Option<String>,
    /// Subject header of the INVITE.
    pub subject: Option<String>,
    /// How long a call that we place may ring, if the application sets it.
    #[serde(default)]
    pub ringing_timeout_seconds: Option<u32>,
    /// When the INVITE came, or the application placed the call.
    pub created_at: UnixMillis,
    /// When the call ended.
    pub ended_at: Option<UnixMillis>,
    /// Why the call ended; set exactly when `state` is terminated.
    pub termination: Option<Termination>,
}

impl Call {
    /// Which side of the call a participant is.
    pub fn side(&self, id: ParticipantId) -> Option<Side> {
        match id {
            id if id == self.participant_id => Some(Side::Ours),
            id if id == self.peer_participant_id => Some(Side::Peers),
            _ => None,
        }
    }

    /// The party that the application talks to.
    pub fn peer(&self) -> &Party {
        match self.direction {
            Direction::Incoming => &self.source,
            Direction::Outgoing => &self.target,
        }
    }

    /// Codes and sentence of the call's end; `None` before that.
    pub fn result(&self) -> Option<ResultInfo> {
        self.termination.map(Termination::result)
    }
}

/// Called URI, diversions and referrer of an incoming call.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Arrival {
    /// The URI that was called.
    pub called: Option<String>,
    /// The parties that diverted the call, from the first to the last.
    pub diverted: Vec<Party>,
    /// The party that referred the caller to us.
    pub referred_by: Option<Party>,
}

/// The kind of a transfer (contract section 2.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TransferKind {
    /// The target is called without a consultation call before.
    Blind,
    /// The peer takes over another call of the application, made for consultation.
    Consultative,
}

impl TransferKind {
    /// The codes and the sentence of a transfer that failed.
    pub fn failure(self) -> ResultInfo {
        let (code, subcode) = match self {
            Self::Blind => (500, 7000),
            Self::Consultative => (500, 7700),
        };
        let message = format!("The transfer failed. DiagCode: {code}#{subcode}.@");
        ResultInfo { code, subcode, message }
    }
}

/// Where a call is in its life (contract section 3.2; hold is shown by [`MediaState`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CallState {
    /// Offered to the application, which has not answered yet.
    Incoming,
    /// Answered or being placed; no ACK or media yet.
    Establishing,
    /// Being placed, and the called party is being alerted.
    Ringing,
    /// Both sides agree that the call is established.
    Established,
    /// The peer has been asked to call another party.
    Transferring,
    /// The peer is connected to the other party.
    TransferAccepted,
    /// The call is being taken down. This state is reported only if the application asked for the
    /// end.
    Terminating,
    /// Over.
    Terminated,
}

/// Which side began the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// The peer called us.
    Incoming,
    /// We called the peer.
    Outgoing,
}

/// Whether audio flows in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MediaState {
    /// Audio flows.
    Active,
    /// The call is on hold, flows in one direction only, or is being transferred.
    Inactive,
}

/// One side of a call.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Party {
    /// SIP, SIPS or tel URI, without parameters; see [`application`](Self::application) for our own
    /// side.
    pub uri: String,
    /// Display name, when one was given.
    pub display_name: Option<String>,
}

impl Party {
    const APPLICATION: &str = "application:";

    /// The application with this id, as the calling party.
    pub fn application(id: &str, display_name: Option<String>) -> Self {
        Self { uri: format!("{}{id}", Self::APPLICATION), display_name }
    }

    /// The id of the application, if the party is one.
    pub fn application_id(&self) -> Option<&str> {
        self.uri.strip_prefix(Self::APPLICATION)
    }
}

/// The application of a stored call: an empty text for a built-in line.
mod stored_application {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        application: &Option<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(application.as_deref().unwrap_or_default())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<String>, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(Some(name).filter(|name| !name.is_empty()))
    }
}

/// Why the application does not want an incoming call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RejectReason {
    /// No reason; the caller gets 480.
    None,
    /// The caller gets 486.
    Busy,
    /// The caller gets 403.
    Forbidden,
}

/// Why a call ended (contract section 5.3 has the codes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Termination {
    /// The peer sent BYE.
    PeerHungUp,
    /// The peer sent BYE, and is a telephone behind a trunk.
    TelephoneHungUp,
    /// The peer canceled before we answered.
    PeerCanceled,
    /// The application deleted the call.
    ApplicationHungUp,
    /// The application rejected the call.
    Rejected(RejectReason),
    /// The application redirected the caller to another target.
    Redirected,
    /// The application did not answer within its time.
    NotAnswered,
    /// Our 200 was never acknowledged.
    NoAck,
    /// The call of a stranger was half-open when another caller needed its place.
    MadeRoom,
    /// The peer let the session expire, or does not know the call any more.
    PeerLost,
    /// The peer, or a proxy on the way to it, refused our call with this SIP status.
    Refused(Status),
    /// The called party is a user of ours, and no phone of it is registered.
    NoEndpoint,
    /// The peer could not be reached, or did not answer, within the ringing time.
    NoAnswer,
    /// The peer's RTP did not come, or stopped.
    MediaTimeout(MediaLoss),
    /// The application sent no keepAlive for too long.
    KeepAliveExpired,
    /// No common codec or no free port: the call could not be set up.
    MediaRefused,
    /// The encryption of the audio could not be agreed on.
    NotEncrypted(EncryptionFault),
    /// The peer is connected to another party, as the application requested.
    Transferred,
    /// The built-in line ended the call.
    LineEnded,
    /// We are shutting down.
    Drained,
    /// The process that held the call died.
    NodeLost,
    /// Our own fault.
    Internal,
}

/// The kind of a silence of the peer's media that has lasted too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Silence {
    /// Sound was agreed in both directions, and no packet has ever come.
    NeverHeard,
    /// Sound was agreed in both directions, and packets have ceased to come.
    Ceased,
    /// The call is on hold, or goes in one direction only.
    OnHold,
}

/// A loss of the peer's media, and the addresses between which it was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MediaLoss {
    /// The kind of silence.
    pub silence: Silence,
    /// The address in our session description.
    pub ours: Option<SocketAddr>,
    /// The address in the peer's session description, if it is usable.
    pub theirs: Option<SocketAddr>,
    /// Packets that came and could not be authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<UnauthenticatedMedia>,
}

/// SRTP packets of the peer that were not protected with the agreed key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnauthenticatedMedia {
    /// How many.
    pub packets: u64,
    /// The agreed suite.
    pub suite: CryptoSuite,
    /// The tag of the agreed `a=crypto` line.
    pub tag: u32,
}

/// Why the encryption of the audio cannot be agreed on. `Display` says what was wrong with an offer
/// or answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
pub enum EncryptionFault {
    /// Encrypted audio was demanded, and the configuration forbids it.
    #[error("encrypted audio was demanded, and media.srtp is \"off\" here")]
    SwitchedOff,
    /// No keys, and the configuration demands them.
    #[error("audio without keys was proposed, and encrypted audio is required here")]
    Required,
    /// No keys, in a call that is encrypted.
    #[error("audio without keys was proposed in a call that is encrypted")]
    Downgrade,
    /// Encrypted audio without an `a=crypto` line.
    #[error("encrypted audio was proposed without keys: there is no a=crypto line")]
    KeysMissing,
    /// No `a=crypto` line follows the grammar of RFC 4568.
    #[error("encrypted audio was proposed, but its a=crypto line cannot be read")]
    KeysUnreadable,
    /// No suite that both sides know.
    #[error("encrypted audio was proposed, but no crypto suite is common to both sides")]
    NoCommonSuite,
    /// A key that has not the length that its suite needs.
    #[error("encrypted audio was proposed, but its key has the wrong length for its suite")]
    KeyLength,
    /// Several keys in one `a=crypto` line, which are not supported.
    #[error("encrypted audio was proposed with several keys in one a=crypto line")]
    SeveralKeys,
    /// A session parameter that is not supported, such as `UNENCRYPTED_SRTP`.
    #[error("encrypted audio was proposed with a session parameter that is not supported here")]
    SessionParameter,
}

impl fmt::Display for MediaLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.silence {
            Silence::NeverHeard => "No media came from the other participant",
            Silence::Ceased => "Media from the other participant has ceased",
            Silence::OnHold => "Nothing came from the other participant while the call was on hold",
        })?;
        match self.ours {
            Some(ours) => write!(f, ": we expected it at {ours}")?,
            None => f.write_str(": we expected it nowhere")?,
        }
        match self.theirs {
            Some(theirs) => write!(f, ", they said they were at {theirs}.")?,
            None => f.write_str(", they named no usable address.")?,
        }
        match self.refused {
            Some(UnauthenticatedMedia { packets, suite, tag }) => write!(
                f,
                " {packets} packets failed authentication with {} and the key of tag {tag}.",
                suite.name()
            ),
            None => Ok(()),
        }
    }
}

impl Termination {
    /// The codes and the sentence for the application.
    pub fn result(self) -> ResultInfo {
        let (code, subcode, text) = self.told();
        ResultInfo { code, subcode, message: format!("{text} DiagCode: {code}#{subcode}.@") }
    }

    fn told(self) -> (i32, i32, String) {
        let (code, subcode, text) = match self {
            Self::PeerHungUp => (200, 4521, "The other participant ended the call."),
            Self::TelephoneHungUp => (200, 540_000, "The telephone participant ended the call."),
            Self::PeerCanceled => (200, 4521, "The caller canceled before the call was answered."),
            Self::ApplicationHungUp => (200, 7000, "The call was ended by the application."),
            Self::Rejected(_) => (200, 7000, "The call was rejected by the application."),
            Self::Redirected => (200, 7000, "The call was redirected by the application."),
            Self::NotAnswered => (408, 8587, "The incoming call was not answered within its time."),
            Self::NoAck => (408, 1106, "The acceptance of the call was never acknowledged."),
            Self::MadeRoom => {
                (503, 7106, "The call made room for others before its caller was heard.")
            }
            Self::PeerLost => (480, 10_076, "The other participant could not be reached any more."),
            Self::Refused(status) => refused(status),
            Self::NoEndpoint => (480, 10_037, "No endpoint of the called participant was found."),
            Self::NoAnswer => (408, 10_057, "The other participant did not answer."),
            Self::MediaTimeout(loss) => return (410, 301_005, loss.to_string()),
            Self::KeepAliveExpired => (408, 8537, "No keepAlive came within its time."),
            Self::MediaRefused => (488, 301_005, "No media session could be agreed."),
            Self::NotEncrypted(fault) => {
                return (488, 301_005, format!("No media session could be agreed: {fault}."));
            }
            Self::Transferred => (200, 7015, "The call was transferred."),
            Self::LineEnded => (200, 7000, "The line has ended the call."),
            Self::Drained => (503, 7106, "The server was shut down."),
            Self::NodeLost => (500, 7106, "The server that held the call was lost."),
            Self::Internal => (500, 7106, "Server Internal Error."),
        };
        (code, subcode, text.to_owned())
    }
}

impl fmt::Display for Termination {
    /// The sentence without the codes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told().2)
    }
}

/// Contract section 5.3: codes of a call that we placed and that was refused with this SIP status.
fn refused(status: Status) -> (i32, i32, &'static str) {
    let (subcode, text) = match status {
        Status::NOT_FOUND
        | Status::DOES_NOT_EXIST_ANYWHERE
        | Status::GONE
        | Status::ADDRESS_INCOMPLETE => (8543, "The called participant does not exist."),
        Status::REQUEST_TIMEOUT => (10_057, "The called participant did not answer."),
        Status::TEMPORARILY_UNAVAILABLE => (8541, "The called participant is not available."),
        Status::BUSY_HERE => (8539, "The called participant is busy."),
        Status::REQUEST_TERMINATED => (8542, "The call was canceled."),
        Status::BUSY_EVERYWHERE => (8540, "The called participant is busy everywhere."),
        Status::DECLINE => (8538, "The called participant declined."),
        _ => match status.class() {
            StatusClass::Redirection => {
                (10_134, "The call was redirected, which the trunk does not allow.")
            }
            StatusClass::ServerError => (8544, "The called participant could not be reached."),
            StatusClass::Provisional
            | StatusClass::Success
            | StatusClass::ClientError
            | StatusClass::GlobalFailure => (8546, "The call was refused."),
        },
    };
    (i32::from(status.code()), subcode, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Owned {
        #[serde(with = "stored_application")]
        application: Option<String>,
    }

    #[test]
    fn a_line_is_stored_as_an_application_without_a_name() {
        for (application, stored) in
            [(None, r#"{"application":""}"#), (Some("bot".to_owned()), r#"{"application":"bot"}"#)]
        {
            let owned = Owned { application };
            assert_eq!(serde_json::to_string(&owned).unwrap(), stored);
            assert_eq!(serde_json::from_str::<Owned>(stored).unwrap(), owned);
        }
    }
}
