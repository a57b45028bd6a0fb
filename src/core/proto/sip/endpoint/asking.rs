//! Sending of our own requests: the choice of the transport, answers to challenges, and what
//! follows if a request cannot be delivered.

use std::{net::SocketAddr, time::Instant};

use tracing::{debug, warn};

use super::{Endpoint, Path, fresh};
use crate::proto::sip::{
    dialog::Hop,
    digest::DigestError,
    in_dialog_request::InDialogRequest,
    message::{Method, Response},
    path::{ConnectionId, Transport},
    transaction::{Sends, TransactionUser, Undelivered},
};

impl Endpoint {
    /// Sends a request within a dialog. Returns false if it cannot be sent: the dialog is over or
    /// does not allow an offer now, or we cannot answer a challenge.
    pub(super) fn ask_within(
        &mut self,
        mut in_dialog: InDialogRequest,
        user: TransactionUser,
        now: Instant,
    ) -> bool {
        let branch = fresh::branch(&mut self.rng);
        let Self { dialogs, config, rng, transactions, .. } = self;
        let Some(dialog) = dialogs.of_request(&in_dialog) else { return false };
        // We may have hung up since the request was first sent.
        if in_dialog.method == Method::Invite && !dialog.may_offer() {
            return false;
        }
        let mut hops =
            dialog.target.hops().into_iter().filter(|hop| !in_dialog.failed_hops.contains(hop));
        let way = hops.next().unwrap_or(dialog.target.next_hop());
        let has_other_hop = hops.next().is_some();
        let uri = dialog.target.request_uri();
        let credentials = dialog.login().and_then(|login| login.at(way.peer.ip()));
        let answers = match credentials {
            Some(credentials) => {
                in_dialog.challenges.answer(&in_dialog.method, &uri, credentials, rng)
            }
            None if in_dialog.challenges.is_empty() => Ok(Vec::new()),
            // We have no credentials for this address.
            None => return false,
        };
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                warn_unanswered(&dialog.key().call_id, error);
                return false;
            }
        };
        let may_be_challenged = credentials.is_some();
        let cseq = dialog.next_cseq();
        // A stream to a stranger would lead to an address from which none of its messages came.
        let may_stream = !in_dialog.wants_datagram && !dialog.target.is_bound_to_source();
        let next_hop = dialog.target.next_hop_uri();
        let (transmit, is_streamed) = config.packed((way, next_hop), may_stream, |path| {
            let sent_by = config.sent_by(path);
            let hop = Hop { sent_by: &sent_by, branch: &branch };
            let builder = dialog.request(in_dialog.method.clone(), cseq, path, hop);
            let builder = if in_dialog.has_contact {
                builder.contact(&config.contact(dialog.is_sips(), path))
            } else {
                builder
            };
            let headers = in_dialog.headers.iter().chain(&answers);
            let builder =
                headers.fold(builder, |builder, (name, value)| builder.header(name, value));
            let builder = builder.header("User-Agent", &config.server_name);
            match &in_dialog.body {
                Some((content_type, body)) => builder.body(content_type, body).build().into(),
                None => builder.build().into(),
            }
        });
        let sends =
            if dialog.target.may_repeat(transmit.path) { Sends::Repeatedly } else { Sends::Once };
        if !dialog.target.allowance.take(transmit.bytes.len()) {
            debug!(id = ?in_dialog.dialog, "no room for a request to an unproven address");
            self.undelivered(user, None, now);
            return true;
        }
        in_dialog.is_streamed = is_streamed;
        (in_dialog.hop, in_dialog.has_other_hop) = (Some(way), has_other_hop);
        let method = in_dialog.method.clone();
        let may_return = may_be_challenged || is_streamed || in_dialog.has_other_hop;
        let kept = may_return.then(|| Box::new(in_dialog));
        let transmit = match method {
            Method::Invite => {
                let sent_by = config.sent_by(transmit.path);
                let hop = Hop { sent_by: &sent_by, branch: &branch };
                let origin = dialog.origin(cseq, transmit.path, hop);
                let (transaction, transmit) =
                    transactions.invite_out(origin, (user, kept), transmit, sends, now);
                dialog.offering(cseq, transaction);
                transmit
            }
            method => {
                let name = (branch, method.as_str());
                transactions.request(name, (user, kept), transmit, sends, now)
            }
        };
        self.transmit(transmit);
        true
    }

    /// Sends a challenged request once more with credentials. Returns false if it cannot be sent.
    pub(super) fn answer_challenge(
        &mut self,
        mut in_dialog: InDialogRequest,
        user: TransactionUser,
        response: &Response,
        now: Instant,
    ) -> bool {
        in_dialog.challenges.take(response) && self.ask_within(in_dialog, user, now)
    }

    /// Nothing can be delivered over `path`: its stream could not be opened, or broke.
    pub fn handle_unreachable(&mut self, path: Path, now: Instant) {
        for Undelivered { user, in_dialog } in self.transactions.handle_unreachable(path) {
            self.undelivered(user, in_dialog, now);
        }
    }

    /// A stream is closed. Our requests that went over it and got no response yet count as
    /// undelivered. `peer` is the address that the stream led to, or `None` if another stream leads
    /// there.
    pub fn handle_disconnected(
        &mut self,
        connection: ConnectionId,
        peer: Option<(Transport, SocketAddr)>,
        now: Instant,
    ) {
        self.registrar.handle_connection_lost(connection);
        self.note_phones();
        self.trunks.handle_connection_lost(connection, now);
        self.dialogs.handle_connection_lost(connection);
        for Undelivered { user, in_dialog } in
            self.transactions.handle_disconnected(connection, peer)
        {
            self.undelivered(user, in_dialog, now);
        }
    }

    fn undelivered(
        &mut self,
        user: TransactionUser,
        in_dialog: Option<Box<InDialogRequest>>,
        now: Instant,
    ) {
        if let TransactionUser::Invite(dialog) = user {
            self.invite_undelivered(dialog, now);
            return;
        }
        if let Some(mut in_dialog) = in_dialog
            && in_dialog.reroute()
        {
            debug!(dialog = ?in_dialog.dialog, "a request was not delivered; it goes another way");
            if self.ask_within(*in_dialog, user, now) {
                return;
            }
        }
        match user {
            // §8.1.3.1: a transport error counts as 503, which does not end the dialog.
            TransactionUser::Reinvite(id) | TransactionUser::Update(id) => {
                self.refresh_failed(id, now)
            }
            user => self.unanswered(user, now),
        }
    }
}

/// Warns that a challenge, such as one by a trunk, is not answered.
pub(super) fn warn_unanswered(call_id: &str, error: DigestError) {
    warn!(
        sip.call_id = call_id,
        "A challenge is not answered: {error}; a trunk's realm is set by trunks.realm"
    );
}
