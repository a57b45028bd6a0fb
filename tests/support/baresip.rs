//! baresip as a phone: plays the bundled speech four times and writes what it hears to a file.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    process::{Child, Command},
};

use super::{program, spoken};

/// A running baresip.
pub struct Baresip {
    folder: PathBuf,
    control: SocketAddr,
    child: Child,
}

impl Baresip {
    /// Starts it in `folder` with one account, and runs `commands`.
    pub fn start(folder: &Path, account: &str, codec: &str, commands: &[&str]) -> Self {
        Self::start_at("127.0.0.1", &[], folder, account, codec, commands)
    }

    /// Starts it at an address, with a prefix such as `ip netns exec`.
    pub fn start_at(
        address: &str,
        by: &[&str],
        folder: &Path,
        account: &str,
        codec: &str,
        commands: &[&str],
    ) -> Self {
        // Opus is always declared as stereo (RFC 7587 section 7), and baresip takes the declaration
        // literally.
        let (rate, channels) = if codec.starts_with("PCM") { (8_000, 1) } else { (48_000, 2) };
        let input = spoken::write(folder, rate, channels);
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let control = probe.local_addr().unwrap();
        drop(probe);
        let config = format!(
            "module_path /usr/lib/baresip/modules\nmodule aufile.so\nmodule g711.so\n\
             module opus.so\nmodule srtp.so\nmodule aubridge.so\nmodule sndfile.so\nmodule_tmp account.so\nmodule_app menu.so\nmodule ctrl_tcp.so\n\
             ctrl_tcp_listen {control}\naudio_source aufile,{}\naudio_player aubridge,nobody\nsnd_path {}\n\
             audio_channels 1-2\nsip_listen {address}:0\nsip_verify_server no\n",
            input.display(),
            folder.display(),
        );
        std::fs::write(folder.join("config"), config).unwrap();
        std::fs::write(folder.join("accounts"), format!("{account}\n")).unwrap();
        std::fs::write(folder.join("contacts"), "").unwrap();
        let baresip = program("baresip", "baresip");
        let mut words = by.iter().map(OsStr::new).chain([baresip.as_os_str()]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).args(["-f", folder.to_str().unwrap(), "-n", address]);
        for line in commands {
            command.args(["-e", line]);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(folder.join("log")).unwrap())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("baresip runs");
        Self { folder: folder.to_owned(), control, child }
    }

    /// Sends a key.
    pub async fn press(&self, key: &str) {
        self.command("sndcode", key).await;
    }

    /// Runs a command over its control port (netstrings of JSON).
    pub async fn command(&self, name: &str, parameters: &str) {
        let mut stream = TcpStream::connect(self.control).await.expect("baresip's control port");
        let json = json!({"command": name, "params": parameters}).to_string();
        stream.write_all(format!("{}:{json},", json.len()).as_bytes()).await.unwrap();
        // baresip reads the command some time after it was sent; the connection stays open until
        // then.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    pub async fn stop(&mut self) {
        self.child.kill().await.unwrap();
    }
}

/// How well the bundled speech is found in what baresip heard in its last call, which is over.
pub fn heard(folder: &Path) -> f64 {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let last = files.filter(|path| path.to_string_lossy().ends_with("-dec.wav")).max();
    spoken::heard_in(&last.expect("baresip has written what it heard"))
}
