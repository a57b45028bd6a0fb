//! Log lines: their format and their level, which can change while the process runs.

mod escape;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, IsTerminal},
    panic,
};

use tracing::error;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::LevelFilter,
    fmt::{self, MakeWriter},
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use self::escape::{EscapedFields, EscapedJson};
pub use self::escape::{escaped, escaped_lines};
use crate::service::config::{LogFormat, TelemetryConfig};

/// Handle to change the log level.
#[derive(Clone)]
pub struct LogLevel {
    handle: reload::Handle<EnvFilter, Registry>,
}

/// The log filter is invalid.
#[derive(Debug, thiserror::Error)]
pub enum BadFilter {
    /// A word of the filter is neither a known level nor a directive.
    #[error(
        "telemetry.log: {word:?} is none of off, error, warn, info, debug, trace, and no \
         TARGET=LEVEL such as sqlx=warn"
    )]
    NoLevel {
        /// The word.
        word: String,
    },
    /// Any other error in the filter.
    #[error("telemetry.log: {filter:?} is not a log filter: {source}")]
    Unreadable {
        /// The filter as configured.
        filter: String,
        /// The library's error.
        source: tracing_subscriber::filter::ParseError,
    },
}

/// Starts logging to standard error. A subscriber that is already installed stays.
///
/// # Errors
/// The filter is invalid.
pub fn start(config: &TelemetryConfig) -> Result<LogLevel, BadFilter> {
    let (filter, handle) = reload::Layer::new(filter(&config.log)?);
    let registry = tracing_subscriber::registry().with(filter);
    let colours = io::stderr().is_terminal();
    // An error means that there is a subscriber already, as in a test with several nodes.
    if registry.with(lines(config.format, colours, io::stderr)).try_init().is_ok() {
        panic::set_hook(Box::new(log_panic));
    }
    Ok(LogLevel { handle })
}

/// The layer that formats events. Each event becomes one line, whatever its fields contain.
fn lines<S, W>(
    format: LogFormat,
    colours: bool,
    writer: W,
) -> Box<dyn Layer<S> + Send + Sync + 'static>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    match format {
        LogFormat::Text => {
            let layer = fmt::layer().fmt_fields(EscapedFields).with_ansi(colours);
            layer.with_writer(writer).boxed()
        }
        LogFormat::Json => fmt::layer().json().map_writer(|_| JsonLines(writer)).boxed(),
    }
}

/// Makes writers that escape the characters that JSON leaves unescaped.
struct JsonLines<W>(W);

impl<'writer, W: MakeWriter<'writer>> MakeWriter<'writer> for JsonLines<W> {
    type Writer = EscapedJson<W::Writer>;

    fn make_writer(&'writer self) -> Self::Writer {
        EscapedJson(self.0.make_writer())
    }
}

/// Logs a panic like other events, because its message may quote text from the network.
fn log_panic(panic: &panic::PanicHookInfo<'_>) {
    let payload = panic.payload_as_str().unwrap_or("no message");
    let place = panic.location().map(tracing::field::display);
    error!(panic.location = place, "A thread has panicked: {payload}");
    // Only with RUST_BACKTRACE: our own names and source locations, in many lines.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        eprintln!("{backtrace}");
    }
}

impl LogLevel {
    /// Parses a log filter.
    ///
    /// # Errors
    /// The filter is invalid.
    pub fn read(text: &str) -> Result<EnvFilter, BadFilter> {
        filter(text)
    }

    /// Replaces the log filter.
    pub fn set(&self, filter: EnvFilter) {
        // An error means that the subscriber is gone, so there is no log.
        let _ = self.handle.reload(filter);
    }
}

/// Parses a log filter. Refuses two mistakes that the library takes for the name of a target, after
/// which it logs nothing else: a word that is not a level, and a space before a level.
fn filter(text: &str) -> Result<EnvFilter, BadFilter> {
    let directives: Vec<&str> = text.split(',').map(str::trim).collect();
    let is_said = |word: &&str| word.contains('=') || word.parse::<LevelFilter>().is_ok();
    if let Some(word) = directives.iter().find(|word| !is_said(word)) {
        return Err(BadFilter::NoLevel { word: (*word).to_owned() });
    }
    EnvFilter::builder()
        .parse(directives.join(","))
        .map_err(|source| BadFilter::Unreadable { filter: text.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{info, info_span};

    use super::*;

    /// All kinds of text that must not reach a log: line ends, terminal controls, bidirectional
    /// controls, invisible characters.
    const HOSTILE: &str = "a\n2026-01-01T00:00:00Z  INFO forged\r\t\0\x07\x08\x1b[31m\x7f\u{85}\u{9b}31m\
        \u{ad}\u{61c}\u{200b}\u{200d}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2060}\
        \u{2066}\u{2069}\u{feff}\u{fffb}\u{e0041}z";

    /// Collects the log lines.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[derive(Debug)]
    struct Raw(&'static str);

    impl std::fmt::Display for Raw {
        fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str(self.0)
        }
    }

    impl std::error::Error for Raw {}

    /// A type with a `Debug` that does not escape, like that of many libraries.
    struct Undisguised(&'static str);

    impl std::fmt::Debug for Undisguised {
        fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str(self.0)
        }
    }

    /// The log lines when the hostile text arrives in every possible way, and the number of these
    /// events. In the last event the text is in the fields of its span.
    fn logged(format: LogFormat, colours: bool) -> (String, usize) {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = lines(format, colours, move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            info!(field = HOSTILE, "a string");
            info!(field = %Raw(HOSTILE), "by Display");
            info!(field = ?Raw(HOSTILE), "by Debug");
            info!(field = ?Undisguised(HOSTILE), "by a Debug that does not escape");
            info!(error = &Raw(HOSTILE) as &dyn std::error::Error, "an error");
            info!("the message: {HOSTILE}");
            info!(message = ?Undisguised(HOSTILE));
            let span = info_span!("call", id = %Raw(HOSTILE), later = tracing::field::Empty);
            span.record("later", tracing::field::debug(Undisguised(HOSTILE)));
            span.in_scope(|| info!("within a span"));
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        (text, 8)
    }

    #[test]
    fn no_value_begins_a_line_or_controls_the_terminal() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let (text, events) = logged(format, false);
            assert_eq!(text.matches('\n').count(), events, "{text}");
            let harmful = text.chars().find(|c| *c != '\n' && (c.is_control() || !c.is_ascii()));
            assert_eq!(harmful, None, "{text}");
            // The text itself is complete, so it can be found in the log.
            assert!(text.matches("INFO forged").count() >= events, "{text}");
        }
    }

    #[test]
    fn escapes_of_json_read_as_what_came() {
        let (text, events) = logged(LogFormat::Json, false);
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), events);
        assert_eq!(lines[0]["fields"]["field"], HOSTILE);
    }

    #[test]
    fn colours_are_ours_alone() {
        let (text, events) = logged(LogFormat::Text, true);
        assert_eq!(text.lines().count(), events);
        assert!(text.contains("\x1b["), "levels have colours");
        assert!(!text.contains("\x1b[31m"), "{text:?}");
    }

    #[test]
    fn letters_of_all_languages_are_left_as_they_are() {
        let text = "Zoë Müller, 山田, Ольга, اسم, नमस्ते \\ \"quoted\"";
        assert!(matches!(escaped(text), std::borrow::Cow::Borrowed(same) if same == text));
        assert_eq!(escaped("a\u{202e}b\n"), "a\\u{202e}b\\n");
        assert_eq!(escaped_lines("a\x1b\nb"), "a\\u{1b}\nb");
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_with_those_that_are() {
        for text in ["warning", "loud", "aftertone", "info,verbose", "info, verbos"] {
            let error = filter(text).unwrap_err().to_string();
            let word = text.rsplit([',', ' ']).next().unwrap();
            assert!(error.contains(&format!("{word:?}")), "{error}");
            assert!(error.contains("off, error, warn, info, debug, trace"), "{error}");
        }
        assert!(matches!(filter("a=b=c"), Err(BadFilter::Unreadable { .. })));
    }

    #[test]
    fn levels_and_targets_are_taken_blanks_or_not() {
        for (text, read) in [
            ("warn", "warn"),
            ("INFO", "info"),
            (
                "info, aftertone::drivers::signalling=trace",
                "aftertone::drivers::signalling=trace,info",
            ),
            ("aftertone=debug", "aftertone=debug"),
        ] {
            assert_eq!(filter(text).unwrap().to_string(), read);
        }
    }
}
