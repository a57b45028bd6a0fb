//! A call that we place, until it is a dialog or nothing (RFC 3261 §13.2).
//!
//! Comes in: what the owner wants, and how each try fared. Goes out: the next INVITE, and a verdict
//! on each response. One call may need several INVITEs: another target (RFC 3263 §4.3), credentials
//! (§22.2), a longer session interval (RFC 4028 §7.3). It sends nothing; the endpoint does.

use std::{collections::BTreeMap, time::Instant};

use super::{
    dialog::{Dialog, HangUp},
    digest::Credentials,
    message::{Method, NameAddr, RequestBuilder},
    path::{Path, Transmit},
    session_timer::{MIN_SE, SESSION_EXPIRES},
    timers::SIXTY_FOUR_T1,
    transaction::{Origin, TransactionId},
    uri::Uri,
};

/// Forks of one INVITE that are followed at a time; further ones are hung up when they answer.
const MAX_FORKS: usize = 16;

/// RFC 3261 §22.3: a peer that goes on challenging does not want us.
const MAX_CHALLENGES: u8 = 2;

/// A call that we are to place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingCall {
    /// The Call-ID, unique for all time.
    pub call_id: String,
    /// Which ways lead there, the best one first; never empty.
    pub targets: Vec<Path>,
    /// Whom we call.
    pub request_uri: Uri,
    /// Who we are; our tag is added.
    pub from: NameAddr,
    /// Whom we call, as it is shown.
    pub to: NameAddr,
    /// Proxies to visit: the trunk's outbound proxy, or the Path of a registration (RFC 3327).
    pub routes: Vec<NameAddr>,
    /// Further header fields: name and value.
    pub headers: Vec<(String, String)>,
    /// Who we are to whoever challenges us; without them no challenge is answered.
    pub credentials: Option<Credentials>,
    /// Our offer.
    pub offer: Vec<u8>,
}

/// The INVITE that is to be sent now.
#[derive(Debug)]
pub(super) struct Attempt {
    /// Its own part.
    pub origin: Origin,
    /// All of it.
    pub builder: RequestBuilder,
    /// Which way it goes.
    pub path: Path,
}

/// One call that we place.
#[derive(Debug)]
pub(super) struct Outgoing {
    call: OutgoingCall,
    from: NameAddr,
    cseq: u32,
    /// Which of the targets is tried.
    target: usize,
    session_seconds: u32,
    /// The header field that answers a challenge: name and value.
    authorization: Option<(String, String)>,
    /// How many challenges were answered.
    answered: u8,
    /// The INVITE that is out.
    transaction: Option<TransactionId>,
    /// Whether a long INVITE may go over a stream in the place of a datagram (§18.1.1).
    stream: Stream,
    /// Dialogs that began with it, by the other side's tag.
    forks: BTreeMap<String, Fork>,
    state: State,
}

/// RFC 3261 §18.1.1: a stream is tried once; if that fails, the datagram goes out all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
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
/// ```
#[derive(Debug)]
enum State {
    /// No response yet; whoever wants to hang up waits for the first (§9.1).
    Calling { hang_up: Option<HangUp> },
    /// It rings, or is on its way.
    Proceeding,
    /// CANCEL was sent.
    Canceling { hang_up: HangUp, until: Instant },
    /// The fork with this tag answered first.
    Won { tag: String },
}

/// What is known of one of those who were reached.
#[derive(Debug)]
pub(super) struct Fork {
    /// The early dialog.
    pub dialog: Dialog,
    /// The newest reliable provisional response that was acknowledged (RFC 3262 §4).
    pub rseq: Option<u32>,
    /// The answer to our offer, if a reliable provisional response brought it (RFC 3262 §5).
    pub answer: Option<Vec<u8>>,
    /// The ACK of its 2xx, when another fork had won.
    pub ack: Option<Transmit>,
}

/// What a wish to hang up leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cancellation {
    /// Send CANCEL.
    Now,
    /// The first provisional response has to come before (§9.1).
    Later,
    /// The dialog is there, and is what is to be ended.
    TooLate,
}

impl Outgoing {
    /// Nothing was sent yet.
    pub fn new(call: OutgoingCall, local_tag: &str) -> Self {
        Self {
            from: call.from.with_tag(local_tag),
            call,
            cseq: 0,
            target: 0,
            session_seconds: SESSION_EXPIRES,
            authorization: None,
            answered: 0,
            transaction: None,
            stream: Stream::Untried,
            forks: BTreeMap::new(),
            state: State::Calling { hang_up: None },
        }
    }

    /// The next INVITE; `None` when no target is left.
    pub fn attempt(&mut self, path: Path, sent_by: String, branch: String) -> Attempt {
        self.cseq += 1;
        self.forks.clear();
        let origin = Origin {
            uri: self.call.request_uri.clone(),
            via: (path.transport.name(), sent_by, branch),
            from: self.from.clone(),
            to: self.call.to.clone(),
            call_id: self.call.call_id.clone(),
            cseq: self.cseq,
            routes: self.call.routes.clone(),
        };
        let builder = origin
            .request(Method::Invite)
            .header("Session-Expires", &self.session_seconds.to_string())
            .header("Min-SE", &MIN_SE.to_string());
        let builder = with_headers(builder, &self.call.headers);
        Attempt { origin, builder: self.authorized(builder), path }
    }

    /// Adds our credentials. The ACK of a 2xx repeats them (§22.1), and nothing else that the owner
    /// wants said: Subject or Replaces have no place there (§20).
    pub fn authorized(&self, builder: RequestBuilder) -> RequestBuilder {
        with_headers(builder, &self.authorization)
    }

    /// The INVITE is out; `streamed` over TCP because it is too long for a datagram.
    pub fn sent(&mut self, transaction: TransactionId, streamed: bool) {
        self.transaction = Some(transaction);
        if streamed {
            self.stream = Stream::Tried;
        }
    }

    /// Where the INVITE is to go; `None` when no target is left.
    pub fn target(&self) -> Option<Path> {
        self.call.targets.get(self.target).copied()
    }

    /// Whether an INVITE that is too long for a datagram may go over a stream.
    pub fn may_stream(&self) -> bool {
        self.stream != Stream::Failed
    }

    /// The target cannot be reached; whether there is another way.
    pub fn unreachable(&mut self) -> bool {
        if self.stream == Stream::Tried {
            self.stream = Stream::Failed;
            return self.restart();
        }
        self.next_target()
    }

    /// The target does not answer, or has no room; whether there is another one.
    pub fn next_target(&mut self) -> bool {
        self.target += 1;
        self.stream = Stream::Untried;
        self.restart()
    }

    /// The peer wants a session interval of at least so many seconds (RFC 4028 §7.3).
    pub fn lengthen_session(&mut self, least: u32) -> bool {
        let is_news = least > self.session_seconds;
        self.session_seconds = least;
        is_news && self.restart()
    }

    /// What challenges are answered with, as long as that may be tried once more.
    pub fn credentials(&self) -> Option<&Credentials> {
        self.call.credentials.as_ref().filter(|_| self.answered < MAX_CHALLENGES)
    }

    /// What challenges are answered with, within the call.
    pub fn all_credentials(&self) -> Option<&Credentials> {
        self.call.credentials.as_ref()
    }

    /// The next INVITE answers a challenge by this header field: name and value.
    pub fn authorize(&mut self, authorization: (String, String)) -> bool {
        self.authorization = Some(authorization);
        self.answered += 1;
        self.restart()
    }

    /// The INVITE is to be sent once more, unless nobody wants it any more.
    fn restart(&mut self) -> bool {
        match &self.state {
            State::Calling { hang_up: None } | State::Proceeding => {
                self.state = State::Calling { hang_up: None };
                self.target().is_some()
            }
            State::Calling { hang_up: Some(_) } | State::Canceling { .. } | State::Won { .. } => {
                false
            }
        }
    }

    /// Our side wants to hang up.
    pub fn hang_up(&mut self, wish: HangUp, now: Instant) -> Cancellation {
        match &mut self.state {
            State::Calling { hang_up } => {
                hang_up.get_or_insert(wish);
                Cancellation::Later
            }
            State::Proceeding => {
                self.state = State::Canceling { hang_up: wish, until: now + SIXTY_FOUR_T1 };
                Cancellation::Now
            }
            State::Canceling { .. } => Cancellation::Later,
            State::Won { .. } => Cancellation::TooLate,
        }
    }

    /// A provisional response came; whether CANCEL is to be sent now.
    pub fn proceed(&mut self, now: Instant) -> bool {
        let State::Calling { hang_up } = &mut self.state else { return false };
        match hang_up.take() {
            Some(hang_up) => {
                self.state = State::Canceling { hang_up, until: now + SIXTY_FOUR_T1 };
                true
            }
            None => {
                self.state = State::Proceeding;
                false
            }
        }
    }

    /// Why our side has hung up.
    pub fn reason(&self) -> Option<&str> {
        match &self.state {
            State::Canceling { hang_up, .. } => hang_up.reason.as_deref(),
            State::Calling { .. } | State::Proceeding | State::Won { .. } => None,
        }
    }

    /// The fork with this tag has answered, as the first of all; what was wanted meanwhile.
    pub fn win(&mut self, tag: &str) -> Option<HangUp> {
        let won = State::Won { tag: tag.to_owned() };
        match std::mem::replace(&mut self.state, won) {
            State::Calling { hang_up } => hang_up,
            State::Canceling { hang_up, .. } => Some(hang_up),
            State::Proceeding | State::Won { .. } => None,
        }
    }

    /// The tag of the fork that has answered first.
    pub fn winner(&self) -> Option<&str> {
        match &self.state {
            State::Won { tag } => Some(tag),
            State::Calling { .. } | State::Proceeding | State::Canceling { .. } => None,
        }
    }

    /// Somebody wants to hang up.
    pub fn is_unwanted(&self) -> bool {
        match &self.state {
            State::Calling { hang_up } => hang_up.is_some(),
            State::Canceling { .. } => true,
            State::Proceeding | State::Won { .. } => false,
        }
    }

    /// Follows the fork with this tag from now on; `make` begins its early dialog. False when there
    /// are too many.
    pub fn follow(&mut self, tag: &str, make: impl FnOnce() -> Dialog) -> bool {
        let is_known = self.forks.contains_key(tag);
        let has_room = is_known || self.forks.len() < MAX_FORKS;
        if has_room && !is_known {
            let fork = Fork { dialog: make(), rseq: None, answer: None, ack: None };
            self.forks.insert(tag.to_owned(), fork);
        }
        has_room
    }

    /// The fork with this tag, if it is followed.
    pub fn fork(&mut self, tag: &str) -> Option<&mut Fork> {
        self.forks.get_mut(tag)
    }

    /// Whether there is an early dialog with this tag.
    pub fn has_fork(&self, tag: &str) -> bool {
        self.forks.contains_key(tag)
    }

    /// The early dialog with this tag is one of its own now.
    pub fn take_fork(&mut self, tag: &str) -> Option<Fork> {
        self.forks.remove(tag)
    }

    /// The ACK of a fork that answered too late, if it was sent already.
    pub fn sent_ack(&self, tag: &str) -> Option<Transmit> {
        self.forks.get(tag)?.ack.clone()
    }

    /// When a canceled call is given up (§9.1).
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Canceling { until, .. } => Some(*until),
            State::Calling { .. } | State::Proceeding | State::Won { .. } => None,
        }
    }

    /// The INVITE that is out.
    pub fn transaction(&self) -> Option<TransactionId> {
        self.transaction
    }

    /// The number of the INVITE that is out.
    pub fn cseq(&self) -> u32 {
        self.cseq
    }

    /// How the dialogs that it may make are named: Call-ID and our tag.
    pub fn name(&self) -> (String, String) {
        (self.call.call_id.clone(), self.from.tag().unwrap_or_default().to_owned())
    }

    /// The Request-URI.
    pub fn request_uri(&self) -> &Uri {
        &self.call.request_uri
    }

    /// Our offer.
    pub fn offer(&self) -> &[u8] {
        &self.call.offer
    }
}

fn with_headers<'a>(
    builder: RequestBuilder,
    headers: impl IntoIterator<Item = &'a (String, String)>,
) -> RequestBuilder {
    headers.into_iter().fold(builder, |builder, (name, value)| builder.header(name, value))
}
