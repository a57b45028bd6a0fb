//! The earliest time at which a row may be due for deletion.
//!
//! The purge queries when the next row is due, and sleeps until then. A row that is committed
//! meanwhile may be due earlier: after the commit, its time is announced here.

use std::time::Duration;

use tokio::sync::watch;

use crate::drivers::clock::Clock;
use aftertone_core::model::SteadyMillis;

/// The earliest time that was announced since [`Expiry::forget_announced`].
#[derive(Debug)]
pub struct Expiry {
    earliest: watch::Sender<Option<SteadyMillis>>,
    clock: Clock,
}

/// How late rows may be deleted that need not go at an exact time, so that many of them go
/// together.
pub const PURGE_LEEWAY: Duration = Duration::from_secs(1);

impl Expiry {
    pub(super) fn new(clock: Clock) -> Self {
        Self { earliest: watch::Sender::default(), clock }
    }

    /// Announces that a row is due at `at`. The row must be committed.
    pub(super) fn announce(&self, at: SteadyMillis) {
        self.earliest.send_if_modified(|earliest| {
            let is_earlier = earliest.is_none_or(|earliest| at < earliest);
            if is_earlier {
                *earliest = Some(at);
            }
            is_earlier
        });
    }

    /// Announces that a row is due about now.
    pub(super) fn announce_soon(&self) {
        self.announce(self.clock.now().plus(PURGE_LEEWAY));
    }

    /// Announces that a row is due about now, at the latest when the answer is dropped: the change
    /// of a future that is dropped may still be carried out.
    pub(super) fn announce_when_dropped(&self) -> impl Drop + '_ {
        WhenDropped(self)
    }

    /// Forgets the times that were announced. Their rows are committed: queries that begin after
    /// this see them.
    pub fn forget_announced(&self) {
        self.earliest.send_replace(None);
    }

    /// Returns at `next`, or earlier at the time that was announced for another row.
    pub async fn until_due(&self, next: SteadyMillis) {
        let mut announced = self.earliest.subscribe();
        loop {
            let earliest = *announced.borrow_and_update();
            let due = earliest.map_or(next, |earliest| earliest.min(next));
            tokio::select! {
                () = self.clock.sleep_until(due) => return,
                // The sender lives as long as `self`.
                Ok(()) = announced.changed() => {}
            }
        }
    }
}

/// Announces a row that is due about now.
struct WhenDropped<'a>(&'a Expiry);

impl Drop for WhenDropped<'_> {
    fn drop(&mut self) {
        self.0.announce_soon();
    }
}
