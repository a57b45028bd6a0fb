//! Keeps this node registered at the trunks of the configuration, as it is and as it changes.
//!
//! Comes in: the accounts that should be registered. Goes out: orders to the endpoint, which
//! registers; and the state of each account, for people. The DNS is asked for each trunk's address
//! again from time to time.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant as TokioInstant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    service::{Order, Signalling},
    trunk_report::TrunkReport,
};
use aftertone_core::proto::sip::{endpoint::TrunkAccount, uri::Uri};

/// How often the DNS is asked for a trunk's address.
const RELOCATE: Duration = Duration::from_secs(300);
/// The same, after a lookup that failed.
const LOCATE_AGAIN: Duration = Duration::from_secs(10);
/// How long the trunks may take to answer when we unregister.
const UNREGISTERED: Duration = Duration::from_secs(2);
/// How long a task without trunks sleeps at most.
const NO_TRUNK: Duration = Duration::from_secs(3_600);

/// An account at a trunk, and where its requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registrant {
    /// The account; its targets are found by `way`.
    pub account: TrunkAccount,
    /// The URI that is resolved to the targets (RFC 3263).
    pub way: Uri,
}

/// An account that is kept, and the time of its next DNS lookup.
struct KeptAccount {
    registrant: Registrant,
    due: TokioInstant,
}

impl Signalling {
    /// Keeps these accounts registered until `cancel`. A removed account is unregistered; a changed
    /// one is unregistered and registered anew.
    pub async fn keep_registered(
        self,
        mut wanted: watch::Receiver<Vec<Registrant>>,
        cancel: CancellationToken,
    ) {
        let mut kept: Vec<KeptAccount> = Vec::new();
        loop {
            let registrants = wanted.borrow_and_update().clone();
            self.change(&mut kept, registrants).await;
            let next = self.find_ways(&mut kept).await;
            tokio::select! {
                () = cancel.cancelled() => return,
                () = sleep_until(next) => {}
                Ok(()) = wanted.changed() => {}
            }
        }
    }

    /// Unregisters the accounts that are not wanted any more, and adds the new ones.
    async fn change(&self, kept: &mut Vec<KeptAccount>, mut wanted: Vec<Registrant>) {
        let (stay, gone): (Vec<KeptAccount>, Vec<KeptAccount>) =
            kept.drain(..).partition(|one| wanted.contains(&one.registrant));
        *kept = stay;
        for KeptAccount { registrant, .. } in gone {
            self.order(Order::LeaveTrunk(registrant.account.name)).await;
        }
        wanted.retain(|one| kept.iter().all(|known| known.registrant != *one));
        for registrant in wanted {
            // The account appears in reports from now on, even if the DNS is slow.
            self.order(Order::Register(Box::new(registrant.account.clone()))).await;
            kept.push(KeptAccount { registrant, due: TokioInstant::now() });
        }
    }

    /// Does the lookups that are due; returns when the next one is due.
    async fn find_ways(&self, kept: &mut [KeptAccount]) -> TokioInstant {
        let now = TokioInstant::now();
        let due = kept.iter_mut().filter(|one| one.due <= now);
        join_all(due.map(|one| async {
            let pause = self.find_way(&one.registrant).await;
            one.due = now + pause;
        }))
        .await;
        kept.iter().map(|one| one.due).min().unwrap_or(now + NO_TRUNK)
    }

    /// Looks up one trunk; returns the time until the next lookup.
    async fn find_way(&self, registrant: &Registrant) -> Duration {
        let Registrant { account, way } = registrant;
        match self.locate(way).await {
            Ok(targets) => {
                let account = TrunkAccount { targets, ..account.clone() };
                self.order(Order::Register(Box::new(account))).await;
                RELOCATE
            }
            Err(error) => {
                warn!(trunk = account.name, %way, "No way to the trunk: {error}");
                let why = error.to_string();
                self.order(Order::NoWay { trunk: account.name.clone(), why }).await;
                LOCATE_AGAIN
            }
        }
    }

    /// Unregisters at all trunks, and waits for their answers for a limited time.
    pub async fn unregister(&self) {
        let (done, unregistered) = oneshot::channel();
        self.order(Order::Unregister(done)).await;
        // An error means that a trunk did not answer in time, or that the service has ended.
        let _ = timeout(UNREGISTERED, unregistered).await;
    }

    /// The state of the trunks that we register at, by name.
    pub async fn trunks(&self) -> Vec<TrunkReport> {
        let (reply, trunks) = oneshot::channel();
        self.order(Order::Trunks(reply)).await;
        trunks.await.unwrap_or_default()
    }
}
