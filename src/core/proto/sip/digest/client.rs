//! The side that answers challenges.

use std::fmt;

use thiserror::Error;

use super::{
    fields::{Authorization, Challenge, FieldError, Protection},
    response::{Asked, Ha1},
};
use crate::proto::sip::message::Method;

/// Our credentials at one peer.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Our user name there.
    pub username: String,
    /// Our password there.
    pub password: String,
    /// The only realm that gets an answer; `None` answers any realm, so the caller must send the
    /// answer to the right host only.
    pub realm: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

/// Why a challenge gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DigestError {
    /// There is no challenge.
    #[error("there is no challenge")]
    NoChallenge,
    /// All readable challenges are for another realm.
    #[error("the challenge is for another realm")]
    Realm,
    /// No challenge can be read, or all of them need something that we do not support.
    #[error("the challenge cannot be answered: {0}")]
    Unknown(#[from] FieldError),
}

/// Answers the strongest of `challenges`: the value of the Authorization or Proxy-Authorization
/// header field for a request of `method` to `uri`, the Request-URI as it will be sent.
///
/// `nonce_count` says how often the nonce has been used, this time included. `cnonce` is random.
///
/// # Errors
///
/// When no challenge is for our realm, or none can be answered.
pub fn answer(
    challenges: &[&str],
    method: &Method,
    uri: &str,
    credentials: &Credentials,
    nonce_count: u32,
    cnonce: &str,
) -> Result<String, DigestError> {
    let Challenge { realm, nonce, opaque, algorithm, offers_auth, .. } =
        challenge_for(challenges, credentials)?;
    let protection = if offers_auth {
        Protection::Auth { cnonce: cnonce.to_owned(), nonce_count: nonce_count.into() }
    } else {
        Protection::None
    };
    let ha1 = Ha1::new(algorithm, &credentials.username, &realm, &credentials.password);
    let asked = Asked { algorithm, nonce: &nonce, method, uri, protection: &protection };
    let response = asked.response(&ha1);
    let authorization = Authorization {
        username: credentials.username.clone(),
        realm,
        nonce,
        uri: uri.to_owned(),
        response,
        algorithm,
        opaque,
        protection,
    };
    Ok(authorization.to_string())
}

/// The challenge to answer: for our realm, with the strongest algorithm, the first among equals.
///
/// # Errors
///
/// When no challenge is for our realm, or none can be answered.
pub(in crate::proto::sip) fn challenge_for(
    challenges: &[&str],
    credentials: &Credentials,
) -> Result<Challenge, DigestError> {
    let mut chosen: Result<Challenge, DigestError> = Err(DigestError::NoChallenge);
    for text in challenges {
        let challenge: Challenge = match text.parse() {
            Ok(challenge) => challenge,
            Err(cause) => {
                chosen = chosen.or(Err(cause.into()));
                continue;
            }
        };
        if credentials.realm.as_ref().is_some_and(|realm| *realm != challenge.realm) {
            chosen = chosen.or(Err(DigestError::Realm));
            continue;
        }
        if chosen.as_ref().map_or(true, |best| challenge.algorithm > best.algorithm) {
            chosen = Ok(challenge);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sip::digest::Algorithm;

    const MD5: &str = "Digest realm=\"x\", nonce=\"n\", algorithm=MD5, qop=\"auth\"";
    const SHA256: &str = "Digest realm=\"x\", nonce=\"m\", algorithm=SHA-256, qop=\"auth\"";

    fn credentials() -> Credentials {
        Credentials {
            username: "us".to_owned(),
            password: "geheim".to_owned(),
            realm: Some("x".to_owned()),
        }
    }

    fn answered(challenges: &[&str]) -> Result<Authorization, DigestError> {
        let uri = "sip:provider.example";
        let text = answer(challenges, &Method::Register, uri, &credentials(), 1, "c")?;
        Ok(text.parse().unwrap())
    }

    #[test]
    fn the_strongest_algorithm_wins_wherever_it_stands() {
        for challenges in [[MD5, SHA256], [SHA256, MD5]] {
            assert_eq!(answered(&challenges).unwrap().algorithm, Algorithm::Sha256);
        }
        let unknown = SHA256.replace("256", "512-256");
        assert_eq!(answered(&[&unknown, MD5]).unwrap().algorithm, Algorithm::Md5);
    }

    #[test]
    fn a_challenger_of_rfc_2069_gets_what_it_knows() {
        let old = "Digest realm=\"x\", nonce=\"dcd98b\", opaque=\"o\"";
        let authorization = answered(&[old]).unwrap();
        assert_eq!(authorization.protection, Protection::None);
        assert_eq!(authorization.opaque.as_deref(), Some("o"));
    }

    #[test]
    fn what_cannot_be_answered_is_named() {
        assert_eq!(answered(&[]), Err(DigestError::NoChallenge));
        assert_eq!(answered(&["Basic realm=\"x\""]), Err(FieldError::Scheme.into()));
        let unknown = MD5.replace("MD5", "MD5-sess");
        assert_eq!(answered(&[&unknown]), Err(FieldError::Algorithm.into()));
        let other = MD5.replace("\"x\"", "\"y\"");
        assert_eq!(answered(&["x", &other]), Err(DigestError::Realm));
    }

    #[test]
    fn hostile_challenges_of_other_realms_get_no_answer() {
        for n in 0..1_000 {
            let realms = ["X", "x ", " x", "", "y", "x\\\", realm=\\\"x", "x\u{200b}"];
            let realm = realms[n % realms.len()];
            let hostile = format!("Digest realm=\"{realm}\", nonce=\"{n}\", qop=\"auth\"");
            let twice = hostile.replace("nonce", "realm=\"x\", nonce");
            assert!(answered(&[&hostile, &twice]).is_err(), "{hostile}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        assert!(!format!("{:?}", credentials()).contains("geheim"));
    }
}
