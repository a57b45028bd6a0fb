//! Keys of senders that count timestamps and durations in their own way, while the caller goes on
//! speaking.

use super::*;

/// How a phone sends keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Instead of sound.
    Instead,
    /// Beside sound: each packet after the sound of the same 20 ms.
    After,
    /// Beside sound: each packet before the sound of the same 20 ms.
    Before,
}

/// The packets of one key that is down in the ticks `from..from + ticks`, and of the sound of 40
/// ticks around it, each with the tick in which it is sent. The end is sent three times.
fn phone(
    style: Style,
    from: usize,
    ticks: usize,
    claim: impl Fn(u16) -> u16,
    timestamp: impl Fn(usize) -> u32,
) -> Vec<(usize, Vec<u8>)> {
    let sent = codes(40 * FRAME);
    let (mut packets, mut sequence) = (Vec::new(), 60_000u16);
    let mut send = |tick, timestamp, marker, payload_type, payload: &[u8]| {
        packets.push((tick, packet(sequence, timestamp, marker, payload_type, payload)));
        sequence = sequence.wrapping_add(1);
    };
    for tick in 0..40 {
        let is_down = (from..from + ticks).contains(&tick);
        let sound = &sent[tick * FRAME..][..FRAME];
        let speaks = style != Style::Instead || !is_down;
        if speaks && style == Style::After {
            send(tick, (tick * FRAME) as u32, false, 0, sound);
        }
        if (from..from + ticks + 2).contains(&tick) {
            let lasted = (FRAME * (tick + 1 - from).min(ticks)) as u16;
            let [high, low] = claim(lasted).to_be_bytes();
            let end = if tick + 1 >= from + ticks { 0x80 } else { 0 };
            send(tick, timestamp(tick), tick == from, 101, &[11, 10 | end, high, low]);
        }
        if speaks && style != Style::After {
            send(tick, (tick * FRAME) as u32, false, 0, sound);
        }
    }
    packets
}

/// What is played of these packets, and the keys with their places in it.
fn hear(packets: &[(usize, Vec<u8>)]) -> (Vec<i16>, Vec<(usize, Tone)>) {
    let mut receiver = Receiver::new(&plan()).unwrap();
    let (mut played, mut keys) = (Vec::new(), Vec::new());
    for tick in 0..60 {
        for (_, datagram) in packets.iter().filter(|(at, _)| *at == tick) {
            receiver.push_bytes(datagram, tick as u64).unwrap();
        }
        let playout = receiver.pull();
        keys.extend(playout.tone.map(|tone| (played.len() + tone.offset, tone.tone)));
        played.extend_from_slice(playout.samples);
    }
    let start = played.iter().position(|sample| *sample != 0).unwrap();
    let place = |(at, tone): &(usize, Tone)| (at - start, *tone);
    (played[start..][..40 * FRAME].to_vec(), keys.iter().map(place).collect())
}

/// The expected playout: everything that was said, except for the time of the key.
fn expected(from: usize, ticks: usize) -> Vec<i16> {
    let mut expected = sound(&codes(40 * FRAME));
    expected[from * FRAME..(from + ticks) * FRAME].fill(0);
    expected
}

fn assert_same(heard: &[i16], expected: &[i16], what: &str) {
    let wrong = heard.iter().zip(expected).position(|(heard, expected)| heard != expected);
    let at = wrong.map(|at| (at / FRAME, at % FRAME, heard[at], expected[at]));
    assert_eq!(at, None, "{what}");
}

#[test]
fn speech_after_a_key_is_heard_when_its_duration_claims_more_than_has_passed() {
    type Claim = fn(u16) -> u16;
    let claims: [(Claim, &str); 4] = [
        (|lasted| lasted, "what is true"),
        (|lasted| 6 * lasted, "the clock of Opus"),
        (|_| 49_155, "49155"),
        (|_| u16::MAX, "65535"),
    ];
    for (claim, what) in claims {
        for style in [Style::Instead, Style::After, Style::Before] {
            for ticks in [2, 3, 5, 9] {
                let packets = phone(style, 10, ticks, claim, |_| 10 * FRAME as u32);
                let (heard, keys) = hear(&packets);
                let what = format!("{what}, {style:?}, {ticks}");
                // Nothing distinguishes the sound of a key that was down from speech after it, if
                // that sound is sent after the last packet of the key.
                let is_late = style == Style::Before && claim(FRAME as u16) != FRAME as u16;
                let silent = if is_late { ticks - 1 } else { ticks };
                assert_same(&heard, &expected(10, silent), &what);
                assert_eq!(keys, [(10 * FRAME, Tone::POUND)], "{what}");
            }
        }
    }
}

#[test]
fn speech_is_heard_when_all_ends_of_such_a_key_are_lost() {
    for claim in [6 * 480, 49_155, u16::MAX] {
        let packets = phone(Style::Instead, 10, 5, |_| claim, |_| 10 * FRAME as u32);
        let is_end = |packet: &[u8]| packet[1] & 0x7f == 101 && packet[13] & 0x80 != 0;
        let packets: Vec<_> = packets.into_iter().filter(|(_, packet)| !is_end(packet)).collect();
        let (heard, keys) = hear(&packets);
        assert_same(&heard, &expected(10, 5), &claim.to_string());
        assert_eq!(keys.len(), 1, "{claim}");
    }
}

#[test]
fn a_press_whose_packets_have_timestamps_of_their_own_is_one_key_where_it_began() {
    type Stamp = fn(usize) -> u32;
    let stamps: [(Stamp, &str); 3] = [
        (|tick| (tick * FRAME) as u32, "each its own"),
        (|tick| (if tick < 14 { 10 } else { 15 } * FRAME) as u32, "the end that of the end"),
        (|tick| (if tick < 14 { 10 } else { tick } * FRAME) as u32, "each end its own"),
    ];
    for (stamp, what) in stamps {
        for claim in [|lasted| lasted, |_| 160] as [fn(u16) -> u16; 2] {
            for style in [Style::Instead, Style::After] {
                let (heard, keys) = hear(&phone(style, 10, 5, claim, stamp));
                assert_eq!(keys, [(10 * FRAME, Tone::POUND)], "{what} {style:?}");
                let after = &expected(10, 5)[15 * FRAME..];
                assert_same(&heard[15 * FRAME..], after, what);
            }
        }
    }
}

proptest! {
    #[test]
    fn a_key_is_told_once_and_no_speech_is_lost_to_it_whatever_its_packets_claim(
        style in prop::sample::select(vec![Style::Instead, Style::After]),
        from in 5usize..12,
        ticks in 2usize..10,
        claims in prop::collection::vec(prop::sample::select(vec![0u16, 1, 6, 50, 400]), 12),
        stamps in prop::sample::select(vec![0usize, 1, 2]),
        late in prop::collection::vec((0usize..2, any::<bool>()), 12),
    ) {
        // Durations of other clocks, which never grow or are the longest possible; timestamps of
        // the beginning, the end or the present; packets that are overtaken and duplicated.
        let claim = |lasted: u16| match claims[usize::from(lasted) / FRAME] {
            0 => 160,
            400 => u16::MAX,
            times => lasted.saturating_mul(times),
        };
        let timestamp = |tick: usize| match stamps {
            0 => from * FRAME,
            1 if tick + 1 < from + ticks => from * FRAME,
            1 => (from + ticks) * FRAME,
            _ => tick * FRAME,
        };
        let mut packets = Vec::new();
        for (tick, packet) in phone(style, from, ticks, claim, |tick| timestamp(tick) as u32) {
            let is_event = packet[1] & 0x7f == 101;
            let (by, twice) = if is_event { late[tick - from] } else { (0, false) };
            if twice {
                packets.push((tick, packet.clone()));
            }
            packets.push((tick + by, packet));
        }
        packets.sort_by_key(|(tick, _)| *tick);
        let (heard, keys) = hear(&packets);
        prop_assert_eq!(keys.len(), 1);
        let expected = expected(from, ticks);
        for part in [0..from * FRAME, (from + ticks) * FRAME..40 * FRAME] {
            prop_assert!(heard[part.clone()] == expected[part]);
        }
    }
}
