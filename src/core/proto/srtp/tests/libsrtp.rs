//! Packets of libsrtp 2.7.0, the reference implementation, for each suite: a stream that wraps,
//! with CSRCs, extension and padding, and two SRTCP packets.
//!
//! Each `suite` line of the file has a suite with its master key and salt; the `rtp` and `rtcp`
//! lines below it have a packet, and the same packet protected by libsrtp in this order.

use crate::proto::srtp::{CryptoSuite, MasterKey, Mki, SrtpError, SrtpReceiver, SrtpSender};

const PACKETS: &str = include_str!("libsrtp.txt");

struct Recording {
    key: MasterKey,
    /// Whether it is RTCP, the packet, and the protected packet.
    packets: Vec<(bool, Vec<u8>, Vec<u8>)>,
}

fn recordings() -> Vec<Recording> {
    let mut recordings: Vec<Recording> = Vec::new();
    for line in PACKETS.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [kind, first, second] = words[..] else { panic!("{line}") };
        let bytes = hex::decode(second).unwrap();
        if kind == "suite" {
            let suite = CryptoSuite::from_name(first).unwrap();
            let key = MasterKey::from_bytes(suite, &bytes).unwrap();
            recordings.push(Recording { key, packets: Vec::new() });
        } else {
            let packet = (kind == "rtcp", hex::decode(first).unwrap(), bytes);
            recordings.last_mut().unwrap().packets.push(packet);
        }
    }
    recordings
}

fn unprotect(
    receiver: &mut SrtpReceiver,
    is_rtcp: bool,
    packet: &[u8],
) -> Result<Vec<u8>, SrtpError> {
    let mut packet = packet.to_vec();
    let result = match is_rtcp {
        true => receiver.unprotect_rtcp(&mut packet),
        false => receiver.unprotect(&mut packet),
    };
    result.map(|packet| packet.to_vec())
}

#[test]
fn packets_of_libsrtp_are_read() {
    let recordings = recordings();
    assert_eq!(recordings.len(), CryptoSuite::ALL.len());
    for Recording { key, packets } in recordings {
        let mut receiver = SrtpReceiver::new(key, None);
        for (is_rtcp, plain, protected) in &packets {
            let read = unprotect(&mut receiver, *is_rtcp, protected);
            assert_eq!(read.as_ref(), Ok(plain), "{receiver:?}");
        }
        for (is_rtcp, _, protected) in &packets {
            let read = unprotect(&mut receiver, *is_rtcp, protected);
            assert_eq!(read, Err(SrtpError::Replayed), "{receiver:?}");
        }
    }
}

#[test]
fn packets_are_protected_as_by_libsrtp() {
    for Recording { key, packets } in recordings() {
        let mut sender = SrtpSender::new(key, None);
        // The first SRTCP index of libsrtp is 1, that of RFC 3711 is 0.
        let (_, rtcp, _) = packets.iter().find(|(is_rtcp, ..)| *is_rtcp).unwrap();
        sender.protect_rtcp(&mut rtcp.clone()).unwrap();
        for (is_rtcp, plain, protected) in packets {
            let mut packet = plain;
            let result = match is_rtcp {
                true => sender.protect_rtcp(&mut packet),
                false => sender.protect(&mut packet),
            };
            assert_eq!(result.map(|()| packet), Ok(protected), "{sender:?}");
        }
    }
}

/// The MKI is not authenticated: it stands before the tag of HMAC-SHA1, and behind that of AES-GCM.
#[test]
fn the_mki_stands_where_libsrtp_puts_it() {
    let mki = Mki::new(0x2a, 4).unwrap();
    for Recording { key, packets } in recordings() {
        let suite = key.suite();
        let mut receiver = SrtpReceiver::new(key.clone(), Some(mki));
        let mut sender = SrtpSender::new(key, Some(mki));
        let (_, rtcp, _) = packets.iter().find(|(is_rtcp, ..)| *is_rtcp).unwrap();
        sender.protect_rtcp(&mut rtcp.clone()).unwrap();
        for (is_rtcp, plain, protected) in packets {
            let place = match (suite.is_aead(), is_rtcp) {
                (true, _) => protected.len(),
                (false, true) => protected.len() - suite.rtcp_tag_len(),
                (false, false) => protected.len() - suite.tag_len(),
            };
            let mut with_mki = protected.clone();
            with_mki.splice(place..place, [0, 0, 0, 0x2a]);
            let mut packet = plain.clone();
            let result = match is_rtcp {
                true => sender.protect_rtcp(&mut packet),
                false => sender.protect(&mut packet),
            };
            assert_eq!(result.map(|()| packet), Ok(with_mki.clone()), "{sender:?}");
            let mut wrong = with_mki.clone();
            wrong[place + 3] = 0x2b;
            let read = unprotect(&mut receiver, is_rtcp, &wrong);
            assert_eq!(read, Err(SrtpError::WrongMki), "{receiver:?}");
            assert_eq!(unprotect(&mut receiver, is_rtcp, &with_mki), Ok(plain), "{receiver:?}");
        }
    }
}
