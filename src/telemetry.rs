//! Log lines: how they look, and how much is said; the level can change while the process runs.

use std::io::IsTerminal;

use tracing_subscriber::{
    EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::config::{LogFormat, TelemetryConfig};

/// Changes how much is said.
#[derive(Clone)]
pub struct LogLevel {
    handle: reload::Handle<EnvFilter, Registry>,
}

/// The log filter cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("telemetry.log: {filter:?} is not a log filter: {source}")]
pub struct BadFilter {
    filter: String,
    source: tracing_subscriber::filter::ParseError,
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

fn filter(text: &str) -> Result<EnvFilter, BadFilter> {
    EnvFilter::builder().parse(text).map_err(|source| BadFilter { filter: text.to_owned(), source })
}
