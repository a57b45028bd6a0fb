//! A simulated world around the machine of a call, which answers in any order.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};

use crate::{
    audio::tape::SafeClip,
    call::{
        Action, CallError, Command, Input, LocalAudio, Machine, MediaEnd, MediaTerms, NewOperation,
        Now, Offer, Owner, Placement, Settings,
    },
    model::{
        CallId, CallState, Change, Event, OperationEnd, OperationId, OperationKind,
        OperationStatus, PlayPromptRequest, PromptFailure, PromptFailureKind, PromptSource,
        RecordAction, RecordRequest, RecordingChange, RecordingId, SteadyMillis, Termination, Tone,
        UnixMillis,
    },
    proto::{
        sdp,
        sip::{
            Status,
            endpoint::{self, DialogId},
            path::Path,
        },
    },
};

pub(super) const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
    m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n";

pub(super) fn settings() -> Settings {
    Settings {
        answer_timeout: Duration::from_secs(15),
        keep_alive: Duration::from_secs(2700),
        line_limit: Duration::from_secs(3600),
        retention: Duration::from_secs(600),
    }
}

/// A machine and the simulated world around it: requests not answered yet, and what was reported.
/// What can be agreed on with every peer: PCMU, encrypted if the peer wants it.
pub(super) fn terms() -> MediaTerms {
    MediaTerms {
        codecs: vec![sdp::Codec::Pcmu],
        srtp: sdp::SrtpPolicy::Optional,
        is_signalling_encrypted: false,
    }
}

pub(super) struct World {
    pub(super) machine: Machine,
    pub(super) begun: Instant,
    pub(super) elapsed: Duration,
    /// Whether a call that we place waits for its route.
    pub(super) locating: bool,
    pub(super) dialed: bool,
    pub(super) locating_referral: bool,
    pub(super) leg_asked: bool,
    pub(super) connected: Vec<sdp::StreamPlan>,
    pub(super) leg_open: bool,
    pub(super) preparing: Vec<OperationId>,
    pub(super) running: Option<(OperationId, Option<RecordingId>)>,
    /// Operations that are sent and still played, oldest first.
    pub(super) said: Vec<OperationId>,
    pub(super) canceled: Vec<OperationId>,
    /// Keys that came by SIP INFO.
    pub(super) pressed: Vec<Tone>,
    pub(super) muted: (bool, bool),
    pub(super) closing: bool,
    pub(super) sealing: Vec<OperationId>,
    pub(super) unsafe_clips: Vec<OperationId>,
    pub(super) changes: Vec<Change>,
    pub(super) signals: Vec<endpoint::Command>,
    pub(super) over: usize,
}

pub(super) fn path() -> Path {
    Path::udp("192.0.2.9:5060".parse().unwrap(), "192.0.2.1:5060".parse().unwrap())
}

pub(super) fn progress(status: Status) -> impl FnOnce(DialogId) -> endpoint::Event {
    move |dialog| endpoint::Event::Progress { dialog, status, path: path() }
}

pub(super) fn answered(description: Option<Vec<u8>>) -> impl FnOnce(DialogId) -> endpoint::Event {
    move |dialog| endpoint::Event::Answered { dialog, description, path: path() }
}

pub(super) fn refused(status: Status) -> impl FnOnce(DialogId) -> endpoint::Event {
    let reason = status.reason().to_owned();
    move |dialog| endpoint::Event::Refused { dialog, status, reason, contacts: Vec::new() }
}

pub(super) fn acknowledged(body: Option<Vec<u8>>) -> impl FnOnce(DialogId) -> endpoint::Event {
    move |dialog| endpoint::Event::Acknowledged { dialog, body }
}

pub(super) fn referred(status: Status) -> impl FnOnce(DialogId) -> endpoint::Event {
    move |dialog| endpoint::Event::Referred { dialog, status }
}

pub(super) fn bye(dialog: DialogId) -> endpoint::Event {
    endpoint::Event::Bye { dialog, reason: None }
}

impl World {
    pub(super) fn new(owner: Owner) -> Self {
        let begun = Instant::now();
        let now = Now { instant: begun, wall: UnixMillis(0), steady: SteadyMillis(0) };
        let offer = Offer {
            dialog: DialogId(7),
            source: Default::default(),
            target: Default::default(),
            arrival: Default::default(),
            is_telephone: false,
            sip_call_id: "c".to_owned(),
            subject: None,
            sdp: Some(OFFER.as_bytes().to_vec()),
            media: terms(),
        };
        let id = CallId::from_random([1; 16]);
        let rng = StdRng::seed_from_u64(1);
        Self::around(Machine::offered(id, offer, owner, settings(), now, rng).unwrap(), begun)
    }

    /// A call that an application places.
    pub(super) fn placed() -> Self {
        let begun = Instant::now();
        let now = Now { instant: begun, wall: UnixMillis(0), steady: SteadyMillis(0) };
        let placement = Placement {
            dialog: DialogId(DialogId::FIRST_OUTGOING),
            source: Default::default(),
            target: Default::default(),
            subject: None,
            chain_id: None,
            callback_uri: None,
            media_config: None,
            is_telephone: true,
            ringing_timeout_seconds: Some(30),
            media: terms(),
        };
        let (id, rng) = (CallId::from_random([1; 16]), StdRng::seed_from_u64(1));
        let callback = "http://bot/".to_owned();
        let machine = Machine::placed(id, placement, "bot", callback, settings(), now, rng);
        Self::around(machine.unwrap(), begun)
    }

    pub(super) fn around(machine: Machine, begun: Instant) -> Self {
        let mut world = Self {
            machine,
            begun,
            elapsed: Duration::ZERO,
            locating: false,
            dialed: false,
            locating_referral: false,
            leg_asked: false,
            connected: Vec::new(),
            leg_open: false,
            preparing: Vec::new(),
            running: None,
            said: Vec::new(),
            canceled: Vec::new(),
            pressed: Vec::new(),
            muted: (false, false),
            closing: false,
            sealing: Vec::new(),
            unsafe_clips: Vec::new(),
            changes: Vec::new(),
            signals: Vec::new(),
            over: 0,
        };
        world.drain();
        world
    }

    pub(super) fn bot() -> Self {
        Self::new(Owner::Application {
            name: "bot".to_owned(),
            callback_uri: "http://bot/".to_owned(),
        })
    }

    /// An established call of an application.
    pub(super) fn established() -> Self {
        let mut world = Self::bot();
        world.command(Command::Answer { callback_uri: None, media_config: None }).unwrap();
        world.open_leg();
        world.sip(acknowledged(None));
        assert_eq!(world.machine.call().state, CallState::Established);
        world
    }

    pub(super) fn now(&self) -> Now {
        let wall = UnixMillis(0).plus(self.elapsed);
        let steady = SteadyMillis(0).plus(self.elapsed);
        Now { instant: self.begun + self.elapsed, wall, steady }
    }

    pub(super) fn input(&mut self, input: Input) {
        let now = self.now();
        self.machine.handle_input(input, now);
        self.drain();
    }

    /// An event of the dialog with the peer.
    pub(super) fn sip(&mut self, event: impl FnOnce(DialogId) -> endpoint::Event) {
        self.input(Input::Sip(event(self.machine.dialog())));
    }

    /// An event of the dialog with the referred-to party, or of one that the call has no more.
    pub(super) fn referral_sip(&mut self, event: impl FnOnce(DialogId) -> endpoint::Event) {
        let dialog = self.machine.referral().unwrap_or(DialogId(DialogId::FIRST_OUTGOING + 99));
        self.input(Input::Sip(event(dialog)));
    }

    pub(super) fn command(&mut self, command: Command) -> Result<(), CallError> {
        let now = self.now();
        let result = self.machine.handle_command(command, now);
        self.drain();
        result
    }

    pub(super) fn submit(&mut self, kind: OperationKind) -> Result<OperationId, CallError> {
        let now = self.now();
        let new = NewOperation { kind, client_context: Some("x".to_owned()) };
        let result = self.machine.submit(new, None, now).map(|operation| operation.id);
        self.drain();
        result
    }

    pub(super) fn wait(&mut self, duration: Duration) {
        self.elapsed += duration;
        let now = self.now();
        self.machine.handle_timeout(now);
        self.drain();
    }

    pub(super) fn open_leg(&mut self) {
        if std::mem::take(&mut self.leg_asked) {
            self.leg_open = true;
            let address = "192.0.2.9".parse().unwrap();
            self.input(Input::LegOpened(Some(LocalAudio { address, port: 20_000 })));
        }
    }

    pub(super) fn locate(&mut self, ok: bool) {
        if std::mem::take(&mut self.locating) {
            self.input(Input::Located(if ok { Ok(()) } else { Err(Status::SERVICE_UNAVAILABLE) }));
        }
    }

    pub(super) fn locate_referral(&mut self, ok: bool) {
        if std::mem::take(&mut self.locating_referral) {
            self.input(Input::ReferralLocated(if ok {
                Ok(())
            } else {
                Err(Status::SERVICE_UNAVAILABLE)
            }));
        }
    }

    pub(super) fn prepare(&mut self, ok: bool) {
        if self.preparing.is_empty() {
            return;
        }
        let id = self.preparing.remove(0);
        let failure =
            PromptFailure { kind: PromptFailureKind::NotFetched, message: "not there".to_owned() };
        let end = OperationEnd::PromptFailed(failure);
        self.input(Input::Prepared(id, if ok { Ok(()) } else { Err(end) }));
    }

    /// The running operation has sent all its audio.
    pub(super) fn say(&mut self) {
        if let Some((id, _)) = self.running.take_if(|(_, recording)| recording.is_none()) {
            self.said.push(id);
            self.input(Input::MediaSaid(id));
        }
    }

    /// The peer has played the oldest operation that was sent.
    pub(super) fn hear(&mut self) {
        if !self.said.is_empty() {
            let id = self.said.remove(0);
            let end = OperationEnd::Done;
            let ended = MediaEnd { end, speech_ms: 0, speech_ended_at_ms: None };
            self.input(Input::MediaEnded(id, ended));
        }
    }

    pub(super) fn end_media(&mut self, end: OperationEnd) {
        if let Some((id, recording)) = self.running.take() {
            self.canceled.retain(|canceled| *canceled != id);
            if recording.is_some() && end.delivers_recording() {
                self.unsafe_clips.push(id);
            }
            let ended = MediaEnd { end, speech_ms: 500, speech_ended_at_ms: Some(900) };
            self.input(Input::MediaEnded(id, ended));
        }
    }

    pub(super) fn make_safe(&mut self, ok: bool) {
        let waiting = [&mut self.unsafe_clips, &mut self.sealing];
        let id = waiting.into_iter().find_map(|ids| (!ids.is_empty()).then(|| ids.remove(0)));
        if let Some(id) = id {
            let clip = SafeClip { bytes: 32_044, samples: 16_000, is_cut_short: false };
            self.input(Input::ClipSafe(
                id,
                if ok { Ok(clip) } else { Err(OperationEnd::DiskFailedWithoutAudio) },
            ));
        }
    }

    pub(super) fn close_leg(&mut self, failed: bool) {
        if !std::mem::take(&mut self.closing) || !std::mem::take(&mut self.leg_open) {
            return;
        }
        if failed {
            self.running = None;
            self.said.clear();
            self.input(Input::LegFailed);
            return;
        }
        while !self.said.is_empty() {
            self.hear();
        }
        let end = match self.running {
            Some((_, Some(_))) => OperationEnd::HungUpWithAudio,
            _ => OperationEnd::Canceled,
        };
        self.end_media(end);
        self.input(Input::LegClosed);
    }

    /// Carries out the machine's actions as far as that takes no time.
    pub(super) fn drain(&mut self) {
        let mut is_first = true;
        while let Some(action) = self.machine.poll_output() {
            match action {
                Action::Commit(change) => {
                    assert!(is_first, "a commit comes before what it is about");
                    self.changes.push(*change);
                }
                Action::Signal(command) => self.signals.push(command),
                Action::Locate => self.locating = true,
                Action::LocateReferral => self.locating_referral = true,
                Action::DialReferral(call) => assert!(call.offer.starts_with(b"v=0")),
                Action::Dial(offer) => {
                    assert!(!std::mem::replace(&mut self.dialed, true), "dialed once");
                    assert!(offer.starts_with(b"v=0"));
                }
                Action::OpenLeg => self.leg_asked = true,
                Action::ConnectLeg(plan) => {
                    assert!(self.leg_open);
                    let state = self.machine.call().state;
                    let is_up = !matches!(
                        state,
                        CallState::Incoming | CallState::Establishing | CallState::Ringing
                    );
                    assert!(is_up || !plan.direction.sends(), "no RTP before the ACK");
                    self.connected.push(*plan);
                }
                Action::Prepare(id, _) => self.preparing.push(id),
                Action::Start(operation, recording) => {
                    assert!(self.running.is_none(), "one at a time");
                    self.running = Some((operation.id, recording));
                }
                Action::Press(tone) => self.pressed.push(tone),
                Action::Cancel(id) => self.canceled.push(id),
                Action::Mute { ours, peers } => self.muted = (ours, peers),
                Action::SealClip(id, _) => self.sealing.push(id),
                Action::CloseLeg => self.closing = true,
                Action::Over => self.over += 1,
            }
            is_first = false;
        }
    }

    /// Ends everything that is not over, and answers all open requests.
    pub(super) fn finish(&mut self) {
        self.locate(true);
        self.open_leg();
        let _ = self.command(Command::HangUp(Termination::ApplicationHungUp));
        self.close_leg(false);
        for _ in 0..200 {
            self.make_safe(true);
        }
    }

    pub(super) fn events(&self) -> Vec<&Event> {
        let notifications = self.changes.iter().flat_map(|change| &change.notifications);
        notifications.map(|notification| &notification.event).collect()
    }

    /// The reported states of the call, in order.
    pub(super) fn states(&self) -> Vec<CallState> {
        let state = |event: &Event| match event {
            Event::CallChanged { call }
            | Event::TransferFailed { call, .. }
            | Event::CallEnded { call } => Some(call.state),
            _ => None,
        };
        self.events().into_iter().filter_map(state).collect()
    }

    pub(super) fn ends_of(&self, id: OperationId) -> Vec<(OperationEnd, i32)> {
        self.events()
            .into_iter()
            .filter_map(|event| match event {
                Event::OperationEnded { operation } if operation.id == id => {
                    let end = operation.end.clone().unwrap();
                    let code = end.result(&operation.kind).subcode;
                    Some((end, code))
                }
                _ => None,
            })
            .collect()
    }

    /// What must hold of every call that is over.
    pub(super) fn check(&self) {
        assert_eq!(self.over, 1, "over once");
        assert_eq!(self.machine.call().state, CallState::Terminated);
        let mut accepted: BTreeMap<OperationId, usize> = BTreeMap::new();
        let mut told: BTreeMap<OperationId, usize> = BTreeMap::new();
        let mut clips: BTreeMap<RecordingId, (usize, usize)> = BTreeMap::new();
        let mut expiries = 0;
        for change in &self.changes {
            for operation in &change.operations {
                let is_over = matches!(
                    operation.status,
                    OperationStatus::Completed | OperationStatus::Failed
                );
                assert_eq!(operation.end.is_some(), is_over);
                if operation.kind.is_queued() {
                    *accepted.entry(operation.id).or_default() += usize::from(is_over);
                }
            }
            for recording in &change.recordings {
                match recording {
                    RecordingChange::Begun { id, .. } => clips.entry(*id).or_default().0 += 1,
                    RecordingChange::Finished { id, .. } | RecordingChange::Discarded { id } => {
                        clips.entry(*id).or_default().1 += 1;
                    }
                    RecordingChange::Expire { .. } => expiries += 1,
                }
            }
            for notification in &change.notifications {
                if let Event::OperationEnded { operation } = &notification.event {
                    *told.entry(operation.id).or_default() += 1;
                }
            }
        }
        assert!(accepted.values().all(|ends| *ends == 1), "each ends once: {accepted:?}");
        assert!(clips.values().all(|clip| *clip == (1, 1)), "each clip ends once: {clips:?}");
        assert_eq!(expiries, 1);
        if self.machine.call().application.is_some() {
            assert_eq!(told, accepted, "each is told once");
            let events = self.events();
            let ended = |event: &&&Event| matches!(event, Event::CallEnded { .. });
            assert_eq!(events.iter().filter(ended).count(), 1);
            assert!(matches!(events.last(), Some(Event::CallEnded { .. })), "the end comes last");
        }
        let finals = self.signals.iter().filter(|signal| {
            matches!(signal, endpoint::Command::Answer { .. } | endpoint::Command::Refuse { .. })
        });
        assert!(finals.count() <= 1, "one final answer: {:?}", self.signals);
    }
}

pub(super) fn record(barge_in_allowed: bool) -> OperationKind {
    OperationKind::Record(RecordRequest {
        action: RecordAction::Record,
        prompt: None,
        barge_in_allowed,
        initial_silence_seconds: 5,
        max_silence_seconds: 5,
        max_duration_seconds: 5,
        play_beep: true,
        stop_tones: Vec::new(),
    })
}

pub(super) fn play() -> OperationKind {
    let prompt = PromptSource { uri: "http://x/".to_owned(), resource_id: None, times: 1 };
    OperationKind::PlayPrompt(PlayPromptRequest { prompts: vec![prompt], repeat: false })
}
