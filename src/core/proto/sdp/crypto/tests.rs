//! The attribute `crypto`: what is read, what is refused, and offer and answer with keys.

use crate::{
    audio::Codec,
    model::EncryptionFault,
    proto::{
        sdp::{
            Description, LocalMedia, LocalSecurity, MediaSecret, NegotiationError, SrtpPolicy,
            StreamPlan, accept_answer, accept_answer_again, make_offer, make_offer_again,
            negotiate, suspend,
        },
        srtp::CryptoSuite,
    },
};

use super::CryptoLine;
use EncryptionFault::{
    Downgrade, KeyLength, KeysMissing, KeysUnreadable, NoCommonSuite, SessionParameter,
    SeveralKeys, SwitchedOff,
};

/// 30 bytes: a key and a salt for AES_CM_128.
const KEY: &str = "PS1uQCVeeCFCanVmcjkpPywjNWhcYD0mXXtxaVBR";
const SUITE: &str = "AES_CM_128_HMAC_SHA1_80";

fn local(policy: SrtpPolicy) -> LocalMedia {
    LocalMedia {
        address: "198.51.100.7".parse().unwrap(),
        port: 20_000,
        codecs: vec![Codec::Pcma, Codec::Pcmu],
        security: LocalSecurity {
            policy,
            is_encrypted: false,
            is_signalling_encrypted: true,
            secret: MediaSecret::new([7; MediaSecret::LEN]),
        },
        session_id: 1,
        session_version: 1,
    }
}

fn described(lines: &str) -> Description {
    let head = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n";
    Description::parse(format!("{head}{lines}").as_bytes()).unwrap()
}

/// An audio line with these `crypto` lines.
fn audio(profile: &str, crypto: &[&str]) -> String {
    let crypto: String = crypto.iter().map(|line| format!("a=crypto:{line}\r\n")).collect();
    format!("m=audio 4000 {profile} 0\r\n{crypto}")
}

fn answer(offer: &str, policy: SrtpPolicy) -> Result<(String, StreamPlan), NegotiationError> {
    let (answer, plan) = negotiate(&described(offer), &local(policy))?;
    Ok((answer.to_string(), plan))
}

fn refused(offer: &str, policy: SrtpPolicy) -> EncryptionFault {
    match answer(offer, policy) {
        Err(NegotiationError::Encryption(fault)) => fault,
        other => panic!("{other:?}"),
    }
}

fn line(key_params: &str) -> String {
    format!("1 {SUITE} {key_params}")
}

fn parse(text: &str) -> Result<CryptoLine, EncryptionFault> {
    CryptoLine::parse(text)
}

#[test]
fn a_line_is_read_as_phones_write_it() {
    for (text, mki) in [
        (line(&format!("inline:{KEY}")), None),
        (line(&format!("INLINE:{KEY}|2^20")), None),
        (line(&format!("inline:{KEY}|1048576")), None),
        (line(&format!("inline:{KEY}|2^20|1:4")), Some((1, 4))),
        (line(&format!("inline:{KEY}|66:1")), Some((66, 1))),
        (line(&format!("inline:{KEY}||1:4")), Some((1, 4))),
        (line(&format!("inline:{KEY}|2^48|0:128")), Some((0, 128))),
        (line(&format!("inline:{KEY} KDR=0 WSH=64 -vendor=x")), None),
        (format!("1  aes_cm_128_hmac_sha1_80\tinline:{KEY}"), None),
        (format!("000000001 {SUITE} inline:{KEY}"), None),
    ] {
        let read = parse(&text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
        assert_eq!((read.tag, read.suite), (1, CryptoSuite::AesCm128HmacSha1_80), "{text}");
        assert_eq!(read.mki.map(|mki| (mki.value(), mki.length())), mki, "{text}");
    }
    // 46 bytes without padding, 44 bytes and 28 bytes.
    for (suite, bytes) in
        [("AES_256_CM_HMAC_SHA1_80", 46), ("AEAD_AES_256_GCM", 44), ("AEAD_AES_128_GCM", 28)]
    {
        use base64::Engine;
        let key = base64::engine::general_purpose::STANDARD_NO_PAD.encode(vec![1; bytes]);
        let read = parse(&format!("9 {suite} inline:{key}")).unwrap();
        assert_eq!((read.tag, read.suite.name()), (9, suite));
        assert_eq!(read.key.as_bytes(), vec![1; bytes]);
    }
}

#[test]
fn what_cannot_be_kept_is_refused() {
    for (text, fault) in [
        (String::new(), KeysUnreadable),
        (format!("x {SUITE} inline:{KEY}"), KeysUnreadable),
        (format!("+1 {SUITE} inline:{KEY}"), KeysUnreadable),
        (format!("1234567890 {SUITE} inline:{KEY}"), KeysUnreadable),
        (format!("1 {SUITE}"), KeysUnreadable),
        (format!("1 F8_128_HMAC_SHA1_80 inline:{KEY}"), NoCommonSuite),
        (format!("1 NULL_HMAC_SHA1_80 inline:{KEY}"), NoCommonSuite),
        (line(&format!("uri:{KEY}")), KeysUnreadable),
        (line("inl"), KeysUnreadable),
        (line("inline:"), KeyLength),
        (line("inline:é"), KeysUnreadable),
        (line("inline:####"), KeysUnreadable),
        (line("inline:AAAA"), KeyLength),
        (line(&format!("inline:{KEY}AAAA")), KeyLength),
        (line(&format!("inline:{KEY}|2^x")), KeysUnreadable),
        (line(&format!("inline:{KEY}|0")), KeysUnreadable),
        (line(&format!("inline:{KEY}|2^20|1")), KeysUnreadable),
        (line(&format!("inline:{KEY}|2^20|1:0")), KeysUnreadable),
        (line(&format!("inline:{KEY}|2^20|1:129")), KeysUnreadable),
        (line(&format!("inline:{KEY}|2^20|256:1")), KeysUnreadable),
        (line(&format!("inline:{KEY}|2^20|1:4|2:4")), KeysUnreadable),
        (line(&format!("inline:{KEY}|2^20|1:4;inline:{KEY}|2^20|2:4")), SeveralKeys),
        (line(&format!("inline:{KEY} UNENCRYPTED_SRTP")), SessionParameter),
        (line(&format!("inline:{KEY} UNENCRYPTED_SRTCP")), SessionParameter),
        (line(&format!("inline:{KEY} UNAUTHENTICATED_SRTP")), SessionParameter),
        (line(&format!("inline:{KEY} KDR=1")), SessionParameter),
        (line(&format!("inline:{KEY} FEC_ORDER=FEC_SRTP")), SessionParameter),
        (line(&format!("inline:{KEY} vendor=x")), SessionParameter),
    ] {
        assert_eq!(parse(&text), Err(fault), "{text}");
    }
}

#[test]
fn the_first_line_that_can_be_used_is_answered_with_its_tag_and_its_profile() {
    for profile in ["RTP/SAVP", "RTP/SAVPF", "rtp/savp", "RTP/AVP", "RTP/AVPF"] {
        let crypto = [
            &format!("3 F8_128_HMAC_SHA1_80 inline:{KEY}")[..],
            &format!("4 {SUITE} inline:{KEY} UNENCRYPTED_SRTP"),
            &format!("5 AES_CM_128_HMAC_SHA1_32 inline:{KEY}|2^31|1:1"),
            &format!("6 {SUITE} inline:{KEY}"),
        ];
        let (text, plan) = answer(&audio(profile, &crypto), SrtpPolicy::Optional).unwrap();
        let keys = plan.srtp.unwrap();
        assert_eq!((keys.tag, keys.suite()), (5, CryptoSuite::AesCm128HmacSha1_32));
        assert_eq!(keys.mki.map(|mki| mki.value()), Some(1));
        assert_ne!(keys.ours, keys.theirs);
        let echoed = profile.to_uppercase();
        assert!(text.contains(&format!("m=audio 20000 {echoed} 0\r\n")), "{text}");
        assert_eq!(text.matches("a=crypto:").count(), 1, "{text}");
        assert!(text.contains("a=crypto:5 AES_CM_128_HMAC_SHA1_32 inline:"), "{text}");
        assert!(!text.contains(KEY), "our key is our own: {text}");
    }
    // Some phones spell the suite in another way, and expect it so in the answer.
    let key = "A".repeat(62);
    let old = format!("1 AES_CM_256_HMAC_SHA1_80 inline:{key}");
    let (text, _) = answer(&audio("RTP/SAVP", &[&old]), SrtpPolicy::Optional).unwrap();
    assert!(text.contains("a=crypto:1 AES_CM_256_HMAC_SHA1_80 inline:"), "{text}");
}

#[test]
fn the_policy_decides_which_offers_are_accepted() {
    use SrtpPolicy::{Off, Optional, Required};
    let usable = line(&format!("inline:{KEY}"));
    let broken = line("inline:AAAA");
    let (savp, savp_broken) = (audio("RTP/SAVP", &[&usable]), audio("RTP/SAVP", &[&broken]));
    let (avp, avp_keys) = (audio("RTP/AVP", &[]), audio("RTP/AVP", &[&usable]));
    let avp_broken = audio("RTP/AVP", &[&broken]);
    let is_encrypted =
        |offer: &str, policy| answer(offer, policy).map(|(_, plan)| plan.srtp.is_some());
    assert_eq!(is_encrypted(&avp, Off), Ok(false));
    assert_eq!(is_encrypted(&avp_keys, Off), Ok(false), "RFC 8643: the keys are only an option");
    assert_eq!(is_encrypted(&avp, Optional), Ok(false));
    assert_eq!(is_encrypted(&avp_keys, Optional), Ok(true));
    assert_eq!(is_encrypted(&avp_broken, Optional), Ok(false));
    assert_eq!(is_encrypted(&savp, Optional), Ok(true));
    assert_eq!(is_encrypted(&avp_keys, Required), Ok(true));
    assert_eq!(is_encrypted(&savp, Required), Ok(true));
    assert_eq!(refused(&savp, Off), SwitchedOff);
    assert_eq!(refused(&avp, Required), EncryptionFault::Required);
    assert_eq!(refused(&avp_broken, Required), EncryptionFault::Required);
    assert_eq!(refused(&savp_broken, Optional), KeyLength);
    assert_eq!(refused(&audio("RTP/SAVP", &[]), Required), KeysMissing);
    // Of several lines, the encrypted one is taken, wherever it stands.
    for offer in [format!("{avp}{savp}"), format!("{savp}{avp}"), format!("{savp_broken}{savp}")] {
        assert_eq!(is_encrypted(&offer, Optional), Ok(true), "{offer}");
    }
    let (text, _) = answer(&format!("{avp}{savp}"), Optional).unwrap();
    assert!(text.contains("m=audio 0 RTP/AVP 0\r\nm=audio 20000 RTP/SAVP 0\r\n"), "{text}");
    assert_eq!(is_encrypted(&format!("{savp_broken}{avp}"), Optional), Ok(false));
}

#[test]
fn our_offers_have_keys_where_they_protect_something() {
    let text = |policy, is_signalling_encrypted| {
        let mut local = local(policy);
        local.security.is_signalling_encrypted = is_signalling_encrypted;
        make_offer(&local).to_string()
    };
    for (policy, is_signalling_encrypted, profile, lines) in [
        (SrtpPolicy::Off, true, "RTP/AVP", 0),
        (SrtpPolicy::Optional, false, "RTP/AVP", 0),
        (SrtpPolicy::Optional, true, "RTP/AVP", 5),
        (SrtpPolicy::Required, false, "RTP/SAVP", 5),
        (SrtpPolicy::Required, true, "RTP/SAVP", 5),
    ] {
        let text = text(policy, is_signalling_encrypted);
        assert!(text.contains(&format!("m=audio 20000 {profile} 8 0 101\r\n")), "{text}");
        assert_eq!(text.matches("a=crypto:").count(), lines, "{text}");
    }
    let text = text(SrtpPolicy::Required, true);
    let keys: std::collections::BTreeSet<_> =
        text.lines().filter_map(|line| line.split_once("inline:")).map(|(_, key)| key).collect();
    assert_eq!(keys.len(), 5, "no key serves two suites: {text}");
}

#[test]
fn both_sides_have_the_same_keys_for_each_suite_that_an_answer_may_choose() {
    let caller = local(SrtpPolicy::Required);
    let mut callee = local(SrtpPolicy::Optional);
    callee.security.secret = MediaSecret::new([8; MediaSecret::LEN]);
    let mut offer = make_offer(&caller);
    for tag in 1..=5 {
        let (answer, theirs) = negotiate(&offer, &callee).unwrap();
        let ours = accept_answer(&offer, &answer).unwrap().srtp.unwrap();
        let theirs = theirs.srtp.unwrap();
        assert_eq!((ours.tag, theirs.tag), (tag, tag));
        assert_eq!((&ours.ours, &ours.theirs), (&theirs.theirs, &theirs.ours));
        // The callee does not know this suite, and takes the next one.
        let first = offer.media[0].attributes.iter().position(|line| line.name == "crypto");
        offer.media[0].attributes.remove(first.unwrap());
    }
}

#[test]
fn an_answer_has_to_take_the_keys_of_the_offer() {
    let offer = make_offer(&local(SrtpPolicy::Required));
    let accept = |lines: &str| accept_answer(&offer, &described(lines)).map(|plan| plan.srtp);
    let fault = |lines: &str| match accept(lines) {
        Err(NegotiationError::Encryption(fault)) => fault,
        other => panic!("{lines}: {other:?}"),
    };
    let with_tag = |tag: u32| format!("{tag} {SUITE} inline:{KEY}");
    assert!(accept(&audio("RTP/SAVP", &[&with_tag(4)])).unwrap().is_some());
    assert!(accept(&audio("RTP/AVP", &[&with_tag(4)])).unwrap().is_some(), "keys are keys");
    assert_eq!(fault(&audio("RTP/SAVP", &[&with_tag(1)])), NoCommonSuite, "tag of another suite");
    assert_eq!(fault(&audio("RTP/SAVP", &[&with_tag(9)])), NoCommonSuite);
    assert_eq!(fault(&audio("RTP/SAVP", &[])), KeysMissing);
    assert_eq!(fault(&audio("RTP/AVP", &[])), KeysMissing);
    // Keys that were an option need not be taken; keys that were not offered cannot be.
    let optional = make_offer(&local(SrtpPolicy::Optional));
    let accept = |lines: &str| accept_answer(&optional, &described(lines));
    assert_eq!(accept(&audio("RTP/AVP", &[])).unwrap().srtp, None);
    assert!(accept(&audio("RTP/AVP", &[&with_tag(4)])).unwrap().srtp.is_some());
    assert!(accept(&audio("RTP/SAVP", &[])).is_err());
    let clear = make_offer(&local(SrtpPolicy::Off));
    let accept = |lines: &str| accept_answer(&clear, &described(lines));
    assert!(accept(&audio("RTP/SAVP", &[&with_tag(1)])).is_err());
    assert_eq!(accept(&audio("RTP/AVP", &[&with_tag(1)])).unwrap().srtp, None);
}

#[test]
fn an_encrypted_call_stays_encrypted_and_keeps_our_key() {
    let first = format!("2 {SUITE} inline:{KEY}");
    let mut ours = local(SrtpPolicy::Optional);
    let (described_first, plan) =
        negotiate(&described(&audio("RTP/SAVP", &[&first])), &ours).unwrap();
    let keys = plan.srtp.clone().unwrap();
    ours.security.is_encrypted = true;
    // The peer offers again: the same key, another one, or none.
    let (_, again) = negotiate(&described(&audio("RTP/SAVP", &[&first])), &ours).unwrap();
    assert_eq!(again.srtp.as_ref(), Some(&keys));
    let other = format!("1 {SUITE} inline:{}", "B".repeat(40));
    let (text, rekeyed) = negotiate(&described(&audio("RTP/SAVP", &[&other])), &ours).unwrap();
    let rekeyed = rekeyed.srtp.unwrap();
    assert_eq!((rekeyed.tag, &rekeyed.ours), (1, &keys.ours));
    assert_ne!(rekeyed.theirs, keys.theirs);
    assert!(text.to_string().contains(&format!("a=crypto:1 {SUITE} inline:")));
    let clear = described(&audio("RTP/AVP", &[]));
    assert_eq!(negotiate(&clear, &ours).unwrap_err(), NegotiationError::Encryption(Downgrade));
    // We offer again: the same line; an answer without keys would end the encryption.
    let offer = make_offer_again(&ours, &described_first, &plan.named);
    let text = offer.to_string();
    assert!(text.contains("m=audio 20000 RTP/SAVP "), "{text}");
    let crypto =
        |text: &str| text.lines().find(|line| line.starts_with("a=crypto:")).map(str::to_owned);
    assert_eq!(crypto(&text), crypto(&described_first.to_string()));
    let answer = described(&audio("RTP/SAVP", &[&first]));
    assert_eq!(accept_answer_again(&offer, &answer, &plan).unwrap().srtp, plan.srtp);
    assert!(accept_answer_again(&offer, &clear, &plan).is_err());
    // The audio is suspended and resumed.
    let port_0 = audio("RTP/SAVP", &[]).replace("4000", "0");
    let (held, suspended) = suspend(&described(&port_0), &ours, &plan, &described_first).unwrap();
    assert_eq!(suspended.srtp, plan.srtp);
    let resumed = make_offer_again(&ours, &held, &plan.named).to_string();
    assert_eq!(crypto(&resumed), crypto(&described_first.to_string()));
}

#[test]
fn an_opportunistic_call_does_not_lose_its_keys_either() {
    let ours = local(SrtpPolicy::Optional);
    let offer = make_offer(&ours);
    let answer = described(&audio("RTP/AVP", &[&format!("4 {SUITE} inline:{KEY}")]));
    let plan = accept_answer(&offer, &answer).unwrap();
    let again = make_offer_again(&ours, &offer, &plan.named);
    let clear = described(&audio("RTP/AVP", &[]));
    assert_eq!(
        accept_answer_again(&again, &clear, &plan).unwrap_err(),
        NegotiationError::Encryption(Downgrade)
    );
}

#[test]
fn another_peer_of_the_call_gets_other_keys() {
    let secret = MediaSecret::new([7; MediaSecret::LEN]);
    let next = secret.for_next_peer();
    for suite in CryptoSuite::ALL {
        assert_eq!(secret.key(suite), secret.key(suite));
        assert_ne!(secret.key(suite).as_bytes(), next.key(suite).as_bytes());
        assert_ne!(next.key(suite).as_bytes(), next.for_next_peer().key(suite).as_bytes());
    }
    assert_eq!(format!("{secret:?}"), "MediaSecret { peer: 0, .. }");
}

#[test]
fn many_lines_are_read_in_time_and_no_text_panics() {
    let lines: Vec<String> =
        (0..600).map(|tag| format!("{tag} F8_128_HMAC_SHA1_80 inline:{KEY}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    assert_eq!(refused(&audio("RTP/SAVP", &lines), SrtpPolicy::Optional), NoCommonSuite);
}
