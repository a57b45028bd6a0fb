//! Rights and durability of the files of a SQLite database.

use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// Makes the file, or takes it from everybody but its owner and group. SQLite gives the files beside
/// it the same permissions.
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

/// Makes the names of files beside `path` safe from a power cut.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if folder != Path::new("") => File::open(folder)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

/// The database holds the keys that sign in our name.
pub(super) const PRIVATE: u32 = 0o600;
