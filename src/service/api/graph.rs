//! The router of the Graph API.
//!
//! A request passes these steps: its path is brought to one form, the router finds the resource,
//! [`admit`] authenticates the client, [`admitted`] checks the ids, the role and the
//! `Idempotency-Key`, and the handler of the method reads the body and carries out the request.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{Method, Uri, uri::PathAndQuery},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{MethodRouter, any, get, post},
};

use super::{
    ApiState,
    auth::{ACCESS_MEDIA, Caller, INITIATE},
    calls,
    error::ApiError,
    exchange::Audit,
    idempotency, now, operations, participants,
    path::{GraphPath, NotGraph, percent_decoded},
    request::GraphRequest,
    trace,
    undelivered::{self, NotificationId},
};
use crate::service::switchboard::CallError;
use aftertone_core::{
    graph::Version,
    model::{CallId, OperationId, ParticipantId},
};

/// The collection of calls.
pub(super) const CALLS: &str = "/communications/calls";

/// A resource of the Graph API: its path, the methods in the form of an `Allow` header, and their
/// handlers.
pub(super) type Resource = (&'static str, &'static str, MethodRouter<ApiState>);

/// All resources of the Graph API.
pub(super) fn resources() -> Vec<Resource> {
    const OF_CALLS: &str = "GET, POST";
    const OF_CALL: &str = "GET, DELETE";
    vec![
        (CALLS, OF_CALLS, get(calls::list).post(calls::place)),
        ("/communications/calls/{id}", OF_CALL, get(calls::show).delete(calls::hang_up)),
        ("/communications/calls/{id}/operations", "GET", get(operations::list)),
        ("/communications/calls/{id}/operations/{operationId}", "GET", get(operations::show)),
        ("/communications/calls/{id}/participants", "GET", get(participants::list)),
        (
            "/communications/calls/{id}/participants/{participantId}",
            OF_CALL,
            get(participants::show).delete(participants::remove),
        ),
        // Additions to Graph.
        ("/communications/calls/{id}/trace", "GET", get(trace::show)),
        ("/communications/undeliveredNotifications", "GET", get(undelivered::list)),
        ("/communications/undeliveredNotifications/resend", "POST", post(undelivered::resend_all)),
        (
            "/communications/undeliveredNotifications/{notificationId}/resend",
            "POST",
            post(undelivered::resend),
        ),
        // Actions on a call.
        ("/communications/calls/{id}/answer", "POST", post(calls::answer)),
        ("/communications/calls/{id}/reject", "POST", post(calls::reject)),
        ("/communications/calls/{id}/keepAlive", "POST", post(calls::keep_alive)),
        ("/communications/calls/{id}/playPrompt", "POST", post(operations::play_prompt)),
        ("/communications/calls/{id}/record", "POST", post(operations::record)),
        ("/communications/calls/{id}/recordResponse", "POST", post(operations::record_response)),
        (
            "/communications/calls/{id}/cancelMediaProcessing",
            "POST",
            post(operations::cancel_media_processing),
        ),
        ("/communications/calls/{id}/subscribeToTone", "POST", post(operations::subscribe_to_tone)),
        ("/communications/calls/{id}/transfer", "POST", post(calls::transfer)),
        ("/communications/calls/{id}/redirect", "POST", post(calls::redirect)),
        ("/communications/calls/{id}/sendDtmfTones", "POST", post(operations::send_dtmf_tones)),
        ("/communications/calls/{id}/mute", "POST", post(operations::mute)),
        ("/communications/calls/{id}/unmute", "POST", post(operations::unmute)),
        (
            "/communications/calls/{id}/updateRecordingStatus",
            "POST",
            post(operations::update_recording_status),
        ),
        // Actions on one side of a call. `unmute` is an addition: in Graph only a participant can
        // unmute itself, which a phone cannot do.
        (
            "/communications/calls/{id}/participants/{participantId}/mute",
            "POST",
            post(participants::mute),
        ),
        (
            "/communications/calls/{id}/participants/{participantId}/unmute",
            "POST",
            post(participants::unmute),
        ),
        (
            "/communications/calls/{id}/participants/{participantId}/startHoldMusic",
            "POST",
            post(participants::start_hold_music),
        ),
        (
            "/communications/calls/{id}/participants/{participantId}/stopHoldMusic",
            "POST",
            post(participants::stop_hold_music),
        ),
    ]
}

/// Resources of Graph that this server does not have, by their parent: the rows with "no" in the
/// contract's table (section 2), and `$count`, for which there is the option of the same name.
const UNSUPPORTED: [(&str, &[&str]); 4] = [
    (CALLS, &["$count", "logTeleconferenceDeviceQuality"]),
    ("/communications/calls/{id}/operations", &["$count"]),
    ("/communications/calls/{id}/participants", &["$count"]),
    ("/communications/calls/{id}/participants/{participantId}", &["reportSyntheticMedia"]),
];

/// The same, with all paths below them.
const UNSUPPORTED_TREES: [(&str, &[&str]); 2] = [
    (
        "/communications/calls/{id}",
        &[
            "changeScreenSharingRole",
            "addLargeGalleryView",
            "startRecording",
            "stopRecording",
            "startTranscription",
            "stopTranscription",
            "audioRoutingGroups",
            "contentSharingSessions",
            "configureMixer",
            "muteAll",
        ],
    ),
    ("/communications/calls/{id}/participants", &["invite", "muteAll", "configureMixer"]),
];

/// The end of a pattern that matches all paths below.
const TREE: &str = "/{*below}";

/// The role that a method of a resource needs (contract section 2.1).
pub(super) fn role(resource: &str, method: &Method) -> Option<&'static str> {
    let below = resource.strip_prefix(CALLS);
    match (method, below) {
        (
            &Method::POST,
            Some("/{id}/record" | "/{id}/recordResponse" | "/{id}/subscribeToTone"),
        ) => Some(ACCESS_MEDIA),
        (&Method::POST, Some("" | "/{id}/transfer" | "/{id}/redirect")) => Some(INITIATE),
        _ => None,
    }
}

/// Serves the Graph API, and 404 for every other path.
pub(super) fn router(state: ApiState) -> Router {
    let mut router = Router::new();
    for (path, allow, methods) in resources() {
        let refuse = move || async move { ApiError::Method { allow } };
        // The router would answer HEAD like GET; Graph refuses it.
        router = router.route(path, methods.head(refuse).fallback(refuse));
    }
    let refuse = |name| any(move || async move { ApiError::NotImplemented(name) });
    for (parent, name) in each(&UNSUPPORTED) {
        router = router.route(&format!("{parent}/{name}"), refuse(name));
    }
    for (parent, name) in each(&UNSUPPORTED_TREES) {
        let path = format!("{parent}/{name}");
        router = router.route(&path, refuse(name)).route(&format!("{path}{TREE}"), refuse(name));
    }
    let router =
        router.fallback(unknown).layer(from_fn_with_state(state.clone(), admit)).with_state(state);
    // Layers of a router run after it has matched the path, so the path is changed outside.
    Router::new().fallback_service(router).layer(from_fn(normalise))
}

fn each(
    table: &'static [(&'static str, &'static [&'static str])],
) -> impl Iterator<Item = (&'static str, &'static str)> {
    table.iter().flat_map(|(parent, names)| names.iter().map(move |name| (*parent, *name)))
}

/// What [`normalise`] leaves to the later steps; an extension of the request.
#[derive(Clone)]
struct Normalised {
    version: Version,
    /// The URI as the client wrote it.
    uri: Uri,
    /// Why the path names nothing, if this is known already. A client learns it only with a token.
    error: Option<ApiError>,
}

/// Brings the path to the form that the router knows. Only paths of the Graph API need a token; any
/// other path is answered with 404 without one.
async fn normalise(mut request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let target = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let (version, error) = match GraphPath::parse(&target) {
        Ok(GraphPath { version, target }) => {
            *request.uri_mut() = target.into();
            (version, None)
        }
        Err(NotGraph::Segment(name)) => (Version::V1, Some(ApiError::unknown_segment(&name))),
        Err(NotGraph::Elsewhere(name)) => {
            let mut response = ApiError::unknown_segment(&name).into_response();
            response.extensions_mut().insert(Audit { route: UNKNOWN.into(), ..Audit::default() });
            return response;
        }
    };
    request.extensions_mut().insert(Normalised { version, uri, error });
    next.run(request).await
}

/// The route of a path that names nothing, in the access log.
const UNKNOWN: &str = "unknown";

/// Authenticates the client, and notes for the access log who asks for what.
async fn admit(
    State(state): State<ApiState>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let resource = matched.as_ref().map(MatchedPath::as_str);
    let route = resource.map_or(UNKNOWN, |path| path.strip_suffix(TREE).unwrap_or(path));
    let route = Cow::Owned(route.to_owned());
    let credentials = state.credentials.borrow().clone();
    let caller = credentials.authenticate(request.headers(), now()).await;
    let application = caller.as_ref().ok().map(|caller| Arc::clone(&caller.application));
    let answered = match caller {
        Ok(caller) => admitted(state, caller, resource, request, next).await,
        Err(error) => Err(error.into()),
    };
    let mut response = answered.unwrap_or_else(IntoResponse::into_response);
    response.extensions_mut().insert(Audit { route, application, probe: false });
    response
}

/// Checks what needs no body: the ids in the path, the role and the `Idempotency-Key`.
async fn admitted(
    state: ApiState,
    caller: Caller,
    resource: Option<&str>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    // `unknown` tells which segment is wrong.
    let Some(resource) = resource else { return Ok(next.run(request).await) };
    for (pattern, segment) in resource.split('/').zip(request.uri().path().split('/')) {
        check_id(pattern, segment)?;
    }
    if let Some(role) = role(resource, request.method()).filter(|role| !caller.has_role(role)) {
        return Err(ApiError::MissingRole(role));
    }
    let key = match *request.method() {
        Method::POST => idempotency::key(request.headers())?,
        _ => None,
    };
    let normalised = request.extensions().get::<Normalised>().cloned();
    let Normalised { version, uri, .. } = normalised.ok_or(ApiError::Internal)?;
    let graph = state.graph_context(version);
    let next_call = CallId::from_random(rand::random());
    let query = uri.query().map(Into::into);
    let asked = GraphRequest { state, caller, graph, query, next_call };
    request.extensions_mut().insert(asked.clone());
    match key {
        None => Ok(next.run(request).await),
        Some(key) => {
            let places_call = resource == CALLS;
            idempotency::once(asked, key, &uri, places_call, request, next).await
        }
    }
}

/// Answers a path that no resource has, with the first segment that is wrong.
async fn unknown(request: Request) -> ApiError {
    let error = request.extensions().get::<Normalised>().and_then(|known| known.error.clone());
    error.unwrap_or_else(|| wrong_segment(request.uri().path()))
}

/// The error for a path that no resource has.
fn wrong_segment(path: &str) -> ApiError {
    static PATTERNS: LazyLock<Vec<Vec<&str>>> = LazyLock::new(|| {
        resources().iter().map(|(pattern, ..)| pattern.split('/').collect()).collect()
    });
    let mut known: Vec<&[&str]> = PATTERNS.iter().map(Vec::as_slice).collect();
    let mut end = ("", "");
    for (position, segment) in path.split('/').enumerate() {
        let here = || known.iter().filter_map(|pattern| pattern.get(position));
        let named = here().find(|name| **name == segment);
        let Some(name) = named.or_else(|| here().find(|name| name.starts_with('{'))) else {
            return ApiError::unknown_segment(&percent_decoded(segment));
        };
        if let "{id}" | "{participantId}" = *name
            && let Err(error) = check_id(name, segment)
        {
            return error;
        }
        end = (name, segment);
        known.retain(|pattern| pattern.get(position) == Some(name));
    }
    let (name, segment) = end;
    not_found(name).unwrap_or_else(|| ApiError::unknown_segment(&percent_decoded(segment)))
}

/// Checks the segment in the place of an id.
///
/// # Errors
/// It is no id, so it names nothing.
fn check_id(pattern: &str, segment: &str) -> Result<(), ApiError> {
    let segment = percent_decoded(segment);
    let is_id = match pattern {
        "{id}" => segment.parse::<CallId>().is_ok(),
        "{operationId}" => segment.parse::<OperationId>().is_ok(),
        "{participantId}" => segment.parse::<ParticipantId>().is_ok(),
        "{notificationId}" => segment.parse::<NotificationId>().is_ok(),
        _ => return Ok(()),
    };
    if is_id { Ok(()) } else { Err(not_found(pattern).unwrap_or(ApiError::Internal)) }
}

/// The error for an id that names nothing; `None` for a segment that is no id.
fn not_found(pattern: &str) -> Option<ApiError> {
    match pattern {
        "{id}" => Some(CallError::NotFound.into()),
        "{operationId}" => Some(ApiError::NoOperation),
        "{participantId}" => Some(ApiError::NoParticipant),
        "{notificationId}" => Some(ApiError::NoNotification),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, http::StatusCode};
    use tower::ServiceExt;

    use super::*;
    use crate::service::api::fake::{CALL, Fake, OPERATION, PARTICIPANT, TOKEN};

    /// The response of the router alone, with the audit and the error that it leaves to
    /// [`exchange`](crate::service::api::exchange).
    async fn answered(method: &str, path: &str) -> Response {
        let bare_upper = CALL.replace('-', "").to_uppercase();
        let path = path.replace("{c}", CALL).replace("{C}", &bare_upper);
        let path = path.replace("{o}", OPERATION).replace("{p}", PARTICIPANT);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Body::empty());
        router(Fake::new().state).oneshot(request.unwrap()).await.unwrap()
    }

    fn error(response: &Response) -> Option<&ApiError> {
        response.extensions().get::<ApiError>()
    }

    #[tokio::test]
    async fn every_form_of_a_path_names_its_resource() {
        let table = [
            ("/v1.0/communications/calls/", "/calls"),
            ("/communications/calls", "/calls"),
            ("/beta/app/calls", "/calls"),
            ("/app/calls", "/calls"),
            ("/v1.0/communications/calls/{C}/", "/calls/{id}"),
            ("/v1.0/communications/calls('{c}')", "/calls/{id}"),
            ("/v1.0/communications/calls(%27{c}%27)", "/calls/{id}"),
            ("/beta/app/calls('{C}')/record", "/calls/{id}/record"),
            ("/communications/calls/{c}/keepAlive", "/calls/{id}/keepAlive"),
            ("/v1.0/communications/calls/{c}/microsoft.graph.playPrompt", "/calls/{id}/playPrompt"),
            (
                "/v1.0/communications/calls/{c}/Microsoft.Graph.recordResponse",
                "/calls/{id}/recordResponse",
            ),
            (
                "/v1.0/communications/calls/{c}/cancelMediaProcessing/",
                "/calls/{id}/cancelMediaProcessing",
            ),
            (
                "/beta/communications/calls('{c}')/operations('{o}')",
                "/calls/{id}/operations/{operationId}",
            ),
            (
                "/v1.0/communications/calls('{c}')/participants('{p}')",
                "/calls/{id}/participants/{participantId}",
            ),
            (
                "/v1.0/communications/calls/{c}/participants/{p}/microsoft.graph.mute",
                "/calls/{id}/participants/{participantId}/mute",
            ),
            (
                "/beta/communications/undeliveredNotifications/resend",
                "/undeliveredNotifications/resend",
            ),
            (
                "/communications/undeliveredNotifications/{c}-17/resend",
                "/undeliveredNotifications/{notificationId}/resend",
            ),
        ];
        for (path, resource) in table {
            let response = answered("PATCH", path).await;
            assert!(matches!(error(&response), Some(ApiError::Method { .. })), "{path}");
            let audit = response.extensions().get::<Audit>().unwrap();
            assert_eq!(audit.route, format!("/communications{resource}"), "{path}");
            assert_eq!(audit.application.as_deref(), Some("mybot"));
        }
    }

    #[tokio::test]
    async fn what_names_nothing_is_told() {
        let segment = ApiError::unknown_segment;
        let no_call = || ApiError::from(CallError::NotFound);
        let table = [
            ("/v1.0", segment("")),
            ("/favicon.ico", segment("favicon.ico")),
            ("/v2.0/communications/calls", segment("v2.0")),
            ("/v1.0/app/calls", segment("app")),
            ("/app/presences", segment("presences")),
            ("/v1.0/users", segment("users")),
            ("/v1.0/communications", segment("communications")),
            ("/v1.0/communications/presences", segment("presences")),
            ("/v1.0/communications/Calls", segment("Calls")),
            ("/v1.0/communications/calls/x", no_call()),
            ("/v1.0/communications/calls//answer", no_call()),
            ("/v1.0/communications/calls/x/dance", no_call()),
            ("/v1.0/communications/calls/{c}/dance", segment("dance")),
            ("/v1.0/communications/calls/{c}/microsoft.graph.dance", segment("dance")),
            ("/v1.0/communications/calls/{c}/a%2Fb%20%FF", segment("a%2Fb%20%FF")),
            ("/v1.0/communications/calls/{c}/a%2Fb%20c", segment("a/b c")),
            ("/v1.0/communications/calls/{c}/Answer", segment("Answer")),
            ("/v1.0/communications/calls/{c}/answer/again", segment("again")),
            ("/v1.0/communications/calls/{c}/operations/x", ApiError::NoOperation),
            ("/v1.0/communications/calls/{c}/operations/{o}/x", segment("x")),
            ("/v1.0/communications/calls/{c}/operations/y/x", segment("x")),
            ("/communications/undeliveredNotifications/{c}-x/resend", ApiError::NoNotification),
            ("/communications/undeliveredNotifications/{c}-17", ApiError::NoNotification),
            ("/communications/undeliveredNotifications/{c}-17/x", segment("x")),
            ("/v1.0/communications/calls/{c}/participants/x", ApiError::NoParticipant),
            ("/v1.0/communications/calls/{c}/participants/x/mute", ApiError::NoParticipant),
            ("/v1.0/communications/calls/{c}/participants/{p}/dance", segment("dance")),
            ("/v1.0/communications/calls/{c}/participants/{p}/mute/x", segment("x")),
        ];
        for (path, expected) in table {
            for method in ["GET", "POST", "PATCH"] {
                let response = answered(method, path).await;
                assert_eq!(error(&response), Some(&expected), "{method} {path}");
                assert!(response.extensions().get::<Audit>().is_some(), "{path}");
            }
        }
    }

    #[tokio::test]
    async fn what_graph_has_and_we_have_not_is_named() {
        let table = [
            ("/v1.0/communications/calls/$count", "$count"),
            ("/communications/calls/{c}/participants/$count", "$count"),
            ("/communications/calls/{c}/operations/%24count", "$count"),
            (
                "/communications/calls/microsoft.graph.logTeleconferenceDeviceQuality",
                "logTeleconferenceDeviceQuality",
            ),
            ("/v1.0/communications/calls/{c}/participants/microsoft.graph.invite", "invite"),
            ("/v1.0/communications/calls/{c}/participants/invite/mute", "invite"),
            ("/v1.0/communications/calls/{c}/audioRoutingGroups", "audioRoutingGroups"),
            ("/v1.0/communications/calls/{c}/audioRoutingGroups/1", "audioRoutingGroups"),
            (
                "/beta/communications/calls/{c}/participants/{p}/reportSyntheticMedia",
                "reportSyntheticMedia",
            ),
        ];
        for (path, name) in table {
            for method in ["GET", "POST", "DELETE"] {
                let response = answered(method, path).await;
                assert_eq!(error(&response), Some(&ApiError::NotImplemented(name)), "{path}");
            }
        }
    }

    #[tokio::test]
    async fn each_resource_allows_what_it_says() {
        for (resource, allow, _) in resources() {
            let path = resource.replace("{id}", CALL).replace("{operationId}", OPERATION);
            let path = path.replace("{participantId}", PARTICIPANT);
            let path = path.replace("{notificationId}", &format!("{CALL}-3"));
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
                let is_allowed = allow.split(", ").any(|allowed| allowed == method);
                let response = answered(method, &path).await;
                let is_refused = response.status() == StatusCode::METHOD_NOT_ALLOWED;
                assert_eq!(is_refused, !is_allowed, "{method} {path}");
                if is_refused {
                    let refusal = ApiError::Method { allow };
                    assert_eq!(error(&response), Some(&refusal), "{method} {path}");
                }
            }
        }
    }
}
