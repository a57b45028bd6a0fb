//! Why a configuration cannot be used.

use std::path::PathBuf;

/// Why the configuration cannot be used. Each message names where to mend what.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or not readable.
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
        /// The library's sentence, with the line where it gives one.
        message: String,
    },
    /// A key that nobody knows.
    #[error("{origin}: unknown key `{key}`{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey {
        /// The file with the line, or the variable.
        origin: String,
        /// The key, with dots.
        key: String,
        /// The most similar known key.
        nearest: Option<String>,
    },
    /// A key of the product that this version does not act on yet.
    #[error("{origin}: `{key}` is not supported by this version of aftertone; remove it")]
    NotYet {
        /// The file with the line, or the variable.
        origin: String,
        /// The key, with dots.
        key: String,
    },
    /// Two values that do not go together, or a value that only the whole shows to be wrong.
    #[error("{key}: {message}")]
    Contradiction {
        /// The key, with dots.
        key: String,
        /// What is wrong and what would be right.
        message: String,
    },
}
