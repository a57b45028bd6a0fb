//! Connects the call state machines of the core with the drivers: one task per call.
//!
//! Input: events of the SIP endpoint and requests of the API. Output: the actions of
//! [`call::Machine`], which the task of the call carries out. The switchboard makes no decision
//! about a call. It finds the task that owns a call, admits new calls, and drains.
//!
//! [`call::Machine`]: aftertone_core::call::Machine

mod arrivals;
mod call_task;
mod commits;
mod control;
mod dialled;
mod drivers;
mod mailbox;
mod outgoing;
mod pattern;
mod recovery;
mod registry;
mod requests;
mod reserved;
mod routes;

use std::{
    net::IpAddr,
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use rand::{RngCore, SeedableRng, rngs::StdRng};
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot, watch,
};
use tokio_util::task::TaskTracker;
use tracing::{Instrument, error, info, warn};

pub use aftertone_core::call::{CallError, NewOperation};
use aftertone_core::{
    call::{Command, MediaTerms, Refusal, Settings},
    model::{CallId, Party, PromptSource, Termination},
    proto::{
        sdp,
        sip::{
            Status,
            endpoint::{self, DialogId, Event, IncomingInvite},
            uri::Uri,
        },
    },
};
use call_task::{CallEnd, CallTask};
pub use control::CallControl;
pub use drivers::Drivers;
use mailbox::{CallMessage, CallRequest};
pub use outgoing::Trunk;
use outgoing::{Placed, RoutePlan};
pub use recovery::{RecoveryError, recover};
use registry::{CallDialog, LiveCall, NotAdmitted, Registry};
use reserved::Reserved;
pub use routes::Directory;

/// A call that an application asks us to place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCall {
    /// Id of the new call.
    pub id: CallId,
    /// The caller's display name, shown to the called party.
    pub source_name: Option<String>,
    /// The party to call: a SIP, SIPS or tel URI.
    pub target: Party,
    /// Value of the Subject header.
    pub subject: Option<String>,
    /// Correlation id, a GUID; we generate one when it is absent.
    pub chain_id: Option<String>,
    /// URI that receives the call's notifications; the application's own callback when absent.
    pub callback_uri: Option<String>,
    /// The media configuration as the application gave it; JSON text.
    pub media_config: Option<String>,
    /// Prompts to fetch now, because the application will play them.
    pub prefetch: Vec<PromptSource>,
    /// How long the call may ring; one minute when absent.
    pub ringing_timeout_seconds: Option<u32>,
}

/// The party that takes over a peer in a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferTarget {
    /// A party that the peer calls: a SIP, SIPS or tel URI.
    Party(Party),
    /// The peer of another call of the same application; the transferred peer replaces us there
    /// (RFC 3891).
    PeerOf(CallId),
}

/// Settings that stay the same while the process runs.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Timeouts and limits of one call.
    pub settings: Settings,
    /// Codecs in order of preference.
    pub codecs: Vec<sdp::Codec>,
    /// Whether audio is encrypted, unless the user or trunk has a setting of its own.
    pub srtp: sdp::SrtpPolicy,
    /// Maximum number of simultaneous calls.
    pub max_calls: usize,
    /// The address that SDP announces instead of our local address, if both are of the same family.
    pub advertised: Option<IpAddr>,
}

/// Handle of the switchboard; cheap to clone.
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

/// Interval of the check for unauthenticated callers that have been half-open for too long.
const SWEEP: Duration = Duration::from_secs(1);
/// How long calls may take to end during a drain. Longer than a call's machine waits for its leg.
pub const ENDING: Duration = Duration::from_secs(18);

impl Switchboard {
    /// Creates a switchboard without calls.
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

    /// Dispatches the endpoint's events to the calls until the event channel closes.
    pub async fn run(&self, mut events: mpsc::Receiver<Event>) {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                _ = sweep.tick() => {
                    self.registry().shorten_waits(self.inner.limits.max_calls, Instant::now());
                    continue;
                }
            };
            let Some(event) = event else { break };
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

    /// Number of calls.
    pub fn len(&self) -> usize {
        self.registry().calls.len()
    }

    /// Whether there is no call.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drains the switchboard: accepts no more calls, gives the existing calls `grace` to end, and
    /// then ends them. Returns when the end of every call is committed and its clips are safe, or
    /// after a bounded time.
    pub async fn drain(&self, grace: Duration) {
        self.inner.draining.store(true, Ordering::Relaxed);
        // `run_task` checks `draining` under this lock. Once we have held it, every call that
        // passed the check is in the registry and no other call is added.
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
            // A call that has ended by itself has closed its mailbox.
            let _ = sender.send(CallRequest::Command(command, reply)).await;
        });
        let ended = async {
            futures_util::future::join_all(hang_up).await;
            self.inner.tasks.wait().await;
        };
        if tokio::time::timeout(ENDING, ended).await.is_err() {
            warn!(calls = self.len(), "Some calls did not end in time");
        }
    }

    /// Registers one more dialog of a call and reserves a slot in the task's mailbox for the last
    /// event of that dialog.
    ///
    /// # Errors
    /// A SIP status: the call is over, its mailbox is full, or the trunk is at its limit.
    fn reserve(
        &self,
        call: CallId,
        dialog: DialogId,
        trunk: Option<String>,
        room: Option<usize>,
    ) -> Result<(Reserved, mpsc::Sender<CallMessage>), Status> {
        let mut registry = self.registry();
        let sip = registry.calls.get(&call).ok_or(Status::CALL_DOES_NOT_EXIST)?.mail.sip.clone();
        let last = sip.clone().try_reserve_owned().map_err(|error| match error {
            TrySendError::Full(_) => Status::SERVICE_UNAVAILABLE,
            TrySendError::Closed(_) => Status::CALL_DOES_NOT_EXIST,
        })?;
        let line = CallDialog { call, trunk, last };
        registry.add_line(dialog, line, room).map_err(|_| Status::SERVICE_UNAVAILABLE)?;
        let switchboard = self.clone();
        let remove = move || drop(switchboard.registry().dialogs.remove(&dialog));
        Ok((Reserved::new(dialog, remove), sip))
    }

    /// Finds the way to `target`: the registered phones of a user, or the first trunk that allows
    /// the target, together with that trunk's limit of simultaneous calls.
    async fn way_to(
        &self,
        directory: &Directory,
        target: &Uri,
        placed: &Placed<'_>,
    ) -> Result<(RoutePlan, Option<usize>), CallError> {
        match self.user_of(directory, target) {
            Some(user) => {
                let phones = self.inner.drivers.signalling.phones(&user).await;
                let srtp = directory.srtp_of(Some(&user), None);
                Ok((RoutePlan::to_phones(phones, target, placed, srtp), None))
            }
            None => directory.way_out(target, placed).ok_or(CallError::NoWay),
        }
    }

    /// What can be agreed on with a caller.
    fn terms_with_caller(&self, invite: &IncomingInvite) -> MediaTerms {
        let (user, trunk) = (invite.user.as_deref(), invite.trunk.as_deref());
        let own = self.inner.directory.borrow().srtp_of(user, trunk);
        self.terms(own, invite.path.transport.is_secure())
    }

    /// What can be agreed on with the called party of a plan.
    fn terms_with_called(&self, route_plan: &RoutePlan) -> MediaTerms {
        self.terms(route_plan.srtp, route_plan.is_encrypted())
    }

    fn terms(&self, own: Option<sdp::SrtpPolicy>, is_signalling_encrypted: bool) -> MediaTerms {
        let Limits { codecs, srtp, .. } = &self.inner.limits;
        MediaTerms { codecs: codecs.clone(), srtp: own.unwrap_or(*srtp), is_signalling_encrypted }
    }

    /// Name of our user that a URI addresses, if any.
    fn user_of(&self, directory: &Directory, uri: &Uri) -> Option<String> {
        directory.user_of(uri, |ip| self.inner.drivers.signalling.listens_on(ip))
    }

    /// Starts the task of a call, if the call limit allows one more call, and the limit `room` of
    /// its trunk one more dialog.
    ///
    /// # Errors
    /// A limit is reached, or the switchboard is draining.
    fn run_task(
        &self,
        id: CallId,
        mut task: CallTask,
        entry: LiveCall,
        (dialog, trunk, room): (DialogId, Option<String>, Option<usize>),
        span: tracing::Span,
    ) -> Result<(), NotAdmitted> {
        // Checked under the registry lock: `drain` takes this lock after it has set the flag.
        let mut registry = self.registry();
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err(NotAdmitted::Draining);
        }
        let now = Instant::now();
        let makes_room =
            registry.admit(entry.stranger.as_ref(), self.inner.limits.max_calls, now)?;
        // The mailbox is new, so it has a free slot.
        let last = entry.mail.sip.clone().try_reserve_owned().map_err(|_| NotAdmitted::Full)?;
        registry.add_line(dialog, CallDialog { call: id, trunk, last }, room)?;
        if let Some(makes_room) = makes_room
            && !registry.displace(makes_room, now)
        {
            registry.dialogs.remove(&dialog);
            return Err(NotAdmitted::Full);
        }
        registry.calls.insert(id, entry);
        let switchboard = self.clone();
        let life = async move {
            let end = AssertUnwindSafe(task.run()).catch_unwind().await;
            switchboard.leave(id).await;
            match end {
                Ok(CallEnd::Told) => task.clear_up().await,
                Ok(CallEnd::NotTold) => switchboard.end_lost(id, task).await,
                Err(_) => {
                    error!("The task of a call has panicked; the call is ended");
                    switchboard.end_lost(id, task).await;
                }
            }
        };
        self.inner.tasks.spawn(life.instrument(span));
        Ok(())
    }

    /// Removes a call that is over, however its task ended. No request finds it any more, and none
    /// of its dialogs stays.
    async fn leave(&self, id: CallId) {
        let left = self.registry().remove(id);
        // The BYE has usually been sent already; the endpoint then ignores this one.
        for dialog in left {
            let bye = endpoint::Command::Bye { dialog, reason: None };
            self.inner.drivers.signalling.send(bye).await;
        }
    }

    /// Commits the end of a call, with its notification, when the call's task could not.
    async fn end_lost(&self, id: CallId, mut task: CallTask) {
        let clips = task.salvage().await;
        let retention = self.inner.limits.settings.retention;
        recovery::end_lost(&self.inner.drivers, id, &clips, retention).await;
    }

    /// Why a new call could not be served, if so.
    fn overload(&self) -> Option<Refusal> {
        let is_late = || self.inner.drivers.media.is_late().then_some(Refusal::MediaBehind);
        self.unwritable().or_else(is_late)
    }

    /// Why a new call could not be written to the database, if so.
    fn unwritable(&self) -> Option<Refusal> {
        let Drivers { database, journal, .. } = &self.inner.drivers;
        if database.is_damaged() {
            return Some(Refusal::DatabaseDamaged);
        }
        if database.is_away() {
            return Some(Refusal::DatabaseAway);
        }
        journal.is_behind().then_some(Refusal::DatabaseBehind)
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

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.inner.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a URI addresses a telephone: a `tel` URI, or a user part of digits with an optional
/// leading `+`.
fn is_number(uri: &Uri) -> bool {
    uri.scheme() == "tel"
        || uri.user().is_some_and(|user| {
            let digits = user.strip_prefix('+').unwrap_or(&user);
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
}

#[cfg(test)]
mod tests;
