//! A whole node as its users run it, a bot beside it, and other helpers of the tests.

#![allow(dead_code)] // Each test binary uses its own part of this.

pub mod baresip;
pub mod bot;
pub mod failing_disk;
pub mod fake_clock;
pub mod kept;
pub mod linphone;
pub mod live;
pub mod mutation;
pub mod npm;
pub mod peer;
pub mod pieces;
pub mod python;
pub mod raw;
pub mod sample;
pub mod sipp;
pub mod spoken;

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A daemon in a process of its own, in a folder of its own.
pub struct Node {
    child: Child,
    folder: TempDir,
    pub sip: SocketAddr,
    pub api: String,
    /// The printed address of each SIP listener, such as `tcp:127.0.0.1:40000`.
    listeners: Vec<String>,
    pub log: Arc<Mutex<String>>,
}

impl Node {
    /// Starts a daemon on free loopback ports with `extra` in its configuration.
    pub fn start(extra: &str) -> Self {
        Self::start_in(tempfile::tempdir().expect("a temporary folder"), extra)
    }

    /// Starts a daemon in a folder that an earlier daemon may have used.
    pub fn start_in(folder: TempDir, extra: &str) -> Self {
        Self::start_with_env(folder, extra, &[])
    }

    /// The same, with environment variables.
    pub fn start_with_env(folder: TempDir, extra: &str, env: &[(&str, &OsStr)]) -> Self {
        let mut daemon = Command::new(env!("CARGO_BIN_EXE_aftertone"));
        daemon.envs(env.iter().copied());
        Self::start_by(daemon, folder, extra)
    }

    /// Starts a daemon with this limit of open files.
    pub fn start_with_files(files: u32, extra: &str) -> Self {
        let mut daemon = Command::new("prlimit");
        daemon.args([&format!("--nofile={files}"), env!("CARGO_BIN_EXE_aftertone")]);
        Self::start_by(daemon, tempfile::tempdir().expect("a temporary folder"), extra)
    }

    /// Starts a daemon with a command, to which `serve` and its arguments are added.
    pub fn start_by(mut daemon: Command, folder: TempDir, extra: &str) -> Self {
        let config = folder.path().join("aftertone.toml");
        let has = |section: &str| extra.lines().any(|line| line.trim() == section);
        let mut text = String::new();
        for (section, body) in [
            ("[sip]", "listen = [\"udp:127.0.0.1:0\"]\n"),
            ("[media]", "ports = \"0-0\"\n"),
            ("[api]", "listen = \"127.0.0.1:0\"\n"),
            ("[fetch]", "allow_networks = [\"127.0.0.0/8\"]\n"),
        ] {
            if !has(section) {
                text.push_str(&format!("{section}\n{body}"));
            }
        }
        text.push_str(extra);
        std::fs::write(&config, text).expect("the configuration can be written");
        let mut child = daemon
            .args(["serve", "--config"])
            .arg(&config)
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the daemon can be started");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("standard error is piped");
        let kept = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let mut lines = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let (mut sip, mut api, mut listeners) = (None, None, Vec::new());
        let mut line = String::new();
        while sip.is_none() || api.is_none() {
            line.clear();
            if lines.read_line(&mut line).unwrap_or(0) == 0 {
                let status = child.wait();
                panic!("the daemon did not start ({status:?}):\n{}", log.lock().unwrap());
            }
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("SIP"), Some(address)) => {
                    let udp = address.strip_prefix("udp:").and_then(|text| text.parse().ok());
                    sip = sip.or(udp);
                    listeners.push(address.to_owned());
                }
                (Some("API"), Some(url)) => api = Some(url.to_owned()),
                _ => {}
            }
        }
        thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        Self { child, folder, sip: sip.unwrap(), api: api.unwrap(), listeners, log }
    }

    /// The address of the first listener of a transport such as `tcp`.
    pub fn listener(&self, transport: &str) -> SocketAddr {
        let prefix = format!("{transport}:");
        let named = self.listeners.iter().find_map(|listener| listener.strip_prefix(&prefix));
        named.expect("there is such a listener").parse().expect("an address")
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The clips in the folder, finished or not.
    pub fn clips(&self) -> Vec<PathBuf> {
        clips_in(&self.folder.path().join("recordings"))
    }

    /// Kills the process at once and returns its folder for the next one.
    pub fn kill(mut self) -> TempDir {
        self.child.kill().expect("the daemon can be killed");
        self.child.wait().expect("the daemon ends");
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    /// Sends a signal such as `TERM`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success());
    }

    /// Waits until the process has ended by itself.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < within, "the daemon still runs after {within:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The log so far; a line about an answer may be written after the answer.
    pub fn log_text(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log contains `words` exactly `times` times.
    ///
    /// # Panics
    ///
    /// When it does not within 10 s, or contains them more often.
    pub async fn logs(&self, words: &str, times: usize) {
        let count = || self.log_text().matches(words).count();
        let what = format!("the log says {times} times: {words}");
        eventually(&what, Duration::from_secs(10), async || (count() >= times).then_some(())).await;
        assert_eq!(count(), times, "{what}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the daemon's log\n{}---", self.log_text());
        }
    }
}

/// The clip files in a folder.
pub fn clips_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "wav" || e == "part"))
        .collect()
}

/// The program's path; panics with the name of the package to install.
pub fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("this test needs {name}: install Debian's package {package}"))
}

/// The bundled speech at 8 and at 16 kHz.
pub fn speech() -> aftertone_core::audio::Clip {
    aftertone::drivers::prompts::bundled("spoken").expect("the speech is bundled")
}

/// Waits for a condition, up to a limit.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
