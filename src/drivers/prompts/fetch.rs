//! Fetches prompts by HTTP or from a folder, within limits.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use reqwest::{
    Client, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap},
};
use tokio::{sync::Semaphore, task::spawn_blocking};
use tracing::debug;
use url::Url;

use super::{Fence, FenceError, FencedClient, freshness::CachedAnswer};
use crate::drivers::http::{self, Connection};

/// Limits of a fetch.
#[derive(Debug, Clone)]
pub struct FetchLimits {
    /// Time for one connection.
    pub connect_timeout: Duration,
    /// Time for the whole fetch, redirects included.
    pub total_timeout: Duration,
    /// The largest file.
    pub max_bytes: u64,
    /// The folder of `file:` URIs; `None` = not allowed.
    pub prompt_folder: Option<PathBuf>,
}

/// Fetches files; cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetch {
    client: FencedClient,
    limits: FetchLimits,
    /// Permits to read from the folder.
    reads: Arc<Semaphore>,
}

/// The result of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fetched {
    /// The file.
    File {
        /// Its bytes, as received.
        bytes: Vec<u8>,
        /// Its codings, in lower case and in the order in which they were applied.
        codings: Vec<String>,
        /// The `Content-Type` that the server sent.
        content_type: Option<String>,
        /// The answer that the file came with; `None` for a file of the folder.
        answer: Option<CachedAnswer>,
        /// How long it is fresh without a check; zero = check it each time.
        fresh_for: Duration,
    },
    /// The known copy is still valid.
    NotModified {
        /// The answer that the copy came with, updated by the 304.
        answer: CachedAnswer,
        /// How long it is fresh without a check.
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
    /// A `file:` URI, while no folder is configured.
    #[error("file: URIs are not served; set [fetch] prompt_folder to allow them")]
    NoFolder,
    /// A `file:` URI outside of the folder.
    #[error("the file is not below [fetch] prompt_folder")]
    OutsideFolder,
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The connection failed.
    #[error("{host} cannot be reached: {cause}")]
    Connection {
        /// The host.
        host: String,
        /// The innermost cause.
        cause: String,
    },
    /// A redirect to an invalid URL.
    #[error("{host} redirects to an address that cannot be read: {error}")]
    BadTarget {
        /// The host.
        host: String,
        /// What is wrong with the address.
        error: url::ParseError,
    },
    /// A status that is neither a file nor a redirect.
    #[error("{host} answered {status}")]
    Status {
        /// The host.
        host: String,
        /// The status.
        status: StatusCode,
    },
    /// Too many redirects, as in a loop.
    #[error("more than {MAX_REDIRECTS} redirects")]
    Redirects,
    /// A redirect from https to http.
    #[error("{host} redirects from https to http")]
    Downgrade {
        /// The host.
        host: String,
    },
    /// The time limit.
    #[error("it took longer than {}", humantime::format_duration(*.0))]
    TooSlow(Duration),
    /// The size limit.
    #[error("it is larger than {}", bytesize::ByteSize(*.0))]
    TooLarge(u64),
}

const MAX_REDIRECTS: usize = 5;
/// How many threads may read from the folder at a time. The process has 512 blocking threads in
/// all, and one that waits for a disk that does not answer waits for ever.
const READS: usize = 64;

/// One answer of a server.
struct ServerAnswer {
    status: StatusCode,
    headers: HeaderMap,
    received_at: SystemTime,
    /// The target of a redirect, if it has a `Location`.
    target: Option<Result<Url, url::ParseError>>,
    /// The body of a 200; `None` when it is larger than allowed.
    body: Option<Vec<u8>>,
}

impl Fetch {
    /// A fetcher behind a fence.
    ///
    /// # Errors
    /// The TLS library cannot be set up.
    pub fn new(fence: Fence, limits: FetchLimits) -> Result<Self, reqwest::Error> {
        let client = fence.client(limits.connect_timeout, limits.total_timeout)?;
        Ok(Self { client, limits, reads: Arc::new(Semaphore::new(READS)) })
    }

    /// The largest file, packed or not.
    pub(super) fn max_bytes(&self) -> u64 {
        self.limits.max_bytes
    }

    /// Fetches a file, or learns that the copy of the answer `known` is still valid.
    ///
    /// # Errors
    /// Why there is no file, in one sentence.
    pub(super) async fn get(
        &self,
        uri: &str,
        known: Option<&CachedAnswer>,
    ) -> Result<Fetched, FetchError> {
        let url = Url::parse(uri)?;
        let limit = self.limits.total_timeout;
        let work = async {
            match url.scheme() {
                "file" => self.read_file(&url).await,
                _ => self.download(url, known).await,
            }
        };
        tokio::time::timeout(limit, work).await.unwrap_or(Err(FetchError::TooSlow(limit)))
    }

    async fn read_file(&self, url: &Url) -> Result<Fetched, FetchError> {
        let folder = self.limits.prompt_folder.clone().ok_or(FetchError::NoFolder)?;
        let path = url.to_file_path().map_err(|()| FetchError::OutsideFolder)?;
        let limit = self.limits.max_bytes;
        let permit = Arc::clone(&self.reads).acquire_owned().await.map_err(io::Error::other)?;
        let read = spawn_blocking(move || {
            let read = read_inside(&folder, &path, limit);
            drop(permit);
            read
        });
        Ok(Fetched::File {
            bytes: read.await.map_err(io::Error::other)??,
            codings: Vec::new(),
            content_type: None,
            answer: None,
            fresh_for: Duration::ZERO,
        })
    }

    async fn download(
        &self,
        mut url: Url,
        known: Option<&CachedAnswer>,
    ) -> Result<Fetched, FetchError> {
        // How long the redirects up to here are fresh; unlimited without redirects.
        let mut way_is_good_for = Duration::MAX;
        for _ in 0..=MAX_REDIRECTS {
            let host = url.host_str().unwrap_or_default().to_owned();
            let conditions = known.map(|known| known.conditions(&url)).unwrap_or_default();
            let ServerAnswer { status, headers, received_at, target, body } =
                self.answer(&host, &url, &conditions).await?;
            match status {
                StatusCode::OK => {
                    let bytes = body.ok_or(FetchError::TooLarge(self.limits.max_bytes))?;
                    let answer = CachedAnswer::new(url, &headers);
                    let fresh_for = answer.fresh_for(received_at).min(way_is_good_for);
                    return Ok(Fetched::File {
                        bytes,
                        codings: codings(&headers),
                        content_type: content_type(&headers),
                        answer: Some(answer),
                        fresh_for,
                    });
                }
                StatusCode::NOT_MODIFIED => {
                    // Without a condition, a 304 says nothing about the known copy.
                    let known = known.filter(|_| !conditions.is_empty());
                    let known = known.ok_or(FetchError::Status { host, status })?;
                    let answer = known.clone().confirmed(&headers);
                    let fresh_for = answer.fresh_for(received_at).min(way_is_good_for);
                    return Ok(Fetched::NotModified { answer, fresh_for });
                }
                _ if status.is_redirection() => {
                    let target = target.ok_or(FetchError::Status { host: host.clone(), status })?;
                    let target = target
                        .map_err(|error| FetchError::BadTarget { host: host.clone(), error })?;
                    if url.scheme() == "https" && target.scheme() == "http" {
                        return Err(FetchError::Downgrade { host });
                    }
                    way_is_good_for = way_is_good_for.min(match status {
                        StatusCode::MOVED_PERMANENTLY | StatusCode::PERMANENT_REDIRECT => {
                            CachedAnswer::new(url, &headers).redirects_for(received_at)
                        }
                        // RFC 9110 section 15.4: the target may change from one request to the
                        // next.
                        _ => Duration::ZERO,
                    });
                    url = target;
                }
                _ => return Err(FetchError::Status { host, status }),
            }
        }
        Err(FetchError::Redirects)
    }

    /// The answer to a GET. Servers close idle connections without knowing that a request is on its
    /// way: then the request is repeated once on a new connection (RFC 9110 section 9.2.2).
    async fn answer(
        &self,
        host: &str,
        url: &Url,
        conditions: &HeaderMap,
    ) -> Result<ServerAnswer, FetchError> {
        let client = |connection| self.client.to(url, connection);
        let answer = match self.exchange(client(Connection::Kept)?, url, conditions).await {
            Err(error) if http::is_lost_connection(&error) => {
                debug!(host, "Connection lost, the request is repeated");
                self.exchange(client(Connection::New)?, url, conditions).await
            }
            answer => answer,
        };
        answer.map_err(|error| self.connection(host, &error))
    }

    async fn exchange(
        &self,
        client: &Client,
        url: &Url,
        conditions: &HeaderMap,
    ) -> Result<ServerAnswer, reqwest::Error> {
        let request = client.get(url.clone()).headers(conditions.clone());
        let mut response = request.send().await?;
        let (status, received_at) = (response.status(), SystemTime::now());
        let headers = response.headers().clone();
        let target = http::redirect_target(url, &response);
        let mut body = Some(Vec::new());
        if status == StatusCode::OK {
            // `Content-Length` is not trusted: the received bytes are counted.
            while let Some(bytes) = &mut body
                && let Some(piece) = response.chunk().await?
            {
                if (bytes.len() + piece.len()) as u64 > self.limits.max_bytes {
                    body = None
                } else {
                    bytes.extend_from_slice(&piece)
                }
            }
        }
        Ok(ServerAnswer { status, headers, received_at, target, body })
    }

    fn connection(&self, host: &str, error: &reqwest::Error) -> FetchError {
        if let Some(refused) = FenceError::cause_of(error) {
            return refused.into();
        }
        if error.is_timeout() && !error.is_connect() {
            return FetchError::TooSlow(self.limits.total_timeout);
        }
        // The innermost cause is the most specific one.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        FetchError::Connection { host: host.to_owned(), cause: cause.to_string() }
    }
}

/// Reads a file below the folder, of `limit` bytes at most.
fn read_inside(folder: &Path, path: &Path, limit: u64) -> Result<Vec<u8>, FetchError> {
    let folder = fs::canonicalize(folder)?;
    // An absolute path below the folder, or one relative to it.
    let inside = path.strip_prefix("/").unwrap_or(path);
    let path = if path.starts_with(&folder) { path.to_owned() } else { folder.join(inside) };
    // Only the real path counts: `..` and links out of the folder are resolved first.
    let path = fs::canonicalize(path)?;
    if !path.starts_with(&folder) {
        return Err(FetchError::OutsideFolder);
    }
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file").into());
    }
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(FetchError::TooLarge(limit)) } else { Ok(bytes) }
}

/// The codings of `Content-Encoding`, in lower case and in the order in which they were applied.
fn codings(headers: &HeaderMap) -> Vec<String> {
    let lines = headers.get_all(CONTENT_ENCODING).iter();
    let codings = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    codings
        .map(|coding| String::from_utf8_lossy(coding).trim().to_ascii_lowercase())
        .filter(|coding| !coding.is_empty())
        .collect()
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    headers.get(CONTENT_TYPE)?.to_str().ok().map(str::to_owned)
}
