//! Examples of the RFCs, packets of libsrtp, and streams of packets with all that a network does to
//! them.

mod examples;
mod libsrtp;
mod rekeying;
mod streams;

use super::{CryptoSuite, MasterKey, SrtpReceiver, SrtpSender};
use crate::proto::rtp::{PayloadType, RtpTimestamp, SeqNo, Ssrc, packet::Header};

/// A key whose bytes all have this value.
fn key(suite: CryptoSuite, value: u8) -> MasterKey {
    let bytes = vec![value; suite.key_len() + suite.salt_len()];
    MasterKey::from_bytes(suite, &bytes).unwrap()
}

fn sender(suite: CryptoSuite) -> SrtpSender {
    SrtpSender::new(key(suite, 7), None)
}

fn receiver(suite: CryptoSuite) -> SrtpReceiver {
    SrtpReceiver::new(key(suite, 7), None)
}

/// An RTP packet whose payload depends on its sequence number.
fn rtp(ssrc: u32, sequence: u16) -> Vec<u8> {
    let header = Header {
        marker: false,
        payload_type: PayloadType::PCMU,
        sequence: SeqNo(sequence),
        timestamp: RtpTimestamp(u32::from(sequence) * 160),
        ssrc: Ssrc(ssrc),
    };
    let mut packet = Vec::new();
    header.write(&mut packet);
    packet.extend((0..20).map(|byte| sequence as u8 ^ byte));
    packet
}

/// An empty receiver report and a source description.
fn rtcp(ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0x81, 202, 0, 3]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend(b"\x01\x04user\0\0");
    packet
}

fn protected(sender: &mut SrtpSender, packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    sender.protect(&mut packet).unwrap();
    packet
}

fn protected_rtcp(sender: &mut SrtpSender, packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    sender.protect_rtcp(&mut packet).unwrap();
    packet
}
