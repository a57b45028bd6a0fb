//! Unpacks prompts that were compressed by the server (`Content-Encoding`, RFC 9110 section 8.4) or
//! as a file (`.wav.gz`).
//!
//! In: the received bytes and the codings that the server names. Out: the file itself. The size
//! limit applies both to the received bytes and to the file.

use std::io::{self, Read};

use flate2::{
    bufread::{DeflateDecoder, GzDecoder},
    read::ZlibDecoder,
};

/// Why a prompt cannot be unpacked, in words for the author of the bot.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnpackError {
    /// A coding that is not supported.
    #[error("it is packed with {0:?}, and only gzip and deflate are unpacked here")]
    Coding(String),
    /// The bytes are not valid for the coding.
    #[error("it is packed with {coding} and cannot be unpacked: {source}")]
    Broken {
        /// The coding.
        coding: &'static str,
        /// What is wrong.
        source: io::Error,
    },
    /// The file is larger than the limit.
    #[error("unpacked it is larger than {}", bytesize::ByteSize(*.0))]
    TooLarge(u64),
    /// Too many gzip members: each costs as much as thousands of bytes.
    #[error("it is packed with gzip in more than {0} members, most of them tiny")]
    Members(usize),
}

/// More nested codings are refused: each costs as much as the file.
const MAX_CODINGS: usize = 3;

/// Up to this number, the members of a gzip file may be tiny. With more, they must have
/// [`MEMBER_BYTES`] packed bytes on average: programs that write members (`bgzip`, `pigz`, `cat`)
/// give each of them far more.
const MAX_TINY_MEMBERS: usize = 64;
const MEMBER_BYTES: usize = 1_024;

/// Undoes `codings`, which are in the order in which they were applied, and then gzip of the file
/// itself.
///
/// # Errors
/// The file has an unknown coding, is damaged, or is larger than `max_bytes`.
pub(super) fn unpacked(
    mut bytes: Vec<u8>,
    codings: &[String],
    max_bytes: u64,
) -> Result<Vec<u8>, UnpackError> {
    if codings.len() > MAX_CODINGS {
        return Err(UnpackError::Coding(codings.join(", ")));
    }
    for coding in codings.iter().rev() {
        // The coding is named but was not applied: object stores repeat the header of the upload,
        // such as `aws-chunked`, `utf-8` or a gzip that they have undone.
        if bytes.starts_with(b"RIFF") {
            return Ok(bytes);
        }
        bytes = match coding.as_str() {
            "gzip" | "x-gzip" => gunzipped(bytes, max_bytes)?,
            "deflate" => inflated(&bytes, max_bytes)?,
            "identity" => bytes,
            _ => return Err(UnpackError::Coding(coding.clone())),
        };
    }
    gunzipped(bytes, max_bytes)
}

/// The content of one or more gzip members (RFC 1952); other bytes are returned unchanged. As with
/// the `gzip` command, bytes after the last member are ignored.
fn gunzipped(bytes: Vec<u8>, max_bytes: u64) -> Result<Vec<u8>, UnpackError> {
    let is_packed = |bytes: &[u8]| bytes.starts_with(&[0x1F, 0x8B]);
    if !is_packed(&bytes) {
        return Ok(bytes);
    }
    let mut plain = Vec::new();
    let mut rest = &bytes[..];
    let max_members = MAX_TINY_MEMBERS + bytes.len() / MEMBER_BYTES;
    let mut members = 0;
    while is_packed(rest) {
        members += 1;
        if members > max_members {
            return Err(UnpackError::Members(max_members));
        }
        let mut member = GzDecoder::new(rest);
        read_limited(&mut member, "gzip", &mut plain, max_bytes)?;
        rest = member.into_inner();
    }
    Ok(plain)
}

/// HTTP's deflate is zlib (RFC 1950); some servers send deflate without the zlib frame.
fn inflated(bytes: &[u8], max_bytes: u64) -> Result<Vec<u8>, UnpackError> {
    let has_frame = bytes
        .first_chunk::<2>()
        .is_some_and(|begin| begin[0] & 0x0F == 8 && u16::from_be_bytes(*begin).is_multiple_of(31));
    let mut plain = Vec::new();
    if has_frame {
        read_limited(ZlibDecoder::new(bytes), "deflate", &mut plain, max_bytes)?
    } else {
        read_limited(DeflateDecoder::new(bytes), "deflate", &mut plain, max_bytes)?
    }
    Ok(plain)
}

fn read_limited(
    packed: impl Read,
    coding: &'static str,
    plain: &mut Vec<u8>,
    max_bytes: u64,
) -> Result<(), UnpackError> {
    let left = max_bytes.saturating_sub(plain.len() as u64);
    packed
        .take(left.saturating_add(1))
        .read_to_end(plain)
        .map_err(|source| UnpackError::Broken { coding, source })?;
    if plain.len() as u64 > max_bytes { Err(UnpackError::TooLarge(max_bytes)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use flate2::{
        Compression,
        bufread::{DeflateEncoder, GzEncoder, ZlibEncoder},
    };
    use proptest::prelude::*;

    use super::*;

    const WAV: &[u8] = b"RIFF....WAVE and so on";

    fn all(mut packed: impl Read) -> Vec<u8> {
        let mut bytes = Vec::new();
        packed.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        all(GzEncoder::new(bytes, Compression::best()))
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        all(ZlibEncoder::new(bytes, Compression::fast()))
    }

    fn names(codings: &[&str]) -> Vec<String> {
        codings.iter().map(|coding| (*coding).to_owned()).collect()
    }

    fn unpacked(bytes: &[u8], codings: &[&str]) -> Result<Vec<u8>, UnpackError> {
        super::unpacked(bytes.to_vec(), &names(codings), 1_000)
    }

    #[test]
    fn a_packed_prompt_is_unpacked_whoever_has_packed_it() {
        let raw = all(DeflateEncoder::new(WAV, Compression::fast()));
        let two_members = [gzip(&WAV[..5]), gzip(&WAV[5..])].concat();
        let padded = [gzip(WAV), vec![0; 7]].concat();
        for (bytes, codings) in [
            (WAV.to_vec(), &[][..]),
            (WAV.to_vec(), &["identity"]),
            (gzip(WAV), &["gzip"]),
            (gzip(WAV), &["x-gzip"]),
            (zlib(WAV), &["deflate"]),
            (raw, &["deflate"]),
            (gzip(&zlib(WAV)), &["deflate", "gzip"]),
            (two_members, &["gzip"]),
            (padded, &["gzip"]),
            // A `.wav.gz`, also when it was packed once more on the way.
            (gzip(WAV), &[]),
            (gzip(&gzip(WAV)), &["gzip"]),
            // Named but not applied.
            (WAV.to_vec(), &["gzip"]),
            (WAV.to_vec(), &["br"]),
            (gzip(WAV), &["aws-chunked", "gzip"]),
        ] {
            assert_eq!(unpacked(&bytes, codings).unwrap(), WAV, "{codings:?}");
        }
    }

    #[test]
    fn a_coding_that_is_not_unpacked_is_named() {
        for (bytes, codings, words) in [
            (b"?".to_vec(), &["br"][..], "packed with \"br\""),
            (b"?".to_vec(), &["zstd"], "\"zstd\""),
            (gzip(b"?"), &["br", "gzip"], "\"br\""),
            (b"?".to_vec(), &["gzip"; 4], "gzip, gzip, gzip, gzip"),
            (gzip(WAV)[..20].to_vec(), &["gzip"], "gzip and cannot be unpacked"),
            (gzip(WAV)[..20].to_vec(), &[], "gzip and cannot be unpacked"),
            (b"\xFF\xFF?".to_vec(), &["deflate"], "deflate and cannot be unpacked"),
            (gzip(&[b' '; 1_001]), &["gzip"], "larger than 1000 B"),
            (gzip(&[b' '; 1_001]), &[], "larger than 1000 B"),
            (zlib(&[b' '; 1_001]), &["deflate"], "larger than 1000 B"),
            ([gzip(&[b' '; 600]), gzip(&[b' '; 600])].concat(), &[], "larger than 1000 B"),
        ] {
            let error = unpacked(&bytes, codings).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(unpacked(&gzip(&[b' '; 1_000]), &[]).unwrap().len(), 1_000);
    }

    #[test]
    fn many_tiny_members_of_gzip_are_refused_before_they_cost_seconds() {
        let empty = gzip(b"");
        let many = empty.repeat((10 << 20) / empty.len());
        let codings = ["gzip".to_owned()];
        for (bytes, codings) in [(gzip(&many), &codings[..]), (many, &[])] {
            let begun = std::time::Instant::now();
            let refused = super::unpacked(bytes, codings, 20 << 20).unwrap_err();
            let took = begun.elapsed();
            assert!(refused.to_string().contains("members"), "{refused}");
            assert!(took < std::time::Duration::from_secs(5), "{took:?}");
        }
        // A few of them are accepted, and so are many with content.
        assert_eq!(unpacked(&[gzip(WAV), empty.repeat(60)].concat(), &[]).unwrap(), WAV);
        let mut state = 1u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(300 * 1_100)
        .collect();
        let blocks: Vec<u8> = noise.chunks(1_100).flat_map(gzip).collect();
        assert_eq!(super::unpacked(blocks, &[], 1 << 20).unwrap(), noise);
    }

    proptest! {
        #[test]
        fn no_bytes_unpack_to_more_than_the_limit(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            codings in proptest::collection::vec("gzip|deflate|identity|br", 0..5),
        ) {
            let packed = gzip(&bytes);
            for bytes in [bytes, packed] {
                let length = bytes.len();
                if let Ok(plain) = super::unpacked(bytes, &codings, 150) {
                    prop_assert!(plain.len() <= 150.max(length));
                }
            }
        }
    }
}
