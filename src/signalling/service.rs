//! The task that owns the SIP endpoint: one loop over datagrams, commands and one timer.
//!
//! It waits for nobody. A call whose queue of events is full is ended here: an INVITE is refused with
//! 503, a dialog gets a BYE. The events that end a dialog are never lost: they wait in a backlog,
//! which is bounded by the number of dialogs.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::{JoinHandle, JoinSet},
    time::{Instant as TokioInstant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, trace, warn};

use super::udp::{Datagram, Listener, local_address};
use crate::proto::sip::{
    dialog::DialogId,
    endpoint::{Command, Endpoint, EndpointConfig, Event, Output},
    path::{Path, Transmit},
    uri::Uri,
};

/// Datagrams that wait for the endpoint; more wait in the sockets' buffers.
const DATAGRAMS: usize = 4_096;
/// Commands that wait for the endpoint; senders wait beyond that.
const COMMANDS: usize = 1_024;
/// Datagrams or commands that are taken before the timer is looked at again.
const BATCH: usize = 64;

/// What the signalling room needs to know.
#[derive(Debug, Clone)]
pub struct SignallingConfig {
    /// UDP addresses to listen on; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// The address that Contact and Via tell; `None` tells the one that the peer reached.
    pub advertised: Option<IpAddr>,
    /// Server and User-Agent header field.
    pub server_name: String,
}

/// Why nobody can be reached there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LocateError {
    /// No address, or none that we could send to.
    #[error("no address that we could send to")]
    NoWay,
}

/// The way to the endpoint, for those who hold calls.
#[derive(Debug, Clone)]
pub struct Signalling {
    orders: mpsc::Sender<Order>,
    /// Dialogs that were asked for so far.
    dialogs: Arc<AtomicU64>,
    /// Where we listen.
    bound: Arc<[SocketAddr]>,
}

#[derive(Debug)]
enum Order {
    Command(Command),
    Draining(bool),
}

impl Signalling {
    /// Sends a command; waits while the queue is full. After the service has ended it is dropped:
    /// then there is no dialog left that it could be for.
    pub async fn send(&self, command: Command) {
        self.order(Order::Command(command)).await;
    }

    /// While draining, new calls and OPTIONS are answered by 503.
    pub async fn set_draining(&self, draining: bool) {
        self.order(Order::Draining(draining)).await;
    }

    /// A dialog for a call that is to be placed.
    pub fn fresh_dialog(&self) -> DialogId {
        DialogId(DialogId::FIRST_OUTGOING + self.dialogs.fetch_add(1, Ordering::Relaxed))
    }

    /// Which ways lead to whoever `uri` names, the best first (RFC 3263).
    ///
    /// # Errors
    /// There is none, or we have no socket that could send there.
    pub async fn locate(&self, uri: &Uri) -> Result<Vec<Path>, LocateError> {
        let ip = uri.ip_addr().ok_or(LocateError::NoWay)?;
        let peer = SocketAddr::new(ip, uri.port().unwrap_or(5060));
        let bound = self.bound.iter().find(|bound| bound.is_ipv4() == peer.is_ipv4());
        let bound = bound.ok_or(LocateError::NoWay)?;
        let local = local_address(*bound, peer).ok_or(LocateError::NoWay)?;
        Ok(vec![Path::udp(local, peer)])
    }

    async fn order(&self, order: Order) {
        if let Err(mpsc::error::SendError(order)) = self.orders.send(order).await {
            debug!(?order, "signalling has ended, command is dropped");
        }
    }
}

/// Binds the sockets and starts the task; it ends on `cancel`, without farewell to the peers.
///
/// Returns the handle, the bound addresses in the order of `config.listen`, and the task.
///
/// # Errors
///
/// When an address cannot be bound.
pub async fn start(
    config: SignallingConfig,
    events: mpsc::Sender<Event>,
    cancel: CancellationToken,
) -> io::Result<(Signalling, Vec<SocketAddr>, JoinHandle<()>)> {
    let mut listeners = Vec::with_capacity(config.listen.len());
    for address in &config.listen {
        listeners.push(Listener::bind(*address).await?);
    }
    let bound: Vec<SocketAddr> = listeners.iter().map(Listener::bound).collect();
    let listeners_bound = Arc::from(bound.as_slice());

    let (datagram_sender, datagrams) = mpsc::channel(DATAGRAMS);
    let mut readers = JoinSet::new();
    for listener in &listeners {
        readers.spawn(listener.clone().read(datagram_sender.clone(), cancel.clone()));
    }

    let (orders, order_receiver) = mpsc::channel(COMMANDS);
    let endpoint_config =
        EndpointConfig { advertised: config.advertised, ..EndpointConfig::new(config.server_name) };
    let service = Service {
        endpoint: Endpoint::new(endpoint_config, StdRng::from_os_rng()),
        listeners,
        events,
        backlog: VecDeque::new(),
    };
    let task = tokio::spawn(service.run(datagrams, order_receiver, readers, cancel));
    let signalling = Signalling { orders, dialogs: Arc::default(), bound: listeners_bound };
    Ok((signalling, bound, task))
}

struct Service {
    endpoint: Endpoint,
    listeners: Vec<Listener>,
    events: mpsc::Sender<Event>,
    /// Last events of dialogs, for which there was no place.
    backlog: VecDeque<Event>,
}

/// What woke the service.
enum Wake {
    Datagram(Datagram),
    Order(Order),
    Timer,
    Place,
    End,
}

impl Service {
    async fn run(
        mut self,
        mut datagrams: mpsc::Receiver<Datagram>,
        mut orders: mpsc::Receiver<Order>,
        mut readers: JoinSet<()>,
        cancel: CancellationToken,
    ) {
        loop {
            let deadline = self.endpoint.poll_timeout();
            let timer = async {
                match deadline {
                    Some(deadline) => sleep_until(TokioInstant::from_std(deadline)).await,
                    None => std::future::pending().await,
                }
            };
            let wake = tokio::select! {
                () = cancel.cancelled() => Wake::End,
                () = timer => Wake::Timer,
                Some(datagram) = datagrams.recv() => Wake::Datagram(datagram),
                Some(order) = orders.recv() => Wake::Order(order),
                Ok(permit) = self.events.reserve(), if !self.backlog.is_empty() => {
                    drop(permit);
                    Wake::Place
                }
                Some(ended) = readers.join_next() => {
                    error!(?ended, "a SIP reader has ended");
                    continue;
                }
                else => Wake::End,
            };
            match wake {
                Wake::Datagram(datagram) => {
                    self.handle_datagram(datagram).await;
                    for _ in 1..BATCH {
                        let Ok(datagram) = datagrams.try_recv() else { break };
                        self.handle_datagram(datagram).await;
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
                    self.turn("timer", |endpoint| endpoint.handle_timeout(now())).await;
                }
                Wake::Place => self.tell_backlog(),
                Wake::End => break,
            }
        }
        readers.shutdown().await;
    }

    async fn handle_datagram(&mut self, Datagram { path, bytes }: Datagram) {
        trace!(peer = %path.peer, message = %String::from_utf8_lossy(&bytes), "SIP in");
        self.turn("datagram", |endpoint| endpoint.handle_message(&bytes, path, now())).await;
    }

    async fn handle_order(&mut self, order: Order) {
        self.turn("command", |endpoint| match order {
            Order::Command(command) => endpoint.handle_command(command, now()),
            Order::Draining(draining) => endpoint.set_draining(draining),
        })
        .await;
    }

    /// Changes the endpoint, then carries out what it has to say. No input is known that makes it
    /// panic; if there is one, it must not end all other calls.
    async fn turn(&mut self, input: &'static str, change: impl FnOnce(&mut Endpoint)) {
        let changed = catch_unwind(AssertUnwindSafe(|| change(&mut self.endpoint)));
        if changed.is_err() {
            error!(input, "the SIP endpoint has panicked; the input is dropped");
        }
        self.drain().await;
    }

    /// Carries out everything that the endpoint has to say.
    async fn drain(&mut self) {
        while let Some(output) = self.endpoint.poll_output() {
            match output {
                Output::Transmit(transmit) => self.transmit(transmit).await,
                Output::Event(event) => self.tell(event),
            }
        }
    }

    async fn transmit(&self, Transmit { path, bytes }: Transmit) {
        trace!(peer = %path.peer, message = %String::from_utf8_lossy(&bytes), "SIP out");
        let fittest = self
            .listeners
            .iter()
            .filter_map(|listener| Some((listener.fitness(path.local)?, listener)))
            .max_by_key(|(fitness, _)| *fitness);
        match fittest {
            Some((_, listener)) => listener.send(&bytes, path.peer).await,
            None => warn!(local = %path.local, "no SIP socket for this address"),
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

    /// Nobody took `event`: its call cannot go on.
    fn give_up(&mut self, event: &Event) {
        let dialog: DialogId = event.dialog();
        warn!(?dialog, "no place for a SIP event, its call is ended");
        let command = match event {
            Event::Invite { .. } => Command::Refuse {
                dialog,
                status: 503,
                reason: "Service Unavailable".to_owned(),
                headers: vec![("Retry-After".to_owned(), "5".to_owned())],
            },
            Event::Acknowledged { .. }
            | Event::Reinvite { .. }
            | Event::Info { .. }
            | Event::Progress { .. }
            | Event::Answered { .. }
            | Event::Refreshed { .. }
            | Event::Lost { .. }
            | Event::Refused { .. }
            | Event::Canceled { .. }
            | Event::Bye { .. }
            | Event::Ended { .. } => Command::Bye { dialog, reason: None },
        };
        self.endpoint.handle_command(command, now());
    }
}

/// The owner of the call must hear this, or it would wait for ever.
fn ends_dialog(event: &Event) -> bool {
    match event {
        Event::Lost { .. }
        | Event::Refused { .. }
        | Event::Canceled { .. }
        | Event::Bye { .. }
        | Event::Ended { .. } => true,
        Event::Invite { .. }
        | Event::Progress { .. }
        | Event::Answered { .. }
        | Event::Refreshed { .. }
        | Event::Acknowledged { .. }
        | Event::Reinvite { .. }
        | Event::Info { .. } => false,
    }
}

/// The one clock of this room; the runtime's, so that tests can hold it.
fn now() -> Instant {
    TokioInstant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use tokio::{net::UdpSocket, time::timeout};

    use super::*;

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
        // The socket's buffer holds fewer than 200 when the reader does not run at once. What is lost
        // comes again, as from any phone.
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
    async fn a_draining_node_takes_no_calls() {
        let node = Node::start("127.0.0.1:0", 1).await;
        let phone = Phone::new(node.address).await;
        node.signalling.set_draining(true).await;
        // The order overtakes the datagram or not; asking again settles it.
        let mut status = String::new();
        while !status.starts_with("SIP/2.0 503 ") {
            phone.send("OPTIONS", 1, "draining", "").await;
            status = phone.receive().await;
        }
        node.stop().await;
    }

    /// The service, and what it tells.
    struct Node {
        signalling: Signalling,
        address: SocketAddr,
        events: mpsc::Receiver<Event>,
        cancel: CancellationToken,
        task: JoinHandle<()>,
    }

    impl Node {
        async fn start(listen: &str, places: usize) -> Self {
            let config = SignallingConfig {
                listen: vec![listen.parse().unwrap()],
                advertised: None,
                server_name: "test".to_owned(),
            };
            let (sender, events) = mpsc::channel(places);
            let cancel = CancellationToken::new();
            let (signalling, bound, task) = start(config, sender, cancel.clone()).await.unwrap();
            Self { signalling, address: bound[0], events, cancel, task }
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

        async fn receive(&self) -> String {
            let mut buffer = vec![0; 65_535];
            let length =
                timeout(Duration::from_secs(5), self.socket.recv(&mut buffer)).await.unwrap();
            String::from_utf8(buffer[..length.unwrap()].to_vec()).unwrap()
        }
    }
}
