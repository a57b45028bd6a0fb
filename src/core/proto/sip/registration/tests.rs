use proptest::prelude::*;
use rand::SeedableRng;

use super::*;
use crate::proto::sip::digest::{Authenticator, Verdict, fields::FieldError};

const CHALLENGE: &str = "Digest realm=\"provider\", nonce=\"one\", qop=\"auth\"";

/// The registration under test, and the clock.
struct Trunk {
    registration: Registration,
    now: Instant,
}

impl Trunk {
    fn new() -> Self {
        let now = Instant::now();
        let config = RegistrationConfig {
            registrar: "sip:provider.example".parse().unwrap(),
            credentials: Credentials {
                username: "us".to_owned(),
                password: "geheim".to_owned(),
                realm: Some("provider".to_owned()),
            },
            expires: Duration::from_secs(3_600),
        };
        Self { registration: Registration::new(config, StdRng::seed_from_u64(1), now), now }
    }

    fn started() -> Self {
        let mut trunk = Self::new();
        trunk.registration.start(trunk.now);
        trunk
    }

    fn registered() -> Self {
        let mut trunk = Self::started();
        trunk.sent();
        trunk.answer(ok(3_600));
        trunk
    }

    /// The one request that was sent since the last call.
    fn sent(&mut self) -> RegisterRequest {
        let mut sent = self.all_sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    fn all_sent(&mut self) -> Vec<RegisterRequest> {
        std::iter::from_fn(|| self.registration.poll_output())
            .filter_map(|output| match output {
                Output::Send(request) => Some(request),
                Output::Changed(_) => None,
            })
            .collect()
    }

    fn answer(&mut self, response: RegisterResponse) {
        self.registration.handle_response(&response, self.now);
    }

    /// Moves the clock to the next timer; returns how many seconds that took.
    fn wait(&mut self) -> f64 {
        let due = self.registration.poll_timeout().unwrap();
        let waited = (due - self.now).as_secs_f64();
        self.now = due;
        self.registration.handle_timeout(due);
        waited
    }

    fn state(&self) -> TrunkState {
        self.registration.status().state
    }

    fn failure(&self) -> Option<Failure> {
        self.registration.status().failure
    }
}

fn status(code: u16) -> RegisterResponse {
    RegisterResponse {
        status: Status::new(code).unwrap(),
        challenges: Vec::new(),
        expires: None,
        min_expires: None,
        retry_after: None,
    }
}

fn ok(expires: u64) -> RegisterResponse {
    RegisterResponse { expires: Some(Duration::from_secs(expires)), ..status(200) }
}

fn challenged(challenge: &str) -> RegisterResponse {
    RegisterResponse { challenges: vec![challenge.to_owned()], ..status(401) }
}

#[test]
fn a_registration_is_refreshed_before_its_end() {
    let mut trunk = Trunk::started();
    let first = trunk.sent();
    assert_eq!((first.cseq, first.expires.as_secs(), first.authorization), (1, 3_600, None));
    trunk.answer(status(100));
    assert_eq!(trunk.state(), TrunkState::Registering);
    trunk.answer(ok(600));
    let told = trunk.registration.status();
    assert_eq!(told.state, TrunkState::Registered);
    assert_eq!((told.last_status, told.failure), (Some(Status::OK), None));
    assert_eq!(told.expires_at, Some(trunk.now + Duration::from_secs(600)));
    let waited = trunk.wait();
    assert!((480.0..=540.0).contains(&waited), "{waited}");
    assert_eq!(trunk.sent().cseq, 2);
    assert!(trunk.registration.status().expires_at.is_some(), "still bound while it asks again");
}

#[test]
fn a_challenge_is_answered_and_the_nonce_used_again() {
    let mut trunk = Trunk::started();
    trunk.sent();
    trunk.answer(challenged(CHALLENGE));
    let (header, value) = trunk.sent().authorization.unwrap();
    assert_eq!(header, "Authorization");
    assert!(value.contains("nc=00000001") && value.contains("uri=\"sip:provider.example\""));
    trunk.answer(ok(3_600));
    trunk.wait();
    let (_, value) = trunk.sent().authorization.unwrap();
    assert!(value.contains("nc=00000002"), "{value}");
    // The peer rejects the nonce; a challenge with a new nonce is answered once.
    trunk.answer(challenged(&CHALLENGE.replace("one", "two")));
    let (_, value) = trunk.sent().authorization.unwrap();
    assert!(value.contains("nc=00000001") && value.contains("\"two\""), "{value}");
    trunk.answer(ok(3_600));
    assert_eq!(trunk.state(), TrunkState::Registered);
}

#[test]
fn a_nonce_of_rfc_2069_is_not_used_again() {
    let mut trunk = Trunk::started();
    trunk.sent();
    trunk.answer(challenged("Digest realm=\"provider\", nonce=\"one\""));
    assert!(trunk.sent().authorization.is_some());
    trunk.answer(ok(3_600));
    trunk.wait();
    assert_eq!(trunk.sent().authorization, None);
}

#[test]
fn a_proxy_gets_its_own_header_field() {
    let mut trunk = Trunk::started();
    trunk.sent();
    trunk.answer(RegisterResponse {
        status: Status::PROXY_AUTHENTICATION_REQUIRED,
        ..challenged(CHALLENGE)
    });
    assert_eq!(trunk.sent().authorization.unwrap().0, "Proxy-Authorization");
}

#[test]
fn a_wrong_password_is_not_sent_again_and_again() {
    let mut trunk = Trunk::started();
    trunk.sent();
    trunk.answer(challenged(CHALLENGE));
    trunk.sent();
    trunk.answer(challenged(CHALLENGE));
    assert!(trunk.all_sent().is_empty());
    assert_eq!(trunk.failure(), Some(Failure::Password));
    let waited = trunk.wait();
    assert!((300.0..=330.0).contains(&waited), "{waited}");
}

#[test]
fn a_nonce_may_be_stale_once_in_a_round() {
    let mut trunk = Trunk::started();
    let stale = format!("{CHALLENGE}, stale=true");
    let mut sent = trunk.all_sent();
    for _ in 0..5 {
        trunk.answer(challenged(&stale));
        sent.extend(trunk.all_sent());
    }
    assert_eq!(sent.iter().filter(|request| request.authorization.is_some()).count(), 2);
    assert_eq!(trunk.state(), TrunkState::Waiting);
}

#[test]
fn another_realm_gets_no_password() {
    let mut trunk = Trunk::started();
    trunk.sent();
    trunk.answer(challenged(&CHALLENGE.replace("provider", "evil")));
    assert!(trunk.all_sent().is_empty());
    assert_eq!(trunk.failure(), Some(Failure::Challenge(DigestError::Realm)));
    trunk.wait();
    trunk.sent();
    trunk.answer(challenged("Basic realm=\"provider\""));
    let unknown = DigestError::Unknown(FieldError::Scheme);
    assert_eq!(trunk.failure(), Some(Failure::Challenge(unknown)));
}

#[test]
fn a_time_that_is_too_short_is_made_longer_once() {
    let mut trunk = Trunk::started();
    trunk.sent();
    let too_brief = |seconds| RegisterResponse {
        min_expires: Some(Duration::from_secs(seconds)),
        ..status(423)
    };
    trunk.answer(too_brief(7_200));
    assert_eq!(trunk.sent().expires.as_secs(), 7_200);
    trunk.answer(too_brief(9_000));
    assert_eq!(trunk.failure(), Some(Failure::Refused(Status::INTERVAL_TOO_BRIEF)));
    trunk.wait();
    assert_eq!(trunk.sent().expires.as_secs(), 7_200);
    for nonsense in [0, 60, 7_200, 4_000_000] {
        trunk.answer(too_brief(nonsense));
        assert_eq!(trunk.state(), TrunkState::Waiting);
        trunk.wait();
        trunk.sent();
    }
}

#[test]
fn failures_are_repeated_ever_more_slowly_until_one_succeeds() {
    let mut trunk = Trunk::started();
    let mut waits = Vec::new();
    for _ in 0..10 {
        trunk.sent();
        trunk.registration.handle_failure(trunk.now);
        assert_eq!(trunk.failure(), Some(Failure::Unreachable));
        waits.push(trunk.wait());
    }
    for (wait, bound) in
        waits.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0])
    {
        assert!((bound / 2.0..=bound).contains(wait), "{waits:?}");
    }
    trunk.sent();
    trunk.answer(ok(3_600));
    trunk.wait();
    trunk.sent();
    trunk.answer(status(500));
    assert!(trunk.registration.status().expires_at.is_some(), "the binding outlives the failure");
    assert!(trunk.wait() <= 1.0);
}

#[test]
fn a_refusal_that_needs_a_person_is_repeated_slowly_and_a_busy_peer_is_given_its_time() {
    let mut trunk = Trunk::started();
    for refusal in [Status::FORBIDDEN, Status::NOT_FOUND] {
        trunk.sent();
        trunk.answer(status(refusal.code()));
        assert_eq!(trunk.failure(), Some(Failure::Refused(refusal)));
        assert!(trunk.wait() >= 300.0);
    }
    trunk.sent();
    let retry_after = Some(Duration::from_secs(1_000));
    trunk.answer(RegisterResponse { retry_after, ..status(503) });
    assert_eq!(trunk.wait(), 1_000.0);
}

#[test]
fn a_contact_that_is_granted_no_time_is_not_registered() {
    let mut trunk = Trunk::started();
    trunk.sent();
    trunk.answer(ok(0));
    assert_eq!(trunk.state(), TrunkState::Waiting);
    trunk.wait();
    trunk.sent();
    trunk.answer(ok(1));
    assert_eq!(trunk.wait(), 5.0, "no flood");
}

#[test]
fn our_contact_is_taken_back_at_the_end() {
    let mut trunk = Trunk::registered();
    trunk.registration.stop(trunk.now);
    assert_eq!(trunk.state(), TrunkState::Unregistering);
    assert!(trunk.sent().expires.is_zero());
    trunk.answer(challenged(CHALLENGE));
    let again = trunk.sent();
    assert!(again.expires.is_zero() && again.authorization.is_some());
    trunk.answer(challenged(CHALLENGE));
    assert_eq!(trunk.state(), TrunkState::Idle);
    assert_eq!(trunk.registration.poll_timeout(), None);
    assert_eq!(trunk.registration.status().expires_at, None);
    trunk.registration.start(trunk.now);
    assert_eq!(trunk.sent().expires.as_secs(), 3_600);
}

#[test]
fn a_request_on_its_way_is_waited_for_before_the_contact_is_taken_back() {
    let mut trunk = Trunk::started();
    trunk.sent();
    trunk.registration.stop(trunk.now);
    assert!(trunk.all_sent().is_empty());
    trunk.answer(ok(3_600));
    assert!(trunk.sent().expires.is_zero());
    trunk.registration.handle_failure(trunk.now);
    assert_eq!(trunk.state(), TrunkState::Idle);

    let mut trunk = Trunk::started();
    trunk.sent();
    trunk.registration.stop(trunk.now);
    trunk.answer(challenged(CHALLENGE));
    assert!(trunk.all_sent().is_empty(), "nothing is bound");
    assert_eq!(trunk.state(), TrunkState::Idle);
}

#[test]
fn who_waits_stops_at_once_when_nothing_is_bound() {
    let mut trunk = Trunk::started();
    trunk.sent();
    trunk.registration.handle_failure(trunk.now);
    trunk.registration.stop(trunk.now);
    assert_eq!(trunk.state(), TrunkState::Idle);
    assert!(trunk.all_sent().is_empty());
}

#[test]
fn each_change_of_state_is_told_once() {
    let mut trunk = Trunk::registered();
    trunk.registration.stop(trunk.now);
    trunk.answer(ok(0));
    let told: Vec<String> = std::iter::from_fn(|| trunk.registration.poll_output())
        .filter_map(|output| match output {
            Output::Changed(state) => Some(state.to_string()),
            Output::Send(_) => None,
        })
        .collect();
    assert_eq!(told, ["registered", "unregistering", "idle"]);
}

#[test]
fn our_own_authenticator_lets_us_in_and_again_with_the_same_nonce() {
    let mut trunk = Trunk::started();
    trunk.sent();
    let source = "192.0.2.1".parse().unwrap();
    let rng = StdRng::seed_from_u64(2);
    let mut provider = Authenticator::new("provider", &[], rng, trunk.now);
    provider.set_users([("us", "geheim")]);
    let challenges = provider.challenges(source, trunk.now, false);
    trunk.answer(RegisterResponse { challenges, ..status(401) });
    for _ in 0..3 {
        let (_, value) = trunk.sent().authorization.unwrap();
        let uri = "sip:provider.example".parse().unwrap();
        let method = &Method::Register;
        let asking = digest::Asking { method, uri: &uri, source, is_trusted: false };
        let verdict = provider.verify(&[&value], asking, trunk.now);
        assert_eq!(verdict, Verdict::Authenticated { user: "us".to_owned() });
        trunk.answer(ok(60));
        trunk.wait();
    }
}

fn any_response() -> impl Strategy<Value = Option<RegisterResponse>> {
    let seconds = || prop::option::of(any::<u32>().prop_map(|s| Duration::from_secs(s.into())));
    let challenge = prop_oneof![
        Just(CHALLENGE.to_owned()),
        Just(format!("{CHALLENGE}, stale=true")),
        "\\PC{0,30}",
    ];
    let statuses = vec![100, 200, 202, 302, 401, 403, 404, 407, 423, 500, 503, 603];
    let response = (prop::sample::select(statuses), challenge, seconds(), seconds(), seconds());
    prop::option::weighted(
        0.8,
        response.prop_map(|(code, challenge, expires, min_expires, retry_after)| {
            let challenges = vec![challenge];
            RegisterResponse { challenges, expires, min_expires, retry_after, ..status(code) }
        }),
    )
}

proptest! {
    /// Whatever the peer answers: there are never two requests at once, the registration never
    /// stops trying, and there are at most two requests with a password in one round.
    #[test]
    fn a_trunk_is_neither_flooded_nor_given_up(
        answers in prop::collection::vec(any_response(), 1..60),
        stop_at in 0_usize..60,
    ) {
        let mut trunk = Trunk::started();
        let mut cseq = 0;
        let mut passwords = 0;
        let mut is_open = false;
        let mut is_end = false;
        for (step, answer) in answers.into_iter().enumerate() {
            if step == stop_at {
                trunk.registration.stop(trunk.now);
            }
            for request in trunk.all_sent() {
                prop_assert!(!is_open, "two at once");
                prop_assert_eq!(request.cseq, cseq + 1);
                cseq = request.cseq;
                is_open = true;
                // Removing the contact is a round of its own.
                if request.expires.is_zero() && !is_end {
                    is_end = true;
                    passwords = 0;
                }
                passwords += u32::from(request.authorization.is_some());
            }
            if is_open {
                is_open = answer.as_ref().is_some_and(|answer| answer.status.is_provisional());
                let was_raised = answer.as_ref().is_some_and(|answer| answer.status == 423);
                match answer {
                    Some(answer) => trunk.answer(answer),
                    None => trunk.registration.handle_failure(trunk.now),
                }
                // After a 423 the password was right.
                passwords = if was_raised { 0 } else { passwords };
                prop_assert!(passwords <= 2, "{passwords} passwords");
            } else if trunk.state() != TrunkState::Idle {
                prop_assert!(trunk.wait() >= 0.5);
                passwords = 0;
            }
            if stop_at > step {
                prop_assert!(trunk.state() != TrunkState::Idle);
            }
        }
    }
}
