//! Clips of a call: opened with a recording, then awaited until they are safe or deleted.

use std::{collections::HashMap, time::Duration};

use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::{CallTask, WorkDone, tape::Tape};
use crate::drivers::recordings::{ClipWritten, OpenClip};
use aftertone_core::{
    audio::tape::{self, SafeClip},
    call::Input,
    model::{OperationEnd, OperationId, RecordingId},
};

/// How long these waits may take: clips of a failed task to become safe, a late leg to end its
/// clip, and clips of an ended call to be written so that they can be deleted.
const PATIENCE: Duration = Duration::from_secs(600);

impl CallTask {
    /// Takes the open clip of an accepted operation.
    pub(super) fn take_clip(&mut self, id: OperationId, clip: OpenClip) {
        let OpenClip { recording, chunks, written, broken } = clip;
        info!(operation.id = %id, recording.id = %recording, "Recording opened");
        self.clips.insert(id, Tape { recording, chunks, written, has_begun: false });
        let broken = async move { WorkDone::ClipBroken(id, broken.await.is_ok()) };
        self.work.push(broken.boxed());
    }

    /// Ends the clip of a leg that vanished, and keeps what was written. A leg that is only late
    /// still has chunks that a slow disk has not taken; it ends the clip itself.
    pub(super) fn seal(&mut self, id: OperationId, recording: RecordingId) {
        let Some(Tape { chunks, mut written, .. }) = self.clips.remove(&id) else {
            self.inputs.push_back(Input::ClipSafe(id, Err(OperationEnd::Unspecified)));
            return;
        };
        let is_late = self.leg_events.is_some();
        // The spool may be full, and this task must not block on it.
        self.saving.push(
            async move {
                if is_late && let Ok(result) = timeout(PATIENCE, clip_result(&mut written)).await {
                    return WorkDone::Clip(id, recording, result);
                }
                let end = tape::Chunk { recording, body: tape::ChunkBody::End { keep: true } };
                let sent = tokio::task::spawn_blocking(move || chunks.send(end)).await;
                let result = match sent {
                    Ok(Ok(())) => clip_result(&mut written).await,
                    Ok(Err(_)) | Err(_) => Err(OperationEnd::Unspecified),
                };
                WorkDone::Clip(id, recording, result)
            }
            .boxed(),
        );
    }

    pub(super) fn await_clip(&mut self, id: OperationId, tape: Tape) {
        let Tape { recording, mut written, .. } = tape;
        let result = async move { WorkDone::Clip(id, recording, clip_result(&mut written).await) };
        self.saving.push(result.boxed());
    }

    /// Deletes a clip whose row was discarded before its file was complete.
    pub(super) fn delete_clip(&mut self, recording: RecordingId) {
        let vault = self.drivers.vault.clone();
        self.saving.push(
            async move {
                match vault.delete(recording).await {
                    Ok(()) => {
                        info!(recording.id = %recording, "A clip that came too late is deleted")
                    }
                    Err(error) => error!(%error, recording.id = %recording, "cannot delete a clip"),
                }
                WorkDone::Deleted
            }
            .boxed(),
        );
    }

    /// Runs after the call's end: waits for clips that were given up while the spool was behind,
    /// and deletes them.
    pub(in crate::service::switchboard) async fn clear_up(&mut self) {
        self.close_for_good();
        let cleared = async {
            while let Some(done) = self.saving.next().await {
                if let WorkDone::Clip(_, recording, Ok(_)) = done {
                    self.delete_clip(recording);
                }
            }
        };
        if timeout(PATIENCE, cleared).await.is_err() {
            warn!(
                "a clip of a call that is over is still being written; it goes at the next start"
            );
        }
    }

    /// Runs when the task has failed during the call: waits until the clips of its recordings are
    /// safe. Returns the clips by operation.
    pub(in crate::service::switchboard) async fn salvage(
        &mut self,
    ) -> HashMap<OperationId, SafeClip> {
        self.close_for_good();
        let mut clips = HashMap::new();
        let saved = async {
            while let Some(done) = self.saving.next().await {
                if let WorkDone::Clip(id, _, Ok(clip)) = done {
                    clips.insert(id, clip);
                }
            }
        };
        if timeout(PATIENCE, saved).await.is_err() {
            warn!("the rest of the call's clips did not become safe in time");
        }
        clips
    }

    /// Closes the leg, as if the peer had hung up. The task then waits for clips only.
    fn close_for_good(&mut self) {
        self.leg = None;
        for (id, tape) in std::mem::take(&mut self.clips) {
            if tape.has_begun {
                self.await_clip(id, tape);
            }
        }
    }
}

async fn clip_result(written: &mut ClipWritten) -> Result<SafeClip, OperationEnd> {
    match written.await {
        Ok(Ok(finished)) => Ok(finished),
        Ok(Err(error)) => {
            error!(%error, "the recording could not be kept");
            Err(OperationEnd::DiskFailedWithoutAudio)
        }
        Err(_) => {
            error!("the writer of recordings has gone");
            Err(OperationEnd::Unspecified)
        }
    }
}
