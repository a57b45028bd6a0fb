//! A small softphone: one call over real SIP and RTP sockets, with G.711 µ-law and RFC 4733 keys.
//!
//! It has its own few lines of SIP and shares no SIP code with the server, so that a call proves
//! something about the server. It suffices only for the demo and the tests: no authentication, one
//! codec, and no retransmission except of the INVITE.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{net::UdpSocket, sync::watch, task::JoinSet, time::timeout};

use aftertone_core::{audio::g711::Law, model::Tone};

/// Why a call of the phone failed.
#[derive(Debug, thiserror::Error)]
pub enum PhoneError {
    /// A socket failed.
    #[error("socket: {0}")]
    Io(#[from] io::Error),
    /// The server did not answer in time.
    #[error("no {0} in time")]
    Timeout(&'static str),
    /// The server refused the call.
    #[error("the call was refused: {0}")]
    Refused(String),
    /// The server's answer cannot be parsed.
    #[error("unreadable answer: {0}")]
    Unreadable(String),
}

/// One SIP message that was sent or received, for the report.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it was sent or received.
    pub at: Instant,
    /// Whether the phone sent it.
    pub sent: bool,
    /// The start line.
    pub line: String,
}

/// A call of the phone. Dropping it ends its tasks without a BYE.
pub struct Phone {
    shared: Arc<PhoneState>,
    dialog: PhoneDialog,
    sip: Arc<UdpSocket>,
    ended: watch::Receiver<bool>,
    _tasks: JoinSet<()>,
}

/// The parts of the dialog that each request repeats.
#[derive(Debug, Clone)]
struct PhoneDialog {
    server: SocketAddr,
    local: SocketAddr,
    uri: String,
    target: String,
    call_id: String,
    from: String,
    to: String,
}

#[derive(Default)]
struct PhoneState {
    media: Mutex<PhoneMedia>,
    seen: Mutex<Vec<Seen>>,
}

#[derive(Default)]
struct PhoneMedia {
    /// Speech frames of 160 samples, or packets of a key press; one is sent every 20 ms.
    queue: VecDeque<OutgoingMedia>,
    first_spoken: Option<Instant>,
    /// The received audio, positioned by RTP timestamp, and the arrival time of each packet.
    heard: Vec<i16>,
    arrivals: Vec<(usize, Instant)>,
    first_rtp_ts: Option<u32>,
    /// Received keys, and the RTP timestamp that all packets of one press share (RFC 4733 section
    /// 2.5.1.2).
    keys: Vec<(u32, Tone)>,
}

#[derive(Debug, Clone)]
enum OutgoingMedia {
    Speech(Box<[i16; FRAME]>),
    Key { tone: Tone, first: bool, duration: u16, end: bool },
}

const FRAME: usize = 160;
const FRAME_TIME: Duration = Duration::from_millis(20);
const EVENT_PT: u8 = 101;
/// Limit on received keys, because the phone does not trust the server.
const MAX_KEYS: usize = 1000;
/// RFC 3261 section 17.1.1.2, timer B.
const INVITE_TIMEOUT: Duration = Duration::from_secs(32);

impl Phone {
    /// Calls `user` at `server` and returns when the call is answered and acknowledged.
    ///
    /// # Errors
    /// The server refuses, does not answer, or sends an invalid answer.
    pub async fn call(server: SocketAddr, user: &str) -> Result<Self, PhoneError> {
        let any = SocketAddr::new(server.ip(), 0);
        let sip = Arc::new(UdpSocket::bind(any).await?);
        let rtp = UdpSocket::bind(any).await?;
        // A connected socket drops late packets to a phone that had this port before.
        sip.connect(server).await?;
        let local = sip.local_addr()?;
        let id: u64 = rand::random();
        let uri = format!("sip:{user}@{server}");
        let mut dialog = PhoneDialog {
            server,
            local,
            target: uri.clone(),
            call_id: format!("{id:016x}@{}", local.ip()),
            from: format!("\"Demo phone\" <sip:phone@{local}>;tag={id:x}"),
            to: format!("<{uri}>"),
            uri,
        };
        let shared = Arc::new(PhoneState::default());
        let offer = offer(local, rtp.local_addr()?.port());
        let branch = format!("z9hG4bK{:x}", rand::random::<u64>());
        let invite = dialog.request("INVITE", 1, &branch, Some(&offer));
        let answer = exchange_invite(&sip, server, &invite, &shared).await?;
        if let Some(to) = header(&answer, "To") {
            dialog.to = to.to_owned();
        }
        let status = status(&answer)?;
        if status >= 300 {
            let ack = dialog.request("ACK", 1, &branch, None);
            shared.send(&sip, server, &ack).await?;
            return Err(PhoneError::Refused(start_line(&answer).to_owned()));
        }
        if let Some(contact) = header(&answer, "Contact") {
            let inner = contact.split(['<', '>']).nth(1).unwrap_or(contact);
            dialog.target = inner.to_owned();
        }
        let remote = media_address(&answer)?;
        let ack = dialog.request("ACK", 1, &new_branch(), None);
        shared.send(&sip, server, &ack).await?;
        rtp.connect(remote).await?;

        let (ended_sender, ended) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(signalling(Arc::clone(&sip), server, ack, Arc::clone(&shared), ended_sender));
        tasks.spawn(media(rtp, Arc::clone(&shared), ended.clone()));
        Ok(Self { shared, dialog, sip, ended, _tasks: tasks })
    }

    /// Queues speech at 8,000 Hz. It is sent in real time, with silence before and after it.
    pub fn speak(&self, samples: &[i16]) {
        let mut media = self.shared.media();
        for piece in samples.chunks(FRAME) {
            let mut frame = Box::new([0; FRAME]);
            frame[..piece.len()].copy_from_slice(piece);
            media.queue.push_back(OutgoingMedia::Speech(frame));
        }
    }

    /// Queues a key press of 100 ms after the queued speech. No audio is sent during the press, and
    /// its end is sent three times (RFC 4733 section 2.5.1.4).
    pub fn press(&self, tone: Tone) {
        let mut media = self.shared.media();
        for step in 1..=5u16 {
            let duration = step * FRAME as u16;
            media.queue.push_back(OutgoingMedia::Key {
                tone,
                first: step == 1,
                duration,
                end: false,
            });
        }
        for _ in 0..3 {
            let duration = 5 * FRAME as u16;
            media.queue.push_back(OutgoingMedia::Key { tone, first: false, duration, end: true });
        }
    }

    /// Whether everything in the queue has been sent.
    pub fn is_quiet(&self) -> bool {
        self.shared.media().queue.is_empty()
    }

    /// The audio received so far, at 8,000 Hz.
    pub fn heard(&self) -> Vec<i16> {
        self.shared.media().heard.clone()
    }

    /// The received keys, each press once.
    pub fn keys(&self) -> Vec<Tone> {
        self.shared.media().keys.iter().map(|(_, tone)| *tone).collect()
    }

    /// Arrival time of the sample at position `place` of the received audio.
    pub fn heard_at(&self, place: usize) -> Option<Instant> {
        let media = self.shared.media();
        let index = media.arrivals.partition_point(|(start, _)| *start <= place);
        media.arrivals.get(index.checked_sub(1)?).map(|(_, at)| *at)
    }

    /// When the first speech frame was sent.
    pub fn first_spoken_at(&self) -> Option<Instant> {
        self.shared.media().first_spoken
    }

    /// The SIP messages so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the server has ended the call.
    pub async fn ended(&mut self) {
        is_over(&mut self.ended).await;
    }

    /// Ends the call.
    ///
    /// # Errors
    /// The socket failed.
    pub async fn hang_up(&self) -> Result<(), PhoneError> {
        let bye = self.dialog.request("BYE", 2, &new_branch(), None);
        self.shared.send(&self.sip, self.dialog.server, &bye).await
    }
}

impl PhoneState {
    fn media(&self) -> MutexGuard<'_, PhoneMedia> {
        self.media.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw(&self, sent: bool, message: &str) {
        let seen = Seen { at: Instant::now(), sent, line: start_line(message).to_owned() };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    }

    async fn send(&self, sip: &UdpSocket, to: SocketAddr, text: &str) -> Result<(), PhoneError> {
        sip.send_to(text.as_bytes(), to).await?;
        self.saw(true, text);
        Ok(())
    }
}

impl PhoneDialog {
    fn request(&self, method: &str, cseq: u32, branch: &str, sdp: Option<&str>) -> String {
        let Self { local, call_id, from, to, .. } = self;
        let target = if method == "INVITE" { &self.uri } else { &self.target };
        let body = sdp.unwrap_or_default();
        let content_type = match sdp {
            Some(_) => "Content-Type: application/sdp\r\n",
            None => "",
        };
        format!(
            "{method} {target} SIP/2.0\r\n\
             Via: SIP/2.0/UDP {local};branch={branch};rport\r\n\
             Max-Forwards: 70\r\n\
             From: {from}\r\n\
             To: {to}\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\n\
             Contact: <sip:phone@{local}>\r\n\
             User-Agent: aftertone-demo-phone\r\n\
             {content_type}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }
}

/// Sends the INVITE and retransmits it (timer A) until a final response arrives.
async fn exchange_invite(
    sip: &UdpSocket,
    server: SocketAddr,
    invite: &str,
    shared: &PhoneState,
) -> Result<String, PhoneError> {
    let mut buffer = vec![0; 65_535];
    let begun = Instant::now();
    let mut again = Duration::from_millis(500);
    let mut provisional = false;
    shared.send(sip, server, invite).await?;
    loop {
        if begun.elapsed() > INVITE_TIMEOUT {
            return Err(PhoneError::Timeout("final response"));
        }
        let received = timeout(again, sip.recv_from(&mut buffer)).await;
        match received {
            Err(_) if provisional => {}
            Err(_) => {
                shared.send(sip, server, invite).await?;
                again *= 2;
            }
            Ok(result) => {
                let (length, _) = result?;
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                shared.saw(false, &text);
                match status(&text)? {
                    100..=199 => provisional = true,
                    _ => return Ok(text),
                }
            }
        }
    }
}

/// Answers the server's requests, and acknowledges a repeated 200.
async fn signalling(
    sip: Arc<UdpSocket>,
    server: SocketAddr,
    ack: String,
    shared: Arc<PhoneState>,
    ended: watch::Sender<bool>,
) {
    let mut buffer = vec![0; 65_535];
    while let Ok((length, _)) = sip.recv_from(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        shared.saw(false, &text);
        let response = match start_line(&text).split(' ').next().unwrap_or_default() {
            "SIP/2.0" => {
                let to_invite = header(&text, "CSeq").is_some_and(|cseq| cseq.ends_with("INVITE"));
                let to_bye = header(&text, "CSeq").is_some_and(|cseq| cseq.ends_with("BYE"));
                if to_bye {
                    ended.send_replace(true);
                }
                if !to_invite {
                    continue;
                }
                ack.clone()
            }
            "BYE" => {
                ended.send_replace(true);
                ok_to(&text)
            }
            _ => ok_to(&text),
        };
        if shared.send(&sip, server, &response).await.is_err() {
            return;
        }
    }
}

/// Sends one packet every 20 ms and receives packets until the call has ended. After that, the
/// server's port may belong to another call.
async fn media(rtp: UdpSocket, shared: Arc<PhoneState>, mut ended: watch::Receiver<bool>) {
    let ssrc: u32 = rand::random();
    let mut seq: u16 = rand::random();
    let mut rtp_ts: u32 = rand::random();
    let mut event_ts = rtp_ts;
    let mut tick = tokio::time::interval(FRAME_TIME);
    let mut buffer = [0; 2048];
    loop {
        tokio::select! {
            biased;
            () = is_over(&mut ended) => return,
            _ = tick.tick() => {
                let next = shared.media().queue.pop_front();
                let mut packet = Vec::with_capacity(12 + FRAME);
                let (pt, marker, ts) = match &next {
                    Some(OutgoingMedia::Key { first, .. }) => {
                        if *first {
                            event_ts = rtp_ts;
                        }
                        (EVENT_PT, *first, event_ts)
                    }
                    Some(OutgoingMedia::Speech(_)) | None => (0, false, rtp_ts),
                };
                packet.extend([0x80, pt | (u8::from(marker) << 7)]);
                packet.extend(seq.to_be_bytes());
                packet.extend(ts.to_be_bytes());
                packet.extend(ssrc.to_be_bytes());
                match &next {
                    Some(OutgoingMedia::Speech(frame)) => {
                        packet.extend(frame.iter().map(|sample| Law::Mu.encode(*sample)));
                        shared.media().first_spoken.get_or_insert_with(Instant::now);
                    }
                    Some(OutgoingMedia::Key { tone, duration, end, .. }) => {
                        packet.extend([tone.event_code(), 10 | (u8::from(*end) << 7)]);
                        packet.extend(duration.to_be_bytes());
                    }
                    None => packet.extend([Law::Mu.encode(0); FRAME]),
                }
                seq = seq.wrapping_add(1);
                rtp_ts = rtp_ts.wrapping_add(FRAME as u32);
                // A closed port of the server causes an ICMP error. It is ignored, because SIP
                // signals the end of the call.
                let _ = rtp.send(&packet).await;
            }
            received = rtp.recv(&mut buffer) => {
                if let Ok(length) = received {
                    shared.media().take(&buffer[..length]);
                }
            }
        }
    }
}

async fn is_over(ended: &mut watch::Receiver<bool>) {
    // An error means that the signalling task has ended, and the call with it.
    let _ = ended.wait_for(|ended| *ended).await;
}

impl PhoneMedia {
    fn take(&mut self, packet: &[u8]) {
        let Some((head, payload)) = packet.split_at_checked(12) else { return };
        let rtp_ts = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let key = payload.first().and_then(|code| Tone::from_event_code(*code));
        match (head[0], head[1] & 0x7f, key) {
            (0x80, 0, _) => {}
            (0x80, EVENT_PT, Some(key)) => {
                let is_known = self.keys.last().is_some_and(|(last, _)| *last == rtp_ts);
                if !is_known && self.keys.len() < MAX_KEYS {
                    self.keys.push((rtp_ts, key));
                }
                return;
            }
            _ => return,
        }
        let first = *self.first_rtp_ts.get_or_insert(rtp_ts);
        let place = rtp_ts.wrapping_sub(first) as usize;
        // At most ten minutes, because the phone does not trust the server.
        if place > 10 * 60 * 8000 {
            return;
        }
        let end = place + payload.len();
        if self.heard.len() < end {
            self.heard.resize(end, 0);
        }
        for (sample, byte) in self.heard[place..end].iter_mut().zip(payload) {
            *sample = Law::Mu.decode(*byte);
        }
        self.arrivals.push((place, Instant::now()));
    }
}

fn offer(local: SocketAddr, port: u16) -> String {
    let family = if local.is_ipv4() { "IP4" } else { "IP6" };
    let ip = local.ip();
    format!(
        "v=0\r\no=phone 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0 {EVENT_PT}\r\na=rtpmap:0 PCMU/8000\r\n\
         a=rtpmap:{EVENT_PT} telephone-event/8000\r\na=fmtp:{EVENT_PT} 0-15\r\na=ptime:20\r\n"
    )
}

fn ok_to(request: &str) -> String {
    let mut response = String::from("SIP/2.0 200 OK\r\n");
    for line in request.lines().skip(1).take_while(|line| !line.is_empty()) {
        let name = line.split(':').next().unwrap_or_default();
        if ["Via", "From", "To", "Call-ID", "CSeq"].iter().any(|n| n.eq_ignore_ascii_case(name)) {
            response.push_str(line);
            response.push_str("\r\n");
        }
    }
    response.push_str("Content-Length: 0\r\n\r\n");
    response
}

fn new_branch() -> String {
    format!("z9hG4bK{:x}", rand::random::<u64>())
}

fn start_line(message: &str) -> &str {
    message.lines().next().unwrap_or_default()
}

fn status(response: &str) -> Result<u16, PhoneError> {
    let code = start_line(response).strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3));
    code.and_then(|code| code.parse().ok())
        .ok_or_else(|| PhoneError::Unreadable(start_line(response).to_owned()))
}

fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.lines().take_while(|line| !line.is_empty()).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// The address of the first `c=` line, with the port of the audio line.
fn media_address(answer: &str) -> Result<SocketAddr, PhoneError> {
    let find = |prefix: &str, word: usize| {
        let line = answer.lines().find(|line| line.starts_with(prefix))?;
        line.split(' ').nth(word)
    };
    let ip = find("c=IN", 2).and_then(|ip| ip.trim().parse().ok());
    let port = find("m=audio", 1).and_then(|port| port.parse().ok());
    match (ip, port) {
        (Some(ip), Some(port)) => Ok(SocketAddr::new(ip, port)),
        _ => Err(PhoneError::Unreadable("no address for the audio".to_owned())),
    }
}
