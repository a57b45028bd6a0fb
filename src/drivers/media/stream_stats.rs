//! Figures of one leg's stream.
use super::{protection::ProtectionStats, receiver::ReceiverStats, sender::Sent};

/// The figures of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamStats {
    /// Figures about received packets.
    pub received: ReceiverStats,
    /// What was sent.
    pub sent: Sent,
    /// Packets of sources other than the peer, as far as the kernel let them through.
    pub strangers: u64,
    /// Datagrams on the RTP port that were not RTP.
    pub malformed: u64,
    /// Packets that were refused because of their protection.
    pub refused: ProtectionStats,
}
