//! Clips on disk: written, handed out, purged.
//!
//! Three orders never change: the row before the first sample (the caller's business), the bytes
//! before the announcement, the bytes deleted before the row.

mod access;
mod ages;
mod binding;
mod clip_file;
mod clip_reader;
mod folder;
mod keeper;
mod lost;
mod lost_and_found;
mod purge;
mod spool;
mod spool_error;
mod vault;

pub use access::AccessKey;
pub use binding::BindError;
pub use clip_reader::ClipReader;
pub use folder::{Folder, FolderFault};
pub use keeper::Keeper;
pub use lost_and_found::LostAndFound;
pub use purge::Purge;
pub use spool::{ClipWritten, Finished, OpenClip, Spool, SpoolLimits};
pub use spool_error::SpoolError;
pub use vault::{RecoverError, Recovered, Vault};
