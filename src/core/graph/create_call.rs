//! Bodies that name a party to call: POST `/communications/calls`, `transfer` and `redirect`
//! (contract sections 2.2 and 2.4).

use serde_json::Value;

use super::{
    limits::{POLICIES, REDIRECT_SECONDS, REDIRECT_TARGETS, RINGING_SECONDS, TEXT_CHARS},
    members::{InvalidBody, Object, quoted, text_at},
    request::{call_options, callback_uri, modalities, service_hosted},
};
use crate::{
    model::{CallId, Party, PromptSource},
    proto::sip::uri::Uri,
};

const DISPOSITIONS: [&str; 3] = ["default", "simultaneousRing", "forward"];
/// The members of an identity set that may contain the party to call (interface section 6.8).
const IDENTITIES: [&str; 3] = ["phone", "user", "onPremises"];

/// A call that is to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateCallBody {
    /// The party to call; the URI is SIP, SIPS or tel.
    pub target: Party,
    /// The display name of the caller.
    pub source_name: Option<String>,
    /// The id of the application that the client says it is.
    pub source_application: Option<String>,
    /// The tenant that the client says it belongs to.
    pub tenant_id: Option<String>,
    /// Where the call's notifications go.
    pub callback_uri: String,
    /// The media configuration as it was given; JSON text.
    pub media_config: String,
    /// Prompts to fetch now because they will be played.
    pub prefetch: Vec<PromptSource>,
    /// The subject of the call.
    pub subject: Option<String>,
    /// The client's correlation id.
    pub call_chain_id: Option<String>,
    /// How long it may ring, from 1 to 115 seconds.
    pub ringing_timeout_seconds: Option<u32>,
}

impl CreateCallBody {
    /// Reads the body.
    ///
    /// # Errors
    /// A member is missing or wrong; the error names it. Meetings, and more than one target, are
    /// refused: a SIP call cannot have them.
    pub fn read(body: &Value) -> Result<Self, InvalidBody> {
        let body = Object::body(body)?;
        for name in ["meetingInfo", "chatInfo"] {
            if body.object(name)?.is_some() {
                return Err(InvalidBody::NotAllowed {
                    path: body.path_of(name),
                    expected: "absent: this server has no meetings to join".to_owned(),
                    found: "an object".to_owned(),
                });
            }
        }
        let callback_uri = callback_uri(&body)?.ok_or_else(|| InvalidBody::Missing {
            path: body.path_of("callbackUri"),
            expected: "an http or https URI".to_owned(),
        })?;
        direction(&body)?;
        call_options(&body)?;
        modalities(&body, "requestedModalities")?;
        let policies = body.list("routingPolicies", POLICIES)?.unwrap_or_default();
        for (path, policy) in policies {
            text_at(&path, policy, "a routing policy such as noMissedCall")?;
        }
        let config = body.object("mediaConfig")?.ok_or_else(|| InvalidBody::Missing {
            path: body.path_of("mediaConfig"),
            expected: "a serviceHostedMediaConfig".to_owned(),
        })?;
        let prefetch = service_hosted(&config)?;
        let media_config = body.member("mediaConfig").map(Value::to_string).unwrap_or_default();
        let text = |name| Ok(body.text(name, TEXT_CHARS)?.map(str::to_owned));
        Ok(Self {
            target: target(&body)?,
            source_name: source_name(&body)?,
            source_application: source_application(&body)?,
            tenant_id: text("tenantId")?,
            callback_uri,
            media_config,
            prefetch,
            subject: text("subject")?,
            call_chain_id: chain_id(&body)?,
            ringing_timeout_seconds: body
                .whole_number("ringingTimeoutInSeconds", RINGING_SECONDS)?,
        })
    }
}

/// The body of `transfer` (contract section 2.4): the transfer target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferBody {
    /// A party that is to be called.
    Party(Party),
    /// The peer of this other call of the application. The transferred party takes the
    /// application's place in that call.
    PeerOf(CallId),
}

impl TransferBody {
    /// Reads the body.
    ///
    /// # Errors
    /// A member is missing or wrong; the error names it. `replacesCallId` must not name `call`, the
    /// call that is to be transferred.
    pub fn read(call: CallId, body: &Value) -> Result<Self, InvalidBody> {
        let body = Object::body(body)?;
        body.object("transferee")?.map(|transferee| transferee.object("identity")).transpose()?;
        let target = body.object("transferTarget")?.ok_or_else(|| InvalidBody::Missing {
            path: body.path_of("transferTarget"),
            expected: "an invitationParticipantInfo".to_owned(),
        })?;
        let Some(id) = target.text("replacesCallId", TEXT_CHARS)?.filter(|id| !id.is_empty())
        else {
            return Ok(Self::Party(party(&target)?));
        };
        // The other call determines the party; an identity is only checked.
        if target.member("identity").is_some() {
            party(&target)?;
        }
        let other = id.parse().ok().filter(|other| *other != call);
        other.map(Self::PeerOf).ok_or_else(|| InvalidBody::NotAllowed {
            path: target.path_of("replacesCallId"),
            expected: "the id of another call".to_owned(),
            found: quoted(id),
        })
    }
}

/// The body of `redirect` (contract section 2.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedirectBody {
    /// The redirect targets; each URI is SIP, SIPS or tel.
    pub targets: Vec<Party>,
    /// Whether caller or callee is to be hidden from the other.
    pub is_masked: bool,
    /// Where the last notification goes.
    pub callback_uri: Option<String>,
}

impl RedirectBody {
    /// Reads the body.
    ///
    /// # Errors
    /// A member is missing or wrong; the error names it.
    pub fn read(body: &Value) -> Result<Self, InvalidBody> {
        let body = Object::body(body)?;
        let targets = body.list("targets", REDIRECT_TARGETS)?.unwrap_or_default();
        if targets.is_empty() {
            return Err(InvalidBody::Missing {
                path: body.path_of("targets"),
                expected: format!("an array of 1 to {REDIRECT_TARGETS} invitationParticipantInfos"),
            });
        }
        let targets = targets
            .into_iter()
            .map(|(path, value)| party(&Object::at(path, value)?))
            .collect::<Result<_, _>>()?;
        // The timeout is only checked: the caller calls the targets itself and decides how long
        // they ring.
        body.whole_number("timeout", REDIRECT_SECONDS)?;
        let known = |name: &str| DISPOSITIONS.iter().any(|known| known.eq_ignore_ascii_case(name));
        let disposition = body.text("targetDisposition", TEXT_CHARS)?;
        if let Some(name) = disposition.filter(|name| !known(name)) {
            return Err(InvalidBody::NotAllowed {
                path: body.path_of("targetDisposition"),
                expected: DISPOSITIONS.join(", "),
                found: quoted(name),
            });
        }
        let is_masked =
            body.flag("maskCallee")?.unwrap_or(false) | body.flag("maskCaller")?.unwrap_or(false);
        Ok(Self { targets, is_masked, callback_uri: callback_uri(&body)? })
    }
}

/// Checks `direction`: only outgoing calls can be placed.
fn direction(body: &Object<'_>) -> Result<(), InvalidBody> {
    match body.text("direction", TEXT_CHARS)? {
        Some(other) if !other.eq_ignore_ascii_case("outgoing") => Err(InvalidBody::NotAllowed {
            path: body.path_of("direction"),
            expected: "outgoing".to_owned(),
            found: quoted(other),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Reads `callChainId`, which goes into header fields of notifications.
fn chain_id(body: &Object<'_>) -> Result<Option<String>, InvalidBody> {
    let id = body.text("callChainId", TEXT_CHARS)?.filter(|id| !id.is_empty());
    match id {
        Some(id) if !id.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(InvalidBody::NotAllowed {
                path: body.path_of("callChainId"),
                expected: "a GUID, or other visible ASCII characters".to_owned(),
                found: quoted(id),
            })
        }
        id => Ok(id.map(str::to_owned)),
    }
}

/// The one called party.
fn target(body: &Object<'_>) -> Result<Party, InvalidBody> {
    let path = body.path_of("targets");
    let missing = || InvalidBody::Missing {
        path: path.clone(),
        expected: "an array of one invitationParticipantInfo".to_owned(),
    };
    let mut targets = body.list("targets", 1)?.ok_or_else(missing)?;
    let (path, value) = targets.pop().ok_or_else(missing)?;
    party(&Object::at(path, value)?)
}

/// The party that an invitationParticipantInfo names.
fn party(target: &Object<'_>) -> Result<Party, InvalidBody> {
    // These have no meaning for a SIP call, but a wrong type is an error even so.
    for name in ["hidden", "removeFromDefaultAudioRoutingGroup"] {
        target.flag(name)?;
    }
    for name in ["participantId", "endpointType"] {
        target.text(name, TEXT_CHARS)?;
    }
    let identity = target.object("identity")?.ok_or_else(|| InvalidBody::Missing {
        path: target.path_of("identity"),
        expected: "an identity set with phone or user".to_owned(),
    })?;
    for name in IDENTITIES {
        let Some(party) = identity.object(name)? else { continue };
        let Some(id) = party.text("id", TEXT_CHARS)? else { continue };
        let display_name = party.text("displayName", TEXT_CHARS)?.map(str::to_owned);
        let uri = address(id, name == "phone").ok_or_else(|| InvalidBody::NotAllowed {
            path: party.path_of("id"),
            expected: "a telephone number, or a sip:, sips: or tel: URI".to_owned(),
            found: quoted(id),
        })?;
        return Ok(Party { uri, display_name });
    }
    Err(InvalidBody::Missing {
        path: identity.path_of("phone"),
        expected: "the party to call, here or in user: a number or a SIP URI as id".to_owned(),
    })
}

fn source_name(body: &Object<'_>) -> Result<Option<String>, InvalidBody> {
    let Some(source) = body.object("source")? else { return Ok(None) };
    let Some(identity) = source.object("identity")? else { return Ok(None) };
    for name in ["application", "applicationInstance", "user", "phone"] {
        let Some(party) = identity.object(name)? else { continue };
        if let Some(name) = party.text("displayName", TEXT_CHARS)? {
            return Ok(Some(name.to_owned()));
        }
    }
    Ok(None)
}

fn source_application(body: &Object<'_>) -> Result<Option<String>, InvalidBody> {
    let Some(source) = body.object("source")? else { return Ok(None) };
    let Some(identity) = source.object("identity")? else { return Ok(None) };
    let Some(application) = identity.object("application")? else { return Ok(None) };
    Ok(application.text("id", TEXT_CHARS)?.map(str::to_owned))
}

/// The URI that an identity's id stands for.
fn address(id: &str, is_phone: bool) -> Option<String> {
    let uri = match id.contains(':') {
        true => id.to_owned(),
        false if is_phone && is_dialable(id) => format!("tel:{id}"),
        false => return None,
    };
    let read: Uri = uri.parse().ok()?;
    matches!(read.scheme(), "sip" | "sips" | "tel").then_some(uri)
}

/// Whether `number` has only digits and other keys of a telephone, with the usual separators.
fn is_dialable(number: &str) -> bool {
    let digits = number.strip_prefix('+').unwrap_or(number);
    digits.chars().any(|c| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || "*#-.()".contains(c))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(identity: Value) -> Value {
        json!({
            "@odata.type": "#microsoft.graph.call",
            "callbackUri": "https://bot.example/api/calls",
            "targets": [{
                "@odata.type": "#microsoft.graph.invitationParticipantInfo",
                "identity": identity
            }],
            "requestedModalities": ["audio"],
            "mediaConfig": {"@odata.type": "#microsoft.graph.serviceHostedMediaConfig"}
        })
    }

    fn uri(identity: Value) -> Result<String, InvalidBody> {
        CreateCallBody::read(&body(identity)).map(|body| body.target.uri)
    }

    #[test]
    fn a_set_of_identities_may_declare_either_type_or_none() {
        for name in ["identitySet", "communicationsIdentitySet"] {
            for odata_type in
                [format!("#microsoft.graph.{name}"), format!("microsoft.graph.{name}")]
            {
                let identity = json!({"@odata.type": odata_type, "phone": {"id": "+4930"}});
                assert_eq!(uri(identity).as_deref(), Ok("tel:+4930"), "{odata_type}");
            }
        }
        assert_eq!(uri(json!({"phone": {"id": "+4930"}})).as_deref(), Ok("tel:+4930"));
    }

    #[test]
    fn whom_to_call_may_stand_in_any_identity() {
        for (identity, expected) in [
            (json!({"phone": {"id": "+15550123"}}), "tel:+15550123"),
            (json!({"phone": {"id": "100"}}), "tel:100"),
            (json!({"phone": {"id": "*21#"}}), "tel:*21#"),
            (json!({"user": {"id": "SIP:a@b.example"}}), "SIP:a@b.example"),
            (json!({"phone": {"id": "sip:a@b.example"}}), "sip:a@b.example"),
            (json!({"user": {"id": "sips:a@b.example"}}), "sips:a@b.example"),
            (json!({"user": null, "onPremises": {"id": "tel:+1-555"}}), "tel:+1-555"),
        ] {
            assert_eq!(uri(identity.clone()).as_deref(), Ok(expected), "{identity}");
        }
    }

    #[test]
    fn what_cannot_be_called_is_named() {
        for identity in [
            json!({}),
            json!({"user": {"id": "112f7296-5fa4-42ca-bae8-6a692b15d4b8"}}),
            json!({"phone": {"id": "http://x"}}),
            json!({"phone": {"id": ""}}),
            json!({"phone": {"id": "call me"}}),
            json!({"phone": {"id": "sip:"}}),
            json!({"phone": {"id": "sip:a b@c.example"}}),
            json!({"phone": {"id": "sip:a@b@c.example"}}),
            json!({"user": {"id": "sip:a@[::1"}}),
            json!({"user": {"id": "sip:a@b.example:99999"}}),
            json!({"user": {"id": "tel:"}}),
            json!({"phone": {"id": 5}}),
        ] {
            assert!(uri(identity.clone()).is_err(), "{identity}");
        }
        let mut two = body(json!({"phone": {"id": "1"}}));
        let target = two["targets"][0].clone();
        two["targets"].as_array_mut().unwrap().push(target);
        assert!(CreateCallBody::read(&two).is_err());
    }

    #[test]
    fn a_meeting_or_a_missing_callback_is_refused() {
        let mut meeting = body(json!({"phone": {"id": "1"}}));
        meeting["meetingInfo"] = json!({"@odata.type": "#microsoft.graph.tokenMeetingInfo"});
        let error = CreateCallBody::read(&meeting).unwrap_err().to_string();
        assert!(error.contains("meetingInfo"), "{error}");
        let mut silent = body(json!({"phone": {"id": "1"}}));
        silent["callbackUri"] = Value::Null;
        let error = CreateCallBody::read(&silent).unwrap_err().to_string();
        assert!(error.contains("callbackUri"), "{error}");
    }

    /// Members without a meaning for a SIP call are ignored only if their type and value are right.
    #[test]
    fn known_members_have_their_types() {
        let create = |name: &str, value: Value| {
            let mut body = body(json!({"phone": {"id": "1"}}));
            body[name] = value;
            CreateCallBody::read(&body).map(|_| ())
        };
        let target = |name: &str, value: Value| {
            let mut body = body(json!({"phone": {"id": "1"}}));
            body["targets"][0][name] = value;
            CreateCallBody::read(&body).map(|_| ())
        };
        let redirect = |name: &str, value: Value| {
            let mut body = json!({"targets": [{"identity": {"phone": {"id": "1"}}}]});
            body[name] = value;
            RedirectBody::read(&body).map(|_| ())
        };
        let transfer = |name: &str, value: Value| {
            let mut body = json!({"transferTarget": {"identity": {"phone": {"id": "1"}}}});
            body[name] = value;
            let call = "2e1a0b00-2db4-4022-9570-243709c565ab".parse().unwrap();
            TransferBody::read(call, &body).map(|_| ())
        };
        assert_eq!(create("direction", json!("Outgoing")), Ok(()));
        assert_eq!(create("callOptions", json!({"isDeltaRosterEnabled": true})), Ok(()));
        assert_eq!(create("routingPolicies", json!(["noMissedCall"])), Ok(()));
        assert_eq!(target("hidden", json!(true)), Ok(()));
        assert_eq!(redirect("targetDisposition", json!("SimultaneousRing")), Ok(()));
        assert_eq!(transfer("transferee", json!({"identity": {}})), Ok(()));
        let table = [
            (create("direction", json!("incoming")), "direction", "8523"),
            (create("direction", json!(1)), "direction", "BadRequest"),
            (create("callOptions", json!([])), "callOptions", "BadRequest"),
            (
                create("callOptions", json!({"hideBotAfterEscalation": 1})),
                "callOptions.hideBotAfterEscalation",
                "BadRequest",
            ),
            (create("routingPolicies", json!("x")), "routingPolicies", "BadRequest"),
            (create("routingPolicies", json!([1])), "routingPolicies[0]", "BadRequest"),
            (create("callChainId", json!("ol\u{e1}")), "callChainId", "8523"),
            (create("callChainId", json!("a b")), "callChainId", "8523"),
            (target("hidden", json!("yes")), "targets[0].hidden", "BadRequest"),
            (target("participantId", json!(5)), "targets[0].participantId", "BadRequest"),
            (redirect("targetDisposition", json!("fork")), "targetDisposition", "8523"),
            (redirect("targetDisposition", json!(0)), "targetDisposition", "BadRequest"),
            (transfer("transferee", json!("x")), "transferee", "BadRequest"),
            (transfer("transferee", json!({"identity": 1})), "transferee.identity", "BadRequest"),
        ];
        for (read, path, code) in table {
            let refused = read.unwrap_err();
            assert!(refused.to_string().starts_with(&format!("{path} ")), "{path}: {refused}");
            assert_eq!(refused.code(), code, "{path}");
        }
    }

    #[test]
    fn the_rest_is_optional_and_limited() {
        let mut full = body(json!({"phone": {"id": "1", "displayName": "One"}}));
        full["source"] = json!({"identity": {"application": {"id": "x", "displayName": "Bot"}}});
        full["subject"] = json!("Hello");
        full["ringingTimeoutInSeconds"] = json!(30);
        let read = CreateCallBody::read(&full).unwrap();
        assert_eq!(read.source_name.as_deref(), Some("Bot"));
        assert_eq!(read.source_application.as_deref(), Some("x"));
        assert_eq!(read.target.display_name.as_deref(), Some("One"));
        assert_eq!(read.ringing_timeout_seconds, Some(30));
        full["ringingTimeoutInSeconds"] = json!(116);
        assert!(CreateCallBody::read(&full).is_err());
    }

    #[test]
    fn a_transfer_may_replace_another_call() {
        let call = "2e1a0b00-2db4-4022-9570-243709c565ab";
        let other = "0fe0623f-d628-42ed-b4bd-8ac290072cc5";
        let read = |target: Value| {
            TransferBody::read(call.parse().unwrap(), &json!({"transferTarget": target}))
        };
        let party = Party { uri: "tel:300".to_owned(), display_name: None };
        let identity = json!({"phone": {"id": "300"}});
        assert_eq!(read(json!({"identity": identity})), Ok(TransferBody::Party(party)));
        let peer_of = Ok(TransferBody::PeerOf(other.parse().unwrap()));
        assert_eq!(read(json!({"replacesCallId": other})), peer_of);
        assert_eq!(read(json!({"replacesCallId": other, "identity": identity})), peer_of);
        for wrong in [json!("x"), json!(call), json!(5)] {
            let told = read(json!({"replacesCallId": wrong})).unwrap_err().to_string();
            assert!(told.starts_with("transferTarget.replacesCallId must be"), "{told}");
        }
        assert!(read(json!({"replacesCallId": other, "identity": 5})).is_err());
        assert!(read(Value::Null).is_err());
    }
}
