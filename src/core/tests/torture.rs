//! The torture messages of RFC 4475: each gets the verdict that the RFC asks for, and no change to
//! a message makes the parser panic.

// The tests read files, and take the current time as their start.
#![allow(clippy::disallowed_methods)]

#[path = "../../../tests/support/pieces.rs"]
mod pieces;

use std::{fs, path::PathBuf};

use aftertone_core::proto::sip::{
    Status,
    message::{Message, Request, Response, ResponseBuilder},
    validate::validate,
    wire::{WireError, parse_datagram},
};
use pieces::PIECES;
use proptest::prelude::*;

/// The verdict on a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is passed on to the transactions.
    Accepted,
    /// It is answered with this status.
    Refused(u16),
    /// It is not answered.
    Dropped,
}
use Verdict::{Accepted, Dropped, Refused};

/// Name and verdict. The registrar decides whether a REGISTER is served.
const VERDICTS: [(&str, Verdict); 49] = [
    // 3.1.1, valid messages.
    ("wsinv", Accepted),
    ("intmeth", Refused(501)),
    ("esc01", Accepted),
    ("escnull", Accepted),
    ("esc02", Refused(501)),
    ("lwsdisp", Accepted),
    ("longreq", Accepted),
    ("dblreq", Accepted),
    ("semiuri", Accepted),
    ("transports", Accepted),
    ("mpart01", Refused(405)),
    ("unreason", Accepted),
    ("noreason", Accepted),
    // 3.1.2, invalid messages.
    ("badinv01", Refused(400)),
    ("clerr", Refused(400)),
    ("ncl", Refused(400)),
    ("scalar02", Refused(400)),
    ("scalarlg", Dropped),
    ("quotbal", Refused(400)),
    ("ltgtruri", Refused(400)),
    ("lwsruri", Refused(400)),
    ("lwsstart", Refused(400)),
    ("trws", Refused(400)),
    ("escruri", Refused(400)),
    // We do not use Date, so its time zone is no reason to refuse a call.
    ("baddate", Accepted),
    ("regbadct", Refused(400)),
    ("badaspec", Refused(400)),
    ("baddn", Refused(400)),
    ("badvers", Refused(505)),
    ("mismatch01", Refused(400)),
    ("mismatch02", Refused(501)),
    ("bigcode", Dropped),
    // 3.2, transaction layer: the branch is the magic cookie alone, so the message counts as one of
    // RFC 2543.
    ("badbranch", Accepted),
    // 3.3, application layer.
    ("insuf", Refused(400)),
    ("unkscm", Refused(416)),
    ("novelsc", Refused(416)),
    ("unksm2", Accepted),
    ("bext01", Refused(420)),
    ("invut", Refused(415)),
    ("regaut01", Accepted),
    ("multi01", Refused(400)),
    ("mcl01", Refused(400)),
    // The endpoint checks the second Via.
    ("bcast", Accepted),
    // It has reached its destination: only a proxy would refuse it.
    ("zeromf", Accepted),
    ("cparam01", Accepted),
    ("cparam02", Accepted),
    ("regescrt", Accepted),
    ("sdp01", Refused(406)),
    // 3.4, backward compatibility.
    ("inv2543", Accepted),
];

#[test]
fn each_message_gets_the_verdict_of_the_rfc() {
    let wrong: Vec<_> = VERDICTS
        .into_iter()
        .map(|(name, wanted)| (name, wanted, verdict(&read(name))))
        .filter(|(_, wanted, got)| wanted != got)
        .collect();
    assert!(wrong.is_empty(), "name, wanted, got: {wrong:#?}");
}

#[test]
fn no_message_is_forgotten() {
    let mut names: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    let mut judged = VERDICTS.map(|(name, _)| name.to_owned()).to_vec();
    names.sort();
    judged.sort();
    assert_eq!(names, judged);
}

#[test]
fn each_answer_names_the_request() {
    for (name, _) in VERDICTS {
        let Some(answer) = answer(&read(name)) else { continue };
        // Fields that the answer copies are as malformed as in the request.
        if matches!(
            name,
            "insuf" | "badinv01" | "quotbal" | "scalar02" | "badaspec" | "baddn" | "badvers"
        ) {
            assert!(answer.starts_with(b"SIP/2.0 "), "{name}");
            assert!(answer.windows(5).any(|window| window == b"\nVia:"), "{name}");
            continue;
        }
        let response = response(&answer).unwrap_or_else(|| panic!("{name}"));
        let asked = String::from_utf8_lossy(&read(name)).into_owned();
        assert!(asked.contains(response.call_id()), "{name}");
        assert!(response.to().tag().is_some(), "{name}");
    }
}

#[test]
fn the_valid_invite_of_every_liberty_is_understood() {
    let request = request("wsinv");
    assert_eq!(request.from().display_name(), Some("J Rosenberg \\\""));
    assert_eq!(request.from().tag(), Some("98asjd8"));
    assert_eq!(request.to().tag(), Some("1918181833n"));
    assert_eq!((request.cseq().number, request.max_forwards()), (9, Some(68)));
    let branches: Vec<_> = request.vias().iter().map(|via| via.branch.as_deref()).collect();
    assert_eq!(branches, [Some("390skdjuw"), Some("z9hG4bK9ikj8"), Some("z9hG4bK30239")]);
    assert_eq!(request.contacts()[0].param("q"), Some("0.33"));
    assert_eq!(
        request.header("NewFangledHeader"),
        Some("newfangled value continued newfangled value")
    );
    assert_eq!(request.body().len(), 150);
}

#[test]
fn a_user_part_may_look_like_parameters() {
    assert_eq!(request("semiuri").uri().user().as_deref(), Some("user;par=u@example.net"));
    assert_eq!(request("esc01").uri().user().as_deref(), Some("sips:user@example.com"));
    assert_eq!(request("escnull").contacts()[1].uri().user().as_deref(), Some("\0\0"));
}

#[test]
fn what_follows_the_body_is_no_part_of_it() {
    let request = request("dblreq");
    assert_eq!(request.method().as_str(), "REGISTER");
    assert!(request.body().is_empty());
}

#[test]
fn addresses_of_ipv6_are_read_as_rfc_5118_asks_for() {
    for (name, wanted) in [
        ("ipv6-good", Accepted),
        ("ipv6-bad", Refused(400)),
        ("port-ambiguous", Accepted),
        ("port-unambiguous", Accepted),
        ("via-received-param-with-delim", Accepted),
        ("via-received-param-no-delim", Accepted),
        ("ipv6-in-sdp", Accepted),
        ("mult-ip-in-header", Accepted),
        ("mult-ip-in-sdp", Accepted),
        ("ipv4-mapped-ipv6", Accepted),
        ("ipv6-bug-abnf-3-colons", Refused(400)),
        ("ipv6-correct-abnf-2-colons", Accepted),
    ] {
        assert_eq!(verdict(&read_of_ipv6(name)), wanted, "{name}");
    }
    let uri = |name: &str| request_of(&read_of_ipv6(name)).uri().clone();
    let (ambiguous, unambiguous) = (uri("port-ambiguous"), uri("port-unambiguous"));
    assert_eq!(ambiguous.ip_addr(), "2001:db8::10:5070".parse().ok());
    assert_eq!(ambiguous.port(), None);
    assert_eq!(unambiguous.ip_addr(), "2001:db8::10".parse().ok());
    assert_eq!(unambiguous.port(), Some(5070));
    let embedded = uri("ipv6-correct-abnf-2-colons").ip_addr();
    assert_eq!(embedded, "2001:db8::192.0.2.1".parse().ok());
    let request = request_of(&read_of_ipv6("mult-ip-in-header"));
    let hosts: Vec<_> = request.vias().iter().map(|via| (via.host.as_str(), via.port)).collect();
    assert_eq!(
        hosts,
        [("[2001:db8::9:1]", Some(6050)), ("192.0.2.1", None), ("[2001:db8::9:255]", None)]
    );
    for name in ["via-received-param-with-delim", "via-received-param-no-delim"] {
        let request = request_of(&read_of_ipv6(name));
        let received = request.vias()[0].received.as_deref().unwrap();
        assert_eq!(received.trim_matches(['[', ']']), "2001:db8::9:255", "{name}");
    }
}

#[test]
fn session_descriptions_of_rfc_5118_are_read() {
    use aftertone_core::proto::sdp::{
        Codec, Description, LocalMedia, LocalSecurity, MediaSecret, SrtpPolicy, negotiate,
    };
    let local = LocalMedia {
        address: "2001:db8::99".parse().unwrap(),
        port: 40_000,
        codecs: vec![Codec::Pcmu],
        security: LocalSecurity::new(SrtpPolicy::Off, MediaSecret::new([0; 32])),
        session_id: 1,
        session_version: 1,
    };
    // Sections 4.6, 4.8 and 4.9: IPv6 for all, a family for each stream, and a mapped address.
    for (name, session, audio, video, remote) in [
        ("ipv6-in-sdp", Some("2001:db8::20"), None, None, "[2001:db8::20]:6000"),
        ("mult-ip-in-sdp", None, Some("192.0.2.1"), Some("2001:db8::1"), "192.0.2.1:22334"),
        ("ipv4-mapped-ipv6", Some("::ffff:192.0.2.2"), None, None, "[::ffff:192.0.2.2]:6000"),
    ] {
        let mut description =
            Description::parse(request_of(&read_of_ipv6(name)).body()).expect("it can be read");
        assert_eq!(description.connection.as_deref(), session, "{name}");
        let [first, second] = &mut description.media[..] else { panic!("{name}: two streams") };
        assert_eq!((first.kind.as_str(), second.kind.as_str()), ("audio", "video"));
        assert_eq!(first.connection.as_deref(), audio, "{name}");
        assert_eq!(second.connection.as_deref(), video, "{name}");
        // Two of them offer only G.726.
        first.formats = vec!["0".to_owned()];
        first.attributes.clear();
        let (answer, plan) = negotiate(&description, &local).expect("a codec in common");
        assert_eq!(plan.remote, remote.parse().ok(), "{name}");
        assert!(answer.to_string().contains("c=IN IP6 2001:db8::99\r\n"), "{answer}");
        assert_eq!(answer.media[1].port, 0, "{name}: no video");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn no_change_of_a_message_brings_the_parser_down(
        which in 0..VERDICTS.len(),
        edits in prop::collection::vec(edit(), 0..6),
    ) {
        let mut bytes = read(VERDICTS[which].0);
        for edit in edits {
            edit.apply(&mut bytes);
        }
        if let Some(answer) = answer(&bytes) {
            // Each line of the answer's head after the first one is a header field.
            let head = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
            let head = String::from_utf8_lossy(&answer[..head]).into_owned();
            prop_assert!(head.split("\r\n").skip(1).all(|line| line.contains(": ")), "{}", head);
            prop_assert!(!head.replace("\r\n", "").contains(['\r', '\n']), "{}", head);
        }
    }

    #[test]
    fn no_bytes_bring_the_parser_down(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        answer(&bytes);
    }
}

/// One change to a message.
#[derive(Debug, Clone)]
enum Edit {
    Set(prop::sample::Index, u8),
    Insert(prop::sample::Index, &'static str),
    Remove(prop::sample::Index),
    Cut(prop::sample::Index),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = any::<prop::sample::Index>;
    let delimiter = prop::sample::select(&PIECES[..]);
    prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, byte)| Edit::Set(at, byte)),
        4 => (at(), delimiter).prop_map(|(at, text)| Edit::Insert(at, text)),
        2 => at().prop_map(Edit::Remove),
        1 => at().prop_map(Edit::Cut),
    ]
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        match self {
            Self::Set(at, byte) => bytes[at.index(len)] = *byte,
            Self::Insert(at, text) => {
                let at = at.index(len);
                bytes.splice(at..at, text.bytes());
            }
            Self::Remove(at) => {
                bytes.remove(at.index(len));
            }
            Self::Cut(at) => bytes.truncate(at.index(len)),
        }
    }
}

fn verdict(bytes: &[u8]) -> Verdict {
    match parse_datagram(bytes) {
        Ok(Message::Request(request)) => match validate(&request) {
            Ok(()) => Accepted,
            Err(refusal) => Refused(refusal.status.code()),
        },
        Ok(Message::Response(_)) => Accepted,
        Err(WireError::Answerable { status, .. }) => Refused(status.code()),
        Err(WireError::KeepAlive | WireError::Unreadable) => Dropped,
    }
}

/// The answer of a server without any calls.
fn answer(bytes: &[u8]) -> Option<Vec<u8>> {
    let answer = match parse_datagram(bytes) {
        Ok(Message::Request(mut request)) => {
            request.set_received("192.0.2.99".parse().unwrap(), 5099);
            let (status, reason, headers) = match validate(&request) {
                Ok(()) => (Status::OK, "OK", Vec::new()),
                Err(refusal) => (refusal.status, refusal.reason, refusal.extra_headers),
            };
            let builder = ResponseBuilder::to(&request, status).reason(reason).to_tag("ours");
            let answer = headers
                .iter()
                .fold(builder, |builder, (name, value)| builder.header(name, value))
                .build();
            let read = response(&answer).expect("an answer to what was read can be read");
            assert_eq!(read.cseq(), request.cseq());
            assert_eq!(read.from(), request.from());
            assert_eq!(read.vias(), request.vias());
            answer
        }
        Err(WireError::Answerable { status, reason, mut request }) => {
            request.set_received("192.0.2.99".parse().unwrap(), 5099);
            ResponseBuilder::to_stub(&request, status).reason(reason).to_tag("ours").build()
        }
        Ok(Message::Response(_)) | Err(WireError::KeepAlive | WireError::Unreadable) => {
            return None;
        }
    };
    Some(answer)
}

fn response(bytes: &[u8]) -> Option<Response> {
    match parse_datagram(bytes) {
        Ok(Message::Response(response)) => Some(response),
        _ => None,
    }
}

fn request(name: &str) -> Request {
    request_of(&read(name))
}

fn request_of(bytes: &[u8]) -> Request {
    match parse_datagram(bytes) {
        Ok(Message::Request(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn read_of_ipv6(name: &str) -> Vec<u8> {
    fs::read(folder().join(format!("../torture_ipv6/{name}.dat"))).unwrap()
}

fn read(name: &str) -> Vec<u8> {
    fs::read(folder().join(name).with_extension("dat")).unwrap()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/torture")
}
