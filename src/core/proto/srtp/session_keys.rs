//! The session keys of one master key, and the parts of a packet that they encrypt and
//! authenticate. Which packets are accepted is decided in `receiver`.

use std::{fmt, ops::Range};

use super::{
    MasterKey, Mki, SrtpError,
    derivation::Protocol,
    index,
    packet::{RTCP_HEADER_LEN, RtpFields, rtcp_ssrc},
    transform::SrtpTransform,
};
use crate::proto::rtp::Ssrc;

/// The E flag: whether an SRTCP packet is encrypted (RFC 3711 section 3.4).
const ENCRYPTED: u32 = 1 << 31;
/// The length of the word with the E flag and the SRTCP index.
const WORD_LEN: usize = 4;

/// The session keys of one master key, for both protocols.
pub(super) struct SessionKeys {
    master: MasterKey,
    mki: Option<Mki>,
    srtp: SrtpTransform,
    srtcp: SrtpTransform,
}

/// What is known of an SRTP packet before it is authenticated.
#[derive(Debug, Clone)]
pub(super) struct SrtpFields {
    /// The header.
    pub(super) rtp: RtpFields,
    parts: Parts,
}

/// What is known of an SRTCP packet before it is authenticated.
#[derive(Debug, Clone)]
pub(super) struct SrtcpFields {
    /// The SSRC of the sender of the compound packet.
    pub(super) ssrc: Ssrc,
    /// 31 bits.
    pub(super) index: u32,
    is_encrypted: bool,
    parts: Parts,
}

/// Where the parts of a protected packet are.
#[derive(Debug, Clone)]
struct Parts {
    /// The end of the RTP or RTCP packet without what was appended.
    end: usize,
    tag: Range<usize>,
    /// The E flag and the SRTCP index; empty in SRTP.
    word: Range<usize>,
    mki: Range<usize>,
}

impl SessionKeys {
    /// Derives the session keys.
    pub(super) fn new(master: MasterKey, mki: Option<Mki>) -> Self {
        let srtp = SrtpTransform::derive(&master, Protocol::Srtp);
        let srtcp = SrtpTransform::derive(&master, Protocol::Srtcp);
        Self { master, mki, srtp, srtcp }
    }

    /// Given session keys in place of derived ones, for the examples of RFC 7714.
    #[cfg(test)]
    pub(super) fn of_transforms(
        master: MasterKey,
        srtp: SrtpTransform,
        srtcp: SrtpTransform,
    ) -> Self {
        Self { master, mki: None, srtp, srtcp }
    }

    /// Whether they come from this master key. Its suite and the MKI may differ.
    pub(super) fn are_of(&self, master: &MasterKey) -> bool {
        self.master.has_bytes_of(master)
    }

    /// Encrypts an RTP packet; appends tag and MKI.
    pub(super) fn protect(&self, packet: &mut Vec<u8>, fields: &RtpFields, index: u64) {
        let (header, payload) = packet.split_at_mut(fields.payload_offset);
        match &self.srtp {
            SrtpTransform::CounterMode(mode) => {
                mode.apply(fields.ssrc, index, payload);
                let tag = mode.tag(packet, &index::roc(index));
                self.append_mki(packet);
                packet.extend(&tag[..mode.tag_len()]);
            }
            SrtpTransform::Gcm(mode) => {
                let tag = mode.seal(fields.ssrc, index, header, payload);
                packet.extend(tag.as_ref());
                self.append_mki(packet);
            }
        }
    }

    /// Reads the header of an SRTP packet, and checks the MKI.
    ///
    /// # Errors
    /// [`SrtpError::TooShort`], [`SrtpError::Malformed`] or [`SrtpError::WrongMki`].
    pub(super) fn read(&self, packet: &[u8]) -> Result<SrtpFields, SrtpError> {
        let parts = self.parts(&self.srtp, packet.len(), 0)?;
        let rtp = RtpFields::read(&packet[..parts.end])?;
        self.check_mki(&packet[parts.mki.clone()])?;
        Ok(SrtpFields { rtp, parts })
    }

    /// Authenticates and decrypts, in place, the SRTP packet from which `fields` were read. Returns
    /// the length of the RTP packet. After an error the bytes are unchanged.
    ///
    /// # Errors
    /// [`SrtpError::Authentication`].
    pub(super) fn unprotect(
        &self,
        packet: &mut [u8],
        fields: &SrtpFields,
        index: u64,
        scratch: &mut Vec<u8>,
    ) -> Result<usize, SrtpError> {
        let (rtp, parts) = (&fields.rtp, &fields.parts);
        match &self.srtp {
            SrtpTransform::CounterMode(mode) => {
                let tag = &packet[parts.tag.clone()];
                mode.verify(&packet[..parts.end], &index::roc(index), tag)?;
                mode.apply(rtp.ssrc, index, &mut packet[rtp.payload_offset..parts.end]);
            }
            SrtpTransform::Gcm(mode) => {
                let (header, payload, tag) = parts.split(packet, rtp.payload_offset);
                mode.open(rtp.ssrc, index, header, payload, tag, scratch)?;
            }
        }
        Ok(parts.end)
    }

    /// Encrypts an RTCP compound packet; appends tag, E flag with index, and MKI.
    pub(super) fn protect_rtcp(&self, packet: &mut Vec<u8>, ssrc: Ssrc, index: u32) {
        let word = (ENCRYPTED | index).to_be_bytes();
        let (header, payload) = packet.split_at_mut(RTCP_HEADER_LEN);
        match &self.srtcp {
            SrtpTransform::CounterMode(mode) => {
                mode.apply(ssrc, index.into(), payload);
                packet.extend(word);
                let tag = mode.tag(packet, &[]);
                self.append_mki(packet);
                packet.extend(&tag[..mode.tag_len()]);
            }
            SrtpTransform::Gcm(mode) => {
                let tag = mode.seal(ssrc, index.into(), &with_word(header, &word), payload);
                packet.extend(tag.as_ref());
                packet.extend(word);
                self.append_mki(packet);
            }
        }
    }

    /// Reads the header and the index of an SRTCP packet, and checks the MKI.
    ///
    /// # Errors
    /// [`SrtpError::TooShort`], [`SrtpError::Malformed`] or [`SrtpError::WrongMki`].
    pub(super) fn read_rtcp(&self, packet: &[u8]) -> Result<SrtcpFields, SrtpError> {
        let parts = self.parts(&self.srtcp, packet.len(), WORD_LEN)?;
        let ssrc = rtcp_ssrc(&packet[..parts.end])?;
        self.check_mki(&packet[parts.mki.clone()])?;
        let bytes = &packet[parts.word.clone()];
        let word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
        let (index, is_encrypted) = (word & !ENCRYPTED, word & ENCRYPTED != 0);
        Ok(SrtcpFields { ssrc, index, is_encrypted, parts })
    }

    /// Authenticates and decrypts, in place, the SRTCP packet from which `fields` were read.
    /// Returns the length of the RTCP packet. After an error the bytes are unchanged.
    ///
    /// # Errors
    /// [`SrtpError::Authentication`].
    pub(super) fn unprotect_rtcp(
        &self,
        packet: &mut [u8],
        fields: &SrtcpFields,
        scratch: &mut Vec<u8>,
    ) -> Result<usize, SrtpError> {
        let (ssrc, index, parts) = (fields.ssrc, fields.index.into(), &fields.parts);
        match &self.srtcp {
            SrtpTransform::CounterMode(mode) => {
                mode.verify(&packet[..parts.word.end], &[], &packet[parts.tag.clone()])?;
                if fields.is_encrypted {
                    mode.apply(ssrc, index, &mut packet[RTCP_HEADER_LEN..parts.end]);
                }
            }
            SrtpTransform::Gcm(mode) if fields.is_encrypted => {
                let associated = with_word(packet, &packet[parts.word.clone()]);
                let (_, payload, tag) = parts.split(packet, RTCP_HEADER_LEN);
                mode.open(ssrc, index, &associated, payload, tag, scratch)?;
            }
            SrtpTransform::Gcm(mode) => {
                scratch.clear();
                scratch.extend(&packet[..parts.end]);
                scratch.extend(&packet[parts.word.clone()]);
                let tag = &packet[parts.tag.clone()];
                mode.open(ssrc, index, scratch, &mut [], tag, &mut Vec::new())?;
            }
        }
        Ok(parts.end)
    }

    /// Finds the parts of a packet of `len` bytes, of which `word_len` are the E flag and the
    /// index.
    ///
    /// The tag of counter mode is the last part. That of AES-GCM follows the encrypted part, and
    /// the MKI is the last part (RFC 7714 sections 8.2 and 9.2).
    fn parts(
        &self,
        transform: &SrtpTransform,
        len: usize,
        word_len: usize,
    ) -> Result<Parts, SrtpError> {
        let (mki_len, tag_len) = (self.mki.map_or(0, Mki::length), transform.tag_len());
        let end = len.checked_sub(tag_len + word_len + mki_len).ok_or(SrtpError::TooShort)?;
        let (tag, word, mki) = match transform {
            SrtpTransform::CounterMode(_) => {
                let mki = end + word_len;
                (mki + mki_len, end, mki)
            }
            SrtpTransform::Gcm(_) => (end, end + tag_len, end + tag_len + word_len),
        };
        let part = |begin, len| begin..begin + len;
        Ok(Parts {
            end,
            tag: part(tag, tag_len),
            word: part(word, word_len),
            mki: part(mki, mki_len),
        })
    }

    fn append_mki(&self, packet: &mut Vec<u8>) {
        if let Some(mki) = self.mki {
            mki.write(packet);
        }
    }

    fn check_mki(&self, bytes: &[u8]) -> Result<(), SrtpError> {
        if self.mki.is_none_or(|mki| mki.is(bytes)) { Ok(()) } else { Err(SrtpError::WrongMki) }
    }
}

impl Parts {
    /// The header of a packet, its encrypted part, and its tag if that follows.
    fn split<'a>(&self, packet: &'a mut [u8], header: usize) -> (&'a [u8], &'a mut [u8], &'a [u8]) {
        let (packet, appended) = packet.split_at_mut(self.end);
        let (header, payload) = packet.split_at_mut(header);
        (header, payload, &appended[..self.tag.len()])
    }
}

/// The associated data of an encrypted SRTCP packet with AES-GCM: its header and the word with the
/// E flag (RFC 7714 section 9.2).
fn with_word(packet: &[u8], word: &[u8]) -> [u8; RTCP_HEADER_LEN + WORD_LEN] {
    let mut associated = [0; RTCP_HEADER_LEN + WORD_LEN];
    associated[..RTCP_HEADER_LEN].copy_from_slice(&packet[..RTCP_HEADER_LEN]);
    associated[RTCP_HEADER_LEN..].copy_from_slice(word);
    associated
}

impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { master, mki, .. } = self;
        f.debug_struct("SessionKeys")
            .field("master", master)
            .field("mki", mki)
            .finish_non_exhaustive()
    }
}
