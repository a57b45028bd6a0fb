//! The bodies of actions: their parameters, with defaults and limits (contract section 2).
//!
//! Input: the JSON of a request. Output: a checked value of [`crate::model`], or [`InvalidBody`].
//! Members that this server does not know are ignored; wrong types are refused.

use serde_json::Value;
use url::Url;

use super::{
    limits::{
        CLIENT_CONTEXT_CHARS, DEFAULT_SECONDS, INT32_MAX, MODALITIES, PLAY_PROMPTS, PREFETCHED,
        PROMPT_TIMES, RECORD_PROMPTS, SENT_TONES, STOP_TONES, TEXT_CHARS, TONE_DELAY_MS, URI_CHARS,
    },
    members::{InvalidBody, Object, quoted, text_at},
};
use crate::model::{
    PlayPromptRequest, PromptSource, RecordAction, RecordRequest, RecordingStatus, RejectReason,
    SendTonesRequest, Tone,
};

/// The body of `answer` (contract section 2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerBody {
    /// Where later notifications go; the application's global callback when absent.
    pub callback_uri: Option<String>,
    /// The media configuration as it was given; JSON text.
    pub media_config: String,
    /// Prompts to fetch now because they will be played.
    pub prefetch: Vec<PromptSource>,
}

impl AnswerBody {
    /// Reads the body.
    ///
    /// # Errors
    /// A member is missing or wrong; the error names it. `appHostedMediaConfig` is an invalid media
    /// mode.
    pub fn read(body: &Value) -> Result<Self, InvalidBody> {
        let body = Object::body(body)?;
        let callback_uri = callback_uri(&body)?;
        modalities(&body, "acceptedModalities")?;
        call_options(&body)?;
        body.whole_number("participantCapacity", 0..=INT32_MAX)?;
        let config = body.object("mediaConfig")?.ok_or_else(|| InvalidBody::Missing {
            path: "mediaConfig".to_owned(),
            expected: "a serviceHostedMediaConfig".to_owned(),
        })?;
        let prefetch = service_hosted(&config)?;
        // `object` above has checked that it is there.
        let media_config = body.member("mediaConfig").map(Value::to_string).unwrap_or_default();
        Ok(Self { callback_uri, media_config, prefetch })
    }
}

/// The body of `reject` (contract section 2.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectBody {
    /// The reason; none when absent.
    pub reason: RejectReason,
    /// Where later notifications go.
    pub callback_uri: Option<String>,
}

impl RejectBody {
    /// Reads the body.
    ///
    /// # Errors
    /// A member is wrong; the error names it.
    pub fn read(body: &Value) -> Result<Self, InvalidBody> {
        let body = Object::body(body)?;
        let reason = match body.text("reason", TEXT_CHARS)? {
            None => RejectReason::None,
            Some(text) => reject_reason(text).ok_or_else(|| InvalidBody::NotAllowed {
                path: body.path_of("reason"),
                expected: "none, busy or forbidden".to_owned(),
                found: quoted(text),
            })?,
        };
        Ok(Self { reason, callback_uri: callback_uri(&body)? })
    }
}

/// The body of `playPrompt` (contract section 2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlayPromptBody {
    /// The prompts, and whether they repeat.
    pub request: PlayPromptRequest,
    /// The client's context, echoed unchanged.
    pub client_context: Option<String>,
}

impl PlayPromptBody {
    /// Reads the body.
    ///
    /// # Errors
    /// A member is missing or wrong; the error names it.
    pub fn read(body: &Value) -> Result<Self, InvalidBody> {
        let body = Object::body(body)?;
        let prompts = prompts(&body, PLAY_PROMPTS)?;
        if prompts.is_empty() {
            return Err(InvalidBody::Missing {
                path: body.path_of("prompts"),
                expected: format!("an array of 1 to {PLAY_PROMPTS} prompts"),
            });
        }
        let repeat = body.flag("loop")?.unwrap_or(false);
        let client_context = context_of(&body)?;
        Ok(Self { request: PlayPromptRequest { prompts, repeat }, client_context })
    }
}

/// The body of `record` and `recordResponse` (contract section 2.6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordBody {
    /// What to record and when to end it.
    pub request: RecordRequest,
    /// The client's context, echoed unchanged.
    pub client_context: Option<String>,
}

impl RecordBody {
    /// Reads the body; the limits are those of `action`.
    ///
    /// # Errors
    /// A member is wrong; the error names it.
    pub fn read(action: RecordAction, body: &Value) -> Result<Self, InvalidBody> {
        let body = Object::body(body)?;
        let seconds = |name| {
            let seconds = body.whole_number(name, 1..=action.max_seconds())?;
            Ok(seconds.unwrap_or(DEFAULT_SECONDS))
        };
        // The value is only checked: a clip is always complete when its location is reported.
        body.flag("streamWhileRecording")?;
        let request = RecordRequest {
            action,
            prompt: prompts(&body, RECORD_PROMPTS)?.pop(),
            barge_in_allowed: body.flag("bargeInAllowed")?.unwrap_or(false),
            initial_silence_seconds: seconds("initialSilenceTimeoutInSeconds")?,
            max_silence_seconds: seconds("maxSilenceTimeoutInSeconds")?,
            max_duration_seconds: seconds("maxRecordDurationInSeconds")?,
            play_beep: body.flag("playBeep")?.unwrap_or(true),
            stop_tones: each_once(tones(&body, "stopTones", STOP_TONES)?),
        };
        Ok(Self { request, client_context: context_of(&body)? })
    }
}

/// The body of `sendDtmfTones` (contract section 2.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendDtmfTonesBody {
    /// The keys to send, and the pause between them.
    pub request: SendTonesRequest,
    /// The client's context, echoed unchanged.
    pub client_context: Option<String>,
}

impl SendDtmfTonesBody {
    /// Reads the body.
    ///
    /// # Errors
    /// A member is missing or wrong; the error names it. `flash` is refused: it is no key that RTP
    /// could carry to a phone.
    pub fn read(body: &Value) -> Result<Self, InvalidBody> {
        let body = Object::body(body)?;
        let tones = tones(&body, "tones", SENT_TONES)?;
        if tones.is_empty() {
            return Err(InvalidBody::Missing {
                path: body.path_of("tones"),
                expected: format!("an array of 1 to {SENT_TONES} tones"),
            });
        }
        let delay_ms = body.whole_number("delayBetweenTonesMs", 0..=TONE_DELAY_MS)?.unwrap_or(0);
        let client_context = context_of(&body)?;
        Ok(Self { request: SendTonesRequest { tones, delay_ms }, client_context })
    }
}

/// The body of `updateRecordingStatus` (contract section 2.8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingStatusBody {
    /// The status that the application reports.
    pub status: RecordingStatus,
    /// The client's context, echoed unchanged.
    pub client_context: Option<String>,
}

impl RecordingStatusBody {
    /// Reads the body.
    ///
    /// # Errors
    /// A member is missing or wrong; the error names it.
    pub fn read(body: &Value) -> Result<Self, InvalidBody> {
        const EXPECTED: &str = "notRecording, recording, failed or unknown";
        let body = Object::body(body)?;
        let text = body.text("status", TEXT_CHARS)?.ok_or_else(|| InvalidBody::Missing {
            path: body.path_of("status"),
            expected: EXPECTED.to_owned(),
        })?;
        let known = [
            ("unknown", RecordingStatus::Unknown),
            ("notRecording", RecordingStatus::NotRecording),
            ("recording", RecordingStatus::Recording),
            ("failed", RecordingStatus::Failed),
        ];
        let status = known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        let (_, status) = status.ok_or_else(|| InvalidBody::NotAllowed {
            path: body.path_of("status"),
            expected: EXPECTED.to_owned(),
            found: quoted(text),
        })?;
        Ok(Self { status, client_context: context_of(&body)? })
    }
}

/// The body of `startHoldMusic` (contract section 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldMusicBody {
    /// The prompt to play; silence without one.
    pub prompt: Option<PromptSource>,
    /// The client's context, echoed unchanged.
    pub client_context: Option<String>,
}

impl HoldMusicBody {
    /// Reads the body.
    ///
    /// # Errors
    /// A member is wrong; the error names it.
    pub fn read(body: &Value) -> Result<Self, InvalidBody> {
        let body = Object::body(body)?;
        let custom = body.object("customPrompt")?;
        let prompt = custom.map(|custom| prompt(&custom)).transpose()?;
        Ok(Self { prompt, client_context: context_of(&body)? })
    }
}

/// Reads `clientContext`, for actions that have no other member (contract section 2.8).
///
/// # Errors
/// `clientContext` is wrong; the error says why.
pub fn client_context(body: &Value) -> Result<Option<String>, InvalidBody> {
    context_of(&Object::body(body)?)
}

fn context_of(body: &Object<'_>) -> Result<Option<String>, InvalidBody> {
    Ok(body.text("clientContext", CLIENT_CONTEXT_CHARS)?.map(str::to_owned))
}

pub(super) fn callback_uri(body: &Object<'_>) -> Result<Option<String>, InvalidBody> {
    let Some(uri) = body.text("callbackUri", URI_CHARS)? else { return Ok(None) };
    // Graph requires https. Closed networks use http; `[fetch]` limits the addresses that are
    // reachable.
    check_uri(body.path_of("callbackUri"), uri, &["https", "http"])?;
    Ok(Some(uri.to_owned()))
}

/// Checks `callOptions`, none of which changes a SIP call.
pub(super) fn call_options(body: &Object<'_>) -> Result<(), InvalidBody> {
    let Some(options) = body.object("callOptions")? else { return Ok(()) };
    for name in [
        "hideBotAfterEscalation",
        "isContentSharingNotificationEnabled",
        "isDeltaRosterEnabled",
        "isInteractiveRosterEnabled",
    ] {
        options.flag(name)?;
    }
    Ok(())
}

/// If modalities are named, audio must be one of them.
pub(super) fn modalities(body: &Object<'_>, name: &str) -> Result<(), InvalidBody> {
    let Some(modalities) = body.list(name, MODALITIES)? else { return Ok(()) };
    let mut audio = false;
    for (path, modality) in modalities {
        audio |=
            text_at(&path, modality, "a modality such as audio")?.eq_ignore_ascii_case("audio");
    }
    if audio {
        return Ok(());
    }
    Err(InvalidBody::NotAllowed {
        path: body.path_of(name),
        expected: "an array that contains audio".to_owned(),
        found: "an array without it".to_owned(),
    })
}

/// Checks the kind of the media configuration, and returns the prompts to fetch.
pub(super) fn service_hosted(config: &Object<'_>) -> Result<Vec<PromptSource>, InvalidBody> {
    match config.odata_type()? {
        // Some clients leave the type out (contract section 3.5).
        None => {}
        Some(name) if name.eq_ignore_ascii_case("serviceHostedMediaConfig") => {}
        Some(name) => {
            return Err(InvalidBody::MediaMode {
                path: config.path().to_owned(),
                found: quoted(name),
            });
        }
    }
    let media = config.list("preFetchMedia", PREFETCHED)?.unwrap_or_default();
    media.into_iter().map(|(path, value)| media_info(&Object::at(path, value)?, 1)).collect()
}

fn prompts(body: &Object<'_>, limit: usize) -> Result<Vec<PromptSource>, InvalidBody> {
    let prompts = body.list("prompts", limit)?.unwrap_or_default();
    prompts.into_iter().map(|(path, value)| prompt(&Object::at(path, value)?)).collect()
}

/// Reads a `mediaPrompt`; without a type, having `mediaInfo` makes it one (contract section 3.5).
fn prompt(prompt: &Object<'_>) -> Result<PromptSource, InvalidBody> {
    if let Some(name) = prompt.odata_type()? {
        // `prompt` is the abstract base; a client that writes it means its only kind.
        if !["mediaPrompt", "prompt"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
            return Err(InvalidBody::NotAllowed {
                path: prompt.path_of("@odata.type"),
                expected: "#microsoft.graph.mediaPrompt".to_owned(),
                found: quoted(name),
            });
        }
    }
    let info = prompt.object("mediaInfo")?.ok_or_else(|| InvalidBody::Missing {
        path: prompt.path_of("mediaInfo"),
        expected: "an object with the uri of the prompt".to_owned(),
    })?;
    // Microsoft's documents do not define `loop`; examples give a count (contract section 2.5).
    let times = prompt.whole_number("loop", 0..=PROMPT_TIMES)?.unwrap_or(1).max(1);
    media_info(&info, times)
}

fn media_info(info: &Object<'_>, times: u32) -> Result<PromptSource, InvalidBody> {
    let uri = info.text("uri", URI_CHARS)?.ok_or_else(|| InvalidBody::Missing {
        path: info.path_of("uri"),
        expected: "the http or https URI of the audio".to_owned(),
    })?;
    check_uri(info.path_of("uri"), uri, &["https", "http", "file", "aftertone"])?;
    let resource_id = info.text("resourceId", TEXT_CHARS)?.filter(|id| !id.is_empty());
    Ok(PromptSource { uri: uri.to_owned(), resource_id: resource_id.map(str::to_owned), times })
}

fn check_uri(path: String, uri: &str, schemes: &[&str]) -> Result<(), InvalidBody> {
    match Url::parse(uri) {
        // The parser drops some control characters, so the stored URI would differ from the parsed
        // one.
        Ok(_) if uri.contains(char::is_control) => Err(InvalidBody::NotAllowed {
            path,
            expected: "a URI without control characters".to_owned(),
            found: "one with them".to_owned(),
        }),
        Ok(url) if schemes.contains(&url.scheme()) => Ok(()),
        // The URI is not repeated: it may carry a signature.
        Ok(url) => Err(InvalidBody::NotAllowed {
            path,
            expected: format!("a URI with the scheme {}", schemes.join(", ")),
            found: format!("one with {}", quoted(url.scheme())),
        }),
        Err(error) => Err(InvalidBody::NotAllowed {
            path,
            expected: "an absolute URI".to_owned(),
            found: format!("none: {error}"),
        }),
    }
}

/// The keys of a list, in order.
fn tones(body: &Object<'_>, name: &str, limit: usize) -> Result<Vec<Tone>, InvalidBody> {
    const EXPECTED: &str = "one key of 0-9 * # A-D, or its name such as tone1 or pound";
    const NO_FLASH: &str = "a key of a keypad, for a hook flash is neither sent nor heard here";
    let tone = |(path, value): (String, &Value)| {
        let text = text_at(&path, value, EXPECTED)?;
        let expected = if text.eq_ignore_ascii_case("flash") { NO_FLASH } else { EXPECTED };
        Tone::parse(text).ok_or_else(|| InvalidBody::NotAllowed {
            path,
            expected: expected.to_owned(),
            found: quoted(text),
        })
    };
    body.list(name, limit)?.unwrap_or_default().into_iter().map(tone).collect()
}

fn each_once(tones: Vec<Tone>) -> Vec<Tone> {
    let mut once = Vec::new();
    for tone in tones {
        if !once.contains(&tone) {
            once.push(tone);
        }
    }
    once
}

fn reject_reason(text: &str) -> Option<RejectReason> {
    let known = [
        ("none", RejectReason::None),
        ("busy", RejectReason::Busy),
        ("forbidden", RejectReason::Forbidden),
    ];
    known.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn record(body: Value) -> Result<RecordRequest, InvalidBody> {
        RecordBody::read(RecordAction::Record, &body).map(|body| body.request)
    }

    fn prompt_json() -> Value {
        json!({"mediaInfo": {"uri": "https://bot.example/prompts/short.wav"}})
    }

    #[test]
    fn the_example_of_the_record_page_is_read() {
        let body = json!({
            "bargeInAllowed": true,
            "clientContext": "d45324c1-fcb5-430a-902c-f20af696537c",
            "prompts": [{
                "@odata.type": "#microsoft.graph.mediaPrompt",
                "mediaInfo": {
                    "uri": "https://bot.example/prompts/short.wav",
                    "resourceId": "1D6DE2D4-CD51-4309-8DAA-70768651088E"
                }
            }],
            "maxRecordDurationInSeconds": 10,
            "initialSilenceTimeoutInSeconds": 5,
            "maxSilenceTimeoutInSeconds": 2,
            "playBeep": true,
            "stopTones": ["#", "1", "*"]
        });
        let read = RecordBody::read(RecordAction::Record, &body).unwrap();
        assert_eq!(read.client_context.as_deref(), Some("d45324c1-fcb5-430a-902c-f20af696537c"));
        assert_eq!(
            read.request,
            RecordRequest {
                action: RecordAction::Record,
                prompt: Some(PromptSource {
                    uri: "https://bot.example/prompts/short.wav".to_owned(),
                    resource_id: Some("1D6DE2D4-CD51-4309-8DAA-70768651088E".to_owned()),
                    times: 1,
                }),
                barge_in_allowed: true,
                initial_silence_seconds: 5,
                max_silence_seconds: 2,
                max_duration_seconds: 10,
                play_beep: true,
                stop_tones: ["#", "1", "*"].iter().filter_map(|key| Tone::parse(key)).collect(),
            }
        );
    }

    #[test]
    fn an_address_with_a_long_signature_is_taken() {
        let address = |chars: usize| {
            let begin = "https://bucket.example/a.wav?X-Amz-Security-Token=";
            format!("{begin}{}", "x".repeat(chars - begin.len()))
        };
        for (chars, is_taken) in [(2_049, true), (8_192, true), (8_193, false)] {
            let media = json!({"uri": address(chars)});
            let prompt = json!({"prompts": [{"mediaInfo": media}]});
            assert_eq!(record(prompt.clone()).is_ok(), is_taken, "{chars}");
            assert_eq!(PlayPromptBody::read(&prompt).is_ok(), is_taken, "{chars}");
            let music = json!({"customPrompt": {"mediaInfo": media}});
            assert_eq!(HoldMusicBody::read(&music).is_ok(), is_taken, "{chars}");
            let answer = json!({"callbackUri": address(chars),
                "mediaConfig": {"preFetchMedia": [media]}});
            assert_eq!(AnswerBody::read(&answer).is_ok(), is_taken, "{chars}");
        }
    }

    #[test]
    fn an_empty_body_records_with_the_documented_defaults() {
        for body in [json!({}), json!(null), json!({"playBeep": null, "stopTones": null})] {
            let request = record(body).unwrap();
            let seconds = (
                request.initial_silence_seconds,
                request.max_silence_seconds,
                request.max_duration_seconds,
            );
            assert_eq!(seconds, (5, 5, 5));
            assert!(request.play_beep && !request.barge_in_allowed);
            assert!(request.prompt.is_none() && request.stop_tones.is_empty());
        }
        assert!(!record(json!({"playBeep": false})).unwrap().play_beep);
    }

    #[test]
    fn each_action_has_its_own_limit() {
        let body = json!({"maxRecordDurationInSeconds": 121});
        assert_eq!(record(body.clone()).unwrap().max_duration_seconds, 121);
        let refused = RecordBody::read(RecordAction::RecordResponse, &body).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "maxRecordDurationInSeconds must be a whole number from 1 to 120, but is 121"
        );
        assert_eq!(refused.code(), "8523");
    }

    /// Every member with a wrong type or a wrong value: the path and the code of the error.
    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let second_wrong = json!([{"mediaInfo": {"uri": "ftp://bot.example/a.wav"}}]);
        let table = [
            (json!({"maxRecordDurationInSeconds": 301}), "maxRecordDurationInSeconds", "8523"),
            (json!({"maxRecordDurationInSeconds": 0}), "maxRecordDurationInSeconds", "8523"),
            (json!({"maxRecordDurationInSeconds": 1e300}), "maxRecordDurationInSeconds", "8523"),
            (
                json!({"maxRecordDurationInSeconds": "5"}),
                "maxRecordDurationInSeconds",
                "BadRequest",
            ),
            (
                json!({"initialSilenceTimeoutInSeconds": -1}),
                "initialSilenceTimeoutInSeconds",
                "8523",
            ),
            (
                json!({"initialSilenceTimeoutInSeconds": []}),
                "initialSilenceTimeoutInSeconds",
                "BadRequest",
            ),
            (
                json!({"maxSilenceTimeoutInSeconds": true}),
                "maxSilenceTimeoutInSeconds",
                "BadRequest",
            ),
            (json!({"playBeep": "true"}), "playBeep", "BadRequest"),
            (json!({"playBeep": 1}), "playBeep", "BadRequest"),
            (json!({"bargeInAllowed": {}}), "bargeInAllowed", "BadRequest"),
            (json!({"clientContext": 1}), "clientContext", "BadRequest"),
            (json!({"clientContext": "x".repeat(257)}), "clientContext", "8523"),
            (json!({"stopTones": "#"}), "stopTones", "BadRequest"),
            (json!({"stopTones": [1]}), "stopTones[0]", "BadRequest"),
            (json!({"stopTones": ["#", null]}), "stopTones[1]", "BadRequest"),
            (json!({"stopTones": ["#", "11"]}), "stopTones[1]", "8523"),
            (json!({"stopTones": ["flash"]}), "stopTones[0]", "8523"),
            (json!({"streamWhileRecording": "no"}), "streamWhileRecording", "BadRequest"),
            (json!({"prompts": {}}), "prompts", "BadRequest"),
            (json!({"prompts": [1]}), "prompts[0]", "BadRequest"),
            (json!({"prompts": [prompt_json(), prompt_json()]}), "prompts", "8523"),
            (json!({"prompts": [{}]}), "prompts[0].mediaInfo", "8523"),
            (json!({"prompts": [{"mediaInfo": "x"}]}), "prompts[0].mediaInfo", "BadRequest"),
            (json!({"prompts": [{"mediaInfo": {}}]}), "prompts[0].mediaInfo.uri", "8523"),
            (
                json!({"prompts": [{"mediaInfo": {"uri": 5}}]}),
                "prompts[0].mediaInfo.uri",
                "BadRequest",
            ),
            (
                json!({"prompts": [{"mediaInfo": {"uri": "short.wav"}}]}),
                "prompts[0].mediaInfo.uri",
                "8523",
            ),
            (json!({"prompts": second_wrong}), "prompts[0].mediaInfo.uri", "8523"),
            (
                json!({"prompts": [{"@odata.type": "#microsoft.graph.textPrompt"}]}),
                "prompts[0].@odata.type",
                "8523",
            ),
            (json!([]), "The body", "BadRequest"),
            (json!("record"), "The body", "BadRequest"),
        ];
        for (body, path, code) in table {
            let refused = record(body.clone()).expect_err(&body.to_string());
            assert!(refused.to_string().starts_with(&format!("{path} ")), "{body}: {refused}");
            assert_eq!(refused.code(), code, "{body}");
        }
    }

    #[test]
    fn unknown_members_are_ignored() {
        let body = json!({"recordingFormat": "wav", "$id": "1", "streamWhileRecording": false});
        assert!(record(body).is_ok());
    }

    #[test]
    fn a_hook_flash_is_refused_in_its_own_words() {
        let refused = SendDtmfTonesBody::read(&json!({"tones": ["tone1", "flash"]})).unwrap_err();
        assert_eq!(refused.code(), "8523");
        assert_eq!(
            refused.to_string(),
            "tones[1] must be a key of a keypad, for a hook flash is neither sent nor heard here, \
             but is \"flash\""
        );
    }

    #[test]
    fn stop_tones_are_keys_or_names_each_once() {
        let request = record(json!({"stopTones": ["#", "pound", "Tone1", "a"]})).unwrap();
        let keys: String = request.stop_tones.iter().map(|tone| tone.as_char()).collect();
        assert_eq!(keys, "#1A");
    }

    #[test]
    fn a_context_of_256_characters_is_taken_whatever_its_bytes() {
        let context = "\u{1f600}".repeat(256);
        let body = json!({"clientContext": context});
        assert_eq!(client_context(&body), Ok(Some(context)));
    }

    #[test]
    fn play_prompt_takes_1_to_20_prompts() {
        let play = |count: usize| {
            PlayPromptBody::read(&json!({"prompts": vec![prompt_json(); count], "loop": true}))
        };
        assert_eq!(play(20).unwrap().request.prompts.len(), 20);
        assert!(play(1).unwrap().request.repeat);
        assert_eq!(play(0).unwrap_err().code(), "8523");
        assert_eq!(
            play(21).unwrap_err().to_string(),
            "prompts may hold at most 20 elements, but holds 21"
        );
        assert!(PlayPromptBody::read(&json!({})).is_err());
    }

    #[test]
    fn a_prompt_may_say_how_often_it_is_played() {
        let with = |times: u32| {
            let mut prompt = prompt_json();
            prompt["loop"] = json!(times);
            record(json!({"prompts": [prompt]})).map(|request| request.prompt.unwrap().times)
        };
        assert_eq!(with(3), Ok(3));
        assert_eq!(with(0), Ok(1));
        assert!(with(1001).is_err());
    }

    #[test]
    fn answer_keeps_the_media_configuration_and_finds_what_to_prefetch() {
        let config = json!({
            "preFetchMedia": [{"uri": "https://bot.example/a.wav", "resourceId": "r"}],
            "@odata.type": "microsoft.graph.serviceHostedMediaConfig"
        });
        let body = json!({
            "acceptedModalities": ["Audio"],
            "callbackUri": "https://bot.example/api/calls",
            "mediaConfig": config
        });
        let answer = AnswerBody::read(&body).unwrap();
        assert_eq!(answer.media_config, config.to_string());
        assert_eq!(answer.callback_uri.as_deref(), Some("https://bot.example/api/calls"));
        assert_eq!(answer.prefetch.len(), 1);
        assert_eq!(answer.prefetch[0].resource_id.as_deref(), Some("r"));
    }

    #[test]
    fn answer_is_refused_with_the_code_that_fits() {
        let app_hosted =
            json!({"@odata.type": "#microsoft.graph.appHostedMediaConfig", "blob": ""});
        let table = [
            (json!({}), "mediaConfig", "8523"),
            (json!({"mediaConfig": app_hosted}), "mediaConfig", "8500"),
            (json!({"mediaConfig": []}), "mediaConfig", "BadRequest"),
            (
                json!({"mediaConfig": {"preFetchMedia": [{}]}}),
                "mediaConfig.preFetchMedia[0].uri",
                "8523",
            ),
            (
                json!({"mediaConfig": {}, "acceptedModalities": ["video"]}),
                "acceptedModalities",
                "8523",
            ),
            (
                json!({"mediaConfig": {}, "participantCapacity": "2"}),
                "participantCapacity",
                "BadRequest",
            ),
            (json!({"mediaConfig": {}, "callOptions": 5}), "callOptions", "BadRequest"),
            (json!({"mediaConfig": {}, "callbackUri": "bot"}), "callbackUri", "8523"),
            (
                json!({"mediaConfig": {}, "callbackUri": "file:///etc/passwd"}),
                "callbackUri",
                "8523",
            ),
        ];
        for (body, path, code) in table {
            let refused = AnswerBody::read(&body).expect_err(&body.to_string());
            assert!(refused.to_string().starts_with(&format!("{path} ")), "{body}: {refused}");
            assert_eq!(refused.code(), code, "{body}");
        }
        assert!(AnswerBody::read(&json!({"mediaConfig": {}})).is_ok());
    }

    #[test]
    fn reject_reads_the_reason_in_any_case() {
        let reason =
            |text: &str| RejectBody::read(&json!({"reason": text})).map(|body| body.reason);
        assert_eq!(reason("Busy"), Ok(RejectReason::Busy));
        assert_eq!(reason("forbidden"), Ok(RejectReason::Forbidden));
        assert_eq!(RejectBody::read(&json!({})).unwrap().reason, RejectReason::None);
        assert_eq!(
            reason("later").unwrap_err().to_string(),
            "reason must be none, busy or forbidden, but is \"later\""
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        let name = prop_oneof![
            Just("prompts"),
            Just("mediaInfo"),
            Just("uri"),
            Just("@odata.type"),
            Just("stopTones"),
            Just("mediaConfig"),
            Just("preFetchMedia"),
            Just("playBeep"),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((name.clone().prop_map(str::to_owned), inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_body_makes_a_reader_panic(body in any_json()) {
            let _ = RecordBody::read(RecordAction::Record, &body);
            let _ = PlayPromptBody::read(&body);
            let _ = AnswerBody::read(&body);
            let _ = RejectBody::read(&body);
            let _ = client_context(&body);
        }
    }
}
