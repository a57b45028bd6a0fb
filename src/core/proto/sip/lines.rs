//! Lines of a message, and header fields in them.

use super::uri::is_token;

/// Header fields that are lists. Their elements are kept one by one.
pub(super) const LISTS: [&str; 12] = [
    "Accept",
    "Allow",
    "Contact",
    "Diversion",
    "History-Info",
    "Proxy-Require",
    "Record-Route",
    "Require",
    "Route",
    "Supported",
    "Unsupported",
    "Via",
];

/// Compact names: RFC 3261 §7.3.3 and the registry of header fields.
const COMPACT_NAMES: [(&str, &str); 18] = [
    ("a", "Accept-Contact"),
    ("b", "Referred-By"),
    ("c", "Content-Type"),
    ("d", "Request-Disposition"),
    ("e", "Content-Encoding"),
    ("f", "From"),
    ("i", "Call-ID"),
    ("j", "Reject-Contact"),
    ("k", "Supported"),
    ("l", "Content-Length"),
    ("m", "Contact"),
    ("o", "Event"),
    ("r", "Refer-To"),
    ("s", "Subject"),
    ("t", "To"),
    ("u", "Allow-Events"),
    ("v", "Via"),
    ("x", "Session-Expires"),
];

/// The long name and the value of a header field.
pub(super) fn parse_header_line(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let name = name.trim_end();
    if !is_token(name) {
        return None;
    }
    let long = COMPACT_NAMES.iter().find(|(compact, _)| name.eq_ignore_ascii_case(compact));
    let name = long.map_or(name, |(_, long)| long);
    // Lists get their usual spelling, so that they are found whatever the case.
    let name = LISTS.into_iter().find(|list| name.eq_ignore_ascii_case(list)).unwrap_or(name);
    Some((name, value.trim()))
}

/// Reads the lines of a message. A line ends with CRLF; a lone LF is accepted too.
pub(super) struct Lines<'a> {
    /// The bytes after the last line that was read; `None` after the end.
    pub rest: Option<&'a [u8]>,
}

impl Lines<'_> {
    /// The next line, as text: invalid UTF-8 is replaced.
    pub(super) fn next_line(&mut self) -> Option<String> {
        let rest = self.rest?;
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
            self.rest = None;
            return (!rest.is_empty()).then(|| String::from_utf8_lossy(rest).into_owned());
        };
        let line = rest.get(..end).unwrap_or_default();
        self.rest = rest.get(end + 1..);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Some(String::from_utf8_lossy(line).into_owned())
    }

    /// The next line with its continuations, each joined by one blank (§7.3.1).
    pub(super) fn next_unfolded(&mut self) -> Option<String> {
        let mut line = self.next_line()?;
        while !line.is_empty()
            && self.rest.is_some_and(|rest| matches!(rest.first(), Some(b' ' | b'\t')))
        {
            let Some(more) = self.next_line() else { break };
            line.truncate(line.trim_end().len());
            line.push(' ');
            line.push_str(more.trim_start());
        }
        Some(line)
    }
}
