//! Peers that send from a port other than the expected one.

use super::*;

/// A connected leg with a recording on it.
fn recorded(peer: &Peer) -> (Rig, ChunkReceiver<Chunk>) {
    let mut rig = Rig::new();
    let (start, chunks) = record(1, 60, 1_024);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(start);
    rig.tick(1);
    (rig, chunks)
}

/// The peer with the leg's address, which is known only after [`recorded`].
fn at(rig: &Rig, mut peer: Peer) -> Peer {
    peer.leg = rig.local;
    peer
}

#[test]
fn a_peer_whose_port_changes_without_a_word_loses_no_more_than_200_ms() {
    // After 100 frames the kernel drops the packets of other sources, after 10 it does not yet.
    for before in [10, 100] {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let (peer, moved) = (Peer::new(nowhere), Peer::new(nowhere));
        let (mut rig, chunks) = recorded(&peer);
        let (mut peer, mut moved) = (at(&rig, peer), at(&rig, moved));
        let codes = speech(before + 100);
        rig.converse(&mut peer, &codes[..before * 160]);
        peer.packets();
        (moved.sequence, moved.timestamp) = (peer.sequence, peer.timestamp);
        rig.converse(&mut moved, &codes[before * 160..]);
        rig.command(LegCommand::Close);
        rig.tick(1);
        let clip = clip(&chunks).0;
        let begin =
            position(&clip, &samples(&codes[..before * 160])).expect("what was said before");
        let rest = &codes[(before + 11) * 160..];
        let again = position(&clip, &samples(rest)).expect("what was said 220 ms later");
        assert_eq!(again - begin, (before + 11) * 160, "in its place");
        // The peer receives our packets there.
        assert!(moved.heard().len() >= 89 * 160);
        assert!(peer.packets().len() <= 12);
    }
}

#[test]
fn a_peer_behind_a_nat_is_heard_over_a_way_that_doubles_swaps_or_loses_packets() {
    type Way = fn(usize) -> &'static [usize];
    let ways: [(Way, &str); 4] = [
        (|_| &[0, 0], "each twice"),
        (|index| if index % 2 == 0 { &[] } else { &[0, 1] }, "swapped"),
        (|index| if index % 3 == 2 { &[] } else { &[0] }, "every third lost"),
        (|index| if index % 2 == 0 { &[] } else { &[0, 1, 0, 1] }, "swapped and twice"),
    ];
    for (way, what) in ways {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let (named, natted) = (Peer::new(nowhere), Peer::new(nowhere));
        let (mut rig, chunks) = recorded(&named);
        let mut natted = at(&rig, natted);
        let codes = speech(100);
        for index in 0..100 {
            for earlier in way(index) {
                let index = index - earlier;
                (natted.sequence, natted.timestamp) = (index as u16, 160 * index as u32);
                natted.speak(&codes[160 * index..][..160]);
            }
            rig.tick(1);
        }
        rig.command(LegCommand::Close);
        rig.tick(1);
        let clip = clip(&chunks).0;
        let heard =
            codes.chunks(160).filter(|frame| position(&clip, &samples(frame)).is_some()).count();
        assert!(heard >= if what == "every third lost" { 62 } else { 92 }, "{what}: {heard}");
        assert!(natted.heard().len() >= 90 * 160, "{what}");
    }
}
