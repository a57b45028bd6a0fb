//! Calls of a phone over real sockets, and behaviour when a driver fails.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{net::UdpSocket, sync::oneshot, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    mailbox::{Mail, mailbox},
    *,
};
use crate::{
    drivers::{
        media,
        prompts::{Fence, Fetch, FetchLimits, Library, LibraryLimits},
        recordings::{Folder, Spool, SpoolLimits, Vault},
        signalling::{SignallingConfig, SipListener, StreamLimits, TlsFiles},
        store::{Database, Journal, JournalLimits},
    },
    service::config::Config,
};
use aftertone_core::{
    model::{Call, CallState, OperationKind, RecordAction, RecordRequest, Tone},
    proto::sip::{Status, endpoint::IncomingInvite, path::Transport},
};

const SPOOL: SpoolLimits = SpoolLimits { low_water: 0, open: 100, calls: 10 };
const CONFIG: &str = "[[applications]]\nname = \"bot\"\nid = \"1\"\n\
    callback_uri = \"http://127.0.0.1/\"\n\
    [[routes]]\nto = \"bot\"\napplication = \"bot\"\npublic = true\n\
    [[routes]]\nto = \"echo\"\nline = \"echo\"\npublic = true\n\
    [[trunks]]\nname = \"trunk\"\nhost = \"127.0.0.1\"\nallow = [\"+49*\"]\n";

#[tokio::test]
async fn requests_of_the_application_take_no_place_of_the_peer() {
    let fixture = Fixture::start().await;
    let (mail, mut mailbox) = mailbox();
    let dialog = fixture.register(mail.clone());
    let asking = CallRequest::Show;
    while mail.requests.try_send(asking(oneshot::channel().0)).is_ok() {}
    let waiting = mail.requests.clone();
    tokio::spawn(async move { waiting.send(asking(oneshot::channel().0)).await });
    fixture.switchboard.pass_on(Event::Referred { dialog, status: Status::TRYING }).await;
    fixture.switchboard.pass_on(Event::Bye { dialog, reason: None }).await;
    let heard = mailbox.sip.try_recv();
    assert!(matches!(heard, Ok(CallMessage::Sip(Event::Referred { .. }))), "{heard:?}");
    let heard = mailbox.sip.try_recv();
    assert!(matches!(heard, Ok(CallMessage::Sip(Event::Bye { .. }))), "{heard:?}");
}

#[tokio::test]
async fn the_last_event_of_a_dialog_has_its_place_in_a_full_mailbox() {
    let fixture = Fixture::start().await;
    let (mail, mut mailbox) = mailbox();
    let dialog = fixture.register(mail.clone());
    for _ in 0..200 {
        let info = Event::Info { dialog, tone: Tone::POUND };
        fixture.switchboard.pass_on(info).await;
    }
    assert_eq!(mail.sip.capacity(), 0);
    fixture.switchboard.pass_on(Event::Bye { dialog, reason: None }).await;
    let mut last = None;
    while let Ok(message) = mailbox.sip.try_recv() {
        last = Some(message);
    }
    assert!(matches!(last, Some(CallMessage::Sip(Event::Bye { .. }))), "{last:?}");
}

#[tokio::test]
async fn a_dialog_that_is_ended_for_want_of_a_place_ends_its_call() {
    let mut fixture = Fixture::start().await;
    let phone = Phone::of(&fixture).await;
    phone.invite("echo").await;
    let (dialog, invite) = fixture.invited().await;
    fixture.switchboard.offer(dialog, invite).await;
    fixture.go_on();
    let call = *fixture.switchboard.registry().calls.keys().next().unwrap();
    phone.acknowledge().await;
    fixture.until_state(call, CallState::Established).await;
    // The signalling driver does this when its event channel is full.
    let bye = endpoint::Command::Bye { dialog, reason: None };
    fixture.drivers.signalling.send(bye).await;
    phone.hung_up().await;
    let ended = fixture.until_state(call, CallState::Terminated).await;
    assert_eq!(ended.termination, Some(Termination::PeerLost));
}

#[tokio::test]
async fn an_operation_that_cannot_be_written_down_never_begins() {
    let mut fixture = Fixture::start().await;
    let (phone, call, _) = fixture.established().await;
    fixture
        .sql(
            "CREATE TRIGGER refused BEFORE INSERT ON recordings \
             BEGIN SELECT RAISE(ABORT, 'refused'); END",
        )
        .await;
    let refused = fixture.switchboard.submit("bot", call, record()).await;
    assert_eq!(refused, Err(CallError::Internal));
    phone.hung_up().await;
    let ended = fixture.until_state(call, CallState::Terminated).await;
    assert_eq!(ended.termination, Some(Termination::Internal));
    let operations = fixture.drivers.database.operations(call).await.unwrap();
    assert!(operations.iter().all(|operation| operation.recording.is_none()), "{operations:?}");
    let gone = async {
        while fixture.clips() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(WITHIN, gone).await.expect("its file, which was opened before, goes");
}

#[tokio::test]
async fn an_end_that_the_store_has_refused_is_told_in_other_words() {
    let mut fixture = Fixture::start().await;
    let (phone, call, _) = fixture.established().await;
    fixture
        .sql(
            "CREATE TRIGGER refused BEFORE UPDATE ON calls \
             WHEN NEW.state = 'terminated' AND NEW.body NOT LIKE '%nternal%' \
             BEGIN SELECT RAISE(ABORT, 'refused'); END",
        )
        .await;
    phone.send("BYE", 2, "").await;
    let ended = fixture.until_state(call, CallState::Terminated).await;
    assert_eq!(ended.termination, Some(Termination::Internal));
    let told =
        fixture.sql_count("SELECT COUNT(*) FROM outbox WHERE body LIKE '%terminated%'").await;
    assert_eq!(told, 1, "the end of the call waits to be sent");
}

/// A switchboard and all its drivers.
pub(super) struct Fixture {
    pub switchboard: Switchboard,
    pub drivers: Drivers,
    pub sip: SocketAddr,
    events: Option<mpsc::Receiver<Event>>,
    folder: tempfile::TempDir,
    _directory: watch::Sender<Arc<Directory>>,
}

impl Fixture {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, CONFIG).unwrap();
        let config = Config::load(Some(&file), std::iter::empty()).unwrap();
        let database = format!("sqlite:{}", folder.path().join("calls.db").display());
        let database = Database::open(&database).await.unwrap();
        let (journal, _) = Journal::start(database.clone(), JournalLimits::default());
        let (events, received) = mpsc::channel(64);
        let address = "127.0.0.1:0".parse().unwrap();
        let (signalling, listeners, _) = crate::drivers::signalling::start(
            SignallingConfig {
                domain: String::new(),
                listen: vec![SipListener { transport: Transport::Udp, address }],
                advertised: None,
                server_name: "test".to_owned(),
                realm: "test".to_owned(),
                digest: Vec::new(),
                users: Vec::new(),
                tls: TlsFiles::default(),
                trusted_peers: vec!["127.0.0.0/8".parse().unwrap()],
                web_origins: Vec::new(),
                limits: StreamLimits::default(),
            },
            events,
            CancellationToken::new(),
        )
        .await
        .unwrap();
        let fetch = FetchLimits {
            connect_timeout: Duration::from_secs(1),
            total_timeout: Duration::from_secs(1),
            max_bytes: 1 << 20,
            prompt_folder: None,
        };
        let fetch = Fetch::new(Fence::new(std::iter::empty()), fetch).unwrap();
        let limits = LibraryLimits { memory_bytes: 1 << 20, max_duration: Duration::from_secs(60) };
        let clips = Folder::hold(folder.path().join("clips")).unwrap();
        let drivers = Drivers {
            signalling,
            media: media::Engine::start(media::EngineConfig {
                ports: media::PortPool::new(media::PortRange::Ephemeral, Duration::ZERO),
                shards: 1,
                targets: media::Targets::new(media::PortRange::Ephemeral, Vec::new(), None),
                settings: media::Settings::default(),
            })
            .unwrap(),
            prompts: Library::new(fetch, limits),
            spool: Spool::start(clips.clone(), SPOOL).unwrap(),
            vault: Vault::new(clips),
            journal,
            database,
        };
        let limits = Limits {
            settings: settings(),
            codecs: terms().codecs,
            srtp: terms().srtp,
            max_calls: 10,
            advertised: None,
        };
        let (_directory, known) = watch::channel(Arc::new(Directory::new(&config)));
        let rng = StdRng::seed_from_u64(1);
        let switchboard = Switchboard::new(drivers.clone(), limits, known, rng);
        let sip = listeners[0].address;
        Self { switchboard, drivers, sip, events: Some(received), folder, _directory }
    }

    /// Waits for an INVITE.
    pub async fn invited(&mut self) -> (DialogId, IncomingInvite) {
        let events = self.events.as_mut().unwrap();
        let event = timeout(WITHIN, events.recv()).await.unwrap();
        let Some(Event::Invite { dialog, invite }) = event else { panic!("{event:?}") };
        (dialog, *invite)
    }

    /// From now on the switchboard receives the events itself.
    pub fn go_on(&mut self) {
        let events = self.events.take().unwrap();
        let switchboard = self.switchboard.clone();
        tokio::spawn(async move { switchboard.run(events).await });
    }

    /// An established call of the bot.
    async fn established(&mut self) -> (Phone, CallId, DialogId) {
        let phone = Phone::of(self).await;
        phone.invite("bot").await;
        let (dialog, invite) = self.invited().await;
        self.switchboard.offer(dialog, invite).await;
        self.go_on();
        let call = *self.switchboard.registry().calls.keys().next().unwrap();
        self.answer(&phone, call).await;
        (phone, call, dialog)
    }

    pub async fn answer(&self, phone: &Phone, call: CallId) {
        self.switchboard.answer("bot", call, None, None, Vec::new()).await.unwrap();
        phone.acknowledge().await;
        self.until_state(call, CallState::Established).await;
    }

    /// Registers a call; the test plays the part of its task.
    fn register(&self, mail: Mail) -> DialogId {
        let (call, dialog) = (CallId::from_random([7; 16]), DialogId(7_000));
        let entry = LiveCall::of_application("bot", mail);
        self.switchboard.registry().calls.insert(call, entry);
        let (reserved, _) = self.switchboard.reserve(call, dialog, None, None).unwrap();
        reserved.keep();
        dialog
    }

    /// Waits until the database shows the call in this state.
    pub async fn until_state(&self, call: CallId, state: CallState) -> Call {
        let written = async {
            loop {
                match self.drivers.database.call(call).await.unwrap() {
                    Some(call) if call.state == state => return call,
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        timeout(WITHIN, written).await.unwrap_or_else(|_| panic!("not {state:?}"))
    }

    /// Changes the database without the store's knowledge.
    async fn sql(&self, statement: &'static str) {
        use sqlx::Connection;
        let mut connection = self.connection().await;
        sqlx::query(statement).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    async fn sql_count(&self, query: &'static str) -> i64 {
        let (count,) = sqlx::query_as(query).fetch_one(&mut self.connection().await).await.unwrap();
        count
    }

    async fn connection(&self) -> sqlx::AnyConnection {
        use sqlx::Connection;
        let url = format!("sqlite:{}", self.folder.path().join("calls.db").display());
        sqlx::AnyConnection::connect(&url).await.unwrap()
    }

    /// Number of files in the folder of clips.
    pub fn clips(&self) -> usize {
        self.clip_files().count()
    }

    /// Total size of these files.
    pub fn clip_bytes(&self) -> u64 {
        self.clip_files().map(|file| file.metadata().map_or(0, |metadata| metadata.len())).sum()
    }

    fn clip_files(&self) -> impl Iterator<Item = std::fs::DirEntry> {
        let entries = std::fs::read_dir(self.folder.path().join("clips")).unwrap();
        entries.map(Result::unwrap).filter(|entry| entry.file_name() != ".lock")
    }
}

pub(super) const WITHIN: Duration = Duration::from_secs(10);

/// What can be agreed on with every peer.
pub(super) fn terms() -> MediaTerms {
    MediaTerms {
        codecs: vec![sdp::Codec::Pcmu],
        srtp: sdp::SrtpPolicy::Optional,
        is_signalling_encrypted: false,
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        answer_timeout: Duration::from_secs(15),
        keep_alive: Duration::from_secs(60),
        line_limit: Duration::from_secs(60),
        retention: Duration::from_secs(60),
    }
}

pub(super) fn record() -> NewOperation {
    let kind = OperationKind::Record(RecordRequest {
        action: RecordAction::Record,
        prompt: None,
        barge_in_allowed: false,
        initial_silence_seconds: 60,
        max_silence_seconds: 60,
        max_duration_seconds: 60,
        play_beep: false,
        stop_tones: Vec::new(),
    });
    NewOperation { kind, client_context: None }
}

/// A phone with one call.
pub(super) struct Phone {
    socket: UdpSocket,
    tag: std::sync::Mutex<String>,
}

impl Phone {
    pub async fn of(fixture: &Fixture) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(fixture.sip).await.unwrap();
        Self { socket, tag: std::sync::Mutex::default() }
    }

    pub async fn invite(&self, user: &str) {
        let sdp = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                   m=audio 9 RTP/AVP 0\r\n";
        self.send_to(user, "INVITE", 1, sdp).await;
    }

    /// Waits for the 200 and acknowledges it.
    async fn acknowledge(&self) {
        let ok = self.until("SIP/2.0 200 ").await;
        let to = ok.lines().find(|line| line.starts_with("To:")).unwrap();
        let (_, tag) = to.split_once(";tag=").unwrap();
        *self.tag.lock().unwrap() = format!(";tag={tag}");
        self.send("ACK", 1, "").await;
    }

    /// Waits for a BYE and answers it.
    pub async fn hung_up(&self) {
        let bye = self.until("BYE ").await;
        let copied = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
        let is_copied = |line: &&str| copied.iter().any(|name| line.starts_with(name));
        let lines: Vec<&str> = bye.lines().filter(is_copied).collect();
        let ok = format!("SIP/2.0 200 OK\r\n{}\r\nContent-Length: 0\r\n\r\n", lines.join("\r\n"));
        self.socket.send(ok.as_bytes()).await.unwrap();
    }

    pub async fn send(&self, method: &str, cseq: u32, body: &str) {
        self.send_to("bot", method, cseq, body).await;
    }

    async fn send_to(&self, user: &str, method: &str, cseq: u32, body: &str) {
        let local = self.socket.local_addr().unwrap();
        let tag = self.tag.lock().unwrap().clone();
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        // A CANCEL has the branch of the request that it cancels (RFC 3261 section 9.1).
        let branch = if method == "CANCEL" { "INVITE" } else { method };
        let request = format!(
            "{method} sip:{user}@127.0.0.1 SIP/2.0\r\n\
             Via: SIP/2.0/UDP {local};branch=z9hG4bK-{branch}-{cseq}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:phone@127.0.0.1>;tag=phone\r\n\
             To: <sip:{user}@127.0.0.1>{tag}\r\nCall-ID: one@127.0.0.1\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:phone@{local}>\r\n{kind}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.socket.send(request.as_bytes()).await.unwrap();
    }

    /// The next message that begins with `begin`.
    pub async fn until(&self, begin: &str) -> String {
        let heard = async {
            let mut buffer = vec![0; 65_535];
            loop {
                let length = self.socket.recv(&mut buffer).await.unwrap();
                let message = String::from_utf8(buffer[..length].to_vec()).unwrap();
                if message.starts_with(begin) {
                    return message;
                }
            }
        };
        timeout(WITHIN, heard).await.unwrap_or_else(|_| panic!("no {begin:?}"))
    }
}
