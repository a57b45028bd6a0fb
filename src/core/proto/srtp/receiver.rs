//! Which packets of a peer are accepted.

use super::{
    MasterKey, Mki, SrtpError,
    history::{KeyHistory, KeyState},
    index,
    replay::ReplayWindow,
};
use crate::proto::rtp::Ssrc;

/// How many SSRCs are known for each key. The SSRC whose last authenticated packet is the oldest
/// makes room.
const MAX_STREAMS: usize = 16;
/// After so many RTP packets with the current key, packets with the former one are refused: later
/// than that they would be too old for the replay window as well.
const FORMER_KEY_PACKETS: u64 = ReplayWindow::SIZE;

/// Unprotects the SRTP and SRTCP packets of a peer: the cryptographic contexts of one direction,
/// for all of its SSRCs (RFC 3711 section 3.2).
///
/// The rollover counter of a stream is found from sequence numbers, and follows at most 32,767 lost
/// packets in a row. The first packet of a stream may come late: the counter is then 0, or 1 if the
/// sequence number has wrapped before it came.
#[derive(Debug)]
pub struct SrtpReceiver {
    history: KeyHistory<InboundStreams>,
    /// RTP packets with the current key since it replaced the former one.
    since_change: u64,
    /// Reused, so that a packet takes no allocation.
    scratch: Vec<u8>,
}

/// The streams of one master key.
#[derive(Debug, Default)]
struct InboundStreams {
    known: Vec<InboundStream>,
    /// How many packets were authenticated.
    authenticated: u64,
}

#[derive(Debug)]
struct InboundStream {
    ssrc: Ssrc,
    srtp: ReplayWindow,
    srtcp: ReplayWindow,
    /// The value of `authenticated` after its last packet.
    last_packet: u64,
}

impl SrtpReceiver {
    /// A receiver for packets that are protected with this key. With an MKI, each packet must have
    /// it.
    pub fn new(key: MasterKey, mki: Option<Mki>) -> Self {
        Self { history: KeyHistory::new(key, mki), since_change: 0, scratch: Vec::new() }
    }

    /// Takes the peer's key after a new offer or answer; its suite may be another one.
    ///
    /// If the key stays the same, so do rollover counters and replay windows. With a new key the
    /// counters begin at 0. Packets with the former key are accepted as well until 512 RTP packets
    /// with the new one have come. Replacing the new key by the former one restores its state.
    pub fn replace_key(&mut self, key: MasterKey, mki: Option<Mki>) {
        if self.history.replace(key, mki) {
            self.since_change = 0;
        }
    }

    /// Authenticates and decrypts an SRTP packet in place, and returns the RTP packet at its begin.
    /// After an error the packet and all state are unchanged.
    ///
    /// # Errors
    /// All of [`SrtpError`] except [`SrtpError::OutOfOrder`].
    pub fn unprotect<'p>(&mut self, packet: &'p mut [u8]) -> Result<&'p mut [u8], SrtpError> {
        let KeyHistory { current, former } = &mut self.history;
        let result = current.unprotect(packet, &mut self.scratch);
        if result.is_ok() {
            self.since_change += 1;
            if self.since_change >= FORMER_KEY_PACKETS {
                *former = None;
            }
        }
        let len = result.or_else(|error| {
            let former = former.as_mut().ok_or(error)?;
            former.unprotect(packet, &mut self.scratch).map_err(|older| likelier(error, older))
        })?;
        Ok(&mut packet[..len])
    }

    /// Authenticates and decrypts an SRTCP packet in place, and returns the RTCP compound packet at
    /// its begin. After an error the packet and all state are unchanged.
    ///
    /// # Errors
    /// All of [`SrtpError`] except [`SrtpError::OutOfOrder`] and [`SrtpError::KeyExhausted`].
    pub fn unprotect_rtcp<'p>(&mut self, packet: &'p mut [u8]) -> Result<&'p mut [u8], SrtpError> {
        let KeyHistory { current, former } = &mut self.history;
        let result = current.unprotect_rtcp(packet, &mut self.scratch);
        let len = result.or_else(|error| {
            let former = former.as_mut().ok_or(error)?;
            former.unprotect_rtcp(packet, &mut self.scratch).map_err(|older| likelier(error, older))
        })?;
        Ok(&mut packet[..len])
    }

    /// All that packets may change.
    #[cfg(test)]
    pub(super) fn state(&self) -> String {
        format!("{:?}, {}", self.history, self.since_change)
    }
}

/// The error of the key that the packet was probably protected with.
fn likelier(current: SrtpError, former: SrtpError) -> SrtpError {
    match current {
        SrtpError::Authentication | SrtpError::WrongMki => former,
        _ => current,
    }
}

impl KeyState<InboundStreams> {
    fn unprotect(&mut self, packet: &mut [u8], scratch: &mut Vec<u8>) -> Result<usize, SrtpError> {
        let fields = self.keys.read(packet)?;
        let (ssrc, sequence) = (fields.rtp.ssrc, fields.rtp.sequence);
        let window = self.streams.get(ssrc).map(|stream| &stream.srtp);
        let (index, len) = match window.and_then(|window| Some((window, window.highest()?))) {
            Some((window, highest)) => {
                let index = index::estimate(highest, sequence)?;
                window.check(index)?;
                (index, self.keys.unprotect(packet, &fields, index, scratch)?)
            }
            None => {
                let first = u64::from(sequence);
                let second = index::first_of_cycle(1) | first;
                self.keys
                    .unprotect(packet, &fields, first, scratch)
                    .map(|len| (first, len))
                    .or_else(|_| {
                        let len = self.keys.unprotect(packet, &fields, second, scratch)?;
                        Ok((second, len))
                    })?
            }
        };
        self.streams.authenticated(ssrc).srtp.insert(index);
        Ok(len)
    }

    fn unprotect_rtcp(
        &mut self,
        packet: &mut [u8],
        scratch: &mut Vec<u8>,
    ) -> Result<usize, SrtpError> {
        let fields = self.keys.read_rtcp(packet)?;
        let index = u64::from(fields.index);
        if let Some(stream) = self.streams.get(fields.ssrc) {
            stream.srtcp.check(index)?;
        }
        let len = self.keys.unprotect_rtcp(packet, &fields, scratch)?;
        self.streams.authenticated(fields.ssrc).srtcp.insert(index);
        Ok(len)
    }
}

impl InboundStreams {
    fn get(&self, ssrc: Ssrc) -> Option<&InboundStream> {
        self.known.iter().find(|stream| stream.ssrc == ssrc)
    }

    /// The stream of a packet that was authenticated.
    fn authenticated(&mut self, ssrc: Ssrc) -> &mut InboundStream {
        self.authenticated += 1;
        let place = self.known.iter().position(|stream| stream.ssrc == ssrc);
        let place = place.unwrap_or_else(|| self.add(ssrc));
        let stream = &mut self.known[place];
        stream.last_packet = self.authenticated;
        stream
    }

    fn add(&mut self, ssrc: Ssrc) -> usize {
        let (srtp, srtcp) = (ReplayWindow::default(), ReplayWindow::default());
        let stream = InboundStream { ssrc, srtp, srtcp, last_packet: 0 };
        if self.known.len() < MAX_STREAMS {
            self.known.push(stream);
            return self.known.len() - 1;
        }
        let oldest = (0..MAX_STREAMS).min_by_key(|place| self.known[*place].last_packet);
        let oldest = oldest.unwrap_or_default();
        self.known[oldest] = stream;
        oldest
    }
}
