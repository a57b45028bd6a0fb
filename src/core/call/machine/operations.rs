//! A call's operations, from acceptance to the one place that reports their end.

use super::{Action, Machine, MediaEnd, NewOperation, Now, Owner, Phase, random};
use crate::{
    audio::tape::SafeClip,
    call::{
        line::Step,
        queue::{QueuedOperation, Stage, Turn},
    },
    model::{
        Event, Operation, OperationEnd, OperationId, OperationKind, OperationStatus, Recorded,
        RecordingChange, RecordingId, Side, Termination, Tone,
    },
};

impl Machine {
    pub(super) fn accept(
        &mut self,
        new: NewOperation,
        clip: Option<RecordingId>,
        now: Now,
    ) -> Operation {
        let barge = new.kind.barges_in();
        if barge || new.kind == OperationKind::CancelMediaProcessing {
            self.cancel_all(now);
        }
        self.change_call(&new.kind);
        let queued = new.kind.is_queued();
        let mut operation = Operation {
            id: OperationId::from_random(random(&mut self.rng)),
            call: self.call.id,
            kind: new.kind,
            client_context: new.client_context,
            status: OperationStatus::Completed,
            end: Some(OperationEnd::Done),
            recording: None,
            created_at: now.wall,
            ended_at: Some(now.wall),
        };
        if queued {
            operation.end = None;
            operation.ended_at = None;
            operation.status = if barge || self.queue.is_free() {
                OperationStatus::Running
            } else {
                OperationStatus::NotStarted
            };
            let fresh = || RecordingId::from_random(random(&mut self.rng));
            let recording = operation.kind.is_record().then(|| clip.unwrap_or_else(fresh));
            if let Some(id) = recording {
                self.change.recordings.push(RecordingChange::Begun {
                    id,
                    call: self.call.id,
                    operation: operation.id,
                    application: self.call.application.clone(),
                    at: now.wall,
                });
            }
            let prompts = operation.kind.prompts().to_vec();
            self.queue.push(operation.clone(), recording);
            self.actions.push_back(Action::Prepare(operation.id, prompts));
        }
        self.change.operations.push(operation.clone());
        operation
    }

    /// Applies to the call what an operation changes that completes at once.
    fn change_call(&mut self, kind: &OperationKind) {
        let before = self.call.clone();
        let is_muted = match kind {
            OperationKind::Mute { side } => Some((*side, true)),
            OperationKind::Unmute { side } => Some((*side, false)),
            OperationKind::SubscribeToTone => {
                self.call.tones_subscribed = true;
                None
            }
            OperationKind::UpdateRecordingStatus { status } => {
                self.call.recording_status = Some(*status);
                None
            }
            OperationKind::Record(_)
            | OperationKind::PlayPrompt(_)
            | OperationKind::CancelMediaProcessing
            | OperationKind::SendDtmfTones(_)
            | OperationKind::StartHoldMusic { .. }
            | OperationKind::StopHoldMusic
            | OperationKind::Echo => None,
        };
        match is_muted {
            Some((Side::Ours, is_muted)) => self.call.is_muted = is_muted,
            Some((Side::Peers, is_muted)) => self.call.peer_is_muted = is_muted,
            None => {}
        }
        if self.call == before {
            return;
        }
        self.change.call = Some(self.call.clone());
        if is_muted.is_some() {
            let (ours, peers) = (self.call.is_muted, self.call.peer_is_muted);
            self.actions.push_back(Action::Mute { ours, peers });
        }
    }

    fn cancel_all(&mut self, now: Now) {
        for entry in self.queue.take_waiting() {
            self.conclude(entry, OperationEnd::Canceled, None, now);
        }
        if let Some(running) = self.queue.running() {
            self.actions.push_back(Action::Cancel(running.operation.id));
        }
    }

    pub(super) fn take_turn(&mut self, now: Now) {
        while matches!(self.phase, Phase::Up) {
            match self.queue.turn() {
                None => return,
                Some(Turn::Fail(entry, end)) => self.conclude(entry, end, None, now),
                Some(Turn::Begin(operation, recording)) => {
                    self.actions.push_back(Action::Start(Box::new(operation), recording));
                }
            }
        }
    }

    pub(super) fn media_ended(&mut self, id: OperationId, ended: MediaEnd, now: Now) {
        match self.queue.find(id) {
            Some(QueuedOperation { recording: Some(clip), stage: Stage::Running, .. })
                if ended.end.delivers_recording() =>
            {
                let recorded = Recorded {
                    id: *clip,
                    // Set from the length of the file, once the clip is safe.
                    duration_ms: 0,
                    speech_ms: ended.speech_ms,
                    speech_ended_at_ms: ended.speech_ended_at_ms,
                };
                self.queue.finish(id, ended.end, recorded);
            }
            Some(QueuedOperation { stage: Stage::Running | Stage::Said, .. }) => {
                if let Some(entry) = self.queue.take(id) {
                    self.conclude(entry, ended.end, None, now);
                }
            }
            // The operation has ended already, by the deadline of the call's end.
            Some(_) | None => {}
        }
        self.take_turn(now);
        self.try_finish(now);
    }

    pub(super) fn clip_safe(
        &mut self,
        id: OperationId,
        result: Result<SafeClip, OperationEnd>,
        now: Now,
    ) {
        if !matches!(
            self.queue.find(id),
            Some(QueuedOperation { stage: Stage::Finishing { .. }, .. })
        ) {
            return;
        }
        let Some(mut entry) = self.queue.take(id) else { return };
        let Stage::Finishing { end, mut recorded } =
            std::mem::replace(&mut entry.stage, Stage::Running)
        else {
            return;
        };
        match result {
            Ok(clip) => {
                let (id, bytes, duration_ms) = (recorded.id, clip.bytes, clip.duration_ms());
                self.change.recordings.push(RecordingChange::Finished { id, bytes });
                recorded.duration_ms = duration_ms;
                // Speech after the disk had failed is not in the clip.
                recorded.speech_ms = recorded.speech_ms.min(duration_ms);
                let speech_end = recorded.speech_ended_at_ms.map(|end| end.min(duration_ms));
                recorded.speech_ended_at_ms = speech_end;
                let end = if clip.is_cut_short { OperationEnd::DiskFailedWithAudio } else { end };
                match (end, duration_ms) {
                    // The leg vanished before it had recorded anything. The file is purged like all
                    // others.
                    (OperationEnd::HungUpWithAudio, 0) => {
                        entry.recording = None;
                        self.conclude(entry, OperationEnd::HungUpWithoutAudio, None, now);
                    }
                    (end, _) => self.conclude(entry, end, Some(recorded), now),
                }
            }
            Err(end) => self.conclude(entry, end, None, now),
        }
        self.try_finish(now);
    }

    /// Ends an operation: the one place that stores and reports it.
    pub(super) fn conclude(
        &mut self,
        entry: QueuedOperation,
        end: OperationEnd,
        recorded: Option<Recorded>,
        now: Now,
    ) {
        if let (Some(id), None) = (entry.recording, &recorded) {
            self.change.recordings.push(RecordingChange::Discarded { id });
        }
        let mut operation = entry.operation;
        operation.status = end.status();
        operation.end = Some(end);
        operation.recording = recorded;
        operation.ended_at = Some(now.wall);
        self.change.operations.push(operation.clone());
        self.tell(Event::OperationEnded { operation: operation.clone() });
        if let (Owner::Line(script), Phase::Up) = (&mut self.owner, &self.phase) {
            let step = script.ended(&operation, self.last_tone);
            self.follow(step, now);
        }
    }

    pub(super) fn tone(&mut self, tone: Tone, now: Now) {
        self.last_tone = Some(tone);
        if self.call.tones_subscribed && matches!(self.phase, Phase::Up) {
            // A tone that is not reported leaves a gap in the sequence numbers, so that the
            // application can notice it.
            self.tones_heard += 1;
            if self.tone_limit.admits(now.instant) {
                let (call, sequence) = (self.call.id, self.tones_heard);
                self.tell(Event::ToneHeard { call, sequence, tone });
            }
        }
        if let (Owner::Line(script), Phase::Up) = (&mut self.owner, &self.phase) {
            let step = script.tone(tone);
            self.follow(step, now);
        }
    }

    pub(super) fn follow(&mut self, step: Step, now: Now) {
        match step {
            Step::Wait => {}
            Step::Begin(kind) => {
                self.cancel_all(now);
                self.accept(NewOperation { kind, client_context: None }, None, now);
            }
            Step::HangUp => self.end(Termination::LineEnded, None, now),
        }
    }
}
