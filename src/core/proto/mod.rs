//! Protocols as pure machines and values: SIP, SDP, RTP.

pub mod rtp;
pub mod sdp;
pub mod sip;
