//! Digest authentication (RFC 7616, with RFC 8760 and RFC 3261 §22 for SIP), both sides of it.
//!
//! [`fields`] reads and prints the header fields, [`Authenticator`] is the side that challenges, and
//! [`answer`] the side that is challenged. Passwords come in, and leave only as hashes.
//!
//! MD5 and SHA-256 are known, with `qop=auth` or, for peers of RFC 2069, without any. The `-sess`
//! algorithms and `auth-int` are not: no phone needs them, and bodies are changed on the way.

pub mod fields;

mod client;
mod failures;
mod nonce;
mod server;

use std::fmt;

use aws_lc_rs::digest;
use md5::{Digest as _, Md5};

pub(in crate::proto::sip) use self::client::challenge_for;
pub use self::{
    client::{Credentials, DigestError, answer},
    failures::WINDOW,
    server::{Asking, Authenticator, Verdict},
};
use super::message::Method;
use fields::Protection;

/// The hash of all formulas. The stronger one is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// RFC 2617: what most phones know alone.
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
    fn hash(self, text: &str) -> String {
        match self {
            Self::Md5 => hexadecimal(&Md5::digest(text)),
            Self::Sha256 => hexadecimal(digest::digest(&digest::SHA256, text.as_bytes()).as_ref()),
        }
    }
}

/// The hash of user name, realm and password (RFC 7616 §3.4.2): as good as the password, but in this
/// realm only. It is never shown.
#[derive(Clone, PartialEq, Eq)]
struct Ha1(String);

impl Ha1 {
    fn new(algorithm: Algorithm, username: &str, realm: &str, password: &str) -> Self {
        Self(algorithm.hash(&format!("{username}:{realm}:{password}")))
    }
}

impl fmt::Debug for Ha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ha1(..)")
    }
}

/// What the response is made of, next to the password (RFC 7616 §3.4.1).
struct Asked<'a> {
    algorithm: Algorithm,
    nonce: &'a str,
    method: &'a Method,
    /// As the header field says it, letter by letter.
    uri: &'a str,
    protection: &'a Protection,
}

impl Asked<'_> {
    /// The value of the `response` parameter.
    fn response(&self, ha1: &Ha1) -> String {
        let Self { algorithm, nonce, method, uri, protection } = self;
        let ha2 = algorithm.hash(&format!("{method}:{uri}"));
        let ha1 = &ha1.0;
        match protection {
            Protection::None => algorithm.hash(&format!("{ha1}:{nonce}:{ha2}")),
            Protection::Auth { cnonce, nonce_count } => {
                algorithm.hash(&format!("{ha1}:{nonce}:{nonce_count}:{cnonce}:auth:{ha2}"))
            }
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Example {
        algorithm: Algorithm,
        realm: &'static str,
        password: &'static str,
        nonce: &'static str,
        protection: Protection,
        response: &'static str,
    }

    /// "GET /dir/index.html" of Mufasa, the example of all three RFCs.
    fn assert_response(example: Example) {
        let Example { algorithm, realm, password, nonce, protection, response } = example;
        let method = Method::from("GET");
        let asked = Asked {
            algorithm,
            nonce,
            method: &method,
            uri: "/dir/index.html",
            protection: &protection,
        };
        let ha1 = Ha1::new(algorithm, "Mufasa", realm, password);
        assert_eq!(asked.response(&ha1), response);
    }

    fn auth(cnonce: &str) -> Protection {
        Protection::Auth { cnonce: cnonce.to_owned(), nonce_count: "00000001".parse().unwrap() }
    }

    #[test]
    fn the_examples_of_rfc_7616() {
        for (algorithm, response) in [
            (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            assert_response(Example {
                algorithm,
                realm: "http-auth@example.org",
                password: "Circle of Life",
                nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
                protection: auth("f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"),
                response,
            });
        }
    }

    #[test]
    fn the_example_of_rfc_2617() {
        assert_response(Example {
            algorithm: Algorithm::Md5,
            realm: "testrealm@host.com",
            password: "Circle Of Life",
            nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093",
            protection: auth("0a4f113b"),
            response: "6629fae49393a05397450978507c4ef1",
        });
    }

    #[test]
    fn the_example_of_rfc_2069_as_corrected_by_its_erratum() {
        assert_response(Example {
            algorithm: Algorithm::Md5,
            realm: "testrealm@host.com",
            password: "CircleOfLife",
            nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093",
            protection: Protection::None,
            response: "1949323746fe6a43ef61f9606e7febea",
        });
    }

    #[test]
    fn a_hash_that_opens_the_door_is_not_shown() {
        let ha1 = Ha1::new(Algorithm::Md5, "alice", "example.com", "secret");
        assert_eq!(format!("{ha1:?}"), "Ha1(..)");
    }
}
