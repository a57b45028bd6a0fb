//! The cost of one tick of a recorded G.711 call: receive, decode, detect speech, keep, send
//! silence; in the clear, and protected by SRTP.

use std::{
    hint::black_box,
    net::{Ipv4Addr, UdpSocket},
    sync::mpsc::sync_channel,
    time::{Duration, Instant},
};

use aftertone::drivers::media::{
    Play, PortPool, PortRange, Settings, Start, Targets,
    leg::{LegCommand, LiveLeg, Opening, Scratch},
    transport::Transport,
};
use aftertone_core::{
    model::{CallId, OperationId, RecordAction, RecordRequest, RecordingId},
    proto::{
        rtp::{PayloadType, RtpTimestamp, SeqNo, Ssrc, packet::Header},
        sdp::{Codec, Direction, Payload, SrtpKeys, StreamPlan},
        srtp::{CryptoSuite, MasterKey, SrtpSender},
    },
};
use criterion::{Criterion, criterion_group, criterion_main};
use tokio::sync::mpsc;

/// No operation ends during the measurement.
const FOR_EVER: u32 = 10_000_000;

fn leg_tick(criterion: &mut Criterion) {
    let suites = [CryptoSuite::AesCm128HmacSha1_80, CryptoSuite::AeadAes256Gcm];
    recorded_leg(criterion, "one tick of a recorded G.711 leg", None);
    for suite in suites {
        let name = format!("the same with {}", suite.name());
        recorded_leg(criterion, &name, Some(suite));
    }
}

fn key(suite: CryptoSuite, seed: u8) -> MasterKey {
    let bytes = vec![seed; suite.key_len() + suite.salt_len()];
    MasterKey::from_bytes(suite, &bytes).expect("a key of the suite's length")
}

fn recorded_leg(criterion: &mut Criterion, name: &str, suite: Option<CryptoSuite>) {
    let ports = PortPool::new(PortRange::Ephemeral, Duration::ZERO);
    let pair = ports.bind(Ipv4Addr::LOCALHOST.into()).expect("a free pair of ports");
    let local = pair.local;
    let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let (commands, inbox) = mpsc::channel(16);
    let (sender, _events) = mpsc::channel(16);
    let (spool, chunks) = sync_channel(16);
    let mut leg = LiveLeg::new(Opening {
        call: CallId::from_random([1; 16]),
        transport: Transport::new(pair),
        commands: inbox,
        events: sender,
        targets: Targets::new(PortRange::Ephemeral, Vec::new(), None),
        settings: Settings::default(),
    });
    let plan = StreamPlan {
        codec: Codec::Pcmu,
        payload_type: PayloadType::PCMU,
        telephone_event: None,
        heard: vec![(PayloadType::PCMU, Payload::Sound(Codec::Pcmu))],
        remote: peer.local_addr().ok(),
        named: Vec::new(),
        port_at_sip_host: None,
        remote_rtcp: None,
        direction: Direction::SendRecv,
        ptime_ms: 20,
        rtcp_mux: false,
        srtp: suite.map(|suite| SrtpKeys {
            tag: 1,
            ours: key(suite, 1),
            theirs: key(suite, 2),
            mki: None,
        }),
    };
    let request = RecordRequest {
        action: RecordAction::Record,
        prompt: None,
        barge_in_allowed: false,
        initial_silence_seconds: FOR_EVER,
        max_silence_seconds: FOR_EVER,
        max_duration_seconds: FOR_EVER,
        play_beep: false,
        stop_tones: Vec::new(),
    };
    let start = Start {
        id: OperationId::from_random([2; 16]),
        play: Play::Record { request, prompt: None },
        tape: Some((RecordingId::from_random([3; 16]), spool)),
    };
    for command in [LegCommand::Connect(plan, None), LegCommand::Start(start)] {
        commands.try_send(command).expect("room for a command");
    }

    let mut scratch = Scratch::default();
    let (mut packet, mut count) = (Vec::new(), 0_u32);
    let mut protector = suite.map(|suite| SrtpSender::new(key(suite, 2), None));
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|ticks| {
            let mut spent = Duration::ZERO;
            for _ in 0..ticks {
                let header = Header {
                    marker: false,
                    payload_type: PayloadType::PCMU,
                    sequence: SeqNo(count as u16),
                    timestamp: RtpTimestamp(count.wrapping_mul(160)),
                    ssrc: Ssrc(7),
                };
                packet.clear();
                header.write(&mut packet);
                packet.extend((0..160_u32).map(|n| (n.wrapping_mul(count) >> 3) as u8));
                if let Some(protector) = &mut protector {
                    protector.protect(&mut packet).expect("a packet with a growing number");
                }
                peer.send_to(&packet, local).expect("loopback takes packets");
                count = count.wrapping_add(1);
                let began = Instant::now();
                black_box(leg.tick(&mut scratch));
                spent += began.elapsed();
                chunks.try_iter().for_each(drop);
            }
            spent
        });
    });
}

criterion_group!(benches, leg_tick);
criterion_main!(benches);
