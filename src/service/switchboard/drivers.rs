//! The drivers that the switchboard and its calls use.

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

/// The drivers that the switchboard and its calls use.
#[derive(Clone)]
pub struct Drivers {
    /// SIP transport and transactions.
    pub signalling: Signalling,
    /// RTP legs.
    pub media: media::Engine,
    /// Fetches and decodes prompts.
    pub prompts: Library,
    /// Writes clips.
    pub spool: Spool,
    /// Stores finished clips.
    pub vault: Vault,
    /// Writes changes to the database.
    pub journal: Journal,
    /// Reads the database.
    pub database: Database,
}

/// How long the disk may take to create the file of a clip: less than a request may wait.
const OPENING: Duration = Duration::from_secs(6);

/// The current time on each clock.
pub(super) fn now(clock: &Clock) -> Now {
    let (instant, wall) = (Instant::now(), UnixMillis::from(SystemTime::now()));
    Now { instant, wall, steady: clock.now() }
}

impl Drivers {
    /// Creates the file of a clip. A failure is logged here.
    ///
    /// # Errors
    /// The errors of [`Spool::open`]; or the folder of the clips is missing or does not answer, in
    /// which case a recording there could not be read back.
    pub(super) async fn open_clip(
        &self,
        id: RecordingId,
        call: CallId,
    ) -> Result<OpenClip, SpoolError> {
        let opened = match self.vault.fault() {
            Some(fault) => Err(SpoolError::Folder(fault)),
            // If the file is created after the timeout, it is removed again.
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
