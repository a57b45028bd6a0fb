//! Sends responses: with or without a transaction, and to an unproven address within its allowance.

use std::time::Instant;

use bytes::Bytes;
use tracing::debug;

use super::{Endpoint, Path, arrived::Arrived, fresh, responder::fitted};
use crate::proto::sip::{
    Status,
    dialog::{DialogId, Pending, allowed_for},
    message::{Method, ResponseBuilder},
    path::Transport,
    transaction::{Invite, TransactionId},
    transmit::{NextHop, Transmit},
    validate::Refusal,
};

impl Endpoint {
    /// Answers without keeping state (§8.2.7).
    pub(super) fn answer_stateless(&mut self, arrived: &Arrived, status: Status) {
        let response = self.responder.response(&arrived.request, status);
        self.send_stateless(arrived, &response);
    }

    /// Refuses a request without a transaction. An ACK is never answered.
    pub(super) fn refuse_stateless(&mut self, arrived: &Arrived, refusal: &Refusal) {
        if *arrived.method() == Method::Ack {
            return;
        }
        let response = self.responder.refusal(&arrived.request, refusal);
        self.send_stateless(arrived, &response);
    }

    /// Sends a response without keeping state. Over UDP the source address may be forged, so the
    /// response is at most one and a half times as long as the request: optional header fields are
    /// left out, and a request smaller than any phone would send gets no response.
    pub(super) fn send_stateless(&mut self, arrived: &Arrived, response: &[u8]) {
        let next_hop = NextHop::of_response(arrived.path, arrived.request.top_via());
        self.send_within(allowed_for(arrived.bytes), (arrived.path, next_hop), response);
    }

    /// Sends a response without keeping state, over UDP in at most `room` bytes.
    pub(super) fn send_within(
        &mut self,
        room: usize,
        (path, next_hop): (Path, NextHop),
        response: &[u8],
    ) {
        let room = match path.transport {
            Transport::Udp => room,
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => usize::MAX,
        };
        match fitted(response, room) {
            Some(bytes) => self.transmit(Transmit { path, next_hop, bytes }),
            None => debug!(peer = %path.peer, "no answer is small enough"),
        }
    }

    /// Answers a request other than INVITE in its own transaction.
    pub(super) fn answer_stateful(&mut self, arrived: Arrived, status: Status) {
        let response = self.responder.response(&arrived.request, status);
        self.answer_in_transaction(arrived, response);
    }

    /// Refuses a request other than INVITE in its own transaction.
    pub(super) fn refuse_with(&mut self, arrived: Arrived, refusal: &Refusal) {
        let response = self.responder.refusal(&arrived.request, refusal);
        self.answer_in_transaction(arrived, response);
    }

    pub(super) fn answer_in_transaction(&mut self, arrived: Arrived, response: Bytes) {
        let Some(response) = self.fitted_to_peer(arrived.limited, response) else { return };
        let Arrived { request, key, path, now, .. } = arrived;
        let way = (path, request.top_via());
        if let Some(transmit) = self.transactions.answer(key, way, response, now) {
            self.transmit(transmit);
        }
    }

    /// Shortens a response to the allowance of the dialog `limited`, and takes its length from that
    /// allowance. `None` if it cannot be shortened enough.
    fn fitted_to_peer(&mut self, limited: Option<DialogId>, response: Bytes) -> Option<Bytes> {
        let dialog = limited.and_then(|id| self.dialogs.get_mut(id));
        let Some((dialog, room)) =
            dialog.and_then(|dialog| dialog.target.allowance.room().map(|room| (dialog, room)))
        else {
            return Some(response);
        };
        let fitted = fitted(&response, room)?;
        dialog.target.allowance.take(fitted.len());
        Some(fitted)
    }

    /// Refuses a request within a dialog, in a transaction that repeats the refusal.
    pub(super) fn refuse_stateful(&mut self, arrived: Arrived, status: Status) {
        match (arrived.method(), status) {
            (Method::Invite, _) => self.refuse_invite(arrived, status),
            // RFC 3311 §5.2: a 500 to UPDATE carries Retry-After.
            (Method::Update, Status::SERVER_INTERNAL_ERROR) => {
                let delay = fresh::retry_after_seconds(&mut self.rng).to_string();
                let tag = self.responder.tag(&arrived.request);
                let builder =
                    self.responder.begin(&arrived.request, Status::SERVER_INTERNAL_ERROR, &tag);
                let response = builder.header("Retry-After", &delay).build().into();
                self.answer_in_transaction(arrived, response);
            }
            _ => self.answer_stateful(arrived, status),
        }
    }

    /// Refuses an INVITE without an event for a call, in a transaction that repeats the refusal.
    pub(super) fn refuse_invite(&mut self, arrived: Arrived, status: Status) {
        let local_tag = self.responder.tag(&arrived.request);
        let mut builder = self.responder.required(&arrived.request, status, &local_tag);
        if status == Status::SERVER_INTERNAL_ERROR {
            let delay = fresh::retry_after_seconds(&mut self.rng).to_string();
            builder = builder.header("Retry-After", &delay);
        }
        let response = Bytes::from(builder.build());
        if arrived.limited.is_some() {
            // The address is unproven: a transaction would repeat the refusal until the ACK comes.
            if let Some(fitted) = self.fitted_to_peer(arrived.limited, response) {
                self.transmit(Transmit::response(arrived.path, arrived.request.top_via(), fitted));
            }
            return;
        }
        let Arrived { request, key, path, now, .. } = arrived;
        let invite = Invite { dialog: None, local_tag, stranger: None };
        let way = (path, request.top_via());
        let (id, _) = self.transactions.open_invite(key, None, invite, way, None);
        self.finish_pending(id, status, response, now);
    }

    /// Sends a response without a body to an INVITE, or to an UPDATE with an offer.
    pub(super) fn respond(&mut self, pending: &Pending, status: Status, now: Instant) {
        let local_tag = self.tag_of_response(pending, status);
        let invite = self.transactions.invite(pending.transaction);
        let dialog = invite.and_then(|invite| self.dialogs.get(invite.dialog?));
        let builder = match dialog {
            Some(dialog) if dialog.target.is_unproven() => {
                ResponseBuilder::to(&pending.request, status).to_tag(&local_tag)
            }
            _ => self.responder.begin(&pending.request, status, &local_tag),
        };
        let builder = match dialog {
            // A provisional response creates an early dialog (§12.1.1).
            Some(dialog) if status.is_provisional() => {
                builder.contact(&self.config.contact(dialog.is_sips(), dialog.target.path()))
            }
            _ => builder,
        };
        let response = builder.build();
        self.finish_pending(pending.transaction, status, response, now);
    }

    /// Our tag in a response to an INVITE, or to an UPDATE with an offer. A stranger that is
    /// refused without another response before may repeat its INVITE, and has to get the same tag.
    pub(super) fn tag_of_response(&self, pending: &Pending, status: Status) -> String {
        match self.transactions.invite(pending.transaction) {
            Some(Invite { stranger: Some(_), .. }) if status.is_refusal() => {
                self.responder.stateless_tag(&pending.request)
            }
            Some(invite) => invite.local_tag.clone(),
            None => self.responder.tag(&pending.request),
        }
    }

    /// Sends 100 to a stranger after its call was accepted, if no other provisional response can be
    /// sent.
    pub(super) fn try_stranger(&mut self, pending: &Pending, now: Instant) {
        let invite = self.transactions.invite(pending.transaction);
        if invite.is_some_and(|invite| invite.stranger.is_some()) {
            let trying = self.responder.trying(&pending.request);
            self.finish_pending(pending.transaction, Status::TRYING, trying, now);
        }
    }

    /// Sends a response to an INVITE, or to an UPDATE with an offer. A provisional response that
    /// exceeds the allowance is kept until the INVITE comes again. A stranger that has got nothing
    /// but 100 so far gets a refusal once, and its INVITE is forgotten.
    pub(super) fn finish_pending(
        &mut self,
        id: TransactionId,
        status: Status,
        response: impl Into<Bytes>,
        now: Instant,
    ) {
        let response = response.into();
        let invite = self.transactions.invite(id);
        let dialog = invite.and_then(|invite| self.dialogs.get_mut(invite.dialog?));
        let mut limited = dialog.filter(|dialog| dialog.target.is_unproven());
        if status.is_refusal()
            && let Some((path, next_hop, heard)) = self.transactions.take_back(id)
        {
            let room = limited
                .and_then(|dialog| dialog.target.allowance.room())
                .unwrap_or(allowed_for(heard));
            self.send_within(room, (path, next_hop), &response);
            return;
        }
        let fits = match &mut limited {
            None => true,
            Some(dialog) if status.is_provisional() => {
                dialog.target.allowance.take_provisional(response.len())
            }
            Some(dialog) => dialog.target.allowance.take(response.len()),
        };
        if status.is_provisional() && !fits {
            self.transactions.keep_provisional(id, response);
            return;
        }
        // If the response is lost, the peer repeats its request, which adds to the allowance.
        let mut room = limited.map(|_| 0);
        let dialog = self.transactions.invite(id).and_then(|invite| invite.dialog);
        let dialog = dialog.and_then(|dialog| self.dialogs.get(dialog));
        let mut transmit = self.transactions.respond(id, status, response, now).filter(|_| fits);
        if transmit
            .as_ref()
            .zip(dialog)
            .is_some_and(|(to, dialog)| dialog.target.is_elsewhere(to.path))
        {
            room = Some(0);
            transmit = None;
        }
        if let Some(room) = room {
            self.transactions.limit_repeats(id, room);
        }
        if let Some(transmit) = transmit {
            self.transmit(transmit);
        }
    }
}
