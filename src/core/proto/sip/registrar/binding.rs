//! One contact of one user, and the limits for all contacts.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::proto::sip::{
    message::{NameAddr, Uri},
    path::{Path, Transport},
};

/// How long contacts are kept, and how many.
#[derive(Debug, Clone, Copy)]
pub struct RegistrarConfig {
    /// For REGISTER requests that name no expiry.
    pub default_expires: Duration,
    /// A request for less gets 423.
    pub min_expires: Duration,
    /// A request for more gets this.
    pub max_expires: Duration,
    /// Most contacts of one user. One more replaces an old contact of the same phone, else the one
    /// that was updated longest ago. A request that alone names more gets 403.
    pub max_contacts: usize,
}

impl Default for RegistrarConfig {
    fn default() -> Self {
        Self {
            default_expires: Duration::from_secs(3_600),
            min_expires: Duration::from_secs(60),
            max_expires: Duration::from_secs(7_200),
            max_contacts: 10,
        }
    }
}

/// One contact of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    pub(super) id: BindingId,
    /// The Request-URI of requests to the phone.
    pub contact: Uri,
    /// Preference of the user in thousandths, 0 to 1000 (RFC 3261 §20.10).
    pub q: u16,
    /// When it expires.
    pub expires_at: Instant,
    /// When the phone last registered it.
    pub updated_at: Instant,
    /// The proxies between us and the phone, the next one first (RFC 3327).
    pub routes: Vec<NameAddr>,
    /// The phone and its flow, if the phone uses RFC 5626. Of several bindings with the same
    /// instance, only one is called at a time (RFC 5626 §7).
    pub outbound: Option<Outbound>,
    /// `+sip.instance` of any phone that names it.
    pub(super) instance: Option<String>,
    /// The path of the REGISTER; behind a NAT it is the only path back. A phone that names the port
    /// where it listens is reached at its Contact.
    pub path: Path,
    /// The path to try when nothing can be delivered over `path`.
    pub(super) other_path: Option<Path>,
    /// Where the phone's REGISTER came from; `None` once its stream is lost.
    pub(super) place: Option<PhoneSource>,
    /// The User-Agent header field, at most 128 characters.
    pub user_agent: Option<String>,
    pub(super) call_id: String,
    pub(super) cseq: u32,
}

/// One phone and one of its flows (RFC 5626 §4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// `+sip.instance` as it was written, with quotes.
    pub instance: String,
    /// `reg-id`, at least 1.
    pub reg_id: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BindingId(pub(super) u64);

/// Where the messages of a phone come from. The real source port counts, whatever port the phone
/// names, because there may be other hosts behind its address. The port that it names counts as
/// well: that is where it got the challenge that its REGISTER has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PhoneSource {
    transport: Transport,
    source: SocketAddr,
    answered: SocketAddr,
}

impl PhoneSource {
    /// The place from which a message came over `path`.
    pub(super) fn of(path: Path) -> Self {
        Self { transport: path.transport, source: path.source(), answered: path.peer }
    }
}

impl Binding {
    /// A binding for the phone at the other end of `path`, with the highest preference, until
    /// `expires_at`.
    pub fn new(contact: Uri, path: Path, expires_at: Instant) -> Self {
        Self {
            id: BindingId(0),
            contact,
            q: MOST_PREFERRED,
            expires_at,
            updated_at: expires_at,
            routes: Vec::new(),
            outbound: None,
            instance: None,
            path,
            other_path: None,
            place: None,
            user_agent: None,
            call_id: String::new(),
            cseq: 0,
        }
    }

    /// The paths of calls to the phone, the best one first.
    pub fn paths(&self) -> Vec<Path> {
        [Some(self.path), self.other_path].into_iter().flatten().collect()
    }

    /// The paths to the address where the phone says that it listens, for when its connection is
    /// lost.
    pub(super) fn listeners(&self) -> Vec<Path> {
        self.path.to_listeners(self.routes.first().map_or(&self.contact, NameAddr::uri))
    }

    pub(super) fn is_behind_nat(&self) -> bool {
        let Path { peer, transport, .. } = self.path;
        let is_at_peer = self
            .contact
            .host()
            .is_some_and(|host| host.trim_matches(['[', ']']).parse() == Ok(peer.ip()))
            && self.contact.port().unwrap_or(5060) == peer.port();
        transport == Transport::Udp && self.routes.is_empty() && !is_at_peer
    }

    /// The value of a Contact header field in the response.
    pub(super) fn contact_value(&self, now: Instant) -> String {
        let left = self.expires_at.saturating_duration_since(now);
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        let mut value = format!("<{}>;expires={seconds}", self.contact);
        if self.q < MOST_PREFERRED {
            value.push_str(&format!(";q=0.{:03}", self.q));
        }
        if let Some(Outbound { instance, reg_id }) = &self.outbound {
            value.push_str(&format!(";+sip.instance={instance};reg-id={reg_id}"));
        }
        value
    }
}

/// Preference of a contact without `q` (RFC 3261 §10.2.1.2), in thousandths.
pub(super) const MOST_PREFERRED: u16 = 1_000;
