//! Session keys from master keys: AES_CM_PRF (RFC 3711 section 4.3), AES_256_CM_PRF (RFC 6188
//! section 3), and the same for AES-GCM (RFC 7714 section 11). The key derivation rate is 0.

use zeroize::Zeroizing;

use super::{MasterKey, aes_counter::AesCounter};

/// Which protocol a session key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Srtp,
    Srtcp,
}

/// The session keys of one protocol.
pub(super) struct Derived {
    /// The cipher's key.
    pub(super) encryption: Zeroizing<Vec<u8>>,
    /// The key of HMAC-SHA1; not used with AEAD.
    pub(super) authentication: Zeroizing<Vec<u8>>,
    /// The salt of the initialization vectors.
    pub(super) salt: Zeroizing<Vec<u8>>,
}

/// The length of the key of HMAC-SHA1 (RFC 3711 section 5.2).
const AUTHENTICATION_KEY_LEN: usize = 20;

/// Derives the session keys of one protocol.
pub(super) fn derive(master: &MasterKey, protocol: Protocol) -> Derived {
    let first = match protocol {
        Protocol::Srtp => 0,
        Protocol::Srtcp => 3,
    };
    Derived {
        encryption: pseudo_random(master, first, master.suite().key_len()),
        authentication: pseudo_random(master, first + 1, AUTHENTICATION_KEY_LEN),
        salt: pseudo_random(master, first + 2, master.suite().salt_len()),
    }
}

/// The first `len` bytes of the pseudo-random function for this label.
fn pseudo_random(master: &MasterKey, label: u8, len: usize) -> Zeroizing<Vec<u8>> {
    // A master salt of 96 bits is padded on the right to 112 (RFC 7714 section 11). The last two
    // bytes are the block counter.
    let mut block = Zeroizing::new([0; 16]);
    block[..master.salt().len()].copy_from_slice(master.salt());
    block[7] ^= label;
    let mut derived = Zeroizing::new(vec![0; len]);
    AesCounter::new(master.key()).apply(*block, &mut derived);
    derived
}
