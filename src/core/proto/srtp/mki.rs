//! Master key identifiers.

/// The bytes that can be compared with a `u128`.
const VALUE_LEN: usize = size_of::<u128>();

/// A master key identifier (RFC 3711 section 3.1): a number that its sender appends to each packet
/// if it has announced one in SDP (RFC 4568 section 6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mki {
    value: u128,
    len: u8,
}

impl Mki {
    /// The identifier `value` in `len` bytes, most significant byte first. `None` if `len` is not
    /// 1 to 128 or the value does not fit into it.
    pub const fn new(value: u128, len: u8) -> Option<Self> {
        let fits = len as usize >= VALUE_LEN || value >> (8 * len as u32) == 0;
        if len >= 1 && len <= 128 && fits { Some(Self { value, len }) } else { None }
    }

    /// The number.
    pub const fn value(self) -> u128 {
        self.value
    }

    /// Its length in packets, in bytes: 1 to 128.
    pub const fn length(self) -> usize {
        self.len as usize
    }

    /// Appends the identifier to a packet.
    pub(super) fn write(self, packet: &mut Vec<u8>) {
        let value = self.value.to_be_bytes();
        packet.resize(packet.len() + self.length().saturating_sub(VALUE_LEN), 0);
        packet.extend(&value[VALUE_LEN.saturating_sub(self.length())..]);
    }

    /// Whether these bytes of a packet are the identifier.
    pub(super) fn is(self, bytes: &[u8]) -> bool {
        let (zeros, value) = bytes.split_at(bytes.len().saturating_sub(VALUE_LEN));
        let read = value.iter().fold(0, |read, byte| read << 8 | u128::from(*byte));
        bytes.len() == self.length() && read == self.value && zeros.iter().all(|byte| *byte == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_has_its_announced_length() {
        for (value, len) in
            [(1, 1), (0x0102, 4), (7, 16), (u128::MAX, 16), (u128::MAX, 128), (0, 17)]
        {
            let mki = Mki::new(value, len).unwrap();
            let mut bytes = Vec::new();
            mki.write(&mut bytes);
            assert_eq!(bytes.len(), mki.length());
            assert!(mki.is(&bytes) && !mki.is(&bytes[1..]));
            for place in 0..bytes.len() {
                let mut other = bytes.clone();
                other[place] ^= 1;
                assert!(!mki.is(&other), "{mki:?}");
            }
        }
        let mut bytes = vec![9];
        Mki::new(0x0102, 4).unwrap().write(&mut bytes);
        assert_eq!(bytes, [9, 0, 0, 1, 2]);
        for (value, len) in [(256, 1), (0, 0), (0, 129), (1 << 120, 15)] {
            assert_eq!(Mki::new(value, len), None);
        }
    }
}
