//! The SIP endpoint: all transactions and dialogs of one node in one state machine (RFC 3261).
//!
//! In: messages, commands from the calls, and time. Out: messages and events. The endpoint itself
//! answers what needs no decision by a call: 100, OPTIONS, CANCEL, BYE, INFO, PRACK, requests that
//! it cannot accept, and retransmissions. It sends ACK and refreshes sessions. It opens no socket,
//! reads no clock, resolves no name, and does not read SDP.
//!
//! Call one `handle_*`, then `poll_output` until `None`, then wait until `poll_timeout`.
//!
//! A request that creates no dialog is answered without state (§8.2.7). The To tag of the answer is
//! computed from the request, so that the same request gets the same answer. A flood of such
//! requests costs no memory.

mod arrived;
mod asking;
mod calling;
mod commands;
mod config;
mod dialog_table;
mod early;
mod event;
mod fresh;
mod inside;
mod keep_alive;
mod known_addresses;
mod referred;
mod referring;
mod registering;
mod requests;
mod responder;
mod responses;
mod standing;
#[cfg(test)]
mod tests;
mod trunks;
mod users;
mod within;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use ipnet::IpNet;
use rand::{Rng, SeedableRng, rngs::StdRng};
use tracing::debug;

use self::{
    arrived::Arrived, dialog_table::DialogTable, known_addresses::KnownAddresses,
    responder::Responder, trunks::Trunks, users::Users,
};
pub use self::{
    config::EndpointConfig,
    event::{Command, Ending, Event, IncomingInvite, IncomingReferral, Loss, OutgoingCall, Output},
    trunks::TrunkAccount,
};
use super::{
    Status,
    dialog::{DialogDue, HangUp, allowed_for},
    message::{Message, Response},
    registrar::{Registrar, RegistrarConfig},
    timers::SIXTY_FOUR_T1,
    transaction::{Due as TransactionDue, InviteAnswer, TransactionTable, TransactionUser},
    transmit::NextHop,
    wire::{self, WireError},
};
pub use super::{
    dialog_id::DialogId,
    outgoing::Place,
    path::{ConnectionId, Path, Transport},
    registrar::Binding,
    transmit::Transmit,
};

/// All transactions and dialogs of one node.
#[derive(Debug)]
pub struct Endpoint {
    config: Arc<EndpointConfig>,
    rng: StdRng,
    draining: bool,
    responder: Responder,
    users: Users,
    /// Networks of peers that the operator trusts.
    trusted_peers: Vec<IpNet>,
    registrar: Registrar,
    /// Our registrations at trunks.
    trunks: Trunks,
    /// When the next keep-alives to peers behind a NAT are due.
    keep_alive_at: Option<Instant>,
    known_addresses: KnownAddresses,
    dialogs: DialogTable,
    transactions: TransactionTable,
    outputs: VecDeque<Output>,
}

impl Endpoint {
    /// An endpoint without dialogs. All tags and branches come from `rng`.
    pub fn new(config: EndpointConfig, mut rng: StdRng) -> Self {
        let config = Arc::new(config);
        let responder = Responder::new(Arc::clone(&config), rng.random());
        let trunks = Trunks::new(Arc::clone(&config), StdRng::from_rng(&mut rng));
        Self {
            config,
            responder,
            rng,
            draining: false,
            users: Users::default(),
            trusted_peers: Vec::new(),
            registrar: Registrar::new(RegistrarConfig::default()),
            trunks,
            keep_alive_at: None,
            known_addresses: KnownAddresses::default(),
            dialogs: DialogTable::new(),
            transactions: TransactionTable::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Handles one message that came over `path`: a datagram, or one message framed from a stream.
    pub fn handle_message(&mut self, bytes: &[u8], path: Path, now: Instant) {
        if path.transport == Transport::Udp && self.handle_stun(bytes, path, now) {
            return;
        }
        match wire::parse_datagram(bytes) {
            Ok(Message::Request(mut request)) => {
                request.set_received(path.peer.ip(), path.peer.port());
                let path = path.answering(request.top_via());
                self.handle_request(Arrived::new(request, path, bytes.len(), now));
            }
            Ok(Message::Response(response)) => self.handle_response(&response, path, now),
            Err(WireError::KeepAlive) => {}
            Err(WireError::Answerable { status, reason, mut request }) => {
                request.set_received(path.peer.ip(), path.peer.port());
                let via = request.top_via();
                let path = via.as_ref().map_or(path, |via| path.answering(via));
                let next_hop = via.map_or(NextHop::Peer, |via| NextHop::of_response(path, &via));
                debug!(peer = %path.peer, status = status.code(), reason, "request is refused");
                let response = self.responder.refusal_of_stub(&request, status, reason);
                self.send_within(allowed_for(bytes.len()), (path, next_hop), &response);
            }
            Err(error @ WireError::Unreadable) => {
                debug!(peer = %path.peer, %error, "datagram is dropped");
            }
        }
    }

    /// Carries out a command from the owner of a call.
    pub fn handle_command(&mut self, command: Command, now: Instant) {
        let id = command.dialog();
        if !self.dialogs.is_known(id) && !matches!(command, Command::Call { .. }) {
            debug!(?id, "command for a dialog that is over");
            return;
        }
        match command {
            Command::Call { call, .. } => self.call(id, *call, now),
            Command::Challenge { .. } => self.challenge(id, now),
            Command::Ring { .. } => self.ring(id, now),
            Command::Answer { sdp, .. } => self.answer(id, &sdp, now),
            Command::Refuse { status, reason, headers, .. } => {
                self.refuse(id, status, &reason, &headers, now);
            }
            Command::Refer { target, replaces, .. } => self.refer(id, &target, replaces, now),
            Command::TellReferrer { status, .. } => self.tell_referrer(id, status, now),
            Command::MakeRoom { .. } => self.make_room(id, now),
            Command::Bye { reason, .. } => self.hang_up(id, HangUp { reason }, now),
        }
    }

    /// Runs all timers that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.registrar.handle_timeout(now);
        self.note_phones();
        self.trunks.handle_timeout(now);
        self.send_registers(now);
        self.keep_alive(now);
        while let Some(due) = self.transactions.handle_timeout(now) {
            match due {
                TransactionDue::Transmit(transmit) => self.transmit(transmit),
                TransactionDue::TimedOut(user, path) => {
                    // This comes before the next attempt, which may use the same stream.
                    if path.transport.is_reliable() {
                        self.outputs.push_back(Output::Silent(path));
                    }
                    match user {
                        TransactionUser::Invite(dialog) => self.invite_timed_out(dialog, now),
                        user => self.unanswered(user, now),
                    }
                }
                TransactionDue::InviteOver(dialog) => self.invite_over(dialog),
            }
        }
        while let Some(id) = self.dialogs.pop_due(now) {
            let Some(dialog) = self.dialogs.get_mut(id) else {
                self.outgoing_timeout(id);
                continue;
            };
            match dialog.handle_timeout(now) {
                Some(DialogDue::Resend(again)) => {
                    if let Some(ringing) = dialog.pending() {
                        self.transactions.note_told(ringing.transaction);
                    }
                    self.transmit(again);
                }
                Some(DialogDue::NotPracked) => self.give_up_ringing(id, now),
                Some(DialogDue::Unacknowledged(hang_up)) if dialog.target.is_unproven() => {
                    self.tell(Event::Lost { dialog: id, how: Loss::NotAcknowledged });
                    self.send_last_bye(id, hang_up);
                    self.end(id, Ending::TimedOut, now);
                }
                Some(DialogDue::Unacknowledged(hang_up)) => {
                    self.lose(id, Loss::NotAcknowledged, hang_up, now);
                }
                Some(DialogDue::Refresh) => self.refresh(id, now),
                Some(DialogDue::Unanswered(reinvite)) => {
                    self.reinvite_unanswered(id, reinvite, now);
                }
                Some(DialogDue::ReferOver) => {
                    self.tell(Event::Referred { dialog: id, status: Status::REQUEST_TIMEOUT });
                }
                Some(DialogDue::Expired(pending, hang_up)) => {
                    if let Some(pending) = pending {
                        self.respond(&pending, Status::REQUEST_TERMINATED, now);
                    }
                    self.lose(id, Loss::NotRefreshed, hang_up, now);
                }
                None => {}
            }
        }
    }

    /// Replaces our users, given as names and passwords.
    pub fn set_users<'a>(&mut self, users: impl Iterator<Item = (&'a str, &'a str)>, now: Instant) {
        for gone in self.users.replace(users.collect(), &self.config, &mut self.rng, now) {
            self.registrar.remove_user(&gone);
        }
        self.responder.has_users = !self.users.is_empty();
        self.note_phones();
    }

    /// The contacts of a user of ours, the best one first.
    pub fn phones(&self, user: &str, now: Instant) -> Vec<Binding> {
        self.registrar.contacts(user, now)
    }

    /// While draining, new calls and OPTIONS are answered by 503.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// The next output; `None` if there is no more.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `handle_timeout` is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = [
            self.transactions.poll_timeout(),
            self.dialogs.poll_timeout(),
            self.registrar.poll_timeout(),
            self.trunks.poll_timeout(),
            self.keep_alive_at,
        ];
        due.into_iter().flatten().min()
    }

    /// Whether nothing is left: no dialog, no transaction, no registration.
    pub fn is_idle(&self) -> bool {
        self.dialogs.is_empty()
            && self.transactions.len() == 0
            && self.transactions.poll_timeout().is_none()
            && self.dialogs.poll_timeout().is_none()
            && self.registrar.poll_timeout().is_none()
            && self.trunks.poll_timeout().is_none()
    }

    /// Whether no peer waits for a message of ours: there is no call, and no request that waits for
    /// its final response.
    pub fn is_quiet(&self) -> bool {
        !self.dialogs.is_in_use() && !self.transactions.are_asking()
    }

    /// Whether a dialog uses this stream, or a phone or a trunk is reached over it.
    pub fn needs(&self, connection: ConnectionId) -> bool {
        self.streams().any(|stream| stream == connection)
    }

    /// The number of dialogs.
    pub fn dialogs(&self) -> usize {
        self.dialogs.len()
    }

    fn handle_response(&mut self, response: &Response, path: Path, now: Instant) {
        // More than one Via: the response was misrouted to us (§8.1.3.3).
        let [via] = response.vias() else {
            debug!("response with more than one Via is dropped");
            return;
        };
        let branch = via.branch.as_deref().unwrap_or_default();
        let Some(heard) = self.transactions.handle_response(branch, response, now) else {
            debug!(status = response.status().code(), "stray response is dropped");
            return;
        };
        if let Some(ack) = heard.ack {
            self.transmit(ack);
        }
        // The response names the branch of a request that was sent to this address and to no other.
        if heard.path.peer.ip() == path.peer.ip()
            && let Some(dialog) = heard.user.dialog().and_then(|id| self.dialogs.get_mut(id))
        {
            dialog.target.answered_from(path);
        }
        if let Some(in_dialog) = heard.in_dialog
            && self.answer_challenge(*in_dialog, heard.user, response, now)
        {
            return;
        }
        let is_final = matches!(heard.answer, InviteAnswer::Accepted | InviteAnswer::Refused);
        match heard.user {
            TransactionUser::Invite(id) => {
                self.handle_invite_response(id, heard.answer, response, path, now)
            }
            TransactionUser::Reinvite(id) if is_final => {
                self.reinvite_answered(id, response, path, now)
            }
            TransactionUser::Reinvite(id) if heard.answer == InviteAnswer::Provisional => {
                let reinvite = (response.cseq().number, heard.transaction);
                self.reinvite_heard(id, reinvite, now);
            }
            TransactionUser::Update(id) if is_final => self.update_answered(id, response, now),
            TransactionUser::Refer(id) if is_final => {
                self.refer_answered(id, response.status(), now)
            }
            TransactionUser::Bye(id) if is_final => self.end(id, Ending::Answered, now),
            TransactionUser::Register(number) if is_final => {
                self.register_answered(number, response, heard.path.way_of_answer(path), now);
            }
            TransactionUser::Reinvite(_)
            | TransactionUser::Update(_)
            | TransactionUser::Refer(_)
            | TransactionUser::Bye(_)
            | TransactionUser::Register(_)
            | TransactionUser::None => {}
        }
    }

    /// A request of ours within a dialog, or a REGISTER, got no answer.
    fn unanswered(&mut self, user: TransactionUser, now: Instant) {
        match user {
            TransactionUser::Bye(id) => self.end(id, Ending::TimedOut, now),
            TransactionUser::Reinvite(id) | TransactionUser::Update(id) => self.lost_sight(id, now),
            TransactionUser::Register(number) => self.register_unanswered(number, now),
            TransactionUser::Refer(id) => self.refer_answered(id, Status::REQUEST_TIMEOUT, now),
            TransactionUser::Invite(_) | TransactionUser::None => {}
        }
    }

    /// Our hang-up is complete.
    fn end(&mut self, id: DialogId, how: Ending, now: Instant) {
        if self.forget_dialog(id, now) {
            self.tell(Event::Ended { dialog: id, how });
        }
    }

    fn forget_dialog(&mut self, id: DialogId, now: Instant) -> bool {
        let Some(dialog) = self.dialogs.remove(id) else { return false };
        if let Some(reinvite) = dialog.reinvite() {
            self.transactions.give_up_by(reinvite, now + SIXTY_FOUR_T1);
        }
        true
    }

    fn transmit(&mut self, transmit: Transmit) {
        self.outputs.push_back(Output::Transmit(transmit));
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}
