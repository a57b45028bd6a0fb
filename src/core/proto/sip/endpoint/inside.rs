//! Requests of a peer within a dialog, early ones included (RFC 3261 §12.2.2), but for transfer.

use super::{Endpoint, Event, Path, arrived::Arrived, commands::session_headers};
use crate::proto::sip::{
    Status,
    dialog::{DialogId, Pending},
    info,
    message::Method,
    session_timer::SessionTimer,
    transaction::Invite,
    validate::check_description,
};

impl Endpoint {
    /// Handles a request within a known dialog.
    pub(super) fn handle_inside(&mut self, id: DialogId, mut arrived: Arrived) {
        let (path, now) = (arrived.path, arrived.now);
        // A BYE is always accepted: a dialog has only one.
        if *arrived.method() != Method::Bye && !self.has_room_within(path) {
            self.answer_stateless(&arrived, Status::SERVICE_UNAVAILABLE);
            return;
        }
        let Some(dialog) = self.dialogs.get_mut(id) else { return };
        if let Err(untimely) = dialog.admit(&arrived.request) {
            if dialog.target.is_elsewhere(path) {
                self.answer_stateless(&arrived, untimely.status());
                return;
            }
            dialog.target.heard_again(path, arrived.bytes);
            arrived.limited = dialog.target.is_unproven().then_some(id);
            self.refuse_stateful(arrived, untimely.status());
            return;
        }
        let is_first = dialog.target.heard_from(path, arrived.bytes);
        arrived.limited = dialog.target.is_unproven().then_some(id);
        if is_first {
            self.tell(Event::Heard { dialog: id });
        }
        match arrived.method() {
            Method::Invite | Method::Update
                if SessionTimer::answer(&arrived.request, now).is_err() =>
            {
                self.refuse_stateful(arrived, Status::SESSION_INTERVAL_TOO_SMALL);
            }
            Method::Invite => self.handle_reinvite(id, arrived),
            Method::Prack => self.handle_prack(id, arrived),
            Method::Bye => self.handle_bye(id, arrived),
            Method::Info => self.handle_info(id, arrived),
            Method::Notify => self.handle_notify(id, arrived),
            Method::Refer => self.handle_refer(id, arrived),
            Method::Update => self.handle_update(id, arrived),
            Method::Options => {
                let response = self.responder.options(&arrived.request);
                self.answer_in_transaction(arrived, response);
            }
            _ => self.answer_stateful(arrived, Status::METHOD_NOT_ALLOWED),
        }
    }

    fn handle_reinvite(&mut self, id: DialogId, arrived: Arrived) {
        let Arrived { request, key, path, .. } = arrived;
        let Some(dialog) = self.dialogs.get(id) else { return };
        let local_tag = dialog.key().local_tag.clone();
        let trying = (!dialog.target.is_unproven()).then(|| self.responder.trying(&request));
        let invite = Invite { dialog: Some(id), local_tag, stranger: None };
        let way = (path, request.top_via());
        let (transaction, transmit) = self.transactions.open_invite(key, None, invite, way, trying);
        transmit.into_iter().for_each(|transmit| self.transmit(transmit));
        self.reoffer(id, Pending { transaction, request: Box::new(request) }, path);
    }

    /// The peer wants to change the session; the owner of the call decides.
    fn reoffer(&mut self, id: DialogId, pending: Pending, path: Path) {
        let offer = pending.request.description();
        if let Some(dialog) = self.dialogs.get_mut(id) {
            let contact = pending.request.contacts().first().map(|contact| contact.uri());
            dialog.target.refresh(contact, path);
            dialog.reoffered(pending);
        }
        let is_proved = self.dialogs.get(id).is_some_and(|dialog| !dialog.target.is_unproven());
        self.tell(Event::Reinvite { dialog: id, offer, path, is_proved });
    }

    /// Handles a PRACK (RFC 3262 §3).
    fn handle_prack(&mut self, id: DialogId, arrived: Arrived) {
        let rack = arrived.request.header("RAck").unwrap_or_default();
        let is_expected = self.dialogs.get_mut(id).is_some_and(|dialog| dialog.handle_prack(rack));
        if let (true, Err(refusal)) = (is_expected, check_description(&arrived.request)) {
            self.refuse_with(arrived, &refusal);
            return;
        }
        let status = match is_expected {
            // Our provisional responses never carry an offer, so a PRACK has nothing to answer. An
            // offer in a PRACK would have to wait for the answer to the INVITE.
            true if arrived.request.description().is_none() => Status::OK,
            true => Status::NOT_ACCEPTABLE_HERE,
            false => Status::CALL_DOES_NOT_EXIST,
        };
        self.answer_stateful(arrived, status);
    }

    fn handle_bye(&mut self, id: DialogId, arrived: Arrived) {
        let now = arrived.now;
        let reason = arrived.request.header("Reason").map(str::to_owned);
        self.answer_stateful(arrived, Status::OK);
        let Some(dialog) = self.dialogs.get(id) else { return };
        if dialog.is_ending() {
            // Both sides hung up at once: the dialog ends with our own BYE.
            return;
        }
        if dialog.is_ringing() {
            self.cancel(id, now);
            return;
        }
        if let Some(pending) = dialog.pending().cloned() {
            self.respond(&pending, Status::REQUEST_TERMINATED, now);
        }
        self.forget_dialog(id, now);
        self.tell(Event::Bye { dialog: id, reason });
    }

    fn handle_info(&mut self, id: DialogId, arrived: Arrived) {
        // Before the answer there is no audio that a key could belong to.
        let is_answered = self.dialogs.get(id).is_some_and(|dialog| !dialog.is_ringing());
        match info::read(&arrived.request, is_answered) {
            Ok(tones) => {
                self.answer_stateful(arrived, Status::OK);
                for tone in tones {
                    self.tell(Event::Info { dialog: id, tone });
                }
            }
            Err(refusal) => self.refuse_with(arrived, &refusal),
        }
    }

    /// RFC 3311: with an offer, UPDATE is handled like a re-INVITE; without one, it refreshes the
    /// session.
    fn handle_update(&mut self, id: DialogId, arrived: Arrived) {
        if let Err(refusal) = check_description(&arrived.request) {
            self.refuse_with(arrived, &refusal);
            return;
        }
        if arrived.request.description().is_some() {
            let Arrived { request, key, path, .. } = arrived;
            let transaction = self.transactions.open(key, (path, request.top_via()));
            self.reoffer(id, Pending { transaction, request: Box::new(request) }, path);
            return;
        }
        let (request, path) = (&arrived.request, arrived.path);
        let session = SessionTimer::answer(request, arrived.now).ok().flatten();
        let builder = self.responder.update_accepted(request, path);
        let response = session_headers(builder, request, session.as_ref()).build();
        if let Some(dialog) = self.dialogs.get_mut(id) {
            dialog.target.refresh(request.contacts().first().map(|contact| contact.uri()), path);
            dialog.session.restart(session.map(|(timer, _)| timer));
        }
        self.answer_in_transaction(arrived, response.into());
    }
}
