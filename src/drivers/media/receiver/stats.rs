//! Figures about received packets.

/// Figures about received packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceiverStats {
    /// Packets of every agreed kind, including duplicates.
    pub received: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Packets that were dropped because they came too late or were too far ahead.
    pub late: u64,
    /// Packets that came twice.
    pub duplicate: u64,
    /// Interarrival jitter in ticks of the codec's clock.
    pub jitter: u32,
}
