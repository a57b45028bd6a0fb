//! The torture messages of RFC 4475: each gets the verdict that the RFC asks for, and none of them,
//! whatever is changed in it, brings the parser down.

mod support;

use std::{fs, path::PathBuf};

use aftertone::proto::sip::{
    message::{Message, Request, Response, ResponseBuilder},
    validate::validate,
    wire::{WireError, parse_datagram},
};
use proptest::prelude::*;
use support::mutation::PIECES;

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It goes on to the transactions.
    Accepted,
    /// It is answered with this status.
    Refused(u16),
    /// It is not answered.
    Dropped,
}
use Verdict::{Accepted, Dropped, Refused};

/// Name, verdict. Whether a REGISTER is served is for the registrar.
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
    // Date is of no use to us, so its time zone is no reason to refuse a call.
    ("baddate", Accepted),
    ("regbadct", Refused(400)),
    ("badaspec", Refused(400)),
    ("baddn", Refused(400)),
    ("badvers", Refused(505)),
    ("mismatch01", Refused(400)),
    ("mismatch02", Refused(501)),
    ("bigcode", Dropped),
    // 3.2, transaction layer: the branch is the cookie alone, so it is taken for one of RFC 2543.
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
    // The second Via is for the endpoint to see.
    ("bcast", Accepted),
    // It has come to its end: only a proxy would refuse it.
    ("zeromf", Accepted),
    ("cparam01", Accepted),
    ("cparam02", Accepted),
    ("regescrt", Accepted),
    // What it accepts as answer is for the offer and answer to see.
    ("sdp01", Accepted),
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
        // What is copied is as malformed as it was.
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

/// The Request-URIs and header fields of RFC 5118, in an OPTIONS.
fn options_of_rfc_5118(uri: &str, via: &str, contact: &str) -> Vec<u8> {
    format!(
        "OPTIONS {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {via}\r\nMax-Forwards: 70\r\n\
         From: <sip:user@example.com>;tag=81x2\r\nTo: <sip:user@[2001:db8::10]>\r\n\
         Call-ID: SSG9559905523997077@hlau_4100\r\nCSeq: 98176 OPTIONS\r\n\
         Contact: <{contact}>\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

#[test]
fn addresses_of_ipv6_are_read_as_rfc_5118_asks_for() {
    let (uri, via) = ("sip:[2001:db8::10]", "[2001:db8::9:1];branch=z9hG4bKas3-111");
    let contact = "sip:user@[2001:db8::1]";
    for (section, uri, via, contact, wanted) in [
        ("4.1, an address as host", uri, via, contact, Accepted),
        ("4.2, without brackets", "sip:2001:db8::10", via, contact, Refused(400)),
        (
            "4.3, a port within the brackets is none",
            "sip:[2001:db8::10:5070]",
            via,
            contact,
            Accepted,
        ),
        ("4.4, a port behind them", "sip:[2001:db8::10]:5070", via, contact, Accepted),
        (
            "4.5, received without brackets",
            uri,
            "[2001:db8::9:1];received=2001:db8::9:255;branch=z9hG4bKas3",
            contact,
            Accepted,
        ),
        (
            "4.5, received with brackets",
            uri,
            "[2001:db8::9:1];received=[2001:db8::9:255];branch=z9hG4bKas3",
            contact,
            Accepted,
        ),
        ("4.9, an IPv4-mapped address", uri, via, "sip:user@[::ffff:192.0.2.10]:5060", Accepted),
        ("4.10, one colon too many", "sip:user@[2001:db8:::192.0.2.1]", via, contact, Refused(400)),
    ] {
        let bytes = options_of_rfc_5118(uri, via, contact);
        assert_eq!(verdict(&bytes), wanted, "{section}");
    }
    let Ok(Message::Request(request)) = parse_datagram(&options_of_rfc_5118(
        "sip:[2001:db8::10:5070]",
        via,
        "sip:user@[2001:db8::1]:5080",
    )) else {
        panic!("it is a request")
    };
    assert_eq!(request.uri().ip_addr(), "2001:db8::10:5070".parse().ok());
    assert_eq!(request.uri().port(), None);
    assert_eq!(request.contacts()[0].uri().port(), Some(5080));
}

#[test]
fn session_descriptions_of_rfc_5118_are_read() {
    use aftertone::proto::sdp::Description;
    // Sections 4.6 and 4.8: IPv6 alone, and one family for each stream.
    let text = "v=0\r\no=assistant 971731711378798081 0 IN IP6 2001:db8::20\r\ns=Live video feed\r\n\
                c=IN IP6 2001:db8::1\r\nt=3338481189 3370017201\r\nm=audio 6000 RTP/AVP 2\r\n\
                a=rtpmap:2 G726-32/8000\r\nm=video 6024 RTP/AVP 107\r\nc=IN IP4 192.0.2.1\r\n\
                a=rtpmap:107 H263-1998/90000\r\n";
    let description = Description::parse(text.as_bytes()).expect("it can be read");
    assert_eq!(description.media.len(), 2);
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
            // Each line of an answer but the last ones is a header field.
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

/// One change of a message.
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
            Err(refusal) => Refused(refusal.status),
        },
        Ok(Message::Response(_)) => Accepted,
        Err(WireError::Answerable { status, .. }) => Refused(status),
        Err(WireError::KeepAlive | WireError::Unreadable) => Dropped,
    }
}

/// The answer that a server without any calls would give.
fn answer(bytes: &[u8]) -> Option<Vec<u8>> {
    let answer = match parse_datagram(bytes) {
        Ok(Message::Request(mut request)) => {
            request.set_received("192.0.2.99".parse().unwrap(), 5099);
            let (status, reason, headers) = match validate(&request) {
                Ok(()) => (200, "OK", Vec::new()),
                Err(refusal) => (refusal.status, refusal.reason, refusal.extra_headers),
            };
            let builder = ResponseBuilder::to(&request, status, reason).to_tag("ours");
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
            ResponseBuilder::to_stub(&request, status, reason).to_tag("ours").build()
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
    match parse_datagram(&read(name)) {
        Ok(Message::Request(request)) => request,
        other => panic!("{name}: {other:?}"),
    }
}

fn read(name: &str) -> Vec<u8> {
    fs::read(folder().join(name).with_extension("dat")).unwrap()
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/torture")
}
