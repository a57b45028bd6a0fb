//! Legs against a scripted RTP peer over loopback sockets.
//!
//! Most tests tick the leg by hand: loopback delivers at once, so frames are virtual time. Only the
//! tests of the engine use its threads.

mod answers;
mod encrypted;
mod keys;
mod moved;
mod renewed;
mod silence;
mod strangers;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::mpsc::{Receiver as ChunkReceiver, sync_channel},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    Engine, EngineConfig, LegEvent, Muted, OpenError, OpenLeg, Play, PortPool, PortRange, Settings,
    Start, Targets,
    leg::{LegCommand, Life, LiveLeg, Opening, Scratch},
    transport::Transport,
};
use aftertone_core::{
    audio::{
        Clip, Codec, Encoder, Frame, Rate,
        beep::BEEP_FRAMES,
        g711::Law,
        tape::{Chunk, ChunkBody},
    },
    model::{
        CallId, OperationEnd, OperationId, RecordAction, RecordRequest, RecordingId,
        SendTonesRequest, Silence, Tone,
    },
    operation::Ended,
    proto::{
        rtp::{
            PayloadType, RtpTimestamp, SeqNo, Ssrc,
            packet::{Header, Packet},
            rtcp::{self, ReportBlock},
        },
        sdp::{Direction, Payload, StreamPlan},
        srtp::SrtpSender,
    },
};

const EVENT_TYPE: u8 = 101;
/// Codes that are never part of [`speech`]: a loud one, and a quiet one.
const RINGBACK: u8 = 0x52;
const QUIET: u8 = 0x7E;

fn pt(number: u8) -> PayloadType {
    PayloadType::new(number).unwrap()
}

/// A phone that sends and receives G.711 µ-law.
struct Peer {
    socket: UdpSocket,
    leg: SocketAddr,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    /// What it protects its packets with.
    srtp: Option<SrtpSender>,
}

impl Peer {
    fn new(leg: SocketAddr) -> Self {
        Self::at(Ipv4Addr::LOCALHOST, leg)
    }

    fn at(host: Ipv4Addr, leg: SocketAddr) -> Self {
        let socket = UdpSocket::bind((host, 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket, leg, ssrc: 7, sequence: 100, timestamp: 8_000, srtp: None }
    }

    fn address(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }

    /// Sends 20 ms of `codes`.
    fn speak(&mut self, codes: &[u8]) {
        self.send(0, codes, false);
        self.timestamp += codes.len() as u32;
    }

    /// Presses a key for 60 ms, as telephones do: three packets, and the last one is repeated
    /// twice.
    fn press(&mut self, tone: Tone) {
        for (index, units) in [160_u16, 320, 480, 480, 480].into_iter().enumerate() {
            let [high, low] = units.to_be_bytes();
            let end = if index >= 2 { 0x80 } else { 0 };
            self.send(EVENT_TYPE, &[tone.event_code(), end | 10, high, low], index == 0);
        }
        self.timestamp += 480;
    }

    fn send(&mut self, payload_type: u8, payload: &[u8], marker: bool) {
        let mut packet = Vec::new();
        let Self { sequence, timestamp, ssrc, .. } = *self;
        Header {
            marker,
            payload_type: pt(payload_type),
            sequence: SeqNo(sequence),
            timestamp: RtpTimestamp(timestamp),
            ssrc: Ssrc(ssrc),
        }
        .write(&mut packet);
        packet.extend_from_slice(payload);
        if let Some(srtp) = &mut self.srtp {
            srtp.protect(&mut packet).unwrap();
        }
        self.socket.send_to(&packet, self.leg).unwrap();
        self.sequence = self.sequence.wrapping_add(1);
    }

    /// Reports by RTCP that the leg's packets arrive.
    fn report(&self, ssrc: Ssrc) {
        let mut packet = Vec::new();
        let block = ReportBlock { ssrc, ..ReportBlock::default() };
        rtcp::write(&mut packet, Ssrc(self.ssrc), None, Some(block), "phone", false);
        self.rtcp(&packet, 1);
    }

    /// Sends RTCP to the port that is `beside` above the RTP port.
    fn rtcp(&self, packet: &[u8], beside: u16) {
        let rtcp = SocketAddr::new(self.leg.ip(), self.leg.port() + beside);
        self.socket.send_to(packet, rtcp).unwrap();
    }

    /// All packets that have come.
    fn packets(&self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 2_048];
        let receive = || self.socket.recv(&mut buffer).ok().map(|len| buffer[..len].to_vec());
        std::iter::from_fn(receive).collect()
    }

    /// The sound of everything that has come.
    fn heard(&self) -> Vec<u8> {
        let packets = self.packets();
        packets.iter().flat_map(|packet| Packet::parse(packet).unwrap().payload.to_vec()).collect()
    }

    fn plan(&self) -> StreamPlan {
        StreamPlan {
            codec: Codec::Pcmu,
            payload_type: pt(0),
            telephone_event: Some(pt(EVENT_TYPE)),
            heard: vec![(pt(0), Payload::Sound(Codec::Pcmu)), (pt(EVENT_TYPE), Payload::Event)],
            remote: Some(self.address()),
            named: Vec::new(),
            port_at_sip_host: None,
            remote_rtcp: None,
            direction: Direction::SendRecv,
            ptime_ms: 20,
            rtcp_mux: false,
            srtp: None,
        }
    }
}

/// A leg that is ticked by hand.
struct Rig {
    leg: LiveLeg,
    local: SocketAddr,
    commands: mpsc::Sender<LegCommand>,
    events: mpsc::Receiver<LegEvent>,
    scratch: Scratch,
}

impl Rig {
    fn new() -> Self {
        Self::with(Settings::default(), 64)
    }

    fn with(settings: Settings, events: usize) -> Self {
        Self::at(Ipv4Addr::LOCALHOST, settings, events)
    }

    fn at(bind: Ipv4Addr, settings: Settings, events: usize) -> Self {
        let pool = PortPool::new(PortRange::Ephemeral, Duration::ZERO);
        let pair = pool.bind(bind.into()).unwrap();
        let local = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), pair.local.port());
        let (commands, inbox) = mpsc::channel(16);
        let (sender, events) = mpsc::channel(events);
        let leg = LiveLeg::new(Opening {
            call: CallId::from_random([1; 16]),
            transport: Transport::new(pair),
            commands: inbox,
            events: sender,
            targets: targets(),
            settings,
        });
        Self { leg, local, commands, events, scratch: Scratch::default() }
    }

    fn command(&self, command: LegCommand) {
        self.commands.try_send(command).unwrap();
    }

    fn tick(&mut self, times: usize) -> Life {
        (0..times).map(|_| self.leg.tick(&mut self.scratch)).last().unwrap()
    }

    /// Sends `codes` from the peer in frames of 20 ms, with a tick after each.
    fn converse(&mut self, peer: &mut Peer, codes: &[u8]) {
        for frame in codes.chunks(160) {
            peer.speak(frame);
            self.tick(1);
        }
    }

    fn told(&mut self) -> Vec<LegEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    /// The reported events, without `Heard`, `OperationSaid` and figures.
    fn outline(&mut self) -> Vec<String> {
        let outline = |event| match event {
            LegEvent::Heard => None,
            LegEvent::Tone { tone } => Some(format!("tone {}", tone.as_char())),
            LegEvent::OperationSaid { .. } => None,
            LegEvent::OperationEnded { ended, .. } => Some(format!("ended {:?}", ended.end)),
            LegEvent::MediaTimedOut { silence, .. } => Some(format!("timed out {silence:?}")),
            LegEvent::KeysDiffer { tag, .. } => Some(format!("keys differ: tag {tag}")),
            LegEvent::Unsent { why, .. } => Some(format!("unsent {why:?}")),
            LegEvent::Closed { .. } => Some("closed".to_owned()),
            LegEvent::Failed => Some("failed".to_owned()),
        };
        self.told().into_iter().filter_map(outline).collect()
    }
}

/// Targets without addresses of our own: all addresses belong to peers.
fn targets() -> Targets {
    Targets::new(PortRange::Ephemeral, Vec::new(), None)
}

/// The event of a silence without packets that were refused.
fn timed_out(silence: Silence) -> LegEvent {
    LegEvent::MediaTimedOut { silence, unauthenticated: 0 }
}

/// The host of the peers' SIP, in tests in which it is also the host of their RTP.
const HOST: Option<IpAddr> = Some(IpAddr::V4(Ipv4Addr::LOCALHOST));

/// Loud codes without any repetition within a second.
fn speech(frames: usize) -> Vec<u8> {
    let mut state = 12_345_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Excludes the two zeros.
        (state >> 24) as u8 & 0xBF
    };
    (0..frames * 160).map(|_| next()).collect()
}

fn samples(codes: &[u8]) -> Vec<i16> {
    codes.iter().map(|code| Law::Mu.decode(*code)).collect()
}

fn id(number: u8) -> OperationId {
    OperationId::from_random([number; 16])
}

fn prompt(codes: &[u8]) -> Play {
    let clip = Clip::new(samples(codes).into(), vec![0; 2 * codes.len()].into());
    Play::Prompts { prompts: vec![(clip, 1)], repeat: false }
}

fn play(number: u8, play: Play) -> LegCommand {
    LegCommand::Start(Start { id: id(number), play, tape: None })
}

fn record(number: u8, max_seconds: u32, spool: usize) -> (LegCommand, ChunkReceiver<Chunk>) {
    recording(number, max_seconds, spool, false)
}

fn recording(
    number: u8,
    max_seconds: u32,
    spool: usize,
    play_beep: bool,
) -> (LegCommand, ChunkReceiver<Chunk>) {
    let request = RecordRequest {
        action: RecordAction::Record,
        prompt: None,
        barge_in_allowed: false,
        initial_silence_seconds: max_seconds,
        max_silence_seconds: max_seconds,
        max_duration_seconds: max_seconds,
        play_beep,
        stop_tones: vec![Tone::POUND],
    };
    let (sender, chunks) = sync_channel(spool);
    let start = Start {
        id: id(number),
        play: Play::Record { request, prompt: None },
        tape: Some((RecordingId::from_random([number; 16]), sender)),
    };
    (LegCommand::Start(start), chunks)
}

/// The 8 kHz samples of a recording, and whether it is delivered; panics without an end.
fn clip(chunks: &ChunkReceiver<Chunk>) -> (Vec<i16>, bool) {
    let mut wide = Vec::new();
    for chunk in chunks.try_iter() {
        match chunk.body {
            ChunkBody::Samples(samples) => wide.extend(samples),
            ChunkBody::End { keep } => return (wide.into_iter().step_by(2).collect(), keep),
        }
    }
    panic!("the recording has no end after {} samples", wide.len());
}

/// The exact position of `part` in `whole`.
fn position(whole: &[i16], part: &[i16]) -> Option<usize> {
    whole.windows(part.len()).position(|window| window == part)
}

#[test]
fn nothing_is_sent_before_the_leg_is_connected() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    rig.command(play(1, prompt(&speech(10))));
    rig.converse(&mut peer, &speech(5));
    assert!(peer.packets().is_empty());
    assert_eq!(rig.told(), []);
}

#[test]
fn what_comes_before_the_leg_is_connected_is_not_heard() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    // Ringback, and then more of it at once before the next tick.
    rig.converse(&mut peer, &[RINGBACK; 250 * 160]);
    for _ in 0..50 {
        peer.speak(&[RINGBACK; 160]);
    }
    let (start, chunks) = record(1, 60, 64);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(start);
    rig.tick(1);
    let codes = speech(50);
    rig.converse(&mut peer, &codes);
    rig.command(LegCommand::Close);
    rig.tick(1);
    let (clip, _) = clip(&chunks);
    assert!(!clip.contains(&Law::Mu.decode(RINGBACK)));
    let begin = position(&clip, &samples(&codes)).expect("all that was said after the answer");
    assert!(begin <= 10 * 160, "{begin} samples before it");
}

#[test]
fn a_clip_begins_with_what_is_said_after_the_beep_however_far_playout_is_behind() {
    for before in [RINGBACK, QUIET] {
        let mut rig = Rig::new();
        let mut peer = Peer::new(rig.local);
        rig.command(LegCommand::Connect(peer.plan(), HOST));
        rig.tick(1);
        for _ in 0..100 {
            peer.speak(&[before; 160]);
        }
        rig.tick(17);
        let (start, chunks) = recording(1, 60, 1_024, true);
        rig.command(start);
        rig.converse(&mut peer, &[before; BEEP_FRAMES as usize * 160]);
        let codes = speech(200);
        rig.converse(&mut peer, &codes);
        rig.command(LegCommand::Close);
        rig.tick(1);
        let (clip, _) = clip(&chunks);
        assert_eq!(position(&clip, &samples(&codes)), Some(0), "to the sample");
    }
}

#[test]
fn a_prompt_is_heard_to_the_sample() {
    let mut rig = Rig::new();
    let peer = Peer::new(rig.local);
    let codes = speech(25);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(play(1, prompt(&codes)));
    rig.tick(30);
    let heard = peer.heard();
    assert_eq!(heard[..codes.len()], codes);
    assert_eq!(samples(&heard[codes.len()..]), vec![0; 5 * 160], "then silence");
    let said = LegEvent::OperationSaid { id: id(1) };
    assert_eq!(rig.told(), [said], "it is still in the peer's jitter buffer");
    rig.tick(1);
    let ended = Ended { end: OperationEnd::Done, clip: None };
    assert_eq!(rig.told(), [LegEvent::OperationEnded { id: id(1), ended }]);
}

#[test]
fn a_prompt_is_done_when_its_last_packet_has_lasted_and_has_been_played() {
    for (ptime_ms, ticks) in [(20, 1), (40, 2), (60, 3)] {
        for frames in 10..13 {
            let mut rig = Rig::new();
            let peer = Peer::new(rig.local);
            rig.command(LegCommand::Connect(StreamPlan { ptime_ms, ..peer.plan() }, HOST));
            rig.command(play(1, prompt(&speech(frames))));
            let (mut sent, mut done) = (0, 0);
            for tick in 1..40 {
                rig.tick(1);
                let is_sound = |packet: &Vec<u8>| samples(&packet[12..]).iter().any(|s| *s != 0);
                sent = if peer.packets().iter().any(is_sound) { tick } else { sent };
                done = if rig.outline() == ["ended Done"] { tick } else { done };
            }
            let after = done - sent;
            assert!((ticks + 5..ticks + 9).contains(&after), "{ptime_ms} ms: {after} frames");
        }
    }
}

#[test]
fn no_hold_music_is_heard_between_two_prompts_of_a_queue() {
    let mut rig = Rig::new();
    let peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    let music = Clip::new(samples(&[0x90; 480]).into(), vec![0; 960].into());
    rig.command(play(1, Play::HoldMusic { prompts: vec![(music, 1)] }));
    rig.tick(1);
    assert_eq!(rig.outline(), ["ended Done"], "it has begun");
    rig.command(play(2, prompt(&[0xA0; 320])));
    let mut said = 0;
    // Each prompt begins as soon as the call learns that the one before has been sent.
    for _ in 0..11 {
        rig.tick(1);
        for event in rig.told() {
            let LegEvent::OperationSaid { .. } = event else { continue };
            said += 1;
            if said < 3 {
                rig.command(play(2 + said, prompt(&[0xA0; 320])));
            }
        }
    }
    let heard = peer.heard();
    assert_eq!(heard, [vec![0x90; 160], vec![0xA0; 960], vec![0x90; 5 * 160]].concat());
    rig.tick(10);
    assert_eq!(rig.outline(), ["ended Done"], "the last, when it has been heard");
}

#[test]
fn a_prompt_that_was_said_whole_is_done_when_the_call_ends_before_it_was_heard() {
    let mut rig = Rig::new();
    let peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(play(1, prompt(&speech(10))));
    rig.tick(12);
    assert_eq!(rig.outline(), Vec::<String>::new());
    rig.command(LegCommand::Close);
    rig.tick(1);
    assert_eq!(rig.outline(), ["ended Done", "closed"]);
}

fn send_keys(number: u8) -> LegCommand {
    let tones = "12#".chars().map(|key| Tone::try_from(key).unwrap()).collect();
    play(number, Play::SendTones(SendTonesRequest { tones, delay_ms: 100 }))
}

#[test]
fn keys_go_out_as_sound_when_events_were_not_agreed() {
    let mut rig = Rig::new();
    let peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(StreamPlan { telephone_event: None, ..peer.plan() }, HOST));
    rig.command(send_keys(1));
    rig.tick(40);
    let heard = samples(&peer.heard());
    let loud = |from: usize| heard[from * 160..(from + 5) * 160].iter().any(|s| *s > 8_000);
    assert!(loud(0) && loud(10) && loud(20), "three keys");
    assert!(heard[5 * 160..10 * 160].iter().all(|sample| *sample == 0), "and pauses");
    assert_eq!(rig.outline(), ["ended Done"]);
}

#[test]
fn keys_are_sent_as_sound_by_who_is_muted_too() {
    let mut rig = Rig::new();
    let peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(StreamPlan { telephone_event: None, ..peer.plan() }, HOST));
    rig.command(LegCommand::Mute(Muted { ours: true, peers: false }));
    rig.command(send_keys(1));
    rig.tick(40);
    let heard = samples(&peer.heard());
    let loud = |from: usize| heard[from * 160..(from + 5) * 160].iter().any(|s| *s > 8_000);
    assert!(loud(0) && loud(10) && loud(20), "three keys");
    assert_eq!(rig.outline(), ["ended Done"]);
}

#[test]
fn prompts_and_keys_wait_while_the_peer_holds_and_are_never_done_unheard() {
    let codes = speech(25);
    for (play_it, frames) in [(play(1, prompt(&codes)), 25), (send_keys(1), 29)] {
        let mut rig = Rig::new();
        let peer = Peer::new(rig.local);
        let hold = StreamPlan { direction: Direction::RecvOnly, ..peer.plan() };
        rig.command(LegCommand::Connect(peer.plan(), HOST));
        rig.command(play_it);
        rig.tick(10);
        rig.command(LegCommand::Connect(hold, HOST));
        rig.tick(200);
        assert_eq!(rig.outline(), Vec::<String>::new());
        rig.command(LegCommand::Connect(peer.plan(), HOST));
        rig.tick(frames - 10);
        assert_eq!(peer.packets().len(), frames, "all of it was sent");
        rig.tick(6);
        assert_eq!(rig.outline(), ["ended Done"]);
    }
}

#[test]
fn a_prompt_that_is_hung_up_on_is_not_done_however_little_of_it_was_left() {
    for left in 1..5 {
        let mut rig = Rig::new();
        let mut peer = Peer::new(rig.local);
        rig.command(LegCommand::Connect(peer.plan(), HOST));
        rig.command(play(1, prompt(&speech(30))));
        rig.converse(&mut peer, &speech(30 - left));
        rig.command(LegCommand::Close);
        rig.tick(1);
        assert_eq!(rig.outline(), ["ended Canceled", "closed"], "{left} frames before its end");
    }
}

#[test]
fn whoever_is_muted_is_not_heard() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(play(1, Play::Echo));
    let codes = speech(60);
    for (ours, peers, is_heard) in
        [(false, false, true), (true, false, false), (false, true, false)]
    {
        rig.command(LegCommand::Mute(Muted { ours, peers }));
        rig.converse(&mut peer, &codes);
        // The first half may have been in the jitter buffer when the leg was muted.
        let heard = samples(&peer.heard());
        let is_sound = heard[heard.len() / 2..].iter().any(|sample| *sample != 0);
        assert_eq!(is_sound, is_heard, "{ours} {peers}");
    }
}

#[test]
fn hold_music_plays_whenever_nothing_else_does() {
    let mut rig = Rig::new();
    let peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    let (music, prompt_codes) = (vec![0x90; 480], vec![0xA0; 320]);
    let clip = Clip::new(samples(&music).into(), vec![0; 960].into());
    rig.command(play(1, Play::HoldMusic { prompts: vec![(clip, 1)] }));
    rig.tick(10);
    assert_eq!(rig.outline(), ["ended Done"], "it has begun");
    assert_eq!(peer.heard(), vec![0x90; 10 * 160], "over and over");
    rig.command(play(2, prompt(&prompt_codes)));
    rig.tick(5);
    assert_eq!(peer.heard(), [vec![0xA0; 320], vec![0x90; 480]].concat());
    rig.command(play(3, Play::NoHoldMusic));
    rig.tick(5);
    assert_eq!(samples(&peer.heard()), vec![0; 5 * 160]);
    assert_eq!(rig.outline(), ["ended Done", "ended Done"]);
}

#[test]
fn hold_music_ends_at_once_while_the_peer_holds() {
    let mut rig = Rig::new();
    let peer = Peer::new(rig.local);
    let hold = StreamPlan { direction: Direction::RecvOnly, ..peer.plan() };
    let music = Clip::new(vec![900; 160].into(), vec![900; 320].into());
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(play(1, Play::HoldMusic { prompts: vec![(music, 1)] }));
    rig.tick(2);
    rig.command(LegCommand::Connect(hold, HOST));
    rig.command(play(2, Play::NoHoldMusic));
    rig.tick(1);
    assert_eq!(rig.outline(), ["ended Done", "ended Done"]);
    peer.packets();
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.tick(5);
    assert_eq!(samples(&peer.heard()), vec![0; 5 * 160]);
}

#[test]
fn a_recording_holds_what_was_sent_and_a_hang_up_keeps_it() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    let codes = speech(100);
    let (start, chunks) = record(1, 60, 64);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(start);
    rig.tick(1);
    rig.converse(&mut peer, &codes);
    rig.command(LegCommand::Close);
    assert_eq!(rig.tick(1), Life::Over);
    assert_eq!(rig.outline(), ["ended HungUpWithAudio", "closed"]);
    let (clip, keep) = clip(&chunks);
    let sent = samples(&codes);
    let begin = position(&clip, &sent).expect("all that was sent, in one piece");
    assert!(begin <= 10 * 160, "the jitter buffer holds back {begin} samples");
    assert!(clip.len() - begin - sent.len() <= 160, "nothing is added at the end");
    assert!(keep);
}

#[test]
fn a_recording_loses_nothing_when_the_codec_changes() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    let codes = speech(100);
    let (mu, a) = codes.split_at(50 * 160);
    let (start, chunks) = record(1, 60, 64);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(start);
    rig.tick(1);
    rig.converse(&mut peer, mu);
    let plan = speaking(&peer, Codec::Pcma, 8);
    rig.command(LegCommand::Connect(plan, HOST));
    for frame in a.chunks(160) {
        peer.send(8, frame, false);
        peer.timestamp += 160;
        rig.tick(1);
    }
    let plan = speaking(&peer, Codec::Opus, 111);
    rig.command(LegCommand::Connect(plan, HOST));
    let mut encoder = Encoder::new(Codec::Opus).unwrap();
    for _ in 0..50 {
        let mut payload = Vec::new();
        encoder.encode(&Frame::silence(Rate::Hz16000), &mut payload).unwrap();
        peer.send(111, &payload, false);
        peer.timestamp += 960;
        rig.tick(1);
    }
    rig.command(LegCommand::Close);
    rig.tick(1);
    assert_eq!(rig.outline(), ["ended HungUpWithAudio", "closed"]);
    let (clip, _) = clip(&chunks);
    let both: Vec<i16> =
        samples(mu).into_iter().chain(a.iter().map(|code| Law::A.decode(*code))).collect();
    let begin = position(&clip, &both).expect("what was said in either law, in one piece");
    assert!(begin <= 10 * 160, "the jitter buffer holds back {begin} samples");
    let length = clip.len() - begin;
    assert!((150 * 160..=151 * 160).contains(&length), "{length} samples in 150 frames");
}

/// The plan with a peer, with another codec.
fn speaking(peer: &Peer, codec: Codec, payload_type: u8) -> StreamPlan {
    let payload_type = pt(payload_type);
    let heard = vec![(payload_type, Payload::Sound(codec)), (pt(EVENT_TYPE), Payload::Event)];
    StreamPlan { codec, payload_type, heard, ..peer.plan() }
}

#[test]
fn a_stop_tone_ends_the_recording_and_is_told() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    let codes = speech(50);
    let (start, chunks) = record(1, 60, 64);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(start);
    rig.tick(1);
    rig.converse(&mut peer, &codes);
    peer.press(Tone::POUND);
    rig.tick(30);
    assert_eq!(rig.outline(), ["tone #", "ended StopToneDetected"]);
    let (clip, keep) = clip(&chunks);
    assert!(position(&clip, &samples(&codes[..49 * 160])).is_some());
    assert!(keep);
}

#[test]
fn a_key_by_sip_stops_the_recording_after_what_was_said_before_it() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    let codes = speech(50);
    let (start, chunks) = record(1, 60, 64);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(start);
    rig.tick(1);
    rig.converse(&mut peer, &codes);
    rig.command(LegCommand::Press(Tone::POUND));
    rig.converse(&mut peer, &codes);
    assert_eq!(rig.outline(), ["tone #", "ended StopToneDetected"]);
    let (clip, keep) = clip(&chunks);
    let begin = position(&clip, &samples(&codes)).expect("all that was said before the key");
    assert_eq!(clip.len(), begin + codes.len(), "and nothing of what was said after it");
    assert!(keep);
}

#[test]
fn a_key_that_comes_by_rtp_and_by_sip_is_told_once() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.converse(&mut peer, &speech(10));
    for _ in 0..3 {
        peer.press(Tone::POUND);
        rig.tick(3);
        rig.command(LegCommand::Press(Tone::POUND));
        rig.converse(&mut peer, &speech(10));
    }
    rig.command(LegCommand::Press(Tone::POUND));
    rig.tick(30);
    assert_eq!(rig.outline(), ["tone #"; 4]);
}

#[test]
fn a_key_by_sip_is_told_on_a_call_without_rtp() {
    let mut rig = Rig::new();
    let peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.tick(10);
    rig.command(LegCommand::Press(Tone::POUND));
    rig.tick(2);
    assert_eq!(rig.outline(), ["tone #"]);
}

#[test]
fn keys_are_told_once_each_when_nothing_runs() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.converse(&mut peer, &speech(10));
    for key in ['1', '1', '*'] {
        peer.press(Tone::try_from(key).unwrap());
        rig.tick(3);
        rig.converse(&mut peer, &speech(20));
    }
    rig.tick(30);
    assert_eq!(rig.outline(), ["tone 1", "tone 1", "tone *"]);
}

#[test]
fn a_re_invite_moves_the_call_and_the_recording_goes_on() {
    let mut rig = Rig::new();
    let (mut peer, mut moved) = (Peer::new(rig.local), Peer::new(rig.local));
    let codes = speech(60);
    let (start, chunks) = record(1, 60, 64);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(start);
    rig.tick(1);
    rig.converse(&mut peer, &codes[..30 * 160]);
    peer.packets();
    rig.command(LegCommand::Connect(moved.plan(), HOST));
    // The peer uses its new port once it has our answer, which is sent after the leg has changed.
    rig.tick(1);
    (moved.sequence, moved.timestamp) = (peer.sequence, peer.timestamp);
    rig.converse(&mut moved, &codes[30 * 160..]);
    assert!(peer.packets().is_empty());
    assert_eq!(moved.heard().len(), 31 * 160);
    rig.command(LegCommand::Close);
    rig.tick(1);
    let (clip, _) = clip(&chunks);
    assert!(position(&clip, &samples(&codes)).is_some(), "without a gap");
}

#[test]
fn hold_sends_nothing_and_resume_begins_a_talkspurt() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.converse(&mut peer, &speech(5));
    let before = peer.packets();
    rig.command(LegCommand::Connect(
        StreamPlan { direction: Direction::Inactive, ..peer.plan() },
        HOST,
    ));
    rig.tick(20);
    assert!(peer.packets().is_empty());
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.converse(&mut peer, &speech(5));
    let after = peer.packets();
    let header = |packet: &Vec<u8>| Packet::parse(packet).unwrap().header;
    let (last, first) = (header(&before[4]), header(&after[0]));
    assert!(first.marker);
    assert_eq!(first.sequence, last.sequence.next());
    assert_eq!(first.timestamp, last.timestamp + 21 * 160);
    assert_eq!(after.len(), 5);
}

#[test]
fn events_wait_for_a_place_and_keep_their_order() {
    let mut rig = Rig::with(Settings::default(), 1);
    let mut peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.converse(&mut peer, &speech(5));
    peer.press(Tone::POUND);
    rig.tick(20);
    rig.command(play(1, prompt(&speech(1))));
    rig.command(LegCommand::Close);
    rig.tick(3);
    let mut outline = Vec::new();
    for _ in 0..10 {
        outline.extend(rig.outline());
        rig.tick(1);
    }
    assert_eq!(outline, ["tone #", "ended Canceled", "closed"]);
}

#[test]
fn an_end_is_told_only_after_the_spool_has_the_clip() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    let (start, chunks) = record(1, 60, 1);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(start);
    rig.tick(1);
    rig.converse(&mut peer, &speech(100));
    rig.command(LegCommand::Cancel(id(1)));
    rig.tick(5);
    assert_eq!(rig.outline(), Vec::<String>::new());
    let mut bodies = Vec::new();
    for _ in 0..20 {
        bodies.extend(chunks.try_iter().map(|chunk| chunk.body));
        rig.tick(1);
    }
    assert!(matches!(bodies.last(), Some(ChunkBody::End { keep: false })));
    assert_eq!(rig.outline(), ["ended Canceled"]);
}

#[test]
fn a_spool_that_is_gone_is_no_completed_recording() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    let (start, chunks) = record(1, 60, 1);
    drop(chunks);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(start);
    rig.tick(1);
    rig.converse(&mut peer, &speech(50));
    rig.command(LegCommand::Close);
    rig.tick(1);
    assert_eq!(rig.outline(), ["ended Unspecified", "closed"]);
}

#[test]
fn what_runs_gives_way_to_what_is_started() {
    let mut rig = Rig::new();
    let peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(play(1, prompt(&speech(100))));
    rig.tick(5);
    rig.command(play(2, prompt(&speech(1))));
    rig.command(LegCommand::Cancel(id(1)));
    rig.tick(7);
    assert_eq!(rig.outline(), ["ended Canceled", "ended Done"]);
}

#[test]
fn a_fault_ends_the_operation_and_then_the_leg_and_the_clip_is_kept() {
    let mut rig = Rig::new();
    let mut peer = Peer::new(rig.local);
    let (start, chunks) = record(1, 60, 64);
    rig.command(LegCommand::Connect(peer.plan(), HOST));
    rig.command(start);
    rig.tick(1);
    rig.converse(&mut peer, &speech(30));
    rig.leg.fail();
    assert_eq!(rig.tick(1), Life::Over);
    assert_eq!(rig.outline(), ["ended HungUpWithAudio", "failed"]);
    let (clip, keep) = clip(&chunks);
    assert!(keep && position(&clip, &samples(&speech(20))).is_some());
}

#[test]
fn an_operation_that_comes_together_with_the_end_is_told_to_have_ended() {
    let mut rig = Rig::new();
    let (start, chunks) = record(1, 60, 64);
    rig.command(LegCommand::Close);
    rig.command(start);
    assert_eq!(rig.tick(1), Life::Over);
    assert_eq!(rig.outline(), ["ended HungUpWithoutAudio", "closed"]);
    assert!(!clip(&chunks).1);
    assert!(rig.commands.try_send(LegCommand::Close).is_err(), "nothing is accepted any more");
}

#[test]
fn a_leg_without_a_call_ends() {
    let mut rig = Rig::new();
    rig.tick(1);
    rig.events.close();
    rig.tick(1);
    assert_eq!(rig.tick(1), Life::Over);
}

fn engine() -> Engine {
    let ports = PortPool::new(PortRange::Ephemeral, Duration::ZERO);
    let settings = Settings::default();
    Engine::start(EngineConfig { ports, shards: 2, targets: targets(), settings }).unwrap()
}

fn open(events: mpsc::Sender<LegEvent>) -> OpenLeg {
    let call = CallId::from_random([1; 16]);
    OpenLeg { call, bind: Ipv4Addr::LOCALHOST.into(), events }
}

/// The next event other than `OperationSaid`.
async fn next_end(events: &mut mpsc::Receiver<LegEvent>) -> Option<LegEvent> {
    loop {
        match events.recv().await {
            Some(LegEvent::OperationSaid { .. }) => {}
            other => return other,
        }
    }
}

#[tokio::test]
async fn the_engine_paces_its_legs_and_tells_when_they_are_closed() {
    let engine = engine();
    let (sender, mut events) = mpsc::channel(16);
    let leg = engine.open(open(sender)).unwrap();
    let peer = Peer::new(leg.local_addr());
    leg.send(LegCommand::Connect(peer.plan(), HOST)).await.unwrap();
    let codes = speech(25);
    let start = Start { id: id(1), play: prompt(&codes), tape: None };
    let began = Instant::now();
    leg.send(LegCommand::Start(start)).await.unwrap();
    assert!(matches!(next_end(&mut events).await, Some(LegEvent::OperationEnded { .. })));
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(450), "25 frames in {took:?}");
    assert_eq!(engine.legs(), 1);
    drop(leg);
    assert!(matches!(events.recv().await, Some(LegEvent::Closed { .. })));
    assert!(events.recv().await.is_none());
    let heard = peer.heard();
    assert!(heard.windows(codes.len()).any(|window| window == codes));
    engine.shutdown();
    assert_eq!(engine.legs(), 0);
}

#[tokio::test]
async fn a_shutdown_hangs_up_what_runs() {
    let engine = engine();
    let mut calls = Vec::new();
    for _ in 0..4 {
        let (sender, events) = mpsc::channel(16);
        let leg = engine.open(open(sender)).unwrap();
        let plan = Peer::new(leg.local_addr()).plan();
        leg.send(LegCommand::Connect(plan, HOST)).await.unwrap();
        let first = Start { id: id(1), play: prompt(&speech(1)), tape: None };
        let second = Start { id: id(2), play: Play::Echo, tape: None };
        leg.send(LegCommand::Start(first)).await.unwrap();
        leg.send(LegCommand::Start(second)).await.unwrap();
        calls.push((leg, events));
    }
    for (_, events) in &mut calls {
        // The second operation has canceled the first one, and runs now.
        assert!(matches!(next_end(events).await, Some(LegEvent::OperationEnded { .. })));
    }
    engine.shutdown();
    for (leg, mut events) in calls {
        assert!(matches!(next_end(&mut events).await, Some(LegEvent::OperationEnded { .. })));
        assert!(matches!(events.recv().await, Some(LegEvent::Closed { .. })));
        assert!(leg.send(LegCommand::Close).await.is_err());
    }
    let (sender, _events) = mpsc::channel(1);
    assert!(matches!(engine.open(open(sender)), Err(OpenError::Down)));
}
