//! Events from the SIP endpoint: new calls, REFER and Replaces from peers, and events of dialogs.

use std::{net::IpAddr, sync::atomic::Ordering, time::Instant};

use tokio::sync::mpsc::error::TrySendError;
use tracing::{debug, info, info_span, warn};

use super::{
    Switchboard,
    call_task::CallTask,
    is_number,
    mailbox::{CallMessage, mailbox},
    outgoing::Placed,
    registry::{CallDialog, LiveCall, Stranger},
};
use aftertone_core::{
    call::{self, Machine, Offer, Refusal},
    model::{Arrival, Party},
    proto::sip::{
        Status,
        endpoint::{self, DialogId, Event, IncomingInvite, IncomingReferral},
        message::NameAddr,
        path::source_of,
    },
};

impl Switchboard {
    pub(super) async fn offer(&self, dialog: DialogId, invite: IncomingInvite) {
        let refusal = match self.admit(dialog, &invite) {
            Ok(()) => return,
            Err(refusal) => refusal,
        };
        self.tell_refusal(&invite, &refusal);
        let command = match refusal {
            Refusal::NotAuthenticated => endpoint::Command::Challenge { dialog },
            refusal => endpoint::Command::Refuse {
                dialog,
                status: refusal.status(),
                reason: refusal.reason().to_owned(),
                headers: refusal.headers(),
            },
        };
        self.inner.drivers.signalling.send(command).await;
    }

    /// Logs a refused call. For strangers the log is limited to one line per source and minute. A
    /// challenge is logged at debug level only, since every call of a user begins with one.
    fn tell_refusal(&self, invite: &IncomingInvite, refusal: &Refusal) {
        let peer = invite.path.peer;
        if *refusal == Refusal::NotAuthenticated {
            debug!(sip.call_id = invite.call_id, %peer, "Call challenged");
            return;
        }
        let unsaid = match self.stranger(invite) {
            None => 0,
            Some(source) => match self.registry().refused.note(source, Instant::now()) {
                None => return,
                Some(tell) => tell.unsaid,
            },
        };
        let (status, call_id) = (refusal.status().code(), &invite.call_id);
        info!(sip.call_id = call_id, %peer, status, unsaid, "Call refused: {refusal}");
    }

    /// The source address of a caller that is neither a user, nor a trunk, nor trusted.
    fn stranger(&self, invite: &IncomingInvite) -> Option<IpAddr> {
        let is_known = invite.user.is_some()
            || invite.trunk.is_some()
            || self.inner.directory.borrow().is_trusted(invite.path);
        (!is_known).then(|| source_of(invite.path.peer.ip()))
    }

    /// INVITE with Replaces: the peer has handed its call over to another party (RFC 3891). The
    /// call gets another dialog.
    pub(super) async fn hand_over(
        &self,
        replaced: DialogId,
        dialog: DialogId,
        invite: Box<IncomingInvite>,
    ) {
        let call = self.registry().dialogs.get(&replaced).map(|line| line.call);
        let terms = self.terms_with_caller(&invite);
        let refused = match call
            .ok_or(Status::CALL_DOES_NOT_EXIST)
            .and_then(|call| self.reserve(call, dialog, None, None))
        {
            Ok((reserved, sip)) => {
                let sent = sip.try_send(CallMessage::Replace(reserved, invite, terms));
                sent.err().map(|error| match error {
                    TrySendError::Full(_) => Status::SERVICE_UNAVAILABLE,
                    TrySendError::Closed(_) => Status::CALL_DOES_NOT_EXIST,
                })
            }
            Err(status) => Some(status),
        };
        let Some(status) = refused else { return };
        let refuse = endpoint::Command::Refuse {
            dialog,
            status,
            reason: status.reason().to_owned(),
            headers: Vec::new(),
        };
        self.inner.drivers.signalling.send(refuse).await;
    }

    /// Handles a REFER from a peer that may send one: we call another party, which takes the place
    /// of the peer. Only targets that the call's application could call itself are allowed.
    pub(super) fn follow(&self, dialog: DialogId, referral: IncomingReferral) {
        let switchboard = self.clone();
        self.inner.tasks.spawn(async move {
            let Err(status) = switchboard.try_follow(dialog, &referral).await else { return };
            info!(to = %referral.target, status = status.code(), "A REFER of a peer is refused");
            let told = endpoint::Command::TellReferrer { dialog, status };
            switchboard.inner.drivers.signalling.send(told).await;
        });
    }

    /// # Errors
    /// The SIP status for the NOTIFY to the peer.
    async fn try_follow(
        &self,
        dialog: DialogId,
        referral: &IncomingReferral,
    ) -> Result<(), Status> {
        let inner = &self.inner;
        let (call, application) = {
            let registry = self.registry();
            let call = registry
                .dialogs
                .get(&dialog)
                .map(|line| line.call)
                .ok_or(Status::CALL_DOES_NOT_EXIST)?;
            (
                call,
                registry.calls.get(&call).ok_or(Status::CALL_DOES_NOT_EXIST)?.application.clone(),
            )
        };
        let directory = inner.directory.borrow().clone();
        let may_call = application.is_some_and(|name| directory.may_call(&name));
        if !may_call || inner.draining.load(Ordering::Relaxed) {
            return Err(Status::DECLINE);
        }
        let is_ours = |ip| inner.drivers.signalling.listens_on(ip);
        let target = directory.meant(&referral.target, is_ours).ok_or(Status::NOT_FOUND)?;
        let nobody = Placed { display_name: None, subject: None };
        let way = self.way_to(&directory, &target, &nobody).await;
        let (route_plan, room) = way.map_err(|_| Status::NOT_FOUND)?;
        if route_plan.leads_nowhere() {
            return Err(Status::NOT_FOUND);
        }
        let route_plan = route_plan
            .with("Referred-By", referral.by.clone())
            .with("Replaces", referral.replaces.clone());
        let terms = self.terms_with_called(&route_plan);
        let next = inner.drivers.signalling.fresh_dialog();
        let (reserved, sip) = self.reserve(call, next, route_plan.trunk.clone(), room)?;
        sip.try_send(CallMessage::Follow(reserved, Box::new(route_plan), terms))
            .map_err(|_| Status::CALL_DOES_NOT_EXIST)
    }

    fn admit(&self, dialog: DialogId, invite: &IncomingInvite) -> Result<(), Refusal> {
        let inner = &self.inner;
        if inner.draining.load(Ordering::Relaxed) {
            return Err(Refusal::Draining);
        }
        if let Some(refusal) = self.overload() {
            return Err(refusal);
        }
        let user = invite.request_uri.user().unwrap_or_default();
        let peer = invite.path.peer.ip();
        // A trunk that we register at may use the same routes as an authenticated user.
        let caller = invite.user.as_deref().or(invite.trunk.as_deref());
        let owner = inner.directory.borrow().find(&user, invite.path, caller)?;
        // Checked again when the call starts. A refusal here is cheaper, and leaves no trace of the
        // caller.
        let stranger =
            self.stranger(invite).map(|source| Stranger::new(source, invite.path, Instant::now()));
        self.registry().admit(stranger.as_ref(), inner.limits.max_calls, Instant::now())?;
        let (id, rng) = self.fresh_call();
        let called = invite.request_uri.without_parameters();
        let application_party = match &owner {
            call::Owner::Application { name, .. } => {
                let directory = inner.directory.borrow();
                directory
                    .application(name)
                    .map(|(id, _)| Party::application(id, Some(name.clone())))
            }
            call::Owner::Line(_) => None,
        };
        let offer = Offer {
            dialog,
            source: party(&invite.from),
            target: application_party
                .unwrap_or_else(|| Party { uri: called.clone(), display_name: None }),
            arrival: Arrival {
                called: Some(called),
                diverted: invite.diverted.iter().map(party).collect(),
                referred_by: invite.referred_by.as_ref().map(party),
            },
            is_telephone: invite.trunk.is_some() && is_number(invite.from.uri()),
            sip_call_id: invite.call_id.clone(),
            subject: invite.subject.as_deref().map(without_nul),
            sdp: invite.offer.clone(),
            media: self.terms_with_caller(invite),
        };
        let application = match &owner {
            call::Owner::Application { name, .. } => Some(name.clone()),
            call::Owner::Line(_) => None,
        };
        let (settings, now) = (inner.limits.settings.clone(), inner.drivers.now());
        let machine = Machine::offered(id, offer, owner, settings, now, rng)?;
        let span = info_span!(parent: None, "call", call.id = %id, sip.call_id = invite.call_id);
        span.in_scope(|| {
            info!(
                peer = %invite.path.peer,
                to = %user,
                application = %application.as_deref().unwrap_or_default(),
                "Call offered"
            );
        });
        inner.drivers.signalling.trace(id, &invite.call_id, &[peer]);
        let (mail, mailbox) = mailbox();
        let advertised = inner.limits.advertised;
        let task =
            CallTask::incoming(machine, inner.drivers.clone(), invite.path, advertised, mailbox);
        let entry = LiveCall { application, stranger, mail };
        Ok(self.run_task(id, task, entry, (dialog, None, None), span)?)
    }

    /// Passes an event to the call's task without waiting. The last event of a dialog has a
    /// reserved slot in the mailbox. If another event finds the mailbox full, the dialog is ended,
    /// and the call with it.
    pub(super) async fn pass_on(&self, event: Event) {
        let dialog = event.dialog();
        if let Event::Heard { .. } = &event {
            self.registry().heard(dialog);
            return;
        }
        if event.is_last() {
            // After a redirect the call's task may reuse the dialog, so the dialog keeps a slot. If
            // the task does not reuse it, the entry goes when the call is removed.
            let may_go_on =
                matches!(&event, Event::Refused { contacts, .. } if !contacts.is_empty());
            let mut registry = self.registry();
            let Some(CallDialog { call, trunk, last }) = registry.dialogs.remove(&dialog) else {
                debug!(?event, "event of a call that is over");
                return;
            };
            let sip = last.send(CallMessage::Sip(event));
            if may_go_on && let Ok(last) = sip.try_reserve_owned() {
                registry.dialogs.insert(dialog, CallDialog { call, trunk, last });
            }
            return;
        }
        let sip = {
            let registry = self.registry();
            let line = registry.dialogs.get(&dialog);
            line.and_then(|line| registry.calls.get(&line.call)).map(|entry| entry.mail.sip.clone())
        };
        let Some(sip) = sip else {
            debug!(?event, "event of a call that is over");
            return;
        };
        if sip.try_send(CallMessage::Sip(event)).is_err() {
            warn!("a call's task is stuck; its dialog is ended");
            let bye = endpoint::Command::Bye { dialog, reason: None };
            self.inner.drivers.signalling.send(bye).await;
        }
    }
}

fn party(address: &NameAddr) -> Party {
    Party {
        uri: address.uri().without_parameters(),
        display_name: address.display_name().map(without_nul),
    }
}

/// Text from a peer without NUL characters, which databases do not accept.
fn without_nul(text: &str) -> String {
    text.replace('\0', "")
}
