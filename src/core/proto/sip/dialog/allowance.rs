//! How much may be sent to an unproven address (RFC 3261 §26.3.2.4).
//!
//! The source of a datagram may be forged. The address is *unproven* until a message from it
//! shows our tag, which was sent there, or answers a request of ours. Until then it is sent no
//! more than one and a half times the bytes that came from it. Comes in: bytes that came. Goes
//! out: whether a message fits.

use super::Dialog;
use crate::proto::sip::path::Path;

/// What a session description of ours takes, with the header fields that go with it, in bytes.
const DESCRIPTION: usize = 400;

/// How many bytes may be sent to an unproven address from which `heard` came.
pub(in crate::proto::sip) fn allowed_for(heard: usize) -> usize {
    heard / 2 * 3
}

/// How much may still be sent to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    room: usize,
    /// Its INVITE has come again: a phone that has heard something is silent.
    is_repeated: bool,
}

impl Allowance {
    /// For the address that a message of `heard` bytes has come from.
    pub fn of(heard: usize) -> Self {
        Self { room: allowed_for(heard), is_repeated: false }
    }

    /// Another message has come.
    pub fn hear(&mut self, heard: usize) {
        self.room = self.room.saturating_add(allowed_for(heard));
        self.is_repeated = true;
    }

    /// Takes the room of a message; false when there is not so much.
    pub fn take(&mut self, bytes: usize) -> bool {
        let left = self.room.checked_sub(bytes);
        self.room = left.unwrap_or(self.room);
        left.is_some()
    }

    /// The same for a provisional response. A caller that has heard one does not repeat its
    /// INVITE any more, so room must be left for the 200, and for another one if that is lost.
    /// The first INVITE is worth a final response only.
    pub fn take_provisional(&mut self, bytes: usize) -> bool {
        let final_response = bytes + DESCRIPTION;
        self.is_repeated && self.room >= bytes + 2 * final_response && self.take(bytes)
    }

    /// How many bytes there is room for.
    pub fn room(&self) -> usize {
        self.room
    }
}

/// Takes the room of a request or a final response, where there is a limit.
pub(super) fn take(allowance: &mut Option<Allowance>, bytes: usize) -> bool {
    allowance.as_mut().is_none_or(|allowance| allowance.take(bytes))
}

/// The same for a provisional response.
pub(super) fn take_provisional(allowance: &mut Option<Allowance>, bytes: usize) -> bool {
    allowance.as_mut().is_none_or(|allowance| allowance.take_provisional(bytes))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_said_than_one_and_a_half_times_what_was_heard() {
        let mut allowance = Allowance::of(144);
        assert_eq!(allowance.room(), 216);
        assert!(!allowance.take(217) && allowance.take(216) && !allowance.take(1));
        allowance.hear(144);
        assert!(allowance.take(200) && !allowance.take(17));
    }

    #[test]
    fn a_provisional_response_leaves_room_for_two_final_ones() {
        let mut allowance = Allowance::of(10_000);
        assert!(!allowance.take_provisional(300), "it may be answered at once");
        let mut allowance = Allowance::of(600);
        allowance.hear(600);
        assert!(allowance.take_provisional(300));
        assert!(allowance.take(700) && allowance.take(700));
        let mut allowance = Allowance::of(500);
        allowance.hear(500);
        assert!(!allowance.take_provisional(300));
        allowance.hear(500);
        assert!(allowance.take_provisional(300));
    }
}
