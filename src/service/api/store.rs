//! What the API stores and reads besides calls: recordings, the answers to requests with an
//! `Idempotency-Key`, and notifications whose delivery was abandoned.

use std::{io, sync::Arc, time::Duration};

use async_trait::async_trait;
use tracing::{error, info};

use crate::{
    drivers::{
        recordings::{AccessKey, ClipReader, LostAndFound, Vault},
        store::{Database, GivenUp, KeptAnswer, RecordingRow, RecordingState, RequestKey},
    },
    service::switchboard::CallError,
};
use aftertone_core::{
    graph::RecordingLink,
    model::{CallId, RecordingId, SteadyMillis},
};

/// Recordings, request keys and abandoned notifications. A trait, because tests of deadlines stop
/// the clock, which a database thread does not.
#[async_trait]
pub trait ApiStore: Send + Sync + 'static {
    /// The number of the application's notifications whose delivery was abandoned, and at most
    /// `size` of them after the first `skip`, oldest first.
    async fn undelivered(
        &self,
        application: &str,
        skip: usize,
        size: usize,
    ) -> Result<(usize, Vec<GivenUp>), CallError>;

    /// Sends one abandoned notification again, or all of them; returns their number.
    async fn resend(
        &self,
        application: &str,
        which: Option<(CallId, u64)>,
    ) -> Result<u64, CallError>;

    /// Claims an `Idempotency-Key` for a request, unless it is claimed already. `call` is the id of
    /// the call that the request will place.
    async fn begin_request(
        &self,
        application: &str,
        key: &str,
        fingerprint: &str,
        call: Option<CallId>,
    ) -> Result<RequestKey, CallError>;

    /// Stores the answer to a request. Without an answer the key becomes free again.
    async fn end_request(
        &self,
        application: &str,
        key: &str,
        answer: Option<KeptAnswer>,
    ) -> Result<(), CallError>;

    /// Opens a recording.
    async fn recording(
        &self,
        recording: RecordingId,
        key: RecordingKey<'_>,
    ) -> Result<OpenRecording, RecordingError>;

    /// How long an opened recording is still available; `None` while its call is in progress. Not
    /// found when that time is over.
    async fn recording_left(
        &self,
        recording: RecordingId,
    ) -> Result<Option<Duration>, RecordingError>;

    /// Deletes a recording before its retention ends.
    async fn delete_recording(
        &self,
        recording: RecordingId,
        key: RecordingKey<'_>,
    ) -> Result<(), RecordingError>;

    /// URL and access token of a recording.
    fn recording_link(&self, recording: RecordingId) -> RecordingLink;

    /// Clips that the database does not know. The numbers may be slightly old.
    fn lost_and_found(&self) -> LostAndFound;
}

/// Credential for a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordingKey<'a> {
    /// The recording's own token, its `recordingAccessToken`.
    Token(&'a str),
    /// An application with the role to access media. It may open its own recordings and those of
    /// the built-in lines, which belong to no application.
    Application(&'a str),
}

/// A recording that is open for reading. The file stays open even if the recording is purged
/// meanwhile, so the reader has to check whether it is still available.
#[derive(Debug)]
pub struct OpenRecording {
    /// Size in bytes.
    pub bytes: u64,
    /// How long the recording is still available; `None` while its call is in progress.
    pub left: Option<Duration>,
    /// The file, at its start.
    pub file: ClipReader,
}

/// Why a recording cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordingError {
    /// The recording was purged or deleted, or never existed.
    #[error("Recording not found.")]
    NotFound,
    /// The key does not open this recording.
    #[error("Access token validation failure.")]
    Forbidden,
    /// The database or the folder of the recordings does not answer now; nothing was done.
    #[error("Recordings cannot be reached at the moment; try again later.")]
    Unavailable,
}

/// The store behind the API: the database and the folder of the recordings.
pub struct DatabaseStore {
    /// Rows of recordings, requests and notifications.
    pub database: Database,
    /// Files of recordings.
    pub vault: Vault,
    /// Signs the access tokens of recordings.
    pub access_key: Arc<AccessKey>,
    /// URL at which clients reach the API.
    pub public_url: String,
}

/// The database does not answer now, and nothing was done.
const AWAY: CallError = CallError::Overloaded { retry_after: 1 };

/// A token is valid for as long as its clip exists; this only limits a leaked token.
const TOKEN_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

#[async_trait]
impl ApiStore for DatabaseStore {
    async fn undelivered(
        &self,
        application: &str,
        skip: usize,
        size: usize,
    ) -> Result<(usize, Vec<GivenUp>), CallError> {
        let skip = u64::try_from(skip).unwrap_or(u64::MAX);
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let count = self.database.given_up_count(application);
        let listed = self.database.given_up(application, skip, size);
        let (count, listed) = futures_util::try_join!(count, listed).map_err(|error| {
            error!(%error, "cannot read notifications that were given up");
            AWAY
        })?;
        Ok((usize::try_from(count).unwrap_or(usize::MAX), listed))
    }

    async fn resend(
        &self,
        application: &str,
        which: Option<(CallId, u64)>,
    ) -> Result<u64, CallError> {
        let count = self.database.resend(application, which, self.now()).await;
        let count = count.map_err(|error| {
            error!(%error, "cannot send notifications again");
            // If they are sent again after all, repeating the request does no harm.
            AWAY
        })?;
        info!(application, count, "Notifications are sent again");
        Ok(count)
    }

    async fn begin_request(
        &self,
        application: &str,
        key: &str,
        fingerprint: &str,
        call: Option<CallId>,
    ) -> Result<RequestKey, CallError> {
        let database = &self.database;
        let now = self.now();
        let begun = database.begin_request(application, key, fingerprint, call, now).await;
        begun.map_err(|error| {
            error!(%error, "cannot take the key of a request");
            AWAY
        })
    }

    async fn end_request(
        &self,
        application: &str,
        key: &str,
        answer: Option<KeptAnswer>,
    ) -> Result<(), CallError> {
        let ended = self.database.end_request(application, key, answer.as_ref()).await;
        ended.map_err(|error| {
            error!(%error, "cannot keep the answer to a request");
            CallError::Internal
        })
    }

    async fn recording(
        &self,
        recording: RecordingId,
        key: RecordingKey<'_>,
    ) -> Result<OpenRecording, RecordingError> {
        let row = self.find(recording, key).await?;
        let (file, bytes) =
            self.vault.open(recording).await.map_err(|error| self.not_opened(recording, &error))?;
        Ok(OpenRecording { bytes, left: self.left(&row), file })
    }

    async fn recording_left(
        &self,
        recording: RecordingId,
    ) -> Result<Option<Duration>, RecordingError> {
        Ok(self.left(&self.ready_row(recording).await?))
    }

    async fn delete_recording(
        &self,
        recording: RecordingId,
        key: RecordingKey<'_>,
    ) -> Result<(), RecordingError> {
        self.find(recording, key).await?;
        let marked = self.database.delete_now(recording).await.map_err(|error| {
            error!(%error, recording.id = %recording, "cannot delete a recording");
            RecordingError::Unavailable
        })?;
        if !marked {
            return Err(RecordingError::NotFound);
        }
        info!(recording.id = %recording, "Recording deleted by its owner");
        Ok(())
    }

    fn recording_link(&self, recording: RecordingId) -> RecordingLink {
        RecordingLink {
            location: format!("{}/recordings/{recording}", self.public_url),
            token: self.access_key.token(recording, self.now().plus(TOKEN_LIFE)),
        }
    }

    fn lost_and_found(&self) -> LostAndFound {
        self.vault.lost_and_found()
    }
}

impl DatabaseStore {
    /// The steady clock, which all deadlines use.
    fn now(&self) -> SteadyMillis {
        self.database.clock().now()
    }

    /// How long a recording is still available; `None` while its call is in progress.
    fn left(&self, row: &RecordingRow) -> Option<Duration> {
        row.expires_at.map(|at| at.since(self.now()))
    }

    async fn find(
        &self,
        id: RecordingId,
        key: RecordingKey<'_>,
    ) -> Result<RecordingRow, RecordingError> {
        if let RecordingKey::Token(token) = key
            && !self.access_key.check(id, token, self.now())
        {
            return Err(RecordingError::Forbidden);
        }
        let row = self.ready_row(id).await?;
        let is_opened = match key {
            RecordingKey::Token(_) => true,
            RecordingKey::Application(name) => {
                row.application.as_deref().is_none_or(|owner| owner == name)
            }
        };
        if is_opened { Ok(row) } else { Err(RecordingError::NotFound) }
    }

    /// The row of a recording that is available now.
    async fn ready_row(&self, id: RecordingId) -> Result<RecordingRow, RecordingError> {
        let row = self.database.recording(id).await.map_err(|error| {
            error!(%error, "cannot read a recording's row");
            RecordingError::Unavailable
        })?;
        let now = self.now();
        row.filter(|row| row.state == RecordingState::Ready)
            .filter(|row| row.expires_at.is_none_or(|at| at > now))
            .ok_or(RecordingError::NotFound)
    }

    /// Error for a ready recording whose file cannot be opened. A file that is missing from the
    /// right folder has just been purged, or is lost; any other error may be temporary.
    fn not_opened(&self, id: RecordingId, error: &io::Error) -> RecordingError {
        error!(%error, recording.id = %id, "cannot open a recording");
        match error.kind() {
            io::ErrorKind::NotFound => RecordingError::NotFound,
            _ => RecordingError::Unavailable,
        }
    }
}
