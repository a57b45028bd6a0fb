//! Execution of the commands from the owner of a call.

use std::time::Instant;

use bytes::Bytes;
use tracing::debug;

use super::{Ending, Endpoint, fresh};
use crate::proto::sip::{
    Status,
    body::SDP,
    dialog::{Dialog, DialogId, HangUp, Hop, Parting},
    in_dialog_request::InDialogRequest,
    message::{Method, Request, ResponseBuilder},
    session_timer::{SessionTimer, TIMER},
    transaction::TransactionUser,
    transmit::Transmit,
    validate::Refusal,
};

/// The Reason of a BYE that ends a call to free capacity (RFC 3326 §2).
const NO_ROOM: &str = "SIP;cause=503;text=\"No room\"";

impl Endpoint {
    /// Sends 180. A caller that requires 100rel gets it reliably (RFC 3262 §3). If it would have to
    /// carry our offer, no 180 is sent.
    pub(super) fn ring(&mut self, id: DialogId, now: Instant) {
        let Some(dialog) = self.dialogs.get(id).filter(|dialog| dialog.is_ringing()) else {
            debug!(?id, "nothing rings any more");
            return;
        };
        let Some(pending) = dialog.pending().cloned() else { return };
        if !pending.request.lists("Require", "100rel") {
            self.respond(&pending, Status::RINGING, now);
            return;
        }
        if pending.request.description().is_none() {
            self.try_stranger(&pending, now);
            return;
        }
        if dialog.awaits_prack() {
            return;
        }
        let rseq = fresh::rseq(&mut self.rng);
        let Some(dialog) = self.dialogs.get_mut(id) else { return };
        let contact = self.config.contact(dialog.is_sips(), dialog.target.path());
        let is_limited = dialog.target.is_unproven();
        let ringing =
            ResponseBuilder::to(&pending.request, Status::RINGING).to_tag(&dialog.key().local_tag);
        let ringing =
            if is_limited { ringing } else { ringing.header("Server", &self.config.server_name) };
        let ringing =
            ringing.contact(&contact).header("Require", "100rel").header("RSeq", &rseq.to_string());
        let ringing = Bytes::from(ringing.build());
        dialog.rang_reliably(rseq, ringing.clone(), now);
        self.finish_pending(pending.transaction, Status::RINGING, ringing, now);
    }

    pub(super) fn answer(&mut self, id: DialogId, sdp: &[u8], now: Instant) {
        let Some(dialog) = self.dialogs.get(id) else { return };
        let Some(pending) = dialog.pending().cloned() else {
            debug!(?id, "nothing to answer any more");
            return;
        };
        // An interval that is too small was refused when the request came.
        let session = SessionTimer::answer(&pending.request, now).ok().flatten();
        let (tag, contact) =
            (&dialog.key().local_tag, self.config.contact(dialog.is_sips(), dialog.target.path()));
        // Header fields that are not mandatory (RFC 3261 §13.3.1.4) are left out if the allowance
        // is limited.
        let ok = if dialog.target.is_unproven() {
            ResponseBuilder::to(&pending.request, Status::OK).to_tag(tag).contact(&contact)
        } else {
            self.responder
                .begin(&pending.request, Status::OK, tag)
                .contact(&contact)
                .header("Allow", &self.responder.allow())
                .header("Supported", self.config.supported())
        };
        let ok = session_headers(ok, &pending.request, session.as_ref());
        let ok = Bytes::from(ok.body(SDP, sdp).build());
        let Some(transmit) =
            self.transactions.respond(pending.transaction, Status::OK, ok.clone(), now)
        else {
            return;
        };
        let Some(dialog) = self.dialogs.get_mut(id) else { return };
        // A 200 that exceeds the allowance waits until the INVITE comes again.
        if !dialog.target.is_elsewhere(transmit.path)
            && dialog.target.allowance.take(transmit.bytes.len())
        {
            self.transmit(transmit);
        }
        if let Some(dialog) = self.dialogs.get_mut(id) {
            dialog.answered(ok, sdp, now);
            dialog.session.restart(session.map(|(timer, _)| timer));
        }
    }

    /// Asks the caller to authenticate. Without users no caller can, so the response is 403.
    pub(super) fn challenge(&mut self, id: DialogId, now: Instant) {
        let Some(dialog) = self.dialogs.get(id).filter(|dialog| dialog.is_ringing()) else {
            debug!(?id, "nothing to challenge any more");
            return;
        };
        let Some(pending) = dialog.pending().cloned() else { return };
        let source = dialog.target.path().peer.ip();
        let refusal = if self.users.is_empty() {
            Refusal::new(Status::FORBIDDEN)
        } else {
            self.users.challenge(source, false, now)
        };
        let response = self.responder.refusal(&pending.request, &refusal);
        self.finish_pending(pending.transaction, Status::UNAUTHORIZED, response, now);
        self.forget_dialog(id, now);
    }

    pub(super) fn refuse(
        &mut self,
        id: DialogId,
        status: Status,
        reason: &str,
        headers: &[(String, String)],
        now: Instant,
    ) {
        debug_assert!(status.is_refusal(), "{status} refuses nothing");
        let Some(pending) = self.dialogs.get(id).and_then(Dialog::pending).cloned() else {
            debug!(?id, "nothing to refuse any more");
            return;
        };
        let tag = self.tag_of_response(&pending, status);
        let builder = ResponseBuilder::to(&pending.request, status).reason(reason).to_tag(&tag);
        let builder = headers
            .iter()
            .fold(builder, |builder, (name, value)| builder.header(name, value))
            .header("Server", &self.config.server_name);
        self.finish_pending(pending.transaction, status, builder.build(), now);
        if self.dialogs.get(id).is_some_and(Dialog::is_ringing) {
            self.forget_dialog(id, now);
        } else if let Some(dialog) = self.dialogs.get_mut(id) {
            dialog.reoffer_refused();
        }
    }

    pub(super) fn hang_up(&mut self, id: DialogId, wish: HangUp, now: Instant) {
        let Some(dialog) = self.dialogs.get_mut(id) else {
            self.hang_up_outgoing(id, wish, now);
            return;
        };
        match dialog.hang_up(wish.clone()) {
            Parting::Refuse(pending) => {
                self.respond(&pending, Status::TEMPORARILY_UNAVAILABLE, now);
                self.end(id, Ending::Answered, now);
            }
            Parting::Bye(reoffer) => {
                if let Some(pending) = reoffer {
                    self.respond(&pending, Status::REQUEST_TERMINATED, now);
                }
                self.send_bye(id, wish, now);
            }
            Parting::Later | Parting::Already => debug!(?id, "hanging up already"),
        }
    }

    /// Ends a half-open call to free capacity. A 200 that was sent is revoked by a BYE without a
    /// transaction, and the INVITE counts as new if it comes again.
    pub(super) fn make_room(&mut self, id: DialogId, now: Instant) {
        let Some(dialog) = self.dialogs.get(id) else { return };
        if dialog.is_ringing() {
            let retry_after = self.config.retry_after.as_secs().to_string();
            let headers = [("Retry-After".to_owned(), retry_after)];
            self.refuse(
                id,
                Status::SERVICE_UNAVAILABLE,
                Status::SERVICE_UNAVAILABLE.reason(),
                &headers,
                now,
            );
            return;
        }
        let Some(invite) = dialog.half_open_invite() else {
            self.hang_up(id, HangUp::because(NO_ROOM), now);
            return;
        };
        self.transactions.forget_invite(invite);
        self.send_last_bye(id, HangUp::because(NO_ROOM));
        self.forget_dialog(id, now);
    }

    /// Sends one BYE without a transaction, if the allowance suffices.
    pub(super) fn send_last_bye(&mut self, id: DialogId, hang_up: HangUp) {
        let branch = fresh::branch(&mut self.rng);
        let Some(dialog) = self.dialogs.get_mut(id) else { return };
        let (cseq, path) =
            (dialog.next_cseq(), self.config.leaving_listener(dialog.target.next_hop()));
        let sent_by = self.config.sent_by(path);
        let hop = Hop { sent_by: &sent_by, branch: &branch };
        let bye = dialog.request(Method::Bye, cseq, path, hop);
        let reason = hang_up.reason.as_deref();
        let bye = reason.into_iter().fold(bye, |bye, text| bye.header("Reason", text)).build();
        if dialog.target.allowance.take(bye.len()) {
            let next_hop = dialog.target.next_hop_uri();
            let bye = Transmit::request(path, next_hop, bye.into());
            self.transmit(bye);
        }
    }

    /// Sends the BYE of a dialog that ends.
    pub(super) fn send_bye(&mut self, id: DialogId, hang_up: HangUp, now: Instant) {
        let Some(dialog) = self.dialogs.get(id) else { return };
        let bye = InDialogRequest::new(id, dialog.key().remote_tag.clone(), Method::Bye);
        let bye = hang_up.reason.into_iter().fold(bye, |bye, text| bye.header("Reason", text));
        self.ask_within(bye, TransactionUser::Bye(id), now);
    }
}

/// Adds the session interval, if there is one; a peer that supports timers gets Require too (RFC
/// 4028 §9).
pub(super) fn session_headers<'a>(
    builder: ResponseBuilder<'a>,
    request: &Request,
    session: Option<&(SessionTimer, String)>,
) -> ResponseBuilder<'a> {
    let Some((_, value)) = session else { return builder };
    let builder = builder.header("Session-Expires", value);
    if request.lists("Supported", TIMER) { builder.header("Require", TIMER) } else { builder }
}
