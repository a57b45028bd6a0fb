//! The task of one call: feeds its machine and carries out what it wants.
//!
//! It does one short thing per input. What takes time (a commit, a prompt, a clip) it starts and
//! leaves; the result comes back as an input.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::mpsc::SyncSender,
    time::{Duration, Instant},
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error, info, warn};

use super::{
    Drivers, Reserved, now,
    outgoing::{Itinerary, Way},
};
use crate::{
    audio::{Clip, Rate, tape, wav},
    call::{
        Action, CallError, Command, Input, LocalAudio, Machine, MediaEnd, NewOperation,
        ReferralCall, SafeClip, line::RECORDING_PREFIX,
    },
    media::{Leg, LegEvent, Muted, OpenLeg, Play, Start, Unsent},
    model::{
        Call, Change, Operation, OperationEnd, OperationId, OperationKind, Party, PromptFailure,
        PromptFailureKind, PromptSource, RecordingId, Silence,
    },
    operation,
    proto::sip::{
        endpoint::{self, DialogId, Event, Loss},
        info,
        path::{Path, is_private},
    },
    recordings::{ClipWritten, Finished},
    store::{Commit, Journal, JournalBehind, StoreError},
};

/// Where the answer to a request goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, CallError>>;

/// What a call's task is told.
#[derive(Debug)]
pub(super) enum Message {
    /// By the peer.
    Sip(Event),
    /// By the API.
    Request(Request),
    /// By the peer, which may: somebody else shall have its place, by this dialog.
    Follow(Reserved, Box<Itinerary>),
}

/// What the API wants of a call.
#[derive(Debug)]
pub(super) enum Request {
    Show(Reply<Call>),
    /// Whether the call is committed.
    Placed(Reply<()>),
    /// Whom, and in which dialog, the application talks to: somebody else may take our place there.
    Peer(Reply<(Party, DialogId)>),
    Operations(Reply<Vec<Operation>>),
    Command(Command, Reply<()>),
    Submit(NewOperation, Reply<Operation>),
}

pub(super) struct CallTask {
    machine: Machine,
    drivers: Drivers,
    /// Where RTP is bound.
    bind: IpAddr,
    /// What SDP says: what is configured, else where RTP is bound.
    address: IpAddr,
    advertised: Option<IpAddr>,
    /// Where the peer's SIP comes from.
    peer: Option<SocketAddr>,
    mailbox: mpsc::Receiver<Message>,
    leg: Option<Leg>,
    /// What comes from the leg, until nothing more can.
    leg_events: Option<mpsc::Receiver<LegEvent>>,
    /// Of a call that we place: whom, and once that is known, which ways lead there.
    itinerary: Option<Itinerary>,
    targets: Vec<Path>,
    /// Whom the peer wants us to call.
    referral: Option<Referral>,
    inputs: VecDeque<Input>,
    prompts: HashMap<OperationId, Vec<(Clip, u32)>>,
    clips: HashMap<OperationId, ClipWritten>,
    commits: Commits,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    over: bool,
}

/// A call to somebody else, who shall have the peer's place.
struct Referral {
    /// Until it is dialed.
    reserved: Option<Reserved>,
    itinerary: Itinerary,
    targets: Vec<Path>,
    /// Where that one's SIP comes from.
    peer: Option<SocketAddr>,
}

/// What has come back.
enum Done {
    Prompts(OperationId, Result<Vec<(Clip, u32)>, PromptFailure>),
    Clip(OperationId, Result<SafeClip, ()>),
    Located(Result<Vec<Path>, u16>),
    ReferralLocated(Option<DialogId>, Result<Vec<Path>, u16>),
}

/// What waits for the commits before it.
enum After {
    Reply(Reply<()>, Result<(), CallError>),
    Accepted(Reply<Operation>, Box<Operation>),
    Prepare(OperationId, Vec<PromptSource>),
    Over,
}

/// Changes in order, through the journal, and what waits for them.
#[derive(Default)]
struct Commits {
    /// Not taken by the journal yet.
    waiting: VecDeque<Change>,
    /// Taken, not durable yet; oldest first.
    under_way: VecDeque<Commit>,
    /// Changes so far, and how many of them are durable.
    issued: u64,
    durable: u64,
    after: VecDeque<(u64, After)>,
}

/// Events that may wait for the task: one leg makes at most a few per second.
const LEG_EVENTS: usize = 64;
/// A clip that we have written is no longer than a recording may be.
const OWN_CLIP: wav::Limits = wav::Limits { max_seconds: 300 };
/// How long a call without a timer sleeps at most.
const NO_TIMER: Duration = Duration::from_secs(3600);
/// The SIP status that stands for a name without address, as a proxy would say it.
const NO_WAY: u16 = 503;
/// How soon a journal that was full is tried again.
const JOURNAL_RETRY: Duration = Duration::from_millis(50);

impl CallTask {
    /// The task of a call that was offered over `path`.
    pub(super) fn incoming(
        machine: Machine,
        drivers: Drivers,
        path: Path,
        advertised: Option<IpAddr>,
        mailbox: mpsc::Receiver<Message>,
    ) -> Self {
        let local = path.local.ip();
        Self {
            bind: local,
            address: advertised.unwrap_or(local),
            peer: Some(path.peer),
            ..Self::new(machine, drivers, advertised, mailbox)
        }
    }

    /// The task of a call that is to be placed.
    pub(super) fn outgoing(
        machine: Machine,
        drivers: Drivers,
        itinerary: Itinerary,
        advertised: Option<IpAddr>,
        mailbox: mpsc::Receiver<Message>,
    ) -> Self {
        Self { itinerary: Some(itinerary), ..Self::new(machine, drivers, advertised, mailbox) }
    }

    fn new(
        machine: Machine,
        drivers: Drivers,
        advertised: Option<IpAddr>,
        mailbox: mpsc::Receiver<Message>,
    ) -> Self {
        let unspecified = IpAddr::from([0, 0, 0, 0]);
        Self {
            machine,
            drivers,
            bind: unspecified,
            address: advertised.unwrap_or(unspecified),
            advertised,
            peer: None,
            mailbox,
            itinerary: None,
            targets: Vec::new(),
            referral: None,
            leg: None,
            leg_events: None,
            inputs: VecDeque::new(),
            prompts: HashMap::new(),
            clips: HashMap::new(),
            commits: Commits::default(),
            work: FuturesUnordered::new(),
            over: false,
        }
    }

    /// Runs until the call is over and told.
    pub(super) async fn run(mut self) {
        self.carry_out().await;
        while !self.over {
            let timer = self.machine.poll_timeout().unwrap_or_else(|| Instant::now() + NO_TIMER);
            let full = !self.commits.waiting.is_empty();
            tokio::select! {
                biased;
                result = self.commits.next(), if !self.commits.under_way.is_empty() => {
                    self.committed(result);
                }
                event = next_event(&mut self.leg_events) => self.leg_event(event),
                Some(done) = self.work.next(), if !self.work.is_empty() => self.done(done),
                Some(message) = self.mailbox.recv() => self.message(message).await,
                () = tokio::time::sleep(JOURNAL_RETRY), if full => {}
                () = tokio::time::sleep_until(timer.into()) => self.machine.handle_timeout(now()),
            }
            self.carry_out().await;
        }
    }

    async fn message(&mut self, message: Message) {
        match message {
            Message::Sip(Event::Info { dialog, content_type, body }) => {
                let is_ours = dialog == self.machine.dialog();
                if let (Some(leg), Some(tone), true) =
                    (&self.leg, info::tone(&content_type, &body), is_ours)
                {
                    // The leg tells it, at its place in the sound.
                    let _ = leg.press(tone).await;
                }
            }
            Message::Sip(event) => self.sip_event(event),
            Message::Follow(reserved, itinerary) => {
                let dialog = reserved.dialog;
                self.machine.handle_input(Input::ReferAsked(dialog), now());
                if self.machine.referral() == Some(dialog) {
                    self.referral = Some(Referral {
                        reserved: Some(reserved),
                        itinerary: *itinerary,
                        targets: Vec::new(),
                        peer: None,
                    });
                }
            }
            Message::Request(Request::Show(reply)) => {
                let _ = reply.send(Ok(self.machine.call().clone()));
            }
            Message::Request(Request::Placed(reply)) => {
                self.commits.then(After::Reply(reply, Ok(())));
            }
            Message::Request(Request::Peer(reply)) => {
                let dialog = self.machine.established();
                let _ = reply.send(dialog.map(|id| (self.machine.call().peer().clone(), id)));
            }
            Message::Request(Request::Operations(reply)) => {
                let _ = reply.send(Ok(self.machine.operations().cloned().collect()));
            }
            Message::Request(Request::Command(command, reply)) => {
                let result = self.machine.handle_command(command, now());
                self.carry_out().await;
                self.commits.then(After::Reply(reply, result));
            }
            Message::Request(Request::Submit(new, reply)) => {
                match self.machine.submit(new, now()) {
                    Ok(operation) => {
                        info!(
                            operation.id = %operation.id,
                            operation.kind = operation.kind.name(),
                            "Operation accepted"
                        );
                        self.carry_out().await;
                        self.commits.then(After::Accepted(reply, Box::new(operation)));
                    }
                    Err(refusal) => {
                        let _ = reply.send(Err(refusal));
                    }
                }
            }
        }
    }

    fn sip_event(&mut self, event: Event) {
        let is_ours = event.dialog() == self.machine.dialog();
        let input = match event {
            Event::Invite { dialog, invite } => {
                let peer = invite.path.peer;
                let first = &self.machine.call().sip_call_id;
                self.drivers.signalling.trace_further(first, &invite.call_id, &[peer.ip()]);
                self.machine.handle_input(Input::Replaced(dialog, invite.offer), now());
                if self.machine.dialog() == dialog {
                    info!(%peer, "Another peer takes the place of the first");
                    self.peer = Some(peer);
                }
                return;
            }
            event if self.machine.referral() == Some(event.dialog()) => {
                self.referral_event(event);
                return;
            }
            // Of a dialog that was replaced.
            _ if !is_ours => return,
            Event::Acknowledged { body, .. } => {
                info!("Call established");
                Input::Acknowledged(body)
            }
            Event::Lost { how: Loss::NotAcknowledged, .. } => {
                warn!(
                    "No ACK came: our Contact shows {}, the peer is at {}{}",
                    self.address,
                    self.peer_words(),
                    self.cure()
                );
                Input::NotAcknowledged
            }
            Event::Lost { how, .. } => {
                warn!(?how, "The peer is not there any more");
                Input::PeerLost
            }
            Event::Progress { status, .. } => {
                info!(sip.status = status, "The call is on its way");
                Input::Progress(status)
            }
            Event::Answered { description, .. } => {
                info!("Call answered");
                Input::Answered(description)
            }
            Event::Refused { status, reason, .. } => {
                info!(sip.status = status, "Call refused: {reason}");
                Input::Refused(status)
            }
            Event::Refreshed { description, .. } => Input::Refreshed(description),
            Event::Referred { status, .. } => {
                info!(sip.status = status, "Transfer");
                Input::Referred(status)
            }
            Event::Canceled { .. } => Input::Canceled,
            Event::Bye { reason, .. } => {
                info!(reason, "Peer hung up");
                Input::PeerHungUp
            }
            Event::Reinvite { offer, .. } => Input::Reinvite(offer),
            // A key is for the leg; a wish is said by the switchboard, when it finds a way.
            Event::Info { .. } | Event::ReferAsked { .. } | Event::Ended { .. } => return,
        };
        self.machine.handle_input(input, now());
    }

    /// Of the call that the peer has asked for.
    fn referral_event(&mut self, event: Event) {
        let input = match event {
            Event::Progress { status, .. } => Input::ReferralProgress(status),
            Event::Answered { dialog, description } => {
                self.machine.handle_input(Input::ReferralAnswered(description), now());
                let referral = self.referral.take();
                if self.machine.dialog() == dialog {
                    info!("The call goes on with whom the peer has named");
                    self.peer = referral.and_then(|referral| referral.peer);
                }
                return;
            }
            Event::Refused { status, reason, .. } => {
                info!(sip.status = status, "Whom the peer has named will not come: {reason}");
                Input::ReferralRefused(status)
            }
            _ => return,
        };
        self.machine.handle_input(input, now());
    }

    fn leg_event(&mut self, event: Option<LegEvent>) {
        let Some(event) = event else {
            error!("The leg has vanished; the call is ended");
            self.leg_events = None;
            self.machine.handle_input(Input::LegFailed, now());
            return;
        };
        let input = match event {
            LegEvent::Heard => {
                debug!("First RTP packet");
                return;
            }
            LegEvent::Tone { tone } => Input::Tone(tone),
            LegEvent::OperationEnded { id, ended } => {
                self.media_ended(id, ended);
                return;
            }
            LegEvent::MediaTimedOut(silence) => {
                let what = match silence {
                    Silence::NeverHeard => "No RTP came",
                    Silence::Ceased => "RTP has ceased to come",
                    Silence::OnHold => "Nothing has come while the call was on hold",
                };
                warn!(
                    "{what}: our description shows {}, the peer is at {}{}; the call is ended",
                    self.address,
                    self.peer_words(),
                    self.cure()
                );
                Input::MediaTimedOut(silence)
            }
            LegEvent::Unsent { to, why } => {
                match why {
                    Unsent::Unverified => {
                        warn!("Nothing came from {to}: we stopped sending to it");
                    }
                    Unsent::Forbidden => {
                        warn!("The peer wants its media at {to}, which is ours: nothing is sent");
                    }
                }
                return;
            }
            LegEvent::Closed { stats } => {
                info!(
                    rtp.received = stats.received.received,
                    rtp.lost = stats.received.lost,
                    rtp.late = stats.received.late,
                    rtp.sent = stats.sent.packets,
                    rtp.strangers = stats.strangers,
                    "Leg closed"
                );
                self.leg_events = None;
                Input::LegClosed
            }
            LegEvent::Failed => {
                error!("The leg broke; the call is ended");
                self.leg_events = None;
                Input::LegFailed
            }
        };
        self.machine.handle_input(input, now());
    }

    fn peer_words(&self) -> String {
        self.peer.map_or_else(|| "an unknown address".to_owned(), |peer| peer.ip().to_string())
    }

    /// What would help, when the peer is in another network than the address that it is told.
    fn cure(&self) -> &'static str {
        let is_outside = self.peer.is_some_and(|peer| !is_private(peer.ip()));
        match is_private(self.address) && is_outside {
            true => " and cannot reach it; set sip.advertised_address to our public address",
            false => "",
        }
    }

    fn media_ended(&mut self, id: OperationId, ended: operation::Ended) {
        info!(operation.id = %id, clip = ?ended.clip, "Operation off the media: {:?}", ended.end);
        let delivers = ended.end.delivers_recording();
        let clip = ended.clip.unwrap_or_default();
        let end = MediaEnd {
            end: ended.end,
            speech_ms: clip.speech_ms,
            speech_ended_at_ms: clip.speech_ended_at_ms,
        };
        self.machine.handle_input(Input::MediaEnded(id, end), now());
        if let (Some(written), true) = (self.clips.remove(&id), delivers) {
            self.await_clip(id, written);
        }
    }

    fn done(&mut self, done: Done) {
        let input = match done {
            Done::Prompts(id, Ok(clips)) => {
                self.prompts.insert(id, clips);
                Input::Prepared(id, Ok(()))
            }
            Done::Prompts(id, Err(failure)) => {
                info!(operation.id = %id, "Prompt failed: {}", failure.message);
                Input::Prepared(id, Err(failure))
            }
            Done::Clip(id, result) => Input::ClipSafe(id, result),
            Done::Located(result) => Input::Located(self.located(result)),
            // Meanwhile it was given up.
            Done::ReferralLocated(dialog, _) if self.machine.referral() != dialog => return,
            Done::ReferralLocated(_, result) => {
                Input::ReferralLocated(self.referral_located(result))
            }
        };
        self.machine.handle_input(input, now());
    }

    async fn carry_out(&mut self) {
        loop {
            while let Some(action) = self.machine.poll_output() {
                self.act(action).await;
            }
            match self.inputs.pop_front() {
                Some(input) => self.machine.handle_input(input, now()),
                None => break,
            }
        }
        self.submit_commits();
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Commit(change) => self.commits.push(*change),
            Action::Signal(command) => self.drivers.signalling.send(command).await,
            Action::Locate => {
                let way = self.itinerary.as_ref().map(|itinerary| itinerary.way.clone());
                self.locate(way, Done::Located);
            }
            Action::LocateReferral => {
                let way = self.referral.as_ref().map(|referral| referral.itinerary.way.clone());
                let dialog = self.machine.referral();
                self.locate(way, move |result| Done::ReferralLocated(dialog, result));
            }
            Action::Dial(offer) => self.dial(offer).await,
            Action::DialReferral(call) => self.dial_referral(*call).await,
            Action::OpenLeg => self.open_leg(),
            Action::ConnectLeg(plan) => {
                if let Some(leg) = &self.leg {
                    let _ = leg.connect(*plan, self.peer.map(|peer| peer.ip())).await;
                }
            }
            Action::Prepare(id, sources) => self.commits.then(After::Prepare(id, sources)),
            Action::Start(operation, recording) => self.start(*operation, recording).await,
            Action::Cancel(id) => {
                if let Some(leg) = &self.leg {
                    let _ = leg.cancel(id).await;
                }
            }
            Action::Mute { ours, peers } => {
                if let Some(leg) = &self.leg {
                    let _ = leg.mute(Muted { ours, peers }).await;
                }
            }
            Action::SealClip(id, recording) => self.seal(id, recording),
            Action::CloseLeg => match &self.leg {
                Some(leg) => {
                    let _ = leg.close().await;
                }
                None => self.inputs.push_back(Input::LegClosed),
            },
            Action::Over => self.commits.then(After::Over),
        }
    }

    fn locate(
        &mut self,
        way: Option<Way>,
        done: impl FnOnce(Result<Vec<Path>, u16>) -> Done + Send + 'static,
    ) {
        let Some(way) = way else {
            debug_assert!(false, "nobody is called");
            return;
        };
        let signalling = self.drivers.signalling.clone();
        self.work.push(
            async move {
                let paths = match way {
                    Way::Paths(paths) => Ok(paths),
                    Way::Uri(uri) => signalling.locate(&uri).await.map_err(|error| {
                        warn!(%uri, "No way to the trunk: {error}");
                        NO_WAY
                    }),
                };
                done(paths)
            }
            .boxed(),
        );
    }

    /// RTP goes the way that SIP goes.
    fn located(&mut self, paths: Result<Vec<Path>, u16>) -> Result<(), u16> {
        self.targets = paths?;
        let first = self.targets.first().ok_or(NO_WAY)?;
        self.peer = Some(first.peer);
        self.bind = first.local.ip();
        self.address = self.advertised.unwrap_or(self.bind);
        Ok(())
    }

    async fn dial(&mut self, offer: Vec<u8>) {
        let Some(itinerary) = &self.itinerary else { return };
        let call_id = self.machine.call().sip_call_id.clone();
        let targets = std::mem::take(&mut self.targets);
        let peers: Vec<IpAddr> = targets.iter().map(|target| target.peer.ip()).collect();
        self.drivers.signalling.trace(&call_id, &peers);
        let call = Box::new(itinerary.call(call_id, targets, offer));
        let dialog = self.machine.dialog();
        self.drivers.signalling.send(endpoint::Command::Call { dialog, call }).await;
    }

    /// The leg stays where it is bound, so only ways that lead there from its side can be gone.
    fn referral_located(&mut self, paths: Result<Vec<Path>, u16>) -> Result<(), u16> {
        let Some(referral) = &mut self.referral else { return Err(NO_WAY) };
        let mut paths = paths?;
        paths.retain(|path| path.local.ip() == self.bind);
        referral.peer = Some(paths.first().ok_or(NO_WAY)?.peer);
        referral.targets = paths;
        Ok(())
    }

    async fn dial_referral(&mut self, call: ReferralCall) {
        let Some(referral) = &mut self.referral else { return };
        let ReferralCall { dialog, call_id, offer } = call;
        let targets = std::mem::take(&mut referral.targets);
        let peers: Vec<IpAddr> = targets.iter().map(|target| target.peer.ip()).collect();
        let first = &self.machine.call().sip_call_id;
        self.drivers.signalling.trace_further(first, &call_id, &peers);
        info!(to = %referral.itinerary.request_uri(), "Calling whom the peer has named");
        let call = Box::new(referral.itinerary.call(call_id, targets, offer));
        self.drivers.signalling.send(endpoint::Command::Call { dialog, call }).await;
        referral.reserved.take().into_iter().for_each(Reserved::keep);
    }

    fn open_leg(&mut self) {
        let (sender, events) = mpsc::channel(LEG_EVENTS);
        let open = OpenLeg { call: self.machine.call().id, bind: self.bind, events: sender };
        let input = match self.drivers.media.open(open) {
            Ok(leg) => {
                let local = LocalAudio { address: self.address, port: leg.local_port() };
                self.leg = Some(leg);
                self.leg_events = Some(events);
                Input::LegOpened(Some(local))
            }
            Err(error) => {
                warn!(%error, "cannot open a leg");
                Input::LegOpened(None)
            }
        };
        self.inputs.push_back(input);
    }

    async fn start(&mut self, operation: Operation, recording: Option<RecordingId>) {
        let id = operation.id;
        let prompts = self.prompts.remove(&id).unwrap_or_default();
        let play = match operation.kind {
            OperationKind::Record(request) => {
                Play::Record { request, prompt: prompts.into_iter().next().map(|(clip, _)| clip) }
            }
            OperationKind::PlayPrompt(request) => Play::Prompts { prompts, repeat: request.repeat },
            OperationKind::SendDtmfTones(request) => Play::SendTones(request),
            OperationKind::StartHoldMusic { .. } => Play::HoldMusic { prompts },
            OperationKind::StopHoldMusic => Play::NoHoldMusic,
            OperationKind::Echo => Play::Echo,
            OperationKind::SubscribeToTone
            | OperationKind::CancelMediaProcessing
            | OperationKind::Mute { .. }
            | OperationKind::Unmute { .. }
            | OperationKind::UpdateRecordingStatus { .. } => return,
        };
        let tape = match recording.map(|recording| self.open_tape(id, recording)) {
            None => None,
            Some(Some(tape)) => Some(tape),
            Some(None) => {
                let end = MediaEnd {
                    end: OperationEnd::Unspecified,
                    speech_ms: 0,
                    speech_ended_at_ms: None,
                };
                self.inputs.push_back(Input::MediaEnded(id, end));
                return;
            }
        };
        if let Some(leg) = &self.leg {
            // A leg that is over says so itself, and the operation ends with it.
            let _ = leg.start(Start { id, play, tape }).await;
        }
    }

    /// Opens the clip's file; the row is committed. `None` if it cannot be.
    fn open_tape(
        &mut self,
        id: OperationId,
        recording: RecordingId,
    ) -> Option<(RecordingId, SyncSender<tape::Chunk>)> {
        match self.drivers.spool.open(recording) {
            Ok((chunks, written)) => {
                info!(operation.id = %id, recording.id = %recording, "Recording opened");
                self.clips.insert(id, written);
                Some((recording, chunks))
            }
            Err(error) => {
                error!(%error, operation.id = %id, "cannot write the recording");
                None
            }
        }
    }

    /// The leg vanished in the middle of a clip: what was written is what there is.
    fn seal(&mut self, id: OperationId, recording: RecordingId) {
        let Some(written) = self.clips.remove(&id) else {
            self.inputs.push_back(Input::ClipSafe(id, Err(())));
            return;
        };
        let chunks = self.drivers.spool.chunks();
        // The spool may be full, and this task must not wait for it.
        self.work.push(
            async move {
                let end = tape::Chunk { recording, body: tape::ChunkBody::End { keep: true } };
                let sent = tokio::task::spawn_blocking(move || chunks.send(end)).await;
                let result = match sent {
                    Ok(Ok(())) => clip_result(written).await,
                    Ok(Err(_)) | Err(_) => Err(()),
                };
                Done::Clip(id, result)
            }
            .boxed(),
        );
    }

    fn await_clip(&mut self, id: OperationId, written: ClipWritten) {
        self.work.push(async move { Done::Clip(id, clip_result(written).await) }.boxed());
    }

    fn submit_commits(&mut self) {
        self.commits.submit(&self.drivers.journal);
        self.settle(Ok(()));
    }

    fn committed(&mut self, result: Result<(), StoreError>) {
        if let Err(error) = &result {
            error!(%error, "a change of the call could not be committed");
        }
        self.commits.durable += 1;
        self.settle(result.map_err(|_| CallError::Internal));
    }

    /// Does what has waited for the commits that are through.
    fn settle(&mut self, commit: Result<(), CallError>) {
        while let Some(after) = self.commits.next_due() {
            match after {
                // Whoever asked may have gone; that changes nothing.
                After::Reply(reply, result) => drop(reply.send(commit.and(result))),
                After::Accepted(reply, operation) => {
                    drop(reply.send(commit.map(|()| *operation)));
                }
                After::Prepare(id, sources) => self.prepare(id, sources),
                After::Over => self.over = true,
            }
        }
    }

    fn prepare(&mut self, id: OperationId, sources: Vec<PromptSource>) {
        if sources.is_empty() {
            self.inputs.push_back(Input::Prepared(id, Ok(())));
            return;
        }
        let drivers = self.drivers.clone();
        let application = self.machine.call().application.clone();
        self.work.push(
            async move {
                let loads = sources.into_iter().map(|source| load(&drivers, &application, source));
                let clips = futures_util::future::try_join_all(loads).await;
                Done::Prompts(id, clips)
            }
            .boxed(),
        );
    }
}

impl Commits {
    fn push(&mut self, change: Change) {
        self.issued += 1;
        self.waiting.push_back(change);
    }

    fn then(&mut self, after: After) {
        self.after.push_back((self.issued, after));
    }

    /// Hands to the journal what it takes; the rest waits here.
    fn submit(&mut self, journal: &Journal) {
        while let Some(change) = self.waiting.pop_front() {
            match journal.submit(change) {
                Ok(commit) => self.under_way.push_back(commit),
                Err(JournalBehind(change)) => {
                    self.waiting.push_front(*change);
                    return;
                }
            }
        }
    }

    /// The result of the oldest commit. Canceling loses nothing.
    async fn next(&mut self) -> Result<(), StoreError> {
        match self.under_way.front_mut() {
            Some(commit) => {
                let result = commit.await;
                self.under_way.pop_front();
                result
            }
            None => std::future::pending().await,
        }
    }

    fn next_due(&mut self) -> Option<After> {
        let (count, _) = self.after.front()?;
        if *count > self.durable {
            return None;
        }
        self.after.pop_front().map(|(_, after)| after)
    }
}

/// What the leg tells next; `None` when it has vanished.
async fn next_event(events: &mut Option<mpsc::Receiver<LegEvent>>) -> Option<LegEvent> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

async fn clip_result(written: ClipWritten) -> Result<SafeClip, ()> {
    match written.await {
        Ok(Ok(Finished { bytes, samples })) => {
            let duration_ms = samples * 1_000 / u64::from(Rate::Hz16000.hz());
            Ok(SafeClip { bytes, duration_ms })
        }
        Ok(Err(error)) => {
            error!(%error, "the recording could not be kept");
            Err(())
        }
        Err(_) => {
            error!("the writer of recordings has gone");
            Err(())
        }
    }
}

async fn load(
    drivers: &Drivers,
    application: &str,
    source: PromptSource,
) -> Result<(Clip, u32), PromptFailure> {
    let times = source.times;
    // Only a line says this: a URI of an application never begins so (`prompts` refuses it).
    let own = source.uri.strip_prefix(RECORDING_PREFIX).filter(|_| application.is_empty());
    let clip = match own.and_then(|id| id.parse().ok()) {
        Some(id) => read_recording(drivers, id).await?,
        None => drivers.prompts.load(application, &source).await?,
    };
    Ok((clip, times))
}

async fn read_recording(drivers: &Drivers, id: RecordingId) -> Result<Clip, PromptFailure> {
    let failed = |error: &dyn std::fmt::Display| PromptFailure {
        kind: PromptFailureKind::NotFetched,
        message: format!("the recording cannot be read: {error}"),
    };
    let bytes = drivers.vault.read(id).await.map_err(|error| failed(&error))?;
    let decoded = tokio::task::spawn_blocking(move || Clip::from_wav(&bytes, OWN_CLIP)).await;
    decoded.map_err(|error| failed(&error))?.map_err(|error| failed(&error))
}
