//! Transfer by a peer: it asks us to call another party in its place, and gets the progress
//! reported (RFC 3515, RFC 5589). Accepted are peers that have authenticated, by their INVITE or by
//! the REFER itself, trunks, peers that the operator trusts, and peers that we have called. The
//! owner of the call decides whether to place the new call.

use std::time::Instant;

use tracing::debug;

use super::{Endpoint, Event, IncomingReferral, arrived::Arrived, referring::SIPFRAG};
use crate::proto::sip::{
    Status,
    dialog::{DialogId, DialogKey},
    in_dialog_request::InDialogRequest,
    message::{Method, Request, ResponseBuilder},
    timers::REFER_EXPIRES,
    transaction::TransactionUser,
    uri::{NameAddr, Uri, unescape},
};

impl Endpoint {
    pub(super) fn handle_refer(&mut self, id: DialogId, arrived: Arrived) {
        let (request, path, now) = (&arrived.request, arrived.path, arrived.now);
        let dialog = self.dialogs.get(id);
        let may_refer = dialog.is_some_and(|dialog| dialog.received_refer.is_allowed());
        // Without users there is no password to authenticate with.
        let must_prove = !may_refer && !self.users.is_empty();
        let is_trusted = self.is_trusted(path);
        if must_prove && let Err(refusal) = self.users.prove(request, path, is_trusted, now) {
            self.refuse_with(arrived, &refusal);
            return;
        }
        let asked = self.dialogs.get_mut(id).map_or(Err(Status::CALL_DOES_NOT_EXIST), |dialog| {
            let referral = referral(request)?;
            dialog.refer_asked(request.cseq().number, must_prove).map(|()| referral)
        });
        let referral = match asked {
            Ok(referral) => referral,
            Err(status) => {
                self.answer_stateful(arrived, status);
                return;
            }
        };
        let tag = request.to().tag().unwrap_or_default();
        let accepted = ResponseBuilder::to(request, Status::ACCEPTED)
            .to_tag(tag)
            .contact(&self.config.contact(request.wants_sips(), path))
            .header("Server", &self.config.server_name)
            .build();
        self.answer_in_transaction(arrived, accepted.into());
        self.tell_referrer(id, Status::TRYING, now);
        self.tell(Event::ReferAsked { dialog: id, referral: Box::new(referral) });
    }

    /// Reports the progress of a REFER to the peer.
    pub(super) fn tell_referrer(&mut self, id: DialogId, status: Status, now: Instant) {
        let is_last = status.is_final();
        let Some(dialog) = self.dialogs.get_mut(id).filter(|dialog| !dialog.is_ending()) else {
            return;
        };
        let Some(event) = dialog.received_refer.event(is_last) else {
            debug!(?id, "no peer waits for the progress of a REFER");
            return;
        };
        let state = if is_last {
            "terminated;reason=noresource".to_owned()
        } else {
            format!("active;expires={}", REFER_EXPIRES.as_secs())
        };
        let fragment = format!("SIP/2.0 {status} {}\r\n", status.reason());
        let notify = InDialogRequest::new(id, dialog.key().remote_tag.clone(), Method::Notify)
            .with_contact()
            .header("Event", event)
            .header("Subscription-State", state)
            .body(&format!("{SIPFRAG};version=2.0"), fragment.as_bytes());
        self.ask_within(notify, TransactionUser::None, now);
    }
}

/// The request made by a REFER.
///
/// # Errors
/// The status of the refusal: 400 if there is not exactly one Refer-To (RFC 3515 §2.4.2), or if it
/// cannot be read; 603 for anything but a call.
fn referral(request: &Request) -> Result<IncomingReferral, Status> {
    let mut values = request.headers("Refer-To");
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Status::BAD_REQUEST);
    };
    let refer_to: NameAddr = value.parse().map_err(|_| Status::BAD_REQUEST)?;
    let uri = refer_to.uri();
    let is_call = uri.param("method").is_none_or(|method| method.eq_ignore_ascii_case("INVITE"));
    if !is_call || !matches!(uri.scheme(), "sip" | "sips" | "tel") {
        return Err(Status::DECLINE);
    }
    let target: Uri = uri.without_parameters().parse().map_err(|_| Status::BAD_REQUEST)?;
    let named = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("Replaces");
    let replaces = uri.headers().iter().find(named).map(|(_, value)| unescape(value));
    // The value is copied into a header field of ours.
    let is_dialog = |value: &String| {
        DialogKey::replaced(value).is_some() && !value.chars().any(char::is_control)
    };
    if !replaces.as_ref().is_none_or(is_dialog) {
        return Err(Status::BAD_REQUEST);
    }
    let by = request.header("Referred-By").map(str::to_owned);
    Ok(IncomingReferral { target, replaces, by })
}
