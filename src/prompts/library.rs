//! Decoded prompts in memory: what was fetched once is not fetched again without need.
//!
//! Each application has its own shelf. A prompt with a `resourceId` is kept under it until another
//! URI comes with the same id; one without is kept as HTTP caching allows (interface section 6.3).
//! Of several requests for one prompt, one fetches and the others wait for it; different prompts
//! never wait for each other.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tracing::{debug, info};

use super::{
    BUNDLED_PREFIX, Fetch, FetchError, bundled,
    fetch::{Fetched, Validators},
};
use crate::{
    audio::{Clip, wav},
    model::{PromptFailure, PromptFailureKind, PromptSource},
};

/// What the library may hold.
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
    inner: Arc<Inner>,
}

struct Inner {
    fetch: Fetch,
    limits: LibraryLimits,
    shelves: Mutex<Shelves>,
    prefetches: Arc<Semaphore>,
}

/// Whose prompt it is, and the client's own key for it, or its URI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    application: String,
    name: Name,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Name {
    Uri(String),
    ResourceId(String),
}

#[derive(Default)]
struct Shelves {
    places: HashMap<Key, Place>,
    bytes: usize,
    uses: u64,
}

/// One prompt, or the room for it while it is being fetched.
#[derive(Default)]
struct Place {
    /// Held by whoever fetches.
    turn: Arc<AsyncMutex<()>>,
    book: Option<Book>,
    used: u64,
}

#[derive(Clone)]
struct Book {
    uri: String,
    clip: Clip,
    validators: Validators,
    good_until: Instant,
}

/// Prefetches under way at a time.
const PREFETCHES: usize = 16;
/// Prompts that are remembered at all, however short.
const MAX_PLACES: usize = 10_000;

impl Library {
    /// An empty library.
    pub fn new(fetch: Fetch, limits: LibraryLimits) -> Self {
        Self {
            inner: Arc::new(Inner {
                fetch,
                limits,
                shelves: Mutex::default(),
                prefetches: Arc::new(Semaphore::new(PREFETCHES)),
            }),
        }
    }

    /// Gives a prompt of an application, fetched if need be.
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
        let key = Key {
            application: application.to_owned(),
            name: match &source.resource_id {
                Some(id) => Name::ResourceId(id.clone()),
                None => Name::Uri(source.uri.clone()),
            },
        };
        if let Some(clip) = self.find(&key, source) {
            return Ok(clip);
        }
        let turn = self.turn(&key);
        let _turn = turn.lock().await;
        // Whoever had the turn before may have fetched it.
        if let Some(clip) = self.find(&key, source) {
            return Ok(clip);
        }
        let result = self.fetch(&key, source).await;
        if result.is_err() {
            self.forget_empty(&key);
        }
        result
    }

    /// Fetches prompts that will be played, in the background. Failures are told when it is played.
    pub fn prefetch(&self, application: &str, sources: Vec<PromptSource>) {
        for source in sources {
            // More than that is fetched when it is needed.
            let Ok(permit) = Arc::clone(&self.inner.prefetches).try_acquire_owned() else { return };
            let library = self.clone();
            let application = application.to_owned();
            tokio::spawn(async move {
                if let Err(failure) = library.load(&application, &source).await {
                    info!(application, uri = source.uri, "Prefetch failed: {}", failure.message);
                }
                drop(permit);
            });
        }
    }

    /// A copy that may be used without asking anybody.
    fn find(&self, key: &Key, source: &PromptSource) -> Option<Clip> {
        let mut shelves = self.shelves();
        let book = shelves.book(key)?;
        let is_good = match key.name {
            // The client's key is the client's promise that it is the same.
            Name::ResourceId(_) => book.uri == source.uri,
            Name::Uri(_) => Instant::now() < book.good_until,
        };
        is_good.then(|| book.clip.clone())
    }

    async fn fetch(&self, key: &Key, source: &PromptSource) -> Result<Clip, PromptFailure> {
        let known = self.shelves().book(key).cloned().filter(|book| book.uri == source.uri);
        let validators = known.as_ref().map(|book| book.validators.clone()).unwrap_or_default();
        let begun = Instant::now();
        let fetched = self.inner.fetch.get(&source.uri, &validators).await.map_err(failed)?;
        match fetched {
            Fetched::NotModified { fresh_for } => {
                let mut book = known.ok_or_else(|| {
                    not_fetched("the server answered 304 to an unconditional request".to_owned())
                })?;
                book.good_until = begun + fresh_for;
                let clip = book.clip.clone();
                self.keep(key, book);
                Ok(clip)
            }
            Fetched::File { bytes, content_type, validators, fresh_for, may_store } => {
                let size = bytes.len();
                let clip = self.decode(bytes, content_type).await?;
                debug!(uri = source.uri, bytes = size, ms = begun.elapsed().as_millis(), "fetched");
                let is_of_use = !fresh_for.is_zero()
                    || !validators.is_empty()
                    || matches!(key.name, Name::ResourceId(_));
                if may_store && is_of_use {
                    let uri = source.uri.clone();
                    let good_until = begun + fresh_for;
                    self.keep(key, Book { uri, clip: clip.clone(), validators, good_until });
                } else {
                    self.forget(key);
                }
                Ok(clip)
            }
        }
    }

    async fn decode(
        &self,
        bytes: Vec<u8>,
        content_type: Option<String>,
    ) -> Result<Clip, PromptFailure> {
        let seconds = self.inner.limits.max_duration.as_secs();
        let limits = wav::Limits { max_seconds: u32::try_from(seconds).unwrap_or(u32::MAX) };
        let decoded = tokio::task::spawn_blocking(move || Clip::from_wav(&bytes, limits)).await;
        let decoded = decoded.map_err(|_| bad_format("it could not be decoded".to_owned()))?;
        decoded.map_err(|error| {
            bad_format(match content_type {
                Some(kind) => format!("{error} (the server calls it {kind:?})"),
                None => error.to_string(),
            })
        })
    }

    fn turn(&self, key: &Key) -> Arc<AsyncMutex<()>> {
        let mut shelves = self.shelves();
        if shelves.places.len() >= MAX_PLACES {
            shelves.make_room(usize::MAX, MAX_PLACES - 1);
        }
        Arc::clone(&shelves.places.entry(key.clone()).or_default().turn)
    }

    fn keep(&self, key: &Key, book: Book) {
        let mut shelves = self.shelves();
        let budget = self.inner.limits.memory_bytes;
        let size = book.clip.bytes();
        if size > budget {
            return;
        }
        shelves.uses += 1;
        let used = shelves.uses;
        let place = shelves.places.entry(key.clone()).or_default();
        place.used = used;
        let old = place.book.replace(book).map_or(0, |old| old.clip.bytes());
        shelves.bytes = shelves.bytes + size - old;
        shelves.make_room(budget, MAX_PLACES);
    }

    fn forget(&self, key: &Key) {
        let mut shelves = self.shelves();
        if let Some(place) = shelves.places.remove(key) {
            shelves.bytes -= place.book.map_or(0, |book| book.clip.bytes());
        }
    }

    /// A failure is not remembered.
    fn forget_empty(&self, key: &Key) {
        let mut shelves = self.shelves();
        if shelves.places.get(key).is_some_and(|place| place.book.is_none()) {
            shelves.places.remove(key);
        }
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.inner.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelves {
    fn book(&mut self, key: &Key) -> Option<&Book> {
        self.uses += 1;
        let place = self.places.get_mut(key)?;
        place.used = self.uses;
        place.book.as_ref()
    }

    /// Takes out what was used longest ago until the limits hold.
    fn make_room(&mut self, budget: usize, places: usize) {
        while self.bytes > budget || self.places.len() > places {
            let oldest = self.places.iter().min_by_key(|(_, place)| place.used);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { return };
            if let Some(place) = self.places.remove(&key) {
                self.bytes -= place.book.map_or(0, |book| book.clip.bytes());
            }
        }
    }
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

    use super::*;
    use crate::prompts::{Fence, FetchLimits, bundled_wav};

    struct Server {
        base: String,
        hits: Arc<AtomicUsize>,
    }

    async fn server() -> Server {
        let hits = Arc::new(AtomicUsize::new(0));
        let count = |hits: &Arc<AtomicUsize>| {
            let hits = Arc::clone(hits);
            move || hits.fetch_add(1, Ordering::SeqCst)
        };
        fn wav() -> &'static [u8] {
            bundled_wav("goodbye").unwrap()
        }
        let (plain, fresh, tagged, slow) = (count(&hits), count(&hits), count(&hits), count(&hits));
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
                "/stuck",
                get(|| async {
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
        Server { base, hits }
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

    impl Server {
        async fn hits_of(&self, library: &Library, path: &str, id: Option<&str>) -> usize {
            let before = self.hits.load(Ordering::SeqCst);
            library.load("bot", &source(&format!("{}{path}", self.base), id)).await.unwrap();
            self.hits.load(Ordering::SeqCst) - before
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
        // Another application has another shelf.
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
        futures_util::future::try_join_all(all).await.unwrap();
        assert_eq!(server.hits.load(Ordering::SeqCst), 1);
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
