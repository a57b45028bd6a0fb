//! The index of an SRTP packet: the rollover counter and the sequence number (RFC 3711 section
//! 3.3.1).

use super::SrtpError;

/// SRTP indices have 48 bits: a rollover counter (ROC) of 32 and a sequence number of 16.
const ROC_LIMIT: u64 = 1 << 32;

/// The index of the packet with this sequence number that is the nearest to the highest index so
/// far, as in appendix A of RFC 3711.
///
/// # Errors
/// [`SrtpError::TooOld`] if the packet is from before the first cycle of the stream;
/// [`SrtpError::KeyExhausted`] if the rollover counter would wrap.
pub(super) fn estimate(highest: u64, sequence: u16) -> Result<u64, SrtpError> {
    let roc = highest >> 16;
    let ahead = i32::from(sequence) - i32::from(highest as u16);
    let roc = match ahead {
        0x8001.. => roc.checked_sub(1).ok_or(SrtpError::TooOld)?,
        ..=-0x8001 => roc + 1,
        _ => roc,
    };
    if roc >= ROC_LIMIT {
        return Err(SrtpError::KeyExhausted);
    }
    Ok(first_of_cycle(roc) | u64::from(sequence))
}

/// The first index with this rollover counter.
pub(super) const fn first_of_cycle(roc: u64) -> u64 {
    roc << 16
}

/// The rollover counter of an index, as it is authenticated.
pub(super) const fn roc(index: u64) -> [u8; 4] {
    ((index >> 16) as u32).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_stream_ends_where_its_key_is_exhausted() {
        let last = (1 << 48) - 1;
        assert_eq!(estimate(last - 1, 0xffff), Ok(last));
        assert_eq!(estimate(last, 0), Err(SrtpError::KeyExhausted));
        assert_eq!(estimate(3, 0xffff), Err(SrtpError::TooOld));
    }

    proptest! {
        /// The procedure of appendix A, word by word.
        #[test]
        fn the_estimate_is_that_of_the_appendix(highest in 0u64..1 << 48, sequence: u16) {
            let (roc, last) = ((highest >> 16) as i64, highest as i64 & 0xffff);
            let sequence = i64::from(sequence);
            let guess = if last < 32_768 {
                if sequence - last > 32_768 { roc - 1 } else { roc }
            } else if last - 32_768 > sequence {
                roc + 1
            } else {
                roc
            };
            let expected = match guess {
                -1 => Err(SrtpError::TooOld),
                0x1_0000_0000 => Err(SrtpError::KeyExhausted),
                _ => Ok((guess * 65_536 + sequence) as u64),
            };
            prop_assert_eq!(estimate(highest, sequence as u16), expected);
        }
    }
}
