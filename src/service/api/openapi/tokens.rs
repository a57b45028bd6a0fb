//! Description of the token endpoints: OAuth 2.0 client credentials in Entra's two versions.

use serde_json::{Value, json};

use super::parts::{needing, object, refusals, response, text};

const RESOURCE: &str = "https://graph.microsoft.com";

/// The endpoint that takes a `resource` and encodes numbers as strings.
pub(super) fn first_version() -> Value {
    let fields = json!({
        "token_type": {"enum": ["Bearer"]},
        "expires_in": text(),
        "ext_expires_in": text(),
        "expires_on": text(),
        "not_before": text(),
        "resource": text(),
        "access_token": text(),
    });
    endpoint("A token for an application, as ADAL asks for it", ("resource", RESOURCE), fields)
}

/// The endpoint that takes a `scope`.
pub(super) fn second_version() -> Value {
    let fields = json!({
        "token_type": {"enum": ["Bearer"]},
        "expires_in": {"type": "integer"},
        "ext_expires_in": {"type": "integer"},
        "access_token": text(),
    });
    let scope = format!("{RESOURCE}/.default");
    let summary = "A token for an application (RFC 6749 section 4.4)";
    endpoint(summary, ("scope", &scope), fields)
}

fn endpoint(summary: &str, (name, value): (&str, &str), answer_fields: Value) -> Value {
    let refused =
        needing(object(json!({"error": text(), "error_description": text()})), &["error"]);
    let mut responses = refusals(|status| status == 405);
    for (status, about, header) in [
        ("400", "Something in the request is wrong", None),
        ("401", "Unknown client, or wrong secret", Some("WWW-Authenticate")),
        ("429", "Too many wrong secrets", Some("Retry-After")),
        ("500", "The server cannot sign a token", None),
    ] {
        let refused = response(about, header.as_slice(), refused.clone());
        responses.insert(status.to_owned(), refused);
    }
    let token = needing(object(answer_fields), &["token_type", "expires_in", "access_token"]);
    responses.insert("200".to_owned(), response("The token", &[], token));
    let mut form = object(json!({
        "grant_type": {"enum": ["client_credentials"]},
        "client_id": text(),
        "client_secret": text(),
    }));
    form["properties"][name] = json!({"enum": [value]});
    let form = needing(form, &["grant_type", "client_id", "client_secret", name]);
    json!({"post": {
        "summary": summary,
        "security": [],
        "requestBody": {"required": true,
            "content": {"application/x-www-form-urlencoded": {"schema": form}}},
        "responses": responses,
    }})
}
