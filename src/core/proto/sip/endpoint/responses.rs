//! The responses that the endpoint makes by itself, without a decision by a call.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    time::Instant,
};

use bytes::Bytes;
use tracing::debug;

use super::{Endpoint, Path, fresh, requests::SDP};
use crate::proto::sip::{
    dialog::{DialogId, Pending, allowed_for},
    message::{Method, Request, ResponseBuilder, Stub, reason_phrase},
    path::Transport,
    session_timer::MIN_SE,
    transaction::{Invite, TransactionId, TransactionKey},
    validate::{self, Refusal},
};

impl Endpoint {
    /// 100 has no To tag, because it belongs to no dialog (§8.2.6.1).
    pub(super) fn trying(&self, request: &Request) -> Bytes {
        ResponseBuilder::to(request, 100, reason_phrase(100)).build().into()
    }

    /// Begins a response with the header fields that all of them have.
    pub(super) fn response_builder<'a>(
        &self,
        request: &'a Request,
        status: u16,
        local_tag: &str,
    ) -> ResponseBuilder<'a> {
        ResponseBuilder::to(request, status, reason_phrase(status))
            .to_tag(local_tag)
            .header("Server", &self.config.server_name)
    }

    /// A response without a body, with the header fields that its status requires.
    pub(super) fn response(&self, request: &Request, status: u16, local_tag: &str) -> Bytes {
        let builder = self.response_builder(request, status, local_tag);
        let builder = match status {
            405 => builder.header("Allow", &self.allow()),
            // RFC 6665 §4.1.3.
            489 => builder.header("Allow-Events", "refer"),
            422 => builder.header("Min-SE", &MIN_SE.to_string()),
            503 => builder.header("Retry-After", &self.config.retry_after.as_secs().to_string()),
            _ => builder,
        };
        builder.build().into()
    }

    /// Answers without keeping state (§8.2.7).
    pub(super) fn answer_stateless(&mut self, request: &Request, status: u16, path: Path) {
        let response = self.response(request, status, &self.stateless_tag(request));
        self.send_stateless(path, &response);
    }

    /// Sends a response without keeping state. Over UDP the source address may be forged, so the
    /// response is at most one and a half times as long as the request: optional header fields are
    /// left out, and a request smaller than any phone would send gets no response.
    pub(super) fn send_stateless(&mut self, path: Path, response: &[u8]) {
        self.send_within(allowed_for(self.heard_bytes), path, response);
    }

    /// Sends a response without keeping state, over UDP in at most `room` bytes.
    fn send_within(&mut self, room: usize, path: Path, response: &[u8]) {
        let room = match path.transport {
            Transport::Udp => room,
            Transport::Tcp | Transport::Tls | Transport::Ws | Transport::Wss => usize::MAX,
        };
        match fitted(response, room) {
            Some(fitted) => self.send(path, fitted),
            None => debug!(peer = %path.peer, "no answer is small enough"),
        }
    }

    /// 401 with our challenges (§22.2); the same request always gets the same tag.
    pub(super) fn challenge_to(
        &mut self,
        request: &Request,
        source: IpAddr,
        stale: bool,
        now: Instant,
    ) -> Bytes {
        let challenges = match &mut self.authenticator {
            Some(authenticator) => authenticator.challenges(source, now, stale),
            None => Vec::new(),
        };
        let builder = self.response_builder(request, 401, &self.stateless_tag(request));
        let builder = challenges
            .iter()
            .fold(builder, |builder, value| builder.header("WWW-Authenticate", value));
        builder.build().into()
    }

    /// Refuses a request that `validate` rejects, without a transaction. An ACK is never answered.
    pub(super) fn refuse_invalid(&mut self, request: &Request, refusal: &Refusal, path: Path) {
        if *request.method() == Method::Ack {
            return;
        }
        let response = self.refusal(request, refusal, &self.stateless_tag(request));
        self.send_stateless(path, &response);
    }

    /// Refuses a request within a dialog, other than INVITE, because of its content.
    pub(super) fn refuse_with(
        &mut self,
        refusal: &Refusal,
        request: &Request,
        key: TransactionKey,
        path: Path,
        now: Instant,
    ) {
        let response = self.refusal(request, refusal, request.to().tag().unwrap_or_default());
        self.answer_in_transaction(key, path, response, now);
    }

    fn refusal(&self, request: &Request, refusal: &Refusal, local_tag: &str) -> Bytes {
        let builder = ResponseBuilder::to(request, refusal.status, refusal.reason)
            .to_tag(local_tag)
            .header("Server", &self.config.server_name);
        let headers = refusal.extra_headers.iter();
        headers.fold(builder, |builder, (name, value)| builder.header(name, value)).build().into()
    }

    /// Refuses a message that cannot be read as a request, if it says where the response goes.
    pub(super) fn refuse_stub(
        &mut self,
        request: &Stub,
        status: u16,
        reason: &'static str,
        path: Path,
    ) {
        let tag = self.tag_of(&(request.header("Call-ID"), request.header("CSeq")));
        let response = ResponseBuilder::to_stub(request, status, reason)
            .to_tag(&tag)
            .header("Server", &self.config.server_name)
            .build();
        self.send_stateless(path, &response);
    }

    pub(super) fn refuse_for_load(&mut self, request: &Request, path: Path) {
        self.answer_stateless(request, 503, path);
    }

    pub(super) fn answer_options(&mut self, request: &Request, path: Path) {
        let response = self.options_response(request);
        self.send_stateless(path, &response);
    }

    /// The 200 to OPTIONS (§11.2).
    pub(super) fn options_response(&self, request: &Request) -> Bytes {
        let tag = match request.to().tag() {
            Some(tag) => tag.to_owned(),
            None => self.stateless_tag(request),
        };
        self.response_builder(request, 200, &tag)
            .header("Allow", &self.allow())
            .header("Accept", SDP)
            .header("Supported", self.config.supported())
            .build()
            .into()
    }

    /// Answers a request other than INVITE in its own transaction.
    pub(super) fn answer_stateful(
        &mut self,
        request: &Request,
        key: TransactionKey,
        path: Path,
        status: u16,
        now: Instant,
    ) {
        let tag = request.to().tag().unwrap_or_default().to_owned();
        let response = self.response(request, status, &tag);
        self.answer_in_transaction(key, path, response, now);
    }

    pub(super) fn answer_in_transaction(
        &mut self,
        key: TransactionKey,
        path: Path,
        response: Bytes,
        now: Instant,
    ) {
        let response = match self.fitted_to_peer(response) {
            Some(response) => response,
            None => return,
        };
        if let Some(transmit) = self.transactions.answer(key, path, response, now) {
            self.transmit(transmit);
        }
    }

    /// Shortens a response to the message being handled to the allowance of an unproven address,
    /// and takes its length from that allowance. `None` if it cannot be shortened enough.
    fn fitted_to_peer(&mut self, response: Bytes) -> Option<Bytes> {
        let dialog = self.answering.and_then(|id| self.dialogs.get_mut(id));
        let Some((dialog, room)) =
            dialog.and_then(|dialog| dialog.room().map(|room| (dialog, room)))
        else {
            return Some(response);
        };
        let fitted = fitted(&response, room)?;
        dialog.take_room(fitted.len());
        Some(fitted)
    }

    /// Refuses an INVITE without an event for a call, in a transaction that repeats the refusal.
    pub(super) fn refuse_invite(
        &mut self,
        request: &Request,
        key: TransactionKey,
        path: Path,
        status: u16,
        now: Instant,
    ) {
        let local_tag = match request.to().tag() {
            Some(tag) => tag.to_owned(),
            None => self.stateless_tag(request),
        };
        let mut builder = self.response_builder(request, status, &local_tag);
        if status == 500 {
            builder = builder
                .header("Retry-After", &fresh::retry_after_seconds(&mut self.rng).to_string());
        }
        let response = builder.build();
        if self.answering.is_some() {
            // The address is unproven: a transaction would repeat the refusal until the ACK comes.
            if let Some(fitted) = self.fitted_to_peer(response.into()) {
                self.send(path, fitted);
            }
            return;
        }
        let invite = Invite { dialog: DialogId(0), local_tag, stranger: None };
        let (id, _) = self.transactions.open_invite(key, None, invite, path, None);
        self.finish_pending(id, status, response, now);
    }

    /// Sends a response without a body to an INVITE, or to an UPDATE with an offer.
    pub(super) fn respond(&mut self, pending: &Pending, status: u16, now: Instant) {
        let local_tag = self.tag_of_response(pending, status);
        let invite = self.transactions.invite(pending.transaction);
        let dialog = invite.and_then(|invite| self.dialogs.get(invite.dialog));
        let builder = match dialog {
            Some(dialog) if dialog.is_limited() => {
                ResponseBuilder::to(&pending.request, status, reason_phrase(status))
                    .to_tag(&local_tag)
            }
            _ => self.response_builder(&pending.request, status, &local_tag),
        };
        let builder = match dialog {
            // A provisional response creates an early dialog (§12.1.1).
            Some(dialog) if status < 200 => {
                builder.contact(&self.config.contact(dialog.is_sips(), dialog.path()))
            }
            _ => builder,
        };
        let response = builder.build();
        self.finish_pending(pending.transaction, status, response, now);
    }

    /// Our tag in a response to an INVITE, or to an UPDATE with an offer. A stranger that is
    /// refused without another response before may repeat its INVITE, and has to get the same tag.
    pub(super) fn tag_of_response(&self, pending: &Pending, status: u16) -> String {
        match self.transactions.invite(pending.transaction) {
            Some(Invite { stranger: Some(_), .. }) if status >= 300 => {
                self.stateless_tag(&pending.request)
            }
            Some(invite) => invite.local_tag.clone(),
            None => pending.request.to().tag().unwrap_or_default().to_owned(),
        }
    }

    /// Sends 100 to a stranger after its call was accepted, if no other provisional response can be
    /// sent.
    pub(super) fn try_stranger(&mut self, pending: &Pending, now: Instant) {
        let invite = self.transactions.invite(pending.transaction);
        if invite.is_some_and(|invite| invite.stranger.is_some()) {
            let trying = self.trying(&pending.request);
            self.finish_pending(pending.transaction, 100, trying, now);
        }
    }

    /// Sends a response to an INVITE, or to an UPDATE with an offer. A provisional response that
    /// exceeds the allowance is kept until the INVITE comes again. A stranger that has got nothing
    /// but 100 so far gets a refusal once, and its INVITE is forgotten.
    pub(super) fn finish_pending(
        &mut self,
        id: TransactionId,
        status: u16,
        response: impl Into<Bytes>,
        now: Instant,
    ) {
        let response = response.into();
        let invite = self.transactions.invite(id);
        let dialog = invite.and_then(|invite| self.dialogs.get_mut(invite.dialog));
        let mut limited = dialog.filter(|dialog| dialog.is_limited());
        if status >= 300
            && let Some((path, heard)) = self.transactions.take_back(id)
        {
            let room = limited.and_then(|dialog| dialog.room()).unwrap_or(allowed_for(heard));
            self.send_within(room, path, &response);
            return;
        }
        let fits = match &mut limited {
            None => true,
            Some(dialog) if status < 200 => dialog.take_provisional_room(response.len()),
            Some(dialog) => dialog.take_room(response.len()),
        };
        if status < 200 && !fits {
            self.transactions.keep_provisional(id, response);
            return;
        }
        // If the response is lost, the peer repeats its request, which adds to the allowance.
        let mut room = limited.map(|_| 0);
        let dialog = self.transactions.invite(id).map(|invite| invite.dialog);
        let dialog = dialog.and_then(|dialog| self.dialogs.get(dialog));
        let mut transmit = self.transactions.respond(id, status, response, now).filter(|_| fits);
        if transmit.as_ref().zip(dialog).is_some_and(|(to, dialog)| dialog.is_elsewhere(to.path)) {
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

    /// The methods that we accept; REGISTER only if we have users.
    pub(super) fn allow(&self) -> String {
        let register = if self.users.is_empty() { "" } else { ", REGISTER" };
        format!("{}{register}", validate::allow())
    }

    /// The same request gets the same tag, although no state is kept (§8.2.7).
    pub(super) fn stateless_tag(&self, request: &Request) -> String {
        self.tag_of(&(request.call_id(), request.from().tag(), request.cseq().number))
    }

    pub(super) fn tag_of(&self, seed: &impl Hash) -> String {
        let mut hasher = DefaultHasher::new();
        self.tag_secret.hash(&mut hasher);
        seed.hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

/// Header fields that a response without a body can do without, the most dispensable first. Of
/// several challenges the last one stays. That is MD5 if it is offered: some phones support no
/// other algorithm, and phones that support another one support MD5 too (RFC 8760 §2.3). In a
/// datagram Content-Length is optional (RFC 3261 §20.14).
const DISPENSABLE: [&str; 7] = [
    "Server",
    "Supported",
    "Accept-Encoding",
    "Accept",
    "Allow",
    "WWW-Authenticate",
    "Content-Length",
];

/// The response in at most `room` bytes; `None` if it cannot be shortened enough.
fn fitted(response: &[u8], room: usize) -> Option<Bytes> {
    if response.len() <= room {
        return Some(Bytes::copy_from_slice(response));
    }
    let mut lines: Vec<&[u8]> = response.split_inclusive(|byte| *byte == b'\n').collect();
    let mut bytes = response.len();
    for name in DISPENSABLE {
        let is_named = |line: &&[u8]| {
            line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b":"))
        };
        let kept = usize::from(name == "WWW-Authenticate");
        while bytes > room && lines.iter().filter(|line| is_named(line)).count() > kept {
            let first = lines.iter().position(is_named)?;
            bytes -= lines.remove(first).len();
        }
    }
    (bytes <= room).then(|| lines.concat().into())
}
