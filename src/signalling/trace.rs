//! The last messages of each call, kept in memory for whoever wants to see what was said.
//!
//! Comes in: every message, in and out. Goes out: those of one call, in their order. What would open
//! a door, or tell what somebody has typed, is masked before it is kept. Messages of strangers wait
//! in a small ring; only those of calls that were taken are kept longer, until the memory is needed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use crate::{model::UnixMillis, proto::sip::path::Path};

/// Messages of one call; the oldest go first.
const MESSAGES: usize = 64;
/// Bytes of one message; the rest is cut.
const MESSAGE_BYTES: usize = 16 << 10;
/// Calls that are kept, over or not; the oldest go first.
const CALLS: usize = 2_000;
/// Bytes of all messages together.
const TOTAL_BYTES: usize = 64 << 20;
/// Messages of calls that were not taken, or not yet.
const STRANGERS: usize = 256;

/// One message as it was sent or came, masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// When.
    pub at: UnixMillis,
    /// Whether we sent it.
    pub is_sent: bool,
    /// Which way it went.
    pub path: Path,
    /// What it says.
    pub message: Arc<str>,
}

/// Keeps the messages; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Tracer {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    calls: BTreeMap<String, VecDeque<Traced>>,
    /// The calls in the order in which they were taken.
    order: VecDeque<String>,
    strangers: VecDeque<(String, Traced)>,
    bytes: usize,
}

impl Tracer {
    /// Notes a message that came over `path`, or was sent.
    pub fn record(&self, is_sent: bool, path: &Path, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes.get(..MESSAGE_BYTES).unwrap_or(bytes));
        let Some(call_id) = call_id(&text).map(str::to_owned) else { return };
        let at = UnixMillis::from(SystemTime::now());
        let traced = Traced { at, is_sent, path: *path, message: masked(&text).into() };
        let mut kept = self.kept();
        if kept.calls.contains_key(&call_id) {
            kept.add(&call_id, traced);
        } else {
            if kept.strangers.len() >= STRANGERS {
                kept.strangers.pop_front();
            }
            kept.strangers.push_back((call_id, traced));
        }
    }

    /// A call was taken: from now on, and from its first message on, it is kept.
    pub fn adopt(&self, call_id: &str) {
        let mut kept = self.kept();
        if kept.calls.contains_key(call_id) {
            return;
        }
        kept.calls.insert(call_id.to_owned(), VecDeque::new());
        kept.order.push_back(call_id.to_owned());
        let (known, rest) = std::mem::take(&mut kept.strangers)
            .into_iter()
            .partition::<VecDeque<_>, _>(|(of, _)| of == call_id);
        kept.strangers = rest;
        for (_, traced) in known {
            kept.add(call_id, traced);
        }
        while kept.order.len() > CALLS {
            kept.forget_oldest();
        }
    }

    /// The messages of a call, the oldest first; none when it was forgotten.
    pub fn messages(&self, call_id: &str) -> Vec<Traced> {
        let kept = self.kept();
        kept.calls.get(call_id).map(|all| all.iter().cloned().collect()).unwrap_or_default()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn add(&mut self, call_id: &str, traced: Traced) {
        let Some(call) = self.calls.get_mut(call_id) else { return };
        self.bytes += traced.message.len();
        call.push_back(traced);
        if call.len() > MESSAGES
            && let Some(oldest) = call.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(oldest.message.len());
        }
        while self.bytes > TOTAL_BYTES && self.order.len() > 1 {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.order.pop_front() else { return };
        let gone = self.calls.remove(&oldest).unwrap_or_default();
        let bytes: usize = gone.iter().map(|traced| traced.message.len()).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

fn call_id(message: &str) -> Option<&str> {
    message.lines().take_while(|line| !line.is_empty()).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let name = name.trim();
        (name.eq_ignore_ascii_case("Call-ID") || name.eq_ignore_ascii_case("i"))
            .then_some(value.trim())
    })
}

/// Hides what proves somebody's identity, keys of media, and keys that were pressed.
fn masked(message: &str) -> String {
    let (head, body) = message.split_once("\r\n\r\n").unwrap_or((message, ""));
    let is_tones = head.lines().any(|line| {
        let line = line.to_ascii_lowercase();
        line.contains("application/dtmf") && line.starts_with(['c', 'C'])
    });
    let head = head.split_inclusive('\n').map(|line| match line.split_once(':') {
        Some((name, value)) if name.to_ascii_lowercase().contains("authorization") => {
            let end = if value.ends_with("\r\n") { "\r\n" } else { "" };
            format!("{name}:{}{end}", without_proof(value))
        }
        _ => line.to_owned(),
    });
    let mut text: String = head.collect();
    text.push_str("\r\n\r\n");
    for line in body.split_inclusive('\n') {
        match line {
            _ if is_tones => {
                text.extend(line.chars().map(|c| if is_key(c) { '?' } else { c }));
            }
            line if line.starts_with("a=crypto:") => text.push_str("a=crypto:?\r\n"),
            line => text.push_str(line),
        }
    }
    text
}

/// The parameters of a digest without those that an attacker could guess the password from.
fn without_proof(value: &str) -> String {
    let shown = value.trim_end().split(',').map(|param| match param.split_once('=') {
        Some((name, _)) if ["response", "cnonce", "nonce"].contains(&name.trim()) => {
            format!("{name}=\"?\"")
        }
        // A scheme that we do not know may carry anything.
        None => " ?".to_owned(),
        Some(_) => param.to_owned(),
    });
    shown.collect::<Vec<_>>().join(",")
}

fn is_key(c: char) -> bool {
    c.is_ascii_digit() || matches!(c, '*' | '#' | 'A'..='D')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> Path {
        Path::udp("192.0.2.1:5060".parse().unwrap(), "192.0.2.10:5062".parse().unwrap())
    }

    fn message(call: &str, more: &str) -> Vec<u8> {
        format!("INVITE sip:a@b SIP/2.0\r\nCall-ID: {call}\r\n{more}").into_bytes()
    }

    #[test]
    fn a_call_is_kept_from_its_first_message_on() {
        let tracer = Tracer::default();
        tracer.record(false, &path(), &message("one", "\r\n"));
        tracer.record(true, &path(), &message("one", "\r\n"));
        tracer.record(false, &path(), &message("two", "\r\n"));
        assert!(tracer.messages("one").is_empty(), "nobody has taken it");
        tracer.adopt("one");
        tracer.record(false, &path(), b"BYE sip:a@b SIP/2.0\r\ni: one\r\n\r\n");
        let sent: Vec<bool> = tracer.messages("one").iter().map(|traced| traced.is_sent).collect();
        assert_eq!(sent, [false, true, false]);
        assert!(tracer.messages("two").is_empty());
    }

    #[test]
    fn no_flood_drives_out_a_call() {
        let tracer = Tracer::default();
        tracer.record(false, &path(), &message("mine", "\r\n"));
        tracer.adopt("mine");
        for index in 0..10_000 {
            tracer.record(false, &path(), &message(&format!("flood-{index}"), "\r\n"));
        }
        assert_eq!(tracer.messages("mine").len(), 1);
        assert_eq!(tracer.kept().strangers.len(), STRANGERS);
    }

    #[test]
    fn memory_is_bounded_by_messages_calls_and_bytes() {
        let tracer = Tracer::default();
        tracer.adopt("long");
        for _ in 0..200 {
            tracer.record(false, &path(), &message("long", &"x".repeat(100_000)));
        }
        let messages = tracer.messages("long");
        assert_eq!(messages.len(), MESSAGES);
        assert!(messages.iter().all(|traced| traced.message.len() <= MESSAGE_BYTES + 4));
        for index in 0..=CALLS {
            tracer.adopt(&index.to_string());
        }
        assert!(tracer.messages("long").is_empty(), "the oldest goes");
        assert_eq!(tracer.kept().bytes, 0);
        for index in 0..100 {
            for _ in 0..MESSAGES {
                tracer.record(
                    false,
                    &path(),
                    &message(&(index + 1).to_string(), &"x".repeat(100_000)),
                );
            }
        }
        assert!(tracer.kept().bytes <= TOTAL_BYTES);
    }

    #[test]
    fn what_opens_doors_is_not_kept() {
        let text = "INVITE sip:a@b SIP/2.0\r\nCall-ID: x\r\n\
            Authorization: Digest username=\"alice\", realm=\"r\", nonce=\"N1\", uri=\"sip:a\", \
            response=\"R1\", cnonce=\"C1\", nc=00000001\r\n\
            Proxy-Authorization: Bearer T1\r\nContent-Type: application/sdp\r\n\r\n\
            v=0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:K1\r\na=sendrecv\r\n";
        let shown = masked(text);
        for secret in ["N1", "R1", "C1", "T1", "K1"] {
            assert!(!shown.contains(secret), "{secret}: {shown}");
        }
        for known in ["username=\"alice\"", "nc=00000001\r\n", "a=sendrecv\r\n", "a=crypto:?"] {
            assert!(shown.contains(known), "{known}: {shown}");
        }
    }

    #[test]
    fn keys_that_were_pressed_are_not_kept() {
        let text = "INFO sip:a@b SIP/2.0\r\nCall-ID: x\r\n\
            Content-Type: application/dtmf-relay\r\n\r\nSignal=5\r\nDuration=160\r\n";
        assert!(masked(text).ends_with("\r\n\r\nSignal=?\r\n?uration=???\r\n"), "{}", masked(text));
    }
}
