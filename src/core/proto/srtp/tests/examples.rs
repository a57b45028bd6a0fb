//! The examples of RFC 3711 appendix B, RFC 6188 section 7 and RFC 7714 sections 16 and 17, and the
//! reference packets in the tests of libsrtp.

use super::{key, rtcp};
use crate::proto::{
    rtp::Ssrc,
    srtp::{
        CryptoSuite, MasterKey, SrtpError, SrtpReceiver, SrtpSender,
        aes_counter::AesCounter,
        derivation::{Protocol, derive},
        packet::RtpFields,
        session_keys::SessionKeys,
        transform::{GaloisCounterMode, SrtpTransform},
    },
};

fn hex(text: &str) -> Vec<u8> {
    hex::decode(text).unwrap()
}

fn key_stream(key: &str, first: &str, last: &str) {
    let mut bytes = vec![0; 16 * 0xff02];
    let block = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd0000").try_into().unwrap();
    AesCounter::new(&hex(key)).apply(block, &mut bytes);
    assert_eq!(bytes[..48], hex(first));
    assert_eq!(bytes[16 * 0xfeff..], hex(last));
}

#[test]
fn key_stream_of_rfc_3711_b_2() {
    key_stream(
        "2b7e151628aed2a6abf7158809cf4f3c",
        "e03ead0935c95e80e166b16dd92b4eb4d23513162b02d0f72a43a2fe4a5f97ab\
         41e95b3bb0a2e8dd477901e4fca894c0",
        "ec8cdf7398607cb0f2d21675ea9ea1e4362b7c3c6773516318a077d7fc5073ae\
         6a2cc3787889374fbeb4c81b17ba6c44",
    );
}

#[test]
fn key_stream_of_rfc_6188_7_1() {
    key_stream(
        "57f82fe3613fd170a85ec93c40b1f0922ec4cb0dc025b58272147cc438944a98",
        "92bdd28a93c3f52511c677d08b5515a49da71b2378a854f67050756ded165bac\
         63c4868b7096d88421b563b8c94c9a31",
        "cea518c90fd91ced9cbb18c078a547113dbc4814f4da5f00a08772b63c6a046d\
         6eb246913062a16891433e97dd01a57f",
    );
}

fn derivation(
    suite: CryptoSuite,
    master: &str,
    encryption: &str,
    salt: &str,
    authentication: &str,
) {
    let master = MasterKey::from_bytes(suite, &hex(master)).unwrap();
    let derived = derive(&master, Protocol::Srtp);
    assert_eq!(*derived.encryption, hex(encryption));
    assert_eq!(*derived.salt, hex(salt));
    assert_eq!(*derived.authentication, hex(authentication));
}

/// The authentication key has 94 bytes there, of which HMAC-SHA1 has the first 20.
#[test]
fn key_derivation_of_rfc_3711_b_3() {
    derivation(
        CryptoSuite::AesCm128HmacSha1_80,
        "e1f97a0d3e018be0d64fa32c06de41390ec675ad498afeebb6960b3aabe6",
        "c61e7a93744f39ee10734afe3ff7a087",
        "30cbbc08863d8c85d49db34a9ae1",
        "cebe321f6ff7716b6fd4ab49af256a156d38baa4",
    );
}

#[test]
fn key_derivation_of_rfc_6188_7_2() {
    derivation(
        CryptoSuite::AesCm256HmacSha1_80,
        "f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6\
         3b04803de51ee7c96423ab5b78d2",
        "5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4",
        "fa31791685ca444a9e07c6c64e93",
        "fd9c32d39ed5fbb5a9dc96b30818454d1313dc05",
    );
}

/// The session keys of the examples of RFC 7714, which begin behind the key derivation.
fn session_keys_of_rfc_7714(key_len: u8) -> SessionKeys {
    let (suite, bytes) = match key_len {
        32 => (CryptoSuite::AeadAes256Gcm, 44),
        _ => (CryptoSuite::AeadAes128Gcm, 28),
    };
    let master = MasterKey::from_bytes(suite, &vec![0; bytes]).unwrap();
    let key: Vec<u8> = (0..key_len).collect();
    let transform = || SrtpTransform::Gcm(Box::new(GaloisCounterMode::new(&key, b"Quid pro quo")));
    SessionKeys::of_transforms(master, transform(), transform())
}

#[test]
fn srtp_packets_of_rfc_7714_16() {
    let plain = [&hex("8040f17b8041f8d35501a0b2"), &b"Gallia est omnis divisa in partes tres"[..]];
    let plain = plain.concat();
    let examples = [
        (
            16,
            "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d1\
             9b36de3adf8833899d7f27beb16a9152cf765ee4390cce",
        ),
        (
            32,
            "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae\
             0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13",
        ),
    ];
    for (key_len, protected) in examples {
        let keys = session_keys_of_rfc_7714(key_len);
        let mut packet = plain.clone();
        let index = 0xf17b;
        keys.protect(&mut packet, &RtpFields::read(&plain).unwrap(), index);
        assert_eq!(packet, hex(protected));
        let fields = keys.read(&packet).unwrap();
        let len = keys.unprotect(&mut packet, &fields, index, &mut Vec::new()).unwrap();
        assert_eq!(packet[..len], plain);
    }
}

#[test]
fn srtcp_packets_of_rfc_7714_17() {
    let plain = hex("81c8000d4d6172734e5450314e545032525450200000042a0000e9304c756e61\
                     deadbeefdeadbeefdeadbeefdeadbeefdeadbeef");
    let encrypted = [
        (
            16,
            "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b\
             4686303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4",
        ),
        (
            32,
            "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be8415f6\
             58c61de0476f1b6fad1d1eb30c4446839f57ff6f6cb26ac3be800005d4",
        ),
    ];
    for (key_len, protected) in encrypted {
        let keys = session_keys_of_rfc_7714(key_len);
        let mut packet = plain.clone();
        keys.protect_rtcp(&mut packet, Ssrc(0x4d61_7273), 0x5d4);
        assert_eq!(packet, hex(protected));
        assert_eq!(unprotected_rtcp(&keys, packet), plain);
    }
    // Without the E flag: only authenticated.
    let tags = [(16, "841dd9683dd78ec92ae58790125f62b3"), (32, "91db4afbfeee5a978fab4393ed2615fe")];
    for (key_len, tag) in tags {
        let packet = [plain.clone(), hex(tag), hex("000005d4")].concat();
        assert_eq!(unprotected_rtcp(&session_keys_of_rfc_7714(key_len), packet), plain);
    }
}

fn unprotected_rtcp(keys: &SessionKeys, mut packet: Vec<u8>) -> Vec<u8> {
    let fields = keys.read_rtcp(&packet).unwrap();
    assert_eq!((fields.ssrc, fields.index), (Ssrc(0x4d61_7273), 0x5d4));
    let len = keys.unprotect_rtcp(&mut packet, &fields, &mut Vec::new()).unwrap();
    packet.truncate(len);
    packet
}

/// The peer decides for each packet whether it encrypts it (RFC 3711 section 3.4).
#[test]
fn an_srtcp_packet_without_the_e_flag_is_authenticated_and_not_decrypted() {
    let master = key(CryptoSuite::AesCm128HmacSha1_32, 7);
    let SrtpTransform::CounterMode(mode) = SrtpTransform::derive(&master, Protocol::Srtcp) else {
        panic!("the suite has counter mode");
    };
    let mut packet = [rtcp(1), vec![0, 0, 0, 5]].concat();
    let tag = mode.tag(&packet, &[]);
    packet.extend(&tag[..10]);
    let mut receiver = SrtpReceiver::new(master, None);
    let mut forged = packet.clone();
    forged[rtcp(1).len()] = 0x80;
    assert_eq!(receiver.unprotect_rtcp(&mut forged), Err(SrtpError::Authentication));
    assert_eq!(receiver.unprotect_rtcp(&mut packet.clone()), Ok(&mut rtcp(1)[..]));
    assert_eq!(receiver.unprotect_rtcp(&mut packet), Err(SrtpError::Replayed));
}

/// Of `test/srtp_driver.c`; the SRTCP packets have index 1.
#[test]
fn reference_packets_of_libsrtp() {
    let rtp = hex("800f1234decafbadcafebabeabababababababababababababababab");
    let rtcp = hex("81c8000bcafebabeabababababababababababababababab");
    let references = [
        (
            CryptoSuite::AesCm128HmacSha1_80,
            "e1f97a0d3e018be0d64fa32c06de41390ec675ad498afeebb6960b3aabe6",
            "800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb",
            "81c8000bcafebabe7128035be487b9bdbef89041f977a5a880000001993e08cd54d6c1230798",
        ),
        (
            CryptoSuite::AesCm256HmacSha1_80,
            "f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6\
             3b04803de51ee7c96423ab5b78d2",
            "800f1234decafbadcafebabef1d9de17ff251ff1aa007774b0b4b40da08d9d9a5b3a55d8873b",
            "",
        ),
        (
            CryptoSuite::AeadAes128Gcm,
            "000102030405060708090a0b0c0d0e0fa0a1a2a3a4a5a6a7a8a9aaab",
            "800f1234decafbadcafebabec5002ede04cfdd2eb91159e0880aa06ed2976826f796b201df3131a127e8a3\
             92",
            "81c8000bcafebabec98b8b5df0392a55852b6c21ac8e7025c52c6fbea2b3b446ea31123ba88ce61e800000\
             01",
        ),
    ];
    for (suite, key, srtp, srtcp) in references {
        let key = MasterKey::from_bytes(suite, &hex(key)).unwrap();
        let mut sender = SrtpSender::new(key.clone(), None);
        let mut receiver = SrtpReceiver::new(key, None);
        let mut packet = rtp.clone();
        sender.protect(&mut packet).unwrap();
        assert_eq!(packet, hex(srtp), "{suite:?}");
        assert_eq!(receiver.unprotect(&mut packet).unwrap(), rtp);
        if srtcp.is_empty() {
            continue;
        }
        sender.protect_rtcp(&mut rtcp.clone()).unwrap();
        let mut packet = rtcp.clone();
        sender.protect_rtcp(&mut packet).unwrap();
        assert_eq!(packet, hex(srtcp), "{suite:?}");
        assert_eq!(receiver.unprotect_rtcp(&mut packet).unwrap(), rtcp);
    }
}
