//! Life cycle of a node, from start to stop.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{building::Building, settings};
use crate::{
    drivers::{
        media,
        notify::Dispatcher,
        recordings::{AccessKey, Folder},
        signalling::{Registrant, Signalling, SipListener},
        store::{Database, Journal},
        tokens::Issuer,
    },
    service::{
        api::{self, ApiModules, ApiState, Credentials, DatabaseStore},
        config::{self, ApiTls, Config},
        switchboard::{Directory, Drivers, Switchboard},
    },
};
use aftertone_core::proto::sip::path::Transport;

/// Slots for events between the endpoint and the switchboard.
const SIP_EVENTS: usize = 4096;

/// After the calls have ended: how long the media threads may take to stop, and how long we
/// retransmit to peers that do not answer our BYE or CANCEL.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long the last changes may take to be committed, and then the notifications to be sent.
const FLUSH: Duration = Duration::from_secs(4);

/// How long the remaining tasks may take to end.
const REST: Duration = Duration::from_secs(2);

/// A running node.
pub struct Daemon {
    switchboard: Switchboard,
    pub(super) signalling: Signalling,
    journal: Journal,
    dispatcher: Dispatcher,
    media: media::Engine,
    database: Database,
    pub(super) directory: watch::Sender<Arc<Directory>>,
    pub(super) registrants: watch::Sender<Vec<Registrant>>,
    pub(super) credentials: watch::Sender<Arc<Credentials>>,
    /// The current configuration.
    pub(super) running: watch::Sender<Arc<Config>>,
    pub(super) access_key: Arc<AccessKey>,
    pub(super) issuer: Issuer,
    sip_listeners: Vec<SipListener>,
    api_address: SocketAddr,
    pub(super) api_tls: Option<watch::Sender<Arc<ServerConfig>>>,
    authority: Option<PathBuf>,
    drain_timeout: Duration,
    /// Holds the lock on the folder while the node lives.
    _folder: Folder,
    /// Stops the tasks that serve other hosts, once all calls have ended.
    outside: CancellationToken,
    pub(super) tasks: JoinSet<&'static str>,
}

impl Daemon {
    /// Starts all parts of the node. SIP and the API start only after recovery.
    ///
    /// # Errors
    /// The reason why the node cannot start, for the operator.
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

        let store = Arc::new(DatabaseStore {
            database: storage.database.clone(),
            vault: storage.vault,
            access_key: Arc::clone(&storage.access_key),
            public_url: public_url.clone(),
        });
        let dispatcher = building.notify(Arc::clone(&store), issuer.clone(), known_routes)?;
        let (credentials, known_credentials) =
            watch::channel(Arc::new(settings::credentials(&config, &storage.access_key, &issuer)?));
        let authority = match config.api.tls() {
            ApiTls::Development => Some(settings::development(&config)?.authority),
            ApiTls::Plain | ApiTls::Files(..) => None,
        };
        let modules = ApiModules {
            calls: Arc::new(switchboard.clone()),
            store,
            fence: building.fence.clone(),
        };
        let state = ApiState::new(modules, known_credentials, &config.api.tenant, &public_url)
            .with_identity_type(config.api.identity_type)
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

    /// The SIP listeners, in the order of the configuration.
    pub fn sip_listeners(&self) -> &[SipListener] {
        &self.sip_listeners
    }

    /// Local address of the API listener.
    pub fn api_address(&self) -> SocketAddr {
        self.api_address
    }

    /// `http` or `https`.
    pub fn api_scheme(&self) -> &'static str {
        if self.api_tls.is_some() { "https" } else { "http" }
    }

    /// File of the CA certificate, if the API uses a development certificate.
    pub fn authority(&self) -> Option<&Path> {
        self.authority.as_deref()
    }

    /// Stops in this order: refuses new calls, ends the current ones, completes their clips and
    /// notifications, and then stops the tasks that serve them.
    pub async fn stop(self) {
        let Self { switchboard, journal, signalling, media, mut tasks, .. } = self;
        signalling.set_draining(true).await;
        switchboard.drain(self.drain_timeout).await;
        // This waits for the media threads, which takes seconds if one hangs.
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
        // The journal's task ends when its last handle is dropped.
        drop((switchboard, journal));
        let rest = async {
            while tasks.join_next().await.is_some() {}
            self.database.close().await;
        };
        if timeout(REST, rest).await.is_err() {
            warn!("some parts did not end in time");
        }
    }

    /// Prints the addresses of SIP and of the API.
    pub(super) fn announce(&self, config: &Config) {
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
            let host = if address.ip().is_unspecified() {
                format!("THIS-HOST:{}", address.port())
            } else {
                address.to_string()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::switchboard;

    #[test]
    fn systemd_waits_longer_than_we_take_to_stop() {
        let unit = include_str!("../../../systemd/aftertone.service");
        let given = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
        let given = Duration::from_secs(given.parse().unwrap());
        let config = Config::load(None, std::iter::empty()).unwrap();
        let calls = config.calls.drain_timeout + switchboard::ENDING;
        let taken = calls + FAREWELL + 2 * FLUSH + REST;
        assert!(taken < given, "{taken:?} of {given:?}");
    }
}
