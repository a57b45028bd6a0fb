//! Single connections: one to try whether there is a database, and the end of one that has failed.

use std::time::Duration;

use sqlx::{Any, AnyConnection, Connection, pool::PoolConnection};
use tokio::time::timeout;
use tracing::debug;

/// How long a query may wait for a connection, and a new connection for its server.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a failed connection may take to close: its server may be gone without a word.
const CLOSING: Duration = Duration::from_secs(2);

/// Closes a connection on which something has failed that was to be a whole. The database may have
/// rolled it back by itself (SQLite does so on a full disk) while the driver still counts a
/// transaction: the next one on this connection would only be a savepoint in one that never ends.
pub(super) async fn discard(connection: PoolConnection<Any>) {
    match timeout(CLOSING, connection.detach().close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("A failed connection was not closed cleanly: {error}"),
        Err(_) => debug!("A failed connection was not closed within {CLOSING:?}"),
    }
}

/// One connection without a pool, to learn what is wrong: a pool would try again and then only say
/// that time is up.
pub(super) async fn probe(url: &str) -> Result<AnyConnection, sqlx::Error> {
    let connection = tokio::time::timeout(ACQUIRE_TIMEOUT, AnyConnection::connect(url)).await;
    connection.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
