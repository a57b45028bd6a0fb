//! RTP and RTCP (RFC 3550), telephone events (RFC 4733), and the buffer that puts packets in order.

pub mod jitter_buffer;
pub mod packet;
pub mod rtcp;
pub mod seq;
pub mod telephone_event;
