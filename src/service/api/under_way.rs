//! Keys of requests that are under way: a second request with a key waits for the first.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{deadline, error::ApiError, house::CallError};

/// So many requests with keys are under way at a time for each application; a client that hangs up
/// does not end them.
pub(super) const MAX_RUNNING: usize = 64;

/// The keys of requests that are under way. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashMap<Arc<str>, Keys>>>);

/// An application's keys, and what tells when each is free.
type Keys = HashMap<String, watch::Receiver<()>>;

/// A key that is this request's until it is dropped.
pub(super) struct Turn {
    under_way: UnderWay,
    application: Arc<str>,
    pub(super) key: String,
    /// Those who wait hear that it is gone.
    _ended: watch::Sender<()>,
}

impl UnderWay {
    /// Takes the key, when whoever has it is through.
    pub(super) async fn turn(&self, application: &Arc<str>, key: String) -> Result<Turn, ApiError> {
        let waited = async {
            loop {
                let mut first = match self.taken(application, &key) {
                    Ok(taken) => return taken,
                    Err(first) => first,
                };
                // Nothing is ever sent: it ends with the turn.
                let _ = first.changed().await;
            }
        };
        tokio::time::timeout(deadline::HOUSE, waited).await.unwrap_or(Err(ApiError::KeyInUse))
    }

    /// The turn, unless the key has somebody: then who tells of their end.
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

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Keys>> {
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
