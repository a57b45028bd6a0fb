//! The SIP endpoint: all transactions and dialogs of one node as one machine (RFC 3261, UAS side).
//!
//! Comes in: datagrams, commands of the calls, time. Goes out: datagrams and events. It answers by
//! itself what needs no decision: 100, OPTIONS, CANCEL, BYE, INFO, requests that it cannot take, and
//! everything that comes again. It opens no socket, reads no clock, resolves no name, and does not
//! look into SDP.
//!
//! Call one `handle_*`, then `poll_output` until `None`, then wait until `poll_timeout`.
//!
//! Requests that create nothing are answered without state (§8.2.7): their To tag is made of the
//! request itself, so that the same request gets the same answer. A flood of them costs no memory.

mod commands;
mod event;
mod requests;
mod responses;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::{Rng, rngs::StdRng};
use tracing::debug;

pub use self::event::{Command, Ending, Event, IncomingInvite, Output};
pub use super::{
    dialog::DialogId,
    path::{ConnectionId, Path, Transmit, Transport},
};
use super::{
    dialog::{Dialog, DialogKey, Due as DialogDue, HangUp},
    message::{Message, Method, Response},
    timers::Schedule,
    transaction::{Due as TransactionDue, TransactionTable, key::MAGIC_COOKIE},
    wire::{self, WireError},
};

/// What an endpoint says of itself, and how much it takes on.
#[derive(Debug, Clone)]
pub struct EndpointConfig {
    /// Server and User-Agent header field.
    pub server_name: String,
    /// User part of our Contact.
    pub contact_user: String,
    /// The address in Contact and Via; `None` tells the one that the peer reached.
    pub advertised: Option<IpAddr>,
    /// Methods that are taken; others get 405.
    pub allow: Vec<Method>,
    /// New requests get 503 when so many transactions are open.
    pub max_transactions: usize,
    /// New calls get 503 when so many dialogs are open.
    pub max_dialogs: usize,
    /// When to come again after a 503.
    pub retry_after: Duration,
}

impl EndpointConfig {
    /// The usual endpoint.
    pub fn new(server_name: String) -> Self {
        Self {
            server_name,
            contact_user: "aftertone".to_owned(),
            advertised: None,
            allow: vec![
                Method::Invite,
                Method::Ack,
                Method::Cancel,
                Method::Bye,
                Method::Options,
                Method::Info,
                Method::Update,
            ],
            max_transactions: 20_000,
            max_dialogs: 5_000,
            retry_after: Duration::from_secs(10),
        }
    }
}

/// All transactions and dialogs of one node.
#[derive(Debug)]
pub struct Endpoint {
    config: EndpointConfig,
    rng: StdRng,
    /// Makes the To tags of stateless answers hard to foresee.
    tag_secret: u64,
    draining: bool,
    last_dialog: u64,
    dialogs: BTreeMap<DialogId, Dialog>,
    dialogs_by_key: BTreeMap<DialogKey, DialogId>,
    dialog_schedule: Schedule<DialogId>,
    transactions: TransactionTable,
    outputs: VecDeque<Output>,
}

impl Endpoint {
    /// An endpoint without any dialog. All tags and branches come from `rng`.
    pub fn new(config: EndpointConfig, mut rng: StdRng) -> Self {
        Self {
            config,
            tag_secret: rng.random(),
            rng,
            draining: false,
            last_dialog: 0,
            dialogs: BTreeMap::new(),
            dialogs_by_key: BTreeMap::new(),
            dialog_schedule: Schedule::new(),
            transactions: TransactionTable::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes one message as it came over `path`: a datagram, or what the framing of a stream cut out.
    pub fn handle_message(&mut self, bytes: &[u8], path: Path, now: Instant) {
        match wire::parse_datagram(bytes) {
            Ok(Message::Request(mut request)) => {
                request.set_received(path.peer.ip(), path.peer.port());
                self.handle_request(request, path, now);
            }
            Ok(Message::Response(response)) => self.handle_response(&response, now),
            Err(WireError::KeepAlive) => {}
            Err(WireError::Answerable { status, reason, mut request }) => {
                request.set_received(path.peer.ip(), path.peer.port());
                debug!(peer = %path.peer, status, reason, "request is refused");
                self.refuse_stub(&request, status, reason, path);
            }
            Err(error @ WireError::Unreadable) => {
                debug!(peer = %path.peer, %error, "datagram is dropped");
            }
        }
    }

    /// Carries out what the owner of a call wants.
    pub fn handle_command(&mut self, command: Command, now: Instant) {
        let id = command.dialog();
        if !self.dialogs.contains_key(&id) {
            debug!(?id, "command for a dialog that is over");
            return;
        }
        match command {
            Command::Ring { .. } => self.ring(id, now),
            Command::Answer { sdp, .. } => self.answer(id, &sdp, now),
            Command::Refuse { status, reason, headers, .. } => {
                self.refuse(id, status, &reason, &headers, now);
            }
            Command::Bye { reason, .. } => self.hang_up(id, HangUp { reason }, now),
        }
    }

    /// A message could not be delivered over `path`: nobody listens there, or the stream is lost.
    pub fn handle_unreachable(&mut self, path: Path, _now: Instant) {
        debug!(peer = %path.peer, "peer cannot be reached");
    }

    /// Lets every timer fire that is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(due) = self.transactions.handle_timeout(now) {
            match due {
                TransactionDue::Transmit(transmit) => self.transmit(transmit),
                TransactionDue::TimedOut(dialog) => self.end(dialog, Ending::TimedOut),
            }
        }
        while let Some(id) = self.dialog_schedule.pop_due(now) {
            let Some(dialog) = self.dialogs.get_mut(&id) else { continue };
            match dialog.handle_timeout(now) {
                Some(DialogDue::Resend(bytes)) => {
                    let path = dialog.path();
                    self.transmit(Transmit { path, bytes });
                }
                Some(DialogDue::Unacknowledged(hang_up)) => {
                    self.tell(Event::NotAcknowledged { dialog: id });
                    self.send_bye(id, hang_up, now);
                }
                None => {}
            }
            self.schedule_dialog(id);
        }
    }

    /// While draining, new calls and OPTIONS are answered by 503.
    pub fn set_draining(&mut self, draining: bool) {
        self.draining = draining;
    }

    /// What is to be done next; `None` when there is nothing more.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `handle_timeout` wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.transactions.poll_timeout(), self.dialog_schedule.next()].into_iter().flatten().min()
    }

    /// Nothing is left of any call: no dialog, no transaction, no timer.
    pub fn is_idle(&self) -> bool {
        self.dialogs.is_empty() && self.transactions.len() == 0 && self.poll_timeout().is_none()
    }

    /// A dialog goes over this stream.
    pub fn needs(&self, connection: ConnectionId) -> bool {
        self.dialogs.values().any(|dialog| dialog.path().connection == Some(connection))
    }

    /// How many dialogs there are.
    pub fn dialogs(&self) -> usize {
        self.dialogs.len()
    }

    /// A response came: it can only be to our BYE.
    fn handle_response(&mut self, response: &Response, now: Instant) {
        // More than one Via: it was routed to us by mistake (§8.1.3.3).
        let [via] = response.vias() else {
            debug!("response with more than one Via is dropped");
            return;
        };
        let branch = via.branch.as_deref().unwrap_or_default();
        match self.transactions.handle_response(branch, response.status(), now) {
            Some(dialog) => self.end(dialog, Ending::Answered),
            None => debug!(status = response.status(), "stray or repeated response is dropped"),
        }
    }

    fn schedule_dialog(&mut self, id: DialogId) {
        let due = self.dialogs.get(&id).and_then(Dialog::poll_timeout);
        self.dialog_schedule.set(id, due);
    }

    /// Our BYE is done.
    fn end(&mut self, id: DialogId, how: Ending) {
        if self.forget_dialog(id) {
            self.tell(Event::Ended { dialog: id, how });
        }
    }

    fn forget_dialog(&mut self, id: DialogId) -> bool {
        self.dialog_schedule.set(id, None);
        let Some(dialog) = self.dialogs.remove(&id) else { return false };
        self.dialogs_by_key.remove(dialog.key());
        true
    }

    fn transmit(&mut self, transmit: Transmit) {
        self.outputs.push_back(Output::Transmit(transmit));
    }

    fn tell(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn send(&mut self, path: Path, bytes: impl Into<Bytes>) {
        self.transmit(Transmit { path, bytes: bytes.into() });
    }

    fn fresh_tag(&mut self) -> String {
        format!("{:016x}", self.rng.random::<u64>())
    }

    fn fresh_branch(&mut self) -> String {
        format!("{MAGIC_COOKIE}{:016x}", self.rng.random::<u64>())
    }
}
