//! The engine: shard threads and the ports of their legs, behind handles.
//!
//! Input: requests to open a leg, and commands to it. Output: a [`Leg`] handle for each, with
//! events on the channel that the call has passed. The engine decides nothing about calls.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use tokio::sync::mpsc;

use super::{
    leg::{LegCommand, Opening},
    leg_event::LegEvent,
    leg_settings::Settings,
    open_error::OpenError,
    ports::PortPool,
    shard::{Inbox, Shard},
    targets::Targets,
    transport::Transport,
};
use aftertone_core::model::CallId;

/// How many commands can wait for a leg's next tick. A call sends few of them; a sender that finds
/// no space waits for at most one tick.
const COMMANDS: usize = 16;
/// The smoothed lateness from which callers would begin to hear it: half a frame.
const TOO_LATE: Duration = Duration::from_millis(10);

/// The configuration of the engine.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Where legs get their ports from.
    pub ports: PortPool,
    /// Number of threads; 0 is one per core.
    pub shards: usize,
    /// The addresses that legs must not send to.
    pub targets: Targets,
    /// The settings of all legs.
    pub settings: Settings,
}

/// The parameters of a new leg.
#[derive(Debug)]
pub struct OpenLeg {
    /// The call that it belongs to; used only in the log.
    pub call: CallId,
    /// The local address that RTP is bound to.
    pub bind: IpAddr,
    /// Where the leg's events go. When the receiver is dropped, the leg closes.
    pub events: mpsc::Sender<LegEvent>,
}

/// The leg is over: it was closed, it failed, or the engine was shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the leg is over")]
pub struct LegGone;

/// All media of the daemon. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<SharedEngine>,
}

#[derive(Debug)]
struct SharedEngine {
    ports: PortPool,
    targets: Targets,
    settings: Settings,
    shards: Vec<Inbox>,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

/// The handle to one leg. Dropping it closes the leg as if the peer had hung up.
#[derive(Debug)]
pub struct Leg {
    commands: mpsc::Sender<LegCommand>,
    local: SocketAddr,
}

impl Engine {
    /// Starts the shard threads.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(config: EngineConfig) -> io::Result<Self> {
        let EngineConfig { ports, shards, targets, settings } = config;
        let count = match NonZeroUsize::new(shards) {
            Some(count) => count,
            None => thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        };
        let (mut shards, mut threads) = (Vec::new(), Vec::new());
        for index in 0..count.get() {
            let (inbox, shard) = Shard::new(index);
            let thread = thread::Builder::new().name(format!("media-{index}"));
            threads.push(thread.spawn(move || shard.run())?);
            shards.push(inbox);
        }
        let threads = Mutex::new(threads);
        Ok(Self { shared: Arc::new(SharedEngine { ports, targets, settings, shards, threads }) })
    }

    /// Opens a leg on the running shard with the fewest legs. The leg sends and receives nothing
    /// before [`LegCommand::Connect`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&self, leg: OpenLeg) -> Result<Leg, OpenError> {
        let OpenLeg { call, bind, events } = leg;
        let shards = self.shared.shards.iter().filter(|shard| !shard.is_stopped());
        let shard = shards.min_by_key(|shard| shard.legs()).ok_or(OpenError::Down)?;
        let pair = self.shared.ports.bind(bind)?;
        let local = pair.local;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let transport = Transport::new(pair);
        let (targets, settings) = (self.shared.targets.clone(), self.shared.settings);
        shard.open(Opening { call, transport, commands: inbox, events, targets, settings })?;
        Ok(Leg { commands, local })
    }

    /// The number of legs.
    pub fn legs(&self) -> usize {
        self.shared.shards.iter().map(Inbox::legs).sum()
    }

    /// Whether a thread has ended: its calls are lost, and the other threads do its work.
    pub fn is_broken(&self) -> bool {
        self.shared.shards.iter().any(Inbox::is_stopped)
    }

    /// The largest lateness of a shard, smoothed over some tenths of a second.
    pub fn lateness(&self) -> Duration {
        self.shared.shards.iter().map(Inbox::lateness).max().unwrap_or_default()
    }

    /// Whether no more calls should be taken, because callers would hear the delay.
    pub fn is_late(&self) -> bool {
        self.lateness() >= TOO_LATE
    }

    /// Closes all legs as if their peers had hung up, gives them some time to hand over their
    /// recordings, and ends the threads. Blocks until then; a second call does nothing.
    pub fn shutdown(&self) {
        self.shared.shards.iter().for_each(Inbox::stop);
        let mut threads = self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a media thread has panicked");
            }
        }
    }
}

impl Drop for SharedEngine {
    fn drop(&mut self) {
        self.shards.iter().for_each(Inbox::stop);
    }
}

impl Leg {
    /// The address of the RTP port; the RTCP port is the next one.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The RTP port; the RTCP port is the next one.
    pub fn local_port(&self) -> u16 {
        self.local.port()
    }

    /// Hands a command to the leg, which carries it out in its next tick. Waits while the queue of
    /// its commands is full.
    ///
    /// # Errors
    /// The leg is over.
    pub async fn send(&self, command: LegCommand) -> Result<(), LegGone> {
        self.commands.send(command).await.map_err(|_| LegGone)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::drivers::media::PortRange;

    #[test]
    fn a_thread_that_has_ended_gets_no_more_legs() {
        let (dead, ended) = Shard::new(0);
        drop(ended);
        let (alive, _shard) = Shard::new(1);
        let engine = Engine {
            shared: Arc::new(SharedEngine {
                ports: PortPool::new(PortRange::Ephemeral, Duration::ZERO),
                targets: Targets::new(PortRange::Ephemeral, Vec::new(), None),
                settings: Settings::default(),
                shards: vec![dead, alive],
                threads: Mutex::default(),
            }),
        };
        let (events, mut told) = mpsc::channel(1);
        for _ in 0..3 {
            let call = CallId::from_random([1; 16]);
            let bind = Ipv4Addr::LOCALHOST.into();
            engine.open(OpenLeg { call, bind, events: events.clone() }).unwrap();
        }
        assert_eq!(engine.legs(), 3);
        assert!(engine.is_broken());
        // A thread that ends drops its legs without an event: their calls see that the channel is
        // closed.
        drop((events, _shard));
        assert_eq!(told.blocking_recv(), None);
    }
}
