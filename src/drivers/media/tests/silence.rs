//! Peers that send nothing: on hold, gone, or without an address.

use super::*;
use aftertone_core::{model::Silence, proto::sdp};

/// The whole seconds of `duration`, in frames.
fn frames(duration: Duration) -> usize {
    usize::try_from(duration.as_millis() / 20).unwrap()
}

/// The leg's plan for the peer's description `lines`.
fn plan(peer: &Peer, lines: &str) -> StreamPlan {
    let text = format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n{lines}");
    let text = text.replace("PORT", &peer.address().port().to_string());
    let offer = sdp::Description::parse(text.as_bytes()).unwrap();
    let local = sdp::LocalMedia {
        address: Ipv4Addr::LOCALHOST.into(),
        port: peer.leg.port(),
        codecs: vec![Codec::Pcmu],
        security: sdp::LocalSecurity::new(
            sdp::SrtpPolicy::Off,
            sdp::MediaSecret::new([0; sdp::MediaSecret::LEN]),
        ),
        session_id: 1,
        session_version: 1,
    };
    sdp::negotiate(&offer, &local).unwrap().1
}

const SENDRECV: &str = "m=audio PORT RTP/AVP 0\r\nc=IN IP4 127.0.0.1\r\na=sendrecv\r\n";
const HOLDS: [&str; 3] = [
    "m=audio PORT RTP/AVP 0\r\nc=IN IP4 127.0.0.1\r\na=sendonly\r\n",
    "m=audio PORT RTP/AVP 0\r\nc=IN IP4 127.0.0.1\r\na=inactive\r\n",
    "m=audio PORT RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\na=sendrecv\r\n",
];

#[test]
fn a_peer_that_holds_may_be_silent_for_as_long_as_a_hold_may_last() {
    let Settings { rtp_timeout, hold_timeout, .. } = Settings::default();
    for hold in HOLDS {
        let mut rig = Rig::new();
        let mut peer = Peer::new(rig.local);
        rig.command(LegCommand::Connect(plan(&peer, SENDRECV), HOST));
        rig.converse(&mut peer, &speech(5));
        rig.command(LegCommand::Connect(plan(&peer, hold), HOST));
        rig.tick(frames(hold_timeout));
        assert_eq!(rig.told(), [LegEvent::Heard], "{hold}");
        rig.tick(1);
        assert_eq!(rig.told(), [timed_out(Silence::OnHold)], "{hold}");
        // The peer is expected to send again once it has resumed the call.
        rig.command(LegCommand::Connect(plan(&peer, SENDRECV), HOST));
        rig.tick(frames(rtp_timeout));
        assert_eq!(rig.told(), [], "{hold}");
        rig.tick(1);
        assert_eq!(rig.told(), [timed_out(Silence::Ceased)], "{hold}");
    }
}

#[test]
fn a_call_is_not_held_anew_by_holding_it_again() {
    let settings = Settings { hold_timeout: Duration::from_secs(2), ..Settings::default() };
    let mut rig = Rig::with(settings, 64);
    let peer = Peer::new(rig.local);
    for hold in HOLDS {
        rig.command(LegCommand::Connect(plan(&peer, hold), HOST));
        rig.tick(33);
    }
    rig.tick(2);
    assert_eq!(rig.outline(), ["timed out OnHold"]);
}

#[test]
fn a_peer_that_hears_us_and_says_so_by_rtcp_is_there() {
    let settings = Settings { hold_timeout: Duration::from_secs(2), ..Settings::default() };
    let mut rig = Rig::with(settings, 64);
    let peer = Peer::new(rig.local);
    let listens = "m=audio PORT RTP/AVP 0\r\nc=IN IP4 127.0.0.1\r\na=recvonly\r\n";
    rig.command(LegCommand::Connect(plan(&peer, listens), HOST));
    rig.tick(10);
    let ssrc = Packet::parse(&peer.packets()[0]).unwrap().header.ssrc;
    for _ in 0..5 {
        peer.report(ssrc);
        rig.tick(60);
    }
    assert_eq!(rig.outline(), Vec::<String>::new());
    rig.tick(100);
    assert_eq!(rig.outline(), ["timed out OnHold"]);
}

#[test]
fn a_peer_without_a_usable_address_is_told_like_one_that_is_silent() {
    let mut rig = Rig::new();
    let peer = Peer::new(rig.local);
    let group = "m=audio PORT RTP/AVP 0\r\nc=IN IP4 224.2.1.1/127\r\na=sendrecv\r\n";
    rig.command(LegCommand::Connect(plan(&peer, group), HOST));
    rig.tick(frames(Settings::default().rtp_timeout));
    assert_eq!(rig.outline(), Vec::<String>::new());
    rig.tick(1);
    assert_eq!(rig.outline(), ["timed out NeverHeard"]);
}

#[test]
fn a_peer_that_names_its_host_is_sent_to_and_heard_where_its_sip_comes_from() {
    for address in ["c=IN IP4 phone.example\r\n", ""] {
        let named = format!("m=audio PORT RTP/AVP 0\r\n{address}a=sendrecv\r\n");
        let mut rig = Rig::new();
        let mut peer = Peer::new(rig.local);
        // A hold ends with a name as well.
        for plan in [plan(&peer, &named), plan(&peer, HOLDS[2]), plan(&peer, &named)] {
            rig.command(LegCommand::Connect(plan, HOST));
        }
        rig.tick(1);
        assert!(!peer.packets().is_empty(), "{named}");
        rig.converse(&mut peer, &speech(5));
        assert_eq!(rig.told(), [LegEvent::Heard], "{named}");
    }
    // The host of the SIP is not known: there is no address.
    let mut rig = Rig::new();
    let peer = Peer::new(rig.local);
    let named = "m=audio PORT RTP/AVP 0\r\nc=IN IP4 phone.example\r\na=sendrecv\r\n";
    rig.command(LegCommand::Connect(plan(&peer, named), None));
    rig.tick(5);
    assert!(peer.packets().is_empty());
}

#[test]
fn a_peer_that_falls_silent_is_told_once() {
    let settings = Settings { rtp_timeout: Duration::from_millis(400), ..Settings::default() };
    let mut rig = Rig::with(settings, 64);
    let mut peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(plan(&peer, SENDRECV), HOST));
    rig.converse(&mut peer, &speech(5));
    rig.tick(50);
    assert_eq!(rig.told(), [LegEvent::Heard, timed_out(Silence::Ceased)]);
}

/// An RTCP packet without a report about us, as sent by phones that receive nothing.
fn bare_report(peer: &Peer, is_last: bool) -> Vec<u8> {
    let mut packet = Vec::new();
    rtcp::write(&mut packet, Ssrc(peer.ssrc), None, None, "phone", is_last);
    packet
}

/// A sign of life from a phone that sends no sound.
type Sign = fn(&mut Peer);

const SIGNS: [(Sign, &str); 6] = [
    (|peer| peer.report(Ssrc(0)), "a report about another source"),
    (|peer| peer.rtcp(&bare_report(peer, false), 1), "a bare report"),
    (|peer| peer.rtcp(&bare_report(peer, false), 0), "a report on the RTP port"),
    (|peer| peer.send(13, &[60], false), "comfort noise"),
    (|peer| peer.send(19, &[60], false), "comfort noise of old"),
    (|peer| peer.send(0, &[], false), "an empty packet"),
];

#[test]
fn a_caller_who_says_nothing_is_there_as_long_as_rtcp_or_comfort_noise_comes() {
    let settings = Settings { rtp_timeout: Duration::from_secs(6), ..Settings::default() };
    for (sign, what) in SIGNS {
        for has_spoken in [false, true] {
            let mut rig = Rig::with(settings, 64);
            let mut peer = Peer::new(rig.local);
            rig.command(LegCommand::Connect(plan(&peer, SENDRECV), HOST));
            if has_spoken {
                rig.converse(&mut peer, &speech(5));
            }
            for _ in 0..8 {
                rig.tick(250);
                sign(&mut peer);
            }
            assert_eq!(rig.outline(), Vec::<String>::new(), "{what}");
            rig.tick(400);
            assert!(rig.outline().join(" ").starts_with("timed out"), "{what}");
        }
    }
}

#[test]
fn reports_of_another_call_on_the_peers_host_keep_no_dead_call() {
    let settings = Settings { rtp_timeout: Duration::from_secs(2), ..Settings::default() };
    // The sender is on the same gateway, and belongs to a call that had this port before.
    let others: [Sign; 4] = [
        |other| other.rtcp(&bare_report(other, false), 1),
        |other| other.rtcp(&bare_report(other, false), 0),
        |other| other.report(Ssrc(4_711)),
        |other| {
            let mut packet = Vec::new();
            let info = Some(rtcp::SenderInfo { packets: 500, ..Default::default() });
            rtcp::write(&mut packet, Ssrc(other.ssrc), info, None, "phone", false);
            other.rtcp(&packet, 1);
        },
    ];
    for send in others {
        let mut rig = Rig::with(settings, 64);
        let mut peer = Peer::new(rig.local);
        let mut other = Peer { ssrc: 8, ..Peer::new(rig.local) };
        rig.command(LegCommand::Connect(plan(&peer, SENDRECV), HOST));
        rig.converse(&mut peer, &speech(5));
        for _ in 0..3 {
            send(&mut other);
            rig.tick(50);
        }
        assert_eq!(rig.outline(), ["timed out Ceased"]);
    }
}

#[test]
fn reports_from_the_ports_of_the_call_show_that_a_peer_with_a_new_ssrc_is_there() {
    let settings = Settings { rtp_timeout: Duration::from_secs(2), ..Settings::default() };
    for is_from_rtp_port in [true, false] {
        let mut rig = Rig::with(settings, 64);
        let mut peer = Peer::new(rig.local);
        let mut reporter = Peer { ssrc: 8, ..Peer::new(rig.local) };
        let rtcp = reporter.address();
        if is_from_rtp_port {
            reporter.socket = peer.socket.try_clone().unwrap();
        }
        let plan = StreamPlan { remote_rtcp: Some(rtcp), ..peer.plan() };
        rig.command(LegCommand::Connect(plan, HOST));
        rig.converse(&mut peer, &speech(5));
        for _ in 0..4 {
            reporter.rtcp(&bare_report(&reporter, false), 1);
            rig.tick(50);
        }
        assert_eq!(rig.outline(), [""; 0], "from the RTP port: {is_from_rtp_port}");
    }
}

#[test]
fn reports_of_the_sound_or_of_the_keys_of_a_gateway_show_that_it_is_there() {
    let settings = Settings { rtp_timeout: Duration::from_secs(2), ..Settings::default() };
    for reporting in [7, 9] {
        let mut rig = Rig::with(settings, 64);
        let mut peer = Peer::new(rig.local);
        rig.command(LegCommand::Connect(peer.plan(), HOST));
        rig.converse(&mut peer, &speech(5));
        let mut keys = Peer { socket: peer.socket.try_clone().unwrap(), ssrc: 9, ..peer };
        keys.press(Tone::POUND);
        rig.tick(20);
        let reporter = Peer { ssrc: reporting, ..keys };
        for _ in 0..4 {
            reporter.rtcp(&bare_report(&reporter, false), 1);
            rig.tick(80);
        }
        assert_eq!(rig.outline(), ["tone #"], "reports of {reporting}");
    }
}

#[test]
fn a_phone_that_keeps_the_way_open_with_what_is_no_sound_is_there() {
    let settings = Settings { rtp_timeout: Duration::from_secs(2), ..Settings::default() };
    let mut rig = Rig::with(settings, 64);
    let mut peer = Peer::new(rig.local);
    rig.command(LegCommand::Connect(plan(&peer, SENDRECV), HOST));
    rig.converse(&mut peer, &speech(5));
    for _ in 0..4 {
        rig.tick(80);
        peer.send(126, &[], false);
    }
    assert_eq!(rig.outline(), Vec::<String>::new());
}

#[test]
fn a_goodbye_and_the_reports_of_strangers_are_no_signs_of_life() {
    let settings = Settings { rtp_timeout: Duration::from_secs(2), ..Settings::default() };
    let mut rig = Rig::at(Ipv4Addr::UNSPECIFIED, settings, 64);
    let mut peer = Peer::new(rig.local);
    let stranger = Peer::at(Ipv4Addr::new(127, 0, 0, 2), rig.local);
    rig.command(LegCommand::Connect(plan(&peer, SENDRECV), HOST));
    rig.converse(&mut peer, &speech(5));
    for _ in 0..3 {
        peer.rtcp(&bare_report(&peer, true), 1);
        stranger.rtcp(&bare_report(&stranger, false), 1);
        rig.tick(50);
    }
    assert_eq!(rig.outline(), ["timed out Ceased"]);
}
