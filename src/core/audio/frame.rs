//! Twenty milliseconds of 16-bit PCM, mono, at one of the two rates that a leg works at.

/// Frames per second.
pub const FRAMES_PER_SECOND: u32 = 50;

/// The sample rate of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rate {
    /// 8,000 Hz: G.711.
    Hz8000,
    /// 16,000 Hz: wide-band codecs, and every recording.
    Hz16000,
}

impl Rate {
    /// Samples per second.
    pub const fn hz(self) -> u32 {
        match self {
            Self::Hz8000 => 8_000,
            Self::Hz16000 => 16_000,
        }
    }

    /// Samples in a frame of 20 ms.
    pub const fn frame_len(self) -> usize {
        (self.hz() / FRAMES_PER_SECOND) as usize
    }
}

/// 20 ms of PCM.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    rate: Rate,
    samples: [i16; Rate::Hz16000.frame_len()],
}

impl Frame {
    /// A frame of silence.
    pub const fn silence(rate: Rate) -> Self {
        Self { rate, samples: [0; Rate::Hz16000.frame_len()] }
    }

    /// The frame's rate.
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// The frame's samples, 160 or 320 of them.
    pub fn samples(&self) -> &[i16] {
        &self.samples[..self.rate.frame_len()]
    }

    /// The frame's samples, to be written.
    pub fn samples_mut(&mut self) -> &mut [i16] {
        &mut self.samples[..self.rate.frame_len()]
    }
}
