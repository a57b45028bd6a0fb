mod keys;
mod pace;

use proptest::prelude::*;

use super::*;
use aftertone_core::{
    audio::{Rate, g711::Law, measure::level_dbfs},
    proto::{
        rtp::{RtpTimestamp, SeqNo},
        sdp::Direction,
    },
};

const FRAME: usize = 160;
const EVENT: PayloadType = PayloadType::TELEPHONE_EVENT;

impl Receiver {
    fn push_bytes(&mut self, datagram: &[u8], frame: u64) -> Result<(), NotReceived> {
        self.push(&Packet::parse(datagram).unwrap(), frame)
    }
}

fn plan() -> StreamPlan {
    StreamPlan {
        codec: Codec::Pcmu,
        payload_type: PayloadType::PCMU,
        telephone_event: Some(EVENT),
        heard: vec![(PayloadType::PCMU, Payload::Sound(Codec::Pcmu)), (EVENT, Payload::Event)],
        remote: None,
        named: Vec::new(),
        port_at_sip_host: None,
        remote_rtcp: None,
        direction: Direction::SendRecv,
        ptime_ms: 20,
        rtcp_mux: false,
        srtp: None,
    }
}

fn speaking(codec: Codec, payload_type: u8) -> StreamPlan {
    let payload_type = PayloadType::new(payload_type).unwrap();
    let heard = vec![(payload_type, Payload::Sound(codec)), (EVENT, Payload::Event)];
    StreamPlan { codec, payload_type, heard, ..plan() }
}

/// µ-law codes, none of which decodes to silence.
fn codes(count: usize) -> Vec<u8> {
    (0..count).map(|index| (index % 100 + (index / 100) % 7) as u8).collect()
}

fn sound(codes: &[u8]) -> Vec<i16> {
    codes.iter().map(|code| Law::Mu.decode(*code)).collect()
}

fn packet(sequence: u16, timestamp: u32, marker: bool, pt: u8, payload: &[u8]) -> Vec<u8> {
    packet_of(7, sequence, timestamp, marker, pt, payload)
}

fn packet_of(
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    marker: bool,
    pt: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    Header {
        marker,
        payload_type: PayloadType::new(pt).unwrap(),
        sequence: SeqNo(sequence),
        timestamp: RtpTimestamp(timestamp),
        ssrc: Ssrc(ssrc),
    }
    .write(&mut bytes);
    bytes.extend(payload);
    bytes
}

/// What is played after the silence before the first packet, up to `samples`.
fn heard(played: &[i16], samples: usize) -> &[i16] {
    let start = played.iter().position(|sample| *sample != 0).unwrap_or(played.len());
    &played[start..(start + samples).min(played.len())]
}

proptest! {
    #[test]
    fn what_is_sent_is_played_bit_for_bit(
        ptime in prop::sample::select(vec![10usize, 20, 30, 40, 60]),
        start: u32,
        sequence: u16,
        swaps in prop::collection::vec(any::<bool>(), 60),
    ) {
        let size = 8 * ptime;
        let sent = codes(60 * size);
        let mut packets: Vec<_> = sent
            .chunks(size)
            .enumerate()
            .map(|(index, piece)| {
                let at = start.wrapping_add((index * size) as u32);
                packet(sequence.wrapping_add(index as u16), at, false, 0, piece)
            })
            .collect();
        // Neighbours are swapped: a delay less than the reserve.
        let mut index = 1;
        while ptime <= 20 && index + 1 < packets.len() {
            if swaps[index] {
                packets.swap(index, index + 1);
                index += 1;
            }
            index += 1;
        }
        let mut receiver = Receiver::new(&plan()).unwrap();
        let mut played = Vec::new();
        let mut packets = packets.into_iter();
        let mut sent_ms = 0;
        for tick in 0..=(60 * ptime).div_ceil(20) {
            while sent_ms <= tick * 20 {
                if let Some(packet) = packets.next() {
                    receiver.push_bytes(&packet, tick as u64).unwrap();
                }
                sent_ms += ptime;
            }
            played.extend_from_slice(receiver.pull().samples);
        }
        receiver.drain();
        while !receiver.is_drained() {
            played.extend_from_slice(receiver.pull().samples);
        }
        let expected = sound(&sent);
        let heard = heard(&played, expected.len());
        let same = heard.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        prop_assert_eq!((heard.len(), same), (expected.len(), expected.len()));
        prop_assert_eq!(receiver.stats().late, 0);
        prop_assert_eq!(receiver.stats().lost, 0);
    }

    #[test]
    fn each_key_is_told_once_and_none_earlier_than_the_one_before(
        keys in prop::collection::vec((0u8..16, 1u8..=255), 1..6),
        order in prop::collection::vec(0usize..3, 400),
        start: u32,
    ) {
        // There is sound all the time. Every 200 ms there is a key with five updates and three
        // ends; any of these are lost, but not all. Events may be overtaken by 40 ms, and be
        // duplicated.
        let mut datagrams = Vec::new();
        let mut sequence = start as u16;
        for tick in 0..10 * keys.len() + 20 {
            let (index, step) = (tick / 10, tick % 10);
            let at = start.wrapping_add((tick * FRAME) as u32);
            datagrams.push((tick, packet(sequence, at, false, 0, &[9; FRAME])));
            sequence = sequence.wrapping_add(1);
            let Some((key, survivors)) = keys.get(index) else { continue };
            if step < 8 {
                if survivors >> step & 1 == 1 {
                    let began = start.wrapping_add((index * 10 * FRAME) as u32 + 33);
                    let [high, low] = (160 * (step.min(5) as u16 + 1)).to_be_bytes();
                    let payload = [*key, if step > 4 { 0x8a } else { 10 }, high, low];
                    let event = packet(sequence, began, step == 0, 101, &payload);
                    datagrams.push((tick + order[tick * 2], event.clone()));
                    datagrams.push((tick + order[tick * 2 + 1], event));
                }
                sequence = sequence.wrapping_add(1);
            }
        }
        let mut receiver = Receiver::new(&plan()).unwrap();
        let mut told = Vec::new();
        let last = 10 * keys.len() + 40;
        for tick in 0..last {
            for (_, datagram) in datagrams.iter().filter(|(at, _)| *at == tick) {
                receiver.push_bytes(datagram, tick as u64).unwrap();
            }
            if let Some(tone) = receiver.pull().tone {
                told.push(tone.tone.event_code());
            }
        }
        let pressed: Vec<u8> = keys.iter().map(|(key, _)| *key).collect();
        prop_assert_eq!(told, pressed);
    }

    #[test]
    fn playout_never_goes_back(
        way in prop::collection::vec((0usize..12, any::<bool>()), 200),
    ) {
        // There is any loss, and any delay up to 240 ms. No two packets sound alike, and no faded
        // one like another, so a frame shows which packet it came from.
        let packets: Vec<Vec<u8>> = (0..100u32)
            .map(|index| {
                let code = |at: u32| (index * 160 + at).wrapping_mul(2_654_435_761) >> 24;
                (0..160).map(|at| code(at) as u8).collect()
            })
            .collect();
        let sounds: Vec<Vec<i16>> = packets.iter().map(|codes| sound(codes)).collect();
        let mut receiver = Receiver::new(&plan()).unwrap();
        let mut last = None;
        for tick in 0..140usize {
            for (index, payload) in packets.iter().enumerate() {
                let (delay, may_be_lost) = way[index];
                if index + delay == tick && !(may_be_lost && way[index + 100].1) {
                    let at = (index * FRAME) as u32;
                    let datagram = packet(index as u16, at, false, 0, payload);
                    receiver.push_bytes(&datagram, tick as u64).unwrap();
                }
            }
            let samples = receiver.pull().samples;
            if let Some(from) = sounds.iter().position(|sound| sound == samples) {
                prop_assert!(last.is_none_or(|last| from > last), "{from} after {last:?}");
                last = Some(from);
            }
        }
        // No packet is found only if all packets were lost or late.
        prop_assert_eq!(last.is_some(), receiver.stats().received > receiver.stats().late);
    }

    #[test]
    fn no_datagrams_panic_or_keep_a_leg_from_ending(
        datagrams in prop::collection::vec(
            (any::<bool>(), 0u16..200, any::<u16>(), any::<u32>(), 0u32..3,
             prop::sample::select(vec![0u8, 13, 101, 99]),
             prop::collection::vec(any::<u8>(), 0..200)), 0..200),
        opus: bool,
    ) {
        let plan = if opus { speaking(Codec::Opus, 0) } else { plan() };
        let mut receiver = Receiver::new(&plan).unwrap();
        let len = receiver.codec().rate().frame_len();
        for (index, datagram) in datagrams.into_iter().enumerate() {
            let (near, step, sequence, timestamp, ssrc, pt, payload) = datagram;
            let sequence = if near { step } else { sequence };
            let bytes = packet_of(ssrc, sequence, timestamp, false, pt, &payload);
            let _ = receiver.push_bytes(&bytes, index as u64);
            if let Ok(packet) = Packet::parse(&payload) {
                let _ = receiver.push(&packet, index as u64);
            }
            if index % 3 == 0 {
                let playout = receiver.pull();
                prop_assert_eq!(playout.samples.len(), len);
                prop_assert!(playout.tone.is_none_or(|tone| tone.offset < len));
            }
        }
        receiver.drain();
        let mut left = 0;
        while !receiver.is_drained() {
            receiver.pull();
            left += 1;
            prop_assert!(left < 500);
        }
    }
}

/// Sends `present` frames of sound, one per tick; `false` is a tick without a packet, whose time
/// passes even so. Returns what was played.
fn play(receiver: &mut Receiver, present: &[bool]) -> Vec<i16> {
    let sent = codes(present.len() * FRAME);
    let mut played = Vec::new();
    for (index, (piece, present)) in sent.chunks(FRAME).zip(present).enumerate() {
        if *present {
            let at = (index * FRAME) as u32;
            receiver.push_bytes(&packet(index as u16, at, false, 0, piece), index as u64).unwrap();
        }
        played.extend_from_slice(receiver.pull().samples);
    }
    receiver.drain();
    while !receiver.is_drained() {
        played.extend_from_slice(receiver.pull().samples);
    }
    played
}

#[test]
fn a_lost_packet_leaves_everything_else_in_its_place() {
    let mut present = vec![true; 30];
    present[10] = false;
    let mut receiver = Receiver::new(&plan()).unwrap();
    let played = play(&mut receiver, &present);
    let expected = sound(&codes(30 * FRAME));
    let played = heard(&played, expected.len());
    assert_eq!(played[..10 * FRAME], expected[..10 * FRAME]);
    assert_eq!(played[11 * FRAME..], expected[11 * FRAME..]);
    assert_eq!(receiver.stats().lost, 1);
}

#[test]
fn a_pause_is_as_long_as_it_was() {
    // Two seconds without a packet; sequence numbers go on, time has passed.
    let sent = codes(20 * FRAME);
    let mut receiver = Receiver::new(&plan()).unwrap();
    let mut played = Vec::new();
    for tick in 0..130usize {
        let index = match tick {
            0..10 => Some(tick),
            110..120 => Some(tick - 100),
            _ => None,
        };
        if let Some(index) = index {
            let piece = &sent[index * FRAME..(index + 1) * FRAME];
            let at = (tick * FRAME) as u32;
            receiver.push_bytes(&packet(index as u16, at, false, 0, piece), tick as u64).unwrap();
        }
        played.extend_from_slice(receiver.pull().samples);
    }
    let expected = sound(&sent);
    let start = played.iter().position(|sample| *sample != 0).unwrap();
    assert_eq!(played[start..start + 10 * FRAME], expected[..10 * FRAME]);
    let again = start + 110 * FRAME;
    assert_eq!(played[again..again + 10 * FRAME], expected[10 * FRAME..]);
    let pause = &played[start + 15 * FRAME..again];
    assert!(pause.iter().all(|sample| *sample == 0));
}

#[test]
fn a_sender_whose_clock_begins_anew_loses_nothing() {
    let sent = codes(20 * FRAME);
    let mut receiver = Receiver::new(&plan()).unwrap();
    let mut played = Vec::new();
    for (index, piece) in sent.chunks(FRAME).enumerate() {
        // From the tenth packet on, the sender's clock is another one; the ticks go on.
        let at = (index * FRAME) as u32;
        let at = if index < 10 { at + 5_000_000 } else { at + 100 };
        if index == 10 {
            for _ in 0..10 {
                played.extend_from_slice(receiver.pull().samples);
            }
        }
        receiver.push_bytes(&packet(index as u16, at, false, 0, piece), index as u64).unwrap();
        played.extend_from_slice(receiver.pull().samples);
    }
    receiver.drain();
    while !receiver.is_drained() {
        played.extend_from_slice(receiver.pull().samples);
    }
    let second = &sound(&sent)[10 * FRAME..];
    assert!(played.windows(second.len()).any(|window| window == second));
}

#[test]
fn a_key_is_told_in_the_frame_and_at_the_sample_of_its_time() {
    let sent = codes(20 * FRAME);
    let mut receiver = Receiver::new(&plan()).unwrap();
    let mut told = Vec::new();
    let mut played = Vec::new();
    let key_at = 10 * FRAME as u32 + 40;
    let mut sequence = 0;
    for tick in 0..30usize {
        match tick {
            0..=10 => {
                let piece = &sent[tick * FRAME..(tick + 1) * FRAME];
                let at = (tick * FRAME) as u32;
                receiver.push_bytes(&packet(sequence, at, false, 0, piece), tick as u64).unwrap();
                sequence += 1;
            }
            11..=17 => {
                let duration = ((tick.min(15) - 10) * FRAME) as u16;
                let [high, low] = duration.to_be_bytes();
                let end = if tick >= 15 { 0x80 } else { 0 };
                let payload = [11, 10 | end, high, low];
                let event = packet(sequence, key_at, tick == 11, 101, &payload);
                receiver.push_bytes(&event, tick as u64).unwrap();
                sequence += 1;
            }
            _ => {}
        }
        let playout = receiver.pull();
        if let Some(tone) = playout.tone {
            told.push((played.len() + tone.offset, tone.tone));
        }
        played.extend_from_slice(playout.samples);
    }
    let start = played.iter().position(|sample| *sample != 0).unwrap();
    assert_eq!(told, [(start + key_at as usize, Tone::POUND)]);
    let expected = sound(&sent[..key_at as usize]);
    assert_eq!(played[start..start + key_at as usize], expected[..]);
    // The sound that is sent beside the key is not played.
    assert!(played[start + key_at as usize..].iter().all(|sample| *sample == 0));
}

#[test]
fn what_was_not_agreed_is_refused() {
    let mut receiver = Receiver::new(&plan()).unwrap();
    let opus = NotReceived(PayloadType::new(96).unwrap());
    assert_eq!(receiver.push_bytes(&packet(0, 0, false, 96, &[1]), 0), Err(opus));
    assert!(receiver.push_bytes(&packet(0, 0, false, 13, &[1]), 0).is_ok());
    assert!(receiver.push_bytes(&packet(1, 160, false, 19, &[1]), 0).is_ok());
    let stats = receiver.stats();
    assert_eq!((stats.received, stats.lost, stats.late), (2, 0, 0));
}

/// Plays the packets that `sent` gives for each tick, and then what is left.
fn run(receiver: &mut Receiver, ticks: usize, sent: impl Fn(usize) -> Vec<Vec<u8>>) -> Vec<i16> {
    let mut played = Vec::new();
    for tick in 0..ticks {
        for datagram in sent(tick) {
            receiver.push_bytes(&datagram, tick as u64).unwrap();
        }
        played.extend_from_slice(receiver.pull().samples);
    }
    receiver.drain();
    while !receiver.is_drained() {
        played.extend_from_slice(receiver.pull().samples);
    }
    played
}

#[test]
fn nothing_is_lost_or_repeated_where_the_sender_jumps() {
    // Another SSRC, timestamps that jump either way, and sequence numbers that begin again.
    type Jump = fn(usize) -> (u32, u16, u32);
    let jumps: [Jump; 6] = [
        |_| (8, 900, 77),
        |n| (7, n as u16, 5_000_000),
        |n| (7, n as u16, u32::MAX - 1_000_000),
        |_| (7, 40_000, 160 * 20),
        |_| (7, 60_000, 3_000_000_000),
        |_| (9, 0, 0),
    ];
    let sent = codes(40 * FRAME);
    for (case, jump) in jumps.into_iter().enumerate() {
        let mut receiver = Receiver::new(&plan()).unwrap();
        let played = run(&mut receiver, 40, |tick| {
            let (ssrc, sequence, timestamp) = if tick < 20 { (7, 0, 0) } else { jump(20) };
            let index = if tick < 20 { tick } else { tick - 20 };
            let sequence = sequence.wrapping_add(index as u16);
            let timestamp = timestamp.wrapping_add((index * FRAME) as u32);
            let piece = &sent[tick * FRAME..(tick + 1) * FRAME];
            vec![packet_of(ssrc, sequence, timestamp, false, 0, piece)]
        });
        let expected = sound(&sent);
        assert!(heard(&played, expected.len()) == &expected[..], "case {case}");
        let stats = receiver.stats();
        assert_eq!((stats.lost, stats.late, stats.duplicate), (0, 0, 0), "case {case}");
        assert_eq!(stats.received, 40, "case {case}");
    }
}

#[test]
fn duplicates_are_dropped_and_cost_no_delay() {
    let sent = codes(30 * FRAME);
    let mut receiver = Receiver::new(&plan()).unwrap();
    let of = |index: usize| {
        packet(index as u16, (index * FRAME) as u32, false, 0, &sent[index * FRAME..][..FRAME])
    };
    let played = run(&mut receiver, 30, |tick| {
        // The copy takes another path, which is 200 ms longer: it comes much too late.
        vec![of(tick), of(tick.saturating_sub(10))]
    });
    let expected = sound(&sent);
    assert_eq!(heard(&played, expected.len()), &expected[..]);
    assert_eq!((receiver.stats().duplicate, receiver.stats().late), (30, 0));
}

#[test]
fn a_sender_whose_clock_is_slower_is_played_whole() {
    // A packet every 20.5 ms: the reserve is used up again and again.
    let count = 400;
    let sent = codes(count * FRAME);
    let mut receiver = Receiver::new(&plan()).unwrap();
    let ticks = count * 205 / 200 + 1;
    let played = run(&mut receiver, ticks, |tick| {
        (0..count)
            .filter(|index| index * 205 / 200 == tick)
            .map(|index| {
                let piece = &sent[index * FRAME..][..FRAME];
                packet(index as u16, (index * FRAME) as u32, false, 0, piece)
            })
            .collect()
    });
    let expected = sound(&sent);
    let mut rest = heard(&played, played.len());
    for frame in expected.chunks(FRAME) {
        let at = rest.windows(FRAME).position(|window| window == frame).unwrap();
        rest = &rest[at + FRAME..];
    }
    assert_eq!((receiver.stats().late, receiver.stats().lost), (0, 0));
}

#[test]
fn a_packet_alone_is_played_before_the_next_one_comes() {
    let sent = codes(FRAME);
    let mut receiver = Receiver::new(&plan()).unwrap();
    receiver.push_bytes(&packet(0, 0, true, 0, &sent), 0).unwrap();
    let mut played = Vec::new();
    for _ in 0..8 {
        played.extend_from_slice(receiver.pull().samples);
    }
    assert_eq!(heard(&played, FRAME), sound(&sent));
}

#[test]
fn what_follows_a_pause_on_a_clock_that_stood_still_is_played_whole() {
    let sent = codes(20 * FRAME);
    let mut receiver = Receiver::new(&plan()).unwrap();
    let played = run(&mut receiver, 120, |tick| {
        let index = match tick {
            0..10 => tick,
            100..110 => tick - 90,
            _ => return Vec::new(),
        };
        let piece = &sent[index * FRAME..][..FRAME];
        vec![packet(index as u16, (index * FRAME) as u32, false, 0, piece)]
    });
    let expected = sound(&sent);
    let start = played.iter().position(|sample| *sample != 0).unwrap();
    assert_eq!(played[start..][..10 * FRAME], expected[..10 * FRAME]);
    let second = &expected[10 * FRAME..];
    let again = played.windows(second.len()).position(|window| window == second).unwrap();
    // The pause is as long as it was, except for the reserve.
    assert!((98 * FRAME..=104 * FRAME).contains(&(again - start)), "{}", (again - start) / FRAME);
}

#[test]
fn comfort_noise_is_silence_at_once() {
    let sent = codes(10 * FRAME);
    let mut receiver = Receiver::new(&plan()).unwrap();
    let mut played = Vec::new();
    for tick in 0..20usize {
        let at = (tick * FRAME) as u32;
        match tick {
            0..10 => {
                let piece = &sent[tick * FRAME..][..FRAME];
                receiver
                    .push_bytes(&packet(tick as u16, at, false, 0, piece), tick as u64)
                    .unwrap();
            }
            10 => receiver.push_bytes(&packet(10, at, false, 13, &[60]), 10).unwrap(),
            _ => {}
        }
        played.extend_from_slice(receiver.pull().samples);
    }
    let start = played.iter().position(|sample| *sample != 0).unwrap();
    assert!(played[start + 10 * FRAME..].iter().all(|sample| *sample == 0));
    assert_eq!(receiver.stats().lost, 0);
}

#[test]
fn a_key_that_is_down_when_the_sound_begins_is_told_once() {
    let mut receiver = Receiver::new(&plan()).unwrap();
    let mut told = 0;
    for tick in 0..12u16 {
        let [high, low] = ((tick + 1) * 160).to_be_bytes();
        receiver.push_bytes(&packet(2 * tick, 5_000, false, 101, &[5, 10, high, low]), 0).unwrap();
        if tick > 3 {
            let at = 5_000 + u32::from(tick) * 160;
            receiver.push_bytes(&packet(2 * tick + 1, at, false, 0, &[9; FRAME]), 0).unwrap();
        }
        told += usize::from(receiver.pull().tone.is_some());
    }
    assert_eq!(told, 1);
}

#[test]
fn a_key_after_the_clock_has_jumped_is_told() {
    for jump in [9_000_000u32, 3_000_000_000] {
        let mut receiver = Receiver::new(&plan()).unwrap();
        let mut told = 0;
        for tick in 0..60u16 {
            let (at, pt, payload) = match tick {
                20..26 => (jump, 101, vec![1, 10, 3, 32]),
                _ => (u32::from(tick) * 160, 0, vec![9; FRAME]),
            };
            if tick < 26 {
                let datagram = packet(tick, at, false, pt, &payload);
                receiver.push_bytes(&datagram, u64::from(tick)).unwrap();
            }
            told += usize::from(receiver.pull().tone.is_some());
        }
        assert_eq!(told, 1, "{jump}");
    }
}

#[test]
fn sound_beside_a_key_is_silence_for_as_long_as_the_key_is_down() {
    let mut receiver = Receiver::new(&plan()).unwrap();
    let mut sequence = 0;
    let mut played = Vec::new();
    for tick in 0..40u16 {
        let at = u32::from(tick) * 160;
        let mut datagrams = vec![packet(sequence, at, false, 0, &[9; FRAME])];
        if (10..16).contains(&tick) {
            sequence += 1;
            let [high, low] = ((tick - 9) * 160).to_be_bytes();
            let end = if tick == 15 { 0x80 } else { 0 };
            let payload = [3, 10 | end, high, low];
            datagrams.push(packet(sequence, 1_600, tick == 10, 101, &payload));
        }
        sequence += 1;
        for datagram in &datagrams {
            receiver.push_bytes(datagram, u64::from(tick)).unwrap();
        }
        played.extend_from_slice(receiver.pull().samples);
    }
    let played = heard(&played, 30 * FRAME);
    assert!(played[..10 * FRAME].iter().all(|sample| *sample != 0));
    assert!(played[10 * FRAME..16 * FRAME].iter().all(|sample| *sample == 0));
    assert!(played[16 * FRAME..].iter().all(|sample| *sample != 0));
}

#[test]
fn opus_keys_and_frames_are_placed_on_its_clock() {
    let plan = speaking(Codec::Opus, 111);
    let mut receiver = Receiver::new(&plan).unwrap();
    let mut encoder = aftertone_core::audio::codec::Encoder::new(Codec::Opus).unwrap();
    let mut payload = Vec::new();
    encoder.encode(&aftertone_core::audio::Frame::silence(Rate::Hz16000), &mut payload).unwrap();
    let mut told = Vec::new();
    for tick in 0..30u16 {
        // 300 samples of 16,000 Hz after the tenth packet: the frame is 320 long.
        let (at, pt, body) = match tick {
            10 => (960 * 10 + 900, 101, &[7, 0x8a, 3, 32][..]),
            _ => (960 * u32::from(tick), 111, &payload[..]),
        };
        receiver.push_bytes(&packet(tick, at, false, pt, body), u64::from(tick)).unwrap();
        if let Some(tone) = receiver.pull().tone {
            told.push((tick, tone.offset));
        }
    }
    assert_eq!(told, [(12, 300)]);
}
