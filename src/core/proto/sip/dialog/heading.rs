//! The rule by which a dialog chooses the next hop of its requests.

use std::net::{IpAddr, SocketAddr};

use crate::proto::sip::{
    path::{Path, is_private},
    standing::Standing,
    uri::Uri,
};

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
    pub fn of_called(caller: Standing, through_proxy: bool) -> Self {
        match caller {
            Standing::Stranger => Self::Source,
            _ if through_proxy => Self::Contact,
            _ => Self::Path,
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
