//! What is told of a trunk that we register at.

use aftertone_core::proto::sip::registration::TrunkStatus;

/// How it stands with a trunk that we register at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkReport {
    /// Its name in the configuration.
    pub name: String,
    /// What the registration says.
    pub status: TrunkStatus,
    /// Why we do not find the way there; what was found before is still tried.
    pub no_way: Option<String>,
}
