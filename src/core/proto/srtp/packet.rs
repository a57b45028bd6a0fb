//! The fields of RTP and RTCP headers that SRTP needs.

use super::SrtpError;
use crate::proto::rtp::{Ssrc, packet::Header};

/// The part of an RTCP compound packet that is not encrypted (RFC 3711 section 3.4).
pub(super) const RTCP_HEADER_LEN: usize = 8;

/// What SRTP needs to know of an RTP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RtpFields {
    pub(super) ssrc: Ssrc,
    pub(super) sequence: u16,
    /// The length of the header with CSRCs and extension: here the encrypted part begins.
    pub(super) payload_offset: usize,
}

impl RtpFields {
    /// Reads the header of a packet without MKI and tag.
    ///
    /// # Errors
    /// [`SrtpError::TooShort`] or [`SrtpError::Malformed`].
    pub(super) fn read(packet: &[u8]) -> Result<Self, SrtpError> {
        let (fixed, rest) =
            packet.split_first_chunk::<{ Header::LEN }>().ok_or(SrtpError::TooShort)?;
        check_version(fixed[0])?;
        let csrcs = usize::from(fixed[0] & 0x0f) * 4;
        let rest = rest.get(csrcs..).ok_or(SrtpError::Malformed)?;
        let mut extension = 0;
        if fixed[0] & 0x10 != 0 {
            let head = rest.first_chunk::<4>().ok_or(SrtpError::Malformed)?;
            extension = 4 + 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
        }
        if extension > rest.len() {
            return Err(SrtpError::Malformed);
        }
        Ok(Self {
            ssrc: ssrc_at(fixed, 8),
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            payload_offset: Header::LEN + csrcs + extension,
        })
    }
}

/// Reads the SSRC of the sender of an RTCP compound packet.
///
/// # Errors
/// [`SrtpError::TooShort`] or [`SrtpError::Malformed`].
pub(super) fn rtcp_ssrc(packet: &[u8]) -> Result<Ssrc, SrtpError> {
    let header = packet.first_chunk::<RTCP_HEADER_LEN>().ok_or(SrtpError::TooShort)?;
    check_version(header[0])?;
    Ok(ssrc_at(header, 4))
}

fn check_version(octet: u8) -> Result<(), SrtpError> {
    if octet >> 6 == 2 { Ok(()) } else { Err(SrtpError::Malformed) }
}

fn ssrc_at<const N: usize>(header: &[u8; N], offset: usize) -> Ssrc {
    Ssrc(u32::from_be_bytes(std::array::from_fn(|byte| header[offset + byte])))
}
