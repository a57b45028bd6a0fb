//! The state of the API.

use std::{panic::resume_unwind, path::Path, sync::Arc, time::SystemTime};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{auth::Credentials, store::ApiStore, under_way::UnderWay};
use crate::{drivers::prompts::Fence, service::switchboard::CallControl};
use aftertone_core::{
    graph::{GraphContext, IdentityType, Version},
    model::UnixMillis,
};

/// The modules that the API uses.
#[derive(Clone)]
pub struct ApiModules {
    /// Calls and their operations.
    pub calls: Arc<dyn CallControl>,
    /// Recordings, request keys and undelivered notifications.
    pub store: Arc<dyn ApiStore>,
    /// Decides which callback URIs are refused.
    pub fence: Fence,
}

/// The state that all handlers of the API share. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    pub(super) calls: Arc<dyn CallControl>,
    pub(super) store: Arc<dyn ApiStore>,
    pub(super) fence: Fence,
    pub(super) credentials: watch::Receiver<Arc<Credentials>>,
    tenant: Arc<str>,
    public_url: Arc<str>,
    identity_type: IdentityType,
    /// File of the CA certificate of a development certificate.
    pub(super) authority: Option<Arc<Path>>,
    pub(super) under_way: UnderWay,
    /// Tasks of requests that run to their end.
    tasks: TaskTracker,
}

impl ApiState {
    /// Serves the calls of `modules` to the applications in the current `credentials`. `public_url`
    /// is the URL at which clients reach the API: scheme, host and port, optionally a path.
    pub fn new(
        modules: ApiModules,
        credentials: watch::Receiver<Arc<Credentials>>,
        tenant: &str,
        public_url: &str,
    ) -> Self {
        let ApiModules { calls, store, fence } = modules;
        Self {
            calls,
            store,
            fence,
            credentials,
            tenant: tenant.into(),
            public_url: public_url.trim_end_matches('/').into(),
            identity_type: IdentityType::default(),
            authority: None,
            under_way: UnderWay::default(),
            tasks: TaskTracker::new(),
        }
    }

    /// Serves this file to clients that have to trust our development certificate.
    pub fn with_authority(mut self, file: Option<&Path>) -> Self {
        self.authority = file.map(Arc::from);
        self
    }

    /// Declares this type for each set of identities.
    pub fn with_identity_type(self, identity_type: IdentityType) -> Self {
        Self { identity_type, ..self }
    }

    /// Returns when all requests that have begun are finished, including those whose clients have
    /// disconnected. To be called when no more requests can arrive.
    pub async fn finished(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Runs `work` to its end, even if the future that waits for it is dropped.
    pub(super) async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        match self.tasks.spawn(work.in_current_span()).await {
            Ok(done) => done,
            // The task is never aborted, so it has panicked. The panic is passed on to the handler
            // that catches panics of requests.
            Err(error) => resume_unwind(error.into_panic()),
        }
    }

    pub(super) fn graph_context(&self, version: Version) -> GraphContext {
        GraphContext {
            tenant: self.tenant.to_string(),
            public_url: self.public_url.to_string(),
            version,
            identity_type: self.identity_type,
        }
    }
}

pub(super) fn now() -> UnixMillis {
    SystemTime::now().into()
}
