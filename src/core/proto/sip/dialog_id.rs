//! The identifier of a dialog within this process.

/// One dialog of this endpoint; a number is never used twice. The caller of
/// [`Command::Call`](super::endpoint::Command::Call) numbers the dialogs that we begin, from
/// [`FIRST_OUTGOING`](Self::FIRST_OUTGOING) on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialogId(pub u64);

impl DialogId {
    /// The first number of a dialog that we begin.
    pub const FIRST_OUTGOING: u64 = 1 << 63;
}
