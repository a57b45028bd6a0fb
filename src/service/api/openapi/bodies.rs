//! Schemas of request bodies, each with an example that the reader accepts.

use serde_json::{Value, json};

use super::parts::{flag, needing, object, optional, seconds, such_as, text, tone};

/// Maximum durations of `record` and `recordResponse`.
pub(super) const RECORD_SECONDS: u32 = 300;

pub(super) const RECORD_RESPONSE_SECONDS: u32 = 120;

pub(super) fn context() -> Value {
    let body = object(json!({"clientContext": client_context()}));
    such_as(body, json!({"clientContext": "anything"}))
}

pub(super) fn client_context() -> Value {
    json!({"type": ["string", "null"], "maxLength": 256})
}

pub(super) fn http_uri() -> Value {
    json!({"type": "string", "format": "uri", "pattern": "^https?://[a-z0-9]", "maxLength": 8192})
}

pub(super) fn media_info() -> Value {
    let info =
        json!({"uri": http_uri(), "resourceId": {"type": ["string", "null"], "maxLength": 256}});
    needing(object(info), &["uri"])
}

pub(super) fn prompt() -> Value {
    needing(
        object(json!({
            "@odata.type": {"enum": ["#microsoft.graph.mediaPrompt"]},
            "mediaInfo": media_info(),
            "loop": {"type": ["integer", "null"], "minimum": 0, "maximum": 1000},
        })),
        &["mediaInfo"],
    )
}

pub(super) fn media_config() -> Value {
    object(json!({
        "@odata.type": {"enum": ["#microsoft.graph.serviceHostedMediaConfig"]},
        "preFetchMedia": {"type": ["array", "null"], "items": media_info(), "maxItems": 100},
    }))
}

/// A party that fits the schema.
pub(super) fn callee() -> Value {
    json!({"identity": {"phone": {"id": "+15550123"}}})
}

pub(super) fn party() -> Value {
    let identity = needing(
        object(json!({"id": {"type": "string", "pattern": "^\\+?[0-9]{1,15}$"}, "displayName":
            {"type": ["string", "null"], "maxLength": 256}})),
        &["id"],
    );
    let identity = needing(object(json!({"phone": identity})), &["phone"]);
    needing(object(json!({"identity": identity})), &["identity"])
}

pub(super) fn modalities() -> Value {
    json!({"type": ["array", "null"], "items": text(), "contains": {"const": "audio"},
        "maxItems": 16})
}

pub(super) fn new_call() -> Value {
    such_as(
        needing(
            object(json!({
                "callbackUri": http_uri(),
                "targets": {"type": "array", "items": party(), "minItems": 1, "maxItems": 1},
                "requestedModalities": modalities(),
                "mediaConfig": media_config(),
                "subject": {"type": ["string", "null"], "maxLength": 256},
                "direction": {"enum": ["outgoing", null]},
                "callChainId":
                    {"type": ["string", "null"], "pattern": "^[!-~]*$", "maxLength": 256},
                "callOptions": {"type": ["object", "null"]},
                "routingPolicies": {"type": ["array", "null"], "items": text(), "maxItems": 16},
                "ringingTimeoutInSeconds":
                    {"type": ["integer", "null"], "minimum": 1, "maximum": 115},
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
                    {"type": ["integer", "null"], "minimum": 0, "maximum": 0x7fff_ffff},
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
                "timeout": {"type": ["integer", "null"], "minimum": 15, "maximum": 90},
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
                "prompts": {"type": "array", "items": prompt(), "minItems": 1, "maxItems": 20},
                "loop": flag(false),
                "clientContext": client_context(),
            })),
            &["prompts"],
        ),
        json!({"prompts": [{"mediaInfo": {"uri": "https://bot.example/hello.wav"}}]}),
    )
}

pub(super) fn record(max_seconds: u32) -> Value {
    such_as(
        object(json!({
            "prompts": {"type": ["array", "null"], "items": prompt(), "maxItems": 1},
            "bargeInAllowed": flag(false),
            "initialSilenceTimeoutInSeconds": seconds(max_seconds),
            "maxSilenceTimeoutInSeconds": seconds(max_seconds),
            "maxRecordDurationInSeconds": seconds(max_seconds),
            "playBeep": flag(true),
            "stopTones": {"type": ["array", "null"], "items": tone(), "maxItems": 64},
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
                "tones": {"type": "array", "items": tone(), "minItems": 1, "maxItems": 128},
                "delayBetweenTonesMs":
                    {"type": ["integer", "null"], "minimum": 0, "maximum": 10_000},
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
