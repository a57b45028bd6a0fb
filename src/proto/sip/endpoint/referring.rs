//! Transfer: a peer is asked to call somebody else, and tells how that goes (RFC 3515, RFC 5589).

use std::time::Instant;

use tracing::debug;

use super::{Endpoint, Event, Path};
use crate::proto::sip::{
    dialog::{DialogId, Hop},
    message::{Method, Request},
    transaction::{Asker, TransactionKey},
    uri::{Uri, escape_header},
};

/// The body of a NOTIFY that tells how a REFER goes (RFC 3420).
pub(super) const SIPFRAG: &str = "message/sipfrag";

impl Endpoint {
    /// Asks the peer to call `target`, in the place of another call of ours if one is named.
    pub(super) fn refer(
        &mut self,
        id: DialogId,
        target: &Uri,
        replaces: Option<DialogId>,
        now: Instant,
    ) {
        let refer_to = match replaces {
            None => target.to_string(),
            Some(other) => match self.dialogs.get(&other) {
                Some(other) => {
                    let (target, value) = other.as_replaced();
                    let sign = if target.headers().is_empty() { '?' } else { '&' };
                    format!("{target}{sign}Replaces={}", escape_header(&value))
                }
                // It has ended meanwhile.
                None => {
                    self.tell(Event::Referred { dialog: id, status: 481 });
                    return;
                }
            },
        };
        let branch = self.fresh_branch();
        let Some(dialog) = self.dialogs.get_mut(&id).filter(|dialog| !dialog.is_ringing()) else {
            debug!(?id, "nobody is there who could be referred");
            return;
        };
        if dialog.is_ending() || dialog.refers() {
            self.tell(Event::Referred { dialog: id, status: 491 });
            return;
        }
        dialog.set_refers(true);
        let path = dialog.next_hop();
        let sent_by = self.config.sent_by(path);
        let hop = Hop { sent_by: &sent_by, branch: &branch };
        let (builder, _, path) = dialog.request(Method::Refer, hop);
        let contact = self.config.contact(path);
        let builder = builder
            .contact(&contact)
            .header("Refer-To", &format!("<{refer_to}>"))
            .header("Referred-By", &format!("<{contact}>"))
            .header("Supported", self.config.supported())
            .header("User-Agent", &self.config.server_name);
        self.ask(branch, Method::Refer, Asker::Refer(id), builder, path, now);
    }

    /// Our REFER got its final response. After a 2xx, NOTIFY requests follow.
    pub(super) fn refer_answered(&mut self, id: DialogId, status: u16) {
        let is_refused = status >= 300;
        let Some(dialog) = self.dialogs.get_mut(&id).filter(|dialog| dialog.refers()) else {
            return;
        };
        if is_refused {
            dialog.set_refers(false);
        }
        let status = if is_refused { status } else { 100 };
        self.tell(Event::Referred { dialog: id, status });
    }

    /// A NOTIFY of a dialog: only what a REFER of ours has led to is of interest.
    pub(super) fn handle_notify(
        &mut self,
        id: DialogId,
        request: &Request,
        key: TransactionKey,
        path: Path,
        now: Instant,
    ) {
        let event = request.header("Event").unwrap_or_default();
        let event = event.split(';').next().unwrap_or_default().trim();
        if !event.eq_ignore_ascii_case("refer") {
            self.answer_stateful(request, key, path, 489, now);
            return;
        }
        let Some(dialog) = self.dialogs.get_mut(&id).filter(|dialog| dialog.refers()) else {
            self.answer_stateful(request, key, path, 481, now);
            return;
        };
        let state = request.header("Subscription-State").unwrap_or_default();
        let is_over = state.trim().to_ascii_lowercase().starts_with("terminated");
        let status = match (status_in(request), is_over) {
            // It tells no more, and has not said how it ended.
            (None | Some(..200), true) => Some(408),
            (status, _) => status,
        };
        if status.is_some_and(|status| status >= 200) {
            dialog.set_refers(false);
        }
        self.answer_stateful(request, key, path, 200, now);
        if let Some(status) = status {
            self.tell(Event::Referred { dialog: id, status });
        }
    }
}

/// The status of the message in the body.
fn status_in(request: &Request) -> Option<u16> {
    let content_type = request.content_type().unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default();
    if !media_type.trim().eq_ignore_ascii_case(SIPFRAG) {
        return None;
    }
    let text = std::str::from_utf8(request.body()).ok()?;
    let status = text.trim_start().strip_prefix("SIP/2.0 ")?.get(..3)?;
    status.parse().ok().filter(|status| (100..700).contains(status))
}
