//! A call as the store has it, for tests without a real one.

use aftertone_core::model::{
    Arrival, Call, CallId, CallState, Direction, ParticipantId, Party, UnixMillis,
};

/// A call of the application `bot` that was just offered.
pub fn call(id: CallId) -> Call {
    let party = |uri: &str| Party { uri: uri.to_owned(), display_name: None };
    Call {
        id,
        application: Some("bot".to_owned()),
        state: CallState::Incoming,
        direction: Direction::Incoming,
        source: party("sip:alice@example"),
        target: party("tel:+4930123456"),
        chain_id: "chain".to_owned(),
        participant_id: ParticipantId::from_random([1; 16]),
        arrival: Arrival::default(),
        is_telephone: false,
        ringing_timeout_seconds: None,
        peer_participant_id: ParticipantId::from_random([2; 16]),
        is_muted: false,
        peer_is_muted: false,
        recording_status: None,
        sip_call_id: format!("{id}@example"),
        callback_uri: Some("https://bot.example/calls".to_owned()),
        media: None,
        tones_subscribed: false,
        media_config: None,
        subject: None,
        created_at: UnixMillis(1_000),
        ended_at: None,
        termination: None,
    }
}
