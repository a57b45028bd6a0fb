//! The REST face: requests to commands, results to Graph JSON.
//!
//! In: HTTP requests in all the forms of the contract, the recordings' downloads and the probes. Out:
//! commands to a [`House`], and responses in the words of [`crate::graph`]. It decides who may ask
//! and whether a request can be understood; it decides nothing about calls and holds no state.
//!
//! | file | does |
//! |---|---|
//! | `exchange` | what every request and response has: ids, headers, catching panics, the access log |
//! | `route`, `query`, `body` | reads a request: path, OData options, JSON |
//! | `auth` | who is asking |
//! | `idempotency` | requests that are repeated |
//! | `oauth` | tokens for those who ask, and the keys to check them with |
//! | `calls`, `participants` | the Graph API |
//! | `trace`, `undelivered` | what Graph does not have: SIP messages of a call, notifications that failed |
//! | `recordings`, `health` | downloads; probes |
//! | `openapi` | the description of all of it |
//! | `error` | the one mapping from errors to responses |
//! | `serve` | the listener with its limits |

mod auth;
mod body;
mod calls;
mod deadline;
mod error;
mod exchange;
#[cfg(test)]
mod fake;
mod health;
mod house;
mod idempotency;
mod oauth;
mod openapi;
mod participants;
mod pcap;
mod query;
mod recordings;
mod route;
mod serve;
mod trace;
mod undelivered;

use std::{sync::Arc, time::SystemTime};

use axum::{Router, middleware, routing::any};
use tokio::sync::watch;

pub use auth::{ACCESS_MEDIA, ApplicationCredential, Credentials, INITIATE};
pub use house::{
    Answer, CallError, GivenUp, House, KeptAnswer, NewCall, NewOperation, OpenRecording,
    RecordingError, RecordingKey, RequestKey, TracedMessage, TransferTarget, TrunkHealth,
};
pub use serve::{Identity, serve};

use crate::{
    graph::{GraphContext, Version},
    model::UnixMillis,
    tokens::Issuer,
};

/// What the REST face needs to answer. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    house: Arc<dyn House>,
    credentials: watch::Receiver<Arc<Credentials>>,
    tenant: Arc<str>,
    public_url: Arc<str>,
}

impl ApiState {
    /// Answers for `house`, to whom `credentials` knows at the time. `public_url` is where others reach the API:
    /// scheme, host and port, perhaps a path.
    pub fn new(
        house: Arc<dyn House>,
        credentials: watch::Receiver<Arc<Credentials>>,
        tenant: &str,
        public_url: &str,
    ) -> Self {
        Self {
            house,
            credentials,
            tenant: tenant.into(),
            public_url: public_url.trim_end_matches('/').into(),
        }
    }

    fn graph_context(&self, version: Version) -> GraphContext {
        GraphContext {
            tenant: self.tenant.to_string(),
            public_url: self.public_url.to_string(),
            version,
        }
    }
}

/// All addresses of the API listener; those of tokens when there is somebody to sign them.
pub fn router(state: ApiState, issuer: Option<Issuer>) -> Router {
    let tokens = issuer.map(|issuer| oauth::routes(issuer, state.credentials.clone()));
    Router::new()
        .route("/healthz", any(health::alive))
        .route("/readyz", any(health::ready))
        .route("/openapi.json", any(openapi::openapi))
        .route("/recordings/{id}", any(recordings::recording))
        // The Graph paths have too many forms for a table of patterns; `route` reads them.
        .fallback(calls::graph)
        .with_state(state)
        .merge(tokens.unwrap_or_default())
        .layer(middleware::from_fn(exchange::exchange))
}

fn now() -> UnixMillis {
    SystemTime::now().into()
}
