//! Time limits of a request.
//!
//! The SDKs automatically repeat a POST on 429, 503 and 504. So these statuses are sent only when
//! nothing was done. When the outcome of a command is unknown, the answer is another status.

use std::{future::Future, time::Duration};

use tokio::time::timeout;

use super::error::ApiError;

/// How long a client may take to send a body.
pub(super) const BODY: Duration = Duration::from_secs(10);

/// How long the call service may take.
pub(super) const SERVICE: Duration = Duration::from_secs(20);

/// Waits for work that can safely be repeated.
pub(super) async fn reading<T, E: Into<ApiError>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, ApiError> {
    match timeout(SERVICE, work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(ApiError::TooSlow),
    }
}

/// Waits for work that may have been done even if the time runs out.
pub(super) async fn acting<T, E: Into<ApiError>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, ApiError> {
    match timeout(SERVICE, work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(ApiError::OutcomeUnknown),
    }
}
