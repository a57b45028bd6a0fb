//! Joins the pure call with the drivers: one task per call.
//!
//! In: events of the SIP endpoint and requests of the API. Out: what [`call::Machine`] wants done,
//! carried out by its task. The switchboard itself decides nothing about calls; it finds the task
//! that owns one, admits new ones, and drains.
//!
//! [`call::Machine`]: crate::call::Machine

mod call_task;
mod commits;
mod outgoing;
mod recovery;
mod registry;
mod routes;

use std::{
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures_util::FutureExt;
use rand::{RngCore, SeedableRng, rngs::StdRng};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot, watch,
};
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, error, info, info_span, warn};

pub use crate::call::{CallError, NewOperation};
use crate::{
    call::{self, Command, Machine, Now, Offer, Placement, Refusal, Settings},
    media,
    model::{
        Arrival, Call, CallId, Operation, OperationId, Party, PromptSource, RejectReason,
        Termination, UnixMillis,
    },
    prompts::Library,
    proto::{
        sdp,
        sip::{
            endpoint::{self, DialogId, Event, IncomingInvite, IncomingReferral},
            message::{NameAddr, reason_phrase},
            path::source_of,
            uri::Uri,
        },
    },
    recordings::{Spool, Vault},
    signalling::{Signalling, Traced},
    store::{Database, Journal},
};
use call_task::{CallTask, End, Message, Request, mailbox};
pub use outgoing::Trunk;
use outgoing::{Itinerary, Placed};
pub use recovery::{RecoveryError, recover};
use registry::{Entry, Line, Registry};
pub use routes::Directory;

/// What the calls work with.
#[derive(Clone)]
pub struct Drivers {
    /// SIP.
    pub signalling: Signalling,
    /// RTP.
    pub media: media::Engine,
    /// Prompts.
    pub prompts: Library,
    /// Writes clips.
    pub spool: Spool,
    /// Keeps clips.
    pub vault: Vault,
    /// Writes facts.
    pub journal: Journal,
    /// Reads facts.
    pub database: Database,
}

/// A call that an application wants placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCall {
    /// What it is called.
    pub id: CallId,
    /// The name of the caller to show.
    pub source_name: Option<String>,
    /// Whom: a SIP, SIPS or tel URI.
    pub target: Party,
    /// Subject header.
    pub subject: Option<String>,
    /// Correlation id, a GUID; made when absent.
    pub chain_id: Option<String>,
    /// Where the call's notifications go; the application's own place when absent.
    pub callback_uri: Option<String>,
    /// The media configuration as it was given; JSON text.
    pub media_config: Option<String>,
    /// What to fetch now because it will be played.
    pub prefetch: Vec<PromptSource>,
    /// How long it may ring; a minute when absent.
    pub ringing_timeout_seconds: Option<u32>,
}

/// To whom a peer is handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferTarget {
    /// To somebody who is to be called: a SIP, SIPS or tel URI.
    Party(Party),
    /// To the peer of another call of the application, in our place (RFC 3891).
    PeerOf(CallId),
}

/// What does not change while the process lives.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Times of a call.
    pub settings: Settings,
    /// Codecs in order of preference.
    pub codecs: Vec<sdp::Codec>,
    /// Calls at a time.
    pub max_calls: usize,
    /// The address that SDP says instead of the one that the INVITE arrived on.
    pub advertised: Option<IpAddr>,
}

/// The handle that the rest of the house has.
#[derive(Clone)]
pub struct Switchboard {
    inner: Arc<Inner>,
}

struct Inner {
    drivers: Drivers,
    limits: Limits,
    directory: watch::Receiver<Arc<Directory>>,
    registry: Mutex<Registry>,
    tasks: TaskTracker,
    draining: AtomicBool,
    rng: Mutex<StdRng>,
}

/// What a peer is told whose wish to be followed to somebody else does not come true: SIP statuses.
const DECLINE: u16 = 603;
const NOT_FOUND: u16 = 404;
const GONE: u16 = 481;
const BUSY: u16 = 503;
/// How long calls that are ended may take for it: longer than their machines wait for clips.
pub const ENDING: Duration = Duration::from_secs(18);
/// How long a request may wait for the call's task, and then for its commit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);

/// The time by both clocks.
pub(crate) fn now() -> Now {
    Now { instant: Instant::now(), wall: UnixMillis::from(SystemTime::now()) }
}

impl Switchboard {
    /// A switchboard without calls.
    pub fn new(
        drivers: Drivers,
        limits: Limits,
        directory: watch::Receiver<Arc<Directory>>,
        rng: StdRng,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                drivers,
                limits,
                directory,
                registry: Mutex::default(),
                tasks: TaskTracker::new(),
                draining: AtomicBool::new(false),
                rng: Mutex::new(rng),
            }),
        }
    }

    /// Hands the endpoint's events to the calls until there are no more.
    pub async fn run(&self, mut events: mpsc::Receiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::Invite { dialog, invite } => match invite.replaces {
                    Some(replaced) => self.hand_over(replaced, dialog, invite).await,
                    None => self.offer(dialog, *invite).await,
                },
                Event::ReferAsked { dialog, referral } => self.follow(dialog, *referral),
                other => self.pass_on(other).await,
            }
        }
    }

    // -- for the API -------------------------------------------------------------------------

    /// The application's calls that are not over.
    pub async fn calls(&self, application: &str) -> Vec<Call> {
        let senders: Vec<_> = self
            .registry()
            .calls
            .values()
            .filter(|entry| entry.application == application)
            .map(|entry| entry.mail.requests.clone())
            .collect();
        let mut calls = Vec::with_capacity(senders.len());
        for sender in senders {
            if let Ok(call) = ask(&sender, Request::Show).await {
                calls.push(call);
            }
        }
        calls.sort_by_key(|call| (call.created_at, call.id));
        calls
    }

    /// One of the application's calls.
    ///
    /// # Errors
    /// It is not there, not the application's, or over.
    pub async fn call(&self, application: &str, id: CallId) -> Result<Call, CallError> {
        ask(&self.find(application, id)?, Request::Show).await
    }

    /// Places a call in the application's name; its row and its first notification are committed when
    /// this returns.
    ///
    /// # Errors
    /// No trunk allows the target, or there is no room; nothing was done.
    pub async fn place(&self, application: &str, new: NewCall) -> Result<Call, CallError> {
        let inner = &self.inner;
        if inner.draining.load(Ordering::Relaxed) || self.is_behind() {
            return Err(CallError::Overloaded { retry_after: 5 });
        }
        let directory = inner.directory.borrow().clone();
        let (application_id, callback_uri) =
            directory.application(application).ok_or(CallError::Internal)?;
        let target: Uri = new.target.uri.parse().map_err(|_| CallError::Internal)?;
        let placed =
            Placed { display_name: new.source_name.as_deref(), subject: new.subject.as_deref() };
        let (itinerary, room) = self.way_to(&directory, &target, &placed).await?;
        let (id, rng) = (new.id, self.fresh_rng());
        let dialog = inner.drivers.signalling.fresh_dialog();
        let placement = Placement {
            dialog,
            source: Party::application(application_id, new.source_name),
            target: new.target,
            subject: new.subject,
            chain_id: new.chain_id,
            callback_uri: new.callback_uri,
            media_config: new.media_config,
            is_telephone: itinerary.trunk.is_some() && is_number(&target),
            ringing_timeout_seconds: new.ringing_timeout_seconds,
            codecs: inner.limits.codecs.clone(),
        };
        let settings = inner.limits.settings.clone();
        let callback_uri = callback_uri.to_owned();
        let machine =
            Machine::placed(id, placement, application, callback_uri, settings, now(), rng)
                .map_err(|_| CallError::Internal)?;
        // As it has begun: when this returns, the call may be further.
        let call = machine.call().clone();
        let trunk = itinerary.trunk.clone();
        let span = info_span!(parent: None, "call", call.id = %id, sip.call_id = machine.call().sip_call_id);
        let (mail, mailbox) = mailbox();
        let entry = Entry::of_application(application, mail);
        let (drivers, advertised) = (inner.drivers.clone(), inner.limits.advertised);
        let (placed, answer) = oneshot::channel();
        let task = CallTask::outgoing(machine, drivers, itinerary, advertised, mailbox, placed);
        self.run_task(id, task, entry, (dialog, trunk.clone(), room), span.clone())?;
        span.in_scope(|| info!(to = %target, application, trunk, "Call placed"));
        inner.drivers.prompts.prefetch(application, new.prefetch);
        // Even if it is over by then.
        answered(answer).await.map(|()| call)
    }

    /// The way to `target`: to the phones of a user, or by the first trunk that allows it, with its
    /// calls at a time.
    async fn way_to(
        &self,
        directory: &Directory,
        target: &Uri,
        placed: &Placed<'_>,
    ) -> Result<(Itinerary, Option<usize>), CallError> {
        match self.user_of(directory, target) {
            Some(user) => {
                let phones = self.inner.drivers.signalling.phones(&user).await;
                Ok((Itinerary::to_phones(phones, target, placed), None))
            }
            None => directory.way_out(target, placed).ok_or(CallError::NoWay),
        }
    }

    /// The user of ours whom a URI names.
    fn user_of(&self, directory: &Directory, uri: &Uri) -> Option<String> {
        directory.user_of(uri, |ip| self.inner.drivers.signalling.listens_on(ip))
    }

    /// Takes an incoming call. `prefetch` is fetched beside it.
    ///
    /// # Errors
    /// The call is not there, or was answered already.
    pub async fn answer(
        &self,
        application: &str,
        id: CallId,
        callback_uri: Option<String>,
        media_config: Option<String>,
        prefetch: Vec<PromptSource>,
    ) -> Result<(), CallError> {
        let sender = self.find(application, id)?;
        self.inner.drivers.prompts.prefetch(application, prefetch);
        let command = Command::Answer { callback_uri, media_config };
        ask(&sender, |reply| Request::Command(command, reply)).await
    }

    /// Refuses an incoming call.
    ///
    /// # Errors
    /// The call is not there, or was answered already.
    pub async fn reject(
        &self,
        application: &str,
        id: CallId,
        reason: RejectReason,
        callback_uri: Option<String>,
    ) -> Result<(), CallError> {
        let command = Command::Reject { reason, callback_uri };
        ask(&self.find(application, id)?, |reply| Request::Command(command, reply)).await
    }

    /// Sends an incoming caller to somebody else, who is not for us to judge: it calls there itself. A
    /// number is one of the house that the caller came from.
    ///
    /// # Errors
    /// The call is not there, or was answered already.
    pub async fn redirect(
        &self,
        application: &str,
        id: CallId,
        target: Party,
        callback_uri: Option<String>,
    ) -> Result<(), CallError> {
        let sender = self.find(application, id)?;
        let target: Uri = target.uri.parse().map_err(|_| CallError::Internal)?;
        let source = ask(&sender, Request::Show).await?.source.uri.parse::<Uri>().ok();
        let house = source.as_ref().and_then(Uri::host);
        let target = match (target.scheme(), target.user(), house) {
            ("tel", Some(number), Some(house)) => {
                Uri::sip_user(&number, house).map_err(|_| CallError::NoWay)?
            }
            _ => target,
        };
        let command = Command::Redirect { target: Box::new(target), callback_uri };
        ask(&sender, |reply| Request::Command(command, reply)).await
    }

    /// Ends a call in the application's name.
    ///
    /// # Errors
    /// The call is not there or ends already.
    pub async fn hang_up(&self, application: &str, id: CallId) -> Result<(), CallError> {
        let command = Command::HangUp(Termination::ApplicationHungUp);
        ask(&self.find(application, id)?, |reply| Request::Command(command, reply)).await
    }

    /// Asks the peer to talk to somebody else.
    ///
    /// # Errors
    /// The call is not there or not established, no trunk allows the target, or the other call is not
    /// the application's or not established.
    pub async fn transfer(
        &self,
        application: &str,
        id: CallId,
        to: TransferTarget,
    ) -> Result<(), CallError> {
        let sender = self.find(application, id)?;
        let (target, replaces) = match to {
            TransferTarget::Party(party) => (self.referable(&party)?, None),
            TransferTarget::PeerOf(other) => {
                let (peer, dialog) = ask(&self.find(application, other)?, Request::Peer).await?;
                (peer.uri.parse().map_err(|_| CallError::Internal)?, Some(dialog))
            }
        };
        let command = Command::Transfer { target: Box::new(target), replaces };
        ask(&sender, |reply| Request::Command(command, reply)).await
    }

    /// Where a peer can be sent to: where we could call ourselves, and nowhere else.
    fn referable(&self, party: &Party) -> Result<Uri, CallError> {
        let target: Uri = party.uri.parse().map_err(|_| CallError::Internal)?;
        let directory = self.inner.directory.borrow().clone();
        if self.user_of(&directory, &target).is_some() {
            return Ok(target);
        }
        let nobody = Placed { display_name: None, subject: None };
        let (itinerary, _) = directory.way_out(&target, &nobody).ok_or(CallError::NoWay)?;
        Ok(itinerary.request_uri().clone())
    }

    /// Renews the call's lease.
    ///
    /// # Errors
    /// The call is not there or is over.
    pub async fn keep_alive(&self, application: &str, id: CallId) -> Result<(), CallError> {
        ask(&self.find(application, id)?, |reply| Request::Command(Command::KeepAlive, reply)).await
    }

    /// Takes an operation; it is committed when this returns.
    ///
    /// # Errors
    /// The call's state does not allow it; nothing was done.
    pub async fn submit(
        &self,
        application: &str,
        id: CallId,
        new: NewOperation,
    ) -> Result<Operation, CallError> {
        ask(&self.find(application, id)?, |reply| Request::Submit(new, reply)).await
    }

    /// The last SIP messages of one of the application's calls, also of one that is over, as long as
    /// they are kept.
    ///
    /// # Errors
    /// The call is not there, or is not the application's.
    pub async fn trace(&self, application: &str, id: CallId) -> Result<Vec<Traced>, CallError> {
        let call = self.inner.drivers.database.call(id).await.map_err(|error| {
            warn!(%error, "cannot read a call");
            CallError::Internal
        })?;
        let call = call.filter(|call| call.application == application);
        let call = call.ok_or(CallError::NotFound)?;
        Ok(self.inner.drivers.signalling.traced(call.id))
    }

    /// All operations of a call, in the order in which they were accepted.
    ///
    /// # Errors
    /// The call is not there or is over.
    pub async fn operations(
        &self,
        application: &str,
        id: CallId,
    ) -> Result<Vec<Operation>, CallError> {
        let live = ask(&self.find(application, id)?, Request::Operations).await?;
        let mut all = self.inner.drivers.database.operations(id).await.map_err(|error| {
            warn!(%error, "cannot read the operations of a call");
            CallError::Internal
        })?;
        for operation in &mut all {
            if let Some(live) = live.iter().find(|live| live.id == operation.id) {
                operation.clone_from(live);
            }
        }
        Ok(all)
    }

    /// One operation of a call.
    ///
    /// # Errors
    /// The call or the operation is not there, or the call is over.
    pub async fn operation(
        &self,
        application: &str,
        id: CallId,
        operation: OperationId,
    ) -> Result<Operation, CallError> {
        let all = self.operations(application, id).await?;
        all.into_iter().find(|known| known.id == operation).ok_or(CallError::NotFound)
    }

    // -- for the daemon ----------------------------------------------------------------------

    /// How many calls there are.
    pub fn len(&self) -> usize {
        self.registry().calls.len()
    }

    /// Whether there are no calls.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Why no new call would be taken now.
    ///
    /// # Errors
    /// The reason, in words.
    pub fn ready(&self) -> Result<(), String> {
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err("draining".to_owned());
        }
        if self.inner.drivers.journal.is_behind() {
            return Err("the database does not keep up".to_owned());
        }
        if self.inner.drivers.media.is_broken() {
            return Err("a media thread has ended".to_owned());
        }
        Ok(())
    }

    /// Takes no more calls, gives those that are there `grace` to end, then ends them, and returns
    /// when all is told and safe, or after a bounded time.
    pub async fn drain(&self, grace: Duration) {
        self.inner.draining.store(true, Ordering::Relaxed);
        // Whoever had the registry before has its call in it now; nobody adds one any more.
        drop(self.registry());
        self.inner.tasks.close();
        if tokio::time::timeout(grace, self.inner.tasks.wait()).await.is_ok() {
            return;
        }
        let senders: Vec<_> =
            self.registry().calls.values().map(|entry| entry.mail.requests.clone()).collect();
        info!(calls = senders.len(), "Ending the calls that are left");
        let hang_up = senders.into_iter().map(|sender| async move {
            let (reply, _) = oneshot::channel();
            let command = Command::HangUp(Termination::Drained);
            // One that is over by itself has closed its mailbox.
            let _ = sender.send(Request::Command(command, reply)).await;
        });
        let ended = async {
            futures_util::future::join_all(hang_up).await;
            self.inner.tasks.wait().await;
        };
        if tokio::time::timeout(ENDING, ended).await.is_err() {
            warn!(calls = self.len(), "Some calls did not end in time");
        }
    }

    // -- private -----------------------------------------------------------------------------

    async fn offer(&self, dialog: DialogId, invite: IncomingInvite) {
        let refusal = match self.admit(dialog, &invite) {
            Ok(()) => return,
            Err(refusal) => refusal,
        };
        self.tell_refusal(&invite, &refusal);
        let command = match refusal {
            Refusal::NotAuthenticated => endpoint::Command::Challenge { dialog },
            refusal => endpoint::Command::Refuse {
                dialog,
                status: refusal.status(),
                reason: refusal.reason().to_owned(),
                headers: refusal.headers(),
            },
        };
        self.inner.drivers.signalling.send(command).await;
    }

    /// Of a stranger's calls that are refused, one line a minute is enough.
    fn tell_refusal(&self, invite: &IncomingInvite, refusal: &Refusal) {
        let peer = invite.path.peer;
        let unsaid = match self.stranger(invite) {
            None => 0,
            Some(source) => match self.registry().refused.note(source, Instant::now()) {
                None => return,
                Some(tell) => tell.unsaid,
            },
        };
        let (status, call_id) = (refusal.status(), &invite.call_id);
        info!(sip.call_id = call_id, %peer, status, unsaid, "Call refused: {refusal}");
    }

    /// The source of a caller that is neither a user, nor a trunk, nor trusted.
    fn stranger(&self, invite: &IncomingInvite) -> Option<IpAddr> {
        let peer = invite.path.peer.ip();
        let is_known = invite.user.is_some()
            || invite.trunk.is_some()
            || self.inner.directory.borrow().is_trusted(peer);
        (!is_known).then(|| source_of(peer))
    }

    /// Gives a call another dialog: who called has handed it over to somebody else (RFC 3891).
    async fn hand_over(&self, replaced: DialogId, dialog: DialogId, invite: Box<IncomingInvite>) {
        let call = self.registry().dialogs.get(&replaced).map(|line| line.call);
        let refused = match call.ok_or(GONE).and_then(|call| self.reserve(call, dialog, None, None))
        {
            Ok((reserved, sip)) => {
                let sent = sip.try_send(Message::Replace(reserved, invite));
                sent.err().map(|error| match error {
                    TrySendError::Full(_) => BUSY,
                    TrySendError::Closed(_) => GONE,
                })
            }
            Err(status) => Some(status),
        };
        let Some(status) = refused else { return };
        let refuse = endpoint::Command::Refuse {
            dialog,
            status,
            reason: reason_phrase(status).to_owned(),
            headers: Vec::new(),
        };
        self.inner.drivers.signalling.send(refuse).await;
    }

    /// Gives a call one more dialog, and its last event a place with the call's task.
    ///
    /// # Errors
    /// The call is over, or has no place: SIP statuses.
    fn reserve(
        &self,
        call: CallId,
        dialog: DialogId,
        trunk: Option<String>,
        room: Option<usize>,
    ) -> Result<(Reserved, mpsc::Sender<Message>), u16> {
        let mut registry = self.registry();
        let sip = registry.calls.get(&call).ok_or(GONE)?.mail.sip.clone();
        let last = sip.clone().try_reserve_owned().map_err(|error| match error {
            TrySendError::Full(_) => BUSY,
            TrySendError::Closed(_) => GONE,
        })?;
        let line = Line { call, trunk, last };
        registry.add_line(dialog, line, room).map_err(|_| BUSY)?;
        Ok((Reserved { switchboard: self.clone(), dialog, is_kept: false }, sip))
    }

    /// A peer that may do so wants us to call somebody else in its place: whom the call's application
    /// could call itself, and nobody else.
    fn follow(&self, dialog: DialogId, referral: IncomingReferral) {
        let switchboard = self.clone();
        self.inner.tasks.spawn(async move {
            let Err(status) = switchboard.try_follow(dialog, &referral).await else { return };
            info!(to = %referral.target, status, "A peer is not followed to somebody else");
            let told = endpoint::Command::TellReferrer { dialog, status };
            switchboard.inner.drivers.signalling.send(told).await;
        });
    }

    /// # Errors
    /// A SIP status, as the peer will be told.
    async fn try_follow(&self, dialog: DialogId, referral: &IncomingReferral) -> Result<(), u16> {
        let inner = &self.inner;
        let (call, application) = {
            let registry = self.registry();
            let call = registry.dialogs.get(&dialog).map(|line| line.call).ok_or(GONE)?;
            (call, registry.calls.get(&call).ok_or(GONE)?.application.clone())
        };
        let directory = inner.directory.borrow().clone();
        if !directory.may_call(&application) || inner.draining.load(Ordering::Relaxed) {
            return Err(DECLINE);
        }
        let is_ours = |ip| inner.drivers.signalling.listens_on(ip);
        let target = directory.meant(&referral.target, is_ours).ok_or(NOT_FOUND)?;
        let nobody = Placed { display_name: None, subject: None };
        let way = self.way_to(&directory, &target, &nobody).await;
        let (itinerary, room) = way.map_err(|_| NOT_FOUND)?;
        if itinerary.leads_nowhere() {
            return Err(NOT_FOUND);
        }
        let itinerary = itinerary
            .with("Referred-By", referral.by.clone())
            .with("Replaces", referral.replaces.clone());
        let next = inner.drivers.signalling.fresh_dialog();
        let (reserved, sip) = self.reserve(call, next, itinerary.trunk.clone(), room)?;
        sip.try_send(Message::Follow(reserved, Box::new(itinerary))).map_err(|_| GONE)
    }

    fn admit(&self, dialog: DialogId, invite: &IncomingInvite) -> Result<(), Refusal> {
        let inner = &self.inner;
        if inner.draining.load(Ordering::Relaxed) {
            return Err(Refusal::Draining);
        }
        if self.is_behind() {
            return Err(Refusal::Full);
        }
        let user = invite.request_uri.user().unwrap_or_default();
        let peer = invite.path.peer.ip();
        // A trunk that we register at may call what its calls are for.
        let caller = invite.user.as_deref().or(invite.trunk.as_deref());
        let owner = inner.directory.borrow().find(&user, peer, caller)?;
        // Asked again when the call begins; here it costs nothing, and leaves no trace of the caller.
        let stranger = self.stranger(invite);
        let room = self.registry().admit(stranger, inner.limits.max_calls);
        room.map_err(|_| Refusal::Full)?;
        let (id, rng) = self.fresh_call();
        let called = invite.request_uri.without_parameters();
        let application_party = match &owner {
            call::Owner::Application { name, .. } => {
                let directory = inner.directory.borrow();
                directory
                    .application(name)
                    .map(|(id, _)| Party::application(id, Some(name.clone())))
            }
            call::Owner::Line(_) => None,
        };
        let offer = Offer {
            dialog,
            source: party(&invite.from),
            target: application_party
                .unwrap_or_else(|| Party { uri: called.clone(), display_name: None }),
            arrival: Arrival {
                called: Some(called),
                diverted: invite.diverted.iter().map(party).collect(),
                referred_by: invite.referred_by.as_ref().map(party),
            },
            is_telephone: invite.trunk.is_some() && is_number(invite.from.uri()),
            sip_call_id: invite.call_id.clone(),
            subject: invite.subject.clone(),
            sdp: invite.offer.clone(),
            codecs: inner.limits.codecs.clone(),
        };
        let application = match &owner {
            call::Owner::Application { name, .. } => name.clone(),
            call::Owner::Line(_) => String::new(),
        };
        let machine =
            Machine::offered(id, offer, owner, inner.limits.settings.clone(), now(), rng)?;
        let span = info_span!(parent: None, "call", call.id = %id, sip.call_id = invite.call_id);
        span.in_scope(|| {
            info!(
                peer = %invite.path.peer,
                to = %user,
                application = %application,
                "Call offered"
            );
        });
        inner.drivers.signalling.trace(id, &invite.call_id, &[peer]);
        let (mail, mailbox) = mailbox();
        let advertised = inner.limits.advertised;
        let task =
            CallTask::incoming(machine, inner.drivers.clone(), invite.path, advertised, mailbox);
        let entry = Entry { application, stranger, is_acknowledged: false, mail };
        self.run_task(id, task, entry, (dialog, None, None), span).map_err(|_| {
            match inner.draining.load(Ordering::Relaxed) {
                true => Refusal::Draining,
                false => Refusal::Full,
            }
        })
    }

    /// Begins the call if there is room for it, and for one more by its trunk, which may have `room`.
    ///
    /// # Errors
    /// There is none; or calls are not taken any more.
    fn run_task(
        &self,
        id: CallId,
        mut task: CallTask,
        entry: Entry,
        (dialog, trunk, room): (DialogId, Option<String>, Option<usize>),
        span: tracing::Span,
    ) -> Result<(), CallError> {
        // Asked while nobody else has the registry: whoever drains looks there afterwards.
        let mut registry = self.registry();
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err(CallError::Overloaded { retry_after: 5 });
        }
        registry.admit(entry.stranger, self.inner.limits.max_calls)?;
        // The mailbox is new, so there is a place.
        let last = entry.mail.sip.clone().try_reserve_owned().map_err(|_| CallError::Internal)?;
        registry.add_line(dialog, Line { call: id, trunk, last }, room)?;
        registry.calls.insert(id, entry);
        let switchboard = self.clone();
        let life = async move {
            let end = AssertUnwindSafe(task.run()).catch_unwind().await;
            switchboard.leave(id).await;
            match end {
                Ok(End::Told) => task.clear_up().await,
                Ok(End::NotTold) => switchboard.end_lost(id, task).await,
                Err(_) => {
                    error!("The task of a call has panicked; the call is ended");
                    switchboard.end_lost(id, task).await;
                }
            }
        };
        self.inner.tasks.spawn(life.instrument(span));
        Ok(())
    }

    /// The call is over, however its task ended: nobody finds it any more, and no dialog of it stays.
    async fn leave(&self, id: CallId) {
        let left = self.registry().remove(id);
        // As a rule its BYE is out, and this one is dropped.
        for dialog in left {
            let bye = endpoint::Command::Bye { dialog, reason: None };
            self.inner.drivers.signalling.send(bye).await;
        }
    }

    /// Writes down and tells the end of a call whose task could not.
    async fn end_lost(&self, id: CallId, mut task: CallTask) {
        let clips = task.salvage().await;
        let retention = self.inner.limits.settings.retention;
        recovery::end_lost(&self.inner.drivers, id, &clips, retention).await;
    }

    /// No new call could be carried.
    fn is_behind(&self) -> bool {
        let drivers = &self.inner.drivers;
        drivers.journal.is_behind() || drivers.media.is_late()
    }

    fn fresh_call(&self) -> (CallId, StdRng) {
        let mut rng = self.inner.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = [0; 16];
        rng.fill_bytes(&mut bytes);
        (CallId::from_random(bytes), StdRng::from_rng(&mut *rng))
    }

    fn fresh_rng(&self) -> StdRng {
        StdRng::from_rng(&mut *self.inner.rng.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hands an event to the call's task without waiting for it. The last of a dialog has its place; a
    /// dialog whose other events find none is ended, and the call with it.
    async fn pass_on(&self, event: Event) {
        let dialog = event.dialog();
        if let Event::Acknowledged { .. } = &event {
            self.registry().acknowledged(dialog);
        }
        if event.is_last() {
            // After a redirect the call's task may go on with the dialog; else it goes with the call.
            let may_go_on =
                matches!(&event, Event::Refused { contacts, .. } if !contacts.is_empty());
            let mut registry = self.registry();
            let Some(Line { call, trunk, last }) = registry.dialogs.remove(&dialog) else {
                debug!(?event, "event of a call that is over");
                return;
            };
            let sip = last.send(Message::Sip(event));
            if may_go_on && let Ok(last) = sip.try_reserve_owned() {
                registry.dialogs.insert(dialog, Line { call, trunk, last });
            }
            return;
        }
        let sip = {
            let registry = self.registry();
            let line = registry.dialogs.get(&dialog);
            line.and_then(|line| registry.calls.get(&line.call)).map(|entry| entry.mail.sip.clone())
        };
        let Some(sip) = sip else {
            debug!(?event, "event of a call that is over");
            return;
        };
        if sip.try_send(Message::Sip(event)).is_err() {
            warn!("a call's task is stuck; its dialog is ended");
            let bye = endpoint::Command::Bye { dialog, reason: None };
            self.inner.drivers.signalling.send(bye).await;
        }
    }

    fn find(&self, application: &str, id: CallId) -> Result<mpsc::Sender<Request>, CallError> {
        let registry = self.registry();
        match registry.calls.get(&id) {
            Some(entry) if entry.application == application => Ok(entry.mail.requests.clone()),
            Some(_) | None => Err(CallError::NotFound),
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.inner.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A dialog that shall be; it leaves the registry when it is not.
struct Reserved {
    switchboard: Switchboard,
    dialog: DialogId,
    is_kept: bool,
}

impl Reserved {
    /// Its own last event takes it out.
    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.is_kept {
            self.switchboard.registry().dialogs.remove(&self.dialog);
        }
    }
}

impl std::fmt::Debug for Reserved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reserved").field(&self.dialog).finish()
    }
}

async fn ask<T>(
    sender: &mpsc::Sender<Request>,
    request: impl FnOnce(call_task::Reply<T>) -> Request,
) -> Result<T, CallError> {
    let (reply, answer) = oneshot::channel();
    let asking = sender.send(request(reply));
    match tokio::time::timeout(REQUEST_TIMEOUT, asking).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return Err(CallError::NotFound),
        // Nothing was done: the message has not even been taken.
        Err(_) => return Err(CallError::Overloaded { retry_after: 1 }),
    }
    answered(answer).await
}

/// What a call's task answers, in time.
async fn answered<T>(answer: oneshot::Receiver<Result<T, CallError>>) -> Result<T, CallError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(Ok(answer)) => answer,
        // The task has ended meanwhile: so has the call.
        Ok(Err(_)) => Err(CallError::NotFound),
        Err(_) => Err(CallError::Unanswered),
    }
}

fn party(address: &NameAddr) -> Party {
    Party {
        uri: address.uri().without_parameters(),
        display_name: address.display_name().map(str::to_owned),
    }
}

/// Whether a URI means a telephone: a number is all that it says.
fn is_number(uri: &Uri) -> bool {
    uri.scheme() == "tel"
        || uri.user().is_some_and(|user| {
            let digits = user.strip_prefix('+').unwrap_or(&user);
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests;
