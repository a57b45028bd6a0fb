//! Whether the address of a dialog's peer is proved, and how much may still be sent there.

use super::{
    Dialog,
    allowance::{Allowance, take, take_provisional},
};
use crate::proto::sip::path::{Path, Transport};

impl Dialog {
    /// A message of `bytes` bytes that shows our tag came over `path`. Returns true for the first
    /// such message of a caller that is not known.
    ///
    /// Requests to a stranger go to `path` from now on: its proxy may have dropped out, or a NAT
    /// may have given it another address. An address that our tag was not sent to is unproven,
    /// because the caller can pass the tag on to others or forge the source of this message. A port
    /// that the stranger only names is unproven too, because other hosts may share its address.
    ///
    /// The tag of a call from the address of a registered phone was sent to that address, so the
    /// message shows that the INVITE came from there, whatever path the message took. Of phones that
    /// register through a proxy, the address is the proxy's.
    pub fn heard_from(&mut self, path: Path, bytes: usize) -> bool {
        if let Some(heading) = self.proved_heading.take() {
            self.heading = heading;
            self.told = None;
            self.allowance = None;
        } else if let Some(told) = self.told {
            let is_proved = path.transport.is_reliable() || path.leads_to(told);
            match &mut self.allowance {
                allowance if is_proved => *allowance = None,
                allowance if !path.leads_to(self.path.peer) => {
                    *allowance = Some(Allowance::of(bytes));
                }
                Some(allowance) => allowance.hear(bytes),
                None => {}
            }
            self.follow(path);
        } else if self.has_lost_stream() {
            // The peer has opened a new connection.
            self.follow(path);
        }
        std::mem::take(&mut self.is_half_open)
    }

    /// Whether `path` is neither where a stranger's newest message came from nor where our tag was
    /// sent. The source of such a message may be forged.
    pub fn is_elsewhere(&self, path: Path) -> bool {
        let is_here =
            path.leads_to(self.path.peer) || self.told.is_none_or(|told| path.leads_to(told));
        !path.transport.is_reliable() && !is_here
    }

    /// A message of `bytes` bytes came that does not show our tag, or that repeats an earlier one.
    pub fn heard_again(&mut self, path: Path, bytes: usize) {
        if let Some(allowance) = self.allowance.as_mut().filter(|_| path.peer == self.path.peer) {
            allowance.hear(bytes);
        }
    }

    /// A response to a request of ours came over `path`: the peer at that address and port receives
    /// our messages. It says nothing about the other ports of its host, which may be other peers
    /// behind the same NAT. A phone may respond from the port that it sends from.
    pub fn answered_from(&mut self, path: Path) {
        if path.peer == self.path.peer || path.peer == self.path.source() {
            self.allowance = None;
        }
        self.answered = Some(path.peer);
    }

    /// Whether a request of ours may be repeated on `way` until it is answered. A stranger may name
    /// any port of its host in its Contact. Until something answers from that port, a request to it
    /// is sent only once: the port may belong to another peer behind the same NAT.
    pub fn may_repeat(&self, way: Path) -> bool {
        let is_proved = self.path.transport == Transport::Udp && self.path.peer == way.peer;
        let is_heard = is_proved || self.answered == Some(way.peer);
        !self.is_limited() && (!self.is_of_stranger() || way.transport.is_reliable() || is_heard)
    }

    /// Whether the peer's address is unproven.
    pub fn is_limited(&self) -> bool {
        self.allowance.is_some()
    }

    /// How many bytes may still be sent to the peer; `None` when there is no limit.
    pub fn room(&self) -> Option<usize> {
        self.allowance.as_ref().map(Allowance::room)
    }

    /// Takes a request or a final response of `bytes` bytes off the allowance; returns whether it
    /// may be sent to the peer.
    pub fn take_room(&mut self, bytes: usize) -> bool {
        take(&mut self.allowance, bytes)
    }

    /// Does the same for a provisional response.
    pub fn take_provisional_room(&mut self, bytes: usize) -> bool {
        take_provisional(&mut self.allowance, bytes)
    }
}
