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
pub(super) struct Allowance {
    room: usize,
    /// The INVITE has come again. A phone repeats its INVITE only while it has received no
    /// response.
    is_repeated: bool,
}

impl Allowance {
    /// The allowance of an address that has sent a message of `heard` bytes.
    pub fn of(heard: usize) -> Self {
        Self { room: allowed_for(heard), is_repeated: false }
    }

    /// Another message of `heard` bytes has come.
    pub fn hear(&mut self, heard: usize) {
        self.room = self.room.saturating_add(allowed_for(heard));
        self.is_repeated = true;
    }

    /// Takes `bytes` off the allowance; returns false, and takes nothing, when too few are left.
    pub fn take(&mut self, bytes: usize) -> bool {
        let left = self.room.checked_sub(bytes);
        self.room = left.unwrap_or(self.room);
        left.is_some()
    }

    /// Does the same for a provisional response. A caller that has received one does not repeat its
    /// INVITE any more, so the rest must suffice for the 200 and for one repetition of it. The
    /// first INVITE alone pays for a final response only.
    pub fn take_provisional(&mut self, bytes: usize) -> bool {
        let final_response = bytes + DESCRIPTION;
        self.is_repeated && self.room >= bytes + 2 * final_response && self.take(bytes)
    }

    /// How many bytes may still be sent.
    pub fn room(&self) -> usize {
        self.room
    }
}

/// Takes the bytes of a request or a final response off the allowance, where there is one.
pub(super) fn take(allowance: &mut Option<Allowance>, bytes: usize) -> bool {
    allowance.as_mut().is_none_or(|allowance| allowance.take(bytes))
}

/// Does the same for a provisional response.
pub(super) fn take_provisional(allowance: &mut Option<Allowance>, bytes: usize) -> bool {
    allowance.as_mut().is_none_or(|allowance| allowance.take_provisional(bytes))
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
