//! `/openapi.json`: the OpenAPI 3.1 description of all served paths, generated from the routes.
//!
//! A test compares the descriptions with the routes, so that a new route cannot be forgotten.
//! Resources of Graph that this server does not have are left out. The schemas of
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
        answer, client_context, context, new_call, play_prompt, prompt, record, recording_status,
        redirect, reject, send_tones, transfer,
    },
    parts::{headers, known_headers, object, reference, refusals, response, such_as, text},
};
use super::{
    auth::ACCESS_MEDIA,
    authority,
    error::ApiError,
    exchange::Audit,
    graph::{resources, role},
    idempotency::MAX_KEY,
    undelivered,
};
use aftertone_core::{
    graph::{self, Version},
    model::RecordAction,
};

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
const PAGED_AND_EXPANDED: &[&str] = &["$select", "$expand", "$top", "$skip", "$count"];
const SELECTED: &[&str] = &["$select"];

fn description() -> Value {
    let mut paths = Map::new();
    for version in [Version::V1, Version::Beta] {
        for (path, allow, _) in resources() {
            let methods = allow.split(", ").filter_map(|method| {
                let shown = described(path, method)?.shown(version, path, method);
                Some((method.to_lowercase(), shown))
            });
            let methods: Map<String, Value> = methods.collect();
            paths.insert(format!("/{}{path}", version.segment()), Value::Object(methods));
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

/// The description of a method of a resource; `None` for one that is not described.
fn described(path: &str, method: &str) -> Option<Described> {
    let below = path.strip_prefix("/communications")?;
    let described = match (below, method) {
        ("/calls", "GET") => {
            got("The calls that are not over", PAGED_AND_EXPANDED, Answer::Page("call"))
        }
        ("/calls", "POST") => {
            posted("Place a call", Some((new_call(), true)), 201, Answer::Thing("call"))
        }
        ("/calls/{id}", "GET") => got("A call", &["$select", "$expand"], Answer::Thing("call")),
        ("/calls/{id}", "DELETE") => deleted("End a call"),
        ("/calls/{id}/operations", "GET") => {
            got("The operations of a call", PAGED, Answer::Page("commsOperation"))
        }
        ("/calls/{id}/operations/{operationId}", "GET") => {
            got("An operation", SELECTED, Answer::Thing("commsOperation"))
        }
        ("/calls/{id}/participants", "GET") => {
            got("The two sides of a call", PAGED, Answer::Page("participant"))
        }
        ("/calls/{id}/participants/{participantId}", "GET") => {
            got("One side of a call", SELECTED, Answer::Thing("participant"))
        }
        ("/calls/{id}/participants/{participantId}", "DELETE") => {
            deleted("End the call with a participant")
        }
        ("/calls/{id}/trace", "GET") => got(
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
        ("/undeliveredNotifications", "GET") => got(
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
        ("/undeliveredNotifications/resend", "POST") => {
            let summary = "Send all notifications that were given up again";
            posted(summary, None, 202, Answer::Nothing)
        }
        ("/undeliveredNotifications/{notificationId}/resend", "POST") => {
            let summary = "Send a notification that was given up again";
            posted(summary, None, 202, Answer::Nothing)
        }
        (_, "POST") => match below.strip_prefix("/calls/{id}/participants/{participantId}/") {
            Some(action) => of_participant(action)?,
            None => of_call(below.strip_prefix("/calls/{id}/")?)?,
        },
        _ => return None,
    };
    Some(described)
}

fn got(summary: &'static str, query: &'static [&'static str], answer: Answer) -> Described {
    Described { summary, query, body: None, status: 200, answer }
}

fn deleted(summary: &'static str) -> Described {
    Described { status: 204, ..got(summary, &[], Answer::Nothing) }
}

fn posted(
    summary: &'static str,
    body: Option<(Value, bool)>,
    status: u16,
    answer: Answer,
) -> Described {
    Described { summary, query: &[], body, status, answer }
}

/// An action on a call.
fn of_call(action: &str) -> Option<Described> {
    use Answer::{Nothing, Thing};
    let (summary, body, status, answer) = match action {
        "answer" => ("Take an incoming call", Some((answer(), true)), 202, Nothing),
        "reject" => ("Refuse an incoming call", Some((reject(), false)), 202, Nothing),
        "keepAlive" => ("Say that the call is still wanted", None, 200, Nothing),
        "playPrompt" => {
            ("Play prompts", Some((play_prompt(), true)), 200, Thing("playPromptOperation"))
        }
        "record" => {
            let body = record(RecordAction::Record);
            ("Prompt, beep, record", Some((body, false)), 200, Thing("recordOperation"))
        }
        "recordResponse" => {
            let body = record(RecordAction::RecordResponse);
            ("Prompt, beep, record", Some((body, false)), 200, Thing("recordOperation"))
        }
        "cancelMediaProcessing" => (
            "End what runs and empty the queue",
            Some((context(), false)),
            200,
            Thing("cancelMediaProcessingOperation"),
        ),
        "subscribeToTone" => (
            "Be told of the keys that the caller presses",
            Some((context(), false)),
            200,
            Thing("subscribeToToneOperation"),
        ),
        "transfer" => ("Have the peer call another party", Some((transfer(), true)), 202, Nothing),
        "redirect" => {
            ("Send an incoming caller to another party", Some((redirect(), true)), 202, Nothing)
        }
        "sendDtmfTones" => {
            ("Press keys", Some((send_tones(), true)), 200, Thing("sendDtmfTonesOperation"))
        }
        "mute" => {
            ("Drop our own sound", Some((context(), false)), 200, Thing("muteParticipantOperation"))
        }
        "unmute" => (
            "Let our own sound through again",
            Some((context(), false)),
            200,
            Thing("unmuteParticipantOperation"),
        ),
        "updateRecordingStatus" => (
            "Say whether the application records",
            Some((recording_status(), true)),
            200,
            Thing("updateRecordingStatusOperation"),
        ),
        _ => return None,
    };
    Some(posted(summary, body, status, answer))
}

/// An action on one side of a call.
fn of_participant(action: &str) -> Option<Described> {
    let (summary, body, status, thing) = match action {
        "mute" => ("Drop the sound of a participant", context(), 200, "muteParticipantOperation"),
        "unmute" => ("Let the sound through again", context(), 200, "unmuteParticipantOperation"),
        "startHoldMusic" => (
            "Play something to the participant whenever nothing else is played",
            such_as(
                object(json!({"customPrompt": prompt(), "clientContext": client_context()})),
                json!({"clientContext": "anything"}),
            ),
            202,
            "startHoldMusicOperation",
        ),
        "stopHoldMusic" => ("No more of that", context(), 202, "stopHoldMusicOperation"),
        _ => return None,
    };
    Some(posted(summary, Some((body, false)), status, Answer::Thing(thing)))
}

impl Described {
    fn shown(self, version: Version, path: &str, method: &str) -> Value {
        let Self { summary, query, body, status, answer } = self;
        let role = Method::try_from(method).ok().and_then(|method| role(path, &method));
        let mut parameters: Vec<Value> = path
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
                "schema": {"type": "string", "minLength": 1, "maxLength": MAX_KEY,
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
            404 => path.contains('{'),
            408 | 409 | 413 | 429 => is_post,
            415 => body.is_some(),
            // Only recordings are served in ranges.
            416 => false,
            // Redirects to several targets, and hiding a party.
            501 => path.ends_with("/redirect"),
            _ => true,
        };
        let mut responses = refusals(applies);
        responses.insert(status.to_string(), success);
        let mut shown = json!({
            "summary": summary,
            "operationId": format!("{}{path}:{method}", version.segment()),
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
        for (path, allow, _) in resources() {
            for method in allow.split(", ") {
                assert!(described(path, method).is_some(), "{method} {path}");
            }
        }
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
        let validator =
            jsonschema::draft202012::new(&super::record(RecordAction::RecordResponse)).unwrap();
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
