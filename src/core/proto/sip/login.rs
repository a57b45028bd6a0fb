//! Our credentials for outgoing calls, and the challenges that they answer (RFC 3261 §22).
//!
//! Comes in: responses that challenge. Goes out: the header fields that answer them. A callee may
//! name any Contact, and a host there may name any realm; so only the hosts that the INVITE itself
//! was sent to get an answer.

use std::net::IpAddr;

use rand::{Rng, rngs::StdRng};

use super::{
    Status,
    digest::{self, Credentials, DigestError},
    message::{Method, Response},
    path::Path,
    uri::Uri,
};

/// Most challenges of one challenger that are answered: a peer that challenges again has rejected
/// our credentials (RFC 3261 §22.3).
const MAX_TRIES: u8 = 2;

/// Our credentials in an outgoing call, and the hosts that may see answers made with them.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    credentials: Credentials,
    hosts: Vec<IpAddr>,
}

impl Login {
    /// The login for an INVITE that may take these paths.
    pub(crate) fn new(credentials: Credentials, targets: &[Path]) -> Self {
        Self { credentials, hosts: targets.iter().map(|target| target.peer.ip()).collect() }
    }

    /// The credentials that answer challenges of a request to this host; `None` if it may get no
    /// answer.
    pub(crate) fn at(&self, host: IpAddr) -> Option<&Credentials> {
        self.hosts.contains(&host).then_some(&self.credentials)
    }
}

/// The challenges that one request has met: of a proxy (407) and of its recipient (401). Both may
/// need an answer at the same time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Challenges {
    of_proxy: Challenger,
    of_peer: Challenger,
}

#[derive(Debug, Clone, Default)]
struct Challenger {
    /// The values of its newest challenge; empty if it has sent none.
    values: Vec<String>,
    tries: u8,
    /// How often the nonce was used.
    nonce_count: u32,
}

impl Challenges {
    /// Takes a response; returns whether it is a challenge that may be answered once more.
    pub(crate) fn take(&mut self, response: &Response) -> bool {
        let (challenger, name) = match response.status() {
            Status::UNAUTHORIZED => (&mut self.of_peer, "WWW-Authenticate"),
            Status::PROXY_AUTHENTICATION_REQUIRED => (&mut self.of_proxy, "Proxy-Authenticate"),
            _ => return false,
        };
        if challenger.tries >= MAX_TRIES {
            return false;
        }
        let values = response.headers(name).map(str::to_owned).collect();
        *challenger = Challenger { values, tries: challenger.tries + 1, nonce_count: 0 };
        true
    }

    /// Whether no challenge has come yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.of_proxy.tries == 0 && self.of_peer.tries == 0
    }

    /// The header fields for the next request that answer all challenges taken: name and value.
    ///
    /// # Errors
    /// A challenge is for another realm, or cannot be answered.
    pub(crate) fn answer(
        &mut self,
        method: &Method,
        uri: &Uri,
        credentials: &Credentials,
        rng: &mut StdRng,
    ) -> Result<Vec<(&'static str, String)>, DigestError> {
        let both =
            [(&mut self.of_proxy, "Proxy-Authorization"), (&mut self.of_peer, "Authorization")];
        let mut fields = Vec::new();
        for (challenger, name) in both {
            if challenger.tries == 0 {
                continue;
            }
            challenger.nonce_count += 1;
            let values: Vec<&str> = challenger.values.iter().map(String::as_str).collect();
            let cnonce = format!("{:016x}", rng.random::<u64>());
            let (uri, count) = (uri.to_string(), challenger.nonce_count);
            let value = digest::answer(&values, method, &uri, credentials, count, &cnonce)?;
            fields.push((name, value));
        }
        Ok(fields)
    }
}
