//! What a call's task is told, and by which channels.

use tokio::sync::{mpsc, oneshot};

use super::{outgoing::Itinerary, reserved::Reserved};
use crate::drivers::recordings::OpenClip;
use aftertone_core::{
    call::{CallError, Command, NewOperation},
    model::{Call, Operation, Party},
    proto::sip::endpoint::{DialogId, Event, IncomingInvite},
};

/// Where the answer to a request goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, CallError>>;

/// What a call's task is told from the side of its peer.
#[derive(Debug)]
pub(super) enum Message {
    /// Something has happened in one of its dialogs.
    Sip(Event),
    /// Somebody else calls, who shall have the peer's place.
    Replace(Reserved, Box<IncomingInvite>),
    /// The caller has not shown that it hears us, and others want to call.
    MakeRoom,
    /// We are asked to call somebody else, by this dialog, who shall have the peer's place.
    Follow(Reserved, Box<Itinerary>),
}

/// What the API wants of a call.
#[derive(Debug)]
pub(super) enum Request {
    Show(Reply<Call>),
    /// Whom, and in which dialog, the application talks to: somebody else may take our place there.
    Peer(Reply<(Party, DialogId)>),
    Operations(Reply<Vec<Operation>>),
    Command(Command, Reply<()>),
    /// With its clip, if it records.
    Submit(NewOperation, Option<OpenClip>, Reply<Operation>),
}

/// The way to a call's task. What the API asks takes no place of what the peer says.
#[derive(Debug, Clone)]
pub(super) struct Mail {
    pub sip: mpsc::Sender<Message>,
    pub requests: mpsc::Sender<Request>,
}

/// Where the task finds it.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub sip: mpsc::Receiver<Message>,
    pub requests: mpsc::Receiver<Request>,
}

/// An empty mailbox, and the way to it.
pub(super) fn mailbox() -> (Mail, Mailbox) {
    let (sip, messages) = mpsc::channel(SIP_PLACES);
    let (requests, asked) = mpsc::channel(REQUEST_PLACES);
    (Mail { sip, requests }, Mailbox { sip: messages, requests: asked })
}

/// Messages of the peer that may wait for the task, and the last events of the call's dialogs, which
/// have their places from the beginning.
const SIP_PLACES: usize = 64;

/// Requests of the application that may wait; whoever asks waits beyond that.
const REQUEST_PLACES: usize = 64;
