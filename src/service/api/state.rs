//! What the API needs to answer.

use std::{panic::resume_unwind, path::Path, sync::Arc, time::SystemTime};

use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::{auth::Credentials, house::House, under_way::UnderWay};
use aftertone_core::{
    graph::{GraphContext, IdentityType, Version},
    model::UnixMillis,
};

/// What the REST face needs to answer. Cheap to clone.
#[derive(Clone)]
pub struct ApiState {
    pub(super) house: Arc<dyn House>,
    pub(super) credentials: watch::Receiver<Arc<Credentials>>,
    tenant: Arc<str>,
    public_url: Arc<str>,
    identity_type: IdentityType,
    /// The file of the authority of a development certificate.
    pub(super) authority: Option<Arc<Path>>,
    pub(super) under_way: UnderWay,
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
    pub(super) async fn to_its_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        match self.tasks.spawn(work.in_current_span()).await {
            Ok(done) => done,
            // Nobody aborts it: it has panicked, which is for whoever looks after panics of requests.
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
