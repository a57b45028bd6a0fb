//! Session timers (RFC 4028): how two parties keep checking that a call still exists.
//!
//! Comes in: header fields of INVITE and UPDATE and of their responses, time. Goes out: when to
//! refresh the session, when it ends, and the header fields that say so. The endpoint sends the
//! refresh.

use std::time::{Duration, Instant};

use super::message::{Request, Response, parse_number};

/// RFC 4028 §5: the least session interval that we accept, in seconds.
pub const MIN_SE: u32 = 90;
/// RFC 4028 §4: the session interval that we propose, in seconds.
pub const SESSION_EXPIRES: u32 = 1_800;
/// The option tag (RFC 4028 §7.1).
pub const TIMER: &str = "timer";

/// RFC 4028 §10: the session is given up this long before its interval ends; or a third of the
/// interval before, if that is shorter.
const LAST_MOMENT: Duration = Duration::from_secs(32);
/// How long after a refusal the refresh is tried again; doubles with each refusal, up to the
/// longest.
const PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(320);
/// How often a longer interval is granted (RFC 4028 §7.3). Each hop may ask for its own; a peer
/// that goes on asking does not want the call.
const MAX_RAISES: u8 = 2;

/// The side that refreshes the session, named by its role in the transaction that settled it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refresher {
    /// The sender of the request.
    Uac,
    /// The sender of the response.
    Uas,
}

impl Refresher {
    fn name(self) -> &'static str {
        match self {
            Self::Uac => "uac",
            Self::Uas => "uas",
        }
    }
}

/// The interval that a request proposes is below our minimum: answer 422 with `Min-SE` (RFC 4028
/// §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooSmall;

/// The least interval that the peer and the proxies accept (Min-SE, RFC 4028 §7.3, §7.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LeastInterval {
    seconds: u32,
    /// How often it was raised for one session or refresh.
    raises: u8,
}

impl Default for LeastInterval {
    fn default() -> Self {
        Self { seconds: MIN_SE, raises: 0 }
    }
}

impl LeastInterval {
    /// The interval in seconds.
    pub(super) fn seconds(self) -> u32 {
        self.seconds
    }

    /// A 422 wants at least `least` seconds where we have proposed `proposed`. Returns whether the
    /// request should be sent again with that interval.
    pub(super) fn raise(&mut self, least: u32, proposed: u32) -> bool {
        if least <= proposed || self.raises >= MAX_RAISES {
            return false;
        }
        self.raises += 1;
        self.seconds = least;
        true
    }

    /// The next refresh may raise it as often again.
    pub(super) fn settled(&mut self) {
        self.raises = 0;
    }
}

/// A session that ends unless it is refreshed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionTimer {
    interval: Duration,
    we_refresh: bool,
    since: Instant,
    /// When our next refresh is due; `None` while a refresh is under way, or when the peer
    /// refreshes.
    refresh: Option<Instant>,
    /// How long after the next refusal the refresh is tried again.
    pause: Duration,
}

/// What a deadline of a session led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionDue {
    /// The refresh has to be sent.
    Refresh,
    /// The session was not refreshed in time.
    Expired,
}

impl SessionTimer {
    /// Answers the session timer that an accepted request asks for (RFC 4028 §9): the timer of the
    /// session, if it has one, and the value of `Session-Expires` for the 2xx.
    ///
    /// # Errors
    ///
    /// The request has to be refused with 422.
    pub fn answer(request: &Request, now: Instant) -> Result<Option<(Self, String)>, TooSmall> {
        let supports = request.lists("Supported", TIMER) || request.lists("Require", TIMER);
        let (seconds, wish) = match request.header("Session-Expires").and_then(read) {
            Some((seconds, _)) if seconds < MIN_SE && supports => return Err(TooSmall),
            // A proxy has set the interval, and the caller would not understand a 422.
            Some((seconds, _)) if seconds < MIN_SE => return Ok(None),
            Some(wish) => wish,
            None if supports => {
                let least = request.header("Min-SE").and_then(read).map_or(0, |(least, _)| least);
                (SESSION_EXPIRES.max(least), None)
            }
            None => return Ok(None),
        };
        let refresher = match wish {
            _ if !supports => Refresher::Uas,
            Some(refresher) => refresher,
            None => Refresher::Uac,
        };
        let timer = Self::new(seconds, refresher == Refresher::Uas, now);
        Ok(Some((timer, format!("{seconds};refresher={}", refresher.name()))))
    }

    /// Reads the session timer that the peer has accepted (RFC 4028 §7.2); `None` when it keeps
    /// none.
    pub fn accept(response: &Response, now: Instant) -> Option<Self> {
        let (seconds, refresher) = response.header("Session-Expires").and_then(read)?;
        let we_refresh = refresher != Some(Refresher::Uas);
        Some(Self::new(seconds.max(MIN_SE), we_refresh, now))
    }

    fn new(seconds: u32, we_refresh: bool, now: Instant) -> Self {
        let interval = Duration::from_secs(seconds.into());
        let refresh = we_refresh.then(|| now + interval / 2);
        Self { interval, we_refresh, since: now, refresh, pause: PAUSE }
    }

    /// The interval in seconds.
    pub fn seconds(&self) -> u32 {
        u32::try_from(self.interval.as_secs()).unwrap_or(u32::MAX)
    }

    /// The value of `Session-Expires` in a refresh of ours, with an interval of at least `least`
    /// seconds. The roles stay as they are.
    pub fn proposal(&self, least: u32) -> String {
        let refresher = if self.we_refresh { Refresher::Uac } else { Refresher::Uas };
        format!("{};refresher={}", self.seconds().max(least), refresher.name())
    }

    /// The refresh could not be made now; it is tried again at `at`.
    pub fn postpone(&mut self, at: Instant) {
        self.refresh = Some(at);
    }

    /// Our refresh was refused. It is tried again, at ever longer intervals, until the session
    /// ends.
    pub fn refused(&mut self, now: Instant) {
        self.refresh = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// The deadline has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<SessionDue> {
        if self.end() <= now {
            return Some(SessionDue::Expired);
        }
        self.refresh.take_if(|due| *due <= now).map(|_| SessionDue::Refresh)
    }

    /// When `handle_timeout` has to be called.
    pub fn poll_timeout(&self) -> Instant {
        let end = self.end();
        self.refresh.map_or(end, |refresh| refresh.min(end))
    }

    /// When the session is given up (RFC 4028 §10).
    fn end(&self) -> Instant {
        self.since + self.interval - LAST_MOMENT.min(self.interval / 3)
    }
}

/// Reads the seconds and the refresher.
fn read(value: &str) -> Option<(u32, Option<Refresher>)> {
    let mut parts = value.split(';').map(str::trim);
    let seconds = parts.next().filter(|text| !text.is_empty()).and_then(parse_number)?;
    let refresher = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        if !name.trim().eq_ignore_ascii_case("refresher") {
            return None;
        }
        [Refresher::Uac, Refresher::Uas]
            .into_iter()
            .find(|refresher| value.trim().eq_ignore_ascii_case(refresher.name()))
    });
    // One day is longer than any call; more could only overflow.
    Some((seconds.min(86_400), refresher))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sip::{message::Message, wire::parse_datagram};

    const HEAD: &str = "Via: SIP/2.0/UDP c;branch=z9hG4bK1\r\nFrom: <sip:c@c>;tag=1\r\n\
                        To: <sip:a@b>;tag=2\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n";

    fn invite(more: &str) -> Request {
        let text = format!("INVITE sip:a@b SIP/2.0\r\n{HEAD}{more}\r\n");
        match parse_datagram(text.as_bytes()).unwrap() {
            Message::Request(request) => request,
            Message::Response(_) => unreachable!("it is a request"),
        }
    }

    fn ok(more: &str) -> Response {
        let text = format!("SIP/2.0 200 OK\r\n{HEAD}{more}\r\n");
        match parse_datagram(text.as_bytes()).unwrap() {
            Message::Response(response) => response,
            Message::Request(_) => unreachable!("it is a response"),
        }
    }

    fn seconds(number: u64) -> Duration {
        Duration::from_secs(number)
    }

    #[test]
    fn who_refreshes_is_settled_as_in_the_table_of_section_9() {
        let now = Instant::now();
        let timer = "Supported: timer\r\n";
        for (headers, expected) in [
            (String::new(), None),
            (timer.to_owned(), Some("1800;refresher=uac")),
            (format!("{timer}Min-SE: 3600\r\n"), Some("3600;refresher=uac")),
            (format!("{timer}Session-Expires: 600\r\n"), Some("600;refresher=uac")),
            (format!("{timer}x: 600 ; Refresher=UAS\r\n"), Some("600;refresher=uas")),
            (format!("{timer}x: 600;refresher=uac\r\n"), Some("600;refresher=uac")),
            ("Session-Expires: 600;refresher=uac\r\n".to_owned(), Some("600;refresher=uas")),
            ("Session-Expires: 60\r\n".to_owned(), None),
            (format!("{timer}Session-Expires: many\r\n"), Some("1800;refresher=uac")),
        ] {
            let answer = SessionTimer::answer(&invite(&headers), now).unwrap();
            assert_eq!(answer.map(|(_, value)| value).as_deref(), expected, "{headers:?}");
        }
    }

    #[test]
    fn an_interval_below_the_minimum_is_refused_if_the_peer_understands() {
        let request = invite("Supported: timer\r\nSession-Expires: 89\r\n");
        assert_eq!(SessionTimer::answer(&request, Instant::now()), Err(TooSmall));
    }

    #[test]
    fn a_peer_may_lengthen_the_interval_twice() {
        let mut least = LeastInterval::default();
        assert!(!least.raise(1_800, 1_800), "we have proposed that");
        assert!(least.raise(2_000, 1_800) && least.raise(3_000, 2_000));
        assert!(!least.raise(4_000, 3_000));
        assert_eq!(least.seconds(), 3_000);
        least.settled();
        assert!(least.raise(4_000, 3_000));
    }

    #[test]
    fn our_refresh_is_due_at_half_of_the_interval() {
        let now = Instant::now();
        let mut timer = SessionTimer::accept(&ok("Session-Expires: 600;refresher=uac\r\n"), now)
            .expect("there is one");
        assert_eq!(timer.poll_timeout(), now + seconds(300));
        assert_eq!(timer.handle_timeout(now + seconds(299)), None);
        assert_eq!(timer.handle_timeout(now + seconds(300)), Some(SessionDue::Refresh));
        assert_eq!(timer.poll_timeout(), now + seconds(568));
        timer.postpone(now + seconds(303));
        assert_eq!(timer.handle_timeout(now + seconds(303)), Some(SessionDue::Refresh));
        assert_eq!(timer.handle_timeout(now + seconds(568)), Some(SessionDue::Expired));
        assert_eq!(timer.proposal(0), "600;refresher=uac");
        assert_eq!(timer.proposal(900), "900;refresher=uac");
    }

    #[test]
    fn a_peer_that_does_not_refresh_in_time_is_given_up() {
        let now = Instant::now();
        let mut timer =
            SessionTimer::accept(&ok("Session-Expires: 90;refresher=uas\r\n"), now).unwrap();
        assert_eq!(timer.poll_timeout(), now + seconds(60));
        assert_eq!(timer.handle_timeout(now + seconds(60)), Some(SessionDue::Expired));
        assert_eq!(SessionTimer::accept(&ok(""), now), None);
    }
}
