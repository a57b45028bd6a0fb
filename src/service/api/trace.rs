//! The SIP messages of a call, as JSON or as a capture file. An addition to the Graph paths.

use std::time::SystemTime;

use axum::{
    body::Body,
    extract::Path,
    http::{
        HeaderMap, HeaderValue,
        header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    deadline,
    error::ApiError,
    json::ok,
    pcap::{self, Packet},
    query::InvalidQuery,
    request::GraphRequest,
};
use crate::drivers::signalling::Traced;
use aftertone_core::model::CallId;

/// Media type of capture files (IANA).
const PCAP: &str = "application/vnd.tcpdump.pcap";

pub(super) async fn show(
    request: GraphRequest,
    Path(call): Path<CallId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let as_capture = wants_capture(request.query(), &headers)?;
    let messages = request.state.calls.trace(request.application(), call);
    let messages = deadline::reading(messages).await?;
    Ok(if as_capture { capture(call, &messages) } else { ok(&shown(&messages)) })
}

/// Whether the client requests a capture file, by `?format=pcap` or by its Accept header.
///
/// # Errors
/// The query has another value.
fn wants_capture(query: Option<&str>, headers: &HeaderMap) -> Result<bool, ApiError> {
    let accepts = |value: &HeaderValue| value.to_str().is_ok_and(|text| text.contains(PCAP));
    match query.filter(|query| !query.is_empty()) {
        None => Ok(headers.get_all(ACCEPT).iter().any(accepts)),
        Some("format=pcap") => Ok(true),
        Some("format=json") => Ok(false),
        Some(_) => {
            Err(ApiError::Query(InvalidQuery::Value { option: "format", expected: "json or pcap" }))
        }
    }
}

/// The messages as JSON.
fn shown(messages: &[Traced]) -> Value {
    let messages: Vec<Value> = messages
        .iter()
        .map(|traced| {
            json!({
                "at": humantime::format_rfc3339_millis(SystemTime::from(traced.at)).to_string(),
                "direction": if traced.is_sent { "out" } else { "in" },
                "transport": traced.path.transport.name(),
                "local": traced.path.local.to_string(),
                "peer": traced.path.peer.to_string(),
                "message": &*traced.message,
            })
        })
        .collect();
    json!({ "value": messages })
}

/// The messages as a capture file.
fn capture(call: CallId, messages: &[Traced]) -> Response {
    let packets = messages.iter().map(|traced| {
        let (source, destination) = if traced.is_sent {
            (traced.path.local, traced.path.peer)
        } else {
            (traced.path.peer, traced.path.local)
        };
        Packet { at: traced.at, source, destination, payload: traced.message.as_bytes() }
    });
    let mut response = Body::from(pcap::file(packets)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(PCAP));
    // The id consists of hexadecimal digits and dashes, so it needs no escaping.
    if let Ok(name) = HeaderValue::try_from(format!("attachment; filename=\"{call}.pcap\"")) {
        headers.insert(CONTENT_DISPOSITION, name);
    }
    response
}

#[cfg(test)]
mod tests {
    use crate::service::api::fake::{CALL, Fake, bytes_of, json_of};

    #[tokio::test]
    async fn a_trace_is_json_or_a_capture_file() {
        let fake = Fake::new();
        let path = format!("/v1.0/communications/calls/{CALL}/trace");
        let shown = json_of(fake.get(&path).await).await;
        let first = &shown["value"][0];
        assert_eq!(first["direction"], "in");
        assert_eq!(first["transport"], "TCP");
        assert_eq!(first["at"], "2023-11-14T22:13:20.123Z");
        assert!(first["message"].as_str().unwrap().starts_with("OPTIONS "));
        let response = fake.get(&format!("{path}?format=pcap")).await;
        assert_eq!(response.headers()["content-type"], super::PCAP);
        let file = bytes_of(response).await;
        assert_eq!(file[..4], [0xd4, 0xc3, 0xb2, 0xa1]);
        assert_eq!(fake.get(&format!("{path}?format=xml")).await.status(), 400);
        let stranger = fake.ask("GET", &path, "", &[]).await;
        assert_eq!(stranger.status(), 401);
    }
}
