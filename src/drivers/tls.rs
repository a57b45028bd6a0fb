//! Certificates and keys: loads PEM files for handshakes, and makes a development certificate.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio_rustls::rustls::{
    self, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::WebPkiClientVerifier,
};

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file does not exist, or holds no PEM of this kind.
    #[error("{path}: {}", unread(source))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The file holds no certificate.
    #[error("{path}: there is no certificate in it")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Key and certificate do not match, or are of a kind that TLS does not support.
    #[error("{path}: {}", unused(source))]
    Unusable {
        /// The file of the certificate.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// No peer can be verified with these certificates.
    #[error("{path}: {source}")]
    Verifier {
        /// The file of the certificates.
        path: PathBuf,
        /// What is wrong with them.
        source: rustls::server::VerifierBuilderError,
    },
    /// A development certificate cannot be made or stored.
    #[error("no development certificate in {folder}: {cause}")]
    Development {
        /// The folder for it.
        folder: PathBuf,
        /// The cause.
        cause: String,
    },
    /// The crypto provider does not know the versions of TLS; a fault of the build.
    #[error("the TLS versions are not available: {0}")]
    Versions(rustls::Error),
}

impl TlsError {
    /// The file that is wrong, if it is one of the configuration.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::File { path, .. }
            | Self::Empty { path }
            | Self::Unusable { path, .. }
            | Self::Verifier { path, .. } => Some(path),
            Self::Development { .. } | Self::Versions(_) => None,
        }
    }
}

fn unread(cause: &pem::Error) -> String {
    match cause {
        pem::Error::Io(cause) => cause.to_string(),
        pem::Error::NoItemsFound => "there is no key in it".to_owned(),
        other => other.to_string(),
    }
}

fn unused(cause: &rustls::Error) -> String {
    match cause {
        rustls::Error::InconsistentKeys(_) => "the key is not that of the certificate".to_owned(),
        other => other.to_string(),
    }
}

/// The files of a development certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Development {
    /// The authority that clients have to trust.
    pub authority: PathBuf,
    /// Certificate and key.
    pub identity: (PathBuf, PathBuf),
}

/// Validity of a development certificate.
const GOOD_FOR: Duration = Duration::from_secs(397 * 24 * 3600);
/// Age after which it is made anew.
const RENEWED_AFTER: Duration = Duration::from_secs(300 * 24 * 3600);

/// The configuration of a server that requests no client certificate.
///
/// # Errors
/// A file is missing or wrong.
pub fn simple_server(identity: &(PathBuf, PathBuf)) -> Result<Arc<ServerConfig>, TlsError> {
    server(&Arc::new(aws_lc_rs::default_provider()), identity, None).map(Arc::new)
}

/// The configuration of a server with this certificate and key. If there is a `client_ca`, clients
/// need a certificate that it has issued.
///
/// # Errors
/// A file is missing or wrong.
pub fn server(
    provider: &Arc<CryptoProvider>,
    (certificate, key): &(PathBuf, PathBuf),
    client_ca: Option<&Path>,
) -> Result<ServerConfig, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Versions)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(roots(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
                .build()
                .map_err(|source| TlsError::Verifier { path: path.to_owned(), source })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    builder
        .with_single_cert(certificates(certificate)?, private_key(key)?)
        .map_err(|source| TlsError::Unusable { path: certificate.clone(), source })
}

/// The authorities in a file.
///
/// # Errors
/// The file is missing or wrong.
pub fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|source| TlsError::Unusable { path: path.to_owned(), source })?;
    }
    Ok(roots)
}

/// The certificates in a file.
///
/// # Errors
/// The file is missing or wrong.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::File { path: path.to_owned(), source };
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    if certificates.is_empty() {
        Err(TlsError::Empty { path: path.to_owned() })
    } else {
        Ok(certificates)
    }
}

/// The key in a file.
///
/// # Errors
/// The file is missing or wrong.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|source| TlsError::File { path: path.to_owned(), source })
}

/// A certificate for these hosts, issued by an authority made for this purpose; the private key of
/// the authority is not kept. The certificate is kept in `folder`, and made anew when it is old or
/// the hosts have changed.
///
/// # Errors
/// It cannot be made or written, or the folder does not exist.
pub fn development(folder: &Path, hosts: &[String]) -> Result<Development, TlsError> {
    let development = Development {
        authority: folder.join(".development-ca.pem"),
        identity: (folder.join(".development.pem"), folder.join(".development.key")),
    };
    let title = format!("aftertone, for development: {}\n", hosts.join(" "));
    if is_current(&development.identity.0, &title) {
        return Ok(development);
    }
    let failed = |cause: String| TlsError::Development { folder: folder.to_owned(), cause };
    let made = make(hosts).map_err(|error| failed(error.to_string()))?;
    let (certificate, key) = &development.identity;
    // The certificate is written last: if it exists, all files exist.
    let files = [
        (&development.authority, made.authority),
        (key, made.key),
        (certificate, format!("{title}{}", made.certificate)),
    ];
    for (path, text) in files {
        write_private(path, &text).map_err(|error| failed(error.to_string()))?;
    }
    Ok(development)
}

struct Made {
    authority: String,
    certificate: String,
    key: String,
}

fn make(hosts: &[String]) -> Result<Made, rcgen::Error> {
    let until = SystemTime::now() + GOOD_FOR;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "aftertone development");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.not_after = until.into();
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let mut params = CertificateParams::new(hosts)?;
    params.use_authority_key_identifier_extension = true;
    params.not_after = until.into();
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority)?;
    Ok(Made {
        authority: authority.pem(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn is_current(certificate: &Path, title: &str) -> bool {
    let made_at = fs::metadata(certificate).and_then(|metadata| metadata.modified());
    let age = made_at.ok().and_then(|at| at.elapsed().ok());
    age.is_some_and(|age| age < RENEWED_AFTER)
        && fs::read_to_string(certificate).is_ok_and(|text| text.starts_with(title))
}

fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let options = &mut fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_development_certificate_stays_until_the_hosts_change() {
        let folder = tempfile::tempdir().unwrap();
        let hosts =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let read = |hosts: &[String]| {
            let made = development(folder.path(), hosts).unwrap();
            simple_server(&made.identity).unwrap();
            assert_eq!(certificates(&made.authority).unwrap().len(), 1);
            fs::read_to_string(&made.identity.0).unwrap()
        };
        let first = read(&hosts(&["localhost", "127.0.0.1"]));
        assert_eq!(read(&hosts(&["localhost", "127.0.0.1"])), first);
        let second = read(&hosts(&["localhost", "pbx.example"]));
        assert_ne!(second, first);
        assert!(!first.contains("PRIVATE KEY"));
    }
}
