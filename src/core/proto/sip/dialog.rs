//! Dialogs (RFC 3261 §12): the state that two peers share, whichever of them called.
//!
//! Comes in: in-dialog requests, decisions of the call's owner, time. Goes out: our in-dialog
//! requests, ready to be printed; the 2xx that is sent again until its ACK comes (§13.3.1.4); and a
//! verdict on what may happen at which moment. The dialog opens no transactions; the endpoint does.

mod allowance;
mod hop_rule;
mod key;
mod refer;
mod reliable;
mod session;
mod target;

use std::time::Instant;

use bytes::Bytes;
use tracing::debug;

pub(super) use self::{allowance::allowed_for, key::DialogKey};
use self::{
    refer::{ReceivedRefer, SentRefer},
    reliable::{ReliableDue, ReliableProvisional},
    session::SessionRefresh,
    target::RemoteTarget,
};
pub use super::dialog_id::DialogId;
use super::{
    Status,
    login::Login,
    message::{Method, NameAddr, Request, RequestBuilder, Response},
    path::Path,
    session_timer::{LeastInterval, SessionDue},
    standing::Standing,
    timers::{Retransmission, SIXTY_FOUR_T1},
    transaction::{Origin, TransactionId},
    transmit::Transmit,
    uri::{Uri, Via},
};

/// State of one dialog: what both sides agreed on, and how far it has got. The public parts are
/// machines of their own; what concerns several of them, or the state of the dialog, is a method
/// here.
#[derive(Debug)]
pub(super) struct Dialog {
    key: DialogKey,
    /// Our address with our tag.
    local: NameAddr,
    /// The peer's address with its tag.
    remote: NameAddr,
    /// Our Contact is a SIPS URI (§12.2.1.1).
    is_sips: bool,
    local_cseq: u32,
    /// CSeq of the peer's newest request; `None` before its first.
    remote_cseq: Option<u32>,
    /// Where our requests go.
    pub target: RemoteTarget,
    /// How the session is refreshed.
    pub session: SessionRefresh,
    /// Our REFER.
    pub sent_refer: SentRefer,
    /// The peer's REFER.
    pub received_refer: ReceivedRefer,
    /// Our login at a trunk that challenges in-dialog requests.
    login: Option<Login>,
    /// Our newest re-INVITE; it may still be unanswered when the dialog ends.
    reinvite: Option<TransactionId>,
    /// The ACK of the newest INVITE of ours, sent again whenever its 2xx comes again (§13.2.2.4).
    ack: Option<(u32, Transmit)>,
    /// The reliable provisional response that has no PRACK yet. The PRACK may come after the 2xx
    /// (RFC 3262 §3), when the response itself is not sent again any more.
    reliable: Option<ReliableProvisional>,
    state: DialogState,
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
enum DialogState {
    /// The first INVITE is not answered.
    Ringing { pending: Pending },
    /// The 2xx to the INVITE or re-INVITE with `cseq` has no ACK yet.
    Answered {
        cseq: u32,
        transaction: TransactionId,
        /// The topmost Via of the INVITE.
        via: Box<Via>,
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
    pub(super) fn status(self) -> Status {
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
pub(super) enum DialogDue {
    /// The 2xx, or the reliable provisional response, has to be sent again.
    Resend(Transmit),
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
    /// Makes the dialog of the INVITE `pending` for our side, the callee (§12.1.1). The INVITE took
    /// `path` and has a size of `heard` bytes.
    pub(super) fn called(
        pending: Pending,
        local_tag: String,
        contact: Uri,
        (path, heard): (Path, usize),
        caller: Standing,
    ) -> Self {
        let request = &pending.request;
        let key = DialogKey {
            call_id: request.call_id().to_owned(),
            local_tag: local_tag.clone(),
            remote_tag: request.from().tag().map(str::to_owned),
        };
        Self {
            key,
            local: request.to().with_tag(&local_tag),
            remote: request.from().clone(),
            is_sips: request.wants_sips(),
            local_cseq: 0,
            remote_cseq: Some(request.cseq().number),
            target: RemoteTarget::of_caller(request, contact, (path, heard), caller),
            session: SessionRefresh::new(request.headers("Allow")),
            sent_refer: SentRefer::default(),
            received_refer: ReceivedRefer::new(caller.is_identified()),
            login: None,
            reinvite: None,
            ack: None,
            reliable: None,
            state: DialogState::Ringing { pending },
        }
    }

    /// Makes the dialog that `response` creates for our INVITE, on our side, the caller (§12.1.2).
    /// `path` is the path of the INVITE. The state is `Confirmed` even for an early dialog: an
    /// early dialog is only used to send requests.
    pub(super) fn calling(origin: &Origin, response: &Response, path: Path) -> Self {
        Self {
            key: DialogKey {
                call_id: origin.call_id.clone(),
                local_tag: origin.from.tag().unwrap_or_default().to_owned(),
                remote_tag: response.to().tag().map(str::to_owned),
            },
            local: origin.from.clone(),
            remote: response.to().clone(),
            is_sips: origin.wants_sips(),
            local_cseq: origin.cseq,
            remote_cseq: None,
            target: RemoteTarget::of_callee(origin, response, path),
            session: SessionRefresh::new(response.headers("Allow")),
            sent_refer: SentRefer::default(),
            received_refer: ReceivedRefer::new(true),
            login: None,
            reinvite: None,
            ack: None,
            reliable: None,
            state: DialogState::Confirmed,
        }
    }

    /// Records whether we opened the stream that the INVITE was sent over; without meaning over
    /// UDP.
    pub(super) fn by_own_stream(mut self, is_own_stream: bool) -> Self {
        self.target.set_own_stream(is_own_stream);
        self
    }

    /// Records the offer and the login of the call, and the least interval of its last INVITE.
    pub(super) fn placed(
        mut self,
        description: &[u8],
        login: Option<&Login>,
        least: LeastInterval,
    ) -> Self {
        self.session.offered(description, least);
        self.login = login.cloned();
        self
    }

    /// Takes over both CSeq counters of the early dialog: the 2xx that made this dialog was not the
    /// first response of its peer. All else is as the 2xx says (§13.2.2.4).
    pub(super) fn goes_on_from(&mut self, early: &Self) {
        self.local_cseq = early.local_cseq;
        self.remote_cseq = early.remote_cseq;
        self.session.takes_update |= early.session.takes_update;
    }

    // -- the peer's requests -----------------------------------------------------------------

    /// Judges whether a request of the peer comes at the right moment, and notes its CSeq.
    pub(super) fn admit(&mut self, request: &Request) -> Result<(), Untimely> {
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
            (DialogState::Ending, _) => Err(Untimely::Over),
            _ if !is_offer => Ok(()),
            (DialogState::Ringing { .. } | DialogState::Reoffered { .. }, _) => {
                Err(Untimely::Unanswered)
            }
            (DialogState::Answered { .. } | DialogState::Offering { .. }, _) => {
                Err(Untimely::Glare)
            }
            (DialogState::Confirmed, _) => Ok(()),
        }
    }

    /// A re-INVITE, or an UPDATE with an offer, was admitted and waits for its answer.
    pub(super) fn reoffered(&mut self, pending: Pending) {
        debug_assert!(matches!(self.state, DialogState::Confirmed), "{:?}", self.state);
        self.state = DialogState::Reoffered { pending };
    }

    /// `response`, a reliable provisional response with this RSeq, was sent to the pending INVITE.
    pub(super) fn rang_reliably(&mut self, rseq: u32, response: Bytes, now: Instant) {
        if let DialogState::Ringing { pending } = &self.state {
            let cseq = pending.request.cseq().number;
            self.reliable = Some(ReliableProvisional::sent(rseq, cseq, response, now));
        }
    }

    /// A PRACK came with this RAck (RFC 3262 §3); returns whether it acknowledges our response.
    pub(super) fn handle_prack(&mut self, rack: &str) -> bool {
        self.reliable.take_if(|sent| sent.is_acknowledged_by(rack)).is_some()
    }

    /// Whether a reliable provisional response waits for its PRACK.
    pub(super) fn awaits_prack(&self) -> bool {
        self.is_ringing() && self.reliable.is_some()
    }

    /// `response`, a 2xx that carried `description`, was sent to the pending request.
    pub(super) fn answered(&mut self, response: Bytes, description: &[u8], now: Instant) {
        let Pending { request, transaction } =
            match std::mem::replace(&mut self.state, DialogState::Confirmed) {
                DialogState::Ringing { pending } | DialogState::Reoffered { pending } => pending,
                state @ (DialogState::Answered { .. }
                | DialogState::Confirmed
                | DialogState::Offering { .. }
                | DialogState::Ending) => {
                    debug_assert!(false, "nothing to answer in {state:?}");
                    self.state = state;
                    return;
                }
            };
        self.session.description = description.to_vec();
        if *request.method() == Method::Update {
            return;
        }
        self.state = DialogState::Answered {
            cseq: request.cseq().number,
            transaction,
            via: Box::new(request.into_top_via()),
            response,
            resend: Retransmission::start(now),
            until: now + SIXTY_FOUR_T1,
            hang_up: None,
        };
    }

    /// The pending offer was refused: the session stays as it was (§14.1).
    pub(super) fn reoffer_refused(&mut self) {
        debug_assert!(matches!(self.state, DialogState::Reoffered { .. }), "{:?}", self.state);
        self.state = DialogState::Confirmed;
    }

    /// An ACK came for the INVITE with `cseq`.
    pub(super) fn handle_ack(&mut self, ack_cseq: u32) -> Acknowledgement {
        match &mut self.state {
            DialogState::Answered { cseq, hang_up, .. } if *cseq == ack_cseq => {
                match hang_up.take() {
                    Some(hang_up) => {
                        self.state = DialogState::Ending;
                        Acknowledgement::HangUp(hang_up)
                    }
                    None => {
                        self.state = DialogState::Confirmed;
                        Acknowledgement::Expected
                    }
                }
            }
            DialogState::Answered { .. }
            | DialogState::Ringing { .. }
            | DialogState::Confirmed
            | DialogState::Reoffered { .. }
            | DialogState::Offering { .. }
            | DialogState::Ending => {
                debug!(cseq = ack_cseq, "stray ACK is dropped");
                Acknowledgement::Stray
            }
        }
    }

    // -- our requests ------------------------------------------------------------------------

    /// Our side wants to hang up.
    pub(super) fn hang_up(&mut self, wish: HangUp) -> Parting {
        match &mut self.state {
            DialogState::Ringing { pending } => Parting::Refuse(pending.clone()),
            DialogState::Answered { hang_up, .. } => {
                hang_up.get_or_insert(wish);
                Parting::Later
            }
            DialogState::Confirmed | DialogState::Offering { .. } => {
                self.state = DialogState::Ending;
                Parting::Bye(None)
            }
            DialogState::Reoffered { pending } => {
                let pending = pending.clone();
                self.state = DialogState::Ending;
                Parting::Bye(Some(pending))
            }
            DialogState::Ending => Parting::Already,
        }
    }

    /// The CSeq of our next request in the dialog (§12.2.1.1).
    pub(super) fn next_cseq(&mut self) -> u32 {
        self.local_cseq = self.local_cseq.saturating_add(1);
        self.local_cseq
    }

    /// Builds an in-dialog request of ours for this path (§12.2.1.1). The ACK of a 2xx has the CSeq
    /// of its INVITE (§13.2.2.4).
    pub(super) fn request(
        &self,
        method: Method,
        cseq: u32,
        path: Path,
        hop: Hop<'_>,
    ) -> RequestBuilder {
        let (request_uri, routes) = self.target.routed();
        let builder = RequestBuilder::new(method, request_uri)
            .via(path.transport.name(), hop.sent_by, hop.branch)
            .from(&self.local)
            .to(&self.remote)
            .call_id(&self.key.call_id)
            .cseq(cseq);
        routes.iter().fold(builder, |builder, route| builder.route(route))
    }

    /// The parts of an INVITE of ours in this dialog that its ACK and CANCEL repeat.
    pub(super) fn origin(&self, cseq: u32, path: Path, hop: Hop<'_>) -> Origin {
        let (uri, routes) = self.target.routed();
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
    pub(super) fn acknowledged(&mut self, cseq: u32, ack: Transmit) {
        if self.is_offering(cseq) {
            self.state = DialogState::Confirmed;
        }
        self.ack = Some((cseq, ack));
    }

    /// The ACK of our INVITE with `cseq`, if it was sent already.
    pub(super) fn sent_ack(&self, cseq: u32) -> Option<Transmit> {
        self.ack.as_ref().filter(|(number, _)| *number == cseq).map(|(_, ack)| ack.clone())
    }

    /// Whether a re-INVITE of ours may go out, for the first time or once more.
    pub(super) fn may_offer(&self) -> bool {
        matches!(self.state, DialogState::Confirmed | DialogState::Offering { .. })
    }

    /// Our re-INVITE with `cseq` was sent.
    pub(super) fn offering(&mut self, cseq: u32, reinvite: TransactionId) {
        debug_assert!(self.may_offer(), "{:?}", self.state);
        self.state = DialogState::Offering { cseq, until: None };
        self.reinvite = Some(reinvite);
    }

    /// Whether our re-INVITE with `cseq` waits for its answer.
    pub(super) fn is_offering(&self, cseq: u32) -> bool {
        matches!(self.state, DialogState::Offering { cseq: offered, .. } if offered == cseq)
    }

    /// Our re-INVITE with the CSeq `heard` got a provisional response. Returns whether its answer
    /// is still awaited; the wait then ends 64*T1 from now.
    pub(super) fn offer_heard(&mut self, heard: u32, now: Instant) -> bool {
        match &mut self.state {
            DialogState::Offering { cseq, until } if *cseq == heard => {
                *until = Some(now + SIXTY_FOUR_T1);
                true
            }
            DialogState::Offering { .. }
            | DialogState::Ringing { .. }
            | DialogState::Answered { .. }
            | DialogState::Confirmed
            | DialogState::Reoffered { .. }
            | DialogState::Ending => false,
        }
    }

    /// Our newest re-INVITE, answered or not.
    pub(super) fn reinvite(&self) -> Option<TransactionId> {
        self.reinvite
    }

    /// Our re-INVITE was refused, or got no answer in time.
    pub(super) fn offer_refused(&mut self) {
        if matches!(self.state, DialogState::Offering { .. }) {
            self.state = DialogState::Confirmed;
        }
    }

    // -- time --------------------------------------------------------------------------------

    /// The deadline has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<DialogDue> {
        let path = self.target.path();
        match &mut self.state {
            DialogState::Answered { via, response, resend, until, hang_up, .. } => {
                if *until <= now {
                    let hang_up = hang_up
                        .take()
                        .unwrap_or_else(|| HangUp::because("SIP;cause=408;text=\"ACK missing\""));
                    self.state = DialogState::Ending;
                    return Some(DialogDue::Unacknowledged(hang_up));
                }
                if resend.due() <= now {
                    resend.sent(now);
                    let fits = self.target.allowance.take(response.len());
                    let again = fits.then(|| Transmit::response(path, via, response.clone()));
                    return again.map(DialogDue::Resend);
                }
            }
            DialogState::Ringing { pending } => {
                match self.reliable.as_mut()?.handle_timeout(now)? {
                    ReliableDue::NotPracked => return Some(DialogDue::NotPracked),
                    ReliableDue::Resend(response) => {
                        let fits = self.target.allowance.take_provisional(response.len());
                        let via = pending.request.top_via();
                        let again = fits.then(|| Transmit::response(path, via, response));
                        return again.map(DialogDue::Resend);
                    }
                }
            }
            DialogState::Offering { until: Some(until), .. } if *until <= now => {
                self.state = DialogState::Confirmed;
                return self.reinvite.map(DialogDue::Unanswered);
            }
            DialogState::Confirmed
            | DialogState::Reoffered { .. }
            | DialogState::Offering { .. }
            | DialogState::Ending => {}
        }
        if !self.state.is_up() {
            return None;
        }
        if self.sent_refer.handle_timeout(now) {
            return Some(DialogDue::ReferOver);
        }
        match self.session.handle_timeout(now)? {
            SessionDue::Refresh => Some(DialogDue::Refresh),
            SessionDue::Expired => {
                let hang_up = HangUp::because("SIP;cause=408;text=\"Session expired\"");
                match std::mem::replace(&mut self.state, DialogState::Ending) {
                    DialogState::Reoffered { pending } => {
                        Some(DialogDue::Expired(Some(pending), hang_up))
                    }
                    _ => Some(DialogDue::Expired(None, hang_up)),
                }
            }
        }
    }

    /// When `handle_timeout` has to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let state = match &self.state {
            DialogState::Answered { resend, until, .. } => Some(resend.due().min(*until)),
            DialogState::Ringing { .. } => {
                self.reliable.as_ref().map(ReliableProvisional::poll_timeout)
            }
            DialogState::Offering { until, .. } => *until,
            DialogState::Confirmed | DialogState::Reoffered { .. } | DialogState::Ending => None,
        };
        let while_up = if self.state.is_up() {
            [self.session.poll_timeout(), self.sent_refer.poll_timeout()]
        } else {
            [None, None]
        };
        while_up.into_iter().chain([state]).flatten().min()
    }

    // -- what is known -----------------------------------------------------------------------

    /// The request with an offer that is not answered yet.
    pub(super) fn pending(&self) -> Option<&Pending> {
        match &self.state {
            DialogState::Ringing { pending } | DialogState::Reoffered { pending } => Some(pending),
            DialogState::Answered { .. }
            | DialogState::Confirmed
            | DialogState::Offering { .. }
            | DialogState::Ending => None,
        }
    }

    /// Whether the first INVITE is not answered yet.
    pub(super) fn is_ringing(&self) -> bool {
        matches!(self.state, DialogState::Ringing { .. })
    }

    /// Whether the session has begun, no ACK to a 2xx of ours is missing, and our side has not hung
    /// up.
    pub(super) fn is_up(&self) -> bool {
        self.state.is_up() && !matches!(self.state, DialogState::Answered { .. })
    }

    /// The 2xx that waits for its ACK.
    pub(super) fn unacknowledged(&self) -> Option<Transmit> {
        match &self.state {
            DialogState::Answered { via, response, .. } => {
                Some(Transmit::response(self.target.path(), via, response.clone()))
            }
            DialogState::Ringing { .. }
            | DialogState::Confirmed
            | DialogState::Reoffered { .. }
            | DialogState::Offering { .. }
            | DialogState::Ending => None,
        }
    }

    /// The INVITE that was answered, while no message has shown yet that its caller receives ours.
    pub(super) fn half_open_invite(&self) -> Option<TransactionId> {
        match &self.state {
            DialogState::Answered { transaction, .. } if self.target.is_half_open() => {
                Some(*transaction)
            }
            DialogState::Answered { .. }
            | DialogState::Ringing { .. }
            | DialogState::Confirmed
            | DialogState::Reoffered { .. }
            | DialogState::Offering { .. }
            | DialogState::Ending => None,
        }
    }

    /// Whether no offer is pending, no ACK is missing, and our side has not hung up.
    pub(super) fn is_confirmed(&self) -> bool {
        matches!(self.state, DialogState::Confirmed)
    }

    /// Whether our side has hung up.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self.state, DialogState::Ending)
    }

    /// Call-ID and tags of the dialog.
    pub(super) fn key(&self) -> &DialogKey {
        &self.key
    }

    /// Whether our Contact is a SIPS URI.
    pub(super) fn is_sips(&self) -> bool {
        self.is_sips
    }

    /// Whether the call is up and the peer is behind a NAT, which must keep its mapping while the
    /// call lasts.
    pub(super) fn needs_keep_alive(&self) -> bool {
        !self.is_ringing() && !self.is_ending() && self.target.is_behind_nat()
    }

    /// The peer sent a REFER with this CSeq, and may have authenticated in it (`is_proved`).
    ///
    /// # Errors
    /// The status of the refusal.
    pub(super) fn refer_asked(&mut self, cseq: u32, is_proved: bool) -> Result<(), Status> {
        if self.state.is_up() {
            self.received_refer.accept(cseq, is_proved)
        } else {
            Err(Status::DECLINE)
        }
    }

    /// The peer's URI, and the value by which another peer names this dialog in a Replaces header
    /// field (RFC 3891 §6.1).
    pub(super) fn as_replaced(&self) -> (Uri, String) {
        let DialogKey { call_id, local_tag, remote_tag } = &self.key;
        let theirs = remote_tag.as_deref().unwrap_or("0");
        let value = format!("{call_id};to-tag={theirs};from-tag={local_tag}");
        (self.target.uri().clone().without_orders(), value)
    }

    /// Our login at a host that challenges our requests.
    pub(super) fn login(&self) -> Option<&Login> {
        self.login.as_ref()
    }
}

impl DialogState {
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
    pub(super) fn because(reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()) }
    }
}
