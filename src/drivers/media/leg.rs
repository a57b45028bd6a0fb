//! A leg on its shard: one call's stream, the operation that runs on it, and the events to report.
//!
//! Input: commands, and a tick every 20 ms. Output: events to the call and chunks to the spool; the
//! leg waits for neither. The end of an operation comes after the spool has taken the last of its
//! clip, and [`LegEvent::Closed`] or [`LegEvent::Failed`] comes after everything else.

use std::{
    collections::VecDeque,
    mem,
    net::{IpAddr, SocketAddr},
};

use tokio::sync::mpsc::{self, error::TryRecvError};

use super::{
    leg_event::LegEvent,
    leg_settings::Settings,
    outbox::{Delivery, Outbox},
    running::{Finishing, Play, Running, Start, UNFINISHED},
    stream::Stream,
    stream_stats::StreamStats,
    targets::{Targets, Way},
    transport::{LegPort, Transport},
};
use aftertone_core::{
    audio::{Frame, Rate},
    model::{CallId, OperationId, Tone},
    operation::{Ended, Operation, Said},
    proto::sdp::StreamPlan,
};

/// Commands that are carried out in one tick.
const COMMANDS_PER_TICK: usize = 16;
/// How many ended operations wait for the spool before new ones are refused.
const MAX_FINISHING: usize = 8;
/// The largest number of frames that are played out when a leg closes: more than any jitter buffer
/// contains.
const MAX_DRAIN: usize = 100;
/// The largest number of datagrams of each socket that are discarded in one tick, before the leg is
/// connected.
const MAX_UNHEARD: usize = 32;
/// The same for the moment when the leg is connected: more than a socket's buffer contains.
const MAX_UNHEARD_AT_LAST: usize = 512;
/// A frame of silence at the higher rate.
const SILENCE: [i16; 320] = [0; 320];
/// The longest datagram that is read. A packet of sound is never longer than an Ethernet frame.
const DATAGRAM: usize = 2_048;

/// A command to a leg.
#[derive(Debug)]
pub enum LegCommand {
    /// Send and receive as offer and answer have agreed. This is also used for every later
    /// agreement: another port or codec, hold, resume. The running operation goes on. RTP from the
    /// host, where the peer's SIP comes from, is trusted sooner than a stranger's.
    Connect(StreamPlan, Option<IpAddr>),
    /// As `Connect`, but the source address of the peer's SIP may be forged: RTP from the host is
    /// accepted, but what is sent there is limited until some has come.
    ConnectUnproven(StreamPlan, Option<IpAddr>),
    /// Start this operation. A running one is canceled first.
    Start(Start),
    /// Cancel this operation, if it runs.
    Cancel(OperationId),
    /// The disk failed or is full: end this operation, if it runs.
    DiskFailed(OperationId),
    /// Drop, or let through, the sound of either side.
    Mute(Muted),
    /// The peer has pressed this key, as reported by SIP. It counts like one that comes by RTP, and
    /// only once if it comes both ways.
    Press(Tone),
    /// The call is over: what has been received is still processed, the running operation is hung
    /// up, and [`LegEvent::Closed`] is the last event.
    Close,
}

/// Which side's sound is dropped. Keys without sound are not dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Muted {
    /// The sound of operations.
    pub ours: bool,
    /// The sound of the peer.
    pub peers: bool,
}

/// A leg that is being handed to its shard.
#[derive(Debug)]
pub struct Opening {
    /// The call that it belongs to.
    pub call: CallId,
    /// Its sockets.
    pub transport: Transport,
    /// Its commands; when the sender of the channel is dropped, the leg closes.
    pub commands: mpsc::Receiver<LegCommand>,
    /// Where its events go.
    pub events: mpsc::Sender<LegEvent>,
    /// The addresses that it must not send to.
    pub targets: Targets,
    /// The settings of all legs.
    pub settings: Settings,
}

/// Whether a leg needs another tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It needs another tick.
    Alive,
    /// Nothing is left to be done or reported.
    Over,
}

/// Buffers that the legs of a shard use one after the other, so that a tick allocates nothing.
#[derive(Debug)]
pub struct Scratch {
    datagram: Box<[u8; DATAGRAM]>,
    kept: Vec<i16>,
}

impl Default for Scratch {
    fn default() -> Self {
        let kept = Vec::with_capacity(Rate::Hz16000.frame_len());
        Self { datagram: Box::new([0; DATAGRAM]), kept }
    }
}

/// A leg on its shard. It is built there: voice detection cannot move between threads.
#[derive(Debug)]
pub struct LiveLeg {
    call: CallId,
    /// The number of ticks: the leg's clock.
    frame: u64,
    settings: Settings,
    targets: Targets,
    commands: mpsc::Receiver<LegCommand>,
    /// `None` once the leg is closed or has failed.
    media: Option<LegMedia>,
    /// Operations that have ended, oldest first.
    finishing: VecDeque<Finishing>,
    /// The last event, set when the leg is closed or has failed, and until it is reported.
    last: Option<LegEvent>,
    outbox: Outbox,
}

/// The part of a leg that is dropped when it closes.
#[derive(Debug)]
struct LegMedia {
    transport: Transport,
    stream: Option<Stream>,
    running: Option<Running>,
    /// Music for the peer while no operation runs.
    hold_music: Option<Running>,
    muted: Muted,
}

impl LiveLeg {
    /// A leg that is not connected yet.
    pub fn new(opening: Opening) -> Self {
        let Opening { call, transport, commands, events, targets, settings } = opening;
        Self {
            call,
            frame: 0,
            settings,
            targets,
            commands,
            media: Some(LegMedia {
                transport,
                stream: None,
                running: None,
                hold_music: None,
                muted: Muted::default(),
            }),
            finishing: VecDeque::new(),
            last: None,
            outbox: Outbox::new(events),
        }
    }

    /// Processes 20 ms.
    pub fn tick(&mut self, scratch: &mut Scratch) -> Life {
        self.frame += 1;
        self.obey(scratch);
        self.live(scratch);
        self.deliver(scratch)
    }

    /// Closes the leg: plays out what has been received, and hangs the operation up.
    pub fn close(&mut self, scratch: &mut Scratch) -> Life {
        let Some(mut media) = self.media.take() else { return Life::Alive };
        self.commands.close();
        let mut stats = StreamStats::default();
        let LegMedia { transport, stream, running, hold_music, muted } = &mut media;
        *hold_music = None;
        if let Some(stream) = stream {
            stream.hear_all(transport, &mut scratch.datagram[..], self.frame);
            stream.drain();
            for _ in 0..MAX_DRAIN {
                if stream.is_drained() {
                    break;
                }
                let mut unsaid = Frame::silence(stream.rate());
                let mut said = Said::new(&mut unsaid, &mut scratch.kept);
                let heeds = |running: &Running| !running.only_speaks();
                let ended = play_frame(stream, running, heeds, *muted, &mut self.outbox, &mut said);
                self.finishing.extend(ended);
            }
            stream.end(transport, self.frame);
            stats = stream.stats();
        }
        self.finishing.extend(running.take().map(|running| running.end(Operation::hang_up)));
        self.last = Some(LegEvent::Closed { stats });
        tracing::debug!(call = %self.call, ?stats, "leg closed");
        Life::Alive
    }

    /// Ends the leg after a fault of our own, including a panic: its stream is not used any more.
    /// What was recorded until then is kept, as if the peer had hung up.
    pub fn fail(&mut self) -> Life {
        tracing::error!(call = %self.call, "a media leg has failed");
        self.commands.close();
        let running = self.media.take().and_then(|media| media.running);
        if running.is_none() {
            // The fault was not in the operation. A clip that cannot be handed over must not be
            // tried for ever.
            for finishing in mem::take(&mut self.finishing) {
                self.outbox.tell(finishing.give_up());
            }
        }
        self.finishing.extend(running.map(|running| running.end(Operation::hang_up)));
        self.last = Some(LegEvent::Failed);
        Life::Alive
    }

    fn obey(&mut self, scratch: &mut Scratch) {
        for _ in 0..COMMANDS_PER_TICK {
            match self.commands.try_recv() {
                Ok(LegCommand::Connect(plan, host)) => self.connect(plan, host, scratch),
                Ok(LegCommand::ConnectUnproven(plan, host)) => {
                    self.connect(plan, host, scratch);
                    if let Some(LegMedia { stream: Some(stream), .. }) = &mut self.media {
                        stream.doubt_host();
                    }
                }
                Ok(LegCommand::Start(start)) => self.start(start),
                Ok(LegCommand::Cancel(id)) => self.interrupt(id, Operation::cancel),
                Ok(LegCommand::DiskFailed(id)) => self.interrupt(id, Operation::disk_failed),
                Ok(LegCommand::Mute(muted)) => self.mute(muted),
                Ok(LegCommand::Press(tone)) => self.press(tone),
                Ok(LegCommand::Close) => {
                    self.close(scratch);
                }
                Err(TryRecvError::Disconnected) => {
                    self.close(scratch);
                    return;
                }
                Err(TryRecvError::Empty) => return,
            }
        }
    }

    fn connect(&mut self, plan: StreamPlan, host: Option<IpAddr>, scratch: &mut Scratch) {
        let Some(LegMedia { transport, stream, .. }) = &mut self.media else { return };
        let connected = match stream {
            Some(stream) => stream.renew(plan, host, transport, self.frame),
            None => {
                discard(
                    |buffer| transport.receive(LegPort::Rtp, buffer),
                    scratch,
                    MAX_UNHEARD_AT_LAST,
                );
                let way = Way { local: transport.local(), host, targets: self.targets.clone() };
                Stream::new(plan, way, self.frame, self.settings).map(|new| *stream = Some(new))
            }
        };
        if let Err(error) = connected {
            tracing::error!(call = %self.call, %error, "the stream cannot be set up");
            self.fail();
        }
    }

    fn start(&mut self, start: Start) {
        let Some(media) = &mut self.media else {
            // The operation was accepted before the leg was closed: it ends like all others.
            let running = Running::new(start, Rate::Hz8000, self.settings.voice);
            self.finishing.push_back(running.end(Operation::hang_up));
            return;
        };
        self.finishing.extend(media.running.take().map(|running| running.end(Operation::cancel)));
        let rate = media.stream.as_ref().map_or(Rate::Hz8000, Stream::rate);
        let (begins_hold, ends_hold) =
            (matches!(start.play, Play::HoldMusic { .. }), matches!(start.play, Play::NoHoldMusic));
        let running = Running::new(start, rate, self.settings.voice);
        if begins_hold || ends_hold {
            // Both are done at once, even while nothing may be sent.
            self.finishing.push_back(Finishing::done(running.id()));
            media.hold_music = begins_hold.then_some(running);
            return;
        }
        if self.finishing.iter().filter(|ended| ended.has_clip()).count() < MAX_FINISHING {
            media.running = Some(running);
        } else {
            tracing::error!(call = %self.call, "the spool takes nothing: operation refused");
            self.finishing.push_back(running.end(|_| UNFINISHED));
        }
    }

    fn interrupt(&mut self, id: OperationId, how: fn(Operation) -> Ended) {
        let Some(media) = &mut self.media else { return };
        let interrupted = media.running.take_if(|running| running.id() == id);
        self.finishing.extend(interrupted.map(|running| running.end(how)));
    }

    fn mute(&mut self, muted: Muted) {
        if let Some(media) = &mut self.media {
            media.muted = muted;
        }
    }

    fn press(&mut self, tone: Tone) {
        if let Some(LegMedia { stream: Some(stream), .. }) = &mut self.media {
            stream.press(tone, self.frame);
        }
    }

    /// The media part of a tick. Nothing is processed before the leg is connected: what comes then
    /// is a callee's ringback, which is no part of the call.
    fn live(&mut self, scratch: &mut Scratch) {
        let Some(LegMedia { transport, stream, running, hold_music, muted }) = &mut self.media
        else {
            return;
        };
        let Some(stream) = stream else {
            discard(|buffer| transport.receive(LegPort::Rtp, buffer), scratch, MAX_UNHEARD);
            discard(|buffer| transport.receive(LegPort::Rtcp, buffer), scratch, MAX_UNHEARD);
            return;
        };
        stream.hear(transport, &mut scratch.datagram[..], self.frame);
        let is_idle = running.is_none();
        let playing = if is_idle { hold_music } else { running };
        let mut frame = Frame::silence(stream.rate());
        let mut said = Said::new(&mut frame, &mut scratch.kept);
        // Audio counts as played only if it is sent, so prompts and keys wait while on hold.
        let is_sending = stream.is_sending();
        let goes_on = |running: &Running| is_sending || !running.only_speaks();
        let speaks = playing.as_ref().is_some_and(Running::only_speaks);
        let ended = play_frame(stream, playing, goes_on, *muted, &mut self.outbox, &mut said);
        // The end of hold music was reported when it began.
        if let Some(mut ended) = ended.filter(|_| !is_idle) {
            // An application that hangs up when a prompt is done must not cut it off in the peer's
            // jitter buffer, so the end is reported late. The next operation must follow without a
            // gap, so `OperationSaid` is reported at once.
            if speaks {
                ended.due = self.frame + stream.playout_frames();
                self.outbox.tell(LegEvent::OperationSaid { id: ended.id() });
            }
            self.finishing.push_back(ended);
        }
        let key = said.key;
        // A key is sent even if our side is muted, also if it is sent as sound.
        if muted.ours && key.is_none() {
            frame.samples_mut().fill(0);
        }
        stream.say(transport, &frame, key);
        stream.report(transport, &mut scratch.datagram[..], self.frame);
        if let Some(event) = stream.watch(self.frame) {
            self.outbox.tell(event);
        }
    }

    fn deliver(&mut self, scratch: &mut Scratch) -> Life {
        // Once the leg is closed, no event waits until the peer has heard the audio.
        let now = if self.media.is_some() { self.frame } else { u64::MAX };
        let next = |all: &mut VecDeque<Finishing>| all.front_mut()?.finish(now);
        while let Some(event) = next(&mut self.finishing) {
            self.finishing.pop_front();
            self.outbox.tell(event);
        }
        let is_quiet =
            self.media.is_none() && self.finishing.is_empty() && self.commands.is_empty();
        if is_quiet && let Some(last) = self.last.take() {
            self.outbox.tell(last);
        }
        match self.outbox.deliver() {
            Delivery::Done | Delivery::Lost if is_quiet => Life::Over,
            Delivery::Lost => {
                // The receiver of the events is gone: the leg closes as if the peer had hung up.
                self.close(scratch);
                Life::Alive
            }
            Delivery::Done | Delivery::Waiting => Life::Alive,
        }
    }
}

/// Discards up to `most` of the datagrams that have come.
fn discard(
    receive: impl Fn(&mut [u8]) -> Option<(usize, SocketAddr)>,
    scratch: &mut Scratch,
    most: usize,
) {
    for _ in 0..most {
        if receive(&mut scratch.datagram[..]).is_none() {
            break;
        }
    }
}

/// Plays out one frame of what has been received. The call gets its key, and the operation gets its
/// sound, if it `goes_on`.
fn play_frame(
    stream: &mut Stream,
    running: &mut Option<Running>,
    goes_on: impl Fn(&Running) -> bool,
    muted: Muted,
    outbox: &mut Outbox,
    said: &mut Said<'_>,
) -> Option<Finishing> {
    let mut sound = stream.pull();
    if let Some(key) = sound.tone {
        outbox.tell(LegEvent::Tone { tone: key.tone });
    }
    if muted.peers {
        sound.samples = &SILENCE[..sound.samples.len().min(SILENCE.len())];
    }
    let ended = running.as_mut().filter(|running| goes_on(running))?.tick(sound, said)?;
    running.take().map(|running| running.end(|_| ended))
}
