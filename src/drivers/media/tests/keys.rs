//! Keys of phones that count timestamps and durations in their own way.

use super::*;
use aftertone_core::proto::rtp::telephone_event::{self, EventPayload, TelephoneEvents};

/// Sends one packet about `#` at a timestamp.
fn event(peer: &mut Peer, timestamp: u32, duration: u16, is_first: bool, is_up: bool) {
    let now = std::mem::replace(&mut peer.timestamp, timestamp);
    peer.send(EVENT_TYPE, &telephone_event::payload(Tone::POUND, is_up, duration), is_first);
    peer.timestamp = now;
}

#[test]
fn keys_go_out_as_telephone_events_when_that_was_agreed() {
    let mut rig = Rig::new();
    let peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(send_keys(1));
    rig.tick(40);
    assert_eq!(rig.outline(), ["ended Done"]);
    let packets = peer.packets();
    let mut events = TelephoneEvents::default();
    let pressed = packets.iter().filter_map(|packet| {
        let Packet { header, payload, .. } = Packet::parse(packet).unwrap();
        let event = EventPayload::parse(payload).filter(|_| header.payload_type == pt(EVENT_TYPE));
        let key = event.and_then(|event| events.take(&header, &event, 8_000, None, 0));
        key.filter(|key| key.is_new)
    });
    let pressed: Vec<_> = pressed.map(|key| (key.tone.as_char(), key.timestamp)).collect();
    let keys: String = pressed.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, "12#");
    let apart = pressed[1].1.since(pressed[0].1);
    assert_eq!(apart, 10 * 160, "100 ms down, 100 ms up");
    let sound = packets.iter().map(|packet| Packet::parse(packet).unwrap());
    let sound = sound.filter(|packet| packet.header.payload_type == PayloadType::PCMU);
    assert!(sound.flat_map(|packet| samples(packet.payload)).all(|sample| sample == 0));
}

#[test]
fn one_pound_whose_packets_have_timestamps_of_their_own_ends_one_recording() {
    type Stamp = fn(began: u32, now: u32, is_up: bool) -> u32;
    let stamps: [Stamp; 3] = [
        |_, now, _| now,
        |began, now, is_up| if is_up { now } else { began },
        |began, _, is_up| if is_up { began + 5 * 160 } else { began },
    ];
    for stamp in stamps {
        let mut rig = Rig::new();
        let mut peer = Peer::new(rig.local);
        let codes = speech(40);
        rig.command(LegCommand::Connect(peer.plan(), HOST));
        let (first, _chunks) = record(1, 60, 64);
        rig.command(first);
        rig.converse(&mut peer, &codes);
        let began = peer.timestamp;
        let (second, _chunks) = record(2, 60, 64);
        let (mut second, mut told) = (Some(second), Vec::new());
        for step in 0..8u16 {
            let (now, is_up) = (peer.timestamp, step >= 5);
            event(&mut peer, stamp(began, now, is_up), 160 * (step + 1).min(5), step == 0, is_up);
            peer.timestamp += 160;
            rig.tick(1);
            told.extend(rig.outline());
            // The application requests the next operation as soon as it learns of the end.
            if told.len() == 2
                && let Some(second) = second.take()
            {
                rig.command(second);
            }
        }
        rig.converse(&mut peer, &codes);
        told.extend(rig.outline());
        assert_eq!(told, ["tone #", "ended StopToneDetected"]);
    }
}

#[test]
fn two_presses_with_one_timestamp_are_two() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.converse(&mut peer, &speech(20));
    let began = peer.timestamp;
    for _ in 0..2 {
        for step in 0..6u16 {
            event(&mut peer, began, 160 * (step + 1).min(4), step == 0, step >= 3);
            peer.timestamp += 160;
            rig.tick(1);
        }
        rig.converse(&mut peer, &speech(5));
    }
    rig.tick(20);
    assert_eq!(rig.outline(), ["tone #", "tone #"]);
}

#[test]
fn a_recording_holds_the_speech_after_a_key_that_claims_to_be_down_for_long() {
    for claimed in [49_155, u16::MAX] {
        let mut rig = Rig::new();
        let mut peer = Peer::new(rig.local);
        let codes = speech(200);
        let (start, chunks) = record(1, 60, 1_024);
        rig.command(LegCommand::Connect(peer.plan(), HOST));
        rig.command(start);
        rig.tick(1);
        rig.converse(&mut peer, &codes[..50 * 160]);
        let (began, star) = (peer.timestamp, Tone::try_from('*').unwrap());
        for step in 0..5 {
            let payload = telephone_event::payload(star, step >= 2, claimed);
            let now = std::mem::replace(&mut peer.timestamp, began);
            peer.send(EVENT_TYPE, &payload, step == 0);
            peer.timestamp = now;
            let frame = &codes[(50 + step) * 160..][..160];
            peer.speak(frame);
            rig.tick(1);
        }
        rig.converse(&mut peer, &codes[55 * 160..]);
        rig.command(LegCommand::Close);
        rig.tick(1);
        let (clip, _) = clip(&chunks);
        assert!(position(&clip, &samples(&codes[..50 * 160])).is_some(), "{claimed}: before it");
        assert!(position(&clip, &samples(&codes[52 * 160..])).is_some(), "{claimed}: after it");
        assert!(clip.len() >= 200 * 160, "{claimed}: {} samples", clip.len());
    }
}
