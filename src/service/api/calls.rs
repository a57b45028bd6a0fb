//! Calls in the Graph API: list, place, show, answer, reject, redirect, transfer and hang up.

use axum::{
    extract::Path,
    http::{HeaderValue, StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
};
use serde_json::Value;

use super::{
    deadline,
    error::ApiError,
    json::{json, ok},
    query::{Expanded, QueryOptions},
    request::{ActionBody, GraphRequest},
};
use crate::service::switchboard::{CallError, NewCall, TransferTarget};
use aftertone_core::{
    graph::{
        self, AnswerBody, CreateCallBody, InvalidBody, RedirectBody, RejectBody, TransferBody,
    },
    model::{self, CallId, CallState},
};

pub(super) async fn list(request: GraphRequest) -> Result<Response, ApiError> {
    let options = QueryOptions::for_calls(request.query())?;
    let GraphRequest { state, graph, .. } = &request;
    let calls = deadline::reading(state.calls.calls(request.application())).await?;
    let mut calls: Vec<model::Call> = calls.into_iter().filter(has_not_ended).collect();
    // Paging needs a stable order.
    calls.sort_by_key(|call| (call.created_at, call.id));
    let context = graph.metadata_url("communications/calls");
    let (calls, place) = options.on_page(calls);
    let mut shown = Vec::with_capacity(calls.len());
    for call in &calls {
        let element = json(&graph::Call::element(graph, call));
        match request.expanded(element, call, &options).await {
            Ok(call) => shown.push(call),
            // The call has ended meanwhile.
            Err(ApiError::Call(CallError::NotFound)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ok(&options.page(context, &graph.calls_url(), place, shown)))
}

pub(super) async fn place(
    request: GraphRequest,
    ActionBody(body): ActionBody,
) -> Result<Response, ApiError> {
    let body = CreateCallBody::read(&body)?;
    let is = |said: &Option<String>, known: &str| {
        said.as_ref().is_none_or(|said| said.eq_ignore_ascii_case(known))
    };
    if !is(&body.tenant_id, &request.graph.tenant) {
        return Err(ApiError::TenantMismatch);
    }
    if !is(&body.source_application, &request.caller.id) {
        return Err(ApiError::SourceMismatch);
    }
    request.check_callback(Some(&body.callback_uri))?;
    let new = NewCall {
        id: request.next_call,
        source_name: body.source_name,
        target: body.target,
        subject: body.subject,
        chain_id: body.call_chain_id,
        callback_uri: Some(body.callback_uri),
        media_config: Some(body.media_config),
        prefetch: body.prefetch,
        ringing_timeout_seconds: body.ringing_timeout_seconds,
    };
    let placed = request.state.calls.place(request.application(), new);
    request.placed(&deadline::acting(placed).await?)
}

pub(super) async fn show(
    request: GraphRequest,
    Path(call): Path<CallId>,
) -> Result<Response, ApiError> {
    let options = QueryOptions::for_call(request.query())?;
    let call = request.call(call).await?;
    let shown = json(&graph::Call::entity(&request.graph, &call));
    let shown = request.expanded(shown, &call, &options).await?;
    Ok(ok(&options.entity(shown)))
}

pub(super) async fn hang_up(
    request: GraphRequest,
    Path(call): Path<CallId>,
) -> Result<Response, ApiError> {
    QueryOptions::for_action(request.query())?;
    deadline::acting(request.state.calls.hang_up(request.application(), call)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn answer(
    request: GraphRequest,
    Path(call): Path<CallId>,
    ActionBody(body): ActionBody,
) -> Result<Response, ApiError> {
    let AnswerBody { callback_uri, media_config, prefetch } = AnswerBody::read(&body)?;
    request.check_callback(callback_uri.as_deref())?;
    let (calls, application) = (&request.state.calls, request.application());
    let answered = calls.answer(application, call, callback_uri, Some(media_config), prefetch);
    deadline::acting(answered).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

pub(super) async fn reject(
    request: GraphRequest,
    Path(call): Path<CallId>,
    ActionBody(body): ActionBody,
) -> Result<Response, ApiError> {
    let RejectBody { reason, callback_uri } = RejectBody::read(&body)?;
    request.check_callback(callback_uri.as_deref())?;
    let rejected = request.state.calls.reject(request.application(), call, reason, callback_uri);
    deadline::acting(rejected).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

pub(super) async fn redirect(
    request: GraphRequest,
    Path(call): Path<CallId>,
    ActionBody(body): ActionBody,
) -> Result<Response, ApiError> {
    let mut redirect = RedirectBody::read(&body)?;
    request.check_callback(redirect.callback_uri.as_deref())?;
    let (Some(target), [], false) =
        (redirect.targets.pop(), &redirect.targets[..], redirect.is_masked)
    else {
        return Err(ApiError::NotImplemented(
            "A redirect to several targets, or one that hides a party,",
        ));
    };
    let (calls, application) = (&request.state.calls, request.application());
    deadline::acting(calls.redirect(application, call, target, redirect.callback_uri)).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

pub(super) async fn transfer(
    request: GraphRequest,
    Path(call): Path<CallId>,
    ActionBody(body): ActionBody,
) -> Result<Response, ApiError> {
    let to = match TransferBody::read(call, &body)? {
        TransferBody::Party(party) => TransferTarget::Party(party),
        TransferBody::PeerOf(other) => TransferTarget::PeerOf(other),
    };
    deadline::acting(request.state.calls.transfer(request.application(), call, to)).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Clients send neither a body nor a content type with it.
pub(super) async fn keep_alive(
    request: GraphRequest,
    Path(call): Path<CallId>,
) -> Result<Response, ApiError> {
    QueryOptions::for_action(request.query())?;
    deadline::acting(request.state.calls.keep_alive(request.application(), call)).await?;
    Ok(StatusCode::OK.into_response())
}

impl GraphRequest {
    /// Refuses a callback URI to which notifications can never be sent. The application of such a
    /// call would learn nothing about it.
    fn check_callback(&self, uri: Option<&str>) -> Result<(), ApiError> {
        let checked = uri.map_or(Ok(()), |uri| self.state.fence.check_text(uri));
        checked.map_err(|reason| {
            InvalidBody::NotAllowed {
                path: "callbackUri".to_owned(),
                expected: "a URI that this server may call (see fetch.allow_networks)".to_owned(),
                found: format!("one that it may not: {reason}"),
            }
            .into()
        })
    }

    /// The answer to a request that has placed a call.
    pub(super) fn placed(&self, call: &model::Call) -> Result<Response, ApiError> {
        let mut response = ok(&graph::Call::entity(&self.graph, call));
        *response.status_mut() = StatusCode::CREATED;
        let location = format!("{}/{}", self.graph.calls_url(), call.id);
        let location = HeaderValue::try_from(location).map_err(|_| ApiError::Internal)?;
        response.headers_mut().insert(LOCATION, location);
        Ok(response)
    }

    /// The current state of a call that has not ended.
    pub(super) async fn call(&self, call: CallId) -> Result<model::Call, ApiError> {
        let call = deadline::reading(self.state.calls.call(self.application(), call)).await?;
        if has_not_ended(&call) { Ok(call) } else { Err(CallError::NotFound.into()) }
    }

    /// Adds the expanded members to a call.
    async fn expanded(
        &self,
        mut shown: Value,
        call: &model::Call,
        options: &QueryOptions,
    ) -> Result<Value, ApiError> {
        if options.expands(Expanded::Operations) {
            let operations = self.state.calls.operations(self.application(), call.id);
            let operations = deadline::reading(operations).await?;
            let operations = operations.iter().map(|operation| self.element(operation));
            shown[Expanded::Operations.name()] = operations.collect();
        }
        if options.expands(Expanded::Participants) {
            shown[Expanded::Participants.name()] =
                json(&graph::Participant::all(&self.graph, call));
        }
        Ok(shown)
    }
}

/// An ended call is not found (contract section 7), even while the call service still has it.
fn has_not_ended(call: &model::Call) -> bool {
    call.state != CallState::Terminated
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::service::api::{
        INITIATE, body,
        fake::{
            CALL, Command, ENDED_CALL, Fake, LIMITED_TOKEN, OPERATION, PEER, TOKEN, bytes_of,
            json_of, schema_errors,
        },
    };
    use aftertone_core::model::{OperationEnd, OperationKind, Party, RejectReason};

    /// Contract section 12, as the JavaScript client sends it.
    const RECORD: &str = r##"{"bargeInAllowed":true,
        "clientContext":"d45324c1-fcb5-430a-902c-f20af696537c",
        "prompts":[{"@odata.type":"#microsoft.graph.mediaPrompt","mediaInfo":{
            "uri":"https://bot.example/prompts/short.wav",
            "resourceId":"1D6DE2D4-CD51-4309-8DAA-70768651088E"}}],
        "maxRecordDurationInSeconds":10,"initialSilenceTimeoutInSeconds":5,
        "maxSilenceTimeoutInSeconds":2,"playBeep":true,"stopTones":["#","1","*"]}"##;

    const ANSWER: &str = r##"{"callbackUri":"https://bot.example/api/calls",
        "acceptedModalities":["audio"],
        "mediaConfig":{"@odata.type":"#microsoft.graph.serviceHostedMediaConfig",
            "preFetchMedia":[{"uri":"https://bot.example/prompts/short.wav",
                "resourceId":"1D6DE2D4-CD51-4309-8DAA-70768651088E"}]}}"##;

    const PLAY: &str =
        r##"{"prompts":[{"mediaInfo":{"uri":"https://bot.example/prompts/short.wav"}}]}"##;

    const TONES: &str = r##"{"tones":["tone1","star","#"],"delayBetweenTonesMs":200}"##;

    const STATUS: &str = r#"{"status":"recording"}"#;

    const REDIRECT: &str = r##"{"targets":[{"identity":{"phone":{"id":"+15550199"}}}]}"##;

    fn call_path(version: &str, rest: &str) -> String {
        format!("{version}/communications/calls/{CALL}{rest}")
    }

    #[tokio::test]
    async fn a_call_is_created_and_shown_with_its_location() {
        let fake = Fake::new();
        let body = r##"{"@odata.type":"#microsoft.graph.call",
            "callbackUri":"https://bot.example/api/calls",
            "source":{"identity":{"application":{"id":"MyBot","displayName":"Bot"}}},
            "targets":[{"identity":{"phone":{"id":"+15550123"}}}],
            "requestedModalities":["audio"],
            "mediaConfig":{"@odata.type":"#microsoft.graph.serviceHostedMediaConfig"}}"##;
        let response = fake.send("POST", "/v1.0/communications/calls", Some(body)).await;
        assert_eq!(response.status(), 201);
        assert_eq!(
            response.headers()["location"],
            format!("https://api.example/v1.0/communications/calls/{CALL}")
        );
        let shown = json_of(response).await;
        assert_eq!(shown["state"], "establishing");
        assert_eq!(shown["direction"], "outgoing");
        assert_eq!(shown["targets"][0]["identity"]["phone"]["id"], "+15550123");
        assert_eq!(shown["source"]["identity"]["application"]["displayName"], "Bot");
        assert_eq!(schema_errors("v1.0.microsoft.graph.call", &shown), "");
        let Some(Command::Place(new)) = fake.service.last_command() else { panic!("not placed") };
        assert_eq!(new.target.uri, "tel:+15550123");

        let path = "/v1.0/communications/calls";
        for (with, code) in [
            (body.replace("MyBot", "other"), "7507"),
            (body.replacen('{', r#"{"tenantId":"another","#, 1), "7505"),
        ] {
            let refused = fake.send("POST", path, Some(&with)).await;
            assert_eq!(refused.status(), 403, "{code}");
            assert_eq!(json_of(refused).await["error"]["code"], code);
        }
        let json_type = [("content-type", "application/json")];
        let refused = fake.ask_with_body("POST", path, LIMITED_TOKEN, &json_type, body).await;
        assert_eq!(refused.status(), 403, "it takes the role {INITIATE}");
        let empty = fake.send("POST", path, Some("{}")).await;
        assert_eq!(empty.status(), 400);
    }

    #[tokio::test]
    async fn a_callback_that_can_never_be_reached_is_refused_before_anything_is_done() {
        let create = r##"{"callbackUri":"https://bot.example/api/calls",
            "targets":[{"identity":{"phone":{"id":"+15550123"}}}],
            "mediaConfig":{"@odata.type":"#microsoft.graph.serviceHostedMediaConfig"}}"##;
        let with_callback = |body: &str| {
            body.replacen('{', r#"{"callbackUri":"https://bot.example/api/calls","#, 1)
        };
        for (path, body) in [
            ("/v1.0/communications/calls".to_owned(), create.to_owned()),
            (call_path("/v1.0", "/answer"), ANSWER.to_owned()),
            (call_path("/v1.0", "/reject"), with_callback(r#"{"reason":"busy"}"#)),
            (call_path("/v1.0", "/redirect"), with_callback(REDIRECT)),
        ] {
            for (uri, told) in [
                ("http://10.1.2.3/api/calls", "fetch.allow_networks"),
                (r"https://bot.example/\u0000", "NUL"),
                (r"https://bot.example/\n", "control characters"),
            ] {
                let fake = Fake::new();
                let body = body.replace("https://bot.example/api/calls", uri);
                let refused = fake.send("POST", &path, Some(&body)).await;
                assert_eq!(refused.status(), 400, "{path} {uri}");
                let error = json_of(refused).await;
                assert_eq!(error["error"]["code"], "8523", "{path} {error}");
                let message = error["error"]["message"].as_str().unwrap();
                assert!(message.starts_with("callbackUri must be"), "{message}");
                assert!(message.contains(told), "{message}");
                assert_eq!(fake.service.last_command(), None, "{path} {uri}");
            }
        }
    }

    #[tokio::test]
    async fn the_example_of_the_record_page_is_answered_as_printed() {
        let fake = Fake::new();
        let response =
            fake.send("POST", &format!("/beta/app/calls/{CALL}/record"), Some(RECORD)).await;
        assert_eq!(response.status(), 200);
        let headers = response.headers();
        assert_eq!(
            headers["location"],
            format!("https://api.example/beta/communications/calls/{CALL}/operations/{OPERATION}")
        );
        assert_eq!(headers["odata-version"], "4.0");
        assert_eq!(
            headers["content-type"],
            "application/json; odata.metadata=minimal; charset=utf-8"
        );
        assert!(headers.contains_key("request-id"));
        let body = json_of(response).await;
        assert_eq!(
            body,
            json!({
                "@odata.context": "https://api.example/beta/$metadata#recordOperation",
                "@odata.type": "#microsoft.graph.recordOperation",
                "id": OPERATION,
                "clientContext": "d45324c1-fcb5-430a-902c-f20af696537c",
                "status": "running",
                "completionReason": null,
                "resultInfo": null,
                "recordingLocation": null,
                "recordingAccessToken": null
            })
        );
        assert_eq!(schema_errors("beta.microsoft.graph.recordOperation", &body), "");
        let Some(Command::Submit(new)) = fake.service.last_command() else {
            panic!("not submitted")
        };
        let OperationKind::Record(record) = new.kind else { panic!("not a record") };
        let stop_keys: String = record.stop_tones.iter().map(|tone| tone.as_char()).collect();
        assert_eq!((record.max_duration_seconds, stop_keys.as_str()), (10, "#1*"));
    }

    #[tokio::test]
    async fn every_action_is_answered_with_its_own_type() {
        let table = [
            ("record", RECORD, "recordOperation"),
            ("recordResponse", "{}", "recordOperation"),
            ("recordResponse", "", "recordOperation"),
            ("playPrompt", PLAY, "playPromptOperation"),
            ("subscribeToTone", r#"{"clientContext":"c"}"#, "subscribeToToneOperation"),
            ("cancelMediaProcessing", "{}", "cancelMediaProcessingOperation"),
            ("microsoft.graph.cancelMediaProcessing", "{}", "cancelMediaProcessingOperation"),
            ("microsoft.graph.sendDtmfTones", TONES, "sendDtmfTonesOperation"),
            ("mute", r#"{"clientContext":"c"}"#, "muteParticipantOperation"),
            ("unmute", "{}", "unmuteParticipantOperation"),
            (
                "updateRecordingStatus",
                r#"{"status":"NotRecording"}"#,
                "updateRecordingStatusOperation",
            ),
        ];
        for version in ["/v1.0", "/beta"] {
            for (action, body, name) in table {
                let fake = Fake::new();
                let path = call_path(version, &format!("/{action}"));
                let response = fake.send("POST", &path, Some(body)).await;
                assert_eq!(response.status(), 200, "{path}");
                let location = format!("https://api.example{}", call_path(version, "/operations/"));
                assert!(response.headers()["location"].to_str().unwrap().starts_with(&location));
                let shown = json_of(response).await;
                assert_eq!(shown["@odata.type"], format!("#microsoft.graph.{name}"));
                let schema = format!("{}.microsoft.graph.{name}", &version[1..]);
                assert_eq!(schema_errors(&schema, &shown), "", "{shown}");
            }
        }
    }

    #[tokio::test]
    async fn answer_reject_delete_and_keep_alive_reach_the_calls() {
        let fake = Fake::new();
        let response = fake.send("POST", &call_path("/v1.0", "/answer"), Some(ANSWER)).await;
        assert_eq!(response.status(), 202);
        assert_eq!(bytes_of(response).await, b"");
        let Some(Command::Answer { callback_uri, media_config, prefetch }) =
            fake.service.last_command()
        else {
            panic!()
        };
        assert_eq!(callback_uri.as_deref(), Some("https://bot.example/api/calls"));
        assert_eq!(prefetch.len(), 1);
        assert!(media_config.unwrap().contains("preFetchMedia"));

        let busy = Some(r#"{"reason":"Busy"}"#);
        let response = fake.send("POST", &call_path("", "/microsoft.graph.reject"), busy).await;
        assert_eq!(response.status(), 202);
        assert_eq!(fake.service.last_command(), Some(Command::Reject(RejectReason::Busy)));

        let response = fake.send("POST", &call_path("", "/redirect"), Some(REDIRECT)).await;
        assert_eq!(response.status(), 202);
        let target = Party { uri: "tel:+15550199".to_owned(), display_name: None };
        assert_eq!(fake.service.last_command(), Some(Command::Redirect(target)));

        let response = fake.send("POST", &call_path("/v1.0", "/keepAlive"), None).await;
        assert_eq!(response.status(), 200);
        assert_eq!(bytes_of(response).await, b"");
        assert_eq!(fake.service.last_command(), Some(Command::KeepAlive));

        let response = fake.send("DELETE", &call_path("/beta", ""), None).await;
        assert_eq!(response.status(), 204);
        assert_eq!(fake.service.last_command(), Some(Command::HangUp));
    }

    #[tokio::test]
    async fn calls_and_operations_are_shown_as_the_description_has_them() {
        let fake = Fake::new();
        fake.service.end_operation(OperationEnd::StopToneDetected);
        for version in ["v1.0", "beta"] {
            let prefix = format!("/{version}");
            let call = json_of(fake.get(&call_path(&prefix, "")).await).await;
            assert_eq!(call["id"], CALL);
            assert_eq!(schema_errors(&format!("{version}.microsoft.graph.call"), &call), "");

            let path = call_path(&prefix, &format!("/operations/{}", OPERATION.to_uppercase()));
            let operation = json_of(fake.get(&path).await).await;
            assert_eq!(operation["status"], "completed");
            assert_eq!(operation["recordingAccessToken"], "opens-one-recording");
            let schema = format!("{version}.microsoft.graph.recordOperation");
            assert_eq!(schema_errors(&schema, &operation), "");

            let list = json_of(fake.get(&call_path(&prefix, "/operations")).await).await;
            assert_eq!(list["value"][0]["id"], OPERATION);
            assert_eq!(list["value"][0].get("@odata.context"), None);
        }
    }

    #[tokio::test]
    async fn calls_are_listed_without_those_that_are_over() {
        let fake = Fake::new();
        let list = json_of(fake.get("/v1.0/communications/calls?$count=true").await).await;
        assert_eq!(list["@odata.count"], 1);
        assert_eq!(list["value"][0]["id"], CALL);
        assert_eq!(
            list["@odata.context"],
            "https://api.example/v1.0/$metadata#communications/calls"
        );
        let path = format!("/v1.0/communications/calls/{ENDED_CALL}");
        let response = fake.get(&path).await;
        assert_eq!(response.status(), 404);
        let error = json_of(response).await;
        assert_eq!(error["error"]["code"], "8522");
        assert_eq!(schema_errors("odata.error", &error), "");
    }

    #[tokio::test]
    async fn select_shows_what_was_asked_for() {
        let fake = Fake::new();
        let path = call_path("/v1.0", "?$select=id,state");
        let call = json_of(fake.get(&path).await).await;
        let names: Vec<&String> = call.as_object().unwrap().keys().collect();
        assert_eq!(names, ["@odata.context", "@odata.type", "id", "state"]);
        let path = call_path("/v1.0", "?$expand=operations,participants&$select=id");
        let call = json_of(fake.get(&path).await).await;
        assert_eq!(call["operations"][0]["id"], OPERATION);
        assert_eq!(call["participants"][1]["id"], PEER);
        assert_eq!(call.get("state"), None);
        assert_eq!(schema_errors("v1.0.microsoft.graph.call", &call), "");
        let refused = fake.get(&call_path("/v1.0", "?$expand=source")).await;
        assert_eq!(refused.status(), 400);
        assert_eq!(json_of(refused).await["error"]["code"], "BadRequest");
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_request_is_told() {
        let large = format!("\"{}\"", "x".repeat(body::MAX_BYTES));
        let long = r#"{"maxRecordDurationInSeconds":301}"#;
        let (several, masked, impatient) = (
            REDIRECT.replace("]}", r#",{"identity":{"user":{"id":"sip:a@b"}}}]}"#),
            REDIRECT.replace("]}", r#"],"maskCaller":true}"#),
            REDIRECT.replace("]}", r#"],"timeout":14}"#),
        );
        let itself = format!(r#"{{"transferTarget":{{"replacesCallId":"{CALL}"}}}}"#);
        let app_hosted =
            r##"{"mediaConfig":{"@odata.type":"#microsoft.graph.appHostedMediaConfig"}}"##;
        let table = [
            ("POST", "/record", long, 400, "8523"),
            ("POST", "/record", r#"{"playBeep":"yes"}"#, 400, "BadRequest"),
            ("POST", "/record", "{", 400, "BadRequest"),
            ("POST", "/record", &large, 413, "RequestEntityTooLarge"),
            ("POST", "/answer", app_hosted, 400, "8500"),
            ("POST", "/playPrompt", "{}", 400, "8523"),
            ("POST", "/record?$select=id", "{}", 400, "BadRequest"),
            ("GET", "/record", "", 405, "MethodNotAllowed"),
            ("PATCH", "", "{}", 405, "MethodNotAllowed"),
            ("POST", "/operations", "{}", 405, "MethodNotAllowed"),
            ("POST", "/transfer", "{}", 400, "8523"),
            ("POST", "/transfer", &itself, 400, "8523"),
            ("POST", "/redirect", "{}", 400, "8523"),
            ("POST", "/redirect", &several, 501, "8520"),
            ("POST", "/redirect", &masked, 501, "8520"),
            ("POST", "/redirect", &impatient, 400, "8523"),
            ("POST", "/sendDtmfTones", "{}", 400, "8523"),
            ("POST", "/sendDtmfTones", r#"{"tones":["flash"]}"#, 400, "8523"),
            ("POST", "/sendDtmfTones", r#"{"tones":"1"}"#, 400, "BadRequest"),
            ("POST", "/updateRecordingStatus", "{}", 400, "8523"),
            ("POST", "/updateRecordingStatus", r#"{"status":"maybe"}"#, 400, "8523"),
            ("POST", "/participants/invite", "{}", 501, "8520"),
            ("POST", "/startRecording", "{}", 501, "8520"),
            ("POST", "/participants", "{}", 405, "MethodNotAllowed"),
            ("GET", "/participants/x", "", 404, "8522"),
            ("POST", "/dance", "{}", 404, "ResourceNotFound"),
            ("GET", "/operations/x", "", 404, "8522"),
        ];
        for (method, rest, body, status, code) in table {
            let fake = Fake::new();
            let body = (!body.is_empty()).then_some(body);
            let response = fake.send(method, &call_path("/v1.0", rest), body).await;
            assert_eq!(response.status(), status, "{method} {rest}");
            assert!(response.headers().contains_key("request-id"));
            let error = json_of(response).await;
            assert_eq!(error["error"]["code"], code, "{method} {rest}: {error}");
            assert_eq!(schema_errors("odata.error", &error), "");
            assert_eq!(fake.service.last_command(), None, "{method} {rest}");
        }
    }

    #[tokio::test]
    async fn the_message_names_the_member_and_the_range() {
        let fake = Fake::new();
        let body = Some(r#"{"maxRecordDurationInSeconds":301}"#);
        let response = fake.send("POST", &call_path("/beta", "/record"), body).await;
        assert_eq!(
            json_of(response).await["error"]["message"],
            "maxRecordDurationInSeconds must be a whole number from 1 to 300, but is 301."
        );
        let response = fake.send("POST", &call_path("/v1.0", "/dance"), None).await;
        assert_eq!(
            json_of(response).await["error"]["message"],
            "Resource not found for the segment 'dance'."
        );
    }

    #[tokio::test]
    async fn another_media_type_is_refused() {
        let path = call_path("/v1.0", "/record");
        let headers = [("content-type", "text/plain")];
        let response = Fake::new().ask_with_body("POST", &path, TOKEN, &headers, "{}").await;
        assert_eq!(response.status(), 415);
    }

    /// Every route with every kind of token.
    #[tokio::test]
    async fn only_known_callers_with_the_role_get_through() {
        let table = [
            ("GET", "/v1.0/communications/calls".to_owned(), "", 200),
            ("GET", call_path("/v1.0", ""), "", 200),
            ("GET", call_path("/v1.0", "/operations"), "", 200),
            ("GET", call_path("/v1.0", &format!("/operations/{OPERATION}")), "", 200),
            ("POST", call_path("/v1.0", "/answer"), ANSWER, 202),
            ("POST", call_path("/v1.0", "/reject"), "{}", 202),
            ("POST", call_path("/v1.0", "/keepAlive"), "", 200),
            ("POST", call_path("/v1.0", "/playPrompt"), PLAY, 200),
            ("POST", call_path("/v1.0", "/cancelMediaProcessing"), "{}", 200),
            ("POST", call_path("/v1.0", "/record"), "{}", 403),
            ("POST", call_path("/v1.0", "/recordResponse"), "{}", 403),
            ("POST", call_path("/v1.0", "/subscribeToTone"), "{}", 403),
            ("POST", call_path("/v1.0", "/sendDtmfTones"), TONES, 200),
            ("POST", call_path("/v1.0", "/mute"), "{}", 200),
            ("POST", call_path("/v1.0", "/unmute"), "{}", 200),
            ("POST", call_path("/v1.0", "/updateRecordingStatus"), STATUS, 200),
            ("POST", call_path("/v1.0", "/redirect"), REDIRECT, 403),
            ("GET", call_path("/v1.0", "/participants"), "", 200),
            ("GET", call_path("/v1.0", &format!("/participants/{PEER}")), "", 200),
            ("POST", call_path("/v1.0", &format!("/participants/{PEER}/mute")), "{}", 200),
            ("DELETE", call_path("/v1.0", &format!("/participants/{PEER}")), "", 204),
            ("DELETE", call_path("/v1.0", ""), "", 204),
        ];
        let json_type = [("content-type", "application/json")];
        for (method, path, body, with_limited_token) in table {
            for (token, status) in [("", 401), ("wrong", 401), (LIMITED_TOKEN, with_limited_token)]
            {
                let response =
                    Fake::new().ask_with_body(method, &path, token, &json_type, body).await;
                assert_eq!(response.status(), status, "{method} {path} {token:?}");
                match status {
                    401 => {
                        assert_eq!(response.headers()["www-authenticate"], "Bearer");
                        let error = json_of(response).await;
                        assert_eq!(error["error"]["code"], "InvalidAuthenticationToken");
                    }
                    403 => assert_eq!(json_of(response).await["error"]["code"], "7504"),
                    _ => {}
                }
            }
            let response = Fake::new().ask_with_body(method, &path, TOKEN, &json_type, body).await;
            assert!(response.status().is_success(), "{method} {path}");
        }
    }

    #[tokio::test]
    async fn unknown_paths_of_the_api_want_a_token_and_others_do_not() {
        let fake = Fake::new();
        assert_eq!(fake.ask("GET", "/v1.0/users", "", &[]).await.status(), 401);
        assert_eq!(fake.ask("GET", "/favicon.ico", "", &[]).await.status(), 404);
    }

    #[tokio::test]
    async fn a_refusal_of_the_call_is_quoted() {
        let table = [
            (CallError::NotEstablished, 400, "8501"),
            (CallError::Terminated, 400, "8528"),
            (CallError::WrongState, 400, "8585"),
            (CallError::Conflict, 409, "8519"),
            (CallError::Overloaded { retry_after: 3 }, 503, "ServiceUnavailable"),
            (CallError::Internal, 500, "UnknownError"),
        ];
        for (error, status, code) in table {
            let fake = Fake::new();
            fake.service.refuse(error);
            let response = fake.send("POST", &call_path("/v1.0", "/record"), Some("{}")).await;
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().contains_key("retry-after"), status == 503);
            assert_eq!(json_of(response).await["error"]["code"], code);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_does_not_answer_in_time_is_not_asked_twice() {
        let fake = Fake::new();
        let _gate = fake.service.hold();
        let response = fake.send("POST", &call_path("/v1.0", "/record"), Some("{}")).await;
        // SDKs automatically repeat a request that gets 503. This one must not be repeated.
        assert_eq!(response.status(), 500);
        let response = fake.get(&call_path("/v1.0", "")).await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
    }
}
