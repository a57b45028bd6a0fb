//! An in-dialog request of ours, without the parts that change when it is sent again. It is sent
//! again with an answer to a challenge (RFC 3261 §22.2), to another next hop, or in a datagram
//! because no stream can be opened (§18.1.1).

use super::{dialog_id::DialogId, login::Challenges, message::Method, path::Path};

/// One request, independent of its CSeq and its path.
#[derive(Debug, Clone)]
pub(crate) struct InDialogRequest {
    /// The dialog, or the outgoing call that may become one.
    pub dialog: DialogId,
    /// The other side's tag: it selects one of the early dialogs of a call.
    pub remote_tag: Option<String>,
    /// The method.
    pub method: Method,
    /// Whether the request has a Contact header field.
    pub has_contact: bool,
    /// Further header fields.
    pub headers: Vec<(&'static str, String)>,
    /// Content-Type and body.
    pub body: Option<(String, Vec<u8>)>,
    /// The challenges that the request has met.
    pub challenges: Challenges,
    /// The request was sent over a stream because it is long.
    pub is_streamed: bool,
    /// No stream could be opened, so the request has to be sent in a datagram.
    pub wants_datagram: bool,
    /// The next hop that the request was sent to.
    pub hop: Option<Path>,
    /// There is another next hop to try.
    pub has_other_hop: bool,
    /// The next hops that could not be reached.
    pub failed_hops: Vec<Path>,
}

impl InDialogRequest {
    /// A request without header fields or a body of its own.
    pub(crate) fn new(dialog: DialogId, remote_tag: Option<String>, method: Method) -> Self {
        Self {
            dialog,
            remote_tag,
            method,
            has_contact: false,
            headers: Vec::new(),
            body: None,
            challenges: Challenges::default(),
            is_streamed: false,
            wants_datagram: false,
            hop: None,
            has_other_hop: false,
            failed_hops: Vec::new(),
        }
    }

    /// Adds a Contact header field.
    pub(crate) fn with_contact(mut self) -> Self {
        self.has_contact = true;
        self
    }

    /// Adds a header field.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets the body.
    pub(crate) fn body(mut self, content_type: &str, body: &[u8]) -> Self {
        self.body = Some((content_type.to_owned(), body.to_vec()));
        self
    }

    /// The request was not delivered; returns whether it can be sent another way.
    pub(crate) fn reroute(&mut self) -> bool {
        if self.is_streamed {
            self.wants_datagram = true;
        } else if self.has_other_hop {
            self.failed_hops.extend(self.hop);
        } else {
            return false;
        }
        true
    }
}
