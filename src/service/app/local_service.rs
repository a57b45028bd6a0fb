//! Implements [`CallService`], the interface of the API and the notifications, with the modules
//! that do the work.

use std::{io, sync::Arc, time::Duration};

use futures_util::{FutureExt, TryFutureExt, future::BoxFuture};
use tracing::{error, info};

use crate::{
    drivers::{
        prompts::Fence,
        recordings::{AccessKey, Vault},
        signalling::{Signalling, TrunkReport},
        store::{Database, RecordingRow, RecordingState},
    },
    service::{
        api::{
            Answer, CallError, CallService, GivenUp, KeptAnswer, LostAndFound, NewCall,
            NewOperation, OpenRecording, RecordingError, RecordingKey, RequestKey, TracedMessage,
            TrunkHealth,
        },
        switchboard::{Switchboard, TransferTarget},
    },
};
use aftertone_core::{
    graph::RecordingLink,
    model::{Call, CallId, Operation, OperationId, Party, RecordingId, RejectReason, SteadyMillis},
    proto::sip::{Status, registration::TrunkState},
};

/// The modules behind the API.
pub(super) struct LocalService {
    pub switchboard: Switchboard,
    pub signalling: Signalling,
    pub database: Database,
    pub vault: Vault,
    pub access_key: Arc<AccessKey>,
    pub public_url: String,
    /// Limits the targets of notifications.
    pub fence: Fence,
}

/// The database does not answer now, and nothing was done.
const AWAY: CallError = CallError::Overloaded { retry_after: 1 };

/// A token is valid for as long as its clip exists; this only limits a leaked token.
const TOKEN_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

impl LocalService {
    /// URL and access token of a recording.
    pub(super) fn link(&self, recording: RecordingId) -> RecordingLink {
        RecordingLink {
            location: format!("{}/recordings/{recording}", self.public_url),
            token: self.access_key.token(recording, self.now().plus(TOKEN_LIFE)),
        }
    }

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

impl CallService for LocalService {
    fn calls<'a>(&'a self, application: &'a str) -> BoxFuture<'a, Result<Vec<Call>, CallError>> {
        self.switchboard.calls(application).map(Ok).boxed()
    }

    fn call<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
    ) -> BoxFuture<'a, Result<Call, CallError>> {
        self.switchboard.call(application, call).boxed()
    }

    fn place<'a>(
        &'a self,
        application: &'a str,
        call: NewCall,
    ) -> BoxFuture<'a, Result<Call, CallError>> {
        self.switchboard.place(application, call).boxed()
    }

    fn answer<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
        answer: Answer,
    ) -> BoxFuture<'a, Result<(), CallError>> {
        let Answer { callback_uri, media_config, prefetch } = answer;
        self.switchboard.answer(application, call, callback_uri, media_config, prefetch).boxed()
    }

    fn reject<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
        reason: RejectReason,
        callback_uri: Option<String>,
    ) -> BoxFuture<'a, Result<(), CallError>> {
        self.switchboard.reject(application, call, reason, callback_uri).boxed()
    }

    fn redirect<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
        target: Party,
        callback_uri: Option<String>,
    ) -> BoxFuture<'a, Result<(), CallError>> {
        self.switchboard.redirect(application, call, target, callback_uri).boxed()
    }

    fn transfer<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
        to: TransferTarget,
    ) -> BoxFuture<'a, Result<(), CallError>> {
        self.switchboard.transfer(application, call, to).boxed()
    }

    fn hang_up<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
    ) -> BoxFuture<'a, Result<(), CallError>> {
        self.switchboard.hang_up(application, call).boxed()
    }

    fn keep_alive<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
    ) -> BoxFuture<'a, Result<(), CallError>> {
        self.switchboard.keep_alive(application, call).boxed()
    }

    fn submit<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
        operation: NewOperation,
    ) -> BoxFuture<'a, Result<Operation, CallError>> {
        self.switchboard.submit(application, call, operation).boxed()
    }

    fn operations<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
    ) -> BoxFuture<'a, Result<Vec<Operation>, CallError>> {
        self.switchboard.operations(application, call).boxed()
    }

    fn operation<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
        operation: OperationId,
    ) -> BoxFuture<'a, Result<Operation, CallError>> {
        self.switchboard.operation(application, call, operation).boxed()
    }

    fn trace<'a>(
        &'a self,
        application: &'a str,
        call: CallId,
    ) -> BoxFuture<'a, Result<Vec<TracedMessage>, CallError>> {
        let traced = async move {
            let messages = self.switchboard.trace(application, call).await?;
            let shown = messages.into_iter().map(|traced| TracedMessage {
                at: traced.at,
                is_sent: traced.is_sent,
                transport: traced.path.transport.name(),
                local: traced.path.local,
                peer: traced.path.peer,
                message: traced.message,
            });
            Ok(shown.collect())
        };
        traced.boxed()
    }

    fn undelivered<'a>(
        &'a self,
        application: &'a str,
        skip: usize,
        size: usize,
    ) -> BoxFuture<'a, Result<(usize, Vec<GivenUp>), CallError>> {
        async move {
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
        .boxed()
    }

    fn resend<'a>(
        &'a self,
        application: &'a str,
        which: Option<(CallId, u64)>,
    ) -> BoxFuture<'a, Result<u64, CallError>> {
        async move {
            let count = self.database.resend(application, which, self.now()).await;
            let count = count.map_err(|error| {
                error!(%error, "cannot send notifications again");
                // If they are sent again after all, repeating the request does no harm.
                AWAY
            })?;
            info!(application, count, "Notifications are sent again");
            Ok(count)
        }
        .boxed()
    }

    fn begin_request<'a>(
        &'a self,
        application: &'a str,
        key: &'a str,
        fingerprint: &'a str,
        call: Option<CallId>,
    ) -> BoxFuture<'a, Result<RequestKey, CallError>> {
        async move {
            let database = &self.database;
            let now = self.now();
            let begun = database.begin_request(application, key, fingerprint, call, now).await;
            begun.map_err(|error| {
                error!(%error, "cannot take the key of a request");
                AWAY
            })
        }
        .boxed()
    }

    fn end_request<'a>(
        &'a self,
        application: &'a str,
        key: &'a str,
        answer: Option<KeptAnswer>,
    ) -> BoxFuture<'a, Result<(), CallError>> {
        async move {
            let ended = self.database.end_request(application, key, answer.as_ref()).await;
            ended.map_err(|error| {
                error!(%error, "cannot keep the answer to a request");
                CallError::Internal
            })
        }
        .boxed()
    }

    fn recording<'a>(
        &'a self,
        recording: RecordingId,
        key: RecordingKey<'a>,
    ) -> BoxFuture<'a, Result<OpenRecording, RecordingError>> {
        async move {
            let row = self.find(recording, key).await?;
            let (file, bytes) = self
                .vault
                .open(recording)
                .await
                .map_err(|error| self.not_opened(recording, &error))?;
            Ok(OpenRecording { bytes, left: self.left(&row), file })
        }
        .boxed()
    }

    fn recording_left(
        &self,
        recording: RecordingId,
    ) -> BoxFuture<'_, Result<Option<Duration>, RecordingError>> {
        self.ready_row(recording).map_ok(|row| self.left(&row)).boxed()
    }

    fn delete_recording<'a>(
        &'a self,
        recording: RecordingId,
        key: RecordingKey<'a>,
    ) -> BoxFuture<'a, Result<(), RecordingError>> {
        async move {
            self.find(recording, key).await?;
            let marked = self.database.mark_deleting(recording).await.map_err(|error| {
                error!(%error, recording.id = %recording, "cannot delete a recording");
                RecordingError::Unavailable
            })?;
            if !marked {
                return Err(RecordingError::NotFound);
            }
            info!(recording.id = %recording, "Recording deleted by its owner");
            Ok(())
        }
        .boxed()
    }

    fn recording_link(&self, recording: RecordingId) -> RecordingLink {
        self.link(recording)
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), String>> {
        self.switchboard.ready().boxed()
    }

    fn check_callback(&self, uri: &str) -> Result<(), String> {
        self.fence.check_text(uri).map_err(|error| error.to_string())
    }

    fn lost_and_found(&self) -> LostAndFound {
        self.vault.lost_and_found()
    }

    fn trunks(&self) -> BoxFuture<'_, Vec<TrunkHealth>> {
        async {
            let trunks = self.signalling.trunks().await.into_iter();
            trunks.map(trunk_health).collect()
        }
        .boxed()
    }
}

/// The state of a trunk for the API. When the trunk is idle because its address is not found, the
/// state is the reason.
fn trunk_health(trunk: TrunkReport) -> TrunkHealth {
    let TrunkReport { name, status, no_way } = trunk;
    let no_way = no_way.map(|why| format!("no way: {why}"));
    let state = match (&no_way, status.state) {
        (Some(no_way), TrunkState::Idle) => no_way.clone(),
        (_, state) => state.to_string(),
    };
    TrunkHealth {
        name,
        state,
        seconds: status.since.elapsed().as_secs(),
        last_status: status.last_status.map(Status::code),
        failure: status.failure.map(|failure| failure.to_string()).or(no_way),
    }
}
