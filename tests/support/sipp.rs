//! sipp on both sides of a call, with the scenarios of `tests/sipp`.

use std::{net::SocketAddr, path::Path, process::Stdio};

use aftertone::audio::{Rate, g711::Law};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{program, speech};

/// sipp as the called side, on a port of its own.
pub struct Called {
    pub address: SocketAddr,
    folder: TempDir,
    child: Child,
}

impl Called {
    /// Starts a scenario that takes one call over `transport` (`u1` or `t1`).
    pub fn start(scenario: &str, transport: &str, fill: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // sipp binds a port that we have to name: one that is free.
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap();
        drop(probe);
        let mut command = sipp(&folder, scenario, fill);
        command.args(["-p", &address.port().to_string(), "-t", transport]);
        let child = command.stdout(Stdio::null()).spawn().expect("sipp runs");
        Self { address, folder, child }
    }

    /// The scenario has run to its end.
    pub async fn finish(mut self) {
        let status = self.child.wait().await.unwrap();
        assert!(status.success(), "sipp: {status:?}\n{}", errors(&self.folder));
    }
}

/// Runs a scenario once that calls `user` at `peer`.
pub async fn call_over(peer: SocketAddr, scenario: &str, user: &str, fill: &[(&str, &str)]) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = sipp(&folder, scenario, fill);
    let output = command.args(["-s", user, &peer.to_string()]).output().await.expect("sipp runs");
    let end = String::from_utf8_lossy(&output.stdout);
    let end = &end[end.len().saturating_sub(1500)..];
    assert!(output.status.success(), "sipp: {:?}\n{}\n{end}", output.status, errors(&folder));
}

/// The bundled speech as raw µ-law, as sipp streams it.
pub fn raw_speech(folder: &Path) -> String {
    let path = folder.join("speech.ulaw");
    let codes: Vec<u8> =
        speech().samples(Rate::Hz8000).iter().map(|sample| Law::Mu.encode(*sample)).collect();
    std::fs::write(&path, codes).unwrap();
    path.to_str().unwrap().to_owned()
}

/// sipp for one call, with the scenario filled in.
fn sipp(folder: &TempDir, scenario: &str, fill: &[(&str, &str)]) -> Command {
    let mut text = std::fs::read_to_string(format!("tests/sipp/{scenario}.xml")).unwrap();
    for (name, value) in fill {
        text = text.replace(&format!("@{name}@"), value);
    }
    let file = folder.path().join("scenario.xml");
    std::fs::write(&file, text).unwrap();
    let media = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let media_port = media.local_addr().unwrap().port() & !1;
    drop(media);
    let mut command = Command::new(program("sipp", "sip-tester"));
    command
        .args(["-sf", file.to_str().unwrap(), "-m", "1", "-i", "127.0.0.1"])
        .args(["-mi", "127.0.0.1", "-mp", &media_port.to_string()])
        .args(["-nostdin", "-timeout", "40s", "-timeout_error", "-trace_err", "-error_file"])
        .arg(folder.path().join("errors"))
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

fn errors(folder: &TempDir) -> String {
    std::fs::read_to_string(folder.path().join("errors")).unwrap_or_default()
}
