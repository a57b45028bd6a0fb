//! Probes for the service manager and load balancers: liveness, and readiness for calls.

use std::{borrow::Cow, time::SystemTime};

use axum::{
    Json,
    extract::State,
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{AUTHORIZATION, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
};
use humantime::format_rfc3339_seconds;
use serde_json::{Map, Value, json};

use super::{ApiState, error::ApiError, exchange::Audit, now};
use crate::drivers::{recordings::LostAndFound, signalling::TrunkReport};
use aftertone_core::proto::sip::registration::TrunkState;

/// `/healthz`: the process can answer.
pub(super) async fn alive(method: Method) -> Response {
    probe("/healthz", &method, || Json(json!({"status": "alive"})).into_response())
}

/// `/readyz`: calls can be accepted. Not ready while draining, or when storage is behind. Every
/// client gets the status and its reason; members that name peers or failures need a token.
pub(super) async fn ready(
    State(state): State<ApiState>,
    headers: HeaderMap,
    method: Method,
) -> Response {
    let is_ready = state.calls.ready().await;
    let mut body =
        if is_known(&state, &headers).await { for_applications(&state).await } else { Map::new() };
    probe("/readyz", &method, || match is_ready {
        Ok(()) => {
            body.insert("status".to_owned(), json!("ready"));
            Json(body).into_response()
        }
        Err(reason) => {
            let retry = [(RETRY_AFTER, HeaderValue::from_static("1"))];
            body.insert("status".to_owned(), json!("not ready"));
            body.insert("reason".to_owned(), json!(reason));
            (StatusCode::SERVICE_UNAVAILABLE, retry, Json(body)).into_response()
        }
    })
}

/// The members that need a token, by name. The state of the trunks does not change the status,
/// because incoming calls work without them. Clips in `lost+found` do not change it either.
async fn for_applications(state: &ApiState) -> Map<String, Value> {
    let trunks: Value = state.calls.trunks().await.into_iter().map(trunk).collect();
    let LostAndFound { files, bytes, oldest } = state.store.lost_and_found();
    let oldest = oldest.map(|at| format_rfc3339_seconds(SystemTime::from(at)).to_string());
    let lost = json!({"files": files, "bytes": bytes, "oldest": oldest});
    Map::from_iter([("trunks".to_owned(), trunks), ("lostAndFound".to_owned(), lost)])
}

/// Schema of the body of `/readyz`.
pub(super) fn described() -> Value {
    let trunk = json!({
        "name": {"type": "string"},
        "state": {"type": "string"},
        "seconds": {"type": "integer", "description": "For how long it has been so"},
        "lastStatus": {"type": ["integer", "null"]},
        "failure": {"type": ["string", "null"]},
    });
    let lost = json!({
        "files": {"type": "integer"},
        "bytes": {"type": "integer"},
        "oldest": {"type": ["string", "null"], "format": "date-time"},
    });
    json!({
        "type": "object",
        "properties": {
            "status": {"enum": ["ready", "not ready"]},
            "reason": {"type": "string"},
            "trunks": {
                "description": "Trunks that we register at; with a token",
                "type": "array",
                "items": {"type": "object", "properties": trunk},
            },
            "lostAndFound": {
                "description": "Clips that the database does not know; with a token",
                "type": "object",
                "properties": lost,
            },
        },
        "required": ["status"],
    })
}

/// Whether the request is from an application. An invalid token counts as none: the probe is
/// answered without the members for applications.
async fn is_known(state: &ApiState, headers: &HeaderMap) -> bool {
    if !headers.contains_key(AUTHORIZATION) {
        return false;
    }
    let credentials = state.credentials.borrow().clone();
    credentials.authenticate(headers, now()).await.is_ok()
}

/// The state of a trunk. When the trunk is idle because its address is not found, the state is the
/// reason.
fn trunk(report: TrunkReport) -> Value {
    let TrunkReport { name, status, no_way } = report;
    let no_way = no_way.map(|why| format!("no way: {why}"));
    let state = match (&no_way, status.state) {
        (Some(no_way), TrunkState::Idle) => no_way.clone(),
        (_, state) => state.to_string(),
    };
    json!({
        "name": name,
        "state": state,
        "seconds": status.since.elapsed().as_secs(),
        "lastStatus": status.last_status,
        "failure": status.failure.map(|failure| failure.to_string()).or(no_way),
    })
}

fn probe(route: &'static str, method: &Method, answer: impl FnOnce() -> Response) -> Response {
    let mut response = match *method {
        Method::GET | Method::HEAD => answer(),
        _ => ApiError::Method { allow: "GET, HEAD" }.into_response(),
    };
    let audit = Audit { route: Cow::Borrowed(route), application: None, probe: true };
    response.extensions_mut().insert(audit);
    response
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::service::api::fake::{Fake, LIMITED_TOKEN, TOKEN, json_of};

    #[tokio::test]
    async fn trunks_and_their_failures_are_named_to_applications_only() {
        let fake = Fake::new();
        for reason in [None, Some("draining")] {
            reason.into_iter().for_each(|reason| fake.service.set_not_ready(reason));
            for token in ["", "wrong"] {
                let shown = json_of(fake.ask("GET", "/readyz", token, &[]).await).await;
                let told = match reason {
                    None => json!({"status": "ready"}),
                    Some(reason) => json!({"status": "not ready", "reason": reason}),
                };
                assert_eq!(shown, told, "{token}");
            }
            for token in [TOKEN, LIMITED_TOKEN] {
                let shown = json_of(fake.ask("GET", "/readyz", token, &[]).await).await;
                assert_eq!(shown["trunks"][0]["failure"], "refused with 403");
                let lost = json!({"files": 2, "bytes": 32_044, "oldest": "2023-11-14T22:13:20Z"});
                assert_eq!(shown["lostAndFound"], lost);
                jsonschema::validate(&super::described(), &shown).unwrap();
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_ready_says_why() {
        let fake = Fake::new();
        assert_eq!(fake.get("/healthz").await.status(), 200);
        let ready = json_of(fake.get("/readyz").await).await;
        assert_eq!(ready["status"], "ready");
        let trunk = &ready["trunks"][0];
        assert_eq!((&trunk["name"], &trunk["lastStatus"]), (&"provider".into(), &403.into()));

        fake.service.set_not_ready("draining");
        assert_eq!(fake.get("/healthz").await.status(), 200);
        let response = fake.get("/readyz").await;
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(json_of(response).await["reason"], "draining");
    }

    #[tokio::test]
    async fn probes_are_only_read() {
        let response = Fake::new().send("POST", "/healthz", None).await;
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()["allow"], "GET, HEAD");
        assert!(response.headers().contains_key("request-id"));
    }
}
