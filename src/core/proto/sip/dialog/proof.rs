//! What a dialog knows of its peer's address: whether it is proved, and what may still be sent there.

use super::{
    Dialog,
    allowance::{Allowance, take, take_provisional},
};
use crate::proto::sip::path::Path;

impl Dialog {
    /// A message of so many bytes that shows our tag came over `path`; whether it is the first
    /// one. Requests to a stranger go there from now on: its proxy may have stepped out, or a NAT
    /// may have given it another address. An address that our tag was not sent to is unproven,
    /// for a caller can tell the tag to others, or forge the source of this message; and so is a
    /// port that it only names, for others may be behind its address.
    pub fn heard_from(&mut self, path: Path, bytes: usize) -> bool {
        if let Some(told) = self.told {
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
            // It has connected anew.
            self.follow(path);
        }
        std::mem::take(&mut self.is_half_open)
    }

    /// Whether `path` is neither where the newest message of a stranger came from, nor where our
    /// tag was sent: it may be forged.
    pub fn is_elsewhere(&self, path: Path) -> bool {
        let is_here =
            path.leads_to(self.path.peer) || self.told.is_none_or(|told| path.leads_to(told));
        !path.transport.is_reliable() && !is_here
    }

    /// A request of so many bytes that does not show our tag came, or one that came before.
    pub fn heard_again(&mut self, path: Path, bytes: usize) {
        if let Some(allowance) = self.allowance.as_mut().filter(|_| path.peer == self.path.peer) {
            allowance.hear(bytes);
        }
    }

    /// A response to a request of ours came over `path`: the peer there hears us.
    pub fn answered_from(&mut self, path: Path) {
        if path.peer.ip() == self.path.peer.ip() {
            self.allowance = None;
        }
    }

    /// Whether the peer's address is unproven.
    pub fn is_limited(&self) -> bool {
        self.allowance.is_some()
    }

    /// How many bytes may still be sent to the peer; `None` when there is no limit.
    pub fn room(&self) -> Option<usize> {
        self.allowance.as_ref().map(Allowance::room)
    }

    /// Whether a request or a final response of so many bytes may be sent to the peer; then its
    /// room is taken.
    pub fn take_room(&mut self, bytes: usize) -> bool {
        take(&mut self.allowance, bytes)
    }

    /// The same for a provisional response.
    pub fn take_provisional_room(&mut self, bytes: usize) -> bool {
        take_provisional(&mut self.allowance, bytes)
    }
}
