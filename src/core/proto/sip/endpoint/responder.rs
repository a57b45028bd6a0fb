//! The content of responses that does not depend on a dialog: what the endpoint says of itself,
//! and refusals.
//!
//! Comes in: requests. Goes out: the bytes of responses. A request that creates no dialog is
//! answered without state (RFC 3261 §8.2.7): the To tag of the answer is computed from the request,
//! so that the same request gets the same answer.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use bytes::Bytes;

use super::config::EndpointConfig;
use crate::proto::sip::{
    Status,
    body::SDP,
    message::{Request, ResponseBuilder, Stub},
    path::Path,
    session_timer::MIN_SE,
    validate::{self, Refusal},
};

/// Builds responses.
#[derive(Debug)]
pub(super) struct Responder {
    config: Arc<EndpointConfig>,
    /// Secret that makes the To tags of stateless answers hard to guess.
    tag_secret: u64,
    /// We have users, so REGISTER is allowed.
    pub has_users: bool,
}

impl Responder {
    pub(super) fn new(config: Arc<EndpointConfig>, tag_secret: u64) -> Self {
        Self { config, tag_secret, has_users: false }
    }

    /// 100 has no To tag, because it belongs to no dialog (§8.2.6.1).
    pub(super) fn trying(&self, request: &Request) -> Bytes {
        ResponseBuilder::to(request, Status::TRYING).build().into()
    }

    /// Begins a response with the header fields that all of them have. `local_tag` is our tag if
    /// the request has none.
    pub(super) fn begin<'a>(
        &self,
        request: &'a Request,
        status: Status,
        local_tag: &str,
    ) -> ResponseBuilder<'a> {
        ResponseBuilder::to(request, status)
            .to_tag(local_tag)
            .header("Server", &self.config.server_name)
    }

    /// A response without a body, with the header fields that its status requires.
    pub(super) fn response(&self, request: &Request, status: Status) -> Bytes {
        self.required(request, status, &self.tag(request)).build().into()
    }

    /// Begins a response with the header fields that all of them have, and those that its status
    /// requires.
    pub(super) fn required<'a>(
        &self,
        request: &'a Request,
        status: Status,
        local_tag: &str,
    ) -> ResponseBuilder<'a> {
        let builder = self.begin(request, status, local_tag);
        match status {
            Status::METHOD_NOT_ALLOWED => builder.header("Allow", &self.allow()),
            // RFC 6665 §4.1.3.
            Status::BAD_EVENT => builder.header("Allow-Events", "refer"),
            // RFC 4028 §6.
            Status::SESSION_INTERVAL_TOO_SMALL => builder.header("Min-SE", &MIN_SE.to_string()),
            Status::SERVICE_UNAVAILABLE => {
                builder.header("Retry-After", &self.config.retry_after.as_secs().to_string())
            }
            _ => builder,
        }
    }

    /// A refusal with a reason phrase and header fields of its own.
    pub(super) fn refusal(&self, request: &Request, refusal: &Refusal) -> Bytes {
        let builder = ResponseBuilder::to(request, refusal.status)
            .reason(refusal.reason)
            .to_tag(&self.tag(request))
            .header("Server", &self.config.server_name);
        let headers = refusal.extra_headers.iter();
        headers.fold(builder, |builder, (name, value)| builder.header(name, value)).build().into()
    }

    /// The refusal of a message that cannot be read as a request.
    pub(super) fn refusal_of_stub(
        &self,
        request: &Stub,
        status: Status,
        reason: &'static str,
    ) -> Bytes {
        let tag = self.tag_of(&(request.header("Call-ID"), request.header("CSeq")));
        ResponseBuilder::to_stub(request, status)
            .reason(reason)
            .to_tag(&tag)
            .header("Server", &self.config.server_name)
            .build()
            .into()
    }

    /// The 200 to OPTIONS (§11.2).
    pub(super) fn options(&self, request: &Request) -> Bytes {
        self.begin(request, Status::OK, &self.tag(request))
            .header("Allow", &self.allow())
            .header("Accept", SDP)
            .header("Supported", self.config.supported())
            .build()
            .into()
    }

    /// The 200 to an UPDATE without an offer.
    pub(super) fn update_accepted<'a>(
        &self,
        request: &'a Request,
        path: Path,
    ) -> ResponseBuilder<'a> {
        self.begin(request, Status::OK, &self.tag(request))
            .contact(&self.config.contact(request.wants_sips(), path))
            .header("Allow", &self.allow())
            .header("Supported", self.config.supported())
    }

    /// The methods that we accept; REGISTER only if we have users.
    pub(super) fn allow(&self) -> String {
        let register = if self.has_users { ", REGISTER" } else { "" };
        format!("{}{register}", validate::allow())
    }

    /// Our tag in the response to `request`: that of its dialog, or one that is computed.
    pub(super) fn tag(&self, request: &Request) -> String {
        match request.to().tag() {
            Some(tag) => tag.to_owned(),
            None => self.stateless_tag(request),
        }
    }

    /// The same request gets the same tag, although no state is kept (§8.2.7).
    pub(super) fn stateless_tag(&self, request: &Request) -> String {
        self.tag_of(&(request.call_id(), request.from().tag(), request.cseq().number))
    }

    /// A tag or branch that only we can compute from `seed`.
    pub(super) fn tag_of(&self, seed: &impl Hash) -> String {
        let mut hasher = DefaultHasher::new();
        self.tag_secret.hash(&mut hasher);
        seed.hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }
}

/// Header fields that a response without a body can do without, the most dispensable first. Of
/// several challenges the last one stays. That is MD5 if it is offered: some phones support no
/// other algorithm, and phones that support another one support MD5 too (RFC 8760 §2.3). In a
/// datagram Content-Length is optional (RFC 3261 §20.14).
const DISPENSABLE: [&str; 7] = [
    "Server",
    "Supported",
    "Accept-Encoding",
    "Accept",
    "Allow",
    "WWW-Authenticate",
    "Content-Length",
];

/// The response in at most `room` bytes; `None` if it cannot be shortened enough.
pub(super) fn fitted(response: &[u8], room: usize) -> Option<Bytes> {
    if response.len() <= room {
        return Some(Bytes::copy_from_slice(response));
    }
    let mut lines: Vec<&[u8]> = response.split_inclusive(|byte| *byte == b'\n').collect();
    let mut bytes = response.len();
    for name in DISPENSABLE {
        let is_named = |line: &&[u8]| {
            line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b":"))
        };
        let kept = usize::from(name == "WWW-Authenticate");
        while bytes > room && lines.iter().filter(|line| is_named(line)).count() > kept {
            let first = lines.iter().position(is_named)?;
            bytes -= lines.remove(first).len();
        }
    }
    (bytes <= room).then(|| lines.concat().into())
}
