//! One media thread and its legs.
//!
//! A shard wakes every 5 ms on a fixed schedule and serves a quarter of its legs, so that each leg
//! has its tick every 20 ms and the load is even. There is no wake-up per packet, because wake-ups
//! are the main cost. Late wake-ups are made up for, so that no frame is lost, up to a limit beyond
//! which the burst would be of no use. A panic in a leg ends that leg. A shard without legs sleeps.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    leg::{Life, LiveLeg, Opening, Scratch},
    open_error::OpenError,
};

/// Time between two wakes.
const WAKE: Duration = Duration::from_millis(5);
/// Wakes in the 20 ms of a frame.
const PHASES: usize = 4;
/// How far behind its schedule a shard still makes up for every wake-up: ten frames. A hypervisor
/// sometimes takes a core away for about 100 ms.
const MAX_BEHIND: Duration = Duration::from_millis(200);
/// How many legs can wait to be taken over.
const INBOX: usize = 1_024;
/// Weight of one wake in the smoothed lateness: 1/64 is about a third of a second.
const SMOOTHING: u64 = 64;
/// How long legs may take to hand over their recordings when the engine is shut down.
const SHUTDOWN: Duration = Duration::from_secs(5);

/// The handle to a shard.
#[derive(Debug)]
pub(super) struct Inbox {
    messages: SyncSender<ShardMessage>,
    status: Arc<ShardStatus>,
}

/// A shard that is not on its thread yet: legs are built on the thread and cannot move.
#[derive(Debug)]
pub(super) struct Shard {
    index: usize,
    messages: Receiver<ShardMessage>,
    status: Arc<ShardStatus>,
}

/// A shard on its thread.
#[derive(Debug)]
struct LiveShard {
    shard: Shard,
    phases: [Vec<LiveLeg>; PHASES],
}

/// A message to a shard.
#[derive(Debug)]
enum ShardMessage {
    Open(Box<Opening>),
    /// Check the status.
    Wake,
}

/// The state of a shard that other threads see.
#[derive(Debug, Default)]
struct ShardStatus {
    legs: AtomicUsize,
    lateness_us: AtomicU64,
    stopping: AtomicBool,
}

impl Inbox {
    /// Hands a leg over.
    ///
    /// # Errors
    /// The shard does not keep up, or has ended.
    pub(super) fn open(&self, opening: Opening) -> Result<(), OpenError> {
        if self.is_stopped() {
            return Err(OpenError::Down);
        }
        // The leg is counted here, so that many calls at once are spread over the shards.
        self.status.legs.fetch_add(1, Ordering::Relaxed);
        self.messages.try_send(ShardMessage::Open(Box::new(opening))).map_err(|error| {
            self.status.legs.fetch_sub(1, Ordering::Relaxed);
            match error {
                TrySendError::Full(_) => OpenError::Busy,
                TrySendError::Disconnected(_) => OpenError::Down,
            }
        })
    }

    /// Whether the shard has ended, or is about to end.
    pub(super) fn is_stopped(&self) -> bool {
        self.status.stopping.load(Ordering::Relaxed)
    }

    /// How many legs the shard has.
    pub(super) fn legs(&self) -> usize {
        self.status.legs.load(Ordering::Relaxed)
    }

    /// How late the shard wakes, smoothed.
    pub(super) fn lateness(&self) -> Duration {
        Duration::from_micros(self.status.lateness_us.load(Ordering::Relaxed))
    }

    /// Asks the shard to close its legs and end.
    pub(super) fn stop(&self) {
        self.status.stopping.store(true, Ordering::Relaxed);
        // A shard with a full inbox is awake anyway.
        let _ = self.messages.try_send(ShardMessage::Wake);
    }
}

impl Shard {
    /// A shard and the handle to it.
    pub(super) fn new(index: usize) -> (Inbox, Self) {
        let (sender, messages) = sync_channel(INBOX);
        let status = Arc::new(ShardStatus::default());
        let inbox = Inbox { messages: sender, status: status.clone() };
        (inbox, Self { index, messages, status })
    }

    /// Serves legs until it is stopped. Blocks the thread.
    pub(super) fn run(self) {
        LiveShard { shard: self, phases: Default::default() }.run();
    }
}

impl LiveShard {
    fn run(mut self) {
        let mut scratch = Scratch::default();
        let mut schedule = WakeSchedule::new(Instant::now());
        let mut shutdown: Option<Instant> = None;
        loop {
            if self.is_empty() {
                if shutdown.is_some() || self.wait_for_work().is_err() {
                    return;
                }
                schedule = WakeSchedule::new(Instant::now());
            }
            while let Ok(message) = self.shard.messages.try_recv() {
                self.take(message);
            }
            if self.shard.status.stopping.load(Ordering::Relaxed) {
                shutdown.get_or_insert_with(|| Instant::now() + SHUTDOWN);
                self.close_all(&mut scratch);
            }
            if shutdown.is_some_and(|deadline| Instant::now() >= deadline) {
                tracing::warn!(shard = self.shard.index, "legs did not end in time");
                return;
            }
            self.serve(schedule.phase(), &mut scratch, LiveLeg::tick);
            self.sleep(&mut schedule);
        }
    }

    fn is_empty(&self) -> bool {
        self.phases.iter().all(Vec::is_empty)
    }

    fn wait_for_work(&mut self) -> Result<(), RecvError> {
        self.shard.status.lateness_us.store(0, Ordering::Relaxed);
        let message = self.shard.messages.recv()?;
        self.take(message);
        Ok(())
    }

    fn take(&mut self, message: ShardMessage) {
        match message {
            ShardMessage::Open(opening) => {
                let leg = LiveLeg::new(*opening);
                if let Some(phase) = self.phases.iter_mut().min_by_key(|legs| legs.len()) {
                    phase.push(leg);
                }
            }
            ShardMessage::Wake => {}
        }
    }

    /// Calls `work` with the legs of one phase, and removes those that are over. If it panics, the
    /// leg fails.
    fn serve(
        &mut self,
        phase: usize,
        scratch: &mut Scratch,
        work: fn(&mut LiveLeg, &mut Scratch) -> Life,
    ) {
        let legs = &mut self.phases[phase];
        let before = legs.len();
        legs.retain_mut(|leg| {
            let worked = catch_unwind(AssertUnwindSafe(|| work(leg, scratch)));
            let life = worked.unwrap_or_else(|_| {
                // The buffers may be in any state, so no other leg gets them.
                *scratch = Scratch::default();
                catch_unwind(AssertUnwindSafe(|| leg.fail())).unwrap_or(Life::Over)
            });
            life == Life::Alive
        });
        let over = before - legs.len();
        if over > 0 {
            self.shard.status.legs.fetch_sub(over, Ordering::Relaxed);
        }
    }

    fn close_all(&mut self, scratch: &mut Scratch) {
        for phase in 0..PHASES {
            self.serve(phase, scratch, LiveLeg::close);
        }
    }

    fn sleep(&self, schedule: &mut WakeSchedule) {
        let now = Instant::now();
        let skipped = schedule.advance(now);
        if !skipped.is_zero() {
            tracing::warn!(
                shard = self.shard.index,
                ?skipped,
                "media was too late to make up for it"
            );
        }
        if let Some(pause) = schedule.next.checked_duration_since(now) {
            thread::sleep(pause);
        }
        schedule.woken(Instant::now());
        self.shard.status.lateness_us.store(schedule.lateness_us, Ordering::Relaxed);
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        // A dead shard must not look like the one with the fewest legs.
        self.status.stopping.store(true, Ordering::Relaxed);
        self.status.legs.store(0, Ordering::Relaxed);
    }
}

/// The schedule of a shard's wake-ups.
#[derive(Debug)]
struct WakeSchedule {
    next: Instant,
    phase: usize,
    /// The smoothed lateness, in microseconds.
    lateness_us: u64,
}

impl WakeSchedule {
    fn new(now: Instant) -> Self {
        Self { next: now, phase: 0, lateness_us: 0 }
    }

    /// The phase to be served now.
    fn phase(&self) -> usize {
        self.phase
    }

    /// Goes on to the next wake-up. Returns how much time is skipped because the shard is too far
    /// behind: whole frames, so that each leg keeps its place in the schedule.
    fn advance(&mut self, now: Instant) -> Duration {
        self.phase = (self.phase + 1) % PHASES;
        self.next += WAKE;
        let behind = now.saturating_duration_since(self.next);
        if behind <= MAX_BEHIND {
            return Duration::ZERO;
        }
        let frame = WAKE * PHASES as u32;
        let frames = (behind.as_micros() / frame.as_micros()).try_into().unwrap_or(u32::MAX);
        let skipped = frame.saturating_mul(frames);
        self.next += skipped;
        skipped
    }

    fn woken(&mut self, now: Instant) {
        let late = now.saturating_duration_since(self.next).as_micros();
        let late = u64::try_from(late).unwrap_or(u64::MAX / SMOOTHING);
        self.lateness_us = (self.lateness_us * (SMOOTHING - 1) + late) / SMOOTHING;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakes_are_on_a_fixed_grid_however_late_they_come() {
        let start = Instant::now();
        let mut schedule = WakeSchedule::new(start);
        for wake in 1..100_u32 {
            let late = Duration::from_millis(u64::from(wake % 7));
            assert_eq!(schedule.advance(start + WAKE * wake + late), Duration::ZERO);
            assert_eq!(schedule.next, start + WAKE * wake);
            assert_eq!(schedule.phase(), wake as usize % PHASES);
        }
    }

    #[test]
    fn a_long_stall_is_given_up_in_whole_frames() {
        let start = Instant::now();
        let mut schedule = WakeSchedule::new(start);
        let skipped = schedule.advance(start + Duration::from_millis(1_012));
        assert_eq!(skipped, Duration::from_millis(1_000));
        assert_eq!(schedule.next, start + Duration::from_millis(1_005));
        assert_eq!(schedule.phase(), 1);
    }

    #[test]
    fn one_late_wake_is_not_lateness_but_many_are() {
        let start = Instant::now();
        let mut schedule = WakeSchedule::new(start);
        schedule.woken(start + Duration::from_millis(100));
        assert!(schedule.lateness_us < 2_000);
        for _ in 0..300 {
            schedule.woken(start + Duration::from_millis(100));
        }
        assert!(schedule.lateness_us > 90_000);
    }
}
