//! SIGHUP: applies the settings that can change during calls, and logs which others need a restart.

use std::{path::Path, sync::Arc};

use tracing::{error, info, warn};

use super::{
    Daemon, in_words,
    settings::{
        api_identity, check_callbacks, credentials, fence, registrants, tls_files, users,
        wrong_sip_tls,
    },
};
use crate::service::{config::Config, switchboard::Directory, telemetry::LogLevel};

/// Reads the configuration and the certificates again. If one of them is invalid, nothing changes.
pub(super) async fn reload(daemon: &Daemon, file: Option<&Path>, running: &Config, log: &LogLevel) {
    let config = match Config::load(file, std::env::vars()) {
        Ok(config) => config,
        Err(error) => {
            error!(%error, "The configuration was not reloaded");
            return;
        }
    };
    if let Err(error) = take(daemon, &config, running, log).await {
        error!("The configuration was not reloaded: {}", in_words(&error));
        return;
    }
    info!("Reloaded: applications, routes, users, trunks, certificates, trusted peers, log level");
    for key in config.needing_restart(running) {
        warn!("[{key}] has changed; that takes a restart");
    }
}

/// Applies all changes, or none.
async fn take(
    daemon: &Daemon,
    config: &Config,
    running: &Config,
    log: &LogLevel,
) -> anyhow::Result<()> {
    // Changed limits on targets need a restart, so the running ones apply.
    check_callbacks(config, &fence(&running.fetch))?;
    let filter = LogLevel::read(&config.telemetry.log)?;
    let identity = api_identity(config)?;
    let credentials = credentials(config, &daemon.access_key, &daemon.issuer)?;
    let registrants = registrants(config)?;
    // This is the last step that can fail, and a failure changes nothing.
    let reloaded = daemon.signalling.reload_tls(&tls_files(config));
    reloaded.map_err(|error| wrong_sip_tls(config, error))?;
    log.set(filter);
    // Switching between HTTP and HTTPS needs a restart.
    if let (Some(shown), Some(identity)) = (&daemon.api_tls, identity) {
        shown.send_replace(identity);
    }
    daemon.signalling.set_users(users(config)).await;
    daemon.signalling.trust(config.sip.trusted_peers.clone()).await;
    daemon.registrants.send_replace(registrants);
    daemon.directory.send_replace(Arc::new(Directory::new(config)));
    daemon.credentials.send_replace(Arc::new(credentials));
    daemon.running.send_replace(Arc::new(config.clone()));
    Ok(())
}
