//! Checks the folder while the daemon runs: whether it is in its place, whether clips without a row
//! are in it, and which files in `lost+found` have expired.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{ages::LostFiles, folder::FolderFault, vault::Vault};
use crate::drivers::store::Database;

/// The task that checks the folder.
pub struct FolderKeeper {
    database: Database,
    vault: Vault,
    lost: LostFiles,
}

/// How often the folder is checked, and how long the disk may take to answer.
const LOOK: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(5);
/// How often all files in the folder are looked up in the database, not only new ones.
const CHECK_ALL: Duration = Duration::from_secs(3600);
/// The pause between two searches for clips without a row: [`TIDY_SHARE`] times the length of the
/// last search, so that searching takes at most about a twentieth of the time; at least [`TIDY`],
/// at most [`TIDY_AT_LEAST`].
const TIDY: Duration = Duration::from_secs(10);
const TIDY_SHARE: u32 = 20;
const TIDY_AT_LEAST: Duration = Duration::from_secs(60);
/// A younger file may belong to a row that did not exist yet at the time of the search.
const UNKNOWN_FOR: Duration = Duration::from_secs(60);

impl FolderKeeper {
    /// A keeper that purges files of `lost+found` when they are as old as `retention`.
    pub fn new(database: Database, vault: Vault, retention: Duration) -> Self {
        let lost = LostFiles::new(database.clone(), vault.clone(), retention);
        Self { database, vault, lost }
    }

    /// Runs until `cancel`.
    pub async fn run(self, cancel: CancellationToken) {
        let Self { database, vault, mut lost } = self;
        let both = async { tokio::join!(watch(&vault), tidy(&database, &vault, &mut lost)) };
        cancel.run_until_cancelled(both).await;
    }
}

async fn watch(vault: &Vault) {
    loop {
        let folder = vault.folder.clone();
        let mut looking = tokio::task::spawn_blocking(move || folder.look());
        let fault = match tokio::time::timeout(ANSWER, &mut looking).await {
            Ok(looked) => looked.unwrap_or(None),
            Err(_) => {
                note(vault, Some(FolderFault::Silent));
                looking.await.unwrap_or(None)
            }
        };
        note(vault, fault);
        tokio::time::sleep(LOOK).await;
    }
}

/// Stores the fault of the folder, and logs a change.
fn note(vault: &Vault, fault: Option<FolderFault>) {
    if std::mem::replace(&mut vault.seen().fault, fault) == fault {
        return;
    }
    let folder = vault.folder.shown().display();
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

async fn tidy(database: &Database, vault: &Vault, lost: &mut LostFiles) {
    let mut faults = 0u32;
    let mut known = HashSet::new();
    let mut checked_all_at = Instant::now();
    loop {
        let begun = Instant::now();
        // A row may also go while its file stays: by hand, or in a database that was restored.
        if begun.duration_since(checked_all_at) >= CHECK_ALL {
            checked_all_at = begun;
            known.clear();
        }
        let set_aside = vault.set_aside_unknown(database, UNKNOWN_FOR, &mut known).await;
        // Files in `lost+found` are purged on time also while the database is away.
        let purged = lost.sweep().await.map_err(|source| vault.failed(source));
        match set_aside.and(purged) {
            Ok(()) => faults = 0,
            Err(error) => {
                faults += 1;
                if faults.is_power_of_two() {
                    error!(%error, faults, "cannot look for clips that no row knows");
                }
            }
        }
        tokio::time::sleep((begun.elapsed() * TIDY_SHARE).clamp(TIDY, TIDY_AT_LEAST)).await;
    }
}
