//! The RTP packet (RFC 3550 section 5.1): header and payload, parsed without a copy.

use super::{PayloadType, RtpTimestamp, SeqNo, Ssrc};

/// The fixed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Marks the first packet of a talkspurt or of an event.
    pub marker: bool,
    /// The payload type.
    pub payload_type: PayloadType,
    /// The sequence number.
    pub sequence: SeqNo,
    /// The timestamp, in samples at the payload's clock rate.
    pub timestamp: RtpTimestamp,
    /// The synchronization source.
    pub ssrc: Ssrc,
}

/// A received packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The header.
    pub header: Header,
    /// The payload without padding; may be empty.
    pub payload: &'a [u8],
}

/// Why bytes are not an RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotRtp {
    /// Shorter than the header says it is.
    #[error("shorter than its header")]
    Truncated,
    /// Not version 2.
    #[error("not version 2")]
    Version,
    /// The padding is longer than the packet, or zero.
    #[error("more padding than packet")]
    Padding,
}

impl Header {
    /// The length of the fixed header in bytes.
    pub const LEN: usize = 12;

    /// Appends the header to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.push(2 << 6);
        out.push(self.payload_type.number() | (u8::from(self.marker) << 7));
        out.extend(self.sequence.0.to_be_bytes());
        out.extend(self.timestamp.0.to_be_bytes());
        out.extend(self.ssrc.0.to_be_bytes());
    }
}

impl<'a> Packet<'a> {
    /// Parses a packet; skips CSRCs, the extension and the padding.
    ///
    /// # Errors
    /// Why it is not an RTP packet.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NotRtp> {
        let (fixed, mut rest) =
            bytes.split_first_chunk::<{ Header::LEN }>().ok_or(NotRtp::Truncated)?;
        if fixed[0] >> 6 != 2 {
            return Err(NotRtp::Version);
        }
        let csrcs = usize::from(fixed[0] & 0x0f) * 4;
        rest = rest.get(csrcs..).ok_or(NotRtp::Truncated)?;
        if fixed[0] & 0x10 != 0 {
            let (extension, after) = rest.split_first_chunk::<4>().ok_or(NotRtp::Truncated)?;
            let words = usize::from(u16::from_be_bytes([extension[2], extension[3]]));
            rest = after.get(words * 4..).ok_or(NotRtp::Truncated)?;
        }
        if fixed[0] & 0x20 != 0 {
            let padding = usize::from(*rest.last().ok_or(NotRtp::Padding)?);
            let end = rest.len().checked_sub(padding).filter(|_| padding > 0);
            rest = &rest[..end.ok_or(NotRtp::Padding)?];
        }
        let header = Header {
            marker: fixed[1] & 0x80 != 0,
            payload_type: PayloadType::of_octet(fixed[1]),
            sequence: SeqNo(u16::from_be_bytes([fixed[2], fixed[3]])),
            timestamp: RtpTimestamp(u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]])),
            ssrc: Ssrc(u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]])),
        };
        Ok(Self { header, payload: rest })
    }
}

/// Whether a datagram on a port that RTP and RTCP may share is RTCP (RFC 5761 section 4); it may be
/// SRTCP as well. The packet types of RTCP are also the payload types 64 to 95 with the marker:
/// `is_rtp` says whether such a one is agreed.
pub fn is_rtcp(bytes: &[u8], is_rtp: impl FnOnce(PayloadType) -> bool) -> bool {
    match bytes {
        [_, kind @ 192..=223, _, _, _, _, _, _, ..] => !is_rtp(PayloadType::of_octet(*kind)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn csrcs_extension_and_padding_are_passed_over() {
        let mut bytes = vec![0x80 | 0x20 | 0x10 | 1, 0x80 | 101];
        bytes.extend([0, 7, 0, 0, 0, 9, 1, 2, 3, 4]);
        bytes.extend([9; 4]);
        bytes.extend([0xbe, 0xde, 0, 1, 5, 5, 5, 5]);
        bytes.extend(b"pay");
        bytes.extend([0, 2]);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.payload, b"pay");
        let Header { sequence, payload_type, .. } = packet.header;
        assert_eq!((sequence, payload_type), (SeqNo(7), PayloadType::TELEPHONE_EVENT));
        assert!(packet.header.marker);
        assert_eq!(Packet::parse(&bytes[..20]), Err(NotRtp::Truncated));
        let last = bytes.len() - 1;
        bytes[last] = 200;
        assert_eq!(Packet::parse(&bytes), Err(NotRtp::Padding));
        bytes[last] = 0;
        assert_eq!(Packet::parse(&bytes), Err(NotRtp::Padding));
        bytes[0] = 0x40;
        assert_eq!(Packet::parse(&bytes), Err(NotRtp::Version));
    }

    #[test]
    fn rtcp_is_told_by_its_packet_type_unless_that_is_an_agreed_payload_type() {
        let report = [0x80, 201, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0];
        assert!(is_rtcp(&report, |_| false));
        let number = PayloadType::of_octet(201);
        assert!(!is_rtcp(&report, |agreed| agreed == number));
        assert!(!is_rtcp(&report[..7], |_| false));
        let sound = [0x80, 0x80, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 9];
        assert!(!is_rtcp(&sound, |_| false));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(
            marker: bool, payload_type in 0u8..128, sequence: u16, timestamp: u32, ssrc: u32,
            payload in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let header = Header {
                marker,
                payload_type: PayloadType::new(payload_type).unwrap(),
                sequence: SeqNo(sequence),
                timestamp: RtpTimestamp(timestamp),
                ssrc: Ssrc(ssrc),
            };
            let mut bytes = Vec::new();
            header.write(&mut bytes);
            bytes.extend(&payload);
            prop_assert_eq!(Packet::parse(&bytes), Ok(Packet { header, payload: &payload }));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Packet::parse(&bytes);
            let _ = is_rtcp(&bytes, |_| false);
        }
    }
}
