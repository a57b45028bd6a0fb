//! Events of a leg that wait for space in the call's queue.
//!
//! The shard never waits. Events that the queue does not take stay here and are offered again in
//! the next tick. A call that takes nothing for long is stuck, and its leg closes.

use std::collections::VecDeque;

use tokio::sync::mpsc::{Sender, error::TrySendError};

use super::leg_event::LegEvent;

/// How many events wait before the call counts as stuck: more than a minute of keys pressed as fast
/// as a person can.
pub(super) const CAPACITY: usize = 1_024;

/// The events of a leg, and the channel to its call.
#[derive(Debug)]
pub(super) struct Outbox {
    events: Sender<LegEvent>,
    waiting: VecDeque<LegEvent>,
    lost: bool,
}

/// Whether the call still takes events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// Everything has been taken.
    Done,
    /// Some events wait.
    Waiting,
    /// The call is gone or stuck: no event can be delivered any more.
    Lost,
}

impl Outbox {
    /// An empty outbox.
    pub(super) fn new(events: Sender<LegEvent>) -> Self {
        Self { events, waiting: VecDeque::new(), lost: false }
    }

    /// Appends `event` after all events before it.
    pub(super) fn tell(&mut self, event: LegEvent) {
        if self.waiting.len() < CAPACITY {
            self.waiting.push_back(event);
        } else {
            self.lost = true;
        }
    }

    /// Offers the waiting events to the call.
    pub(super) fn deliver(&mut self) -> Delivery {
        while let Some(event) = self.waiting.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.waiting.push_front(event);
                    break;
                }
                Err(TrySendError::Closed(_)) => self.lost = true,
            }
        }
        if self.lost || self.events.is_closed() {
            Delivery::Lost
        } else if self.waiting.is_empty() {
            Delivery::Done
        } else {
            Delivery::Waiting
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn events_wait_in_order_until_there_is_a_place() {
        let (sender, mut events) = mpsc::channel(1);
        let mut outbox = Outbox::new(sender);
        outbox.tell(LegEvent::Heard);
        outbox.tell(LegEvent::Failed);
        assert_eq!(outbox.deliver(), Delivery::Waiting);
        assert!(matches!(events.try_recv(), Ok(LegEvent::Heard)));
        assert_eq!(outbox.deliver(), Delivery::Done);
        assert!(matches!(events.try_recv(), Ok(LegEvent::Failed)));
    }

    #[test]
    fn a_call_that_takes_nothing_or_is_gone_is_lost() {
        let (sender, events) = mpsc::channel(1);
        let mut outbox = Outbox::new(sender);
        for _ in 0..=CAPACITY {
            outbox.tell(LegEvent::Heard);
        }
        assert_eq!(outbox.deliver(), Delivery::Lost);
        drop(events);

        let (sender, events) = mpsc::channel(1);
        let mut outbox = Outbox::new(sender);
        assert_eq!(outbox.deliver(), Delivery::Done);
        drop(events);
        assert_eq!(outbox.deliver(), Delivery::Lost);
    }
}
