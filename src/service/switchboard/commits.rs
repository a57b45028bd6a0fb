//! The changes of one call in order, through the journal, and what waits for them.

use std::collections::VecDeque;

use super::mailbox::Reply;
use crate::drivers::store::{Commit, Journal, JournalBehind, StoreError};
use aftertone_core::{
    call::CallError,
    model::{Change, Operation, OperationId, PromptSource},
};

/// What waits for the commits before it.
pub(super) enum After {
    Reply(Reply<()>, Result<(), CallError>),
    Accepted(Reply<Operation>, Box<Operation>),
    Prepare(OperationId, Vec<PromptSource>),
    Over,
}

impl After {
    /// Whether it is an answer to a request that has not waited for it.
    fn is_given_up(&self) -> bool {
        match self {
            Self::Reply(reply, _) => reply.is_closed(),
            Self::Accepted(reply, _) => reply.is_closed(),
            Self::Prepare(..) | Self::Over => false,
        }
    }
}

/// Changes in order, through the journal, and what waits for them.
#[derive(Default)]
pub(super) struct Commits {
    /// Not taken by the journal yet.
    waiting: VecDeque<Change>,
    /// Taken, not resolved yet; oldest first.
    under_way: VecDeque<Commit>,
    /// Changes so far, and how many of them are durable or refused.
    issued: u64,
    resolved: u64,
    after: VecDeque<Waiting>,
    /// Notifications of keys that found no room.
    tones_passed_over: u64,
}

/// So many changes of one call may wait while keys are still told.
const MOST_WITH_TONES: u64 = 64;
/// Changes that the journal has not taken, beyond which a call accepts no more from its
/// application.
const MOST_WAITING: usize = 64;
/// So many changes of one call may wait at all. Keys and an application that does not stop asking
/// are what makes so many; a call that is ended makes no more.
const MOST: u64 = 1024;
/// Beyond so many answers that wait, those that are not waited for any more are forgotten.
const MOST_ANSWERS: usize = 256;

/// Something that waits until the changes after `since`, up to `until`, are resolved.
struct Waiting {
    since: u64,
    until: u64,
    /// One of them was refused.
    is_refused: bool,
    after: After,
}

impl Commits {
    /// Takes a change. Facts are never dropped; one that only tells of keys is when too much waits.
    pub fn push(&mut self, change: Change) {
        if self.unresolved() >= MOST_WITH_TONES && change.is_only_tones() {
            self.tones_passed_over += 1;
            return;
        }
        self.issued += 1;
        self.waiting.push_back(change);
    }

    /// How many changes there were so far.
    pub fn issued(&self) -> u64 {
        self.issued
    }

    /// Whether so much waits that the call must not make more.
    pub fn are_too_many(&self) -> bool {
        self.unresolved() > MOST
    }

    /// How many notifications of keys were dropped.
    pub fn tones_passed_over(&self) -> u64 {
        self.tones_passed_over
    }

    /// Changes that are neither durable nor refused.
    fn unresolved(&self) -> u64 {
        self.issued - self.resolved
    }

    /// `after` waits for all changes so far; those after the first `since` are its own.
    pub fn then(&mut self, since: u64, after: After) {
        if self.after.len() >= MOST_ANSWERS {
            self.after.retain(|waiting| !waiting.after.is_given_up());
        }
        self.after.push_back(Waiting { since, until: self.issued, is_refused: false, after });
    }

    /// As `then`; only the last change is its own.
    pub fn then_of_last(&mut self, after: After) {
        self.then(self.issued.saturating_sub(1), after);
    }

    /// Whether the journal has not taken all.
    pub fn is_held_up(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether so much waits for the journal that no application may add to it.
    pub fn are_full(&self) -> bool {
        self.waiting.len() >= MOST_WAITING
    }

    /// Whether the journal has not resolved all that it has taken.
    pub fn are_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Hands to the journal what it takes; the rest waits here.
    pub fn submit(&mut self, journal: &Journal) {
        while let Some(change) = self.waiting.pop_front() {
            match journal.submit(change) {
                Ok(commit) => self.under_way.push_back(commit),
                Err(JournalBehind(change)) => {
                    self.waiting.push_front(*change);
                    return;
                }
            }
        }
    }

    /// The result of the oldest commit. Canceling loses nothing.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        let Some(commit) = self.under_way.front_mut() else { return std::future::pending().await };
        let result = commit.await;
        self.under_way.pop_front();
        self.resolved += 1;
        if result.is_err() {
            let own = self.after.iter_mut().filter(|waiting| waiting.since < self.resolved);
            own.for_each(|waiting| waiting.is_refused = true);
        }
        result
    }

    /// What has waited long enough, and whether its own changes are written down.
    pub fn next_due(&mut self) -> Option<(After, Result<(), CallError>)> {
        if self.after.front()?.until > self.resolved {
            return None;
        }
        let Waiting { is_refused, after, .. } = self.after.pop_front()?;
        Some((after, if is_refused { Err(CallError::Internal) } else { Ok(()) }))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use aftertone_core::model::{CallId, Event, Notification, RecordingChange, RecordingId, Tone};

    fn tone(sequence: u64) -> Change {
        let event =
            Event::ToneHeard { call: CallId::from_random([1; 16]), sequence, tone: Tone::POUND };
        let notification = Notification {
            application: String::new(),
            callback_uri: String::new(),
            chain_id: String::new(),
            event,
        };
        Change { notifications: vec![notification], ..Change::default() }
    }

    fn fact() -> Change {
        let discarded = RecordingChange::Discarded { id: RecordingId::from_random([2; 16]) };
        Change { recordings: vec![discarded], ..Change::default() }
    }

    #[test]
    fn keys_make_no_more_wait_while_the_database_is_away_and_facts_are_kept() {
        let mut commits = Commits::default();
        (1..10_000).for_each(|sequence| commits.push(tone(sequence)));
        assert_eq!(commits.waiting.len() as u64, MOST_WITH_TONES);
        assert_eq!(commits.tones_passed_over(), 9_999 - MOST_WITH_TONES);
        // What tells of a key beside a fact is a fact.
        commits.push(Change { recordings: fact().recordings, ..tone(1) });
        commits.push(fact());
        assert_eq!(commits.waiting.len() as u64, MOST_WITH_TONES + 2);
        assert!(!commits.are_too_many());
    }

    #[test]
    fn a_call_whose_facts_pile_up_is_to_be_ended() {
        let mut commits = Commits::default();
        (0..MOST).for_each(|_| commits.push(fact()));
        assert!(!commits.are_too_many());
        commits.push(fact());
        assert!(commits.are_too_many());
    }

    #[test]
    fn answers_that_are_not_waited_for_do_not_pile_up() {
        let mut commits = Commits::default();
        commits.push(fact());
        let (reply, kept) = oneshot::channel();
        commits.then(0, After::Reply(reply, Ok(())));
        for _ in 0..10 * MOST_ANSWERS {
            let (reply, _) = oneshot::channel();
            commits.then(0, After::Reply(reply, Ok(())));
        }
        commits.then_of_last(After::Over);
        assert!(commits.after.len() <= MOST_ANSWERS + 2);
        assert!(matches!(commits.after.front(), Some(waiting) if !waiting.after.is_given_up()));
        assert!(matches!(commits.after.back(), Some(Waiting { after: After::Over, .. })));
        drop(kept);
    }

    #[test]
    fn what_a_call_keeps_for_a_journal_that_is_behind_is_bounded() {
        let mut commits = Commits::default();
        for _ in 1..MOST_WAITING {
            commits.push(Change::default());
            assert!(!commits.are_full());
        }
        commits.push(Change::default());
        assert!(commits.are_full());
    }
}
