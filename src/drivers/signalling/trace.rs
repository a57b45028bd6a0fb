//! The last messages of each call, kept in memory for operators and applications.
//!
//! Comes in: every message, sent or received. Goes out: those of one call, in their order.
//! Credentials, media keys and DTMF digits are masked before a message is kept. Messages that
//! belong to no traced call wait in a small ring; only those of accepted calls are kept longer,
//! until the memory is needed.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use aftertone_core::{
    model::{CallId, UnixMillis},
    proto::{sdp, sip::path::Path},
};

/// Messages of one call; the oldest are dropped first.
const MESSAGES: usize = 64;
/// Bytes of one message; the rest is cut.
const MESSAGE_BYTES: usize = 16 << 10;
/// Calls that are kept, ended or not; the oldest are dropped first.
const CALLS: usize = 2_000;
/// Bytes of all messages together.
const TOTAL_BYTES: usize = 64 << 20;
/// Capacity of the ring of messages that belong to no traced call, or not yet.
const STRANGERS: usize = 256;

/// One message as it was sent or received, masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced {
    /// When it was sent or received.
    pub at: UnixMillis,
    /// Whether we sent it.
    pub is_sent: bool,
    /// The path it took.
    pub path: Path,
    /// Its text.
    pub message: Arc<str>,
}

/// Keeps the messages; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Tracer {
    kept: Arc<Mutex<KeptMessage>>,
}

#[derive(Debug, Default)]
struct KeptMessage {
    calls: BTreeMap<CallId, TracedCall>,
    /// The call that a Call-ID belongs to. The peer chooses the Call-ID, so it identifies a call on
    /// the wire only, and never in a query.
    by_call_id: BTreeMap<String, CallId>,
    /// The calls in the order of their adoption.
    order: VecDeque<CallId>,
    strangers: VecDeque<(String, Traced)>,
    bytes: usize,
}

/// One call: its messages are those with its Call-IDs from and to its own peers. A peer elsewhere
/// that uses the same Call-ID, by chance or not, neither sees them nor evicts them.
#[derive(Debug)]
struct TracedCall {
    peers: Vec<IpAddr>,
    messages: VecDeque<Traced>,
}

impl Tracer {
    /// Records a message that was received or sent over `path`.
    pub(super) fn record(&self, is_sent: bool, path: &Path, bytes: &[u8]) {
        let Some(call_id) = call_id(&String::from_utf8_lossy(begin(bytes))) else { return };
        let at = UnixMillis::from(SystemTime::now());
        let message = Masked(bytes).to_string();
        let traced = Traced { at, is_sent, path: *path, message: message.into() };
        let mut kept = self.kept();
        let call = kept.by_call_id.get(&call_id).copied();
        match call.filter(|call| kept.calls.get(call).is_some_and(|it| it.is_with(path))) {
            Some(call) => kept.add(call, traced),
            None => {
                if kept.strangers.len() >= STRANGERS {
                    kept.strangers.pop_front();
                }
                kept.strangers.push_back((call_id, traced));
            }
        }
    }

    /// Keeps the messages of an accepted call with this Call-ID and these peers, from its first
    /// message on. A second call with the same Call-ID is not kept: the owner of the first call
    /// must not see its messages.
    pub(super) fn adopt(&self, call: CallId, call_id: &str, peers: &[IpAddr]) {
        let mut kept = self.kept();
        if kept.by_call_id.contains_key(call_id) || kept.calls.contains_key(&call) {
            return;
        }
        kept.calls.insert(call, TracedCall { peers: Vec::new(), messages: VecDeque::new() });
        kept.order.push_back(call);
        kept.extend(call, call_id, peers);
        while kept.order.len() > CALLS {
            kept.forget_oldest();
        }
    }

    /// Adds another dialog, with these peers, to a call that is kept: its earlier and later
    /// messages are part of the call.
    pub(super) fn follow(&self, call: CallId, further: &str, peers: &[IpAddr]) {
        let mut kept = self.kept();
        let is_free = kept.by_call_id.get(further).is_none_or(|known| *known == call);
        if is_free && kept.calls.contains_key(&call) {
            kept.extend(call, further, peers);
        }
    }

    /// The messages of a call, the oldest first; empty when the call was dropped.
    pub(super) fn messages(&self, call: CallId) -> Vec<Traced> {
        let kept = self.kept();
        let call = kept.calls.get(&call);
        call.map(|call| call.messages.iter().cloned().collect()).unwrap_or_default()
    }

    fn kept(&self) -> MutexGuard<'_, KeptMessage> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeptMessage {
    /// Adds the messages with this Call-ID from and to these peers to the call, also earlier ones.
    fn extend(&mut self, call: CallId, call_id: &str, peers: &[IpAddr]) {
        let Some(entry) = self.calls.get_mut(&call) else { return };
        entry.peers.extend_from_slice(peers);
        self.by_call_id.insert(call_id.to_owned(), call);
        let strangers = std::mem::take(&mut self.strangers);
        let (known, rest) = strangers.into_iter().partition::<VecDeque<_>, _>(|(of, traced)| {
            of == call_id && peers.contains(&traced.path.peer.ip())
        });
        self.strangers = rest;
        for (_, traced) in known {
            self.add(call, traced);
        }
    }

    fn add(&mut self, call: CallId, traced: Traced) {
        let Some(call) = self.calls.get_mut(&call) else { return };
        self.bytes += traced.message.len();
        call.messages.push_back(traced);
        if call.messages.len() > MESSAGES
            && let Some(oldest) = call.messages.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(oldest.message.len());
        }
        while self.bytes > TOTAL_BYTES && self.order.len() > 1 {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.order.pop_front() else { return };
        let gone = self.calls.remove(&oldest).map(|call| call.messages).unwrap_or_default();
        self.by_call_id.retain(|_, call| *call != oldest);
        let bytes: usize = gone.iter().map(|traced| traced.message.len()).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl TracedCall {
    fn is_with(&self, path: &Path) -> bool {
        self.peers.contains(&path.peer.ip())
    }
}

/// The part of a message that is parsed: up to the cut, and on to the end of a URI that the cut
/// would divide, so that half of a password is not taken for something else.
fn begin(bytes: &[u8]) -> &[u8] {
    let after = bytes.get(MESSAGE_BYTES..).unwrap_or_default();
    let ends = |byte: &u8| byte.is_ascii() && ends_uri(char::from(*byte));
    let more = after.iter().position(ends).map_or(after.len(), |end| end + 1);
    bytes.get(..MESSAGE_BYTES + more).unwrap_or(bytes)
}

/// The header fields of a message, each as one line without its line end (folded lines are joined);
/// and the body. Without an empty line after the header, the body is empty.
fn parts(message: &str) -> (Vec<String>, &str) {
    let mut fields: Vec<String> = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        rest = after;
        let line = line.trim_end_matches('\r');
        if line.is_empty() && !fields.is_empty() {
            break;
        }
        match fields.last_mut() {
            Some(field) if line.starts_with([' ', '\t']) => {
                field.push(' ');
                field.push_str(line.trim());
            }
            _ => fields.push(line.to_owned()),
        }
    }
    (fields, rest)
}

fn call_id(message: &str) -> Option<String> {
    parts(message).0.iter().find_map(|field| {
        let (name, value) = field.split_once(':')?;
        let name = name.trim();
        (name.eq_ignore_ascii_case("Call-ID") || name.eq_ignore_ascii_case("i"))
            .then(|| value.trim().to_owned())
    })
}

/// A message as it may be shown: masked, and cut.
pub(super) struct Masked<'a>(pub &'a [u8]);

impl fmt::Display for Masked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = masked(&String::from_utf8_lossy(begin(self.0)));
        f.write_str(&text[..text.floor_char_boundary(MESSAGE_BYTES)])
    }
}

/// Hides credentials, media keys and DTMF digits. A field or line that may hold any of them is
/// hidden completely.
fn masked(message: &str) -> String {
    let (fields, body) = parts(message);
    let mut text = String::with_capacity(message.len());
    let mut is_tones = false;
    for field in fields {
        let (name, value) = field.split_once(':').unwrap_or((&field, ""));
        let lower = name.trim().to_ascii_lowercase();
        if lower == "content-type" || lower == "c" {
            is_tones |= value.to_ascii_lowercase().contains("dtmf");
        }
        if lower.contains("authorization") {
            // The scheme tells enough; every parameter could help to guess the password.
            let scheme = value.split_whitespace().next().unwrap_or_default();
            text.push_str(&format!("{name}: {scheme} ?"));
        } else if lower.ends_with("authentication-info") {
            text.push_str(&format!("{name}: ?"));
        } else {
            push_without_passwords(&mut text, &field);
        }
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    if is_tones {
        text.push_str(if body.is_empty() { "" } else { "?" });
        return text;
    }
    // Lines end as in `sdp`: also with CR alone.
    for line in body.split_inclusive(['\r', '\n']) {
        match sdp::without_secret(line) {
            Some(shown) => {
                let end = line.trim_start_matches(|c| c != '\r' && c != '\n');
                text.push_str(&format!("{shown}?{end}"));
            }
            None => push_without_passwords(&mut text, line),
        }
    }
    text
}

/// Copies text, but hides the password of `sip:USER:PASSWORD@HOST` (RFC 3261 section 19.1.1). The
/// search never goes over the same bytes twice: any peer may send 64 kB of `sip:`.
fn push_without_passwords(text: &mut String, whole: &str) {
    let lower = whole.to_ascii_lowercase();
    let (mut copied, mut at) = (0, 0);
    while let Some(found) = lower[at..].find("sip") {
        at += found + "sip".len();
        let after = &lower[at..];
        let Some(uri) = after.strip_prefix('s').unwrap_or(after).strip_prefix(':') else {
            continue;
        };
        let begin = lower.len() - uri.len();
        let Some(length) = uri.find(ends_uri) else { break };
        at = begin + length;
        if uri[length..].starts_with('@')
            && let Some(colon) = uri[..length].find(':')
        {
            text.push_str(&whole[copied..=begin + colon]);
            text.push('?');
            copied = at;
        }
    }
    text.push_str(&whole[copied..]);
}

/// Characters that no URI contains, and `@`, which follows a password.
fn ends_uri(c: char) -> bool {
    c.is_whitespace() || matches!(c, '<' | '>' | '"' | '@')
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn path() -> Path {
        Path::udp("192.0.2.1:5060".parse().unwrap(), "192.0.2.10:5062".parse().unwrap())
    }

    fn peers() -> Vec<IpAddr> {
        vec![path().peer.ip()]
    }

    fn id(name: &str) -> CallId {
        let mut bytes = [0; 16];
        for (byte, letter) in bytes.iter_mut().zip(name.bytes()) {
            *byte = letter;
        }
        CallId::from_random(bytes)
    }

    fn adopt(tracer: &Tracer, name: &str) {
        tracer.adopt(id(name), name, &peers());
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
        assert!(tracer.messages(id("one")).is_empty(), "nobody has taken it");
        adopt(&tracer, "one");
        tracer.record(false, &path(), b"BYE sip:a@b SIP/2.0\r\ni: one\r\n\r\n");
        let sent: Vec<bool> =
            tracer.messages(id("one")).iter().map(|traced| traced.is_sent).collect();
        assert_eq!(sent, [false, true, false]);
        assert!(tracer.messages(id("two")).is_empty());
    }

    #[test]
    fn no_flood_drives_out_a_call() {
        let tracer = Tracer::default();
        tracer.record(false, &path(), &message("mine", "\r\n"));
        adopt(&tracer, "mine");
        for index in 0..10_000 {
            tracer.record(false, &path(), &message(&format!("flood-{index}"), "\r\n"));
        }
        assert_eq!(tracer.messages(id("mine")).len(), 1);
        assert_eq!(tracer.kept().strangers.len(), STRANGERS);
    }

    #[test]
    fn memory_is_bounded_by_messages_calls_and_bytes() {
        let tracer = Tracer::default();
        adopt(&tracer, "long");
        for _ in 0..200 {
            tracer.record(false, &path(), &message("long", &"x".repeat(100_000)));
        }
        let messages = tracer.messages(id("long"));
        assert_eq!(messages.len(), MESSAGES);
        assert!(messages.iter().all(|traced| traced.message.len() <= MESSAGE_BYTES));
        for index in 0..=CALLS {
            adopt(&tracer, &index.to_string());
        }
        assert!(tracer.messages(id("long")).is_empty(), "the oldest goes");
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
    fn the_same_call_id_from_elsewhere_shows_and_drives_out_nothing() {
        let tracer = Tracer::default();
        let elsewhere = Path { peer: "198.51.100.9:5060".parse().unwrap(), ..path() };
        tracer.record(false, &elsewhere, &message("one", "X: theirs\r\n\r\n"));
        tracer.record(false, &path(), &message("one", "X: ours\r\n\r\n"));
        adopt(&tracer, "one");
        for _ in 0..100 {
            tracer.record(false, &elsewhere, &message("one", "X: theirs\r\n\r\n"));
        }
        tracer.adopt(id("other"), "one", &[elsewhere.peer.ip()]);
        assert!(tracer.messages(id("other")).is_empty());
        let messages = tracer.messages(id("one"));
        assert_eq!(messages.len(), 1);
        assert!(messages[0].message.contains("ours"));
    }

    #[test]
    fn what_opens_doors_is_not_kept() {
        for (header, secret) in [
            ("Authorization: Digest username=\"a\", response=\"SECRET\", nonce=\"n\"", "SECRET"),
            ("Authorization: Digest response=\"SECRET\", username=\"a\"", "SECRET"),
            ("authorization:\r\n Digest username=\"a\",\r\n\tResponse=SECRET", "SECRET"),
            ("Proxy-Authorization: Bearer SECRET==", "SECRET"),
            ("Proxy-Authorization : Basic SECRET=", "SECRET"),
            ("Authentication-Info: rspauth=\"SECRET\", nextnonce=\"n\"", "SECRET"),
            ("Contact: <sip:alice:SECRET@192.0.2.1;ob>, \"A\" <SIPS:bob:SECRET@a>", "SECRET"),
            ("Refer-To: sip:alice:SECRET@192.0.2.1", "SECRET"),
            ("Route: <sip:192.0.2.1:5060;lr>,<sip:é:SECRET@a>", "SECRET"),
        ] {
            for end in ["\r\n", "\n"] {
                let text = format!("INVITE sip:a@b SIP/2.0\r\nCall-ID: x\r\n{header}\r\n\r\nbody");
                let shown = masked(&text.replace("\r\n", end));
                assert!(!shown.contains(secret), "{header}: {shown}");
                assert!(shown.ends_with("\r\n\r\nbody"), "{shown}");
            }
        }
        for end in ["\r\n", "\n"] {
            let text = "INVITE sip:a@b SIP/2.0\r\nCall-ID: x\r\nContent-Type: application/sdp\r\n\r\n\
                        v=0\r\nk=base64:SECRET\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:SECRET\r\na=sendrecv\r\n";
            let shown = masked(&text.replace("\r\n", end));
            assert!(!shown.contains("SECRET"), "{shown}");
            assert!(shown.contains("a=sendrecv"), "{shown}");
            assert!(shown.contains("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:?"), "{shown}");
        }
    }

    #[test]
    fn media_keys_are_hidden_in_all_forms_in_which_they_are_read() {
        for line in [
            "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:SECRET|2^20|1:4",
            "A=CRYPTO:1 AES_CM_128_HMAC_SHA1_80 INLINE:SECRET",
            " a = crypto : 1 AES_CM_128_HMAC_SHA1_80\tinline:SECRET",
            "\u{feff}a=\u{a0}crypto:1 x uri:SECRET",
            "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:SECRET1;inline:SECRET2",
            "x=unknown inline:SECRET",
            "k=base64:SECRET",
            " K = clear:SECRET",
            "k=SECRET",
            "a=key-mgmt:mikey SECRET",
            "a=ice-pwd:SECRET",
        ] {
            for end in ["\r\n", "\n", "\r"] {
                let text =
                    format!("INVITE sip:a@b SIP/2.0\r\n\r\nv=0{end}{line}{end}a=sendrecv{end}");
                let shown = masked(&text);
                assert!(!shown.contains("SECRET"), "{line:?}: {shown}");
                assert!(shown.contains(&format!("?{end}a=sendrecv{end}")), "{line:?}: {shown}");
            }
        }
    }

    #[test]
    fn a_password_in_a_uri_is_all_that_is_hidden_of_it() {
        let shown = |text: &str| {
            let mut shown = String::new();
            push_without_passwords(&mut shown, text);
            shown
        };
        for (text, expected) in [
            ("INVITE sip:a:b:c@h:5060 SIP/2.0", "INVITE sip:a:?@h:5060 SIP/2.0"),
            ("f: <sip:a:b@h>;tag=1, <sips:c:d@h>", "f: <sip:a:?@h>;tag=1, <sips:c:?@h>"),
            (
                "Contact: <sip:h:5060;lr>, \"x@y\" <sip:a@h:1>",
                "Contact: <sip:h:5060;lr>, \"x@y\" <sip:a@h:1>",
            ),
            ("To: tel:+49:1@x", "To: tel:+49:1@x"),
            ("sip:", "sip:"),
        ] {
            assert_eq!(shown(text), expected);
        }
    }

    #[test]
    fn what_is_shown_elsewhere_is_masked_and_cut_as_well() {
        let mut message = message("x", "Authorization: Digest response=SECRET\r\n\r\n");
        message.extend(vec![b'x'; 1 << 20]);
        let shown = Masked(&message).to_string();
        assert!(!shown.contains("SECRET") && shown.len() <= MESSAGE_BYTES);
    }

    #[test]
    fn no_half_of_a_password_is_shown_where_a_message_is_cut() {
        for line in [
            "Contact: <sip:alice:SECRET-SECRET\u{e0}SECRET-SECRET@192.0.2.1>",
            "Authorization: Digest response=SECRET-SECRET-SECRET-SECRET",
            "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:SECRET-SECRET-SECRET",
        ] {
            let head = "INVITE sip:a@b SIP/2.0\r\nCall-ID: x\r\n";
            for cut in 0..line.len() {
                let (end, more) = ("\r\n", "more\r\n".repeat(4_000));
                let filler = MESSAGE_BYTES - head.len() - "X: ".len() - 2 * end.len() - cut;
                let filler = format!("X: {}", "x".repeat(filler));
                let end_of_head = if line.starts_with("a=") { end } else { "" };
                let pad = if line.starts_with("a=") { "" } else { "XX" };
                let text = format!("{head}{filler}{pad}{end}{end_of_head}{line}{end}{more}");
                let shown = Masked(text.as_bytes()).to_string();
                assert!(!shown.contains("SE"), "{cut}: {}", &shown[shown.len() - 80..]);
                assert!(shown.len() <= MESSAGE_BYTES);
            }
        }
        let unfinished = masked("INVITE sip:a@b SIP/2.0\r\nAuthorization: Digest response=SECRET");
        assert!(!unfinished.contains("SECRET"), "{unfinished}");
    }

    /// Whatever text is repeated, twice as much takes about twice as long.
    #[test]
    fn masking_looks_at_each_byte_a_few_times_only() {
        let takes = |text: &str| {
            let once = || {
                let start = Instant::now();
                let shown = Masked(text.as_bytes()).to_string();
                push_without_passwords(&mut String::new(), text);
                assert!(shown.len() <= MESSAGE_BYTES);
                start.elapsed()
            };
            (0..5).map(|_| once()).min().unwrap()
        };
        for part in ["sip:", "sips:", "sip: ", "sips: ", "sip", "sip:a:b@", "sip:a:b@\r\n", "\r\n"]
        {
            let (short, long) = (part.repeat(4_096 / part.len()), part.repeat(65_536 / part.len()));
            // Sixteen times as much; if each URI were searched to the end, it would take 256 times
            // as long.
            let (short, long) = (takes(&short), takes(&long));
            assert!(long < short * 80, "{part:?}: {short:?}, {long:?}");
        }
        let (mut shown, many) = (String::new(), "sip:".repeat(16_384));
        push_without_passwords(&mut shown, &many);
        assert_eq!(shown, many);
        push_without_passwords(&mut shown, "sips:a:b@h sipsip:c:d@h");
        assert_eq!(shown, many + "sips:a:?@h sipsip:c:?@h");
    }

    #[test]
    fn keys_that_were_pressed_are_not_kept() {
        for kind in ["Content-Type: application/dtmf-relay", "c:\r\n Application/DTMF"] {
            let text = format!("INFO sip:a@b SIP/2.0\r\nCall-ID: x\r\n{kind}\r\n\r\nSignal=5\r\n");
            assert!(masked(&text).ends_with("\r\n\r\n?"), "{}", masked(&text));
            assert!(masked(&text.replace("\r\n", "\n")).ends_with("\r\n\r\n?"));
        }
    }
}
