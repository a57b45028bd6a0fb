//! The operations of one call that are not over: in order, one at a time on the media.
//!
//! An operation is *waiting* until its turn has come and its prompts are there, *running* while the
//! media works on it, *finishing* while its clip is made safe. The next one runs while an earlier
//! one still finishes.

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
        let (waiting, rest) = std::mem::take(&mut self.entries)
            .into_iter()
            .partition(|entry| matches!(entry.stage, Stage::Waiting { .. }));
        self.entries = rest;
        waiting
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

    /// How many are on the media, or are made safe.
    pub fn begun(&self) -> usize {
        self.entries.iter().filter(|entry| !matches!(entry.stage, Stage::Waiting { .. })).count()
    }

    /// Whether nothing runs or waits (finishing ones do not hold up a new one).
    pub fn is_free(&self) -> bool {
        self.entries.iter().all(|entry| matches!(entry.stage, Stage::Finishing { .. }))
    }

    fn find_mut(&mut self, id: OperationId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.operation.id == id)
    }
}
