//! The operations of one call that are not over. The media carries them out in order, one at a
//! time.
//!
//! An operation is *waiting* until its turn has come and its prompts are ready, *running* while the
//! media carries it out, *said* while the peer still plays the end of its audio, and *finishing*
//! while its clip is made safe. The next operation runs while an earlier one is said or finishing.

use crate::model::{
    Operation, OperationEnd, OperationId, OperationStatus, RecordingId, operation::Recorded,
};

/// An operation that is not over, and its stage.
#[derive(Debug)]
pub struct QueuedOperation {
    /// The operation as the application sees it.
    pub operation: Operation,
    /// The clip that it writes.
    pub recording: Option<RecordingId>,
    /// The operation's stage.
    pub stage: Stage,
}

/// The stage of an operation.
#[derive(Debug)]
pub enum Stage {
    /// The operation has not begun. `prepared` is `None` until the operation is committed and its
    /// prompts are ready.
    Waiting {
        /// Whether it may begin, or why it cannot.
        prepared: Option<Result<(), OperationEnd>>,
    },
    /// The media carries out the operation.
    Running,
    /// All audio is sent; the peer has not played all of it yet.
    Said,
    /// The media is done; the clip is being made safe.
    Finishing {
        /// How the operation ends once the clip is safe.
        end: OperationEnd,
        /// Length and speech times of the clip.
        recorded: Recorded,
    },
}

/// The operations of a call that are not over.
#[derive(Debug, Default)]
pub struct Queue {
    entries: Vec<QueuedOperation>,
}

/// The longest queue of one call.
pub const MAX_QUEUED: usize = 64;

/// The next step for the head of the queue.
#[derive(Debug)]
pub enum Turn {
    /// Begin this operation, which writes this clip.
    Begin(Operation, Option<RecordingId>),
    /// End this operation with this result: its prompts or its clip's file cannot be had.
    Fail(QueuedOperation, OperationEnd),
}

impl Queue {
    /// Appends an operation.
    pub fn push(&mut self, operation: Operation, recording: Option<RecordingId>) {
        self.entries.push(QueuedOperation {
            operation,
            recording,
            stage: Stage::Waiting { prepared: None },
        });
    }

    /// Notes that an operation may begin, or why it cannot.
    pub fn prepared(&mut self, id: OperationId, result: Result<(), OperationEnd>) {
        if let Some(QueuedOperation { stage: Stage::Waiting { prepared }, .. }) = self.find_mut(id)
        {
            *prepared = Some(result);
        }
    }

    /// The next step, if nothing runs and the first waiting operation is prepared: marks this
    /// operation as running, or removes it.
    pub fn turn(&mut self) -> Option<Turn> {
        if self.running().is_some() {
            return None;
        }
        let is_waiting = |e: &QueuedOperation| matches!(e.stage, Stage::Waiting { .. });
        let first = self.entries.iter().position(is_waiting)?;
        let entry = self.entries.get_mut(first)?;
        let Stage::Waiting { prepared } = &mut entry.stage else { return None };
        match prepared.take()? {
            Ok(()) => {
                entry.stage = Stage::Running;
                entry.operation.status = OperationStatus::Running;
                Some(Turn::Begin(entry.operation.clone(), entry.recording))
            }
            Err(end) => Some(Turn::Fail(self.entries.remove(first), end)),
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

    /// Removes an operation, whatever its stage.
    pub fn take(&mut self, id: OperationId) -> Option<QueuedOperation> {
        let index = self.entries.iter().position(|entry| entry.operation.id == id)?;
        Some(self.entries.remove(index))
    }

    /// Removes all operations that have not begun.
    pub fn take_waiting(&mut self) -> Vec<QueuedOperation> {
        self.take_all(|stage| matches!(stage, Stage::Waiting { .. }))
    }

    /// Removes all operations that are sent but not played to the end by the peer.
    pub fn take_said(&mut self) -> Vec<QueuedOperation> {
        self.take_all(|stage| matches!(stage, Stage::Said))
    }

    /// The operation that the media carries out.
    pub fn running(&self) -> Option<&QueuedOperation> {
        self.entries.iter().find(|entry| matches!(entry.stage, Stage::Running))
    }

    /// The entry of an operation that is not over.
    pub fn find(&self, id: OperationId) -> Option<&QueuedOperation> {
        self.entries.iter().find(|entry| entry.operation.id == id)
    }

    /// All operations that are not over, in order.
    pub fn entries(&self) -> &[QueuedOperation] {
        &self.entries
    }

    /// Number of operations that have begun: running, said or finishing.
    pub fn begun(&self) -> usize {
        self.entries.iter().filter(|entry| !matches!(entry.stage, Stage::Waiting { .. })).count()
    }

    /// Whether nothing runs or waits. Operations that are said or finishing do not delay a new one.
    pub fn is_free(&self) -> bool {
        let is_off_media =
            |entry: &QueuedOperation| matches!(entry.stage, Stage::Said | Stage::Finishing { .. });
        self.entries.iter().all(is_off_media)
    }

    fn take_all(&mut self, is_meant: impl Fn(&Stage) -> bool) -> Vec<QueuedOperation> {
        let entries = std::mem::take(&mut self.entries).into_iter();
        let (taken, rest) = entries.partition(|entry| is_meant(&entry.stage));
        self.entries = rest;
        taken
    }

    fn find_mut(&mut self, id: OperationId) -> Option<&mut QueuedOperation> {
        self.entries.iter_mut().find(|entry| entry.operation.id == id)
    }
}
