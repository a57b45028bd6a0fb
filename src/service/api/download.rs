//! Streams the bytes of a recording to a client, for as long as the recording is available.
//!
//! Input: an opened recording. Output: its bytes, at the client's pace. A download may last longer
//! than its recording: the client may be slow, the call may end, or the recording may be deleted
//! during the download. So the recording's row is checked again during the download. When the row
//! is gone, the download is aborted: the connection closes before the promised length. Bytes that
//! are already in the socket buffer still reach the client.

use std::{io, sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use futures_util::stream;
use tokio::time::{Instant, timeout};
use tracing::info;

use super::store::{ApiStore, OpenRecording, RecordingError};
use crate::drivers::recordings::ClipReader;
use aftertone_core::model::RecordingId;

/// Bytes that are read from the file at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// How often the row is checked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the check may take. A store that does not answer does not mean that the recording is
/// gone.
const LOOK_FOR: Duration = Duration::from_secs(2);

/// One download.
pub(super) struct Download {
    store: Arc<dyn ApiStore>,
    id: RecordingId,
    file: ClipReader,
    /// Bytes that are still to be sent.
    rest: u64,
    ends_at: Option<Instant>,
    looked_at: Instant,
}

impl Download {
    /// Sends `length` bytes from the current position of the file.
    pub(super) fn new(
        store: Arc<dyn ApiStore>,
        id: RecordingId,
        open: OpenRecording,
        length: u64,
    ) -> Self {
        let OpenRecording { file, left, .. } = open;
        let looked_at = Instant::now();
        let ends_at = left.and_then(|left| looked_at.checked_add(left));
        Self { store, id, file, rest: length, ends_at, looked_at }
    }

    /// The body of the response.
    pub(super) fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(Some(self), |download| async {
            let mut download = download?;
            match download.next().await {
                Ok(chunk) if chunk.is_empty() => None,
                Ok(chunk) => Some((Ok(chunk), Some(download))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }

    /// The next bytes; empty at the end.
    async fn next(&mut self) -> io::Result<Bytes> {
        self.look().await;
        if self.ends_at.is_some_and(|at| at <= Instant::now()) {
            info!(recording.id = %self.id, "A download is broken off: the recording is gone");
            return Err(io::Error::other("the recording is gone"));
        }
        let most = usize::try_from(self.rest).map_or(CHUNK_BYTES, |rest| rest.min(CHUNK_BYTES));
        let chunk = if most > 0 { self.file.read(most).await? } else { Vec::new() };
        self.rest -= chunk.len() as u64;
        Ok(chunk.into())
    }

    /// Checks how long the recording is still available.
    async fn look(&mut self) {
        if self.looked_at.elapsed() < LOOK_EVERY {
            return;
        }
        let left = timeout(LOOK_FOR, self.store.recording_left(self.id)).await;
        self.looked_at = Instant::now();
        match left {
            Ok(Ok(left)) => self.ends_at = left.and_then(|left| self.looked_at.checked_add(left)),
            Ok(Err(RecordingError::NotFound | RecordingError::Forbidden)) => {
                self.ends_at = Some(self.looked_at);
            }
            Ok(Err(RecordingError::Unavailable)) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::api::fake::{Fake, RECORDING, RECORDING_BYTES, RECORDING_TOKEN, bytes_of};

    async fn begun(fake: &Fake) -> axum::response::Response {
        let path = format!("/recordings/{RECORDING}");
        let response = fake.ask("GET", &path, RECORDING_TOKEN, &[]).await;
        assert_eq!(response.status(), 200);
        response
    }

    async fn is_broken_off(response: axum::response::Response) -> bool {
        axum::body::to_bytes(response.into_body(), usize::MAX).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_download_is_broken_off_when_its_recording_is_deleted() {
        let fake = Fake::new();
        let (soon, late) = (begun(&fake).await, begun(&fake).await);
        let path = format!("/recordings/{RECORDING}");
        fake.ask("DELETE", &path, RECORDING_TOKEN, &[]).await;
        // The row is not checked for each of many small chunks.
        assert_eq!(bytes_of(soon).await, *RECORDING_BYTES);
        tokio::time::advance(LOOK_EVERY).await;
        assert!(is_broken_off(late).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_download_is_broken_off_at_the_expiry_that_was_known_when_it_began() {
        let fake = Fake::new();
        fake.service.set_left(Duration::from_millis(900));
        let (soon, late) = (begun(&fake).await, begun(&fake).await);
        assert_eq!(bytes_of(soon).await, *RECORDING_BYTES);
        // This is before the next check of the row.
        tokio::time::advance(Duration::from_millis(950)).await;
        assert!(is_broken_off(late).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_download_goes_on_while_the_store_cannot_be_asked() {
        let fake = Fake::new();
        let response = begun(&fake).await;
        fake.service.set_away(true);
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(bytes_of(response).await, *RECORDING_BYTES);
    }
}
