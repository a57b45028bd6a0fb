//! Identities of calls, operations and recordings: GUIDs, printed in lower case with dashes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes an id of sixteen random bytes (a version 4 UUID).
            pub fn from_random(bytes: [u8; 16]) -> Self {
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            /// Reads a GUID in either case, with or without dashes (contract section 1).
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                Uuid::try_parse(text).map(Self).map_err(|_| NotAnId)
            }
        }
    };
}

id! {
    /// One call, from the first INVITE to its end.
    CallId
}
id! {
    /// One operation of a call.
    OperationId
}
id! {
    /// One recorded clip.
    RecordingId
}
id! {
    /// One side of a call.
    ParticipantId
}

impl ParticipantId {
    /// No participant, for calls that were stored by a version without an id for the other side.
    pub fn nobody() -> Self {
        Self(Uuid::nil())
    }
}

/// The text is not a GUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a GUID")]
pub struct NotAnId;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_compare_ignoring_case_and_dashes() {
        let dashed: CallId = "2e1a0b00-2db4-4022-9570-243709c565ab".parse().unwrap();
        let bare: CallId = "2E1A0B002DB440229570243709C565AB".parse().unwrap();
        assert_eq!(dashed, bare);
        assert_eq!(bare.to_string(), "2e1a0b00-2db4-4022-9570-243709c565ab");
        assert_eq!("microsoft.graph.answer".parse::<CallId>(), Err(NotAnId));
    }
}
