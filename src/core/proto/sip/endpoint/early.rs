//! Requests within an early dialog of an outgoing call: the called side may send some while it
//! rings (RFC 3261 §12.1, RFC 3311 §5.2). They cause no event, because the call is not answered.

use std::time::Instant;

use super::{Endpoint, Path};
use crate::proto::sip::{
    dialog::DialogKey,
    info,
    message::{Method, Request},
    session_timer::SessionTimer,
    transaction::TransactionKey,
    validate::check_description,
};

impl Endpoint {
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
        let Some(fork) = self.dialogs.fork_mut(dialog) else { return };
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
            Method::Update if SessionTimer::answer(request, now).is_err() => 422,
            Method::Update if request.description().is_none() => {
                let contact = request.contacts().first().map(|contact| contact.uri());
                fork.dialog.refresh_target(contact, path);
                let response = self.update_accepted(request, path).build();
                self.answer_in_transaction(key, path, response.into(), now);
                return;
            }
            // Our offer is answered; the next offer has to wait until the call is answered.
            Method::Update if was_answered => 500,
            Method::Update | Method::Invite => 491,
            Method::Info => 200,
            Method::Options => {
                let response = self.options_response(request);
                self.answer_in_transaction(key, path, response, now);
                return;
            }
            Method::Bye if is_hung_up => 200,
            // §15: the called side may not send BYE before it answers.
            Method::Bye | Method::Prack | Method::Notify => 481,
            Method::Refer => 603,
            _ => 405,
        };
        self.refuse_stateful(request, key, path, status, now);
    }
}
