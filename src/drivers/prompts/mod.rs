//! From URI to decoded audio, through a cache and a fence.
//!
//! In: the URI of a prompt and its application. Out: a [`Clip`](aftertone_core::audio::Clip) ready
//! to be played, or a failure with the cause in one sentence. The [`Fence`] decides which addresses
//! any outgoing request may reach.

mod bundled;
mod cache;
mod fence;
mod fetch;
mod freshness;
mod library;
mod unpack;

pub use bundled::{BUNDLED_PREFIX, bundled, bundled_wav};
pub use fence::{Fence, FenceError, FencedClient};
pub use fetch::{Fetch, FetchError, FetchLimits};
pub use library::{Library, LibraryLimits};

#[cfg(test)]
mod tests;
