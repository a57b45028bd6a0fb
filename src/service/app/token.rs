//! `aftertone token`: a bearer token for an operator who can read the daemon's key. This command
//! creates no key: a token is valid only if the daemon has its key.

use std::{
    io,
    path::{Path, PathBuf, absolute},
    time::{Duration, SystemTime},
};

use crate::{
    drivers::{recordings::AccessKey, tokens::LocalKey},
    service::config::Config,
};
use aftertone_core::model::{UnixMillis, role};

/// Why no token can be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The configuration has no such application.
    #[error("there is no application {name:?}; {there}")]
    NoApplication {
        /// The requested name.
        name: String,
        /// The file that was read, and its applications.
        there: String,
    },
    /// The application does not have this role.
    #[error("the application {application:?} has no role {role:?}; it has: {has}")]
    NoRole {
        /// Name of the application.
        application: String,
        /// The requested role.
        role: String,
        /// The roles in the configuration.
        has: String,
    },
    /// The folder has no key of a daemon.
    #[error(
        "there is no key in {}; start the daemon first, or run this in the folder that it runs in \
         (as a service: /var/lib/aftertone)",
        folder.display()
    )]
    NoKey {
        /// The folder of the key.
        folder: PathBuf,
    },
    /// The key may exist, but we may not read it.
    #[error("cannot read the key in {}: {source}; run this as the daemon's user", folder.display())]
    Unreadable {
        /// The folder of the key.
        folder: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The library failed to sign the token.
    #[error("the token cannot be signed: {0}")]
    Unsigned(#[from] jsonwebtoken::errors::Error),
}

/// Makes a bearer token for an application in the configuration, with all of its roles or the given
/// ones.
///
/// # Errors
/// The application does not exist or lacks a role, or there is no key to sign with.
pub fn mint_token(
    config: &Config,
    application: &str,
    roles: &[String],
    ttl: Duration,
) -> Result<String, MintError> {
    let known = config.applications.iter().find(|known| known.name == application);
    let known = known.ok_or_else(|| MintError::NoApplication {
        name: application.to_owned(),
        there: applications_there(config),
    })?;
    let has = |role: &&String| known.roles.iter().any(|its| role::is_same(its, role));
    if let Some(role) = roles.iter().find(|role| !has(role)) {
        return Err(MintError::NoRole {
            application: application.to_owned(),
            role: role.clone(),
            has: known.roles.join(", "),
        });
    }
    let roles = if roles.is_empty() { &known.roles } else { roles };
    let key = access_key(&config.storage.recordings)?;
    let now = UnixMillis::from(SystemTime::now());
    Ok(LocalKey::new(&key.signing_secret()).mint(&known.id, roles, ttl, now)?)
}

fn applications_there(config: &Config) -> String {
    let names: Vec<&str> = config.applications.iter().map(|known| known.name.as_str()).collect();
    match (&config.file, names.is_empty()) {
        (None, _) => "no configuration file was read; name it with --config".to_owned(),
        (Some(file), true) => format!("{} has none", file.display()),
        (Some(file), false) => format!("{} has: {}", file.display(), names.join(", ")),
    }
}

fn access_key(folder: &Path) -> Result<AccessKey, MintError> {
    AccessKey::load(folder).map_err(|source| {
        let folder = absolute(folder).unwrap_or_else(|_| folder.to_owned());
        match source.kind() {
            io::ErrorKind::NotFound => MintError::NoKey { folder },
            _ => MintError::Unreadable { folder, source },
        }
    })
}
