//! `aftertone token`: a bearer token for whoever can read what the daemon keeps. Nothing is made here: a
//! key that the daemon does not have opens nothing.

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

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The configuration knows no such application.
    #[error("there is no application {name:?}; {there}")]
    NoApplication {
        /// What was asked for.
        name: String,
        /// Which file was read, and which applications are there.
        there: String,
    },
    /// The application has not this role.
    #[error("the application {application:?} has no role {role:?}; it has: {has}")]
    NoRole {
        /// Its name.
        application: String,
        /// What was asked for.
        role: String,
        /// The roles of the configuration.
        has: String,
    },
    /// No daemon has made a key there.
    #[error(
        "there is no key in {}; start the daemon first, or run this in the folder that it runs in \
         (as a service: /var/lib/aftertone)",
        folder.display()
    )]
    NoKey {
        /// Where it was looked for.
        folder: PathBuf,
    },
    /// There is a key, perhaps, but not for us.
    #[error("cannot read the key in {}: {source}; run this as the daemon's user", folder.display())]
    Unreadable {
        /// Where it was looked for.
        folder: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A fault of the library.
    #[error("the token cannot be signed: {0}")]
    Unsigned(#[from] jsonwebtoken::errors::Error),
}

/// Makes a bearer token for an application of the configuration, with all of its roles or with these.
///
/// # Errors
/// There is no such application, it has not such a role, or there is no key to sign with.
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
