//! Probes for whoever starts and balances us: alive, and ready for calls.

use std::borrow::Cow;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, Method, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{ApiState, TrunkHealth, error::ApiError, exchange::Audit};

/// `/healthz`: the process can answer.
pub(super) async fn alive(method: Method) -> Response {
    probe("/healthz", &method, || Json(json!({"status": "alive"})).into_response())
}

/// `/readyz`: calls can be taken. Not while draining, or when storage is behind. How the trunks stand
/// is told beside it: without them calls come in all the same.
pub(super) async fn ready(State(state): State<ApiState>, method: Method) -> Response {
    let trunks: Vec<Value> = state.house.trunks().await.into_iter().map(told).collect();
    let is_ready = state.house.ready().await;
    probe("/readyz", &method, || match is_ready {
        Ok(()) => Json(json!({"status": "ready", "trunks": trunks})).into_response(),
        Err(reason) => {
            let retry = [(RETRY_AFTER, HeaderValue::from_static("1"))];
            let body = Json(json!({"status": "not ready", "reason": reason, "trunks": trunks}));
            (StatusCode::SERVICE_UNAVAILABLE, retry, body).into_response()
        }
    })
}

fn told(trunk: TrunkHealth) -> Value {
    let TrunkHealth { name, state, seconds, last_status, failure } = trunk;
    json!({
        "name": name,
        "state": state,
        "seconds": seconds,
        "lastStatus": last_status,
        "failure": failure,
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
    use crate::api::fake::{Fake, json_of};

    #[tokio::test]
    async fn a_house_that_is_not_ready_says_why() {
        let fake = Fake::new();
        assert_eq!(fake.get("/healthz").await.status(), 200);
        let ready = json_of(fake.get("/readyz").await).await;
        assert_eq!(ready["status"], "ready");
        let trunk = &ready["trunks"][0];
        assert_eq!((&trunk["name"], &trunk["lastStatus"]), (&"provider".into(), &403.into()));

        fake.house.set_not_ready("draining");
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
