//! Requests of applications, which arrive through the API.

use std::{sync::atomic::Ordering, time::Duration};

use async_trait::async_trait;
use rand::RngCore;
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, info_span, warn};

use super::{
    CallControl, NewCall, Switchboard, TransferTarget,
    call_task::CallTask,
    dialled::{Dialled, named_to_peers},
    is_number,
    mailbox::{CallRequest, Reply, mailbox},
    outgoing::Placed,
    registry::LiveCall,
};
use crate::drivers::{
    recordings::{FolderFault, OpenClip, SpoolError},
    signalling::{Traced, TrunkReport},
};
use aftertone_core::{
    call::{CallError, Command, Machine, NewOperation, Placement},
    model::{Call, CallId, Operation, Party, PromptSource, RecordingId, RejectReason, Termination},
    proto::sip::uri::Uri,
};

/// How long the disk, and then the database, may take to show that it works.
const PROOF: Duration = Duration::from_secs(2);

/// How long a request may wait for a slot in the task's mailbox, and then again for its commit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);

#[async_trait]
impl CallControl for Switchboard {
    async fn calls(&self, application: &str) -> Result<Vec<Call>, CallError> {
        let senders: Vec<_> = self
            .registry()
            .calls
            .values()
            .filter(|entry| entry.application.as_deref() == Some(application))
            .map(|entry| entry.mail.requests.clone())
            .collect();
        let mut calls = Vec::with_capacity(senders.len());
        for sender in senders {
            if let Ok(call) = ask(&sender, CallRequest::Show).await {
                calls.push(call);
            }
        }
        calls.sort_by_key(|call| (call.created_at, call.id));
        Ok(calls)
    }

    async fn call(&self, application: &str, id: CallId) -> Result<Call, CallError> {
        ask(&self.find(application, id)?, CallRequest::Show).await
    }

    async fn place(&self, application: &str, new: NewCall) -> Result<Call, CallError> {
        let inner = &self.inner;
        if inner.draining.load(Ordering::Relaxed) || self.overload().is_some() {
            return Err(CallError::Overloaded { retry_after: 5 });
        }
        let directory = inner.directory.borrow().clone();
        let (application_id, callback_uri) =
            directory.application(application).ok_or(CallError::Internal)?;
        let target: Uri = new.target.uri.parse().map_err(|_| CallError::Internal)?;
        let placed =
            Placed { display_name: new.source_name.as_deref(), subject: new.subject.as_deref() };
        let (route_plan, room) = self.way_to(&directory, &target, &placed).await?;
        let (id, rng) = (new.id, self.fresh_rng());
        let dialog = inner.drivers.signalling.fresh_dialog();
        let placement = Placement {
            dialog,
            source: Party::application(application_id, new.source_name),
            target: new.target,
            subject: new.subject,
            chain_id: new.chain_id,
            callback_uri: new.callback_uri,
            media_config: new.media_config,
            is_telephone: route_plan.trunk.is_some() && is_number(&target),
            ringing_timeout_seconds: new.ringing_timeout_seconds,
            media: self.terms_with_called(&route_plan),
        };
        let settings = inner.limits.settings.clone();
        let callback_uri = callback_uri.to_owned();
        let now = inner.drivers.now();
        let machine = Machine::placed(id, placement, application, callback_uri, settings, now, rng)
            .map_err(|_| CallError::Internal)?;
        // The state at the start; when this function returns, the call may have progressed.
        let call = machine.call().clone();
        let (trunk, called) = (route_plan.trunk.clone(), route_plan.request_uri().clone());
        let span = info_span!(parent: None, "call", call.id = %id, sip.call_id = machine.call().sip_call_id);
        let (mail, mailbox) = mailbox();
        let entry = LiveCall::of_application(application, mail);
        let (drivers, advertised) = (inner.drivers.clone(), inner.limits.advertised);
        let (placed, answer) = oneshot::channel();
        let task = CallTask::outgoing(machine, drivers, route_plan, advertised, mailbox, placed);
        self.run_task(id, task, entry, (dialog, trunk.clone(), room), span.clone())?;
        span.in_scope(|| info!(to = %called, application, trunk, "Call placed"));
        inner.drivers.prompts.prefetch(application, new.prefetch);
        // Succeeds even if the call is over by then.
        answered(answer).await.map(|()| call)
    }

    async fn answer(
        &self,
        application: &str,
        id: CallId,
        callback_uri: Option<String>,
        media_config: Option<String>,
        prefetch: Vec<PromptSource>,
    ) -> Result<(), CallError> {
        let sender = self.find(application, id)?;
        self.inner.drivers.prompts.prefetch(application, prefetch);
        let command = Command::Answer { callback_uri, media_config };
        ask(&sender, |reply| CallRequest::Command(command, reply)).await
    }

    async fn reject(
        &self,
        application: &str,
        id: CallId,
        reason: RejectReason,
        callback_uri: Option<String>,
    ) -> Result<(), CallError> {
        let command = Command::Reject { reason, callback_uri };
        ask(&self.find(application, id)?, |reply| CallRequest::Command(command, reply)).await
    }

    async fn redirect(
        &self,
        application: &str,
        id: CallId,
        target: Party,
        callback_uri: Option<String>,
    ) -> Result<(), CallError> {
        let sender = self.find(application, id)?;
        let target: Uri = target.uri.parse().map_err(|_| CallError::Internal)?;
        let source = ask(&sender, CallRequest::Show).await?.source.uri.parse::<Uri>().ok();
        let fixture = source.as_ref().and_then(Uri::host);
        let target = match (target.scheme(), fixture) {
            ("tel", Some(fixture)) => Dialled::read(&target).and_then(|number| number.at(fixture)),
            _ => named_to_peers(&target),
        };
        let target = target.ok_or(CallError::NoWay)?;
        let command = Command::Redirect { target: Box::new(target), callback_uri };
        ask(&sender, |reply| CallRequest::Command(command, reply)).await
    }

    async fn hang_up(&self, application: &str, id: CallId) -> Result<(), CallError> {
        let command = Command::HangUp(Termination::ApplicationHungUp);
        ask(&self.find(application, id)?, |reply| CallRequest::Command(command, reply)).await
    }

    async fn transfer(
        &self,
        application: &str,
        id: CallId,
        to: TransferTarget,
    ) -> Result<(), CallError> {
        let sender = self.find(application, id)?;
        let (target, replaces) = match to {
            TransferTarget::Party(party) => (self.referable(&party)?, None),
            TransferTarget::PeerOf(other) => {
                let (peer, dialog) =
                    ask(&self.find(application, other)?, CallRequest::Peer).await?;
                (peer.uri.parse().map_err(|_| CallError::Internal)?, Some(dialog))
            }
        };
        let command = Command::Transfer { target: Box::new(target), replaces };
        ask(&sender, |reply| CallRequest::Command(command, reply)).await
    }

    async fn keep_alive(&self, application: &str, id: CallId) -> Result<(), CallError> {
        ask(&self.find(application, id)?, |reply| CallRequest::Command(Command::KeepAlive, reply))
            .await
    }

    async fn submit(
        &self,
        application: &str,
        id: CallId,
        new: NewOperation,
    ) -> Result<Operation, CallError> {
        let sender = self.find(application, id)?;
        let clip = if new.kind.is_record() { Some(self.open_clip(id).await?) } else { None };
        ask(&sender, |reply| CallRequest::Submit(new, clip, reply)).await
    }

    async fn trace(&self, application: &str, id: CallId) -> Result<Vec<Traced>, CallError> {
        let call = self.inner.drivers.database.call(id).await.map_err(|error| {
            warn!(%error, "cannot read a call");
            CallError::Overloaded { retry_after: 1 }
        })?;
        let call = call.filter(|call| call.application.as_deref() == Some(application));
        let call = call.ok_or(CallError::NotFound)?;
        Ok(self.inner.drivers.signalling.traced(call.id))
    }

    async fn operations(&self, application: &str, id: CallId) -> Result<Vec<Operation>, CallError> {
        let live = ask(&self.find(application, id)?, CallRequest::Operations).await?;
        let mut all = self.inner.drivers.database.operations(id).await.map_err(|error| {
            warn!(%error, "cannot read the operations of a call");
            CallError::Overloaded { retry_after: 1 }
        })?;
        for operation in &mut all {
            if let Some(live) = live.iter().find(|live| live.id == operation.id) {
                operation.clone_from(live);
            }
        }
        Ok(all)
    }

    async fn ready(&self) -> Result<(), String> {
        if self.inner.draining.load(Ordering::Relaxed) {
            return Err("draining".to_owned());
        }
        if let Some(refusal) = self.unwritable() {
            return Err(refusal.to_string());
        }
        if let Some(fault) = self.inner.drivers.vault.fault() {
            return Err(fault.to_string());
        }
        if self.inner.drivers.media.is_broken() {
            return Err("a media thread has ended".to_owned());
        }
        match tokio::time::timeout(PROOF, self.inner.drivers.spool.check_room()).await {
            Ok(Ok(())) => {}
            Ok(Err(error @ SpoolError::LowWater { .. })) => return Err(error.to_string()),
            // Clients without credentials may read this answer; the path of the clips goes to the
            // log only.
            Ok(Err(_)) => return Err("the folder of the recordings cannot be looked at".to_owned()),
            Err(_) => return Err(FolderFault::Silent.to_string()),
        }
        let proof = self.inner.drivers.journal.prove();
        match tokio::time::timeout(PROOF, proof).await {
            Ok(Ok(())) => Ok(()),
            // Clients without credentials may read this answer; the database's error goes to the
            // log only.
            Ok(Err(error)) => {
                debug!("The last commit cannot be proved: {error}");
                Err("the database does not show what was committed last".to_owned())
            }
            Err(_) => Err("the database does not answer".to_owned()),
        }
    }

    async fn trunks(&self) -> Vec<TrunkReport> {
        self.inner.drivers.signalling.trunks().await
    }
}

impl Switchboard {
    /// Target of a REFER to a peer. Only targets that we could call ourselves are allowed.
    fn referable(&self, party: &Party) -> Result<Uri, CallError> {
        let target: Uri = party.uri.parse().map_err(|_| CallError::Internal)?;
        let directory = self.inner.directory.borrow().clone();
        if self.user_of(&directory, &target).is_some() {
            return target.without_parameters().parse().map_err(|_| CallError::Internal);
        }
        let nobody = Placed { display_name: None, subject: None };
        let (route_plan, _) = directory.way_out(&target, &nobody).ok_or(CallError::NoWay)?;
        Ok(route_plan.request_uri().clone())
    }

    async fn open_clip(&self, call: CallId) -> Result<OpenClip, CallError> {
        let mut bytes = [0; 16];
        self.fresh_rng().fill_bytes(&mut bytes);
        let opened = self.inner.drivers.open_clip(RecordingId::from_random(bytes), call).await;
        opened.map_err(|error| match error {
            SpoolError::TooMany(_) => CallError::Overloaded { retry_after: 1 },
            _ => CallError::NoDisk,
        })
    }

    fn find(&self, application: &str, id: CallId) -> Result<mpsc::Sender<CallRequest>, CallError> {
        let registry = self.registry();
        match registry.calls.get(&id) {
            Some(entry) if entry.application.as_deref() == Some(application) => {
                Ok(entry.mail.requests.clone())
            }
            Some(_) | None => Err(CallError::NotFound),
        }
    }
}

async fn ask<T>(
    sender: &mpsc::Sender<CallRequest>,
    request: impl FnOnce(Reply<T>) -> CallRequest,
) -> Result<T, CallError> {
    let (reply, answer) = oneshot::channel();
    let asking = sender.send(request(reply));
    match tokio::time::timeout(REQUEST_TIMEOUT, asking).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => return Err(CallError::NotFound),
        // Nothing was done: the task has not received the message.
        Err(_) => return Err(CallError::Overloaded { retry_after: 1 }),
    }
    answered(answer).await
}

/// Waits a limited time for the answer of a call's task.
async fn answered<T>(answer: oneshot::Receiver<Result<T, CallError>>) -> Result<T, CallError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(Ok(answer)) => answer,
        // The task has ended meanwhile, and so has the call.
        Ok(Err(_)) => Err(CallError::NotFound),
        Err(_) => Err(CallError::Unanswered),
    }
}
