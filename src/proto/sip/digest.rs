//! Digest authentication (RFC 3261 §22, RFC 7616, RFC 8760): who asks, proved without the password
//! on the wire.
//!
//! Comes in: header field values, time, randomness. Goes out: challenges and verdicts on our side as
//! a server ([`Authenticator`]), answers to challenges on our side as a client ([`answer`]).
//! Passwords are hashed when they are configured and not kept; nothing here prints a secret.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    time::{Duration, Instant},
};

use aws_lc_rs::{constant_time, digest as sha, hmac};
use md5::{Digest as _, Md5};
use rand::{Rng, rngs::StdRng};

use super::{
    message::{Method, Request},
    uri::Uri,
};

/// How long a nonce is good for; after that the client gets a new one, without asking its user.
const NONCE_LIFE: Duration = Duration::from_secs(300);
/// Nonces whose counts are remembered. Nobody without a password gets a place.
const MAX_NONCES: usize = 10_000;
/// Wrong answers of one source within a minute, after which it is not listened to for the rest.
const MAX_FAILURES: u32 = 5;
const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// Sources whose failures are counted.
const MAX_SOURCES: usize = 10_000;
/// Parameters of one header field; the RFC knows a dozen.
const MAX_PARAMS: usize = 32;

/// How the hash is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// RFC 2617; broken as a hash, but all that most phones know.
    Md5,
    /// RFC 8760.
    Sha256,
}

impl Algorithm {
    /// The strongest first, as RFC 8760 §2.6 asks for.
    const ALL: [Self; 2] = [Self::Sha256, Self::Md5];

    fn name(self) -> &'static str {
        match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        }
    }

    fn hash(self, text: &str) -> String {
        match self {
            Self::Md5 => hex(&Md5::digest(text.as_bytes())),
            Self::Sha256 => hex(sha::digest(&sha::SHA256, text.as_bytes()).as_ref()),
        }
    }
}

/// Why a header field value is no challenge and no credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed digest parameters")]
pub struct Malformed;

/// Why a challenge is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unanswerable {
    /// There is none that we could read, and whose algorithm we know.
    #[error("the challenge is none that we could answer")]
    Unknown,
    /// It is of somebody whom our password is not for.
    #[error("the challenge is of the realm {0:?}, which our password is not for")]
    Realm(String),
}

/// Name and password at a trunk.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Who we are.
    pub username: String,
    /// How we prove it.
    pub password: String,
    /// The only realm that gets an answer.
    pub realm: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

/// Answers the strongest challenge of our realm that we know how to (RFC 7616 §3.4): the value of an
/// Authorization or Proxy-Authorization header field.
///
/// # Errors
///
/// No challenge is for us. Nothing of the password was used then.
pub fn answer<'a>(
    challenges: impl Iterator<Item = &'a str>,
    method: &Method,
    uri: &Uri,
    credentials: &Credentials,
    rng: &mut StdRng,
) -> Result<String, Unanswerable> {
    let mut best: Option<(Algorithm, Params)> = None;
    let mut foreign = None;
    for params in challenges.filter_map(|value| Params::read(value).ok()) {
        let realm = params.get("realm").unwrap_or_default();
        let Some(algorithm) = params.algorithm() else { continue };
        if !realm.eq_ignore_ascii_case(&credentials.realm) {
            foreign = Some(realm.to_owned());
        } else if best.as_ref().is_none_or(|(known, _)| algorithm > *known) {
            best = Some((algorithm, params));
        }
    }
    let (algorithm, challenge) = best.ok_or(match foreign {
        Some(realm) => Unanswerable::Realm(realm),
        None => Unanswerable::Unknown,
    })?;
    let nonce = challenge.get("nonce").ok_or(Unanswerable::Unknown)?;
    let realm = challenge.get("realm").unwrap_or_default();
    let (username, uri) = (&credentials.username, uri.to_string());
    let secret = algorithm.hash(&format!("{username}:{realm}:{}", credentials.password));
    let qop = match challenge.get("qop") {
        None => None,
        Some(offered) if offered.split(',').any(|qop| qop.trim() == "auth") => Some(Count {
            nc: "00000001".to_owned(),
            cnonce: format!("{:016x}", rng.random::<u64>()),
        }),
        Some(_) => return Err(Unanswerable::Unknown),
    };
    let response = response(algorithm, &secret, nonce, qop.as_ref(), method, &uri);
    let mut value = format!(
        "Digest username={}, realm={}, nonce={}, uri={}, response=\"{response}\", algorithm={}",
        quote(username),
        quote(realm),
        quote(nonce),
        quote(&uri),
        algorithm.name()
    );
    if let Some(Count { nc, cnonce }) = qop {
        value.push_str(&format!(", qop=auth, nc={nc}, cnonce=\"{cnonce}\""));
    }
    if let Some(opaque) = challenge.get("opaque") {
        value.push_str(&format!(", opaque={}", quote(opaque)));
    }
    Ok(value)
}

/// What is found out about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It comes from this user.
    Authenticated(String),
    /// It says nothing about who it comes from, or not to us: challenge it.
    Missing,
    /// The password is right, the nonce is too old or used: challenge it with `stale`.
    Stale,
    /// It is not who it says: challenge it again.
    Wrong,
    /// Too many wrong ones came from there: do not listen.
    TooMany,
}

/// Knows the users and whom it has challenged.
pub struct Authenticator {
    realm: String,
    users: BTreeMap<String, [String; 2]>,
    /// Hashed in the place of a user who is not there, so that the time tells nothing.
    nobody: [String; 2],
    key: hmac::Key,
    begun: Instant,
    issued: u64,
    /// The highest count of each nonce that was used, and when it was issued.
    counts: BTreeMap<String, (Instant, u32)>,
    failures: BTreeMap<IpAddr, (Instant, u32)>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator")
            .field("realm", &self.realm)
            .field("users", &self.users.len())
            .finish_non_exhaustive()
    }
}

impl Authenticator {
    /// Nobody may anything yet. Nonces are good for this one only.
    pub fn new(realm: String, now: Instant, rng: &mut StdRng) -> Self {
        let secret: [u8; 32] = rng.random();
        let nobody = hashes("", &realm, &hex(&rng.random::<[u8; 16]>()));
        Self {
            realm,
            users: BTreeMap::new(),
            nobody,
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            begun: now,
            issued: 0,
            counts: BTreeMap::new(),
            failures: BTreeMap::new(),
        }
    }

    /// These are the users from now on: names and passwords.
    pub fn set_users<'a>(&mut self, users: impl Iterator<Item = (&'a str, &'a str)>) {
        self.users = users
            .map(|(name, password)| (name.to_owned(), hashes(name, &self.realm, password)))
            .collect();
    }

    /// Whether there is a user of this name.
    pub fn knows(&self, name: &str) -> bool {
        self.users.contains_key(name)
    }

    /// Whether there is anybody who could prove who they are.
    pub fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// The values of WWW-Authenticate for `source`, the strongest algorithm first.
    pub fn challenges(&mut self, source: IpAddr, stale: bool, now: Instant) -> [String; 2] {
        let nonce = self.fresh_nonce(source, now);
        let stale = if stale { ", stale=true" } else { "" };
        Algorithm::ALL.map(|algorithm| {
            format!(
                "Digest realm={}, nonce=\"{nonce}\", algorithm={}, qop=\"auth\"{stale}",
                quote(&self.realm),
                algorithm.name()
            )
        })
    }

    /// Finds out who a request of `source` comes from, by its Authorization header fields.
    pub fn verify(&mut self, request: &Request, source: IpAddr, now: Instant) -> Verdict {
        let offered = request
            .headers("Authorization")
            .filter_map(|value| Params::read(value).ok())
            .find(|params| params.get("realm") == Some(&self.realm));
        let Some(params) = offered else { return Verdict::Missing };
        if self.is_barred(source, now) {
            return Verdict::TooMany;
        }
        let nonce = params.get("nonce").unwrap_or_default();
        // One that was made for another source, or by another process, proves nothing.
        let Some(issued) = self.issued_at(nonce, source) else { return Verdict::Missing };
        let Some(user) = self.proved(&params, nonce, request) else {
            self.count_failure(source, now);
            return Verdict::Wrong;
        };
        if now.saturating_duration_since(issued) > NONCE_LIFE {
            return Verdict::Stale;
        }
        match self.count(nonce, issued, params.get("nc"), now) {
            true => Verdict::Authenticated(user),
            false => Verdict::Stale,
        }
    }

    /// The user whose password the response was made with.
    fn proved(&self, params: &Params, nonce: &str, request: &Request) -> Option<String> {
        let name = params.get("username").unwrap_or_default();
        let algorithm = params.algorithm()?;
        let known = self.users.get(name);
        let secrets = known.unwrap_or(&self.nobody);
        let secret = match algorithm {
            Algorithm::Md5 => &secrets[0],
            Algorithm::Sha256 => &secrets[1],
        };
        let qop = match params.get("qop") {
            None => None,
            Some("auth") => Some(Count {
                nc: params.get("nc").unwrap_or_default().to_owned(),
                cnonce: params.get("cnonce").unwrap_or_default().to_owned(),
            }),
            Some(_) => return None,
        };
        let uri = params.get("uri").unwrap_or_default();
        let expected = response(algorithm, secret, nonce, qop.as_ref(), request.method(), uri);
        let given = params.get("response").unwrap_or_default();
        let is_equal =
            constant_time::verify_slices_are_equal(expected.as_bytes(), given.as_bytes()).is_ok();
        (is_equal && known.is_some() && names(uri, request.uri())).then(|| name.to_owned())
    }

    /// Takes the count of a nonce; false when it was used already (RFC 7616 §3.4, nc). Clients of RFC
    /// 2069 do not count: they may use a nonce once.
    fn count(&mut self, nonce: &str, issued: Instant, nc: Option<&str>, now: Instant) -> bool {
        let nc = nc.and_then(|nc| u32::from_str_radix(nc, 16).ok()).unwrap_or(1);
        if let Some((_, highest)) = self.counts.get_mut(nonce) {
            let is_news = nc > *highest;
            *highest = nc.max(*highest);
            return is_news;
        }
        if self.counts.len() >= MAX_NONCES {
            // What is too old is refused for its age, so it need not be remembered.
            self.counts
                .retain(|_, (issued, _)| now.saturating_duration_since(*issued) <= NONCE_LIFE);
        }
        if self.counts.len() >= MAX_NONCES {
            return false;
        }
        self.counts.insert(nonce.to_owned(), (issued, nc));
        true
    }

    fn is_barred(&mut self, source: IpAddr, now: Instant) -> bool {
        match self.failures.get(&source) {
            Some((since, _)) if now.saturating_duration_since(*since) > FAILURE_WINDOW => {
                self.failures.remove(&source);
                false
            }
            Some((_, failures)) => *failures >= MAX_FAILURES,
            None => false,
        }
    }

    fn count_failure(&mut self, source: IpAddr, now: Instant) {
        if self.failures.len() >= MAX_SOURCES {
            self.failures
                .retain(|_, (since, _)| now.saturating_duration_since(*since) <= FAILURE_WINDOW);
        }
        if self.failures.len() < MAX_SOURCES || self.failures.contains_key(&source) {
            self.failures.entry(source).or_insert((now, 0)).1 += 1;
        }
    }

    fn fresh_nonce(&mut self, source: IpAddr, now: Instant) -> String {
        self.issued += 1;
        let age = now.saturating_duration_since(self.begun).as_millis();
        // Sixteen digits of milliseconds last longer than anybody.
        let head = format!("{:016x}{:016x}", age as u64, self.issued);
        let seal = self.seal(&head, source);
        head + &seal
    }

    /// When we made this nonce for this source, if we did.
    fn issued_at(&self, nonce: &str, source: IpAddr) -> Option<Instant> {
        let (head, seal) = nonce.split_at_checked(32)?;
        let expected = self.seal(head, source);
        constant_time::verify_slices_are_equal(expected.as_bytes(), seal.as_bytes()).ok()?;
        let age = u64::from_str_radix(head.get(..16)?, 16).ok()?;
        self.begun.checked_add(Duration::from_millis(age))
    }

    fn seal(&self, head: &str, source: IpAddr) -> String {
        let tag = hmac::sign(&self.key, format!("{head} {source}").as_bytes());
        hex(tag.as_ref().get(..16).unwrap_or_default())
    }
}

/// nc and cnonce of a request with quality of protection.
struct Count {
    nc: String,
    cnonce: String,
}

/// RFC 7616 §3.4.1, and §3.4.1 of RFC 2617 for those without qop.
fn response(
    algorithm: Algorithm,
    secret: &str,
    nonce: &str,
    qop: Option<&Count>,
    method: &Method,
    uri: &str,
) -> String {
    let request = algorithm.hash(&format!("{method}:{uri}"));
    match qop {
        Some(Count { nc, cnonce }) => {
            algorithm.hash(&format!("{secret}:{nonce}:{nc}:{cnonce}:auth:{request}"))
        }
        None => algorithm.hash(&format!("{secret}:{nonce}:{request}")),
    }
}

/// What stands for the password, with both algorithms: MD5 and SHA-256.
fn hashes(name: &str, realm: &str, password: &str) -> [String; 2] {
    let text = format!("{name}:{realm}:{password}");
    [Algorithm::Md5.hash(&text), Algorithm::Sha256.hash(&text)]
}

/// Whether the `uri` of the credentials means the Request-URI: same user and host. Phones differ in
/// ports and parameters, and proxies rewrite those.
fn names(uri: &str, request_uri: &Uri) -> bool {
    let Ok(uri) = uri.parse::<Uri>() else { return false };
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    uri.user() == request_uri.user() && host(&uri) == host(request_uri)
}

/// The parameters of a `Digest` value; names in lower case, values without quotes.
struct Params(Vec<(String, String)>);

impl Params {
    fn read(value: &str) -> Result<Self, Malformed> {
        let (scheme, mut rest) = value.trim().split_once([' ', '\t']).ok_or(Malformed)?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return Err(Malformed);
        }
        let mut params: Vec<(String, String)> = Vec::new();
        loop {
            rest = rest.trim_start_matches([' ', '\t', ',']);
            if rest.is_empty() {
                return Ok(Self(params));
            }
            let (name, after) = rest.split_once('=').ok_or(Malformed)?;
            let name = name.trim().to_ascii_lowercase();
            let (value, after) = read_value(after.trim_start())?;
            if params.len() >= MAX_PARAMS || params.iter().any(|(known, _)| *known == name) {
                return Err(Malformed);
            }
            params.push((name, value));
            rest = after;
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// MD5 when none is named (RFC 7616 §3.3); `None` when we do not know it.
    fn algorithm(&self) -> Option<Algorithm> {
        let Some(name) = self.get("algorithm") else { return Some(Algorithm::Md5) };
        Algorithm::ALL.into_iter().find(|algorithm| name.eq_ignore_ascii_case(algorithm.name()))
    }
}

/// A token or a quoted string, and what follows it.
fn read_value(text: &str) -> Result<(String, &str), Malformed> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(',').unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Ok((value.trim().to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, quoted.get(at + 1..).unwrap_or_default())),
            '\\' => value.push(chars.next().ok_or(Malformed)?.1),
            c => value.push(c),
        }
    }
    Err(Malformed)
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;
    use crate::proto::sip::{message::Message, wire::parse_datagram};

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));
    const ELSEWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

    fn register(authorization: &str) -> Request {
        let text = format!(
            "REGISTER sip:pbx.example SIP/2.0\r\nVia: SIP/2.0/UDP c;branch=z9hG4bK1\r\n\
             From: <sip:alice@pbx.example>;tag=1\r\nTo: <sip:alice@pbx.example>\r\n\
             Call-ID: x\r\nCSeq: 1 REGISTER\r\n{authorization}\r\n"
        );
        match parse_datagram(text.as_bytes()).unwrap() {
            Message::Request(request) => request,
            Message::Response(_) => unreachable!("it is a request"),
        }
    }

    fn alice(password: &str) -> Credentials {
        Credentials {
            username: "alice".to_owned(),
            password: password.to_owned(),
            realm: "pbx.example".to_owned(),
        }
    }

    struct Pair {
        server: Authenticator,
        rng: StdRng,
        now: Instant,
    }

    impl Pair {
        fn new() -> Self {
            let (mut rng, now) = (StdRng::seed_from_u64(1), Instant::now());
            let mut server = Authenticator::new("pbx.example".to_owned(), now, &mut rng);
            server.set_users([("alice", "secret"), ("bob", "other")].into_iter());
            Self { server, rng, now }
        }

        /// The header field that answers a challenge to `HOME`; of `count` algorithms.
        fn authorization(&mut self, password: &str, skip: usize) -> String {
            let challenges = self.server.challenges(HOME, false, self.now);
            let uri = "sip:pbx.example".parse().unwrap();
            let offered = challenges.iter().skip(skip).map(String::as_str);
            let value =
                answer(offered, &Method::Register, &uri, &alice(password), &mut self.rng).unwrap();
            format!("Authorization: {value}\r\n")
        }

        fn verify(&mut self, authorization: &str, source: IpAddr) -> Verdict {
            self.server.verify(&register(authorization), source, self.now)
        }
    }

    #[test]
    fn the_vectors_of_rfc_7616_come_out() {
        let count = Count {
            nc: "00000001".to_owned(),
            cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ".to_owned(),
        };
        let nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v";
        let get = Method::from("GET");
        for (algorithm, expected) in [
            (Algorithm::Md5, "8ca523f5e9506fed4657c9700eebdbec"),
            (Algorithm::Sha256, "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ] {
            let secret = algorithm.hash("Mufasa:http-auth@example.org:Circle of Life");
            let got = response(algorithm, &secret, nonce, Some(&count), &get, "/dir/index.html");
            assert_eq!(got, expected, "{algorithm:?}");
        }
    }

    #[test]
    fn whoever_knows_the_password_is_let_in_with_either_algorithm() {
        for skip in [0, 1] {
            let mut pair = Pair::new();
            let header = pair.authorization("secret", skip);
            assert!(header.contains(["algorithm=SHA-256", "algorithm=MD5"][skip]), "{header}");
            assert_eq!(pair.verify(&header, HOME), Verdict::Authenticated("alice".to_owned()));
        }
    }

    #[test]
    fn a_wrong_password_and_an_unknown_user_look_the_same() {
        let mut pair = Pair::new();
        let header = pair.authorization("guess", 0);
        assert_eq!(pair.verify(&header, HOME), Verdict::Wrong);
        let header = pair.authorization("guess", 0).replace("alice", "mallory");
        assert_eq!(pair.verify(&header, HOME), Verdict::Wrong);
        assert_eq!(pair.verify("", HOME), Verdict::Missing);
    }

    #[test]
    fn what_was_heard_on_the_wire_is_of_no_use() {
        let mut pair = Pair::new();
        let header = pair.authorization("secret", 0);
        assert_eq!(pair.verify(&header, ELSEWHERE), Verdict::Missing, "another source");
        assert_eq!(pair.verify(&header, HOME), Verdict::Authenticated("alice".to_owned()));
        assert_eq!(pair.verify(&header, HOME), Verdict::Stale, "the same once more");
        let next = header.replace("nc=00000001", "nc=00000002");
        assert_eq!(pair.verify(&next, HOME), Verdict::Wrong, "the count is hashed");
        let header = pair.authorization("secret", 0);
        pair.now += NONCE_LIFE + Duration::from_secs(1);
        assert_eq!(pair.verify(&header, HOME), Verdict::Stale, "too old");
        let other = header.replace("uri=\"sip:pbx.example\"", "uri=\"sip:evil.example\"");
        assert_eq!(pair.verify(&other, HOME), Verdict::Wrong);
    }

    #[test]
    fn a_client_that_does_not_count_may_use_a_nonce_once() {
        let mut pair = Pair::new();
        let [_, challenge] = pair.server.challenges(HOME, false, pair.now);
        let old = challenge.replace(", qop=\"auth\"", "").replace(", algorithm=MD5", "");
        let uri = "sip:pbx.example".parse().unwrap();
        let offered = std::iter::once(old.as_str());
        let value =
            answer(offered, &Method::Register, &uri, &alice("secret"), &mut pair.rng).unwrap();
        let header = format!("Authorization: {value}\r\n");
        assert_eq!(pair.verify(&header, HOME), Verdict::Authenticated("alice".to_owned()));
        assert_eq!(pair.verify(&header, HOME), Verdict::Stale);
    }

    #[test]
    fn guessing_ends_after_five_tries_a_minute() {
        let mut pair = Pair::new();
        for _ in 0..MAX_FAILURES {
            let header = pair.authorization("guess", 0);
            assert_eq!(pair.verify(&header, HOME), Verdict::Wrong);
        }
        let right = pair.authorization("secret", 0);
        assert_eq!(pair.verify(&right, HOME), Verdict::TooMany);
        pair.now += FAILURE_WINDOW + Duration::from_secs(1);
        assert_eq!(pair.verify(&right, HOME), Verdict::Authenticated("alice".to_owned()));
    }

    #[test]
    fn no_more_nonces_are_kept_than_there_are_places() {
        let mut pair = Pair::new();
        let (issued, now) = (pair.now, pair.now);
        for index in 0..MAX_NONCES {
            assert!(pair.server.count(&index.to_string(), issued, Some("1"), now));
        }
        assert!(!pair.server.count("one more", issued, Some("1"), now));
        let later = now + NONCE_LIFE + Duration::from_secs(1);
        assert!(pair.server.count("one more", later, Some("1"), later));
        assert_eq!(pair.server.counts.len(), 1);
    }

    #[test]
    fn hostile_challenges_get_nothing() {
        let mut rng = StdRng::seed_from_u64(1);
        let uri = "sip:200@pbx.example".parse().unwrap();
        for index in 0..1_000 {
            let challenge =
                format!("Digest realm=\"evil{index}.example\", nonce=\"n\", qop=\"auth\"");
            let offered = std::iter::once(challenge.as_str());
            let got = answer(offered, &Method::Invite, &uri, &alice("secret"), &mut rng);
            assert_eq!(got, Err(Unanswerable::Realm(format!("evil{index}.example"))));
        }
        for challenge in [
            "Basic realm=\"pbx.example\"",
            "Digest realm=\"pbx.example\"",
            "Digest realm=\"pbx.example\", nonce=\"n\", qop=\"auth-int\"",
            "Digest realm=\"pbx.example\", nonce=\"n\", algorithm=SHA-512",
            "Digest realm=\"pbx.example\", realm=\"pbx.example\", nonce=\"n\"",
            "Digest realm=\"pbx.example, nonce=\"n\"",
        ] {
            let offered = std::iter::once(challenge);
            let got = answer(offered, &Method::Invite, &uri, &alice("secret"), &mut rng);
            assert_eq!(got, Err(Unanswerable::Unknown), "{challenge}");
        }
    }

    #[test]
    fn nothing_that_is_printed_tells_a_secret() {
        let pair = Pair::new();
        let printed = format!("{:?} {:?}", pair.server, alice("secret"));
        assert!(!printed.contains("secret"), "{printed}");
        assert!(!printed.contains(&pair.server.users["alice"][0]), "{printed}");
    }

    proptest! {
        #[test]
        fn no_value_makes_it_panic(text in "\\PC{0,80}", quoted in "[\"\\\\,= a-z]{0,40}") {
            let mut pair = Pair::new();
            for value in [text.clone(), format!("Digest {text}"), format!("Digest {quoted}")] {
                let _ = Params::read(&value);
                let header = format!("Authorization: Digest realm=\"pbx.example\",{quoted}\r\n");
                pair.verify(&header, HOME);
            }
        }
    }
}
