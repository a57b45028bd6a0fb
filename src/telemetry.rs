//! Log lines: how they look, and how much is said; the level can change while the process runs.

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter, Registry, filter::LevelFilter, fmt, layer::SubscriberExt, reload,
    util::SubscriberInitExt,
};

use crate::config::{LogFormat, TelemetryConfig};

/// Changes how much is said.
#[derive(Clone)]
pub struct LogLevel {
    handle: reload::Handle<EnvFilter, Registry>,
}

/// The log filter cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadFilter {
    /// One word of it says how much, and says it in a word that nobody knows.
    #[error(
        "telemetry.log: {word:?} is none of off, error, warn, info, debug, trace, and no \
         TARGET=LEVEL such as sqlx=warn"
    )]
    NoLevel {
        /// The word.
        word: String,
    },
    /// The rest of what may be wrong.
    #[error("telemetry.log: {filter:?} is not a log filter: {source}")]
    Unreadable {
        /// As it was given.
        filter: String,
        /// The library's sentence.
        source: tracing_subscriber::filter::ParseError,
    },
}

/// Begins logging to standard error. Where somebody has begun before, theirs stays.
///
/// # Errors
/// The filter cannot be read.
pub fn start(config: &TelemetryConfig) -> Result<LogLevel, BadFilter> {
    let (filter, handle) = reload::Layer::new(filter(&config.log)?);
    let registry = tracing_subscriber::registry().with(filter);
    let writer = std::io::stderr;
    let colours = writer().is_terminal();
    // An error says that there is a subscriber already, as in a test with several nodes.
    let _ = match config.format {
        LogFormat::Text => {
            registry.with(fmt::layer().with_ansi(colours).with_writer(writer)).try_init()
        }
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(writer)).try_init(),
    };
    Ok(LogLevel { handle })
}

impl LogLevel {
    /// Reads how much is to be said.
    ///
    /// # Errors
    /// The filter cannot be read.
    pub fn read(text: &str) -> Result<EnvFilter, BadFilter> {
        filter(text)
    }

    /// Says more or less from now on.
    pub fn set(&self, filter: EnvFilter) {
        // An error says that the subscriber is gone: nobody listens.
        let _ = self.handle.reload(filter);
    }
}

/// Without the mistakes that the library takes for the name of a target, after which nothing else is
/// logged: a word that is no level, and a blank before one.
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
    use super::*;

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
            ("info, aftertone::signalling=trace", "aftertone::signalling=trace,info"),
            ("aftertone=debug", "aftertone=debug"),
        ] {
            assert_eq!(filter(text).unwrap().to_string(), read);
        }
    }
}
