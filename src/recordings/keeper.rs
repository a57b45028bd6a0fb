//! Looks after the folder while the daemon runs: whether it is in its place, clips that no row
//! knows, and what has been in `lost+found` for long enough.

use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{
    folder::FolderFault,
    vault::{RecoverError, Vault, blocking},
};
use crate::store::Database;

/// The task that does it.
pub struct Keeper {
    database: Database,
    vault: Vault,
    retention: Duration,
}

/// How often the folder is looked at, and how long it may take to answer.
const LOOK: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(5);
/// How often clips that no row knows are looked for, for a twentieth of the time at most.
const TIDY: Duration = Duration::from_secs(10);
const TIDY_SHARE: u32 = 20;
/// A younger file may be one whose row was not there yet when we looked.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

impl Keeper {
    /// A keeper that purges clips of `lost+found` when they are as old as `retention`.
    pub fn new(database: Database, vault: Vault, retention: Duration) -> Self {
        Self { database, vault, retention }
    }

    /// Runs until `cancel`.
    pub async fn run(self, cancel: CancellationToken) {
        let both = async { tokio::join!(self.watch(), self.tidy()) };
        cancel.run_until_cancelled(both).await;
    }

    async fn watch(&self) {
        loop {
            let folder = self.vault.folder.clone();
            let mut looking = tokio::task::spawn_blocking(move || folder.look());
            let fault = match tokio::time::timeout(ANSWER, &mut looking).await {
                Ok(looked) => looked.unwrap_or(None),
                Err(_) => {
                    self.note(Some(FolderFault::Silent));
                    looking.await.unwrap_or(None)
                }
            };
            self.note(fault);
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Remembers what is wrong with the folder, and says so when it is something else than before.
    fn note(&self, fault: Option<FolderFault>) {
        if std::mem::replace(&mut self.vault.seen().fault, fault) == fault {
            return;
        }
        let folder = self.vault.folder.shown().display();
        match fault {
            None => info!("The folder of the recordings, {folder}, is in order again"),
            Some(fault @ FolderFault::Away) => error!(
                "{fault}: {folder} leads elsewhere or nowhere. Recordings are refused; those that are being \
                 made and those that expire are written and deleted where the folder is now. Bring it \
                 back, or restart aftertone to use what is there instead"
            ),
            Some(fault) => error!("{fault}: {folder}. Recordings are refused"),
        }
    }

    async fn tidy(&self) {
        let mut faults = 0u32;
        loop {
            let begun = Instant::now();
            match self.tidy_once().await {
                Ok(()) => faults = 0,
                Err(error) => {
                    faults += 1;
                    if faults.is_power_of_two() {
                        error!(%error, faults, "cannot look for clips that no row knows");
                    }
                }
            }
            tokio::time::sleep(TIDY.max(begun.elapsed() * TIDY_SHARE)).await;
        }
    }

    async fn tidy_once(&self) -> Result<(), RecoverError> {
        let set_aside = self.vault.set_aside_unknown(&self.database, UNKNOWN_FOR).await;
        let (vault, retention) = (self.vault.clone(), self.retention);
        // They go on time also while the database is away.
        let purged = blocking(move || vault.purge_lost_and_found(SystemTime::now(), retention));
        let purged = purged.await.map_err(|source| self.vault.failed(source));
        set_aside.and(purged)
    }
}
