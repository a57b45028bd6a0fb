//! Decoded prompts in memory: a prompt that was fetched is fetched again only when needed.
//!
//! Each application has its own entries. A prompt with a `resourceId` is kept under it until
//! another URI comes with the same id; a prompt without one is kept as HTTP caching allows
//! (interface section 6.3). Of several requests for one prompt, one fetches and the others wait for
//! it: they share its result, also a failure. Requests for different prompts never wait for each
//! other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use super::{
    BUNDLED_PREFIX, Fetch, FetchError, bundled,
    cache::{CachedPrompt, PromptCache, PromptKey, PromptName},
    fetch::Fetched,
    freshness::CachedAnswer,
    unpack::{UnpackError, unpacked},
};
use aftertone_core::{
    audio::{Clip, wav},
    model::{PromptFailure, PromptFailureKind, PromptSource},
};

/// Limits of the library.
#[derive(Debug, Clone, Copy)]
pub struct LibraryLimits {
    /// Memory for decoded prompts, in bytes.
    pub memory_bytes: usize,
    /// The longest prompt.
    pub max_duration: Duration,
}

/// The library; cheap to clone.
#[derive(Clone)]
pub struct Library {
    inner: Arc<LibraryParts>,
}

struct LibraryParts {
    fetch: Fetch,
    limits: LibraryLimits,
    state: Mutex<LibraryState>,
    prefetches: Arc<Semaphore>,
}

/// The prompts that are in memory, and those that are being fetched. One lock for both: a prompt
/// that is fetched moves from one to the other at one moment.
struct LibraryState {
    cache: PromptCache,
    fetches: HashMap<FetchKey, RunningFetch>,
    fetches_begun: u64,
}

/// The key of a running fetch. A `resourceId` alone does not identify it: it may come with two URIs
/// at the same time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct FetchKey {
    key: PromptKey,
    uri: String,
}

/// A fetch that other requests may join. It runs only as long as one of them waits for it.
struct RunningFetch {
    number: u64,
    outcome: WeakShared<BoxFuture<'static, LoadOutcome>>,
}

type LoadOutcome = Result<Clip, PromptFailure>;

/// Removes a fetch from the running ones when it ends, or when the last waiting request is dropped.
struct ListedFetch {
    library: Library,
    fetch: FetchKey,
    number: u64,
}

/// Prefetches that run at the same time.
const PREFETCHES: usize = 16;

impl Library {
    /// An empty library.
    pub fn new(fetch: Fetch, limits: LibraryLimits) -> Self {
        let state = LibraryState {
            cache: PromptCache::new(limits.memory_bytes),
            fetches: HashMap::new(),
            fetches_begun: 0,
        };
        let prefetches = Arc::new(Semaphore::new(PREFETCHES));
        let parts = LibraryParts { fetch, limits, state: Mutex::new(state), prefetches };
        Self { inner: Arc::new(parts) }
    }

    /// Returns a prompt of an application; fetches it if necessary.
    ///
    /// # Errors
    /// Why it cannot be played, in one sentence.
    pub async fn load(
        &self,
        application: &str,
        source: &PromptSource,
    ) -> Result<Clip, PromptFailure> {
        if let Some(name) = source.uri.strip_prefix(BUNDLED_PREFIX) {
            let name = name.to_owned();
            let unknown = format!("there is no bundled prompt {name:?}");
            let clip = tokio::task::spawn_blocking(move || bundled(&name)).await;
            return clip.ok().flatten().ok_or_else(|| not_fetched(unknown));
        }
        let key = PromptKey {
            application: application.to_owned(),
            name: match &source.resource_id {
                Some(id) => PromptName::ResourceId(id.clone()),
                None => PromptName::Uri(source.uri.clone()),
            },
        };
        let outcome = {
            let mut state = self.state();
            if let Some(copy) = state.cache.get(&key)
                && copy.is_good(&key, &source.uri)
            {
                return Ok(copy.clip.clone());
            }
            self.join(&mut state, FetchKey { key, uri: source.uri.clone() })
        };
        outcome.await
    }

    /// Fetches prompts that will be played, in the background. A failure is reported when the
    /// prompt is played.
    pub fn prefetch(&self, application: &str, sources: Vec<PromptSource>) {
        for source in sources {
            // Prompts beyond the limit are fetched when they are played.
            let Ok(permit) = Arc::clone(&self.inner.prefetches).try_acquire_owned() else { return };
            let library = self.clone();
            let application = application.to_owned();
            tokio::spawn(async move {
                if let Err(failure) = library.load(&application, &source).await {
                    // The query or the fragment may hold a signature.
                    let uri = source.uri.split(['?', '#']).next();
                    info!(application, uri, "Prefetch failed: {}", failure.message);
                }
                drop(permit);
            });
        }
    }

    /// The outcome of the fetch that is running, or of a new one.
    ///
    /// Requests that come before the answer share it, even if it must not be kept: these are
    /// collapsed requests (RFC 9111 section 4). That section excludes answers with `no-store` and
    /// `no-cache`. Here they are shared as well, because all waiting requests are of one client,
    /// and are identical.
    fn join(
        &self,
        state: &mut LibraryState,
        fetch: FetchKey,
    ) -> Shared<BoxFuture<'static, LoadOutcome>> {
        let running = state.fetches.get(&fetch);
        if let Some(outcome) = running.and_then(|fetch| fetch.outcome.upgrade()) {
            return outcome;
        }
        state.fetches_begun += 1;
        let number = state.fetches_begun;
        let listed = ListedFetch { library: self.clone(), fetch: fetch.clone(), number };
        let outcome = run(listed).boxed().shared();
        if let Some(weak) = outcome.downgrade() {
            state.fetches.insert(fetch, RunningFetch { number, outcome: weak });
        }
        outcome
    }

    async fn fetch(&self, FetchKey { key, uri }: &FetchKey) -> LoadOutcome {
        let known = self.state().cache.get(key).filter(|copy| copy.uri == *uri).cloned();
        let begun = Instant::now();
        let answer = known.as_ref().and_then(|copy| copy.answer.as_ref());
        let fetched = self.inner.fetch.get(uri, answer).await.map_err(failed)?;
        match fetched {
            Fetched::NotModified { answer, fresh_for } => {
                let mut copy = known.ok_or_else(|| {
                    not_fetched("the server answered 304 to an unconditional request".to_owned())
                })?;
                copy.answer = Some(answer);
                copy.good_until = begun + fresh_for;
                let clip = copy.clip.clone();
                self.state().cache.insert(key.clone(), copy);
                Ok(clip)
            }
            Fetched::File { bytes, codings, content_type, answer, fresh_for } => {
                let size = bytes.len();
                let clip = self.decode(bytes, codings, content_type).await?;
                debug!(bytes = size, ms = begun.elapsed().as_millis(), "fetched");
                let may_store = answer.as_ref().is_none_or(CachedAnswer::may_be_stored);
                let is_of_use = !fresh_for.is_zero()
                    || answer.as_ref().is_some_and(CachedAnswer::can_be_checked)
                    || matches!(key.name, PromptName::ResourceId(_));
                if may_store && is_of_use {
                    let uri = uri.clone();
                    let good_until = begun + fresh_for;
                    let copy = CachedPrompt { uri, clip: clip.clone(), answer, good_until };
                    self.state().cache.insert(key.clone(), copy);
                } else {
                    self.state().cache.remove(key);
                }
                Ok(clip)
            }
        }
    }

    async fn decode(
        &self,
        bytes: Vec<u8>,
        codings: Vec<String>,
        content_type: Option<String>,
    ) -> Result<Clip, PromptFailure> {
        let seconds = self.inner.limits.max_duration.as_secs();
        let limits = wav::Limits { max_seconds: u32::try_from(seconds).unwrap_or(u32::MAX) };
        let max_bytes = self.inner.fetch.max_bytes();
        let decoded = tokio::task::spawn_blocking(move || {
            let bytes = unpacked(bytes, &codings, max_bytes).map_err(|error| match error {
                UnpackError::TooLarge(_) => not_fetched(error.to_string()),
                UnpackError::Coding(_) | UnpackError::Broken { .. } | UnpackError::Members(_) => {
                    bad_format(error.to_string())
                }
            })?;
            Clip::from_wav(&bytes, limits).map_err(|error| {
                bad_format(match content_type {
                    Some(kind) => format!("{error} (the server calls it {kind:?})"),
                    None => error.to_string(),
                })
            })
        });
        decoded.await.unwrap_or_else(|_| Err(bad_format("it could not be decoded".to_owned())))
    }

    fn state(&self) -> MutexGuard<'_, LibraryState> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ListedFetch {
    fn drop(&mut self) {
        let mut state = self.library.state();
        // Another fetch may have begun since the last waiting request was dropped.
        if state.fetches.get(&self.fetch).is_some_and(|fetch| fetch.number == self.number) {
            state.fetches.remove(&self.fetch);
        }
    }
}

/// Fetches in a separate task: the waiting requests are woken once, and not for each piece of the
/// body. Dropping this future aborts the task.
async fn run(listed: ListedFetch) -> LoadOutcome {
    let task = tokio::spawn(async move {
        let outcome = listed.library.fetch(&listed.fetch).await;
        // Later requests start a new fetch.
        drop(listed);
        outcome
    });
    let outcome = AbortOnDropHandle::new(task).await;
    outcome.unwrap_or_else(|_| Err(not_fetched("the fetch has failed".to_owned())))
}

fn failed(error: FetchError) -> PromptFailure {
    not_fetched(error.to_string())
}

fn not_fetched(message: String) -> PromptFailure {
    PromptFailure { kind: PromptFailureKind::NotFetched, message: sentence(message) }
}

fn bad_format(message: String) -> PromptFailure {
    PromptFailure { kind: PromptFailureKind::BadFormat, message: sentence(message) }
}

fn sentence(message: String) -> String {
    format!("The prompt cannot be played: {}.", message.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::{
        Router,
        http::{HeaderMap, StatusCode, header},
        response::{IntoResponse, Redirect},
        routing::get,
    };
    use futures_util::future::{join_all, try_join_all};

    use super::*;
    use crate::drivers::prompts::{Fence, FetchLimits, bundled_wav};

    struct PromptServer {
        base: String,
        hits: Arc<AtomicUsize>,
        /// A permit for each request to `/held`.
        arrivals: Arc<Semaphore>,
        /// `/held` takes a permit for each answer.
        answers: Arc<Semaphore>,
    }

    async fn server() -> PromptServer {
        let hits = Arc::new(AtomicUsize::new(0));
        let (arrivals, answers) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let count = |hits: &Arc<AtomicUsize>| {
            let hits = Arc::clone(hits);
            move || hits.fetch_add(1, Ordering::SeqCst)
        };
        fn wav() -> &'static [u8] {
            bundled_wav("goodbye").unwrap()
        }
        let (plain, fresh, tagged) = (count(&hits), count(&hits), count(&hits));
        let (slow, stuck, held) = (count(&hits), count(&hits), count(&hits));
        let (arrival, answer) = (Arc::clone(&arrivals), Arc::clone(&answers));
        let router = Router::new()
            .route(
                "/plain",
                get(|| async move {
                    plain();
                    wav()
                }),
            )
            .route(
                "/fresh",
                get(|| async move {
                    fresh();
                    ([(header::CACHE_CONTROL, "max-age=60")], wav())
                }),
            )
            .route(
                "/tagged",
                get(|headers: HeaderMap| async move {
                    tagged();
                    let tag = [(header::ETAG, "\"1\"")];
                    match headers.contains_key(header::IF_NONE_MATCH) {
                        true => (StatusCode::NOT_MODIFIED, tag).into_response(),
                        false => (tag, wav()).into_response(),
                    }
                }),
            )
            .route(
                "/slow",
                get(|| async move {
                    slow();
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    ([(header::CACHE_CONTROL, "max-age=60")], wav())
                }),
            )
            .route(
                "/held",
                get(|| async move {
                    held();
                    arrival.add_permits(1);
                    answer.acquire().await.unwrap().forget();
                    ([(header::CACHE_CONTROL, "no-store")], wav())
                }),
            )
            .route(
                "/stuck",
                get(|| async move {
                    stuck();
                    tokio::time::sleep(Duration::from_secs(30)).await;
                    wav()
                }),
            )
            .route("/large", get(|| async { vec![0u8; 2 << 20] }))
            .route(
                "/page",
                get(|| async { ([(header::CONTENT_TYPE, "text/html")], "<html></html>") }),
            )
            .route("/inside", get(|| async { Redirect::temporary("http://10.1.2.3/x.wav") }))
            .route("/round", get(|| async { Redirect::temporary("/round") }))
            .route("/moved", get(|| async { Redirect::temporary("/plain") }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        PromptServer { base, hits, arrivals, answers }
    }

    fn library(memory_bytes: usize, folder: Option<&std::path::Path>) -> Library {
        let fence = Fence::new(std::iter::once(("127.0.0.0/8".parse().unwrap(), None)));
        let limits = FetchLimits {
            connect_timeout: Duration::from_secs(1),
            total_timeout: Duration::from_secs(1),
            max_bytes: 1 << 20,
            prompt_folder: folder.map(ToOwned::to_owned),
        };
        let fetch = Fetch::new(fence, limits).unwrap();
        Library::new(fetch, LibraryLimits { memory_bytes, max_duration: Duration::from_secs(60) })
    }

    fn source(uri: &str, resource_id: Option<&str>) -> PromptSource {
        PromptSource { uri: uri.to_owned(), resource_id: resource_id.map(str::to_owned), times: 1 }
    }

    impl PromptServer {
        async fn hits_of(&self, library: &Library, path: &str, id: Option<&str>) -> usize {
            let before = self.hits.load(Ordering::SeqCst);
            library.load("bot", &source(&format!("{}{path}", self.base), id)).await.unwrap();
            self.hits.load(Ordering::SeqCst) - before
        }

        async fn has_arrived(&self, requests: u32) {
            self.arrivals.acquire_many(requests).await.unwrap().forget();
        }
    }

    #[tokio::test]
    async fn http_caching_decides_without_a_resource_id() {
        let (server, library) = (server().await, library(64 << 20, None));
        assert_eq!(server.hits_of(&library, "/plain", None).await, 1);
        assert_eq!(server.hits_of(&library, "/plain", None).await, 1);
        assert_eq!(server.hits_of(&library, "/fresh", None).await, 1);
        assert_eq!(server.hits_of(&library, "/fresh", None).await, 0);
        assert_eq!(server.hits_of(&library, "/tagged", None).await, 1);
        assert_eq!(server.hits_of(&library, "/tagged", None).await, 1);
        assert_eq!(server.hits_of(&library, "/moved", None).await, 1);
    }

    #[tokio::test]
    async fn a_resource_id_is_good_until_another_uri_comes_with_it() {
        let (server, library) = (server().await, library(64 << 20, None));
        assert_eq!(server.hits_of(&library, "/plain", Some("a")).await, 1);
        assert_eq!(server.hits_of(&library, "/plain", Some("a")).await, 0);
        assert_eq!(server.hits_of(&library, "/fresh", Some("a")).await, 1);
        assert_eq!(server.hits_of(&library, "/plain", Some("a")).await, 1);
        // Another application has its own entries.
        let before = server.hits.load(Ordering::SeqCst);
        let uri = format!("{}/plain", server.base);
        library.load("other", &source(&uri, Some("a"))).await.unwrap();
        assert_eq!(server.hits.load(Ordering::SeqCst), before + 1);
    }

    #[tokio::test]
    async fn of_many_who_want_one_prompt_one_fetches() {
        let (server, library) = (server().await, library(64 << 20, None));
        let wanted = source(&format!("{}/slow", server.base), None);
        let all = (0..10).map(|_| library.load("bot", &wanted));
        try_join_all(all).await.unwrap();
        assert_eq!(server.hits.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn those_who_wait_share_what_may_not_be_kept() {
        let (server, library) = (server().await, library(64 << 20, None));
        let wanted = source(&format!("{}/held", server.base), None);
        let all = try_join_all((0..20).map(|_| library.load("bot", &wanted)));
        let answered = async {
            server.has_arrived(1).await;
            server.answers.add_permits(20);
            Ok(())
        };
        tokio::try_join!(all, answered).unwrap();
        assert_eq!(server.hits.load(Ordering::SeqCst), 1);
        // A later request is not served with it.
        assert_eq!(server.hits_of(&library, "/held", None).await, 1);
    }

    #[tokio::test]
    async fn those_who_wait_share_a_failure() {
        let (server, library) = (server().await, library(64 << 20, None));
        let wanted = source(&format!("{}/stuck", server.base), None);
        let all = join_all((0..4).map(|_| library.load("bot", &wanted))).await;
        for failure in all.into_iter().map(Result::unwrap_err) {
            assert!(failure.message.contains("longer than 1s"), "{}", failure.message);
        }
        assert_eq!(server.hits.load(Ordering::SeqCst), 1);
        library.load("bot", &wanted).await.unwrap_err();
        assert_eq!(server.hits.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_fetch_goes_on_when_the_call_that_began_it_hangs_up() {
        let (server, library) = (server().await, library(64 << 20, None));
        let wanted = source(&format!("{}/held", server.base), None);
        let mut first = Box::pin(library.load("bot", &wanted));
        let second = library.load("bot", &wanted);
        tokio::pin!(second);
        tokio::select! {
            biased;
            _ = &mut first => panic!("nothing was answered"),
            _ = &mut second => panic!("nothing was answered"),
            () = server.has_arrived(1) => drop(first),
        }
        server.answers.add_permits(1);
        second.await.unwrap();
        assert_eq!(server.hits.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn applications_and_uris_do_not_share_a_fetch() {
        let (server, library) = (server().await, library(64 << 20, None));
        let uri = |query: &str| format!("{}/held?{query}", server.base);
        let (one, other) = (source(&uri("1"), Some("a")), source(&uri("2"), Some("a")));
        let all = try_join_all([
            library.load("bot", &one),
            library.load("bot", &other),
            library.load("other", &one),
        ]);
        let answered = async {
            server.has_arrived(3).await;
            server.answers.add_permits(3);
            Ok(())
        };
        tokio::try_join!(all, answered).unwrap();
    }

    #[tokio::test]
    async fn nothing_is_left_of_a_fetch_that_nobody_waits_for() {
        let (server, library) = (server().await, library(64 << 20, None));
        let wanted = source(&format!("{}/held", server.base), None);
        for _ in 0..2 {
            tokio::select! {
                _ = library.load("bot", &wanted) => panic!("nothing was answered"),
                () = server.has_arrived(1) => {}
            }
        }
        // The server may answer the dropped requests first.
        server.answers.add_permits(3);
        library.load("bot", &wanted).await.unwrap();
        assert_eq!(server.hits.load(Ordering::SeqCst), 3);
        assert!(library.state().cache.is_empty());
        assert!(library.state().fetches.is_empty());
    }

    #[tokio::test]
    async fn what_was_used_longest_ago_makes_room() {
        let server = server().await;
        let one = bundled("goodbye").unwrap().bytes();
        let library = library(one * 3 / 2, None);
        assert_eq!(server.hits_of(&library, "/plain", Some("a")).await, 1);
        assert_eq!(server.hits_of(&library, "/plain", Some("b")).await, 1);
        assert_eq!(server.hits_of(&library, "/plain", Some("b")).await, 0);
        assert_eq!(server.hits_of(&library, "/plain", Some("a")).await, 1);
    }

    #[tokio::test]
    async fn a_failure_names_its_cause() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("link.wav")).unwrap();
        let (server, open) = (server().await, library(64 << 20, Some(folder.path())));
        for (uri, kind, words) in [
            (format!("{}/none", server.base), PromptFailureKind::NotFetched, "404"),
            (format!("{}/large", server.base), PromptFailureKind::NotFetched, "larger than"),
            (format!("{}/stuck", server.base), PromptFailureKind::NotFetched, "longer than 1s"),
            (format!("{}/inside", server.base), PromptFailureKind::NotFetched, "allow_networks"),
            (format!("{}/round", server.base), PromptFailureKind::NotFetched, "redirects"),
            (format!("{}/page", server.base), PromptFailureKind::BadFormat, "HTML"),
            ("http://127.0.0.1:1/x".to_owned(), PromptFailureKind::NotFetched, "refused"),
            ("ftp://x/y".to_owned(), PromptFailureKind::NotFetched, "ftp"),
            ("nonsense".to_owned(), PromptFailureKind::NotFetched, "URI"),
            ("aftertone:none".to_owned(), PromptFailureKind::NotFetched, "bundled"),
            ("file:///../etc/passwd".to_owned(), PromptFailureKind::NotFetched, "file"),
            ("file:///link.wav".to_owned(), PromptFailureKind::NotFetched, "prompt_folder"),
        ] {
            let failure = open.load("bot", &source(&uri, None)).await.unwrap_err();
            assert_eq!(failure.kind, kind, "{uri}: {}", failure.message);
            assert!(failure.message.contains(words), "{uri}: {}", failure.message);
        }
        let closed = library(64 << 20, None);
        let failure = closed.load("bot", &source("file:///a.wav", None)).await.unwrap_err();
        assert!(failure.message.contains("prompt_folder"), "{}", failure.message);
    }

    #[tokio::test]
    async fn files_below_the_folder_are_prompts() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.wav"), bundled_wav("goodbye").unwrap()).unwrap();
        let library = library(64 << 20, Some(folder.path()));
        library.load("bot", &source("file:///a.wav", None)).await.unwrap();
        let whole = format!("file://{}/a.wav", folder.path().canonicalize().unwrap().display());
        library.load("bot", &source(&whole, None)).await.unwrap();
        library.load("", &source("aftertone:greeting", None)).await.unwrap();
    }
}
