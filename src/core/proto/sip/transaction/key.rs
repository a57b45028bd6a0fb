//! Matches messages to transactions (RFC 3261 §17.2.3, §17.1.3, §8.2.2.2).

use crate::proto::sip::message::{Method, Request};

/// First characters of every branch since RFC 3261 (§8.1.1.7).
pub const MAGIC_COOKIE: &str = "z9hG4bK";

/// Identifies one server transaction.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionKey {
    /// The peer follows RFC 3261: its branch is unique.
    Branch {
        /// The branch of the top Via.
        branch: String,
        /// Host and port of the top Via, in lower case.
        sent_by: String,
        /// The method; INVITE for the ACK and CANCEL of an INVITE.
        method: String,
    },
    /// The peer follows RFC 2543: all fields that identify a request have to be equal. The To tag
    /// is left out, because the ACK of a refusal carries ours.
    Legacy {
        /// The Request-URI.
        request_uri: String,
        /// The From tag.
        from_tag: Option<String>,
        /// The Call-ID.
        call_id: String,
        /// The number in CSeq.
        cseq: u32,
        /// Host and port of the top Via, in lower case.
        sent_by: String,
        /// The branch of the top Via, if any.
        branch: Option<String>,
        /// The method; INVITE for the ACK and CANCEL of an INVITE.
        method: String,
    },
}

impl TransactionKey {
    /// The transaction that `request` opens or repeats.
    pub fn of(request: &Request) -> Self {
        Self::with_method(request, request.method())
    }

    /// The INVITE transaction that an ACK or CANCEL is for (§17.2.3, §9.2).
    pub fn of_invite(request: &Request) -> Self {
        Self::with_method(request, &Method::Invite)
    }

    fn with_method(request: &Request, method: &Method) -> Self {
        let via = request.top_via();
        let sent_by = match via.port {
            Some(port) => format!("{}:{port}", via.host).to_ascii_lowercase(),
            None => via.host.to_string().to_ascii_lowercase(),
        };
        let method = method.to_string();
        match &via.branch {
            Some(branch) if branch.len() > MAGIC_COOKIE.len() && has_cookie(branch) => {
                Self::Branch { branch: branch.clone(), sent_by, method }
            }
            branch => Self::Legacy {
                request_uri: request.uri().to_string(),
                from_tag: request.from().tag().map(str::to_owned),
                call_id: request.call_id().to_owned(),
                cseq: request.cseq().number,
                sent_by,
                branch: branch.clone(),
                method,
            },
        }
    }
}

/// Some peers write the cookie in another case.
fn has_cookie(branch: &str) -> bool {
    branch.get(..MAGIC_COOKIE.len()).is_some_and(|head| head.eq_ignore_ascii_case(MAGIC_COOKIE))
}

/// Identifies a request outside of a dialog, whichever path it took (RFC 3261 §8.2.2.2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MergeKey {
    call_id: String,
    from_tag: Option<String>,
    cseq: u32,
}

impl MergeKey {
    /// The key of `request`.
    pub fn of(request: &Request) -> Self {
        Self {
            call_id: request.call_id().to_owned(),
            from_tag: request.from().tag().map(str::to_owned),
            cseq: request.cseq().number,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sip::{message::Message, wire::parse_datagram};

    #[test]
    fn ack_and_cancel_name_the_transaction_of_their_invite() {
        let invite = TransactionKey::of(&request("INVITE", "a.example", "z9hG4bK1"));
        for method in ["ACK", "CANCEL"] {
            let request = request(method, "A.example", "z9hG4bK1");
            assert_eq!(TransactionKey::of_invite(&request), invite);
            assert_ne!(TransactionKey::of(&request), invite);
        }
    }

    #[test]
    fn the_same_branch_from_another_sender_is_another_transaction() {
        let one = TransactionKey::of(&request("INVITE", "a.example", "z9hG4bK1"));
        let other = TransactionKey::of(&request("INVITE", "b.example", "z9hG4bK1"));
        assert_ne!(one, other);
    }

    #[test]
    fn only_a_branch_with_more_than_the_cookie_names_a_transaction_alone() {
        let key = |branch| TransactionKey::of(&request("INVITE", "a.example", branch));
        assert!(matches!(key("Z9hg4Bk1"), TransactionKey::Branch { .. }));
        assert!(matches!(key("z9hG4bK"), TransactionKey::Legacy { .. }));
        assert!(matches!(key("1"), TransactionKey::Legacy { .. }));
    }

    fn request(method: &str, sent_by: &str, branch: &str) -> Request {
        let text = format!(
            "{method} sip:100@192.0.2.1 SIP/2.0\r\n\
             Via: SIP/2.0/UDP {sent_by};branch={branch}\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:phone@a.example>;tag=phone\r\n\
             To: <sip:100@192.0.2.1>\r\n\
             Call-ID: call@a.example\r\n\
             CSeq: 1 {method}\r\n\
             Contact: <sip:phone@a.example>\r\n\
             Content-Length: 0\r\n\r\n"
        );
        match parse_datagram(text.as_bytes()).unwrap() {
            Message::Request(request) => request,
            Message::Response(_) => unreachable!("it is a request"),
        }
    }
}
