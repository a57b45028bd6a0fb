//! The STUN messages of ICE (RFC 8489, RFC 8445 section 7): connectivity checks of the peer, and
//! our answers.
//!
//! Input: a datagram. Output: the check in it, and the bytes of an answer. Pure; who may check is
//! decided in [`ice_lite`](super::ice_lite).

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};

/// RFC 8489 section 5: distinguishes STUN from other protocols.
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
/// RFC 8489 section 5: type, length, cookie and transaction id.
const HEADER_BYTES: usize = 20;
/// The cookie and the transaction id.
const COOKIE_AND_ID: usize = 16;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const PRIORITY: u16 = 0x0024;
const USE_CANDIDATE: u16 = 0x0025;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
/// RFC 8489 section 14: the receiver must understand all attributes below this number.
const COMPREHENSION_OPTIONAL: u16 = 0x8000;
/// RFC 8489 section 14.7: the CRC is XORed with this value.
const FINGERPRINT_MASK: u32 = 0x5354_554e;
/// RFC 8489 section 14.5: HMAC-SHA1.
const INTEGRITY_BYTES: usize = 20;
/// The length of MESSAGE-INTEGRITY with its header.
const INTEGRITY_ATTRIBUTE: usize = 4 + INTEGRITY_BYTES;
/// The length of FINGERPRINT with its header.
const FINGERPRINT_ATTRIBUTE: usize = 8;

/// A connectivity check: a Binding request with USERNAME, MESSAGE-INTEGRITY and a correct
/// FINGERPRINT. Its MESSAGE-INTEGRITY is not verified yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct BindingRequest<'a> {
    /// The user name: that of the receiver, a colon, and that of the sender.
    pub(super) username: &'a [u8],
    /// Whether the sender nominates the pair of addresses (RFC 8445 section 7.1.1).
    pub(super) use_candidate: bool,
    /// Whether the sender believes that it is the controlled agent.
    pub(super) is_controlled: bool,
    message: &'a [u8],
    /// Where MESSAGE-INTEGRITY begins in the message.
    integrity_at: usize,
}

/// Why a datagram is not a connectivity check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotACheck {
    /// Another message, or one that cannot be read.
    Malformed,
    /// A Binding request without USERNAME, MESSAGE-INTEGRITY or FINGERPRINT, or with an attribute
    /// that would have to be understood.
    NotIce,
}

impl<'a> BindingRequest<'a> {
    /// Reads a datagram. Compares FINGERPRINT, which costs a CRC.
    ///
    /// # Errors
    /// Why it is not a connectivity check.
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, NotACheck> {
        let (header, mut attributes) =
            message.split_at_checked(HEADER_BYTES).ok_or(NotACheck::Malformed)?;
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if header[..2] != BINDING_REQUEST.to_be_bytes()
            || header[4..8] != MAGIC_COOKIE
            || length != attributes.len()
        {
            return Err(NotACheck::Malformed);
        }
        let (mut username, mut integrity_at) = (None, None);
        let (mut use_candidate, mut is_controlled) = (false, false);
        while let [kind_high, kind_low, length_high, length_low, rest @ ..] = attributes {
            let kind = u16::from_be_bytes([*kind_high, *kind_low]);
            let length = usize::from(u16::from_be_bytes([*length_high, *length_low]));
            let at = message.len() - attributes.len();
            let value = rest.get(..length).ok_or(NotACheck::Malformed)?;
            // Each value is padded to four bytes.
            attributes = rest.get(length.next_multiple_of(4)..).ok_or(NotACheck::Malformed)?;
            match kind {
                FINGERPRINT => {
                    // It is the last attribute.
                    if !attributes.is_empty() || value != fingerprint(&message[..at]) {
                        return Err(NotACheck::Malformed);
                    }
                    return match (username, integrity_at) {
                        (Some(username), Some(integrity_at)) => Ok(Self {
                            username,
                            use_candidate,
                            is_controlled,
                            message,
                            integrity_at,
                        }),
                        _ => Err(NotACheck::NotIce),
                    };
                }
                // RFC 8489 section 14.5: what follows MESSAGE-INTEGRITY is not protected.
                _ if integrity_at.is_some() => {}
                USERNAME => username = Some(value),
                MESSAGE_INTEGRITY if length == INTEGRITY_BYTES => integrity_at = Some(at),
                USE_CANDIDATE => use_candidate = true,
                ICE_CONTROLLED => is_controlled = true,
                PRIORITY => {}
                kind if kind < COMPREHENSION_OPTIONAL => return Err(NotACheck::NotIce),
                _ => {}
            }
        }
        Err(if attributes.is_empty() { NotACheck::NotIce } else { NotACheck::Malformed })
    }

    /// Whether MESSAGE-INTEGRITY was made with this key: the receiver's password.
    pub(super) fn is_from_holder_of(&self, key: &hmac::Key) -> bool {
        let (protected, rest) = self.message.split_at(self.integrity_at);
        let tag = integrity(key, protected);
        rest.get(4..INTEGRITY_ATTRIBUTE)
            .is_some_and(|sent| verify_slices_are_equal(tag.as_ref(), sent).is_ok())
    }

    /// The success response: 64 bytes to an IPv4 address, 76 to an IPv6 address. A check has more.
    pub(super) fn success(&self, from: SocketAddr, key: &hmac::Key) -> Vec<u8> {
        let mask = &self.message[4..HEADER_BYTES];
        let port = from.port() ^ u16::from_be_bytes([MAGIC_COOKIE[0], MAGIC_COOKIE[1]]);
        let mut value = vec![0];
        let masked = |octets: &[u8]| -> Vec<u8> {
            octets.iter().zip(mask).map(|(octet, mask)| octet ^ mask).collect()
        };
        let (family, address) = match from.ip().to_canonical() {
            IpAddr::V4(ip) => (1, masked(&ip.octets())),
            IpAddr::V6(ip) => (2, masked(&ip.octets())),
        };
        value.push(family);
        value.extend(port.to_be_bytes());
        value.extend(address);
        answer(BINDING_SUCCESS, mask, (XOR_MAPPED_ADDRESS, &value), key)
    }

    /// The response 487 (Role Conflict, RFC 8445 section 7.3.1.1): 60 bytes.
    pub(super) fn role_conflict(&self, key: &hmac::Key) -> Vec<u8> {
        // RFC 8489 section 14.8: class and number; the reason phrase may be empty.
        let code = (ERROR_CODE, &[0, 0, 4, 87][..]);
        answer(BINDING_ERROR, &self.message[4..HEADER_BYTES], code, key)
    }
}

/// A key for MESSAGE-INTEGRITY with short-term credentials (RFC 8489 section 9.1.1).
pub(super) fn integrity_key(password: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes())
}

/// An answer with one attribute, MESSAGE-INTEGRITY and FINGERPRINT.
fn answer(kind: u16, cookie_and_id: &[u8], attribute: (u16, &[u8]), key: &hmac::Key) -> Vec<u8> {
    message(kind, cookie_and_id, &[attribute], key)
}

/// A message with these attributes, MESSAGE-INTEGRITY and FINGERPRINT.
fn message(
    kind: u16,
    cookie_and_id: &[u8],
    attributes: &[(u16, &[u8])],
    key: &hmac::Key,
) -> Vec<u8> {
    let mut message = Vec::with_capacity(128);
    message.extend(kind.to_be_bytes());
    message.extend([0, 0]);
    message.extend(&cookie_and_id[..COOKIE_AND_ID]);
    for (kind, value) in attributes {
        push(&mut message, *kind, value);
    }
    let tag = integrity(key, &message);
    push(&mut message, MESSAGE_INTEGRITY, tag.as_ref());
    let crc = fingerprint(&message);
    push(&mut message, FINGERPRINT, &crc);
    let length = length_field(message.len());
    message[2..4].copy_from_slice(&length);
    message
}

fn push(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// The length field of a message with this many bytes.
fn length_field(message: usize) -> [u8; 2] {
    u16::try_from(message.saturating_sub(HEADER_BYTES)).unwrap_or(u16::MAX).to_be_bytes()
}

/// HMAC over what precedes MESSAGE-INTEGRITY, with the length field as if that attribute were the
/// last one (RFC 8489 section 14.5).
fn integrity(key: &hmac::Key, protected: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(&protected[..2]);
    context.update(&length_field(protected.len() + INTEGRITY_ATTRIBUTE));
    context.update(&protected[4..]);
    context.sign()
}

/// The value of FINGERPRINT behind these bytes, with the length field as if it were the last
/// attribute (RFC 8489 section 14.7).
fn fingerprint(before: &[u8]) -> [u8; 4] {
    let length = length_field(before.len() + FINGERPRINT_ATTRIBUTE);
    let crc = crc32(before[..2].iter().chain(&length).chain(&before[4..]));
    (crc ^ FINGERPRINT_MASK).to_be_bytes()
}

/// CRC-32 as in Ethernet (ITU-T V.42).
fn crc32<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    let crc = bytes.fold(u32::MAX, |crc, byte| {
        CRC_TABLE[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ (crc >> 8)
    });
    !crc
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = (value >> 1) ^ (if value & 1 == 1 { 0xedb8_8320 } else { 0 });
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A check as a browser sends it.
    pub(in super::super) fn check(
        username: &str,
        password: &str,
        id: u8,
        more: &[(u16, &[u8])],
    ) -> Vec<u8> {
        let mut head = MAGIC_COOKIE.to_vec();
        head.resize(COOKIE_AND_ID, id);
        let username = (USERNAME, username.as_bytes());
        let priority = (PRIORITY, &[0x6e, 0x7f, 0x1e, 0xff][..]);
        let attributes = [&[username, priority], more].concat();
        message(BINDING_REQUEST, &head, &attributes, &integrity_key(password))
    }

    pub(in super::super) const NOMINATE: (u16, &[u8]) = (USE_CANDIDATE, &[]);
    pub(in super::super) const CONTROLLED: (u16, &[u8]) = (ICE_CONTROLLED, &[1; 8]);

    /// The request of RFC 5769 section 2.1.
    const SAMPLE: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c\
        69656e74002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149a\
        eaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf";
    const SAMPLE_PASSWORD: &str = "VOkJxbRl1RmTxUk/WvJxBt";

    fn sample() -> Vec<u8> {
        hex::decode(SAMPLE).unwrap()
    }

    #[test]
    fn the_sample_request_of_rfc_5769_is_read() {
        let message = sample();
        let request = BindingRequest::parse(&message).unwrap();
        assert_eq!(request.username, b"evtj:h6vY");
        assert!(request.is_controlled);
        assert!(!request.use_candidate);
        assert!(request.is_from_holder_of(&integrity_key(SAMPLE_PASSWORD)));
        assert!(!request.is_from_holder_of(&integrity_key("VOkJxbRl1RmTxUk/WvJxBu")));
    }

    #[test]
    fn the_answer_to_the_sample_is_that_of_rfc_5769_without_software() {
        // RFC 5769 section 2.2 has a SOFTWARE attribute, so integrity and CRC differ.
        let message = sample();
        let request = BindingRequest::parse(&message).unwrap();
        let answer =
            request.success("192.0.2.1:32853".parse().unwrap(), &integrity_key(SAMPLE_PASSWORD));
        assert_eq!(answer.len(), 64);
        let mapped = hex::decode("002000080001a147e112a643").unwrap();
        assert_eq!(answer[HEADER_BYTES..HEADER_BYTES + 12], mapped);
        assert_eq!(answer[..4], [1, 1, 0, 44]);
        assert_eq!(answer[4..HEADER_BYTES], message[4..HEADER_BYTES]);
        let from = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();
        let answer = request.success(from, &integrity_key(SAMPLE_PASSWORD));
        assert_eq!(answer.len(), 76);
        let mapped = hex::decode("002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9").unwrap();
        assert_eq!(answer[HEADER_BYTES..HEADER_BYTES + 24], mapped);
    }

    #[test]
    fn our_own_messages_are_read_again() {
        let message = check("ours:theirs", "a password of 22 bytes", 7, &[NOMINATE]);
        let request = BindingRequest::parse(&message).unwrap();
        assert!(request.use_candidate);
        assert!(request.is_from_holder_of(&integrity_key("a password of 22 bytes")));
        assert_eq!(request.role_conflict(&integrity_key("a password of 22 bytes")).len(), 60);
        assert!(message.len() >= 76, "{}", message.len());
    }

    #[test]
    fn any_changed_or_missing_byte_is_noticed() {
        let message = sample();
        for at in 0..message.len() {
            for bit in 0..8 {
                let mut changed = message.clone();
                changed[at] ^= 1 << bit;
                assert!(BindingRequest::parse(&changed).is_err(), "{at}");
            }
            assert!(BindingRequest::parse(&message[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn requests_that_are_not_of_ice_are_named_as_such() {
        let bare = [&BINDING_REQUEST.to_be_bytes()[..], &[0, 0], &MAGIC_COOKIE, &[0; 12]].concat();
        assert_eq!(BindingRequest::parse(&bare).unwrap_err(), NotACheck::NotIce);
        // CHANGE-REQUEST must be understood.
        let strange = check("a:b", "password", 1, &[(3, &[0; 4])]);
        assert_eq!(BindingRequest::parse(&strange).unwrap_err(), NotACheck::NotIce);
        // What is appended behind MESSAGE-INTEGRITY does not count.
        assert!(!BindingRequest::parse(&sample()).unwrap().use_candidate);
    }
}
