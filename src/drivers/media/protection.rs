//! Protects the packets of a stream on their way: SRTP and SRTCP (RFC 3711), or not at all.
//!
//! Input: the agreed keys, and packets as they are received or to be sent. Output: the same packets
//! in the clear, or protected. Only this module knows keys; the rest of a leg sees RTP. A packet
//! that is not authenticated changes nothing but a counter, so a stranger costs one authentication
//! a packet, and a sender without the keys is not heard.

use aftertone_core::proto::{
    sdp::SrtpKeys,
    srtp::{CryptoSuite, SrtpError, SrtpReceiver, SrtpSender},
};

/// Refused packets in a row, without any before that was authenticated, after which the keys of
/// the two sides differ: a second of 20 ms packets.
const REFUSED: u64 = 50;
/// The longest packet that we send, with its tag; a longer one grows the buffer once.
const PACKET_CAPACITY: usize = 512;

/// The protection of one stream in both directions.
#[derive(Debug)]
pub(super) enum PacketProtection {
    /// RTP and RTCP in the clear.
    None,
    /// SRTP and SRTCP.
    Srtp(Box<Srtp>),
}

/// The SRTP session of one stream.
#[derive(Debug)]
pub(super) struct Srtp {
    keys: SrtpKeys,
    inbound: SrtpReceiver,
    outbound: SrtpSender,
    /// The packet that is being protected.
    packet: Vec<u8>,
    /// Packets refused since the last one that was authenticated.
    refused: u64,
    is_mismatch_told: bool,
    counts: ProtectionStats,
}

/// Received packets that were refused, RTP and RTCP together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProtectionStats {
    /// Packets that were not protected with the peer's key, or damaged.
    pub unauthenticated: u64,
    /// Packets that came before, or are too old to know.
    pub replayed: u64,
    /// Datagrams that were neither RTP nor RTCP.
    pub malformed: u64,
}

impl PacketProtection {
    /// A protection with these keys, or none.
    pub(super) fn new(keys: Option<&SrtpKeys>) -> Self {
        keys.map_or(Self::None, |keys| Self::Srtp(Box::new(Srtp::new(keys))))
    }

    /// Goes on with these keys. A key that stays the same keeps its state; packets with the peer's
    /// former key still count for a while.
    pub(super) fn renew(&mut self, keys: Option<&SrtpKeys>) {
        match (self, keys) {
            (Self::Srtp(srtp), Some(keys)) => srtp.renew(keys),
            (protection, keys) => *protection = Self::new(keys),
        }
    }

    /// The received RTP packet in the clear; `None` if it is refused.
    pub(super) fn open<'p>(&mut self, packet: &'p mut [u8]) -> Option<&'p [u8]> {
        match self {
            Self::None => Some(packet),
            Self::Srtp(srtp) => {
                let opened = srtp.inbound.unprotect(packet);
                srtp.judge(opened.as_ref().err().copied());
                opened.ok().map(|packet| &*packet)
            }
        }
    }

    /// The received RTCP packet in the clear; `None` if it is refused.
    pub(super) fn open_rtcp<'p>(&mut self, packet: &'p mut [u8]) -> Option<&'p [u8]> {
        match self {
            Self::None => Some(packet),
            Self::Srtp(srtp) => {
                let opened = srtp.inbound.unprotect_rtcp(packet);
                srtp.judge(opened.as_ref().err().copied());
                opened.ok().map(|packet| &*packet)
            }
        }
    }

    /// An RTP packet as it is sent; `None` if its key is exhausted.
    pub(super) fn seal<'p>(&'p mut self, packet: &'p [u8]) -> Option<&'p [u8]> {
        match self {
            Self::None => Some(packet),
            Self::Srtp(srtp) => {
                srtp.packet.clear();
                srtp.packet.extend_from_slice(packet);
                srtp.outbound.protect(&mut srtp.packet).ok().map(|()| &srtp.packet[..])
            }
        }
    }

    /// An RTCP packet as it is sent; `None` if its key is exhausted.
    pub(super) fn seal_rtcp<'p>(&'p mut self, packet: &'p [u8]) -> Option<&'p [u8]> {
        match self {
            Self::None => Some(packet),
            Self::Srtp(srtp) => {
                srtp.packet.clear();
                srtp.packet.extend_from_slice(packet);
                srtp.outbound.protect_rtcp(&mut srtp.packet).ok().map(|()| &srtp.packet[..])
            }
        }
    }

    /// The suite and the tag of the agreed keys, if the received packets show that the peer does
    /// not use them; told once for each agreement.
    pub(super) fn first_mismatch(&mut self) -> Option<(CryptoSuite, u32)> {
        let Self::Srtp(srtp) = self else { return None };
        let is_news =
            srtp.refused >= REFUSED && !std::mem::replace(&mut srtp.is_mismatch_told, true);
        is_news.then(|| (srtp.keys.suite(), srtp.keys.tag))
    }

    /// How many packets were refused.
    pub(super) fn stats(&self) -> ProtectionStats {
        match self {
            Self::None => ProtectionStats::default(),
            Self::Srtp(srtp) => srtp.counts,
        }
    }
}

impl Srtp {
    fn new(keys: &SrtpKeys) -> Self {
        Self {
            keys: keys.clone(),
            inbound: SrtpReceiver::new(keys.theirs.clone(), keys.mki),
            outbound: SrtpSender::new(keys.ours.clone(), None),
            packet: Vec::with_capacity(PACKET_CAPACITY),
            refused: 0,
            is_mismatch_told: false,
            counts: ProtectionStats::default(),
        }
    }

    fn renew(&mut self, keys: &SrtpKeys) {
        if self.keys == *keys {
            return;
        }
        self.inbound.replace_key(keys.theirs.clone(), keys.mki);
        self.outbound.replace_key(keys.ours.clone(), None);
        self.keys = keys.clone();
        (self.refused, self.is_mismatch_told) = (0, false);
    }

    /// Counts a received packet with its error.
    fn judge(&mut self, error: Option<SrtpError>) {
        match error {
            None => self.refused = 0,
            Some(SrtpError::Replayed | SrtpError::TooOld) => self.counts.replayed += 1,
            Some(SrtpError::TooShort | SrtpError::Malformed) => self.counts.malformed += 1,
            Some(
                SrtpError::Authentication
                | SrtpError::WrongMki
                | SrtpError::OutOfOrder
                | SrtpError::KeyExhausted,
            ) => {
                self.counts.unauthenticated += 1;
                self.refused += 1;
            }
        }
    }
}
