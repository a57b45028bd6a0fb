//! What is counted of one leg's stream.
use super::{receiver::ReceiverStats, sender::Sent};

/// What a stream has lived through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamStats {
    /// What came.
    pub received: ReceiverStats,
    /// What was sent.
    pub sent: Sent,
    /// Packets that were not the peer's, as far as the kernel let them through.
    pub strangers: u64,
    /// Datagrams on the RTP port that were no RTP.
    pub malformed: u64,
}
