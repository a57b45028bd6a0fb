//! The REST API: translates requests to commands, and results to Graph JSON.
//!
//! Input: HTTP requests in all the forms of the contract, downloads of recordings, and probes.
//! Output: commands to a [`CallControl`], and responses with the types of
//! [`aftertone_core::graph`]. The API decides whether a caller is authorised and whether a request
//! is valid. It makes no decision about calls, and holds no state of them.
//!
//! [`CallControl`]: crate::service::switchboard::CallControl
//!
//! | file | does |
//! |---|---|
//! | `exchange` | common parts of requests and responses: ids, headers, panics, access log |
//! | `graph` | the router of the Graph API, and what each of its requests passes |
//! | `path`, `query`, `body` | parses a request: path, OData options, JSON |
//! | `auth` | authentication |
//! | `idempotency` | repeated requests |
//! | `oauth`, `wrong_secrets` | tokens and the keys to verify them; limit of wrong secrets |
//! | `calls`, `operations`, `participants` | the handlers of the Graph API |
//! | `trace`, `undelivered` | additions to Graph: SIP messages of a call, failed notifications |
//! | `recordings`, `health`, `authority` | downloads; probes; the CA certificate for development |
//! | `openapi` | the description of the whole API |
//! | `error` | the only mapping from errors to responses |
//! | `store` | recordings, request keys and undelivered notifications in the database |
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
mod graph;
mod health;
mod idempotency;
mod json;
mod oauth;
mod openapi;
mod operations;
mod participants;
mod path;
mod pcap;
mod query;
mod recordings;
mod request;
mod serve;
mod state;
mod store;
mod trace;
mod undelivered;
mod under_way;
mod wrong_secrets;

use axum::{
    Router, middleware,
    routing::{MethodRouter, any},
};

pub use auth::{ACCESS_MEDIA, ApplicationCredential, Credentials, INITIATE};
pub use authority::PATH as AUTHORITY_PATH;
pub use serve::{Identity, ServeLimits, serve};
pub use state::{ApiModules, ApiState};
pub use store::{ApiStore, DatabaseStore, OpenRecording, RecordingError, RecordingKey};

use self::state::now;
use crate::drivers::tokens::Issuer;

/// All routes of the API listener. The token endpoints exist only if there is an issuer to sign
/// tokens.
pub fn router(state: ApiState, issuer: Option<Issuer>) -> Router {
    let tokens = issuer.map(|issuer| oauth::routes(issuer, state.credentials.clone()));
    routes()
        .into_iter()
        .fold(Router::new(), |router, (path, method)| router.route(path, method))
        .with_state(state.clone())
        .merge(tokens.unwrap_or_default())
        .fallback_service(graph::router(state))
        .layer(middleware::from_fn(exchange::exchange))
}

/// The routes that are neither Graph paths nor token endpoints.
fn routes() -> [(&'static str, MethodRouter<ApiState>); 5] {
    [
        (authority::PATH, any(authority::authority)),
        ("/healthz", any(health::alive)),
        ("/readyz", any(health::ready)),
        ("/openapi.json", any(openapi::openapi)),
        ("/recordings/{id}", any(recordings::recording)),
    ]
}
