//! The cost of SIP on one core, without sockets: a whole call, a stateless answer, parsing.

// The measurement needs a starting time.
#![allow(clippy::disallowed_methods)]

use std::{hint::black_box, net::SocketAddr, time::Instant};

use aftertone_core::proto::sip::{
    endpoint::{Command, Endpoint, EndpointConfig, Event, Output},
    path::Path,
    wire::parse_datagram,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rand::{SeedableRng, rngs::StdRng};

const SDP: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
                   m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n";

fn request(method: &str, number: u64, cseq: u32, tag: &str, body: &str) -> String {
    format!(
        "{method} sip:100@192.0.2.1 SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.10:5062;branch=z9hG4bK-{method}-{number};rport\r\n\
         Max-Forwards: 70\r\nFrom: \"Phone\" <sip:phone@192.0.2.10>;tag=phone\r\n\
         To: <sip:100@192.0.2.1>{tag}\r\nCall-ID: {number}@192.0.2.10\r\n\
         CSeq: {cseq} {method}\r\nContact: <sip:phone@192.0.2.10:5062>\r\n\
         Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn path() -> Path {
    let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
    Path::udp(address("192.0.2.1:5060"), address("192.0.2.10:5062"))
}

fn endpoint() -> Endpoint {
    let config =
        EndpointConfig { max_transactions: usize::MAX, ..EndpointConfig::new("bench".into()) };
    Endpoint::new(config, StdRng::seed_from_u64(1))
}

/// Takes all outputs: our tag, if the last message has one, and the last event.
fn drain(endpoint: &mut Endpoint) -> (Option<String>, Option<Event>) {
    let (mut tag, mut event) = (None, None);
    while let Some(output) = endpoint.poll_output() {
        match output {
            Output::Transmit(transmit) => {
                let text = String::from_utf8_lossy(&transmit.bytes);
                let to = text.lines().find(|line| line.starts_with("To:"));
                tag = to.and_then(|to| Some(format!(";tag={}", to.split_once(";tag=")?.1)));
            }
            Output::Event(told) => event = Some(told),
            Output::Silent(path) => panic!("a datagram has no stream: {path:?}"),
        }
    }
    (tag, event)
}

/// INVITE, 100, 180, 200, ACK, BYE, 200; then all timers of the call.
fn whole_call(endpoint: &mut Endpoint, number: u64, now: &mut Instant) {
    let take = |endpoint: &mut Endpoint, text: String, now: Instant| {
        endpoint.handle_message(text.as_bytes(), path(), now);
        drain(endpoint)
    };
    let (_, event) = take(endpoint, request("INVITE", number, 1, "", SDP), *now);
    let Some(Event::Invite { dialog, .. }) = event else { panic!("no call is offered") };
    endpoint.handle_command(Command::Ring { dialog }, *now);
    endpoint.handle_command(Command::Answer { dialog, sdp: SDP.into() }, *now);
    let (tag, _) = drain(endpoint);
    let tag = tag.expect("the answer has our tag");
    take(endpoint, request("ACK", number, 1, &tag, ""), *now);
    take(endpoint, request("BYE", number, 2, &tag, ""), *now);
    while let Some(due) = endpoint.poll_timeout() {
        *now = due;
        endpoint.handle_timeout(due);
        drain(endpoint);
    }
    assert!(endpoint.is_idle());
}

fn sip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sip");
    group.throughput(Throughput::Elements(3));
    group.bench_function(
        "a whole call at the endpoint (3 requests in, 4 responses out)",
        |bencher| {
            let (mut endpoint, mut now, mut number) = (endpoint(), Instant::now(), 0);
            // A trusted peer gets all responses of the call, without the limits of a stranger.
            endpoint.set_trusted_peers(vec!["192.0.2.10/32".parse().expect("a network")]);
            bencher.iter(|| {
                number += 1;
                whole_call(&mut endpoint, number, &mut now);
            });
        },
    );
    group.throughput(Throughput::Elements(1));
    group.bench_function("OPTIONS of a stranger", |bencher| {
        let (mut endpoint, now) = (endpoint(), Instant::now());
        let options = request("OPTIONS", 1, 1, "", "");
        bencher.iter(|| {
            endpoint.handle_message(black_box(options.as_bytes()), path(), now);
            black_box(drain(&mut endpoint));
        });
    });
    let invite = request("INVITE", 1, 1, "", SDP);
    group.bench_function("reading an INVITE", |bencher| {
        bencher.iter(|| parse_datagram(black_box(invite.as_bytes())).expect("it can be read"));
    });
    group.finish();
}

criterion_group!(benches, sip);
criterion_main!(benches);
