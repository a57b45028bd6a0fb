//! Peers of a few lines of text each, for behaviour that no phone has.
//!
//! [`Caller`] places a call and then does only what the test says. [`Peer`] is the target of a
//! trunk: it takes any number of calls at a time, and the called number says what it does. Such a
//! number is a 2 and the status for the INVITE: 2486 is busy, 2200 answers. Three more digits are
//! the status of a transfer to that number: a party that is transferred to 2200404 reports that it
//! was not found. In a number that redirects, the further digits name the new target: 2302200 leads
//! to 2200.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{net::UdpSocket, task::JoinHandle};

/// Rings until it is canceled.
pub const RINGS: &str = "2180";
/// Answers without a session description.
pub const SPEECHLESS: &str = "2202";
/// Answers and hangs up.
pub const HANGS_UP: &str = "2201";
/// Does the same, and is not a number.
pub const PERSON: &str = "2alice";
/// Answers, and has forgotten the call when its session is refreshed.
pub const FORGETFUL: &str = "2203";

/// A running peer.
pub struct Peer {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

/// A call that was answered.
struct Dialog {
    user: String,
    /// Our side and the other one, as our requests name them.
    from: String,
    to: String,
    target: String,
    cseq: u32,
}

impl Peer {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn(serve(socket, address, Arc::clone(&heard)));
        Self { address, heard, task }
    }

    /// The configuration section that makes this peer a trunk.
    pub fn trunk(&self) -> String {
        format!(
            "[[trunks]]\nname = \"peer\"\nhost = \"{}\"\ntransport = \"udp\"\n\
             allow = [\"2*\", \"2*@127.0.0.1\"]\ncaller = \"4711\"\n",
            self.address
        )
    }

    /// The received requests of a method, complete.
    pub fn heard(&self, method: &str) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|text| text.starts_with(method)).cloned().collect()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An INVITE of a peer that does nothing by itself: no ACK, no RTP.
pub struct Caller {
    socket: UdpSocket,
    node: SocketAddr,
    call_id: String,
}

impl Caller {
    /// Calls `bot`, with these additional header fields.
    pub async fn invite(node: SocketAddr, headers: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let caller = Self { socket, node, call_id: format!("{:x}", rand::random::<u64>()) };
        caller.send("INVITE", headers, &sdp(node)).await;
        caller
    }

    pub async fn send(&self, method: &str, headers: &str, sdp: &str) {
        let local = self.socket.local_addr().unwrap();
        let Self { node, call_id, .. } = self;
        let kind = if sdp.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let text = format!(
            "{method} sip:bot@{node} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{call_id}\r\n\
             From: <sip:caller@{local}>;tag=1\r\nTo: <sip:bot@{node}>\r\nCall-ID: {call_id}\r\n\
             CSeq: 1 {method}\r\nContact: <sip:caller@{local}>\r\nMax-Forwards: 70\r\n\
             {headers}{kind}Content-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        );
        self.socket.send_to(text.as_bytes(), node).await.unwrap();
    }

    /// Waits for a response with this status.
    pub async fn response(&self, status: u16) -> String {
        let mut buffer = vec![0; 65_535];
        let wanted = format!("SIP/2.0 {status} ");
        loop {
            let received = self.socket.recv(&mut buffer);
            let received = tokio::time::timeout(Duration::from_secs(20), received).await;
            let length = received.unwrap_or_else(|_| panic!("no {status} in time")).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]);
            if text.starts_with(&wanted) {
                return text.into_owned();
            }
        }
    }
}

fn sdp(at: SocketAddr) -> String {
    format!(
        "v=0\r\no=peer 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n",
        ip = at.ip()
    )
}

async fn serve(socket: UdpSocket, local: SocketAddr, heard: Arc<Mutex<Vec<String>>>) {
    let mut dialogs: HashMap<String, Dialog> = HashMap::new();
    let mut buffer = vec![0; 65_535];
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        let method = text.split(' ').next().unwrap_or_default();
        if method != "SIP/2.0" {
            heard.lock().unwrap().push(text.clone());
        }
        let call_id = header(&text, "Call-ID").to_owned();
        let mut messages = Vec::new();
        match method {
            "INVITE" | "UPDATE" if header(&text, "To").contains(";tag=") => {
                messages.push(response(&text, 481, local, ""));
            }
            "INVITE" => messages.extend(invited(&text, local, &call_id, &mut dialogs)),
            // The ACK of a refusal matches no dialog.
            "ACK" => {
                let dialog = dialogs.get_mut(&call_id);
                let leaves =
                    dialog.filter(|dialog| [HANGS_UP, PERSON].contains(&dialog.user.as_str()));
                messages.extend(leaves.map(|dialog| dialog.request("BYE", local, &call_id, "")));
            }
            "CANCEL" => {
                messages.push(response(&text, 200, local, ""));
                messages.push(response(
                    &text.replace("CSeq: 1 CANCEL", "CSeq: 1 INVITE"),
                    487,
                    local,
                    "",
                ));
            }
            "REFER" => messages.extend(referred(&text, local, &call_id, &mut dialogs)),
            "SIP/2.0" => {}
            _ => messages.push(response(&text, 200, local, "")),
        }
        for message in messages {
            socket.send_to(message.as_bytes(), from).await.unwrap();
        }
    }
}

fn invited(
    text: &str,
    local: SocketAddr,
    call_id: &str,
    dialogs: &mut HashMap<String, Dialog>,
) -> Vec<String> {
    let user = user_of(text.split(' ').nth(1).unwrap_or_default()).to_owned();
    let status = match user.as_str() {
        PERSON => 200,
        user => user.get(1..4).and_then(|status| status.parse().ok()).unwrap_or(404),
    };
    // 2201 to 2209 are ways to answer.
    let status = if (201..210).contains(&status) { 200 } else { status };
    if status != 200 {
        return vec![response(text, status, local, "")];
    }
    let tagged = format!("{};tag=peer", header(text, "To"));
    let contact = header(text, "Contact").split(['<', '>']).nth(1).unwrap_or_default().to_owned();
    let dialog = Dialog {
        user: user.clone(),
        from: tagged,
        to: header(text, "From").to_owned(),
        target: contact,
        cseq: 10,
    };
    dialogs.insert(call_id.to_owned(), dialog);
    let body = if user == SPEECHLESS { String::new() } else { sdp(local) };
    let answer = response(text, 200, local, &body);
    let session = "Require: timer\r\nSession-Expires: 90;refresher=uac\r\nContact:";
    vec![if user == FORGETFUL { answer.replacen("Contact:", session, 1) } else { answer }]
}

fn referred(
    text: &str,
    local: SocketAddr,
    call_id: &str,
    dialogs: &mut HashMap<String, Dialog>,
) -> Vec<String> {
    let Some(dialog) = dialogs.get_mut(call_id) else {
        return vec![response(text, 481, local, "")];
    };
    let target = user_of(header(text, "Refer-To"));
    let digits = target.get(4..7).or(target.get(1..4)).unwrap_or("404");
    let mut told = vec![response(text, 202, local, "")];
    told.extend(["100", digits].map(|status| {
        dialog.request("NOTIFY", local, call_id, &format!("SIP/2.0 {status} As called\r\n"))
    }));
    told
}

impl Dialog {
    fn request(
        &mut self,
        method: &str,
        local: SocketAddr,
        call_id: &str,
        fragment: &str,
    ) -> String {
        self.cseq += 1;
        let is_last = !fragment.contains(" 100 ");
        let state = if is_last { "terminated;reason=noresource" } else { "active;expires=60" };
        let event = match method {
            "NOTIFY" => format!(
                "Event: refer\r\nSubscription-State: {state}\r\n\
                 Content-Type: message/sipfrag;version=2.0\r\n"
            ),
            _ => String::new(),
        };
        format!(
            "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK{:x}\r\n\
             From: {}\r\nTo: {}\r\nCall-ID: {call_id}\r\nCSeq: {} {method}\r\n\
             Contact: <sip:{}@{local}>\r\nMax-Forwards: 70\r\n{event}Content-Length: {}\r\n\r\n{fragment}",
            self.target,
            rand::random::<u64>(),
            self.from,
            self.to,
            self.cseq,
            self.user,
            fragment.len(),
        )
    }
}

fn response(request: &str, status: u16, local: SocketAddr, body: &str) -> String {
    let user = user_of(request.split(' ').nth(1).unwrap_or_default());
    let user = match (status, user, user.get(4..7)) {
        (_, "", _) => "peer".to_owned(),
        (300..400, _, Some(digits)) => format!("2{digits}"),
        _ => user.to_owned(),
    };
    let mut text = format!("SIP/2.0 {status} As called\r\n");
    for line in request.lines().skip(1).take_while(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default();
        if ["Via", "From", "Call-ID", "CSeq"].contains(&name) {
            text.push_str(&format!("{line}\r\n"));
        }
        if name == "To" {
            let tag = if line.contains(";tag=") { "" } else { ";tag=peer" };
            text.push_str(&format!("{line}{tag}\r\n"));
        }
    }
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "{text}Contact: <sip:{user}@{local}>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The user part of the first SIP URI in a text.
fn user_of(text: &str) -> &str {
    let user = text.split("sip:").nth(1).and_then(|rest| rest.split_once('@'));
    user.map_or("", |(user, _)| user)
}

/// The first value of a header field.
pub fn header<'a>(message: &'a str, name: &str) -> &'a str {
    let found = message.lines().take_while(|line| !line.is_empty()).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    });
    found.unwrap_or_default()
}
