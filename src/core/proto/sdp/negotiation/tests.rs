//! The rules of offer and answer, one by one.

use super::*;

fn pt(number: u8) -> PayloadType {
    PayloadType::new(number).unwrap()
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

fn offer(lines: &str) -> Description {
    let text =
        format!("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n{lines}");
    Description::parse(text.as_bytes()).unwrap()
}

fn answer(lines: &str) -> (String, StreamPlan) {
    let (answer, plan) = negotiate(&offer(lines), &local()).unwrap();
    (answer.to_string(), plan)
}

#[test]
fn the_offerers_order_and_numbers_are_kept() {
    let (text, plan) = answer(
        "m=audio 4000 RTP/AVP 97 8 0 120\r\na=rtpmap:97 iLBC/8000\r\n\
         a=rtpmap:120 telephone-event/8000\r\na=ptime:30\r\n",
    );
    assert_eq!((plan.codec, plan.payload_type), (Codec::Pcma, pt(8)));
    assert_eq!(plan.telephone_event, Some(pt(120)));
    assert_eq!(plan.remote, Some("192.0.2.1:4000".parse().unwrap()));
    assert_eq!(plan.remote_rtcp, Some("192.0.2.1:4001".parse().unwrap()));
    assert_eq!(plan.ptime_ms, 30);
    assert!(text.contains("m=audio 20000 RTP/AVP 8 120\r\n"), "{text}");
    assert!(text.contains("a=rtpmap:120 telephone-event/8000\r\n"), "{text}");
    assert!(text.contains("a=sendrecv\r\n"), "{text}");
}

#[test]
fn opus_goes_with_events_of_its_own_clock() {
    let (text, plan) = answer(
        "m=audio 4000 RTP/AVP 111 0 101 102\r\na=rtpmap:111 opus/48000/2\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=rtpmap:102 telephone-event/48000\r\n",
    );
    assert_eq!((plan.codec, plan.payload_type), (Codec::Opus, pt(111)));
    assert_eq!(plan.telephone_event, Some(pt(102)));
    assert!(text.contains("m=audio 20000 RTP/AVP 111 102\r\n"), "{text}");
}

#[test]
fn events_of_the_wrong_clock_are_better_than_none() {
    let (text, plan) = answer(
        "m=audio 4000 RTP/AVP 111 101\r\na=rtpmap:111 opus/48000/2\r\n\
         a=rtpmap:101 telephone-event/8000\r\n",
    );
    assert_eq!(plan.telephone_event, Some(pt(101)));
    assert!(text.contains("a=rtpmap:101 telephone-event/8000\r\n"), "{text}");
}

#[test]
fn other_lines_are_answered_with_port_0_in_their_order() {
    let (text, _) = answer(
        "m=video 5000 RTP/AVP 96\r\nm=audio 0 RTP/AVP 0\r\nm=audio 4000 RTP/AVP 0\r\n\
         m=audio 4002 RTP/AVP 8\r\n",
    );
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(
        lines,
        [
            "m=video 0 RTP/AVP 96",
            "m=audio 0 RTP/AVP 0",
            "m=audio 20000 RTP/AVP 0",
            "m=audio 0 RTP/AVP 8"
        ]
    );
}

#[test]
fn the_three_styles_of_hold() {
    for (lines, direction, attribute) in [
        ("m=audio 4000 RTP/AVP 0\r\na=sendonly\r\n", Direction::RecvOnly, "a=recvonly"),
        ("m=audio 4000 RTP/AVP 0\r\na=inactive\r\n", Direction::Inactive, "a=inactive"),
        ("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n", Direction::Inactive, "a=inactive"),
        ("a=sendonly\r\nm=audio 4000 RTP/AVP 0\r\n", Direction::RecvOnly, "a=recvonly"),
        ("a=sendonly\r\nm=audio 4 RTP/AVP 0\r\na=sendrecv\r\n", Direction::SendRecv, "a=sendrecv"),
    ] {
        let (text, plan) = answer(lines);
        assert_eq!(plan.direction, direction, "{lines}");
        assert!(text.contains(attribute), "{lines}: {text}");
    }
    let (_, plan) = answer("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n");
    assert_eq!(plan.remote, None);
}

#[test]
fn nothing_is_sent_to_many_or_to_a_name() {
    for address in ["224.2.1.1/127", "255.255.255.255", "phone.example"] {
        let (_, plan) = answer(&format!("m=audio 4000 RTP/AVP 0\r\nc=IN IP4 {address}\r\n"));
        assert_eq!((plan.remote, plan.remote_rtcp), (None, None), "{address}");
        let port = address.starts_with("phone").then_some(4000);
        assert_eq!(plan.port_at_sip_host, port, "{address}: a name has the host of SIP");
    }
    let (_, plan) = answer("m=audio 65535 RTP/AVP 0\r\n");
    assert_eq!(plan.remote_rtcp, None);
}

#[test]
fn what_cannot_be_served_is_named() {
    let refused = |lines: &str| negotiate(&offer(lines), &local()).unwrap_err().to_string();
    assert!(refused("m=audio 4000 RTP/AVP 3 18\r\na=rtpmap:18 G729/8000\r\n").contains("G729"));
    assert!(refused("m=audio 4000 UDP/TLS/RTP/SAVPF 0\r\n").contains("UDP/TLS/RTP/SAVPF"));
    assert!(refused("m=audio 4000 RTP/SAVP 0\r\n").contains("\"off\" here"));
    assert!(refused("m=video 4000 RTP/AVP 0\r\n").contains("no audio"));
    assert!(refused("m=audio 4000 RTP/AVP 200 abc\r\n").contains("no codec"));
}

#[test]
fn odd_packet_times_are_brought_into_range() {
    for (lines, expected) in [
        ("a=ptime:5\r\n", 10),
        ("a=ptime:200\r\n", 60),
        ("a=ptime:60\r\na=maxptime:40\r\n", 40),
        ("a=ptime:25\r\n", 20),
        ("a=maxptime:0\r\n", 10),
        ("a=ptime:x\r\n", 20),
    ] {
        let (_, plan) = answer(&format!("m=audio 4000 RTP/AVP 0\r\n{lines}"));
        assert_eq!(plan.ptime_ms, expected, "{lines}");
    }
}

#[test]
fn a_later_offer_has_the_lines_and_the_numbers_of_the_session() {
    let (text, _) = answer(
        "m=video 5000 RTP/AVP 96\r\nm=audio 4000 RTP/AVP 115 97\r\n\
         a=rtpmap:115 opus/48000/2\r\na=rtpmap:97 telephone-event/48000\r\n",
    );
    let before = Description::parse(text.as_bytes()).unwrap();
    let again = make_offer_again(&local(), &before, &[]);
    let text = again.to_string();
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(lines, ["m=video 0 RTP/AVP 96", "m=audio 20000 RTP/AVP 115 8 0 97"]);
    assert!(text.contains("a=rtpmap:115 opus/48000/2\r\n"), "{text}");
    assert!(text.contains("a=rtpmap:97 telephone-event/48000\r\n"), "{text}");
    assert!(text.contains("a=sendrecv\r\n"), "{text}");
    let theirs = offer(
        "m=video 0 RTP/AVP 96\r\nm=audio 4002 RTP/AVP 8 97\r\n\
         a=rtpmap:97 telephone-event/8000\r\n",
    );
    let plan = accept_answer(&again, &theirs).unwrap();
    assert_eq!((plan.codec, plan.telephone_event), (Codec::Pcma, Some(pt(97))));
    assert_eq!(plan.remote, Some("192.0.2.1:4002".parse().unwrap()));
    // The same again, from our last description.
    let third = make_offer_again(&local(), &again, &[]).to_string();
    assert_eq!(third.matches("m=").count(), 2, "{third}");
    assert!(third.contains("m=audio 20000 RTP/AVP 115 8 0 97\r\n"), "{third}");
}

#[test]
fn a_codec_without_a_number_in_the_session_is_not_offered_later() {
    let (text, _) = answer("m=audio 4000 RTP/AVP 0 96\r\na=rtpmap:96 iLBC/8000\r\n");
    let before = Description::parse(text.as_bytes()).unwrap();
    let again = make_offer_again(&local(), &before, &[]).to_string();
    assert!(again.contains("m=audio 20000 RTP/AVP 0 8 101\r\n"), "{again}");
}

#[test]
fn all_that_an_answer_takes_of_our_offer_may_come() {
    let local = LocalMedia { codecs: vec![Codec::Opus, Codec::Pcmu], ..local() };
    let theirs = offer(
        "m=audio 4000 RTP/AVP 0 8 96 101\r\na=rtpmap:96 opus/48000/2\r\n\
         a=rtpmap:101 telephone-event/8000\r\n",
    );
    let plan = accept_answer(&make_offer(&local), &theirs).unwrap();
    assert_eq!((plan.codec, plan.payload_type), (Codec::Pcmu, pt(0)));
    let sound = Payload::Sound;
    let heard =
        [(pt(96), sound(Codec::Opus)), (pt(0), sound(Codec::Pcmu)), (pt(101), Payload::Event)];
    assert_eq!(plan.heard, heard, "A-law was not offered");
}

#[test]
fn static_numbers_of_the_offer_may_come_whatever_was_answered() {
    let (mu, a) = ((pt(0), Payload::Sound(Codec::Pcmu)), (pt(8), Payload::Sound(Codec::Pcma)));
    let (_, plan) = answer("m=audio 4000 RTP/AVP 0 8\r\n");
    assert_eq!((plan.codec, plan.heard), (Codec::Pcmu, vec![mu, a]));
    let (_, plan) = answer(
        "m=audio 4000 RTP/AVP 111 8 101 102\r\na=rtpmap:111 opus/48000/2\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=rtpmap:102 telephone-event/48000\r\n",
    );
    let opus = (pt(111), Payload::Sound(Codec::Opus));
    assert_eq!(plan.heard, [opus, (pt(102), Payload::Event), a, (pt(101), Payload::Event)]);
    // Not accepted: payload types that were not offered, and those with another meaning in the
    // offer.
    let (_, plan) = answer("m=audio 4000 RTP/AVP 0\r\n");
    assert_eq!(plan.heard, [mu]);
    let (_, plan) = answer("m=audio 4000 RTP/AVP 8 0\r\na=rtpmap:0 telephone-event/8000\r\n");
    assert_eq!(plan.heard, [a, (pt(0), Payload::Event)]);
    // The same for our own offer.
    let plan = accept_answer(&make_offer(&local()), &offer("m=audio 4000 RTP/AVP 8\r\n"));
    assert_eq!(plan.unwrap().heard, [a, mu]);
}

#[test]
fn numbers_of_an_answer_are_for_what_we_send() {
    let local = LocalMedia { codecs: vec![Codec::Opus, Codec::Pcmu], ..local() };
    let (opus, event) = (Payload::Sound(Codec::Opus), Payload::Event);
    let mu = (pt(0), Payload::Sound(Codec::Pcmu));
    for (numbers, heard) in [
        ((96, 101), vec![(96, opus), (101, event)]),
        ((111, 99), vec![(96, opus), (101, event), (111, opus), (99, event)]),
        // Payload types that have another meaning in our offer.
        ((101, 96), vec![(96, opus), (101, event)]),
    ] {
        let (sound, keys) = numbers;
        let theirs = offer(&format!(
            "m=audio 4000 RTP/AVP {sound} {keys}\r\na=rtpmap:{sound} opus/48000/2\r\n\
             a=rtpmap:{keys} telephone-event/8000\r\n",
        ));
        let plan = accept_answer(&make_offer(&local), &theirs).unwrap();
        assert_eq!((plan.payload_type, plan.telephone_event), (pt(sound), Some(pt(keys))));
        let heard = heard.into_iter().map(|(number, payload)| (pt(number), payload));
        assert_eq!(plan.heard, Vec::from_iter(heard.chain([mu])));
    }
}

#[test]
fn our_offer_is_answered_and_taken() {
    let ours = make_offer(&local());
    let peer = LocalMedia { codecs: vec![Codec::Pcmu], ..local() };
    let (theirs, plan) = negotiate(&ours, &peer).unwrap();
    assert_eq!(plan.codec, Codec::Pcmu);
    let accepted = accept_answer(&ours, &theirs).unwrap();
    assert_eq!((accepted.codec, accepted.payload_type), (Codec::Pcmu, pt(0)));
    assert_eq!(accepted.telephone_event, Some(pt(101)));
    let (mu, a) = (Payload::Sound(Codec::Pcmu), Payload::Sound(Codec::Pcma));
    assert_eq!(accepted.heard, [(pt(0), mu), (pt(101), Payload::Event), (pt(8), a)]);
    let refused = offer("m=audio 0 RTP/AVP 0\r\n");
    assert_eq!(accept_answer(&ours, &refused), Err(NegotiationError::NoAudio));
    assert_eq!(accept_answer(&ours, &offer("")), Err(NegotiationError::BadAnswer));
}
