//! The audio stream of a connected leg: the agreed plan, the peer's source, both directions, and
//! RTCP.
//!
//! Input: the agreed plan, and a tick every 20 ms. Output: RTP and RTCP through the leg's
//! transport, one frame of sound per tick, and events on the peer's first packet and on its
//! silence. The stream knows no operation and no call.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use super::{
    leg_event::{LegEvent, Unsent},
    leg_settings::{Settings, frames},
    protection::PacketProtection,
    receiver::{PlayedFrame, Receiver},
    reports::Reports,
    sender::{Format, Sender},
    source::{Source, Verdict},
    stream_stats::StreamStats,
    targets::Way,
    transport::{LegPort, Transport, as_seen_from},
};
use aftertone_core::{
    audio::{Codec, CodecError, Frame, Rate, frame::FRAMES_PER_SECOND},
    model::{Silence, Tone},
    operation::SaidKey,
    proto::{
        rtp::{
            PayloadType, RtpTimestamp,
            packet::{Header, Packet, is_rtcp},
            rtcp,
        },
        sdp::{Direction, Payload, StreamPlan},
    },
};

/// The largest number of former receivers that are still played: a peer that changes the codec all
/// the time loses sound.
const MAX_BEFORE: usize = 4;
/// The shortest time between two changes of the codec by the peer itself: 200 ms. Each change makes
/// a receiver, and one of Opus takes some 20 KB and 10 µs: five a second are no load, but one with
/// every packet would be. No phone changes so often on purpose; one that does loses sound.
const CHANGE_FRAMES: u64 = 10;
/// The largest number of datagrams that are read in one tick, including those of strangers.
const MAX_READS: usize = 32;
/// The largest number of packets that are taken in one tick when some have piled up.
const MAX_TAKEN: usize = 4;
/// The largest number of datagrams that are read when the leg closes.
const MAX_LAST_READS: usize = 256;
/// The interval, in ticks, at which the socket is read until it is empty.
const PROBE_FRAMES: u64 = 16;
/// How many frames a packet may lag behind the expected newest one before another is read.
const LAG_FRAMES: u32 = 2;
/// How long the peer may still be playing a packet after it has arrived and its duration has
/// passed: 100 ms, for a jitter buffer.
const PLAYOUT_FRAMES: u64 = 5;
/// How often the RTCP port is read: once a second.
const RTCP_FRAMES: u64 = 50;
/// The largest number of datagrams that are read from the RTCP port at a time.
const MAX_RTCP_READS: usize = 4;

/// A stream cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// The codec cannot be created.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The RTP port cannot be opened again.
    #[error("the RTP port is lost: {0}")]
    Port(#[from] io::Error),
}

/// One stream in both directions.
#[derive(Debug)]
pub(super) struct Stream {
    plan: StreamPlan,
    way: Way,
    settings: Settings,
    /// `None` until an address has been named.
    source: Option<Source>,
    receiver: Receiver,
    /// The receivers of former codecs, oldest first: what they have received is played first.
    before: VecDeque<Receiver>,
    /// The last frame in which the peer changed the codec by itself.
    changed_at: Option<u64>,
    sender: Sender,
    reports: Reports,
    protection: PacketProtection,
    pacer: Pacer,
    peer: PeerActivity,
    sending: Sending,
    strangers: u64,
    malformed: u64,
}

/// Whether, and where, we may send.
#[derive(Debug, Default)]
struct Sending {
    /// Number of frames that the call has sent to unverified addresses, which may be a victim's.
    /// The count goes on when the address changes.
    unverified: u64,
    /// The address that was checked last, and whether it may be sent to at all.
    judged: Option<(SocketAddr, bool)>,
    /// The address that was reported as getting nothing.
    told: Option<SocketAddr>,
}

/// Signs of life of the peer: RTP, comfort noise and RTCP.
#[derive(Debug)]
struct PeerActivity {
    /// The frame of the last sign of life, or of the moment from which the present limit counts.
    heard_at: u64,
    has_been_heard: bool,
    first_told: bool,
    silence_told: bool,
}

impl Stream {
    /// A stream with this plan, over this way.
    ///
    /// # Errors
    /// The codec cannot be created.
    pub(super) fn new(
        plan: StreamPlan,
        way: Way,
        frame: u64,
        settings: Settings,
    ) -> Result<Self, StreamError> {
        let mut rng = rand::rng();
        let source = signalled(&plan, &way)
            .map(|remote| Source::new(remote, way.host, settings.any_host, frame));
        Ok(Self {
            receiver: Receiver::new(&plan)?,
            before: VecDeque::new(),
            changed_at: None,
            sender: Sender::new(format_of(&plan), &mut rng)?,
            reports: Reports::new(frame, &mut rng),
            protection: PacketProtection::new(plan.srtp.as_ref()),
            pacer: Pacer::default(),
            peer: PeerActivity {
                heard_at: frame,
                has_been_heard: false,
                first_told: false,
                silence_told: false,
            },
            sending: Sending::default(),
            plan,
            way,
            settings,
            source,
            strangers: 0,
            malformed: 0,
        })
    }

    /// Goes on with the new `plan`. Nothing that has been received is lost.
    ///
    /// # Errors
    /// The codec cannot be created, or the socket cannot be opened again.
    pub(super) fn renew(
        &mut self,
        plan: StreamPlan,
        host: Option<IpAddr>,
        transport: &mut Transport,
        frame: u64,
    ) -> Result<(), StreamError> {
        let codec = self.receiver.codec();
        let goes_on = plan.heard.iter().any(|(_, payload)| *payload == Payload::Sound(codec));
        self.renew_receiver(if goes_on { codec } else { plan.codec }, &plan)?;
        self.sender.reformat(format_of(&plan), &mut rand::rng())?;
        self.protection.renew(plan.srtp.as_ref());
        self.way.host = host;
        self.sending.judged = None;
        let remote = signalled(&plan, &self.way);
        match (&mut self.source, remote) {
            (Some(source), Some(remote)) => {
                if source.renew(remote, host, frame) {
                    transport.disconnect()?;
                }
            }
            (source @ None, Some(remote)) => {
                *source = Some(Source::new(remote, host, self.settings.any_host, frame));
            }
            // The call is on hold without an address, which will be named again.
            (_, None) => {}
        }
        let was_two_way = self.is_two_way();
        self.plan = plan;
        if self.is_two_way() != was_two_way {
            // Another limit counts from now on.
            self.peer.heard_at = frame;
        }
        Ok(())
    }

    /// The rate of what we send. What we receive has another rate while the peer uses another
    /// codec.
    pub(super) fn rate(&self) -> Rate {
        self.plan.codec.rate()
    }

    /// Reads what has come: usually one packet, more if some have piled up.
    pub(super) fn hear(&mut self, transport: &mut Transport, buffer: &mut [u8], frame: u64) {
        self.settle(transport, frame);
        let mut taken = 0;
        for _ in 0..MAX_READS {
            let Some((len, from)) = transport.receive(LegPort::Rtp, buffer) else {
                self.pacer.found_empty(frame);
                break;
            };
            let Some(timestamp) = self.take(buffer, len, from, frame) else { continue };
            taken += 1;
            if !self.pacer.wants_more(timestamp, self.ticks_per_frame(), taken, frame) {
                break;
            }
        }
        let may_be_elsewhere = |source: &mut Source| {
            // `|` instead of `||`, because both must be called.
            source.give_up_if_silent(frame) | source.is_pausing(frame)
        };
        if self.plan.direction.receives() && self.source.as_mut().is_some_and(may_be_elsewhere) {
            // Packets of other sources may count from now on. If the port is lost, nothing comes
            // any more, and the silence is reported in time.
            if let Err(error) = transport.disconnect() {
                tracing::warn!(%error, "an RTP port cannot be opened anew");
            }
        }
    }

    /// Reads everything that has come.
    pub(super) fn hear_all(&mut self, transport: &Transport, buffer: &mut [u8], frame: u64) {
        for _ in 0..MAX_LAST_READS {
            let Some((len, from)) = transport.receive(LegPort::Rtp, buffer) else { break };
            self.take(buffer, len, from, frame);
        }
    }

    /// Takes a key that came by SIP.
    pub(super) fn press(&mut self, tone: Tone, frame: u64) {
        self.receiver.press(tone, frame);
    }

    /// Plays out the next frame.
    pub(super) fn pull(&mut self) -> PlayedFrame<'_> {
        while self.before.front().is_some_and(Receiver::is_drained) {
            self.before.pop_front();
        }
        self.before.front_mut().unwrap_or(&mut self.receiver).pull()
    }

    /// Nothing more comes from now on: [`pull`](Self::pull) gives what is left.
    pub(super) fn drain(&mut self) {
        self.receiver.drain();
    }

    /// Whether everything has been played out.
    pub(super) fn is_drained(&self) -> bool {
        self.before.iter().all(Receiver::is_drained) && self.receiver.is_drained()
    }

    /// Whether audio is sent now.
    pub(super) fn is_sending(&mut self) -> bool {
        self.destination().is_some()
    }

    /// Number of frames until the peer has played a frame that is sent now: its packet is full, the
    /// duration of the packet has passed, and the peer's jitter buffer has delivered it.
    pub(super) fn playout_frames(&self) -> u64 {
        2 * u64::from(self.sender.frames_per_packet()) - 1 + PLAYOUT_FRAMES
    }

    /// Sends one frame, or lets its time pass. A key is sent instead of the frame to peers that
    /// support telephone events.
    pub(super) fn say(&mut self, transport: &Transport, said: &Frame, key: Option<SaidKey>) {
        let Some(to) = self.destination() else {
            self.sender.skip();
            return;
        };
        if !self.is_verified(to) {
            self.sending.unverified += 1;
        }
        let packet = match (key, self.plan.telephone_event) {
            (Some(key), Some(payload_type)) => Some(self.sender.push_key(key, payload_type)),
            // A frame that cannot be encoded is a pause; the peer conceals it.
            (Some(_), None) | (None, _) => self.sender.push(said).ok().flatten(),
        };
        if let Some(packet) = packet.and_then(|packet| self.protection.seal(packet)) {
            transport.send(packet, to);
        }
    }

    /// Reads and writes RTCP when it is due.
    pub(super) fn report(&mut self, transport: &Transport, buffer: &mut [u8], frame: u64) {
        if !self.plan.rtcp_mux && frame.is_multiple_of(RTCP_FRAMES) {
            for _ in 0..MAX_RTCP_READS {
                let Some((len, from)) = transport.receive(LegPort::Rtcp, buffer) else { break };
                self.take_rtcp(&mut buffer[..len], from, frame);
            }
        }
        if self.reports.is_due(frame) {
            self.send_report(transport, frame, false);
        }
    }

    /// Sends BYE by RTCP (RFC 3550 section 6.6).
    pub(super) fn end(&mut self, transport: &Transport, frame: u64) {
        self.send_report(transport, frame, true);
    }

    /// The event on the peer's first packet, on its silence, or on an address that gets nothing, if
    /// one is to be reported at the end of this tick.
    pub(super) fn watch(&mut self, frame: u64) -> Option<LegEvent> {
        if self.peer.has_been_heard && !self.peer.first_told {
            self.peer.first_told = true;
            return Some(LegEvent::Heard);
        }
        if let Some(event) = self.unsent() {
            return Some(event);
        }
        if let Some((suite, tag)) = self.protection.first_mismatch() {
            return Some(LegEvent::KeysDiffer { suite, tag });
        }
        if !self.plan.direction.receives()
            && let Some(source) = &mut self.source
        {
            source.excuse(frame);
        }
        let (limit, silence) = match (self.is_two_way(), self.peer.has_been_heard) {
            (true, true) => (self.settings.rtp_timeout, Silence::Ceased),
            (true, false) => (self.settings.rtp_timeout, Silence::NeverHeard),
            (false, _) => (self.settings.hold_timeout, Silence::OnHold),
        };
        let silent = frame.saturating_sub(self.peer.heard_at);
        let timed_out = silent >= frames(limit).max(1);
        let told = std::mem::replace(&mut self.peer.silence_told, timed_out);
        let unauthenticated = self.protection.stats().unauthenticated;
        (timed_out && !told).then_some(LegEvent::MediaTimedOut { silence, unauthenticated })
    }

    /// The figures of the stream.
    pub(super) fn stats(&self) -> StreamStats {
        StreamStats {
            received: self.receiver.stats(),
            sent: self.sender.sent(),
            strangers: self.strangers,
            malformed: self.malformed + self.protection.stats().malformed,
            refused: self.protection.stats(),
        }
    }

    /// Connects the socket once the peer's source is settled, so that the kernel drops other
    /// packets.
    fn settle(&self, transport: &mut Transport, frame: u64) {
        // There is no hurry: `take` judges the source of each packet in any case.
        if transport.is_connected() || !frame.is_multiple_of(PROBE_FRAMES) {
            return;
        }
        let settled = self.source.as_ref().and_then(|source| source.settled(frame));
        if let Some(peer) = settled
            && let Err(error) = transport.connect(peer)
        {
            tracing::debug!(%error, %peer, "an RTP socket cannot be connected");
        }
    }

    /// Opens, parses, judges and takes one datagram. Returns the timestamp if it was a packet of
    /// the peer's.
    fn take(
        &mut self,
        buffer: &mut [u8],
        len: usize,
        from: SocketAddr,
        frame: u64,
    ) -> Option<RtpTimestamp> {
        // A datagram that fills the buffer was longer, so it is no sound.
        if len >= buffer.len() {
            return None;
        }
        let datagram = &mut buffer[..len];
        // Some peers send RTCP on the RTP port without agreement.
        let is_rtp = |number| !self.plan.rtcp_mux && self.plan.meaning_of(number).is_some();
        if is_rtcp(datagram, is_rtp) {
            self.take_rtcp(datagram, from, frame);
            return None;
        }
        let Ok(packet) = Packet::parse(self.protection.open(datagram)?) else {
            self.malformed += 1;
            return None;
        };
        let Header { payload_type, ssrc, sequence, timestamp, .. } = packet.header;
        let source = self.source.as_mut()?;
        let is_expected = || {
            self.plan.meaning_of(payload_type).is_some()
                || PayloadType::COMFORT_NOISE.contains(&payload_type)
        };
        if !source.is_locked() && !is_expected() {
            return None;
        }
        match source.judge(from, ssrc, sequence, frame) {
            Verdict::Drop => {
                self.strangers += 1;
                return None;
            }
            Verdict::Accept | Verdict::Lock => {}
        }
        let is_received =
            self.receiver.push(&packet, frame).is_ok() || self.push_to_another(&packet, frame);
        // Packets without sound keep the way open (RFC 6263 section 4.6): the peer is there.
        self.peer.heard_at = frame;
        self.peer.has_been_heard |= is_received;
        Some(timestamp)
    }

    /// Takes a packet that the receiver refuses: either the peer changes to another codec of the
    /// answer, or the packet was under way when the codec changed.
    fn push_to_another(&mut self, packet: &Packet<'_>, frame: u64) -> bool {
        let is_settled = |at: u64| frame.saturating_sub(at) >= CHANGE_FRAMES;
        if let Some(Payload::Sound(codec)) = self.plan.meaning_of(packet.header.payload_type)
            && !self.receiver.has_overtaken(&packet.header)
            && self.changed_at.is_none_or(is_settled)
        {
            self.changed_at = Some(frame);
            match self.renew_receiver(codec, &self.plan.clone()) {
                Ok(()) => return self.receiver.push(packet, frame).is_ok(),
                Err(error) => tracing::debug!(%error, "a codec of the peer's cannot be heard"),
            }
        }
        self.before.back_mut().is_some_and(|before| before.push(packet, frame).is_ok())
    }

    fn renew_receiver(&mut self, codec: Codec, plan: &StreamPlan) -> Result<(), CodecError> {
        self.before.extend(self.receiver.renew(codec, plan)?);
        if self.before.len() > MAX_BEFORE {
            self.before.pop_front();
        }
        Ok(())
    }

    fn take_rtcp(&mut self, datagram: &mut [u8], from: SocketAddr, frame: u64) {
        let rtp = self.source.as_ref().map(Source::destination);
        let is_from_the_call =
            rtp == Some(from) || rtp.and_then(|rtp| self.rtcp_destination(rtp)) == Some(from);
        let Some(source) = &mut self.source else { return };
        // The peer chooses its RTCP port, so only the host is checked; strangers have other hosts.
        let is_destination = from.ip() == source.destination().ip();
        if !is_destination && !source.is_near(from.ip()) {
            return;
        }
        let Some(report) = self.protection.open_rtcp(datagram) else { return };
        let Ok(received) = rtcp::read(report, self.sender.ssrc()) else { return };
        let is_about_us = received.about_us.is_some();
        if is_destination && is_about_us {
            source.verify();
        }
        // The host may have other calls, and may still report about one that had this port before.
        // Such reports have other SSRCs and other ports, and are not about us. A phone may take a
        // new SSRC with a re-INVITE, and reports nothing about us while we send nothing.
        if !is_about_us && !is_from_the_call && !source.may_report_as(received.ssrc) {
            return;
        }
        self.reports.note(&received, frame);
        // A peer that sends no RTP is there as long as its RTCP comes (RFC 3550 section 6.3.5): it
        // is on hold, or has nothing to send.
        if !received.is_bye {
            self.peer.heard_at = frame;
        }
    }

    fn send_report(&mut self, transport: &Transport, frame: u64, is_last: bool) {
        let Ok(Some(rtp)) = self.trusted_address() else { return };
        // We have sent nothing, and the peer is not verified: the address may not even belong to a
        // call.
        if self.sender.sent().packets == 0 && !self.source.as_ref().is_some_and(Source::is_verified)
        {
            return;
        }
        let rtcp = self.rtcp_destination(rtp);
        let now = SystemTime::now();
        let report = self.reports.write(&self.sender, &mut self.receiver, frame, now, is_last);
        let Some(report) = self.protection.seal_rtcp(report) else { return };
        if self.plan.rtcp_mux {
            transport.send(report, rtp);
        } else if let Some(rtcp) = rtcp {
            transport.send_rtcp(report, rtcp);
        }
    }

    /// Where our RTP goes; `None` if it is not sent.
    fn destination(&mut self) -> Option<SocketAddr> {
        if !self.plan.direction.sends() {
            return None;
        }
        self.trusted_address().ok().flatten()
    }

    /// Notes that the source address of the peer's newest SIP may be forged.
    pub(super) fn doubt_host(&mut self) {
        if let Some(source) = &mut self.source {
            source.doubt_host();
        }
    }

    /// The peer's address, if there is one; an error if it is ours or may be a victim's. RTCP goes
    /// on while on hold (RFC 3264 section 8.4).
    fn trusted_address(&mut self) -> Result<Option<SocketAddr>, LegEvent> {
        let Some(to) = self.source.as_ref().map(Source::destination) else { return Ok(None) };
        let may_be_sent_to = match self.sending.judged {
            Some((judged, may)) if judged == to => may,
            Some(_) | None => self.way.may_lead_to(to),
        };
        self.sending.judged = Some((to, may_be_sent_to));
        if !may_be_sent_to {
            return Err(LegEvent::Unsent { to, why: Unsent::Forbidden });
        }
        if !self.is_verified(to) && self.sending.unverified >= frames(self.settings.unverified) {
            return Err(LegEvent::Unsent { to, why: Unsent::Unverified });
        }
        Ok(Some(to))
    }

    /// Whether RTP, RTCP or SIP has shown that `to` is the peer's address.
    fn is_verified(&self, to: SocketAddr) -> bool {
        self.source.as_ref().is_some_and(|source| source.is_verified() || source.is_proved(to.ip()))
    }

    /// Reports once that an address gets nothing.
    fn unsent(&mut self) -> Option<LegEvent> {
        if !self.plan.direction.sends() {
            return None;
        }
        let event = self.trusted_address().err()?;
        let to = self.source.as_ref().map(Source::destination);
        let told = std::mem::replace(&mut self.sending.told, to);
        (told != to).then_some(event)
    }

    /// Where our RTCP goes while our RTP goes to `rtp`.
    fn rtcp_destination(&self, rtp: SocketAddr) -> Option<SocketAddr> {
        let next = || Some(SocketAddr::new(rtp.ip(), rtp.port().checked_add(1)?));
        let named = self.plan.remote_rtcp.map(|named| as_seen_from(named, self.way.local));
        // A host behind a NAT does not know its public address; then the next port is the best
        // guess.
        let to = named.filter(|named| named.ip() == rtp.ip()).or_else(next)?;
        self.way.may_lead_to(to).then_some(to)
    }

    /// Whether both sides should be sending.
    fn is_two_way(&self) -> bool {
        self.plan.direction == Direction::SendRecv
    }

    fn ticks_per_frame(&self) -> u32 {
        self.receiver.codec().clock_rate() / FRAMES_PER_SECOND
    }
}

/// The address that the peer has named for its RTP. A host name stands for the host that the peer's
/// SIP comes from.
fn signalled(plan: &StreamPlan, way: &Way) -> Option<SocketAddr> {
    let at_sip_host = || {
        let (host, port) = way.host.zip(plan.port_at_sip_host)?;
        Some(SocketAddr::new(host.to_canonical(), port))
    };
    Some(as_seen_from(plan.remote.or_else(at_sip_host)?, way.local))
}

fn format_of(plan: &StreamPlan) -> Format {
    Format { codec: plan.codec, payload_type: plan.payload_type, ptime_ms: plan.ptime_ms }
}

/// Decides how many packets are read in a tick.
///
/// One packet per tick is enough for a peer of our own speed, and a read that finds nothing costs
/// as much as the decoding. More are read while the timestamps lag behind the time that is expected
/// from the newest packet when the socket was last empty: then some have piled up. Every
/// [`PROBE_FRAMES`] ticks the socket is emptied anyway.
#[derive(Debug, Default)]
struct Pacer {
    /// The timestamp of the last packet, and the frame in which no other packet was behind it.
    newest: Option<(RtpTimestamp, u64)>,
    last: Option<RtpTimestamp>,
}

impl Pacer {
    /// Whether another packet is read after this one, the `taken`th of the tick.
    fn wants_more(&mut self, timestamp: RtpTimestamp, step: u32, taken: usize, frame: u64) -> bool {
        self.last = Some(timestamp);
        let Some((newest, at)) = self.newest else { return true };
        if frame.is_multiple_of(PROBE_FRAMES) {
            return true;
        }
        // Probes keep this difference small, and if it wraps, that only costs a read.
        let passed = frame.saturating_sub(at) as u32;
        let expected = newest + passed.wrapping_mul(step);
        let lag = expected.since(timestamp);
        taken < MAX_TAKEN && lag >= step.saturating_mul(LAG_FRAMES) as i32
    }

    /// Notes that the socket is empty.
    fn found_empty(&mut self, frame: u64) {
        if let Some(last) = self.last.take() {
            self.newest = Some((last, frame));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: u32 = 160;

    /// Simulates a peer that begins with `queued` packets and sends `per_frame` of them a frame.
    /// Returns how often the socket was read, and how many packets are left in it.
    fn run(frames: u64, queued: u64, per_frame: u64) -> (u64, u64) {
        let mut pacer = Pacer::default();
        let (mut sent, mut read, mut reads) = (queued, 0, 0);
        for frame in 1..=frames {
            sent += per_frame;
            let mut taken = 0;
            loop {
                reads += 1;
                if read == sent {
                    pacer.found_empty(frame);
                    break;
                }
                let timestamp = (read as u32).wrapping_mul(STEP / per_frame as u32);
                (read, taken) = (read + 1, taken + 1);
                if !pacer.wants_more(RtpTimestamp(timestamp), STEP, taken, frame) {
                    break;
                }
            }
        }
        (reads, sent - read)
    }

    #[test]
    fn a_peer_of_our_speed_is_read_once_a_tick() {
        let (reads, left) = run(1_600, 0, 1);
        assert!(reads <= 1_600 + 1_600 / 16 + 1, "{reads}");
        assert_eq!(left, 0);
    }

    #[test]
    fn what_has_piled_up_is_read_soon() {
        let (_, left) = run(15, 40, 1);
        assert_eq!(left, 0);
    }

    #[test]
    fn a_peer_with_packets_of_ten_milliseconds_is_followed() {
        for frames in 1_600..1_620 {
            let (_, left) = run(frames, 0, 2);
            assert!(left <= 4, "{left}");
        }
    }
}
