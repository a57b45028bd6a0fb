//! Writes a trace as a capture file for Wireshark and sngrep. Each message becomes one UDP packet,
//! even if it was sent over a stream.
//!
//! Input: messages with their addresses and times. Output: the bytes of a classic pcap file with
//! raw IP packets. A message that does not fit into one packet is truncated.

use std::net::{IpAddr, SocketAddr};

use aftertone_core::model::UnixMillis;

/// Magic number of the classic format with microseconds; the file is little-endian.
const MAGIC: u32 = 0xa1b2_c3d4;
/// Link type: packets begin with their IP header.
const LINKTYPE_RAW: u32 = 101;
/// Protocol number of UDP in IPv4, and next header in IPv6.
const UDP: u8 = 17;
const UDP_HEADER: usize = 8;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Maximum length of an IP packet.
const MAX_PACKET: usize = 65_535;

/// One message with its addresses.
#[derive(Debug, Clone)]
pub(super) struct Packet<'a> {
    /// When it was sent or received.
    pub at: UnixMillis,
    /// Address of the sender.
    pub source: SocketAddr,
    /// Address of the receiver.
    pub destination: SocketAddr,
    /// Text of the message.
    pub payload: &'a [u8],
}

/// The bytes of the capture file.
pub(super) fn file<'a>(packets: impl Iterator<Item = Packet<'a>>) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(MAGIC.to_le_bytes());
    // Version 2.4; time zone and accuracy are zero.
    file.extend(2_u16.to_le_bytes());
    file.extend(4_u16.to_le_bytes());
    file.extend([0; 8]);
    file.extend((MAX_PACKET as u32).to_le_bytes());
    file.extend(LINKTYPE_RAW.to_le_bytes());
    for packet in packets {
        let bytes = datagram(&packet);
        let UnixMillis(at) = packet.at;
        let (seconds, rest) = (at.max(0) / 1_000, at.max(0) % 1_000);
        file.extend((seconds as u32).to_le_bytes());
        file.extend((rest as u32 * 1_000).to_le_bytes());
        // The packet is complete, so both lengths are equal.
        file.extend((bytes.len() as u32).to_le_bytes());
        file.extend((bytes.len() as u32).to_le_bytes());
        file.extend(bytes);
    }
    file
}

fn datagram(packet: &Packet<'_>) -> Vec<u8> {
    let (source, destination) = (packet.source.ip(), packet.destination.ip());
    let room = MAX_PACKET - IPV6_HEADER - UDP_HEADER;
    let payload = packet.payload.get(..room).unwrap_or(packet.payload);
    let length = UDP_HEADER + payload.len();
    let mut udp = Vec::with_capacity(length);
    udp.extend(packet.source.port().to_be_bytes());
    udp.extend(packet.destination.port().to_be_bytes());
    udp.extend((length as u16).to_be_bytes());
    udp.extend([0, 0]);
    udp.extend(payload);
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut ip = vec![0x45, 0];
            ip.extend(((IPV4_HEADER + length) as u16).to_be_bytes());
            // No identification, do not fragment, TTL 64; the checksum is filled in below.
            ip.extend([0, 0, 0x40, 0, 64, UDP, 0, 0]);
            ip.extend(source.octets());
            ip.extend(destination.octets());
            let sum = checksum(&ip).to_be_bytes();
            ip.splice(10..12, sum);
            // The UDP checksum is zero, which means that there is none (RFC 768).
            ip.extend(udp);
            ip
        }
        (source, destination) => {
            let octets = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                IpAddr::V6(ip) => ip.octets(),
            };
            let (source, destination) = (octets(source), octets(destination));
            // RFC 8200 section 8.1: UDP over IPv6 needs a checksum.
            let mut summed = [source, destination].concat();
            summed.extend((length as u32).to_be_bytes());
            summed.extend([0, 0, 0, UDP]);
            summed.extend(&udp);
            let sum = match checksum(&summed) {
                0 => 0xffff,
                sum => sum,
            };
            udp.splice(6..8, sum.to_be_bytes());
            let mut ip = vec![0x60, 0, 0, 0];
            ip.extend((length as u16).to_be_bytes());
            ip.extend([UDP, 64]);
            ip.extend(source);
            ip.extend(destination);
            ip.extend(udp);
            ip
        }
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        u32::from(u16::from_be_bytes([pair[0], low]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet<'a>(source: &str, destination: &str, payload: &'a [u8]) -> Packet<'a> {
        Packet {
            at: UnixMillis(1_700_000_000_123),
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            payload,
        }
    }

    #[test]
    fn each_message_is_one_packet_with_its_time_and_lengths() {
        let one = packet("192.0.2.1:5060", "192.0.2.2:5062", b"SIP");
        let file = file([one.clone(), one].into_iter());
        assert_eq!(file.len(), 24 + 2 * (16 + 20 + 8 + 3));
        let record = &file[24..];
        assert_eq!(record[..4], 1_700_000_000_u32.to_le_bytes());
        assert_eq!(record[4..8], 123_000_u32.to_le_bytes());
        assert_eq!(record[8..12], 31_u32.to_le_bytes());
        let ip = &record[16..36];
        assert_eq!(checksum(ip), 0, "a header with its checksum sums up to nothing");
        assert_eq!(&record[36..44], &[0x13, 0xc4, 0x13, 0xc6, 0, 11, 0, 0]);
        assert_eq!(&record[44..47], b"SIP");
    }

    #[test]
    fn over_ipv6_the_checksum_is_there() {
        let bytes = datagram(&packet("[2001:db8::1]:5060", "[2001:db8::2]:5060", b"SIPS!"));
        assert_eq!(bytes.len(), 40 + 8 + 5);
        let mut summed = bytes[8..40].to_vec();
        summed.extend(13_u32.to_be_bytes());
        summed.extend([0, 0, 0, UDP]);
        summed.extend(&bytes[40..]);
        assert_eq!(checksum(&summed), 0);
    }

    #[test]
    fn what_no_packet_can_carry_is_cut() {
        let long = vec![b'x'; 100_000];
        let bytes = datagram(&packet("192.0.2.1:1", "192.0.2.2:2", &long));
        assert!(bytes.len() <= MAX_PACKET);
    }
}
