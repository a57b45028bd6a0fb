//! How much may be sent to an unproven address (RFC 3261 §26.3.2.4).
//!
//! The source of a datagram may be forged. The address is *unproven* until a message from it
//! shows our tag, which was sent there, or answers a request of ours. Until then it is sent no
//! more than one and a half times the bytes that came from it. Comes in: bytes that came. Goes
//! out: whether a message fits.

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
