//! What the owner of a call wants, carried out.

use std::time::Instant;

use bytes::Bytes;
use tracing::debug;

use super::{Ending, Endpoint, requests::SDP};
use crate::proto::sip::{
    dialog::{DialogId, HangUp, Parting},
    message::ResponseBuilder,
};

impl Endpoint {
    pub(super) fn ring(&mut self, id: DialogId, now: Instant) {
        let Some(dialog) = self.dialogs.get(&id).filter(|dialog| dialog.is_ringing()) else {
            debug!(?id, "nothing rings any more");
            return;
        };
        let Some(pending) = dialog.pending().cloned() else { return };
        self.respond(&pending, 180, now);
    }

    pub(super) fn answer(&mut self, id: DialogId, sdp: &[u8], now: Instant) {
        let Some(dialog) = self.dialogs.get(&id) else { return };
        let Some(pending) = dialog.pending().cloned() else {
            debug!(?id, "nothing to answer any more");
            return;
        };
        let ok = self
            .response_builder(&pending.request, 200, &dialog.key().local_tag)
            .contact(&self.config.contact(dialog.path()))
            .header("Allow", &self.allow())
            .header("Supported", "")
            .body(SDP, sdp)
            .build();
        let ok = Bytes::from(ok);
        let Some(transmit) = self.transactions.respond(pending.transaction, 200, ok.clone(), now)
        else {
            return;
        };
        self.transmit(transmit);
        if let Some(dialog) = self.dialogs.get_mut(&id) {
            dialog.answered(ok, now);
        }
        self.schedule_dialog(id);
    }

    pub(super) fn refuse(
        &mut self,
        id: DialogId,
        status: u16,
        reason: &str,
        headers: &[(String, String)],
        now: Instant,
    ) {
        debug_assert!((300..700).contains(&status), "{status} refuses nothing");
        let Some(dialog) = self.dialogs.get_mut(&id) else { return };
        let Some(pending) = dialog.pending().cloned() else {
            debug!(?id, "nothing to refuse any more");
            return;
        };
        let builder =
            ResponseBuilder::to(&pending.request, status, reason).to_tag(&dialog.key().local_tag);
        let builder = headers
            .iter()
            .fold(builder, |builder, (name, value)| builder.header(name, value))
            .header("Server", &self.config.server_name);
        if dialog.is_ringing() {
            self.forget_dialog(id);
        } else {
            dialog.reinvite_refused();
        }
        self.finish_invite(pending.transaction, status, builder.build(), now);
    }

    pub(super) fn hang_up(&mut self, id: DialogId, wish: HangUp, now: Instant) {
        let Some(dialog) = self.dialogs.get_mut(&id) else { return };
        match dialog.hang_up(wish.clone()) {
            Parting::Refuse(pending) => {
                self.respond(&pending, 480, now);
                self.end(id, Ending::Answered);
            }
            Parting::Bye(reinvite) => {
                if let Some(pending) = reinvite {
                    self.respond(&pending, 487, now);
                }
                self.send_bye(id, wish, now);
            }
            Parting::Later | Parting::Already => debug!(?id, "hanging up already"),
        }
        self.schedule_dialog(id);
    }

    /// Sends the BYE of a dialog that is ending.
    pub(super) fn send_bye(&mut self, id: DialogId, hang_up: HangUp, now: Instant) {
        let branch = self.fresh_branch();
        let Some(dialog) = self.dialogs.get_mut(&id) else { return };
        let sent_by = self.config.sent_by(dialog.path());
        let bye = dialog.bye(&hang_up, &sent_by, &branch, &self.config.server_name);
        let transmit = self.transactions.request(branch, id, bye, now);
        self.transmit(transmit);
        self.schedule_dialog(id);
    }
}
