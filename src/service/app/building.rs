//! Starts the modules of the daemon one by one, in the order of their dependencies.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{in_words, rendering::renderer, settings, wall_clock};
use crate::{
    drivers::{
        notify::{Dispatcher, DispatcherConfig, Gate, Webhook},
        prompts::{Fence, Fetch, Library, LibraryLimits},
        recordings::{AccessKey, Folder, FolderKeeper, Purge, Spool, Vault},
        signalling::{self, Registrant, Signalling, SipListener, StartError},
        store::{Database, Journal, JournalLimits},
        tokens::Issuer,
    },
    service::{
        api::{self, ApiState, DatabaseStore, ServeLimits},
        config::{ApiTls, Config},
        switchboard::{self, Directory, Drivers, Switchboard},
    },
};
use aftertone_core::proto::sip::endpoint::Event;

/// How long an application may take to answer a notification (interface section 6.4).
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Memory for decoded prompts, in bytes.
const PROMPT_MEMORY: usize = 256 << 20;
/// How often we check whether a new signing key is due.
const KEY_CARE: Duration = Duration::from_secs(3600);

/// A daemon during its start.
pub(super) struct Building<'a> {
    config: &'a Config,
    /// Limits the targets of prompt requests and notifications.
    pub(super) fence: Fence,
    /// Stops the tasks that serve other hosts.
    pub(super) outside: CancellationToken,
    /// Tasks that must not end while the daemon runs, with their names.
    pub(super) tasks: JoinSet<&'static str>,
}

/// The database, the recordings and the key to their tokens.
pub(super) struct Storage {
    pub database: Database,
    pub journal: Journal,
    pub spool: Spool,
    pub vault: Vault,
    pub folder: Folder,
    pub access_key: Arc<AccessKey>,
}

impl<'a> Building<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self {
            config,
            fence: settings::fence(&config.fetch),
            outside: CancellationToken::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Opens the database and the folder of the recordings, and runs recovery.
    pub(super) async fn open_storage(&mut self) -> anyhow::Result<Storage> {
        let config = self.config;
        let database = Database::open(&config.storage.database)
            .await
            .map_err(|error| settings::wrong_database(config, error))?;
        self.tasks.spawn(wall_clock::watch(database.clone(), self.outside.clone()));
        let (journal, writer) = Journal::start(database.clone(), JournalLimits::default());
        self.tasks.spawn(async move {
            // An error means that the journal has panicked, which ends the process, as its normal
            // end does.
            let _ = writer.await;
            "journal"
        });
        let folder = config.storage.recordings.clone();
        let in_folder = || format!("storage.recordings {:?}", folder.display());
        let held = Folder::hold(folder.clone()).with_context(in_folder)?;
        let vault = Vault::new(held.clone());
        vault.bind(&database).await.map_err(|error| settings::wrong_folder(config, error))?;
        let spool = Spool::start(held.clone(), settings::spool(config)).with_context(in_folder)?;
        if let Err(error) = spool.check_room().await {
            warn!("Recordings are refused for now: {error}");
        }
        let access_key = Arc::new(settings::access_key(&folder)?);
        switchboard::recover(&database, &journal, &vault, config.storage.retention).await?;
        database.free_unanswered_requests().await?;
        let purge = Purge::new(database.clone(), vault.clone(), config.storage.retention);
        let cancel = self.outside.clone();
        self.tasks.spawn(async move {
            purge.run(cancel).await;
            "purge"
        });
        let keeper = FolderKeeper::new(database.clone(), vault.clone(), config.storage.retention);
        let cancel = self.outside.clone();
        self.tasks.spawn(async move {
            keeper.run(cancel).await;
            "keeper"
        });
        Ok(Storage { database, journal, spool, vault, folder: held, access_key })
    }

    /// Binds the listener of the API; requests are served only after everything else has started.
    /// Also returns the URL at which clients reach the API.
    pub(super) async fn bind_api(&self) -> anyhow::Result<(TcpListener, String)> {
        let api = &self.config.api;
        let listener = TcpListener::bind(api.listen)
            .await
            .with_context(|| format!("api.listen {}", api.listen))?;
        let scheme = if api.tls() == ApiTls::Plain { "http" } else { "https" };
        let public_url = match api.public_url.trim_end_matches('/') {
            "" => format!("{scheme}://{}", listener.local_addr()?),
            url => url.to_owned(),
        };
        let is_nowhere = api.public_url.is_empty() && api.listen.ip().is_unspecified();
        if is_nowhere && !self.config.applications.is_empty() {
            warn!(
                "api.public_url is empty: bots are told to find calls, clips and keys at \
                 {public_url}, which leads nowhere; set it to our address as they see it"
            );
        }
        Ok((listener, public_url))
    }

    pub(super) fn prompts(&self) -> anyhow::Result<Library> {
        let fetch = &self.config.fetch;
        Ok(Library::new(
            Fetch::new(self.fence.clone(), settings::fetch_limits(fetch)?)?,
            LibraryLimits { memory_bytes: PROMPT_MEMORY, max_duration: fetch.max_duration },
        ))
    }

    /// Opens the SIP listeners.
    pub(super) async fn speak_sip(
        &mut self,
        events: mpsc::Sender<Event>,
    ) -> anyhow::Result<(Signalling, Vec<SipListener>)> {
        let (signalling, listeners, service) =
            signalling::start(settings::signalling(self.config), events, self.outside.clone())
                .await
                .map_err(|error| match error {
                    StartError::Tls(error) => settings::wrong_sip_tls(self.config, error),
                    other => anyhow::Error::new(other).context("sip.listen"),
                })?;
        self.tasks.spawn(async move {
            // An error means that the endpoint's task has panicked, which ends the process, as its
            // normal end does.
            let _ = service.await;
            "signalling"
        });
        Ok((signalling, listeners))
    }

    /// Registers at the trunks with `register`.
    pub(super) fn keep_registered(
        &mut self,
        signalling: &Signalling,
    ) -> anyhow::Result<watch::Sender<Vec<Registrant>>> {
        let (registrants, wanted) = watch::channel(settings::registrants(self.config)?);
        let registering = signalling.clone().keep_registered(wanted, self.outside.clone());
        self.tasks.spawn(async move {
            registering.await;
            "registration"
        });
        Ok(registrants)
    }

    /// Starts the switchboard, which accepts calls from now on.
    pub(super) fn connect(
        &mut self,
        drivers: Drivers,
        routes: watch::Receiver<Arc<Directory>>,
        events: mpsc::Receiver<Event>,
    ) -> Switchboard {
        let rng = StdRng::from_os_rng();
        let limits = settings::limits(self.config);
        settings::tell_room(self.config, &limits);
        let switchboard = Switchboard::new(drivers, limits, routes, rng);
        let answering = switchboard.clone();
        self.tasks.spawn(async move {
            answering.run(events).await;
            "switchboard"
        });
        switchboard
    }

    /// Delivers the notifications of the outbox to the applications.
    pub(super) fn notify(
        &mut self,
        store: Arc<DatabaseStore>,
        issuer: Issuer,
        applications: watch::Receiver<Arc<Directory>>,
    ) -> anyhow::Result<Dispatcher> {
        let config = self.config;
        let client = self.fence.client(config.fetch.connect_timeout, WEBHOOK_TIMEOUT)?;
        let gate: Gate = Arc::new(move |url, connection| {
            client.to(url, connection).cloned().map_err(|error| error.to_string())
        });
        let (dispatcher, delivering) = Dispatcher::start(
            store.database.clone(),
            Webhook::new(gate, WEBHOOK_TIMEOUT),
            renderer(store, &config.api, issuer, applications),
            DispatcherConfig {
                retry_for: config.calls.notification_retry_for,
                ..DispatcherConfig::default()
            },
            self.outside.clone(),
        );
        self.tasks.spawn(async move {
            // An error means that the dispatcher has panicked, which ends the process, as its
            // normal end does.
            let _ = delivering.await;
            "notifications"
        });
        Ok(dispatcher)
    }

    /// Serves the API. The returned sender replaces the certificate; it is `None` for plain HTTP.
    pub(super) fn serve_api(
        &mut self,
        listener: TcpListener,
        state: ApiState,
        issuer: Issuer,
    ) -> anyhow::Result<Option<watch::Sender<Arc<ServerConfig>>>> {
        let (shown, identity) = settings::api_identity(self.config)?.map(watch::channel).unzip();
        let router = api::router(state.clone(), Some(issuer));
        let limits = settings::open_files().map_or_else(ServeLimits::default, ServeLimits::within);
        let cancel = self.outside.clone();
        self.tasks.spawn(async move {
            api::serve(listener, identity, router, limits, cancel).await;
            state.finished().await;
            "api"
        });
        Ok(shown)
    }

    /// Renews keys and certificates that expire. The returned sender passes on a reloaded
    /// configuration.
    pub(super) fn care_for_keys(
        &mut self,
        issuer: Issuer,
        api_tls: Option<watch::Sender<Arc<ServerConfig>>>,
    ) -> watch::Sender<Arc<Config>> {
        let (running, config) = watch::channel(Arc::new(self.config.clone()));
        let cancel = self.outside.clone();
        self.tasks.spawn(care_for_keys(CaredFor { issuer, config, api_tls, cancel }));
        running
    }
}

/// The keys and certificates that expire.
struct CaredFor {
    issuer: Issuer,
    config: watch::Receiver<Arc<Config>>,
    api_tls: Option<watch::Sender<Arc<ServerConfig>>>,
    cancel: CancellationToken,
}

/// Makes sure that there is a valid signing key and a valid development certificate.
async fn care_for_keys(cared_for: CaredFor) -> &'static str {
    let CaredFor { issuer, config, api_tls, cancel } = cared_for;
    while cancel.run_until_cancelled(tokio::time::sleep(KEY_CARE)).await.is_some() {
        if let Err(error) = issuer.turn_over().await {
            error!(%error, "the signing keys could not be looked after");
        }
        let config = config.borrow().clone();
        let Some(shown) = api_tls.as_ref().filter(|_| config.api.tls() == ApiTls::Development)
        else {
            continue;
        };
        match settings::api_identity(&config) {
            Ok(identity) => drop(identity.map(|identity| shown.send_replace(identity))),
            Err(error) => {
                error!(
                    "the development certificate could not be looked after: {}",
                    in_words(&error)
                );
            }
        }
    }
    "signing keys"
}
