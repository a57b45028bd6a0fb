//! How often in a row a notification was refused (401, 403). Pure.
//!
//! The count is kept in memory only and starts anew after a restart. It also starts anew for a
//! notification that was not tried for [`FORGOTTEN_AFTER`]: its row may have been deleted, and
//! nothing reports that to this module.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use aftertone_core::model::CallId;

/// Longer than the longest pause between two attempts ([`backoff`](super::backoff)).
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2 * 3600);

/// The refused notification of each call; at most one, because a call's notifications are sent in
/// order.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    by_call: HashMap<CallId, Refused>,
}

#[derive(Debug)]
struct Refused {
    /// Number of the notification in its call.
    sequence: u64,
    times: u32,
    at: Instant,
}

impl Refusals {
    /// Counts a refusal of the call's notification `sequence`; returns how many there have been in
    /// a row, this one included.
    pub(super) fn count(&mut self, call: CallId, sequence: u64, now: Instant) -> u32 {
        self.by_call
            .retain(|_, refused| now.saturating_duration_since(refused.at) < FORGOTTEN_AFTER);
        let known = self.by_call.get(&call).filter(|known| known.sequence == sequence);
        let times = known.map_or(0, |known| known.times).saturating_add(1);
        self.by_call.insert(call, Refused { sequence, times, at: now });
        times
    }

    /// Ends the count: the notification got another answer, or is given up.
    pub(super) fn end(&mut self, call: CallId) {
        self.by_call.remove(&call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(number: u8) -> CallId {
        CallId::from_random([number; 16])
    }

    #[test]
    fn only_refusals_of_one_notification_in_a_row_are_counted_together() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        assert_eq!([1, 1, 2].map(|sequence| refusals.count(call(1), sequence, now)), [1, 2, 1]);
        assert_eq!(refusals.count(call(2), 1, now), 1);
        refusals.end(call(1));
        assert_eq!(refusals.count(call(1), 2, now), 1);
        assert_eq!(refusals.count(call(2), 1, now), 2);
    }

    #[test]
    fn what_is_not_tried_any_more_is_forgotten() {
        let (mut refusals, begun) = (Refusals::default(), Instant::now());
        for number in 0..=255 {
            // Most of these rows are purged with their calls.
            refusals.count(call(number), 1, begun + Duration::from_secs(600) * number.into());
        }
        assert!(refusals.by_call.len() <= 12, "{}", refusals.by_call.len());
        // A notification with the longest allowed Retry-After is still remembered.
        let now = begun + Duration::from_secs(600 * 255 + 3600 * 11 / 10);
        assert_eq!(refusals.count(call(255), 1, now), 2);
    }
}
