//! Playout: turns placed packets into one frame per tick.
//!
//! Input: payloads with their places. Output: exactly one frame of 20 ms per tick. Packets wait in
//! the jitter buffer until their time; missing sound is concealed, and a pause keeps its length.
//! Playout never goes back. It knows no sequence numbers and no keys, except when keys are down.

use aftertone_core::{
    audio::{Codec, CodecError, Decoder, measure::level_dbfs},
    operation::HeardTone,
    proto::rtp::jitter_buffer::{Inserted, JitterBuffer},
};

use super::{horizon::Horizon, pace::SoundPacket, pressed::Pressed};

/// One frame of playout.
#[derive(Debug, Clone, Copy)]
pub struct PlayedFrame<'a> {
    /// 20 ms at the stream's rate; silence if nothing came.
    pub samples: &'a [i16],
    /// A key that begins in this frame.
    pub tone: Option<HeardTone>,
    /// By how many frames playout has advanced: see
    /// [`Heard::advance`](aftertone_core::operation::Heard::advance).
    pub advance: u32,
    /// How many newer frames have already been received.
    pub behind: u32,
}

/// What playout did in one tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlayoutStep {
    /// Played silence, because no sound has come yet.
    Empty,
    /// Played silence while the buffer fills.
    Filling,
    /// Inserted a frame, which adds delay.
    Held,
    /// Played the frame that begins at `start`, after leaving out some frames.
    Played { start: i64, left_out: u32 },
}

/// The sound of one stream on its way from packets to frames. All times are in samples.
#[derive(Debug)]
pub(super) struct Playout {
    frame_len: usize,
    decoder: Decoder,
    waiting: JitterBuffer,
    /// Samples in a packet, as far as is known.
    packet_len: i64,
    /// Decoded sound that is to be played next.
    decoded: Vec<i16>,
    /// The frame that is played.
    frame: Vec<i16>,
    /// Time of the next sample; `None` until the buffer has filled for the first time.
    cursor: Option<i64>,
    /// Number of frames for which the buffer has been filling.
    filling: i64,
    /// Number of consecutive frames for which nothing was there.
    missing: u32,
    /// From this time on the sender sends no sound: what is missing is silence, not loss.
    quiet_from: Option<i64>,
    /// Frames that are still to be inserted because packets came late.
    hold: u32,
    /// Frames of reserve beyond one packet.
    reserve: i64,
    /// Whether no more packets come.
    draining: bool,
    late: u64,
    duplicate: u64,
}

/// The initial and the largest reserve: with one packet of 20 ms, a depth of 60 ms and of 200 ms.
const RESERVE: i64 = 2;
const MAX_RESERVE: i64 = 9;
/// Frames that are concealed before silence is played.
const CONCEALED: u32 = 3;
/// Frames below this level may be left out to catch up with a sender that has a faster clock.
const QUIET_DBFS: f64 = -45.0;
/// Frames of delay from which sound is left out as well to catch up: a second.
const MAX_BEHIND: i64 = 50;
/// The largest number of frames of sound that wait: packets that come faster than their clock says
/// are dropped.
const MAX_AHEAD: i64 = 250;

impl Playout {
    /// Playout of a codec, before the first packet.
    ///
    /// # Errors
    /// The decoder cannot be created.
    pub(super) fn new(codec: Codec) -> Result<Self, CodecError> {
        let frame_len = codec.rate().frame_len();
        Ok(Self {
            frame_len,
            decoder: Decoder::new(codec)?,
            waiting: JitterBuffer::default(),
            packet_len: frame_len as i64,
            decoded: Vec::with_capacity(4 * frame_len),
            frame: Vec::with_capacity(frame_len),
            cursor: None,
            filling: 0,
            missing: 0,
            quiet_from: None,
            hold: 0,
            reserve: RESERVE,
            draining: false,
            late: 0,
            duplicate: 0,
        })
    }

    /// Puts sound in its place, and returns the place: a newest packet that is late may be played
    /// now.
    pub(super) fn insert(&mut self, sound: &SoundPacket, payload: &[u8], is_newest: bool) -> i64 {
        let SoundPacket { mut time, len, .. } = *sound;
        if payload.is_empty() {
            return time;
        }
        let frame_len = self.frame_len();
        if let Some(next) = self.next_time() {
            let delay = next - time;
            if delay > 0 && self.is_dry() && is_newest && !self.draining {
                // Only silence or concealment was played in its place, so it is played now, and
                // what follows is delayed by as much.
                time = next;
                let frames = (delay + frame_len - 1) / frame_len;
                self.reserve = self.reserve.saturating_add(frames).min(MAX_RESERVE);
            } else if delay >= len {
                self.late += 1;
                if self.reserve < MAX_RESERVE {
                    self.reserve += 1;
                    self.hold += 1;
                }
                return time;
            }
        }
        let begin = self.next_time().or(self.waiting.earliest()).unwrap_or(time);
        if time - begin > MAX_AHEAD * frame_len {
            self.late += 1;
            return time;
        }
        match self.waiting.insert(time, payload) {
            Inserted::Kept => self.packet_len = len,
            Inserted::Duplicate => self.duplicate += 1,
            Inserted::Full => self.late += 1,
        }
        time
    }

    /// From `time` on the sender sends no sound.
    pub(super) fn fall_quiet(&mut self, time: i64) {
        self.quiet_from = Some(self.quiet_from.map_or(time, |from| from.min(time)));
    }

    /// Plays the next frame. What is missing while a key is down is silence.
    pub(super) fn pull(&mut self, pressed: &Pressed) -> PlayoutStep {
        self.frame.clear();
        if self.cursor.is_none() {
            self.begin();
        }
        let Some(mut cursor) = self.cursor else {
            self.frame.resize(self.frame_len, 0);
            return if self.waiting.is_empty() { PlayoutStep::Empty } else { PlayoutStep::Filling };
        };
        if self.hold > 0 && !self.draining {
            // This frame adds delay, so that packets that are as late as the last one are in time.
            self.hold -= 1;
            if !self.is_quiet_at(cursor, pressed) {
                self.decoder.conceal(&mut self.frame);
            }
            self.frame.resize(self.frame_len, 0);
            return PlayoutStep::Held;
        }
        let too_deep = self.too_deep(cursor);
        self.fill(cursor, pressed);
        let is_quiet = |sound: &[i16]| level_dbfs(sound) < QUIET_DBFS;
        let may_be_left_out =
            |behind| behind > MAX_BEHIND || is_quiet(&self.decoded[..self.frame_len]);
        let mut left_out = 0;
        if too_deep.is_some_and(may_be_left_out) {
            self.decoded.drain(..self.frame_len);
            left_out = 1;
            cursor += self.frame_len();
            self.fill(cursor, pressed);
        }
        self.frame.extend(self.decoded.drain(..self.frame_len));
        self.cursor = Some(cursor + self.frame_len());
        PlayoutStep::Played { start: cursor, left_out }
    }

    /// The frame that was played.
    pub(super) fn frame(&self) -> &[i16] {
        &self.frame
    }

    /// The frame that was played, to silence a part of it.
    pub(super) fn frame_mut(&mut self) -> &mut [i16] {
        &mut self.frame
    }

    /// Number of frames that have come and are newer than those that were played.
    pub(super) fn behind(&self) -> u32 {
        self.cursor.map_or(0, |cursor| self.behind_of(cursor))
    }

    /// No more packets come: what is there is played without waiting.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether all sound that came has been played.
    pub(super) fn is_drained(&self) -> bool {
        self.waiting.is_empty() && self.decoded.is_empty()
    }

    /// Whether sound waits or is played.
    pub(super) fn has_sound(&self) -> bool {
        self.cursor.is_some() || !self.waiting.is_empty()
    }

    /// Packets that came too late or were too far ahead.
    pub(super) fn late(&self) -> u64 {
        self.late
    }

    /// Packets at a time at which there was one already.
    pub(super) fn duplicate(&self) -> u64 {
        self.duplicate
    }

    /// The horizon for the next packet. `last_key`: the place of the last key that waits.
    pub(super) fn horizon(&self, last_key: Option<i64>) -> Horizon {
        let frame_len = self.frame_len();
        Horizon {
            next: self.next_time(),
            edge: self.live_edge().or(last_key).unwrap_or(0),
            is_empty: self.waiting.is_empty() && last_key.is_none(),
            is_dry: self.is_dry(),
            packet_len: self.packet_len,
            reserve: self.reserve * frame_len,
            frame_len,
        }
    }

    /// Begins playout when there is enough: a packet, and the reserve for late ones.
    fn begin(&mut self) {
        let (Some(earliest), Some(latest)) = (self.waiting.earliest(), self.waiting.latest())
        else {
            return;
        };
        let frame_len = self.frame_len();
        let depth = latest + self.packet_len - earliest;
        let wanted = self.packet_len + self.reserve * frame_len;
        // After this time, playout begins even if no further packet comes.
        self.filling += 1;
        let is_alone = self.filling * frame_len > wanted;
        if self.draining || is_alone || depth >= wanted {
            self.cursor = Some(earliest);
            self.missing = 0;
        }
    }

    /// How many frames are behind, if a sender's faster clock has made the buffer too deep.
    fn too_deep(&self, cursor: i64) -> Option<i64> {
        let wanted = self.packet_len / self.frame_len() + self.reserve + 3;
        let behind = i64::from(self.behind_of(cursor));
        (!self.draining && behind > wanted).then_some(behind)
    }

    /// Decodes packets and bridges gaps until there is a frame.
    fn fill(&mut self, cursor: i64, pressed: &Pressed) {
        let frame_len = self.frame_len;
        while self.decoded.len() < frame_len {
            let next = cursor + self.decoded.len() as i64;
            match self.waiting.earliest() {
                Some(time) if time <= next => {
                    let Self { waiting, decoder, decoded, .. } = self;
                    let before = decoded.len();
                    match waiting.take(|_, payload| decoder.decode(payload, decoded)) {
                        Some(Ok(())) => {
                            // The part that overlaps with earlier sound is not played twice.
                            let overlap = usize::try_from(next - time).unwrap_or(0);
                            let came = decoded.len() - before;
                            decoded.drain(before..before + overlap.min(came));
                            self.packet_len = (came as i64).max(1);
                            self.missing = 0;
                            self.quiet_from = self.quiet_from.filter(|from| *from > time);
                        }
                        Some(Err(_)) | None => self.late += 1,
                    }
                }
                Some(time) => {
                    let gap = usize::try_from(time - next).unwrap_or(usize::MAX);
                    self.bridge(gap.min(frame_len - self.decoded.len()), next, pressed);
                }
                None => self.bridge(frame_len - self.decoded.len(), next, pressed),
            }
        }
    }

    /// Fills in `samples` that are missing: concealed at first, then silence.
    fn bridge(&mut self, samples: usize, at: i64, pressed: &Pressed) {
        let before = self.decoded.len();
        self.missing = self.missing.saturating_add(1);
        if !self.is_quiet_at(at, pressed) && self.missing <= CONCEALED && !self.draining {
            self.decoder.conceal(&mut self.decoded);
        }
        self.decoded.resize(before + samples, 0);
    }

    /// Whether the sender sends no sound at that time, or a key is down.
    fn is_quiet_at(&self, at: i64, pressed: &Pressed) -> bool {
        self.quiet_from.is_some_and(|from| from <= at) || pressed.is_down_at(at)
    }

    /// Number of frames that have come and are newer than `end`.
    fn behind_of(&self, end: i64) -> u32 {
        let frame_len = self.frame_len();
        let newer = self.live_edge().unwrap_or(end) - end;
        u32::try_from((newer + frame_len - 1).div_euclid(frame_len)).unwrap_or(0)
    }

    /// Whether playout has run out of sound.
    fn is_dry(&self) -> bool {
        self.cursor.is_some() && self.waiting.is_empty() && self.missing > 0
    }

    /// The end of all sound that has come; `None` before the first packet.
    fn live_edge(&self) -> Option<i64> {
        let waiting = self.waiting.latest().map(|latest| latest + self.packet_len);
        waiting.max(self.next_time())
    }

    /// Time of the next sample to be decoded.
    fn next_time(&self) -> Option<i64> {
        self.cursor.map(|cursor| cursor + self.decoded.len() as i64)
    }

    fn frame_len(&self) -> i64 {
        self.frame_len as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: i64 = 160;

    fn playout() -> Playout {
        Playout::new(Codec::Pcmu).unwrap()
    }

    /// Inserts loud sound at `time` and returns its place.
    fn insert(playout: &mut Playout, time: i64) -> i64 {
        let sound = SoundPacket { sequence: 0, time, len: FRAME, arrival: 0 };
        playout.insert(&sound, &[9; FRAME as usize], true)
    }

    fn pull(playout: &mut Playout) -> PlayoutStep {
        let step = playout.pull(&Pressed::default());
        assert_eq!(playout.frame().len(), FRAME as usize);
        step
    }

    #[test]
    fn playout_begins_with_a_reserve_of_two_frames() {
        let mut playout = playout();
        assert_eq!(pull(&mut playout), PlayoutStep::Empty);
        insert(&mut playout, 1_000);
        insert(&mut playout, 1_160);
        assert_eq!(pull(&mut playout), PlayoutStep::Filling);
        insert(&mut playout, 1_320);
        assert_eq!(pull(&mut playout), PlayoutStep::Played { start: 1_000, left_out: 0 });
        assert_eq!(playout.behind(), 2);
    }

    #[test]
    fn what_is_missing_is_concealed_and_then_silent() {
        let mut playout = playout();
        (0..3).for_each(|step| _ = insert(&mut playout, step * FRAME));
        let loud: Vec<bool> = (0..8)
            .map(|_| {
                pull(&mut playout);
                playout.frame().iter().any(|sample| *sample != 0)
            })
            .collect();
        assert_eq!(loud, [true, true, true, true, true, true, false, false]);
        // A late newest packet is played now, and the reserve grows.
        assert!(playout.horizon(None).is_dry);
        assert_eq!(insert(&mut playout, 3 * FRAME), 8 * FRAME);
        assert_eq!(playout.horizon(None).reserve, 7 * FRAME);
    }

    #[test]
    fn a_packet_that_missed_its_time_is_dropped_and_the_next_ones_get_more_time() {
        let mut playout = playout();
        [0, 160, 320, 640].into_iter().for_each(|time| _ = insert(&mut playout, time));
        (0..4).for_each(|_| _ = pull(&mut playout));
        assert_eq!((insert(&mut playout, 480), playout.late()), (480, 1));
        assert_eq!(pull(&mut playout), PlayoutStep::Held);
        assert_eq!(pull(&mut playout), PlayoutStep::Played { start: 640, left_out: 0 });
    }

    #[test]
    fn a_quiet_frame_is_left_out_when_the_buffer_is_too_deep() {
        let mut playout = playout();
        let quiet = |step| SoundPacket { sequence: 0, time: step * FRAME, len: FRAME, arrival: 0 };
        for step in 0..8 {
            playout.insert(&quiet(step), &[0xff; FRAME as usize], true);
        }
        assert_eq!(pull(&mut playout), PlayoutStep::Played { start: FRAME, left_out: 1 });
        playout.drain();
        assert_eq!(pull(&mut playout), PlayoutStep::Played { start: 2 * FRAME, left_out: 0 });
    }
}
