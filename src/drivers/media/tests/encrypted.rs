//! Streams that are protected by SRTP: what counts, what is refused, and new keys.

use aftertone_core::{
    model::Silence,
    proto::{
        rtp::packet::Packet,
        sdp::SrtpKeys,
        srtp::{CryptoSuite, MasterKey, SrtpReceiver, SrtpSender},
    },
};

use super::{
    HOST, LegCommand, LegEvent, Peer, Rig, Settings, StreamPlan, clip, play, position, prompt,
    record, samples, speech,
};

const SUITE: CryptoSuite = CryptoSuite::AesCm128HmacSha1_80;

fn key(seed: u8) -> MasterKey {
    MasterKey::from_bytes(SUITE, &[seed; 30]).unwrap()
}

/// The keys of a session: ours, and the peer's.
fn keys(ours: u8, theirs: u8) -> SrtpKeys {
    SrtpKeys { tag: 3, ours: key(ours), theirs: key(theirs), mki: None }
}

fn encrypted(peer: &Peer, ours: u8, theirs: u8) -> LegCommand {
    LegCommand::Connect(StreamPlan { srtp: Some(keys(ours, theirs)), ..peer.plan() }, HOST)
}

/// A connected leg with an encrypted stream, and its peer.
fn rig_and_peer() -> (Rig, Peer) {
    let rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    peer.srtp = Some(SrtpSender::new(key(2), None));
    rig.command(encrypted(&peer, 1, 2));
    (rig, peer)
}

/// Ends the recording and returns its 8 kHz samples.
fn recorded(mut rig: Rig, chunks: &super::ChunkReceiver<super::Chunk>) -> Vec<i16> {
    rig.command(LegCommand::Close);
    rig.tick(2);
    clip(chunks).0
}

#[test]
fn an_encrypted_peer_is_heard_and_hears_and_nothing_goes_out_in_the_clear() {
    let (mut rig, mut peer) = rig_and_peer();
    let said = speech(30);
    let ours = speech(10);
    rig.command(play(1, prompt(&ours)));
    rig.converse(&mut peer, &said[..15 * 160]);
    let (start, chunks) = record(2, 60, 64);
    rig.command(start);
    rig.converse(&mut peer, &said[15 * 160..]);
    rig.tick(10);
    rig.command(LegCommand::Close);
    rig.tick(2);
    let kept = clip(&chunks).0;
    assert!(position(&kept, &samples(&said[20 * 160..30 * 160])).is_some(), "{}", kept.len());

    let mut receiver = SrtpReceiver::new(key(1), None);
    let mut heard = Vec::new();
    for mut packet in peer.packets() {
        assert_eq!(packet.len(), 12 + 160 + 10);
        let sealed = packet[12..172].to_vec();
        let opened = receiver.unprotect(&mut packet).unwrap();
        let payload = Packet::parse(opened).unwrap().payload;
        assert_ne!(payload, sealed);
        heard.extend_from_slice(payload);
    }
    let heard = samples(&heard);
    assert!(position(&heard, &samples(&ours)).is_some(), "{} samples", heard.len());
}

#[test]
fn packets_without_the_key_do_not_count_and_a_true_one_after_them_does() {
    let (mut rig, mut peer) = rig_and_peer();
    let (start, chunks) = record(1, 60, 64);
    rig.command(start);
    let said = speech(40);
    rig.converse(&mut peer, &said[..10 * 160]);
    // In the clear, and with another key, from the peer's own address.
    for frame in 0..20_usize {
        let wrong = match frame % 2 {
            0 => None,
            _ => Some(SrtpSender::new(key(9), None)),
        };
        let sequence = peer.sequence;
        let true_sender = std::mem::replace(&mut peer.srtp, wrong);
        for _ in 0..10 {
            peer.send(0, &[0x11; 160], false);
        }
        peer.sequence = sequence;
        peer.srtp = true_sender;
        rig.converse(&mut peer, &said[(10 + frame) * 160..][..160]);
    }
    rig.converse(&mut peer, &said[30 * 160..]);
    let kept = recorded(rig, &chunks);
    assert!(position(&kept, &samples(&said[5 * 160..38 * 160])).is_some(), "{}", kept.len());
    assert_eq!(position(&kept, &samples(&[0x11; 160])), None);
}

#[test]
fn ten_thousand_forged_packets_leave_the_call_as_it_is() {
    let (mut rig, mut peer) = rig_and_peer();
    let (start, chunks) = record(1, 60, 64);
    rig.command(start);
    let said = speech(520);
    let mut forged = vec![0x80_u8, 0, 0, 101, 0, 0, 0, 1, 0, 0, 0, 7];
    forged.extend([0x55; 170]);
    for frame in said.chunks(160) {
        peer.speak(frame);
        for number in 0..20_u8 {
            forged[3] = forged[3].wrapping_add(number);
            forged[40] = number;
            peer.socket.send_to(&forged, peer.leg).unwrap();
        }
        rig.tick(1);
    }
    rig.tick(30);
    let kept = recorded(rig, &chunks);
    assert!(position(&kept, &samples(&said[10 * 160..500 * 160])).is_some(), "{}", kept.len());
}

#[test]
fn a_peer_with_other_keys_is_named_once_and_its_silence_too() {
    let settings =
        Settings { rtp_timeout: std::time::Duration::from_secs(2), ..Settings::default() };
    let mut rig = Rig::with(settings, 64);
    let mut peer = Peer::new(rig.local);
    peer.srtp = Some(SrtpSender::new(key(9), None));
    rig.command(encrypted(&peer, 1, 2));
    rig.converse(&mut peer, &speech(120));
    let told = rig.told();
    let differ = LegEvent::KeysDiffer { suite: SUITE, tag: 3 };
    let LegEvent::MediaTimedOut { silence: Silence::NeverHeard, unauthenticated } = told[1] else {
        panic!("{told:?}");
    };
    assert_eq!((&told[0], told.len()), (&differ, 2), "{told:?}");
    assert!((90..=120).contains(&unauthenticated), "{unauthenticated}");
}

#[test]
fn new_keys_leave_no_gap() {
    let (mut rig, mut peer) = rig_and_peer();
    let (start, chunks) = record(1, 60, 64);
    rig.command(start);
    let said = speech(60);
    rig.converse(&mut peer, &said[..20 * 160]);
    // Our description has the new key; packets with the former one are still under way.
    rig.command(encrypted(&peer, 1, 4));
    rig.converse(&mut peer, &said[20 * 160..25 * 160]);
    peer.srtp = Some(SrtpSender::new(key(4), None));
    rig.converse(&mut peer, &said[25 * 160..40 * 160]);
    // The same keys again, as in a session refresh.
    rig.command(encrypted(&peer, 1, 4));
    rig.converse(&mut peer, &said[40 * 160..]);
    let kept = recorded(rig, &chunks);
    assert!(position(&kept, &samples(&said[5 * 160..58 * 160])).is_some(), "{}", kept.len());
    // Our own key has stayed, and with it the count of our packets.
    let mut receiver = SrtpReceiver::new(key(1), None);
    for mut packet in peer.packets() {
        receiver.unprotect(&mut packet).unwrap();
    }
}

#[test]
fn a_call_in_the_clear_becomes_encrypted() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    let (start, chunks) = record(1, 60, 64);
    rig.command(start);
    let said = speech(40);
    rig.converse(&mut peer, &said[..20 * 160]);
    rig.command(encrypted(&peer, 1, 2));
    peer.srtp = Some(SrtpSender::new(key(2), None));
    rig.converse(&mut peer, &said[20 * 160..]);
    let kept = recorded(rig, &chunks);
    assert!(position(&kept, &samples(&said[5 * 160..38 * 160])).is_some(), "{}", kept.len());
}
