//! Diversions and referrer of an incoming call, as Graph shows them: `callRoutes` and
//! `incomingContext` (contract section 3.1).

use serde::Serialize;

use super::identity::{IdentitySet, IdentityType};
use crate::model::{Call, Direction, Party};

/// Graph's `callRoute`: a party that the call was meant for, and the party that got it instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CallRoute {
    #[serde(rename = "@odata.type")]
    odata_type: &'static str,
    routing_type: &'static str,
    original: IdentitySet,
    #[serde(rename = "final")]
    last: IdentitySet,
}

/// Graph's `incomingContext`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IncomingContext {
    #[serde(rename = "@odata.type")]
    odata_type: &'static str,
    source_participant_id: String,
    on_behalf_of: Option<IdentitySet>,
    transferor: Option<IdentitySet>,
}

impl CallRoute {
    /// The diversions of the call, the first one first.
    pub(super) fn all(declared: IdentityType, call: &Call) -> Vec<Self> {
        let diverted = &call.arrival.diverted;
        let called = call.arrival.called.iter();
        let called = called.map(|uri| Party { uri: uri.clone(), display_name: None });
        let next = diverted.iter().skip(1).cloned().chain(called);
        diverted
            .iter()
            .zip(next)
            .map(|(original, last)| Self {
                odata_type: "#microsoft.graph.callRoute",
                routing_type: "forwarded",
                original: IdentitySet::new(declared, original),
                last: IdentitySet::new(declared, &last),
            })
            .collect()
    }
}

impl IncomingContext {
    /// Who diverted or referred the call to us; `None` if it came directly.
    pub(super) fn of(declared: IdentityType, call: &Call) -> Option<Self> {
        let (diverted, referred_by) = (call.arrival.diverted.last(), &call.arrival.referred_by);
        let is_sent = diverted.is_some() || referred_by.is_some();
        (is_sent && call.direction == Direction::Incoming).then(|| Self {
            odata_type: "#microsoft.graph.incomingContext",
            source_participant_id: call.peer_participant_id.to_string(),
            on_behalf_of: diverted.map(|party| IdentitySet::new(declared, party)),
            transferor: referred_by.as_ref().map(|party| IdentitySet::new(declared, party)),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::tests::*, *};
    use crate::model::Arrival;

    const DOCUMENTS: IdentityType = IdentityType::IdentitySet;

    fn party(uri: &str) -> Party {
        Party { uri: uri.to_owned(), display_name: None }
    }

    #[test]
    fn a_call_that_was_diverted_twice_has_two_routes() {
        let arrival = Arrival {
            diverted: vec![party("tel:+4930100"), party("sip:bob@pbx.example")],
            ..call().arrival
        };
        let call = Call { arrival, ..call() };
        let identity = |name: &str, id: &str| {
            json!({"@odata.type": "#microsoft.graph.identitySet",
                name: {"@odata.type": "#microsoft.graph.identity", "id": id}})
        };
        let route = |original, last| {
            json!({"@odata.type": "#microsoft.graph.callRoute", "routingType": "forwarded",
                "original": original, "final": last})
        };
        let bob = || identity("user", "sip:bob@pbx.example");
        assert_eq!(
            json!(CallRoute::all(DOCUMENTS, &call)),
            json!([
                route(identity("phone", "+4930100"), bob()),
                route(bob(), identity("user", "sip:support@pbx.example")),
            ])
        );
        assert_eq!(
            json!(IncomingContext::of(DOCUMENTS, &call)),
            json!({"@odata.type": "#microsoft.graph.incomingContext",
                "sourceParticipantId": call.peer_participant_id.to_string(),
                "onBehalfOf": bob(), "transferor": null})
        );
    }

    #[test]
    fn who_referred_the_caller_is_the_transferor() {
        let arrival =
            Arrival { referred_by: Some(party("sip:carol@pbx.example")), ..call().arrival };
        let context = json!(IncomingContext::of(DOCUMENTS, &Call { arrival, ..call() }));
        assert_eq!(context["transferor"]["user"]["id"], "sip:carol@pbx.example");
        assert_eq!(context["onBehalfOf"], json!(null));
        assert_eq!(IncomingContext::of(DOCUMENTS, &call()), None);
        assert_eq!(CallRoute::all(DOCUMENTS, &call()), []);
    }
}
