//! Encrypted media with keys from DTLS (RFC 5763, RFC 5764): browsers, whose address ICE finds
//! (RFC 8445), and SIP phones, whose address the description gives.
//!
//! Input: what offer and answer have agreed, datagrams and the time. Output: RTP in clear, and
//! datagrams. Nothing here knows sockets, threads or SDP. See [`SecureSession`].

mod association;
mod failure;
mod fingerprint;
mod gate;
mod ice_lite;
mod identity;
mod role;
mod rsa_request;
mod session;
mod stun;
mod transmits;
mod verifier;

pub use failure::{DtlsAlert, SecureFailure};
pub use fingerprint::{Fingerprint, FingerprintError, Fingerprints};
pub use gate::HandshakeGate;
pub use ice_lite::{IceCredentials, IceCredentialsError};
pub use identity::{DtlsIdentity, IdentityError};
pub use role::DtlsRole;
pub use session::{
    SecureConfig, SecureDatagram, SecureEvent, SecurePath, SecureSession, SecureStats,
};

#[cfg(test)]
mod tests;
