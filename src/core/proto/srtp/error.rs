//! Why a packet is not protected or unprotected.

/// Why a packet was refused. The packet and all state are unchanged then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SrtpError {
    /// Shorter than the fixed header with the MKI and the tag.
    #[error("shorter than a header and a tag")]
    TooShort,
    /// Not version 2, or the RTP header says that it is longer than the packet.
    #[error("not an RTP or RTCP packet")]
    Malformed,
    /// The MKI is not the agreed one. Found before the packet is authenticated.
    #[error("another master key identifier")]
    WrongMki,
    /// The tag is not that of the packet: it was forged, damaged, or protected with another key.
    #[error("the tag does not match")]
    Authentication,
    /// A packet with this index was received before. Found before the packet is authenticated.
    #[error("replayed")]
    Replayed,
    /// The packet is older than the replay window. Found before the packet is authenticated.
    #[error("older than the replay window")]
    TooOld,
    /// The packet to be sent has no higher sequence number than its predecessor in the stream.
    #[error("the sequence number does not grow")]
    OutOfOrder,
    /// All indices of the master key are used (RFC 3711 section 9.2): a new key is needed.
    #[error("the master key is exhausted")]
    KeyExhausted,
}
