//! The REST face: requests to commands, results to Graph JSON.
//!
//! In: HTTP requests in all the forms of the contract, the recordings' downloads and the probes. Out:
//! commands to a [`House`], and responses in the words of [`aftertone_core::graph`]. It decides who may ask
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

mod asked;
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
mod state;
mod trace;
mod undelivered;
mod under_way;

use axum::{
    Router, middleware,
    routing::{MethodRouter, any},
};

pub use auth::{ACCESS_MEDIA, ApplicationCredential, Credentials, INITIATE};
pub use authority::PATH as AUTHORITY_PATH;
pub use house::{
    Answer, CallError, GivenUp, House, KeptAnswer, LostAndFound, NewCall, NewOperation,
    OpenRecording, RecordingError, RecordingKey, RequestKey, TracedMessage, TransferTarget,
    TrunkHealth,
};
pub use serve::{Identity, ServeLimits, serve};
pub use state::ApiState;

use self::state::now;
use crate::drivers::tokens::Issuer;

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
