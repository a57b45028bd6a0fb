//! A peer that is a socket: it sends what the test says and returns what comes back.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use md5::{Digest, Md5};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long a test listens for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(700);
/// How long an expected answer may take; only a failing test waits for so long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A session description that every peer supports.
pub const SDP: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                       m=audio 9 RTP/AVP 0\r\n";

/// Sends `bytes` from a fresh socket of `host`; returns the final response.
pub async fn ask_by_udp(
    host: IpAddr,
    node: SocketAddr,
    bytes: &[u8],
    wanted: u16,
) -> Option<String> {
    let socket = UdpSocket::bind((host, 0)).await.unwrap();
    socket.send_to(bytes, node).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let answer = async {
        loop {
            let length = socket.recv(&mut buffer).await.unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if status(&text).is_some_and(|status| status >= 200) {
                return text;
            }
        }
    };
    timeout(patience(wanted), answer).await.ok()
}

/// The same over a new TCP connection.
pub async fn ask_by_tcp(node: SocketAddr, bytes: &[u8], wanted: u16) -> Option<String> {
    let mut stream = TcpStream::connect(node).await.unwrap();
    // A message that is too long may be refused before all of it is sent.
    let _ = stream.write_all(bytes).await;
    let mut heard = String::new();
    let answer = async {
        let mut buffer = [0; 65_535];
        loop {
            let starts = heard.match_indices("SIP/2.0 ").map(|(at, _)| &heard[at..]);
            let mut whole = starts.filter(|text| text.contains("\r\n\r\n"));
            if let Some(text) = whole.find(|text| status(text).is_some_and(|it| it >= 200)) {
                return Some(text.to_owned());
            }
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return None,
                Ok(length) => heard.push_str(&String::from_utf8_lossy(&buffer[..length])),
            }
        }
    };
    timeout(patience(wanted), answer).await.ok().flatten()
}

fn patience(wanted: u16) -> Duration {
    if wanted == 0 { SILENCE } else { PATIENCE }
}

/// The status of a response.
pub fn status(text: &str) -> Option<u16> {
    text.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
}

/// The first value of a header field, by its long name.
pub fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split("\r\n").take_while(|line| !line.is_empty()).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The value of `tag=` in To.
pub fn to_tag(text: &str) -> Option<&str> {
    header(text, "To")?.split_once(";tag=").map(|(_, tag)| tag)
}

/// A request with one more header field: the answer to the challenge in `refusal` (MD5, RFC 2617
/// without `qop`). All other bytes stay as they are.
pub fn with_password(request: &[u8], refusal: &str, user: &str, password: &str) -> Option<Vec<u8>> {
    let challenge = header(refusal, "WWW-Authenticate")?;
    let value = |name: &str| {
        let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
        rest.split('"').next()
    };
    let (realm, nonce) = (value("realm")?, value("nonce")?);
    let end = request.iter().position(|byte| *byte == b'\n')? + 1;
    let line = std::str::from_utf8(&request[..end]).ok()?;
    let mut words = line.split_whitespace();
    let (method, uri) = (words.next()?, words.next()?);
    let hash = |text: String| -> String {
        Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let whose = hash(format!("{user}:{realm}:{password}"));
    let what = hash(format!("{method}:{uri}"));
    let response = hash(format!("{whose}:{nonce}:{what}"));
    let field = format!(
        "Authorization: Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", \
         uri=\"{uri}\", response=\"{response}\", algorithm=MD5\r\n"
    );
    Some([&request[..end], field.as_bytes(), &request[end..]].concat())
}

/// One call of a peer over UDP: its requests and the responses.
pub struct Peer {
    socket: UdpSocket,
    node: SocketAddr,
    user: String,
    call_id: String,
    /// Our tag of the dialog, once there is one.
    tag: String,
}

impl Peer {
    /// A call to `user` that has not begun.
    pub async fn new(host: IpAddr, node: SocketAddr, user: &str, call_id: &str) -> Self {
        let socket = UdpSocket::bind((host, 0)).await.unwrap();
        socket.connect(node).await.unwrap();
        let (user, call_id) = (user.to_owned(), call_id.to_owned());
        Self { socket, node, user, call_id, tag: String::new() }
    }

    /// Moves the peer to another network.
    pub async fn moves_to(&mut self, host: IpAddr) {
        self.socket = UdpSocket::bind((host, 0)).await.unwrap();
        self.socket.connect(self.node).await.unwrap();
    }

    /// A request of this call.
    pub fn request(&self, method: &str, cseq: u32, branch: &str, body: &str) -> String {
        let kind = if body.is_empty() { "" } else { "application/sdp" };
        self.head(method, cseq, branch, kind, body.len()) + body
    }

    /// Its first INVITE, with any body.
    pub fn invite_with(&self, kind: &str, body: &[u8]) -> Vec<u8> {
        self.request_with("INVITE", 1, kind, body)
    }

    /// A request of this call, with any body; `kind` may be followed by further header fields.
    pub fn request_with(&self, method: &str, cseq: u32, kind: &str, body: &[u8]) -> Vec<u8> {
        let branch = if cseq == 1 { "i".to_owned() } else { format!("w{cseq}") };
        [self.head(method, cseq, &branch, kind, body.len()).as_bytes(), body].concat()
    }

    fn head(&self, method: &str, cseq: u32, branch: &str, kind: &str, length: usize) -> String {
        let Self { node, user, call_id, tag, .. } = self;
        let local = self.socket.local_addr().unwrap();
        // A CANCEL has the To of its INVITE (RFC 3261 section 9.1).
        let tag = if method == "CANCEL" { "" } else { tag };
        let kind = match kind {
            "" => String::new(),
            kind => format!("Content-Type: {kind}\r\n"),
        };
        // The port may be that of an earlier call; the branch is unique.
        format!(
            "{method} sip:{user}@{node} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{call_id}-{branch}\r\n\
             From: <sip:a@{local}>;tag=a\r\nTo: <sip:{user}@{node}>{tag}\r\nCall-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\nContact: <sip:a@{local}>\r\nMax-Forwards: 70\r\n{kind}\
             Content-Length: {length}\r\n\r\n"
        )
    }

    pub async fn send(&self, message: impl AsRef<[u8]>) {
        self.socket.send(message.as_ref()).await.unwrap();
    }

    /// Sends a request; see [`Peer::request`].
    pub async fn say(&self, method: &str, cseq: u32, branch: &str, body: &str) {
        self.send(self.request(method, cseq, branch, body)).await;
    }

    /// The next message within `time`, if any.
    pub async fn next(&mut self, time: Duration) -> Option<String> {
        let mut buffer = vec![0; 65_535];
        let length = timeout(time, self.socket.recv(&mut buffer)).await.ok()?.unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let is_final = status(&text).is_some_and(|status| status >= 200);
        let is_to_invite = header(&text, "CSeq").is_some_and(|cseq| cseq.ends_with("INVITE"));
        if let Some(tag) = to_tag(&text).filter(|_| is_final && is_to_invite) {
            self.tag = format!(";tag={tag}");
        }
        Some(text)
    }

    /// Waits for a response to `method` with a wanted status; other messages are skipped.
    pub async fn wait_for(&mut self, method: &str, wanted: impl Fn(u16) -> bool) -> String {
        let mut others = Vec::new();
        while let Some(text) = self.next(PATIENCE).await {
            let is_to_it = header(&text, "CSeq").is_some_and(|cseq| cseq.ends_with(method));
            if is_to_it && status(&text).is_some_and(&wanted) {
                return text;
            }
            others.push(text);
        }
        let call = &self.call_id;
        panic!("no such answer to {method} of {call}; there were {others:#?}");
    }

    /// The address that it calls from.
    pub fn local(&self) -> SocketAddr {
        self.socket.local_addr().unwrap()
    }
}
