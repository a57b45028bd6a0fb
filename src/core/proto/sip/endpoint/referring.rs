//! Transfer of a peer: we ask it to call another party, and it reports the progress (RFC 3515, RFC
//! 5589).

use std::time::Instant;

use tracing::debug;

use super::{Endpoint, Event, arrived::Arrived};
use crate::proto::sip::{
    Status,
    dialog::DialogId,
    in_dialog_request::InDialogRequest,
    message::{Method, Request},
    transaction::TransactionUser,
    uri::{Uri, escape_header},
};

/// The body type of a NOTIFY that reports the progress of a REFER (RFC 3420).
pub(super) const SIPFRAG: &str = "message/sipfrag";

impl Endpoint {
    /// Asks the peer to call `target`; if `replaces` is given, in place of that call of ours.
    pub(super) fn refer(
        &mut self,
        id: DialogId,
        target: &Uri,
        replaces: Option<DialogId>,
        now: Instant,
    ) {
        let refer_to = match replaces {
            None => target.to_string(),
            Some(other) => match self.dialogs.get(other) {
                Some(other) => {
                    let (target, value) = other.as_replaced();
                    let sign = if target.headers().is_empty() { '?' } else { '&' };
                    format!("{target}{sign}Replaces={}", escape_header(&value))
                }
                // The other call has ended in the meantime.
                None => {
                    self.tell(Event::Referred { dialog: id, status: Status::CALL_DOES_NOT_EXIST });
                    return;
                }
            },
        };
        let Some(dialog) = self.dialogs.get_mut(id).filter(|dialog| !dialog.is_ringing()) else {
            debug!(?id, "there is no peer that could be referred");
            return;
        };
        if dialog.is_ending() || dialog.sent_refer.is_under_way() {
            self.tell(Event::Referred { dialog: id, status: Status::REQUEST_PENDING });
            return;
        }
        dialog.sent_refer.sent(now);
        let contact = self.config.contact(dialog.is_sips(), dialog.target.next_hop());
        let refer = InDialogRequest::new(id, dialog.key().remote_tag.clone(), Method::Refer)
            .with_contact()
            .header("Refer-To", format!("<{refer_to}>"))
            .header("Referred-By", format!("<{contact}>"))
            .header("Supported", self.config.supported());
        self.ask_within(refer, TransactionUser::Refer(id), now);
    }

    /// Our REFER got its final response. After a 2xx, NOTIFY requests follow.
    pub(super) fn refer_answered(&mut self, id: DialogId, status: Status, now: Instant) {
        let Some(dialog) = self.dialogs.get_mut(id) else { return };
        let Some(status) = dialog.sent_refer.answered(status, now) else { return };
        self.tell(Event::Referred { dialog: id, status });
    }

    /// Handles a NOTIFY within a dialog; only those about a REFER of ours are accepted.
    pub(super) fn handle_notify(&mut self, id: DialogId, arrived: Arrived) {
        let (request, now) = (&arrived.request, arrived.now);
        let event = request.header("Event").unwrap_or_default();
        let event = event.split(';').next().unwrap_or_default().trim();
        if !event.eq_ignore_ascii_case("refer") {
            self.answer_stateful(arrived, Status::BAD_EVENT);
            return;
        }
        let dialog = self.dialogs.get_mut(id);
        let Some(dialog) = dialog.filter(|dialog| dialog.sent_refer.is_under_way()) else {
            self.answer_stateful(arrived, Status::CALL_DOES_NOT_EXIST);
            return;
        };
        let state = request.header("Subscription-State").unwrap_or_default();
        let progress = dialog.sent_refer.notified(status_in(request), state, now);
        self.answer_stateful(arrived, Status::OK);
        if let Some(status) = progress {
            self.tell(Event::Referred { dialog: id, status });
        }
    }
}

/// The status of the SIP response in the body.
fn status_in(request: &Request) -> Option<Status> {
    let part = request.content(&[SIPFRAG]).into_part()?;
    // The reason phrase may be in any character set.
    let text = String::from_utf8_lossy(&part.bytes);
    Status::parse(text.trim_start().strip_prefix("SIP/2.0 ")?.get(..3)?)
}
