//! Builds every room, joins them, and takes them down in order. Only this room knows all others.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    api::{self, ApiState, Credentials},
    call::Settings,
    config::{self, Config},
    graph::GraphContext,
    media,
    model::UnixMillis,
    notify::{Dispatcher, DispatcherConfig, Webhook},
    prompts::{Fence, Fetch, Library},
    proto::sdp,
    recordings::{AccessKey, Purge, Spool, Vault},
    signalling::{self, SignallingConfig},
    store::{Database, Journal, JournalLimits},
    switchboard::{self, Directory, Drivers, Limits, Switchboard},
    telemetry::LogLevel,
};

mod house;

/// How long calls that are up may go on after the first signal to stop.
const DRAIN_GRACE: Duration = Duration::from_secs(25);
/// Events that may wait between the endpoint and the switchboard.
const SIP_EVENTS: usize = 4096;

/// A running node.
pub struct Daemon {
    switchboard: Switchboard,
    journal: Journal,
    dispatcher: Dispatcher,
    media: media::Engine,
    spool: Spool,
    database: Database,
    directory: watch::Sender<Arc<Directory>>,
    credentials: watch::Sender<Arc<Credentials>>,
    access_key: Vec<u8>,
    sip_addresses: Vec<SocketAddr>,
    api_address: SocketAddr,
    /// Stops what serves the outside, then what works inside.
    outside: CancellationToken,
    inside: CancellationToken,
    tasks: JoinSet<&'static str>,
}
