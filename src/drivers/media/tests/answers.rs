//! The codecs and payload types that peers may send: peers that have answered our offer (RFC 3264
//! sections 5.1 and 6.1), and peers that send more of their own formats than we have answered.

use super::*;
use aftertone_core::proto::sdp;

/// The leg's plan if our offer of `96 8 0 101` is answered with these formats.
fn plan(peer: &Peer, formats: &str) -> StreamPlan {
    let offer = sdp::make_offer(&sdp::LocalMedia {
        address: Ipv4Addr::LOCALHOST.into(),
        port: peer.leg.port(),
        codecs: vec![Codec::Opus, Codec::Pcma, Codec::Pcmu],
        security: sdp::LocalSecurity::new(
            sdp::SrtpPolicy::Off,
            sdp::MediaSecret::new([0; sdp::MediaSecret::LEN]),
        ),
        session_id: 1,
        session_version: 1,
    });
    let port = peer.address().port();
    let answer = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP {formats}\r\n"
    );
    let answer = sdp::Description::parse(answer.as_bytes()).unwrap();
    sdp::accept_answer(&offer, &answer).unwrap()
}

/// A connected leg with a recording on it.
fn recorded(formats: &str) -> (Rig, Peer, ChunkReceiver<Chunk>) {
    let mut rig = Rig::new();
    let peer = Peer::new(rig.local);
    let (start, chunks) = record(1, 60, 1_024);
    rig.command(LegCommand::Connect(plan(&peer, formats), HOST));
    rig.command(start);
    rig.tick(1);
    (rig, peer, chunks)
}

/// Sends the frame `index` of a call.
fn send(peer: &mut Peer, index: usize, payload_type: u8, frame: &[u8]) {
    (peer.sequence, peer.timestamp) = (index as u16, 160 * index as u32);
    peer.send(payload_type, frame, false);
}

/// The clip once the peer has hung up.
fn hang_up(rig: &mut Rig, chunks: &ChunkReceiver<Chunk>) -> Vec<i16> {
    rig.command(LegCommand::Close);
    rig.tick(1);
    assert_eq!(rig.outline(), ["ended HungUpWithAudio", "closed"]);
    clip(chunks).0
}

/// The decoded sound of the frames of a call, when each has a payload type of its own.
fn decoded(codes: &[u8], payload_type: impl Fn(usize) -> u8) -> Vec<i16> {
    let law = |index| if payload_type(index) == 8 { Law::A } else { Law::Mu };
    let frames = codes.chunks(160).enumerate();
    frames
        .flat_map(|(index, frame)| frame.iter().map(move |code| law(index).decode(*code)))
        .collect()
}

const BOTH_LAWS: &str = "8 0 101\r\na=rtpmap:101 telephone-event/8000";

#[test]
fn a_peer_may_begin_with_any_codec_of_its_answer() {
    let (mut rig, mut peer, chunks) = recorded(BOTH_LAWS);
    let codes = speech(50);
    rig.converse(&mut peer, &codes);
    let clip = hang_up(&mut rig, &chunks);
    assert!(position(&clip, &samples(&codes)).is_some(), "in one piece");
}

#[test]
fn a_peer_may_change_among_the_codecs_of_its_answer() {
    let (mut rig, mut peer, chunks) = recorded(BOTH_LAWS);
    let codes = speech(120);
    let payload_type = |index| if (40..80).contains(&index) { 0 } else { 8 };
    for index in 0..120 {
        // At either change the last packet is overtaken by the first of the other codec.
        let index = match index {
            39 | 79 => index + 1,
            40 | 80 => index - 1,
            _ => index,
        };
        send(&mut peer, index, payload_type(index), &codes[160 * index..][..160]);
        rig.tick(1);
    }
    assert!(peer.packets().iter().all(|packet| {
        let packet = Packet::parse(packet).unwrap();
        (packet.header.payload_type, packet.payload.len()) == (PayloadType::PCMA, 160)
    }));
    let clip = hang_up(&mut rig, &chunks);
    assert!(position(&clip, &decoded(&codes, payload_type)).is_some(), "in one piece");
}

#[test]
fn what_is_said_to_a_peer_that_has_changed_its_rate_is_as_it_was() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    let formats = "0 96 101\r\na=rtpmap:96 opus/48000/2\r\na=rtpmap:101 telephone-event/8000";
    rig.command(LegCommand::Connect(plan(&peer, formats), HOST));
    rig.converse(&mut peer, &speech(20));
    let codes = speech(100);
    peer.packets();
    rig.command(play(1, prompt(&codes)));
    let mut encoder = Encoder::new(Codec::Opus).unwrap();
    for _ in 0..100 {
        let mut payload = Vec::new();
        encoder.encode(&Frame::silence(Rate::Hz16000), &mut payload).unwrap();
        peer.send(96, &payload, false);
        peer.timestamp += 960;
        rig.tick(1);
    }
    assert_eq!(peer.heard(), codes);
    rig.tick(6);
    assert_eq!(rig.outline(), ["ended Done"]);
}

#[test]
fn a_re_invite_that_changes_nothing_leaves_the_codec_that_is_heard() {
    let (mut rig, mut peer, chunks) = recorded(BOTH_LAWS);
    let codes = speech(60);
    for (index, frame) in codes.chunks(160).enumerate() {
        if index >= 20 {
            rig.command(LegCommand::Connect(plan(&peer, BOTH_LAWS), HOST));
        }
        peer.speak(frame);
        rig.tick(1);
    }
    let clip = hang_up(&mut rig, &chunks);
    assert!(position(&clip, &samples(&codes)).is_some(), "in one piece");
}

#[test]
fn who_changes_the_codec_with_every_packet_is_there_but_not_followed() {
    let (mut rig, mut peer, chunks) = recorded(BOTH_LAWS);
    let codes = speech(2_000);
    for (index, frame) in codes.chunks(160).enumerate() {
        send(&mut peer, index, if index % 2 == 0 { 8 } else { 0 }, frame);
        rig.tick(1);
    }
    // Some former receivers are still to be played, but their number does not grow.
    let length = hang_up(&mut rig, &chunks).len();
    assert!((2_000 * 160..2_090 * 160).contains(&length), "{length}");
}

#[test]
fn a_key_has_the_number_of_our_offer_whatever_the_answer_gave_it() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    let formats = "0 99\r\na=rtpmap:99 telephone-event/8000";
    rig.command(LegCommand::Connect(plan(&peer, formats), HOST));
    rig.converse(&mut peer, &speech(10));
    peer.press(Tone::POUND);
    rig.converse(&mut peer, &speech(20));
    // Some peers use the number of their answer for both directions.
    for (index, end) in [0, 0x80].into_iter().enumerate() {
        peer.send(99, &[Tone::POUND.event_code(), end | 10, 0, 160], index == 0);
    }
    rig.converse(&mut peer, &speech(20));
    assert_eq!(rig.outline(), ["tone #", "tone #"]);
    peer.packets();
    rig.command(send_keys(1));
    rig.tick(2);
    let sent = peer.packets();
    assert_eq!(Packet::parse(&sent[0]).unwrap().header.payload_type, pt(99));
}

/// The leg's plan if we answer the peer's offer of these formats.
fn offered(peer: &Peer, formats: &str) -> StreamPlan {
    let port = peer.address().port();
    let offer = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP {formats}\r\n"
    );
    let local = sdp::LocalMedia {
        address: Ipv4Addr::LOCALHOST.into(),
        port: peer.leg.port(),
        codecs: vec![Codec::Opus, Codec::Pcma, Codec::Pcmu],
        security: sdp::LocalSecurity::new(
            sdp::SrtpPolicy::Off,
            sdp::MediaSecret::new([0; sdp::MediaSecret::LEN]),
        ),
        session_id: 1,
        session_version: 1,
    };
    let offer = sdp::Description::parse(offer.as_bytes()).unwrap();
    sdp::negotiate(&offer, &local).unwrap().1
}

#[test]
fn the_other_law_of_the_offer_is_heard_when_one_was_answered() {
    type Choice = fn(usize) -> u8;
    let choices: [Choice; 3] = [|_| 8, |_| 0, |index| if index < 60 { 0 } else { 8 }];
    for formats in ["0 8", "8 0"] {
        for payload_type in choices {
            let mut rig = Rig::new();
            let mut peer = Peer::new(rig.local);
            let (start, chunks) = record(1, 60, 1_024);
            rig.command(LegCommand::Connect(offered(&peer, formats), HOST));
            rig.command(start);
            rig.tick(1);
            let codes = speech(120);
            for (index, frame) in codes.chunks(160).enumerate() {
                send(&mut peer, index, payload_type(index), frame);
                rig.tick(1);
            }
            let clip = hang_up(&mut rig, &chunks);
            let sent = decoded(&codes, payload_type);
            assert!(position(&clip, &sent).is_some(), "{formats}: in one piece");
            // We send the codec that was answered.
            let number = u8::from(formats == "8 0") * 8;
            assert!(peer.packets().iter().all(|packet| packet[1] & 0x7f == number));
        }
    }
}
