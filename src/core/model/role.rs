//! What an application may be allowed to do: Graph's names (contract section 2.1).

/// Recording, tones and prompts.
pub const ACCESS_MEDIA: &str = "Calls.AccessMedia.All";
/// Placing calls, and handing them over.
pub const INITIATE: &str = "Calls.Initiate.All";

/// All that Graph has for calls. Nothing here asks for the others, but an application that was written
/// for Graph may have them.
pub const ALL: [&str; 5] = [
    ACCESS_MEDIA,
    INITIATE,
    "Calls.InitiateGroupCall.All",
    "Calls.JoinGroupCall.All",
    "Calls.JoinGroupCallAsGuest.All",
];

/// Whether two names mean the same role: the documents write `Calls.JoinGroupCall.All` and
/// `Calls.JoinGroupCalls.All`, in capitals and in small letters.
pub fn is_same(left: &str, right: &str) -> bool {
    let spelled = |name: &str| name.to_ascii_lowercase().replace("calls", "call");
    spelled(left) == spelled(right)
}
