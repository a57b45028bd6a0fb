//! The endpoint against a phone that behaves at random, over a network that loses, duplicates and
//! reorders messages. What must hold: each request gets one final response, each call ends once,
//! nothing remains.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use proptest::prelude::*;
use rand::Rng;

use super::*;

/// The maximum delay in the network; less than T4.
const MAX_DELAY_MS: u64 = 1_500;
/// The time limit of a simulation, in seconds: one that takes longer never ends.
const HORIZON_S: u64 = 600;

/// What the two users do; the steps have a pause in milliseconds before each.
#[derive(Debug, Clone, Copy)]
enum Step {
    Cancel,
    Bye,
    Reinvite,
    UpdateWithOffer,
    Update,
    Prack,
    Options,
    Ring,
    Answer,
    Refuse,
    HangUp,
    Wait,
}

fn step() -> impl Strategy<Value = (u64, Step)> {
    let step = prop_oneof![
        1 => Just(Step::Cancel),
        1 => Just(Step::Bye),
        3 => Just(Step::Reinvite),
        2 => Just(Step::UpdateWithOffer),
        1 => Just(Step::Update),
        1 => Just(Step::Prack),
        1 => Just(Step::Options),
        2 => Just(Step::Ring),
        4 => Just(Step::Answer),
        2 => Just(Step::Refuse),
        1 => Just(Step::HangUp),
        2 => Just(Step::Wait),
    ];
    (0..6_000_u64, step)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25_000))]

    #[test]
    fn any_course_of_a_call_ends_once_and_leaves_nothing(
        steps in prop::collection::vec(step(), 0..12),
        loss_percent in 0..40_u32,
        reliably in any::<bool>(),
        timed in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(loss_percent, seed);
        let invite = if reliably { Ask::invite().with("Require: 100rel") } else { Ask::invite() };
        world.ask(match timed {
            // Our side refreshes the session, every 45 seconds.
            true => invite.with("Supported: timer").with("Session-Expires: 90;refresher=uas"),
            false => invite,
        });
        for (pause, step) in steps {
            world.run_for(Duration::from_millis(pause));
            world.take_step(step);
        }
        world.run_to_the_end();

        let answered: BTreeSet<&String> = world.finals.keys().collect();
        prop_assert_eq!(answered, world.arrived.iter().collect(), "what was asked, and nothing else");
        for (request, finals) in &world.finals {
            prop_assert_eq!(finals.len(), 1, "{}: {:?}", request, finals);
        }
        prop_assert_eq!(world.ended, world.offered);
        world.line.run_for(Duration::from_secs(32 + 5));
        prop_assert!(world.line.endpoint.is_idle(), "{:?}", world.line.endpoint);
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_datagram_makes_the_endpoint_panic(
        method in prop::sample::select(vec![
            "INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "INFO", "UPDATE", "REGISTER",
        ]),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut line = Line::new();
        let mut bytes = Ask::new(method, 1).to_string().into_bytes();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        line.endpoint.handle_message(&bytes, path(), line.now);
        line.run_until(line.now + Duration::from_secs(40));
    }
}

/// The line, the phone at its end, and the owner of the call.
struct World {
    line: Line,
    rng: StdRng,
    loss_percent: u32,
    /// Messages to the endpoint by time of arrival; the number separates equal times.
    network: BinaryHeap<std::cmp::Reverse<(Instant, u64, String)>>,
    counter: u64,
    /// Requests of the phone that wait for a final response.
    asking: BTreeMap<String, Asking>,
    /// Requests that have reached the endpoint, by branch and method. ACK is left out, because it
    /// gets no response.
    arrived: BTreeSet<String>,
    /// The different final responses that the endpoint has sent to each request.
    finals: BTreeMap<String, BTreeSet<String>>,
    cseq: u32,
    /// RSeq of the newest reliable provisional response.
    rseq: u32,
    dialog: Option<DialogId>,
    /// The phone cancels only once. A minute later another CANCEL would be a new request, for a
    /// transaction that is gone.
    has_canceled: bool,
    offered: usize,
    ended: usize,
}

/// A pending request of the phone.
#[derive(Debug, Clone)]
struct Asking {
    ask: Ask,
    interval: Duration,
    due: Instant,
    until: Instant,
    provisional: bool,
}

impl World {
    fn new(loss_percent: u32, seed: u64) -> Self {
        Self {
            line: Line::new(),
            rng: StdRng::seed_from_u64(seed),
            loss_percent,
            network: BinaryHeap::new(),
            counter: 0,
            asking: BTreeMap::new(),
            arrived: BTreeSet::new(),
            finals: BTreeMap::new(),
            cseq: 1,
            rseq: 0,
            dialog: None,
            has_canceled: false,
            offered: 0,
            ended: 0,
        }
    }

    fn take_step(&mut self, step: Step) {
        let is_up = !self.line.tag.is_empty();
        match (step, self.dialog) {
            (Step::Cancel, _) if self.has_canceled => {}
            (Step::Cancel, _) => {
                let ringing = self.asking.values().find(|asking| {
                    asking.ask.method == "INVITE" && asking.ask.cseq == 1 && asking.provisional
                });
                if let Some(asking) = ringing {
                    self.has_canceled = true;
                    self.ask(asking.ask.cancel());
                }
            }
            (Step::Bye, _) if is_up => {
                let ask = Ask::bye(&self.line.tag);
                self.ask_next(ask);
            }
            (Step::Reinvite, _) if is_up => {
                let ask = Ask::reinvite(&self.line.tag, 0);
                self.ask_next(ask);
            }
            (Step::UpdateWithOffer, _) if is_up => {
                let ask = Ask::new("UPDATE", 0).to(&self.line.tag).body("application/sdp", OFFER);
                self.ask_next(ask);
            }
            (Step::Update, _) if is_up => {
                let ask = Ask::new("UPDATE", 0).to(&self.line.tag).with("Supported: timer");
                self.ask_next(ask);
            }
            (Step::Prack, _) if is_up => {
                let rack = format!("RAck: {} 1 INVITE", self.rseq);
                let ask = Ask::new("PRACK", 0).to(&self.line.tag).with(&rack);
                self.ask_next(ask);
            }
            (
                Step::Bye | Step::Reinvite | Step::UpdateWithOffer | Step::Update | Step::Prack,
                _,
            ) => {}
            (Step::Options, _) => self.ask_next(Ask::new("OPTIONS", 0)),
            (Step::Ring, Some(dialog)) => self.command(Command::Ring { dialog }),
            (Step::Answer, Some(dialog)) => {
                self.command(Command::Answer { dialog, sdp: b"v=0\r\n".to_vec() });
            }
            (Step::Refuse, Some(dialog)) => self.command(refusal(dialog, Status::BUSY_HERE)),
            (Step::HangUp, Some(dialog)) => self.command(Command::Bye { dialog, reason: None }),
            (Step::Ring | Step::Answer | Step::Refuse | Step::HangUp, None) => {}
            (Step::Wait, _) => self.run_for(Duration::from_secs(20)),
        }
    }

    fn ask_next(&mut self, ask: Ask) {
        self.cseq += 1;
        let branch = format!("{}-{}", ask.method, self.cseq);
        self.ask(ask.cseq(self.cseq).branch(&branch));
    }

    fn ask(&mut self, ask: Ask) {
        let now = self.line.now;
        self.carry(ask.to_string());
        let interval = Duration::from_millis(T1_MS);
        // A little less than 64*T1, so that a late message still finds its transaction.
        let until = now + Duration::from_secs(28);
        let name = format!("{} {}", ask.branch, ask.method);
        let asking = Asking { ask, interval, due: now + interval, until, provisional: false };
        self.asking.entry(name).or_insert(asking);
    }

    fn command(&mut self, command: Command) {
        if let Command::Refuse { dialog, .. } = &command {
            // A refused INVITE has no last event, because the owner knows already.
            let before = self.line.endpoint.dialogs();
            let dialog = *dialog;
            self.line.command(command);
            if self.line.endpoint.dialogs() < before {
                self.ended += 1;
                self.dialog = self.dialog.filter(|id| *id != dialog);
            }
        } else {
            self.line.command(command);
        }
        self.settle();
    }

    /// Puts a message of the phone into the network: it is lost, or arrives late, once or twice.
    fn carry(&mut self, message: String) {
        let copies = match self.rng.random_range(0..100) {
            roll if roll < self.loss_percent => 0,
            roll if roll < self.loss_percent + 10 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let delay = Duration::from_millis(self.rng.random_range(0..MAX_DELAY_MS));
            self.counter += 1;
            let arrival = (self.line.now + delay, self.counter, message.clone());
            self.network.push(std::cmp::Reverse(arrival));
        }
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.line.now + time;
        while let Some(next) = self.next_due().filter(|next| *next <= end) {
            self.line.run_until(next.max(self.line.now));
            self.settle();
            while let Some(std::cmp::Reverse((at, ..))) = self.network.peek() {
                if *at > self.line.now {
                    break;
                }
                let Some(std::cmp::Reverse((_, _, message))) = self.network.pop() else { break };
                if !message.starts_with("SIP/2.0 ") && !message.starts_with("ACK ") {
                    self.arrived.insert(transaction(&message));
                }
                self.line.receive(&message);
                self.settle();
            }
            self.repeat_requests();
        }
        self.line.run_until(end);
        self.settle();
    }

    /// Hangs up all calls, and runs until the network is empty and the phone has given up.
    fn run_to_the_end(&mut self) {
        let horizon = self.line.now + Duration::from_secs(HORIZON_S);
        while self.line.endpoint.dialogs() > 0
            || !self.asking.is_empty()
            || !self.network.is_empty()
        {
            assert!(self.line.now < horizon, "never ends: {:?}", self.line.endpoint);
            if let Some(dialog) = self.dialog {
                self.command(Command::Bye { dialog, reason: None });
            }
            self.run_for(Duration::from_secs(1));
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let arrival = self.network.peek().map(|std::cmp::Reverse((at, ..))| *at);
        let repeat = self.asking.values().map(|asking| asking.due).min();
        [arrival, repeat, self.line.endpoint.poll_timeout()].into_iter().flatten().min()
    }

    /// The phone repeats its unanswered requests, and gives up after 64*T1.
    fn repeat_requests(&mut self) {
        let now = self.line.now;
        let is_idle = self.line.endpoint.is_idle();
        self.asking.retain(|_, asking| asking.until > now || (waits_for_user(asking) && !is_idle));
        let mut again = Vec::new();
        for asking in self.asking.values_mut().filter(|asking| asking.due <= now) {
            asking.interval = (asking.interval * 2).min(Duration::from_secs(4));
            asking.due = now + asking.interval;
            if !waits_for_user(asking) {
                again.push(asking.ask.to_string());
            }
        }
        for message in again {
            self.carry(message);
        }
    }

    /// Both users handle what the endpoint has put out.
    fn settle(&mut self) {
        while !self.line.sent.is_empty() || !self.line.events.is_empty() {
            for event in std::mem::take(&mut self.line.events) {
                self.settle_event(&event);
            }
            for (_, message) in std::mem::take(&mut self.line.sent) {
                self.settle_message(&message);
            }
        }
    }

    fn settle_event(&mut self, event: &Event) {
        match event {
            Event::Invite { dialog, .. } => {
                self.offered += 1;
                self.dialog = Some(*dialog);
            }
            Event::Canceled { dialog }
            | Event::Bye { dialog, .. }
            | Event::Ended { dialog, .. } => {
                assert_eq!(self.dialog, Some(*dialog), "ended twice");
                self.ended += 1;
                self.dialog = None;
            }
            Event::Refused { .. } | Event::Answered { .. } | Event::Progress { .. } => {
                panic!("nobody called: {event:?}")
            }
            Event::Heard { .. }
            | Event::Reinvite { .. }
            | Event::Acknowledged { .. }
            | Event::Lost { .. }
            | Event::Refreshed { .. }
            | Event::Referred { .. }
            | Event::ReferAsked { .. }
            | Event::Info { .. } => assert!(self.dialog.is_some(), "after the end: {event:?}"),
        }
    }

    fn settle_message(&mut self, message: &str) {
        let Some(status) = message.strip_prefix("SIP/2.0 ") else {
            match self.rng.random_range(0..4) {
                _ if self.is_lost() => {}
                what @ 1..4 if message.starts_with("INVITE ") => {
                    self.carry(respond(message, "100 Trying"));
                    match what {
                        1 => self.take_step(Step::Bye),
                        2 => self.carry(respond(message, "487 Request Terminated")),
                        _ => {}
                    }
                }
                _ => self.carry(respond(message, "200 OK")),
            }
            return;
        };
        let status = Status::parse(&status[..3]).unwrap();
        if let Some(rseq) = header(message, "RSeq") {
            self.rseq = rseq.parse().unwrap();
        }
        let branch = branch(message);
        let (cseq, method) = header(message, "CSeq").unwrap().split_once(' ').unwrap();
        let name = transaction(message);
        if status.is_final() {
            self.finals.entry(name.clone()).or_default().insert(message.to_owned());
        }
        if self.is_lost() {
            return;
        }
        if status.is_provisional() {
            if let Some(asking) = self.asking.get_mut(&name) {
                asking.provisional = true;
            }
            return;
        }
        self.asking.remove(&name);
        if method == "INVITE" {
            let cseq: u32 = cseq.parse().unwrap();
            let tag = header(message, "To").unwrap().split_once(";tag=").unwrap().1;
            let ack = Ask::new("ACK", cseq).to(tag);
            let ack = match status.is_refusal() {
                false => ack.branch(&format!("ack-{cseq}")),
                true => ack.branch(branch.trim_start_matches("z9hG4bK-")),
            };
            self.carry(ack.to_string());
        }
    }

    fn is_lost(&mut self) -> bool {
        self.rng.random_range(0..100) < self.loss_percent
    }
}

/// The transaction of a message, as its client names it: branch and method.
pub(super) fn transaction(message: &str) -> String {
    let (_, method) = header(message, "CSeq").unwrap().split_once(' ').unwrap();
    format!("{} {method}", branch(message))
}

pub(super) fn branch(message: &str) -> &str {
    let via = header(message, "Via").unwrap();
    via.split(";branch=").nth(1).unwrap().split(';').next().unwrap()
}

/// An INVITE that has got a provisional response is neither repeated nor given up.
fn waits_for_user(asking: &Asking) -> bool {
    asking.ask.method == "INVITE" && asking.provisional
}
