//! SIGHUP to a running daemon: new certificates are used for new connections, and an error changes
//! nothing.

mod support;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use support::{Node, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName},
    },
};

const SOON: Duration = Duration::from_secs(30);

/// The authority that signs the daemon's certificates and that its clients trust.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    client: TlsConnector,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { issuer, client: TlsConnector::from(Arc::new(config)) }
    }

    /// Writes a certificate for 127.0.0.1 and its key to the daemon's paths.
    fn sign_into(&self, folder: &Path) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        std::fs::write(folder.join("sip.pem"), certificate.pem()).unwrap();
        std::fs::write(folder.join("sip.key"), key.serialize_pem()).unwrap();
        certificate.der().clone()
    }

    async fn connect(&self, to: SocketAddr) -> std::io::Result<Phone> {
        let stream = TcpStream::connect(to).await?;
        let local = stream.local_addr()?;
        let name = ServerName::from(to.ip());
        let stream = timeout(SOON, self.client.connect(name, stream)).await??;
        Ok(Phone { stream, local })
    }
}

/// A phone with one TLS connection.
struct Phone {
    stream: TlsStream<TcpStream>,
    local: SocketAddr,
}

impl Phone {
    fn certificate(&self) -> CertificateDer<'static> {
        let (_, session) = self.stream.get_ref();
        session.peer_certificates().unwrap()[0].clone().into_owned()
    }

    async fn send(&mut self, method: &str, cseq: u32, to_tag: &str, body: &str) {
        let local = self.local;
        let content_type = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let request = format!(
            "{method} sip:echo@127.0.0.1 SIP/2.0\r\n\
             Via: SIP/2.0/TLS {local};branch=z9hG4bK-{cseq}-{method};rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:phone@127.0.0.1>;tag=phone\r\n\
             To: <sip:echo@127.0.0.1>{to_tag}\r\nCall-ID: kept@{local}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:phone@{local};transport=tls>\r\n\
             {content_type}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The head of the final response; its body is skipped.
    async fn answer(&mut self) -> String {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(timeout(SOON, self.stream.read_u8()).await.unwrap().unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
            let mut body = vec![0; length.unwrap().trim().parse().unwrap()];
            self.stream.read_exact(&mut body).await.unwrap();
            if !head.starts_with("SIP/2.0 1") {
                return head;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_certificates_count_for_new_connections_while_a_call_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new(), Authority::new());
    let first = old.sign_into(folder.path());
    let config = "[sip]\nlisten = [\"udp:127.0.0.1:0\", \"tls:127.0.0.1:0\"]\n\
                  tls_certificate = \"sip.pem\"\ntls_key = \"sip.key\"\n";
    let node = Node::start_in(folder, config);
    let address = node.listener("tls");
    let mut caller = old.connect(address).await.unwrap();
    assert_eq!(caller.certificate(), first);
    let offer = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                 m=audio 40000 RTP/AVP 0\r\n";
    caller.send("INVITE", 1, "", offer).await;
    let ok = caller.answer().await;
    assert!(ok.starts_with("SIP/2.0 200 "), "{ok}");
    let to = ok.lines().find_map(|line| line.strip_prefix("To: <sip:echo@127.0.0.1>")).unwrap();
    let tag = to.to_owned();
    caller.send("ACK", 1, &tag, "").await;

    let second = new.sign_into(node.folder());
    node.signal("HUP");
    let said = |node: &Node, what: &str| node.log_text().contains(what);
    eventually("the reload", SOON, async || said(&node, "Reloaded:").then_some(())).await;
    let later = new.connect(address).await.unwrap();
    assert_eq!(later.certificate(), second);
    assert!(old.connect(address).await.is_err(), "the old certificate is shown no more");

    // A file that is no key.
    std::fs::write(node.folder().join("sip.key"), "nonsense").unwrap();
    node.signal("HUP");
    let refusal = "The configuration was not reloaded";
    eventually("the refusal", SOON, async || said(&node, refusal).then_some(())).await;
    let told = node.log_text();
    let line = told.lines().find(|line| line.contains(refusal)).unwrap();
    assert!(line.contains("sip.key"), "{line}");
    let still = new.connect(address).await.unwrap();
    assert_eq!(still.certificate(), second);

    // The call keeps its connection.
    caller.send("OPTIONS", 2, &tag, "").await;
    let there = caller.answer().await;
    assert!(there.starts_with("SIP/2.0 200 "), "{there}");
    caller.send("BYE", 3, &tag, "").await;
    let gone = caller.answer().await;
    assert!(gone.starts_with("SIP/2.0 200 "), "{gone}");
}

#[tokio::test]
async fn a_log_level_that_is_none_leaves_the_log_as_it_is() {
    let node = Node::start("");
    let config = node.folder().join("aftertone.toml");
    let wrong = std::fs::read_to_string(&config).unwrap() + "[telemetry]\nlog = \"warning\"\n";
    std::fs::write(&config, wrong).unwrap();
    node.signal("HUP");
    node.logs("The configuration was not reloaded: telemetry.log: \"warning\"", 1).await;
}
