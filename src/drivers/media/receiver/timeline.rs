//! The receiver's time line: where each packet of a sender lies on it.
//!
//! Input: packets in the order of arrival, with the horizon of playout. Output: their places, in
//! samples on a time line that only goes forward. If the sender's time jumps, later packets are
//! placed right after the earlier ones. The time line knows the sender's SSRC, the wraps of its
//! numbers, its restarts and its pace; it holds no sound.

use aftertone_core::proto::rtp::{
    RtpTimestamp, Ssrc,
    packet::{Header, Packet},
    rtcp::{ReportBlock, SourceStatistics},
    seq::{ExtendedSequence, MediaClock, SequencePlace},
};

use super::{
    anchors::Anchors,
    horizon::Horizon,
    pace::{Pace, SoundPacket},
    stats::ReceiverStats,
};

/// Places the packets of one stream. All times are in samples at the stream's rate.
#[derive(Debug)]
pub(super) struct Timeline {
    /// RTP ticks per sample.
    ticks: i64,
    frame_len: i64,
    sender: SsrcState,
    /// Where the newest sound ends, and the frame in which it came.
    heard_until: Option<(i64, u64)>,
    /// Figures of former senders, and of packets that have no place.
    figures: ReceiverStats,
}

/// The state of one SSRC.
#[derive(Debug, Default)]
struct SsrcState {
    /// `None` before the first packet.
    ssrc: Option<Ssrc>,
    sequence: ExtendedSequence,
    clock: MediaClock,
    statistics: SourceStatistics,
    anchors: Anchors,
    pace: Pace,
    newest: NewestPayload,
}

/// The newest packet of sound, to recognise a sender that sends each packet twice.
#[derive(Debug, Default)]
struct NewestPayload {
    /// The media time of the packet.
    ticks: Option<i64>,
    payload: Vec<u8>,
    /// Whether media time differs between packets at all.
    advances: bool,
}

impl Timeline {
    /// A time line without a sender: `ticks` of RTP in a sample, and `frame_len` samples in a
    /// frame.
    pub(super) fn new(ticks: i64, frame_len: i64) -> Self {
        Self {
            ticks,
            frame_len,
            sender: SsrcState::default(),
            heard_until: None,
            figures: ReceiverStats::default(),
        }
    }

    /// Finds where a packet lies in the sequence of its sender, and counts duplicates. After a
    /// restart, what follows is placed after everything before. Also returns whether the sender
    /// replaces another one, whose sound is played before that of the new one.
    pub(super) fn order(&mut self, header: &Header) -> (SequencePlace, bool) {
        let is_new = self.sender.ssrc.is_some_and(|ssrc| ssrc != header.ssrc);
        if is_new {
            let ReceiverStats { received, lost, .. } = self.stats();
            self.figures = ReceiverStats { received, lost, ..self.figures };
            self.sender = SsrcState::default();
        }
        let sender = &mut self.sender;
        sender.ssrc = Some(header.ssrc);
        let place = sender.sequence.place(header.sequence);
        match place {
            SequencePlace::At(_) | SequencePlace::Doubtful => {}
            SequencePlace::Duplicate => {
                sender.statistics.count_duplicate();
                self.figures.duplicate += 1;
            }
            SequencePlace::Restarted(sequence) => {
                sender.statistics.go_on_at(sequence - 1);
                (sender.anchors, sender.pace) = (Anchors::default(), Pace::default());
            }
        }
        (place, is_new)
    }

    /// The place of `len` samples of sound that came in the tick `frame`. `None` if the packet is
    /// too late to have one, or repeats the one before it.
    pub(super) fn place_sound(
        &mut self,
        sequence: i64,
        packet: &Packet<'_>,
        len: i64,
        frame: u64,
        horizon: &Horizon,
    ) -> Option<SoundPacket> {
        let is_newest = self.is_newest(sequence);
        let arrival = self.arrival(frame);
        let SsrcState { sequence: order, clock, statistics, anchors, pace, newest, .. } =
            &mut self.sender;
        let ticks = clock.extend(packet.header.timestamp);
        statistics.count(sequence, arrival * self.ticks, ticks);
        if is_newest && len > 0 && newest.repeats(ticks, packet.payload, sequence, pace) {
            return None;
        }
        let at = ticks.div_euclid(self.ticks);
        let by_timestamp = |offset| SoundPacket { sequence, time: at + offset, len, arrival };
        let by_pace = anchors.offset().map(by_timestamp);
        let by_pace = by_pace.and_then(|sound| pace.place(&sound, order, horizon));
        let time = match by_pace {
            Some(time) if is_newest => {
                // If playout has run dry, the sender has paused.
                let time = if horizon.is_dry { time.max(horizon.after_all()) } else { time };
                anchors.move_to(sequence, at, time, len);
                Some(time)
            }
            Some(time) => Some(time),
            None => anchors.place(sequence, at, len, is_newest, horizon),
        };
        let Some(time) = time else {
            self.figures.late += 1;
            return None;
        };
        let sound = SoundPacket { sequence, time, len, arrival };
        if is_newest && len > 0 {
            self.heard_until = Some((time + len, frame));
            pace.placed(sound);
        }
        Some(sound)
    }

    /// The place of comfort noise that came in the tick `frame`; `None` if it is too late.
    pub(super) fn place_noise(
        &mut self,
        sequence: i64,
        timestamp: RtpTimestamp,
        frame: u64,
        horizon: &Horizon,
    ) -> Option<i64> {
        let is_newest = self.is_newest(sequence);
        let arrival = self.arrival(frame) * self.ticks;
        let SsrcState { clock, statistics, anchors, .. } = &mut self.sender;
        let ticks = clock.extend(timestamp);
        statistics.count(sequence, arrival, ticks);
        anchors.place(sequence, ticks.div_euclid(self.ticks), 0, is_newest, horizon)
    }

    /// The place of a key's packet, if its timestamp is plausible. The key has been down for
    /// `duration` ticks so far.
    pub(super) fn place_key(
        &mut self,
        sequence: i64,
        timestamp: RtpTimestamp,
        duration: u16,
        horizon: &Horizon,
    ) -> Option<i64> {
        let at = self.sender.clock.extend(timestamp).div_euclid(self.ticks);
        // All packets of a key press have one timestamp, so they say nothing about jitter.
        self.sender.statistics.count_without_time(sequence);
        self.sender.anchors.place_key(sequence, at, i64::from(duration) / self.ticks, horizon)
    }

    /// The newest sound is put off to `time`, and what follows by as much.
    pub(super) fn delay(&mut self, sound: &mut SoundPacket, time: i64) {
        let SoundPacket { sequence, len, .. } = *sound;
        self.sender.anchors.delay(sequence, time - sound.time, time, len);
        sound.time = time;
        if len > 0 {
            self.heard_until = self.heard_until.map(|(_, came)| (time + len, came));
            self.sender.pace.placed(*sound);
        }
    }

    /// Ticks from `time` to the sender's present time: the end of its newest sound, plus the time
    /// since that came, plus the reserve for late packets.
    pub(super) fn passed_since(&self, time: i64, frame: u64, horizon: &Horizon) -> Option<u32> {
        let (end, came) = self.heard_until?;
        let since = i64::try_from(frame.saturating_sub(came)).ok()?;
        let since = since.saturating_mul(self.frame_len).saturating_add(horizon.reserve);
        let now = end.saturating_add(since).saturating_add(horizon.packet_len);
        u32::try_from((now - time).max(0).saturating_mul(self.ticks)).ok()
    }

    /// The SSRC of the sender; `None` before its first packet.
    pub(super) fn ssrc(&self) -> Option<Ssrc> {
        self.sender.ssrc
    }

    /// The highest sequence number of the sender.
    pub(super) fn newest(&self) -> Option<i64> {
        self.sender.sequence.highest()
    }

    /// Whether this is the highest sequence number of the sender.
    pub(super) fn is_newest(&self, sequence: i64) -> bool {
        self.newest() == Some(sequence)
    }

    /// Whether a packet was sent before the newest that has come.
    pub(super) fn has_overtaken(&self, header: &Header) -> bool {
        self.sender.ssrc == Some(header.ssrc) && self.sender.sequence.is_past(header.sequence)
    }

    /// Figures so far; `late` counts the packets without a place.
    pub(super) fn stats(&self) -> ReceiverStats {
        let Self { sender: SsrcState { statistics, .. }, figures, .. } = self;
        ReceiverStats {
            received: figures.received + statistics.received(),
            lost: figures.lost + statistics.lost(),
            jitter: statistics.jitter(),
            ..*figures
        }
    }

    /// The block about the sender for a report; `None` before the first packet.
    pub(super) fn report(&mut self) -> Option<ReportBlock> {
        self.sender.statistics.report(self.sender.ssrc?)
    }

    /// The time of the tick `frame`, in samples.
    fn arrival(&self, frame: u64) -> i64 {
        i64::try_from(frame).unwrap_or(i64::MAX / 4096) * self.frame_len
    }
}

impl NewestPayload {
    /// Whether the newest packet repeats the one before it under a new sequence number: some
    /// senders repeat each packet in this way, against loss.
    fn repeats(&mut self, ticks: i64, payload: &[u8], sequence: i64, pace: &mut Pace) -> bool {
        let follows = pace.last().is_some_and(|last| last + 1 == sequence);
        if follows && self.advances && self.ticks == Some(ticks) && self.payload == payload {
            pace.passed_over(sequence);
            return true;
        }
        self.advances |= self.ticks.is_some_and(|before| before != ticks);
        self.ticks = Some(ticks);
        self.payload.clear();
        self.payload.extend_from_slice(payload);
        false
    }
}

#[cfg(test)]
mod tests {
    use aftertone_core::proto::rtp::{PayloadType, SeqNo};

    use super::*;

    const HORIZON: Horizon = Horizon {
        next: None,
        edge: 0,
        is_empty: true,
        is_dry: false,
        packet_len: 160,
        reserve: 320,
        frame_len: 160,
    };

    fn packet(ssrc: u32, sequence: u16, timestamp: u32, payload: &[u8]) -> Packet<'_> {
        let header = Header {
            marker: false,
            payload_type: PayloadType::PCMU,
            sequence: SeqNo(sequence),
            timestamp: RtpTimestamp(timestamp),
            ssrc: Ssrc(ssrc),
        };
        Packet { header, payload }
    }

    /// The place of a packet that came in the tick `frame`.
    fn place(timeline: &mut Timeline, packet: &Packet<'_>, frame: u64) -> Option<i64> {
        let (place, _) = timeline.order(&packet.header);
        let (SequencePlace::At(sequence) | SequencePlace::Restarted(sequence)) = place else {
            return None;
        };
        let len = packet.payload.len() as i64;
        Some(timeline.place_sound(sequence, packet, len, frame, &HORIZON)?.time)
    }

    #[test]
    fn numbers_and_timestamps_wrap_without_a_gap() {
        let mut timeline = Timeline::new(1, 160);
        let sound = [1; 160];
        for step in 0..4_u16 {
            let at = (u32::MAX - 200).wrapping_add(160 * u32::from(step));
            let packet = packet(7, 65_534_u16.wrapping_add(step), at, &sound);
            let time = place(&mut timeline, &packet, step.into());
            assert_eq!(time, Some(160 * i64::from(step)));
        }
        assert_eq!(timeline.stats().lost, 0);
    }

    #[test]
    fn another_ssrc_is_another_sender_and_its_figures_are_added() {
        let mut timeline = Timeline::new(1, 160);
        for step in [0, 1, 3] {
            place(&mut timeline, &packet(7, step, 160 * u32::from(step), &[1; 160]), step.into());
        }
        let other = packet(8, 500, 5, &[2; 160]);
        assert_eq!(timeline.order(&other.header), (SequencePlace::At(500), true));
        let next = packet(8, 501, 165, &[2; 160]);
        assert_eq!(timeline.order(&next.header), (SequencePlace::At(501), false));
        timeline.place_sound(501, &next, 160, 4, &HORIZON).unwrap();
        assert_eq!((timeline.stats().received, timeline.stats().lost), (4, 1));
        assert_eq!(timeline.newest(), Some(501));
    }

    #[test]
    fn a_payload_that_is_sent_twice_has_one_place() {
        let mut timeline = Timeline::new(1, 160);
        let places = [(0, 0), (1, 160), (2, 160), (3, 320)].map(|(sequence, at)| {
            place(&mut timeline, &packet(7, sequence, at, &[1; 160]), u64::from(at) / 160)
        });
        assert_eq!(places, [Some(0), Some(160), None, Some(320)]);
        assert_eq!(timeline.stats().late, 0);
    }

    #[test]
    fn the_time_that_has_passed_is_from_the_end_of_the_newest_sound() {
        let mut timeline = Timeline::new(6, 160);
        assert_eq!(timeline.passed_since(0, 3, &HORIZON), None);
        place(&mut timeline, &packet(7, 1, 0, &[1; 160]), 3);
        assert_eq!(timeline.passed_since(0, 4, &HORIZON), Some(6 * (160 + 160 + 320 + 160)));
    }
}
