//! The table of streams: which peers may have one, and which one leads to a peer.
//!
//! Each stream has a task, which holds a [`Connection`]; the table holds the sender of its queue.
//! Messages for a peer that does not read wait in that bounded queue; when it is full, the stream
//! is given up. So no task ever waits for a peer. Stream ids are never used twice, so that an
//! answer cannot go to another peer than the one that sent the request.
//!
//! Some of the places are reserved for peers that the endpoint knows. When the places of strangers
//! are taken, the table closes the stranger's stream that was heard least recently, handshakes
//! included, unless the endpoint needs it: an attacker that wants to keep others out has to keep
//! sending on each of its streams.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::settings::StreamLimits;
use aftertone_core::proto::sip::{
    log_limiter::LineLimiter,
    path::{ConnectionId, Path, Transport},
    standing::{
        KnownPeers, LEAVING_STREAMS, QUEUE_TO_STRANGER, QUEUE_TO_TRUNK, QueueLimit,
        RESERVED_STREAMS, RETURNED_STREAMS, SipSource, Standing,
    },
    transmit::Transmit,
};

/// All streams of one node; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    table: Arc<Mutex<Table>>,
    limits: StreamLimits,
}

#[derive(Debug, Default)]
struct Table {
    last_id: u64,
    by_id: BTreeMap<ConnectionId, StreamEntry>,
    /// The newest stream to each peer.
    by_peer: BTreeMap<PeerKey, ConnectionId>,
    /// Streams of peers that are not trusted, from before their handshake.
    admitted: BTreeMap<ConnectionId, Admitted>,
    admitted_of_source: BTreeMap<SipSource, usize>,
    /// How many of the admitted streams belong to strangers.
    strangers: usize,
    /// Streams that were closed for another one, and whose tasks have not ended yet.
    leaving: BTreeSet<ConnectionId>,
    known: Arc<KnownPeers>,
    /// Log limiter for the line about closed streams.
    crowded: LineLimiter,
    opened: usize,
    returned: usize,
}

#[derive(Debug)]
struct Admitted {
    source: SipSource,
    /// The stream comes from a web page of another origin: its source address says nothing about
    /// it.
    is_foreign: bool,
    /// The endpoint does not know the peer.
    is_stranger: bool,
    /// The endpoint needs the stream.
    is_needed: bool,
    /// When the last bytes came, or when it began.
    heard: Instant,
    given_up: CancellationToken,
}

/// Transport, address, and the host that the peer's certificate names.
type PeerKey = (Transport, SocketAddr, Option<String>);

#[derive(Debug)]
struct StreamEntry {
    key: PeerKey,
    origin: Origin,
    /// When the last bytes came, or when it began.
    heard: Instant,
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    given_up: CancellationToken,
}

/// Which side opened the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The peer, which may be a stranger.
    Accepted,
    /// A peer that is trusted.
    Trusted,
    /// This node.
    Opened,
    /// This node, because the stream of a request that needs a response has gone, or that of a call
    /// with a stranger in which we have a request to send.
    Returned,
}

/// What says how far the peer of a new stream is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JudgedBy {
    /// The operator, who trusts its address.
    Operator,
    /// Its source address.
    Source,
    /// Its stream alone: it is a web page of another origin, whatever its address.
    Stream,
}

impl Origin {
    fn queue_limit(self) -> QueueLimit {
        match self {
            Self::Accepted | Self::Returned => QUEUE_TO_STRANGER,
            Self::Trusted | Self::Opened => QUEUE_TO_TRUNK,
        }
    }
}

/// What waits to be written to a stream.
#[derive(Debug)]
pub(super) enum Queued {
    /// One message, and its part of the queue.
    Message(Transmit, OwnedSemaphorePermit),
    /// The answer to a ping.
    Pong,
}

/// A stream, as its task holds it. Dropping it removes it from the table.
#[derive(Debug)]
pub(super) struct Connection {
    /// Its id.
    pub id: ConnectionId,
    /// The queue of what is to be written. It ends when the endpoint needs the stream no more.
    pub queue: mpsc::Receiver<Queued>,
    /// Cancelled when the stream is given up, such as when the peer does not read: nothing more is
    /// written.
    pub given_up: CancellationToken,
    connections: Connections,
}

/// The permission to have a stream.
#[derive(Debug)]
pub(super) struct Admission {
    /// The id that the stream will have.
    id: ConnectionId,
    origin: Origin,
    /// Cancelled when another peer gets the place, or the peer does not read.
    pub given_up: CancellationToken,
    connections: Connections,
}

/// The result of [`Connections::send`].
#[derive(Debug)]
pub(super) enum Sent {
    /// It will be written, or reported as not delivered.
    Queued,
    /// The peer does not read; the stream is given up.
    GivenUp(Path),
    /// There is no such stream.
    NoConnection(Transmit),
}

impl Connections {
    /// An empty table.
    pub(super) fn new(limits: StreamLimits) -> Self {
        Self { table: Arc::default(), limits }
    }

    /// Asks for a stream from `peer`; `None` when there are too many. Streams of trusted peers are
    /// not counted.
    pub(super) fn admit(&self, peer: IpAddr, judged_by: JudgedBy) -> Option<Admission> {
        let mut table = self.table();
        let id = table.fresh_id();
        let given_up = CancellationToken::new();
        let origin = match judged_by {
            JudgedBy::Operator => Origin::Trusted,
            JudgedBy::Source | JudgedBy::Stream => Origin::Accepted,
        };
        if judged_by != JudgedBy::Operator {
            let source = SipSource::from(peer);
            let is_foreign = judged_by == JudgedBy::Stream;
            let is_stranger = is_foreign || table.known.at(source) == Standing::Stranger;
            let of_source = table.admitted_of_source.get(&source).copied().unwrap_or_default();
            if of_source >= self.limits.connections_of_a_source
                || !table.makes_room(is_stranger, self.limits.connections)
            {
                return None;
            }
            table.strangers += usize::from(is_stranger);
            *table.admitted_of_source.entry(source).or_default() += 1;
            let (heard, given_up) = (Instant::now(), given_up.clone());
            let is_needed = false;
            let admitted = Admitted { source, is_foreign, is_stranger, is_needed, heard, given_up };
            table.admitted.insert(id, admitted);
        }
        Some(Admission { id, origin, given_up, connections: self.clone() })
    }

    /// Puts a stream that a peer has opened into the table, after its handshake.
    pub(super) fn begin(
        &self,
        admission: &Admission,
        transport: Transport,
        peer: SocketAddr,
    ) -> Connection {
        let Admission { id, origin, ref given_up, .. } = *admission;
        self.enter(&mut self.table(), id, (transport, peer, None), origin, given_up.clone())
    }

    /// Puts a stream that we open into the table; over TLS, the peer must prove to be `host`.
    /// `None` when there are too many. Streams for answers to strangers, which may name any port,
    /// take at most an eighth of the places.
    pub(super) fn open(
        &self,
        transport: Transport,
        peer: SocketAddr,
        origin: Origin,
        host: Option<String>,
    ) -> Option<Connection> {
        let mut table = self.table();
        let limits = self.limits;
        match origin {
            Origin::Opened if table.opened < limits.opened => table.opened += 1,
            Origin::Returned if table.returned < RETURNED_STREAMS.of(limits.opened) => {
                table.returned += 1
            }
            Origin::Opened | Origin::Returned => return None,
            Origin::Accepted | Origin::Trusted => {
                debug_assert!(false, "who comes to us is admitted");
                return None;
            }
        }
        let id = table.fresh_id();
        let given_up = CancellationToken::new();
        Some(self.enter(&mut table, id, (transport, peer, host), origin, given_up))
    }

    fn enter(
        &self,
        table: &mut Table,
        id: ConnectionId,
        key: PeerKey,
        origin: Origin,
        given_up: CancellationToken,
    ) -> Connection {
        let limit = origin.queue_limit();
        let (sender, queue) = mpsc::channel(limit.messages);
        let entry = StreamEntry {
            key: key.clone(),
            origin,
            heard: Instant::now(),
            queue: sender,
            room: Arc::new(Semaphore::new(limit.bytes)),
            given_up: given_up.clone(),
        };
        table.by_id.insert(id, entry);
        // Over TLS a request goes only to a stream on which we have verified the peer. On a stream
        // that the peer has opened, answers are sent by the stream's id.
        if key.0 != Transport::Tls || matches!(origin, Origin::Opened | Origin::Returned) {
            table.by_peer.insert(key, id);
        }
        Connection { id, queue, given_up, connections: self.clone() }
    }

    /// Takes over the sources that the endpoint knows, and the streams that it needs.
    pub(super) fn introduce(&self, known: Arc<KnownPeers>, needed: &BTreeSet<ConnectionId>) {
        let mut table = self.table();
        for (id, admitted) in &mut table.admitted {
            let standing =
                if admitted.is_foreign { known.over(*id) } else { known.at(admitted.source) };
            admitted.is_stranger = standing == Standing::Stranger;
            admitted.is_needed = needed.contains(id);
        }
        table.strangers = table.admitted.values().filter(|it| it.is_stranger).count();
        table.known = known;
    }

    /// Sends over the stream that the path names, or else over another one to the same peer (RFC
    /// 5923), which over TLS must have proved to be the same `host`.
    pub(super) fn send(&self, transmit: Transmit, host: Option<&str>) -> Sent {
        let path = transmit.path;
        let mut table = self.table();
        let Some((id, entry)) = table.find(path, host) else { return Sent::NoConnection(transmit) };
        let bytes = u32::try_from(transmit.bytes.len()).unwrap_or(u32::MAX);
        let queued = Arc::clone(&entry.room)
            .try_acquire_many_owned(bytes)
            .is_ok_and(|room| entry.queue.try_send(Queued::Message(transmit, room)).is_ok());
        if queued {
            return Sent::Queued;
        }
        debug!(?id, peer = %path.peer, "peer does not read; its connection is given up");
        entry.given_up.cancel();
        table.remove(id);
        Sent::GivenUp(path)
    }

    /// The peer of this stream, unless a newer stream leads there.
    pub(super) fn peer_reached_by(&self, id: ConnectionId) -> Option<(Transport, SocketAddr)> {
        let table = self.table();
        let entry = table.by_id.get(&id)?;
        let (transport, peer, _) = entry.key;
        (table.by_peer.get(&entry.key) == Some(&id)).then_some((transport, peer))
    }

    /// Notes that bytes came by this stream.
    pub(super) fn heard(&self, id: ConnectionId) {
        let (mut table, now) = (self.table(), Instant::now());
        if let Some(entry) = table.by_id.get_mut(&id) {
            entry.heard = now;
        }
        if let Some(admitted) = table.admitted.get_mut(&id) {
            admitted.heard = now;
        }
    }

    /// How long a stream may be silent until the endpoint is asked whether it needs it.
    pub(super) fn idle(&self, id: ConnectionId) -> Duration {
        match self.table().admitted.get(&id) {
            Some(admitted) if admitted.is_stranger => self.limits.idle_of_strangers,
            _ => self.limits.idle,
        }
    }

    /// Gives up the stream that this path names if nothing came by it for `silence`.
    pub(super) fn give_up_silent(&self, path: Path, host: Option<&str>, silence: Duration) {
        let mut table = self.table();
        let Some((id, entry)) = table.find(path, host) else { return };
        if entry.heard.elapsed() >= silence {
            debug!(?id, peer = %path.peer, "peer is silent; its connection is given up");
            entry.given_up.cancel();
            table.remove(id);
        }
    }

    /// Answers a ping, if the queue has room.
    pub(super) fn pong(&self, id: ConnectionId) {
        if let Some(entry) = self.table().by_id.get(&id) {
            // A peer whose pong is missing notices that itself.
            let _ = entry.queue.try_send(Queued::Pong);
        }
    }

    /// Sends nothing more over this stream; it ends after the queued messages are written.
    pub(super) fn close(&self, id: ConnectionId) {
        self.table().remove(id);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn fresh_id(&mut self) -> ConnectionId {
        self.last_id += 1;
        ConnectionId(self.last_id)
    }

    /// Whether one more stream of `places` may be admitted; may close a stranger's stream that is
    /// not needed.
    fn makes_room(&mut self, is_stranger: bool, places: usize) -> bool {
        let is_full = self.admitted.len() >= places
            || (is_stranger && self.strangers >= RESERVED_STREAMS.rest_of(places));
        if !is_full {
            return true;
        }
        if let Some(tell) = self.crowded.note(Instant::now().into_std()) {
            let (strangers, unsaid) = (self.strangers, tell.unsaid);
            warn!(strangers, places, unsaid, "too many SIP connections; strangers' give way");
        }
        if self.leaving.len() >= LEAVING_STREAMS.at_least_one_of(places) {
            return false;
        }
        let quietest = self
            .admitted
            .iter()
            .filter(|(_, admitted)| admitted.is_stranger && !admitted.is_needed)
            .min_by_key(|(_, admitted)| admitted.heard)
            .map(|(id, _)| *id);
        let Some(gone) = quietest.and_then(|id| Some((id, self.take_back(id)?))) else {
            return false;
        };
        let (id, Admitted { given_up, .. }) = gone;
        debug!(?id, "a stranger's connection gives way to another");
        given_up.cancel();
        self.remove(id);
        self.leaving.insert(id);
        true
    }

    fn take_back(&mut self, id: ConnectionId) -> Option<Admitted> {
        let admitted = self.admitted.remove(&id)?;
        self.strangers -= usize::from(admitted.is_stranger);
        match self.admitted_of_source.get_mut(&admitted.source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                self.admitted_of_source.remove(&admitted.source);
            }
        }
        Some(admitted)
    }

    fn find(&self, path: Path, host: Option<&str>) -> Option<(ConnectionId, &StreamEntry)> {
        let named = path.connection.and_then(|id| Some((id, self.by_id.get(&id)?)));
        named.or_else(|| {
            let key = (path.transport, path.peer, host.map(str::to_owned));
            let id = *self.by_peer.get(&key)?;
            Some((id, self.by_id.get(&id)?))
        })
    }

    fn remove(&mut self, id: ConnectionId) {
        let Some(entry) = self.by_id.remove(&id) else { return };
        match entry.origin {
            Origin::Opened => self.opened -= 1,
            Origin::Returned => self.returned -= 1,
            Origin::Accepted | Origin::Trusted => {}
        }
        if self.by_peer.get(&entry.key) == Some(&id) {
            self.by_peer.remove(&entry.key);
        }
    }
}

impl Connection {
    /// Ends the queue, and gives the paths of the messages in it.
    pub(super) fn into_undelivered(mut self) -> Vec<Path> {
        self.connections.close(self.id);
        let mut paths = Vec::new();
        while let Ok(queued) = self.queue.try_recv() {
            if let Queued::Message(transmit, _) = queued {
                paths.push(transmit.path);
            }
        }
        paths
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.close(self.id);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        if !table.leaving.remove(&self.id) {
            table.take_back(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use aftertone_core::proto::sip::transmit::NextHop;
    use bytes::Bytes;

    use super::*;

    fn peer() -> SocketAddr {
        "192.0.2.1:5060".parse().unwrap()
    }

    fn connections(connections: usize, connections_of_a_source: usize) -> Connections {
        let limits = StreamLimits { connections, connections_of_a_source, ..Default::default() };
        Connections::new(limits)
    }

    fn transmit(transport: Transport, connection: Option<ConnectionId>, length: usize) -> Transmit {
        let local = "192.0.2.9:5060".parse().unwrap();
        let path = Path { transport, connection, ..Path::udp(local, peer()) };
        Transmit { path, next_hop: NextHop::Peer, bytes: Bytes::from(vec![b'x'; length]) }
    }

    /// A stream that the peer has opened.
    fn accepted(all: &Connections, transport: Transport) -> Connection {
        all.begin(&all.admit(peer().ip(), JudgedBy::Source).unwrap(), transport, peer())
    }

    fn opened(all: &Connections, transport: Transport, host: Option<String>) -> Connection {
        all.open(transport, peer(), Origin::Opened, host).unwrap()
    }

    fn waiting(connection: &Connection) -> usize {
        connection.queue.len()
    }

    #[test]
    fn a_message_takes_its_own_stream_else_the_newest_to_the_same_peer() {
        let all = connections(10, 10);
        let old = accepted(&all, Transport::Tcp);
        let new = opened(&all, Transport::Tcp, None);
        assert!(matches!(all.send(transmit(Transport::Tcp, Some(old.id), 1), None), Sent::Queued));
        assert!(matches!(all.send(transmit(Transport::Tcp, None, 1), None), Sent::Queued));
        assert_eq!((waiting(&old), waiting(&new)), (1, 1));
        let gone = old.id;
        drop(old);
        assert!(matches!(all.send(transmit(Transport::Tcp, Some(gone), 1), None), Sent::Queued));
        assert_eq!(waiting(&new), 2);
        drop(new);
        let sent = all.send(transmit(Transport::Tcp, Some(gone), 1), None);
        assert!(matches!(sent, Sent::NoConnection(_)));
        assert!(matches!(all.send(transmit(Transport::Ws, None, 1), None), Sent::NoConnection(_)));
    }

    #[test]
    fn over_tls_a_request_goes_only_where_we_verified_who_is_there() {
        let all = connections(10, 10);
        let accepted = accepted(&all, Transport::Tls);
        assert!(matches!(all.send(transmit(Transport::Tls, None, 1), None), Sent::NoConnection(_)));
        assert!(matches!(
            all.send(transmit(Transport::Tls, Some(accepted.id), 1), None),
            Sent::Queued
        ));
    }

    #[test]
    fn over_tls_a_stream_is_used_again_for_the_same_host_only() {
        let all = connections(10, 10);
        let host = |name: &str| Some(name.to_owned());
        let one = opened(&all, Transport::Tls, host("one.example"));
        let plain = || transmit(Transport::Tls, None, 1);
        assert!(matches!(all.send(plain(), Some("two.example")), Sent::NoConnection(_)));
        assert!(matches!(all.send(plain(), None), Sent::NoConnection(_)));
        let two = opened(&all, Transport::Tls, host("two.example"));
        assert!(matches!(all.send(plain(), Some("one.example")), Sent::Queued));
        assert_eq!((waiting(&one), waiting(&two)), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_given_up_when_nothing_came_by_it() {
        let all = connections(10, 10);
        let silence = Duration::from_secs(32);
        let (silent, alive) = (peer(), "192.0.2.2:5060".parse().unwrap());
        let path = |peer| Path { peer, ..transmit(Transport::Tcp, None, 1).path };
        let dead = all.open(Transport::Tcp, silent, Origin::Opened, None).unwrap();
        let other = all.open(Transport::Tcp, alive, Origin::Opened, None).unwrap();
        tokio::time::advance(silence / 2).await;
        all.heard(other.id);
        tokio::time::advance(silence / 2).await;
        all.give_up_silent(path(silent), None, silence);
        all.give_up_silent(path(alive), None, silence);
        assert!(dead.given_up.is_cancelled() && !other.given_up.is_cancelled());
        let sent = all.send(transmit(Transport::Tcp, Some(dead.id), 1), None);
        assert!(matches!(sent, Sent::NoConnection(_)));
    }

    #[test]
    fn numbers_are_never_used_twice() {
        let all = connections(10, 10);
        let first = accepted(&all, Transport::Tcp).id;
        assert!(accepted(&all, Transport::Tcp).id > first);
    }

    #[test]
    fn a_peer_that_does_not_read_is_given_up() {
        let all = connections(10, 10);
        let full = accepted(&all, Transport::Tcp);
        for _ in 0..QUEUE_TO_STRANGER.messages {
            assert!(matches!(all.send(transmit(Transport::Tcp, None, 9), None), Sent::Queued));
        }
        assert!(matches!(all.send(transmit(Transport::Tcp, None, 9), None), Sent::GivenUp(_)));
        assert!(full.given_up.is_cancelled());
        assert!(matches!(all.send(transmit(Transport::Tcp, None, 9), None), Sent::NoConnection(_)));
        assert_eq!(full.into_undelivered().len(), QUEUE_TO_STRANGER.messages);

        let heavy = accepted(&all, Transport::Tcp);
        for _ in 0..QUEUE_TO_STRANGER.bytes / 60_000 {
            assert!(matches!(all.send(transmit(Transport::Tcp, None, 60_000), None), Sent::Queued));
        }
        assert!(matches!(all.send(transmit(Transport::Tcp, None, 60_000), None), Sent::GivenUp(_)));
        assert!(heavy.given_up.is_cancelled());
    }

    #[test]
    fn all_calls_of_a_trunk_find_room_on_its_stream() {
        let all = connections(10, 10);
        let trusted = all.admit(peer().ip(), JudgedBy::Operator).unwrap();
        for trunk in
            [opened(&all, Transport::Tcp, None), all.begin(&trusted, Transport::Tcp, peer())]
        {
            for _ in 0..QUEUE_TO_TRUNK.messages {
                assert!(matches!(
                    all.send(transmit(Transport::Tcp, Some(trunk.id), 2_000), None),
                    Sent::Queued
                ));
            }
            let one_more = all.send(transmit(Transport::Tcp, Some(trunk.id), 9), None);
            assert!(matches!(one_more, Sent::GivenUp(_)));
            assert!(trunk.given_up.is_cancelled());
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn knows(all: &Connections, ips: &[&str], needed: &[&Admission]) {
        let sources = ips.iter().map(|known| SipSource::from(ip(known))).collect();
        let known = KnownPeers { sources, streams: BTreeSet::new() };
        all.introduce(Arc::new(known), &needed.iter().map(|admission| admission.id).collect());
    }

    #[test]
    fn strangers_are_counted_by_source_and_leave_places_to_those_that_are_known() {
        let all = connections(4, 2);
        let first = all.admit(ip("192.0.2.1"), JudgedBy::Source).unwrap();
        let second = all.admit(ip("::ffff:192.0.2.1"), JudgedBy::Source).unwrap();
        assert!(all.admit(ip("192.0.2.1"), JudgedBy::Source).is_none(), "two of one source");
        let other = all.admit(ip("192.0.2.2"), JudgedBy::Source).unwrap();
        knows(&all, &["192.0.2.9"], &[&first, &second, &other]);
        assert!(all.admit(ip("192.0.2.3"), JudgedBy::Source).is_none(), "three of four");
        let known = all.admit(ip("192.0.2.9"), JudgedBy::Source).unwrap();
        assert!(all.admit(ip("192.0.2.9"), JudgedBy::Source).is_none(), "four in total");
        let _trusted = all.admit(ip("192.0.2.1"), JudgedBy::Operator).unwrap();
        drop((first, known));
        assert!(all.admit(ip("192.0.2.1"), JudgedBy::Source).is_some());
        // When a stranger becomes known, a place of strangers is free again.
        knows(&all, &["192.0.2.1"], &[]);
        assert_eq!(all.table().strangers, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_stranger_that_was_heard_least_recently_gives_way() {
        let all = connections(4, 4);
        let mut come = Vec::new();
        for last in 1..=3 {
            let peer = SocketAddr::new(ip(&format!("192.0.2.{last}")), 5060);
            let admission = all.admit(peer.ip(), JudgedBy::Source).unwrap();
            come.push((all.begin(&admission, Transport::Tcp, peer), admission));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        knows(&all, &["192.0.2.9"], &[&come[0].1]);
        all.heard(come[1].0.id);
        let fourth = all.admit(ip("192.0.2.4"), JudgedBy::Source).unwrap();
        let gone = come.iter().map(|(connection, _)| connection.given_up.is_cancelled());
        assert_eq!(gone.collect::<Vec<_>>(), [false, false, true], "the first is needed");
        assert!(all.admit(ip("192.0.2.5"), JudgedBy::Source).is_none(), "one has not gone yet");
        come.pop();
        let _fifth = all.admit(ip("192.0.2.5"), JudgedBy::Source).unwrap();
        assert!(come[1].0.given_up.is_cancelled());
        come.pop();
        // A stream in its handshake may be closed as well, also in favour of known peers.
        let _known = all.admit(ip("192.0.2.9"), JudgedBy::Source).unwrap();
        let _known = all.admit(ip("192.0.2.9"), JudgedBy::Source).unwrap();
        assert!(fourth.given_up.is_cancelled());
    }

    #[test]
    fn a_stranger_may_be_quiet_for_less_time() {
        let all = connections(10, 10);
        let stream = all.admit(ip("192.0.2.1"), JudgedBy::Source).unwrap();
        let limits = StreamLimits::default();
        assert_eq!(all.idle(stream.id), limits.idle_of_strangers);
        knows(&all, &["192.0.2.1"], &[]);
        assert_eq!(all.idle(stream.id), limits.idle);
        assert_eq!(all.idle(opened(&all, Transport::Tcp, None).id), limits.idle);
    }

    #[test]
    fn what_we_open_is_counted_apart() {
        let limits = StreamLimits { opened: 1, ..Default::default() };
        let all = Connections::new(limits);
        let opened = opened(&all, Transport::Tcp, None);
        assert!(all.open(Transport::Tcp, peer(), Origin::Opened, None).is_none());
        accepted(&all, Transport::Tcp);
        drop(opened);
        assert!(all.open(Transport::Tcp, peer(), Origin::Opened, None).is_some());
        let eight = Connections::new(StreamLimits { opened: 8, ..Default::default() });
        let returned = eight.open(Transport::Tcp, peer(), Origin::Returned, None).unwrap();
        assert!(eight.open(Transport::Tcp, peer(), Origin::Returned, None).is_none());
        assert!(eight.open(Transport::Tcp, peer(), Origin::Opened, None).is_some());
        drop(returned);
        assert!(eight.open(Transport::Tcp, peer(), Origin::Returned, None).is_some());
    }
}
