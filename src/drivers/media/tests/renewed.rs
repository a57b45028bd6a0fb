//! Payload types that a re-INVITE changes, while packets with the former ones are under way.

use super::*;
use aftertone_core::proto::rtp::telephone_event;

/// A packet of a press that began at `began`.
fn event(peer: &mut Peer, payload_type: u8, began: u32, units: u16, is_up: bool) {
    let now = std::mem::replace(&mut peer.timestamp, began);
    let payload = telephone_event::payload(Tone::POUND, is_up, units);
    peer.send(payload_type, &payload, units == 160);
    peer.timestamp = now;
}

#[test]
fn a_key_that_is_down_while_codec_or_number_changes_is_told_once() {
    for codec in [Codec::Pcmu, Codec::Pcma, Codec::Opus] {
        for number in [EVENT_TYPE, 102] {
            let mut rig = Rig::new();
            let mut peer = Peer::new(rig.local);
            rig.command(LegCommand::Connect(peer.plan(), HOST));
            rig.tick(1);
            rig.converse(&mut peer, &speech(20));
            let began = peer.timestamp;
            event(&mut peer, EVENT_TYPE, began, 160, false);
            rig.tick(1);
            rig.command(LegCommand::Connect(renumbered(&peer, codec, number), HOST));
            for units in [320, 480] {
                event(&mut peer, EVENT_TYPE, began, units, false);
                rig.tick(1);
            }
            for units in [640, 800] {
                event(&mut peer, number, began, units, units == 800);
                rig.tick(1);
            }
            rig.tick(30);
            assert_eq!(rig.outline(), ["tone #"], "{codec:?} {number}");
        }
    }
}

#[test]
fn a_key_that_was_under_way_when_codec_or_number_changed_is_told() {
    for codec in [Codec::Pcmu, Codec::Pcma, Codec::Opus] {
        let mut rig = Rig::new();
        let mut peer = Peer::new(rig.local);
        rig.command(LegCommand::Connect(peer.plan(), HOST));
        rig.tick(1);
        rig.converse(&mut peer, &speech(20));
        rig.command(LegCommand::Connect(renumbered(&peer, codec, 102), HOST));
        peer.press(Tone::POUND);
        rig.tick(30);
        assert_eq!(rig.outline(), ["tone #"], "{codec:?}");
    }
}

#[test]
fn sound_that_was_under_way_when_its_number_changed_is_heard() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    let codes = speech(60);
    let (start, chunks) = record(1, 60, 64);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(start);
    rig.tick(1);
    rig.converse(&mut peer, &codes[..20 * 160]);
    rig.command(LegCommand::Connect(renumbered(&peer, Codec::Pcmu, EVENT_TYPE), HOST));
    for (index, frame) in codes[20 * 160..].chunks(160).enumerate() {
        peer.send(if index < 5 { 0 } else { 110 }, frame, false);
        peer.timestamp += 160;
        rig.tick(1);
    }
    rig.command(LegCommand::Close);
    rig.tick(1);
    assert!(position(&clip(&chunks).0, &samples(&codes)).is_some(), "in one piece");
}

/// The plan that is agreed with the peer after the change.
fn renumbered(peer: &Peer, codec: Codec, telephone_event: u8) -> StreamPlan {
    let (payload_type, telephone_event) = (pt(110), pt(telephone_event));
    let heard = vec![(payload_type, Payload::Sound(codec)), (telephone_event, Payload::Event)];
    let telephone_event = Some(telephone_event);
    StreamPlan { codec, payload_type, telephone_event, heard, ..peer.plan() }
}
