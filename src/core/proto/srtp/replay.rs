//! Which packets of a stream have come (RFC 3711 section 3.3.2).

use super::SrtpError;

const WORDS: usize = 8;

/// The replay window of one stream: the highest index so far, and which of the [`Self::SIZE`] last
/// ones were received.
#[derive(Debug, Clone, Default)]
pub(super) struct ReplayWindow {
    highest: Option<u64>,
    /// One bit for each index of the window, at the index modulo [`Self::SIZE`].
    received: [u64; WORDS],
}

impl ReplayWindow {
    /// How many indices the window has: 10 s of packets of 20 ms. RFC 3711 asks for at least 64.
    pub(super) const SIZE: u64 = WORDS as u64 * 64;

    /// The highest index so far.
    pub(super) fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Whether a packet with this index is new.
    ///
    /// # Errors
    /// [`SrtpError::Replayed`] or [`SrtpError::TooOld`].
    pub(super) fn check(&self, index: u64) -> Result<(), SrtpError> {
        let Some(age) = self.highest.and_then(|highest| highest.checked_sub(index)) else {
            return Ok(());
        };
        if age >= Self::SIZE {
            return Err(SrtpError::TooOld);
        }
        let (word, bit) = Self::place(index);
        if self.received[word] & bit == 0 { Ok(()) } else { Err(SrtpError::Replayed) }
    }

    /// Stores that an authenticated packet with this index has come; [`Self::check`] has found it
    /// to be new.
    pub(super) fn insert(&mut self, index: u64) {
        if self.highest.is_none_or(|highest| index > highest) {
            let highest = self.highest.unwrap_or(index);
            if index - highest >= Self::SIZE {
                self.received = [0; WORDS];
            } else {
                for skipped in highest + 1..index {
                    let (word, bit) = Self::place(skipped);
                    self.received[word] &= !bit;
                }
            }
            self.highest = Some(index);
        }
        let (word, bit) = Self::place(index);
        self.received[word] |= bit;
    }

    fn place(index: u64) -> (usize, u64) {
        ((index / 64) as usize % WORDS, 1 << (index % 64))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_index_is_accepted_once_and_while_it_is_in_the_window(
            steps in prop::collection::vec((-600i64..700, 0u8..8), 1..300),
        ) {
            let (mut window, mut received) = (ReplayWindow::default(), BTreeSet::new());
            let mut index = 1_000i64;
            for (step, kind) in steps {
                // Most steps are short, and a few are longer than the window.
                index = (index + if kind == 0 { step } else { step / 50 }).max(0);
                let (at, highest) = (index as u64, received.last().copied());
                let expected = match highest {
                    Some(highest) if at + ReplayWindow::SIZE <= highest => Err(SrtpError::TooOld),
                    _ if received.contains(&at) => Err(SrtpError::Replayed),
                    _ => Ok(()),
                };
                prop_assert_eq!(window.check(at), expected);
                if expected.is_ok() {
                    window.insert(at);
                    received.insert(at);
                }
                prop_assert_eq!(window.highest(), received.last().copied());
            }
        }
    }
}
