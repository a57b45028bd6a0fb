//! Why a leg could not be opened.

use super::ports::PortError;

/// A leg could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The leg gets no pair of ports.
    #[error(transparent)]
    Ports(#[from] PortError),
    /// The shards cannot open legs as fast as they are requested.
    #[error("the media engine is busy")]
    Busy,
    /// The engine has been shut down, or none of its shards runs any more.
    #[error("the media engine has been shut down")]
    Down,
}
