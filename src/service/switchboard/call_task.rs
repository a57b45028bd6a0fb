//! The task of one call: feeds events to the call's machine and carries out its actions.
//!
//! The task does one short step per input. It starts longer work (a commit, a prompt, a clip)
//! without waiting for it; the result comes back as an input.

mod clips;
mod placing;
mod prompts;
mod tape;

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use futures_util::{
    StreamExt,
    future::{BoxFuture, OptionFuture},
    stream::FuturesUnordered,
};
use tokio::sync::mpsc;
use tracing::{debug, error, info, warn};

use self::tape::Tape;
use super::{
    commits::{After, Commits},
    drivers::Drivers,
    mailbox::{CallMessage, CallRequest, Mailbox, Reply},
    outgoing::RoutePlan,
    reserved::Reserved,
};
use crate::drivers::{
    media::{Leg, LegCommand, LegEvent, Muted, OpenLeg, Play, Start, Unsent},
    recordings::OpenClip,
};
use aftertone_core::{
    audio::{Clip, tape::SafeClip},
    call::{Action, CallError, DialogRole, Input, LocalAudio, Machine, MediaEnd, MediaTerms},
    model::{CallState, Operation, OperationEnd, OperationId, OperationKind, RecordingId, Silence},
    operation,
    proto::{
        sdp::SrtpKeys,
        sip::{
            Status,
            endpoint::{self, DialogId, Event, IncomingInvite, Loss},
            path::{Path, is_private},
        },
        srtp::CryptoSuite,
    },
};

pub(super) struct CallTask {
    machine: Machine,
    drivers: Drivers,
    /// Local address to which RTP is bound.
    bind: IpAddr,
    /// Address that SDP announces: the configured one if it has the same family, else the local
    /// address of RTP.
    address: IpAddr,
    advertised: Option<IpAddr>,
    /// Source address of the peer's SIP messages.
    peer: Option<SocketAddr>,
    /// Whether `peer` may be forged.
    is_peer_doubtful: bool,
    /// The suite of the encrypted audio.
    encryption: Option<CryptoSuite>,
    mailbox: Mailbox,
    leg: Option<Leg>,
    /// Events of the leg; `None` once no more can come.
    leg_events: Option<mpsc::Receiver<LegEvent>>,
    /// For a call that we place: the plan of the call.
    route_plan: Option<RoutePlan>,
    /// Channel that reports the commit of a placed call's first change to the API handler.
    placed: Option<Reply<()>>,
    targets: Vec<Path>,
    /// The SDP offer of the outgoing INVITE.
    offer: Vec<u8>,
    /// The call that the peer has asked for by REFER.
    referral: Option<ReservedReferral>,
    /// Whether the log already says that tones are dropped.
    has_said_tones: bool,
    /// The final status that the caller has received.
    answer: Option<Status>,
    inputs: VecDeque<Input>,
    prompts: HashMap<OperationId, Vec<(Clip, u32)>>,
    /// Clips of operations that wait or run.
    clips: HashMap<OperationId, Tape>,
    commits: Commits,
    work: FuturesUnordered<BoxFuture<'static, WorkDone>>,
    /// Clips that are being written to the disk or deleted from it.
    saving: FuturesUnordered<BoxFuture<'static, WorkDone>>,
    over: Option<CallEnd>,
    begun: Instant,
}

/// How the task of a call has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CallEnd {
    /// The call's end is committed.
    Told,
    /// The store has refused the call's end.
    NotTold,
}

/// A call to another party, which takes over from the peer when it answers.
struct ReservedReferral {
    /// The dialog and its place in the trunk's limit. Both are given back unless the party answers.
    reserved: Reserved,
    route_plan: RoutePlan,
    targets: Vec<Path>,
}

/// The result of work that the task has started.
enum WorkDone {
    Prepared(OperationId, Result<Prepared, OperationEnd>),
    /// True when the disk takes no more of a clip; false when the clip ended first.
    ClipBroken(OperationId, bool),
    Clip(OperationId, RecordingId, Result<SafeClip, OperationEnd>),
    /// A clip that is no longer needed was deleted.
    Deleted,
    Located(Result<Vec<Path>, Status>),
    ReferralLocated(Option<DialogId>, Result<Vec<Path>, Status>),
}

/// Slots for events of the leg; one leg makes at most a few per second.
const LEG_EVENTS: usize = 64;
/// How long the task of a call without a timer sleeps at most.
const NO_TIMER: Duration = Duration::from_secs(3600);
/// How soon the task tries a full journal again.
const JOURNAL_RETRY: Duration = Duration::from_millis(50);

impl CallTask {
    /// The task of a call that was offered over `path`.
    pub(super) fn incoming(
        machine: Machine,
        drivers: Drivers,
        path: Path,
        advertised: Option<IpAddr>,
        mailbox: Mailbox,
    ) -> Self {
        Self {
            bind: path.local.ip(),
            address: path.told_host(advertised),
            peer: Some(path.peer),
            ..Self::new(machine, drivers, advertised, mailbox)
        }
    }

    /// The task of a call that we place. `placed` gets the result when the first change is
    /// committed.
    pub(super) fn outgoing(
        machine: Machine,
        drivers: Drivers,
        route_plan: RoutePlan,
        advertised: Option<IpAddr>,
        mailbox: Mailbox,
        placed: Reply<()>,
    ) -> Self {
        Self {
            route_plan: Some(route_plan),
            placed: Some(placed),
            ..Self::new(machine, drivers, advertised, mailbox)
        }
    }

    fn new(
        machine: Machine,
        drivers: Drivers,
        advertised: Option<IpAddr>,
        mailbox: Mailbox,
    ) -> Self {
        let unspecified = IpAddr::from([0, 0, 0, 0]);
        Self {
            machine,
            drivers,
            bind: unspecified,
            address: unspecified,
            advertised,
            peer: None,
            is_peer_doubtful: false,
            encryption: None,
            mailbox,
            route_plan: None,
            placed: None,
            targets: Vec::new(),
            offer: Vec::new(),
            referral: None,
            has_said_tones: false,
            answer: None,
            leg: None,
            leg_events: None,
            inputs: VecDeque::new(),
            prompts: HashMap::new(),
            clips: HashMap::new(),
            commits: Commits::default(),
            work: FuturesUnordered::new(),
            saving: FuturesUnordered::new(),
            over: None,
            begun: Instant::now(),
        }
    }

    /// Runs until the call is over and its end is committed or refused.
    pub(super) async fn run(&mut self) -> CallEnd {
        self.carry_out().await;
        if let Some(placed) = self.placed.take() {
            self.commits.then(0, After::Reply(placed, Ok(())));
        }
        loop {
            if let Some(end) = self.over {
                return end;
            }
            let timer = self.machine.poll_timeout().unwrap_or_else(|| Instant::now() + NO_TIMER);
            let held_up = self.commits.is_held_up();
            // Requests of the application come last, so that any number of them does not delay the
            // rest.
            tokio::select! {
                biased;
                result = self.commits.next(), if self.commits.are_under_way() => {
                    // The journal has logged the change and the reason.
                    if result.is_err() {
                        warn!("The store has refused a change of the call, which is ended");
                        self.inputs.push_back(Input::NotCommitted);
                    }
                    self.settle();
                }
                Some(event) = OptionFuture::from(self.leg_events.as_mut().map(|leg| leg.recv()))
                    => self.leg_event(event),
                Some(done) = self.work.next(), if !self.work.is_empty() => self.done(done).await,
                Some(done) = self.saving.next(), if !self.saving.is_empty() => self.done(done).await,
                Some(message) = self.mailbox.sip.recv() => self.message(message).await,
                () = tokio::time::sleep_until(timer.into()) => {
                    self.machine.handle_timeout(self.drivers.now());
                }
                () = tokio::time::sleep(JOURNAL_RETRY), if held_up => {}
                Some(request) = self.mailbox.requests.recv() => self.request(request).await,
            }
            self.carry_out().await;
        }
    }

    async fn message(&mut self, message: CallMessage) {
        match message {
            CallMessage::Sip(Event::Refused { dialog, status, contacts, .. })
                if self.is_redirected(dialog, &contacts) =>
            {
                info!(sip.status = status.code(), "The call is redirected");
                self.place().await;
            }
            CallMessage::Sip(event) => self.sip_event(event),
            CallMessage::MakeRoom => self.machine.handle_input(Input::MakeRoom, self.drivers.now()),
            CallMessage::Replace(reserved, invite, terms) => {
                self.replace(reserved, *invite, terms);
            }
            CallMessage::Follow(reserved, route_plan, terms) => {
                let dialog = reserved.dialog();
                let input = Input::ReferAsked(dialog, terms);
                self.machine.handle_input(input, self.drivers.now());
                if self.machine.referral() == Some(dialog) {
                    self.referral = Some(ReservedReferral {
                        reserved,
                        route_plan: *route_plan,
                        targets: Vec::new(),
                    });
                }
            }
        }
    }

    async fn request(&mut self, request: CallRequest) {
        let since = self.commits.issued();
        match request {
            CallRequest::Show(reply) => {
                let _ = reply.send(Ok(self.machine.call().clone()));
            }
            CallRequest::Peer(reply) => {
                let dialog = self.machine.established();
                let _ = reply.send(dialog.map(|id| (self.machine.call().peer().clone(), id)));
            }
            CallRequest::Operations(reply) => {
                let _ = reply.send(Ok(self.machine.operations().cloned().collect()));
            }
            CallRequest::Command(command, reply) => {
                let result = self.machine.handle_command(command, self.drivers.now());
                self.carry_out().await;
                self.commits.then(since, After::Reply(reply, result));
            }
            // The journal is behind, and changes that wait for it take memory.
            CallRequest::Submit(_, _, reply) if self.commits.are_full() => {
                let _ = reply.send(Err(CallError::Overloaded { retry_after: 5 }));
            }
            CallRequest::Submit(new, clip, reply) => {
                let recording = clip.as_ref().map(|clip| clip.recording);
                match self.machine.submit(new, recording, self.drivers.now()) {
                    Ok(operation) => {
                        let (id, kind) = (operation.id, operation.kind.name());
                        if let Some(clip) = clip {
                            self.take_clip(id, clip);
                        }
                        info!(operation.id = %id, operation.kind = kind, "Operation accepted");
                        self.carry_out().await;
                        self.commits.then(since, After::Accepted(reply, Box::new(operation)));
                    }
                    Err(refusal) => {
                        let _ = reply.send(Err(refusal));
                    }
                }
            }
        }
    }

    /// INVITE with Replaces (RFC 3891): the new dialog takes over from the peer, if the state
    /// allows it.
    fn replace(&mut self, reserved: Reserved, invite: IncomingInvite, terms: MediaTerms) {
        let dialog = reserved.dialog();
        let IncomingInvite { path, call_id, offer, .. } = invite;
        self.machine.handle_input(Input::Replaced(dialog, offer, terms), self.drivers.now());
        if self.machine.dialog() != dialog {
            return;
        }
        info!(peer = %path.peer, "Another peer takes the place of the first");
        reserved.keep();
        (self.peer, self.is_peer_doubtful) = (Some(path.peer), false);
        let call = self.machine.call().id;
        self.drivers.signalling.trace_further(call, &call_id, &[path.peer.ip()]);
    }

    fn sip_event(&mut self, event: Event) {
        let dialog = event.dialog();
        let answered_at = match self.machine.role(dialog) {
            DialogRole::Peer => {
                self.note_peer_event(&event);
                None
            }
            DialogRole::Referral => note_referral_event(&event),
            DialogRole::Former => return,
        };
        self.machine.handle_input(Input::Sip(event), self.drivers.now());
        if let Some(path) = answered_at.filter(|_| self.machine.dialog() == dialog) {
            info!("The call goes on with the target of the REFER");
            self.peer = Some(path.peer);
        }
    }

    /// Logs an event of the peer, and notes the address that it comes from.
    fn note_peer_event(&mut self, event: &Event) {
        match event {
            // Later ACKs belong to changes of the session.
            Event::Acknowledged { .. }
                if matches!(self.machine.established(), Err(CallError::NotEstablished)) =>
            {
                info!("Call established");
            }
            Event::Lost { how: Loss::NotAcknowledged, .. } => warn!(
                "No ACK came: our Contact shows {}, the peer is at {}{}",
                self.address,
                self.peer_words(),
                self.cure()
            ),
            Event::Lost { how: Loss::Unusable, .. } => {
                warn!("The peer has answered by a Contact or Record-Route that cannot be read");
            }
            Event::Lost { how, .. } => warn!(?how, "The peer is not there any more"),
            Event::Progress { status, path, .. } => {
                info!(sip.status = status.code(), "The call is on its way");
                // This may be a later target than the first one.
                self.peer = Some(path.peer);
            }
            Event::Answered { path, .. } => {
                info!("Call answered");
                self.peer = Some(path.peer);
            }
            Event::Refused { status, reason, .. } => {
                info!(sip.status = status.code(), "Call refused: {reason}");
            }
            Event::Referred { status, .. } => info!(sip.status = status.code(), "Transfer"),
            Event::Bye { reason, .. } => info!(reason, "Peer hung up"),
            Event::Reinvite { path, is_proved, .. } => {
                // The peer's RTP now comes from this address.
                (self.peer, self.is_peer_doubtful) = (Some(path.peer), !is_proved);
            }
            Event::Ended { .. } if !self.is_ending() => {
                warn!("The dialog was ended without the call");
            }
            Event::Acknowledged { .. }
            | Event::Ended { .. }
            | Event::Refreshed { .. }
            | Event::Canceled { .. }
            | Event::Info { .. }
            | Event::Heard { .. }
            | Event::Invite { .. }
            | Event::ReferAsked { .. } => {}
        }
    }

    fn is_ending(&self) -> bool {
        matches!(self.machine.call().state, CallState::Terminating | CallState::Terminated)
    }

    fn leg_event(&mut self, event: Option<LegEvent>) {
        let Some(event) = event else {
            error!("The leg has vanished; the call is ended");
            self.leg_events = None;
            self.machine.handle_input(Input::LegFailed, self.drivers.now());
            return;
        };
        let input = match event {
            LegEvent::Heard => {
                debug!("First RTP packet");
                return;
            }
            LegEvent::Tone { tone } => Input::Tone(tone),
            LegEvent::OperationSaid { id } => Input::MediaSaid(id),
            LegEvent::OperationEnded { id, ended } => {
                self.media_ended(id, ended);
                return;
            }
            LegEvent::MediaTimedOut { silence, unauthenticated } => {
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
                Input::MediaTimedOut(silence, unauthenticated)
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
            LegEvent::KeysDiffer { suite, tag } => {
                warn!(
                    "Packets come from the peer, and all of them fail authentication with {} and \
                     the key of tag {tag}: the keys of the two sides differ, or the peer does not \
                     encrypt",
                    suite.name()
                );
                return;
            }
            LegEvent::Closed { stats } => {
                info!(
                    rtp.received = stats.received.received,
                    rtp.lost = stats.received.lost,
                    rtp.late = stats.received.late,
                    rtp.sent = stats.sent.packets,
                    rtp.strangers = stats.strangers,
                    srtp.unauthenticated = stats.refused.unauthenticated,
                    srtp.replayed = stats.refused.replayed,
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
        self.machine.handle_input(input, self.drivers.now());
    }

    /// Logs the suite when the encryption of the audio begins or changes.
    fn note_encryption(&mut self, suite: Option<CryptoSuite>) {
        if std::mem::replace(&mut self.encryption, suite) == suite {
            return;
        }
        match suite {
            Some(suite) => info!(srtp.suite = suite.name(), "The audio is encrypted"),
            None => info!("The audio is not encrypted any more: another party has taken over"),
        }
        if suite.is_some() && !self.machine.are_keys_secret() {
            warn!(
                "The keys of the audio were sent over SIP without TLS: on the way they can be read, \
                 and the audio decrypted"
            );
        }
    }

    fn peer_words(&self) -> String {
        self.peer.map_or_else(|| "an unknown address".to_owned(), |peer| peer.ip().to_string())
    }

    /// Advice for the log, when a peer with a public address is told a private one.
    fn cure(&self) -> &'static str {
        let is_outside = self.peer.is_some_and(|peer| !is_private(peer.ip()));
        if is_private(self.address) && is_outside {
            " and cannot reach it; set sip.advertised_address to our public address"
        } else {
            ""
        }
    }

    fn media_ended(&mut self, id: OperationId, ended: operation::Ended) {
        info!(operation.id = %id, clip = ?ended.clip, "Operation off the media: {:?}", ended.end);
        let gave_up = ended.end == OperationEnd::Unspecified;
        let clip = ended.clip.unwrap_or_default();
        let end = MediaEnd {
            end: ended.end,
            speech_ms: clip.speech_ms,
            speech_ended_at_ms: clip.speech_ended_at_ms,
        };
        self.machine.handle_input(Input::MediaEnded(id, end), self.drivers.now());
        // A discarded clip is awaited as well: its result comes when the file is gone. The leg does
        // not end the clip of an operation that it gave up; for such a clip, the writer gives up
        // its file.
        if let (Some(tape), false) = (self.clips.remove(&id), gave_up) {
            self.await_clip(id, tape);
        }
    }

    async fn done(&mut self, done: WorkDone) {
        let input = match done {
            WorkDone::Prepared(id, Ok(prepared)) => {
                self.prompts.insert(id, prepared.prompts);
                if let Some(clip) = prepared.clip {
                    self.take_clip(id, clip);
                }
                Input::Prepared(id, Ok(()))
            }
            WorkDone::Prepared(id, Err(end)) => {
                if let OperationEnd::PromptFailed(failure) = &end {
                    info!(operation.id = %id, "Prompt failed: {}", failure.message);
                }
                Input::Prepared(id, Err(end))
            }
            WorkDone::ClipBroken(id, is_broken) => {
                if let (Some(leg), true) = (&self.leg, is_broken) {
                    warn!(operation.id = %id, "The disk takes no more of the recording, which ends");
                    let _ = leg.send(LegCommand::DiskFailed(id)).await;
                }
                return;
            }
            WorkDone::Clip(_, _, Ok(SafeClip { bytes: 0, .. })) => return,
            // The clip came so late that its operation was ended without it.
            WorkDone::Clip(id, recording, Ok(_)) if !self.is_known(id) => {
                self.delete_clip(recording);
                return;
            }
            WorkDone::Clip(id, _, result) => Input::ClipSafe(id, result),
            WorkDone::Deleted => return,
            WorkDone::Located(_)
                if self.route_plan.as_ref().is_some_and(RoutePlan::leads_nowhere) =>
            {
                info!("The called user has no phone that could be called");
                Input::NoEndpoint
            }
            WorkDone::Located(result) => Input::Located(self.located(result)),
            // The referral was given up meanwhile.
            WorkDone::ReferralLocated(dialog, _) if self.machine.referral() != dialog => return,
            WorkDone::ReferralLocated(_, result) => {
                Input::ReferralLocated(self.referral_located(result))
            }
        };
        self.machine.handle_input(input, self.drivers.now());
    }

    async fn carry_out(&mut self) {
        loop {
            while let Some(action) = self.machine.poll_output() {
                self.act(action).await;
            }
            match self.inputs.pop_front() {
                Some(input) => self.machine.handle_input(input, self.drivers.now()),
                None if self.commits.are_too_many() && !self.is_ending() => {
                    error!("Too many changes of the call wait for the database; it is ended");
                    self.machine.handle_input(Input::NotCommitted, self.drivers.now());
                    if !self.is_ending() {
                        break;
                    }
                }
                None => break,
            }
        }
        if self.machine.referral().is_none()
            && let Some(ReservedReferral { reserved, .. }) = self.referral.take()
            && reserved.dialog() == self.machine.dialog()
        {
            reserved.keep();
        }
        let machine = &self.machine;
        let is_known = |id: &OperationId| machine.operations().any(|known| known.id == *id);
        self.prompts.retain(|id, _| is_known(id));
        // The leg ends the clips that it has.
        self.clips.retain(|id, tape| tape.has_begun || is_known(id));
        self.commits.submit(&self.drivers.journal);
        self.settle();
        if self.tones_passed_over() > 0 && !self.has_said_tones {
            self.has_said_tones = true;
            warn!("Keys come faster than they can be told: some are not; the end says how many");
        }
    }

    /// How many tones were not reported to the application so far.
    fn tones_passed_over(&self) -> u64 {
        self.machine.tones_passed_over() + self.commits.tones_passed_over()
    }

    /// Whether the operation is not over.
    fn is_known(&self, id: OperationId) -> bool {
        self.machine.operations().any(|operation| operation.id == id)
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Commit(change) => self.commits.push(*change),
            Action::Signal(command) => {
                self.note_answer(&command);
                self.drivers.signalling.send(command).await;
            }
            Action::Locate => {
                let way = self.route_plan.as_ref().map(|route_plan| route_plan.way.clone());
                self.locate(way, WorkDone::Located);
            }
            Action::LocateReferral => {
                let way = self.referral.as_ref().map(|referral| referral.route_plan.way.clone());
                let dialog = self.machine.referral();
                self.locate(way, move |result| WorkDone::ReferralLocated(dialog, result));
            }
            Action::Dial(offer) => self.dial(offer).await,
            Action::DialReferral(call) => self.dial_referral(*call).await,
            Action::OpenLeg => self.open_leg(),
            Action::ConnectLeg(plan) => {
                self.note_encryption(plan.srtp.as_ref().map(SrtpKeys::suite));
                let host = self.peer.map(|peer| peer.ip());
                let connect = if self.is_peer_doubtful {
                    LegCommand::ConnectUnproven
                } else {
                    LegCommand::Connect
                };
                if let Some(leg) = &self.leg {
                    let _ = leg.send(connect(*plan, host)).await;
                }
            }
            Action::Prepare(id, sources) => {
                let since = self.commits.issued().saturating_sub(1);
                self.commits.then(since, After::Prepare(id, sources));
            }
            Action::Start(operation, recording) => self.start(*operation, recording).await,
            Action::Press(tone) => {
                if let Some(leg) = &self.leg {
                    let _ = leg.send(LegCommand::Press(tone)).await;
                }
            }
            Action::Cancel(id) => {
                if let Some(leg) = &self.leg {
                    let _ = leg.send(LegCommand::Cancel(id)).await;
                }
            }
            Action::Mute { ours, peers } => {
                if let Some(leg) = &self.leg {
                    let _ = leg.send(LegCommand::Mute(Muted { ours, peers })).await;
                }
            }
            Action::SealClip(id, recording) => self.seal(id, recording),
            Action::CloseLeg => match &self.leg {
                Some(leg) => {
                    let _ = leg.send(LegCommand::Close).await;
                }
                None => self.inputs.push_back(Input::LegClosed),
            },
            Action::Over => {
                self.tell_end();
                let since = self.commits.issued().saturating_sub(1);
                self.commits.then(since, After::Over);
            }
        }
    }

    /// Notes the first final status only. Before and after it, a Refuse may answer a change of the
    /// session instead of the call.
    fn note_answer(&mut self, command: &endpoint::Command) {
        let status = match command {
            endpoint::Command::Answer { .. } => Status::OK,
            endpoint::Command::Refuse { status, .. } if self.is_ending() => *status,
            endpoint::Command::MakeRoom { .. } => Status::SERVICE_UNAVAILABLE,
            _ => return,
        };
        self.answer.get_or_insert(status);
    }

    fn tell_end(&self) {
        let Some(termination) = self.machine.call().termination else { return };
        let refused_with = self.answer.filter(|status| status.is_refusal());
        let duration_ms = self.begun.elapsed().as_millis();
        let not_told = Some(self.tones_passed_over()).filter(|count| *count > 0);
        info!(
            sip.status = refused_with.map(Status::code),
            duration_ms,
            tones.not_told = not_told,
            "Call over: {termination}"
        );
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
        let tape = recording.zip(self.clips.get_mut(&id).map(Tape::begin));
        if recording.is_some() && tape.is_none() {
            error!(operation.id = %id, "A recording has no file");
            let end = OperationEnd::Unspecified;
            let ended = MediaEnd { end, speech_ms: 0, speech_ended_at_ms: None };
            self.inputs.push_back(Input::MediaEnded(id, ended));
            return;
        }
        if let Some(leg) = &self.leg {
            // A leg that is over reports this itself, and the operation ends with it.
            let _ = leg.send(LegCommand::Start(Start { id, play, tape })).await;
        }
    }

    /// Carries out everything that has waited for the resolved commits.
    fn settle(&mut self) {
        while let Some((after, written)) = self.commits.next_due() {
            match after {
                // The API handler may have stopped waiting; this makes no difference.
                After::Reply(reply, result) => drop(reply.send(written.and(result))),
                After::Accepted(reply, operation) => {
                    drop(reply.send(written.map(|()| *operation)));
                }
                After::Prepare(id, sources) => {
                    // No operation may begin without its row; the call ends.
                    if written.is_ok() {
                        self.prepare(id, sources);
                    }
                }
                After::Over => {
                    self.over =
                        Some(if written.is_ok() { CallEnd::Told } else { CallEnd::NotTold });
                }
            }
        }
    }
}

/// Logs an event of the party that the peer has referred us to. Returns the path of its answer.
fn note_referral_event(event: &Event) -> Option<Path> {
    match event {
        Event::Answered { path, .. } => return Some(*path),
        Event::Refused { status, reason, .. } => {
            info!(sip.status = status.code(), "Whom the peer has named will not come: {reason}");
        }
        _ => {}
    }
    None
}

/// Resources that an operation needs before it begins.
pub(super) struct Prepared {
    pub prompts: Vec<(Clip, u32)>,
    /// The clip of a built-in line's recording. Clips of applications are opened when the operation
    /// is requested.
    pub clip: Option<OpenClip>,
}

#[cfg(test)]
mod tests;
