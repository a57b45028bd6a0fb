//! Dialogs (RFC 3261 §12) on the side that was called: what two parties remember of each other.
//!
//! Comes in: requests of the dialog, what the owner of the call decides, time. Goes out: the BYE, the
//! 2xx to send again until its ACK comes (§13.3.1.4), and a verdict on what may happen when. It opens
//! no transactions; the endpoint does.

use std::{net::SocketAddr, time::Instant};

use bytes::Bytes;
use tracing::debug;

use super::{
    message::{Method, NameAddr, Request, RequestBuilder},
    path::{Path, Transmit},
    timers::{Retransmission, SIXTY_FOUR_T1},
    transaction::TransactionId,
    uri::Uri,
};

/// RFC 3261 §19.1.2: the port of a SIP URI that names none.
const DEFAULT_PORT: u16 = 5060;

/// One dialog of this endpoint; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialogId(pub u64);

/// Names a dialog on the wire (RFC 3261 §12). A peer of RFC 2543 may have no tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DialogKey {
    pub call_id: String,
    pub local_tag: String,
    pub remote_tag: Option<String>,
}

impl DialogKey {
    /// The dialog that `request` says it is in; `None` when it is in none.
    pub fn of(request: &Request) -> Option<Self> {
        Some(Self {
            call_id: request.call_id().to_owned(),
            local_tag: request.to().tag()?.to_owned(),
            remote_tag: request.from().tag().map(str::to_owned),
        })
    }
}

/// What both sides agreed on, and where it stands.
#[derive(Debug)]
pub(super) struct Dialog {
    key: DialogKey,
    /// Our address as the peer wrote it in To, with our tag.
    local: NameAddr,
    /// The peer's address as it wrote it in From.
    remote: NameAddr,
    /// Where requests to the peer are addressed to.
    remote_target: Uri,
    /// Proxies that want to see our requests, in the order of Record-Route (§12.1.1).
    route_set: Vec<NameAddr>,
    /// The INVITE came through a proxy that may not be on the route set.
    through_proxy: bool,
    local_cseq: u32,
    remote_cseq: u32,
    /// Which way the peer's newest request came.
    path: Path,
    state: State,
}

/// ```text
///              INVITE
///                |             CANCEL, BYE, Refuse
///          +-----------+------------------------------> gone
///          |  Ringing  |
///          +-----------+
///                | Answer / 200
///                v             64*T1 / BYE
///          +-----------+---------------------------+
///   +----->|  Answered |  T1 to T2 / 200 again     |
///   |      +-----------+                           v
///   |            | ACK                        +--------+ response, or none in 64*T1
///   |            v             Bye / BYE      | Ending |---------------------------> gone
///   |      +-----------+--------------------->+--------+
///   |      | Confirmed |<---+                      ^
///   |      +-----------+    | Refuse               |
///   |            | re-INVITE|                      |
///   |            v          |  Bye / 487, BYE      |
///   |      +-----------+----+----------------------+
///   +------| Reoffered |
///   Answer +-----------+       BYE of the peer, in any state: gone
/// ```
#[derive(Debug)]
enum State {
    /// The first INVITE is not answered.
    Ringing { pending: Pending },
    /// The 2xx to the INVITE or re-INVITE with `cseq` is not acknowledged.
    Answered {
        cseq: u32,
        response: Bytes,
        resend: Retransmission,
        until: Instant,
        /// Somebody wants to hang up; BYE must wait for the ACK (§15).
        hang_up: Option<HangUp>,
    },
    /// Both sides agree.
    Confirmed,
    /// A re-INVITE is not answered.
    Reoffered { pending: Pending },
    /// Our BYE is out.
    Ending,
}

/// An INVITE that waits for its answer.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub transaction: TransactionId,
    /// What the answer is built from.
    pub request: Box<Request>,
}

/// Our side wants to end the dialog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HangUp {
    /// Value of the Reason header field.
    pub reason: Option<String>,
}

/// Why a request of the peer is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Untimely {
    /// Its CSeq is lower than one that we saw (§12.2.2).
    OutOfOrder,
    /// An INVITE of the dialog is not answered yet (§14.2).
    Unanswered,
    /// Our 2xx is not acknowledged yet, so the last offer may still lack its answer (§14.2).
    Glare,
    /// We have hung up.
    Over,
}

/// What an ACK did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Acknowledgement {
    /// It is the one that we waited for.
    Expected,
    /// It is, and now the BYE can go.
    HangUp(HangUp),
    /// Nothing: it is late, or for another request.
    Stray,
}

/// What our own wish to hang up leads to.
#[derive(Debug)]
pub(super) enum Parting {
    /// The call is not answered: refuse it.
    Refuse(Pending),
    /// Send BYE; refuse the re-INVITE first, if there is one.
    Bye(Option<Pending>),
    /// The ACK has to come first.
    Later,
    /// It is done already.
    Already,
}

/// What a deadline brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The 2xx is to be sent again.
    Resend(Bytes),
    /// The ACK never came: BYE.
    Unacknowledged(HangUp),
}

impl Dialog {
    /// The dialog that the INVITE `pending` would create (§12.1.1). `local_cseq` is the number of our
    /// first request.
    pub fn new(pending: Pending, local_tag: String, remote_target: Uri, path: Path) -> Self {
        let request = &pending.request;
        let key = DialogKey {
            call_id: request.call_id().to_owned(),
            local_tag: local_tag.clone(),
            remote_tag: request.from().tag().map(str::to_owned),
        };
        Self {
            key,
            local: request.to().with_tag(&local_tag),
            remote: request.from().clone(),
            remote_target,
            route_set: request.record_routes().to_vec(),
            through_proxy: request.vias().len() > 1,
            local_cseq: 0,
            remote_cseq: request.cseq().number,
            path,
            state: State::Ringing { pending },
        }
    }

    /// Judges whether a request of the peer comes at the right moment, and takes its CSeq.
    pub fn admit(&mut self, request: &Request) -> Result<(), Untimely> {
        let cseq = request.cseq().number;
        if cseq < self.remote_cseq {
            return Err(Untimely::OutOfOrder);
        }
        self.remote_cseq = cseq;
        match (&self.state, request.method()) {
            // Both may hang up at once; each BYE gets its answer.
            (_, Method::Bye) => Ok(()),
            (State::Ending, _) => Err(Untimely::Over),
            (State::Ringing { .. } | State::Reoffered { .. }, Method::Invite) => {
                Err(Untimely::Unanswered)
            }
            (State::Answered { .. }, Method::Invite) => Err(Untimely::Glare),
            (State::Confirmed, Method::Invite) => Ok(()),
            (
                State::Ringing { .. }
                | State::Answered { .. }
                | State::Confirmed
                | State::Reoffered { .. },
                _,
            ) => Ok(()),
        }
    }

    /// A re-INVITE that was admitted waits for its answer.
    pub fn reinvite(&mut self, pending: Pending) {
        debug_assert!(matches!(self.state, State::Confirmed), "{:?}", self.state);
        self.state = State::Reoffered { pending };
    }

    /// The peer is reached by another address from now on (§12.2.2, target refresh).
    pub fn refresh_target(&mut self, contact: Option<&Uri>, path: Path) {
        if let Some(contact) = contact {
            self.remote_target = contact.clone();
        }
        self.path = path;
    }

    /// `response`, a 2xx, was sent to the pending INVITE.
    pub fn answered(&mut self, response: Bytes, now: Instant) {
        let cseq = match &self.state {
            State::Ringing { pending } | State::Reoffered { pending } => {
                pending.request.cseq().number
            }
            State::Answered { .. } | State::Confirmed | State::Ending => {
                debug_assert!(false, "nothing to answer in {:?}", self.state);
                return;
            }
        };
        self.state = State::Answered {
            cseq,
            response,
            resend: Retransmission::start(now),
            until: now + SIXTY_FOUR_T1,
            hang_up: None,
        };
    }

    /// The pending re-INVITE was refused: everything stays as it was (§14.1).
    pub fn reinvite_refused(&mut self) {
        debug_assert!(matches!(self.state, State::Reoffered { .. }), "{:?}", self.state);
        self.state = State::Confirmed;
    }

    /// An ACK came for the INVITE with `cseq`.
    pub fn handle_ack(&mut self, ack_cseq: u32) -> Acknowledgement {
        match &mut self.state {
            State::Answered { cseq, hang_up, .. } if *cseq == ack_cseq => match hang_up.take() {
                Some(hang_up) => {
                    self.state = State::Ending;
                    Acknowledgement::HangUp(hang_up)
                }
                None => {
                    self.state = State::Confirmed;
                    Acknowledgement::Expected
                }
            },
            State::Answered { .. }
            | State::Ringing { .. }
            | State::Confirmed
            | State::Reoffered { .. }
            | State::Ending => {
                debug!(cseq = ack_cseq, "stray ACK is dropped");
                Acknowledgement::Stray
            }
        }
    }

    /// Our side wants to hang up.
    pub fn hang_up(&mut self, wish: HangUp) -> Parting {
        match &mut self.state {
            State::Ringing { pending } => Parting::Refuse(pending.clone()),
            State::Answered { hang_up, .. } => {
                hang_up.get_or_insert(wish);
                Parting::Later
            }
            State::Confirmed => {
                self.state = State::Ending;
                Parting::Bye(None)
            }
            State::Reoffered { pending } => {
                let pending = pending.clone();
                self.state = State::Ending;
                Parting::Bye(Some(pending))
            }
            State::Ending => Parting::Already,
        }
    }

    /// The BYE, and the way that it goes (§12.2.1.1). `sent_by` and `branch` are for its Via.
    pub fn bye(&mut self, hang_up: &HangUp, sent_by: &str, branch: &str, server: &str) -> Transmit {
        self.local_cseq = self.local_cseq.saturating_add(1);
        let path = self.next_hop();
        let (request_uri, routes) = self.routed();
        let builder = RequestBuilder::new(Method::Bye, request_uri)
            .via(path.transport.name(), sent_by, branch)
            .from(&self.local)
            .to(&self.remote)
            .call_id(&self.key.call_id)
            .cseq(self.local_cseq);
        let builder = routes.iter().fold(builder, |builder, route| builder.route(route));
        let builder = match &hang_up.reason {
            Some(reason) => builder.header("Reason", reason),
            None => builder,
        };
        let bytes = builder.header("User-Agent", server).build().into();
        Transmit { path, bytes }
    }

    /// The Request-URI and the Route header fields of a request to the peer (§12.2.1.1).
    fn routed(&self) -> (Uri, Vec<NameAddr>) {
        match self.route_set.split_first() {
            None => (self.remote_target.clone(), Vec::new()),
            Some((first, _)) if first.uri().has_param("lr") => {
                (self.remote_target.clone(), self.route_set.clone())
            }
            // A strict router wants its own URI as Request-URI, and the target at the end.
            Some((first, rest)) => {
                let mut routes = rest.to_vec();
                routes.push(NameAddr::from(self.remote_target.clone()));
                (first.uri().clone(), routes)
            }
        }
    }

    /// Where a request to the peer is sent to. Names are not resolved: then, and when the peer called
    /// us directly, the way that its own requests take is the right one, through any NAT.
    fn next_hop(&self) -> Path {
        let uri = match self.route_set.first() {
            Some(route) => route.uri(),
            None if self.through_proxy => &self.remote_target,
            None => return self.path,
        };
        match uri.ip_addr() {
            Some(ip) => {
                let peer = SocketAddr::new(ip, uri.port().unwrap_or(DEFAULT_PORT));
                Path { peer, ..self.path }
            }
            None => self.path,
        }
    }

    /// The deadline is over.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Due> {
        match &mut self.state {
            State::Answered { response, resend, until, hang_up, .. } => {
                if *until <= now {
                    let hang_up = hang_up.take().unwrap_or_else(HangUp::for_lack_of_ack);
                    self.state = State::Ending;
                    return Some(Due::Unacknowledged(hang_up));
                }
                if resend.due() > now {
                    return None;
                }
                resend.sent(now);
                Some(Due::Resend(response.clone()))
            }
            State::Ringing { .. } | State::Confirmed | State::Reoffered { .. } | State::Ending => {
                None
            }
        }
    }

    /// When `handle_timeout` wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Answered { resend, until, .. } => Some(resend.due().min(*until)),
            State::Ringing { .. } | State::Confirmed | State::Reoffered { .. } | State::Ending => {
                None
            }
        }
    }

    /// The INVITE or re-INVITE that waits for its answer.
    pub fn pending(&self) -> Option<&Pending> {
        match &self.state {
            State::Ringing { pending } | State::Reoffered { pending } => Some(pending),
            State::Answered { .. } | State::Confirmed | State::Ending => None,
        }
    }

    /// The first INVITE is not answered.
    pub fn is_ringing(&self) -> bool {
        matches!(self.state, State::Ringing { .. })
    }

    /// We have hung up.
    pub fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending)
    }

    /// How the dialog is named on the wire.
    pub fn key(&self) -> &DialogKey {
        &self.key
    }

    /// Which way the peer's newest request came.
    pub fn path(&self) -> Path {
        self.path
    }
}

impl HangUp {
    fn for_lack_of_ack() -> Self {
        Self { reason: Some("SIP;cause=408;text=\"ACK missing\"".to_owned()) }
    }
}
