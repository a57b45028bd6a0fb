//! The rule by which a dialog chooses the next hop of its requests.

use std::net::{IpAddr, SocketAddr};

use crate::proto::sip::{
    path::{Path, Transport, is_private},
    uri::Uri,
};

/// How well the endpoint knows a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proto::sip) enum Caller {
    /// Not at all: the caller is neither a user, nor a trunk, nor trusted.
    Stranger,
    /// A phone has registered from the caller's address, but the caller itself has not
    /// authenticated. Over UDP this address may be forged.
    AtPhone,
    /// The caller is a user that has authenticated, a trunk, or a peer that the operator trusts. It
    /// may send us a REFER.
    Known,
}

impl Caller {
    /// Whether the caller is who it seems to be before any message shows our tag. Over a stream the
    /// source address is not forged.
    pub fn is_proved(self, transport: Transport) -> bool {
        match self {
            Self::Stranger => false,
            Self::AtPhone => transport.is_reliable(),
            Self::Known => true,
        }
    }
}

/// The rule by which the next hop of our requests is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heading {
    /// To the host that the newest message of an unproven caller came from, whatever host its
    /// Contact names.
    Source,
    /// Along the route set. Without a route set, to where the peer's messages come from, through
    /// any NAT.
    Path,
    /// Along the route set. Without a route set, to the Contact, if its host is an IP address.
    Contact,
}

impl Heading {
    /// The rule for a caller; `through_proxy` says whether its INVITE came through a proxy.
    pub fn of_called(caller: Caller, through_proxy: bool) -> Self {
        match caller {
            Caller::Stranger => Self::Source,
            Caller::AtPhone | Caller::Known if through_proxy => Self::Contact,
            Caller::AtPhone | Caller::Known => Self::Path,
        }
    }

    /// The rule for a peer with this remote target, which we called over `path`.
    pub fn of_calling(remote_target: &Uri, path: Path) -> Self {
        let port = remote_target.port().unwrap_or(path.transport.default_port());
        let is_neighbour = |ip: IpAddr| SocketAddr::new(ip, port) == path.peer;
        match remote_target.ip_addr() {
            // A phone behind a NAT names an address that cannot be reached from here.
            Some(ip) if is_private(ip) && !is_private(path.peer.ip()) => Self::Path,
            // The NAT's port differs from the one that the phone names.
            Some(ip) if ip == path.peer.ip() && !is_private(ip) => Self::Path,
            Some(ip) if !is_neighbour(ip) => Self::Contact,
            Some(_) | None => Self::Path,
        }
    }
}
