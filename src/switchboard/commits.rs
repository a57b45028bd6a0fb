//! The changes of one call in order, through the journal, and what waits for them.

use std::collections::VecDeque;

use super::call_task::Reply;
use crate::{
    call::CallError,
    model::{Change, Operation, OperationId, PromptSource},
    store::{Commit, Journal, JournalBehind, StoreError},
};

/// What waits for the commits before it.
pub(super) enum After {
    Reply(Reply<()>, Result<(), CallError>),
    Accepted(Reply<Operation>, Box<Operation>),
    Prepare(OperationId, Vec<PromptSource>),
    Over,
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
}

/// Something that waits until the changes after `since`, up to `until`, are resolved.
struct Waiting {
    since: u64,
    until: u64,
    /// One of them was refused.
    is_refused: bool,
    after: After,
}

/// Changes that the journal has not taken, beyond which a call accepts no more from its application.
const MOST_WAITING: usize = 64;

impl Commits {
    pub fn push(&mut self, change: Change) {
        self.issued += 1;
        self.waiting.push_back(change);
    }

    /// How many changes there were so far.
    pub fn issued(&self) -> u64 {
        self.issued
    }

    /// `after` waits for all changes so far; those after the first `since` are its own.
    pub fn then(&mut self, since: u64, after: After) {
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
    use super::*;

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
