//! An outgoing call, until it is a dialog or has failed (RFC 3261 §13.2).
//!
//! Comes in: the wishes of the call's owner, and the result of each INVITE. Goes out: the next
//! INVITE, and a verdict on each response. One call may need several INVITEs: for another target
//! (RFC 3263 §4.3), credentials (§22.2), a longer session interval (RFC 4028 §7.3). This module
//! sends nothing; the endpoint does.

use std::{collections::BTreeMap, time::Instant};

use rand::rngs::StdRng;

use super::{
    dialog::{Dialog, HangUp},
    digest::{Credentials, DigestError},
    login::{Challenges, Login},
    message::{Method, NameAddr, RequestBuilder, Response},
    path::Path,
    session_timer::{LeastInterval, SESSION_EXPIRES},
    timers::{SIXTY_FOUR_T1, T2},
    transaction::{Origin, TransactionId},
    transmit::{NextHop, Transmit},
    uri::Uri,
};

/// Most forks of one INVITE that are followed at a time; further forks get a BYE when they answer.
const MAX_FORKS: usize = 16;

/// The parameters of an outgoing call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingCall {
    /// The Call-ID, globally unique.
    pub call_id: String,
    /// The paths to the callee, the best one first; never empty.
    pub targets: Vec<Path>,
    /// The Request-URI.
    pub request_uri: Uri,
    /// The From header field; our tag is added.
    pub from: NameAddr,
    /// The To header field.
    pub to: NameAddr,
    /// Proxies to visit: the outbound proxy of the trunk, or the Path of a registration (RFC 3327).
    pub routes: Vec<NameAddr>,
    /// Further contacts of the callee, in the order in which they are tried.
    pub further: Vec<Place>,
    /// Further header fields: name and value.
    pub headers: Vec<(String, String)>,
    /// Our credentials; without them no challenge is answered.
    pub credentials: Option<Credentials>,
    /// Our offer.
    pub offer: Vec<u8>,
}

/// One of several contacts of the callee: another phone of the same user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The paths to it, the best one first; never empty.
    pub targets: Vec<Path>,
    /// The Request-URI.
    pub request_uri: Uri,
    /// Proxies to visit (RFC 3327).
    pub routes: Vec<NameAddr>,
}

/// State of one outgoing call.
#[derive(Debug)]
pub(super) struct Outgoing {
    call: OutgoingCall,
    from: NameAddr,
    cseq: u32,
    /// Index of the current target.
    target: usize,
    session_seconds: u32,
    /// The least session interval that any hop has asked for.
    least: LeastInterval,
    login: Option<Login>,
    challenges: Challenges,
    /// The header fields of the current INVITE that answer `challenges`.
    authorization: Vec<(&'static str, String)>,
    /// The current INVITE.
    transaction: Option<TransactionId>,
    /// Whether an INVITE too long for a datagram may be sent over a stream (§18.1.1).
    stream: StreamAttempt,
    /// Early dialogs of the current INVITE, by the tag of the other side.
    forks: BTreeMap<String, Fork>,
    state: OutgoingState,
}

/// RFC 3261 §18.1.1: a stream is tried once; if that fails, the INVITE is sent as a datagram after
/// all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamAttempt {
    Untried,
    Tried,
    Failed,
}

/// ```text
///            +---------+  1xx  +------------+
///   INVITE ->| Calling |------>| Proceeding |
///            +---------+       +------------+
///               |  |  hang up       |  | hang up / CANCEL
///          2xx  |  +--- on 1xx -----|--+--> +-----------+
///               |                   |       | Canceling |--> gone: 487, 64*T1
///               v                   v       +-----------+
///            +-----------------------+ 2xx       |
///            |          Won          |<----------+  / ACK, then BYE
///            +-----------------------+  gone: timer M
///               ^ 2xx
///            +------------+  hang up   +------+
///            |  Unusable  |----------->| Over |  gone: timer M
///            +------------+  T2, 64*T1 +------+
/// ```
///
/// A 2xx that makes no dialog leads from Calling or Proceeding to Unusable.
#[derive(Debug)]
enum OutgoingState {
    /// No response yet. CANCEL has to wait for the first one (§9.1).
    Calling { hang_up: Option<HangUp> },
    /// A provisional response came.
    Proceeding,
    /// CANCEL was sent.
    Canceling { hang_up: HangUp, until: Instant },
    /// The fork with this tag answered first.
    Won { tag: String },
    /// Each fork that has answered was hung up, because its 2xx makes no dialog. Another one may
    /// answer `until` then (§13.2.2.4).
    Unusable { until: Instant },
    /// The call has ended without a usable answer. Forks that still answer are hung up.
    Over,
}

/// State of one fork: one of the user agents that the INVITE has reached.
#[derive(Debug)]
pub(super) struct Fork {
    /// The early dialog.
    pub dialog: Dialog,
    /// RSeq of the newest reliable provisional response that was acknowledged (RFC 3262 §4).
    pub rseq: Option<u32>,
    /// The answer to our offer, if a reliable provisional response brought it (RFC 3262 §5).
    pub answer: Option<Vec<u8>>,
    /// The first description in a provisional response of any kind. It counts as the answer (RFC
    /// 3261 §13.2.1), unless a reliable response that we have acknowledged brings another.
    pub early_answer: Option<Vec<u8>>,
    /// The ACK of its 2xx, if the fork was hung up: another one had answered first, or its 2xx
    /// makes no dialog.
    pub ack: Option<Transmit>,
}

impl Fork {
    /// The answer to our offer in a provisional response. One in a reliable response takes
    /// precedence.
    pub(super) fn into_answer(self) -> Option<Vec<u8>> {
        self.answer.or(self.early_answer)
    }
}

/// What has to follow when our side hangs up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cancellation {
    /// Send CANCEL.
    Now,
    /// CANCEL has to wait for the first provisional response (§9.1), or was sent already.
    Later,
    /// The call is a dialog already, and the dialog has to be ended.
    TooLate,
    /// The only forks that have answered are hung up already: the call has ended.
    Ended,
}

impl Outgoing {
    /// A call for which nothing was sent yet.
    pub(super) fn new(call: OutgoingCall, local_tag: &str) -> Self {
        let credentials = call.credentials.clone();
        Self {
            from: call.from.with_tag(local_tag),
            login: credentials.map(|credentials| Login::new(credentials, &call.targets)),
            call,
            cseq: 0,
            target: 0,
            session_seconds: SESSION_EXPIRES,
            least: LeastInterval::default(),
            challenges: Challenges::default(),
            authorization: Vec::new(),
            transaction: None,
            stream: StreamAttempt::Untried,
            forks: BTreeMap::new(),
            state: OutgoingState::Calling { hang_up: None },
        }
    }

    /// Prepares the next INVITE: it has a CSeq of its own and creates dialogs of its own.
    pub(super) fn next_try(&mut self, rng: &mut StdRng) {
        self.cseq += 1;
        self.forks.clear();
        // `challenged` has checked that the challenges can be answered.
        self.authorization = self.answer(rng).unwrap_or_default();
    }

    fn answer(&mut self, rng: &mut StdRng) -> Result<Vec<(&'static str, String)>, DigestError> {
        let credentials = self
            .login
            .as_ref()
            .zip(self.call.targets.get(self.target))
            .and_then(|(login, target)| login.at(target.peer.ip()));
        let Some(credentials) = credentials else { return Ok(Vec::new()) };
        self.challenges.answer(&Method::Invite, &self.call.request_uri, credentials, rng)
    }

    /// The parts of the INVITE for this path that its ACK and CANCEL repeat.
    pub(super) fn origin(&self, path: Path, sent_by: String, branch: String) -> Origin {
        Origin {
            uri: self.call.request_uri.clone(),
            via: (path.transport.name(), sent_by, branch),
            from: self.from.clone(),
            to: self.call.to.clone(),
            call_id: self.call.call_id.clone(),
            cseq: self.cseq,
            routes: self.call.routes.clone(),
        }
    }

    /// The URI of the next hop of the INVITE.
    pub(super) fn next_hop_uri(&self) -> &Uri {
        NextHop::uri(&self.call.request_uri, &self.call.routes)
    }

    /// The INVITE, without the header fields that all our requests have.
    pub(super) fn invite(&self, origin: &Origin) -> RequestBuilder {
        let builder = origin
            .request(Method::Invite)
            .header("Session-Expires", &self.session_seconds.to_string())
            .header("Min-SE", &self.least.seconds().to_string());
        let headers = self.call.headers.iter();
        self.authorized(headers.fold(builder, |builder, (name, value)| builder.header(name, value)))
    }

    /// Adds our credentials. The ACK of a 2xx repeats them (§22.1), but not the header fields of
    /// the call's owner: Subject and Replaces are not allowed there (§20).
    pub(super) fn authorized(&self, builder: RequestBuilder) -> RequestBuilder {
        let fields = self.authorization.iter();
        fields.fold(builder, |builder, (name, value)| builder.header(name, value))
    }

    /// The INVITE was sent; `streamed` says that it went over TCP because it is too long for a
    /// datagram.
    pub(super) fn sent(&mut self, transaction: TransactionId, streamed: bool) {
        self.transaction = Some(transaction);
        if streamed {
            self.stream = StreamAttempt::Tried;
        }
    }

    /// The path of the next INVITE; `None` when no target is left.
    pub(super) fn target(&self) -> Option<Path> {
        self.call.targets.get(self.target).copied()
    }

    /// Whether an INVITE too long for a datagram may be sent over a stream.
    pub(super) fn may_stream(&self) -> bool {
        self.stream != StreamAttempt::Failed
    }

    /// The target cannot be reached; returns whether there is another way to try.
    pub(super) fn unreachable(&mut self) -> bool {
        if self.stream == StreamAttempt::Tried {
            self.stream = StreamAttempt::Failed;
            return self.restart();
        }
        self.next_target()
    }

    /// The target does not answer, or has no capacity; returns whether there is another one to try.
    pub(super) fn next_target(&mut self) -> bool {
        self.target += 1;
        self.stream = StreamAttempt::Untried;
        if self.target().is_none() {
            return self.next_place();
        }
        self.restart()
    }

    /// The callee is not at this contact; returns whether there is another one to try (RFC 3261
    /// §16.5, one after the other).
    pub(super) fn next_place(&mut self) -> bool {
        if self.call.further.is_empty() {
            return false;
        }
        let Place { targets, request_uri, routes } = self.call.further.remove(0);
        self.call.targets = targets;
        self.call.request_uri = request_uri;
        self.call.routes = routes;
        self.target = 0;
        self.stream = StreamAttempt::Untried;
        self.challenges = Challenges::default();
        self.restart()
    }

    /// The peer wants a session interval of at least `least` seconds (RFC 4028 §7.3); returns
    /// whether the INVITE should be sent again with it.
    pub(super) fn lengthen_session(&mut self, least: u32) -> bool {
        if !self.least.raise(least, self.session_seconds) {
            return false;
        }
        self.session_seconds = least;
        self.restart()
    }

    /// The least session interval that any hop has asked for.
    pub(super) fn least_interval(&self) -> LeastInterval {
        self.least
    }

    /// Our login for in-dialog requests.
    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// The INVITE was challenged; returns whether the next INVITE can answer the challenge.
    ///
    /// # Errors
    /// The challenge cannot be answered.
    pub(super) fn challenged(
        &mut self,
        response: &Response,
        rng: &mut StdRng,
    ) -> Result<bool, DigestError> {
        if self.login.is_none() || !self.challenges.take(response) {
            return Ok(false);
        }
        let counted = self.challenges.clone();
        self.answer(rng)?;
        self.challenges = counted;
        Ok(self.restart())
    }

    /// Prepares another INVITE; returns false when our side has hung up, the call is answered, or
    /// no target is left.
    fn restart(&mut self) -> bool {
        match &self.state {
            OutgoingState::Calling { hang_up: None } | OutgoingState::Proceeding => {
                self.state = OutgoingState::Calling { hang_up: None };
                self.target().is_some()
            }
            OutgoingState::Calling { hang_up: Some(_) }
            | OutgoingState::Canceling { .. }
            | OutgoingState::Won { .. }
            | OutgoingState::Unusable { .. }
            | OutgoingState::Over => false,
        }
    }

    /// Our side wants to hang up.
    pub(super) fn hang_up(&mut self, wish: HangUp, now: Instant) -> Cancellation {
        match &mut self.state {
            OutgoingState::Calling { hang_up } => {
                hang_up.get_or_insert(wish);
                Cancellation::Later
            }
            OutgoingState::Proceeding => {
                self.state = OutgoingState::Canceling { hang_up: wish, until: now + SIXTY_FOUR_T1 };
                Cancellation::Now
            }
            OutgoingState::Canceling { .. } => Cancellation::Later,
            OutgoingState::Won { .. } | OutgoingState::Over => Cancellation::TooLate,
            OutgoingState::Unusable { .. } => {
                self.state = OutgoingState::Over;
                Cancellation::Ended
            }
        }
    }

    /// A fork was hung up because its 2xx makes no dialog; others may still answer. If none of them
    /// rings, the wait is as long as a lost 2xx takes to come again.
    pub(super) fn await_forks(&mut self, now: Instant) {
        let rings = |fork: &Fork| fork.ack.is_none() && fork.dialog.key().remote_tag.is_some();
        let others_ring = self.forks.values().any(rings);
        let end = now + if others_ring { SIXTY_FOUR_T1 } else { T2 };
        match &mut self.state {
            OutgoingState::Calling { .. } | OutgoingState::Proceeding => {
                self.state = OutgoingState::Unusable { until: end };
            }
            OutgoingState::Unusable { until } => *until = end.min(*until),
            OutgoingState::Canceling { .. } | OutgoingState::Won { .. } | OutgoingState::Over => {
                debug_assert!(false, "no answer is awaited: {:?}", self.state);
            }
        }
    }

    /// The wait for another fork is over; returns whether there was one.
    pub(super) fn give_up_forks(&mut self) -> bool {
        let waits = matches!(self.state, OutgoingState::Unusable { .. });
        if waits {
            self.state = OutgoingState::Over;
        }
        waits
    }

    /// Whether the call has ended, so that a fork that still answers is hung up.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, OutgoingState::Over)
    }

    /// A provisional response came; returns whether CANCEL has to be sent now.
    pub(super) fn proceed(&mut self, now: Instant) -> bool {
        let OutgoingState::Calling { hang_up } = &mut self.state else { return false };
        match hang_up.take() {
            Some(hang_up) => {
                self.state = OutgoingState::Canceling { hang_up, until: now + SIXTY_FOUR_T1 };
                true
            }
            None => {
                self.state = OutgoingState::Proceeding;
                false
            }
        }
    }

    /// The reason for which our side has hung up.
    pub(super) fn reason(&self) -> Option<&str> {
        match &self.state {
            OutgoingState::Canceling { hang_up, .. } => hang_up.reason.as_deref(),
            OutgoingState::Calling { .. }
            | OutgoingState::Proceeding
            | OutgoingState::Won { .. }
            | OutgoingState::Unusable { .. }
            | OutgoingState::Over => None,
        }
    }

    /// The fork with this tag is the first to answer; returns the wish to hang up, if our side had
    /// one before.
    pub(super) fn win(&mut self, tag: &str) -> Option<HangUp> {
        let won = OutgoingState::Won { tag: tag.to_owned() };
        match std::mem::replace(&mut self.state, won) {
            OutgoingState::Calling { hang_up } => hang_up,
            OutgoingState::Canceling { hang_up, .. } => Some(hang_up),
            OutgoingState::Proceeding
            | OutgoingState::Won { .. }
            | OutgoingState::Unusable { .. }
            | OutgoingState::Over => None,
        }
    }

    /// The tag of the fork that answered first.
    pub(super) fn winner(&self) -> Option<&str> {
        match &self.state {
            OutgoingState::Won { tag } => Some(tag),
            OutgoingState::Calling { .. }
            | OutgoingState::Proceeding
            | OutgoingState::Canceling { .. }
            | OutgoingState::Unusable { .. }
            | OutgoingState::Over => None,
        }
    }

    /// Whether our side wants to hang up.
    pub(super) fn is_unwanted(&self) -> bool {
        match &self.state {
            OutgoingState::Calling { hang_up } => hang_up.is_some(),
            OutgoingState::Canceling { .. } => true,
            OutgoingState::Proceeding
            | OutgoingState::Won { .. }
            | OutgoingState::Unusable { .. }
            | OutgoingState::Over => false,
        }
    }

    /// Whether the fork with this tag is followed already, or can be.
    pub(super) fn has_room_for(&self, tag: &str) -> bool {
        self.forks.len() < MAX_FORKS || self.forks.contains_key(tag)
    }

    /// Follows a fork from now on, with this dialog; `ack` is given if it is hung up.
    pub(super) fn follow(&mut self, tag: &str, dialog: Dialog, ack: Option<Transmit>) {
        debug_assert!(self.has_room_for(tag), "{} forks", self.forks.len());
        self.forks.insert(
            tag.to_owned(),
            Fork { dialog, rseq: None, answer: None, early_answer: None, ack },
        );
    }

    /// The early dialogs of all forks that are followed.
    pub(super) fn early_dialogs(&mut self) -> impl Iterator<Item = &mut Dialog> {
        self.forks.values_mut().map(|fork| &mut fork.dialog)
    }

    /// The fork with this tag, if it is followed.
    pub(super) fn fork(&mut self, tag: &str) -> Option<&mut Fork> {
        self.forks.get_mut(tag)
    }

    /// Whether the fork with this tag is followed.
    pub(super) fn has_fork(&self, tag: &str) -> bool {
        self.forks.contains_key(tag)
    }

    /// Takes out the fork with this tag: its dialog stands on its own from now on.
    pub(super) fn take_fork(&mut self, tag: &str) -> Option<Fork> {
        self.forks.remove(tag)
    }

    /// The ACK of a fork that was hung up, if it was sent already.
    pub(super) fn sent_ack(&self, tag: &str) -> Option<Transmit> {
        self.forks.get(tag)?.ack.clone()
    }

    /// When the wait for the answer to a CANCEL (§9.1), or for another fork, ends.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            OutgoingState::Canceling { until, .. } | OutgoingState::Unusable { until } => {
                Some(*until)
            }
            OutgoingState::Calling { .. }
            | OutgoingState::Proceeding
            | OutgoingState::Won { .. }
            | OutgoingState::Over => None,
        }
    }

    /// The transaction of the current INVITE.
    pub(super) fn transaction(&self) -> Option<TransactionId> {
        self.transaction
    }

    /// The CSeq of the current INVITE.
    pub(super) fn cseq(&self) -> u32 {
        self.cseq
    }

    /// Identifies the dialogs that the call may create: Call-ID and our tag.
    pub(super) fn name(&self) -> (String, String) {
        (self.call.call_id.clone(), self.from.tag().unwrap_or_default().to_owned())
    }

    /// Our offer.
    pub(super) fn offer(&self) -> &[u8] {
        &self.call.offer
    }
}
