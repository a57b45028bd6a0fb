//! Hash algorithms of digest authentication.

use aws_lc_rs::digest;
use md5::{Digest as _, Md5};

/// A hash algorithm. The stronger one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// RFC 2617: the only one that most phones support.
    Md5,
    /// RFC 8760.
    Sha256,
}

impl Algorithm {
    /// All of them, the strongest first: the order of challenges (RFC 8760 §2.3).
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Md5];

    /// The name in a header field.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }

    /// The algorithm of this name, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| name.eq_ignore_ascii_case(algorithm.name()))
    }

    /// H of RFC 7616 §3.1: the hash in lower-case hexadecimal digits.
    pub(super) fn hash(self, text: &str) -> String {
        match self {
            Self::Md5 => hex::encode(Md5::digest(text)),
            Self::Sha256 => hex::encode(digest::digest(&digest::SHA256, text.as_bytes())),
        }
    }
}
