//! The operations of one call that are not over: in order, one at a time on the media.
//!
//! An operation is *waiting* until its turn has come and its prompts are there, *running* while the
//! media works on it, *said* while the peer still plays the last of it, *finishing* while its clip
//! is made safe. The next one runs while an earlier one is said or finishes.

use crate::model::{
    Operation, OperationEnd, OperationId, OperationStatus, RecordingId, operation::Recorded,
};

/// An operation that is not over, and how far it has come.
#[derive(Debug)]
pub struct Entry {
    /// The operation as the application sees it.
    pub operation: Operation,
    /// The clip that it writes.
    pub recording: Option<RecordingId>,
    /// How far it has come.
    pub stage: Stage,
}

/// How far an operation has come.
#[derive(Debug)]
pub enum Stage {
    /// Not begun. `prepared` is `None` until it is committed and its prompts are there.
    Waiting {
        /// Whether it may begin, or why it cannot.
        prepared: Option<Result<(), OperationEnd>>,
    },
    /// On the media.
    Running,
    /// Off the media; the peer has not played all of it yet.
    Said,
    /// Off the media; its clip is being made safe.
    Finishing {
        /// How it will have ended.
        end: OperationEnd,
        /// The clip's figures.
        recorded: Recorded,
    },
}

/// The operations of a call that are not over.
#[derive(Debug, Default)]
pub struct Queue {
    entries: Vec<Entry>,
}

/// The longest queue of one call.
pub const MAX_QUEUED: usize = 64;

/// What the head of the queue asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// Begin this one.
    Begin(OperationId),
    /// End this one so: what it needs cannot be had.
    Fail(OperationId, OperationEnd),
}

impl Queue {
    /// Appends an operation.
    pub fn push(&mut self, operation: Operation, recording: Option<RecordingId>) {
        self.entries.push(Entry { operation, recording, stage: Stage::Waiting { prepared: None } });
    }

    /// Notes that an operation may begin, or why it cannot.
    pub fn prepared(&mut self, id: OperationId, result: Result<(), OperationEnd>) {
        if let Some(Entry { stage: Stage::Waiting { prepared }, .. }) = self.find_mut(id) {
            *prepared = Some(result);
        }
    }

    /// Whose turn it is, if anybody's: nothing runs, and the first that waits is prepared.
    pub fn turn(&self) -> Option<Turn> {
        if self.running().is_some() {
            return None;
        }
        let first = self.entries.iter().find(|e| matches!(e.stage, Stage::Waiting { .. }))?;
        match &first.stage {
            Stage::Waiting { prepared: Some(Ok(())) } => Some(Turn::Begin(first.operation.id)),
            Stage::Waiting { prepared: Some(Err(end)) } => {
                Some(Turn::Fail(first.operation.id, end.clone()))
            }
            _ => None,
        }
    }

    /// Marks an operation as running.
    pub fn begin(&mut self, id: OperationId) {
        if let Some(entry) = self.find_mut(id) {
            entry.stage = Stage::Running;
            entry.operation.status = OperationStatus::Running;
        }
    }

    /// Marks a running operation as said.
    pub fn said(&mut self, id: OperationId) {
        if let Some(entry) = self.find_mut(id).filter(|e| matches!(e.stage, Stage::Running)) {
            entry.stage = Stage::Said;
        }
    }

    /// Marks a running operation as finishing.
    pub fn finish(&mut self, id: OperationId, end: OperationEnd, recorded: Recorded) {
        if let Some(entry) = self.find_mut(id) {
            entry.stage = Stage::Finishing { end, recorded };
        }
    }

    /// Takes an operation out, over or not.
    pub fn take(&mut self, id: OperationId) -> Option<Entry> {
        let index = self.entries.iter().position(|entry| entry.operation.id == id)?;
        Some(self.entries.remove(index))
    }

    /// Takes out all that have not begun.
    pub fn take_waiting(&mut self) -> Vec<Entry> {
        self.take_all(|stage| matches!(stage, Stage::Waiting { .. }))
    }

    /// Takes out all of which the peer has not played the last yet.
    pub fn take_said(&mut self) -> Vec<Entry> {
        self.take_all(|stage| matches!(stage, Stage::Said))
    }

    /// The one on the media.
    pub fn running(&self) -> Option<&Entry> {
        self.entries.iter().find(|entry| matches!(entry.stage, Stage::Running))
    }

    /// The entry of an operation that is not over.
    pub fn find(&self, id: OperationId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.operation.id == id)
    }

    /// All that are not over, in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many are on the media, are still played, or are made safe.
    pub fn begun(&self) -> usize {
        self.entries.iter().filter(|entry| !matches!(entry.stage, Stage::Waiting { .. })).count()
    }

    /// Whether nothing runs or waits: what is off the media does not hold up a new one.
    pub fn is_free(&self) -> bool {
        let is_off_media =
            |entry: &Entry| matches!(entry.stage, Stage::Said | Stage::Finishing { .. });
        self.entries.iter().all(is_off_media)
    }

    fn take_all(&mut self, is_meant: impl Fn(&Stage) -> bool) -> Vec<Entry> {
        let entries = std::mem::take(&mut self.entries).into_iter();
        let (taken, rest) = entries.partition(|entry| is_meant(&entry.stage));
        self.entries = rest;
        taken
    }

    fn find_mut(&mut self, id: OperationId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.operation.id == id)
    }
}
