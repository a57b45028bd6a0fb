//! How much may be sent to an unproven address (RFC 3261 §26.3.2.4).
//!
//! The source address of a datagram may be forged. An address is *unproven* until a message from it
//! shows our tag, which was sent there, or answers a request of ours. Until then we send it no more
//! than one and a half times the bytes that came from it. Comes in: the sizes of received messages.
//! Goes out: whether a message of ours fits.

/// Size of our session description and its header fields, in bytes.
const DESCRIPTION: usize = 400;

/// How many bytes may be sent to an unproven address that has sent `heard` bytes.
pub(in crate::proto::sip) fn allowed_for(heard: usize) -> usize {
    heard / 2 * 3
}

/// How many bytes may still be sent to one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proto::sip) enum Allowance {
    /// Any number: the address is proved.
    Unlimited,
    /// The address is unproven.
    Limited {
        /// How many bytes may still be sent.
        room: usize,
        /// The INVITE has come again. A phone repeats its INVITE only while it has received no
        /// response.
        is_repeated: bool,
    },
}

impl Allowance {
    /// The allowance of an unproven address that has sent a message of `heard` bytes.
    pub(crate) fn of(heard: usize) -> Self {
        Self::Limited { room: allowed_for(heard), is_repeated: false }
    }

    /// Another message of `heard` bytes has come.
    pub(crate) fn hear(&mut self, heard: usize) {
        if let Self::Limited { room, is_repeated } = self {
            *room = room.saturating_add(allowed_for(heard));
            *is_repeated = true;
        }
    }

    /// Takes the bytes of a request or a final response off the allowance; returns false, and takes
    /// nothing, when too few are left.
    pub(crate) fn take(&mut self, bytes: usize) -> bool {
        let Self::Limited { room, .. } = self else { return true };
        let left = room.checked_sub(bytes);
        *room = left.unwrap_or(*room);
        left.is_some()
    }

    /// Does the same for a provisional response. A caller that has received one does not repeat its
    /// INVITE any more, so the rest must suffice for the 200 and for one repetition of it. The
    /// first INVITE alone pays for a final response only.
    pub(crate) fn take_provisional(&mut self, bytes: usize) -> bool {
        let Self::Limited { room, is_repeated } = *self else { return true };
        let final_response = bytes + DESCRIPTION;
        is_repeated && room >= bytes + 2 * final_response && self.take(bytes)
    }

    /// Whether the address is unproven.
    pub(crate) fn is_limited(self) -> bool {
        self.room().is_some()
    }

    /// How many bytes may still be sent; `None` when there is no limit.
    pub(crate) fn room(self) -> Option<usize> {
        match self {
            Self::Limited { room, .. } => Some(room),
            Self::Unlimited => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_said_than_one_and_a_half_times_what_was_heard() {
        let mut allowance = Allowance::of(144);
        assert_eq!(allowance.room(), Some(216));
        assert!(!allowance.take(217) && allowance.take(216) && !allowance.take(1));
        allowance.hear(144);
        assert!(allowance.take(200) && !allowance.take(17));
    }

    #[test]
    fn a_proved_address_has_no_limit() {
        let mut allowance = Allowance::Unlimited;
        assert!(allowance.take(usize::MAX) && allowance.take_provisional(usize::MAX));
        allowance.hear(144);
        assert_eq!(allowance, Allowance::Unlimited);
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
