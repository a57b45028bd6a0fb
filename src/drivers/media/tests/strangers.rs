//! Addresses that are not the peer's: victims that it names, and strangers that imitate it.

use super::*;
use crate::drivers::media::Unsent;

/// A host that neither descriptions nor SIP have named.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SIP_ELSEWHERE: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3)));

/// A rig that receives on more addresses than loopback's first one.
fn rig(settings: Settings) -> Rig {
    Rig::at(Ipv4Addr::UNSPECIFIED, settings, 64)
}

#[test]
fn a_call_sends_for_a_second_to_addresses_that_never_answer_however_many_it_names() {
    let mut rig = rig(Settings::default());
    let victims: Vec<_> = (0..5).map(|_| Peer::new(rig.local)).collect();
    for _ in 0..4 {
        for victim in &victims {
            rig.command(LegCommand::Connect(victim.plan(), SIP_ELSEWHERE));
            rig.tick(13);
        }
    }
    rig.tick(500);
    let sent: usize = victims.iter().map(|victim| victim.packets().len()).sum();
    assert_eq!(sent, 50);
    let told = rig.told();
    let last = LegEvent::Unsent { to: victims[4].address(), why: Unsent::Unverified };
    assert_eq!(told.last(), Some(&last));
    assert!(told.len() <= 20, "once for each address that was named");
}

#[test]
fn an_address_is_sent_to_again_as_soon_as_something_comes_from_it() {
    let mut rig = rig(Settings::default());
    let mut peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(peer.plan(), SIP_ELSEWHERE));
    rig.tick(60);
    assert_eq!(peer.packets().len(), 50);
    rig.converse(&mut peer, &speech(60));
    assert_eq!(peer.packets().len(), 60);
    assert_eq!(rig.outline(), ["unsent Unverified"]);
}

#[test]
fn a_phone_that_says_nothing_but_reports_by_rtcp_hears_its_prompt() {
    let mut rig = rig(Settings::default());
    let peer = Peer::new(rig.local);
    let plan = StreamPlan { direction: Direction::SendOnly, ..peer.plan() };
    rig.command(LegCommand::Connect(plan, SIP_ELSEWHERE));
    rig.tick(10);
    let ssrc = Packet::parse(&peer.packets()[0]).unwrap().header.ssrc;
    peer.report(ssrc);
    let heard: usize = (0..40).map(|_| (rig.tick(10), peer.packets().len()).1).sum();
    assert_eq!(heard, 400);
    assert_eq!(rig.outline(), Vec::<String>::new());
}

#[test]
fn a_phone_that_says_nothing_is_sent_to_where_its_sip_comes_from() {
    for direction in [Direction::SendOnly, Direction::SendRecv] {
        let mut rig = rig(Settings::default());
        let peer = Peer::new(rig.local);
        let plan = StreamPlan { direction, ..peer.plan() };
        rig.command(LegCommand::Connect(plan, HOST));
        let heard: usize = (0..60).map(|_| (rig.tick(10), peer.packets().len()).1).sum();
        assert_eq!(heard, 600);
        assert_eq!(rig.outline(), Vec::<String>::new());
    }
}

#[test]
fn what_a_peer_elsewhere_names_of_ours_gets_nothing() {
    let mut rig = rig(Settings::default());
    let ours = Peer::new(rig.local);
    let far = Some("198.51.100.1".parse().unwrap());
    rig.command(LegCommand::Connect(ours.plan(), far));
    rig.tick(10);
    assert!(ours.packets().is_empty());
    assert_eq!(rig.outline(), ["unsent Forbidden"]);
}

/// RTP bleed, injection, and old media on a port that is used again: from another host, but right
/// in everything that can be guessed or overheard.
#[test]
fn who_sprays_from_another_host_is_neither_heard_nor_spoken_to() {
    let mut rig = rig(Settings::default());
    let mut peer = Peer::new(rig.local);
    let mut stranger = Peer::at(ELSEWHERE, rig.local);
    let codes = speech(100);
    let (start, chunks) = record(1, 60, 1_024);
    let spray = |stranger: &mut Peer, peer: &Peer| {
        for _ in 0..10 {
            (stranger.ssrc, stranger.sequence) = (peer.ssrc, peer.sequence);
            stranger.timestamp = peer.timestamp;
            stranger.speak(&[0x52; 160]);
        }
        stranger.press(Tone::POUND);
    };
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(start);
    for _ in 0..100 {
        spray(&mut stranger, &peer);
        rig.tick(1);
    }
    for frame in codes.chunks(160) {
        spray(&mut stranger, &peer);
        peer.speak(frame);
        rig.tick(1);
    }
    for _ in 0..400 {
        spray(&mut stranger, &peer);
        rig.tick(1);
    }
    rig.command(LegCommand::Close);
    rig.tick(1);
    assert_eq!(rig.outline(), ["ended HungUpWithAudio", "closed"]);
    let (clip, _) = clip(&chunks);
    let sent = samples(&codes);
    let at = position(&clip, &sent).expect("all that the peer has said");
    let foreign = Law::Mu.decode(0x52);
    let rest = clip[..at].iter().chain(&clip[at + sent.len()..]);
    assert!(rest.filter(|sample| **sample == foreign).count() == 0, "and nothing else");
    assert!(stranger.packets().is_empty());
}

#[test]
fn a_stranger_is_neither_heard_nor_spoken_to() {
    let mut rig = Rig::new();
    let (mut peer, mut stranger) = (Peer::new(rig.local), Peer::new(rig.local));
    let codes = speech(60);
    let (start, chunks) = record(1, 60, 64);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(start);
    rig.tick(1);
    for frame in codes.chunks(160) {
        for _ in 0..5 {
            // The packet is right in everything except the address.
            (stranger.ssrc, stranger.sequence) = (peer.ssrc, peer.sequence);
            stranger.timestamp = peer.timestamp;
            stranger.speak(&[0x52; 160]);
        }
        peer.speak(frame);
        rig.tick(1);
    }
    rig.command(LegCommand::Close);
    rig.tick(1);
    let (clip, _) = clip(&chunks);
    assert!(position(&clip, &samples(&codes)).is_some());
    assert!(stranger.packets().is_empty());
}
