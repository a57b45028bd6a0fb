//! Requests within an early dialog of an outgoing call: the called side may send some while it
//! rings (RFC 3261 §12.1, RFC 3311 §5.2). They cause no event, because the call is not answered.

use std::time::Instant;

use super::{Endpoint, Path};
use crate::proto::sip::{
    Status,
    dialog::DialogKey,
    info,
    message::{Method, Request},
    outgoing::Fork,
    session_timer::SessionTimer,
    transaction::TransactionKey,
    validate::check_description,
};

impl Endpoint {
    /// Whether this is the dialog of a fork of an outgoing call: it rings, or has answered after
    /// another one.
    pub(super) fn is_early(&self, dialog: &DialogKey) -> bool {
        let id = self.outgoing_by_name.get(&dialog.outgoing_name());
        let outgoing = id.and_then(|id| self.outgoing.get(id));
        let tag = dialog.remote_tag.as_deref();
        outgoing.zip(tag).is_some_and(|(outgoing, tag)| outgoing.has_fork(tag))
    }

    pub(super) fn handle_early(
        &mut self,
        dialog: &DialogKey,
        request: &Request,
        key: TransactionKey,
        path: Path,
        now: Instant,
    ) {
        let is_full = self.transactions.len() >= self.config.max_transactions;
        if is_full && *request.method() != Method::Bye {
            self.refuse_for_load(request, path);
            return;
        }
        let Some(fork) = self.fork_of(dialog) else { return };
        if let Err(untimely) = fork.dialog.admit(request) {
            self.refuse_untimely(untimely, request, key, path, now);
            return;
        }
        let content = match request.method() {
            Method::Update => check_description(request),
            // A key causes no event.
            Method::Info => info::read(request, false).map(|_| ()),
            _ => Ok(()),
        };
        if let Err(refusal) = content {
            self.refuse_with(&refusal, request, key, path, now);
            return;
        }
        let was_answered = fork.answer.is_some();
        let is_hung_up = fork.ack.is_some();
        let status = match request.method() {
            Method::Update if SessionTimer::answer(request, now).is_err() => {
                Status::SESSION_INTERVAL_TOO_SMALL
            }
            Method::Update if request.description().is_none() => {
                let contact = request.contacts().first().map(|contact| contact.uri());
                fork.dialog.target.refresh(contact, path);
                let response = self.update_accepted(request, path).build();
                self.answer_in_transaction(key, path, response.into(), now);
                return;
            }
            // Our offer is answered; the next offer has to wait until the call is answered.
            Method::Update if was_answered => Status::SERVER_INTERNAL_ERROR,
            Method::Update | Method::Invite => Status::REQUEST_PENDING,
            Method::Info => Status::OK,
            Method::Options => {
                let response = self.options_response(request);
                self.answer_in_transaction(key, path, response, now);
                return;
            }
            Method::Bye if is_hung_up => Status::OK,
            // §15: the called side may not send BYE before it answers.
            Method::Bye | Method::Prack | Method::Notify => Status::CALL_DOES_NOT_EXIST,
            Method::Refer => Status::DECLINE,
            _ => Status::METHOD_NOT_ALLOWED,
        };
        self.refuse_stateful(request, key, path, status, now);
    }

    fn fork_of(&mut self, dialog: &DialogKey) -> Option<&mut Fork> {
        let id = self.outgoing_by_name.get(&dialog.outgoing_name())?;
        self.outgoing.get_mut(id)?.fork(dialog.remote_tag.as_deref()?)
    }
}
