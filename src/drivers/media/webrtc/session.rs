//! The secured media of one call: who may send, DTLS, and SRTP.
//!
//! Input: datagrams of the leg's RTP port, packets to be sent, and the time. Output: RTP and RTCP
//! in clear, datagrams to be sent, and events. No socket, no clock, no wait.
//!
//! ```text
//!                      STUN --> ice_lite: is the source the peer?     (ICE only)
//! datagram --RFC 7983--DTLS --> association: handshake --keys--.
//!                      SRTP --> SrtpReceiver <-----------------+
//! packet to be sent --------> SrtpSender   <-------------------'
//! ```
//!
//! After each call that takes `now`, the owner sends what [`SecureSession::poll_transmit`] gives,
//! and handles what [`SecureSession::poll_event`] gives, until both give nothing.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    association::{Association, Beginning, MediaKeys, Progress},
    failure::SecureFailure,
    fingerprint::Fingerprints,
    gate::HandshakeGate,
    ice_lite::{CheckOutcome, IceCredentials, IceLite},
    identity::DtlsIdentity,
    role::DtlsRole,
    transmits::Transmits,
};
use aftertone_core::proto::srtp::{CryptoSuite, SrtpError, SrtpReceiver, SrtpSender};

/// How long we wait for the first ICE check, and then for the first ClientHello.
const PATIENCE: Duration = Duration::from_secs(15);
/// How many handshakes fail, as a server, before no further one is begun.
const MOST_HANDSHAKES: u32 = 3;
/// How long the peer of an unfinished handshake is silent before a handshake from another address
/// of its host replaces it: a NAT may have changed the port.
const HANDSHAKE_SILENCE: Duration = Duration::from_secs(3);
/// How long the peer is silent before its media from another port of its host move it there.
const MOVE_SILENCE: Duration = Duration::from_millis(200);
/// How many packets in a row fail authentication, if none has passed, before that is reported: one
/// second of sound.
const MOST_UNAUTHENTICATED: u64 = 50;
/// How many events wait at most. There are some ten in a session without restarts.
const MOST_EVENTS: usize = 32;
/// Room for the longest packet with its tag.
const PACKET_BYTES: usize = 2_048;

/// What offer and answer have agreed on security, and who we are.
#[derive(Debug, Clone)]
pub struct SecureConfig {
    /// Our certificate.
    pub identity: Arc<DtlsIdentity>,
    /// How the peer's address is found.
    pub path: SecurePath,
    /// Our role in DTLS.
    pub role: DtlsRole,
    /// The fingerprints of the peer's description.
    pub fingerprints: Fingerprints,
}

/// How the peer's address is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecurePath {
    /// By ICE, with us as the lite agent.
    Ice {
        /// Our candidates, for messages.
        candidates: Vec<SocketAddr>,
        /// Our credentials.
        local: IceCredentials,
        /// Those of the peer.
        remote: IceCredentials,
    },
    /// By the description: SIP phones, and peers that are lite agents too.
    Direct {
        /// The address of the description.
        peer: SocketAddr,
        /// The host that the peer's SIP comes from: behind a NAT its media come from there.
        host: Option<IpAddr>,
    },
}

/// What a datagram was.
#[derive(Debug, PartialEq, Eq)]
pub enum SecureDatagram<'a> {
    /// An authenticated RTP packet, decrypted in place.
    Rtp(&'a [u8]),
    /// An authenticated RTCP compound packet, decrypted in place.
    Rtcp(&'a [u8]),
    /// A part of ICE or DTLS.
    Consumed,
    /// Of a stranger, damaged, too early, or repeated.
    Refused,
}

/// What has happened in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecureEvent {
    /// The first good ICE check from this address.
    Checked(SocketAddr),
    /// The peer has selected this address: what we send goes there.
    Selected(SocketAddr),
    /// Media can be sent and received.
    Connected {
        /// Where the handshake was.
        peer: SocketAddr,
        /// The suite of both directions.
        suite: CryptoSuite,
        /// `DTLS 1.2` or `DTLS 1.3`.
        version: &'static str,
    },
    /// A step has failed. A later attempt of the peer may still succeed.
    Failed(SecureFailure),
    /// The peer has closed the DTLS association: it sends no more media.
    Closed,
}

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SecureStats {
    /// Datagrams of sources that are not the peer.
    pub strangers: u64,
    /// ICE checks with other credentials.
    pub wrong_checks: u64,
    /// Media before there were keys.
    pub early: u64,
    /// Media that failed authentication.
    pub unauthenticated: u64,
    /// Media that came twice or much too late.
    pub replayed: u64,
    /// Datagrams that are none of the expected protocols, or cannot be read.
    pub malformed: u64,
}

/// The secured media of one call.
#[derive(Debug)]
pub struct SecureSession {
    config: SecureConfig,
    /// Present if the path is found by ICE.
    ice: Option<IceLite>,
    association: Option<Association>,
    /// Failed handshakes since the last description that changed anything.
    failures: u32,
    media: Option<SrtpMedia>,
    waiting: AwaitedStep,
    outgoing: Transmits,
    events: VecDeque<SecureEvent>,
    stats: SecureStats,
    conflicts: u64,
}

/// Both directions, once there are keys.
#[derive(Debug)]
struct SrtpMedia {
    suite: CryptoSuite,
    sender: SrtpSender,
    receiver: SrtpReceiver,
    /// Where the peer is, if not found by ICE.
    peer: SocketAddr,
    /// Where the last authenticated packet or the handshake came from.
    heard_from: SocketAddr,
    heard_at: Instant,
    /// Packets that failed since the keys came, while none has passed.
    unauthenticated: u64,
    has_passed: bool,
    /// The packet that is being sent.
    packet: Vec<u8>,
}

/// The step that the peer has to take next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AwaitedStep {
    /// An ICE check, since this time.
    ForCheck(Instant),
    /// A ClientHello, since this time.
    ForHello(Instant),
    /// Nothing, or it has been reported.
    Nothing,
}

impl SecureSession {
    /// A session that begins now.
    pub fn new(config: SecureConfig, now: Instant) -> Self {
        let mut session = Self {
            ice: None,
            association: None,
            failures: 0,
            media: None,
            waiting: AwaitedStep::Nothing,
            outgoing: Transmits::default(),
            events: VecDeque::new(),
            stats: SecureStats::default(),
            conflicts: 0,
            config,
        };
        session.take_path(now);
        session.begin(now);
        session
    }

    /// Goes on with a new description. If the ICE credentials differ, this is an ICE restart. If
    /// the role or one of the certificates differs, a new handshake is due (RFC 8842 section 4);
    /// the keys before are used until it is finished. All else goes on.
    pub fn renew(&mut self, config: SecureConfig, now: Instant) {
        let before = std::mem::replace(&mut self.config, config);
        let is_same_path = before.path == self.config.path;
        if !is_same_path {
            match (&mut self.ice, &before.path, &self.config.path) {
                (
                    Some(ice),
                    SecurePath::Ice { local: former, remote: former_peer, .. },
                    SecurePath::Ice { local, remote, .. },
                ) => {
                    if (former, former_peer) != (local, remote) {
                        ice.restart(local, remote);
                        self.waiting = AwaitedStep::ForCheck(now);
                    }
                }
                _ => self.take_path(now),
            }
        }
        let SecureConfig { identity, role, fingerprints, .. } = &self.config;
        let is_same_identity = before.identity.fingerprint() == identity.fingerprint();
        let suits = |association: &Association| association.suits(*role, fingerprints);
        if !is_same_identity || !self.association.as_ref().is_some_and(suits) {
            self.association = None;
            self.failures = 0;
            // After an ICE restart the first check begins it.
            if !matches!(self.waiting, AwaitedStep::ForCheck(_)) {
                self.begin(now);
            }
        }
    }

    /// Takes a datagram of the leg's RTP port.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &'a mut [u8],
        gate: &mut HandshakeGate,
    ) -> SecureDatagram<'a> {
        // RFC 7983 section 7.
        match datagram.first() {
            Some(0..=3) => self.handle_stun(now, from, datagram),
            Some(20..=63) => self.handle_dtls(now, from, datagram, gate),
            Some(128..=191) => self.handle_media(now, from, datagram),
            _ => {
                self.stats.malformed += 1;
                SecureDatagram::Refused
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        let association = self.association.as_ref().and_then(Association::timeout);
        let patience = match self.waiting {
            AwaitedStep::ForCheck(since) | AwaitedStep::ForHello(since) => Some(since + PATIENCE),
            AwaitedStep::Nothing => None,
        };
        association.into_iter().chain(patience).min()
    }

    /// Sends a part of the handshake again, or reports what has not come.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(association) = &mut self.association
            && association.timeout().is_some_and(|at| at <= now)
        {
            let destination = self.ice.as_ref().and_then(|ice| ice.destination(now));
            association.peer = destination.unwrap_or(association.peer);
            let progress = association.handle_timeout(now, &mut self.outgoing);
            self.advance(now, progress);
        }
        match self.waiting {
            AwaitedStep::ForCheck(since) if now >= since + PATIENCE => {
                self.waiting = AwaitedStep::Nothing;
                if let SecurePath::Ice { candidates, .. } = &self.config.path {
                    let (at, wrong) = (candidates.clone(), self.stats.wrong_checks);
                    let failure = SecureFailure::NoCheck { at, wrong, conflicts: self.conflicts };
                    self.tell(SecureEvent::Failed(failure));
                }
            }
            AwaitedStep::ForHello(since) if now >= since + PATIENCE => {
                self.waiting = AwaitedStep::Nothing;
                let peer = self.destination(now);
                self.tell(SecureEvent::Failed(SecureFailure::NoClientHello { peer }));
            }
            AwaitedStep::ForCheck(_) | AwaitedStep::ForHello(_) | AwaitedStep::Nothing => {}
        }
    }

    /// Encrypts an RTP packet. Returns where it goes; `None` while there are no keys, or the peer's
    /// address is not known or has not been confirmed for 30 s.
    pub fn send_rtp(&mut self, now: Instant, packet: &[u8]) -> Option<(SocketAddr, &[u8])> {
        self.send(now, packet, SrtpSender::protect)
    }

    /// As [`send_rtp`](Self::send_rtp), for an RTCP compound packet.
    pub fn send_rtcp(&mut self, now: Instant, packet: &[u8]) -> Option<(SocketAddr, &[u8])> {
        self.send(now, packet, SrtpSender::protect_rtcp)
    }

    /// The next datagram to be sent that is not media.
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.outgoing.pop()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<SecureEvent> {
        self.events.pop_front()
    }

    /// Whether media can be sent and received.
    pub fn is_connected(&self) -> bool {
        self.media.is_some()
    }

    /// Where media go.
    pub fn destination(&self, now: Instant) -> Option<SocketAddr> {
        match (&self.ice, &self.config.path) {
            (Some(ice), _) => ice.destination(now),
            (None, SecurePath::Direct { peer, .. }) => {
                Some(self.media.as_ref().map_or(*peer, |media| media.peer))
            }
            (None, SecurePath::Ice { .. }) => None,
        }
    }

    /// Whether the peer has shown that it receives what goes to the [`destination`]: by ICE, or by
    /// a handshake or an authenticated packet from there. A description alone may name a victim.
    ///
    /// [`destination`]: Self::destination
    pub fn is_destination_proven(&self, now: Instant) -> bool {
        match (&self.ice, &self.media) {
            (Some(ice), _) => ice.destination(now).is_some(),
            (None, Some(media)) => media.peer == media.heard_from,
            (None, None) => false,
        }
    }

    /// What was refused so far.
    pub fn stats(&self) -> SecureStats {
        self.stats
    }

    /// Tells the peer that the session is over.
    pub fn close(&mut self, now: Instant) {
        if let Some(mut association) = self.association.take() {
            association.close(now, &mut self.outgoing);
        }
        self.waiting = AwaitedStep::Nothing;
    }

    /// Takes over the path of the configuration.
    fn take_path(&mut self, now: Instant) {
        match &self.config.path {
            SecurePath::Ice { local, remote, .. } => {
                self.ice = Some(IceLite::new(local, remote));
                self.waiting = AwaitedStep::ForCheck(now);
            }
            SecurePath::Direct { peer, .. } => {
                self.ice = None;
                if let Some(media) = &mut self.media {
                    media.peer = *peer;
                }
                if let Some(association) = self.association.as_mut()
                    && association.is_connected()
                {
                    association.peer = *peer;
                }
            }
        }
    }

    /// Begins a handshake as a client, or begins to wait for one, as soon as there is an address.
    fn begin(&mut self, now: Instant) {
        let Some(peer) = self.destination(now) else { return };
        match self.config.role {
            DtlsRole::Server => self.waiting = AwaitedStep::ForHello(now),
            DtlsRole::Client => {
                self.waiting = AwaitedStep::Nothing;
                self.associate(now, peer);
            }
        }
    }

    fn associate(&mut self, now: Instant, peer: SocketAddr) {
        let SecureConfig { identity, role, fingerprints, .. } = &self.config;
        let (role, is_proven) = (*role, self.ice.is_some());
        let beginning = Beginning { identity, role, peer, is_proven, fingerprints };
        match Association::new(beginning, now, &mut self.outgoing) {
            Ok(association) => self.association = Some(association),
            Err(failure) => self.tell(SecureEvent::Failed(failure)),
        }
    }

    fn handle_stun(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> SecureDatagram<'static> {
        let Some(ice) = &mut self.ice else {
            self.stats.malformed += 1;
            return SecureDatagram::Refused;
        };
        match ice.check(now, from, datagram) {
            CheckOutcome::Good { answer, is_new, is_selected } => {
                self.outgoing.push(from, answer);
                if is_new {
                    self.tell(SecureEvent::Checked(from));
                }
                if is_selected {
                    self.tell(SecureEvent::Selected(from));
                }
                if let AwaitedStep::ForCheck(_) = self.waiting {
                    self.waiting = AwaitedStep::Nothing;
                    if self.association.is_none() {
                        self.begin(now);
                    }
                }
                SecureDatagram::Consumed
            }
            CheckOutcome::Conflict(answer) => {
                self.conflicts += 1;
                self.outgoing.push(from, answer);
                SecureDatagram::Consumed
            }
            CheckOutcome::WrongCredentials => {
                self.stats.wrong_checks += 1;
                SecureDatagram::Refused
            }
            CheckOutcome::Foreign => {
                self.stats.malformed += 1;
                SecureDatagram::Refused
            }
        }
    }

    fn handle_dtls(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        gate: &mut HandshakeGate,
    ) -> SecureDatagram<'static> {
        if !self.is_peer(from, now) {
            self.stats.strangers += 1;
            return SecureDatagram::Refused;
        }
        let is_taken = match &mut self.association {
            // ICE has proven the address; answers go where media go, or back.
            Some(association) if self.ice.is_some() => {
                association.peer = from;
                true
            }
            Some(association) if association.peer == from => true,
            Some(association) => {
                let is_replaced = !association.is_connected()
                    && association.silence(now) >= HANDSHAKE_SILENCE
                    && self.config.role == DtlsRole::Server;
                is_replaced && self.accept(now, from, datagram, gate)
            }
            None => self.accept(now, from, datagram, gate),
        };
        let Some(association) = self.association.as_mut().filter(|_| is_taken) else {
            self.stats.malformed += 1;
            return SecureDatagram::Refused;
        };
        let progress = association.handle(now, datagram, &mut self.outgoing);
        self.advance(now, progress);
        SecureDatagram::Consumed
    }

    /// Begins a handshake as a server, if this datagram does. Returns whether it does.
    fn accept(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        gate: &mut HandshakeGate,
    ) -> bool {
        let may_begin = self.config.role == DtlsRole::Server
            && self.failures < MOST_HANDSHAKES
            && Association::is_client_hello(datagram)
            && gate.admit(from.ip(), now);
        if may_begin {
            self.waiting = AwaitedStep::Nothing;
            self.associate(now, from);
        }
        may_begin
    }

    fn handle_media<'a>(
        &mut self,
        now: Instant,
        from: SocketAddr,
        packet: &'a mut [u8],
    ) -> SecureDatagram<'a> {
        if !self.is_peer(from, now) {
            self.stats.strangers += 1;
            return SecureDatagram::Refused;
        }
        let Some(media) = &mut self.media else {
            self.stats.early += 1;
            return SecureDatagram::Refused;
        };
        // RFC 5761 section 4: RTP does not use the payload types 64 to 95.
        let is_rtcp = packet.get(1).is_some_and(|byte| matches!(byte & 0x7f, 64..=95));
        let unprotected = if is_rtcp {
            media.receiver.unprotect_rtcp(packet)
        } else {
            media.receiver.unprotect(packet)
        };
        match unprotected {
            Ok(packet) => {
                media.has_passed = true;
                media.follow(from, now);
                if is_rtcp { SecureDatagram::Rtcp(packet) } else { SecureDatagram::Rtp(packet) }
            }
            Err(error) => {
                self.refuse(error);
                SecureDatagram::Refused
            }
        }
    }

    /// Counts a packet that was refused.
    fn refuse(&mut self, error: SrtpError) {
        match error {
            SrtpError::Replayed | SrtpError::TooOld => self.stats.replayed += 1,
            SrtpError::Authentication => {
                self.stats.unauthenticated += 1;
                let Some(media) = self.media.as_mut().filter(|media| !media.has_passed) else {
                    return;
                };
                media.unauthenticated += 1;
                if media.unauthenticated == MOST_UNAUTHENTICATED {
                    let (packets, suite) = (media.unauthenticated, media.suite);
                    let failure = SecureFailure::Authentication { packets, suite };
                    self.tell(SecureEvent::Failed(failure));
                }
            }
            SrtpError::TooShort
            | SrtpError::Malformed
            | SrtpError::WrongMki
            | SrtpError::OutOfOrder
            | SrtpError::KeyExhausted => self.stats.malformed += 1,
        }
    }

    /// Whether datagrams of this source may be the peer's.
    fn is_peer(&self, from: SocketAddr, now: Instant) -> bool {
        match (&self.ice, &self.config.path) {
            (Some(ice), _) => ice.is_checked(from, now),
            (None, SecurePath::Direct { peer, host }) => {
                from == *peer
                    || host.is_some_and(|host| host.to_canonical() == from.ip().to_canonical())
            }
            (None, SecurePath::Ice { .. }) => false,
        }
    }

    fn advance(&mut self, now: Instant, progress: Progress) {
        match progress {
            Progress::Going => {}
            Progress::Connected(keys) => self.connect(now, keys),
            Progress::Closed => {
                self.association = None;
                self.tell(SecureEvent::Closed);
            }
            Progress::Failed(failure) => {
                let was_connected =
                    self.association.take().is_some_and(|association| association.is_connected());
                self.failures += 1;
                let is_end = was_connected && matches!(failure, SecureFailure::Alert(_));
                self.tell(if is_end { SecureEvent::Closed } else { SecureEvent::Failed(failure) });
            }
        }
    }

    fn connect(&mut self, now: Instant, keys: MediaKeys) {
        let Some(association) = &self.association else { return };
        let (peer, version) = (association.peer, association.version());
        let MediaKeys { suite, ours, theirs } = keys;
        match &mut self.media {
            // Packets with the former keys may still be on their way.
            Some(media) => {
                media.sender.replace_key(ours, None);
                media.receiver.replace_key(theirs, None);
                (media.suite, media.heard_at) = (suite, now);
                (media.peer, media.heard_from) = (peer, peer);
                (media.unauthenticated, media.has_passed) = (0, false);
            }
            None => {
                self.media = Some(SrtpMedia {
                    suite,
                    sender: SrtpSender::new(ours, None),
                    receiver: SrtpReceiver::new(theirs, None),
                    peer,
                    heard_from: peer,
                    heard_at: now,
                    unauthenticated: 0,
                    has_passed: false,
                    packet: Vec::with_capacity(PACKET_BYTES),
                });
            }
        }
        self.tell(SecureEvent::Connected { peer, suite, version });
    }

    fn send(
        &mut self,
        now: Instant,
        packet: &[u8],
        protect: fn(&mut SrtpSender, &mut Vec<u8>) -> Result<(), SrtpError>,
    ) -> Option<(SocketAddr, &[u8])> {
        let to = self.destination(now)?;
        let media = self.media.as_mut()?;
        media.packet.clear();
        media.packet.extend_from_slice(packet);
        protect(&mut media.sender, &mut media.packet).ok()?;
        Some((to, &media.packet))
    }

    fn tell(&mut self, event: SecureEvent) {
        if self.events.len() < MOST_EVENTS {
            self.events.push_back(event);
        }
    }
}

impl SrtpMedia {
    /// Notes an authenticated packet. If it comes from another port than those before, and these
    /// have ceased, the peer has moved.
    fn follow(&mut self, from: SocketAddr, now: Instant) {
        if from != self.peer {
            if now.saturating_duration_since(self.heard_at) < MOVE_SILENCE {
                return;
            }
            self.peer = from;
        }
        (self.heard_from, self.heard_at) = (from, now);
    }
}
