//! The fields of the RTP header as types (RFC 3550 section 5.1).

use std::{
    fmt,
    ops::{Add, AddAssign},
};

/// A synchronization source: one stream of one sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Ssrc(pub u32);

/// A sequence number: grows by one per packet, and wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeqNo(pub u16);

/// A timestamp in ticks of the payload's clock rate; wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RtpTimestamp(pub u32);

/// A payload type: 0 to 127.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PayloadType(u8);

impl SeqNo {
    /// The number of the next packet.
    pub fn next(self) -> Self {
        self + 1
    }

    /// How many packets after `other` this one was sent; negative if it was sent before. Both are
    /// taken to be less than half a cycle apart (section A.1).
    pub fn since(self, other: Self) -> i16 {
        self.0.wrapping_sub(other.0) as i16
    }

    /// Whether the packet was sent before `other`.
    pub fn is_before(self, other: Self) -> bool {
        self.since(other) < 0
    }
}

impl Add<u16> for SeqNo {
    type Output = Self;

    fn add(self, packets: u16) -> Self {
        Self(self.0.wrapping_add(packets))
    }
}

impl RtpTimestamp {
    /// The ticks from `other` to this time; negative if this is the earlier one. Both are taken to
    /// be less than half a cycle apart.
    pub fn since(self, other: Self) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }
}

impl Add<u32> for RtpTimestamp {
    type Output = Self;

    fn add(self, ticks: u32) -> Self {
        Self(self.0.wrapping_add(ticks))
    }
}

impl AddAssign<u32> for RtpTimestamp {
    fn add_assign(&mut self, ticks: u32) {
        *self = *self + ticks;
    }
}

impl PayloadType {
    /// G.711 µ-law (RFC 3551 section 6, table 4).
    pub const PCMU: Self = Self(0);
    /// G.711 A-law (the same table).
    pub const PCMA: Self = Self(8);
    /// Comfort noise: the number of RFC 3389, and the one that was in use before it.
    pub const COMFORT_NOISE: [Self; 2] = [Self(13), Self(19)];
    /// The dynamic number that phones usually give to telephone events.
    pub const TELEPHONE_EVENT: Self = Self(101);

    /// The payload type of this number, if it has seven bits.
    pub const fn new(number: u8) -> Option<Self> {
        if number < 128 { Some(Self(number)) } else { None }
    }

    /// The payload type in the second octet of a packet; the upper bit is the marker.
    pub const fn of_octet(octet: u8) -> Self {
        Self(octet & 0x7f)
    }

    /// The dynamic payload types, 96 to 127 (RFC 3551 section 6).
    pub fn dynamic() -> impl Iterator<Item = Self> + Clone {
        (96..=127).map(Self)
    }

    /// The number.
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for PayloadType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_and_timestamps_wrap() {
        assert_eq!(SeqNo(65_535).next(), SeqNo(0));
        assert_eq!((SeqNo(1).since(SeqNo(65_534)), SeqNo(65_534).since(SeqNo(1))), (3, -3));
        assert!(SeqNo(65_535).is_before(SeqNo(0)) && !SeqNo(0).is_before(SeqNo(0)));
        assert_eq!(RtpTimestamp(u32::MAX) + 160, RtpTimestamp(159));
        assert_eq!(RtpTimestamp(159).since(RtpTimestamp(u32::MAX)), 160);
    }

    #[test]
    fn payload_types_have_seven_bits() {
        assert_eq!((PayloadType::new(127), PayloadType::new(128)), (Some(PayloadType(127)), None));
        assert_eq!(PayloadType::of_octet(0x80 | 101), PayloadType::TELEPHONE_EVENT);
        assert_eq!(PayloadType::dynamic().count(), 32);
    }
}
