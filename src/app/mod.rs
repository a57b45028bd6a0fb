//! Builds every room, joins them, and takes them down in order. Only this room knows all others.

mod building;
mod house;
mod reload;
mod rendering;
mod settings;
mod token;
mod wall_clock;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use self::token::{MintError, mint_token};
use self::{building::Building, house::Rooms};
use crate::{
    api::{self, ApiState, Credentials},
    config::{self, ApiTls, Config},
    media,
    notify::Dispatcher,
    proto::sip::path::Transport,
    recordings::{AccessKey, Folder},
    signalling::{Registrant, Signalling, SipListener},
    store::{Database, Journal},
    switchboard::{Directory, Drivers, Switchboard},
    telemetry::LogLevel,
    tokens::Issuer,
};

/// Events that may wait between the endpoint and the switchboard.
const SIP_EVENTS: usize = 4096;
/// When we stop and the calls have ended: how long peers that do not answer may be told so again, the
/// last facts may take to be written and to be told, and the rest may take.
const FAREWELL: Duration = Duration::from_secs(5);
const FLUSH: Duration = Duration::from_secs(4);
const REST: Duration = Duration::from_secs(2);
/// How long the rooms may take to show that they are alive.
const ALIVE: Duration = Duration::from_secs(5);

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
    /// Held for life.
    _folder: Folder,
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

/// What an error says, and of its causes what it does not say itself.
pub fn in_words(error: &anyhow::Error) -> String {
    let mut words = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !words.contains(&cause) {
            words = format!("{words}: {cause}");
        }
    }
    words
}

impl Daemon {
    /// Builds the house. Nothing is announced before the past is in order.
    ///
    /// # Errors
    /// What stands in the way, in words.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        let mut building = Building::new(&config);
        settings::check_callbacks(&config, &building.fence)?;
        let storage = building.open_storage().await?;
        let engine = media::Engine::start(settings::engine(&config)).context("media")?;
        let (listener, public_url) = building.bind_api().await?;
        let api_address = listener.local_addr()?;
        let issuer = settings::issuer(&config, &public_url);
        let issuer =
            Issuer::open(storage.database.clone(), issuer).await.context("signing keys")?;

        let (events, received) = mpsc::channel(SIP_EVENTS);
        let (signalling, sip_listeners) = building.speak_sip(events).await?;
        let registrants = building.keep_registered(&signalling)?;
        let (directory, known_routes) = watch::channel(Arc::new(Directory::new(&config)));
        let drivers = Drivers {
            signalling: signalling.clone(),
            media: engine.clone(),
            prompts: building.prompts()?,
            spool: storage.spool,
            vault: storage.vault.clone(),
            journal: storage.journal.clone(),
            database: storage.database.clone(),
        };
        let switchboard = building.connect(drivers, known_routes.clone(), received);

        let rooms = Arc::new(Rooms {
            switchboard: switchboard.clone(),
            signalling: signalling.clone(),
            database: storage.database.clone(),
            vault: storage.vault,
            access_key: Arc::clone(&storage.access_key),
            public_url: public_url.clone(),
            purge_wake: storage.purge_wake,
            fence: building.fence.clone(),
        });
        let dispatcher = building.notify(Arc::clone(&rooms), issuer.clone(), known_routes)?;
        let (credentials, known_credentials) =
            watch::channel(Arc::new(settings::credentials(&config, &storage.access_key, &issuer)?));
        let authority = match config.api.tls() {
            ApiTls::Development => Some(settings::development(&config)?.authority),
            ApiTls::Plain | ApiTls::Files(..) => None,
        };
        let state = ApiState::new(rooms, known_credentials, &config.api.tenant, &public_url)
            .with_identity_type(settings::identity_type(&config.api))
            .with_authority(authority.as_deref());
        let api_tls = building.serve_api(listener, state, issuer.clone())?;
        let running = building.care_for_keys(issuer.clone(), api_tls.clone());

        Ok(Self {
            switchboard,
            signalling,
            journal: storage.journal,
            dispatcher,
            media: engine,
            database: storage.database,
            directory,
            registrants,
            credentials,
            running,
            access_key: storage.access_key,
            issuer,
            sip_listeners,
            api_address,
            api_tls,
            authority,
            drain_timeout: config.calls.drain_timeout,
            _folder: storage.folder,
            outside: building.outside,
            tasks: building.tasks,
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
    use crate::switchboard;

    #[test]
    fn a_cause_that_was_said_is_not_said_again() {
        let cause = anyhow::anyhow!("no such file");
        let error = cause.context("a.pem: no such file").context("sip.tls_key");
        assert_eq!(in_words(&error), "sip.tls_key: a.pem: no such file");
    }

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
