//! The kept samples of one recording on their way to the spool: 16 kHz, in chunks of half a second.
//!
//! Input: samples at the operation's rate. Output: chunks on the spool's channel, and whether the
//! spool has taken the last one. What the spool does not take waits here; the tape never blocks.
//! The amount that can wait is bounded by the operation, which keeps no more than its longest
//! duration.

use std::{
    collections::VecDeque,
    mem,
    sync::mpsc::{SyncSender, TrySendError},
};

use aftertone_core::{
    audio::{
        Rate, Upsampler,
        tape::{Chunk, ChunkBody},
    },
    model::RecordingId,
};

/// Half a second at 16 kHz.
const CHUNK_SAMPLES: usize = 8_000;
/// Space for the frame that fills a chunk.
const CHUNK_CAPACITY: usize = CHUNK_SAMPLES + Rate::Hz16000.frame_len();

/// The samples of one recording that the spool has not taken yet.
#[derive(Debug)]
pub(super) struct Tape {
    recording: RecordingId,
    spool: SyncSender<Chunk>,
    /// `None` when the samples are at 16 kHz already.
    upsampler: Option<Upsampler>,
    filling: Vec<i16>,
    waiting: VecDeque<ChunkBody>,
}

/// How much the spool has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spooled {
    /// The spool has taken everything.
    All,
    /// Something still waits.
    Waiting,
    /// The spool is gone, and the clip is lost.
    Lost,
}

impl Tape {
    /// A tape for samples at `rate`.
    pub(super) fn new(recording: RecordingId, spool: SyncSender<Chunk>, rate: Rate) -> Self {
        let upsampler = match rate {
            Rate::Hz8000 => Some(Upsampler::new()),
            Rate::Hz16000 => None,
        };
        let filling = Vec::with_capacity(CHUNK_CAPACITY);
        Self { recording, spool, upsampler, filling, waiting: VecDeque::new() }
    }

    /// Appends samples at the tape's rate.
    pub(super) fn keep(&mut self, samples: &[i16]) {
        match &mut self.upsampler {
            Some(upsampler) => upsampler.push(samples, &mut self.filling),
            None => self.filling.extend_from_slice(samples),
        }
        if self.filling.len() >= CHUNK_SAMPLES {
            let chunk = mem::replace(&mut self.filling, Vec::with_capacity(CHUNK_CAPACITY));
            self.waiting.push_back(ChunkBody::Samples(chunk));
        }
    }

    /// Ends the recording; nothing may be kept after that. `keep`: whether the clip is delivered.
    pub(super) fn end(&mut self, keep: bool) {
        if let Some(upsampler) = &mut self.upsampler {
            upsampler.flush(&mut self.filling);
        }
        if !self.filling.is_empty() {
            self.waiting.push_back(ChunkBody::Samples(mem::take(&mut self.filling)));
        }
        self.waiting.push_back(ChunkBody::End { keep });
    }

    /// Offers the waiting chunks to the spool.
    pub(super) fn spool(&mut self) -> Spooled {
        while let Some(body) = self.waiting.pop_front() {
            let chunk = Chunk { recording: self.recording, body };
            match self.spool.try_send(chunk) {
                Ok(()) => {}
                Err(TrySendError::Full(chunk)) => {
                    self.waiting.push_front(chunk.body);
                    return Spooled::Waiting;
                }
                Err(TrySendError::Disconnected(_)) => return Spooled::Lost,
            }
        }
        Spooled::All
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use super::*;

    fn recording() -> RecordingId {
        RecordingId::from_random([7; 16])
    }

    /// What the spool has taken: lengths of the chunks, and the end.
    fn taken(chunks: &Receiver<Chunk>) -> (Vec<usize>, Option<bool>) {
        let (mut lengths, mut end) = (Vec::new(), None);
        for chunk in chunks.try_iter() {
            assert_eq!((chunk.recording, end), (recording(), None));
            match chunk.body {
                ChunkBody::Samples(samples) => lengths.push(samples.len()),
                ChunkBody::End { keep } => end = Some(keep),
            }
        }
        (lengths, end)
    }

    #[test]
    fn narrow_samples_come_out_twice_as_many() {
        let (sender, chunks) = sync_channel(16);
        let mut tape = Tape::new(recording(), sender, Rate::Hz8000);
        for _ in 0..60 {
            tape.keep(&[100; 160]);
            assert_eq!(tape.spool(), Spooled::All);
        }
        tape.keep(&[100; 7]);
        tape.end(true);
        assert_eq!(tape.spool(), Spooled::All);
        let (lengths, end) = taken(&chunks);
        assert_eq!(lengths.iter().sum::<usize>(), 2 * (60 * 160 + 7));
        assert_eq!((lengths.len(), end), (3, Some(true)));
    }

    #[test]
    fn a_full_spool_loses_nothing() {
        let (sender, chunks) = sync_channel(1);
        let mut tape = Tape::new(recording(), sender, Rate::Hz16000);
        for _ in 0..75 {
            tape.keep(&[1; 320]);
            tape.spool();
        }
        tape.end(false);
        let mut taken_samples = 0;
        loop {
            let spooled = tape.spool();
            let (lengths, end) = taken(&chunks);
            taken_samples += lengths.iter().sum::<usize>();
            if spooled == Spooled::All {
                assert_eq!(end, Some(false));
                break;
            }
        }
        assert_eq!(taken_samples, 75 * 320);
    }

    #[test]
    fn a_spool_that_is_gone_is_told() {
        let (sender, chunks) = sync_channel(1);
        let mut tape = Tape::new(recording(), sender, Rate::Hz8000);
        drop(chunks);
        tape.end(true);
        assert_eq!(tape.spool(), Spooled::Lost);
    }
}
