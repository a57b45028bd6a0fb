//! Requests of peers: to which transaction and dialog they belong, and those outside of any dialog.

use std::time::Instant;

use tracing::{debug, info};

use super::{Endpoint, Event, IncomingInvite, arrived::Arrived, fresh};
use crate::proto::sip::{
    Status,
    dialog::{Acknowledgement, Dialog, DialogId, DialogKey, Pending, allowed_for},
    message::{Method, Request, ResponseBuilder},
    path::Path,
    registrar::{self, Reply},
    session_timer::SessionTimer,
    standing::Standing,
    transaction::{AckFor, Invite, MergeKey, TransactionId, TransactionKey},
    transmit::Transmit,
    uri::Uri,
    validate::validate,
};

impl Endpoint {
    pub(super) fn handle_request(&mut self, arrived: Arrived) {
        if let Err(refusal) = validate(&arrived.request) {
            self.refuse_stateless(&arrived, &refusal);
            return;
        }
        if *arrived.method() == Method::Ack {
            self.handle_ack(&arrived);
            return;
        }
        if let Some(id) = self.transactions.find(&arrived.key) {
            self.repeat(id, &arrived);
            return;
        }
        if *arrived.method() == Method::Cancel {
            self.handle_cancel(arrived);
            return;
        }
        match DialogKey::of(&arrived.request) {
            None => self.handle_outside(arrived),
            Some(dialog) => match self.dialogs.find(&dialog) {
                Some(id) => self.handle_inside(id, arrived),
                None if self.dialogs.has_fork(&dialog) => self.handle_early(&dialog, arrived),
                None => self.answer_stateless(&arrived, Status::CALL_DOES_NOT_EXIST),
            },
        }
    }

    /// Answers a retransmitted request. An unproven address gets the answer only within its
    /// allowance. For such an address, a repeated INVITE also causes its 200 to be sent again,
    /// because the dialog itself repeats the 200 only while the allowance lasts.
    fn repeat(&mut self, id: TransactionId, arrived: &Arrived) {
        let (request, path, heard) = (&arrived.request, arrived.path, arrived.bytes);
        let invite = self.transactions.invite(id);
        let is_invite = invite.is_some();
        let dialog = match invite {
            Some(invite) => invite.dialog,
            None => DialogKey::of(request).and_then(|key| self.dialogs.find(&key)),
        };
        // The answer goes to where the first one went. A retransmission from another address gets
        // none: that address may belong to a third party.
        let is_same = |again: &Transmit| {
            path.leads_to(again.path.peer) && again.path.transport == path.transport
        };
        let again = self.transactions.repeat(id).filter(is_same);
        // A REGISTER has a transaction only after it has shown the password.
        let standing = self.standing(path);
        let is_registered =
            standing == Standing::KnownSource && *request.method() == Method::Register;
        let is_believed = standing.is_proved(path.transport) || is_registered;
        let dialog = dialog.and_then(|dialog| self.dialogs.get_mut(dialog));
        // What another address has proved does not hold for this one.
        let again = match dialog.filter(|dialog| !dialog.target.is_elsewhere(path)) {
            Some(dialog) if dialog.target.is_unproven() => {
                dialog.target.heard_again(path, heard);
                let answer = dialog.unacknowledged().filter(|_| is_invite);
                again.or(answer).filter(|again| {
                    if dialog.is_ringing() {
                        dialog.target.allowance.take_provisional(again.bytes.len())
                    } else {
                        dialog.target.allowance.take(again.bytes.len())
                    }
                })
            }
            Some(_) => again,
            None => again.filter(|again| {
                let is_fair = again.bytes.len() <= allowed_for(heard);
                path.transport.is_reliable() || is_fair || is_believed
            }),
        };
        if let Some(again) = again {
            self.transactions.note_told(id);
            self.transmit(again);
        }
    }

    /// An ACK is never answered. The ACK of a refusal ends in the transaction, the ACK of a 2xx in
    /// the dialog (§13.3.1.4); any other is dropped.
    fn handle_ack(&mut self, arrived: &Arrived) {
        let (request, now) = (&arrived.request, arrived.now);
        if let Some(id) = self.transactions.find(&TransactionKey::of_invite(request)) {
            match self.transactions.handle_ack(id, now) {
                AckFor::Transaction => return,
                AckFor::Dialog => {}
            }
        }
        let id = DialogKey::of(request).and_then(|key| self.dialogs.find(&key));
        let Some((id, dialog)) = id.and_then(|id| Some((id, self.dialogs.get_mut(id)?))) else {
            debug!(sip.call_id = request.call_id(), "ACK for nothing is dropped");
            return;
        };
        if dialog.target.heard_from(arrived.path, arrived.bytes) {
            self.tell(Event::Heard { dialog: id });
        }
        let Some(dialog) = self.dialogs.get_mut(id) else { return };
        match dialog.handle_ack(request.cseq().number) {
            Acknowledgement::Expected => {
                let body = request.description();
                self.tell(Event::Acknowledged { dialog: id, body });
                self.keep_way_open(id, now);
            }
            Acknowledgement::HangUp(hang_up) => self.send_bye(id, hang_up, now),
            Acknowledgement::Stray => {}
        }
    }

    /// §9.2. A CANCEL of a re-INVITE gets 200 and has no other effect: a re-INVITE is answered
    /// within moments, and the owner of the call would have to undo what it may have done already.
    fn handle_cancel(&mut self, mut arrived: Arrived) {
        let (request, path, now) = (&arrived.request, arrived.path, arrived.now);
        let invite = self
            .transactions
            .find(&TransactionKey::of_invite(request))
            .and_then(|id| self.transactions.invite(id))
            .cloned();
        let Some(Invite { dialog: id, local_tag, stranger }) = invite else {
            self.answer_stateless(&arrived, Status::CALL_DOES_NOT_EXIST);
            return;
        };
        let dialog = id.and_then(|id| self.dialogs.get_mut(id));
        if dialog.as_ref().is_some_and(|dialog| dialog.target.is_elsewhere(path)) {
            self.answer_stateless(&arrived, Status::CALL_DOES_NOT_EXIST);
            return;
        }
        if let Some(dialog) = dialog.filter(|dialog| dialog.target.is_unproven()) {
            dialog.target.heard_again(path, arrived.bytes);
            arrived.limited = id;
        }
        // §9.2: the same tag as in the responses to the INVITE.
        let local_tag = match stranger {
            Some(_) => self.responder.stateless_tag(&arrived.request),
            None => local_tag,
        };
        let ok = self.responder.begin(&arrived.request, Status::OK, &local_tag).build().into();
        self.answer_in_transaction(arrived, ok);
        if let Some(id) = id {
            self.cancel(id, now);
        }
    }

    /// Handles a request that belongs to no dialog.
    fn handle_outside(&mut self, arrived: Arrived) {
        match arrived.method() {
            Method::Invite => self.handle_invite(arrived),
            Method::Register => self.handle_register(arrived),
            // OPTIONS gets the status that an INVITE would get (§11.2), so that proxies see that we
            // drain.
            Method::Options if self.is_closed() => {
                self.answer_stateless(&arrived, Status::SERVICE_UNAVAILABLE)
            }
            Method::Options => {
                let response = self.responder.options(&arrived.request);
                self.send_stateless(&arrived, &response);
            }
            _ => self.answer_stateless(&arrived, Status::CALL_DOES_NOT_EXIST),
        }
    }

    fn handle_invite(&mut self, arrived: Arrived) {
        let (request, path, now) = (&arrived.request, arrived.path, arrived.now);
        let merge = MergeKey::of(request);
        if self.transactions.len() >= self.config.max_transactions {
            self.answer_stateless(&arrived, Status::SERVICE_UNAVAILABLE);
            return;
        }
        if self.transactions.is_merged(&merge) || self.is_looped(request) {
            if self.standing(path).is_proved(path.transport) {
                self.refuse_invite(arrived, Status::LOOP_DETECTED)
            } else {
                self.answer_stateless(&arrived, Status::LOOP_DETECTED)
            }
            return;
        }
        if self.is_closed() {
            self.answer_stateless(&arrived, Status::SERVICE_UNAVAILABLE);
            return;
        }
        if SessionTimer::answer(request, now).is_err() {
            self.answer_stateless(&arrived, Status::SESSION_INTERVAL_TOO_SMALL);
            return;
        }
        let contact = match request.contacts().first() {
            Some(contact) => contact.uri().clone(),
            // An RFC 2543 caller sends no tag, and Contact is optional: it is reached at its From
            // URI.
            None if request.from().tag().is_none() => request.from().uri().clone(),
            None => {
                self.answer_stateless(&arrived, Status::BAD_REQUEST);
                return;
            }
        };
        let is_trusted = self.is_trusted(path);
        let user = match self.users.authenticate(request, path, is_trusted, now) {
            Ok(user) => user,
            Err(refusal) => {
                self.refuse_stateless(&arrived, &refusal);
                return;
            }
        };
        let caller = match user {
            Some(_) => Standing::Identified,
            None => self.standing(path),
        };
        if caller == Standing::Stranger && !self.has_room_for_stranger(path) {
            self.answer_stateless(&arrived, Status::SERVICE_UNAVAILABLE);
            return;
        }
        let replaces = match self.replaced(request, user.as_deref(), path) {
            Ok(replaces) => replaces,
            Err(status) => {
                self.answer_stateless(&arrived, status);
                return;
            }
        };

        let id = self.dialogs.fresh_id();
        let local_tag = fresh::tag(&mut self.rng);
        // The datagram of an unproven caller gets one response, not two. The decision about the
        // call comes at once, so 100 is left out.
        let is_unproven = !caller.is_proved(path.transport);
        let is_tried = !is_unproven || path.transport.is_reliable();
        let trying = is_tried.then(|| self.responder.trying(request));
        let stranger = is_unproven.then_some(arrived.bytes);
        let incoming = IncomingInvite {
            user,
            trunk: self.trunks.at(path).map(str::to_owned),
            replaces,
            ..IncomingInvite::read(request, path)
        };
        let Arrived { request, key, bytes, .. } = arrived;
        let invite = Invite { dialog: Some(id), local_tag: local_tag.clone(), stranger };
        let way = (path, request.top_via());
        let (transaction, transmit) =
            self.transactions.open_invite(key, Some(merge), invite, way, trying);
        transmit.into_iter().for_each(|transmit| self.transmit(transmit));
        let pending = Pending { transaction, request: Box::new(request) };
        let dialog = Dialog::called(pending, local_tag, contact, (path, bytes), caller);
        self.dialogs.insert(id, dialog);
        self.tell(Event::Invite { dialog: id, invite: Box::new(incoming) });
    }

    /// §10.3: only our users can register, and each one only itself. An unknown user gets the same
    /// response as one that fails authentication.
    fn handle_register(&mut self, arrived: Arrived) {
        let (request, path, now) = (&arrived.request, arrived.path, arrived.now);
        if self.users.is_empty() {
            self.answer_stateless(&arrived, Status::METHOD_NOT_ALLOWED);
            return;
        }
        // §10.3, 5: the address of record has to be a SIP or SIPS URI.
        if request.to().uri().host().is_none() {
            self.answer_stateless(&arrived, Status::BAD_REQUEST);
            return;
        }
        // §10.3, 1 and 5: we are the registrar of our own domain only.
        let is_home = |uri: &Uri| self.config.is_home(uri, path);
        if !is_home(request.uri()) || !is_home(request.to().uri()) {
            self.answer_stateless(&arrived, Status::NOT_FOUND);
            return;
        }
        let is_trusted = self.is_trusted(path);
        let user = match self.users.prove(request, path, is_trusted, now) {
            Ok(user) => user,
            Err(refusal) => {
                self.refuse_stateless(&arrived, &refusal);
                return;
            }
        };
        let Reply { status, reason, headers } =
            self.registrar.handle_register(&user, request, path, now);
        let builder = ResponseBuilder::to(request, status)
            .reason(reason)
            .to_tag(&self.responder.tag(request))
            .header("Server", &self.config.server_name);
        let builder =
            headers.iter().fold(builder, |builder, (name, value)| builder.header(name, value));
        let response = builder.build().into();
        self.answer_in_transaction(arrived, response);
        self.note_phones();
        self.plan_keep_alives(now);
    }

    /// Logs which phones have registered, moved or gone.
    pub(super) fn note_phones(&mut self) {
        while let Some(event) = self.registrar.poll_event() {
            match event {
                registrar::Event::Bound { user, contact, path } => {
                    info!(user, %contact, peer = %path.peer, "Phone registered");
                }
                registrar::Event::Moved { user, contact, path } => {
                    info!(user, %contact, peer = %path.peer, "Phone moved");
                }
                registrar::Event::Unbound { user, contact, cause } => {
                    info!(user, %contact, ?cause, "Phone not registered any more");
                }
            }
        }
    }

    /// The call that an INVITE is to replace (RFC 3891 §3). Allowed are the peer of that call,
    /// judged by its address, or by its stream if it is a script of a web page; a trunk; and an
    /// authenticated user of ours.
    ///
    /// # Errors
    /// The status of the refusal.
    fn replaced(
        &self,
        request: &Request,
        user: Option<&str>,
        path: Path,
    ) -> Result<Option<DialogId>, Status> {
        let mut values = request.headers("Replaces");
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Status::BAD_REQUEST);
        }
        let (key, early_only) = DialogKey::replaced(value).ok_or(Status::BAD_REQUEST)?;
        let id = self.dialogs.find(&key).ok_or(Status::CALL_DOES_NOT_EXIST)?;
        let dialog = self.dialogs.get(id).ok_or(Status::CALL_DOES_NOT_EXIST)?;
        if dialog.is_ending() {
            return Err(Status::DECLINE);
        }
        // The peer initiated this early dialog; only one that we initiated could be replaced (RFC
        // 3891 §3).
        if dialog.is_ringing() {
            return Err(Status::CALL_DOES_NOT_EXIST);
        }
        if early_only {
            return Err(Status::BUSY_HERE);
        }
        let before = dialog.target.path();
        let has_its_place = if path.is_foreign {
            before.connection == path.connection
        } else {
            before.peer.ip() == path.peer.ip()
        };
        let is_allowed = user.is_some() || has_its_place || self.trunks.at(path).is_some();
        if is_allowed { Ok(Some(id)) } else { Err(Status::FORBIDDEN) }
    }

    /// The caller gave up before we answered; in any later state this has no effect.
    pub(super) fn cancel(&mut self, id: DialogId, now: Instant) {
        let Some(dialog) = self.dialogs.get(id).filter(|dialog| dialog.is_ringing()) else {
            return;
        };
        if let Some(pending) = dialog.pending().cloned() {
            self.respond(&pending, Status::REQUEST_TERMINATED, now);
        }
        self.forget_dialog(id, now);
        self.tell(Event::Canceled { dialog: id });
    }

    /// The caller sent no PRACK for our reliable 180 (RFC 3262 §3).
    pub(super) fn give_up_ringing(&mut self, id: DialogId, now: Instant) {
        let Some(pending) = self.dialogs.get(id).and_then(Dialog::pending).cloned() else {
            return;
        };
        self.respond(&pending, Status::SERVER_TIMEOUT, now);
        self.forget_dialog(id, now);
        self.tell(Event::Canceled { dialog: id });
    }

    /// Whether the request is an INVITE of ours that came back with the same user and host in its
    /// Request-URI: a loop (§16.3, item 4). With another user or host it is a spiral: a proxy has
    /// resolved the called party to this node.
    fn is_looped(&self, request: &Request) -> bool {
        let uri = request.uri();
        let is_same = |sent: &Uri| match (sent.host(), uri.host()) {
            (Some(sent_host), Some(host)) => {
                sent.user() == uri.user() && sent_host.eq_ignore_ascii_case(host)
            }
            _ => sent == uri,
        };
        let passed = request.vias().iter().skip(1).filter_map(|via| via.branch.as_deref());
        passed
            .filter_map(|branch| self.transactions.sent_with(branch))
            .any(|sent| is_same(&sent.uri))
    }

    /// Whether new calls are refused.
    fn is_closed(&self) -> bool {
        self.draining
            || self.dialogs.len() >= self.config.max_dialogs
            || self.transactions.len() >= self.config.max_transactions
    }
}
