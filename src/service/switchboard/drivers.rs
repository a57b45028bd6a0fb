//! What the calls work with.

use std::time::{Duration, Instant, SystemTime};

use tracing::warn;

use crate::drivers::{
    clock::Clock,
    media,
    prompts::Library,
    recordings::{FolderFault, OpenClip, Spool, SpoolError, Vault},
    signalling::Signalling,
    store::{Database, Journal},
};
use aftertone_core::{
    call::Now,
    model::{CallId, RecordingId, UnixMillis},
};

/// What the calls work with.
#[derive(Clone)]
pub struct Drivers {
    /// SIP.
    pub signalling: Signalling,
    /// RTP.
    pub media: media::Engine,
    /// Prompts.
    pub prompts: Library,
    /// Writes clips.
    pub spool: Spool,
    /// Keeps clips.
    pub vault: Vault,
    /// Writes facts.
    pub journal: Journal,
    /// Reads facts.
    pub database: Database,
}

/// How long a disk may take to make the file of a clip: less than a request waits.
const OPENING: Duration = Duration::from_secs(6);

/// The time by each clock.
pub(super) fn now(clock: &Clock) -> Now {
    let (instant, wall) = (Instant::now(), UnixMillis::from(SystemTime::now()));
    Now { instant, wall, steady: clock.now() }
}

impl Drivers {
    /// Makes the file of a clip of a call. That it cannot be made is logged.
    ///
    /// # Errors
    /// As for [`Spool::open`]; or the folder is away or does not answer: what is recorded there could
    /// be neither heard nor found.
    pub(super) async fn open_clip(
        &self,
        id: RecordingId,
        call: CallId,
    ) -> Result<OpenClip, SpoolError> {
        let opened = match self.vault.fault() {
            Some(fault) => Err(SpoolError::Folder(fault)),
            // A file that is made after all is removed again.
            None => tokio::time::timeout(OPENING, self.spool.open(id, call))
                .await
                .unwrap_or(Err(SpoolError::Folder(FolderFault::Silent))),
        };
        opened.inspect_err(|error| warn!(%error, recording.id = %id, "A recording cannot begin"))
    }

    pub(super) fn now(&self) -> Now {
        now(self.database.clock())
    }
}
