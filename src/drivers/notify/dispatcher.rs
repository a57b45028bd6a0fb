//! One lane per call: a task that sends the oldest notification of the call (the head); the others
//! wait.
//!
//! In: rows of the outbox, and a wake-up when the journal has added some. Out: POSTs, and their
//! results, written back to the outbox. The database is the only queue: nothing is lost with the
//! process, and a lane that ends may be opened again at any time.
//!
//! Each receiver (application and origin) has its own share of the lanes, and only a few while it
//! fails, so that one dead receiver does not hold up the others. Each application has a share too,
//! so that many dead receivers of one application do not either.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::{self, JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info_span, warn};

use crate::drivers::store::{Database, Delivery, StoreError};
use aftertone_core::model::{CallId, SteadyMillis};

use super::{
    backoff::{self, FailedAttempt},
    refusals::Refusals,
    webhook::{Rendered, Webhook, WebhookAnswer},
};

/// Makes the wire form of a notification. An error says why that is not possible now; the
/// notification is tried again later.
pub type Render = Arc<dyn Fn(&Delivery) -> Result<Rendered, String> + Send + Sync>;

/// Settings of the dispatcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DispatcherConfig {
    /// Age at which a notification is given up.
    pub retry_for: Duration,
    /// Refusals (401, 403) in a row after which a notification is given up.
    pub refusals: u32,
    /// Most lanes at a time.
    pub lanes: usize,
    /// Most lanes at a time for one application.
    pub lanes_per_application: usize,
    /// Most lanes at a time for one receiver.
    pub lanes_per_receiver: usize,
    /// Most lanes at a time for a receiver that failed lately.
    pub lanes_per_failing_receiver: usize,
}

impl Default for DispatcherConfig {
    fn default() -> Self {
        Self {
            retry_for: Duration::from_secs(24 * 3600),
            // By the back-off steps, five attempts take about nine seconds, while the caller still
            // hears ringing.
            refusals: 5,
            lanes: 64,
            lanes_per_application: 32,
            lanes_per_receiver: 16,
            lanes_per_failing_receiver: 2,
        }
    }
}

/// A handle on the running dispatcher; cheap to clone.
#[derive(Clone, Debug)]
pub struct Dispatcher {
    flushes: mpsc::Sender<oneshot::Sender<()>>,
}

impl Dispatcher {
    /// Starts delivery. After `cancel` every lane finishes the POST it has begun, then the task
    /// ends; the remaining notifications stay in the outbox.
    pub fn start(
        store: Database,
        webhook: Webhook,
        render: Render,
        config: DispatcherConfig,
        cancel: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let (flushes, flush_requests) = mpsc::channel(8);
        let refusals = Mutex::default();
        let lane = Arc::new(LaneParts { store, webhook, render, config, cancel, refusals });
        let desk = LaneKeeper {
            lane,
            config,
            flush_requests,
            flushing: Vec::new(),
            lanes: JoinSet::new(),
            running: HashMap::new(),
            calls: HashSet::new(),
            receivers: HashMap::new(),
            applications: HashMap::new(),
        };
        (Self { flushes }, tokio::spawn(desk.run()))
    }

    /// Waits until every notification that was committed before and is due has been tried, at most
    /// for `within`. Returns whether this happened; a failed notification that waits for its next
    /// attempt does not count. After the dispatcher was cancelled nothing is sent any more, so a
    /// shutdown flushes first.
    pub async fn flush(&self, within: Duration) -> bool {
        let (done, flushed) = oneshot::channel();
        let wait = async { self.flushes.send(done).await.is_ok() && flushed.await.is_ok() };
        tokio::time::timeout(within, wait).await.unwrap_or(false)
    }
}

/// How long the dispatcher waits before it queries a failed database again.
const DATABASE_PAUSE: Duration = Duration::from_secs(1);

/// How long a receiver counts as failing after its last failure.
const FAILING_FOR: Duration = Duration::from_secs(120);

/// The task that opens and closes lanes.
struct LaneKeeper {
    lane: Arc<LaneParts>,
    config: DispatcherConfig,
    flush_requests: mpsc::Receiver<oneshot::Sender<()>>,
    flushing: Vec<oneshot::Sender<()>>,
    lanes: JoinSet<LaneEnd>,
    /// The call, receiver and application of each running lane; needed when a lane panics.
    running: HashMap<task::Id, LaneSubject>,
    /// Calls that have a lane, and calls whose lane panicked: a new lane would panic again.
    calls: HashSet<CallId>,
    receivers: HashMap<String, ReceiverLanes>,
    /// The number of lanes of each application.
    applications: HashMap<String, usize>,
}

/// What a lane serves.
struct LaneSubject {
    call: CallId,
    receiver: String,
    application: String,
}

#[derive(Debug, Default)]
struct ReceiverLanes {
    lanes: usize,
    failed_at: Option<Instant>,
}

impl ReceiverLanes {
    fn is_failing(&self) -> bool {
        self.failed_at.is_some_and(|at| at.elapsed() < FAILING_FOR)
    }
}

impl LaneKeeper {
    async fn run(mut self) {
        let cancel = self.lane.cancel.clone();
        let store = self.lane.store.clone();
        while !cancel.is_cancelled() {
            let opened = self.open_lanes().await;
            match &opened {
                Ok(_) => {
                    if self.lanes.is_empty() {
                        // No lane is running: every due notification has been tried.
                        for done in self.flushing.drain(..) {
                            // The caller may have stopped waiting.
                            let _ = done.send(());
                        }
                    }
                }
                Err(error) => {
                    self.lane.store.notice(error);
                    warn!("The outbox cannot be read: {error}");
                }
            }
            let next_look = async {
                match opened {
                    Ok(Some(next)) => store.clock().sleep_until(next).await,
                    Ok(None) => std::future::pending().await,
                    Err(_) => tokio::time::sleep(DATABASE_PAUSE).await,
                }
            };
            tokio::select! {
                () = cancel.cancelled() => {}
                () = store.outbox_grew().notified() => {}
                Some(done) = self.flush_requests.recv() => self.flushing.push(done),
                Some(ended) = self.lanes.join_next_with_id() => self.close_lane(ended),
                () = next_look => {}
            }
            // Under load many lanes end together: one query of the outbox serves all of them.
            while let Some(ended) = self.lanes.try_join_next_with_id() {
                self.close_lane(ended);
            }
        }
        while let Some(ended) = self.lanes.join_next_with_id().await {
            self.close_lane(ended);
        }
    }

    /// Opens a lane for every due head that the limits allow. Returns when the next head is due. A
    /// due head beyond the limits waits for the end of a lane.
    async fn open_lanes(&mut self) -> Result<Option<SteadyMillis>, StoreError> {
        self.receivers.retain(|_, receiver| receiver.lanes > 0 || receiver.is_failing());
        if self.lanes.len() >= self.config.lanes {
            return Ok(None);
        }
        let store = self.lane.store.clone();
        let now = store.clock().now();
        let mut due = store.receivers_due(now).await?;
        // Receivers with the fewest lanes go first, failing ones last.
        due.sort_by_cached_key(|name| match self.receivers.get(name) {
            Some(receiver) => (receiver.is_failing(), receiver.lanes),
            None => (false, 0),
        });
        for name in due {
            let room = self.room(&name);
            if room == 0 {
                continue;
            }
            // Heads that have a lane already are among the first rows.
            let heads = store.heads(&name, now, room.saturating_add(self.calls.len())).await?;
            for head in heads {
                let of_application = self.applications.get(&head.application).unwrap_or(&0);
                if *of_application >= self.config.lanes_per_application || self.room(&name) == 0 {
                    break;
                }
                if !self.calls.contains(&head.call) {
                    self.open_lane(head);
                }
            }
        }
        store.next_attempt(now).await
    }

    /// How many more lanes the receiver may have now.
    fn room(&self, receiver: &str) -> usize {
        let (lanes, failing) = match self.receivers.get(receiver) {
            Some(receiver) => (receiver.lanes, receiver.is_failing()),
            None => (0, false),
        };
        let share = if failing {
            self.config.lanes_per_failing_receiver
        } else {
            self.config.lanes_per_receiver
        };
        let free = self.config.lanes.saturating_sub(self.lanes.len());
        share.saturating_sub(lanes).min(free)
    }

    fn open_lane(&mut self, head: Delivery) {
        let served = LaneSubject {
            call: head.call,
            receiver: head.receiver.clone(),
            application: head.application.clone(),
        };
        let lane = self.lane.clone();
        let handle = self.lanes.spawn(async move { lane.run(head).await });
        self.calls.insert(served.call);
        self.receivers.entry(served.receiver.clone()).or_default().lanes += 1;
        *self.applications.entry(served.application.clone()).or_default() += 1;
        self.running.insert(handle.id(), served);
    }

    fn close_lane(&mut self, ended: Result<(task::Id, LaneEnd), task::JoinError>) {
        let (id, end) = match ended {
            Ok((id, end)) => (id, Some(end)),
            Err(error) => (error.id(), None),
        };
        let Some(LaneSubject { call, receiver, application }) = self.running.remove(&id) else {
            return;
        };
        if let Some(lanes) = self.applications.get_mut(&application) {
            *lanes -= 1;
            if *lanes == 0 {
                self.applications.remove(&application);
            }
        }
        let receiver = self.receivers.entry(receiver).or_default();
        receiver.lanes = receiver.lanes.saturating_sub(1);
        match end {
            Some(end) => {
                self.calls.remove(&call);
                match end {
                    LaneEnd::Failed => receiver.failed_at = Some(Instant::now()),
                    LaneEnd::Received => receiver.failed_at = None,
                    LaneEnd::Nothing => {}
                }
            }
            None => error!(
                call.id = %call,
                "Delivery panicked; the notifications of this call wait for a restart"
            ),
        }
    }
}

/// What the end of a lane says about its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LaneEnd {
    /// The receiver accepts notifications.
    Received,
    /// The POST has failed.
    Failed,
    /// The lane says nothing about the receiver: no POST was sent, or it was refused or hopeless.
    Nothing,
}

/// What every lane needs.
struct LaneParts {
    store: Database,
    webhook: Webhook,
    render: Render,
    config: DispatcherConfig,
    cancel: CancellationToken,
    refusals: Mutex<Refusals>,
}

impl LaneParts {
    /// Sends the notifications of one call, beginning with `head`, until one has to wait.
    async fn run(&self, head: Delivery) -> LaneEnd {
        let receiver = head.receiver.clone();
        let mut end = LaneEnd::Nothing;
        let mut next = Some(head);
        while let Some(delivery) = next.take() {
            let call = delivery.call;
            let span = info_span!("delivery", call.id = %call, outbox.seq = delivery.sequence);
            end = self.deliver(&delivery).instrument(span).await;
            if end == LaneEnd::Failed || self.cancel.is_cancelled() {
                break;
            }
            next = match self.store.head_of(call, self.store.clock().now()).await {
                // The share of lanes is counted by receiver: the desk opens a lane for the other
                // one.
                Ok(head) => head.filter(|head| head.receiver == receiver),
                Err(error) => {
                    debug!(call.id = %call, "The outbox cannot be read: {error}");
                    None
                }
            };
        }
        end
    }

    async fn deliver(&self, delivery: &Delivery) -> LaneEnd {
        let answer = match (self.render)(delivery) {
            Ok(rendered) => self.webhook.post(&delivery.callback_uri, rendered).await,
            Err(reason) => {
                WebhookAnswer::Failed { reason: format!("not sent: {reason}"), retry_after: None }
            }
        };
        let attempts = delivery.attempts.saturating_add(1);
        let refusals = self.count_refusals(delivery, &answer);
        match answer {
            WebhookAnswer::Received => {
                debug!(attempts, "Notification received");
                self.write_down(|| self.store.delivered(delivery)).await;
                LaneEnd::Received
            }
            WebhookAnswer::Hopeless { reason } => {
                self.give_up(delivery, attempts, &reason).await;
                // The receiver answered quickly; the next notifications may succeed.
                LaneEnd::Nothing
            }
            WebhookAnswer::Refused { reason, .. } if refusals >= self.config.refusals => {
                self.give_up(delivery, attempts, &reason).await;
                LaneEnd::Nothing
            }
            // Only refusals count for the pause, not earlier failures of other kinds: the caller
            // still hears ringing.
            WebhookAnswer::Refused { reason, retry_after } => {
                self.fail(delivery, attempts, refusals, &reason, retry_after).await;
                LaneEnd::Nothing
            }
            WebhookAnswer::Failed { reason, retry_after } => {
                self.fail(delivery, attempts, attempts, &reason, retry_after).await;
                LaneEnd::Failed
            }
        }
    }

    /// How often in a row the notification was refused, this time included.
    fn count_refusals(&self, delivery: &Delivery, answer: &WebhookAnswer) -> u32 {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let times = match answer {
            WebhookAnswer::Refused { .. } => {
                refusals.count(delivery.call, delivery.sequence, Instant::now().into_std())
            }
            WebhookAnswer::Received
            | WebhookAnswer::Hopeless { .. }
            | WebhookAnswer::Failed { .. } => 0,
        };
        if times == 0 || times >= self.config.refusals {
            refusals.end(delivery.call);
        }
        times
    }

    /// Schedules the next attempt, after the pause for `step` of the back-off.
    async fn fail(
        &self,
        delivery: &Delivery,
        attempts: u32,
        step: u32,
        reason: &str,
        retry_after: Option<Duration>,
    ) {
        let now = self.store.clock().now();
        let age = now.since(delivery.created_at);
        let failure = FailedAttempt { step, age, retry_after, jitter: rand::random() };
        let Some(pause) = backoff::pause(failure, self.config.retry_for) else {
            return self.give_up(delivery, attempts, reason).await;
        };
        let receiver = &delivery.receiver;
        if attempts == 1 {
            warn!(receiver, ?pause, "Notification failed, will be tried again: {reason}");
        } else {
            debug!(receiver, attempts, ?pause, "Notification failed again: {reason}");
        }
        let next = now.plus(pause);
        self.write_down(|| self.store.failed(delivery, attempts, next, reason)).await;
    }

    async fn give_up(&self, delivery: &Delivery, attempts: u32, reason: &str) {
        error!(receiver = delivery.receiver, attempts, "Notification given up: {reason}");
        self.write_down(|| self.store.give_up(delivery, attempts, reason)).await;
    }

    /// Writes a result to the database, again and again while the database is away: a lane that
    /// went on without it would send the same notification again at once.
    async fn write_down<F>(&self, write: impl Fn() -> F)
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        while let Err(error) = write().await {
            self.store.notice(&error);
            warn!("What became of a notification cannot be written down: {error}");
            tokio::select! {
                () = self.cancel.cancelled() => return,
                () = tokio::time::sleep(DATABASE_PAUSE) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
