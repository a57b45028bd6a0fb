//! ICE as a lite agent (RFC 8445 section 2.5): answers the connectivity checks of the peer, and
//! learns from them where the peer is.
//!
//! Input: datagrams with STUN and their source, the credentials of both sides, and the time.
//! Output: answers, and the addresses that belong to the peer. Pure.
//!
//! A lite agent sends no checks and is always the controlled one. Candidates of the peer do not
//! matter: a check may come from any address, because it proves with our password that its sender
//! has seen our description. So peers with mDNS candidates only, and behind any NAT, are found.
//!
//! ```text
//! check without USE-CANDIDATE --> checked: may send; gets what we send while none is selected
//! check with USE-CANDIDATE    --> checked and selected: gets what we send
//! no check for 30 s           --> neither (RFC 7675 section 5.1)
//! ```

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use rand::{CryptoRng, Rng};

use super::stun::{self, BindingRequest, NotACheck};

/// How many addresses of the peer are known at a time. A browser checks from one for each of its
/// networks, and again after a restart.
const MOST_CHECKED: usize = 8;
/// How long a check counts: 30 s (RFC 7675 section 5.1). Browsers repeat it every 2 to 5 s.
const CONSENT: Duration = Duration::from_secs(30);
/// The characters of user name fragment and password (`ice-char`, RFC 8839 section 5.4).
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
/// 48 bits: a peer needs it to find our session, which is not a secret.
const UFRAG_CHARS: usize = 8;
/// 144 bits; RFC 8445 section 5.3 asks for 128.
const PASSWORD_CHARS: usize = 24;

/// The credentials of one side (RFC 8445 section 5.3). `Debug` does not print the password.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    ufrag: String,
    password: String,
}

/// Credentials that RFC 8839 section 5.4 does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IceCredentialsError {
    /// 4 to 256 characters are allowed.
    #[error("ice-ufrag has {0} characters, not 4 to 256")]
    UfragLength(usize),
    /// 22 to 256 characters are allowed.
    #[error("ice-pwd has {0} characters, not 22 to 256")]
    PasswordLength(usize),
    /// Letters, digits, `+` and `/` are allowed.
    #[error("ice-ufrag or ice-pwd has a character that is not allowed")]
    Character,
}

impl IceCredentials {
    /// New credentials.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        let mut chars = |count| -> String {
            (0..count)
                .map(|_| char::from(ICE_CHARS[rng.random_range(0..ICE_CHARS.len())]))
                .collect()
        };
        Self { ufrag: chars(UFRAG_CHARS), password: chars(PASSWORD_CHARS) }
    }

    /// The credentials of a description.
    ///
    /// # Errors
    /// They are too short, too long, or have other characters than RFC 8839 allows.
    pub fn new(ufrag: &str, password: &str) -> Result<Self, IceCredentialsError> {
        if !(4..=256).contains(&ufrag.len()) {
            return Err(IceCredentialsError::UfragLength(ufrag.len()));
        }
        if !(22..=256).contains(&password.len()) {
            return Err(IceCredentialsError::PasswordLength(password.len()));
        }
        if !ufrag.bytes().chain(password.bytes()).all(|byte| ICE_CHARS.contains(&byte)) {
            return Err(IceCredentialsError::Character);
        }
        Ok(Self { ufrag: ufrag.into(), password: password.into() })
    }

    /// The value of `ice-ufrag`.
    pub fn ufrag(&self) -> &str {
        &self.ufrag
    }

    /// The value of `ice-pwd`, for the description.
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("IceCredentials").field("ufrag", &self.ufrag).finish_non_exhaustive()
    }
}

/// The agent of one session.
#[derive(Debug)]
pub(super) struct IceLite {
    current: IceGeneration,
    /// What the peer may still use after a restart, until the new checks have selected an address.
    former: Option<IceGeneration>,
    checked: [Option<CheckedAddress>; MOST_CHECKED],
    selected: Option<SocketAddr>,
}

/// What the checks of one generation (between two restarts) look like.
#[derive(Debug)]
struct IceGeneration {
    /// Our user name fragment, a colon, and that of the peer.
    username: String,
    /// Made from our password; its `Debug` prints the algorithm only.
    key: hmac::Key,
    has_been_checked: bool,
}

#[derive(Debug, Clone, Copy)]
struct CheckedAddress {
    address: SocketAddr,
    /// The time of the last check.
    at: Instant,
}

/// What has become of a datagram with STUN.
#[derive(Debug)]
pub(super) enum CheckOutcome {
    /// The check is good: this is the answer.
    Good {
        /// The bytes of the answer.
        answer: Vec<u8>,
        /// Whether this is the first check from the address in 30 s.
        is_new: bool,
        /// Whether what we send goes there only from now on.
        is_selected: bool,
    },
    /// The peer has to change its role: this is the answer.
    Conflict(Vec<u8>),
    /// A check with another user name or password. It is not answered.
    WrongCredentials,
    /// No check. It is not answered.
    Foreign,
}

impl IceLite {
    pub(super) fn new(local: &IceCredentials, remote: &IceCredentials) -> Self {
        Self {
            current: IceGeneration::new(local, remote),
            former: None,
            checked: [None; MOST_CHECKED],
            selected: None,
        }
    }

    /// Takes new credentials (RFC 8445 section 9). What was selected stays so until the peer
    /// selects an address by a check with the new ones.
    pub(super) fn restart(&mut self, local: &IceCredentials, remote: &IceCredentials) {
        let before = std::mem::replace(&mut self.current, IceGeneration::new(local, remote));
        if before.has_been_checked || self.former.is_none() {
            self.former = Some(before);
        }
    }

    /// Takes a datagram with STUN. A stranger's costs a CRC and a comparison; only one with the
    /// right user name costs an HMAC.
    pub(super) fn check(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> CheckOutcome {
        let request = match BindingRequest::parse(datagram) {
            Ok(request) => request,
            Err(NotACheck::NotIce | NotACheck::Malformed) => return CheckOutcome::Foreign,
        };
        let is_current = self.current.username.as_bytes() == request.username;
        let expected = if is_current { Some(&mut self.current) } else { self.former.as_mut() };
        let expected = expected
            .filter(|expected| expected.username.as_bytes() == request.username)
            .filter(|expected| request.is_from_holder_of(&expected.key));
        let Some(expected) = expected else { return CheckOutcome::WrongCredentials };
        if request.is_controlled {
            // RFC 8445 section 7.3.1.1: a lite agent cannot take over control.
            return CheckOutcome::Conflict(request.role_conflict(&expected.key));
        }
        expected.has_been_checked = true;
        let answer = request.success(from, &expected.key);
        let is_selected = request.use_candidate && (is_current || self.former_counts());
        let is_changed = is_selected && self.selected != Some(from);
        if is_selected {
            self.selected = Some(from);
            if is_current {
                self.former = None;
            }
        }
        let is_new = self.note(now, from);
        CheckOutcome::Good { answer, is_new, is_selected: is_changed }
    }

    /// Whether a check from this address has come in the last 30 s.
    pub(super) fn is_checked(&self, address: SocketAddr, now: Instant) -> bool {
        self.valid(now).any(|checked| checked.address == address)
    }

    /// Where we send: the selected address, before there is one the address of the newest check.
    pub(super) fn destination(&self, now: Instant) -> Option<SocketAddr> {
        let selected = self.selected.filter(|selected| self.is_checked(*selected, now));
        let newest = || self.valid(now).max_by_key(|checked| checked.at);
        selected.or_else(|| newest().map(|checked| checked.address))
    }

    /// Until the new credentials have been used, the old ones may select too.
    fn former_counts(&self) -> bool {
        !self.current.has_been_checked
    }

    fn valid(&self, now: Instant) -> impl Iterator<Item = &CheckedAddress> {
        self.checked
            .iter()
            .flatten()
            .filter(move |checked| now.saturating_duration_since(checked.at) < CONSENT)
    }

    /// Stores the check. Returns whether the address is a new one.
    fn note(&mut self, now: Instant, address: SocketAddr) -> bool {
        let is_new = !self.is_checked(address, now);
        let place = self.place_for(address);
        self.checked[place] = Some(CheckedAddress { address, at: now });
        is_new
    }

    /// The place of the address: its own, a free one, or that of the oldest check of an address
    /// that is not selected.
    fn place_for(&self, address: SocketAddr) -> usize {
        let of = |checked: &Option<CheckedAddress>| checked.map(|checked| checked.address);
        let places = || self.checked.iter().enumerate();
        if let Some((place, _)) = places().find(|(_, checked)| of(checked) == Some(address)) {
            return place;
        }
        let replaceable = places().filter(|(_, checked)| {
            checked.is_none() || self.selected.is_none() || of(checked) != self.selected
        });
        // `None` is less than any time.
        let oldest = replaceable.min_by_key(|(_, checked)| checked.map(|checked| checked.at));
        oldest.map_or(0, |(place, _)| place)
    }
}

impl IceGeneration {
    fn new(local: &IceCredentials, remote: &IceCredentials) -> Self {
        Self {
            username: format!("{}:{}", local.ufrag, remote.ufrag),
            key: stun::integrity_key(&local.password),
            has_been_checked: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::stun::tests::{CONTROLLED, NOMINATE, check},
        *,
    };

    fn credentials(name: &str) -> IceCredentials {
        IceCredentials::new(name, &name.repeat(6)).unwrap()
    }

    fn agent() -> IceLite {
        IceLite::new(&credentials("ours"), &credentials("peer"))
    }

    /// A check with the credentials of [`agent`].
    fn request(more: &[(u16, &[u8])]) -> Vec<u8> {
        check("ours:peer", &"ours".repeat(6), 1, more)
    }

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn credentials_are_those_of_the_rfc() {
        let made = IceCredentials::generate(&mut rand::rng());
        assert_eq!(IceCredentials::new(made.ufrag(), made.password()), Ok(made.clone()));
        assert!(!format!("{made:?}").contains(made.password()));
        let error = |ufrag: &str, password: &str| IceCredentials::new(ufrag, password).unwrap_err();
        let password = "x".repeat(22);
        assert_eq!(error("abc", &password), IceCredentialsError::UfragLength(3));
        assert_eq!(error("abcd", "short"), IceCredentialsError::PasswordLength(5));
        assert_eq!(error("ab:d", &password), IceCredentialsError::Character);
    }

    #[test]
    fn what_we_send_goes_to_the_newest_check_until_the_peer_selects() {
        let (mut agent, now) = (agent(), Instant::now());
        assert_eq!(agent.destination(now), None);
        for (at, port) in [1, 2].into_iter().enumerate() {
            let now = now + Duration::from_millis(at as u64);
            let result = agent.check(now, address(port), &request(&[]));
            assert!(matches!(result, CheckOutcome::Good { is_new: true, is_selected: false, .. }));
            assert_eq!(agent.destination(now), Some(address(port)));
        }
        let result = agent.check(now, address(1), &request(&[NOMINATE]));
        assert!(matches!(result, CheckOutcome::Good { is_new: false, is_selected: true, .. }));
        agent.check(now + Duration::from_secs(1), address(2), &request(&[]));
        assert_eq!(agent.destination(now), Some(address(1)));
        assert!(agent.is_checked(address(2), now) && !agent.is_checked(address(3), now));
        // The peer has moved to another network.
        agent.check(now, address(2), &request(&[NOMINATE]));
        assert_eq!(agent.destination(now), Some(address(2)));
    }

    #[test]
    fn a_peer_that_stops_checking_gets_nothing_after_thirty_seconds() {
        let (mut agent, now) = (agent(), Instant::now());
        agent.check(now, address(1), &request(&[NOMINATE]));
        assert_eq!(agent.destination(now + CONSENT - Duration::from_secs(1)), Some(address(1)));
        assert_eq!(agent.destination(now + CONSENT), None);
        assert!(!agent.is_checked(address(1), now + CONSENT));
    }

    #[test]
    fn wrong_credentials_and_other_messages_are_not_answered() {
        let (mut agent, now) = (agent(), Instant::now());
        for (username, password) in [
            ("ours:other", "ours"),
            ("other:peer", "ours"),
            ("ours:peer", "peer"),
            ("ours", "ours"),
        ] {
            let datagram = check(username, &password.repeat(6), 1, &[NOMINATE]);
            let result = agent.check(now, address(1), &datagram);
            assert!(matches!(result, CheckOutcome::WrongCredentials), "{username} {password}");
        }
        assert!(matches!(agent.check(now, address(1), &[0; 40]), CheckOutcome::Foreign));
        assert_eq!(agent.destination(now), None);
    }

    #[test]
    fn a_peer_that_believes_to_be_controlled_is_told_of_the_conflict() {
        let (mut agent, now) = (agent(), Instant::now());
        let result = agent.check(now, address(1), &request(&[CONTROLLED]));
        assert!(matches!(result, CheckOutcome::Conflict(answer) if answer[..2] == [1, 0x11]));
        assert_eq!(agent.destination(now), None);
    }

    #[test]
    fn after_a_restart_the_old_address_stays_until_a_new_one_is_selected() {
        let (mut agent, now) = (agent(), Instant::now());
        agent.check(now, address(1), &request(&[NOMINATE]));
        agent.restart(&credentials("news"), &credentials("anew"));
        assert_eq!(agent.destination(now), Some(address(1)));
        // A keep-alive of the former generation.
        let result = agent.check(now, address(1), &request(&[NOMINATE]));
        assert!(matches!(result, CheckOutcome::Good { is_selected: false, .. }));
        let renewed = |more: &[(u16, &[u8])]| check("news:anew", &"news".repeat(6), 2, more);
        agent.check(now, address(2), &renewed(&[]));
        assert_eq!(agent.destination(now), Some(address(1)));
        // The former generation cannot take it back.
        agent.check(now, address(3), &request(&[NOMINATE]));
        assert_eq!(agent.destination(now), Some(address(1)));
        agent.check(now, address(2), &renewed(&[NOMINATE]));
        assert_eq!(agent.destination(now), Some(address(2)));
        let late = agent.check(now, address(1), &request(&[NOMINATE]));
        assert!(matches!(late, CheckOutcome::WrongCredentials));
    }

    #[test]
    fn a_restart_that_the_peer_never_used_does_not_end_the_one_before() {
        let (mut agent, now) = (agent(), Instant::now());
        agent.check(now, address(1), &request(&[NOMINATE]));
        agent.restart(&credentials("lost"), &credentials("lost"));
        agent.restart(&credentials("news"), &credentials("anew"));
        let result = agent.check(now, address(1), &request(&[NOMINATE]));
        assert!(matches!(result, CheckOutcome::Good { .. }));
    }

    #[test]
    fn many_addresses_do_not_displace_the_selected_one() {
        let (mut agent, now) = (agent(), Instant::now());
        agent.check(now, address(1), &request(&[NOMINATE]));
        for port in 2..1_000 {
            agent.check(now + Duration::from_millis(1), address(port), &request(&[]));
        }
        assert_eq!(agent.destination(now), Some(address(1)));
        assert!(agent.is_checked(address(999), now));
        assert_eq!(agent.valid(now).count(), MOST_CHECKED);
    }
}
