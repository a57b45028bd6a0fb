//! The messages that a call's task receives, and their channels.

use tokio::sync::{mpsc, oneshot};

use super::{outgoing::RoutePlan, reserved::Reserved};
use crate::drivers::recordings::OpenClip;
use aftertone_core::{
    call::{CallError, Command, MediaTerms, NewOperation},
    model::{Call, Operation, Party},
    proto::sip::endpoint::{DialogId, Event, IncomingInvite},
};

/// Channel that carries the result back to the API handler.
pub(super) type Reply<T> = oneshot::Sender<Result<T, CallError>>;

/// A message to the call's task from the side of the SIP endpoint.
#[derive(Debug)]
pub(super) enum CallMessage {
    /// An event of one of the call's dialogs.
    Sip(Event),
    /// INVITE with Replaces: the new dialog takes over from the current peer.
    Replace(Reserved, Box<IncomingInvite>, MediaTerms),
    /// Another call needs the capacity, and this call's caller has not yet shown that it receives
    /// our messages.
    MakeRoom,
    /// REFER from the peer: we call the target in the reserved dialog, and it takes over from the
    /// peer when it answers.
    Follow(Reserved, Box<RoutePlan>, MediaTerms),
}

/// A request of the API to the call's task.
#[derive(Debug)]
pub(super) enum CallRequest {
    Show(Reply<Call>),
    /// The peer and its dialog, if the call is established; the peer of another call may replace us
    /// there.
    Peer(Reply<(Party, DialogId)>),
    Operations(Reply<Vec<Operation>>),
    Command(Command, Reply<()>),
    /// An operation, with an open clip if it records.
    Submit(NewOperation, Option<OpenClip>, Reply<Operation>),
}

/// Senders to a call's task. The two channels are separate, so requests of the API take no slot
/// from events of the peer.
#[derive(Debug, Clone)]
pub(super) struct Mail {
    pub sip: mpsc::Sender<CallMessage>,
    pub requests: mpsc::Sender<CallRequest>,
}

/// The receivers of the call's task.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub sip: mpsc::Receiver<CallMessage>,
    pub requests: mpsc::Receiver<CallRequest>,
}

/// Creates an empty mailbox with its senders.
pub(super) fn mailbox() -> (Mail, Mailbox) {
    let (sip, messages) = mpsc::channel(SIP_PLACES);
    let (requests, asked) = mpsc::channel(REQUEST_PLACES);
    (Mail { sip, requests }, Mailbox { sip: messages, requests: asked })
}

/// Slots for messages of the peer, including the reserved ones for the last events of the call's
/// dialogs.
const SIP_PLACES: usize = 64;

/// Slots for requests of the application; a further request waits for a free slot.
const REQUEST_PLACES: usize = 64;
