//! The changes of one call, committed in order through the journal, and the steps that wait for
//! them.

use std::collections::VecDeque;

use super::mailbox::Reply;
use crate::drivers::store::{Commit, Journal, JournalBehind, StoreError};
use aftertone_core::{
    call::CallError,
    model::{Change, Operation, OperationId, PromptSource},
};

/// A step that waits until the commits before it are resolved.
pub(super) enum After {
    Reply(Reply<()>, Result<(), CallError>),
    Accepted(Reply<Operation>, Box<Operation>),
    Prepare(OperationId, Vec<PromptSource>),
    Over,
}

impl After {
    /// Whether this is a reply whose API handler has stopped waiting.
    fn is_given_up(&self) -> bool {
        match self {
            Self::Reply(reply, _) => reply.is_closed(),
            Self::Accepted(reply, _) => reply.is_closed(),
            Self::Prepare(..) | Self::Over => false,
        }
    }
}

/// The changes of one call in order, and the steps that wait for them.
#[derive(Default)]
pub(super) struct Commits {
    /// Not yet accepted by the journal.
    waiting: VecDeque<Change>,
    /// Accepted by the journal, not yet resolved; oldest first.
    under_way: VecDeque<Commit>,
    /// Number of changes so far, and how many of them are durable or refused.
    issued: u64,
    resolved: u64,
    after: VecDeque<Waiting>,
    /// Number of tone notifications that were dropped.
    tones_passed_over: u64,
}

/// With this many unresolved changes of a call, tone notifications are dropped.
const MOST_WITH_TONES: u64 = 64;
/// With this many changes that the journal has not accepted, a call accepts no more operations from
/// its application.
const MOST_WAITING: usize = 64;
/// With more unresolved changes than this, a call is ended. Only tones, or an application that does
/// not stop sending requests, cause so many. A call that is ending makes no more changes.
const MOST: u64 = 1024;
/// With this many waiting steps, replies whose API handlers have stopped waiting are removed.
const MOST_ANSWERS: usize = 256;

/// A step that waits until all changes up to number `until` are resolved. Those after number
/// `since` are its own.
struct Waiting {
    since: u64,
    until: u64,
    /// One of its own changes was refused.
    is_refused: bool,
    after: After,
}

impl Commits {
    /// Adds a change. A change that contains only tone notifications is dropped when too many wait;
    /// any other change is kept.
    pub(super) fn push(&mut self, change: Change) {
        if self.unresolved() >= MOST_WITH_TONES && change.is_only_tones() {
            self.tones_passed_over += 1;
            return;
        }
        self.issued += 1;
        self.waiting.push_back(change);
    }

    /// Number of changes so far.
    pub(super) fn issued(&self) -> u64 {
        self.issued
    }

    /// Whether so many changes are unresolved that the call must end.
    pub(super) fn are_too_many(&self) -> bool {
        self.unresolved() > MOST
    }

    /// Number of tone notifications that were dropped.
    pub(super) fn tones_passed_over(&self) -> u64 {
        self.tones_passed_over
    }

    /// Number of changes that are neither durable nor refused.
    fn unresolved(&self) -> u64 {
        self.issued - self.resolved
    }

    /// Adds a step that waits for all changes so far. The changes after number `since` are its own:
    /// it fails if one of them is refused.
    pub(super) fn then(&mut self, since: u64, after: After) {
        if self.after.len() >= MOST_ANSWERS {
            self.after.retain(|waiting| !waiting.after.is_given_up());
        }
        self.after.push_back(Waiting { since, until: self.issued, is_refused: false, after });
    }

    /// Whether some changes are not yet accepted by the journal.
    pub(super) fn is_held_up(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether so many changes wait for the journal that the application may add no operation.
    pub(super) fn are_full(&self) -> bool {
        self.waiting.len() >= MOST_WAITING
    }

    /// Whether some changes are accepted by the journal but not resolved.
    pub(super) fn are_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Passes changes to the journal until it accepts no more; the rest stays here.
    pub(super) fn submit(&mut self, journal: &Journal) {
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

    /// The result of the oldest commit. Cancel-safe.
    pub(super) async fn next(&mut self) -> Result<(), StoreError> {
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

    /// The next step that need not wait any longer, with an error if one of its own changes was
    /// refused.
    pub(super) fn next_due(&mut self) -> Option<(After, Result<(), CallError>)> {
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
        // A change that contains a fact beside a tone is never dropped.
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
        commits.then(0, After::Over);
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
