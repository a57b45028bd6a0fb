//! Parses a path to the resource that it names: all the forms of contract section 1, as one pure
//! function.
//!
//! Input: the path of a request. Output: a [`Route`], or the part of the path that names nothing.
//! Methods and permissions are checked elsewhere.

use std::borrow::Cow;

use aftertone_core::{
    graph::Version,
    model::{CallId, OperationId, ParticipantId},
};

/// The resource that a path names, and the version of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The version in the path; v1.0 when the path has none.
    pub version: Version,
    /// The resource.
    pub target: Target,
}

/// A resource that has a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `/communications/calls`.
    Calls,
    /// `/communications/calls/{id}`.
    Call(CallId),
    /// `/communications/calls/{id}/{action}`.
    Action(CallId, Action),
    /// `/communications/calls/{id}/operations`.
    Operations(CallId),
    /// `/communications/calls/{id}/operations/{id}`.
    Operation(CallId, OperationId),
    /// `/communications/calls/{id}/participants`.
    Participants(CallId),
    /// `/communications/calls/{id}/participants/{id}`.
    Participant(CallId, ParticipantId),
    /// `/communications/calls/{id}/participants/{id}/{action}`.
    ParticipantAction(CallId, ParticipantId, ParticipantAction),
    /// `/communications/calls/{id}/trace`: an addition to Graph.
    Trace(CallId),
    /// `/communications/undeliveredNotifications`: an addition to Graph.
    Undelivered,
    /// `/communications/undeliveredNotifications/resend`.
    ResendAll,
    /// `/communications/undeliveredNotifications/{id}/resend`.
    Resend(CallId, u64),
    /// A resource that Graph has and this server does not, by its name.
    Unsupported(&'static str),
}

/// An action on a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// `answer`.
    Answer,
    /// `reject`.
    Reject,
    /// `keepAlive`.
    KeepAlive,
    /// `playPrompt`.
    PlayPrompt,
    /// `record`.
    Record,
    /// `recordResponse`.
    RecordResponse,
    /// `cancelMediaProcessing`.
    CancelMediaProcessing,
    /// `subscribeToTone`.
    SubscribeToTone,
    /// `transfer`.
    Transfer,
    /// `redirect`.
    Redirect,
    /// `sendDtmfTones`.
    SendDtmfTones,
    /// `mute`.
    Mute,
    /// `unmute`.
    Unmute,
    /// `updateRecordingStatus`.
    UpdateRecordingStatus,
}

/// An action on one side of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParticipantAction {
    /// `mute`.
    Mute,
    /// `unmute`: an addition to Graph, where only a participant can unmute itself. A phone cannot
    /// do that.
    Unmute,
    /// `startHoldMusic`.
    StartHoldMusic,
    /// `stopHoldMusic`.
    StopHoldMusic,
}

/// Why a path names no resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRoute {
    /// The path is outside the Graph API; with its first segment.
    Elsewhere(String),
    /// The API has no such segment.
    Segment(String),
    /// The text is not a valid id of a call.
    Call,
    /// The text is not a valid id of an operation.
    Operation,
    /// The text is not a valid id of a participant.
    Participant,
    /// The text is not a valid id of a notification.
    Notification,
}

const ACTIONS: [(&str, Action); 14] = [
    ("answer", Action::Answer),
    ("reject", Action::Reject),
    ("keepAlive", Action::KeepAlive),
    ("playPrompt", Action::PlayPrompt),
    ("record", Action::Record),
    ("recordResponse", Action::RecordResponse),
    ("cancelMediaProcessing", Action::CancelMediaProcessing),
    ("subscribeToTone", Action::SubscribeToTone),
    ("transfer", Action::Transfer),
    ("redirect", Action::Redirect),
    ("sendDtmfTones", Action::SendDtmfTones),
    ("mute", Action::Mute),
    ("unmute", Action::Unmute),
    ("updateRecordingStatus", Action::UpdateRecordingStatus),
];

const PARTICIPANT_ACTIONS: [(&str, ParticipantAction); 4] = [
    ("mute", ParticipantAction::Mute),
    ("unmute", ParticipantAction::Unmute),
    ("startHoldMusic", ParticipantAction::StartHoldMusic),
    ("stopHoldMusic", ParticipantAction::StopHoldMusic),
];

/// Unsupported segments below a call: the rows with "no" in the contract's table (section 2).
const UNSUPPORTED: [&str; 10] = [
    "changeScreenSharingRole",
    "addLargeGalleryView",
    "startRecording",
    "stopRecording",
    "startTranscription",
    "stopTranscription",
    "audioRoutingGroups",
    "contentSharingSessions",
    "configureMixer",
    "muteAll",
];

/// Unsupported segments below the participants of a call.
const UNSUPPORTED_OF_PARTICIPANTS: [&str; 3] = ["invite", "muteAll", "configureMixer"];

/// Unsupported segment below one participant.
const SYNTHETIC_MEDIA: &str = "reportSyntheticMedia";

/// Unsupported segment below a collection: its size. The option `$count` gives it instead.
const COUNT: &str = "$count";

/// Unsupported segment below the collection of calls.
const DEVICE_QUALITY: &str = "logTeleconferenceDeviceQuality";

/// No path of the API has more segments, so the rest of a longer path is not read.
const MAX_SEGMENTS: usize = 12;

impl Route {
    /// Parses the path of a request, without its query.
    ///
    /// # Errors
    /// The part of the path that names nothing.
    pub fn parse(path: &str) -> Result<Self, NoRoute> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let decoded: Vec<_> = path.split('/').take(MAX_SEGMENTS).map(percent_decoded).collect();
        // A key may be in parentheses: `calls('id')` means `calls/id`.
        let segments: Vec<&str> = decoded.iter().flat_map(|segment| unfolded(segment)).collect();

        let (version, rest) = match segments.as_slice() {
            ["v1.0", rest @ ..] => (Some(Version::V1), rest),
            ["beta", rest @ ..] => (Some(Version::Beta), rest),
            rest => (None, rest),
        };
        let below_calls = match (rest, version) {
            (["communications", "calls", rest @ ..], _) => rest,
            (["communications", "undeliveredNotifications", rest @ ..], _) => {
                let version = version.unwrap_or(Version::V1);
                return Ok(Self { version, target: undelivered(rest)? });
            }
            (["communications", other, ..], _) => return Err(segment(other)),
            // Deprecated alias of beta; Microsoft's pages print it without a version.
            (["app", "calls", rest @ ..], None | Some(Version::Beta)) => rest,
            (["app", other, ..], None | Some(Version::Beta)) => return Err(segment(other)),
            ([only @ ("communications" | "app")], _) => return Err(segment(only)),
            ([first, ..], Some(_)) => return Err(segment(first)),
            ([first, ..], None) => return Err(NoRoute::Elsewhere((*first).to_owned())),
            ([], _) => return Err(NoRoute::Elsewhere(String::new())),
        };
        let target = target(below_calls)?;
        Ok(Self { version: version.unwrap_or(Version::V1), target })
    }

    /// The route with its ids left out, for logs.
    pub fn label(&self) -> String {
        const CALLS: &str = "/communications/calls";
        const UNDELIVERED: &str = "/communications/undeliveredNotifications";
        match self.target {
            Target::Calls => CALLS.to_owned(),
            Target::Call(_) => format!("{CALLS}/{{id}}"),
            Target::Action(_, action) => format!("{CALLS}/{{id}}/{}", action.name()),
            Target::Operations(_) => format!("{CALLS}/{{id}}/operations"),
            Target::Operation(..) => format!("{CALLS}/{{id}}/operations/{{operationId}}"),
            Target::Participants(_) => format!("{CALLS}/{{id}}/participants"),
            Target::Participant(..) => format!("{CALLS}/{{id}}/participants/{{participantId}}"),
            Target::ParticipantAction(_, _, action) => {
                format!("{CALLS}/{{id}}/participants/{{participantId}}/{}", action.name())
            }
            Target::Trace(_) => format!("{CALLS}/{{id}}/trace"),
            Target::Undelivered => UNDELIVERED.to_owned(),
            Target::ResendAll => format!("{UNDELIVERED}/resend"),
            Target::Resend(..) => format!("{UNDELIVERED}/{{notificationId}}/resend"),
            Target::Unsupported(name) => format!("{CALLS}/{{id}}/{name}"),
        }
    }
}

impl Target {
    /// The methods that the resource allows, in the form of an `Allow` header.
    pub fn allow(&self) -> &'static str {
        match self {
            Self::Calls => "GET, POST",
            Self::Call(_) | Self::Participant(..) => "GET, DELETE",
            Self::Action(..) | Self::ParticipantAction(..) | Self::ResendAll | Self::Resend(..) => {
                "POST"
            }
            Self::Operations(_)
            | Self::Operation(..)
            | Self::Participants(_)
            | Self::Undelivered
            | Self::Trace(_) => "GET",
            Self::Unsupported(_) => "",
        }
    }
}

impl Action {
    /// All actions.
    pub fn all() -> impl Iterator<Item = Self> {
        ACTIONS.into_iter().map(|(_, action)| action)
    }

    /// The unqualified name of the action.
    pub fn name(self) -> &'static str {
        name_of(&ACTIONS, self)
    }
}

impl ParticipantAction {
    /// All actions.
    pub fn all() -> impl Iterator<Item = Self> {
        PARTICIPANT_ACTIONS.into_iter().map(|(_, action)| action)
    }

    /// The unqualified name of the action.
    pub fn name(self) -> &'static str {
        name_of(&PARTICIPANT_ACTIONS, self)
    }
}

/// The name of an action in its table, which contains every action.
fn name_of<T: PartialEq>(table: &[(&'static str, T)], action: T) -> &'static str {
    let known = table.iter().find(|(_, known)| *known == action);
    known.map_or("", |(name, _)| name)
}

fn action_of<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(known, _)| *known == name).map(|(_, action)| *action)
}

fn target(below_calls: &[&str]) -> Result<Target, NoRoute> {
    let (call, rest) = match below_calls {
        [] => return Ok(Target::Calls),
        [COUNT] => return Ok(Target::Unsupported(COUNT)),
        [name] if unqualified(name) == DEVICE_QUALITY => {
            return Ok(Target::Unsupported(DEVICE_QUALITY));
        }
        [id, rest @ ..] => (id.parse::<CallId>().map_err(|_| NoRoute::Call)?, rest),
    };
    match rest {
        [] => Ok(Target::Call(call)),
        ["trace"] => Ok(Target::Trace(call)),
        ["operations"] => Ok(Target::Operations(call)),
        ["operations" | "participants", COUNT] => Ok(Target::Unsupported(COUNT)),
        ["operations", id] => {
            Ok(Target::Operation(call, id.parse().map_err(|_| NoRoute::Operation)?))
        }
        ["operations", _, other, ..] => Err(segment(other)),
        ["participants"] => Ok(Target::Participants(call)),
        ["participants", id, rest @ ..] => participant(call, id, rest),
        [name, below @ ..] => {
            let name = unqualified(name);
            if let Some(unsupported) = UNSUPPORTED.iter().find(|known| **known == name) {
                return Ok(Target::Unsupported(unsupported));
            }
            match (action_of(&ACTIONS, name), below) {
                (Some(action), []) => Ok(Target::Action(call, action)),
                (Some(_), [other, ..]) => Err(segment(other)),
                (None, _) => Err(segment(name)),
            }
        }
    }
}

/// Parses the part below the undelivered notifications. The id is the message id of a notification.
fn undelivered(rest: &[&str]) -> Result<Target, NoRoute> {
    match rest {
        [] => Ok(Target::Undelivered),
        ["resend"] => Ok(Target::ResendAll),
        [id, "resend"] => {
            let (call, sequence) = id.rsplit_once('-').ok_or(NoRoute::Notification)?;
            let call = call.parse().map_err(|_| NoRoute::Notification)?;
            Ok(Target::Resend(call, sequence.parse().map_err(|_| NoRoute::Notification)?))
        }
        [_] => Err(NoRoute::Notification),
        [_, other, ..] => Err(segment(other)),
    }
}

fn participant(call: CallId, id: &str, rest: &[&str]) -> Result<Target, NoRoute> {
    let name = unqualified(id);
    if let Some(unsupported) = UNSUPPORTED_OF_PARTICIPANTS.iter().find(|known| **known == name) {
        return Ok(Target::Unsupported(unsupported));
    }
    let id = id.parse().map_err(|_| NoRoute::Participant)?;
    match rest {
        [] => Ok(Target::Participant(call, id)),
        [name] => {
            let name = unqualified(name);
            if name == SYNTHETIC_MEDIA {
                return Ok(Target::Unsupported(SYNTHETIC_MEDIA));
            }
            let action = action_of(&PARTICIPANT_ACTIONS, name).ok_or_else(|| segment(name))?;
            Ok(Target::ParticipantAction(call, id, action))
        }
        [_, other, ..] => Err(segment(other)),
    }
}

fn segment(name: &str) -> NoRoute {
    NoRoute::Segment(name.to_owned())
}

/// The name of an action without its namespace, which old .NET clients capitalise.
fn unqualified(name: &str) -> &str {
    const NAMESPACE: &str = "microsoft.graph.";
    match name.get(..NAMESPACE.len()) {
        Some(prefix) if prefix.eq_ignore_ascii_case(NAMESPACE) => &name[NAMESPACE.len()..],
        _ => name,
    }
}

/// Splits `calls('id')` into `calls` and `id`; leaves other segments unchanged.
fn unfolded(segment: &str) -> impl Iterator<Item = &str> {
    let keyed = segment.strip_suffix("')").and_then(|segment| segment.split_once("('"));
    let (name, key) = keyed.map_or((segment, None), |(name, key)| (name, Some(key)));
    std::iter::once(name).chain(key)
}

/// Decodes percent-encoding. A segment that is not UTF-8 afterwards stays as it is and matches
/// nothing.
fn percent_decoded(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let hex = |digit: u8| char::from(digit).to_digit(16);
    let mut decoded = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [byte, after @ ..] = rest {
        rest = after;
        if let (b'%', [high, low, after @ ..]) = (byte, after)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            decoded.push((high * 16 + low) as u8);
            rest = after;
        } else {
            decoded.push(*byte);
        }
    }
    String::from_utf8(decoded).map_or(Cow::Borrowed(segment), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CALL: &str = "2e1a0b00-2db4-4022-9570-243709c565ab";
    const OPERATION: &str = "0fe0623f-d628-42ed-b4bd-8ac290072cc5";
    const PARTICIPANT: &str = "18214a6f-5e2f-4a5c-8a5d-8ff3a5b1d6cd";

    #[test]
    fn every_form_of_a_path_names_its_thing() {
        use Version::{Beta, V1};
        let (call, operation) = (CALL.parse().unwrap(), OPERATION.parse().unwrap());
        let participant = PARTICIPANT.parse().unwrap();
        let table = [
            ("/v1.0/communications/calls", V1, Target::Calls),
            ("/v1.0/communications/calls/", V1, Target::Calls),
            ("/communications/calls", V1, Target::Calls),
            ("/beta/communications/calls", Beta, Target::Calls),
            ("/beta/app/calls", Beta, Target::Calls),
            ("/app/calls", V1, Target::Calls),
            ("/v1.0/communications/calls/{c}", V1, Target::Call(call)),
            ("/v1.0/communications/calls/{C}/", V1, Target::Call(call)),
            ("/v1.0/communications/calls('{c}')", V1, Target::Call(call)),
            ("/v1.0/communications/calls(%27{c}%27)", V1, Target::Call(call)),
            ("/beta/app/calls/{c}/record", Beta, Target::Action(call, Action::Record)),
            ("/beta/app/calls('{C}')/record", Beta, Target::Action(call, Action::Record)),
            ("/v1.0/communications/calls/{c}/answer", V1, Target::Action(call, Action::Answer)),
            ("/v1.0/communications/calls/{c}/reject", V1, Target::Action(call, Action::Reject)),
            ("/communications/calls/{c}/keepAlive", V1, Target::Action(call, Action::KeepAlive)),
            (
                "/v1.0/communications/calls/{c}/microsoft.graph.playPrompt",
                V1,
                Target::Action(call, Action::PlayPrompt),
            ),
            (
                "/v1.0/communications/calls/{c}/Microsoft.Graph.recordResponse",
                V1,
                Target::Action(call, Action::RecordResponse),
            ),
            (
                "/v1.0/communications/calls/{c}/cancelMediaProcessing/",
                V1,
                Target::Action(call, Action::CancelMediaProcessing),
            ),
            (
                "/beta/communications/calls/{c}/subscribeToTone",
                Beta,
                Target::Action(call, Action::SubscribeToTone),
            ),
            ("/v1.0/communications/calls/{c}/operations", V1, Target::Operations(call)),
            (
                "/beta/communications/calls/{c}/operations/{o}",
                Beta,
                Target::Operation(call, operation),
            ),
            (
                "/beta/communications/calls('{c}')/operations('{o}')",
                Beta,
                Target::Operation(call, operation),
            ),
            ("/v1.0/communications/calls/{c}/redirect", V1, Target::Action(call, Action::Redirect)),
            (
                "/v1.0/communications/calls/{c}/microsoft.graph.sendDtmfTones",
                V1,
                Target::Action(call, Action::SendDtmfTones),
            ),
            ("/v1.0/communications/calls/{c}/participants", V1, Target::Participants(call)),
            (
                "/v1.0/communications/calls('{c}')/participants('{p}')",
                V1,
                Target::Participant(call, participant),
            ),
            (
                "/v1.0/communications/calls/{c}/participants/{p}/microsoft.graph.mute",
                V1,
                Target::ParticipantAction(call, participant, ParticipantAction::Mute),
            ),
            (
                "/beta/communications/calls/{c}/participants/{p}/startHoldMusic",
                Beta,
                Target::ParticipantAction(call, participant, ParticipantAction::StartHoldMusic),
            ),
            ("/communications/undeliveredNotifications", V1, Target::Undelivered),
            ("/beta/communications/undeliveredNotifications/resend", Beta, Target::ResendAll),
            (
                "/communications/undeliveredNotifications/{c}-17/resend",
                V1,
                Target::Resend(call, 17),
            ),
            (
                "/v1.0/communications/calls/{c}/participants/microsoft.graph.invite",
                V1,
                Target::Unsupported("invite"),
            ),
            (
                "/v1.0/communications/calls/logTeleconferenceDeviceQuality",
                V1,
                Target::Unsupported("logTeleconferenceDeviceQuality"),
            ),
            (
                "/beta/communications/calls/{c}/participants/{p}/reportSyntheticMedia",
                Beta,
                Target::Unsupported("reportSyntheticMedia"),
            ),
            ("/v1.0/communications/calls/$count", V1, Target::Unsupported("$count")),
            ("/communications/calls/{c}/participants/$count", V1, Target::Unsupported("$count")),
            ("/communications/calls/{c}/operations/%24count", V1, Target::Unsupported("$count")),
        ];
        for (path, version, target) in table {
            let path = filled(path);
            assert_eq!(Route::parse(&path), Ok(Route { version, target }), "{path}");
        }
    }

    #[test]
    fn what_names_nothing_is_told() {
        let segment = |name: &str| NoRoute::Segment(name.to_owned());
        let elsewhere = |name: &str| NoRoute::Elsewhere(name.to_owned());
        let table = [
            ("/", elsewhere("")),
            ("", elsewhere("")),
            ("/favicon.ico", elsewhere("favicon.ico")),
            ("/v2.0/communications/calls", elsewhere("v2.0")),
            ("/v1.0/app/calls", segment("app")),
            ("/v1.0/users", segment("users")),
            ("/v1.0/communications", segment("communications")),
            ("/v1.0/communications/presences", segment("presences")),
            ("/v1.0/communications/Calls", segment("Calls")),
            ("/v1.0/communications/calls/x", NoRoute::Call),
            ("/v1.0/communications/calls//answer", NoRoute::Call),
            ("/v1.0/communications/calls/{c}/dance", segment("dance")),
            ("/v1.0/communications/calls/{c}/Answer", segment("Answer")),
            ("/v1.0/communications/calls/{c}/answer/again", segment("again")),
            ("/v1.0/communications/calls/{c}/operations/x", NoRoute::Operation),
            ("/v1.0/communications/calls/{c}/operations/{o}/x", segment("x")),
            ("/communications/undeliveredNotifications/{c}-x/resend", NoRoute::Notification),
            ("/communications/undeliveredNotifications/{c}-17", NoRoute::Notification),
            ("/v1.0/communications/calls/{c}/participants/x", NoRoute::Participant),
            ("/v1.0/communications/calls/{c}/participants/{p}/dance", segment("dance")),
            ("/v1.0/communications/calls/{c}/participants/{p}/mute/x", segment("x")),
        ];
        for (path, expected) in table {
            let path = filled(path);
            assert_eq!(Route::parse(&path), Err(expected), "{path}");
        }
    }

    #[test]
    fn each_action_has_its_own_name() {
        for (name, action) in ACTIONS {
            assert_eq!(action.name(), name);
        }
        for (name, action) in PARTICIPANT_ACTIONS {
            assert_eq!(action.name(), name);
        }
    }

    fn filled(path: &str) -> String {
        let bare_upper = CALL.replace('-', "").to_uppercase();
        let path = path.replace("{c}", CALL).replace("{C}", &bare_upper);
        path.replace("{o}", OPERATION).replace("{p}", PARTICIPANT)
    }

    proptest! {
        #[test]
        fn no_path_makes_the_parser_panic(path in "[/%'()a-fcls0-9.é]{0,60}", free: String) {
            let _ = Route::parse(&path);
            let _ = Route::parse(&free);
            let _ = Route::parse(&format!("/v1.0/communications/calls/{free}"));
        }
    }
}
