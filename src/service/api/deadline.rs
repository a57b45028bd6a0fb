//! How long a request may take.
//!
//! The SDKs repeat a POST by themselves on 429, 503 and 504. So these may be sent only when nothing
//! was done, and an action that was given to the house and not answered is an error of another kind.

use std::{future::Future, time::Duration};

use tokio::time::timeout;

use super::error::ApiError;

/// How long a client may take to send a body.
pub(super) const BODY: Duration = Duration::from_secs(10);

/// How long the house may take.
pub(super) const HOUSE: Duration = Duration::from_secs(20);

/// Waits for something that changes nothing; it can be asked for again.
pub(super) async fn reading<T, E: Into<ApiError>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, ApiError> {
    match timeout(HOUSE, work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(ApiError::TooSlow),
    }
}

/// Waits for something that may have been done when the time is over.
pub(super) async fn acting<T, E: Into<ApiError>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, ApiError> {
    match timeout(HOUSE, work).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(ApiError::OutcomeUnknown),
    }
}
