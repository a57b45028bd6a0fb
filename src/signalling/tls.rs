//! Certificates: what we show, and whom we believe.
//!
//! Comes in: PEM files. Goes out: what a handshake needs, one for those who connect and one for those
//! whom we connect to. Connections that are up keep what they began with; a reload counts for new
//! ones.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls_platform_verifier::Verifier;
use tokio_rustls::rustls::{
    self, ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::WebPkiClientVerifier,
};
use tracing::warn;

use super::settings::TlsFiles;

/// What handshakes need.
#[derive(Debug, Clone)]
pub(super) struct TlsConfigs {
    /// For those who connect; `None` without a certificate of ours.
    pub server: Option<Arc<ServerConfig>>,
    /// For those whom we connect to; `None` when there is nobody whom the system trusts.
    pub client: Option<Arc<ClientConfig>>,
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file is not there, or holds no PEM of this kind.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The file holds no certificate.
    #[error("{path}: there is no certificate in it")]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// Key and certificate do not go together, or are of a kind that TLS does not take.
    #[error("{path}: {source}")]
    Unusable {
        /// The file of the certificate.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// Nobody can be verified with these certificates.
    #[error("{path}: {source}")]
    Verifier {
        /// The file of the certificates.
        path: PathBuf,
        /// What is wrong with them.
        source: rustls::server::VerifierBuilderError,
    },
    /// The one crypto provider does not know the versions of TLS; a fault of the build.
    #[error("the TLS versions are not available: {0}")]
    Versions(rustls::Error),
}

impl TlsConfigs {
    /// Reads the files.
    ///
    /// # Errors
    /// When one is missing or wrong; nothing is used then.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let server = match &files.identity {
            Some(identity) => Some(Arc::new(server(&provider, identity, files)?)),
            None => None,
        };
        Ok(Self { server, client: client(&provider, files)?.map(Arc::new) })
    }
}

fn server(
    provider: &Arc<CryptoProvider>,
    (certificate, key): &(PathBuf, PathBuf),
    files: &TlsFiles,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(roots(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
                .build()
                .map_err(|source| TlsError::Verifier { path: path.clone(), source })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder
        .with_single_cert(certificates(certificate)?, private_key(key)?)
        .map_err(|source| TlsError::Unusable { path: certificate.clone(), source })
}

fn client(
    provider: &Arc<CryptoProvider>,
    files: &TlsFiles,
) -> Result<Option<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?;
    let builder = match &files.server_ca {
        Some(path) => builder.with_root_certificates(roots(path)?),
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
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|source| TlsError::Unusable { path: certificate.clone(), source })?,
    };
    Ok(Some(config))
}

fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|source| TlsError::Unusable { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::File { path: path.to_owned(), source };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    match certificates.is_empty() {
        true => Err(TlsError::Empty { path: path.to_owned() }),
        false => Ok(certificates),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|source| TlsError::File { path: path.to_owned(), source })
}
