//! Decoded audio in memory, ready to be played at either rate of a leg.

use std::sync::Arc;

use super::Rate;

/// Audio that can be played: the same sound at 8 and at 16 kHz. Cloning shares the samples.
#[derive(Clone)]
pub struct Clip {
    narrow: Arc<[i16]>,
    wide: Arc<[i16]>,
}

impl Clip {
    /// A clip of the same sound at both rates.
    pub fn new(narrow: Arc<[i16]>, wide: Arc<[i16]>) -> Self {
        Self { narrow, wide }
    }

    /// The samples at `rate`.
    pub fn samples(&self, rate: Rate) -> &[i16] {
        match rate {
            Rate::Hz8000 => &self.narrow,
            Rate::Hz16000 => &self.wide,
        }
    }

    /// Memory that the samples take, in bytes.
    pub fn bytes(&self) -> usize {
        2 * (self.narrow.len() + self.wide.len())
    }
}

impl std::fmt::Debug for Clip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clip").field("samples_16k", &self.wide.len()).finish()
    }
}
