//! All transactions of one endpoint: found by key, driven by one schedule, removed when they end.
//!
//! Comes in: keys, responses to send, received responses, time. Goes out: what to transmit, and the
//! results of our own requests. Of a dialog the table knows only the id; of a message, only what
//! identifies its transaction.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use bytes::Bytes;

use super::{
    AckFor, Client, InviteAnswer, InviteClient, InviteServer, MergeKey, Origin, Server,
    TransactionKey, client::Due as ClientDue,
};
use crate::proto::sip::{
    Status,
    dialog::DialogId,
    in_dialog_request::InDialogRequest,
    message::Response,
    path::{ConnectionId, Path, Transport, source_of},
    timers::Schedule,
    transmit::{NextHop, Transmit},
    uri::Via,
};

/// One transaction of this endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TransactionId(u64);

/// What a deadline led to.
#[derive(Debug)]
pub(crate) enum Due {
    /// A message has to be sent again.
    Transmit(Transmit),
    /// A request of ours got no answer: the transaction user that it belongs to, and the path that
    /// it took.
    TimedOut(TransactionUser, Path),
    /// The INVITE with this dialog id was accepted, and no more 2xx to it can come.
    InviteOver(DialogId),
}

/// The transaction user that waits for the answer to a request of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TransactionUser {
    /// The INVITE that creates this dialog, if it is answered.
    Invite(DialogId),
    /// An INVITE within this dialog.
    Reinvite(DialogId),
    /// An UPDATE that keeps this dialog's session alive (RFC 4028).
    Update(DialogId),
    /// A REFER within this dialog (RFC 3515).
    Refer(DialogId),
    /// The BYE of this dialog.
    Bye(DialogId),
    /// The REGISTER with this number.
    Register(u64),
    /// No transaction user: the answer to CANCEL, PRACK, NOTIFY or the BYE of a late fork has no
    /// effect.
    None,
}

impl TransactionUser {
    /// The dialog that the request was sent in.
    pub(crate) fn dialog(self) -> Option<DialogId> {
        match self {
            Self::Reinvite(id) | Self::Update(id) | Self::Refer(id) | Self::Bye(id) => Some(id),
            Self::Invite(_) | Self::Register(_) | Self::None => None,
        }
    }
}

/// How often a request of ours is sent over UDP until it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sends {
    /// As often as the timers of the transaction say.
    Repeatedly,
    /// Once: the address or the port of the peer is unproven.
    Once,
}

/// What a response to a request of ours means.
#[derive(Debug)]
pub(crate) struct Heard {
    /// The transaction of the request.
    pub transaction: TransactionId,
    /// The transaction user of the request.
    pub user: TransactionUser,
    /// The path that the request took.
    pub path: Path,
    /// What the response means.
    pub answer: InviteAnswer,
    /// The ACK to send, if the response is a refusal.
    pub ack: Option<Transmit>,
    /// The refused request, if it may be sent again (with an answer to a challenge).
    pub in_dialog: Option<Box<InDialogRequest>>,
}

/// A request of ours that was not delivered.
#[derive(Debug)]
pub(crate) struct Undelivered {
    /// The transaction user of the request.
    pub user: TransactionUser,
    /// The request itself, if it may be sent again.
    pub in_dialog: Option<Box<InDialogRequest>>,
}

/// The transactions, their keys, and their deadlines.
#[derive(Debug)]
pub(crate) struct TransactionTable {
    next_id: u64,
    entries: BTreeMap<TransactionId, TransactionEntry>,
    servers: BTreeMap<TransactionKey, TransactionId>,
    /// Number of server transactions for each source.
    sources: BTreeMap<IpAddr, usize>,
    merges: BTreeMap<MergeKey, TransactionId>,
    /// By branch and method (RFC 3261 §17.1.3).
    clients: BTreeMap<(String, String), TransactionId>,
    schedule: Schedule<TransactionId>,
}

#[derive(Debug)]
struct TransactionEntry {
    /// The path that its messages take.
    path: Path,
    /// The next hop of its messages.
    next_hop: NextHop,
    role: TransactionRole,
}

impl TransactionEntry {
    fn transmit(&self, bytes: Bytes) -> Transmit {
        Transmit { path: self.path, next_hop: self.next_hop.clone(), bytes }
    }
}

#[derive(Debug)]
enum TransactionRole {
    InviteServer {
        machine: InviteServer,
        key: TransactionKey,
        merge: Option<MergeKey>,
        invite: Invite,
    },
    Server {
        machine: Server,
        key: TransactionKey,
    },
    InviteClient {
        machine: InviteClient,
        origin: Box<Origin>,
        user: TransactionUser,
        in_dialog: Option<Box<InDialogRequest>>,
    },
    Client {
        machine: Client,
        key: (String, String),
        user: TransactionUser,
        in_dialog: Option<Box<InDialogRequest>>,
    },
}

/// What the table knows of a received INVITE besides its state.
#[derive(Debug, Clone)]
pub(crate) struct Invite {
    /// The dialog that the INVITE created or changes; `None` if the INVITE was refused at once.
    pub dialog: Option<DialogId>,
    /// Our tag in its responses.
    pub local_tag: String,
    /// Size in bytes of an INVITE from a stranger that got no response other than the 100 sent at
    /// once; else `None`.
    pub stranger: Option<usize>,
}

impl TransactionTable {
    pub(crate) fn new() -> Self {
        Self {
            next_id: 0,
            entries: BTreeMap::new(),
            servers: BTreeMap::new(),
            sources: BTreeMap::new(),
            merges: BTreeMap::new(),
            clients: BTreeMap::new(),
            schedule: Schedule::new(),
        }
    }

    // -- servers -----------------------------------------------------------------------------

    /// Opens the server transaction of an INVITE that took `path` with `via` on top, and sends
    /// `trying`; without `trying`, nothing is sent before the response.
    pub(crate) fn open_invite(
        &mut self,
        key: TransactionKey,
        merge: Option<MergeKey>,
        invite: Invite,
        (path, via): (Path, &Via),
        trying: Option<Bytes>,
    ) -> (TransactionId, Option<Transmit>) {
        let id = self.fresh_id();
        self.note_server(&key, id, path);
        if let Some(merge) = &merge {
            self.merges.insert(merge.clone(), id);
        }
        let machine = match &trying {
            Some(trying) => InviteServer::new(trying.clone()),
            None => InviteServer::unanswered(),
        };
        let role = TransactionRole::InviteServer { machine, key, merge, invite };
        let entry = TransactionEntry { path, next_hop: NextHop::of_response(path, via), role };
        let trying = trying.map(|trying| entry.transmit(trying));
        self.entries.insert(id, entry);
        (id, trying)
    }

    /// Opens the server transaction of a request other than INVITE that took `path` with `via` on
    /// top. It is answered by `respond`.
    pub(crate) fn open(&mut self, key: TransactionKey, (path, via): (Path, &Via)) -> TransactionId {
        let id = self.fresh_id();
        self.note_server(&key, id, path);
        let role = TransactionRole::Server { machine: Server::new(), key };
        let next_hop = NextHop::of_response(path, via);
        self.entries.insert(id, TransactionEntry { path, next_hop, role });
        id
    }

    /// Opens the server transaction of a request other than INVITE, and answers it at once.
    pub(crate) fn answer(
        &mut self,
        key: TransactionKey,
        way: (Path, &Via),
        response: Bytes,
        now: Instant,
    ) -> Option<Transmit> {
        let id = self.open(key, way);
        self.respond(id, Status::OK, response, now)
    }

    /// Answers a request. Sends nothing when its final response was sent already. To a request
    /// other than INVITE the response must be final.
    pub(crate) fn respond(
        &mut self,
        id: TransactionId,
        status: Status,
        response: Bytes,
        now: Instant,
    ) -> Option<Transmit> {
        let entry = self.entries.get_mut(&id)?;
        let is_reliable = entry.path.transport.is_reliable();
        let (bytes, next) = match &mut entry.role {
            TransactionRole::InviteServer { machine, invite, .. } => {
                let bytes = machine.respond(status, response, is_reliable, now)?;
                invite.stranger = None;
                (bytes, machine.poll_timeout())
            }
            TransactionRole::Server { machine, .. } => {
                (machine.respond(response, is_reliable, now)?, machine.poll_timeout())
            }
            TransactionRole::InviteClient { .. } | TransactionRole::Client { .. } => return None,
        };
        self.schedule.set(id, next);
        Some(entry.transmit(bytes))
    }

    /// Keeps a provisional response to an INVITE until the INVITE is repeated.
    pub(crate) fn keep_provisional(&mut self, id: TransactionId, response: Bytes) {
        if let Some(TransactionEntry {
            role: TransactionRole::InviteServer { machine, .. }, ..
        }) = self.entries.get_mut(&id)
        {
            machine.keep_provisional(response);
        }
    }

    /// Timer G may repeat the refusal of an INVITE only within this many bytes.
    pub(crate) fn limit_repeats(&mut self, id: TransactionId, room: usize) {
        if let Some(TransactionEntry {
            role: TransactionRole::InviteServer { machine, .. }, ..
        }) = self.entries.get_mut(&id)
        {
            machine.limit_repeats(room);
        }
    }

    /// The repeated INVITE of a stranger was answered, so it cannot be taken back any more.
    pub(crate) fn note_told(&mut self, id: TransactionId) {
        if let Some(TransactionEntry {
            role: TransactionRole::InviteServer { invite, .. }, ..
        }) = self.entries.get_mut(&id)
        {
            invite.stranger = None;
        }
    }

    /// Removes the INVITE of a stranger that got no response other than the 100 sent at once: it
    /// can be refused as if it had no transaction (RFC 3261 §8.2.7). Returns the path and the next
    /// hop of the refusal, and the size of the INVITE in bytes.
    pub(crate) fn take_back(&mut self, id: TransactionId) -> Option<(Path, NextHop, usize)> {
        let bytes = self.invite(id)?.stranger?;
        let TransactionEntry { path, next_hop, .. } = self.entries.get(&id)?;
        let (path, next_hop) = (*path, next_hop.clone());
        self.forget_invite(id);
        Some((path, next_hop, bytes))
    }

    /// Removes an INVITE transaction: a repetition of the INVITE counts as a new one.
    pub(crate) fn forget_invite(&mut self, id: TransactionId) {
        self.schedule.set(id, None);
        self.forget(id);
    }

    /// Number of server transactions for this source.
    pub(crate) fn of_source(&self, ip: IpAddr) -> usize {
        self.sources.get(&source_of(ip)).copied().unwrap_or_default()
    }

    /// An ACK came for an INVITE transaction.
    pub(crate) fn handle_ack(&mut self, id: TransactionId, now: Instant) -> AckFor {
        let Some(TransactionEntry { role: TransactionRole::InviteServer { machine, .. }, .. }) =
            self.entries.get_mut(&id)
        else {
            return AckFor::Transaction;
        };
        let whom = machine.handle_ack(now);
        self.schedule.set(id, machine.poll_timeout());
        whom
    }

    /// The server transaction with this key.
    pub(crate) fn find(&self, key: &TransactionKey) -> Option<TransactionId> {
        self.servers.get(key).copied()
    }

    /// The message to send when the request of this transaction is repeated.
    pub(crate) fn repeat(&self, id: TransactionId) -> Option<Transmit> {
        let entry = self.entries.get(&id)?;
        let bytes = match &entry.role {
            TransactionRole::InviteServer { machine, .. } => machine.handle_retransmission(),
            TransactionRole::Server { machine, .. } => machine.handle_retransmission(),
            TransactionRole::InviteClient { .. } | TransactionRole::Client { .. } => None,
        }?;
        Some(entry.transmit(bytes))
    }

    /// What the table knows of the INVITE of this transaction.
    pub(crate) fn invite(&self, id: TransactionId) -> Option<&Invite> {
        match &self.entries.get(&id)?.role {
            TransactionRole::InviteServer { invite, .. } => Some(invite),
            TransactionRole::Server { .. }
            | TransactionRole::InviteClient { .. }
            | TransactionRole::Client { .. } => None,
        }
    }

    /// Whether the same request is being served already and has now come over another path (RFC
    /// 3261 §8.2.2.2).
    pub(crate) fn is_merged(&self, merge: &MergeKey) -> bool {
        self.merges.contains_key(merge)
    }

    // -- clients -----------------------------------------------------------------------------

    /// Opens an INVITE client transaction: `request`, of which `origin` is a part, is sent. The
    /// `in_dialog` is returned when the request is refused or not delivered.
    pub(crate) fn invite_out(
        &mut self,
        origin: Origin,
        (user, in_dialog): (TransactionUser, Option<Box<InDialogRequest>>),
        request: Transmit,
        sends: Sends,
        now: Instant,
    ) -> (TransactionId, Transmit) {
        let id = self.fresh_id();
        let Transmit { path, next_hop, bytes } = request.clone();
        let machine = InviteClient::new(bytes, is_once(path, sends), now);
        self.schedule.set(id, machine.poll_timeout());
        self.clients.insert(invite_key(&origin), id);
        let role =
            TransactionRole::InviteClient { machine, origin: Box::new(origin), user, in_dialog };
        self.entries.insert(id, TransactionEntry { path, next_hop, role });
        (id, request)
    }

    /// Opens a non-INVITE client transaction: `request` is sent, with `branch` in its Via. The
    /// `in_dialog` is returned when the request is refused or not delivered.
    pub(crate) fn request(
        &mut self,
        (branch, method): (String, &str),
        (user, in_dialog): (TransactionUser, Option<Box<InDialogRequest>>),
        request: Transmit,
        sends: Sends,
        now: Instant,
    ) -> Transmit {
        let id = self.fresh_id();
        let Transmit { path, next_hop, bytes } = request.clone();
        let machine = Client::new(bytes, is_once(path, sends), now);
        self.schedule.set(id, machine.poll_timeout());
        let key = (branch, method.to_owned());
        self.clients.insert(key.clone(), id);
        let role = TransactionRole::Client { machine, key, user, in_dialog };
        self.entries.insert(id, TransactionEntry { path, next_hop, role });
        request
    }

    /// The INVITE of this client transaction and its path, while no final response has come.
    pub(crate) fn pending_invite(&self, id: TransactionId) -> Option<(&Origin, Path)> {
        let entry = self.entries.get(&id)?;
        match &entry.role {
            TransactionRole::InviteClient { machine, origin, .. } if machine.is_pending() => {
                Some((origin, entry.path))
            }
            TransactionRole::InviteClient { .. }
            | TransactionRole::InviteServer { .. }
            | TransactionRole::Server { .. }
            | TransactionRole::Client { .. } => None,
        }
    }

    /// The CANCEL of this INVITE, which takes the same way (RFC 3261 §9.1), and the branch of both;
    /// `None` once the final response has come.
    pub(crate) fn cancel(
        &self,
        id: TransactionId,
        reason: Option<&str>,
        user_agent: &str,
    ) -> Option<(String, Transmit)> {
        let (origin, _) = self.pending_invite(id)?;
        let (_, _, branch) = origin.via.clone();
        Some((branch, self.entries.get(&id)?.transmit(origin.cancel(reason, user_agent))))
    }

    /// Our INVITE with this branch, while its transaction exists.
    pub(crate) fn sent_with(&self, branch: &str) -> Option<&Origin> {
        let key = (branch.to_owned(), "INVITE".to_owned());
        self.invite_of(*self.clients.get(&key)?).map(|(origin, _)| origin)
    }

    /// The INVITE of this client transaction and its path.
    pub(crate) fn invite_of(&self, id: TransactionId) -> Option<(&Origin, Path)> {
        let entry = self.entries.get(&id)?;
        match &entry.role {
            TransactionRole::InviteClient { origin, .. } => Some((origin, entry.path)),
            TransactionRole::InviteServer { .. }
            | TransactionRole::Server { .. }
            | TransactionRole::Client { .. } => None,
        }
    }

    /// The final response to this INVITE of ours, which got a provisional one, is not awaited any
    /// more. If it still comes before `until`, it is acknowledged.
    pub(crate) fn give_up_by(&mut self, id: TransactionId, until: Instant) {
        if let Some(TransactionEntry {
            role: TransactionRole::InviteClient { machine, .. }, ..
        }) = self.entries.get_mut(&id)
        {
            machine.give_up_by(until);
            self.schedule.set(id, machine.poll_timeout());
        }
    }

    /// Removes an INVITE of ours that will get no final response any more.
    pub(crate) fn give_up(&mut self, id: TransactionId) {
        if self.pending_invite(id).is_some() {
            self.schedule.set(id, None);
            self.forget(id);
        }
    }

    /// A response came to the request with `branch`; returns `None` when no request of ours
    /// matches.
    pub(crate) fn handle_response(
        &mut self,
        branch: &str,
        response: &Response,
        now: Instant,
    ) -> Option<Heard> {
        let key = (branch.to_owned(), response.cseq().method.to_string());
        let id = *self.clients.get(&key)?;
        let TransactionEntry { path, next_hop, role } = self.entries.get_mut(&id)?;
        let path = *path;
        let status = response.status();
        let (heard, next) = match role {
            TransactionRole::InviteClient { machine, origin, user, in_dialog } => {
                let (answer, ack) = machine.handle_response(status, || origin.ack(response), now);
                // §17.1.1.3: the ACK goes to where the INVITE went.
                let ack = ack.map(|bytes| Transmit { path, next_hop: next_hop.clone(), bytes });
                let in_dialog = in_dialog.take_if(|_| answer == InviteAnswer::Refused);
                (
                    Heard { transaction: id, user: *user, path, answer, ack, in_dialog },
                    machine.poll_timeout(),
                )
            }
            TransactionRole::Client { machine, user, in_dialog, .. } => {
                let answer = match machine.handle_response(status, now) {
                    true if !status.is_refusal() => InviteAnswer::Accepted,
                    true => InviteAnswer::Refused,
                    false => InviteAnswer::None,
                };
                let in_dialog = in_dialog.take_if(|_| answer == InviteAnswer::Refused);
                let heard =
                    Heard { transaction: id, user: *user, path, answer, ack: None, in_dialog };
                (heard, machine.poll_timeout())
            }
            TransactionRole::InviteServer { .. } | TransactionRole::Server { .. } => return None,
        };
        self.schedule.set(id, next);
        Some(heard)
    }

    /// Nothing can be delivered over `path`: removes our requests there that have no response yet.
    pub(crate) fn handle_unreachable(&mut self, path: Path) -> Vec<Undelivered> {
        self.give_up_unheard(|sent| (sent.transport, sent.peer) == (path.transport, path.peer))
    }

    /// A connection was lost: removes our requests over it that have no response yet. They were
    /// sent over this connection by its id, or over a stream to `peer`.
    pub(crate) fn handle_disconnected(
        &mut self,
        connection: ConnectionId,
        peer: Option<(Transport, SocketAddr)>,
    ) -> Vec<Undelivered> {
        self.give_up_unheard(|sent| match sent.connection {
            Some(named) => named == connection,
            None => peer == Some((sent.transport, sent.peer)),
        })
    }

    fn give_up_unheard(&mut self, went: impl Fn(&Path) -> bool) -> Vec<Undelivered> {
        let is_lost = |entry: &TransactionEntry| {
            went(&entry.path)
                && match &entry.role {
                    TransactionRole::InviteClient { machine, .. } => {
                        matches!(machine, InviteClient::Calling { .. })
                    }
                    TransactionRole::Client { machine, .. } => {
                        matches!(machine, Client::Trying { .. })
                    }
                    TransactionRole::InviteServer { .. } | TransactionRole::Server { .. } => false,
                }
        };
        // Few transactions are ours, however many requests strangers have sent.
        let ours = self.clients.values().copied();
        let mut lost: Vec<TransactionId> =
            ours.filter(|id| self.entries.get(id).is_some_and(is_lost)).collect();
        lost.sort_unstable();
        let mut undelivered = Vec::with_capacity(lost.len());
        for id in lost {
            if let Some(
                TransactionRole::InviteClient { user, in_dialog, .. }
                | TransactionRole::Client { user, in_dialog, .. },
            ) = self.entries.get_mut(&id).map(|entry| &mut entry.role)
            {
                undelivered.push(Undelivered { user: *user, in_dialog: in_dialog.take() });
            }
            self.schedule.set(id, None);
            self.forget(id);
        }
        undelivered
    }

    // -- both --------------------------------------------------------------------------------

    /// Advances one machine that has passed its deadline; returns `None` when no deadline has
    /// passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        while let Some(id) = self.schedule.pop_due(now) {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let TransactionEntry { path, next_hop, role } = entry;
            let (path, next_hop) = (*path, &*next_hop);
            let transmit = |bytes| Transmit { path, next_hop: next_hop.clone(), bytes };
            let client_due = |due: Option<ClientDue>, user: TransactionUser| {
                due.map(|due| match due {
                    ClientDue::Resend(bytes) => Due::Transmit(transmit(bytes)),
                    ClientDue::TimedOut => Due::TimedOut(user, path),
                })
            };
            let (due, next, over) = match role {
                TransactionRole::InviteServer { machine, .. } => {
                    let bytes = machine.handle_timeout(now);
                    let due = bytes.map(|bytes| Due::Transmit(transmit(bytes)));
                    (due, machine.poll_timeout(), machine.is_terminated())
                }
                TransactionRole::Server { machine, .. } => {
                    machine.handle_timeout(now);
                    (None, machine.poll_timeout(), machine.is_terminated())
                }
                TransactionRole::InviteClient { machine, user, .. } => {
                    // A refused INVITE may have been followed by another INVITE of the same call.
                    let was_accepted = matches!(machine, InviteClient::Accepted { .. });
                    let due = client_due(machine.handle_timeout(now), *user);
                    let over = machine.is_terminated();
                    let due = match (due, *user) {
                        (None, TransactionUser::Invite(dialog)) if over && was_accepted => {
                            Some(Due::InviteOver(dialog))
                        }
                        (due, _) => due,
                    };
                    (due, machine.poll_timeout(), over)
                }
                TransactionRole::Client { machine, user, .. } => {
                    let due = client_due(machine.handle_timeout(now), *user);
                    (due, machine.poll_timeout(), machine.is_terminated())
                }
            };
            self.schedule.set(id, next);
            if over {
                self.forget(id);
            }
            if due.is_some() {
                return due;
            }
        }
        None
    }

    /// When `handle_timeout` has to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    /// Whether a request of ours still waits for its final response.
    pub(crate) fn are_asking(&self) -> bool {
        self.entries.values().any(|entry| match &entry.role {
            TransactionRole::InviteClient { machine, .. } => machine.is_awaited(),
            TransactionRole::Client { machine, .. } => machine.is_pending(),
            TransactionRole::InviteServer { .. } | TransactionRole::Server { .. } => false,
        })
    }

    /// Number of transactions.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn fresh_id(&mut self) -> TransactionId {
        self.next_id += 1;
        TransactionId(self.next_id)
    }

    fn note_server(&mut self, key: &TransactionKey, id: TransactionId, path: Path) {
        self.servers.insert(key.clone(), id);
        *self.sources.entry(source_of(path.peer.ip())).or_default() += 1;
    }

    fn forget_server(&mut self, key: &TransactionKey, path: Path) {
        self.servers.remove(key);
        let source = source_of(path.peer.ip());
        if let Some(count) = self.sources.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }

    fn forget(&mut self, id: TransactionId) {
        let Some(TransactionEntry { path, role, .. }) = self.entries.remove(&id) else { return };
        match role {
            TransactionRole::InviteServer { key, merge, .. } => {
                self.forget_server(&key, path);
                if let Some(merge) = merge {
                    self.merges.remove(&merge);
                }
            }
            TransactionRole::Server { key, .. } => self.forget_server(&key, path),
            TransactionRole::InviteClient { origin, .. } => {
                self.clients.remove(&invite_key(&origin));
            }
            TransactionRole::Client { key, .. } => {
                self.clients.remove(&key);
            }
        }
    }
}

/// Whether the request is never sent again.
fn is_once(path: Path, sends: Sends) -> bool {
    path.transport.is_reliable() || sends == Sends::Once
}

fn invite_key(origin: &Origin) -> (String, String) {
    let (_, _, branch) = &origin.via;
    (branch.clone(), "INVITE".to_owned())
}
