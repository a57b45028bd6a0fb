//! sipp on both sides of a call, with the scenarios of `tests/sipp`.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    process::Stdio,
};

use aftertone_core::audio::{Rate, g711::Law};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{program, speech};

/// sipp as the called party, on a port of its own.
pub struct Called {
    pub address: SocketAddr,
    folder: TempDir,
    child: Child,
}

impl Called {
    /// Starts a scenario that takes one call over `transport` (`u1` or `t1`).
    pub fn start(scenario: &str, transport: &str, fill: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // sipp needs the number of a free port.
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        let mut command = sipp(&folder, &filled(scenario, fill));
        command.args(["-p", &address.port().to_string(), "-t", transport]);
        let child = command.stdout(Stdio::null()).spawn().expect("sipp runs");
        Self { address, folder, child }
    }

    /// Waits until the scenario has run to its end.
    pub async fn finish(mut self) {
        let status = self.child.wait().await.unwrap();
        assert!(status.success(), "sipp: {status:?}\n{}", errors(&self.folder));
    }
}

/// Runs a scenario once, in which sipp calls `user` at `peer`.
pub async fn call_over(peer: SocketAddr, scenario: &str, user: &str, fill: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    finish(sipp(&folder, &filled(scenario, fill)), &folder, peer, user).await;
}

/// Starts a scenario in `folder`, in which sipp calls `user` at `peer` from `host`. It runs until
/// it is killed or dropped.
pub fn start(
    folder: &Path,
    host: IpAddr,
    peer: SocketAddr,
    scenario: &str,
    user: &str,
    fill: &[(&str, &str)],
) -> Child {
    let mut command = sipp_at(host, folder, &filled(scenario, fill));
    command.args(["-s", user, &peer.to_string()]).stdout(Stdio::null());
    command.spawn().expect("sipp runs")
}

async fn finish(mut command: Command, folder: &TempDir, peer: SocketAddr, user: &str) {
    let output = command.args(["-s", user, &peer.to_string()]).output().await.expect("sipp runs");
    let end = String::from_utf8_lossy(&output.stdout);
    let end = &end[end.len().saturating_sub(1500)..];
    assert!(output.status.success(), "sipp: {:?}\n{}\n{end}", output.status, errors(folder));
}

/// The bundled speech as raw µ-law, as sipp streams it.
pub fn raw_speech(folder: &Path) -> String {
    let path = folder.join("speech.ulaw");
    let codes: Vec<u8> =
        speech().samples(Rate::Hz8000).iter().map(|sample| Law::Mu.encode(*sample)).collect();
    std::fs::write(&path, codes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A scenario of `tests/sipp` with its placeholders filled in.
fn filled(scenario: &str, fill: &[(&str, &str)]) -> String {
    let text = std::fs::read_to_string(format!("tests/sipp/{scenario}.xml")).unwrap();
    fill.iter().fold(text, |text, (name, value)| text.replace(&format!("@{name}@"), value))
}

/// sipp for one call.
fn sipp(folder: &TempDir, text: &str) -> Command {
    sipp_at(IpAddr::from([127, 0, 0, 1]), folder.path(), text)
}

fn sipp_at(host: IpAddr, folder: &Path, text: &str) -> Command {
    let file = folder.join("scenario.xml");
    std::fs::write(&file, text).unwrap();
    let media = std::net::UdpSocket::bind((host, 0)).unwrap();
    let media_port = media.local_addr().unwrap().port() & !1;
    drop(media);
    let host = host.to_string();
    let mut command = Command::new(program("sipp", "sip-tester"));
    command
        .args(["-sf", file.to_str().unwrap(), "-m", "1", "-i", &host])
        .args(["-mi", &host, "-mp", &media_port.to_string()])
        .args(["-nostdin", "-timeout", "100s", "-timeout_error", "-trace_err", "-error_file"])
        .arg(folder.join("errors"))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

fn errors(folder: &TempDir) -> String {
    std::fs::read_to_string(folder.path().join("errors")).unwrap_or_default()
}

/// Runs steps of [`xml`] once, in which sipp calls `user` at `peer`.
pub async fn run(peer: SocketAddr, user: &str, steps: &[String]) {
    let head = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
    let text = format!("{head}\n<scenario name=\"steps\">{}</scenario>", steps.concat());
    let folder = tempfile::tempdir().unwrap();
    finish(sipp(&folder, &text), &folder, peer, user).await;
}

/// The parts of scenarios that need no file of their own.
pub mod xml {
    pub const SENDRECV: &str = "v=0\no=sipp 1 [cseq] IN IP4 [local_ip]\ns=-\nc=IN IP4 [media_ip]\n\
                                t=0 0\nm=audio [media_port] RTP/AVP 0\na=sendrecv\n";

    pub fn sdp(address: &str, direction: &str) -> String {
        SENDRECV.replace("[media_ip]", address).replace("sendrecv", direction)
    }

    pub fn invite(cseq: u32, extra: &str, sdp: &str) -> String {
        message("INVITE", cseq, extra, sdp)
    }

    /// A request without a body; within the dialog, once there is one.
    pub fn request(method: &str, cseq: u32, extra: &str) -> String {
        message(method, cseq, extra, "")
    }

    pub fn ack(cseq: u32) -> String {
        message("ACK", cseq, "", "")
    }

    /// A key in INFO, as phones send it.
    pub fn info(cseq: u32, key: char) -> String {
        let body = format!("Signal={key}\nDuration=160\n");
        message("INFO", cseq, "", &body).replace("application/sdp", "application/dtmf-relay")
    }

    pub fn pause(ms: u32) -> String {
        format!("<pause milliseconds=\"{ms}\"/>")
    }

    pub fn recv(status: u16) -> String {
        format!("<recv response=\"{status}\" rrs=\"true\"/>")
    }

    pub fn recv_optional(status: u16) -> String {
        format!("<recv response=\"{status}\" optional=\"true\"/>")
    }

    /// A response that contains `words`; for `RSeq: `, the number after it is `[$rseq]` from then
    /// on.
    pub fn recv_with(status: u16, words: &str) -> String {
        let (pattern, variables) = match words {
            "RSeq: " => ("RSeq: ([0-9]+)", "line,rseq"),
            words => (words, "line"),
        };
        format!(
            "<recv response=\"{status}\" rrs=\"true\"><action><ereg regexp=\"{pattern}\" \
             search_in=\"msg\" check_it=\"true\" assign_to=\"{variables}\"/></action></recv>\
             <nop><action><strcmp assign_to=\"used\" variable=\"line\" value=\"\"/></action></nop>\
             <Reference variables=\"used\"/>"
        )
    }

    /// Expects a request within so many seconds.
    pub fn recv_request(method: &str, seconds: u32) -> String {
        format!("<recv request=\"{method}\" timeout=\"{}\"></recv>", seconds * 1_000)
    }

    /// Stores what is needed to answer a request later.
    pub fn keep(recv: String) -> String {
        let one = |header: &str, name: &str| {
            format!(
                "<ereg regexp=\".*\" search_in=\"hdr\" header=\"{header}\" assign_to=\"{name}\"/>"
            )
        };
        let kept = [("Via:", "via"), ("From:", "from"), ("To:", "to"), ("CSeq:", "cseq_line")];
        let kept: String = kept.iter().map(|(header, name)| one(header, name)).collect();
        recv.replace("</recv>", &format!("<action>{kept}</action></recv>"))
    }

    /// Answers the stored request.
    pub fn answer_kept(status: u16) -> String {
        format!(
            "<send><![CDATA[\nSIP/2.0 {status} Answer\nVia:[$via]\nFrom:[$from]\nTo:[$to]\n\
             Call-ID: [call_id]\nCSeq:[$cseq_line]\nContent-Length: 0\n\n]]></send>"
        )
    }

    /// Answers the last message.
    pub fn answer(status: u16, method: &str) -> String {
        answer_with(status, method, "", "")
    }

    pub fn answer_with(status: u16, method: &str, extra: &str, sdp: &str) -> String {
        let retrans = if method == "INVITE" { " retrans=\"500\"" } else { "" };
        format!(
            "<send{retrans}><![CDATA[\nSIP/2.0 {status} Answer\n[last_Via:]\n[last_From:]\n[last_To:]\n\
             [last_Call-ID:]\n[last_CSeq:]\nContact: <sip:sipp@[local_ip]:[local_port]>\n\
             {extra}{}Content-Length: [len]\n\n{sdp}]]></send>",
            kind(sdp)
        )
    }

    fn message(method: &str, cseq: u32, extra: &str, sdp: &str) -> String {
        let retrans = if method == "ACK" { "" } else { " retrans=\"500\"" };
        let is_first = method == "INVITE" && cseq == 1;
        let uri = if is_first { "sip:[service]@[remote_ip]:[remote_port]" } else { "[next_url]" };
        format!(
            "<send{retrans}><![CDATA[\n{method} {uri} SIP/2.0\n\
             Via: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n\
             From: <sip:sipp@[local_ip]:[local_port]>;tag=[pid]\n\
             To: <sip:[service]@[remote_ip]:[remote_port]>[peer_tag_param]\n\
             Call-ID: [call_id]\nCSeq: {cseq} {method}\n\
             Contact: <sip:sipp@[local_ip]:[local_port]>\nMax-Forwards: 70\n\
             {extra}{}Content-Length: [len]\n\n{}]]></send>",
            kind(sdp),
            sdp.replace("[cseq]", &cseq.to_string())
        )
    }

    fn kind(sdp: &str) -> &'static str {
        if sdp.is_empty() { "" } else { "Content-Type: application/sdp\n" }
    }
}
