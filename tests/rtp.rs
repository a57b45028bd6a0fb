//! Phones with irregular RTP, over the wire: a law that was not negotiated, keys with impossible
//! durations, ports that change, silence with RTCP, and jitter buffers.

mod support;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use aftertone_core::{
    audio::g711::Law,
    model::Tone,
    proto::rtp::{
        PayloadType, RtpTimestamp, SeqNo, Ssrc,
        packet::{Header, Packet},
        rtcp, telephone_event,
    },
};
use serde_json::{Value, json};
use support::{Node, bot::Bot, raw::Peer};
use tokio::{
    net::UdpSocket,
    time::{interval, timeout},
};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Samples of a packet.
const PACKET: usize = 160;
const EVENT: u8 = 101;

/// A phone that the test controls.
struct Phone {
    sip: Peer,
    rtp: UdpSocket,
    leg: SocketAddr,
    sequence: u16,
    timestamp: u32,
}

impl Phone {
    /// Calls the bot with these payload types on offer; returns the phone and the call's id.
    async fn call(node: &Node, bot: &Bot, formats: &str) -> (Self, String) {
        let rtp = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
        let sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
             m=audio {} RTP/AVP {formats}\r\na=rtpmap:{EVENT} telephone-event/8000\r\n",
            rtp.local_addr().unwrap().port()
        );
        let id = format!("{:x}", rand::random::<u64>());
        let mut sip = Peer::new(LOCALHOST, node.sip, "bot", &id).await;
        sip.say("INVITE", 1, "i", &sdp).await;
        let answered = async {
            let answer = sip.wait_for("INVITE", |status| status == 200).await;
            sip.say("ACK", 1, "a", "").await;
            let port = answer.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next());
            SocketAddr::new(LOCALHOST, port.unwrap().parse().unwrap())
        };
        let (call, leg) = tokio::join!(bot.take_call(), answered);
        (Self { sip, rtp, leg, sequence: 65_500, timestamp: 7_000 }, call)
    }

    async fn send(&mut self, payload_type: u8, timestamp: u32, marker: bool, payload: &[u8]) {
        let mut packet = Vec::new();
        let sequence = self.sequence;
        Header {
            marker,
            payload_type: PayloadType::of_octet(payload_type),
            sequence: SeqNo(sequence),
            timestamp: RtpTimestamp(timestamp),
            ssrc: Ssrc(7),
        }
        .write(&mut packet);
        packet.extend(payload);
        self.rtp.send_to(&packet, self.leg).await.unwrap();
        self.sequence = sequence.wrapping_add(1);
    }

    /// Sends the packet of the next 20 ms.
    async fn speak(&mut self, payload_type: u8, codes: &[u8]) {
        self.send(payload_type, self.timestamp, false, codes).await;
        self.timestamp += PACKET as u32;
    }

    /// Waits for a BYE and answers it.
    async fn bye(&mut self, time: Duration) -> Option<Instant> {
        let begun = Instant::now();
        while let Some(text) = self.sip.next(time.saturating_sub(begun.elapsed())).await {
            if text.starts_with("BYE") {
                return Some(Instant::now());
            }
        }
        None
    }
}

async fn node_and_bot(extra: &str) -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let node = Node::start(&format!("{extra}{}", bot.config()));
    bot.knows(&node.api);
    (node, bot)
}

/// Loud codes; no packet is equal to another.
fn noise(packets: usize) -> Vec<u8> {
    let code = || 40 + rand::random::<u8>() % 60 + if rand::random() { 128 } else { 0 };
    (0..packets * PACKET).map(|_| code()).collect()
}

async fn start_recording(bot: &Bot, call: &str) -> String {
    let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 30,
        "initialSilenceTimeoutInSeconds": 30, "maxSilenceTimeoutInSeconds": 30,
        "stopTones": ["#"]});
    let (status, operation) = bot.post(&format!("{call}/recordResponse"), &body).await;
    assert_eq!(status, 200, "{operation}");
    operation["id"].as_str().unwrap().to_owned()
}

/// The packets that are not in the clip of an operation, compared sample by sample.
async fn missing(bot: &Bot, ended: &Value, law: impl Fn(usize) -> Law, codes: &[u8]) -> Vec<usize> {
    let clip = bot.download(ended).await;
    let limits = aftertone_core::audio::wav::Limits { max_seconds: 600 };
    let clip = aftertone_core::audio::wav::read(&clip, limits).unwrap().samples;
    // Every second sample at 16 kHz is a sample at 8 kHz.
    let heard: Vec<i16> = clip.iter().step_by(2).copied().collect();
    let heard: HashSet<&[i16]> = heard.windows(PACKET).collect();
    let is_missing = |(index, packet): (usize, &[u8])| {
        let sent: Vec<i16> = packet.iter().map(|code| law(index).decode(*code)).collect();
        (!heard.contains(&sent[..])).then_some(index)
    };
    codes.chunks(PACKET).enumerate().filter_map(is_missing).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_law_that_was_offered_and_not_answered_is_in_the_clip() {
    for (formats, payload_type) in [("0 8 101", [8, 8]), ("8 0 101", [8, 0])] {
        let (node, bot) = node_and_bot("").await;
        let (mut phone, call) = Phone::call(&node, &bot, formats).await;
        let operation = start_recording(&bot, &call).await;
        let codes = noise(100);
        let payload_type = |index: usize| payload_type[index / 50];
        let mut pace = interval(Duration::from_millis(20));
        for (index, packet) in codes.chunks(PACKET).enumerate() {
            pace.tick().await;
            phone.speak(payload_type(index), packet).await;
        }
        phone.sip.say("BYE", 2, "b", "").await;
        let ended = bot.wait_for_operation(&operation).await;
        let law = |index| if payload_type(index) == 8 { Law::A } else { Law::Mu };
        let missing = missing(&bot, &ended, law, &codes).await;
        assert!(missing.len() <= 3, "{formats}: {missing:?}");
        bot.wait_for_state(&call, "terminated").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_beside_and_after_a_key_of_impossible_duration_is_in_the_clip_and_one_pound_is_one()
{
    let (node, bot) = node_and_bot("").await;
    let (mut phone, call) = Phone::call(&node, &bot, "0 101").await;
    let first = start_recording(&bot, &call).await;
    let codes = noise(150);
    let mut pace = interval(Duration::from_millis(20));
    for (index, packet) in codes.chunks(PACKET).enumerate() {
        pace.tick().await;
        // A 5 instead of audio; its packets claim 6 s from the first one on.
        if (50..55).contains(&index) {
            let began = phone.timestamp - (index as u32 - 50) * PACKET as u32;
            let payload = telephone_event::payload(Tone::parse("5").unwrap(), index >= 52, 49_155);
            phone.send(EVENT, began, index == 50, &payload).await;
            phone.timestamp += PACKET as u32;
            continue;
        }
        phone.speak(0, packet).await;
    }
    // A # whose packets all have different timestamps.
    let mut second = None;
    for step in 0..12u16 {
        pace.tick().await;
        let (at, lasted) = (phone.timestamp, 160 * (step + 1).min(10));
        let payload = telephone_event::payload(Tone::POUND, step >= 9, lasted);
        phone.send(EVENT, at, step == 0, &payload).await;
        phone.timestamp += PACKET as u32;
        if step == 5 {
            bot.wait_for_operation(&first).await;
            second = Some(start_recording(&bot, &call).await);
            pace.reset();
        }
    }
    let more = noise(50);
    for packet in more.chunks(PACKET) {
        pace.tick().await;
        phone.speak(0, packet).await;
    }
    phone.sip.say("BYE", 2, "b", "").await;
    let first = bot.wait_for_operation(&first).await;
    assert_eq!(first["completionReason"], "stopToneDetected", "{first}");
    let missing_first = missing(&bot, &first, |_| Law::Mu, &codes).await;
    let lost: Vec<_> = missing_first.into_iter().filter(|at| !(50..55).contains(at)).collect();
    assert!(lost.len() <= 3, "{lost:?}");
    let second = bot.wait_for_operation(&second.unwrap()).await;
    assert_ne!(second["completionReason"], "stopToneDetected", "{second}");
    let lost = missing(&bot, &second, |_| Law::Mu, &more).await;
    assert!(lost.len() <= 3, "{lost:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_listens_and_sends_rtcp_alone_is_not_hung_up_on() {
    let (node, bot) = node_and_bot("[media]\nports = \"0-0\"\nrtp_timeout = \"2s\"\n").await;
    let (mut phone, call) = Phone::call(&node, &bot, "0 101").await;
    for _ in 0..5 {
        phone.speak(0, &noise(1)).await;
    }
    let mut report = Vec::new();
    rtcp::write(&mut report, Ssrc(7), None, None, "phone", false);
    for _ in 0..12 {
        let beside = SocketAddr::new(phone.leg.ip(), phone.leg.port() + 1);
        phone.rtp.send_to(&report, beside).await.unwrap();
        assert_eq!(phone.bye(Duration::from_millis(500)).await, None);
    }
    // Without RTCP the call is ended.
    assert!(phone.bye(Duration::from_secs(5)).await.is_some());
    bot.wait_for_state(&call, "terminated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bot_that_hangs_up_when_its_prompt_is_completed_cuts_nothing_of_it() {
    let (node, bot) = node_and_bot("").await;
    let (mut phone, call) = Phone::call(&node, &bot, "0 101").await;
    // Loud up to its last sample.
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let path = node.folder().join("loud.wav");
    let mut writer = hound::WavWriter::create(&path, spec).unwrap();
    for index in 0..8_000 {
        writer.write_sample(if index % 16 < 8 { 8_000_i16 } else { -8_000 }).unwrap();
    }
    writer.finalize().unwrap();
    let uri = bot.serve("loud.wav", std::fs::read(path).unwrap());
    let body = json!({"prompts": [{"mediaInfo": {"uri": uri}}]});
    let (status, operation) = bot.post(&format!("{call}/playPrompt"), &body).await;
    assert_eq!(status, 200, "{operation}");
    let (rtp, leg) = (phone.rtp, phone.leg);
    let hear = tokio::spawn(async move {
        // The phone sends at once, so that RTP comes to its port.
        rtp.send_to(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0xff], leg).await.unwrap();
        let (mut buffer, mut last) = ([0; 2_048], None);
        while let Ok(Ok(length)) = timeout(Duration::from_secs(3), rtp.recv(&mut buffer)).await {
            let Ok(packet) = Packet::parse(&buffer[..length]) else { continue };
            if packet.payload.iter().any(|code| Law::Mu.decode(*code).abs() > 1_000) {
                last = Some(Instant::now());
            }
        }
        last.expect("the prompt is heard")
    });
    let ended = bot.wait_for_operation(operation["id"].as_str().unwrap()).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(bot.hang_up(&call).await, 204);
    let mut bye = None;
    while let Some(text) = phone.sip.next(Duration::from_secs(3)).await {
        if text.starts_with("BYE") {
            bye = bye.or(Some(Instant::now()));
            break;
        }
    }
    let after = bye.expect("a BYE").duration_since(hear.await.unwrap());
    // The last packet lasts 20 ms; the clocks and ticks differ a little.
    assert!(after >= Duration::from_millis(110), "{after:?} after the last packet");
    assert!(after < Duration::from_millis(600), "{after:?} after the last packet");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_changes_without_a_word_costs_no_more_than_200_ms_of_the_clip() {
    let (node, bot) = node_and_bot("").await;
    let (mut phone, call) = Phone::call(&node, &bot, "0 101").await;
    let operation = start_recording(&bot, &call).await;
    let codes = noise(150);
    let mut pace = interval(Duration::from_millis(20));
    for (index, packet) in codes.chunks(PACKET).enumerate() {
        pace.tick().await;
        if index == 75 {
            phone.rtp = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
        }
        phone.speak(0, packet).await;
    }
    phone.sip.say("BYE", 2, "b", "").await;
    let ended = bot.wait_for_operation(&operation).await;
    let missing = missing(&bot, &ended, |_| Law::Mu, &codes).await;
    assert!(missing.len() <= 14, "{missing:?}");
    assert!(missing.iter().filter(|at| **at > 75 + 13).count() <= 1, "{missing:?}");
}
