//! The two sides of a call as participants (contract section 2): list, get, delete, mute and hold
//! music.

use axum::{
    extract::{Path, Request},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::Value;

use super::{
    body, deadline,
    error::ApiError,
    json::{json, ok},
    query::QueryOptions,
    request::GraphRequest,
};
use aftertone_core::{
    graph::{self, HoldMusicBody},
    model::{CallId, OperationKind, ParticipantId, Side},
};

/// The ids in the path of a participant.
type ParticipantPath = Path<(CallId, ParticipantId)>;

pub(super) async fn list(
    request: GraphRequest,
    Path(call): Path<CallId>,
) -> Result<Response, ApiError> {
    let options = QueryOptions::for_collection(request.query(), &graph::Participant::MEMBERS)?;
    let participants = graph::Participant::all(&request.graph, &request.call(call).await?);
    let context =
        request.graph.metadata_url(&format!("communications/calls('{call}')/participants"));
    let url = request.graph.participants_url(call);
    let (participants, place) = options.on_page(participants);
    let shown = participants.iter().map(json).collect();
    Ok(ok(&options.page(context, &url, place, shown)))
}

pub(super) async fn show(
    request: GraphRequest,
    Path((call, id)): ParticipantPath,
) -> Result<Response, ApiError> {
    let options = QueryOptions::for_entity(request.query(), &graph::Participant::MEMBERS)?;
    let shown = graph::Participant::entity(&request.graph, &request.call(call).await?, id);
    Ok(ok(&options.entity(json(&shown.ok_or(ApiError::NoParticipant)?))))
}

/// Removing either side ends the call.
pub(super) async fn remove(
    request: GraphRequest,
    Path((call, id)): ParticipantPath,
) -> Result<Response, ApiError> {
    QueryOptions::for_action(request.query())?;
    request.side(call, id).await?;
    deadline::acting(request.state.calls.hang_up(request.application(), call)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

pub(super) async fn mute(
    request: GraphRequest,
    Path(ids): ParticipantPath,
    http: Request,
) -> Result<Response, ApiError> {
    let mute =
        |side, body: &Value| Ok((OperationKind::Mute { side }, graph::client_context(body)?));
    request.act_on_participant(ids, http, mute).await
}

pub(super) async fn unmute(
    request: GraphRequest,
    Path(ids): ParticipantPath,
    http: Request,
) -> Result<Response, ApiError> {
    let unmute =
        |side, body: &Value| Ok((OperationKind::Unmute { side }, graph::client_context(body)?));
    request.act_on_participant(ids, http, unmute).await
}

pub(super) async fn start_hold_music(
    request: GraphRequest,
    Path(ids): ParticipantPath,
    http: Request,
) -> Result<Response, ApiError> {
    let start = |side, body: &Value| {
        can_be_held(side)?;
        let HoldMusicBody { prompt, client_context } = HoldMusicBody::read(body)?;
        Ok((OperationKind::StartHoldMusic { prompt }, client_context))
    };
    request.act_on_participant(ids, http, start).await
}

pub(super) async fn stop_hold_music(
    request: GraphRequest,
    Path(ids): ParticipantPath,
    http: Request,
) -> Result<Response, ApiError> {
    let stop = |side, body: &Value| {
        can_be_held(side)?;
        Ok((OperationKind::StopHoldMusic, graph::client_context(body)?))
    };
    request.act_on_participant(ids, http, stop).await
}

/// An application cannot put itself on hold.
fn can_be_held(side: Side) -> Result<(), ApiError> {
    match side {
        Side::Ours => Err(ApiError::OwnHold),
        Side::Peers => Ok(()),
    }
}

impl GraphRequest {
    /// Submits the operation that `read` makes of the side and the body.
    async fn act_on_participant(
        &self,
        (call, id): (CallId, ParticipantId),
        http: Request,
        read: impl FnOnce(Side, &Value) -> Result<(OperationKind, Option<String>), ApiError>,
    ) -> Result<Response, ApiError> {
        QueryOptions::for_action(self.query())?;
        let side = self.side(call, id).await?;
        let (parts, body) = http.into_parts();
        let (kind, context) = read(side, &body::json(&parts.headers, body).await?)?;
        let is_queued = kind.is_queued();
        let mut response = self.submit(call, kind, context).await?;
        if is_queued {
            *response.status_mut() = StatusCode::ACCEPTED;
        }
        Ok(response)
    }

    async fn side(&self, call: CallId, id: ParticipantId) -> Result<Side, ApiError> {
        self.call(call).await?.side(id).ok_or(ApiError::NoParticipant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::api::fake::{
        CALL, Command, Fake, PARTICIPANT, PEER, json_of, schema_errors,
    };
    use aftertone_core::graph::IdentityType;

    fn path(rest: &str) -> String {
        format!("/v1.0/communications/calls/{CALL}/participants{rest}")
    }

    #[tokio::test]
    async fn both_sides_are_listed_and_shown() {
        let fake = Fake::new();
        let list = json_of(fake.get(&path("?$count=true")).await).await;
        assert_eq!(list["@odata.count"], 2);
        assert_eq!(list["value"][0]["id"], PARTICIPANT);
        assert_eq!(list["value"][1]["id"], PEER);
        let shown = json_of(fake.get(&path(&format!("/{}", PEER.to_uppercase()))).await).await;
        assert_eq!(shown["id"], PEER);
        assert_eq!(schema_errors("v1.0.microsoft.graph.participant", &shown), "");
        assert_eq!(schema_errors("beta.microsoft.graph.participant", &shown), "");
    }

    #[tokio::test]
    async fn the_type_of_the_setting_is_declared_and_fits_the_description() {
        let calls = "/communications/calls";
        for (declared, name) in [
            (IdentityType::IdentitySet, "identitySet"),
            (IdentityType::CommunicationsIdentitySet, "communicationsIdentitySet"),
        ] {
            let mut fake = Fake::new();
            fake.state = fake.state.with_identity_type(declared);
            for version in ["v1.0", "beta"] {
                for (path, shown_as) in [
                    (format!("{calls}/{CALL}?$expand=participants"), "call"),
                    (format!("{calls}/{CALL}/participants/{PEER}"), "participant"),
                ] {
                    let shown = json_of(fake.get(&format!("/{version}{path}")).await).await;
                    let schema = format!("{version}.microsoft.graph.{shown_as}");
                    assert_eq!(schema_errors(&schema, &shown), "", "{shown}");
                    let text = shown.to_string();
                    let sets = text.matches("dentitySet\"").count();
                    let of_setting = format!("\"#microsoft.graph.{name}\"");
                    assert!(sets > 0 && text.matches(&of_setting).count() == sets, "{text}");
                }
            }
        }
    }

    #[tokio::test]
    async fn who_is_not_in_the_call_is_not_found() {
        let nobody = path(&format!("/{CALL}"));
        for (method, rest) in [("GET", ""), ("DELETE", ""), ("POST", "/mute")] {
            let fake = Fake::new();
            let body = (method == "POST").then_some("{}");
            let response = fake.send(method, &format!("{nobody}{rest}"), body).await;
            assert_eq!(response.status(), 404, "{method} {rest}");
            assert_eq!(json_of(response).await["error"]["code"], "8522");
            assert_eq!(fake.service.last_command(), None);
        }
    }

    #[tokio::test]
    async fn actions_are_operations_on_their_side() {
        let play = r##"{"customPrompt":{"mediaInfo":{"uri":"https://bot.example/hold.wav"}}}"##;
        let table = [
            (PEER, "mute", "{}", 200, "muteParticipantOperation"),
            (PARTICIPANT, "microsoft.graph.mute", "{}", 200, "muteParticipantOperation"),
            (PEER, "unmute", "{}", 200, "unmuteParticipantOperation"),
            (PEER, "startHoldMusic", play, 202, "startHoldMusicOperation"),
            (PEER, "stopHoldMusic", "{}", 202, "stopHoldMusicOperation"),
        ];
        for (id, action, body, status, name) in table {
            let fake = Fake::new();
            let response = fake.send("POST", &path(&format!("/{id}/{action}")), Some(body)).await;
            assert_eq!(response.status(), status, "{action}");
            assert!(response.headers().contains_key("location"));
            let shown = json_of(response).await;
            assert_eq!(shown["@odata.type"], format!("#microsoft.graph.{name}"));
            assert_eq!(schema_errors(&format!("v1.0.microsoft.graph.{name}"), &shown), "");
            let Some(Command::Submit(new)) = fake.service.last_command() else {
                panic!("{action}")
            };
            let side = if id == PEER { Side::Peers } else { Side::Ours };
            match new.kind {
                OperationKind::Mute { side: muted } | OperationKind::Unmute { side: muted } => {
                    assert_eq!(muted, side);
                }
                OperationKind::StartHoldMusic { prompt } => {
                    assert_eq!(prompt.unwrap().uri, "https://bot.example/hold.wav");
                }
                other => assert_eq!(other, OperationKind::StopHoldMusic),
            }
        }
        let own = path(&format!("/{PARTICIPANT}/startHoldMusic"));
        let response = Fake::new().send("POST", &own, Some("{}")).await;
        assert_eq!(response.status(), 400);
        assert_eq!(json_of(response).await["error"]["code"], "8523");
    }
}
