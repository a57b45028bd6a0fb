//! Our users, and the proof that a request comes from one of them (RFC 3261 §22).
//!
//! Comes in: names and passwords, requests with credentials. Goes out: the user that a request
//! comes from, or its refusal. The contacts of the users are in the registrar.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use rand::{SeedableRng, rngs::StdRng};
use tracing::info;

use super::config::EndpointConfig;
use crate::proto::sip::{
    Status,
    digest::{self, Asking, Authenticator, Verdict},
    log_limiter::LogLimiter,
    message::Request,
    path::Path,
    validate::Refusal,
};

/// The users that may register, and call as themselves.
#[derive(Debug, Default)]
pub(super) struct Users {
    names: BTreeSet<String>,
    /// Checks credentials; `None` until there are users.
    authenticator: Option<Authenticator>,
    /// Sources with failed logins, to limit the log lines about them.
    wrong_passwords: LogLimiter,
}

impl Users {
    /// Replaces all users, given as names and passwords. Returns the names that are gone.
    pub(super) fn replace(
        &mut self,
        users: BTreeMap<&str, &str>,
        config: &EndpointConfig,
        rng: &mut StdRng,
        now: Instant,
    ) -> Vec<String> {
        let names = users.keys().map(|name| (*name).to_owned()).collect();
        let before = std::mem::replace(&mut self.names, names);
        self.authenticator
            .get_or_insert_with(|| {
                Authenticator::new(&config.realm, &config.digest, StdRng::from_rng(rng), now)
            })
            .set_users(users);
        before.difference(&self.names).cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The user that a request is authenticated for; `None` if the request has no credentials. The
    /// operator trusts the peer if `is_trusted`.
    ///
    /// # Errors
    /// The refusal, if the credentials fail.
    pub(super) fn authenticate(
        &mut self,
        request: &Request,
        path: Path,
        is_trusted: bool,
        now: Instant,
    ) -> Result<Option<String>, Refusal> {
        let source = path.peer.ip();
        let values: Vec<&str> = request.headers("Authorization").collect();
        let verdict = match &mut self.authenticator {
            Some(authenticator) => {
                let asking =
                    Asking { method: request.method(), uri: request.uri(), source, is_trusted };
                authenticator.verify(&values, asking, now)
            }
            None => Verdict::Missing,
        };
        match verdict {
            Verdict::Missing => Ok(None),
            Verdict::Authenticated { user } => {
                // A user may not call or register under another name than its own.
                if request.from().uri().user().as_deref() == Some(&user) {
                    Ok(Some(user))
                } else {
                    Err(Refusal::new(Status::FORBIDDEN))
                }
            }
            Verdict::TooMany => {
                let seconds = digest::WINDOW.as_secs().to_string();
                Err(Refusal::new(Status::FORBIDDEN).with("Retry-After", seconds))
            }
            Verdict::Malformed => Err(Refusal::new(Status::BAD_REQUEST)),
            Verdict::Wrong => {
                if let Some(tell) = self.wrong_passwords.note(source, now) {
                    let wrong = tell.unsaid + 1;
                    info!(peer = %path.peer, wrong, "Wrong password, or no such user");
                }
                Err(self.challenge(source, false, now))
            }
            Verdict::Stale => Err(self.challenge(source, true, now)),
        }
    }

    /// The user that a request is authenticated for, where authentication is required.
    ///
    /// # Errors
    /// The challenge, or the refusal if the credentials fail.
    pub(super) fn prove(
        &mut self,
        request: &Request,
        path: Path,
        is_trusted: bool,
        now: Instant,
    ) -> Result<String, Refusal> {
        let user = self.authenticate(request, path, is_trusted, now)?;
        user.ok_or_else(|| self.challenge(path.peer.ip(), false, now))
    }

    /// 401 with our challenges (§22.2); `stale` says that only the nonce of the request was wrong.
    pub(super) fn challenge(&mut self, source: IpAddr, stale: bool, now: Instant) -> Refusal {
        let challenges = match &mut self.authenticator {
            Some(authenticator) => authenticator.challenges(source, now, stale),
            None => Vec::new(),
        };
        let refusal = Refusal::new(Status::UNAUTHORIZED);
        challenges
            .into_iter()
            .fold(refusal, |refusal, value| refusal.with("WWW-Authenticate", value))
    }
}
