//! Dialogs (RFC 3261 §12): the state that two peers share, whichever of them called.
//!
//! Comes in: in-dialog requests, decisions of the call's owner, time. Goes out: our in-dialog
//! requests, ready to be printed; the 2xx that is sent again until its ACK comes (§13.3.1.4); and a
//! verdict on what may happen at which moment. The dialog opens no transactions; the endpoint does.

mod allowance;
mod heading;
mod key;
mod proof;
mod routing;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tracing::debug;

use self::{allowance::Allowance, heading::Heading};
pub(super) use self::{allowance::allowed_for, heading::Caller, key::DialogKey};
pub use super::dialog_id::DialogId;
use super::{
    Status,
    login::Login,
    message::{Method, NameAddr, Request, RequestBuilder, Response},
    path::{ConnectionId, Path, Transmit, Transport},
    session_timer::{Due as SessionDue, MAX_RAISES, MIN_SE, SessionTimer},
    timers::{LONGEST_REFER, REFER_EXPIRES, Retransmission, SIXTY_FOUR_T1},
    transaction::{Origin, TransactionId},
    uri::Uri,
};

/// State of one dialog: what both sides agreed on, and how far it has got.
#[derive(Debug)]
pub(super) struct Dialog {
    key: DialogKey,
    /// Our address with our tag.
    local: NameAddr,
    /// The peer's address with its tag.
    remote: NameAddr,
    /// Request-URI for requests to the peer.
    remote_target: Uri,
    /// Our Contact is a SIPS URI (§12.2.1.1).
    is_sips: bool,
    /// Record-Route proxies that our requests visit, the next one first (§12.1).
    route_set: Vec<NameAddr>,
    /// Rule by which the next hop of our requests is chosen.
    heading: Heading,
    /// The rule from the first message on that shows our tag, for a caller at the address of a
    /// registered phone.
    proved_heading: Option<Heading>,
    local_cseq: u32,
    /// CSeq of the peer's newest request; `None` before its first.
    remote_cseq: Option<u32>,
    /// Path to the peer: that of the INVITE at first. A target refresh changes it, and so does a
    /// message of the peer after its stream is lost. For a stranger, each message that shows our
    /// tag changes it.
    path: Path,
    /// The connection of `path`, once it is lost.
    lost: Option<ConnectionId>,
    /// We opened the connection of `path`, so its remote port is where the peer listens and we can
    /// open it again.
    is_own_stream: bool,
    /// The caller is not known and no message has shown yet that it receives ours: its address may
    /// be forged.
    is_half_open: bool,
    /// For an unproven caller: the address that our tag was sent to. A message that shows the tag
    /// and comes from this address is not forged.
    told: Option<SocketAddr>,
    /// The address that has answered the newest answered request of ours: its port is one that
    /// hears us.
    answered: Option<SocketAddr>,
    /// Bytes that may be sent to `path` while its address is unproven; `None` when there is no
    /// limit.
    allowance: Option<Allowance>,
    /// The peer supports UPDATE (RFC 3311).
    takes_update: bool,
    /// Our newest session description, for refreshes (RFC 4028 §7.4).
    description: Vec<u8>,
    session: Option<SessionTimer>,
    /// The least session interval that the peer accepts, in seconds (RFC 4028 §7.4).
    min_se: u32,
    /// How often `min_se` was raised during one refresh.
    raised: u8,
    /// Our login at a trunk that challenges in-dialog requests.
    login: Option<Login>,
    /// A REFER of ours is under way: until when its NOTIFY requests are awaited (RFC 3515 §2.4.4).
    refers: Option<Instant>,
    /// The peer may send a REFER: it has authenticated, or we have called it.
    may_refer: bool,
    referral: Referral,
    /// Our newest re-INVITE; it may still be unanswered when the dialog ends.
    reinvite: Option<TransactionId>,
    /// The ACK of the newest INVITE of ours, sent again whenever its 2xx comes again (§13.2.2.4).
    ack: Option<(u32, Transmit)>,
    /// RSeq of the reliable provisional response that has no PRACK yet, and CSeq of its INVITE. The
    /// PRACK may come after the 2xx (RFC 3262 §3).
    rang: Option<(u32, u32)>,
    state: State,
}

/// ```text
///              INVITE                                       200 to our INVITE / ACK
///                |             CANCEL, BYE, Refuse             |
///          +-----------+------------------------------> gone   |
///          |  Ringing  |                                       |
///          +-----------+                                       |
///                | Answer / 200                                |
///                v             64*T1 / BYE                     |
///          +-----------+---------------------------+           |
///   +----->|  Answered |  T1 to T2 / 200 again     |           |
///   |      +-----------+                           v           |
///   |            | ACK                        +--------+ response, or none in 64*T1
///   |            v             Bye / BYE      | Ending |---------------------------> gone
///   |      +-----------+--------------------->+--------+       |
///   |      | Confirmed |<---+--------------------- ^ ----------+
///   |      +-----------+    | Refuse; UPDATE: Answer
///   |            | re-INVITE or UPDATE             |
///   |            v          |  Bye / 487, BYE      |
///   |      +-----------+----+----------------------+
///   +------| Reoffered |                           |
///   Answer +-----------+       BYE of the peer, in any state: gone
///                                                  |
///      Confirmed -- session timer / INVITE --> +----------+ Bye / BYE
///      Confirmed <--- final response / ACK --- | Offering |
///      Confirmed <-- 64*T1 after 1xx / CANCEL -+----------+
/// ```
#[derive(Debug)]
enum State {
    /// The first INVITE is not answered.
    Ringing {
        pending: Pending,
        /// The provisional response that waits for its PRACK.
        reliable: Option<Reliable>,
    },
    /// The 2xx to the INVITE or re-INVITE with `cseq` has no ACK yet.
    Answered {
        cseq: u32,
        transaction: TransactionId,
        response: Bytes,
        resend: Retransmission,
        until: Instant,
        /// Our side wants to hang up; BYE must wait for the ACK (§15).
        hang_up: Option<HangUp>,
    },
    /// No offer is pending and no ACK is missing.
    Confirmed,
    /// A re-INVITE, or an UPDATE with an offer, is not answered.
    Reoffered { pending: Pending },
    /// Our re-INVITE with `cseq` is not answered. `until` is set at the first provisional response,
    /// so that the wait has a limit.
    Offering { cseq: u32, until: Option<Instant> },
    /// Our BYE was sent.
    Ending,
}

/// A reliable provisional response, sent again until its PRACK comes (RFC 3262 §3).
#[derive(Debug)]
struct Reliable {
    response: Bytes,
    resend: Retransmission,
    until: Instant,
}

/// State of the peer's REFER; our NOTIFY requests report on it (RFC 3515 §2.4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Referral {
    /// The peer has sent no REFER.
    None,
    /// The call that the REFER asks for is under way. `id` is the CSeq of the REFER, for all but
    /// the first REFER of a dialog (RFC 3515 §2.4.6).
    UnderWay { id: Option<u32> },
    /// The last REFER is over.
    Over,
}

/// A request with an offer that is not answered yet.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub transaction: TransactionId,
    /// The request that the response is built from.
    pub request: Box<Request>,
}

/// Our side's wish to end the dialog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HangUp {
    /// Value of the Reason header field.
    pub reason: Option<String>,
}

/// Why a request of the peer is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Untimely {
    /// Its CSeq is lower than that of an earlier request (§12.2.2).
    OutOfOrder,
    /// An INVITE of the dialog is not answered yet (§14.2).
    Unanswered,
    /// An offer of ours is not answered yet, or its answer may still be missing (§14.2, RFC 3311
    /// §5.2).
    Glare,
    /// We have hung up.
    Over,
}

impl Untimely {
    /// The status of the refusal.
    pub fn status(self) -> Status {
        match self {
            Self::OutOfOrder | Self::Unanswered => Status::SERVER_INTERNAL_ERROR,
            Self::Glare => Status::REQUEST_PENDING,
            Self::Over => Status::CALL_DOES_NOT_EXIST,
        }
    }
}

/// The effect of an ACK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Acknowledgement {
    /// It is the ACK that the dialog waits for.
    Expected,
    /// It is the awaited ACK, and the BYE that waited for it can be sent now.
    HangUp(HangUp),
    /// No effect: the ACK is late, or belongs to another request.
    Stray,
}

/// What has to follow when our side hangs up.
#[derive(Debug)]
pub(super) enum Parting {
    /// The call is not answered: refuse it.
    Refuse(Pending),
    /// Send BYE; first refuse the peer's offer, if one is pending.
    Bye(Option<Pending>),
    /// BYE has to wait for the ACK.
    Later,
    /// The dialog is ending already.
    Already,
}

/// What a deadline led to.
#[derive(Debug)]
pub(super) enum Due {
    /// The 2xx, or the reliable provisional response, has to be sent again.
    Resend(Bytes),
    /// The PRACK never came: the INVITE has to be refused (RFC 3262 §3).
    NotPracked,
    /// The ACK never came: send BYE.
    Unacknowledged(HangUp),
    /// The session has to be refreshed.
    Refresh,
    /// Our re-INVITE with this transaction got a provisional response but no final one.
    Unanswered(TransactionId),
    /// The NOTIFY requests about our REFER are no longer awaited.
    ReferOver,
    /// The session was not refreshed in time: refuse the peer's offer, if one is pending, and send
    /// BYE.
    Expired(Option<Pending>, HangUp),
}

/// The Via of a request of ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hop<'a> {
    /// Our host and port.
    pub sent_by: &'a str,
    /// The branch.
    pub branch: &'a str,
}

impl Dialog {
    /// Makes the dialog of the INVITE `pending` for our side, the callee (§12.1.1). `heard` is the
    /// size of the INVITE in bytes.
    pub fn called(
        pending: Pending,
        local_tag: String,
        remote_target: Uri,
        (path, heard): (Path, usize),
        caller: Caller,
    ) -> Self {
        let request = &pending.request;
        let key = DialogKey {
            call_id: request.call_id().to_owned(),
            local_tag: local_tag.clone(),
            remote_tag: request.from().tag().map(str::to_owned),
        };
        let proved = Heading::of_called(caller, request.vias().len() > 1);
        let is_unproven = !caller.is_proved(path.transport);
        let is_limited = is_unproven && !path.transport.is_reliable();
        let may_be_forged = is_unproven && caller == Caller::AtPhone;
        Self {
            key,
            local: request.to().with_tag(&local_tag),
            remote: request.from().clone(),
            remote_target,
            is_sips: request.wants_sips(),
            route_set: request.record_routes().to_vec(),
            heading: if is_unproven { Heading::Source } else { proved },
            proved_heading: may_be_forged.then_some(proved),
            local_cseq: 0,
            remote_cseq: Some(request.cseq().number),
            path,
            lost: None,
            is_own_stream: false,
            is_half_open: caller != Caller::Known,
            told: is_unproven.then_some(path.peer),
            answered: None,
            allowance: is_limited.then(|| Allowance::of(heard)),
            takes_update: takes_update(request.headers("Allow")),
            description: Vec::new(),
            session: None,
            min_se: MIN_SE,
            raised: 0,
            login: None,
            refers: None,
            may_refer: caller == Caller::Known,
            referral: Referral::None,
            reinvite: None,
            ack: None,
            rang: None,
            state: State::Ringing { pending, reliable: None },
        }
    }

    /// Makes the dialog that `response` creates for our INVITE, on our side, the caller (§12.1.2).
    /// `path` is the path of the INVITE. The state is `Confirmed` even for an early dialog: an
    /// early dialog is only used to send requests.
    pub fn calling(origin: &Origin, response: &Response, path: Path) -> Self {
        let contact = response.contacts().first().map(|contact| contact.uri().clone());
        let remote_target = contact.unwrap_or_else(|| origin.uri.clone());
        // A Contact or Record-Route that cannot be read leads nowhere: use the path instead.
        let heading = match response.dialog_fault() {
            Some(_) => Heading::Path,
            None => Heading::of_calling(&remote_target, path),
        };
        Self {
            key: DialogKey {
                call_id: origin.call_id.clone(),
                local_tag: origin.from.tag().unwrap_or_default().to_owned(),
                remote_tag: response.to().tag().map(str::to_owned),
            },
            local: origin.from.clone(),
            remote: response.to().clone(),
            remote_target,
            is_sips: origin.wants_sips(),
            route_set: response.record_routes().iter().rev().cloned().collect(),
            heading,
            proved_heading: None,
            local_cseq: origin.cseq,
            remote_cseq: None,
            path,
            lost: None,
            is_own_stream: false,
            is_half_open: false,
            told: None,
            answered: None,
            allowance: None,
            takes_update: takes_update(response.headers("Allow")),
            description: Vec::new(),
            session: None,
            min_se: MIN_SE,
            raised: 0,
            login: None,
            refers: None,
            may_refer: true,
            referral: Referral::None,
            reinvite: None,
            ack: None,
            rang: None,
            state: State::Confirmed,
        }
    }

    /// Takes over both CSeq counters of the early dialog: the 2xx that made this dialog was not the
    /// first response of its peer. All else is as the 2xx says (§13.2.2.4).
    pub fn goes_on_from(&mut self, early: &Self) {
        self.local_cseq = early.local_cseq;
        self.remote_cseq = early.remote_cseq;
        self.takes_update |= early.takes_update;
    }

    // -- the peer's requests -----------------------------------------------------------------

    /// Judges whether a request of the peer comes at the right moment, and notes its CSeq.
    pub fn admit(&mut self, request: &Request) -> Result<(), Untimely> {
        let cseq = request.cseq().number;
        if self.remote_cseq.is_some_and(|newest| cseq < newest) {
            return Err(Untimely::OutOfOrder);
        }
        self.remote_cseq = Some(cseq);
        let is_offer = match request.method() {
            Method::Invite => true,
            Method::Update => request.description().is_some(),
            _ => false,
        };
        match (&self.state, request.method()) {
            // Both sides may hang up at once; each BYE gets its answer.
            (_, Method::Bye) => Ok(()),
            (State::Ending, _) => Err(Untimely::Over),
            _ if !is_offer => Ok(()),
            (State::Ringing { .. } | State::Reoffered { .. }, _) => Err(Untimely::Unanswered),
            (State::Answered { .. } | State::Offering { .. }, _) => Err(Untimely::Glare),
            (State::Confirmed, _) => Ok(()),
        }
    }

    /// A re-INVITE, or an UPDATE with an offer, was admitted and waits for its answer.
    pub fn reoffered(&mut self, pending: Pending) {
        debug_assert!(matches!(self.state, State::Confirmed), "{:?}", self.state);
        self.state = State::Reoffered { pending };
    }

    /// The peer has sent a target refresh: it is reached at another address from now on (§12.2.2).
    pub fn refresh_target(&mut self, contact: Option<&Uri>, path: Path) {
        if let Some(contact) = contact {
            self.remote_target = contact.clone();
        }
        self.follow(path);
    }

    /// `response`, a reliable provisional response with this RSeq, was sent to the pending INVITE.
    pub fn rang_reliably(&mut self, rseq: u32, response: Bytes, now: Instant) {
        if let State::Ringing { pending, reliable } = &mut self.state {
            self.rang = Some((rseq, pending.request.cseq().number));
            *reliable = Some(Reliable {
                response,
                resend: Retransmission::doubling(now),
                until: now + SIXTY_FOUR_T1,
            });
        }
    }

    /// A PRACK came with this RAck (RFC 3262 §3); returns whether it acknowledges our response.
    pub fn handle_prack(&mut self, rack: &str) -> bool {
        let is_it = self
            .rang
            .take_if(|(rseq, cseq)| rack.split_whitespace().eq(rack_of(*rseq, *cseq)))
            .is_some();
        if let (true, State::Ringing { reliable, .. }) = (is_it, &mut self.state) {
            *reliable = None;
        }
        is_it
    }

    /// Whether a reliable provisional response waits for its PRACK.
    pub fn awaits_prack(&self) -> bool {
        matches!(self.state, State::Ringing { reliable: Some(_), .. })
    }

    /// `response`, a 2xx that carried `description`, was sent to the pending request.
    pub fn answered(&mut self, response: Bytes, description: &[u8], now: Instant) {
        let (request, transaction) = match &self.state {
            State::Ringing { pending, .. } | State::Reoffered { pending } => {
                (&pending.request, pending.transaction)
            }
            State::Answered { .. } | State::Confirmed | State::Offering { .. } | State::Ending => {
                debug_assert!(false, "nothing to answer in {:?}", self.state);
                return;
            }
        };
        self.description = description.to_vec();
        if *request.method() == Method::Update {
            self.state = State::Confirmed;
            return;
        }
        self.state = State::Answered {
            cseq: request.cseq().number,
            transaction,
            response,
            resend: Retransmission::start(now),
            until: now + SIXTY_FOUR_T1,
            hang_up: None,
        };
    }

    /// The pending offer was refused: the session stays as it was (§14.1).
    pub fn reoffer_refused(&mut self) {
        debug_assert!(matches!(self.state, State::Reoffered { .. }), "{:?}", self.state);
        self.state = State::Confirmed;
    }

    /// An ACK came for the INVITE with `cseq`.
    pub fn handle_ack(&mut self, ack_cseq: u32) -> Acknowledgement {
        match &mut self.state {
            State::Answered { cseq, hang_up, .. } if *cseq == ack_cseq => match hang_up.take() {
                Some(hang_up) => {
                    self.state = State::Ending;
                    Acknowledgement::HangUp(hang_up)
                }
                None => {
                    self.state = State::Confirmed;
                    Acknowledgement::Expected
                }
            },
            State::Answered { .. }
            | State::Ringing { .. }
            | State::Confirmed
            | State::Reoffered { .. }
            | State::Offering { .. }
            | State::Ending => {
                debug!(cseq = ack_cseq, "stray ACK is dropped");
                Acknowledgement::Stray
            }
        }
    }

    // -- our requests ------------------------------------------------------------------------

    /// Our side wants to hang up.
    pub fn hang_up(&mut self, wish: HangUp) -> Parting {
        match &mut self.state {
            State::Ringing { pending, .. } => Parting::Refuse(pending.clone()),
            State::Answered { hang_up, .. } => {
                hang_up.get_or_insert(wish);
                Parting::Later
            }
            State::Confirmed | State::Offering { .. } => {
                self.state = State::Ending;
                Parting::Bye(None)
            }
            State::Reoffered { pending } => {
                let pending = pending.clone();
                self.state = State::Ending;
                Parting::Bye(Some(pending))
            }
            State::Ending => Parting::Already,
        }
    }

    /// The CSeq of our next request in the dialog (§12.2.1.1).
    pub fn next_cseq(&mut self) -> u32 {
        self.local_cseq = self.local_cseq.saturating_add(1);
        self.local_cseq
    }

    /// Builds an in-dialog request of ours for this path (§12.2.1.1). The ACK of a 2xx has the CSeq
    /// of its INVITE (§13.2.2.4).
    pub fn request(&self, method: Method, cseq: u32, path: Path, hop: Hop<'_>) -> RequestBuilder {
        let (request_uri, routes) = self.routed();
        let builder = RequestBuilder::new(method, request_uri)
            .via(path.transport.name(), hop.sent_by, hop.branch)
            .from(&self.local)
            .to(&self.remote)
            .call_id(&self.key.call_id)
            .cseq(cseq);
        routes.iter().fold(builder, |builder, route| builder.route(route))
    }

    /// The parts of an INVITE of ours in this dialog that its ACK and CANCEL repeat.
    pub fn origin(&self, cseq: u32, path: Path, hop: Hop<'_>) -> Origin {
        let (uri, routes) = self.routed();
        Origin {
            uri,
            via: (path.transport.name(), hop.sent_by.to_owned(), hop.branch.to_owned()),
            from: self.local.clone(),
            to: self.remote.clone(),
            call_id: self.key.call_id.clone(),
            cseq,
            routes,
        }
    }

    /// The ACK of our newest INVITE was sent.
    pub fn acknowledged(&mut self, cseq: u32, ack: Transmit) {
        if self.is_offering(cseq) {
            self.state = State::Confirmed;
        }
        self.ack = Some((cseq, ack));
    }

    /// The ACK of our INVITE with `cseq`, if it was sent already.
    pub fn sent_ack(&self, cseq: u32) -> Option<Transmit> {
        self.ack.as_ref().filter(|(number, _)| *number == cseq).map(|(_, ack)| ack.clone())
    }

    /// Whether a re-INVITE of ours may go out, for the first time or once more.
    pub fn may_offer(&self) -> bool {
        matches!(self.state, State::Confirmed | State::Offering { .. })
    }

    /// Our re-INVITE with `cseq` was sent.
    pub fn offering(&mut self, cseq: u32, reinvite: TransactionId) {
        debug_assert!(self.may_offer(), "{:?}", self.state);
        self.state = State::Offering { cseq, until: None };
        self.reinvite = Some(reinvite);
    }

    /// Whether our re-INVITE with `cseq` waits for its answer.
    pub fn is_offering(&self, cseq: u32) -> bool {
        matches!(self.state, State::Offering { cseq: offered, .. } if offered == cseq)
    }

    /// Our re-INVITE with the CSeq `heard` got a provisional response. Returns whether its answer
    /// is still awaited; the wait then ends 64*T1 from now.
    pub fn offer_heard(&mut self, heard: u32, now: Instant) -> bool {
        match &mut self.state {
            State::Offering { cseq, until } if *cseq == heard => {
                *until = Some(now + SIXTY_FOUR_T1);
                true
            }
            State::Offering { .. }
            | State::Ringing { .. }
            | State::Answered { .. }
            | State::Confirmed
            | State::Reoffered { .. }
            | State::Ending => false,
        }
    }

    /// Our newest re-INVITE, answered or not.
    pub fn reinvite(&self) -> Option<TransactionId> {
        self.reinvite
    }

    /// Our re-INVITE was refused, or got no answer in time.
    pub fn offer_refused(&mut self) {
        if matches!(self.state, State::Offering { .. }) {
            self.state = State::Confirmed;
        }
    }

    // -- time --------------------------------------------------------------------------------

    /// Sets the session timer; with `None` the session has no time limit.
    pub fn keep_session(&mut self, session: Option<SessionTimer>) {
        self.session = session;
        self.raised = 0;
    }

    /// Our refresh could not be made now; it is tried again at `at`.
    pub fn postpone_refresh(&mut self, at: Instant) {
        if let Some(session) = &mut self.session {
            session.postpone(at);
        }
    }

    /// Our refresh was refused; it is tried again later.
    pub fn refresh_refused(&mut self, now: Instant) {
        self.raised = 0;
        if let Some(session) = &mut self.session {
            session.refused(now);
        }
    }

    /// The peer wants a session interval of at least `least` seconds (RFC 4028 §7.3). Returns
    /// whether the refresh should be tried again with it.
    pub fn lengthen_session(&mut self, least: u32) -> bool {
        let proposed = self.session.map_or(0, |session| session.seconds()).max(self.min_se);
        if least <= proposed || self.raised >= MAX_RAISES {
            return false;
        }
        self.raised += 1;
        self.min_se = least;
        true
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        match &mut self.state {
            State::Answered { response, resend, until, hang_up, .. } => {
                if *until <= now {
                    let hang_up = hang_up
                        .take()
                        .unwrap_or_else(|| HangUp::because("SIP;cause=408;text=\"ACK missing\""));
                    self.state = State::Ending;
                    return Some(Due::Unacknowledged(hang_up));
                }
                if resend.due() <= now {
                    resend.sent(now);
                    let fits = allowance::take(&mut self.allowance, response.len());
                    return fits.then(|| Due::Resend(response.clone()));
                }
            }
            State::Ringing { reliable: Some(sent), .. } => {
                if sent.until <= now {
                    return Some(Due::NotPracked);
                }
                if sent.resend.due() <= now {
                    sent.resend.sent(now);
                    let bytes = sent.response.len();
                    let fits = allowance::take_provisional(&mut self.allowance, bytes);
                    return fits.then(|| Due::Resend(sent.response.clone()));
                }
            }
            State::Offering { until: Some(until), .. } if *until <= now => {
                self.state = State::Confirmed;
                return self.reinvite.map(Due::Unanswered);
            }
            State::Ringing { reliable: None, .. }
            | State::Confirmed
            | State::Reoffered { .. }
            | State::Offering { .. }
            | State::Ending => {}
        }
        if !self.state.is_up() {
            return None;
        }
        if self.refers.take_if(|until| *until <= now).is_some() {
            return Some(Due::ReferOver);
        }
        match self.session.as_mut()?.handle_timeout(now)? {
            SessionDue::Refresh => Some(Due::Refresh),
            SessionDue::Expired => {
                let hang_up = HangUp::because("SIP;cause=408;text=\"Session expired\"");
                match std::mem::replace(&mut self.state, State::Ending) {
                    State::Reoffered { pending } => Some(Due::Expired(Some(pending), hang_up)),
                    _ => Some(Due::Expired(None, hang_up)),
                }
            }
        }
    }

    /// When `handle_timeout` has to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let state = match &self.state {
            State::Answered { resend, until, .. } => Some(resend.due().min(*until)),
            State::Ringing { reliable: Some(sent), .. } => Some(sent.resend.due().min(sent.until)),
            State::Offering { until, .. } => *until,
            State::Ringing { reliable: None, .. }
            | State::Confirmed
            | State::Reoffered { .. }
            | State::Ending => None,
        };
        let session = self.session.filter(|_| self.state.is_up());
        let refers = self.refers.filter(|_| self.state.is_up());
        let session = session.map(|session| session.poll_timeout());
        [state, session, refers].into_iter().flatten().min()
    }

    // -- what is known -----------------------------------------------------------------------

    /// The request with an offer that is not answered yet.
    pub fn pending(&self) -> Option<&Pending> {
        match &self.state {
            State::Ringing { pending, .. } | State::Reoffered { pending } => Some(pending),
            State::Answered { .. } | State::Confirmed | State::Offering { .. } | State::Ending => {
                None
            }
        }
    }

    /// Whether the first INVITE is not answered yet.
    pub fn is_ringing(&self) -> bool {
        matches!(self.state, State::Ringing { .. })
    }

    /// Whether the session has begun, no ACK to a 2xx of ours is missing, and our side has not hung
    /// up.
    pub fn is_up(&self) -> bool {
        self.state.is_up() && !matches!(self.state, State::Answered { .. })
    }

    /// The 2xx that waits for its ACK.
    pub fn unacknowledged(&self) -> Option<&Bytes> {
        match &self.state {
            State::Answered { response, .. } => Some(response),
            State::Ringing { .. }
            | State::Confirmed
            | State::Reoffered { .. }
            | State::Offering { .. }
            | State::Ending => None,
        }
    }

    /// The INVITE that was answered, while no message has shown yet that its caller receives ours.
    pub fn half_open_invite(&self) -> Option<TransactionId> {
        match &self.state {
            State::Answered { transaction, .. } if self.is_half_open => Some(*transaction),
            State::Answered { .. }
            | State::Ringing { .. }
            | State::Confirmed
            | State::Reoffered { .. }
            | State::Offering { .. }
            | State::Ending => None,
        }
    }

    /// Whether no offer is pending, no ACK is missing, and our side has not hung up.
    pub fn is_confirmed(&self) -> bool {
        matches!(self.state, State::Confirmed)
    }

    /// Whether our side has hung up.
    pub fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending)
    }

    /// Call-ID and tags of the dialog.
    pub fn key(&self) -> &DialogKey {
        &self.key
    }

    /// The path to the peer.
    pub fn path(&self) -> Path {
        self.path
    }

    /// Whether our Contact is a SIPS URI.
    pub fn is_sips(&self) -> bool {
        self.is_sips
    }

    /// Whether the peer is behind a NAT: its datagrams come from elsewhere than its Contact says.
    /// The NAT must keep its mapping while the call lasts, so it needs keep-alives.
    pub fn is_behind_nat(&self) -> bool {
        let transport = self.path.transport;
        let is_up = !self.is_ringing() && !self.is_ending() && !self.is_limited();
        let reached = self.next_hop().peer;
        let is_direct = match self.heading {
            Heading::Source | Heading::Path => self.route_set.is_empty(),
            Heading::Contact => false,
        };
        let port = self.remote_target.port().unwrap_or(transport.default_port());
        let is_at_peer =
            self.remote_target.ip_addr() == Some(reached.ip()) && port == reached.port();
        transport == Transport::Udp && is_up && is_direct && !is_at_peer
    }

    /// Whether the peer supports UPDATE (RFC 3311).
    pub fn takes_update(&self) -> bool {
        self.takes_update
    }

    /// The peer does not support UPDATE after all.
    pub fn refuses_update(&mut self) {
        self.takes_update = false;
    }

    /// Whether a REFER of ours is under way.
    pub fn refers(&self) -> bool {
        self.refers.is_some()
    }

    /// A REFER of ours has begun, or goes on; `told_for` is how long the peer says it will last.
    pub fn follow_refer(&mut self, told_for: Option<Duration>, now: Instant) {
        self.refers = Some(now + told_for.unwrap_or(REFER_EXPIRES).min(LONGEST_REFER));
    }

    /// A REFER of ours is over.
    pub fn refer_over(&mut self) {
        self.refers = None;
    }

    /// Whether the peer may send a REFER without authenticating again.
    pub fn may_refer(&self) -> bool {
        self.may_refer
    }

    /// The peer sent a REFER with this CSeq, and may have authenticated in it (`is_proved`).
    ///
    /// # Errors
    /// The status of the refusal.
    pub fn refer_asked(&mut self, cseq: u32, is_proved: bool) -> Result<(), Status> {
        if !(self.may_refer || is_proved) || !self.state.is_up() {
            return Err(Status::DECLINE);
        }
        self.referral = match self.referral {
            Referral::None => Referral::UnderWay { id: None },
            Referral::Over => Referral::UnderWay { id: Some(cseq) },
            Referral::UnderWay { .. } => return Err(Status::REQUEST_PENDING),
        };
        Ok(())
    }

    /// The value of the Event header field in a NOTIFY about the peer's REFER, if one is under way;
    /// `is_last` ends the REFER.
    pub fn refer_event(&mut self, is_last: bool) -> Option<String> {
        let Referral::UnderWay { id } = self.referral else { return None };
        if is_last {
            self.referral = Referral::Over;
        }
        Some(id.map_or_else(|| "refer".to_owned(), |id| format!("refer;id={id}")))
    }

    /// The peer's URI, and the value by which another peer names this dialog in a Replaces header
    /// field (RFC 3891 §6.1).
    pub fn as_replaced(&self) -> (Uri, String) {
        let DialogKey { call_id, local_tag, remote_tag } = &self.key;
        let theirs = remote_tag.as_deref().unwrap_or("0");
        let value = format!("{call_id};to-tag={theirs};from-tag={local_tag}");
        (self.remote_target.clone().without_orders(), value)
    }

    /// Our login at a host that challenges our requests.
    pub fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }

    /// The Request-URI of our requests.
    pub fn request_uri(&self) -> Uri {
        self.routed().0
    }

    /// Our newest session description.
    pub fn description(&self) -> &[u8] {
        &self.description
    }

    /// What a refresh proposes: the value of Session-Expires, and the least interval in seconds
    /// (Min-SE).
    pub fn proposal(&self) -> Option<(String, u32)> {
        Some((self.session?.proposal(self.min_se), self.min_se))
    }

    /// Records whether we opened the stream that the INVITE was sent over; without meaning over
    /// UDP.
    pub fn by_own_stream(mut self, is_own_stream: bool) -> Self {
        self.is_own_stream = is_own_stream;
        self
    }

    /// Records the offer and the login of the call, and the Min-SE of its last INVITE.
    pub fn placed(mut self, description: &[u8], login: Option<&Login>, min_se: u32) -> Self {
        self.description = description.to_vec();
        self.login = login.cloned();
        self.min_se = min_se;
        self
    }
}

impl State {
    /// Whether the session has begun and our side has not hung up.
    fn is_up(&self) -> bool {
        match self {
            Self::Answered { .. }
            | Self::Confirmed
            | Self::Reoffered { .. }
            | Self::Offering { .. } => true,
            Self::Ringing { .. } | Self::Ending => false,
        }
    }
}

impl HangUp {
    /// Hangs up with this value of a Reason header field.
    pub fn because(reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()) }
    }
}

fn takes_update<'a>(mut allow: impl Iterator<Item = &'a str>) -> bool {
    allow.any(|method| method == "UPDATE")
}

/// The parts of the RAck that acknowledges the response with this RSeq to an INVITE (RFC 3262
/// §7.2).
fn rack_of(rseq: u32, cseq: u32) -> [String; 3] {
    [rseq.to_string(), cseq.to_string(), "INVITE".to_owned()]
}
