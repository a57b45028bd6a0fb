//! Our own requests within an established dialog: the refresh of its session (RFC 4028 §10).

use std::time::Instant;

use tracing::debug;

use super::{Endpoint, Event, Loss, Path, calling::least_session, fresh};
use crate::proto::sip::{
    Status,
    body::SDP,
    dialog::{DialogId, HangUp, Hop},
    in_dialog_request::InDialogRequest,
    message::{Method, Response},
    session_timer::SessionTimer,
    timers::SIXTY_FOUR_T1,
    transaction::{TransactionId, TransactionUser},
    transmit::Transmit,
};

impl Endpoint {
    /// Refreshes the session: by UPDATE if the peer supports it, because that changes nothing;
    /// otherwise by a re-INVITE with the current description.
    pub(super) fn refresh(&mut self, id: DialogId, now: Instant) {
        let pause = fresh::glare_pause(id, &mut self.rng);
        let allow = self.responder.allow();
        let Some(dialog) = self.dialogs.get_mut(id) else { return };
        let Some((proposal, least)) = dialog.session.proposal() else { return };
        let by_update = dialog.session.takes_update;
        if !by_update && !dialog.is_confirmed() {
            // The peer is changing the session, which refreshes it too.
            dialog.session.postpone(now + pause);
            return;
        }
        let method = if by_update { Method::Update } else { Method::Invite };
        let in_dialog = InDialogRequest::new(id, dialog.key().remote_tag.clone(), method)
            .with_contact()
            .header("Allow", allow)
            .header("Supported", self.config.supported())
            .header("Session-Expires", proposal)
            .header("Min-SE", least.to_string());
        if by_update {
            self.ask_within(in_dialog, TransactionUser::Update(id), now);
        } else {
            let in_dialog = in_dialog.body(SDP, &dialog.session.description);
            self.ask_within(in_dialog, TransactionUser::Reinvite(id), now);
        }
    }

    /// Our UPDATE got its final response.
    pub(super) fn update_answered(&mut self, id: DialogId, response: &Response, now: Instant) {
        if !response.status().is_refusal()
            && let Some(dialog) = self.dialogs.get_mut(id)
        {
            // RFC 3311 §5.1: the response may change the remote target.
            let contact = response.contacts().first().map(|contact| contact.uri());
            dialog.target.refresh(contact, dialog.target.path());
        }
        self.refresh_answered(id, response, now);
    }

    /// Our re-INVITE got a provisional response. From now on its transaction has a deadline, so
    /// that it is not kept forever by a peer that sends nothing more, or for a call that is over.
    pub(super) fn reinvite_heard(
        &mut self,
        id: DialogId,
        (cseq, transaction): (u32, TransactionId),
        now: Instant,
    ) {
        if !self.dialogs.get_mut(id).is_some_and(|dialog| dialog.offer_heard(cseq, now)) {
            self.transactions.give_up_by(transaction, now + SIXTY_FOUR_T1);
        }
    }

    /// Our re-INVITE got a provisional but no final response in time: this counts as a refused
    /// refresh (§9.1).
    pub(super) fn reinvite_unanswered(
        &mut self,
        id: DialogId,
        transaction: TransactionId,
        now: Instant,
    ) {
        self.cancel_invite(transaction, None, now);
        self.transactions.give_up_by(transaction, now + SIXTY_FOUR_T1);
        self.refresh_failed(id, now);
    }

    /// Our re-INVITE got a final response; each copy of a 2xx gets an ACK (§13.2.2.4).
    pub(super) fn reinvite_answered(
        &mut self,
        id: DialogId,
        response: &Response,
        path: Path,
        now: Instant,
    ) {
        let cseq = response.cseq().number;
        if response.status().is_refusal() {
            // A canceled re-INVITE is refused too, and another one may be pending by then.
            if let Some(dialog) = self.dialogs.get_mut(id).filter(|it| it.is_offering(cseq)) {
                dialog.offer_refused();
                self.refresh_answered(id, response, now);
            }
            return;
        }
        let branch = fresh::branch(&mut self.rng);
        let Some(dialog) = self.dialogs.get_mut(id) else { return };
        if let Some(ack) = dialog.sent_ack(cseq) {
            if dialog.target.allowance.take(ack.bytes.len()) {
                self.acknowledge_again(ack, path);
            }
            return;
        }
        let contact = response.contacts().first().map(|contact| contact.uri());
        dialog.target.refresh(contact, dialog.target.path());
        let path = self.config.leaving_listener(dialog.target.next_hop());
        let sent_by = self.config.sent_by(path);
        let hop = Hop { sent_by: &sent_by, branch: &branch };
        let ack = dialog.request(Method::Ack, cseq, path, hop);
        let bytes = ack.header("User-Agent", &self.config.server_name).build().into();
        let ack = Transmit::request(path, dialog.target.next_hop_uri(), bytes);
        dialog.acknowledged(cseq, ack.clone());
        let is_ending = dialog.is_ending();
        // The path is that of the newest message, whose source may be forged: an unproven address
        // gets the ACK only within its allowance.
        if dialog.target.allowance.take(ack.bytes.len()) {
            self.transmit(ack);
        }
        if let Some(description) = response.description().filter(|_| !is_ending) {
            self.tell(Event::Refreshed { dialog: id, description });
        }
        self.refresh_answered(id, response, now);
    }

    fn refresh_answered(&mut self, id: DialogId, response: &Response, now: Instant) {
        let pause = fresh::glare_pause(id, &mut self.rng);
        let Some(dialog) = self.dialogs.get_mut(id).filter(|dialog| !dialog.is_ending()) else {
            return;
        };
        let is_update = response.cseq().method == Method::Update;
        match response.status() {
            status if status.is_success() => {
                dialog.session.restart(SessionTimer::accept(response, now));
            }
            // §12.2.1.2: the peer does not know the dialog, or does not answer.
            Status::REQUEST_TIMEOUT | Status::CALL_DOES_NOT_EXIST => self.lost_sight(id, now),
            // §14.1: both sides made an offer at once.
            Status::REQUEST_PENDING => dialog.session.postpone(now + pause),
            Status::SESSION_INTERVAL_TOO_SMALL
                if least_session(response).is_some_and(|least| dialog.session.lengthen(least)) =>
            {
                self.refresh(id, now);
            }
            // The peer does not support UPDATE; a re-INVITE is always supported.
            Status::METHOD_NOT_ALLOWED | Status::NOT_IMPLEMENTED if is_update => {
                dialog.session.takes_update = false;
                self.refresh(id, now);
            }
            status => {
                debug!(
                    ?id,
                    status = status.code(),
                    "the session could not be refreshed; again later"
                );
                dialog.session.refused(now);
            }
        }
    }

    /// Our refresh could not be delivered or was not answered; it is tried again later.
    pub(super) fn refresh_failed(&mut self, id: DialogId, now: Instant) {
        let Some(dialog) = self.dialogs.get_mut(id).filter(|dialog| !dialog.is_ending()) else {
            return;
        };
        dialog.offer_refused();
        dialog.session.refused(now);
    }

    /// The peer did not answer, or does not know the dialog.
    pub(super) fn lost_sight(&mut self, id: DialogId, now: Instant) {
        let Some(dialog) = self.dialogs.get_mut(id).filter(|dialog| !dialog.is_ending()) else {
            return;
        };
        dialog.offer_refused();
        let hang_up = HangUp::because("SIP;cause=481;text=\"Call not known any more\"");
        // The state of the dialog decides whether BYE can be sent at once; the owner gets the event
        // in any case.
        self.tell(Event::Lost { dialog: id, how: Loss::NotKnown });
        self.hang_up(id, hang_up, now);
    }

    /// The dialog ends because the peer is gone: sends BYE and tells the owner.
    pub(super) fn lose(&mut self, id: DialogId, how: Loss, hang_up: HangUp, now: Instant) {
        self.tell(Event::Lost { dialog: id, how });
        self.send_bye(id, hang_up, now);
    }
}
