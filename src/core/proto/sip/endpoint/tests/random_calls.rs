//! Outgoing calls to phones that behave at random, over a network that loses, duplicates and
//! reorders messages. What must hold: the owner gets exactly one end and at most one answer; each
//! accepted fork gets an ACK and a BYE; nothing remains.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use proptest::prelude::*;
use rand::Rng;

use super::{
    calling::{DIALOG, Reply, call_with_password},
    random::{branch, transaction},
    *,
};
use crate::proto::sip::timers::SIXTY_FOUR_T1;

const MAX_DELAY_MS: u64 = 1_500;
/// The time limit of a simulation, in seconds: one that takes longer never ends.
const HORIZON_S: u64 = 600;
const TAGS: [&str; 3] = ["a", "b", "c"];

/// What the phones and our side do; the steps have a pause in milliseconds before each.
#[derive(Debug, Clone, Copy)]
enum Step {
    Ring(usize),
    RingReliably(usize, u32),
    Accept(usize),
    Refuse(u16),
    Challenge,
    PeerHangsUp,
    WeHangUp,
    Unreachable,
}

fn step() -> impl Strategy<Value = (u64, Step)> {
    let fork = 0..TAGS.len();
    let step = prop_oneof![
        2 => fork.clone().prop_map(Step::Ring),
        2 => (fork.clone(), 1..4_u32).prop_map(|(fork, rseq)| Step::RingReliably(fork, rseq)),
        4 => fork.prop_map(Step::Accept),
        2 => prop::sample::select(vec![302, 404, 422, 486, 503, 603]).prop_map(Step::Refuse),
        1 => Just(Step::Challenge),
        2 => Just(Step::PeerHangsUp),
        2 => Just(Step::WeHangUp),
        1 => Just(Step::Unreachable),
    ];
    (0..8_000_u64, step)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25_000))]

    #[test]
    fn any_course_of_a_call_of_ours_ends_once_and_leaves_nothing(
        steps in prop::collection::vec(step(), 0..10),
        loss_percent in 0..40_u32,
        seed in any::<u64>(),
    ) {
        let mut world = World::new(loss_percent, seed);
        for (pause, step) in steps {
            world.run_for(Duration::from_millis(pause));
            world.take_step(step);
        }
        world.run_to_the_end();
        prop_assert_eq!(world.ends, 1);
        prop_assert!(world.answers <= 1);
        prop_assert!(world.accepted.is_subset(&world.acknowledged), "{:?}", world.accepted);
        prop_assert!(world.accepted.is_subset(&world.hung_up), "{:?}", world.accepted);
        let answered: BTreeSet<&String> = world.byes.keys().collect();
        prop_assert_eq!(answered, world.arrived.iter().collect());
        for (bye, finals) in &world.byes {
            // A BYE that overtakes the 200 belongs to no dialog yet; its duplicate may.
            let known = finals.iter().filter(|text| !text.starts_with("SIP/2.0 481 ")).count();
            prop_assert!(known <= 1, "{}: {:?}", bye, finals);
        }
        world.line.run_for(Duration::from_secs(64 + 5));
        prop_assert!(world.line.endpoint.is_idle(), "{:?}", world.line.endpoint);
    }
}

struct World {
    line: Line,
    rng: StdRng,
    loss_percent: u32,
    /// Messages in the network: to us if the flag is set, otherwise to the phones.
    network: BinaryHeap<std::cmp::Reverse<(Instant, u64, bool, String)>>,
    counter: u64,
    /// The newest INVITE that the phones have received.
    invite: Option<String>,
    /// Final responses by branch and tag, repeated until they are acknowledged.
    finals: BTreeMap<(String, String), Final>,
    /// Branches that have been refused: no phone accepts them any more.
    refused: BTreeSet<String>,
    cseq: u32,
    answers: usize,
    ends: usize,
    /// The last INVITE of our side, while it waits for responses.
    waiting: Option<String>,
    /// When it was accepted; further forks are accepted for 64*T1 after that.
    accepted_at: Option<Instant>,
    /// Tags of forks whose 200 has reached us in time; those that have got our ACK; and those that
    /// have got a BYE from either side.
    accepted: BTreeSet<String>,
    acknowledged: BTreeSet<String>,
    hung_up: BTreeSet<String>,
    /// The BYE requests that have reached us; and the different final responses to each.
    arrived: BTreeSet<String>,
    byes: BTreeMap<String, BTreeSet<String>>,
}

struct Final {
    message: String,
    due: Instant,
    until: Instant,
}

impl World {
    fn new(loss_percent: u32, seed: u64) -> Self {
        let mut world = Self {
            line: Line::new(),
            rng: StdRng::seed_from_u64(seed),
            loss_percent,
            network: BinaryHeap::new(),
            counter: 0,
            invite: None,
            finals: BTreeMap::new(),
            refused: BTreeSet::new(),
            cseq: 1,
            answers: 0,
            ends: 0,
            waiting: None,
            accepted_at: None,
            accepted: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            hung_up: BTreeSet::new(),
            arrived: BTreeSet::new(),
            byes: BTreeMap::new(),
        };
        let second = Path { peer: "192.0.2.20:5060".parse().unwrap(), ..path() };
        let call = OutgoingCall { targets: vec![path(), second], ..call_with_password() };
        world.line.command(Command::Call { dialog: DIALOG, call: Box::new(call) });
        world.settle();
        world
    }

    fn take_step(&mut self, step: Step) {
        match (step, self.invite.clone()) {
            (Step::WeHangUp, _) => {
                self.line.command(Command::Bye { dialog: DIALOG, reason: None });
            }
            (Step::Unreachable, _) => {
                self.line.endpoint.handle_unreachable(path(), self.line.now);
                self.line.drain();
            }
            (_, None) => {}
            (Step::Ring(fork), Some(invite)) => {
                let ringing = Reply::to(&invite, "180 Ringing").tag(TAGS[fork]);
                self.carry(true, ringing.to_string());
            }
            (Step::RingReliably(fork, rseq), Some(invite)) => {
                let ringing = Reply::to(&invite, "183 Session Progress")
                    .tag(TAGS[fork])
                    .with("Require: 100rel")
                    .with(&format!("RSeq: {rseq}"));
                self.carry(true, ringing.to_string());
            }
            (Step::Accept(fork), Some(invite)) => {
                if !self.refused.contains(branch(&invite)) {
                    let ok = Reply::to(&invite, "200 OK").tag(TAGS[fork]).sdp(OFFER);
                    self.decide(&invite, TAGS[fork], ok.to_string());
                }
            }
            (Step::Refuse(status), Some(invite)) => self.refuse(&invite, &format!("{status} No")),
            (Step::Challenge, Some(invite)) => {
                let is_free = !self.refused.contains(branch(&invite));
                if is_free && !self.is_accepted(&invite) {
                    self.refused.insert(branch(&invite).to_owned());
                    let refused = Reply::to(&invite, "401 Unauthorized").tag("x").with(
                        "WWW-Authenticate: Digest realm=\"pbx.example\", nonce=\"n\", qop=\"auth\"",
                    );
                    self.decide(&invite, "x", refused.to_string());
                }
            }
            (Step::PeerHangsUp, Some(invite)) => {
                let accepted =
                    TAGS.into_iter().find(|tag| self.finals.contains_key(&key(&invite, tag)));
                if let Some(tag) = accepted {
                    self.cseq += 1;
                    let bye = bye_of(&invite, tag, self.cseq);
                    self.carry(true, bye);
                }
            }
        }
        self.settle();
    }

    fn refuse(&mut self, invite: &str, status: &str) {
        if self.is_accepted(invite) || !self.refused.insert(branch(invite).to_owned()) {
            return;
        }
        let refused = Reply::to(invite, status).tag("x").with("Min-SE: 3600");
        self.decide(invite, "x", refused.to_string());
    }

    fn is_accepted(&self, invite: &str) -> bool {
        TAGS.into_iter().any(|tag| self.finals.contains_key(&key(invite, tag)))
    }

    /// A phone sends its final response, and repeats it until it is acknowledged.
    fn decide(&mut self, invite: &str, tag: &str, message: String) {
        let now = self.line.now;
        self.carry(true, message.clone());
        let (due, until) = (now + Duration::from_secs(1), now + Duration::from_secs(30));
        self.finals.entry(key(invite, tag)).or_insert(Final { message, due, until });
    }

    fn carry(&mut self, to_us: bool, message: String) {
        let copies = match self.rng.random_range(0..100) {
            roll if roll < self.loss_percent => 0,
            roll if roll < self.loss_percent + 10 => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let delay = Duration::from_millis(self.rng.random_range(0..MAX_DELAY_MS));
            self.counter += 1;
            let arrival = (self.line.now + delay, self.counter, to_us, message.clone());
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
                let Some(std::cmp::Reverse((_, _, to_us, message))) = self.network.pop() else {
                    break;
                };
                if to_us {
                    self.arrive(&message);
                    self.line.receive(&message);
                } else {
                    self.hear(&message);
                }
                self.settle();
            }
            self.repeat_finals();
        }
        self.line.run_until(end);
        self.settle();
    }

    fn run_to_the_end(&mut self) {
        let horizon = self.line.now + Duration::from_secs(HORIZON_S);
        while self.ends == 0 || !self.network.is_empty() || !self.finals.is_empty() {
            assert!(self.line.now < horizon, "never ends: {:?}", self.line.endpoint);
            self.line.command(Command::Bye { dialog: DIALOG, reason: None });
            self.settle();
            self.run_for(Duration::from_secs(1));
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let arrival = self.network.peek().map(|std::cmp::Reverse((at, ..))| *at);
        let repeat = self.finals.values().map(|sent| sent.due.min(sent.until)).min();
        [arrival, repeat, self.line.endpoint.poll_timeout()].into_iter().flatten().min()
    }

    fn repeat_finals(&mut self) {
        let now = self.line.now;
        self.finals.retain(|_, sent| sent.until > now);
        let mut again = Vec::new();
        for sent in self.finals.values_mut().filter(|sent| sent.due <= now) {
            sent.due = now + Duration::from_secs(2);
            again.push(sent.message.clone());
        }
        for message in again {
            self.carry(true, message);
        }
    }

    fn settle(&mut self) {
        while !self.line.sent.is_empty() || !self.line.events.is_empty() {
            for event in std::mem::take(&mut self.line.events) {
                match event {
                    Event::Answered { .. } => self.answers += 1,
                    Event::Refused { .. } | Event::Ended { .. } | Event::Bye { .. } => {
                        self.ends += 1;
                        // Otherwise forks may still answer.
                        if self.accepted_at.is_none() {
                            self.waiting = None;
                        }
                    }
                    _ => assert_eq!(self.ends, 0, "after the end: {event:?}"),
                }
            }
            for (_, message) in std::mem::take(&mut self.line.sent) {
                self.note(&message);
                self.carry(false, message);
            }
        }
    }

    /// A message from the phones reaches us.
    fn arrive(&mut self, message: &str) {
        let now = self.line.now;
        if message.starts_with("BYE ") {
            self.arrived.insert(transaction(message));
        }
        let is_of_invite = header(message, "CSeq").unwrap().ends_with(" INVITE");
        let is_waited_for = self.waiting.as_deref() == Some(branch(message))
            && self.accepted_at.is_none_or(|since| now < since + SIXTY_FOUR_T1);
        if !is_of_invite || !is_waited_for {
            return;
        }
        if message.starts_with("SIP/2.0 2") {
            self.accepted_at.get_or_insert(now);
            self.accepted.insert(tag(message, "To"));
        }
    }

    /// Our side sends a message.
    fn note(&mut self, message: &str) {
        match message.split(' ').next().unwrap() {
            "INVITE" => self.waiting = Some(branch(message).to_owned()),
            "ACK" => drop(self.acknowledged.insert(tag(message, "To"))),
            "BYE" => drop(self.hung_up.insert(tag(message, "To"))),
            "SIP/2.0" => {
                if message.starts_with("SIP/2.0 200 ") {
                    self.hung_up.insert(tag(message, "From"));
                }
                self.byes.entry(transaction(message)).or_default().insert(message.to_owned());
            }
            _ => {}
        }
    }

    /// The phones receive a message of ours.
    fn hear(&mut self, message: &str) {
        let method = message.split(' ').next().unwrap();
        match method {
            "INVITE" => self.invite = Some(message.to_owned()),
            "ACK" => {
                let to = header(message, "To").unwrap();
                let tag = to.split(";tag=").nth(1).unwrap_or_default();
                let of_refusal = branch(message).to_owned();
                self.finals.retain(|(branch, known), sent| {
                    let is_it = known == tag
                        && (*branch == of_refusal || sent.message.starts_with("SIP/2.0 2"));
                    !is_it
                });
            }
            "CANCEL" => {
                self.carry(true, respond(message, "200 OK"));
                if let Some(invite) = self.invite.clone()
                    && branch(&invite) == branch(message)
                {
                    self.refuse(&invite, "487 Request Terminated");
                }
            }
            "SIP/2.0" => {}
            _ => self.carry(true, respond(message, "200 OK")),
        }
    }
}

/// The tag in From or To; empty if there is none.
fn tag(message: &str, name: &str) -> String {
    header(message, name).unwrap().split(";tag=").nth(1).unwrap_or_default().to_owned()
}

fn key(invite: &str, tag: &str) -> (String, String) {
    (branch(invite).to_owned(), tag.to_owned())
}

/// The BYE of the phone with this tag.
fn bye_of(invite: &str, tag: &str, cseq: u32) -> String {
    let (from, to) = (header(invite, "From").unwrap(), header(invite, "To").unwrap());
    format!(
        "BYE sip:aftertone@192.0.2.1 SIP/2.0\r\n\
         Via: SIP/2.0/UDP 192.0.2.10:5062;branch=z9hG4bK-bye-{cseq}\r\n\
         From: {to};tag={tag}\r\nTo: {from}\r\nCall-ID: {}\r\nCSeq: {cseq} BYE\r\n\
         Content-Length: 0\r\n\r\n",
        header(invite, "Call-ID").unwrap()
    )
}
