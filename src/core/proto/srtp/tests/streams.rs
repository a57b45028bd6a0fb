//! Streams of packets that are lost, delayed, repeated, damaged and forged.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::select};

use super::{protected, protected_rtcp, receiver, rtcp, rtp, sender};
use crate::proto::srtp::{CryptoSuite, SrtpError};

fn suites() -> impl Strategy<Value = CryptoSuite> {
    select(&CryptoSuite::ALL[..])
}

/// A packet of a stream: its index if nothing wrapped, and how it was sent.
struct Sent {
    ssrc: u32,
    index: u64,
    plain: Vec<u8>,
    protected: Vec<u8>,
}

/// What became of a stream's packets, by indices that do not wrap.
#[derive(Default)]
struct Received(BTreeSet<u64>);

impl Received {
    /// What the next packet has to lead to; `None` if it is out of reach.
    fn expected(&self, index: u64) -> Option<Result<(), SrtpError>> {
        let Some(highest) = self.0.last() else {
            return (index < 2 << 16).then_some(Ok(()));
        };
        match index.checked_sub(*highest) {
            Some(0x8000..) => None,
            None if highest - index >= 0x8000 => None,
            None if highest - index >= 512 => Some(Err(SrtpError::TooOld)),
            _ if self.0.contains(&index) => Some(Err(SrtpError::Replayed)),
            _ => Some(Ok(())),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// Several streams begin anywhere and wrap twice and more. The first packets are lost, others
    /// are lost, come late, or come twice.
    #[test]
    fn each_packet_is_accepted_once_whatever_the_network_does(
        suite in suites(),
        starts in prop::collection::vec(any::<u16>(), 1..4),
        joined in 0usize..150,
        steps in prop::collection::vec((any::<prop::sample::Index>(), 1u64..900), 400..900),
        delays in prop::collection::vec((0u8..10, 0usize..40), 900),
    ) {
        let mut sender = sender(suite);
        let mut next: Vec<u64> = starts.into_iter().map(u64::from).collect();
        let mut sent = Vec::new();
        for (stream, step) in steps {
            let stream = stream.index(next.len());
            let index = next[stream];
            // One in three follows its predecessor at once.
            next[stream] += if step % 3 == 0 { 1 } else { step };
            let plain = rtp(stream as u32, index as u16);
            let protected = protected(&mut sender, &plain);
            sent.push(Sent { ssrc: stream as u32, index, plain, protected });
        }
        // Place of arrival and packet.
        let mut arrivals = Vec::new();
        for (place, (kind, delay)) in delays.iter().enumerate().take(sent.len()).skip(joined) {
            match kind {
                0 | 1 => {}
                2 => arrivals.extend([(place, place), (place + delay, place)]),
                3 | 4 => arrivals.push((place + delay, place)),
                _ => arrivals.push((place, place)),
            }
        }
        arrivals.sort_by_key(|(arrival, _)| *arrival);
        let mut receiver = receiver(suite);
        let mut streams: BTreeMap<u32, Received> = BTreeMap::new();
        for (_, place) in arrivals {
            let Sent { ssrc, index, plain, protected } = &sent[place];
            let received = streams.entry(*ssrc).or_default();
            let Some(expected) = received.expected(*index) else { continue };
            let mut packet = protected.clone();
            let read = receiver.unprotect(&mut packet).map(|packet| packet.to_vec());
            prop_assert_eq!(read, expected.map(|()| plain.clone()), "index {}", index);
            if expected.is_ok() {
                received.0.insert(*index);
            }
        }
    }

    /// Reports are lost, come late, or come twice.
    #[test]
    fn each_report_is_accepted_once(
        suite in suites(),
        delays in prop::collection::vec((0u8..10, 0usize..40), 1..100),
    ) {
        let (mut sender, mut receiver) = (sender(suite), receiver(suite));
        let mut arrivals = Vec::new();
        for (place, (kind, delay)) in delays.into_iter().enumerate() {
            let report = protected_rtcp(&mut sender, &rtcp(place as u32 % 3));
            match kind {
                0 | 1 => {}
                2 => {
                    arrivals.push((place, place, report.clone()));
                    arrivals.push((place + delay, place, report));
                }
                _ => arrivals.push((place + delay, place, report)),
            }
        }
        arrivals.sort_by_key(|(arrival, ..)| *arrival);
        let mut received = BTreeSet::new();
        for (_, place, mut report) in arrivals {
            let read = receiver.unprotect_rtcp(&mut report).map(|report| report.to_vec());
            let expected = match received.insert(place) {
                true => Ok(rtcp(place as u32 % 3)),
                false => Err(SrtpError::Replayed),
            };
            prop_assert_eq!(read, expected);
        }
    }

    #[test]
    fn no_bytes_panic_or_change_the_state(
        suite in suites(),
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..20),
        is_rtp: bool,
    ) {
        let mut receiver = receiver(suite);
        let before = receiver.state();
        for mut packet in packets {
            if let Some(first) = packet.first_mut().filter(|_| is_rtp) {
                *first = *first & 0x3f | 0x80;
            }
            let bytes = packet.clone();
            prop_assert!(receiver.unprotect(&mut packet).is_err());
            prop_assert!(receiver.unprotect_rtcp(&mut packet).is_err());
            prop_assert_eq!(packet, bytes);
        }
        prop_assert_eq!(receiver.state(), before);
    }
}

#[test]
fn a_packet_with_any_bit_changed_is_refused_and_leaves_no_trace() {
    for suite in CryptoSuite::ALL {
        let (mut sender, mut receiver) = (sender(suite), receiver(suite));
        for sequence in [0xfffe, 0xffff] {
            let mut packet = protected(&mut sender, &rtp(1, sequence));
            assert!(receiver.unprotect(&mut packet).is_ok());
            let mut report = protected_rtcp(&mut sender, &rtcp(1));
            assert!(receiver.unprotect_rtcp(&mut report).is_ok());
        }
        let mut packet = protected(&mut sender, &rtp(1, 0));
        let mut report = protected_rtcp(&mut sender, &rtcp(1));
        let before = receiver.state();
        for bit in 0..packet.len() * 8 {
            let mut forged = packet.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let bytes = forged.clone();
            assert!(receiver.unprotect(&mut forged).is_err(), "{suite:?}, bit {bit}");
            assert_eq!(forged, bytes);
        }
        for bit in 0..report.len() * 8 {
            let mut forged = report.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            let bytes = forged.clone();
            assert!(receiver.unprotect_rtcp(&mut forged).is_err(), "{suite:?}, bit {bit}");
            assert_eq!(forged, bytes);
        }
        for len in 0..packet.len() {
            assert!(receiver.unprotect(&mut packet.clone()[..len]).is_err());
        }
        for len in 0..report.len() {
            assert!(receiver.unprotect_rtcp(&mut report.clone()[..len]).is_err());
        }
        assert_eq!(receiver.state(), before);
        assert_eq!(receiver.unprotect(&mut packet), Ok(&mut rtp(1, 0)[..]));
        assert_eq!(receiver.unprotect_rtcp(&mut report), Ok(&mut rtcp(1)[..]));
    }
}

#[test]
fn forged_packets_far_ahead_do_not_move_the_rollover_counter() {
    let suite = CryptoSuite::AesCm128HmacSha1_80;
    let (mut sender, mut receiver) = (sender(suite), receiver(suite));
    for sequence in [60_000, 60_001] {
        assert!(receiver.unprotect(&mut protected(&mut sender, &rtp(1, sequence))).is_ok());
    }
    for sequence in (0..u16::MAX).step_by(101) {
        let mut forged = rtp(1, sequence);
        forged.extend([0; 10]);
        assert!(receiver.unprotect(&mut forged).is_err());
    }
    assert!(receiver.unprotect(&mut protected(&mut sender, &rtp(1, 60_002))).is_ok());
}

#[test]
fn the_stream_that_was_silent_the_longest_makes_room() {
    let suite = CryptoSuite::AeadAes128Gcm;
    let (mut sender, mut receiver) = (sender(suite), receiver(suite));
    let first: Vec<_> = (0..16).map(|ssrc| protected(&mut sender, &rtp(ssrc, 1))).collect();
    for packet in &first {
        assert!(receiver.unprotect(&mut packet.clone()).is_ok());
    }
    assert!(receiver.unprotect(&mut protected(&mut sender, &rtp(0, 2))).is_ok());
    // A forged packet of a known stream does not count as a sign of life, nor one of a new stream.
    for ssrc in [1, 99] {
        let mut forged = rtp(ssrc, 2);
        forged.extend([0; 16]);
        assert_eq!(receiver.unprotect(&mut forged), Err(SrtpError::Authentication));
    }
    assert!(receiver.unprotect(&mut protected(&mut sender, &rtp(16, 1))).is_ok());
    let known = |receiver: &mut super::SrtpReceiver, ssrc: usize| {
        receiver.unprotect(&mut first[ssrc].clone()) == Err(SrtpError::Replayed)
    };
    assert!(known(&mut receiver, 0) && (2..16).all(|ssrc| known(&mut receiver, ssrc)));
    assert!(!known(&mut receiver, 1));
}

#[test]
fn a_report_may_come_before_the_first_packet_of_its_stream() {
    for suite in CryptoSuite::ALL {
        let (mut sender, mut receiver) = (sender(suite), receiver(suite));
        let mut lost = rtp(5, 0xffff);
        assert_eq!(sender.protect(&mut lost), Ok(()));
        assert!(receiver.unprotect_rtcp(&mut protected_rtcp(&mut sender, &rtcp(5))).is_ok());
        // The stream has wrapped before its first packet has come.
        let mut packet = protected(&mut sender, &rtp(5, 3));
        assert_eq!(receiver.unprotect(&mut packet), Ok(&mut rtp(5, 3)[..]));
        assert_eq!(receiver.unprotect(&mut lost), Ok(&mut rtp(5, 0xffff)[..]));
    }
}

#[test]
fn a_sender_refuses_what_would_use_a_key_stream_twice() {
    for suite in CryptoSuite::ALL {
        let mut sender = sender(suite);
        protected(&mut sender, &rtp(1, 10));
        for sequence in [10, 9, 40_000] {
            let mut packet = rtp(1, sequence);
            assert_eq!(sender.protect(&mut packet), Err(SrtpError::OutOfOrder));
            assert_eq!(packet, rtp(1, sequence));
        }
        protected(&mut sender, &rtp(2, 10));
        protected(&mut sender, &rtp(1, 11));
    }
}

#[test]
fn what_is_no_packet_is_not_protected() {
    let mut sender = sender(CryptoSuite::AesCm128HmacSha1_80);
    let mut version = rtp(1, 1);
    version[0] = 0x40;
    let mut csrcs = rtp(1, 1);
    csrcs[0] |= 0x0f;
    let mut extension = rtp(1, 1);
    (extension[0], extension[15]) = (0x90, 200);
    for mut packet in [version, csrcs, extension] {
        assert_eq!(sender.protect(&mut packet), Err(SrtpError::Malformed));
    }
    assert_eq!(sender.protect(&mut rtp(1, 1)[..11].to_vec()), Err(SrtpError::TooShort));
    assert_eq!(sender.protect_rtcp(&mut rtcp(1)[..7].to_vec()), Err(SrtpError::TooShort));
    assert_eq!(sender.protect_rtcp(&mut vec![0; 8]), Err(SrtpError::Malformed));
}
