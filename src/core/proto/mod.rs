//! Protocols as pure machines and values: SIP, SDP, RTP, SRTP.

pub mod rtp;
pub mod sdp;
pub mod sip;
pub mod srtp;
