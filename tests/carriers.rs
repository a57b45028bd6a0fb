//! Calls as carriers and phones make them: further body parts beside the session description,
//! addresses without brackets, answers in provisional responses, keys in all the spellings of INFO.

mod support;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use aftertone_core::audio::{Rate, g711::Law, measure::best_match, wav};
use serde_json::json;
use support::{
    Node,
    bot::Bot,
    raw::{Peer, SDP, header, status},
    speech,
};
use tokio::{
    net::UdpSocket,
    time::{interval, timeout},
};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// How long a test waits before it fails; a passing test does not wait.
const PATIENCE: Duration = Duration::from_secs(20);
const FRAME: usize = 160;
const FRAME_TIME: Duration = Duration::from_millis(20);

const MIXED: &str = "multipart/mixed; boundary=\"--gate way\"";
const ISUP: &str = "Content-Type: application/ISUP;version=itu-t92+\r\n\
                    Content-Disposition: signal;handling=optional\r\n\r\n\u{1}\u{0}I";
const LOCATION: &str = "Content-Type: application/pidf+xml\r\n\
                        Content-ID: <target@127.0.0.1>\r\n\r\n<presence/>";
const METADATA: &str = "Content-Disposition: recording-session;handling=optional\r\n\
                        Content-Type: application/rs-metadata+xml\r\n\r\n<recording/>";
const REQUIRED: &str = "Content-Type: application/ISUP\r\n\
                        Content-Disposition: signal;handling=required\r\n\r\n\u{1}\u{0}I";

/// A multipart body; each part brings its own header.
fn mixed(parts: &[&str]) -> String {
    let parts: String = parts.iter().map(|part| format!("----gate way\r\n{part}\r\n")).collect();
    format!("preamble\r\n{parts}----gate way--\r\n")
}

fn described(description: &str) -> String {
    format!("Content-Type: application/sdp\r\n\r\n{description}")
}

async fn node_and_bot(extra: &str) -> (Node, Bot) {
    let mut bot = Bot::start().await;
    let node = Node::start(&format!("{extra}{}", bot.config()));
    bot.knows(&node.api);
    (node, bot)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_other_parts_beside_its_description_is_answered() {
    let node = Node::start("[[routes]]\nto = \"echo\"\nline = \"echo\"\npublic = true\n");
    let own = described(SDP);
    for (number, parts) in
        [vec![ISUP, &own], vec![&own, LOCATION], vec![LOCATION, METADATA, &own, ISUP]]
            .into_iter()
            .enumerate()
    {
        let body = mixed(&parts);
        let mut peer = Peer::new(HOST, node.sip, "echo", &format!("parts-{number}")).await;
        peer.send(peer.invite_with(MIXED, body.as_bytes())).await;
        let ok = peer.wait_for("INVITE", |status| status >= 200).await;
        assert_eq!(status(&ok), Some(200), "{ok}");
        assert!(ok.contains("\r\nm=audio "), "{ok}");
        peer.say("ACK", 1, "a", "").await;
        for (cseq, method) in [(2, "INVITE"), (3, "UPDATE")] {
            peer.send(peer.request_with(method, cseq, MIXED, body.as_bytes())).await;
            let is_answer = |status| status >= 200;
            let ok = peer.wait_for(&format!("{cseq} {method}"), is_answer).await;
            assert_eq!(status(&ok), Some(200), "{ok}");
            if method == "INVITE" {
                peer.say("ACK", cseq, "a2", "").await;
            }
        }
        peer.say("BYE", 4, "b", "").await;
        peer.wait_for("BYE", |status| status == 200).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_has_only_an_optional_body_is_offered_ours() {
    // A stranger would have to repeat its INVITE first: our offer is longer than its allowance.
    let node = Node::start(
        "[sip]\nlisten = [\"udp:127.0.0.1:0\"]\ntrusted_peers = [\"127.0.0.1/32\"]\n\
         [[routes]]\nto = \"echo\"\nline = \"echo\"\npublic = true\n",
    );
    let mut peer = Peer::new(HOST, node.sip, "echo", "optional").await;
    let kind = "application/ISUP\r\nContent-Disposition: signal;handling=optional";
    peer.send(peer.invite_with(kind, b"\x01\x00I")).await;
    let ok = peer.wait_for("INVITE", |status| status >= 200).await;
    assert_eq!(status(&ok), Some(200), "{ok}");
    assert!(ok.contains("\r\nm=audio "), "{ok}");
    let answer = mixed(&[ISUP, &described(SDP)]);
    peer.send(peer.request_with("ACK", 1, MIXED, answer.as_bytes())).await;
    node.logs("Call established", 1).await;
    peer.say("BYE", 2, "b", "").await;
    peer.wait_for("BYE", |status| status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_part_that_is_not_understood_gets_415_and_what_is() {
    let node = Node::start("[[routes]]\nto = \"echo\"\nline = \"echo\"\npublic = true\n");
    let body = mixed(&[&described(SDP), REQUIRED]);
    let gzip = "application/sdp\r\nContent-Encoding: gzip";
    for (number, (kind, body, name, value)) in [
        (MIXED, body.as_str(), "Accept", "application/sdp"),
        ("application/ISUP", "x", "Accept", "application/sdp"),
        (gzip, SDP, "Accept-Encoding", "identity"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut peer = Peer::new(HOST, node.sip, "echo", &format!("required-{number}")).await;
        peer.send(peer.invite_with(kind, body.as_bytes())).await;
        let refused = peer.wait_for("INVITE", |status| status >= 200).await;
        assert_eq!(status(&refused), Some(415), "{kind}: {refused}");
        assert_eq!(header(&refused, name), Some(value), "{kind}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_whose_contact_has_no_brackets_is_served() {
    let (node, bot) = node_and_bot("").await;
    let mut peer = Peer::new(HOST, node.sip, "bot", "no-brackets").await;
    let local = peer.local();
    let brackets = format!("Contact: <sip:a@{local}>");
    let instance = format!("m: sip:a@{local};+sip.instance=\"<urn:uuid:0-1>\";reg-id=1");
    let invite = peer.request("INVITE", 1, "i", SDP);
    assert!(invite.contains(&brackets), "{invite}");
    peer.send(invite.replace(&brackets, &instance)).await;
    let call = bot.take_call();
    let answered = async {
        peer.wait_for("INVITE", |status| status == 200).await;
        peer.say("ACK", 1, "a", "").await;
    };
    let (call, ()) = tokio::join!(call, answered);
    assert_eq!(bot.hang_up(&call).await, 204);
    let bye = peer.next(PATIENCE).await.expect("a BYE");
    assert!(bye.starts_with(&format!("BYE sip:a@{local} SIP/2.0\r\n")), "{bye}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_by_info_is_told_in_each_spelling_or_refused() {
    let (node, bot) = node_and_bot("").await;
    let mut peer = Peer::new(HOST, node.sip, "bot", "keys").await;
    peer.say("INVITE", 1, "i", SDP).await;
    let call = bot.take_call();
    let answered = async {
        peer.wait_for("INVITE", |status| status == 200).await;
        peer.say("ACK", 1, "a", "").await;
    };
    let (call, ()) = tokio::join!(call, answered);
    let (code, _) =
        bot.post(&format!("{call}/subscribeToTone"), &json!({"clientContext": "t"})).await;
    assert_eq!(code, 200);
    let (relay, alone) = ("application/dtmf-relay", "application/dtmf");
    let keys = [
        (alone, "Signal=8", "tone8"),
        (relay, "Signal=\"9\"\r\nDuration=160\r\n", "tone9"),
        (alone, "Signal: 0\r\nDuration: 160\r\n", "tone0"),
        ("APPLICATION/DTMF-Relay;charset=x", "signal = 1 \nduration = 160\n", "tone1"),
        (relay, "Signal=10\r\nDuration=160\r\n", "star"),
        (alone, "Signal=11", "pound"),
        (relay, "2", "tone2"),
        (alone, "\r\n3\r\n", "tone3"),
        (relay, "Signal=4\rDuration=160\r", "tone4"),
    ];
    for (cseq, (kind, body, key)) in (2..).zip(keys) {
        peer.send(peer.request_with("INFO", cseq, kind, body.as_bytes())).await;
        let said = peer.wait_for("INFO", |status| status >= 200).await;
        assert_eq!(status(&said), Some(200), "{body:?}: {said}");
        bot.wait_for(key, |told| told.data()["toneInfo"]["tone"] == key).await;
    }
    let refused = [(alone, "77", 400), (relay, "Duration=160", 400), ("text/plain", "5", 415)];
    for (cseq, (kind, body, wanted)) in (20..).zip(refused) {
        peer.send(peer.request_with("INFO", cseq, kind, body.as_bytes())).await;
        let said = peer.wait_for("INFO", |status| status >= 200).await;
        assert_eq!(status(&said), Some(wanted), "{body:?}: {said}");
    }
    peer.say("BYE", 30, "b", "").await;
    peer.wait_for("BYE", |status| status == 200).await;
    bot.wait_for_state(&call, "terminated").await;
    let told = bot.notifications();
    let tones = told.iter().filter_map(|told| told.data()["toneInfo"]["tone"].as_str());
    assert_eq!(tones.collect::<Vec<_>>(), keys.map(|(_, _, key)| key));
}

/// A called party behind a trunk, which the test controls.
struct Callee {
    sip: UdpSocket,
    rtp: UdpSocket,
    node: SocketAddr,
}

impl Callee {
    /// Makes a callee, a node with a trunk to it, and a bot that has called it.
    async fn called() -> (Self, Node, Bot, String, String) {
        let sip = UdpSocket::bind((HOST, 0)).await.unwrap();
        let rtp = UdpSocket::bind((HOST, 0)).await.unwrap();
        let (node, bot) = node_and_bot(&format!(
            "[[trunks]]\nname = \"carrier\"\nhost = \"{}\"\ntransport = \"udp\"\n\
             allow = [\"2*\"]\ncaller = \"4711\"\n",
            sip.local_addr().unwrap()
        ))
        .await;
        let mut callee = Self { sip, rtp, node: node.sip };
        let (code, call) = bot.place("200").await;
        assert_eq!(code, 201, "{call}");
        let call = call["id"].as_str().unwrap().to_owned();
        let invite = callee.hears("INVITE").await;
        (callee, node, bot, call, invite)
    }

    /// The next message that begins with `start`.
    async fn hears(&mut self, start: &str) -> String {
        let mut buffer = vec![0; 65_535];
        loop {
            let received = timeout(PATIENCE, self.sip.recv_from(&mut buffer)).await;
            let (length, from) = received.unwrap_or_else(|_| panic!("no {start}")).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.starts_with(start) {
                self.node = from;
                return text;
            }
        }
    }

    /// Sends a response to a request; `more` are further header fields. Characters up to U+00FF are
    /// sent as one byte.
    async fn says(&self, request: &str, status: &str, more: &str, body: &str) {
        let value = |name: &str| header(request, name).unwrap();
        let text = format!(
            "SIP/2.0 {status}\r\nVia: {}\r\nFrom: {}\r\nTo: {};tag=callee\r\nCall-ID: {}\r\n\
             CSeq: {}\r\n{more}Content-Length: {}\r\n\r\n{body}",
            value("Via"),
            value("From"),
            value("To"),
            value("Call-ID"),
            value("CSeq"),
            body.len()
        );
        let bytes: Vec<u8> = text.chars().map(|letter| u8::try_from(letter).unwrap()).collect();
        self.sip.send_to(&bytes, self.node).await.unwrap();
    }

    fn contact(&self) -> String {
        format!("Contact: <sip:200@{}>\r\n", self.sip.local_addr().unwrap())
    }

    fn description(&self) -> String {
        SDP.replace(" 9 ", &format!(" {} ", self.rtp.local_addr().unwrap().port()))
    }

    /// Waits for BYE and answers it with 200.
    async fn is_hung_up(&mut self) -> String {
        let bye = self.hears("BYE").await;
        let ok = bye.split("\r\n").filter(|line| {
            ["Via", "From", "To", "Call-ID", "CSeq"].iter().any(|it| line.starts_with(it))
        });
        let ok = ok.map(|line| format!("{line}\r\n")).collect::<String>();
        let ok = format!("SIP/2.0 200 OK\r\n{ok}Content-Length: 0\r\n\r\n");
        self.sip.send_to(ok.as_bytes(), self.node).await.unwrap();
        bye
    }

    /// The node's RTP arrives at the port that was described, from the port of the node's offer.
    async fn hears_sound(&self, invite: &str) -> SocketAddr {
        let port = invite.split("\r\nm=audio ").nth(1).and_then(|rest| rest.split(' ').next());
        let offered: u16 = port.and_then(|port| port.parse().ok()).expect("a port");
        let mut buffer = [0; 2_048];
        let received = timeout(PATIENCE, self.rtp.recv_from(&mut buffer)).await;
        let (_, from) = received.expect("sound").unwrap();
        assert_eq!(from.port(), offered);
        from
    }

    /// Sends speech to the node, then silence until it is dropped.
    async fn speaks(&self, to: SocketAddr) {
        let mut tick = interval(FRAME_TIME);
        let mut samples = speech().samples(Rate::Hz8000).to_vec();
        samples.resize(samples.len().next_multiple_of(FRAME), 0);
        let silence = [0; FRAME];
        let frames = samples.chunks(FRAME).chain(std::iter::repeat(&silence[..]));
        for (number, frame) in (0_u16..=u16::MAX).zip(frames) {
            tick.tick().await;
            let mut packet = vec![0x80, 0];
            packet.extend(number.to_be_bytes());
            packet.extend((u32::from(number) * FRAME as u32).to_be_bytes());
            packet.extend(7_u32.to_be_bytes());
            packet.extend(frame.iter().map(|sample| Law::Mu.encode(*sample)));
            self.rtp.send_to(&packet, to).await.unwrap();
        }
    }
}

const SDP_FIELD: &str = "Content-Type: application/sdp\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_answered_in_an_early_response_is_heard_on_both_sides() {
    let (mut callee, _node, bot, call, invite) = Callee::called().await;
    let contact = callee.contact();
    let early = format!("{contact}{SDP_FIELD}Server: Gateway J\u{f6}rg\r\n");
    callee.says(&invite, "183 Session Progress", &early, &callee.description()).await;
    callee.says(&invite, "180 Ringing", &contact, "").await;
    callee.says(&invite, "200 OK", &contact, "").await;
    callee.hears("ACK").await;
    bot.wait_for_state(&call, "established").await;

    let (from, ()) = tokio::join!(callee.hears_sound(&invite), bot.speak(&call));
    let body = json!({"playBeep": false, "maxRecordDurationInSeconds": 9,
        "maxSilenceTimeoutInSeconds": 2});
    let (code, operation) = bot.post(&format!("{call}/recordResponse"), &body).await;
    assert_eq!(code, 200, "{operation}");
    let ended = tokio::select! {
        ended = bot.wait_for_operation(operation["id"].as_str().unwrap()) => ended,
        () = callee.speaks(from) => unreachable!("it is silent for twenty minutes"),
    };
    let clip = bot.download(&ended).await;
    let clip = wav::read(&clip, wav::Limits { max_seconds: 60 }).unwrap().samples;
    // A loaded machine loses frames: one second that matches is enough.
    let second = Rate::Hz16000.hz() as usize;
    let spoken = speech();
    let pieces = spoken.samples(Rate::Hz16000).chunks_exact(second).enumerate();
    let likeness = pieces.map(|(at, piece)| {
        let heard = clip.get(at * second..).unwrap_or_default();
        best_match(piece, &heard[..heard.len().min(2 * second)], second).1
    });
    let best = likeness.max_by(f64::total_cmp).expect("the speech has a second");
    assert!(best >= 0.9, "likeness {best}");
    assert_eq!(bot.hang_up(&call).await, 204);
    callee.is_hung_up().await;
    bot.wait_for_state(&call, "terminated").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_200_that_describes_another_place_than_its_183_leads_there() {
    let (mut callee, _node, bot, call, invite) = Callee::called().await;
    let announcement = UdpSocket::bind((HOST, 0)).await.unwrap();
    let port = announcement.local_addr().unwrap().port();
    let fields = format!("{}{SDP_FIELD}", callee.contact());
    let early = SDP.replace(" 9 ", &format!(" {port} "));
    callee.says(&invite, "183 Session Progress", &fields, &early).await;
    callee.says(&invite, "200 OK", &fields, &callee.description()).await;
    callee.hears("ACK").await;
    bot.wait_for_state(&call, "established").await;
    tokio::join!(callee.hears_sound(&invite), bot.speak(&call));
    assert_eq!(bot.hang_up(&call).await, 204);
    callee.is_hung_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_call_is_up_when_its_answer_has_other_parts_beside_it() {
    for other in [ISUP, REQUIRED] {
        let (mut callee, _node, bot, call, invite) = Callee::called().await;
        let fields = format!("{}Content-Type: {MIXED}\r\n", callee.contact());
        let body = mixed(&[other, &described(&callee.description())]);
        callee.says(&invite, "200 OK", &fields, &body).await;
        callee.hears("ACK").await;
        bot.wait_for_state(&call, "established").await;
        tokio::join!(callee.hears_sound(&invite), bot.speak(&call));
        assert_eq!(bot.hang_up(&call).await, 204);
        callee.is_hung_up().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callee_whose_contact_has_no_brackets_is_acknowledged() {
    let (mut callee, _node, bot, call, invite) = Callee::called().await;
    let local = callee.sip.local_addr().unwrap();
    let fields =
        format!("Contact: sip:200@{local};+sip.instance=\"<urn:uuid:0-1>\"\r\n{SDP_FIELD}");
    callee.says(&invite, "180 Ringing", &fields, "").await;
    callee.says(&invite, "200 OK", &fields, &callee.description()).await;
    let ack = callee.hears("ACK").await;
    assert!(ack.starts_with(&format!("ACK sip:200@{local} SIP/2.0\r\n")), "{ack}");
    bot.wait_for_state(&call, "established").await;
    assert_eq!(bot.hang_up(&call).await, 204);
    callee.is_hung_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_200_that_makes_no_dialog_is_acknowledged_and_hung_up() {
    for fields in [
        "Contact: <sip:200@nowhere\r\n",
        "Contact: *\r\n",
        "Contact: <sip:200@192.0.2.1>\r\nRecord-Route: <sip:192.0.2.2;lr\r\n",
        "Contact: <sip:200@192.0.2.1>\r\nRecord-Route: sip:192.0.2.2;lr\r\n",
    ] {
        let (mut callee, _node, bot, call, invite) = Callee::called().await;
        let fields = format!("{fields}{SDP_FIELD}");
        callee.says(&invite, "200 OK", &fields, &callee.description()).await;
        callee.hears("ACK").await;
        let bye = callee.is_hung_up().await;
        assert_eq!(header(&bye, "Reason"), Some("SIP;cause=502;text=\"Bad Gateway\""), "{bye}");
        let over = bot.wait_for_state(&call, "terminated").await;
        assert_eq!(over.data()["resultInfo"]["code"], 502, "{fields}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_that_cannot_be_read_costs_an_answered_call() {
    let (mut callee, _node, bot, call, invite) = Callee::called().await;
    let fields = format!(
        "{}{SDP_FIELD}no colon\r\nMax-Forwards: x\r\nRoute: <\r\nX\u{f6}: y\r\n\
         Session-Expires: x\r\nX-Long: {}\r\n",
        callee.contact(),
        "x".repeat(9_000)
    );
    callee.says(&invite, "200 J\u{f6}", &fields, &callee.description()).await;
    callee.hears("ACK").await;
    bot.wait_for_state(&call, "established").await;
    assert_eq!(bot.hang_up(&call).await, 204);
    callee.is_hung_up().await;
}
