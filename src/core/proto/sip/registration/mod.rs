//! Registers our contact at a trunk, and keeps it registered (RFC 3261 §10.2).
//!
//! Comes in: commands to start and to stop, the result of each REGISTER, time. Goes out: the
//! REGISTER requests to send, and changes of the state. This module builds no messages and knows no
//! addresses. All its requests have the same Call-ID, and none is sent before the one before it has
//! ended: each [`Output::Send`] is followed by exactly one final [`Registration::handle_response`]
//! or [`Registration::handle_failure`].
//!
//! Left out: `nextnonce` of Authentication-Info, and peers that want two authorizations at once,
//! one of them for a proxy.

mod answer;
mod backoff;

use std::{
    collections::VecDeque,
    fmt,
    time::{Duration, Instant},
};

use rand::{Rng, rngs::StdRng};
use tracing::debug;

pub use self::answer::RegisterResponse;
use self::backoff::Pace;
use super::{
    Status,
    digest::{self, Credentials, DigestError, challenge_for},
    message::{Method, Uri},
};

/// Most requests with credentials in one round, for a peer that rejects each of them.
const MAX_TRIES: u8 = 2;
/// The longest expiry that a peer can make us ask for, by 423.
const MAX_EXPIRES: Duration = Duration::from_secs(24 * 3_600);
/// Least time until a refresh, however short the granted expiry is: a trunk must not be flooded.
const MIN_REFRESH: Duration = Duration::from_secs(5);

/// The registrar, and our credentials there.
#[derive(Debug, Clone)]
pub struct RegistrationConfig {
    /// The Request-URI: the domain of the registrar, without a user.
    pub registrar: Uri,
    /// Our credentials at the registrar.
    pub credentials: Credentials,
    /// The expiry that we ask for.
    pub expires: Duration,
}

/// What the owner of the registration has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this REGISTER.
    Send(RegisterRequest),
    /// Log that the state has changed.
    Changed(TrunkState),
}

/// The parts of a REGISTER that differ from one to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterRequest {
    /// The CSeq number, higher each time.
    pub cseq: u32,
    /// The value of the Expires header field, in whole seconds; zero removes our contact.
    pub expires: Duration,
    /// The header field Authorization or Proxy-Authorization, and its value.
    pub authorization: Option<(&'static str, String)>,
}

/// The state of a registration, without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrunkState {
    /// Not asked to register.
    Idle,
    /// A REGISTER was sent and is not answered.
    Registering,
    /// Our contact is registered.
    Registered,
    /// The last round failed; another one follows.
    Waiting,
    /// Our contact is being removed.
    Unregistering,
}

impl fmt::Display for TrunkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Idle => "idle",
            Self::Registering => "registering",
            Self::Registered => "registered",
            Self::Waiting => "waiting",
            Self::Unregistering => "unregistering",
        })
    }
}

/// The status of a registration, for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrunkStatus {
    /// The state.
    pub state: TrunkState,
    /// When the state was entered.
    pub since: Instant,
    /// Status of the last final response to a REGISTER; `None` before the first.
    pub last_status: Option<Status>,
    /// Why the last round failed; `None` after a round that succeeded.
    pub failure: Option<Failure>,
    /// Until when our contact is registered, as far as the trunk has said; it may still be so in
    /// `Waiting`.
    pub expires_at: Option<Instant>,
}

/// Why a round failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The peer refused with this status.
    Refused(Status),
    /// There was no answer.
    Unreachable,
    /// The peer sent a challenge that we cannot answer.
    Challenge(DigestError),
    /// The password is wrong.
    Password,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(f, "refused with {status}"),
            Self::Unreachable => f.write_str("no answer"),
            Self::Challenge(error) => write!(f, "its challenge is not answered: {error}"),
            Self::Password => f.write_str("the password is wrong"),
        }
    }
}

/// Our registration at one trunk.
#[derive(Debug)]
pub struct Registration {
    config: RegistrationConfig,
    rng: StdRng,
    state: RegistrationState,
    since: Instant,
    cseq: u32,
    /// The newest challenge; its nonce is used again as long as the peer accepts it.
    challenge: Option<Remembered>,
    /// Number of rounds in a row that failed.
    failures: u32,
    failure: Option<Failure>,
    last_status: Option<Status>,
    expires_at: Option<Instant>,
    outputs: VecDeque<Output>,
}

/// State of the machine: which REGISTER is pending, or when the next one is due.
///
/// ```text
/// state          input                         next
/// -------------  ----------------------------  ---------------------------------------------
/// Idle           start                         Registering
/// Registering    2xx                           Registered
///                401, 407, 423 worth an answer Registering
///                any other, none               Waiting
///                stop                          Stopping
/// Registered     time to refresh               Registering
///                stop                          Unregistering, or Idle when nothing is bound
/// Waiting        time to try again             Registering
///                stop                          Unregistering, or Idle when nothing is bound
/// Stopping       any end of the REGISTER       Unregistering, or Idle when nothing is bound
/// Unregistering  401, 407 worth an answer      Unregistering
///                any other, none               Idle
/// ```
#[derive(Debug, Clone, Copy)]
enum RegistrationState {
    Idle,
    Registering(Round),
    Registered {
        refresh_at: Instant,
    },
    Waiting {
        retry_at: Instant,
    },
    /// The owner has asked to stop while a REGISTER is not answered: the next one has to wait for
    /// that answer (RFC 3261 §10.2).
    Stopping,
    Unregistering(Round),
}

/// One REGISTER, and its repetitions with credentials or a longer expiry.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    /// Requests with credentials.
    tries: u8,
    /// The last request had credentials before any challenge of this round, with the nonce of an
    /// earlier one.
    is_ahead: bool,
    /// The expiry was raised once.
    is_raised: bool,
}

/// A challenge that we have answered.
#[derive(Debug, Clone)]
struct Remembered {
    header: &'static str,
    text: String,
    /// How often its nonce was used.
    uses: u32,
}

impl Registration {
    /// A registration that is idle. Jitter and cnonces come from `rng`.
    pub fn new(config: RegistrationConfig, rng: StdRng, now: Instant) -> Self {
        Self {
            config,
            rng,
            state: RegistrationState::Idle,
            since: now,
            cseq: 0,
            challenge: None,
            failures: 0,
            failure: None,
            last_status: None,
            expires_at: None,
            outputs: VecDeque::new(),
        }
    }

    /// Starts to register. Does nothing unless idle.
    pub fn start(&mut self, now: Instant) {
        if matches!(self.state, RegistrationState::Idle) {
            self.begin(now);
        }
    }

    /// Removes our contact, and becomes idle.
    pub fn stop(&mut self, now: Instant) {
        match self.state {
            RegistrationState::Idle
            | RegistrationState::Stopping
            | RegistrationState::Unregistering(_) => {}
            RegistrationState::Registering(_) => self.enter(RegistrationState::Stopping, now),
            RegistrationState::Registered { .. } | RegistrationState::Waiting { .. } => {
                self.unregister(now)
            }
        }
    }

    /// Takes a response to the last REGISTER. Provisional responses may be left out.
    pub fn handle_response(&mut self, response: &RegisterResponse, now: Instant) {
        if response.status.is_provisional() {
            return;
        }
        self.last_status = Some(response.status);
        match self.state {
            RegistrationState::Registering(round) => self.registering(round, response, now),
            RegistrationState::Stopping => {
                if is_success(response) {
                    self.note_binding(response, now);
                }
                self.unregister(now);
            }
            RegistrationState::Unregistering(round) => match self.authenticated(round, response) {
                Ok(Some(round)) => self.send(Duration::ZERO, round, now),
                // The binding expires anyway, whatever the response is.
                Ok(None) | Err(_) => self.become_idle(now),
            },
            RegistrationState::Idle
            | RegistrationState::Registered { .. }
            | RegistrationState::Waiting { .. } => {
                debug!(state = %self.state(), response.status = response.status.code(), "an answer to no REGISTER of ours");
            }
        }
    }

    /// The last REGISTER got no answer: it was not delivered, or has timed out.
    pub fn handle_failure(&mut self, now: Instant) {
        match self.state {
            RegistrationState::Registering(_) => {
                self.fail(Failure::Unreachable, Pace::Quick, None, now)
            }
            RegistrationState::Stopping => self.unregister(now),
            RegistrationState::Unregistering(_) => self.become_idle(now),
            RegistrationState::Idle
            | RegistrationState::Registered { .. }
            | RegistrationState::Waiting { .. } => {
                debug!(state = %self.state(), "the end of a REGISTER that was replaced");
            }
        }
    }

    /// The connection over which the trunk reached us is lost: we register again soon.
    pub fn handle_flow_lost(&mut self, now: Instant) {
        if let RegistrationState::Registered { refresh_at } = &mut self.state {
            *refresh_at = (*refresh_at).min(now + MIN_REFRESH);
        }
    }

    /// Begins the next round when it is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|due| due <= now) {
            self.begin(now);
        }
    }

    /// When [`Self::handle_timeout`] has to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            RegistrationState::Registered { refresh_at: due }
            | RegistrationState::Waiting { retry_at: due } => Some(due),
            RegistrationState::Idle
            | RegistrationState::Registering(_)
            | RegistrationState::Stopping
            | RegistrationState::Unregistering(_) => None,
        }
    }

    /// The next output; to be called until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The status of the registration.
    pub fn status(&self) -> TrunkStatus {
        TrunkStatus {
            state: self.state(),
            since: self.since,
            last_status: self.last_status,
            failure: self.failure,
            expires_at: self.expires_at,
        }
    }

    fn state(&self) -> TrunkState {
        match self.state {
            RegistrationState::Idle => TrunkState::Idle,
            RegistrationState::Registering(_) => TrunkState::Registering,
            RegistrationState::Registered { .. } => TrunkState::Registered,
            RegistrationState::Waiting { .. } => TrunkState::Waiting,
            RegistrationState::Stopping | RegistrationState::Unregistering(_) => {
                TrunkState::Unregistering
            }
        }
    }

    fn enter(&mut self, state: RegistrationState, now: Instant) {
        let before = self.state();
        self.state = state;
        if self.state() != before {
            self.since = now;
            self.outputs.push_back(Output::Changed(self.state()));
        }
    }

    fn become_idle(&mut self, now: Instant) {
        self.expires_at = None;
        self.enter(RegistrationState::Idle, now);
    }

    fn begin(&mut self, now: Instant) {
        self.enter(RegistrationState::Registering(Round::default()), now);
        self.send(self.config.expires, Round::default(), now);
    }

    fn unregister(&mut self, now: Instant) {
        if self.expires_at.is_none_or(|expires_at| expires_at <= now) {
            return self.become_idle(now);
        }
        self.enter(RegistrationState::Unregistering(Round::default()), now);
        self.send(Duration::ZERO, Round::default(), now);
    }

    /// Sends the next REGISTER of a round, with credentials if a challenge is known.
    fn send(&mut self, expires: Duration, mut round: Round, now: Instant) {
        self.cseq += 1;
        let is_asked = round.tries > 0;
        let authorization = self.authorization();
        if authorization.is_some() && !is_asked {
            round.tries += 1;
            round.is_ahead = true;
        }
        let request = RegisterRequest { cseq: self.cseq, expires, authorization };
        self.outputs.push_back(Output::Send(request));
        let state = match self.state {
            RegistrationState::Unregistering(_) => RegistrationState::Unregistering(round),
            _ => RegistrationState::Registering(round),
        };
        self.enter(state, now);
    }

    fn authorization(&mut self) -> Option<(&'static str, String)> {
        let challenge = self.challenge.as_mut()?;
        challenge.uses += 1;
        let cnonce = format!("{:032x}", self.rng.random::<u128>());
        let answer = digest::answer(
            &[&challenge.text],
            &Method::Register,
            &self.config.registrar.to_string(),
            &self.config.credentials,
            challenge.uses,
            &cnonce,
        );
        answer.ok().map(|value| (challenge.header, value))
    }

    fn registering(&mut self, round: Round, response: &RegisterResponse, now: Instant) {
        match response.status {
            status if status.is_success() => self.registered(response, now),
            Status::UNAUTHORIZED | Status::PROXY_AUTHENTICATION_REQUIRED => {
                match self.authenticated(round, response) {
                    Ok(Some(round)) => self.send(self.config.expires, round, now),
                    Ok(None) => self.fail(Failure::Password, Pace::Slow, response.retry_after, now),
                    Err(cause) => {
                        self.fail(Failure::Challenge(cause), Pace::Slow, response.retry_after, now);
                    }
                }
            }
            // RFC 3261 §10.2.8.
            Status::INTERVAL_TOO_BRIEF if !round.is_raised && self.raise(response.min_expires) => {
                // The credentials were right, or none were needed.
                let round = Round { is_raised: true, ..Round::default() };
                self.send(self.config.expires, round, now);
            }
            // A failure that a person at the other end has to fix is not worth frequent retries.
            status @ (Status::FORBIDDEN | Status::NOT_FOUND) => {
                self.fail(Failure::Refused(status), Pace::Slow, response.retry_after, now);
            }
            status => self.fail(Failure::Refused(status), Pace::Quick, response.retry_after, now),
        }
    }

    /// Stores a challenge that is worth an answer. `None` when the response is no challenge, or
    /// when our password is wrong: another try would only get us locked out.
    fn authenticated(
        &mut self,
        round: Round,
        response: &RegisterResponse,
    ) -> Result<Option<Round>, DigestError> {
        let header = match response.status {
            Status::UNAUTHORIZED => "Authorization",
            Status::PROXY_AUTHENTICATION_REQUIRED => "Proxy-Authorization",
            _ => return Ok(None),
        };
        self.challenge = None;
        let challenges: Vec<&str> = response.challenges.iter().map(String::as_str).collect();
        let challenge = challenge_for(&challenges, &self.config.credentials)?;
        let may_be_right = round.tries == 0 || round.is_ahead || challenge.stale;
        if round.tries >= MAX_TRIES || !may_be_right {
            return Ok(None);
        }
        self.challenge = Some(Remembered { header, text: challenge.to_string(), uses: 0 });
        Ok(Some(Round { tries: round.tries + 1, is_ahead: false, ..round }))
    }

    fn registered(&mut self, response: &RegisterResponse, now: Instant) {
        let granted = self.note_binding(response, now);
        if granted.is_zero() {
            let failure = Failure::Refused(response.status);
            return self.fail(failure, Pace::Quick, response.retry_after, now);
        }
        self.failures = 0;
        self.failure = None;
        // A nonce of RFC 2069 may be used only once.
        let is_reusable = |it: &Remembered| {
            it.uses < u32::MAX
                && it.text.parse().is_ok_and(|it: digest::fields::Challenge| it.offers_auth)
        };
        self.challenge = self.challenge.take().filter(is_reusable);
        let part = self.rng.random_range(0.8..=0.9);
        let refresh_at = now + granted.mul_f64(part).max(MIN_REFRESH);
        self.enter(RegistrationState::Registered { refresh_at }, now);
    }

    /// Notes for how long our contact is registered. A response without expiry grants what we asked
    /// for.
    fn note_binding(&mut self, response: &RegisterResponse, now: Instant) -> Duration {
        let granted = response.expires.unwrap_or(self.config.expires).min(MAX_EXPIRES);
        self.expires_at = (!granted.is_zero()).then(|| now + granted);
        granted
    }

    /// Asks for a longer expiry from now on; returns false when the peer's value makes no sense.
    fn raise(&mut self, min_expires: Option<Duration>) -> bool {
        let longer = min_expires.filter(|it| (self.config.expires..=MAX_EXPIRES).contains(it));
        match longer.filter(|it| *it > self.config.expires) {
            Some(longer) => {
                self.config.expires = longer;
                true
            }
            None => false,
        }
    }

    fn fail(&mut self, failure: Failure, pace: Pace, retry_after: Option<Duration>, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.failure = Some(failure);
        self.expires_at = self.expires_at.filter(|expires_at| *expires_at > now);
        let wait = backoff::wait(pace, self.failures, retry_after, self.rng.random());
        self.enter(RegistrationState::Waiting { retry_at: now + wait }, now);
    }
}

fn is_success(response: &RegisterResponse) -> bool {
    response.status.is_success()
}

#[cfg(test)]
mod tests;
