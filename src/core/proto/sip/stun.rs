//! Keep-alives over UDP: answers STUN Binding requests on the SIP port (RFC 5626 §4.4.2, RFC 8489).
//!
//! Comes in: one datagram and its source address. Goes out: the Binding response with that address,
//! or nothing. There is no authentication and no other method; a request that asks for more than
//! the address gets no answer, as from a server without STUN.

use std::net::{IpAddr, SocketAddr};

/// RFC 8489 §5; distinguishes STUN from SIP, together with the first two bits.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// RFC 8489 §5: type, length, cookie and transaction id.
const HEADER_BYTES: usize = 20;
/// RFC 8489 §18.2, as a request.
const BINDING_REQUEST: u16 = 0x0001;
/// RFC 8489 §18.2, as a success response.
const BINDING_RESPONSE: u16 = 0x0101;
/// RFC 8489 §14.2.
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// RFC 8489 §14: the answering side must understand all attributes below this number.
const COMPREHENSION_OPTIONAL: u16 = 0x8000;

/// Whether this answer may be sent to a stranger. It has 32 bytes for IPv4 and 44 for IPv6, more
/// than the 20 of the shortest request. The source may be forged, so the answer must not be longer
/// than one and a half times the request. A client that we do not know has to add a SOFTWARE
/// attribute, or padding (RFC 5780 §7.6).
pub fn is_fair(request: &[u8], answer: &[u8]) -> bool {
    answer.len() <= request.len() / 2 * 3
}

/// The answer to `datagram` from `peer`; `None` when it is not a Binding request that we serve.
pub fn answer(datagram: &[u8], peer: SocketAddr) -> Option<Vec<u8>> {
    let (header, attributes) = datagram.split_at_checked(HEADER_BYTES)?;
    let is_binding = header.starts_with(&BINDING_REQUEST.to_be_bytes());
    let length = u16::from_be_bytes([*header.get(2)?, *header.get(3)?]);
    let cookie_and_id = header.get(4..)?;
    if !is_binding
        || !cookie_and_id.starts_with(&MAGIC_COOKIE)
        || usize::from(length) != attributes.len()
        || !all_optional(attributes)
    {
        return None;
    }
    // §14.2: the port is XORed with the cookie, the address with cookie and transaction id.
    let port = peer.port() ^ u16::from_be_bytes([MAGIC_COOKIE[0], MAGIC_COOKIE[1]]);
    let (family, address) = match peer.ip().to_canonical() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let address = address.iter().zip(cookie_and_id).map(|(byte, mask)| byte ^ mask);
    let mut value = vec![0, family];
    value.extend(port.to_be_bytes());
    value.extend(address);

    // Both lengths are at most 24, so they fit.
    let value_length = u16::try_from(value.len()).ok()?;
    let mut answer = Vec::with_capacity(HEADER_BYTES + 4 + value.len());
    answer.extend(BINDING_RESPONSE.to_be_bytes());
    answer.extend((value_length + 4).to_be_bytes());
    answer.extend(cookie_and_id);
    answer.extend(XOR_MAPPED_ADDRESS.to_be_bytes());
    answer.extend(value_length.to_be_bytes());
    answer.extend(value);
    Some(answer)
}

/// Whether the attributes can be read and none of them has to be understood.
fn all_optional(mut attributes: &[u8]) -> bool {
    while let [type_high, type_low, length_high, length_low, rest @ ..] = attributes {
        let attribute = u16::from_be_bytes([*type_high, *type_low]);
        let length = usize::from(u16::from_be_bytes([*length_high, *length_low]));
        // §14: each is padded to four bytes.
        let Some(rest) = rest.get(length.next_multiple_of(4)..) else { return false };
        if attribute < COMPREHENSION_OPTIONAL {
            return false;
        }
        attributes = rest;
    }
    attributes.is_empty()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: [u8; 12] = *b"transaction!";

    fn request(attributes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(attributes.len()).unwrap();
        let header = [BINDING_REQUEST.to_be_bytes(), length.to_be_bytes()].concat();
        [header.as_slice(), &MAGIC_COOKIE, &ID, attributes].concat()
    }

    fn peer(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_ipv4_peer_hears_its_address() {
        let answer = answer(&request(&[]), peer("192.0.2.1:32853")).unwrap();
        let expected = [
            &[0x01, 0x01, 0, 12][..],
            &MAGIC_COOKIE,
            &ID,
            // The address and port of RFC 5769 §2.2.
            &[0x00, 0x20, 0, 8, 0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43],
        ];
        assert_eq!(answer, expected.concat());
    }

    #[test]
    fn an_ipv6_peer_hears_its_address_and_a_mapped_one_is_ipv4() {
        let answered = answer(&request(&[]), peer("[2001:db8::1]:5060")).unwrap();
        assert_eq!((answered.len(), answered[25]), (44, 2));
        let mask = [&MAGIC_COOKIE[..], &ID].concat();
        let octets: Vec<u8> = answered[28..].iter().zip(mask).map(|(a, b)| a ^ b).collect();
        assert_eq!(octets, "2001:db8::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
        let mapped = answer(&request(&[]), peer("[::ffff:192.0.2.1]:32853"));
        assert_eq!(mapped, answer(&request(&[]), peer("192.0.2.1:32853")));
    }

    #[test]
    fn optional_attributes_are_passed_over() {
        // SOFTWARE "abc", padded, and an empty one.
        let attributes = [0x80, 0x22, 0, 3, b'a', b'b', b'c', 0, 0x80, 0x28, 0, 0];
        assert!(answer(&request(&attributes), peer("192.0.2.1:1")).is_some());
    }

    #[test]
    fn a_stranger_hears_no_more_than_half_as_much_again() {
        for (peer, attributes) in [("192.0.2.1:1", 4), ("[2001:db8::1]:1", 12)] {
            let bare = request(&[]);
            let bare_answer = answer(&bare, self::peer(peer)).unwrap();
            assert!(!is_fair(&bare, &bare_answer), "{peer}");
            let software =
                [&[0x80, 0x22, 0, attributes - 4][..], &[b' '; 12][..usize::from(attributes) - 4]];
            let longer = request(&software.concat());
            let longer_answer = answer(&longer, self::peer(peer)).unwrap();
            assert!(is_fair(&longer, &longer_answer), "{peer}");
        }
    }

    #[test]
    fn nothing_else_is_answered() {
        let plain = request(&[]);
        let indication = [&[0x00, 0x11], &plain[2..]].concat();
        let response = [&[0x01, 0x01], &plain[2..]].concat();
        let no_cookie = [&plain[..4], &[0; 4], &plain[8..]].concat();
        // CHANGE-REQUEST of RFC 3489.
        let change = request(&[0, 3, 0, 4, 0, 0, 0, 6]);
        let cut = request(&[0x80, 0x22, 0, 9, 1, 2, 3, 4]);
        let longer = [plain.as_slice(), b"x"].concat();
        for datagram in [&indication, &response, &no_cookie, &change, &cut, &longer] {
            assert_eq!(answer(datagram, peer("192.0.2.1:1")), None, "{datagram:?}");
        }
        assert_eq!(answer(b"OPTIONS sip:a@b SIP/2.0\r\n\r\n", peer("192.0.2.1:1")), None);
    }

    proptest! {
        #[test]
        fn no_datagram_makes_it_panic_or_shout(attributes in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Some(answer) = answer(&request(&attributes), peer("[2001:db8::1]:5060")) {
                prop_assert!(answer.len() <= 44);
            }
        }
    }
}
