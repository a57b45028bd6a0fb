//! Makes text from the network safe for terminals, files and readers of the log.
//!
//! Input: the fields and messages of `tracing`, panics, and printed lines. Output: the same text,
//! with an escape for every character that is invisible or changes the display of its surroundings.
//! Escaping happens only here: the text format escapes each field, and the JSON format its whole
//! line, so callers of `info!` need not escape anything.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    io::{self, Write},
};

use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FormatFields,
        format::{DefaultFields, Writer},
    },
};

/// Escapes characters that end the line, control the terminal, are invisible, or change the
/// direction of the text. `\n`, `\r` and `\t` keep these names; all others become like `\u{202e}`.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_harmful(character) {
            safe.extend(character.escape_default())
        } else {
            safe.push(character)
        }
    }
    Cow::Owned(safe)
}

/// Like [`escaped`], but keeps the line ends of our own multi-line text.
pub fn escaped_lines(text: &str) -> String {
    text.split('\n').map(escaped).collect::<Vec<_>>().join("\n")
}

/// Control characters, the two separators that some readers treat as line ends, and Unicode format
/// characters: bidirectional controls, zero-width characters, tags.
fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'..='\u{891}'
                | '\u{8e2}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{110bd}'
                | '\u{110cd}'
                | '\u{13430}'..='\u{1343f}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Formats the fields of an event or a span like the text format, but escaped and without colours.
/// So an escape sequence in a field is never sent to the terminal.
#[derive(Debug, Default)]
pub(super) struct EscapedFields;

impl<'writer> FormatFields<'writer> for EscapedFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut text = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut text), fields)?;
        writer.write_str(&escaped(&text))
    }
}

/// Passes on lines of JSON, and escapes characters that JSON leaves unescaped. Each write is one
/// whole line, as `tracing_subscriber` makes them.
#[derive(Debug)]
pub(super) struct EscapedJson<W>(pub W);

impl<W: Write> Write for EscapedJson<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        // Outside strings JSON is ASCII; inside strings JSON itself escapes control characters.
        let is_left = |character| !matches!(character, '\n') && is_harmful(character);
        if !text.chars().any(is_left) {
            self.0.write_all(line)?;
            return Ok(line.len());
        }
        let mut safe = String::with_capacity(text.len() + 16);
        for character in text.chars() {
            if is_left(character) {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a string cannot fail.
                    let _ = write!(safe, "\\u{unit:04x}");
                }
            } else {
                safe.push(character);
            }
        }
        self.0.write_all(safe.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
