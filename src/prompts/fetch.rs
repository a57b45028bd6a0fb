//! Prompts by HTTP or from a folder, within limits.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::{
    Response, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH,
        LAST_MODIFIED, LOCATION,
    },
};
use tokio::io::AsyncReadExt;
use url::Url;

use super::{Fence, FenceError, FencedClient};

/// What a fetch may cost.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// For one connection.
    pub connect_timeout: Duration,
    /// For all of it, redirects included.
    pub total_timeout: Duration,
    /// The largest file.
    pub max_bytes: u64,
    /// Where `file:` URIs live; `None` = nowhere.
    pub prompt_folder: Option<PathBuf>,
}

/// Fetches files; cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetch {
    client: FencedClient,
    limits: FetchLimits,
}

/// How a copy can be checked later.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validators {
    etag: Option<String>,
    last_modified: Option<String>,
}

/// What a fetch brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// The file.
    File {
        /// Its bytes.
        bytes: Vec<u8>,
        /// What the server says it is.
        content_type: Option<String>,
        /// How to check it later.
        validators: Validators,
        /// How long it is good without a check; zero = check it each time.
        fresh_for: Duration,
        /// Whether it may be kept at all.
        may_store: bool,
    },
    /// The copy that the validators are of is still good.
    NotModified {
        /// How long it is good without a check.
        fresh_for: Duration,
    },
}

/// Why there is no file. One sentence each, for the author of the bot.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not a URI.
    #[error("the URI cannot be read: {0}")]
    BadUri(#[from] url::ParseError),
    /// An address that may not be reached.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// `file:` without a folder for it.
    #[error("file: URIs are not served; set [fetch] prompt_folder to allow them")]
    NoFolder,
    /// `file:` outside of the folder.
    #[error("the file is not below [fetch] prompt_folder")]
    OutsideFolder,
    /// The file.
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The connection.
    #[error("{host} cannot be reached: {cause}")]
    Connection {
        /// The host.
        host: String,
        /// The innermost cause.
        cause: String,
    },
    /// Neither a file nor a redirect.
    #[error("{host} answered {status}")]
    Status {
        /// The host.
        host: String,
        /// What it answered.
        status: StatusCode,
    },
    /// Round in circles, or to where nobody should go.
    #[error("more than {MAX_REDIRECTS} redirects")]
    Redirects,
    /// From https to http.
    #[error("{host} redirects from https to http")]
    Downgrade {
        /// The host.
        host: String,
    },
    /// The limits.
    #[error("it took longer than {}", humantime::format_duration(*.0))]
    TooSlow(Duration),
    /// The limits.
    #[error("it is larger than {}", bytesize::ByteSize(*.0))]
    TooLarge(u64),
}

const MAX_REDIRECTS: usize = 5;
/// A copy is not trusted for longer than a day, whatever its server says.
const MAX_FRESH: Duration = Duration::from_secs(24 * 3600);

impl Fetch {
    /// A fetcher behind a fence.
    ///
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn new(fence: Fence, limits: FetchLimits) -> Result<Self, reqwest::Error> {
        let client = fence.client(limits.connect_timeout, limits.total_timeout)?;
        Ok(Self { client, limits })
    }

    /// Brings a file, or word that the copy with these validators is still good.
    ///
    /// # Errors
    /// Why there is none, in one sentence.
    pub async fn get(&self, uri: &str, validators: &Validators) -> Result<Fetched, FetchError> {
        let url = Url::parse(uri)?;
        let limit = self.limits.total_timeout;
        let work = async {
            match url.scheme() {
                "file" => self.read_file(&url).await,
                _ => self.download(url, validators).await,
            }
        };
        tokio::time::timeout(limit, work).await.unwrap_or(Err(FetchError::TooSlow(limit)))
    }

    async fn read_file(&self, url: &Url) -> Result<Fetched, FetchError> {
        let folder = self.limits.prompt_folder.as_deref().ok_or(FetchError::NoFolder)?;
        let path = url.to_file_path().map_err(|()| FetchError::OutsideFolder)?;
        let folder = tokio::fs::canonicalize(folder).await?;
        // An absolute path below the folder, or one that counts from it.
        let inside = path.strip_prefix("/").unwrap_or(&path);
        let path = if path.starts_with(&folder) { path.clone() } else { folder.join(inside) };
        // Only the real path counts: `..` and links out of the folder are resolved first.
        let path = tokio::fs::canonicalize(path).await?;
        if !path.starts_with(&folder) {
            return Err(FetchError::OutsideFolder);
        }
        Ok(Fetched::File {
            bytes: self.read_limited(&path).await?,
            content_type: None,
            validators: Validators::default(),
            fresh_for: Duration::ZERO,
            may_store: true,
        })
    }

    async fn read_limited(&self, path: &Path) -> Result<Vec<u8>, FetchError> {
        let file = tokio::fs::File::open(path).await?;
        if !file.metadata().await?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file").into());
        }
        let mut bytes = Vec::new();
        let limit = self.limits.max_bytes;
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).await?;
        if bytes.len() as u64 > limit { Err(FetchError::TooLarge(limit)) } else { Ok(bytes) }
    }

    async fn download(&self, mut url: Url, validators: &Validators) -> Result<Fetched, FetchError> {
        for _ in 0..=MAX_REDIRECTS {
            let host = url.host_str().unwrap_or_default().to_owned();
            let mut request = self.client.to(&url)?.get(url.clone());
            if let Some(etag) = &validators.etag {
                request = request.header(IF_NONE_MATCH, etag);
            }
            if let Some(date) = &validators.last_modified {
                request = request.header(IF_MODIFIED_SINCE, date);
            }
            let response = request.send().await.map_err(|error| self.connection(&host, &error))?;
            let status = response.status();
            if status == StatusCode::NOT_MODIFIED {
                return Ok(Fetched::NotModified { fresh_for: freshness(response.headers()).0 });
            }
            if status.is_redirection() {
                let next = header(response.headers(), LOCATION)
                    .ok_or(FetchError::Status { host: host.clone(), status })?;
                let next = url.join(&next)?;
                if url.scheme() == "https" && next.scheme() == "http" {
                    return Err(FetchError::Downgrade { host });
                }
                url = next;
                continue;
            }
            if status != StatusCode::OK {
                return Err(FetchError::Status { host, status });
            }
            return self.read_body(&host, response).await;
        }
        Err(FetchError::Redirects)
    }

    async fn read_body(&self, host: &str, mut response: Response) -> Result<Fetched, FetchError> {
        let limit = self.limits.max_bytes;
        let (fresh_for, may_store) = freshness(response.headers());
        let content_type = header(response.headers(), CONTENT_TYPE);
        let validators = Validators {
            etag: header(response.headers(), ETAG),
            last_modified: header(response.headers(), LAST_MODIFIED),
        };
        // What the server says of the length is not believed: what comes is counted.
        let mut bytes = Vec::new();
        while let Some(piece) =
            response.chunk().await.map_err(|error| self.connection(host, &error))?
        {
            if (bytes.len() + piece.len()) as u64 > limit {
                return Err(FetchError::TooLarge(limit));
            }
            bytes.extend_from_slice(&piece);
        }
        Ok(Fetched::File { bytes, content_type, validators, fresh_for, may_store })
    }

    fn connection(&self, host: &str, error: &reqwest::Error) -> FetchError {
        if let Some(refused) = FenceError::cause_of(error) {
            return refused.into();
        }
        if error.is_timeout() && !error.is_connect() {
            return FetchError::TooSlow(self.limits.total_timeout);
        }
        // The innermost cause is the one that says something.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        FetchError::Connection { host: host.to_owned(), cause: cause.to_string() }
    }
}

impl Validators {
    /// Whether a copy can be checked at all.
    pub fn is_empty(&self) -> bool {
        self.etag.is_none() && self.last_modified.is_none()
    }
}

/// How long a response is good without a check, and whether it may be kept (RFC 9111).
fn freshness(headers: &HeaderMap) -> (Duration, bool) {
    let control = header(headers, CACHE_CONTROL).unwrap_or_default().to_ascii_lowercase();
    let mut directives = control.split(',').map(str::trim);
    if directives.clone().any(|directive| directive == "no-store") {
        return (Duration::ZERO, false);
    }
    if directives.clone().any(|directive| directive == "no-cache") {
        return (Duration::ZERO, true);
    }
    let seconds = directives
        .find_map(|directive| directive.strip_prefix("max-age=")?.trim_matches('"').parse().ok());
    (Duration::from_secs(seconds.unwrap_or(0)).min(MAX_FRESH), true)
}

fn header(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}
