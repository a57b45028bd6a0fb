//! The value that proves a password (RFC 7616 §3.4).

use std::fmt;

use super::{algorithm::Algorithm, fields::Protection};
use crate::proto::sip::message::Method;

/// The hash of user name, realm and password (RFC 7616 §3.4.2): as powerful as the password, but in
/// this realm only. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Ha1(String);

impl Ha1 {
    pub(super) fn new(algorithm: Algorithm, username: &str, realm: &str, password: &str) -> Self {
        Self(algorithm.hash(&format!("{username}:{realm}:{password}")))
    }
}

impl fmt::Debug for Ha1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ha1(..)")
    }
}

/// What the response is computed from, besides the password (RFC 7616 §3.4.1).
pub(super) struct Asked<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) nonce: &'a str,
    pub(super) method: &'a Method,
    /// As in the header field, letter by letter.
    pub(super) uri: &'a str,
    pub(super) protection: &'a Protection,
}

impl Asked<'_> {
    /// The value of the `response` parameter.
    pub(super) fn response(&self, ha1: &Ha1) -> String {
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
