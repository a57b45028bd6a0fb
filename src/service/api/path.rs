//! The forms in which clients write a path of the Graph API (contract section 1), brought to one.
//!
//! Input: the path of a request. Output: the same resource as the router of
//! [`graph`](super::graph) knows it: below `/communications`, without a version, each key in a
//! segment of its own, names of actions unqualified.

use std::borrow::Cow;

use axum::http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use aftertone_core::graph::Version;

/// A path of the Graph API in the form of the router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GraphPath {
    /// The version in the path; v1.0 when the path has none.
    pub(super) version: Version,
    /// The path with the query of the request.
    pub(super) target: PathAndQuery,
}

/// Why a path is not below `/communications`. The text is the segment that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotGraph {
    /// The path is outside the Graph API.
    Elsewhere(String),
    /// The path has a version or prefix of the Graph API, and then this segment.
    Segment(String),
}

/// No path of the API has more segments, so the rest of a longer path is not read.
const MAX_SEGMENTS: usize = 12;

/// Navigation properties, which have no qualified name (OData URL conventions, section 4.4).
const NAVIGATION: [&str; 3] = ["operations", "participants", "trace"];

/// Characters of a segment that are written as they are: `pchar` of RFC 3986 section 3.3.
const NOT_IN_SEGMENT: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'/')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

impl GraphPath {
    /// Reads the path and the query of a request.
    ///
    /// # Errors
    /// The path is not one of the Graph API.
    pub(super) fn parse(target: &PathAndQuery) -> Result<Self, NotGraph> {
        let path = target.path();
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let decoded: Vec<_> = path.split('/').take(MAX_SEGMENTS).map(percent_decoded).collect();
        let segments: Vec<&str> = decoded.iter().flat_map(|segment| unfolded(segment)).collect();

        let (version, rest) = match segments.as_slice() {
            ["v1.0", rest @ ..] => (Some(Version::V1), rest),
            ["beta", rest @ ..] => (Some(Version::Beta), rest),
            rest => (None, rest),
        };
        let segment = |name: &str| NotGraph::Segment(name.to_owned());
        let below = match (rest, version) {
            (["communications", below @ ..], _) => below,
            // Deprecated alias of beta; Microsoft's pages print it without a version.
            (["app", "calls", ..], None | Some(Version::Beta)) => &rest[1..],
            (["app", other, ..], None | Some(Version::Beta)) => return Err(segment(other)),
            (["app"], None) => return Err(segment("app")),
            ([first, ..], Some(_)) => return Err(segment(first)),
            ([first, ..], None) => return Err(NotGraph::Elsewhere((*first).to_owned())),
            ([], _) => return Err(NotGraph::Elsewhere(String::new())),
        };
        let mut routed = "/communications".to_owned();
        for (position, segment) in below.iter().enumerate() {
            let name = if is_action(below, position) { unqualified(segment) } else { segment };
            routed.push('/');
            routed.extend(utf8_percent_encode(name, NOT_IN_SEGMENT));
        }
        if let Some(query) = target.query() {
            routed.push('?');
            routed.push_str(query);
        }
        // A path that becomes too long for a request names nothing.
        let target = routed.try_into().map_err(|_| segment("communications"))?;
        Ok(Self { version: version.unwrap_or(Version::V1), target })
    }
}

/// Whether the segment at this position below `/communications` may name an action: of a call, of
/// its participants or of one of them, or of all calls in the place of an id.
fn is_action(below: &[&str], position: usize) -> bool {
    match below[..position] {
        ["calls"] => unqualified(below[position]) == "logTeleconferenceDeviceQuality",
        ["calls", _] | ["calls", _, "participants", _] => true,
        ["calls", _, "participants"] => {
            ["invite", "muteAll", "configureMixer"].contains(&unqualified(below[position]))
        }
        _ => false,
    }
}

/// The name of an action without its namespace, which old .NET clients capitalise.
fn unqualified(name: &str) -> &str {
    const NAMESPACE: &str = "microsoft.graph.";
    match name.split_at_checked(NAMESPACE.len()) {
        Some((prefix, action))
            if prefix.eq_ignore_ascii_case(NAMESPACE) && !NAVIGATION.contains(&action) =>
        {
            action
        }
        _ => name,
    }
}

/// Splits `calls('id')` into `calls` and `id`; leaves other segments unchanged.
fn unfolded(segment: &str) -> impl Iterator<Item = &str> {
    let keyed = segment.strip_suffix("')").and_then(|segment| segment.split_once("('"));
    let (name, key) = keyed.map_or((segment, None), |(name, key)| (name, Some(key)));
    std::iter::once(name).chain(key)
}

/// Decodes a segment. One that is not UTF-8 afterwards stays as it is and matches nothing.
pub(super) fn percent_decoded(segment: &str) -> Cow<'_, str> {
    percent_decode_str(segment).decode_utf8().unwrap_or(Cow::Borrowed(segment))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CALL: &str = "2e1a0b00-2db4-4022-9570-243709c565ab";

    fn parse(path: &str) -> Result<(Version, String), NotGraph> {
        let target = path.parse().unwrap();
        GraphPath::parse(&target).map(|path| (path.version, path.target.to_string()))
    }

    #[test]
    fn every_form_of_a_path_is_brought_to_one() {
        use Version::{Beta, V1};
        let table = [
            ("/v1.0/communications/calls", V1, "/calls"),
            ("/v1.0/communications/calls/?$top=1", V1, "/calls?$top=1"),
            ("/communications/calls", V1, "/calls"),
            ("/beta/communications/calls", Beta, "/calls"),
            ("/beta/app/calls", Beta, "/calls"),
            ("/app/calls", V1, "/calls"),
            ("/v1.0/communications/calls('{c}')", V1, "/calls/{c}"),
            ("/v1.0/communications/calls(%27{c}%27)/", V1, "/calls/{c}"),
            ("/beta/app/calls('{c}')/record", Beta, "/calls/{c}/record"),
            ("/communications/calls/{c}/microsoft.graph.record", V1, "/calls/{c}/record"),
            ("/communications/calls/{c}/Microsoft.Graph.record", V1, "/calls/{c}/record"),
            (
                "/communications/calls/{c}/microsoft.graph.trace",
                V1,
                "/calls/{c}/microsoft.graph.trace",
            ),
            ("/communications/calls/microsoft.graph.{c}", V1, "/calls/microsoft.graph.{c}"),
            (
                "/communications/calls/{c}/participants/microsoft.graph.invite",
                V1,
                "/calls/{c}/participants/invite",
            ),
            (
                "/communications/calls/{c}/participants/microsoft.graph.{c}",
                V1,
                "/calls/{c}/participants/microsoft.graph.{c}",
            ),
            (
                "/communications/undeliveredNotifications/microsoft.graph.resend",
                V1,
                "/undeliveredNotifications/microsoft.graph.resend",
            ),
            ("/communications/calls/{c}/operations/%24count", V1, "/calls/{c}/operations/$count"),
            ("/communications/calls/a%2Fb%20c", V1, "/calls/a%2Fb%20c"),
            ("/communications/calls/%FF", V1, "/calls/%25FF"),
            ("/communications", V1, ""),
        ];
        for (path, version, expected) in table {
            let expected = format!("/communications{}", expected.replace("{c}", CALL));
            assert_eq!(parse(&path.replace("{c}", CALL)), Ok((version, expected)), "{path}");
        }
    }

    #[test]
    fn a_path_outside_the_api_names_its_segment() {
        let segment = |name: &str| NotGraph::Segment(name.to_owned());
        let elsewhere = |name: &str| NotGraph::Elsewhere(name.to_owned());
        let table = [
            ("/", elsewhere("")),
            ("/favicon.ico", elsewhere("favicon.ico")),
            ("/v2.0/communications/calls", elsewhere("v2.0")),
            ("/v1.0/app/calls", segment("app")),
            ("/app/presences", segment("presences")),
            ("/app", segment("app")),
            ("/v1.0/users", segment("users")),
        ];
        for (path, expected) in table {
            assert_eq!(parse(path), Err(expected), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_the_parser_panic(path in "/[/%'()a-fcls0-9.]{0,60}", free: String) {
            let free = format!("/v1.0/communications/calls/{free}");
            for path in [path.parse::<PathAndQuery>(), free.parse()] {
                let _ = path.map(|path| GraphPath::parse(&path));
            }
        }
    }
}
