//! Clips on disk: writing, reading, purging.
//!
//! Three orders hold always: the row is written before the first sample (by the caller), the bytes
//! are safe before the clip is announced, and the bytes are deleted before the row.

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
pub use keeper::FolderKeeper;
pub use lost_and_found::LostAndFound;
pub use purge::Purge;
pub use spool::{ClipWritten, OpenClip, Spool, SpoolLimits};
pub use spool_error::SpoolError;
pub use vault::{RecoverError, Recovered, Vault};
