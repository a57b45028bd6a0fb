//! Ends a call after its process or task has died, and each of its operations with it.

use super::Now;
use crate::model::{
    Call, CallState, Change, Event, Notification, Operation, OperationEnd, Recorded,
    RecordingChange, RecordingId, Termination,
};

/// A clip that was being written when the process died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftClip {
    /// The clip.
    pub id: RecordingId,
    /// Its operation.
    pub operation: crate::model::OperationId,
    /// Size of the repaired file in bytes and its length in milliseconds; `None` if nothing of it
    /// was left.
    pub kept: Option<(u64, u64)>,
}

/// Ends a call that has lost its process or task, with all its unfinished operations, in one
/// commit.
///
/// What was kept of a recording is delivered as if the caller had hung up, because for the caller
/// the crash was the end of the call.
pub fn end_lost_call(
    mut call: Call,
    unfinished: Vec<Operation>,
    clips: &[LeftClip],
    termination: Termination,
    now: Now,
    retention: std::time::Duration,
) -> Change {
    let mut change = Change::default();
    let mut events = Vec::new();
    for mut operation in unfinished {
        let clip = clips.iter().find(|clip| clip.operation == operation.id);
        let kept = clip.and_then(|clip| clip.kept.map(|kept| (clip.id, kept)));
        operation.recording = kept.map(|(id, (_, duration_ms))| Recorded {
            id,
            duration_ms,
            speech_ms: 0,
            speech_ended_at_ms: None,
        });
        let end = match kept {
            Some(_) => OperationEnd::HungUpWithAudio,
            None if operation.kind.is_record() => OperationEnd::HungUpWithoutAudio,
            None => OperationEnd::Canceled,
        };
        operation.status = end.status();
        operation.end = Some(end);
        operation.ended_at = Some(now.wall);
        if let Some(clip) = clip {
            change.recordings.push(match clip.kept {
                Some((bytes, _)) => RecordingChange::Finished { id: clip.id, bytes },
                None => RecordingChange::Discarded { id: clip.id },
            });
        }
        change.operations.push(operation.clone());
        events.push(Event::OperationEnded { operation });
    }
    call.state = CallState::Terminated;
    call.ended_at = Some(now.wall);
    call.termination = Some(termination);
    call.media = None;
    let ended_at = now.steady;
    change.recordings.push(RecordingChange::Expire { call: call.id, ended_at, retention });
    events.push(Event::CallEnded { call: call.clone() });
    if let (Some(application), Some(callback_uri)) = (&call.application, &call.callback_uri) {
        change.notifications = events
            .into_iter()
            .map(|event| Notification {
                application: application.clone(),
                callback_uri: callback_uri.clone(),
                chain_id: call.chain_id.clone(),
                event,
            })
            .collect();
    }
    change.call = Some(call);
    change
}
