//! Idempotency keys of running requests: a second request with a key waits for the first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{deadline, error::ApiError};
use crate::service::switchboard::CallError;

/// Maximum number of running requests with keys for each application. They go on even if the client
/// disconnects, so they need a limit.
pub(super) const MAX_RUNNING: usize = 64;

/// The keys of running requests. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashMap<Arc<str>, KeysInUse>>>);

/// The keys of an application, each with a receiver that closes when the key is free.
type KeysInUse = HashMap<String, watch::Receiver<()>>;

/// Exclusive use of a key by one request, until it is dropped.
pub(super) struct Turn {
    under_way: UnderWay,
    application: Arc<str>,
    pub(super) key: String,
    /// Dropping the sender wakes the requests that wait for the key.
    _ended: watch::Sender<()>,
}

impl UnderWay {
    /// Waits until no other request uses the key, then takes it.
    pub(super) async fn turn(&self, application: &Arc<str>, key: String) -> Result<Turn, ApiError> {
        let waited = async {
            loop {
                let mut first = match self.taken(application, &key) {
                    Ok(taken) => return taken,
                    Err(first) => first,
                };
                // No value is ever sent; `changed` returns when the turn is dropped.
                let _ = first.changed().await;
            }
        };
        tokio::time::timeout(deadline::SERVICE, waited).await.unwrap_or(Err(ApiError::KeyInUse))
    }

    /// Takes the key; if another request has it, returns the receiver that closes when that request
    /// ends.
    fn taken(
        &self,
        application: &Arc<str>,
        key: &str,
    ) -> Result<Result<Turn, ApiError>, watch::Receiver<()>> {
        let mut applications = self.lock();
        let keys = applications.entry(Arc::clone(application)).or_default();
        if let Some(first) = keys.get(key) {
            return Err(first.clone());
        }
        if keys.len() >= MAX_RUNNING {
            return Ok(Err(CallError::Overloaded { retry_after: 1 }.into()));
        }
        let (ended, receiver) = watch::channel(());
        keys.insert(key.to_owned(), receiver);
        let (application, key) = (Arc::clone(application), key.to_owned());
        Ok(Ok(Turn { under_way: self.clone(), application, key, _ended: ended }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, KeysInUse>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut applications = self.under_way.lock();
        let Some(keys) = applications.get_mut(&self.application) else { return };
        keys.remove(&self.key);
        if keys.is_empty() {
            applications.remove(&self.application);
        }
    }
}
