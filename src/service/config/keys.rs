//! The known keys, and the errors for others.

use super::ConfigError;

/// Every key, with dots. A key in a list of tables occurs once.
const KNOWN: &[&str] = &[
    "sip.listen",
    "sip.advertised_address",
    "sip.domain",
    "sip.digest",
    "sip.tls_certificate",
    "sip.tls_key",
    "sip.tls_client_ca",
    "sip.tls_server_ca",
    "sip.trusted_peers",
    "sip.web_origins",
    "sip.anonymous_calls",
    "media.ports",
    "media.shards",
    "media.codecs",
    "media.max_calls",
    "media.rtp_timeout",
    "media.hold_timeout",
    "media.unverified",
    "media.any_host",
    "api.listen",
    "api.public_url",
    "api.tenant",
    "api.notification_issuer",
    "api.identity_type",
    "api.tls_certificate",
    "api.tls_key",
    "storage.database",
    "storage.recordings",
    "storage.retention",
    "storage.low_water",
    "fetch.allow_networks",
    "fetch.connect_timeout",
    "fetch.total_timeout",
    "fetch.max_bytes",
    "fetch.max_duration",
    "fetch.prompt_folder",
    "calls.answer_timeout",
    "calls.keep_alive",
    "calls.line_limit",
    "calls.notification_retry_for",
    "calls.drain_timeout",
    "telemetry.log",
    "telemetry.format",
    "applications.name",
    "applications.id",
    "applications.tokens",
    "applications.tokens_file",
    "applications.secrets",
    "applications.secret_file",
    "applications.roles",
    "applications.issuer",
    "applications.callback_uri",
    "issuers.metadata",
    "issuers.audience",
    "issuers.tenant",
    "routes.to",
    "routes.application",
    "routes.line",
    "routes.public",
    "users.name",
    "users.password",
    "users.password_file",
    "trunks.name",
    "trunks.host",
    "trunks.transport",
    "trunks.outbound_proxy",
    "trunks.username",
    "trunks.password",
    "trunks.password_file",
    "trunks.realm",
    "trunks.register",
    "trunks.caller",
    "trunks.asserted_identity",
    "trunks.allow",
    "trunks.follow_redirects",
    "trunks.max_calls",
];

/// Planned keys that this version does not support. Ignoring them would suggest that they work.
const LATER: &[&str] = &["storage.encrypt", "telemetry.metrics", "telemetry.otlp_endpoint"];

const LISTS: &[&str] = &[
    "sip.listen",
    "sip.digest",
    "sip.trusted_peers",
    "sip.web_origins",
    "media.codecs",
    "fetch.allow_networks",
];

/// Why a key is refused.
pub(super) enum Wrong {
    Unknown { nearest: Option<String> },
    NotYet,
}

impl Wrong {
    /// The error for `key` given at `origin`.
    pub(super) fn at(self, origin: String, key: &str) -> ConfigError {
        let key = key.to_owned();
        match self {
            Self::Unknown { nearest } => ConfigError::UnknownKey { origin, key, nearest },
            Self::NotYet => ConfigError::NotYet { origin, key },
        }
    }
}

/// Checks whether a key is known.
pub(super) fn check(key: &str) -> Result<(), Wrong> {
    let section = key.split('.').next().unwrap_or(key);
    if KNOWN.contains(&key) {
        return Ok(());
    }
    // An empty section or list sets nothing.
    if key == section && KNOWN.iter().any(|known| known.starts_with(&format!("{key}."))) {
        return Ok(());
    }
    if LATER.contains(&key) || LATER.contains(&section) {
        return Err(Wrong::NotYet);
    }
    let nearest = nearest(KNOWN, key).map(str::to_owned);
    Err(Wrong::Unknown { nearest })
}

/// The known word that is most similar to the given one, if it is similar enough.
pub(super) fn nearest<'a>(known: &[&'a str], given: &str) -> Option<&'a str> {
    known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, given), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3)
        .map(|(_, known)| known)
}

/// Whether the key's value is a list, which an environment variable separates by commas.
pub(super) fn is_list(key: &str) -> bool {
    LISTS.contains(&key)
}
