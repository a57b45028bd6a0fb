//! Settings of legs: silent and unknown peers, and voice detection.

use std::time::Duration;

use aftertone_core::audio::{VoiceMode, frame::FRAMES_PER_SECOND};

/// The settings of all legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// How long RTP and RTCP may be absent while both sides may send; a multiple of 20 ms.
    pub rtp_timeout: Duration,
    /// How long RTP and RTCP may be absent on hold, or while only one side may send: many phones
    /// send nothing then, even if they have said that they would. A multiple of 20 ms.
    pub hold_timeout: Duration,
    /// How long a call sends, in total, to addresses from which nothing has ever come and from
    /// which its SIP does not come: they may be a victim's. A multiple of 20 ms.
    pub unverified: Duration,
    /// Whether RTP may come from a host that neither a session description nor SIP has named.
    pub any_host: bool,
    /// The sensitivity of the voice detection.
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
pub(super) fn frames(duration: Duration) -> u64 {
    let frame_ms = u128::from(1_000 / FRAMES_PER_SECOND);
    u64::try_from(duration.as_millis() / frame_ms).unwrap_or(u64::MAX)
}
