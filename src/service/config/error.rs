//! Why a configuration cannot be used.

use std::path::PathBuf;

/// Why the configuration cannot be used. Each message names the place of the error and the
/// correction.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file does not exist or is not readable.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is not TOML, or a value is of the wrong kind or out of range.
    #[error("{origin}: {message}")]
    Invalid {
        /// The file or the environment.
        origin: String,
        /// The library's error message, with the line if it gives one.
        message: String,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown key `{key}`{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey {
        /// The file with the line, or the variable.
        origin: String,
        /// The key, with dots.
        key: String,
        /// The most similar known key.
        nearest: Option<String>,
    },
    /// A planned key that this version does not support yet.
    #[error("{origin}: `{key}` is not supported by this version of aftertone; remove it")]
    NotYet {
        /// The file with the line, or the variable.
        origin: String,
        /// The key, with dots.
        key: String,
    },
    /// Two values contradict each other, or a value is invalid in the context of the whole.
    #[error("{key}: {message}")]
    Contradiction {
        /// The key, with dots.
        key: String,
        /// The error and the correction.
        message: String,
    },
}

/// Refuses the value of a key.
pub(super) fn contradiction<T>(key: &str, message: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Contradiction { key: key.to_owned(), message: message.into() })
}
