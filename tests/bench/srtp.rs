//! The cost of SRTP on one core: a packet of 20 ms of G.711, for each suite. Encoding its audio is
//! the yardstick.

use std::hint::black_box;

use aftertone_core::{
    audio::{Codec, Encoder, Frame, Rate},
    proto::srtp::{CryptoSuite, MasterKey, SrtpReceiver, SrtpSender},
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// An RTP header and 160 bytes of payload.
const PACKET_LEN: usize = 172;

/// An endless stream of packets before they are protected.
#[derive(Default)]
struct Stream(u16);

impl Stream {
    /// Makes a buffer, which keeps its memory, the next packet.
    fn next(&mut self, packet: &mut Vec<u8>) {
        self.0 = self.0.wrapping_add(1);
        packet.resize(PACKET_LEN, 0x55);
        packet[..2].copy_from_slice(&[0x80, 0]);
        packet[2..4].copy_from_slice(&self.0.to_be_bytes());
        packet[8..12].copy_from_slice(&[1, 2, 3, 4]);
    }
}

fn srtp(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("srtp");
    group.throughput(Throughput::Elements(1));
    for suite in CryptoSuite::ALL {
        let bytes = vec![7; suite.key_len() + suite.salt_len()];
        let key = MasterKey::from_bytes(suite, &bytes).expect("the length of the suite");
        group.bench_function(format!("protect, {}", suite.name()), |bencher| {
            let (mut stream, mut packet) = (Stream::default(), Vec::with_capacity(PACKET_LEN + 16));
            let mut sender = SrtpSender::new(key.clone(), None);
            bencher.iter(|| {
                stream.next(&mut packet);
                sender.protect(black_box(&mut packet)).expect("the sequence number grows");
            });
        });
        group.bench_function(format!("unprotect, {}", suite.name()), |bencher| {
            let mut stream = Stream::default();
            let mut sender = SrtpSender::new(key.clone(), None);
            let mut receiver = SrtpReceiver::new(key.clone(), None);
            let protected = || {
                let mut packet = Vec::with_capacity(PACKET_LEN + 16);
                stream.next(&mut packet);
                sender.protect(&mut packet).expect("the sequence number grows");
                packet
            };
            bencher.iter_batched_ref(
                protected,
                |packet| {
                    receiver.unprotect(black_box(packet)).expect("a packet of the sender").len()
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.bench_function("encoding 20 ms, G.711", |bencher| {
        let mut encoder = Encoder::new(Codec::Pcmu).expect("G.711 needs nothing");
        let frame = Frame::silence(Rate::Hz8000);
        let mut payload = Vec::with_capacity(160);
        bencher.iter(|| {
            payload.clear();
            encoder.encode(black_box(&frame), &mut payload).expect("a whole frame");
            black_box(&payload);
        });
    });
    group.finish();
}

criterion_group!(benches, srtp);
criterion_main!(benches);
