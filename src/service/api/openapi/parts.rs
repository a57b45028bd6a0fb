//! Parts that most descriptions share: responses, headers, schemas of simple values.

use serde_json::{Map, Value, json};

use aftertone_core::graph::limits;

/// Every error status with its meaning and the header that it carries.
pub(super) const REFUSALS: [(u16, &str, Option<&str>); 14] = [
    (400, "Something in the request is wrong, or it is the wrong moment", None),
    (401, "No token, or none that is believed", Some("WWW-Authenticate")),
    (403, "A role is missing, or the target may not be called", None),
    (404, "There is no such thing, or it belongs to another application", None),
    (405, "It does not know the method", Some("Allow")),
    (408, "The body came too slowly", None),
    (409, "Somebody was faster, or the first request with this key has no answer", None),
    (413, "The body is too large", None),
    (415, "The body is of another type", None),
    (416, "The recording does not have the range", Some("Content-Range")),
    (429, "Too much at a time", Some("Retry-After")),
    (500, "The server's fault; something may have been done", None),
    (501, "Graph has it, this server does not", None),
    (503, "Not now; nothing was done", Some("Retry-After")),
];

/// The error responses that apply, in Graph's format; `innerError` names the request.
pub(super) fn refusals(applies: impl Fn(u16) -> bool) -> Map<String, Value> {
    let refusals = REFUSALS.into_iter().filter(|(status, ..)| applies(*status));
    refusals
        .map(|(status, description, header)| {
            let shown = json!({
                "description": description,
                "headers": headers(header.as_slice()),
                "content": {"application/json": {"schema": reference("odata.error")}},
            });
            (status.to_string(), shown)
        })
        .collect()
}

/// A response with JSON.
pub(super) fn response(about: &str, more: &[&str], schema: Value) -> Value {
    json!({"description": about, "headers": headers(more),
        "content": {"application/json": {"schema": schema}}})
}

/// The headers of every response, and the given ones.
pub(super) fn headers(more: &[&str]) -> Value {
    let names = ["request-id", "client-request-id"];
    let named = names.iter().chain(more);
    named
        .map(|name| {
            let header = json!({"$ref": format!("#/components/headers/{name}")});
            ((*name).to_owned(), header)
        })
        .collect::<Map<_, _>>()
        .into()
}

pub(super) fn known_headers() -> Value {
    let header = |about: &str, schema: Value| -> Value {
        json!({"description": about, "required": true, "schema": schema})
    };
    json!({
        "request-id": header("What the log calls the request", text()),
        "client-request-id": header("The request's own, or the request-id", text()),
        "Location": header("The address of what was made", json!({"type": "string",
            "format": "uri"})),
        "Retry-After": header("Seconds", json!({"type": "integer", "minimum": 0})),
        "WWW-Authenticate": header("What is wanted", text()),
        "Content-Range": header("The size of the recording", text()),
        "Allow": header("The methods that it knows", text()),
    })
}

pub(super) fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

pub(super) fn object(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

pub(super) fn needing(mut object: Value, required: &[&str]) -> Value {
    object["required"] = json!(required);
    object
}

/// Adds an example to a schema; the example fits the schema, and the reader accepts it.
pub(super) fn such_as(mut schema: Value, example: Value) -> Value {
    schema["examples"] = json!([example]);
    schema
}

pub(super) fn text() -> Value {
    json!({"type": "string"})
}

pub(super) fn optional(schema: Value) -> Value {
    json!({"anyOf": [schema, {"type": "null"}]})
}

pub(super) fn seconds(max: u32) -> Value {
    json!({"type": ["integer", "null"], "minimum": 1, "maximum": max,
        "default": limits::DEFAULT_SECONDS})
}

pub(super) fn flag(default: bool) -> Value {
    json!({"type": ["boolean", "null"], "default": default})
}

pub(super) fn tone() -> Value {
    json!({"type": "string", "pattern":
        "^([0-9*#A-Da-d]|tone[0-9]|star|pound)$"})
}
