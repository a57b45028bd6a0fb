//! Whether a sender's timestamps run at the speed of its sound.
//!
//! In: the newest packet of sound, its place by its timestamp, and when it came. Out: its place.
//! Some senders count Opus at 24,000 Hz, or all packets as one. Then sound would overlap or have
//! holes: so packets whose sequence numbers follow each other are placed by their own length, as
//! long as what passes between their arrivals says the same. Where it does not, the sender makes
//! pauses, and its timestamps are right.

/// The pace of one source, in samples on the receiver's line of time.
#[derive(Debug, Default)]
pub struct Pace {
    last: Option<Sound>,
    /// Packets are placed by their length.
    by_length: bool,
    run: Run,
    /// How much later than by their timestamps packets are placed since that was last decided.
    debt: i64,
}

/// A packet of sound.
#[derive(Debug, Clone, Copy)]
pub struct Sound {
    /// Its sequence number.
    pub sequence: i64,
    /// Where it lies.
    pub time: i64,
    /// Samples in it.
    pub len: i64,
    /// When it came: the number of the tick, in samples.
    pub arrival: i64,
}

/// Packets in a row whose timestamps differ from their lengths the same way.
#[derive(Debug, Clone, Copy, Default)]
struct Run {
    /// Less than 0 if timestamps are too slow.
    sign: i64,
    by_time: i64,
    by_length: i64,
    since: i64,
}

/// It is decided anew whenever the two differ by so many frames.
const DECIDED: i64 = 4;
/// Packets that come earlier than either says have waited somewhere, and show nothing: in frames.
const EARLY: i64 = 2;

impl Pace {
    /// Where the newest packet lies: `sound.time` is its place by its timestamp. `missing`: how
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
            // They may have been no sound: packets of a key beside it.
            return by_time;
        }
        if !goes_on {
            self.run = Run { sign: differs.signum(), since: last.arrival, ..Run::default() };
            // Sound does not overlap. A little does, where something was appended to payloads.
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

    /// Where a packet lies that was overtaken by the newest one, if it is placed by its length.
    pub fn place_overtaken(&self, sequence: i64, len: i64) -> Option<i64> {
        let last = self.last.filter(|_| self.by_length)?;
        Some(last.time - (last.sequence - sequence) * len)
    }

    /// Notes where the newest packet was placed.
    pub fn placed(&mut self, sound: Sound) {
        self.last = Some(sound);
    }

    /// Notes that a packet with this sequence number holds no new sound.
    pub fn passed_over(&mut self, sequence: i64) {
        if let Some(last) = &mut self.last {
            last.sequence = sequence;
        }
    }

    /// The newest packet.
    pub fn last(&self) -> Option<&Sound> {
        self.last.as_ref()
    }

    /// The sender's clock is another one from now on.
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
