//! What a response needs in addition to the resource that it shows.

use super::identity::IdentityType;
use crate::model::{CallId, OperationId};

/// The version of the API that a request used (contract section 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// `/v1.0`, and paths without a version.
    V1,
    /// `/beta`.
    Beta,
}

impl Version {
    /// The version as a path segment.
    pub fn segment(self) -> &'static str {
        match self {
            Self::V1 => "v1.0",
            Self::Beta => "beta",
        }
    }
}

/// What a response needs in addition to the resource that it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GraphContext {
    /// The tenant's GUID.
    pub tenant: String,
    /// The API's address as clients see it, without a slash at its end.
    pub public_url: String,
    /// The version that the client uses.
    pub version: Version,
    /// The type that identity sets declare.
    pub identity_type: IdentityType,
}

impl GraphContext {
    /// The API's address with its version.
    pub fn base_url(&self) -> String {
        format!("{}/{}", self.public_url, self.version.segment())
    }

    /// The absolute URL of the calls.
    pub fn calls_url(&self) -> String {
        format!("{}/communications/calls", self.base_url())
    }

    /// The absolute URL of the participants of a call.
    pub fn participants_url(&self, call: CallId) -> String {
        format!("{}/{call}/participants", self.calls_url())
    }

    /// The absolute URL of the operations of a call.
    pub fn operations_url(&self, call: CallId) -> String {
        format!("{}/{call}/operations", self.calls_url())
    }

    /// The absolute URL of an operation, for `Location`.
    pub fn operation_url(&self, call: CallId, operation: OperationId) -> String {
        format!("{}/{operation}", self.operations_url(call))
    }

    /// The `@odata.context` for this `fragment`.
    pub fn metadata_url(&self, fragment: &str) -> String {
        format!("{}/$metadata#{fragment}", self.base_url())
    }
}

/// The URL of a recording, and the token that opens it.
#[derive(Clone, PartialEq, Eq)]
pub struct RecordingLink {
    /// `recordingLocation`: an absolute URL.
    pub location: String,
    /// `recordingAccessToken`: the bearer token for that URL, and no other.
    pub token: String,
}

impl std::fmt::Debug for RecordingLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The token opens the recording; it must not reach a log.
        f.debug_struct("RecordingLink").field("location", &self.location).finish_non_exhaustive()
    }
}
