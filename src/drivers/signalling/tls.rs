//! The TLS configurations of SIP: one for peers that connect to us, one for peers that we connect
//! to.
//!
//! Open connections keep the configuration they began with; a reload applies to new ones.

use std::{path::Path, sync::Arc};

use rustls_platform_verifier::Verifier;
use tokio_rustls::rustls::{
    ClientConfig, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
};
use tracing::warn;

use super::settings::TlsFiles;
use crate::drivers::tls::{self, TlsError};
use aftertone_core::proto::sip::path::Transport;

/// The TLS configurations of all handshakes.
#[derive(Debug, Clone)]
pub(super) struct TlsConfigs {
    /// For peers that connect over TLS; `None` without a certificate of ours.
    server: Option<Arc<ServerConfig>>,
    /// The same over secure WebSockets. Browsers have no client certificates, so none is requested.
    web: Option<Arc<ServerConfig>>,
    /// For peers that we connect to; `None` when the system has no trusted authorities.
    pub client: Option<Arc<ClientConfig>>,
}

impl TlsConfigs {
    /// Reads the files.
    ///
    /// # Errors
    /// When one is missing or wrong; then none of them is used.
    pub(super) fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let server = |client_ca: Option<&Path>| {
            let identity = files.identity.as_ref();
            let server = identity.map(|identity| tls::server(&provider, identity, client_ca));
            server.transpose().map(|server| server.map(Arc::new))
        };
        Ok(Self {
            server: server(files.client_ca.as_deref())?,
            web: server(None)?,
            client: client(&provider, files)?.map(Arc::new),
        })
    }

    /// The configuration for peers that connect by this transport.
    pub(super) fn server_of(&self, transport: Transport) -> Option<Arc<ServerConfig>> {
        match transport {
            Transport::Wss => self.web.clone(),
            Transport::Tls => self.server.clone(),
            Transport::Udp | Transport::Tcp | Transport::Ws => None,
        }
    }
}

fn client(
    provider: &Arc<CryptoProvider>,
    files: &TlsFiles,
) -> Result<Option<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?;
    let builder = match &files.server_ca {
        Some(path) => builder.with_root_certificates(tls::roots(path)?),
        None => match Verifier::new(Arc::clone(provider)) {
            Ok(verifier) => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
            Err(error) => {
                warn!(%error, "no TLS connections can be opened");
                return Ok(None);
            }
        },
    };
    let config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(tls::certificates(certificate)?, tls::private_key(key)?)
            .map_err(|source| TlsError::Unusable { path: certificate.clone(), source })?,
    };
    Ok(Some(config))
}
