//! Translates the configuration to the settings of each module.

use std::{fmt::Display, net::IpAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit};
use tokio_rustls::rustls::ServerConfig;
use tracing::{info, warn};

use crate::{
    drivers::{
        media,
        prompts::{Fence, FetchLimits},
        recordings::{AccessKey, BindError, SpoolLimits},
        signalling::{Registrant, SignallingConfig, SipListener, StreamLimits, TlsFiles, User},
        store::StoreError,
        tls::{self, Development, TlsError},
        tokens::{
            Issuer, IssuerConfig, LocalKey, OutsideConfig, OutsideError, OutsideIssuer, Verifier,
        },
    },
    service::{
        api::{ApplicationCredential, Credentials, ServeLimits},
        config::{self, ApiTls, Config, ConfigError, TrunkConfig},
        switchboard::{Limits, Trunk},
    },
};
use aftertone_core::call::Settings;

/// File descriptors that are open without a call: listeners, the database, the runtime, our own
/// requests.
const FILES_WITHOUT_CALLS: usize = 64;
/// RTP and RTCP.
const SOCKETS_OF_A_CALL: usize = 2;
/// One clip may still be completed while the next one is written.
const CLIPS_OF_A_CALL: usize = 2;
/// How long a port stays unused before another call gets it.
const PORT_COOLDOWN: Duration = Duration::from_secs(5);

pub(super) fn signalling(config: &Config) -> SignallingConfig {
    SignallingConfig {
        listen: config.sip.listen.iter().map(sip_listener).collect(),
        advertised: advertised(config),
        server_name: format!("aftertone/{}", env!("CARGO_PKG_VERSION")),
        realm: realm(config),
        domain: config.sip.domain.clone(),
        digest: config.sip.digest.clone(),
        users: users(config),
        tls: tls_files(config),
        trusted_peers: config.sip.trusted_peers.clone(),
        web_origins: config.sip.web_origins.iter().map(|origin| origin.0.clone()).collect(),
        limits: open_files().map_or_else(StreamLimits::default, StreamLimits::within),
    }
}

/// Our public address; `None` when the local address of each message and path is used.
fn advertised(config: &Config) -> Option<IpAddr> {
    let advertised: IpAddr = config.sip.advertised_address.parse().ok()?;
    Some(advertised.to_canonical())
}

fn sip_listener(listener: &config::SipListener) -> SipListener {
    let config::SipListener { transport, address } = *listener;
    SipListener { transport, address }
}

/// Number of file descriptors that this process may open; `None` when the system does not say.
pub(super) fn open_files() -> Option<usize> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    usize::try_from(soft).ok()
}

/// Number of calls for which there are file descriptors, after those for SIP streams and API
/// clients.
fn calls_within(open_files: usize) -> usize {
    let left = open_files.saturating_sub(taken_of(open_files));
    (left / (SOCKETS_OF_A_CALL + CLIPS_OF_A_CALL)).max(1)
}

/// File descriptors that are not for calls and their clips.
fn taken_of(open_files: usize) -> usize {
    let streams = StreamLimits::within(open_files);
    let clients = ServeLimits::within(open_files).connections;
    streams.connections + streams.opened + clients + FILES_WITHOUT_CALLS
}

/// Logs the maximum number of calls, and which setting would increase it.
pub(super) fn tell_room(config: &Config, limits: &Limits) {
    let calls = limits.max_calls;
    let is_bound_by_files = open_files().is_some_and(|files| calls == calls_within(files));
    match (is_bound_by_files, config.media.max_calls) {
        (false, _) => info!("Room for {calls} calls"),
        // The configuration does not ask for more.
        (true, 0) => info!("Room for {calls} calls, by the limit of open files (LimitNOFILE)"),
        (true, wanted) => warn!(
            "Room for {calls} calls, not for media.max_calls, {wanted}: more need a higher limit of \
             open files (LimitNOFILE, ulimit -n)"
        ),
    }
}

/// Limits of the spool.
pub(super) fn spool(config: &Config) -> SpoolLimits {
    let calls = limits(config).max_calls;
    let rest = open_files().map_or(usize::MAX, |files| {
        files
            .saturating_sub(taken_of(files))
            .saturating_sub(calls.saturating_mul(SOCKETS_OF_A_CALL))
    });
    SpoolLimits {
        low_water: config.storage.low_water.as_u64(),
        // Recordings that wait in the queues of calls have open files as well.
        open: rest.max(calls.saturating_mul(CLIPS_OF_A_CALL)),
        calls,
    }
}

pub(super) fn users(config: &Config) -> Vec<User> {
    let user = |user: &config::UserConfig| User {
        name: user.name.clone(),
        password: user.password.clone(),
    };
    config.users.iter().map(user).collect()
}

/// The configured domain, else the address at which phones reach us.
fn realm(config: &Config) -> String {
    let sip = &config.sip;
    let listens_on = sip.listen.iter().map(|listener| listener.address.ip());
    match (sip.domain.as_str(), sip.advertised_address.as_str()) {
        ("", "auto") => listens_on
            .into_iter()
            .find(|ip| !ip.is_unspecified())
            .map_or_else(|| "aftertone".to_owned(), |ip| ip.to_string()),
        ("", address) => address.to_owned(),
        (domain, _) => domain.to_owned(),
    }
}

/// The trunks at which we register.
pub(super) fn registrants(config: &Config) -> anyhow::Result<Vec<Registrant>> {
    let registrant = |trunk: &TrunkConfig| {
        let account = Trunk::new(trunk).and_then(|trunk| trunk.account());
        let (account, way) =
            account.with_context(|| format!("trunks {:?}: no host", trunk.name))?;
        Ok(Registrant { account, way })
    };
    config.trunks.iter().filter(|trunk| trunk.register).map(registrant).collect()
}

pub(super) fn tls_files(config: &Config) -> TlsFiles {
    let sip = &config.sip;
    TlsFiles {
        identity: sip.tls_certificate.clone().zip(sip.tls_key.clone()),
        client_ca: sip.tls_client_ca.clone(),
        server_ca: sip.tls_server_ca.clone(),
    }
}

/// Turns an error in the TLS files of SIP into a configuration error.
pub(super) fn wrong_sip_tls(config: &Config, error: TlsError) -> anyhow::Error {
    let sip = &config.sip;
    let keys = [
        ("sip.tls_certificate", sip.tls_certificate.as_deref()),
        ("sip.tls_key", sip.tls_key.as_deref()),
        ("sip.tls_client_ca", sip.tls_client_ca.as_deref()),
        ("sip.tls_server_ca", sip.tls_server_ca.as_deref()),
    ];
    wrong_file(&keys, error)
}

/// Adds the configuration key that names the file to a TLS error.
fn wrong_file(keys: &[(&str, Option<&Path>)], error: TlsError) -> anyhow::Error {
    let key = keys.iter().find(|(_, path)| path.is_some() && error.file() == *path);
    match key {
        Some((key, _)) => wrong(key, &error),
        None => error.into(),
    }
}

/// A configuration error that only the use of the value reveals.
fn wrong(key: &str, message: &dyn Display) -> anyhow::Error {
    ConfigError::Contradiction { key: key.to_owned(), message: message.to_string() }.into()
}

/// The TLS configuration of the API; `None` for plain HTTP.
pub(super) fn api_identity(config: &Config) -> anyhow::Result<Option<Arc<ServerConfig>>> {
    let identity = match config.api.tls() {
        ApiTls::Plain => return Ok(None),
        ApiTls::Development => development(config)?.identity,
        ApiTls::Files(certificate, key) => (certificate, key),
    };
    let (certificate, key) = &identity;
    let keys = [("api.tls_certificate", Some(certificate.as_path())), ("api.tls_key", Some(key))];
    let shown = tls::simple_server(&identity).map_err(|error| wrong_file(&keys, error))?;
    Ok(Some(shown))
}

/// The development certificate, for all names at which clients may reach us.
pub(super) fn development(config: &Config) -> anyhow::Result<Development> {
    let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let listen = config.api.listen.ip();
    let public = url::Url::parse(&config.api.public_url).ok();
    let public = public.as_ref().and_then(url::Url::host_str).map(str::to_owned);
    for host in [(!listen.is_unspecified()).then(|| listen.to_string()), public] {
        hosts.extend(host.filter(|host| !hosts.contains(host)));
    }
    Ok(tls::development(&config.storage.recordings, &hosts)?)
}

pub(super) fn access_key(folder: &Path) -> anyhow::Result<AccessKey> {
    AccessKey::load_or_create(folder)
        .with_context(|| format!("cannot read or make the key in {}", folder.display()))
}

/// The fence does not apply to the issuers that the operator configures: it limits the targets of
/// applications, not those of the operator.
fn outside_issuers(config: &Config) -> Result<Vec<OutsideIssuer>, OutsideError> {
    let issuer = |issuer: &config::IssuerConfig| {
        let config::IssuerConfig { metadata, audience, tenant } = issuer.clone();
        OutsideIssuer::new(OutsideConfig { metadata, audience, tenant })
    };
    config.issuers.iter().map(issuer).collect()
}

pub(super) fn credentials(
    config: &Config,
    key: &AccessKey,
    issuer: &Issuer,
) -> anyhow::Result<Credentials> {
    let applications = config
        .applications
        .iter()
        .map(|application| ApplicationCredential {
            name: application.name.clone(),
            id: application.id.clone(),
            tokens: application.tokens.clone(),
            secrets: application.secrets.clone(),
            roles: application.roles.clone(),
            issuer: application.issuer.clone(),
        })
        .collect();
    let verifier = Verifier {
        local: Some(LocalKey::new(&key.signing_secret())),
        issuer: Some(issuer.clone()),
        outside: outside_issuers(config).map_err(|error| wrong("issuers.metadata", &error))?,
    };
    Ok(Credentials::new(applications, verifier))
}

pub(super) fn engine(config: &Config) -> media::EngineConfig {
    media::EngineConfig {
        ports: media::PortPool::new(rtp_ports(config), PORT_COOLDOWN),
        shards: config.media.shards,
        targets: targets(config),
        settings: media::Settings {
            rtp_timeout: config.media.rtp_timeout,
            hold_timeout: config.media.hold_timeout,
            unverified: config.media.unverified,
            any_host: config.media.any_host,
            ..media::Settings::default()
        },
    }
}

pub(super) fn issuer(config: &Config, public_url: &str) -> IssuerConfig {
    IssuerConfig {
        tenant: config.api.tenant.clone(),
        public_url: public_url.to_owned(),
        notification_issuer: config.api.notification_issuer.clone(),
    }
}

pub(super) fn limits(config: &Config) -> Limits {
    let ports = config.media.ports;
    let by_ports = match ports.first {
        0 => usize::MAX,
        first => usize::from(ports.last - first).div_ceil(2),
    };
    let by_files = open_files().map_or(usize::MAX, calls_within);
    Limits {
        settings: Settings {
            answer_timeout: config.calls.answer_timeout,
            keep_alive: config.calls.keep_alive,
            line_limit: config.calls.line_limit,
            retention: config.storage.retention,
        },
        codecs: config.media.codecs.clone(),
        srtp: config.media.srtp,
        max_calls: match config.media.max_calls {
            0 => by_ports,
            calls => calls.min(by_ports),
        }
        .min(by_files),
        advertised: advertised(config),
    }
}

fn rtp_ports(config: &Config) -> media::PortRange {
    match config.media.ports {
        config::PortRange { first: 0, .. } => media::PortRange::Ephemeral,
        config::PortRange { first, last } => media::PortRange::Between { first, last },
    }
}

/// The targets that RTP must not reach: ports and addresses of our own, which a peer could name.
fn targets(config: &Config) -> media::Targets {
    let sip = config.sip.listen.iter().map(|listener| listener.address.port());
    media::Targets::new(rtp_ports(config), sip.collect(), advertised(config))
}

/// The addresses that prompt requests and notifications may reach.
pub(super) fn fence(fetch: &config::FetchConfig) -> Fence {
    let allowed = fetch.allow_networks.iter();
    Fence::new(allowed.map(|allowed| (allowed.network, allowed.port)))
}

/// Refuses a callback URI to which notifications can never be sent. Such an application would get
/// calls and learn nothing about them.
pub(super) fn check_callbacks(config: &Config, fence: &Fence) -> anyhow::Result<()> {
    for application in &config.applications {
        fence.check_text(&application.callback_uri).map_err(|error| {
            let name = &application.name;
            let message = format!(
                "nothing could be sent to that of {name:?}: {error} (see fetch.allow_networks)"
            );
            wrong("applications.callback_uri", &message)
        })?;
    }
    Ok(())
}

pub(super) fn fetch_limits(fetch: &config::FetchConfig) -> anyhow::Result<FetchLimits> {
    if let Some(folder) = &fetch.prompt_folder {
        std::fs::read_dir(folder).map_err(|error| {
            wrong("fetch.prompt_folder", &format!("{}: {error}", folder.display()))
        })?;
    }
    Ok(FetchLimits {
        connect_timeout: fetch.connect_timeout,
        total_timeout: fetch.total_timeout,
        max_bytes: fetch.max_bytes.as_u64(),
        prompt_folder: fetch.prompt_folder.clone(),
    })
}

/// Why the folder of the recordings cannot be used. If the folder may only be not mounted yet, the
/// error does not count as a configuration error, so the service manager tries another start.
pub(super) fn wrong_folder(config: &Config, error: BindError) -> anyhow::Error {
    match error {
        BindError::Foreign { .. } => wrong("storage.recordings", &error),
        BindError::NothingThere { .. } | BindError::Io { .. } | BindError::Store(_) => {
            let folder = config.storage.recordings.display();
            anyhow::Error::new(error).context(format!("storage.recordings {folder:?}"))
        }
    }
}

/// Why the database cannot be opened.
pub(super) fn wrong_database(config: &Config, error: StoreError) -> anyhow::Error {
    if error.is_wrong_address() {
        wrong("storage.database", &error)
    } else {
        anyhow::Error::new(error)
            .context(format!("storage.database {:?}", without_password(&config.storage.database)))
    }
}

/// The database URL without its password, for messages. The query may contain a password as well.
fn without_password(address: &str) -> String {
    match url::Url::parse(address) {
        Ok(url) if url.scheme() == "sqlite" => address.to_owned(),
        Ok(mut url) => {
            if url.password().is_some() {
                // Cannot fail: a URL with a password has a host.
                let _ = url.set_password(Some("***"));
            }
            let parameters = url.query().map(|query| {
                let masked = query.split('&').map(|parameter| match parameter.split_once('=') {
                    Some(("password", _)) => "password=***",
                    _ => parameter,
                });
                masked.collect::<Vec<_>>().join("&")
            });
            url.set_query(parameters.as_deref());
            url.to_string()
        }
        Err(_) => format!("{}:***", address.split_once(':').unwrap_or_default().0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_shows_its_password() {
        for (address, shown) in [
            ("postgres://me:secret@db.example/calls", "postgres://me:***@db.example/calls"),
            (
                "postgres://h/calls?password=secret&host=/run/pg",
                "postgres://h/calls?password=***&host=/run/pg",
            ),
            ("postgres://me:se/cret@db.example/calls", "postgres:***"),
            ("sqlite:/a b/c.db", "sqlite:/a b/c.db"),
        ] {
            assert_eq!(without_password(address), shown);
        }
    }
}
