//! Limits of request bodies, for those who read them and for the description of the API.

use std::ops::RangeInclusive;

/// Contract section 2.6: characters of `clientContext`.
pub const CLIENT_CONTEXT_CHARS: usize = 256;
/// Contract section 2.5: prompts of `playPrompt`.
pub const PLAY_PROMPTS: usize = 20;
/// Contract section 2.6: prompts of a recording.
pub const RECORD_PROMPTS: usize = 1;
/// Contract section 2.6: the default of each of the three times of a recording.
pub const DEFAULT_SECONDS: u32 = 5;
/// Contract section 2.2: how long a call may ring.
pub const RINGING_SECONDS: RangeInclusive<u32> = 1..=115;
/// Contract section 2.4: targets of `redirect`.
pub const REDIRECT_TARGETS: usize = 25;
/// Contract section 2.4: `timeout` of `redirect`.
pub const REDIRECT_SECONDS: RangeInclusive<u32> = 15..=90;
/// The largest Int32 of OData.
pub const INT32_MAX: u32 = 0x7fff_ffff;

// Our own limits, where the contract has none.

/// Characters of a URI. Signed addresses of object stores are longer than 2,048 characters when
/// they carry a session token.
pub const URI_CHARS: usize = 8192;
/// Characters of an identity, a display name, a subject, a resource id or a word of an enumeration.
pub const TEXT_CHARS: usize = 256;
/// Prompts in `preFetchMedia`.
pub const PREFETCHED: usize = 100;
/// Keys that end a recording.
pub const STOP_TONES: usize = 64;
/// Keys of `sendDtmfTones`.
pub const SENT_TONES: usize = 128;
/// Pause between the keys of `sendDtmfTones`.
pub const TONE_DELAY_MS: u32 = 10_000;
/// `loop` of a prompt.
pub const PROMPT_TIMES: u32 = 1000;
/// Modalities of a call.
pub const MODALITIES: usize = 16;
/// `routingPolicies` of a call.
pub const POLICIES: usize = 16;
