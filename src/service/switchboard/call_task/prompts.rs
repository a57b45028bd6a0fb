//! Preparation of an operation: its prompts, and a clip if it records.

use futures_util::{FutureExt, future::try_join_all};

use super::{CallTask, Done, Prepared};
use crate::{drivers::recordings::SpoolError, service::switchboard::Drivers};
use aftertone_core::{
    audio::{Clip, wav},
    call::{Input, line::RECORDING_PREFIX},
    model::{
        CallId, OperationEnd, OperationId, PromptFailure, PromptFailureKind, PromptSource,
        RecordingId,
    },
};

/// Limit for a clip of our own, which is no longer than the longest recording.
const OWN_CLIP: wav::Limits = wav::Limits { max_seconds: 300 };

impl CallTask {
    pub(super) fn prepare(&mut self, id: OperationId, sources: Vec<PromptSource>) {
        let clip = self.machine.clip_of(id).filter(|_| !self.clips.contains_key(&id));
        if sources.is_empty() && clip.is_none() {
            self.inputs.push_back(Input::Prepared(id, Ok(())));
            return;
        }
        let drivers = self.drivers.clone();
        let clip = clip.map(|clip| (clip, self.machine.call().id));
        let application = self.machine.call().application.clone();
        self.work.push(
            async move {
                Done::Prepared(id, prepared(&drivers, application.as_deref(), sources, clip).await)
            }
            .boxed(),
        );
    }
}

async fn prepared(
    drivers: &Drivers,
    application: Option<&str>,
    sources: Vec<PromptSource>,
    clip: Option<(RecordingId, CallId)>,
) -> Result<Prepared, OperationEnd> {
    let is_list = sources.len() > 1;
    let loads = sources.into_iter().enumerate().map(async |(index, source)| {
        let clip = load(drivers, application, source).await;
        clip.map_err(|failure| if is_list { named(index, failure) } else { failure })
    });
    let prompts = try_join_all(loads).await.map_err(OperationEnd::PromptFailed)?;
    let clip = match clip {
        Some((clip, call)) => {
            Some(drivers.open_clip(clip, call).await.map_err(|error| match error {
                SpoolError::TooMany(_) => OperationEnd::Unspecified,
                _ => OperationEnd::DiskFailedWithoutAudio,
            })?)
        }
        None => None,
    };
    Ok(Prepared { prompts, clip })
}

/// Adds the index of the prompt in the request's list to the error message.
fn named(index: usize, failure: PromptFailure) -> PromptFailure {
    PromptFailure { message: format!("prompts[{index}]: {}", failure.message), ..failure }
}

async fn load(
    drivers: &Drivers,
    application: Option<&str>,
    source: PromptSource,
) -> Result<(Clip, u32), PromptFailure> {
    let times = source.times;
    // Only built-in lines use this prefix: `prompts` refuses it in a URI of an application.
    let own = source.uri.strip_prefix(RECORDING_PREFIX).filter(|_| application.is_none());
    let clip = match own.and_then(|id| id.parse().ok()) {
        Some(id) => read_recording(drivers, id).await?,
        None => drivers.prompts.load(application.unwrap_or_default(), &source).await?,
    };
    Ok((clip, times))
}

async fn read_recording(drivers: &Drivers, id: RecordingId) -> Result<Clip, PromptFailure> {
    let failed = |error: &dyn std::fmt::Display| PromptFailure {
        kind: PromptFailureKind::NotFetched,
        message: format!("the recording cannot be read: {error}"),
    };
    let bytes = drivers.vault.read(id).await.map_err(|error| failed(&error))?;
    let decoded = tokio::task::spawn_blocking(move || Clip::from_wav(&bytes, OWN_CLIP)).await;
    decoded.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}
