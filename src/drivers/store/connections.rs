//! Single connections: a test connection to the database, and the closing of a failed one.

use std::time::Duration;

use sqlx::{Any, AnyConnection, Connection, pool::PoolConnection};
use tokio::time::timeout;
use tracing::debug;

/// How long a query may wait for a connection, and a new connection for its server.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a failed connection may take to close: its server may have disappeared silently.
const CLOSING: Duration = Duration::from_secs(2);

/// Closes a connection after a transaction on it has failed. The database may have rolled the
/// transaction back by itself (SQLite does so on a full disk) while the driver still counts it as
/// open: the next transaction on this connection would only be a savepoint in one that never ends.
pub(super) async fn discard(connection: PoolConnection<Any>) {
    match timeout(CLOSING, connection.detach().close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("A failed connection was not closed cleanly: {error}"),
        Err(_) => debug!("A failed connection was not closed within {CLOSING:?}"),
    }
}

/// One connection without a pool, to learn the cause of a failure: a pool would try again and then
/// report only a timeout.
pub(super) async fn probe(url: &str) -> Result<AnyConnection, sqlx::Error> {
    let connection = tokio::time::timeout(ACQUIRE_TIMEOUT, AnyConnection::connect(url)).await;
    connection.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
