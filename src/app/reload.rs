//! SIGHUP: what can change while calls are up does; of the rest it is said that it cannot.

use std::{path::Path, sync::Arc};

use tracing::{error, info, warn};

use super::{Daemon, api_identity, credentials, tls_files, users};
use crate::{config::Config, switchboard::Directory, telemetry::LogLevel};

/// Reads the configuration again, and the certificates. If one of them is wrong, nothing changes but
/// the log level.
pub(super) async fn reload(daemon: &Daemon, file: Option<&Path>, running: &Config, log: &LogLevel) {
    let config = match Config::load(file, std::env::vars()) {
        Ok(config) => config,
        Err(error) => {
            error!(%error, "The configuration was not reloaded");
            return;
        }
    };
    if let Err(error) = log.set(&config.telemetry.log) {
        error!(%error, "The configuration was not reloaded");
        return;
    }
    let identity = match api_identity(&config) {
        Ok(identity) => identity,
        Err(error) => {
            error!(error = format!("{error:#}"), "The configuration was not reloaded");
            return;
        }
    };
    if let Err(error) = daemon.signalling.reload_tls(&tls_files(&config)) {
        error!(%error, "The configuration was not reloaded");
        return;
    }
    let credentials = match credentials(&config, &daemon.access_key, &daemon.issuer) {
        Ok(credentials) => credentials,
        Err(error) => {
            error!(error = format!("{error:#}"), "The configuration was not reloaded");
            return;
        }
    };
    // Between HTTP and HTTPS only a restart leads.
    if let (Some(shown), Some(identity)) = (&daemon.api_tls, identity) {
        shown.send_replace(identity);
    }
    daemon.signalling.set_users(users(&config)).await;
    daemon.signalling.trust(config.sip.trusted_peers.clone());
    daemon.directory.send_replace(Arc::new(Directory::new(&config)));
    daemon.credentials.send_replace(Arc::new(credentials));
    info!("Reloaded: applications, routes, users, trunks, certificates, trusted peers, log level");
    for (section, is_same) in [
        ("sip.listen", config.sip.listen == running.sip.listen),
        ("sip.advertised_address", config.sip.advertised_address == running.sip.advertised_address),
        ("sip.domain", config.sip.domain == running.sip.domain),
        ("sip.digest", config.sip.digest == running.sip.digest),
        ("media", same(&config.media, &running.media)),
        ("api", same(&config.api, &running.api)),
        ("storage", same(&config.storage, &running.storage)),
        ("fetch", same(&config.fetch, &running.fetch)),
        ("calls", same(&config.calls, &running.calls)),
        ("telemetry.format", config.telemetry.format == running.telemetry.format),
    ] {
        if !is_same {
            warn!("[{section}] has changed; that takes a restart");
        }
    }
}

fn same<T: std::fmt::Debug>(left: &T, right: &T) -> bool {
    format!("{left:?}") == format!("{right:?}")
}
