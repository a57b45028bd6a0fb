//! Certificates: which ones are requested, and when new ones apply.

use tokio::io::AsyncReadExt;

use super::peers::{Authority, Node, Phone, config, tls as tls_stream};
use crate::drivers::signalling::{SignallingConfig, StartError, TlsError, TlsFiles, start};
use aftertone_core::proto::sip::path::Transport;

fn secure(tls: TlsFiles) -> SignallingConfig {
    SignallingConfig { tls, ..config(&[Transport::Tls]) }
}

async fn is_served(phone: &mut Phone, name: &str) -> bool {
    phone.send(phone.request("OPTIONS", 1, name, "")).await;
    phone.receive().await.starts_with("SIP/2.0 200 ")
}

#[tokio::test]
async fn new_certificates_count_for_new_connections() {
    let (old, new) = (Authority::new(), Authority::new());
    let node = Node::start(secure(old.server())).await;
    let mut before = Phone::tls(&node, &old.client()).await;
    assert!(is_served(&mut before, "before").await);

    node.signalling.reload_tls(&new.server()).unwrap();
    let mut after = Phone::tls(&node, &new.client()).await;
    assert!(is_served(&mut after, "after").await);
    assert!(is_served(&mut before, "still").await, "what is up stays up");
    node.stop().await;
}

#[tokio::test]
async fn certificates_that_cannot_be_used_change_nothing() {
    let authority = Authority::new();
    let node = Node::start(secure(authority.server())).await;
    let (certificate, _) = authority.certificate("other");
    let (_, key) = authority.certificate("127.0.0.1");
    let wrong = TlsFiles { identity: Some((certificate, key)), ..TlsFiles::default() };
    assert!(matches!(node.signalling.reload_tls(&wrong), Err(TlsError::Unusable { .. })));
    let missing = TlsFiles { client_ca: Some("none.pem".into()), ..authority.server() };
    let error = node.signalling.reload_tls(&missing).unwrap_err().to_string();
    assert!(error.contains("none.pem"), "{error}");
    let mut phone = Phone::tls(&node, &authority.client()).await;
    assert!(is_served(&mut phone, "unchanged").await);
    node.stop().await;
}

#[tokio::test]
async fn a_client_certificate_is_required_when_asked_for() {
    let authority = Authority::new();
    let asking = TlsFiles { client_ca: Some(authority.file()), ..authority.server() };
    let node = Node::start(secure(asking)).await;

    let identity = Some(authority.certificate("phone.example"));
    let mut known = Phone::tls(&node, &TlsFiles { identity, ..authority.client() }).await;
    assert!(is_served(&mut known, "known").await);

    let strangers = Authority::new();
    let foreign =
        TlsFiles { identity: Some(strangers.certificate("phone.example")), ..authority.client() };
    for files in [authority.client(), foreign] {
        // With TLS 1.3 the client learns of it after its own handshake.
        let (mut stream, _) = tls_stream(node.address(Transport::Tls), &files).await;
        assert!(stream.read_u8().await.is_err());
    }
    node.stop().await;
}

#[tokio::test]
async fn browsers_are_not_asked_for_a_certificate() {
    let authority = Authority::new();
    let tls = TlsFiles { client_ca: Some(authority.file()), ..authority.server() };
    let node =
        Node::start(SignallingConfig { tls, ..config(&[Transport::Tls, Transport::Wss]) }).await;
    let mut browser = Phone::wss(&node, &authority.client()).await;
    assert!(is_served(&mut browser, "browser").await);
    let (mut phone, _) = tls_stream(node.address(Transport::Tls), &authority.client()).await;
    assert!(phone.read_u8().await.is_err());
    node.stop().await;
}

#[tokio::test]
async fn a_secure_listener_needs_a_certificate() {
    let (events, _) = tokio::sync::mpsc::channel(1);
    let started = start(secure(TlsFiles::default()), events, Default::default()).await;
    let error = started.err().unwrap();
    assert!(matches!(error, StartError::NoCertificate { .. }), "{error}");
}
