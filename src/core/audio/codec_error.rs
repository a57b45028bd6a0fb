//! Why a payload could not be decoded, or a frame not encoded.

use super::frame::Rate;

/// A payload could not be decoded, or a frame not encoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// An Opus payload has no octets.
    #[error("the payload is empty")]
    Empty,
    /// A frame has another rate than the codec: our own fault.
    #[error("a frame of {} Hz for a codec of {} Hz", .frame.hz(), .codec.hz())]
    WrongRate {
        /// The frame's rate.
        frame: Rate,
        /// The codec's rate.
        codec: Rate,
    },
    /// libopus reports an error.
    #[error("opus: {0}")]
    Opus(#[from] ::opus::Error),
}
