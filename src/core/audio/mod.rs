//! Sound as values: frames, clips, codecs, resampling, the beep, voice detection, WAV.

pub mod beep;
pub mod clip;
pub mod codec;
mod codec_error;
pub mod conceal;
pub mod dtmf;
pub mod frame;
pub mod g711;
pub mod measure;
pub mod opus;
pub mod resample;
pub mod tape;
pub mod voice;
pub mod wav;

pub use clip::Clip;
pub use codec::{Codec, Decoder, Encoder};
pub use codec_error::CodecError;
pub use frame::{Frame, Rate};
pub use resample::{Upsampler, resample};
pub use voice::{Speech, Voice, VoiceMode};
