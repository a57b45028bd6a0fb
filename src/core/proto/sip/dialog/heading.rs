//! Which of the known ways the requests of a dialog take.

use std::net::{IpAddr, SocketAddr};

use crate::proto::sip::{
    path::{Path, is_private},
    uri::Uri,
};

/// How well the endpoint knows a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proto::sip) enum Caller {
    /// Not at all.
    Stranger,
    /// A phone has registered from its address; who calls has not proved who it is.
    AtPhone,
    /// It is a user that has proved so, a trunk, or a peer that the operator trusts. It may refer
    /// us to somebody else.
    Known,
}

/// Which of the ways that are known requests take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heading {
    /// Back to where the stranger's newest message came from, whatever host it names.
    Source,
    /// Along the route set; without one, back the way that the peer's messages come, through any
    /// NAT.
    Path,
    /// Along the route set; without one, to the address that the peer's Contact names, if it is an
    /// address.
    Contact,
}

impl Heading {
    /// For a caller whose INVITE came `through_proxy` or not.
    pub fn of_called(caller: Caller, through_proxy: bool) -> Self {
        match caller {
            Caller::Stranger => Self::Source,
            Caller::AtPhone | Caller::Known if through_proxy => Self::Contact,
            Caller::AtPhone | Caller::Known => Self::Path,
        }
    }

    /// For a peer at `remote_target` that we have called by `path`.
    pub fn of_calling(remote_target: &Uri, path: Path) -> Self {
        let port = remote_target.port().unwrap_or(path.transport.default_port());
        let is_neighbour = |ip: IpAddr| SocketAddr::new(ip, port) == path.peer;
        match remote_target.ip_addr() {
            // A phone behind a NAT names an address that leads nowhere from here.
            Some(ip) if is_private(ip) && !is_private(path.peer.ip()) => Self::Path,
            // A NAT shows its own port, and the phone names another one.
            Some(ip) if ip == path.peer.ip() && !is_private(ip) => Self::Path,
            Some(ip) if !is_neighbour(ip) => Self::Contact,
            Some(_) | None => Self::Path,
        }
    }
}
