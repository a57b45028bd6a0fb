//! RTP and RTCP (RFC 3550), telephone events (RFC 4733), and the jitter buffer.

mod fields;
pub mod jitter_buffer;
pub mod packet;
pub mod rtcp;
pub mod seq;
pub mod telephone_event;

pub use fields::{PayloadType, RtpTimestamp, SeqNo, Ssrc};
