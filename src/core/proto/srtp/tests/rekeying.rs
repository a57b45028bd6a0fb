//! New keys during a call, and offers that repeat the old ones.

use super::{key, protected, protected_rtcp, receiver, rtcp, rtp, sender};
use crate::proto::srtp::{CryptoSuite, SrtpError, SrtpReceiver, SrtpSender};

/// Sends numbers, and checks that each is received.
fn exchange(
    sender: &mut SrtpSender,
    receiver: &mut SrtpReceiver,
    numbers: impl IntoIterator<Item = u16>,
) {
    for number in numbers {
        let packet = rtp(1, number);
        let mut sent = protected(sender, &packet);
        assert_eq!(receiver.unprotect(&mut sent).map(|read| read.to_vec()), Ok(packet));
    }
}

#[test]
fn the_rollover_counter_outlives_an_offer_with_the_same_key() {
    for suite in CryptoSuite::ALL {
        let (mut sender, mut receiver) = (sender(suite), receiver(suite));
        exchange(&mut sender, &mut receiver, [0xffff, 0, 1]);
        let replayed = protected(&mut sender, &rtp(1, 2));
        assert!(receiver.unprotect(&mut replayed.clone()).is_ok());
        let old_report = protected_rtcp(&mut sender, &rtcp(1));
        assert!(receiver.unprotect_rtcp(&mut old_report.clone()).is_ok());
        receiver.replace_key(key(suite, 7), None);
        sender.replace_key(key(suite, 7), None);
        assert_eq!(receiver.unprotect(&mut replayed.clone()), Err(SrtpError::Replayed));
        assert_eq!(receiver.unprotect_rtcp(&mut old_report.clone()), Err(SrtpError::Replayed));
        exchange(&mut sender, &mut receiver, [3, 4, 30_000, 60_000, 0]);
        assert!(receiver.unprotect_rtcp(&mut protected_rtcp(&mut sender, &rtcp(1))).is_ok());
    }
}

#[test]
fn a_new_key_begins_with_rollover_counter_0_and_late_packets_still_count() {
    for suite in CryptoSuite::ALL {
        let (mut sender, mut receiver) = (sender(suite), receiver(suite));
        exchange(&mut sender, &mut receiver, [0xffff, 0, 1]);
        let late = protected(&mut sender, &rtp(1, 2));
        let late_report = protected_rtcp(&mut sender, &rtcp(1));
        let [very_late, too_late] = [3, 4].map(|number| protected(&mut sender, &rtp(1, number)));
        sender.replace_key(key(suite, 8), None);
        let expected = protected(&mut SrtpSender::new(key(suite, 8), None), &rtp(1, 5));
        receiver.replace_key(key(suite, 8), None);
        let mut first = protected(&mut sender, &rtp(1, 5));
        assert_eq!(first, expected);
        // The packets of both keys come mixed, and each once.
        let mut forged = late.clone();
        forged[20] ^= 1;
        let before = forged.clone();
        assert_eq!(receiver.unprotect(&mut forged), Err(SrtpError::Authentication));
        assert_eq!(forged, before);
        assert!(receiver.unprotect(&mut first).is_ok());
        assert!(receiver.unprotect(&mut late.clone()).is_ok());
        assert_eq!(receiver.unprotect(&mut late.clone()), Err(SrtpError::Replayed));
        assert!(receiver.unprotect_rtcp(&mut late_report.clone()).is_ok());
        assert_eq!(receiver.unprotect_rtcp(&mut late_report.clone()), Err(SrtpError::Replayed));
        assert!(receiver.unprotect_rtcp(&mut protected_rtcp(&mut sender, &rtcp(1))).is_ok());
        exchange(&mut sender, &mut receiver, 6..6 + 510);
        assert!(receiver.unprotect(&mut very_late.clone()).is_ok());
        exchange(&mut sender, &mut receiver, [516]);
        assert!(receiver.unprotect(&mut too_late.clone()).is_err());
        exchange(&mut sender, &mut receiver, 517..600);
    }
}

#[test]
fn a_refused_offer_restores_the_former_key_with_its_state() {
    let suite = CryptoSuite::AesCm128HmacSha1_80;
    let (mut sender, mut receiver) = (sender(suite), receiver(suite));
    exchange(&mut sender, &mut receiver, [0xffff, 0, 1]);
    receiver.replace_key(key(suite, 8), None);
    sender.replace_key(key(suite, 8), None);
    exchange(&mut sender, &mut receiver, [2, 3]);
    receiver.replace_key(key(suite, 7), None);
    sender.replace_key(key(suite, 7), None);
    // Otherwise this packet would be encrypted with a key stream that is used up.
    assert_eq!(sender.protect(&mut rtp(1, 1)), Err(SrtpError::OutOfOrder));
    exchange(&mut sender, &mut receiver, [4, 5]);
}

#[test]
fn a_new_suite_with_the_same_key_goes_on_counting() {
    let (long, short) = (CryptoSuite::AesCm128HmacSha1_80, CryptoSuite::AesCm128HmacSha1_32);
    let (mut sender, mut receiver) = (sender(long), receiver(long));
    exchange(&mut sender, &mut receiver, [0xffff, 0, 1]);
    sender.replace_key(key(short, 7), None);
    receiver.replace_key(key(short, 7), None);
    assert_eq!(sender.protect(&mut rtp(1, 1)), Err(SrtpError::OutOfOrder));
    assert_eq!(protected(&mut sender, &rtp(1, 2)).len(), rtp(1, 2).len() + short.tag_len());
    exchange(&mut sender, &mut receiver, [3, 4]);
}
