//! The side that sends challenges.

use std::{collections::HashMap, fmt, net::IpAddr, time::Instant};

use aws_lc_rs::constant_time;
use rand::{Rng, rngs::StdRng};

use super::{
    algorithm::Algorithm,
    failures::Failures,
    fields::{Authorization, Challenge, FieldError},
    nonce::Mint,
    response::{Asked, Ha1},
};
use crate::proto::sip::{message::Method, uri::Uri};

/// The verdict on the credentials of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The request comes from this user, and is no replay.
    Authenticated {
        /// The user name, as configured.
        user: String,
    },
    /// There are no credentials for our realm: the request has to be challenged.
    Missing,
    /// The nonce is too old, used up or not ours. That says nothing about the password: the request
    /// has to be challenged, with `stale`.
    Stale,
    /// There is no such user, or the password is wrong. The peer is not told which.
    Wrong,
    /// Too many wrong passwords came from this source, for this user or for several; this one was
    /// not checked.
    TooMany,
    /// The credentials cannot be read, or belong to another request (400).
    Malformed,
}

/// A request to be judged.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its Request-URI.
    pub uri: &'a Uri,
    /// The source address.
    pub source: IpAddr,
    /// The operator trusts the source: the number of its wrong passwords is not limited.
    pub is_trusted: bool,
}

/// Stores users by hashes of their passwords, makes challenges and judges the answers.
///
/// The nonce is checked first. A sender that cannot have received our nonce, because its source is
/// forged, learns nothing about any password and blocks no user. Only then is the password checked,
/// with the same work whether the user exists or not. Call [`Self::verify`] once for each
/// transaction: a repeated request counts as a replay. ACK and CANCEL cannot be challenged (RFC
/// 3261 §22.1).
pub struct Authenticator {
    realm: String,
    /// The strongest first; never empty.
    algorithms: Vec<Algorithm>,
    users: HashMap<String, Hashes>,
    /// Hashes that the answer of an unknown user is compared with.
    nobody: Hashes,
    mint: Mint,
    failures: Failures,
}

/// The hash of one password for each algorithm.
#[derive(Debug, Clone)]
struct Hashes {
    md5: Ha1,
    sha256: Ha1,
}

impl Hashes {
    fn new(username: &str, realm: &str, password: &str) -> Self {
        Self {
            md5: Ha1::new(Algorithm::Md5, username, realm, password),
            sha256: Ha1::new(Algorithm::Sha256, username, realm, password),
        }
    }

    fn of(&self, algorithm: Algorithm) -> &Ha1 {
        match algorithm {
            Algorithm::Md5 => &self.md5,
            Algorithm::Sha256 => &self.sha256,
        }
    }
}

impl Authenticator {
    /// An authenticator for one realm. `algorithms` are offered and accepted; an empty slice means
    /// all. `rng` makes the nonces and their key, so it has to be seeded by the system.
    pub fn new(realm: &str, algorithms: &[Algorithm], mut rng: StdRng, now: Instant) -> Self {
        let offered =
            |algorithm: &Algorithm| algorithms.is_empty() || algorithms.contains(algorithm);
        let password: [char; 32] = rng.random();
        Self {
            realm: realm.to_owned(),
            algorithms: Algorithm::ALL.into_iter().filter(offered).collect(),
            users: HashMap::new(),
            nobody: Hashes::new("", realm, &String::from_iter(password)),
            mint: Mint::new(realm, rng, now),
            failures: Failures::default(),
        }
    }

    /// Replaces all users, by name and password. The passwords are not kept.
    pub fn set_users<'a>(&mut self, users: impl IntoIterator<Item = (&'a str, &'a str)>) {
        let hashed = |(name, password): (&'a str, &'a str)| {
            (name.to_owned(), Hashes::new(name, &self.realm, password))
        };
        self.users = users.into_iter().map(hashed).collect();
    }

    /// The values of the WWW-Authenticate or Proxy-Authenticate header fields for a request from
    /// `source`, one header field for each. `stale` is true after [`Verdict::Stale`].
    pub fn challenges(&mut self, source: IpAddr, now: Instant, stale: bool) -> Vec<String> {
        let nonce = self.mint.issue(source, now);
        let challenge = |algorithm: &Algorithm| {
            let challenge = Challenge {
                realm: self.realm.clone(),
                nonce: nonce.clone(),
                opaque: None,
                stale,
                algorithm: *algorithm,
                offers_auth: true,
            };
            challenge.to_string()
        };
        self.algorithms.iter().map(challenge).collect()
    }

    /// Judges a request by the values of its Authorization or Proxy-Authorization header fields.
    /// Those for other realms are ignored; of those for our realm the first one counts.
    pub fn verify(&mut self, values: &[&str], asking: Asking<'_>, now: Instant) -> Verdict {
        let Asking { method, uri, source, is_trusted } = asking;
        let authorization = match self.find(values) {
            Ok(Some(authorization)) => authorization,
            Ok(None) => return Verdict::Missing,
            Err(_) => return Verdict::Malformed,
        };
        let Authorization { username, nonce, algorithm, protection, .. } = &authorization;
        if !self.algorithms.contains(algorithm) || !is_same_target(&authorization.uri, uri) {
            return Verdict::Malformed;
        }
        let Some(nonce_id) = self.mint.recognise(nonce, source, now) else {
            return Verdict::Stale;
        };
        if !is_trusted && self.failures.is_blocked(source, username, now) {
            return Verdict::TooMany;
        }
        let hashes = self.users.get(username);
        let asked =
            Asked { algorithm: *algorithm, nonce, method, uri: &authorization.uri, protection };
        let expected = asked.response(hashes.unwrap_or(&self.nobody).of(*algorithm));
        let response = authorization.response.to_ascii_lowercase();
        let is_right =
            constant_time::verify_slices_are_equal(expected.as_bytes(), response.as_bytes())
                .is_ok();
        if !is_right || hashes.is_none() {
            if !is_trusted {
                self.failures.note(source, username, now);
            }
            return Verdict::Wrong;
        }
        if !self.mint.spend(nonce_id, protection, now) {
            return Verdict::Stale;
        }
        Verdict::Authenticated { user: authorization.username }
    }

    /// The first credentials for our realm.
    fn find(&self, values: &[&str]) -> Result<Option<Authorization>, FieldError> {
        let mut unreadable = None;
        for value in values {
            match value.parse::<Authorization>() {
                Ok(authorization) if authorization.realm == self.realm => {
                    return Ok(Some(authorization));
                }
                Ok(_) | Err(FieldError::Scheme) => {}
                Err(error) => unreadable = unreadable.or(Some(error)),
            }
        }
        unreadable.map_or(Ok(None), Err)
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("realm", &self.realm)
            .field("algorithms", &self.algorithms)
            .field("users", &self.users.len())
            .finish_non_exhaustive()
    }
}

/// Whether the `uri` parameter names the target of the request (RFC 7616 §3.4.6): the same scheme,
/// user and host. Port and parameters may differ, because phones add and drop them between the two;
/// they change the path, and not who is called.
fn is_same_target(text: &str, request_uri: &Uri) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let host = |uri: &Uri| uri.host().map(|host| host.trim_end_matches('.').to_ascii_lowercase());
    match (host(&uri), host(request_uri)) {
        (None, None) if uri.user().is_none() => uri == *request_uri,
        (ours, theirs) => {
            ours == theirs
                && uri.scheme() == request_uri.scheme()
                && uri.user() == request_uri.user()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;
    use crate::proto::sip::digest::{Credentials, answer, nonce::VALIDITY};

    const PHONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const URI: &str = "sip:support@example.com";

    struct Fixture {
        authenticator: Authenticator,
        now: Instant,
    }

    impl Fixture {
        fn new(algorithms: &[Algorithm]) -> Self {
            let now = Instant::now();
            let rng = StdRng::seed_from_u64(1);
            let mut authenticator = Authenticator::new("example.com", algorithms, rng, now);
            authenticator.set_users([("alice", "wonderland"), ("bob", "builder")]);
            Self { authenticator, now }
        }

        fn challenges(&mut self) -> Vec<String> {
            self.authenticator.challenges(PHONE, self.now, false)
        }

        fn verify(&mut self, value: &str) -> Verdict {
            self.verify_from(PHONE, value)
        }

        fn verify_from(&mut self, source: IpAddr, value: &str) -> Verdict {
            self.ask(source, false, value)
        }

        fn ask(&mut self, source: IpAddr, is_trusted: bool, value: &str) -> Verdict {
            let uri = &URI.parse().unwrap();
            let asking = Asking { method: &Method::Invite, uri, source, is_trusted };
            self.authenticator.verify(&[value], asking, self.now)
        }
    }

    fn asking<'a>(method: &'a Method, uri: &'a Uri) -> Asking<'a> {
        Asking { method, uri, source: PHONE, is_trusted: false }
    }

    fn answered(challenges: &[String], username: &str, password: &str, count: u32) -> String {
        let challenges: Vec<&str> = challenges.iter().map(String::as_str).collect();
        let credentials = Credentials {
            username: username.to_owned(),
            password: password.to_owned(),
            realm: None,
        };
        answer(&challenges, &Method::Invite, URI, &credentials, count, "cnonce").unwrap()
    }

    fn alice() -> Verdict {
        Verdict::Authenticated { user: "alice".to_owned() }
    }

    #[test]
    fn a_user_with_the_right_password_is_let_in_with_either_algorithm() {
        let mut fixture = Fixture::new(&[]);
        let challenges = fixture.challenges();
        assert!(challenges[0].contains("SHA-256") && challenges[1].contains("MD5"));
        for (count, challenge) in (1..).zip(challenges) {
            let value = answered(&[challenge], "alice", "wonderland", count);
            assert_eq!(fixture.verify(&value), alice());
        }
    }

    #[test]
    fn a_house_without_md5_offers_and_takes_none() {
        let mut fixture = Fixture::new(&[Algorithm::Sha256]);
        let challenges = fixture.challenges();
        assert_eq!(challenges.len(), 1);
        let downgraded = challenges[0].replace("SHA-256", "MD5");
        let value = answered(&[downgraded], "alice", "wonderland", 1);
        assert_eq!(fixture.verify(&value), Verdict::Malformed);
        assert_eq!(fixture.verify(&answered(&challenges, "alice", "wonderland", 1)), alice());
    }

    #[test]
    fn an_answer_is_good_once() {
        let mut fixture = Fixture::new(&[]);
        let challenges = fixture.challenges();
        let value = answered(&challenges, "alice", "wonderland", 1);
        assert_eq!(fixture.verify(&value), alice());
        assert_eq!(fixture.verify(&value), Verdict::Stale);
        let next = answered(&challenges, "alice", "wonderland", 2);
        assert_eq!(fixture.verify(&next), alice());
    }

    #[test]
    fn a_phone_of_rfc_2069_uses_a_nonce_once() {
        let mut fixture = Fixture::new(&[]);
        let old = fixture.challenges().remove(1).replace(", qop=\"auth\"", "");
        let value = answered(&[old], "alice", "wonderland", 1);
        assert_eq!(fixture.verify(&value), alice());
        assert_eq!(fixture.verify(&value), Verdict::Stale);
    }

    #[test]
    fn a_nonce_that_is_too_old_or_of_somebody_else_is_stale_whatever_the_password() {
        let mut fixture = Fixture::new(&[]);
        let challenges = fixture.challenges();
        for password in ["wonderland", "guess"] {
            let value = answered(&challenges, "alice", password, 1);
            assert_eq!(fixture.verify_from("192.0.2.9".parse().unwrap(), &value), Verdict::Stale);
        }
        fixture.now += VALIDITY + Duration::from_millis(1);
        for password in ["wonderland", "guess"] {
            let value = answered(&challenges, "alice", password, 1);
            assert_eq!(fixture.verify(&value), Verdict::Stale);
        }
        let stale = fixture.authenticator.challenges(PHONE, fixture.now, true);
        assert!(stale.iter().all(|challenge| challenge.contains("stale=true")));
        assert_eq!(fixture.verify(&answered(&stale, "alice", "wonderland", 1)), alice());
    }

    #[test]
    fn known_and_unknown_users_get_the_same_answer() {
        let mut fixture = Fixture::new(&[]);
        let challenges = fixture.challenges();
        for name in ["alice", "mallory", "bob"] {
            assert_eq!(fixture.verify(&answered(&challenges, name, "guess", 1)), Verdict::Wrong);
        }
    }

    #[test]
    fn who_guesses_too_often_has_to_wait_but_nobody_else() {
        let mut fixture = Fixture::new(&[]);
        let challenges = fixture.challenges();
        for guess in 0..5 {
            let value = answered(&challenges, "alice", &guess.to_string(), 1);
            assert_eq!(fixture.verify(&value), Verdict::Wrong);
        }
        let right = answered(&challenges, "alice", "wonderland", 1);
        assert_eq!(fixture.verify(&right), Verdict::TooMany);

        let colleague = answered(&fixture.challenges(), "bob", "builder", 1);
        let bob = Verdict::Authenticated { user: "bob".to_owned() };
        assert_eq!(fixture.verify(&colleague), bob, "behind the same address");

        let other = "192.0.2.9".parse().unwrap();
        let elsewhere = fixture.authenticator.challenges(other, fixture.now, false);
        let value = answered(&elsewhere, "alice", "wonderland", 1);
        assert_eq!(fixture.verify_from(other, &value), alice());

        fixture.now += Duration::from_secs(60);
        assert_eq!(fixture.verify(&right), alice());
    }

    #[test]
    fn a_trusted_peer_is_never_blocked() {
        let mut fixture = Fixture::new(&[]);
        let challenges = fixture.challenges();
        for guess in 0..100 {
            let value = answered(&challenges, "alice", &guess.to_string(), 1);
            assert_eq!(fixture.ask(PHONE, true, &value), Verdict::Wrong);
        }
        let right = answered(&challenges, "alice", "wonderland", 1);
        assert_eq!(fixture.ask(PHONE, true, &right), alice());
    }

    #[test]
    fn a_forged_source_blocks_nobody() {
        let mut fixture = Fixture::new(&[]);
        let forged = "Digest realm=\"example.com\", nonce=\"AAAA\", qop=\"auth\"".to_owned();
        for _ in 0..100 {
            let value = answered(std::slice::from_ref(&forged), "alice", "guess", 1);
            assert_eq!(fixture.verify(&value), Verdict::Stale);
        }
        let challenges = fixture.challenges();
        assert_eq!(fixture.verify(&answered(&challenges, "alice", "wonderland", 1)), alice());
    }

    #[test]
    fn credentials_for_others_are_passed_over() {
        let mut fixture = Fixture::new(&[]);
        let ours = answered(&fixture.challenges(), "alice", "wonderland", 1);
        let other = ours.replace("example.com\", nonce", "example.org\", nonce");
        assert_eq!(fixture.verify(&other), Verdict::Missing);
        assert_eq!(fixture.verify("Bearer abc"), Verdict::Missing);
        let uri = URI.parse().unwrap();
        let Fixture { authenticator, now } = &mut fixture;
        let mut verify =
            |values: &[&str]| authenticator.verify(values, asking(&Method::Invite, &uri), *now);
        assert_eq!(verify(&[]), Verdict::Missing);
        assert_eq!(verify(&["Digest x", &other]), Verdict::Malformed);
        assert_eq!(verify(&[&other, &ours]), alice());
    }

    #[test]
    fn an_answer_for_another_request_is_refused() {
        let mut fixture = Fixture::new(&[]);
        let value = answered(&fixture.challenges(), "alice", "wonderland", 1);
        let mut verify = |method: Method, uri: &str| {
            let uri = uri.parse().unwrap();
            fixture.authenticator.verify(&[&value], asking(&method, &uri), fixture.now)
        };
        assert_eq!(verify(Method::Invite, "sip:premium@example.com"), Verdict::Malformed);
        assert_eq!(verify(Method::Invite, "sip:support@example.org"), Verdict::Malformed);
        assert_eq!(verify(Method::Invite, "sips:support@example.com"), Verdict::Malformed);
        assert_eq!(verify(Method::Invite, "tel:support1"), Verdict::Malformed);
        assert_eq!(verify(Method::Refer, URI), Verdict::Wrong);
        let target = "sip:support@EXAMPLE.com:5070;transport=tcp";
        assert_eq!(verify(Method::Invite, target), alice());
    }

    #[test]
    fn users_who_are_gone_are_let_in_no_more() {
        let mut fixture = Fixture::new(&[]);
        let challenges = fixture.challenges();
        fixture.authenticator.set_users([("bob", "builder")]);
        let value = answered(&challenges, "alice", "wonderland", 1);
        assert_eq!(fixture.verify(&value), Verdict::Wrong);
    }

    #[test]
    fn no_secret_is_shown() {
        let shown = format!("{:?}", Fixture::new(&[]).authenticator);
        assert_eq!(
            shown,
            "Authenticator { realm: \"example.com\", algorithms: [Sha256, Md5], users: 2, .. }"
        );
    }

    proptest! {
        #[test]
        fn no_value_panics_or_opens_the_door(
            name in "[a-z]{1,5}",
            response in "\\PC{0,64}",
            nonce_count in "[0-9a-f]{8}",
            rest in "\\PC{0,30}",
        ) {
            let mut fixture = Fixture::new(&[]);
            let challenge: Challenge = fixture.challenges()[0].parse().unwrap();
            let value = format!(
                "Digest username=\"{name}\", realm=\"example.com\", nonce=\"{}\", uri=\"{URI}\", \
                 algorithm=SHA-256, qop=auth, cnonce=\"c\", nc={nonce_count}, \
                 response=\"{response}\"{rest}",
                challenge.nonce,
            );
            let is_let_in = matches!(fixture.verify(&value), Verdict::Authenticated { .. });
            prop_assert!(!is_let_in);
        }
    }
}
