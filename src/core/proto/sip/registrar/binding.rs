//! One contact of one user, and the bounds of all of them.

use std::time::{Duration, Instant};

use crate::proto::sip::{
    message::{NameAddr, Uri},
    path::{Path, Transport},
};

/// How long contacts are kept, and how many.
#[derive(Debug, Clone, Copy)]
pub struct RegistrarConfig {
    /// For phones that ask for no time.
    pub default_expires: Duration,
    /// Who asks for less gets 423.
    pub min_expires: Duration,
    /// Who asks for more gets this.
    pub max_expires: Duration,
    /// Contacts of one user: for one more, that which was updated longest ago gives way. A request that
    /// alone names more gets 403.
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
    /// How much the user prefers it, in thousandths, 0 to 1000 (RFC 3261 §20.10).
    pub q: u16,
    /// When it is gone.
    pub expires_at: Instant,
    /// When the phone said so last.
    pub updated_at: Instant,
    /// The proxies between, the next one first (RFC 3327).
    pub routes: Vec<NameAddr>,
    /// The phone, if it tells which one it is. Of several bindings of the same instance, only one is
    /// called at a time (RFC 5626 §7).
    pub outbound: Option<Outbound>,
    /// `+sip.instance` of any phone that tells it.
    pub(super) instance: Option<String>,
    /// The way the REGISTER came; behind a NAT the only one back. A phone that names where it
    /// listens is reached at its Contact.
    pub path: Path,
    /// What the phone calls itself, at most 128 characters.
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

impl Binding {
    /// A phone with this contact at the other end of `path`, as preferred as can be, until `expires_at`.
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
            user_agent: None,
            call_id: String::new(),
            cseq: 0,
        }
    }

    /// The way to where the phone says that it listens, when its stream is gone.
    pub(super) fn listener(&self) -> Option<Path> {
        self.path.to_listener(self.routes.first().map_or(&self.contact, NameAddr::uri))
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

    /// The value of a Contact header field in the answer.
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

/// A contact that is named without `q` (RFC 3261 §10.2.1.2), in thousandths.
pub(super) const MOST_PREFERRED: u16 = 1_000;
