//! All transactions of one endpoint: found by key, driven by one schedule, forgotten when over.
//!
//! Comes in: keys, responses to send, time. Goes out: what to transmit, and how our own requests
//! ended. It knows no dialogs beyond their id, and reads no message.

use std::{collections::BTreeMap, time::Instant};

use bytes::Bytes;

use super::{
    AckFor, Client, InviteServer, MergeKey, Server, TransactionKey, client::Due as ClientDue,
};
use crate::proto::sip::{
    dialog::DialogId,
    path::{Path, Transmit},
    timers::Schedule,
};

/// One transaction of this endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TransactionId(u64);

/// What a deadline brought.
#[derive(Debug)]
pub(crate) enum Due {
    /// Something is to be sent again.
    Transmit(Transmit),
    /// A request of ours in this dialog got no answer.
    TimedOut(DialogId),
}

/// The transactions, their keys, and their deadlines.
#[derive(Debug)]
pub(crate) struct TransactionTable {
    next_id: u64,
    entries: BTreeMap<TransactionId, Entry>,
    servers: BTreeMap<TransactionKey, TransactionId>,
    merges: BTreeMap<MergeKey, TransactionId>,
    clients: BTreeMap<String, TransactionId>,
    schedule: Schedule<TransactionId>,
}

#[derive(Debug)]
struct Entry {
    /// Where its messages go.
    path: Path,
    role: Role,
}

#[derive(Debug)]
enum Role {
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
    Client {
        machine: Client,
        branch: String,
        dialog: DialogId,
    },
}

/// What else is known of an INVITE.
#[derive(Debug, Clone)]
pub(crate) struct Invite {
    /// The dialog that it created or changes.
    pub dialog: DialogId,
    /// Our tag in its responses.
    pub local_tag: String,
}

impl TransactionTable {
    pub fn new() -> Self {
        Self {
            next_id: 0,
            entries: BTreeMap::new(),
            servers: BTreeMap::new(),
            merges: BTreeMap::new(),
            clients: BTreeMap::new(),
            schedule: Schedule::new(),
        }
    }

    /// Opens an INVITE server transaction and sends `trying`.
    pub fn open_invite(
        &mut self,
        key: TransactionKey,
        merge: Option<MergeKey>,
        invite: Invite,
        path: Path,
        trying: Bytes,
    ) -> (TransactionId, Transmit) {
        let id = self.fresh_id();
        self.servers.insert(key.clone(), id);
        if let Some(merge) = &merge {
            self.merges.insert(merge.clone(), id);
        }
        let machine = InviteServer::new(trying.clone());
        let role = Role::InviteServer { machine, key, merge, invite };
        self.entries.insert(id, Entry { path, role });
        (id, Transmit { path, bytes: trying })
    }

    /// Opens a non-INVITE server transaction that is answered at once.
    pub fn answer(
        &mut self,
        key: TransactionKey,
        path: Path,
        response: Bytes,
        now: Instant,
    ) -> Option<Transmit> {
        let id = self.fresh_id();
        let mut machine = Server::new();
        let bytes = machine.respond(response, now)?;
        self.schedule.set(id, machine.poll_timeout());
        self.servers.insert(key.clone(), id);
        self.entries.insert(id, Entry { path, role: Role::Server { machine, key } });
        Some(Transmit { path, bytes })
    }

    /// Opens a client transaction: `request` is sent, with `branch` in its Via.
    pub fn request(
        &mut self,
        branch: String,
        dialog: DialogId,
        request: Transmit,
        now: Instant,
    ) -> Transmit {
        let id = self.fresh_id();
        let path = request.path;
        let machine = Client::new(request.bytes.clone(), now);
        self.schedule.set(id, machine.poll_timeout());
        self.clients.insert(branch.clone(), id);
        self.entries.insert(id, Entry { path, role: Role::Client { machine, branch, dialog } });
        request
    }

    /// Answers an INVITE. Nothing is sent when its final response is out already.
    pub fn respond(
        &mut self,
        id: TransactionId,
        status: u16,
        response: Bytes,
        now: Instant,
    ) -> Option<Transmit> {
        let entry = self.entries.get_mut(&id)?;
        let Role::InviteServer { machine, .. } = &mut entry.role else { return None };
        let bytes = machine.respond(status, response, now)?;
        self.schedule.set(id, machine.poll_timeout());
        Some(Transmit { path: entry.path, bytes })
    }

    /// An ACK came for an INVITE transaction.
    pub fn handle_ack(&mut self, id: TransactionId, now: Instant) -> AckFor {
        let Some(Entry { role: Role::InviteServer { machine, .. }, .. }) =
            self.entries.get_mut(&id)
        else {
            return AckFor::Transaction;
        };
        let whom = machine.handle_ack(now);
        self.schedule.set(id, machine.poll_timeout());
        whom
    }

    /// A response with `status` came to the request with `branch`. When it is the final one, tells
    /// the dialog whose request it was.
    pub fn handle_response(&mut self, branch: &str, status: u16, now: Instant) -> Option<DialogId> {
        let id = *self.clients.get(branch)?;
        let Entry { role: Role::Client { machine, dialog, .. }, .. } = self.entries.get_mut(&id)?
        else {
            return None;
        };
        let concluded = machine.handle_response(status, now);
        self.schedule.set(id, machine.poll_timeout());
        concluded.then_some(*dialog)
    }

    /// Lets one machine whose deadline is over have its turn; `None` when no deadline is over.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        while let Some(id) = self.schedule.pop_due(now) {
            let Some(entry) = self.entries.get_mut(&id) else { continue };
            let path = entry.path;
            let (due, next, over) = match &mut entry.role {
                Role::InviteServer { machine, .. } => {
                    let bytes = machine.handle_timeout(now);
                    let due = bytes.map(|bytes| Due::Transmit(Transmit { path, bytes }));
                    (due, machine.poll_timeout(), machine.is_terminated())
                }
                Role::Server { machine, .. } => {
                    machine.handle_timeout(now);
                    (None, machine.poll_timeout(), machine.is_terminated())
                }
                Role::Client { machine, dialog, .. } => {
                    let due = machine.handle_timeout(now).map(|due| match due {
                        ClientDue::Resend(bytes) => Due::Transmit(Transmit { path, bytes }),
                        ClientDue::TimedOut => Due::TimedOut(*dialog),
                    });
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

    /// When `handle_timeout` wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    /// The server transaction with this key.
    pub fn find(&self, key: &TransactionKey) -> Option<TransactionId> {
        self.servers.get(key).copied()
    }

    /// What is to be sent when the request of this transaction comes again.
    pub fn repeat(&self, id: TransactionId) -> Option<Transmit> {
        let entry = self.entries.get(&id)?;
        let bytes = match &entry.role {
            Role::InviteServer { machine, .. } => machine.handle_retransmission(),
            Role::Server { machine, .. } => machine.handle_retransmission(),
            Role::Client { .. } => None,
        }?;
        Some(Transmit { path: entry.path, bytes })
    }

    /// What is known of the INVITE of this transaction.
    pub fn invite(&self, id: TransactionId) -> Option<&Invite> {
        match &self.entries.get(&id)?.role {
            Role::InviteServer { invite, .. } => Some(invite),
            Role::Server { .. } | Role::Client { .. } => None,
        }
    }

    /// A request that is the same as an ongoing one came by another way (RFC 3261 §8.2.2.2).
    pub fn is_merged(&self, merge: &MergeKey) -> bool {
        self.merges.contains_key(merge)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    fn fresh_id(&mut self) -> TransactionId {
        self.next_id += 1;
        TransactionId(self.next_id)
    }

    fn forget(&mut self, id: TransactionId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        match entry.role {
            Role::InviteServer { key, merge, .. } => {
                self.servers.remove(&key);
                if let Some(merge) = merge {
                    self.merges.remove(&merge);
                }
            }
            Role::Server { key, .. } => {
                self.servers.remove(&key);
            }
            Role::Client { branch, .. } => {
                self.clients.remove(&branch);
            }
        }
    }
}
