//! SIP parties as Graph identities (contract section 3.4).
//!
//! A telephone number is `identity.phone`, an application of this server is `identity.application`,
//! everything else is `identity.user` with the SIP URI as id. The configuration sets the type that
//! identity sets declare; the type decides which members an SDK reads into its models.

use serde::Serialize;

use crate::model::{Call, Direction, Party, Side};

/// The type that identity sets declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdentityType {
    /// `identitySet`, as Graph's documents print it; `phone` is then an additional member.
    #[default]
    IdentitySet,
    /// `communicationsIdentitySet`, which has `phone` and `applicationInstance`.
    CommunicationsIdentitySet,
}

impl IdentityType {
    fn odata_type(self) -> &'static str {
        match self {
            Self::IdentitySet => "#microsoft.graph.identitySet",
            Self::CommunicationsIdentitySet => "#microsoft.graph.communicationsIdentitySet",
        }
    }
}

/// Graph's `participantInfo` and `invitationParticipantInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ParticipantInfo {
    #[serde(rename = "@odata.type")]
    odata_type: &'static str,
    pub(super) identity: IdentitySet,
}

impl ParticipantInfo {
    /// The calling party.
    pub(super) fn source(declared: IdentityType, party: &Party) -> Self {
        let identity = IdentitySet::new(declared, party);
        Self { odata_type: "#microsoft.graph.participantInfo", identity }
    }

    /// The called party of a call.
    pub(super) fn target(declared: IdentityType, call: &Call) -> Self {
        Self {
            odata_type: "#microsoft.graph.invitationParticipantInfo",
            identity: IdentitySet::called(declared, call),
        }
    }

    /// The party that answered a call: the called party.
    pub(super) fn answering(declared: IdentityType, call: &Call) -> Self {
        let identity = IdentitySet::called(declared, call);
        Self { odata_type: "#microsoft.graph.participantInfo", identity }
    }

    /// One side of a call, as a participant.
    pub(super) fn side(declared: IdentityType, call: &Call, side: Side) -> Self {
        let is_called = (side == Side::Ours) == (call.direction == Direction::Incoming);
        let identity = if is_called {
            IdentitySet::called(declared, call)
        } else {
            IdentitySet::new(declared, &call.source)
        };
        Self { odata_type: "#microsoft.graph.participantInfo", identity }
    }
}

/// One party. `identitySet` is an open type, so it may contain further members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IdentitySet {
    #[serde(rename = "@odata.type")]
    odata_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    application: Option<Identity>,
    /// The number or address at which the application was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    application_instance: Option<Identity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Identity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phone: Option<Identity>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    #[serde(rename = "@odata.type")]
    odata_type: &'static str,
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    display_name: Option<String>,
}

impl IdentitySet {
    pub(super) fn new(declared: IdentityType, party: &Party) -> Self {
        let identity = |id: &str| Some(Identity::new(id, party.display_name.clone()));
        let empty = Self {
            odata_type: declared.odata_type(),
            application: None,
            application_instance: None,
            user: None,
            phone: None,
        };
        match (party.application_id(), telephone_number(&party.uri)) {
            (Some(id), _) => Self { application: identity(id), ..empty },
            (None, Some(number)) => Self { phone: identity(number), ..empty },
            (None, None) => Self { user: identity(&party.uri), ..empty },
        }
    }

    /// The called party; for an application, also the address at which it was called.
    fn called(declared: IdentityType, call: &Call) -> Self {
        let set = Self::new(declared, &call.target);
        let called = call.arrival.called.as_deref().filter(|_| set.application.is_some());
        let instance = called.map(|uri| Identity::new(telephone_number(uri).unwrap_or(uri), None));
        Self { application_instance: instance, ..set }
    }
}

impl Identity {
    fn new(id: &str, display_name: Option<String>) -> Self {
        Self { odata_type: "#microsoft.graph.identity", id: id.to_owned(), display_name }
    }
}

/// The number of a `tel:` URI, or the user part of a SIP URI when it is an E.164 number.
fn telephone_number(uri: &str) -> Option<&str> {
    let (scheme, rest) = uri.split_once(':')?;
    if scheme.eq_ignore_ascii_case("tel") {
        return Some(rest);
    }
    if !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
        return None;
    }
    let (user, _host) = rest.rsplit_once('@')?;
    is_e164(user).then_some(user)
}

/// `+` and at most fifteen digits (E.164 section 6.2.1).
fn is_e164(text: &str) -> bool {
    text.strip_prefix('+').is_some_and(|digits| {
        (1..=15).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DOCUMENTS: IdentityType = IdentityType::IdentitySet;

    #[test]
    fn the_declared_type_is_all_that_the_setting_changes() {
        let declared = IdentityType::CommunicationsIdentitySet;
        for uri in ["tel:+4930123456", "sip:7000@pbx.example"] {
            let party = Party { uri: uri.to_owned(), display_name: None };
            let mut set = serde_json::to_value(IdentitySet::new(declared, &party)).unwrap();
            assert_eq!(set["@odata.type"], "#microsoft.graph.communicationsIdentitySet");
            set["@odata.type"] = json!("#microsoft.graph.identitySet");
            assert_eq!(set, json!(IdentitySet::new(DOCUMENTS, &party)));
        }
    }

    #[test]
    fn numbers_are_phones_and_the_rest_are_users() {
        let table = [
            ("sip:+4930123456@trunk.example", "phone", "+4930123456"),
            ("SIPS:+1@trunk.example", "phone", "+1"),
            ("tel:+4930123456", "phone", "+4930123456"),
            ("tel:7000", "phone", "7000"),
            ("sip:7000@pbx.example", "user", "sip:7000@pbx.example"),
            ("sip:+49ab@pbx.example", "user", "sip:+49ab@pbx.example"),
            ("sip:+1234567890123456@pbx.example", "user", "sip:+1234567890123456@pbx.example"),
            ("sip:pbx.example", "user", "sip:pbx.example"),
            ("", "user", ""),
        ];
        for (uri, member, id) in table {
            let party = Party { uri: uri.to_owned(), display_name: None };
            let set = serde_json::to_value(IdentitySet::new(DOCUMENTS, &party)).unwrap();
            assert_eq!(set[member], json!({"@odata.type": "#microsoft.graph.identity", "id": id}));
            assert_eq!(set.as_object().unwrap().len(), 2, "{set}");
        }
    }

    #[test]
    fn a_name_is_shown_when_there_is_one() {
        let party = Party { uri: "sip:a@b".to_owned(), display_name: Some("Alice".to_owned()) };
        let info = serde_json::to_value(ParticipantInfo::source(DOCUMENTS, &party)).unwrap();
        assert_eq!(info["identity"]["user"]["displayName"], "Alice");
    }
}
