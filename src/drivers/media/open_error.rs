//! Why a leg could not be opened.

use super::ports::PortError;

/// A leg could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There are no ports for it.
    #[error(transparent)]
    Ports(#[from] PortError),
    /// The shards do not keep up with opening legs.
    #[error("the media engine is busy")]
    Busy,
    /// The engine has been shut down.
    #[error("the media engine has been shut down")]
    Down,
}
