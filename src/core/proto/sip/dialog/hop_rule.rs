//! The rule by which a dialog chooses the next hop of its requests.

use std::net::{IpAddr, SocketAddr};

use crate::proto::sip::{
    path::{Path, is_private},
    standing::Standing,
    uri::Uri,
};

/// The rule by which the next hop of our requests is chosen. It depends on how far the peer's
/// address is proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HopRule {
    /// The peer is a stranger: requests go to the host that its newest message came from, whatever
    /// host its Contact names. Our tag was sent to `told`: a message that shows the tag and comes
    /// from there is not forged.
    Stranger { told: SocketAddr },
    /// The peer called from the address of a registered phone, which may be forged. It is treated
    /// as a stranger until a message shows our tag; from then on as `proved` says.
    Forgeable { told: SocketAddr, proved: DirectHop },
    /// The peer chooses the next hop, by Record-Route or else by this rule.
    Proved(DirectHop),
}

/// Where a request goes when there is no route set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DirectHop {
    /// To where the peer's messages come from, through any NAT.
    Path,
    /// To the Contact, if its host is an IP address.
    Contact,
}

impl HopRule {
    /// The rule for a caller whose INVITE took `path`; `through_proxy` says whether it came through
    /// a proxy.
    pub(super) fn of_caller(caller: Standing, path: Path, through_proxy: bool) -> Self {
        let proved = if through_proxy { DirectHop::Contact } else { DirectHop::Path };
        let told = path.peer;
        match caller {
            Standing::Stranger => Self::Stranger { told },
            _ if caller.is_proved(path.transport) => Self::Proved(proved),
            _ => Self::Forgeable { told, proved },
        }
    }

    /// The address that our tag was sent to, if the caller's address was unproven then.
    pub(super) fn told(self) -> Option<SocketAddr> {
        match self {
            Self::Stranger { told } | Self::Forgeable { told, .. } => Some(told),
            Self::Proved(_) => None,
        }
    }
}

impl DirectHop {
    /// The rule for a peer with this remote target, which we called over `path`.
    pub(super) fn of_callee(remote_target: &Uri, path: Path) -> Self {
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
