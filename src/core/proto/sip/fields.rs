//! Header fields in their order.

use std::{borrow::Cow, fmt};

use super::uri::is_token;

/// Header fields in their order, each value free of line ends.
///
/// All are stored as rsip's `Other`, because its typed headers change the spelling of names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields(rsip::Headers);

impl Fields {
    /// Appends a header field. A field with a name that is no token is left out; line ends in the
    /// value become blanks.
    pub fn push(&mut self, name: &str, value: &str) {
        if is_token(name) {
            self.0.push(rsip::Header::Other(name.to_owned(), one_line(value).into_owned()));
        }
    }

    /// The first value under this name, in any case.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values under this name, in any case.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.iter()
            .filter(move |(candidate, _)| candidate.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|header| match header {
            rsip::Header::Other(name, value) => Some((name.as_str(), value.as_str())),
            _ => None,
        })
    }

    /// Whether there is a header field of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.first(name).is_some()
    }
}

/// Prints each header field as a line, with its line end.
impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Replaces line ends by blanks, so that no value can begin a line of its own.
pub(super) fn one_line(text: &str) -> Cow<'_, str> {
    if text.contains(['\r', '\n']) {
        Cow::Owned(text.replace(['\r', '\n'], " "))
    } else {
        Cow::Borrowed(text)
    }
}
