//! Outgoing calls of a task: resolves the target and sends the INVITE.

use std::net::IpAddr;

use futures_util::FutureExt;
use tracing::{info, warn};

use super::{CallTask, Done};
use crate::service::switchboard::outgoing::Way;
use aftertone_core::{
    call::ReferralCall,
    proto::sip::{
        Status,
        endpoint::{self, DialogId},
        message::NameAddr,
        path::Path,
    },
};

/// SIP status for a host name that has no address, as a proxy would answer.
const NO_WAY: Status = Status::SERVICE_UNAVAILABLE;

impl CallTask {
    pub(super) fn locate(
        &mut self,
        way: Option<Way>,
        done: impl FnOnce(Result<Vec<Path>, Status>) -> Done + Send + 'static,
    ) {
        let Some(way) = way else {
            debug_assert!(false, "there is no route plan");
            return;
        };
        let signalling = self.drivers.signalling.clone();
        self.work.push(
            async move {
                let paths = match way {
                    Way::Paths(paths) => Ok(paths),
                    Way::Uri(uri) => signalling.locate(&uri).await.map_err(|error| {
                        warn!(%uri, "No way to the trunk: {error}");
                        NO_WAY
                    }),
                };
                done(paths)
            }
            .boxed(),
        );
    }

    /// RTP uses the same local address as SIP.
    pub(super) fn located(&mut self, paths: Result<Vec<Path>, Status>) -> Result<(), Status> {
        self.targets = from_one_side(paths?);
        let first = self.targets.first().ok_or(NO_WAY)?;
        self.peer = Some(first.peer);
        self.bind = first.local.ip();
        self.address = first.told_host(self.advertised);
        Ok(())
    }

    pub(super) async fn dial(&mut self, offer: Vec<u8>) {
        let Some(route_plan) = &self.route_plan else { return };
        let call_id = &self.machine.call().sip_call_id;
        let further = route_plan.further().iter().flat_map(|place| &place.targets);
        let peers: Vec<IpAddr> =
            self.targets.iter().chain(further).map(|target| target.peer.ip()).collect();
        self.drivers.signalling.trace(self.machine.call().id, call_id, &peers);
        self.offer = offer;
        self.place().await;
    }

    /// Whether a 3xx names a Contact that is to be called next. The dialog was never established,
    /// so the next INVITE may reuse its id.
    pub(super) fn is_redirected(&mut self, dialog: DialogId, contacts: &[NameAddr]) -> bool {
        dialog == self.machine.dialog()
            && self.machine.is_dialing()
            && self.route_plan.as_mut().is_some_and(|route_plan| route_plan.redirect(contacts))
    }

    pub(super) async fn place(&mut self) {
        let Some(route_plan) = &self.route_plan else { return };
        let call_id = self.machine.call().sip_call_id.clone();
        let call = route_plan.call(call_id, self.targets.clone(), self.offer.clone());
        let call = Box::new(call);
        let dialog = self.machine.dialog();
        self.drivers.signalling.send(endpoint::Command::Call { dialog, call }).await;
    }

    /// The leg stays bound to its local address, so only targets that are reached from this address
    /// count.
    pub(super) fn referral_located(
        &mut self,
        paths: Result<Vec<Path>, Status>,
    ) -> Result<(), Status> {
        let Some(referral) = &mut self.referral else { return Err(NO_WAY) };
        let mut paths = paths?;
        paths.retain(|path| path.local.ip() == self.bind);
        referral.targets = paths;
        if referral.targets.is_empty() { Err(NO_WAY) } else { Ok(()) }
    }

    pub(super) async fn dial_referral(&mut self, call: ReferralCall) {
        let Some(referral) = &mut self.referral else { return };
        let ReferralCall { dialog, call_id, offer } = call;
        let targets = std::mem::take(&mut referral.targets);
        let peers: Vec<IpAddr> = targets.iter().map(|target| target.peer.ip()).collect();
        self.drivers.signalling.trace_further(self.machine.call().id, &call_id, &peers);
        info!(to = %referral.route_plan.request_uri(), "Calling the target of a REFER");
        let call = Box::new(referral.route_plan.call(call_id, targets, offer));
        self.drivers.signalling.send(endpoint::Command::Call { dialog, call }).await;
    }
}

/// Keeps the targets that are reached from the same local address as the first one. RTP stays bound
/// to this address, and a peer on another network may be unable to reach it.
pub(super) fn from_one_side(mut paths: Vec<Path>) -> Vec<Path> {
    if let Some(side) = paths.first().map(|path| path.local.ip()) {
        paths.retain(|path| path.local.ip() == side);
    }
    paths
}
