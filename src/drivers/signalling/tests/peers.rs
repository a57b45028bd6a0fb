//! Both sides of a call: a node, and phones over any transport.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use futures_util::{SinkExt, StreamExt};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UdpSocket},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message, client::IntoClientRequest, http::HeaderValue},
};
use tokio_util::sync::CancellationToken;

use crate::drivers::signalling::{
    Signalling, SignallingConfig, SipListener, StreamLimits, TlsFiles, start, tls::TlsConfigs,
};
use aftertone_core::proto::sip::{
    digest::{self, Credentials},
    endpoint::Event,
    framing::{Frame, StreamFramer},
    message::Method,
    path::Transport,
};

/// Time limit for anything that is expected.
pub const SOON: Duration = Duration::from_secs(60);

/// The service and its events.
pub struct Node {
    pub signalling: Signalling,
    pub events: mpsc::Receiver<Event>,
    listeners: Vec<SipListener>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

/// A node that listens over these transports, without trusted peers.
pub fn config(transports: &[Transport]) -> SignallingConfig {
    let address = "127.0.0.1:0".parse().unwrap();
    SignallingConfig {
        listen: transports
            .iter()
            .map(|transport| SipListener { transport: *transport, address })
            .collect(),
        advertised: None,
        server_name: "test".to_owned(),
        realm: "test".to_owned(),
        domain: String::new(),
        digest: Vec::new(),
        users: Vec::new(),
        tls: TlsFiles::default(),
        trusted_peers: Vec::new(),
        web_origins: Vec::new(),
        limits: StreamLimits::default(),
    }
}

impl Node {
    pub async fn start(config: SignallingConfig) -> Self {
        let (sender, events) = mpsc::channel(16);
        let cancel = CancellationToken::new();
        let (signalling, listeners, task) = start(config, sender, cancel.clone()).await.unwrap();
        Self { signalling, events, listeners, cancel, task }
    }

    pub fn address(&self, transport: Transport) -> SocketAddr {
        self.listeners.iter().find(|bound| bound.transport == transport).unwrap().address
    }

    pub async fn event(&mut self) -> Event {
        loop {
            match timeout(SOON, self.events.recv()).await.unwrap().unwrap() {
                // Whether the callers are known does not matter in these tests.
                Event::Heard { .. } => {}
                event => return event,
            }
        }
    }

    pub async fn stop(self) {
        self.cancel.cancel();
        timeout(SOON, self.task).await.unwrap().unwrap();
    }
}

pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// A phone with one stream.
pub struct Phone {
    wire: Wire,
    local: SocketAddr,
    transport: Transport,
}

enum Wire {
    Datagrams(UdpSocket),
    Stream(Box<dyn Duplex>, StreamFramer),
    WebSocket(Box<WebSocketStream<Box<dyn Duplex>>>),
}

impl Phone {
    pub async fn udp_to(address: SocketAddr) -> Self {
        let any = if address.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" };
        let socket = UdpSocket::bind(any).await.unwrap();
        // The socket does not accept datagrams from another address of the node.
        socket.connect(address).await.unwrap();
        let local = socket.local_addr().unwrap();
        Self { wire: Wire::Datagrams(socket), local, transport: Transport::Udp }
    }

    /// The other end of a stream that a node has opened.
    pub fn called(stream: Box<dyn Duplex>, local: SocketAddr, transport: Transport) -> Self {
        Self { wire: Wire::Stream(stream, StreamFramer::new()), local, transport }
    }

    pub async fn tcp(node: &Node) -> Self {
        Self::tcp_to(node.address(Transport::Tcp)).await
    }

    pub async fn tcp_to(address: SocketAddr) -> Self {
        Self::over_tcp(TcpStream::connect(address).await.unwrap())
    }

    /// A phone at another address of this host.
    pub async fn tcp_between(from: &str, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        Self::over_tcp(socket.connect(address).await.unwrap())
    }

    fn over_tcp(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        let local = stream.local_addr().unwrap();
        let wire = Wire::Stream(Box::new(stream), StreamFramer::new());
        Self { wire, local, transport: Transport::Tcp }
    }

    pub async fn tls(node: &Node, files: &TlsFiles) -> Self {
        let (stream, local) = tls(node.address(Transport::Tls), files).await;
        let wire = Wire::Stream(stream, StreamFramer::new());
        Self { wire, local, transport: Transport::Tls }
    }

    pub async fn ws(node: &Node) -> Self {
        Self::of_page(node, None).await.unwrap()
    }

    /// A script of a web page of this origin.
    pub async fn of_page(
        node: &Node,
        origin: Option<&'static str>,
    ) -> Result<Self, tungstenite::Error> {
        let stream = TcpStream::connect(node.address(Transport::Ws)).await.unwrap();
        let local = stream.local_addr().unwrap();
        let socket = upgrade_from(Box::new(stream), Some("sip"), origin).await?;
        Ok(Self { wire: Wire::WebSocket(Box::new(socket)), local, transport: Transport::Ws })
    }

    pub async fn wss(node: &Node, files: &TlsFiles) -> Self {
        let (stream, local) = tls(node.address(Transport::Wss), files).await;
        let socket = upgrade(stream, Some("sip")).await.unwrap();
        Self { wire: Wire::WebSocket(Box::new(socket)), local, transport: Transport::Wss }
    }

    /// A request of the call `name`, with a Content-Length.
    pub fn request(&self, method: &str, cseq: u32, name: &str, to_tag: &str) -> String {
        let (local, transport) = (self.local, self.transport.name());
        format!(
            "{method} sip:100@127.0.0.1 SIP/2.0\r\n\
             Via: SIP/2.0/{transport} {local};branch=z9hG4bK-{name}-{cseq}{method};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:phone@127.0.0.1>;tag=phone\r\n\
             To: <sip:100@127.0.0.1>{to_tag}\r\n\
             Call-ID: {name}@127.0.0.1\r\n\
             CSeq: {cseq} {method}\r\n\
             Contact: <sip:phone@{local};transport={transport}>\r\n\
             Content-Length: 0\r\n\r\n"
        )
    }

    /// The answer to a request of the node.
    pub fn answer(request: &str, status: &str, to_tag: &str, more: &str) -> String {
        let line = |name: &str| request.lines().find(|line| line.starts_with(name)).unwrap();
        let [via, from, to] = ["Via:", "From:", "To:"].map(line);
        let [call_id, cseq] = ["Call-ID:", "CSeq:"].map(line);
        format!(
            "SIP/2.0 {status}\r\n{via}\r\n{from}\r\n{to}{to_tag}\r\n{call_id}\r\n{cseq}\r\n\
             {more}Content-Length: 0\r\n\r\n"
        )
    }

    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Sends bytes: over a WebSocket as one message.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        match &mut self.wire {
            Wire::Datagrams(socket) => {
                socket.send(bytes).await.unwrap();
            }
            Wire::Stream(stream, _) => {
                stream.write_all(bytes).await.unwrap();
                stream.flush().await.unwrap();
            }
            Wire::WebSocket(socket) => {
                let text = String::from_utf8(bytes.to_vec()).unwrap();
                socket.send(Message::text(text)).await.unwrap();
            }
        }
    }

    /// The next message.
    pub async fn receive(&mut self) -> String {
        match timeout(SOON, self.next()).await.unwrap() {
            Some(message) => message,
            None => panic!("the connection was closed"),
        }
    }

    /// Exactly this many bytes of a stream.
    pub async fn receive_bytes(&mut self, length: usize) -> Vec<u8> {
        let Wire::Stream(stream, _) = &mut self.wire else { panic!("no stream") };
        let mut bytes = vec![0; length];
        timeout(SOON, stream.read_exact(&mut bytes)).await.unwrap().unwrap();
        bytes
    }

    /// Sends bytes below the WebSocket.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        let Wire::WebSocket(socket) = &mut self.wire else { panic!("no WebSocket") };
        socket.get_mut().write_all(bytes).await.unwrap();
    }

    /// Closes the sending side.
    pub async fn finish(&mut self) {
        let Wire::Stream(stream, _) = &mut self.wire else { panic!("no stream") };
        stream.shutdown().await.unwrap();
    }

    /// Checks that nothing more comes: the node has closed the connection.
    pub async fn is_closed(&mut self) -> bool {
        self.next().await.is_none()
    }

    /// The next WebSocket message of any kind.
    pub async fn receive_frame(&mut self) -> Message {
        let Wire::WebSocket(socket) = &mut self.wire else { panic!("no WebSocket") };
        timeout(SOON, socket.next()).await.unwrap().unwrap().unwrap()
    }

    pub async fn send_frame(&mut self, message: Message) {
        let Wire::WebSocket(socket) = &mut self.wire else { panic!("no WebSocket") };
        socket.send(message).await.unwrap();
    }

    async fn next(&mut self) -> Option<String> {
        match &mut self.wire {
            Wire::Datagrams(socket) => {
                let mut buffer = [0; 4_096];
                let length = socket.recv(&mut buffer).await.unwrap();
                Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
            }
            Wire::Stream(stream, framer) => loop {
                if let Some(frame) = framer.next_frame().unwrap() {
                    let Frame::Message(bytes) = frame else { panic!("{frame:?}") };
                    return Some(String::from_utf8(bytes.to_vec()).unwrap());
                }
                let mut buffer = [0; 4_096];
                match stream.read(&mut buffer).await {
                    Ok(0) | Err(_) => return None,
                    Ok(length) => framer.push(&buffer[..length]),
                }
            },
            Wire::WebSocket(socket) => match socket.next().await? {
                Ok(Message::Text(text)) => Some(text.to_string()),
                _ => None,
            },
        }
    }
}

/// Registers the phone's own address for a user.
pub async fn register(phone: &mut Phone, user: &str, password: &str) {
    let request = |phone: &Phone, cseq, more: &str| {
        let plain = phone.request("REGISTER", cseq, "register", "");
        plain
            .replace("<sip:100@127.0.0.1>", &format!("<sip:{user}@127.0.0.1>"))
            .replace("<sip:phone@127.0.0.1>", &format!("<sip:{user}@127.0.0.1>"))
            .replace("Content-Length", &format!("{more}Content-Length"))
    };
    phone.send(request(phone, 1, "")).await;
    let challenge = phone.receive().await;
    assert!(challenge.starts_with("SIP/2.0 401 "), "{challenge}");
    let challenges: Vec<&str> =
        challenge.lines().filter_map(|line| line.strip_prefix("WWW-Authenticate: ")).collect();
    let (username, password) = (user.to_owned(), password.to_owned());
    let credentials = Credentials { username, password, realm: None };
    let uri = "sip:100@127.0.0.1";
    let answer = digest::answer(&challenges, &Method::Register, uri, &credentials, 1, "cnonce");
    let authorization = format!("Authorization: {}\r\n", answer.unwrap());
    phone.send(request(phone, 2, &authorization)).await;
    let ok = phone.receive().await;
    assert!(ok.starts_with("SIP/2.0 200 "), "{ok}");
}

/// A TLS stream to a node, from a client with these files.
pub async fn tls(address: SocketAddr, files: &TlsFiles) -> (Box<dyn Duplex>, SocketAddr) {
    let stream = TcpStream::connect(address).await.unwrap();
    let local = stream.local_addr().unwrap();
    let connector = TlsConnector::from(TlsConfigs::load(files).unwrap().client.unwrap());
    let name = ServerName::from(address.ip());
    (Box::new(connector.connect(name, stream).await.unwrap()), local)
}

/// Opens a WebSocket.
pub async fn upgrade(
    stream: Box<dyn Duplex>,
    subprotocol: Option<&'static str>,
) -> Result<WebSocketStream<Box<dyn Duplex>>, tungstenite::Error> {
    upgrade_from(stream, subprotocol, None).await
}

async fn upgrade_from(
    stream: Box<dyn Duplex>,
    subprotocol: Option<&'static str>,
    origin: Option<&'static str>,
) -> Result<WebSocketStream<Box<dyn Duplex>>, tungstenite::Error> {
    let mut request = "ws://127.0.0.1/".into_client_request()?;
    for (name, value) in [("Sec-WebSocket-Protocol", subprotocol), ("Origin", origin)] {
        if let Some(value) = value {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
    }
    Ok(client_async(request, stream).await?.0)
}

/// An authority and its certificates, in a folder.
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// The certificate of the authority itself.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// A new certificate for a host name or address, and its key.
    pub fn certificate(&self, host: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = ["pem", "key"].map(|kind| self.folder.path().join(format!("{host}.{kind}")));
        std::fs::write(&files[0], certificate.pem()).unwrap();
        std::fs::write(&files[1], key.serialize_pem()).unwrap();
        let [certificate, key] = files;
        (certificate, key)
    }

    /// The files of a server at 127.0.0.1.
    pub fn server(&self) -> TlsFiles {
        TlsFiles { identity: Some(self.certificate("127.0.0.1")), ..TlsFiles::default() }
    }

    /// The files of a client that trusts this authority, and has no certificate.
    pub fn client(&self) -> TlsFiles {
        TlsFiles { server_ca: Some(self.file()), ..TlsFiles::default() }
    }
}
