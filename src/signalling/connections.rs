//! The table of streams: who may have one, and which one leads to a peer.
//!
//! Each stream has a task, which holds a [`Connection`]; the table holds the way to it. Messages for a
//! peer that does not read wait in a bounded queue; when it is full the stream is given up. Nobody
//! ever waits for a peer. Numbers of streams are never used twice, so that an answer cannot go to
//! another peer than the one that asked.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{rates::Source, settings::StreamLimits};
use crate::proto::sip::path::{ConnectionId, Path, Transmit, Transport};

/// What waits for one peer: messages, and their bytes.
#[derive(Debug, Clone, Copy)]
struct Room {
    messages: usize,
    bytes: usize,
}

/// For a stranger: four messages of the longest kind.
const FOR_STRANGERS: Room = Room { messages: 64, bytes: 256 << 10 };
/// For whom we have called, and for peers that are trusted. A trunk's stream carries all its calls, and
/// while it is being opened each of them may have something to say. Whether such a peer reads is told
/// by the time that one message takes ([`StreamLimits::write`]), long before this is full.
const FOR_TRUNKS: Room = Room { messages: 4_096, bytes: 8 << 20 };

/// All streams of one node; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    table: Arc<Mutex<Table>>,
    limits: StreamLimits,
}

#[derive(Debug, Default)]
struct Table {
    last_id: u64,
    by_id: BTreeMap<ConnectionId, Entry>,
    /// The newest stream to each peer.
    by_peer: BTreeMap<PeerKey, ConnectionId>,
    accepted: usize,
    accepted_of_source: BTreeMap<Source, usize>,
    opened: usize,
    returned: usize,
}

/// Over what, where, and which host has proved to be there.
type PeerKey = (Transport, SocketAddr, Option<String>);

#[derive(Debug)]
struct Entry {
    key: PeerKey,
    origin: Origin,
    /// When something came by it, or it began.
    heard: Instant,
    queue: mpsc::Sender<Queued>,
    room: Arc<Semaphore>,
    given_up: CancellationToken,
}

/// Who began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The peer, whom we need not know.
    Accepted,
    /// A peer that is trusted.
    Trusted,
    /// We.
    Opened,
    /// We, for an answer to a request whose own stream has gone.
    Returned,
}

impl Origin {
    fn room(self) -> Room {
        match self {
            Self::Accepted | Self::Returned => FOR_STRANGERS,
            Self::Trusted | Self::Opened => FOR_TRUNKS,
        }
    }
}

/// What waits for a stream to be written.
#[derive(Debug)]
pub(super) enum Queued {
    /// One message, and its part of the queue.
    Message(Transmit, OwnedSemaphorePermit),
    /// The answer to a ping.
    Pong,
}

/// A stream, as its task holds it. Dropped, it is in the table no more.
#[derive(Debug)]
pub(super) struct Connection {
    /// Its number.
    pub id: ConnectionId,
    /// What is to be written. It ends when nothing more is wanted from the stream.
    pub queue: mpsc::Receiver<Queued>,
    /// The peer does not read: nothing more is written.
    pub given_up: CancellationToken,
    connections: Connections,
}

/// The right to have a stream.
#[derive(Debug)]
pub(super) struct Admission {
    source: Option<Source>,
    connections: Connections,
}

/// What became of a message.
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
    pub fn new(limits: StreamLimits) -> Self {
        Self { table: Arc::default(), limits }
    }

    /// Asks for a stream from `peer`; `None` when there are too many. Those that are trusted are not
    /// counted.
    pub fn admit(&self, peer: IpAddr, is_trusted: bool) -> Option<Admission> {
        if is_trusted {
            return Some(Admission { source: None, connections: self.clone() });
        }
        let source = Source::from(peer);
        let mut table = self.table();
        let of_source = table.accepted_of_source.get(&source).copied().unwrap_or_default();
        if table.accepted >= self.limits.connections
            || of_source >= self.limits.connections_of_a_source
        {
            return None;
        }
        table.accepted += 1;
        table.accepted_of_source.insert(source, of_source + 1);
        drop(table);
        Some(Admission { source: Some(source), connections: self.clone() })
    }

    /// Puts a stream to `peer` into the table; over TLS, `host` will have to be there. `None` when we have
    /// opened too many. Answers to strangers, who may name any port, take an eighth of the places.
    pub fn add(
        &self,
        transport: Transport,
        peer: SocketAddr,
        origin: Origin,
        host: Option<String>,
    ) -> Option<Connection> {
        let mut table = self.table();
        let limits = self.limits;
        match origin {
            Origin::Opened if table.opened >= limits.opened => return None,
            Origin::Returned if table.returned >= limits.opened / 8 => return None,
            Origin::Opened => table.opened += 1,
            Origin::Returned => table.returned += 1,
            Origin::Accepted | Origin::Trusted => {}
        }
        let key = (transport, peer, host);
        table.last_id += 1;
        let id = ConnectionId(table.last_id);
        let room = origin.room();
        let (sender, queue) = mpsc::channel(room.messages);
        let given_up = CancellationToken::new();
        let entry = Entry {
            key: key.clone(),
            origin,
            heard: Instant::now(),
            queue: sender,
            room: Arc::new(Semaphore::new(room.bytes)),
            given_up: given_up.clone(),
        };
        table.by_id.insert(id, entry);
        // Over TLS a request goes only where we have verified who is there: to a stream that somebody
        // else has opened, answers go by its number.
        if transport != Transport::Tls || matches!(origin, Origin::Opened | Origin::Returned) {
            table.by_peer.insert(key, id);
        }
        Some(Connection { id, queue, given_up, connections: self.clone() })
    }

    /// Sends over the stream that the path names, or else over one to the same peer (RFC 5923), where
    /// over TLS the same `host` has to be.
    pub fn send(&self, transmit: Transmit, host: Option<&str>) -> Sent {
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

    /// Whoever is reached by this stream, unless a newer one leads there.
    pub fn peer_reached_by(&self, id: ConnectionId) -> Option<(Transport, SocketAddr)> {
        let table = self.table();
        let entry = table.by_id.get(&id)?;
        let (transport, peer, _) = entry.key;
        (table.by_peer.get(&entry.key) == Some(&id)).then_some((transport, peer))
    }

    /// Something came by this stream.
    pub fn heard(&self, id: ConnectionId) {
        if let Some(entry) = self.table().by_id.get_mut(&id) {
            entry.heard = Instant::now();
        }
    }

    /// Gives up the stream that leads this way if nothing came by it for `silence`.
    pub fn give_up_silent(&self, path: Path, host: Option<&str>, silence: Duration) {
        let mut table = self.table();
        let Some((id, entry)) = table.find(path, host) else { return };
        if entry.heard.elapsed() >= silence {
            debug!(?id, peer = %path.peer, "peer is silent; its connection is given up");
            entry.given_up.cancel();
            table.remove(id);
        }
    }

    /// Answers a ping, if there is room.
    pub fn pong(&self, id: ConnectionId) {
        if let Some(entry) = self.table().by_id.get(&id) {
            // A peer that does not read its pongs will notice.
            let _ = entry.queue.try_send(Queued::Pong);
        }
    }

    /// Nothing more is sent over this stream; it ends when what waits is written.
    pub fn close(&self, id: ConnectionId) {
        self.table().remove(id);
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn find(&self, path: Path, host: Option<&str>) -> Option<(ConnectionId, &Entry)> {
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
    /// Ends the queue, and gives the paths of what was in it.
    pub fn into_undelivered(mut self) -> Vec<Path> {
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
        let Some(source) = self.source else { return };
        let mut table = self.connections.table();
        table.accepted -= 1;
        match table.accepted_of_source.get_mut(&source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                table.accepted_of_source.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
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
        let path = Path { peer: peer(), local, transport, connection };
        Transmit { path, bytes: Bytes::from(vec![b'x'; length]) }
    }

    fn waiting(connection: &Connection) -> usize {
        connection.queue.len()
    }

    #[test]
    fn a_message_takes_its_own_stream_else_the_newest_to_the_same_peer() {
        let all = connections(10, 10);
        let old = all.add(Transport::Tcp, peer(), Origin::Accepted, None).unwrap();
        let new = all.add(Transport::Tcp, peer(), Origin::Opened, None).unwrap();
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
        let accepted = all.add(Transport::Tls, peer(), Origin::Accepted, None).unwrap();
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
        let one = all.add(Transport::Tls, peer(), Origin::Opened, host("one.example")).unwrap();
        let plain = || transmit(Transport::Tls, None, 1);
        assert!(matches!(all.send(plain(), Some("two.example")), Sent::NoConnection(_)));
        assert!(matches!(all.send(plain(), None), Sent::NoConnection(_)));
        let two = all.add(Transport::Tls, peer(), Origin::Opened, host("two.example")).unwrap();
        assert!(matches!(all.send(plain(), Some("one.example")), Sent::Queued));
        assert_eq!((waiting(&one), waiting(&two)), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_given_up_when_nothing_came_by_it() {
        let all = connections(10, 10);
        let silence = Duration::from_secs(32);
        let (silent, alive) = (peer(), "192.0.2.2:5060".parse().unwrap());
        let path = |peer| Path { peer, ..transmit(Transport::Tcp, None, 1).path };
        let dead = all.add(Transport::Tcp, silent, Origin::Opened, None).unwrap();
        let other = all.add(Transport::Tcp, alive, Origin::Opened, None).unwrap();
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
        let first = all.add(Transport::Tcp, peer(), Origin::Accepted, None).unwrap().id;
        assert!(all.add(Transport::Tcp, peer(), Origin::Accepted, None).unwrap().id > first);
    }

    #[test]
    fn a_peer_that_does_not_read_is_given_up() {
        let all = connections(10, 10);
        let full = all.add(Transport::Tcp, peer(), Origin::Accepted, None).unwrap();
        for _ in 0..FOR_STRANGERS.messages {
            assert!(matches!(all.send(transmit(Transport::Tcp, None, 9), None), Sent::Queued));
        }
        assert!(matches!(all.send(transmit(Transport::Tcp, None, 9), None), Sent::GivenUp(_)));
        assert!(full.given_up.is_cancelled());
        assert!(matches!(all.send(transmit(Transport::Tcp, None, 9), None), Sent::NoConnection(_)));
        assert_eq!(full.into_undelivered().len(), FOR_STRANGERS.messages);

        let heavy = all.add(Transport::Tcp, peer(), Origin::Accepted, None).unwrap();
        for _ in 0..FOR_STRANGERS.bytes / 60_000 {
            assert!(matches!(all.send(transmit(Transport::Tcp, None, 60_000), None), Sent::Queued));
        }
        assert!(matches!(all.send(transmit(Transport::Tcp, None, 60_000), None), Sent::GivenUp(_)));
        assert!(heavy.given_up.is_cancelled());
    }

    #[test]
    fn all_calls_of_a_trunk_find_room_on_its_stream() {
        let all = connections(10, 10);
        for origin in [Origin::Opened, Origin::Trusted] {
            let trunk = all.add(Transport::Tcp, peer(), origin, None).unwrap();
            for _ in 0..FOR_TRUNKS.messages {
                assert!(matches!(
                    all.send(transmit(Transport::Tcp, None, 2_000), None),
                    Sent::Queued
                ));
            }
            assert!(matches!(all.send(transmit(Transport::Tcp, None, 9), None), Sent::GivenUp(_)));
            assert!(trunk.given_up.is_cancelled());
        }
    }

    #[test]
    fn strangers_are_counted_by_source_and_in_total() {
        let all = connections(3, 2);
        let ip = |text: &str| text.parse().unwrap();
        let first = all.admit(ip("192.0.2.1"), false).unwrap();
        let _second = all.admit(ip("::ffff:192.0.2.1"), false).unwrap();
        assert!(all.admit(ip("192.0.2.1"), false).is_none(), "two of one source");
        let _other = all.admit(ip("192.0.2.2"), false).unwrap();
        assert!(all.admit(ip("192.0.2.3"), false).is_none(), "three in total");
        let _trusted = all.admit(ip("192.0.2.1"), true).unwrap();
        drop(first);
        assert!(all.admit(ip("192.0.2.1"), false).is_some());
    }

    #[test]
    fn what_we_open_is_counted_apart() {
        let limits = StreamLimits { opened: 1, ..Default::default() };
        let all = Connections::new(limits);
        let opened = all.add(Transport::Tcp, peer(), Origin::Opened, None).unwrap();
        assert!(all.add(Transport::Tcp, peer(), Origin::Opened, None).is_none());
        assert!(all.add(Transport::Tcp, peer(), Origin::Accepted, None).is_some());
        drop(opened);
        assert!(all.add(Transport::Tcp, peer(), Origin::Opened, None).is_some());
        let eight = Connections::new(StreamLimits { opened: 8, ..Default::default() });
        let returned = eight.add(Transport::Tcp, peer(), Origin::Returned, None).unwrap();
        assert!(eight.add(Transport::Tcp, peer(), Origin::Returned, None).is_none());
        assert!(eight.add(Transport::Tcp, peer(), Origin::Opened, None).is_some());
        drop(returned);
        assert!(eight.add(Transport::Tcp, peer(), Origin::Returned, None).is_some());
    }
}
