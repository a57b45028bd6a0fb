//! Decides when RTCP is sent, and writes it (RFC 3550 section 6).
//!
//! Input: what was sent and received, and the peer's reports. Output: a compound packet every few
//! seconds and at the end. This module knows no socket; wall-clock time is an argument.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::Rng;

use super::{receiver::Receiver, sender::Sender};
use aftertone_core::{
    audio::frame::FRAMES_PER_SECOND,
    proto::rtp::rtcp::{self, SenderInfo},
};

/// The reports of one stream.
#[derive(Debug)]
pub(super) struct Reports {
    cname: String,
    due: u64,
    interval: u64,
    /// The middle 32 bits of the NTP time in the peer's last sender report, and the frame in which
    /// it came.
    last_sender_report: Option<(u32, u64)>,
    packet: Vec<u8>,
}

/// RFC 3550 section 6.2: five seconds is the minimum for a session of two.
const INTERVAL: u64 = 5 * FRAMES_PER_SECOND as u64;
/// Seconds from 1900, where NTP time begins, to 1970.
const NTP_TO_UNIX: u64 = 2_208_988_800;

impl Reports {
    /// Reports from the tick `frame` on. The interval is drawn once from half to one and a half of
    /// five seconds, so that calls that begin together do not report together.
    pub(super) fn new(frame: u64, rng: &mut impl Rng) -> Self {
        let interval = rng.random_range(INTERVAL / 2..=INTERVAL * 3 / 2);
        Self {
            // RFC 7022 section 4.2: a name that says nothing about the host.
            cname: format!("{:024x}", rng.random::<u128>() >> 32),
            due: frame + interval,
            interval,
            last_sender_report: None,
            packet: Vec::with_capacity(128),
        }
    }

    /// Whether a report is due in this tick.
    pub(super) fn is_due(&self, frame: u64) -> bool {
        frame >= self.due
    }

    /// Takes a report of the peer, which came in the tick `frame`.
    pub(super) fn note(&mut self, received: &rtcp::Received, frame: u64) {
        if let Some(sender) = received.sender {
            self.last_sender_report = Some(((sender.ntp >> 16) as u32, frame));
        }
    }

    /// Writes the report of the tick `frame`; the last one contains a BYE.
    pub(super) fn write(
        &mut self,
        sender: &Sender,
        receiver: &mut Receiver,
        frame: u64,
        now: SystemTime,
        is_last: bool,
    ) -> &[u8] {
        self.due = frame + self.interval;
        let sent = sender.sent();
        let info = (sent.packets > 0).then(|| SenderInfo {
            ntp: ntp(now),
            rtp_timestamp: sender.timestamp(),
            packets: sent.packets,
            octets: sent.octets,
        });
        let mut block = receiver.report();
        if let (Some(block), Some((ntp, at))) = (&mut block, self.last_sender_report) {
            let since = Duration::from_millis(frame.saturating_sub(at).saturating_mul(20));
            block.last_sender_report = ntp;
            block.delay_since = u32::try_from((since.as_millis() << 16) / 1000).unwrap_or(u32::MAX);
        }
        self.packet.clear();
        rtcp::write(&mut self.packet, sender.ssrc(), info, block, &self.cname, is_last);
        &self.packet
    }
}

fn ntp(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs().wrapping_add(NTP_TO_UNIX);
    (seconds << 32) | ((u64::from(since.subsec_nanos()) << 32) / 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_counts_from_1900() {
        assert_eq!(ntp(UNIX_EPOCH + Duration::from_millis(500)), (NTP_TO_UNIX << 32) | (1 << 31));
    }
}
