//! Follows the frames of a WebSocket (RFC 6455 §5.2), because the library reports whole messages
//! only.
//!
//! Comes in: bytes as they are read, in chunks of any length, and the time. Goes out: when the
//! incomplete message began, and how many fragments of it have come. It validates nothing; the
//! library does.

use tokio::time::Instant;

/// The longest header: two bytes, eight of length, four of mask.
const MAX_HEADER: usize = 14;

/// The position in the stream of frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; MAX_HEADER],
    /// Header bytes that have come.
    header_bytes: usize,
    /// Payload bytes that have not come yet.
    payload_left: u64,
    /// Fragments of a data message that have come, while its last fragment has not.
    fragments: usize,
    /// When the first byte of the incomplete message or frame came.
    begun: Option<Instant>,
}

impl Frames {
    /// Takes the bytes that were read.
    pub(super) fn push(&mut self, mut bytes: &[u8], now: Instant) {
        while let Some((&first, rest)) = bytes.split_first() {
            self.begun.get_or_insert(now);
            if self.payload_left > 0 {
                let left = usize::try_from(self.payload_left).unwrap_or(usize::MAX);
                let taken = left.min(bytes.len());
                self.payload_left -= taken as u64;
                bytes = bytes.get(taken..).unwrap_or_default();
            } else {
                if let Some(byte) = self.header.get_mut(self.header_bytes) {
                    *byte = first;
                }
                self.header_bytes += 1;
                bytes = rest;
                if self.header_bytes < self.header_length() {
                    continue;
                }
                self.payload_left = self.payload_length();
                self.header_bytes = 0;
            }
            if self.payload_left == 0 {
                self.end_frame();
            }
        }
    }

    /// When the first byte of the incomplete message came. Pings and pongs may come between its
    /// fragments (§5.4) and change nothing.
    pub(super) fn begun(&self) -> Option<Instant> {
        self.begun
    }

    /// Restarts the time of an incomplete message after a pause of ours, which the peer did not
    /// cause.
    pub(super) fn listen_again(&mut self, now: Instant) {
        if let Some(begun) = &mut self.begun {
            *begun = now;
        }
    }

    /// How many fragments of the incomplete message have come.
    pub(super) fn fragments(&self) -> usize {
        self.fragments
    }

    fn end_frame(&mut self) {
        let is_last = self.header[0] & 0x80 != 0;
        let is_control = self.header[0] & 0x08 != 0;
        self.fragments = match (is_control, is_last) {
            (true, _) => self.fragments,
            (false, true) => 0,
            (false, false) => self.fragments.saturating_add(1),
        };
        if self.fragments == 0 {
            self.begun = None;
        }
    }

    fn header_length(&self) -> usize {
        if self.header_bytes < 2 {
            return 2;
        }
        let mask = if self.header[1] & 0x80 != 0 { 4 } else { 0 };
        2 + self.extended_length() + mask
    }

    fn extended_length(&self) -> usize {
        match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        }
    }

    fn payload_length(&self) -> u64 {
        match self.extended_length() {
            0 => (self.header[1] & 0x7f).into(),
            bytes => {
                let length = self.header.get(2..2 + bytes).unwrap_or_default();
                length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const FIN: u8 = 0x80;
    const TEXT: u8 = 1;
    const PING: u8 = 9;

    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match length {
            0..126 => frame.push(0x80 | length as u8),
            126..65_536 => {
                frame.push(0x80 | 126);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        // A mask and a payload that look like headers.
        frame.extend([0x81; 4]);
        frame.extend(vec![0x81; length]);
        frame
    }

    #[test]
    fn a_message_is_under_way_from_its_first_byte_to_its_last_however_it_is_cut() {
        for length in [0, 1, 125, 126, 300, 65_535, 65_536] {
            let whole = frame(FIN | TEXT, length);
            for cut in [1, 2, 3, 5, whole.len() - 1] {
                let mut frames = Frames::default();
                let began = Instant::now();
                frames.push(&whole[..cut], began);
                assert_eq!(frames.begun(), Some(began), "{length} cut at {cut}");
                frames.push(&whole[cut..], began + Duration::from_secs(1));
                assert_eq!(frames.begun(), None, "{length} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_begins_with_the_end_of_another_message_has_its_own_time() {
        let mut frames = Frames::default();
        let (first, later) = (Instant::now(), Instant::now() + Duration::from_secs(5));
        let whole = frame(FIN | TEXT, 9);
        frames.push(&whole[..4], first);
        frames.push(&[&whole[4..], &whole[..4]].concat(), later);
        assert_eq!(frames.begun(), Some(later));
    }

    #[test]
    fn pings_between_fragments_change_nothing() {
        let mut frames = Frames::default();
        let began = Instant::now();
        frames.push(&frame(TEXT, 4), began);
        for second in 1..5 {
            let now = began + Duration::from_secs(second);
            frames.push(&frame(FIN | PING, 3), now);
            frames.push(&frame(0, 0), now);
        }
        assert_eq!((frames.begun(), frames.fragments()), (Some(began), 5));
        frames.push(&frame(FIN, 0), began);
        assert_eq!((frames.begun(), frames.fragments()), (None, 0));
    }

    #[test]
    fn while_we_do_not_listen_no_time_is_counted() {
        let mut frames = Frames::default();
        let began = Instant::now();
        frames.listen_again(began);
        assert_eq!(frames.begun(), None);
        frames.push(&[FIN | TEXT], began);
        frames.listen_again(began + Duration::from_secs(9));
        assert_eq!(frames.begun(), Some(began + Duration::from_secs(9)));
    }
}
