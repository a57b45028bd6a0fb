//! SRTP and SRTCP (RFC 3711), with AES-256 (RFC 6188) and AES-GCM (RFC 7714).
//!
//! [`SrtpSender`] protects packets and [`SrtpReceiver`] unprotects them, each with the master key
//! of its direction. How the two sides agree on keys is not decided here.
//!
//! A packet is authenticated before any state changes: a forged packet neither moves the rollover
//! counter nor fills the replay window, and no stream begins with it. The key derivation rate is 0,
//! we encrypt and authenticate all packets, and those of a receiver may be from several SSRCs.

mod aes_counter;
mod derivation;
mod error;
mod history;
mod index;
mod key;
mod mki;
mod packet;
mod receiver;
mod replay;
mod sender;
mod session_keys;
mod suite;
mod transform;

pub use error::SrtpError;
pub use key::MasterKey;
pub use mki::Mki;
pub use receiver::SrtpReceiver;
pub use sender::SrtpSender;
pub use suite::CryptoSuite;

#[cfg(test)]
mod tests;
