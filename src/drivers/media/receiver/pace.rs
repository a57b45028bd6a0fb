//! Detects whether a sender's timestamps run at the speed of its sound.
//!
//! Input: the newest packet of sound, its place by its timestamp, and when it came. Output: its
//! place. Some senders count Opus at 24,000 Hz, or give all packets one timestamp; by such
//! timestamps, sound would overlap or have gaps. So packets with consecutive sequence numbers are
//! placed by their own length, as long as the time between their arrivals agrees with it. If it
//! does not, the sender makes pauses, and its timestamps are right.

/// The pace of one source, in samples on the receiver's time line.
#[derive(Debug, Default)]
pub struct Pace {
    last: Option<Sound>,
    /// Whether packets are placed by their length.
    by_length: bool,
    run: Run,
    /// How much later than by their timestamps packets have been placed since the last decision.
    debt: i64,
}

/// A packet of sound.
#[derive(Debug, Clone, Copy)]
pub struct Sound {
    /// The sequence number.
    pub sequence: i64,
    /// The place of the sound.
    pub time: i64,
    /// The number of samples.
    pub len: i64,
    /// The time of arrival: the number of the tick, in samples.
    pub arrival: i64,
}

/// Consecutive packets whose timestamps differ from their lengths in the same direction.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    /// Negative if timestamps are too slow.
    sign: i64,
    by_time: i64,
    by_length: i64,
    since: i64,
}

/// The decision is made again whenever the two differ by this many frames.
const DECIDED: i64 = 4;
/// In frames: packets that come earlier than both times say were delayed somewhere, and show
/// nothing.
const EARLY: i64 = 2;

impl Pace {
    /// The place of the newest packet; `sound.time` is its place by its timestamp. `missing`: how
    /// many packets between it and the newest before have not come. `frame`: samples of a frame.
    pub fn place(&mut self, sound: &Sound, missing: i64, frame: i64) -> i64 {
        let Some(last) = self.last else { return sound.time };
        let length = last.len * (1 + missing);
        let (by_length, by_time) = (last.time + length, sound.time);
        let differs = by_time - by_length;
        if differs == 0 {
            (self.by_length, self.run) = (false, Run::default());
            return by_time;
        }
        let goes_on = differs.signum() == self.run.sign;
        if missing > 0 && !goes_on && !self.by_length {
            // The missing packets may have been no sound, but packets of a key beside it.
            return by_time;
        }
        if !goes_on {
            self.run = Run { sign: differs.signum(), since: last.arrival, ..Run::default() };
            // Sound does not overlap, except for a little if something was appended to the
            // payloads.
            self.by_length = differs < 0 && -differs * 4 >= length;
        }
        self.run.by_time += by_time - last.time;
        self.run.by_length += length;
        self.decide(sound.arrival, frame);
        if self.by_length {
            self.debt -= differs.min(0);
            return by_length;
        }
        let paid = self.debt.min(differs.max(0));
        self.debt -= paid;
        by_time - paid
    }

    /// The place of a packet that was overtaken by the newest one, if it is placed by its length.
    pub fn place_overtaken(&self, sequence: i64, len: i64) -> Option<i64> {
        let last = self.last.filter(|_| self.by_length)?;
        Some(last.time - (last.sequence - sequence) * len)
    }

    /// Notes the place of the newest packet.
    pub fn placed(&mut self, sound: Sound) {
        self.last = Some(sound);
    }

    /// Notes that the packet with this sequence number contains no new sound.
    pub fn passed_over(&mut self, sequence: i64) {
        if let Some(last) = &mut self.last {
            last.sequence = sequence;
        }
    }

    /// The newest packet.
    pub fn last(&self) -> Option<&Sound> {
        self.last.as_ref()
    }

    /// Begins anew, because the sender's clock has changed.
    pub fn begin_anew(&mut self) {
        *self = Self::default();
    }

    fn decide(&mut self, arrival: i64, frame: i64) {
        let Run { sign, by_time, by_length, since } = self.run;
        if (by_time - by_length).abs() < DECIDED * frame {
            return;
        }
        let passed = arrival - since;
        if passed >= by_time.min(by_length) - EARLY * frame {
            self.by_length = (passed - by_length).abs() < (passed - by_time).abs();
            if self.by_length {
                self.debt = 0;
            }
        }
        self.run = Run { sign, since: arrival, ..Run::default() };
    }
}
