//! Who begins a DTLS handshake.

/// Our role in the handshake, which the attributes `setup` decide (RFC 5763 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DtlsRole {
    /// Ours is `active`: we begin.
    Client,
    /// Ours is `passive`: the peer begins.
    Server,
}
