//! What an application may be allowed to do: Graph's names (contract section 2.1).

/// Recording, tones and prompts.
pub const ACCESS_MEDIA: &str = "Calls.AccessMedia.All";
/// Placing calls, and handing them over.
pub const INITIATE: &str = "Calls.Initiate.All";
