//! The indices of sent packets.

use super::{
    MasterKey, Mki, SrtpError,
    history::KeyHistory,
    index,
    packet::{RtpFields, rtcp_ssrc},
};
use crate::proto::rtp::Ssrc;

/// The highest SRTCP index (RFC 3711 section 9.2).
const MAX_SRTCP_INDEX: u32 = (1 << 31) - 1;

/// Protects the RTP and RTCP packets that we send: the cryptographic contexts of one direction, for
/// all of our SSRCs (RFC 3711 section 3.2).
///
/// No key stream is used twice: sequence numbers have to grow, by less than 32,768 from packet to
/// packet, and the state of an SSRC is kept as long as the key.
#[derive(Debug)]
pub struct SrtpSender {
    history: KeyHistory<Vec<OutboundStream>>,
}

#[derive(Debug)]
struct OutboundStream {
    ssrc: Ssrc,
    /// The index of the last RTP packet.
    srtp: Option<u64>,
    /// The index of the next RTCP packet.
    srtcp: u32,
}

impl SrtpSender {
    /// A sender that protects packets with this key, and appends the MKI if there is one.
    pub fn new(key: MasterKey, mki: Option<Mki>) -> Self {
        Self { history: KeyHistory::new(key, mki) }
    }

    /// Protects further packets with this key; its suite may be another one. If the key stays the
    /// same, or is the one before, its indices go on.
    pub fn replace_key(&mut self, key: MasterKey, mki: Option<Mki>) {
        self.history.replace(key, mki);
    }

    /// Encrypts an RTP packet in place, and appends its tag and the MKI: at most 16 bytes and the
    /// length of the MKI. After an error the packet is unchanged.
    ///
    /// # Errors
    /// [`SrtpError::TooShort`] and [`SrtpError::Malformed`]; [`SrtpError::OutOfOrder`];
    /// [`SrtpError::KeyExhausted`] after 2^48 packets of an SSRC.
    pub fn protect(&mut self, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        let fields = RtpFields::read(packet)?;
        let current = &mut self.history.current;
        let stream = stream(&mut current.streams, fields.ssrc);
        let index = match stream.srtp {
            None => fields.sequence.into(),
            Some(last) => match index::estimate(last, fields.sequence) {
                Ok(index) if index > last => index,
                Err(SrtpError::KeyExhausted) => return Err(SrtpError::KeyExhausted),
                _ => return Err(SrtpError::OutOfOrder),
            },
        };
        stream.srtp = Some(index);
        current.keys.protect(packet, &fields, index);
        Ok(())
    }

    /// Encrypts an RTCP compound packet in place, and appends its tag, its index and the MKI: at
    /// most 20 bytes and the length of the MKI. After an error the packet is unchanged.
    ///
    /// # Errors
    /// [`SrtpError::TooShort`] and [`SrtpError::Malformed`]; [`SrtpError::KeyExhausted`] after 2^31
    /// packets of an SSRC.
    pub fn protect_rtcp(&mut self, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        let ssrc = rtcp_ssrc(packet)?;
        let current = &mut self.history.current;
        let stream = stream(&mut current.streams, ssrc);
        let index = stream.srtcp;
        if index > MAX_SRTCP_INDEX {
            return Err(SrtpError::KeyExhausted);
        }
        stream.srtcp += 1;
        current.keys.protect_rtcp(packet, ssrc, index);
        Ok(())
    }
}

fn stream(streams: &mut Vec<OutboundStream>, ssrc: Ssrc) -> &mut OutboundStream {
    let place = streams.iter().position(|stream| stream.ssrc == ssrc).unwrap_or_else(|| {
        streams.push(OutboundStream { ssrc, srtp: None, srtcp: 0 });
        streams.len() - 1
    });
    &mut streams[place]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::srtp::CryptoSuite;

    const RTP: [u8; 12] = [0x80, 0, 0xff, 0xfe, 0, 0, 0, 0, 0, 0, 0, 9];
    const RTCP: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 9];

    #[test]
    fn the_last_index_of_a_key_is_used_and_no_further_one() {
        for suite in CryptoSuite::ALL {
            let key = vec![7; suite.key_len() + suite.salt_len()];
            let mut sender = SrtpSender::new(MasterKey::from_bytes(suite, &key).unwrap(), None);
            let stream = stream(&mut sender.history.current.streams, Ssrc(9));
            (stream.srtp, stream.srtcp) = (Some((1 << 48) - 3), MAX_SRTCP_INDEX);
            assert_eq!(sender.protect(&mut RTP.to_vec()), Ok(()));
            let mut packet = RTP.to_vec();
            packet[3] = 0xff;
            assert_eq!(sender.protect(&mut packet), Ok(()));
            let mut packet = RTP.to_vec();
            packet[2..4].fill(0);
            let before = packet.clone();
            assert_eq!(sender.protect(&mut packet), Err(SrtpError::KeyExhausted));
            assert_eq!(packet, before);
            assert_eq!(sender.protect_rtcp(&mut RTCP.to_vec()), Ok(()));
            let mut packet = RTCP.to_vec();
            assert_eq!(sender.protect_rtcp(&mut packet), Err(SrtpError::KeyExhausted));
            assert_eq!(packet, RTCP);
        }
    }
}
