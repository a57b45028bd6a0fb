//! Sound as values: frames, clips, codecs, resampling, the beep, voice detection, WAV.

pub mod clip;
pub mod frame;
pub mod tape;

pub use clip::Clip;
pub use frame::{Frame, Rate};
