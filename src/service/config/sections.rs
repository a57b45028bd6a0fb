//! The configuration as a whole, and its sections of plain values.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytesize::ByteSize;
use serde::Deserialize;

use super::{
    ConfigError,
    api::{ApiConfig, ApplicationConfig, IssuerConfig, RouteConfig},
    error::contradiction,
    sip::{SipConfig, TrunkConfig, UserConfig},
    values::{AllowedNetwork, LogFormat, PortRange, codecs, duration, path},
};
use aftertone_core::proto::sdp::{Codec, SrtpPolicy};

/// The whole configuration. Each module gets only its own section.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file that was read. It overrides the defaults, and the environment overrides it.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// `[sip]`
    pub sip: SipConfig,
    /// `[media]`
    pub media: MediaConfig,
    /// `[api]`
    pub api: ApiConfig,
    /// `[storage]`
    pub storage: StorageConfig,
    /// `[fetch]`
    pub fetch: FetchConfig,
    /// `[calls]`
    pub calls: CallsConfig,
    /// `[telemetry]`
    pub telemetry: TelemetryConfig,
    /// `[[applications]]`
    #[serde(default)]
    pub applications: Vec<ApplicationConfig>,
    /// `[[issuers]]`
    #[serde(default)]
    pub issuers: Vec<IssuerConfig>,
    /// `[[routes]]`
    #[serde(default)]
    pub routes: Vec<RouteConfig>,
    /// `[[users]]`
    #[serde(default)]
    pub users: Vec<UserConfig>,
    /// `[[trunks]]`
    #[serde(default)]
    pub trunks: Vec<TrunkConfig>,
}

/// RTP settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediaConfig {
    /// Ports for RTP and RTCP.
    pub ports: PortRange,
    /// Number of media threads; 0 = one per core.
    pub shards: usize,
    /// Codecs in order of preference.
    #[serde(deserialize_with = "codecs")]
    pub codecs: Vec<Codec>,
    /// Whether audio is encrypted, unless the user or trunk has a setting of its own.
    pub srtp: SrtpPolicy,
    /// Maximum number of simultaneous calls; 0 = as many as the ports and the limit of open files
    /// allow.
    pub max_calls: usize,
    /// How long a peer may send neither RTP nor RTCP.
    #[serde(deserialize_with = "duration")]
    pub rtp_timeout: Duration,
    /// The same limit for a call on hold, or with audio in one direction only.
    #[serde(deserialize_with = "duration")]
    pub hold_timeout: Duration,
    /// How long a call sends, in total, to addresses from which nothing has arrived.
    #[serde(deserialize_with = "duration")]
    pub unverified: Duration,
    /// Whether RTP may come from a host that neither SDP nor SIP has named.
    pub any_host: bool,
}

/// Database and clips.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StorageConfig {
    /// `sqlite:PATH` or `postgres://…`.
    pub database: String,
    /// Folder of the clips.
    pub recordings: PathBuf,
    /// How long a clip is kept after hang-up.
    #[serde(deserialize_with = "duration")]
    pub retention: Duration,
    /// Free disk space at `recordings` below which no recording begins; 0 = no limit.
    pub low_water: ByteSize,
}

/// Outgoing requests: prompts and notifications.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchConfig {
    /// Private networks that may be reached.
    pub allow_networks: Vec<AllowedNetwork>,
    /// Time limit for opening a connection.
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
    /// Time limit for a whole fetch, including redirects.
    #[serde(deserialize_with = "duration")]
    pub total_timeout: Duration,
    /// Maximum size of a file.
    pub max_bytes: ByteSize,
    /// Maximum duration of a prompt.
    #[serde(deserialize_with = "duration")]
    pub max_duration: Duration,
    /// Folder of `file:` URIs; without it, they are refused.
    #[serde(deserialize_with = "path")]
    pub prompt_folder: Option<PathBuf>,
}

/// Time limits of a call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallsConfig {
    /// How long the application may take to answer.
    #[serde(deserialize_with = "duration")]
    pub answer_timeout: Duration,
    /// Maximum time between two keepAlive requests.
    #[serde(deserialize_with = "duration")]
    pub keep_alive: Duration,
    /// Maximum duration of a call to a built-in line.
    #[serde(deserialize_with = "duration")]
    pub line_limit: Duration,
    /// How long a notification is retried.
    #[serde(deserialize_with = "duration")]
    pub notification_retry_for: Duration,
    /// How long current calls may continue after the first signal to stop.
    #[serde(deserialize_with = "duration")]
    pub drain_timeout: Duration,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// A level, or a filter in the syntax of `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// Format of log lines.
    pub format: LogFormat,
}

impl Config {
    /// Reads the files that `…_file` keys name.
    pub(super) fn read_secrets(&mut self) -> Result<(), ConfigError> {
        for application in &mut self.applications {
            let lists = [
                ("applications.tokens_file", &application.tokens_file, &mut application.tokens),
                ("applications.secret_file", &application.secret_file, &mut application.secrets),
            ];
            for (key, file, list) in lists {
                let Some(path) = file else { continue };
                let text = read_secret(key, path)?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                list.extend(lines.map(str::to_owned));
            }
        }
        let users = self
            .users
            .iter_mut()
            .map(|user| ("users.password_file", &user.password_file, &mut user.password));
        let trunks = self
            .trunks
            .iter_mut()
            .map(|trunk| ("trunks.password_file", &trunk.password_file, &mut trunk.password));
        for (key, file, password) in users.chain(trunks) {
            let Some(path) = file else { continue };
            let text = read_secret(key, path)?;
            *password = text.trim_end_matches(['\r', '\n']).to_owned();
        }
        Ok(())
    }

    /// Checks that involve more than one value.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        self.sip.check()?;
        if self.media.codecs.is_empty() {
            return contradiction("media.codecs", "at least one codec is needed");
        }
        self.api.check()?;
        for (index, application) in self.applications.iter().enumerate() {
            application.check(&self.applications[..index])?;
        }
        self.issuers.iter().try_for_each(IssuerConfig::check)?;
        for (index, user) in self.users.iter().enumerate() {
            user.check(&self.users[..index])?;
        }
        for (index, trunk) in self.trunks.iter().enumerate() {
            trunk.check(&self.trunks[..index])?;
        }
        self.routes.iter().try_for_each(|route| route.check(&self.applications))
    }

    /// The keys and sections that differ from those of the running daemon and that a reload does
    /// not change.
    pub fn needing_restart(&self, running: &Self) -> Vec<&'static str> {
        let Self { media, api, storage, fetch, calls, .. } = self;
        let mut changed = self.sip.needing_restart(&running.sip);
        let fixed = [
            ("media", *media == running.media),
            ("api", *api == running.api),
            ("storage", *storage == running.storage),
            ("fetch", *fetch == running.fetch),
            ("calls", *calls == running.calls),
            ("telemetry.format", self.telemetry.format == running.telemetry.format),
        ];
        changed.extend(fixed.into_iter().filter(|(_, is_same)| !is_same).map(|(key, _)| key));
        changed
    }
}

fn read_secret(key: &str, path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path)
        .or_else(|error| contradiction(key, format!("cannot read {}: {error}", path.display())))
}
