//! Handling of requests, from validation to the event.

use std::time::Instant;

use bytes::Bytes;
use tracing::{debug, info};

use super::{Endpoint, Event, IncomingInvite, Path, commands::session_headers, fresh};
use crate::proto::sip::{
    dialog::{
        Acknowledgement, Caller, Dialog, DialogId, DialogKey, Pending, Untimely, allowed_for,
    },
    digest::{self, Asking, Verdict},
    info,
    message::{Method, NameAddr, Request, ResponseBuilder},
    path::Transmit,
    registrar::{self, Reply},
    session_timer::SessionTimer,
    transaction::{AckFor, Invite, MergeKey, TransactionId, TransactionKey},
    uri::Uri,
    validate::{check_description, validate},
};

pub(super) use crate::proto::sip::body::SDP;

/// The maximum number of diverting parties that are kept; further ones are of no interest.
const MAX_DIVERSIONS: usize = 16;

impl Endpoint {
    pub(super) fn handle_request(&mut self, request: Request, path: Path, now: Instant) {
        if let Err(refusal) = validate(&request) {
            self.refuse_invalid(&request, &refusal, path);
            return;
        }
        if *request.method() == Method::Ack {
            self.handle_ack(&request, path, now);
            return;
        }
        let key = TransactionKey::of(&request);
        if let Some(id) = self.transactions.find(&key) {
            self.repeat(id, &request, path);
            return;
        }
        if *request.method() == Method::Cancel {
            self.handle_cancel(&request, key, path, now);
            return;
        }
        match DialogKey::of(&request) {
            None => self.handle_outside(request, key, path, now),
            Some(dialog) => match self.dialogs.find(&dialog) {
                Some(id) => self.handle_inside(id, request, key, path, now),
                None if self.dialogs.has_fork(&dialog) => {
                    self.handle_early(&dialog, &request, key, path, now);
                }
                None => self.answer_stateless(&request, 481, path),
            },
        }
    }

    /// Answers a retransmitted request. An unproven address gets the answer only within its
    /// allowance. For such an address, a repeated INVITE also causes its 200 to be sent again,
    /// because the dialog itself repeats the 200 only while the allowance lasts.
    fn repeat(&mut self, id: TransactionId, request: &Request, path: Path) {
        let heard = self.heard_bytes;
        let invite = self.transactions.invite(id).map(|invite| invite.dialog);
        let dialog = invite.or_else(|| self.dialogs.find(&DialogKey::of(request)?));
        // The answer goes to where the first one went. A retransmission from another address gets
        // none: that address may belong to a third party.
        let is_same = |again: &Transmit| {
            path.leads_to(again.path.peer) && again.path.transport == path.transport
        };
        let again = self.transactions.repeat(id).filter(is_same);
        // A REGISTER has a transaction only after it has shown the password.
        let standing = self.standing(path);
        let is_registered = standing == Caller::AtPhone && *request.method() == Method::Register;
        let is_believed = standing.is_proved(path.transport) || is_registered;
        let dialog = dialog.and_then(|dialog| self.dialogs.get_mut(dialog));
        // What another address has proved does not hold for this one.
        let again = match dialog.filter(|dialog| !dialog.is_elsewhere(path)) {
            Some(dialog) if dialog.is_limited() => {
                dialog.heard_again(path, heard);
                let answer = dialog.unacknowledged().filter(|_| invite.is_some()).cloned();
                let answer = answer.map(|bytes| Transmit { path: dialog.path(), bytes });
                again.or(answer).filter(|again| match dialog.is_ringing() {
                    true => dialog.take_provisional_room(again.bytes.len()),
                    false => dialog.take_room(again.bytes.len()),
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
    fn handle_ack(&mut self, request: &Request, path: Path, now: Instant) {
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
        if dialog.heard_from(path, self.heard_bytes) {
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
    fn handle_cancel(&mut self, request: &Request, key: TransactionKey, path: Path, now: Instant) {
        let invite = self
            .transactions
            .find(&TransactionKey::of_invite(request))
            .and_then(|id| self.transactions.invite(id))
            .cloned();
        let Some(Invite { dialog: id, local_tag, stranger }) = invite else {
            self.answer_stateless(request, 481, path);
            return;
        };
        if self.dialogs.get(id).is_some_and(|dialog| dialog.is_elsewhere(path)) {
            self.answer_stateless(request, 481, path);
            return;
        }
        if let Some(dialog) = self.dialogs.get_mut(id).filter(|dialog| dialog.is_limited()) {
            dialog.heard_again(path, self.heard_bytes);
            self.answering = Some(id);
        }
        // §9.2: the same tag as in the responses to the INVITE.
        let local_tag = if stranger.is_some() { self.stateless_tag(request) } else { local_tag };
        let ok = self.response(request, 200, &local_tag);
        self.answer_in_transaction(key, path, ok, now);
        self.cancel(id, now);
    }

    /// Handles a request that belongs to no dialog.
    fn handle_outside(&mut self, request: Request, key: TransactionKey, path: Path, now: Instant) {
        match request.method() {
            Method::Invite => self.handle_invite(request, key, path, now),
            Method::Register => self.handle_register(&request, key, path, now),
            // OPTIONS gets the status that an INVITE would get (§11.2), so that proxies see that we
            // drain.
            Method::Options if self.is_closed() => self.refuse_for_load(&request, path),
            Method::Options => self.answer_options(&request, path),
            _ => self.answer_stateless(&request, 481, path),
        }
    }

    fn handle_invite(&mut self, request: Request, key: TransactionKey, path: Path, now: Instant) {
        let merge = MergeKey::of(&request);
        if self.transactions.len() >= self.config.max_transactions {
            self.refuse_for_load(&request, path);
            return;
        }
        if self.transactions.is_merged(&merge) || self.is_looped(&request) {
            match self.standing(path).is_proved(path.transport) {
                true => self.refuse_invite(&request, key, path, 482, now),
                false => self.answer_stateless(&request, 482, path),
            }
            return;
        }
        if self.is_closed() {
            self.refuse_for_load(&request, path);
            return;
        }
        if SessionTimer::answer(&request, now).is_err() {
            self.answer_stateless(&request, 422, path);
            return;
        }
        let contact = match request.contacts().first() {
            Some(contact) => contact.uri().clone(),
            // An RFC 2543 caller sends no tag, and Contact is optional: it is reached at its From
            // URI.
            None if request.from().tag().is_none() => request.from().uri().clone(),
            None => {
                self.answer_stateless(&request, 400, path);
                return;
            }
        };
        let user = match self.authenticate(&request, path, now) {
            Ok(user) => user,
            Err(refusal) => {
                self.send_stateless(path, &refusal);
                return;
            }
        };
        let caller = match user {
            Some(_) => Caller::Known,
            None => self.standing(path),
        };
        if caller == Caller::Stranger && !self.has_room_for_stranger(path) {
            self.refuse_for_load(&request, path);
            return;
        }
        let replaces = match self.replaced(&request, user.as_deref(), path) {
            Ok(replaces) => replaces,
            Err(status) => {
                self.answer_stateless(&request, status, path);
                return;
            }
        };

        let id = self.dialogs.fresh_id();
        let local_tag = fresh::tag(&mut self.rng);
        // The datagram of an unproven caller gets one response, not two. The decision about the
        // call comes at once, so 100 is left out.
        let is_unproven = !caller.is_proved(path.transport);
        let is_tried = !is_unproven || path.transport.is_reliable();
        let trying = is_tried.then(|| self.trying(&request));
        let stranger = is_unproven.then_some(self.heard_bytes);
        let invite = Invite { dialog: id, local_tag: local_tag.clone(), stranger };
        let (transaction, transmit) =
            self.transactions.open_invite(key, Some(merge), invite, path, trying);
        transmit.into_iter().for_each(|transmit| self.transmit(transmit));

        let text = |name: &str| request.header(name).map(str::to_owned);
        let incoming = IncomingInvite {
            user,
            trunk: self.trunks.at(path).map(str::to_owned),
            replaces,
            from: request.from().clone(),
            request_uri: request.uri().clone(),
            call_id: request.call_id().to_owned(),
            subject: text("Subject"),
            diverted: diverted(&request),
            referred_by: text("Referred-By").and_then(|by| by.parse().ok()),
            offer: request.description(),
            path,
        };
        let pending = Pending { transaction, request: Box::new(request) };
        let dialog = Dialog::called(pending, local_tag, contact, (path, self.heard_bytes), caller);
        self.dialogs.insert(id, dialog);
        self.tell(Event::Invite { dialog: id, invite: Box::new(incoming) });
    }

    /// §10.3: only our users can register, and each one only itself. An unknown user gets the same
    /// response as one that fails authentication.
    fn handle_register(
        &mut self,
        request: &Request,
        key: TransactionKey,
        path: Path,
        now: Instant,
    ) {
        if self.users.is_empty() {
            self.answer_stateless(request, 405, path);
            return;
        }
        // §10.3, 5: the address of record has to be a SIP or SIPS URI.
        if request.to().uri().host().is_none() {
            self.answer_stateless(request, 400, path);
            return;
        }
        // §10.3, 1 and 5: we are the registrar of our own domain only.
        let is_home = |uri: &Uri| self.config.is_home(uri, path);
        if !is_home(request.uri()) || !is_home(request.to().uri()) {
            self.answer_stateless(request, 404, path);
            return;
        }
        let user = match self.prove(request, path, now) {
            Ok(user) => user,
            Err(refusal) => {
                self.send_stateless(path, &refusal);
                return;
            }
        };
        let Reply { status, reason, headers } =
            self.registrar.handle_register(&user, request, path, now);
        let tag = self.stateless_tag(request);
        let builder = ResponseBuilder::to(request, status, reason)
            .to_tag(&tag)
            .header("Server", &self.config.server_name);
        let builder =
            headers.iter().fold(builder, |builder, (name, value)| builder.header(name, value));
        let response = builder.build().into();
        self.answer_in_transaction(key, path, response, now);
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

    /// The user that a request is authenticated for; `None` if the request has no credentials.
    ///
    /// # Errors
    /// The refusal, if the credentials fail.
    fn authenticate(
        &mut self,
        request: &Request,
        path: Path,
        now: Instant,
    ) -> Result<Option<String>, Bytes> {
        let (source, is_trusted) = (path.peer.ip(), self.is_trusted(path));
        let values: Vec<&str> = request.headers("Authorization").collect();
        let verdict = match &mut self.authenticator {
            Some(authenticator) => {
                let asking =
                    Asking { method: request.method(), uri: request.uri(), source, is_trusted };
                authenticator.verify(&values, asking, now)
            }
            None => Verdict::Missing,
        };
        let tag = self.stateless_tag(request);
        let stale = match verdict {
            Verdict::Missing => return Ok(None),
            Verdict::Authenticated { user } => {
                // A user may not call or register under another name than its own.
                if request.from().uri().user().as_deref() == Some(&user) {
                    return Ok(Some(user));
                }
                return Err(self.response(request, 403, &tag));
            }
            Verdict::TooMany => {
                let response = self
                    .response_builder(request, 403, &tag)
                    .header("Retry-After", &digest::WINDOW.as_secs().to_string())
                    .build();
                return Err(response.into());
            }
            Verdict::Malformed => return Err(self.response(request, 400, &tag)),
            Verdict::Wrong => {
                if let Some(tell) = self.wrong_passwords.note(source, now) {
                    let wrong = tell.unsaid + 1;
                    info!(peer = %path.peer, wrong, "Wrong password, or no such user");
                }
                false
            }
            Verdict::Stale => true,
        };
        Err(self.challenge_to(request, source, stale, now))
    }

    /// The user that a request is authenticated for, where authentication is required.
    ///
    /// # Errors
    /// The challenge, or the refusal if the credentials fail.
    pub(super) fn prove(
        &mut self,
        request: &Request,
        path: Path,
        now: Instant,
    ) -> Result<String, Bytes> {
        match self.authenticate(request, path, now)? {
            Some(user) => Ok(user),
            None => Err(self.challenge_to(request, path.peer.ip(), false, now)),
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
    ) -> Result<Option<DialogId>, u16> {
        let mut values = request.headers("Replaces");
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(400);
        }
        let (key, early_only) = DialogKey::replaced(value).ok_or(400_u16)?;
        let id = self.dialogs.find(&key).ok_or(481_u16)?;
        let dialog = self.dialogs.get(id).ok_or(481_u16)?;
        if dialog.is_ending() {
            return Err(603);
        }
        // The peer initiated this early dialog; only one that we initiated could be replaced (RFC
        // 3891 §3).
        if dialog.is_ringing() {
            return Err(481);
        }
        if early_only {
            return Err(486);
        }
        let before = dialog.path();
        let has_its_place = match path.is_foreign {
            true => before.connection == path.connection,
            false => before.peer.ip() == path.peer.ip(),
        };
        let is_allowed = user.is_some() || has_its_place || self.trunks.at(path).is_some();
        if is_allowed { Ok(Some(id)) } else { Err(403) }
    }

    /// Handles a request within a known dialog.
    fn handle_inside(
        &mut self,
        id: DialogId,
        request: Request,
        key: TransactionKey,
        path: Path,
        now: Instant,
    ) {
        // A BYE is always accepted: a dialog has only one.
        if *request.method() != Method::Bye && !self.has_room_within(path) {
            self.refuse_for_load(&request, path);
            return;
        }
        let Some(dialog) = self.dialogs.get_mut(id) else { return };
        if let Err(untimely) = dialog.admit(&request) {
            if dialog.is_elsewhere(path) {
                self.answer_stateless(&request, untimely.status(), path);
                return;
            }
            dialog.heard_again(path, self.heard_bytes);
            self.answering = dialog.is_limited().then_some(id);
            self.refuse_untimely(untimely, &request, key, path, now);
            return;
        }
        let is_first = dialog.heard_from(path, self.heard_bytes);
        self.answering = dialog.is_limited().then_some(id);
        if is_first {
            self.tell(Event::Heard { dialog: id });
        }
        match request.method() {
            Method::Invite | Method::Update if SessionTimer::answer(&request, now).is_err() => {
                self.refuse_stateful(&request, key, path, 422, now);
            }
            Method::Invite => self.handle_reinvite(id, request, key, path),
            Method::Prack => self.handle_prack(id, &request, key, path, now),
            Method::Bye => self.handle_bye(id, &request, key, path, now),
            Method::Info => self.handle_info(id, &request, key, path, now),
            Method::Notify => self.handle_notify(id, &request, key, path, now),
            Method::Refer => self.handle_refer(id, &request, key, path, now),
            Method::Update => self.handle_update(id, request, key, path, now),
            Method::Options => {
                let response = self.options_response(&request);
                self.answer_in_transaction(key, path, response, now);
            }
            _ => self.answer_stateful(&request, key, path, 405, now),
        }
    }

    fn handle_reinvite(&mut self, id: DialogId, request: Request, key: TransactionKey, path: Path) {
        let Some(dialog) = self.dialogs.get(id) else { return };
        let local_tag = dialog.key().local_tag.clone();
        let trying = (!dialog.is_limited()).then(|| self.trying(&request));
        let invite = Invite { dialog: id, local_tag, stranger: None };
        let (transaction, transmit) =
            self.transactions.open_invite(key, None, invite, path, trying);
        transmit.into_iter().for_each(|transmit| self.transmit(transmit));
        self.reoffer(id, Pending { transaction, request: Box::new(request) }, path);
    }

    /// The peer wants to change the session; the owner of the call decides.
    fn reoffer(&mut self, id: DialogId, pending: Pending, path: Path) {
        let offer = pending.request.description();
        if let Some(dialog) = self.dialogs.get_mut(id) {
            let contact = pending.request.contacts().first().map(|contact| contact.uri());
            dialog.refresh_target(contact, path);
            dialog.reoffered(pending);
        }
        let is_proved = self.dialogs.get(id).is_some_and(|dialog| !dialog.is_limited());
        self.tell(Event::Reinvite { dialog: id, offer, path, is_proved });
    }

    /// Handles a PRACK (RFC 3262 §3).
    fn handle_prack(
        &mut self,
        id: DialogId,
        request: &Request,
        key: TransactionKey,
        path: Path,
        now: Instant,
    ) {
        let rack = request.header("RAck").unwrap_or_default();
        let is_expected = self.dialogs.get_mut(id).is_some_and(|dialog| dialog.handle_prack(rack));
        if let (true, Err(refusal)) = (is_expected, check_description(request)) {
            self.refuse_with(&refusal, request, key, path, now);
            return;
        }
        let status = match is_expected {
            // Our provisional responses never carry an offer, so a PRACK has nothing to answer. An
            // offer in a PRACK would have to wait for the answer to the INVITE.
            true if request.description().is_none() => 200,
            true => 488,
            false => 481,
        };
        self.answer_stateful(request, key, path, status, now);
    }

    fn handle_bye(
        &mut self,
        id: DialogId,
        request: &Request,
        key: TransactionKey,
        path: Path,
        now: Instant,
    ) {
        self.answer_stateful(request, key, path, 200, now);
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
            self.respond(&pending, 487, now);
        }
        self.forget_dialog(id, now);
        let reason = request.header("Reason").map(str::to_owned);
        self.tell(Event::Bye { dialog: id, reason });
    }

    fn handle_info(
        &mut self,
        id: DialogId,
        request: &Request,
        key: TransactionKey,
        path: Path,
        now: Instant,
    ) {
        // Before the answer there is no audio that a key could belong to.
        let is_answered = self.dialogs.get(id).is_some_and(|dialog| !dialog.is_ringing());
        match info::read(request, is_answered) {
            Ok(tones) => {
                self.answer_stateful(request, key, path, 200, now);
                for tone in tones {
                    self.tell(Event::Info { dialog: id, tone });
                }
            }
            Err(refusal) => self.refuse_with(&refusal, request, key, path, now),
        }
    }

    /// RFC 3311: with an offer, UPDATE is handled like a re-INVITE; without one, it refreshes the
    /// session.
    fn handle_update(
        &mut self,
        id: DialogId,
        request: Request,
        key: TransactionKey,
        path: Path,
        now: Instant,
    ) {
        if let Err(refusal) = check_description(&request) {
            self.refuse_with(&refusal, &request, key, path, now);
            return;
        }
        if request.description().is_some() {
            let transaction = self.transactions.open(key, path);
            self.reoffer(id, Pending { transaction, request: Box::new(request) }, path);
            return;
        }
        let session = SessionTimer::answer(&request, now).ok().flatten();
        let builder = self.update_accepted(&request, path);
        let response = session_headers(builder, &request, session.as_ref()).build();
        if let Some(dialog) = self.dialogs.get_mut(id) {
            dialog.refresh_target(request.contacts().first().map(|contact| contact.uri()), path);
            dialog.keep_session(session.map(|(timer, _)| timer));
        }
        self.answer_in_transaction(key, path, response.into(), now);
    }

    /// The 200 to an UPDATE without an offer.
    pub(super) fn update_accepted<'a>(
        &self,
        request: &'a Request,
        path: Path,
    ) -> ResponseBuilder<'a> {
        let tag = request.to().tag().unwrap_or_default();
        self.response_builder(request, 200, tag)
            .contact(&self.config.contact(request.wants_sips(), path))
            .header("Allow", &self.allow())
            .header("Supported", self.config.supported())
    }

    /// The caller gave up before we answered; in any later state this has no effect.
    fn cancel(&mut self, id: DialogId, now: Instant) {
        let Some(dialog) = self.dialogs.get(id).filter(|dialog| dialog.is_ringing()) else {
            return;
        };
        if let Some(pending) = dialog.pending().cloned() {
            self.respond(&pending, 487, now);
        }
        self.forget_dialog(id, now);
        self.tell(Event::Canceled { dialog: id });
    }

    /// Refuses a request that came at the wrong moment. The transaction keeps the answer, because a
    /// retransmission may come when the moment would be right.
    pub(super) fn refuse_untimely(
        &mut self,
        untimely: Untimely,
        request: &Request,
        key: TransactionKey,
        path: Path,
        now: Instant,
    ) {
        self.refuse_stateful(request, key, path, untimely.status(), now);
    }

    /// Refuses a request within a dialog, in a transaction that repeats the refusal.
    pub(super) fn refuse_stateful(
        &mut self,
        request: &Request,
        key: TransactionKey,
        path: Path,
        status: u16,
        now: Instant,
    ) {
        match (request.method(), status) {
            (Method::Invite, _) => self.refuse_invite(request, key, path, status, now),
            // RFC 3311 §5.2: a 500 to UPDATE carries Retry-After.
            (Method::Update, 500) => {
                let tag = request.to().tag().unwrap_or_default();
                let delay = fresh::retry_after_seconds(&mut self.rng).to_string();
                let response =
                    self.response_builder(request, 500, tag).header("Retry-After", &delay).build();
                self.answer_in_transaction(key, path, response.into(), now);
            }
            _ => self.answer_stateful(request, key, path, status, now),
        }
    }

    /// The caller sent no PRACK for our reliable 180 (RFC 3262 §3).
    pub(super) fn give_up_ringing(&mut self, id: DialogId, now: Instant) {
        let Some(pending) = self.dialogs.get(id).and_then(Dialog::pending).cloned() else {
            return;
        };
        self.respond(&pending, 504, now);
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

/// Parties that a call was diverted from, the oldest first. Diversion lists the newest first (RFC
/// 5806 section 4.2). History-Info lists the oldest first, and its last entry is the current target
/// (RFC 7044 section 5). Unreadable values are left out; no decision depends on them.
fn diverted(request: &Request) -> Vec<NameAddr> {
    let named = |name: &str| -> Vec<NameAddr> {
        request.headers(name).filter_map(|value| value.parse().ok()).collect()
    };
    let mut diverted = named("Diversion");
    if diverted.is_empty() {
        diverted = named("History-Info");
        diverted.pop();
    } else {
        diverted.reverse();
    }
    diverted.truncate(MAX_DIVERSIONS);
    diverted
}
