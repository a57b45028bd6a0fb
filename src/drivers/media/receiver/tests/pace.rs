//! Senders whose timestamps run at another speed than their sound: a clip must be as long as the
//! time that passed.

use super::*;

/// Plays `count` packets of sound, one per tick, by their timestamps. `pause`: the number of a
/// packet and how many ticks pass before it, while the sender's clock goes on. Packets come in the
/// order that `came` gives.
fn play_at(
    sent: &[u8],
    size: usize,
    step: impl Fn(usize) -> i64,
    pause: Option<(usize, usize)>,
    came: impl Fn(usize) -> Option<usize>,
) -> (Vec<i16>, ReceiverStats) {
    let count = sent.len() / size;
    let paused = |index: usize| match pause {
        Some((before, ticks)) if index >= before => ticks,
        _ => 0,
    };
    let timestamp = |index: usize| (0..index + paused(index)).map(&step).sum::<i64>() as u32;
    let mut receiver = Receiver::new(&plan()).unwrap();
    let mut played = Vec::new();
    for tick in 0..count + paused(count) {
        let index = (0..count).find(|index| index + paused(*index) == tick);
        if let Some(index) = index.and_then(&came) {
            let piece = &sent[index * size..][..size];
            let datagram = packet(60_000 + index as u16, timestamp(index), false, 0, piece);
            receiver.push_bytes(&datagram, tick as u64).unwrap();
        }
        played.extend_from_slice(receiver.pull().samples);
    }
    receiver.drain();
    while !receiver.is_drained() {
        played.extend_from_slice(receiver.pull().samples);
    }
    (played, receiver.stats())
}

/// Loud codes in which no frame is like another.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 12_345_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Excludes the two zeros.
        (state >> 24) as u8 & 0xbf
    };
    (0..count).map(|_| next()).collect()
}

/// The played samples from the first sound to the last.
fn all_heard(played: &[i16]) -> &[i16] {
    let is_sound = |sample: &i16| *sample != 0;
    let start = played.iter().position(is_sound).unwrap_or(0);
    &played[start..played.iter().rposition(is_sound).map_or(start, |last| last + 1)]
}

#[test]
fn sound_whose_timestamps_run_at_half_speed_has_no_holes() {
    let sent = codes(200 * FRAME);
    for step in [80, 0, 20, 26, 40, 120] {
        let (played, stats) = play_at(&sent, FRAME, |_| step, None, Some);
        assert!(all_heard(&played) == sound(&sent), "{step}");
        assert_eq!((stats.lost, stats.late, stats.duplicate), (0, 0, 0), "{step}");
    }
}

#[test]
fn opus_whose_timestamps_run_at_half_speed_has_no_holes() {
    let tone = |n: usize| ((n as f64 * 0.2).sin() * 12_000.0) as i16;
    for (step, frames) in [(480, 1), (480, 3), (960, 1)] {
        let mut encoder = aftertone_core::audio::codec::Encoder::new(Codec::Opus).unwrap();
        let mut receiver = Receiver::new(&speaking(Codec::Opus, 111)).unwrap();
        let mut played = Vec::new();
        for tick in 0..150usize {
            let mut frame = aftertone_core::audio::Frame::silence(Rate::Hz16000);
            for (n, sample) in frame.samples_mut().iter_mut().enumerate() {
                *sample = tone(320 * tick + n);
            }
            let mut payload = Vec::new();
            encoder.encode(&frame, &mut payload).unwrap();
            if tick % frames == 0 {
                // Several frames in a packet: each of them the same (RFC 6716 section 3.2.3).
                let one = payload.split_off(1);
                let packed = match frames {
                    1 => [payload, one].concat(),
                    _ => [vec![payload[0] | 3, 3], one.repeat(3)].concat(),
                };
                let at = (tick * step) as u32;
                receiver
                    .push_bytes(
                        &packet(tick as u16 / frames as u16, at, false, 111, &packed),
                        tick as u64,
                    )
                    .unwrap();
            }
            played.extend_from_slice(receiver.pull().samples);
        }
        let start = played.iter().position(|sample| *sample != 0).unwrap();
        let quiet = played[start + 320..]
            .chunks_exact(160)
            .filter(|piece| level_dbfs(piece) < -25.0)
            .count();
        assert_eq!(quiet, 0, "{step} {frames}");
        assert_eq!(receiver.stats().late, 0);
    }
}

#[test]
fn timestamps_with_a_jitter_of_their_own_make_neither_holes_nor_delay() {
    let sent = codes(300 * FRAME);
    let uneven = |index: usize| [80, 240, 160, 100, 220][index % 5];
    let (played, _) = play_at(&sent, FRAME, uneven, None, Some);
    let heard = all_heard(&played);
    assert!(heard.len().abs_diff(sent.len()) <= FRAME, "{}", heard.len());
}

#[test]
fn octets_that_are_appended_to_each_packet_make_no_delay() {
    // Each payload has ten more octets, like an unread authentication tag.
    let sent = codes(300 * (FRAME + 10));
    let (played, stats) = play_at(&sent, FRAME + 10, |_| 160, None, Some);
    let heard = all_heard(&played);
    assert!(heard.len().abs_diff(300 * FRAME) <= FRAME, "{}", heard.len());
    assert_eq!(stats.late, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_clip_is_as_long_as_the_time_that_passed_at_whatever_speed_timestamps_run(
        step in 0i64..=480,
        before in 40usize..60,
        ticks in 0usize..100,
        every in 8usize..50,
    ) {
        let sent = noise(120 * FRAME);
        // Now and then a packet is lost, but not the first ones.
        let comes = |index: usize| !index.is_multiple_of(every) || !(8..=117).contains(&index);
        let came = |index: usize| comes(index).then_some(index);
        let (played, _) = play_at(&sent, FRAME, |_| step, Some((before, ticks)), came);
        let heard = all_heard(&played);
        // It takes 80 ms until it is clear that timestamps are too fast; the reserve is at most
        // 180 ms.
        let passed = (120 + ticks) * FRAME;
        prop_assert!(heard.len().abs_diff(passed) <= 14 * FRAME, "{} of {passed}", heard.len());
        // Nothing is played twice or in the wrong order, and most of it is what was sent.
        let expected = sound(&sent);
        let pieces = expected.chunks(FRAME);
        let places: Vec<Option<usize>> = pieces
            .map(|piece| heard.windows(FRAME).position(|window| window == piece))
            .collect();
        let found: Vec<usize> = places.iter().flatten().copied().collect();
        prop_assert!(found.is_sorted(), "{places:?}");
        let lost = (0..120).filter(|index| came(*index).is_none()).count();
        let is_slow = step <= 120 || step >= 200;
        prop_assert!(!is_slow || found.len() + lost + 20 >= 120, "{} + {lost}", found.len());
    }
}

#[test]
fn packets_that_a_sender_says_twice_are_heard_once() {
    let sent = noise(100 * FRAME);
    let mut receiver = Receiver::new(&plan()).unwrap();
    let mut played = Vec::new();
    for (tick, piece) in sent.chunks(FRAME).enumerate() {
        for copy in 0..2 {
            let sequence = (2 * tick + copy) as u16;
            let datagram = packet(sequence, (tick * FRAME) as u32, false, 0, piece);
            receiver.push_bytes(&datagram, tick as u64).unwrap();
        }
        played.extend_from_slice(receiver.pull().samples);
    }
    receiver.drain();
    while !receiver.is_drained() {
        played.extend_from_slice(receiver.pull().samples);
    }
    let heard = all_heard(&played);
    assert!(heard.len().abs_diff(sent.len()) <= 2 * FRAME, "{} of {}", heard.len(), sent.len());
}
