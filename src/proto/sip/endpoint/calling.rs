//! Calls that we place: the INVITE, what comes back, and forks (RFC 3261 §13.2, RFC 3262 §4).

use std::time::Instant;

use bytes::Bytes;
use rand::{Rng, rngs::StdRng};
use tracing::{debug, warn};

use super::{Ending, Endpoint, Event, Path, requests::SDP};
use crate::proto::sip::{
    dialog::{Dialog, DialogId, HangUp, Hop},
    digest::{self, Credentials},
    message::{Method, NameAddr, RequestBuilder, Response, parse_number, reason_phrase},
    outgoing::{Cancellation, Outgoing, OutgoingCall},
    path::{Transmit, Transport},
    session_timer::SessionTimer,
    transaction::{Asker, News, key::MAGIC_COOKIE},
    uri::Uri,
};

/// RFC 3261 §18.1.1: a longer request goes over a stream, where there is one.
const MAX_DATAGRAM_REQUEST: usize = 1_300;
/// Statuses after which another target may do better (RFC 3263 §4.3): it has no room.
const NO_ROOM: u16 = 503;

impl Endpoint {
    /// Places a call. Its last event is `Refused` or `Ended`, unless the peer hangs up first.
    pub(super) fn call(&mut self, id: DialogId, call: OutgoingCall, now: Instant) {
        if self.is_known(id) {
            debug_assert!(false, "{id:?} is used twice");
            return;
        }
        let local_tag = self.fresh_tag();
        let outgoing = Outgoing::new(call, &local_tag);
        self.outgoing_by_name.insert(outgoing.name(), id);
        self.outgoing.insert(id, outgoing);
        self.send_invite(id, now);
    }

    fn send_invite(&mut self, id: DialogId, now: Instant) {
        let branch = self.fresh_branch();
        let allow = self.allow();
        let Some(outgoing) = self.outgoing.get_mut(&id) else { return };
        let Some(path) = outgoing.target() else {
            self.refused(id, 503, "No way to the peer", Vec::new());
            return;
        };
        let stream = self.config.tcp_port.filter(|_| outgoing.may_stream());
        let offer = outgoing.offer().to_vec();
        let config = &self.config;
        let mut build = |path: Path| {
            let attempt = outgoing.attempt(path, config.sent_by(path), branch.clone());
            let builder = attempt
                .builder
                .contact(&config.contact(path))
                .header("Allow", &allow)
                .header("Supported", config.supported())
                .header("Accept", SDP)
                .header("User-Agent", &config.server_name)
                .body(SDP, &offer);
            (attempt.origin, Transmit { path: attempt.path, bytes: builder.build().into() })
        };
        let (mut origin, mut transmit) = build(path);
        let is_long = transmit.bytes.len() > MAX_DATAGRAM_REQUEST;
        let mut streamed = false;
        if let (true, Transport::Udp, Some(port)) = (is_long, path.transport, stream) {
            (origin, transmit) = build(over_tcp(path, port));
            streamed = true;
        }
        let (transaction, transmit) =
            self.transactions.invite_out(origin, Asker::Invite(id), transmit, now);
        if let Some(outgoing) = self.outgoing.get_mut(&id) {
            outgoing.sent(transaction, streamed);
        }
        self.transmit(transmit);
    }

    /// Our side does not want the call any more.
    pub(super) fn hang_up_outgoing(&mut self, id: DialogId, wish: HangUp, now: Instant) {
        let Some(outgoing) = self.outgoing.get_mut(&id) else { return };
        match outgoing.hang_up(wish, now) {
            Cancellation::Now => self.send_cancel(id, now),
            Cancellation::Later | Cancellation::TooLate => debug!(?id, "CANCEL has to wait"),
        }
    }

    fn send_cancel(&mut self, id: DialogId, now: Instant) {
        let Some(outgoing) = self.outgoing.get(&id) else { return };
        self.dialog_schedule.set(id, outgoing.poll_timeout());
        let pending = outgoing.transaction().and_then(|tx| self.transactions.pending_invite(tx));
        let Some((origin, path)) = pending else { return };
        let (_, _, branch) = origin.via.clone();
        let bytes = origin.cancel(outgoing.reason(), &self.config.server_name);
        let cancel = Transmit { path, bytes };
        let method = Method::Cancel;
        let transmit =
            self.transactions.request((branch, method.as_str()), Asker::Nobody, cancel, now);
        self.transmit(transmit);
    }

    /// A canceled INVITE was never answered (§9.1).
    pub(super) fn outgoing_timeout(&mut self, id: DialogId) {
        let Some(outgoing) = self.forget_outgoing(id) else { return };
        if let Some(transaction) = outgoing.transaction() {
            self.transactions.give_up(transaction);
        }
        self.tell(Event::Ended { dialog: id, how: Ending::TimedOut });
    }

    /// Nobody answered the INVITE.
    pub(super) fn invite_timed_out(&mut self, id: DialogId, now: Instant) {
        match self.outgoing.get_mut(&id).map(Outgoing::next_target) {
            Some(true) => self.send_invite(id, now),
            Some(false) => self.refused(id, 408, "No answer from the peer", Vec::new()),
            None => {}
        }
    }

    /// The INVITE could not be delivered.
    pub(super) fn invite_undelivered(&mut self, id: DialogId, now: Instant) {
        match self.outgoing.get_mut(&id).map(Outgoing::unreachable) {
            Some(true) => self.send_invite(id, now),
            Some(false) => self.refused(id, 503, "The peer cannot be reached", Vec::new()),
            None => {}
        }
    }

    /// No more 2xx can come.
    pub(super) fn invite_over(&mut self, id: DialogId) {
        self.forget_outgoing(id);
    }

    pub(super) fn handle_invite_response(
        &mut self,
        id: DialogId,
        news: News,
        response: &Response,
        path: Path,
        now: Instant,
    ) {
        match news {
            News::Provisional => self.handle_provisional(id, response, path, now),
            News::Accepted => self.handle_acceptance(id, response, path, now),
            News::Refused => self.handle_refusal(id, response, now),
            News::RefusedAgain | News::None => {}
        }
    }

    fn handle_provisional(&mut self, id: DialogId, response: &Response, path: Path, now: Instant) {
        let Some(outgoing) = self.outgoing.get_mut(&id) else { return };
        if outgoing.proceed(now) {
            self.send_cancel(id, now);
        }
        let Some(outgoing) = self.outgoing.get(&id).filter(|outgoing| !outgoing.is_unwanted())
        else {
            return;
        };
        if response.status() == 100 || outgoing.winner().is_some() {
            return;
        }
        self.follow(id, response, path);
        if response.lists("Require", "100rel") && !self.acknowledge(id, response, now) {
            return;
        }
        self.tell(Event::Progress { dialog: id, status: response.status() });
    }

    /// A provisional response with a tag makes an early dialog (§12.1), as long as there are not too
    /// many.
    fn follow(&mut self, id: DialogId, response: &Response, path: Path) {
        let (Some(outgoing), Some(tag)) = (self.outgoing.get_mut(&id), response.to().tag()) else {
            return;
        };
        let Some((origin, sent_path)) =
            outgoing.transaction().and_then(|tx| self.transactions.pending_invite(tx))
        else {
            return;
        };
        let way = way_of(sent_path, path);
        if !outgoing.follow(tag, || Dialog::calling(origin, response, way)) {
            debug!(?id, "too many forks to follow one more");
        }
    }

    /// Sends the PRACK of a reliable provisional response (RFC 3262 §4); false when it is not the
    /// next one, and so must not be looked at.
    fn acknowledge(&mut self, id: DialogId, response: &Response, now: Instant) -> bool {
        let (Some(rseq), Some(tag)) =
            (response.header("RSeq").and_then(parse_number), response.to().tag())
        else {
            return false;
        };
        let branch = self.fresh_branch();
        let Some(outgoing) = self.outgoing.get_mut(&id) else { return false };
        let cseq = outgoing.cseq();
        let Some(fork) = outgoing.fork(tag) else { return false };
        if fork.rseq.is_some_and(|newest| rseq != newest.wrapping_add(1)) {
            debug!(?id, rseq, "reliable response out of order, or again");
            return false;
        }
        fork.rseq = Some(rseq);
        if fork.answer.is_none() {
            fork.answer = sdp_of(response);
        }
        let sent_by = self.config.sent_by(fork.dialog.next_hop());
        let hop = Hop { sent_by: &sent_by, branch: &branch };
        let (builder, _, path) = fork.dialog.request(Method::Prack, hop);
        let prack = builder
            .header("RAck", &format!("{rseq} {cseq} INVITE"))
            .header("User-Agent", &self.config.server_name);
        self.ask(branch, Method::Prack, Asker::Nobody, prack, path, now);
        true
    }

    /// A 2xx came: the first makes the call, the others are hung up (§13.2.2.4).
    fn handle_acceptance(&mut self, id: DialogId, response: &Response, path: Path, now: Instant) {
        let tag = response.to().tag().unwrap_or_default().to_owned();
        let cseq = response.cseq().number;
        let Some(outgoing) = self.outgoing.get_mut(&id) else { return };
        if outgoing.winner() == Some(&tag) {
            let ack = self.dialogs.get(&id).and_then(|dialog| dialog.sent_ack(cseq));
            if let Some(ack) = ack {
                self.transmit(ack);
            }
            return;
        }
        let Some((origin, sent_path)) =
            outgoing.transaction().and_then(|tx| self.transactions.invite_of(tx))
        else {
            return;
        };
        let mut dialog = Dialog::calling(origin, response, way_of(sent_path, path));
        if let Some(early) = outgoing.fork(&tag) {
            dialog.goes_on_from(&early.dialog);
        }
        if outgoing.winner().is_some() {
            self.hang_up_fork(id, &tag, dialog, now);
            return;
        }
        let early = outgoing.take_fork(&tag);
        dialog.placed(outgoing.offer(), outgoing.all_credentials());
        dialog.keep_session(SessionTimer::accept(response, now));
        let branch = self.fresh_branch();
        if let Some(ack) = self.ack_of(id, &dialog, cseq, &branch) {
            dialog.acknowledged(cseq, ack.clone());
            self.transmit(ack);
        }
        self.dialogs_by_key.insert(dialog.key().clone(), id);
        self.dialogs.insert(id, dialog);
        self.schedule_dialog(id);
        let unwanted = self.outgoing.get_mut(&id).and_then(|outgoing| outgoing.win(&tag));
        match unwanted {
            Some(hang_up) => self.hang_up(id, hang_up, now),
            None => {
                let description = sdp_of(response).or(early.and_then(|early| early.answer));
                self.tell(Event::Answered { dialog: id, description });
            }
        }
    }

    /// The ACK of a 2xx to our first INVITE; it carries the INVITE's credentials (§22.1).
    fn ack_of(&self, id: DialogId, dialog: &Dialog, cseq: u32, branch: &str) -> Option<Transmit> {
        let sent_by = self.config.sent_by(dialog.next_hop());
        let (builder, path) = dialog.ack(cseq, Hop { sent_by: &sent_by, branch });
        let builder = self.outgoing.get(&id)?.authorized(builder);
        let bytes = builder.header("User-Agent", &self.config.server_name).build().into();
        Some(Transmit { path, bytes })
    }

    /// Somebody answered after somebody else: ACK, then BYE, and no call hears of it. When there are
    /// too many of them to remember, each 2xx is taken for the first of its fork, and gets the same
    /// ACK and BYE.
    fn hang_up_fork(&mut self, id: DialogId, tag: &str, mut dialog: Dialog, now: Instant) {
        let Some(outgoing) = self.outgoing.get(&id) else { return };
        if let Some(ack) = outgoing.sent_ack(tag) {
            self.transmit(ack);
            return;
        }
        let cseq = outgoing.cseq();
        let name = outgoing.name();
        let branch_of = |method: Method| {
            format!("{MAGIC_COOKIE}{}", self.tag_of(&(&name, cseq, tag, method.as_str())))
        };
        let (ack_branch, bye_branch) = (branch_of(Method::Ack), branch_of(Method::Bye));
        let Some(ack) = self.ack_of(id, &dialog, cseq, &ack_branch) else { return };
        let sent_by = self.config.sent_by(dialog.next_hop());
        let hop = Hop { sent_by: &sent_by, branch: &bye_branch };
        let (bye, _, path) = dialog.request(Method::Bye, hop);
        let bye = bye
            .header("Reason", "SIP;cause=200;text=\"Call completed elsewhere\"")
            .header("User-Agent", &self.config.server_name);
        self.transmit(ack.clone());
        let remembered = self.outgoing.get_mut(&id).and_then(|outgoing| {
            outgoing.follow(tag, || dialog);
            outgoing.fork(tag)
        });
        match remembered {
            Some(fork) => {
                fork.ack = Some(ack);
                self.ask(bye_branch, Method::Bye, Asker::Nobody, bye, path, now);
            }
            None => self.send(path, bye.build()),
        }
    }

    fn handle_refusal(&mut self, id: DialogId, response: &Response, now: Instant) {
        let status = response.status();
        let authorization = self.answer_to_invite(id, response);
        let Some(outgoing) = self.outgoing.get_mut(&id) else { return };
        let again = match status {
            401 | 407 => authorization.is_some_and(|header| outgoing.authorize(header)),
            422 => response
                .header("Min-SE")
                .and_then(|value| parse_number(value.split(';').next()?.trim()))
                .is_some_and(|least| outgoing.lengthen_session(least)),
            NO_ROOM => outgoing.next_target(),
            _ => false,
        };
        if again {
            self.send_invite(id, now);
            return;
        }
        let contacts = if status / 100 == 3 { response.contacts().to_vec() } else { Vec::new() };
        let reason = match response.reason() {
            "" => reason_phrase(status),
            reason => reason,
        };
        self.refused(id, status, reason, contacts);
    }

    /// The header field that answers the challenge of our first INVITE.
    fn answer_to_invite(&mut self, id: DialogId, response: &Response) -> Option<(String, String)> {
        let outgoing = self.outgoing.get(&id)?;
        let credentials = outgoing.credentials()?;
        let uri = outgoing.request_uri();
        answer_challenge(response, &Method::Invite, uri, credentials, &mut self.rng)
    }

    /// The call will not be. Whoever has hung up hears that it has ended.
    fn refused(&mut self, id: DialogId, status: u16, reason: &str, contacts: Vec<NameAddr>) {
        let Some(outgoing) = self.forget_outgoing(id) else { return };
        self.dialog_schedule.set(id, None);
        let event = if outgoing.is_unwanted() {
            Event::Ended { dialog: id, how: Ending::Answered }
        } else {
            Event::Refused { dialog: id, status, reason: reason.to_owned(), contacts }
        };
        self.tell(event);
    }

    /// Sends a request other than INVITE in a transaction of its own.
    pub(super) fn ask(
        &mut self,
        branch: String,
        method: Method,
        asker: Asker,
        request: RequestBuilder,
        path: Path,
        now: Instant,
    ) {
        let bytes: Bytes = request.build().into();
        let transmit = Transmit { path, bytes };
        let transmit = self.transactions.request((branch, method.as_str()), asker, transmit, now);
        self.transmit(transmit);
    }
}

/// The header field that answers the challenge in a 401 or 407: name and value (RFC 3261 §22.2). Only
/// the realm that the password is for gets an answer.
pub(super) fn answer_challenge(
    response: &Response,
    method: &Method,
    uri: &Uri,
    credentials: &Credentials,
    rng: &mut StdRng,
) -> Option<(String, String)> {
    let (asked, answered) = match response.status() {
        401 => ("WWW-Authenticate", "Authorization"),
        407 => ("Proxy-Authenticate", "Proxy-Authorization"),
        _ => return None,
    };
    let challenges: Vec<&str> = response.headers(asked).collect();
    let cnonce = format!("{:016x}", rng.random::<u64>());
    match digest::answer(&challenges, method, &uri.to_string(), credentials, 1, &cnonce) {
        Ok(value) => Some((answered.to_owned(), value)),
        Err(error) => {
            warn!(
                sip.call_id = response.call_id(),
                challenges = ?challenges,
                "A challenge is not answered: {error}; a trunk's realm is set by trunks.realm"
            );
            None
        }
    }
}

/// The way of the dialog: that of the INVITE, over the stream that the answer came by.
pub(super) fn way_of(sent: Path, answered: Path) -> Path {
    if sent.transport == answered.transport && sent.transport.is_reliable() {
        answered
    } else {
        sent
    }
}

/// The same hop over TCP.
fn over_tcp(path: Path, port: u16) -> Path {
    let mut local = path.local;
    local.set_port(port);
    Path { local, transport: Transport::Tcp, connection: None, ..path }
}

/// The session description in a response, if it has one.
pub(super) fn sdp_of(response: &Response) -> Option<Vec<u8>> {
    let content_type = response.content_type().unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let is_sdp = !response.body().is_empty() && media_type.eq_ignore_ascii_case(SDP);
    is_sdp.then(|| response.body().to_vec())
}
