//! The dispatcher against real receivers on loopback and a database in a temporary folder.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::drivers::{
    http::Connection,
    notify::Gate,
    store::{Journal, JournalLimits},
};
use aftertone_core::model::{
    Arrival, Call, CallState, Change, Direction, Event, Notification, ParticipantId, Party,
    UnixMillis,
};

#[tokio::test]
async fn notifications_of_a_call_arrive_in_order_and_one_at_a_time() {
    let mut receiver = WebhookReceiver::start(|_| ScriptedAnswer::Status(204)).await;
    let fixture = Fixture::open().await;
    for call in 1..=5 {
        fixture.notify(call, &receiver.uri("/calls"), 8).await;
    }
    let (dispatcher, _running) = fixture.dispatch(config());
    assert!(dispatcher.flush(PATIENCE).await);
    assert_eq!(fixture.pending().await, 0);

    let mut seen: HashMap<u8, Vec<String>> = HashMap::new();
    for _ in 0..5 * 8 {
        let post = receiver.next().await;
        let (call, sequence) = post.body.split_once('/').unwrap();
        assert_eq!(post.headers[header::ETAG], sequence);
        seen.entry(call.parse().unwrap()).or_default().push(sequence.to_owned());
    }
    for (call, sequences) in seen {
        assert_eq!(sequences, ["1", "2", "3", "4", "5", "6", "7", "8"], "call {call}");
    }
    assert_eq!(receiver.most_at_once_per_call(), 1);
}

#[tokio::test]
async fn what_is_committed_later_is_sent_without_being_asked_for() {
    let mut receiver = WebhookReceiver::start(|_| ScriptedAnswer::Status(202)).await;
    let fixture = Fixture::open().await;
    let (_dispatcher, _running) = fixture.dispatch(config());
    for sequence in 1..=3 {
        fixture.notify(1, &receiver.uri("/calls"), 1).await;
        assert_eq!(receiver.next().await.body, format!("1/{sequence}"));
    }
}

#[tokio::test]
async fn a_failed_notification_is_tried_again_before_the_next_one() {
    let tries = AtomicUsize::new(0);
    let mut receiver =
        WebhookReceiver::start(move |_| match tries.fetch_add(1, Ordering::Relaxed) {
            0 => ScriptedAnswer::Status(500),
            _ => ScriptedAnswer::Status(200),
        })
        .await;
    let fixture = Fixture::open().await;
    fixture.notify(1, &receiver.uri("/calls"), 2).await;
    let (dispatcher, _running) = fixture.dispatch(config());
    for body in ["1/1", "1/1", "1/2"] {
        assert_eq!(receiver.next().await.body, body);
    }
    assert!(dispatcher.flush(PATIENCE).await);
    assert_eq!(fixture.pending().await, 0);
}

#[tokio::test]
async fn a_receiver_that_is_gone_is_given_up_at_once_and_the_next_one_sent() {
    let mut receiver = WebhookReceiver::start(|post| match &*post.body {
        "1/1" => ScriptedAnswer::Status(410),
        _ => ScriptedAnswer::Status(200),
    })
    .await;
    let fixture = Fixture::open().await;
    fixture.notify(1, &receiver.uri("/calls"), 2).await;
    let (dispatcher, _running) = fixture.dispatch(config());
    assert!(dispatcher.flush(PATIENCE).await);
    assert_eq!(receiver.next().await.body, "1/1");
    assert_eq!(receiver.next().await.body, "1/2");
    let given_up = fixture.store.given_up("bot", 0, 10).await.unwrap();
    assert_eq!(given_up.len(), 1);
    assert_eq!((given_up[0].delivery.sequence, given_up[0].delivery.attempts), (1, 1));
    assert!(given_up[0].error.contains("410"), "{}", given_up[0].error);
    assert_eq!(fixture.pending().await, 0);
}

#[tokio::test]
async fn a_receiver_that_does_not_believe_the_token_is_asked_again() {
    for status in [401, 403] {
        let tries = AtomicUsize::new(0);
        let mut receiver =
            WebhookReceiver::start(move |_| match tries.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => ScriptedAnswer::Status(status),
                _ => ScriptedAnswer::Status(200),
            })
            .await;
        let fixture = Fixture::open().await;
        fixture.notify(1, &receiver.uri("/calls"), 2).await;
        let (_dispatcher, _running) = fixture.dispatch(config());
        let attempts = fixture.attempts.clone();
        for (body, attempt) in [("1/1", 0), ("1/1", 1), ("1/1", 2), ("1/2", 0)] {
            assert_eq!(receiver.next().await.body, body, "{status}");
            // The renderer uses this to choose a fresh token.
            assert_eq!(attempts.lock().unwrap().remove(0), attempt);
        }
        assert!(fixture.store.given_up("bot", 0, 10).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_receiver_that_refuses_again_and_again_is_given_up_and_the_next_one_sent() {
    for status in [401, 403] {
        let tries = AtomicUsize::new(0);
        let mut receiver = WebhookReceiver::start(move |post| {
            match (&*post.body, tries.fetch_add(1, Ordering::Relaxed)) {
                // An earlier failure of another kind does not count.
                ("1/1", 0) => ScriptedAnswer::Status(503),
                ("1/1", _) => ScriptedAnswer::Status(status),
                _ => ScriptedAnswer::Status(200),
            }
        })
        .await;
        let fixture = Fixture::open().await;
        fixture.notify(1, &receiver.uri("/calls"), 2).await;
        let (_dispatcher, _running) =
            fixture.dispatch(DispatcherConfig { refusals: 2, ..config() });
        for body in ["1/1", "1/1", "1/1", "1/2"] {
            assert_eq!(receiver.next().await.body, body, "{status}");
        }
        let given_up = fixture.store.given_up("bot", 0, 10).await.unwrap();
        assert_eq!(given_up.len(), 1);
        assert_eq!((given_up[0].delivery.sequence, given_up[0].delivery.attempts), (1, 3));
        assert!(given_up[0].error.contains(&status.to_string()), "{}", given_up[0].error);
    }
}

#[tokio::test]
async fn refusals_are_repeated_within_seconds_however_often_it_has_failed_before() {
    let mut receiver = WebhookReceiver::start(|post| match &*post.body {
        "1/1" => ScriptedAnswer::Status(401),
        _ => ScriptedAnswer::Status(200),
    })
    .await;
    let fixture = Fixture::open().await;
    fixture.notify(1, &receiver.uri("/calls"), 2).await;
    // The receiver was away for minutes, and is back with a wrong clock.
    let now = fixture.store.clock().now();
    let head = fixture.store.head_of(call(1).id, now).await.unwrap().unwrap();
    fixture.store.failed(&head, 20, now, "503").await.unwrap();
    let (_dispatcher, _running) = fixture.dispatch(DispatcherConfig { refusals: 3, ..config() });
    let begun = Instant::now();
    for body in ["1/1", "1/1", "1/1", "1/2"] {
        assert_eq!(receiver.next().await.body, body);
    }
    // The pauses of the back-off are 0.5 s and 1 s.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let given_up = fixture.store.given_up("bot", 0, 10).await.unwrap();
    assert_eq!(given_up[0].delivery.attempts, 23);
}

#[tokio::test]
async fn an_answer_whose_body_never_ends_does_not_delay_the_next_notification() {
    for status in [202, 500] {
        let mut receiver = WebhookReceiver::start(move |post| match &*post.body {
            "1/5" => ScriptedAnswer::Status(200),
            _ => ScriptedAnswer::Endless(status),
        })
        .await;
        let fixture = Fixture::open().await;
        fixture.notify(1, &receiver.uri("/calls"), 5).await;
        let (_dispatcher, _running) = fixture.dispatch(config());
        let begun = Instant::now();
        let bodies: &[&str] = match status {
            202 => &["1/1", "1/2", "1/3", "1/4", "1/5"],
            _ => &["1/1", "1/1", "1/1"],
        };
        for body in bodies {
            assert_eq!(receiver.next().await.body, *body, "{status}");
        }
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(4), "{status}: {took:?}");
    }
}

#[tokio::test]
async fn a_notification_whose_connection_is_closed_under_it_is_sent_again_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/calls", listener.local_addr().unwrap());
    let (seen, mut posts) = mpsc::channel(10);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                // One request is served; the next one closes the connection.
                for is_served in [true, false] {
                    let mut request = Vec::new();
                    while !request.windows(6).any(|end| end.starts_with(b"\r\n\r\n1/")) {
                        if stream.read_buf(&mut request).await.unwrap() == 0 {
                            return;
                        }
                    }
                    if is_served {
                        seen.send(request).await.unwrap();
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                        stream.write_all(answer).await.unwrap();
                    }
                }
            });
        }
    });
    let mut fixture = Fixture::open().await;
    let kept = client();
    fixture.gate = Arc::new(move |_, connection| match connection {
        Connection::Kept => Ok(kept.clone()),
        Connection::New => Ok(client()),
    });
    fixture.notify(1, &uri, 3).await;
    let (dispatcher, _running) = fixture.dispatch(config());
    // A notification that waits for a later attempt would still be pending.
    assert!(dispatcher.flush(PATIENCE).await);
    assert_eq!(fixture.pending().await, 0);
    for sequence in 1..=3 {
        let post = String::from_utf8(posts.recv().await.unwrap()).unwrap();
        assert!(post.ends_with(&format!("1/{sequence}")), "{post}");
    }
}

#[tokio::test]
async fn a_redirect_in_raw_utf_8_is_followed() {
    let mut receiver = WebhookReceiver::start(|post| match post.uri.path() {
        "/old" => ScriptedAnswer::Redirect(307, "/anrufe/früh?für=x".to_owned()),
        _ => ScriptedAnswer::Status(200),
    })
    .await;
    let fixture = Fixture::open().await;
    fixture.notify(1, &receiver.uri("/old"), 1).await;
    let (dispatcher, _running) = fixture.dispatch(config());
    assert!(dispatcher.flush(PATIENCE).await);
    assert_eq!(receiver.next().await.uri, "/old");
    assert_eq!(receiver.next().await.uri, "/anrufe/fr%C3%BCh?f%C3%BCr=x");
    assert_eq!(fixture.pending().await, 0);
}

#[tokio::test]
async fn a_notification_that_is_too_old_is_given_up() {
    let receiver = WebhookReceiver::start(|_| ScriptedAnswer::Status(503)).await;
    let fixture = Fixture::open().await;
    fixture.notify(1, &receiver.uri("/calls"), 1).await;
    let (dispatcher, _running) =
        fixture.dispatch(DispatcherConfig { retry_for: Duration::ZERO, ..config() });
    assert!(dispatcher.flush(PATIENCE).await);
    assert_eq!(fixture.store.given_up("bot", 0, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn the_receiver_may_ask_for_patience() {
    let receiver = WebhookReceiver::start(|_| ScriptedAnswer::RetryAfter("300")).await;
    let fixture = Fixture::open().await;
    fixture.notify(1, &receiver.uri("/calls"), 1).await;
    let (dispatcher, _running) = fixture.dispatch(config());
    assert!(dispatcher.flush(PATIENCE).await);
    let now = fixture.store.clock().now();
    let next = fixture.store.next_attempt(now).await.unwrap().unwrap();
    let wait = next.since(now).as_secs();
    assert!((290..=330).contains(&wait), "{wait} s");
}

#[tokio::test]
async fn a_receiver_that_never_answers_does_not_delay_the_others() {
    let mut dead = WebhookReceiver::start(|_| ScriptedAnswer::Never).await;
    let mut alive = WebhookReceiver::start(|_| ScriptedAnswer::Status(200)).await;
    let fixture = Fixture::open().await;
    for call in 1..=20 {
        fixture.notify(call, &dead.uri("/calls"), 1).await;
    }
    let small = DispatcherConfig { lanes: 4, lanes_per_receiver: 3, ..config() };
    let (_dispatcher, _running) = fixture.dispatch(small);
    // The dead receiver takes all lanes that it may have, for the rest of the test.
    for _ in 0..3 {
        dead.next().await;
    }
    for call in 21..=40 {
        fixture.notify(call, &alive.uri("/calls"), 1).await;
    }
    for _ in 21..=40 {
        alive.next().await;
    }
    assert!(dead.has_no_more());
}

#[tokio::test]
async fn an_application_with_many_dead_receivers_does_not_delay_the_others() {
    let mut dead = Vec::new();
    let fixture = Fixture::open().await;
    for call in 1..=5 {
        let receiver = WebhookReceiver::start(|_| ScriptedAnswer::Never).await;
        fixture.notify_of("hopeful", call, &receiver.uri("/calls"), 1).await;
        dead.push(receiver);
    }
    let small = DispatcherConfig { lanes: 5, lanes_per_application: 3, ..config() };
    let (_dispatcher, _running) = fixture.dispatch(small);
    let mut alive = WebhookReceiver::start(|_| ScriptedAnswer::Status(200)).await;
    for call in 21..=30 {
        fixture.notify(call, &alive.uri("/calls"), 1).await;
    }
    for _ in 21..=30 {
        alive.next().await;
    }
    let tried = dead.iter_mut().filter_map(|receiver| receiver.posts.try_recv().ok()).count();
    assert!(tried <= 3, "{tried}");
}

#[tokio::test]
async fn a_post_without_an_answer_fails_in_time() {
    let mut receiver = WebhookReceiver::start(|_| ScriptedAnswer::Never).await;
    let fixture = Fixture::open().await.with_timeout(Duration::from_millis(50));
    fixture.notify(1, &receiver.uri("/calls"), 1).await;
    let (_dispatcher, _running) = fixture.dispatch(config());
    for _ in 0..2 {
        assert_eq!(receiver.next().await.body, "1/1");
    }
}

#[tokio::test]
async fn a_redirect_is_followed_once_for_that_post_only() {
    let mut receiver = WebhookReceiver::start(|post| match post.uri.path() {
        "/old" => ScriptedAnswer::Redirect(307, "/new".to_owned()),
        _ => ScriptedAnswer::Status(200),
    })
    .await;
    let fixture = Fixture::open().await;
    fixture.notify(1, &receiver.uri("/old"), 2).await;
    let (dispatcher, _running) = fixture.dispatch(config());
    assert!(dispatcher.flush(PATIENCE).await);
    for (path, body) in [("/old", "1/1"), ("/new", "1/1"), ("/old", "1/2"), ("/new", "1/2")] {
        let post = receiver.next().await;
        assert_eq!((post.uri.path(), &*post.body), (path, body));
        assert!(post.headers.contains_key(header::ETAG));
    }
    assert_eq!(fixture.pending().await, 0);
}

#[tokio::test]
async fn a_redirect_takes_the_authorization_along_to_the_applications_own_places_only() {
    let mut home = WebhookReceiver::start(|_| ScriptedAnswer::Status(200)).await;
    let mut stranger = WebhookReceiver::start(|_| ScriptedAnswer::Status(200)).await;
    let (to_home, to_stranger) = (home.uri("/"), stranger.uri("/"));
    let mut named = WebhookReceiver::start(move |post| match (post.uri.path(), &*post.body) {
        ("/again", _) => ScriptedAnswer::Status(200),
        (_, "1/1") => ScriptedAnswer::Redirect(302, to_stranger.clone()),
        (_, "1/2") => ScriptedAnswer::Redirect(307, to_home.clone()),
        _ => ScriptedAnswer::Redirect(308, "/again".to_owned()),
    })
    .await;
    let mut fixture = Fixture::open().await;
    let (render, origin) = (fixture.render.clone(), home.origin.clone());
    fixture.render = Arc::new(move |delivery| {
        let mut rendered = render(delivery)?;
        rendered.headers.insert(header::AUTHORIZATION, "Bearer secret".parse().unwrap());
        Ok(Rendered { home: origin.clone(), ..rendered })
    });
    fixture.notify(1, &named.uri("/"), 3).await;
    let (dispatcher, _running) = fixture.dispatch(config());
    assert!(dispatcher.flush(PATIENCE).await);
    let is_told = |post: Post| (post.body, post.headers.contains_key(header::AUTHORIZATION));
    assert_eq!(is_told(stranger.next().await), ("1/1".to_owned(), false));
    assert_eq!(is_told(home.next().await), ("1/2".to_owned(), true));
    for body in ["1/1", "1/2", "1/3", "1/3"] {
        assert_eq!(is_told(named.next().await), (body.to_owned(), true));
    }
}

#[tokio::test]
async fn what_cannot_be_signed_is_not_sent_and_tried_again() {
    let mut receiver = WebhookReceiver::start(|_| ScriptedAnswer::Status(200)).await;
    let mut fixture = Fixture::open().await;
    let (render, tries) = (fixture.render.clone(), AtomicUsize::new(0));
    fixture.render = Arc::new(move |delivery| match tries.fetch_add(1, Ordering::Relaxed) {
        0 => Err("there is no key".to_owned()),
        _ => render(delivery),
    });
    fixture.notify(1, &receiver.uri("/calls"), 1).await;
    let (_dispatcher, _running) = fixture.dispatch(config());
    assert_eq!(receiver.next().await.body, "1/1");
    assert!(receiver.has_no_more());
}

#[tokio::test]
async fn a_redirect_in_a_circle_is_a_failure() {
    let mut receiver =
        WebhookReceiver::start(|_| ScriptedAnswer::Redirect(302, "/again".to_owned())).await;
    let fixture = Fixture::open().await;
    fixture.notify(1, &receiver.uri("/calls"), 1).await;
    let (dispatcher, _running) = fixture.dispatch(config());
    assert!(dispatcher.flush(PATIENCE).await);
    receiver.next().await;
    receiver.next().await;
    assert!(receiver.has_no_more());
    assert_eq!(fixture.pending().await, 1);
}

#[tokio::test]
async fn the_fence_is_asked_for_the_address_and_for_the_target_of_a_redirect() {
    let mut receiver = WebhookReceiver::start(|_| {
        ScriptedAnswer::Redirect(308, "http://private.example/".to_owned())
    })
    .await;
    let mut fixture = Fixture::open().await;
    fixture.gate = Arc::new(|uri, _| match uri.host_str() {
        Some("private.example") => Err("private.example is not for us".to_owned()),
        _ => Ok(client()),
    });
    fixture.notify(1, &receiver.uri("/calls"), 1).await;
    fixture.notify(2, "http://private.example/calls", 1).await;
    fixture.notify(3, "no address at all", 1).await;
    let (dispatcher, _running) = fixture.dispatch(config());
    assert!(dispatcher.flush(PATIENCE).await);
    receiver.next().await;
    assert!(receiver.has_no_more());
    // The redirect may be corrected later; the other URIs stay refused.
    assert_eq!(fixture.pending().await, 1);
    let given_up = fixture.store.given_up("bot", 0, 10).await.unwrap();
    assert_eq!(given_up.len(), 2);
    assert!(given_up.iter().any(|one| one.error.contains("not for us")), "{given_up:?}");
}

#[tokio::test]
async fn a_lane_finishes_its_post_when_the_house_closes() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let held = gate.clone();
    let mut receiver = WebhookReceiver::start(move |_| ScriptedAnswer::After(held.clone())).await;
    let fixture = Fixture::open().await;
    fixture.notify(1, &receiver.uri("/calls"), 2).await;
    let (_dispatcher, running) = fixture.dispatch(config());
    assert_eq!(receiver.next().await.body, "1/1");
    fixture.cancel.cancel();
    gate.add_permits(2);
    running.await.unwrap();
    assert!(receiver.has_no_more());
    assert_eq!(fixture.pending().await, 1);
}

#[tokio::test]
async fn a_panic_stays_with_its_call() {
    let mut receiver = WebhookReceiver::start(|_| ScriptedAnswer::Status(200)).await;
    let mut fixture = Fixture::open().await;
    let render = fixture.render.clone();
    fixture.render = Arc::new(move |delivery| {
        assert_ne!(number_of(delivery), 1, "this call cannot be rendered");
        render(delivery)
    });
    fixture.notify(1, &receiver.uri("/calls"), 1).await;
    fixture.notify(2, &receiver.uri("/calls"), 2).await;
    let (dispatcher, _running) = fixture.dispatch(config());
    assert!(dispatcher.flush(PATIENCE).await);
    assert_eq!(receiver.next().await.body, "2/1");
    assert_eq!(receiver.next().await.body, "2/2");
    assert_eq!(fixture.pending().await, 1);
}

// --- support ---

const PATIENCE: Duration = Duration::from_secs(20);

fn config() -> DispatcherConfig {
    DispatcherConfig::default()
}

/// A store with a journal, and the parts of a dispatcher.
struct Fixture {
    folder: TempDir,
    store: Database,
    journal: Journal,
    gate: Gate,
    render: Render,
    /// For each rendered notification, the number of earlier attempts.
    attempts: Arc<Mutex<Vec<u32>>>,
    timeout: Duration,
    cancel: CancellationToken,
}

impl Fixture {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("calls.db").display());
        let store = Database::open(&url).await.unwrap();
        let (journal, _writer) = Journal::start(store.clone(), JournalLimits::default());
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&attempts);
        Self {
            folder,
            store,
            journal,
            gate: Arc::new(|_, _| Ok(client())),
            attempts,
            render: Arc::new(move |delivery| {
                noted.lock().unwrap().push(delivery.attempts);
                let body = format!("{}/{}", number_of(delivery), delivery.sequence).into_bytes();
                let etag = (header::ETAG, delivery.sequence.into());
                let headers = HeaderMap::from_iter([etag]);
                Ok(Rendered { body, headers, home: String::new() })
            }),
            timeout: PATIENCE,
            cancel: CancellationToken::new(),
        }
    }

    fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Commits `count` notifications of the call with that number.
    async fn notify(&self, number: u8, uri: &str, count: usize) {
        self.notify_of("bot", number, uri, count).await;
    }

    async fn notify_of(&self, application: &str, number: u8, uri: &str, count: usize) {
        let call = call(number);
        let notification = Notification {
            application: application.to_owned(),
            callback_uri: uri.to_owned(),
            chain_id: String::new(),
            event: Event::CallChanged { call: call.clone() },
        };
        let notifications = vec![notification; count];
        let change = Change { call: Some(call), notifications, ..Change::default() };
        self.journal.submit(change).unwrap().await.unwrap();
    }

    /// How many notifications are not delivered yet.
    async fn pending(&self) -> i64 {
        use sqlx::Connection as _;

        let url = format!("sqlite:{}", self.folder.path().join("calls.db").display());
        let mut database = sqlx::AnyConnection::connect(&url).await.unwrap();
        let query = sqlx::query_as("SELECT COUNT(*) FROM outbox WHERE state = 'pending'");
        let (pending,) = query.fetch_one(&mut database).await.unwrap();
        pending
    }

    fn dispatch(&self, config: DispatcherConfig) -> (Dispatcher, JoinHandle<()>) {
        let webhook = Webhook::new(self.gate.clone(), self.timeout);
        let (store, render) = (self.store.clone(), self.render.clone());
        Dispatcher::start(store, webhook, render, config, self.cancel.clone())
    }
}

fn client() -> reqwest::Client {
    let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    builder.no_proxy().build().unwrap()
}

/// What a receiver does with a POST.
enum ScriptedAnswer {
    Status(u16),
    RetryAfter(&'static str),
    Redirect(u16, String),
    After(Arc<tokio::sync::Semaphore>),
    /// The head, and a body that goes on for ever.
    Endless(u16),
    Never,
}

#[derive(Debug, Clone)]
struct Post {
    uri: Uri,
    headers: HeaderMap,
    body: String,
}

/// An HTTP server that reports the requests to it.
struct WebhookReceiver {
    origin: String,
    posts: mpsc::Receiver<Post>,
    open: Arc<Mutex<OpenPosts>>,
}

/// POSTs that are not yet answered, by call, and the highest number there ever was for one call.
#[derive(Default)]
struct OpenPosts {
    now: HashMap<String, usize>,
    most: usize,
}

impl WebhookReceiver {
    async fn start(reply: impl Fn(&Post) -> ScriptedAnswer + Send + Sync + 'static) -> Self {
        let (seen, posts) = mpsc::channel(1_000);
        let open = Arc::new(Mutex::new(OpenPosts::default()));
        let (reply, counted) = (Arc::new(reply), open.clone());
        let router = Router::new().fallback(
            async move |uri: Uri, headers: HeaderMap, body: Bytes| -> Response {
                let body = String::from_utf8(body.to_vec()).unwrap();
                let call = body.split('/').next().unwrap().to_owned();
                {
                    let mut open = counted.lock().unwrap();
                    let now = open.now.entry(call.clone()).or_default();
                    *now += 1;
                    let now = *now;
                    open.most = open.most.max(now);
                }
                let post = Post { uri, headers, body };
                let reply = reply(&post);
                seen.send(post).await.unwrap();
                tokio::task::yield_now().await;
                let response = carry_out(reply).await;
                *counted.lock().unwrap().now.get_mut(&call).unwrap() -= 1;
                response
            },
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { origin, posts, open }
    }

    fn uri(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    async fn next(&mut self) -> Post {
        let next = tokio::time::timeout(PATIENCE, self.posts.recv()).await;
        next.expect("a POST comes in time").unwrap()
    }

    fn has_no_more(&mut self) -> bool {
        self.posts.try_recv().is_err()
    }

    fn most_at_once_per_call(&self) -> usize {
        self.open.lock().unwrap().most
    }
}

async fn carry_out(reply: ScriptedAnswer) -> Response {
    let status = |status| StatusCode::from_u16(status).unwrap();
    match reply {
        ScriptedAnswer::Status(code) => status(code).into_response(),
        ScriptedAnswer::RetryAfter(seconds) => {
            (status(503), [(header::RETRY_AFTER, seconds)]).into_response()
        }
        ScriptedAnswer::Redirect(code, target) => {
            (status(code), [(header::LOCATION, target)]).into_response()
        }
        ScriptedAnswer::After(gate) => {
            gate.acquire().await.unwrap().forget();
            status(200).into_response()
        }
        ScriptedAnswer::Endless(code) => {
            let begun = stream::once(std::future::ready(Ok::<_, std::io::Error>("{")));
            let body = Body::from_stream(begun.chain(stream::pending()));
            (status(code), body).into_response()
        }
        ScriptedAnswer::Never => std::future::pending().await,
    }
}

/// The number that [`call`] was made with.
fn number_of(delivery: &Delivery) -> u8 {
    match &delivery.event {
        Event::CallChanged { call } => call.sip_call_id.parse().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn call(number: u8) -> Call {
    Call {
        id: CallId::from_random([number; 16]),
        application: Some("bot".to_owned()),
        state: CallState::Established,
        direction: Direction::Incoming,
        source: Party::default(),
        target: Party::default(),
        chain_id: String::new(),
        participant_id: ParticipantId::nobody(),
        arrival: Arrival::default(),
        is_telephone: false,
        ringing_timeout_seconds: None,
        peer_participant_id: ParticipantId::nobody(),
        is_muted: false,
        peer_is_muted: false,
        recording_status: None,
        sip_call_id: number.to_string(),
        callback_uri: None,
        media: None,
        tones_subscribed: false,
        media_config: None,
        subject: None,
        created_at: UnixMillis(0),
        ended_at: None,
        termination: None,
    }
}
