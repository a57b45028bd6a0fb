//! The parts of an INVITE of ours that its ACK and its CANCEL repeat.

use bytes::Bytes;

use crate::proto::sip::{
    message::{Method, NameAddr, RequestBuilder, Response},
    uri::Uri,
};

/// The parts of an INVITE that its ACK and CANCEL repeat letter by letter.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The Request-URI.
    pub uri: Uri,
    /// Transport and sent-by of our Via, and its branch.
    pub via: (&'static str, String, String),
    /// The From header field.
    pub from: NameAddr,
    /// The To header field.
    pub to: NameAddr,
    /// The Call-ID.
    pub call_id: String,
    /// The number of the INVITE.
    pub cseq: u32,
    /// The Route header fields.
    pub routes: Vec<NameAddr>,
}

impl Origin {
    /// Whether our Contact has to be a SIPS URI (RFC 3261 §8.1.1.8).
    pub(crate) fn wants_sips(&self) -> bool {
        self.uri.is_sips() || self.routes.first().is_some_and(|route| route.uri().is_sips())
    }

    /// Starts a request with these parts.
    pub(crate) fn request(&self, method: Method) -> RequestBuilder {
        self.build(method, &self.to)
    }

    /// The ACK of a refusal (RFC 3261 §17.1.1.3): its To is that of the response.
    pub(crate) fn ack(&self, response: &Response) -> Bytes {
        self.build(Method::Ack, response.to()).build().into()
    }

    /// The CANCEL (RFC 3261 §9.1), for this reason (RFC 3326 §2).
    pub(crate) fn cancel(&self, reason: Option<&str>, user_agent: &str) -> Bytes {
        let cancel = self.request(Method::Cancel);
        let cancel = reason.into_iter().fold(cancel, |cancel, text| cancel.header("Reason", text));
        cancel.header("User-Agent", user_agent).build().into()
    }

    fn build(&self, method: Method, to: &NameAddr) -> RequestBuilder {
        let (transport, sent_by, branch) = &self.via;
        let builder = RequestBuilder::new(method, self.uri.clone())
            .via(transport, sent_by, branch)
            .from(&self.from)
            .to(to)
            .call_id(&self.call_id)
            .cseq(self.cseq);
        self.routes.iter().fold(builder, |builder, route| builder.route(route))
    }
}
