//! A request of ours within a dialog, as far as it stays the same when it has to be sent again: with an
//! answer to a challenge (RFC 3261 §22.2), or in a datagram because no stream can be had (§18.1.1).

use super::{dialog_id::DialogId, login::Challenges, message::Method};

/// One request, whatever number and way it gets.
#[derive(Debug, Clone)]
pub(crate) struct Errand {
    /// The dialog, or the call that may make one.
    pub dialog: DialogId,
    /// The other side's tag: of those who ring, one is meant.
    pub remote_tag: Option<String>,
    /// What is asked for.
    pub method: Method,
    /// Whether it says where we are reached.
    pub has_contact: bool,
    /// Further header fields.
    pub headers: Vec<(&'static str, String)>,
    /// Content-Type and body.
    pub body: Option<(String, Vec<u8>)>,
    /// What it has met on its way.
    pub challenges: Challenges,
    /// It went over a stream because it is long.
    pub is_streamed: bool,
    /// No stream was to be had.
    pub wants_datagram: bool,
    /// Another way leads there than the one that it went.
    pub has_other_hop: bool,
    /// That is the one that it goes.
    pub wants_other_hop: bool,
}

impl Errand {
    /// A request without anything of its own.
    pub fn new(dialog: DialogId, remote_tag: Option<String>, method: Method) -> Self {
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
            has_other_hop: false,
            wants_other_hop: false,
        }
    }

    /// It says where we are reached.
    pub fn with_contact(mut self) -> Self {
        self.has_contact = true;
        self
    }

    /// One more header field.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a body.
    pub fn body(mut self, content_type: &str, body: &[u8]) -> Self {
        self.body = Some((content_type.to_owned(), body.to_vec()));
        self
    }

    /// Nobody has got it; whether it can go another way.
    pub fn reroute(&mut self) -> bool {
        if self.is_streamed {
            self.wants_datagram = true;
        } else if self.has_other_hop {
            self.wants_other_hop = true;
        } else {
            return false;
        }
        true
    }
}
