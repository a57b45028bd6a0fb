//! Nonces that carry their time and source, and the record of how often each was used.
//!
//! A nonce is the time since the mint began, a random number, and a keyed hash over both, the
//! source and the realm. So a request that only gets a challenge takes no memory: a nonce is stored
//! from its first correct answer on. The memory is limited. When it is full, the oldest nonce is
//! removed, and every nonce that is not newer than that one is rejected from then on; so a removed
//! nonce never becomes usable again.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use aws_lc_rs::{constant_time, hmac};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::{Rng, rngs::StdRng};

use super::fields::Protection;

/// How long a nonce is valid.
pub(super) const VALIDITY: Duration = Duration::from_secs(5 * 60);
/// How many nonces are stored: one for each user that answers within [`VALIDITY`].
const MAX_REMEMBERED: usize = 16_384;
/// Bytes of the keyed hash that are sent: half of its length (RFC 2104 §5).
const TAG_LEN: usize = 16;

/// Time in milliseconds and random number: an older nonce has a smaller id.
type NonceId = (u64, u64);

/// Makes nonces and recognises them.
#[derive(Debug)]
pub(super) struct Mint {
    key: hmac::Key,
    began: Instant,
    realm: String,
    rng: StdRng,
    /// The highest nonce count that was used with each nonce.
    used: BTreeMap<NonceId, u32>,
    max_remembered: usize,
    /// Nonces up to this one are rejected, except those in `used`.
    forgotten: Option<NonceId>,
}

/// A nonce that we made for this source and that is still valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Genuine(NonceId);

impl Mint {
    /// A mint with a secret key of its own. `rng` is seeded by the system.
    pub(super) fn new(realm: &str, mut rng: StdRng, now: Instant) -> Self {
        let secret: [u8; 32] = rng.random();
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            began: now,
            realm: realm.to_owned(),
            rng,
            used: BTreeMap::new(),
            max_remembered: MAX_REMEMBERED,
            forgotten: None,
        }
    }

    /// A new nonce for one source.
    pub(super) fn issue(&mut self, source: IpAddr, now: Instant) -> String {
        let id = (self.age_at(now), self.rng.random());
        let mut bytes = id_bytes(id).to_vec();
        bytes.extend(self.tag(id, source));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Recognises a nonce that was made here, for this source, and has not expired.
    pub(super) fn recognise(&self, nonce: &str, source: IpAddr, now: Instant) -> Option<Genuine> {
        let bytes = URL_SAFE_NO_PAD.decode(nonce).ok()?;
        let (time, rest) = bytes.split_first_chunk()?;
        let (random, tag) = rest.split_first_chunk()?;
        let id = (u64::from_be_bytes(*time), u64::from_be_bytes(*random));
        constant_time::verify_slices_are_equal(tag, &self.tag(id, source)).ok()?;
        let age = self.age_at(now).checked_sub(id.0)?;
        (u128::from(age) <= VALIDITY.as_millis()).then_some(Genuine(id))
    }

    /// Notes that a nonce was used with this `protection`. Returns false for a replay: the count
    /// has to rise, and without a count a nonce may be used only once.
    pub(super) fn spend(&mut self, nonce: Genuine, protection: &Protection, now: Instant) -> bool {
        let Genuine(id) = nonce;
        let (may_have_been_used, count) = match protection {
            Protection::Auth { nonce_count, .. } => (true, nonce_count.value()),
            Protection::None => (false, u32::MAX),
        };
        if let Some(highest) = self.used.get_mut(&id) {
            let is_new = may_have_been_used && count > *highest;
            *highest = count.max(*highest);
            return is_new;
        }
        if count == 0 || self.forgotten.is_some_and(|forgotten| id <= forgotten) {
            return false;
        }
        self.make_room(now);
        // A nonce that was removed to make room may be newer than this one.
        if self.forgotten.is_some_and(|forgotten| id <= forgotten) {
            return false;
        }
        self.used.insert(id, count);
        true
    }

    fn make_room(&mut self, now: Instant) {
        let validity = u64::try_from(VALIDITY.as_millis()).unwrap_or(u64::MAX);
        let oldest_valid = self.age_at(now).saturating_sub(validity);
        while let Some(first) = self.used.first_entry()
            && first.key().0 < oldest_valid
        {
            first.remove();
        }
        while self.used.len() >= self.max_remembered
            && let Some((id, _)) = self.used.pop_first()
        {
            self.forgotten = self.forgotten.max(Some(id));
        }
    }

    fn age_at(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.began);
        u64::try_from(age.as_millis()).unwrap_or(u64::MAX)
    }

    fn tag(&self, id: NonceId, source: IpAddr) -> [u8; TAG_LEN] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&id_bytes(id));
        // As IPv6, all addresses have the same length.
        let address = match source.to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        context.update(&address.octets());
        context.update(self.realm.as_bytes());
        let mut tag = [0; TAG_LEN];
        for (kept, byte) in tag.iter_mut().zip(context.sign().as_ref()) {
            *kept = *byte;
        }
        tag
    }
}

fn id_bytes((time, random): NonceId) -> [u8; 16] {
    ((u128::from(time) << 64) | u128::from(random)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;

    use super::*;

    const PHONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn mint(now: Instant) -> Mint {
        Mint::new("example.com", StdRng::seed_from_u64(1), now)
    }

    fn count(number: u32) -> Protection {
        Protection::Auth { cnonce: "c".to_owned(), nonce_count: number.into() }
    }

    #[test]
    fn a_nonce_is_good_for_its_source_and_its_time() {
        let start = Instant::now();
        let mut mint = mint(start);
        let made = start + Duration::from_secs(7);
        let nonce = mint.issue(PHONE, made);
        assert!(mint.recognise(&nonce, PHONE, made).is_some());
        assert!(mint.recognise(&nonce, PHONE, made + VALIDITY).is_some());
        let late = made + VALIDITY + Duration::from_millis(1);
        assert_eq!(mint.recognise(&nonce, PHONE, late), None);
        assert_eq!(mint.recognise(&nonce, "192.0.2.2".parse().unwrap(), made), None);
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert!(mint.recognise(&nonce, mapped, made).is_some());
    }

    #[test]
    fn another_realm_or_another_process_makes_other_nonces() {
        let now = Instant::now();
        let nonce = mint(now).issue(PHONE, now);
        let elsewhere = Mint::new("example.org", StdRng::seed_from_u64(1), now);
        assert_eq!(elsewhere.recognise(&nonce, PHONE, now), None);
        let restarted = Mint::new("example.com", StdRng::seed_from_u64(2), now);
        assert_eq!(restarted.recognise(&nonce, PHONE, now), None);
    }

    #[test]
    fn the_count_has_to_rise() {
        let now = Instant::now();
        let mut mint = mint(now);
        let nonce = mint.issue(PHONE, now);
        let genuine = mint.recognise(&nonce, PHONE, now).unwrap();
        let spent: Vec<bool> = [0, 1, 1, 2, 9, 8, 10, 0]
            .into_iter()
            .map(|number| mint.spend(genuine, &count(number), now))
            .collect();
        assert_eq!(spent, [false, true, false, true, true, false, true, false]);
    }

    #[test]
    fn without_a_count_a_nonce_is_good_once() {
        let now = Instant::now();
        let mut mint = mint(now);
        let nonce = mint.issue(PHONE, now);
        let genuine = mint.recognise(&nonce, PHONE, now).unwrap();
        assert!(mint.spend(genuine, &Protection::None, now));
        assert!(!mint.spend(genuine, &Protection::None, now));
        assert!(!mint.spend(genuine, &count(1), now));

        let nonce = mint.issue(PHONE, now);
        let genuine = mint.recognise(&nonce, PHONE, now).unwrap();
        assert!(mint.spend(genuine, &count(1), now));
        assert!(!mint.spend(genuine, &Protection::None, now));
    }

    #[test]
    fn a_nonce_that_was_forgotten_is_not_good_again() {
        let start = Instant::now();
        let mut mint = mint(start);
        mint.max_remembered = 3;
        let at = |n: u64| start + Duration::from_millis(n);
        let nonces: Vec<String> = (0..6).map(|n| mint.issue(PHONE, at(n))).collect();
        let genuine: Vec<Genuine> =
            nonces.iter().map(|nonce| mint.recognise(nonce, PHONE, at(6)).unwrap()).collect();
        for nonce in genuine.iter().skip(1) {
            assert!(mint.spend(*nonce, &count(1), at(6)));
        }
        assert_eq!(mint.used.len(), 3);
        // The first nonce was never used, but the mint cannot know that any more.
        for nonce in &genuine {
            assert!(!mint.spend(*nonce, &count(1), at(6)));
        }
        assert!(!mint.spend(genuine[1], &count(2), at(6)));
        assert!(mint.spend(genuine[5], &count(2), at(6)));
    }

    #[test]
    fn nonces_that_are_too_old_make_room() {
        let start = Instant::now();
        let mut mint = mint(start);
        mint.max_remembered = 2;
        for n in 0..10 {
            let now = start + (VALIDITY + Duration::from_secs(1)) * n;
            let nonce = mint.issue(PHONE, now);
            let genuine = mint.recognise(&nonce, PHONE, now).unwrap();
            assert!(mint.spend(genuine, &count(1), now));
        }
        assert_eq!((mint.used.len(), mint.forgotten), (1, None));
    }

    proptest! {
        #[test]
        fn nothing_else_is_taken_for_a_nonce(text in "\\PC{0,60}", at in 0_usize..43, to in 0_u8..6) {
            let now = Instant::now();
            let mut mint = mint(now);
            prop_assert_eq!(mint.recognise(&text, PHONE, now), None);
            let nonce = mint.issue(PHONE, now);
            let mut changed = nonce.clone().into_bytes();
            changed[at] ^= 1 << to;
            if let Ok(changed) = String::from_utf8(changed) {
                prop_assert_eq!(mint.recognise(&changed, PHONE, now), None);
            }
        }
    }
}
