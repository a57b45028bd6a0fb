//! Calls that we place: the INVITE, what comes back, and forks (RFC 3261 §13.2, RFC 3262 §4).

use std::time::Instant;

use tracing::debug;

use super::{Ending, Endpoint, Event, Loss, Path, asking::warn_unanswered, fresh};
use crate::proto::sip::{
    Status, StatusClass,
    body::SDP,
    dialog::{Dialog, DialogId, HangUp, Hop},
    in_dialog_request::InDialogRequest,
    message::{Method, NameAddr, Response, parse_number},
    outgoing::{Cancellation, Fork, Outgoing, OutgoingCall},
    session_timer::SessionTimer,
    transaction::{InviteAnswer, Sends, TransactionId, TransactionUser, key::MAGIC_COOKIE},
    transmit::Transmit,
};

/// Another target may accept the call after this status (RFC 3263 §4.3): this one is overloaded.
const NO_ROOM: Status = Status::SERVICE_UNAVAILABLE;
/// The key of the fork of a peer that sends no tag.
const UNTAGGED: &str = "";
/// The Reason of the BYE to a fork that answered after another one (RFC 3326 §2).
const ELSEWHERE: &str = "SIP;cause=200;text=\"Call completed elsewhere\"";
/// The Reason of the BYE after a 2xx that makes no dialog (RFC 3326 §2).
const UNUSABLE: &str = "SIP;cause=502;text=\"Bad Gateway\"";

impl Endpoint {
    /// Places a call. Its last event is `Refused` or `Ended`, unless the peer hangs up first.
    pub(super) fn call(&mut self, id: DialogId, call: OutgoingCall, now: Instant) {
        if self.dialogs.is_known(id) {
            debug_assert!(false, "{id:?} is used twice");
            return;
        }
        let local_tag = fresh::tag(&mut self.rng);
        let outgoing = Outgoing::new(call, &local_tag);
        self.dialogs.insert_outgoing(id, outgoing);
        self.send_invite(id, now);
    }

    fn send_invite(&mut self, id: DialogId, now: Instant) {
        let branch = fresh::branch(&mut self.rng);
        let allow = self.responder.allow();
        let Self { dialogs, config, rng, transactions, .. } = self;
        let Some(outgoing) = dialogs.outgoing_mut(id) else { return };
        let Some(way) = outgoing.target() else {
            self.refused(id, Status::SERVICE_UNAVAILABLE, "No way to the peer", Vec::new());
            return;
        };
        outgoing.next_try(rng);
        let origin = |path: Path| outgoing.origin(path, config.sent_by(path), branch.clone());
        let way = (way, outgoing.next_hop_uri());
        let (transmit, is_streamed) = config.packed(way, outgoing.may_stream(), |path| {
            let origin = origin(path);
            outgoing
                .invite(&origin)
                .contact(&config.contact(origin.wants_sips(), path))
                .header("Allow", &allow)
                .header("Supported", config.supported())
                .header("Accept", SDP)
                .header("User-Agent", &config.server_name)
                .body(SDP, outgoing.offer())
                .build()
                .into()
        });
        let origin = origin(transmit.path);
        let (transaction, transmit) = transactions.invite_out(
            origin,
            (TransactionUser::Invite(id), None),
            transmit,
            Sends::Repeatedly,
            now,
        );
        outgoing.sent(transaction, is_streamed);
        self.transmit(transmit);
    }

    /// The owner hangs up a call that is not answered yet.
    pub(super) fn hang_up_outgoing(&mut self, id: DialogId, wish: HangUp, now: Instant) {
        let Some(outgoing) = self.dialogs.outgoing_mut(id) else { return };
        match outgoing.hang_up(wish, now) {
            Cancellation::Now => self.send_cancel(id, now),
            Cancellation::Later | Cancellation::TooLate => debug!(?id, "CANCEL has to wait"),
            Cancellation::Ended => {
                self.tell(Event::Ended { dialog: id, how: Ending::Answered });
            }
        }
    }

    fn send_cancel(&mut self, id: DialogId, now: Instant) {
        let Some(outgoing) = self.dialogs.outgoing(id) else { return };
        let reason = outgoing.reason().map(str::to_owned);
        if let Some(transaction) = outgoing.transaction() {
            self.cancel_invite(transaction, reason.as_deref(), now);
        }
    }

    /// Sends the CANCEL of an INVITE of ours, unless the final response is there (§9.1).
    pub(super) fn cancel_invite(
        &mut self,
        transaction: TransactionId,
        reason: Option<&str>,
        now: Instant,
    ) {
        let cancel = self.transactions.cancel(transaction, reason, &self.config.server_name);
        let Some((branch, cancel)) = cancel else { return };
        let method = Method::Cancel;
        let transmit = self.transactions.request(
            (branch, method.as_str()),
            (TransactionUser::None, None),
            cancel,
            Sends::Repeatedly,
            now,
        );
        self.transmit(transmit);
    }

    /// A canceled INVITE got no final response within 64*T1 (§9.1), or no fork gave a usable answer
    /// in time.
    pub(super) fn outgoing_timeout(&mut self, id: DialogId) {
        if self.give_up_forks(id) {
            return;
        }
        let Some(outgoing) = self.dialogs.remove_outgoing(id) else { return };
        if let Some(transaction) = outgoing.transaction() {
            self.transactions.give_up(transaction);
        }
        self.tell(Event::Ended { dialog: id, how: Ending::TimedOut });
    }

    /// The INVITE got no response in time.
    pub(super) fn invite_timed_out(&mut self, id: DialogId, now: Instant) {
        match self.dialogs.outgoing_mut(id).map(Outgoing::next_target) {
            Some(true) => self.send_invite(id, now),
            Some(false) => {
                self.refused(id, Status::REQUEST_TIMEOUT, "No answer from the peer", Vec::new())
            }
            None => {}
        }
    }

    /// The INVITE could not be delivered.
    pub(super) fn invite_undelivered(&mut self, id: DialogId, now: Instant) {
        match self.dialogs.outgoing_mut(id).map(Outgoing::unreachable) {
            Some(true) => self.send_invite(id, now),
            Some(false) => self.refused(
                id,
                Status::SERVICE_UNAVAILABLE,
                "The peer cannot be reached",
                Vec::new(),
            ),
            None => {}
        }
    }

    /// No further 2xx can come.
    pub(super) fn invite_over(&mut self, id: DialogId) {
        self.give_up_forks(id);
        self.dialogs.remove_outgoing(id);
    }

    /// No fork has given a usable answer: the call has failed. Returns false if none was awaited.
    fn give_up_forks(&mut self, id: DialogId) -> bool {
        let waited = self.dialogs.outgoing_mut(id).is_some_and(Outgoing::give_up_forks);
        if waited {
            self.tell(Event::Lost { dialog: id, how: Loss::Unusable });
            self.tell(Event::Ended { dialog: id, how: Ending::Answered });
        }
        waited
    }

    pub(super) fn handle_invite_response(
        &mut self,
        id: DialogId,
        answer: InviteAnswer,
        response: &Response,
        path: Path,
        now: Instant,
    ) {
        match answer {
            InviteAnswer::Provisional => self.handle_provisional(id, response, path, now),
            InviteAnswer::Accepted => self.handle_acceptance(id, response, path, now),
            InviteAnswer::Refused => self.handle_refusal(id, response, now),
            InviteAnswer::RefusedAgain | InviteAnswer::None => {}
        }
    }

    fn handle_provisional(&mut self, id: DialogId, response: &Response, path: Path, now: Instant) {
        let Some(outgoing) = self.dialogs.outgoing_mut(id) else { return };
        if outgoing.proceed(now) {
            self.send_cancel(id, now);
        }
        let Some(outgoing) = self.dialogs.outgoing(id).filter(|outgoing| !outgoing.is_unwanted())
        else {
            return;
        };
        if response.status() == Status::TRYING || outgoing.winner().is_some() {
            return;
        }
        self.follow(id, response, path);
        self.note_early_answer(id, response);
        if response.lists("Require", "100rel") && !self.acknowledge(id, response, now) {
            return;
        }
        self.tell(Event::Progress { dialog: id, status: response.status(), path });
    }

    /// A provisional response with a tag creates an early dialog (§12.1), up to a limit. One
    /// without a tag, as an RFC 2543 peer sends it, is tracked too: it may bring the answer to our
    /// offer.
    fn follow(&mut self, id: DialogId, response: &Response, path: Path) {
        let Some(outgoing) = self.dialogs.outgoing_mut(id) else { return };
        let tag = response.to().tag().unwrap_or(UNTAGGED);
        let Some((origin, sent_path)) =
            outgoing.transaction().and_then(|tx| self.transactions.pending_invite(tx))
        else {
            return;
        };
        if !outgoing.has_room_for(tag) {
            debug!(?id, "too many forks to follow one more");
        } else if !outgoing.has_fork(tag) {
            let dialog = Dialog::calling(origin, response, sent_path.way_of_answer(path));
            let dialog = dialog.by_own_stream(sent_path.connection.is_none()).placed(
                outgoing.offer(),
                outgoing.login(),
                outgoing.least_interval(),
            );
            outgoing.follow(tag, dialog, None);
        }
    }

    /// Keeps the first description that a provisional response brings. It is the answer to our
    /// offer, and the 2xx need not repeat it (RFC 3261 §13.2.1). That of a reliable response counts
    /// even if the response cannot be acknowledged, because no other may follow.
    fn note_early_answer(&mut self, id: DialogId, response: &Response) {
        let Some(description) = response.description() else { return };
        let tag = response.to().tag().unwrap_or(UNTAGGED);
        if let Some(fork) = self.dialogs.outgoing_mut(id).and_then(|outgoing| outgoing.fork(tag)) {
            fork.early_answer.get_or_insert(description);
        }
    }

    /// Sends the PRACK of a reliable provisional response (RFC 3262 §4). Returns false if the
    /// response is not the next one in order; it must then be ignored. One without an RSeq, or
    /// without a tag, cannot be acknowledged and is treated as an unreliable one.
    fn acknowledge(&mut self, id: DialogId, response: &Response, now: Instant) -> bool {
        let (Some(rseq), Some(tag)) =
            (response.header("RSeq").and_then(parse_number), response.to().tag())
        else {
            debug!(?id, "a reliable response cannot be acknowledged");
            return true;
        };
        let Some(outgoing) = self.dialogs.outgoing_mut(id) else { return false };
        let cseq = outgoing.cseq();
        let Some(fork) = outgoing.fork(tag) else { return false };
        if fork.rseq.is_some_and(|newest| rseq != newest.wrapping_add(1)) {
            debug!(?id, rseq, "reliable response out of order, or again");
            return false;
        }
        fork.rseq = Some(rseq);
        if fork.answer.is_none() {
            fork.answer = response.description();
        }
        let prack = InDialogRequest::new(id, Some(tag.to_owned()), Method::Prack)
            .header("RAck", format!("{rseq} {cseq} INVITE"));
        self.ask_within(prack, TransactionUser::None, now);
        true
    }

    /// A 2xx came: the first one that makes a dialog makes the call, other forks are hung up
    /// (§13.2.2.4).
    fn handle_acceptance(&mut self, id: DialogId, response: &Response, path: Path, now: Instant) {
        let tag = response.to().tag().unwrap_or(UNTAGGED).to_owned();
        let cseq = response.cseq().number;
        let Some(outgoing) = self.dialogs.outgoing_mut(id) else { return };
        if outgoing.winner() == Some(&tag) {
            let ack = self.dialogs.get(id).and_then(|dialog| dialog.sent_ack(cseq));
            if let Some(ack) = ack {
                self.acknowledge_again(ack, path);
            }
            return;
        }
        if let Some(ack) = outgoing.sent_ack(&tag) {
            self.acknowledge_again(ack, path);
            return;
        }
        let Some((origin, sent_path)) =
            outgoing.transaction().and_then(|tx| self.transactions.invite_of(tx))
        else {
            return;
        };
        let fault = response.dialog_fault();
        // If the Contact or the Record-Route cannot be read, the ACK goes back to where the 2xx
        // came from.
        let way = if fault.is_some() { path } else { sent_path.way_of_answer(path) };
        let dialog = Dialog::calling(origin, response, way);
        let dialog = dialog.by_own_stream(sent_path.connection.is_none());
        let mut dialog =
            dialog.placed(outgoing.offer(), outgoing.login(), outgoing.least_interval());
        if let Some(early) = outgoing.fork(&tag) {
            dialog.goes_on_from(&early.dialog);
        }
        if outgoing.winner().is_some() {
            self.hang_up_fork(id, dialog, Some(ELSEWHERE), now);
            return;
        }
        if outgoing.is_over() {
            self.hang_up_fork(id, dialog, None, now);
            return;
        }
        if let Some(fault) = fault.filter(|_| !outgoing.is_unwanted()) {
            debug!(?id, %fault, "a call is answered by what makes no dialog");
            self.hang_up_fork(id, dialog, Some(UNUSABLE), now);
            if let Some(outgoing) = self.dialogs.outgoing_mut(id) {
                outgoing.await_forks(now);
            }
            return;
        }
        // A peer of RFC 2543 may send a tag only after its first responses.
        let early = [outgoing.take_fork(&tag), outgoing.take_fork(UNTAGGED)];
        dialog.session.restart(SessionTimer::accept(response, now));
        let branch = fresh::branch(&mut self.rng);
        if let Some(ack) = self.ack_of(id, &dialog, cseq, &branch) {
            dialog.acknowledged(cseq, ack.clone());
            self.transmit(ack);
        }
        self.dialogs.insert(id, dialog);
        self.keep_way_open(id, now);
        let unwanted = self.dialogs.outgoing_mut(id).and_then(|outgoing| outgoing.win(&tag));
        match unwanted {
            Some(hang_up) => self.hang_up(id, hang_up, now),
            None => {
                // By RFC 3261 §13.2.1 the first description is the answer, and later ones are
                // ignored. Gateways that play an announcement before they connect give another
                // media address in the 200. The audio comes from there, so the description of the
                // 200 takes precedence.
                let early = early.into_iter().flatten().find_map(Fork::into_answer);
                let description = response.description().or(early);
                self.tell(Event::Answered { dialog: id, description, path: way });
            }
        }
    }

    /// The ACK of a 2xx to our first INVITE, with the credentials of that INVITE (§22.1).
    fn ack_of(&self, id: DialogId, dialog: &Dialog, cseq: u32, branch: &str) -> Option<Transmit> {
        let path = self.config.leaving_listener(dialog.target.next_hop());
        let sent_by = self.config.sent_by(path);
        let builder = dialog.request(Method::Ack, cseq, path, Hop { sent_by: &sent_by, branch });
        let builder = self.dialogs.outgoing(id)?.authorized(builder);
        let bytes = builder.header("User-Agent", &self.config.server_name).build().into();
        Some(Transmit::request(path, dialog.target.next_hop_uri(), bytes))
    }

    /// A 2xx came again over `path`, so its ACK is sent again along the same path as before. If the
    /// 2xx came over another stream, the ACK goes over that stream too: the first path may lose the
    /// ACK unnoticed, and the sender of the 2xx is at the other end of that stream.
    pub(super) fn acknowledge_again(&mut self, ack: Transmit, path: Path) {
        let went = ack.path;
        let is_other = path.connection.is_some() && path.connection != went.connection;
        self.transmit(ack.clone());
        // The Via of the ACK names the transport (§18.1.1), so only the same transport can be used.
        if is_other && path.transport == went.transport {
            self.transmit(Transmit { path, ..ack });
        }
    }

    /// A fork that is not the call has answered: it gets ACK, then BYE, and no event follows. If
    /// there are too many forks to remember, each 2xx is treated as the first one of its fork and
    /// gets the same ACK and BYE.
    fn hang_up_fork(
        &mut self,
        id: DialogId,
        mut dialog: Dialog,
        reason: Option<&str>,
        now: Instant,
    ) {
        let Some(outgoing) = self.dialogs.outgoing(id) else { return };
        let remote_tag = dialog.key().remote_tag.clone();
        let tag = remote_tag.as_deref().unwrap_or(UNTAGGED);
        let cseq = outgoing.cseq();
        let is_remembered = outgoing.has_room_for(tag);
        let name = outgoing.name();
        let branch_of = |method: Method| {
            format!("{MAGIC_COOKIE}{}", self.responder.tag_of(&(&name, cseq, tag, method.as_str())))
        };
        let (ack_branch, bye_branch) = (branch_of(Method::Ack), branch_of(Method::Bye));
        let Some(ack) = self.ack_of(id, &dialog, cseq, &ack_branch) else { return };
        self.transmit(ack.clone());
        if is_remembered {
            if let Some(outgoing) = self.dialogs.outgoing_mut(id) {
                outgoing.follow(tag, dialog, Some(ack));
            }
            let bye = InDialogRequest::new(id, Some(tag.to_owned()), Method::Bye);
            let bye = reason.into_iter().fold(bye, |bye, reason| bye.header("Reason", reason));
            self.ask_within(bye, TransactionUser::None, now);
            return;
        }
        let path = self.config.leaving_listener(dialog.target.next_hop());
        let cseq = dialog.next_cseq();
        let sent_by = self.config.sent_by(path);
        let hop = Hop { sent_by: &sent_by, branch: &bye_branch };
        let bye = dialog.request(Method::Bye, cseq, path, hop);
        let bye = reason.into_iter().fold(bye, |bye, reason| bye.header("Reason", reason));
        let bye = bye.header("User-Agent", &self.config.server_name).build().into();
        self.transmit(Transmit::request(path, dialog.target.next_hop_uri(), bye));
    }

    fn handle_refusal(&mut self, id: DialogId, response: &Response, now: Instant) {
        let status = response.status();
        let Some(outgoing) = self.dialogs.outgoing_mut(id) else { return };
        let again = match status {
            Status::UNAUTHORIZED | Status::PROXY_AUTHENTICATION_REQUIRED => {
                outgoing.challenged(response, &mut self.rng).unwrap_or_else(|error| {
                    warn_unanswered(response.call_id(), error);
                    false
                })
            }
            Status::SESSION_INTERVAL_TOO_SMALL => {
                least_session(response).is_some_and(|least| outgoing.lengthen_session(least))
            }
            NO_ROOM => outgoing.next_target(),
            Status::NOT_FOUND | Status::REQUEST_TIMEOUT | Status::TEMPORARILY_UNAVAILABLE => {
                outgoing.next_place()
            }
            _ if status.class() == StatusClass::ServerError => outgoing.next_place(),
            _ => false,
        };
        if again {
            self.send_invite(id, now);
            return;
        }
        let contacts = if status.class() == StatusClass::Redirection {
            response.contacts().to_vec()
        } else {
            Vec::new()
        };
        let reason = match response.reason() {
            "" => status.reason(),
            reason => reason,
        };
        self.refused(id, status, reason, contacts);
    }

    /// The call failed. If the owner has hung up already, the event is `Ended`.
    fn refused(&mut self, id: DialogId, status: Status, reason: &str, contacts: Vec<NameAddr>) {
        let Some(outgoing) = self.dialogs.remove_outgoing(id) else { return };
        let event = if outgoing.is_unwanted() {
            Event::Ended { dialog: id, how: Ending::Answered }
        } else {
            Event::Refused { dialog: id, status, reason: reason.to_owned(), contacts }
        };
        self.tell(event);
    }
}

/// The minimum session interval that a 422 names, in seconds (RFC 4028 §5).
pub(super) fn least_session(response: &Response) -> Option<u32> {
    parse_number(response.header("Min-SE")?.split(';').next()?.trim())
}
