//! Requests within an early dialog of an outgoing call: the called side may send some while it
//! rings (RFC 3261 §12.1, RFC 3311 §5.2). They cause no event, because the call is not answered.

use super::{Endpoint, arrived::Arrived};
use crate::proto::sip::{
    Status, dialog::DialogKey, info, message::Method, session_timer::SessionTimer,
    validate::check_description,
};

impl Endpoint {
    pub(super) fn handle_early(&mut self, dialog: &DialogKey, arrived: Arrived) {
        let request = &arrived.request;
        let is_full = self.transactions.len() >= self.config.max_transactions;
        if is_full && *request.method() != Method::Bye {
            self.answer_stateless(&arrived, Status::SERVICE_UNAVAILABLE);
            return;
        }
        let Some(fork) = self.dialogs.fork_mut(dialog) else { return };
        if let Err(untimely) = fork.dialog.admit(request) {
            self.refuse_stateful(arrived, untimely.status());
            return;
        }
        let content = match request.method() {
            Method::Update => check_description(request),
            // A key causes no event.
            Method::Info => info::read(request, false).map(|_| ()),
            _ => Ok(()),
        };
        if let Err(refusal) = content {
            self.refuse_with(arrived, &refusal);
            return;
        }
        let was_answered = fork.answer.is_some();
        let is_hung_up = fork.ack.is_some();
        let status = match request.method() {
            Method::Update if SessionTimer::answer(request, arrived.now).is_err() => {
                Status::SESSION_INTERVAL_TOO_SMALL
            }
            Method::Update if request.description().is_none() => {
                let contact = request.contacts().first().map(|contact| contact.uri());
                fork.dialog.target.refresh(contact, arrived.path);
                let response = self.responder.update_accepted(request, arrived.path).build();
                self.answer_in_transaction(arrived, response.into());
                return;
            }
            // Our offer is answered; the next offer has to wait until the call is answered.
            Method::Update if was_answered => Status::SERVER_INTERNAL_ERROR,
            Method::Update | Method::Invite => Status::REQUEST_PENDING,
            Method::Info => Status::OK,
            Method::Options => {
                let response = self.responder.options(request);
                self.answer_in_transaction(arrived, response);
                return;
            }
            Method::Bye if is_hung_up => Status::OK,
            // §15: the called side may not send BYE before it answers.
            Method::Bye | Method::Prack | Method::Notify => Status::CALL_DOES_NOT_EXIST,
            Method::Refer => Status::DECLINE,
            _ => Status::METHOD_NOT_ALLOWED,
        };
        self.refuse_stateful(arrived, status);
    }
}
