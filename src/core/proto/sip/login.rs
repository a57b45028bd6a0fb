//! Who we are to those whom we call, and what challenges of theirs are answered (RFC 3261 §22).
//!
//! Comes in: responses that challenge. Goes out: the header fields that answer them. Whoever is called
//! may name any Contact, and whoever is there may name any realm; so only those hosts get an answer
//! that the INVITE itself was sent to.

use std::net::IpAddr;

use rand::{Rng, rngs::StdRng};

use super::{
    digest::{self, Credentials, DigestError},
    message::{Method, Response},
    path::Path,
    uri::Uri,
};

/// RFC 3261 §22.3: a peer that goes on challenging does not want us.
const MAX_TRIES: u8 = 2;

/// Who we are in a call that we place.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    credentials: Credentials,
    hosts: Vec<IpAddr>,
}

impl Login {
    /// For the ways that the INVITE may go.
    pub fn new(credentials: Credentials, targets: &[Path]) -> Self {
        Self { credentials, hosts: targets.iter().map(|target| target.peer.ip()).collect() }
    }

    /// What challenges of a request that is sent to this host are answered with.
    pub fn at(&self, host: IpAddr) -> Option<&Credentials> {
        self.hosts.contains(&host).then_some(&self.credentials)
    }
}

/// The challenges that one request met: of a proxy (407) and of who it is for (401). Both may want an
/// answer at the same time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Challenges {
    of_proxy: Challenger,
    of_peer: Challenger,
}

#[derive(Debug, Clone, Default)]
struct Challenger {
    /// The values of its newest challenge; none: it has not asked.
    values: Vec<String>,
    tries: u8,
    /// How often the nonce was used.
    nonce_count: u32,
}

impl Challenges {
    /// Takes a response; whether it is a challenge that may be answered once more.
    pub fn take(&mut self, response: &Response) -> bool {
        let (challenger, name) = match response.status() {
            401 => (&mut self.of_peer, "WWW-Authenticate"),
            407 => (&mut self.of_proxy, "Proxy-Authenticate"),
            _ => return false,
        };
        if challenger.tries >= MAX_TRIES {
            return false;
        }
        let values = response.headers(name).map(str::to_owned).collect();
        *challenger = Challenger { values, tries: challenger.tries + 1, nonce_count: 0 };
        true
    }

    /// Nobody has asked yet.
    pub fn is_empty(&self) -> bool {
        self.of_proxy.tries == 0 && self.of_peer.tries == 0
    }

    /// The header fields that answer all that were taken, for the next request: name and value.
    ///
    /// # Errors
    /// When one of them is for another realm, or cannot be answered.
    pub fn answer(
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
