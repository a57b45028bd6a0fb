//! The prompts that are part of the program.

use aftertone_core::audio::{Clip, wav};

/// The URI of a bundled prompt begins with this; the prompt's name follows.
pub const BUNDLED_PREFIX: &str = "aftertone:";

const GREETING: &[u8] = include_bytes!("assets/greeting.wav");

const GOODBYE: &[u8] = include_bytes!("assets/goodbye.wav");

const SPOKEN: &[u8] = include_bytes!("assets/spoken.wav");

/// A bundled prompt as a WAV file: `greeting`, `goodbye` or `spoken`.
pub fn bundled_wav(name: &str) -> Option<&'static [u8]> {
    match name {
        "greeting" => Some(GREETING),
        "goodbye" => Some(GOODBYE),
        "spoken" => Some(SPOKEN),
        _ => None,
    }
}

/// A bundled prompt, decoded.
pub fn bundled(name: &str) -> Option<Clip> {
    Clip::from_wav(bundled_wav(name)?, wav::Limits { max_seconds: 60 }).ok()
}
