//! The state of a trunk that we register at, for the API.

use aftertone_core::proto::sip::registration::TrunkStatus;

/// The state of a trunk that we register at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkReport {
    /// Its name in the configuration.
    pub name: String,
    /// The state of the registration.
    pub status: TrunkStatus,
    /// Why the trunk's host cannot be located; the addresses that were found before are still
    /// tried.
    pub no_way: Option<String>,
}
