//! The events that a leg reports to its call.

use std::net::SocketAddr;

use super::stream_stats::StreamStats;
use aftertone_core::{
    model::{OperationId, Silence, Tone},
    operation::Ended,
    proto::srtp::CryptoSuite,
};

/// An event that a leg reports to its call. When the channel ends without [`Closed`](Self::Closed)
/// or [`Failed`](Self::Failed), the leg has failed too.
#[derive(Debug, Clone, PartialEq)]
pub enum LegEvent {
    /// The first valid RTP packet has come.
    Heard,
    /// A key was pressed, by RTP or [`LegCommand::Press`](super::leg::LegCommand::Press); reported
    /// once for each press, whatever operation runs.
    Tone {
        /// The key.
        tone: Tone,
    },
    /// All output of an operation has been sent, and nothing else of it remains to be done. Its end
    /// is reported when the peer has played it; the next operation may begin.
    OperationSaid {
        /// The operation.
        id: OperationId,
    },
    /// An operation has ended. The spool has all of its clip, and the peer has heard all of its
    /// prompts.
    OperationEnded {
        /// The operation.
        id: OperationId,
        /// How it ended.
        ended: Ended,
    },
    /// Neither RTP nor RTCP has come for [`Settings::rtp_timeout`](super::Settings::rtp_timeout)
    /// although the peer should send, or for
    /// [`Settings::hold_timeout`](super::Settings::hold_timeout) from a peer that need not send.
    /// The leg goes on.
    MediaTimedOut {
        /// The kind of silence.
        silence: Silence,
        /// How many packets came that were not protected with the agreed key.
        unauthenticated: u64,
    },
    /// Packets come, and none of them is protected with the agreed key: the keys of the two sides
    /// differ, or the peer sends in the clear. Reported once for each agreement.
    KeysDiffer {
        /// The agreed suite.
        suite: CryptoSuite,
        /// The tag of the agreed `a=crypto` line.
        tag: u32,
    },
    /// Nothing is sent to this address. With [`Unsent::Unverified`], sending goes on when something
    /// comes from it.
    Unsent {
        /// The address.
        to: SocketAddr,
        /// The reason.
        why: Unsent,
    },
    /// The leg is closed; nothing follows.
    Closed {
        /// The figures of its stream.
        stats: StreamStats,
    },
    /// A fault of our own has ended the leg; nothing follows.
    Failed,
}

/// Why nothing is sent to an address that was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsent {
    /// Nothing has come from it, the peer's SIP does not come from there, and
    /// [`Settings::unverified`](super::Settings::unverified) is used up: it may be a victim's.
    Unverified,
    /// It is our own address, or reaches more than one host: see
    /// [`Targets`](super::targets::Targets).
    Forbidden,
}
