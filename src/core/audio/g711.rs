//! ITU-T G.711: conversion by both laws between one octet and a 16-bit sample at 8,000 Hz.
//!
//! Decoding reads a table of 256 values. Encoding is arithmetic, because a table of 64 KiB would
//! displace more useful data from the cache. State and packets are in `codec`.

/// Which of the two laws of G.711.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Law {
    /// µ-law: RTP's PCMU, payload type 0 (RFC 3551 section 4.5.14).
    Mu,
    /// A-law: RTP's PCMA, payload type 8.
    A,
}

impl Law {
    /// The 16-bit sample that `code` stands for.
    pub fn decode(self, code: u8) -> i16 {
        self.table()[usize::from(code)]
    }

    /// The code whose value is nearest to `sample`.
    pub fn encode(self, sample: i16) -> u8 {
        match self {
            Self::Mu => encode_mu(sample),
            Self::A => encode_a(sample),
        }
    }

    /// The values of all codes.
    pub fn table(self) -> &'static [i16; 256] {
        match self {
            Self::Mu => &MU_VALUES,
            Self::A => &A_VALUES,
        }
    }
}

/// What µ-law adds to a magnitude so that each segment begins at a power of two: 33 in the 14-bit
/// numbers of G.711 table 2a, times four.
const MU_BIAS: u16 = 0x84;
/// The largest magnitude that still fits once the bias is added.
const MU_CLIP: u16 = 0x7FFF - MU_BIAS;

fn encode_mu(sample: i16) -> u8 {
    let biased = sample.unsigned_abs().min(MU_CLIP) + MU_BIAS;
    let segment = biased.ilog2() - 7;
    let step = (biased >> (segment + 3)) & 0x0F;
    let sign = if sample < 0 { 0x80 } else { 0 };
    // G.711 sends µ-law with all bits inverted.
    !(sign | (segment as u8) << 4 | step as u8)
}

fn encode_a(sample: i16) -> u8 {
    // -1 - x instead of -x: the negative half has no zero of its own, and +32,768 does not fit.
    let magnitude = if sample < 0 { !sample } else { sample } as u16 >> 4;
    let code = match magnitude {
        0..16 => magnitude as u8,
        _ => {
            let segment = magnitude.ilog2() - 3;
            (segment as u8) << 4 | ((magnitude >> (segment - 1)) & 0x0F) as u8
        }
    };
    let sign = if sample < 0 { 0 } else { 0x80 };
    // G.711 sends A-law with the even bits inverted.
    (code | sign) ^ 0x55
}

static MU_VALUES: [i16; 256] = {
    let mut values = [0; 256];
    let mut code = 0;
    while code < 256 {
        let bits = !(code as u8);
        let biased = ((((bits & 0x0F) as i16) << 3) + MU_BIAS as i16) << ((bits >> 4) & 0x07);
        let magnitude = biased - MU_BIAS as i16;
        values[code] = if bits & 0x80 != 0 { -magnitude } else { magnitude };
        code += 1;
    }
    values
};

static A_VALUES: [i16; 256] = {
    let mut values = [0; 256];
    let mut code = 0;
    while code < 256 {
        let bits = code as u8 ^ 0x55;
        let step = ((bits & 0x0F) as i16) << 4;
        let magnitude = match (bits >> 4) & 0x07 {
            0 => step + 0x08,
            segment => (step + 0x108) << (segment - 1),
        };
        values[code] = if bits & 0x80 != 0 { magnitude } else { -magnitude };
        code += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_codes_have_the_values_of_the_recommendation() {
        let mu = [(0xFF, 0), (0x7F, 0), (0x80, 32_124), (0x00, -32_124), (0xFE, 8)];
        for (code, value) in mu {
            assert_eq!(Law::Mu.decode(code), value, "µ-law {code:#04x}");
        }
        let a = [(0xD5, 8), (0x55, -8), (0xAA, 32_256), (0x2A, -32_256), (0xD4, 24)];
        for (code, value) in a {
            assert_eq!(Law::A.decode(code), value, "A-law {code:#04x}");
        }
    }

    #[test]
    fn a_value_is_encoded_as_its_own_code() {
        for code in 0..=255u8 {
            assert_eq!(Law::A.encode(Law::A.decode(code)), code);
            // µ-law has two zeros; the positive one is sent.
            let expected = if code == 0x7F { 0xFF } else { code };
            assert_eq!(Law::Mu.encode(Law::Mu.decode(code)), expected);
        }
    }

    #[test]
    fn every_sample_comes_back_within_half_a_step() {
        for sample in i16::MIN..=i16::MAX {
            let magnitude = i32::from(sample.unsigned_abs());
            let mu = i32::from(Law::Mu.decode(Law::Mu.encode(sample)));
            if magnitude <= i32::from(MU_CLIP) {
                let half_step = 4 << ((magnitude + 0x84).ilog2() - 7);
                assert!((mu - i32::from(sample)).abs() <= half_step, "µ-law {sample} -> {mu}");
            } else {
                assert_eq!(mu.abs(), 32_124);
            }
            let a = i32::from(Law::A.decode(Law::A.encode(sample)));
            let half_step = 8 << (magnitude >> 4).max(16).ilog2().saturating_sub(4);
            assert!((a - i32::from(sample)).abs() <= half_step, "A-law {sample} -> {a}");
            assert!(mu == 0 || (mu < 0) == (sample < 0));
            assert_eq!(a < 0, sample < 0);
        }
    }

    #[test]
    fn a_louder_sample_never_becomes_a_quieter_one() {
        for law in [Law::Mu, Law::A] {
            let values = (i16::MIN..=i16::MAX).map(|sample| law.decode(law.encode(sample)));
            assert!(values.is_sorted());
        }
    }
}
