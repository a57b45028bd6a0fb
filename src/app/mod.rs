//! Builds every room, joins them, and takes them down in order. Only this room knows all others.

mod house;
mod reload;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, anyhow};
use rand::{SeedableRng, rngs::StdRng};
use serde_json::to_vec;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::house::Rooms;
use crate::{
    api::{self, ApiState, ApplicationCredential, Credentials, ServeLimits},
    call::Settings,
    config::{self, ApiTls, Config, DigestAlgorithm, TrunkConfig},
    graph::{self, GraphContext, Version},
    media,
    model::{Event, UnixMillis},
    notify::{Dispatcher, DispatcherConfig, Gate, Render, Rendered, Webhook},
    prompts::{Fence, Fetch, FetchLimits, Library, LibraryLimits},
    proto::{
        sdp,
        sip::{digest::Algorithm, path::Transport},
    },
    recordings::{AccessKey, Purge, Spool, Vault},
    signalling::{
        self, Registrant, Signalling, SignallingConfig, SipListener, StreamLimits, TlsFiles, User,
    },
    store::{Database, Delivery, Journal, JournalLimits},
    switchboard::{self, Directory, Drivers, Limits, Switchboard, Trunk},
    telemetry::LogLevel,
    tls::{self, Development},
    tokens::{
        Issuer, IssuerConfig, LocalKey, OutsideConfig, OutsideError, OutsideIssuer, Verifier,
    },
};

/// Events that may wait between the endpoint and the switchboard.
const SIP_EVENTS: usize = 4096;
/// How long a bot may take to answer a notification (interface section 6.4).
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// When we stop and the calls have ended: how long peers that do not answer may be told so again, the
/// last facts may take to be written and to be told, and the rest may take.
const FAREWELL: Duration = Duration::from_secs(5);
const FLUSH: Duration = Duration::from_secs(4);
const REST: Duration = Duration::from_secs(2);
/// How long the rooms may take to show that they are alive.
const ALIVE: Duration = Duration::from_secs(5);
/// Memory for decoded prompts.
const PROMPT_MEMORY: usize = 256 << 20;
/// How often we look whether a signing key is due.
const KEY_CARE: Duration = Duration::from_secs(3600);
/// Ports rest so long before another call gets them.
const PORT_COOLDOWN: Duration = Duration::from_secs(5);

/// A running node.
pub struct Daemon {
    switchboard: Switchboard,
    signalling: Signalling,
    journal: Journal,
    dispatcher: Dispatcher,
    media: media::Engine,
    database: Database,
    directory: watch::Sender<Arc<Directory>>,
    registrants: watch::Sender<Vec<Registrant>>,
    credentials: watch::Sender<Arc<Credentials>>,
    /// The configuration as it is now.
    running: watch::Sender<Arc<Config>>,
    access_key: Arc<AccessKey>,
    issuer: Issuer,
    sip_listeners: Vec<SipListener>,
    api_address: SocketAddr,
    api_tls: Option<watch::Sender<Arc<ServerConfig>>>,
    authority: Option<PathBuf>,
    drain_timeout: Duration,
    /// Stops what serves the outside, once there is nothing left to serve.
    outside: CancellationToken,
    tasks: JoinSet<&'static str>,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// It cannot start, or a part of it that must not end has ended.
pub async fn serve(config: Config, file: Option<PathBuf>, log: LogLevel) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut daemon = Daemon::start(config.clone()).await?;
    daemon.announce(&config);
    tell_systemd(&[sd_notify::NotifyState::Ready]);
    let mut watchdog = watchdog_interval();
    let failed = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            _ = hang_up.recv() => {
                reload::reload(&daemon, file.as_deref(), &config, &log).await;
            }
            // The heart beats only while the runtime turns and the SIP endpoint answers.
            _ = watchdog.tick() => {
                if daemon.signalling.is_alive(ALIVE).await {
                    tell_systemd(&[sd_notify::NotifyState::Watchdog]);
                }
            }
            Some(ended) = daemon.tasks.join_next() => break Some(ended),
        }
    };
    if let Some(ended) = failed {
        return Err(anyhow!("a part that must not end has ended: {ended:?}"));
    }
    info!("Stopping: no new calls; a second signal stops at once");
    tell_systemd(&[sd_notify::NotifyState::Stopping]);
    tokio::select! {
        () = daemon.stop() => info!("Stopped"),
        _ = terminate.recv() => warn!("Stopped at once by a second signal"),
        _ = interrupt.recv() => warn!("Stopped at once by a second signal"),
    }
    Ok(())
}

/// Makes a bearer token for an application of the configuration.
///
/// # Errors
/// There is no such application, or the key cannot be read or made.
pub fn mint_token(
    config: &Config,
    application: &str,
    roles: &[String],
    ttl: Duration,
) -> anyhow::Result<String> {
    let known = config.applications.iter().find(|known| known.name == application);
    let known = known.with_context(|| format!("there is no application {application:?}"))?;
    let roles = if roles.is_empty() { &known.roles } else { roles };
    let key = access_key(&config.storage.recordings)?;
    let now = UnixMillis::from(SystemTime::now());
    Ok(LocalKey::new(&key.signing_secret()).mint(&known.id, roles, ttl, now)?)
}

impl Daemon {
    /// Builds the house. Nothing is announced before the past is in order.
    ///
    /// # Errors
    /// What stands in the way, in words.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let mut tasks = JoinSet::new();
        let outside = CancellationToken::new();
        let running = watch::Sender::new(Arc::new(config.clone()));

        let database = Database::open(&config.storage.database)
            .await
            .with_context(|| format!("storage.database {:?}", without_password(&config)))?;
        let (journal, writer) = Journal::start(database.clone(), JournalLimits::default());
        tasks.spawn(async move {
            // An error is a panic of the journal, and ends the process like its end does.
            let _ = writer.await;
            "journal"
        });
        let folder = config.storage.recordings.clone();
        let in_folder = || format!("storage.recordings {:?}", folder.display());
        let spool = Spool::start(folder.clone()).with_context(in_folder)?;
        let access_key = Arc::new(access_key(&folder)?);
        let vault = Vault::new(folder.clone());
        let now = UnixMillis::from(SystemTime::now());
        switchboard::recover(&database, &journal, &vault, config.storage.retention, now).await?;
        database.free_unanswered_requests().await?;
        let purge_wake = Arc::new(Notify::new());
        let purge = Purge::new(
            database.clone(),
            vault.clone(),
            Arc::clone(&purge_wake),
            config.storage.retention,
        );
        let cancel = outside.clone();
        tasks.spawn(async move {
            purge.run(cancel).await;
            "purge"
        });

        let fence = Fence::new(
            config.fetch.allow_networks.iter().map(|allowed| (allowed.network, allowed.port)),
        );
        let prompts = Library::new(
            Fetch::new(fence.clone(), fetch_limits(&config.fetch))?,
            LibraryLimits { memory_bytes: PROMPT_MEMORY, max_duration: config.fetch.max_duration },
        );
        let advertised: Option<IpAddr> = config.sip.advertised_address.parse().ok();
        let engine = media::Engine::start(media::EngineConfig {
            ports: media::PortPool::new(rtp_ports(&config), PORT_COOLDOWN),
            shards: config.media.shards,
            targets: targets(&config, advertised),
            settings: media::Settings {
                rtp_timeout: config.media.rtp_timeout,
                hold_timeout: config.media.hold_timeout,
                unverified: config.media.unverified,
                any_host: config.media.any_host,
                ..media::Settings::default()
            },
        })
        .context("media")?;

        let listener = TcpListener::bind(config.api.listen)
            .await
            .with_context(|| format!("api.listen {}", config.api.listen))?;
        let api_address = listener.local_addr()?;
        let scheme = if config.api.tls() == ApiTls::Plain { "http" } else { "https" };
        let public_url = match config.api.public_url.trim_end_matches('/') {
            "" => format!("{scheme}://{api_address}"),
            url => url.to_owned(),
        };

        let issuer = IssuerConfig {
            tenant: config.api.tenant.clone(),
            public_url: public_url.clone(),
            notification_issuer: config.api.notification_issuer.clone(),
        };
        let issuer = Issuer::open(database.clone(), issuer, now).await.context("signing keys")?;

        let (events, received) = mpsc::channel(SIP_EVENTS);
        let (signalling, sip_listeners, service) = signalling::start(
            SignallingConfig {
                listen: config.sip.listen.iter().map(sip_listener).collect(),
                advertised,
                server_name: format!("aftertone/{}", env!("CARGO_PKG_VERSION")),
                realm: realm(&config),
                domain: config.sip.domain.clone(),
                digest: digest(&config),
                users: users(&config),
                tls: tls_files(&config),
                trusted_peers: config.sip.trusted_peers.clone(),
                limits: open_files().map_or_else(StreamLimits::default, StreamLimits::within),
            },
            events,
            outside.clone(),
        )
        .await
        .context("sip.listen")?;
        tasks.spawn(async move {
            // An error is a panic of the endpoint's task, and ends the process like its end does.
            let _ = service.await;
            "signalling"
        });

        let (registrants, wanted) = watch::channel(registrants(&config)?);
        let registering = signalling.clone().keep_registered(wanted, outside.clone());
        tasks.spawn(async move {
            registering.await;
            "registration"
        });

        let (directory, known_routes) = watch::channel(Arc::new(Directory::new(&config)));
        let known_applications = known_routes.clone();
        let switchboard = Switchboard::new(
            Drivers {
                signalling: signalling.clone(),
                media: engine.clone(),
                prompts,
                spool,
                vault: vault.clone(),
                journal: journal.clone(),
                database: database.clone(),
            },
            limits(&config, advertised),
            known_routes,
            StdRng::from_os_rng(),
        );
        let answering = switchboard.clone();
        tasks.spawn(async move {
            answering.run(received).await;
            "switchboard"
        });

        let rooms = Arc::new(Rooms {
            switchboard: switchboard.clone(),
            signalling: signalling.clone(),
            database: database.clone(),
            vault,
            access_key: Arc::clone(&access_key),
            public_url: public_url.clone(),
            purge_wake,
        });
        let client = fence.client(config.fetch.connect_timeout, WEBHOOK_TIMEOUT)?;
        let gate: Gate =
            Arc::new(move |url| client.to(url).cloned().map_err(|error| error.to_string()));
        let (dispatcher, delivering) = Dispatcher::start(
            database.clone(),
            Webhook::new(gate, WEBHOOK_TIMEOUT),
            renderer(Arc::clone(&rooms), &config.api.tenant, issuer.clone(), known_applications),
            DispatcherConfig {
                retry_for: config.calls.notification_retry_for,
                ..DispatcherConfig::default()
            },
            outside.clone(),
        );
        tasks.spawn(async move {
            // An error is a panic of the dispatcher, and ends the process like its end does.
            let _ = delivering.await;
            "notifications"
        });

        let (credentials, known_credentials) =
            watch::channel(Arc::new(credentials(&config, &access_key, &issuer)?));
        let authority = match config.api.tls() {
            ApiTls::Development => Some(development(&config)?.authority),
            ApiTls::Plain | ApiTls::Files(..) => None,
        };
        let state = ApiState::new(rooms, known_credentials, &config.api.tenant, &public_url)
            .with_authority(authority.as_deref());
        let (api_tls, identity) = api_identity(&config)?.map(watch::channel).unzip();
        tasks.spawn(care_for_keys(CaredFor {
            issuer: issuer.clone(),
            config: running.subscribe(),
            api_tls: api_tls.clone(),
            cancel: outside.clone(),
        }));
        let router = api::router(state.clone(), Some(issuer.clone()));
        let limits = open_files().map_or_else(ServeLimits::default, ServeLimits::within);
        let cancel = outside.clone();
        tasks.spawn(async move {
            api::serve(listener, identity, router, limits, cancel).await;
            state.finished().await;
            "api"
        });

        Ok(Self {
            switchboard,
            signalling,
            journal,
            dispatcher,
            media: engine,
            database,
            directory,
            registrants,
            credentials,
            running,
            access_key,
            issuer,
            sip_listeners,
            api_address,
            api_tls,
            authority,
            drain_timeout: config.calls.drain_timeout,
            outside,
            tasks,
        })
    }

    /// Where SIP is spoken, in the order of the configuration.
    pub fn sip_listeners(&self) -> &[SipListener] {
        &self.sip_listeners
    }

    /// Where the API is served.
    pub fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// `http` or `https`.
    pub fn api_scheme(&self) -> &'static str {
        if self.api_tls.is_some() { "https" } else { "http" }
    }

    /// The authority of the API's certificate, if that is one for development.
    pub fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    /// Stops in order: no new calls, the calls that are up, their clips and notifications, then
    /// what serves them.
    pub async fn stop(self) {
        let Self { switchboard, journal, signalling, media, mut tasks, .. } = self;
        signalling.set_draining(true).await;
        switchboard.drain(self.drain_timeout).await;
        // It waits for its threads, for seconds if one hangs.
        let media = tokio::task::spawn_blocking(move || media.shutdown());
        let (media, quiet, ()) = tokio::join!(
            timeout(FAREWELL, media),
            signalling.farewell(FAREWELL),
            signalling.unregister()
        );
        if !matches!(media, Ok(Ok(()))) {
            warn!("the media engine did not stop cleanly");
        }
        if !quiet {
            warn!("some peers have not answered our BYE or CANCEL");
        }
        if let Err(error) = journal.flush(FLUSH).await {
            error!(%error, "some facts could not be written");
        }
        if !self.dispatcher.flush(FLUSH).await {
            warn!("some notifications could not be sent; they will be after the next start");
        }
        self.outside.cancel();
        // The journal's task ends when its last handle is gone.
        drop((switchboard, journal));
        let rest = async {
            while tasks.join_next().await.is_some() {}
            self.database.close().await;
        };
        if timeout(REST, rest).await.is_err() {
            warn!("some parts did not end in time");
        }
    }

    /// Says where to dial and where the API is.
    fn announce(&self, config: &Config) {
        println!("aftertone {} is ready", env!("CARGO_PKG_VERSION"));
        for listener in &self.sip_listeners {
            println!("  SIP   {listener}");
        }
        println!("  API   {}://{}", self.api_scheme(), self.api_address);
        if let Some(authority) = self.authority() {
            let url = format!("https://{}{}", self.api_address, api::AUTHORITY_PATH);
            println!("        clients have to trust {}", authority.display());
            println!("        which others on this machine and elsewhere find at {url}");
        }
        if let (true, Some(first)) = (config.applications.is_empty(), self.sip_listeners.first()) {
            let SipListener { transport, address } = first;
            let host = match address.ip().is_unspecified() {
                true => format!("THIS-HOST:{}", address.port()),
                false => address.to_string(),
            };
            let parameter = match transport {
                Transport::Udp => String::new(),
                other => format!(";transport={}", other.name().to_ascii_lowercase()),
            };
            for line in config::Line::ALL {
                println!("  dial  sip:{line}@{host}{parameter}");
            }
        }
    }
}

fn sip_listener(listener: &config::SipListener) -> SipListener {
    let transport = match listener.transport {
        config::SipTransport::Udp => Transport::Udp,
        config::SipTransport::Tcp => Transport::Tcp,
        config::SipTransport::Tls => Transport::Tls,
        config::SipTransport::Ws => Transport::Ws,
        config::SipTransport::Wss => Transport::Wss,
    };
    SipListener { transport, address: listener.address }
}

/// How many files this process may hold; `None` where the system does not tell.
fn open_files() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn users(config: &Config) -> Vec<User> {
    let user = |user: &config::UserConfig| User {
        name: user.name.clone(),
        password: user.password.clone(),
    };
    config.users.iter().map(user).collect()
}

/// The domain, else the address that phones know us by.
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

/// The trunks that want to know where we are.
fn registrants(config: &Config) -> anyhow::Result<Vec<Registrant>> {
    let registrant = |trunk: &TrunkConfig| {
        let account = Trunk::new(trunk).and_then(|trunk| trunk.account());
        let (account, way) =
            account.with_context(|| format!("trunks {:?}: no host", trunk.name))?;
        Ok(Registrant { account, way })
    };
    config.trunks.iter().filter(|trunk| trunk.register).map(registrant).collect()
}

fn digest(config: &Config) -> Vec<Algorithm> {
    let algorithm = |algorithm: &DigestAlgorithm| match algorithm {
        DigestAlgorithm::Sha256 => Algorithm::Sha256,
        DigestAlgorithm::Md5 => Algorithm::Md5,
    };
    config.sip.digest.iter().map(algorithm).collect()
}

fn tls_files(config: &Config) -> TlsFiles {
    let sip = &config.sip;
    let given = |path: &PathBuf| (!path.as_os_str().is_empty()).then(|| path.clone());
    TlsFiles {
        identity: given(&sip.tls_certificate).zip(given(&sip.tls_key)),
        client_ca: given(&sip.tls_client_ca),
        server_ca: given(&sip.tls_server_ca),
    }
}

/// What the API shows in TLS handshakes; `None` for plain HTTP.
fn api_identity(config: &Config) -> anyhow::Result<Option<Arc<ServerConfig>>> {
    let identity = match config.api.tls() {
        ApiTls::Plain => return Ok(None),
        ApiTls::Development => development(config)?.identity,
        ApiTls::Files(certificate, key) => (certificate, key),
    };
    Ok(Some(tls::simple_server(&identity).context("api.tls_certificate")?))
}

/// The certificate for trying things out, for all names by which somebody may reach us.
fn development(config: &Config) -> anyhow::Result<Development> {
    let mut hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let listen = config.api.listen.ip();
    let public = url::Url::parse(&config.api.public_url).ok();
    let public = public.as_ref().and_then(url::Url::host_str).map(str::to_owned);
    for host in [(!listen.is_unspecified()).then(|| listen.to_string()), public] {
        hosts.extend(host.filter(|host| !hosts.contains(host)));
    }
    Ok(tls::development(&config.storage.recordings, &hosts)?)
}

fn access_key(folder: &Path) -> anyhow::Result<AccessKey> {
    AccessKey::load_or_create(folder)
        .with_context(|| format!("cannot read or make the key in {}", folder.display()))
}

/// What does not last.
struct CaredFor {
    issuer: Issuer,
    config: watch::Receiver<Arc<Config>>,
    api_tls: Option<watch::Sender<Arc<ServerConfig>>>,
    cancel: CancellationToken,
}

/// Sees to it that there is a key to sign with, and that the development certificate is good.
async fn care_for_keys(cared_for: CaredFor) -> &'static str {
    let CaredFor { issuer, config, api_tls, cancel } = cared_for;
    while cancel.run_until_cancelled(tokio::time::sleep(KEY_CARE)).await.is_some() {
        if let Err(error) = issuer.turn_over(UnixMillis::from(SystemTime::now())).await {
            error!(%error, "the signing keys could not be looked after");
        }
        let config = config.borrow().clone();
        let Some(shown) = api_tls.as_ref().filter(|_| config.api.tls() == ApiTls::Development)
        else {
            continue;
        };
        match api_identity(&config) {
            Ok(identity) => drop(identity.map(|identity| shown.send_replace(identity))),
            Err(error) => {
                error!("the development certificate could not be looked after: {error:#}");
            }
        }
    }
    "signing keys"
}

/// The issuers that the operator trusts are not behind the fence: it keeps applications from
/// networks, not operators.
fn outside_issuers(config: &Config) -> Result<Vec<OutsideIssuer>, OutsideError> {
    let issuer = |issuer: &config::IssuerConfig| {
        let config::IssuerConfig { metadata, audience, tenant } = issuer.clone();
        OutsideIssuer::new(OutsideConfig { metadata, audience, tenant })
    };
    config.issuers.iter().map(issuer).collect()
}

fn credentials(config: &Config, key: &AccessKey, issuer: &Issuer) -> anyhow::Result<Credentials> {
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
        outside: outside_issuers(config).context("issuers")?,
    };
    Ok(Credentials::new(applications, verifier))
}

fn limits(config: &Config, advertised: Option<IpAddr>) -> Limits {
    let ports = config.media.ports;
    let by_ports = match ports.first {
        0 => usize::MAX,
        first => usize::from(ports.last - first).div_ceil(2),
    };
    Limits {
        settings: Settings {
            answer_timeout: config.calls.answer_timeout,
            keep_alive: config.calls.keep_alive,
            line_limit: config.calls.line_limit,
            retention: config.storage.retention,
        },
        codecs: config
            .media
            .codecs
            .iter()
            .map(|codec| match codec {
                config::Codec::Opus => sdp::Codec::Opus,
                config::Codec::Pcma => sdp::Codec::Pcma,
                config::Codec::Pcmu => sdp::Codec::Pcmu,
            })
            .collect(),
        max_calls: match config.media.max_calls {
            0 => by_ports,
            calls => calls.min(by_ports),
        },
        advertised,
    }
}

fn rtp_ports(config: &Config) -> media::PortRange {
    match config.media.ports {
        config::PortRange { first: 0, .. } => media::PortRange::Ephemeral,
        config::PortRange { first, last } => media::PortRange::Between { first, last },
    }
}

/// Where RTP must not go: what peers could name of ours.
fn targets(config: &Config, advertised: Option<IpAddr>) -> media::Targets {
    let sip = config.sip.listen.iter().map(|listener| listener.address.port());
    media::Targets::new(rtp_ports(config), sip.collect(), advertised)
}

fn fetch_limits(fetch: &config::FetchConfig) -> FetchLimits {
    let folder = &fetch.prompt_folder;
    FetchLimits {
        connect_timeout: fetch.connect_timeout,
        total_timeout: fetch.total_timeout,
        max_bytes: fetch.max_bytes.as_u64(),
        prompt_folder: (!folder.as_os_str().is_empty()).then(|| folder.clone()),
    }
}

/// Turns a fact of the outbox into the POST that tells it.
fn renderer(
    rooms: Arc<Rooms>,
    tenant: &str,
    issuer: Issuer,
    applications: watch::Receiver<Arc<Directory>>,
) -> Render {
    let context = GraphContext {
        tenant: tenant.to_owned(),
        public_url: rooms.public_url.clone(),
        version: Version::V1,
    };
    Arc::new(move |delivery: &Delivery| {
        let link = match &delivery.event {
            Event::OperationEnded { operation } => {
                operation.recording.as_ref().map(|recorded| rooms.link(recorded.id))
            }
            _ => None,
        };
        let body = graph::notification(&context, &delivery.event, delivery.sequence, link.as_ref());
        // Who has left the configuration may come back; nobody else is told in its stead.
        let directory = applications.borrow().clone();
        let (id, callback) = directory
            .application(&delivery.application)
            .ok_or("its application is not in the configuration")?;
        let token = issuer
            .notification_token(id, UnixMillis::from(SystemTime::now()))
            .map_err(|error| format!("it cannot be signed: {error}"))?;
        let home = url::Url::parse(callback).map(|url| url.origin().ascii_serialization());
        Ok(Rendered {
            // Our own types: printing them as JSON cannot fail.
            body: to_vec(&body).unwrap_or_default(),
            headers: notification_headers(delivery, &format!("Bearer {token}")),
            home: home.unwrap_or_default(),
        })
    })
}

/// What shows a bot that a notification is from here (contract section 6.4), and the three headers from
/// which bots take the scenario and tell repeated messages (6.1).
fn notification_headers(delivery: &Delivery, bearer: &str) -> axum::http::HeaderMap {
    let message = format!("{}-{}", delivery.call, delivery.sequence);
    [
        ("content-type", "application/json"),
        ("authorization", bearer),
        ("x-microsoft-skype-chain-id", &delivery.chain_id),
        ("scenario-id", &delivery.chain_id),
        ("x-microsoft-skype-message-id", &message),
    ]
    .into_iter()
    .filter_map(|(name, value)| {
        Some((axum::http::HeaderName::from_static(name), value.parse().ok()?))
    })
    .collect()
}

fn without_password(config: &Config) -> String {
    match url::Url::parse(&config.storage.database) {
        Ok(mut url) if url.password().is_some() => {
            // A URL with a password has a host, so that it can be set.
            let _ = url.set_password(Some("…"));
            url.to_string()
        }
        _ => config.storage.database.clone(),
    }
}

fn tell_systemd(states: &[sd_notify::NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell systemd");
    }
}

/// Half of the time that systemd gives us, or once an hour where it does not watch.
fn watchdog_interval() -> tokio::time::Interval {
    let period = sd_notify::watchdog_enabled().map_or(Duration::from_secs(3600), |time| time / 2);
    tokio::time::interval(period.max(Duration::from_millis(100)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_waits_longer_than_we_take_to_stop() {
        let unit = include_str!("../../systemd/aftertone.service");
        let given = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
        let given = Duration::from_secs(given.parse().unwrap());
        let config = Config::load(None, std::iter::empty()).unwrap();
        let calls = config.calls.drain_timeout + switchboard::ENDING;
        let taken = calls + FAREWELL + 2 * FLUSH + REST;
        assert!(taken < given, "{taken:?} of {given:?}");
    }
}
