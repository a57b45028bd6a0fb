//! The sixteen DTMF keys, with conversions between all their spellings.

use serde::{Deserialize, Serialize};

/// One DTMF key. RFC 4733 section 3.2, table 3 gives the event codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "char", into = "char")]
pub struct Tone(u8);

const KEYPAD: [char; 16] =
    ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D'];

/// The names of Graph's `tone` enum, by event code.
const GRAPH_NAMES: [&str; 16] = [
    "tone0", "tone1", "tone2", "tone3", "tone4", "tone5", "tone6", "tone7", "tone8", "tone9",
    "star", "pound", "a", "b", "c", "d",
];

impl Tone {
    /// The `#` key.
    pub const POUND: Self = Self(11);

    /// The key of an RFC 4733 event code 0 to 15; others are not DTMF.
    pub fn from_event_code(code: u8) -> Option<Self> {
        (code < 16).then_some(Self(code))
    }

    /// The RFC 4733 event code, 0 to 15.
    pub fn event_code(self) -> u8 {
        self.0
    }

    /// The key as printed on a keypad: `0`-`9`, `*`, `#`, `A`-`D`.
    pub fn as_char(self) -> char {
        KEYPAD[usize::from(self.0)]
    }

    /// The key's name in Graph's `tone` enum: `tone0` to `tone9`, `star`, `pound`, `a` to `d`.
    pub fn graph_name(self) -> &'static str {
        GRAPH_NAMES[usize::from(self.0)]
    }

    /// Reads a keypad character or a name of Graph's `tone` enum, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        let mut chars = text.chars();
        if let (Some(only), None) = (chars.next(), chars.next()) {
            return Self::try_from(only).ok();
        }
        let code = GRAPH_NAMES.iter().position(|name| name.eq_ignore_ascii_case(text))?;
        Some(Self(code as u8))
    }
}

impl TryFrom<char> for Tone {
    type Error = NotATone;

    fn try_from(key: char) -> Result<Self, NotATone> {
        let key = key.to_ascii_uppercase();
        KEYPAD.iter().position(|known| *known == key).map(|code| Self(code as u8)).ok_or(NotATone)
    }
}

impl From<Tone> for char {
    fn from(tone: Tone) -> Self {
        tone.as_char()
    }
}

/// The character is not on a keypad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not one of 0-9 * # A-D")]
pub struct NotATone;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_key_is_the_same_key() {
        for code in 0..16 {
            let tone = Tone::from_event_code(code).unwrap();
            assert_eq!(Tone::parse(&tone.as_char().to_string()), Some(tone));
            assert_eq!(Tone::parse(tone.graph_name()), Some(tone));
            assert_eq!(Tone::parse(&tone.graph_name().to_uppercase()), Some(tone));
            assert_eq!(tone.event_code(), code);
        }
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        for text in ["", "11", "x", "flash", "tone10"] {
            assert_eq!(Tone::parse(text), None, "{text:?}");
        }
        assert_eq!(Tone::from_event_code(16), None);
    }
}
