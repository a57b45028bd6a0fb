//! Offers of real phones, and the same offers written in other ways.

use std::{collections::BTreeSet, net::IpAddr};

use proptest::{prelude::*, sample::Index};

use super::{
    Codec, Description, Direction, LocalMedia, LocalSecurity, MediaSecret, NegotiationError,
    ParseError, Payload, SrtpPolicy, StreamPlan, accept_answer, accept_answer_again, make_offer,
    make_offer_again, negotiate, suspend,
};
use crate::proto::rtp::PayloadType;

/// A softphone on a desktop.
const LINPHONE: &str = "v=0
o=alice 3724 2217 IN IP4 192.0.2.1
s=Talk
c=IN IP4 192.0.2.1
t=0 0
a=rtcp-xr:rcvr-rtt=all:10000 stat-summary=loss,dup,jitt,TTL voip-metrics
a=record:off
m=audio 7078 RTP/AVP 96 97 98 0 8 18 101 99 100
a=rtpmap:96 opus/48000/2
a=fmtp:96 useinbandfec=1
a=rtpmap:97 speex/16000
a=fmtp:97 vbr=on
a=rtpmap:98 speex/8000
a=fmtp:98 vbr=on
a=fmtp:18 annexb=yes
a=rtpmap:101 telephone-event/48000
a=rtpmap:99 telephone-event/16000
a=rtpmap:100 telephone-event/8000
a=rtcp-fb:* trr-int 1000
";

/// A call manager.
const CISCO: &str = "v=0
o=CiscoSystemsCCM-SIP 29170 1 IN IP4 192.0.2.2
s=SIP Call
c=IN IP4 192.0.2.3
b=TIAS:64000
b=AS:64
t=0 0
m=audio 24582 RTP/AVP 0 8 116 18 101
a=rtpmap:0 PCMU/8000
a=ptime:20
a=rtpmap:8 PCMA/8000
a=rtpmap:116 iLBC/8000
a=fmtp:116 mode=20
a=rtpmap:18 G729/8000
a=fmtp:18 annexb=no
a=sendrecv
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-15
";

/// A session border controller in front of a cloud service.
const TEAMS: &str = "v=0
o=- 1413 0 IN IP4 192.0.2.4
s=session
c=IN IP4 192.0.2.4
b=CT:10000000
t=0 0
m=audio 52006 RTP/AVP 8 0 97 13 118 101
c=IN IP4 192.0.2.5
a=rtcp:52007
a=label:main-audio
a=ice-ufrag:uLd2
a=ice-pwd:zkq9kR4VNcPPjfJKkPpbIEVH
a=candidate:1 1 UDP 2130706431 192.0.2.5 52006 typ host
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:3NrT3yRQ9BMRrL9CNgRHN8IuuAhTGaMlOtJhmEpR|2^31
a=mid:1
a=rtpmap:8 PCMA/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:97 RED/8000
a=rtpmap:13 CN/8000
a=rtpmap:118 CN/16000
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-16
a=ptime:20
a=rtcp-mux
";

/// A carrier that puts the call on hold as in RFC 2543.
const CARRIER_ON_HOLD: &str = "v=0
o=BroadWorks 1094 2 IN IP4 192.0.2.6
s=-
c=IN IP4 0.0.0.0
t=0 0
m=audio 16388 RTP/AVP 8 101
a=rtpmap:101 telephone-event/8000
a=fmtp:101 0-11,16
a=inactive
";

/// A desk phone that puts the whole session on hold, and plays music in one line.
const PHONE_ON_HOLD: &str = "v=0
o=root 1 2 IN IP4 192.0.2.7
s=call
c=IN IP4 192.0.2.7
t=0 0
a=inactive
m=audio 62000 RTP/AVP 9 8 0 112 102
a=rtpmap:9 G722/8000
a=rtpmap:112 telephone-event/16000
a=rtpmap:102 telephone-event/8000
a=maxptime:40
a=ptime:30
a=sendonly
";

/// An old gateway.
const GATEWAY: &str = "v=0
o=- 1 1 IN IP4 192.0.2.8
s=-
t=0 0
m=audio 4000 RTP/AVP 0 127
c=IN IP4 192.0.2.8
a=rtpmap:127 telephone-event/8000
";

/// A conference system with all its media.
const CONFERENCE: &str = "v=0
o=tandberg 7 1 IN IP6 2001:db8::9
s=-
c=IN IP6 2001:db8::9
b=AS:1024
t=0 0
a=sendrecv
m=image 49172 udptl t38
a=T38FaxVersion:0
m=audio 49170 RTP/AVP 115 0 114
a=rtpmap:115 opus/48000/2
a=rtpmap:0 PCMU/8000
a=rtpmap:114 telephone-event/48000
a=fmtp:114 0-15
m=video 49176 RTP/AVP 97
b=TIAS:768000
a=rtpmap:97 H264/90000
a=sendonly
m=application 49178 UDP/BFCP *
a=floorctrl:c-s
m=audio 49180 RTP/SAVP 0
";

const PHONES: [&str; 7] =
    [LINPHONE, CISCO, TEAMS, CARRIER_ON_HOLD, PHONE_ON_HOLD, GATEWAY, CONFERENCE];

/// Lines that we ignore; none contains a line end.
const NOISE: &[&[u8]] = &[
    b"i=caf\xe9 \0",
    b"u=http://\xff\xfe",
    b"e=\0",
    b"b=",
    b"b=X-\xe9:1",
    b"k=prompt",
    b"r=7d 1h 0 25h",
    b"z=2882844526 -1h 2898848070 0",
    b"t=9 9",
    b"x-y=z",
    b"hello",
    b"\xe9\xe8",
    b"=",
    b"a=",
    b"a=:",
    b"a=x-name:\xc0\xaf\0",
    b"a=x-flag\0\xe9",
    b"a=ptime:soon",
    b"a=ptime:0",
    b"a=rtpmap:",
    b"a=rtpmap:101",
    b"a=rtpmap:0",
    b"a=rtpmap:999 telephone-event/8000",
    b"a=rtpmap:126 telephone-event/8000/1",
    b"a=fmtp:101",
    b"a=candidate:1 1 UDP 1 192.0.2.99 9 typ host",
    b"a=fingerprint:sha-256 00:11",
];

const BLANKS: [&[u8]; 10] = [
    b" ",
    b"\t",
    b"  ",
    b" \t ",
    b"\0",
    b"\x0b",
    b"\xa0",
    b"\xc2\xa0",
    b"\xe2\x80\x8b",
    b" \xe3\x80\x80",
];

/// A change of how an offer is written that does not change its meaning.
#[derive(Debug, Clone)]
enum Change {
    BlankAfter(Index, Index),
    BlankBefore(Index, Index),
    BlanksAroundType(Index, Index),
    BlanksWithin(Index, Index),
    BlanksAroundColon(Index, Index),
    EncodingCase(bool),
    AttributeCase(Index, bool),
    ProtocolCase,
    OneChannel,
    Noise(Index, Index),
    LongLine(Index),
    Duplicate(Index),
    SwapAttributes(Index, Index),
    Session(Index),
    NoFmtp,
    Fmtp(Index),
    NoTime,
    PortCount,
    TimeToLive,
    FractionOfPtime,
    ByteOrderMark,
    TypeCase(Index),
    Commas(Index),
    EncodingParameter,
    SessionMaps,
    OpusChannels(Index),
    ClockOfEvents(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<Index>;
    prop_oneof![
        (index(), index()).prop_map(|(at, blank)| Change::BlankAfter(at, blank)),
        (index(), index()).prop_map(|(at, blank)| Change::BlankBefore(at, blank)),
        (index(), index()).prop_map(|(at, blank)| Change::BlanksAroundType(at, blank)),
        (index(), index()).prop_map(|(at, blank)| Change::BlanksWithin(at, blank)),
        (index(), index()).prop_map(|(at, blank)| Change::BlanksAroundColon(at, blank)),
        any::<bool>().prop_map(Change::EncodingCase),
        (index(), any::<bool>()).prop_map(|(at, upper)| Change::AttributeCase(at, upper)),
        Just(Change::ProtocolCase),
        Just(Change::OneChannel),
        (index(), index()).prop_map(|(at, noise)| Change::Noise(at, noise)),
        index().prop_map(Change::LongLine),
        index().prop_map(Change::Duplicate),
        (index(), index()).prop_map(|(one, other)| Change::SwapAttributes(one, other)),
        index().prop_map(Change::Session),
        Just(Change::NoFmtp),
        index().prop_map(Change::Fmtp),
        Just(Change::NoTime),
        Just(Change::PortCount),
        Just(Change::TimeToLive),
        Just(Change::FractionOfPtime),
        Just(Change::ByteOrderMark),
        index().prop_map(Change::TypeCase),
        index().prop_map(Change::Commas),
        Just(Change::EncodingParameter),
        Just(Change::SessionMaps),
        index().prop_map(Change::OpusChannels),
        index().prop_map(Change::ClockOfEvents),
    ]
}

type Line = Vec<u8>;

impl Change {
    fn apply(&self, lines: &mut Vec<Line>) {
        let count = lines.len();
        let blank = |which: &Index| *which.get(&BLANKS);
        match self {
            Self::BlankAfter(at, which) => lines[at.index(count)].extend(blank(which)),
            Self::BlankBefore(at, which) => {
                let line = &mut lines[at.index(count)];
                let start = line.iter().position(|byte| *byte == b'=').map_or(0, |at| at + 1);
                line.splice(start..start, blank(which).iter().copied());
            }
            Self::BlanksAroundType(at, which) => {
                let line = &mut lines[at.index(count)];
                if let Some(end) = line.iter().position(|byte| *byte == b'=') {
                    line.splice(end..end, blank(which).iter().copied());
                }
                line.splice(0..0, blank(which).iter().copied());
            }
            Self::BlanksWithin(at, which) => {
                let line = &mut lines[at.index(count)];
                *line = replace(line, b" ", blank(which));
            }
            Self::BlanksAroundColon(at, which) => {
                let line = &mut lines[at.index(count)];
                if line.starts_with(b"a=")
                    && let Some(colon) = line.iter().position(|byte| *byte == b':')
                {
                    line.splice(colon..=colon, [blank(which), b":", blank(which)].concat());
                }
            }
            Self::EncodingCase(upper) => {
                for line in lines.iter_mut().filter(|line| line.starts_with(b"a=rtpmap:")) {
                    set_case(&mut line[9..], *upper);
                }
            }
            Self::AttributeCase(at, upper) => {
                let line = &mut lines[at.index(count)];
                if line.starts_with(b"a=") {
                    let end = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
                    set_case(&mut line[2..end], *upper);
                }
            }
            Self::ProtocolCase => {
                for line in lines.iter_mut().filter(|line| line.starts_with(b"m=audio")) {
                    *line = replace(line, b"RTP/AVP", b"rtp/avp");
                }
            }
            Self::OneChannel => {
                for line in lines.iter_mut().filter(|line| line.starts_with(b"a=rtpmap:")) {
                    let slashes = line.iter().filter(|byte| **byte == b'/').count();
                    if slashes == 1 {
                        line.extend(b"/1");
                    }
                }
            }
            Self::Noise(at, which) => {
                lines.insert(1 + at.index(count), which.get(NOISE).to_vec());
            }
            Self::LongLine(at) => {
                lines.insert(1 + at.index(count), format!("a=x:{}", "y".repeat(2_000)).into());
            }
            Self::Duplicate(at) => {
                let at = at.index(count);
                if lines[at].starts_with(b"a=") {
                    lines.insert(at, lines[at].clone());
                }
            }
            Self::SwapAttributes(one, other) => {
                let (one, other) = (one.index(count), other.index(count));
                let (one, other) = (one.min(other), one.max(other));
                let is_one_block = lines[one..=other].iter().all(|line| line.starts_with(b"a="));
                if is_one_block {
                    lines.swap(one, other);
                }
            }
            Self::Session(which) => {
                let written: [&[u8]; 5] = [
                    b"s=",
                    b"s= ",
                    b"s=Gespr\xe4ch\0",
                    b"o=",
                    b"o=John Doe \xe9 1 1 IN IP4 192.0.2.1",
                ];
                let written = *which.get(&written);
                if let Some(line) = lines.iter_mut().find(|line| line.starts_with(&written[..2])) {
                    *line = written.to_vec();
                }
            }
            Self::NoFmtp => lines.retain(|line| !line.starts_with(b"a=fmtp:")),
            Self::Fmtp(which) => {
                let values = ["0-15", "0-16", "0-11,16", "0 - 15", "events=0-15", "0-15, 16"];
                for line in lines.iter_mut().filter(|line| line.starts_with(b"a=fmtp:1")) {
                    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
                    line.truncate(end);
                    line.extend(format!(" {}", which.get(&values)).bytes());
                }
            }
            Self::NoTime => lines.retain(|line| !line.starts_with(b"t=")),
            Self::PortCount => {
                for line in lines.iter_mut().filter(|line| line.starts_with(b"m=audio")) {
                    *line = replace(line, b" RTP/", b"/1 RTP/");
                }
            }
            Self::TimeToLive => {
                for line in lines.iter_mut().filter(|line| line.starts_with(b"c=IN IP4")) {
                    line.extend(b"/127");
                }
            }
            Self::FractionOfPtime => {
                for line in lines.iter_mut().filter(|line| line.starts_with(b"a=ptime:")) {
                    if line.iter().skip(8).all(u8::is_ascii_digit) {
                        line.extend(b".0");
                    }
                }
            }
            Self::ByteOrderMark => {
                lines[0].splice(0..0, *b"\xef\xbb\xbf");
            }
            Self::TypeCase(at) => {
                let line = &mut lines[at.index(count)];
                if line.get(1) == Some(&b'=') {
                    line[0].make_ascii_uppercase();
                }
            }
            Self::Commas(which) => {
                let comma: [&[u8]; 4] = [b", ", b",", b" ,", b"; "];
                for line in lines.iter_mut().filter(|line| line.starts_with(b"m=audio")) {
                    let transport = line.windows(4).position(|text| text == b"AVP ");
                    if let Some(at) = transport {
                        let formats = line.split_off(at + 4);
                        line.extend(replace(&formats, b" ", which.get::<&[u8]>(&comma)));
                    }
                }
            }
            Self::EncodingParameter => {
                for line in lines.iter_mut().filter(|line| is_map(line)) {
                    line.extend(b";x=y");
                }
            }
            Self::SessionMaps => {
                // Another change may have put blanks around the type, or changed its case.
                let is_media = |line: &Line| {
                    let letters = line.iter().take_while(|byte| **byte != b'=');
                    letters
                        .filter(|byte| byte.is_ascii_alphabetic())
                        .map(u8::to_ascii_lowercase)
                        .eq(*b"m")
                };
                let first = lines.iter().position(is_media).unwrap_or(count);
                let media = lines.split_off(first);
                let (maps, media): (Vec<Line>, Vec<Line>) = media.into_iter().partition(is_map);
                lines.extend(maps);
                lines.extend(media);
            }
            Self::OpusChannels(which) => {
                let written: [&[u8]; 3] = [b"opus/48000", b"opus/48000/1", b"opus/48000/0"];
                for line in lines.iter_mut().filter(|line| line.ends_with(b"opus/48000/2")) {
                    *line = replace(line, b"opus/48000/2", which.get::<&[u8]>(&written));
                }
            }
            Self::ClockOfEvents(which) => {
                let written: [&[u8]; 5] = [b"/0", b"", b"/", b"/8", b"/99999999999"];
                let usual = b"telephone-event/8000";
                for line in lines.iter_mut().filter(|line| is_map(line) && line.ends_with(usual)) {
                    line.truncate(line.len() - b"/8000".len());
                    line.extend(*which.get(&written));
                }
            }
        }
    }
}

/// Whether the line is an unchanged `rtpmap` with an encoding.
fn is_map(line: &Line) -> bool {
    line.starts_with(b"a=rtpmap:") && line.contains(&b'/')
}

/// Moves the address of the session to each medium that has none of its own.
fn move_connection(lines: &mut Vec<Line>) {
    let is_of = |line: &Line, letter: &[u8]| line.starts_with(letter);
    let Some(at) = lines.iter().position(|line| is_of(line, b"c=")) else { return };
    let media = |lines: &[Line]| lines.iter().position(|line| is_of(line, b"m="));
    if media(lines).is_some_and(|first| first < at) {
        return;
    }
    let connection = lines.remove(at);
    for at in (0..lines.len()).rev().filter(|at| *at > 0) {
        let rest = &lines[at + 1..];
        let own = &rest[..media(rest).unwrap_or(rest.len())];
        if is_of(&lines[at], b"m=") && !own.iter().any(|line| is_of(line, b"c=")) {
            lines.insert(at + 1, connection.clone());
        }
    }
}

fn replace(line: &[u8], from: &[u8], to: &[u8]) -> Line {
    let mut replaced = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        replaced.extend(&rest[..at]);
        replaced.extend(to);
        rest = &rest[at + from.len()..];
    }
    replaced.extend(rest);
    replaced
}

fn set_case(bytes: &mut [u8], upper: bool) {
    if upper { bytes.make_ascii_uppercase() } else { bytes.make_ascii_lowercase() }
}

fn local() -> LocalMedia {
    LocalMedia {
        address: "198.51.100.7".parse().unwrap(),
        port: 20_000,
        codecs: vec![Codec::Opus, Codec::Pcma, Codec::Pcmu],
        security: LocalSecurity::new(SrtpPolicy::Off, MediaSecret::new([0; 32])),
        session_id: 1,
        session_version: 1,
    }
}

fn answer(offer: &[u8]) -> Result<(String, StreamPlan), NegotiationError> {
    let offer = Description::parse(offer).expect("it can be read");
    let (answer, plan) = negotiate(&offer, &local())?;
    Ok((answer.to_string(), plan))
}

fn number(number: u8) -> PayloadType {
    PayloadType::new(number).unwrap()
}

fn offer_of(lines: &str) -> String {
    format!("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n{lines}")
}

/// Checks the grammar of RFC 8866 section 9, as far as we use it.
fn assert_strict(text: &str) {
    assert!(text.is_ascii() && text.ends_with("\r\n"), "{text:?}");
    let lines: Vec<&str> = text.strip_suffix("\r\n").unwrap().split("\r\n").collect();
    let mut order = String::new();
    let mut maps = BTreeSet::new();
    for line in &lines {
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
        assert!(!line.contains("  ") && !line.ends_with(' '), "{line:?}");
        let (letter, value) = line.split_once('=').unwrap();
        order.push_str(letter);
        let words: Vec<&str> = value.split(' ').collect();
        let is_number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        let is_token = |word: &str| {
            let is_char = |c: char| c.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]".contains(c);
            !word.is_empty() && word.chars().all(is_char)
        };
        match (letter, &words[..]) {
            ("v", ["0"]) | ("s", ["-"]) | ("t", ["0", "0"]) => {}
            ("o", [_, id, version, "IN", "IP4", ip]) => {
                assert!(is_number(id) && is_number(version) && ip.parse::<IpAddr>().is_ok());
            }
            ("c", ["IN", "IP4", ip]) => assert!(ip.parse::<IpAddr>().is_ok(), "{line}"),
            ("m", [kind, port, protocol, formats @ ..]) => {
                assert!(is_token(kind) && is_number(port) && !formats.is_empty(), "{line}");
                assert!(protocol.split('/').all(is_token), "{line}");
                assert!(formats.iter().all(|format| is_token(format)), "{line}");
                let each_once: BTreeSet<_> = formats.iter().collect();
                assert_eq!(each_once.len(), formats.len(), "{line}");
                maps.clear();
            }
            ("a", _) => {
                let (name, value) = value.split_once(':').unwrap_or((value, "x"));
                assert!(is_token(name) && !value.is_empty(), "{line}");
                if let Some((number, encoding)) = value.split_once(' ').filter(|_| name == "rtpmap")
                {
                    assert!(maps.insert(number.to_owned()), "{line}: two meanings in {text}");
                    let clock = encoding.split('/').nth(1).and_then(|clock| clock.parse().ok());
                    assert!(clock.is_some_and(|clock: u32| clock > 0), "{line}");
                }
            }
            _ => panic!("{line}"),
        }
    }
    assert!(order.starts_with("vosctm"), "{order}");
    assert!(!order[6..].contains(|c| !matches!(c, 'a' | 'm')), "{order}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn however_a_description_is_written_it_is_answered_the_same(
        phone in any::<Index>(),
        is_connection_moved in any::<bool>(),
        changes in prop::collection::vec(change(), 0..12),
        ends in prop::collection::vec(prop::sample::select(&["\r\n", "\n", "\r", "\r\r\n"][..]), 1..5),
        last in prop::sample::select(&["", "\r\n", "\n\n\n", "\r\n \r\n\t\r\n", "\n\0"][..]),
    ) {
        let phone = *phone.get(&PHONES);
        let mut lines: Vec<Line> = phone.lines().map(|line| line.as_bytes().to_vec()).collect();
        if is_connection_moved {
            move_connection(&mut lines);
        }
        for change in &changes {
            change.apply(&mut lines);
        }
        let mut text = lines[0].clone();
        for (line, end) in lines[1..].iter().zip(ends.iter().cycle()) {
            text.extend(end.bytes());
            text.extend(line);
        }
        text.extend(last.bytes());
        let written = String::from_utf8_lossy(&text).into_owned();
        let (said, plan) = answer(&text).unwrap();
        assert_strict(&said);
        prop_assert_eq!((said, plan), answer(phone.as_bytes()).unwrap(), "{}", written);
        // The same for an answer to our offer.
        let taken = |text: &[u8]| {
            accept_answer(&make_offer(&local()), &Description::parse(text).unwrap())
        };
        prop_assert_eq!(taken(&text), taken(phone.as_bytes()), "{}", written);
    }

    #[test]
    fn whatever_was_damaged_is_answered_strictly_or_refused_in_words(
        phone in any::<Index>(),
        edits in prop::collection::vec((any::<Index>(), any::<u8>(), 0..4_u8), 0..8),
    ) {
        let mut text = phone.get(&PHONES).as_bytes().to_vec();
        for (at, byte, kind) in edits {
            let at = at.index(text.len().max(1));
            match kind {
                _ if text.is_empty() => {}
                0 => text[at] = byte,
                1 => text.insert(at, byte),
                2 => { text.remove(at); }
                _ => text.truncate(at.max(1)),
            }
        }
        let Ok(offer) = Description::parse(&text) else { return Ok(()) };
        match negotiate(&offer, &local()) {
            Ok((answer, plan)) => {
                assert_strict(&answer.to_string());
                prop_assert_eq!(answer.media.len(), offer.media.len());
                assert_strict(&make_offer_again(&local(), &answer, &plan.named).to_string());
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    /// RFC 3264 section 8.3.2, for any numbers and `rtpmap` lines of the peer.
    #[test]
    fn no_description_of_ours_gives_a_payload_type_two_meanings(
        numbers in prop::collection::vec(prop::sample::select(&[0_u8, 3, 8, 9, 96, 97, 101, 102][..]), 1..7),
        maps in prop::collection::vec(
            (
                prop::sample::select(&[0_u8, 8, 9, 96, 97, 101, 102][..]),
                prop::sample::select(
                    &["PCMU/8000", "PCMA/8000", "opus/48000/2", "telephone-event/8000", "iLBC/8000"][..],
                ),
            ),
            0..7,
        ),
        codecs in prop::sample::subsequence(vec![Codec::Opus, Codec::Pcma, Codec::Pcmu, Codec::Pcmu], 1..=4),
        is_all_dynamic_taken in any::<bool>(),
    ) {
        let mut formats: Vec<String> = numbers.iter().map(u8::to_string).collect();
        if is_all_dynamic_taken {
            formats.extend((96..=127).map(|number| number.to_string()));
        }
        let mut lines = format!("m=audio 9 RTP/AVP {}\r\n", formats.join(" "));
        for (number, encoding) in &maps {
            lines.push_str(&format!("a=rtpmap:{number} {encoding}\r\n"));
        }
        let offer = Description::parse(offer_of(&lines).as_bytes()).unwrap();
        let local = LocalMedia { codecs, ..local() };
        assert_strict(&make_offer(&local).to_string());
        let Ok((answer, plan)) = negotiate(&offer, &local) else { return Ok(()) };
        let again = make_offer_again(&local, &answer, &plan.named);
        for ours in [&answer, &again] {
            assert_strict(&ours.to_string());
            // The meanings are those of the peer's offer.
            let Ok((_, ours)) = negotiate(ours, &local) else { continue };
            for (number, meaning) in ours.named {
                let theirs = plan.named.iter().find(|(theirs, _)| *theirs == number);
                prop_assert!(theirs.is_none_or(|(_, theirs)| *theirs == meaning), "{}", lines);
            }
        }
        // What the peer answers with our own numbers is heard under them.
        let (theirs, _) = negotiate(&again, &local).unwrap();
        let agreed = accept_answer(&again, &theirs).unwrap();
        prop_assert_eq!(agreed.telephone_event.is_some(), agreed.heard.iter().any(
            |(number, payload)| Some(*number) == agreed.telephone_event && *payload == Payload::Event
        ));
        assert_strict(&make_offer_again(&local, &again, &agreed.named).to_string());
    }
}

/// Our second offer in a session that began with this offer of the peer's.
fn later_offer(lines: &str) -> String {
    let offer = Description::parse(offer_of(lines).as_bytes()).unwrap();
    let (answer, plan) = negotiate(&offer, &local()).unwrap();
    let text = make_offer_again(&local(), &answer, &plan.named).to_string();
    assert_strict(&text);
    text
}

#[test]
fn a_later_offer_uses_each_number_once_and_as_the_peer_does() {
    for (lines, formats) in [
        ("101 0\r\na=rtpmap:101 opus/48000/2", "101 8 0 96"),
        ("0 101\r\na=rtpmap:101 opus/48000/2", "0 8 96"),
        ("0 101 96\r\na=rtpmap:101 opus/48000/2\r\na=rtpmap:96 iLBC/8000", "0 8 97"),
        ("8\r\na=rtpmap:8 PCMU/8000", "8 101"),
        ("8 0\r\na=rtpmap:0 telephone-event/8000", "8 0"),
        ("0 8\r\na=rtpmap:8 iLBC/8000", "0 101"),
        ("0 8 102\r\na=rtpmap:102 telephone-event/8000", "0 8 102"),
    ] {
        let text = later_offer(&format!("m=audio 9 RTP/AVP {lines}\r\n"));
        let wanted = format!("m=audio 20000 RTP/AVP {formats}\r\n");
        assert!(text.contains(&wanted), "{lines}: {text}");
    }
    // No number is free for events.
    let all: Vec<_> = (96..=127).map(|number| number.to_string()).collect();
    let text = later_offer(&format!("m=audio 9 RTP/AVP 0 {}\r\n", all.join(" ")));
    assert!(text.contains("m=audio 20000 RTP/AVP 0 8\r\n"), "{text}");
}

#[test]
fn events_under_the_number_that_we_chose_are_heard() {
    let lines = "m=audio 9 RTP/AVP 101 0\r\na=rtpmap:101 opus/48000/2\r\n";
    let offer = Description::parse(offer_of(lines).as_bytes()).unwrap();
    let (answer, plan) = negotiate(&offer, &local()).unwrap();
    let ours = make_offer_again(&local(), &answer, &plan.named);
    let theirs = "m=audio 9 RTP/AVP 101 96\r\na=rtpmap:101 opus/48000/2\r\n\
                  a=rtpmap:96 telephone-event/8000\r\n";
    let theirs = Description::parse(offer_of(theirs).as_bytes()).unwrap();
    let agreed = accept_answer(&ours, &theirs).unwrap();
    assert_eq!(agreed.telephone_event, Some(number(96)));
    assert!(agreed.heard.contains(&(number(96), Payload::Event)), "{agreed:?}");
    assert!(agreed.heard.contains(&(number(101), Payload::Sound(Codec::Opus))), "{agreed:?}");
    let third = make_offer_again(&local(), &ours, &agreed.named).to_string();
    assert!(third.contains("m=audio 20000 RTP/AVP 101 8 0 96\r\n"), "{third}");
}

#[test]
fn an_answer_may_have_refused_lines_beyond_our_offer() {
    let ours = make_offer(&local());
    let taken = |lines: &str| {
        let answer = Description::parse(offer_of(lines).as_bytes()).unwrap();
        accept_answer(&ours, &answer).map(|plan| plan.remote.map(|remote| remote.port()))
    };
    let audio = "m=audio 4000 RTP/AVP 0\r\n";
    for lines in [
        "m=audio 4000 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n".to_owned(),
        format!("m=video 0 RTP/AVP 96\r\n{audio}"),
        format!("m=image 0 udptl t38\r\n{audio}m=video 0 RTP/AVP 96\r\nm=text 0 RTP/AVP 98\r\n"),
        format!("m=audio 0 RTP/SAVP 0\r\n{audio}"),
        format!("{audio}m=audio 0 RTP/SAVP 0\r\n"),
    ] {
        assert_eq!(taken(&lines), Ok(Some(4000)), "{lines}");
    }
    let bad = Err(NegotiationError::BadAnswer);
    assert_eq!(taken(&format!("{audio}m=video 5000 RTP/AVP 96\r\n")), bad, "never offered");
    assert_eq!(taken(""), bad);
    let refused = Err(NegotiationError::NoAudio);
    assert_eq!(taken("m=audio 0 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n"), refused);
}

#[test]
fn an_answer_that_refuses_the_audio_of_a_session_suspends_it() {
    let read = |lines: &str| Description::parse(offer_of(lines).as_bytes()).unwrap();
    let lines = "m=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n";
    let (answer, plan) = negotiate(&read(lines), &local()).unwrap();
    let ours = make_offer_again(&local(), &answer, &plan.named);
    for lines in ["m=audio 0 RTP/AVP 0 101\r\n", "m=audio 0 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n"]
    {
        let held = accept_answer_again(&ours, &read(lines), &plan).unwrap();
        assert_eq!((held.direction, held.remote), (Direction::Inactive, None), "{lines}");
        assert_eq!((held.codec, &held.heard), (plan.codec, &plan.heard), "{lines}");
    }
    let other = accept_answer_again(&ours, &read("m=video 0 RTP/AVP 96\r\n"), &plan);
    assert_eq!(other, Err(NegotiationError::NoAudio));
    let again = accept_answer_again(&ours, &read(lines), &plan).unwrap();
    assert_eq!(again.direction, Direction::SendRecv);
}

#[test]
fn the_address_of_a_line_that_is_not_used_is_not_judged() {
    for lines in [
        "m=audio 0 RTP/SAVP 0\r\nc=IN\r\nm=audio 4000 RTP/AVP 0\r\n",
        "m=audio 5000 RTP/SAVP 0\r\nc=IN IP4\r\nm=audio 4000 RTP/AVP 0\r\n",
        "m=audio 4000 RTP/AVP 0\r\nm=audio 4002 RTP/AVP 0\r\nc=\r\n",
        "m=audio 5000 RTP/AVP 0\r\nc=IN\r\nm=audio 4000 RTP/AVP 0\r\n",
    ] {
        let (text, plan) = answer(offer_of(lines).as_bytes()).unwrap();
        assert_eq!(plan.remote, Some("192.0.2.1:4000".parse().unwrap()), "{lines}");
        assert_strict(&text);
    }
}

#[test]
fn names_of_hosts_stand_for_the_host_of_the_peers_sip() {
    for (address, port) in [
        ("c=IN IP4 phone.example\r\n", Some(4000)),
        ("c=IN IP6 localhost\r\n", Some(4000)),
        ("c=IN IP4 192.0.2\r\n", Some(4000)),
        ("c=IN IP4 hold.invalid\r\n", None),
        ("c=IN IP4 0.0.0.0\r\n", None),
        ("c=IN IP4 224.2.1.1/127\r\n", None),
        ("", None),
    ] {
        let lines = format!("m=audio 4000 RTP/AVP 0\r\n{address}");
        let (_, plan) = answer(offer_of(&lines).as_bytes()).unwrap();
        assert_eq!(plan.port_at_sip_host, port, "{address}");
        assert_eq!(plan.remote.is_some(), address.is_empty(), "{address}");
    }
    let (_, plan) = answer(b"v=0\r\nm=audio 4000 RTP/AVP 0\r\n").unwrap();
    assert_eq!(plan.port_at_sip_host, Some(4000), "no c= at all");
}

#[test]
fn what_phones_offer_is_answered_by_the_first_codec_with_its_events() {
    let said = |phone: &str| {
        let (text, plan) = answer(phone.as_bytes()).unwrap();
        assert_strict(&text);
        let event = plan.telephone_event.map(PayloadType::number);
        (plan.codec, plan.payload_type.number(), event, plan.direction)
    };
    let both = Direction::SendRecv;
    assert_eq!(said(LINPHONE), (Codec::Opus, 96, Some(101), both));
    assert_eq!(said(CISCO), (Codec::Pcmu, 0, Some(101), both));
    assert_eq!(said(TEAMS), (Codec::Pcma, 8, Some(101), both));
    assert_eq!(said(CARRIER_ON_HOLD), (Codec::Pcma, 8, Some(101), Direction::Inactive));
    assert_eq!(said(PHONE_ON_HOLD), (Codec::Pcma, 8, Some(102), Direction::RecvOnly));
    assert_eq!(said(GATEWAY), (Codec::Pcmu, 0, Some(127), both));
    assert_eq!(said(CONFERENCE), (Codec::Opus, 115, Some(114), both));
    let (text, plan) = answer(CONFERENCE.as_bytes()).unwrap();
    assert_eq!(plan.remote, Some("[2001:db8::9]:49170".parse().unwrap()));
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(
        lines,
        [
            "m=image 0 udptl t38",
            "m=audio 20000 RTP/AVP 115 114",
            "m=video 0 RTP/AVP 97",
            "m=application 0 UDP/BFCP *",
            "m=audio 0 RTP/SAVP 0"
        ]
    );
    let (text, plan) = answer(TEAMS.as_bytes()).unwrap();
    assert!(plan.rtcp_mux && plan.remote_rtcp == plan.remote, "{plan:?}");
    assert!(text.contains("a=rtcp-mux\r\n"), "{text}");
}

#[test]
fn telephone_events_are_agreed_in_whatever_way_they_are_named() {
    for number in 96..=127 {
        for encoding in [
            "telephone-event/8000",
            "telephone-event/8000/1",
            "TELEPHONE-EVENT/8000",
            "Telephone-Event/8000/2",
            "telephone-event",
            "telephone-event/",
            "telephone-event / 8000 / 1",
            "telephone-event/08000",
            "telephone-event/0",
            "telephone-event/0/1",
            "telephone-event/-8000",
            "telephone-event/4294967296",
            "telephone-event/8000;x=y",
            "telephone-event;x=y",
            "telephone-event/8000, 1",
            "\u{a0}telephone-event/8000\u{a0}",
            "\ttelephone-event/8000\t",
        ] {
            for fmtp in ["", "0-15", "0-16", "0-11,16", "0 - 15", "events=0-15", "-1,\0"] {
                let fmtp = match fmtp {
                    "" => String::new(),
                    fmtp => format!("a=fmtp:{number} {fmtp}\r\n"),
                };
                for lines in [
                    format!("{fmtp}a=rtpmap:{number} {encoding}\r\n"),
                    format!("a=rtpmap:{number} {encoding}\r\n{fmtp}"),
                ] {
                    let lines = format!("m=audio 4000 RTP/AVP 0 {number}\r\n{lines}");
                    let (text, plan) = answer(offer_of(&lines).as_bytes()).unwrap();
                    assert_eq!(plan.telephone_event, PayloadType::new(number), "{lines}");
                    let ours = format!(
                        "m=audio 20000 RTP/AVP 0 {number}\r\na=rtpmap:0 PCMU/8000\r\n\
                         a=rtpmap:{number} telephone-event/8000\r\na=fmtp:{number} 0-15\r\n"
                    );
                    assert!(text.contains(&ours), "{lines}: {text}");
                }
            }
        }
    }
}

#[test]
fn events_are_agreed_by_the_clock_that_fits_best() {
    for (offered, agreed) in [
        ("96 opus/48000/2|101 telephone-event/8000|102 telephone-event/48000/1", Some(102)),
        ("96 opus/48000/2|102 telephone-event/16000|101 telephone-event/8000", Some(101)),
        ("96 opus/48000/2|102 telephone-event/16000", Some(102)),
        ("0 PCMU/8000|102 telephone-event/16000|101 telephone-event/8000", Some(101)),
        ("0 PCMU/8000|102 telephone-event/48000", Some(102)),
        ("0 PCMU/8000|102 telephone-events/8000", None),
        ("0 PCMU/8000|102 telephone-event/fast", Some(102)),
        ("0 PCMU/8000|102 telephone-event/16000|101 telephone-event/0", Some(101)),
    ] {
        let numbers: Vec<_> =
            offered.split('|').map(|map| map.split(' ').next().unwrap()).collect();
        let mut lines = format!("m=audio 4000 RTP/AVP {}\r\n", numbers.join(" "));
        for map in offered.split('|') {
            lines.push_str(&format!("a=rtpmap:{map}\r\n"));
        }
        let (text, plan) = answer(offer_of(&lines).as_bytes()).unwrap();
        assert_eq!(plan.telephone_event.map(PayloadType::number), agreed, "{offered}");
        assert_strict(&text);
    }
}

#[test]
fn codecs_are_found_by_name_clock_and_channels() {
    for (map, is_known) in [
        ("pcmu/8000", true),
        ("PCMU/8000/1", true),
        ("PCMU", true),
        (" PCMU / 8000 ", true),
        ("PCMU/8000/2", false),
        ("PCMU/16000", false),
        ("PCMU/x", true),
        ("PCMU/0", true),
        ("PCMU/8000/0", true),
        ("PCMU/8000;x=y", true),
        ("opus/48000/2", true),
        ("OPUS/48000/2", true),
        ("opus/48000", true),
        ("opus/48000/1", true),
        ("opus", true),
        ("opus/48000/3", false),
        ("opus/16000/2", false),
    ] {
        let lines = format!("m=audio 4000 RTP/AVP 96\r\na=rtpmap:96 {map}\r\n");
        let answer = answer(offer_of(&lines).as_bytes());
        assert_eq!(answer.is_ok(), is_known, "{map}");
        if let Ok((text, _)) = answer {
            let is_named = |encoding: &str| text.contains(&format!("a=rtpmap:96 {encoding}\r\n"));
            assert!(is_named("PCMU/8000") || is_named("opus/48000/2"), "{map}: {text}");
            assert_strict(&text);
        }
    }
}

#[test]
fn maps_of_the_session_count_where_the_medium_has_none() {
    let text = |session: &str, medium: &str| {
        let head = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n";
        format!("{head}{session}m=audio 4000 RTP/AVP 96 101\r\n{medium}")
    };
    let events = "a=rtpmap:101 telephone-event/8000\r\n";
    for (session, medium, payload) in [
        (format!("a=rtpmap:96 PCMA/8000\r\n{events}"), "", Codec::Pcma),
        (format!("a=rtpmap:96 PCMA/8000\r\n{events}"), "a=rtpmap:96 PCMU/8000\r\n", Codec::Pcmu),
        (events.to_owned(), "a=rtpmap:96 opus/48000/2\r\n", Codec::Opus),
    ] {
        let (said, plan) = answer(text(&session, medium).as_bytes()).unwrap();
        assert_eq!((plan.codec, plan.payload_type.number()), (payload, 96), "{said}");
        assert_eq!(plan.telephone_event, Some(PayloadType::TELEPHONE_EVENT), "{said}");
        assert!(said.contains(events), "{said}");
        assert_strict(&said);
    }
    // The same for an answer.
    let theirs = text("a=rtpmap:96 opus/48000/2\r\na=rtpmap:101 telephone-event/8000\r\n", "");
    let theirs = Description::parse(theirs.as_bytes()).unwrap();
    let plan = accept_answer(&make_offer(&local()), &theirs).unwrap();
    assert_eq!(
        (plan.codec, plan.telephone_event),
        (Codec::Opus, Some(PayloadType::TELEPHONE_EVENT))
    );
    assert!(plan.heard.contains(&(number(96), Payload::Sound(Codec::Opus))), "{plan:?}");
}

#[test]
fn hold_is_seen_in_all_its_forms() {
    let inactive = Direction::Inactive;
    for (lines, direction) in [
        ("m=audio 4000 RTP/AVP 0\r\na=sendonly \r\n", Direction::RecvOnly),
        ("m=audio 4000 RTP/AVP 0\r\na=sendonly\t\r\n", Direction::RecvOnly),
        ("m=audio 4000 RTP/AVP 0\r\na= inactive\0\r\n", inactive),
        ("m=audio 4000 RTP/AVP 0\r\na=SendOnly\n", Direction::RecvOnly),
        ("a=sendonly\t \r\nm=audio 4000 RTP/AVP 0\r\n", Direction::RecvOnly),
        ("a=inactive \r\nm=audio 4000 RTP/AVP 0\r\na=sendrecv \r\n", Direction::SendRecv),
        ("a=sendrecv\r\nm=audio 4000 RTP/AVP 0\r\na=inactive \r\n", inactive),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0 \r\n", inactive),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN\tIP4  0.0.0.0/127\r\n", inactive),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN IP6 ::\r\n", inactive),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN IP6 ::ffff:0.0.0.0\r\n", inactive),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN IP6 hold.invalid\r\n", inactive),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\na=sendrecv\r\n", inactive),
        ("m=audio\t4000\tRTP/AVP\t0\r\na=recvonly \r\n", Direction::SendOnly),
        ("m=audio 4000 RTP/AVP 0\r\na=sendonly\u{a0}\r\n", Direction::RecvOnly),
        ("m=audio 4000 RTP/AVP 0\r\nA=inactive\u{feff}\r\n", inactive),
        ("m=audio 4000 RTP/AVP 0\r\nC=IN IP4 0.0.0.0\u{a0}\r\n", inactive),
        (
            "m=audio 4000 RTP/AVP 0\r\nm=video 4002 RTP/AVP 96\r\na=inactive\r\n",
            Direction::SendRecv,
        ),
    ] {
        let (text, plan) = answer(offer_of(lines).as_bytes()).unwrap();
        assert_eq!(plan.direction, direction, "{lines:?}");
        let named = format!("a={}\r\n", format!("{direction:?}").to_lowercase());
        assert!(text.contains(&named), "{lines:?}: {text}");
        assert_strict(&text);
    }
}

#[test]
fn audio_with_port_0_is_suspended_and_taken_up_again() {
    let first = "m=video 5000 RTP/AVP 96\r\nm=audio 4000 RTP/AVP 115 97\r\n\
                 a=rtpmap:115 opus/48000/2\r\na=rtpmap:97 telephone-event/48000\r\n";
    let read = |lines: &str| Description::parse(offer_of(lines).as_bytes()).unwrap();
    let (described, plan) = negotiate(&read(first), &local()).unwrap();
    let silent = read("m=video 0 RTP/AVP 96\r\nm=audio 0 RTP/AVP 115 97\r\n");
    let (answer, suspended) = suspend(&silent, &local(), &plan, &described).unwrap();
    let text = answer.to_string();
    assert_strict(&text);
    assert!(text.contains("m=video 0 RTP/AVP 96\r\nm=audio 0 RTP/AVP 115 97\r\n"), "{text}");
    assert_eq!((suspended.direction, suspended.remote), (Direction::Inactive, None));
    assert_eq!((suspended.codec, &suspended.heard), (plan.codec, &plan.heard));
    // The hold is repeated, then an offer is requested: the payload types are those of the session.
    let (answer, _) = suspend(&silent, &local(), &suspended, &answer).unwrap();
    let again = make_offer_again(&local(), &answer, &[]).to_string();
    assert!(again.contains("m=audio 20000 RTP/AVP 115 8 0 97\r\n"), "{again}");
    // Any other offer is not a hold.
    for lines in [
        first,
        "m=audio 0 RTP/AVP 0\r\nm=image 4000 udptl t38\r\n",
        "m=image 4000 udptl t38\r\nm=audio 0 RTP/AVP 115 97\r\n",
        "m=audio 4002 RTP/AVP 0\r\nm=audio 0 RTP/AVP 115 97\r\n",
        "m=video 0 RTP/AVP 96\r\nm=audio 0 RTP/AVP 115\r\nm=audio 4002 RTP/SAVP 0\r\n",
        "m=audio 0 RTP/AVP 0\r\nm=audio 4000 RTP/AVP 18\r\n",
        "m=video 0 RTP/AVP 96\r\n",
        "",
    ] {
        assert_eq!(suspend(&read(lines), &local(), &plan, &described), None, "{lines}");
    }
}

#[test]
fn audio_is_suspended_whatever_else_is_offered_again_that_we_had_refused() {
    let read = |lines: &str| Description::parse(offer_of(lines).as_bytes()).unwrap();
    for others in [
        "m=video 5000 RTP/AVP 96\r\n",
        "m=video 5000 RTP/AVP 96\r\nm=application 5002 UDP/BFCP *\r\n",
        "m=audio 5000 RTP/SAVP 0\r\n",
        "m=audio 5000 RTP/AVP 18\r\n",
        "m=video 5000 RTP/AVP 96\r\nc=IN\r\n",
    ] {
        for is_first in [false, true] {
            let lines = |audio: &str| match is_first {
                true => format!("{audio}{others}"),
                false => format!("{others}{audio}"),
            };
            let active = read(&lines("m=audio 4000 RTP/AVP 0\r\n"));
            let silent = read(&lines("m=audio 0 RTP/AVP 0\r\n"));
            let (described, plan) = negotiate(&active, &local()).unwrap();
            let (answer, held) =
                suspend(&silent, &local(), &plan, &described).unwrap_or_else(|| panic!("{silent}"));
            assert_eq!(held.direction, Direction::Inactive, "{silent}");
            assert!(answer.media.iter().all(|line| line.port == 0), "{answer}");
            assert_strict(&answer.to_string());
            // The hold is repeated, and ends.
            let (answer, held) = suspend(&silent, &local(), &held, &answer).unwrap();
            assert_eq!(suspend(&active, &local(), &held, &answer), None, "{active}");
            assert_eq!(negotiate(&active, &local()).unwrap().1, plan);
        }
    }
    // A new video line does not carry the audio either.
    let (described, plan) = negotiate(&read("m=audio 4000 RTP/AVP 0\r\n"), &local()).unwrap();
    let silent = read("m=audio 0 RTP/AVP 0\r\nm=video 5000 RTP/AVP 96\r\n");
    assert!(suspend(&silent, &local(), &plan, &described).is_some());
}

#[test]
fn a_line_of_avpf_is_answered_by_avpf() {
    for (offered, answered) in
        [("RTP/AVPF", "RTP/AVPF"), ("rtp/avpf", "RTP/AVPF"), ("rtp/avp", "RTP/AVP")]
    {
        let lines = format!("m=audio 4000 {offered} 0\r\na=rtcp-fb:* nack\r\n");
        let (text, _) = answer(offer_of(&lines).as_bytes()).unwrap();
        assert!(text.contains(&format!("m=audio 20000 {answered} 0\r\n")), "{text}");
        let described = Description::parse(text.as_bytes()).unwrap();
        let again = make_offer_again(&local(), &described, &[]).to_string();
        assert!(again.contains(&format!("m=audio 20000 {answered} 0 8 101\r\n")), "{again}");
    }
}

#[test]
fn packet_times_have_fractions_and_are_not_zero() {
    for (value, expected) in [
        ("20.0", 20),
        (" 30 ", 30),
        ("\t40.5\t", 40),
        ("30 ms", 30),
        ("22.5", 20),
        ("0", 20),
        ("0.0", 20),
        ("", 20),
        ("-10", 20),
        ("20.x", 20),
        ("4294967296", 20),
        ("20,0", 20),
    ] {
        let lines = format!("m=audio 4000 RTP/AVP 0\r\na=ptime:{value}\r\n");
        let (_, plan) = answer(offer_of(&lines).as_bytes()).unwrap();
        assert_eq!(plan.ptime_ms, expected, "{value:?}");
    }
}

#[test]
fn what_really_is_broken_is_refused() {
    let read = |text: &str| {
        Description::parse(text.as_bytes()).map(|offer| negotiate(&offer, &local()).map(|_| ()))
    };
    let bad = |number| Err(ParseError::BadLine { number });
    for (text, verdict) in [
        (String::new(), Err(ParseError::NoVersion)),
        ("\0\0".to_owned(), Err(ParseError::NoVersion)),
        ("v=1\r\n".to_owned(), Err(ParseError::NoVersion)),
        ("o=x\r\nv=0\r\n".to_owned(), Err(ParseError::NoVersion)),
        (offer_of("m=\r\n"), bad(6)),
        (offer_of("m=audio\r\n"), bad(6)),
        (offer_of("m=audio -1 RTP/AVP 0\r\n"), bad(6)),
        (offer_of("m=audio 65536 RTP/AVP 0\r\n"), bad(6)),
        (
            offer_of("m=audio 4000 RTP/AVP 0\r\nc=IN IP4\r\n"),
            Ok(Err(NegotiationError::BadAddress(ParseError::BadLine { number: 7 }))),
        ),
        (offer_of(""), Ok(Err(NegotiationError::NoAudio))),
        (offer_of("m=audio 0 RTP/AVP 0\r\n"), Ok(Err(NegotiationError::NoAudio))),
        (
            offer_of("m=audio 4000 UDP/TLS/RTP/SAVPF 0\r\n"),
            Ok(Err(NegotiationError::Transport("UDP/TLS/RTP/SAVPF".to_owned()))),
        ),
        (
            offer_of("m=audio 4000 RTP/AVP 18 97\r\na=rtpmap:97 \tG726-32/8000/1\r\n"),
            Ok(Err(NegotiationError::NoCodec("18, G726-32/8000/1".to_owned()))),
        ),
    ] {
        assert_eq!(read(&text), verdict, "{text}");
    }
}

#[test]
fn a_line_without_a_format_that_can_be_repeated_is_refused_with_one() {
    let lines = "m=audio 4000 RTP/AVP 0\r\nm=video 1 RTP/AVP\r\nm=text 1 RTP/AVP \u{e9},;\r\n";
    let (text, _) = answer(offer_of(lines).as_bytes()).unwrap();
    assert_strict(&text);
    assert!(text.contains("m=video 0 RTP/AVP 0\r\nm=text 0 RTP/AVP 0\r\n"), "{text}");
}
