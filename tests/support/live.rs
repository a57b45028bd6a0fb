//! A call that is recorded while a test does something else, and that must not suffer from it.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
};

use aftertone_core::audio::{g711::Law, wav};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Child;

use super::{Node, bot::Bot, sipp};

/// Samples of a packet.
const PACKET: usize = 160;

/// sipp sends noise, in which no packet is equal to another, and the bot records it.
pub struct LiveCall {
    pub id: String,
    operation: Value,
    seconds: usize,
    /// The sent audio, at 8,000 Hz.
    sent: Vec<i16>,
    _folder: TempDir,
    _phone: Child,
}

impl LiveCall {
    /// Places a call from `host` that is recorded for so many seconds.
    pub async fn start(node: &Node, bot: &Bot, host: IpAddr, seconds: usize) -> Self {
        Self::start_at(node.sip, bot, host, seconds).await
    }

    /// The same, at one of several listeners.
    pub async fn start_at(sip: SocketAddr, bot: &Bot, host: IpAddr, seconds: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut rng = StdRng::seed_from_u64(u64::try_from(seconds).unwrap());
        // Neither so loud that it is clipped, nor so quiet that it is silence.
        let codes: Vec<u8> = (0..8_000 * (seconds + 10))
            .map(|_| rng.random_range(40..100) + if rng.random() { 128 } else { 0 })
            .collect();
        let noise = folder.path().join("noise.ulaw");
        std::fs::write(&noise, &codes).unwrap();
        let talk = (1_000 * (seconds + 60)).to_string();
        let fill =
            [("WAIT_MS", "10"), ("TALK_MS", talk.as_str()), ("SPEECH", noise.to_str().unwrap())];
        let phone = sipp::start(folder.path(), host, sip, "record", "bot", &fill);
        let caller = format!("sipp@{host}");
        let before = bot.notifications().len();
        let incoming = bot
            .wait_for_after(before, "the call", |n| {
                n.data()["state"] == "incoming" && n.data()["source"].to_string().contains(&caller)
            })
            .await;
        let id = incoming.data()["id"].as_str().unwrap().to_owned();
        bot.answer(&id).await;
        let body = json!({"playBeep": false, "maxRecordDurationInSeconds": seconds,
            "initialSilenceTimeoutInSeconds": 30, "maxSilenceTimeoutInSeconds": 30});
        let (status, operation) = bot.post(&format!("{id}/recordResponse"), &body).await;
        assert_eq!(status, 200, "{operation}");
        let sent = codes.into_iter().map(|code| Law::Mu.decode(code)).collect();
        Self { id, operation, seconds, sent, _folder: folder, _phone: phone }
    }

    /// Waits for the clip and checks that it has its length and is the sent audio, packet by
    /// packet. Then the call is ended.
    pub async fn finish(self, bot: &Bot) {
        let ended = bot.wait_for_operation(self.operation["id"].as_str().unwrap()).await;
        assert_eq!(ended["completionReason"], "maxRecordDurationReached", "{ended}");
        let clip = bot.download(&ended).await;
        let clip = wav::read(&clip, wav::Limits { max_seconds: 600 }).unwrap().samples;
        assert_eq!(clip.len(), self.seconds * 16_000);
        // Every second sample at 16 kHz is a sample at 8 kHz.
        let heard: Vec<i16> = clip.iter().step_by(2).copied().collect();
        if let Err(wrong) = judge(&self.sent, &heard) {
            panic!("the recorded call has suffered: {wrong}");
        }
        assert_eq!(bot.hang_up(&self.id).await, 204);
        bot.wait_for_state(&self.id, "terminated").await;
    }
}

/// Looks for every sent packet in the heard audio. A phone that is late itself costs some concealed
/// packets; none may be missing between the first and the last, or come twice.
fn judge(sent: &[i16], heard: &[i16]) -> Result<(), String> {
    let places: HashMap<&[i16], usize> =
        sent.chunks_exact(PACKET).enumerate().map(|(at, packet)| (packet, at)).collect();
    let mut found = Vec::new();
    let (mut begin, mut at) = (None, 0);
    while let Some(piece) = heard.get(at..at + PACKET) {
        match places.get(piece) {
            Some(place) => {
                begin = begin.or(Some(at));
                found.push(*place);
                at += PACKET;
            }
            None => at += 1,
        }
    }
    let (Some(first), Some(last)) = (found.first(), found.last()) else {
        return Err("nothing that was sent is in it".to_owned());
    };
    // Whether the phone or the recording begins first is chance.
    let begin = begin.filter(|begin| *begin < heard.len() / 2).ok_or("it begins too late")?;
    let all = (heard.len() - begin) / PACKET;
    if !found.is_sorted_by(|one, next| one < next) {
        return Err("packets come twice, or in the wrong order".to_owned());
    }
    let present: BTreeSet<&usize> = found.iter().collect();
    let missing: Vec<usize> = (*first..*last).filter(|place| !present.contains(place)).collect();
    if missing.len() * 100 > all {
        return Err(format!("{} of {all} packets are missing: {missing:?}", missing.len()));
    }
    if found.len() * 100 < all * 95 {
        return Err(format!("only {} of {all} packets are what was sent", found.len()));
    }
    Ok(())
}
