//! Digest authentication (RFC 7616, with RFC 8760 and RFC 3261 §22 for SIP), both sides of it.
//!
//! [`fields`] reads and prints the header fields, [`Authenticator`] sends challenges and judges the
//! answers, and [`answer`] answers a challenge. Passwords come in, and leave only as hashes.
//!
//! MD5 and SHA-256 are supported, with `qop=auth` or, for peers of RFC 2069, without `qop`. The
//! `-sess` algorithms and `auth-int` are not: no phone needs them, and bodies are changed on the
//! way.

pub mod fields;

mod algorithm;
mod client;
mod failures;
mod nonce;
mod response;
mod server;

pub(in crate::proto::sip) use self::client::challenge_for;
pub use self::{
    algorithm::Algorithm,
    client::{Credentials, DigestError, answer},
    failures::WINDOW,
    server::{Asking, Authenticator, Verdict},
};
