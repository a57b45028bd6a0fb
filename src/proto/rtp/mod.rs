//! RTP and RTCP (RFC 3550), telephone events (RFC 4733), and the buffer that puts packets in order.
