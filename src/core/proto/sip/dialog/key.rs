//! The identifier of a dialog on the wire (RFC 3261 §12, RFC 3891 §6.1).

use crate::proto::sip::message::Request;

/// Identifies a dialog on the wire (RFC 3261 §12). A peer of RFC 2543 may have no tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::proto::sip) struct DialogKey {
    pub call_id: String,
    pub local_tag: String,
    pub remote_tag: Option<String>,
}

impl DialogKey {
    /// The dialog that the value of a Replaces header field names (RFC 3891 §6.1), seen from our
    /// side, and whether only an early dialog is meant. `None` when the value cannot be read.
    pub(crate) fn replaced(value: &str) -> Option<(Self, bool)> {
        let mut parts = value.split(';').map(str::trim);
        let call_id = parts.next().filter(|call_id| !call_id.is_empty())?.to_owned();
        let (mut local_tag, mut remote_tag, mut early_only) = (None, None, false);
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "to-tag" if local_tag.is_none() => local_tag = Some(value.trim().to_owned()),
                "from-tag" if remote_tag.is_none() => remote_tag = Some(value.trim().to_owned()),
                "to-tag" | "from-tag" => return None,
                "early-only" => early_only = true,
                _ => {}
            }
        }
        // RFC 3891 §4: a tag of zero stands for no tag.
        let remote_tag = remote_tag.filter(|tag| tag != "0");
        Some((Self { call_id, local_tag: local_tag?, remote_tag }, early_only))
    }

    /// Identifies an outgoing call before any answer: Call-ID and our tag.
    pub(crate) fn outgoing_name(&self) -> (String, String) {
        (self.call_id.clone(), self.local_tag.clone())
    }

    /// The dialog that `request` belongs to; `None` when its To has no tag.
    pub(crate) fn of(request: &Request) -> Option<Self> {
        Some(Self {
            call_id: request.call_id().to_owned(),
            local_tag: request.to().tag()?.to_owned(),
            remote_tag: request.from().tag().map(str::to_owned),
        })
    }
}
