//! RTCP (RFC 3550 section 6): parses and writes reports, and keeps the statistics for them.

use super::{RtpTimestamp, Ssrc};

/// A reception report block: what a receiver reports to a sender (section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportBlock {
    /// The source that the report is about.
    pub ssrc: Ssrc,
    /// The fraction lost since the last report, in 256ths.
    pub fraction_lost: u8,
    /// Packets lost in total; negative if there are duplicates.
    pub lost: i32,
    /// The highest sequence number; wrap-arounds are counted above bit 16.
    pub highest_sequence: u32,
    /// Interarrival jitter in ticks.
    pub jitter: u32,
    /// The middle 32 bits of the NTP time of the last sender report; 0 if there was none.
    pub last_sender_report: u32,
    /// The time since that report, in 65,536ths of a second.
    pub delay_since: u32,
}

/// The sender information of a sender report (section 6.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SenderInfo {
    /// The NTP time: seconds since 1900 in the upper half.
    pub ntp: u64,
    /// The RTP timestamp of the same moment.
    pub rtp_timestamp: RtpTimestamp,
    /// The number of packets sent.
    pub packets: u32,
    /// The number of payload octets sent.
    pub octets: u32,
}

/// The parts of a compound packet that are used here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Received {
    /// The sender of the packet.
    pub ssrc: Ssrc,
    /// The sender information, if this is a sender report.
    pub sender: Option<SenderInfo>,
    /// The report block about us, if there is one.
    pub about_us: Option<ReportBlock>,
    /// Whether the sender says goodbye (BYE).
    pub is_bye: bool,
}

/// The bytes are not RTCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RTCP compound packet")]
pub struct NotRtcp;

const SR: u8 = 200;
const RR: u8 = 201;
const SDES: u8 = 202;
const BYE: u8 = 203;
const CNAME: u8 = 1;
const BLOCK: usize = 24;
const SENDER_INFO: usize = 20;

/// Parses a compound packet. Only report blocks about the source `ours` are kept.
///
/// # Errors
/// A length that does not fit, another version, or a first packet that is not a report (section
/// 6.1).
pub fn read(bytes: &[u8], ours: Ssrc) -> Result<Received, NotRtcp> {
    let mut received = Received::default();
    let mut rest = bytes;
    let mut is_first = true;
    while !rest.is_empty() {
        let (head, _) = rest.split_first_chunk::<4>().ok_or(NotRtcp)?;
        let length = (usize::from(u16::from_be_bytes([head[2], head[3]])) + 1) * 4;
        let packet = rest.get(..length).ok_or(NotRtcp)?;
        rest = &rest[length..];
        let packet = without_padding(packet, rest.is_empty())?;
        let (count, kind) = (usize::from(head[0] & 0x1f), head[1]);
        if head[0] >> 6 != 2 || (is_first && !matches!(kind, SR | RR)) {
            return Err(NotRtcp);
        }
        is_first = false;
        match kind {
            SR | RR => {
                received.ssrc = Ssrc(word(packet, 4)?);
                let mut at = 8;
                if kind == SR {
                    received.sender = Some(SenderInfo {
                        ntp: (u64::from(word(packet, 8)?) << 32) | u64::from(word(packet, 12)?),
                        rtp_timestamp: RtpTimestamp(word(packet, 16)?),
                        packets: word(packet, 20)?,
                        octets: word(packet, 24)?,
                    });
                    at += SENDER_INFO;
                }
                for index in 0..count {
                    let block = block(packet, at + index * BLOCK)?;
                    if block.ssrc == ours {
                        received.about_us = Some(block);
                    }
                }
            }
            BYE => {
                for index in 0..count {
                    // Section 6.6: a BYE lists the sources that leave; only that of the sender
                    // counts.
                    received.is_bye |= Ssrc(word(packet, 4 + index * 4)?) == received.ssrc;
                }
            }
            SDES => check_description(&packet[4..], count)?,
            _ => {}
        }
    }
    if is_first { Err(NotRtcp) } else { Ok(received) }
}

/// Section 6.4.1: only the last packet may have padding, in whole words.
fn without_padding(packet: &[u8], is_last: bool) -> Result<&[u8], NotRtcp> {
    if packet[0] & 0x20 == 0 {
        return Ok(packet);
    }
    let padding = packet.last().map_or(0, |last| usize::from(*last));
    let left = packet.len().checked_sub(padding).filter(|left| *left >= 4).ok_or(NotRtcp)?;
    let is_whole = padding > 0 && padding.is_multiple_of(4);
    if is_last && is_whole { Ok(&packet[..left]) } else { Err(NotRtcp) }
}

/// Checks the chunks of a source description (section 6.5); their content is not used.
fn check_description(mut rest: &[u8], chunks: usize) -> Result<(), NotRtcp> {
    for _ in 0..chunks {
        let whole = rest.len();
        rest = rest.get(4..).ok_or(NotRtcp)?;
        while *rest.first().ok_or(NotRtcp)? != 0 {
            let length = usize::from(*rest.get(1).ok_or(NotRtcp)?);
            rest = rest.get(2 + length..).ok_or(NotRtcp)?;
        }
        // At least one zero ends the list; more zeros fill the word.
        let read = whole - rest.len() + 1;
        rest = rest.get(1 + (read.next_multiple_of(4) - read)..).ok_or(NotRtcp)?;
    }
    Ok(())
}

/// Appends a compound packet: a sender report, or a receiver report if nothing was sent; the CNAME;
/// and a BYE if this is the last packet.
pub fn write(
    out: &mut Vec<u8>,
    ssrc: Ssrc,
    sender: Option<SenderInfo>,
    report: Option<ReportBlock>,
    cname: &str,
    is_last: bool,
) {
    let blocks = u8::from(report.is_some());
    let words = 1 + if sender.is_some() { 5 } else { 0 } + if report.is_some() { 6 } else { 0 };
    head(out, blocks, if sender.is_some() { SR } else { RR }, words);
    out.extend(ssrc.0.to_be_bytes());
    if let Some(info) = sender {
        out.extend(info.ntp.to_be_bytes());
        out.extend(info.rtp_timestamp.0.to_be_bytes());
        out.extend(info.packets.to_be_bytes());
        out.extend(info.octets.to_be_bytes());
    }
    if let Some(block) = report {
        out.extend(block.ssrc.0.to_be_bytes());
        let lost = block.lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
        out.extend((u32::from(block.fraction_lost) << 24 | lost).to_be_bytes());
        out.extend(block.highest_sequence.to_be_bytes());
        out.extend(block.jitter.to_be_bytes());
        out.extend(block.last_sender_report.to_be_bytes());
        out.extend(block.delay_since.to_be_bytes());
    }
    // The length of an item is one byte; our names are short.
    let name = &cname.as_bytes()[..cname.len().min(255)];
    // Source, kind, length, text and at least one zero, in whole words.
    let words = 1 + (2 + name.len() + 1).div_ceil(4);
    head(out, 1, SDES, words as u16);
    let end = out.len() + words * 4;
    out.extend(ssrc.0.to_be_bytes());
    out.extend([CNAME, name.len() as u8]);
    out.extend(name);
    out.resize(end, 0);
    if is_last {
        head(out, 1, BYE, 1);
        out.extend(ssrc.0.to_be_bytes());
    }
}

/// Statistics about one source, for its report blocks (sections A.3 and A.8).
#[derive(Debug, Clone, Default)]
pub struct SourceStatistics {
    first: Option<i64>,
    highest: i64,
    received: u64,
    duplicates: u64,
    expected_before: i64,
    received_before: u64,
    transit: Option<i64>,
    /// In sixteenths of a tick.
    jitter: i64,
}

impl SourceStatistics {
    /// Counts a packet by its extended sequence number; `arrival` and `media_time` are in ticks.
    pub fn count(&mut self, sequence: i64, arrival: i64, media_time: i64) {
        self.count_without_time(sequence);
        let transit = arrival.wrapping_sub(media_time);
        if let Some(last) = self.transit {
            let distance = transit.wrapping_sub(last).saturating_abs().min(1 << 32);
            self.jitter += distance - ((self.jitter + 8) >> 4);
        }
        self.transit = Some(transit);
    }

    /// Counts a packet that is not used for jitter: all packets of a telephone event have the same
    /// timestamp.
    pub fn count_without_time(&mut self, sequence: i64) {
        self.highest = self.first.map_or(sequence, |_| self.highest.max(sequence));
        // The first packet may have been overtaken by others.
        self.first = Some(self.first.map_or(sequence, |first| first.min(sequence)));
        self.received += 1;
    }

    /// Counts a duplicate: as received, but it does not reduce the real loss (section 6.4.1).
    pub fn count_duplicate(&mut self) {
        self.received += 1;
        self.duplicates += 1;
    }

    /// The sender continues at `sequence`, which is higher than all before. The numbers in between
    /// were never sent.
    pub fn go_on_at(&mut self, sequence: i64) {
        let skipped = sequence.saturating_sub(self.highest).saturating_sub(1);
        self.first = self.first.map(|first| first + skipped);
        self.transit = None;
    }

    /// The number of packets received, including duplicates.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The number of packets that were expected and did not come.
    pub fn lost(&self) -> u64 {
        let came = self.received - self.duplicates;
        u64::try_from(self.expected()).unwrap_or(0).saturating_sub(came)
    }

    /// Interarrival jitter in ticks.
    pub fn jitter(&self) -> u32 {
        u32::try_from(self.jitter >> 4).unwrap_or(u32::MAX)
    }

    /// The report block about this source for the time since the last one; `None` before the first
    /// packet.
    pub fn report(&mut self, ssrc: Ssrc) -> Option<ReportBlock> {
        self.first?;
        let expected = self.expected();
        let since = expected - self.expected_before;
        let came = i64::try_from(self.received - self.received_before).unwrap_or(i64::MAX);
        let lost_since = since.saturating_sub(came);
        let fraction_lost = if since > 0 && lost_since > 0 {
            u8::try_from((lost_since << 8) / since).unwrap_or(u8::MAX)
        } else {
            0
        };
        self.expected_before = expected;
        self.received_before = self.received;
        let received = i64::try_from(self.received).unwrap_or(i64::MAX);
        let lost = expected.saturating_sub(received).clamp(-0x80_0000, 0x7f_ffff);
        Some(ReportBlock {
            ssrc,
            fraction_lost,
            lost: lost as i32,
            highest_sequence: self.highest as u32,
            jitter: self.jitter(),
            last_sender_report: 0,
            delay_since: 0,
        })
    }

    fn expected(&self) -> i64 {
        self.first.map_or(0, |first| self.highest - first + 1)
    }
}

fn head(out: &mut Vec<u8>, count: u8, kind: u8, words: u16) {
    out.extend([2 << 6 | count, kind]);
    out.extend(words.to_be_bytes());
}

fn word(bytes: &[u8], at: usize) -> Result<u32, NotRtcp> {
    let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).ok_or(NotRtcp)?;
    Ok(u32::from_be_bytes(*bytes))
}

fn block(packet: &[u8], at: usize) -> Result<ReportBlock, NotRtcp> {
    let losses = word(packet, at + 4)?;
    Ok(ReportBlock {
        ssrc: Ssrc(word(packet, at)?),
        fraction_lost: (losses >> 24) as u8,
        // Sign-extended from 24 bits.
        lost: ((losses << 8) as i32) >> 8,
        highest_sequence: word(packet, at + 8)?,
        jitter: word(packet, at + 12)?,
        last_sender_report: word(packet, at + 16)?,
        delay_since: word(packet, at + 20)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reports_read_as_they_were_written() {
        let sender = SenderInfo {
            ntp: 0x0102_0304_0506_0708,
            rtp_timestamp: RtpTimestamp(9),
            packets: 10,
            octets: 11,
        };
        let report = ReportBlock {
            ssrc: Ssrc(2),
            fraction_lost: 3,
            lost: -4,
            highest_sequence: 5,
            jitter: 6,
            last_sender_report: 7,
            delay_since: 8,
        };
        for (sender, about_us, is_bye) in
            [(Some(sender), Some(report), true), (None, Some(report), false), (None, None, false)]
        {
            let mut bytes = Vec::new();
            write(&mut bytes, Ssrc(1), sender, about_us, "aftertone", is_bye);
            assert_eq!(bytes.len() % 4, 0);
            assert_eq!(
                read(&bytes, Ssrc(2)),
                Ok(Received { ssrc: Ssrc(1), sender, about_us, is_bye })
            );
        }
    }

    #[test]
    fn losses_and_jitter_are_counted() {
        let mut source = SourceStatistics::default();
        assert_eq!(source.report(Ssrc(1)), None);
        for sequence in [10, 11, 13, 14, 16, 17, 18, 19] {
            source.count(sequence, sequence * 160, sequence * 160);
        }
        let block = source.report(Ssrc(1)).unwrap();
        assert_eq!((block.lost, block.fraction_lost, block.jitter), (2, 51, 0));
        assert_eq!((source.lost(), source.received()), (2, 8));
        source.count(20, 20 * 160 + 320, 20 * 160);
        let block = source.report(Ssrc(1)).unwrap();
        assert_eq!((block.lost, block.fraction_lost, block.jitter), (2, 0, 20));
    }

    #[test]
    fn a_restart_is_no_loss_and_a_duplicate_hides_none() {
        let mut source = SourceStatistics::default();
        for sequence in [11, 10, 12, 14] {
            source.count(sequence, sequence * 160, sequence * 160);
        }
        source.count_duplicate();
        assert_eq!((source.lost(), source.received()), (1, 5));
        source.go_on_at(70_000);
        source.count(70_000, 0, 90_000);
        source.count(70_001, 160, 90_160);
        assert_eq!((source.lost(), source.jitter()), (1, 0));
        let block = source.report(Ssrc(1)).unwrap();
        assert_eq!((block.lost, block.highest_sequence), (0, 70_001));
    }

    #[test]
    fn goodbyes_padding_and_descriptions_are_read_strictly() {
        let report = [0x80, RR, 0, 1, 0, 0, 0, 1];
        let after =
            |packet: &[u8]| read(&[&report[..], packet].concat(), Ssrc(9)).map(|r| r.is_bye);
        assert_eq!(after(&[0x81, BYE, 0, 1, 0, 0, 0, 1]), Ok(true));
        assert_eq!(after(&[0x81, BYE, 0, 1, 0, 0, 0, 2]), Ok(false));
        assert_eq!(after(&[0x82, BYE, 0, 1, 0, 0, 0, 1]), Err(NotRtcp));
        assert_eq!(after(&[0xa1, BYE, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4]), Ok(true));
        assert_eq!(after(&[0xa1, BYE, 0, 2, 0, 0, 0, 1, 0, 0, 0, 200]), Err(NotRtcp));
        assert_eq!(after(&[0x81, SDES, 0, 2, 0, 0, 0, 1, CNAME, 1, b'x', 0]), Ok(false));
        assert_eq!(after(&[0x81, SDES, 0, 2, 0, 0, 0, 1, CNAME, 2, b'x', b'y']), Err(NotRtcp));
        assert_eq!(after(&[0x81, SDES, 0, 2, 0, 0, 0, 1, CNAME, 99, b'x', 0]), Err(NotRtcp));
    }

    #[test]
    fn what_does_not_begin_with_a_report_is_refused() {
        assert_eq!(read(&[], Ssrc(1)), Err(NotRtcp));
        assert_eq!(read(&[0x80, SDES, 0, 0], Ssrc(1)), Err(NotRtcp));
        assert_eq!(read(&[0x81, RR, 0, 1, 0, 0, 0, 1], Ssrc(1)), Err(NotRtcp));
        assert_eq!(read(&[0x80, RR, 0, 9, 0, 0, 0, 1], Ssrc(1)), Err(NotRtcp));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), ours: u32) {
            let _ = read(&bytes, Ssrc(ours));
            let mut report = Vec::new();
            write(&mut report, Ssrc(1), Some(SenderInfo::default()), None, "x", true);
            for (index, byte) in bytes.iter().take(4).enumerate() {
                let at = (usize::from(*byte) + index * 7) % report.len();
                report[at] = *byte;
            }
            let _ = read(&report, Ssrc(ours));
        }

        #[test]
        fn no_numbers_overflow(numbers in prop::collection::vec((any::<u16>(), any::<u32>(), any::<u32>()), 1..50)) {
            let mut source = SourceStatistics::default();
            for (sequence, arrival, time) in numbers {
                source.count(i64::from(sequence), i64::from(arrival), i64::from(time));
                let _ = source.report(Ssrc(1));
            }
        }
    }
}
