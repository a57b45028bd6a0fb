//! The operations of a call in the Graph API: list, show, and the actions that begin one.

use axum::{
    extract::Path,
    http::{HeaderValue, header::LOCATION},
    response::Response,
};
use serde_json::Value;

use super::{
    deadline,
    error::ApiError,
    json::{json, ok},
    query::QueryOptions,
    request::{ActionBody, GraphRequest},
};
use crate::service::switchboard::NewOperation;
use aftertone_core::{
    graph::{
        self, PlayPromptBody, RecordBody, RecordingLink, RecordingStatusBody, SendDtmfTonesBody,
    },
    model::{self, CallId, OperationId, OperationKind, RecordAction, Side},
};

pub(super) async fn list(
    request: GraphRequest,
    Path(call): Path<CallId>,
) -> Result<Response, ApiError> {
    let options = QueryOptions::for_collection(request.query(), &graph::Operation::MEMBERS)?;
    let operations = request.state.calls.operations(request.application(), call);
    let operations = deadline::reading(operations).await?;
    let context = request.graph.metadata_url(&format!("communications/calls('{call}')/operations"));
    let url = request.graph.operations_url(call);
    let (operations, place) = options.on_page(operations);
    let shown = operations.iter().map(|operation| request.element(operation)).collect();
    Ok(ok(&options.page(context, &url, place, shown)))
}

pub(super) async fn show(
    request: GraphRequest,
    Path((call, id)): Path<(CallId, OperationId)>,
) -> Result<Response, ApiError> {
    let options = QueryOptions::for_entity(request.query(), &graph::Operation::MEMBERS)?;
    let operation = request.state.calls.operation(request.application(), call, id);
    let operation = deadline::reading(operation).await?;
    let link = request.link(&operation);
    let shown = json(&graph::Operation::entity(&request.graph, &operation, link.as_ref()));
    Ok(ok(&options.entity(shown)))
}

pub(super) async fn play_prompt(
    request: GraphRequest,
    Path(call): Path<CallId>,
    ActionBody(body): ActionBody,
) -> Result<Response, ApiError> {
    let body = PlayPromptBody::read(&body)?;
    request.submit(call, OperationKind::PlayPrompt(body.request), body.client_context).await
}

pub(super) async fn record(
    request: GraphRequest,
    Path(call): Path<CallId>,
    ActionBody(body): ActionBody,
) -> Result<Response, ApiError> {
    let body = RecordBody::read(RecordAction::Record, &body)?;
    request.submit(call, OperationKind::Record(body.request), body.client_context).await
}

pub(super) async fn record_response(
    request: GraphRequest,
    Path(call): Path<CallId>,
    ActionBody(body): ActionBody,
) -> Result<Response, ApiError> {
    let body = RecordBody::read(RecordAction::RecordResponse, &body)?;
    request.submit(call, OperationKind::Record(body.request), body.client_context).await
}

pub(super) async fn cancel_media_processing(
    request: GraphRequest,
    Path(call): Path<CallId>,
    ActionBody(body): ActionBody,
) -> Result<Response, ApiError> {
    let context = graph::client_context(&body)?;
    request.submit(call, OperationKind::CancelMediaProcessing, context).await
}

pub(super) async fn subscribe_to_tone(
    request: GraphRequest,
    Path(call): Path<CallId>,
    ActionBody(body): ActionBody,
) -> Result<Response, ApiError> {
    let context = graph::client_context(&body)?;
    request.submit(call, OperationKind::SubscribeToTone, context).await
}

pub(super) async fn send_dtmf_tones(
    request: GraphRequest,
    Path(call): Path<CallId>,
    ActionBody(body): ActionBody,
) -> Result<Response, ApiError> {
    let body = SendDtmfTonesBody::read(&body)?;
    request.submit(call, OperationKind::SendDtmfTones(body.request), body.client_context).await
}

pub(super) async fn mute(
    request: GraphRequest,
    Path(call): Path<CallId>,
    ActionBody(body): ActionBody,
) -> Result<Response, ApiError> {
    let context = graph::client_context(&body)?;
    request.submit(call, OperationKind::Mute { side: Side::Ours }, context).await
}

pub(super) async fn unmute(
    request: GraphRequest,
    Path(call): Path<CallId>,
    ActionBody(body): ActionBody,
) -> Result<Response, ApiError> {
    let context = graph::client_context(&body)?;
    request.submit(call, OperationKind::Unmute { side: Side::Ours }, context).await
}

pub(super) async fn update_recording_status(
    request: GraphRequest,
    Path(call): Path<CallId>,
    ActionBody(body): ActionBody,
) -> Result<Response, ApiError> {
    let RecordingStatusBody { status, client_context } = RecordingStatusBody::read(&body)?;
    request.submit(call, OperationKind::UpdateRecordingStatus { status }, client_context).await
}

impl GraphRequest {
    /// Submits an operation. The answer is the operation as it is immediately after.
    pub(super) async fn submit(
        &self,
        call: CallId,
        kind: OperationKind,
        client_context: Option<String>,
    ) -> Result<Response, ApiError> {
        let new = NewOperation { kind, client_context };
        let submitted = self.state.calls.submit(self.application(), call, new);
        let operation = deadline::acting(submitted).await?;
        let link = self.link(&operation);
        let shown = graph::Operation::entity(&self.graph, &operation, link.as_ref());
        let mut response = ok(&shown);
        let location = self.graph.operation_url(call, operation.id);
        let location = HeaderValue::try_from(location).map_err(|_| ApiError::Internal)?;
        response.headers_mut().insert(LOCATION, location);
        Ok(response)
    }

    /// An operation as part of a collection.
    pub(super) fn element(&self, operation: &model::Operation) -> Value {
        let link = self.link(operation);
        json(&graph::Operation::element(&self.graph, operation, link.as_ref()))
    }

    fn link(&self, operation: &model::Operation) -> Option<RecordingLink> {
        let recorded = operation.recording.as_ref()?;
        Some(self.state.store.recording_link(recorded.id))
    }
}
