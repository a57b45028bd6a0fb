//! Sockets and the clock around the SIP endpoint.
