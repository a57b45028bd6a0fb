//! The audio of phones that play a file: the bundled speech, four times.

use std::path::{Path, PathBuf};

use aftertone_core::audio::{Rate, measure::best_match, resample::resample, wav};

use super::speech;

const LIMITS: wav::Limits = wav::Limits { max_seconds: 60 };

/// Writes it into `folder`.
pub fn write(folder: &Path, rate: u32, channels: u16) -> PathBuf {
    let speech = speech();
    let once = speech.samples(Rate::Hz16000);
    let samples = resample(&[once; 4].concat(), 16_000, rate);
    let spec = hound::WavSpec {
        channels,
        sample_rate: rate,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let path = file_in(folder);
    let mut writer = hound::WavWriter::create(&path, spec).unwrap();
    for sample in samples {
        for _ in 0..channels {
            writer.write_sample(sample).unwrap();
        }
    }
    writer.finalize().unwrap();
    path
}

fn file_in(folder: &Path) -> PathBuf {
    folder.join("in.wav")
}

fn read(path: &Path) -> Vec<i16> {
    let read = wav::read(&std::fs::read(path).unwrap(), LIMITS).unwrap();
    resample(&read.samples, read.rate_hz, 16_000)
}

/// How well a piece from the middle of `clip` is found in the audio that was played from `folder`.
pub fn likeness(folder: &Path, clip: &[i16]) -> f64 {
    assert!(clip.len() > 3 * 16_000, "{} samples", clip.len());
    let piece = &clip[16_000..clip.len() - 8_000];
    best_match(piece, &read(&file_in(folder)), 6 * 16_000).1
}

/// How well the bundled speech is found in a file.
pub fn heard_in(path: &Path) -> f64 {
    let heard = read(path);
    best_match(speech().samples(Rate::Hz16000), &heard, heard.len()).1
}

/// The same for each second of the speech: the median. For a phone that plays slightly slower or
/// faster to keep its delay.
pub fn heard_by_seconds(path: &Path) -> f64 {
    let heard = read(path);
    let speech = speech();
    let seconds = speech.samples(Rate::Hz16000).chunks_exact(16_000);
    let mut found: Vec<f64> =
        seconds.map(|second| best_match(second, &heard, heard.len()).1).collect();
    found.sort_by(f64::total_cmp);
    found[found.len() / 2]
}
