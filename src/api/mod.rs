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
//! | `oauth`, `guesses` | tokens for those who ask, and the keys to check them with; wrong secrets |
//! | `calls`, `participants` | the Graph API |
//! | `trace`, `undelivered` | what Graph does not have: SIP messages of a call, notifications that failed |
//! | `recordings`, `health`, `authority` | downloads; probes; whom to trust while trying things out |
//! | `openapi` | the description of all of it |
//! | `error` | the one mapping from errors to responses |
//! | `serve` | the listener with its limits |

mod auth;
mod authority;
mod body;
mod calls;
mod deadline;
mod download;
mod error;
mod exchange;
#[cfg(test)]
mod fake;
mod guesses;
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

use std::{panic::resume_unwind, path::Path, sync::Arc, time::SystemTime};

use axum::{
    Router, middleware,
    routing::{MethodRouter, any},
};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

pub use auth::{ACCESS_MEDIA, ApplicationCredential, Credentials, INITIATE};
pub use authority::PATH as AUTHORITY_PATH;
pub use house::{
    Answer, CallError, GivenUp, House, KeptAnswer, LostAndFound, NewCall, NewOperation,
    OpenRecording, RecordingError, RecordingKey, RequestKey, TracedMessage, TransferTarget,
    TrunkHealth,
};
pub use serve::{Identity, ServeLimits, serve};

use self::idempotency::UnderWay;
use crate::{
    graph::{GraphContext, IdentityType, Version},
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
    identity_type: IdentityType,
    /// The file of the authority of a development certificate.
    authority: Option<Arc<Path>>,
    under_way: UnderWay,
    /// Requests that are done to their end.
    tasks: TaskTracker,
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
            identity_type: IdentityType::default(),
            authority: None,
            under_way: UnderWay::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Gives this file to whoever has to trust our development certificate.
    pub fn with_authority(mut self, file: Option<&Path>) -> Self {
        self.authority = file.map(Arc::from);
        self
    }

    /// Declares this type of each set of identities.
    pub fn with_identity_type(self, identity_type: IdentityType) -> Self {
        Self { identity_type, ..self }
    }

    /// Returns when the requests that have begun are done, also those whose clients have gone. To be
    /// called when no more can come.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Goes on with `work` when the one who waits for it does not any more.
    async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        match self.tasks.spawn(work.in_current_span()).await {
            Ok(done) => done,
            // Nobody aborts it: it has panicked, which is for whoever looks after panics of requests.
            Err(error) => resume_unwind(error.into_panic()),
        }
    }

    fn graph_context(&self, version: Version) -> GraphContext {
        GraphContext {
            tenant: self.tenant.to_string(),
            public_url: self.public_url.to_string(),
            version,
            identity_type: self.identity_type,
        }
    }
}

/// All addresses of the API listener; those of tokens when there is somebody to sign them.
pub fn router(state: ApiState, issuer: Option<Issuer>) -> Router {
    let tokens = issuer.map(|issuer| oauth::routes(issuer, state.credentials.clone()));
    routes()
        .into_iter()
        .fold(Router::new(), |router, (path, method)| router.route(path, method))
        // The Graph paths have too many forms for a table of patterns; `route` reads them.
        .fallback(calls::graph)
        .with_state(state)
        .merge(tokens.unwrap_or_default())
        .layer(middleware::from_fn(exchange::exchange))
}

/// What is neither Graph's nor of tokens.
fn routes() -> [(&'static str, MethodRouter<ApiState>); 5] {
    [
        (authority::PATH, any(authority::authority)),
        ("/healthz", any(health::alive)),
        ("/readyz", any(health::ready)),
        ("/openapi.json", any(openapi::openapi)),
        ("/recordings/{id}", any(recordings::recording)),
    ]
}

fn now() -> UnixMillis {
    SystemTime::now().into()
}
