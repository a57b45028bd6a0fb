//! URI to decoded audio, by way of a cache and a fence.
//!
//! In: the URI of a prompt and whose it is. Out: a [`Clip`] ready to be played, or a failure with
//! the cause in one sentence. The [`Fence`] decides which addresses any outgoing request may reach.

mod fence;
mod fetch;
mod freshness;
mod library;
mod unpack;

use aftertone_core::audio::{Clip, wav};

pub use fence::{Fence, FenceError, FencedClient};
pub use fetch::{Fetch, FetchError, FetchLimits};
pub use library::{Library, LibraryLimits};

/// What the URI of a bundled prompt begins with; its name follows.
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

#[cfg(test)]
mod tests;
