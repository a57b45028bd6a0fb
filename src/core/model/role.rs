//! Roles of an application, by Graph's names (contract section 2.1).

/// Allows recording, tones and prompts.
pub const ACCESS_MEDIA: &str = "Calls.AccessMedia.All";
/// Allows placing, transferring and redirecting calls.
pub const INITIATE: &str = "Calls.Initiate.All";

/// All of Graph's roles for calls. We check only the two above, but an application that was written
/// for Graph may have the others.
pub const ALL: [&str; 5] = [
    ACCESS_MEDIA,
    INITIATE,
    "Calls.InitiateGroupCall.All",
    "Calls.JoinGroupCall.All",
    "Calls.JoinGroupCallAsGuest.All",
];

/// Whether two names mean the same role. Microsoft's documents write `Calls.JoinGroupCall.All` and
/// `Calls.JoinGroupCalls.All`, in upper and in lower case.
pub fn is_same(left: &str, right: &str) -> bool {
    let spelled = |name: &str| name.to_ascii_lowercase().replace("calls", "call");
    spelled(left) == spelled(right)
}
