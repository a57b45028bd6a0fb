//! The task that owns the SIP endpoint: one loop over messages, commands and one timer.
//!
//! The task never blocks on a peer or on a call. If the event queue is full, the service ends the
//! call that the event belongs to: it refuses an INVITE with 503 and sends a BYE in a dialog.
//! Events that end a dialog are never lost: they wait in a backlog, which is bounded by the number
//! of dialogs.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use ipnet::IpNet;
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot, watch,
    },
    task::{JoinHandle, JoinSet},
    time::{Instant as TokioInstant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, trace, warn};

use super::{
    departure::Departures,
    network::{Bound, Network, Reloadable},
    resolver::{LocateError, Resolver},
    settings::{SignallingConfig, SipListener, StartError, TlsFiles, User},
    stream::Inbound,
    tls::TlsConfigs,
    trace::{Masked, Traced, Tracer},
    trunk_report::TrunkReport,
    udp::local_address,
};
use crate::drivers::tls::TlsError;
use aftertone_core::{
    model::CallId,
    proto::sip::{
        Status,
        dialog::DialogId,
        endpoint::{Binding, Command, Endpoint, EndpointConfig, Event, Output, TrunkAccount},
        locate::Target,
        path::{Path, Transport},
        registration::TrunkState,
        standing::{KnownPeers, SipSource},
        timers::SIXTY_FOUR_T1,
        transmit::Transmit,
        uri::Uri,
    },
};

/// Capacity of the queue to the endpoint; more messages wait in the sockets' buffers.
const INBOUND: usize = 4_096;
/// Capacity of the command queue to the endpoint; senders wait when it is full.
const COMMANDS: usize = 1_024;
/// Datagrams or commands that are handled before the timer is checked again.
const BATCH: usize = 64;

/// Longest time until the readers learn of a peer that the endpoint has come to know; until then
/// they treat it as a stranger.
const INTRODUCE_EVERY: Duration = Duration::from_millis(200);

/// Handle to the endpoint's task, for the owners of calls.
#[derive(Debug, Clone)]
pub struct Signalling {
    orders: mpsc::Sender<Order>,
    /// Number of outgoing dialogs so far; the source of their ids.
    dialogs: Arc<AtomicU64>,
    tls: watch::Sender<TlsConfigs>,
    trusted: watch::Sender<Vec<IpNet>>,
    resolver: Resolver,
    tracer: Tracer,
    departures: Departures,
    /// The configured address for Via and Contact, if it differs from the one that we listen on.
    advertised: Option<IpAddr>,
    /// The addresses that we listen on.
    bound: Arc<[SipListener]>,
}

/// A request to the service's task.
#[derive(Debug)]
pub(super) enum Order {
    Command(Command),
    Draining(bool),
    Host { peer: SocketAddr, host: String },
    Users(Vec<User>),
    Trust(Vec<IpNet>),
    Phones(String, oneshot::Sender<Vec<Binding>>),
    Register(Box<TrunkAccount>),
    NoWay { trunk: String, why: String },
    LeaveTrunk(String),
    Unregister(oneshot::Sender<()>),
    Trunks(oneshot::Sender<Vec<TrunkReport>>),
    Farewell(oneshot::Sender<()>),
}

impl Signalling {
    /// Sends a command; waits while the queue is full. After the service has ended, the command is
    /// dropped: no dialog is left that it could be for.
    pub async fn send(&self, command: Command) {
        self.order(Order::Command(command)).await;
    }

    /// While draining, the service answers new calls and OPTIONS with 503.
    pub async fn set_draining(&self, draining: bool) {
        self.order(Order::Draining(draining)).await;
    }

    /// The id of the dialog of an outgoing call.
    pub fn fresh_dialog(&self) -> DialogId {
        DialogId(DialogId::FIRST_OUTGOING + self.dialogs.fetch_add(1, Ordering::Relaxed))
    }

    /// The paths to the host that `uri` names, the best first (RFC 3263).
    ///
    /// # Errors
    /// The DNS gives no address, or none of our transports leads to one.
    pub async fn locate(&self, uri: &Uri) -> Result<Vec<Path>, LocateError> {
        let available = self.departures.available();
        let mut paths = Vec::new();
        for Target { address: peer, transport, host } in
            self.resolver.locate(uri, &available).await?
        {
            let Some(local) = self.departures.local(transport, peer) else { continue };
            if transport.is_secure() {
                self.know_host(peer, host).await;
            }
            paths.push(Path { transport, ..Path::udp(local, peer) });
        }
        if paths.is_empty() { Err(LocateError::NoWay) } else { Ok(paths) }
    }

    /// Whether a message to this address reaches this node.
    pub fn listens_on(&self, ip: IpAddr) -> bool {
        let is_at = |listener: &SipListener| match listener.address.ip() {
            // An address of this machine is its own source address on the route to itself.
            any if any.is_unspecified() => {
                let itself = SocketAddr::new(ip, listener.address.port());
                local_address(listener.address, itself).is_some_and(|local| local.ip() == ip)
            }
            address => address == ip,
        };
        self.advertised == Some(ip) || self.bound.iter().any(is_at)
    }

    /// The bindings of a user, the best first; empty if the user has no registered phone.
    pub async fn phones(&self, user: &str) -> Vec<Binding> {
        let (reply, phones) = oneshot::channel();
        self.order(Order::Phones(user.to_owned(), reply)).await;
        phones.await.unwrap_or_default()
    }

    /// Keeps the messages with this Call-ID from and to these peers for the call, also those that
    /// came before.
    pub fn trace(&self, call: CallId, call_id: &str, peers: &[IpAddr]) {
        self.tracer.adopt(call, call_id, peers);
    }

    /// Also keeps the messages of a further dialog of the call, with these peers.
    pub fn trace_further(&self, call: CallId, further: &str, peers: &[IpAddr]) {
        self.tracer.follow(call, further, peers);
    }

    /// The last messages of a traced call, the oldest first.
    pub fn traced(&self, call: CallId) -> Vec<Traced> {
        self.tracer.messages(call)
    }

    /// Waits until every peer knows that its call is over: BYE and CANCEL are repeated until the
    /// peer answers, and may have to wait for an earlier message, such as a BYE for the ACK.
    /// Returns whether this happened within the time.
    pub async fn farewell(&self, within: Duration) -> bool {
        let (reply, quiet) = oneshot::channel();
        self.order(Order::Farewell(reply)).await;
        matches!(tokio::time::timeout(within, quiet).await, Ok(Ok(())))
    }

    /// Whether the endpoint's task still handles orders and answers them.
    pub async fn is_alive(&self, within: Duration) -> bool {
        tokio::time::timeout(within, self.trunks()).await.is_ok()
    }

    /// Replaces the users; the registrations of removed users end.
    pub async fn set_users(&self, users: Vec<User>) {
        self.order(Order::Users(users)).await;
    }

    /// Over TLS, the peer at `peer` must show a certificate for `host`; without this, one for the
    /// address. Applies to connections that are opened later.
    async fn know_host(&self, peer: SocketAddr, host: String) {
        self.order(Order::Host { peer, host }).await;
    }

    /// Reads the certificates again, for later connections.
    ///
    /// # Errors
    /// When they cannot be used; the current ones stay in use.
    pub fn reload_tls(&self, files: &TlsFiles) -> Result<(), TlsError> {
        self.tls.send_replace(TlsConfigs::load(files)?);
        Ok(())
    }

    /// Replaces the trusted peers: they are never rate-limited, and their connections are not
    /// counted.
    pub async fn trust(&self, peers: Vec<IpNet>) {
        self.trusted.send_replace(peers.clone());
        self.order(Order::Trust(peers)).await;
    }

    pub(super) async fn order(&self, order: Order) {
        if let Err(mpsc::error::SendError(order)) = self.orders.send(order).await {
            debug!(?order, "signalling has ended, command is dropped");
        }
    }
}

/// Binds the sockets and starts the task; it ends on `cancel`, without a message to the peers.
///
/// Returns the handle, the bound addresses in the order of `config.listen`, and the task.
///
/// # Errors
///
/// When an address cannot be bound, or a certificate cannot be used.
pub async fn start(
    config: SignallingConfig,
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
) -> Result<(Signalling, Vec<SipListener>, JoinHandle<()>), StartError> {
    let (tls, tls_receiver) = watch::channel(TlsConfigs::load(&config.tls)?);
    let (trusted, trusted_receiver) = watch::channel(config.trusted_peers.clone());
    let (known, known_receiver) = watch::channel(Arc::default());
    let reloadable =
        Reloadable { tls: tls_receiver, trusted: trusted_receiver, known: known_receiver };
    let (inbound_sender, inbound) = mpsc::channel(INBOUND);
    let Bound { network, listeners, readers, client_port } =
        Network::bind(&config, reloadable, inbound_sender, cancel.clone())?;

    let (orders, order_receiver) = mpsc::channel(COMMANDS);
    let of = |transport| listeners.iter().filter(move |listener| listener.transport == transport);
    let endpoint_config = EndpointConfig {
        advertised: config.advertised,
        realm: config.realm,
        domain: config.domain,
        digest: config.digest,
        tcp_port: of(Transport::Tcp).next().map(|listener| listener.address.port()),
        udp_listeners: of(Transport::Udp).map(|listener| listener.address).collect(),
        ..EndpointConfig::new(config.server_name)
    };
    let mut endpoint = Endpoint::new(endpoint_config, StdRng::from_os_rng());
    set_users(&mut endpoint, &config.users);
    endpoint.set_trusted_peers(config.trusted_peers.clone());
    let tracer = Tracer::default();
    let service = Service {
        endpoint,
        tracer: tracer.clone(),
        network,
        known,
        introduce_at: None,
        no_ways: BTreeMap::new(),
        undelivered: VecDeque::new(),
        events,
        backlog: VecDeque::new(),
        farewells: Vec::new(),
        unregistering: Vec::new(),
    };
    let task = tokio::spawn(service.run(inbound, order_receiver, readers, cancel));
    let signalling = Signalling {
        orders,
        dialogs: Arc::default(),
        tls,
        trusted,
        resolver: Resolver::of_the_system(),
        tracer,
        departures: Departures::new(&listeners, client_port),
        advertised: config.advertised,
        bound: listeners.as_slice().into(),
    };
    Ok((signalling, listeners, task))
}

struct Service {
    endpoint: Endpoint,
    tracer: Tracer,
    network: Network,
    /// The peers and streams that the endpoint knows, for the readers, which serve them whatever
    /// strangers do; and the time of the next update.
    known: watch::Sender<Arc<KnownPeers>>,
    introduce_at: Option<Instant>,
    /// For each trunk by name, why its host cannot be located.
    no_ways: BTreeMap<String, String>,
    /// Paths by which messages of this turn could not be sent.
    undelivered: VecDeque<Path>,
    events: mpsc::Sender<Event>,
    /// Events that end a dialog and found the event queue full.
    backlog: VecDeque<Event>,
    /// Callers of [`Signalling::farewell`], answered once every peer knows that its call is over.
    farewells: Vec<oneshot::Sender<()>>,
    /// Callers of [`Signalling::unregister`], answered once no trunk has a registration.
    unregistering: Vec<oneshot::Sender<()>>,
}

/// What woke the service.
enum Wake {
    Inbound(Inbound),
    Order(Order),
    Timer,
    Place,
    End,
}

impl Service {
    async fn run(
        mut self,
        mut inbound: mpsc::Receiver<Inbound>,
        mut orders: mpsc::Receiver<Order>,
        mut readers: JoinSet<()>,
        cancel: CancellationToken,
    ) {
        loop {
            let deadline =
                [self.endpoint.poll_timeout(), self.introduce_at].into_iter().flatten().min();
            let timer = async {
                match deadline {
                    Some(deadline) => sleep_until(TokioInstant::from_std(deadline)).await,
                    None => std::future::pending().await,
                }
            };
            let wake = tokio::select! {
                () = cancel.cancelled() => Wake::End,
                () = timer => Wake::Timer,
                Some(inbound) = inbound.recv() => Wake::Inbound(inbound),
                Some(order) = orders.recv() => Wake::Order(order),
                Ok(permit) = self.events.reserve(), if !self.backlog.is_empty() => {
                    drop(permit);
                    Wake::Place
                }
                Some(ended) = readers.join_next() => {
                    // On shutdown a reader may see the cancellation before this loop does.
                    if !cancel.is_cancelled() {
                        error!(?ended, "a SIP reader has ended");
                    }
                    continue;
                }
                else => Wake::End,
            };
            match wake {
                Wake::Inbound(first) => {
                    self.handle_inbound(first).await;
                    for _ in 1..BATCH {
                        let Ok(next) = inbound.try_recv() else { break };
                        self.handle_inbound(next).await;
                    }
                }
                Wake::Order(order) => {
                    self.handle_order(order).await;
                    for _ in 1..BATCH {
                        let Ok(order) = orders.try_recv() else { break };
                        self.handle_order(order).await;
                    }
                }
                Wake::Timer => {
                    self.introduce();
                    if self.endpoint.poll_timeout().is_some_and(|due| due <= now()) {
                        self.turn("timer", |endpoint| endpoint.handle_timeout(now())).await;
                    }
                }
                Wake::Place => self.tell_backlog(),
                Wake::End => break,
            }
            if !self.farewells.is_empty() && self.endpoint.is_quiet() {
                for farewell in self.farewells.drain(..) {
                    // The caller may have timed out.
                    let _ = farewell.send(());
                }
            }
            if !self.unregistering.is_empty() && self.is_unregistered() {
                for unregistered in self.unregistering.drain(..) {
                    // The caller may have timed out.
                    let _ = unregistered.send(());
                }
            }
        }
        readers.shutdown().await;
        // The task may have ended by itself. No reader may wait for a free slot in the queue any
        // more.
        cancel.cancel();
        drop(inbound);
        self.network.ended().await;
    }

    fn is_unregistered(&self) -> bool {
        self.endpoint.trunks().all(|(_, status)| status.state == TrunkState::Idle)
    }

    async fn handle_inbound(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Message { path, bytes } => {
                trace!(peer = %path.peer, message = %Masked(&bytes), "SIP in");
                self.tracer.record(false, &path, &bytes);
                let take = |endpoint: &mut Endpoint| endpoint.handle_message(&bytes, path, now());
                self.turn("message", take).await;
            }
            Inbound::Undelivered(path) => {
                self.turn("loss", |endpoint| endpoint.handle_unreachable(path, now())).await;
            }
            Inbound::Idle(id) if self.endpoint.needs(id) => {}
            Inbound::Idle(id) | Inbound::Ended(id) => {
                let peer = self.network.close(id);
                self.turn("end", |endpoint| endpoint.handle_disconnected(id, peer, now())).await;
            }
        }
    }

    async fn handle_order(&mut self, order: Order) {
        match order {
            Order::Command(command) => {
                self.turn("command", |endpoint| endpoint.handle_command(command, now())).await;
            }
            Order::Draining(draining) => {
                self.turn("command", |endpoint| endpoint.set_draining(draining)).await;
            }
            Order::Host { peer, host } => self.network.know_host(peer, host),
            Order::Users(users) => self.change("users", |endpoint| set_users(endpoint, &users)),
            Order::Trust(peers) => {
                self.change("trust", |endpoint| endpoint.set_trusted_peers(peers));
            }
            Order::Register(trunk) => {
                if !trunk.targets.is_empty() {
                    self.no_ways.remove(&trunk.name);
                }
                self.turn("trunk", |endpoint| endpoint.register(*trunk, now())).await;
            }
            Order::NoWay { trunk, why } => drop(self.no_ways.insert(trunk, why)),
            Order::LeaveTrunk(trunk) => {
                self.no_ways.remove(&trunk);
                self.turn("trunk", |endpoint| endpoint.leave_trunk(&trunk, now())).await;
            }
            Order::Unregister(reply) => {
                self.turn("trunks", |endpoint| endpoint.unregister(now())).await;
                self.unregistering.push(reply);
            }
            Order::Farewell(reply) => self.farewells.push(reply),
            Order::Trunks(reply) => {
                let report = |(name, status): (&str, _)| TrunkReport {
                    name: name.to_owned(),
                    status,
                    no_way: self.no_ways.get(name).cloned(),
                };
                drop(reply.send(self.endpoint.trunks().map(report).collect()));
            }
            // The caller may have gone.
            Order::Phones(user, reply) => drop(reply.send(self.endpoint.phones(&user, now()))),
        }
    }

    /// Changes the endpoint, then handles all its outputs.
    async fn turn(&mut self, input: &'static str, change: impl FnOnce(&mut Endpoint)) {
        self.change(input, change);
        loop {
            while let Some(output) = self.endpoint.poll_output() {
                match output {
                    Output::Transmit(transmit) => self.transmit(transmit).await,
                    Output::Event(event) => self.tell(event),
                    Output::Silent(path) => self.network.give_up_silent(path, SIXTY_FOUR_T1),
                }
            }
            let Some(path) = self.undelivered.pop_front() else { return };
            self.change("loss", |endpoint| endpoint.handle_unreachable(path, now()));
        }
    }

    /// Changes the endpoint. No input is known that makes it panic; if there is one, it must not
    /// end all other calls.
    fn change(&mut self, input: &'static str, change: impl FnOnce(&mut Endpoint)) {
        let changed = catch_unwind(AssertUnwindSafe(|| change(&mut self.endpoint)));
        if changed.is_err() {
            error!(input, "the SIP endpoint has panicked; the input is dropped");
        }
        self.introduce_at.get_or_insert_with(|| now() + INTRODUCE_EVERY);
    }

    /// Tells the readers which peers the endpoint knows, at most once per [`INTRODUCE_EVERY`]: so a
    /// flood of messages from strangers costs little.
    fn introduce(&mut self) {
        if self.introduce_at.is_none_or(|at| at > now()) {
            return;
        }
        self.introduce_at = None;
        let known = KnownPeers {
            sources: self.endpoint.known_peers().map(SipSource::from).collect(),
            streams: self.endpoint.phone_streams().collect(),
        };
        self.known.send_if_modified(|before| {
            let is_news = **before != known;
            if is_news {
                *before = Arc::new(known);
            }
            is_news
        });
        let needed = self.endpoint.streams().collect();
        self.network.introduce(Arc::clone(&self.known.borrow()), &needed);
    }

    async fn transmit(&mut self, transmit: Transmit) {
        let Transmit { path, bytes, .. } = &transmit;
        trace!(peer = %path.peer, message = %Masked(bytes), "SIP out");
        self.tracer.record(true, path, bytes);
        if let Err(path) = self.network.send(transmit).await {
            self.undelivered.push_back(path);
        }
    }

    fn tell(&mut self, event: Event) {
        if self.events.is_closed() {
            self.backlog.clear();
        } else if ends_dialog(&event) && !self.backlog.is_empty() {
            self.backlog.push_back(event);
            return;
        }
        match self.events.try_send(event) {
            Ok(()) => {}
            Err(TrySendError::Full(event)) if ends_dialog(&event) => self.backlog.push_back(event),
            Err(TrySendError::Full(event) | TrySendError::Closed(event)) => self.give_up(&event),
        }
    }

    fn tell_backlog(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.backlog.push_front(event);
                    return;
                }
                Err(TrySendError::Closed(_)) => self.backlog.clear(),
            }
        }
    }

    /// The event queue is full: the call that `event` belongs to cannot go on.
    fn give_up(&mut self, event: &Event) {
        let dialog: DialogId = event.dialog();
        warn!(?dialog, "no place for a SIP event, its call is ended");
        let command = match event {
            Event::Invite { .. } => Command::Refuse {
                dialog,
                status: Status::SERVICE_UNAVAILABLE,
                reason: Status::SERVICE_UNAVAILABLE.reason().to_owned(),
                headers: vec![("Retry-After".to_owned(), "5".to_owned())],
            },
            Event::ReferAsked { .. } => {
                Command::TellReferrer { dialog, status: Status::SERVICE_UNAVAILABLE }
            }
            Event::Heard { .. }
            | Event::Acknowledged { .. }
            | Event::Reinvite { .. }
            | Event::Info { .. }
            | Event::Progress { .. }
            | Event::Answered { .. }
            | Event::Refreshed { .. }
            | Event::Referred { .. }
            | Event::Lost { .. }
            | Event::Refused { .. }
            | Event::Canceled { .. }
            | Event::Bye { .. }
            | Event::Ended { .. } => Command::Bye { dialog, reason: None },
        };
        self.endpoint.handle_command(command, now());
    }
}

fn set_users(endpoint: &mut Endpoint, users: &[User]) {
    let users = users.iter().map(|user| (user.name.as_str(), user.password.as_str()));
    endpoint.set_users(users, now());
}

/// Whether the event ends a dialog. The owner of the call must get it, or it would wait for ever.
fn ends_dialog(event: &Event) -> bool {
    match event {
        Event::Lost { .. }
        | Event::Refused { .. }
        | Event::Canceled { .. }
        | Event::Bye { .. }
        | Event::Ended { .. } => true,
        Event::Invite { .. }
        | Event::Heard { .. }
        | Event::Progress { .. }
        | Event::Answered { .. }
        | Event::Refreshed { .. }
        | Event::Referred { .. }
        | Event::ReferAsked { .. }
        | Event::Acknowledged { .. }
        | Event::Reinvite { .. }
        | Event::Info { .. } => false,
    }
}

/// The one clock of this module. It is the tokio runtime's, so that tests can pause it.
fn now() -> Instant {
    TokioInstant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use tokio::{net::UdpSocket, time::timeout};
    use tracing::Subscriber;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;
    use crate::drivers::signalling::StreamLimits;
    use aftertone_core::proto::sip::path::Transport;

    #[tokio::test]
    async fn a_call_goes_over_a_real_socket() {
        let mut node = Node::start("0.0.0.0:0", 16).await;
        let phone = Phone::new(node.address).await;
        phone.send("INVITE", 1, "one", "").await;
        assert!(phone.receive().await.starts_with("SIP/2.0 100 "));
        let Event::Invite { dialog, invite } = node.event().await else { panic!("no Invite") };
        let local = SocketAddr::new([127, 0, 0, 1].into(), node.address.port());
        assert_eq!(invite.path.local, local, "the address that the phone reached");

        let sdp = b"v=0\r\n".to_vec();
        node.signalling.send(Command::Answer { dialog, sdp }).await;
        let ok = phone.receive().await;
        assert!(ok.starts_with("SIP/2.0 200 "), "{ok}");
        assert!(ok.contains(&format!("Contact: <sip:aftertone@{local}>")), "{ok}");
        let tag = ok.split("To: <sip:100@127.0.0.1>").nth(1).unwrap().lines().next().unwrap();
        phone.send("ACK", 1, "one-ack", tag).await;
        assert!(matches!(node.event().await, Event::Acknowledged { .. }));
        phone.send("BYE", 2, "one-bye", tag).await;
        assert!(phone.receive().await.starts_with("SIP/2.0 200 "));
        assert!(matches!(node.event().await, Event::Bye { .. }));
        node.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn each_call_of_a_burst_is_told_once() {
        let mut node = Node::start("127.0.0.1:0", 256).await;
        let phone = Phone::new(node.address).await;
        let mut calls = BTreeSet::new();
        // The socket's buffer holds fewer than 200 messages when the reader does not run at once.
        // Lost requests are sent again, as any phone does.
        for _attempt in 0..5 {
            for index in 0..200 {
                if !calls.contains(&format!("burst-{index}@127.0.0.1")) {
                    phone.send("INVITE", 1, &format!("burst-{index}"), "").await;
                }
            }
            let heard = Duration::from_millis(500);
            while let Ok(Some(event)) = timeout(heard, node.events.recv()).await {
                let Event::Invite { invite, .. } = event else { panic!("{event:?}") };
                assert!(calls.insert(invite.call_id), "told twice");
            }
            if calls.len() == 200 {
                break;
            }
        }
        assert_eq!(calls.len(), 200);
        node.stop().await;
    }

    #[tokio::test]
    async fn a_call_that_nobody_can_take_is_refused() {
        let mut node = Node::start("127.0.0.1:0", 1).await;
        let phone = Phone::new(node.address).await;
        phone.send("INVITE", 1, "first", "").await;
        assert!(phone.receive().await.starts_with("SIP/2.0 100 "));
        phone.send("INVITE", 1, "second", "").await;
        assert!(phone.receive().await.starts_with("SIP/2.0 100 "));
        let refusal = phone.receive().await;
        assert!(refusal.starts_with("SIP/2.0 503 "), "{refusal}");
        assert!(refusal.contains("Retry-After: "), "{refusal}");
        assert!(matches!(node.event().await, Event::Invite { .. }));
        node.stop().await;
    }

    #[tokio::test]
    async fn the_end_of_a_call_waits_until_it_is_heard() {
        let mut node = Node::start("127.0.0.1:0", 1).await;
        let phone = Phone::new(node.address).await;
        phone.send("INVITE", 1, "canceled", "").await;
        assert!(phone.receive().await.starts_with("SIP/2.0 100 "));
        phone.send("CANCEL", 1, "canceled", "").await;
        assert!(phone.receive().await.starts_with("SIP/2.0 200 "));
        assert!(phone.receive().await.starts_with("SIP/2.0 487 "));
        assert!(matches!(node.event().await, Event::Invite { .. }));
        assert!(matches!(node.event().await, Event::Canceled { .. }));
        node.stop().await;
    }

    #[tokio::test]
    async fn a_farewell_lasts_until_the_peer_has_answered() {
        let mut node = Node::start("127.0.0.1:0", 16).await;
        let phone = Phone::new(node.address).await;
        assert!(node.signalling.farewell(Duration::from_secs(5)).await, "nobody is there");
        phone.send("INVITE", 1, "long", "").await;
        assert!(phone.receive().await.starts_with("SIP/2.0 100 "));
        let Event::Invite { dialog, .. } = node.event().await else { panic!("no Invite") };
        node.signalling.send(Command::Answer { dialog, sdp: b"v=0\r\n".to_vec() }).await;
        let ok = phone.receive().await;
        // Before the ACK there can be no BYE.
        node.signalling.send(Command::Bye { dialog, reason: None }).await;
        let signalling = node.signalling.clone();
        let farewell =
            tokio::spawn(async move { signalling.farewell(Duration::from_secs(30)).await });
        let tag = ok.split("To: <sip:100@127.0.0.1>").nth(1).unwrap().lines().next().unwrap();
        phone.send("ACK", 1, "long-ack", tag).await;
        let mut byes = Vec::new();
        while byes.len() < 3 {
            byes.push(phone.receive().await);
            byes.retain(|message| message.starts_with("BYE "));
        }
        assert!(!farewell.is_finished());
        phone.answer(&byes[2]).await;
        assert!(farewell.await.unwrap());
        node.stop().await;
    }

    /// Counts the log lines of level ERROR.
    struct Errors(Arc<AtomicU64>);

    impl<S: Subscriber> Layer<S> for Errors {
        fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
            let is_error = *event.metadata().level() == tracing::Level::ERROR;
            self.0.fetch_add(u64::from(is_error), Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn a_node_that_is_stopped_complains_of_nothing() {
        let errors = Arc::new(AtomicU64::new(0));
        let log = tracing_subscriber::registry().with(Errors(Arc::clone(&errors)));
        let _guard = tracing::subscriber::set_default(log);
        // Which task sees the shutdown first is not determined, so the test repeats it.
        for _ in 0..20 {
            Node::start("127.0.0.1:0", 1).await.stop().await;
        }
        assert_eq!(errors.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_draining_node_takes_no_calls() {
        let node = Node::start("127.0.0.1:0", 1).await;
        let phone = Phone::new(node.address).await;
        node.signalling.set_draining(true).await;
        // The order may overtake the datagram or not; a repeated request settles it.
        let mut status = String::new();
        while !status.starts_with("SIP/2.0 503 ") {
            phone.send("OPTIONS", 1, "draining", "").await;
            status = phone.receive().await;
        }
        node.stop().await;
    }

    /// The service and its events.
    struct Node {
        signalling: Signalling,
        address: SocketAddr,
        events: mpsc::Receiver<Event>,
        cancel: CancellationToken,
        task: JoinHandle<()>,
    }

    impl Node {
        async fn start(listen: &str, places: usize) -> Self {
            let address = listen.parse().unwrap();
            let config = SignallingConfig {
                listen: vec![SipListener { transport: Transport::Udp, address }],
                advertised: None,
                server_name: "test".to_owned(),
                realm: "test".to_owned(),
                domain: String::new(),
                digest: Vec::new(),
                users: Vec::new(),
                tls: TlsFiles::default(),
                trusted_peers: vec!["127.0.0.0/8".parse().unwrap()],
                web_origins: Vec::new(),
                limits: StreamLimits::default(),
            };
            let (sender, events) = mpsc::channel(places);
            let cancel = CancellationToken::new();
            let (signalling, bound, task) = start(config, sender, cancel.clone()).await.unwrap();
            Self { signalling, address: bound[0].address, events, cancel, task }
        }

        async fn event(&mut self) -> Event {
            timeout(Duration::from_secs(5), self.events.recv()).await.unwrap().unwrap()
        }

        async fn stop(self) {
            self.cancel.cancel();
            timeout(Duration::from_secs(5), self.task).await.unwrap().unwrap();
        }
    }

    struct Phone {
        socket: UdpSocket,
    }

    impl Phone {
        async fn new(node: SocketAddr) -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.connect(("127.0.0.1", node.port())).await.unwrap();
            Self { socket }
        }

        /// Sends a request of the call and branch `name`.
        async fn send(&self, method: &str, cseq: u32, name: &str, to_tag: &str) {
            let local = self.socket.local_addr().unwrap();
            let call = name.split("-ack").next().unwrap().split("-bye").next().unwrap();
            let request = format!(
                "{method} sip:100@127.0.0.1 SIP/2.0\r\n\
                 Via: SIP/2.0/UDP {local};branch=z9hG4bK-{name};rport\r\n\
                 Max-Forwards: 70\r\n\
                 From: <sip:phone@127.0.0.1>;tag=phone\r\n\
                 To: <sip:100@127.0.0.1>{to_tag}\r\n\
                 Call-ID: {call}@127.0.0.1\r\n\
                 CSeq: {cseq} {method}\r\n\
                 Contact: <sip:phone@{local}>\r\n\
                 Content-Length: 0\r\n\r\n"
            );
            self.socket.send(request.as_bytes()).await.unwrap();
        }

        /// Answers a request with 200.
        async fn answer(&self, request: &str) {
            let copied = ["Via:", "From:", "To:", "Call-ID:", "CSeq:"];
            let is_copied = |line: &&str| copied.iter().any(|name| line.starts_with(name));
            let lines: Vec<&str> = request.lines().filter(is_copied).collect();
            let lines = lines.join("\r\n");
            let ok = format!("SIP/2.0 200 OK\r\n{lines}\r\nContent-Length: 0\r\n\r\n");
            self.socket.send(ok.as_bytes()).await.unwrap();
        }

        async fn receive(&self) -> String {
            let mut buffer = vec![0; 65_535];
            let length =
                timeout(Duration::from_secs(5), self.socket.recv(&mut buffer)).await.unwrap();
            String::from_utf8(buffer[..length.unwrap()].to_vec()).unwrap()
        }
    }
}
