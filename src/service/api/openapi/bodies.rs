//! Schemas of request bodies, each with an example that the reader accepts.

use serde_json::{Value, json};

use super::parts::{flag, needing, object, optional, seconds, such_as, text, tone};
use aftertone_core::{graph::limits, model::RecordAction};

pub(super) fn context() -> Value {
    let body = object(json!({"clientContext": client_context()}));
    such_as(body, json!({"clientContext": "anything"}))
}

pub(super) fn client_context() -> Value {
    json!({"type": ["string", "null"], "maxLength": limits::CLIENT_CONTEXT_CHARS})
}

/// A short text or null.
fn optional_text() -> Value {
    json!({"type": ["string", "null"], "maxLength": limits::TEXT_CHARS})
}

pub(super) fn http_uri() -> Value {
    json!({"type": "string", "format": "uri", "pattern": "^https?://[a-z0-9]",
        "maxLength": limits::URI_CHARS})
}

pub(super) fn media_info() -> Value {
    let info = json!({"uri": http_uri(), "resourceId": optional_text()});
    needing(object(info), &["uri"])
}

pub(super) fn prompt() -> Value {
    needing(
        object(json!({
            "@odata.type": {"enum": ["#microsoft.graph.mediaPrompt"]},
            "mediaInfo": media_info(),
            "loop": {"type": ["integer", "null"], "minimum": 0,
                "maximum": limits::PROMPT_TIMES},
        })),
        &["mediaInfo"],
    )
}

pub(super) fn media_config() -> Value {
    object(json!({
        "@odata.type": {"enum": ["#microsoft.graph.serviceHostedMediaConfig"]},
        "preFetchMedia": {"type": ["array", "null"], "items": media_info(),
            "maxItems": limits::PREFETCHED},
    }))
}

/// A party that fits the schema.
pub(super) fn callee() -> Value {
    json!({"identity": {"phone": {"id": "+15550123"}}})
}

pub(super) fn party() -> Value {
    let identity = needing(
        object(json!({"id": {"type": "string", "pattern": "^\\+?[0-9]{1,15}$"}, "displayName":
            optional_text()})),
        &["id"],
    );
    let identity = needing(object(json!({"phone": identity})), &["phone"]);
    needing(object(json!({"identity": identity})), &["identity"])
}

pub(super) fn modalities() -> Value {
    json!({"type": ["array", "null"], "items": text(), "contains": {"const": "audio"},
        "maxItems": limits::MODALITIES})
}

pub(super) fn new_call() -> Value {
    such_as(
        needing(
            object(json!({
                "callbackUri": http_uri(),
                "targets": {"type": "array", "items": party(), "minItems": 1, "maxItems": 1},
                "requestedModalities": modalities(),
                "mediaConfig": media_config(),
                "subject": optional_text(),
                "direction": {"enum": ["outgoing", null]},
                "callChainId":
                    {"type": ["string", "null"], "pattern": "^[!-~]*$",
                        "maxLength": limits::TEXT_CHARS},
                "callOptions": {"type": ["object", "null"]},
                "routingPolicies": {"type": ["array", "null"], "items": text(),
                    "maxItems": limits::POLICIES},
                "ringingTimeoutInSeconds":
                    {"type": ["integer", "null"], "minimum": limits::RINGING_SECONDS.start(),
                        "maximum": limits::RINGING_SECONDS.end()},
            })),
            &["callbackUri", "targets", "mediaConfig"],
        ),
        json!({
            "callbackUri": "https://bot.example/api/calls",
            "targets": [callee()],
            "mediaConfig": {"@odata.type": "#microsoft.graph.serviceHostedMediaConfig"},
        }),
    )
}

pub(super) fn answer() -> Value {
    such_as(
        needing(
            object(json!({
                "callbackUri": optional(http_uri()),
                "acceptedModalities": modalities(),
                "mediaConfig": media_config(),
                "participantCapacity":
                    {"type": ["integer", "null"], "minimum": 0,
                        "maximum": limits::INT32_MAX},
                "callOptions": {"type": ["object", "null"]},
            })),
            &["mediaConfig"],
        ),
        json!({
            "acceptedModalities": ["audio"],
            "mediaConfig": {"@odata.type": "#microsoft.graph.serviceHostedMediaConfig"},
        }),
    )
}

pub(super) fn reject() -> Value {
    such_as(
        object(json!({
            "reason": {"enum": ["none", "busy", "forbidden", null]},
            "callbackUri": optional(http_uri()),
        })),
        json!({"reason": "busy"}),
    )
}

pub(super) fn redirect() -> Value {
    such_as(
        needing(
            object(json!({
                "targets": {"type": "array", "items": party(), "minItems": 1, "maxItems": 1},
                "timeout": {"type": ["integer", "null"], "minimum": limits::REDIRECT_SECONDS.start(),
                    "maximum": limits::REDIRECT_SECONDS.end()},
                "targetDisposition":
                    {"enum": ["default", "simultaneousRing", "forward", null]},
                "maskCaller": {"enum": [false, null]},
                "maskCallee": {"enum": [false, null]},
                "callbackUri": optional(http_uri()),
            })),
            &["targets"],
        ),
        json!({"targets": [callee()]}),
    )
}

pub(super) fn transfer() -> Value {
    let other = needing(
        object(json!({"replacesCallId": {"type": "string", "format": "uuid"}})),
        &["replacesCallId"],
    );
    let target = json!({"anyOf": [party(), other]});
    let transferee = json!({"type": ["object", "null"]});
    let body = object(json!({"transferTarget": target, "transferee": transferee}));
    such_as(needing(body, &["transferTarget"]), json!({"transferTarget": callee()}))
}

pub(super) fn play_prompt() -> Value {
    such_as(
        needing(
            object(json!({
                "prompts": {"type": "array", "items": prompt(), "minItems": 1,
                    "maxItems": limits::PLAY_PROMPTS},
                "loop": flag(false),
                "clientContext": client_context(),
            })),
            &["prompts"],
        ),
        json!({"prompts": [{"mediaInfo": {"uri": "https://bot.example/hello.wav"}}]}),
    )
}

pub(super) fn record(action: RecordAction) -> Value {
    let max_seconds = action.max_seconds();
    such_as(
        object(json!({
            "prompts": {"type": ["array", "null"], "items": prompt(),
                "maxItems": limits::RECORD_PROMPTS},
            "bargeInAllowed": flag(false),
            "initialSilenceTimeoutInSeconds": seconds(max_seconds),
            "maxSilenceTimeoutInSeconds": seconds(max_seconds),
            "maxRecordDurationInSeconds": seconds(max_seconds),
            "playBeep": flag(true),
            "stopTones": {"type": ["array", "null"], "items": tone(),
                "maxItems": limits::STOP_TONES},
            "streamWhileRecording": flag(false),
            "clientContext": client_context(),
        })),
        json!({"playBeep": true, "stopTones": ["#"], "maxRecordDurationInSeconds": 60}),
    )
}

pub(super) fn send_tones() -> Value {
    such_as(
        needing(
            object(json!({
                "tones": {"type": "array", "items": tone(), "minItems": 1,
                    "maxItems": limits::SENT_TONES},
                "delayBetweenTonesMs":
                    {"type": ["integer", "null"], "minimum": 0,
                        "maximum": limits::TONE_DELAY_MS},
                "clientContext": client_context(),
            })),
            &["tones"],
        ),
        json!({"tones": ["1", "#"]}),
    )
}

pub(super) fn recording_status() -> Value {
    let status = json!({"enum": ["notRecording", "recording", "failed", "unknown"]});
    let body = object(json!({"status": status, "clientContext": client_context()}));
    such_as(needing(body, &["status"]), json!({"status": "recording"}))
}
