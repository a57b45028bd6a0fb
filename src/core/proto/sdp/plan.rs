//! The result of offer and answer: what the media does with it.

use std::net::SocketAddr;

use super::crypto::SrtpKeys;
use crate::{audio::Codec, proto::rtp::PayloadType};

/// The result of offer and answer for the media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPlan {
    /// The codec that we send.
    pub codec: Codec,
    /// Its payload type.
    pub payload_type: PayloadType,
    /// The payload type with which we send telephone events (RFC 4733), if agreed.
    pub telephone_event: Option<PayloadType>,
    /// What the peer may send, by payload type. This includes each codec in an answer of the peer,
    /// which it may use at any time, possibly under a number other than the one that we send with.
    /// It also includes codecs that either side offered under a static number, and telephone events
    /// that the peer offered, even if they were not answered.
    pub heard: Vec<(PayloadType, Payload)>,
    /// The payload types of the peer's line, each once, with their meaning; `None` if we do not
    /// support it. Our later offers give none of these numbers another meaning.
    pub named: Vec<(PayloadType, Option<Payload>)>,
    /// Where our RTP goes; `None` if the description names no usable IP address (hold by 0.0.0.0, a
    /// host name, multicast).
    pub remote: Option<SocketAddr>,
    /// The RTP port on the host that the peer's SIP comes from. RTP goes there if the description
    /// gives a host name, which RFC 8866 section 5.7 allows, or no address at all. The name is not
    /// resolved: a peer could choose any host by it.
    pub port_at_sip_host: Option<u16>,
    /// Where our RTCP goes.
    pub remote_rtcp: Option<SocketAddr>,
    /// The direction, as seen from our side.
    pub direction: Direction,
    /// The packet duration that the peer wants, 10 to 60 ms.
    pub ptime_ms: u32,
    /// Whether RTCP shares the RTP port (RFC 5761).
    pub rtcp_mux: bool,
    /// The keys of SRTP and SRTCP; `None` if RTP is not encrypted.
    pub srtp: Option<SrtpKeys>,
}

impl StreamPlan {
    /// What the peer may send under this payload type.
    pub fn meaning_of(&self, payload_type: PayloadType) -> Option<Payload> {
        let heard = self.heard.iter().find(|(number, _)| *number == payload_type);
        heard.map(|(_, payload)| *payload)
    }
}

/// What a payload type carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Audio.
    Sound(Codec),
    /// Telephone events.
    Event,
}

/// The direction of the media, as seen from our side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both ways.
    SendRecv,
    /// From us only.
    SendOnly,
    /// From the peer only.
    RecvOnly,
    /// Neither way.
    Inactive,
}

impl Direction {
    /// Whether media flows from us to the peer.
    pub fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether media flows from the peer to us.
    pub fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same direction without our sending.
    pub fn without_sending(self) -> Self {
        if self.receives() { Self::RecvOnly } else { Self::Inactive }
    }

    pub(super) fn attribute(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    pub(super) fn from_attribute(name: &str) -> Option<Self> {
        let all = [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive];
        all.into_iter().find(|direction| direction.attribute().eq_ignore_ascii_case(name))
    }

    /// The same direction, as seen from the other side.
    pub(super) fn mirrored(self) -> Self {
        match self {
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            same @ (Self::SendRecv | Self::Inactive) => same,
        }
    }
}
