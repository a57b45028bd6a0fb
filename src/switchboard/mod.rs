//! Joins the pure call with the drivers: one task per call.
//!
//! In: events of the SIP endpoint and requests of the API. Out: what [`call::Machine`] wants done,
//! carried out by its task. The switchboard itself decides nothing about calls; it finds the task
//! that owns one, admits new ones, and drains.
//!
//! [`call::Machine`]: crate::call::Machine

mod arrivals;
mod call_task;
mod commits;
mod dialled;
mod outgoing;
mod recovery;
mod registry;
mod requests;
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
use tracing::{Instrument, debug, error, info, warn};

pub use crate::call::{CallError, NewOperation};
use crate::{
    call::{Command, Now, Refusal, Settings},
    clock::Clock,
    media,
    model::{CallId, Party, PromptSource, RecordingId, Termination, UnixMillis},
    prompts::Library,
    proto::{
        sdp,
        sip::{
            endpoint::{self, DialogId, Event},
            uri::Uri,
        },
    },
    recordings::{FolderFault, OpenClip, Spool, SpoolError, Vault},
    signalling::Signalling,
    store::{Database, Journal},
};
use call_task::{CallTask, End, Message, Request};
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

/// The SIP status of a call that is over.
const GONE: u16 = 481;
/// The SIP status of a call whose task has too much to do.
const BUSY: u16 = 503;
/// How often it is looked whether callers that are not heard wait too long.
const SWEEP: Duration = Duration::from_secs(1);
/// How long the database may take to show what was committed last.
const PROOF: Duration = Duration::from_secs(2);
/// How long a disk may take to make the file of a clip: less than a request waits.
const OPENING: Duration = Duration::from_secs(6);
/// How long calls that are ended may take for it: longer than their machines wait for their legs.
pub const ENDING: Duration = Duration::from_secs(18);

/// The time by each clock.
fn now(clock: &Clock) -> Now {
    let (instant, wall) = (Instant::now(), UnixMillis::from(SystemTime::now()));
    Now { instant, wall, steady: clock.now() }
}

impl Drivers {
    /// Makes the file of a clip of a call. That it cannot be made is logged.
    ///
    /// # Errors
    /// As for [`Spool::open`]; or the folder is away or does not answer: what is recorded there could
    /// be neither heard nor found.
    async fn open_clip(&self, id: RecordingId, call: CallId) -> Result<OpenClip, SpoolError> {
        let opened = match self.vault.fault() {
            Some(fault) => Err(SpoolError::Folder(fault)),
            // A file that is made after all is removed again.
            None => tokio::time::timeout(OPENING, self.spool.open(id, call))
                .await
                .unwrap_or(Err(SpoolError::Folder(FolderFault::Silent))),
        };
        opened.inspect_err(|error| warn!(%error, recording.id = %id, "A recording cannot begin"))
    }

    fn now(&self) -> Now {
        now(self.database.clock())
    }
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
    pub async fn ready(&self) -> Result<(), String> {
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err("draining".to_owned());
        }
        if let Some(refusal) = self.unwritable() {
            return Err(refusal.to_string());
        }
        if let Some(fault) = self.inner.drivers.vault.fault() {
            return Err(fault.to_string());
        }
        if self.inner.drivers.media.is_broken() {
            return Err("a media thread has ended".to_owned());
        }
        match tokio::time::timeout(PROOF, self.inner.drivers.spool.check_room()).await {
            Ok(Ok(())) => {}
            Ok(Err(error @ SpoolError::LowWater { .. })) => return Err(error.to_string()),
            // Anyone may ask; where the clips are is for the log.
            Ok(Err(_)) => return Err("the folder of the recordings cannot be looked at".to_owned()),
            Err(_) => return Err(FolderFault::Silent.to_string()),
        }
        let proof = self.inner.drivers.journal.prove();
        match tokio::time::timeout(PROOF, proof).await {
            Ok(Ok(())) => Ok(()),
            // Anyone may ask; what the database says is for the log.
            Ok(Err(error)) => {
                debug!("The last commit cannot be proved: {error}");
                Err("the database does not show what was committed last".to_owned())
            }
            Err(_) => Err("the database does not answer".to_owned()),
        }
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
        let now = Instant::now();
        let makes_room =
            registry.admit(entry.stranger.as_ref(), self.inner.limits.max_calls, now)?;
        // The mailbox is new, so there is a place.
        let last = entry.mail.sip.clone().try_reserve_owned().map_err(|_| CallError::Internal)?;
        registry.add_line(dialog, Line { call: id, trunk, last }, room)?;
        if let Some(makes_room) = makes_room
            && !registry.displace(makes_room, now)
        {
            registry.dialogs.remove(&dialog);
            return Err(CallError::Overloaded { retry_after: 5 });
        }
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

    /// Why no new call could be carried.
    fn overload(&self) -> Option<Refusal> {
        let is_late = || self.inner.drivers.media.is_late().then_some(Refusal::MediaBehind);
        self.unwritable().or_else(is_late)
    }

    /// Why no new call could be written down.
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
