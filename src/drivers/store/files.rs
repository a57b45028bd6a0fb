//! Permissions and durability of the files of a SQLite database.

use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Creates the file, or removes the permissions of all users except its owner and group. SQLite
/// gives the files beside it the same permissions.
pub(super) fn keep_private(path: &Path) -> io::Result<()> {
    let is_new = !path.exists();
    let file = File::options().create(true).append(true).mode(PRIVATE).open(path)?;
    if is_new {
        // SQLite syncs the file, not its name.
        sync_folder_of(path)?;
    }
    let mode = file.metadata()?.permissions().mode() & 0o777;
    match mode & 0o007 {
        0 => Ok(()),
        _ => file.set_permissions(Permissions::from_mode(mode & !0o007)),
    }
}

/// Syncs the folder of `path`, so that the names of files in it survive a power cut.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if folder != Path::new("") => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// Mode of new files: the database holds the private keys of our tokens.
pub(super) const PRIVATE: u32 = 0o600;
