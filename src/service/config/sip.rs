//! `[sip]`, `[[users]]` and `[[trunks]]`.

use std::{fmt, net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::Deserialize;

use super::{
    ConfigError,
    error::contradiction,
    values::{
        SipListener, TrunkTransport, WebOrigin, digest_algorithms, networks, path, transport,
    },
};
use aftertone_core::proto::{sdp::SrtpPolicy, sip::digest::Algorithm};

/// SIP listeners, and access rights of callers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SipConfig {
    /// The SIP listeners.
    pub listen: Vec<SipListener>,
    /// Our public IP address, or `auto`.
    pub advertised_address: String,
    /// Realm of our challenges and domain of our users; empty = our address.
    pub domain: String,
    /// Digest algorithms that our challenges offer.
    #[serde(deserialize_with = "digest_algorithms")]
    pub digest: Vec<Algorithm>,
    /// PEM file of our certificate with its chain.
    #[serde(deserialize_with = "path")]
    pub tls_certificate: Option<PathBuf>,
    /// PEM file of the certificate's private key.
    #[serde(deserialize_with = "path")]
    pub tls_key: Option<PathBuf>,
    /// PEM file of the CA for client certificates; without it, clients are not asked for one.
    #[serde(deserialize_with = "path")]
    pub tls_client_ca: Option<PathBuf>,
    /// PEM file of the CA for server certificates; without it, the CAs of the system count.
    #[serde(deserialize_with = "path")]
    pub tls_server_ca: Option<PathBuf>,
    /// Networks of peers that may call any route.
    #[serde(deserialize_with = "networks")]
    pub trusted_peers: Vec<IpNet>,
    /// Origins of web pages that may use SIP over WebSocket; empty = any page may try.
    pub web_origins: Vec<WebOrigin>,
    /// Whether strangers may call public routes.
    pub anonymous_calls: bool,
}

impl SipConfig {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.listen.is_empty() {
            return contradiction("sip.listen", "at least one listener is needed");
        }
        self.check_certificate()?;
        let advertised = &self.advertised_address;
        if advertised != "auto" && advertised.parse::<IpAddr>().is_err() {
            let message = format!("{advertised:?} is neither \"auto\" nor an IP address");
            return contradiction("sip.advertised_address", message);
        }
        if self.digest.is_empty() {
            return contradiction("sip.digest", "at least one algorithm is needed");
        }
        Ok(())
    }

    fn check_certificate(&self) -> Result<(), ConfigError> {
        let is_secure = self.listen.iter().any(|listener| listener.transport.is_secure());
        match (&self.tls_certificate, &self.tls_key) {
            (None, Some(_)) => {
                contradiction("sip.tls_certificate", "sip.tls_key needs its certificate")
            }
            (Some(_), None) => contradiction("sip.tls_key", "sip.tls_certificate needs its key"),
            (None, None) if is_secure => contradiction(
                "sip.tls_certificate",
                "a tls or wss listener needs a certificate and its key",
            ),
            _ if self.tls_client_ca.is_some() && !is_secure => contradiction(
                "sip.tls_client_ca",
                "only a tls or wss listener can ask for certificates",
            ),
            _ => Ok(()),
        }
    }

    /// The keys that differ from those of the running daemon and that a reload does not change.
    pub(super) fn needing_restart(&self, running: &Self) -> Vec<&'static str> {
        let Self {
            listen,
            advertised_address,
            domain,
            digest,
            web_origins,
            tls_certificate: _,
            tls_key: _,
            tls_client_ca: _,
            tls_server_ca: _,
            trusted_peers: _,
            anonymous_calls: _,
        } = self;
        let fixed = [
            ("sip.listen", *listen == running.listen),
            ("sip.advertised_address", *advertised_address == running.advertised_address),
            ("sip.domain", *domain == running.domain),
            ("sip.web_origins", *web_origins == running.web_origins),
            ("sip.digest", *digest == running.digest),
        ];
        fixed.into_iter().filter(|(_, is_same)| !is_same).map(|(key, _)| key).collect()
    }
}

/// A user, with phones that may register and call.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserConfig {
    /// User part of the user's address.
    pub name: String,
    /// Password for digest authentication.
    #[serde(default)]
    pub password: String,
    /// File with the password.
    #[serde(default)]
    pub(super) password_file: Option<PathBuf>,
    /// Whether audio is encrypted; without it, as in `[media]`.
    #[serde(default)]
    pub srtp: Option<SrtpPolicy>,
}

impl fmt::Debug for UserConfig {
    /// Omits the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

impl UserConfig {
    /// Checks the user beside those before it.
    pub(super) fn check(&self, earlier: &[Self]) -> Result<(), ConfigError> {
        if self.name.is_empty() || earlier.iter().any(|other| other.name == self.name) {
            let message = format!("{:?} is empty or there twice", self.name);
            return contradiction("users.name", message);
        }
        if self.password.is_empty() {
            let message = format!("{:?} needs a password or a password_file", self.name);
            return contradiction("users.password", message);
        }
        Ok(())
    }
}

/// A provider or PBX that carries outgoing calls.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrunkConfig {
    /// Its name in logs.
    pub name: String,
    /// Host of the trunk, with a port if DNS does not give it. This is the domain of called
    /// numbers.
    pub host: String,
    /// Transport of requests; without it, DNS says (RFC 3263).
    #[serde(default, deserialize_with = "transport")]
    pub transport: Option<TrunkTransport>,
    /// Host of the outbound proxy; empty = requests go to `host`.
    #[serde(default)]
    pub outbound_proxy: String,
    /// User name for digest authentication and registration.
    #[serde(default)]
    pub username: String,
    /// Password for digest authentication.
    #[serde(default)]
    pub password: String,
    /// File with the password.
    #[serde(default)]
    pub(super) password_file: Option<PathBuf>,
    /// Realm of the trunk's challenges; empty = `host`.
    #[serde(default)]
    pub realm: String,
    /// Whether we register at the trunk.
    #[serde(default)]
    pub register: bool,
    /// User part of From; empty = `username`, or anonymous if that is empty too.
    #[serde(default)]
    pub caller: String,
    /// User part of P-Asserted-Identity (RFC 3325); empty = the header is not sent.
    #[serde(default)]
    pub asserted_identity: String,
    /// Numbers and addresses that may be called; `*` and `?` match as in a shell.
    pub allow: Vec<String>,
    /// Whether a call follows the Contacts in a 3xx of the trunk, as far as `allow` permits.
    #[serde(default)]
    pub follow_redirects: bool,
    /// Maximum number of simultaneous calls; 0 = no limit.
    #[serde(default)]
    pub max_calls: usize,
    /// Whether audio is encrypted; without it, as in `[media]`.
    #[serde(default)]
    pub srtp: Option<SrtpPolicy>,
}

impl fmt::Debug for TrunkConfig {
    /// Omits the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrunkConfig")
            .field("name", &self.name)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl TrunkConfig {
    /// Checks the trunk beside those before it.
    pub(super) fn check(&self, earlier: &[Self]) -> Result<(), ConfigError> {
        let is_host = |host: &str| !host.is_empty() && !host.contains(['@', ';', ' ', '/', '<']);
        if self.name.is_empty() || earlier.iter().any(|other| other.name == self.name) {
            let message = format!("{:?} is empty or there twice", self.name);
            return contradiction("trunks.name", message);
        }
        if !is_host(&self.host) {
            return contradiction("trunks.host", format!("{:?} is no host", self.host));
        }
        if !self.outbound_proxy.is_empty() && !is_host(&self.outbound_proxy) {
            let message = format!("{:?} is no host", self.outbound_proxy);
            return contradiction("trunks.outbound_proxy", message);
        }
        if self.register && self.username.is_empty() {
            return contradiction("trunks.register", "needs trunks.username");
        }
        Ok(())
    }
}
