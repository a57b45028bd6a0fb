//! Keeps us registered at the trunks of the configuration, as it is and as it changes.
//!
//! Comes in: which accounts there shall be. Goes out: orders to the endpoint, which registers; and how
//! it stands with each, for people. Where a trunk is, the DNS is asked again now and then.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant as TokioInstant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    service::{Order, Signalling},
    trunk_report::TrunkReport,
};
use aftertone_core::proto::sip::{endpoint::TrunkAccount, registration::TrunkState, uri::Uri};

/// How often the DNS is asked where a trunk is.
const RELOCATE: Duration = Duration::from_secs(300);
/// The same, when it did not say.
const LOCATE_AGAIN: Duration = Duration::from_secs(10);
/// How long the trunks may take to let us go.
const UNREGISTERED: Duration = Duration::from_secs(2);
/// How long a task without trunks sleeps at most.
const NO_TRUNK: Duration = Duration::from_secs(3_600);

/// An account at a trunk, and where its requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registrant {
    /// The account; its targets are found by `way`.
    pub account: TrunkAccount,
    /// To whoever this URI leads to (RFC 3263).
    pub way: Uri,
}

/// An account that is kept, and when its way is looked for next.
struct Kept {
    registrant: Registrant,
    due: TokioInstant,
}

impl Signalling {
    /// Keeps these accounts registered until `cancel`. One that goes is taken back, one that changes is
    /// taken back and made anew.
    pub async fn keep_registered(
        self,
        mut wanted: watch::Receiver<Vec<Registrant>>,
        cancel: CancellationToken,
    ) {
        let mut kept: Vec<Kept> = Vec::new();
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

    /// Leaves the accounts that are not wanted any more, and begins those that are new.
    async fn change(&self, kept: &mut Vec<Kept>, mut wanted: Vec<Registrant>) {
        let (stay, gone): (Vec<Kept>, Vec<Kept>) =
            kept.drain(..).partition(|one| wanted.contains(&one.registrant));
        *kept = stay;
        for Kept { registrant, .. } in gone {
            self.order(Order::LeaveTrunk(registrant.account.name)).await;
        }
        wanted.retain(|one| kept.iter().all(|known| known.registrant != *one));
        for registrant in wanted {
            // It is there from now on, and says so, though the DNS may be slow.
            self.order(Order::Register(Box::new(registrant.account.clone()))).await;
            kept.push(Kept { registrant, due: TokioInstant::now() });
        }
    }

    /// Looks for the ways that are due; when the next one is.
    async fn find_ways(&self, kept: &mut [Kept]) -> TokioInstant {
        let now = TokioInstant::now();
        let due = kept.iter_mut().filter(|one| one.due <= now);
        join_all(due.map(|one| async {
            let pause = self.find_way(&one.registrant).await;
            one.due = now + pause;
        }))
        .await;
        kept.iter().map(|one| one.due).min().unwrap_or(now + NO_TRUNK)
    }

    /// How long what was found holds.
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

    /// Tells all trunks that we are not there any more, and waits for their answers, within bounds.
    pub async fn unregister(&self) {
        self.order(Order::Unregister).await;
        let begun = Instant::now();
        while begun.elapsed() < UNREGISTERED {
            let all = self.trunks().await;
            if all.iter().all(|trunk| trunk.status.state == TrunkState::Idle) {
                return;
            }
            tokio::time::sleep(UNREGISTERED / 40).await;
        }
    }

    /// How it stands with the trunks that we register at, by name.
    pub async fn trunks(&self) -> Vec<TrunkReport> {
        let (reply, trunks) = oneshot::channel();
        self.order(Order::Trunks(reply)).await;
        trunks.await.unwrap_or_default()
    }
}
