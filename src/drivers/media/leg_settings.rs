//! How legs deal with silent and unknown peers.

use std::time::Duration;

use aftertone_core::audio::{VoiceMode, frame::FRAMES_PER_SECOND};

/// How legs deal with silent peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long RTP and RTCP may stay away while both sides may speak; a multiple of 20 ms.
    pub rtp_timeout: Duration,
    /// How long RTP and RTCP may stay away on hold, or while only one side may speak: many phones send
    /// nothing then, even if they have said that they would. A multiple of 20 ms.
    pub hold_timeout: Duration,
    /// How long a call sends, in all, to addresses that nothing has ever come from and that its SIP does
    /// not come from: they may be a victim's. A multiple of 20 ms.
    pub unverified: Duration,
    /// Whether RTP may come from a host that neither a description nor SIP has shown.
    pub any_host: bool,
    /// How readily sound is taken for voice.
    pub voice: VoiceMode,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rtp_timeout: Duration::from_secs(30),
            hold_timeout: Duration::from_secs(1_800),
            unverified: Duration::from_secs(1),
            any_host: false,
            voice: VoiceMode::default(),
        }
    }
}

/// `duration` in frames of 20 ms, rounded down.
pub fn frames(duration: Duration) -> u64 {
    let frame_ms = u128::from(1_000 / FRAMES_PER_SECOND);
    u64::try_from(duration.as_millis() / frame_ms).unwrap_or(u64::MAX)
}
