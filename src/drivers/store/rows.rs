//! Conversion of values to columns and back.

use std::{error::Error, str::FromStr};

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row, any::AnyRow};

use super::StoreError;

/// Text that a column can hold: PostgreSQL refuses a NUL, and with it the whole commit. In a `body`
/// the JSON escapes it.
pub(super) fn column_text(text: &str) -> String {
    text.replace('\0', "")
}

/// Writes a value as the JSON of a `body` column.
pub(super) fn encode(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(StoreError::Unwritable)
}

/// Reads the `body` column of the row `id` of `table`.
pub(super) fn decode<T: DeserializeOwned>(
    table: &'static str,
    id: String,
    body: &str,
) -> Result<T, StoreError> {
    serde_json::from_str(body).map_err(|source| StoreError::Unreadable { table, id, source })
}

/// Parses a TEXT column.
pub(super) fn parsed<T>(row: &AnyRow, column: &'static str) -> Result<T, StoreError>
where
    T: FromStr<Err: Error + Send + Sync + 'static>,
{
    let text: String = row.try_get(column)?;
    let value = text.parse().map_err(|source| sqlx::Error::ColumnDecode {
        index: column.to_owned(),
        source: Box::new(source),
    })?;
    Ok(value)
}
