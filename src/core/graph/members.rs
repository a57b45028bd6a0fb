//! Reads the members of a JSON object, and reports exactly which one is wrong, and why.
//!
//! Absent and null are the same (contract section 8). Wrong types are refused, never converted:
//! `"5"` is not 5. Unknown members are ignored.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// What is wrong with a request body. The text begins with the member's path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBody {
    /// The JSON type is wrong.
    #[error("{path} must be {expected}, but is {found}")]
    WrongType {
        /// Path of the member, such as `prompts[0].mediaInfo.uri`.
        path: String,
        /// What is allowed there.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The type is right, the value is not allowed.
    #[error("{path} must be {expected}, but is {found}")]
    NotAllowed {
        /// Path of the member.
        path: String,
        /// What is allowed there.
        expected: String,
        /// What was found.
        found: String,
    },
    /// A required member is absent.
    #[error("{path} is required: it must be {expected}")]
    Missing {
        /// Path of the member.
        path: String,
        /// What is required there.
        expected: String,
    },
    /// A collection or a text is too long.
    #[error("{path} may hold at most {limit} {unit}, but holds {count}")]
    TooLong {
        /// Path of the member.
        path: String,
        /// The largest number that is allowed.
        limit: usize,
        /// What is counted.
        unit: &'static str,
        /// The number that was found.
        count: usize,
    },
    /// The application wants to host the media itself.
    #[error("{path} must be #microsoft.graph.serviceHostedMediaConfig, but is {found}")]
    MediaMode {
        /// Path of the member.
        path: String,
        /// The type that was given.
        found: String,
    },
}

impl InvalidBody {
    /// Graph's error code for it (contract section 7).
    pub fn code(&self) -> &'static str {
        match self {
            Self::WrongType { .. } => "BadRequest",
            Self::NotAllowed { .. } | Self::Missing { .. } | Self::TooLong { .. } => "8523",
            Self::MediaMode { .. } => "8500",
        }
    }
}

/// One JSON object, and its path in the body.
#[derive(Debug)]
pub(super) struct Object<'a> {
    path: String,
    members: Option<&'a Map<String, Value>>,
}

impl<'a> Object<'a> {
    /// The body itself; null is an object without members.
    pub(super) fn body(value: &'a Value) -> Result<Self, InvalidBody> {
        match value {
            Value::Null => Ok(Self { path: String::new(), members: None }),
            Value::Object(members) => Ok(Self { path: String::new(), members: Some(members) }),
            other => Err(wrong_type("The body".to_owned(), "an object", other)),
        }
    }

    /// The object at `path`.
    pub(super) fn at(path: String, value: &'a Value) -> Result<Self, InvalidBody> {
        match value {
            Value::Object(members) => Ok(Self { path, members: Some(members) }),
            other => Err(wrong_type(path, "an object", other)),
        }
    }

    /// The object's own path.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The path of a member.
    pub(super) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A member unchanged, unless it is absent or null.
    pub(super) fn member(&self, name: &str) -> Option<&'a Value> {
        self.members?.get(name).filter(|value| !value.is_null())
    }

    /// A text of at most `limit` characters.
    pub(super) fn text(&self, name: &str, limit: usize) -> Result<Option<&'a str>, InvalidBody> {
        let Some(value) = self.member(name) else { return Ok(None) };
        let path = self.path_of(name);
        let text = text_at(&path, value, "a string")?;
        // NUL is refused: PostgreSQL cannot store it in a text, and no telephone or SIP peer
        // displays it.
        if text.contains('\0') {
            let (expected, found) = ("a text without NUL", "one with it");
            return Err(InvalidBody::NotAllowed {
                path,
                expected: expected.to_owned(),
                found: found.to_owned(),
            });
        }
        let count = text.chars().count();
        if count > limit {
            return Err(InvalidBody::TooLong { path, limit, unit: "characters", count });
        }
        Ok(Some(text))
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, InvalidBody> {
        match self.member(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(wrong_type(self.path_of(name), "true or false", other)),
        }
    }

    /// A whole number in `range`.
    pub(super) fn whole_number(
        &self,
        name: &str,
        range: RangeInclusive<u32>,
    ) -> Result<Option<u32>, InvalidBody> {
        let Some(value) = self.member(name) else { return Ok(None) };
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let Value::Number(number) = value else {
            return Err(wrong_type(self.path_of(name), &expected, value));
        };
        let in_range = number.as_u64().and_then(|number| u32::try_from(number).ok());
        match in_range.filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(InvalidBody::NotAllowed {
                path: self.path_of(name),
                expected,
                found: number.to_string(),
            }),
        }
    }

    /// An array of at most `limit` elements, each with its path.
    pub(super) fn list(
        &self,
        name: &str,
        limit: usize,
    ) -> Result<Option<Vec<(String, &'a Value)>>, InvalidBody> {
        let Some(value) = self.member(name) else { return Ok(None) };
        let path = self.path_of(name);
        let Value::Array(elements) = value else {
            return Err(wrong_type(path, "an array", value));
        };
        let count = elements.len();
        if count > limit {
            let unit = if limit == 1 { "element" } else { "elements" };
            return Err(InvalidBody::TooLong { path, limit, unit, count });
        }
        let with_paths = elements.iter().enumerate().map(|(i, e)| (format!("{path}[{i}]"), e));
        Ok(Some(with_paths.collect()))
    }

    /// An object.
    pub(super) fn object(&self, name: &str) -> Result<Option<Object<'a>>, InvalidBody> {
        self.member(name).map(|value| Object::at(self.path_of(name), value)).transpose()
    }

    /// `@odata.type` without `#` and `microsoft.graph.`, which clients write in several ways.
    pub(super) fn odata_type(&self) -> Result<Option<&'a str>, InvalidBody> {
        const NAMESPACE: &str = "microsoft.graph.";
        let Some(name) = self.text("@odata.type", 256)? else { return Ok(None) };
        let name = name.strip_prefix('#').unwrap_or(name);
        let local = match name.get(..NAMESPACE.len()) {
            Some(prefix) if prefix.eq_ignore_ascii_case(NAMESPACE) => &name[NAMESPACE.len()..],
            _ => name,
        };
        Ok(Some(local))
    }
}

/// The text at `path`; `expected` is for the error.
pub(super) fn text_at<'a>(
    path: &str,
    value: &'a Value,
    expected: &str,
) -> Result<&'a str, InvalidBody> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong_type(path.to_owned(), expected, other)),
    }
}

/// A text that the client sent, in quotes and short enough for a sentence.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

fn wrong_type(path: String, expected: &str, value: &Value) -> InvalidBody {
    let found = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("the string {}", quoted(text)),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    InvalidBody::WrongType { path, expected: expected.to_owned(), found }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wrong_number_is_named_with_its_range() {
        let body = json!({"a": {"n": 301, "s": "5", "f": 5.5, "m": -1}});
        let a = Object::body(&body).unwrap().object("a").unwrap().unwrap();
        let told = |name| a.whole_number(name, 1..=300).unwrap_err().to_string();
        assert_eq!(told("n"), "a.n must be a whole number from 1 to 300, but is 301");
        assert_eq!(told("s"), "a.s must be a whole number from 1 to 300, but is the string \"5\"");
        assert_eq!(told("f"), "a.f must be a whole number from 1 to 300, but is 5.5");
        assert_eq!(told("m"), "a.m must be a whole number from 1 to 300, but is -1");
    }

    #[test]
    fn a_text_with_a_nul_is_refused_by_its_name() {
        let body = json!({"subject": "a\u{0}b"});
        let error = Object::body(&body).unwrap().text("subject", 256).unwrap_err();
        assert_eq!(error.code(), "8523");
        assert_eq!(error.to_string(), "subject must be a text without NUL, but is one with it");
    }

    #[test]
    fn null_and_absent_are_the_same() {
        let body = json!({"x": null});
        let body = Object::body(&body).unwrap();
        assert_eq!(body.flag("x"), Ok(None));
        assert_eq!(body.flag("y"), Ok(None));
        assert_eq!(Object::body(&Value::Null).unwrap().text("x", 1), Ok(None));
    }

    #[test]
    fn a_long_text_of_the_client_is_cut_at_a_character() {
        assert_eq!(quoted("\u{e9}\"").as_str(), "\"é\\\"\"");
        assert_eq!(quoted(&"\u{e9}".repeat(50)), format!("\"{}\"...", "\u{e9}".repeat(40)));
    }

    #[test]
    fn the_type_is_read_in_every_spelling() {
        for name in [
            "#microsoft.graph.mediaPrompt",
            "microsoft.graph.mediaPrompt",
            "#Microsoft.Graph.mediaPrompt",
        ] {
            let body = json!({"@odata.type": name});
            assert_eq!(Object::body(&body).unwrap().odata_type(), Ok(Some("mediaPrompt")));
        }
    }
}
