//! `/openapi.json`: the OpenAPI 3.1 description of all served paths, generated from the routes.
//!
//! An exhaustive match describes every target of a Graph path, so that a new route cannot be
//! forgotten. Resources of Graph that this server does not have are left out. The schemas of
//! responses come from the contract; those of requests describe the members that we read.

mod bodies;
mod parts;
mod tokens;

use std::{borrow::Cow, sync::LazyLock};

use axum::{
    http::{HeaderValue, Method, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use self::{
    bodies::{
        RECORD_RESPONSE_SECONDS, RECORD_SECONDS, answer, client_context, context, new_call,
        play_prompt, prompt, record, recording_status, redirect, reject, send_tones, transfer,
    },
    parts::{headers, known_headers, object, reference, refusals, response, such_as, text},
};
use super::{
    auth::{ACCESS_MEDIA, INITIATE},
    authority,
    calls::needed_role,
    error::ApiError,
    exchange::Audit,
    route::{Action, ParticipantAction, Route, Target},
    undelivered,
};
use aftertone_core::graph::{self, Version};

/// Schemas of Graph's types (contract, `communications.openapi.json`). Every member may be null, as
/// the documents print an unset member.
const SCHEMAS: &str = include_str!("schemas.json");

static DESCRIPTION: LazyLock<String> = LazyLock::new(|| description().to_string());

/// `/openapi.json`.
pub(super) async fn openapi(method: Method) -> Response {
    let mut response = match method {
        Method::GET | Method::HEAD => {
            let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
            ([json], DESCRIPTION.as_str()).into_response()
        }
        _ => ApiError::Method { allow: "GET, HEAD" }.into_response(),
    };
    let audit = Audit { route: Cow::Borrowed("/openapi.json"), application: None, probe: false };
    response.extensions_mut().insert(audit);
    response
}

/// One method of one path.
struct Described {
    summary: &'static str,
    /// The role that the method needs.
    role: Option<&'static str>,
    query: &'static [&'static str],
    /// The schema of the body, if there is one, and whether the body is required.
    body: Option<(Value, bool)>,
    status: u16,
    answer: Answer,
}

/// The body of a successful response.
enum Answer {
    Nothing,
    /// One object of a Graph type.
    Thing(&'static str),
    /// A page of objects of a Graph type.
    Page(&'static str),
    /// An object of our own type.
    Own(&'static str, Value),
}

const PAGED: &[&str] = &["$select", "$top", "$skip", "$count"];
const CALLS: &[&str] = &["$select", "$expand", "$top", "$skip", "$count"];
const SELECTED: &[&str] = &["$select"];

fn description() -> Value {
    let mut paths = Map::new();
    for version in [Version::V1, Version::Beta] {
        for target in targets() {
            let label = Route { version, target }.label();
            let methods = target.allow().split(", ").map(|method| {
                (method.to_lowercase(), described(target, method).shown(version, &label, method))
            });
            let methods: Map<String, Value> = methods.collect();
            paths.insert(format!("/{}{label}", version.segment()), Value::Object(methods));
        }
    }
    paths.extend(own_paths());
    let schemas: Value = serde_json::from_str(SCHEMAS).expect("it is checked by the tests");
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "aftertone",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Calls over SIP behind Microsoft Graph's cloud communications API. Paths \
                without a version are those of v1.0; /beta/app/calls is /beta/communications/calls. \
                Action names may be qualified with microsoft.graph., and ids may stand in \
                parentheses.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "headers": known_headers(),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "recording": {"type": "http", "scheme": "bearer",
                    "description": "The recordingAccessToken of the recording."},
            },
        },
        "security": [{"bearer": []}],
    })
}

/// Every target that a Graph path can name, once each; the ids do not matter.
fn targets() -> Vec<Target> {
    let nil = "00000000-0000-0000-0000-000000000000";
    let (Ok(call), Ok(operation), Ok(participant)) = (nil.parse(), nil.parse(), nil.parse()) else {
        return Vec::new();
    };
    let mut targets = vec![
        Target::Calls,
        Target::Call(call),
        Target::Operations(call),
        Target::Operation(call, operation),
        Target::Participants(call),
        Target::Participant(call, participant),
        Target::Trace(call),
        Target::Undelivered,
        Target::ResendAll,
        Target::Resend(call, 1),
    ];
    targets.extend(Action::all().map(|action| Target::Action(call, action)));
    let of_participant = ParticipantAction::all();
    targets
        .extend(of_participant.map(|action| Target::ParticipantAction(call, participant, action)));
    targets
}

fn described(target: Target, method: &str) -> Described {
    let get = |summary, query, answer| Described {
        summary,
        role: None,
        query,
        body: None,
        status: 200,
        answer,
    };
    let delete = |summary| Described { status: 204, ..get(summary, &[], Answer::Nothing) };
    match (target, method) {
        (Target::Calls, "GET") => get("The calls that are not over", CALLS, Answer::Page("call")),
        (Target::Calls, _) => Described {
            summary: "Place a call",
            role: Some(INITIATE),
            query: &[],
            body: Some((new_call(), true)),
            status: 201,
            answer: Answer::Thing("call"),
        },
        (Target::Call(_), "DELETE") => delete("End a call"),
        (Target::Call(_), _) => get("A call", &["$select", "$expand"], Answer::Thing("call")),
        (Target::Operations(_), _) => {
            get("The operations of a call", PAGED, Answer::Page("commsOperation"))
        }
        (Target::Operation(..), _) => {
            get("An operation", SELECTED, Answer::Thing("commsOperation"))
        }
        (Target::Participants(_), _) => {
            get("The two sides of a call", PAGED, Answer::Page("participant"))
        }
        (Target::Participant(..), "DELETE") => delete("End the call with a participant"),
        (Target::Participant(..), _) => {
            get("One side of a call", SELECTED, Answer::Thing("participant"))
        }
        (Target::Trace(_), _) => get(
            "The last SIP messages of a call, secrets masked; also as a capture file",
            &["format"],
            Answer::Own(
                "trace",
                object(json!({"value": {"type": "array", "items": {
                    "type": "object",
                    "properties": {"at": text(), "direction": {"enum": ["in", "out"]},
                        "transport": text(), "local": text(), "peer": text(), "message": text()},
                }}})),
            ),
        ),
        (Target::Undelivered, _) => get(
            "Notifications that were given up in the last seven days",
            PAGED,
            Answer::Own(
                "undelivered",
                object(json!({"value": {"type": "array", "items": {
                    "type": "object",
                    "properties": {"id": text(), "callbackUri": text(), "createdDateTime": text(),
                        "attempts": {"type": "integer"}, "lastError": text(),
                        "notification": {"type": "object"}},
                }}})),
            ),
        ),
        (Target::ResendAll, _) => resend("Send all notifications that were given up again"),
        (Target::Resend(..), _) => resend("Send a notification that was given up again"),
        (Target::Action(_, action), _) => of_action(action),
        (Target::ParticipantAction(_, _, action), _) => of_participant(action),
        (Target::Unsupported(name), _) => get(name, &[], Answer::Nothing),
    }
}

fn resend(summary: &'static str) -> Described {
    Described { summary, role: None, query: &[], body: None, status: 202, answer: Answer::Nothing }
}

fn of_action(action: Action) -> Described {
    use Answer::{Nothing, Thing};
    let (summary, body, status, answer) = match action {
        Action::Answer => ("Take an incoming call", Some((answer(), true)), 202, Nothing),
        Action::Reject => ("Refuse an incoming call", Some((reject(), false)), 202, Nothing),
        Action::KeepAlive => ("Say that the call is still wanted", None, 200, Nothing),
        Action::PlayPrompt => {
            ("Play prompts", Some((play_prompt(), true)), 200, Thing("playPromptOperation"))
        }
        Action::Record => {
            let body = record(RECORD_SECONDS);
            ("Prompt, beep, record", Some((body, false)), 200, Thing("recordOperation"))
        }
        Action::RecordResponse => {
            let body = record(RECORD_RESPONSE_SECONDS);
            ("Prompt, beep, record", Some((body, false)), 200, Thing("recordOperation"))
        }
        Action::CancelMediaProcessing => (
            "End what runs and empty the queue",
            Some((context(), false)),
            200,
            Thing("cancelMediaProcessingOperation"),
        ),
        Action::SubscribeToTone => (
            "Be told of the keys that the caller presses",
            Some((context(), false)),
            200,
            Thing("subscribeToToneOperation"),
        ),
        Action::Transfer => {
            ("Have the peer call another party", Some((transfer(), true)), 202, Nothing)
        }
        Action::Redirect => {
            ("Send an incoming caller to another party", Some((redirect(), true)), 202, Nothing)
        }
        Action::SendDtmfTones => {
            ("Press keys", Some((send_tones(), true)), 200, Thing("sendDtmfTonesOperation"))
        }
        Action::Mute => {
            ("Drop our own sound", Some((context(), false)), 200, Thing("muteParticipantOperation"))
        }
        Action::Unmute => (
            "Let our own sound through again",
            Some((context(), false)),
            200,
            Thing("unmuteParticipantOperation"),
        ),
        Action::UpdateRecordingStatus => (
            "Say whether the application records",
            Some((recording_status(), true)),
            200,
            Thing("updateRecordingStatusOperation"),
        ),
    };
    Described { summary, role: needed_role(action), query: &[], body, status, answer }
}

fn of_participant(action: ParticipantAction) -> Described {
    let (summary, body, status, thing) = match action {
        ParticipantAction::Mute => {
            ("Drop the sound of a participant", context(), 200, "muteParticipantOperation")
        }
        ParticipantAction::Unmute => {
            ("Let the sound through again", context(), 200, "unmuteParticipantOperation")
        }
        ParticipantAction::StartHoldMusic => (
            "Play something to the participant whenever nothing else is played",
            such_as(
                object(json!({"customPrompt": prompt(), "clientContext": client_context()})),
                json!({"clientContext": "anything"}),
            ),
            202,
            "startHoldMusicOperation",
        ),
        ParticipantAction::StopHoldMusic => {
            ("No more of that", context(), 202, "stopHoldMusicOperation")
        }
    };
    let body = Some((body, false));
    Described { summary, role: None, query: &[], body, status, answer: Answer::Thing(thing) }
}

impl Described {
    fn shown(self, version: Version, label: &str, method: &str) -> Value {
        let Self { summary, role, query, body, status, answer } = self;
        let mut parameters: Vec<Value> = label
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| {
                let schema = match name {
                    "notificationId" => text(),
                    _ => json!({"type": "string", "format": "uuid"}),
                };
                json!({"name": name, "in": "path", "required": true, "schema": schema})
            })
            .collect();
        parameters.extend(query.iter().map(
            |name| json!({"name": name, "in": "query", "schema": query_schema(name, &answer)}),
        ));
        if method == "POST" {
            parameters.push(json!({
                "name": "Idempotency-Key", "in": "header",
                "description": "A repeated request with this key gets the first answer, for a day.",
                "schema": {"type": "string", "minLength": 1, "maxLength": 255,
                    "pattern": "^[!-~]+$"},
            }));
        }
        let is_post = method == "POST";
        let mut success = json!({"description": "Done", "headers": headers(&[])});
        // The object that a POST creates has a URL.
        if is_post && matches!(answer, Answer::Thing(_)) {
            success["headers"] = headers(&["Location"]);
        }
        if let Some(content) = answer.content(version) {
            success["content"] = content;
        }
        let applies = |status: u16| match status {
            403 => role.is_some(),
            404 => label.contains('{'),
            408 | 409 | 413 | 429 => is_post,
            415 => body.is_some(),
            // Only recordings are served in ranges.
            416 => false,
            // Redirects to several targets, and hiding a party.
            501 => label.ends_with("/redirect"),
            _ => true,
        };
        let mut responses = refusals(applies);
        responses.insert(status.to_string(), success);
        let mut shown = json!({
            "summary": summary,
            "operationId": format!("{}{label}:{method}", version.segment()),
            "parameters": parameters,
            "responses": responses,
        });
        if let Some((schema, required)) = body {
            shown["requestBody"] =
                json!({"required": required, "content": {"application/json": {"schema": schema}}});
        }
        if let Some(role) = role {
            shown["description"] = json!(format!("Takes the role {role}."));
            shown["x-role"] = json!(role);
        }
        shown
    }
}

impl Answer {
    /// The members that `$select` may name.
    fn members(&self) -> &'static [&'static str] {
        match self {
            Self::Thing("call") | Self::Page("call") => &graph::Call::MEMBERS,
            Self::Thing("participant") | Self::Page("participant") => &graph::Participant::MEMBERS,
            Self::Thing(_) | Self::Page(_) => &graph::Operation::MEMBERS,
            Self::Own("undelivered", _) => &undelivered::MEMBERS,
            Self::Own(..) | Self::Nothing => &[],
        }
    }

    fn content(self, version: Version) -> Option<Value> {
        let name = |thing| format!("{}.microsoft.graph.{thing}", version.segment());
        let schema = match self {
            Self::Nothing => return None,
            Self::Thing(thing) => reference(&name(thing)),
            Self::Page(thing) => object(json!({
                "@odata.context": text(),
                "@odata.count": {"type": "integer"},
                "@odata.nextLink": text(),
                "value": {"type": "array", "items": reference(&name(thing))},
            })),
            Self::Own("trace", schema) => {
                return Some(json!({
                    "application/json": {"schema": schema},
                    "application/vnd.tcpdump.pcap": {},
                }));
            }
            Self::Own(_, schema) => schema,
        };
        Some(json!({"application/json": {"schema": schema}}))
    }
}

fn query_schema(name: &str, answer: &Answer) -> Value {
    match name {
        "$select" => {
            let names = answer.members().join("|");
            json!({"type": "string", "pattern": format!("^({names})(,({names}))*$")})
        }
        "$top" | "$skip" => json!({"type": "integer", "minimum": 0}),
        "$count" => json!({"type": "boolean"}),
        "$expand" => json!({"enum": ["operations", "participants", "operations,participants"]}),
        "format" => json!({"enum": ["json", "pcap"]}),
        _ => text(),
    }
}

// -- paths that are not Graph's --

fn own_paths() -> Map<String, Value> {
    let anybody = json!([]);
    let any = || json!({"type": "object"});
    let shown = |summary: &str, schema: Value| {
        let mut responses = refusals(|status| matches!(status, 405 | 500));
        responses.insert("200".to_owned(), response("As asked", &[], schema));
        json!({"get": {"summary": summary, "security": anybody, "responses": responses}})
    };
    let of_tenant = |mut path: Value| {
        path["parameters"] =
            json!([{"name": "tenant", "in": "path", "required": true, "schema": text()}]);
        let names_none = refusals(|status| status == 404);
        for method in ["get", "post"] {
            let Some(responses) = path.pointer_mut(&format!("/{method}/responses")) else {
                continue;
            };
            responses["404"] = names_none["404"].clone();
            if method == "get" {
                responses["400"] = response("No such tenant", &[], any());
            }
        }
        path
    };
    let ready = {
        let shows = super::health::described();
        let mut path = shown("Whether calls are taken; more with a token", shows.clone());
        path["get"]["security"] = json!([{}, {"bearer": []}]);
        path["get"]["responses"]["503"] = response("Calls are not taken", &["Retry-After"], shows);
        path
    };
    let metadata = || shown("Where tokens are and how to check them", any());
    let keys = object(json!({"keys": {"type": "array", "items": {"type": "object"}}}));
    let of_clip = |more: &[u16], success: &[(&str, &str)]| {
        let mut responses = refusals(|status| {
            matches!(status, 401 | 404 | 405 | 500 | 503) || more.contains(&status)
        });
        for (status, about) in success {
            let mut shown = json!({"description": about, "headers": headers(&[])});
            if *status != "204" {
                shown["content"] = json!({"application/octet-stream": {}});
            }
            responses.insert((*status).to_owned(), shown);
        }
        responses
    };
    let recording = json!({
        "parameters": [{"name": "id", "in": "path", "required": true,
            "schema": {"type": "string", "format": "uuid"}}],
        "get": {
            "summary": "A recording: WAV, 16 bit, 16 kHz, mono; ranges are served",
            "security": [{"recording": []}, {"bearer": []}],
            "description": format!("With the token of the recording, or of an application with the \
                role {ACCESS_MEDIA}."),
            "responses": of_clip(&[416], &[("200", "All of it"), ("206", "A range")]),
        },
        "delete": {
            "summary": "Purge a recording before its time",
            "security": [{"recording": []}, {"bearer": []}],
            "responses": of_clip(&[], &[("204", "Gone")]),
        },
    });
    let mut authority = json!({
        "summary": "The authority of a development certificate",
        "security": anybody,
        "responses": refusals(|status| matches!(status, 404 | 405 | 500)),
    });
    authority["responses"]["200"] = json!({"description": "PEM", "headers": headers(&[]),
        "content": {"application/x-pem-file": {}}});
    let paths = [
        (authority::PATH, json!({"get": authority})),
        ("/recordings/{id}", recording),
        ("/healthz", shown("Whether the process can answer", any())),
        ("/readyz", ready),
        ("/openapi.json", shown("This", any())),
        ("/{tenant}/oauth2/token", of_tenant(tokens::first_version())),
        ("/{tenant}/.well-known/openid-configuration", of_tenant(metadata())),
        ("/{tenant}/discovery/keys", of_tenant(shown("Keys of tokens", keys.clone()))),
        ("/{tenant}/oauth2/v2.0/token", of_tenant(tokens::second_version())),
        ("/{tenant}/v2.0/.well-known/openid-configuration", of_tenant(metadata())),
        ("/{tenant}/discovery/v2.0/keys", of_tenant(shown("Keys of tokens", keys.clone()))),
        (
            "/v1/.well-known/OpenIdConfiguration",
            shown("How to check the tokens of notifications", any()),
        ),
        ("/v1/.well-known/keys", shown("Keys of notifications", keys)),
    ];
    paths.into_iter().map(|(path, shown)| (path.to_owned(), shown)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::service::api::{
        self,
        fake::{Fake, contract_schema, json_of},
        oauth,
    };

    #[tokio::test]
    async fn it_is_served_to_anybody() {
        let response = Fake::new().ask("GET", "/openapi.json", "", &[]).await;
        assert_eq!(response.headers()["content-type"], "application/json");
        let shown = json_of(response).await;
        assert_eq!(shown["openapi"], "3.1.0");
        let record = &shown["paths"]["/beta/communications/calls/{id}/record"]["post"];
        assert_eq!(record["x-role"], ACCESS_MEDIA);
        assert!(shown["paths"].as_object().unwrap().len() > 60);
    }

    #[test]
    fn the_schemas_are_those_of_the_contract() {
        let schemas: Map<String, Value> = serde_json::from_str(SCHEMAS).unwrap();
        for (name, schema) in &schemas {
            assert_eq!(schema, contract_schema(name), "{name}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, known: &Value) {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(to)) = members.get("$ref") {
                        let place = to.strip_prefix('#').unwrap();
                        assert!(known.pointer(place).is_some(), "{to}");
                    }
                    members.values().for_each(|member| walk(member, known));
                }
                Value::Array(elements) => elements.iter().for_each(|e| walk(e, known)),
                _ => {}
            }
        }
        let description = description();
        walk(&description, &description);
    }

    #[test]
    fn everything_that_is_served_is_described() {
        let kinds: BTreeSet<usize> = targets()
            .into_iter()
            .map(|target| match target {
                Target::Calls => 0,
                Target::Call(_) => 1,
                Target::Operations(_) => 2,
                Target::Operation(..) => 3,
                Target::Participants(_) => 4,
                Target::Participant(..) => 5,
                Target::Trace(_) => 6,
                Target::Undelivered => 7,
                Target::ResendAll => 8,
                Target::Resend(..) => 9,
                Target::Action(..) => 10,
                Target::ParticipantAction(..) => 11,
                // Served with 501.
                Target::Unsupported(_) => panic!("what is not there is not described"),
            })
            .collect();
        assert_eq!(kinds, (0..12).collect());
        let own = own_paths();
        let routed = api::routes().into_iter().map(|(path, _)| path);
        let of_tokens = oauth::table().into_iter().map(|(path, _)| path);
        let routed: BTreeSet<&str> = routed.chain(of_tokens).collect();
        assert_eq!(own.keys().map(String::as_str).collect::<BTreeSet<_>>(), routed);
    }

    #[test]
    fn every_status_is_named() {
        let description = description();
        for (path, methods) in description["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let Some(responses) = operation["responses"].as_object() else { continue };
                assert!(!responses.contains_key("default"), "{method} {path}");
                for status in ["405", "500"] {
                    assert!(responses.contains_key(status), "{method} {path}: {status}");
                }
                for (status, response) in responses {
                    let headers = response["headers"].as_object().unwrap();
                    assert!(headers.contains_key("request-id"), "{method} {path}: {status}");
                }
            }
        }
    }

    /// The readers accept every body that fits the schemas.
    #[test]
    fn bodies_of_the_documents_fit_the_schemas() {
        let record = json!({"bargeInAllowed": true, "playBeep": true, "stopTones": ["#", "1", "*"],
            "maxRecordDurationInSeconds": 10, "prompts": [{
                "@odata.type": "#microsoft.graph.mediaPrompt",
                "mediaInfo": {"uri": "https://bot.example/prompts/short.wav"}}]});
        let validator = jsonschema::draft202012::new(&super::record(120)).unwrap();
        assert!(validator.is_valid(&record));
        assert!(!validator.is_valid(&json!({"maxRecordDurationInSeconds": 121})));
        assert!(!validator.is_valid(&json!({"stopTones": ["flash"]})));
    }

    #[test]
    fn every_body_has_an_example_that_fits() {
        let description = description();
        for (path, methods) in description["paths"].as_object().unwrap() {
            let content = &methods["post"]["requestBody"]["content"]["application/json"];
            let Some(schema) = content.get("schema") else { continue };
            let validator = jsonschema::draft202012::new(schema).unwrap();
            let example = schema["examples"].get(0).unwrap_or_else(|| panic!("{path}"));
            assert!(validator.is_valid(example), "{path}: {example}");
        }
    }
}
