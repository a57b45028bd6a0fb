//! Reads the body of a request: JSON or a form, plain or gzip, within limits of size and time.

use std::{collections::HashMap, io::Read};

use axum::{
    body::Body,
    http::{
        HeaderMap,
        header::{CONTENT_ENCODING, CONTENT_TYPE},
    },
};
use flate2::read::MultiGzDecoder;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::timeout;
use url::form_urlencoded;

use super::{deadline, error::ApiError};

/// Largest JSON body, from an authenticated client. The largest valid one, with 100 long URIs of
/// prompts to prefetch, is smaller.
pub(super) const MAX_BYTES: usize = 1024 * 1024;
/// Largest form. A client may send one without authentication.
const MAX_FORM_BYTES: usize = 64 * 1024;

/// The JSON of a request; null when the body is empty.
///
/// # Errors
/// The body is too large, too slow, truncated, of another type or coding, or not JSON.
pub(super) async fn json(headers: &HeaderMap, body: Body) -> Result<Value, ApiError> {
    let bytes = bytes_in_time(body, MAX_BYTES).await?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    if !is_json(headers) {
        return Err(ApiError::MediaType);
    }
    let text = unpacked(headers, bytes, MAX_BYTES)?;
    serde_json::from_slice(&text).map_err(|error| ApiError::Json(error.to_string()))
}

/// The fields of a form; the first one of each name counts.
///
/// # Errors
/// The body is too large, too slow, truncated, or of another type or coding.
pub(super) async fn form(
    headers: &HeaderMap,
    body: Body,
) -> Result<HashMap<String, String>, ApiError> {
    let bytes = bytes_in_time(body, MAX_FORM_BYTES).await?;
    if essence(headers) != "application/x-www-form-urlencoded" {
        return Err(ApiError::MediaType);
    }
    let text = unpacked(headers, bytes, MAX_FORM_BYTES)?;
    let mut fields = HashMap::new();
    for (name, value) in form_urlencoded::parse(&text) {
        fields.entry(name.into_owned()).or_insert_with(|| value.into_owned());
    }
    Ok(fields)
}

/// The whole body of a request, of at most `max_bytes`.
///
/// # Errors
/// The body is too large, too slow or truncated.
pub(super) async fn bytes_in_time(body: Body, max_bytes: usize) -> Result<Vec<u8>, ApiError> {
    let read = async {
        let mut chunks = body.into_data_stream();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| ApiError::BodyCut)?;
            if chunk.len() > max_bytes - bytes.len() {
                return Err(ApiError::TooLarge(max_bytes));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    };
    timeout(deadline::BODY, read).await.map_err(|_| ApiError::BodySlow(deadline::BODY.as_secs()))?
}

/// The text of a body: decodes its content coding (RFC 9110 section 8.4), which Microsoft's client
/// for Go uses for each body, and drops the byte order mark that Windows software may put before
/// the text (RFC 8259 section 8.1).
///
/// # Errors
/// The coding is not gzip, the body is invalid gzip, or the decoded body is too large.
fn unpacked(headers: &HeaderMap, bytes: Vec<u8>, max_bytes: usize) -> Result<Vec<u8>, ApiError> {
    let coding = headers.get(CONTENT_ENCODING).map(|coding| coding.to_str().unwrap_or_default());
    let mut text = match coding.unwrap_or("identity").trim().to_ascii_lowercase().as_str() {
        "identity" | "" => bytes,
        "gzip" | "x-gzip" => {
            let mut plain = Vec::new();
            let most = max_bytes as u64 + 1;
            let read = MultiGzDecoder::new(&bytes[..]).take(most).read_to_end(&mut plain);
            read.map_err(|error| ApiError::Gzip(error.to_string()))?;
            if plain.len() > max_bytes {
                return Err(ApiError::TooLarge(max_bytes));
            }
            plain
        }
        _ => return Err(ApiError::Coding),
    };
    if text.starts_with(b"\xEF\xBB\xBF") {
        text.drain(..3);
    }
    Ok(text)
}

/// The `Content-Type` in lower case, without parameters; empty when the header is absent.
fn essence(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = essence(headers);
    let structured = essence.strip_prefix("application/").is_some_and(|t| t.ends_with("+json"));
    essence == "application/json" || structured
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    async fn read(content_type: Option<&str>, body: impl Into<Body>) -> Result<Value, ApiError> {
        let mut headers = HeaderMap::new();
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        super::json(&headers, body.into()).await
    }

    #[tokio::test]
    async fn json_is_read_under_each_of_its_names() {
        for name in ["application/json", "Application/JSON; charset=utf-8", "application/x+json"] {
            assert_eq!(read(Some(name), "{\"a\":1}").await, Ok(json!({"a": 1})), "{name}");
        }
        for name in [Some("text/plain"), Some("application/jsonp"), None] {
            assert_eq!(read(name, "{}").await, Err(ApiError::MediaType), "{name:?}");
        }
    }

    async fn read_as(coding: &str, body: Vec<u8>) -> Result<Value, ApiError> {
        let headers = [(CONTENT_TYPE, "application/json"), (CONTENT_ENCODING, coding)];
        let headers = headers.into_iter().map(|(name, value)| (name, value.parse().unwrap()));
        super::json(&headers.collect(), body.into()).await
    }

    fn packed(plain: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        flate2::read::GzEncoder::new(plain, flate2::Compression::fast())
            .read_to_end(&mut packed)
            .unwrap();
        packed
    }

    #[tokio::test]
    async fn a_packed_body_is_read_within_the_same_limit() {
        for coding in ["gzip", "GZIP", "x-gzip"] {
            let read = read_as(coding, packed(b"{\"a\":1}")).await;
            assert_eq!(read, Ok(json!({"a": 1})), "{coding}");
        }
        assert_eq!(read_as("identity", b"{}".to_vec()).await, Ok(json!({})));
        let most = format!("\"{}\"", "x".repeat(MAX_BYTES - 2));
        assert!(read_as("gzip", packed(most.as_bytes())).await.is_ok());
        // A small compressed body that would decode to a hundred megabytes.
        let bomb = packed(&vec![b' '; 100_000_000]);
        assert!(bomb.len() > 1_000);
        let limit = ApiError::TooLarge(MAX_BYTES);
        assert_eq!(read_as("gzip", bomb[..bomb.len().min(MAX_BYTES)].to_vec()).await, Err(limit));
        assert!(matches!(read_as("gzip", b"{}".to_vec()).await, Err(ApiError::Gzip(_))));
        let cut = packed(b"{\"a\":1}")[..12].to_vec();
        assert!(matches!(read_as("gzip", cut).await, Err(ApiError::Gzip(_))));
        for coding in ["br", "deflate", "gzip, gzip"] {
            assert_eq!(read_as(coding, b"{}".to_vec()).await, Err(ApiError::Coding), "{coding}");
        }
    }

    #[tokio::test]
    async fn a_byte_order_mark_before_the_body_is_passed_over() {
        let marked = "\u{FEFF}{\"a\":\"\u{FEFF}\"}";
        let expected = Ok(json!({"a": "\u{FEFF}"}));
        assert_eq!(read(Some("application/json; charset=utf-8"), marked).await, expected);
        assert_eq!(read_as("gzip", packed(marked.as_bytes())).await, expected);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
        let form = super::form(&headers, "\u{FEFF}scope=x&b=y".into()).await.unwrap();
        assert_eq!((form["scope"].as_str(), form["b"].as_str()), ("x", "y"));
        // A byte order mark within the text is not removed.
        let inside = read(Some("application/json"), "{\u{FEFF}}").await;
        assert!(matches!(inside, Err(ApiError::Json(_))));
    }

    #[tokio::test]
    async fn no_body_needs_no_type() {
        assert_eq!(read(None, Body::empty()).await, Ok(Value::Null));
    }

    #[tokio::test]
    async fn what_is_not_json_is_told_with_its_position() {
        let Err(ApiError::Json(text)) = read(Some("application/json"), "{\n \"a\": }").await else {
            panic!("not refused");
        };
        assert!(text.ends_with("at line 2 column 7"), "{text}");
        let deep = "[".repeat(100_000);
        assert!(matches!(read(Some("application/json"), deep).await, Err(ApiError::Json(_))));
    }

    #[tokio::test]
    async fn the_size_is_limited_exactly() {
        let of = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "application/x-www-form-urlencoded".parse().unwrap());
        let form = async |bytes: usize| super::form(&headers, "x".repeat(bytes).into()).await;
        assert!(form(MAX_FORM_BYTES).await.is_ok());
        assert_eq!(form(MAX_FORM_BYTES + 1).await, Err(ApiError::TooLarge(MAX_FORM_BYTES)));
        assert!(read(Some("application/json"), of(MAX_BYTES)).await.is_ok());
        let refused = read(Some("application/json"), of(MAX_BYTES + 1)).await;
        assert_eq!(refused, Err(ApiError::TooLarge(MAX_BYTES)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_nothing_is_not_waited_for() {
        let never = futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
        let refused = read(Some("application/json"), Body::from_stream(never)).await;
        assert_eq!(refused, Err(ApiError::BodySlow(10)));
    }
}
